"""`images/` beside `masks/`, `inputs/`, `labels/`, `instances/`, `templates/`, `masks-<name>/`.

Partners have the same name but for the suffix. The folders may also stand in `train/`, `val/` and
`test/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfgan_med.data import listing
from tfgan_med.data.records import DataConfig, ImageSet, Part, Record, Split


def matches(root: Path) -> bool:
    """Whether there is a folder `images`, here or in the split folders."""
    return root.is_dir() and any("images" in roles for _, roles in _bases(root))


def read(root: Path, config: DataConfig) -> ImageSet:
    """Read pictures and what belongs to them; incomplete items are faults and left out."""
    return read_roles(root, "images", "paired")


def read_roles(root: Path, main: str, layout: str) -> ImageSet:
    """Items of the folder `main` with their partners of the same name in the other folders."""
    bases = _bases(root)
    found = listing.pictures(root, [folder for _, roles in bases for folder in roles.values()])
    records: list[Record] = []
    faults = list(found.faults)
    every = {role for _, roles in bases for role in roles}
    for split, roles in bases:
        by_role = {role: _by_stem(found, folder, faults) for role, folder in roles.items()}
        by_role |= {role: {} for role in every - set(roles)}
        records += _join(found, main, by_role, split, faults)
    records.sort(key=lambda record: record.id)
    return ImageSet(root, layout, tuple(records), tuple(faults))


def _bases(root: Path) -> list[tuple[Split | None, dict[str, Path]]]:
    """Role folders with pictures: of the root, else of its split folders."""
    here = _roles(root)
    if here:
        return [(None, here)]
    parts = listing.split_folders(root) or {}
    return [(split, roles) for split, folder in parts.items() if (roles := _roles(folder))]


def _roles(folder: Path) -> dict[str, Path]:
    found = {}
    for below in listing.folders(folder):
        role = listing.role_of(below.name)
        if role is not None and listing.has_pictures(below):
            found[role] = below
    return found


def _by_stem(found: listing.Listing, folder: Path, faults: list[str]) -> dict[str, Path]:
    """Pictures of a folder by their name without suffix; a name used twice is a fault."""
    keys = {
        path: listing.stem_below(folder, path)
        for path in found.files
        if path.is_relative_to(folder)
    }
    doubles, messages = listing.double_stems(found, keys)
    faults += messages
    return {key: path for path, key in keys.items() if path not in doubles}


def _join(
    found: listing.Listing,
    main: str,
    by_role: Mapping[str, Mapping[str, Path]],
    split: Split | None,
    faults: list[str],
) -> list[Record]:
    """Complete items; a message for each that lacks a partner, and for each lone partner."""
    records = []
    for stem, path in by_role[main].items():
        missing = [role for role in by_role if stem not in by_role[role]]
        if missing:
            faults.append(
                f"{found.id_of(path)}: no file of the same name in {', '.join(sorted(missing))}. "
                "Every picture needs its partner; restore it, or remove the picture."
            )
            continue
        parts = {role: Part(files[stem]) for role, files in sorted(by_role.items())}
        records.append(Record(found.id_of(path), parts, split=split))
    for files in by_role.values():
        faults += [
            f"{found.id_of(path)}: no file of the same name in {main}. "
            "Restore the picture, or remove this file."
            for stem, path in files.items()
            if stem not in by_role[main]
        ]
    return records
