"""What every segmenter shares: its targets, and the overlap and pixel-wise parts of its loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from tfgan_med.batches import Tensor
from tfgan_med.downstream.base import DownstreamConfig, DownstreamModel, Problem
from tfgan_med.losses.segmentation import segmentation_loss
from tfgan_med.networks import pretrained


class SegmenterConfig(DownstreamConfig):
    """Settings that all segmenters have."""

    dice: float = Field(1.0, ge=0.0)
    """Weight of one minus the Dice coefficient of the batch."""
    cross_entropy: float = Field(1.0, ge=0.0)
    """Weight of the mean cross-entropy of the pixels."""
    focal_gamma: float = Field(0.0, ge=0.0)
    """Above 0 (2 is usual) the cross-entropy counts pixels less that are already right."""


class Segmenter(DownstreamModel):
    """A network from pictures to one logit for each pixel and class."""

    needs: ClassVar = "masks"
    config: SegmenterConfig

    def __init__(self, config: SegmenterConfig, problem: Problem, seed: int = 0) -> None:
        weights = {"dice": config.dice, "cross_entropy": config.cross_entropy}
        parts = tuple(name for name, weight in weights.items() if weight)
        if not parts:
            raise ValueError(
                "model.dice and model.cross_entropy are both 0, so there is nothing to learn from. "
                "Set one of them above 0."
            )
        super().__init__(config, problem, losses=parts, seed=seed)

    def losses_of(self, batch: Mapping[str, Tensor], logits: Any) -> dict[str, Tensor]:
        config = self.config
        return segmentation_loss(
            self.targets(batch["masks"]),
            logits,
            exclusive=self.problem.exclusive and self.problem.outputs > 1,
            dice=config.dice,
            cross_entropy=config.cross_entropy,
            focal_gamma=config.focal_gamma,
        )

    def targets(self, masks: Tensor) -> Tensor:
        """The masks that logits stand for: of a yes-or-no question the positive one alone."""
        positive = self.problem.positive
        if self.problem.outputs == 1 and masks.shape[-1] > 1 and positive is not None:
            return masks[..., positive : positive + 1]
        return masks


def vgg16_file(weights: Path | Literal["none"] | None) -> tuple[Path | None, str]:
    """The file that a VGG16 trunk starts from, None for noise, and how reports call it.

    Args:
        weights: a file, `none`, or None for ImageNet's in the weights folder.
    Raises:
        MissingWeightsError: if those are not on this machine.
    """
    if weights == "none":
        return None, "none"
    path = pretrained.locate("vgg16", weights, setting="model.weights")
    return path, path.name if weights else f"imagenet ({path.name})"
