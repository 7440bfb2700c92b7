"""Sheets: a whole PNG that shows the pictures it was given, a reason for the rest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.evaluation import sheets

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Whatever matplotlib or scikit-learn warn of would reach the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(height: int, width: int, color: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def drawn(path: Path) -> Array:
    """The decoded figure, `(height, width, 3)`; nothing else may be left in the folder."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 100 and max(pixels.shape[:2]) < 4000
    assert pixels.std() > 1.0
    return pixels


def holds(pixels: Array, color: tuple[int, int, int], at_least: int) -> bool:
    return int((pixels == np.array(color, np.uint8)).all(axis=2).sum()) >= at_least


def test_a_sheet_shows_pictures_of_any_sizes(tmp_path: Path) -> None:
    red, green, blue = (200, 10, 10), (10, 200, 10), (10, 10, 200)
    rows = [[picture(20, 20, red), picture(300, 200, green)], [picture(64, 400, blue)]]
    path = sheets.sheet(rows, tmp_path / "sheet.png", title="A $title", columns=["x", "y", "z"],
                       captions=[["first_" * 9]], note="note " * 30)  # fmt: skip
    pixels = drawn(path)
    assert holds(pixels, red, 135 * 135 - 600)  # a whole square, but for the edges
    assert holds(pixels, green, 90 * 135 - 500)  # two thirds of one
    assert holds(pixels, blue, 135 * 21 - 400)


def test_neighbors_stand_in_the_row_of_their_picture(tmp_path: Path) -> None:
    red, green = (200, 10, 10), (10, 200, 10)
    path = sheets.neighbors(
        [picture(32, 32, red), picture(32, 32, green)],
        [[picture(32, 32, red)] * 3, [picture(32, 32, green)] * 3],
        [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]],
        tmp_path / "n.png",
        names=["a.png"],
    )
    pixels = drawn(path)
    rows = np.flatnonzero((pixels == np.array(red, np.uint8)).all(axis=2).sum(axis=1) > 500)
    below = np.flatnonzero((pixels == np.array(green, np.uint8)).all(axis=2).sum(axis=1) > 500)
    assert len(rows) > 120 and len(below) > 120  # four pictures beside each other
    assert rows.max() < below.min()


def test_the_difference_of_a_pair_is_amplified_and_cut() -> None:
    pair = sheets.Pair(picture(4, 6, (100, 0, 255)), picture(4, 6, (110, 0, 0)), ratio=0.1)
    assert sheets._difference(pair, 4.0)[0, 0].tolist() == [40, 0, 255]


def test_a_pair_of_two_sizes_is_drawn(tmp_path: Path) -> None:
    worst = [
        sheets.Pair(picture(40, 30, (9, 90, 9)), picture(80, 60, (9, 90, 9)), 0.01, 0.002,
                   ("patient $1/very_long_name_of_a_file_0001.png", "b.png")),
        sheets.Pair(picture(50, 50, (90, 9, 9)), picture(50, 50, (9, 9, 90)), 1.2),
    ]  # fmt: skip
    pixels = drawn(sheets.pairs(worst, tmp_path / "pairs.png"))
    assert holds(pixels, (0, 0, 0), 135 * 95)  # the copy leaves a black difference


def test_pictures_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    empty: list[list[list[npt.NDArray[np.uint8]]]] = [[], [[]], [[picture(4, 4, (1, 2, 3))], []]]
    for rows in empty:
        with pytest.raises(ValueError, match="at least one picture"):
            sheets.sheet(rows, path)
    others: list[Array] = [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))]
    for bad in [*others, np.zeros((0, 4, 3), np.uint8)]:
        with pytest.raises(ValueError, match=r"expected \(height, width, 3\) uint8"):
            sheets.sheet([[bad]], path)
    with pytest.raises(ValueError, match="at least one picture"):
        sheets.pairs([], path)
    assert not list(tmp_path.iterdir())
