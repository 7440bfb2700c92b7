"""Latent vectors: the normal distribution, its truncation, closed forms of the two ways."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tfgan_med.ops.latents import latents, lerp, slerp


def test_values_are_standard_normal() -> None:
    values = latents(0, range(500), 200).ravel()
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / values.size)


def test_vectors_of_neighboring_seeds_and_indices_are_unrelated() -> None:
    vectors = np.concatenate([latents(seed, range(40), 400) for seed in range(3)])
    correlation = np.corrcoef(vectors)[~np.eye(120, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(400)
    assert abs(correlation.mean()) < 0.002


def test_a_vector_depends_on_its_seed_and_index_alone() -> None:
    whole = latents(7, range(10), 5)
    np.testing.assert_array_equal(latents(7, [9, 3], 5), whole[[9, 3]])
    np.testing.assert_array_equal(latents(7, [4], 3)[0], whole[4, :3])
    assert not np.array_equal(latents(8, range(10), 5), whole)


def test_the_first_values_of_a_seed_never_change() -> None:
    """Provenance promises pictures again in years to come: raw Philox bits are fixed."""
    bits = np.random.Philox(key=np.array([3, 5], np.uint64)).random_raw(2)
    expected = stats.norm.ppf([(int(word) // 4096 + 0.5) / 2**52 for word in bits])
    np.testing.assert_allclose(latents(3, [5], 2)[0], expected, rtol=1e-6)
    noted = [-2.2718842, -0.7013279, -1.2189802, 0.16217156]  # 2026-11-22, NumPy 2.4
    np.testing.assert_allclose(latents(0, [0], 4)[0], noted, rtol=1e-6)


@pytest.mark.parametrize("bound", [0.5, 1.0, 2.0])
def test_truncation_cuts_the_unit_normal_and_does_not_scale_it(bound: float) -> None:
    values = latents(0, range(200), 100, truncation=bound).ravel()
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.999 * bound
    assert stats.kstest(values, stats.truncnorm(-bound, bound).cdf).pvalue > 0.01


def test_a_wide_bound_changes_nothing_and_the_order_of_values_stays() -> None:
    free = latents(0, [0], 300)[0]
    np.testing.assert_allclose(latents(0, [0], 300, truncation=9.0)[0], free, rtol=1e-6)
    near = latents(0, [0], 300, truncation=0.3)[0]
    np.testing.assert_array_equal(np.argsort(near), np.argsort(free))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_bound_must_be_above_zero(wrong: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        latents(0, [0], 2, truncation=wrong)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**64, 0), (0, -1)])
def test_seeds_and_indices_out_of_range_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        latents(seed, [index], 2)


def test_the_largest_seed_gives_finite_values() -> None:
    assert np.isfinite(latents(2**64 - 1, [2**63], 100)).all()


# Ways ---------------------------------------------------------------------------------------------

X = np.array([2.0, 0.0, 0.0], np.float32)
Y = np.array([0.0, 2.0, 0.0], np.float32)


def test_the_arc_between_two_axes_is_a_quarter_of_a_circle() -> None:
    angles = np.linspace(0, np.pi / 2, 7)
    expected = 2 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    np.testing.assert_allclose(slerp(X, Y, 7), expected, atol=1e-6)


def test_the_line_between_two_axes_passes_nearer_to_the_origin() -> None:
    way = lerp(X, Y, 5)
    np.testing.assert_allclose(way[1], [1.5, 0.5, 0.0])
    assert np.linalg.norm(way[2]) == pytest.approx(np.sqrt(2))


def test_an_arc_between_vectors_of_equal_norm_keeps_it_and_has_equal_steps() -> None:
    a, b = latents(0, [0, 1], 64)
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    way = slerp(a, b, 9)
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), np.linalg.norm(a), rtol=1e-6)
    lengths = np.linalg.norm(np.diff(way, axis=0), axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


@pytest.mark.parametrize("path", [lerp, slerp])
def test_both_ends_are_exact(path: object) -> None:
    a, b = latents(1, [0, 1], 100)
    way = path(a, b, 4)  # type: ignore[operator]
    assert (way.shape, way.dtype) == ((4, 100), np.float32)
    np.testing.assert_array_equal(way[[0, -1]], [a, b])


@pytest.mark.parametrize(
    "last", [X, X + np.float32(1e-6), -X, 0 * X], ids=["equal", "near", "opposite", "zero"]
)
def test_without_a_single_arc_the_line_is_taken(last: np.ndarray) -> None:
    np.testing.assert_array_equal(slerp(X, last, 5), lerp(X, last, 5))


def test_arc_and_line_meet_where_the_arc_becomes_flat() -> None:
    near = X + np.array([0.0, 3e-4, 0.0], np.float32)
    np.testing.assert_allclose(slerp(X, near, 5), lerp(X, near, 5), atol=1e-7)


@pytest.mark.parametrize(("last", "steps"), [(Y, 1), (Y[:2], 5)])
def test_ways_need_two_steps_and_one_length(last: np.ndarray, steps: int) -> None:
    for path in (lerp, slerp):
        with pytest.raises(ValueError, match="At least 2 steps"):
            path(X, last, steps)
