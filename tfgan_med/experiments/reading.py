"""Reading `summary.json`: there, whole, of this format, with the keys that a report needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.experiments.tables import Json

SUMMARY, FORMAT = "summary.json", 1


def read_summary(folder: Path, needed: Mapping[str, Sequence[str]]) -> Json:
    """`summary.json` of an experiment.

    Args:
        folder: of the experiment.
        needed: keys that objects must have, by where they are: `""` for the whole,
            `"studies.results"` for each entry of that list in each entry of `studies`.
    Raises:
        UserError: not there, damaged, or of another format; the message names the file.
    """
    path = folder / SUMMARY
    again = "Finish or repeat the experiment: tfgan-med experiment run CONFIG."
    try:
        summary = files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path}: not there. A report needs the summary of a finished experiment. {again}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({error}). {again}") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path}: damaged (no JSON object). {again}")
    if summary.get("format") != FORMAT:
        by = f" by tfgan_med {summary['version']}" if summary.get("version") else ""
        raise UserError(
            f"{path}: written{by} in format {summary.get('format')!r}; this version reads format "
            f"{FORMAT}. {again}"
        )
    lacking = [fault for place in needed for fault in _lacking(summary, place, needed[place])]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(f"{path}: damaged ({', '.join(lacking[:3])}{more} missing). {again}")
    return summary


def _lacking(summary: Json, place: str, keys: Sequence[str]) -> Iterator[str]:
    """Keys that objects at a place should have, as `studies[0].results[2].low`."""
    for name, entry in _entries(summary, place.split(".") if place else [], ""):
        if not isinstance(entry, Mapping):
            yield name or "everything"
            continue
        yield from (f"{name}.{key}".lstrip(".") for key in keys if key not in entry)


def _entries(above: Any, keys: Sequence[str], name: str) -> Iterator[tuple[str, Any]]:
    """All objects that a path of lists leads to, with their names."""
    if not keys:
        yield name, above
        return
    below = (above.get(keys[0]) if isinstance(above, Mapping) else None) or []
    for i, entry in enumerate(below if isinstance(below, list) else []):
        yield from _entries(entry, keys[1:], f"{name}.{keys[0]}[{i}]".lstrip("."))
