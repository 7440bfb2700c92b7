"""The image-to-image papers' convolutions, 4 x 4 with stride 2, quick on tiny maps too.

Deep levels of a U-Net have maps of a few pixels and kernels of millions of weights. A convolution
library first brings such a kernel into its own order, which costs more than the sums; as one
matrix product over gathered pixels the kernel is read as it lies. The sums are the same.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

MAX_POSITIONS_DOWN = 32  # results per batch up to which the product is quicker, measured
MAX_POSITIONS_UP = 128


class HalvingConvolution(keras.layers.Conv2D):
    """`Conv2D(filters, 4, strides=2, padding="same")`.

    Shapes: `(batch, height, width, channels)` to `(batch, height / 2, width / 2, filters)`, with
    even height and width.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 4, strides=2, padding="same", **kwargs)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if not _pays(inputs, MAX_POSITIONS_DOWN * 4):
            return super().convolution_op(inputs, kernel)
        batch, height, width, channels = inputs.shape
        pixels = ops.reshape(_neighborhoods(inputs), (-1, 16 * channels))
        sums = ops.matmul(pixels, ops.reshape(kernel, (16 * channels, self.filters)))
        return ops.reshape(sums, (batch, height // 2, width // 2, self.filters))

    def get_config(self) -> dict[str, Any]:
        return without_fixed(super().get_config())


class DoublingConvolution(keras.layers.Conv2DTranspose):
    """`Conv2DTranspose(filters, 4, strides=2, padding="same")`.

    Shapes: `(batch, height, width, channels)` to `(batch, 2 height, 2 width, filters)`.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 4, strides=2, padding="same", **kwargs)

    def call(self, inputs: Any) -> Any:
        if not _pays(inputs, MAX_POSITIONS_UP):
            return super().call(inputs)
        batch, height, width, channels = inputs.shape
        kernel = ops.reshape(self.kernel, (16 * self.filters, channels))
        shares = ops.matmul(ops.reshape(inputs, (-1, channels)), ops.transpose(kernel))
        shares = ops.reshape(shares, (batch, height, width, 4, 4, self.filters))
        rows = _overlap_add(shares, axis=1)  # (batch, 2 height, width, 4, filters)
        outputs = _overlap_add(rows, axis=2)
        if self.use_bias:
            outputs = outputs + self.bias
        return outputs

    def get_config(self) -> dict[str, Any]:
        return without_fixed(super().get_config())


def _pays(inputs: Any, positions: int) -> bool:
    """Whether a batch is small enough: on a CPU, of known shape, with few pixels in all."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if not isinstance(inputs, tf.Tensor) or not inputs.shape.is_fully_defined():
        return False
    batch, height, width, _ = inputs.shape
    return batch * height * width <= positions and not tf.config.list_physical_devices("GPU")


def _neighborhoods(inputs: Any) -> Any:
    """The 16 pixels under each kernel position, `(batch, height / 2, width / 2, 16 channels)`."""
    padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = inputs.shape[1], inputs.shape[2]
    return ops.concatenate(
        [
            padded[:, row : row + height : 2, column : column + width : 2]
            for row in range(4)
            for column in range(4)
        ],
        axis=-1,
    )


def _overlap_add(shares: Any, axis: int) -> Any:
    """Add the four shares of each position along `axis` at stride 2, cutting one off both ends.

    The shares lie on axis 3; result 2i gets share 1 of i and 3 of i - 1, result 2i + 1 gets 2 of i
    and 0 of i + 1.
    """
    shares = ops.unstack(shares, axis=3)  # slices would each send back a whole gradient of zeros
    even = shares[1] + _shifted(shares[3], axis, forward=True)
    odd = shares[2] + _shifted(shares[0], axis, forward=False)
    pairs = ops.stack([even, odd], axis=axis + 1)
    shape = list(even.shape)
    shape[axis] *= 2
    return ops.reshape(pairs, shape)


def _shifted(x: Any, axis: int, forward: bool) -> Any:
    """`x` moved by one along `axis`, 0 coming in."""
    count = x.shape[axis]
    if count == 1:
        return ops.zeros_like(x)
    if forward:
        kept, lost = ops.split(x, [count - 1], axis)
        return ops.concatenate([ops.zeros_like(lost), kept], axis)
    lost, kept = ops.split(x, [1], axis)
    return ops.concatenate([kept, ops.zeros_like(lost)], axis)


def without_fixed(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a convolution layer without those that its class fixes."""
    fixed = ("kernel_size", "strides", "padding")
    return {key: value for key, value in config.items() if key not in fixed}
