"""`tfgan-med export`: data sets and generators for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfgan_med.errors import UserError

from . import common
from .translate import Runs, as_direction, check_one_of

if TYPE_CHECKING:
    from tfgan_med.data.export.items import Options

SETS = ("imagefolder", "coco", "yolo", "nnunet")
NETWORKS = ("savedmodel", "onnx")

_TAKES = {
    "imagefolder": (),
    "coco": ("--role", "--names", "--by-class"),
    "yolo": ("--role", "--names", "--by-class", "--polygons"),
    "nnunet": ("--role", "--names", "--number"),
}
_MARKS = "Objects (coco, yolo, nnunet)"
_NETWORK = "Networks (savedmodel, onnx)"


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FOLDER",
            help="Run folder, its number, or last; or a data set in any layout.",
        ),
    ],
    form: Annotated[
        str, typer.Option("--format", help=f"{', '.join(SETS)}; of a run {', '.join(NETWORKS)}.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to make; by default beside the data, or inside the run."
        ),
    ] = None,
    role: Annotated[
        str,
        typer.Option(
            help="What marks objects: instances, masks, masks-NAME, labels or boxes.",
            rich_help_panel=_MARKS,
        ),
    ] = "auto",
    names: Annotated[
        str,
        typer.Option(
            help="Names of the classes with commas between them, the background first.",
            rich_help_panel=_MARKS,
        ),
    ] = "",
    by_class: Annotated[
        bool,
        typer.Option(
            "--by-class",
            help="Objects get the class of their picture as category.",
            rich_help_panel=_MARKS,
        ),
    ] = False,
    polygons: Annotated[
        bool,
        typer.Option("--polygons", help="yolo: outlines instead of boxes.", rich_help_panel=_MARKS),
    ] = False,
    number: Annotated[
        int,
        typer.Option(
            min=1, max=999, help="nnunet: number of the data set.", rich_help_panel=_MARKS
        ),
    ] = 1,
    checkpoint: Annotated[
        str, typer.Option(help="final, latest or best.", rich_help_panel=_NETWORK)
    ] = "final",
    direction: Annotated[
        str | None,
        typer.Option(
            metavar="a2b|b2a",
            help="Of a run that translates both ways.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Of a conditional run: which class.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    runs: Runs = Path("runs"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace an older export in the output folder.")
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Hand a data set or a trained generator to the tools that people use.

    Pictures keep their bytes where the format allows it, and their marks as synthetic ones;
    provenance.json goes with them. Of a run, its generated pictures are taken, or with savedmodel
    and onnx its generator.

    Generated pictures with their masks for a detector and for nnU-Net:

        tfgan-med export synthetic/ --format coco

        tfgan-med export synthetic/ --format nnunet --names background,lesion --out lesions

    The generator of the newest run for a program without Python:

        tfgan-med export last --format onnx --out generator/
    """
    check_one_of("--format", form, *SETS, *NETWORKS)
    check_one_of("--checkpoint", checkpoint, "final", "latest", "best")
    marks = {
        "--role": role != "auto",
        "--names": bool(names),
        "--by-class": by_class,
        "--polygons": polygons,
        "--number": number != 1,
    }
    if form in NETWORKS:
        _refuse(marks, form)
        _export_network(what, form, out, checkpoint, direction, label, runs, force, as_json, quiet)
        return
    networks = {
        "--checkpoint": checkpoint != "final",
        "--direction": direction is not None,
        "--class": label is not None,
    }
    _refuse(networks, form)
    _refuse({option: marks[option] for option in marks if option not in _TAKES[form]}, form)
    from tfgan_med.data.export.items import Options

    options = Options(
        role=role,
        names=tuple(name.strip() for name in names.split(",") if name.strip()),
        by_class=by_class,
        polygons=polygons,
        number=number,
    )
    _export_set(what, form, out, options, runs, force, as_json, quiet)


def _refuse(given: dict[str, bool], form: str) -> None:
    """UserError for options that would be ignored."""
    for option, is_given in given.items():
        if is_given:
            raise UserError(f"{option}: means nothing with --format {form}. Leave it out.")


def _export_set(
    what: str,
    form: str,
    out: Path | None,
    options: Options,
    runs: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from tfgan_med.data.export import sets

    run = _run_of(what, runs)
    folder = str(_made_by(run)) if run else what
    target = out or (run / "exported" / form if run else _beside(what, form))
    with common.counting("Exporting", 0, quiet) as progress:
        done = sets.export_set(
            folder,
            form,
            target,
            options,
            title=run.name if run else None,
            replace=force,
            progress=progress,
        )
    for notice in done.notices:
        common.note(f"Note: {notice}", quiet)
    result = {
        "folder": str(done.folder),
        "format": form,
        "pictures": done.pictures,
        "unchanged": done.unchanged,
        "synthetic": done.synthetic,
    }
    kind = "synthetic pictures" if done.synthetic else "pictures"
    text = f"{done.pictures} {kind}, {done.unchanged} byte for byte: {done.folder}"
    common.emit(result, text, as_json)
    common.note(f"Next: {_NEXT[form]}", quiet)


_NEXT = {
    "imagefolder": "torchvision.datasets.ImageFolder or keras.utils.image_dataset_from_directory.",
    "coco": "pycocotools.coco.COCO reads the files in annotations/.",
    "yolo": "yolo detect train data=data.yaml, in the new folder (segment with --polygons).",
    "nnunet": "put the Dataset folder into nnUNet_raw and run nnUNetv2_plan_and_preprocess.",
}


def _run_of(what: str, runs: Path) -> Path | None:
    """The run that is meant, if it is one and not a data set."""
    if not (what == "last" or what.isdigit() or (Path(what) / "config.yaml").is_file()):
        return None
    from tfgan_med.training import run_folder

    return run_folder.find_run(what, runs)


def _made_by(run: Path) -> Path:
    """The one set of pictures that a run has made."""
    generated = run / "generated"
    made = [generated] if generated.is_dir() else []
    below = run / "translated"
    if below.is_dir():
        made += [path for path in sorted(below.iterdir()) if path.is_dir() and path.name[0] != "."]
    if len(made) == 1:
        return made[0]
    if made:
        raise UserError(
            f"{run}: has several sets of pictures. Name the one to export: "
            f"{', '.join(str(path) for path in made[:3])}."
        )
    raise UserError(
        f"{run}: has no pictures yet. Make some with `tfgan-med generate {run}`, or export the "
        "network with --format savedmodel or onnx."
    )


def _beside(what: str, form: str) -> Path:
    """`<name>-<format>` beside a folder, or here for a built-in set."""
    if what.startswith("builtin:"):
        return Path(f"{what.removeprefix('builtin:').partition('?')[0]}-{form}")
    path = Path(what).expanduser().resolve()
    return path.with_name(f"{path.stem if path.is_file() else path.name}-{form}")


def _export_network(
    what: str,
    form: str,
    out: Path | None,
    checkpoint: str,
    direction: str | None,
    label: str | None,
    runs: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    way = as_direction(direction)
    common.load_tensorflow()
    from tfgan_med.training import export_network, run_folder

    run = run_folder.find_run(what, runs)
    name = "-".join([form, *filter(None, (way, label and run_folder.slug(label)))])
    done = export_network.export_network(
        run,
        form,
        out or run / "exported" / name,
        checkpoint=checkpoint,
        direction=way,
        label=label,
        replace=force,
    )
    result = {
        "folder": str(done.folder),
        "format": form,
        "file": str(done.file),
        "run": str(run),
        "largest_difference": done.difference,
    }
    common.emit(result, f"Generator of {run.name}: {done.file}", as_json)
    if done.difference is None:
        common.note("Not tried: onnxruntime is not installed here.", quiet)
    common.note(f"Next: {done.folder / 'README.md'} says what goes in and what comes out.", quiet)
