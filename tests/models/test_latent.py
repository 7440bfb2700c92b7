"""Samples from latents: whose weights, whose statistics, and what looking at them leaves alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.layers.normalization import recalibrate
from tfgan_med.models._latent import CALIBRATION_BATCH, LatentModel


class Scaled(LatentModel):
    """A picture of one pixel per latent number: batch norm of twice the latents."""

    def __init__(self, as_list: bool = False) -> None:
        super().__init__(["loss"])
        self.latent_size = 4
        latents = keras.Input((4,))
        x = keras.layers.Dense(4, use_bias=False, name="dense")(latents)
        x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(x)
        image = keras.layers.Reshape((2, 2, 1))(x)
        small = keras.layers.Reshape((1, 2, 2))(x)
        outputs = [image, small] if as_list else image
        self.generator = keras.Model(latents, outputs, name="generator")
        self.networks = {"generator": self.generator}
        self.finish()
        self.scale_by(2.0)

    def scale_by(self, factor: float) -> None:
        self.generator.get_layer("dense").set_weights([factor * np.eye(4, dtype="float32")])


def latents(count: int = 64) -> tf.Tensor:
    return tf.random.stateless_normal((count, 4), (8, 9))


def test_samples_before_they_are_prepared_are_refused() -> None:
    with pytest.raises(ValueError, match="prepare_samples"):
        Scaled().sample(latents())


def test_a_sample_is_normalized_by_averages_over_all_latents() -> None:
    model = Scaled()
    model.prepare_samples(100)
    # 2 z has mean 0 and variance 4 over all latents, so the norm gives z back; the means of 6400
    # draws stray by 1 / 80, and a batch of 64 has 63 / 64 of the variance.
    expected = tf.reshape(latents(), (-1, 2, 2, 1))
    np.testing.assert_allclose(model.sample(latents()), expected, rtol=0.05, atol=0.06)


@pytest.mark.parametrize("count", [1, 3])
def test_a_sample_does_not_see_its_neighbors(count: int) -> None:
    model = Scaled()
    model.prepare_samples(3)
    together = model.sample(latents())[:count]
    np.testing.assert_allclose(model.sample(latents()[:count]), together, atol=1e-4)
    in_training = model.generator(latents(3), training=True)
    assert np.abs(in_training[:1] - together[:1]).max() > 0.1


def test_samples_follow_the_weights_only_when_prepared_again() -> None:
    model = Scaled()
    model.generator.get_layer("norm").gamma.assign(tf.ones(4))
    model.prepare_samples(3)
    before = model.sample(latents()).numpy()
    model.generator.get_layer("norm").gamma.assign(3.0 * tf.ones(4))
    np.testing.assert_array_equal(model.sample(latents()), before)
    model.prepare_samples(3)
    np.testing.assert_allclose(model.sample(latents()), 3.0 * before, atol=1e-5)


def test_looking_at_samples_changes_nothing_of_the_run() -> None:
    model = Scaled()
    before = {name: variable.numpy() for name, variable in model.state().items()}
    model.prepare_samples(3)
    model.sample(latents())
    assert model.state().keys() == before.keys()
    for name, variable in model.state().items():
        np.testing.assert_array_equal(variable.numpy(), before[name], err_msg=name)


def test_samples_are_the_same_each_time_they_are_prepared() -> None:
    model = Scaled()
    model.prepare_samples(3)
    once = model.sample(latents()).numpy()
    model.prepare_samples(3)
    np.testing.assert_array_equal(model.sample(latents()), once)


def test_samples_are_those_of_the_average_where_one_is_kept() -> None:
    model = Scaled()
    model.keep_average(model.generator)
    model.average("generator").get_layer("norm").beta.assign(5.0 * tf.ones(4))
    model.prepare_samples(3)
    assert float(tf.reduce_mean(model.sample(latents()))) == pytest.approx(5.0, abs=0.3)


def test_the_first_of_several_pictures_is_the_sample() -> None:
    model = Scaled(as_list=True)
    model.prepare_samples(3)
    assert model.sample(latents(5)).shape == (5, 2, 2, 1)


def test_the_prepared_copy_is_returned_with_its_statistics() -> None:
    model = Scaled()
    copy = model.prepare_samples(50)
    assert copy is not model.generator
    np.testing.assert_allclose(copy.get_layer("norm").moving_variance, 4.0, rtol=0.1)
    assert CALIBRATION_BATCH == 64


# Recalibration ------------------------------------------------------------------------------------


def normalizer(**options: Any) -> keras.Model:
    return keras.Sequential(
        [keras.Input((2,)), keras.layers.BatchNormalization(momentum=0.9, **options)]
    )


def test_statistics_become_the_means_over_the_batches() -> None:
    network = normalizer()
    batches = [
        np.array([[0.0, 1.0], [2.0, 1.0]], "float32"),  # means 1, 1; variances 1, 0
        np.array([[4.0, 0.0], [10.0, 4.0]], "float32"),  # means 7, 2; variances 9, 4
    ]
    recalibrate(network, batches)
    np.testing.assert_allclose(network.layers[0].moving_mean, [4.0, 1.5], rtol=1e-6)
    np.testing.assert_allclose(network.layers[0].moving_variance, [5.0, 2.0], rtol=1e-6)
    assert network.layers[0].momentum == 0.9


def test_old_statistics_do_not_matter_and_weights_stay() -> None:
    network, batch = normalizer(), np.array([[0.0, 1.0], [2.0, 5.0]], "float32")
    network.set_weights([np.array(v) for v in ([2, 3], [4, 5], [1e6, 1e6], [1e9, 1e9])])
    recalibrate(network, [batch])
    gamma, beta, mean, variance = network.get_weights()
    np.testing.assert_array_equal([gamma, beta], [[2.0, 3.0], [4.0, 5.0]])
    np.testing.assert_allclose([mean, variance], [[1.0, 3.0], [1.0, 4.0]], rtol=1e-6)


def test_norms_of_networks_within_are_found() -> None:
    inside = normalizer()
    outside = keras.Sequential([keras.Input((2,)), inside])
    recalibrate(outside, [np.array([[0.0, 1.0], [2.0, 5.0]], "float32")])
    np.testing.assert_allclose(inside.layers[0].moving_mean, [1.0, 3.0], rtol=1e-6)


def test_momentum_is_put_back_after_a_failure() -> None:
    network = normalizer()
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(network, [])
    assert network.layers[0].momentum == 0.9


def test_a_network_without_batch_norm_needs_no_batches() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    before = network.get_weights()
    recalibrate(network, [])
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
