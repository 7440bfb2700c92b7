"""What summaries of all kinds take from the cells of an experiment and the files beside them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.experiments.cells import Cell, Store
from tfgan_med.training import predictions

Json = dict[str, Any]


def environment(cells: Iterable[Cell], store: Store) -> Json:
    """Versions and devices, as the first finished run noted them."""
    for cell in cells:
        path = store.path(cell) / "environment.json"
        if cell.settings is not None and path.is_file():
            known = files.read_json(path)
            keys = ("tfgan_med", "python", "tensorflow", "keras", "numpy", "platform", "devices",
                    "git")  # fmt: skip
            return {key: known[key] for key in keys if known.get(key)}
    return {}


def cost(cell: Cell, store: Store, reused: Collection[str]) -> Json:
    """Time and memory of a finished cell.

    Args:
        reused: names of cells that were there before.
    """
    record = store.record(cell)
    path = store.path(cell) / predictions.OUTCOME
    outcome = files.read_json(path) if path.is_file() else {}
    peaks = [p for p in (record.get("peak_memory_mb"), outcome.get("peak_memory_mb")) if p]
    return {
        "cell": cell.label,
        "kind": cell.kind,
        "minutes": round(float(record.get("seconds", 0.0)) / 60, 3),
        "peak_memory_mb": max(peaks, default=None),
        "training_share": outcome.get("training_share"),
        "reused": cell.name in reused,
    }


def hashed(named: Iterable[tuple[str, Path]], store: Store) -> list[Json]:
    """Rows of provenance for the files that are there."""
    return [
        {"what": what, "path": relative(path, store), "sha256": files.sha256_of(path)}
        for what, path in named
        if path.is_file()
    ]


def told(path: str) -> str:
    """Data without the folders above them: a report is given to others."""
    return path if ":" in path[:12] and not Path(path).exists() else Path(path).name


def copied(path: Path, name: str, store: Store) -> str:
    """Copy a picture to the figures; its path below the folder."""
    target = store.folder / "figures" / name
    with files.replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    return str(relative(target, store))


def relative(path: Path | None, store: Store) -> str | None:
    """A path as seen from the experiment; the name alone if it is elsewhere."""
    if path is None:
        return None
    folder = store.folder.absolute()
    whole = path.absolute()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else path.name
