"""What a run of an experiment would do, and how long its cells are likely to take."""

from __future__ import annotations

from typing import Any

from tfgan_med.experiments.cells import Cell, Store, Work


def of(work: Work, store: Store) -> dict[str, Any]:
    """JSON values: cells with their state, how many are done, seconds that the others take."""
    cells = [_told(cell, work, store) for cell in work.cells]
    seconds = [cell["seconds"] for cell in cells if not cell["done"]]
    return {
        "cells": cells,
        "undecided": work.undecided,
        "done": sum(cell["done"] for cell in cells),
        "seconds": round(sum(filter(None, seconds)), 1),
        "unknown": sum(value is None for value in seconds) + work.undecided,
    }


def _told(cell: Cell, work: Work, store: Store) -> dict[str, Any]:
    done = store.is_done(cell)
    return {
        "cell": cell.name,
        "kind": cell.kind,
        "label": cell.label,
        "steps": cell.steps,
        "state": store.record(cell).get("state", "new"),
        "done": done,
        "seconds": None if done else _estimate(cell, work, store),
    }


def _estimate(cell: Cell, work: Work, store: Store) -> float | None:
    """Seconds, as its finished siblings took: per step of the same system, or each."""
    rates = []
    for other in work.cells:
        if other.kind != cell.kind or not store.is_done(other):
            continue
        seconds = float(store.record(other).get("seconds", 0.0))
        if cell.steps and other.about.get("system") == cell.about.get("system"):
            rates.append(seconds / (other.steps or 1) * cell.steps)
        elif not cell.steps:
            rates.append(seconds)
    return round(sum(rates) / len(rates), 1) if rates else None
