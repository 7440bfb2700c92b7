"""FCN-8s: outlines objects with VGG16's features at three sizes.

Source: Long et al., arXiv:1411.4038, all streams trained at once as in
shelhamer/fcn.berkeleyvision.org, voc-fcn8s-atonce/net.py; loss 1 - Dice as in the paper on
synthetic blood smears. Deviations: Adam, for the reference's rate belongs to a sum over pixels;
512 instead of 4096 features, for small sets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from tfgan_med.downstream._segmenter import Segmenter, SegmenterConfig, vgg16_file
from tfgan_med.downstream.base import Problem
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.networks.fcn import fcn8s


class FCN8sConfig(SegmenterConfig):
    """Settings of the network, its loss and its optimizer."""

    learning_rate: float = Field(1e-4, gt=0.0)
    """Adam's rate; the papers name none."""
    cross_entropy: float = Field(0.0, ge=0.0)
    """Weight of the mean cross-entropy of the pixels; the paper's loss is Dice alone."""
    features: int = Field(512, ge=1, le=4096)
    """Width of the two layers after VGG16's last pooling; 4096 is the paper's."""
    base: int = Field(64, ge=1, le=64)
    """Channels of the trunk's first block; 64 is VGG16's, and what its weights need."""
    weights: Path | Literal["none"] | None = None
    """Weights of the trunk: null takes those of ImageNet (`tfgan-med weights status`), a file
    others, `none` begins at random."""
    trainable_upsampling: bool = False
    """Learn the transposed convolutions too, which begin as bilinear interpolation."""


class FCN8s(Segmenter):
    """VGG16 without its classifier, three streams of logits, 1 - Dice, Adam.

    Args:
        config: the settings.
        problem: pictures of 1 or 3 channels and masks; a size that is no multiple of 32 is
            mirrored at the border inside the network.
        schedule: not needed; the rate is constant unless `plateau` is set.
        seed: of the initial weights and of dropout.

    Attributes:
        weights_used: where the trunk comes from, for reports.

    Raises:
        MissingWeightsError: if the weights of ImageNet are not on this machine.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 256},
        "train": {
            "steps": 4000,
            "batch_size": 8,
            "eval_interval": 100,
            "eval_metric": "dice",
            "patience": 20,
        },
    }

    def __init__(
        self,
        config: FCN8sConfig,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        super().__init__(config, problem, seed=seed)
        weights, self.weights_used = vgg16_file(config.weights)
        network = fcn8s(
            (problem.image_size, problem.image_size),
            problem.channels,
            problem.outputs,
            features=config.features,
            base=config.base,
            trainable_upsampling=config.trainable_upsampling,
            weights=weights,
            seed=seed,
        )
        self.own(network, FusedAdam(config.learning_rate))
