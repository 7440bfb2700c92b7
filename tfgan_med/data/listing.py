"""Which files a folder holds: sorted, never outside the folder, hidden names left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tfgan_med.data import decode
from tfgan_med.data.records import Split

ROLES = ("images", "masks", "instances", "labels", "inputs", "templates")
"""Folder names with a meaning; `masks-<name>` are further masks."""

UNPAIRED = ("traina", "trainb", "vala", "valb", "testa", "testb")

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Listing:
    """Pictures below a folder, sorted, and what could not be followed.

    Attributes:
        root: the data folder that every file must lie in.
        files: picture files.
        faults: one message for each link that leaves the data folder.
        private: a DICOM file is among them, so names may tell who was examined.
    """

    root: Path
    files: tuple[Path, ...]
    faults: tuple[str, ...] = field(default=())
    private: bool = False

    def relative(self, path: Path) -> str:
        """POSIX path of a file below the root."""
        return path.relative_to(self.root).as_posix()

    def id_of(self, path: Path) -> str:
        """Name of an item in outputs and messages; hashed in sets with DICOM."""
        name = self.relative(path)
        return decode.hidden_name(name) if self.private else name


def pictures(root: Path, below: Iterable[Path] | None = None, recursive: bool = True) -> Listing:
    """Pictures in a data folder or in some of its folders."""
    faults: list[str] = []
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for folder in [root] if below is None else below:
        files += _walk(root, folder, recursive, visited, faults)
    files.sort(key=lambda path: path.relative_to(root).as_posix())
    private = any(decode.is_dicom(path) for path in files)
    return Listing(root, tuple(files), tuple(faults), private)


def folders(root: Path) -> list[Path]:
    """Folders directly in a folder, sorted; hidden ones left out."""
    found = [entry for entry in root.iterdir() if not is_hidden(entry.name) and entry.is_dir()]
    return sorted(found)


def has_pictures(folder: Path) -> bool:
    """Whether a picture lies in a folder or below."""
    return next(_walk(folder, folder, True, set(), []), None) is not None


def is_hidden(name: str) -> bool:
    """Names that systems leave behind: dot files, thumbnails, resource forks."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "@eaDir")


def role_of(name: str) -> str | None:
    """The role that a folder's name stands for, if any."""
    name = name.lower()
    return name if name in ROLES or (name.startswith("masks-") and len(name) > 6) else None


def split_of(name: str) -> Split | None:
    """The split that a folder or a table means, if it is one."""
    return _SPLIT_NAMES.get(name.strip().lower())


def split_folders(root: Path) -> dict[Split, Path] | None:
    """Folders `train`, `val`, `test` in a folder, if it has these and no others with pictures."""
    found: dict[Split, Path] = {}
    for folder in folders(root):
        split = split_of(folder.name)
        if split is not None and split not in found:
            found[split] = folder
        elif has_pictures(folder):
            return None
    return found if "train" in found and len(found) > 1 else None


def double_stems(listing: Listing, keys: dict[Path, str]) -> tuple[set[Path], list[str]]:
    """Files that share a name but for the suffix, and a message for each pair."""
    seen: dict[str, Path] = {}
    doubles: set[Path] = set()
    faults = []
    for path, key in keys.items():
        if key not in seen:
            seen[key] = path
            continue
        doubles.update((path, seen[key]))
        faults.append(
            f"{listing.id_of(path)}: {listing.id_of(seen[key])} has the same name but for the "
            "suffix. Pictures are matched by name, so each needs its own; remove or rename one."
        )
    return doubles, faults


def stem_below(folder: Path, path: Path) -> str:
    """Path of a file below a folder, without its suffix: what partners are matched by."""
    below = path.relative_to(folder)
    # UIDs as names have dots of their own, so only suffixes that are ours come off
    return (below.with_suffix("") if path.suffix.lower() in decode.SUFFIXES else below).as_posix()


def _walk(
    root: Path, folder: Path, recursive: bool, visited: set[tuple[int, int]], faults: list[str]
) -> Iterator[Path]:
    """Pictures below a folder; each real folder once, so that loops of links end."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = Path(entry.path)
        if is_hidden(entry.name):
            continue
        if entry.is_symlink() and not inside(root, path):
            faults.append(
                f"{_quoted(root, path)}: a link that leads out of the data "
                "folder or nowhere; it was not followed. Copy the files into the folder."
            )
        elif entry.is_dir():
            if recursive:
                yield from _walk(root, path, recursive, visited, faults)
        elif entry.is_file() and decode.is_picture(path):
            yield path


def inside(root: Path, path: Path) -> bool:
    """Whether a path, its links followed, exists and lies in a folder."""
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def _quoted(root: Path, path: Path) -> str:
    """A file's name below the root, control characters written out; hashed if it is DICOM's."""
    name = path.relative_to(root).as_posix()
    if decode.SUFFIXES.get(path.suffix.lower()) == "DICOM":
        return decode.hidden_name(name)
    return name if name.isprintable() else ascii(name)
