"""Sliced Wasserstein distance between local patches, level by level of a Laplacian pyramid.

Patches of 7 x 7 pixels, normalized in contrast, show texture at the size of their level: fine
grain at the full size, larger structures at the coarser ones. Projected on random directions, two
sets of patches are as far apart as their sorted projections. No network.

Karras et al., arXiv:1710.10196, section 5; `tfgan/python/eval/sliced_wasserstein.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from tfgan_med.metrics.base import Context, Measured, Metric, Need, Side, require
from tfgan_med.ops.ssim import without_equal_channels

Pictures = npt.NDArray[Any]  # (images, height, width, channels)
Picture = npt.NDArray[np.float32]  # (height, width, channels)
Patches = npt.NDArray[np.float32]  # (patches, 49 * channels), normalized

PATCH = 7
SMALLEST_LEVEL = 16  # pixels

_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16.0
_FLAT = 1e-8  # standard deviations of patches below this count as this
_DIRECTIONS_AT_ONCE = 16


# The pyramid --------------------------------------------------------------------------------------


def levels_of(height: int, width: int) -> int:
    """Levels from the full size down to 16 pixels of the smaller side's power of two.

    Raises:
        ValueError: a side below 16 pixels.
    """
    side = min(height, width)
    if side < SMALLEST_LEVEL:
        raise ValueError(
            f"The sliced Wasserstein distance needs pictures of at least {SMALLEST_LEVEL} pixels, "
            f"received {height} x {width}. Use larger pictures."
        )
    return int(math.log2(side)) - int(math.log2(SMALLEST_LEVEL)) + 1


def laplacian_level(picture: Pictures, level: int, levels: int) -> Picture:
    """One level of the Laplacian pyramid; 0 is the finest, the last is what remains.

    Values in 0..255 stay exact sums of whole numbers on the first levels, so that even areas
    give exact zeros instead of rounding noise that normalizing would blow up.

    Args:
        picture: `(height, width, channels)`.
    """
    image = np.ascontiguousarray(picture, np.float32)
    for _ in range(level):
        image = _halved(image)
    if level == levels - 1:
        return image
    detail: Picture = image - _doubled(_halved(image), image.shape)
    return detail


def _halved(image: Picture) -> Picture:
    return _blurred(image)[::2, ::2]


def _doubled(image: Picture, shape: tuple[int, ...]) -> Picture:
    """Zeros between the pixels, then the filter with gain 4."""
    spread = np.zeros(shape, np.float32)
    spread[::2, ::2] = image
    return 4.0 * _blurred(spread)


def _blurred(image: Picture) -> Picture:
    blurred = cv2.sepFilter2D(image, -1, _BINOMIAL, _BINOMIAL, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32).reshape(image.shape)  # OpenCV drops a single channel


# Patches ------------------------------------------------------------------------------------------


def normalized(patches: Pictures) -> tuple[Patches, int]:
    """Patches less their mean over their standard deviation, over all pixels and channels.

    Args:
        patches: `(patches, 7, 7, channels)`.
    Returns:
        `(patches, 49 * channels)` float32, and how many are flat, which become zeros.
    """
    rows = patches.reshape(len(patches), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(rows * rows, axis=1, keepdims=True))
    flat = int((deviation <= _FLAT).sum())
    rows /= np.maximum(deviation, np.float32(_FLAT))
    return rows, flat


def level_patches(
    pictures: Pictures, level: int, levels: int, per_image: int, generator: np.random.Generator
) -> tuple[Patches, int]:
    """Random normalized patches of one level of each picture, and how many are flat.

    Args:
        pictures: `(images, height, width, channels)`.
        per_image: patches of each picture, anywhere inside it.
    Returns:
        `(images * per_image, 49 * channels)`, picture by picture.
    """
    side = list(pictures.shape[1:3])
    for _ in range(level):
        side = [math.ceil(size / 2) for size in side]
    corners = np.stack(
        [generator.integers(0, size - PATCH + 1, (len(pictures), per_image)) for size in side]
    )
    steps = np.arange(PATCH)
    rows = np.empty((len(pictures) * per_image, PATCH**2 * pictures.shape[3]), np.float32)

    def cut(i: int) -> int:
        image = laplacian_level(pictures[i], level, levels)
        down = corners[0, i, :, None, None] + steps[:, None]
        right = corners[1, i, :, None, None] + steps
        here = slice(i * per_image, (i + 1) * per_image)
        rows[here], flat = normalized(image[down, right])
        return flat

    with ThreadPoolExecutor() as pool:
        flat = sum(pool.map(cut, range(len(pictures))))
    return rows, flat


# The distance -------------------------------------------------------------------------------------


def random_directions(
    count: int, dimension: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """`(dimension, count)` columns of length 1, uniform in direction."""
    directions = generator.standard_normal((dimension, count))
    directions /= np.linalg.norm(directions, axis=0)
    return directions.astype(np.float32)


def distance_of_patches(
    first: Patches, second: Patches, directions: npt.NDArray[np.float32]
) -> float:
    """Mean over directions of the Wasserstein-1 distance between the projections of two sets.

    Args:
        first, second: `(patches, numbers)`, equally many.
        directions: `(numbers, directions)`, columns of length 1.
    Raises:
        ValueError: unequal numbers of patches.
    """
    if first.shape != second.shape:
        raise ValueError(
            "The sliced Wasserstein distance needs equally many patches on both sides, received "
            f"{first.shape} and {second.shape}."
        )

    total = 0.0
    count = int(directions.shape[1])
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, _DIRECTIONS_AT_ONCE):
            some = directions[:, start : start + _DIRECTIONS_AT_ONCE]
            # products here, for they have threads of their own; sorting does not
            a, b = pool.map(_sorted_columns, [first @ some, second @ some])
            total += float(np.abs(a - b).mean(axis=1, dtype=np.float64).sum())
    return total / count


def _sorted_columns(projected: Patches) -> Patches:
    columns: Patches = np.sort(projected.T, axis=1)
    return columns


@dataclass(frozen=True)
class Level:
    """The distance at one level.

    Attributes:
        side: its smaller side in pixels.
        value: the distance of the sets.
        floor: the distance of the two halves of the first set, at half the number of images;
            None with fewer than 4 images.
        value_of_halves: the distance of the sets at that number.
        redrawn: the distance of two draws of patches from the first set, the real-real column of
            TF-GAN: how much the choice of patches alone moves the value.
        flat: share of patches without any contrast, of both sets.
    """

    side: int
    value: float
    floor: float | None
    value_of_halves: float | None
    redrawn: float
    flat: float


def sliced_wasserstein(
    real: Pictures,
    fake: Pictures,
    *,
    patches: int = 64,
    repeats: int = 4,
    directions: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Level]:
    """Distances of two sets of pictures, finest level first.

    Args:
        real, fake: `(images, height, width, channels)`, equal shapes, in random order.
        patches: of each picture and level.
        repeats, directions: random directions are `repeats * directions`.
        seed: of patches and directions.
        progress: called with levels done and in all.
    Returns:
        One `Level` for each; not multiplied by 1000. Memory: two levels' patches, about 75 MB for
        2000 color pictures each.
    Raises:
        ValueError: unequal shapes, fewer than 2 pictures, a side below 16 pixels.
    """
    if real.shape != fake.shape or len(real) < 2:
        raise ValueError(
            "The sliced Wasserstein distance needs equally many pictures of one size on both "
            f"sides, at least 2: received arrays of shape {real.shape} and {fake.shape}."
        )
    levels = levels_of(*real.shape[1:3])
    real, fake = without_equal_channels(real, fake)
    generator = np.random.default_rng(seed)
    found = []
    for level in range(levels):
        a, flat_a = level_patches(real, level, levels, patches, generator)
        b, flat_b = level_patches(fake, level, levels, patches, generator)
        along = random_directions(repeats * directions, a.shape[1], generator)
        half = len(real) // 2 * patches
        floor = halves = None
        if len(real) >= 4:
            floor = distance_of_patches(a[:half], a[half : 2 * half], along)
            halves = distance_of_patches(a[:half], b[:half], along)
        side = math.ceil(min(real.shape[1:3]) / 2**level)
        value = distance_of_patches(a, b, along)
        flat = (flat_a + flat_b) / (2 * len(a))
        del b  # three sets of patches are never there at once
        again, _ = level_patches(real, level, levels, patches, generator)
        redrawn = distance_of_patches(a, again, along[:, :directions])  # one repeat tells enough
        found.append(Level(side, value, floor, halves, redrawn, flat))
        progress(level + 1, levels)
    return found


class SlicedWasserstein(Metric):
    """How far apart the textures of two sets are, at each size from fine grain to 16 pixels.

    The value is the mean over levels of the sliced Wasserstein distance of contrast-normalized
    patches of 7 x 7 pixels, times 1000; the levels are in the details. It falls with the number
    of pictures, towards 0 for equal sets: compare values of one count only. The floor is the
    distance of two halves of the real set, and the details hold the value at that count too.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"pictures"})

    images: int = Field(1000, ge=2, le=10_000)
    """Most images looked at on each side; both sides give equally many."""

    patches: int = Field(64, ge=1, le=1024)
    """Patches of each image and level; 128 in the paper."""

    repeats: int = Field(4, ge=1, le=64)
    """Draws of directions."""

    directions: int = Field(128, ge=1, le=1024)
    """Directions of each draw."""

    @property
    def pictures_needed(self) -> int:
        """Pictures of each side it wants to see as pixels."""
        return self.images

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """The distance, mean over levels, with all levels in the details.

        Raises:
            ValueError: fewer than 2 pictures on a side, different or too small sizes.
        """
        real_pictures = require(real.pictures, "real pictures")
        fake_pictures = require(fake.pictures, "generated pictures")
        count = min(self.images, len(real_pictures), len(fake_pictures))
        if count < 2:
            raise ValueError(
                "The sliced Wasserstein distance needs 2 images on each side: received "
                f"{len(real_pictures)} real and {len(fake_pictures)} generated images. Add images."
            )
        levels = sliced_wasserstein(
            real_pictures[:count],
            fake_pictures[:count],
            patches=self.patches,
            repeats=self.repeats,
            directions=self.directions,
            seed=context.seed,
            progress=lambda done, total: context.progress("levels of the pyramid", done, total),
        )
        return [self._measured(levels, count)]

    def _measured(self, levels: list[Level], count: int) -> Measured:
        floor = _mean(level.floor for level in levels)
        half = count // 2
        flat = max(level.flat for level in levels)
        notes = []
        if flat >= 0.01:
            notes.append(
                f"Up to {flat:.0%} of the patches of a level are flat (borders, backgrounds); they "
                "count as equal."
            )
        return Measured(
            "sliced_wasserstein",
            _mean(level.value for level in levels),
            "lower",
            reference=floor,
            reference_of="" if floor is None else f"halves of {count} real images, {half} each",
            count_real=count,
            count_fake=count,
            settings={
                "factor": 1000,
                "patches": self.patches,
                "repeats": self.repeats,
                "directions": self.directions,
                "normalized": "each patch over all channels",
            },
            uses="",
            details={
                "levels": {
                    str(level.side): {
                        "value": 1000.0 * level.value,
                        "floor": _times_1000(level.floor),
                        "value_of_halves": _times_1000(level.value_of_halves),
                        "redrawn_patches": 1000.0 * level.redrawn,
                        "flat_patches": level.flat,
                    }
                    for level in levels
                },
                "value_at_the_reference's_count": _mean(level.value_of_halves for level in levels),
            },
            notes=tuple(notes),
        )


def _times_1000(value: float | None) -> float | None:
    return None if value is None else 1000.0 * value


def _mean(values: Iterator[float | None]) -> float | None:
    """Mean over levels times 1000; None if there are none."""
    known = [value for value in values if value is not None]
    return 1000.0 * math.fsum(known) / len(known) if known else None
