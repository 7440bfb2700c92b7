"""Running metrics for the commands of `evaluate`: sets, networks, results, figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tfgan_med.errors import MissingWeightsError, UserError

from . import common, evaluate_text
from .evaluate_options import (
    FeatureOptions,
    PerceptualOptions,
    Reading,
    RealAndFake,
    TrainingOptions,
)

if TYPE_CHECKING:
    from tfgan_med.evaluation.measuring import Evaluation, Options, Outcome
    from tfgan_med.evaluation.pictures import Pictures
    from tfgan_med.evaluation.sides import Sides
    from tfgan_med.metrics.base import Metric, Result
    from tfgan_med.networks.extractors import ExtractorChoice
    from tfgan_med.networks.features import FeatureNetwork
    from tfgan_med.networks.lpips import LPIPS


def options_of(reading: Reading) -> Options:
    """As the evaluation wants them."""
    from tfgan_med.evaluation.measuring import Options
    from tfgan_med.networks.feature_cache import FeatureCache

    one_of("fit", reading.fit, ("crop", "pad", "stretch"))
    return Options(
        resize=reading.resize,
        fit=reading.fit,  # type: ignore[arg-type]
        tile=reading.tile,
        channel=reading.channel,
        window=reading.window,
        batch_size=reading.batch_size,
        intervals=reading.interval,
        seed=reading.seed,
        cache=FeatureCache.default() if reading.cache else None,
    )


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not on offer."""
    if value not in known:
        raise UserError(f"{name} is {value!r}; one of {', '.join(known)}.")


def extractor_choice(features: FeatureOptions) -> ExtractorChoice:
    """As the networks want it."""
    from tfgan_med.networks.extractors import ExtractorChoice

    return ExtractorChoice(
        protocol=features.protocol,  # type: ignore[arg-type]  # `load` checks these
        weights=features.weights,
        dims=features.dims,
        features=features.features,
        input_name=features.features_input,
        output_name=features.features_output,
        logits_name=features.logits_output,
        value_range=features.features_range,  # type: ignore[arg-type]
        precision=features.precision,  # type: ignore[arg-type]
    )


def load_network(features: FeatureOptions, reading: Reading) -> FeatureNetwork:
    """The feature network; missing weights are fetched if a person says so."""
    choice = extractor_choice(features)
    try:
        return choice.load()
    except MissingWeightsError as error:
        _fetch(choice.store_name, error, reading)
    return choice.load()


def load_perceptual(perceptual: PerceptualOptions, reading: Reading) -> LPIPS:
    """The perceptual network; missing weights are fetched if a person says so."""
    from tfgan_med.networks import lpips

    def load() -> LPIPS:
        return lpips.load(perceptual.lpips_net, perceptual.lpips_trunk, perceptual.lpips_linear)

    while True:  # the trunk and its linear layers are two files
        try:
            return load()
        except MissingWeightsError as error:
            _fetch(error.weights, error, reading)


def _fetch(name: str | None, error: MissingWeightsError, reading: Reading) -> None:
    if name is None:
        raise error
    if not reading.yes:
        if not common.may_ask():
            raise error
        common.note(str(error))
        if not typer.confirm(f"Download {name} now?", default=False, err=True):
            raise error  # `all` goes on without
    from .weights import fetch

    fetch(name, reading.quiet)


def measure(
    metrics: Sequence[Metric],
    sets: RealAndFake,
    reading: Reading,
    *,
    network: FeatureNetwork | None = None,
    perceptual: LPIPS | None = None,
    training: TrainingOptions | None = None,
    strict: bool = True,
) -> Outcome:
    """Find both sets, compute the metrics, print and keep what came out."""
    from tfgan_med.evaluation import results
    from tfgan_med.evaluation.choice import with_changes
    from tfgan_med.evaluation.measuring import Evaluation
    from tfgan_med.evaluation.pictures import open_pictures
    from tfgan_med.evaluation.sides import find_sides

    metrics = with_changes(metrics, reading.change or [])
    if reading.csv:
        results.check_csv(reading.csv)
    sides = find_sides(sets.real, sets.fake, reading.runs)
    real = open_pictures(sides.real, reading.real_split, reading.role)
    fake = open_pictures(sides.fake, "all", reading.role)
    trained, held_out = _training(sides, reading, training, metrics)
    with progress(reading.quiet) as show:
        evaluation = Evaluation(
            metrics,
            real,
            [fake],
            options_of(reading),
            network=network,
            perceptual=perceptual,
            training=trained,
            held_out=held_out,
            strict=strict,
            progress=show,
        )
        outcome = evaluation.of(fake)
    evaluate_text.emit(outcome.results, outcome.skipped, reading.as_json)
    keep(outcome.results, reading, sides.run)
    if reading.plots:
        draw(evaluation, fake, outcome, reading)
    return outcome


def _training(
    sides: Sides, reading: Reading, given: TrainingOptions | None, metrics: Sequence[Metric]
) -> tuple[Pictures | None, Pictures | None]:
    from tfgan_med.evaluation.sides import held_out_pictures, training_pictures

    if not any(metric.of_training for metric in metrics):
        return None, None
    named = given or TrainingOptions()
    trained = training_pictures(sides.run, sides.real, named.training, reading.role)
    return trained, held_out_pictures(trained, named.held_out, reading.role)


def keep(results: Sequence[Result], reading: Reading, run: Path | None) -> None:
    """Append results to the user's CSV file and to the run they belong to."""
    from tfgan_med.evaluation import results as kept

    if reading.csv:
        common.note(f"Added to {kept.append_csv(reading.csv, results)}.", reading.quiet)
    if run:
        try:
            common.note(f"Noted in {kept.note_results(run, results)}.", reading.quiet)
        except UserError as error:  # measured all the same; the run keeps what it has
            common.note(f"Not noted in the run: {error}")


def draw(evaluation: Evaluation, fake: Pictures, outcome: Outcome, reading: Reading) -> None:
    """Draw the figures that there is data for."""
    from tfgan_med.evaluation import figures

    assert reading.plots is not None
    with progress(reading.quiet) as show:
        written = figures.draw(evaluation, fake, outcome, reading.plots, show)
    names = ", ".join(path.name for path in written)
    common.note(f"Drawn into {reading.plots}: {names or 'nothing'}.", reading.quiet)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each thing that is being done, at a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    tasks: dict[str, Any] = {}
    with Bars(console=Console(stderr=True), transient=True) as bars:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield show
