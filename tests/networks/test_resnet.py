"""Residual networks: published sizes, torchvision's alignment and weights, gates."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.layers.grouped_convolution import GroupedConv2D
from tfgan_med.networks import resnet
from tfgan_med.networks.resnet import TRUNKS, Trunk

Array = npt.NDArray[Any]


def trunk(kind: Trunk, side: int | None = None, **options: Any) -> keras.Model:
    pictures = keras.Input((side, side, 3))
    return keras.Model(pictures, resnet.residual_maps(kind, pictures, **options))


def count(variables: list[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "trainable", "every"),
    [
        ("resnet18", 11_176_512, 11_186_112),  # torchvision's 11 689 512 less its head
        ("se_resnet18", 11_265_592, 11_275_192),  # the larger ones: tests/downstream/test_fpn_se.py
    ],
)
def test_trunks_have_the_weights_of_the_references(kind: Trunk, trainable: int, every: int) -> None:
    network = trunk(kind)
    assert count(network.trainable_weights) == trainable
    assert count(network.weights) == every


@pytest.mark.parametrize("kind", TRUNKS)
def test_maps_have_strides_4_to_32_and_double_their_depth(kind: Trunk) -> None:
    network = trunk(kind, width=4)
    deep = 4 if kind in ("se_resnet50", "se_resnext50") else 1
    for height, width in ((64, 64), (128, 128), (256, 256), (96, 160)):
        for level, found in enumerate(network(tf.zeros((1, height, width, 3)))):
            stride, channels = 4 << level, (4 << level) * deep
            assert found.shape == (1, height // stride, width // stride, channels)


def test_the_small_stem_keeps_the_size() -> None:
    maps = trunk("resnet18", width=4, stem="small")(tf.zeros((1, 32, 32, 3)))
    assert [found.shape[1] for found in maps] == [32, 16, 8, 4]


def test_the_stride_is_where_the_references_have_it() -> None:
    def convolutions(kind: Trunk) -> list[Any]:
        network = trunk(kind, width=16)
        return [network.get_layer(f"layer2.0.conv{i}") for i in (1, 2)]

    assert [layer.strides[0] for layer in convolutions("se_resnet50")] == [2, 1]  # Caffe's way
    first, middle = convolutions("se_resnext50")
    assert (first.strides[0], middle.strides[0]) == (1, 2)
    assert (middle.groups, middle.filters) == (8, 64)  # a quarter of 32 groups and 256 filters
    assert isinstance(middle, GroupedConv2D)


def test_norms_have_the_constants_of_pytorch() -> None:
    norms = [n for n in trunk("se_resnet18", width=4).layers if "bn" in n.name]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}


# Alignment ----------------------------------------------------------------------------------------


def test_an_impulse_moves_by_whole_strides() -> None:
    """With the middle of each kernel alone, pixel 32 is on cell 8, 4, 2 and 1 of the maps; padding
    `same` would look at odd pixels."""
    network = trunk("resnet18", 64, width=4)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, np.float32)
            middle = kernel.shape[0] // 2
            kernel[middle, middle] = 1.0
            layer.kernel.assign(kernel)
    for at in (32, 0):
        picture = np.zeros((1, 64, 64, 3), np.float32)
        picture[0, at, at] = 1.0
        for level, found in enumerate(network(picture)):
            cell = at // (4 << level)
            assert np.argwhere(found[0, :, :, 0]).tolist() == [[cell, cell]]


# Gates --------------------------------------------------------------------------------------------


def gated(channels: int) -> keras.Model:
    x = keras.Input((4, 4, channels))
    return keras.Model(x, resnet.squeeze_excitation(x, 1, "gate"))


def test_a_gate_without_weights_halves() -> None:
    network = gated(32)
    network.set_weights([np.zeros_like(w) for w in network.get_weights()])
    x = tf.random.stateless_normal((2, 4, 4, 32), (1, 2))
    np.testing.assert_allclose(network(x), 0.5 * x, atol=1e-7)


def test_a_gate_is_one_number_for_each_channel_of_each_picture() -> None:
    x = tf.random.stateless_normal((2, 4, 4, 64), (1, 2)) + 1.0
    network = gated(64)
    first, first_bias, second, second_bias = network.get_weights()
    assert first.shape == (64, 4)  # a reduction of 16
    squeezed = np.maximum(np.mean(x, (1, 2)) @ first + first_bias, 0.0)
    gate = 1.0 / (1.0 + np.exp(-(squeezed @ second + second_bias)))
    np.testing.assert_allclose(network(x), x * gate[:, None, None], rtol=1e-5)
    assert gate.std() > 0.0


# Starting weights ---------------------------------------------------------------------------------


def test_convolutions_start_normal_by_fan_out_and_differ() -> None:
    network = trunk("resnet18", seed=5)
    one, other = (network.get_layer(f"layer3.{i}.conv2").kernel.numpy() for i in (0, 1))
    for kernel in (one, other):
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
        assert abs(kernel).max() > 3 * kernel.std()  # not truncated
    assert not np.allclose(one, other)


@pytest.mark.parametrize("kind", ["resnet18", "se_resnet18"])
def test_the_seed_alone_decides_the_starting_weights(kind: Trunk) -> None:
    one, same, other = (trunk(kind, width=4, seed=s).get_weights() for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    differ = [not np.array_equal(a, b) for a, b in zip(one, other, strict=True) if a.ndim == 4]
    assert all(differ)


def test_gradients_reach_every_weight() -> None:
    network = trunk("resnet18", 64, width=8)
    x = tf.random.stateless_normal((4, 64, 64, 3), (1, 2))
    with tf.GradientTape() as tape:
        maps = network(x, training=True)
        loss = tf.add_n([tf.reduce_sum(tf.sin(found)) for found in maps])
    gradients = tape.gradient(loss, network.trainable_variables)
    for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.abs(gradient).max() > 0.0, variable.path


# Pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_scaled_by_mean_and_deviation_of_imagenet(channels: int) -> None:
    pictures = keras.Input((2, 2, channels))
    network = keras.Model(pictures, resnet.imagenet_input(pictures))
    pixels = np.arange(4 * channels).reshape(1, 2, 2, channels) * 20.0
    expected = pixels / 255.0 - np.array([0.485, 0.456, 0.406])
    expected = expected / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(network(pixels / 127.5 - 1.0), expected, atol=1e-5)


# Weights of torchvision ---------------------------------------------------------------------------


def torchvision_state(width: int = 8, classes: int = 5) -> dict[str, Array]:
    """Random numbers under the names and shapes of torchvision's resnet18."""
    random = np.random.default_rng(0)
    state: dict[str, Array] = {}

    def convolution(name: str, outputs: int, inputs: int, size: int) -> None:
        shape = (outputs, inputs, size, size)
        state[f"{name}.weight"] = random.normal(0, 0.2, shape).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "running_var"):
            state[f"{name}.{part}"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
        for part in ("bias", "running_mean"):
            state[f"{name}.{part}"] = random.normal(0, 0.3, channels).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(7)

    convolution("conv1", width, 3, 7)
    norm("bn1", width)
    inputs = width
    for stage in range(4):
        outputs = width << stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            convolution(f"{name}.conv1", outputs, inputs, 3)
            norm(f"{name}.bn1", outputs)
            convolution(f"{name}.conv2", outputs, outputs, 3)
            norm(f"{name}.bn2", outputs)
            if inputs != outputs:
                convolution(f"{name}.downsample.0", outputs, inputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    state["fc.weight"] = random.normal(0, 0.2, (classes, inputs)).astype(np.float32)
    state["fc.bias"] = random.normal(0, 0.2, classes).astype(np.float32)
    return state


def torchvision_forward(state: dict[str, Array], x: tf.Tensor) -> tf.Tensor:
    """Logits as torchvision/models/resnet.py computes them, written out anew."""

    def convolution(x: tf.Tensor, name: str, stride: int, pad: int) -> tf.Tensor:
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        return tf.nn.conv2d(x, kernel, stride, "VALID")

    def norm(x: tf.Tensor, name: str) -> tf.Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scaled = (x - mean) / np.sqrt(variance + 1e-5)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = tf.nn.relu(norm(convolution(x, "conv1", 2, 3), "bn1"))
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    for stage in range(4):
        for block in range(2):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = tf.nn.relu(norm(convolution(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
            y = norm(convolution(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in state:
                shortcut = convolution(x, f"{name}.downsample.0", stride, 0)
                x = norm(shortcut, f"{name}.downsample.1")
            x = tf.nn.relu(x + y)
    return tf.reduce_mean(x, (1, 2)) @ state["fc.weight"].T + state["fc.bias"]


def with_head(width: int = 8, classes: int = 5) -> keras.Model:
    pictures = keras.Input((64, 64, 3))
    x = resnet.residual_maps("resnet18", pictures, width)[-1]
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pictures, keras.layers.Dense(classes, name="fc")(x))


def test_imported_weights_give_the_logits_of_torchvision() -> None:
    state, network = torchvision_state(), with_head()
    assert len(state) == 122  # as in the published file
    resnet.load_torchvision(network, state)
    x = tf.random.stateless_normal((2, 64, 64, 3), (1, 2))
    expected = torchvision_forward(state, x).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(network(x), expected, atol=1e-5 * abs(expected).max())


def test_a_head_for_other_classes_keeps_its_start() -> None:
    network = with_head(classes=2)
    before = network.get_layer("fc").get_weights()
    with pytest.raises(ValueError, match=r"fc.weight has the shape \(5, 64\)"):
        resnet.load_torchvision(network, torchvision_state())
    resnet.load_torchvision(network, torchvision_state(), optional=("fc",))
    after = network.get_layer("fc").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    loaded = network.get_layer("conv1").kernel
    np.testing.assert_array_equal(loaded, torchvision_state()["conv1.weight"].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("fault", ["absent", "shape", "finite"])
def test_a_state_that_does_not_fit_changes_nothing(fault: str) -> None:
    state, network = torchvision_state(), with_head()
    name = "layer4.1.bn2.running_mean"
    if fault == "absent":
        del state[name]
    elif fault == "shape":
        state[name] = state[name][:-1]
    else:
        state[name][0] = np.nan
    before = network.get_weights()
    with pytest.raises(ValueError, match=f"{name}.*{fault}"):
        resnet.load_torchvision(network, state)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
