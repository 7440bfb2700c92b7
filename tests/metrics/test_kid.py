"""Kernel distance: library values, unbiasedness, the standard error, protocols."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics import kid as module
from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.kid import (
    KID,
    block_distances,
    kernel_distance,
    kernel_distance_and_error,
    subset_distances,
)

Features = npt.NDArray[Any]


def draw(count: int, features: int = 16, seed: int = 0, shift: float = 0.0) -> Features:
    values = np.random.default_rng(seed).standard_normal((count, features)) + shift
    return values.astype(np.float32)


def side(features: Features) -> Side:
    return Side("set", tuple(map(str, range(len(features)))), features=features)


def measure(real: Features, fake: Features, **settings: Any) -> Measured:
    (found,) = KID(**settings).measure(side(real), side(fake), Context())
    json.dumps([found.settings, found.details, found.notes], allow_nan=False)
    return found


# Golden -------------------------------------------------------------------------------------------


@pytest.fixture(params=["full", "lowrank"])
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sets(golden: Mapping[str, Features], case: str) -> tuple[Features, Features]:
    return golden[f"in/feat/{case}/real"], golden[f"in/feat/{case}/fake"]


@pytest.mark.parametrize("size", [1024, 100, 64, 16])
def test_golden_blocks(
    golden: Mapping[str, Features], case: str, sets: tuple[Features, Features], size: int
) -> None:
    values = block_distances(*sets, block_size=size)
    mean, error = golden[f"ref/feat/{case}/tfgan.kid_block{size}"]
    assert values.mean() == pytest.approx(mean, rel=1e-9)
    assert np.isnan(error) == (len(values) == 1)
    if len(values) > 1:
        assert values.std(ddof=1) / np.sqrt(len(values)) == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize("size", [100, 32])
@pytest.mark.parametrize("kept", [True, False], ids=["kernel matrix kept", "by subset"])
def test_golden_subsets(
    golden: Mapping[str, Features],
    case: str,
    sets: tuple[Features, Features],
    size: int,
    kept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if size > min(map(len, sets)):
        with pytest.raises(ValueError, match="subset size from 2 to 32"):
            subset_distances(*sets, subsets=20, subset_size=size)
        return
    monkeypatch.setattr(module, "_WHOLE", 4000 if kept else 0)
    values = subset_distances(*sets, subsets=20, subset_size=size)
    reference = golden[f"ref/feat/{case}/torchfidelity.kid_s20x{size}_mean_std"]
    np.testing.assert_allclose([values.mean(), values.std()], reference, rtol=1e-9)

    values = subset_distances(*sets, subsets=20, subset_size=size, seed=7)
    reference = golden[f"ref/feat/{case}/cleanfid.kid_s20x{size}_seed7"]
    assert values.mean() == pytest.approx(reference, rel=1e-9)


def test_golden_estimators(
    golden: Mapping[str, Features], case: str, sets: tuple[Features, Features]
) -> None:
    count = min(map(len, sets))
    real, fake = (features[:count] for features in sets)
    found = [
        kernel_distance(real, fake),
        kernel_distance(real, fake, estimator="biased"),
        kernel_distance(real, fake, estimator="u_statistic"),
    ]
    reference = golden[f"ref/feat/{case}/torchfidelity.mmd2_first_n_unbiased_biased_ustat"]
    np.testing.assert_allclose(found, reference, rtol=1e-9)


# Closed forms -------------------------------------------------------------------------------------


def test_the_formula_by_hand() -> None:
    real, fake = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # k = (x y + 1)³: within real 1, within fake 27; between 1, 1, 8, 27.
    assert kernel_distance(real, fake) == pytest.approx(1 + 27 - 2 * 37 / 4)
    # With the diagonal: (1 + 1 + 1 + 8) / 4, (8 + 27 + 27 + 125) / 4.
    biased = kernel_distance(real, fake, estimator="biased")
    assert biased == pytest.approx(11 / 4 + 187 / 4 - 2 * 37 / 4)
    # Without the pairs (0, 1) and (1, 2): 1 and 8 remain.
    u_statistic = kernel_distance(real, fake, estimator="u_statistic")
    assert u_statistic == pytest.approx(1 + 27 - 2 * (1 + 8) / 2)


def test_a_linear_kernel_measures_the_means() -> None:
    real, fake = draw(50, 8), draw(40, 8, 1, shift=2.0)
    found = kernel_distance(real, fake, degree=1, gamma=1.0, coef0=0.0, estimator="biased")
    shift = real.mean(axis=0, dtype=np.float64) - fake.mean(axis=0, dtype=np.float64)
    assert found == pytest.approx(shift @ shift, rel=1e-12)


def test_two_constant_sets_differ_by_their_kernel() -> None:
    real, fake = np.zeros((6, 4)), np.full((5, 4), 2.0)
    assert kernel_distance(real, fake) == pytest.approx(1 + 5**3 - 2)
    assert kernel_distance_and_error(real, fake).error == pytest.approx(0.0, abs=1e-6)
    assert kernel_distance(real, real) == pytest.approx(0.0, abs=1e-12)


def test_halves_of_one_set_are_at_zero_on_average() -> None:
    features = draw(120, 16)
    generator = np.random.default_rng(3)
    orders = [generator.permutation(120) for _ in range(200)]
    values = [kernel_distance(features[order[:60]], features[order[60:]]) for order in orders]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0.0  # not clipped


def test_a_set_and_itself_are_below_zero() -> None:
    features = draw(60)
    assert kernel_distance(features, features) < 0.0


def test_the_distance_is_symmetric_and_ignores_order() -> None:
    real, fake = draw(70), draw(50, seed=1, shift=0.2)
    order = np.random.default_rng(0).permutation
    expected = kernel_distance_and_error(real, fake)
    assert kernel_distance_and_error(fake, real) == pytest.approx(expected, rel=1e-9)
    mixed = kernel_distance_and_error(real[order(70)], fake[order(50)])
    assert mixed == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "u_statistic"])
def test_small_tiles_and_memory_maps_give_the_same(
    estimator: module.Estimator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, fake = draw(110), draw(110, seed=1, shift=0.2)
    whole = kernel_distance(real, fake, estimator=estimator)
    both = kernel_distance_and_error(real, fake)
    monkeypatch.setattr(module, "_TILE", 32)
    np.save(tmp_path / "real.npy", real)
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    assert kernel_distance(mapped, fake, estimator=estimator) == pytest.approx(whole, rel=1e-11)
    assert kernel_distance_and_error(mapped, fake) == pytest.approx(both, rel=1e-9)


def test_progress_counts_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", 32)
    seen: list[tuple[int, int]] = []
    kernel_distance(draw(60), draw(70), progress=lambda *step: seen.append(step))
    assert seen == [(done, 15) for done in range(1, 16)]  # 3 + 6 + 2 x 3


def exactly(real: Features, fake: Features, degree: int) -> float:
    """The unbiased distance in fractions, without any rounding."""
    x, y = ([[Fraction(float(v)) for v in row] for row in side] for side in (real, fake))

    def kernel(a: list[Fraction], b: list[Fraction]) -> Fraction:
        product = sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))
        base, power = product / len(a) + 1, Fraction(1)
        for _ in range(degree):
            power *= base
        return power

    within = sum(
        sum(kernel(a, b) for a, b in itertools.permutations(side, 2))
        / (len(side) * (len(side) - 1))
        for side in (x, y)
    )
    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return float(within - 2 * across)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e6])
def test_features_far_from_the_origin_lose_no_digits(offset: float, degree: int) -> None:
    """At 1e6 and degree 3 the kernel is 1e36 and its differences are 1e24."""
    real, fake = draw(7)[:, :4] + offset, draw(6, seed=1, shift=0.3)[:, :4] + offset
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    expected = exactly(real, fake, degree)
    assert kernel_distance(real, fake, degree=degree) == pytest.approx(expected, rel=1e-9)


def test_the_error_of_sets_far_from_the_origin_is_that_of_their_differences() -> None:
    """At offset c the kernel has `3 c^4 (x·y / d + 2 mean(x) mean(y))`, which is linear in
    features with the mean as one more, and what does not count or is a millionth of it."""
    real, fake = (draw(30, seed=seed).astype(np.float64) for seed in (0, 1))
    far = kernel_distance_and_error(real + 1e6, fake + 1e6)
    longer = [np.c_[x, np.sqrt(2 * 16) * x.mean(axis=1)] for x in (real, fake)]
    linear = kernel_distance_and_error(*longer, degree=1, gamma=1 / 16)
    assert far.value == pytest.approx(3e24 * linear.value, rel=1e-4)
    assert far.error == pytest.approx(3e24 * linear.error, rel=1e-4)


def test_equal_pictures_have_distance_zero_without_rounding() -> None:
    same = np.tile(draw(1) + 1e6, (12, 1))
    assert kernel_distance_and_error(same, same[:9]) == (0.0, 0.0)


# The standard error -------------------------------------------------------------------------------


def variance_by_definition(real: Features, fake: Features) -> float:
    """The five terms from kernel matrices, each by loops over its own definition."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    m, n, center = len(x), len(y), np.concatenate([x, y]).mean(axis=0, keepdims=True)

    def kernel(a: Features, b: Features) -> Features:
        """Less what single images bring, which no term depends on but for rounding and 1/n²."""
        raw = [(p @ q.T / x.shape[1] + 1) ** 3 for p in (a, center) for q in (b, center)]
        return np.asarray(raw[0] - raw[1] - raw[2] + raw[3])

    tables = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = np.array([np.delete(tables[0][i], i).mean() for i in range(m)])
    within_y = np.array([np.delete(tables[1][i], i).mean() for i in range(n)])
    across_x, across_y = tables[2].mean(axis=1), tables[2].mean(axis=0)

    def pairs(table: Features, means: Features) -> float:
        square = np.mean(
            [
                table[i, j] ** 2
                for i, j in zip(*np.where(~np.eye(len(table), dtype=bool)), strict=True)
            ]
        )
        return float(
            (square - means.mean() ** 2 - 2 * means.var(ddof=1)) / (1 - 2 / (len(means) - 1))
        )

    xx, yy = pairs(tables[0], within_x), pairs(tables[1], within_y)
    xy = (
        np.square(tables[2]).mean() - tables[2].mean() ** 2
        - across_x.var(ddof=1) - across_y.var(ddof=1)
    ) / (1 - 1 / m - 1 / n)  # fmt: skip
    zeta_x = (within_x - across_x).var(ddof=1) - xx / (m - 1) - xy / n
    zeta_y = (within_y - across_y).var(ddof=1) - yy / (n - 1) - xy / m
    return float(
        4 * max(zeta_x, 0) / m + 4 * max(zeta_y, 0) / n
        + 2 * xx / (m * (m - 1)) + 2 * yy / (n * (n - 1)) + 4 * xy / (m * n)
    )  # fmt: skip


def test_the_error_is_made_of_five_terms() -> None:
    real, fake = draw(40), draw(30, seed=1, shift=0.3)
    error = kernel_distance_and_error(real, fake).error
    assert error**2 == pytest.approx(variance_by_definition(real, fake), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_error_is_the_spread_of_repeated_draws(shift: float) -> None:
    found = np.array(
        [
            kernel_distance_and_error(draw(80, 8, 2 * i), draw(60, 8, 2 * i + 1, shift))
            for i in range(400)
        ]
    )
    spread = found[:, 0].std()
    assert np.sqrt(np.mean(found[:, 1] ** 2)) == pytest.approx(spread, rel=0.35)
    covered = np.abs(found[:, 0] - found[:, 0].mean()) <= 1.96 * found[:, 1]
    assert covered.mean() > 0.9


# Errors -------------------------------------------------------------------------------------------


def test_requests_that_cannot_be_answered_are_refused() -> None:
    with pytest.raises(ValueError, match="real set has 1 image"):
        kernel_distance(draw(1), draw(10))
    with pytest.raises(ValueError, match="at least 4"):
        kernel_distance_and_error(draw(10), draw(3))
    with pytest.raises(ValueError, match="same extractor"):
        kernel_distance(draw(10, 4), draw(10, 5))
    with pytest.raises(ValueError, match="10 real and 12 generated"):
        kernel_distance(draw(10), draw(12), estimator="u_statistic")
    with pytest.raises(ValueError, match="first in row 0"):
        kernel_distance(draw(10), np.full((10, 16), np.inf))
    with pytest.raises(ValueError, match="4 blocks need at least 8 images"):
        block_distances(draw(40), draw(7), block_size=10)


# The metric ---------------------------------------------------------------------------------------


def test_a_measurement_has_error_interval_and_floor() -> None:
    real, fake = draw(100), draw(80, seed=1, shift=0.5)
    found = measure(real, fake)
    value, error = kernel_distance_and_error(real, fake)
    assert (found.value, found.spread, found.spread_of) == (value, error, "standard error")
    assert found.settings == {"protocol": "full"}
    assert found.details["value_x1000"] == 1000 * value
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (value - 1.96 * error, value + 1.96 * error), rel=1e-4
    )
    assert found.reference is not None
    assert abs(found.reference) < value / 2
    assert found.reference_of == "between two random halves of the real set, 50 images each"
    assert found.notes == ()


def test_equal_distributions_are_told_apart_from_nothing() -> None:
    features = draw(100)
    found = measure(features, features[::-1].copy())
    assert found.value is not None
    assert found.value < 0
    assert "Not distinguishable from 0" in found.notes[0]
    assert found == measure(features, features[::-1].copy())


def test_subsets_are_half_of_small_sets() -> None:
    real, fake = draw(100), draw(81, seed=1, shift=0.5)
    found = measure(real, fake, protocol="subset", subsets=20)
    values = subset_distances(real, fake, subsets=20, subset_size=40)
    assert (found.value, found.spread) == (values.mean(), values.std())
    assert found.settings == {
        "protocol": "subset", "subsets": 20, "subset_size": 40, "seed": 2020,
    }  # fmt: skip
    assert found.spread_of == "population standard deviation over 20 subsets of 40"
    assert found.interval is None


def test_subsets_that_are_the_whole_set_have_no_spread() -> None:
    found = measure(draw(30), draw(30, seed=1), protocol="subset", subset_size=30)
    assert (found.spread, found.spread_of) == (None, "")
    assert "do not differ" in found.notes[0]


def test_blocks_have_an_error_if_there_are_two() -> None:
    real, fake = draw(100), draw(80, seed=1, shift=0.5)
    found = measure(real, fake, protocol="block", block_size=30)
    assert found.spread_of == "standard error over 4 blocks"
    assert found.value == block_distances(real, fake, block_size=30, seed=2020).mean()
    one = measure(real, fake, protocol="block")
    assert one.value == pytest.approx(kernel_distance(real, fake))
    assert one.spread is None
    assert "One block" in one.notes[0]


def test_the_floor_can_be_left_out() -> None:
    found = measure(draw(30), draw(30, seed=1), floor=False)
    assert (found.reference, found.reference_of) == (None, "")
