"""A chosen subset is a data set: its files, its tables, and what is never overwritten."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.data import chosen_set, fitting
from tfgan_med.data.check import check
from tfgan_med.data.choosing import Choice, choose, span
from tfgan_med.data.comparing_subsets import compare, read, reopen, table
from tfgan_med.data.opening import open_set
from tfgan_med.data.picture_rows import open_rows
from tfgan_med.data.records import DataConfig, ImageSet
from tfgan_med.data.selection import SelectionConfig
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
SIDE = 16


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, picture: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def chosen_from(
    folder: Path, size: int = 4, selection: Mapping[str, Any] | None = None, **settings: Any
) -> Choice:
    rows = open_rows(DataConfig(**{"path": str(folder), "image_size": SIDE, **settings}))
    space = span(rows, rows.pixels(), "pixels")
    return choose(
        rows, space, SelectionConfig(**{"method": "random", "size": size, **(selection or {})})
    )


def opened(folder: Path) -> ImageSet:
    """A subset as training reads it: sound, and all of it for training."""
    config = DataConfig(path=str(folder))
    found = open_set(config)
    assert found.faults == ()
    assert {record.split for record in found.records} == {"train"}
    assert check(config).errors == ()
    return found


# Layouts ------------------------------------------------------------------------------------------


def paired(folder: Path, count: int = 8) -> Path:
    """Pictures with masks, objects and class maps; class and group in a table."""
    lines = ["file,split,class,group"]
    for n in range(count):
        mask = np.zeros((24, 32), np.uint8)
        mask[4 + n : 12 + n, 5 : 15 + n] = 1
        write(folder / "images" / "ward" / f"{n}.png", noise(n, 24, 32, 3))
        write(folder / "masks" / "ward" / f"{n}.png", 255 * mask)
        write(folder / "instances" / "ward" / f"{n}.png", 300 * mask.astype(np.uint16))
        write(folder / "labels" / "ward" / f"{n}.png", 2 * mask)
        lines.append(f"images/ward/{n}.png,train,{'ab'[n % 2]},patient {n // 2}")
    (folder / "splits.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_every_file_of_an_item_comes_along_with_class_and_group(tmp_path: Path) -> None:
    choice = chosen_from(paired(tmp_path / "set"))
    chosen_set.write(choice, tmp_path / "out")
    found = opened(tmp_path / "out")
    assert found.roles == ("images", "instances", "labels", "masks")
    assert {(r.id, r.label, r.group) for r in found.records} == {
        (r.id, r.label, r.group) for r in choice.records
    }
    for record in found.records:
        for part in record.parts.values():  # links: the same file, no second copy
            below = part.path.relative_to(tmp_path / "out")
            assert part.path.samefile(tmp_path / "set" / below)


def test_copies_are_files_of_their_own(tmp_path: Path) -> None:
    written = chosen_set.write(chosen_from(paired(tmp_path / "set")), tmp_path / "out", copy=True)
    assert (written.linked, written.copied) == (0, 16)
    for name in written.names:
        mine, theirs = tmp_path / "out" / name, tmp_path / "set" / name
        assert mine.read_bytes() == theirs.read_bytes()
        assert not mine.samefile(theirs)


def test_where_links_cannot_be_made_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    written = chosen_set.write(chosen_from(paired(tmp_path / "set")), tmp_path / "out")
    assert (written.linked, written.copied) == (0, 16)
    opened(tmp_path / "out")


def test_class_folders_are_kept_and_folders_of_splits_fall_away(tmp_path: Path) -> None:
    data = tmp_path / "set"
    for n in range(12):
        part = "train" if n < 8 else "test"
        write(data / part / "ab"[n % 2] / f"{n % 8}.png", noise(n, 20, 20))
    rows = open_rows(DataConfig(path=str(data), image_size=SIDE), "all")
    choice = choose(rows, span(rows, rows.pixels(), "p"), SelectionConfig(method="random", size=12))
    chosen_set.write(choice, tmp_path / "out")
    found = opened(tmp_path / "out")
    assert [(r.id, r.label) for r in found.records if r.label == "a"] == [
        (f"images/a/{name}.png", "a") for name in ("0-2", "0", "2-2", "2", "4", "6")
    ]  # train/a/0.png and test/a/0.png would have one name
    assert len(found.records) == 12


def test_a_flat_folder_has_figures_beside_its_pictures_not_among_them(tmp_path: Path) -> None:
    for n in range(6):
        write(tmp_path / "set" / f"{n}.png", noise(n, 20, 20))

    def draw(folder: Path) -> None:
        write(folder / "scatter.png", noise(9, 50, 50, 3))

    chosen_set.write(chosen_from(tmp_path / "set"), tmp_path / "out", draw=draw)
    assert len(opened(tmp_path / "out").records) == 4
    assert (tmp_path / "out" / "scatter.png").is_file()
    assert {record.label for record in opened(tmp_path / "out").records} == {None}


def test_items_of_a_table_get_folders_that_need_no_table(tmp_path: Path) -> None:
    data = tmp_path / "set"
    lines = ["filename;mask;label;patient_id"]
    for n in range(6):
        write(data / "scans" / f"{n}.png", noise(n, 20, 20))
        write(data / "drawn by hand" / f"mask of {n}.png", np.eye(20, dtype=np.uint8) * 255)
        lines.append(f"scans/{n}.png;drawn by hand/mask of {n}.png;{'xy'[n % 2]};p{n}")
    (data / "list.csv").write_text("\n".join(lines) + "\n")
    choice = chosen_from(data / "list.csv")
    chosen_set.write(choice, tmp_path / "out")
    found = opened(tmp_path / "out")
    assert [
        (f"images/{r.id}", r.label, r.group) for r in sorted(choice.records, key=lambda r: r.id)
    ] == [(r.id, r.label, r.group) for r in found.records]
    assert found.roles == ("images", "masks")


def test_masks_alone_stay_masks(tmp_path: Path) -> None:
    for n in range(6):
        mask = np.zeros((20, 20), np.uint8)
        mask[: 2 * n + 3] = 255
        write(tmp_path / "set" / "masks" / f"{n}.png", mask)
    chosen_set.write(chosen_from(tmp_path / "set"), tmp_path / "out")
    assert opened(tmp_path / "out").layout == "masks"


def test_two_kinds_without_partners_become_two_classes(tmp_path: Path) -> None:
    for n in range(8):
        write(tmp_path / "set" / ("trainA", "trainB")[n % 2] / f"{n}.png", noise(n, 20, 20))
    chosen_set.write(chosen_from(tmp_path / "set", 6), tmp_path / "out")
    found = opened(tmp_path / "out")
    assert found.labels == ("A", "B")
    assert all(record.id.startswith(f"images/{record.label}/") for record in found.records)


def test_halves_of_a_file_become_a_pair_of_pictures(tmp_path: Path) -> None:
    for n in range(5):
        write(tmp_path / "set" / f"{n}.png", noise(n, 20, 40, 3))
    choice = chosen_from(tmp_path / "set", layout="side-by-side")
    assert choice.rows.encoding.role == "right"
    chosen_set.write(choice, tmp_path / "out")
    for record in opened(tmp_path / "out").records:
        whole = noise(int(Path(record.id).stem), 20, 40, 3)
        left, right = (np.asarray(Image.open(record.parts[r].path)) for r in ("inputs", "images"))
        np.testing.assert_array_equal(np.hstack([left, right]), whole)


def test_a_built_in_set_can_be_chosen_from(tmp_path: Path) -> None:
    rows = open_rows(DataConfig(path="builtin:malaria?count=80&size=32", image_size=SIDE))
    choice = choose(rows, span(rows, rows.pixels(), "p"), SelectionConfig(method="random", size=9))
    chosen_set.write(choice, tmp_path / "out")
    assert len(opened(tmp_path / "out").records) == 9
    assert sum(counts["chosen"] for counts in choice.counts.values()) == 9


def test_tiles_are_pictures_with_the_tiles_of_all_that_belongs_to_them(tmp_path: Path) -> None:
    choice = chosen_from(paired(tmp_path / "set"), 10, fit="patches")
    written = chosen_set.write(choice, tmp_path / "out")
    assert len(opened(tmp_path / "out").records) == 10
    first = choice.records[0]
    tile = choice.rows.tiles[int(choice.subset.indices[0])]
    name = written.names[0].removeprefix("images/")
    assert name == f"ward/{Path(first.id).stem}-tile{tile + 1}.png"
    for role in first.parts:
        whole = np.asarray(Image.open(first.parts[role].path))
        tiles, _ = fitting.fit(np.atleast_3d(whole), SIDE, "patches", nearest=role != "images")
        made = np.asarray(Image.open(tmp_path / "out" / role / name))
        np.testing.assert_array_equal(np.atleast_3d(made), tiles[tile])
        assert role != "instances" or made.dtype == np.uint16


def test_names_of_dicom_files_do_not_reach_the_tables_of_the_selection(
    tmp_path: Path, planted: str
) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    for n in range(4):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        path = tmp_path / "set" / f"{planted}-{n}.dcm"
        path.parent.mkdir(exist_ok=True)
        dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 20, 20, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        noisy = np.random.default_rng(n).integers(0, 4096, (20, 20))
        dataset.PixelData = noisy.astype("<u2").tobytes()
        dataset.save_as(path, enforce_file_format=True)
    chosen_set.write(chosen_from(tmp_path / "set", 3), tmp_path / "out")
    ids = {record.id for record in opened(tmp_path / "out").records}
    assert {line["file"] for line in rows_in(tmp_path / "out" / "selection.csv")} == ids
    for name in ("selection.csv", "selection.json"):
        assert planted not in (tmp_path / "out" / name).read_text()
    chosen_set.write(chosen_from(tmp_path / "set", 3, fit="patches"), tmp_path / "tiles")
    assert not [path for path in (tmp_path / "tiles").rglob("*") if planted in path.name]


# Tables -------------------------------------------------------------------------------------------


def test_the_tables_say_what_was_chosen_and_how(tmp_path: Path) -> None:
    wanted = {"method": "kss", "clusters": 2}
    choice = chosen_from(paired(tmp_path / "set"), 5, wanted)
    chosen_set.write(choice, tmp_path / "out")
    lines = rows_in(tmp_path / "out" / "selection.csv")
    assert list(lines[0]) == ["rank", "file", "index", "cluster", "distance", "item"]
    assert [int(line["index"]) for line in lines] == choice.subset.indices.tolist()
    assert [choice.rows.names[int(line["index"])] for line in lines] == [
        line["item"] for line in lines
    ]
    by_cluster: dict[str, list[float]] = {}
    for line in lines:
        by_cluster.setdefault(line["cluster"], []).append(float(line["distance"]))
    assert all(d == sorted(d, reverse=True) for d in by_cluster.values())
    assert [len(d) for d in by_cluster.values()] == choice.subset.quota.tolist()
    facts = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert facts["selection"]["clusters"] == 2
    assert (facts["pictures"], facts["chosen"]) == (8, 5)
    assert facts["space"]["explained"] >= 0.9
    assert set(facts["spread"]) == set(choice.spread)
    assert {"numpy", "scikit-learn"} < set(facts["versions"])


def test_two_runs_write_the_same_tables(tmp_path: Path) -> None:
    for name in ("one", "two"):
        chosen_set.write(chosen_from(paired(tmp_path / "set")), tmp_path / name)
    for name in ("selection.csv", "selection.json", "splits.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_damaged_components_in_the_cache_are_computed_again(tmp_path: Path, cache: Path) -> None:
    before = chosen_from(paired(tmp_path / "set"), 3)
    for path in (cache / "components").iterdir():
        path.write_bytes(b"no archive")
    np.testing.assert_allclose(chosen_from(tmp_path / "set", 3).space.scores, before.space.scores)


# What is never overwritten ------------------------------------------------------------------------


def test_an_existing_folder_is_replaced_only_if_it_is_a_subset_and_by_force(tmp_path: Path) -> None:
    choice = chosen_from(paired(tmp_path / "set"))
    chosen_set.write(choice, tmp_path / "out")
    with pytest.raises(
        UserError, match=r"exists\. Name another folder, or replace it with --force"
    ):
        chosen_set.write(choice, tmp_path / "out")
    smaller = chosen_from(tmp_path / "set", 2)
    chosen_set.write(smaller, tmp_path / "out", force=True)
    assert len(opened(tmp_path / "out").records) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="--force replaces subsets only"):
        chosen_set.write(choice, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


@pytest.mark.parametrize("place", ["set/subset", "set", "."])
def test_data_and_subset_never_lie_in_each_other(tmp_path: Path, place: str) -> None:
    choice = chosen_from(paired(tmp_path / "set"))
    with pytest.raises(UserError, match="lie in each other"):
        chosen_set.write(choice, tmp_path / place, force=True)
    assert len(open_set(DataConfig(path=str(tmp_path / "set"))).records) == 8


def test_what_fails_leaves_nothing_behind_and_the_old_subset_in_place(tmp_path: Path) -> None:
    choice = chosen_from(paired(tmp_path / "set"))
    chosen_set.write(choice, tmp_path / "out")

    def fail(folder: Path) -> None:
        raise KeyboardInterrupt

    for name in ("out", "new"):
        with pytest.raises(KeyboardInterrupt):
            chosen_set.write(choice, tmp_path / name, force=True, draw=fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]
    assert len(opened(tmp_path / "out").records) == 4


# Comparing ----------------------------------------------------------------------------------------


def test_subsets_of_one_set_are_compared_by_overlap_and_spread(tmp_path: Path) -> None:
    paired(tmp_path / "set")
    one, two = chosen_from(tmp_path / "set", 3), chosen_from(tmp_path / "set", 5)
    chosen_set.write(one, tmp_path / "one")
    chosen_set.write(two, tmp_path / "two")
    subsets = [read(str(tmp_path / name)) for name in ("one", "two")]
    rows = reopen(subsets)
    found = compare(subsets, rows, one.space)
    assert found[0].shared == {"one": 3, "two": 3}  # a smaller draw is part of a larger one
    assert found[1].shared == {"one": 3, "two": 5}
    assert found[1].spread == pytest.approx(dict(two.spread))
    lines = list(csv.DictReader(table(found).splitlines()))
    assert [line["shared with two"] for line in lines] == ["3", "5"]
    assert [line["chosen"] for line in lines] == ["3", "5"]


def test_subsets_of_other_pictures_are_not_compared(tmp_path: Path) -> None:
    chosen_set.write(chosen_from(paired(tmp_path / "set")), tmp_path / "one")
    chosen_set.write(chosen_from(paired(tmp_path / "other", 7)), tmp_path / "two")
    with pytest.raises(UserError, match="two: chosen from other pictures than"):
        reopen([read(str(tmp_path / "one")), read(str(tmp_path / "two"))])


def test_changed_pictures_are_noticed(tmp_path: Path) -> None:
    chosen_set.write(chosen_from(paired(tmp_path / "set")), tmp_path / "one", copy=True)
    write(tmp_path / "set" / "images" / "ward" / "0.png", noise(99, 24, 32, 3))
    with pytest.raises(UserError, match="files were added, removed or changed"):
        reopen([read(str(tmp_path / "one"))])


def test_tiles_and_whole_pictures_are_not_compared(tmp_path: Path) -> None:
    chosen_set.write(chosen_from(paired(tmp_path / "set")), tmp_path / "whole")
    tiles = chosen_from(tmp_path / "set", 20, fit="patches")
    chosen_set.write(tiles, tmp_path / "tiles")
    subsets = [read(str(tmp_path / "whole")), read(str(tmp_path / "tiles"))]
    whole = chosen_from(tmp_path / "set")
    with pytest.raises(UserError, match="is none of the pictures of the first subset"):
        compare(subsets, whole.rows, whole.space)


@pytest.mark.parametrize("text", [None, "{", "{}", '{"format": 99}'])
def test_a_folder_that_is_no_subset_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "selection.json").write_text(text)
        (tmp_path / "selection.csv").write_text("item,cluster\n")
    with pytest.raises(UserError, match="no subset of this version"):
        read(str(tmp_path))
