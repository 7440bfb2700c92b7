"""One strided convolution against the two steps that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.layers.resampling import EnlargingConvolution, SpectralShrinkingConvolution
from tfgan_med.layers.spectral import SpectralConv2D

Plain = Callable[[Any, Any], Any]


def enlarging(**options: Any) -> tuple[keras.layers.Layer, Plain]:
    """The layer, and `UpSampling2D` before a plain convolution of the same weights."""
    layer = EnlargingConvolution(5, bias_initializer="ones", **options)

    def plain(x: Any, kernel: Any) -> Any:
        large = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        return tf.nn.conv2d(large, kernel, 1, "SAME") + layer.bias

    return layer, plain


def shrinking(**options: Any) -> tuple[keras.layers.Layer, Plain]:
    """The layer, and `AveragePooling2D` after a convolution with the kernel over sigma."""
    layer = SpectralShrinkingConvolution(5, bias_initializer="ones", **options)

    def plain(x: Any, kernel: Any) -> Any:
        matrix = tf.reshape(kernel, (-1, 5))
        u = tf.constant(layer.u)[:, None]
        v = tf.stop_gradient(tf.linalg.l2_normalize(matrix @ u))
        sigma = tf.reduce_sum(v * (matrix @ u))
        return tf.nn.avg_pool2d(
            tf.nn.conv2d(x, kernel / sigma, 1, "SAME") + layer.bias, 2, 2, "VALID"
        )

    return layer, plain


each = pytest.mark.parametrize("make", [enlarging, shrinking])


def learning(call: Callable[[Any], Any], x: Any, kernel: Any) -> list[Any]:
    """Result and its gradients by maps and kernel."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        result = call(x)
        loss = tf.reduce_sum(tf.sin(3.0 * result))
    return [result, *tape.gradient(loss, [x, kernel])]


@each
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 2, 2, 4), (2, 4, 6, 1)])
def test_the_layer_computes_the_two_steps_and_sends_their_gradients_back(
    make: Any, jit: bool, shape: tuple[int, ...]
) -> None:
    layer, plain = make()
    layer.build((None, *shape[1:]))
    x, kernel = tf.random.stateless_normal(shape, (1, 2)), tf.constant(layer.kernel)
    expected = learning(lambda x: plain(x, kernel), x, kernel)
    step = tf.function(lambda x: learning(layer, x, layer.kernel.value), jit_compile=jit)
    for one, other in zip(step(x), expected, strict=True):
        size = float(tf.reduce_max(tf.abs(other)))
        assert size > 0.1
        np.testing.assert_allclose(one, other, atol=2e-5 * size)


@each
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 0.06), ("mixed_float16", 0.008)]
)
def test_half_precision_loses_no_more_than_its_digits(
    make: Any, policy: str, tolerance: float
) -> None:
    layer, plain = make(dtype=policy)
    layer.build((None, 8, 8, 3))
    x = tf.random.stateless_normal((2, 8, 8, 3), (1, 2))
    result = layer(x)
    assert result.dtype == layer.compute_dtype
    assert layer.kernel.dtype == "float32"
    expected = np.asarray(plain(x, tf.constant(layer.kernel)))
    np.testing.assert_allclose(
        tf.cast(result, tf.float32), expected, atol=tolerance * np.abs(expected).max()
    )


@each
def test_a_map_of_unknown_batch_and_size_is_resized(make: Any) -> None:
    layer, plain = make()
    inputs = keras.Input((None, None, 3))
    network = keras.Model(inputs, layer(inputs))
    x = tf.random.stateless_normal((3, 6, 4, 3), (1, 2))
    expected = plain(x, tf.constant(layer.kernel))
    np.testing.assert_allclose(network(x), expected, atol=1e-5)
    assert network.output_shape == (None, None, None, 5)
    factor = 2 if make is enlarging else 0.5
    assert layer.compute_output_shape((7, 6, 4, 3)) == (7, int(6 * factor), int(4 * factor), 5)


@each
def test_settings_and_weights_make_the_same_layer(make: Any) -> None:
    layer, _ = make(activation="relu", kernel_initializer="glorot_normal", name="a")
    x = tf.random.stateless_normal((2, 4, 4, 3), (1, 2))
    expected = layer(x)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x), expected)
    assert again.get_config() == layer.get_config()
    assert layer.kernel.shape == (3, 3, 3, 5)


def test_sigma_is_that_of_the_trained_kernel() -> None:
    layer, _ = shrinking(kernel_initializer=keras.initializers.GlorotUniform(1))
    plain = SpectralConv2D(5, 3, kernel_initializer=keras.initializers.GlorotUniform(1))
    for one in (layer, plain):
        one.build((None, 8, 8, 3))
        for _ in range(100):
            one.iterate()
    singular = np.linalg.svd(layer.kernel.numpy().reshape(-1, 5), compute_uv=False)
    assert float(layer.sigma()) == pytest.approx(singular[0], rel=1e-3)
    assert float(layer.sigma()) == pytest.approx(float(plain.sigma()), rel=1e-6)
