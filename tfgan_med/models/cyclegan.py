"""CycleGAN: image-to-image translation between two domains without pairs.

Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", arXiv:1703.10593; constants of junyanz/pytorch-CycleGAN-and-pix2pix; the discriminators
of 10, 22 and 46 pixels and the U-Net generator as in Sobolev's thesis on GANs for medical images,
section 3.1.

Deviations from the paper: the pools of fakes belong to the checkpoint, for a resumed run would
otherwise see other fakes than an uninterrupted one; the epochs are counted in steps of the longer
domain. As in the authors' code one Adam trains both generators and one both discriminators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from pydantic import Field

from tfgan_med.augment.diffaugment import DiffAugment
from tfgan_med.batches import DomainBatch, Tensor
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import UNSCHEDULED, Schedule, decaying_adam
from tfgan_med.learning.system import SUM_PER_REPLICA
from tfgan_med.losses.game import Game, GameConfig, mean_score, sign_accuracy
from tfgan_med.losses.reconstruction import l1_loss
from tfgan_med.models.base import GenerativeModel
from tfgan_med.networks.patchgan import patch_discriminator
from tfgan_med.networks.resnet_translator import resnet_translator
from tfgan_med.networks.unet import unet_generator
from tfgan_med.ops import random

DIRECTIONS = {"a2b": "generator_ab", "b2a": "generator_ba"}
POOLS, FOOLING, JUDGING = 10, 12, 14  # streams of random draws, two each


class CycleGANConfig(GameConfig):
    """Settings of the networks, losses and optimizers."""

    generator: Literal["resnet", "unet"] = "resnet"
    """Residual translator (paper) or U-Net (thesis); both generators are of one kind."""
    blocks: int | None = Field(None, ge=1, le=32)
    """Residual blocks; by default 6 up to 128 pixels and 9 beyond."""
    generator_base: int = Field(64, ge=4, le=256)
    """Channels at full size; a residual translator has four times as many in the middle."""
    dropout: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of channels dropped in the first decoder levels of a U-Net, while training."""
    discriminator: str = "patch70"
    """`patch10` ... `patch286` (the number is the receptive field in pixels), `pixel`, `image`;
    `thesis-d1`, `-d2`, `-d3` are 46, 22 and 10. Small fields change texture only."""
    discriminator_base: int = Field(64, ge=4, le=256)
    """Channels of the first discriminator layer."""
    adversarial: str = "lsgan"
    """Adversarial loss: lsgan (paper), nonsaturating (thesis), hinge ..."""
    lambda_cycle: float = Field(10.0, ge=0.0)
    """Weight of the mean absolute difference after the way there and back, in both directions."""
    lambda_identity: float = Field(0.5, ge=0.0)
    """Factor of lambda_cycle for pictures that already are of the target domain and should stay as
    they are; keeps colors from being inverted. 0 for domains of different channels."""
    pool_size: int = Field(50, ge=0, le=1000)
    """Earlier fakes per domain that the discriminators see now and then; 0 for only new ones."""
    d_loss_weight: float = Field(0.5, gt=0.0)
    """Factor of the discriminators' losses; a half slows them against the generators."""
    learning_rate: float = Field(2e-4, gt=0.0)
    """Adam's rate of all networks at the start."""
    beta_1: float = Field(0.5, ge=0.0, lt=1.0)
    """Adam's decay of the gradient mean."""
    decay: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the epochs, at the end, over which the rate falls linearly to zero."""
    augment: str = ""
    """Differentiable augmentation of all that the discriminators see, e.g. color,translation."""
    ema: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the generators' weights, e.g. 0.999; 0 keeps none."""


Terms = dict[str, tuple[float, Tensor]]
"""Weight and float32 scalar of each part of an objective."""


@dataclass(frozen=True)
class Translations:
    """What the generators G: A -> B and F: B -> A make of a batch."""

    fake_b: Tensor  # G(a)
    fake_a: Tensor  # F(b)
    cycled_a: Tensor  # F(G(a))
    cycled_b: Tensor  # G(F(b))
    same_b: Tensor | None  # G(b)
    same_a: Tensor | None  # F(a)


class CycleGAN(GenerativeModel):
    """Two generators, G from A to B and F from B to A, and a discriminator for each domain.

    Args:
        config: the settings.
        image_size: side of the square pictures; a multiple of 4 (`resnet`) or of
            2^min(8, log2 size) (`unet`).
        a_channels, b_channels: of the pictures of each domain.
        schedule: total epochs and steps per epoch, for the learning rate.
        seed: of the initial weights, the pools, dropout and augmentation.
        inference: build the generators alone, to translate with a trained run.
    Raises:
        UserError: if the identity loss is on and the domains differ in channels.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 256},
        "train": {"batch_size": 1, "epochs": 200},
    }
    needs: ClassVar = "domains"
    exports: ClassVar = ("generator_ab", "generator_ba")

    def __init__(
        self,
        config: CycleGANConfig,
        image_size: int,
        a_channels: int,
        b_channels: int,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
        inference: bool = False,
    ) -> None:
        _refuse_identity_of_unlike_domains(config, a_channels, b_channels)
        super().__init__(_loss_names(config), seed=seed)
        self.config = config
        self.image_size = image_size
        self.generator_ab = self._build_generator("generator_ab", a_channels, b_channels)
        self.generator_ba = self._build_generator("generator_ba", b_channels, a_channels)
        self.networks = {"generator_ab": self.generator_ab, "generator_ba": self.generator_ba}
        if not inference:
            self._add_opponents(a_channels, b_channels, schedule)
        self.finish()

    def _build_generator(self, name: str, source: int, target: int) -> keras.Model:
        config, size = self.config, self.image_size
        if config.generator == "unet":
            return unet_generator(
                size,
                source,
                target,
                base=config.generator_base,
                dropout=config.dropout,
                seed=self.seed,
                name=name,
            )
        return resnet_translator(
            size,
            source,
            target,
            blocks=config.blocks or (6 if size <= 128 else 9),
            base=config.generator_base,
            seed=self.seed,
            name=name,
        )

    def _add_opponents(self, a_channels: int, b_channels: int, schedule: Schedule) -> None:
        """Discriminators, losses, pools and optimizers: what only training needs."""
        self.opponent_a = self._opponent("a", a_channels)
        self.opponent_b = self._opponent("b", b_channels)
        self.discriminator_a = self.opponent_a.discriminator
        self.discriminator_b = self.opponent_b.discriminator
        self.notices += self.opponent_a.game.notices
        if self.config.ema:
            self.keep_average(self.generator_ab)
            self.keep_average(self.generator_ba)
        self._adam("generators", schedule, self.generator_ab, self.generator_ba)
        self._adam("discriminators", schedule, self.discriminator_a, self.discriminator_b)

    def _opponent(self, domain: str, channels: int) -> Opponent:
        config, size = self.config, self.image_size
        discriminator = patch_discriminator(
            config.discriminator,
            size,
            (channels,),
            base=config.discriminator_base,
            norm="instance-plain",
            bias=True,
            seed=self.seed,
            name=f"discriminator_{domain}",
        )
        pool = ImagePool(config.pool_size, (size, size, channels), f"pool_{domain}")
        self.networks[discriminator.name] = discriminator
        self.extra_state |= pool.state
        game = Game(config, discriminator, config.beta_1)
        return Opponent(discriminator, game, DiffAugment(config.augment, (channels,)), pool)

    def _adam(self, name: str, schedule: Schedule, *networks: keras.Model) -> None:
        config = self.config
        adam = decaying_adam(config.learning_rate, config.beta_1, config.decay, schedule)
        self.own_optimizer(name, adam, *networks)

    def train_step(self, batch: DomainBatch) -> dict[str, Tensor]:
        """Both generators first, then both discriminators, on fakes made before either moved."""
        with tf.GradientTape() as tape:
            made = self.translations(batch)
            terms = self.generator_terms(batch, made)
            generators = weighted_sum(terms)
        self.minimize(generators, tape, "generators", self.generator_ab, self.generator_ba)
        if self.config.ema:
            self.update_average(self.generator_ab, self.config.ema)
            self.update_average(self.generator_ba, self.config.ema)

        old_a = self.opponent_a.pool.exchange(made.fake_a, self._seed_of_all_replicas(POOLS))
        old_b = self.opponent_b.pool.exchange(made.fake_b, self._seed_of_all_replicas(POOLS + 1))
        with tf.GradientTape() as tape:
            verdicts = self.verdicts(batch, old_a, old_b)
            discriminators = weighted_sum(self.discriminator_terms(verdicts))
        self.minimize(
            discriminators, tape, "discriminators", self.discriminator_a, self.discriminator_b
        )
        for opponent in (self.opponent_a, self.opponent_b):
            opponent.game.constrain()
        return self.track(
            generators=generators,
            discriminators=discriminators,
            **_reported(terms),
            **_summary(verdicts, self.opponent_a.game.has_penalty),
        )

    def translations(self, batch: DomainBatch) -> Translations:
        """There, there and back, and each generator on its own target domain; in training mode."""
        a, b = batch["a"], batch["b"]
        if self.config.lambda_identity:
            # One pass for two pictures, which do not interact under instance norm.
            both = tf.concat([a, b], axis=0)
            fake_b, same_b = tf.split(self.generator_ab(both, training=True), 2)
            same_a, fake_a = tf.split(self.generator_ba(both, training=True), 2)
        else:
            fake_b, same_b = self.generator_ab(a, training=True), None
            fake_a, same_a = self.generator_ba(b, training=True), None
        cycled_a = self.generator_ba(fake_b, training=True)
        cycled_b = self.generator_ab(fake_a, training=True)
        return Translations(fake_b, fake_a, cycled_a, cycled_b, same_b, same_a)

    def generator_terms(self, batch: DomainBatch, made: Translations) -> Terms:
        """The generators' objective, term by term; all of it is minimized over G and F.

        adv(D_B(G(a))) + adv(D_A(F(b))) + lambda (|F(G(a)) - a| + |G(F(b)) - b|)
        + lambda identity (|G(b) - b| + |F(a) - a|)
        """
        a, b = batch["a"], batch["b"]
        cycle = self.config.lambda_cycle
        ab = self.opponent_b.generator_loss(b, made.fake_b, self.random_seed(FOOLING))
        ba = self.opponent_a.generator_loss(a, made.fake_a, self.random_seed(FOOLING + 1))
        terms = {
            "adversarial_ab": (1.0, ab),
            "adversarial_ba": (1.0, ba),
            "cycle_a": (cycle, l1_loss(a, made.cycled_a)),
            "cycle_b": (cycle, l1_loss(b, made.cycled_b)),
        }
        if self.config.lambda_identity:
            identity = cycle * self.config.lambda_identity
            terms["identity_a"] = (identity, l1_loss(a, made.same_a))
            terms["identity_b"] = (identity, l1_loss(b, made.same_b))
        return terms

    def verdicts(self, batch: DomainBatch, fake_a: Tensor, fake_b: Tensor) -> dict[str, Verdict]:
        """What each discriminator says of real pictures of its domain and of fakes."""
        step, seed = self.step.value, self.random_seed
        return {
            "a": self.opponent_a.judge(batch["a"], fake_a, seed(JUDGING), step),
            "b": self.opponent_b.judge(batch["b"], fake_b, seed(JUDGING + 1), step),
        }

    def discriminator_terms(self, verdicts: dict[str, Verdict]) -> Terms:
        """The discriminators' objective, term by term."""
        terms: Terms = {}
        for domain, verdict in verdicts.items():
            terms[f"discriminator_{domain}"] = (self.config.d_loss_weight, verdict.loss)
            terms[f"penalty_{domain}"] = (1.0, verdict.penalty)
        return terms

    def _seed_of_all_replicas(self, stream: int) -> Tensor:
        """Like `random_seed`, but the same on every replica: pools are filled in step."""
        return tf.stack([tf.constant(self.seed + 1009 * stream, tf.int64), self.step.value])

    def translate(
        self, images: Tensor, direction: str = "a2b", stochastic: bool = False, seed: int = 0
    ) -> Tensor:
        """Translated pictures, float32 in [-1, 1].

        Args:
            images: `(batch, size, size, channels)` of the domain to start from, as in training.
            direction: "a2b" or "b2a".
            stochastic: keep the dropout of a U-Net on; a residual translator has none.
            seed: of the dropout.
        Raises:
            UserError: for another direction.
        """
        if direction not in DIRECTIONS:
            raise UserError(f'--direction is "{direction}". Expected {" or ".join(DIRECTIONS)}.')
        generator = self.average(DIRECTIONS[direction])
        if not stochastic:
            return generator(images, training=False)
        with self.undisturbed(generator, seed):
            return generator(images, training=True)


@dataclass(frozen=True)
class Verdict:
    """What one discriminator says, and its loss."""

    real_logits: list[Tensor]
    fake_logits: list[Tensor]
    loss: Tensor
    penalty: Tensor


@dataclass(frozen=True)
class Opponent:
    """All that the generators meet in one domain."""

    discriminator: keras.Model
    game: Game
    augment: DiffAugment
    pool: ImagePool

    def generator_loss(self, real: Tensor, fake: Tensor, seed: Tensor) -> Tensor:
        """Adversarial loss of the generator that made `fake`."""
        if self.game.needs_real:
            real_logits, fake_logits = self._scores(real, fake, seed)
            return self.game.generator_loss(fake_logits, real_logits)
        return self.game.generator_loss(self._seen(self._shown(fake, seed)))

    def judge(self, real: Tensor, fake: Tensor, seed: Tensor, step: Tensor) -> Verdict:
        """Scores and loss of the discriminator."""
        real_logits, fake_logits = self._scores(real, fake, seed)
        loss = self.game.discriminator_loss(real_logits, fake_logits)
        penalty = self.game.penalty(self._seen, real, fake, seed, step)
        return Verdict(real_logits, fake_logits, loss, penalty)

    def _scores(
        self, real: Tensor, fake: Tensor, seed: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of real and generated pictures in one pass, for they do not interact."""
        scores = self._seen(self._shown(tf.concat([real, fake], axis=0), seed))
        both = [tf.split(score, 2) for score in scores]
        return [real for real, _ in both], [fake for _, fake in both]

    def _seen(self, images: Tensor) -> list[Tensor]:
        scores: list[Tensor] = self.discriminator(images, training=True)
        return scores

    def _shown(self, images: Tensor, seed: Tensor) -> Tensor:
        return self.augment(images, seed) if self.augment else images


class ImagePool:
    """Earlier fakes of one domain, so that a discriminator does not forget them.

    Until `size` pictures are stored, each is stored and returned. Then every new one is returned
    or, in half of the cases, a stored one in its stead, whose place it takes.

    Args:
        size: how many pictures; 0 returns what comes in.
        shape: `(height, width, channels)` of a picture.
    Source: Shrivastava et al., arXiv:1612.07828, section 2.3;
        junyanz/pytorch-CycleGAN-and-pix2pix, util/image_pool.py.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], name: str) -> None:
        self.size = size
        self.state: dict[str, keras.Variable] = {}
        if size:
            self._pictures = _kept((size, *shape), "float32", name)
            self._count = _kept((), "int64", f"{name}_count")
            self.state = {name: self._pictures, f"{name}_count": self._count}

    def exchange(self, images: Tensor, seed: Tensor) -> Tensor:
        """Pictures to show to the discriminator instead of `images`, as many, of the same type.

        Args:
            images: `(batch, height, width, channels)`, on each replica its own.
            seed: `(2,)`, the same on all replicas: each keeps a copy of one pool of all pictures.
        """
        if not self.size:
            return images
        context = tf.distribute.get_replica_context()
        replicas, share = context.num_replicas_in_sync, images.shape[0]
        if replicas > 1:
            images = context.all_gather(images, axis=0)
        chances = random.uniform((2, share * replicas), seed)
        returned = [
            self._exchange_one(images[index], chances[0, index], chances[1, index])
            for index in range(share * replicas)
        ]
        first = share * context.replica_id_in_sync_group if replicas > 1 else 0
        return tf.stack(returned)[first : first + share]

    def _exchange_one(self, image: Tensor, swap: Tensor, place: Tensor) -> Tensor:
        full = self._count.value >= self.size
        swapped = full & (swap < 0.5)
        random_place = tf.minimum(tf.cast(place * self.size, tf.int64), self.size - 1)
        place = tf.where(full, random_place, tf.minimum(self._count.value, self.size - 1))
        stored = tf.gather(self._pictures.value, place)
        kept = tf.where(full & ~swapped, stored, tf.cast(image, stored.dtype))
        self._pictures.value.scatter_update(tf.IndexedSlices(kept[None], place[None]))
        self._count.assign(tf.minimum(self._count.value + 1, self.size))
        return tf.where(swapped, tf.cast(stored, image.dtype), image)


def _kept(shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
    return keras.Variable(
        "zeros",
        shape=shape,
        dtype=dtype,
        trainable=False,
        name=name,
        aggregation=SUM_PER_REPLICA,
    )


def weighted_sum(terms: Terms) -> Tensor:
    """The objective, a float32 scalar."""
    return tf.add_n([weight * value for weight, value in terms.values()])


def _loss_names(config: CycleGANConfig) -> list[str]:
    return [
        *("generators", "discriminators", "adversarial_ab", "adversarial_ba", "cycle"),
        *(["identity"] if config.lambda_identity else []),
        *(["penalty"] if config.penalty_in_use != "none" else []),
        *("real_score", "fake_score", "sign_accuracy"),
    ]


def _reported(terms: Terms) -> dict[str, Tensor]:
    """Values without their weights; cycle and identity of both directions together."""
    values = {name: value for name, (_, value) in terms.items()}
    reported = {name: values[name] for name in ("adversarial_ab", "adversarial_ba")}
    reported["cycle"] = values["cycle_a"] + values["cycle_b"]
    if "identity_a" in values:
        reported["identity"] = values["identity_a"] + values["identity_b"]
    return reported


def _summary(verdicts: dict[str, Verdict], penalized: bool) -> dict[str, Tensor]:
    """Penalty of both, and their scores in the mean."""
    a, b = verdicts["a"], verdicts["b"]
    accuracies = [sign_accuracy(v.real_logits, v.fake_logits) for v in (a, b)]
    return {
        **({"penalty": a.penalty + b.penalty} if penalized else {}),
        "real_score": mean_score(a.real_logits + b.real_logits),
        "fake_score": mean_score(a.fake_logits + b.fake_logits),
        "sign_accuracy": tf.add_n(accuracies) / 2,
    }


def _refuse_identity_of_unlike_domains(
    config: CycleGANConfig, a_channels: int, b_channels: int
) -> None:
    if config.lambda_identity and a_channels != b_channels:
        raise UserError(
            f"model.lambda_identity: {config.lambda_identity} keeps pictures of the target domain "
            f"as they are, which needs domains of equal channels; A has {a_channels} and B "
            f"{b_channels}. Set model.lambda_identity=0, or data.channels for both."
        )
