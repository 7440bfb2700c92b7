"""Blocks of an experiment's file by name, such as those below `generators`."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfgan_med import config, discovery
from tfgan_med.config import Values
from tfgan_med.errors import UserError

Absolute = Callable[[str], str]


def absolute_in(folder: Path) -> Absolute:
    """What makes a path independent of where the file is that names it."""
    return lambda text: os.path.normpath(folder / Path(text).expanduser())


def is_block(value: Any) -> bool:
    """Whether a value is a mapping."""
    return isinstance(value, dict)


def layers_of(
    path: Path, scale: str | None, locate: Callable[[Values, Path], Values]
) -> list[tuple[str, Values]]:
    """The values of a file and of a named scale of it, each with its origin for messages.

    Args:
        locate: makes paths in values independent of the folder they are relative to.
    Raises:
        UserError: with the nearest name if there is no such scale.
    """
    values = config.load_yaml(path)
    scales = values.pop("scales", None) or {}
    layers = [(str(path), values)]
    if scale is not None:
        known = scales if isinstance(scales, dict) else {}
        if scale not in known:
            raise UserError(discovery.unknown(scale, "scale", known))
        layers.append((f"{path}, scales.{scale}", known[scale] or {}))
    return [(origin, locate(layer, path.absolute().parent)) for origin, layer in layers]


def file_or_name(text: str, absolute: Absolute) -> str:
    """Feature networks are named, or files."""
    return absolute(text) if Path(absolute(text)).exists() else text


def located(cls: type[Any], values: Any, absolute: Absolute) -> Any:
    """Blocks by name with paths that no longer depend on where the file is."""
    if not is_block(values):
        return values
    return {
        name: config.map_paths(cls, block, absolute) if is_block(block) else block
        for name, block in values.items()
    }


def read(
    cls: type[Any],
    title: str,
    values: Mapping[str, Any],
    folder: Path,
    removable: bool = False,
) -> dict[str, Any]:
    """Blocks by name.

    Args:
        cls: of each block.
        title: key of the file that they stand below.
        values: as in the file.
        folder: that paths given with `--set` are relative to.
        removable: leave out a block that is null, in a scale say; else it is an empty one.
    Raises:
        UserError: with the keys of the whole file.
    """
    made = {}
    for name, block in values.items():
        if block is None and removable:
            continue
        where = f"{title}.{name}"
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise UserError(f"{where}: a name is made of letters, digits, points and dashes.")
        if block is not None and not is_block(block):
            raise UserError(f"{where}: received {block!r}, expected a block of settings.")
        own = config.map_paths(cls, block or {}, absolute_in(folder))
        made[name] = prefixed(where, functools.partial(config.resolve, cls, [("", own)]))
    return made


def prefixed(where: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; the keys in its complaint are those of the whole file."""
    try:
        return make()
    except UserError as error:
        faults = [f"{where}.{fault}" for fault in str(error).splitlines()]
        raise UserError("\n".join(faults)) from None


def require_name(where: str, name: str, kind: str, known: Mapping[str, Any] | list[str]) -> None:
    """UserError with the nearest name for one that is not there."""
    if name not in known:
        raise UserError(f"{where}: {discovery.unknown(name, kind, known)}")


def check_seeds(seeds: tuple[int, ...]) -> None:
    """UserError for seeds of repeats that are twice there or below 0."""
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {list(seeds)} has one twice. Each repeat needs its own.")
    if min(seeds) < 0:
        raise UserError(f"seeds: {list(seeds)} has one below 0.")
