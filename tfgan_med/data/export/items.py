"""What every format hands on: items with plain names, pictures unchanged where that is possible."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.data import decode, listing, synthetic
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Part, Record
from tfgan_med.errors import DataError, UserError

Array = npt.NDArray[Any]

PROVENANCE = "provenance.json"
WEB = frozenset({"PNG", "JPEG", "BMP"})
"""Formats that Keras, torchvision and Ultralytics all read."""

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp"}
_MAX_PIXELS = DataConfig().max_pixels


@dataclass(frozen=True)
class Options:
    """What the formats can be asked for; each takes what it knows.

    Attributes:
        role: what marks the objects: `instances`, `masks`, `masks-<name>`, `labels` or `boxes`;
            `auto` chooses.
        names: of the classes from 0, the background, on.
        by_class: objects get the class of their picture as category.
        polygons: YOLO: outlines instead of boxes.
        number: nnU-Net: number of the data set, 1 to 999.
    """

    role: str = "auto"
    names: tuple[str, ...] = ()
    by_class: bool = False
    polygons: bool = False
    number: int = 1


@dataclass(frozen=True)
class Item:
    """One record under the name that it gets.

    Attributes:
        record: of the data set.
        name: unique, without folder and suffix, of letters that every system takes.
        label: class as folder name; None without.
    """

    record: Record
    name: str
    label: str | None

    @property
    def picture(self) -> Part:
        """The picture itself, or the mask in sets of masks."""
        return self.record.main


@dataclass(frozen=True)
class Source:
    """A data set to hand on.

    Attributes:
        title: short, of letters and digits.
        images: as read.
        items: in order.
        synthetic: a network made it, as its `provenance.json` says.
        notices: what was left out or done differently, for the user; formats add to it.
    """

    title: str
    images: ImageSet
    items: tuple[Item, ...]
    synthetic: bool
    notices: list[str] = field(default_factory=list)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have items; empty for sets without splits."""
        present = {item.record.split for item in self.items}
        return tuple(split for split in SPLITS if split in present)

    @property
    def description(self) -> str:
        """One sentence for the fields that formats have for it."""
        if self.synthetic:
            return f"{self.title}: synthetic pictures made by tfgan_med; see {PROVENANCE}"
        return f"{self.title}: exported by tfgan_med"


def open_source(path: str, title: str | None = None) -> Source:
    """Read a data set in any layout.

    Args:
        path: folder, table or built-in set.
        title: by default the name of the folder.
    Raises:
        UserError: nothing there.
        DataError: faults in the set, or splits for some of its items only.
    """
    images = open_set(DataConfig(path=path))
    if images.faults:
        raise DataError(
            f"{path}: {images.faults[0]} ({len(images.faults)} faults in all; `tfgan-med check "
            f"{path}` lists them. Mend them first."
        )
    given = {record.split is not None for record in images.records}
    if given == {True, False}:
        count = sum(record.split is None for record in images.records)
        raise DataError(
            f"{path}: {count} of {len(images.records)} items have no split, the others have one. "
            "Complete splits.csv, or remove it."
        )
    labels = _unique([plain(label) for label in images.labels], set())
    renamed = dict(zip(images.labels, labels, strict=True))
    items = tuple(
        Item(record, name, None if record.label is None else renamed[record.label])
        for record, name in zip(images.records, _names(images.records), strict=True)
    )
    folder = images.root if images.root.is_dir() else images.root.parent
    own = path.removeprefix("builtin:").partition("?")[0].rstrip("/").split("/")[-1]
    return Source(
        title=plain(title or own),
        images=images,
        items=items,
        synthetic=_is_synthetic(folder / PROVENANCE),
    )


def plain(text: str) -> str:
    """Letters, digits, dots, dashes and underscores; no name that hides, or leaves its folder."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text.strip())
    return kept.lstrip(".") or "_"


def _names(records: Sequence[Record]) -> list[str]:
    """Paths below split, role and class folders, in one word each."""
    return _unique([plain("_".join(_own_path(record))) for record in records], set())


def _own_path(record: Record) -> tuple[str, ...]:
    path = PurePosixPath(record.id)
    folders = [
        folder
        for folder in path.parts[:-1]
        if not (listing.split_of(folder) or listing.role_of(folder) or folder == record.label)
    ]
    half = record.main.half
    known = path.suffix.lower() in decode.SUFFIXES
    return (*folders, path.stem if known else path.name, *([half] if half else []))


def _unique(names: Sequence[str], taken: set[str]) -> list[str]:
    """The same with numbers where two are alike, also but for capitals."""
    found = []
    for name in names:
        chosen, number = name, 2
        while chosen.lower() in taken:
            chosen, number = f"{name}-{number}", number + 1
        taken.add(chosen.lower())
        found.append(chosen)
    return found


def _is_synthetic(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        facts = files.read_json(path)
    except ValueError:
        raise DataError(f"{path}: no JSON. Restore it; it says how the pictures came.") from None
    return bool(isinstance(facts, dict) and facts.get("synthetic"))


# Pictures -----------------------------------------------------------------------------------------


def hand_over(part: Part, target: Path, *, only_png: bool = False, channels: int = 0) -> Path:
    """Copy a picture byte by byte, or write the same pixels as PNG where the format needs that.

    Marks of synthetic pictures stay; DICOM headers never leave.

    Args:
        part: the picture.
        target: without suffix.
        only_png: the format reads nothing but grey or RGB PNG files of 8 or 16 bits.
        channels: 3 makes color of grey pictures.
    Returns:
        The path with its suffix.
    Raises:
        DataError: a picture that cannot be read, or whose values no PNG holds.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    header = decode.read_header(part.path)
    if _can_be_copied(header, part, only_png, channels):
        path = target.with_name(target.name + _SUFFIXES[header.format])
        shutil.copyfile(part.path, path)
        return path
    pixels = _whole(decode.read_picture(part, _MAX_PIXELS), part)
    if channels == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if only_png and pixels.dtype == np.uint16 and pixels.shape[-1] == 3:
        raise DataError(
            f"{part_name(part)}: color of 16 bits per channel, which this format has no file for. "
            "Save the pictures with 8 bits."
        )
    return synthetic.write_picture(target, pixels, synthetic=header.synthetic)


_PLAIN = ("L", "RGB", "I;16", "I;16B", "I")  # Pillow's modes of grey and RGB files without palette


def _can_be_copied(header: decode.Header, part: Part, only_png: bool, channels: int) -> bool:
    """Whether other tools see in the file what we do."""
    if part.half or header.orientation != 1 or header.frames != 1 or header.format not in WEB:
        return False
    if only_png and (header.format != "PNG" or header.pixels not in _PLAIN):
        return False
    return channels == 0 or (header.mode == "rgb") == (channels == 3)


def _whole(values: Array, part: Part) -> Array:
    """Values as they stand, in 8 or 16 bits."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.size and values.min() >= 0 and values.max() <= 65535 and not (values % 1).any():
        return values.astype(np.uint16)
    raise DataError(
        f"{part_name(part)}: values from {values.min():g} to {values.max():g} ({values.dtype}), "
        "which no PNG file holds. Bring the pictures to 8 or 16 bits first."
    )


def part_name(part: Part) -> str:
    """What messages call a picture."""
    return part.name or decode.short_name(part.path)


def copy_provenance(source: Source, folder: Path) -> None:
    """Take `provenance.json` along, unchanged."""
    root = source.images.root
    path = (root if root.is_dir() else root.parent) / PROVENANCE
    if path.is_file():
        shutil.copyfile(path, folder / PROVENANCE)


def require_number(number: int) -> None:
    """nnU-Net's numbers have three digits."""
    if not 1 <= number <= 999:
        raise UserError(f"--number is {number}; nnU-Net numbers data sets from 1 to 999.")
