"""Formats of generated sets, written piece by piece: single pictures, NumPy and TFRecord shards.

A picture's place is a function of its index, and a file is there whole or not at all, so that a
set of any size takes the memory of one piece and a stopped generation goes on with what is missing.
"""

from __future__ import annotations

import csv
import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

import tfgan_med
from tfgan_med import files
from tfgan_med.data import listing, synthetic
from tfgan_med.data.encoding import Encoding

Array = npt.NDArray[Any]

SHARD_PICTURES = 1000
SHARD_BYTES = 2**28  # a shard waits in memory until it is whole
WRITERS = 4  # threads: packing and syncing of pictures overlap


@dataclass(frozen=True)
class Plan:
    """What one generator contributes to a set.

    Attributes:
        count: pictures.
        image_size: their side in pixels.
        encodings: what a picture consists of, the image first.
        seed: of the latent vectors; noted in shards.
        label: class of the pictures, if any; noted in shards.
        below: folder of the class; empty for a set of one generator.
        class_folders: these folders stand for the classes, see `can_be_class_folders`.
    """

    count: int
    image_size: int
    encodings: tuple[Encoding, ...]
    seed: int = 0
    label: str | None = None
    below: str = ""
    class_folders: bool = False

    @property
    def roles(self) -> list[str]:
        """Name of each encoding's folder, array or feature, known to every reader."""
        return [_role_name(encoding) for encoding in self.encodings]


def _role_name(encoding: Encoding) -> str:
    if encoding.kind == "image":
        return "images"
    return encoding.role if encoding.role.startswith("masks") else "masks"


def can_be_class_folders(folders: Mapping[str, str], encodings: Sequence[Encoding]) -> bool:
    """Whether folders of pictures alone tell the classes.

    Args:
        folders: class to the folder of its pictures.
        encodings: what a picture consists of.
    Returns:
        False if there are masks too, or a folder's name is not the class or means something else
        to a reader, such as `train` or `masks`.
    """
    if [encoding.kind for encoding in encodings] != ["image"]:
        return False
    return all(label == folder and _is_plain(folder) for label, folder in folders.items())


def _is_plain(folder: str) -> bool:
    special = listing.role_of(folder) or listing.split_of(folder) or listing.is_hidden(folder)
    return not special and folder.lower() not in listing.UNPAIRED


class Writer(ABC):
    """Writes the pictures of one generator into a set.

    Args:
        folder: of the set.
        plan: of the generator.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan

    @abstractmethod
    def file(self, index: int) -> str:
        """Path below the set's folder of the file that holds a picture."""

    @abstractmethod
    def missing(self, start: int, stop: int) -> list[int]:
        """Indices from `start` to before `stop` that are not yet in a whole file."""

    @abstractmethod
    def write(self, indices: Sequence[int], pictures: Sequence[Array]) -> None:
        """Take pictures: over all calls, everything that is missing, in order.

        Args:
            indices: of the pictures.
            pictures: for each role `(len(indices), height, width, channels)` uint8 or uint16.
        """


class PictureWriter(Writer):
    """A file for each picture and role, a data set for every reader; 16-bit colour is TIFF.

    `images/000000.png` and `masks/000000.png`; `images/<class>/000000.png` with classes;
    `<class>/000000.png` where class folders do.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        super().__init__(folder, plan)
        bases = [""] if plan.class_folders else plan.roles
        self._places = [
            (Path(base, plan.below), _suffix(encoding))
            for base, encoding in zip(bases, plan.encodings, strict=True)
        ]

    def file(self, index: int) -> str:
        return self._files(index)[0].as_posix()

    def _files(self, index: int) -> list[Path]:
        return [place / f"{index:06d}{suffix}" for place, suffix in self._places]

    def missing(self, start: int, stop: int) -> list[int]:
        return [
            index
            for index in range(start, stop)
            if not all((self.folder / file).is_file() for file in self._files(index))
        ]

    def write(self, indices: Sequence[int], pictures: Sequence[Array]) -> None:
        def save(row: int) -> None:
            for file, values in zip(self._files(indices[row]), pictures, strict=True):
                synthetic.write_picture(self.folder / file.with_suffix(""), values[row])

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(save, range(len(indices))))


def _suffix(encoding: Encoding) -> str:
    """What `synthetic.write_picture` appends."""
    sixteen_bit_color = encoding.kind == "image" and encoding.channels == 3
    return ".tif" if sixteen_bit_color and encoding.dtype == "uint16" else ".png"


class ShardWriter(Writer):
    """Files of up to 1000 pictures, fewer of large ones: `shard-00000` and so on."""

    suffix: ClassVar[str]

    def __init__(self, folder: Path, plan: Plan) -> None:
        super().__init__(folder, plan)
        values = sum(encoding.channels for encoding in plan.encodings)
        deep = any(encoding.dtype != "uint8" for encoding in plan.encodings)
        picture = plan.image_size**2 * values * (2 if deep else 1)
        self.length = max(1, min(SHARD_PICTURES, SHARD_BYTES // picture))
        self._waiting: list[tuple[int, list[Array]]] = []

    def file(self, index: int) -> str:
        name = f"shard-{index // self.length:05d}{self.suffix}"
        return (Path(self.plan.below) / name).as_posix()

    def missing(self, start: int, stop: int) -> list[int]:
        return [
            index for index in range(start, stop) if not (self.folder / self.file(index)).is_file()
        ]

    def write(self, indices: Sequence[int], pictures: Sequence[Array]) -> None:
        for row, index in enumerate(indices):
            self._waiting.append((index, [values[row] for values in pictures]))
            if (index + 1) % self.length == 0 or index + 1 == self.plan.count:
                self._write_shard(self.folder / self.file(index))

    def _write_shard(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        indices = [index for index, _ in self._waiting]
        by_role = [np.stack(values) for values in zip(*(p for _, p in self._waiting), strict=True)]
        self._waiting.clear()
        with files.replacing(path) as temporary:
            self.save(temporary, indices, dict(zip(self.plan.roles, by_role, strict=True)))

    @abstractmethod
    def save(self, path: Path, indices: Sequence[int], pictures: Mapping[str, Array]) -> None:
        """Write a whole shard to a file of any name."""


class ArrayWriter(ShardWriter):
    """NumPy archives, not compressed: `images` (and `masks`) `(n, height, width, channels)`,
    `indices` int64, `seeds` uint64, and `labels` (text) if the pictures have a class."""

    suffix = ".npz"

    def save(self, path: Path, indices: Sequence[int], pictures: Mapping[str, Array]) -> None:
        arrays: dict[str, Any] = {
            **pictures,
            "indices": np.array(indices, np.int64),
            "seeds": np.full(len(indices), self.plan.seed, np.uint64),
        }
        if self.plan.label is not None:
            arrays["labels"] = np.full(len(indices), self.plan.label)
        with path.open("wb") as stream:  # by name, NumPy would append its suffix
            np.savez(stream, **arrays)


class RecordWriter(ShardWriter):
    """TFRecord files of `tf.train.Example`: `images` (and `masks`) PNG bytes, `index`, `seed`,
    and `label` (text) if the pictures have a class."""

    suffix = ".tfrecord"

    def save(self, path: Path, indices: Sequence[int], pictures: Mapping[str, Array]) -> None:
        import tensorflow as tf

        def example(row: int) -> bytes:
            feature = {role: _bytes(_png(values[row])) for role, values in pictures.items()}
            feature["index"] = _integer(indices[row])
            feature["seed"] = _integer(self.plan.seed)
            if self.plan.label is not None:
                feature["label"] = _bytes(self.plan.label.encode())
            whole = tf.train.Example(features=tf.train.Features(feature=feature))
            return bytes(whole.SerializeToString(deterministic=True))

        def _bytes(value: bytes) -> Any:
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

        def _integer(value: int) -> Any:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

        with tf.io.TFRecordWriter(str(path)) as stream:
            for row in range(len(indices)):
                stream.write(example(row))


def _png(pixels: Array) -> bytes:
    """PNG of `(height, width, 1 or 3)` uint8 or uint16 with the text entry `Synthetic=yes`."""
    done, packed = cv2.imencode(".png", pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels)
    if not done:
        raise ValueError(f"Not packed as PNG: shape {pixels.shape}, type {pixels.dtype}.")
    data = packed.tobytes()
    body = b"tEXtSynthetic\0yes"
    mark = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header = 8 + 25  # the signature and the first chunk, which must stay first
    return data[:header] + mark + data[header:]


FORMATS: dict[str, type[Writer]] = {
    "png": PictureWriter,
    "npz": ArrayWriter,
    "tfrecord": RecordWriter,
}


# What stands beside the pictures ------------------------------------------------------------------


def write_classes(folder: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write `splits.csv` with the class of each file, row by row."""
    with (
        files.replacing(folder / "splits.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("file", "class"))
        table.writerows(rows)


def write_provenance(folder: Path, images: Iterable[Mapping[str, Any]], **facts: Any) -> None:
    """Write what `synthetic.write_provenance` writes, entry by entry, for sets of any size.

    Args:
        folder: of the set.
        images: an entry for each picture; the last value of the document.
        facts: run, weights, seeds and training items behind the images.
    """
    head = {"synthetic": True, "tfgan_med": tfgan_med.__version__, **facts}
    text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False)
    with (
        files.replacing(folder / "provenance.json") as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        stream.write(text.removesuffix("\n}") + ',\n  "images": [')
        separator = "\n    "
        for entry in images:
            stream.write(separator + json.dumps(entry, ensure_ascii=False, allow_nan=False))
            separator = ",\n    "
        stream.write("\n  ]\n}\n")
