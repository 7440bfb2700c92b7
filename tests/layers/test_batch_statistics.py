"""Scales and shifts of classes, and those that adapt a frozen network, against the plain layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.layers.batch_normalization import FusedBatchNormalization
from tfgan_med.layers.batch_statistics import ConditionalBatchNormalization, ScaleShift

SHAPE = (4, 6, 6, 3)
LABELS = tf.constant([1, 0, 1, 4], tf.int64)


def norm(**options: Any) -> ConditionalBatchNormalization:
    """With tables that hold another number at every place."""
    layer = ConditionalBatchNormalization(5, momentum=0.9, epsilon=2e-5, **options)
    layer.build((None, *SHAPE[1:]))
    layer.gammas.assign(np.linspace(0.5, 2.0, 15).reshape(5, 3))
    layer.betas.assign(np.linspace(-1.0, 1.0, 15).reshape(5, 3))
    return layer


def maps(seed: int = 1) -> tf.Tensor:
    return 2.0 * tf.random.stateless_normal(SHAPE, (seed, 2)) + 1.0


def of_classes(layer: ConditionalBatchNormalization, normalized: Any, labels: Any) -> Any:
    gamma, beta = (np.asarray(table)[np.asarray(labels)] for table in (layer.gammas, layer.betas))
    return np.asarray(normalized) * gamma[:, None, None] + beta[:, None, None]


# Norms of classes ---------------------------------------------------------------------------------


def test_all_classes_share_the_statistics_and_each_has_its_scale_and_shift() -> None:
    layer, x = norm(), maps()
    values = np.asarray(x, np.float64)
    mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
    expected = of_classes(layer, (values - mean) / np.sqrt(variance + 2e-5), LABELS)
    np.testing.assert_allclose(layer(x, LABELS, training=True), expected, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


def test_in_inference_the_moving_statistics_are_used_and_kept() -> None:
    layer = norm()
    layer.moving_mean.assign([1.0, -1.0, 0.5])
    layer.moving_variance.assign([4.0, 1.0, 0.25])
    plain = (np.asarray(maps()) - [1.0, -1.0, 0.5]) / np.sqrt(np.array([4.0, 1.0, 0.25]) + 2e-5)
    np.testing.assert_allclose(layer(maps(), LABELS), of_classes(layer, plain, LABELS), atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [1.0, -1.0, 0.5])


def test_at_first_every_class_is_the_plain_norm() -> None:
    layer = ConditionalBatchNormalization(5)
    plain = FusedBatchNormalization()
    np.testing.assert_array_equal(
        layer(maps(), LABELS, training=True), plain(maps(), training=True)
    )
    assert [tuple(w.shape) for w in layer.trainable_weights] == [(5, 3), (5, 3)]
    assert [w.name for w in layer.weights] == ["gammas", "betas", "moving_mean", "moving_variance"]


def test_gradients_reach_the_rows_of_the_classes_at_hand_alone() -> None:
    layer, x = norm(), maps()
    upstream = tf.random.stateless_normal(SHAPE, (3, 4))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, LABELS, training=True) * upstream)
    gradients = tape.gradient(loss, [layer.gammas.value, layer.betas.value])
    gammas, betas = map(np.asarray, gradients)
    values = np.asarray(x, np.float64)
    normalized = (values - values.mean((0, 1, 2))) / np.sqrt(values.var((0, 1, 2)) + 2e-5)
    shares = np.asarray(upstream).sum((1, 2)), (np.asarray(upstream) * normalized).sum((1, 2))
    for found, share in zip((betas, gammas), shares, strict=True):
        np.testing.assert_allclose(found[0], share[1], atol=1e-3)
        np.testing.assert_allclose(found[1], share[0] + share[2], atol=1e-3)
        np.testing.assert_allclose(found[4], share[3], atol=1e-3)
        assert not found[[2, 3]].any()


def test_gradients_of_the_maps_are_those_of_keras() -> None:
    layer, x = norm(), maps()
    label = tf.fill((4,), tf.constant(3, tf.int64))
    plain = keras.layers.BatchNormalization(epsilon=2e-5)
    plain.build(x.shape)
    plain.gamma.assign(layer.gammas[3])
    plain.beta.assign(layer.betas[3])
    gradients = []
    for norm_of, inputs in ((layer, (x, label)), (plain, (x,))):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(norm_of(*inputs, training=True)))
        gradients.append(np.asarray(tape.gradient(loss, x)))
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 0.01), ("mixed_bfloat16", 0.06)]
)
def test_half_precision_keeps_statistics_and_tables_in_float32(
    policy: str, tolerance: float
) -> None:
    reference, layer = norm(), norm(dtype=policy)
    expected = reference(maps(), LABELS, training=True)
    result = layer(maps(), LABELS, training=True)
    assert result.dtype == layer.compute_dtype
    assert {v.dtype for v in layer.weights} == {"float32"}
    np.testing.assert_allclose(tf.cast(result, tf.float32), expected, atol=tolerance)
    np.testing.assert_allclose(layer.moving_mean, reference.moving_mean, atol=1e-3)


def network() -> keras.Model:
    inputs, labels = keras.Input(SHAPE[1:]), keras.Input((), dtype="int64")
    x = ConditionalBatchNormalization(5, momentum=0.9, epsilon=2e-5, name="norm")(inputs, labels)
    return keras.Model([inputs, labels], ScaleShift(name="adapt")(x))


def test_a_clone_and_a_saved_network_compute_the_same(tmp_path: Path) -> None:
    model = network()
    for variable in model.weights:
        variable.assign(tf.random.stateless_uniform(variable.shape, (len(variable.shape), 2)))
    expected = model([maps(), LABELS])
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    model.save_weights(tmp_path / "x.weights.h5")
    loaded = network()
    loaded.load_weights(tmp_path / "x.weights.h5")
    for other in (clone, loaded):
        np.testing.assert_array_equal(other([maps(), LABELS]), expected)
    config = model.get_layer("norm").get_config()
    assert ConditionalBatchNormalization.from_config(config).get_config() == config
    assert (config["num_classes"], config["momentum"], config["epsilon"]) == (5, 0.9, 2e-5)


def test_a_frozen_norm_keeps_its_statistics_in_training() -> None:
    layer = norm()
    layer.trainable = False
    expected = layer(maps(), LABELS, training=False)
    np.testing.assert_array_equal(layer(maps(), LABELS, training=True), expected)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


# Scale and shift ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_scale_and_shift_begin_as_the_identity_to_the_bit(policy: str) -> None:
    layer = ScaleShift(dtype=policy)
    x = tf.cast(maps(), layer.compute_dtype)
    np.testing.assert_array_equal(tf.cast(layer(x), tf.float32), tf.cast(x, tf.float32))
    assert [(w.name, tuple(w.shape), w.dtype) for w in layer.trainable_weights] == [
        ("gamma", (3,), "float32"),
        ("beta", (3,), "float32"),
    ]


def test_scale_and_shift_are_per_channel_and_learn() -> None:
    layer, x = ScaleShift(), maps()
    layer.build(x.shape)
    layer.gamma.assign([2.0, -1.0, 0.0])
    layer.beta.assign([0.5, 0.0, 3.0])
    with tf.GradientTape() as tape:
        result = layer(x)
        loss = tf.reduce_sum(tf.square(result))
    np.testing.assert_allclose(result, np.asarray(x) * [2.0, -1.0, 0.0] + [0.5, 0.0, 3.0])
    by_gamma, by_beta = tape.gradient(loss, [layer.gamma.value, layer.beta.value])
    product = np.asarray(result) * np.asarray(x)
    np.testing.assert_allclose(by_gamma, 2 * product.sum((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(by_beta, 2 * np.asarray(result).sum((0, 1, 2)), rtol=1e-4)
