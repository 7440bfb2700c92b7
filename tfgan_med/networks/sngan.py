"""The residual networks of SNGAN: pictures of 32, 64 or 128 pixels from noise, and their critic.

Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
arXiv:1802.05957, appendix B.3; with classes Miyato and Koyama, "cGANs with Projection
Discriminator", arXiv:1802.05637; widths as in pfnet-research/sngan_projection,
gen_models/resnet*.py and dis_models/snresnet*.py.

Deviations: none in values. A 1 x 1 convolution and a change of size by repeating or averaging
change places, and a 3 x 3 one is joined with it (`layers/resampling.py`): fewer sums, the same
result but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops
from pydantic import Field

from tfgan_med.config import Config
from tfgan_med.layers.batch_normalization import FusedBatchNormalization
from tfgan_med.layers.batch_statistics import ConditionalBatchNormalization, ScaleShift
from tfgan_med.layers.resampling import EnlargingConvolution, SpectralShrinkingConvolution
from tfgan_med.layers.spectral import SpectralConv2D, SpectralDense, SpectralEmbedding
from tfgan_med.networks.initialization import seed_of

SIZES = (32, 64, 128)
START = 4  # pixels of the generator's first map
LATENT_SIZE = 128

# Multiples of the base: of the 4 x 4 map, then after each doubling.
GENERATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
# After each block; the first of them halve, to 8, 2 and 4 pixels.
DISCRIMINATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
SMALL_GENERATOR_WIDTHS = (8, 8, 4, 4, 2, 1)  # of 128 pixels
SMALL_DISCRIMINATOR_WIDTHS = (1, 2, 4, 4, 8, 8)
HALVINGS = {32: 2, 64: 5, 128: 5}
GENERATOR_BASE = {32: 256, 64: 64, 128: 64}
DISCRIMINATOR_BASE = {32: 128, 64: 64, 128: 64}


class GeneratorPlan(Config):
    """What a generator is built from; saved with a run that adapts it."""

    image_size: int
    """Side of the square pictures: 32, 64 or 128."""
    channels: int
    """Of the pictures."""
    base: int | None = Field(None, ge=1)
    """Channels of the last map; by default 64, at 32 pixels 256."""
    small: bool = False
    """The narrower network of 128 pixels."""
    num_classes: int = 0
    """Classes it is conditional on; 0 for none."""
    latent_size: int = LATENT_SIZE
    """Length of a latent vector."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the 4 x 4 map and after each block.

        Raises:
            ValueError: for a size there is no network for.
        """
        plans = _widths(self.image_size, self.small, GENERATOR_WIDTHS, SMALL_GENERATOR_WIDTHS)
        base = self.base or GENERATOR_BASE[self.image_size]
        return tuple(base * width for width in plans)


def sngan_generator(
    plan: GeneratorPlan, seed: int = 0, name: str = "generator", adapted: bool = False
) -> keras.Model:
    """From noise to a picture: a dense layer to 4 x 4, then residual blocks that double the size.

    Args:
        plan: sizes, and how many classes.
        seed: of the initial weights.
        adapted: with a `ScaleShift` after the dense layer and after each batch norm of each
            block, which begin as the identity (Noguchi and Harada, arXiv:1904.01774).
    Returns:
        A model from latents `(batch, latent_size)`, with classes from `[latents, labels]`, labels
        `(batch,)` integers, to `(batch, size, size, channels)`, float32 in [-1, 1].
    Raises:
        ValueError: for another size than 32, 64 or 128, or `small` at another than 128.
    """
    first, *widths = plan.widths
    latents = keras.Input((plan.latent_size,), name="latents")
    labels = keras.Input((), dtype="int64", name="labels") if plan.num_classes else None
    make = _GeneratorLayers(plan.num_classes, labels, seed, name, adapted)

    x = layers.Dense(
        START * START * first,
        kernel_initializer=glorot(seed, f"{name}/project"),
        name="project",
    )(latents)
    x = layers.Reshape((START, START, first), name="project_map")(x)
    x = make.adapt(x, "project_adapt")
    for number, width in enumerate(widths, 1):
        x = _up_block(x, width, f"block{number}", make)
    x = batch_norm("head_norm")(x)
    x = layers.ReLU(name="head_relu")(x)
    x = layers.Conv2D(
        plan.channels,
        3,
        padding="same",
        kernel_initializer=glorot(seed, f"{name}/head_conv"),
        name="head_conv",
    )(x)
    image = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model(latents if labels is None else [latents, labels], image, name=name)


class _GeneratorLayers:
    """Layers of a generator that depend on its kind."""

    def __init__(self, num_classes: int, labels: Any, seed: int, name: str, adapted: bool) -> None:
        self.num_classes = num_classes
        self.labels = labels
        self.seed = seed
        self.name = name
        self.adapted = adapted

    def norm(self, x: Any, name: str) -> Any:
        if self.labels is None:
            return batch_norm(name)(x)
        norm = ConditionalBatchNormalization(
            self.num_classes, momentum=0.9, epsilon=2e-5, name=name
        )
        return norm(x, self.labels)

    def adapt(self, x: Any, name: str) -> Any:
        return ScaleShift(name=name)(x) if self.adapted else x

    def weights(self, name: str, gain: float = 1.0) -> keras.initializers.Initializer:
        return glorot(self.seed, f"{self.name}/{name}", gain)


def _up_block(x: Any, width: int, name: str, make: _GeneratorLayers) -> Any:
    """Norm, ReLU, double, convolve, norm, ReLU, convolve; beside it 1 x 1 and double."""
    # The 1 x 1 convolution comes first: repeating its results is cheaper than its inputs.
    shortcut = layers.Conv2D(
        width, 1, kernel_initializer=make.weights(f"{name}_shortcut"), name=f"{name}_shortcut"
    )(x)
    shortcut = layers.UpSampling2D(2, name=f"{name}_shortcut_up")(shortcut)

    x = make.norm(x, f"{name}_norm1")
    x = make.adapt(x, f"{name}_adapt1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = EnlargingConvolution(
        width, kernel_initializer=make.weights(f"{name}_conv1", 2.0), name=f"{name}_conv1"
    )(x)
    x = make.norm(x, f"{name}_norm2")
    x = make.adapt(x, f"{name}_adapt2")
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = layers.Conv2D(
        width,
        3,
        padding="same",
        kernel_initializer=make.weights(f"{name}_conv2", 2.0),
        name=f"{name}_conv2",
    )(x)
    return layers.Add(name=f"{name}_sum")([x, shortcut])


def sngan_discriminator(
    image_size: int,
    channels: int,
    base: int | None = None,
    small: bool = False,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "discriminator",
) -> keras.Model:
    """From a picture to one score, every kernel divided by its largest singular value.

        D(x, y) = w' phi(x) + <e_y, phi(x)>,  phi the sum over the last map

    Args:
        image_size: 32, 64 or 128.
        channels: of the pictures.
        base: channels after the first block; by default 64, at 32 pixels 128.
        small: the narrower network of 128 pixels.
        num_classes: classes y; 0 leaves out the second term.
        seed: of the initial weights.
    Returns:
        A model from images `(batch, size, size, channels)`, with classes from `[images, labels]`,
        to `(batch, 1)`, float32, raw.
    Raises:
        ValueError: as for the generator.
    """
    multiples = _widths(image_size, small, DISCRIMINATOR_WIDTHS, SMALL_DISCRIMINATOR_WIDTHS)
    first, *widths = [(base or DISCRIMINATOR_BASE[image_size]) * multiple for multiple in multiples]
    image = keras.Input((image_size, image_size, channels), name="image")
    labels = keras.Input((), dtype="int64", name="labels") if num_classes else None

    def weights(path: str, gain: float = 1.0) -> keras.initializers.Initializer:
        return glorot(seed, f"{name}/{path}", gain)

    x = _first_block(image, first, "block1", weights)
    for number, width in enumerate(widths, 2):
        x = _down_block(x, width, number <= HALVINGS[image_size], f"block{number}", weights)
    x = layers.ReLU(name="head_relu")(x)
    x = PixelSum(dtype="float32", name="sum")(x)
    score = SpectralDense(
        1,
        use_bias=image_size != 32,
        kernel_initializer=weights("score"),
        dtype="float32",
        name="score",
    )(x)
    if labels is None:
        return keras.Model(image, score, name=name)
    row = SpectralEmbedding(
        num_classes,
        widths[-1],
        embeddings_initializer=weights("projection"),
        dtype="float32",
        name="projection",
    )(labels)
    projected = layers.Dot(1, dtype="float32", name="projected")([row, x])
    both = layers.Add(dtype="float32", name="sum_score")([score, projected])
    return keras.Model([image, labels], both, name=name)


Weights = Callable[..., keras.initializers.Initializer]


def _first_block(x: Any, width: int, name: str, weights: Weights) -> Any:
    """Convolve, ReLU, convolve, halve; beside it halve and 1 x 1."""
    shortcut = layers.AveragePooling2D(2, name=f"{name}_shortcut_down")(x)
    shortcut = _pointwise(shortcut, width, f"{name}_shortcut", weights)
    x = SpectralConv2D(
        width,
        3,
        padding="same",
        kernel_initializer=weights(f"{name}_conv1", 2.0),
        name=f"{name}_conv1",
    )(x)
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = SpectralShrinkingConvolution(
        width, kernel_initializer=weights(f"{name}_conv2", 2.0), name=f"{name}_conv2"
    )(x)
    return layers.Add(name=f"{name}_sum")([x, shortcut])


def _down_block(x: Any, width: int, halve: bool, name: str, weights: Weights) -> Any:
    """ReLU, convolve, ReLU, convolve, halve; beside it 1 x 1 and halve.

    Without halving and with as many channels the shortcut is the identity.
    """
    hidden, shortcut = x.shape[-1], x
    if halve:  # averaging and a 1 x 1 convolution change places: a quarter of the products
        shortcut = layers.AveragePooling2D(2, name=f"{name}_shortcut_down")(shortcut)
    if halve or hidden != width:
        shortcut = _pointwise(shortcut, width, f"{name}_shortcut", weights)
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = SpectralConv2D(
        hidden,
        3,
        padding="same",
        kernel_initializer=weights(f"{name}_conv1", 2.0),
        name=f"{name}_conv1",
    )(x)
    x = layers.ReLU(name=f"{name}_relu2")(x)
    initial, label = weights(f"{name}_conv2", 2.0), f"{name}_conv2"
    if halve:
        x = SpectralShrinkingConvolution(width, kernel_initializer=initial, name=label)(x)
    else:
        x = SpectralConv2D(width, 3, padding="same", kernel_initializer=initial, name=label)(x)
    return layers.Add(name=f"{name}_sum")([x, shortcut])


def _pointwise(x: Any, width: int, name: str, weights: Weights) -> Any:
    return SpectralConv2D(width, 1, kernel_initializer=weights(name), name=name)(x)


@keras.saving.register_keras_serializable("tfgan_med")
class PixelSum(keras.layers.Layer):
    """Sum over height and width: `(batch, height, width, channels)` to `(batch, channels)`.

    Not the mean: the scale of the scores depends on it. Use it in float32, which a sum may need.
    """

    def call(self, inputs: Any) -> Any:
        return ops.sum(inputs, axis=(1, 2))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])


def batch_norm(name: str) -> FusedBatchNormalization:
    """With the constants of the reference, Chainer's."""
    return FusedBatchNormalization(momentum=0.9, epsilon=2e-5, name=name)


def glorot(seed: int, path: str, gain: float = 1.0) -> keras.initializers.Initializer:
    """Glorot's uniform values times the root of `gain`."""
    return keras.initializers.VarianceScaling(
        gain, mode="fan_avg", distribution="uniform", seed=seed_of(seed, path)
    )


def _widths(
    image_size: int,
    small: bool,
    plans: dict[int, tuple[int, ...]],
    small_plan: tuple[int, ...],
) -> tuple[int, ...]:
    if image_size not in SIZES:
        raise ValueError(
            f"image_size is {image_size}; SNGAN makes pictures of 32, 64 or 128 pixels."
        )
    if small and image_size != 128:
        raise ValueError(
            f"small networks are of 128 pixels; image_size is {image_size}. Choose a smaller "
            "`base` instead."
        )
    return small_plan if small else plans[image_size]
