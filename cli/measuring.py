"""What the commands of `evaluate` share: their options, running metrics, printing results."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgan_med.errors import MissingWeightsError, UserError

from . import common

if TYPE_CHECKING:
    from tfgan_med.evaluation.measuring import Evaluation, Options, Outcome, Skipped
    from tfgan_med.evaluation.pictures import Pictures
    from tfgan_med.evaluation.sides import Sides
    from tfgan_med.metrics.base import Metric, Result
    from tfgan_med.networks.extractors import ExtractorChoice
    from tfgan_med.networks.features import FeatureNetwork
    from tfgan_med.networks.lpips import LPIPS

_SET = "folder, table or builtin:<name>"
_NETWORK = "Feature network"
_READING = "Reading pictures"
_OUTPUT = "Output"


# Options ------------------------------------------------------------------------------------------


def _option(text: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, **more)


@dataclass(frozen=True)
class RealAndFake:
    """The two sets."""

    real: Annotated[
        str | None,
        _option(f"Real pictures: {_SET}; by default the run's test set.", metavar="DIR"),
    ] = None
    fake: Annotated[
        str | None,
        _option(
            f"Generated pictures: {_SET}; or a run by folder, number or last (the default).",
            metavar="DIR|RUN",
        ),
    ] = None


@dataclass(frozen=True)
class Reading:
    """How pictures are read, and what is done with the numbers."""

    real_split: Annotated[
        str, _option("train, val, test or all; auto is test where there are splits.", _READING)
    ] = "auto"
    role: Annotated[str, _option("Which picture of an item.", _READING)] = "images"
    resize: Annotated[
        int | None, _option("Bring all pictures to squares of this side.", _READING, min=1)
    ] = None
    fit: Annotated[str, _option("With --resize: crop, pad or stretch.", _READING)] = "crop"
    tile: Annotated[
        int | None, _option("Cut pictures into squares of this side; each counts.", _READING, min=8)
    ] = None
    channel: Annotated[
        int | None, _option("Compare this color channel alone, from 0.", _READING, min=0)
    ] = None
    window: Annotated[
        tuple[float, float] | None,
        _option("Values that become black and white, all sets.", _READING, metavar="LOW HIGH"),
    ] = None
    runs: Annotated[Path, _option("Folder of the run folders.", _READING, metavar="DIR")] = Path(
        "runs"
    )
    batch_size: Annotated[int, _option("Pictures per network pass.", _READING, min=1)] = 32
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Keep features in the cache folder.",
            rich_help_panel=_READING,
        ),
    ] = True
    interval: Annotated[
        bool,
        typer.Option(
            "--interval/--no-interval",
            help="Resample for 95 % intervals where they make sense.",
            rich_help_panel=_OUTPUT,
        ),
    ] = True
    seed: Annotated[int, _option("Of samples, halves and resamples.", _OUTPUT)] = 0
    csv: Annotated[
        Path | None, _option("Append a line per number, e.g. results.csv.", _OUTPUT, metavar="FILE")
    ] = None
    plots: Annotated[
        Path | None, _option("Draw figures into this folder.", _OUTPUT, metavar="DIR")
    ] = None
    yes: Annotated[
        bool, typer.Option("--yes", help="Download missing weights.", rich_help_panel=_NETWORK)
    ] = False
    as_json: common.Json = False
    quiet: common.Quiet = False
    debug: common.Debug = False


@dataclass(frozen=True)
class FeatureOptions:
    """Which network turns pictures into features."""

    protocol: Annotated[
        str, _option("ttur (the original), clean, pytorch-fid or keras.", _NETWORK)
    ] = "ttur"
    weights: Annotated[
        Path | None, _option("Weights of the network.", _NETWORK, metavar="FILE")
    ] = None
    dims: Annotated[int, _option("With pytorch-fid: 64, 192, 768 or 2048 features.", _NETWORK)] = (
        2048
    )
    features: Annotated[
        str | None,
        _option(
            "Another network: vgg16, squeezenet, a .keras file, a frozen graph (.pb), or "
            "run:FOLDER of a downstream run.",
            _NETWORK,
            metavar="NAME|FILE",
        ),
    ] = None
    features_input: Annotated[
        str | None, _option("Input tensor of the frozen graph.", _NETWORK, metavar="NAME")
    ] = None
    features_output: Annotated[
        str | None, _option("Tensor or layer with the features.", _NETWORK, metavar="NAME")
    ] = None
    logits_output: Annotated[
        str | None, _option("Tensor or layer with class scores.", _NETWORK, metavar="NAME")
    ] = None
    features_range: Annotated[
        str, _option("Numbers that the file expects: -1..1, 0..1 or 0..255.", _NETWORK)
    ] = "-1..1"
    precision: Annotated[
        str, _option("float32 or bfloat16 (quicker; values say so).", _NETWORK)
    ] = "float32"


@dataclass(frozen=True)
class PerceptualOptions:
    """Which network tells how alike two pictures look."""

    lpips_net: Annotated[
        str, _option("alex, vgg, squeeze; others as in docs/metrics.md.", "Perceptual network")
    ] = "alex"
    lpips_trunk: Annotated[
        Path | None, _option("Weights of its trunk.", "Perceptual network", metavar="FILE")
    ] = None
    lpips_linear: Annotated[
        Path | None, _option("Its linear layers.", "Perceptual network", metavar="FILE")
    ] = None


@dataclass(frozen=True)
class TrainingOptions:
    """Which real pictures the generator was trained on, and which not."""

    training: Annotated[
        str | None,
        _option(f"Training pictures: {_SET}; by default those of the run.", metavar="DIR"),
    ] = None
    held_out: Annotated[
        str | None,
        _option("Real pictures not trained on, to calibrate; e.g. a test split.", metavar="DIR"),
    ] = None


def sharing(**blocks: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of dataclasses as options; it receives the filled dataclasses.

    Args:
        blocks: name of the command's parameter to the dataclass that it becomes.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        hints.pop("return", None)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name not in blocks
        ]
        shared = [parameter for block in blocks.values() for parameter in _parameters(block)]

        def run(**values: Any) -> None:
            filled = {
                name: block(**{f.name: values.pop(f.name) for f in fields(block)})
                for name, block in blocks.items()
            }
            command(**filled, **values)

        parameters = [*own, *shared]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameters(block: type) -> Iterator[inspect.Parameter]:
    hints = typing.get_type_hints(block, include_extras=True)
    for field in fields(block):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[field.name],
        )


# Running ------------------------------------------------------------------------------------------


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
            raise typer.Exit(1)
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
    from tfgan_med.evaluation.measuring import Evaluation
    from tfgan_med.evaluation.pictures import open_pictures
    from tfgan_med.evaluation.sides import find_sides

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
    emit(outcome.results, outcome.skipped, reading.as_json)
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


# Printing -----------------------------------------------------------------------------------------


def emit(results: Sequence[Result], skipped: Sequence[Skipped], as_json: bool) -> None:
    """Print results: JSON lines, one in full, or a table of several."""
    if as_json:
        for result in results:
            common.emit(result.to_json(), "", True)
        for missing in skipped:
            common.note(f"Not measured: {missing.metric}: {missing.reason}")
        return
    typer.echo(_one(results[0]) if len(results) == 1 and not skipped else _table(results))
    for missing in skipped:
        typer.echo(f"Not measured: {missing.metric}: {missing.reason}")


def _one(result: Result) -> str:
    """The value, then what it depends on, a line each."""
    rows = [*_uncertainty(result), *_context(result)]
    counts = f"{_count(result.count_real)} real, {result.count_fake} generated"
    rows.insert(len(_uncertainty(result)), ("pictures", counts))
    better = f" ({_BETTER[result.better]})" if result.better != "neither" else ""
    title = f"{label(result.metric)} = {number(result.value)}{better}"
    return "\n".join([title, *_columns(rows), *(f"Note: {note}" for note in result.notes)])


_BETTER = {"lower": "lower is better", "higher": "higher is better", "neither": ""}


def _uncertainty(result: Result) -> list[tuple[str, str]]:
    rows = []
    if result.interval:
        span = result.interval
        rows.append((f"{span.level:.0%} interval", f"{number(span.low)} to {number(span.high)}"))
        rows.append(("interval by", f"{span.method}; {span.repeats} resamples, seed {result.seed}"))
    if result.spread is not None:
        rows.append(("spread", f"{number(result.spread)}, {result.spread_of}"))
    if result.reference is not None:
        rows.append(("real", f"{number(result.reference)} {result.reference_of}"))
    return rows


def _context(result: Result) -> list[tuple[str, str]]:
    rows = [("protocol", result.protocol)]
    if result.extractor:
        size = f", {result.dimension} features" if result.dimension else ""
        rows.append(("network", f"{result.extractor}{size}"))
        rows.append(("weights", f"sha256 {result.weights_sha256[:16]}..."))
    rows.append(("size, color", f"{result.image_size[0]} x {result.image_size[1]}, {result.color}"))
    if result.value_range != (0.0, 255.0):
        rows.append(("window", "{:g} to {:g}".format(*result.value_range)))
    rows += [(name, str(result.settings[name])) for name in _READ_BY if name in result.settings]
    if _settings(result):
        rows.append(("settings", _settings(result)))
    return rows


_READ_BY = ("resize", "tile", "channel")  # the same for all results of a command


def _settings(result: Result) -> str:
    own = {n: v for n, v in result.settings.items() if n not in _READ_BY and v is not None}
    return ", ".join(f"{name} {value}" for name, value in own.items())


def _table(results: Sequence[Result]) -> str:
    """One line per number, then what they share, then notes, each once."""
    if not results:
        return "No number could be computed."
    header = ("", "value", "95 % interval", "real", "p", "better", "pictures")
    lines = [header, *map(_line, results)]
    text = [*aligned(_without_empty_columns(lines)), ""]
    networks = {r.extractor: _context(r)[:3] for r in results if r.extractor}
    first = results[0]
    shared = [row for row in _context(first) if row[0] in ("size, color", "window", *_READ_BY)]
    for rows in (*networks.values(), [*shared, ("seed", str(first.seed))]):
        text += _columns(rows)
    text += _grouped("real", {r.metric: r.reference_of for r in results if r.reference is not None})
    text += _grouped("settings", {r.metric: _settings(r) for r in results if _settings(r)})
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return "\n".join([*text, *(f"Note: {note}" for note in notes)])


def _line(result: Result) -> tuple[str, ...]:
    span, p_value = result.interval, result.details.get("p_value")
    return (
        label(result.metric.partition("[")[0] if result.extractor else result.metric),
        number(result.value),
        f"{number(span.low)} to {number(span.high)}" if span else "",
        "" if result.reference is None else number(result.reference),
        "" if p_value is None else f"{p_value:.2g}",
        "" if result.better == "neither" else result.better,
        f"{_count(result.count_real)} + {result.count_fake}",
    )


def _without_empty_columns(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    filled = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    return [[line[i] for i in filled] for line in lines]


def _grouped(title: str, texts: dict[str, str]) -> list[str]:
    """Metrics with one text share a line."""
    groups: dict[str, list[str]] = {}
    for metric, text in texts.items():
        groups.setdefault(text, []).append(label(metric).partition("[")[0])
    return [
        f"  {title} ({', '.join(dict.fromkeys(metrics))}): {text}"
        for text, metrics in groups.items()
    ]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def number(value: float | None) -> str:
    """Four digits that matter."""
    if value is None:
        return "undefined"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1f}"
    return f"{value:.3e}"


def _count(images: int | None) -> str:
    return "?" if images is None else str(images)


def label(metric: str) -> str:
    """A metric's name as people write it."""
    for name in ("fid", "kid", "lpips", "cid"):
        if metric == name or metric.startswith(f"{name}_"):
            return metric.replace(name, name.upper(), 1)
    return metric
