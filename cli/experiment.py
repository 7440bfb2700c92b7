"""`tfgan-med experiment`: arms, or subsets, and repeats from a file to a report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgan_med.errors import UserError

from . import common

if TYPE_CHECKING:
    from tfgan_med.experiments.conducting import Conductor
    from tfgan_med.experiments.running import Ending
    from tfgan_med.experiments.subset_conducting import SubsetConductor

app = typer.Typer(
    name="experiment",
    help="Measure whether synthetic pictures help, or which subset to learn from; with a report.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the experiment.")]


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="The experiment (YAML); by default one on built-in pictures.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take a scale of the file, such as small.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the experiments' folders.")
    ] = Path("experiments"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Run the experiment of CONFIG: train generators, make pictures, train every arm, report.

    A file with the block `subsets` is a subset study: choose few pictures in several ways, train
    generators on each choice, measure what they make, report.

    Every training, generation and measurement is a process with a folder of its own. What is
    finished is never done twice; a changed setting repeats what depends on it. Ctrl-C saves, and
    the same command goes on.

    The whole question on built-in pictures, ten minutes on two cores:

        tfgan-med experiment run

    What would be done, then at a small scale, two processes at a time:

        tfgan-med experiment run configs/chest_skin/tuberculosis.yaml --dry-run

        tfgan-med experiment run configs/chest_skin/tuberculosis.yaml --scale small --jobs 2

    With other repeats; and a subset study:

        tfgan-med experiment run study.yaml --set seeds=[0,1,2,3,4]

        tfgan-med experiment run configs/kss_bsa/kss_bsa.yaml --scale small
    """
    config = config or quickstart()
    if not config.is_file():
        raise UserError(f"{config}: no such file. Name the YAML file of an experiment.")
    again = shlex.join(["tfgan-med", *sys.argv[1:]])
    conductor = _conductor(config, scale, change or [], out, again)
    folder = conductor.called
    if dry_run:
        _say_plan(conductor.dry_run(), as_json, quiet)
        return
    from tfgan_med.experiments.progress import View

    ending = conductor.run(jobs, View(quiet))
    _conclude(ending, folder, again, as_json, quiet)


def _conductor(
    config: Path, scale: str | None, changes: list[str], out: Path, again: str
) -> Conductor | SubsetConductor:
    """Settings are read before TensorFlow is: their faults are told at once."""
    from tfgan_med.experiments import protocol, subset_protocol

    base = config.absolute().parent
    if subset_protocol.is_study(config):
        study = subset_protocol.read(config, scale, changes)
        common.load_tensorflow()
        from tfgan_med.experiments.subset_conducting import SubsetConductor

        return SubsetConductor(study, out / study.experiment, base, scale, again)
    experiment = protocol.read(config, scale, changes)
    common.load_tensorflow()
    from tfgan_med.experiments.conducting import Conductor

    return Conductor(experiment, out / experiment.experiment, base, scale, again)


def quickstart() -> Path:
    """The experiment that comes with the package."""
    import importlib.resources

    place = importlib.resources.files("tfgan_med.configs") / "quickstart" / "experiment.yaml"
    return Path(str(place))


def _say_plan(plan: dict[str, Any], as_json: bool, quiet: bool) -> None:
    from tfgan_med.experiments.conducting import told_plan

    common.emit(plan, told_plan(plan), as_json)
    common.note("Next: the same command without --dry-run.", quiet)


def _conclude(ending: Ending, folder: Path, again: str, as_json: bool, quiet: bool) -> None:
    """Report what came of it; the exit code says whether all went well."""
    if ending.signal is not None:
        common.note(f"Stopped and saved. Next: {again}")
        raise typer.Exit(128 + ending.signal)
    from tfgan_med.experiments.conducting import outcome_lines

    report = _report(folder) if (folder / "summary.json").is_file() else None
    result = {
        "folder": str(folder),
        "report": str(report) if report else None,
        "done": len(ending.done),
        "reused": len(ending.reused),
        "failed": {name: str(log) for name, (_, log) in ending.failed.items()},
        "blocked": ending.blocked,
    }
    lines = [f"{len(ending.done)} cells done, {len(ending.reused)} were there before: {folder}"]
    lines += outcome_lines(folder)
    common.emit(result, "\n".join(lines), as_json)
    if ending.failed:
        _name_failed(ending)
        common.note(f"Next: look at these, then go on with {again}")
        raise typer.Exit(1)
    common.note(f"Next: open {report}" if report else f"Next: {again}", quiet)


def _name_failed(ending: Ending) -> None:
    failed = list(ending.failed.items())
    for name, (code, log) in failed[:3]:
        common.note(f"Failed with {code}: {name}; see {log}")
    if len(failed) > 3:
        common.note(f"and {len(failed) - 3} more")
    if ending.blocked:
        common.note(f"{len(ending.blocked)} cells need these and were not begun.")


def _report(folder: Path) -> Path:
    from tfgan_med.experiments.reading import read_summary

    if read_summary(folder, {}).get("kind") == "subsets":
        from tfgan_med.experiments import subset_report

        return subset_report.write_report(folder)
    from tfgan_med.experiments import report as arms_report

    return arms_report.write_report(folder)


@app.command()
def report(
    folder: Folder,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Write the report of a finished experiment anew: HTML, Markdown, tables and figures.

    Reads summary.json in DIR and measures nothing.

    The report of an experiment:

        tfgan-med experiment report experiments/tuberculosis

    Its path for a script:

        tfgan-med experiment report experiments/tuberculosis --json
    """
    from tfgan_med.experiments.conducting import outcome_lines, require_experiment

    require_experiment(folder)
    page = _report(folder)
    common.emit({"report": str(page)}, "\n".join([str(page), *outcome_lines(folder)]), as_json)
    common.note(f"Next: open {page}", quiet)


@app.command()
def status(
    folder: Folder,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Say how far an experiment is, from its files; it may be running.

    An experiment:

        tfgan-med experiment status experiments/tuberculosis

    Every cell as JSON:

        tfgan-med experiment status experiments/tuberculosis --json
    """
    from tfgan_med.experiments import conducting

    found = conducting.status(folder)
    result = {"states": found.states, "cells": found.cells, "held": found.held}
    common.emit(result, conducting.told_status(folder, found), as_json)
    next_step = f"tfgan-med experiment report {folder}"
    if not found.has_summary:
        next_step = "wait" if found.held else "go on with tfgan-med experiment run CONFIG"
    common.note(f"Next: {next_step}", quiet)
