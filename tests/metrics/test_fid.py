"""The metric FID: what it reports besides the distance, from pictures and stored statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.fid import FID, Statistics
from tfgan_med.ops.frechet import (
    distance,
    fit,
    frechet_distance,
    from_moments,
    split_halves_distance,
)

Golden = Mapping[str, npt.NDArray[Any]]
Matrix = npt.NDArray[np.float64]


def normal(count: int, dimension: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def side(
    features: npt.NDArray[Any],
    classes: tuple[str, ...] | None = None,
    groups: tuple[str, ...] | None = None,
) -> Side:
    files = tuple(f"{i}.png" for i in range(len(features)))
    return Side("set", files, features.astype(np.float32), classes=classes, groups=groups)


def measure(
    real: Side, fake: Side, settings: FID | None = None, intervals: bool = False
) -> dict[str, Measured]:
    found = (settings or FID()).measure(real, fake, Context(intervals=intervals))
    for measured in found:
        json.dumps([measured.settings, measured.details], allow_nan=False)
    return {measured.name: measured for measured in found}


def case(golden: Golden, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return golden[f"in/feat/{name}/real"], golden[f"in/feat/{name}/fake"]


# Values -------------------------------------------------------------------------------------------


def test_the_metric_reports_value_floor_and_counts(golden: Golden) -> None:
    real, fake = case(golden, "full")
    found = measure(side(real), side(fake), FID(variants=True))
    assert found["fid"].value == pytest.approx(float(golden["ref/feat/full/tfgan.fid"]), rel=1e-9)
    assert found["fid_mean"].value == pytest.approx(
        float(golden["ref/feat/full/tfgan.mean_only_fid"]), rel=1e-9
    )
    assert found["fid_diagonal"].value == pytest.approx(
        float(golden["ref/feat/full/tfgan.diagonal_only_fid"]), rel=1e-9
    )
    assert found["fid"].reference == pytest.approx(split_halves_distance(real), rel=1e-9)
    assert "128 images each" in found["fid"].reference_of
    assert found["fid"].settings == {"ddof": 1}
    notes = " ".join(found["fid"].notes)
    assert "256 real and 230 generated images for 64 features" in notes
    assert "kid has no such bias" in notes
    assert "Unequal counts" in notes


def test_a_set_smaller_than_the_dimension_is_called_rank_deficient(golden: Golden) -> None:
    real, fake = case(golden, "lowrank")
    notes = measure(side(real), side(fake))["fid"].notes
    assert "rank-deficient" in notes[0]
    assert measure(side(normal(100, 8)), side(normal(100, 8, 1)))["fid"].notes == ()


def test_identical_sets_are_reported_at_zero_not_below() -> None:
    for count, dimension in ((40, 90), (300, 12), (5000, 24)):
        one = side(normal(count, dimension))
        found = measure(one, one, FID(variants=True))
        assert 0.0 <= (found["fid"].value or 0.0) < 1e-6
        assert found["fid_mean"].value == 0.0


def test_the_floor_at_all_images_is_told_where_the_bias_goes_with_one_over_n() -> None:
    """Its expectation is that of two independent sets of the counts at hand."""
    spread = np.arange(1, 17) ** -0.5
    told = [
        measure(side(normal(800, 16, seed) * spread), side(normal(400, 16, 90 + seed) * spread))[
            "fid"
        ]
        for seed in range(10)
    ]
    expected = np.mean([found.value for found in told if found.value is not None])
    assert np.mean([found.details["reference_at_these_counts"] for found in told]) == (
        pytest.approx(expected, rel=0.15)
    )
    assert measure(side(normal(20, 16)), side(normal(20, 16, 1)))["fid"].details == {}


def test_two_real_images_have_a_distance_but_neither_floor_nor_interval() -> None:
    found = measure(side(normal(2, 5)), side(normal(2, 5, 1)), intervals=True)["fid"]
    assert found.value is not None and found.value > 0
    assert found.reference is None
    assert found.interval is None
    assert "No interval" in " ".join(found.notes)


def test_classes_are_compared_each_with_its_own() -> None:
    """Swapping two classes of the generated set leaves the whole distance as it is."""
    features = np.concatenate([normal(60, 4), normal(60, 4, 1) + 3, normal(1, 4, 2)])
    classes = ("cell",) * 60 + ("stain",) * 60 + ("rare",)
    swapped = ("stain",) * 60 + ("cell",) * 60 + ("rare",)
    right = measure(side(features, classes), side(features, classes), FID(per_class=True))
    wrong = measure(side(features, classes), side(features, swapped), FID(per_class=True))
    assert right["fid"].value == wrong["fid"].value
    assert right["fid_per_class"].value == pytest.approx(0.0, abs=1e-9)
    expected = frechet_distance(
        features[:60].astype(np.float32), features[60:120].astype(np.float32)
    )
    assert wrong["fid_per_class"].value == pytest.approx(expected, rel=1e-9)
    assert wrong["fid_per_class"].count_real == 120
    assert wrong["fid_per_class"].details["classes"]["cell"]["count_fake"] == 60
    assert "on a side: rare." in " ".join(wrong["fid_per_class"].notes)


def test_sets_without_classes_have_no_value_per_class_but_a_reason() -> None:
    features = normal(20, 3)
    found = measure(side(features), side(features, ("a",) * 20), FID(per_class=True))
    assert found["fid_per_class"].value is None
    assert found["fid_per_class"].notes == ("set: no classes.",)
    apart = measure(side(features, ("b",) * 20), side(features, ("a",) * 20), FID(per_class=True))
    assert apart["fid_per_class"].value is None
    assert "a, b" in " ".join(apart["fid_per_class"].notes)


# Infinitely many images ---------------------------------------------------------------------------


def test_the_limit_comes_with_intervals_where_it_can() -> None:
    real, many, few = side(normal(60, 4)), side(normal(1500, 4, 1)), side(normal(100, 4, 1))
    assert "fid_infinity" in measure(real, many, FID(repeats=20), intervals=True)
    assert "fid_infinity" not in measure(real, few, FID(repeats=20), intervals=True)
    assert "fid_infinity" not in measure(real, many)
    found = measure(real, many, FID(infinity=True))["fid_infinity"]
    assert found.interval is None
    assert found.spread is not None and found.spread > 0
    assert found.value is not None and found.value < found.details["values"][0]


def test_a_limit_that_was_asked_for_and_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 1500"):
        measure(side(normal(50, 4)), side(normal(1499, 4)), FID(infinity=True))


# Intervals ----------------------------------------------------------------------------------------


def test_copies_named_as_groups_widen_the_interval() -> None:
    """Each image four times over says no more than once: the interval is about twice as wide."""
    real, fake = normal(60, 4).repeat(4, axis=0), 1.5 * normal(60, 4, 1).repeat(4, axis=0)
    groups = tuple(str(i // 4) for i in range(240))
    naive = measure(side(real), side(fake), intervals=True)["fid"].interval
    aware = measure(side(real, groups=groups), side(fake, groups=groups), intervals=True)[
        "fid"
    ].interval
    assert naive is not None and aware is not None
    assert (aware.high - aware.low) / (naive.high - naive.low) == pytest.approx(2.0, rel=0.25)
    assert "groups" in aware.method


def test_an_interval_over_few_groups_is_called_a_guess() -> None:
    features, groups = normal(20, 3), tuple("abcd" * 5)
    found = measure(side(features, groups=groups), side(normal(20, 3, 1)), intervals=True)["fid"]
    assert found.interval is not None
    assert "Only 4 groups" in " ".join(found.notes)


def test_an_interval_of_stored_statistics_covers_the_generated_side_alone() -> None:
    real, fake = normal(80, 5), 2.0 * normal(80, 5, 1)
    both = measure(side(real), side(fake), intervals=True)["fid"].interval
    (alone,) = FID().measure_from_statistics(
        Statistics.of(real.astype(np.float32)), side(fake), Context(intervals=True)
    )
    assert both is not None and alone.interval is not None
    assert 0.5 < (alone.interval.high - alone.interval.low) / (both.high - both.low) < 1.0
    assert "statistics of the real set as given" in " ".join(alone.notes)


# Stored statistics --------------------------------------------------------------------------------


def test_statistics_of_other_programs_leave_the_number_of_images_open() -> None:
    fake = side(normal(30, 3))
    stored = Statistics(np.zeros(3), np.eye(3))
    found = FID(variants=True).measure_from_statistics(stored, fake, Context())
    assert [measured.name for measured in found] == ["fid", "fid_mean"]
    assert fake.features is not None
    expected = distance(from_moments(np.zeros(3), np.eye(3)), fit(fake.features))
    assert found[0].value == pytest.approx(expected, rel=1e-9)
    assert found[0].count_real is None
    few = FID().measure_from_statistics(stored, side(normal(3, 3)), Context())[0]
    assert "an unknown number of real and 3 generated" in few.notes[0]


@pytest.mark.parametrize("ddof", [0, 1])
def test_stored_statistics_give_the_value_of_the_pictures(ddof: Any) -> None:
    real, fake = side(normal(60, 4)), side(normal(1500, 4, 1))
    settings = FID(ddof=ddof, infinity=True, floor=False)
    assert real.features is not None
    stored = settings.measure_from_statistics(Statistics.of(real.features), fake, Context())
    for ours, theirs in zip(settings.measure(real, fake, Context()), stored, strict=True):
        assert theirs.name == ours.name
        assert theirs.value == pytest.approx(ours.value, rel=1e-9)


def test_without_a_number_of_images_the_covariance_keeps_its_divisor() -> None:
    with pytest.raises(ValueError, match="Leave ddof at 1"):
        Statistics(np.zeros(3), np.eye(3)).gaussian(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance": np.array([[1.0, 5.0], [0.0, 1.0]])}, "not symmetric"),
        ({"covariance": np.eye(3)}, r"shape \(3, 3\)"),
        ({"mean": np.array([0.0, np.inf])}, "not finite"),
        ({"count": 1}, r"of 1 image\(s\)"),
    ],
)
def test_what_is_no_statistics_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Statistics(np.zeros(2), np.eye(2), 9), **change)
