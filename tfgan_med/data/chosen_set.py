"""A chosen subset as a folder that is a data set.

It has the files of the chosen items at their places, all in the training split, so that every
command that reads data sets reads it. Files are hard links where the file system can: they take
no space, and unlike symbolic links they do not lead out of the folder.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

import tfgan_med
from tfgan_med import files
from tfgan_med.data import decode, encoding, fitting, listing, opening, synthetic
from tfgan_med.data.choosing import Choice
from tfgan_med.data.picture_rows import PictureRows
from tfgan_med.data.records import DataConfig, Record
from tfgan_med.errors import DataError, UserError

Array = npt.NDArray[Any]
Draw = Callable[[Path], None]

FORMAT = 1  # of selection.json


@dataclass
class Written:
    """The folder that `write` made.

    Attributes:
        folder: where it is.
        names: of the main file of each chosen picture below it, by rank within clusters.
        linked, copied: files, besides pictures that were cut.
    """

    folder: Path
    names: list[str] = field(default_factory=list)
    linked: int = 0
    copied: int = 0


def require_free(out: Path, force: bool, rows: PictureRows | None = None) -> None:
    """Refuse a folder that cannot be written without loss.

    Raises:
        UserError: it exists, with `force` unless it is a subset; or it and the data lie in each
            other.
    """
    if rows is not None:
        root, target = rows.images.root.resolve(), out.resolve()
        if target.is_relative_to(root) or root.is_relative_to(target):
            raise UserError(
                f"--out {out}: it and the data folder lie in each other; the data stay as they "
                "are. Name another folder."
            )
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise UserError(f"--out {out}: exists. Name another folder, or replace it with --force.")
    if not (out / "selection.json").is_file():
        raise UserError(
            f"--out {out}: --force replaces subsets only, and this is none (it has no "
            "selection.json). Name another folder."
        )


def write(
    choice: Choice,
    out: Path,
    *,
    copy: bool = False,
    force: bool = False,
    draw: Draw = lambda folder: None,
) -> Written:
    """Write the chosen items as a data set; the folder appears whole.

    Beside the items it holds `splits.csv` (all `train`; class and group as they were),
    `selection.csv` (a line for each chosen picture) and `selection.json` (all that it follows
    from). The items are in `images/`, `masks/` and so on, whatever the layout was; folders of
    classes are kept below. The halves of side-by-side files become `inputs/` and `images/`.

    Args:
        choice: what to write.
        out: the folder.
        copy: make files of their own; by default hard links, and copies where these cannot be.
        force: replace a subset that is there.
        draw: called with the folder before it gets its name, to add figures.
    Raises:
        UserError: if `out` is in the way, see `require_free`.
        DataError: if the disk is full.
    """
    require_free(out, force, choice.rows)
    written = Written(out)
    try:
        with files.new_folder(out) as folder:
            _write_items(folder, choice, copy, written)
            files.write_text(folder / "splits.csv", _splits(choice, written.names))
            files.write_text(folder / "selection.csv", _table(choice, written.names))
            files.write_json(folder / "selection.json", facts(choice))
            _require_readable(folder, choice, written)
            draw(folder)
            if force:
                files.remove_folder(out)
    except FileExistsError:
        raise UserError(f"--out {out}: exists by now. Name another folder.") from None
    except OSError as error:
        raise DataError(
            f"{out}: could not be written ({error.strerror}). Free space, or name another folder."
        ) from error
    return written


def _write_items(folder: Path, choice: Choice, copy: bool, written: Written) -> None:
    config = choice.rows.config
    places = _Places(choice.rows)
    tiles = [choice.rows.tiles[row] for row in choice.subset.indices.tolist()]
    for record, tile in zip(choice.records, tiles, strict=True):
        if config.fit == "patches":
            made = _write_tiles(folder, record, tile, places.stem(record, tile), config)
        else:
            stem = places.stem(record, None)
            made = _place_parts(folder, record, stem, copy, config.max_pixels, written)
        written.names.append(made[_main(record)])


class _Places:
    """Where the files of chosen items go: a folder for each role, names that partners share.

    Folders of classes and others below are kept, those of splits fall away, since all chosen items
    are for training; items that would then have one name get numbers. Pictures are never in the
    root itself, so that figures can be.
    """

    def __init__(self, rows: PictureRows) -> None:
        self._root = rows.images.root
        self._layout = rows.images.layout
        self.private = is_private(rows)
        splits = listing.split_folders(self._root) or {}
        self._splits = {path.name for path in splits.values()}
        self._taken: set[str] = set()

    def stem(self, record: Record, tile: int | None) -> str:
        """What the files of an item, or of one of its tiles, are called below their folders."""
        wanted = _without_suffix(self._below(record))
        if tile is not None:
            if self.private:  # a new picture need not be called after a patient
                wanted = str(PurePosixPath(wanted).with_name(record.id))
            wanted = f"{wanted}-tile{tile + 1}"
        names = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, 10**9))
        free = next(name for name in names if name not in self._taken)
        self._taken.add(free)
        return free

    def _below(self, record: Record) -> PurePosixPath:
        """Path of the main file without the folders of its split and role."""
        parts = record.main.path.relative_to(self._root).parts
        if self._layout == "unpaired":  # trainA, testA: A
            return PurePosixPath(record.label or "", *parts[1:])
        if parts[0] in self._splits and len(parts) > 1:
            parts = parts[1:]
        in_role = self._layout in ("paired", "masks", "table") and len(parts) > 1
        if in_role and listing.role_of(parts[0]) == record.main_role:
            parts = parts[1:]
        return PurePosixPath(*parts)


def is_private(rows: PictureRows) -> bool:
    """Whether names of files may tell who was examined: DICOM is among them."""
    parts = (part for record in rows.images.records for part in record.parts.values())
    return any(decode.is_dicom(part.path) for part in parts)


def _folder_of(role: str) -> str:
    """The folder of a role; halves of a file become pictures of their own."""
    return {"left": "inputs", "right": "images"}.get(role, role)


def _main(record: Record) -> str:
    """The role that the item is named after in the new set."""
    return "right" if record.main_role == "left" and record.has("right") else record.main_role


def _without_suffix(path: PurePosixPath) -> str:
    return str(path.with_suffix("") if path.suffix.lower() in decode.SUFFIXES else path)


def _suffix(path: Path) -> str:
    return path.suffix if path.suffix.lower() in decode.SUFFIXES else ""


def _place_parts(
    folder: Path, record: Record, stem: str, copy: bool, max_pixels: int, written: Written
) -> dict[str, str]:
    """Every file of an item; the name of each by role."""
    names = {}
    for role, part in record.parts.items():
        below = f"{_folder_of(role)}/{stem}"
        if part.half:
            half = _save(folder / below, encoding.read(part, role, max_pixels))
            names[role] = half.relative_to(folder).as_posix()
            continue
        names[role] = below + _suffix(part.path)
        target = folder / names[role]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not copy and _linked(part.path, target):
            written.linked += 1
        else:
            shutil.copyfile(part.path, target)
            written.copied += 1
    return names


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link; False where it cannot be, such as on another disk."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        return False
    return True


# Tiles --------------------------------------------------------------------------------------------


def _write_tiles(
    folder: Path, record: Record, tile: int, stem: str, config: DataConfig
) -> dict[str, str]:
    """One tile of every picture of an item, with the values of the file; names by role."""
    names = {}
    for role in record.parts:
        path = _save(folder / _folder_of(role) / stem, _tile(record, role, tile, config))
        names[role] = path.relative_to(folder).as_posix()
    return names


def _tile(record: Record, role: str, tile: int, config: DataConfig) -> Array:
    """`(size, size, channels)` of the type of the file; masks 0 and 255, objects numbered."""
    kind = encoding.kind_of(role)
    picture = encoding.read(record.parts[role], _as_numbers(role), config.max_pixels)
    nearest = kind != "image"
    tiles, _ = fitting.fit(picture, config.image_size, config.fit, nearest, config.scale)
    cut = np.asarray(tiles[tile])
    if role == "instances":
        return cut
    if kind == "labels":
        return cut.astype(np.uint8) if cut.max() < 256 else cut
    return cut * np.uint8(255) if kind == "mask" else cut


def _as_numbers(role: str) -> str:
    """The role under which numbered objects keep their numbers."""
    return "ids" if role == "instances" else role


def _save(path: Path, picture: Array) -> Path:
    """PNG, or TIFF for what it does not hold; the folder is made. `path` has no suffix."""
    if picture.dtype in (np.uint8, np.uint16):
        return synthetic.write_picture(path, picture, synthetic=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_name(path.name + ".tif")
    photometric = "rgb" if picture.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(target, np.squeeze(picture), photometric=photometric)
    return target


# Tables -------------------------------------------------------------------------------------------


def _splits(choice: Choice, names: Sequence[str]) -> str:
    """`splits.csv`: every chosen item is for training; class and group stay."""
    has_class = any(record.label is not None for record in choice.records)
    has_group = any(record.group is not None for record in choice.records)
    header = ["file", "split", *["class"] * has_class, *["group"] * has_group]
    rows = [
        [name, "train", *[record.label or ""] * has_class, *[record.group or ""] * has_group]
        for name, record in zip(names, choice.records, strict=True)
    ]
    return _csv([header, *sorted(rows)])


def _table(choice: Choice, names: Sequence[str]) -> str:
    """`selection.csv`: the chosen pictures by cluster and rank."""
    subset, all_names = choice.subset, choice.rows.names
    private = is_private(choice.rows)
    rows = [
        (
            rank,
            decode.hidden_name(name) if private else name,
            index,
            cluster,
            repr(distance),
            all_names[index],
        )
        for rank, name, index, cluster, distance in zip(
            subset.ranks.tolist(),
            names,
            subset.indices.tolist(),
            subset.clusters.tolist(),
            subset.distances.tolist(),
            strict=True,
        )
    ]
    return _csv([("rank", "file", "index", "cluster", "distance", "item"), *rows])


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def facts(choice: Choice) -> dict[str, Any]:
    """`selection.json`: options, versions, counts and measures."""
    rows, space, subset = choice.rows, choice.space, choice.subset
    return {
        "format": FORMAT,
        "tfgan_med": tfgan_med.__version__,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "scipy", "scikit-learn")},
        },
        "data": {
            **_as_given(rows.config),
            "part": rows.part,
            "contents": rows.contents,
            "key": rows.key,
        },
        "space": {
            **space.settings,
            "described": space.described,
            "components": space.scores.shape[1],
            "explained": space.explained,
            "backend": space.backend,
        },
        "selection": asdict(choice.config),
        "pictures": len(rows),
        "chosen": len(subset.indices),
        "items": len({record.id for record in choice.records}),
        "classes": choice.counts,
        "quota": subset.quota.tolist(),
        "spread": {name: finite(value) for name, value in choice.spread.items()},
        "centroids": [[finite(x) for x in row] for row in subset.centroids[:, :2].tolist()],
        "notices": list(subset.notices),
        "left_out": len(rows.left_out),
    }


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None


def _as_given(config: DataConfig) -> dict[str, Any]:
    """Settings by which the pictures are found again, from any working folder."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    named = config.path.startswith("builtin:")
    path = config.path if named else str(Path(config.path).expanduser().resolve())
    return {**values, "path": path, "image_size": config.image_size, "fit": config.fit}


def _require_readable(folder: Path, choice: Choice, written: Written) -> None:
    """The promise that the folder is a data set is kept, or nothing is written."""
    found = opening.open_set(DataConfig(path=str(folder)))
    expected = Counter((r.label, r.group) for r in choice.records)
    if found.faults or Counter((r.label, r.group) for r in found.records) != expected:
        fault = found.faults[0] if found.faults else f"{len(found.records)} items are found in it."
        raise DataError(
            f"{written.folder}: the chosen items do not make a data set that can be read. {fault} "
            "Nothing was written; names of the original files may be the reason."
        )
