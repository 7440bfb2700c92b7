"""Many decoded pictures as one array: in memory within a budget, else in a file of the cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.batches import Tensor
from tfgan_med.errors import DataError

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")
Fill = Callable[[Mapping[str, Array]], None]
Reader = Callable[[Tensor], Tensor]
"""TensorFlow function from the number of a row to its picture `(height, width, channels)`."""


@dataclass(frozen=True)
class Layout:
    """Shape and type of one array: `(items, height, width, channels)`, uint8 or uint16."""

    shape: tuple[int, int, int, int]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Shelf:
    """Arrays kept for a second look, as many as fit into a number of bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._arrays: dict[str, Array] = {}
        self._lock = threading.Lock()

    def put(self, key: str, array: Array) -> None:
        """Keep the array if there is room."""
        with self._lock:
            if array.nbytes <= self._room:
                self._room -= array.nbytes
                self._arrays[key] = array

    def take(self, key: str) -> Array | None:
        """Give the array back and forget it; None if there was no room for it."""
        with self._lock:
            return self._arrays.pop(key, None)


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in order, from one thread per core; decoding releases Python's lock."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(work, items)


def in_memory(layouts: Mapping[str, Layout], fill: Fill) -> dict[str, Reader]:
    """Make arrays in memory, let `fill` write into them, and give a reader of each."""
    made = {name: np.empty(layout.shape, layout.dtype) for name, layout in layouts.items()}
    fill(made)
    return {name: _reader_of_memory(made.pop(name)) for name in layouts}  # one copy at a time


def in_file(
    folder: Path, layouts: Mapping[str, Layout], fill: Fill, load: bool = False
) -> dict[str, Reader]:
    """The same with files `<name>.npy` of a cache folder, mapped into memory, made once.

    Args:
        folder: named after everything that the content depends on; if it exists it is used.
        layouts: shape and type of each array by name.
        fill: writes all of them.
        load: read the files into memory.
    Raises:
        DataError: if the folder cannot be written, such as on a full disk.
    """
    if not folder.exists():
        try:
            _write(folder, layouts, fill)
        except FileExistsError:
            pass  # another process was faster; its arrays are the same
        except OSError as error:
            size = sum(layout.bytes for layout in layouts.values()) / 2**20
            raise DataError(
                f"{folder.parent}: the decoded pictures need {size:.0f} MB here and could not be "
                f"written ({error.strerror}). Free space, name another folder with "
                "TFGAN_MED_CACHE, or allow more memory with data.cache_mb."
            ) from error
    if load:
        return {name: _reader_of_memory(np.load(folder / f"{name}.npy")) for name in layouts}
    return {
        name: _reader_of_file(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in layouts
    }


def _reader_of_memory(array: Array) -> Reader:
    import tensorflow as tf

    with tf.device("CPU:0"):  # never on an accelerator, whatever the size
        pictures = tf.constant(array)

    def read(index: Tensor) -> Tensor:
        with tf.device("CPU:0"):
            return tf.gather(pictures, index)

    return read


def _reader_of_file(array: Array) -> Reader:
    import tensorflow as tf

    def read(index: Tensor) -> Tensor:
        picture = tf.numpy_function(lambda i: np.array(array[i]), [index], array.dtype)
        return tf.ensure_shape(picture, array.shape[1:])

    return read


def _write(folder: Path, layouts: Mapping[str, Layout], fill: Fill) -> None:
    """Fill new files beside the folder, then give it its name."""
    with files.new_folder(folder) as temporary:
        made = {
            name: np.lib.format.open_memmap(
                temporary / f"{name}.npy", mode="w+", dtype=layout.dtype, shape=layout.shape
            )
            for name, layout in layouts.items()
        }
        for name in layouts:
            _reserve(temporary / f"{name}.npy")
        fill(made)
        for array in made.values():
            array.flush()


def _reserve(path: Path) -> None:
    """Claim the disk space now: a full disk under a mapped file would kill the process later."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
