"""`tfgan-med translate` and `generate`: pictures from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfgan_med.errors import UserError

from . import common

Run = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, its number, or last.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder to make; by default inside the run folder."),
]
Split = Annotated[str, typer.Option(help="Own data of the run: train, val, test or all.")]
Checkpoint = Annotated[str, typer.Option(help="final, latest or best.")]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folders.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output folder.")]
Seed = Annotated[int, typer.Option(help="Of the dropout noise.")]


def translate(
    run: Run = "last",
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="PATH", help="Conditions; by default the run's own data."),
    ] = None,
    split: Split = "test",
    out: Out = None,
    stochastic: Annotated[
        int, typer.Option(metavar="N", min=1, help="Pictures per condition, with dropout noise.")
    ] = 1,
    checkpoint: Checkpoint = "final",
    seed: Seed = 0,
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
    """
    _translate(run, source, split, None, out, stochastic, checkpoint, seed, runs, force,
               as_json, quiet, debug)  # fmt: skip


def generate(
    run: Run = "last",
    count: Annotated[
        int | None, typer.Option(min=1, help="Pictures; by default one per condition.")
    ] = None,
    split: Split = "test",
    out: Out = None,
    checkpoint: Checkpoint = "final",
    seed: Seed = 0,
    runs: Runs = Path("runs"),
    force: Force = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Generate COUNT pictures with a trained RUN.

    A translation model draws its conditions from the run's own data, in order; for more pictures
    than conditions it makes several of each, with dropout noise. Name conditions of your own with
    `translate`.

    Twenty pictures of the newest run:

        tfgan-med generate last --count 20 --out synthetic/

    From the training conditions, for augmentation:

        tfgan-med generate 7 --split train --count 500 --out synthetic/
    """
    _translate(run, None, split, count, out, 1, checkpoint, seed, runs, force,
               as_json, quiet, debug)  # fmt: skip


def _translate(
    run: str,
    source: str | None,
    split: str,
    count: int | None,
    out: Path | None,
    samples: int,
    checkpoint: str,
    seed: int,
    runs: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    for value, known in ((split, ("train", "val", "test", "all")),
                         (checkpoint, ("final", "latest", "best"))):  # fmt: skip
        if value not in known:
            raise UserError(f"{value}: expected one of {', '.join(known)}.")
    common.load_tensorflow()
    from tfgan_med.training import run_folder, translation

    path = run_folder.find_run(run, runs)
    target = out or path / "translated" / (Path(source).stem if source else split)
    if target.exists() and not force:
        raise UserError(
            f"{target}: exists. Name another folder with --out, or replace it with --force."
        )
    translator = translation.Translator(path, checkpoint)
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
    result = {"folder": str(target), "pictures": made, "run": str(path)}
    common.emit(result, f"{made} pictures: {target}", as_json)
    common.note(
        f"Next: look at them; every command takes the folder: tfgan-med check {target}", quiet
    )
