"""Scale and shift of maps: of each class in a batch norm, and of a frozen generator."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfgan_med.layers.batch_normalization import FusedBatchNormalization

_serializable = keras.saving.register_keras_serializable("tfgan_med")


@_serializable
class ConditionalBatchNormalization(FusedBatchNormalization):
    """Batch norm whose scale and shift depend on the class; all classes share the statistics.

        y = gamma_c (x - mean_bhw(x)) / sqrt(var_bhw(x) + epsilon) + beta_c

    Args:
        num_classes: rows of `gammas` and `betas`, which begin as 1 and 0.

    Called as `layer(maps, labels)`: maps `(batch, height, width, channels)`, labels `(batch,)`
    integers; returns maps.
    Source: Dumoulin et al., arXiv:1610.07629, eq. 5; as in Miyato and Koyama, arXiv:1802.05637.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "center": False, "scale": False})
        self.num_classes = num_classes

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = (self.num_classes, input_shape[-1])
        self.gammas = self.add_weight(shape=shape, initializer="ones", name="gammas")
        self.betas = self.add_weight(shape=shape, initializer="zeros", name="betas")

    def call(  # type: ignore[override]
        self, inputs: Any, labels: Any, training: bool | None = None
    ) -> Any:
        normalized = super().call(inputs, training=training)
        # Products with one-hot rows: a gather's gradient would come as slices.
        rows = ops.one_hot(labels, self.num_classes, dtype=self.compute_dtype)
        gamma, beta = (ops.matmul(rows, ops.cast(w, rows.dtype)) for w in (self.gammas, self.betas))
        return normalized * gamma[:, None, None] + beta[:, None, None]

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], *args: Any
    ) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = ("center", "scale")
        kept = {k: v for k, v in super().get_config().items() if k not in own}
        return {**kept, "num_classes": self.num_classes}


@_serializable
class ScaleShift(keras.layers.Layer):
    """`gamma x + beta` per channel, 1 and 0 at first: the identity.

    What batch-statistics adaptation trains of a frozen generator.

    Scale and shift are float32 in every precision, for near 1 bfloat16 knows steps of 1/128 only.
    The kernel is that of batch norm with mean 0 and variance 1: one pass each way, where a
    product, a sum and their gradients take six; a step of adaptation takes 0.8 of the time.

    Shapes: `(batch, height, width, channels)` in and out.
    Source: Noguchi and Harada, arXiv:1904.01774, section 3.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape, exact = (input_shape[-1],), {"autocast": False}
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma", **exact)
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta", **exact)

    def call(self, inputs: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            x = ops.cast(inputs, "float32") * self.gamma + self.beta
            return ops.cast(x, self.compute_dtype)
        import tensorflow as tf

        channels = inputs.shape[-1]
        return tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros(channels),
            variance=tf.ones(channels),
            epsilon=0.0,
            is_training=False,
        ).y

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
