"""How the pictures of one role become tensors, and back.

A picture is stored small (uint8 or uint16), with the value window of its set applied, and becomes
float32 only when a batch is made. `translate` reads new pictures by the encoding of the run.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfgan_med.batches import Tensor
from tfgan_med.config import Config
from tfgan_med.data import decode
from tfgan_med.data.records import Part
from tfgan_med.errors import DataError
from tfgan_med.ops import images

Array = npt.NDArray[Any]
Kind = Literal["image", "mask", "labels", "ids"]


class Encoding(Config):
    """One role of a data set as tensor channels; saved with the run."""

    role: str
    """Role of the pictures, such as `images` or `masks`."""
    kind: Kind
    """`image`: [-1, 1]; `mask`: one channel, -1 or 1; `labels`: one-hot in {0, 1}; `ids`: one
    channel with the number of the object, 0 for background."""
    channels: int
    """Channels of the tensor: 1, 3, or the number of classes."""
    window: tuple[float, float] = images.EIGHT_BIT
    """Values of an image that become -1 and 1."""
    dtype: str = "uint8"
    """Type of the image files: uint8, uint16 or float32; outputs are written in it."""

    @property
    def nearest(self) -> bool:
        """Whether values must not be mixed when the picture is resized."""
        return self.kind != "image"

    @property
    def stored_dtype(self) -> str:
        """Type in which pictures wait in memory."""
        if self.kind == "image":
            eight_bit = self.dtype == "uint8" and self.window == images.EIGHT_BIT
            return "uint8" if eight_bit else "uint16"
        return "uint16" if self.channels > 256 or self.kind == "ids" else "uint8"

    @property
    def stored_channels(self) -> int:
        """Channels in which pictures wait in memory; class indices are one."""
        return self.channels if self.kind == "image" else 1


def kind_of(role: str) -> Kind:
    """What the pictures of a role are."""
    if role in ("labels", "ids"):
        return "labels" if role == "labels" else "ids"
    return "mask" if role == "instances" or role.split("-")[0] == "masks" else "image"


def read(part: Part, role: str, max_pixels: int) -> Array:
    """Decode a picture and check what its role promises.

    Returns:
        `(height, width, channels)`: images as in their file; masks 0 or 1 and labels as class
        indices, one channel.
    Raises:
        DataError: if the file cannot be read or a mask has more than two values.
    """
    if kind_of(role) == "image":
        return decode.read_picture(part, max_pixels)
    values = decode.read_labels(part, max_pixels)
    if role in ("labels", "ids"):
        return values.astype(np.uint16)[..., None]
    if role != "instances":
        _check_binary(values, part)
    return (values > 0).astype(np.uint8)[..., None]


def store(tiles: Array, encoding: Encoding) -> Array:
    """What is kept in memory of pictures that `read` returned.

    Args:
        tiles: `(..., channels)` as read, already fitted.
    Returns:
        The same with `encoding.stored_channels` and of `encoding.stored_dtype`: the window of
        an image stretched to the whole type, 0/1 for masks, class indices for labels.
    """
    if encoding.kind != "image":
        return tiles.astype(encoding.stored_dtype)
    tiles = _with_channels(tiles, encoding.channels)
    if encoding.stored_dtype == "uint8":
        return tiles
    return images.to_pixels(images.from_pixels(tiles, encoding.window), (0, 65535), "uint16")


def load(stored: Array, encoding: Encoding) -> npt.NDArray[np.float32]:
    """The tensor of stored pictures, `(..., encoding.channels)` float32."""
    if encoding.kind == "labels":
        return np.eye(encoding.channels, dtype=np.float32)[stored[..., 0]]
    if encoding.kind == "ids":
        return stored.astype(np.float32)
    half = np.float32(_half(encoding))
    return stored.astype(np.float32) / half - np.float32(1.0)


def load_tensor(stored: Tensor, encoding: Encoding) -> Tensor:
    """`load` inside a TensorFlow graph."""
    import tensorflow as tf

    if encoding.kind == "labels":
        return tf.one_hot(tf.cast(stored[..., 0], tf.int32), encoding.channels)
    if encoding.kind == "ids":
        return tf.cast(stored, tf.float32)
    return tf.cast(stored, tf.float32) / _half(encoding) - 1.0


def tensor(tiles: Array, encoding: Encoding) -> npt.NDArray[np.float32]:
    """The tensor of pictures that `read` returned, exactly as the training saw such pictures."""
    return load(store(tiles, encoding), encoding)


def picture(values: Any, encoding: Encoding) -> Array:
    """Inverse of `tensor`: what is written to a file.

    Args:
        values: `(..., encoding.channels)` as a network gave them.
    Returns:
        Images in their window and type; masks 0 or 255, cut at 0, and labels as class indices
        by the largest value, both `(..., 1)` uint8 (uint16 above 256 classes).
    """
    values = np.asarray(values)
    if encoding.kind == "mask":
        return np.where(values > 0, 255, 0).astype(np.uint8)
    if encoding.kind == "ids":
        return np.asarray(values, np.uint16)
    if encoding.kind == "labels":
        return np.asarray(values.argmax(axis=-1)[..., None], encoding.stored_dtype)
    return images.to_pixels(values, encoding.window, encoding.dtype)


def _half(encoding: Encoding) -> float:
    """Half of the range of the stored values."""
    if encoding.kind == "mask":
        return 0.5
    return 127.5 if encoding.stored_dtype == "uint8" else 32767.5


def _with_channels(tiles: Array, channels: int) -> Array:
    """Grey to three equal channels, or colour to luma (Rec. 601); the type is kept."""
    if tiles.shape[-1] == channels:
        return tiles
    if channels == 3:
        return np.repeat(tiles, 3, axis=-1)
    luma = tiles.astype(np.float64) @ np.array([[0.299], [0.587], [0.114]])
    return np.asarray(
        np.rint(luma) if np.issubdtype(tiles.dtype, np.integer) else luma, tiles.dtype
    )


def _check_binary(values: Array, part: Part) -> None:
    """Refuse a mask with more than background and one other value."""
    found = np.unique(values)
    if np.count_nonzero(found) > 1:
        some = ", ".join(str(value) for value in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise DataError(
            f"{decode.short_name(part.path)}: the mask has the values {some}{more}. "
            "A binary mask has 0 and one other value. Save masks as PNG (JPEG blurs them); put "
            "class indices into `labels/` and numbered objects into `instances/`."
        )
