"""SNGAN's networks: their sizes, and the same values from the paper's steps written out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.layers import spectral
from tfgan_med.layers.batch_statistics import ConditionalBatchNormalization, ScaleShift
from tfgan_med.networks import sngan
from tfgan_med.networks.sngan import (
    HALVINGS,
    SIZES,
    GeneratorPlan,
    sngan_discriminator,
    sngan_generator,
)

Array = npt.NDArray[Any]


def plan(image_size: int = 32, base: int | None = 3, **options: Any) -> GeneratorPlan:
    values = {"latent_size": 6, "channels": 3, **options}
    return GeneratorPlan(image_size=image_size, base=base, **values)


def trainable(network: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_weights)


@pytest.fixture(params=["float32", "mixed_float16", "mixed_bfloat16"])
def policy(request: Any) -> Iterator[str]:
    keras.config.set_dtype_policy(request.param)
    yield str(request.param)
    keras.config.set_dtype_policy("float32")


# Sizes --------------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of zeros, whose sigmas are not looked for: quick to make, of the same sizes."""
    monkeypatch.setattr(sngan, "glorot", lambda *_: keras.initializers.Zeros())
    monkeypatch.setattr(spectral, "START_ITERATIONS", 0)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("size", "small", "num_classes", "count"),
    [
        (128, False, 0, 32_150_787),
        (128, False, 1000, 41_996_931),
        (64, False, 0, 12_220_675),
        (64, False, 1000, 17_974_915),
        (32, False, 0, 4_276_739),
        (32, False, 10, 4_304_387),
        (128, True, 0, 9_788_419),
    ],
)
def test_generators_have_the_weights_of_the_reference(
    size: int, small: bool, num_classes: int, count: int
) -> None:
    chosen = GeneratorPlan(image_size=size, channels=3, small=small, num_classes=num_classes)
    assert trainable(sngan_generator(chosen)) == count


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("size", "small", "num_classes", "count"),
    [
        (128, False, 0, 29_017_857),
        (128, False, 1000, 30_041_857),
        (64, False, 0, 10_141_441),
        (32, False, 0, 1_053_824),
        (128, True, 0, 8_501_761),
    ],
)
def test_discriminators_have_the_weights_of_the_reference(
    size: int, small: bool, num_classes: int, count: int
) -> None:
    network = sngan_discriminator(size, 3, small=small, num_classes=num_classes)
    assert trainable(network) == count


@pytest.mark.usefixtures("bare")
def test_adaptation_trains_11904_scales_and_shifts_at_128_pixels() -> None:
    network = sngan_generator(GeneratorPlan(image_size=128, channels=3), adapted=True)
    pairs = [layer for layer in network.layers if isinstance(layer, ScaleShift)]
    widths = [1024, 1024, 1024, 1024, 512, 512, 256, 256, 128, 128, 64]
    assert [layer.gamma.shape[0] for layer in pairs] == widths
    assert sum(layer.count_params() for layer in pairs) == 11_904 == 2 * sum(widths)
    assert trainable(network) == 32_150_787 + 11_904


@pytest.mark.parametrize(
    ("size", "small", "sides", "widths"),
    [
        (128, False, (64, 32, 16, 8, 4, 4), (1, 2, 4, 8, 16, 16)),
        (128, True, (64, 32, 16, 8, 4, 4), (1, 2, 4, 4, 8, 8)),
        (64, False, (32, 16, 8, 4, 2), (1, 2, 4, 8, 16)),
        (32, False, (16, 8, 8, 8), (1, 1, 1, 1)),
    ],
)
def test_blocks_of_the_discriminator_halve_and_widen(
    size: int, small: bool, sides: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    network = sngan_discriminator(size, 1, base=2, small=small)
    for number, (side, width) in enumerate(zip(sides, widths, strict=True), 1):
        assert network.get_layer(f"block{number}_sum").output.shape[1:] == (side, side, 2 * width)
    names = {layer.name for layer in network.layers}
    same = [n for n in range(2, len(sides) + 1) if sides[n - 1] == sides[n - 2]]
    assert [f"block{n}_shortcut" in names for n in same] == [False] * len(same)  # the identity
    assert ("bias" in {w.name for w in network.get_layer("score").weights}) == (size != 32)


@pytest.mark.parametrize("size", [0, 16, 48, 256])
def test_a_size_there_is_no_network_for_is_refused(size: int) -> None:
    message = f"image_size is {size}; SNGAN makes pictures of 32, 64 or 128 pixels"
    with pytest.raises(ValueError, match=message):
        sngan_generator(plan(size))
    with pytest.raises(ValueError, match=message):
        sngan_discriminator(size, 3)


def test_small_networks_are_of_128_pixels() -> None:
    message = "small networks are of 128 pixels; image_size is 64"
    with pytest.raises(ValueError, match=message):
        sngan_generator(plan(64, small=True))
    with pytest.raises(ValueError, match=message):
        sngan_discriminator(64, 3, small=True)


# Values: the paper's steps one by one -------------------------------------------------------------


class Written:
    """A network's steps in its paper's order, with the weights of one of ours."""

    def __init__(self, network: keras.Model, training: bool = False) -> None:
        self.network = network
        self.training = training
        self.names = {layer.name for layer in network.layers}

    def weights(self, name: str) -> dict[str, Array]:
        return {w.name: w.numpy() for w in self.network.get_layer(name).weights}

    def convolved(self, x: Any, name: str) -> Any:
        weights = self.weights(name)
        kernel = weights["kernel"]
        if "u" in weights:
            kernel = kernel / singular(kernel)
        return tf.nn.conv2d(x, kernel, 1, "SAME") + weights["bias"]

    def normalized(self, x: Any, name: str, labels: Any = None) -> Any:
        weights = self.weights(name)
        mean, variance = weights["moving_mean"], weights["moving_variance"]
        if self.training:
            mean, variance = tf.nn.moments(x, (0, 1, 2))
        gamma, beta = weights.get("gamma"), weights.get("beta")
        if gamma is None:
            gamma, beta = (weights[t][labels][:, None, None] for t in ("gammas", "betas"))
        return gamma * (x - mean) / tf.sqrt(variance + 2e-5) + beta

    def generator(self, latents: Any, labels: Any = None) -> Any:
        dense = self.weights("project")
        x = tf.reshape(latents @ dense["kernel"] + dense["bias"], (len(latents), 4, 4, -1))
        for number in itertools.count(1):
            name = f"block{number}"
            if f"{name}_conv1" not in self.names:
                break
            shortcut = self.convolved(repeated(x), f"{name}_shortcut")
            x = tf.nn.relu(self.normalized(x, f"{name}_norm1", labels))
            x = self.convolved(repeated(x), f"{name}_conv1")
            x = tf.nn.relu(self.normalized(x, f"{name}_norm2", labels))
            x = self.convolved(x, f"{name}_conv2") + shortcut
        x = tf.nn.relu(self.normalized(x, "head_norm"))
        return tf.tanh(self.convolved(x, "head_conv"))

    def discriminator(self, x: Any, labels: Any = None) -> Any:
        halvings = HALVINGS[x.shape[1]]
        shortcut = self.convolved(averaged(x), "block1_shortcut")
        x = self.convolved(tf.nn.relu(self.convolved(x, "block1_conv1")), "block1_conv2")
        x = averaged(x) + shortcut
        for number in itertools.count(2):
            name = f"block{number}"
            if f"{name}_conv1" not in self.names:
                break
            has_own = f"{name}_shortcut" in self.names
            shortcut = self.convolved(x, f"{name}_shortcut") if has_own else x
            x = self.convolved(tf.nn.relu(x), f"{name}_conv1")
            x = self.convolved(tf.nn.relu(x), f"{name}_conv2")
            if number <= halvings:
                x, shortcut = averaged(x), averaged(shortcut)
            x = x + shortcut
        features = tf.reduce_sum(tf.nn.relu(x), (1, 2))
        dense = self.weights("score")
        score = features @ (dense["kernel"] / singular(dense["kernel"])) + dense.get("bias", 0.0)
        if labels is None:
            return score
        table = self.weights("projection")["embeddings"]
        rows = table[labels] / singular(table)
        return score + tf.reduce_sum(rows * features, 1, keepdims=True)


def repeated(x: Any) -> Any:
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def averaged(x: Any) -> Any:
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


def singular(kernel: Array) -> float:
    return float(np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0])


def shaken(network: keras.Model) -> keras.Model:
    """With other numbers in all biases, norms and statistics; every sigma as it ends."""
    random = np.random.default_rng(4)
    for variable in network.weights:
        if variable.name in ("bias", "beta", "betas", "moving_mean"):
            variable.assign(random.normal(0.0, 0.3, variable.shape))
        elif variable.name in ("gamma", "gammas", "moving_variance"):
            variable.assign(random.uniform(0.5, 2.0, variable.shape))
    for layer in network.layers:
        if hasattr(layer, "u"):
            kernel = layer.raw_kernel.numpy()
            layer.u.assign(np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[2][0])
    return network


def given(x: Any, labels: Any = None) -> Any:
    """Inputs of a network with or without classes."""
    return x if labels is None else [tf.convert_to_tensor(x), tf.constant(labels, tf.int64)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("size", "small", "num_classes"), [(32, False, 4), (64, False, 0), (128, True, 3)]
)
def test_the_generator_is_the_paper_s(
    size: int, small: bool, num_classes: int, training: bool
) -> None:
    network = shaken(sngan_generator(plan(size, small=small, num_classes=num_classes)))
    latents = tf.random.stateless_normal((3, 6), (1, 2))
    labels = np.array([2, 0, 2]) if num_classes else None
    expected = Written(network, training).generator(latents, labels)
    made = network(given(latents, labels), training=training)
    assert made.shape == (3, size, size, 3)
    assert float(tf.math.reduce_std(expected)) > 0.05
    np.testing.assert_allclose(made, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("size", "small", "num_classes"), [(32, False, 4), (64, False, 0), (128, True, 3)]
)
def test_the_discriminator_is_the_paper_s(size: int, small: bool, num_classes: int) -> None:
    network = shaken(sngan_discriminator(size, 2, 4, small, num_classes))
    images = tf.random.stateless_uniform((3, size, size, 2), (1, 2), -1.0, 1.0)
    labels = np.array([2, 0, 1]) if num_classes else None
    expected = Written(network).discriminator(images, labels)
    scores = network(given(images, labels), training=True)
    assert scores.shape == (3, 1)
    tolerance = 1e-5 * np.abs(expected).max()
    assert float(tf.math.reduce_std(expected)) > 20 * tolerance
    np.testing.assert_allclose(scores, expected, atol=tolerance)


def test_the_first_convolution_sees_the_picture_itself_and_later_ones_a_relu() -> None:
    network = sngan_discriminator(32, 1, 4)
    first = network.get_layer("block1_conv1").input
    assert first is network.input
    second = network.get_layer("block2_conv1").input
    assert float(tf.reduce_min(keras.Model(network.input, second)(-tf.ones((1, 32, 32, 1))))) >= 0


# Starting values ----------------------------------------------------------------------------------


def test_weights_start_as_glorot_has_them_in_blocks_times_the_root_of_two() -> None:
    networks = sngan_generator(plan(base=8)), sngan_discriminator(32, 3, 8, num_classes=5)
    seen = 0
    for network in networks:
        for layer in network.layers:
            for weight in layer.trainable_weights:
                if weight.name in ("kernel", "embeddings"):
                    seen += 1
                    gain = 2.0 if "conv" in layer.name and "head" not in layer.name else 1.0
                    values, area = weight.numpy(), np.prod(weight.shape[:-2])
                    limit = np.sqrt(6.0 * gain / (area * sum(weight.shape[-2:])))
                    assert np.abs(values).max() <= limit
                    if values.size > 50:  # of a few values the largest may be small
                        assert np.abs(values).max() > 0.9 * limit
                        assert values.std() == pytest.approx(limit / np.sqrt(3.0), rel=0.15)
                elif weight.name in ("bias", "beta", "betas"):
                    assert not weight.numpy().any()
    assert seen == (1 + 3 * 3 + 1) + (3 + 3 + 2 + 2 + 1 + 1)


def test_starting_weights_follow_the_seed_and_differ_between_layers() -> None:
    one, same, other = (sngan_generator(plan(), seed) for seed in (5, 5, 6))
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [w.numpy() for w in one.weights if w.name == "kernel"]
    others = [w.numpy() for w in other.weights if w.name == "kernel"]
    assert not any(np.array_equal(a, b) for a, b in zip(kernels, others, strict=True))
    assert len({float(kernel.ravel()[0]) for kernel in kernels}) == len(kernels)


def test_norms_have_the_constants_of_the_reference() -> None:
    network = sngan_generator(plan(num_classes=2))
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 7
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 2e-5)}
    conditional = [isinstance(norm, ConditionalBatchNormalization) for norm in norms]
    assert conditional == [True] * 6 + [False]  # the last is shared


# Classes, precision, copies -----------------------------------------------------------------------


def test_labels_choose_the_rows_and_the_projection_is_linear_in_them() -> None:
    network = shaken(sngan_discriminator(32, 1, 4, num_classes=3))
    images = tf.random.stateless_uniform((2, 32, 32, 1), (1, 2), -1.0, 1.0)
    scores = [np.asarray(network(given(images, [label] * 2))) for label in range(3)]
    assert not np.allclose(scores[0], scores[1], atol=1e-3)
    table, layer = network.get_layer("projection").embeddings, network.get_layer("projection")
    start, u = table.numpy(), layer.u.numpy()
    # Halves of two rows in place of the third; divided by the same sigma, so are the scores.
    sigma = float(layer.sigma())
    bare = np.asarray(network(given(images, [-1] * 2)))
    table.assign(np.stack([start[0], start[1], 0.3 * start[0] + 0.7 * start[1]]))
    np.testing.assert_array_equal(layer.u, u)
    mixed = np.asarray(network(given(images, [2] * 2))) - bare
    expected = 0.3 * (scores[0] - bare) + 0.7 * (scores[1] - bare)
    np.testing.assert_allclose(mixed * float(layer.sigma()), expected * sigma, atol=1e-3)


def test_only_the_label_s_scales_and_shifts_tell_pictures_of_one_latent_apart() -> None:
    network = sngan_generator(plan(num_classes=3))
    latents = tf.random.stateless_normal((1, 6), (1, 2))

    def picture(label: int) -> Array:
        return np.asarray(network(given(latents, [label]), training=False))

    np.testing.assert_array_equal(picture(0), picture(1))  # all begin as 1 and 0
    norm = network.get_layer("block2_norm1")
    norm.gammas.assign([[1.0] * 3, [2.0] * 3, [1.0] * 3])
    assert not np.allclose(picture(0), picture(1), atol=1e-3)
    np.testing.assert_array_equal(picture(0), picture(2))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_pictures_and_scores_are_float32_in_every_precision(policy: str, num_classes: int) -> None:
    generator = sngan_generator(plan(num_classes=num_classes, base=8))
    discriminator = sngan_discriminator(32, 3, 8, num_classes=num_classes)
    latents = 100.0 * tf.random.stateless_normal((4, 6), (1, 2))
    labels = [0, 1, 2, 0] if num_classes else None
    images = generator(given(latents, labels), training=True)
    scores = discriminator(given(images, labels), training=True)
    assert images.dtype == scores.dtype == tf.float32
    assert 0.0 < float(tf.reduce_max(tf.abs(images))) <= 1.0
    assert np.isfinite(scores).all()
    assert {v.dtype for v in generator.weights + discriminator.weights} == {"float32"}
    inner = generator.get_layer("block1_conv1")
    assert inner.compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("num_classes", [0, 3])
def test_copies_and_saved_weights_compute_the_same(num_classes: int, tmp_path: Path) -> None:
    labels = [1, 2] if num_classes else None
    latents = tf.random.stateless_normal((2, 6), (1, 2))
    images = tf.random.stateless_uniform((2, 32, 32, 3), (3, 2), -1.0, 1.0)
    cases = [
        (sngan_generator(plan(num_classes=num_classes), adapted=True), latents),
        (sngan_discriminator(32, 3, 4, num_classes=num_classes), images),
    ]
    for network, inputs in cases:
        shaken(network)
        expected = network(given(inputs, labels))
        clone = keras.models.clone_model(network)
        clone.set_weights(network.get_weights())
        np.testing.assert_array_equal(clone(given(inputs, labels)), expected)
        network.save_weights(tmp_path / "x.weights.h5")
        again = keras.models.clone_model(network)
        again.load_weights(tmp_path / "x.weights.h5")
        np.testing.assert_array_equal(again(given(inputs, labels)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_an_adapted_generator_begins_as_the_generator_to_the_bit(size: int) -> None:
    source = shaken(sngan_generator(plan(size)))
    adapted = sngan_generator(plan(size), seed=9, adapted=True)
    for layer in source.layers:
        adapted.get_layer(layer.name).set_weights(layer.get_weights())
    latents = tf.random.stateless_normal((2, 6), (1, 2))
    np.testing.assert_array_equal(adapted(latents), source(latents))
    blocks = len(plan(size).widths) - 1
    names = [f"block{number}_adapt{half}" for number in range(1, blocks + 1) for half in (1, 2)]
    found = [layer.name for layer in adapted.layers if isinstance(layer, ScaleShift)]
    assert found == ["project_adapt", *names]
    for name in found[1:]:  # after the norm, before the ReLU
        layer = adapted.get_layer(name)
        norm = adapted.get_layer(name.replace("adapt", "norm"))
        relu = adapted.get_layer(name.replace("adapt", "relu"))
        assert layer.input is norm.output
        assert relu.input is layer.output
