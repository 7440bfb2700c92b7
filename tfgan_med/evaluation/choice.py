"""Metrics by name: all of them, or those that a user lists."""

from __future__ import annotations

from tfgan_med import discovery
from tfgan_med.errors import UserError
from tfgan_med.metrics.base import Metric
from tfgan_med.metrics.cid import CID

_PACKAGE = "tfgan_med.metrics"
_OTHERWISE = ("label_distance", "paired")  # compare masks and pairs, not two sets of pictures


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
        metrics.append(discovery.load_class(_PACKAGE, name, Metric)())  # type: ignore[type-abstract]
        if name == "cid":
            metrics.append(CID(similarity="lpips"))
    return metrics
