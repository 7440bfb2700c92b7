"""Precision, recall, density and coverage: library values, closed forms, degenerate sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics import prdc
from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.prdc import (
    PRDC,
    Values,
    intervals,
    precision_recall_density_coverage,
    realism_scores,
)
from tfgan_med.ops import neighbors

Features = npt.NDArray[Any]


def draw(count: int, features: int = 16, seed: int = 0, shift: float = 0.0) -> Features:
    values = np.random.default_rng(seed).standard_normal((count, features)) + shift
    return values.astype(np.float32)


def side(features: Features) -> Side:
    return Side("set", tuple(map(str, range(len(features)))), features=features)


def measure(real: Features, fake: Features, intervals: bool = False, **settings: Any) -> Any:
    found = PRDC(**settings).measure(side(real), side(fake), Context(intervals=intervals))
    for measured in found:
        json.dumps([measured.settings, measured.details, measured.notes], allow_nan=False)
    return {measured.name: measured for measured in found}


@pytest.mark.parametrize("case", ["full", "lowrank"])
@pytest.mark.parametrize("k", [3, 5])
def test_golden_values(golden: Mapping[str, Features], case: str, k: int) -> None:
    real, fake = golden[f"in/feat/{case}/real"], golden[f"in/feat/{case}/fake"]
    reference = f"ref/feat/{case}/prdc.k{k}_precision_recall_density_coverage"
    values = precision_recall_density_coverage(real, fake, k)
    assert values[:4] == tuple(golden[reference])

    values = precision_recall_density_coverage(real, fake, k, inclusive=True)
    reference = f"ref/feat/{case}/torchfidelity.k{k}_precision_recall_f"
    found = [values.precision, values.recall, values.f_score]
    np.testing.assert_allclose(found, golden[reference], atol=1e-6)


def test_a_set_covers_itself() -> None:
    real = draw(80)
    values = precision_recall_density_coverage(real, real.copy(), 5)
    # Strictly inside the ball of each image lie itself and its 4 nearest others.
    assert values._replace(density=1.0) == Values(1.0, 1.0, 1.0, 1.0, 0, 0)
    assert values.density == pytest.approx(1.0)
    inclusive = precision_recall_density_coverage(real, real.copy(), 5, inclusive=True)
    assert inclusive.density == pytest.approx(6 / 5)
    assert values.f_score == pytest.approx(1.0)


def test_sets_far_apart_share_nothing() -> None:
    values = precision_recall_density_coverage(draw(50), draw(60, shift=100.0))
    assert values == Values(0.0, 0.0, 0.0, 0.0, 0, 0)
    assert values.f_score == 0.0


def test_values_of_four_points_by_hand() -> None:
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # radii 1, 1, 2, 4 for k = 1
    fake = np.array([[0.5], [2.0], [20.0], [20.5]])  # radii 1.5, 1.5, 0.5, 0.5
    # Inside: 0.5 in the balls of 0 and 1; 2.0 in that of 3 (on the edge of 1's); 20 in none.
    # 0 and 1 in the ball of 0.5; 1 and 3 in that of 2.0; 7 in none.
    assert precision_recall_density_coverage(real, fake, 1) == Values(
        precision=2 / 4, recall=3 / 4, density=3 / 4, coverage=3 / 4, empty_real=0, empty_fake=0
    )
    inclusive = precision_recall_density_coverage(real, fake, 1, inclusive=True)
    assert inclusive.density == 4 / 4


def test_equal_distributions_have_density_one_and_the_expected_coverage() -> None:
    values = precision_recall_density_coverage(draw(1500, 4, 1), draw(1500, 4, 2), 5)
    assert values.density == pytest.approx(1.0, abs=0.08)
    assert values.coverage == pytest.approx(1 - 2**-5, abs=0.02)  # Naeem et al., lemma 2


def test_dropping_a_mode_costs_recall_and_coverage_but_not_precision() -> None:
    real = np.concatenate([draw(100, seed=1), draw(100, seed=2, shift=30.0)])
    values = precision_recall_density_coverage(real, draw(200, seed=3), 5)
    assert values.precision > 0.8
    assert values.recall <= 0.5
    assert values.coverage <= 0.5


def test_order_does_not_matter() -> None:
    real, fake = draw(90, seed=1), draw(70, seed=2, shift=0.3)
    order = np.random.default_rng(0).permutation
    mixed = precision_recall_density_coverage(real[order(90)], fake[order(70)])
    assert mixed == precision_recall_density_coverage(real, fake)


def test_small_tiles_and_memory_maps_give_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, fake = draw(230, seed=1), draw(190, seed=2, shift=0.3)
    whole = precision_recall_density_coverage(real, fake)
    monkeypatch.setattr(neighbors, "_TILE", 64)
    np.save(tmp_path / "real.npy", real)
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    assert precision_recall_density_coverage(mapped, fake) == whole


def test_collapse_to_one_point_is_counted_not_hidden() -> None:
    real = draw(50)
    fake = np.repeat(real[:1], 40, axis=0)
    values = precision_recall_density_coverage(real, fake, 5)
    holding = (
        np.linalg.norm(real - real[0], axis=1)
        < np.sort(np.linalg.norm(real[:, None] - real, axis=-1), axis=1)[:, 5]
    )
    assert values.precision == 1.0  # the point is a real image
    assert values.recall == 0.0  # the balls of copies are empty
    assert values.coverage == holding.mean()
    assert (values.empty_real, values.empty_fake) == (0, 40)
    assert precision_recall_density_coverage(real, fake, 5, inclusive=True).recall == 1 / 50


def test_two_constant_sets_are_defined() -> None:
    constant = np.full((20, 8), 0.1, np.float32)
    values = precision_recall_density_coverage(constant, constant.copy())
    assert values == Values(0.0, 0.0, 0.0, 0.0, 20, 20)
    assert precision_recall_density_coverage(constant, constant.copy(), inclusive=True)[:4] == (
        1.0, 1.0, 4.0, 1.0,
    )  # fmt: skip


@pytest.mark.parametrize(("real", "fake", "whose"), [(5, 20, "real"), (20, 5, "generated")])
def test_more_images_than_k_are_needed(real: int, fake: int, whose: str) -> None:
    with pytest.raises(ValueError, match=f"The {whose} set has 5 image.s.*set k to 4 or less"):
        precision_recall_density_coverage(draw(real), draw(fake), 5)
    with pytest.raises(ValueError, match="more than 5"):
        measure(draw(real), draw(fake))


def test_features_of_other_extractors_and_broken_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="same extractor"):
        precision_recall_density_coverage(draw(20, 8), draw(20, 9))
    broken = draw(20)
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="first in row 3"):
        precision_recall_density_coverage(draw(20), broken)


# Realism ------------------------------------------------------------------------------------------


def test_realism_is_radius_over_distance() -> None:
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # radii 1, 1, 2, 4; up to the median: 1, 1
    fake = np.array([[2.0], [0.5], [5.0], [1.0]])
    # Nearest remaining centres are at 1, 0.5, 4 and 0 from the four.
    np.testing.assert_array_equal(realism_scores(real, fake, 1), [1.0, 2.0, 0.25, np.inf])


def test_realism_falls_with_the_distance_from_the_data() -> None:
    real = draw(200, 8)
    scores = [realism_scores(real, draw(50, 8, 1, shift), 3).mean() for shift in (0.0, 1.0, 5.0)]
    assert scores[0] > scores[1] > scores[2]


def test_realism_equals_the_definition_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = draw(1500, 6, 1), draw(1100, 6, 2)
    radii = prdc.radii(real, 3)
    kept = radii <= np.median(radii)
    table = np.linalg.norm(fake[:, None].astype(np.float64) - real[kept], axis=-1)
    np.testing.assert_allclose(
        realism_scores(real, fake), (radii[kept] / table).max(axis=1), rtol=1e-12
    )


def test_realism_among_copies_is_refused() -> None:
    with pytest.raises(ValueError, match="3 exact copies"):
        realism_scores(np.ones((10, 2)), draw(5, 2), 3)


# Intervals ----------------------------------------------------------------------------------------


def test_intervals_hold_the_values_and_repeat_with_the_seed() -> None:
    real, fake = draw(120, seed=1), draw(100, seed=2, shift=0.3)
    values = precision_recall_density_coverage(real, fake)
    ranges = intervals(real, fake, repeats=30, seed=4)
    assert ranges == intervals(real, fake, repeats=30, seed=4)
    for name, interval in ranges.items():
        assert interval.low <= getattr(values, name) <= interval.high
        assert interval.high - interval.low > 0.01
        assert interval.low >= 0.0
        assert interval.high <= 1.0 or name == "density"


@pytest.mark.parametrize("inclusive", [False, True])
def test_a_subset_has_the_values_of_its_images(inclusive: bool) -> None:
    real, fake = draw(90, seed=1), draw(80, seed=2, shift=0.2)
    fake[:10] = real[:10]
    rng = np.random.default_rng(0)
    x, y = rng.permutation(90) < 72, rng.permutation(80) < 64
    table = prdc._Table(real, fake, 5, inclusive)
    assert table.values(x, y) == precision_recall_density_coverage(
        real[x], fake[y], 5, inclusive=inclusive
    )
    everything = table.values(np.ones(90, bool), np.ones(80, bool))
    assert everything == precision_recall_density_coverage(real, fake, 5, inclusive=inclusive)


def test_a_perfect_share_still_has_an_interval() -> None:
    real = draw(60)
    interval = intervals(real, real.copy(), repeats=20)["precision"]
    assert interval.high == 1.0
    assert 0.85 < interval.low < 0.97


def test_where_no_subset_differs_density_has_no_interval() -> None:
    ranges = intervals(draw(50), draw(60, shift=100.0), repeats=20)
    assert set(ranges) == {"precision", "recall", "coverage"}
    assert ranges["precision"].low == 0.0
    assert 0.03 < ranges["precision"].high < 0.15


def test_intervals_of_large_or_few_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="6 real and 40 generated"):
        intervals(draw(6), draw(40), 5)
    monkeypatch.setattr(prdc, "MOST_RESAMPLED", 50)
    with pytest.raises(ValueError, match="at most 50"):
        intervals(draw(60), draw(40), 5)


# The metric ---------------------------------------------------------------------------------------


def test_a_measurement_tells_its_protocol_and_floor() -> None:
    real, fake = draw(100, seed=1), draw(100, seed=2, shift=0.3)
    found = measure(real, fake, intervals=True, k=3, repeats=20)
    assert list(found) == ["precision", "recall", "density", "coverage", "f_score"]
    values = precision_recall_density_coverage(real, fake, 3)
    for name, measured in found.items():
        assert measured.value == getattr(values, name)
        assert measured.better == "higher"
        assert measured.settings == {"k": 3, "comparison": "<", "balance": True}
        assert (measured.count_real, measured.count_fake) == (100, 100)
        assert measured.interval is not None
        assert 0.4 < measured.reference < 1.5
        assert measured.reference_of.endswith("50 images each")


def test_unequal_sets_are_balanced_and_the_result_says_so() -> None:
    real, fake = draw(100, seed=1), draw(60, seed=2)
    balanced = measure(real, fake)["recall"]
    assert (balanced.count_real, balanced.count_fake) == (60, 60)
    assert "60 of 100 real" in balanced.notes[0]
    assert balanced == measure(real, fake)["recall"]

    as_is = measure(real, fake, balance=False)["recall"]
    assert (as_is.count_real, as_is.count_fake) == (100, 60)
    assert as_is.value == precision_recall_density_coverage(real, fake).recall
    assert as_is.notes == ()


def test_a_large_subset_is_the_same_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = draw(100, seed=1), draw(60, seed=2)
    in_memory = measure(real, fake)
    monkeypatch.setattr("tfgan_med.metrics._subsets._IN_MEMORY", 0)
    assert measure(real, fake) == in_memory


def test_what_cannot_be_had_is_said() -> None:
    few = measure(draw(8, seed=1), draw(8, seed=2), intervals=True)["precision"]
    assert few.reference is None
    assert few.interval is not None  # 7 of 8 images are more than k = 5
    fewer = measure(draw(6, seed=1), draw(6, seed=2), intervals=True)["precision"]
    assert fewer.interval is None
    assert "No intervals" in fewer.notes[0]


def test_many_images_have_no_interval_but_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prdc, "MOST_RESAMPLED", 50)
    measured: Measured = measure(draw(60), draw(60, seed=1), intervals=True)["recall"]
    assert measured.interval is None
    assert "at most 50 images" in measured.notes[0]


def test_copies_are_noted() -> None:
    fake = np.repeat(draw(1), 40, axis=0)
    measured = measure(draw(40, seed=1), fake)["recall"]
    assert measured.details == {"empty_balls_real": 0, "empty_balls_fake": 40}
    assert "40 of 40 generated images have 5 or more exact copies" in measured.notes[0]


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_copies_are_in_the_intervals_as_in_the_values(offset: float) -> None:
    """Distances of 0 and ties decide here, where rounding would make them a little more."""
    some = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32) + np.float32(offset)
    copies = np.repeat(some, 10, axis=0)
    for inclusive, share in ((True, 1.0), (False, 0.0)):
        values = precision_recall_density_coverage(copies, copies, 3, inclusive=inclusive)
        found = intervals(copies, copies, 3, inclusive=inclusive)
        for name in ("precision", "recall", "coverage"):
            assert getattr(values, name) == share
            assert found[name].low <= share <= found[name].high
