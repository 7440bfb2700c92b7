"""Classifiers on the convolutions of a network that knows ImageNet.

Paper 003, section 4.3: frozen convolutions, batch norm, average over the map, dropout, one dense
layer. With a few hundred pictures only the last two thousand weights are learned.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers
from pydantic import Field

from tfgan_med.batches import Tensor
from tfgan_med.downstream.base import Array, DownstreamConfig, DownstreamModel, Problem, beliefs
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import UNSCHEDULED, FusedAdam, Schedule
from tfgan_med.losses.classification import classification_loss
from tfgan_med.networks import pretrained
from tfgan_med.networks.initialization import seed_of
from tfgan_med.networks.vgg import BGR_MEAN

FeatureMaps = npt.NDArray[np.float32]
Start = Callable[[str], keras.initializers.Initializer]


class TransferConfig(DownstreamConfig):
    """Settings of a classifier on a pretrained base."""

    learning_rate: float = Field(1e-4, gt=0.0)
    """Of Adam. The thesis tries 1e-4, 2e-4 and 3e-4."""
    dropout: float = Field(0.4, ge=0.0, lt=1.0)
    """Rate of dropout before the last layer. The thesis tries 0.3, 0.4 and 0.5."""
    weights: Path | Literal["none"] | None = None
    """Weights of the base: null takes those of ImageNet (`tfgan-med weights status`), a file
    others, `none` begins at random and trains the base too."""
    unfreeze: int | None = Field(None, ge=0)
    """Blocks of the base that are trained, counted from its end; null: none, and all of a base
    that begins at random."""
    preprocessing: Literal["caffe", "rescale"] = "caffe"
    """`caffe` gives the base what its weights want; `rescale`, pixels divided by 255, is there to
    repeat the thesis."""
    head: Literal["sigmoid", "softmax"] = "sigmoid"
    """Two classes: one logit for the positive class, or one for each class as in the thesis."""
    focal_gamma: float = Field(0.0, ge=0.0)
    """Weight of hard pictures, (1 - p)^gamma; 0 is cross-entropy."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the truth that is spread over all classes."""


class TransferClassifier(DownstreamModel):
    """Base, batch norm, average, dropout, dense; a subclass names its base and builds it.

    Args:
        config: settings.
        problem: classes and pictures of 1 or 3 channels; grey ones are repeated.
        schedule: unused, the learning rate is constant.
        seed: of all weights that are not from a file, and of dropout.

    Attributes:
        trunk: pictures in [-1, 1] to the last maps of the base,
            `(batch, height, width, channels)`.
        head: these maps to logits; its layers are those of `network`.
        weights_used: where the base comes from, for reports.

    Raises:
        MissingWeightsError: the weights are not on this machine.
        UserError: pictures that are too small or have other channels, or more blocks than there
            are.
    """

    needs = "labels"
    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "data": {"image_size": 256},
        "train": {"steps": 4000, "batch_size": 16, "eval_interval": 40},
    }
    config: TransferConfig
    weights_name: ClassVar[str]
    """Of the base in the store of weights."""
    blocks: ClassVar[tuple[str, ...]]
    """What the names of a block's layers begin with, from the first to the last block."""
    smallest: ClassVar[int]
    """Side of the smallest picture that leaves a map."""

    def __init__(
        self,
        config: TransferConfig,
        problem: Problem,
        schedule: Schedule = UNSCHEDULED,
        seed: int = 0,
    ) -> None:
        if config.head == "softmax":
            problem = replace(problem, positive=None)
        super().__init__(config, problem, seed=seed)
        self._refuse(problem)
        images = keras.Input(
            (problem.image_size, problem.image_size, problem.channels), name="images"
        )
        maps = self.maps_of(scaled_pixels(images, config.preprocessing), he_start(seed))
        classify = [
            # Statistics must be those of the pictures before the first evaluation: with the 0.99
            # of Keras they are still 60 % starting value after 50 steps.
            layers.BatchNormalization(momentum=0.9, dtype="float32", name="norm"),
            layers.GlobalAveragePooling2D(dtype="float32", name="features"),
            layers.Dropout(
                config.dropout, seed=seed_of(seed, "dropout"), dtype="float32", name="dropout"
            ),
            layers.Dense(
                problem.outputs,
                kernel_initializer=keras.initializers.GlorotUniform(seed_of(seed, "logits")),
                dtype="float32",
                name="logits",
            ),
        ]
        network = keras.Model(images, applied(classify, maps), name=self.weights_name)
        self.trunk = keras.Model(images, maps, name="trunk")
        given = keras.Input(maps.shape[1:], dtype="float32", name="maps")
        self.head = keras.Model(given, applied(classify, given), name="head")

        self.weights_used = self._start_base()
        self._note_doubts(trained=self._freeze())
        self.own(network, FusedAdam(config.learning_rate))

    # The base -------------------------------------------------------------------------------

    @abstractmethod
    def maps_of(self, pixels: Any, start: Start) -> Any:
        """The base on symbolic pixels: its last maps."""

    @abstractmethod
    def load_base(self, path: Path) -> None:
        """Set the weights of `trunk` from a file."""

    @abstractmethod
    def first_layer(self) -> keras.layers.Layer:
        """The convolution that sees the pixels."""

    def _refuse(self, problem: Problem) -> None:
        name = type(self).__name__
        if problem.channels not in (1, 3):
            raise UserError(
                f"data: pictures of {problem.channels} channels. {name} sees grey or RGB "
                "pictures; leave the masks away (data.with_masks=false)."
            )
        if problem.image_size < self.smallest:
            raise UserError(
                f"data.image_size is {problem.image_size}. {name} needs at least "
                f"{self.smallest}; 128 to 256 is usual."
            )
        if (self.config.unfreeze or 0) > len(self.blocks):
            raise UserError(
                f"model.unfreeze is {self.config.unfreeze}. {name} has {len(self.blocks)} blocks."
            )

    def _start_base(self) -> str:
        """Take the weights of the base from a file, unless it is to begin at random."""
        weights = self.config.weights
        if weights == "none":
            return "none"
        path = pretrained.locate(self.weights_name, weights, setting="model.weights")
        self.load_base(path)
        if self.config.preprocessing == "caffe":
            # The published weights want blue first. Reversing the first kernel once is the same
            # as reversing every picture.
            first = self.first_layer()
            kernel, bias = first.get_weights()
            first.set_weights([kernel[:, :, ::-1], bias])
        return f"imagenet ({path.name})" if weights is None else path.name

    def _freeze(self) -> int:
        """Leave only the last blocks to training; returns their number."""
        count = self.config.unfreeze
        if count is None:
            count = len(self.blocks) if self.weights_used == "none" else 0
        trained = self.blocks[len(self.blocks) - count :]
        for layer in self.trunk.layers:
            layer.trainable = layer.name.startswith(trained)
        return count

    def _note_doubts(self, trained: int) -> None:
        config, name = self.config, type(self).__name__
        if self.weights_used == "none":
            self.notices.append(
                f"model.weights is none: the convolutions of {name} begin at random and "
                f"{trained} of {len(self.blocks)} blocks are trained. This is no "
                "transfer from ImageNet; a few hundred pictures rarely suffice for it."
            )
        elif config.preprocessing == "rescale":
            self.notices.append(
                "model.preprocessing is rescale: the weights learned from pixels of another "
                "scale. Keep it for repeating the thesis only."
            )

    # Features of a frozen base --------------------------------------------------------------

    @property
    def frozen_features(self) -> bool:
        """Whether the maps of a picture stay the same during training, so that they can be kept."""
        return not any(layer.trainable and layer.weights for layer in self.trunk.layers)

    @property
    def maps_bytes_per_picture(self) -> int:
        """Memory for the kept maps of a picture."""
        return 4 * int(np.prod(self.trunk.output_shape[1:]))

    def feature_maps(self, images: Array, batch_size: int = 32) -> FeatureMaps:
        """The last maps of the base; `train_step` takes them as `features` instead of `images`.

        Args:
            images: `(images, size, size, channels)` in [-1, 1], not augmented.
        Returns:
            `(images, height, width, channels)`, whatever the precision.
        """
        parts = [
            np.asarray(self._compiled(self._maps, images[start : start + batch_size]))
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate(parts)

    def probabilities_of_maps(
        self, maps: FeatureMaps, batch_size: int = 256
    ) -> npt.NDArray[np.float32]:
        """`probabilities` of pictures whose `feature_maps` are known."""
        parts = [
            np.asarray(self._compiled(self._believe_maps, maps[start : start + batch_size]))
            for start in range(0, len(maps), batch_size)
        ]
        return np.concatenate(parts)

    def _maps(self, images: Tensor) -> Tensor:
        return tf.cast(self.trunk(images, training=False), tf.float32)

    def _believe_maps(self, maps: Tensor) -> Tensor:
        return beliefs(self.head(maps, training=False), self.problem)

    def _compiled(self, function: Callable[[Tensor], Tensor], values: Array) -> Tensor:
        """`function` as a graph, traced once for batches of all sizes."""
        name = f"_graph_of{function.__name__}"
        if not hasattr(self, name):
            shape = tf.TensorSpec((None, *values.shape[1:]), tf.float32)
            # Set past Keras' tracking of attributes: a function is no part of the state.
            object.__setattr__(self, name, tf.function(function, [shape], autograph=False))
        return getattr(self, name)(tf.constant(values, tf.float32))

    # Learning -------------------------------------------------------------------------------

    def forward(self, batch: Mapping[str, Tensor]) -> Any:
        """Logits in training mode, from `features` where the batch has them, else `images`."""
        if not self.frozen_features:
            return self.network(batch["images"], training=True)
        features = batch.get("features")
        if features is None:
            features = self.trunk(batch["images"], training=False)
        # Else the tape would keep and walk the whole base, whose weights no one asks for.
        return self.head(tf.stop_gradient(features), training=True)

    def losses_of(self, batch: Mapping[str, Tensor], logits: Any) -> dict[str, Tensor]:
        """Cross-entropy, or focal loss."""
        loss = classification_loss(
            batch["labels"],
            logits,
            positive=self.problem.positive,
            weights=batch.get("weights"),
            focal_gamma=self.config.focal_gamma,
            label_smoothing=self.config.label_smoothing,
        )
        return {"classification": loss}


def applied(stack: list[keras.layers.Layer], x: Any) -> Any:
    """The layers one after the other."""
    for layer in stack:
        x = layer(x)
    return x


def he_start(seed: int) -> Start:
    """He et al., arXiv:1502.01852: maps keep their size from layer to layer, where thirteen
    convolutions as Glorot and Keras start them make them a hundred times smaller."""
    return lambda name: keras.initializers.HeNormal(seed_of(seed, name))


def scaled_pixels(images: Any, preprocessing: Literal["caffe", "rescale"]) -> Any:
    """Three channels in the scale of the base, made of stock layers; float32, for bfloat16 tells
    only every other of 256 values apart.

    Args:
        images: symbolic, `(batch, size, size, 1 or 3)` in [-1, 1].
        preprocessing: `caffe`: 0..255 less the mean of ImageNet, red first; `rescale`: 0..1.
    """
    x = images
    if images.shape[-1] == 1:
        x = layers.Concatenate(dtype="float32", name="three_channels")([x, x, x])
    if preprocessing == "rescale":
        return layers.Rescaling(0.5, 0.5, dtype="float32", name="pixels")(x)
    offset = [127.5 - mean for mean in reversed(BGR_MEAN)]
    return layers.Rescaling(127.5, offset, dtype="float32", name="pixels")(x)
