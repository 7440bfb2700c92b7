"""The Fréchet distance: closed forms, other libraries' values, degenerate input, intervals."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.errors import DataError, UserError
from tfgan_med.metrics import fid
from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.fid import (
    FID,
    bootstrap,
    diagonal_frechet_distance,
    fid_from_statistics_and_features,
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_distance_from_statistics,
    load_statistics,
    mean_and_covariance,
    mean_distance,
    per_class_distances,
    save_statistics,
    split_halves_distance,
    statistics_of,
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
    stored = frechet_distance_from_statistics(
        *mean_and_covariance(real), *mean_and_covariance(fake)
    )
    assert stored == pytest.approx(frechet_distance(real, fake), rel=1e-9)


# Closed forms -------------------------------------------------------------------------------------


def test_shifting_a_set_costs_the_squared_length_of_the_shift() -> None:
    features = normal(50, 8)
    shift = np.array([1.0, -2.0, 0.5, 0, 0, 0, 0, 3.0])
    assert frechet_distance(features, features + shift) == pytest.approx(14.25, rel=1e-9)


def test_shifting_a_gaussian_by_one_unit_per_axis_costs_its_dimension() -> None:
    covariance = np.diag([1.0, 4.0, 9.0])
    distance = frechet_distance_from_statistics(np.zeros(3), covariance, np.ones(3), covariance)
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
    assert frechet_distance_from_statistics(
        np.zeros(3), np.diag(first), np.zeros(3), np.diag(second)
    ) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_tiny_and_huge_covariances_keep_their_precision(scale: float) -> None:
    first, second = np.diag([1.0, 2.0]) * scale, np.diag([4.0, 2.0]) * scale
    distance = frechet_distance_from_statistics(np.zeros(2), first, np.zeros(2), second)
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
    stored = frechet_distance_from_statistics(
        *mean_and_covariance(real), *mean_and_covariance(fake)
    )
    assert frechet_distance(real, fake) == pytest.approx(stored, rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("n", "m", "d"), [(90, 100, 150), (96, 94, 300), (140, 160, 84)])
def test_the_faster_way_for_large_sets_is_exact(
    monkeypatch: pytest.MonkeyPatch, decay: float, n: int, m: int, d: int
) -> None:
    spread = np.arange(1, d + 1) ** (-decay / 2)
    real, fake = normal(n, d) * spread, np.maximum(normal(m, d, 1) * spread * 1.1, -0.5)
    exact = frechet_distance(real, fake)
    monkeypatch.setattr(fid, "_SMALL", 0)
    assert frechet_distance(real, fake) == pytest.approx(exact, rel=2e-9)


def test_copies_in_a_large_set_are_left_to_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies make many singular values zero; the roots of their rounding noise add up."""
    spread = np.arange(1, 401) ** -1.0
    half = normal(60, 400) * spread
    real, fake = np.concatenate([half, half]), normal(110, 400, 1) * spread
    exact = frechet_distance(real, fake)
    monkeypatch.setattr(fid, "_SMALL", 0)
    assert frechet_distance(real, fake) == pytest.approx(exact, rel=1e-12)
    monkeypatch.setattr(fid, "_ALLOWED_ERROR", np.inf)  # what would be wrong
    assert frechet_distance(real, fake) != pytest.approx(exact, rel=1e-8)


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
    monkeypatch.setattr(fid, "_WHOLE", 10**6)
    assert chunked == pytest.approx(frechet_distance(real, fake), rel=1e-9)


def test_a_large_set_meets_a_small_one_and_one_smaller_than_the_dimension() -> None:
    large, middle, small = normal(5000, 30), normal(100, 30, 1), normal(12, 30, 2) * 2
    for other in (middle, small):
        stored = frechet_distance_from_statistics(
            *mean_and_covariance(large), *mean_and_covariance(other)
        )
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


# Stored statistics --------------------------------------------------------------------------------


def test_statistics_survive_a_file_and_have_the_names_of_pytorch_fid(tmp_path: Path) -> None:
    features = normal(50, 6)
    path = tmp_path / "real.npz"
    save_statistics(path, statistics_of(features))
    with np.load(path, allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["mu"], features.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(stored["sigma"], np.cov(features, rowvar=False), rtol=1e-12)
    loaded = load_statistics(path)
    assert loaded.count == 50
    fake = normal(40, 6, 1) + 0.3
    assert fid_from_statistics_and_features(loaded, fake) == pytest.approx(
        frechet_distance(features, fake), rel=1e-9
    )


def test_statistics_of_other_programs_say_no_count(tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(3), sigma=np.eye(3))
    stored = load_statistics(tmp_path / "theirs.npz")
    assert stored.count is None
    fake = normal(30, 3)
    found = FID(variants=True).measure_from_statistics(stored, side(fake), Context())
    assert [measured.name for measured in found] == ["fid", "fid_mean"]
    assert found[0].value == pytest.approx(
        frechet_distance_from_statistics(
            np.zeros(3), np.eye(3), *mean_and_covariance(fake.astype(np.float32))
        )
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros(2)}, "no mu and no sigma"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"shape \(3, 3\)"),
        ({"mu": np.array([{}]), "sigma": np.eye(1)}, "allow_pickle"),
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, "could not convert"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "count": np.zeros(2)}, "count"),
    ],
)
def test_a_file_without_statistics_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "stats.npz", **arrays)
    with pytest.raises(DataError, match=f"stats.npz: .*{message}"):
        load_statistics(tmp_path / "stats.npz")


def test_no_file_and_no_archive_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file") as caught:
        load_statistics(tmp_path / "absent.npz")
    assert caught.value.exit_code == 2
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name, content in {
        "text.npz": b"mu: 3",
        "empty.npz": b"",
        "cut.npz": b"PK\x03\x04ab",
    }.items():
        (tmp_path / name).write_bytes(content)
    for name in ("one.npy", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(DataError, match=name):
            load_statistics(tmp_path / name)


# Infinitely many images ---------------------------------------------------------------------------


def test_the_limit_of_a_known_gaussian_is_recovered_within_three_standard_errors() -> None:
    """The truth: this real set against the Gaussian that generated images are drawn from."""
    spread = np.arange(1, 17) ** -0.5
    real = normal(3000, 16) * spread
    truth = frechet_distance_from_statistics(
        *mean_and_covariance(real), np.full(16, 0.02), np.diag(1.44 * spread**2)
    )
    deviations = []
    for seed in range(1, 13):
        fake = normal(2000, 16, seed) * spread * 1.2 + 0.02
        found = frechet_distance_at_infinity(real, fake, seed)
        assert found.sizes[0] == 500
        assert found.sizes[-1] == 2000
        assert found.values[-1] == pytest.approx(frechet_distance(real, fake), rel=1e-9)
        deviations.append((found.value - truth) / found.standard_error)
    assert np.max(np.abs(deviations)) < 3.0
    assert 0.4 < np.std(deviations) < 1.8  # the standard error is neither idle nor too small


def test_a_limit_from_fewer_than_1500_generated_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1499 generated images.*needs 1500"):
        frechet_distance_at_infinity(normal(50, 4), normal(1499, 4))
    with pytest.raises(ValueError, match="needs 1500"):
        measure(side(normal(50, 4)), side(normal(1499, 4)), FID(infinity=True))


def test_the_limit_comes_with_intervals_where_it_can() -> None:
    real, many, few = side(normal(60, 4)), side(normal(1500, 4, 1)), side(normal(100, 4, 1))
    assert "fid_infinity" in measure(real, many, FID(repeats=20), intervals=True)
    assert "fid_infinity" not in measure(real, few, FID(repeats=20), intervals=True)
    assert "fid_infinity" not in measure(real, many)
    found = measure(real, many, FID(infinity=True))["fid_infinity"]
    assert found.interval is None
    assert found.spread is not None and found.spread > 0
    assert found.value is not None and found.value < found.details["values"][0]


# The metric ---------------------------------------------------------------------------------------


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


def test_classes_of_one_image_are_left_out() -> None:
    features = normal(5, 3)
    found = per_class_distances(features, list("aaabc"), features, list("aabbc"))
    assert set(found) == {"a"}
    assert (found["a"].count_real, found["a"].count_fake) == (3, 2)


# Refusals -----------------------------------------------------------------------------------------


def test_one_image_on_a_side_is_refused_with_the_count() -> None:
    with pytest.raises(ValueError, match=r"generated set has 1 image"):
        frechet_distance(normal(5, 3), normal(1, 3))


def test_features_of_two_extractors_are_refused_with_their_dimensions() -> None:
    with pytest.raises(ValueError, match="4 and 3 features"):
        frechet_distance(normal(5, 4), normal(5, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_their_row(bad: float) -> None:
    features = normal(5, 3)
    features[3, 1] = bad
    with pytest.raises(ValueError, match=r"real features are not finite, first in row 3"):
        frechet_distance(features, normal(5, 3))


def test_a_covariance_that_is_not_symmetric_is_refused() -> None:
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance_from_statistics(
            np.zeros(2), np.array([[1.0, 5.0], [0.0, 1.0]]), np.zeros(2), np.eye(2)
        )


# Intervals and floor ------------------------------------------------------------------------------


def test_the_interval_covers_the_expected_distance_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    spread = np.arange(1, 25) ** -0.5

    def draw(scale: float) -> Matrix:
        return generator.standard_normal((40, 24)) * spread * scale

    target = np.mean([frechet_distance(draw(1.0), draw(1.3)) for _ in range(600)])
    intervals = [bootstrap(draw(1.0), draw(1.3), 30, seed) for seed in range(80)]
    covered = np.mean([interval.low <= target <= interval.high for interval in intervals])
    assert covered >= 0.88  # 95 % nominal; three standard errors of 80 repetitions


def test_the_interval_narrows_with_the_number_of_images() -> None:
    widths = []
    for count in (40, 640):
        interval = bootstrap(normal(count, 4), 2 * normal(count, 4, 1), 60, 0)
        widths.append(interval.high - interval.low)
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.5)  # √16


def test_an_interval_repeats_with_its_seed_and_contains_the_value() -> None:
    real, fake = normal(30, 6), normal(30, 6, 1) + 0.5
    first, again, other = (bootstrap(real, fake, 20, seed) for seed in (4, 4, 5))
    assert first == again != other
    assert first.low <= frechet_distance(real, fake) <= first.high


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 20), (60, 45, 200), (30, 300, 25)])
def test_subsets_by_products_are_the_subsets_fitted_for_themselves(n: int, m: int, d: int) -> None:
    sides = [
        fid._Resampled(normal(n, d) + 5, None),
        fid._Resampled(normal(m, d, 1) * 1.4, None),
    ]
    generator = np.random.default_rng(0)
    drawn = [[one.draw(generator) for one in sides] for _ in range(5)]
    products = list(fid._distances_by_products(sides[0], sides[1], drawn, 1))
    fits = list(fid._distances_by_fits(sides, drawn, 1))
    assert products == pytest.approx(fits, rel=1e-8)
    kept = [
        np.delete(one.features, rows, axis=0) for one, rows in zip(sides, drawn[0], strict=True)
    ]
    assert products[0] == pytest.approx(frechet_distance(*kept), rel=1e-8)


def test_large_sets_subtract_what_a_fifth_added() -> None:
    large, small = fid._Resampled(normal(5000, 20), None), fid._Resampled(normal(15, 20, 1), None)
    generator = np.random.default_rng(0)
    drawn = [[large.draw(generator), small.draw(generator)]]
    kept = [
        np.delete(one.features, rows, axis=0)
        for one, rows in zip((large, small), drawn[0], strict=True)
    ]
    assert next(fid._distances_by_fits([large, small], drawn, 1)) == pytest.approx(
        frechet_distance(*kept), rel=1e-8
    )


def test_images_of_a_group_are_left_out_together() -> None:
    groups = [f"patient {i // 4}" for i in range(60)]
    one = fid._Resampled(normal(60, 3), groups)
    left = one.draw(np.random.default_rng(0))
    assert len(left) == 12
    assert len({groups[row] for row in left}) == 3


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
        statistics_of(real.astype(np.float32)), side(fake), Context(intervals=True)
    )
    assert both is not None and alone.interval is not None
    assert 0.5 < (alone.interval.high - alone.interval.low) / (both.high - both.low) < 1.0
    assert "statistics of the real set as given" in " ".join(alone.notes)


def test_too_few_images_for_an_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="9 real, 20 generated"):
        bootstrap(normal(9, 3), normal(20, 3), 50)


def test_the_floor_falls_with_the_number_of_images() -> None:
    few, many = (split_halves_distance(normal(count, 8)) for count in (40, 4000))
    assert many < few / 20
