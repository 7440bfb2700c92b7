"""BSA: a generator that learned other pictures, adapted to up to a hundred new ones.

Source: Noguchi and Harada, "Image Generation from Small Datasets via Batch Statistics
Adaptation", arXiv:1904.01774; the generator is that of Miyato et al., arXiv:1802.05957.

There is no discriminator. All weights of the source are frozen but for its first dense layer, whose
rate is next to nothing. New are a scale and a shift of each channel behind the dense layer and
behind each batch norm of the blocks, 11 904 numbers at 128 pixels, and one latent vector for each
training picture, from which the generator must rebuild it. Batch norms keep the statistics they
were stored with.

Deviations from the reference (nogu-atsu/small-dataset-image-generation): ImageNet's mean is taken
off the right channels before VGG16; of a source with classes the mean over classes is adapted
rather than class 0 (`source_affine: 0` is the reference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import Field

from tfgan_med.batches import ImageBatch, Tensor
from tfgan_med.config import Config
from tfgan_med.errors import UserError
from tfgan_med.layers.batch_statistics import ScaleShift
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.losses.perceptual import LearnedDistance
from tfgan_med.losses.reconstruction import l1_loss
from tfgan_med.models._latent import LatentModel
from tfgan_med.networks import lpips, pretrained
from tfgan_med.networks.sngan import GeneratorPlan, sngan_generator
from tfgan_med.networks.vgg import LAYERS, caffe_pixels, vgg16_features
from tfgan_med.ops import random

Weights = Mapping[str, Sequence[npt.NDArray[Any]]]
"""Arrays of each layer of a generator that has any, by its name, in the order of `get_weights`."""
Affine = Literal["mean", "identity"] | Annotated[int, Field(ge=0)]
Distance = Callable[[Tensor, Tensor], Tensor]

VGG_LAYERS = LAYERS[:10]  # conv1_1 to conv4_3
DRAWS = 10  # normal vectors for each latent vector that they are compared with

# Streams of random numbers, so that no two draws of a step are the same.
NOISE, NORMAL = range(2)


class BSAConfig(Config):
    """The source and what is learned from it; the paper's values."""

    source: Path | None = None
    """What is adapted: a run folder of `sngan`, or the generator that the authors of SNGAN
    published, `ResNetGenerator_850000.npz`."""
    random_source: bool = False
    """Adapt random weights instead: what a source is worth shows beside it."""
    source_base: int | None = Field(None, ge=1)
    """With `random_source`: channels of the last map; by default 64, at 32 pixels 256."""
    source_small: bool = False
    """With `random_source`: the narrower network of 128 pixels."""
    source_affine: Affine = "mean"
    """Of a source with classes, the scales and shifts to begin with: their `mean` over classes,
    `identity` for 1 and 0, or the number of a class."""
    perceptual: Literal["auto", "vgg16", "lpips", "none"] = "auto"
    """What compares pictures beside L1: features of VGG16 (the paper's), LPIPS or nothing. `auto`
    takes the first whose weights are on this machine, else none, and the run says so."""
    perceptual_weight: float = 0.001
    """Weight of the VGG16 term, a sum over 10 layers. Below 0 each layer is divided by 10 times
    its own value, so that it counts 0.1 at any time."""
    lpips_weight: float = Field(1.0, ge=0.0)
    """Weight of LPIPS in its place."""
    vgg_weights: Path | None = None
    """VGG16 weights in Keras format (notop); by default those in the weights folder."""
    lpips_net: Literal["vgg", "alex", "squeeze", "squeezenet-caffe"] = "vgg"
    """Network of lpips. squeezenet-caffe has weights of 3 MB and is not quite LPIPS."""
    lpips_trunk: Path | None = None
    """File with the weights of that network; by default the one in the weights folder."""
    lpips_linear: Path | None = None
    """File with the linear layers of LPIPS 0.1; by default the one in the weights folder."""
    latents_weight: float = Field(0.1, ge=0.0)
    """Weight of the distance of the latent vectors from normal ones, see `latent_distance`."""
    regularizer: float = Field(0.02, ge=0.0)
    """Weight of the mean squares of scales less 1 and of shifts."""
    latent_start: Literal["zero", "normal"] = "zero"
    """What the latent vectors are at first."""
    latent_noise: float = Field(0.01, ge=0.0)
    """Deviation of the noise on the latent vectors in training."""
    truncation: float | None = Field(0.3, gt=0.0)
    """Bound of the latents' values that samples are drawn with; null for none."""
    learning_rate: float = Field(0.03, gt=0.0)
    """Adam's rate of latent vectors, scales and shifts."""
    dense_learning_rate: float = Field(1e-7, ge=0.0)
    """Its rate of the first dense layer."""
    decay: float = Field(0.2, gt=0.0, le=1.0)
    """Factor of all rates every `decay_steps`."""
    decay_steps: int = Field(3000, ge=1)
    """Steps between two such factors."""


class BSA(LatentModel):
    """A frozen generator with new scales and shifts, and the latent vectors of its pictures.

    Args:
        config: the settings.
        image_size, channels: of the pictures; they must be those of the source.
        schedule: unused; rates depend on the step alone.
        seed: of noise, and of the weights until `adopt` takes over those of the source.
        inference: build the generator alone, to make pictures with a trained run.
        source: the source's `GeneratorPlan` as plain values; classes are left out.
        num_images: training pictures.
    Attributes:
        perceptual: the term in use; None with `inference`.
    Raises:
        ValueError: for a source of other pictures.
    """

    needs: ClassVar = "source"
    exports: ClassVar = ("generator", "latents")
    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 128, "flip": False},
        "train": {"batch_size": 25, "steps": 10_000},
    }

    def __init__(
        self,
        config: BSAConfig,
        image_size: int,
        channels: tuple[int, ...],
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
        inference: bool = False,
        source: Mapping[str, Any] | None = None,
        num_images: int = 1,
    ) -> None:
        self.perceptual = None if inference else PerceptualTerm(config, channels, image_size)
        named = self.perceptual is not None and self.perceptual.name != "none"
        terms = ["l1", *(["perceptual"] if named else []), "latent_distance", "regularizer"]
        super().__init__(["generator", *terms], seed=seed)
        self.config = config
        plan = GeneratorPlan(**{**(source or {}), "num_classes": 0})
        _check_pictures(plan, image_size, channels)
        self.latent_size = plan.latent_size
        self.truncation = config.truncation
        self.generator = sngan_generator(plan, seed, adapted=True)
        self.adapted = [x for x in self.generator.layers if isinstance(x, ScaleShift)]
        self.project = self.generator.get_layer("project")
        freeze(self.generator, except_for=[*self.adapted, self.project])
        self.networks = {"generator": self.generator}
        if not inference:
            assert self.perceptual is not None
            self.notices += self.perceptual.notices
            self._add_latents(num_images)
        self.finish()

    def _add_latents(self, num_images: int) -> None:
        """The latent vectors and the optimizer: what only training needs."""
        config = self.config
        rows = keras.Input((), dtype="int64", name="rows")
        start = "zeros" if config.latent_start == "zero" else _normal_start(self.seed)
        table = RowTable(num_images, self.latent_size, start, dtype="float32", name="table")
        self.latents = keras.Model(rows, table(rows), name="latents")
        self.networks["latents"] = self.latents
        rate = keras.optimizers.schedules.ExponentialDecay(
            config.learning_rate, config.decay_steps, config.decay, staircase=True
        )
        dense = {id(v) for v in self.project.trainable_variables}
        slow = {i for i, v in enumerate(self.generator.trainable_variables) if id(v) in dense}
        share = config.dense_learning_rate / config.learning_rate
        adam = TwoRateAdam(rate, slow, share, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
        self.own_optimizer("generator", adam, self.generator, self.latents)

    def adopt(self, weights: Weights) -> None:
        """Take over the weights of the source; scales and shifts stay as they are.

        Args:
            weights: of `sngan_generator(plan)`, with classes or without.
        Raises:
            ValueError: if they are of another network, or `source_affine` of no class of it.
        """
        give(self.generator, collapsed(weights, self.config.source_affine))

    def train_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Rebuild the pictures of the batch from their latent vectors."""
        config, images = self.config, batch["images"]
        noise = config.latent_noise * self.normal((images.shape[0], self.latent_size), NOISE)
        draws = self.normal((DRAWS * images.shape[0], self.latent_size), NORMAL)
        terms = {}
        with tf.GradientTape() as tape:
            latents = self.latents(batch["rows"])
            made = self.generator(latents + noise, training=False)
            terms["l1"] = loss = l1_loss(images, made)
            if "perceptual" in self.loss_names:
                assert self.perceptual is not None
                terms["perceptual"] = term = self.perceptual(images, made)
                loss += term
            terms["latent_distance"] = term = latent_distance(latents, draws)
            loss += config.latents_weight * term
            terms["regularizer"] = term = self.deviation()
            loss += config.regularizer * term
        self.minimize(loss, tape, "generator", self.generator, self.latents)
        return self.track(generator=loss, **terms)

    def deviation(self) -> Tensor:
        """How far scales and shifts are from 1 and 0: the sum over layers of mean squares."""
        return tf.add_n(
            [
                tf.reduce_mean(tf.square(layer.gamma.value - 1.0))
                + tf.reduce_mean(tf.square(tf.convert_to_tensor(layer.beta.value)))
                for layer in self.adapted
            ]
        )

    def prepare_samples(self, batches: int = 100) -> keras.Model:
        """The generator itself: its statistics are the stored ones, nothing is averaged."""
        self._sampler = self.generator
        return self.generator

    def reconstruct(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Training pictures rebuilt from their latent vectors without noise.

        Args:
            rows: `(count,)` which ones.
        Returns:
            `(count, size, size, channels)` float32 in [-1, 1].
        """
        vectors = self.latent_vectors()[rows]
        parts = range(0, len(vectors), 32)
        made = [self.generator(vectors[start : start + 32], training=False) for start in parts]
        return np.concatenate([np.asarray(part, np.float32) for part in made])

    def latent_vectors(self) -> npt.NDArray[np.float32]:
        """The latent vector of each training picture, `(pictures, latent_size)`."""
        return np.asarray(self.latents.get_layer("table").vectors.numpy(), np.float32)


# The source ---------------------------------------------------------------------------------------


def collapsed(weights: Weights, affine: Affine) -> dict[str, list[npt.NDArray[Any]]]:
    """Weights of a generator without classes from those of one with.

    Args:
        weights: of a generator; without classes they are returned as they are.
        affine: what becomes of the scales and shifts of the classes, `(classes, channels)`: their
            `mean`, the `identity` (1 and 0), or those of the class with this number.
    Raises:
        ValueError: if there is no such class.
    """
    return {name: _one_class(list(arrays), affine) for name, arrays in weights.items()}


def _one_class(arrays: list[npt.NDArray[Any]], affine: Affine) -> list[npt.NDArray[Any]]:
    if len(arrays) != 4 or arrays[0].ndim != 2:  # no batch norm with a table of classes
        return arrays
    gammas, betas, *statistics = arrays
    if affine == "mean":
        return [gammas.mean(axis=0), betas.mean(axis=0), *statistics]
    if affine == "identity":
        return [np.ones_like(gammas[0]), np.zeros_like(betas[0]), *statistics]
    if affine >= len(gammas):
        raise ValueError(
            f"model.source_affine is {affine}, but the classes of the source have the numbers 0 to "
            f"{len(gammas) - 1}."
        )
    return [gammas[affine], betas[affine], *statistics]


def give(generator: keras.Model, weights: Weights) -> None:
    """Set the weights of the layers named in `weights`.

    Raises:
        ValueError: if names or shapes are not those of the generator's layers.
    """
    own = {x.name for x in generator.layers if x.weights and not isinstance(x, ScaleShift)}
    if own != set(weights):
        missing = ", ".join(sorted(own ^ set(weights))[:3])
        raise ValueError(f"The source is no generator of this plan: {missing} differ.")
    for name, arrays in weights.items():
        generator.get_layer(name).set_weights(list(arrays))


def freeze(network: keras.Model, except_for: Sequence[keras.layers.Layer]) -> None:
    """Train only some layers; batch norms then keep their statistics too."""
    kept = {id(layer) for layer in except_for}
    for layer in network.layers:
        layer.trainable = id(layer) in kept


def _check_pictures(plan: GeneratorPlan, image_size: int, channels: Sequence[int]) -> None:
    if (plan.image_size, plan.channels) != (image_size, sum(channels)):
        raise ValueError(
            f"The source makes pictures of {plan.image_size} px and {plan.channels} channels; "
            f"these have {image_size} px and {sum(channels)} channels."
        )


# What is trained ----------------------------------------------------------------------------------


class RowTable(keras.layers.Layer):
    """A trainable vector for each row: `(batch,)` integers to `(batch, size)`.

    Rows are taken by a product, so that their gradient is dense: rows outside of a batch keep
    moving by their momentum, as in the reference, which changes the result of small sets.
    """

    def __init__(self, rows: int, size: int, initializer: Any = "zeros", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        self.size = size
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.vectors = self.add_weight(
            shape=(self.rows, self.size), initializer=self.initializer, name="vectors"
        )

    def call(self, inputs: Any) -> Any:
        chosen = keras.ops.one_hot(inputs, self.rows, dtype=self.compute_dtype)
        return keras.ops.matmul(chosen, self.vectors)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        start = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "rows": self.rows, "size": self.size, "initializer": start}


def _normal_start(seed: int) -> Callable[..., Any]:
    return lambda shape, dtype=None: random.normal(shape, (seed, NORMAL))


class TwoRateAdam(FusedAdam):
    """Adam with a share of its rate for some weights.

    Args:
        learning_rate: of the others.
        slow: positions of these weights among those it is built for.
        share: of the rate, for them.
    """

    def __init__(self, learning_rate: Any, slow: set[int], share: float, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self._slow = frozenset(slow)
        self._share = share

    def update_step(self, gradient: Tensor, variable: tf.Variable, learning_rate: Tensor) -> None:
        slow = self._get_variable_index(variable) in self._slow
        super().update_step(gradient, variable, learning_rate * (self._share if slow else 1.0))


# The objective ------------------------------------------------------------------------------------


def latent_distance(latents: Tensor, draws: Tensor) -> Tensor:
    """How far latent vectors are from normal ones, in both directions; what the paper calls EMD.

        mean_j min_i |z_i - t_j|^2 + mean_i min_j |z_i - t_j|^2

    Args:
        latents: z, `(batch, size)` float32.
        draws: t, `(count, size)`, standard normal.
    Returns:
        Scalar float32.
    Source: Noguchi and Harada, section 3.3; a symmetric chamfer distance.
    """
    lengths = tf.reduce_sum(tf.square(latents), 1)[:, None] + tf.reduce_sum(tf.square(draws), 1)
    squares = lengths - 2.0 * tf.matmul(latents, draws, transpose_b=True)
    nearest_latent = tf.reduce_mean(tf.reduce_min(squares, 0))
    return nearest_latent + tf.reduce_mean(tf.reduce_min(squares, 1))


class PerceptualTerm:
    """Difference of pictures beside L1, weighted; masks made with them are left to L1.

    Args:
        config: the settings; `auto` is decided here.
        channels: of the picture, then of each kind of mask.
        image_size: side of the pictures.
    Attributes:
        name: what is used: `vgg16`, the name of the LPIPS network, or `none`.
        notices: what the user should know about it.
    Raises:
        MissingWeightsError: weights that were asked for are not on this machine.
        UserError: a picture of neither 1 nor 3 channels, or too small, and a network.
    """

    def __init__(self, config: BSAConfig, channels: Sequence[int], image_size: int) -> None:
        self.picture_channels = channels[0]
        self.weight = config.perceptual_weight
        self.notices: list[str] = []
        self.name: str = config.perceptual
        if self.name == "auto":
            self.name = self._available(config, image_size)
        if self.name != "none" and channels[0] not in (1, 3):
            raise UserError(
                f"model.perceptual: {self.name} sees pictures of 1 or 3 channels, these have "
                f"{channels[0]}. Use model.perceptual=none."
            )
        self._distance: Distance | None = None
        if self.name == "vgg16":
            weights = pretrained.locate("vgg16", config.vgg_weights)
            self._vgg = vgg16_features(VGG_LAYERS, weights)
            self._distance = self._of_features
        elif self.name == "lpips":
            self._distance = self._learned(config, image_size)

    def _available(self, config: BSAConfig, image_size: int) -> str:
        """`vgg16` or `lpips` where they can be had, else `none`, with a notice."""
        if self.picture_channels not in (1, 3):
            self.notices.append(
                "model.perceptual: auto compares pictures by L1 alone, for VGG16 and LPIPS see 1 "
                f"or 3 channels, not {self.picture_channels}."
            )
            return "none"
        if config.vgg_weights is not None or pretrained.find("vgg16") is not None:
            return "vgg16"
        missing = "VGG16's weights, the paper's, are not on this machine (`tfgan-med weights`)"
        here = not lpips.missing(config.lpips_net, config.lpips_trunk, config.lpips_linear)
        chosen = "lpips" if here and image_size >= lpips.SMALLEST else "none"
        instead = f"LPIPS ({config.lpips_net})" if chosen == "lpips" else "L1 alone, which blurs"
        self.notices.append(
            f"model.perceptual: auto compares pictures by {instead}, for {missing}. "
            f"model.perceptual={chosen} says that this is meant."
        )
        return chosen

    def _learned(self, config: BSAConfig, image_size: int) -> Distance:
        if image_size < lpips.SMALLEST:
            raise UserError(
                f"model.perceptual: LPIPS needs pictures of {lpips.SMALLEST} px, these have "
                f"{image_size}. Use model.perceptual=vgg16 or none."
            )
        network = lpips.load(config.lpips_net, config.lpips_trunk, config.lpips_linear)
        distance, weight = LearnedDistance(network), config.lpips_weight
        self.name = network.name
        return lambda target, made: weight * distance(target, made)

    def __call__(self, target: Tensor, made: Tensor) -> Tensor:
        """The weighted term, float32 scalar; both `(batch, side, side, channels)` in [-1, 1]."""
        if self._distance is None:
            return tf.constant(0.0)
        first = self.picture_channels
        return self._distance(target[..., :first], made[..., :first])

    def _of_features(self, target: Tensor, made: Tensor) -> Tensor:
        """Mean differences of VGG16's features, summed over layers.

        lambda sum_l mean|V_l(g) - V_l(x)|,    below 0:  sum_l d_l / (10 stop(d_l))
        """
        wanted = self._vgg(caffe_pixels(tf.stop_gradient(target)), training=False)
        given = self._vgg(caffe_pixels(made), training=False)
        layers = [tf.reduce_mean(tf.abs(g - w)) for g, w in zip(given, wanted, strict=True)]
        if self.weight >= 0:
            return self.weight * tf.add_n(layers)
        return tf.add_n([0.1 * d / tf.maximum(tf.stop_gradient(d), 1e-12) for d in layers])
