"""The quick form of the convolutions equals Keras' own, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.layers import convolution
from tfgan_med.layers.convolution import DoublingConvolution, HalvingConvolution


def values_and_gradients(layer: keras.layers.Layer, x: tf.Tensor) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * tf.reshape(tf.cos(tf.range(tf.size(y), dtype=y.dtype)), y.shape))
    return [y.numpy(), *(g.numpy() for g in tape.gradient(loss, [x, *layer.trainable_variables]))]


@pytest.mark.parametrize("make", [HalvingConvolution, DoublingConvolution])
@pytest.mark.parametrize("shape", [(1, 2, 2, 5), (3, 4, 4, 6), (2, 2, 6, 4), (1, 8, 8, 3)])
def test_the_matrix_product_is_the_convolution(
    make: Callable[..., keras.layers.Layer],
    shape: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = tf.random.stateless_normal(shape, (1, 2))
    layer = make(7)
    layer.build(shape)
    layer.bias.assign(np.arange(7.0))
    monkeypatch.setattr(convolution, "_pays", lambda inputs, positions: False)
    expected = values_and_gradients(layer, x)
    monkeypatch.setattr(convolution, "_pays", lambda inputs, positions: True)
    for ours, theirs in zip(values_and_gradients(layer, x), expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_one_pixel_doubles_to_the_inner_four_shares() -> None:
    layer = DoublingConvolution(1, use_bias=False)
    layer.build((1, 1, 1, 1))
    layer.kernel.assign(np.arange(16.0).reshape(4, 4, 1, 1))
    out = layer(tf.ones((1, 1, 1, 1))).numpy()[0, :, :, 0]
    np.testing.assert_array_equal(out, [[5.0, 6.0], [9.0, 10.0]])


def test_the_quick_form_is_kept_to_small_batches_of_known_shape() -> None:
    assert convolution._pays(tf.zeros((8, 4, 4, 3)), 128)
    assert not convolution._pays(tf.zeros((9, 4, 4, 3)), 128)
    assert not convolution._pays(keras.Input((4, 4, 3)), 128)


@pytest.mark.parametrize("make", [HalvingConvolution, DoublingConvolution])
def test_a_layer_is_rebuilt_from_its_settings(make: Callable[..., keras.layers.Layer]) -> None:
    layer = make(5, use_bias=False, name="here")
    again = type(layer).from_config(layer.get_config())
    assert (again.filters, again.kernel_size, again.use_bias) == (5, (4, 4), False)
