"""From the pictures of a data set to the ones that are chosen: components, selection, spread."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.data.picture_rows import PictureRows
from tfgan_med.data.records import Record
from tfgan_med.data.selection import SelectionConfig, Subset, select
from tfgan_med.data.spread import spread
from tfgan_med.ops import principal_components
from tfgan_med.ops.principal_components import Blocks

Array = npt.NDArray[Any]
Scores = npt.NDArray[np.float64]

FORMAT = 1  # of the cached components; part of their key
ALL = "all"
"""Stands for the class in counts of sets without classes."""


@dataclass(frozen=True)
class Space:
    """Principal components in which pictures are compared.

    Attributes:
        described: what the components are of, such as `pixels 128 x 128 x 3`.
        scores: `(pictures, components)` float64.
        shares: `(components,)` share of the variance that each holds.
        backend: how they were found, see `ops/principal_components.py`.
        settings: what they follow from besides the pictures; noted in `selection.json`.
    """

    described: str
    scores: Scores
    shares: Scores
    backend: str
    settings: Mapping[str, Any]

    @property
    def explained(self) -> float:
        """Share of the variance that all of them hold."""
        return float(min(self.shares.sum(), 1.0))


def span(
    rows: PictureRows,
    blocks: Blocks,
    described: str,
    *,
    variance: float = 0.90,
    components: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Space:
    """Principal components of pictures or of their features; computed once for each content.

    Args:
        rows: the pictures.
        blocks: `rows.pixels()` or `rows.features(...)`.
        described: what the blocks hold.
        variance: share that the components must explain at least.
        components: their number instead.
        seed: of the sketch that large sets are analysed by.
        settings: how to get such blocks again; with `rows.key` they tell blocks apart.
    Raises:
        UserError: no such share or number of components.
    """
    wanted = {"variance": variance, "components_wanted": components, "seed": seed}
    noted = {**wanted, **(settings or {})}
    text = json.dumps([FORMAT, rows.key, described, list(blocks.shape), noted], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    path = files.cache_dir() / "components" / f"{name}.npz"
    found = _stored(path)
    if found is None:
        axes, scores = principal_components.fit(
            blocks, variance=variance, components=components, seed=seed
        )
        shares = axes.variances / axes.total_variance if axes.total_variance else axes.variances
        found = {"scores": scores, "shares": shares, "backend": np.array(axes.backend)}
        _store(path, found)
    return Space(
        described,
        found["scores"],
        found["shares"],
        str(found["backend"]),
        noted,
    )


def _stored(path: Path) -> dict[str, Array] | None:
    """What an earlier analysis of the same pictures found."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in ("scores", "shares", "backend")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _store(path: Path, found: Mapping[str, Array]) -> None:
    """A full disk is no error: the next analysis computes it again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary, temporary.open("wb") as out:
            np.savez(out, scores=found["scores"], shares=found["shares"], backend=found["backend"])
    except OSError:
        return


@dataclass(frozen=True)
class Choice:
    """Which pictures were chosen, and of what. Made by `choose`.

    Attributes:
        rows: all pictures.
        space: where they were compared.
        config: how they were chosen.
        subset: which ones.
        spread: how far the chosen ones lie apart, see `data/spread.py`.
    """

    rows: PictureRows
    space: Space
    config: SelectionConfig
    subset: Subset
    spread: Mapping[str, float]

    @property
    def records(self) -> list[Record]:
        """The item of each chosen picture, in order of cluster and rank."""
        return [self.rows.records[row] for row in self.subset.indices.tolist()]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """By class: all pictures and the chosen ones."""
        everything = Counter(record.label or ALL for record in self.rows.records)
        chosen = Counter(record.label or ALL for record in self.records)
        return {
            label: {"pictures": everything[label], "chosen": chosen[label]}
            for label in sorted(everything)
        }


def choose(rows: PictureRows, space: Space, config: SelectionConfig) -> Choice:
    """Choose pictures by their scores.

    Raises:
        UserError: more pictures or clusters wanted than there are, or a singular covariance.
    """
    subset = select(space.scores, config)
    apart = spread(space.scores[subset.indices], space.scores, seed=config.seed)
    return Choice(rows, space, config, subset, apart)
