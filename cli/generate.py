"""`tfgan-med generate`: any number of pictures from a trained run, and ways between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfgan_med.errors import UserError

from . import common
from .translate import (
    Checkpoint,
    Force,
    Out,
    Run,
    Runs,
    Way,
    check_one_of,
    check_target,
    folder_name,
    translate_into,
)

if TYPE_CHECKING:
    from tfgan_med.training.sampling import Order

MAX_SEED = 2**32 - 1


def generate(
    run: Run = "last",
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures; by default as many as the run was trained on."),
    ] = None,
    out: Out = None,
    per_class: Annotated[
        bool,
        typer.Option("--per-class", help="COUNT of each class; for runs that learned them apart."),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Pictures of one class of a conditional run."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the latent vectors (or dropout noise).")
    ] = 0,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="T", help="Draw latent values from [-T, T]: less various, safer; inf: no bound."
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="png, npz or tfrecord.")] = "png",
    interpolate: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="A B", help="The way from picture A to B as strip and film instead."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="Pictures on that way (default 9).")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--path", help="spherical, linear or both (the default) ways."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Translation: conditions from train, val, test (the default) or all."),
    ] = None,
    direction: Way = None,
    checkpoint: Checkpoint = "final",
    runs: Runs = Path("runs"),
    force: Force = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Generate COUNT pictures with a trained RUN into a folder that is used like a real data set.

    A picture depends on the weights, the seed and its index alone; provenance.json says which.
    Pictures are collected in DIR.part; a command that was stopped goes on when it is repeated.
    --interpolate A B shows the way between pictures A and B of the same seed instead.

    A translation model draws its conditions from the run's own data, in order; for more pictures
    than conditions it makes several of each, with dropout noise. Name conditions of your own with
    `translate`.

    As many pictures as the newest run was trained on, and ten thousand of each class:

        tfgan-med generate last

        tfgan-med generate 7 --per-class --count 10000 --out synthetic/

    For a NumPy program, and eleven steps from picture 3 to picture 8:

        tfgan-med generate 7 --count 5000 --format npz --out arrays/

        tfgan-med generate 7 --interpolate 3 8 --steps 11

    From the training conditions of a translation model, for augmentation:

        tfgan-med generate 7 --split train --count 500 --out synthetic/
    """
    check_one_of("--format", form, "png", "npz", "tfrecord")
    check_one_of("--checkpoint", checkpoint, "final", "latest", "best")
    check_one_of("--path", shape or "both", "spherical", "linear", "both")
    if truncation is not None and not truncation > 0:
        raise UserError(f"--truncation {truncation}: expected a bound above 0, such as 1.5.")
    common.load_tensorflow()
    from tfgan_med.training import run_folder, sampling

    path = run_folder.find_run(run, runs)
    classes = sampling.class_runs(path)
    given = {
        "--per-class": per_class,
        "--truncation": truncation is not None,
        "--format": form != "png",
        "--interpolate": interpolate is not None,
        "--steps": steps is not None,
        "--path": shape is not None,
    }
    if not classes and sampling.kind_of(path) != "images":
        _refuse(given, path, "translates pictures; it takes --split, and has no latent vectors")
        split = split or "test"
        target = out or path / "translated" / folder_name(path, None, split, direction)
        translate_into(target, path, None, split, direction, 1, count, checkpoint, seed,
                       force, as_json, quiet)  # fmt: skip
        return
    foreign = {"--split": split is not None, "--direction": direction is not None}
    _refuse(foreign, path, "makes pictures from latent vectors, not from conditions")
    at_will = () if classes else sampling.classes_at_will(path)
    if at_will:
        _check_at_will(path, at_will, per_class, label, interpolate is not None)
    else:
        _refuse({"--class": label is not None}, path, "is not a conditional run")
        _check_classes(path, list(classes), per_class, interpolate is not None)
    order = sampling.Order(count, seed, truncation, form)
    if interpolate is not None:
        idle = {"--count": count is not None, "--format": form != "png"}
        _refuse(idle, path, "makes a strip and a film with --interpolate")
        _interpolate(path, label, interpolate, steps or 9, shape or "both", order, out, checkpoint,
                     force, as_json, quiet)  # fmt: skip
        return
    idle = {"--steps": steps is not None, "--path": shape is not None}
    _refuse(idle, path, "makes a set without --interpolate A B")
    parts: list[tuple[Path, str | None]] = [(part, None) for part in classes.values() or [path]]
    if at_will:
        parts = [(path, name) for name in ([label] if label else at_will)]
    _generate(path, parts, order, out or path / "generated", checkpoint,
              force, as_json, quiet)  # fmt: skip


def _refuse(given: dict[str, bool], run: Path, reason: str) -> None:
    """UserError for options that would be ignored."""
    wrong = [option for option, is_given in given.items() if is_given]
    if wrong:
        raise UserError(f"{', '.join(wrong)}: {run.name} {reason}. Leave {wrong[0]} out.")


def _check_classes(run: Path, classes: list[str], per_class: bool, one_needed: bool) -> None:
    """UserError if it is open of which class pictures are wanted, or if there are no classes."""
    if per_class and not classes:
        raise UserError(
            f"--per-class: {run.name} is one run, not one for each class. Leave the option out, or "
            "train them with `tfgan-med train MODEL --per-class`."
        )
    if classes and (one_needed or not per_class):
        some = ", ".join(classes[:3]) + (f" and {len(classes) - 3} more" if classes[3:] else "")
        each = "" if one_needed else "Add --per-class for pictures of each, or name "
        raise UserError(
            f"{run.name}: holds a run for each of its classes ({some}). "
            f"{each or 'Name '}the run of one, such as {run / classes[0]}."
        )


def _check_at_will(
    run: Path, classes: tuple[str, ...], per_class: bool, label: str | None, one_needed: bool
) -> None:
    """UserError if it is open of which class a conditional run shall make pictures."""
    named = ", ".join(classes[:3]) + (f" and {len(classes) - 3} more" if classes[3:] else "")
    if label is not None and per_class:
        raise UserError("--class and --per-class exclude each other. Leave one of them out.")
    if label is None and (one_needed or not per_class):
        each = "" if one_needed else "Add --per-class for pictures of each, or name one with "
        raise UserError(
            f"{run.name}: makes pictures of its classes at will ({named}). "
            f"{each or 'Name one with '}--class {classes[0]}."
        )
    if label is not None and label not in classes:
        raise UserError(f"--class {label}: the classes of {run.name} are {named}. Name one.")


def _generate(
    path: Path,
    parts: list[tuple[Path, str | None]],
    order: Order,
    target: Path,
    checkpoint: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from tfgan_med.training import sampling

    check_target(target, force)
    samplers = [sampling.Sampler(part, checkpoint, label=label) for part, label in parts]
    reached = 0
    try:
        with common.counting("Generating", (order.count or 1) * len(parts), quiet) as show:

            def progress(done: int, total: int) -> None:
                nonlocal reached
                reached = done
                show(done, total)

            made = sampling.generate_folder(samplers, target, order, force, progress)
    except KeyboardInterrupt:
        typer.echo(
            f"Stopped after {reached} pictures, kept in {sampling.part_of(target)}. The same "
            "command again goes on.",
            err=True,
        )
        raise typer.Exit(130) from None
    rate = made.added / made.seconds if made.added else None
    result = {
        "folder": str(target),
        "pictures": made.pictures,
        "added": made.added,
        "images_per_second": rate,
        "run": str(path),
    }
    common.emit(result, f"{made.pictures} pictures: {target}", as_json)
    kept = made.pictures - made.added
    if kept:
        common.note(f"{kept} of them were there from a generation that was stopped.", quiet)
    if rate:
        common.note(f"{rate:.1f} images/s.", quiet)
    common.note(f"Next: {_next_step(target, order.form)}", quiet)


def _next_step(target: Path, form: str) -> str:
    if form == "png":
        return f"look at them; every command takes the folder: tfgan-med check {target}"
    return f"{target / 'provenance.json'} lists the files; docs/generating.md says what is in them."


def _interpolate(
    path: Path,
    label: str | None,
    ends: tuple[int, int],
    steps: int,
    shape: str,
    order: Order,
    out: Path | None,
    checkpoint: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from tfgan_med.training import sampling

    first, last = ends
    if first == last or min(ends) < 0:
        raise UserError(
            f"--interpolate {first} {last}: expected the indices of two pictures, such as 0 1."
        )
    folder = out or path / "interpolations"
    shapes = list(sampling.PATHS) if shape == "both" else [shape]
    targets = {name: folder / f"interpolation-{first}-{last}-{name}" for name in shapes}
    there = [
        f for t in targets.values() for f in (Path(f"{t}.png"), Path(f"{t}.gif")) if f.exists()
    ]
    if there and not force:
        raise UserError(
            f"{there[0]}: exists. Name another folder with --out, or replace it with --force."
        )
    sampler = sampling.Sampler(path, checkpoint, label=label)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}). Name another folder with --out."
        ) from None
    for name, target in targets.items():
        frames = sampling.interpolate(sampler, first, last, steps, name, order)
        strip, film = sampling.write_interpolation(target, frames)
        result = {"strip": str(strip), "film": str(film), "path": name, "steps": steps}
        common.emit({**result, "run": str(path)}, f"{strip}\n{film}", as_json)
    common.note(
        f"Next: look at {folder}; the ends are pictures {first} and {last} of tfgan-med generate "
        f"{path} --seed {order.seed}.",
        quiet,
    )
