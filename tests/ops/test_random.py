"""Random numbers: their distribution, and that XLA draws the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfgan_med.ops import random


@pytest.mark.parametrize("draw", [random.uniform, random.normal])
def test_xla_draws_the_same_numbers_at_every_step(draw: Any) -> None:
    step = tf.Variable(0, dtype=tf.int64)  # a constant seed would be folded before XLA sees it

    def numbers() -> tf.Tensor:
        return draw((50, 20), tf.stack([tf.constant(7, tf.int64), step.value()]))

    plain, compiled = tf.function(numbers), tf.function(numbers, jit_compile=True)
    first = plain().numpy()
    np.testing.assert_allclose(compiled().numpy(), first, rtol=1e-5, atol=1e-6)
    step.assign(1)
    np.testing.assert_allclose(compiled().numpy(), plain().numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(plain().numpy() - first).max() > 0.1


@pytest.mark.parametrize(
    ("draw", "distribution"), [(random.uniform, stats.uniform), (random.normal, stats.norm)]
)
def test_numbers_follow_their_distribution(draw: Any, distribution: Any) -> None:
    numbers = draw((100_000,), (3, 4)).numpy().astype(np.float64)
    assert np.isfinite(numbers).all()
    assert stats.kstest(numbers, distribution.cdf).pvalue > 0.001
