"""Sets of pictures as metrics see them: found in folders, brought to one size, range and colour."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from tfgan_med.data import decode, fitting
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import SPLITS, DataConfig, Part, Record
from tfgan_med.errors import DataError, UserError

Array = npt.NDArray[Any]
Policy = Literal["crop", "pad", "stretch"]
Size = tuple[int, int]  # height and width
Item = TypeVar("Item")
Output = TypeVar("Output")

_SAMPLED = 4096  # pixels of a picture that the default window looks at


# Finding ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """One set of pictures that are read when they are needed.

    Attributes:
        name: the folder, as the user calls it.
        records: the items they belong to, in order.
        role: which picture of an item.
        sizes: height and width of each.
        split: which part of the set this is; `all` without splits.
    """

    name: str
    records: tuple[Record, ...]
    role: str
    sizes: tuple[Size, ...]
    split: str = "all"

    def __len__(self) -> int:
        return len(self.records)

    @property
    def title(self) -> str:
        """What results call it."""
        return self.name if self.split == "all" else f"{self.name} ({self.split})"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The pictures, in order."""
        return tuple(record.parts[self.role] for record in self.records)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class of each picture, if all have one."""
        labels = tuple(record.label for record in self.records)
        return None if None in labels else labels  # type: ignore[return-value]

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Patient or part of each picture, if all have one."""
        groups = tuple(record.group for record in self.records)
        return None if None in groups else groups  # type: ignore[return-value]


def open_pictures(path: str, split: str = "auto", role: str = "images") -> Pictures:
    """Find the pictures of a folder, table or built-in set; only their headers are read.

    Args:
        path: as `train` takes it.
        split: `train`, `val`, `test` or `all`; `auto` is `test` where the set has splits.
        role: which picture of an item.
    Raises:
        UserError: nothing there, an unknown split or role.
        DataError: no pictures, or one whose header cannot be read.
    """
    images = open_set(DataConfig(path=path))
    records = images.records
    if split not in ("auto", "all", *SPLITS):
        raise UserError(f"split is {split!r}; one of {', '.join(SPLITS)}, all.")
    given = {record.split for record in records}
    if split == "auto":
        split = "test" if "test" in given else "all"
    if split != "all":
        records = tuple(record for record in records if record.split == split)
    if not records:
        raise DataError(f"{path}: no pictures in the split {split}. Choose --real-split all.")
    if role not in images.roles:
        present = ", ".join(images.roles) or "nothing in common"
        raise UserError(f"{path}: its items have no {role}, but {present}. Choose with --role.")
    parts = tuple(record.parts[role] for record in records)
    sizes = tuple((height, width) for width, height in ahead(decode.picture_size, parts))
    return Pictures(path, records, role, sizes, split)


def has_split(path: str, split: str) -> bool:
    """Whether a set names pictures of a split itself."""
    return any(record.split == split for record in open_set(DataConfig(path=path)).records)


def ahead(work: Callable[[Item], Output], items: Iterable[Item]) -> Iterator[Output]:
    """Results in order, from one thread per core, at most a few beyond the one being used."""
    workers = os.cpu_count() or 1
    running: deque[Future[Output]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > 4 * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


# Bringing them to one size and range --------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """How pictures of all sides become 8-bit-equivalent RGB.

    Attributes:
        window: values that become 0 and 255.
        window_given: whether the user chose them, so that any type of file goes through.
        rounded: round to whole numbers, as saving does.
        resize: side of the square, None to leave the size.
        fit: how a picture that is not square becomes one.
        tile: cut every picture into squares of this side, side by side around its middle.
        channel: look at this channel of color pictures alone, counted from 0.
        max_pixels: larger pictures are not decoded.
    """

    window: tuple[float, float] = (0.0, 255.0)
    window_given: bool = False
    rounded: bool = True
    resize: int | None = None
    fit: Policy = "crop"
    tile: int | None = None
    channel: int | None = None
    max_pixels: int = DataConfig().max_pixels

    def size_of(self, size: Size) -> Size:
        """Height and width of what `read` returns for a picture of this size."""
        if self.resize is not None:
            size = (self.resize, self.resize)
        return size if self.tile is None else (self.tile, self.tile)

    def tiles_of(self, size: Size) -> int:
        """How many pictures `read` makes of one of this size."""
        if self.tile is None:
            return 1
        height, width = size if self.resize is None else (self.resize, self.resize)
        return (height // self.tile) * (width // self.tile)

    def read(self, part: Part) -> tuple[list[Array], int]:
        """`(height, width, 3)` in 0..255, uint8 if rounded else float32; and its own channels."""
        raw = decode.read_picture(part, self.max_pixels)
        if self.resize is not None:
            raw = fitting.fit(raw, self.resize, self.fit, nearest=False)[0][0]
        picture = self.windowed(raw, part)
        if self.channel is not None:
            picture = self._one_channel(picture, part)
        channels = picture.shape[-1]
        if channels == 1:
            picture = np.repeat(picture, 3, axis=-1)
        return self._cut(picture), channels

    def windowed(self, raw: Array, part: Part) -> Array:
        """Values of a file to 0..255."""
        low, high = self.window
        if raw.dtype == np.uint8 and self.window == (0.0, 255.0):
            return raw
        if raw.dtype != np.uint8 and self.window == (0.0, 255.0) and not self.window_given:
            raise DataError(
                f"{decode.short_name(part.path)}: {raw.dtype} values, while the first picture has "
                "8 bit. One window must serve both sets. Export all alike, or give --window."
            )
        values = (raw.astype(np.float32) - low) * np.float32(255.0 / (high - low))
        values = np.clip(values, 0.0, 255.0)
        return np.asarray(np.rint(values), np.uint8) if self.rounded else values

    def _one_channel(self, picture: Array, part: Part) -> Array:
        assert self.channel is not None
        if self.channel >= picture.shape[-1]:
            raise DataError(
                f"{decode.short_name(part.path)}: has {picture.shape[-1]} channel(s), counted from "
                f"0; there is no channel {self.channel}. Choose another --channel."
            )
        return picture[..., self.channel : self.channel + 1]

    def _cut(self, picture: Array) -> list[Array]:
        if self.tile is None:
            return [picture]
        side = self.tile
        rows, columns = picture.shape[0] // side, picture.shape[1] // side
        top = (picture.shape[0] - rows * side) // 2
        left = (picture.shape[1] - columns * side) // 2
        corners = [(top + i * side, left + j * side) for i in range(rows) for j in range(columns)]
        return [np.ascontiguousarray(picture[y : y + side, x : x + side]) for y, x in corners]


def require_one_size(sides: Iterable[Pictures], preparation: Preparation) -> Size:
    """Height and width that all pictures have after preparation.

    Raises:
        UserError: naming the sizes of two sets that differ, or a picture without a whole tile.
    """
    sides = list(sides)
    sizes = {preparation.size_of(size) for side in sides for size in side.sizes}
    for side in sides:
        if not sum(map(preparation.tiles_of, side.sizes)):
            raise UserError(
                f"{side.name}: no picture holds a tile of {preparation.tile} x {preparation.tile} "
                f"pixels; they have {_most_common(side.sizes)}. Choose a smaller --tile."
            )
    if len(sizes) == 1:
        return next(iter(sizes))
    smallest = min(min(size) for size in sizes)
    described = " and ".join(f"{_most_common(side.sizes)} ({side.name})" for side in sides)
    raise UserError(
        f"Pictures of {described}, height x width: only pictures of one size can be compared, "
        f"since resizing itself changes the distance. Add --resize {smallest} to bring all to "
        "one size."
    )


def _most_common(sizes: Iterable[Size]) -> str:
    counted = Counter(sizes)
    common = [f"{height} x {width}" for (height, width), _ in counted.most_common(3)]
    more = f" and {len(counted) - 3} more sizes" if len(counted) > 3 else ""
    return ", ".join(common) + more


def common_window(
    real: Pictures, fakes: Iterable[Pictures], given: tuple[float, float] | None
) -> tuple[float, float]:
    """Values that become 0 and 255 on all sides.

    8-bit pictures keep theirs. Others take what all DICOM headers of the real set agree on, else
    the 0.1 and 99.9 percentile of the real set; never a window of each picture, which would make
    different sets look alike.
    """
    if given is not None and not (np.isfinite(given).all() and given[1] > given[0]):
        raise UserError(
            f"window is {given[0]:g} to {given[1]:g}; two numbers are needed, the second larger."
        )
    max_pixels = DataConfig().max_pixels
    first = decode.read_picture(real.parts[0], max_pixels).dtype
    for fake in fakes:
        other = decode.read_picture(fake.parts[0], max_pixels).dtype
        if (other == np.uint8) != (first == np.uint8) or (given is None and other != first):
            raise UserError(
                f"{real.name} holds {first} values, {fake.name} {other}: no one window makes both "
                "alike. Export both in the same way."
            )
    if given is not None:
        return given
    if first == np.uint8:
        return 0.0, 255.0
    asked = {decode.default_window(part) for part in real.parts}
    if len(asked) == 1 and (agreed := asked.pop()) is not None:
        return agreed

    def sample(part: Part) -> Array:
        values = decode.read_picture(part, max_pixels).ravel()
        return values[:: max(1, len(values) // _SAMPLED)].astype(np.float64)

    values = np.concatenate(list(ahead(sample, real.parts)))
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
    return low, high if high > low else low + 1.0


def file_name(part: Part) -> str:
    """What reports call a picture."""
    return part.name or Path(part.path).name
