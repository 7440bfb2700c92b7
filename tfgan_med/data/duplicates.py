"""Pictures that are the same picture: re-saved, resized, brightened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

THUMBNAIL = 64
"""Side of a thumbnail, pixels."""

_COARSE = 16

# Measured: JPEG copies of quality 85 agree in detail by 0.982 and more, different castings from one
# mold by 0.968 at most; one part photographed twice may lie below that, so a person should look.
_SAME = (0.99, 0.972)
_ALIKE = (0.985, 0.93)


@dataclass(frozen=True)
class Pair:
    """Two pictures by their places in the list, the first before the second.

    `same` means one picture saved twice; otherwise they are so alike that a person should look.
    """

    first: int
    second: int
    same: bool


def thumbnail(picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A small grey picture, `(64, 64)`, each pixel the mean of the area that it stands for.

    Args:
        picture: `(height, width, channels)` of any type; values that are not finite count as 0.
    """
    gray = np.nan_to_num(picture.mean(axis=-1, dtype=np.float32), posinf=0.0, neginf=0.0)
    small = Image.fromarray(gray).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def near_duplicates(thumbnails: npt.NDArray[np.float32]) -> list[Pair]:
    """Pairs of nearly identical pictures.

    Two pictures are taken for one if they look alike coarsely (16 x 16 means, correlation 0.99) and
    agree in what is left when the coarse picture is taken away (64 x 64, correlation 0.972).
    Pictures of the same kind, such as chest X-rays, agree in the first and not in the second;
    a picture that was saved again agrees in both.

    Args:
        thumbnails: `(pictures, 64, 64)`.
    Returns:
        The pairs, in order. Constant pictures are in none.
    """
    count = len(thumbnails)
    coarse = _means(thumbnails, _COARSE)
    detail = thumbnails - np.repeat(
        np.repeat(coarse, THUMBNAIL // _COARSE, axis=1), THUMBNAIL // _COARSE, axis=2
    )
    looks, details = _unit(coarse), _unit(detail)
    pairs = []
    for start in range(0, count, 512):  # blocks, so that memory stays small for large sets
        alike = looks[start : start + 512] @ looks.T > _ALIKE[0]
        first, second = np.nonzero(alike)
        first += start
        first, second = first[first < second], second[first < second]
        for part in np.array_split(np.arange(len(first)), 1 + len(first) // 8192):
            agreement = (details[first[part]] * details[second[part]]).sum(axis=1)
            look = (looks[first[part]] * looks[second[part]]).sum(axis=1)
            same = (look > _SAME[0]) & (agreement > _SAME[1])
            for index in np.flatnonzero(agreement > _ALIKE[1]):
                where = part[index]
                pairs.append(Pair(int(first[where]), int(second[where]), bool(same[index])))
    return pairs


def _means(pictures: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    factor = THUMBNAIL // side
    blocks = pictures.reshape(len(pictures), side, factor, side, factor)
    return np.asarray(blocks.mean(axis=(2, 4)), np.float32)


def _unit(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of mean 0 and length 1; constant pictures become 0, which is like nothing."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.where(length > 1e-3, rows / np.maximum(length, 1e-3), 0), np.float32)
