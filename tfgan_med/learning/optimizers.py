"""Optimizers and learning rates that Keras has not, or has slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfgan_med.batches import Tensor


@dataclass(frozen=True)
class Schedule:
    """Length of a run, for learning rates: epochs, and optimizer steps of one."""

    epochs: int
    steps_per_epoch: int


UNSCHEDULED = Schedule(epochs=1, steps_per_epoch=1)


class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant for the first epochs, then in equal steps towards zero.

        factor(epoch) = 1 - max(0, epoch + 1 - constant) / (decay + 1)

    Args:
        rate: learning rate at the start.
        constant_epochs, decay_epochs: lengths of the two parts; epochs count from 0.
        steps_per_epoch: optimizer steps of an epoch.
    Source: junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py, policy `linear`.
    """

    def __init__(
        self, rate: float, constant_epochs: int, decay_epochs: int, steps_per_epoch: int
    ) -> None:
        self.rate = rate
        self.constant_epochs = constant_epochs
        self.decay_epochs = decay_epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: Tensor) -> Tensor:
        epoch = tf.cast(step, tf.int64) // self.steps_per_epoch
        late = tf.maximum(epoch + 1 - self.constant_epochs, 0)
        # Beyond the last epoch (a run made longer by --steps) the last factor stays.
        late = tf.minimum(late, self.decay_epochs)
        return self.rate * (1.0 - tf.cast(late, tf.float32) / (self.decay_epochs + 1))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class FusedAdam(keras.optimizers.Adam):
    """Adam whose update of a weight is one kernel instead of a dozen passes over memory.

    The arithmetic is that of `keras.optimizers.Adam` (Kingma & Ba, arXiv:1412.6980, section 2,
    the form before algorithm 1's last line is rearranged).
    """

    def update_step(self, gradient: Tensor, variable: tf.Variable, learning_rate: Tensor) -> None:
        dtype = variable.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
            use_locking=False,
        )


def decaying_adam(
    learning_rate: float, beta_1: float, decay: float, schedule: Schedule
) -> FusedAdam:
    """Adam of the image-to-image papers: constant, then falling over the last share of epochs.

    Args:
        decay: that share, 0 to 1.
    """
    decay_epochs = round(decay * schedule.epochs)
    rate = ConstantThenLinear(
        learning_rate, schedule.epochs - decay_epochs, decay_epochs, schedule.steps_per_epoch
    )
    return FusedAdam(rate, beta_1=beta_1, beta_2=0.999, epsilon=1e-8)


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, without the wrapper for loss scaling."""
    return getattr(optimizer, "inner_optimizer", optimizer)
