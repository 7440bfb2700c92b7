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
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
    return tf.cast(tf.bitwise.right_shift(bits, 9), tf.float32) * 2.0**-23


def normal(shape: Sequence[Any], seed: Tensor) -> Tensor:
    """Standard normal numbers, float32; XLA's agree to rounding."""
    return tf.random.stateless_normal(shape, seed, alg="philox")
