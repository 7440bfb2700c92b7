"""Changes of color, sharpness and noise of single pictures, float32 in [-1, 1], not clipped.

The formulas are those of the menu of imgaug on gray levels 0 to 255, `v = 127.5 (x + 1)`, with
which Bailo et al. (arXiv:1901.06219) augment blood smears. Each is written as the picture plus a
change, so that no strength is no change to the last bit. Pictures are `(height, width, channels)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfgan_med.batches import Tensor
from tfgan_med.ops.random import normal, uniform

DRAWS = 4  # random numbers of an operation
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in OpenCV
MIDDLE = 128 / 127.5 - 1  # gray level 128

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The changed picture out of a picture, `DRAWS` numbers in [0, 1) and a seed `(2,)` for more."""


def changed(images: Tensor, operations: Sequence[Operation], most: int, seed: Tensor) -> Tensor:
    """Each picture after 0 to `most` different operations, drawn at random, in random order.

    Args:
        images: `(batch, height, width, channels)`.
        most: every number of operations up to it, and up to how many there are, is as likely.
        seed: `(2,)` integers; the draws are a function of it alone.
    """
    batch, menu = tf.shape(images)[0], len(operations)
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4), 4)
    order = tf.argsort(uniform((batch, menu), seeds[0]), stable=True)
    counts = tf.cast(uniform((batch,), seeds[1]) * (min(most, menu) + 1), tf.int32)
    draws = uniform((batch, menu, DRAWS), seeds[2])

    def change(picture: Sequence[Tensor]) -> Tensor:
        image, order, count, draws, number = picture
        own_seed = tf.random.experimental.stateless_fold_in(seeds[3], number)

        def apply(slot: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
            chosen = order[slot]
            choices = [_deferred(o, image, draws[chosen], own_seed) for o in operations]
            return slot + 1, tf.ensure_shape(tf.switch_case(chosen, choices), image.shape)

        return tf.while_loop(lambda slot, _: slot < count, apply, (tf.constant(0), image))[1]

    # Picture by picture: only what was drawn is computed.
    pictures = (images, order, counts, draws, tf.range(batch))
    signature = tf.TensorSpec(images.shape[1:], images.dtype)
    return tf.ensure_shape(tf.map_fn(change, pictures, fn_output_signature=signature), images.shape)


def _deferred(operation: Operation, *arguments: Tensor) -> Callable[[], Tensor]:
    return lambda: operation(*arguments)


def per_channel(values: Tensor, u: Tensor) -> Tensor:
    """`(channels,)`: for half of the draws u the values, for the others the first for all."""
    return tf.where(u < 0.5, values, values[:1])


# Colors -------------------------------------------------------------------------------------------


def add(image: Tensor, levels: Tensor) -> Tensor:
    """`v + levels`; `levels`: one gray level of 255 for all channels or for each."""
    return image + levels / 127.5


def multiply(image: Tensor, factor: Tensor) -> Tensor:
    """`factor v`; one factor for all channels or for each."""
    return image + (factor - 1.0) * (image + 1.0)


def contrast(image: Tensor, factor: Tensor) -> Tensor:
    """`128 + factor (v - 128)`; one factor for all channels or for each."""
    return image + (factor - 1.0) * (image - MIDDLE)


def invert(image: Tensor, chosen: Tensor) -> Tensor:
    """`255 - v` in the chosen channels, `(channels,)` bool."""
    return tf.where(chosen, -image, image)


def grayscale(image: Tensor, alpha: Tensor) -> Tensor:
    """`v + alpha (luma - v)`: 1 is a gray picture of three equal channels."""
    luma = tf.reduce_sum(image * tf.constant(LUMA), axis=-1, keepdims=True)
    return image + alpha * (luma - image)


def noise(image: Tensor, deviation: Tensor, u: Tensor, seed: Tensor) -> Tensor:
    """`v + 255 deviation n`, n normal; the same in all channels or, by u, another in each."""
    field = normal(image.shape, seed)
    field = tf.where(u < 0.5, field, field[..., :1])
    return image + 2.0 * deviation * field


# Neighbors ----------------------------------------------------------------------------------------


def blur(image: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur of deviation `sigma` pixels.

    Args:
        largest: sigma that the filter must have room for: it reaches as far as three of them.
    """
    radius = min(math.ceil(3.0 * largest), *(side - 1 for side in image.shape[:2]))
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = tf.exp(-(offsets**2) / (2.0 * tf.maximum(sigma, 1e-3) ** 2))
    weights /= tf.reduce_sum(weights)
    padded = _padded(image, radius)
    rows = _correlated(padded, weights[:, None])
    return _correlated(rows, weights[None, :])[0]


def sharpen(image: Tensor, alpha: Tensor, lightness: Tensor) -> Tensor:
    """`v + alpha (K * v - v)`, K with -1 around and `8 + lightness` in the center."""
    center = np.zeros((3, 3), np.float32)
    center[1, 1] = 1.0
    kernel = center * (9.0 + lightness) - 1.0  # sums to `lightness`, which counts from black
    return image + alpha * (_correlated(_padded(image, 1), kernel)[0] + (lightness - 1.0) - image)


def emboss(image: Tensor, alpha: Tensor, strength: Tensor) -> Tensor:
    """`v + alpha (K * v - v)`, K = [[-1-s, -s, 0], [-s, 1, s], [0, s, 1+s]], which sums to 1."""
    fixed = np.array([[-1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    grows = np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], np.float32)
    return image + alpha * (_correlated(_padded(image, 1), fixed + strength * grows)[0] - image)


def _padded(image: Tensor, by: int) -> Tensor:
    """A batch of one, mirrored at the border without repeating the last pixel (OpenCV's rule)."""
    return tf.pad(image, [[by, by], [by, by], [0, 0]], "REFLECT")[None]


def _correlated(images: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered by the kernel `(height, width)`, without a border."""
    channels = images.shape[-1]
    kernel = tf.tile(kernel[:, :, None, None], (1, 1, channels, 1))
    return tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "VALID")
