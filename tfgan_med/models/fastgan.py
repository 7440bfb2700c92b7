"""FastGAN: pictures of 64 to 1024 pixels from noise, learned from a hundred examples or so.

Source: Liu et al., "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image
Synthesis", arXiv:2101.04775; differentiable augmentation of Zhao et al., arXiv:2006.10738;
pictures together with their masks as in Sobolev's thesis on GANs for medical images.

The discriminator must be able to rebuild real pictures from its features, which keeps it from
learning a hundred pictures by heart; small maps of the generator switch channels of large ones.

Deviations from the paper: margins of the hinge loss are drawn from [0.8, 1] (the authors'
training; `margin_noise: 0` is the paper's 1); the reconstruction loss is a mean over the batch;
SiLU inside the gates; sizes 64 and 128; samples come from recalibrated batch-norm statistics, not
from those of the batch they are made in. In the thesis one pipeline treats image and masks as one
picture, which `augment_groups: joint` repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers, ops
from pydantic import Field

from tfgan_med.augment.diffaugment import DiffAugment
from tfgan_med.batches import ImageBatch, Tensor
from tfgan_med.errors import UserError
from tfgan_med.layers.batch_normalization import FusedBatchNormalization
from tfgan_med.layers.noise import NoiseInjection
from tfgan_med.layers.skip_excitation import skip_excitation
from tfgan_med.layers.spectral import SpectralConv2D, SpectralConv2DTranspose, power_iteration
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.losses.game import Game, GameConfig, mean_score, sign_accuracy
from tfgan_med.losses.perceptual import LearnedDistance, PerceptualLoss
from tfgan_med.losses.reconstruction import l1_loss
from tfgan_med.models._latent import LatentModel
from tfgan_med.networks import lpips
from tfgan_med.networks.initialization import normal_weights, seed_of
from tfgan_med.ops import random

SIZES = (64, 128, 256, 512, 1024)
MAX_SMALL_SIZE = 128
VGG_LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3")

# Streams of random numbers, so that no two draws of a step are the same.
LATENTS, REAL, FAKE, SMALL_FAKE, CORNER, REAL_MARGIN, FAKE_MARGIN, PENALTY = range(8)


class FastGANConfig(GameConfig):
    """Settings of the networks, losses and optimizers."""

    adversarial: str = "hinge"
    """Adversarial loss; the paper's is hinge."""
    margin_noise: float = Field(0.2, ge=0.0, lt=1.0)
    """Hinge only: the margin of each score is drawn from [1 - margin_noise, 1]; 0 is the paper's
    fixed margin of 1."""
    generator_base: int = Field(64, ge=8, le=128, multiple_of=8)
    """Channels of the generator's maps of 128 pixels; those of 4 pixels have 16 times as many."""
    discriminator_base: int = Field(64, ge=8, le=128, multiple_of=8)
    """Channels of the discriminator's maps of 64 pixels; those of 8 pixels have 8 times as many."""
    latent_size: int = Field(256, ge=2)
    """Numbers of a latent vector."""
    augment: str = "color,translation"
    """Differentiable augmentation of real and generated pictures alike; cutout may be added below
    some 500 pictures; empty for none."""
    augment_groups: Literal["separate", "joint"] = "separate"
    """With masks: `separate` changes colors of the picture alone, `joint` of picture and masks as
    if they were one picture, as in the thesis; masks then bleed into the picture."""
    recon: Literal["auto", "lpips", "vgg", "l1"] = "auto"
    """How rebuilt pictures are compared with real ones: lpips (the paper's), vgg (features of the
    VGG16 of Keras) or l1. `auto` is lpips if its weights are on this machine, else l1."""
    recon_weight: float = Field(8.0, ge=0.0)
    """Weight of the mean of that distance; 8 is the sum over the authors' batch of 8."""
    lpips_net: Literal["vgg", "alex", "squeeze", "squeezenet-caffe"] = "vgg"
    """Network of lpips; vgg is the paper's. squeezenet-caffe has weights of 3 MB and is not quite
    LPIPS."""
    lpips_trunk: Path | None = None
    """File with the weights of that network; by default the one in the weights folder."""
    lpips_linear: Path | None = None
    """File with the linear layers of LPIPS 0.1; by default the one in the weights folder."""
    vgg_weights: Path | None = None
    """For vgg: VGG16 weights in Keras format (notop); by default those in the weights folder."""
    learning_rate: float = Field(2e-4, gt=0.0)
    """Adam's rate of both players, constant."""
    beta_1: float = Field(0.5, ge=0.0, lt=1.0)
    """Adam's decay of the gradient mean."""
    ema: float = Field(0.999, ge=0.0, lt=1.0)
    """Decay of the moving average of the generator's weights, which samples come from; 0 keeps
    none."""


class FastGAN(LatentModel):
    """Generator and self-supervised discriminator for few pictures.

    Args:
        config: the settings.
        image_size: side of the square pictures: 64, 128, 256, 512 or 1024.
        channels: of the picture, then of each kind of mask made with it.
        schedule: unused; the learning rate is constant.
        seed: of the initial weights and of all random numbers.
        inference: build the generator alone, to make pictures with a trained run.
    Attributes:
        reconstruction: the distance in use, by name: `l1`, `vgg`, `lpips-vgg` ...; None with
            `inference`.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 256},
        "train": {"batch_size": 8, "steps": 50_000},
    }

    def __init__(
        self,
        config: FastGANConfig,
        image_size: int,
        channels: tuple[int, ...],
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
        inference: bool = False,
    ) -> None:
        _check_size(image_size)
        penalty = ["penalty"] if config.penalty_in_use != "none" else []
        terms = ["reconstruction", "reconstruction_small", "reconstruction_part", *penalty]
        scores = ["real_score", "fake_score", "sign_accuracy"]
        super().__init__(["generator", "discriminator", *terms, *scores], seed=seed)
        self.config = config
        self.latent_size = config.latent_size
        self.small_size = small_size(image_size)
        self.reconstruction: str | None = None
        self.generator = fastgan_generator(
            image_size, sum(channels), config.generator_base, config.latent_size, seed
        )
        self.networks = {"generator": self.generator}
        if not inference:
            self._add_opponent(image_size, tuple(channels))
        self.finish()

    def _add_opponent(self, image_size: int, channels: tuple[int, ...]) -> None:
        """Discriminator, decoders, losses and optimizers: what only training needs."""
        config = self.config
        base, seed = config.discriminator_base, self.seed + 1
        self.discriminator = fastgan_discriminator(image_size, sum(channels), base, seed)
        self.decoders = fastgan_decoders(image_size, sum(channels), base, seed)
        self.networks["discriminator"] = self.discriminator
        self.networks["decoders"] = self.decoders
        if config.ema:
            self.keep_average(self.generator)
        self.game = Game(config, self.discriminator, config.beta_1)
        self.notices.extend(self.game.notices)
        self.augment = _augmentation(config, channels)
        self.distance = ReconstructionDistance(config, channels)
        self.reconstruction = self.distance.name
        self.notices.extend(self.distance.notices)
        if self.distance.vgg is not None:
            self.extra_state["feature_scales"] = self.distance.vgg.feature_scales
        self._adam("generator", self.generator)
        self._adam("discriminator", self.discriminator, self.decoders)

    def _adam(self, name: str, *networks: keras.Model) -> None:
        config = self.config
        adam = FusedAdam(config.learning_rate, config.beta_1, beta_2=0.999, epsilon=1e-8)
        self.own_optimizer(name, adam, *networks)

    def calibrate(self, batches: Iterable[ImageBatch]) -> None:
        """Measure the size of VGG features on real pictures, for `recon: vgg`."""
        if self.distance.vgg is not None:
            for batch in batches:
                self.distance.vgg.calibrate(self.distance.picture(batch["images"]))

    def train_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Discriminator and decoders first, then the generator, on the same generated pictures."""
        power_iteration(self.generator, self.discriminator, self.decoders)
        images = self.augment(batch["images"], self.random_seed(REAL))
        real = [images, shrink(images, self.small_size)]
        latents = self.normal((images.shape[0], self.latent_size), LATENTS)

        with tf.GradientTape() as tape:
            fake = [
                self.augment(made, self.random_seed(stream))
                for made, stream in zip(
                    self.generator(latents, training=True), (FAKE, SMALL_FAKE), strict=True
                )
            ]
            with tape.stop_recording():
                logged = self._train_discriminator(real, fake)
                # A relativistic generator needs the scores that the discriminator gives now.
                real_scores = self._scores(real) if self.game.needs_real else None
            generator_loss = self.game.generator_loss(self._scores(fake), real_scores)
        self.minimize(generator_loss, tape, "generator", self.generator)
        if self.config.ema:
            self.update_average(self.generator, self.config.ema)
        return self.track(generator=generator_loss, **logged)

    def _scores(self, images: list[Tensor]) -> Tensor:
        scores, *_ = self.discriminator(images, training=True)
        return scores

    def _train_discriminator(self, real: list[Tensor], fake: list[Tensor]) -> dict[str, Tensor]:
        """One step on scores and reconstructions together; real and generated pictures pass
        separately, since batch-norm statistics must not mix.

        Returns the values to track; `discriminator` is the adversarial part alone.
        """
        with tf.GradientTape() as tape:
            real_scores, *features = self.discriminator(real, training=True)
            fake_scores = self._scores(fake)
            adversarial = self._adversarial(real_scores, fake_scores)
            terms = self._reconstruction(real[0], features)
            loss = adversarial + self.config.recon_weight * sum(terms.values())
            penalty = self._penalty(real[0], fake[0])
            loss += sum(penalty.values())
        self.minimize(loss, tape, "discriminator", self.discriminator, self.decoders)
        self.game.constrain()
        return {
            "discriminator": adversarial,
            **terms,
            **penalty,
            "real_score": mean_score(real_scores),
            "fake_score": mean_score(fake_scores),
            "sign_accuracy": sign_accuracy(real_scores, fake_scores),
        }

    def _adversarial(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """The game's loss; for hinge with a margin of its own for every score.

        relu(m - D(x)) = relu(1 - (D(x) + 1 - m)),    1 - m ~ U(0, margin_noise)
        """
        if self.config.adversarial == "hinge" and self.config.margin_noise:
            real_scores += self._margin_cut(real_scores, REAL_MARGIN)
            fake_scores -= self._margin_cut(fake_scores, FAKE_MARGIN)
        return self.game.discriminator_loss(real_scores, fake_scores)

    def _margin_cut(self, scores: Tensor, stream: int) -> Tensor:
        seed = self.random_seed(stream)
        return self.config.margin_noise * random.uniform(scores.shape, seed)

    def _penalty(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if not self.game.has_penalty:
            return {}

        def critic(images: Tensor) -> Tensor:
            return self._scores([images, shrink(images, self.small_size)])

        seed = self.random_seed(PENALTY)
        return {"penalty": self.game.penalty(critic, real, fake, seed, self.step.value)}

    def _reconstruction(self, images: Tensor, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Distances of real pictures, their small versions and a quarter of them to what the
        decoders make of the discriminator's features."""
        of_image, of_part, of_small = features
        corner = self._corner()
        made = self.decoders([of_image, of_small, quarter(of_part, corner)], training=True)
        wanted = [images, shrink(images, self.small_size), quarter(images, corner)]
        names = ("reconstruction", "reconstruction_small", "reconstruction_part")
        return {
            name: self.distance(shrink(target, rebuilt.shape[1]), rebuilt)
            for name, target, rebuilt in zip(names, wanted, made, strict=True)
        }

    def _corner(self) -> Tensor:
        """Which quarter of all pictures of a batch is rebuilt: `(lower?, right?)`, drawn."""
        seed = self.random_seed(CORNER)
        return random.uniform((2,), seed) < 0.5

    def prepare_samples(self, batches: int = 100) -> keras.Model:
        """As `LatentModel`; the statistics are averaged over the same noise each time."""
        for layer in self._sampler.layers if self._sampler else ():
            if isinstance(layer, NoiseInjection):
                layer.restart()
        return super().prepare_samples(batches)


def quarter(maps: Tensor, corner: Tensor) -> Tensor:
    """One quarter of every map: `(batch, side, side, channels)` to half the side.

    Args:
        corner: `(2,)` bool: the lower half rather than the upper, the right rather than the left.
    """
    half = maps.shape[1] // 2
    rows = tf.where(corner[0], maps[:, half:], maps[:, :half])
    return tf.where(corner[1], rows[:, :, half:], rows[:, :, :half])


def shrink(images: Tensor, size: int) -> Tensor:
    """Images at `size` pixels per side, a divisor of their own, by averaging areas."""
    factor = images.shape[1] // size
    return images if factor == 1 else tf.nn.avg_pool2d(images, factor, factor, "VALID")


def _augmentation(config: FastGANConfig, channels: tuple[int, ...]) -> DiffAugment:
    if config.augment_groups == "joint":
        return DiffAugment(config.augment, groups=(sum(channels),))
    return DiffAugment(config.augment, groups=channels, color_groups=(0,))


# Networks -----------------------------------------------------------------------------------------


def small_size(image_size: int) -> int:
    """Side of the second, small picture that the generator makes and the discriminator sees."""
    return min(MAX_SMALL_SIZE, image_size // 2)


def fastgan_generator(
    image_size: int,
    channels: int,
    base: int = 64,
    latent_size: int = 256,
    seed: int = 0,
    name: str = "generator",
) -> keras.Model:
    """From 4 pixels a side to the picture, each doubling followed by a gate from a small map.

    Args:
        image_size: one of `SIZES`.
        channels: of the picture.
        base: channels of maps of 128 pixels a side.
        latent_size: numbers of a latent vector.
        seed: of starting weights and noise.
    Returns:
        A model from `(batch, latent_size)` to a list of the picture `(batch, size, size,
        channels)` and a small one of `small_size(size)`, both float32 in [-1, 1] under every
        precision.
    """
    width = _widths({4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1}, base)
    weights = _starting_weights(seed, name)
    latents = keras.Input((latent_size,), name="latents")
    x = layers.Reshape((1, 1, latent_size), name="latent_map")(latents)
    x = SpectralConv2DTranspose(
        2 * width(4), 4, use_bias=False, kernel_initializer=weights("up4"), name="up4"
    )(x)
    x = _normalized_glu(x, "up4")
    maps = {4: x}
    side = 4
    while side < image_size:
        side *= 2
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"up{side}_repeat")(x)
        x = _convolution(x, 2 * width(side), 3, weights, f"up{side}")
        if side in (8, 32, 128, 512):
            x = NoiseInjection(seed_of(seed, f"{name}/noise{side}a"), name=f"noise{side}a")(x)
            x = _normalized_glu(x, f"up{side}")
            x = _convolution(x, 2 * width(side), 3, weights, f"refine{side}")
            x = NoiseInjection(seed_of(seed, f"{name}/noise{side}b"), name=f"noise{side}b")(x)
            x = _normalized_glu(x, f"refine{side}")
        else:
            x = _normalized_glu(x, f"up{side}")
        if 64 <= side <= 512:
            x = skip_excitation(maps[side // 16], x, weights, f"gate{side}")
        maps[side] = x
    heads = ((image_size, 3, "image"), (small_size(image_size), 1, "small"))
    outputs = []
    for side, kernel, label in heads:
        x = _convolution(maps[side], channels, kernel, weights, f"{label}_conv", dtype="float32")
        outputs.append(layers.Activation("tanh", dtype="float32", name=label)(x))
    return keras.Model(latents, outputs, name=name)


def fastgan_discriminator(
    image_size: int, channels: int, base: int = 64, seed: int = 0, name: str = "discriminator"
) -> keras.Model:
    """Scores of a picture and of its small version, and features to rebuild them from.

    Args:
        image_size: one of `SIZES`.
        channels: of the picture.
        base: channels of maps of 64 pixels a side.
        seed: of the starting weights.
    Returns:
        A model from `[picture, small picture]` to a list of scores `(batch, 50)` float32, 25 of
        each picture, and the features to rebuild the picture `(batch, 8, 8, 8 base)`, a quarter
        of it `(batch, 16, 16, 4 base)` and the small picture `(batch, 8, 8, 4 base)`.
    """
    width = _widths({8: 16, 16: 8, 32: 4, 64: 2, 128: 1}, base)
    weights = _starting_weights(seed, name)
    image = keras.Input((image_size, image_size, channels), name="image")
    small = keras.Input((small_size(image_size),) * 2 + (channels,), name="small")

    x = _stem(image, width, weights)
    side = x.shape[1]
    maps = {side: x}
    while side > 8:
        side //= 2
        x = _down(x, width(2 * side), weights, f"down{side}")
        if 8 * side in maps:
            x = skip_excitation(maps[8 * side], x, weights, f"gate{side}")
        maps[side] = x
    x = _convolution(x, width(8), 1, weights, "score_mix")
    x = _leaky(_norm(x, "score_mix"), "score_mix")
    scores = [_scores(x, weights, "score")]

    x = small
    while x.shape[1] > 8:
        side = x.shape[1] // 2
        first = x is small
        x = _convolution(x, width(4 * side), 4, weights, f"small{side}", strides=2)
        x = _leaky(x if first else _norm(x, f"small{side}"), f"small{side}")
    scores.append(_scores(x, weights, "small_score"))

    both = layers.Concatenate(dtype="float32", name="scores")(scores)
    return keras.Model([image, small], [both, maps[8], maps[16], x], name=name)


def fastgan_decoders(
    image_size: int, channels: int, base: int = 64, seed: int = 0, name: str = "decoders"
) -> keras.Model:
    """Three decoders of the discriminator's features, in one network.

    Args:
        image_size, channels, base: as for `fastgan_discriminator`.
        seed: of the starting weights.
    Returns:
        A model from features of the picture, of the small picture and of a quarter of the picture
        `(batch, 8, 8, channels)`, to these three pictures, float32 in [-1, 1], at their own size
        but at most 128 pixels a side.
    """
    weights = _starting_weights(seed, name)
    sizes = {"image": image_size, "small": small_size(image_size), "part": image_size // 2}
    depths = {"image": 8 * base, "small": 4 * base, "part": 4 * base}
    inputs, outputs = [], []
    for label, size in sizes.items():
        inputs.append(keras.Input((8, 8, depths[label]), name=f"{label}_features"))
        x = inputs[-1]
        for depth in (2 * base, base, base, base // 2):
            if x.shape[1] == min(size, MAX_SMALL_SIZE):
                break
            stage = f"{label}{2 * x.shape[1]}"
            x = layers.UpSampling2D(2, interpolation="nearest", name=f"{stage}_repeat")(x)
            x = _normalized_glu(_convolution(x, 2 * depth, 3, weights, stage), stage)
        x = _convolution(x, channels, 3, weights, f"{label}_conv", dtype="float32")
        outputs.append(layers.Activation("tanh", dtype="float32", name=label)(x))
    return keras.Model(inputs, outputs, name=name)


class GatedLinearUnit(keras.layers.Layer):
    """`a * sigmoid(b)` of the two halves of the channels.

    Shapes: `(batch, height, width, channels)` to `(batch, height, width, channels / 2)`.
    Source: Dauphin et al., arXiv:1612.08083, eq. 1.
    """

    def call(self, inputs: Any) -> Any:
        values, gates = ops.split(inputs, 2, axis=-1)
        return values * ops.sigmoid(gates)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        *places, channels = input_shape
        return (*places, (channels or 0) // 2)


def _check_size(image_size: int) -> None:
    if image_size not in SIZES:
        raise ValueError(
            f"image_size is {image_size}; FastGAN makes pictures of {', '.join(map(str, SIZES))} "
            "pixels a side."
        )


def _widths(multiples: dict[int, int], base: int) -> Callable[[int], int]:
    """Channels by the side of a map; beyond the named sides they halve with every doubling."""
    return lambda side: multiples[side] * base if side in multiples else base * 128 // side


def _starting_weights(seed: int, network: str) -> Callable[[str], Any]:
    return lambda layer: normal_weights(seed, f"{network}/{layer}")


def _convolution(
    x: Any, filters: int, kernel: int, weights: Callable[[str], Any], label: str, **options: Any
) -> Any:
    """A spectrally normalized convolution without bias that keeps the size, or halves it."""
    return SpectralConv2D(
        filters,
        kernel,
        padding="same",
        use_bias=False,
        kernel_initializer=weights(label),
        name=label,
        **options,
    )(x)


def _norm(x: Any, label: str) -> Any:
    return FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{label}_norm")(x)


def _leaky(x: Any, label: str) -> Any:
    return layers.LeakyReLU(0.2, name=f"{label}_relu")(x)


def _normalized_glu(x: Any, label: str) -> Any:
    """Batch norm, then the gated linear unit a * sigmoid(b) of the two halves of the channels."""
    return GatedLinearUnit(name=f"{label}_glu")(_norm(x, label))


def _stem(image: Any, width: Callable[[int], int], weights: Callable[[str], Any]) -> Any:
    """The first map, of at most 256 pixels a side."""
    size = image.shape[1]
    if size <= 256:
        return _leaky(_convolution(image, width(2 * size), 3, weights, "stem"), "stem")
    x = _convolution(image, width(size), 4, weights, "stem", strides=2)
    x = _leaky(x, "stem")
    if size == 1024:
        x = _convolution(x, width(512), 4, weights, "stem256", strides=2)
        x = _leaky(_norm(x, "stem256"), "stem256")
    return x


def _down(x: Any, filters: int, weights: Callable[[str], Any], label: str) -> Any:
    """Half the size: the mean of a path of two convolutions and of averaged pixels."""
    a = _convolution(x, filters, 4, weights, f"{label}a", strides=2)
    a = _leaky(_norm(a, f"{label}a"), f"{label}a")
    a = _convolution(a, filters, 3, weights, f"{label}b")
    a = _leaky(_norm(a, f"{label}b"), f"{label}b")
    b = layers.AveragePooling2D(2, name=f"{label}_pool")(x)
    b = _convolution(b, filters, 1, weights, f"{label}c")
    b = _leaky(_norm(b, f"{label}c"), f"{label}c")
    return layers.Average(name=label)([a, b])


def _scores(x: Any, weights: Callable[[str], Any], label: str) -> Any:
    """5 x 5 scores of a map of 8 x 8, flat, float32."""
    x = SpectralConv2D(
        1, 4, use_bias=False, kernel_initializer=weights(label), name=label, dtype="float32"
    )(x)
    return layers.Reshape((25,), dtype="float32", name=f"{label}_flat")(x)


# Reconstruction -----------------------------------------------------------------------------------


class ReconstructionDistance:
    """How far rebuilt pictures are from real ones: the picture by `recon`, masks by L1.

    Args:
        config: the settings; `auto` is decided here.
        channels: of the picture, then of each kind of mask.
    Attributes:
        name: what is used: `l1`, `vgg`, or the name of the LPIPS network.
        vgg: the loss with scales to calibrate, for `vgg`.
        notices: what the user should know about it.
    Raises:
        MissingWeightsError: weights of a network that was asked for are not on this machine.
        UserError: a picture of neither 1 nor 3 channels and a network that needs them.
    """

    def __init__(self, config: FastGANConfig, channels: tuple[int, ...]) -> None:
        self.picture_channels = channels[0]
        self.name: str = config.recon
        self.notices: list[str] = []
        self.vgg: PerceptualLoss | None = None
        if config.recon == "auto":
            self.name = self._available(config)
        if self.name != "l1" and channels[0] not in (1, 3):
            raise UserError(
                f"model.recon: {self.name} sees pictures of 1 or 3 channels, these have "
                f"{channels[0]}. Use model.recon=l1."
            )
        self._distance: Callable[[Tensor, Tensor], Tensor] = l1_loss
        if self.name == "vgg":
            self.vgg = PerceptualLoss(VGG_LAYERS, weights_file=config.vgg_weights)
            self._distance = self.vgg
        elif self.name == "lpips":
            network = lpips.load(config.lpips_net, config.lpips_trunk, config.lpips_linear)
            self.name = network.name
            self._distance = LearnedDistance(network)

    def _available(self, config: FastGANConfig) -> str:
        """`lpips` where it can be had, else `l1` with a notice."""
        missing = lpips.missing(config.lpips_net, config.lpips_trunk, config.lpips_linear)
        if self.picture_channels not in (1, 3):
            reason = f"LPIPS sees 1 or 3 channels, not {self.picture_channels}"
        elif missing:
            reason = f"the weights {' and '.join(missing)} are not on this machine"
        else:
            return "lpips"
        self.notices.append(
            f"model.recon: auto compares rebuilt pictures by l1, for {reason}. The paper has "
            "LPIPS; values of the two are not comparable. model.recon=l1 says that l1 is meant."
        )
        return "l1"

    def picture(self, images: Tensor) -> Tensor:
        """The channels of the picture."""
        return images[..., : self.picture_channels]

    def __call__(self, target: Tensor, rebuilt: Tensor) -> Tensor:
        """Mean distance over the batch, float32 scalar; both `(batch, side, side, channels)`."""
        distance = self._distance(self.picture(target), self.picture(rebuilt))
        if target.shape[-1] > self.picture_channels:
            first = self.picture_channels
            distance += l1_loss(target[..., first:], rebuilt[..., first:])
        return distance
