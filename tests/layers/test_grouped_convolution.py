"""Grouped convolution: the values of Keras' own, whatever the groups."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.layers.grouped_convolution import GroupedConv2D


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "stride"),
    [(128, 128, 32, 1), (96, 192, 32, 2), (8, 8, 8, 1), (192, 96, 2, 2), (6, 4, 1, 1)],
)
def test_results_and_gradients_are_those_of_keras(
    channels: int, filters: int, groups: int, stride: int
) -> None:
    made = []
    x = tf.random.stateless_normal((2, 7, 7, channels), (1, 2))
    start = keras.initializers.RandomNormal(seed=3)
    for kind in (keras.layers.Conv2D, GroupedConv2D):
        layer = kind(
            filters, 3, stride, groups=groups, kernel_initializer=start, bias_initializer="ones"
        )
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = layer(x)
            loss = tf.reduce_sum(tf.sin(result))
        made.append([result, *tape.gradient(loss, [x, *layer.trainable_variables])])
        assert layer.kernel.shape == (3, 3, channels // groups, filters)
    for theirs, ours in zip(*made, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
