"""The commands of `evaluate` for labels, masks, and more than one metric or set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgan_med.errors import MissingWeightsError, UserError

from . import common, evaluate_text, measuring
from .evaluate_options import (
    FeatureOptions,
    PerceptualOptions,
    Reading,
    RealAndFake,
    TrainingOptions,
    sharing,
)

if TYPE_CHECKING:
    from tfgan_med.evaluation.sides import Sides


@sharing(sets=RealAndFake, reading=Reading)
def labels(
    sets: RealAndFake,
    reading: Reading,
    names: Annotated[
        str, typer.Option(help="Names of the classes from 0 on, with commas between them.")
    ] = "",
    present_only: Annotated[
        bool, typer.Option("--present-only", help="Compare only pictures that have the class.")
    ] = False,
) -> None:
    """Compare masks or label maps: how often a class occurs, how large, in how many pieces.

    For each class: the share of pictures that have it, the share of pixels, and the Earth
    Mover's distance between real and generated distributions of both, and of component sizes.

    Masks of a generated set against real ones:

        tfgan-med evaluate labels --real data --fake synthetic --role masks

    Label maps with names:

        tfgan-med evaluate labels --real data --fake out --role labels --names good,crack,pore
    """
    common.load_tensorflow()
    from tfgan_med.evaluation import label_maps, results
    from tfgan_med.evaluation.sides import find_sides

    if reading.csv:
        results.check_csv(reading.csv)
    sides = find_sides(sets.real, sets.fake, reading.runs)
    with measuring.progress(reading.quiet) as show:
        comparison = label_maps.compare(
            sides.real,
            sides.fake,
            role=reading.role if reading.role != "images" else "auto",
            split=reading.real_split,
            names=tuple(name.strip() for name in names.split(",") if name.strip()),
            present_only=present_only,
            intervals=reading.interval,
            seed=reading.seed,
            progress=show,
        )
    evaluate_text.emit(comparison.results, (), reading.as_json)
    measuring.keep(comparison.results, reading, sides.run)
    if reading.plots:
        written = label_maps.draw(comparison, reading.plots)
        common.note(f"Drawn into {reading.plots}: {written.name}.", reading.quiet)
    common.note("Next: tfgan-med evaluate all compares the pictures.", reading.quiet)


@sharing(sets=RealAndFake, reading=Reading)
def mask_shapes(sets: RealAndFake, reading: Reading) -> None:
    """Compare the shapes of masks: area, pieces, compactness, solidity, and how many are valid.

    Lower is better: distances between real and generated distributions, in real standard
    deviations. Validity is the share of generated masks that show something, in as many pieces
    and as large as real ones; higher is better.

    The generated masks of the newest run:

        tfgan-med evaluate mask-shapes

    Masks of a generated set against real ones of another size:

        tfgan-med evaluate mask-shapes --real data --fake synthetic --resize 128
    """
    common.load_tensorflow()
    from tfgan_med.evaluation import results
    from tfgan_med.evaluation.sides import find_sides

    if reading.csv:
        results.check_csv(reading.csv)
    if reading.plots:
        raise UserError("--plots: mask-shapes draws nothing; `evaluate labels --plots` does.")
    _measure_shapes(find_sides(sets.real, sets.fake, reading.runs), reading, reading.change or [])
    common.note("Next: look at masks that are not valid, and at `evaluate all`.", reading.quiet)


def _measure_shapes(sides: Sides, reading: Reading, changes: list[str]) -> None:
    """Measure, print and keep."""
    from tfgan_med.config import resolve
    from tfgan_med.evaluation import mask_shapes as shapes
    from tfgan_med.metrics.mask_shapes import MaskShapes

    measuring.one_of("fit", reading.fit, ("crop", "pad", "stretch"))
    without = {} if reading.interval else {"resamples": 0}
    with measuring.progress(reading.quiet) as show:
        measured = shapes.compare(
            sides.real,
            sides.fake,
            role=reading.role if reading.role != "images" else "auto",
            split=reading.real_split,
            settings=resolve(MaskShapes, [("options", without)], changes),
            resize=reading.resize,
            fit=reading.fit,  # type: ignore[arg-type]
            seed=reading.seed,
            progress=show,
        )
    evaluate_text.emit(measured, (), reading.as_json)
    measuring.keep(measured, reading, sides.run)


@sharing(
    sets=RealAndFake,
    training=TrainingOptions,
    reading=Reading,
    features=FeatureOptions,
    perceptual=PerceptualOptions,
)
def everything(
    sets: RealAndFake,
    training: TrainingOptions,
    reading: Reading,
    features: FeatureOptions,
    perceptual: PerceptualOptions,
    metrics: Annotated[
        str, typer.Option(help="Only these, with commas between them; see `list metrics`.")
    ] = "",
) -> None:
    """Every metric, with one pass over each set of pictures.

    Metrics whose networks are not on this machine are named at the end, with what they need.
    Where both sets have masks beside their pictures, the shapes of these are compared too.

    The newest run:

        tfgan-med evaluate all

    Two folders, some metrics, with figures and a table for a spreadsheet:

        tfgan-med evaluate all --real data --fake out --metrics kid,prdc --plots out --csv all.csv
    """
    common.load_tensorflow()
    from tfgan_med.evaluation.choice import choose

    chosen = choose(metrics)
    network, perceptual_network, missing = _networks(chosen, features, perceptual, reading)
    outcome = measuring.measure(
        chosen,
        sets,
        reading,
        network=network,
        perceptual=perceptual_network,
        training=training,
        strict=False,
    )
    for text in missing:
        common.note(f"Missing: {text}")
    if not metrics:
        _shapes_too(sets, reading)
    if not outcome.results:
        raise UserError("No metric could be computed; the reasons stand above.")
    common.note("Next: docs/metrics.md says which number answers which question.", reading.quiet)


def _shapes_too(sets: RealAndFake, reading: Reading) -> None:
    """The shapes of masks, where both sets have some; otherwise why not."""
    from tfgan_med.evaluation.mask_shapes import why_not
    from tfgan_med.evaluation.sides import find_sides

    sides = find_sides(sets.real, sets.fake, reading.runs)
    reason = why_not(sides.real, sides.fake)
    try:
        if not reason:
            _measure_shapes(sides, reading, [])
    except UserError as error:
        reason = str(error)
    if reason:
        common.note(f"Not measured: mask_shapes: {reason}")


@sharing(reading=Reading, features=FeatureOptions, perceptual=PerceptualOptions)
def compare(
    reading: Reading,
    features: FeatureOptions,
    perceptual: PerceptualOptions,
    fakes: Annotated[
        list[str], typer.Argument(metavar="A B ...", help="Generated sets: folders or runs.")
    ],
    real: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Real pictures; by default the test set of run A."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Only these, with commas between them; see `list metrics`.")
    ] = "fid,kid,prdc",
) -> None:
    """Compare several generated sets with the same real one: values, intervals, ranks.

    All sets are cut to the size of the smallest, since most values depend on the count. Sets
    whose intervals overlap share a rank: these pictures do not tell them apart.

    Three folders:

        tfgan-med evaluate compare out/a out/b out/c --real data

    Two runs by number, with figures:

        tfgan-med evaluate compare 3 4 --metrics kid,prdc --plots figures
    """
    common.load_tensorflow()
    from tfgan_med.evaluation import comparing, results
    from tfgan_med.evaluation.choice import choose, with_changes

    if reading.csv:
        results.check_csv(reading.csv)
    chosen = with_changes(choose(metrics), reading.change or [])
    network, perceptual_network, missing = _networks(chosen, features, perceptual, reading)
    with measuring.progress(reading.quiet) as show:
        comparison = comparing.compare(
            chosen,
            real,
            fakes,
            measuring.options_of(reading),
            split=reading.real_split,
            role=reading.role,
            runs_dir=reading.runs,
            network=network,
            perceptual=perceptual_network,
            progress=show,
        )
    for row in comparison.rows:
        common.emit(row.to_json(), "", True) if reading.as_json else None
    if not reading.as_json:
        typer.echo(evaluate_text.comparison_text(comparison))
    for text in (*missing, *(f"{s.metric}: {s.reason}" for s in comparison.skipped)):
        common.note(f"Missing: {text}")
    measuring.keep(comparison.results, reading, None)
    if reading.plots:
        written = comparing.draw(comparison, reading.plots)
        common.note(f"Drawn into {reading.plots}: {written.name}.", reading.quiet)
    common.note("Next: look at the pictures of the best, and for copies.", reading.quiet)


def _networks(
    chosen: Any, features: FeatureOptions, perceptual: PerceptualOptions, reading: Reading
) -> tuple[Any, Any, list[str]]:
    """The networks that metrics need; what is not on this machine is said, not fatal."""
    needs = frozenset[str]().union(*(metric.required() for metric in chosen))
    missing: list[str] = []

    def optional(load: Any, *which: Any) -> Any:
        try:
            return load(*which, reading)
        except MissingWeightsError as error:
            missing.append(str(error))
            return None

    network = None
    if needs & {"features", "logits"}:
        network = optional(measuring.load_network, features)
    perceptual_network = None
    if "perceptual" in needs:
        perceptual_network = optional(measuring.load_perceptual, perceptual)
    return network, perceptual_network, missing
