"""A 3 x 3 convolution and a change of size by 2 as one strided convolution, with fewer sums.

Repeating pixels and then convolving 3 x 3 is a transposed convolution with a 4 x 4 kernel whose
entries are sums of the small kernel's; convolving 3 x 3 and then averaging 2 x 2 is a convolution
with a quarter of that kernel and stride 2. Both take 4/9 of the products and no large map between;
results differ by rounding. The trained kernel is the 3 x 3 one.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfgan_med.layers.convolution import without_fixed
from tfgan_med.layers.spectral import SpectralConv2D


@keras.saving.register_keras_serializable("tfgan_med")
class EnlargingConvolution(keras.layers.Conv2D):
    """`UpSampling2D(2, "nearest")`, then `Conv2D(filters, 3, padding="same")`.

    Shapes: `(batch, height, width, channels)` to `(batch, 2 height, 2 width, filters)`.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 3, padding="same", **kwargs)

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("name") == "kernel":
            kwargs["autocast"] = False  # sums of kernels are float32
        return super().add_weight(*args, **kwargs)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        flipped = ops.flip(ops.cast(self.kernel, "float32"), (0, 1))
        merged = ops.cast(ops.transpose(_merged(flipped), (0, 1, 3, 2)), self.compute_dtype)
        return ops.conv_transpose(inputs, merged, strides=2, padding="same")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return (batch, height and 2 * height, width and 2 * width, self.filters)

    def get_config(self) -> dict[str, Any]:
        return without_fixed(super().get_config())


@keras.saving.register_keras_serializable("tfgan_med")
class SpectralShrinkingConvolution(SpectralConv2D):
    """`SpectralConv2D(filters, 3, padding="same")`, then `AveragePooling2D(2)`.

    Sigma is that of the 3 x 3 kernel.

    Shapes: `(batch, height, width, channels)` to `(batch, height / 2, width / 2, filters)`, with
    even height and width.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 3, padding="same", **kwargs)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        small = ops.cast(self.raw_kernel, "float32") / self.sigma()
        merged = ops.cast(_merged(small) / 4.0, self.compute_dtype)
        return ops.conv(inputs, merged, strides=2, padding="same")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return (batch, height and height // 2, width and width // 2, self.filters)

    def get_config(self) -> dict[str, Any]:
        return without_fixed(super().get_config())


def _merged(kernel: Any) -> Any:
    """`(3, 3, in, out)` to `(4, 4, in, out)`: the sum of its four places in a 4 x 4 window."""
    rows = ops.pad(kernel, ((0, 1), (0, 0), (0, 0), (0, 0)))
    rows = rows + ops.pad(kernel, ((1, 0), (0, 0), (0, 0), (0, 0)))
    columns = ops.pad(rows, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return columns + ops.pad(rows, ((0, 0), (1, 0), (0, 0), (0, 0)))
