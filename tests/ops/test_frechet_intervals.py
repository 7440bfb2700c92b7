"""Intervals of the Fréchet distance and its limit: coverage, exact subsets, groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.ops.frechet import (
    distance,
    fit,
    frechet_distance,
    from_moments,
    mean_and_covariance,
)
from tfgan_med.ops.frechet_intervals import (
    Resampled,
    Span,
    distances_by_fits,
    distances_by_products,
    extrapolate,
    jackknife,
)

Matrix = npt.NDArray[np.float64]


def normal(count: int, dimension: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def interval(real: Matrix, fake: Matrix, repeats: int, seed: int = 0) -> Span:
    value = frechet_distance(real, fake)
    return jackknife(value, Resampled(real), Resampled(fake), repeats, seed)


# Intervals ----------------------------------------------------------------------------------------


def test_the_interval_covers_the_expected_distance_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    spread = np.arange(1, 25) ** -0.5

    def draw(scale: float) -> Matrix:
        return generator.standard_normal((40, 24)) * spread * scale

    target = np.mean([frechet_distance(draw(1.0), draw(1.3)) for _ in range(600)])
    spans = [interval(draw(1.0), draw(1.3), 30, seed) for seed in range(80)]
    covered = np.mean([span.low <= target <= span.high for span in spans])
    assert covered >= 0.88  # 95 % nominal; three standard errors of 80 repetitions


def test_the_interval_narrows_with_the_number_of_images() -> None:
    widths = []
    for count in (40, 640):
        span = interval(normal(count, 4), 2 * normal(count, 4, 1), 60, 0)
        widths.append(span.high - span.low)
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.5)  # √16


def test_an_interval_repeats_with_its_seed_and_contains_the_value() -> None:
    real, fake = normal(30, 6), normal(30, 6, 1) + 0.5
    first, again, other = (interval(real, fake, 20, seed) for seed in (4, 4, 5))
    assert first == again != other
    assert first.low <= frechet_distance(real, fake) <= first.high


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 20), (60, 45, 200), (30, 300, 25)])
def test_subsets_by_products_are_the_subsets_fitted_for_themselves(n: int, m: int, d: int) -> None:
    sides = [
        Resampled(normal(n, d) + 5),
        Resampled(normal(m, d, 1) * 1.4),
    ]
    generator = np.random.default_rng(0)
    drawn = [[one.draw(generator) for one in sides] for _ in range(5)]
    products = list(distances_by_products(sides[0], sides[1], drawn, 1))
    fits = list(distances_by_fits(sides[0], sides[1], drawn, 1))
    assert products == pytest.approx(fits, rel=1e-8)
    kept = [
        np.delete(one.features, rows, axis=0) for one, rows in zip(sides, drawn[0], strict=True)
    ]
    assert products[0] == pytest.approx(frechet_distance(*kept), rel=1e-8)


def test_large_sets_subtract_what_a_fifth_added() -> None:
    large, small = Resampled(normal(5000, 20)), Resampled(normal(15, 20, 1))
    generator = np.random.default_rng(0)
    drawn = [[large.draw(generator), small.draw(generator)]]
    kept = [
        np.delete(one.features, rows, axis=0)
        for one, rows in zip((large, small), drawn[0], strict=True)
    ]
    assert next(distances_by_fits(large, small, drawn, 1)) == pytest.approx(
        frechet_distance(*kept), rel=1e-8
    )


def test_images_of_a_group_are_left_out_together() -> None:
    groups = [f"patient {i // 4}" for i in range(60)]
    one = Resampled(normal(60, 3), groups)
    left = one.draw(np.random.default_rng(0))
    assert len(left) == 12
    assert len({groups[row] for row in left}) == 3


def test_too_few_images_for_an_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="received 9 and 20 images and 50 repeats"):
        interval(normal(9, 3), normal(20, 3), 50)


# Infinitely many images ---------------------------------------------------------------------------


def test_the_limit_of_a_known_gaussian_is_recovered_within_three_standard_errors() -> None:
    """The truth: this real set against the Gaussian that generated images are drawn from."""
    spread = np.arange(1, 17) ** -0.5
    real = normal(3000, 16) * spread
    truth = distance(
        from_moments(*mean_and_covariance(real)),
        from_moments(np.full(16, 0.02), np.diag(1.44 * spread**2)),
    )
    deviations = []
    for seed in range(1, 13):
        fake = normal(2000, 16, seed) * spread * 1.2 + 0.02
        found = extrapolate(fit(real), fake, seed)
        assert found.sizes[0] == 500
        assert found.sizes[-1] == 2000
        assert found.values[-1] == pytest.approx(frechet_distance(real, fake), rel=1e-9)
        deviations.append((found.value - truth) / found.standard_error)
    assert np.max(np.abs(deviations)) < 3.0
    assert 0.4 < np.std(deviations) < 1.8  # the standard error is neither idle nor too small


def test_a_limit_from_fewer_than_1500_generated_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1499 generated images.*needs 1500"):
        extrapolate(fit(normal(50, 4)), normal(1499, 4))
