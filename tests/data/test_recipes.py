"""Recipes: tiny archives with the real names become sets with the published splits."""

from __future__ import annotations

import csv
import importlib
import io
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgan_med import discovery
from tfgan_med.data import archives, decode, downloads, importing, opening, recipes
from tfgan_med.data.downloads import Download
from tfgan_med.data.importing import ALL, File, Item
from tfgan_med.data.records import SPLITS, DataConfig
from tfgan_med.errors import DataError, UserError

NAMES = discovery.available(recipes)


def png(seed: int, form: str = "PNG", channels: int = 0) -> bytes:
    """A small random picture."""
    shape = (12, 12, channels) if channels else (12, 12)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form)
    return out.getvalue()


def mask(lung: bool = True, heart: bool = True, form: str = "JPEG") -> bytes:
    """Blocks in the red and green channels."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16, 0] = 255 * lung
    pixels[16:, 16:, 1] = 255 * heart
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form, quality=95, subsampling=0)
    return out.getvalue()


def zipped(path: Path, contents: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, contents: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def unpacked(path: Path, contents: Mapping[str, bytes]) -> Path:
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "splits.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


# Each study ---------------------------------------------------------------------------------------


def montgomery(normal: int, abnormal: int) -> dict[str, bytes]:
    names = [f"MCUCXR_{n:04}_{int(n >= normal)}" for n in range(normal + abnormal)]
    files = {f"MontgomerySet/CXR_png/{name}.png": png(n) for n, name in enumerate(names)}
    masks = {f"MontgomerySet/ManualMask/leftMask/{name}.png": png(0) for name in names}
    texts = {f"MontgomerySet/ClinicalReadings/{name}.txt": b"male 35 yrs" for name in names}
    return {**files, **masks, **texts, "MontgomerySet/CXR_png/Thumbs.db": b""}


def shenzhen(normal: int, abnormal: int) -> dict[str, bytes]:
    names = [f"CHNCXR_{n:04}_{int(n >= normal)}" for n in range(normal + abnormal)]
    return {
        f"ChinaSet_AllFiles/CXR_png/{name}.png": png(500 + n, channels=3)
        for n, name in enumerate(names)
    }


def test_whole_tuberculosis_sets_give_the_splits_of_the_thesis(tmp_path: Path) -> None:
    given = [
        zipped(tmp_path / "NLM-MontgomeryCXRSet.zip", montgomery(80, 58)),
        zipped(tmp_path / "ChinaSet_AllFiles.zip", shenzhen(326, 336)),
    ]
    made = importing.import_set("tuberculosis_xrays", given, tmp_path / "set")
    # 366 + 355 for training with 40 + 39 for validation among them, 40 + 39 for testing.
    assert made.counts == {
        "abnormal": {"train": 316, "val": 39, "test": 39},
        "normal": {"train": 326, "val": 40, "test": 40},
    }
    assert made.warnings == ()
    images = opening.open_set(DataConfig(path=str(made.folder)))
    assert (images.layout, images.labels, images.faults) == ("folder", ("abnormal", "normal"), ())
    assert Counter(r.split for r in images.records) == {"train": 642, "val": 79, "test": 79}
    original = (made.folder / "abnormal" / "CHNCXR_0661_1.png").read_bytes()
    assert original == png(500 + 661, channels=3)
    again = importing.import_set("tuberculosis_xrays", given[::-1], tmp_path / "again")
    assert rows_of(again.folder) == rows_of(made.folder)


def test_a_part_of_a_set_is_divided_in_proportion_and_warned_about(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "download", montgomery(80, 58))
    made = importing.import_set("tuberculosis_xrays", [folder], tmp_path / "set")
    # 80 of 406 and 58 of 394: 80 * 326 / 406 = 64.2, 80 * 40 / 406 = 7.9.
    assert made.counts["normal"] == {"train": 64, "val": 8, "test": 8}
    assert "normal: expected 406 items, found 80." in made.warnings[0]
    assert "CHNCXR: expected 662 files, found 0." in made.warnings


def covid(new: bool) -> dict[str, bytes]:
    files = {}
    for label, count in (("Normal", 60), ("Viral Pneumonia", 20), ("COVID", 5)):
        for n in range(1, count + 1):
            if new:
                files[f"COVID-19_Radiography_Dataset/{label}/images/{label}-{n}.png"] = png(n)
                files[f"COVID-19_Radiography_Dataset/{label}/masks/{label}-{n}.png"] = png(0)
            else:
                upper = "NORMAL" if label == "Normal" else label
                name = f"COVID-19 Radiography Database/{upper}/{upper} ({n}).png"
                files[name] = png(n)
    return {**files, "COVID-19_Radiography_Dataset/Normal.metadata.xlsx": b""}


@pytest.mark.parametrize("new", [True, False])
def test_both_layouts_of_the_covid_database_are_read_without_masks_and_covid(
    new: bool, tmp_path: Path
) -> None:
    archive = zipped(tmp_path / "archive.zip", covid(new))
    made = importing.import_set("covid_radiography", [archive], tmp_path / "set")
    assert {label: sum(c.values()) for label, c in made.counts.items()} == {
        "normal": 60,
        "pneumonia": 20,
    }
    assert made.counts["normal"] == {"train": 48, "val": 6, "test": 6}
    assert made.counts["pneumonia"] == {"train": 16, "val": 2, "test": 2}
    assert len(made.warnings) == 2
    assert len(opening.open_set(DataConfig(path=str(made.folder))).records) == 80


def isic(part: str, first: int, count: int) -> dict[str, bytes]:
    files = {f"ISIC2018_Task1-2_{part}_Input/LICENSE.txt": b""}
    for n in range(first, first + count):
        picture = f"ISIC2018_Task1-2_{part}_Input/ISIC_{n:07}.jpg"
        files[picture] = png(n, "JPEG", 3)
        name = f"ISIC2018_Task1_{part}_GroundTruth/ISIC_{n:07}_segmentation.png"
        files[name] = png(n)
    return files


def test_the_official_validation_set_of_isic_becomes_the_test_split(tmp_path: Path) -> None:
    contents = {**isic("Training", 0, 50), **isic("Validation", 900, 4)}
    folder = unpacked(tmp_path / "isic", contents)
    made = importing.import_set("isic2018_lesions", [folder], tmp_path / "set")
    # 50 * 2076 / 2594 = 40.02
    assert made.counts == {ALL: {"train": 40, "val": 10, "test": 4}}
    images = opening.open_set(DataConfig(path=str(made.folder)))
    assert (images.layout, images.roles, images.faults) == ("paired", ("images", "masks"), ())
    assert {r.id for r in images.of_split("test")} == {
        f"images/ISIC_{n:07}.jpg" for n in range(900, 904)
    }
    original = (made.folder / "masks" / "ISIC_0000007.png").read_bytes()
    assert original == png(7)


def test_without_the_validation_set_of_isic_test_pairs_are_drawn(tmp_path: Path) -> None:
    contents = isic("Training", 0, 2594 // 10)
    contents.pop("ISIC2018_Task1_Training_GroundTruth/ISIC_0000003_segmentation.png")
    folder = unpacked(tmp_path / "isic", contents)
    made = importing.import_set("isic2018_lesions", [folder], tmp_path / "set")
    # 258 pairs at 1996 : 498 : 100 of 2594.
    assert made.counts == {ALL: {"train": 198, "val": 50, "test": 10}}
    assert any("1 pictures or masks of the training set" in w for w in made.warnings)
    assert any("was not given" in warning for warning in made.warnings)
    assert "the test split was drawn" in (made.folder / "SOURCE.md").read_text()


def ct(patients: int, slices: int, without_heart: int = 0) -> dict[str, bytes]:
    files = {"train.csv": b"ImageId,MaskId\n"}
    for p in range(patients):
        heart = p >= without_heart
        for n in range(slices):
            picture = f"images/images/ID{p:05}_{n}.jpg"
            files[picture] = png(1000 * p + n, "JPEG", 3)
            files[f"masks/masks/ID{p:05}_mask_{n}.jpg"] = mask(heart=heart)
    return files


def test_ct_slices_keep_patients_together_and_masks_become_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = importlib.import_module("tfgan_med.data.recipes.chest_ct_lung_heart_trachea")
    monkeypatch.setattr(recipe, "SELECTED", (60, 6))
    archive = zipped(tmp_path / "archive.zip", ct(22, 9, without_heart=2))
    made = importing.import_set("chest_ct_lung_heart_trachea", [archive], tmp_path / "set")
    assert sum(made.counts[ALL].values()) == 66 and made.counts[ALL]["test"] == 6
    assert any("2 of 22 patients have no heart mask" in warning for warning in made.warnings)
    images = opening.open_set(DataConfig(path=str(made.folder)))
    assert images.roles == ("images", "masks-heart", "masks-lung", "masks-trachea")
    homes: dict[str | None, set[str | None]] = {}
    for record in images.records:
        homes.setdefault(record.group, set()).add(record.split)
    assert len(homes) == 20 and all(len(home) == 1 for home in homes.values())
    assert Counter(home for splits in homes.values() for home in splits) == {
        "train": 16,
        "val": 2,
        "test": 2,
    }
    parts = images.records[0].parts
    heart = decode.read_labels(parts["masks-heart"], 10**6)
    expected = np.zeros((32, 32), np.uint8)
    expected[16:, 16:] = 255
    np.testing.assert_array_equal(heart, expected)
    assert not decode.read_labels(parts["masks-trachea"], 10**6).any()


def test_the_masks_of_the_thesis_ct_set_alone_are_answered_with_where_both_are(
    tmp_path: Path,
) -> None:
    archive = zipped(tmp_path / "a.zip", {"nrrd_lung/nrrd_lung/ID1_lung.nrrd": b"NRRD0004"})
    with pytest.raises(DataError, match="masks without pictures.*polomarco"):
        importing.import_set("chest_ct_lung_heart_trachea", [archive], tmp_path / "set")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_where_its_set_is_from_and_refuses_other_archives(
    name: str, tmp_path: Path
) -> None:
    recipe = importing.recipe(name)
    assert recipe.SOURCE.pages and recipe.SOURCE.citation and recipe.SOURCE.licence
    assert all(d.url.startswith("https://") for d in recipe.SOURCE.downloads)
    assert "thesis" in (importlib.import_module(f"{recipes.__name__}.{name}").__doc__ or "")
    archive = zipped(tmp_path / "other.zip", {"holiday.png": png(1)})
    with pytest.raises(DataError, match=r"none of the expected files.*found holiday\.png"):
        importing.import_set(name, [archive], tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_source_stands_beside_the_pictures(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "Montgomery.zip", montgomery(8, 6))
    folder = importing.import_set("tuberculosis_xrays", [archive], tmp_path / "set").folder
    text = (folder / "SOURCE.md").read_text()
    for needed in ("S. Jaeger", "Licence: for research", "Montgomery.zip", "| abnormal | 5 |"):
        assert needed in text
    assert "https://openi.nlm.nih.gov" in text


# Archives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [zipped, tarred, unpacked])
def test_zip_tar_and_folder_give_the_same(kind: object, tmp_path: Path) -> None:
    name = {zipped: "a.zip", tarred: "a.tar.gz", unpacked: "a"}[kind]  # type: ignore[index]
    given = kind(tmp_path / name, montgomery(8, 6))  # type: ignore[operator]
    made = importing.import_set("tuberculosis_xrays", [given], tmp_path / "set")
    assert made.counts["normal"] == {"train": 6, "val": 1, "test": 1}
    assert (made.folder / "normal" / "MCUCXR_0003_0.png").read_bytes() == png(3)


def test_archives_in_a_given_folder_are_read(tmp_path: Path) -> None:
    zipped(tmp_path / "Montgomery.zip", montgomery(8, 6))
    zipped(tmp_path / "China.zip", shenzhen(5, 5))
    with archives.opened([tmp_path]) as members:
        assert sum(member.folders[-1] == "CXR_png" for member in members) == 24


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png"]
)
@pytest.mark.parametrize("kind", [zipped, tarred])
def test_names_that_lead_outside_are_refused(kind: object, name: str, tmp_path: Path) -> None:
    suffix = "a.zip" if kind is zipped else "a.tar.gz"
    given = kind(tmp_path / suffix, {**montgomery(3, 3), name: png(0)})  # type: ignore[operator]
    with pytest.raises(DataError, match="would lie outside"):
        importing.import_set("tuberculosis_xrays", [given], tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == [suffix]


def test_links_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("CXR_png/MCUCXR_0001_0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    info = zipfile.ZipInfo("CXR_png/MCUCXR_0001_0.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    folder = unpacked(tmp_path / "folder", {"CXR_png/MCUCXR_0002_0.png": png(0)})
    (folder / "CXR_png" / "MCUCXR_0001_0.png").symlink_to("/etc/passwd")
    for given in (tmp_path / "a.tar", tmp_path / "a.zip", folder):
        with pytest.raises(DataError, match="link"), archives.opened([given]):
            pass


def test_bombs_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_SMALL", 1000)
    zeros = {"CXR_png/MCUCXR_0001_0.png": bytes(10**6)}
    with (
        pytest.raises(DataError, match="grows from"),
        archives.opened([zipped(tmp_path / "a.zip", zeros)]),
    ):
        pass
    many = {f"CXR_png/MCUCXR_{n:04}_0.png": bytes(10**5) for n in range(9)}
    with (
        pytest.raises(DataError, match="beyond measure"),
        archives.opened([tarred(tmp_path / "a.tar.gz", many)]),
    ):
        pass
    monkeypatch.setattr(archives, "MOST_BYTES", 10**5)
    with (
        pytest.raises(DataError, match="more than 100000"),
        archives.opened([zipped(tmp_path / "b.zip", zeros)]),
    ):
        pass


def test_damaged_archives_leave_nothing_behind(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "whole.zip", {"CXR_png/MCUCXR_0001_0.png": png(1) * 40})
    data = bytearray(whole.read_bytes())
    data[200] ^= 255
    (tmp_path / "damaged.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"MCUCXR_0001_0\.png: cannot be read"):
        importing.import_set("tuberculosis_xrays", [tmp_path / "damaged.zip"], tmp_path / "set")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:100])
    with pytest.raises(DataError, match="no readable zip archive"):
        importing.import_set("tuberculosis_xrays", [tmp_path / "cut.zip"], tmp_path / "set")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".zip"] * 3


def test_a_member_that_is_longer_than_declared_is_refused() -> None:
    member = archives.Member("a.png", 3, (0, 0), lambda: io.BytesIO(b"12345"))
    with pytest.raises(DataError, match="longer than its archive says"):
        member.read()
    member = archives.Member("a.png", 9, (0, 0), lambda: io.BytesIO(b"12345"))
    with pytest.raises(DataError, match="ends after 5 of 9 bytes"):
        member.read()


def test_an_existing_folder_and_a_set_given_twice_are_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", montgomery(3, 3))
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="--force"):
        importing.import_set("tuberculosis_xrays", [archive], tmp_path / "set")
    importing.import_set("tuberculosis_xrays", [archive], tmp_path / "set", replace_it=True)
    assert (tmp_path / "set" / "SOURCE.md").is_file()
    with pytest.raises(DataError, match="2 original files would get this name"):
        importing.import_set("tuberculosis_xrays", [archive, archive], tmp_path / "other")


# Splits -------------------------------------------------------------------------------------------


def test_counts_are_apportioned_by_largest_remainders() -> None:
    assert importing.apportion(406, (326, 40, 40)) == [326, 40, 40]
    assert importing.apportion(10, (1, 1, 1)) == [4, 3, 3]
    assert importing.apportion(0, (2, 1)) == [0, 0]
    for total in range(50):
        assert sum(importing.apportion(total, (8160, 1020, 1020))) == total


def test_a_split_depends_on_names_and_seed_alone() -> None:
    member = archives.Member("x", 0, (0, 0), io.BytesIO)
    items = [Item((File(f"{n}.png", member),)) for n in range(40)]
    wanted = {ALL: (2, 1, 1)}
    first = importing.divide(items, wanted)
    assert importing.divide(items[::-1], wanted) == first
    assert importing.divide(items, wanted, seed=1) != first
    assert [sum(i.split == s for i in first) for s in SPLITS] == [20, 10, 10]


# Downloads ----------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Sends `content`, on request from a place on; `cut` bytes fewer than announced."""

    content = b""
    cut = 0
    ranges: list[str | None]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        server: Server

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            self.server.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            body = self.server.content[start:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - self.server.cut])

        def log_message(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as here:
        here.ranges = []
        thread = threading.Thread(target=here.serve_forever)
        thread.start()
        yield here
        here.shutdown()
        thread.join()


def test_a_download_goes_on_where_it_was_cut_off(server: Server) -> None:
    server.content, server.cut = bytes(range(256)) * 100, 5600
    wanted = Download(f"http://127.0.0.1:{server.server_port}/set.zip", 1)
    with pytest.raises(DataError, match="cut off after 20000 of 25600 bytes"):
        downloads.fetch(wanted)
    assert not (downloads.store() / "set.zip").exists()
    server.cut = 0
    path = downloads.fetch(wanted)
    assert path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=20000-"]
    assert downloads.fetch(wanted) == path and len(server.ranges) == 2


def test_a_set_is_downloaded_and_imported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = zipped(tmp_path / "a.zip", montgomery(8, 6)).read_bytes()
    recipe = importlib.import_module("tfgan_med.data.recipes.tuberculosis_xrays")
    wanted = (Download(f"http://127.0.0.1:{server.server_port}/a.zip", 1),)
    monkeypatch.setattr(recipe, "SOURCE", replace(recipe.SOURCE, downloads=wanted))
    paths = [
        downloads.fetch(one) for one in importing.recipe("tuberculosis_xrays").SOURCE.downloads
    ]
    made = importing.import_set("tuberculosis_xrays", paths, tmp_path / "set")
    assert sum(made.counts["normal"].values()) == 8


def test_no_connection_is_said_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="could not be fetched .*give the file"):
        downloads.fetch(Download("http://127.0.0.1:9/a.zip", 1))
