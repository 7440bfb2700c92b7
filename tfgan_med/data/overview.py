"""A picture of what a data set holds: eight items, their masks outlined."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tfgan_med import files
from tfgan_med.data import decode
from tfgan_med.data.records import DataConfig, ImageSet, Record

Array = npt.NDArray[Any]

TILE, ITEMS, COLUMNS = 256, 8, 4
CAPTION = 18  # pixels below each tile

_COLORS = ((0, 220, 80), (255, 60, 200), (255, 190, 0), (0, 190, 255))
_LABEL_COLORS = np.array(
    [(0, 0, 0), (0, 190, 255), (255, 190, 0), (255, 60, 200), (0, 220, 80), (150, 90, 255)],
    np.uint8,
)


def overview(images: ImageSet, path: Path, config: DataConfig) -> int:
    """Write a PNG with up to eight items, evenly from the set; unreadable ones are passed over.

    Pictures keep their proportions. Masks and instances are outlined on the picture; further
    pictures of an item (inputs, templates, right halves) stand beside it. All pictures of a role
    share one value window, from the items shown.

    Returns:
        The number of items shown; without any, nothing is written.
    """
    items = _choose(images.records, config)
    if not items:
        return 0
    roles = [role for role in _beside(items[0][0]) if all(role in arrays for _, arrays in items)]
    windows = {role: _window([arrays[role] for _, arrays in items]) for role in roles}
    width = TILE * max(1, len(roles))
    columns = min(len(items), COLUMNS if len(roles) < 2 else 2)
    rows = -(-len(items) // columns)
    page = Image.new("RGB", (columns * (width + 8) + 8, rows * (TILE + CAPTION + 8) + 8), "white")
    for place, (record, arrays) in enumerate(items):
        left = 8 + place % columns * (width + 8)
        top = 8 + place // columns * (TILE + CAPTION + 8)
        for offset, role in enumerate(roles):
            tile = _tile(arrays, role, windows[role], outlined=role == record.main_role)
            page.paste(tile, (left + offset * TILE, top))
        ImageDraw.Draw(page).text((left, top + TILE + 3), _caption(record), fill="black")
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())
    return len(items)


def _choose(records: Sequence[Record], config: DataConfig) -> list[tuple[Record, dict[str, Array]]]:
    """Eight items with their arrays, at even distances; those that do not decode are replaced."""
    step = max(1, len(records) // ITEMS)
    order = [*records[::step], *(r for place, r in enumerate(records) if place % step)]
    chosen: list[tuple[Record, dict[str, Array]]] = []
    for record in order[: 4 * ITEMS]:
        try:
            arrays = {role: _read(record, role, config) for role in record.parts}
        except decode.PictureError:
            continue
        if all(np.isfinite(array).all() for array in arrays.values()):
            chosen.append((record, arrays))
        if len(chosen) == ITEMS:
            break
    return sorted(chosen, key=lambda item: item[0].id)


def _read(record: Record, role: str, config: DataConfig) -> Array:
    read = decode.read_labels if _is_outlined(role) or role == "labels" else decode.read_picture
    return read(record.parts[role], config.max_pixels)


def _is_outlined(role: str) -> bool:
    return role in ("masks", "instances") or role.startswith("masks-")


def _beside(record: Record) -> list[str]:
    """Roles that get a tile of their own: the item's picture first."""
    main = record.main_role
    return [main, *(r for r in record.parts if r != main and not _is_outlined(r))]


def _window(arrays: Sequence[Array]) -> tuple[float, float]:
    """Values that become black and white."""
    if all(array.dtype == np.uint8 for array in arrays):
        return 0.0, 255.0
    values = np.concatenate([array.ravel()[:: max(1, array.size // 65536)] for array in arrays])
    low, high = np.percentile(values, (0.1, 99.9))
    return float(low), float(max(high, low + 1e-6))


def _tile(
    arrays: dict[str, Array], role: str, window: tuple[float, float], outlined: bool
) -> Image.Image:
    """One picture in the middle of a grey square, with the outlines of the item's masks."""
    array = arrays[role]
    if array.ndim == 2:
        return _fitted(Image.fromarray(_colored(array, role)), Image.Resampling.NEAREST)
    low, high = window
    bytes_ = np.clip((array.astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    tile = _fitted(Image.fromarray(np.broadcast_to(bytes_, (*array.shape[:2], 3)).copy()))
    if outlined:
        marks = [name for name in sorted(arrays) if _is_outlined(name) and name != role]
        # the outlines of objects say more than that of their union
        marks = [name for name in marks if not (name == "masks" and "instances" in marks)]
        for name, color in zip(marks, _COLORS, strict=False):
            _outline(tile, arrays[name], color)
    return tile


def _colored(values: Array, role: str) -> npt.NDArray[np.uint8]:
    """Masks in black and white, classes and objects in cycling colours."""
    if role not in ("labels", "instances"):
        return np.repeat(((values > 0) * np.uint8(255))[..., None], 3, axis=2)
    cycled = np.where(values > 0, 1 + (values.astype(np.int64) - 1) % (len(_LABEL_COLORS) - 1), 0)
    return np.asarray(_LABEL_COLORS[cycled])


def _fitted(image: Image.Image, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", (TILE, TILE), (128, 128, 128))
    tile.paste(image.resize(size, how), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def _outline(tile: Image.Image, values: Array, color: tuple[int, int, int]) -> None:
    """Draw where the values change between neighbors, at the tile's resolution."""
    height, width = values.shape
    scale = TILE / max(height, width)
    rows = np.minimum((np.arange(max(1, round(height * scale))) / scale).astype(int), height - 1)
    columns = np.minimum((np.arange(max(1, round(width * scale))) / scale).astype(int), width - 1)
    small = values[np.ix_(rows, columns)]
    edge = np.zeros(small.shape, bool)
    edge[:-1] |= small[:-1] != small[1:]
    edge[:, :-1] |= small[:, :-1] != small[:, 1:]
    stencil = Image.fromarray(edge.astype(np.uint8) * 255)
    corner = ((TILE - small.shape[1]) // 2, (TILE - small.shape[0]) // 2)
    tile.paste(color, (*corner, corner[0] + small.shape[1], corner[1] + small.shape[0]), stencil)


def _caption(record: Record) -> str:
    """Split and class in the letters that the built-in font has; no name of a file."""
    text = " - ".join(part for part in (record.split, record.label) if part)
    return text.encode("latin-1", "replace").decode("latin-1")
