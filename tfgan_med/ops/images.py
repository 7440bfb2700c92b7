"""Pictures and tensors: [-1, 1] to pixels and back, sheets of samples.

NumPy in, NumPy out (eager tensors are taken too), so that nothing here loads TensorFlow.
"""

from __future__ import annotations

import colorsys
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["image", "mask", "labels", "ids"]
Window = tuple[float, float]

EIGHT_BIT: Window = (0.0, 255.0)


def to_uint8(images: Any) -> npt.NDArray[np.uint8]:
    """`round(127.5 (x + 1))`, clipped: [-1, 1] of any shape to 0..255."""
    values = np.asarray(images, np.float32)
    return np.asarray(np.clip(np.rint(127.5 * (values + 1.0)), 0, 255), np.uint8)


def from_uint8(pixels: Any) -> npt.NDArray[np.float32]:
    """`x / 127.5 - 1`: 0..255 of any shape to [-1, 1]; `to_uint8` gives the same pixels back."""
    return np.asarray(pixels).astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def to_pixels(images: Any, window: Window, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Stretch [-1, 1] to a value window.

    Args:
        images: any shape; values outside [-1, 1] are clipped.
        window: values of -1 and 1 in the units of the pictures, such as (0, 65535).
        dtype: type of the result; integers are rounded and clipped to what the type holds.
    """
    low, high = window
    values = np.clip(np.asarray(images, np.float64), -1.0, 1.0)
    pixels = low + (values + 1.0) / 2.0 * (high - low)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(np.dtype(dtype))
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    return pixels.astype(dtype)


def from_pixels(pixels: Any, window: Window) -> npt.NDArray[np.float32]:
    """Inverse of `to_pixels`: the window becomes [-1, 1], values outside of it are clipped."""
    low, high = window
    values = (np.asarray(pixels, np.float64) - low) / (high - low)
    return (2.0 * np.clip(values, 0.0, 1.0) - 1.0).astype(np.float32)


def as_rgb(tensor: Any, kind: Kind) -> npt.NDArray[np.uint8]:
    """What a person should see of a batch.

    Args:
        tensor: `(batch, height, width, channels)`: an `image` of one or three channels or a
            `mask` of one in [-1, 1], `labels`, one channel of scores per class, or `ids`, one of
            numbered objects.
        kind: how to read it; labels become one colour per class, class 0 black, ids white.
    Returns:
        `(batch, height, width, 3)` uint8.
    """
    values = np.asarray(tensor)
    if kind == "labels":
        return np.asarray(_colors(values.shape[-1])[values.argmax(axis=-1)], np.uint8)
    if kind == "ids":
        values = np.where(values > 0, 1.0, -1.0)
    if values.shape[-1] not in (1, 3):
        raise ValueError(
            f"Pictures have one or three channels: received shape {values.shape} as '{kind}'. "
            "Use kind='labels' for one channel per class."
        )
    return np.broadcast_to(to_uint8(values), (*values.shape[:-1], 3)).copy()


def grid(images: npt.NDArray[np.uint8], columns: int, gutter: int = 2) -> npt.NDArray[np.uint8]:
    """Lay pictures out in rows, white lines between them.

    Args:
        images: `(count, height, width, 3)` uint8, in reading order.
        columns: pictures in a row; the last row may be shorter.
        gutter: pixels between two pictures.
    Returns:
        `(rows (height + gutter) - gutter, columns (width + gutter) - gutter, 3)` uint8.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + gutter, width + gutter, channels), 255, np.uint8)
    cells[:count, :height, :width] = images
    sheet = cells.reshape(rows, columns, height + gutter, width + gutter, channels)
    sheet = sheet.swapaxes(1, 2).reshape(
        rows * (height + gutter), columns * (width + gutter), channels
    )
    return sheet[: sheet.shape[0] - gutter, : sheet.shape[1] - gutter]


def _colors(count: int) -> npt.NDArray[np.uint8]:
    """One colour per class, `(count, 3)`: black, then hues a golden section apart."""
    hues = [(0.02 + 0.618034 * index) % 1.0 for index in range(count - 1)]
    colors = [colorsys.hsv_to_rgb(hue, 0.65, 0.95) for hue in hues]
    return np.asarray(np.rint(255 * np.array([(0.0, 0.0, 0.0), *colors])), np.uint8)
