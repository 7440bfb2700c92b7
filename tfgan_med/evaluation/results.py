"""Where results are kept: `results.jsonl` of a run, a CSV file of the user's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfgan_med.errors import UserError
from tfgan_med.metrics.base import Result

COLUMNS = (
    "metric", "value", "low", "high", "spread", "spread_of", "reference", "reference_of", "better",
    "protocol", "extractor", "weights_sha256", "dimension", "count_real", "count_fake",
    "height", "width", "color", "black", "white", "settings", "real", "fake", "seed", "version",
)  # fmt: skip
"""Columns of a CSV file of results; `low` and `high` are the ends of the interval."""

_MEANING = ("protocol", "extractor", "weights_sha256", "dimension", "settings")
"""What one name must have in common within a file."""


def note_results(run: Path, results: Sequence[Result]) -> Path:
    """Append results to `results.jsonl` of a run.

    Raises:
        UserError: the file has one of the names with another protocol; nothing is written.
    """
    path = run / "results.jsonl"
    _require_one_meaning(path, read_results(run), [result.to_json() for result in results])
    lines = [json.dumps(r.to_json(), ensure_ascii=False, allow_nan=False) for r in results]
    with path.open("a", encoding="utf-8") as stream:
        stream.write("".join(f"{line}\n" for line in lines))
    return path


def read_results(run: Path) -> Sequence[dict[str, Any]]:
    """What was measured on a run so far, oldest first."""
    path = run / "results.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def check_csv(path: Path) -> None:
    """Whether results can be appended; to be asked before hours of measuring.

    Raises:
        UserError: the file has other columns, or cannot be written.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: no file in an existing folder. Give a file such as results.csv.")
    if path.exists() and path.stat().st_size:
        _read_csv(path)


def append_csv(path: Path, results: Sequence[Result]) -> Path:
    """Append a line for each result; the header comes with the first.

    Raises:
        UserError: other columns, or one of the names with another protocol; nothing is written.
    """
    check_csv(path)
    exists = path.exists() and path.stat().st_size > 0
    rows = [_row(result) for result in results]
    _require_one_meaning(path, _read_csv(path) if exists else [], rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not exists:
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text.getvalue())  # at once: an interrupted command leaves no half line
    return path


def _row(result: Result) -> dict[str, str]:
    interval = result.interval
    cells = {
        **{name: getattr(result, name) for name in COLUMNS if hasattr(result, name)},
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "height": result.image_size[0],
        "width": result.image_size[1],
        "black": result.value_range[0],
        "white": result.value_range[1],
        "settings": json.dumps(result.settings, sort_keys=True),
    }
    return {name: "" if cells[name] is None else str(cells[name]) for name in COLUMNS}


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = tuple(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}). Give another file.") from None
    if columns != COLUMNS:
        raise UserError(
            f"{path}: has other columns than results ({', '.join(columns[:4])} ...). Nothing was "
            "written; give another file."
        )
    return rows


def _require_one_meaning(
    path: Path, before: Iterable[Mapping[str, Any]], added: Sequence[Mapping[str, Any]]
) -> None:
    """A file never holds two numbers of one name that mean different things."""
    known = {row["metric"]: row for row in before}
    for row in added:
        old = known.get(row["metric"])
        if old is None:
            continue
        for name in _MEANING:
            if _plain(old.get(name)) != _plain(row[name]):
                raise UserError(
                    f"{path.name}: holds {row['metric']} with {name} {old.get(name)}; the new one "
                    f"has {row[name]}. One name must mean one thing, so nothing was added. Give "
                    "another file with --csv."
                )


def _plain(value: Any) -> str:
    """One spelling for what JSON and CSV give back."""
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return str(value)
