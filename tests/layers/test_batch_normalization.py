"""The fused kernels against Keras' own layer: values, statistics, gradients."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.layers.batch_normalization import FusedBatchNormalization

OPTIONS = {"momentum": 0.9, "epsilon": 1e-5}
TOLERANCE = {"float32": 2e-5, "mixed_float16": 1e-2, "mixed_bfloat16": 6e-2}


def pictures() -> npt.NDArray[np.float32]:
    return np.random.default_rng(3).normal(2.0, 5.0, (3, 4, 5, 6)).astype(np.float32)


def pair(policy: str = "float32") -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Keras' layer and ours with equal weights that are not their starting values."""
    draw = np.random.default_rng(4)
    values = [draw.uniform(0.5, 1.5, 6) for _ in range(4)]
    layers = (
        keras.layers.BatchNormalization(dtype=policy, **OPTIONS),
        FusedBatchNormalization(dtype=policy, **OPTIONS),
    )
    for layer in layers:
        layer.build((None, 4, 5, 6))
        layer.set_weights(values)
    return layers


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("xla", [False, True])
def test_values_and_statistics_are_those_of_keras(policy: str, training: bool, xla: bool) -> None:
    theirs, ours = pair(policy)
    x = tf.cast(pictures(), theirs.compute_dtype)
    expected = theirs(x, training=training)
    result = tf.function(lambda x: ours(x, training=training), jit_compile=xla)(x)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(
        tf.cast(result, tf.float32), tf.cast(expected, tf.float32), atol=TOLERANCE[policy]
    )
    for one, other in zip(theirs.weights, ours.weights, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(other, one, rtol=1e-4, err_msg=one.name)


def test_the_moving_variance_is_biased() -> None:
    _, ours = pair()
    ours.moving_variance.assign(np.zeros(6))
    ours(pictures(), training=True)
    expected = 0.1 * pictures().var(axis=(0, 1, 2))  # divided by n, not by n - 1
    np.testing.assert_allclose(ours.moving_variance, expected, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_keras(training: bool) -> None:
    found = []
    for layer in pair():
        x = tf.constant(pictures())
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x, training=training)))
        found.append(tape.gradient(loss, [x, *layer.trainable_variables]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5 * float(tf.reduce_max(tf.abs(one))))


def test_a_frozen_layer_uses_and_keeps_its_moving_statistics() -> None:
    theirs, ours = pair()
    theirs.trainable = ours.trainable = False
    before = ours.get_weights()
    np.testing.assert_allclose(
        ours(pictures(), training=True), theirs(pictures(), training=True), atol=2e-5
    )
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("shape", [(8, 6), (8, 5, 6), (2, 3, 4, 5, 6)])
def test_other_ranks_are_left_to_keras(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    theirs, ours = keras.layers.BatchNormalization(**OPTIONS), FusedBatchNormalization(**OPTIONS)
    np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))


def test_without_scale_and_offset_there_are_only_statistics() -> None:
    layer = FusedBatchNormalization(center=False, scale=False, epsilon=1e-5)
    result = np.asarray(layer(pictures(), training=True))
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(result.var((0, 1, 2)), 1.0, atol=1e-4)
    assert [weight.name for weight in layer.weights] == ["moving_mean", "moving_variance"]
