"""Larger maps: the 2 x 2 transposed convolution as a matrix product, bilinear interpolation."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfgan_med.layers.convolution import without_fixed


class TilingConvolution(keras.layers.Conv2DTranspose):
    """`Conv2DTranspose(filters, 2, strides=2)`: every pixel becomes a tile of 2 x 2.

    Tiles do not overlap, so the sums are one matrix product whose results change places; a
    general transposed convolution takes two to three times as long on a CPU.

    Shapes: `(batch, height, width, channels)` to `(batch, 2 height, 2 width, filters)`.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 2, strides=2, padding="same", **kwargs)

    def call(self, inputs: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        import tensorflow as tf

        channels = inputs.shape[-1]
        kernel = ops.reshape(self.kernel, (4 * self.filters, channels))
        tiles = ops.conv(inputs, ops.reshape(ops.transpose(kernel), (1, 1, channels, -1)))
        outputs = tf.nn.depth_to_space(tiles, 2)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return outputs

    def get_config(self) -> dict[str, Any]:
        return without_fixed(super().get_config())


class Bilinear(keras.initializers.Initializer):
    """Kernel of a transposed convolution that interpolates, each class by itself.

        w(i, j) = (1 - |i - c| / f) (1 - |j - c| / f),  f = (k + 1) // 2,
        c = f - 1 for odd k, f - 1/2 for even k;  0 across classes

    A kernel of twice the stride keeps a constant map constant, away from the border.

    Shapes: `(k, k, classes, classes)`.
    Source: Long et al., arXiv:1411.4038, section 3.3; shelhamer/fcn.berkeleyvision.org,
        surgery.py, `upsample_filt`.
    """

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        size, classes = shape[0], shape[2]
        factor = (size + 1) // 2
        center = factor - 1.0 if size % 2 else factor - 0.5
        ramp = 1.0 - np.abs(np.arange(size) - center) / factor
        kernel = np.einsum("i,j,kl->ijkl", ramp, ramp, np.eye(classes))
        return ops.convert_to_tensor(kernel, dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {}
