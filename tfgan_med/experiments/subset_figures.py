"""Figures of a subset study: diversity against spread, against the paper's order, all metrics.

Numbers of `summary.json` in, a PNG and an SVG out. Kinds of subsets are told apart by color and by
marker; KSS bears its number of clusters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tfgan_med.evaluation.canvas import fitted, new_figure, short
from tfgan_med.experiments import wording
from tfgan_med.experiments.drawings import (
    COLORS,
    FAINT,
    MARKERS,
    REFERENCE,
    SOFT,
    Drawing,
    save,
)
from tfgan_med.experiments.subset_tables import (
    lower_is_better,
    measure_label,
    metric_label,
    picked,
    subset_label,
)
from tfgan_med.experiments.tables import Json

_BLUE, _ORANGE, _GREEN = COLORS[:3]
_KINDS = {
    "random": (REFERENCE, "D", "Random"),
    "center": (_ORANGE, "v", "Center"),
    "kss": (_BLUE, "o", "KSS, with its number of clusters"),
    "kcenter": (_GREEN, "s", "k-center"),
}
_DIVERSITY = ("d", "cid", "is")  # the first that was measured is drawn
_SPREAD = ("pairwise_distance", "variance_ratio", "coverage_radius", "mean_coverage_radius")
_SHOWN = ("is", "fid", "kid", "c", "d", "cid")


def diversity(summary: Json) -> str | None:
    """The measure of diversity that figures and the answer are about: D, else CID, else IS."""
    found = {entry["metric"] for entry in summary.get("results") or []}
    return next((metric for metric in _DIVERSITY if metric in found), None)


# Diversity against spread -------------------------------------------------------------------------


def against_spread(summary: Json, name: str, folder: Path) -> Drawing | None:
    """Rows of panels for generators, columns for measures of spread; a point for each subset."""
    metric = diversity(summary)
    results = picked(summary.get("results"), set=name, metric=metric)
    generators = list(dict.fromkeys(entry["generator"] for entry in results))
    measures = _measures(summary, name)
    if metric is None or not generators or not measures:
        return None
    across, down = len(measures), len(generators)
    with new_figure(max(2.5 * across + 0.4, 3.6), 2.1 * down + 0.7) as figure:
        for i, generator in enumerate(generators):
            beside: Axes | None = None
            for j, measure in enumerate(measures):
                axes = figure.add_subplot(down, across, i * across + j + 1, sharey=beside)
                beside = beside or axes
                of_generator = picked(results, generator=generator)
                _draw_points(axes, summary, name, measure, of_generator)
                if i == down - 1:
                    axes.set_xlabel(fitted(_more_spread(summary, measure), 30))
                if j:
                    axes.tick_params(labelleft=False)
                else:
                    label = metric_label(summary, metric)
                    axes.set_ylabel(label if down == 1 else f"{label}, {short(generator, 18)}")
        handles = [_handle(kind) for kind in _kinds(summary, results)]
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
        caption = (
            f"{name}: {metric_label(summary, metric)} of the generated pictures against the spread "
            "of the chosen ones; to the right: more spread. Lines are 95 % intervals over seeds "
            "and, across, standard deviations; small circles are single seeds."
        )
        return save(figure, folder, f"spread-{wording.slug(name)}", caption, wide=across > 1)


def _measures(summary: Json, name: str) -> list[str]:
    """Up to three: those that were judged, else the usual ones."""
    there = {entry["measure"] for entry in picked(summary.get("spread"), set=name)}
    claim = "diversity_grows_with_spread"
    judged = [e.get("measure") for e in picked(summary.get("judgments"), claim=claim)]
    wanted = [measure for measure in dict.fromkeys(judged) if measure] or list(_SPREAD)
    return [measure for measure in wanted if measure in there][:3]


def _draw_points(
    axes: Axes, summary: Json, name: str, measure: str, results: Sequence[Json]
) -> None:
    spread = {e["subset"]: e for e in picked(summary.get("spread"), set=name, measure=measure)}
    below = -10.0
    for entry in sorted(results, key=lambda one: _rank(summary, one["subset"])):
        chosen = spread.get(entry["subset"])
        if chosen is None or chosen.get("mean") is None or entry.get("mean") is None:
            continue
        kind, clusters = _kind(summary, entry["subset"])
        color, marker, _ = _KINDS.get(kind, (SOFT, "P", kind))
        x, y = chosen["mean"], entry["mean"]
        if entry.get("low") is not None and entry.get("high") is not None:
            axes.plot([x, x], [entry["low"], entry["high"]], color=color, lw=1.6, zorder=2)
        if chosen.get("sd"):
            axes.plot([x - chosen["sd"], x + chosen["sd"]], [y, y], color=color, lw=1.6, zorder=2)
        dots = [value for value in entry.get("values") or [] if value is not None]
        if len(dots) > 1:
            axes.plot(
                [x] * len(dots), dots, ls="", marker="o", ms=3, mfc="none", mec=color, mew=0.7
            )
        axes.plot(x, y, ls="", marker=marker, color=color, ms=7, mec="#ffffff", mew=0.8, zorder=4)
        if kind == "kss":
            below = 4 if below < 0 else -10.0  # neighbours may lie on each other
            axes.annotate(
                str(clusters), (x, y), xytext=(5, below), textcoords="offset points", size=8,
                color=SOFT, zorder=5,
            )  # fmt: skip
    axes.margins(x=0.14, y=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    if _smaller_is_more(summary, measure):
        axes.invert_xaxis()


def _smaller_is_more(summary: Json, measure: str) -> bool:
    better = {entry["measure"]: entry.get("better") for entry in summary.get("measures") or []}
    return better.get(measure) == "lower"


def _more_spread(summary: Json, measure: str) -> str:
    turned = " (axis turned)" if _smaller_is_more(summary, measure) else ""
    return f"{measure_label(summary, measure)}{turned}"


def _kind(summary: Json, name: str) -> tuple[str, int | None]:
    """Method and clusters of a subset of ours, or of the paper by its name."""
    for entry in picked(summary.get("subsets"), name=name):
        return entry.get("method") or name, entry.get("clusters")
    numbered = re.fullmatch(r"kss[-_ ]?(\d+)", name.lower())
    return ("kss", int(numbered[1])) if numbered else (name.lower(), None)


def _kinds(summary: Json, results: Sequence[Json]) -> list[str]:
    found = {_kind(summary, entry["subset"])[0] for entry in results}
    return [kind for kind in _KINDS if kind in found] + sorted(found - set(_KINDS))


def _handle(kind: str) -> Line2D:
    color, marker, label = _KINDS.get(kind, (SOFT, "P", kind))
    return Line2D([], [], ls="", marker=marker, color=color, ms=7, mec="#ffffff", label=label)


# Diversity in the paper's order -------------------------------------------------------------------


def in_order(summary: Json, folder: Path) -> Drawing | None:
    """Center, Random and KSS by the number of clusters: ours, and the paper's table beside it."""
    metric = diversity(summary)
    if metric is None:
        return None
    ours = picked(summary.get("results"), metric=metric)
    panels: list[tuple[str, Sequence[Json]]] = [
        (generator, [e for e in picked(ours, generator=generator) if e.get("mean") is not None])
        for generator in dict.fromkeys(entry["generator"] for entry in ours)
    ]
    printed = [
        {**e, "mean": e.get("value")} for e in picked(summary.get("published"), metric=metric)
    ]
    panels += [("the paper's table", printed)] if printed else []
    panels = [(title, entries) for title, entries in panels if entries]
    if not panels:
        return None
    label = metric_label(summary, metric)
    with new_figure(max(3.1 * len(panels), 3.8), 3.3) as figure:
        for i, (title, entries) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), i + 1)
            _draw_order(axes, summary, entries)
            axes.set_title(short(title, 30))
            if i == 0:
                axes.set_ylabel(label)
        caption = (
            f"{label} in the paper's order of spread: Center, Random, KSS by its number of "
            "clusters. Lines are 95 % intervals over seeds"
            + ("; the paper has one training for each point." if printed else ".")
        )
        return save(figure, folder, "order", caption, wide=len(panels) > 1)


def _draw_order(axes: Axes, summary: Json, entries: Sequence[Json]) -> None:
    order = sorted({entry["subset"] for entry in entries}, key=lambda name: _rank(summary, name))
    names = list(dict.fromkeys(entry["set"] for entry in entries))
    for place, name in enumerate(names):
        color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        shift = 0.09 * (place - (len(names) - 1) / 2)
        found = sorted(picked(entries, set=name), key=lambda e: order.index(e["subset"]))
        for entry in found:
            if entry.get("low") is not None and entry.get("high") is not None:
                x = order.index(entry["subset"]) + shift
                axes.plot([x, x], [entry["low"], entry["high"]], color=color, lw=1.6)
        axes.plot(
            [order.index(entry["subset"]) + shift for entry in found],
            [entry["mean"] for entry in found],
            marker=marker, color=color, ms=6, lw=1, mec="#ffffff", mew=0.8, label=short(name, 24),
        )  # fmt: skip
    axes.set_xticks(range(len(order)), [_tick(summary, name) for name in order], rotation=45)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.08)
    if len(names) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.28), ncols=2, handlelength=1.4)
    else:
        axes.set_xlabel(short(names[0], 30))


def _rank(summary: Json, name: str) -> tuple[int, int, str]:
    kind, clusters = _kind(summary, name)
    kinds = ["center", "random", "kss", "kcenter"]
    return (kinds.index(kind) if kind in kinds else len(kinds), clusters or 0, name)


def _tick(summary: Json, name: str) -> str:
    kind, clusters = _kind(summary, name)
    if kind == "kss" and clusters is not None:
        return f"KSS{clusters}"
    return short(subset_label(summary, name) if kind != name else kind.capitalize(), 16)


# All metrics --------------------------------------------------------------------------------------


def metrics(summary: Json, name: str, folder: Path) -> Drawing | None:
    """A panel for each metric: subsets with their intervals, generators side by side."""
    results = [e for e in picked(summary.get("results"), set=name) if e.get("mean") is not None]
    shown = [metric for metric in _SHOWN if picked(results, metric=metric)]
    if not shown:
        return None
    subsets = sorted({e["subset"] for e in results}, key=lambda one: _rank(summary, one))
    generators = list(dict.fromkeys(entry["generator"] for entry in results))
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    tall = max(1.7, 0.3 * len(subsets) + 0.6)
    with new_figure(max(2.4 * across + 0.6, 3.6), tall * down + 0.5) as figure:
        beside: Axes | None = None
        for i, metric in enumerate(shown):
            axes = figure.add_subplot(down, across, i + 1, sharey=beside)
            beside = beside or axes
            _draw_metric(axes, picked(results, metric=metric), subsets, generators)
            direction = ", lower is better" if lower_is_better(summary, metric) else ""
            axes.set_title(f"{metric_label(summary, metric)}{direction}")
            if i % across:
                axes.tick_params(labelleft=False)
        if beside is not None:
            beside.set_yticks(range(len(subsets)), [_tick(summary, one) for one in subsets])
            beside.set_ylim(len(subsets) - 0.5, -0.5)
        if len(generators) > 1:
            figure.legend(
                handles=[
                    Line2D([], [], ls="", marker=MARKERS[k % len(MARKERS)],
                           color=COLORS[k % len(COLORS)], ms=6, label=short(one, 24))
                    for k, one in enumerate(generators)
                ],
                loc="outside upper left", ncols=4,
            )  # fmt: skip
        caption = (
            f"{name}: all metrics of each subset, mean over seeds with its 95 % interval; small "
            "circles are single seeds."
        )
        return save(figure, folder, f"metrics-{wording.slug(name)}", caption, wide=across > 1)


def _draw_metric(
    axes: Axes, results: Sequence[Json], subsets: Sequence[str], generators: Sequence[str]
) -> None:
    for place, generator in enumerate(generators):
        color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        shift = 0.26 * (place - (len(generators) - 1) / 2)
        for entry in picked(results, generator=generator):
            y = subsets.index(entry["subset"]) + shift
            if entry.get("low") is not None and entry.get("high") is not None:
                axes.plot([entry["low"], entry["high"]], [y, y], color=color, lw=1.6)
            dots = [value for value in entry.get("values") or [] if value is not None]
            if len(dots) > 1:
                axes.plot(
                    dots, [y] * len(dots), ls="", marker="o", ms=3, mfc="none", mec=SOFT, mew=0.7,
                    zorder=3,
                )  # fmt: skip
            axes.plot(
                entry["mean"], y, marker=marker, color=color, ms=6, mec="#ffffff", mew=0.8, zorder=4
            )
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.08)
