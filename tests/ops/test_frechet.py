"""The Fréchet distance: closed forms, other libraries' values, degenerate input, large sets."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.ops import frechet
from tfgan_med.ops.frechet import (
    diagonal_frechet_distance,
    fit,
    frechet_distance,
    from_moments,
    mean_and_covariance,
    mean_distance,
    per_class_distances,
    split_halves_distance,
)

Golden = Mapping[str, npt.NDArray[Any]]
Matrix = npt.NDArray[np.float64]


def normal(count: int, dimension: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def between(mean: Matrix, covariance: Matrix, other_mean: Matrix, other: Matrix) -> float:
    return frechet.distance(from_moments(mean, covariance), from_moments(other_mean, other))


def case(golden: Golden, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return golden[f"in/feat/{name}/real"], golden[f"in/feat/{name}/fake"]


# Other libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "lowrank"])
def test_the_distance_equals_that_of_tensorflow_gan(golden: Golden, name: str) -> None:
    real, fake = case(golden, name)
    expected = float(golden[f"ref/feat/{name}/tfgan.fid"])
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    assert mean_distance(real, fake) == pytest.approx(
        float(golden[f"ref/feat/{name}/tfgan.mean_only_fid"]), rel=1e-9
    )
    assert diagonal_frechet_distance(real, fake) == pytest.approx(
        float(golden[f"ref/feat/{name}/tfgan.diagonal_only_fid"]), rel=1e-9
    )


@pytest.mark.parametrize("library", ["cleanfid", "pytorchfid", "torchfidelity", "torchmetrics"])
@pytest.mark.parametrize(("name", "tolerance"), [("full", 1e-9), ("lowrank", 1e-6)])
def test_the_distance_equals_that_of_libraries_with_matrix_roots(
    golden: Golden, library: str, name: str, tolerance: float
) -> None:
    expected = float(golden[f"ref/feat/{name}/{library}.fid"])
    assert frechet_distance(*case(golden, name)) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("name", ["full", "lowrank"])
def test_stored_statistics_give_the_same_distance_as_features(golden: Golden, name: str) -> None:
    real, fake = case(golden, name)
    stored = between(*mean_and_covariance(real), *mean_and_covariance(fake))
    assert stored == pytest.approx(frechet_distance(real, fake), rel=1e-9)


# Closed forms -------------------------------------------------------------------------------------


def test_shifting_a_set_costs_the_squared_length_of_the_shift() -> None:
    features = normal(50, 8)
    shift = np.array([1.0, -2.0, 0.5, 0, 0, 0, 0, 3.0])
    assert frechet_distance(features, features + shift) == pytest.approx(14.25, rel=1e-9)


def test_shifting_a_gaussian_by_one_unit_per_axis_costs_its_dimension() -> None:
    covariance = np.diag([1.0, 4.0, 9.0])
    distance = between(np.zeros(3), covariance, np.ones(3), covariance)
    assert distance == pytest.approx(3.0)


def test_scaling_a_set_costs_its_variance_times_the_squared_change() -> None:
    features = normal(40, 5) - normal(40, 5).mean(axis=0)
    total = features.var(axis=0, ddof=1).sum()
    assert frechet_distance(features, 3.0 * features) == pytest.approx(
        4.0 * total + mean_distance(features, 3.0 * features), rel=1e-9
    )


def test_diagonal_covariances_cost_the_squared_differences_of_their_roots() -> None:
    first, second = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 0.25])
    expected = float(np.sum((np.sqrt(first) - np.sqrt(second)) ** 2))
    assert between(np.zeros(3), np.diag(first), np.zeros(3), np.diag(second)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_tiny_and_huge_covariances_keep_their_precision(scale: float) -> None:
    first, second = np.diag([1.0, 2.0]) * scale, np.diag([4.0, 2.0]) * scale
    distance = between(np.zeros(2), first, np.zeros(2), second)
    assert distance == pytest.approx(scale, rel=1e-9)


def test_a_set_that_collapsed_to_a_point_costs_the_spread_of_the_other() -> None:
    features = normal(30, 4)
    point = np.tile(features.mean(axis=0), (20, 1))
    assert frechet_distance(features, point) == pytest.approx(
        features.var(axis=0, ddof=1).sum(), rel=1e-9
    )


def test_population_covariances_scale_the_distance_by_n_minus_one_over_n() -> None:
    features = normal(10, 3) - normal(10, 3).mean(axis=0)
    unbiased, population = (frechet_distance(features, 2 * features, ddof=ddof) for ddof in (1, 0))
    assert population == pytest.approx(0.9 * unbiased, rel=1e-9)


# Properties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dimension"), [(500, 30), (20, 300), (410, 420)])
def test_a_set_is_at_no_distance_from_itself(count: int, dimension: int) -> None:
    features = normal(count, dimension)
    assert abs(frechet_distance(features, features)) < 1e-6
    assert abs(frechet_distance(features, features[::-1])) < 1e-6


def test_the_distance_is_symmetric_and_blind_to_rotation_shift_and_order() -> None:
    real, fake = normal(60, 12), 1.3 * normal(45, 12, 1) + 0.2
    distance = frechet_distance(real, fake)
    rotation = np.linalg.qr(normal(12, 12, 2))[0]
    shuffled = np.random.default_rng(3).permutation(60)
    assert frechet_distance(fake, real) == pytest.approx(distance, rel=1e-10)
    assert frechet_distance(real @ rotation + 5, fake @ rotation + 5) == pytest.approx(distance)
    assert frechet_distance(real[shuffled], fake) == pytest.approx(distance, rel=1e-10)


def test_means_far_from_zero_do_not_cost_precision() -> None:
    real, fake = normal(60, 12), 1.3 * normal(45, 12, 1) + 0.2
    moved = frechet_distance(real + 1e6, fake + 1e6)
    assert moved == pytest.approx(frechet_distance(real, fake), rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 25, 8), (30, 25, 60), (30, 70, 50), (12, 12, 12)])
def test_features_and_statistics_agree_at_every_rank(n: int, m: int, d: int) -> None:
    real, fake = normal(n, d), normal(m, d, 1) * np.linspace(0.1, 2, d)
    stored = between(*mean_and_covariance(real), *mean_and_covariance(fake))
    assert frechet_distance(real, fake) == pytest.approx(stored, rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("n", "m", "d"), [(90, 100, 150), (96, 94, 300), (140, 160, 84)])
def test_the_faster_way_for_large_sets_is_exact(
    monkeypatch: pytest.MonkeyPatch, decay: float, n: int, m: int, d: int
) -> None:
    spread = np.arange(1, d + 1) ** (-decay / 2)
    real, fake = normal(n, d) * spread, np.maximum(normal(m, d, 1) * spread * 1.1, -0.5)
    exact = frechet_distance(real, fake)
    monkeypatch.setattr(frechet, "_SMALL", 0)
    assert frechet_distance(real, fake) == pytest.approx(exact, rel=2e-9)


def test_copies_in_a_large_set_are_left_to_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies make many singular values zero; the roots of their rounding noise add up."""
    spread = np.arange(1, 401) ** -1.0
    half = normal(60, 400) * spread
    real, fake = np.concatenate([half, half]), normal(110, 400, 1) * spread
    exact = frechet_distance(real, fake)
    monkeypatch.setattr(frechet, "_SMALL", 0)
    assert frechet_distance(real, fake) == pytest.approx(exact, rel=1e-12)
    careless = frechet.distance(fit(real), fit(fake), allowed=np.inf)
    assert careless != pytest.approx(exact, rel=1e-8)


# Large sets ---------------------------------------------------------------------------------------


def dead_feature(values: Matrix) -> Matrix:
    values[:, 3] = 0.25
    return values


@pytest.mark.parametrize(
    "prepare",
    [
        lambda values: values,
        dead_feature,
        lambda values: values[np.arange(len(values)) % 7],  # rank 6
        lambda values: values + 1e4,
    ],
    ids=["full", "dead feature", "seven pictures", "far from zero"],
)
def test_sets_in_chunks_cost_the_same_as_whole_ones(
    monkeypatch: pytest.MonkeyPatch, prepare: Any
) -> None:
    spread = np.arange(1, 25) ** -1.0
    real, fake = prepare(normal(5000, 24) * spread), normal(4500, 24, 1) * spread * 1.2
    chunked = frechet_distance(real, fake)
    monkeypatch.setattr(frechet, "_WHOLE", 10**6)
    assert chunked == pytest.approx(frechet_distance(real, fake), rel=1e-9)


def test_a_large_set_meets_a_small_one_and_one_smaller_than_the_dimension() -> None:
    large, middle, small = normal(5000, 30), normal(100, 30, 1), normal(12, 30, 2) * 2
    for other in (middle, small):
        stored = between(*mean_and_covariance(large), *mean_and_covariance(other))
        assert frechet_distance(large, other) == pytest.approx(stored, rel=1e-9)
        assert frechet_distance(other, large) == pytest.approx(stored, rel=1e-9)


def test_a_large_set_is_at_no_distance_from_itself() -> None:
    features = normal(5000, 40) * np.arange(1, 41) ** -2.0
    assert abs(frechet_distance(features, features[::-1])) < 1e-6


def test_memory_mapped_features_cost_the_same_and_stay_on_disk(tmp_path: Path) -> None:
    real, fake = (normal(20000, 64, seed).astype(np.float32) for seed in (0, 1))
    np.save(tmp_path / "real.npy", real)
    np.save(tmp_path / "fake.npy", fake)
    maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("real", "fake")]
    tracemalloc.start()
    distance = frechet_distance(*maps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert distance == frechet_distance(real, fake)
    assert peak < real.nbytes  # of both sets in float64, a quarter


# Halves and classes -------------------------------------------------------------------------------


def test_the_floor_falls_with_the_number_of_images() -> None:
    few, many = (split_halves_distance(normal(count, 8)) for count in (40, 4000))
    assert many < few / 20


def test_classes_of_one_image_are_left_out() -> None:
    features = normal(5, 3)
    found = per_class_distances(features, list("aaabc"), features, list("aabbc"))
    assert set(found) == {"a"}
    assert (found["a"].count_real, found["a"].count_fake) == (3, 2)


# Refusals -----------------------------------------------------------------------------------------


def test_one_image_on_a_side_is_refused_with_the_count() -> None:
    with pytest.raises(ValueError, match="at least 2 images on each side, received 1"):
        frechet_distance(normal(5, 3), normal(1, 3))


def test_features_of_two_extractors_are_refused_with_their_dimensions() -> None:
    with pytest.raises(ValueError, match="4 and 3 features"):
        frechet_distance(normal(5, 4), normal(5, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    features = normal(5, 3)
    features[3, 1] = bad
    with pytest.raises(ValueError, match="Features are not finite"):
        frechet_distance(features, normal(5, 3))
