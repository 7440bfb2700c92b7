"""LPIPS diversity: exact on embeddings, bounded in memory, wary of noise, awake to copies."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics import lpips
from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.lpips import (
    LPIPS,
    all_pairs,
    diversity,
    intra_cluster_diversity,
    pair_distances,
    pairwise,
)
from tfgan_med.ops.pairs import distinct_pairs

Array = npt.NDArray[Any]


class Pixels:
    """The pixels themselves as embeddings, and how many pictures were embedded."""

    def __init__(self) -> None:
        self.embedded = 0
        self.most = 0

    def embed(self, pictures: Array) -> Array:
        self.embedded += len(pictures)
        self.most = max(self.most, len(pictures))
        vectors: Array = pictures.reshape(len(pictures), -1).astype(np.float32) / 255.0
        return vectors


def noise(count: int, seed: int = 0, side: int = 8) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def side(pictures: Array, **more: Any) -> Side:
    names = tuple(f"{i}.png" for i in range(len(pictures)))
    return Side("set", names, pictures=pictures, kept=np.arange(len(pictures)), **more)


def measured(real: Array, fake: Array, metric: LPIPS | None = None) -> tuple[Measured, Measured]:
    first, second = (metric or LPIPS()).measure(
        side(real), side(fake), Context(perceptual=Pixels())
    )
    return first, second


def by_hand(first: Array, second: Array) -> Array:
    """Every difference written out."""
    a, b = (Pixels().embed(x).astype(np.float64) for x in (first, second))
    distances: Array = np.square(a[:, None] - b[None]).sum(axis=2)
    return distances


# Distances ----------------------------------------------------------------------------------------


def test_pairwise_distances_by_hand() -> None:
    first, second = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 1.0]])
    np.testing.assert_allclose(pairwise(first, second), [[1.0], [18.0]])
    np.testing.assert_allclose(pairwise(first), [[0.0, 25.0], [25.0, 0.0]])
    with pytest.raises(ValueError, match="received 2 and 3 features"):
        pairwise(first, np.zeros((1, 3)))


def test_equal_rows_are_exactly_0_apart_and_no_distance_is_negative() -> None:
    rows = np.random.default_rng(0).normal(1000.0, 1.0, (40, 5000)).astype(np.float32)
    rows[7] = rows[3]
    for distances in (pairwise(rows), pairwise(rows, rows[::-1].copy())[:, ::-1]):
        assert distances.min() == 0.0
        assert (distances == 0.0).sum() == 42
        assert (distances.diagonal() == 0.0).all()
    assert (pairwise(rows) == pairwise(rows).T).all()


def test_a_small_difference_of_long_vectors_survives() -> None:
    """As a near copy has it: 1e-3 apart at length 2000, where float32 products see nothing."""
    rows = np.full((2, 4_000_000), 1.0, np.float32)
    rows[1, :1000] += np.float32(2.0**-10)
    assert pairwise(rows)[0, 1] == pytest.approx(1000 * 2.0**-20, rel=1e-6)


@pytest.mark.parametrize("fitting", [1, 3, 7, 50])
def test_all_pairs_equal_pair_by_pair_however_few_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch, fitting: int
) -> None:
    monkeypatch.setattr(lpips, "_BLOCK_BYTES", fitting * 4 * 192)
    first, second = noise(13), noise(9, seed=1)
    network = Pixels()
    np.testing.assert_allclose(
        all_pairs(network.embed, first, second), by_hand(first, second), rtol=1e-6
    )
    within = all_pairs(network.embed, first)
    np.testing.assert_allclose(within, by_hand(first, first), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(within, within.T)
    pairs = distinct_pairs(13)
    np.testing.assert_allclose(
        pair_distances(network.embed, first, pairs), within[tuple(pairs.T)], rtol=1e-6
    )
    assert network.most <= max(2, 2 * fitting)


def test_sets_that_fit_are_embedded_once() -> None:
    network = Pixels()
    all_pairs(network.embed, noise(20), noise(30))
    assert network.embedded == 1 + 20 + 30  # one to see how long a vector is
    network = Pixels()
    pair_distances(network.embed, noise(100), distinct_pairs(100))
    assert network.embedded == 1 + 100


def test_blocks_are_gone_through_to_and_fro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "_BLOCK_BYTES", 10 * 4 * 192)
    network = Pixels()
    all_pairs(network.embed, noise(40), noise(30))
    assert network.embedded == 1 + 40 + 4 * 30 - 3 * 10  # without the three that were still there


def test_progress_ends_with_all_pairs() -> None:
    seen: list[tuple[str, int, int]] = []
    all_pairs(Pixels().embed, noise(5), noise(4), lambda *step: seen.append(step))
    assert seen[-1] == ("perceptual distances", 20, 20)
    pair_distances(Pixels().embed, noise(5), distinct_pairs(5), lambda *step: seen.append(step))
    assert seen[-1] == ("perceptual distances", 10, 10)


def test_an_empty_set_has_no_distances() -> None:
    assert all_pairs(Pixels().embed, noise(3), noise(3)[:0]).shape == (3, 0)


# Diversity ----------------------------------------------------------------------------------------


def test_diversity_is_the_mean_over_pairs_with_an_interval() -> None:
    pictures = noise(45)
    pairs = distinct_pairs(45)
    mean, interval = diversity(by_hand(pictures, pictures)[tuple(pairs.T)], pairs)
    # Two independent uniform values in 0..1 differ by 1/6 in the square; 192 values.
    assert mean == pytest.approx(192 / 6, rel=0.03)
    assert interval is not None
    assert interval.low < 192 / 6 < interval.high
    few = distinct_pairs(9)
    assert diversity(np.ones(len(few)), few) == (1.0, None)


def test_of_copies_of_ten_pictures_only_the_diversity_inside_groups_is_gone() -> None:
    real = noise(10)
    copies, _ = measured(real, np.repeat(real, 6, axis=0))
    _, inside = measured(real, np.repeat(real, 6, axis=0))
    assert copies.value == pytest.approx(copies.reference, rel=0.15)
    assert inside.value == 0.0
    assert inside.details["sizes"] == [6] * 10


def test_groups_by_hand() -> None:
    """Three at the first real image, 1, 4 and 9 apart; two at the second, 4 apart; one alone."""
    real = np.array([[0.0], [100.0], [200.0]])
    fake = np.array([[0.0], [1.0], [3.0], [99.0], [101.0], [200.0]])
    clusters = intra_cluster_diversity(fake, real)
    assert clusters.means[:2] == pytest.approx((14 / 3, 4.0))
    assert clusters.means[2] is None
    assert clusters.mean == pytest.approx((14 / 3 + 4) / 2)
    assert clusters.spread == pytest.approx((14 / 3 - 4) / 2)
    assert clusters.sizes == (3, 2, 1)


def test_without_two_images_at_one_real_image_there_is_no_value() -> None:
    real = noise(4)
    _, inside = measured(real, real)
    assert inside.value is None
    assert "no pairs" in inside.notes[0]
    json.dumps(asdict(inside), allow_nan=False)


def test_the_metric_agrees_with_the_functions_on_embeddings() -> None:
    real, fake = noise(7), noise(60, seed=1)
    first, second = measured(real, fake, LPIPS(images=50))
    distances = by_hand(fake[:50], fake[:50])
    assert first.value == pytest.approx(distances[tuple(distinct_pairs(50).T)].mean())
    reference = by_hand(real, real)[np.triu_indices(7, 1)].mean()
    assert first.reference == pytest.approx(reference)
    assert first.details["minus_real"] == pytest.approx(first.value - reference)
    expected = intra_cluster_diversity(Pixels().embed(fake[:50]), Pixels().embed(real))
    assert second.value == pytest.approx(expected.mean)
    assert second.spread == pytest.approx(expected.spread)
    assert (second.count_real, second.count_fake) == (7, 50)


def test_more_than_real_diversity_is_no_merit() -> None:
    calm = (noise(20) // 2).astype(np.uint8)
    below, _ = measured(noise(20), calm)
    above, _ = measured(calm, noise(20))
    assert (below.better, above.better) == ("higher", "neither")
    assert not below.notes
    assert "noise" in above.notes[0]


def test_identical_pictures_have_no_diversity() -> None:
    first, second = measured(noise(5), np.repeat(noise(1, seed=1), 30, axis=0))
    assert first.value == 0.0
    assert first.interval is not None
    assert (first.interval.low, first.interval.high) == (0.0, 0.0)
    assert second.value == 0.0
    for result in (first, second):
        json.dumps(asdict(result), allow_nan=False)


def test_mixed_classes_are_pointed_out() -> None:
    context = Context(perceptual=Pixels())
    labelled = side(noise(4), classes=("a", "a", "b", "b"))
    first, _ = LPIPS().measure(side(noise(4)), labelled, context)
    assert "different classes" in first.notes[-1]


def test_one_generated_image_has_no_diversity_and_one_real_one_no_reference() -> None:
    with pytest.raises(ValueError, match="received 1 and 5"):
        measured(noise(5), noise(1))
    first, second = measured(noise(1), noise(5, seed=1))
    assert first.reference is None
    assert first.details["minus_real"] is None
    assert second.details["sizes"] == [5]


def test_generated_images_are_assigned_to_a_sample_of_many_real_ones() -> None:
    _, second = measured(noise(30), noise(20, seed=1), LPIPS(references=10))
    assert second.count_real == 10
    assert "10 of 30" in second.notes[-1]


def test_real_photographs_are_more_diverse_than_copies_of_a_few(shared: Path) -> None:
    """On real features: mode dropping lowers the value, step by step."""
    from PIL import Image

    from tfgan_med.networks import lpips as networks

    network = networks.load(
        "squeezenet-caffe",
        shared / "weights/squeezenet-1.1-imagenet-notop.h5",
        shared / "weights/lpips-v0.1-lin-squeeze.pth",
    )
    paths = sorted((shared / "data/faces-ffhq50").rglob("*.png"))[:24]
    faces = np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in paths]
    )
    context = Context(perceptual=network)
    values = []
    for kept in (24, 6, 2):
        repeated = np.concatenate([faces[:kept]] * (24 // kept))
        first, second = LPIPS().measure(side(faces), side(repeated), context)
        values.append(first.value or 0.0)
        if kept < 24:
            assert second.value == 0.0
    assert values[0] > values[1] > values[2] > 0.0
