"""Tables of a report as people read them: texts in rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfgan_med.experiments import wording

Json = Mapping[str, Any]  # an object of summary.json

SPREAD = "sd"  # heading of the standard deviation over seeds
KINDS = {
    "source": "training of sources",
    "select": "choosing pictures",
    "gan": "training of generators",
    "generate": "making pictures",
    "measure": "measuring pictures",
    "grid": "search of settings",
    "arm": "downstream models",
}


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns.

    Attributes:
        name: stem of its files.
        caption: a sentence.
        columns: headings.
        rows: cells as shown, one for each column.
        align: a letter for each column: `l`, `r`, or `p` for a paragraph.
        strong: indices of rows that are emphasised.
        badge: index of the column that holds a verdict or a status.
        marks: `best` or `worst` at a row and a column, shown bold and in italics.
        about: sentences on how the numbers came about, for the end of the caption.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    strong: frozenset[int] = frozenset()
    badge: int | None = None
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    about: str = ""

    def __post_init__(self) -> None:
        widths = {len(self.columns), len(self.align), *map(len, self.rows)}
        if len(widths) != 1:
            raise ValueError(f"Table {self.name}: columns, alignment and rows differ in length.")


# Set-up -------------------------------------------------------------------------------------------


def splits(data: Json) -> Table | None:
    """Pictures of each split and class."""
    counts = {split: of for split, of in (data.get("counts") or {}).items() if of}
    if not counts:
        return None
    classes = list(dict.fromkeys(name for of in counts.values() for name in of))
    total = len(classes) > 1
    rows = []
    for split, of in counts.items():
        cells = [wording.thousands(of[name]) if name in of else "0" for name in classes]
        rows.append((split, *cells, *([wording.thousands(sum(of.values()))] if total else [])))
    names = ["pictures" if name == "all" else name for name in classes]
    columns = ("split", *names, *(["together"] if total else []))
    return Table("data", "Real pictures", columns, tuple(rows), "l" + "r" * (len(columns) - 1))


def arms(summary: Json) -> Table | None:
    """What each arm trains on."""
    rows = []
    for arm in summary.get("arms") or []:
        counts = arm.get("counts") or {}
        sampling = arm.get("sampling") or "uniform"
        ratio = arm.get("ratio")
        rows.append(
            (
                arm["name"],
                wording.counts(counts.get("real")),
                wording.counts(counts.get("synthetic")),
                ", ".join(arm.get("synthetic") or []) or "–",
                "–" if ratio is None else f"{ratio:g}",
                arm.get("classic") or "none",
                sampling,
            )
        )
    columns = ("arm", "real", "synthetic", "made by", "ratio", "classic", "sampling")
    caption = "What each arm trains on; all take the same number of steps"
    return Table("arms", caption, columns, tuple(rows), "lllllll") if rows else None


def settings(study: Json) -> Table:
    """How the downstream model of a study is trained."""
    parameters = study.get("parameters") or {}
    positive = study.get("positive")
    rows = [
        ("model", _named(study["downstream"], study.get("system"))),
        ("task", study.get("kind")),
        ("classes", ", ".join(study.get("classes") or []) or None),
        ("positive class", positive),
        ("decision threshold", _threshold(study.get("threshold"))),
        ("initial weights", study.get("weights")),
        ("trainable parameters", _of(parameters.get("trainable"), parameters.get("all"))),
        ("steps", _thousands(study.get("steps"))),
        ("batch size", _thousands(study.get("batch_size"))),
        ("seeds", ", ".join(map(str, study.get("seeds") or [])) or None),
        ("compared with", study.get("reference")),
        ("main metric", wording.label(study["main"])),
    ]
    shown = tuple((name, str(text)) for name, text in rows if text is not None)
    caption = f"Downstream model {study['downstream']}"
    return Table(_stem("model", study), caption, ("setting", "value"), shown, "lp")


def grid(study: Json) -> Table | None:
    """The search of hyper-parameters on validation pictures."""
    tried = study.get("grid") or []
    if not tried:
        return None
    keys = list(dict.fromkeys(key for entry in tried for key in entry["settings"]))
    metric = tried[0]["metric"]
    rows = tuple(
        (
            *(wording.setting(entry["settings"].get(key)) for key in keys),
            wording.value(entry["metric"], entry["value"]),
            "chosen" if entry.get("chosen") else "",
        )
        for entry in tried
    )
    return Table(
        _stem("grid", study),
        f"Settings tried on arm {study.get('reference')}, by {wording.label(metric)} on validation "
        "pictures, then kept for all arms",
        (*keys, wording.label(metric), "choice"),
        rows,
        "r" * (len(keys) + 1) + "l",
        frozenset(i for i, entry in enumerate(tried) if entry.get("chosen")),
    )


def _named(name: str, system: str | None) -> str:
    return name if system in (None, name) else f"{name} ({system})"


def _of(part: int | None, whole: int | None) -> str | None:
    if part is None or whole is None:
        return None
    return f"{wording.thousands(part)} of {wording.thousands(whole)}"


def _thousands(number: int | None) -> str | None:
    return None if number is None else wording.thousands(number)


def _threshold(threshold: Json | None) -> str | None:
    if not threshold or threshold.get("value") is None:
        return None
    origin = {"validation": "chosen on validation pictures"}.get(
        threshold.get("source") or "", threshold.get("source")
    )
    text = wording.setting(threshold["value"])
    return f"{text} ({origin})" if origin else text


# Results ------------------------------------------------------------------------------------------


def results(study: Json) -> Table | None:
    """Arms by metrics on the test set; an arm is emphasised only if it is shown to help."""
    found = {(result["arm"], result["metric"]): result for result in study.get("results") or []}
    if not found:
        return None
    names = list(dict.fromkeys(arm for arm, _ in found))
    metrics = [
        metric for metric in study["metrics"] if any((arm, metric) in found for arm in names)
    ]
    given = verdicts(study)
    main = study["main"]
    rows = []
    for arm in names:
        cells = [_estimate(found.get((arm, metric)), metric) for metric in metrics]
        spread = (found.get((arm, main)) or {}).get("sd")
        rows.append((arm, *cells, "–" if spread is None else wording.points(main, spread)))
    return Table(
        _stem("results", study),
        f"{study['downstream']} on the test set: mean over seeds and 95 % interval; last column: "
        f"standard deviation of {wording.label(main)} over seeds",
        ("arm", *map(_heading, metrics), SPREAD),
        tuple(rows),
        "l" + "r" * (len(metrics) + 1),
        frozenset(i for i, arm in enumerate(names) if given.get(arm) == "helps"),
    )


def comparisons(study: Json) -> Table | None:
    """Differences of the arms against the reference by the main metric, with tests and verdicts."""
    main = study["main"]
    compared = [entry for entry in study.get("comparisons") or [] if entry["metric"] == main]
    if not compared:
        return None
    fields = {entry.get("field_test") for entry in compared} - {None}
    field = fields.pop() if len(fields) == 1 else None  # of all arms, or of none
    rows = []
    for entry in compared:
        p_values = [entry["p"], entry["p_adjusted"]] + ([entry.get("field_p")] if field else [])
        numbers = (entry["difference"], entry["low"], entry["high"])
        rows.append(
            (
                entry["arm"],
                entry["verdict"] or wording.MISSING,
                wording.difference(main, *numbers),
                *map(wording.p_value, p_values),
                wording.points(main, entry["detectable"]),
            )
        )
    ways = {(entry.get("test") or "").partition("; ")[0]: None for entry in compared}
    how = "".join(f"; p by {way}" for way in ways if way)
    how += f"; field test: {field}" if field else ""
    columns = ["arm", "verdict", "difference", "p", "p (Holm)"]
    columns += ["p (field test)"] if field else []
    columns += ["smallest visible effect"]
    return Table(
        _stem("comparisons", study),
        f"{study['downstream']}: difference against {study['reference']} in "
        f"{wording.label(main)}{how}",
        tuple(columns),
        tuple(rows),
        "ll" + "r" * (len(columns) - 2),
        frozenset(i for i, entry in enumerate(compared) if entry["verdict"] == "helps"),
        badge=1,
    )


def differences(study: Json) -> Table | None:
    """Differences of the arms in the other metrics, of which none decides."""
    compared = study.get("comparisons") or []
    found = {(entry["arm"], entry["metric"]): entry for entry in compared}
    present = {entry["metric"] for entry in compared} - {study["main"]}
    metrics = [metric for metric in study["metrics"] if metric in present]
    if not metrics:
        return None
    rows = tuple(
        (arm, *(_difference(found.get((arm, metric)), metric) for metric in metrics))
        for arm in dict.fromkeys(entry["arm"] for entry in compared)
    )
    return Table(
        _stem("differences", study),
        f"{study['downstream']}: differences against {study['reference']} in the other metrics "
        "with 95 % intervals, which say nothing for the verdict",
        ("arm", *map(_heading, metrics)),
        rows,
        "l" + "r" * len(metrics),
    )


def _difference(entry: Json | None, metric: str) -> str:
    if entry is None:
        return wording.MISSING
    return wording.difference(metric, entry["difference"], entry["low"], entry["high"])


def _heading(metric: str) -> str:
    """The label with an arrow to what is better."""
    if metric in ("tp", "tn"):
        return wording.label(metric)
    return f"{wording.label(metric)} {'↓' if wording.lower_is_better(metric) else '↑'}"


def verdicts(study: Json) -> dict[str, str]:
    """Verdict of each compared arm by the main metric."""
    compared = study.get("comparisons") or []
    return {
        entry["arm"]: entry["verdict"]
        for entry in compared
        if entry["metric"] == study["main"] and entry["verdict"]
    }


def sweep(study: Json) -> Table | None:
    """Values over the number of synthetic pictures."""
    found = study.get("sweep") or []
    if not found:
        return None
    rows = tuple(
        (
            entry["generator"],
            f"{entry['ratio']:g}",
            wording.label(entry["metric"]),
            wording.estimate(entry["metric"], entry["mean"], entry["low"], entry["high"]),
        )
        for entry in found
    )
    return Table(
        _stem("sweep", study),
        f"{study['downstream']} with so many synthetic pictures for each real one",
        ("generator", "synthetic : real", "metric", "value"),
        rows,
        "lrlr",
    )


def _estimate(result: Json | None, metric: str) -> str:
    if result is None:
        return wording.MISSING
    return wording.estimate(metric, result["mean"], result["low"], result["high"])


def _stem(kind: str, study: Json) -> str:
    return f"{kind}-{wording.slug(study['downstream'])}"


# Generators, cost, guards, provenance -------------------------------------------------------------


def generators(summary: Json) -> Table | None:
    """Metrics of the generated pictures."""
    made = [entry for entry in summary.get("generators") or [] if entry.get("metrics")]
    metrics = list(dict.fromkeys(found["metric"] for entry in made for found in entry["metrics"]))
    if not metrics:
        return None
    rows = []
    for entry in made:
        found = {measured["metric"]: measured for measured in entry["metrics"]}
        rows.append((entry["name"], *(_measured(found.get(metric)) for metric in metrics)))
    columns = ("generator", *map(wording.generative_label, metrics))
    align = "l" + "r" * len(metrics)
    return Table("generators", "Metrics of the generated pictures", columns, tuple(rows), align)


def _measured(found: Json | None) -> str:
    if found is None:
        return wording.MISSING
    return wording.interval(found["value"], found.get("low"), found.get("high"))


def cost(summary: Json) -> Table | None:
    """Minutes and memory of each kind of work."""
    cells = summary.get("cost") or []
    if not cells:
        return None
    kinds = [kind for kind in KINDS if any(cell["kind"] == kind for cell in cells)]
    kinds += [kind for kind in dict.fromkeys(c["kind"] for c in cells) if kind not in KINDS]
    rows = [
        (KINDS.get(kind, kind), *_spent([c for c in cells if c["kind"] == kind])) for kind in kinds
    ]
    rows.append(("together", *_spent(cells)))
    columns = ("work", "cells", "reused", "time", "peak memory")
    return Table(
        "cost",
        "Time and memory of each kind of work",
        columns,
        tuple(rows),
        "lrrrr",
        frozenset({len(rows) - 1}),
    )


def _spent(cells: Sequence[Json]) -> tuple[str, ...]:
    measured = [cell["minutes"] for cell in cells if cell.get("minutes") is not None]
    peaks = [cell["peak_memory_mb"] for cell in cells if cell.get("peak_memory_mb") is not None]
    return (
        str(len(cells)),
        str(sum(bool(cell.get("reused")) for cell in cells)),
        wording.minutes(sum(measured) if measured else None),
        wording.memory(max(peaks, default=None)),
    )


def cells(summary: Json) -> Table | None:
    """Cost of every cell."""
    rows = tuple(
        (
            cell["cell"],
            cell["kind"],
            wording.minutes(cell.get("minutes")),
            wording.memory(cell.get("peak_memory_mb")),
            "–" if cell.get("training_share") is None else wording.percent(cell["training_share"]),
            "reused" if cell.get("reused") else "",
        )
        for cell in summary.get("cost") or []
    )
    columns = ("cell", "kind", "time", "peak memory", "in training steps", "")
    return Table("cells", "Every cell", columns, rows, "llrrrl") if rows else None


def guards(summary: Json) -> Table | None:
    """What was checked, violated guards first."""
    rows = [
        (guard["name"], guard["status"], guard.get("message") or "")
        for guard in ordered(summary.get("guards") or [])
    ]
    columns = ("guard", "status", "finding")
    return Table("guards", "Guards", columns, tuple(rows), "llp", badge=1) if rows else None


def ordered(found: Iterable[Json]) -> list[Json]:
    """Guards, the worst first."""
    ranks = {"violated": 0, "allowed": 1, "skipped": 2}
    return sorted(found, key=lambda guard: ranks.get(guard["status"], 3))


def provenance(summary: Json) -> Table | None:
    """Files with their checksums."""
    rows = tuple(
        (entry["what"], entry.get("path") or "–", entry.get("sha256") or "–")
        for entry in summary.get("provenance") or []
    )
    columns = ("what", "path", "SHA-256")
    return Table("provenance", "Files and their checksums", columns, rows, "lll") if rows else None


def flat(values: Json, above: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and texts."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", wording.setting(value)


def environment(summary: Json) -> Table | None:
    """Versions and devices."""
    rows = tuple(flat(summary.get("environment") or {}))
    return (
        Table("environment", "Versions and devices", ("name", "value"), rows, "lp")
        if rows
        else None
    )


# All ----------------------------------------------------------------------------------------------


def of(summary: Json) -> list[Table]:
    """All tables worth a file in LaTeX."""
    made: list[Table | None] = [
        splits(summary.get("data") or {}),
        arms(summary),
        generators(summary),
    ]
    for study in summary.get("studies") or []:
        made += [settings(study), grid(study), results(study), comparisons(study)]
        made += [differences(study), sweep(study)]
    made += [cost(summary), guards(summary)]
    return [table for table in made if table is not None]
