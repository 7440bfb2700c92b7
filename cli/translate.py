"""`tfgan-med translate`: pictures from pictures with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfgan_med.errors import UserError

from . import common

if TYPE_CHECKING:
    from tfgan_med.training.translation import Direction

Run = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, its number, or last.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder to make; by default inside the run folder."),
]
Checkpoint = Annotated[str, typer.Option(help="final, latest or best.")]
Way = Annotated[
    str | None,
    typer.Option("--direction", metavar="a2b|b2a", help="Of a run that translates both ways."),
]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folders.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output folder.")]


def translate(
    run: Run = "last",
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="PATH", help="Conditions; by default the run's own data."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Own data of the run: train, val, test or all.")
    ] = "test",
    direction: Way = None,
    out: Out = None,
    stochastic: Annotated[
        int, typer.Option(metavar="N", min=1, help="Pictures per condition, with dropout noise.")
    ] = 1,
    checkpoint: Checkpoint = "final",
    seed: Annotated[int, typer.Option(help="Of the dropout noise.")] = 0,
    runs: Runs = Path("runs"),
    force: Force = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Translate conditions with a trained RUN into a folder that is used like a real data set.

    The pictures keep the size and type of their conditions (but with `fit: crop`), the condition
    is stored beside each, and provenance.json says where they come from.

    The test split of the newest run:

        tfgan-med translate last

    Your own masks, three pictures of each:

        tfgan-med translate 7 --input masks/ --stochastic 3 --out synthetic/

    A run on two kinds of pictures, from B to A:

        tfgan-med translate last --direction b2a --out healthy/
    """
    common.load_tensorflow()
    from tfgan_med.training import run_folder

    path = run_folder.find_run(run, runs)
    target = out or path / "translated" / folder_name(path, source, split, direction)
    translate_into(target, path, source, split, direction, stochastic, None, checkpoint, seed,
                   force, as_json, quiet)  # fmt: skip


def folder_name(run: Path, source: str | None, split: str, direction: str | None) -> str:
    """Where a run keeps what it made: by conditions and, if it goes both ways, direction."""
    from tfgan_med.training import sampling

    name = Path(source).stem if source else split
    both_ways = sampling.kind_of(run) == "domains"
    return f"{name}-{direction or 'a2b'}" if both_ways else name


def translate_into(
    target: Path,
    run: Path,
    source: str | None,
    split: str,
    direction: str | None,
    samples: int,
    count: int | None,
    checkpoint: str,
    seed: int,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Translate into a folder and say so; with `count`, as many pictures as that."""
    check_one_of("--split", split, "train", "val", "test", "all")
    check_one_of("--checkpoint", checkpoint, "final", "latest", "best")
    check_target(target, force)
    from tfgan_med.training import translation

    translator = translation.Translator(run, checkpoint, as_direction(direction))
    items = translation.conditions(translator, source, split)
    if count is not None:
        samples = -(-count // len(items))
        items = items[: -(-count // samples)]
    with common.counting("Translating", len(items), quiet) as progress:
        made = translation.translate_folder(
            translator,
            items,
            target,
            samples=samples,
            seed=seed,
            limit=count,
            replace=force,
            progress=progress,
        )
    result = {"folder": str(target), "pictures": made, "run": str(run)}
    common.emit(result, f"{made} pictures: {target}", as_json)
    common.note(
        f"Next: look at them; every command takes the folder: tfgan-med check {target}", quiet
    )


def as_direction(text: str | None) -> Direction | None:
    """The value of --direction, checked."""
    if text is None:
        return None
    check_one_of("--direction", text, "a2b", "b2a")
    return "a2b" if text == "a2b" else "b2a"


def check_one_of(option: str, value: str, *known: str) -> None:
    """UserError for another value, with those that an option takes."""
    if value not in known:
        raise UserError(f"{option} {value}: expected one of {', '.join(known)}.")


def check_target(target: Path, force: bool, ours: str = "provenance.json") -> None:
    """UserError if a folder exists and may not be replaced, or is none that we made.

    Args:
        ours: file that every folder of ours of this kind has.
    """
    if not target.exists():
        return
    if not force:
        raise UserError(
            f"{target}: exists. Name another folder with --out, or replace it with --force."
        )
    empty = target.is_dir() and not any(target.iterdir())
    if not empty and not (target / ours).is_file():
        raise UserError(
            f"{target}: has no {ours}, so we did not make it and --force will not delete it. Name "
            "another folder with --out, or delete it yourself."
        )
