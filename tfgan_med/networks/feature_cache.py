"""Features of a stream of pictures, computed once and kept by the content of each picture."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
Features = npt.NDArray[np.float32]  # (images, width)

IN_MEMORY = 256 * 2**20
"""Bytes up to which a result is kept in memory; a larger one is a file that nobody sees."""
BLOCK = 4096
"""Rows after which computed features are put into the cache."""
LARGEST_CACHE = 4 * 10**9
"""Bytes that the default cache may take, if that is not over a tenth of the free disk."""


class Extractor(Protocol):
    """A feature network, as `networks.features.FeatureNetwork` is one."""

    @property
    def identity(self) -> str:
        """Network, weights and protocol: all that features depend on besides the picture."""

    @property
    def dimension(self) -> int:
        """Features per picture."""

    @property
    def width(self) -> int:
        """Numbers per picture: the features, then the logits if the network has any."""

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        """`(width,)` for each `(height, width, 3)` picture in 0..255, in order."""


# Extraction ---------------------------------------------------------------------------------------


def extract(
    extractor: Extractor,
    pictures: Iterable[Array],
    batch_size: int,
    cache: FeatureCache | None = None,
    count: int | None = None,
) -> Features:
    """Features of a stream of pictures; the network sees only pictures it has not seen before.

    What was computed is in the cache after every 4096 pictures and when the stream ends early,
    so an interrupted pass goes on where it was.

    Args:
        extractor: the feature network.
        pictures: `(height, width, 3)` each, in 0..255, of one size; consumed once.
        batch_size: pictures per network pass; it does not change the result beyond rounding.
        cache: where features are kept; None computes all.
        count: of the pictures, if known; it saves growing.
    Returns:
        `(images, width)` float32 in the order of the pictures; above 256 MB memory-mapped from a
        file that goes with the array.
    Raises:
        UserError: the disk is too full for that file.
    """
    stored = cache.read(extractor) if cache else StoredRows(extractor.width)
    table = _Table(extractor.width, count or 0, cache.folder if cache else None)
    first: dict[bytes, int] = {}  # where each picture stands that is not stored
    fresh: list[bytes] = []
    copies: list[tuple[int, int]] = []  # a position and the one that it repeats

    def unseen() -> Iterator[Array]:
        for position, picture in enumerate(pictures):
            key = bytes.fromhex(key_of(picture))
            table.length = position + 1
            if key in stored:
                table[position] = stored[key]
            elif key in first:
                copies.append((position, first[key]))
            else:
                first[key] = position
                fresh.append(key)
                yield picture

    done = kept = 0

    def keep() -> None:
        if cache and done > kept:
            keys = fresh[kept:done]
            cache.add(extractor, keys, table.rows([first[key] for key in keys]))

    try:
        for row in extractor.features(unseen(), batch_size):
            table[first[fresh[done]]] = row
            done += 1
            if done - kept == BLOCK:
                keep()
                kept = done
    finally:
        keep()
    for position, source in copies:
        table[position] = table[source]
    return table.result()


def key_of(picture: Array) -> str:
    """SHA-256 of a picture's pixels, shape and type, hexadecimal."""
    digest = hashlib.sha256(f"{picture.shape} {picture.dtype.str}".encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


class _Table:
    """Rows written at any position: in memory while small, then in a file without a name.

    Args:
        width: of a row.
        rows: expected; it grows beyond.
        folder: for the file, if it exists; otherwise the system's temporary folder.
    """

    def __init__(self, width: int, rows: int, folder: Path | None) -> None:
        self.length = 0
        self._width = width
        self._folder = folder if folder and folder.is_dir() else None
        self._array: Features = np.empty((0, width), np.float32)
        self._file: Any = None
        self._reserve(rows)

    def __setitem__(self, position: int, row: Array) -> None:
        if position >= len(self._array):
            self._reserve(max(position + 1, 2 * len(self._array), 64))
        self._array[position] = row

    def __getitem__(self, position: int) -> Array:
        row: Array = self._array[position]
        return row

    def rows(self, positions: Sequence[int]) -> Features:
        """A copy of some rows."""
        return np.asarray(self._array[positions])

    def result(self) -> Features:
        """All rows up to `length`."""
        return self._array[: self.length]

    def _reserve(self, rows: int) -> None:
        size = 4 * rows * self._width
        if size <= IN_MEMORY:
            array: Features = np.empty((rows, self._width), np.float32)
        else:
            array = self._mapped(rows, size)
        if not isinstance(self._array, np.memmap):  # a grown file has the rows already
            array[: len(self._array)] = self._array
        self._array = array

    def _mapped(self, rows: int, size: int) -> Features:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives on
            _allocate(self._file, size)
            return np.memmap(self._file, np.float32, "r+", shape=(rows, self._width))
        except OSError as error:
            place = self._folder or tempfile.gettempdir()
            raise UserError(
                f"{place}: features of {rows} pictures need {size / 1e9:.1f} GB of disk "
                f"({error.strerror or error}). Free some space, or name another folder with "
                "TFGAN_MED_CACHE and TMPDIR."
            ) from None


def _allocate(file: Any, size: int) -> None:
    """Take the space now: writing to a mapped file on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    here = file.seek(0, os.SEEK_END)
    zeros = bytes(2**20)
    for start in range(here, size, len(zeros)):
        file.write(zeros[: size - start])
    file.flush()


# Cache --------------------------------------------------------------------------------------------


class StoredRows:
    """Features on disk by key, a key being the 32 bytes of `key_of`.

    Only keys are held in memory; rows are read when they are asked for.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._arrays: list[Features] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # array and row

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: bytes) -> Features:
        array, number = self._places[key]
        row: Features = self._arrays[array][number]
        return row

    def include(self, path: Path) -> None:
        """Take up a pair of files; a damaged pair counts as absent."""
        try:
            keys = np.load(path, allow_pickle=False)
            features = np.load(_features_of(path), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return
        if keys.dtype != np.uint8 or keys.shape[1:] != (32,):
            return
        if features.dtype != np.float32 or features.shape != (len(keys), self._width):
            return
        joined, number = keys.tobytes(), len(self._arrays)
        self._arrays.append(features.view(np.ndarray))  # its rows are made faster
        self._places.update(
            (joined[32 * row : 32 * row + 32], (number, row)) for row in range(len(keys))
        )


class FeatureCache:
    """Features by the content of the picture, kept in a folder.

    A key is the SHA-256 of the pixels, so a picture that was replaced under its old name is
    computed again, and copies are computed once. Every addition is one pair of files; the oldest
    go when the folder outgrows its limit. Several processes may share the folder: files appear
    whole, and one that another process removed counts as absent.

    Args:
        folder: of the cache, made when something is written.
        limit: bytes that the folder may take.
    """

    def __init__(self, folder: Path, limit: int = LARGEST_CACHE) -> None:
        self.folder = folder
        self.limit = limit

    @classmethod
    def default(cls) -> FeatureCache:
        """The cache in the user's cache folder: 4 GB, but never over a tenth of the free disk."""
        folder = files.cache_dir() / "features"
        return cls(folder, min(LARGEST_CACHE, _free_space(folder) // 10))

    def read(self, extractor: Extractor) -> StoredRows:
        """All kept features of an extractor."""
        found = StoredRows(extractor.width)
        for path in sorted(self._place(extractor).glob("*.keys.npy")):
            found.include(path)
        return found

    def add(self, extractor: Extractor, keys: Sequence[bytes], rows: Features) -> None:
        """Keep features; a full disk or a folder that cannot be written is no error.

        Args:
            keys: 32 bytes for each row.
            rows: `(keys, width)` float32.
        """
        if not keys:
            return
        joined = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        name = hashlib.sha256(joined.tobytes()).hexdigest()[:16]
        with contextlib.suppress(OSError):
            place = self._place(extractor)
            place.mkdir(parents=True, exist_ok=True)
            self._write(place / f"{name}.npy", rows)
            self._write(place / f"{name}.keys.npy", joined)  # last: without keys nothing is found
            self._trim(newest=place / f"{name}.keys.npy")

    def _place(self, extractor: Extractor) -> Path:
        return self.folder / hashlib.sha256(extractor.identity.encode()).hexdigest()[:16]

    def _write(self, path: Path, array: Array) -> None:
        with files.replacing(path) as temporary, temporary.open("wb") as out:
            np.save(out, array, allow_pickle=False)

    def _trim(self, newest: Path) -> None:
        """Remove the oldest pairs beyond the limit, and what a killed process left behind."""
        found = {path: status for path in self.folder.rglob("*") if (status := _status(path))}
        excess = sum(status.st_size for status in found.values()) - self.limit
        an_hour_ago = time.time() - 3600

        for path, status in sorted(found.items(), key=lambda item: item[1].st_mtime):
            pair = [path] if path.name.endswith(".keys.npy") else []
            pair += [other for other in [_features_of(path)] if pair and other in found]
            left_behind = (
                not path.name.endswith(".keys.npy")
                and _keys_of(path) not in found
                and status.st_mtime < an_hour_ago
            )
            if left_behind:
                pair = [path]
            elif excess <= 0 or path == newest:
                continue
            for file in pair:  # keys first: without them nothing is found
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
                    excess -= found[file].st_size


def _status(path: Path) -> os.stat_result | None:
    """Of a file that another process may just have removed; None also for folders."""
    try:
        return path.stat() if path.is_file() else None
    except OSError:
        return None


def _features_of(keys: Path) -> Path:
    return keys.with_name(keys.name.replace(".keys.npy", ".npy"))


def _keys_of(features: Path) -> Path:
    return features.with_name(features.name.replace(".npy", ".keys.npy"))


def _free_space(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
