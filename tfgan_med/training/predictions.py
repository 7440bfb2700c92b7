"""What a finished downstream model said of each held-out picture: files that experiments read.

`RUN/predictions/<split>.csv` has a row for each picture, `RUN/outcome.json` the rest.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.errors import UserError

OUTCOME = "outcome.json"
COUNTS = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class Classified:
    """Predictions of a classifier for one split.

    Attributes:
        items: names of the pictures, in order.
        groups: keyed hashes of their groups (patient, part), None where unknown.
        classes: class names; columns of `scores`.
        truth: `(pictures,)` indices into `classes`.
        scores: `(pictures, classes)` probabilities.
    """

    items: tuple[str, ...]
    groups: tuple[str | None, ...]
    classes: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segmented:
    """Pixel counts of a segmenter for one split, at its threshold and at network size.

    Attributes:
        items, groups: as of `Classified`.
        classes: names of the masks; of a label map all classes, background first.
        counts: `(pictures, classes, 4)` pixels: true positive, false positive, false negative,
            true negative.
    """

    items: tuple[str, ...]
    groups: tuple[str | None, ...]
    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]


def path_of(run: Path, split: str) -> Path:
    """Where a run keeps its predictions."""
    return run / "predictions" / f"{split}.csv"


def write(run: Path, split: str, said: Classified | Segmented) -> Path:
    """Write the table of one split, atomically."""
    path = path_of(run, split)
    path.parent.mkdir(exist_ok=True)
    with files.replacing(path) as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream).writerows(_rows(said))
    return path


def _rows(said: Classified | Segmented) -> Iterator[Sequence[Any]]:
    groups = [group or "" for group in said.groups]
    if isinstance(said, Classified):
        yield ("item", "group", "truth", *(f"p {name}" for name in said.classes))
        truth = [said.classes[index] for index in said.truth]
        for item, group, name, scores in zip(said.items, groups, truth, said.scores, strict=True):
            yield (item, group, name, *(f"{score:.9g}" for score in scores))
        return
    yield ("item", "group", *(f"{kind} {name}" for name in said.classes for kind in COUNTS))
    for item, group, counts in zip(said.items, groups, said.counts, strict=True):
        yield (item, group, *counts.ravel().tolist())


def read(run: Path, split: str) -> Classified | Segmented:
    """The predictions of a finished run.

    Raises:
        UserError: if the run has none, or the table is damaged.
    """
    path = path_of(run, split)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        return _parsed(header, rows)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not there. Only finished runs of downstream models have predictions; go on "
            f"with `tfgan-med train --resume {run}`."
        ) from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged ({error}). Train the run anew.") from None


def _parsed(header: list[str], rows: list[list[str]]) -> Classified | Segmented:
    items = tuple(row[0] for row in rows)
    groups = tuple(row[1] or None for row in rows)
    if header[2] == "truth":
        classes = tuple(name.removeprefix("p ") for name in header[3:])
        truth = np.array([classes.index(row[2]) for row in rows], np.int64)
        scores = np.array([[float(cell) for cell in row[3:]] for row in rows])
        return Classified(items, groups, classes, truth, scores.reshape(-1, len(classes)))
    classes = tuple(name.removeprefix("tp ") for name in header[2 :: len(COUNTS)])
    cells = np.array([[int(cell) for cell in row[2:]] for row in rows], np.int64)
    return Segmented(items, groups, classes, cells.reshape(-1, len(classes), len(COUNTS)))


def read_outcome(run: Path) -> dict[str, Any]:
    """`outcome.json` of a finished run.

    Raises:
        UserError: if the run has not ended.
    """
    path = run / OUTCOME
    if not path.is_file():
        raise UserError(
            f"{run}: has no {OUTCOME}, so its training has not ended. Go on with it: "
            f"tfgan-med train --resume {run}."
        )
    outcome: dict[str, Any] = files.read_json(path)
    return outcome
