"""Pictures of any size to squares of one size, and back where that is possible.

Resizing is antialiased and bilinear for pictures, nearest for masks; both put pixel centres at
half coordinates, so that a mask stays on its picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
Policy = Literal["crop", "pad", "stretch", "patches"]


@dataclass(frozen=True)
class Placement:
    """Where a picture went when it was fitted.

    Attributes:
        policy: how it was fitted.
        height, width: of the picture before.
        size: side of the tiles in pixels.
        inner: height and width that the picture was resized to before cutting or padding.
        corners: top and left of each tile in the resized picture; negative where it was padded.
    """

    policy: Policy
    height: int
    width: int
    size: int
    inner: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the tile per pixel of the picture, down and across."""
        return self.inner[0] / self.height, self.inner[1] / self.width


def place(height: int, width: int, size: int, policy: Policy, scale: float = 1.0) -> Placement:
    """Decide where a picture of this size goes.

    Args:
        height, width: of the picture in pixels.
        size: side of the square tiles in pixels.
        policy: `crop` takes the middle square, `pad` keeps all and repeats the border, `stretch`
            changes the proportions, `patches` covers the picture with tiles that overlap as
            little and as evenly as possible.
        scale: with `patches`, the factor by which the picture is resized first.
    """
    if policy == "patches":
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        tops, lefts = _tile_starts(inner[0], size), _tile_starts(inner[1], size)
        corners = tuple((top, left) for top in tops for left in lefts)
    elif policy == "stretch":
        inner, corners = (size, size), ((0, 0),)
    else:
        side = min(height, width) if policy == "crop" else max(height, width)
        inner = max(1, round(height * size / side)), max(1, round(width * size / side))
        corners = (((inner[0] - size) // 2, (inner[1] - size) // 2),)
    return Placement(policy, height, width, size, inner, corners)


def fit(
    picture: Array, size: int, policy: Policy, nearest: bool, scale: float = 1.0
) -> tuple[Array, Placement]:
    """Make square tiles of a picture; one, but with `patches`.

    Args:
        picture: `(height, width, channels)`, integers or floating point; the type is kept.
        size, policy, scale: see `place`.
        nearest: for masks and labels, whose values must not be mixed.
    Returns:
        Tiles `(tiles, size, size, channels)`, and the placement that `unfit` needs.
    """
    placement = place(picture.shape[0], picture.shape[1], size, policy, scale)
    resized = resize(picture, placement.inner, nearest)
    tiles = [_cut(resized, top, left, size) for top, left in placement.corners]
    return np.stack(tiles), placement


def unfit(tiles: Array, placement: Placement, nearest: bool) -> Array:
    """Undo `fit`: take padding away, restore the size, stitch tiles.

    What `crop` cut off is lost: its tile comes back as it is.

    Args:
        tiles: `(tiles, size, size, channels)`.
        placement: what `fit` returned.
        nearest: for masks and labels; where tiles overlap the later one counts, while pictures
            are averaged with weights that fall towards a tile's border, so no seam shows.
    Returns:
        `(height, width, channels)` of the original picture; the type is kept.
    """
    if placement.policy == "crop":
        return np.asarray(tiles[0])
    stitched = _stitch(tiles, placement, nearest)
    return resize(stitched, (placement.height, placement.width), nearest)


def resize(picture: Array, size: tuple[int, int], nearest: bool) -> Array:
    """Resize `(height, width, channels)` to `size`, height first; the type is kept."""
    if picture.shape[:2] == size:
        return picture
    if nearest:
        rows, columns = (_nearest(old, new) for old, new in zip(picture.shape, size, strict=False))
        return np.asarray(picture[rows[:, None], columns[None, :]])
    if picture.dtype == np.uint8 and picture.shape[2] == 3:
        return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))
    return np.stack([_resize_plane(plane, size) for plane in np.moveaxis(picture, 2, 0)], axis=2)


def _resize_plane(plane: Array, size: tuple[int, int]) -> Array:
    """One channel; Pillow antialiases 8-bit and float planes, so 16 bit goes by float."""
    values = plane if plane.dtype == np.uint8 else plane.astype(np.float32)
    image = Image.fromarray(np.ascontiguousarray(values))
    resized = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    if np.issubdtype(plane.dtype, np.integer) and plane.dtype != np.uint8:
        limits = np.iinfo(plane.dtype)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    return resized.astype(plane.dtype)


def _nearest(old: int, new: int) -> npt.NDArray[np.intp]:
    """Index of the old pixel under the centre of each new one."""
    return np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.intp)


def _tile_starts(length: int, size: int) -> list[int]:
    """Starts of the fewest tiles that cover a length; centred padding if it is too short."""
    if length <= size:
        return [(length - size) // 2]
    count = -(-length // size)
    return [round(index * (length - size) / (count - 1)) for index in range(count)]


def _cut(picture: Array, top: int, left: int, size: int) -> Array:
    """A square of the picture; outside of it the border repeats."""
    rows = np.clip(np.arange(top, top + size), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(left, left + size), 0, picture.shape[1] - 1)
    return picture[rows[:, None], columns[None, :]]


def _stitch(tiles: Array, placement: Placement, nearest: bool) -> Array:
    """The resized picture from its tiles, without padding."""
    height, width = placement.inner
    size, channels = placement.size, tiles.shape[-1]
    total = np.zeros((height, width, channels), tiles.dtype if nearest else np.float64)
    weight = np.zeros((height, width, 1))
    hill = _hill(size)
    for tile, (top, left) in zip(tiles, placement.corners, strict=True):
        rows = slice(max(top, 0), min(top + size, height))
        columns = slice(max(left, 0), min(left + size, width))
        inside = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        if nearest:
            total[rows, columns] = tile[inside]
        else:
            total[rows, columns] += tile[inside].astype(np.float64) * hill[inside]
            weight[rows, columns] += hill[inside]
    if nearest:
        return total
    mean = total / weight
    return (np.rint(mean) if np.issubdtype(tiles.dtype, np.integer) else mean).astype(tiles.dtype)


def _hill(size: int) -> npt.NDArray[np.float64]:
    """Weights `(size, size, 1)`, one at the border pixels and rising towards the middle."""
    ramp = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    return (ramp[:, None] * ramp[None, :])[:, :, None]
