"""Batch normalization in TensorFlow's fused kernels.

Keras 3 writes it as a dozen operations, each a pass over the map, forward and backward; the fused
kernel reads the map twice. The values, the moving statistics and the weights are Keras' own.
"""

from __future__ import annotations

from typing import Any

import keras


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of maps, in one kernel each way.

        y = gamma (x - mean_bhw(x)) / sqrt(var_bhw(x) + epsilon) + beta

    Moving statistics hold the biased variance, as in Keras; the kernel returns the unbiased one.
    What the kernel does not know (other ranks than 4, other axes than the last, masks, batch
    renormalization, statistics over devices, other backends) is computed by Keras.

    Shapes: `(batch, height, width, channels)` in and out; float32 statistics in every precision.
    Source: Ioffe and Szegedy, arXiv:1502.03167, algorithms 1 and 2.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or not self._known_to_the_kernel(inputs):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        inputs = tf.cast(inputs, self.compute_dtype)
        scale = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(inputs.shape[-1])
        offset = tf.convert_to_tensor(self.beta) if self.center else tf.zeros(inputs.shape[-1])
        own_statistics = bool(training and self.trainable)
        nothing = tf.zeros((0,))
        result = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=nothing if own_statistics else tf.convert_to_tensor(self.moving_mean),
            variance=nothing if own_statistics else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=own_statistics,
        )
        if own_statistics:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            biased = result.batch_variance * ((count - 1.0) / count)
            self._move(self.moving_mean, result.batch_mean)
            self._move(self.moving_variance, biased)
        return result.y

    def _move(self, average: keras.Variable, value: Any) -> None:
        average.assign(average * self.momentum + value * (1.0 - self.momentum))

    def _known_to_the_kernel(self, inputs: Any) -> bool:
        if keras.backend.backend() != "tensorflow" or self.synchronized or self.renorm:
            return False
        last = len(inputs.shape) - 1
        return last == 3 and self.axis in (-1, last) and self.variable_dtype == "float32"
