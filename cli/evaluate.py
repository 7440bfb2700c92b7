"""`tfgan-med evaluate`: how close generated pictures are to real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgan_med.errors import MissingWeightsError, UserError

from . import common

if TYPE_CHECKING:
    from tfgan_med.metrics.base import Result
    from tfgan_med.networks.features import FeatureNetwork
    from tfgan_med.training.evaluation import Network, Progress

app = typer.Typer(
    name="evaluate",
    help="Measure how close generated pictures are to real ones.",
    no_args_is_help=True,
)

_SET = "folder, table or builtin:<name>"


@app.callback()
def evaluate() -> None:
    """Measure how close generated pictures are to real ones."""


@app.command()
def fid(
    real: Annotated[
        str | None,
        typer.Option(metavar="DIR", help=f"Real pictures: {_SET}; by default the run's test set."),
    ] = None,
    fake: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|RUN",
            help=f"Generated pictures: {_SET}; or a run by folder, number or last (the default).",
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="ttur (the original), clean, pytorch-fid or keras.")
    ] = "ttur",
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the protocol's network.")
    ] = None,
    dims: Annotated[
        int, typer.Option(help="With pytorch-fid: 64, 192, 768 or 2048 features.")
    ] = 2048,
    features: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another network (.keras or frozen graph .pb)."),
    ] = None,
    features_input: Annotated[
        str | None, typer.Option(metavar="NAME", help="Input tensor of the frozen graph.")
    ] = None,
    features_output: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tensor or layer with the features.")
    ] = None,
    features_range: Annotated[
        str, typer.Option(help="Numbers that the network expects: -1..1, 0..1 or 0..255.")
    ] = "-1..1",
    real_split: Annotated[
        str, typer.Option(help="train, val, test or all; auto is test where there are splits.")
    ] = "auto",
    role: Annotated[str, typer.Option(help="Which picture of an item.")] = "images",
    resize: Annotated[
        int | None, typer.Option(min=1, help="Bring all pictures to squares of this side.")
    ] = None,
    fit: Annotated[str, typer.Option(help="With --resize: crop, pad or stretch.")] = "crop",
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Values that become black and white, both sets."),
    ] = None,
    ddof: Annotated[
        int, typer.Option(min=0, max=1, help="0 for the covariances of StyleGAN2-ADA.")
    ] = 1,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Subsets for a 95 % interval; 0 for none.")
    ] = 0,
    floor: Annotated[
        bool, typer.Option("--floor", help="Measure two halves of the real set too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of subsets and halves.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per network pass.")] = 32,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep features in the cache folder.")
    ] = True,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folders.")] = Path(
        "runs"
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Download missing weights.")] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Fréchet distance between features of real and generated pictures (FID).

    Lower is better; 0 for equal sets. The value depends on the protocol and on the number of
    pictures, so compare it only with values of the same protocol and the same counts. --floor
    says what two halves of the real set have between them.

    The translated test set of the newest run against its real pictures:

        tfgan-med evaluate fid

    Two folders with another feature network (the value is named after it, never FID):

        tfgan-med evaluate fid --real data/test --fake synthetic --features network.keras
    """
    common.load_tensorflow()
    from tfgan_med.metrics.base import FeatureCache
    from tfgan_med.training import evaluation

    _one_of("fit", fit, ("crop", "pad", "stretch"))
    sides = evaluation.find_sides(real, fake, runs)
    wanted = evaluation.Network(
        protocol=protocol,  # type: ignore[arg-type]  # `load` checks both
        weights=weights,
        dims=dims,
        features=features,
        input_name=features_input,
        output_name=features_output,
        value_range=features_range,  # type: ignore[arg-type]
    )
    network = _load(wanted, yes, quiet)
    real_pictures = evaluation.open_pictures(sides.real, real_split, role)
    fake_pictures = evaluation.open_pictures(sides.fake, "all", role)
    with _progress(quiet) as progress:
        result = evaluation.evaluate_fid(
            real_pictures,
            fake_pictures,
            network,
            batch_size=batch_size,
            resize=resize,
            fit=fit,  # type: ignore[arg-type]
            window=window,
            ddof=ddof,
            bootstrap=bootstrap,
            floor=floor,
            seed=seed,
            cache=FeatureCache.default() if cache else None,
            progress=progress,
        )
    common.emit(result.to_json(), _text(result), as_json)
    if sides.run:
        common.note(f"Noted in {evaluation.note_result(sides.run, result)}.", quiet)
    common.note(_next(result), quiet)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{name} is {value!r}; one of {', '.join(known)}.")


def _load(network: Network, yes: bool, quiet: bool) -> FeatureNetwork:
    """The feature network; missing weights are fetched if a person says so."""
    try:
        return network.load()
    except MissingWeightsError as error:
        name = "inception-keras" if network.protocol == "keras" else "inception-2015"
        if not yes:
            if not common.may_ask():
                raise
            common.note(str(error))
            if not typer.confirm(f"Download {name} now?", default=False, err=True):
                raise typer.Exit(1) from None
    from .weights import fetch

    fetch(name, quiet)
    return network.load()


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """One bar for each thing that is being done, at a terminal only."""
    import sys

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


def _text(result: Result) -> str:
    """The value, then what it depends on, a line each."""
    title = f"{_label(result.metric)} = {result.value:.4f} (lower is better)"
    rows = [
        ("protocol", result.protocol),
        ("network", f"{result.extractor}, {result.dimension} features"),
        ("weights", f"sha256 {result.weights_sha256[:16]}..."),
        ("pictures", f"{result.count_real} real, {result.count_fake} generated"),
        ("size, color", f"{result.image_size[0]} x {result.image_size[1]}, {result.color}"),
    ]
    if result.value_range != (0.0, 255.0):
        rows.append(("window", "{:g} to {:g}".format(*result.value_range)))
    if result.ddof != 1:
        rows.append(("covariance", "divided by n (StyleGAN2-ADA)"))
    if result.interval:
        span = result.interval
        rows.insert(0, (f"{span.level:.0%} interval", f"{span.low:.4f} to {span.high:.4f}"))
        rows.append(("interval by", f"{span.method}; {span.repeats} subsets, seed {result.seed}"))
    if result.floor is not None:
        half = result.count_real // 2
        rows.append(("floor", f"{result.floor:.4f} between two halves of {half} real pictures"))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([title, *lines, *(f"Note: {note}" for note in result.notes)])


def _label(metric: str) -> str:
    return metric.replace("fid", "FID", 1) if metric.startswith("fid") else metric


def _next(result: Result) -> str:
    if result.floor is None:
        return "Next: add --floor to see what two halves of the real pictures have between them."
    if result.interval is None:
        return "Next: add --bootstrap 100 to see how much the value depends on these pictures."
    return "Next: look at the pictures; the distance says nothing about copies of training images."
