"""Likeness score: whether distances within and between two sets are distributed alike.

    LS = 1 - max( KS(d_RR, d_RG), KS(d_GG, d_RG) )

with KS the two-sample Kolmogorov-Smirnov statistic of the Euclidean distances within the real
set, within the generated set and between them. Pictures of one distribution have one distribution
of distances; a generator that collapses, copies or misses a mode does not. No network.

Guan and Loew, arXiv:2002.12345; code ShuyueG/GAN_evaluation_LS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import norm

from tfgan_med.metrics.base import (
    THUMBNAIL,
    Context,
    Interval,
    Measured,
    Metric,
    Need,
    Side,
    require,
)

Vectors = npt.NDArray[Any]  # (images, ...)
Values = npt.NDArray[np.float64]

_REPEATS = 50
_FEWEST_FOR_INTERVAL = 10


def squared_distances(first: Vectors, second: Vectors) -> Values:
    """Squared Euclidean distances `(first, second)` of images `(images, ...)` as vectors.

    Exact for integers such as uint8: all sums are whole numbers below 2^53, so that equal
    distances are equal in floating point too and ties stay ties.
    """
    a = first.reshape(len(first), -1).astype(np.float64)
    b = a if second is first else second.reshape(len(second), -1).astype(np.float64)
    distances: Values = a @ b.T
    distances *= -2.0
    distances += np.einsum("ij,ij->i", a, a)[:, None]
    distances += np.einsum("ij,ij->i", b, b)
    return np.maximum(distances, 0.0, out=distances)


def kolmogorov_smirnov(first: Values, second: Values) -> float:
    """The largest difference between two empirical distribution functions, in [0, 1].

    Args:
        first, second: `(values,)` samples, at least one value each.
    """
    first, second = np.sort(first), np.sort(second)
    at = np.concatenate([first, second])
    below_first = np.searchsorted(first, at, side="right") / len(first)
    below_second = np.searchsorted(second, at, side="right") / len(second)
    return float(np.abs(below_first - below_second).max())


@dataclass(frozen=True)
class LikenessScore:
    """The score and its parts.

    Attributes:
        score: in [0, 1], 1 for distances of one distribution.
        real_part: KS(d_RR, d_RG), large if generated images are away from the real ones.
        fake_part: KS(d_GG, d_RG), large too if generated images are closer to each other.
    """

    score: float
    real_part: float
    fake_part: float


def likeness(real: Vectors, fake: Vectors) -> LikenessScore:
    """The likeness score of two sets; only the order of distances counts, not their scale.

    Args:
        real, fake: `(images, ...)` of equal size, at least 2 images each.
    Raises:
        ValueError: fewer images, images of different sizes.
    """
    if min(len(real), len(fake)) < 2 or real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            "The likeness score needs 2 images of one size on each side: received arrays of shape "
            f"{real.shape} and {fake.shape}. Add images."
        )
    return _from_distances(
        squared_distances(real, real), squared_distances(fake, fake), squared_distances(real, fake)
    )


def _from_distances(within_real: Values, within_fake: Values, between: Values) -> LikenessScore:
    """From matrices, the first two symmetric; each pair counts once."""
    across = between.ravel()
    real_part, fake_part = (
        kolmogorov_smirnov(within[np.triu_indices(len(within), 1)], across)
        for within in (within_real, within_fake)
    )
    return LikenessScore(1.0 - max(real_part, fake_part), real_part, fake_part)


class Likeness(Metric):
    """Whether distances between pictures are the same within and between the sets; 1 is best.

    On grey thumbnails of 64 x 64 pixels (the original takes whole pictures): layout and
    brightness count, fine detail does not. It needs no network and few pictures.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"thumbnails"})

    images: int = Field(1000, ge=2, le=5000)
    """Most images looked at on each side, a random sample; 1000 have half a million pairs."""

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """The likeness score; its reference is the score of two halves of the real set.

        Raises:
            ValueError: fewer than 2 images on a side.
        """
        generator = np.random.default_rng(context.seed)
        real_images = self._sample(require(real.thumbnails, "real thumbnails"), generator)
        fake_images = self._sample(require(fake.thumbnails, "generated thumbnails"), generator)
        if min(len(real_images), len(fake_images)) < 2:
            raise ValueError(
                "The likeness score needs 2 images on each side: received "
                f"{len(real_images)} real and {len(fake_images)} generated images. Add images."
            )
        context.progress("distances of thumbnails", 0, 1)
        rr = squared_distances(real_images, real_images)
        gg = squared_distances(fake_images, fake_images)
        rg = squared_distances(real_images, fake_images)
        found = _from_distances(rr, gg, rg)
        interval = _interval(found.score, rr, gg, rg, generator) if context.intervals else None
        half = len(rr) // 2  # the sample is in random order
        reference = None
        if half >= 2:
            reference = _from_distances(rr[:half, :half], rr[half:, half:], rr[:half, half:]).score
        context.progress("distances of thumbnails", 1, 1)
        return [
            Measured(
                "likeness",
                found.score,
                "higher",
                interval=interval,
                reference=reference,
                reference_of=f"between halves of {len(rr)} real images" if half >= 2 else "",
                count_real=len(rr),
                count_fake=len(gg),
                settings={"images": self.images, "vectors": f"grey {THUMBNAIL} x {THUMBNAIL}"},
                uses="",
                details={"ks_real": found.real_part, "ks_generated": found.fake_part},
                notes=_notes(min(len(rr), len(gg))),
            )
        ]

    def _sample(self, thumbnails: Vectors, generator: np.random.Generator) -> Vectors:
        return thumbnails[generator.permutation(len(thumbnails))[: self.images]]


def _notes(count: int) -> tuple[str, ...]:
    if count >= 30:
        return ()
    return (
        f"With {count} images a difference of distributions shows by chance; compare with the "
        "value of the two halves.",
    )


def _interval(
    value: float, rr: Values, gg: Values, rg: Values, generator: np.random.Generator
) -> Interval | None:
    """Delete-a-fifth jackknife over images: pairs share images and are not independent."""
    if min(len(rr), len(gg)) < _FEWEST_FOR_INTERVAL:
        return None
    scores = np.empty(_REPEATS)
    for i in range(_REPEATS):
        a, b = (_without_a_fifth(len(within), generator) for within in (rr, gg))
        scores[i] = _from_distances(rr[np.ix_(a, a)], gg[np.ix_(b, b)], rg[np.ix_(a, b)]).score
    spread = 2.0 * float(scores.std(ddof=1)) * float(norm.ppf(0.975))  # 2 = sqrt(kept / left out)
    return Interval(
        low=max(value - spread, 0.0),
        high=min(value + spread, 1.0),
        level=0.95,
        method="delete-a-fifth jackknife over images, normal; at these counts",
        repeats=_REPEATS,
    )


def _without_a_fifth(count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    return generator.permutation(count)[: count - max(1, count // 5)]
