"""`check` finds what would make training wrong, names it, and leaves the data alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageFilter, PngImagePlugin

from tfgan_med.data import duplicates, opening, overview
from tfgan_med.data.check import Report, check
from tfgan_med.data.records import DataConfig

Array = npt.NDArray[Any]


def scene(seed: int, size: int = 48, channels: int = 1) -> Array:
    """A picture with large and small structure, like no other."""
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, channels)).astype(np.uint8)
    image = Image.fromarray(noise.squeeze()).filter(ImageFilter.GaussianBlur(1.5))
    array = np.asarray(image, np.float32)
    low, high = array.min(), array.max()
    return np.asarray((array - low) / (high - low) * 255).astype(np.uint8)


def mask(seed: int, size: int = 48) -> Array:
    return np.where(scene(1000 + seed, size) > 150, 255, 0).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Sixty good pairs with splits: 40 train, 10 val, 10 test."""
    root = tmp_path / "smears"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["file,split,class,group"]
    for n in range(60):
        Image.fromarray(scene(n)).save(root / f"images/{n:02}.png")
        Image.fromarray(mask(n)).save(root / f"masks/{n:02}.png")
        split = "train" if n < 40 else "val" if n < 50 else "test"
        rows.append(f"images/{n:02}.png,{split},c{n % 2},g{n}")
    (root / "splits.csv").write_text("\n".join(rows))
    return root


def checked(root: Path, **settings: Any) -> Report:
    return check(DataConfig(path=str(root), **settings))


def kinds(report: Report) -> tuple[list[str], list[str]]:
    """Kinds of the errors and of the warnings."""
    return [f.kind for f in report.errors], [f.kind for f in report.warnings]


def fingerprint(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(str(path.stat().st_mtime_ns).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def test_a_good_set_is_fit_and_counted(pairs: Path) -> None:
    before = fingerprint(pairs)
    report = checked(pairs)
    assert report.ok
    assert not report.warnings
    assert report.counts["all"] == {"train": 40, "val": 10, "test": 10}
    assert report.counts["c0"] == {"train": 20, "val": 5, "test": 5}
    assert report.groups == {"train": 40, "val": 10, "test": 10}
    assert report.sizes["images"] == {"48 x 48": 60}
    assert report.modes["images"] == {"gray uint8": 60}
    assert report.ranges["masks"] == (0, 255)
    assert json.loads(json.dumps(report.as_json(), allow_nan=False))["items"] == 60
    assert fingerprint(pairs) == before


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is not an image")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(empty, "empty"), (text, "not an image"), (cut, "truncated"), (flip, "damaged")],
)
def test_unreadable_files_are_listed_by_kind(
    pairs: Path, spoil: Callable[[Path], None], kind: str
) -> None:
    spoil(pairs / "images/07.png")
    report = checked(pairs)
    assert kinds(report)[0] == [kind]
    assert report.errors[0].item == "images/07.png"
    assert report.items == 59
    lenient = checked(pairs, skip_bad=True)
    assert lenient.ok
    assert kinds(lenient)[1] == ["left out"]


def test_a_picture_over_the_limit_is_an_error(pairs: Path) -> None:
    Image.new("L", (300, 300)).save(pairs / "images/07.png")
    report = checked(pairs, max_pixels=48 * 48)
    assert kinds(report)[0] == ["too large"]
    assert "300 x 300" in report.errors[0].text


def test_a_missing_mask_is_an_error(pairs: Path) -> None:
    (pairs / "masks/07.png").unlink()
    report = checked(pairs)
    assert kinds(report)[0] == ["cannot be used"]
    assert str(report.errors[0]).startswith("images/07.png: no file of the same name in masks")


def test_a_mask_of_another_size_is_an_error(pairs: Path) -> None:
    Image.fromarray(mask(7)[1:]).save(pairs / "masks/07.png")
    [error] = checked(pairs).errors
    assert str(error).startswith("masks/07.png: the mask is 48 x 47, its image 48 x 48.")


@pytest.mark.parametrize(
    ("values", "cure"), [((0, 1, 254, 255), "save as PNG"), ((0, 1, 2), "labels/")]
)
def test_values_that_are_not_of_a_mask_are_an_error(
    pairs: Path, values: tuple[int, ...], cure: str
) -> None:
    odd = np.resize(np.array(values, np.uint8), (48, 48))
    Image.fromarray(odd).save(pairs / "masks/07.png")
    [error] = checked(pairs).errors
    assert error.kind == "mask values"
    assert ", ".join(map(str, values)) in error.text
    assert cure in error.text


def test_masks_of_0_and_1_are_fine_and_empty_ones_a_warning(pairs: Path) -> None:
    Image.fromarray((mask(7) > 0).astype(np.uint8)).save(pairs / "masks/07.png")
    for n in (8, 9):
        Image.new("L", (48, 48)).save(pairs / f"masks/{n:02}.png")
    report = checked(pairs)
    assert report.ok
    assert kinds(report)[1] == ["empty masks"]
    assert "2 of 60" in report.warnings[0].text


def test_a_picture_as_its_own_mask_is_an_error(pairs: Path) -> None:
    (pairs / "masks/07.png").write_bytes((pairs / "images/07.png").read_bytes())
    assert kinds(checked(pairs))[0] == ["picture as its own mask"]


def test_a_group_in_two_splits_is_an_error(pairs: Path) -> None:
    table = pairs / "splits.csv"
    table.write_text(
        table.read_text().replace(",g3\n", ",Jane Doe\n").replace(",g58\n", ",Jane Doe\n")
    )
    report = checked(pairs)
    assert kinds(report)[0] == ["group in two splits"]
    assert "images/03.png" in report.errors[0].text
    assert "images/58.png" in report.errors[0].text
    assert "Jane" not in str(report.as_json())
    assert checked(pairs, split="group").ok


def test_an_unknown_split_is_an_error_with_row_and_column(pairs: Path) -> None:
    table = pairs / "splits.csv"
    table.write_text(table.read_text().replace("images/02.png,train", "images/02.png,trian"))
    assert "splits.csv: row 4, column split: 'trian'" in str(checked(pairs).errors[0])


def test_identical_files_are_an_error_across_splits_and_a_warning_within(pairs: Path) -> None:
    (pairs / "images/55.png").write_bytes((pairs / "images/03.png").read_bytes())
    (pairs / "images/11.png").write_bytes((pairs / "images/10.png").read_bytes())
    report = checked(pairs)
    assert kinds(report) == (["identical across splits"], ["identical within a split"])
    assert report.errors[0].item == "images/55.png"
    assert "images/03.png in train" in report.errors[0].text


def resaved(image: Image.Image, path: Path) -> None:
    image.save(path, quality=85)


def halved(image: Image.Image, path: Path) -> None:
    image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(path)


def brightened(image: Image.Image, path: Path) -> None:
    image.point([int(40 + 0.8 * value) for value in range(256)]).save(path)


@pytest.mark.parametrize("change", [resaved, halved, brightened])
def test_a_picture_saved_again_in_another_split_is_an_error(
    tmp_path: Path, change: Callable[[Image.Image, Path], None]
) -> None:
    for n in range(60):
        folder = tmp_path / "data" / ("train" if n < 40 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        big = Image.fromarray(scene(n)).resize((192, 192), Image.Resampling.BICUBIC)
        big.save(folder / f"{n}.png")
        if n == 3:
            (tmp_path / "data" / "test").mkdir()
            change(big, tmp_path / "data" / "test" / "copy.jpg")
    report = checked(tmp_path / "data")
    assert kinds(report)[0] == ["nearly identical across splits"]
    assert {report.errors[0].item} < {"train/3.png", "test/copy.jpg"}


@pytest.mark.parametrize("texture", [0.3, 0.05])
def test_different_parts_before_a_fixed_camera_are_no_duplicates(texture: float) -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    part = 200 * (x**2 + y**2 < 0.8) - 120 * (x**2 + y**2 < 0.3)
    surfaces = np.stack([scene(n, 64) for n in range(30)]).astype(np.float32)
    pictures = part.astype(np.float32) + texture * surfaces
    assert duplicates.near_duplicates(pictures) == []
    pictures[9] = pictures[4] * 0.9 + 5
    assert duplicates.near_duplicates(pictures) == [duplicates.Pair(4, 9, True)]


def test_near_duplicates_among_thousands_take_seconds() -> None:
    generator = np.random.default_rng(0)
    thumbnails = generator.normal(size=(5000, 64, 64)).astype(np.float32)
    thumbnails[4321] = thumbnails[17] * 0.9 + 3
    assert duplicates.near_duplicates(thumbnails) == [duplicates.Pair(17, 4321, True)]


def test_grey_and_color_mixed_is_an_error_until_a_mode_is_chosen(pairs: Path) -> None:
    Image.fromarray(scene(7, channels=3)).save(pairs / "images/07.png")
    report = checked(pairs)
    assert kinds(report)[0] == ["grey and colour mixed"]
    assert "59 gray" in report.errors[0].text
    assert checked(pairs, mode="gray").ok


def test_8_and_16_bit_mixed_is_an_error(pairs: Path) -> None:
    Image.fromarray(scene(7).astype(np.uint16) * 257).save(pairs / "images/07.png")
    assert kinds(checked(pairs))[0] == ["depths mixed"]


def test_values_that_are_not_finite_are_an_error(pairs: Path) -> None:
    for n in range(60):
        values = scene(n).astype(np.float32)
        values[3, 4] = np.nan if n == 5 else np.inf if n == 6 else 0
        tifffile.imwrite(pairs / f"images/{n:02}.tif", values)
        (pairs / f"images/{n:02}.png").unlink()
    table = pairs / "splits.csv"
    table.write_text(table.read_text().replace(".png", ".tif"))
    report = checked(pairs)
    assert kinds(report)[0] == ["not finite"] * 2
    assert [finding.item for finding in report.errors] == ["images/05.tif", "images/06.tif"]


def test_odd_but_harmless_files_are_warnings(pairs: Path) -> None:
    Image.fromarray(scene(1)).save(pairs / "images/01.png", format="JPEG")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(scene(2)).save(pairs / "images/02.png", exif=exif)
    Image.fromarray(scene(3)).save(pairs / "images/03.png", icc_profile=b"profile")
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Synthetic", "yes")
    Image.fromarray(scene(4)).save(pairs / "images/04.png", pnginfo=mark)
    Image.new("L", (48, 48), 9).save(pairs / "images/05.png")
    report = checked(pairs)
    assert report.ok
    told = {finding.kind: finding.item for finding in report.warnings}
    assert told == {
        "wrong suffix": "images/01.png",
        "turned by EXIF": "images/02.png",
        "colour profile": "images/03.png",
        "generated": "images/04.png",
        "constant picture": "images/05.png",
    }


def test_instances_in_8_bit_are_a_warning(pairs: Path) -> None:
    (pairs / "masks").rename(pairs / "instances")
    assert kinds(checked(pairs)) == ([], ["instances in 8 bit"])


def test_few_items_and_rare_classes_are_warnings(tmp_path: Path) -> None:
    for n in range(41):
        folder = tmp_path / "data" / ("rare" if n == 0 else "common")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(n)).save(folder / f"{n}.png")
    report = checked(tmp_path / "data")
    assert kinds(report) == ([], ["few items", "rare class"])
    assert report.warnings[1].item == "rare"
    assert not report.splits_given


def test_halves_side_by_side_are_told_once(tmp_path: Path) -> None:
    for n in range(50):
        wide = np.hstack([scene(n), scene(500 + n)])
        Image.fromarray(wide).save(tmp_path / f"{n:02}.png", icc_profile=b"p" if n == 3 else None)
    report = checked(tmp_path, layout="side-by-side")
    assert kinds(report) == ([], ["colour profile"])
    assert report.sizes == {"left": {"48 x 48": 50}, "right": {"48 x 48": 50}}


def test_the_overview_outlines_the_mask_on_the_picture(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    square = np.zeros((128, 128), np.uint8)
    square[32:96, 32:96] = 255
    Image.fromarray(np.full((128, 128), 100, np.uint8)).save(tmp_path / "data/images/a.png")
    Image.fromarray(square).save(tmp_path / "data/masks/a.png")
    config = DataConfig(path=str(tmp_path / "data"))
    shown = overview.overview(opening.open_set(config), tmp_path / "overview.png", config)
    page = np.asarray(Image.open(tmp_path / "overview.png"))[8 : 8 + 256, 8 : 8 + 256]
    outlined = (page != 100).any(axis=-1)
    rows, columns = np.nonzero(outlined)
    assert shown == 1
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (63, 191, 63, 191)
    assert not outlined[80:176, 80:176].any()


def test_the_overview_shows_classes_in_colors_even_without_background(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    Image.fromarray(np.full((64, 64), 100, np.uint8)).save(tmp_path / "data/images/a.png")
    halves = np.repeat(np.array([[1, 2]], np.uint8), 32, axis=1).repeat(64, axis=0)
    Image.fromarray(halves).save(tmp_path / "data/labels/a.png")
    config = DataConfig(path=str(tmp_path / "data"))
    overview.overview(opening.open_set(config), tmp_path / "overview.png", config)
    labels = np.asarray(Image.open(tmp_path / "overview.png"))[8 : 8 + 256, 264 : 264 + 256]
    assert len({tuple(color) for color in labels.reshape(-1, 3).tolist()}) == 2
    assert (labels[:, 0] != labels[:, -1]).any(axis=-1).all()


@pytest.mark.parametrize("name", ["rbc-smear", "skin-isic2017", "facades", "cxr-nih"])
def test_real_sets_are_fit_for_training(shared: Path, name: str) -> None:
    assert checked(shared / "data" / name).errors == ()


def test_tiles_photographed_twice_are_found_in_a_real_set(shared: Path) -> None:
    """Seen by eye: these are one tile with one blowhole, in train and test as two groups."""
    report = checked(shared / "data" / "magnetic-tile")
    first = report.errors[0]
    assert first.item == "images/blowhole_exp1_num_108889.jpg"
    assert "images/blowhole_exp1_num_108719.jpg in train" in first.text
