"""Figures of chosen subsets: where they lie among all pictures, and what they show.

Arrays in, one PNG out. Source paper 000, figure 1: all pictures in the plane of the first two
principal components, and the subsets of several methods on the same axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from PIL import Image

from tfgan_med import files
from tfgan_med.evaluation.canvas import fitted, new_figure, save, set_caption, short
from tfgan_med.ops.images import grid

Points = npt.NDArray[np.floating[Any]]  # (pictures, components)
Places = npt.NDArray[np.float64]  # (pictures, 2)

_OTHERS = "#c8c8c8"
_TINTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a", "#6a3d9a")
"""Of clusters: Okabe and Ito, a brown and a violet; beyond eight they repeat."""
_MARKERS = "o^sDvP*X"
_NAMED = 8  # clusters that the legend names

_SHEET = 3000  # pixels of a contact sheet's side, at most about
_MOST = 1024  # pictures on it
_FRAME = 3


@dataclass(frozen=True)
class Shown:
    """A subset in a figure.

    Attributes:
        indices: `(chosen,)` rows of the chosen pictures.
        clusters: `(chosen,)` the cluster of each, from 0.
        centroids: `(clusters, components)`, the first two are drawn; None leaves them out.
        labels: `(pictures,)` the cluster of every picture; None leaves the others grey alone.
    """

    indices: npt.NDArray[np.integer[Any]]
    clusters: npt.NDArray[np.integer[Any]]
    centroids: Points | None = None
    labels: npt.NDArray[np.integer[Any]] | None = None


def scatter(
    points: Points, shown: Shown, path: Path, *, explained: Sequence[float] = (), title: str = ""
) -> Path:
    """All pictures light grey, the chosen ones in the color and marker of their cluster.

    Args:
        points: `(pictures, components)`; the first two are drawn, a single one along a line.
        shown: the subset.
        path: of the PNG.
        explained: share of the variance on each component, for the axes.
        title: above all.
    Raises:
        ValueError: no points, or one that is not finite.
    """
    places = _plane(points)
    with new_figure(7.0, 6.4) as figure:
        axes = figure.add_subplot()
        _draw(axes, places, shown)
        _name_axes(axes, explained)
        axes.set_title(fitted(title, 70))
        marks = _marks(len(points), shown)
        figure.legend(*marks, loc="outside upper center", ncols=min(4, len(marks[1])))
        set_caption(figure, _caption(shown))
        return save(figure, path)


def panels(
    points: Points, subsets: Mapping[str, Shown], path: Path, *, explained: Sequence[float] = ()
) -> Path:
    """All pictures, then each subset, on common axes: figure 1 of source paper 000.

    Args:
        points, explained: as for `scatter`.
        subsets: name to subset; a panel each.
        path: of the PNG.
    Raises:
        ValueError: no points or no subset.
    """
    if not subsets:
        raise ValueError("Panels need at least one subset; received none.")
    places = _plane(points)
    across = min(4, len(subsets) + 1)
    down = math.ceil((len(subsets) + 1) / across)
    with new_figure(3.1 * across + 0.4, 3.0 * down + 0.6) as figure:
        first: Axes | None = None
        for i, (name, shown) in enumerate([("all", None), *subsets.items()]):
            axes = figure.add_subplot(down, across, i + 1, sharex=first, sharey=first)
            first = first or axes
            _draw(axes, places, shown)
            count = len(points) if shown is None else len(shown.indices)
            axes.set_title(f"{fitted(short(name, 34), 34)} ({count})")
            if i >= len(subsets) + 1 - across:
                axes.set_xlabel(_axis_name(0, explained))
            else:
                axes.tick_params(labelbottom=False)
            if i % across == 0:
                axes.set_ylabel(_axis_name(1, explained))
            else:
                axes.tick_params(labelleft=False)
        set_caption(
            figure,
            "Grey: all pictures. Colors and markers: chosen ones by cluster. Crosses: centroids. "
            "Distances in the plane are those of two components only.",
        )
        return save(figure, path)


def _plane(points: Points) -> Places:
    """`(pictures, 2)`; what has one component lies on a line."""
    places = np.asarray(points, np.float64)
    if places.ndim != 2 or not places.size or not np.isfinite(places).all():
        raise ValueError(
            f"A scatter needs finite points: received shape {places.shape}; expected (pictures, "
            "components)."
        )
    return places[:, :2] if places.shape[1] > 1 else np.hstack([places, np.zeros_like(places)])


def _draw(axes: Axes, places: Places, shown: Shown | None) -> None:
    """All pictures small, pale and below; the chosen ones and centroids above."""
    colors: Any = _OTHERS
    if shown is not None and shown.labels is not None and _num_clusters(shown) > 1:
        colors = np.array([_pale(cluster) for cluster in range(_num_clusters(shown))])[shown.labels]
    size = 14 if len(places) < 600 else 7 if len(places) < 5000 else 2
    axes.scatter(places[:, 0], places[:, 1], s=size, c=colors, linewidths=0, zorder=1)
    if shown is not None:
        _draw_centroids(axes, shown)
        _draw_chosen(axes, places, shown)
    axes.margins(0.05)


def _draw_chosen(axes: Axes, places: Places, shown: Shown) -> None:
    for cluster in np.unique(shown.clusters).tolist():
        own = places[shown.indices[shown.clusters == cluster]]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=26 if len(shown.indices) <= 200 else 14,
            c=_tint(cluster),
            marker=_MARKERS[cluster % len(_MARKERS)],
            edgecolors="black",
            linewidths=0.6,
            zorder=4,  # above the centroid, which in a cluster of one is the same point
        )


def _draw_centroids(axes: Axes, shown: Shown) -> None:
    """Black crosses with a white border; small where there are many."""
    if shown.centroids is None or not len(shown.centroids):
        return
    center = _plane(shown.centroids)
    size, line = (44, 1.6) if len(center) <= _NAMED else (12, 0.9)
    for color, zorder, border in (("white", 2, 1.4), ("black", 3, 0.0)):
        axes.scatter(
            center[:, 0],
            center[:, 1],
            s=size * (1 + border / 8),
            c=color,
            marker="x",
            linewidths=line + border,
            zorder=zorder,
        )


def _num_clusters(shown: Shown) -> int:
    every = shown.clusters if shown.labels is None else shown.labels
    return int(max(every.max(initial=0), shown.clusters.max(initial=0))) + 1


def _tint(cluster: int) -> str:
    return _TINTS[cluster % len(_TINTS)]


def _pale(cluster: int) -> npt.NDArray[np.float64]:
    """The cluster's color mixed with the light grey of points that were not chosen."""
    red, green, blue = _rgb(_tint(cluster))
    grey = np.array(_rgb(_OTHERS)) / 255.0
    return np.asarray(0.25 * np.array([red, green, blue]) / 255.0 + 0.75 * grey)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _name_axes(axes: Axes, explained: Sequence[float]) -> None:
    axes.set_xlabel(_axis_name(0, explained))
    axes.set_ylabel(_axis_name(1, explained))


def _axis_name(axis: int, explained: Sequence[float]) -> str:
    if axis < len(explained):
        of = " of variance" if axis == 0 else ""
        return f"component {axis + 1} ({100 * explained[axis]:.0f} %{of})"
    return f"component {axis + 1}" if axis == 0 or not explained else ""


def _marks(count: int, shown: Shown) -> tuple[list[Line2D], list[str]]:
    """Handles and labels of the legend."""
    present = np.unique(shown.clusters).tolist()
    marks = [_mark(_OTHERS, "o", edge="none")]
    labels = [f"all ({count})"]
    if len(present) == 1:
        marks.append(_mark(_tint(present[0]), _MARKERS[present[0] % len(_MARKERS)]))
        labels.append(f"chosen ({len(shown.indices)})")
    else:
        for cluster in present[:_NAMED]:
            own = int((shown.clusters == cluster).sum())
            marks.append(_mark(_tint(cluster), _MARKERS[cluster % len(_MARKERS)]))
            labels.append(f"chosen, cluster {cluster + 1} ({own})")
    if shown.centroids is not None and len(shown.centroids):
        marks.append(Line2D([], [], ls="", marker="x", color="black", ms=7, mew=1.6))
        labels.append("centroid" + "s" * (len(shown.centroids) > 1))
    return marks, labels


def _mark(color: str, marker: str, edge: str = "black") -> Line2D:
    return Line2D([], [], ls="", marker=marker, mfc=color, mec=edge, mew=0.6, ms=6)


def _caption(shown: Shown) -> str:
    text = "Chosen by distances in all components; the plane shows two of them."
    present = len(np.unique(shown.clusters))
    if present > _NAMED:
        text += f" Clusters: {present}; colors repeat after {len(_TINTS)}."
    return text


# Contact sheet ------------------------------------------------------------------------------------


def contact_sheet(
    pictures: npt.NDArray[np.uint8], clusters: npt.NDArray[np.integer[Any]], path: Path
) -> int:
    """The chosen pictures in rows, framed in the color of their cluster.

    Args:
        pictures: `(chosen, height, width, 3)` uint8, by cluster and rank.
        clusters: of each; with a single one there are no frames.
        path: of the PNG.
    Returns:
        How many are on it: above 1024, that many spread evenly over all.
    Raises:
        ValueError: no pictures.
    """
    if not len(pictures):
        raise ValueError("A contact sheet needs at least one picture; received none.")
    rows = sheet_rows(len(pictures))
    shown, owners = pictures[rows], clusters[rows]
    columns = math.ceil(math.sqrt(len(rows)))
    side = max(24, _SHEET // columns)
    if max(shown.shape[1:3]) > side:
        shown = np.stack([_reduced(picture, side) for picture in shown])
    if len(np.unique(owners)) > 1:
        shown = np.stack([_framed(p, int(c)) for p, c in zip(shown, owners, strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        Image.fromarray(grid(shown, columns)).save(temporary, format="PNG")
    return len(rows)


def sheet_rows(count: int) -> npt.NDArray[np.int64]:
    """Which of so many pictures are on the sheet."""
    return np.linspace(0, count - 1, min(count, _MOST)).round().astype(np.int64)


def _reduced(picture: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _framed(picture: npt.NDArray[np.uint8], cluster: int) -> npt.NDArray[np.uint8]:
    height, width, _ = picture.shape
    framed = np.empty((height + 2 * _FRAME, width + 2 * _FRAME, 3), np.uint8)
    framed[:] = _rgb(_tint(cluster))
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = picture
    return framed
