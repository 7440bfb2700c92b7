"""Spread measures have the values of their definitions and order the methods as they should."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.covariance import LedoitWolf

from tfgan_med.data import spread as spread_file
from tfgan_med.data.selection import SelectionConfig, select
from tfgan_med.data.spread import spread
from tfgan_med.errors import UserError

Floats = npt.NDArray[np.float64]
NAMES = {
    "variance_ratio",
    "pairwise_distance",
    "nearest_distance",
    "coverage_radius",
    "mean_coverage_radius",
    "log_det",
    "energy_distance",
    "hull_ratio",
}
SQUARE = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])


def cloud(count: int = 500, components: int = 8, seed: int = 0) -> Floats:
    """Normal, of falling variance."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, components)) * np.linspace(3.0, 0.5, components)


def test_two_corners_of_a_square_by_hand() -> None:
    measures = spread(SQUARE[[0, 3]], SQUARE)
    mean_of_all = (4 * 2 + 2 * np.sqrt(8)) / 6
    assert measures["variance_ratio"] == pytest.approx((2 + 2) / (8 / 3))
    assert measures["pairwise_distance"] == pytest.approx(np.sqrt(8) / mean_of_all)
    assert measures["nearest_distance"] == pytest.approx(np.sqrt(8))
    assert measures["coverage_radius"] == pytest.approx(2.0)
    assert measures["mean_coverage_radius"] == pytest.approx(1.0)
    assert measures["hull_ratio"] == 0.0  # two points span a line
    between = (0 + 2 + 2 + np.sqrt(8)) / 4
    within = np.sqrt(8) / 2
    everything = 2 * 6 * mean_of_all / 16
    assert measures["energy_distance"] == pytest.approx(2 * between - within - everything)


def test_every_measure_equals_its_definition() -> None:
    rows = cloud(120)
    part = rows[:30]
    measures = spread(part, rows)
    apart = np.linalg.norm(rows[:, None] - part, axis=2)
    inside = apart[:30] + np.diag(np.full(30, np.inf))
    all_pairs = np.linalg.norm(rows[:, None] - rows, axis=2)
    assert measures["variance_ratio"] == pytest.approx(
        np.trace(np.cov(part.T)) / np.trace(np.cov(rows.T))
    )
    assert measures["coverage_radius"] == pytest.approx(apart.min(axis=1).max())
    assert measures["mean_coverage_radius"] == pytest.approx(apart.min(axis=1).mean())
    assert measures["nearest_distance"] == pytest.approx(inside.min(axis=1).mean())
    assert measures["pairwise_distance"] == pytest.approx(
        apart[:30].sum() / (30 * 29) / (all_pairs.sum() / (120 * 119))
    )
    assert measures["energy_distance"] == pytest.approx(
        2 * apart.mean() - apart[:30].mean() - all_pairs.mean()
    )
    covariance = LedoitWolf().fit(part).covariance_
    assert measures["log_det"] == pytest.approx(np.log(np.linalg.eigvalsh(covariance)).sum())


def test_the_hull_of_the_inner_square_has_a_quarter_of_the_area() -> None:
    rows = np.concatenate([SQUARE, SQUARE / 2 + 0.5, [[1.0, 1.0]]])
    assert spread(rows[4:8], rows)["hull_ratio"] == pytest.approx(0.25)
    further = np.concatenate([rows, np.arange(9.0)[:, None]], axis=1)  # a third component
    assert spread(further[4:8], further)["hull_ratio"] == pytest.approx(0.25)


def test_the_whole_set_spans_itself() -> None:
    rows = cloud(3000)  # more than are sampled
    measures = spread(rows, rows)
    assert set(measures) == NAMES
    for name, expected in [
        ("variance_ratio", 1.0),
        ("pairwise_distance", 1.0),
        ("hull_ratio", 1.0),
        ("coverage_radius", 0.0),
        ("mean_coverage_radius", 0.0),
        ("energy_distance", 0.0),
    ]:
        assert measures[name] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("seed", range(3))
def test_methods_are_ordered_as_expected(seed: int) -> None:
    rows = cloud(800, seed=seed)
    center, random, kss, cover = (
        spread(rows[select(rows, config).indices], rows)
        for config in (
            SelectionConfig("center", 40, seed=seed),
            SelectionConfig("random", 40, seed=seed),
            SelectionConfig("kss", 40, seed=seed),
            SelectionConfig("kss", 40, clusters=40, seed=seed),
        )
    )
    for name in ("variance_ratio", "pairwise_distance", "log_det"):
        assert center[name] < random[name] < kss[name], name
    assert cover["mean_coverage_radius"] < kss["mean_coverage_radius"]
    assert random["energy_distance"] < min(center["energy_distance"], kss["energy_distance"])


def test_samples_stand_for_a_large_set(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cloud(3000)
    part = rows[:200]
    sampled = spread(part, rows, seed=1)
    monkeypatch.setattr(spread_file, "_SAMPLE", 3000)
    exact = spread(part, rows)
    assert sampled["pairwise_distance"] == pytest.approx(exact["pairwise_distance"], rel=0.02)
    assert sampled["energy_distance"] == pytest.approx(exact["energy_distance"], abs=0.03)
    assert sampled["coverage_radius"] == exact["coverage_radius"]  # never sampled


def test_the_same_seed_gives_the_same_numbers() -> None:
    rows = cloud(2500)
    assert spread(rows[:50], rows, seed=3) == spread(rows[:50], rows, seed=3)


def test_moving_changes_nothing_and_scaling_changes_units_only() -> None:
    rows = cloud()
    before, after = spread(rows[:40], rows), spread(2.0 * (rows[:40] + 3), 2.0 * (rows + 3))
    for name in ("variance_ratio", "pairwise_distance", "hull_ratio"):
        assert after[name] == pytest.approx(before[name])
    for name in (
        "nearest_distance",
        "coverage_radius",
        "mean_coverage_radius",
        "energy_distance",
    ):
        assert after[name] == pytest.approx(2.0 * before[name])
    assert after["log_det"] == pytest.approx(before["log_det"] + 8 * np.log(4.0))


def test_what_is_not_defined_is_left_out() -> None:
    one = spread(SQUARE[:1], SQUARE)
    assert set(one) == NAMES - {
        "variance_ratio",
        "pairwise_distance",
        "nearest_distance",
        "log_det",
    }
    same = spread(np.ones((3, 2)), np.ones((5, 2)))
    assert set(same) == {
        "nearest_distance",
        "coverage_radius",
        "mean_coverage_radius",
        "energy_distance",
    }
    assert all(value == 0.0 for value in same.values())


def test_one_component_has_no_hull() -> None:
    line = np.arange(10.0)[:, None]
    assert "hull_ratio" not in spread(line[:3], line)


def test_scores_of_two_analyses_are_refused() -> None:
    with pytest.raises(UserError, match="3 and 8 components"):
        spread(cloud(20, 3), cloud(20, 8))
    with pytest.raises(UserError, match="not finite"):
        spread(np.full((3, 2), np.nan), SQUARE)
