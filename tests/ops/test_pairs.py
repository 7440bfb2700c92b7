"""Pairs of a set: all of a small one, a fixed sample without repetition of a large one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import t as student

from tfgan_med.ops.pairs import distinct_pairs, jackknife_error


@pytest.mark.parametrize("count", [2, 3, 45])
def test_a_small_set_gives_all_its_pairs(count: int) -> None:
    assert distinct_pairs(count).tolist() == [list(pair) for pair in combinations(range(count), 2)]


@pytest.mark.parametrize("count", [46, 300, 50_000, 10**7])
def test_a_large_set_gives_a_sample_without_repetition(count: int) -> None:
    pairs = distinct_pairs(count)
    assert pairs.shape == (1000, 2)
    assert len(np.unique(pairs, axis=0)) == 1000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs.min() >= 0
    assert pairs.max() < count
    np.testing.assert_array_equal(pairs, distinct_pairs(count))
    assert not np.array_equal(pairs, distinct_pairs(count, seed=1))


def test_every_pair_can_be_drawn_and_all_as_often() -> None:
    counts = np.zeros((8, 8), int)
    for seed in range(700):
        rows, columns = distinct_pairs(8, limit=4, all_up_to=2, seed=seed).T
        counts[rows, columns] += 1
    drawn = counts[np.triu_indices(8, 1)]  # 28 pairs, 100 times each on average, deviation 9.3
    assert drawn.sum() == 2800
    assert drawn.min() > 100 - 4 * 9.3
    assert drawn.max() < 100 + 4 * 9.3


def test_one_member_has_no_pairs() -> None:
    with pytest.raises(ValueError, match="needs 2 images, received 1"):
        distinct_pairs(1)


def test_the_error_of_a_mean_of_pairs_is_that_of_the_members_they_are_made_of() -> None:
    """For values x_i + x_j of all pairs the mean is twice the mean of x, so its error is known."""
    x = np.random.default_rng(0).normal(size=30)
    pairs = distinct_pairs(30)
    error = jackknife_error(x[pairs].sum(axis=1), pairs)
    assert error == pytest.approx(2 * x.std(ddof=1) / np.sqrt(30))


def test_pairs_that_share_members_are_not_taken_for_independent_ones() -> None:
    """Intervals hold the expected distance, 2 per axis, where independence would not."""
    generator = np.random.default_rng(0)
    pairs = distinct_pairs(30)
    held, naive = 0, 0
    for _ in range(400):
        members = generator.normal(size=(30, 20))
        values = np.square(members[pairs[:, 0]] - members[pairs[:, 1]]).sum(axis=1)
        off = abs(values.mean() - 40.0)
        held += off <= student.ppf(0.975, 29) * jackknife_error(values, pairs)
        naive += off <= 1.96 * values.std() / np.sqrt(len(pairs))
    assert 0.90 * 400 <= held <= 0.99 * 400
    assert naive < 0.7 * 400


def test_without_a_pair_that_misses_a_member_there_is_no_error() -> None:
    assert jackknife_error(np.ones(1), np.array([[0, 1]])) == np.inf
