"""CID: creativity, inheritance and diversity of generated images, and their product.

    creativity   share of generated images that are no near copy of a real one; what remains: G_rem
    inheritance  1 - |c_R - c_G| / max(c_R, c_G), c the mean GLCM contrast of R and of G_rem
    diversity    entropy of the clusters of look-alikes in G_rem, natural logarithm
    CID          creativity * inheritance * diversity

Two images are alike at SSIM >= 0.8, or, in the form of the KSS study, at LPIPS <= 0.2.

Guan and Loew, SPIE Medical Imaging 2020, arXiv:1912.12109. The text leaves the order of
clustering, the SSIM variant and the case of no remaining image open; here the order is a seeded
shuffle, SSIM that of Wang et al. (`ops/ssim.py`), and without remaining images all are 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from skimage.feature import graycomatrix, graycoprops

from tfgan_med.metrics._classes import WHOLE, ByClass, as_a_whole, in_common
from tfgan_med.metrics.base import Context, Interval, Measured, Metric, Need, Side, require
from tfgan_med.metrics.lpips import all_pairs
from tfgan_med.ops.ssim import similarity_matrix, without_equal_channels

Pictures = npt.NDArray[np.uint8]  # (images, height, width, channels)
Similarities = npt.NDArray[np.floating[Any]]  # (images, other images), more is more alike
Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Form = Literal["ssim", "lpips"]

_THRESHOLDS: dict[Form, float] = {"ssim": 0.8, "lpips": 0.2}
_SWEEPS: dict[Form, tuple[float, ...]] = {
    "ssim": (0.6, 0.7, 0.8, 0.9, 0.95),
    "lpips": (0.05, 0.1, 0.2, 0.3, 0.4),
}
_ANGLES = (0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
_PARTS = ("creativity", "inheritance", "diversity", "diversity_normalized", "cid")


# The three indices --------------------------------------------------------------------------------


def remaining(fake_real: Similarities, threshold: float) -> npt.NDArray[np.bool_]:
    """Which generated images are no near copy of any real one, `(generated,)`.

    Args:
        fake_real: `(generated, real)` similarities; for a distance, pass its negative and that of
            its threshold.
        threshold: from which on two images are alike.
    """
    return np.asarray((fake_real < threshold).all(axis=1))


def inheritance(real_contrast: Values, fake_contrast: Values) -> float:
    """How close the mean contrasts are, in [0, 1]; 1 if both are 0, 0 without generated images.

    Args:
        real_contrast, fake_contrast: `(images,)`, of the real and the remaining generated images.
    """
    if not len(fake_contrast):
        return 0.0
    real, fake = float(real_contrast.mean()), float(fake_contrast.mean())
    largest = max(real, fake)
    return 1.0 - abs(real - fake) / largest if largest > 0.0 else 1.0


def leader_clusters(alike: npt.NDArray[np.bool_], order: Rows) -> Rows:
    """Clusters by leaders: the first image without one leads all others like it, and so on.

    Args:
        alike: `(images, images)`.
        order: the rows to cluster, in the order of becoming leader; the result depends on it.
    Returns:
        `(clusters,)` sizes, in the order of their leaders; they add up to `len(order)`.
    """
    sizes = []
    left = order
    while len(left):
        leader, *_ = left
        joins = alike[leader, left]
        joins[0] = True  # even where similarities are not exactly reflexive
        sizes.append(int(joins.sum()))
        left = left[~joins]
    return np.array(sizes, np.int64)


def diversity(sizes: Rows) -> float:
    """Entropy of the clusters in nats, from 0 (one cluster, or none) to log of the images."""
    if not len(sizes):
        return 0.0
    shares = sizes / sizes.sum()
    return max(0.0, -float(np.sum(shares * np.log(shares))))


@dataclass(frozen=True)
class Scores:
    """The indices of one set.

    Attributes:
        creativity: in [0, 1].
        inheritance: in [0, 1].
        diversity: in [0, log of the remaining images].
        diversity_normalized: over that log, which grows with the number of images; 0 for fewer
            than two.
        cid: the product of the first three.
        remaining, clusters: how many.
    """

    creativity: float
    inheritance: float
    diversity: float
    diversity_normalized: float
    cid: float
    remaining: float
    clusters: float


def scores(
    fake_real: Similarities,
    fake_fake: Similarities,
    real_contrast: Values,
    fake_contrast: Values,
    threshold: float,
    order: Rows,
) -> Scores:
    """All indices from similarities and contrasts.

    Args:
        fake_real: `(generated, real)`, more is more alike.
        fake_fake: `(generated, generated)`, symmetric.
        real_contrast, fake_contrast: `(images,)` GLCM contrasts.
        threshold: from which similarity on two images are alike.
        order: `(generated,)` permutation, for `leader_clusters`.
    Raises:
        ValueError: no real or no generated images.
    """
    if not fake_real.size:
        raise ValueError(
            f"CID needs images on both sides: received {fake_real.shape[0]} generated and "
            f"{fake_real.shape[1]} real. Add images."
        )
    kept = remaining(fake_real, threshold)
    sizes = leader_clusters(fake_fake >= threshold, order[kept[order]])
    count = int(kept.sum())
    c, d = count / len(kept), diversity(sizes)
    i = inheritance(real_contrast, fake_contrast[kept])
    largest = math.log(count) if count > 1 else math.inf
    return Scores(c, i, d, min(d / largest, 1.0), c * i * d, count, len(sizes))


# Contrast -----------------------------------------------------------------------------------------


def gray_levels(pictures: Pictures) -> npt.NDArray[np.uint8]:
    """`(images, height, width, 3)` to `(images, height, width)`: 0.2125 R + 0.7154 G + 0.0721 B."""
    weights = np.array([2125, 7154, 721], np.int32)  # whole numbers: halves are rounded up
    gray: npt.NDArray[np.uint8] = ((pictures @ weights + 5000) // 10000).astype(np.uint8)
    return gray


def glcm_contrast(gray: npt.NDArray[np.uint8], angles: int = 1) -> Values:
    """Contrast of the grey-level co-occurrence matrix: mean squared step to the neighbour.

    Args:
        gray: `(images, height, width)`, 256 levels.
        angles: 1 for the horizontal neighbour; 4 for the mean over 0, 45, 90 and 135 degrees.
    Returns:
        `(images,)` in squared grey levels.
    Source: scikit-image `graycomatrix`, distance 1, symmetric, normed.
    """

    def contrast(picture: npt.NDArray[np.uint8]) -> float:
        counts: Any = graycomatrix
        matrix = counts(picture, [1], _ANGLES[:angles], levels=256, symmetric=True, normed=True)
        properties: Any = graycoprops
        return float(np.mean(properties(matrix, "contrast")))

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(contrast, gray)), np.float64)


# The metric ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Set:
    """Pictures and, where the set has classes, the class of each."""

    pictures: Pictures
    classes: npt.NDArray[np.str_] | None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, chosen: slice | Rows) -> _Set:
        return _Set(self.pictures[chosen], None if self.classes is None else self.classes[chosen])

    def of(self, name: str) -> Pictures:
        """The pictures of a class, or all."""
        return self.pictures if name == WHOLE else self[self._rows([name])].pictures

    def only(self, names: Sequence[str]) -> _Set:
        """The pictures of some classes; without names all, without classes."""
        return self[self._rows(names)] if names else _Set(self.pictures, None)

    def names(self) -> list[str] | None:
        """The class of each picture."""
        return None if self.classes is None else self.classes.tolist()

    def _rows(self, names: Sequence[str]) -> Rows:
        if self.classes is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(np.isin(self.classes, names))


@dataclass(frozen=True)
class _Compared:
    """What the scores at any threshold need."""

    fake_real: Similarities
    fake_fake: Similarities
    real_contrast: Values
    fake_contrast: Values

    def scores(self, threshold: float, seed: int) -> Scores:
        order = np.random.default_rng(seed).permutation(len(self.fake_fake))
        return scores(
            self.fake_real, self.fake_fake, self.real_contrast, self.fake_contrast, threshold, order
        )


class CID(Metric):
    """Whether generated images are new, of the real ones' contrast, and different from each other.

    Creativity, inheritance, diversity and their product. Noise is creative and diverse too, so
    read inheritance beside them. Diversity grows with the number of images: compare sets of one
    size. Where the sets have classes in common, these are measured one by one and averaged.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"pictures"})

    similarity: Form = "ssim"
    """What makes images alike: `ssim` as in the original, or `lpips` as in the KSS study."""

    threshold: float | None = Field(None, ge=0, le=1)
    """SSIM from which on, or LPIPS up to which, images are alike; empty for 0.8 and 0.2."""

    images: int = Field(250, ge=2, le=10_000)
    """Most images looked at on each side, a random sample; time grows with the square."""

    angles: Literal[1, 4] = 1
    """Directions of neighbours for the contrast: the horizontal one, or the mean over four."""

    by_class: ByClass = "auto"
    """Measure class by class and average; `auto` where the sets have classes in common."""

    sweep: bool = True
    """Repeat at other thresholds, for the details; without it SSIM takes a fraction of the time."""

    def required(self) -> frozenset[Need]:
        """The form with LPIPS needs its network too."""
        return self.needs | {"perceptual"} if self.similarity == "lpips" else self.needs

    @property
    def pictures_needed(self) -> int:
        """Pictures of each side it wants to see as pixels."""
        return self.images

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """The three indices, diversity over its maximum, and CID.

        Raises:
            ValueError: a side without pictures, different or too small sizes, no class in common
                where `by_class` is true.
        """
        reals, fakes = self._set(real), self._set(fake)
        if not len(reals) or not len(fakes):
            raise ValueError(
                f"CID needs images on both sides: received {len(reals)} real and {len(fakes)} "
                "generated. Add images."
            )
        common = in_common(reals.names(), fakes.names(), self.by_class, "CID")
        notes = self._class_notes(reals, fakes, common)
        reals, fakes = reals.only(common), fakes.only(common)

        threshold = _THRESHOLDS[self.similarity] if self.threshold is None else self.threshold
        others = _SWEEPS[self.similarity] if self.sweep else ()
        compared = self._compare(reals, fakes, common or [WHOLE], (threshold, *others), context)
        found = self._scores(compared, threshold, context.seed)
        reference, reference_of = self._reference(reals, fakes, common, threshold, context)

        count_real = sum(len(c.real_contrast) for c in compared.values())
        count_fake = sum(len(c.fake_contrast) for c in compared.values())
        settings = {
            "similarity": self.similarity,
            "threshold": threshold,
            "variant": "gaussian 11, sigma 1.5, data range 255"
            if self.similarity == "ssim"
            else "at most the threshold",
            "images": self.images,
            "order_seed": context.seed,
            "angles": self.angles,
            "classes": list(common) or None,
        }
        by_class = {name: asdict(c.scores(threshold, context.seed)) for name, c in compared.items()}
        details = {
            "remaining": found.remaining,
            "clusters": found.clusters,
            "sweep": [
                {"threshold": t, **asdict(self._scores(compared, t, context.seed))} for t in others
            ],
            "by_class": by_class if common else {},
        }
        notes = (*self._notes(compared, found), *notes)
        suffix = "_lpips" if self.similarity == "lpips" else ""
        return [
            Measured(
                ("cid" if part == "cid" else f"cid_{part}") + suffix,
                getattr(found, part),
                "higher",
                interval=_share_interval(found, count_fake)
                if part == "creativity" and len(compared) == 1
                else None,
                reference=None if reference is None else getattr(reference, part),
                reference_of=reference_of,
                count_real=count_real,
                count_fake=count_fake,
                settings=settings,
                uses="perceptual" if self.similarity == "lpips" else "",
                details=details if part == "cid" else {},
                notes=notes if part == "cid" else (),
            )
            for part in _PARTS
        ]

    def _set(self, side: Side) -> _Set:
        pictures = require(side.pictures, "pictures")[: self.images]
        if side.classes is None:
            return _Set(pictures, None)
        kept = np.arange(len(pictures)) if side.kept is None else side.kept[: self.images]
        return _Set(pictures, np.asarray(side.classes)[kept])

    def _compare(
        self,
        real: _Set,
        fake: _Set,
        classes: Sequence[str],
        thresholds: tuple[float, ...],
        context: Context,
    ) -> dict[str, _Compared]:
        return {
            name: self._compare_class(real.of(name), fake.of(name), thresholds, context)
            for name in classes
        }

    def _compare_class(
        self, real: Pictures, fake: Pictures, thresholds: tuple[float, ...], context: Context
    ) -> _Compared:
        real_contrast, fake_contrast = (
            glcm_contrast(gray_levels(pictures), self.angles) for pictures in (real, fake)
        )
        if self.similarity == "lpips":
            if context.perceptual is None:
                raise TypeError("The perceptual network was not loaded.")
            embed = context.perceptual.embed
            return _Compared(
                -all_pairs(embed, fake, real, progress=context.progress),
                -all_pairs(embed, fake, progress=context.progress),
                real_contrast,
                fake_contrast,
            )

        def progress(done: int, total: int) -> None:
            context.progress("SSIM of pairs", done, total)

        real, fake = without_equal_channels(real, fake)
        lowest = min(thresholds)
        return _Compared(
            similarity_matrix(fake, real, at_least=lowest, progress=progress),
            similarity_matrix(fake, at_least=lowest, progress=progress),
            real_contrast,
            fake_contrast,
        )

    def _scores(self, compared: dict[str, _Compared], threshold: float, seed: int) -> Scores:
        """Mean over classes of each index; remaining images and clusters are added up."""
        signed = -threshold if self.similarity == "lpips" else threshold
        by_class = [c.scores(signed, seed) for c in compared.values()]
        summed = {
            field.name: math.fsum(getattr(s, field.name) for s in by_class)
            for field in fields(Scores)
        }
        return Scores(
            **{name: v / len(by_class) if name in _PARTS else v for name, v in summed.items()}
        )

    def _reference(
        self,
        real: _Set,
        fake: _Set,
        classes: Sequence[str],
        threshold: float,
        context: Context,
    ) -> tuple[Scores | None, str]:
        """Real images in the role of generated ones: held-out ones, or half of them."""
        held_out = context.held_out
        if held_out is not None and held_out.pictures is not None and len(held_out.pictures):
            others = self._set(held_out).only(classes)[: len(fake)]
            what = f"{len(others)} held-out real images instead of generated ones"
        else:
            real, others = _halves(real)
            what = f"half of the real images against the other half, {len(others)} each"
        there = [
            name for name in classes or (WHOLE,) if len(real.of(name)) and len(others.of(name))
        ]
        if not there:
            return None, ""
        compared = self._compare(real, others, there, (threshold,), context)
        return self._scores(compared, threshold, context.seed), what

    def _notes(self, compared: dict[str, _Compared], found: Scores) -> tuple[str, ...]:
        notes = []
        if found.remaining == 0:
            notes.append("All generated images are near copies of real ones, so all indices are 0.")
        few = [name for name, c in compared.items() if name and len(c.fake_contrast) < 10]
        if few:
            notes.append(f"Fewer than 10 generated images of {', '.join(few)} among the sample.")
        return tuple(notes)

    def _class_notes(self, real: _Set, fake: _Set, common: Sequence[str]) -> tuple[str, ...]:
        if self.by_class is False:
            return ()
        if not common:
            return as_a_whole(real.names(), fake.names())
        alone = sorted(set(real.names() or ()) ^ set(fake.names() or ()))
        if not alone:
            return ()
        return (f"Classes of one side only are left out: {', '.join(alone)}.",)


def _halves(real: _Set) -> tuple[_Set, _Set]:
    """The set is in random order; each class is divided."""
    if real.classes is None:
        half = len(real) // 2
        return real[:half], real[half : 2 * half]
    parts: list[Rows] = []
    for name in np.unique(real.classes):
        rows = np.flatnonzero(real.classes == name)
        half = len(rows) // 2
        parts += [rows[:half], rows[half : 2 * half]]
    return real[np.concatenate(parts[::2])], real[np.concatenate(parts[1::2])]


def _share_interval(found: Scores, count: int) -> Interval:
    """Wilson's interval of creativity, a share of independent images against fixed real ones."""
    z, p = 1.959963984540054, found.creativity
    center = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Interval(
        low=max(center - half, 0.0) if p > 0.0 else 0.0,  # exact but for rounding
        high=min(center + half, 1.0) if p < 1.0 else 1.0,
        level=0.95,
        method="Wilson, for other generated images and these real ones",
        repeats=0,
    )
