"""Sheets of pictures: rows with captions, nearest real pictures, pairs that look like copies.

Arrays in, one PNG out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfgan_med.evaluation.canvas import DPI, fitted, new_figure, save

Picture = npt.NDArray[np.uint8]  # (height, width, 3)

_SIDE, _GAP, _LINE, _MARGIN = 1.35, 0.12, 0.155, 0.15  # inches; a picture has 135 pixels


def sheet(
    rows: Sequence[Sequence[Picture]],
    path: Path,
    *,
    title: str = "",
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    note: str = "",
) -> Path:
    """Pictures in rows, each with a caption below it.

    Args:
        rows: pictures `(height, width, 3)` uint8 of any sizes; each is fitted into a square.
        path: of the PNG.
        title: one line above all.
        columns: headings of the columns; too few leave the rest without.
        captions: a text of one or more lines for each picture.
        note: a sentence below all.
    Raises:
        ValueError: a row without pictures, or a picture that is not uint8 (height, width, 3).
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("A sheet needs at least one picture in each row; received none.")
    for picture in (picture for row in rows for picture in row):
        _require_picture(picture)
    texts = [[fitted(text, 22) for text in row] for row in captions]
    texts += [[]] * (len(rows) - len(texts))
    tall = [_SIDE * max(min(1.0, p.shape[0] / p.shape[1]) for p in row) for row in rows]
    steps = [
        side + _GAP + max(map(_height, row), default=0.0)
        for side, row in zip(tall, texts, strict=True)
    ]
    across = max(len(row) for row in rows)
    width = max(across * (_SIDE + _GAP) + 2 * _MARGIN - _GAP, 3.2)
    title, note = fitted(title, int(width * 12)), fitted(note, int(width * 15.5))
    head = 1.4 * _height(title) + max((_height(name) + 0.1 for name in columns), default=0.0)
    height = 2 * _MARGIN + head + sum(steps) + _height(note)

    with new_figure(width, height, constrained=False) as figure:

        def write(x: float, y: float, text: str, **style: Any) -> None:
            figure.text(x / width, y / height, text, **style)

        write(_MARGIN, height - _MARGIN, title, va="top", size=10, weight="bold")
        write(_MARGIN, _MARGIN, note, va="bottom", size=8, color="#404040")
        top = height - _MARGIN - head
        for c, name in enumerate(columns[:across]):
            middle = _MARGIN + c * (_SIDE + _GAP) + _SIDE / 2
            write(middle, top + 0.05, name, ha="center", va="bottom", size=9)
        for row, side, under, step in zip(rows, tall, texts, steps, strict=True):
            for c, picture in enumerate(row):
                left, bottom = _MARGIN + c * (_SIDE + _GAP), top - side
                place = (left / width, bottom / height, _SIDE / width, side / height)
                axes = figure.add_axes(place)
                axes.imshow(picture, interpolation=_interpolation(picture))
                axes.axis("off")
                if c < len(under):
                    write(left + _SIDE / 2, bottom - 0.03, under[c], ha="center", va="top", size=8)
            top -= step
        return save(figure, path)


def _height(text: str) -> float:
    """Inches that small text takes."""
    return (text.count("\n") + 1) * _LINE if text else 0.0


def neighbors(
    generated: Sequence[Picture],
    nearest: Sequence[Sequence[Picture]],
    distances: Sequence[Sequence[float]],
    path: Path,
    *,
    names: Sequence[str] = (),
    measure: str = "feature distance",
) -> Path:
    """Each generated picture, followed by the real pictures nearest to it.

    Args:
        generated: pictures as `sheet` takes them.
        nearest: for each, its real neighbors, nearest first.
        distances: of these neighbors.
        path: of the PNG.
        names: of the generated pictures.
        measure: what the distances are.
    Raises:
        ValueError: no picture.
    """
    most = max((len(row) for row in nearest), default=0)
    names = [*names, *[""] * (len(generated) - len(names))]
    return sheet(
        [[picture, *row] for picture, row in zip(generated, nearest, strict=True)],
        path,
        title="Nearest real pictures, least realistic generated ones first",
        columns=["generated", *(f"real, {_ordinal(i + 1)}" for i in range(most))],
        captions=[
            [name, *(f"{distance:#.3g}" for distance in row)]
            for name, row in zip(names, distances, strict=True)
        ],
        note=f"Below each real picture: its {measure} to the generated one at the left of the row.",
    )


@dataclass(frozen=True)
class Pair:
    """A generated picture and the training picture nearest to it.

    Attributes:
        generated, training: pictures `(height, width, 3)` uint8.
        ratio: distance over the typical one between real pictures; small is suspicious.
        p_value: share of held-out real pictures that are as near; None if not known.
        names: of the two files.
    """

    generated: Picture
    training: Picture
    ratio: float
    p_value: float | None = None
    names: tuple[str, str] = ("", "")


def pairs(worst: Sequence[Pair], path: Path, *, amplification: float = 4.0) -> Path:
    """The pairs that look most like copies, with their difference.

    Args:
        worst: most suspicious first; a training picture of another size is resized.
        path: of the PNG.
        amplification: factor on absolute differences, cut at 255.
    Raises:
        ValueError: no pair.
    """
    rows = []
    for pair in worst:
        rows.append([pair.generated, pair.training, _difference(pair, amplification)])
    return sheet(
        rows,
        path,
        title="Generated pictures nearest to training pictures",
        columns=["generated", "training", f"difference x {amplification:g}"],
        captions=[[*pair.names, _verdict(pair)] for pair in worst],
        note="A copy leaves an almost black difference. The ratio compares the distance with that "
        "between different real pictures: near 1 is usual, near 0 a copy.",
    )


def _verdict(pair: Pair) -> str:
    text = f"ratio {pair.ratio:.2f}"
    if pair.p_value is None:
        return text
    return f"{text}\np = {pair.p_value:.2g}"


def _difference(pair: Pair, amplification: float) -> Picture:
    _require_picture(pair.generated)
    _require_picture(pair.training)
    height, width = pair.generated.shape[:2]
    training = pair.training
    if training.shape != pair.generated.shape:
        resized = Image.fromarray(training).resize((width, height), Image.Resampling.BILINEAR)
        training = np.asarray(resized)
    apart = np.abs(pair.generated.astype(np.float32) - training) * amplification
    difference: Picture = np.clip(np.rint(apart), 0, 255).astype(np.uint8)
    return difference


def _require_picture(picture: Picture) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(
            f"A picture of shape {picture.shape} and type {picture.dtype}; expected "
            "(height, width, 3) uint8."
        )


def _interpolation(picture: Picture) -> str:
    """Small pictures show their pixels, large ones are averaged."""
    return "nearest" if max(picture.shape[:2]) <= _SIDE * DPI else "antialiased"


def _ordinal(number: int) -> str:
    return "nearest" if number == 1 else f"{number}."
