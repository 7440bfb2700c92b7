"""A cell of an experiment: one process, one folder, named by a hash of all that it depends on.

What is finished is found again by that name: the same settings on the same pictures are never
computed twice, and a changed setting changes the names of what depends on it, and of nothing else.
Files of a cell below `cells/`: its folder, `<name>.yaml` (settings of a training), `<name>.log`
(what the process said), `<name>.json` (state, times, memory).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tfgan_med import files
from tfgan_med.config import Config, as_yaml

FORMAT = 1
"""Raise it when the same settings come to mean something else."""

Kind = Literal["source", "select", "gan", "generate", "measure", "grid", "arm"]


class Work(Protocol):
    """Cells to work off, as a plan has them.

    Attributes:
        cells: in an order in which each follows what it needs.
        undecided: cells that are not known yet.
    """

    @property
    def cells(self) -> tuple[Cell, ...]: ...

    @property
    def undecided(self) -> int: ...

    def by_name(self) -> dict[str, Cell]:
        """The cells by the names of their folders."""
        ...


@dataclass(frozen=True)
class Cell:
    """A piece of work; the process of one cell reads folders of others and writes its own.

    Attributes:
        kind: what it does.
        label: what people call it, such as `vgg16-real+fastgan-s0`.
        key: SHA-256 of everything that its result depends on.
        needs: names of the cells whose folders it reads.
        settings: of a training; None otherwise.
        command: arguments of `tfgan-med` for its folder; None for work of moments, see `job`.
        job: fills its folder without a process of its own.
        output: file below the folder that receives what the process prints.
        steps: of a training.
        about: facts about it that summaries need.
    """

    kind: Kind
    label: str
    key: str
    needs: tuple[str, ...] = ()
    settings: Config | None = None
    command: Callable[[Path], Sequence[str]] | None = None
    job: Callable[[Path], None] | None = None
    output: str | None = None
    steps: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{readable(self.label)}-{self.key[:8]}"


def key_of(kind: Kind, content: Mapping[str, Any], needs: Sequence[Cell] = ()) -> str:
    """The key of a cell.

    Args:
        content: JSON values; paths in it are replaced by hashes of what lies there.
        needs: cells that it reads.
    """
    whole = {"format": FORMAT, "kind": kind, "content": content, "needs": [c.key for c in needs]}
    return digest(whole)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def readable(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._+@-]+", "-", label).strip("-")[:60] or "cell"


class Store:
    """The cells of an experiment on disk.

    Args:
        folder: of the experiment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.cells = self.folder / "cells"

    def path(self, cell: Cell) -> Path:
        """The cell's own folder."""
        return self.cells / cell.name

    def log(self, cell: Cell) -> Path:
        """What its process says."""
        return self._beside(cell, "log")

    def settings_file(self, cell: Cell) -> Path:
        """Settings of a training."""
        return self._beside(cell, "yaml")

    def _beside(self, cell: Cell, suffix: str) -> Path:
        return self.cells / f"{cell.name}.{suffix}"

    # State ----------------------------------------------------------------------------------

    def record(self, cell: Cell) -> dict[str, Any]:
        """What is known of the cell; empty before its first start."""
        try:
            known: dict[str, Any] = files.read_json(self._beside(cell, "json"))
        except (OSError, ValueError):
            return {}
        return known if known.get("key") == cell.key else {}

    def note(self, cell: Cell, **facts: Any) -> None:
        """Add to the record."""
        known = {"key": cell.key, "kind": cell.kind, "label": cell.label, **self.record(cell)}
        files.write_json(self._beside(cell, "json"), {**known, **facts})

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell is finished and its folder still there."""
        return self.record(cell).get("state") == "done" and self.path(cell).is_dir()

    def is_begun(self, cell: Cell) -> bool:
        """Whether a process has worked on it before."""
        return bool(self.record(cell)) and not self.is_done(cell)

    # Starting -------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> list[str]:
        """Write the settings of a training, once; arguments of `tfgan-med`."""
        self.cells.mkdir(parents=True, exist_ok=True)
        if cell.settings is None:
            assert cell.command is not None
            return list(cell.command(self.path(cell)))
        file = self.settings_file(cell)
        if not file.exists():
            files.write_text(file, as_yaml(cell.settings, relative_to=self.cells))
        system = str(cell.settings.model_dump()["system"])
        return ["train", system, "--config", str(file), "--at", str(self.path(cell)), "--quiet"]
