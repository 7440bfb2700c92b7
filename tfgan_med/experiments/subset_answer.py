"""What a subset study says in plain words, with its uncertainty and its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tfgan_med.experiments import wording
from tfgan_med.experiments.subset_figures import diversity
from tfgan_med.experiments.subset_tables import (
    metric_label,
    picked,
    subset_label,
)
from tfgan_med.experiments.tables import Json

_CLAIM = "diversity_grows_with_spread"
_PRINTED = ("center_lowest", "center_best_fid", "diversity_grows_with_g")
_VERDICTS = ("supported", "contradicted", "cannot tell")


def headline(summary: Json) -> str:
    """One or two sentences: do more spread subsets give more diverse pictures?

    Center alone can carry the answer over all subsets, so that KSS alone is named where it differs.
    """
    everything, kss = _tendency(_deciding(summary)), _tendency(_deciding(summary, "kss"))
    said = _ANSWERS[everything]
    if everything == "nothing" or kss in ("nothing", everything):
        return said
    return f"{said} {_AMONG_KSS[kss]}"


_ANSWERS = {
    "nothing": "Nothing says yet whether more spread subsets give more diverse pictures.",
    "supported": "Yes: more spread subsets gave more diverse pictures.",
    "contradicted": "No: more spread subsets gave less diverse pictures.",
    "cannot tell": "This study cannot tell whether more spread subsets give more diverse pictures.",
    "partly supported": "In part: by some measures more spread subsets gave more diverse pictures, "
    "by the others this study cannot tell.",
    "partly contradicted": "Rather not: by some measures more spread subsets gave less diverse "
    "pictures, by the others this study cannot tell.",
    "both": "It depends: by some measures more spread subsets gave more diverse pictures, by "
    "others less diverse ones.",
}
_AMONG_KSS = {
    "supported": "Among the KSS subsets alone they did.",
    "contradicted": "Among the KSS subsets alone the more spread ones gave less diverse pictures.",
    "cannot tell": "Among the KSS subsets alone this study cannot tell.",
    "partly supported": "Among the KSS subsets alone that is shown by some measures only.",
    "partly contradicted": "Among the KSS subsets alone some measures show the opposite.",
    "both": "Among the KSS subsets alone it depends on the measure of spread.",
}


def _tendency(entries: Sequence[Json]) -> str:
    given = {entry["verdict"] for entry in entries}
    if not given:
        return "nothing"
    if len(given) == 1:
        return str(entries[0]["verdict"])
    if given >= {"supported", "contradicted"}:
        return "both"
    return "partly supported" if "supported" in given else "partly contradicted"


def _deciding(summary: Json, scope: str = "all") -> list[Json]:
    """Judgments of the question: all sets together where they were pooled."""
    metric = diversity(summary)
    found = picked(summary.get("judgments"), claim=_CLAIM, source="ours", metric=metric)
    found = picked(found, scope=scope)
    return picked(found, set=None) or found


def paragraph(summary: Json) -> list[str]:
    """The answer in a few sentences, with how sure it is."""
    sentences = [
        *_with_spread(summary),
        *_of_clusters(summary),
        *_against_reference(summary),
        *_certainty(summary),
    ]
    return [sentence for sentence in sentences if sentence]


def _with_spread(summary: Json) -> list[str]:
    """Over all subsets, and over those of KSS alone: Center is far from the rest of either."""
    metric = diversity(summary)
    if metric is None:
        return []
    label = metric_label(summary, metric)
    told = []
    for entries, which in (
        (_deciding(summary), "Over all subsets"),
        (_deciding(summary, "kss"), "Among the KSS subsets alone"),
    ):
        numbers = [e["statistic"] for e in entries if e.get("statistic") is not None]
        if not numbers:
            continue
        low, high = _tau(min(numbers)), _tau(max(numbers))
        span = low if low == high else f"{low} to {high}"
        told.append(
            f"{which}, {label} {_direction(numbers)} the spread of the chosen pictures (rank "
            f"correlation {span} by the measures of spread; {_counts(entries)})."
        )
    return told


def _direction(numbers: Sequence[float]) -> str:
    if min(numbers) > 0:
        return "rises with"
    if max(numbers) < 0:
        return "falls with"
    return "has no one direction with" if max(numbers) > 0 > min(numbers) else "does not rise with"


def _tau(number: float) -> str:
    return f"{number:+.2f}".replace("-", wording.MINUS)


def _of_clusters(summary: Json) -> list[str]:
    """KSS alone: do more clusters give more diverse pictures?"""
    metric = diversity(summary)
    claim = "diversity_grows_with_g"
    entries = picked(summary.get("judgments"), claim=claim, source="ours", metric=metric)
    entries = [entry for entry in entries if entry.get("set") is not None]
    if not entries or metric is None:
        return []
    return [
        f"That {metric_label(summary, metric)} grows with the number of clusters is "
        f"{_counts(entries)} of set and generator."
    ]


def _counts(entries: Sequence[Json]) -> str:
    given = Counter(entry["verdict"] for entry in entries)
    words = {"cannot tell": "open"}
    parts = [f"{words.get(one, one)} in {given[one]}" for one in _VERDICTS if given[one]]
    cases = "1 case" if len(entries) == 1 else f"{len(entries)} cases"
    return f"{', '.join(parts)} of {cases}"


def _against_reference(summary: Json) -> list[str]:
    """Each subset against the random one, by the measure of diversity."""
    metric, reference = diversity(summary), summary.get("reference")
    entries = picked(summary.get("comparisons"), metric=metric)
    if not entries or reference is None or metric is None:
        return []
    words = {"higher": "more diverse", "lower": "less diverse", "cannot tell": "open"}
    told = []
    for subset in dict.fromkeys(entry["subset"] for entry in entries):
        given = Counter(entry["verdict"] for entry in picked(entries, subset=subset))
        parts = [f"{word} in {given[one]}" for one, word in words.items() if given[one]]
        told.append(f"{subset_label(summary, subset)} is {', '.join(parts)}")
    cases = len({(entry["set"], entry["generator"]) for entry in entries})
    of = "" if cases == 1 else f" (of {cases} cases of set and generator)"
    base = subset_label(summary, reference)
    return [f"Against {base}{of}: {'; '.join(told)}."]


def of_paper(summary: Json) -> list[str]:
    """What the paper's own numbers say of the claims of its text that they can decide."""
    told = []
    for entry in summary.get("conclusions") or []:
        if entry["claim"] in _PRINTED and entry.get("published"):
            title = (entry.get("title") or entry["claim"]).rstrip(".")
            said = entry["published"].split(". ")[0].rstrip(".")  # of each set; the rest pools
            told.append(f'"{title}": {said[:1].lower()}{said[1:]}.')
    return told


def _certainty(summary: Json) -> list[str]:
    seeds = len(summary.get("seeds") or [])
    if seeds < 2:
        return ["With one seed nothing is certain: the order may be that of chance."]
    return [f"Each number is of {seeds} repeats of choosing, training and generating."]


# Limits -------------------------------------------------------------------------------------------


def limits(summary: Json) -> list[str]:
    """What the numbers do not say."""
    return [
        *_few_repeats(summary),
        *_few_subsets(summary),
        *_foreign(summary),
        *_of_measures(summary),
        *_of_choosing(summary),
        *_of_paper(summary),
    ]


def _few_repeats(summary: Json) -> list[str]:
    seeds = len(summary.get("seeds") or [])
    told = [
        "One seed: no interval and no verdict. Train more seeds before you believe an order."
        if seeds < 2
        else f"{seeds} seeds. Intervals are Student's over seeds, wide for so few; random "
        "selection, initial weights and latents differ between them, the pictures of the set do "
        "not."
    ]
    if summary.get("missing"):
        told.append(
            f"{len(summary['missing'])} repeats are not finished; what is shown is of the others."
        )
    return told


def _few_subsets(summary: Json) -> list[str]:
    ours = picked(summary.get("judgments"), source="ours")
    least = [entry["smallest_p"] for entry in ours if (entry.get("smallest_p") or 0) >= 0.05]
    if not least:
        return []
    return [
        f"Where only a few subsets are put in order, no order can reach p < 0.05: the least p is "
        f'{wording.p_value(max(least))} with the fewest. Those comparisons end in "cannot tell" '
        "whatever the numbers are."
    ]


def _foreign(summary: Json) -> list[str]:
    metrics = summary.get("metrics") or []
    foreign = [entry for entry in metrics if entry.get("protocol") == "foreign"]
    if not foreign:
        return []
    names = ", ".join(entry["label"] for entry in foreign)
    networks = ", ".join(
        dict.fromkeys(entry.get("extractor") or "another network" for entry in foreign)
    )
    return [
        f"{names} are those of another network ({networks}), not of Inception: compare subsets "
        "with each other, never with a paper's values."
    ]


def _of_measures(summary: Json) -> list[str]:
    found = {entry["metric"] for entry in summary.get("metrics") or []}
    told = []
    if "fid" in found:
        told.append(
            "FID against the whole set asks whether generated pictures are like all pictures; FID "
            "against the subset, whether they are like those that were learned. The paper does not "
            "say which it prints. Both are biased by the number of pictures, the same for all "
            "subsets of a set."
        )
    if {"c", "d", "cid"} & found:
        told.append(
            "C and I compare with the chosen pictures; D counts kinds among the generated pictures "
            "that are no near copies of these, at most the logarithm of their number. A subset of "
            "outliers gives unlike pictures, and D takes that for diversity, good or bad: read it "
            "beside FID and the samples."
        )
    if summary.get("truncation") is not None:
        told.append(
            f"Latents are cut at {summary['truncation']:g}; a wider cut gives more diverse and "
            "worse pictures of every subset."
        )
    return told


def _of_choosing(summary: Json) -> list[str]:
    covariance = (summary.get("selection") or {}).get("covariance")
    if covariance in (None, "empirical"):
        return []
    return [
        f"Covariances of clusters are estimated with {covariance}, not with the plain estimate of "
        "the paper, which is singular where a cluster has fewer pictures than components: there "
        "the paper's own choice was decided by rounding."
    ]


def _of_paper(summary: Json) -> list[str]:
    if not summary.get("published"):
        return []
    return [
        "The paper's table has one training for each row; the ± of its Inception Score is not "
        "explained, and not of trainings. Whether its differences would survive a repeat is not "
        'known, so that "agrees" and "disagrees" speak of its printed numbers only.'
    ]
