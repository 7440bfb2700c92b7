"""`check`: what is in a data set, and what would make training wrong."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tfgan_med import files
from tfgan_med.errors import UserError

from . import common

if TYPE_CHECKING:
    from tfgan_med.data.check import Finding, Report

SHOWN = 3  # findings of a kind that are printed; check.json has all
JOINT = ("splits", "mixed")  # errors of the set as a whole, which leaving items out does not cure


def check(
    data: Annotated[str, typer.Argument(help="Folder, CSV table or builtin:NAME.")],
    layout: Annotated[
        str, typer.Option(help="How the folder is laid out, if looking does not tell.")
    ] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Name of a column in a CSV table; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and overview.png.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files in --out.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unusable items out, as training would.")
    ] = False,
    mode: Annotated[
        Literal["auto", "gray", "rgb"], typer.Option(help="Channels that training will use.")
    ] = "auto",
    split: Annotated[
        Literal["auto", "given", "random", "group"],
        typer.Option(help="Whether training takes the splits of the data or makes its own."),
    ] = "auto",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pictures with more pixels are not decoded.")
    ] = 100_000_000,
    json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Look at every file of DATA before training: counts, sizes, values, faults, duplicates.

    Prints a report and writes it as check.json with a picture of eight items, overview.png, to
    --out or to a new folder check-NAME here. The data are only read. Exit code 1 if something
    would make training wrong.

    Examples:

      tfgan-med check my-images

      tfgan-med check table.csv --columns file=picture --columns group=patient --json
    """
    from tfgan_med.data import check as checking
    from tfgan_med.data import opening, overview, splits
    from tfgan_med.data.records import DataConfig

    config = DataConfig(
        path=data,
        layout=layout,
        columns=_pairs(columns or []),
        mode=mode,
        split=split,
        skip_bad=skip_bad,
        max_pixels=max_pixels,
    )
    images = splits.assign(opening.open_set(config), config)
    folder = _out_folder(out, force, images.root)
    with _progress(quiet) as progress:
        report = checking.check(config, progress)

    common.emit(report.as_json(), "", True) if json else _show(report)
    if folder is None:
        common.note("Nothing written: this folder belongs to the data. Name another: --out.", quiet)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "check.json", report.as_json())
        shown = overview.overview(images, folder / "overview.png", config)
        picture = f" and overview.png ({shown} items)" if shown else ""
        common.note(f"Wrote {folder}: check.json{picture}.", quiet)
    common.note(_next(report, data), quiet)
    if not report.ok:
        raise typer.Exit(1)


def _pairs(columns: list[str]) -> dict[str, str]:
    """`OURS=THEIRS` as a mapping."""
    found = {}
    for pair in columns:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UserError(
                f"--columns {pair}: OURS=THEIRS is expected. Write for example --columns "
                "file=picture."
            )
        found[ours.strip()] = theirs.strip()
    return found


def _out_folder(out: Path | None, force: bool, root: Path) -> Path | None:
    """Where the report goes: never into the data, never over other files unless asked."""
    if out is not None:
        if out.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"--out {out}: lies in the data folder, which stays as it is. Name another."
            )
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file; a folder is expected. Name another.")
        if not force and any((out / name).exists() for name in ("check.json", "overview.png")):
            raise UserError(f"--out {out}: holds a report already. Name another, or add --force.")
        return out
    if Path.cwd().is_relative_to(root.resolve()):
        return None
    name = f"check-{root.resolve().name}"
    numbered = (Path(name if number == 1 else f"{name}-{number}") for number in range(1, 10**6))
    return next(folder for folder in numbered if not folder.exists())


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, at a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading pictures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(report: Report) -> None:
    """Print the report for people: tables first, faults last."""
    splits = "given" if report.splits_given else "made by us, as training would"
    typer.echo(f"{report.name}: {report.items} items, layout {report.layout}, splits {splits}\n")
    rows = [
        [label, *(str(count) for count in counts.values()), str(sum(counts.values()))]
        for label, counts in report.counts.items()
    ]
    if report.groups:
        groups = [str(count) for count in report.groups.values()]
        rows.append(["(groups)", *groups, str(sum(report.groups.values()))])
    _table(["class", *report.counts["all"], "sum"], rows)
    _table(
        ["files", "size", "pixels", "values"],
        [
            [role, _some(report.sizes[role]), _some(report.modes[role]), f"{low:g} .. {high:g}"]
            for role, (low, high) in report.ranges.items()
        ],
    )
    _list("Error", "red", report.errors)
    _list("Warning", "yellow", report.warnings)
    errors, warnings = len(report.errors), len(report.warnings)
    verdict = "Training would go wrong" if errors else "Fit for training"
    typer.echo(f"{verdict}: {_count(errors, 'error')}, {_count(warnings, 'warning')}.")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn at a terminal, aligned text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*header)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
    typer.echo()


def _list(level: str, color: str, findings: Sequence[Finding]) -> None:
    """Findings by kind, three of each."""
    from tfgan_med.data.check import by_kind

    for kind, found in by_kind(findings).items():
        typer.secho(f"{level}: {kind} ({len(found)})", fg=color if sys.stdout.isatty() else None)
        for finding in found[:SHOWN]:
            typer.echo(f"  {finding}")
        if len(found) > SHOWN:
            typer.echo(f"  and {len(found) - SHOWN} more, see check.json")
        typer.echo()


def _some(tally: Mapping[str, int]) -> str:
    """The most frequent sizes or modes with their numbers."""
    parts = [f"{value} ({count})" for value, count in list(tally.items())[:SHOWN]]
    rest = len(tally) - SHOWN
    return ", ".join(parts) + (f" and {rest} more" if rest > 0 else "")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _next(report: Report, data: str) -> str:
    """What to do next, in one line."""
    unusable = any(not finding.kind.endswith(JOINT) for finding in report.errors)
    if report.ok:
        paired = len(report.ranges) > 1
        start = "train pix2pix " if paired else "train MODEL "
        return f"Next: tfgan-med {start}--data {shlex.quote(data)}"
    if unusable:
        return "Next: repair these files and check again, or see what is left with --skip-bad."
    return "Next: repair this and check again."
