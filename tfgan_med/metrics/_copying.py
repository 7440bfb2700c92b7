"""Statistics of copying: are generated pictures closer to training pictures than chance has it?

Distances in, verdicts out: conformal p-values of single pictures, a test of how many are flagged,
and the data-copying test of the whole set. benchmarks/memorization.py counts false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom, binomtest, hypergeom, mannwhitneyu, norm, rankdata

from tfgan_med.metrics._look_alikes import Groups
from tfgan_med.metrics._nearest_training import Chosen

Floats = npt.NDArray[np.float64]

LEVEL = 0.01
"""Share of honest pictures that may be flagged."""
FEWEST_IN_CELL = 20
"""Generated and reference pictures that the data-copying test needs, each."""


# Flags --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Which generated images are flagged, and whether these are more than chance has.

    Attributes:
        by_rank: `(images,)` closer to the training set than nearly all reference images.
        by_ratio: much closer to one training image than to any other.
        p_values: `(images,)` the conformal ones of the ranks.
        expected: share that `by_rank` flags of honest images.
        p_value: of both shares together.
        reference_by_ratio: share of reference images that the ratio flags.
        references: reference images, those that are alike counted as fewer.
    """

    by_rank: npt.NDArray[np.bool_]
    by_ratio: npt.NDArray[np.bool_]
    p_values: Floats
    expected: float
    p_value: float
    reference_by_ratio: float
    references: float

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """By either rule."""
        return self.by_rank | self.by_ratio


def judge(
    generated: Chosen, reference: Chosen, reference_kin: Groups, *, leave_one_out: bool
) -> Verdict:
    """Flag generated images and test their number.

    By rank: an image is flagged if its conformal p-value is at most `k / (n + 1)` with n
    reference images, k the largest number that keeps this below 0.01 but at least 1 (2 for
    leave-one-out); so few references allow no finer share than `1 / (n + 1)`. Images of one
    patient are alike and n counts as fewer, see `likeness`. Under exchangeability the number
    flagged of m follows a beta-binomial law with parameters (m, k, n + 1 - k); a binomial one
    would forget that the threshold is estimated. In leave-one-out the smallest distances come in
    pairs (i is nearest to j and j to i), which count for half as many: (m, k/2, (n + 1 - k)/2).

    By ratio: the share flagged is compared with that of the reference images by Fisher's test.
    The p-value of both is twice the smaller one (Bonferroni). For equal populations it was below
    0.01 in 0 to 1.5 % of 400 repetitions, with 20 to 200 references, in either calibration; that
    of a binomial test of the same count in 1 to 27 % (benchmarks/memorization.py).

    Args:
        reference: images without a distance (NaN) are left out.
        reference_kin: `(reference images,)` equal numbers for images of one patient.
        leave_one_out: the reference images are the training images themselves, in order.
    """
    known = np.isfinite(reference.distance)
    alike = likeness(reference.distance[known], reference_kin[known])
    m, n = len(generated.distance), float(known.sum()) / alike
    p_values = conformal_p_values(
        generated.distance,
        reference.distance,
        alike,
        generated.index if leave_one_out else None,
    )
    pairs = 2 if leave_one_out else 1
    rank = max(pairs, int(LEVEL * (n + 1)))
    by_rank = p_values <= (rank + 1e-9) / (n + 1)
    by_rank_p = float(
        betabinom.sf(by_rank.sum() - 1, m, rank / pairs, max(n + 1 - rank, 1e-9) / pairs)
    )

    theirs, ours = int(reference.by_ratio[known].sum()), int(generated.by_ratio.sum())
    independent = int(n / pairs)
    expected = min(int(np.ceil(theirs / alike / pairs)), independent)
    by_ratio_p = more_often(ours, m, expected, independent)
    return Verdict(
        by_rank=by_rank,
        by_ratio=generated.by_ratio,
        p_values=p_values,
        expected=min(rank / (n + 1), 1.0),
        p_value=min(1.0, 2.0 * min(by_rank_p, by_ratio_p)),
        reference_by_ratio=theirs / int(known.sum()),
        references=n,
    )


def conformal_p_values(
    distances: Floats,
    reference: Floats,
    alike: float = 1.0,
    nearest_rows: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """`(1 + #{reference <= d}) / (1 + n)`: at most p with probability p for an honest image.

    From distances inside the training set (leave-one-out) this would be too small. All n + 1
    images must be treated alike: with the generated one among them, its nearest training image
    has a neighbor as close as it, so that one counts as close whatever its own distance.

    Args:
        distances: `(images,)` of generated images to the training set.
        reference: `(n,)` of real images that are as far from it as honest ones; NaN for none.
        alike: how many reference images count as one.
        nearest_rows: for leave-one-out, the nearest training image of each generated one.
    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, section 2.2.
    """
    known = np.isfinite(reference)
    closer = np.searchsorted(np.sort(reference[known]), distances, side="right") / alike
    if nearest_rows is not None:
        own = reference[nearest_rows]
        closer = closer + (np.isfinite(own) & (own > distances))
    p_values = (1.0 + closer) / (1.0 + known.sum() / alike)
    return np.asarray(np.minimum(p_values, 1.0), np.float64)


def likeness(distances: Floats, kin: Groups) -> float:
    """How many reference images count as one, as images of one patient are alike.

        1 + (images of a patient - 1) ρ

    ρ is the correlation of ranked distances within patients (one-way analysis of variance), plus
    its standard error, since few patients tell little about it. The design effect of cluster
    samples: Kish, Survey Sampling, 1965; the error is the usual one for many patients.

    Args:
        distances, kin: `(images,)`.
    Returns:
        1 for independent images, up to the mean number of images of a patient.
    """
    _, patient, sizes = np.unique(kin, return_inverse=True, return_counts=True)
    images, patients = len(kin), len(sizes)
    if patients == images:
        return 1.0
    typical_size = float((sizes**2).sum()) / images  # of the patient of an image
    if patients == 1:
        return typical_size
    ranks = rankdata(distances)
    means = np.bincount(patient, ranks) / sizes
    within = float(((ranks - means[patient]) ** 2).sum()) / (images - patients)
    between = float((sizes * (means - ranks.mean()) ** 2).sum()) / (patients - 1)
    size = (images - typical_size) / (patients - 1)
    total = between + (size - 1) * within
    if size <= 1 or total <= 0:
        return typical_size
    correlation = max((between - within) / total, 0.0)
    error = (1 - correlation) * (1 + (size - 1) * correlation)
    error *= float(np.sqrt(2 / (size * (size - 1) * (patients - 1))))
    return 1.0 + (typical_size - 1.0) * min(correlation + error, 1.0)


def more_often(count: int, total: int, reference: int, reference_total: int) -> float:
    """One-sided p-value of Fisher's exact test: `count / total` above that of the reference."""
    both = total + reference_total
    return float(hypergeom.sf(count - 1, both, count + reference, total))


def binomial_interval(count: int, total: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval for a share."""
    ends = binomtest(count, total).proportion_ci(0.95, method="exact")
    return float(ends.low), float(ends.high)


# The data-copying test ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Copying:
    """The data-copying test: Mann-Whitney's U, its standardized form and its p-value."""

    u: float
    z: float
    p_value: float


def data_copying(generated: Floats, reference: Floats, alike: float = 1.0) -> Copying:
    """Are generated images closer to the training set than real images that it does not hold?

        Z = (U - (n m / 2 - 1 / 2)) / √(n m (n + a m + 1) / 12)

    U counts the pairs in which the generated image is farther away; ties count half. The paper
    has a = 1; its Z is too large for reference images that are not independent.

    Args:
        generated: `(m,)` distances to the nearest training image.
        reference: `(n,)` the same of real images.
        alike: a, how many reference images count as one: `likeness`, twice that for leave-one-out
            (simulated variances were up to 1.7 times those of independent images).
    Returns:
        Z is about standard normal for honest images; far below 0 for copies, far above 0 for
        images unlike the training set. The p-value is one-sided, for copying, without a
        continuity correction; for a = 1 it is corrected for ties.
    Source: Meehan, Chaudhuri, Dasgupta 2020, arXiv:2004.05675, section 3.1.
    """
    m, n = len(generated), len(reference)
    u, p = mannwhitneyu(
        generated, reference, alternative="less", method="asymptotic", use_continuity=False
    )
    error = np.sqrt(n * m * (n + alike * m + 1) / 12)
    z = (float(u) - (n * m / 2 - 0.5)) / error
    if alike != 1.0:
        p = norm.cdf((float(u) - n * m / 2) / error)
    return Copying(float(u), float(z), float(p) if np.isfinite(p) else 1.0)


def by_cell(
    generated: Floats,
    reference: Floats,
    generated_cells: npt.NDArray[np.int64],
    reference_cells: npt.NDArray[np.int64],
    alike: float,
) -> list[dict[str, Any]]:
    """The data-copying test in each cell that has enough of both.

    Args:
        generated, reference: distances; NaN of reference images without one.
        generated_cells, reference_cells: cell of each image.
        alike: as `data_copying`.
    """
    known = np.isfinite(reference)
    parts = []
    for cell in range(int(reference_cells.max()) + 1):
        ours = generated[generated_cells == cell]
        theirs = reference[known & (reference_cells == cell)]
        if min(len(ours), len(theirs)) >= FEWEST_IN_CELL:
            test = data_copying(ours, theirs, alike)
            parts.append(
                {"z": test.z, "generated_images": len(ours), "reference_images": len(theirs)}
            )
    return parts
