"""`list` and `describe`: the names users can type, and all settings behind a name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated

import typer

from tfgan_med import discovery
from tfgan_med.errors import UserError

from . import common

ORDER = """\
Where the value of a setting comes from; the first that names it wins:

  1. --set KEY=VALUE   on the command line, e.g. --set train.batch_size=4; repeatable, later wins.
                       --steps, --epochs, --seed and the like are short for --set.
  2. --config FILE     a YAML file; it needs only the lines that differ.
                       Relative paths in it are relative to the file itself.
  3. the defaults      those of the model's paper: tfgan-med describe MODEL.

`tfgan-med train MODEL` without --config and without data takes the quick-start file that comes
with the package. Every run folder keeps the result as config.yaml, complete and reloadable.

Files follow YAML 1.2: true and false are switches, 1e-4 is a number; no, on and 12:30 are text.
Settings are data: tags, double keys, more than 64 aliases and files over 1 MB are refused.
A key nobody knows is an error, and all errors come in one message.
"""


def _files(package: str) -> Callable[[], dict[str, str]]:
    def names() -> dict[str, str]:
        return {name: discovery.summary(package, name) for name in discovery.available(package)}

    return names


def _builtin_sets() -> dict[str, str]:
    builtin = importlib.import_module("tfgan_med.data.builtin")
    return {f"builtin:{name}": about for name, about in builtin.SETS.items()}


def _weights() -> dict[str, str]:
    pretrained = importlib.import_module("tfgan_med.networks.pretrained")
    return {name: entry.about for name, entry in pretrained.REGISTRY.items()}


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "models": _files("tfgan_med.models"),
    "downstream": _files("tfgan_med.downstream"),
    "data": _builtin_sets,
    "layouts": _files("tfgan_med.data.readers"),
    "metrics": _files("tfgan_med.metrics"),
    "weights": _weights,
}


def kind_names() -> list[str]:
    """What `list` can list, for completion."""
    return list(KINDS)


def model_names() -> list[str]:
    """Names of everything that is trained, for completion; reads file names only."""
    packages = ("tfgan_med.models", "tfgan_med.downstream")
    return sorted(name for package in packages for name in discovery.available(package))


def metric_names() -> list[str]:
    """Names of the metrics that have settings; reads file names only."""
    without = ("classification", "label_distance", "mask_shapes", "paired", "segmentation")
    return [n for n in discovery.available("tfgan_med.metrics") if n not in without]


def described_names() -> list[str]:
    """What `describe` can describe, for completion."""
    return [*model_names(), *metric_names(), "config"]


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"One of: {', '.join(KINDS)}. [default: all]", autocompletion=kind_names
        ),
    ] = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """List the names you can type: models, downstream models, built-in data, metrics ...

    Examples:

      tfgan-med list

      tfgan-med list models --json
    """
    if kind is not None and kind not in KINDS:
        raise UserError(discovery.unknown(kind, "kind of name", KINDS))
    for wanted in [kind] if kind else KINDS:
        names = KINDS[wanted]()
        width = max(map(len, names), default=0)
        if not kind and not json:
            typer.echo(f"{wanted}:")
        for name, about in names.items():
            text = f"{'' if kind else '  '}{name:<{width}}  {about}".rstrip()
            common.emit({"kind": wanted, "name": name, "about": about}, text, json)
    common.note("Next: all settings of a model, commented: tfgan-med describe pix2pix", quiet)


def describe(
    name: Annotated[
        str,
        typer.Argument(
            help="A model or metric (see `tfgan-med list`), or `config` for the order of settings.",
            autocompletion=described_names,
        ),
    ],
    json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Print every setting of `train NAME` with its meaning, range and default, as a YAML file.

    The values are those of the paper. Keep the lines you want to change and give the file to
    `tfgan-med train NAME --config FILE`; settings of a metric go to `tfgan-med evaluate NAME
    --set KEY=VALUE`. With --json: the values and a JSON schema.

    Examples:

      tfgan-med describe pix2pix > my.yaml

      tfgan-med describe config
    """
    if name == "config":
        common.emit({"name": name, "text": ORDER}, ORDER.rstrip(), json)
        common.note("Next: the settings themselves: tfgan-med describe pix2pix", quiet)
        return
    if name in metric_names():
        _describe_metric(name, json, quiet)
        return
    if name not in model_names():
        raise UserError(discovery.unknown(name, "name", described_names()))

    from tfgan_med import config  # here, so that `--help` need not load TensorFlow
    from tfgan_med.training import settings

    values = settings.settings_class(name)()
    result = {
        "name": name,
        "values": values.model_dump(mode="json"),
        "schema": type(values).model_json_schema(),
    }
    common.emit(result, config.as_yaml(values, commented=True).rstrip(), json)
    common.note(
        f"Next: save it, change what you need: tfgan-med describe {name} > my.yaml; "
        f"tfgan-med train {name} --config my.yaml",
        quiet,
    )


def _describe_metric(name: str, json: bool, quiet: bool) -> None:
    from tfgan_med import config
    from tfgan_med.evaluation import choice

    values = choice.load(name)()
    result = {
        "name": name,
        "values": values.model_dump(mode="json"),
        "schema": type(values).model_json_schema(),
    }
    common.emit(result, config.as_yaml(values, commented=True).rstrip(), json)
    command = name.replace("_", "-")
    common.note(f"Next: tfgan-med evaluate {command} --set KEY=VALUE.", quiet)
