"""The real pictures of an experiment: split once, every file known by its hash."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.data import arrays, opening, splits
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Record, Split
from tfgan_med.experiments.cells import digest

DATA = "data.json"

Stat = tuple[int, int]  # size and time of change


@dataclasses.dataclass(frozen=True)
class RealData:
    """Items with their splits and the hashes of their files.

    Attributes:
        config: where they are.
        images: the items, each with a split.
        hashes: SHA-256 by path.
    """

    config: DataConfig
    images: ImageSet
    hashes: Mapping[Path, str]

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that have training pictures, sorted."""
        return tuple(sorted({r.label for r in self.images.of_split("train") if r.label}))

    def records(self, split: Split, label: str | None = None) -> tuple[Record, ...]:
        """The items of a split, of one class if one is named."""
        found = self.images.of_split(split)
        return tuple(r for r in found if label is None or r.label == label)

    def counts(self, split: Split) -> dict[str, int]:
        """Items of a split by class; `all` without classes."""
        records = self.records(split)
        if not self.images.labels:
            return {"all": len(records)}
        counted = Counter(record.label or "no class" for record in records)
        return {label: counted[label] for label in sorted(counted)}

    def items(self, label: str | None = None) -> list[dict[str, Any]]:
        """What stands in `data.json`; groups are named by their keyed hash."""
        return [
            {
                "id": record.id,
                "split": record.split,
                "class": record.label,
                "group": splits.hashed_group(record),
                "sha256": {role: self.hashes[p.path] for role, p in sorted(record.parts.items())},
            }
            for record in self.images.records
            if label is None or record.label == label
        ]

    def fingerprint(self, label: str | None = None) -> str:
        """Changes with any file, split, class or group; not with the place of the folder."""
        # Keyed hashes of groups differ between machines, so groups count by who shares one.
        first: dict[str | None, int] = {None: -1}
        records = [r for r in self.images.records if label is None or r.label == label]
        numbers = [first.setdefault(record.group, len(first)) for record in records]
        items = self.items(label)
        return digest([{**i, "group": n} for i, n in zip(items, numbers, strict=True)])


def open_real(config: DataConfig, known: Path | None = None) -> RealData:
    """Find the items, split them and hash their files.

    Args:
        config: the data.
        known: an earlier `data.json`; files whose size and time did not change are not read again.
    """
    images = splits.assign(opening.open_set(config), config)
    paths = sorted({p.path for record in images.records for p in record.parts.values()})
    before = _known_hashes(known, images.root)

    def hash_of(path: Path) -> str:
        stat = path.stat()
        found = before.get(path)
        if found and found[0] == (stat.st_size, stat.st_mtime_ns):
            return found[1]
        return files.sha256_of(path)

    return RealData(
        config, images, dict(zip(paths, arrays.in_parallel(hash_of, paths), strict=True))
    )


def write(data: RealData, path: Path) -> None:
    """Write `data.json`: who is in which split, with hashes."""
    root = data.images.root
    seen = {}
    for file, found in data.hashes.items():
        stat = file.stat()
        name = file.relative_to(root).as_posix()
        seen[name] = [stat.st_size, stat.st_mtime_ns, found]
    counts = {split: data.counts(split) for split in SPLITS}
    files.write_json(
        path,
        {
            "format": 1,
            "sha256": data.fingerprint(),
            "counts": counts,
            "items": data.items(),
            "files": seen,
        },
    )


def _known_hashes(known: Path | None, root: Path) -> dict[Path, tuple[Stat, str]]:
    try:
        stored = files.read_json(known)["files"] if known else {}
    except (OSError, ValueError, KeyError):
        return {}
    return {root / name: ((size, time), sha) for name, (size, time, sha) in stored.items()}
