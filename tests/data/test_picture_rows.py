"""Pictures as rows: order, fitting, value windows, the cache, refusals."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tfgan_med.data import fitting, picture_rows
from tfgan_med.data.picture_rows import PictureRows, open_rows
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError, UserError

Array = npt.NDArray[Any]
SIZE = 8


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, picture: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten pictures 12 x 20 in colour, flat, no splits."""
    for n in range(10):
        write(tmp_path / "set" / f"{n}.png", noise(n, 12, 20, 3))
    return tmp_path / "set"


def rows_of(folder: Path, part: Any = "auto", **settings: Any) -> PictureRows:
    return open_rows(DataConfig(**{"path": str(folder), "image_size": SIZE, **settings}), part)


def split(folder: Path, **names: Iterable[str]) -> None:
    lines = [f"{name},{which}" for which, group in names.items() for name in group]
    (folder / "splits.csv").write_text("\n".join(["file,split", *lines]) + "\n")


# Which pictures -----------------------------------------------------------------------------------


def test_without_splits_all_pictures_are_rows_in_order_of_their_names(data: Path) -> None:
    rows = rows_of(data)
    assert rows.names == tuple(f"{n}.png" for n in range(10))
    assert (rows.part, rows.stored.shape) == ("all", (10, SIZE, SIZE, 3))


def test_splits_of_its_own_keep_test_pictures_out_unless_all_are_asked_for(data: Path) -> None:
    split(data, train=[f"{n}.png" for n in range(6)], test=[f"{n}.png" for n in range(6, 10)])
    assert rows_of(data).names == tuple(f"{n}.png" for n in range(6))
    assert rows_of(data, "train").part == rows_of(data).part == "train"
    assert (rows_of(data, "all").part, len(rows_of(data, "all"))) == ("all", 10)
    # `random` ignores the given splits
    assert len(rows_of(data, split="random")) == 10


def test_a_training_split_that_is_not_there_cannot_be_asked_for(data: Path) -> None:
    with pytest.raises(UserError, match="names no training split.*--split all"):
        rows_of(data, "train")


def test_copies_are_no_fault_where_the_set_has_no_splits(data: Path) -> None:
    write(data / "copy.png", noise(3, 12, 20, 3))  # as training would split, a leak
    assert len(rows_of(data)) == 11


def test_the_order_of_files_on_disk_does_not_matter(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(data)
    scan = os.scandir

    class Reversed:
        def __init__(self, path: Any) -> None:
            with scan(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            return None

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

    monkeypatch.setattr(os, "scandir", Reversed)
    after = rows_of(data)
    assert (after.names, after.key) == (before.names, before.key)


def test_one_class_can_be_named(tmp_path: Path) -> None:
    for n in range(6):
        write(tmp_path / "ab"[n % 2] / f"{n}.png", noise(n, 9, 9))
    assert {record.label for record in rows_of(tmp_path, label="b").records} == {"b"}
    with pytest.raises(UserError, match=r"data\.label is 'c', but the classes .* are: a, b"):
        rows_of(tmp_path, label="c")


def test_masks_alone_are_compared_by_area_and_label_maps_are_refused(tmp_path: Path) -> None:
    for n in range(4):
        mask = np.zeros((16, 16), np.uint8)
        mask[: 4 * n + 2] = 255
        write(tmp_path / "masks" / f"{n}.png", mask)
        write(tmp_path / "labels" / f"{n}.png", mask // 255)
    areas = rows_of(tmp_path).stored.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(areas, [2 / 16, 6 / 16, 10 / 16, 14 / 16], atol=0.01)
    with pytest.raises(UserError, match="numbers of classes are no brightness"):
        rows_of(tmp_path, target="labels")


# How they are fitted ------------------------------------------------------------------------------


def test_a_picture_is_cut_to_a_square_and_resized_as_pillow_does_bicubically(data: Path) -> None:
    picture = noise(4, 12, 20, 3)
    whole = Image.fromarray(picture)
    wide = np.asarray(whole.resize((13, SIZE), Image.Resampling.BICUBIC))  # 20 * 8 / 12 = 13.3
    np.testing.assert_array_equal(rows_of(data).stored[4], wide[:, 2 : 2 + SIZE])
    squeezed = np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(rows_of(data, fit="stretch").stored[4], squeezed)


def test_patches_are_the_tiles_that_training_sees_numbered_within_their_picture(data: Path) -> None:
    rows = rows_of(data, fit="patches")
    tiles, _ = fitting.fit(noise(0, 12, 20, 3), SIZE, "patches", nearest=False)
    assert len(rows) == 10 * len(tiles) == 60
    assert rows.names[:3] == ("0.png", "0.png#2", "0.png#3")
    assert rows.tiles[:7] == (0, 1, 2, 3, 4, 5, 0)
    np.testing.assert_array_equal(rows.stored[: len(tiles)], tiles)  # unresized, so bit by bit


def test_grey_is_the_luma_of_colour_and_colour_repeats_grey(data: Path, tmp_path: Path) -> None:
    gray = rows_of(data, mode="gray", image_size=12).stored
    luma = noise(0, 12, 20, 3)[:, 4:16] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_array_equal(gray[0, ..., 0], np.rint(luma))
    write(tmp_path / "gray" / "0.png", noise(0, 9, 9))
    write(tmp_path / "gray" / "1.png", noise(1, 9, 9))
    colour = rows_of(tmp_path / "gray", mode="rgb").stored
    np.testing.assert_array_equal(colour[..., 0], colour[..., 2])
    assert colour.shape[-1] == 3
    assert rows_of(tmp_path / "gray").pictures([1]).shape == (1, SIZE, SIZE, 3)


def test_grey_among_colour_is_refused(data: Path) -> None:
    write(data / "x.png", noise(0, 12, 20))
    with pytest.raises(DataError, match=r"x\.png: grey.*mode"):
        rows_of(data, check=False)


def test_sixteen_bit_pictures_share_one_window(tmp_path: Path) -> None:
    for n, level in enumerate((1000, 2000, 3000)):
        picture = np.full((SIZE, SIZE), level, np.uint16)
        tifffile.imwrite(tmp_path / f"{n}.tif", picture)
    given = rows_of(tmp_path, window=(0, 4000)).stored
    np.testing.assert_array_equal(given[:, 0, 0, 0], [64, 128, 191])  # 255 times 1/4, 1/2, 3/4
    found = rows_of(tmp_path).stored[:, 0, 0, 0]  # percentiles: the darkest 0, the lightest 255
    np.testing.assert_array_equal(found, [0, 128, 255])
    assert rows_of(tmp_path).encoding.window == (1000.0, 3000.0)


def test_reduced_pictures_are_resized_once_more(data: Path) -> None:
    rows = rows_of(data)
    (block,) = rows.pixels(4)
    small = Image.fromarray(np.asarray(rows.stored[2])).resize((4, 4), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(block[2].reshape(4, 4, 3), np.asarray(small))
    assert rows.pixels(4).shape == (10, 48)
    assert rows.pixels().shape == (10, SIZE * SIZE * 3)
    with pytest.raises(UserError, match="pca_size is 9, the pictures have 8"):
        rows.pixels(9)


# Features -----------------------------------------------------------------------------------------


class MeanOfChannels:
    """Three features, and a logit that is no feature."""

    identity, dimension, width = "means", 3, 4

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        for picture in pictures:
            assert picture.shape == (SIZE, SIZE, 3)
            yield np.append(picture.mean(axis=(0, 1)), -1.0).astype(np.float32)


def test_features_stand_in_the_order_of_the_rows_without_logits(data: Path) -> None:
    rows = rows_of(data)
    seen: list[int] = []
    blocks = rows.features(MeanOfChannels(), progress=lambda done, total: seen.append(done))
    assert blocks.shape == (10, 3)
    np.testing.assert_allclose(next(iter(blocks)), rows.stored.mean(axis=(1, 2)), rtol=1e-5)
    assert seen == list(range(1, 11))


# The cache ----------------------------------------------------------------------------------------


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pictures were read again")

    return lambda: monkeypatch.setattr(picture_rows, "survey", refuse)


def test_pictures_are_read_once_for_each_content_and_setting(
    data: Path, no_reading: Callable[[], None]
) -> None:
    first = rows_of(data)
    no_reading()
    assert rows_of(data).key == first.key
    np.testing.assert_array_equal(rows_of(data).stored, first.stored)
    with pytest.raises(AssertionError, match="read again"):
        rows_of(data, fit="pad")
    write(data / "3.png", noise(33, 12, 20, 3))
    with pytest.raises(AssertionError, match="read again"):
        rows_of(data)


def test_other_settings_are_other_rows_of_the_same_contents(data: Path) -> None:
    one, other = rows_of(data), rows_of(data, fit="pad")
    assert one.contents == other.contents
    assert one.key != other.key


def test_progress_counts_to_all(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_rows(
        DataConfig(path=str(data), image_size=7),
        "all",
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(n, 10) for n in range(1, 11)]


# Faults -------------------------------------------------------------------------------------------


def test_a_broken_picture_is_refused_and_can_be_left_out(data: Path) -> None:
    path = data / "5.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"5\.png"):
        rows_of(data)
    rows = rows_of(data, skip_bad=True)
    assert rows.names == tuple(f"{n}.png" for n in range(10) if n != 5)
    assert list(rows.left_out) == ["5.png"]
    np.testing.assert_array_equal(rows.stored[5], rows_of_one(data / "6.png"))


def rows_of_one(path: Path) -> Array:
    picture = np.asarray(Image.open(path))
    wide = np.asarray(Image.fromarray(picture).resize((13, SIZE), Image.Resampling.BICUBIC))
    return wide[:, 2 : 2 + SIZE]


def test_an_empty_training_split_is_told(data: Path) -> None:
    split(data, test=[f"{n}.png" for n in range(10)])
    with pytest.raises(DataError, match="training split is empty"):
        rows_of(data, check=False)
