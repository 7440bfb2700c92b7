"""The Pix2Pix generator as a segmenter: the thesis' counts, logits, what inference leaves out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.pix2pix_segmenter import (
    Pix2PixSegmenter,
    Pix2PixSegmenterConfig,
    pix2pix_segmenter,
)
from tfgan_med.networks.unet import unet_generator


@pytest.mark.parametrize(
    ("size", "trained"), [(128, 41_824_897), (256, 54_409_857), (100, 41_824_897)]
)
def test_numbers_of_weights(size: int, trained: int) -> None:
    network = pix2pix_segmenter(size, 3, 1)
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == trained
    assert network.output_shape == (None, size, size, 1)


@pytest.mark.parametrize("size", [16, 48, 64, 96, 128, 256, 300])
def test_any_size_from_16_is_mirrored_to_one_that_can_be_halved(size: int) -> None:
    network = pix2pix_segmenter(size, 1, 2, base=2)
    assert network(tf.zeros((1, size, size, 1))).shape == (1, size, size, 2)
    with pytest.raises(ValueError, match="at least 16"):
        pix2pix_segmenter(15, 1, 1, base=2)


def test_the_map_is_the_generators_before_its_tanh() -> None:
    options = {"base": 4, "norm": "batch", "seed": 5, "name": "pix2pix_segmenter"}
    picture = unet_generator(64, 1, 1, **options)  # type: ignore[arg-type]
    logits = pix2pix_segmenter(64, 1, 1, base=4, seed=5)
    x = tf.random.stateless_normal((2, 64, 64, 1), (1, 2))
    np.testing.assert_allclose(np.tanh(logits(x)), picture(x), atol=1e-6)


def test_inference_uses_moving_statistics_and_no_dropout() -> None:
    problem = Problem(64, 1, ("lesion",), exclusive=False)
    model = Pix2PixSegmenter(Pix2PixSegmenterConfig(base=4, dropout=0.5), problem)
    rates = [x.rate for x in model.network.layers if isinstance(x, keras.layers.Dropout)]
    assert rates == [0.5]
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 1)).astype(np.float32)
    before = model.probabilities(images)
    np.testing.assert_allclose(model.probabilities(images[:1]), before[:1], atol=1e-6)
    for weight in model.network.non_trainable_weights:
        if weight.name == "moving_variance":
            weight.assign(weight * 1e-3)
    assert np.abs(model.probabilities(images) - before).max() > 0.01
