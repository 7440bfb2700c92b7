"""FCN-8s: counts, streams, interpolation, weights from a file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.fcn8s import FCN8s, FCN8sConfig
from tfgan_med.errors import DataError, MissingWeightsError
from tfgan_med.layers.upsampling import Bilinear
from tfgan_med.networks.fcn import fcn8s
from tfgan_med.networks.vgg import BLOCKS

INTERPOLATIONS = 4 * 4 + 4 * 4 + 16 * 16  # weights for each pair of outputs


@pytest.mark.parametrize(
    ("outputs", "features", "every"),
    [(1, 512, 27_824_483), (1, 1024, 41_457_507), (2, 512, 27_824_483 + 3 * INTERPOLATIONS + 1283)],
)
def test_numbers_of_weights(outputs: int, features: int, every: int) -> None:
    network = fcn8s((64, 64), 3, outputs, features=features, trainable_upsampling=True)
    assert network.count_params() == every
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == every


@pytest.mark.slow  # half a gigabyte each
@pytest.mark.parametrize(
    ("outputs", "every"), [(1, 134_265_699), (2, 134_271_430), (21, 134_489_759)]
)
def test_numbers_of_weights_of_the_papers_width(outputs: int, every: int) -> None:
    assert fcn8s((64, 64), 3, outputs, features=4096).count_params() == every


def test_interpolation_is_fixed_unless_asked_for() -> None:
    network = fcn8s((64, 64), 3, 1, features=8, base=4)
    fixed = [weight for weight in network.non_trainable_weights if weight.name == "kernel"]
    assert sum(int(np.prod(weight.shape)) for weight in fixed) == INTERPOLATIONS


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (256, 256), (96, 160), (70, 100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_map_has_the_size_of_the_picture(size: tuple[int, int], channels: int) -> None:
    network = fcn8s(size, channels, 2, features=4, base=2)
    assert network(tf.zeros((1, *size, channels))).shape == (1, *size, 2)


def test_a_bilinear_kernel_by_hand() -> None:
    ramp = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.asarray(Bilinear()((4, 4, 2, 2)))
    np.testing.assert_allclose(kernel[:, :, 0, 0], np.outer(ramp, ramp))
    np.testing.assert_array_equal(kernel[:, :, 0, 1], 0.0)
    odd = np.asarray(Bilinear()((3, 3, 1, 1)))[:, :, 0, 0]
    np.testing.assert_allclose(odd, np.outer([0.5, 1.0, 0.5], [0.5, 1.0, 0.5]))


def test_interpolation_keeps_a_constant_map_away_from_the_border() -> None:
    """Each stride's own bias, 3 + 5 + 7, sums up in the middle of the largest map."""
    network = fcn8s((256, 256), 3, 1, features=4, base=2)
    for name, value in (("score", 3.0), ("score_pool4", 5.0), ("score_pool3", 7.0)):
        network.get_layer(name).bias.assign([value])
    logits = network(tf.zeros((1, 256, 256, 3))).numpy()[0, ..., 0]
    np.testing.assert_allclose(logits[48:-48, 48:-48], 15.0, rtol=1e-6)
    assert logits[0, 0] < 14.0


def test_scores_begin_at_zero() -> None:
    network = fcn8s((64, 64), 3, 1, features=8, base=4)
    assert float(tf.reduce_max(tf.abs(network(tf.ones((1, 64, 64, 3)))))) == 0.0


def vgg16_file(path: Path) -> Path:
    """A file laid out as Keras publishes VGG16, with small random weights."""
    rng, channels = np.random.default_rng(0), 3
    with h5py.File(path, "w") as file:
        for block, (width, convs) in enumerate(BLOCKS, 1):
            for conv in range(1, convs + 1):
                name = f"block{block}_conv{conv}"
                scale = np.sqrt(2 / (9 * channels))
                kernel = rng.normal(0, scale, (3, 3, channels, width)).astype(np.float32)
                group = file.create_group(name)
                group["kernel"], group["bias"] = kernel, np.zeros(width, np.float32)
                group.attrs["weight_names"] = ["kernel", "bias"]
                channels = width
    return path


def test_weights_from_a_file_want_caffe_pixels_and_damped_streams(tmp_path: Path) -> None:
    path = vgg16_file(tmp_path / "vgg.h5")
    network = fcn8s((32, 32), 3, 1, features=4, weights=path)
    with h5py.File(path) as file:
        kernel = np.asarray(file["block1_conv1/kernel"])
    first = network.get_layer("block1_conv1")
    np.testing.assert_array_equal(first.kernel.numpy(), kernel)
    scales = {name: network.get_layer(f"pool{name}_scaled").scale for name in (4, 3)}
    assert scales == {4: 0.01, 3: 0.0001}

    import keras

    middle = keras.Model(network.input, first.output)
    red = np.zeros((1, 32, 32, 3), np.float32)
    red[..., 0] = 1.0  # 255 in the red channel, 127.5 in the others
    pixel = np.array([127.5 - 103.939, 127.5 - 116.779, 255.0 - 123.68])
    expected = np.maximum(np.einsum("hwio,i->o", kernel, pixel), 0.0)
    np.testing.assert_allclose(middle(red).numpy()[0, 16, 16], expected, rtol=1e-3, atol=1e-2)


def test_without_weights_streams_are_not_damped() -> None:
    network = fcn8s((32, 32), 3, 1, features=4, base=2)
    assert network.get_layer("pool3_scaled").scale == 1.0


def test_weights_that_are_missing_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    problem = Problem(32, 3, ("cell",), exclusive=False)
    with pytest.raises(MissingWeightsError, match="model.weights=none"):
        FCN8s(FCN8sConfig(features=4), problem)
    path = vgg16_file(tmp_path / "vgg.h5")
    with pytest.raises(ValueError, match="base 64, received 8"):
        FCN8s(FCN8sConfig(features=4, base=8, weights=path), problem)
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match="HDF5"):
        FCN8s(FCN8sConfig(features=4, weights=path), problem)


def test_the_source_of_the_weights_is_told(tmp_path: Path) -> None:
    problem = Problem(32, 1, ("cell",), exclusive=False)
    path = vgg16_file(tmp_path / "mine.h5")
    assert FCN8s(FCN8sConfig(features=4, weights=path), problem).weights_used == "mine.h5"
    narrow = FCN8sConfig(features=4, base=2, weights="none")
    assert FCN8s(narrow, problem).weights_used == "none"


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 16.*at least 32"):
        fcn8s((16, 16), 3, 1)
