"""Numbers of an experiment for other programs: CSV, unrounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from tfgan_med.experiments.tables import Json, flat


def csv_files(summary: Json) -> dict[str, str]:
    """File name to text; numbers are unrounded, an empty cell was not measured."""
    written = {
        "results.csv": (_RESULTS, _result_rows(summary)),
        "comparisons.csv": (_COMPARISONS, _comparison_rows(summary)),
        "generators.csv": (_GENERATORS, _generator_rows(summary)),
        "sweep.csv": (_SWEEP, _of_studies(summary, "sweep", _SWEEP)),
        "grid.csv": (_GRID, _grid_rows(summary)),
        "confusion.csv": (_CONFUSION, _confusion_rows(summary)),
        "curves.csv": (_CURVES, _curve_rows(summary)),
        "cost.csv": (_COST, plain_rows(summary, "cost", _COST)),
        "guards.csv": (_GUARDS, _guard_rows(summary)),
        "provenance.csv": (_PROVENANCE, plain_rows(summary, "provenance", _PROVENANCE)),
    }
    texts = {name: csv_text(header, list(rows)) for name, (header, rows) in written.items()}
    return {name: text for name, text in texts.items() if text}


_RESULTS = ("study", "arm", "metric", "mean", "sd", "low", "high", "values")
_COMPARISONS = (
    "study", "arm", "reference", "metric", "difference", "low", "high", "p", "p_adjusted", "test",
    "field_test", "field_p", "verdict", "detectable", "sentence",
)  # fmt: skip
_GENERATORS = ("generator", "metric", "value", "low", "high", "about")
_SWEEP = ("study", "generator", "arm", "ratio", "metric", "mean", "low", "high")
_GRID = ("study", "settings", "metric", "value", "chosen")
_CONFUSION = ("study", "arm", "truth", "predicted", "count")
_CURVES = ("study", "arm", "seed", "metric", "step", "value")
_COST = ("cell", "kind", "minutes", "peak_memory_mb", "training_share", "reused")
_GUARDS = ("name", "status", "message", "items")
_PROVENANCE = ("what", "path", "sha256")

Row = Sequence[Any]


def csv_text(header: Sequence[str], rows: Sequence[Row]) -> str:
    """A table with unrounded numbers; nothing without rows."""
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain_cell(cell) for cell in row] for row in rows)
    return stream.getvalue()


def _plain_cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, list | tuple):
        return ";".join(_plain_cell(entry) for entry in cell)
    return repr(cell) if isinstance(cell, float) else str(cell)


def _studies(summary: Json) -> Iterator[tuple[str, Json]]:
    for study in summary.get("studies") or []:
        yield study["downstream"], study


def plain_rows(summary: Json, key: str, header: Sequence[str]) -> Iterator[Row]:
    """Entries of a list of the summary, a cell for each heading."""
    for entry in summary.get(key) or []:
        yield [entry.get(name) for name in header]


def _of_studies(summary: Json, key: str, header: Sequence[str]) -> Iterator[Row]:
    for name, study in _studies(summary):
        for entry in study.get(key) or []:
            yield [name, *(entry.get(column) for column in header[1:])]


def _result_rows(summary: Json) -> Iterator[Row]:
    return _of_studies(summary, "results", _RESULTS)


def _comparison_rows(summary: Json) -> Iterator[Row]:
    for name, study in _studies(summary):
        for entry in study.get("comparisons") or []:
            known = {**entry, "study": name, "reference": study.get("reference")}
            yield [known.get(column) for column in _COMPARISONS]


def _generator_rows(summary: Json) -> Iterator[Row]:
    for made in summary.get("generators") or []:
        for entry in made.get("metrics") or []:
            yield [made["name"], *(entry.get(column) for column in _GENERATORS[1:])]


def _grid_rows(summary: Json) -> Iterator[Row]:
    for name, study in _studies(summary):
        for entry in study.get("grid") or []:
            settings = ";".join(f"{key}={text}" for key, text in flat(entry["settings"]))
            yield [name, settings, entry["metric"], entry["value"], bool(entry.get("chosen"))]


def _confusion_rows(summary: Json) -> Iterator[Row]:
    for name, study in _studies(summary):
        for entry in study.get("confusion") or []:
            for truth, row in zip(entry["classes"], entry["matrix"], strict=True):
                for predicted, count in zip(entry["classes"], row, strict=True):
                    yield [name, entry["arm"], truth, predicted, count]


def _curve_rows(summary: Json) -> Iterator[Row]:
    for name, study in _studies(summary):
        for entry in study.get("curves") or []:
            for step, value in zip(entry["steps"], entry["values"], strict=True):
                yield [name, entry["arm"], entry["seed"], entry["metric"], step, value]


def _guard_rows(summary: Json) -> Iterator[Row]:
    for guard in summary.get("guards") or []:
        yield [guard["name"], guard["status"], guard.get("message"), guard.get("items") or []]
