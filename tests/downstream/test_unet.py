"""U-Net: the paper's counts and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.unet import UNet, UNetConfig, unet


def trainable(model: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(
    ("base", "channels", "outputs", "norm", "trained", "every"),
    [
        (64, 3, 1, "batch", 31_037_633, 31_049_409),
        (64, 3, 1, "none", 31_031_745, 31_031_745),
        (64, 1, 2, "none", 31_030_658, 31_030_658),  # the paper's own
        (32, 3, 1, "batch", 7_763_041, 7_768_929),
        (32, 1, 1, "batch", 7_762_465, 7_768_353),
        (16, 3, 1, "batch", 1_942_577, 1_945_521),
    ],
)
def test_numbers_of_weights(
    base: int, channels: int, outputs: int, norm: Any, trained: int, every: int
) -> None:
    network = unet((64, 64), channels, outputs, base=base, norm=norm)
    assert (trainable(network), network.count_params()) == (trained, every)


def test_nearest_upsampling_has_nine_instead_of_four_weights_for_each_pair_of_channels() -> None:
    nearest = trainable(unet((64, 64), 1, 1, base=8, upsample="nearest"))
    pairs = sum(2 * width * width for width in (8, 16, 32, 64))
    assert nearest - trainable(unet((64, 64), 1, 1, base=8)) == 5 * pairs


@pytest.mark.parametrize(
    "size", [(64, 64), (128, 128), (256, 256), (96, 160), (100, 75), (16, 16), (17, 31)]
)
@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_the_map_has_the_size_of_the_picture(size: tuple[int, int], upsample: Any) -> None:
    network = unet(size, 3, 2, base=2, upsample=upsample)
    assert network(tf.zeros((1, *size, 3))).shape == (1, *size, 2)


def test_levels_halve_and_double_their_width() -> None:
    network = unet((64, 64), 3, 1, base=4)
    for level in range(4):
        shape = (None, 64 >> level, 64 >> level, 4 << level)
        assert network.get_layer(f"down{level}_second_relu").output.shape == shape
        assert network.get_layer(f"up{level}_second_relu").output.shape == shape
    assert network.get_layer("bottom_second_relu").output.shape == (None, 4, 4, 64)


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 8.*at least 16"):
        unet((8, 8), 1, 1)


def test_dropout_after_the_lowest_level_acts_in_training_only() -> None:
    network = unet((32, 32), 1, 1, base=4, norm="none", dropout=0.5)
    x = tf.random.stateless_normal((1, 32, 32, 1), (1, 2))
    assert np.abs(network(x, training=True) - network(x, training=True)).max() > 1e-4
    np.testing.assert_array_equal(network(x, training=False), network(x, training=False))


def test_exclusive_classes_share_each_pixel() -> None:
    problem = Problem(32, 1, ("background", "nucleus", "gland"))
    model = UNet(UNetConfig(base=2), problem)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1))
    labels = np.random.default_rng(1).integers(0, 3, (2, 32, 32))
    masks = tf.one_hot(labels, 3)
    losses = model.train_step({"images": tf.constant(images, tf.float32), "masks": masks})
    assert set(losses) == {"loss", "dice", "cross_entropy"}
    np.testing.assert_allclose(model.probabilities(images).sum(axis=-1), 1.0, atol=1e-5)


def test_of_two_exclusive_classes_the_positive_one_is_asked_for() -> None:
    """One logit: the loss of a two-class map is that of its positive mask alone."""
    problem = Problem(32, 1, ("background", "lesion"), positive=1)
    model = UNet(UNetConfig(base=2), problem)
    masks = tf.one_hot(np.random.default_rng(1).integers(0, 2, (2, 32, 32)), 2)
    logits = tf.random.stateless_normal((2, 32, 32, 1), (3, 4))
    one = UNet(UNetConfig(base=2), Problem(32, 1, ("lesion",), exclusive=False))
    expected = one.losses_of({"masks": masks[..., 1:]}, logits)
    found = model.losses_of({"masks": masks}, logits)
    assert {k: float(v) for k, v in found.items()} == {k: float(v) for k, v in expected.items()}
    believed = model.probabilities(np.zeros((1, 32, 32, 1)))
    assert believed.shape == (1, 32, 32, 2)


def test_the_rate_halves_after_evaluations_without_gain() -> None:
    model = UNet(UNetConfig(base=2, plateau=2), Problem(16, 1, ("cell",), exclusive=False))
    for improved in (True, False, False):
        model.after_evaluation(improved)
    assert model.learning_rates()["network"] == pytest.approx(5e-4)
