"""The 2 x 2 transposed convolution as a matrix product equals Keras' own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.layers.upsampling import TilingConvolution


def values_and_gradients(layer: keras.layers.Layer, x: tf.Tensor) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * tf.reshape(tf.cos(tf.range(tf.size(y), dtype=y.dtype)), y.shape))
    return [y.numpy(), *(g.numpy() for g in tape.gradient(loss, [x, *layer.trainable_variables]))]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (2, 4, 7, 3), (3, 6, 6, 16)])
def test_tiles_are_the_transposed_convolution(shape: tuple[int, ...], bias: bool) -> None:
    x = tf.random.stateless_normal(shape, (1, 2))
    ours = TilingConvolution(6, use_bias=bias)
    theirs = keras.layers.Conv2DTranspose(6, 2, strides=2, padding="same", use_bias=bias)
    for layer in (ours, theirs):
        layer.build(shape)
    theirs.set_weights(ours.get_weights())
    if bias:
        for layer in (ours, theirs):
            layer.bias.assign(np.arange(6.0))
    found, expected = values_and_gradients(ours, x), values_and_gradients(theirs, x)
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_a_layer_is_rebuilt_from_its_settings() -> None:
    again = TilingConvolution.from_config(TilingConvolution(5, use_bias=False).get_config())
    assert (again.filters, again.kernel_size, again.use_bias) == (5, (2, 2), False)
