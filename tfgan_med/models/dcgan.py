"""DCGAN: pictures or masks from noise, with convolutions throughout.

Source: Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", arXiv:1511.06434; the narrower networks for masks and the discriminator for
X-rays as in Sobolev's thesis on GANs for medical images, sections 4.4.2 and 4.3.3.1.

Deviations from the paper: latents are standard normal instead of uniform; the learning rate is
1e-4 (the thesis and the TensorFlow tutorial) instead of 2e-4, the batch 64 instead of 128. The
thesis' listing of the X-ray discriminator breaks off; it is completed by the TensorFlow tutorial
it follows (dropout 0.3), with the slope 0.2 of the paper. Sizes other than the sources' follow
their rule of widths. Samples use batch-norm statistics averaged over many batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers
from pydantic import Field

from tfgan_med.augment.diffaugment import DiffAugment
from tfgan_med.batches import ImageBatch, Tensor
from tfgan_med.layers.batch_normalization import FusedBatchNormalization
from tfgan_med.layers.spectral import SpectralConv2D, SpectralDense, power_iteration
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.losses.game import Game, GameConfig, mean_score, sign_accuracy
from tfgan_med.models._latent import LatentModel
from tfgan_med.networks.initialization import normal_weights, seed_of

SIZES = {"radford": (32, 64, 128), "mask": (32, 64, 128, 256)}
GENERATOR_BASE = {"radford": 1024, "mask": 512}
DISCRIMINATOR_BASE = {"radford": 64, "mask": 16}
WIDEST = {"radford": 8, "mask": 32}  # times the base of the discriminator
LARGEST_GOOD_SIZE = 128
MAX_PRODUCT_PIXELS = 16  # of a map, up to which a product is quicker than a convolution, measured


class DCGANConfig(GameConfig):
    """Settings of the networks, losses and optimizers."""

    variant: Literal["radford", "mask"] = "radford"
    """`radford`: the paper's, 32 to 128 px; `mask`: the thesis' narrower one, 32 to 256 px, with
    a last convolution that smooths."""
    d_style: Literal["paper", "tutorial"] = "paper"
    """Discriminator: batch norm (`paper`), or dropout and no norm in the widths of `radford`
    (`tutorial`: the thesis' X-rays). A gradient penalty needs one without batch norm."""
    dropout: float = Field(0.3, ge=0.0, lt=1.0)
    """Share of features that the `tutorial` discriminator drops."""
    latent_size: int = Field(100, ge=1)
    """Length of the latent vector."""
    generator_base: int | None = Field(None, ge=32)
    """Channels of the generator's 4 x 4 map, halved at each larger map. By default 1024 for
    `radford` and 512 for `mask`."""
    discriminator_base: int | None = Field(None, ge=1)
    """Channels of the discriminator's first map, doubled at each smaller map. By default 64 for
    `radford` and `tutorial`, 16 for `mask`."""
    spectral_norm: bool = False
    """Spectral norm in the discriminator, in place of batch norm."""
    augment: str = ""
    """Differentiable augmentation of what the discriminator sees: `color,translation`, below 500
    pictures also `cutout`; empty for none."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Of both networks; `rmsprop` is the choice of the Wasserstein GAN's paper, at 5e-5."""
    learning_rate: float = Field(1e-4, gt=0.0)
    """Constant rate of both networks."""
    beta_1: float = Field(0.5, ge=0.0, lt=1.0)
    """Adam's decay of the gradient mean."""
    critic_steps: int = Field(1, ge=1, le=20)
    """Discriminator steps for one of the generator, on the same real pictures with other fakes;
    Wasserstein losses take 5."""
    ema: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the generator's weights, e.g. 0.999; 0 keeps none."""


# Networks -----------------------------------------------------------------------------------------


def generator_widths(config: DCGANConfig, image_size: int) -> list[int]:
    """Channels of the maps 4 x 4, 8 x 8, ... before the last layer, which makes the picture.

    `radford` doubles the size in the last layer, `mask` before it.
    """
    base = config.generator_base or GENERATOR_BASE[config.variant]
    doublings = image_size.bit_length() - 3  # from 4 pixels
    maps = doublings + (config.variant == "mask")
    return [max(base >> level, base // 32) for level in range(maps)]


def discriminator_widths(config: DCGANConfig, image_size: int) -> list[int]:
    """Channels after each halving, down to 4 x 4 pixels, or 2 x 2 for `mask`."""
    shape = "radford" if config.d_style == "tutorial" else config.variant
    base = config.discriminator_base or DISCRIMINATOR_BASE[shape]
    halvings = image_size.bit_length() - (2 if shape == "mask" else 3)
    return [base * min(2**level, WIDEST[shape]) for level in range(halvings)]


def dcgan_generator(
    config: DCGANConfig, image_size: int, channels: int, seed: int = 0, name: str = "generator"
) -> keras.Model:
    """From noise to a picture: project to 4 x 4, then double with 5 x 5 transposed convolutions.

    Returns:
        A model from `(batch, latent_size)` to `(batch, size, size, channels)`, float32 in
        [-1, 1] under every precision.
    Raises:
        ValueError: if the variant does not make pictures of this size.
    """
    _check_size(config.variant, image_size)
    first, *widths = generator_widths(config, image_size)
    latents = keras.Input((config.latent_size,), name="latents")

    x = layers.Dense(
        16 * first,
        use_bias=False,
        kernel_initializer=normal_weights(seed, f"{name}/project"),
        name="project",
    )(latents)
    if config.variant == "mask":  # a norm per unit; the paper's is per channel
        x = _norm("project_norm")(x)
        x = layers.Reshape((4, 4, first), name="project_map")(x)
    else:
        x = layers.Reshape((4, 4, first), name="project_map")(x)
        x = _norm("project_norm")(x)
    x = layers.ReLU(name="project_relu")(x)

    for level, width in enumerate(widths):
        x = _enlarge(x, width, False, seed, f"{name}/up{level}")
        x = _norm(f"up{level}_norm")(x)
        x = layers.ReLU(name=f"up{level}_relu")(x)

    if config.variant == "mask":
        weights = normal_weights(seed, f"{name}/head")
        x = layers.Conv2D(
            channels, 5, padding="same", kernel_initializer=weights, name="head_conv"
        )(x)
    else:
        x = _enlarge(x, channels, True, seed, f"{name}/head")
    image = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model(latents, image, name=name)


def _enlarge(x: Any, width: int, bias: bool, seed: int, path: str) -> Any:
    return DoublingConvolution5(
        width,
        use_bias=bias,
        kernel_initializer=normal_weights(seed, path),
        name=f"{path.rpartition('/')[-1]}_conv",
    )(x)


class DoublingConvolution5(layers.Conv2DTranspose):
    """`Conv2DTranspose(filters, 5, strides=2, padding="same")`, quick on the 4 x 4 map too.

    The first kernel has most of the network's weights and few pixels to serve. On a CPU a
    convolution library takes longer to order such a kernel than to use it; as one matrix product
    whose shares are then added where they overlap, forward and backward take 0.6 of the time.

    Shapes: `(batch, height, width, channels)` to `(batch, 2 height, 2 width, filters)`.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 5, strides=2, padding="same", **kwargs)

    def call(self, inputs: Any) -> Any:
        if not _pays(inputs):
            return super().call(inputs)
        _, height, width, channels = inputs.shape
        kernel = tf.reshape(self.kernel, (25 * self.filters, channels))
        shares = tf.matmul(tf.reshape(inputs, (-1, channels)), kernel, transpose_b=True)
        shares = tf.reshape(shares, (-1, height, width, 5, 5, self.filters))
        rows = _overlap_add(shares, axis=1)  # (batch, 2 height, width, 5, filters)
        outputs = _overlap_add(rows, axis=2)
        return outputs + self.bias if self.use_bias else outputs

    def get_config(self) -> dict[str, Any]:
        fixed = ("kernel_size", "strides", "padding")
        return {key: value for key, value in super().get_config().items() if key not in fixed}


def _pays(inputs: Any) -> bool:
    _, height, width, _ = inputs.shape
    on_cpu = not tf.config.list_physical_devices("GPU")
    return on_cpu and isinstance(inputs, tf.Tensor) and height * width <= MAX_PRODUCT_PIXELS


def _overlap_add(shares: Tensor, axis: int) -> Tensor:
    """Add the shares of each position along `axis` at stride 2, cutting off what lies outside.

    The five shares lie on axis 3. Result 2i gets share 1 of i and 3 of i - 1; result 2i + 1 gets
    2 of i, 0 of i + 1 and 4 of i - 1.
    """
    parts = tf.unstack(shares, axis=3)  # slices would each send back a whole gradient of zeros
    even = parts[1] + _shifted(parts[3], axis, 1)
    odd = parts[2] + _shifted(parts[0], axis, -1) + _shifted(parts[4], axis, 1)
    pairs = tf.stack([even, odd], axis=axis + 1)
    shape = [-1, *even.shape[1:]]
    shape[axis] *= 2
    return tf.reshape(pairs, shape)


def _shifted(x: Tensor, axis: int, by: int) -> Tensor:
    """`x` moved by one along `axis`, forward or back, 0 coming in."""
    count = x.shape[axis]
    if by > 0:
        kept, lost = tf.split(x, [count - 1, 1], axis)
        return tf.concat([tf.zeros_like(lost), kept], axis)
    lost, kept = tf.split(x, [1, count - 1], axis)
    return tf.concat([kept, tf.zeros_like(lost)], axis)


def dcgan_discriminator(
    config: DCGANConfig, image_size: int, channels: int, seed: int = 0, name: str = "discriminator"
) -> keras.Model:
    """From a picture to one score: halve with 5 x 5 convolutions, then one linear unit.

    Convolutions have a bias where no batch norm follows; the first never has one.

    Returns:
        A model from `(batch, size, size, channels)` to `(batch, 1)`, float32, raw: no sigmoid.
    """
    tutorial = config.d_style == "tutorial"
    convolution = SpectralConv2D if config.spectral_norm else layers.Conv2D
    linear = SpectralDense if config.spectral_norm else layers.Dense
    image = keras.Input((image_size, image_size, channels), name="image")

    x = image
    for level, width in enumerate(discriminator_widths(config, image_size)):
        normalized = level > 0 and not tutorial and not config.spectral_norm
        label = f"down{level}"
        x = convolution(
            width,
            5,
            strides=2,
            padding="same",
            use_bias=not normalized,
            kernel_initializer=normal_weights(seed, f"{name}/{label}"),
            name=f"{label}_conv",
        )(x)
        if normalized:
            x = _norm(f"{label}_norm")(x)
        x = layers.LeakyReLU(0.2, name=f"{label}_relu")(x)
        if tutorial and config.dropout:
            draws = seed_of(seed, f"{name}/{label}/dropout")
            x = layers.Dropout(config.dropout, seed=draws, name=f"{label}_drop")(x)

    x = layers.Flatten(name="flatten")(x)
    weights = normal_weights(seed, f"{name}/score")
    score = linear(1, kernel_initializer=weights, dtype="float32", name="score")(x)
    return keras.Model(image, score, name=name)


def _norm(name: str) -> keras.layers.Layer:
    """Batch norm with PyTorch's constants; Keras' are too slow for runs of a few thousand steps."""
    return FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def _check_size(variant: str, image_size: int) -> None:
    if image_size not in SIZES[variant]:
        known = ", ".join(map(str, SIZES[variant]))
        more = " The variant `mask` makes 256 too." if image_size == 256 else ""
        raise ValueError(
            f"image_size is {image_size}; DCGAN's variant `{variant}` makes pictures of {known} "
            f"pixels.{more}"
        )


# The game -----------------------------------------------------------------------------------------


class DCGAN(LatentModel):
    """Pictures from latent vectors, judged as a whole.

    Args:
        config: the settings.
        image_size: side of the square pictures; 32, 64 or 128, with `variant: mask` also 256.
        channels: sizes of the channel groups: the picture, then masks made together with it.
        schedule: unused, the rate is constant.
        seed: of the initial weights, latents, augmentation and dropout.
        inference: build the generator alone, to make pictures with a trained run.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 64},
        "train": {"batch_size": 64, "epochs": 100},
    }

    def __init__(
        self,
        config: DCGANConfig,
        image_size: int,
        channels: tuple[int, ...],
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
        inference: bool = False,
    ) -> None:
        penalty = ["penalty"] if config.penalty_in_use != "none" else []
        scores = ["real_score", "fake_score", "sign_accuracy"]
        super().__init__(["generator", "discriminator", *penalty, *scores], seed=seed)
        self.config = config
        self.latent_size = config.latent_size
        self.generator = dcgan_generator(config, image_size, sum(channels), seed)
        self.networks = {"generator": self.generator}
        if image_size > LARGEST_GOOD_SIZE:
            self.notices.append(
                f"data.image_size is {image_size}: DCGAN rarely learns pictures over "
                f"{LARGEST_GOOD_SIZE} pixels. FastGAN does, also from few of them."
            )
        if not inference:
            self._add_opponent(image_size, channels)
        self.finish()

    def _add_opponent(self, image_size: int, channels: tuple[int, ...]) -> None:
        """Discriminator, loss and optimizers: what only training needs."""
        config = self.config
        self.discriminator = dcgan_discriminator(config, image_size, sum(channels), self.seed + 1)
        self.networks["discriminator"] = self.discriminator
        momentum = config.beta_1 if config.optimizer == "adam" else None
        self.game = Game(config, self.discriminator, momentum)
        self.notices += self.game.notices
        # Color belongs to the picture; masks made with it keep their two values.
        self.augment = DiffAugment(config.augment, channels, color_groups=(0,))
        if config.ema:
            self.keep_average(self.generator)
        for name in ("generator", "discriminator"):
            self.own_optimizer(name, self._optimizer(), self.networks[name])

    def _optimizer(self) -> keras.optimizers.Optimizer:
        rate = self.config.learning_rate
        if self.config.optimizer == "rmsprop":  # PyTorch's constants, which the paper's code has
            return keras.optimizers.RMSprop(rate, rho=0.99, epsilon=1e-8)
        return FusedAdam(rate, beta_1=self.config.beta_1, beta_2=0.999, epsilon=1e-8)

    def train_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The discriminator first, then the generator, on the same generated pictures.

        Further discriminator steps (`critic_steps`) come before, each on pictures of its own.
        """
        real = batch["images"]
        streams = itertools.count()  # another stream of random numbers for every draw of a step
        if self.config.spectral_norm:
            power_iteration(self.discriminator)
        for _ in range(self.config.critic_steps - 1):
            self._train_discriminator(real, self._fakes(real, streams), streams)

        with tf.GradientTape() as tape:
            fake = self._fakes(real, streams)
            with tape.stop_recording():
                judged = self._train_discriminator(real, fake, streams)
                real_logits = self._scores(real, streams) if self.game.needs_real else None
            fake_logits = self._scores(fake, streams)
            generator_loss = self.game.generator_loss(fake_logits, real_logits)
        self.minimize(generator_loss, tape, "generator", self.generator)
        if self.config.ema:
            self.update_average(self.generator, self.config.ema)
        return self.track(generator=generator_loss, **judged)

    def _fakes(self, real: Tensor, streams: Iterator[int]) -> Tensor:
        """As many generated pictures as there are real ones."""
        count = real.shape[0] or tf.shape(real)[0]
        latents = self.normal((count, self.latent_size), next(streams))
        return self.generator(latents, training=True)

    def _scores(self, images: Tensor, streams: Iterator[int]) -> Tensor:
        """Raw scores `(batch, 1)` of augmented pictures."""
        images = self.augment(images, self.random_seed(next(streams)))
        return self.discriminator(images, training=True)

    def _train_discriminator(
        self, real: Tensor, fake: Tensor, streams: Iterator[int]
    ) -> dict[str, Tensor]:
        """One step of the discriminator; its loss, penalty and scores.

        Real and generated pictures go through it one after the other, for their batch-norm
        statistics must not mix.
        """
        real = self.augment(real, self.random_seed(next(streams)))
        fake = self.augment(fake, self.random_seed(next(streams)))
        values = {}
        with tf.GradientTape() as tape:
            real_logits = self.discriminator(real, training=True)
            fake_logits = self.discriminator(fake, training=True)
            values["discriminator"] = total = self.game.discriminator_loss(real_logits, fake_logits)
            if self.game.has_penalty:
                seed = self.random_seed(next(streams))
                values["penalty"] = self.game.penalty(
                    self._critic, real, fake, seed, self.step.value
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

    def _critic(self, images: Tensor) -> Tensor:
        return self.discriminator(images, training=True)
