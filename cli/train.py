"""`tfgan-med train`: train a model, or go on with a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tfgan_med.errors import UserError

from . import common
from .describe import model_names


def train(
    model: Annotated[
        str | None, typer.Argument(help="See `list models`.", autocompletion=model_names)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Folder, CSV table or builtin:NAME; short for data.path."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings (YAML).")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="bsa: the sngan run (or published file) to adapt; number or folder."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; wins over epochs.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order, jitter and noise.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32, mixed_float16 or mixed_bfloat16.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, gpu or gpu:NUMBER.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Devices: auto, none, mirrored or multiworker.")
    ] = None,
    xla: Annotated[str | None, typer.Option(help="Compile the step: auto, on or off.")] = None,
    eval_every: Annotated[
        int | None, typer.Option(metavar="STEPS", help="Score held-out pairs every so many steps.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Deterministic kernels on a GPU too; slower.")
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Train one model for each class of the set.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folders.")] = Path(
        "runs"
    ),
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run: folder, number or last.")
    ] = None,
    at: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Train exactly into DIR: begin, go on, or do nothing if it is finished.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write no run.")
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Train MODEL; checkpoints, logs and samples go to a new run folder.

    Without data and settings a quick start on built-in pictures runs, in minutes on a CPU:

        tfgan-med train pix2pix

    On your own pictures, a folder with images/ and masks/ of the same names:

        tfgan-med train pix2pix --data smears/ --set data.image_size=128 --epochs 100

    One model for each class of a folder with class folders:

        tfgan-med train dcgan --data xrays/ --set data.image_size=64 --per-class

    A generator that has learned other pictures, adapted to fifty:

        tfgan-med train bsa --source 3 --data faces/

    Ctrl-C saves and stops; `tfgan-med train --resume last` goes on.
    """
    changes = [
        *(change or []),
        *_settings_of(
            {
                "data.path": data,
                "train.steps": steps,
                "train.epochs": epochs,
                "train.seed": seed,
                "train.precision": precision,
                "train.device": device,
                "train.strategy": strategy,
                "train.xla": xla,
                "train.eval_interval": eval_every,
                "train.deterministic": "true" if deterministic else None,
            }
        ),
    ]
    if epochs is not None and steps is None:
        changes.append("train.steps=null")  # the quick start counts steps
    common.load_tensorflow()
    if source is not None:
        changes += _settings_of({"model.source": _source(source, model, out)})
    from tfgan_med.training import per_class as classes
    from tfgan_med.training import run_folder, settings
    from tfgan_med.training.fit import resume_settings

    show = Shown(as_json, quiet, dry_run)
    if resume is not None:
        path = run_folder.find_run(resume, out)
        if classes.is_parent(path):
            _train_classes(path, changes, show)
            return
        _check_model(model, path)
        _train_one(resume_settings(path, changes), show, out, resume=path)
        return
    chosen = settings.resolve(_model_name(model), _existing(config), changes)
    if at is not None and not dry_run:
        _train_at(chosen, at, changes, show)
        return
    if not dry_run:
        run_folder.check_place(out)
    if not per_class:
        _train_one(chosen, show, out)
    elif dry_run:
        for one in classes.class_settings(chosen).values():
            _train_one(one, show, out)
    else:
        _train_classes(classes.start(chosen, out), [], show)


@dataclass(frozen=True)
class Shown:
    """How a command speaks, and whether it only says what it would do."""

    as_json: bool
    quiet: bool
    dry_run: bool = False


def _train_classes(parent: Path, changes: list[str], show: Shown) -> None:
    """Train what is not finished of the runs of a folder."""
    from tfgan_med.training.per_class import open_runs

    for run in open_runs(parent, changes):
        common.note(f"Class {run.label}:", show.quiet)
        place, resume = (None, run.place) if run.begun else (run.place, None)
        _train_one(run.settings, show, parent, resume=resume, place=place, whole=parent)
    number = parent.name.split("-")[0].lstrip("0")
    common.note(
        f"All classes are trained. Next: tfgan-med generate {number} --per-class"
        f"{_place_option(parent)}",
        show.quiet,
    )


def _train_at(chosen: Any, place: Path, changes: list[str], show: Shown) -> None:
    """Bring the run in a folder to its end, however far it is; for sweeps and job arrays."""
    from tfgan_med.training import fit, run_folder

    if run_folder.is_finished(place):
        common.note(
            f"{place}: finished already. Next: look at {place / 'MODEL_CARD.md'}.", show.quiet
        )
        return
    if (place / "checkpoints" / "latest.json").is_file():
        _train_one(fit.resume_settings(place, changes), show, place.parent, resume=place)
        return
    fit.clear_unbegun(place)
    _train_one(chosen, show, place.parent, place=place)


def _train_one(
    chosen: Any,
    show: Shown,
    out: Path,
    resume: Path | None = None,
    place: Path | None = None,
    whole: Path | None = None,
) -> None:
    """Train one run, new or resumed; `whole` is the folder of all classes it belongs to."""
    from tfgan_med.training import fit
    from tfgan_med.training.progress import Reporter
    from tfgan_med.training.stopping import Stopped

    reporter = Reporter(show.quiet)
    training = fit.Training(chosen, reporter)
    if show.dry_run:
        plan = training.dry_run()
        common.emit(plan, _plan_text(plan), show.as_json)
        common.note("Next: the same command without --dry-run.", show.quiet)
        return
    try:
        with training.opened(out, resume=resume, place=place) as folder:
            _announce(training, folder, reporter)
            result = training.run(folder)
    except Stopped as stop:
        common.note(
            f"Stopped and saved at step {stop.step}. Next: tfgan-med train --resume "
            f"{whole or folder.path}"
        )
        raise typer.Exit(stop.exit_code) from None
    common.emit(_as_json(result), _text(result), show.as_json)
    if whole is None:
        common.note(_next_step(result), show.quiet)


PATHS = ("data.path", "model.source")


def _source(source: str, model: str | None, runs: Path) -> Path:
    """What `bsa` adapts: a file, or a run by folder, number or `last`."""
    if model is not None and model != "bsa":
        raise UserError(f"--source: is of bsa, which adapts a run; {model} begins anew.")
    if Path(source).is_file():
        return Path(source).absolute()
    from tfgan_med.training import run_folder

    return run_folder.find_run(source, runs).absolute()


def _settings_of(options: dict[str, Any]) -> list[str]:
    """Options as `--set` changes; text is quoted so that YAML reads it as text."""
    return [
        f"{key}={_quoted(str(value)) if key in PATHS else value}"
        for key, value in options.items()
        if value is not None
    ]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _model_name(model: str | None) -> str:
    if model is None:
        names = ", ".join(model_names())
        raise UserError(f"No model named. Write `tfgan-med train MODEL` with one of: {names}.")
    return model


def _check_model(model: str | None, run: Path) -> None:
    from tfgan_med.training.settings import saved_settings

    system = saved_settings(run).system
    if model is not None and model != system:
        raise UserError(f"{run}: is a run of {system}, not of {model}. Leave the model out.")


def _existing(config: Path | None) -> Path | None:
    if config is not None and not config.is_file():
        raise UserError(f"{config}: no such settings file. `tfgan-med describe MODEL` writes one.")
    return config


def _announce(training: Any, folder: Any, reporter: Any) -> None:
    reporter.say(f"Run folder {folder.path}   Watch: tensorboard --logdir {folder.path.parent}")
    reporter.say(training.describe())


def _as_json(result: Any) -> dict[str, Any]:
    ending = result.ending
    return {
        "run": str(result.run),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "split": ending.split,
        "pictures": ending.pictures,
        "scores": ending.scores,
        "references": ending.references,
        "made": str(ending.made) if ending.made else None,
        "reals": str(ending.reals) if ending.reals else None,
        "warnings": result.warnings,
    }


def _text(result: Any) -> str:
    from tfgan_med.training.progress import duration
    from tfgan_med.training.task import MEANINGS

    ending = result.ending
    lines = [
        f"Trained {result.steps} steps in {duration(result.seconds)}: {result.run}",
        f"Samples   {result.run / 'samples'}",
    ]
    if ending.made:
        lines.append(f"Made      {ending.made}; real ones to compare with: {ending.reals}")
    others = ", ".join(ending.references)
    lines += [
        f"Scores on {ending.basis}" + (f"; in brackets those of: {others}" if others else ""),
        *(
            f"  {MEANINGS[name]}: {value:.4g}{_references(name, ending.references)}"
            for name, value in ending.scores.items()
        ),
    ]
    return "\n".join(lines)


def _references(name: str, references: dict[str, dict[str, float]]) -> str:
    values = [f"{scores[name]:.4g}" for scores in references.values() if name in scores]
    return f" ({', '.join(values)})" if values else ""


def _next_step(result: Any) -> str:
    number = result.run.name.split("-")[0].lstrip("0")
    name = number if number.isdigit() else str(result.run)
    place = _place_option(result.run) if number.isdigit() else ""
    if result.ending.made:
        return (
            f"Next: look at {result.run / 'samples'}, then tfgan-med evaluate all --fake "
            f"{name}{place}"
        )
    if (result.run / "outcome.json").is_file():
        return (
            f"Next: look at {result.run / 'examples.png'}, then tfgan-med predict {name}{place} "
            "--input FOLDER"
        )
    return f"Next: tfgan-med generate {name}{place}"


def _place_option(run: Path) -> str:
    """`--runs` for runs that are not where they are looked for."""
    return "" if run.parent == Path("runs") else f" --runs {run.parent}"


def _plan_text(plan: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(plan, sort_keys=False, allow_unicode=True).rstrip()
