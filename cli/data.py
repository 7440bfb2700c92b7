"""`tfgan-med data`: the sets of published studies, from their original downloads to our layout."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfgan_med import discovery
from tfgan_med.errors import UserError

from . import common

if TYPE_CHECKING:
    from tfgan_med.data.importing import Imported

RECIPES = "tfgan_med.data.recipes"

app = typer.Typer(
    name="data",
    help="Import the data sets of published studies.",
    no_args_is_help=True,
)


@app.callback()
def data() -> None:
    """Import the data sets of published studies."""


def recipe_names(incomplete: str) -> list[str]:
    """Completion of names of recipes."""
    return [name for name in discovery.available(RECIPES) if name.startswith(incomplete)]


@app.command("list")
def list_(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Set to describe in full. [default: a line for each]", autocompletion=recipe_names
        ),
    ] = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Which data sets can be imported, and where they come from; opens no connection.

    A line for each:

        tfgan-med data list

    Origin, addresses, citation, licence and what to beware of:

        tfgan-med data list tuberculosis_xrays
    """
    known = discovery.available(RECIPES)
    if name is not None and name not in known:
        raise UserError(discovery.unknown(name, "data set", known))
    width = max(map(len, known))
    for one in [name] if name else known:
        about = discovery.summary(RECIPES, one)
        facts = {"name": one, "about": about, **(_described(one) if name or as_json else {})}
        text = _text(facts) if name else f"{one:<{width}}  {about}"
        common.emit(facts, text, as_json)
    wanted = name or known[0]
    common.note(f"Next: tfgan-med data import {wanted} ARCHIVE...", quiet)


def _described(name: str) -> dict[str, object]:
    from tfgan_med.data import importing

    recipe = importing.recipe(name)
    source = recipe.SOURCE
    return {
        "origin": source.origin,
        "pages": list(source.pages),
        "citation": source.citation,
        "licence": source.licence,
        "notes": list(source.notes),
        "items": dict(recipe.EXPECTED),
        "downloads": [{"url": d.url, "megabytes": d.megabytes} for d in source.downloads],
    }


def _text(facts: Mapping[str, object]) -> str:
    lines = [f"{facts['name']}: {facts['about']}"]
    for key in ("origin", "citation", "licence"):
        lines.append(f"  {key}: {facts[key]}")
    for key, word in (("pages", "from"), ("notes", "note")):
        lines += [f"  {word}: {one}" for one in facts[key]]  # type: ignore[attr-defined]
    return "\n".join(lines)


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Set, see `data list`.", autocompletion=recipe_names)],
    archives: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[ARCHIVE]", help="Downloaded .zip or .tar.gz files, or folders with them."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; by default one with the set's name here.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the archives from where they are published.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder --out.")] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Make a data set of our layout from the original archives of a study.

    Copies the pictures into class folders, or images/ and masks/, writes splits.csv with as many
    items in each split as the study had, and SOURCE.md with origin, citation and licence. Counts
    are compared with the published ones. A connection is opened with --download only.

    From archives that you have, or the folder that holds them:

        tfgan-med data import tuberculosis_xrays NLM-MontgomeryCXRSet.zip ChinaSet_AllFiles.zip

        tfgan-med data import covid_radiography downloads/ --out pneumonia

    With network, where no account is needed:

        tfgan-med data import isic2018_lesions --download
    """
    from tfgan_med.data import importing

    recipe = importing.recipe(name)
    if bool(archives) == download:
        given = "Give either the archives or --download." if download else "No archive is given."
        raise UserError(f"{name}: {given} {importing.where_from(name)}")
    target = out or Path(name)
    if target.exists() and not force:
        raise UserError(f"{target}: exists. Name another folder with --out, or add --force.")
    paths = _fetched(name, quiet) if download else archives or []
    with common.counting("Writing files", 1, quiet) as progress:
        made = importing.import_set(name, paths, target, force, progress)
    result = {
        "set": name,
        "folder": str(made.folder),
        "counts": made.counts,
        "expected": made.expected,
        "warnings": list(made.warnings),
    }
    common.emit(result, _counts(made), as_json)
    for warning in made.warnings:
        common.note(f"Warning: {warning}")
    mode = f" --mode {recipe.SOURCE.mode}" if recipe.SOURCE.mode else ""
    common.note(f"Next: tfgan-med check {shlex.quote(str(target))}{mode}", quiet)


def _fetched(name: str, quiet: bool) -> list[Path]:
    """The archives of a set, downloaded; says to where the connections go."""
    from tfgan_med.data import downloads, importing

    wanted = importing.recipe(name).SOURCE.downloads
    if not wanted:
        raise UserError(f"{name}: {importing.where_from(name)}")
    paths = []
    for one in wanted:
        common.note(f"Downloading {one.url} (about {one.megabytes} MB)", quiet)
        with common.counting(one.file, one.megabytes * 10**6, quiet) as progress:
            paths.append(downloads.fetch(one, progress))
    common.note(f"The archives stay in {downloads.store()}; delete them when you like.", quiet)
    return paths


def _counts(made: Imported) -> str:
    """A table of items by class and split beside the published number."""
    header = ("class", "train", "val", "test", "sum", "published")
    rows = [
        (
            label,
            *map(str, by_split.values()),
            str(sum(by_split.values())),
            str(made.expected.get(label, "")),
        )
        for label, by_split in made.counts.items()
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([f"{made.folder}", *lines])
