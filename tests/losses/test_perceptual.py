from pathlib import Path

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from tfgan_med.errors import DataError, UserError
from tfgan_med.losses.perceptual import PerceptualLoss
from tfgan_med.networks.vgg import LAYERS, caffe_pixels, vgg16_features

TWO = ("block1_conv2", "block2_conv2")


@pytest.fixture(scope="session")
def application() -> keras.Model:
    """Keras' own VGG16 with seeded weights (He scale; biases too, so that they are tested)."""
    model = keras.applications.VGG16(weights=None, include_top=False)
    random = np.random.default_rng(16)
    for layer in model.layers:
        layer.set_weights(
            [
                random.normal(0, np.sqrt(2 / np.prod(weight.shape[:3])), weight.shape)
                if weight.ndim == 4
                else random.normal(0, 1, weight.shape)
                for weight in layer.get_weights()
            ]
        )
    return model


@pytest.fixture(scope="session")
def weights(application: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the format in which Keras publishes VGG16."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16_notop.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, application)
    return path


def pictures(count: int, channels: int = 3, seed: int = 0) -> npt.NDArray[np.float32]:
    shape = (count, 32, 32, channels)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_pixels_are_those_of_keras_preprocessing() -> None:
    images = pictures(2)
    expected = keras.applications.vgg16.preprocess_input(127.5 * (images + 1.0))
    np.testing.assert_allclose(caffe_pixels(images), expected, atol=1e-4)


def test_gray_is_repeated_and_other_channels_are_refused() -> None:
    gray = pictures(1, channels=1)
    np.testing.assert_array_equal(caffe_pixels(gray), caffe_pixels(np.repeat(gray, 3, axis=-1)))
    with pytest.raises(ValueError, match="received 4 channels"):
        caffe_pixels(pictures(1, channels=4))


def test_every_tap_equals_the_layer_of_the_application(
    application: keras.Model, weights: Path
) -> None:
    x = caffe_pixels(pictures(2))
    network = vgg16_features(LAYERS, weights)
    expected = keras.Model(application.inputs, [application.get_layer(n).output for n in LAYERS])(x)
    for ours, theirs in zip(network(x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_the_network_is_frozen_and_ends_at_its_last_tap(weights: Path) -> None:
    network = vgg16_features(TWO, weights)
    assert network.trainable_weights == []
    assert network.layers[-1].name == "block2_conv2"
    shapes = [tuple(feature.shape) for feature in network(caffe_pixels(pictures(1)))]
    assert shapes == [(1, 32, 32, 64), (1, 16, 16, 128)]


def test_mixed_precision_changes_nothing(weights: Path) -> None:
    target, fake = pictures(1, seed=1), pictures(1, seed=2)
    expected = PerceptualLoss(TWO, feature_scale="raw", weights_file=weights)(target, fake)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loss = PerceptualLoss(TWO, feature_scale="raw", weights_file=weights)
        assert float(loss(target, fake)) == pytest.approx(float(expected), rel=1e-6)
        assert loss(target, fake).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(before)


def test_raw_loss_is_the_weighted_mean_of_feature_distances(
    application: keras.Model, weights: Path
) -> None:
    target, fake = pictures(2, seed=1), pictures(2, seed=2)
    taps = keras.Model(application.inputs, [application.get_layer(n).output for n in TWO])
    wanted, given = taps(caffe_pixels(target)), taps(caffe_pixels(fake))
    distances = [float(np.abs(w - g).mean()) for w, g in zip(wanted, given, strict=True)]
    expected = (100 * distances[0] + 200 * distances[1]) / 2

    loss = PerceptualLoss(TWO, feature_scale="raw", weights_file=weights)
    assert float(loss(target, fake)) == pytest.approx(expected, rel=1e-4)
    assert float(loss(target, target)) == 0.0


def test_unit_scale_is_the_mean_feature_of_the_first_64_real_images(
    application: keras.Model, weights: Path
) -> None:
    real = np.concatenate([pictures(64), np.ones((6, 32, 32, 3), np.float32)])
    taps = keras.Model(application.inputs, [application.get_layer(n).output for n in TWO])
    scales = [float(np.mean(feature)) for feature in taps(caffe_pixels(real[:64]))]

    loss = PerceptualLoss(TWO, weights_file=weights)
    assert not loss.calibrated
    assert np.isnan(float(loss(real[:1], real[1:2])))
    loss.calibrate(real)
    assert loss.calibrated
    np.testing.assert_allclose(loss.feature_scales, scales, rtol=1e-4)

    raw = PerceptualLoss(TWO, (1 / scales[0], 1 / scales[1]), "raw", weights)
    fake = pictures(1, seed=9)
    assert float(loss(real[:1], fake)) == pytest.approx(float(raw(real[:1], fake)), rel=1e-4)


def test_brightness_of_weights_does_not_matter_to_the_unit_loss(weights: Path) -> None:
    """A loss of independent noise is of order 1, whatever the size of the features."""
    loss = PerceptualLoss(TWO, weights_file=weights)
    loss.calibrate(pictures(4))
    assert 0.1 < float(loss(pictures(1, seed=1), pictures(1, seed=2))) < 2.0


def test_gradients_reach_the_generated_image_only(weights: Path) -> None:
    loss = PerceptualLoss(("block1_conv2",), feature_scale="raw", weights_file=weights)
    target, fake = tf.constant(pictures(1, seed=1)), tf.constant(pictures(1, seed=2))
    with tf.GradientTape() as tape:
        tape.watch([target, fake])
        value = loss(target, fake)
    to_target, to_fake = tape.gradient(value, [target, fake])
    assert to_target is None
    assert np.abs(to_fake).max() > 0
    assert value.dtype == tf.float32


def test_silent_features_and_no_images_stop_the_calibration(weights: Path) -> None:
    loss = PerceptualLoss(("block1_conv1",), weights_file=weights)
    with pytest.raises(ValueError, match="at least one real image"):
        loss.calibrate(pictures(0))
    loss.network.get_layer("block1_conv1").bias.assign(np.full(64, -1e6))
    with pytest.raises(ValueError, match="block1_conv1 is 0"):
        loss.calibrate(pictures(2))


def test_wrong_settings_are_refused(weights: Path) -> None:
    with pytest.raises(UserError, match=r'no layer "relu1_2".*block1_conv2'):
        PerceptualLoss(("relu1_2",), weights_file=weights)
    with pytest.raises(UserError, match="2 layers and 3 lambdas"):
        PerceptualLoss(TWO, (1, 2, 3), weights_file=weights)
    with pytest.raises(UserError, match='expected "unit" or "raw"'):
        PerceptualLoss(TWO, feature_scale="one", weights_file=weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one shape"):
        loss = PerceptualLoss(("block1_conv1",), feature_scale="raw", weights_file=weights)
        loss(pictures(1), pictures(1, channels=1))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "weights.h5"
    text.write_text("not a network")
    with pytest.raises(DataError, match="cannot be read as an HDF5 file"):
        vgg16_features(TWO, text)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file.create_group("dense").attrs["weight_names"] = []
    with pytest.raises(DataError, match="layer block1_conv1 has arrays of shape"):
        vgg16_features(TWO, other)
