"""Options that the commands of `evaluate` share, as blocks a command can ask for."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

_SET = "folder, table or builtin:<name>"
_NETWORK = "Feature network"
_READING = "Reading pictures"
_OUTPUT = "Output"


@dataclass(frozen=True)
class RealAndFake:
    """The two sets."""

    real: Annotated[
        str | None,
        common.option(f"Real pictures: {_SET}; by default the run's test set.", metavar="DIR"),
    ] = None
    fake: Annotated[
        str | None,
        common.option(
            f"Generated pictures: {_SET}; or a run by folder, number or last (the default).",
            metavar="DIR|RUN",
        ),
    ] = None


@dataclass(frozen=True)
class Reading:
    """How pictures are read, and what is done with the numbers."""

    real_split: Annotated[
        str,
        common.option("train, val, test or all; auto is test where there are splits.", _READING),
    ] = "auto"
    role: Annotated[str, common.option("Which picture of an item.", _READING)] = "images"
    resize: Annotated[
        int | None, common.option("Bring all pictures to squares of this side.", _READING, min=1)
    ] = None
    fit: Annotated[str, common.option("With --resize: crop, pad or stretch.", _READING)] = "crop"
    tile: Annotated[
        int | None,
        common.option("Cut pictures into squares of this side; each counts.", _READING, min=8),
    ] = None
    channel: Annotated[
        int | None, common.option("Compare this color channel alone, from 0.", _READING, min=0)
    ] = None
    window: Annotated[
        tuple[float, float] | None,
        common.option(
            "Values that become black and white, all sets.", _READING, metavar="LOW HIGH"
        ),
    ] = None
    runs: Annotated[Path, common.option("Folder of the run folders.", _READING, metavar="DIR")] = (
        Path("runs")
    )
    batch_size: Annotated[int, common.option("Pictures per network pass.", _READING, min=1)] = 32
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
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the metric, see `describe`; repeatable.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    seed: Annotated[int, common.option("Of samples, halves and resamples.", _OUTPUT, min=0)] = 0
    csv: Annotated[
        Path | None,
        common.option("Append a line per number, e.g. results.csv.", _OUTPUT, metavar="FILE"),
    ] = None
    plots: Annotated[
        Path | None, common.option("Draw figures into this folder.", _OUTPUT, metavar="DIR")
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
        str, common.option("ttur (the original), clean, pytorch-fid or keras.", _NETWORK)
    ] = "ttur"
    weights: Annotated[
        Path | None, common.option("Weights of the network.", _NETWORK, metavar="FILE")
    ] = None
    dims: Annotated[
        int, common.option("With pytorch-fid: 64, 192, 768 or 2048 features.", _NETWORK)
    ] = 2048
    features: Annotated[
        str | None,
        common.option(
            "Another network: vgg16, squeezenet, a .keras file, a frozen graph (.pb), or "
            "run:FOLDER of a downstream run.",
            _NETWORK,
            metavar="NAME|FILE",
        ),
    ] = None
    features_input: Annotated[
        str | None, common.option("Input tensor of the frozen graph.", _NETWORK, metavar="NAME")
    ] = None
    features_output: Annotated[
        str | None, common.option("Tensor or layer with the features.", _NETWORK, metavar="NAME")
    ] = None
    logits_output: Annotated[
        str | None, common.option("Tensor or layer with class scores.", _NETWORK, metavar="NAME")
    ] = None
    features_range: Annotated[
        str, common.option("Numbers that the file expects: -1..1, 0..1 or 0..255.", _NETWORK)
    ] = "-1..1"
    precision: Annotated[
        str, common.option("float32 or bfloat16 (quicker; values say so).", _NETWORK)
    ] = "float32"


@dataclass(frozen=True)
class PerceptualOptions:
    """Which network tells how alike two pictures look."""

    lpips_net: Annotated[
        str,
        common.option("alex, vgg, squeeze; others as in docs/metrics.md.", "Perceptual network"),
    ] = "alex"
    lpips_trunk: Annotated[
        Path | None, common.option("Weights of its trunk.", "Perceptual network", metavar="FILE")
    ] = None
    lpips_linear: Annotated[
        Path | None, common.option("Its linear layers.", "Perceptual network", metavar="FILE")
    ] = None


@dataclass(frozen=True)
class TrainingOptions:
    """Which real pictures the generator was trained on, and which not."""

    training: Annotated[
        str | None,
        common.option(f"Training pictures: {_SET}; by default those of the run.", metavar="DIR"),
    ] = None
    held_out: Annotated[
        str | None,
        common.option(
            "Real pictures not trained on, to calibrate; e.g. a test split.", metavar="DIR"
        ),
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
