"""Label maps apart: how often a class occurs, how much of the picture it takes, in which pieces.

For masks and label maps, generated with the pictures or on their own; features of a network say
little about them. Each quantity is a distribution over images (share of pixels, number of pieces)
or over pieces (area, solidity), and two of these are compared by the Earth Mover's distance, the
area between their distribution functions. Presence, mean share and EMD of shares are those of
Chen's study of defect synthesis; the EMD is exact, without histogram bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, wasserstein_distance
from skimage import measure

from tfgan_med.config import Config
from tfgan_med.metrics.base import Interval, Measured

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Neighbors = Literal[4, 8]

SMALLEST = 5  # pixels; smaller pieces have no shape to speak of
_SHAPED = 200  # pieces of an image whose solidity is measured, the largest; noise has thousands
_HALVES = 20
_BINS = 20
_measure: Any = measure  # scikit-image has no types


class LabelDistance(Config):
    """Distances between the labels of two sets; see `describe` and `compare`."""

    neighbors: Neighbors = 4
    """Pixels that touch: 4 keeps cells apart that meet at a corner, 8 joins them."""
    background: int | None = 0
    """Class that is not taken apart into pieces; null if there is none."""
    present_only: bool = False
    """Leave images out that do not show the class."""
    permutations: int = 500
    """Random divisions behind each p-value, which is at least about 1 / this; 0 gives none."""


@dataclass(frozen=True)
class LabelStatistics:
    """What is kept of one label map.

    Attributes:
        shares: `(classes,)` of the pixels, 0 to 1.
        classes_of: `(pieces,)` the class of each connected piece; the background has none.
        areas: `(pieces,)` as shares of the picture.
        solidities: `(pieces,)` area over that of the convex hull, 0 to 1; NaN for pieces of less
            than 5 pixels and beyond the 200 largest.
    """

    shares: Floats
    classes_of: Integers
    areas: Floats
    solidities: Floats


def describe(
    labels: npt.NDArray[np.integer[Any]],
    classes: int,
    *,
    neighbors: Neighbors = 4,
    background: int | None = 0,
) -> LabelStatistics:
    """Shares and pieces of one label map.

    Args:
        labels: `(height, width)` classes 0 to `classes - 1`; a binary mask holds 0 and 1.
        classes: how many there are in all.
        neighbors, background: see `LabelDistance`.
    Raises:
        ValueError: another shape, no pixels, or a class outside of the range.
    """
    if labels.ndim != 2 or not labels.size:
        raise ValueError(f"A label map has shape (height, width); received {labels.shape}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"The label map holds {low} to {high}; expected classes 0 to {classes - 1}. Masks of "
            "0 and 255 must become 0 and 1."
        )
    shares = np.bincount(labels.ravel(), minlength=classes) / labels.size
    ignored = -1 if background is None else background
    pieces = _measure.label(labels, background=ignored, connectivity=1 if neighbors == 4 else 2)
    sizes = np.bincount(pieces.ravel())[1:]
    classes_of = np.zeros(len(sizes) + 1, np.int64)
    classes_of[pieces.ravel()] = labels.ravel()
    return LabelStatistics(
        shares=np.asarray(shares, np.float64),
        classes_of=classes_of[1:],
        areas=np.asarray(sizes / labels.size, np.float64),
        solidities=_solidities(pieces, sizes),
    )


def _solidities(pieces: Integers, sizes: Integers) -> Floats:
    solidities = np.full(len(sizes), np.nan)
    chosen = np.argsort(-sizes, kind="stable")[:_SHAPED]
    chosen = chosen[sizes[chosen] >= SMALLEST]
    kept = np.zeros(len(sizes) + 1, pieces.dtype)
    kept[chosen + 1] = chosen + 1
    for region in _measure.regionprops(kept[pieces]):
        solidities[region.label - 1] = region.solidity
    return solidities


def compare(
    real: Sequence[LabelStatistics],
    fake: Sequence[LabelStatistics],
    names: tuple[str, ...],
    *,
    present_only: bool = False,
    neighbors: Neighbors = 4,
    background: int | None = 0,
    permutations: int = 500,
    seed: int = 0,
) -> list[Measured]:
    """Presence, mean share and Earth Mover's distances, class by class.

    `label_presence[c]` and `label_share[c]` describe the generated labels, their reference the
    real ones. `label_share_emd[c]`, `label_count_emd[c]`, `label_area_emd[c]` and
    `label_solidity_emd[c]` are distances, lower is better, in shares of pixels, pieces per image,
    shares of the picture and solidity; the last three not for the background. Their reference is
    the distance of two random halves of the real set, the mean of 20 divisions: sets of half the
    size, so about √2 times what equally many equally good labels would have.

    A distance is never below 0 and, of finite sets, never 0, so an interval would not say whether
    the sets differ. Instead `details["p_value"]` is that of a permutation test: the share of
    random divisions of all images, whole images with all their pieces, that are as far apart.

    Args:
        real, fake: one entry per label map.
        names: of the classes.
        present_only, neighbors, background, permutations: see `LabelDistance`.
        seed: of halves and permutations.
    Raises:
        ValueError: a side without label maps, or other numbers of classes than names.
    """
    for side, whose in ((real, "real"), (fake, "generated")):
        if not side:
            raise ValueError(f"There are no {whose} label maps. Name a folder that holds some.")
        found = {len(one.shares) for one in side}
        if found != {len(names)}:
            raise ValueError(
                f"The {whose} label maps were described with {sorted(found)} classes, but "
                f"{len(names)} are named: {', '.join(names)}."
            )
    settings = {"present_only": present_only}
    pieces = {**settings, "neighbors": neighbors}
    measured = []
    for number, name in enumerate(names):
        ours, theirs = _shares(real, number), _shares(fake, number)
        measured += [_presence(ours, theirs, name), _mean_share(ours, theirs, name, present_only)]
        for quantity, take in _QUANTITIES.items():
            if quantity != "share" and number == background:
                continue
            samples = [
                [take(one, number) for one in side if one.shares[number] > 0 or not present_only]
                for side in (real, fake)
            ]
            one = _distance(
                f"label_{quantity}_emd[{name}]",
                *samples,
                settings=settings if quantity == "share" else pieces,
                permutations=permutations,
                generator=np.random.default_rng(seed),
            )
            if quantity == "share" and one.value is not None:
                one.details.update(_beside_shares(*map(np.concatenate, samples)))
            measured.append(one)
    return measured


def emd(first: Floats, second: Floats) -> float:
    """Earth Mover's (1-Wasserstein) distance of two samples, `∫ |F - G|`, in their unit.

    Raises:
        ValueError: an empty sample.
    """
    return float(wasserstein_distance(first, second))


def gaussian_kl(real: Floats, fake: Floats, smallest: float = 1e-6) -> float:
    """Distribution loss of label shares, for reference: it is trained on, not a distance.

        log(s_f / s_r) + (s_r² + (m_r - m_f)²) / (2 s_f²) - 1 / 2

    Args:
        real, fake: `(images,)` shares of one class.
        smallest: standard deviations (division by n) are raised to this.
    Returns:
        KL divergence of Gaussians, of the real one from the generated one; 0 or more.
    Source: Chen's thesis on industrial image synthesis, distribution loss.
    """
    real_spread, fake_spread = (max(float(x.std()), smallest) for x in (real, fake))
    shift = float(real.mean() - fake.mean())
    ratio = (real_spread**2 + shift**2) / (2 * fake_spread**2)
    return max(float(np.log(fake_spread / real_spread)) + ratio - 0.5, 0.0)


# What is compared: a sample of each image ---------------------------------------------------------


def _share(one: LabelStatistics, number: int) -> Floats:
    return np.asarray(one.shares[[number]])


def _count(one: LabelStatistics, number: int) -> Floats:
    return np.array([(one.classes_of == number).sum()], np.float64)


def _areas(one: LabelStatistics, number: int) -> Floats:
    return np.asarray(one.areas[one.classes_of == number])


def _solidity(one: LabelStatistics, number: int) -> Floats:
    chosen = one.solidities[one.classes_of == number]
    return np.asarray(chosen[np.isfinite(chosen)])


_QUANTITIES = {"share": _share, "count": _count, "area": _areas, "solidity": _solidity}


# Numbers ------------------------------------------------------------------------------------------


def _shares(side: Sequence[LabelStatistics], number: int) -> Floats:
    return np.array([one.shares[number] for one in side])


def _presence(real: Floats, fake: Floats, name: str) -> Measured:
    count, total = int((fake > 0).sum()), len(fake)
    ends = binomtest(count, total).proportion_ci(0.95, method="exact")
    return Measured(
        f"label_presence[{name}]",
        count / total,
        better="neither",
        interval=Interval(float(ends.low), float(ends.high), 0.95, "Clopper-Pearson", 0),
        reference=float((real > 0).mean()),
        reference_of=f"the same of {len(real)} real label maps",
        uses="",
    )


def _mean_share(real: Floats, fake: Floats, name: str, present_only: bool) -> Measured:
    full = f"label_share[{name}]"
    settings = {"present_only": present_only}
    if present_only:
        real, fake = real[real > 0], fake[fake > 0]
    if not len(fake):
        note = "Not defined: no generated label map shows the class."
        return Measured(full, None, better="neither", settings=settings, uses="", notes=(note,))
    return Measured(
        full,
        float(fake.mean()),
        better="neither",
        spread=float(fake.std(ddof=1)) if len(fake) > 1 else None,
        spread_of="standard deviation over images" if len(fake) > 1 else "",
        reference=float(real.mean()) if len(real) else None,
        reference_of=f"the same of {len(real)} real label maps" if len(real) else "",
        count_real=len(real),
        count_fake=len(fake),
        settings=settings,
        uses="",
    )


def _distance(
    name: str,
    real: list[Floats],
    fake: list[Floats],
    *,
    settings: dict[str, Any],
    permutations: int,
    generator: np.random.Generator,
) -> Measured:
    """The distance of two sets of samples, one for each image."""
    ours, theirs = (np.concatenate(side) if side else np.empty(0) for side in (real, fake))
    if not (len(ours) and len(theirs)):
        missing = " and ".join(
            whose for whose, all_ in (("real", ours), ("generated", theirs)) if not len(all_)
        )
        note = f"Not defined: the {missing} label maps show nothing of this class to measure."
        return Measured(name, None, settings=settings, uses="", notes=(note,))
    value = emd(ours, theirs)
    pooled = _Pooled([*real, *fake])
    details: dict[str, Any] = {
        "mean_real": float(ours.mean()),
        "mean_fake": float(theirs.mean()),
        "values_real": len(ours),
        "values_fake": len(theirs),
    }
    if permutations:
        draws = [
            pooled.divided(generator.permutation(len(real) + len(fake)), len(real))
            for _ in range(permutations)
        ]
        farther = sum(d is not None and d >= value * (1 - 1e-9) for d in draws)
        details["p_value"] = (1 + farther) / (1 + permutations)
        details["permutations"] = permutations
    floor = _between_halves(real, generator)
    return Measured(
        name,
        value,
        reference=floor,
        reference_of="" if floor is None else f"two halves of {len(real)} real label maps",
        count_real=len(real),
        count_fake=len(fake),
        settings=settings,
        uses="",
        details=details,
    )


def _between_halves(real: list[Floats], generator: np.random.Generator) -> float | None:
    """Mean distance of random halves of the real set; None if there are too few."""
    if len(real) < 4:
        return None
    pooled, half = _Pooled(real), len(real) // 2
    draws = [
        pooled.divided(generator.permutation(len(real))[: 2 * half], half) for _ in range(_HALVES)
    ]
    known = [draw for draw in draws if draw is not None]
    return float(np.mean(known)) if known else None


class _Pooled:
    """All values in order, so that each division of the images costs one cumulative sum."""

    def __init__(self, samples: list[Floats]) -> None:
        values = np.concatenate(samples)
        order = np.argsort(values, kind="stable")
        owners = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
        self.owners = owners[order]
        self.gaps = np.diff(values[order])
        self.images = len(samples)

    def divided(self, images: Integers, first: int) -> float | None:
        """Distance of the first so many of these images to the rest; None if one is empty."""
        side = np.zeros(self.images)  # images that are not named belong to none
        side[images[:first]], side[images[first:]] = 1.0, -1.0
        member = side[self.owners]
        one, other = (member > 0).sum(), (member < 0).sum()
        if not (one and other):
            return None
        weights = np.where(member > 0, 1.0 / one, np.where(member < 0, -1.0 / other, 0.0))
        return float(np.abs(np.cumsum(weights)[:-1]) @ self.gaps)


def _beside_shares(real: Floats, fake: Floats) -> dict[str, Any]:
    """For plots, and the training loss of the same shares."""
    top = max(float(real.max()), float(fake.max())) or 1.0
    edges = np.linspace(0.0, top, _BINS + 1)
    return {
        "gaussian_kl": gaussian_kl(real, fake),
        "histogram": {
            "edges": edges.tolist(),
            "real": np.histogram(real, edges)[0].tolist(),
            "fake": np.histogram(fake, edges)[0].tolist(),
        },
    }
