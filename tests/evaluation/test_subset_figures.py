"""Figures of subsets: chosen ones stand out, panels share axes, sheets show what was chosen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.evaluation import subset_figures
from tfgan_med.evaluation.subset_figures import Shown

Array = npt.NDArray[Any]
GREY, BLUE, ORANGE = (200, 200, 200), (0, 114, 178), (213, 94, 0)


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Whatever matplotlib warns of would reach the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def points(count: int = 60, dimension: int = 5) -> Array:
    return np.random.default_rng(0).standard_normal((count, dimension))


def subset(count: int, clusters: int, of: int = 60, labels: bool = True) -> Shown:
    every = np.arange(of) % clusters
    chosen = np.arange(count)
    return Shown(chosen, every[chosen], -points(clusters), every if labels else None)


def drawn(path: Path) -> Array:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def amount(pixels: Array, color: tuple[int, int, int]) -> int:
    return int((pixels == np.array(color, np.uint8)).all(axis=2).sum())


def test_one_cluster_is_one_color_on_grey(tmp_path: Path) -> None:
    path = subset_figures.scatter(points(), subset(10, 1), tmp_path / "s.png", explained=(0.6, 0.1))
    pixels = drawn(path)
    assert amount(pixels, GREY) > 500
    assert amount(pixels, BLUE) > 100
    assert amount(pixels, ORANGE) == 0


def test_clusters_have_colors_of_their_own_and_tint_their_members(tmp_path: Path) -> None:
    pixels = drawn(subset_figures.scatter(points(), subset(10, 2), tmp_path / "s.png"))
    assert min(amount(pixels, BLUE), amount(pixels, ORANGE)) > 20
    pale = tuple(round(0.25 * c + 0.75 * g) for c, g in zip(BLUE, GREY, strict=True))
    near = np.abs(pixels.astype(int) - pale).max(axis=2) <= 1
    assert near.sum() > 300


@pytest.mark.parametrize("clusters", [1, 8, 9, 30])
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_any_number_of_clusters_and_components_is_drawn(
    tmp_path: Path, clusters: int, dimension: int
) -> None:
    shown = subset(30, clusters)
    centers = None if shown.centroids is None else shown.centroids[:, :dimension]
    shown = Shown(shown.indices, shown.clusters, centers, shown.labels)
    pixels = drawn(subset_figures.scatter(points(60, dimension), shown, tmp_path / "s.png"))
    assert pixels.shape == (640, 700, 3)
    assert amount(pixels, BLUE) > 20


def test_the_same_subset_is_the_same_figure(tmp_path: Path) -> None:
    for name in ("one", "two"):
        subset_figures.scatter(points(), subset(9, 3), tmp_path / name / "s.png")
    one, two = (drawn(tmp_path / name / "s.png") for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bad = points()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="needs finite points"):
        subset_figures.scatter(bad, subset(9, 3), tmp_path / "s.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 2)])
def test_all_pictures_and_each_subset_have_a_panel(tmp_path: Path, count: int, rows: int) -> None:
    shown = {f"subset {n}": subset(10, n + 1, labels=False) for n in range(count)}
    path = subset_figures.panels(points(), shown, tmp_path / "p.png", explained=(0.5, 0.2))
    height, width, _ = drawn(path).shape
    assert height == 60 + 300 * rows
    assert width == 40 + 310 * min(4, count + 1)


def test_panels_without_a_subset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one subset"):
        subset_figures.panels(points(), {}, tmp_path / "p.png")


# Contact sheet ------------------------------------------------------------------------------------


def pictures(count: int, side: int = 10) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_a_sheet_shows_the_pictures_in_order_row_by_row(tmp_path: Path) -> None:
    shown = pictures(7)
    assert subset_figures.contact_sheet(shown, np.zeros(7, int), tmp_path / "c.png") == 7
    sheet = drawn(tmp_path / "c.png")
    assert sheet.shape == (3 * 12 - 2, 3 * 12 - 2, 3)  # 3 x 3, white lines of two pixels
    np.testing.assert_array_equal(sheet[12:22, 24:34], shown[5])


def test_frames_have_the_color_of_the_cluster_and_hide_nothing(tmp_path: Path) -> None:
    shown = pictures(4)
    subset_figures.contact_sheet(shown, np.array([0, 0, 1, 1]), tmp_path / "c.png")
    sheet = drawn(tmp_path / "c.png")
    assert tuple(sheet[0, 0]) == BLUE
    assert tuple(sheet[18, 0]) == ORANGE
    np.testing.assert_array_equal(sheet[3:13, 3:13], shown[0])


def test_many_pictures_are_spread_evenly_over_a_sheet_of_bounded_size(tmp_path: Path) -> None:
    rows = subset_figures.sheet_rows(3000)
    assert (len(rows), rows[0], rows[-1]) == (1024, 0, 2999)
    assert len(np.unique(rows)) == 1024
    shown = np.full((1024, 128, 128, 3), 90, np.uint8)
    assert subset_figures.contact_sheet(shown, np.arange(1024), tmp_path / "c.png") == 1024
    assert max(drawn(tmp_path / "c.png").shape) <= 3300


def test_a_sheet_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        subset_figures.contact_sheet(pictures(0), np.zeros(0, int), tmp_path / "c.png")
