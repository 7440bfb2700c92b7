"""FPN with a squeeze-and-excitation encoder: masks from four scales of one picture.

Sources: Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv:1901.02446, section 3, in the
form of `qubvel-org/segmentation_models.pytorch` (decoders/fpn), which the defect-pasting thesis
uses; encoders of Hu et al., arXiv:1709.01507.

The thesis does not say which encoder, loss, batch and optimizer; ours are SE-ResNet-18 with random
weights, Dice + cross-entropy, 8 pictures, Adam 1e-4. Deviation: maps are enlarged with half-pixel
centers, as TensorFlow does, where the reference aligns corners.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
from keras import layers
from pydantic import Field

from tfgan_med.downstream._segmenter import Segmenter, SegmenterConfig
from tfgan_med.downstream.base import Problem
from tfgan_med.errors import UserError
from tfgan_med.layers.batch_normalization import FusedBatchNormalization
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.networks import resnet
from tfgan_med.networks.initialization import seed_of

Encoder = Literal["se_resnet18", "se_resnet50", "se_resnext50"]

WIDTH = 64  # of the encoder's first stage in the papers
PYRAMID = 4  # times the width: channels of the pyramid
SEGMENTATION = 2  # times the width: channels of the segmentation blocks
GROUP_WIDTH = 4  # channels that one group norm shares statistics over: 32 groups of 128
MULTIPLE = 32  # pixels: stride of the last map


class FPNSEConfig(SegmenterConfig):
    """Settings of the network, its loss and its optimizer."""

    learning_rate: float = Field(1e-4, gt=0.0)
    """Of Adam; constant, or halved by `plateau`."""
    encoder: Encoder = "se_resnet18"
    """Residual network that reads the picture; the larger ones need more of them."""
    width: int = Field(WIDTH, ge=16, multiple_of=2)
    """Channels of the encoder's first stage; pyramid and decoder have 4 and 2 times as many."""
    dropout: float = Field(0.2, ge=0.0, lt=1.0)
    """Share of the maps that is dropped before the last convolution."""


# Network ------------------------------------------------------------------------------------------


def fpn_segmenter(
    shape: tuple[int, int, int],
    outputs: int,
    encoder: Encoder = "se_resnet18",
    width: int = WIDTH,
    dropout: float = 0.2,
    seed: int = 0,
    name: str = "fpn_se",
) -> keras.Model:
    """Encoder, pyramid from coarse to fine, and the sum of what all its levels say.

    Args:
        shape: height, width (multiples of 32) and channels (1 or 3) of the pictures.
        outputs: number of logits of a pixel.
        encoder, width: as for `residual_maps`.
        dropout: share of the summed maps that is dropped in training.
        seed: of the starting weights and of dropout.
    Returns:
        A model from `(batch, height, width, channels)` in [-1, 1] to float32 logits
        `(batch, height, width, outputs)`.
    Raises:
        ValueError: a side that is no multiple of 32.
    """
    if shape[0] % MULTIPLE or shape[1] % MULTIPLE:
        raise ValueError(f"Sides of {shape[0]} and {shape[1]} pixels; multiples of 32 are needed.")
    pictures = keras.Input(shape, name="images")
    maps = resnet.residual_maps(
        encoder,
        resnet.imagenet_input(pictures),
        width,
        norm=FusedBatchNormalization,
        seed=seed_of(seed, f"{name}/encoder"),
    )
    x = layers.Add(name="sum")(
        [
            segmentation_blocks(level, doublings, width * SEGMENTATION, seed, f"p{doublings + 2}")
            for doublings, level in enumerate(pyramid(maps, width * PYRAMID, seed))
        ]
    )
    if dropout:
        draws = seed_of(seed, f"{name}/dropout")
        x = layers.SpatialDropout2D(dropout, seed=draws, name="dropout")(x)
    x = layers.Conv2D(
        outputs,
        1,
        kernel_initializer=keras.initializers.GlorotUniform(seed_of(seed, f"{name}/head")),
        dtype="float32",
        name="head",
    )(x)
    logits = layers.UpSampling2D(4, interpolation="bilinear", dtype="float32", name="logits")(x)
    return keras.Model(pictures, logits, name=name)


def pyramid(maps: list[Any], channels: int, seed: int) -> list[Any]:
    """Maps p2 to p5 of equal depth: each the coarser one enlarged plus the encoder's.

    Source: Lin et al., arXiv:1612.03144, section 3, without its last convolutions.
    """
    levels: list[Any] = []
    for number, encoded in zip((5, 4, 3, 2), reversed(maps), strict=True):
        x = layers.Conv2D(
            channels,
            1,
            kernel_initializer=_he_uniform(seed, f"lateral{number}"),
            name=f"lateral{number}",
        )(encoded)
        if levels:
            above = layers.UpSampling2D(2, name=f"above{number}")(levels[0])
            x = layers.Add(name=f"p{number}")([x, above])
        levels.insert(0, x)
    return levels


def segmentation_blocks(x: Any, doublings: int, channels: int, seed: int, name: str) -> Any:
    """Convolutions of 3 x 3 with group norm, each followed by an enlargement; one if there is none.

    Returns:
        `(batch, 2^doublings height, 2^doublings width, channels)`.
    """
    for index in range(max(doublings, 1)):
        label = f"{name}.{index}"
        x = layers.Conv2D(
            channels,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer=_he_uniform(seed, f"{label}.conv"),
            name=f"{label}.conv",
        )(x)
        groups = channels // GROUP_WIDTH
        x = layers.GroupNormalization(groups, epsilon=1e-5, name=f"{label}.norm")(x)
        x = layers.ReLU(name=f"{label}.relu")(x)
        if doublings:
            x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{label}.double")(x)
    return x


def _he_uniform(seed: int, name: str) -> keras.initializers.Initializer:
    return keras.initializers.HeUniform(seed_of(seed, name))


# Learning -----------------------------------------------------------------------------------------


class FPNSE(Segmenter):
    """Masks or classes of pixels.

    Args:
        config: the settings.
        problem: what it is to tell apart.
        schedule: unused, the rate is constant.
        seed: of the initial weights and dropout.
    Raises:
        UserError: the size of the pictures is no multiple of 32.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 128},
        "train": {"batch_size": 8, "steps": 20_000, "eval_interval": 400, "threshold": "auto"},
    }
    config: FPNSEConfig

    def __init__(
        self,
        config: FPNSEConfig,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        super().__init__(config, problem, seed=seed)
        _check_size(problem.image_size)
        shape = (problem.image_size, problem.image_size, problem.channels)
        network = fpn_segmenter(
            shape, problem.outputs, config.encoder, config.width, config.dropout, seed
        )
        self.own(network, FusedAdam(config.learning_rate))


def _check_size(image_size: int) -> None:
    below = image_size // MULTIPLE * MULTIPLE
    if image_size != below or not below:
        choices = f"{below} or {below + MULTIPLE}" if below else f"{MULTIPLE}"
        raise UserError(
            f"data.image_size is {image_size}; fpn_se halves pictures five times and needs a "
            f"multiple of {MULTIPLE}. Use {choices}."
        )
