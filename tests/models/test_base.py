"""The optimizer step, the running means and the schedule, against closed forms."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.learning.optimizers import ConstantThenLinear, FusedAdam
from tfgan_med.models.base import GenerativeModel


class Quadratic(GenerativeModel):
    """One weight vector w, loss mean((w - batch)^2): the gradient is 2 (w - mean batch) / size."""

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(["loss"])
        inputs = keras.Input((1,))
        dense = keras.layers.Dense(3, use_bias=False, dtype="float32")
        self.network = keras.Model(inputs, dense(inputs), name="network")
        self.network.set_weights([np.array([[1.0, 2.0, 3.0]], "float32")])
        self.networks = {"network": self.network}
        self.own_optimizer("network", optimizer, self.network)
        self.finish()

    def train_step(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.network(tf.ones((1, 1))) - batch))
        self.minimize(loss, tape, "network", self.network)
        return self.track(loss=loss)

    @property
    def weight(self) -> np.ndarray:
        weight: np.ndarray = self.network.get_weights()[0][0]
        return weight


def test_a_step_of_gradient_descent_moves_by_the_rate_times_the_gradient() -> None:
    model = Quadratic(keras.optimizers.SGD(0.3))
    model.train_step(tf.zeros((1, 3)))
    np.testing.assert_allclose(model.weight, [0.8, 1.6, 2.4], rtol=1e-6)  # w - 0.3 * 2 w / 3


def test_the_noted_gradient_norm_is_unscaled_in_every_precision() -> None:
    expected = np.linalg.norm([2 / 3, 4 / 3, 2.0])
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = Quadratic(keras.optimizers.SGD(0.1))
            model.train_step(tf.zeros((1, 3)))
        finally:
            keras.config.set_dtype_policy("float32")
        assert model.gradient_norms()["network"] == pytest.approx(expected, rel=1e-6)


def test_float16_scales_the_loss_and_takes_it_out_again() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = Quadratic(keras.optimizers.SGD(0.3))
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizers["network"], keras.optimizers.LossScaleOptimizer)
    model.train_step(tf.zeros((1, 3)))
    np.testing.assert_allclose(model.weight, [0.8, 1.6, 2.4], rtol=1e-6)


def test_a_float16_overflow_skips_the_step_and_halves_the_scale() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = Quadratic(keras.optimizers.SGD(0.3))
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = model.optimizers["network"]
    before = float(optimizer.dynamic_scale)
    model.train_step(tf.fill((1, 3), np.inf))
    np.testing.assert_array_equal(model.weight, [1.0, 2.0, 3.0])
    assert float(optimizer.dynamic_scale) == before / 2


def test_loss_means_average_the_steps_since_the_last_call() -> None:
    model = Quadratic(keras.optimizers.SGD(0.0))
    model.train_step(tf.zeros((1, 3)))  # mean of 1, 4, 9
    model.train_step(tf.constant([[1.0, 2.0, 3.0]]))  # 0
    assert model.loss_means()["loss"] == pytest.approx(14 / 6)
    model.train_step(tf.zeros((1, 3)))
    assert model.loss_means()["loss"] == pytest.approx(14 / 3)


def test_the_first_bad_loss_is_remembered_with_its_step() -> None:
    model = Quadratic(keras.optimizers.SGD(0.0))
    model.train_step(tf.zeros((1, 3)))
    assert model.bad_loss() is None
    model.train_step(tf.fill((1, 3), np.nan))
    model.train_step(tf.zeros((1, 3)))
    assert model.bad_loss() == ("loss", 2)


def test_a_weight_the_loss_does_not_reach_is_named() -> None:
    model = Quadratic(keras.optimizers.SGD(0.1))
    with tf.GradientTape() as tape:
        loss = tf.constant(1.0)
    with pytest.raises(ValueError, match="does not reach .*kernel"):
        model.minimize(loss, tape, "network", model.network)


def test_noise_is_a_function_of_seed_step_and_stream() -> None:
    model = Quadratic(keras.optimizers.SGD(0.1))
    first = model.normal((2, 3)).numpy()
    np.testing.assert_array_equal(model.normal((2, 3)), first)
    assert not np.array_equal(model.normal((2, 3), stream=1), first)
    model.step.assign(1)
    assert not np.array_equal(model.normal((2, 3)), first)


def test_fused_adam_follows_the_recursion_of_its_paper() -> None:
    batches = np.random.default_rng(0).normal(size=(20, 1, 3)).astype("float32")
    model = Quadratic(FusedAdam(0.05, beta_1=0.5, epsilon=1e-8))
    weight, m, v = np.array([1.0, 2.0, 3.0]), np.zeros(3), np.zeros(3)
    for step, batch in enumerate(batches, start=1):
        model.train_step(tf.constant(batch))
        gradient = 2 * (weight - batch[0]) / 3
        m = 0.5 * m + 0.5 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        unbiased = m / (1 - 0.5**step), v / (1 - 0.999**step)
        weight = weight - 0.05 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(model.weight, weight, rtol=2e-5)  # 1 - 0.999 in float32


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1.0), (99, 1.0), (100, 1 - 1 / 101), (199, 1 - 100 / 101)]
)
def test_the_rate_is_constant_then_falls_linearly(epoch: int, factor: float) -> None:
    schedule = ConstantThenLinear(2e-4, constant_epochs=100, decay_epochs=100, steps_per_epoch=7)
    for step in (7 * epoch, 7 * epoch + 6):
        assert float(schedule(tf.constant(step))) == pytest.approx(2e-4 * factor, rel=1e-5)


def test_the_moving_average_follows_its_recursion() -> None:
    model = Quadratic(keras.optimizers.SGD(0.3))
    model.keep_average(model.network)
    average = model.average("network")
    for step in range(30):
        before = average.get_weights()[0]
        model.train_step(tf.zeros((1, 3)))
        model.update_average(model.network, decay=0.5)
        decay = min(0.5, (2.0 + step) / (11.0 + step))
        expected = decay * before + (1 - decay) * model.network.get_weights()[0]
        np.testing.assert_allclose(average.get_weights()[0], expected, rtol=1e-5, atol=1e-9)
    assert model.networks["ema_network"] is average
