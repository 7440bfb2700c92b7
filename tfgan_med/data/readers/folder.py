"""Pictures in one folder, or in one folder per class; `train/`, `val/`, `test/` may stand above."""

from __future__ import annotations

from pathlib import Path

from tfgan_med.data import listing
from tfgan_med.data.records import DataConfig, ImageSet, Part, Record, Split


def matches(root: Path) -> bool:
    """Whether there are pictures and no folder name of another layout."""
    if not root.is_dir():
        return False
    parts = [*(listing.split_folders(root) or {}).values()] or [root]
    below = [folder for part in parts for folder in listing.folders(part)]
    names = {folder.name.lower() for folder in below}
    taken = any(listing.role_of(name) for name in names) or names & set(listing.UNPAIRED)
    return not taken and listing.has_pictures(root)


def read(root: Path, config: DataConfig) -> ImageSet:
    """Read a flat folder or class folders: the folder directly above the split is the class."""
    found = listing.pictures(root)
    parts = listing.split_folders(root) or {}
    of_folder: dict[str, Split] = {folder.name: split for split, folder in parts.items()}
    keys = {path: listing.stem_below(root, path) for path in found.files}
    doubles, faults = listing.double_stems(found, keys)
    records = [_record(found, path, of_folder) for path in found.files if path not in doubles]
    records.sort(key=lambda record: record.id)
    return ImageSet(root, "folder", tuple(records), (*found.faults, *faults))


def _record(found: listing.Listing, path: Path, splits: dict[str, Split]) -> Record:
    folders = path.relative_to(found.root).parts[:-1]
    split = splits.get(folders[0]) if folders else None
    if split is not None:
        folders = folders[1:]
    label = folders[0] if folders else None
    return Record(found.id_of(path), {"images": Part(path)}, label=label, split=split)
