"""Pix2Pix: paired image-to-image translation with a conditional GAN.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks",
arXiv:1611.07004; the discriminators of 10, 22 and 46 pixels, several scales and the perceptual
loss as in Sobolev's thesis on GANs for medical images, sections 4.4 and 4.5.

Deviations from the paper: instance instead of batch normalization by default (the same at batch
size 1, and equal in training and inference); no dropout at inference by default; the learning
rate falls linearly in the second half (the authors' PyTorch code) unless `decay: 0`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from pydantic import Field

from tfgan_med.augment.diffaugment import DiffAugment
from tfgan_med.batches import PairedBatch, Tensor
from tfgan_med.layers.normalization import NormKind
from tfgan_med.learning.optimizers import UNSCHEDULED, Schedule, decaying_adam
from tfgan_med.losses.game import Game, GameConfig, mean_score, sign_accuracy
from tfgan_med.losses.perceptual import PerceptualLoss
from tfgan_med.losses.reconstruction import l1_loss
from tfgan_med.models.base import GenerativeModel
from tfgan_med.networks.patchgan import patch_discriminator
from tfgan_med.networks.unet import unet_generator

# Streams of random numbers within one step.
PENALTY, DISCRIMINATOR_VIEW, FAKE_VIEW, GENERATOR_VIEW, REAL_VIEW = range(1, 6)


class Pix2PixConfig(GameConfig):
    """Settings of the networks, losses and optimizers."""

    generator_base: int = Field(64, ge=4, le=256)
    """Channels of the first U-Net level; deeper levels have up to eight times as many."""
    discriminator_base: int = Field(64, ge=4, le=256)
    """Channels of the first discriminator layer."""
    discriminator: str = "patch70"
    """`patch10` ... `patch286` (the number is the receptive field in pixels), `pixel`, `image`;
    `thesis-d1`, `-d2`, `-d3` are 46, 22 and 10."""
    num_scales: int = Field(1, ge=1, le=3)
    """Discriminators of the same kind on the picture, its half and its quarter."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalization of both networks. After training with `batch`, each picture is normalized by
    itself, as at the paper's batch size of 1."""
    upsample: Literal["transposed", "resize"] = "transposed"
    """`resize` (nearest, then convolution) avoids checkerboards at some cost in time."""
    dropout: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of channels dropped in the first decoder levels; the paper's only noise."""
    reconstruction: Literal["l1", "perceptual", "l1+perceptual"] = "l1"
    """What holds the picture to its target; `perceptual` needs VGG16 weights."""
    lambda_l1: float = Field(100.0, ge=0.0)
    """Weight of the mean absolute difference to the target."""
    perceptual_layers: tuple[str, ...] = ("block1_conv2", "block2_conv2", "block3_conv3")
    """VGG16 layers (after ReLU) that are compared."""
    lambda_perceptual: tuple[float, ...] | None = None
    """Weight of each layer; the sum is divided by their number. By default 1 each with `unit`
    features, the thesis' 100, 200, 300 with `raw` ones."""
    perceptual_scale: Literal["unit", "raw"] = "unit"
    """`unit` divides features by their mean size over the first real pictures, `raw` does not:
    raw features make this term thousands of times larger than the adversarial one."""
    vgg_weights: Path | None = None
    """File of VGG16 weights in Keras format (notop); by default the one in the weights folder."""
    d_loss_weight: float = Field(0.5, gt=0.0)
    """Factor of the discriminator's adversarial loss; a half slows it against the generator."""
    augment: str = ""
    """DiffAugment of what the discriminator sees, e.g. `color,translation`, against a few hundred
    pairs learned by heart. Both pictures are moved alike; only the target's colors change, since
    the source may be a label map."""
    learning_rate: float = Field(2e-4, gt=0.0)
    """Adam's rate of both networks at the start."""
    beta_1: float = Field(0.5, ge=0.0, lt=1.0)
    """Adam's decay of the gradient mean."""
    decay: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the epochs, at the end, over which the rate falls linearly to zero."""
    ema: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the generator's weights, e.g. 0.999; 0 keeps none."""


class Pix2Pix(GenerativeModel):
    """A U-Net that translates and patch discriminators that look at both pictures.

    Args:
        config: the settings.
        image_size: side of the square pictures; a multiple of 2^min(8, log2 size).
        source_channels: channels of the condition.
        target_channels: channels of the picture to make.
        schedule: total epochs and steps per epoch, for the learning rate.
        seed: of the initial weights and of dropout.
        inference: build the generator alone, to translate with a trained run.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 256},
        "train": {"batch_size": 1, "epochs": 200},
    }
    needs: ClassVar = "pairs"

    def __init__(
        self,
        config: Pix2PixConfig,
        image_size: int,
        source_channels: int,
        target_channels: int,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
        inference: bool = False,
    ) -> None:
        terms = [name for name in ("l1", "perceptual") if name in config.reconstruction.split("+")]
        penalty = ["penalty"] if config.penalty_in_use != "none" else []
        scores = ["real_score", "fake_score", "sign_accuracy"]
        super().__init__(["generator", "discriminator", *penalty, *terms, *scores], seed=seed)
        self.config = config
        self._shape = (image_size, source_channels, target_channels)
        self._twin: keras.Model | None = None
        self.generator = self._build_generator(config.norm)
        self.networks = {"generator": self.generator}
        if not inference:
            self._add_opponent(image_size, (source_channels, target_channels), schedule)
        self.finish()

    def _build_generator(self, norm: NormKind) -> keras.Model:
        config = self.config
        return unet_generator(
            *self._shape,
            base=config.generator_base,
            norm=norm,
            upsample=config.upsample,
            dropout=config.dropout,
            seed=self.seed,
        )

    def _add_opponent(self, image_size: int, channels: tuple[int, int], schedule: Schedule) -> None:
        """Discriminator, losses and optimizers: what only training needs."""
        config = self.config
        self.discriminator = patch_discriminator(
            config.discriminator,
            image_size,
            channels,
            base=config.discriminator_base,
            norm=config.norm,
            num_scales=config.num_scales,
            seed=self.seed + 1,
        )
        self.networks["discriminator"] = self.discriminator
        if config.ema:
            self.keep_average(self.generator)
        self.game = Game(config, self.discriminator, config.beta_1)
        self.notices.extend(self.game.notices)
        # The source may be a mask or labels, whose values are no colors.
        self.augment = DiffAugment(config.augment, channels, color_groups=(1,))
        self.perceptual = None
        if "perceptual" in self.loss_names:
            self.perceptual = self._perceptual_loss()
            self.extra_state["feature_scales"] = self.perceptual.feature_scales
        self._adam("generator", schedule)
        self._adam("discriminator", schedule)

    def calibrate(self, batches: Iterable[PairedBatch]) -> None:
        """Measure the size of VGG features on real pictures, for the perceptual loss."""
        if self.perceptual is not None:
            for batch in batches:
                self.perceptual.calibrate(batch["target"])

    def _adam(self, name: str, schedule: Schedule) -> None:
        config = self.config
        adam = decaying_adam(config.learning_rate, config.beta_1, config.decay, schedule)
        self.own_optimizer(name, adam, self.networks[name])

    def _perceptual_loss(self) -> PerceptualLoss:
        config = self.config
        return PerceptualLoss(
            config.perceptual_layers,
            config.lambda_perceptual,
            feature_scale=config.perceptual_scale,
            weights_file=config.vgg_weights,
        )

    def train_step(self, batch: PairedBatch) -> dict[str, Tensor]:
        """The discriminator first, then the generator, on the same translated pictures."""
        source, target = batch["source"], batch["target"]

        with tf.GradientTape() as tape:
            fake = self.generator(source, training=True)
            with tape.stop_recording():
                seen = self._train_discriminator(source, target, fake)
                real_logits = self._real_scores_anew(source, target)
            fake_logits = self._scores(source, fake, GENERATOR_VIEW)
            terms = self._reconstruction(target, fake)
            generator_loss = self.game.generator_loss(fake_logits, real_logits) + sum(
                weight * value for weight, value in terms.values()
            )
        self.minimize(generator_loss, tape, "generator", self.generator)
        if self.config.ema:
            self.update_average(self.generator, self.config.ema)
        seen["generator"] = generator_loss
        seen["fake_score"] = mean_score(fake_logits)
        seen.update({name: value for name, (_, value) in terms.items()})
        return self.track(**{name: seen[name] for name in self.loss_names})

    def _train_discriminator(
        self, source: Tensor, target: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """Half the adversarial loss on the pairs (source, target) and (source, fake), and the
        penalty; returns what is tracked of it."""
        seen = {}
        with tf.GradientTape() as tape:
            real_logits, fake_logits = self._scores_of_both(source, target, fake)
            adversarial = self.game.discriminator_loss(real_logits, fake_logits)
            loss = self.config.d_loss_weight * adversarial
            if self.game.has_penalty:
                seen["penalty"] = self._penalty(source, target, fake)
                loss += seen["penalty"]
        self.minimize(loss, tape, "discriminator", self.discriminator)
        self.game.constrain()
        seen["discriminator"] = loss
        seen["real_score"] = mean_score(real_logits)
        seen["sign_accuracy"] = sign_accuracy(real_logits, fake_logits)
        return seen

    def _real_scores_anew(self, source: Tensor, target: Tensor) -> list[Tensor] | None:
        """Scores by the trained discriminator, where the generator's loss compares with them."""
        return self._scores(source, target, REAL_VIEW) if self.game.needs_real else None

    def _penalty(self, source: Tensor, target: Tensor, fake: Tensor) -> Tensor:
        """On the discriminator as a function of the translated picture, the source given."""
        return self.game.penalty(
            lambda pictures: self._scores(source, pictures, DISCRIMINATOR_VIEW),
            target,
            fake,
            self.random_seed(PENALTY),
            self.step.value,
        )

    def _scores_of_both(
        self, source: Tensor, target: Tensor, fake: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Scores of real and translated pairs, in one pass where pictures do not interact."""
        if self.config.norm == "batch":  # statistics of real and fake must not mix
            return (
                self._scores(source, target, DISCRIMINATOR_VIEW),
                self._scores(source, fake, FAKE_VIEW),
            )
        conditions = tf.concat([source, source], axis=0)
        pictures = tf.concat([target, tf.cast(fake, target.dtype)], axis=0)
        scores = self._scores(conditions, pictures, DISCRIMINATOR_VIEW)
        both = [tf.split(score, 2) for score in scores]
        return [real for real, _ in both], [fake for _, fake in both]

    def _scores(self, source: Tensor, pictures: Tensor, stream: int) -> list[Tensor]:
        """What the discriminator says of pairs, changed by DiffAugment if there is one."""
        if self.augment:
            pair = tf.concat([source, tf.cast(pictures, source.dtype)], axis=-1)
            pair = self.augment(pair, self.random_seed(stream))
            source, pictures = tf.split(pair, self.augment.groups, axis=-1)
        scores: list[Tensor] = self.discriminator([source, pictures], training=True)
        return scores

    def _reconstruction(self, target: Tensor, fake: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term that compares with the target."""
        terms: dict[str, tuple[float, Tensor]] = {}
        if "l1" in self.loss_names:
            terms["l1"] = (self.config.lambda_l1, l1_loss(target, fake))
        if self.perceptual is not None:
            terms["perceptual"] = (1.0, self.perceptual(target, fake))
        return terms

    def translate(self, images: Tensor, stochastic: bool = False, seed: int = 0) -> Tensor:
        """Translated pictures, float32 in [-1, 1].

        Args:
            images: `(batch, size, size, source channels)`, as in training.
            stochastic: keep dropout on, the paper's only source of variety.
            seed: of the dropout.
        """
        generator = self.average("generator")
        if self.config.norm == "batch":
            generator = self._with_own_statistics(generator)
        if not stochastic:
            return generator(images, training=False)
        with self.undisturbed(generator, seed):
            return generator(images, training=True)

    def _with_own_statistics(self, generator: keras.Model) -> keras.Model:
        """The same network with each picture normalized by itself, as at batch size 1.

        With moving statistics pictures come out washed-out or black
        (junyanz/pytorch-CycleGAN-and-pix2pix, issues 285 and 1329).
        """
        if self._twin is None:
            self._twin = self._build_generator("instance")
        self._twin.set_weights([v.numpy() for v in generator.weights if "moving_" not in v.path])
        return self._twin
