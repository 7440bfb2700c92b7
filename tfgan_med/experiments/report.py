"""Report of an experiment: `summary.json` and `figures/` to one HTML page, Markdown, CSV and LaTeX.

Nothing is measured here. What the summary leaves empty is left out of the report.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.experiments import figures, tables, typesetting, values, wording
from tfgan_med.experiments.figures import Drawing
from tfgan_med.experiments.tables import Json, Table

SUMMARY, FORMAT = "summary.json", 1

_LARGEST_SIDE = 1600  # pixels of a picture in the page
_LARGEST_PNG = 300_000  # bytes; beyond, a JPEG is as good to look at
_PACKAGE = "tfgan_med.experiments"


def write_report(folder: Path) -> Path:
    """Write `report.html`, `report.md`, `tables/` and the figures of an experiment.

    Args:
        folder: of the experiment; files of the same names are replaced.
    Returns:
        Path of the HTML page, which needs no other file.
    Raises:
        UserError: no summary, a damaged one, or one of another format.
    """
    summary = read_summary(folder)
    report = _Report(folder, summary)
    for name, text in _table_files(summary).items():
        path = folder / "tables" / name
        path.parent.mkdir(exist_ok=True)
        files.write_text(path, text)
    files.write_text(folder / "report.md", _markdown(report))
    files.write_text(folder / "report.html", _html(report))
    return folder / "report.html"


# Reading ------------------------------------------------------------------------------------------

_NEEDED: Mapping[str, Sequence[str]] = {
    "": ("name", "studies"),
    "arms": ("name",),
    "generators": ("name",),
    "generators.metrics": ("metric", "value"),
    "studies": ("downstream", "reference", "main", "metrics"),
    "studies.results": ("arm", "metric", "mean", "low", "high", "values"),
    "studies.comparisons": (
        "arm", "metric", "difference", "low", "high", "p", "p_adjusted", "verdict", "detectable",
    ),
    "studies.confusion": ("arm", "classes", "matrix"),
    "studies.curves": ("arm", "seed", "metric", "steps", "values"),
    "studies.examples": ("arm", "picture"),
    "studies.sweep": ("generator", "ratio", "metric", "mean", "low", "high"),
    "studies.grid": ("settings", "metric", "value"),
    "guards": ("name", "status"),
    "cost": ("cell", "kind"),
    "provenance": ("what",),
}  # fmt: skip


def read_summary(folder: Path) -> Json:
    """`summary.json` of an experiment.

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
    lacking = [fault for place in _NEEDED for fault in _lacking(summary, place)]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(f"{path}: damaged ({', '.join(lacking[:3])}{more} missing). {again}")
    return summary


def _lacking(summary: Json, place: str) -> Iterator[str]:
    """Keys that objects at a place should have, as `studies[0].results[2].low`."""
    for name, entry in _entries(summary, place.split(".") if place else [], ""):
        if not isinstance(entry, Mapping):
            yield name or "everything"
            continue
        yield from (f"{name}.{key}".lstrip(".") for key in _NEEDED[place] if key not in entry)


def _entries(above: Any, keys: Sequence[str], name: str) -> Iterator[tuple[str, Any]]:
    """All objects that a path of lists leads to, with their names."""
    if not keys:
        yield name, above
        return
    below = (above.get(keys[0]) if isinstance(above, Mapping) else None) or []
    for i, entry in enumerate(below if isinstance(below, list) else []):
        yield from _entries(entry, keys[1:], f"{name}.{keys[0]}[{i}]".lstrip("."))


# What is shown ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The answer for one arm, in words."""

    arm: str
    verdict: str
    difference: str
    sentence: str


@dataclass(frozen=True)
class Study:
    """A downstream model with all that is shown of it."""

    facts: Json
    anchor: str
    headline: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    settings: Table
    results: Table | None
    comparisons: Table | None
    differences: Table | None
    sweep: Table | None
    grid: Table | None
    drawings: dict[str, list[Drawing]]


class _Report:
    """What both the page and the Markdown text show; the figures are drawn here."""

    def __init__(self, folder: Path, summary: Json) -> None:
        self.folder = folder
        self.summary = summary
        self.studies = [_study(study, folder / "figures") for study in summary["studies"] or []]
        self.guards = tables.ordered(summary.get("guards") or [])
        self.alarms = [g for g in self.guards if g["status"] in ("violated", "allowed")]

    def common(self) -> dict[str, Any]:
        """Variables of both templates."""
        summary = self.summary
        return {
            "summary": summary,
            "studies": self.studies,
            "guards": self.guards,
            "alarms": self.alarms,
            "arms": tables.arms(summary),
            "splits": tables.splits(summary.get("data") or {}),
            "generators": tables.generators(summary),
            "cost": tables.cost(summary),
            "cells": tables.cells(summary),
            "provenance": tables.provenance(summary),
            "environment": tables.environment(summary),
            "wording": wording,
        }


def _study(study: Json, folder: Path) -> Study:
    found = _verdicts(study)
    return Study(
        facts=study,
        anchor=f"study-{wording.slug(study['downstream'])}",
        headline=headline(found, study["reference"]),
        verdicts=found,
        settings=tables.settings(study),
        results=tables.results(study),
        comparisons=tables.comparisons(study),
        differences=tables.differences(study),
        sweep=tables.sweep(study),
        grid=tables.grid(study),
        drawings=figures.of(study, folder),
    )


def _verdicts(study: Json) -> tuple[Verdict, ...]:
    """Every arm but the reference, in the order of the results, by the main metric."""
    main = study["main"]
    compared = {e["arm"]: e for e in study.get("comparisons") or [] if e["metric"] == main}
    arms = [*(result["arm"] for result in study.get("results") or []), *compared]
    shown = [arm for arm in dict.fromkeys(arms) if arm != study["reference"]]
    return tuple(_verdict(arm, compared.get(arm), main) for arm in shown)


def _verdict(arm: str, entry: Json | None, main: str) -> Verdict:
    if entry is None or not entry["verdict"]:
        return Verdict(arm, wording.MISSING, "", "This arm was not compared.")
    number = wording.difference(main, entry["difference"])
    text = wording.difference(main, entry["difference"], entry["low"], entry["high"])
    said = _sentence(entry, main)
    shown = "" if number in said else f"{wording.label(main)} {text}"  # not the same number twice
    return Verdict(arm, entry["verdict"], shown, said)


def _sentence(entry: Json, main: str) -> str:
    """What is said of a comparison, with the smallest effect that it could have shown."""
    told = (entry.get("sentence") or "").removeprefix(f"{entry['verdict']}: ").rstrip(".")
    sentences = [f"{told[0].upper()}{told[1:]}."] if told else []
    if entry["detectable"] is not None and "could have shown" not in told:
        smallest = wording.points(main, entry["detectable"])
        sentences.append(f"The smallest effect this test set could have shown is {smallest}.")
    return " ".join(sentences)


def headline(found: Sequence[Verdict], reference: str) -> tuple[str, ...]:
    """The answer in one to three short sentences."""
    given = {
        verdict: [entry.arm for entry in found if entry.verdict == verdict]
        for verdict in ("helps", "hurts", "cannot tell")
    }
    helping, hurting, unknown = given.values()
    if not helping and not hurting and not unknown:
        return ("No arm was compared.",)
    said = [f"{_listed(helping)} {'helps' if len(helping) == 1 else 'help'}."] if helping else []
    if hurting:
        said.append(f"{_listed(hurting)} {'hurts' if len(hurting) == 1 else 'hurt'}.")
    if unknown and not said:
        said.append(f"Cannot tell: no arm differs from {reference} by more than chance may.")
    elif unknown:
        arms = "one arm" if len(unknown) == 1 else f"{len(unknown)} arms"
        said.append(f"For {arms}, this test cannot tell.")
    return tuple(said)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Files --------------------------------------------------------------------------------------------


def _table_files(summary: Json) -> dict[str, str]:
    """Name to text of everything in `tables/`."""
    name = summary["name"]
    latex = {f"{table.name}.tex": typesetting.latex(table, name) for table in tables.of(summary)}
    return {**values.csv_files(summary), **latex}


def _html(report: _Report) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_template("report.html.jinja"))
    folder = report.folder
    return template.render(
        **report.common(),
        picture=lambda path: embedded(folder, path),
        drawing=lambda name: figures.inline_svg(folder / "figures" / f"{name}.svg"),
    )


class _Markdown(str):
    """Text that is Markdown already."""


def _markdown(report: _Report) -> str:
    """Every text goes through the escape but those made here."""
    environment = jinja2.Environment(
        autoescape=False,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda text: (
            text if isinstance(text, _Markdown) else typesetting.escape_markdown(str(text))
        ),
    )
    template = environment.from_string(_template("report.md.jinja"))
    return template.render(
        **report.common(),
        table=lambda table: _Markdown(typesetting.markdown(table)),
        code=lambda text: _Markdown(typesetting.fenced(text)),
        picture=lambda path, words: _Markdown(_linked(report.folder, path, words)),
        drawing=lambda one: _Markdown(
            _linked(report.folder, f"figures/{one.name}.png", one.caption)
        ),
    )


def _linked(folder: Path, path: str | None, words: str) -> str:
    """A relative link to a picture with its caption, or what is missing."""
    text = typesetting.escape_markdown(words)
    if not path:
        return ""
    if _inside(folder, path) is None:
        return f"*Picture {typesetting.escape_markdown(path)} is missing.*"
    return f"![{text}](<{path}>)\n\n*{text}*"


def _template(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


# Pictures in the page -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, with its size in pixels; `source` is empty if it is missing."""

    source: str
    width: int = 0
    height: int = 0
    path: str = ""


def embedded(folder: Path, path: str | None) -> Embedded | None:
    """A picture of the experiment made small enough for a page; None where there is none to show.

    Args:
        folder: of the experiment.
        path: relative to it; one that leads out of it counts as missing.
    """
    if not path:
        return None
    where = _inside(folder, path)
    if where is None:
        return Embedded("", path=path)
    try:
        with Image.open(where) as opened:
            picture = _flattened(opened)
    except (OSError, Image.DecompressionBombError):
        return Embedded("", path=path)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE * 4), Image.Resampling.LANCZOS)
    kind, data = _packed(picture)
    text = base64.b64encode(data).decode("ascii")
    return Embedded(f"data:image/{kind};base64,{text}", picture.width, picture.height, path)


def _inside(folder: Path, path: str) -> Path | None:
    """The file, if it is one of the experiment's."""
    where = (folder / path).resolve()
    return where if where.is_relative_to(folder.resolve()) and where.is_file() else None


def _flattened(picture: Image.Image) -> Image.Image:
    """Grey or RGB, transparent parts white."""
    if picture.mode == "L":
        return picture.copy()
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _packed(picture: Image.Image) -> tuple[str, bytes]:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    if stream.tell() <= _LARGEST_PNG:
        return "png", stream.getvalue()
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, optimize=True)
    return "jpeg", stream.getvalue()
