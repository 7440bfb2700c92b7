"""Two kinds of pictures without partners, as CycleGAN sets come: `trainA`, `trainB`, `testA` ..."""

from __future__ import annotations

from pathlib import Path

from tfgan_med.data import listing
from tfgan_med.data.records import DataConfig, ImageSet, Part, Record


def matches(root: Path) -> bool:
    """Whether both training folders are there."""
    return root.is_dir() and {"traina", "trainb"} <= {f.name.lower() for f in listing.folders(root)}


def read(root: Path, config: DataConfig) -> ImageSet:
    """Read the pictures with their kind, A or B, as label and their folder's split."""
    below = [f for f in listing.folders(root) if f.name.lower() in listing.UNPAIRED]
    found = listing.pictures(root, below)
    keys = {path: listing.stem_below(root, path) for path in found.files}
    doubles, faults = listing.double_stems(found, keys)
    records = []
    for path in found.files:
        if path not in doubles:
            name = path.relative_to(root).parts[0]
            label, split = name[-1].upper(), listing.split_of(name[:-1])
            part = {"images": Part(path)}
            records.append(Record(found.id_of(path), part, label=label, split=split))
    records.sort(key=lambda record: record.id)
    return ImageSet(root, "unpaired", tuple(records), (*found.faults, *faults))
