"""Charts of an evaluation: feature scatter, histograms, sets side by side.

Arrays in, one PNG out. Sets are told apart by color and by marker or line style, so the charts
can be read without color.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfgan_med.evaluation.canvas import fitted, new_figure, save, set_caption, short

if TYPE_CHECKING:
    from tfgan_med.evaluation.comparing import Row

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Values = npt.NDArray[np.floating[Any]]

_REAL = "#4d4d4d"
_COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
_MARKERS = "o^sDvP"
_CLASS_MARKERS = "osD^vP*X"
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.", (0, (8, 2)), (0, (1, 2.5)))


# Scatter ------------------------------------------------------------------------------------------


def embedding(
    real: Features,
    fakes: Mapping[str, Features],
    path: Path,
    *,
    method: Literal["tsne", "pca"] = "tsne",
    seed: int = 0,
    most: int = 1000,
    real_classes: Sequence[str] | None = None,
    fake_classes: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Scatter of real and generated features in two dimensions.

    The sets go together through a principal component analysis (50 components); a panel shows
    the first two, and with `tsne` a second panel the t-SNE of all of them.

    Args:
        real: `(images, features)`; memory-mapped arrays are read in part.
        fakes: name to features of the same extractor.
        path: of the PNG.
        method: `pca` leaves out t-SNE, which takes about ten seconds for 2000 images.
        seed: of the samples and of t-SNE.
        most: images of each set, drawn at random.
        real_classes, fake_classes: class names; the eight most frequent get markers of their own.
    Raises:
        ValueError: fewer than 5 images in all, unequal dimensions, or features all alike.
    Source: van der Maaten and Hinton 2008; scikit-learn.
    """
    sets = {"real": real, **{_distinct(name): rows for name, rows in fakes.items()}}
    classes = {"real": real_classes, **{_distinct(n): (fake_classes or {}).get(n) for n in fakes}}
    chosen = {name: _sample(len(rows), most, seed) for name, rows in sets.items()}
    points = _components([sets[name][rows] for name, rows in chosen.items()], seed)
    owners = np.repeat(np.arange(len(sets)), [len(rows) for rows in chosen.values()])
    kinds = _kinds(classes, chosen)

    panels = [("PCA", points.values[:, :2])]
    if method == "tsne":
        panels.append(("t-SNE", _tsne(points.values, seed)))
    with new_figure(5.0 * len(panels) + 0.2, 5.4) as figure:
        for i, (name, places) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), i + 1)
            _scatter(axes, places, owners, kinds)
            axes.set_title(name)
            if name == "PCA":
                axes.set_xlabel(f"component 1 ({points.explained[0]:.0%} of variance)")
                axes.set_ylabel(f"component 2 ({points.explained[1]:.0%})")
            else:
                axes.set(xticks=[], yticks=[])
        counted = [
            f"{name} ({len(rows)}{_of(len(rows), len(sets[name]))})"
            for name, rows in chosen.items()
        ]
        _legend_of_sets(figure, counted, kinds)
        caption = (
            "Overlap of the clouds is good; generated points far from all real ones, and real "
            "regions without generated points, deserve a look."
        )
        if method == "tsne":
            caption += " In t-SNE, distances between clusters and their sizes mean little."
        set_caption(figure, caption)
        return save(figure, path)


@dataclass(frozen=True)
class _Components:
    """Principal components: `values` (images, components), `explained` shares of variance."""

    values: Values
    explained: Values


def _components(parts: Sequence[Features], seed: int) -> _Components:
    from sklearn.decomposition import PCA

    if len({part.shape[1] for part in parts}) > 1:
        widths = ", ".join(str(part.shape[1]) for part in parts)
        raise ValueError(f"A scatter needs features of one extractor: received {widths} features.")
    joined = np.concatenate([np.asarray(part, np.float64) for part in parts])
    if len(joined) < 5 or joined.shape[1] < 2:
        raise ValueError(
            f"A scatter needs 5 images and 2 features: received {len(joined)} and "
            f"{joined.shape[1]}."
        )
    if not np.ptp(joined, axis=0).any():
        raise ValueError("The features of all images are equal; there is nothing to draw.")
    pca = PCA(min(50, *joined.shape), random_state=seed)
    return _Components(pca.fit_transform(joined), pca.explained_variance_ratio_)


def _tsne(points: Values, seed: int) -> Values:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tsne = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # on a busy machine its threads wait for each other, 13 times slower
        found: Values = tsne.fit_transform(points)
    return found


def _distinct(name: str) -> str:
    """A generated set may be called `real` too."""
    return f"{name} (generated)" if name == "real" else name


def _sample(count: int, most: int, seed: int) -> npt.NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def _of(shown: int, count: int) -> str:
    return f" of {count}" if shown < count else ""


def _kinds(
    classes: Mapping[str, Sequence[str] | None], chosen: Mapping[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.str_] | None:
    """Class of each point, rare ones together; None unless all sets have classes."""
    named = [
        np.asarray(classes[name], np.str_)[rows]
        for name, rows in chosen.items()
        if classes[name] is not None
    ]
    if len(named) < len(chosen):
        return None
    kinds = np.concatenate(named).astype(object)
    names, counts = np.unique(kinds.astype(np.str_), return_counts=True)
    if len(names) > len(_CLASS_MARKERS):
        frequent = names[np.argsort(-counts, kind="stable")[: len(_CLASS_MARKERS) - 1]]
        kinds[~np.isin(kinds, frequent)] = "others"
    return kinds.astype(np.str_)


def _scatter(
    axes: Axes,
    places: Values,
    owners: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.str_] | None,
) -> None:
    size = 26 if len(places) < 300 else 14 if len(places) < 1200 else 8
    for owner in np.unique(owners):
        color = _color(int(owner))
        for kind in [None] if kinds is None else np.unique(kinds):
            own = (owners == owner) & (True if kind is None else kinds == kind)
            axes.scatter(
                places[own, 0],
                places[own, 1],
                s=size,
                c=color,
                marker=_marker(int(owner)) if kind is None else _class_marker(kinds, kind),
                alpha=0.55,
                linewidths=0,
                zorder=2 + owner,
            )
    axes.margins(0.04)


def _legend_of_sets(
    figure: Figure, names: Sequence[str], kinds: npt.NDArray[np.str_] | None
) -> None:
    from matplotlib.lines import Line2D

    def dot(color: str, marker: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=color, ms=7, mew=0)

    marks = [dot(_color(i), _marker(i) if kinds is None else "o") for i in range(len(names))]
    labels = [textwrap.shorten(name, 60, placeholder="…") for name in names]
    if kinds is not None:
        present = [str(kind) for kind in np.unique(kinds)]
        marks += [dot("#a0a0a0", _class_marker(kinds, kind)) for kind in present]
        labels += [textwrap.shorten(kind, 30, placeholder="…") for kind in present]
    figure.legend(marks, labels, loc="outside upper center", ncols=min(4, len(labels)))


def _color(place: int) -> str:
    """Of the sets, the real one first."""
    return _REAL if place == 0 else _COLORS[(place - 1) % len(_COLORS)]


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _class_marker(kinds: npt.NDArray[np.str_] | None, kind: str) -> str:
    present = [] if kinds is None else list(np.unique(kinds))
    return _CLASS_MARKERS[present.index(kind)]


# Histograms ---------------------------------------------------------------------------------------


def distances(
    real: Values,
    fakes: Mapping[str, Values],
    path: Path,
    *,
    of_real: str = "held-out real to training",
    measure: str = "distance to the nearest training picture",
    threshold: float | None = None,
) -> Path:
    """Distributions of nearest-neighbor distances, real and generated on one axis.

    Args:
        real: `(images,)` distances between different real pictures, to read the others by.
        fakes: name to `(images,)` distances of generated pictures.
        path: of the PNG.
        of_real: what the real distances are.
        measure: label of the axis.
        threshold: distance below which a picture is suspicious; by default the one below which
            1 % of the real distances lie.
    Raises:
        ValueError: a set without distances, or with one that is not finite.
    """
    sets = {of_real: np.asarray(real, np.float64), **fakes}
    for name, values in sets.items():
        _require_values(values, name)
    limit = float(np.quantile(sets[of_real], 0.01)) if threshold is None else threshold
    low = min(float(values.min()) for values in sets.values())
    high = max(float(np.quantile(values, 0.995)) for values in sets.values())
    fewest = min(len(values) for values in sets.values())
    edges = _edges(min(low, limit), max(high, limit), fewest)

    with new_figure(6.8, 4.0) as figure:
        axes = figure.add_subplot()
        for place, (name, values) in enumerate(sets.items()):
            below = f", {np.mean(values < limit):.1%} below" if place else ""
            _steps(axes, values, edges, place, f"{short(name)} ({len(values)}{below})")
        axes.axvline(limit, color="black", lw=1, ls=":")
        meaning = "1 % of real are nearer" if threshold is None else "threshold"
        axes.annotate(
            f"{limit:.3g}: {meaning}",
            (limit, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
            textcoords="offset points", va="top", size=8,
        )  # fmt: skip
        axes.set(xlabel=measure, ylabel="pictures")
        axes.yaxis.set_major_formatter(_percent)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.12)  # room for the note at the line
        figure.legend(loc="outside upper left")
        set_caption(
            figure,
            "Generated pictures much nearer to training pictures than real ones point to copies.",
        )
        return save(figure, path)


def shares(
    real: Values,
    fakes: Mapping[str, Values],
    classes: Sequence[str],
    path: Path,
    *,
    bins: int = 25,
) -> Path:
    """Histograms of the share of pixels that each class takes in a picture.

    Args:
        real: `(images, classes)` shares in 0..1.
        fakes: name to shares of the same classes.
        classes: names; a panel each.
        path: of the PNG.
        bins: of each histogram, from 0 to the largest share.
    Raises:
        ValueError: no class, a set without pictures, or other numbers of classes.
    """
    sets = {"real": np.asarray(real, np.float64), **{_distinct(n): v for n, v in fakes.items()}}
    if not classes:
        raise ValueError("Histograms of pixel shares need at least one class; received none.")
    for name, values in sets.items():
        _require_values(values, name)
        if values.ndim != 2 or values.shape[1] != len(classes):
            raise ValueError(
                f"{name}: shares of shape {values.shape}; expected (images, {len(classes)})."
            )
    across = min(3, len(classes))
    down = math.ceil(len(classes) / across)
    with new_figure(max(3.2 * across, 5.0), 2.5 * down + 0.7) as figure:
        for i, kind in enumerate(classes):
            axes = figure.add_subplot(down, across, i + 1)
            top = max(float(values[:, i].max()) for values in sets.values())
            edges = np.linspace(0.0, top if top > 0 else 1.0, bins + 1)
            for place, (name, values) in enumerate(sets.items()):
                _steps(axes, values[:, i], edges, place, f"{short(name)} ({len(values)})")
                axes.plot(
                    values[:, i].mean(), 0, marker="^", ms=8, color=_color(place),
                    clip_on=False, zorder=5, mew=0.8, mec="white",
                )  # fmt: skip
            axes.set_title(short(kind, 34))
            axes.xaxis.set_major_formatter(_percent)
            axes.yaxis.set_major_formatter(_percent)
            axes.set_ylim(bottom=0)
            if i % across == 0:
                axes.set_ylabel("pictures")
            if i >= len(classes) - across:
                axes.set_xlabel("pixels of the picture")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)))
        set_caption(figure, "Triangles: means.")
        return save(figure, path)


def _edges(low: float, high: float, count: int) -> Values:
    bins = int(np.clip(4 * count ** (1 / 3), 16, 80))  # twice Rice's rule: tails matter
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def _steps(axes: Axes, values: Values, edges: Values, place: int, label: str) -> None:
    """Outline of a histogram of shares; values beyond the last edge count in the last bin."""
    heights = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
    axes.stairs(
        heights, edges, color=_color(place), lw=1.6, ls=_LINES[place % len(_LINES)], label=label,
        fill=False, zorder=3 + place,
    )  # fmt: skip
    if place == 0:
        axes.stairs(heights, edges, color=_color(0), alpha=0.15, fill=True, zorder=1)


def _percent(share: float, _: Any = None) -> str:
    return f"{100 * share:.3g} %"


def _require_values(values: Values, name: str) -> None:
    if not len(values):
        raise ValueError(f"{name}: no values to draw; expected one for each picture.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: a value is not finite. Check what was measured.")


# Sets side by side --------------------------------------------------------------------------------


def bars(rows: Sequence[Row], path: Path, *, references: Mapping[str, float] | None = None) -> Path:
    """Values of several sets with their intervals, a panel for each metric.

    Points rather than bars, since most values have no meaningful zero.

    Args:
        rows: see `comparing.Row`.
        path: of the PNG.
        references: metric to its value for real pictures alone, drawn as a line.
    Raises:
        ValueError: no value to draw.
    """
    rows = [row for row in rows if any(place.value is not None for place in row.places)]
    if not rows:
        raise ValueError("There is no value to draw; every metric was left out.")
    names = list(dict.fromkeys(place.fake for row in rows for place in row.places))
    names.sort()  # one order in all panels
    longest = max(len(short(name, 28)) for name in names)
    across = min(3, len(rows))
    down = math.ceil(len(rows) / across)
    room = 0.075 * longest + 0.3
    with new_figure(room + 2.5 * across + 0.3, down * (0.9 + 0.3 * len(names)) + 0.4) as figure:
        for i, row in enumerate(rows):
            axes = figure.add_subplot(down, across, i + 1)
            _points(axes, row, names, (references or {}).get(row.metric))
            axes.set_yticks(range(len(names)))
            axes.set_yticklabels([short(name, 28) for name in names] if i % across == 0 else [])
        explained = "Lines are intervals where the metric has one."
        if references:
            explained += " Dashed: real pictures alone."
        set_caption(figure, explained)
        return save(figure, path)


def _points(axes: Axes, row: Row, names: Sequence[str], reference: float | None) -> None:
    for place in row.places:
        if place.value is None:
            continue
        y = names.index(place.fake)
        color = _COLORS[y % len(_COLORS)]
        if place.interval is not None:
            axes.plot([place.interval.low, place.interval.high], [y, y], color=color, lw=2.2)
        axes.plot(place.value, y, marker=_marker(y), color=color, ms=7, mec="white", mew=0.8)
    if reference is not None:
        axes.axvline(reference, color=_REAL, lw=1, ls=(0, (4, 2)), zorder=1)
    missing = {place.fake for place in row.places if place.value is not None}
    for y, name in enumerate(names):
        if name not in missing:
            axes.annotate(
                "no value", (0.02, y), xycoords=("axes fraction", "data"), va="center", size=8,
                color="#707070",
            )  # fmt: skip
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.grid(axis="x", color="#e4e4e4", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    direction = {"lower": "← lower is better", "higher": "higher is better →"}.get(row.better, "")
    axes.set_title(fitted(row.metric, 32))
    axes.set_xlabel(direction, color="#404040")
