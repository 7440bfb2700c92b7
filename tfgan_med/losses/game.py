"""The adversarial game of a model as its settings describe it: objectives, penalty, clipping.

A model's settings derive from `GameConfig`; `Game` turns them into functions for its training
step, refuses combinations that make no sense and says which are doubtful.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf
from pydantic import Field

from tfgan_med.config import Config
from tfgan_med.errors import UserError
from tfgan_med.losses.adversarial import Logits, adversarial_loss, scales_of
from tfgan_med.losses.penalties import (
    Critic,
    dragan_penalty,
    drift_penalty,
    gradient_penalty,
    zero_centered_penalty,
)

Tensor = Any
Penalty = Literal["none", "gp", "gp-one-sided", "dragan", "r1", "r2", "drift"]

SLOPE_OF_ONE = ("gp", "gp-one-sided", "dragan")
ON_SLOPES = (*SLOPE_OF_ONE, "r1", "r2")
WEIGHTS = {**dict.fromkeys(ON_SLOPES, 10.0), "drift": 1e-3}
INTERVALS = {"r1": 16, "r2": 16}


class GameConfig(Config):
    """Settings of the adversarial loss, shared by every model that has one."""

    adversarial: str = "nonsaturating"
    """Adversarial loss: nonsaturating, minimax, hinge, lsgan, wgan, wgan-gp, ragan, rgan, ralsgan,
    rahinge. `wgan` wants small steps without momentum (learning_rate 5e-5, beta_1 0), `wgan-gp`
    learning_rate 1e-4 and beta_1 0 or 0.5."""
    half: bool = False
    """Halve both objectives of `lsgan`, as its paper does."""
    label_smoothing: float = Field(1.0, gt=0.5, le=1.0)
    """Target for real images, e.g. 0.9, with `nonsaturating` or `minimax`; 1 is off."""
    penalty: Penalty = "none"
    """Penalty on the discriminator: gp, gp-one-sided, dragan (slope 1), r1, r2 (slope 0 at real,
    at generated images), drift (scores near 0). `wgan-gp` has gp by itself."""
    penalty_weight: float | None = Field(None, gt=0.0)
    """Factor of the penalty; by default 10, for drift 0.001. r1 and r2 halve the squared slope."""
    penalty_interval: int | None = Field(None, ge=1)
    """Steps between penalties, whose weight is multiplied by it; by default 16 for r1 and r2,
    else 1."""
    clip: float = Field(0.01, ge=0.0)
    """Bound of the discriminator's weights with `wgan`; 0 clips nothing."""

    @property
    def penalty_in_use(self) -> Penalty:
        """The penalty, also where the adversarial loss implies it."""
        return "gp" if self.adversarial == "wgan-gp" and self.penalty == "none" else self.penalty


class Game:
    """Objectives of both players, the penalty and the clipping, ready for a training step.

    Args:
        config: the settings.
        discriminator: whose layers decide what can be combined, and whose weights are clipped.
        beta_1: Adam's decay of the gradient mean in the discriminator's optimizer, if the model
            has Adam; only notices depend on it.
    Attributes:
        notices: doubtful settings in words.
        needs_real: the generator's loss needs the scores of real images, computed anew.
        has_penalty: `penalty` returns more than zero.
    Raises:
        UserError: for an unknown loss and for settings that exclude each other.
    """

    def __init__(
        self, config: GameConfig, discriminator: keras.Model, beta_1: float | None = None
    ) -> None:
        self.config = config
        self._loss = adversarial_loss(config.adversarial, config.half, config.label_smoothing)
        self._kind = config.penalty_in_use
        self._clip = config.clip if config.adversarial == "wgan" else 0.0
        self.needs_real = self._loss.needs_real
        self.has_penalty = self._kind != "none"
        layers = discriminator._flatten_layers(include_self=False)
        self._layers: list[keras.layers.Layer] = list(layers)
        self._refuse()
        self.notices = self._doubts(beta_1)
        self._clipped = _without_scales(discriminator, self._layers) if self._clip else []

    @property
    def penalty_weight(self) -> float:
        """Factor of the penalty, before the one for the steps it is left out."""
        return self.config.penalty_weight or WEIGHTS.get(self._kind, 0.0)

    @property
    def penalty_interval(self) -> int:
        """Steps from one penalty to the next."""
        return self.config.penalty_interval or INTERVALS.get(self._kind, 1)

    def discriminator_loss(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        """The discriminator's objective without penalty, float32 scalar."""
        return self._loss.discriminator(real_logits, fake_logits)

    def generator_loss(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        """The generator's objective, float32 scalar.

        Args:
            fake_logits: scores of generated images.
            real_logits: scores of real images by the same discriminator, where `needs_real`.
        """
        return self._loss.generator(fake_logits, real_logits)

    def penalty(
        self,
        critic: Critic,
        real: Tensor,
        fake: Tensor,
        seed: Tensor,
        step: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The weighted penalty, float32 scalar, zero in steps it is not due.

        Due are the steps that the interval divides; the weight is multiplied by the interval, so
        that the mean over steps is what it would be every time.

        Args:
            critic: the discriminator as a function of the images alone.
            real, fake: images of one shape, `(batch, ...)`.
            seed: `(2,)` of the draws of this step.
            step: integer, counted from 0.
            mask: where slopes count, see `penalties`.
        """
        if not self.has_penalty:
            return tf.zeros(())
        interval = self.penalty_interval
        weight = self.penalty_weight * interval

        def weighted() -> Tensor:
            return weight * self._penalty(critic, real, fake, seed, mask)

        if interval == 1:
            return weighted()
        due = tf.equal(step % interval, 0)
        return tf.cond(due, weighted, lambda: tf.zeros(()))

    def _penalty(
        self, critic: Critic, real: Tensor, fake: Tensor, seed: Tensor, mask: Tensor | None
    ) -> Tensor:
        if self._kind == "drift":
            return drift_penalty(critic(real))
        if self._kind == "r1":
            return zero_centered_penalty(critic, real, mask)
        if self._kind == "r2":
            return zero_centered_penalty(critic, fake, mask)
        if self._kind == "dragan":
            return dragan_penalty(critic, real, seed, mask)
        return gradient_penalty(critic, real, fake, seed, self._kind == "gp-one-sided", mask)

    def constrain(self) -> None:
        """Clip the discriminator's weights for `wgan`; call it after its optimizer step.

        Scales of normalization layers stay: they start at 1, and bounds of 0.01 would silence the
        network.
        """
        for variable in self._clipped:
            variable.assign(tf.clip_by_value(variable.value, -self._clip, self._clip))

    def _refuse(self) -> None:
        """Raise a UserError for settings that exclude each other."""
        config, kind = self.config, self._kind
        if config.adversarial == "wgan-gp" and kind not in SLOPE_OF_ONE:
            raise UserError(
                f'model.penalty: "{kind}" does not hold the slope of a "wgan-gp" critic at 1. '
                "Leave it at none for gp, or choose gp-one-sided or dragan."
            )
        if self._clip and kind in ON_SLOPES:
            raise UserError(
                f'model.penalty: "{kind}" beside the weight clipping of "wgan" (model.clip='
                f"{self._clip:g}) bounds the critic twice. Set model.adversarial=wgan-gp, or "
                "model.clip=0, or model.penalty=none."
            )
        coupled = _named(self._layers, keras.layers.BatchNormalization)
        if kind in ON_SLOPES and coupled:
            raise UserError(
                f"{self._named_penalty()} needs the slope at each image, but batch normalization "
                f"in the discriminator ({_listed(coupled)}) makes every score depend on the whole "
                "batch. Choose another normalization for it (pix2pix: model.norm=instance; dcgan: "
                "model.spectral_norm=true), or a loss without this penalty."
            )

    def _named_penalty(self) -> str:
        """Begins a message, with the key that asked for the penalty."""
        if self.config.penalty == "none":
            return f'model.adversarial: the penalty of "{self.config.adversarial}"'
        return f'model.penalty: "{self._kind}"'

    def _doubts(self, beta_1: float | None) -> list[str]:
        config, kind = self.config, self._kind
        spectral = [layer.name for layer in self._layers if _is_spectral(layer)]
        doubts = []
        if kind in SLOPE_OF_ONE and spectral:
            doubts.append(
                f"{self._named_penalty()} on a discriminator with spectral normalization "
                f"({_listed(spectral)}) bounds its slope twice, which rarely helps. Use one of the "
                "two."
            )
        if self._clip and spectral:
            doubts.append(
                "model.clip: spectral normalization divides each kernel by its norm, so clipping "
                f"({_listed(spectral)}) hardly bounds the critic. Set model.clip=0."
            )
        if config.adversarial == "wgan" and not (self._clip or kind in ON_SLOPES or spectral):
            doubts.append(
                'model.clip: with 0 and no penalty nothing bounds the "wgan" critic, whose loss '
                "then falls without end. Set model.clip=0.01 or model.adversarial=wgan-gp."
            )
        if config.adversarial == "wgan" and beta_1:
            doubts.append(
                f'model.beta_1: {beta_1:g} with "wgan"; its authors saw momentum make training '
                "unstable. Set model.beta_1=0 and model.learning_rate=5e-5, or use wgan-gp."
            )
        unused = [
            name
            for name in ("penalty_weight", "penalty_interval")
            if kind == "none" and getattr(config, name) is not None
        ]
        if unused:
            doubts.append(f"model.{unused[0]}: has no effect while model.penalty is none.")
        return doubts


def mean_score(logits: Logits) -> Tensor:
    """Mean raw score over all patches of all scales; float32."""
    scales = scales_of(logits)
    return tf.add_n([tf.reduce_mean(scale) for scale in scales]) / len(scales)


def sign_accuracy(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """Share of scores on the right side of zero, float32 in [0, 1]; 0.5 is guessing.

    The mean of the share of real scores above 0 and that of generated ones at or below 0, over
    all patches of all scales. It is comparable between losses, whose values are not, but means
    little for Wasserstein and relativistic ones: their scores have no zero.
    """
    real = mean_score([scale > 0 for scale in scales_of(real_logits)])
    fake = mean_score([scale <= 0 for scale in scales_of(fake_logits)])
    return (real + fake) / 2


def _without_scales(
    discriminator: keras.Model, layers: list[keras.layers.Layer]
) -> list[keras.Variable]:
    """Trainable weights but the scales of normalization layers."""
    scales = {
        id(layer.gamma)
        for layer in layers
        if type(layer).__name__.endswith("Normalization")
        and getattr(layer, "gamma", None) is not None
    }
    return [v for v in discriminator.trainable_variables if id(v) not in scales]


def _named(layers: list[keras.layers.Layer], kind: type[keras.layers.Layer]) -> list[str]:
    return [layer.name for layer in layers if isinstance(layer, kind)]


def _is_spectral(layer: keras.layers.Layer) -> bool:
    """By name: ours and the wrapper of Keras, which share no class of their own."""
    return type(layer).__name__.startswith("Spectral")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
