"""The likeness score: closed forms, exact ties, one distribution against a collapsed one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ks_2samp

from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.likeness import (
    Likeness,
    kolmogorov_smirnov,
    likeness,
    squared_distances,
)

Array = npt.NDArray[Any]


def read(path: Path, size: int, gray: bool = False) -> Array:
    picture: Any = cv2.imread(str(path), 0 if gray else 1)
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def normal(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(shift, scale, (count, 10))


def thumbnails(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64), np.uint8)


def measured(real: Array, fake: Array, context: Context | None = None, **more: Any) -> Measured:
    first, second = (
        Side("set", tuple(f"{i}.png" for i in range(len(t))), thumbnails=t) for t in (real, fake)
    )
    (found,) = Likeness(**more).measure(first, second, context or Context())
    json.dumps(asdict(found), allow_nan=False)
    return found


def test_the_statistic_equals_that_of_scipy_with_ties() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 9, 70).astype(np.float64)
    second = generator.integers(2, 12, 50).astype(np.float64)
    assert kolmogorov_smirnov(first, second) == pytest.approx(ks_2samp(first, second).statistic)


def test_a_worked_score() -> None:
    """On a line: real 0, 1, 3 (distances 1, 2, 3), generated 0, 2 (distance 2).

    Between: 0, 2, 1, 1, 3, 1. At 0 the shares are 0 and 1/6; at 1 real has 1/3, generated 0,
    between 4/6; at 2 real has 2/3, generated 1, between 5/6. KS is 1/3 and 2/3.
    """
    found = likeness(np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0]]))
    assert found.real_part == pytest.approx(1 / 3)
    assert found.fake_part == pytest.approx(2 / 3)
    assert found.score == pytest.approx(1 / 3)


def test_distances_of_whole_numbers_are_exact() -> None:
    a, b = thumbnails(5), thumbnails(4, seed=1)
    expected = np.square(a[:, None].astype(np.int64) - b.astype(np.int64)).sum(axis=(2, 3))
    np.testing.assert_array_equal(squared_distances(a, b), expected)
    assert (np.diag(squared_distances(a, a)) == 0).all()


def test_one_distribution_is_like_itself() -> None:
    assert likeness(normal(300, 0), normal(300, 1)).score > 0.95


def test_a_shifted_a_collapsed_and_a_scattered_set_are_not() -> None:
    real = normal(200, 0)
    assert likeness(real, normal(200, 1, shift=5.0)).score < 0.05
    assert likeness(real, np.repeat(real[:1], 200, axis=0)).score < 0.1
    assert likeness(real, normal(200, 1, scale=4.0)).score < 0.1


def test_the_score_is_symmetric_and_ignores_order_and_scale() -> None:
    real, fake = normal(40, 0), normal(30, 1, shift=0.5)
    score = likeness(real, fake).score
    assert likeness(fake, real).score == pytest.approx(score)
    assert likeness(real[::-1], fake).score == pytest.approx(score)
    assert likeness(8.0 * real, 8.0 * fake).score == pytest.approx(score)


def test_the_further_away_the_lower() -> None:
    scores = [likeness(normal(100, 0), normal(100, 1, shift=s)).score for s in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores, reverse=True)


def test_the_metric_samples_counts_and_refers_to_halves() -> None:
    found = measured(thumbnails(40), thumbnails(50, seed=1), images=20)
    assert (found.count_real, found.count_fake) == (20, 20)
    assert found.better == "higher"
    assert found.reference is not None
    assert found.reference_of == "between halves of 20 real images"
    assert "20 images" in found.notes[0]
    assert found.value == pytest.approx(
        1.0 - max(found.details["ks_real"], found.details["ks_generated"])
    )


def test_the_interval_holds_the_value_and_repeats_by_seed() -> None:
    context = Context(seed=3, intervals=True)
    first, again = (measured(thumbnails(30), thumbnails(30, seed=1), context) for _ in range(2))
    assert first == again
    assert first.interval is not None
    assert first.value is not None
    assert 0.0 <= first.interval.low <= first.value <= first.interval.high <= 1.0
    assert measured(thumbnails(30), thumbnails(30)).interval is None
    assert measured(thumbnails(9), thumbnails(9, seed=1), context).interval is None


def test_flat_pictures_are_defined() -> None:
    flat = np.zeros((5, 64, 64), np.uint8)
    assert measured(flat, flat).value == 1.0
    assert measured(flat, flat + np.uint8(9)).value == 0.0


def test_too_few_pictures_are_named() -> None:
    with pytest.raises(ValueError, match="1 real and 4 generated"):
        measured(thumbnails(1), thumbnails(4))
    with pytest.raises(ValueError, match="one size"):
        likeness(np.zeros((3, 4)), np.zeros((3, 5)))
    assert measured(thumbnails(3), thumbnails(3)).reference is None


def test_dropping_modes_of_real_pictures_lowers_the_score(shared: Path) -> None:
    paths = sorted((shared / "data/skin-isic2017").rglob("*.jpg"))[:40]
    real = np.stack([read(p, 64, gray=True) for p in paths])
    scores = [likeness(real[::2], real[1::2][np.arange(20) % n]).score for n in (20, 5, 1)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.3
