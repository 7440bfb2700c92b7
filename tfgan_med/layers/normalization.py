"""Instance and batch normalization with the constants of the image-to-image papers."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfgan_med.layers.batch_normalization import FusedBatchNormalization

NormKind = Literal["instance", "instance-plain", "batch", "none"]

MAX_FUSED_BATCH = 16
MIN_FUSED_PIXELS = 128


class InstanceNormalization(keras.layers.Layer):
    """Zero mean and unit variance per image and channel, then a learned scale and offset.

        y = gamma (x - mean_hw(x)) / sqrt(var_hw(x) + epsilon) + beta

    Training and inference agree and no image sees its neighbors in the batch. Statistics are
    float32 under mixed precision, since sums over a map overflow float16.

    Args:
        epsilon: added to the variance; 1e-5 is PyTorch's value, Keras' group norm has 1e-3.
        affine: learn gamma and beta (Pix2Pix); CycleGAN goes without.

    Shapes: `(batch, height, width, channels)` in and out.
    Raises:
        ValueError: for a map of one pixel, whose variance is 0: the result would be beta,
            whatever the image.
    Source: Ulyanov et al., arXiv:1607.08022. Equal to
        `GroupNormalization(groups=-1, epsilon=1e-5)`.
    """

    def __init__(self, epsilon: float = 1e-5, affine: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.affine = affine

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _, height, width, channels = input_shape
        if height == 1 and width == 1:
            raise ValueError(
                f"{self.name} would normalize maps of one pixel, shape {tuple(input_shape)}, and "
                "return the same values for every image. Leave the norm out at this level."
            )
        if self.affine:
            self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma")
            self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")

    def call(self, inputs: Any) -> Any:
        if _fused_on_cpu(inputs):
            return self._fused(inputs)
        x = ops.cast(inputs, "float32")
        # Not `ops.moments`: TensorFlow's lets no gradient through the mean in the variance, which
        # is right once but wrong for the gradient of a gradient penalty.
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=(1, 2), keepdims=True)
        scale = ops.rsqrt(variance + self.epsilon)
        if self.affine:
            scale = scale * ops.cast(self.gamma, "float32")
        offset = -mean * scale
        if self.affine:
            offset = offset + ops.cast(self.beta, "float32")
        return ops.cast(x * scale + offset, self.compute_dtype)

    def _fused(self, inputs: Any) -> Any:
        """Batch norm of one image at a time, in TensorFlow's fused kernel.

        One pass instead of seven: 1.3 to 2.5 times as fast here, most in bfloat16.
        """
        import tensorflow as tf

        if self.affine:
            gamma, beta = (ops.cast(weight, "float32") for weight in (self.gamma, self.beta))
        else:
            gamma, beta = tf.ones(inputs.shape[-1:]), tf.zeros(inputs.shape[-1:])
        images = [
            tf.raw_ops.FusedBatchNormV3(
                x=image,
                scale=gamma,
                offset=beta,
                mean=tf.zeros((0,)),
                variance=tf.zeros((0,)),
                epsilon=self.epsilon,
                is_training=True,
            ).y
            for image in tf.split(inputs, inputs.shape[0])
        ]
        return images[0] if len(images) == 1 else tf.concat(images, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "affine": self.affine}


def _fused_on_cpu(inputs: Any) -> bool:
    """Whether the loop over images pays: on a CPU, for a small batch of maps that are not tiny."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if not isinstance(inputs, tf.Tensor) or not inputs.shape.is_fully_defined():
        return False
    batch, height, width, _ = inputs.shape
    pays = 0 < batch <= MAX_FUSED_BATCH and height * width >= MIN_FUSED_PIXELS
    return pays and not tf.config.list_physical_devices("GPU")


def normalization(kind: NormKind, name: str) -> keras.layers.Layer:
    """The norm layer called `kind`; momentum and epsilon are PyTorch's.

    "instance-plain" is instance norm without learned scale and offset.
    Keras' own batch-norm constants (0.99, 1e-3) make the moving statistics too slow for runs of
    a few thousand steps.
    """
    if kind in ("instance", "instance-plain"):
        return InstanceNormalization(affine=kind == "instance", name=name)
    if kind == "batch":
        return FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=name)
    if kind == "none":
        return keras.layers.Identity(name=name)
    kinds = ", ".join(typing.get_args(NormKind))
    raise ValueError(f'Unknown norm "{kind}". Expected one of: {kinds}.')


def recalibrate(network: keras.Model, batches: Iterable[Any]) -> None:
    """Set the moving statistics of every batch norm to their averages over batches.

    The moving averages of training lag behind the weights, and those of a copy with averaged
    weights belong to other weights. Networks without batch norm are left as they are.

    Args:
        network: called in training mode, so its other layers must not draw or keep anything.
        batches: inputs, all of one shape; at least one.
    """
    import tensorflow as tf

    norms = [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not norms:
        return
    kept = [(norm.momentum, norm.trainable) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the moving statistics become those of the last batch
        norm.trainable = True  # a frozen norm, as of a moving average, would not look at batches
    forward = tf.function(lambda batch: network(batch, training=True), autograph=False)
    statistics = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    totals, count = [np.zeros(v.shape) for v in statistics], 0
    try:
        for batch in batches:
            forward(batch)
            totals = [total + v.numpy() for total, v in zip(totals, statistics, strict=True)]
            count += 1
    finally:
        for norm, (momentum, trainable) in zip(norms, kept, strict=True):
            norm.momentum, norm.trainable = momentum, trainable
    if not count:
        raise ValueError("Batch-norm statistics need at least one batch to be averaged over.")
    for variable, total in zip(statistics, totals, strict=True):
        variable.assign(total / count)
