"""The Pix2Pix generator, trained by itself to outline objects.

Source: Sobolev's thesis on GANs for medical images, section 4.4.3; the network of Isola et al.,
arXiv:1611.07004, section 6.1, with batch normalization. The map holds logits instead of tanh;
after training there is no dropout and the norm uses its moving statistics. Loss, batch size and
optimizer are not stated there: cross-entropy and Dice, 16, Adam.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from pydantic import Field

from tfgan_med.downstream._segmenter import Segmenter, SegmenterConfig
from tfgan_med.downstream.base import Problem
from tfgan_med.layers.padding import cropped, margins, mirrored
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.networks.unet import MAX_LEVELS, MIN_SIZE, Upsampling, unet_generator


class Pix2PixSegmenterConfig(SegmenterConfig):
    """Settings of the network, its loss and its optimizer."""

    learning_rate: float = Field(1e-3, gt=0.0)
    """Adam's rate at the start; the thesis' grid is 1e-2, 1e-3, 1e-4, its best 1e-3."""
    dropout: float = Field(0.4, ge=0.0, lt=1.0)
    """Share of features dropped in the first decoder levels; the thesis' grid is 0.3, 0.4, 0.5."""
    base: int = Field(64, ge=1, le=256)
    """Channels of the first level; deeper ones have up to eight times as many."""
    upsample: Upsampling = "transposed"
    """`transposed` is the paper's; `resize` repeats pixels, then convolves 3x3."""


class Pix2PixSegmenter(Segmenter):
    """A U-Net down to one pixel, cross-entropy and Dice, Adam.

    Args:
        config: the settings.
        problem: pictures and masks; a size that cannot be halved often enough is mirrored at the
            border inside the network.
        schedule: not needed; the rate is constant unless `plateau` is set.
        seed: of the initial weights and of dropout.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 128},
        "train": {
            "steps": 4000,
            "batch_size": 16,
            "eval_interval": 100,
            "eval_metric": "iou",
            "patience": 15,
        },
    }

    def __init__(
        self,
        config: Pix2PixSegmenterConfig,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        super().__init__(config, problem, seed=seed)
        network = pix2pix_segmenter(
            problem.image_size,
            problem.channels,
            problem.outputs,
            base=config.base,
            upsample=config.upsample,
            dropout=config.dropout,
            seed=seed,
        )
        self.own(network, FusedAdam(config.learning_rate))


def pix2pix_segmenter(
    image_size: int,
    channels: int,
    outputs: int,
    base: int = 64,
    upsample: Upsampling = "transposed",
    dropout: float = 0.4,
    seed: int = 0,
) -> keras.Model:
    """The generator with a linear head, for pictures of any size from 16.

    Returns:
        A model from `(batch, size, size, channels)` to float32 logits
        `(batch, size, size, outputs)`.
    Raises:
        ValueError: for a smaller picture.
    """
    if image_size < MIN_SIZE:
        raise ValueError(f"image_size is {image_size}; a U-Net needs at least {MIN_SIZE}.")
    step = 2 ** min(MAX_LEVELS, image_size.bit_length() - 1)
    missing = margins(image_size, image_size, step)
    network = unet_generator(
        image_size + sum(missing[0]),
        channels,
        outputs,
        base=base,
        norm="batch",
        upsample=upsample,
        dropout=dropout,
        activation="none",
        seed=seed,
        name="pix2pix_segmenter",
    )
    if not sum(missing[0]):
        return network
    images = keras.Input((image_size, image_size, channels), name="images")
    logits = cropped(network(mirrored(images, missing)), missing)
    return keras.Model(images, logits, name="pix2pix_segmenter")
