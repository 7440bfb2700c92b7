"""The decoded pictures of a data set, split by split, and the order in which training sees them.

Every picture is decoded once, fitted and kept small (`arrays.py`); a batch is cut, jittered and
normalized on the fly. The order depends on seed and epoch only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med import files
from tfgan_med.batches import Tensor
from tfgan_med.data import arrays, encoding, fitting
from tfgan_med.data.arrays import Layout, Reader, Shelf
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.jitter import Jitter, item_at
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Record, Split
from tfgan_med.data.splits import hashed_group
from tfgan_med.data.survey import Survey, refusal, survey
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]

FORMAT = 2  # of the cached arrays; part of their key


@dataclass(frozen=True)
class Table:
    """The decoded pictures of one split at one size.

    Attributes:
        names: of the rows: the item's id, with `#2` and so on for the further tiles of an item.
        readers: by role, from a row to its picture `(size, size, stored channels)`.
        memory: bytes that the pictures take; 0 if they are in a file.
    """

    names: tuple[str, ...]
    readers: tuple[Reader, ...]
    memory: int

    def __len__(self) -> int:
        return len(self.names)


class DecodedSet:
    """The pictures of some roles of a data set. Made by `decode`.

    Attributes:
        encodings: how the picture of each role becomes a tensor.
        image_size: side of the tensors in pixels.
        load_size: side before the random crop of the jitter.
        left_out: why items were left out, by id; empty unless `skip_bad` was set.
    """

    def __init__(
        self,
        images: ImageSet,
        config: DataConfig,
        found: Survey,
        load_size: int,
        shelf: Shelf,
        key: str,
    ) -> None:
        self.encodings = found.encodings
        self.image_size = config.image_size
        self.load_size = load_size
        self.left_out = dict(found.left_out)
        self._config = config
        self._survey = found
        self._key = key
        self._records = [record for record in images.records if record.id in found.sizes]
        self._tables: dict[tuple[Split, int], Table] = {}
        self._hashes: dict[Path, str] = {}
        self._decode_all(shelf)

    @property
    def counts(self) -> dict[Split, int]:
        """Items per split; with `fit: patches` their tiles."""
        return {split: len(self._table(split)) for split in SPLITS}

    def records(self, split: Split) -> tuple[Record, ...]:
        """The items of a split that are used, in order."""
        return tuple(record for record in self._records if record.split == split)

    def names(self, split: Split) -> tuple[str, ...]:
        """Names of the pictures of a split in order: item ids, tiles with `#2` and so on."""
        return self._table(split, self.image_size).names

    def row_records(self, split: Split, size: int | None = None) -> tuple[Record, ...]:
        """The item of each picture of a split, in order; tiles repeat theirs.

        Args:
            size: side of the tiles; `load_size` for the rows of `training_items`.
        """
        return tuple(
            record
            for record in self.records(split)
            for _ in range(self._num_tiles(record, size or self.image_size))
        )

    def readers(self, split: Split) -> tuple[Reader, ...]:
        """By role, the function from a row of a split to its stored picture."""
        return self._table(split, self.image_size).readers

    def training_items(
        self, start: int, seed: int, domain: int = 0, numbered: bool = False
    ) -> tf.data.Dataset:
        """Stored pictures, shuffled and jittered, without end.

        Args:
            start: items already seen: the same items follow as without a stop.
            seed: fixes order and jitter together with epoch and index.
            domain: see `item_at`.
            numbered: give the row of the pictures in the training split too.
        Returns:
            Elements are tuples with the stored picture of each role, then the row.
        """
        table = self._table("train")
        config = self._config
        jitter = Jitter(self.image_size, config.flip, config.flip_vertical, config.rotate90)

        def item(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
            epoch, index = item_at(position, len(table), seed, domain)
            pictures = [read(index) for read in table.readers]
            jittered = jitter(pictures, seed, epoch, index, domain)
            return (*jittered, index) if numbered else tuple(jittered)

        positions = tf.data.Dataset.range(start, tf.int64.max)
        return positions.map(item, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def items(self, split: Split, limit: int | None = None) -> tf.data.Dataset:
        """The stored pictures of a split in order, once, without jitter."""
        table = self._table(split, self.image_size)
        count = len(table) if limit is None else min(limit, len(table))
        return tf.data.Dataset.range(count).map(
            lambda index: tuple(read(index) for read in table.readers),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def batches(self, split: Split, batch_size: int = 16) -> Iterator[tuple[Array, ...]]:
        """Tensors of each role of a split in order, once, without jitter."""
        for stored in self.items(split).batch(batch_size):
            yield tuple(np.asarray(tensor) for tensor in self.tensors(*stored))

    def spread(self, split: Split, count: int) -> tuple[Tensor, ...]:
        """At most `count` stored pictures spread evenly over a split, always the same ones."""
        rows = self.spread_rows(split, count)
        return tuple(tf.stack([read(row) for row in rows]) for read in self.readers(split))

    def spread_rows(self, split: Split, count: int) -> npt.NDArray[np.int64]:
        """The rows that `spread` takes."""
        length = len(self._table(split, self.image_size))
        if not length:
            raise ValueError(f"The {split} split is empty: there is no batch to take from it.")
        return np.linspace(0, length - 1, min(count, length)).round().astype(np.int64)

    def tensors(self, *stored: Tensor) -> tuple[Tensor, ...]:
        """Float32 tensors of stored pictures, one for each role."""
        pairs = zip(stored, self.encodings, strict=True)
        return tuple(encoding.load_tensor(pictures, how) for pictures, how in pairs)

    # What the run saw -------------------------------------------------------------------------

    def classes(self) -> dict[str, int]:
        """Numbers of the class names that the used items have."""
        names = {record.label for record in self._records if record.label is not None}
        return {name: index for index, name in enumerate(sorted(names))}

    def item_fingerprints(self, sides: Sequence[str]) -> list[dict[str, Any]]:
        """Per item: id, split, label, keyed hash of the group, size, type and hash of its files.

        Args:
            sides: what to call the roles, in the order of `encodings`.
        """
        return [self._item_fingerprint(record, sides) for record in self._records]

    def _item_fingerprint(self, record: Record, sides: Sequence[str]) -> dict[str, Any]:
        height, width = self._survey.sizes[record.id]
        return {
            "id": record.id,
            "split": record.split,
            "label": record.label,
            "group": hashed_group(record),
            "size": [height, width],
            "dtype": self._survey.dtypes[record.id],
            "sha256": {
                side: self._sha256_of(record.part(how.role).path)
                for side, how in zip(sides, self.encodings, strict=True)
            },
        }

    def _sha256_of(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = files.sha256_of(path)
        return self._hashes[path]

    # Decoding ---------------------------------------------------------------------------------

    def _table(self, split: Split, size: int | None = None) -> Table:
        """Decoded pictures of a split; by default at the size of its own use."""
        size = size or (self.load_size if split == "train" else self.image_size)
        if (split, size) not in self._tables:  # the training items at evaluation size
            self._tables[split, size] = self._decode(split, size, Shelf(0), self._room())
        return self._tables[split, size]

    def _decode_all(self, shelf: Shelf) -> None:
        """Decode each split at the size of its own use; all in memory or all in files."""
        sizes = {split: self.load_size if split == "train" else self.image_size for split in SPLITS}
        needed = sum(
            layout.bytes
            for split in SPLITS
            for layout in self._layouts(split, sizes[split]).values()
        )
        room = self._room() if needed <= self._room() else 0
        for split in SPLITS:
            self._tables[split, sizes[split]] = self._decode(split, sizes[split], shelf, room)

    def _room(self) -> int:
        """Bytes of the budget that are left."""
        used = sum(table.memory for table in self._tables.values())
        return self._config.cache_mb * 2**20 - used

    def _layouts(self, split: Split, size: int) -> dict[str, Layout]:
        """Shape and type of the array of each role."""
        rows = sum(self._num_tiles(record, size) for record in self.records(split))
        return {
            how.role: Layout((rows, size, size, how.stored_channels), how.stored_dtype)
            for how in self.encodings
        }

    def _num_tiles(self, record: Record, size: int) -> int:
        height, width = self._survey.sizes[record.id]
        placement = fitting.place(height, width, size, self._config.fit, self._config.scale)
        return len(placement.corners)

    def _decode(self, split: Split, size: int, shelf: Shelf, room: int) -> Table:
        """Read, fit and store the pictures of a split; `shelf` has some of them already."""
        records = self.records(split)
        counts = [self._num_tiles(record, size) for record in records]
        starts = np.cumsum([0, *counts])

        def fill(made: Mapping[str, Array]) -> None:
            def one(row: int) -> None:
                for how in self.encodings:
                    tiles = self._read(records[row], how, size, shelf)
                    made[how.role][starts[row] : starts[row + 1]] = tiles

            for _ in arrays.in_parallel(one, range(len(records))):
                pass

        layouts = self._layouts(split, size)
        memory = sum(layout.bytes for layout in layouts.values())
        folder = files.cache_dir() / "arrays" / f"{self._key}-{split}-{size}"
        if self._config.share_decoded:
            readers = arrays.in_file(folder, layouts, fill, load=memory <= room)
        elif memory <= room:
            readers = arrays.in_memory(layouts, fill)
        else:
            readers = arrays.in_file(folder, layouts, fill)
        if memory > room:
            memory = 0
        names = (
            record.id if tile == 0 else f"{record.id}#{tile + 1}"
            for record, count in zip(records, counts, strict=True)
            for tile in range(count)
        )
        return Table(tuple(names), tuple(readers[how.role] for how in self.encodings), memory)

    def _read(self, record: Record, how: Encoding, size: int, shelf: Shelf) -> Array:
        """The stored tiles of one picture."""
        picture = shelf.take(f"{record.id}:{how.role}")
        if picture is None:
            picture = encoding.read(record.part(how.role), how.role, self._config.max_pixels)
        tiles, _ = fitting.fit(picture, size, self._config.fit, how.nearest, self._config.scale)
        return encoding.store(tiles, how)


def decode(
    images: ImageSet, config: DataConfig, roles: Sequence[str], load_size: int
) -> DecodedSet:
    """Look at every item, then decode all of them.

    Args:
        images: the set, split.
        config: size, fitting, value window, memory budget.
        roles: pictures wanted of each item.
        load_size: side of the training pictures before the random crop.
    Raises:
        UserError: if settings contradict each other.
        DataError: if pictures cannot be used (see `survey`); with `skip_bad` they are left out.
    """
    if load_size < config.image_size:
        raise UserError(
            f"data.load_size is {load_size}, but pictures of image_size={config.image_size} are "
            f"cut from it. Use data.load_size={config.image_size} for no random crop, or more."
        )
    if images.faults and not config.skip_bad:
        raise refusal(images.faults)
    if any(record.split is None for record in images.records):
        raise ValueError("The records have no split yet: call `splits.assign` first.")
    key = _content_key(images.records, roles, config, load_size)
    shelf = Shelf(config.cache_mb * 2**19)  # half, for the arrays need room beside it
    found = _cached_survey(key)
    if found is None:
        found = survey(
            images.records,
            roles,
            config,
            lambda record, role, picture: shelf.put(f"{record.id}:{role}", picture),
        )
    decoded = DecodedSet(images, config, found, load_size, shelf, key)
    if (files.cache_dir() / "arrays" / f"{key}-train-{load_size}").is_dir():
        _cache_survey(key, found)
    return decoded


def _content_key(
    records: Sequence[Record], roles: Sequence[str], config: DataConfig, load_size: int
) -> str:
    """Hash of all that the decoded pictures depend on: file contents, splits and settings."""
    paths = sorted({r.part(role).path for r in records for role in roles if r.has(role)})
    hashes = dict(zip(paths, arrays.in_parallel(_hash_or_none, paths), strict=True))
    items = [
        [
            record.id,
            record.split,
            [
                (role, hashes[record.part(role).path], record.part(role).half)
                for role in roles
                if record.has(role)
            ],
        ]
        for record in records
    ]
    names = ("image_size", "fit", "scale", "mode", "window", "classes", "max_pixels")
    settings = config.model_dump(mode="json", include={*names, "skip_bad"})
    return digest([FORMAT, items, load_size, settings])[:32]


def _hash_or_none(path: Path) -> str | None:
    """SHA-256; None if the file cannot be opened, which decoding will report."""
    try:
        return files.sha256_of(path)
    except OSError:
        return None


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _survey_path(key: str) -> Path:
    return files.cache_dir() / "arrays" / f"{key}.json"


def _cached_survey(key: str) -> Survey | None:
    """What an earlier look at the same files found, if their pictures were put into a file."""
    try:
        saved = files.read_json(_survey_path(key))
        return Survey(
            tuple(Encoding(**values) for values in saved["encodings"]),
            {name: (height, width) for name, (height, width) in saved["sizes"].items()},
            saved["dtypes"],
            saved["left_out"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cache_survey(key: str, found: Survey) -> None:
    files.write_json(
        _survey_path(key),
        {
            "encodings": [how.model_dump(mode="json") for how in found.encodings],
            "sizes": {name: list(size) for name, size in found.sizes.items()},
            "dtypes": dict(found.dtypes),
            "left_out": dict(found.left_out),
        },
    )
