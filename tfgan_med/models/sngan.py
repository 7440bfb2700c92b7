"""SNGAN: residual networks and a discriminator of bounded slope, for 32 to 128 pixels.

Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
arXiv:1802.05957; with classes Miyato and Koyama, "cGANs with Projection Discriminator",
arXiv:1802.05637. It is the source that batch-statistics adaptation starts from (`train bsa`).

`train.batch_size` counts all real pictures of a step, which trains the generator once and the
discriminator `n_dis` times, each time on other real pictures: 80 are the 5 times 16 of the paper
at 128 pixels; at 64 and 32 pixels it has 5 times 64.

Deviations from the reference (pfnet-research/sngan_projection): the noise added to the grey levels
is centred, so that pictures stay in [-1, 1] on average; samples come from a moving average of the
weights (`ema: 0` is the reference) with batch-norm statistics averaged over many batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow as tf
from pydantic import Field

from tfgan_med.augment.diffaugment import DiffAugment
from tfgan_med.batches import ImageBatch, Tensor
from tfgan_med.layers.spectral import power_iteration
from tfgan_med.learning.optimizers import UNSCHEDULED, ConstantThenLinear, FusedAdam, Schedule
from tfgan_med.losses.game import Game, GameConfig, mean_score, sign_accuracy
from tfgan_med.models._latent import CALIBRATION_BATCH, LatentModel
from tfgan_med.networks.sngan import GeneratorPlan, sngan_discriminator, sngan_generator
from tfgan_med.ops import random

FAKES_PER_REAL = {32: 2, 64: 1, 128: 2}  # in the generator's step; 128, 64, 32 in the reference
GREY_LEVEL = 2.0 / 255.0


class SNGANConfig(GameConfig):
    """Settings of the networks, losses and optimizers."""

    adversarial: str = "hinge"
    """Adversarial loss; the paper's is hinge."""
    n_dis: int = Field(5, ge=1, le=20)
    """Discriminator steps for one of the generator; they divide `train.batch_size`."""
    generator_batch: int | None = Field(None, ge=2)
    """Pictures of the generator's step, all devices together; by default as many as in one
    discriminator step, at 128 and 32 pixels twice as many."""
    conditional: bool = False
    """Learn the classes of the set apart: batch norms of each class, projection discriminator."""
    small: bool = False
    """The narrower networks of 128 pixels, with a third of the weights."""
    generator_base: int | None = Field(None, ge=8)
    """Channels of the generator's last map; by default 64, at 32 pixels 256."""
    discriminator_base: int | None = Field(None, ge=8)
    """Channels after the discriminator's first block; by default 64, at 32 pixels 128."""
    latent_size: int = Field(128, ge=2)
    """Length of the latent vector."""
    augment: str = ""
    """Differentiable augmentation of what the discriminator sees: `color,translation` below a few
    thousand pictures, below 500 also `cutout`; empty for none."""
    dequantize: bool = True
    """Spread each grey level of real pictures evenly over its width."""
    learning_rate: float = Field(2e-4, gt=0.0)
    """Adam's rate of both networks."""
    beta_1: float = Field(0.0, ge=0.0, lt=1.0)
    """Adam's decay of the gradient mean."""
    beta_2: float = Field(0.9, ge=0.0, lt=1.0)
    """Adam's decay of the gradient's square."""
    decay: float = Field(1 / 9, ge=0.0, le=1.0)
    """Share of the run, at its end, over which the rate falls to 0: 50 of 450 thousand steps at
    128 pixels, 0.2 at 64, 1 for CIFAR; 0 keeps it constant."""
    ema: float = Field(0.999, ge=0.0, lt=1.0)
    """Decay of the moving average of the generator's weights, which samples come from; 0 keeps
    none."""


class SNGAN(LatentModel):
    """Pictures from latent vectors, and from classes if asked for.

    Args:
        config: the settings.
        image_size: side of the square pictures: 32, 64 or 128.
        channels: sizes of the channel groups: the picture, then masks made together with it.
        schedule: length of the run, for the learning rate.
        seed: of the initial weights and of all random numbers.
        inference: build the generator alone, to make pictures with a trained run.
        num_classes: of the set, with `conditional`.
    Raises:
        ValueError: for another size, and for `conditional` without classes.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 128},
        "train": {"batch_size": 80, "steps": 450_000, "sample_interval": 1000},
    }

    def __init__(
        self,
        config: SNGANConfig,
        image_size: int,
        channels: tuple[int, ...],
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
        inference: bool = False,
        num_classes: int = 0,
    ) -> None:
        if config.conditional and num_classes < 2:
            raise ValueError(
                f"model.conditional needs a set of two classes or more; it has {num_classes}."
            )
        penalty = ["penalty"] if config.penalty_in_use != "none" else []
        scores = ["real_score", "fake_score", "sign_accuracy"]
        super().__init__(["generator", "discriminator", *penalty, *scores], seed=seed)
        self.config = config
        self.num_classes = num_classes if config.conditional else 0
        self.latent_size = config.latent_size
        self.image_size = image_size
        self.generator = sngan_generator(
            generator_plan(config, image_size, channels, self.num_classes), seed
        )
        self.networks = {"generator": self.generator}
        if not inference:
            self._add_opponent(tuple(channels), schedule)
        self.finish()

    def _add_opponent(self, channels: tuple[int, ...], schedule: Schedule) -> None:
        """Discriminator, loss and optimizers: what only training needs."""
        config = self.config
        self.channels = channels
        self.discriminator = sngan_discriminator(
            self.image_size,
            sum(channels),
            config.discriminator_base,
            config.small,
            self.num_classes,
            self.seed + 1,
        )
        self.networks["discriminator"] = self.discriminator
        self.game = Game(config, self.discriminator, config.beta_1)
        self.notices += self.game.notices
        self.augment = DiffAugment(config.augment, channels, color_groups=(0,))
        if config.ema:
            self.keep_average(self.generator)
        self._adam("generator", schedule, steps=1)
        self._adam("discriminator", schedule, steps=config.n_dis)

    def _adam(self, player: str, schedule: Schedule, steps: int) -> None:
        """An optimizer that makes `steps` steps in one of the run."""
        config = self.config
        total = schedule.epochs * schedule.steps_per_epoch  # a large set has too few epochs
        late = round(config.decay * total)
        rate = ConstantThenLinear(config.learning_rate, total - late, late, steps)
        adam = FusedAdam(rate, beta_1=config.beta_1, beta_2=config.beta_2, epsilon=1e-8)
        self.own_optimizer(player, adam, self.networks[player])

    def train_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The generator once, then the discriminator `n_dis` times on other pictures each time."""
        steps = self.config.n_dis
        streams = iter(range(1000))  # no two draws of a step are the same
        parts = _parted(batch["images"], steps)
        labels = _parted(batch["labels"], steps) if self.num_classes else [None] * steps

        generator_loss = self._train_generator(parts[0], labels[0], streams)
        judged = [
            self._train_discriminator(self._dequantized(real, next(streams)), label, streams)
            for real, label in zip(parts, labels, strict=True)
        ]
        if self.config.ema:
            self.update_average(self.generator, self.config.ema)
        means = {name: tf.add_n([one[name] for one in judged]) / steps for name in judged[0]}
        return self.track(generator=generator_loss, **means)

    def _train_generator(self, real: Tensor, labels: Tensor, streams: Iterator[int]) -> Tensor:
        power_iteration(self.discriminator)
        with tf.GradientTape() as tape:
            fake, classes = self._fakes(self._generator_count(real), streams)
            fake_logits = self._scores(fake, classes, streams)
            real_logits = self._scores(real, labels, streams) if self.game.needs_real else None
            loss = self.game.generator_loss(fake_logits, real_logits)
        self.minimize(loss, tape, "generator", self.generator)
        return loss

    def _generator_count(self, real: Tensor) -> int:
        """Pictures of the generator's step on this device."""
        if self.game.needs_real:  # scores are compared in pairs
            return int(real.shape[0])
        replicas: int = tf.distribute.get_replica_context().num_replicas_in_sync
        if self.config.generator_batch is None:
            return int(real.shape[0]) * FAKES_PER_REAL[self.image_size]
        return max(2, -(-self.config.generator_batch // replicas))

    def _fakes(self, count: int, streams: Iterator[int]) -> tuple[Tensor, Tensor]:
        """Generated pictures and, with classes, which they are of, all equally often."""
        latents = self.normal((count, self.latent_size), next(streams))
        if not self.num_classes:
            return self.generator(latents, training=True), None
        labels = tf.random.stateless_uniform(
            (count,), self.random_seed(next(streams)), 0, self.num_classes, tf.int64, alg="philox"
        )
        return self.generator([latents, labels], training=True), labels

    def _scores(self, images: Tensor, labels: Tensor, streams: Iterator[int]) -> Tensor:
        """Raw scores `(batch, 1)` of augmented pictures."""
        return self._critic(self.augment(images, self.random_seed(next(streams))), labels)

    def _critic(self, images: Tensor, labels: Tensor) -> Tensor:
        inputs = images if labels is None else [images, labels]
        return self.discriminator(inputs, training=True)

    def _train_discriminator(
        self, real: Tensor, labels: Tensor, streams: Iterator[int]
    ) -> dict[str, Tensor]:
        """One step on real pictures and as many new generated ones; loss, penalty and scores."""
        power_iteration(self.discriminator)
        fake, classes = self._fakes(int(real.shape[0]), streams)
        real = self.augment(real, self.random_seed(next(streams)))
        fake = self.augment(fake, self.random_seed(next(streams)))
        values = {}
        with tf.GradientTape() as tape:
            # One pass over both: no layer mixes the pictures of a batch.
            together = None if labels is None else tf.concat([labels, classes], 0)
            logits = self._critic(tf.concat([real, fake], 0), together)
            real_logits, fake_logits = tf.split(logits, 2)
            values["discriminator"] = total = self.game.discriminator_loss(real_logits, fake_logits)
            if self.game.has_penalty:
                values["penalty"] = self.game.penalty(
                    lambda images: self._critic(images, labels),
                    real,
                    fake,
                    self.random_seed(next(streams)),
                    self.step.value,
                )
                values["discriminator"] = total = total + values["penalty"]
        self.minimize(total, tape, "discriminator", self.discriminator)
        self.game.constrain()
        return {
            **values,
            "real_score": mean_score(real_logits),
            "fake_score": mean_score(fake_logits),
            "sign_accuracy": sign_accuracy(real_logits, fake_logits),
        }

    def _dequantized(self, images: Tensor, stream: int) -> Tensor:
        """Pictures with noise of one grey level; masks stay as they are."""
        if not self.config.dequantize:
            return images
        picture, *masks = tf.split(images, self.channels, axis=-1)
        noise = random.uniform(picture.shape, self.random_seed(stream)) - 0.5
        return tf.concat([picture + GREY_LEVEL * noise, *masks], axis=-1)

    def calibration_inputs(self, batches: int) -> Iterator[Any]:
        """With classes, each as often as the others."""
        places = tf.range(CALIBRATION_BATCH, dtype=tf.int64)
        for index, latents in enumerate(super().calibration_inputs(batches)):
            if self.num_classes:  # there may be more of them than places in a batch
                yield [latents, (index * CALIBRATION_BATCH + places) % self.num_classes]
            else:
                yield latents


def generator_plan(
    config: SNGANConfig, image_size: int, channels: tuple[int, ...], num_classes: int = 0
) -> GeneratorPlan:
    """What the generator of these settings is built from."""
    return GeneratorPlan(
        image_size=image_size,
        channels=sum(channels),
        base=config.generator_base,
        small=config.small,
        num_classes=num_classes,
        latent_size=config.latent_size,
    )


def _parted(values: Tensor, parts: int) -> list[Tensor]:
    """A batch in equal parts.

    Raises:
        ValueError: if it cannot be divided; names the settings.
    """
    count = values.shape[0]
    if count is None or count % parts:
        raise ValueError(
            f"model.n_dis is {parts}, which does not divide the {count} pictures of a step on each "
            "device. Set train.batch_size to a multiple of n_dis times the number of devices."
        )
    return list(tf.split(values, parts))
