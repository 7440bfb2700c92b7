"""Precision, recall, density and coverage: are the images real-looking, and are all kinds there?

Around each image lies a ball that reaches to its k-th nearest neighbour in its own set. With real
images x (n), generated images y (m) and radii r_k:

    precision = share of y in the ball of some x      recall = share of x in the ball of some y
    density   = balls of x around a y, mean over y, divided by k
    coverage  = share of x whose ball holds some y

Kynkäänniemi et al., arXiv:1904.06991, eq. 1 to 3; Naeem et al., arXiv:2002.09797, eq. 3 and 4.
Distances are exact (`ops.neighbors`); NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import norm

from tfgan_med.metrics import _subsets
from tfgan_med.metrics.base import (
    Context,
    Interval,
    Measured,
    Metric,
    Need,
    Side,
    checked_features,
    require,
    require_same_dimension,
)
from tfgan_med.ops import neighbors

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Floats = npt.NDArray[np.float64]

_TIE = 1e-9  # of a radius: distances closer to it are ties
_NEAR = 1e-5  # of the squared lengths: closer pairs are compared by differences
MOST_RESAMPLED = 3000  # images of a side; beyond, the table of distances outgrows 100 MB


class Values(NamedTuple):
    """The four values, and how many balls are empty because k others are copies of the image."""

    precision: float
    recall: float
    density: float
    coverage: float
    empty_real: int
    empty_fake: int

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are, as in torch-fidelity."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-5)


def precision_recall_density_coverage(
    real: Features,
    fake: Features,
    k: int = 5,
    *,
    inclusive: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Values:
    """Four views of how two sets of features overlap.

    Args:
        real: `(images, features)` of one extractor; may be memory-mapped.
        fake: `(images, features)` of generated images, from the same extractor.
        k: neighbours within a ball; the image itself is not counted.
        inclusive: count distances equal to a radius as inside (`<=`, as in the original
            precision and recall), not outside (`<`, as in `prdc`). They differ only in ties.
        progress: called with tiles of the distance matrices done and all.
    Returns:
        Precision, recall and coverage in 0..1 and density from 0, all higher is better; density
        may exceed 1 where generated images crowd. Equal distributions have density 1 and coverage
        `1 - 2^-k` on average if both sets are large and equally many. Recall and coverage
        depend on the numbers of images: compare at equal ones.
    Raises:
        ValueError: no more than k images on a side, unequal dimensions, a feature not finite.
    Source: arXiv:1904.06991, eq. 1 to 3; arXiv:2002.09797, eq. 3 and 4.
    """
    _check(real, fake, k)
    stages = _Stages(progress)
    real_radii = radii(real, k, stages.next())
    fake_radii = radii(fake, k, stages.next())
    around_real, around_fake = neighbors.mutual_counts_within(
        real, real_radii, fake, fake_radii, strict=not inclusive, progress=stages.next()
    )
    return Values(
        precision=float(np.mean(around_real.balls > 0)),
        recall=float(np.mean(around_fake.balls > 0)),
        density=float(around_real.balls.sum() / (k * len(fake))),
        coverage=float(np.mean(around_real.queries > 0)),
        empty_real=int(np.sum(real_radii == 0.0)),
        empty_fake=int(np.sum(fake_radii == 0.0)),
    )


def radii(features: Features, k: int, progress: Callable[[int, int], None] | None = None) -> Floats:
    """Distance of each image to its k-th nearest other image, `(images,)`; 0 for copies."""
    return neighbors.nearest(features, features, k, exclude_self=True, progress=progress)[0][:, -1]


def realism_scores(real: Features, fake: Features, k: int = 3) -> Floats:
    """How deep each generated image lies among the real ones, to sort samples by.

        R(y) = max over x of r_k(x) / |x - y|

    Only the half of the real balls with the smaller radii takes part (up to the median), since
    outliers have balls so large that anything lies within. Balls of radius 0 have no depth and
    are left out.

    Args:
        real, fake: as `precision_recall_density_coverage`.
        k: neighbours within a ball; 3 in the paper.
    Returns:
        `(generated images,)`, from 0; at least 1 where the image lies in a remaining ball.
        Infinite for an exact copy of a real image.
    Raises:
        ValueError: as there; or if all remaining balls have radius 0.
    Source: arXiv:1904.06991, eq. 5 in section 5.
    """
    checked_features(real, "real", k + 1)
    checked_features(fake, "generated", 1)
    require_same_dimension(real.shape[1], fake.shape[1])
    reach = radii(real, k)
    chosen = np.flatnonzero((reach <= np.median(reach)) & (reach > 0.0))
    if not len(chosen):
        raise ValueError(
            f"More than half of the {len(real)} real images have {k} exact copies, so there is no "
            "ball to lie in. Remove the copies."
        )
    center = np.mean(real[chosen[:1000]], axis=0, dtype=np.float64)
    scores = np.empty(len(fake))
    for start in range(0, len(fake), 1024):
        queries = np.asarray(fake[start : start + 1024], np.float64)
        best, ball = np.zeros(len(queries)), np.zeros(len(queries), np.int64)
        for first in range(0, len(chosen), 1024):
            part = chosen[first : first + 1024]
            squared = _squared(queries - center, np.asarray(real[part], np.float64) - center)
            with np.errstate(over="ignore"):  # infinite at a copy
                ratio = np.square(reach[part]) / np.maximum(squared, np.finfo(np.float64).tiny)
            top = ratio.argmax(axis=1)
            value = ratio[np.arange(len(queries)), top]
            ball = np.where(value > best, part[top], ball)
            best = np.maximum(best, value)
        distance = np.sqrt(np.square(queries - real[ball]).sum(axis=1))  # once more, exactly
        with np.errstate(divide="ignore"):
            scores[start : start + 1024] = reach[ball] / distance
    return scores


def _squared(x: Floats, y: Floats) -> Floats:
    """Table of squared distances by the expanded form, not below 0."""
    table = x @ y.T
    table *= -2.0
    table += np.square(x).sum(axis=1)[:, None]
    table += np.square(y).sum(axis=1)
    return np.maximum(table, 0.0, out=table)


def _check(real: Features, fake: Features, k: int) -> None:
    for features, whose in ((real, "real"), (fake, "generated")):
        if features.ndim == 2 and len(features) <= k:
            raise ValueError(
                f"The {whose} set has {len(features)} image(s); balls that reach to the {k}-th "
                f"neighbour need more than {k}. Add images, or set k to {max(len(features) - 1, 1)}"
                " or less."
            )
        checked_features(features, whose)
    require_same_dimension(real.shape[1], fake.shape[1])


class _Stages:
    """Three sweeps as one bar."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self.progress, self.stage = progress, -1

    def next(self) -> Callable[[int, int], None]:
        self.stage += 1
        stage = self.stage

        def report(done: int, total: int) -> None:
            if self.progress:
                self.progress(stage * 100 + 100 * done // total, 300)

        return report


# Intervals ----------------------------------------------------------------------------------------


def intervals(
    real: Features,
    fake: Features,
    k: int = 5,
    *,
    inclusive: bool = False,
    repeats: int = 100,
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Interval]:
    """Intervals for the values that are expected at these numbers of images.

    The bootstrap with replacement makes copies, whose balls are empty. Instead a fifth of the
    images is left out on both sides, and the spread is scaled to the whole set (delete-d
    jackknife, Shao and Wu 1989: factor kept / left out). Shares vary at least as counts do, so
    the spread is never taken below that of a binomial share (Agresti and Coull 1998); at 0 and 1,
    where no subset differs, that is all there is.

    In a simulation (benchmarks/metric_intervals.py: rectified Gaussian and heavy-tailed features,
    40 to 400 images, 16 to 400 features, equal and shifted sets) recall and coverage were inside
    in 93 to 100 of 100 repetitions, and so were precision, density and f_score with 150 images
    and more. With 40 and 60 images of 128 and 256 features single balls of outliers decide, and
    the interval held density in 73 to 75, precision in 76 and f_score in 75 to 92. Images that
    belong together (several of a patient) make it too narrow.

    Neighbours are sorted once; a subset costs some comparisons.

    Args:
        real, fake, k, inclusive: as `precision_recall_density_coverage`, up to 3000 images each.
        repeats: subsets drawn, at least 20.
        seed: of the subsets.
        level: share of repetitions that should cover the target.
        progress: called with the subsets done and all.
    Returns:
        Intervals of precision, recall, density, coverage and f_score; none of density and f_score
        where no subset differs.
    Raises:
        ValueError: as there; too many images or too few repeats.
    """
    _check(real, fake, k)
    counts = np.array([len(real), len(fake)])
    kept = counts - np.maximum(1, counts // 5)
    if counts.max() > MOST_RESAMPLED or kept.min() <= k or repeats < 20:
        raise ValueError(
            f"Intervals need more than {k} images in four fifths of a set, at most "
            f"{MOST_RESAMPLED} in a set and at least 20 repeats: received {counts[0]} real and "
            f"{counts[1]} generated images and {repeats} repeats."
        )
    table = _Table(real, fake, k, inclusive)
    generator = np.random.default_rng(seed)
    drawn = []
    for i in range(repeats):
        chosen = (generator.permutation(n) < left for n, left in zip(counts, kept, strict=True))
        drawn.append(table.values(*chosen))
        progress(i + 1, repeats)
    whole = table.values(*(np.ones(n, bool) for n in counts))
    factor = np.sqrt(max(kept / (counts - kept)))
    width = float(norm.ppf(0.5 + level / 2))
    images = {"precision": counts[1], "recall": counts[0], "coverage": counts[0]}

    found = {}
    for name in ("precision", "recall", "density", "coverage", "f_score"):
        spread = factor * float(np.std([getattr(values, name) for values in drawn], ddof=1))
        value = getattr(whole, name)
        if name in images:
            spread = max(spread, _binomial_error(value, int(images[name])))
        if spread == 0.0:
            continue
        found[name] = Interval(
            low=float(max(value - width * spread, 0.0)),
            high=float(min(value + width * spread, np.inf if name == "density" else 1.0)),
            level=level,
            method="delete-a-fifth jackknife, normal; for the expected value at these counts",
            repeats=repeats,
        )
    return found


def _binomial_error(share: float, count: int) -> float:
    share = (share * count + 2) / (count + 4)
    return float(np.sqrt(share * (1 - share) / (count + 4)))


def _distances(real: Features, fake: Features) -> Floats:
    """Table of distances that rounding moves by less than `_TIE` of themselves; 0 for copies."""
    center = real.mean(axis=0, dtype=np.float64)
    x, y = real - center, fake - center
    table = _squared(x, y)
    own, others = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    for i, row in enumerate(table):
        near = np.flatnonzero(row < _NEAR * (own[i] + others))  # digits that the form has lost
        for start in range(0, len(near), 256):
            some = near[start : start + 256]
            row[some] = np.square(fake[some] - np.asarray(real[i], np.float64)).sum(axis=1)
    return np.sqrt(table, out=table)


class _Table:
    """Neighbours and distances of the whole sets, from which those of subsets follow."""

    def __init__(self, real: Features, fake: Features, k: int, inclusive: bool) -> None:
        self.k = k
        # Of so many neighbours at least k survive the loss of a fifth, but for one in 10^12.
        self.real = neighbors.nearest(real, real, min(3 * k + 30, len(real) - 1), exclude_self=True)
        self.fake = neighbors.nearest(fake, fake, min(3 * k + 30, len(fake) - 1), exclude_self=True)
        self.distances = _distances(real, fake)
        self.inclusive = inclusive

    def values(self, real: npt.NDArray[np.bool_], fake: npt.NDArray[np.bool_]) -> Values:
        """The values of the chosen images."""
        distances = self.distances[np.ix_(real, fake)]
        real_radii = self._radii(*self.real, real)
        fake_radii = self._radii(*self.fake, fake)
        in_real = self._inside(distances, real_radii[:, None])
        in_fake = self._inside(distances, fake_radii)
        return Values(
            precision=float(in_real.any(axis=0).mean()),
            recall=float(in_fake.any(axis=1).mean()),
            density=float(np.count_nonzero(in_real) / (self.k * in_real.shape[1])),
            coverage=float(in_real.any(axis=1).mean()),
            empty_real=int(np.sum(real_radii == 0.0)),
            empty_fake=int(np.sum(fake_radii == 0.0)),
        )

    def _inside(self, distances: Floats, reach: Floats) -> npt.NDArray[np.bool_]:
        """The table rounds where the radii are exact; ties fall as they do without rounding."""
        if self.inclusive:
            return np.asarray(distances <= reach * (1 + _TIE))
        return np.asarray(distances < reach * (1 - _TIE))

    def _radii(
        self, distances: Floats, rows: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]
    ) -> Floats:
        """Distance to the k-th neighbour that is among the chosen."""
        left = np.cumsum(chosen[rows[chosen]], axis=1) >= self.k
        kth = np.where(left[:, -1], left.argmax(axis=1), left.shape[1] - 1)
        found: Floats = distances[chosen][np.arange(len(kth)), kth]
        return found


# The metric ---------------------------------------------------------------------------------------


class PRDC(Metric):
    """Precision, recall, density and coverage: realism and variety, apart from each other."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    k: int = Field(default=5, ge=1)
    """Neighbours within a ball: 5 for density and coverage, 3 in the first precision and recall."""

    inclusive: bool = False
    """Count distances equal to a radius as inside (`<=`); they occur only with copies."""

    balance: bool = True
    """Take a random subset of the larger set, as large as the smaller."""

    floor: bool = True
    """Also measure two halves of the real set, to read the values by."""

    repeats: int = Field(default=100, ge=20)
    """Subsets drawn for intervals."""

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """Five values; f_score is the harmonic mean of precision and recall."""
        x = checked_features(require(real.features, "features"), "real")
        y = checked_features(require(fake.features, "features"), "generated")
        _check(x, y, self.k)
        generator = np.random.default_rng(context.seed)
        if self.balance:
            count = min(len(x), len(y))
            x, y = (_subsets.sample(features, count, generator) for features in (x, y))

        values = precision_recall_density_coverage(
            x,
            y,
            self.k,
            inclusive=self.inclusive,
            progress=lambda done, total: context.progress("precision and recall", done, total),
        )
        floor = self._halves(x, generator)
        ranges, skipped = self._intervals(x, y, context)
        notes = (*self._notes(values, real, fake, len(x), len(y)), *skipped)
        shared: dict[str, Any] = {
            "better": "higher",
            "count_real": len(x),
            "count_fake": len(y),
            "settings": {
                "k": self.k,
                "comparison": "<=" if self.inclusive else "<",
                "balance": self.balance,
            },
            "details": {
                "empty_balls_real": values.empty_real,
                "empty_balls_fake": values.empty_fake,
            },
            "reference_of": f"between two random halves of the real set, {len(x) // 2} images each"
            if floor
            else "",
        }
        own = {
            "density": (
                "Density above 1 means that generated images crowd where real images are dense; "
                "it is no better than 1.",
            )
        }
        return [
            Measured(
                name=name,
                value=float(getattr(values, name)),
                interval=ranges.get(name),
                reference=float(getattr(floor, name)) if floor else None,
                notes=(*notes, *own.get(name, ())),
                **shared,
            )
            for name in ("precision", "recall", "density", "coverage", "f_score")
        ]

    def _halves(self, real: Features, generator: np.random.Generator) -> Values | None:
        """What a perfect generator would reach, at half the number of images."""
        if not self.floor or len(real) // 2 <= self.k:
            return None
        first, second = _subsets.halves(real, generator)
        return precision_recall_density_coverage(first, second, self.k, inclusive=self.inclusive)

    def _intervals(
        self, real: Features, fake: Features, context: Context
    ) -> tuple[dict[str, Interval], tuple[str, ...]]:
        if not context.intervals:
            return {}, ()
        most, fewest = max(len(real), len(fake)), min(len(real), len(fake))
        if most > MOST_RESAMPLED:
            return {}, (f"No intervals: they need at most {MOST_RESAMPLED} images on each side.",)
        if fewest - max(1, fewest // 5) <= self.k:
            return {}, ("No intervals: four fifths of the images are no more than k.",)
        return (
            intervals(
                real,
                fake,
                self.k,
                inclusive=self.inclusive,
                repeats=self.repeats,
                seed=context.seed,
                progress=lambda done, total: context.progress("subsets", done, total),
            ),
            (),
        )

    def _notes(
        self, values: Values, real: Side, fake: Side, used_real: int, used_fake: int
    ) -> tuple[str, ...]:
        notes = []
        if (used_real, used_fake) != (len(real), len(fake)):
            notes.append(
                f"Computed from {used_real} of {len(real)} real and {used_fake} of {len(fake)} "
                "generated images, drawn at random: recall and coverage depend on the ratio."
            )
        for empty, used, whose in (
            (values.empty_real, used_real, "real"),
            (values.empty_fake, used_fake, "generated"),
        ):
            if empty:
                notes.append(
                    f"{empty} of {used} {whose} images have {self.k} or more exact copies in "
                    "their own set; their balls have radius 0 and hold nothing"
                    + (" but copies." if self.inclusive else ", not even copies.")
                )
        return tuple(notes)
