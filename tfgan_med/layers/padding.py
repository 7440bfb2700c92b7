"""Borders: pictures of any size for networks that halve them several times."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

Margins = tuple[tuple[int, int], tuple[int, int]]


class MirrorMargins(keras.layers.Layer):
    """Mirror the picture at its border, the border itself not repeated.

    Args:
        margins: pixels `((top, bottom), (left, right))`, each fewer than the picture has.
    Shapes: `(batch, height, width, channels)` to
        `(batch, height + top + bottom, width + left + right, channels)`.
    """

    def __init__(self, margins: Margins, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        (top, bottom), (left, right) = margins
        self.margins: Margins = ((top, bottom), (left, right))

    def call(self, inputs: Any) -> Any:
        return ops.pad(inputs, ((0, 0), *self.margins, (0, 0)), mode="reflect")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        rows, columns = self.margins
        return batch, height and height + sum(rows), width and width + sum(columns), channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margins": self.margins}


def margins(height: int, width: int, step: int) -> Margins:
    """What a picture lacks on each side to multiples of `step`, the odd pixel at the end."""
    return _sides(height, step), _sides(width, step)


def mirrored(pictures: Any, missing: Margins) -> Any:
    """The pictures with mirrored margins; as they are if none is missing."""
    return MirrorMargins(missing, name="mirror")(pictures) if _any(missing) else pictures


def cropped(maps: Any, missing: Margins, name: str = "crop") -> Any:
    """Maps of pictures with margins, without them."""
    if not _any(missing):
        return maps
    return layers.Cropping2D(missing, dtype="float32", name=name)(maps)


def _sides(size: int, step: int) -> tuple[int, int]:
    missing = -size % step
    return missing // 2, missing - missing // 2


def _any(missing: Margins) -> bool:
    return any(side for sides in missing for side in sides)
