"""Report of a subset study: `summary.json` and its pictures to one HTML page, Markdown, CSV, LaTeX.

Nothing is measured here. What the summary leaves empty is left out of the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.experiments import (
    pages,
    subset_answer,
    subset_figures,
    subset_tables,
    tables,
    typesetting,
    values,
    wording,
)
from tfgan_med.experiments.drawings import Drawing
from tfgan_med.experiments.reading import SUMMARY, read_summary
from tfgan_med.experiments.subset_tables import picked
from tfgan_med.experiments.tables import Json, Table

KIND = "subsets"

_NEEDED: Mapping[str, Sequence[str]] = {
    "": ("kind", "name", "seeds"),
    "metrics": ("metric", "label"),
    "measures": ("measure", "label"),
    "sets": ("name",),
    "subsets": ("name", "label"),
    "sources": ("name",),
    "generators": ("name",),
    "facts": ("what", "value"),
    "selections": ("set", "subset", "seed", "spread"),
    "spread": ("set", "subset", "measure", "mean"),
    "results": ("set", "subset", "generator", "metric", "mean", "low", "high", "values"),
    "comparisons": ("set", "subset", "generator", "metric", "difference", "verdict"),
    "judgments": ("claim", "source", "verdict"),
    "conclusions": ("claim",),
    "published": ("set", "subset", "metric", "value"),
    "samples": ("set", "subset", "generator", "picture"),
    "reconstructions": ("set", "subset", "generator", "picture"),
    "interpolations": ("set", "subset", "generator", "picture"),
    "scatters": ("set", "picture"),
    "missing": ("set", "subset"),
    "cost": ("cell", "kind"),
    "provenance": ("what",),
}


def write_report(folder: Path) -> Path:
    """Write `report.html`, `report.md`, `tables/` and the figures of a subset study.

    Args:
        folder: of the experiment; files of the same names are replaced.
    Returns:
        Path of the HTML page, which needs no other file.
    Raises:
        UserError: no summary, a damaged one, or one of another kind or format.
    """
    summary = read_summary(folder, _NEEDED)
    if summary["kind"] != KIND:
        raise UserError(
            f"{folder / SUMMARY}: of kind {summary['kind']!r}, expected {KIND!r}. Write its report "
            f"with `tfgan-med experiment report {folder}`."
        )
    for name, text in _table_files(summary).items():
        path = folder / "tables" / name
        path.parent.mkdir(exist_ok=True)
        files.write_text(path, text)
    shown = _variables(folder, summary)
    files.write_text(folder / "report.md", pages.markdown("subset_report.md.jinja", folder, shown))
    files.write_text(folder / "report.html", pages.html("subset_report.html.jinja", folder, shown))
    return folder / "report.html"


# What is shown ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """What one generator made of the subsets of one set."""

    name: str
    results: Table | None
    comparisons: Table | None
    samples: list[Json]
    interpolations: list[Json]
    reconstructions: list[Json]


@dataclass(frozen=True)
class Set:
    """A data set with all that is shown of it."""

    name: str
    facts: Json
    anchor: str
    spread: Table | None
    scatters: list[Json]
    singles: list[Json]
    chosen: list[Json]
    drawings: list[Drawing]
    generators: list[Made]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: what this study and the paper's table say of it."""

    title: str
    ours: str | None
    published: str | None
    judged: Table | None
    printed: Table | None


def _variables(folder: Path, summary: Json) -> dict[str, Any]:
    """Variables of both templates; the figures are drawn here."""
    order = subset_figures.in_order(summary, folder / "figures")
    reference = summary.get("reference")
    return {
        "summary": summary,
        "headline": subset_answer.headline(summary),
        "paragraph": subset_answer.paragraph(summary),
        "of_paper": subset_answer.of_paper(summary),
        "limits": subset_answer.limits(summary),
        "conclusions": subset_tables.conclusions(summary),
        "order": [order] if order else [],
        "facts": subset_tables.facts(summary),
        "set_table": subset_tables.sets(summary),
        "systems": subset_tables.generators(summary),
        "selection": subset_tables.selection(summary),
        "settings": subset_tables.settings(summary),
        "sets": [_set(summary, entry, folder / "figures") for entry in summary.get("sets") or []],
        "claims": [_claim(summary, entry) for entry in summary.get("conclusions") or []],
        "published": subset_tables.published(summary),
        "missing": subset_tables.missing(summary),
        "repeats": _repeats(summary),
        "reference": subset_tables.subset_label(summary, reference) if reference else None,
        "guards": tables.ordered(summary.get("guards") or []),
        "alarms": [],
        "cost": tables.cost(summary),
        "cells": tables.cells(summary),
        "provenance": tables.provenance(summary),
        "environment": tables.environment(summary),
        "wording": wording,
    }


def _set(summary: Json, entry: Json, folder: Path) -> Set:
    name = entry["name"]
    scatters = picked(summary.get("scatters"), set=name)
    drawn = (
        subset_figures.against_spread(summary, name, folder),
        subset_figures.metrics(summary, name, folder),
    )
    selections = _labelled(summary, picked(summary.get("selections"), set=name))
    return Set(
        name=name,
        facts=entry,
        anchor=f"set-{wording.slug(name)}",
        spread=subset_tables.spread(summary, name),
        scatters=[{"caption": _scatter_caption(name), **one} for one in scatters],
        singles=[] if scatters else [one for one in selections if one.get("scatter")],
        chosen=[one for one in selections if one.get("sheet")],
        drawings=[drawing for drawing in drawn if drawing is not None],
        generators=[_made(summary, name, made) for made in summary.get("generators") or []],
    )


def _scatter_caption(name: str) -> str:
    return (
        f"{name}: all pictures (grey) in the plane of the first two principal components, and the "
        "chosen ones of each subset."
    )


def _made(summary: Json, name: str, generator: Json) -> Made:
    def pictures(key: str) -> list[Json]:
        found = picked(summary.get(key), set=name, generator=generator["name"])
        return _labelled(summary, found)

    return Made(
        name=generator["name"],
        results=subset_tables.results(summary, name, generator["name"]),
        comparisons=subset_tables.comparisons(summary, name, generator["name"]),
        samples=pictures("samples"),
        interpolations=pictures("interpolations"),
        reconstructions=pictures("reconstructions"),
    )


def _labelled(summary: Json, entries: Sequence[Json]) -> list[Json]:
    return [
        {**entry, "label": subset_tables.subset_label(summary, entry["subset"])}
        for entry in entries
    ]


def _claim(summary: Json, entry: Json) -> Claim:
    return Claim(
        title=entry.get("title") or entry["claim"],
        ours=(entry.get("ours") or "").rstrip(".") or None,
        published=(entry.get("published") or "").rstrip(".") or None,
        judged=subset_tables.judgments(summary, entry["claim"]),
        printed=subset_tables.published_judgments(summary, entry["claim"]),
    )


def _repeats(summary: Json) -> int:
    """How many repeats there should be, finished or not."""
    chosen = sum(
        len(entry.get("sets") or summary.get("sets") or [])
        for entry in summary.get("subsets") or []
    )
    return chosen * len(summary.get("generators") or []) * len(summary["seeds"])


# Files --------------------------------------------------------------------------------------------

_COLUMNS: Mapping[str, Sequence[str]] = {
    "results": (
        "set", "subset", "generator", "metric", "mean", "sd", "low", "high", "values", "seeds",
    ),
    "comparisons": (
        "set", "subset", "generator", "metric", "difference", "low", "high", "p", "p_adjusted",
        "verdict", "seeds", "sentence",
    ),
    "spread": ("set", "subset", "measure", "mean", "sd", "values"),
    "judgments": (
        "claim", "source", "set", "generator", "metric", "measure", "scope", "subsets", "seeds",
        "agreeing", "holds", "verdict", "statistic", "low", "high", "p", "p_adjusted", "smallest_p",
        "values", "sentence",
    ),
    "published": ("set", "subset", "metric", "value", "sd"),
    "missing": ("set", "subset", "generator", "seed", "reason"),
    "cost": ("cell", "kind", "minutes", "peak_memory_mb", "reused"),
    "provenance": ("what", "path", "sha256"),
}  # fmt: skip


def _table_files(summary: Json) -> dict[str, str]:
    """Name to text of everything in `tables/`: CSV with unrounded numbers, LaTeX."""
    written = {
        f"{key}.csv": values.csv_text(header, list(values.plain_rows(summary, key, header)))
        for key, header in _COLUMNS.items()
    }
    header = ("set", "subset", "seed", "components", "explained", "measure", "value")
    written["selections.csv"] = values.csv_text(header, list(_selection_rows(summary)))
    for table in subset_tables.of(summary):
        written[f"{table.name}.tex"] = typesetting.latex(table, summary["name"])
    return {name: text for name, text in written.items() if text}


def _selection_rows(summary: Json) -> Iterator[Sequence[Any]]:
    for entry in summary.get("selections") or []:
        known = [entry.get(key) for key in ("set", "subset", "seed", "components", "explained")]
        for measure, value in (entry["spread"] or {}).items():
            yield [*known, measure, value]
