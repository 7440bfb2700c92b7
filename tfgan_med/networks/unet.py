"""U-Net: the generator of Pix2Pix, which also serves as a segmenter.

Isola et al., arXiv:1611.07004, section 6.1; order of layers as in phillipi/pix2pix, models.lua.
Skips are concatenated after their activation, as in the TensorFlow tutorial (the Lua code
rectifies them once more).
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import layers

from tfgan_med.layers.convolution import DoublingConvolution, HalvingConvolution
from tfgan_med.layers.normalization import NormKind, normalization
from tfgan_med.networks.initialization import normal_weights, seed_of

Upsampling = Literal["transposed", "resize"]
Activation = Literal["tanh", "none"]

MIN_SIZE = 16
MAX_LEVELS = 8
MAX_WIDTH = 8  # times the base width
DROPOUT_LEVELS = 3


def unet_levels(image_size: int) -> int:
    """How often the encoder halves: `min(8, floor(log2 size))`, one pixel left up to 256.

    Raises:
        ValueError: if the size cannot be halved that often; the message names the nearest that can.
    """
    if image_size < MIN_SIZE:
        raise ValueError(f"image_size is {image_size}; a U-Net needs at least {MIN_SIZE}.")
    levels = min(MAX_LEVELS, image_size.bit_length() - 1)
    step = 2**levels
    if image_size % step:
        below = image_size // step * step
        raise ValueError(
            f"image_size is {image_size}, which cannot be halved {levels} times. "
            f"Use {below} or {below + step}, the nearest that can."
        )
    return levels


def unet_generator(
    image_size: int,
    source_channels: int,
    target_channels: int,
    base: int = 64,
    norm: NormKind = "instance",
    upsample: Upsampling = "transposed",
    dropout: float = 0.5,
    activation: Activation = "tanh",
    seed: int = 0,
    name: str = "generator",
) -> keras.Model:
    """Encoder and decoder with a skip at every size.

    Args:
        image_size: pixels per side; a multiple of `2 ** unet_levels`, so 64, 128, 256, 512, ...
        source_channels, target_channels: of the condition and of the picture.
        base: width of the first level; each level doubles it up to 8 times `base`.
        norm: per image ("instance"), per batch ("batch"), or "none".
        upsample: "transposed" is the paper's; "resize" repeats pixels, then convolves 3x3, and
            leaves no checkerboard.
        dropout: share of features dropped in the first decoder levels, the paper's only noise.
        activation: of the result; "none" for logits.
        seed: of the starting weights and of dropout.
    Returns:
        A model from `(batch, size, size, source_channels)` to
        `(batch, size, size, target_channels)`, float32 under every precision, in [-1, 1] with
        "tanh".
    Raises:
        ValueError: if the size cannot be halved often enough.
    """
    levels = unet_levels(image_size)
    widths = [min(base * 2**level, base * MAX_WIDTH) for level in range(levels)]
    source = keras.Input((image_size, image_size, source_channels), name="source")

    x, skips = source, []
    for level, width in enumerate(widths):
        innermost = level == levels - 1
        x = _down(
            x, width, "none" if level == 0 or innermost else norm, seed, f"{name}/down{level}"
        )
        skips.append(x)
    skips.pop()  # the bottleneck itself

    noisy_levels = min(DROPOUT_LEVELS, levels - 5)
    for level, (width, skip) in enumerate(zip(widths[-2::-1], skips[::-1], strict=True)):
        rate = dropout if level < noisy_levels else 0.0
        x = _up(x, width, norm, upsample, rate, seed, f"{name}/up{level}")
        x = layers.Concatenate(name=f"skip{level}")([x, skip])

    x = _enlarge(x, target_channels, upsample, True, seed, f"{name}/head")
    function = "linear" if activation == "none" else activation
    image = layers.Activation(function, dtype="float32", name="image")(x)
    return keras.Model(source, image, name=name)


def _down(x: Any, width: int, norm: NormKind, seed: int, path: str) -> Any:
    """Half the size: convolution, norm, leaky ReLU."""
    label = path.rpartition("/")[-1]
    x = HalvingConvolution(
        width,
        use_bias=False,
        kernel_initializer=normal_weights(seed, path),
        name=f"{label}_conv",
    )(x)
    if norm != "none":
        x = normalization(norm, f"{label}_norm")(x)
    return layers.LeakyReLU(0.2, name=f"{label}_relu")(x)


def _up(
    x: Any, width: int, norm: NormKind, upsample: Upsampling, dropout: float, seed: int, path: str
) -> Any:
    """Twice the size: convolution, norm, dropout, ReLU."""
    label = path.rpartition("/")[-1]
    x = _enlarge(x, width, upsample, False, seed, path)
    if norm != "none":
        x = normalization(norm, f"{label}_norm")(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed_of(seed, f"{path}/dropout"), name=f"{label}_drop")(x)
    return layers.ReLU(name=f"{label}_relu")(x)


def _enlarge(x: Any, width: int, upsample: Upsampling, bias: bool, seed: int, path: str) -> Any:
    label = path.rpartition("/")[-1]
    weights = normal_weights(seed, path)
    if upsample == "transposed":
        return DoublingConvolution(
            width,
            use_bias=bias,
            kernel_initializer=weights,
            name=f"{label}_conv",
        )(x)
    x = layers.UpSampling2D(2, interpolation="nearest", name=f"{label}_repeat")(x)
    return layers.Conv2D(
        width,
        3,
        padding="same",
        use_bias=bias,
        kernel_initializer=weights,
        name=f"{label}_conv",
    )(x)
