"""Figures of a report: differences with intervals, seeds, learning curves, confusion, sweep, grid.

Numbers of `summary.json` in, a PNG and an SVG out. Verdicts and series are told apart by color and
by marker or line style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from tfgan_med.evaluation.canvas import fitted, new_figure, short
from tfgan_med.experiments import wording
from tfgan_med.experiments.drawings import (
    COLORS,
    FAINT,
    INK,
    LINE,
    MARKERS,
    REFERENCE,
    SOFT,
    Drawing,
    save,
)
from tfgan_med.experiments.tables import verdicts

Json = Mapping[str, Any]  # an object of summary.json

_SERIES = "#0072b2"
_VERDICTS = {"helps": ("#009e73", "^"), "hurts": ("#d55e00", "v")}
_RIGHT_FIELD, _WRONG_FIELD = "#0070b0", "#d45d01"  # fields and
_ON_FIELD = "#fefefe"  # the white on them look alike in light and dark pages


def of(study: Json, folder: Path) -> dict[str, list[Drawing]]:
    """Draw what a study has numbers for.

    Args:
        study: of `summary.json`.
        folder: for the files.
    Returns:
        Topic (`differences`, `seeds`, `curves`, `confusion`, `sweep`, `grid`) to its figures.
    """
    drawn: dict[str, list[Drawing]] = {
        "differences": [differences(study, folder)] if _compared(study) else [],
        "seeds": [seeds(study, folder)] if _measured(study) else [],
        "curves": [curves(study, metric, folder) for metric in _curve_metrics(study)],
        "confusion": [confusion(study, folder)] if study.get("confusion") else [],
        "sweep": [sweep(study, folder)] if _swept(study) else [],
        "grid": [],
    }
    axes = _grid_axes(study)
    if axes is not None:
        drawn["grid"].append(grid(study, axes, folder))
    return drawn


# Arms ---------------------------------------------------------------------------------------------


def _compared(study: Json) -> list[Json]:
    found = study.get("comparisons") or []
    return [e for e in found if e["metric"] == study["main"] and e["difference"] is not None]


def differences(study: Json, folder: Path) -> Drawing:
    """Forest plot: difference of each arm against the reference by the main metric."""
    rows, main = _compared(study), study["main"]
    factor = wording.scale(main)
    with new_figure(5.4, 1.25 + 0.4 * len(rows)) as figure:
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            color, marker = _VERDICTS.get(row["verdict"], (LINE, "o"))
            if row["detectable"] is not None:
                reach = row["detectable"] * factor
                axes.barh(y, 2 * reach, left=-reach, height=0.62, color=FAINT, lw=0, zorder=1)
            if row["low"] is not None and row["high"] is not None:
                axes.plot([row["low"] * factor, row["high"] * factor], [y, y], color=color, lw=2.4)
            axes.plot(
                row["difference"] * factor, y, marker=marker, color=color, ms=8, mec="#ffffff",
                mew=0.8, zorder=4,
            )  # fmt: skip
        axes.axvline(0, color=INK, lw=1, zorder=2)
        _name_rows(axes, [row["arm"] for row in rows])
        _right_names(axes, [row["verdict"] or wording.MISSING for row in rows])
        unit = " (percentage points)" if wording.is_share(main) else ""
        direction = ", lower is better" if wording.lower_is_better(main) else ""
        axes.set_xlabel(
            fitted(f"{wording.label(main)}, arm minus {study['reference']}{unit}{direction}", 62)
        )
        axes.margins(x=0.06)
        caption = (
            f"{study['downstream']}: difference of each arm against {study['reference']} in "
            f"{wording.label(main)}, with its 95 % interval."
        )
        if any(row["detectable"] is not None for row in rows):
            caption += " Grey: effects too small for this test set to show."
        return save(figure, folder, f"differences-{_slug(study)}", caption)


def _measured(study: Json) -> list[Json]:
    found = study.get("results") or []
    return [e for e in found if e["metric"] == study["main"] and e["mean"] is not None]


def seeds(study: Json, folder: Path) -> Drawing:
    """The main metric of each arm: every seed, their mean and its interval."""
    rows, main = _measured(study), study["main"]
    factor, given = wording.scale(main), verdicts(study)
    with new_figure(5.4, 1.1 + 0.4 * len(rows)) as figure:
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            is_reference = row["arm"] == study["reference"]
            color, marker = _VERDICTS.get(given.get(row["arm"], ""), (LINE, "o"))
            color, marker = (REFERENCE, "D") if is_reference else (color, marker)
            if is_reference:
                axes.axvline(row["mean"] * factor, color=REFERENCE, lw=1, ls=(0, (4, 2)), zorder=1)
            if row["low"] is not None and row["high"] is not None:
                axes.plot([row["low"] * factor, row["high"] * factor], [y, y], color=color, lw=2.4)
            axes.plot(
                row["mean"] * factor, y, marker=marker, color=color, ms=8, mec="#ffffff", mew=0.8,
                zorder=4,
            )  # fmt: skip
            dots = [number * factor for number in row["values"] or [] if number is not None]
            axes.plot(
                dots, [y + 0.26] * len(dots), ls="", marker="o", ms=4, mfc="none", mec=SOFT,
                mew=0.9, zorder=3,
            )  # fmt: skip
        _name_rows(axes, [row["arm"] for row in rows])
        _right_names(axes, [wording.value(main, row["mean"]) for row in rows])
        axes.set_xlabel(_axis_label(main))
        axes.margins(x=0.06)
        caption = (
            f"{study['downstream']}: {wording.label(main)} of each arm on the test set with its "
            f"95 % interval. Circles: single seeds. Dashed: {study['reference']}."
        )
        return save(figure, folder, f"seeds-{_slug(study)}", caption)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)))
    axes.set_yticklabels([short(name, 32) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _right_names(axes: Axes, texts: Sequence[str]) -> None:
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.set_yticks(range(len(texts)))
    right.set_yticklabels(texts)
    right.tick_params(axis="y", length=0)
    right.spines[:].set_visible(False)


# Learning curves ----------------------------------------------------------------------------------


def _curve_metrics(study: Json) -> list[str]:
    drawable = [curve for curve in study.get("curves") or [] if _points(curve)]
    return list(dict.fromkeys(curve["metric"] for curve in drawable))


def _points(curve: Json) -> list[tuple[float, float]]:
    """Steps and values that were measured."""
    both = zip(curve["steps"], curve["values"], strict=True)
    return [(step, number) for step, number in both if number is not None]


def curves(study: Json, metric: str, folder: Path) -> Drawing:
    """A panel for each arm: validation values over steps, a line for each seed."""
    found = [curve for curve in study["curves"] if curve["metric"] == metric]
    arms = list(dict.fromkeys(curve["arm"] for curve in found))
    reference, factor = study.get("reference"), wording.scale(metric)
    across = min(3, len(arms))
    down = math.ceil(len(arms) / across)
    with new_figure(max(2.6 * across, 3.6), 1.75 * down + 0.5) as figure:
        shared: Axes | None = None
        for i, arm in enumerate(arms):
            axes = figure.add_subplot(down, across, i + 1, sharex=shared, sharey=shared)
            shared = shared or axes
            if arm != reference:
                _draw_curves(axes, found, reference, factor, color=REFERENCE, alpha=0.35, lw=1)
            color = REFERENCE if arm == reference else _SERIES
            _draw_curves(axes, found, arm, factor, color=color, alpha=0.9, lw=1.3)
            axes.set_title(short(arm, 30))
            axes.grid(color=FAINT, lw=0.8)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            if i % across:
                axes.tick_params(labelleft=False)
            if i < len(arms) - across:
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel("step")
        figure.supylabel(_axis_label(metric), size=9)
        caption = f"{study['downstream']}: {wording.label(metric)} on validation pictures while "
        caption += "training, a line for each seed."
        if len(arms) > 1 and reference in arms:
            caption += f" Grey: {reference}."
        name = f"curves-{_slug(study)}-{wording.slug(metric)}"
        return save(figure, folder, name, caption, wide=across > 2)


def _draw_curves(
    axes: Axes, found: Iterable[Json], arm: str | None, factor: float, **style: Any
) -> None:
    for curve in found:
        points = _points(curve)
        if curve["arm"] == arm and points:
            axes.plot(
                [step for step, _ in points], [number * factor for _, number in points],
                marker="." if len(points) < 30 else "", ms=3.5, **style,
            )  # fmt: skip


# Confusion matrices -------------------------------------------------------------------------------


def confusion(study: Json, folder: Path) -> Drawing:
    """A matrix for each arm: rows truth, columns prediction; color is the share of the row."""
    found = study["confusion"]
    classes = max(len(entry["classes"]) for entry in found)
    across = min(len(found), max(1, 8 // max(2, classes)), 3)
    down = math.ceil(len(found) / across)
    side = max(1.5, 0.42 * classes)
    with new_figure(max(across * (side + 0.8), 3.0), down * (side + 0.75)) as figure:
        for i, entry in enumerate(found):
            axes = figure.add_subplot(down, across, i + 1)
            _draw_matrix(axes, entry["matrix"])
            names = [short(name, 14) for name in entry["classes"]]
            turned = 90 if max(map(len, names)) * len(names) > 24 else 0
            axes.set_xticks(range(len(names)), names, rotation=turned)
            axes.set_yticks(range(len(names)), names, rotation=90 - turned, va="center")
            axes.set_title(short(entry["arm"], 26))
            if i % across == 0:
                axes.set_ylabel("truth")
            if i >= len(found) - across:
                axes.set_xlabel("prediction")
        caption = (
            f"{study['downstream']}: confusion matrices on the test set, pictures summed over "
            "seeds. Rows: truth. Color: share of the row."
        )
        return save(figure, folder, f"confusion-{_slug(study)}", caption, wide=across > 2)


def _draw_matrix(axes: Axes, matrix: Sequence[Sequence[float]]) -> None:
    size = len(matrix)
    for row, numbers in enumerate(matrix):
        total = sum(numbers)
        for column, number in enumerate(numbers):
            share = number / total if total else 0.0
            color = _RIGHT_FIELD if row == column else _WRONG_FIELD
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=0.04 + 0.9 * share, lw=0
                )
            )
            text = f"{number:g}\n{share:.0%}" if size <= 4 and total else f"{number:g}"
            axes.text(
                column, row, text, ha="center", va="center",
                color=_ON_FIELD if share > 0.55 else INK, size=9 if size <= 8 else 7,
            )  # fmt: skip
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


# Sweep and grid -----------------------------------------------------------------------------------


def _swept(study: Json) -> list[Json]:
    found = [entry for entry in study.get("sweep") or [] if entry["mean"] is not None]
    metrics = [entry["metric"] for entry in found]
    shown = study["main"] if study["main"] in metrics else next(iter(metrics), None)
    return [entry for entry in found if entry["metric"] == shown]


def sweep(study: Json, folder: Path) -> Drawing:
    """A metric over the number of synthetic pictures for each real one."""
    rows = _swept(study)
    metric = rows[0]["metric"]
    factor = wording.scale(metric)
    reference = [e for e in _measured(study) if e["arm"] == study["reference"]]
    reference = [entry for entry in reference if entry["metric"] == metric]
    ratios = sorted({entry["ratio"] for entry in rows})
    with new_figure(5.4, 3.3) as figure:
        axes = figure.add_subplot()
        for entry in reference:
            if entry["low"] is not None and entry["high"] is not None:
                axes.axhspan(entry["low"] * factor, entry["high"] * factor, color=FAINT, lw=0)
            axes.axhline(
                entry["mean"] * factor, color=REFERENCE, lw=1, ls=(0, (4, 2)), label=entry["arm"]
            )
        for place, name in enumerate(dict.fromkeys(entry["generator"] for entry in rows)):
            _draw_sweep(axes, [e for e in rows if e["generator"] == name], name, place, factor)
        if ratios[0] > 0 and ratios[-1] >= 8 * ratios[0]:
            axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ratios))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticklabels([f"{ratio:g}" for ratio in ratios])
        axes.set_xlabel("synthetic pictures for each real one")
        axes.set_ylabel(_axis_label(metric))
        axes.grid(axis="y", color=FAINT, lw=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=3)
        caption = (
            f"{study['downstream']}: {wording.label(metric)} over the number of synthetic pictures "
            "for each real one, with 95 % intervals."
        )
        if reference:
            caption += f" Dashed, with its interval: {study['reference']}."
        return save(figure, folder, f"sweep-{_slug(study)}", caption)


def _draw_sweep(axes: Axes, rows: Sequence[Json], name: str, place: int, factor: float) -> None:
    rows = sorted(rows, key=lambda entry: float(entry["ratio"]))
    color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
    shift = 1 + 0.02 * place  # intervals of two generators stand side by side
    for entry in rows:
        if entry["low"] is not None and entry["high"] is not None:
            x = entry["ratio"] * shift
            axes.plot([x, x], [entry["low"] * factor, entry["high"] * factor], color=color, lw=1.6)
    axes.plot(
        [entry["ratio"] * shift for entry in rows], [entry["mean"] * factor for entry in rows],
        marker=marker, color=color, ms=6, lw=1.2, mec="#ffffff", mew=0.8, label=short(name, 30),
    )  # fmt: skip


def _grid_axes(study: Json) -> tuple[str, str] | None:
    """Names of the two settings that a search varied; one or three are a table only."""
    tried = study.get("grid") or []
    keys = list(dict.fromkeys(key for entry in tried for key in entry["settings"]))
    varied = [key for key in keys if len({repr(e["settings"].get(key)) for e in tried}) > 1]
    return (varied[0], varied[1]) if len(varied) == 2 else None


def grid(study: Json, keys: tuple[str, str], folder: Path) -> Drawing:
    """Validation values of two hyper-parameters; the chosen pair is framed."""
    tried = study["grid"]
    metric = tried[0]["metric"]
    across, down = (
        list(dict.fromkeys(wording.setting(entry["settings"].get(key)) for entry in tried))
        for key in keys
    )
    numbers = [entry["value"] for entry in tried if entry["value"] is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    with new_figure(1.6 + 1.05 * max(len(across), 2), 1.1 + 0.55 * len(down)) as figure:
        axes = figure.add_subplot()
        for entry in tried:
            x, y = (
                names.index(wording.setting(entry["settings"].get(key)))
                for names, key in zip((across, down), keys, strict=True)
            )
            number = entry["value"]
            height = 0.0 if number is None or high == low else (number - low) / (high - low)
            chosen = bool(entry.get("chosen"))
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5),
                    1,
                    1,
                    facecolor=_RIGHT_FIELD,
                    alpha=0.08 + 0.8 * height,
                    lw=0,
                )
            )
            if chosen:
                frame = Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, ec=INK, lw=2)
                axes.add_patch(frame)
            axes.text(
                x, y, wording.value(metric, number), ha="center", va="center",
                color=_ON_FIELD if height > 0.6 else INK, weight="bold" if chosen else "normal",
            )  # fmt: skip
        axes.set_xticks(range(len(across)), across)
        axes.set_yticks(range(len(down)), down)
        axes.set(xlim=(-0.5, len(across) - 0.5), ylim=(len(down) - 0.5, -0.5))
        axes.set_xlabel(fitted(keys[0], 40))
        axes.set_ylabel(fitted(keys[1], 24))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        caption = (
            f"{study['downstream']}: {wording.label(metric)} on validation pictures with the "
            "settings tried. Framed: chosen."
        )
        return save(figure, folder, f"grid-{_slug(study)}", caption)


# Files --------------------------------------------------------------------------------------------


def _slug(study: Json) -> str:
    return wording.slug(study["downstream"])


def _axis_label(metric: str) -> str:
    unit = " (%)" if wording.is_share(metric) else ""
    return f"{wording.label(metric)}{unit}"
