"""Refuses to train on what `check` finds wrong; a set that passed is not checked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tfgan_med import files
from tfgan_med.data.check import Finding, by_kind, check
from tfgan_med.data.records import DataConfig, ImageSet
from tfgan_med.errors import DataError

SHOWN = 3
FORMAT = 1  # raise it when `check` learns to find more


def require_fit(images: ImageSet, config: DataConfig) -> None:
    """Check a set as `tfgan-med check` does, unless it is built in or has passed before.

    Raises:
        DataError: with at most three errors, if training would go wrong.
    """
    if config.path.startswith("builtin:") or not config.check:
        return
    passed = files.cache_dir() / "checks" / f"{_state(images, config)}.json"
    if passed.exists():
        return
    report = check(config)
    if not report.ok:
        raise DataError(_message(report.errors, config))
    passed.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(passed, {"data": report.name, "items": report.items})


def _message(errors: Sequence[Finding], config: DataConfig) -> str:
    """The first error of each kind first: three of one kind would hide the others."""
    kinds = list(by_kind(errors).values())
    ordered = [kind[0] for kind in kinds] + [error for kind in kinds for error in kind[1:]]
    more = len(ordered) - SHOWN
    lines = [str(error) for error in ordered[:SHOWN]]
    if more > 0:
        lines.append(f"and {more} more, listed by `tfgan-med check {config.path}`.")
    lines.append("To train all the same: --set data.check=false.")
    return "\n".join(lines)


def _state(images: ImageSet, config: DataConfig) -> str:
    """Hash of the settings and of every file's name, size and time of change."""
    paths = {part.path for record in images.records for part in record.parts.values()}
    stats = {path: path.stat() for path in sorted(paths)}
    content = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "faults": images.faults,
        "records": [(r.id, r.split, r.group, r.label) for r in images.records],
        "files": [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
