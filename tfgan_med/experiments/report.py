"""Report of an experiment: `summary.json` and `figures/` to one HTML page, Markdown, CSV and LaTeX.

Nothing is measured here. What the summary leaves empty is left out of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.experiments import figures, pages, tables, typesetting, values, wording
from tfgan_med.experiments.drawings import Drawing
from tfgan_med.experiments.reading import read_summary
from tfgan_med.experiments.tables import Json, Table


def write_report(folder: Path) -> Path:
    """Write `report.html`, `report.md`, `tables/` and the figures of an experiment.

    Args:
        folder: of the experiment; files of the same names are replaced.
    Returns:
        Path of the HTML page, which needs no other file.
    Raises:
        UserError: no summary, a damaged one, or one of another format.
    """
    summary = read_summary(folder, _NEEDED)
    report = _Report(folder, summary)
    for name, text in _table_files(summary).items():
        path = folder / "tables" / name
        path.parent.mkdir(exist_ok=True)
        files.write_text(path, text)
    variables = report.common()
    files.write_text(folder / "report.md", pages.markdown("report.md.jinja", folder, variables))
    files.write_text(folder / "report.html", pages.html("report.html.jinja", folder, variables))
    return folder / "report.html"


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
