"""Patch discriminators: every score judges one window of a picture, or of it and its condition.

Isola et al., arXiv:1611.07004, section 6.1.2. A discriminator is named after its receptive field,
the side of that window in pixels, for the numbering in the literature contradicts itself.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from tfgan_med.errors import UserError
from tfgan_med.layers.normalization import NormKind, normalization
from tfgan_med.networks.initialization import normal_weights

MAX_WIDTH = 8  # times the base width


class Depth(NamedTuple):
    """How many layers halve the map and how many keep its size before the last one."""

    halving: int
    keeping: int


DEPTHS = {
    "patch10": Depth(1, 0),
    "patch16": Depth(1, 1),
    "patch22": Depth(2, 0),
    "patch34": Depth(2, 1),
    "patch46": Depth(3, 0),
    "patch70": Depth(3, 1),
    "patch94": Depth(4, 0),
    "patch142": Depth(4, 1),
    "patch190": Depth(5, 0),
    "patch286": Depth(5, 1),
}
ALIASES = {"thesis-d1": "patch46", "thesis-d2": "patch22", "thesis-d3": "patch10"}
PATCH_KINDS = ("pixel", *DEPTHS, "image", *ALIASES)


def patch_discriminator(
    kind: str,
    image_size: int,
    channels_in: tuple[int, ...],
    base: int = 64,
    norm: NormKind = "instance",
    bias: bool = False,
    num_scales: int = 1,
    seed: int = 0,
    name: str = "discriminator",
) -> keras.Model:
    """A discriminator, or several of one structure that see the picture at 1, 1/2, 1/4 its size.

    Args:
        kind: one of `PATCH_KINDS`; "image" gives one score per picture.
        image_size: pixels per side.
        channels_in: channels of the source and of the target; one number, `(channels,)`, for a
            discriminator that sees the picture alone.
        base: width of the first layer; each halving doubles it up to 8 times `base`.
        norm: one of `NormKind`; the first layer never has one.
        bias: of all convolutions (CycleGAN); without it only the last one has a bias (Pix2Pix).
        num_scales: how many discriminators, each with its own weights.
        seed: of the starting weights.
    Returns:
        A model from `[source, target]`, each `(batch, size, size, channels)`, or from one such
        picture, to a list with the scores of each scale, `(batch, side, side, 1)`, float32, raw:
        no sigmoid.
    Raises:
        UserError: for an unknown kind.
        ValueError: if the picture is too small for the kind at the smallest scale.
    """
    kind = canonical_kind(kind)
    for scale in range(num_scales):
        score_side(kind, image_size >> scale)

    inputs, seen = _inputs(image_size, channels_in)
    scores = []
    for scale in range(num_scales):
        if scale:
            seen = HalvingPool(name=f"scale{scale}_pool")(seen)
        stack = _Stack(base, norm, bias, seed, f"{name}/scale{scale}" if num_scales > 1 else name)
        scores.append(stack.scores(kind, seen))
    return PatchDiscriminator(inputs, scores, name=name)


def _inputs(image_size: int, channels_in: tuple[int, ...]) -> tuple[Any, Any]:
    """What the model is called with, and the one tensor that its layers see."""
    if len(channels_in) == 1:
        image = keras.Input((image_size, image_size, channels_in[0]), name="image")
        return image, image
    pair = [
        keras.Input((image_size, image_size, channels), name=name)
        for channels, name in zip(channels_in, ("source", "target"), strict=True)
    ]
    return pair, layers.Concatenate(name="pair")(pair)


def canonical_kind(kind: str) -> str:
    """The kind without its alias.

    Raises:
        UserError: if there is no such kind; names the nearest.
    """
    if kind not in PATCH_KINDS:
        near = difflib.get_close_matches(kind, PATCH_KINDS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise UserError(
            f'There is no discriminator "{kind}".{hint} Expected one of: {", ".join(PATCH_KINDS)}.'
        )
    return ALIASES.get(kind, kind)


def receptive_field(kind: str, image_size: int) -> int:
    """Side in pixels of the window that one score sees; `image_size` for "image".

    From the last layer backwards R = 4, R + 3 per layer that keeps the size, 2 R + 2 per halving.
    """
    kind = canonical_kind(kind)
    if kind == "image":
        return image_size
    if kind == "pixel":
        return 1
    halving, keeping = DEPTHS[kind]
    field = 4 + 3 * keeping
    for _ in range(halving):
        field = 2 * field + 2
    return field


def score_side(kind: str, image_size: int) -> int:
    """Side of the map of scores.

    Raises:
        ValueError: if the picture is too small for this kind.
    """
    kind = canonical_kind(kind)
    if kind == "pixel":
        return image_size
    if kind == "image":
        halving = _halvings_to_four(image_size)
        side, smallest = _halved(image_size, halving) - 3, 4
    else:
        halving, keeping = DEPTHS[kind]
        side, smallest = _halved(image_size, halving) - 1 - keeping, ((keeping + 1) << halving) + 1
    if side < 1:
        raise ValueError(
            f'Discriminator "{kind}" needs pictures of at least {smallest} pixels per side, '
            f"received {image_size}. Use a smaller patch, larger pictures or fewer scales."
        )
    return side


class PatchDiscriminator(keras.Model):
    """A functional model whose result is a list also for one scale, where Keras unpacks it."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> list[Any]:
        scores = super().call(inputs, training=training, mask=mask)
        return scores if isinstance(scores, list) else [scores]


class HalvingPool(layers.Layer):
    """Mean over 3x3 windows centered on every second pixel; pixels outside are not counted.

    `AvgPool(3, stride 2, padding 1, count_include_pad=False)` of PyTorch, as in pix2pixHD,
    arXiv:1711.11585. Keras' "same" pads only the far end of even sizes and so shifts the picture.
    """

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = inputs.shape
        counted = _pool(ops.ones((1, height, width, 1), dtype=inputs.dtype))
        return _pool(inputs) / counted

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return batch, height and _halved(height, 1), width and _halved(width, 1), channels


def _pool(x: Any) -> Any:
    padded = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return ops.average_pool(padded, 3, strides=2, padding="valid")


def _halved(side: int, times: int) -> int:
    return -(-side >> times)


def _halvings_to_four(image_size: int) -> int:
    return max(0, image_size.bit_length() - 3)


class _Stack:
    """The layers of one scale, named and seeded by the path of that scale."""

    def __init__(self, base: int, norm: NormKind, bias: bool, seed: int, path: str) -> None:
        self.base, self.norm, self.bias, self.seed, self.path = base, norm, bias, seed, path
        self.prefix = path.partition("/")[2]

    def scores(self, kind: str, pair: Any) -> Any:
        if kind == "pixel":
            return self._pixel(pair)
        if kind == "image":
            x = self._halve(pair, _halvings_to_four(pair.shape[1]))
            return self._conv(x, 1, 4, "head", padding="valid", bias=True, dtype="float32")

        halving, keeping = DEPTHS[kind]
        x = self._halve(pair, halving)
        for index in range(halving, halving + keeping):
            x = self._pad(x, f"layer{index}")
            x = self._conv(x, self._width(index), 4, f"layer{index}", padding="valid")
            x = self._activate(x, f"layer{index}")
        x = self._pad(x, "head")
        return self._conv(x, 1, 4, "head", padding="valid", bias=True, dtype="float32")

    def _pixel(self, pair: Any) -> Any:
        x = self._conv(pair, self.base, 1, "layer0")
        x = layers.LeakyReLU(0.2, name=self._name("layer0_relu"))(x)
        x = self._conv(x, 2 * self.base, 1, "layer1")
        x = self._activate(x, "layer1")
        return self._conv(x, 1, 1, "head", bias=True, dtype="float32")

    def _halve(self, x: Any, times: int) -> Any:
        for index in range(times):
            x = self._conv(x, self._width(index), 4, f"layer{index}", strides=2)
            if index == 0:
                x = layers.LeakyReLU(0.2, name=self._name("layer0_relu"))(x)
            else:
                x = self._activate(x, f"layer{index}")
        return x

    def _activate(self, x: Any, label: str) -> Any:
        if self.norm != "none" and x.shape[1] > 1:  # a map of one pixel would lose its content
            x = normalization(self.norm, self._name(f"{label}_norm"))(x)
        return layers.LeakyReLU(0.2, name=self._name(f"{label}_relu"))(x)

    def _conv(
        self,
        x: Any,
        width: int,
        kernel: int,
        label: str,
        *,
        strides: int = 1,
        padding: str = "same",
        bias: bool = False,
        dtype: str | None = None,
    ) -> Any:
        return layers.Conv2D(
            width,
            kernel,
            strides=strides,
            padding=padding,
            use_bias=bias or self.bias,
            kernel_initializer=normal_weights(self.seed, f"{self.path}/{label}"),
            dtype=dtype,
            name=self._name(f"{label}_conv"),
        )(x)

    def _pad(self, x: Any, label: str) -> Any:
        return layers.ZeroPadding2D(1, name=self._name(f"{label}_pad"))(x)

    def _width(self, index: int) -> int:
        return min(self.base << index, self.base * MAX_WIDTH)

    def _name(self, label: str) -> str:
        return f"{self.prefix}_{label}" if self.prefix else label
