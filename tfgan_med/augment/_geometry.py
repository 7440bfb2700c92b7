"""Where the pixels of a picture come from: one affine map for flips, turns, zoom and shift.

One map means one interpolation, and that what belongs together moves together. Mirrored and
quarter-turned pictures have maps of whole numbers, so that their pixels are moved, never mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from tfgan_med.batches import Tensor
from tfgan_med.ops.random import uniform

DRAWS = 7  # random numbers per picture
FILLS = {  # what comes in from beyond the border: TensorFlow's mode, value in a picture
    "black": ("CONSTANT", -1.0),
    "white": ("CONSTANT", 1.0),
    "reflect": ("REFLECT", 0.0),
    "border": ("NEAREST", 0.0),
}


@dataclass(frozen=True)
class Moves:
    """What may happen to a picture.

    Attributes:
        flip, flip_vertical: probabilities of mirroring left to right and upside down.
        rotate90: turn by 0, 90, 180 or 270 degrees, each with probability 1/4.
        rotation: largest angle either way, as a share of a full turn.
        zoom: largest change of the part of a picture's sides that is seen.
        shift: largest way along each axis, as a share of the side.
    """

    flip: float = 0.0
    flip_vertical: float = 0.0
    rotate90: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0

    @property
    def between_pixels(self) -> bool:
        """Whether pixels come from between others, so that they must be interpolated."""
        return bool(self.rotation or self.zoom or self.shift)

    def __bool__(self) -> bool:
        return bool(self.flip or self.flip_vertical or self.rotate90 or self.between_pixels)


@dataclass(frozen=True)
class Placement:
    """Where each picture's pixels come from: `from - center = linear (to - center - shift)`.

    Attributes:
        linear: `(batch, 2, 2)` float32, rows and columns in the order x, y.
        shift: `(batch, 2)` float32, x and y in pixels, to the right and down.
        height, width: of the pictures.
    """

    linear: Tensor
    shift: Tensor
    height: int
    width: int

    def rows(self) -> Tensor:
        """`(batch, 8)`: the maps as TensorFlow's image transforms take them, by pixel numbers."""
        center = tf.constant([(self.width - 1) / 2, (self.height - 1) / 2])
        offset = center - tf.linalg.matvec(self.linear, center + self.shift)
        zeros = tf.zeros_like(self.shift)
        rows = tf.concat([self.linear, offset[..., None]], axis=-1)
        return tf.concat([tf.reshape(rows, (-1, 6)), zeros], axis=-1)

    def corners(self, points: Tensor) -> Tensor:
        """Where points `(batch, points, 2)` go; x and y, a pixel reaches from i to i + 1."""
        (a, b), (c, d) = (tf.unstack(row, axis=-1) for row in tf.unstack(self.linear, axis=-2))
        adjugate = tf.stack([tf.stack([d, -b], axis=-1), tf.stack([-c, a], axis=-1)], axis=-2)
        inverse = adjugate / (a * d - b * c)[:, None, None]
        center = tf.constant([self.width / 2, self.height / 2])
        offset = center + self.shift - tf.linalg.matvec(inverse, center)
        return tf.matmul(points, inverse, transpose_b=True) + offset[:, None]


def placed(moves: Moves, batch: Tensor, height: int, width: int, seed: Tensor) -> Placement:
    """Random placements: mirrored, then turned, zoomed and shifted.

    Args:
        batch: number of pictures, int32 scalar.
        seed: `(2,)` integers; the placements are a function of it alone.
    """
    draws = tf.unstack(uniform((batch, DRAWS), seed), DRAWS, axis=1)
    mirror_x = tf.where(draws[0] < moves.flip, -1.0, 1.0)
    mirror_y = tf.where(draws[1] < moves.flip_vertical, -1.0, 1.0)
    cosine, sine = _turn(moves, draws[2], draws[3])
    scale = 1.0 + moves.zoom * _both_ways(draws[4])
    linear = [
        tf.stack([mirror_x * scale * cosine, mirror_x * scale * sine], axis=-1),
        tf.stack([-mirror_y * scale * sine, mirror_y * scale * cosine], axis=-1),
    ]
    ways = [moves.shift * width * _both_ways(draws[5]), moves.shift * height * _both_ways(draws[6])]
    return Placement(tf.stack(linear, axis=-2), tf.stack(ways, axis=-1), height, width)


def _turn(moves: Moves, u_quarter: Tensor, u_angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of quarter turns and an angle; exactly 0 and ±1 where the angle is 0."""
    quarters = tf.cast((4.0 if moves.rotate90 else 0.0) * u_quarter, tf.int32)
    whole_cosine = tf.gather([1.0, 0.0, -1.0, 0.0], quarters)
    whole_sine = tf.gather([0.0, 1.0, 0.0, -1.0], quarters)
    angle = 2.0 * math.pi * moves.rotation * _both_ways(u_angle)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return whole_cosine * cosine - whole_sine * sine, whole_sine * cosine + whole_cosine * sine


def _both_ways(u: Tensor) -> Tensor:
    return 2.0 * u - 1.0


# Moving -------------------------------------------------------------------------------------------


def moved_images(images: Tensor, placement: Placement, fill: str, between_pixels: bool) -> Tensor:
    """Pictures `(batch, height, width, channels)` in [-1, 1]; bilinear where it is needed."""
    mode, value = FILLS[fill]
    return _resampled(images, placement, "BILINEAR" if between_pixels else "NEAREST", mode, value)


def moved_classes(values: Tensor, placement: Placement, fill: str) -> Tensor:
    """Masks or numbers of objects, `(batch, height, width, k)`, of any type: moved, never mixed.

    0 comes in where a picture is filled with one color.
    """
    return _resampled(values, placement, "NEAREST", FILLS[fill][0], 0.0)


def moved_masks(masks: Tensor, placement: Placement, fill: str) -> Tensor:
    """Masks as above; where they are one-hot, class 0 comes in, the background.

    One-hot are masks of several channels that sum to 1 at every pixel of a picture.
    """
    if masks.shape[-1] == 1:
        return moved_classes(masks, placement, fill)
    sums = tf.reduce_sum(masks, axis=-1, keepdims=True)
    one_hot = tf.reduce_all(tf.equal(sums, 1), axis=(1, 2, 3), keepdims=True)
    filled = tf.cast(one_hot, masks.dtype) * tf.one_hot(0, masks.shape[-1], dtype=masks.dtype)
    return moved_classes(masks - filled, placement, fill) + filled


def _resampled(
    x: Tensor, placement: Placement, interpolation: str, mode: str, fill: float
) -> Tensor:
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=placement.rows(),
        output_shape=[placement.height, placement.width],
        fill_value=fill,
        interpolation=interpolation,
        fill_mode=mode,
    )
    return tf.ensure_shape(moved, x.shape)


def moved_boxes(
    boxes: Tensor, valid: Tensor, placement: Placement, min_visible: float
) -> tuple[Tensor, Tensor]:
    """The upright boxes around the moved ones, clipped to the picture.

    Args:
        boxes: `(batch, max, 4)` float32, x0, y0, x1, y1 in pixels, half-open.
        valid: `(batch, max)` bool; other boxes stay as they are.
        min_visible: share of its area that a box keeps in the picture, or it becomes invalid and 0.
    Returns:
        Boxes and which of them are valid.
    """
    x0, y0, x1, y1 = tf.unstack(boxes, axis=-1)
    count = tf.shape(boxes)[1]
    x = tf.concat([x0, x1, x1, x0], axis=1)
    y = tf.concat([y0, y0, y1, y1], axis=1)
    points = placement.corners(tf.stack([x, y], axis=-1))
    points = tf.reshape(points, (-1, 4, count, 2))
    low, high = tf.reduce_min(points, axis=1), tf.reduce_max(points, axis=1)
    sides = tf.constant([placement.width, placement.height], boxes.dtype)
    clipped_low, clipped_high = (tf.clip_by_value(p, 0.0, sides) for p in (low, high))

    area = tf.reduce_prod(high - low, axis=-1)
    seen = tf.reduce_prod(clipped_high - clipped_low, axis=-1)
    stays = valid & (seen > 0.0) & (seen >= min_visible * area)
    new = tf.where(stays[..., None], tf.concat([clipped_low, clipped_high], axis=-1), 0.0)
    return tf.where(valid[..., None], new, boxes), stays
