"""Subsets that were written earlier, side by side: what they share, how spread each one is."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.data.choosing import Space
from tfgan_med.data.chosen_set import FORMAT, finite
from tfgan_med.data.picture_rows import Part, PictureRows, Progress, open_rows
from tfgan_med.data.records import DataConfig
from tfgan_med.data.spread import spread
from tfgan_med.errors import UserError


@dataclass(frozen=True)
class Stored:
    """A subset that was written earlier.

    Attributes:
        folder: where it is.
        name: what tables and figures call it.
        facts: `selection.json`.
        items: names of the chosen pictures in the set they were chosen from.
        clusters: of each.
    """

    folder: Path
    name: str
    facts: Mapping[str, Any]
    items: tuple[str, ...]
    clusters: npt.NDArray[np.int64]

    @property
    def contents(self) -> str:
        """Hash of the pictures they were chosen from."""
        return str(self.facts["data"]["contents"])

    @property
    def key(self) -> str:
        """Hash of these pictures as rows."""
        return str(self.facts["data"]["key"])

    @property
    def data(self) -> DataConfig:
        """The set they were chosen from."""
        known = set(DataConfig.model_fields)
        return DataConfig(**{k: v for k, v in self.facts["data"].items() if k in known})


def read(place: str) -> Stored:
    """Read `selection.json` and `selection.csv`.

    Args:
        place: the folder, or `name=folder`; by default the folder's own name.
    Raises:
        UserError: if the folder is no subset.
    """
    name, named, path = place.partition("=")
    if not named or Path(place).is_dir():
        path, name = place, Path(place).name or place
    folder = Path(path)
    try:
        noted = files.read_json(folder / "selection.json")
        text = (folder / "selection.csv").read_text(encoding="utf-8")
        lines = list(csv.DictReader(io.StringIO(text)))
        stored = Stored(
            folder,
            name,
            noted,
            tuple(line["item"] for line in lines),
            np.array([int(line["cluster"]) for line in lines], np.int64),
        )
        if noted["format"] == FORMAT and stored.contents and stored.key and stored.data.path:
            return stored
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"{folder}: no subset of this version. Give folders that `tfgan-med select kss` and its "
        "sisters wrote."
    )


# Comparing ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """One subset beside others of the same pictures.

    Attributes:
        stored: what was written.
        name: what tables and figures call it; no two are called the same.
        indices: `(chosen,)` rows of its pictures.
        spread: measures in the space that all are compared in.
        shared: name of each subset to the number of pictures that both hold.
        centroids: `(clusters, 2)` in the plane of the first components; None where the subset was
            chosen in another space.
    """

    stored: Stored
    name: str
    indices: npt.NDArray[np.int64]
    spread: Mapping[str, float]
    shared: Mapping[str, int]
    centroids: npt.NDArray[np.float64] | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "subset": self.name,
            "folder": str(self.stored.folder),
            "selection": self.stored.facts["selection"],
            "chosen": len(self.indices),
            "spread": {measure: finite(value) for measure, value in self.spread.items()},
            "shared": dict(self.shared),
        }


def reopen(subsets: Sequence[Stored], progress: Progress = lambda done, total: None) -> PictureRows:
    """The pictures that all subsets were chosen from.

    Args:
        subsets: read earlier.
        progress: called with pictures done and all, if they must be read.
    Raises:
        UserError: they are of different pictures, or the pictures are not what they were.
    """
    first, *others = subsets
    for other in others:
        if other.contents != first.contents:
            raise UserError(
                f"{other.folder}: chosen from other pictures than {first.folder}. Only subsets of "
                "the same pictures (set, split and files) can be compared."
            )
    part: Part = "train" if first.facts["data"]["part"] == "train" else "all"
    rows = open_rows(first.data, part, progress)
    if rows.contents != first.contents:
        raise UserError(
            f"{first.folder}: the pictures in {first.data.path} are not those it was chosen from; "
            "files were added, removed or changed. Choose again."
        )
    return rows


def compare(subsets: Sequence[Stored], rows: PictureRows, space: Space) -> tuple[Compared, ...]:
    """Spread and overlap of subsets of the same pictures.

    Args:
        subsets: what to compare, see `reopen`.
        rows: the pictures.
        space: of the first subset; all are measured in it.
    Raises:
        UserError: a subset with pictures that are no rows, such as tiles of another size.
    """
    positions = {name: row for row, name in enumerate(rows.names)}
    names = _distinct(subsets)
    indices = [_rows_of(one, positions) for one in subsets]
    found = []
    for one, name, own in zip(subsets, names, indices, strict=True):
        alike = one.facts["space"] == subsets[0].facts["space"] and one.key == rows.key
        found.append(
            Compared(
                stored=one,
                name=name,
                indices=own,
                spread=spread(space.scores[own], space.scores),
                shared={
                    n: len(np.intersect1d(own, theirs))
                    for n, theirs in zip(names, indices, strict=True)
                },
                centroids=np.array(one.facts["centroids"], np.float64) if alike else None,
            )
        )
    return tuple(found)


def _rows_of(one: Stored, positions: Mapping[str, int]) -> npt.NDArray[np.int64]:
    missing = [name for name in one.items if name not in positions]
    if missing:
        raise UserError(
            f"{one.folder}: {missing[0]} is none of the pictures of the first subset. Only "
            "subsets of whole pictures, or of tiles of one size, can be compared."
        )
    return np.array([positions[name] for name in one.items], np.int64)


def _distinct(subsets: Sequence[Stored]) -> list[str]:
    """Names of the folders; their paths where names repeat."""
    names = [one.name for one in subsets]
    paths = [str(one.folder) for one in subsets]
    return names if len(set(names)) == len(names) else paths


def table(compared: Sequence[Compared]) -> str:
    """`comparison.csv`: a line for each subset; overlaps as `shared with NAME`."""
    names = [one.name for one in compared]
    measures = list(compared[0].spread)
    header = ["subset", "method", "clusters", "seed", "chosen", *measures]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*header, *(f"shared with {name}" for name in names)])
    for one in compared:
        how = one.stored.facts["selection"]
        values = [repr(float(one.spread[measure])) for measure in measures]
        shared = [one.shared[name] for name in names]
        first = [one.name, how["method"], how["clusters"], how["seed"], len(one.indices)]
        lines.writerow([*first, *values, *shared])
    return text.getvalue()
