"""Tables of a subset study as people read them: table 1 of the paper, spread, claims, settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfgan_med.experiments import tables, wording
from tfgan_med.experiments.tables import Json, Table

# Names --------------------------------------------------------------------------------------------


def subset_label(summary: Json, name: str) -> str:
    """What a reader calls a subset; names of the published table that are not ours stay."""
    return _labels(summary.get("subsets"), "name").get(name, name)


def metric_label(summary: Json, name: str) -> str:
    """What a reader calls a metric of generated pictures."""
    return _labels(summary.get("metrics"), "metric").get(name, wording.generative_label(name))


def measure_label(summary: Json, name: str) -> str:
    """What a reader calls a measure of spread."""
    return _labels(summary.get("measures"), "measure").get(name, name.replace("_", " "))


def _labels(entries: Iterable[Json] | None, key: str) -> dict[str, str]:
    return {entry[key]: entry["label"] for entry in entries or [] if entry.get("label")}


def lower_is_better(summary: Json, metric: str) -> bool:
    """Whether small values of a metric are the good ones."""
    better = {entry["metric"]: entry.get("better") for entry in summary.get("metrics") or []}
    if metric not in better:  # of the published table
        return metric in ("fid", "kid")
    return bool(better[metric] == "lower")


def _heading(summary: Json, metric: str) -> str:
    arrow = "↓" if lower_is_better(summary, metric) else "↑"
    return f"{metric_label(summary, metric)}\N{NO-BREAK SPACE}{arrow}"


def picked(entries: Iterable[Json] | None, **wanted: Any) -> list[Json]:
    """Entries whose keys have these values."""
    return [
        entry
        for entry in entries or []
        if all(entry.get(key) == value for key, value in wanted.items())
    ]


# What was done ------------------------------------------------------------------------------------


def facts(summary: Json) -> Table | None:
    """What decides how numbers may be compared, and what the original says of it."""
    found = summary.get("facts") or []
    told = any(entry.get("paper") for entry in found)
    rows = tuple(
        (entry["what"], _text(entry["value"]), *([entry.get("paper") or "–"] if told else []))
        for entry in found
    )
    columns = ("what", "this study", *(["the paper"] if told else []))
    caption = "What decides whether numbers can be compared"
    return Table("facts", caption, columns, rows, "lpp"[: len(columns)]) if rows else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else wording.setting(value)


def selection(summary: Json) -> Table | None:
    """Options that all selections share."""
    rows = tuple(tables.flat(summary.get("selection") or {}))
    caption = f"How {wording.thousands(summary.get('size'))} pictures are chosen"
    return Table("selection", caption, ("option", "value"), rows, "lp") if rows else None


def sets(summary: Json) -> Table | None:
    """The data sets and their pictures."""
    rows = []
    for entry in summary.get("sets") or []:
        counts = entry.get("counts") or {}
        side = entry.get("image_size")
        rows.append(
            (
                entry["name"],
                *(wording.thousands(counts.get(split) or 0) for split in ("train", "val", "test")),
                "–" if side is None else f"{side} x {side}, {entry.get('mode') or 'auto'}",
                entry.get("source") or "–",
            )
        )
    columns = ("set", "train", "validation", "test", "pixels", "source")
    caption = "Data sets; subsets are chosen from the training pictures"
    return Table("sets", caption, columns, tuple(rows), "lrrrlp") if rows else None


def generators(summary: Json) -> Table | None:
    """Systems, and what an adapted one starts from."""
    origins = {
        "file": "from a published file", "run": "from a finished run", "train": "trained here",
    }  # fmt: skip
    rows = [
        (
            f"source {entry['name']}",
            entry.get("system") or "–",
            origins.get(entry.get("origin") or "", entry.get("origin") or "–"),
            _steps(entry.get("steps")),
            "1",
            wording.minutes(entry["minutes"]) if entry.get("minutes") is not None else "–",
        )
        for entry in summary.get("sources") or []
    ]
    rows += [
        (
            entry["name"],
            entry.get("system") or "–",
            f"source {entry['from']}" if entry.get("from") else "from scratch",
            _steps(entry.get("steps")),
            wording.thousands(entry.get("trained")),
            "–",
        )
        for entry in summary.get("generators") or []
    ]
    columns = ("name", "system", "begins", "steps", "trained", "time")
    return Table("systems", "Generators", columns, tuple(rows), "lllrrr") if rows else None


def _steps(number: int | None) -> str:
    return "–" if number is None else wording.thousands(number)


def settings(summary: Json) -> Table | None:
    """Settings of the generators that are not their defaults."""
    rows = tuple(
        (entry["name"], name, text)
        for entry in summary.get("generators") or []
        for name, text in tables.flat(entry.get("settings") or {})
    )
    columns = ("generator", "setting", "value")
    return Table("settings", "Settings of the generators", columns, rows, "llp") if rows else None


def missing(summary: Json) -> Table | None:
    """Repeats that are not finished."""
    rows = tuple(
        (
            entry["set"],
            subset_label(summary, entry["subset"]),
            entry.get("generator") or "–",
            _text(entry.get("seed")),
            entry.get("reason") or "–",
        )
        for entry in summary.get("missing") or []
    )
    columns = ("set", "subset", "generator", "seed", "reason")
    return Table("missing", "Repeats without numbers", columns, rows, "lllrp") if rows else None


# Spread -------------------------------------------------------------------------------------------


def spread(summary: Json, name: str) -> Table | None:
    """Measures of the chosen pictures of one set: mean over repeats and standard deviation."""
    found = {(e["subset"], e["measure"]): e for e in picked(summary.get("spread"), set=name)}
    measures = [
        e for e in summary.get("measures") or [] if any(m == e["measure"] for _, m in found)
    ]
    if not measures:
        return None
    rows = tuple(
        (
            subset_label(summary, subset),
            *(_mean_sd(found.get((subset, measure["measure"]))) for measure in measures),
        )
        for subset in dict.fromkeys(subset for subset, _ in found)
    )
    arrows = {"higher": "↑", "lower": "↓"}
    headings = (
        f"{e['label']}\N{NO-BREAK SPACE}{arrows.get(e.get('better') or '', '')}".rstrip()
        for e in measures
    )
    return Table(
        f"spread-{wording.slug(name)}",
        f"{name}: spread of the chosen pictures on the principal components, mean over repeats "
        "(standard deviation)",
        ("subset", *headings),
        rows,
        "l" + "r" * len(measures),
        about=_components(summary, name),
    )


def _components(summary: Json, name: str) -> str:
    found = picked(summary.get("selections"), set=name)
    kept = sorted({e["components"] for e in found if e.get("components") is not None})
    shares = sorted({e["explained"] for e in found if e.get("explained") is not None})
    told = "The arrow points to what is more spread. "
    if kept and shares:
        span = " to ".join(f"{number}" for number in dict.fromkeys((kept[0], kept[-1])))
        told += f"{span} components hold {100 * shares[0]:.1f} % of the variance of all pictures. "
    told += (
        "Extremes and coverage are different things: KSS with one cluster takes the outliers, with "
        "as many clusters as pictures it covers the set."
    )
    return told


def _mean_sd(entry: Json | None) -> str:
    if entry is None or entry.get("mean") is None:
        return wording.MISSING
    repeated = len(entry.get("values") or []) > 1 and entry.get("sd")
    around = f"\n({entry['sd']:.2g})" if repeated else ""
    return f"{wording.significant(entry['mean'])}{around}"


# Results ------------------------------------------------------------------------------------------


def results(summary: Json, name: str, generator: str) -> Table | None:
    """Table 1 of the paper for one set and one generator, with intervals over seeds."""
    entries = picked(summary.get("results"), set=name, generator=generator)
    found = {(entry["subset"], entry["metric"]): entry for entry in entries}
    metrics = [m for m in _metrics(summary) if any(metric == m for _, metric in found)]
    subsets = [s for s in _subsets(summary) if any(subset == s for subset, _ in found)]
    if not metrics:
        return None
    rows = tuple(
        (subset_label(summary, subset), *(_estimate(found.get((subset, m))) for m in metrics))
        for subset in subsets
    )
    marks = {}
    for column, metric in enumerate(metrics, 1):
        of_metric = [found.get((subset, metric)) for subset in subsets]
        for row, mark in _certain(of_metric, lower_is_better(summary, metric)):
            marks[row, column] = mark
    seeds = sorted({seed for entry in entries for seed in entry.get("seeds") or []})
    repeated = "mean over seeds and 95 % interval" if len(seeds) > 1 else "one seed, no interval"
    return Table(
        f"results-{wording.slug(name)}-{wording.slug(generator)}",
        f"{name}, {generator}: subsets of {wording.thousands(summary.get('size'))} pictures; "
        f"{repeated}",
        ("subset", *(_heading(summary, metric) for metric in metrics)),
        rows,
        "l" + "r" * len(metrics),
        marks=marks,
        about=_how_measured(summary, metrics),
    )


def _metrics(summary: Json) -> list[str]:
    listed = [entry["metric"] for entry in summary.get("metrics") or []]
    found = [entry["metric"] for entry in summary.get("results") or []]
    return list(dict.fromkeys([*listed, *found]))


def _subsets(summary: Json) -> list[str]:
    listed = [entry["name"] for entry in summary.get("subsets") or []]
    found = [entry["subset"] for entry in summary.get("results") or []]
    return list(dict.fromkeys([*listed, *found]))


def _estimate(entry: Json | None) -> str:
    if entry is None or entry.get("mean") is None:
        return wording.MISSING
    if entry.get("low") is None or entry.get("high") is None:
        return wording.significant(entry["mean"])
    low, high = wording.significant(entry["low"]), wording.significant(entry["high"])
    return f"{wording.significant(entry['mean'])}\n({low} to {high})"


def _certain(entries: Sequence[Json | None], lower: bool) -> Iterator[tuple[int, str]]:
    """The best and the worst row, where its interval is apart from all the others."""
    spans = [
        (row, entry["low"], entry["high"])
        for row, entry in enumerate(entries)
        if entry and entry.get("low") is not None and entry.get("high") is not None
    ]
    if len(spans) < 2 or len(spans) < len([entry for entry in entries if entry]):
        return
    for row, low, high in spans:
        others = [(other_low, other_high) for other, other_low, other_high in spans if other != row]
        if all(high < other_low for other_low, _ in others):
            yield row, "best" if lower else "worst"
        if all(low > other_high for _, other_high in others):
            yield row, "worst" if lower else "best"


def _how_measured(summary: Json, metrics: Sequence[str]) -> str:
    """What is compared with what, in how many pictures, by which network."""
    about: dict[tuple[str, ...], list[str]] = {}
    for entry in summary.get("metrics") or []:
        if entry["metric"] in metrics:
            how = [entry.get("about"), entry.get("extractor"), entry.get("counts")]
            about.setdefault(tuple(text for text in how if text), []).append(entry["label"])
    told = [f"{', '.join(names)}: {'; '.join(how)}." for how, names in about.items() if how]
    for entry in summary.get("facts") or []:
        what = entry["what"]
        told.append(f"{what[:1].upper()}{what[1:]}: {_text(entry['value'])}.")
    told.append(
        "Bold: best of its column, italics: worst; only where its interval is apart from the "
        "intervals of all other subsets."
    )
    return " ".join(told)


def comparisons(summary: Json, name: str, generator: str) -> Table | None:
    """Differences against the reference subset, paired by seed."""
    entries = picked(summary.get("comparisons"), set=name, generator=generator)
    found = {(entry["subset"], entry["metric"]): entry for entry in entries}
    metrics = [m for m in _metrics(summary) if any(metric == m for _, metric in found)]
    if not metrics:
        return None
    rows = tuple(
        (
            subset_label(summary, subset),
            *(_difference(found.get((subset, metric))) for metric in metrics),
        )
        for subset in dict.fromkeys(subset for subset, _ in found)
    )
    marks = {
        (row, column): "best"
        for row, subset in enumerate(dict.fromkeys(subset for subset, _ in found))
        for column, metric in enumerate(metrics, 1)
        if (found.get((subset, metric)) or {}).get("verdict") in ("higher", "lower")
    }
    reference = subset_label(summary, summary.get("reference") or "the reference")
    return Table(
        f"comparisons-{wording.slug(name)}-{wording.slug(generator)}",
        f"{name}, {generator}: difference against {reference}, paired by seed, with 95 % interval; "
        "bold where it is larger than chance may make it (Holm over the subsets)",
        ("subset", *(metric_label(summary, metric) for metric in metrics)),
        rows,
        "l" + "r" * len(metrics),
        marks=marks,
    )


def _difference(entry: Json | None) -> str:
    if entry is None or entry.get("difference") is None:
        return wording.MISSING
    text = wording.signed(entry["difference"])
    if entry.get("low") is None or entry.get("high") is None:
        return text
    return f"{text}\n({wording.signed(entry['low'])} to {wording.signed(entry['high'])})"


# Claims -------------------------------------------------------------------------------------------


_STATISTICS = {True: "Center minus nearest", False: "rank correlation"}  # by: about Center


def conclusions(summary: Json) -> Table | None:
    """What the paper says, beside what this study and the paper's own table say of it."""
    rows = tuple(
        (
            entry.get("title") or entry["claim"],
            entry.get("ours") or "not judged",
            entry.get("published") or "not judged",
        )
        for entry in summary.get("conclusions") or []
    )
    columns = ("claim", "this study", "the paper's table")
    caption = "Claims of the paper, judged by this study and by the paper's own numbers"
    return Table("claims", caption, columns, rows, "ppp") if rows else None


def judgments(summary: Json, claim: str) -> Table | None:
    """Where and how a claim holds in this study."""
    entries = picked(summary.get("judgments"), claim=claim, source="ours")
    if not entries:
        return None
    kinds = [
        ("set", [entry.get("set") or "all sets" for entry in entries]),
        ("generator", [entry.get("generator") for entry in entries]),
        ("metric", [_optional(metric_label, summary, entry.get("metric")) for entry in entries]),
        ("spread by", [_optional(measure_label, summary, e.get("measure")) for e in entries]),
        ("subsets", [_scope(entry.get("scope")) for entry in entries]),
    ]
    shown = [(heading, texts) for heading, texts in kinds if any(texts)]
    ordered = claim.startswith("center")
    rows = tuple(
        (
            *(texts[i] or "–" for _, texts in shown),
            entry["verdict"],
            _agreeing(entry),
            wording.interval(entry.get("statistic"), entry.get("low"), entry.get("high")),
            *([] if ordered else [_p_value(entry.get("p_adjusted"), entry.get("p"))]),
        )
        for i, entry in enumerate(entries)
    )
    columns = [heading for heading, _ in shown]
    columns += ["verdict", "seeds"]
    columns += [_STATISTICS[ordered], *([] if ordered else ["p"])]
    return Table(
        f"judgments-{wording.slug(claim)}",
        f"{_title(summary, claim)}: this study; mean over seeds and 95 % interval",
        tuple(columns),
        rows,
        "l" * len(shown) + "ll" + "r" * (1 if ordered else 2),
        badge=len(shown),
        about=_how_judged(entries, ordered),
    )


def _optional(label: Any, summary: Json, name: str | None) -> str | None:
    return None if name is None else str(label(summary, name))


def _scope(scope: str | None) -> str | None:
    return {"all": "all", "kss": "KSS alone"}.get(scope or "", scope)


def _agreeing(entry: Json) -> str:
    if entry.get("agreeing") is None:
        return "–"
    return f"{entry['agreeing']} of {entry['seeds']}"


def _p_value(adjusted: float | None, plain: float | None) -> str:
    number = plain if adjusted is None else adjusted
    return "–" if number is None else wording.p_value(number)


def _how_judged(entries: Sequence[Json], ordered: bool) -> str:
    if ordered:
        return (
            "The difference between Center and the nearest other subset, paired by seed; below "
            "zero: Center is lower. Seeds: in how many of them Center is lower than all others."
        )
    told = (
        "Rank correlation: Kendall's tau-b, above zero where the claim holds. Seeds: in how many "
        "of them it is above zero. p: exact, over the orders that the subsets could have had."
    )
    least = [entry["smallest_p"] for entry in entries if entry.get("smallest_p") is not None]
    if least and max(least) >= 0.05:
        told += (
            f" So few subsets cannot give every p: {wording.p_value(max(least))} is the least that "
            'the smallest of these comparisons can reach, so that it says "cannot tell" whatever '
            "the numbers are."
        )
    return told


def _title(summary: Json, claim: str) -> str:
    titles = {e["claim"]: e.get("title") for e in summary.get("conclusions") or []}
    return titles.get(claim) or claim.replace("_", " ")


# The published table ------------------------------------------------------------------------------


def published(summary: Json) -> Table | None:
    """Table 1 of the paper as printed; one training for each row."""
    entries = summary.get("published") or []
    found = {(entry["set"], entry["subset"], entry["metric"]): entry for entry in entries}
    if not found:
        return None
    metrics = list(dict.fromkeys(metric for _, _, metric in found))
    rows: list[tuple[str, ...]] = []
    above = None
    for name, subset in dict.fromkeys((name, subset) for name, subset, _ in found):
        numbers = (_with_deviation(found.get((name, subset, metric))) for metric in metrics)
        rows.append((name if name != above else "", _paper_name(subset), *numbers))
        above = name
    return Table(
        "published",
        "The table of the paper as printed; one training for each row, so that nothing says how "
        "much a repeat would differ",
        ("set", "subset", *(_heading(summary, metric) for metric in metrics)),
        tuple(rows),
        "ll" + "r" * len(metrics),
    )


def _with_deviation(entry: Json | None) -> str:
    if entry is None:
        return "–"
    deviation = entry.get("sd")
    return _printed(entry["value"]) + ("" if deviation is None else f" ± {_printed(deviation)}")


def _paper_name(subset: str) -> str:
    """`Random`, `KSS10`, as the paper writes them."""
    return subset.upper() if subset.lower().startswith("kss") else subset.capitalize()


def _printed(number: float | None) -> str:
    """With two decimals, as the paper prints all its numbers."""
    return "–" if number is None else f"{number:.2f}".replace("-", wording.MINUS)


def published_judgments(summary: Json, claim: str) -> Table | None:
    """Whether the printed numbers have the order that the text claims."""
    entries = picked(summary.get("judgments"), claim=claim, source="published")
    if not entries:
        return None
    printed = {
        (entry["set"], entry["subset"], entry["metric"]): entry["value"]
        for entry in summary.get("published") or []
    }
    rows = tuple(
        (
            entry.get("set") or "all sets",
            _optional(metric_label, summary, entry.get("metric")) or "–",
            entry["verdict"],
            "–" if entry.get("statistic") is None else _signed(entry["statistic"]),
            _values_in_order(entry, printed),
        )
        for entry in entries
    )
    statistic = _STATISTICS[claim.startswith("center")]
    return Table(
        f"published-{wording.slug(claim)}",
        f"{_title(summary, claim)}: the paper's own numbers",
        ("set", "metric", "its numbers", statistic, "values"),
        rows,
        "lllrp",
        badge=2,
        about=_AGREES[claim.startswith("center")],
    )


_AGREES = {
    True: 'Center minus the lowest of the others; "agrees" where it is below zero.',
    False: 'Rank correlation: Kendall\'s tau-b. "agrees" says that it is above zero and no more, '
    "not that every step rises.",
}


def _values_in_order(entry: Json, printed: Mapping[tuple[str, str, str], float]) -> str:
    """The numbers that a judgment is about, in its order of subsets."""
    if entry.get("set") is None:
        return "–" if entry.get("p") is None else f"p = {wording.p_value(entry['p'])}"
    return ", ".join(
        f"{_paper_name(subset)} {_printed(printed.get((entry['set'], subset, entry['metric'])))}"
        for subset in entry.get("subsets") or []
    )


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", wording.MINUS)


# All ----------------------------------------------------------------------------------------------


def of(summary: Json) -> list[Table]:
    """All tables worth a file in LaTeX."""
    made = [facts(summary), selection(summary), sets(summary), generators(summary)]
    for entry in summary.get("sets") or []:
        made.append(spread(summary, entry["name"]))
        for generator in summary.get("generators") or []:
            made.append(results(summary, entry["name"], generator["name"]))
            made.append(comparisons(summary, entry["name"], generator["name"]))
    made += [conclusions(summary), published(summary)]
    for entry in summary.get("conclusions") or []:
        made.append(judgments(summary, entry["claim"]))
        made.append(published_judgments(summary, entry["claim"]))
    made += [missing(summary), tables.cost(summary)]
    return [table for table in made if table is not None]
