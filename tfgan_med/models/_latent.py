"""What systems that make images from latent vectors share: how samples are taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import keras

from tfgan_med.batches import Tensor
from tfgan_med.layers.normalization import recalibrate
from tfgan_med.models.base import GenerativeModel
from tfgan_med.ops import random

CALIBRATION_SEED = 20_211  # of the latents that the statistics are averaged over
CALIBRATION_BATCH = 64


class LatentModel(GenerativeModel):
    """Images from standard normal latent vectors; a subclass builds `self.generator`.

    Samples come from a copy of the generator (of its moving average where one is kept) whose
    batch-norm statistics are averages over many batches, so that an image depends on its latent
    vector alone and looking at samples changes no run.

    Attributes:
        latent_size: length of a latent vector.
        truncation: bound of the latents' values that samples are drawn with; None for none.
        num_classes: classes that it makes pictures of at will; 0 if it does not.
        generator: from `(batch, latent_size)`, with classes from these and labels `(batch,)`, to
            the image `(batch, size, size, channels)`, float32 in [-1, 1], or to a list that begins
            with it.
    """

    needs: ClassVar[Literal["images", "source"]] = "images"
    latent_size: int
    truncation: float | None = None
    num_classes: int = 0
    generator: keras.Model
    _sampler: keras.Model | None = None

    def prepare_samples(self, batches: int = 100) -> keras.Model:
        """Copy the present weights for `sample`; returns the copy.

        Args:
            batches: of 64 latent vectors, over which batch-norm statistics are averaged.
        """
        source = self.average("generator")
        if self._sampler is None:
            self._sampler = keras.models.clone_model(self.generator)
        for new, old in zip(self._sampler.weights, source.weights, strict=True):
            new.assign(old.value)
        recalibrate(self._sampler, self.calibration_inputs(batches))
        return self._sampler

    def calibration_inputs(self, batches: int) -> Iterator[Any]:
        """Inputs of the generator that its batch-norm statistics are averaged over."""
        shape = (CALIBRATION_BATCH, self.latent_size)
        for index in range(batches):
            yield random.normal(shape, (CALIBRATION_SEED, index))

    def sample(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of latent vectors.

        Args:
            latents: `(batch, latent_size)` float32, standard normal.
            labels: `(batch,)` integers, of models with classes.
        Returns:
            `(batch, size, size, channels)` float32 in [-1, 1].
        Raises:
            ValueError: before `prepare_samples`.
        """
        if self._sampler is None:
            raise ValueError("Call prepare_samples first: it takes over the present weights.")
        inputs = latents if labels is None else [latents, labels]
        made = self._sampler(inputs, training=False)
        return made[0] if isinstance(made, list | tuple) else made
