"""The canvas of all figures: one style, nothing kept by pyplot; a PNG is whole or not there."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfgan_med import files

DPI = 100

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": "#808080",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,  # file names may hold a dollar sign
}


@contextmanager
def new_figure(width: float, height: float, constrained: bool = True) -> Iterator[Figure]:
    """A figure of its own; nothing is kept by pyplot, so there is nothing to close."""
    with mpl.rc_context():
        mpl.rcdefaults()  # not what the user set for figures of his own
        mpl.rcParams.update(_STYLE)
        figure = Figure(
            figsize=(width, height), dpi=DPI, layout="constrained" if constrained else None
        )
        FigureCanvasAgg(figure)
        yield figure


def set_caption(figure: Figure, text: str) -> None:
    """A sentence below all."""
    width = figure.get_size_inches()[0]
    figure.supxlabel(fitted(text, int(width * 15)), x=0.01, ha="left", size=8, color="#404040")


def fitted(text: str, characters: int) -> str:
    """Broken into lines of so many characters; long words such as file names too."""
    lines = [textwrap.wrap(line, max(characters, 8)) for line in text.split("\n")]
    return "\n".join("\n".join(line) for line in lines)


def short(name: str, characters: int = 48) -> str:
    """A long name keeps its end, which tells folders apart."""
    return name if len(name) <= characters else "…" + name[1 - characters :]


def save(figure: Figure, path: Path) -> Path:
    """Write the PNG; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")
    return path
