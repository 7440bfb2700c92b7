"""Inception Score: library values, closed forms, bounds of small sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics import inception_score as module
from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.inception_score import InceptionScore, entropies, inception_score

Logits = npt.NDArray[Any]


def draw(count: int, classes: int = 10, seed: int = 0, scale: float = 3.0) -> Logits:
    values = np.random.default_rng(seed).standard_normal((count, classes)) * scale
    return values.astype(np.float32)


def certain(classes: npt.NDArray[np.int64], count: int) -> Logits:
    """Logits of probability 1 for the given classes."""
    return np.where(np.eye(count, dtype=bool)[classes], 1000.0, 0.0)


def side(logits: Logits) -> Side:
    return Side("set", tuple(map(str, range(len(logits)))), logits=logits)


def measure(real: Logits, fake: Logits, **settings: Any) -> Measured:
    (found,) = InceptionScore(**settings).measure(side(real), side(fake), Context())
    json.dumps([found.settings, found.details, found.notes], allow_nan=False)
    return found


@pytest.mark.parametrize("case", ["c16", "c1008"])
@pytest.mark.parametrize("splits", [1, 5, 10])
@pytest.mark.parametrize("shuffle", [False, True])
def test_golden_values(golden: Mapping[str, Logits], case: str, splits: int, shuffle: bool) -> None:
    logits = golden[f"in/logits/{case}/logits"]
    reference = f"ref/logits/{case}/torchfidelity.is_splits{splits}_shuffle{shuffle:d}_mean_std"
    found = inception_score(logits, splits, shuffle=shuffle)
    np.testing.assert_allclose(found, golden[reference], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["c16", "c1008"])
def test_one_split_is_the_score_of_tf_gan(golden: Mapping[str, Logits], case: str) -> None:
    mean, spread = inception_score(golden[f"in/logits/{case}/logits"], 1)
    assert mean == pytest.approx(golden[f"ref/logits/{case}/tfgan.classifier_score"], rel=1e-9)
    assert spread == 0.0


def test_certain_and_evenly_spread_predictions_score_the_number_of_classes() -> None:
    logits = certain(np.arange(120) % 6, 6)
    mean, spread = inception_score(logits, 10, shuffle=False)
    assert mean == pytest.approx(6.0, rel=1e-12)
    assert spread == pytest.approx(0.0, abs=1e-12)


def test_equal_predictions_score_one() -> None:
    for logits in (
        np.zeros((40, 8)),
        np.repeat(draw(1, 8), 40, axis=0),
        certain(np.zeros(40, int), 8),
    ):
        assert inception_score(logits, 4) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_the_score_is_the_exponential_of_the_mutual_information() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    mean = probabilities.mean(axis=0)
    expected = np.exp(np.mean(np.sum(probabilities * np.log(probabilities / mean), axis=1)))
    assert inception_score(np.log(probabilities), 1)[0] == pytest.approx(expected, rel=1e-12)


def test_the_score_lies_between_one_and_the_smaller_of_classes_and_images() -> None:
    for count, classes, splits in ((30, 100, 1), (30, 5, 1), (40, 100, 10)):
        logits = draw(count, classes, scale=50.0)
        mean, _ = inception_score(logits, splits)
        assert 1.0 <= mean <= min(classes, count // splits)


def test_order_does_not_matter_without_splits_and_a_shift_of_logits_never_does() -> None:
    logits = draw(50).astype(np.float64)
    order = np.random.default_rng(0).permutation(50)
    one = inception_score(logits, 1)[0]
    assert inception_score(logits[order], 1)[0] == pytest.approx(one, rel=1e-12)
    assert inception_score(logits + 700.0, 5) == pytest.approx(inception_score(logits, 5), rel=1e-9)


def test_extreme_logits_are_no_nan() -> None:
    mean, spread = inception_score(1e30 * draw(40).astype(np.float64), 2)
    assert 1.0 <= mean <= 10.0
    assert np.isfinite(spread)


def test_sorted_files_need_shuffling() -> None:
    logits = certain(np.repeat(np.arange(10), 20), 10)
    assert inception_score(logits, 10, shuffle=False)[0] == pytest.approx(1.0)
    assert inception_score(logits, 10, shuffle=True)[0] > 5.0


def test_chunks_and_memory_maps_give_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logits = draw(203, 16)
    whole = inception_score(logits, 4)
    monkeypatch.setattr(module, "_CHUNK", 7)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    assert inception_score(mapped, 4) == pytest.approx(whole, rel=1e-12)


def test_entropies_of_a_fair_coin() -> None:
    found = entropies(certain(np.array([0, 1, 0, 1]), 2))
    assert found.marginal == pytest.approx(np.log(2))
    assert found.conditional == pytest.approx(0.0)
    assert entropies(np.zeros((4, 2))).conditional == pytest.approx(np.log(2))


def test_too_few_images_are_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="19 images.*10 splits.*splits to at most 9"):
        inception_score(draw(19), 10)
    with pytest.raises(ValueError, match="not finite"):
        inception_score(np.full((20, 3), np.nan), 2)


def test_a_measurement_stands_beside_the_real_score_and_its_bound() -> None:
    real, fake = draw(80, seed=1), draw(60, seed=2)
    found = measure(real, fake, splits=5)
    assert (found.value, found.spread) == pytest.approx(inception_score(fake, 5))
    assert found.better == "higher"
    assert found.reference == pytest.approx(inception_score(real, 5)[0])
    assert found.reference_of == "of the 80 real images alone, 5 splits"
    assert found.settings == {"splits": 5, "shuffle": True, "seed": 2020}
    assert found.details["largest_possible"] == 10.0
    assert found.details["images_per_split"] == 12
    assert len(found.details["score_by_split"]) == 5
    assert any("at most 10" in note for note in found.notes)
    assert any("Blind to the real images" in note for note in found.notes)


def test_a_real_set_too_small_to_score_leaves_no_reference() -> None:
    found = measure(draw(9), draw(60))
    assert (found.reference, found.reference_of) == (None, "")
    assert measure(draw(60), draw(60), floor=False).reference is None


def test_one_split_has_no_spread() -> None:
    found = measure(draw(60), draw(60), splits=1)
    assert (found.spread, found.spread_of) == (None, "")
