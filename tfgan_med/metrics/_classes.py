"""Classes of two sets: measured one by one where the sets have them in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

ByClass = bool | Literal["auto"]
Classes = Iterable[str] | None  # of each picture; None where the set has none

WHOLE = ""
"""Stands for all pictures where they are not measured by class; no class has this name."""


def in_common(real: Classes, fake: Classes, by_class: ByClass, what: str) -> tuple[str, ...]:
    """Classes that both sets have, in order; none where pictures are compared regardless of them.

    Args:
        real, fake: class of each picture.
        by_class: a metric's setting: `auto` compares as a whole where there is nothing in common.
        what: the metric, for the message.
    Raises:
        ValueError: `by_class` is true and there are none.
    """
    if by_class is False:
        return ()
    common = tuple(sorted(set(real or ()) & set(fake or ())))
    if not common and by_class is True:
        raise ValueError(
            f"{what} by class needs classes that both sets have: real {listed(real)}; generated "
            f"{listed(fake)}. Name the class folders alike, or set `by_class` to auto."
        )
    return common


def as_a_whole(real: Classes, fake: Classes) -> tuple[str, ...]:
    """What to say where sets with classes were not measured by class, for want of common ones."""
    if real is None and fake is None:
        return ()
    return (
        f"Compared as a whole, pictures of different classes among them: the classes are real "
        f"{listed(real)}; generated {listed(fake)}.",
    )


def listed(classes: Classes) -> str:
    """Up to three names."""
    names = sorted(set(classes or ()))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more
