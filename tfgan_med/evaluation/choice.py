"""Metrics by name: all of them, or those that a user lists."""

from __future__ import annotations

from collections.abc import Sequence

from tfgan_med import config, discovery
from tfgan_med.errors import UserError
from tfgan_med.metrics.base import Metric
from tfgan_med.metrics.cid import CID

_PACKAGE = "tfgan_med.metrics"
# Not of two sets of pictures.
_OTHERWISE = ("classification", "label_distance", "mask_shapes", "paired", "segmentation")


def names() -> list[str]:
    """Metrics that compare two sets of pictures."""
    return [name for name in discovery.available(_PACKAGE) if name not in _OTHERWISE]


def choose(listed: str = "") -> list[Metric]:
    """Metrics with their default settings.

    Args:
        listed: names with commas between them; none means all.
    Raises:
        UserError: an unknown name.
    """
    wanted = [name.strip().replace("-", "_") for name in listed.split(",") if name.strip()]
    for name in wanted:
        if name not in names():
            raise UserError(discovery.unknown(name, "metric", names()))
    metrics: list[Metric] = []
    for name in wanted or names():
        metrics.append(load(name)())
        if name == "cid":
            metrics.append(CID(similarity="lpips"))
    return metrics


def load(name: str) -> type[Metric]:
    """The class of a metric.

    Raises:
        UserError: an unknown name.
    """
    return discovery.load_class(_PACKAGE, name, Metric)  # type: ignore[type-abstract]


def with_changes(metrics: Sequence[Metric], changes: Sequence[str]) -> list[Metric]:
    """Metrics with other settings.

    Args:
        metrics: as chosen.
        changes: `--set` texts such as `prdc.k=3`; with one metric its name may be left out.
    Raises:
        UserError: a setting that does not exist or cannot be so, or of none of the metrics.
    """
    called = [type(metric).__module__.rpartition(".")[2] for metric in metrics]
    own: dict[str, list[str]] = {name: [] for name in called}
    for change in changes:
        head, dot, rest = change.partition(".")
        if dot and head.strip() in own:
            own[head.strip()].append(rest)
        elif len(own) == 1:
            own[called[0]].append(change)
        else:
            raise UserError(
                f"--set {change}: of which metric? Write for example --set {called[0]}.KEY=VALUE. "
                f"Metrics here: {', '.join(own)}."
            )
    return [
        config.resolve(
            type(metric), [("options", metric.model_dump(exclude_defaults=True))], own[name], name
        )
        if own[name]
        else metric
        for name, metric in zip(called, metrics, strict=True)
    ]
