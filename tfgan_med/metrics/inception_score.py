"""Inception Score: are single images clear to a classifier, and do they differ from each other?

    q = mean of p_i,     IS = exp( mean over i of sum_j p_ij (log p_ij - log q_j) )
                            = exp( H(q) - mean of H(p_i) )

Salimans et al., arXiv:1606.03498, section 4. Pure NumPy in float64.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tfgan_med.metrics.base import (
    Context,
    Measured,
    Metric,
    Need,
    Side,
    checked_features,
    require,
)

Logits = npt.NDArray[np.floating[Any]]  # (images, classes)
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_CHUNK = 4096
_USUAL = 5000  # images; fewer bound the score noticeably


class Entropies(NamedTuple):
    """Of some images, in nats.

    Attributes:
        marginal: of the mean probabilities: how much images differ.
        conditional: mean over the images: how unclear a single image is.
    """

    marginal: float
    conditional: float

    @property
    def score(self) -> float:
        """The Inception Score of these images; never below 1 but for rounding."""
        return float(np.exp(max(self.marginal - self.conditional, 0.0)))


def inception_score(
    logits: Logits, splits: int = 10, *, shuffle: bool = True, seed: int = 2020
) -> tuple[float, float]:
    """Mean and spread of the score over splits of a set.

    Args:
        logits: `(images, classes)` before the softmax; may be memory-mapped. The published scores
            use 1008 columns, without the bias of the last layer.
        splits: parts of the set; part i holds rows `i N // splits` to `(i + 1) N // splits - 1`.
            10 as in the published scores.
        shuffle: whether images are mixed before, as in torch-fidelity. Files in the order of
            their classes would give parts of one class each.
        seed: of `RandomState(seed).permutation`; 2020 in torch-fidelity.
    Returns:
        Mean, from 1 to the smaller one of classes and images in a split, higher is better; and
        population standard deviation over the splits, which is no error of the mean.
    Raises:
        ValueError: fewer than 2 images for each split, a logit not finite.
    Source: arXiv:1606.03498, section 4; openai/improved-gan, inception_score/model.py;
        toshas/torch-fidelity, torch_fidelity/metric_isc.py.
    """
    scores = np.array([part.score for part in _parts(logits, splits, shuffle, seed)])
    return float(scores.mean()), float(scores.std())


def entropies(logits: Logits, rows: Rows | None = None) -> Entropies:
    """Entropy of the mean prediction, and mean entropy of predictions.

    Args:
        logits: `(images, classes)`.
        rows: of the images that count; None counts all.
    """
    rows = np.arange(len(logits)) if rows is None else rows
    total, conditional = np.zeros(logits.shape[1]), 0.0
    for start in range(0, len(rows), _CHUNK):
        part = np.asarray(logits[rows[start : start + _CHUNK]], np.float64)
        part = part - part.max(axis=1, keepdims=True)
        exponentials = np.exp(part)
        sums = exponentials.sum(axis=1, keepdims=True)
        probabilities = exponentials / sums
        part -= np.log(sums)  # log p, finite even where p is 0
        conditional -= float(np.vdot(probabilities, part))
        total += probabilities.sum(axis=0)
    marginal = total / len(rows)
    positive = marginal[marginal > 0.0]  # 0 log 0 = 0
    return Entropies(
        marginal=float(-np.sum(positive * np.log(positive))), conditional=conditional / len(rows)
    )


def _parts(logits: Logits, splits: int, shuffle: bool, seed: int) -> list[Entropies]:
    checked_features(logits, "scored")
    count = len(logits)
    if splits < 1 or count < 2 * splits:
        raise ValueError(
            f"{count} images are too few for {splits} splits of the Inception Score: at least 2 "
            f"images in each are needed. Add images, or set splits to at most {count // 2}."
        )
    order = np.random.RandomState(seed).permutation(count) if shuffle else np.arange(count)
    edges = [i * count // splits for i in range(splits + 1)]
    return [entropies(logits, order[low:high]) for low, high in itertools.pairwise(edges)]


class InceptionScore(Metric):
    """Inception Score: clear and varied images, in the eyes of an ImageNet classifier.

    Salimans et al., arXiv:1606.03498. It does not look at the real images: read it beside theirs.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    splits: int = Field(default=10, ge=1)
    """Parts of the set whose scores are averaged; fewer for small sets."""

    shuffle: bool = True
    """Mix the images before they are split; files are often sorted by class."""

    seed: int = Field(default=2020, ge=0)
    """Of the mixing; 2020 in torch-fidelity."""

    floor: bool = True
    """Also score the real set, to read the value by."""

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """One value."""
        logits = require(fake.logits, "logits")
        parts = _parts(logits, self.splits, self.shuffle, self.seed)
        scores = np.array([part.score for part in parts])
        reference, reference_of = self._real(real)
        classes, smallest = logits.shape[1], len(logits) // self.splits
        return [
            Measured(
                name="inception_score",
                value=float(scores.mean()),
                better="higher",
                spread=float(scores.std()) if self.splits > 1 else None,
                spread_of=f"population standard deviation over {self.splits} splits"
                if self.splits > 1
                else "",
                reference=reference,
                reference_of=reference_of,
                settings={"splits": self.splits, "shuffle": self.shuffle, "seed": self.seed},
                details={
                    "marginal_entropy": float(np.mean([part.marginal for part in parts])),
                    "conditional_entropy": float(np.mean([part.conditional for part in parts])),
                    "score_by_split": [float(score) for score in scores],
                    "largest_possible": float(min(classes, smallest)),
                    "images_per_split": smallest,
                },
                notes=self._notes(len(logits), classes, smallest),
            )
        ]

    def _real(self, real: Side) -> tuple[float | None, str]:
        logits = real.logits
        if not self.floor or logits is None or len(logits) < 2 * self.splits:
            return None, ""
        mean, _ = inception_score(logits, self.splits, shuffle=self.shuffle, seed=self.seed)
        return mean, f"of the {len(logits)} real images alone, {self.splits} splits"

    def _notes(self, count: int, classes: int, smallest: int) -> tuple[str, ...]:
        notes = [
            "Blind to the real images, to copies of them and to collapse within a class; for "
            "medical and industrial images it tells only how differently ImageNet classes fire."
        ]
        if count < _USUAL:
            notes.append(
                f"{count} images in {self.splits} splits: the score is at most "
                f"{min(classes, smallest)} and grows with the images of a split. Compare at equal "
                f"numbers; published scores use {_USUAL} images or more in each of 10 splits."
            )
        return tuple(notes)
