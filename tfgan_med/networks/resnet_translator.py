"""Residual translator: the generator of CycleGAN, and of pix2pixHD with more downsamplings.

Johnson et al., arXiv:1603.08155, in the form of Zhu et al., arXiv:1703.10593, section 7.2; paddings
as in junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from tfgan_med.layers.normalization import NormKind, normalization
from tfgan_med.networks.initialization import normal_weights


def resnet_translator(
    image_size: int,
    source_channels: int,
    target_channels: int,
    blocks: int = 9,
    base: int = 64,
    downsamplings: int = 2,
    norm: NormKind = "instance-plain",
    seed: int = 0,
    name: str = "generator",
) -> keras.Model:
    """Smaller and wider, residual blocks, larger and narrower again.

    Args:
        image_size: pixels per side; a multiple of `2 ** downsamplings`.
        source_channels, target_channels: of the picture that comes in and of the one that goes out.
        blocks: residual blocks at the smallest size: 6 for 128 pixels, 9 from 256 on.
        base: width at full size; every downsampling doubles it.
        downsamplings: how often the size is halved: 2 in CycleGAN, 4 in pix2pixHD.
        norm: one of `NormKind`; the convolutions keep their biases with each of them.
        seed: of the starting weights.
    Returns:
        A model from `(batch, size, size, source_channels)` to
        `(batch, size, size, target_channels)`, float32 in [-1, 1] under every precision.
    Raises:
        ValueError: if the size cannot be halved often enough; the message names the nearest.
    """
    _refuse_other_size(image_size, downsamplings)
    make = _Parts(norm, seed, name)
    source = keras.Input((image_size, image_size, source_channels), name="source")

    x = make.active(make.wide(source, base, "stem"), "stem")
    for level in range(downsamplings):
        x = make.active(make.halve(x, base << (level + 1), f"down{level}"), f"down{level}")
    for index in range(blocks):
        x = make.block(x, f"block{index}")
    for level in range(downsamplings):
        width = base << (downsamplings - 1 - level)
        x = make.active(make.double(x, width, f"up{level}"), f"up{level}")

    x = make.wide(x, target_channels, "head")
    image = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model(source, image, name=name)


class ReflectionPadding2D(layers.Layer):
    """Mirror the picture at its border, the border itself not repeated.

    Zeros instead leave a frame in the results (junyanz/pytorch-CycleGAN-and-pix2pix, issue 918).

    Args:
        padding: pixels on each side, fewer than the picture has.
    Shapes: `(batch, height, width, channels)` to
        `(batch, height + 2 padding, width + 2 padding, channels)`.
    """

    def __init__(self, padding: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs: Any) -> Any:
        sides = (self.padding, self.padding)
        return ops.pad(inputs, ((0, 0), sides, sides, (0, 0)), mode="reflect")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        more = 2 * self.padding
        return batch, height and height + more, width and width + more, channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


class _Parts:
    """The layers of one translator, named after their place and seeded by its path."""

    def __init__(self, norm: NormKind, seed: int, path: str) -> None:
        self.norm, self.seed, self.path = norm, seed, path

    def wide(self, x: Any, width: int, label: str) -> Any:
        """7x7 at full size."""
        x = ReflectionPadding2D(3, name=f"{label}_pad")(x)
        return layers.Conv2D(width, 7, **self._options(label))(x)

    def halve(self, x: Any, width: int, label: str) -> Any:
        # Keras' "same" pads only the far end of even sizes; the reference pads both ends.
        x = layers.ZeroPadding2D(1, name=f"{label}_pad")(x)
        return layers.Conv2D(width, 3, strides=2, **self._options(label))(x)

    def double(self, x: Any, width: int, label: str) -> Any:
        # PyTorch's padding 1 and output padding 1; "same" would cut the far end instead.
        x = layers.Conv2DTranspose(width, 3, strides=2, **self._options(label))(x)
        return layers.Cropping2D(((1, 0), (1, 0)), name=f"{label}_crop")(x)

    def block(self, x: Any, label: str) -> Any:
        """Two 3x3 convolutions, added to what came in."""
        y = self.active(self._keep(x, f"{label}_first"), f"{label}_first")
        y = self._normed(self._keep(y, f"{label}_second"), f"{label}_second")
        return layers.Add(name=f"{label}_sum")([x, y])

    def active(self, x: Any, label: str) -> Any:
        return layers.ReLU(name=f"{label}_relu")(self._normed(x, label))

    def _keep(self, x: Any, label: str) -> Any:
        width = x.shape[-1]
        x = ReflectionPadding2D(1, name=f"{label}_pad")(x)
        return layers.Conv2D(width, 3, **self._options(label))(x)

    def _normed(self, x: Any, label: str) -> Any:
        return x if self.norm == "none" else normalization(self.norm, f"{label}_norm")(x)

    def _options(self, label: str) -> dict[str, Any]:
        weights = normal_weights(self.seed, f"{self.path}/{label}")
        return {"padding": "valid", "kernel_initializer": weights, "name": f"{label}_conv"}


def _refuse_other_size(image_size: int, downsamplings: int) -> None:
    step = 1 << downsamplings
    smallest = max(2 * step, 4)  # reflection needs more pixels than it adds
    if image_size >= smallest and image_size % step == 0:
        return
    below = max(image_size // step * step, smallest)
    nearest = f"{below}" if below >= image_size else f"{below} or {below + step}"
    raise ValueError(
        f"image_size is {image_size}; a translator that halves it {downsamplings} times needs a "
        f"multiple of {step}, at least {smallest}. Use {nearest}."
    )
