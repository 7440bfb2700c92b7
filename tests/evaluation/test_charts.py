"""Charts: a whole PNG of sensible size for anything that can be drawn, a reason for the rest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.evaluation import charts
from tfgan_med.evaluation.comparing import Place, Row
from tfgan_med.metrics.base import Interval

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Whatever matplotlib or scikit-learn warn of would reach the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def normal(count: int, dimension: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


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


# Scatter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_a_scatter_of_two_generated_sets_is_drawn(tmp_path: Path, method: Any) -> None:
    fakes = {"a": normal(25, 8, 1), "real": normal(12, 8, 2) + 4}
    path = charts.embedding(normal(30, 8), fakes, tmp_path / "scatter.png", method=method)
    height, width, _ = drawn(path).shape
    assert (width > 1.5 * height) == (method == "tsne")  # two panels


def test_a_scatter_repeats_with_its_seed(tmp_path: Path) -> None:
    for name in ("first", "again", "other"):
        (tmp_path / name).mkdir()
        charts.embedding(
            normal(30, 4), {"a": normal(30, 4, 1)}, tmp_path / name / "s.png",
            seed=1 if name == "other" else 0, most=20,
        )  # fmt: skip
    first, again, other = (drawn(tmp_path / name / "s.png") for name in ("first", "again", "other"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_ten_classes_share_eight_markers(tmp_path: Path) -> None:
    classes = [f"class {i % 10}" for i in range(40)]
    path = charts.embedding(
        normal(40, 4), {"a": normal(40, 4, 1)}, tmp_path / "s.png", method="pca",
        real_classes=classes, fake_classes={"a": classes},
    )  # fmt: skip
    drawn(path)


def test_what_cannot_be_scattered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.png"
    with pytest.raises(ValueError, match="needs 5 images and 2 features: received 4 and 8"):
        charts.embedding(normal(2, 8), {"a": normal(2, 8)}, path)
    with pytest.raises(ValueError, match="received 8, 7 features"):
        charts.embedding(normal(9, 8), {"a": normal(9, 7)}, path)
    with pytest.raises(ValueError, match="equal"):
        charts.embedding(np.ones((9, 8)), {"a": np.ones((9, 8))}, path)
    assert not list(tmp_path.iterdir())


# Histograms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_distances_are_drawn_with_their_threshold(tmp_path: Path, threshold: float | None) -> None:
    real = np.abs(normal(200, 1)[:, 0]) + 1
    fakes = {"a": real[:50] * 0.9, "b": np.zeros(3)}
    drawn(charts.distances(real, fakes, tmp_path / "d.png", threshold=threshold))


def test_distances_that_are_all_equal_are_drawn(tmp_path: Path) -> None:
    drawn(charts.distances(np.ones(20), {"copies": np.ones(20)}, tmp_path / "d.png"))


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_pixel_shares_have_a_panel_for_each_class(tmp_path: Path, classes: int) -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(classes), 60)
    shares[:, -1] = 0.0  # a class that never occurs
    names = [f"class {i}" for i in range(classes)]
    height = drawn(charts.shares(shares, {"a": shares[:9]}, names, tmp_path / "s.png")).shape[0]
    assert height == 250 * -(-classes // 3) + 70


def test_values_that_cannot_be_drawn_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.png"
    with pytest.raises(ValueError, match="mine: no values"):
        charts.distances(np.ones(3), {"mine": np.empty(0)}, path)
    with pytest.raises(ValueError, match="mine: a value is not finite"):
        charts.distances(np.ones(3), {"mine": np.array([1.0, np.nan])}, path)
    with pytest.raises(ValueError, match=r"mine: shares of shape \(4, 3\); expected \(images, 2\)"):
        charts.shares(np.ones((4, 2)), {"mine": np.ones((4, 3))}, ["a", "b"], path)
    with pytest.raises(ValueError, match="at least one class"):
        charts.shares(np.ones((4, 0)), {}, [], path)
    assert not list(tmp_path.iterdir())


# Sets side by side --------------------------------------------------------------------------------


def place(fake: str, value: float | None, half: float | None) -> Place:
    interval = None
    if value is not None and half is not None:
        interval = Interval(value - half, value + half, 0.95, "closed form", 0)
    return Place(fake, value, interval, None, 100)


def test_sets_are_drawn_side_by_side(tmp_path: Path) -> None:
    rows = [
        Row("fid", "lower", (place("b", 20.0, 2.0), place("a" * 90, 30.0, None))),
        Row("precision", "higher", (place("b", 0.5, 0.1), place("a" * 90, None, None))),
        Row("frechet_distance[a long name:0123456789]", "neither", (place("b", 1e7, 1.0),)),
        Row("recall", "higher", (place("b", None, None),)),
    ]
    pixels = drawn(charts.bars(rows, tmp_path / "bars.png", references={"fid": 10.0}))
    assert holds(pixels, (0, 114, 178), 200)  # the second set's line and points


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no value to draw"):
        charts.bars([Row("fid", "lower", (place("a", None, None),))], tmp_path / "b.png")


def test_a_user_s_matplotlib_settings_neither_matter_nor_change(tmp_path: Path) -> None:
    import matplotlib as mpl

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    charts.distances(np.arange(9.0), {}, tmp_path / "a" / "d.png")
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30}):
        charts.distances(np.arange(9.0), {}, tmp_path / "b" / "d.png")
        assert mpl.rcParams["font.size"] == 30
    first, second = drawn(tmp_path / "a" / "d.png"), drawn(tmp_path / "b" / "d.png")
    np.testing.assert_array_equal(first, second)
