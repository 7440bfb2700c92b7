"""One pass over a set of pictures: everything that any metric wants to know of it, at once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tfgan_med.errors import UserError
from tfgan_med.evaluation.pictures import Pictures, Preparation, Size, ahead, file_name
from tfgan_med.metrics.base import THUMBNAIL, Metric, Progress, Side
from tfgan_med.networks.feature_cache import FeatureCache, extract
from tfgan_med.networks.features import FeatureNetwork

Array = npt.NDArray[Any]

_KEPT_BYTES = 2**28  # pixels of one set that stay in memory
_IN_MEMORY = 2**26  # bytes of thumbnails that do


@dataclass(frozen=True)
class Wanted:
    """What the metrics at hand want of a side."""

    features: bool = False
    thumbnails: bool = False
    pictures: int = 0

    @classmethod
    def by(cls, metrics: Iterable[Metric]) -> Wanted:
        """The union of what metrics want."""
        metrics = list(metrics)
        needs = frozenset[str]().union(*(metric.required() for metric in metrics))
        return cls(
            features=bool(needs & {"features", "logits"}),
            thumbnails="thumbnails" in needs,
            pictures=max((metric.pictures_needed for metric in metrics), default=0),
        )


@dataclass(frozen=True)
class Seen:
    """A set after its pass.

    Attributes:
        side: what metrics get.
        channels: numbers of channels that the files had.
    """

    side: Side
    channels: frozenset[int]


def look(
    pictures: Pictures,
    preparation: Preparation,
    size: Size,
    wanted: Wanted,
    network: FeatureNetwork | None,
    *,
    batch_size: int = 32,
    seed: int = 0,
    cache: FeatureCache | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Seen:
    """Read every picture once and collect what is wanted.

    Args:
        pictures: see `pictures.open_pictures`.
        preparation: how they are brought to one range and size.
        size: height and width that `preparation` gives them all.
        wanted: what to collect.
        network: for the features; they are not computed without one.
        batch_size: pictures per network pass.
        seed: of the sample of pictures that is kept.
        cache: where features are kept.
        progress: called with the name of the set, pictures done and all.
    Raises:
        DataError: a picture that cannot be read.
    """
    names, owners = rows_of(pictures, preparation)
    collected = _Collected(len(names), size, wanted, seed)
    channels: set[int] = set()

    def stream() -> Iterator[Array]:
        row = 0
        for done, (tiles, own) in enumerate(ahead(preparation.read, pictures.parts)):
            channels.add(own)
            progress(pictures.name, done, len(pictures))
            for tile in tiles:
                collected.take(row, tile)
                yield tile
                row += 1
        progress(pictures.name, len(pictures), len(pictures))

    features = logits = None
    if wanted.features and network is not None:
        rows = extract(network, stream(), batch_size, cache, count=len(names))
        features = rows[:, : network.dimension]
        logits = rows[:, network.dimension :] if network.classes else None
    else:
        for _ in stream():
            pass

    side = Side(
        name=pictures.name,
        files=names,
        features=features,
        logits=logits,
        pictures=collected.pictures,
        kept=collected.kept,
        thumbnails=collected.thumbnails,
        classes=_spread(pictures.classes, owners),
        groups=_spread(pictures.groups, owners),
    )
    return Seen(side, frozenset(channels))


class _Collected:
    """Thumbnails of all pictures and the pixels of a random sample."""

    def __init__(self, count: int, size: Size, wanted: Wanted, seed: int) -> None:
        self.thumbnails: npt.NDArray[np.uint8] | None = None
        self.pictures: npt.NDArray[np.uint8] | None = None
        self.kept: npt.NDArray[np.int64] | None = None
        self._slots: dict[int, int] = {}
        if wanted.thumbnails:
            self.thumbnails = _room(count)
        if wanted.pictures:
            kept = min(count, wanted.pictures, max(2, _KEPT_BYTES // (size[0] * size[1] * 3)))
            self.kept = np.random.default_rng(seed).permutation(count)[:kept]
            self.pictures = np.empty((kept, *size, 3), np.uint8)
            self._slots = {int(row): slot for slot, row in enumerate(self.kept)}

    def take(self, row: int, picture: Array) -> None:
        if self.thumbnails is not None:
            self.thumbnails[row] = thumbnail(picture)
        slot = self._slots.get(row)
        if slot is not None and self.pictures is not None:
            self.pictures[slot] = picture if picture.dtype == np.uint8 else np.rint(picture)


def _room(count: int) -> npt.NDArray[np.uint8]:
    """Place for thumbnails: in memory, for large sets in a file that is gone after use."""
    shape = (count, THUMBNAIL, THUMBNAIL)
    if math.prod(shape) <= _IN_MEMORY:
        return np.empty(shape, np.uint8)
    try:
        with tempfile.TemporaryFile() as file:  # the map keeps it until it goes itself
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: no room for thumbnails of {count} pictures "
            f"({math.prod(shape) / 2**20:.0f} MB; {error.strerror}). Free some, or name another "
            "folder in TMPDIR."
        ) from None


def thumbnail(picture: Array) -> npt.NDArray[np.uint8]:
    """Grey (Rec. 601), 64 x 64, each pixel the mean of the area it stands for.

    Args:
        picture: `(height, width, 3)` in 0..255.
    """
    gray = cv2.cvtColor(np.asarray(picture, np.float32), cv2.COLOR_RGB2GRAY)
    enlarging = min(gray.shape) < THUMBNAIL
    small = cv2.resize(
        gray,
        (THUMBNAIL, THUMBNAIL),
        interpolation=cv2.INTER_LINEAR if enlarging else cv2.INTER_AREA,
    )
    return np.asarray(np.rint(np.clip(small, 0.0, 255.0)), np.uint8)


def rows_of(pictures: Pictures, preparation: Preparation) -> tuple[tuple[str, ...], list[int]]:
    """Names of the rows of a side, and the picture that each comes from."""
    names: list[str] = []
    owners: list[int] = []
    for i, (part, size) in enumerate(zip(pictures.parts, pictures.sizes, strict=True)):
        tiles = preparation.tiles_of(size)
        name = file_name(part)
        names += [name] if preparation.tile is None else [f"{name} tile {j}" for j in range(tiles)]
        owners += [i] * tiles
    return tuple(names), owners


def _spread(values: tuple[str, ...] | None, owners: list[int]) -> tuple[str, ...] | None:
    return None if values is None else tuple(values[owner] for owner in owners)
