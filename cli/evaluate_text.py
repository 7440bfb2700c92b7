"""Results of `evaluate` as people read them: one in full, or a table of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from . import common

if TYPE_CHECKING:
    from tfgan_med.evaluation.comparing import Comparison
    from tfgan_med.evaluation.measuring import Skipped
    from tfgan_med.metrics.base import Result


def emit(results: Sequence[Result], skipped: Sequence[Skipped], as_json: bool) -> None:
    """Print results: JSON lines, one in full, or a table of several."""
    if as_json:
        for result in results:
            common.emit(result.to_json(), "", True)
        for missing in skipped:
            common.note(f"Not measured: {missing.metric}: {missing.reason}")
        return
    typer.echo(_one(results[0]) if len(results) == 1 and not skipped else _table(results))
    for missing in skipped:
        typer.echo(f"Not measured: {missing.metric}: {missing.reason}")


def _one(result: Result) -> str:
    """The value, then what it depends on, a line each."""
    rows = [*_uncertainty(result), *_context(result)]
    counts = f"{_count(result.count_real)} real, {result.count_fake} generated"
    rows.insert(len(_uncertainty(result)), ("pictures", counts))
    better = f" ({_BETTER[result.better]})" if result.better != "neither" else ""
    title = f"{label(result.metric)} = {number(result.value)}{better}"
    return "\n".join([title, *_columns(rows), *(f"Note: {note}" for note in result.notes)])


_BETTER = {"lower": "lower is better", "higher": "higher is better", "neither": ""}


def _uncertainty(result: Result) -> list[tuple[str, str]]:
    rows = []
    if result.interval:
        span = result.interval
        rows.append((f"{span.level:.0%} interval", f"{number(span.low)} to {number(span.high)}"))
        rows.append(("interval by", f"{span.method}; {span.repeats} resamples, seed {result.seed}"))
    if result.spread is not None:
        rows.append(("spread", f"{number(result.spread)}, {result.spread_of}"))
    if result.reference is not None:
        rows.append(("real", f"{number(result.reference)} {result.reference_of}"))
    return rows


def _context(result: Result) -> list[tuple[str, str]]:
    rows = [("protocol", result.protocol)]
    if result.extractor:
        size = f", {result.dimension} features" if result.dimension else ""
        rows.append(("network", f"{result.extractor}{size}"))
        rows.append(("weights", f"sha256 {result.weights_sha256[:16]}..."))
    rows.append(("size, color", f"{result.image_size[0]} x {result.image_size[1]}, {result.color}"))
    if result.value_range != (0.0, 255.0):
        rows.append(("window", "{:g} to {:g}".format(*result.value_range)))
    rows += [(name, str(result.settings[name])) for name in _READ_BY if name in result.settings]
    if _settings(result):
        rows.append(("settings", _settings(result)))
    return rows


_READ_BY = ("resize", "tile", "channel")  # the same for all results of a command


def _settings(result: Result) -> str:
    own = {n: v for n, v in result.settings.items() if n not in _READ_BY and v is not None}
    return ", ".join(f"{name} {value}" for name, value in own.items())


def _table(results: Sequence[Result]) -> str:
    """One line per number, then what they share, then notes, each once."""
    if not results:
        return "No number could be computed."
    header = ("", "value", "95 % interval", "real", "p", "better", "pictures")
    lines = [header, *map(_line, results)]
    text = [*aligned(_without_empty_columns(lines)), ""]
    networks = {r.extractor: _context(r)[:3] for r in results if r.extractor}
    first = results[0]
    shared = [row for row in _context(first) if row[0] in ("size, color", "window", *_READ_BY)]
    for rows in (*networks.values(), [*shared, ("seed", str(first.seed))]):
        text += _columns(rows)
    text += _grouped("real", {r.metric: r.reference_of for r in results if r.reference is not None})
    text += _grouped("settings", {r.metric: _settings(r) for r in results if _settings(r)})
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return "\n".join([*text, *(f"Note: {note}" for note in notes)])


def _line(result: Result) -> tuple[str, ...]:
    span, p_value = result.interval, result.details.get("p_value")
    return (
        label(result.metric.partition("[")[0] if result.extractor else result.metric),
        number(result.value),
        f"{number(span.low)} to {number(span.high)}" if span else "",
        "" if result.reference is None else number(result.reference),
        "" if p_value is None else f"{p_value:.2g}",
        "" if result.better == "neither" else result.better,
        f"{_count(result.count_real)} + {result.count_fake}",
    )


def _without_empty_columns(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    filled = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    return [[line[i] for i in filled] for line in lines]


def _grouped(title: str, texts: dict[str, str]) -> list[str]:
    """Metrics with one text share a line."""
    groups: dict[str, list[str]] = {}
    for metric, text in texts.items():
        groups.setdefault(text, []).append(label(metric).partition("[")[0])
    return [
        f"  {title} ({', '.join(dict.fromkeys(metrics))}): {text}"
        for text, metrics in groups.items()
    ]


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns; the first so many to the left and the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def number(value: float | None) -> str:
    """Four digits that matter."""
    if value is None:
        return "undefined"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1f}"
    return f"{value:.3e}"


def _count(images: int | None) -> str:
    return "?" if images is None else str(images)


def label(metric: str) -> str:
    """A metric's name as people write it."""
    for name in ("fid", "kid", "lpips", "cid"):
        if metric == name or metric.startswith(f"{name}_"):
            return metric.replace(name, name.upper(), 1)
    return metric


def comparison_text(comparison: Comparison) -> str:
    """A line for each value and set, best first."""
    lines = [("", "set", "value", "95 % interval", "rank", "pictures")]
    for row in comparison.rows:
        for place in row.places:
            span = place.interval
            lines.append(
                (
                    label(row.metric) if place is row.places[0] else "",
                    place.fake,
                    number(place.value),
                    f"{number(span.low)} to {number(span.high)}" if span else "",
                    "" if place.rank is None else str(place.rank),
                    str(place.count),
                )
            )
    return "\n".join([*aligned(lines, left=2), *(f"Note: {n}" for n in comparison.notes)])
