"""Sigma against singular values, gradients against the scale invariance that they imply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.layers.spectral import (
    SpectralConv2D,
    SpectralConv2DTranspose,
    SpectralDense,
    SpectralEmbedding,
    power_iteration,
)
from tfgan_med.networks.initialization import normal_weights

Make = Callable[..., keras.layers.Layer]
Array = npt.NDArray[Any]


def convolution(**options: Any) -> SpectralConv2D:
    return SpectralConv2D(6, 3, strides=2, padding="same", **options)


def transposed(**options: Any) -> SpectralConv2DTranspose:
    return SpectralConv2DTranspose(6, 4, strides=2, padding="same", **options)


def dense(**options: Any) -> SpectralDense:
    return SpectralDense(6, **options)


SHAPES: dict[Make, tuple[int, ...]] = {
    convolution: (2, 8, 8, 4),
    transposed: (2, 4, 4, 4),
    dense: (2, 9),
}
PLAIN: dict[Make, Any] = {
    convolution: keras.layers.Conv2D,
    transposed: keras.layers.Conv2DTranspose,
    dense: keras.layers.Dense,
}
each = pytest.mark.parametrize("make", SHAPES)


def built(make: Make, **options: Any) -> tuple[Any, tf.Tensor]:
    layer = make(kernel_initializer=normal_weights(1, make.__name__), **options)
    layer.build((None, *SHAPES[make][1:]))
    if layer.bias is not None:
        layer.bias.assign(np.linspace(-1.0, 1.0, 6))
    return layer, tf.random.stateless_normal(SHAPES[make], (1, 2))


def matrix(layer: Any) -> Array:
    """One row per output channel, worked out from the kernel's own order of axes."""
    axis = 2 if isinstance(layer, SpectralConv2DTranspose) else -1
    kernel = layer.kernel.numpy().astype(np.float64)
    return np.asarray(np.moveaxis(kernel, axis, 0).reshape(6, -1))


def largest_singular_value(layer: Any) -> float:
    return float(np.linalg.svd(matrix(layer), compute_uv=False)[0])


def network(seed: int = 0) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = SpectralConv2D(4, 3, kernel_initializer=normal_weights(seed, "a"), name="a")(inputs)
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            SpectralConv2DTranspose(5, 4, kernel_initializer=normal_weights(seed, "b"), name="b"),
            keras.layers.Flatten(),
        ]
    )
    score = SpectralDense(1, kernel_initializer=normal_weights(seed, "c"), name="c")
    return keras.Model(inputs, score(inner(x)))


def directions(model: keras.Model) -> list[Array]:
    return [v.numpy() for v in model.non_trainable_variables]


# Sigma


@each
def test_sigma_becomes_the_largest_singular_value(make: Make) -> None:
    layer, _ = built(make)
    for _ in range(100):
        layer.iterate()
    assert float(layer.sigma()) == pytest.approx(largest_singular_value(layer), rel=1e-5)
    normalized = np.asarray(layer.normalized_kernel()) * float(layer.sigma())
    np.testing.assert_allclose(normalized, layer.kernel, rtol=1e-5)


@each
def test_sigma_starts_near_the_largest_singular_value_and_never_above(make: Make) -> None:
    layer, _ = built(make)
    ratio = float(layer.sigma()) / largest_singular_value(layer)
    assert 0.9 < ratio < 1 + 1e-6


@each
def test_an_iteration_is_that_of_the_paper(make: Make) -> None:
    layer, _ = built(make)
    u, w = layer.u.numpy(), matrix(layer)
    assert np.linalg.norm(u) == pytest.approx(1.0, abs=1e-6)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    assert float(layer.sigma()) == pytest.approx(u @ w @ v, rel=1e-5)
    layer.iterate()
    np.testing.assert_allclose(layer.u, w @ v / np.linalg.norm(w @ v), atol=1e-6)


def test_a_step_of_training_is_followed() -> None:
    layer, _ = built(convolution)
    for step in range(20):
        change = tf.random.stateless_normal(layer.kernel.shape, (step, 3), stddev=1e-3)
        layer.kernel.assign_add(change)
        layer.iterate()
        assert float(layer.sigma()) == pytest.approx(largest_singular_value(layer), rel=0.05)


def test_one_output_channel_has_the_norm_of_its_kernel_at_once() -> None:
    layer = SpectralDense(1, kernel_initializer=keras.initializers.Constant(2.0))
    layer.build((None, 9))
    assert float(layer.sigma()) == pytest.approx(6.0)  # sqrt(9 * 2²)


def test_a_kernel_of_zeros_gives_zeros_and_finite_gradients() -> None:
    layer = SpectralDense(3, kernel_initializer="zeros", bias_initializer="ones")
    with tf.GradientTape() as tape:
        result = layer(tf.ones((2, 5)))
        loss = tf.reduce_sum(result)
    np.testing.assert_array_equal(result, np.ones((2, 3)))
    assert np.isfinite(tape.gradient(loss, layer.kernel.value)).all()
    layer.iterate()
    assert np.isfinite(layer.u).all()


# The layer


@each
def test_the_layer_is_the_plain_one_with_the_kernel_over_sigma(make: Make) -> None:
    layer, x = built(make, activation="tanh")
    plain = PLAIN[make].from_config(layer.get_config())
    plain.build(x.shape)
    plain.set_weights([layer.kernel.numpy() / float(layer.sigma()), layer.bias.numpy()])
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-5)


@each
def test_a_layer_without_bias_has_kernel_and_direction_alone(make: Make) -> None:
    layer, x = built(make, use_bias=False)
    assert [v.name for v in layer.weights] == ["kernel", "u"]
    assert [v.name for v in layer.trainable_weights] == ["kernel"]
    np.testing.assert_allclose(layer(2.0 * x), 2.0 * layer(x), atol=1e-5)
    assert [v.name for v in built(make)[0].weights] == ["kernel", "bias", "u"]


@each
def test_the_gradient_is_orthogonal_to_the_kernel(make: Make) -> None:
    layer, x = built(make)
    target = tf.random.stateless_normal(layer(x).shape, (4, 5))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) * target)
    gradient = tape.gradient(loss, layer.kernel.value)
    assert cosine(gradient, layer.kernel) == pytest.approx(0.0, abs=1e-5)

    # With sigma held it is not.
    layer.sigma = lambda: tf.stop_gradient(type(layer).sigma(layer))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) * target)
    assert abs(cosine(tape.gradient(loss, layer.kernel.value), layer.kernel)) > 1e-2


def cosine(a: Any, b: Any) -> float:
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@each
def test_the_gradient_is_that_of_finite_differences(make: Make) -> None:
    layer, x = built(make, dtype="float32")
    target = tf.random.stateless_normal(layer(x).shape, (4, 5))

    def loss() -> tf.Tensor:
        return tf.reduce_sum(layer(x) * target)

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, layer.kernel.value).numpy()
    start, step = layer.kernel.numpy(), 0.05
    for trial in range(3):
        direction = tf.random.stateless_normal(start.shape, (trial, 9)).numpy() * 0.02
        sides = []
        for sign in (1, -1):
            layer.kernel.assign(start + sign * step * direction)
            sides.append(float(loss()))
        slope = (sides[0] - sides[1]) / (2 * step)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert slope == pytest.approx(float((gradient * direction).sum()), abs=1e-3 * float(scale))


# Who moves u


def test_calls_leave_u_alone_and_a_power_iteration_moves_every_u_once() -> None:
    model = network()
    before = directions(model)
    assert [len(u) for u in before] == [4, 5, 1]
    for training in (False, True):
        model(tf.ones((2, 8, 8, 3)), training=training)
    for old, now in zip(before, directions(model), strict=True):
        np.testing.assert_array_equal(old, now)

    expected = [layer._iterated(layer.u) for layer in spectral_layers(model)]
    power_iteration(model, model)  # a network counts once
    for old, now, wanted in zip(before[:2], directions(model)[:2], expected[:2], strict=True):
        assert not np.array_equal(old, now)
        np.testing.assert_allclose(now, wanted, atol=1e-6)


def spectral_layers(model: keras.Model) -> list[Any]:
    return [layer for layer in model._flatten_layers() if layer.name in "abc"]


def test_networks_without_spectral_layers_are_left_as_they_are() -> None:
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    before = plain.get_weights()
    power_iteration(plain)
    for old, now in zip(before, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_graphs_iterate_and_differentiate_as_eager_code_does(compiled: bool) -> None:
    model, x = network(), tf.random.stateless_normal((3, 8, 8, 3), (1, 2))

    def step() -> tuple[tf.Tensor, list[tf.Tensor]]:
        power_iteration(model)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    start = model.get_weights()
    loss, gradients = step()
    moved = directions(model)
    model.set_weights(start)
    graph_loss, graph_gradients = tf.function(step, jit_compile=compiled)()
    assert float(graph_loss) == pytest.approx(float(loss), rel=1e-4)
    for ours, theirs in zip(graph_gradients, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(tf.norm(theirs)))
    for now, wanted in zip(directions(model), moved, strict=True):
        np.testing.assert_allclose(now, wanted, atol=1e-5)


def test_two_devices_keep_the_same_u_as_one() -> None:
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) >= 2
    strategy = tf.distribute.MirroredStrategy(devices[:2])
    with strategy.scope():
        model = network()
    alone = network()
    for ours, theirs in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def on_replica() -> tf.Tensor:
        power_iteration(model)
        return tf.reduce_sum(model(tf.ones((1, 8, 8, 3)), training=True))

    step = tf.function(lambda: strategy.experimental_local_results(strategy.run(on_replica)))
    for _ in range(3):
        first, second = step()
        power_iteration(alone)
        assert float(first) == pytest.approx(float(second), rel=1e-6)
    wanted = [v.numpy() for v in alone.non_trainable_variables]
    for variable, expected in zip(model.non_trainable_variables, wanted, strict=True):
        values = strategy.experimental_local_results(variable.value)
        for value in values:
            np.testing.assert_allclose(value, expected, atol=1e-5)


# Precision, seeds, copies


@each
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_sigma_is_float32_under_mixed_precision(make: Make, policy: str) -> None:
    layer, x = built(make, dtype=policy)
    reference, _ = built(make, dtype="float32")
    # Raw kernels of any size make the same normalized one; this one overflows float16.
    layer.kernel.assign(reference.kernel * 1e7)
    assert np.abs(layer.kernel).max() > np.finfo(np.float16).max
    with tf.GradientTape() as tape:
        result = layer(x)
        loss = tf.reduce_mean(tf.cast(result, tf.float32) ** 2)
    assert result.dtype == layer.compute_dtype
    assert layer.sigma().dtype == layer.u.dtype == "float32"
    assert float(layer.sigma()) == pytest.approx(1e7 * float(reference.sigma()), rel=1e-5)
    tolerance = {"mixed_float16": 0.01, "mixed_bfloat16": 0.08}[policy]
    np.testing.assert_allclose(tf.cast(result, "float32"), reference(x), atol=tolerance)
    gradient = tape.gradient(loss, layer.kernel.value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_starting_weights_are_a_function_of_the_seed() -> None:
    first, again, other = network(0), network(0), network(1)
    for one, two in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(directions(first)[:2], directions(other)[:2], strict=True):
        assert not np.allclose(one, two)


def test_a_clone_takes_over_all_weights_and_computes_the_same() -> None:
    model, x = network(), tf.random.stateless_normal((2, 8, 8, 3), (1, 2))
    for _ in range(3):
        power_iteration(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(x), model(x))
    power_iteration(model)
    assert not np.array_equal(directions(clone)[0], directions(model)[0])


def test_saved_weights_hold_u(tmp_path: Path) -> None:
    model, other = network(0), network(1)
    model.save_weights(tmp_path / "x.weights.h5")
    other.load_weights(tmp_path / "x.weights.h5")
    assert len(model.weights) == 9  # kernel, bias and u of three layers
    for old, new in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(old, new)


# The table of the projection discriminator


def table(classes: int = 7, channels: int = 4, **options: Any) -> SpectralEmbedding:
    layer = SpectralEmbedding(
        classes, channels, embeddings_initializer=normal_weights(3, "table"), **options
    )
    layer.build((None,))
    return layer


def table_norm(layer: SpectralEmbedding) -> float:
    values = layer.embeddings.numpy().astype(np.float64)
    return float(np.linalg.svd(values, compute_uv=False)[0])


@pytest.mark.parametrize(("classes", "channels"), [(7, 4), (2, 16), (40, 3)])
def test_the_norm_of_a_table_becomes_one(classes: int, channels: int) -> None:
    layer = table(classes, channels)
    for _ in range(100):
        layer.iterate()
    rows = np.asarray(layer(tf.range(classes)))
    assert rows.shape == (classes, channels)
    assert np.linalg.svd(rows, compute_uv=False)[0] == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(rows * table_norm(layer), layer.embeddings, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_rows_are_those_of_the_labels_and_none_of_no_class(kind: str) -> None:
    layer = table()
    labels = tf.constant([6, 0, 0, -1], kind)
    rows = layer(labels)
    expected = np.asarray(layer.normalized_kernel())
    np.testing.assert_array_equal(rows[:3], expected[[6, 0, 0]])
    np.testing.assert_array_equal(rows[3], np.zeros(4))


def test_looking_up_leaves_u_alone_and_an_iteration_moves_it() -> None:
    layer = table()
    before = layer.u.numpy()
    layer(tf.range(7), training=True)
    layer(tf.range(7), training=False)
    np.testing.assert_array_equal(layer.u, before)
    layer.iterate()
    assert not np.array_equal(layer.u, before)
    assert [v.name for v in layer.trainable_weights] == ["embeddings"]
    assert [v.name for v in layer.non_trainable_weights] == ["u"]


def test_the_gradient_of_a_table_is_dense_and_that_of_finite_differences() -> None:
    layer, labels = table(), tf.constant([1, 5, 1])
    target = tf.random.stateless_normal((3, 4), (4, 5))

    def loss() -> tf.Tensor:
        return tf.reduce_sum(layer(labels) * target)

    with tf.GradientTape() as tape:
        value = loss()
    gradient = np.asarray(tape.gradient(value, layer.embeddings.value))
    assert gradient[3].any()  # sigma depends on the rows of all classes
    start = layer.embeddings.numpy()
    for trial in range(3):
        direction = tf.random.stateless_normal(start.shape, (trial, 9)).numpy() * 0.02
        sides = []
        for sign in (1, -1):
            layer.embeddings.assign(start + sign * 0.05 * direction)
            sides.append(float(loss()))
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        slope = (sides[0] - sides[1]) / 0.1
        assert slope == pytest.approx(float((gradient * direction).sum()), abs=1e-3 * float(scale))


def test_a_table_is_float32_inside_under_mixed_precision() -> None:
    reference, layer = table(), table(dtype="mixed_float16")
    layer.embeddings.assign(reference.embeddings * 1e7)
    rows = layer(tf.range(7))
    assert rows.dtype == tf.float16
    np.testing.assert_allclose(tf.cast(rows, tf.float32), reference(tf.range(7)), atol=1e-3)


def test_a_clone_and_saved_weights_of_a_table_keep_u(tmp_path: Path) -> None:
    def model(seed: int) -> keras.Model:
        labels = keras.Input((), dtype="int64")
        start = normal_weights(seed, "table")
        return keras.Model(labels, SpectralEmbedding(7, 4, embeddings_initializer=start)(labels))

    first, other = model(0), model(1)
    for _ in range(3):
        power_iteration(first)
    clone = keras.models.clone_model(first)
    clone.set_weights(first.get_weights())
    first.save_weights(tmp_path / "x.weights.h5")
    other.load_weights(tmp_path / "x.weights.h5")
    for copy in (clone, other):
        np.testing.assert_array_equal(directions(copy)[0], directions(first)[0])
        np.testing.assert_array_equal(copy(tf.range(7)), first(tf.range(7)))
