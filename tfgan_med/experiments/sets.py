"""Sets of pictures that an experiment puts together from others, and sheets of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfgan_med import files
from tfgan_med.data import arrays, encoding, fitting, opening, splits, synthetic, writers
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import DataConfig, Part, Record
from tfgan_med.evaluation.pictures import Pictures, Preparation, common_window
from tfgan_med.experiments.real_data import RealData
from tfgan_med.ops import images

Pixels = npt.NDArray[np.uint8]

SHEET_SIDE = 128  # pixels of a picture on a sheet
SHEET_COLUMNS = 8


def count(folder: Path) -> dict[str, int]:
    """Pictures of a synthetic folder by class; `all` without classes."""
    found = opening.open_set(DataConfig(path=str(folder)))
    counted = Counter(record.label or "all" for record in found.records)
    return {label: counted[label] for label in sorted(counted)}


def content_of(folder: Path) -> str:
    """SHA-256 over names and bytes of all files of a folder."""
    from tfgan_med.experiments.cells import digest

    found = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = arrays.in_parallel(files.sha256_of, found)
    names = [path.relative_to(folder).as_posix() for path in found]
    return digest(list(zip(names, hashes, strict=True)))


# Joining ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A picture of a joined set: where it comes from and what was said of it."""

    record: Record
    stem: str
    facts: Mapping[str, Any]
    part: int


def join(parts: Sequence[Path], out: Path) -> None:
    """Make one set of several synthetic folders; files are linked where the disk can.

    Conditions beside translated pictures are left out: they are real. A class of a folder alone,
    as in its `splits.csv`, becomes a class folder. `provenance.json` has the entries of all parts.

    Args:
        parts: folders that `generate` and `translate` wrote.
        out: the folder to make.
    """
    told = [files.read_json(part / "provenance.json") for part in parts]
    pieces = [p for i, part in enumerate(parts) for p in _pieces(part, told[i], i, len(parts) > 1)]
    roles = sorted({r for piece in pieces for r in piece.record.parts if _is_made(r)})
    labels = {str(p.record.label): str(p.record.label) for p in pieces if p.record.label}
    encodings = [Encoding(role=r, kind=encoding.kind_of(r), channels=1) for r in roles]
    plain = roles == ["images"] and writers.can_be_class_folders(labels, encodings)
    as_folders = plain and all(piece.record.label for piece in pieces)
    entries, rows = [], []
    with files.new_folder(out) as folder:
        for piece in pieces:
            place = _place(piece, folder, roles, as_folders)
            entries.append({**piece.facts, "file": place, "part": piece.part})
            if piece.record.label:
                rows.append((place, piece.record.label))
        if rows and not as_folders:
            writers.write_classes(folder, rows)
        _write_provenance(folder, told, roles, entries)


def _is_made(role: str) -> bool:
    return role == "images" or role.startswith("masks")


def _pieces(part: Path, told: Mapping[str, Any], number: int, several: bool) -> Iterator[_Piece]:
    facts = {entry["file"]: entry for entry in told.get("images", [])}
    for record in opening.open_set(DataConfig(path=str(part))).records:
        main = record.parts.get("images", record.main).path
        file = main.relative_to(part).as_posix()
        stem = f"{number}-{main.stem}" if several else main.stem
        yield _Piece(record, stem, facts.get(file, {}), number)


def _place(piece: _Piece, folder: Path, roles: Sequence[str], as_folders: bool) -> str:
    """Link the files of a picture into the set; the first one's path in it."""
    label = piece.record.label or ""
    placed = []
    for role in roles:
        source = piece.record.parts[role].path
        base = Path(label) if as_folders else Path(role, label)
        target = folder / base / f"{piece.stem}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)
        placed.append(target.relative_to(folder).as_posix())
    return placed[0]


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _write_provenance(
    folder: Path,
    told: Sequence[Mapping[str, Any]],
    roles: Sequence[str],
    entries: list[dict[str, Any]],
) -> None:
    trained = {
        (item["id"], str(item.get("sha256"))): item
        for one in told
        for item in one.get("trained_on") or []
    }
    about = [
        {key: value for key, value in one.items() if key not in ("images", "trained_on")}
        for one in told
    ]
    synthetic.write_provenance(
        folder,
        system=told[0].get("system"),
        role=roles[0],
        roles=list(roles),
        count=len(entries),
        parts=about,
        trained_on=list(trained.values()),
        images=entries,
    )


# Real pictures at the size of generated ones ------------------------------------------------------


def write_reals(real: RealData, config: DataConfig, out: Path) -> None:
    """Write the real pictures as the networks see them, to hold generated ones against.

    `images/` with `splits.csv`, which names split, class and (by its keyed hash) group.

    Args:
        config: size, fitting and value window.
    """
    records = [record for record in real.images.records if "images" in record.parts]
    window = _window(records, config)
    rows: list[tuple[str, str, str, str]] = []

    def one(numbered: tuple[int, Record]) -> list[str]:
        number, record = numbered
        tiles = _tiles(record.parts["images"], config, window)
        stems = [f"{number:06d}" + (f"-{i}" if len(tiles) > 1 else "") for i in range(len(tiles))]
        return [
            synthetic.write_picture(folder / "images" / stem, tile, synthetic=False).name
            for stem, tile in zip(stems, tiles, strict=True)
        ]

    with files.new_folder(out) as folder:
        for record, names in zip(
            records, arrays.in_parallel(one, list(enumerate(records))), strict=True
        ):
            group = splits.hashed_group(record) or ""
            rows += [(f"images/{n}", str(record.split), record.label or "", group) for n in names]
        header = ["file", "split", "class", "group"]
        kept = [i for i, column in enumerate(zip(*rows, strict=True)) if any(column)]
        table = [[header[i] for i in kept], *([row[i] for i in kept] for row in rows)]
        text = "\n".join(",".join(_cell(value) for value in row) for row in table)
        files.write_text(folder / "splits.csv", text + "\n")


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


def _window(records: Sequence[Record], config: DataConfig) -> tuple[float, float]:
    training = tuple(record for record in records if record.split == "train")
    return common_window(Pictures("", training, "images", ()), (), config.window)


def _tiles(part: Part, config: DataConfig, window: tuple[float, float]) -> list[Pixels]:
    """The squares that networks see, 8 bit."""
    raw = encoding.read(part, "images", config.max_pixels)
    tiles, _ = fitting.fit(raw, config.image_size, config.fit, False, config.scale)
    shown = Preparation(window=window, window_given=config.window is not None)
    return [np.asarray(shown.windowed(tile, part), np.uint8) for tile in tiles]


# Sheets -------------------------------------------------------------------------------------------


def sheet(records: Sequence[Record], config: DataConfig, path: Path, rows: int = 2) -> Path | None:
    """Write a sheet of pictures, classes in rows of their own, masks below their pictures.

    Args:
        records: to choose from, evenly.
        config: how a picture becomes a square, and its value window.
        rows: of each class, or in all without classes.
    Returns:
        The PNG; None without pictures.
    """
    named = sorted({record.label for record in records if record.label})
    labels: list[str | None] = [*named] or [None]
    cells: list[Pixels] = []
    for label in labels[:6]:
        own = [r for r in records if label is None or r.label == label]
        most = SHEET_COLUMNS * (1 if len(labels) > 1 else rows)
        chosen = [own[i] for i in np.linspace(0, len(own) - 1, min(most, len(own))).astype(int)]
        for start in range(0, len(chosen), SHEET_COLUMNS):
            cells += _rows_of(chosen[start : start + SHEET_COLUMNS], config)
    if not cells:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        grid = images.grid(np.stack(cells), SHEET_COLUMNS)
        Image.fromarray(grid).save(temporary, format="PNG")
    return path


def _rows_of(records: Sequence[Record], config: DataConfig) -> list[Pixels]:
    """A row of pictures, then a row of their masks if they have any; rows are filled up."""
    blank = np.full((SHEET_SIDE, SHEET_SIDE, 3), 255, np.uint8)
    masks = [role for role in sorted(records[0].parts) if role.split("-")[0] == "masks"]
    shown = ["images", *masks[:1]] if "images" in records[0].parts else masks[:1]
    cells = []
    for role in shown:
        row = [_shown(record, role, config) for record in records if role in record.parts]
        cells += [*row, *[blank] * (SHEET_COLUMNS - len(row))]
    return cells


def _shown(record: Record, role: str, config: DataConfig) -> Pixels:
    """A square picture for people."""
    raw = encoding.read(record.parts[role], role, config.max_pixels)
    is_mask = encoding.kind_of(role) == "mask"
    policy = "crop" if config.fit == "patches" else config.fit
    values = (raw * np.uint8(255)) if is_mask else raw
    square = fitting.fit(values, SHEET_SIDE, policy, nearest=is_mask)[0][0]
    if not is_mask and square.dtype != np.uint8:
        window = config.window or _window([record], config)
        square = Preparation(window=window, window_given=True).windowed(square, record.parts[role])
    return np.broadcast_to(np.asarray(square, np.uint8), (SHEET_SIDE, SHEET_SIDE, 3)).copy()
