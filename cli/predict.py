"""`tfgan-med predict`: a trained classifier or segmenter applied to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .translate import check_one_of, check_target


def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, its number, or last.")
    ] = "last",
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="PATH", help="Pictures; by default the run's own data."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all; default test of the run's data, else all."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to make; by default inside the run folder."),
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folders.")] = Path(
        "runs"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the output folder.")] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Apply a trained classifier or segmenter to pictures, and score it where the truth is known.

    Makes a folder with predictions.csv and, of segmenters, the masks.

    New pictures:

        tfgan-med predict last --input ward/ --out predictions/

    Do synthetic pictures show their class? Ask a classifier that was trained on real ones:

        tfgan-med predict 7 --input synthetic/
    """
    split = split or ("all" if source else "test")
    check_one_of("--split", split, "train", "val", "test", "all")
    common.load_tensorflow()
    from tfgan_med.training import predicting, run_folder

    path = run_folder.find_run(run, runs)
    target = out or path / "predicted" / (Path(source).stem if source else split)
    check_target(target, force, "predictions.csv")
    predictor = predicting.Predictor(path)
    images = predicting.open_input(predictor, source, split)
    with common.counting("Predicting", len(images.records), quiet) as progress:
        said = predicting.predict(predictor, images, target, force, progress)
    result = {
        "folder": str(target),
        "run": str(path),
        "pictures": said.pictures,
        "threshold": predictor.threshold,
        "said": said.counts,
        "scores": {k: v if v == v else None for k, v in said.scores.items()},
    }
    lines = [f"{said.pictures} pictures: {said.table}"]
    if said.counts:
        lines.append(", ".join(f"{count} {name}" for name, count in said.counts.items()))
    lines += [f"  {name}: {value:.4g}" for name, value in said.scores.items()]
    common.emit(result, "\n".join(lines), as_json)
    if not said.scores:
        common.note("The pictures come without the truth, so there are no scores.", quiet)
    common.note(f"Next: look at {target}; not for diagnosis.", quiet)
