"""Records to tf.data batches; the order depends on seed and epoch only.

Every picture is decoded once, fitted and kept small (`arrays.py`); a batch is cut, jittered and
normalised on the fly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med import files
from tfgan_med.batches import PairedBatch
from tfgan_med.data import arrays, encoding, fitting
from tfgan_med.data.arrays import Layout, Reader, Shelf
from tfgan_med.data.encoding import Encoding as Encoding
from tfgan_med.data.jitter import Jitter, item_at
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Record, Split
from tfgan_med.data.splits import group_hash
from tfgan_med.data.survey import Survey, choose_roles, refusal, survey
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
Side = Literal["source", "target"]
SIDES: tuple[Side, Side] = ("source", "target")

FORMAT = 1  # of the cached arrays; part of their key
PAPER_LOAD = 286 / 256  # Isola et al., arXiv:1611.07004, section 6.2


@dataclass(frozen=True)
class Table:
    """The decoded pictures of one split at one size.

    Attributes:
        names: of the rows: the item's id, with `#2` and so on for the further tiles of an item.
        readers: by side, from a row to its picture `(size, size, stored channels)`.
        memory: bytes that the pictures take; 0 if they are in a file.
    """

    names: tuple[str, ...]
    readers: Mapping[Side, Reader]
    memory: int

    def __len__(self) -> int:
        return len(self.names)


class PairedData:
    """Conditions and the pictures that belong to them, as batches. Made by `prepare_pairs`.

    Attributes:
        source, target: how condition and picture become tensors.
        image_size: side of the tensors in pixels.
        load_size: side before the random crop of the jitter.
        window: values of the pictures that become -1 and 1.
        left_out: why items were left out, by id; empty unless `skip_bad` was set.
    """

    def __init__(
        self, images: ImageSet, config: DataConfig, found: Survey, shelf: Shelf, key: str
    ) -> None:
        self.source, self.target = found.encodings
        self.image_size = config.image_size
        self.load_size = load_size(config)
        self.window = (self.target if self.target.kind == "image" else self.source).window
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
        """Names of what `eval_batches` gives, in order: item ids, tiles with `#2` and so on."""
        return self._table(split, self.image_size).names

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps until each training item was seen once, the last batch reaching into the next."""
        return -(-len(self._table("train")) // batch_size)

    def train_batches(self, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
        """Endless shuffled and jittered training batches.

        Args:
            batch_size: items per batch; a batch may reach over the end of an epoch.
            seed: fixes order and jitter together with epoch and index.
            start_step: batches already seen: the same batches follow as without a stop.
        Returns:
            Elements are `PairedBatch`.
        """
        table = self._table("train")
        readers = [table.readers[side] for side in SIDES]
        config = self._config
        jitter = Jitter(self.image_size, config.flip, config.flip_vertical, config.rotate90)

        def item(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
            epoch, index = item_at(position, len(table), seed)
            return tuple(jitter([read(index) for read in readers], seed, epoch, index))

        positions = tf.data.Dataset.range(start_step * batch_size, tf.int64.max)
        items = positions.map(item, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return self._batches(items, batch_size, drop_remainder=True)

    def eval_batches(
        self, split: Split, batch_size: int, limit: int | None = None
    ) -> tf.data.Dataset:
        """The items of a split in order, once, without jitter.

        Args:
            limit: stop after so many items.
        Returns:
            Elements are `PairedBatch`; the last one may be smaller.
        """
        table = self._table(split, self.image_size)
        count = len(table) if limit is None else min(limit, len(table))
        readers = [table.readers[side] for side in SIDES]
        items = tf.data.Dataset.range(count).map(
            lambda index: tuple(read(index) for read in readers),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return self._batches(items, batch_size, drop_remainder=False)

    def fixed_batch(self, split: Split, count: int) -> PairedBatch:
        """At most `count` items spread evenly over a split, always the same ones."""
        table = self._table(split, self.image_size)
        if not len(table):
            raise ValueError(f"The {split} split is empty: there is no batch to take from it.")
        rows = np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(np.int64)
        stored = {side: tf.stack([table.readers[side](row) for row in rows]) for side in SIDES}
        return {
            "source": encoding.load_tensor(stored["source"], self.source),
            "target": encoding.load_tensor(stored["target"], self.target),
        }

    def fingerprint(self) -> dict[str, Any]:
        """What the run saw, for `data.json`; names items, never groups.

        Returns:
            Per item: id, split, label, keyed hash of the group, size, type and SHA-256 of each
            file; for the set: roles, value window, classes and a hash over all.
        """
        classes = sorted({record.label for record in self._records if record.label is not None})
        content = {
            "roles": {side: self._encoding(side).role for side in SIDES},
            "source": self.source.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json"),
            "window": list(self.window),
            "classes": {name: index for index, name in enumerate(classes)},
            "left_out": self.left_out,
            "items": [self._item_fingerprint(record) for record in self._records],
        }
        return {"format": FORMAT, "sha256": _digest(content), **content}

    def _item_fingerprint(self, record: Record) -> dict[str, Any]:
        height, width = self._survey.sizes[record.id]
        return {
            "id": record.id,
            "split": record.split,
            "label": record.label,
            "group": None if record.group is None else group_hash(record.group),
            "size": [height, width],
            "dtype": self._survey.dtypes[record.id],
            "sha256": {
                side: self._sha256_of(record.parts[self._encoding(side).role].path)
                for side in SIDES
            },
        }

    def _sha256_of(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = files.sha256_of(path)
        return self._hashes[path]

    def _encoding(self, side: Side) -> Encoding:
        return self.source if side == "source" else self.target

    def _batches(
        self, items: tf.data.Dataset, batch_size: int, drop_remainder: bool
    ) -> tf.data.Dataset:
        """Batch stored pictures and make tensors of them; one operation a batch is the cheapest."""

        def tensors(source: tf.Tensor, target: tf.Tensor) -> PairedBatch:
            return {
                "source": encoding.load_tensor(source, self.source),
                "target": encoding.load_tensor(target, self.target),
            }

        return (
            items.batch(batch_size, drop_remainder=drop_remainder)
            .map(tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .prefetch(tf.data.AUTOTUNE)
        )

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
        """Shape and type of both arrays of a table."""
        rows = sum(self._num_tiles(record, size) for record in self.records(split))
        return {
            side: Layout(
                (rows, size, size, self._encoding(side).stored_channels),
                self._encoding(side).stored_dtype,
            )
            for side in SIDES
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
                for side in SIDES:
                    tiles = self._read(records[row], side, size, shelf)
                    made[side][starts[row] : starts[row + 1]] = tiles

            for _ in arrays.in_parallel(one, range(len(records))):
                pass

        layouts = self._layouts(split, size)
        memory = sum(layout.bytes for layout in layouts.values())
        if memory <= room:
            readers = arrays.in_memory(layouts, fill)
        else:
            memory = 0
            folder = files.cache_dir() / "arrays" / f"{self._key}-{split}-{size}"
            readers = arrays.in_file(folder, layouts, fill)
        names = (
            record.id if tile == 0 else f"{record.id}#{tile + 1}"
            for record, count in zip(records, counts, strict=True)
            for tile in range(count)
        )
        return Table(tuple(names), {side: readers[side] for side in SIDES}, memory)

    def _read(self, record: Record, side: Side, size: int, shelf: Shelf) -> Array:
        """The stored tiles of one picture."""
        how = self._encoding(side)
        picture = shelf.take(f"{record.id}:{how.role}")
        if picture is None:
            picture = encoding.read(record.parts[how.role], how.role, self._config.max_pixels)
        tiles, _ = fitting.fit(picture, size, self._config.fit, how.nearest, self._config.scale)
        return encoding.store(tiles, how)


def prepare_pairs(images: ImageSet, config: DataConfig) -> PairedData:
    """Look at every pair, then decode all of them.

    Args:
        images: the set, split.
        config: roles, size, fitting, value window, memory budget.
    Raises:
        UserError: if settings contradict each other or the set has no pairs.
        DataError: if pictures cannot be used (see `survey`); with `skip_bad` they are left out.
    """
    load_size(config)
    roles = choose_roles(images, config)
    if images.faults and not config.skip_bad:
        raise refusal(images.faults)
    if any(record.split is None for record in images.records):
        raise ValueError("The records have no split yet: call `splits.assign` first.")
    key = _content_key(images.records, roles, config)
    shelf = Shelf(config.cache_mb * 2**19)  # half, for the arrays need room beside it
    found = _cached_survey(key)
    if found is None:
        found = survey(
            images.records,
            roles,
            config,
            lambda record, role, picture: shelf.put(f"{record.id}:{role}", picture),
        )
    data = PairedData(images, config, found, shelf, key)
    if (files.cache_dir() / "arrays" / f"{key}-train-{data.load_size}").is_dir():
        _cache_survey(key, found)
    return data


def load_size(config: DataConfig) -> int:
    """Side of the training pictures before the random crop."""
    size = round(config.image_size * PAPER_LOAD) if config.load_size is None else config.load_size
    if size < config.image_size:
        raise UserError(
            f"data.load_size is {size}, but pictures of image_size={config.image_size} are cut "
            f"from it. Use data.load_size={config.image_size} for no random crop, or more."
        )
    return size


def _content_key(records: Sequence[Record], roles: Sequence[str], config: DataConfig) -> str:
    """Hash of all that the decoded pictures depend on: file contents, splits and settings."""
    paths = sorted({r.parts[role].path for r in records for role in roles if role in r.parts})
    hashes = dict(zip(paths, arrays.in_parallel(_hash_or_none, paths), strict=True))
    items = [
        [
            record.id,
            record.split,
            [
                (role, hashes[part.path], part.half)
                for role in roles
                if (part := record.parts.get(role)) is not None
            ],
        ]
        for record in records
    ]
    names = ("image_size", "load_size", "fit", "scale", "mode", "window", "classes", "max_pixels")
    settings = config.model_dump(mode="json", include={*names, "skip_bad"})
    return _digest([FORMAT, items, settings])[:32]


def _hash_or_none(path: Path) -> str | None:
    """SHA-256; None if the file cannot be opened, which decoding will report."""
    try:
        return files.sha256_of(path)
    except OSError:
        return None


def _digest(value: Any) -> str:
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
