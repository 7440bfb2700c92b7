"""Settings of the trainings of an experiment, and what of them a result depends on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfgan_med import config, files
from tfgan_med.config import Config, Values
from tfgan_med.errors import UserError
from tfgan_med.experiments import blocks
from tfgan_med.training import settings

# Settings that say where and how a run is computed, not what comes out.
_IRRELEVANT = {
    "data": ("path", "cache_mb", "check", "share_decoded", "hold_out"),
    "train": ("device", "strategy", "xla", "log_interval", "checkpoint_interval", "score_test"),
    "mix": ("synthetic",),
}


def resolved(system: str, where: str, layers: Sequence[Values], base: Path) -> Any:
    """Settings of a training.

    Args:
        system: what `tfgan-med train` calls it.
        where: key of the experiment's file, for messages.
        layers: over its defaults; what comes later wins.
        base: folder that relative paths in them are relative to.
    Raises:
        UserError: with every fault.
    """
    cls = settings.settings_class(system)
    defaults = settings.system_class(system).defaults
    absolute = blocks.absolute_in(base)
    located = [(where, config.map_paths(cls, layer, absolute)) for layer in layers]
    try:
        return config.resolve(
            cls, [(f"the defaults of {system}", defaults), *located], (), name=system
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def steps(chosen: Any, count: int) -> int:
    """Optimizer steps of a training on so many pictures."""
    train = chosen.train
    return int(train.steps or train.epochs * math.ceil(count / train.batch_size))


def content(chosen: Config) -> Values:
    """Settings as far as a result depends on them; files count by their content."""

    def hash_of(text: str) -> str:
        path = Path(text)
        return files.sha256_of(path) if path.is_file() else text

    values = config.map_paths(type(chosen), chosen.model_dump(mode="json"), hash_of)
    kept = {}
    for block, value in values.items():
        if block == "name":
            continue
        drop = _IRRELEVANT.get(block, ())
        is_block = isinstance(value, dict)
        kept[block] = {k: v for k, v in value.items() if k not in drop} if is_block else value
    return kept
