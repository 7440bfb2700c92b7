"""U-Net: outlines objects in small sets; an encoder and a decoder with a skip at every size.

Source: Ronneberger et al., arXiv:1505.04597. Deviations: zero-padded instead of valid
convolutions, so that the map has the size of the picture; batch normalization, half the paper's
width by default and no dropout, for sets of a few hundred pictures.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
from keras import layers
from pydantic import Field

from tfgan_med.downstream._segmenter import Segmenter, SegmenterConfig
from tfgan_med.downstream.base import Problem
from tfgan_med.layers.normalization import normalization
from tfgan_med.layers.padding import cropped, margins, mirrored
from tfgan_med.layers.upsampling import TilingConvolution
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.networks.initialization import seed_of

LEVELS = 4
MIN_SIZE = 16

Norm = Literal["batch", "none"]
Upsampling = Literal["transposed", "nearest"]


class UNetConfig(SegmenterConfig):
    """Settings of the network, its loss and its optimizer."""

    learning_rate: float = Field(1e-3, gt=0.0)
    """Adam's rate at the start."""
    plateau: int = Field(10, ge=0)
    """Evaluations without gain after which the learning rate is halved; 0 keeps it."""
    base: int = Field(32, ge=1, le=128)
    """Channels of the first level, each level doubles them; 64 is the paper's."""
    norm: Norm = "batch"
    """`batch` after every 3x3 convolution, or `none` as in the paper."""
    upsample: Upsampling = "transposed"
    """`transposed` is the paper's; `nearest` repeats pixels, then convolves 3x3."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of features dropped after the lowest level; the paper has 0.5."""


class UNet(Segmenter):
    """The U-Net, cross-entropy and Dice, Adam.

    Args:
        config: the settings.
        problem: pictures and masks; a size that is no multiple of 16 is mirrored at the border
            inside the network.
        schedule: not needed; the rate falls where the validation score stands still.
        seed: of the initial weights and of dropout.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 256},
        "train": {
            "steps": 4000,
            "batch_size": 8,
            "eval_interval": 100,
            "eval_metric": "iou",
            "patience": 15,
        },
    }

    def __init__(
        self,
        config: UNetConfig,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        super().__init__(config, problem, seed=seed)
        network = unet(
            (problem.image_size, problem.image_size),
            problem.channels,
            problem.outputs,
            base=config.base,
            norm=config.norm,
            upsample=config.upsample,
            dropout=config.dropout,
            seed=seed,
        )
        self.own(network, FusedAdam(config.learning_rate))


def unet(
    size: tuple[int, int],
    channels: int,
    outputs: int,
    base: int = 32,
    norm: Norm = "batch",
    upsample: Upsampling = "transposed",
    dropout: float = 0.0,
    seed: int = 0,
    name: str = "unet",
) -> keras.Model:
    """Four times halved and doubled again, two 3x3 convolutions at every size.

    Args:
        size: height and width, at least 16.
        channels, outputs: of pictures and of maps.
        base: width of the first level.
        norm, upsample, dropout: see `UNetConfig`.
        seed: of the starting weights and of dropout.
    Returns:
        A model from `(batch, height, width, channels)` to float32 logits
        `(batch, height, width, outputs)`.
    Raises:
        ValueError: for a smaller picture.
    """
    if min(size) < MIN_SIZE:
        raise ValueError(f"image_size is {min(size)}; a U-Net needs at least {MIN_SIZE}.")
    make = _Parts(norm, upsample, seed, name)
    images = keras.Input((*size, channels), name="images")
    missing = margins(*size, 2**LEVELS)

    x, skips = mirrored(images, missing), []
    for level in range(LEVELS):
        x = make.pair(x, base << level, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    x = make.pair(x, base << LEVELS, "bottom")
    if dropout:
        drop_seed = seed_of(seed, f"{name}/dropout")
        x = layers.Dropout(dropout, seed=drop_seed, name="bottom_drop")(x)
    for level in reversed(range(LEVELS)):
        x = make.double(x, base << level, f"up{level}")
        x = layers.Concatenate(name=f"skip{level}")([skips[level], x])
        x = make.pair(x, base << level, f"up{level}")

    head = keras.initializers.GlorotUniform(seed_of(seed, f"{name}/head"))
    logits = layers.Conv2D(outputs, 1, kernel_initializer=head, dtype="float32", name="logits")(x)
    return keras.Model(images, cropped(logits, missing), name=name)


class _Parts:
    """The layers of one network, named after their place and seeded by its path."""

    def __init__(self, norm: Norm, upsample: Upsampling, seed: int, path: str) -> None:
        self.norm, self.upsample, self.seed, self.path = norm, upsample, seed, path

    def pair(self, x: Any, width: int, label: str) -> Any:
        """Twice convolution, norm, ReLU."""
        return self._active(self._active(x, width, f"{label}_first"), width, f"{label}_second")

    def double(self, x: Any, width: int, label: str) -> Any:
        """Twice the size."""
        options: dict[str, Any] = {
            "kernel_initializer": self._weights(f"{label}_double"),
            "name": f"{label}_double",
        }
        if self.upsample == "transposed":
            return TilingConvolution(width, **options)(x)
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"{label}_repeat")(x)
        return layers.Conv2D(width, 3, padding="same", **options)(x)

    def _active(self, x: Any, width: int, label: str) -> Any:
        x = layers.Conv2D(
            width,
            3,
            padding="same",
            use_bias=self.norm == "none",
            kernel_initializer=self._weights(label),
            name=f"{label}_conv",
        )(x)
        if self.norm == "batch":
            x = normalization("batch", f"{label}_norm")(x)
        return layers.ReLU(name=f"{label}_relu")(x)

    def _weights(self, label: str) -> keras.initializers.Initializer:
        return keras.initializers.HeNormal(seed_of(self.seed, f"{self.path}/{label}"))
