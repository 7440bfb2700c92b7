"""Random numbers as functions of a seed alone, equal in plain TensorFlow and under XLA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

Tensor = Any


def uniform(shape: Sequence[Any], seed: Tensor) -> Tensor:
    """Multiples of 2^-23 in [0, 1), float32, made from bits: TensorFlow's own differ under XLA.

    Args:
        seed: `(2,)` integers.
    """
    return tf.cast(_bits(shape, seed), tf.float32) * 2.0**-23


def normal(shape: Sequence[Any], seed: Tensor) -> Tensor:
    """Standard normal numbers, float32, up to 5.4; XLA's agree to rounding.

    The inverse of the normal distribution function at the middle of one of 2^23 equal steps.
    TensorFlow's own are others under XLA, unless the seed is a constant.

    Args:
        seed: `(2,)` integers.
    """
    steps = tf.cast(_bits(shape, seed), tf.float32) + 0.5
    return 2.0**0.5 * tf.math.erfinv(steps * 2.0**-22 - 1.0)


def _bits(shape: Sequence[Any], seed: Tensor) -> Tensor:
    """23 random bits, uint32."""
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
    return tf.bitwise.right_shift(bits, 9)
