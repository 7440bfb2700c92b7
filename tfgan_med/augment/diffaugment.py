"""DiffAugment: the discriminator sees real and generated pictures through random, differentiable
changes, so that it cannot learn a small training set by heart.

Zhao et al., arXiv:2006.10738. Colors change image channels only; shifts and squares are the same
for every channel, so that a picture stays aligned with its condition or its mask.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med.batches import Tensor
from tfgan_med.errors import UserError
from tfgan_med.ops.random import uniform

OPERATIONS = ("color", "translation", "cutout")  # in the order in which they are applied
MAX_SHIFT = 1 / 8  # of the side
CUTOUT_SIDE = 1 / 2
DRAWS = 7  # random numbers per picture: three of color, two of the shift, two of the square


class DiffAugment:
    """A random change of every picture of a batch.

    Applied to the real and the generated pictures of the discriminator's step and to the generated
    ones of the generator's; gradients flow through. Results are not clipped: they leave [-1, 1].

    Args:
        policy: names out of `OPERATIONS`, separated by commas; "" changes nothing. The order of
            application is that of `OPERATIONS`. Squares show up in the output of weak setups:
            "cutout" is for a few hundred pictures.
        groups: sizes of the groups of channels, `(3, 1)` for a color image with a mask.
        color_groups: indices of the groups whose colors change, None for all. Saturation and
            contrast refer to a group's own mean; the random numbers of a picture are the same for
            all of them, so that a condition and its picture become brighter together.
    Raises:
        UserError: for an unknown operation; names the nearest.
        ValueError: for a group that is not there.
    Source: arXiv:2006.10738, section 3.2; constants of mit-han-lab/data-efficient-gans,
        DiffAugment_tf.py, whose colors see all channels as one group.
    """

    def __init__(
        self, policy: str, groups: Sequence[int], color_groups: Sequence[int] | None = None
    ) -> None:
        self.operations = _operations(policy)
        self.groups = tuple(groups)
        indices = range(len(self.groups))
        self.color_groups = tuple(indices) if color_groups is None else tuple(color_groups)
        missing = [index for index in self.color_groups if index not in indices]
        if missing:
            raise ValueError(
                f"There is no channel group {missing[0]}: groups {self.groups} are counted from 0 "
                f"to {len(self.groups) - 1}."
            )
        self._colored, self._averaging = _averages(self.groups, self.color_groups)

    def __bool__(self) -> bool:
        return bool(self.operations)

    def __call__(self, images: Tensor, seed: Tensor) -> Tensor:
        """The changed pictures.

        Args:
            images: `(batch, height, width, channels)` in [-1, 1], float32 or a half precision.
            seed: `(2,)` integers; the draws are a function of it alone, in every precision and
                under XLA.
        Returns:
            The same shape and dtype; what moves in or is cut out is 0, mid-grey.
        """
        if images.shape[-1] != sum(self.groups):
            raise ValueError(
                f"Expected {sum(self.groups)} channels, groups of {self.groups}, received pictures "
                f"of shape {tuple(images.shape)}."
            )
        if not self:
            return images
        draws = tf.unstack(uniform((tf.shape(images)[0], DRAWS), seed), DRAWS, axis=1)
        if "color" in self.operations:
            images = self._recolored(images, draws[:3])
        if "translation" in self.operations:
            images = translation(images, *_shifts(images, draws[3:5]))
        if "cutout" in self.operations:
            images = cutout(images, *_centers(images, draws[5:7]))
        return images

    def _recolored(self, images: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """`contrast(saturation(brightness(x)))` of each group, by one product with a matrix.

        With brightness b, saturation s, contrast c, the mean m of a group of C channels over the
        picture and the matrix 1 of ones, its pixels become
        `x (c s I + c (1 - s) / C 1) + (1 - c) m + b`. Only the change is computed: it is exactly 0
        for other groups, also where a GPU rounds factors of matrix products.
        """
        _, height, width, channels = images.shape
        bright, saturated, contrasted = draws[0] - 0.5, 2.0 * draws[1], draws[2] + 0.5
        own, shared = contrasted * saturated - 1.0, contrasted * (1.0 - saturated)
        matrix = own[:, None, None] * np.diag(self._colored)
        matrix += shared[:, None, None] * self._averaging
        means = tf.reduce_mean(tf.cast(images, tf.float32), (1, 2)) @ self._averaging
        offset = (1.0 - contrasted)[:, None] * means + bright[:, None] * self._colored

        pixels = tf.reshape(images, (-1, height * width, channels))
        matrix, offset = (tf.cast(x, images.dtype) for x in (matrix, offset[:, None]))
        # Elementwise is quicker for one channel; the product is several times as fast for more.
        change = pixels * matrix if channels == 1 else pixels @ matrix
        return tf.reshape(pixels + (change + offset), (-1, height, width, channels))


def _averages(
    groups: Sequence[int], color_groups: Sequence[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Which channels are colored, `(channels,)` 0 or 1, and the matrix that puts the mean of its
    group in place of each of them."""
    group_of = np.repeat(np.arange(len(groups)), groups)
    colored = np.isin(group_of, np.asarray(color_groups, int)).astype(np.float32)
    same = (group_of[:, None] == group_of) * colored
    return colored, (same / np.asarray(groups)[group_of]).astype(np.float32)


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """`x + (u - 1/2)`; `u`: `(batch,)` in [0, 1)."""
    return images + _per_picture(u - 0.5, images)


def saturation(images: Tensor, u: Tensor) -> Tensor:
    """`(x - m) 2u + m` with the mean `m` over the channels of each pixel; `u` as above.

    A single channel stays as it is.
    """
    if images.shape[-1] == 1:
        return images
    return _around(_mean(images, (3,)), images, 2.0 * u)


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """`(x - m) (u + 1/2) + m` with the mean `m` over each picture; `u` as above."""
    return _around(_mean(images, (1, 2, 3)), images, u + 0.5)


def translation(images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Shift by whole pixels, 0 coming in.

    Args:
        images: `(batch, height, width, channels)`.
        dy, dx: `(batch,)` int32, down and to the right.
    """

    # The derivative of a shift is the shift back: gathered like the way forth, it is three times
    # as fast as the scattered sum TensorFlow would make of it, and the same in every run on a GPU.
    def shift(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return _gathered(x, dy, dx), lambda upstream: translation(upstream, -dy, -dx)

    return tf.custom_gradient(shift)(images)


def cutout(images: Tensor, center_y: Tensor, center_x: Tensor) -> Tensor:
    """Set a square of half the side (of a rectangle: half of both) to 0, clipped at the border.

    Args:
        images: `(batch, height, width, channels)`.
        center_y, center_x: `(batch,)` int32; a square of `side` pixels begins `side // 2` before
            its center.
    """
    _, height, width, _ = images.shape
    rows = _inside(height, center_y)[:, :, None]
    columns = _inside(width, center_x)[:, None, :]
    return images * tf.cast(~(rows & columns), images.dtype)[..., None]


def _operations(policy: str) -> tuple[str, ...]:
    names = [name.strip() for name in policy.split(",")] if policy.strip() else []
    for name in names:
        if name not in OPERATIONS:
            near = difflib.get_close_matches(name, OPERATIONS, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise UserError(
                f'model.augment: there is no operation "{name}".{hint} Expected some of '
                f'{", ".join(OPERATIONS)}, separated by commas, or "" for none.'
            )
    return tuple(name for name in OPERATIONS if name in names)


def _around(mean: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    factor = _per_picture(factor, images)
    return images * factor + mean * (1 - factor)


def _mean(images: Tensor, axes: Sequence[int]) -> Tensor:
    """Float32 sums: those over a picture overflow float16."""
    mean = tf.reduce_mean(tf.cast(images, tf.float32), axes, keepdims=True)
    return tf.cast(mean, images.dtype)


def _per_picture(values: Tensor, images: Tensor) -> Tensor:
    return tf.cast(values, images.dtype)[:, None, None, None]


def _shifts(images: Tensor, draws: Sequence[Tensor]) -> list[Tensor]:
    """Whole pixels, uniform in [-s, s] for each of the two axes."""
    limits = [_round_half_up(side * MAX_SHIFT) for side in images.shape[1:3]]
    return [_below(2 * s + 1, u) - s for s, u in zip(limits, draws, strict=True)]


def _centers(images: Tensor, draws: Sequence[Tensor]) -> list[Tensor]:
    """Uniform in [0, side], or [0, side - 1] for odd squares: as far over one border as another."""
    counts = [side + 1 - _round_half_up(side * CUTOUT_SIDE) % 2 for side in images.shape[1:3]]
    return [_below(count, u) for count, u in zip(counts, draws, strict=True)]


def _below(count: int, u: Tensor) -> Tensor:
    """An integer in [0, count) from u in [0, 1 - 2^-23]; the product never rounds up to `count`."""
    return tf.cast(u * count, tf.int32)


def _inside(side: int, centers: Tensor) -> Tensor:
    """`(batch, side)`: which positions along one axis the square covers."""
    extent = _round_half_up(side * CUTOUT_SIDE)
    offsets = tf.range(side)[None] - (centers[:, None] - extent // 2)
    return (offsets >= 0) & (offsets < extent)


def _gathered(images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """One gather of pixels over the whole batch, then 0 for those from beyond the border."""
    _, height, width, channels = images.shape
    rows = tf.range(height)[None] - dy[:, None]
    columns = tf.range(width)[None] - dx[:, None]
    seen = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    rows = tf.clip_by_value(rows, 0, height - 1) + height * tf.range(tf.shape(dy)[0])[:, None]
    columns = tf.clip_by_value(columns, 0, width - 1)
    pixels = tf.reshape(images, (-1, channels))
    moved = tf.gather(pixels, width * rows[:, :, None] + columns[:, None, :])
    return moved * tf.cast(seen, images.dtype)[..., None]


def _round_half_up(x: float) -> int:
    return int(x + 0.5)
