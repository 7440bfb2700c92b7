"""Pictures of a data set as the rows of one matrix, for choosing among them.

Each picture is decoded once, fitted, resized bicubically (as in source paper 000) and kept as bytes
in a file of the cache that is named after the content of the pictures. It is written picture by
picture and read block by block, so that a set of any size takes little memory.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfgan_med import files
from tfgan_med.data import arrays, decode, encoding, fitting, gate, opening, splits
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import DataConfig, ImageSet, Record
from tfgan_med.data.survey import choose_made, refusal, survey
from tfgan_med.errors import DataError, UserError
from tfgan_med.networks.feature_cache import Extractor, FeatureCache, extract
from tfgan_med.ops.principal_components import ArrayBlocks

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Part = Literal["auto", "train", "all"]
Progress = Callable[[int, int], None]

FORMAT = 1  # of the cached rows; part of their key


# Pictures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureRows:
    """Pictures to choose from, in order of their names. Made by `open_rows`.

    Attributes:
        images: the set; its records are the items that are used.
        config: how it was read.
        part: `train` if only its training split is used, else `all`.
        records: the item of each row; tiles repeat theirs.
        tiles: number of the row's tile within its item, from 0.
        encoding: role, channels and value window of the pictures.
        stored: the pictures, `(rows, size, size, channels)` uint8, mapped from a file.
        contents: hash of the names and contents of their files.
        key: hash of that and of all that made rows of them.
        left_out: why items were left out, by id; empty unless `skip_bad` was set.
    """

    images: ImageSet
    config: DataConfig
    part: Literal["train", "all"]
    records: tuple[Record, ...]
    tiles: tuple[int, ...]
    encoding: Encoding
    stored: Bytes
    contents: str
    key: str
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rows: the item's id, with `#2` and so on for its further tiles."""
        pairs = zip(self.records, self.tiles, strict=True)
        return tuple(record.id + (f"#{tile + 1}" if tile else "") for record, tile in pairs)

    def pictures(self, indices: Iterable[int]) -> Bytes:
        """Pictures of some rows for people, `(indices, size, size, 3)`."""
        return _rgb(np.stack([self.stored[index] for index in indices]))

    def pixels(self, size: int | None = None) -> ArrayBlocks:
        """The pictures as rows of pixel values, 0..255.

        Args:
            size: reduce them to this side first; what that costs is fine detail, which has little
                of the variance, and it makes the analysis of large sets many times faster.
        Raises:
            UserError: if `size` is not smaller than the pictures.
        """
        if size is None or size == self.config.image_size:
            return ArrayBlocks(self.stored)
        if not 0 < size < self.config.image_size:
            raise UserError(
                f"pca_size is {size}, the pictures have {self.config.image_size} pixels. It "
                "reduces them further: choose a smaller one, or leave it out."
            )
        folder = _folder(f"{self.key}-{size}")
        if not (folder / "rows.npy").is_file():
            _reduce(self.stored, size, folder)
        return ArrayBlocks(np.load(folder / "rows.npy", mmap_mode="r"))

    def features(
        self,
        network: Extractor,
        batch_size: int = 32,
        cache: FeatureCache | None = None,
        progress: Progress = lambda done, total: None,
    ) -> ArrayBlocks:
        """What a network makes of the pictures, as rows.

        Args:
            network: the extractor; it sees the fitted pictures in colour.
            batch_size: pictures per network pass.
            cache: where features are kept; None computes all.
            progress: called with pictures done and all.
        """

        def shown() -> Iterator[Bytes]:
            done = 0
            for block in ArrayBlocks(self.stored):
                for picture in _rgb(block.reshape(-1, *self.stored.shape[1:])):
                    yield picture
                    done += 1
                    progress(done, len(self))

        made = extract(network, shown(), batch_size, cache, len(self))
        return ArrayBlocks(made[:, : network.dimension])


def open_rows(
    config: DataConfig,
    part: Part = "auto",
    progress: Progress = lambda done, total: None,
) -> PictureRows:
    """Open a set as training does, and bring its pictures to one size.

    Args:
        config: where the set is and how pictures are fitted; `target` names their role.
        part: `train` uses the training split alone; `auto` does so where the set brings splits of
            its own, so that no test picture is chosen, and uses all pictures where it does not.
        progress: called with pictures done and all; not if they are in the cache.
    Returns:
        The rows sorted by the items' ids: the order of files in folders does not matter.
    Raises:
        UserError: no such set, role or class, or settings that contradict each other.
        DataError: pictures that cannot be used, or what else `tfgan-med check` finds.
    """
    images, taken = _open(config, part)
    (role,) = choose_made(images, config.model_copy(update={"with_masks": False}))
    if encoding.kind_of(role) == "labels":
        raise UserError(
            "data.target is 'labels', whose numbers of classes are no brightness to compare "
            "pictures by. Choose by images or masks; the labels come along."
        )
    contents = _contents(images.records, role)
    key = _key(contents, role, config)
    folder = _folder(key)
    if not (folder / "rows.json").is_file():
        _make(folder, images.records, role, config, progress)
    return _load(folder, images, config, taken, contents)


def _open(config: DataConfig, part: Part) -> tuple[ImageSet, Literal["train", "all"]]:
    """The items to choose from, all in the split `train`, and which part of the set they are."""
    found = opening.open_set(config)
    own = config.split != "random" and any(record.split is not None for record in found.records)
    if part == "train" and not own:
        raise UserError(
            f"{config.path}: the set names no training split. Choose from all pictures with "
            "--split all, or add a splits.csv with the columns file and split."
        )
    if not own:  # splits that we would make decide nothing here, and copies may lie across them
        config = config.model_copy(update={"split": "random", "fractions": (1.0, 0.0, 0.0)})
    images = splits.assign(found, config)
    gate.require_fit(images, config)
    if images.faults and not config.skip_bad:
        raise refusal(images.faults)
    taken: Literal["train", "all"] = "train" if own and part != "all" else "all"
    records = images.of_split("train") if taken == "train" else images.records
    records = opening.of_class(replace(images, records=records), config).records
    if not records:
        raise DataError(
            f"{config.path}: the training split is empty. Choose from all pictures: --split all."
        )
    records = tuple(replace(r, split="train") for r in sorted(records, key=lambda r: r.id))
    return replace(images, records=records), taken


# Making the rows ----------------------------------------------------------------------------------


def _folder(key: str) -> Path:
    return files.cache_dir() / "rows" / key


def _contents(records: Sequence[Record], role: str) -> str:
    """Hash of the names and contents of the pictures."""
    used = [record for record in records if record.has(role)]
    paths = sorted({record.part(role).path for record in used})
    hashes = dict(zip(paths, arrays.in_parallel(_hash_or_none, paths), strict=True))
    return _digest([[r.id, hashes[r.part(role).path], r.part(role).half] for r in used])


def _key(contents: str, role: str, config: DataConfig) -> str:
    """Hash of all that the rows depend on."""
    names = {"image_size", "fit", "scale", "mode", "window", "max_pixels", "skip_bad"}
    settings = config.model_dump(mode="json", include=names)
    return _digest([FORMAT, contents, role, settings])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)  # ASCII, whatever the names
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _hash_or_none(path: Path) -> str | None:
    """SHA-256; None if the file cannot be opened, which the survey reports."""
    try:
        return files.sha256_of(path)
    except OSError:
        return None


class _Writer:
    """Rows of a new `.npy` file, written at any place from any thread."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            self._start = stream.tell()
            stream.truncate(self._start + int(np.prod(shape)))
        self._row = int(np.prod(shape[1:]))
        self._stream = path.open("r+b")
        self._lock = threading.Lock()

    def put(self, row: int, pictures: Bytes) -> None:
        with self._lock:
            self._stream.seek(self._start + row * self._row)
            self._stream.write(np.ascontiguousarray(pictures).data)

    def close(self) -> None:
        self._stream.close()


def _make(
    folder: Path, records: Sequence[Record], role: str, config: DataConfig, progress: Progress
) -> None:
    """Write `rows.npy`, and `rows.json` with what the rows are, to a folder that appears whole."""
    try:
        with files.new_folder(folder) as temporary:
            _write(temporary, records, role, config, progress)
    except FileExistsError:
        pass  # another process was faster; its rows are the same
    except OSError as error:
        raise DataError(
            f"{folder.parent}: the decoded pictures could not be written ({error.strerror}). Free "
            "space, or name another folder with TFGAN_MED_CACHE."
        ) from error


def _write(
    folder: Path, records: Sequence[Record], role: str, config: DataConfig, progress: Progress
) -> None:
    path = folder / "rows.npy"
    first = _FirstPass(path, records, role, config, progress)
    found = survey(records, [role], config, first.keep)
    first.close()
    (how,) = found.encodings
    used = [record for record in records if record.id in found.sizes]
    if not first.complete(used, how):
        _second_pass(path, used, how, found.sizes, config, progress)
    left_out, window = dict(found.left_out), list(how.window)
    facts = {"encoding": {**how.model_dump(mode="json"), "window": window}, "left_out": left_out}
    counts = {record.id: _num_tiles(found.sizes[record.id], config) for record in used}
    files.write_json(folder / "rows.json", {**facts, "tiles": counts})


class _FirstPass:
    """Writes 8-bit pictures while the survey looks at them, so that they are decoded once.

    It goes by the headers' sizes. What comes out otherwise is for the second pass: a set with
    another value window, or one of which pictures were left out.
    """

    def __init__(
        self,
        path: Path,
        records: Sequence[Record],
        role: str,
        config: DataConfig,
        progress: Progress,
    ) -> None:
        self._config = config
        self._progress = progress
        self._total = len(records)
        headers = arrays.in_parallel(lambda record: _header(record, role), records)
        known = {r.id: found for r, found in zip(records, headers, strict=True) if found}
        rows = [_num_tiles(known[r.id][0], config) if r.id in known else 0 for r in records]
        starts = np.cumsum([0, *rows])
        self._starts = {r.id: int(row) for r, row in zip(records, starts, strict=False)}
        modes = [mode for _, mode in known.values()]
        mode = config.mode if config.mode != "auto" else next(iter(modes), "gray")
        self._encoding = Encoding(
            role=role,
            kind=encoding.kind_of(role),
            channels=3 if mode == "rgb" and encoding.kind_of(role) == "image" else 1,
        )
        shape = (int(starts[-1]), config.image_size, config.image_size, self._encoding.channels)
        self._writer = _Writer(path, shape)
        self._written: set[str] = set()
        self._lock = threading.Lock()
        self._done = 0

    def keep(self, record: Record, role: str, picture: Array) -> None:
        """Called from several threads."""
        usual = picture.dtype == np.uint8 and self._config.window is None
        if usual and (self._config.mode != "auto" or picture.shape[2] == self._encoding.channels):
            self._writer.put(
                self._starts[record.id], _as_bytes(picture, self._encoding, self._config)
            )
            with self._lock:
                self._written.add(record.id)
        with self._lock:
            self._done += 1
            self._progress(self._done, self._total)

    def complete(self, used: Sequence[Record], how: Encoding) -> bool:
        """Whether the file holds exactly the pictures that are used, as they should be."""
        return (
            how.model_dump() == self._encoding.model_dump()
            and len(used) == self._total
            and self._written == {record.id for record in used}
        )

    def close(self) -> None:
        self._writer.close()


def _header(record: Record, role: str) -> tuple[tuple[int, int], decode.Mode] | None:
    """Height, width and mode of a picture; None where the survey will find a fault."""
    try:
        width, height = decode.picture_size(record.part(role))
        return (height, width), decode.picture_mode(record.part(role))
    except (DataError, KeyError):
        return None


def _second_pass(
    path: Path,
    records: Sequence[Record],
    how: Encoding,
    sizes: Mapping[str, tuple[int, int]],
    config: DataConfig,
    progress: Progress,
) -> None:
    """Read the pictures again, now that their value window is known."""
    starts = np.cumsum([0, *(_num_tiles(sizes[record.id], config) for record in records)])
    shape = (int(starts[-1]), config.image_size, config.image_size, how.stored_channels)
    writer = _Writer(path, shape)

    def one(row: int) -> None:
        picture = encoding.read(records[row].part(how.role), how.role, config.max_pixels)
        writer.put(int(starts[row]), _as_bytes(picture, how, config))

    for done, _ in enumerate(arrays.in_parallel(one, range(len(records))), 1):
        progress(done, len(records))
    writer.close()


def _num_tiles(size: tuple[int, int], config: DataConfig) -> int:
    return len(fitting.place(*size, config.image_size, config.fit, config.scale).corners)


def _as_bytes(picture: Array, how: Encoding, config: DataConfig) -> Bytes:
    """The tiles of a picture that `encoding.read` returned, `(tiles, size, size, channels)`."""
    if how.kind == "mask":
        picture = picture * np.uint8(255)  # soft edges are wanted: masks are compared by area
    height, width, _ = picture.shape
    inner = fitting.place(height, width, config.image_size, config.fit, config.scale).inner
    resized = _bicubic(picture, inner)
    tiles, _ = fitting.fit(resized, config.image_size, config.fit, nearest=False)  # cuts only
    stored = encoding.store(tiles, how)
    return stored if stored.dtype == np.uint8 else np.rint(stored / 257.0).astype(np.uint8)


def _bicubic(picture: Array, size: tuple[int, int]) -> Array:
    """Resize `(height, width, channels)` to height and width, antialiased; not bytes: float32."""
    if picture.shape[:2] == size:
        return picture
    if picture.dtype == np.uint8 and picture.shape[2] == 3:
        return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))
    values = picture if picture.dtype == np.uint8 else picture.astype(np.float32)
    planes = (np.ascontiguousarray(plane) for plane in np.moveaxis(values, 2, 0))
    resized = [
        np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC))
        for plane in planes
    ]
    return np.stack(resized, axis=2)


def _reduce(stored: Bytes, size: int, folder: Path) -> None:
    """Write the same pictures at a smaller size."""

    def small(picture: Bytes) -> Bytes:
        return _bicubic(picture, (size, size))

    try:
        with files.new_folder(folder) as temporary:
            shape = (len(stored), size, size, stored.shape[3])
            writer, row = _Writer(temporary / "rows.npy", shape), 0
            for block in ArrayBlocks(stored):
                pictures = block.reshape(-1, *stored.shape[1:])
                writer.put(row, np.stack(list(arrays.in_parallel(small, pictures))))
                row += len(pictures)
            writer.close()
    except FileExistsError:
        pass  # another process was faster


# Reading them -------------------------------------------------------------------------------------


def _load(
    folder: Path,
    images: ImageSet,
    config: DataConfig,
    part: Literal["train", "all"],
    contents: str,
) -> PictureRows:
    facts = files.read_json(folder / "rows.json")
    counts = facts["tiles"]
    used = tuple(record for record in images.records if record.id in counts)
    rows = [(record, tile) for record in used for tile in range(counts[record.id])]
    return PictureRows(
        images=replace(images, records=used),
        config=config,
        part=part,
        records=tuple(record for record, _ in rows),
        tiles=tuple(tile for _, tile in rows),
        encoding=Encoding(**facts["encoding"]),
        stored=np.load(folder / "rows.npy", mmap_mode="r"),
        contents=contents,
        key=folder.name,
        left_out=facts["left_out"],
    )


def _rgb(pictures: Bytes) -> Bytes:
    return pictures if pictures.shape[-1] == 3 else np.repeat(pictures, 3, axis=-1)
