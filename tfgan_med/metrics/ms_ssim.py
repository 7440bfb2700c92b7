"""MS-SSIM diversity: how similar generated pictures of one class are to each other.

A generator that repeats itself has pairs of a higher similarity than the real pictures have. The
measure sees copies and shared layout of pixels, not meaning: pictures of a fixed pose are similar
however different the patients are, so it is read beside the value of the real pictures.

Odena et al., arXiv:1610.09585, section 4.2; similarity of Wang et al. 2003, see `ops/ssim.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import t as student

from tfgan_med.metrics._classes import WHOLE, ByClass, as_a_whole, in_common
from tfgan_med.metrics.base import Better, Context, Interval, Measured, Metric, Need, Side, require
from tfgan_med.ops.pairs import distinct_pairs, jackknife_error
from tfgan_med.ops.ssim import (
    Moments,
    largest_scales,
    multiscale_similarity,
    pyramid,
    scale_weights,
    without_equal_channels,
)

Pictures = npt.NDArray[np.uint8]  # (images, height, width, 3)
Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_CACHE_BYTES = 200 * 2**20
_FEWEST_FOR_INTERVAL = 10


def pair_similarities(
    pictures: Pictures,
    pairs: Rows,
    scales: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Values:
    """MS-SSIM of chosen pairs, on all cores.

    Args:
        pictures: `(images, height, width, channels)` in 0..255.
        pairs: `(pairs, 2)` rows of `pictures`.
        scales: 1 to 5; None for as many as the pictures allow. Weights are renormalized.
        progress: called with the pairs done and in all.
    Returns:
        `(pairs,)` in [0, 1].
    Raises:
        ValueError: pictures too small for the scales, or below 11 pixels.
    """
    weights = scale_weights(scales or largest_scales(*pictures.shape[1:3]))
    (pictures,) = without_equal_channels(pictures)
    bytes_each = 27 * int(np.prod(pictures.shape[1:]))  # five float32 arrays on all scales

    @lru_cache(maxsize=max(4, _CACHE_BYTES // bytes_each))
    def levels(row: int) -> tuple[Moments, ...]:
        return pyramid(pictures[row], len(weights))

    def similarity(pair: Sequence[int]) -> float:
        return multiscale_similarity(levels(pair[0]), levels(pair[1]), weights)

    values = np.empty(len(pairs))
    with ThreadPoolExecutor() as pool:
        for i, value in enumerate(pool.map(similarity, pairs.tolist())):
            values[i] = value
            progress(i + 1, len(pairs))
    return values


@dataclass(frozen=True)
class Diversity:
    """Mean similarity of pairs in a set.

    Attributes:
        mean: over pairs, in [0, 1].
        error: its standard error for other images of the same source; infinite for two images.
        images, pairs: how many it is made of.
    """

    mean: float
    error: float
    images: int
    pairs: int


def diversity(
    pictures: Pictures,
    pairs: int = 1000,
    scales: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Diversity:
    """Mean MS-SSIM between pictures of one set: all pairs of 45 pictures, else a sample.

    Args and errors as `pair_similarities`; also ValueError for fewer than 2 pictures.
    """
    chosen = distinct_pairs(len(pictures), pairs)
    values = pair_similarities(pictures, chosen, scales, progress)
    return Diversity(
        float(values.mean()), jackknife_error(values, chosen), len(pictures), len(chosen)
    )


class MSSSIM(Metric):
    """How similar generated pictures are to each other: mean MS-SSIM of pairs.

    Less is more diverse, down to the value of the real pictures, which stands beside it; below
    that value it is noise and artefacts that make pictures differ. Where the sets have classes in
    common, pairs are of one class and the value is the mean over classes. The number of scales is
    part of the name, `ms_ssim_diversity_S4`, for values of other scales are not comparable.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"pictures"})

    images: int = Field(1000, ge=2, le=10_000)
    """Generated images looked at, and real ones for comparison."""

    pairs: int = Field(1000, ge=1, le=100_000)
    """Pairs drawn in each class; classes of up to 45 images give all theirs."""

    scales: int | None = Field(None, ge=1, le=5)
    """Scales of MS-SSIM; empty for as many as the size allows: 5 from 176 pixels, 4 from 88."""

    by_class: ByClass = "auto"
    """Compare within classes; `auto` where both sets have some in common, with 2 images each."""

    @property
    def pictures_needed(self) -> int:
        """Pictures of each side it wants to see as pixels."""
        return self.images

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """Diversity of generated pictures beside that of the real ones.

        Raises:
            ValueError: fewer than 2 generated pictures (of each class), or too small ones.
        """
        real_pictures = require(real.pictures, "real pictures")[: self.images]
        fake_pictures = require(fake.pictures, "generated pictures")[: self.images]
        if len(fake_pictures) < 2:
            raise ValueError(
                f"MS-SSIM diversity needs 2 generated images, received {len(fake_pictures)}. "
                "Add images."
            )
        scales = self.scales or min(
            largest_scales(*p.shape[1:3]) for p in (real_pictures, fake_pictures) if len(p)
        )
        classes = in_common(real.classes, fake.classes, self.by_class, "MS-SSIM diversity")
        of_fake, few_fake = self._diversities(fake, fake_pictures, classes, scales, context)
        if not of_fake and self.by_class is True:
            raise ValueError(
                f"MS-SSIM diversity compares images of one class, and none of the {len(classes)} "
                "classes has 2 generated images among those looked at. Add images, or set "
                "`by_class` to auto."
            )
        if not of_fake:
            classes = ()
            of_fake, few_fake = self._diversities(fake, fake_pictures, classes, scales, context)
        of_real, few_real = self._diversities(real, real_pictures, classes, scales, context)
        regardless = not classes and self.by_class is not False
        notes = as_a_whole(real.classes, fake.classes) if regardless else ()
        return [self._measured(of_fake, of_real, few_fake, few_real, scales, notes)]

    def _diversities(
        self,
        side: Side,
        pictures: Pictures,
        classes: tuple[str, ...],
        scales: int,
        context: Context,
    ) -> tuple[dict[str, Diversity], list[str]]:
        """By class, or of all without classes; and classes with too few pictures."""

        def progress(done: int, total: int) -> None:
            context.progress("MS-SSIM of pairs", done, total)

        found: dict[str, Diversity] = {}
        too_few = []
        for name in classes or (WHOLE,):
            chosen = pictures[_of_class(side, name, len(pictures))] if classes else pictures
            if len(chosen) < 2:
                too_few.append(name)
            else:
                found[name] = diversity(chosen, self.pairs, scales, progress)
        return found, too_few

    def _measured(
        self,
        fake: dict[str, Diversity],
        real: dict[str, Diversity],
        few_fake: list[str],
        few_real: list[str],
        scales: int,
        about_classes: tuple[str, ...],
    ) -> Measured:
        value = _mean(fake)
        reference = (
            _mean({name: real[name] for name in fake}) if fake.keys() <= real.keys() else None
        )
        better: Better = "lower"
        notes = [
            f"{', '.join(few)}: fewer than 2 {whose} images among those looked at, left out."
            for few, whose in ((few_fake, "generated"), (few_real, "real"))
            if few and few != [WHOLE]
        ]
        notes += about_classes
        if reference is not None and value < reference:
            better = "neither"
            notes.append(
                "Generated images are less similar to each other than real ones are, which is no "
                "merit: noise and artefacts have this effect too."
            )
        real_images = sum(d.images for d in real.values())
        classed = WHOLE not in fake
        return Measured(
            f"ms_ssim_diversity_S{scales}",
            value,
            better,
            interval=_interval(fake),
            reference=reference,
            reference_of="" if reference is None else f"between {real_images} real images",
            count_real=real_images,
            count_fake=sum(d.images for d in fake.values()),
            settings={
                "scales": scales,
                "weights": "renormalized",
                "window": "gaussian 11, sigma 1.5",
                "data_range": 255,
                "pairs": self.pairs,
                "images": self.images,
                "classes": sorted(fake) if classed else None,
            },
            uses="",
            details={
                "minus_real": None if reference is None else value - reference,
                "pairs": sum(d.pairs for d in fake.values()),
                "by_class": {name: _details(d, real.get(name)) for name, d in fake.items()}
                if classed
                else {},
            },
            notes=tuple(notes),
        )


def _of_class(side: Side, name: str, count: int) -> Rows:
    """Which of the first pictures have this class."""
    classes = np.asarray(side.classes)
    kept = np.arange(count) if side.kept is None else side.kept[:count]
    return np.flatnonzero(classes[kept] == name)


def _mean(found: dict[str, Diversity]) -> float:
    return float(np.mean([d.mean for d in found.values()]))


def _interval(found: dict[str, Diversity], level: float = 0.95) -> Interval | None:
    """Of the mean over classes, which are independent of each other."""
    fewest = min(d.images for d in found.values())
    error = float(np.sqrt(np.sum([d.error**2 for d in found.values()]))) / len(found)
    if fewest < _FEWEST_FOR_INTERVAL or not np.isfinite(error):
        return None
    images = sum(d.images for d in found.values())
    half = float(student.ppf(0.5 + level / 2, images - len(found))) * error
    return Interval(
        low=max(_mean(found) - half, 0.0),
        high=min(_mean(found) + half, 1.0),
        level=level,
        method="jackknife over images, Student's t; for other images of the same source",
        repeats=images,
    )


def _details(fake: Diversity, real: Diversity | None) -> dict[str, Any]:
    return {
        "value": fake.mean,
        "real": None if real is None else real.mean,
        "images": fake.images,
        "real_images": 0 if real is None else real.images,
    }
