"""What every generative system shares beside the optimizer step: averages and undisturbed looks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from tfgan_med.learning.system import System


class GenerativeModel(System):
    """A GAN as one Keras model; a subclass builds its networks, then calls `self.finish()`."""

    needs: ClassVar[Literal["pairs", "images", "domains", "source"]]
    """What it is trained on, which decides data, samples and scores of its runs."""
    exports: ClassVar[tuple[str, ...]] = ("generator",)
    """Networks that a trained run keeps to make pictures with."""

    def keep_average(self, network: keras.Model) -> None:
        """Keep a moving average of a network's weights, for `average` and the checkpoint."""
        average = keras.models.clone_model(network)
        average.set_weights(network.get_weights())
        average.trainable = False
        self.networks[f"ema_{network.name}"] = average

    def average(self, name: str) -> keras.Model:
        """The moving average of network `name` if one is kept, else the network itself."""
        return self.networks.get(f"ema_{name}", self.networks[name])

    def update_average(self, network: keras.Model, decay: float) -> None:
        """Move the average towards `network`: a <- decay a + (1 - decay) w; statistics are copied.

        The decay is (1 + step) / (10 + step) while that is smaller, so that the untrained
        weights are forgotten early (as in `tf.train.ExponentialMovingAverage`).
        """
        step = tf.cast(self.step.value, tf.float32)
        decay = tf.minimum(decay, (1.0 + step) / (10.0 + step))
        average = self.networks[f"ema_{network.name}"]
        trained = {id(v) for v in network.trainable_variables}
        for new, old in zip(network.weights, average.weights, strict=True):
            if id(new) in trained:
                old.assign(old.value + (new.value - old.value) * (1.0 - decay))
            else:
                old.assign(new.value)

    @contextlib.contextmanager
    def undisturbed(self, network: keras.Model, seed: int) -> Iterator[None]:
        """Use a network in training mode without leaving a trace: dropout draws from `seed`, and
        statistics and seeds are put back, so that looking at samples changes no run."""
        trained = {id(v) for v in network.trainable_weights}
        kept = [(v, v.numpy()) for v in network.variables if id(v) not in trained]
        seeds = [v for v, _ in kept if "seed_generator_state" in v.path]
        draw = np.random.default_rng([self.seed, seed])
        for variable in seeds:
            variable.assign(draw.integers(0, 2**31, size=tuple(variable.shape)))
        try:
            yield
        finally:
            for variable, value in kept:
                variable.assign(value)
