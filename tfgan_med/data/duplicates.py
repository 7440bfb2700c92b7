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
_MANY = 10  # pictures whose mean says what a fixed camera always shows

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
    agree in what is left when the coarse picture is taken away (64 x 64, correlation 0.972), also
    after the mean of all pictures has been taken away from that. Pictures of the same kind agree in
    the first, those of a fixed camera in the first two; a picture that was saved again in all.

    Args:
        thumbnails: `(pictures, 64, 64)`.
    Returns:
        The pairs, in order. Constant pictures are in none.
    """
    coarse = _means(thumbnails, _COARSE)
    factor = THUMBNAIL // _COARSE
    looks = _unit(coarse)
    details = _unit(thumbnails - coarse.repeat(factor, axis=1).repeat(factor, axis=2))
    own = _unit(details - details.mean(axis=0)) if len(thumbnails) >= _MANY else details
    pairs = []
    for start in range(0, len(thumbnails), 512):  # blocks, so that memory stays small
        rows = slice(start, start + 512)
        alike = np.triu(looks[rows] @ looks.T > _ALIKE[0], start + 1)
        lefts, rights = np.flatnonzero(alike.any(axis=1)), np.flatnonzero(alike.any(axis=0))
        agree = own[rows][lefts] @ own[rights].T > _ALIKE[1]
        for place in np.argwhere(agree & alike[np.ix_(lefts, rights)]):
            first, second = start + lefts[place[0]], rights[place[1]]
            look = float(looks[first] @ looks[second])
            detail = float(min(details[first] @ details[second], own[first] @ own[second]))
            if detail > _ALIKE[1]:
                same = look > _SAME[0] and detail > _SAME[1]
                pairs.append(Pair(int(first), int(second), same))
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
