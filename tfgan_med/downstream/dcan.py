"""DCAN: separates touching objects with one map of objects and one of their contours.

Sources: Chen et al., arXiv:1604.02677; clownrat6/Tissue-Image-Segmentation,
tiseg/models/segmentors/dcan.py. The paper on synthetic blood smears gives its FCN-8s two outputs
instead, which is the default here; `variant: chen` has two heads at three strides, each with a
loss of its own that fades (the paper as remembered: both re-implementations read leave it out).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops
from pydantic import Field

from tfgan_med.batches import Tensor
from tfgan_med.downstream._instances import Labels, decode
from tfgan_med.downstream._segmenter import SegmenterConfig, vgg16_file
from tfgan_med.downstream.base import Array, DownstreamModel, Problem
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.losses.segmentation import cross_entropy_loss, dice_loss
from tfgan_med.networks.fcn import fcn8s, two_heads

FADING, FADES = 0.1, 3  # the losses of single strides weigh 1, 0.1, 0.01, then nothing


class DCANConfig(SegmenterConfig):
    """Settings of the network, its loss and its optimizer."""

    learning_rate: float = Field(1e-4, gt=0.0)
    """Adam's rate."""
    variant: Literal["fcn8s", "chen"] = "fcn8s"
    """`fcn8s` gives FCN-8s two outputs; `chen` has a head for objects and one for contours at
    strides 8, 16 and 32."""
    features: int = Field(512, ge=1, le=4096)
    """Width of the layers after VGG16's last pooling; 1024 in the reference of `chen`."""
    base: int = Field(64, ge=1, le=64)
    """Channels of the trunk's first block; 64 is VGG16's, and what its weights need."""
    weights: Path | Literal["none"] | None = None
    """Weights of the trunk: null takes those of ImageNet (`tfgan-med weights status`), a file
    others, `none` begins at random."""
    contour_radius: int = Field(1, ge=0, le=16)
    """Pixels by which the boundary of each object is thickened on both sides; 3 at 1920 px."""
    balanced: bool = True
    """Weigh the cross-entropy of contours by the share of their pixels, which is small."""
    fading_interval: int = Field(10_000, ge=1)
    """Steps after which the losses of single strides (`chen`) weigh a tenth; nothing after the
    third time."""


class DCAN(DownstreamModel):
    """Two independent maps for each picture, cross-entropy and Dice, Adam.

    Args:
        config: the settings.
        problem: pictures of 1 or 3 channels and one kind of object; a size that is no multiple of
            32 is mirrored at the border inside the network.
        schedule: not needed; the rate is constant unless `plateau` is set.
        seed: of the initial weights and of dropout.

    Attributes:
        network: pictures in [-1, 1] to float32 logits `(batch, size, size, 2)`, object first.
        weights_used: where the trunk comes from, for reports.

    Raises:
        MissingWeightsError: if the weights of ImageNet are not on this machine.
        ValueError: for several kinds of objects.
    """

    needs: ClassVar = "ids"
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
    config: DCANConfig

    def __init__(
        self,
        config: DCANConfig,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        if len(problem.classes) != 1:
            raise ValueError(
                f"DCAN tells objects of one kind from each other: received the classes "
                f"{', '.join(problem.classes)}. Choose one (data.mask)."
            )
        if not (config.dice or config.cross_entropy):
            raise ValueError(
                "model.dice and model.cross_entropy are both 0: nothing to learn from."
            )
        chen = config.variant == "chen"
        names = ("object", "contour", "strides") if chen else ("object", "contour")
        super().__init__(config, problem, losses=names, seed=seed)
        weights, self.weights_used = vgg16_file(config.weights)
        size = (problem.image_size, problem.image_size)
        build = two_heads if chen else _two_outputs
        self.maps = build(
            size,
            problem.channels,
            features=config.features,
            base=config.base,
            weights=weights,
            seed=seed,
        )
        network = self.maps
        if chen:  # the same layers without the maps of single strides
            network = keras.Model(self.maps.input, self.maps.outputs[0], name="dcan")
        self.own(network, FusedAdam(config.learning_rate))

    # Learning -------------------------------------------------------------------------------

    def forward(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Logits in training mode: the result, then those of single strides, if any."""
        maps = self.maps(batch["images"], training=True)
        return maps if isinstance(maps, list) else [maps]

    def losses_of(self, batch: Mapping[str, Tensor], logits: list[Tensor]) -> dict[str, Tensor]:
        """Of objects and of contours; with `chen` also of the single strides, fading."""
        targets = object_and_contour(batch["ids"], self.config.contour_radius)
        total, *single = logits
        parts = self._parts(targets, total)
        if single:
            each = [value for maps in single for value in self._parts(targets, maps).values()]
            parts["strides"] = self._strides_weight() * tf.add_n(each)
        return parts

    def _parts(self, targets: Tensor, logits: Tensor) -> dict[str, Tensor]:
        config = self.config
        losses = {}
        for index, name in enumerate(("object", "contour")):
            wanted, given = targets[..., index : index + 1], logits[..., index : index + 1]
            entropy = cross_entropy_loss(
                wanted,
                given,
                focal_gamma=config.focal_gamma,
                balanced=config.balanced and name == "contour",
            )
            losses[name] = config.cross_entropy * entropy + config.dice * dice_loss(wanted, given)
        return losses

    def _strides_weight(self) -> Tensor:
        fades = self.step.value // self.config.fading_interval
        weight = tf.pow(FADING, tf.cast(fades, tf.float32))
        return tf.where(fades < FADES, weight, 0.0)

    # Predicting -----------------------------------------------------------------------------

    def believe(self, images: Tensor) -> Tensor:
        """Probability of the object, `(batch, size, size, 1)`."""
        return tf.sigmoid(self.network(images, training=False)[..., :1])

    def instances(
        self,
        images: Array,
        object_threshold: float = 0.5,
        contour_threshold: float = 0.5,
        smallest: float = 0.0,
        batch_size: int = 8,
    ) -> Labels:
        """Numbered objects of pictures; see `_instances.decode`.

        Args:
            images: `(images, size, size, channels)` in [-1, 1].
        Returns:
            `(images, size, size)` int32, 0 for background.
        """
        found = [
            decode(
                maps[..., 0],
                maps[..., 1],
                object_threshold,
                contour_threshold,
                smallest=smallest,
                radius=self.config.contour_radius,
            )
            for start in range(0, len(images), batch_size)
            for maps in self._both(images[start : start + batch_size])
        ]
        return np.stack(found)

    def _both(self, images: Array) -> npt.NDArray[np.float32]:
        """Probabilities of objects and contours, `(batch, size, size, 2)`."""
        logits = self.network(tf.constant(images, tf.float32), training=False)
        return np.asarray(tf.sigmoid(logits))


def object_and_contour(ids: Tensor, radius: int) -> Tensor:
    """What the two maps are to be, from numbered objects, so that touching ones have a contour.

    The contour is the pixels of an object with one of the four neighbors in another object or in
    the background, thickened by a disk. The border of the picture is no boundary.

    Args:
        ids: `(batch, height, width, 1)` whole numbers below 2^24, 0 for background.
        radius: of the disk, in pixels.
    Returns:
        `(batch, height, width, 2)` of 0 and 1, float32, object first.
    """
    ids = ops.cast(ids, "float32")  # which GPUs compare and pad, where int32 goes to the CPU
    inside = ops.cast(ids > 0, "float32")
    height, width = ids.shape[1:3]
    around = ops.pad(ids, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    neighbors = [
        around[:, row : row + height, column : column + width]
        for row, column in ((0, 1), (2, 1), (1, 0), (1, 2))
    ]
    differs = [ops.cast(ops.not_equal(ids, neighbor), "float32") for neighbor in neighbors]
    boundary = inside * ops.max(ops.stack(differs), axis=0)
    if not radius:
        return ops.concatenate([inside, boundary], axis=-1)
    reached = ops.conv(boundary, _disk(radius), padding="same")
    return ops.concatenate([inside, ops.cast(reached > 0.5, "float32")], axis=-1)


def _disk(radius: int) -> npt.NDArray[np.float32]:
    """`(2 radius + 1, 2 radius + 1, 1, 1)`, 1 within the radius of the center."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk: npt.NDArray[np.float32] = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    return disk[..., None, None]


def _two_outputs(size: tuple[int, int], channels: int, **options: Any) -> keras.Model:
    """FCN-8s with logits of objects and contours."""
    return fcn8s(size, channels, outputs=2, name="dcan", **options)
