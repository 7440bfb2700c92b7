"""VGG16 as a classifier: the thesis' sizes, the published weights, what is trained and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.config import as_yaml, resolve
from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.vgg16 import VGG16, VGG16Config
from tfgan_med.errors import DataError, MissingWeightsError, UserError
from tfgan_med.networks import vgg

CLASSES = ("abnormal", "normal")
Array = npt.NDArray[Any]


def problem(size: int = 32, channels: int = 3, **changes: Any) -> Problem:
    return Problem(size, channels, **{"classes": CLASSES, "positive": 0, **changes})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the published file."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.h5"
    generator = np.random.default_rng(0)
    before = 3
    with h5py.File(path, "w") as file:
        for block, (width, convolutions) in enumerate(vgg.BLOCKS, 1):
            for number in range(1, convolutions + 1):
                group = file.create_group(f"block{block}_conv{number}")
                kernel = generator.standard_normal((3, 3, before, width), np.float32)
                group["kernel:0"] = kernel / np.float32(np.sqrt(4.5 * before))
                group["bias:0"] = np.full(width, 0.1, np.float32)
                group.attrs["weight_names"] = ["kernel:0", "bias:0"]
                before = width
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> VGG16:
    """A frozen base at 32 px, as it was built; tests that train make their own."""
    return VGG16(VGG16Config(weights=weights), problem(), seed=1)


@pytest.fixture(scope="module")
def from_scratch() -> VGG16:
    return VGG16(VGG16Config(weights="none"), problem(channels=1), seed=1)


def pictures(count: int, size: int = 32, channels: int = 3) -> Array:
    """Pixels of 8 bits, as files hold them, in [-1, 1]."""
    drawn = np.random.default_rng(5).integers(0, 256, (count, size, size, channels))
    return (drawn / 127.5 - 1.0).astype(np.float32)


def count(variables: list[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    ("head", "trainable", "every"),
    [("sigmoid", 1_537, 14_717_249), ("softmax", 2_050, 14_717_762)],
)
def test_the_head_alone_is_trained_and_has_the_weights_of_the_thesis(
    head: str, trainable: int, every: int, weights: Path
) -> None:
    network = VGG16(VGG16Config(weights=weights, head=head), problem(64, 1)).network
    assert count(network.trainable_weights) == trainable
    assert count(network.weights) == every
    assert network.output_shape == (None, 1 if head == "sigmoid" else 2)


def test_a_base_that_begins_at_random_is_trained_and_said(from_scratch: VGG16) -> None:
    network = from_scratch.network
    assert count(network.trainable_weights) == 14_714_688 + 1_537
    assert not from_scratch.frozen_features
    assert from_scratch.weights_used == "none"
    assert any("no transfer from ImageNet" in notice for notice in from_scratch.notices)


def test_random_maps_keep_the_size_of_the_pixels(from_scratch: VGG16) -> None:
    """He's start; Glorot's would make them about a hundred times smaller."""
    images = pictures(4, 32, 1)
    pixels = keras.Model(
        from_scratch.network.input, from_scratch.network.get_layer("pixels").output
    )
    size = float(tf.math.reduce_std(pixels(images)))
    assert 0.3 < from_scratch.feature_maps(images).std() / size < 3.0


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_are_those_of_keras_applications_on_its_own_preprocessing(
    channels: int, weights: Path
) -> None:
    ours = VGG16(VGG16Config(weights=weights), problem(64, channels))
    theirs = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3))
    with h5py.File(weights) as file:
        for layer in theirs.layers:
            if layer.weights:
                layer.set_weights([file[layer.name]["kernel:0"], file[layer.name]["bias:0"]])
    images = pictures(2, 64, channels)
    colors = np.repeat(127.5 * (images + 1.0), 3 // channels, axis=-1)
    pixels = keras.applications.vgg16.preprocess_input(colors)  # which writes into its argument
    expected = theirs(pixels).numpy()
    assert expected.max() > 10.0
    np.testing.assert_allclose(
        ours.feature_maps(images), expected, rtol=1e-3, atol=1e-4 * expected.max()
    )


def test_rescaled_pixels_are_those_of_the_thesis_and_doubtful(weights: Path) -> None:
    model = VGG16(VGG16Config(weights=weights, preprocessing="rescale"), problem())
    pixels = keras.Model(model.network.input, model.network.get_layer("pixels").output)
    images = pictures(2)
    np.testing.assert_allclose(pixels(images), (images + 1.0) * 127.5 / 255.0, atol=1e-6)
    assert any("repeating the thesis" in notice for notice in model.notices)
    with h5py.File(weights) as file:
        first = file["block1_conv1"]["kernel:0"][()]
    np.testing.assert_array_equal(model.first_layer().get_weights()[0], first)


def test_weights_that_are_not_there_are_answered_with_the_ways_to_get_them() -> None:
    with pytest.raises(MissingWeightsError) as caught:
        VGG16(VGG16Config(), problem())
    message = str(caught.value)
    assert "weights import vgg16 --download" in message
    assert "--set model.weights=FILE" in message
    assert "--set model.weights=none" in message
    assert caught.value.weights == "vgg16"
    with pytest.raises(UserError, match="no such file"):
        VGG16(VGG16Config(weights=Path("elsewhere.h5")), problem())


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file.create_group("block1_conv1").attrs["weight_names"] = []
    with pytest.raises(DataError, match="does not hold VGG16.*block1_conv1"):
        VGG16(VGG16Config(weights=path), problem())


def test_the_word_none_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(VGG16Config, [], ["weights=none"]).weights == "none"
    assert resolve(VGG16Config, [], ["weights=null"]).weights is None
    assert resolve(VGG16Config, [], ["weights=a.h5"]).weights == tmp_path / "a.h5"
    text = as_yaml(VGG16Config(weights="none"), relative_to=tmp_path / "runs")
    assert "weights: none\n" in text


@pytest.mark.parametrize(
    ("changes", "about", "message"),
    [
        ({}, {"image_size": 16}, "image_size is 16.*at least 32"),
        ({}, {"channels": 4}, "4 channels.*with_masks=false"),
        ({"unfreeze": 6}, {}, "unfreeze is 6.*5 blocks"),
    ],
)
def test_what_it_cannot_do_is_refused(
    changes: dict[str, Any], about: dict[str, int], message: str
) -> None:
    settings = {"image_size": 32, "channels": 3, **about}
    with pytest.raises(UserError, match=message):
        VGG16(VGG16Config(weights="none", **changes), problem(*settings.values()))


def test_unfrozen_blocks_are_the_last_ones(weights: Path) -> None:
    model = VGG16(VGG16Config(weights=weights, unfreeze=2), problem())
    trained = {variable.path.split("/")[0] for variable in model.network.trainable_weights}
    names = [f"block{block}_conv{number}" for block in (4, 5) for number in (1, 2, 3)]
    assert trained == {*names, "norm", "logits"}
    assert not model.frozen_features


def test_a_step_leaves_the_frozen_base_and_moves_all_of_the_head(weights: Path) -> None:
    model = VGG16(VGG16Config(weights=weights), problem(), seed=1)
    before = {variable.path: np.array(variable) for variable in model.network.weights}
    batch = {"images": tf.constant(pictures(4)), "labels": tf.constant([0, 1, 1, 0])}
    for _ in range(2):
        model.train_step(batch)
    moved = {
        variable.path
        for variable in model.network.weights
        if not np.array_equal(before[variable.path], variable)
    }
    assert moved == {
        *(f"norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")),
        "logits/kernel",
        "logits/bias",
    }


def test_every_weight_of_an_unfrozen_network_gets_a_gradient() -> None:
    model = VGG16(VGG16Config(weights="none"), problem(channels=1), seed=1)
    with tf.GradientTape() as tape:
        logits = model.network(pictures(4, 32, 1), training=True)
        loss = model.losses_of({"labels": tf.constant([0, 1, 1, 0])}, logits)["classification"]
    gradients = tape.gradient(loss, model.network.trainable_variables)
    assert len(gradients) == 2 * 13 + 4
    # The bias of the last convolution only shifts what batch norm centres, up to the ReLU.
    assert all(float(tf.reduce_max(tf.abs(gradient))) > 0 for gradient in gradients)


def test_a_saved_network_is_read_without_code_of_ours(model: VGG16, tmp_path: Path) -> None:
    model.network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    kinds = {type(layer).__module__.split(".")[0] for layer in loaded.layers}
    assert kinds == {"keras"}
    images = pictures(3)
    np.testing.assert_allclose(loaded(images), model.network(images), atol=1e-6)
    assert loaded.get_layer("features").output.shape == (None, 512)
    assert count(loaded.trainable_weights) == 1_537


def test_one_seed_is_one_start(from_scratch: VGG16) -> None:
    again, other = (
        VGG16(VGG16Config(weights="none"), problem(channels=1), seed=seed) for seed in (1, 2)
    )
    for name in ("block1_conv1", "block5_conv3", "logits"):
        kernels = [m.network.get_layer(name).get_weights()[0] for m in (from_scratch, again, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])
