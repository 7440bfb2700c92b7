"""ResNet-18: a classifier that learns from the pictures at hand, or on from imported weights.

Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, in the form of
`pytorch/vision`, torchvision/models/resnet.py. As the classifier of patches with defects: the
protocol of the defect-pasting thesis (80 000 steps whatever the set, so that all arms of an
experiment see as many pictures).

The thesis is silent on batch size, optimizer and starting weights; ours are 32 pictures, AdamW
1e-3 with weight decay 1e-4 on kernels, cosine decay to 0, random weights. Pictures below 96 px
would leave the paper's first layers with a map of few pixels; they get the stem that He et al. use
for CIFAR-10 (3 x 3, no stride).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
from keras import layers
from pydantic import Field, model_validator

from tfgan_med.batches import Tensor
from tfgan_med.downstream.base import DownstreamConfig, DownstreamModel, Problem
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.losses.classification import classification_loss
from tfgan_med.networks import resnet
from tfgan_med.networks.initialization import seed_of
from tfgan_med.networks.torch_file import read_torch_file

SMALL_BELOW = 96  # pixels per side
WIDTH = 64  # of the paper, and of all imported weights


class ResNet18Config(DownstreamConfig):
    """Settings of the network, its loss and its optimizer."""

    learning_rate: float = Field(1e-3, gt=0.0)
    """At the start."""
    decay: Literal["cosine", "none"] = "cosine"
    """Of the learning rate over the run: down to 0 along half a cosine, or constant, as `plateau`
    asks for."""
    weight_decay: float = Field(1e-4, ge=0.0)
    """Share by which kernels shrink at each step, times the learning rate (AdamW)."""
    width: int = Field(WIDTH, ge=16)
    """Channels of the first stage, doubled at each further stage. With fewer than 16, TensorFlow
    2.21 can write past its memory on a CPU (float32, grey 64 px: process aborted)."""
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """First layers: `imagenet` halves the picture twice (the paper), `small` keeps its size;
    `auto` is small below 96 px, unless weights are given."""
    weights: Path | None = None
    """Weights to begin with: a state dict of torchvision's resnet18 (.pth). Its last layer is used
    if the number of classes is the same."""
    focal_gamma: float = Field(0.0, ge=0.0)
    """Above 0, pictures that are already right count less (focal loss); 2 is its paper's choice."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of each label that is spread over all classes."""

    @model_validator(mode="after")
    def _one_kind_of_decay(self) -> ResNet18Config:
        if self.plateau and self.decay != "none":
            raise ValueError(
                f"plateau is {self.plateau} and decay is cosine; only one of them can lower the "
                "learning rate. Set model.decay=none or model.plateau=0."
            )
        return self


# Network ------------------------------------------------------------------------------------------


def resnet18_classifier(
    shape: tuple[int, int, int],
    outputs: int,
    width: int = WIDTH,
    stem: resnet.Stem = "imagenet",
    seed: int = 0,
    name: str = "resnet18",
) -> keras.Model:
    """ResNet-18 of stock Keras layers, which scales pictures as ImageNet weights expect them.

    Args:
        shape: height, width and channels (1 or 3) of the pictures.
        outputs: number of logits.
        width, stem, seed: as for `residual_maps`.
    Returns:
        A model from `(batch, height, width, channels)` in [-1, 1] to float32 logits
        `(batch, outputs)`. The layer `features` gives the pooled vector, `(batch, 8 width)`.
    """
    pictures = keras.Input(shape, name="images")
    x = resnet.residual_maps(
        "resnet18", resnet.imagenet_input(pictures), width, stem, seed=seed_of(seed, name)
    )[-1]
    x = layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    bound = x.shape[-1] ** -0.5
    logits = layers.Dense(
        outputs,
        kernel_initializer=resnet.torch_uniform(seed, f"{name}/fc"),
        bias_initializer=keras.initializers.RandomUniform(
            -bound, bound, seed=seed_of(seed, f"{name}/fc/bias")
        ),
        dtype="float32",
        name="fc",
    )(x)
    return keras.Model(pictures, logits, name=name)


def stem_of(config: ResNet18Config, image_size: int) -> resnet.Stem:
    """The first layers that `auto` means."""
    if config.stem != "auto":
        return config.stem
    return "small" if image_size < SMALL_BELOW and config.weights is None else "imagenet"


def load_weights(network: keras.Model, path: Path) -> None:
    """Fill the network from torchvision's file; the head where it has as many classes.

    Raises:
        UserError: the file is no state dict of ResNet-18, or the network is not torchvision's.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights: {path} is no file. Name a state dict of torchvision's resnet18 "
            "(.pth), or null to begin with random weights."
        )
    state = read_torch_file(path)
    try:
        resnet.load_torchvision(network, state, optional=("fc",))
    except ValueError as error:
        raise UserError(
            f"model.weights: {path} does not fit: {error} Expected a state dict of torchvision's "
            f"resnet18, model.width={WIDTH} and model.stem=imagenet. Give such a file, or null."
        ) from None


# Learning -----------------------------------------------------------------------------------------


class ResNet18(DownstreamModel):
    """Classes of pictures from their pixels, all layers trained.

    Args:
        config: the settings.
        problem: what it is to tell apart.
        schedule: length of the run, over which the learning rate decays; it stays as it is
            where nothing is known.
        seed: of the initial weights.
    Raises:
        UserError: the file of weights is absent or does not fit.
    """

    needs: ClassVar = "labels"
    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 128},
        "train": {"batch_size": 32, "steps": 80_000, "eval_interval": 400},
    }
    config: ResNet18Config

    def __init__(
        self,
        config: ResNet18Config,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        super().__init__(config, problem, seed=seed)
        side = problem.image_size
        shape = (side, side, problem.channels)
        network = resnet18_classifier(
            shape, problem.outputs, config.width, stem_of(config, side), seed
        )
        if config.weights is not None:
            load_weights(network, config.weights)
            self.weights_used = config.weights.name
        self.own(network, _optimizer(config, schedule))

    def losses_of(self, batch: Mapping[str, Tensor], logits: Any) -> dict[str, Tensor]:
        """Cross-entropy; `weights` of the batch count classes unequally."""
        loss = classification_loss(
            batch["labels"],
            logits,
            self.problem.positive,
            batch.get("weights"),
            self.config.focal_gamma,
            self.config.label_smoothing,
        )
        return {"classification": loss}


def _optimizer(config: ResNet18Config, schedule: Schedule) -> keras.optimizers.Optimizer:
    """AdamW; norms and biases do not shrink."""
    steps = schedule.epochs * schedule.steps_per_epoch
    rate: Any = config.learning_rate
    if config.decay == "cosine" and steps > 1:
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = FusedAdam(rate, weight_decay=config.weight_decay or None)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
