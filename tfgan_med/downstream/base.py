"""What every downstream model shares: one network, one loss, one optimizer, and what it predicts.

The models must be ordinary, stable and identical between the arms of an experiment. Their network
takes pictures as the data pipeline gives them, in [-1, 1], and scales them as its weights need, so
that real and synthetic pictures can never be scaled differently. It gives logits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import Field

from tfgan_med.batches import Tensor
from tfgan_med.config import Config
from tfgan_med.learning.system import System

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """What a downstream model is to tell apart; follows from the data.

    Attributes:
        image_size, channels: of the pictures, square, 1 or 3 channels.
        classes: of a classifier, all class names, sorted. Of a segmenter, the names of its masks,
            or of all classes of a label map, background first.
        positive: index of the class that a yes-or-no question asks for; None with more classes.
        exclusive: whether exactly one class holds for each picture or pixel. Masks are not.
    """

    image_size: int
    channels: int
    classes: tuple[str, ...]
    positive: int | None = None
    exclusive: bool = True

    @property
    def outputs(self) -> int:
        """Logits: one for a yes-or-no question, else one for each class."""
        return 1 if self.positive is not None and self.exclusive else len(self.classes)

    def masks(self, probabilities: Array, threshold: float) -> npt.NDArray[np.bool_]:
        """Masks `(..., classes)` that a segmenter's probabilities mean; one class for each pixel
        of a label map."""
        if self.exclusive:
            return np.asarray(np.eye(probabilities.shape[-1], dtype=bool)[probabilities.argmax(-1)])
        return np.asarray(probabilities > threshold)


class DownstreamConfig(Config):
    """Settings that all downstream models have."""

    learning_rate: float = Field(1e-3, gt=0.0)
    """Of the optimizer."""
    positive: str | None = None
    """Of two classes the one that is looked for, such as `abnormal`; by default the one that is
    not called normal, healthy, ok, good ..., else the second one."""
    plateau: int = Field(0, ge=0)
    """Evaluations without gain after which the learning rate is halved; 0 keeps it."""


class DownstreamModel(System):
    """A classifier or segmenter; a subclass builds `network`, then calls `self.own(...)`.

    Args:
        config: settings of the model.
        problem: what it is to tell apart.
        losses: names of the parts of the loss beside `loss`, their sum.
        seed: of initial weights and dropout.

    Attributes:
        network: pictures `(batch, size, size, channels)` in [-1, 1] to float32 logits,
            `(batch, outputs)` or `(batch, size, size, outputs)`.
    """

    needs: ClassVar[Literal["labels", "masks", "ids"]]
    """What it learns from: classes of pictures; binary masks or label maps; numbered objects."""
    network: keras.Model

    def __init__(
        self,
        config: DownstreamConfig,
        problem: Problem,
        losses: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(losses=("loss", *losses), seed=seed)
        self.config = config
        self.problem = problem
        self.weights_used = "none"  # where pretrained weights come from, for reports
        self.extra_state["stale"] = self._counter("stale_evaluations", ())

    def own(self, network: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        """Keep the network and the optimizer of its trainable weights."""
        self.network = network
        self.networks["network"] = network
        self.own_optimizer("network", optimizer, network)
        self.finish()

    # Learning -------------------------------------------------------------------------------

    @abstractmethod
    def losses_of(self, batch: Mapping[str, Tensor], logits: Any) -> dict[str, Tensor]:
        """Float32 scalars by name; their sum is minimized.

        Args:
            batch: `images` and, by `needs`, `labels` `(batch,)` int32 and `weights` `(batch,)`,
                `masks` `(batch, size, size, classes)` of 0 and 1, or
                `ids` `(batch, size, size, 1)` int32, 0 for background.
            logits: what `network` gave in training mode.
        """

    def forward(self, batch: Mapping[str, Tensor]) -> Any:
        """Logits in training mode."""
        return self.network(batch["images"], training=True)

    def train_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step on one batch."""
        with tf.GradientTape() as tape:
            parts = self.losses_of(batch, self.forward(batch))
            loss = tf.add_n(list(parts.values()))
        self.minimize(loss, tape, "network", self.network)
        named = {name: parts[name] for name in self.loss_names if name != "loss"}
        return self.track(loss=loss, **named)

    def after_evaluation(self, improved: bool) -> None:
        """Halve the learning rate when the score has not risen for a while."""
        stale = self.extra_state["stale"]
        stale.assign(0 if improved else stale.value + 1)
        if self.config.plateau and int(stale.numpy()) >= self.config.plateau:
            stale.assign(0)
            rate = self.inner_optimizer().learning_rate
            rate.assign(rate * 0.5)

    def inner_optimizer(self) -> Any:
        """The optimizer itself, without the wrapper for loss scaling."""
        optimizer = self.optimizers["network"]
        return getattr(optimizer, "inner_optimizer", optimizer)

    # Its state ------------------------------------------------------------------------------

    def state(self) -> dict[str, keras.Variable]:
        """As of every system, without frozen layers: their file or the seed gives them again."""
        layers = [layer for layer in self.network.layers if not layer.trainable]
        frozen = {id(v) for layer in layers for v in layer.variables}
        return {name: v for name, v in super().state().items() if id(v) not in frozen}

    def network_state(self) -> dict[str, keras.Variable]:
        """The part of `state` that predictions depend on."""
        return {k: v for k, v in self.state().items() if k.startswith("network/")}

    def restore_network(self, arrays: Mapping[str, Array]) -> None:
        """Go back to weights that `network_state` named."""
        for name, variable in self.network_state().items():
            variable.assign(arrays[name])

    def whole_network(self) -> dict[str, keras.Variable]:
        """All weights of the network in order, frozen ones too."""
        return {f"{i:04d}-{v.name}": v for i, v in enumerate(self.network.weights)}

    # Predicting -----------------------------------------------------------------------------

    def probabilities(self, images: Array, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """What the model believes, without dropout and with moving statistics.

        Args:
            images: `(images, size, size, channels)` in [-1, 1].
        Returns:
            Of classifiers `(images, classes)`, of segmenters `(images, size, size, classes)`, in
            [0, 1]. A yes-or-no classifier gives both classes, so that rows sum to 1; a segmenter
            of one mask gives that mask.
        """
        starts = range(0, len(images), batch_size)
        parts = [np.asarray(self._predict(images[i : i + batch_size])) for i in starts]
        return np.concatenate(parts)

    def _predict(self, images: Array) -> Tensor:
        if not hasattr(self, "_compiled_predict"):
            channels, size = self.problem.channels, self.problem.image_size
            shape = tf.TensorSpec((None, size, size, channels), tf.float32)
            # Set past Keras' tracking of attributes: a function is no part of the state.
            object.__setattr__(
                self, "_compiled_predict", tf.function(self.believe, [shape], autograph=False)
            )
        return self._compiled_predict(tf.constant(images, tf.float32))

    def believe(self, images: Tensor) -> Tensor:
        """Probabilities of a batch; see `probabilities`."""
        return beliefs(self.network(images, training=False), self.problem)


def beliefs(logits: Tensor, problem: Problem) -> Tensor:
    """Probabilities of every class from logits `(..., outputs)`."""
    logits = tf.cast(logits, tf.float32)
    if not problem.exclusive:
        return tf.sigmoid(logits)
    if problem.positive is None:
        return tf.nn.softmax(logits)
    yes = tf.sigmoid(logits)
    if len(problem.classes) == 1:
        return yes
    no = tf.sigmoid(-logits)
    return tf.concat([no, yes] if problem.positive == 1 else [yes, no], axis=-1)
