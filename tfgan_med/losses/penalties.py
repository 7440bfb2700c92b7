"""Penalties on the discriminator: on its slope around the images, or on its scores.

A penalty takes a critic, the discriminator as a function of the images alone (a condition is
bound by the caller), and returns a float32 scalar without its weight. The slope at an image is
the gradient of the sum of all scores, patches and scales included, with respect to its pixels;
it is meaningful only where images do not interact, so not with batch normalization. Images are
`(batch, ...)`, usually `(batch, height, width, channels)` in [-1, 1]. Draws depend on a stateless
seed `(2,)` alone. Call a penalty inside the discriminator's tape: it differentiates once itself,
and the tape differentiates the result. Nothing flows back to the generator.

With a mask `(batch, height, width, 1)`, 1 where the slope counts, the gradient is multiplied by
it before its norm (models that change a region only).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfgan_med.losses.adversarial import Logits, scales_of
from tfgan_med.ops.random import uniform

Tensor = Any
Critic = Callable[[Tensor], Logits]

TINY = 1e-12  # keeps the derivative of the root finite at slope zero


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    seed: Tensor,
    one_sided: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """`E[(|dD(t)/dt| - 1)²]` between real and generated images; its usual weight is 10.

    Args:
        critic: images to raw scores.
        real, fake: images of one shape.
        seed: of the share of the real image in t, uniform in [0, 1], one per sample.
        one_sided: punish slopes above 1 only, `E[max(0, |dD(t)/dt| - 1)²]`.
        mask: where the slope counts.
    Source: Gulrajani et al., arXiv:1704.00028, eq. 3; one-sided: Petzka et al.,
        arXiv:1709.08894.
    """
    points = between(real, fake, uniform(_one_per_sample(real), seed))
    return slope_penalty(critic, points, one_sided, mask)


def dragan_penalty(
    critic: Critic, real: Tensor, seed: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`E[(|dD(t)/dt| - 1)²]` around real images; its usual weight is 10.

        t = x + a (x' - x),  x' = x + 0.5 std(x) U(0, 1)

    The standard deviation is one number for the batch, a is uniform in [0, 1] per sample and the
    noise is drawn per pixel.

    Args:
        critic: images to raw scores.
        real: images.
        seed: of shares and noise.
        mask: where the slope counts.
    Source: Kodali et al., arXiv:1705.07215, in the form of their code.
    """
    real = tf.cast(real, tf.float32)
    noise = uniform(real.shape, tf.random.fold_in(seed, 1, alg="philox"))
    share = uniform(_one_per_sample(real), seed)
    disturbed = real + 0.5 * tf.math.reduce_std(real) * noise
    return slope_penalty(critic, between(disturbed, real, share), mask=mask)


def zero_centered_penalty(critic: Critic, images: Tensor, mask: Tensor | None = None) -> Tensor:
    """`1/2 E|dD(x)/dx|²`: R1 on real images, R2 on generated ones; the usual weight is 10.

    Source: Mescheder et al., arXiv:1801.04406, eq. 9 and 10.
    """
    return 0.5 * tf.reduce_mean(_squared_norms(input_gradients(critic, images, mask)))


def drift_penalty(real_logits: Logits) -> Tensor:
    """`E[D(x)²]`, summed over scales, keeps scores near zero; the usual weight is 0.001.

    Source: Karras et al., arXiv:1710.10196, appendix A.1.
    """
    return tf.add_n([tf.reduce_mean(tf.square(scale)) for scale in scales_of(real_logits)])


# Parts --------------------------------------------------------------------------------------------


def between(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """`share first + (1 - share) second` in float32.

    Raises:
        ValueError: if the images differ in shape, for broadcasting would hide it.
    """
    if tuple(first.shape) != tuple(second.shape):
        raise ValueError(
            "A gradient penalty lies between images of one shape: received "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return share * first + (1.0 - share) * second


def slope_penalty(
    critic: Critic, points: Tensor, one_sided: bool = False, mask: Tensor | None = None
) -> Tensor:
    """`E[(|dD(t)/dt| - 1)²]` at the given points, or only of slopes above 1."""
    squares = _squared_norms(input_gradients(critic, points, mask))
    excess = tf.sqrt(squares + TINY) - 1.0
    return tf.reduce_mean(tf.square(tf.nn.relu(excess) if one_sided else excess))


def input_gradients(critic: Critic, images: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gradient of the sum of all scores with respect to the images, float32, of their shape.

    Under a float16 policy the gradient travels through the critic as float16 numbers, whose range
    is small: it is multiplied on its way by a power of two with which a gradient of norm 1 has
    elements of about 1/16, and divided in float32 at the end. Norms up to about
    a thousand then fit; other precisions are unmoved by it.
    """
    images = tf.stop_gradient(tf.cast(images, tf.float32))
    scale = 2.0 ** round(0.5 * math.log2(math.prod(images.shape[1:])) - 4)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        total = scale * tf.add_n([tf.reduce_sum(scores) for scores in scales_of(critic(images))])
    gradients = tape.gradient(total, images, unconnected_gradients="zero") / scale
    return gradients if mask is None else gradients * tf.cast(mask, tf.float32)


def _squared_norms(gradients: Tensor) -> Tensor:
    """Squared Euclidean norm of each sample, `(batch,)`."""
    return tf.reduce_sum(tf.square(gradients), axis=range(1, gradients.shape.rank))


def _one_per_sample(images: Tensor) -> list[int]:
    return [images.shape[0], *[1] * (len(images.shape) - 1)]
