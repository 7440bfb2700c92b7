"""`summary.json` of a subset study: all that its report shows, from finished cells.

    format, kind            1, "subsets"
    name, question, scale, created, finished, command, version, environment
                            as in other experiments; `scale` is "full" without one
    size, count, truncation pictures of a subset; generated pictures; bound of their latents or null
    seeds                   of the repeats
    selection               options that all selections share
    reference               subset that others are compared with ("random"), or null
    facts                   [{what, value, paper}] what tables leave out; `paper` says what the
                            original says of it, usually "not stated"; null without `published`
    metrics                 [{metric, label, better: higher|lower, against: set|subset|nothing,
                            protocol, extractor, counts, about}] in the order of table columns;
                            of is, fid, kid, fid_subset, c, i, d, d_normalized, cid those measured
                            or published; empty `about` of those that are published only
    measures                [{measure, label, better: higher|lower}] of spread: higher means that a
                            larger number is more spread
    sets                    [{name, path, source, image_size, mode, counts: {train, val, test},
                            labels, sha256, sheet}]
    subsets                 [{name, label, method, clusters, sets: [names]}] in the file's order
    sources                 [{name, origin: file|run|train, system, path, steps, minutes, sha256}]
    generators              [{name, system, from, steps, trained, settings: {model, train}}]
                            `trained`: finished trainings; `from`: a name, "set: name, ..." or null
    selections              [{set, subset, seed, components, explained, spread: {measure: value},
                            notices, scatter, sheet}] one for each repeat; `scatter`, `sheet`:
                            PNG below the folder, or null
    spread                  [{set, subset, measure, mean, sd, values}] over repeats
    results                 [{set, subset, generator, metric, mean, sd, low, high, values, seeds}]
                            `low`, `high`: Student's 95 % interval of the mean over seeds; null
                            with one seed or equal values. A cell that is not finished is missing.
    comparisons             [{set, subset, generator, metric, difference, low, high, p, p_adjusted,
                            verdict: higher|lower|cannot tell, seeds, sentence}] subset minus
                            reference, paired by seed; p adjusted (Holm) over the subsets
    judgments               [{claim, source, set, generator, metric, measure, scope, subsets, seeds,
                            agreeing, holds, verdict, statistic, low, high, p, p_adjusted,
                            smallest_p, values, sentence}], see below
    conclusions             [{claim, title, ours, published}] one for each claim; `ours` and
                            `published` are sentences, null where there is nothing to judge
    published               [{set, subset, metric, value, sd}] as in the file; sd null if not given
    scatters                [{set, picture}] all choices from a set side by side (figure 1 of the
                            original), of the first seed
    interpolations          [{set, subset, generator, seed, picture, caption}] ways between training
                            pictures; empty without adapted generators
    samples                 [{set, subset, generator, seed, picture}] sheets of generated pictures
                            of the first seed
    reconstructions         [{set, subset, generator, seed, picture, caption}] real pictures beside
                            what an adapted generator makes of them; empty without such generators
    missing                 [{set, subset, generator, seed, reason}] repeats that are not finished
    notices                 [text] e.g. measures that were left out for want of a network
    cost                    [{cell, kind, minutes, peak_memory_mb, reused}]
    provenance              [{what, path, sha256}]
    bibtex                  text

Paths are relative to the folder. A judgment is of one claim:

    center_lowest           `center` has the lowest is, d, cid; one for each metric, set, generator
    center_best_fid         the same of fid
    spread_grows_with_g     KSS alone: the number of clusters against a measure of spread
    diversity_grows_with_g  KSS alone: the number of clusters against d, is, cid
    diversity_grows_with_order   center, random, KSS by G (the original's order of spread) against
                            d, is, cid
    diversity_grows_with_spread  a measure of the chosen pictures against d, is, cid

    source     "ours" or "published" (whose one number for each subset has no repeats)
    set        null: all sets together; generator is null in published ones and in those of spread
    scope      "all" subsets or "kss" alone
    holds      whether the means have that order (rank correlation above 0)
    verdict    ours: "supported", "contradicted" or "cannot tell" (always with one seed);
               published: "agrees" or "disagrees", no more than `holds`
    agreeing   number of seeds in which it holds; null in published ones
    statistic  Kendall's tau-b, mean over seeds; of `center_*` the difference between `center` and
               the nearest other subset (below 0: center is lower)
    low, high  95 % over seeds, null with one
    p          of tau, exact over permutations of the subsets; `smallest_p` is the least p that so
               few subsets can give, so that 4 of one set never reach 0.05
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tfgan_med
from tfgan_med import config, files
from tfgan_med.data import opening
from tfgan_med.data.records import SPLITS, DataConfig
from tfgan_med.experiments import gathering, methods, sets
from tfgan_med.experiments import subset_statistics as statistics
from tfgan_med.experiments.cells import Cell, Store, readable
from tfgan_med.experiments.real_data import RealData
from tfgan_med.experiments.running import last_words
from tfgan_med.experiments.subset_planning import RESULTS, Origin, Repeat, SubsetPlan
from tfgan_med.experiments.subset_protocol import VALUES, SubsetStudy, clusters_of
from tfgan_med.training import run_folder

FORMAT, KIND = 1, "subsets"
Json = dict[str, Any]

LABELS = {
    "is": "IS",
    "fid": "FID",
    "kid": "KID",
    "fid_subset": "FID to subset",
    "c": "C",
    "i": "I",
    "d": "D",
    "d_normalized": "D normalized",
    "cid": "CID",
}
_ABOUT = {
    "is": "Inception Score of the generated pictures",
    "fid": "Fréchet distance to the whole set",
    "kid": "kernel distance to the whole set",
    "fid_subset": "Fréchet distance to the chosen pictures",
    "c": "creativity: share of generated pictures unlike any chosen one",
    "i": "inheritance: contrast like that of the chosen pictures",
    "d": "diversity: entropy of clusters of look-alikes, in nats",
    "d_normalized": "D over the largest that so many pictures can have",
    "cid": "C · I · D",
}
# Beginnings of the names that `evaluate` gives, longest first; other networks add to them.
_NAMES = {
    "set": {
        "inception_score": "is",
        "classifier_score": "is",
        "fid": "fid",
        "frechet_distance": "fid",
        "kid": "kid",
        "kernel_distance": "kid",
    },
    "fid_subset": {"fid": "fid_subset", "frechet_distance": "fid_subset"},
    "cid": {
        "cid_diversity_normalized": "d_normalized",
        "cid_diversity": "d",
        "cid_creativity": "c",
        "cid_inheritance": "i",
        "cid": "cid",
    },
}
MEASURES = {
    "variance_ratio": ("variance, chosen over all", "higher"),
    "pairwise_distance": ("mean distance of two chosen, over that of all", "higher"),
    "nearest_distance": ("mean distance to the nearest other chosen one", "higher"),
    "coverage_radius": ("distance of the worst covered picture", "lower"),
    "mean_coverage_radius": ("mean distance of all pictures to a chosen one", "lower"),
    "log_det": ("log of the generalized variance", "higher"),
    "energy_distance": ("bias: energy distance of chosen and all", "lower"),
    "hull_ratio": ("hull in two components, over that of all", "higher"),
}
_STUDY_BIBTEX = """@inproceedings{buzuti2021kss,
  author = {Buzuti, Lucas F. and Heiderich, Tatiany M. and Thomaz, Carlos E.},
  title = {Spatial Distribution Analysis of Images in {GAN} Training with Small Datasets}
}

@article{guan2020cid,
  author = {Guan, Shuyue and Loew, Murray},
  title = {A Novel Measure to Evaluate Generative Adversarial Networks Based on Direct Analysis of
           Generated Images},
  journal = {arXiv:1912.12109}
}"""


@dataclass(frozen=True)
class Facts:
    """What a summary is made of beside the cells.

    Attributes:
        study, reals, plan, store: what was asked, on what, in which cells, where they are.
        scale: its name, `full` without one.
        command: to do it again.
        created: when it was first begun.
        reused: names of cells that were there before.
        failed: logs of cells that failed, by name.
        notices: of the plan.
    """

    study: SubsetStudy
    reals: Mapping[str, RealData]
    plan: SubsetPlan
    store: Store
    scale: str
    command: str
    created: str
    reused: Sequence[str]
    failed: Mapping[str, Path]
    notices: Sequence[str]

    def is_done(self, repeat: Repeat) -> bool:
        """Whether all cells of a repeat are finished."""
        return all(self.store.is_done(cell) for cell in repeat.cells)

    @property
    def done(self) -> list[Repeat]:
        """Finished repeats."""
        return [repeat for repeat in self.plan.repeats if self.is_done(repeat)]


def write(facts: Facts) -> Path:
    """Write `summary.json`, `results.jsonl` and the pictures beside them.

    A repeat counts once all of its cells are finished.
    """
    folder = facts.store.folder
    (folder / "figures").mkdir(exist_ok=True)
    measured = [Measured(repeat, _read(facts, repeat)) for repeat in facts.done]
    spreads = _spreads(facts)
    judged = _judged(facts, measured, spreads)
    study = facts.study
    summary: Json = {
        "format": FORMAT,
        "kind": KIND,
        "name": study.experiment,
        "question": study.question,
        "scale": facts.scale,
        "created": facts.created,
        "finished": run_folder.now(),
        "command": facts.command,
        "version": tfgan_med.__version__,
        "environment": gathering.environment(facts.plan.cells, facts.store),
        "size": study.size,
        "count": study.count,
        "truncation": study.truncation,
        "seeds": list(study.seeds),
        "selection": _selection(study),
        "reference": study.reference,
        "facts": _facts(facts, measured),
        "metrics": _metrics(facts, measured),
        "measures": [
            {"measure": key, "label": label, "better": better}
            for key, (label, better) in MEASURES.items()
            if any(key == measure for _, measure in spreads)
        ],
        "sets": [_set(facts, name) for name in study.sets],
        "subsets": [
            {
                "name": name,
                "label": one.title,
                "method": one.method,
                "clusters": one.clusters if one.method == "kss" else None,
                "sets": [key for key in study.sets if name in study.subsets_of(key)],
            }
            for name, one in study.subsets.items()
        ],
        "sources": [_source(facts, origin) for origin in facts.plan.origins.values()],
        "generators": [_generator(facts, name) for name in study.generators],
        "selections": list(_selections(facts)),
        "spread": _spread_rows(spreads),
        "results": _results(facts, measured),
        "comparisons": _comparisons(facts, measured),
        "judgments": [dataclasses.asdict(one) for one in judged],
        "conclusions": statistics.conclusions(
            [one for one in judged if one.source == "ours"],
            [one for one in judged if one.source == "published"],
        ),
        "published": _published(study),
        "samples": [sheet for repeat in _firsts(facts) if (sheet := _samples(facts, repeat))],
        "reconstructions": list(_drawn(facts, "reconstructions")),
        "interpolations": list(_drawn(facts, "interpolations")),
        "scatters": list(_scatters(facts)),
        "missing": [_missing(facts, r) for r in facts.plan.repeats if not facts.is_done(r)],
        "notices": [*facts.notices, *_unmeasured(facts, measured)],
        "cost": [
            gathering.cost(cell, facts.store, facts.reused)
            for cell in facts.plan.cells
            if facts.store.is_done(cell)
        ],
        "provenance": _provenance(facts),
        "bibtex": _bibtex(study),
    }
    files.write_json(folder / "summary.json", summary)
    rows = [_row(one, metric) for one in measured for metric in one.values]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_text(folder / "results.jsonl", lines)
    return folder / "summary.json"


# Measured values ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What `evaluate` said of a repeat: its whole results, by our names of measures."""

    repeat: Repeat
    values: Mapping[str, Json]

    def value(self, metric: str) -> float | None:
        """The number, if it was measured and is defined."""
        value = self.values.get(metric, {}).get("value")
        return None if value is None else float(value)


def _read(facts: Facts, repeat: Repeat) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for what, cell in repeat.measures.items():
        text = (facts.store.path(cell) / RESULTS).read_text(encoding="utf-8")
        for result in map(json.loads, filter(None, text.splitlines())):
            begins = (name for name in _NAMES[what] if result["metric"].startswith(name))
            key = _NAMES[what].get(next(begins, ""))
            if key is not None:  # variants such as fid_infinity follow the plain value
                found.setdefault(key, result)
    return {key: found[key] for key in VALUES if key in found}


def _row(one: Measured, metric: str) -> Json:
    repeat = one.repeat
    return {
        "set": repeat.set,
        "subset": repeat.subset,
        "generator": repeat.generator,
        "seed": repeat.seed,
        "metric": metric,
        "value": one.value(metric),
        "measured_as": one.values[metric]["metric"],
    }


Values = dict[tuple[str, str | None, str], dict[str, dict[int, float]]]
"""By set, generator and measure: subset, seed, value."""


def _values(facts: Facts, measured: Sequence[Measured]) -> Values:
    """In the order of the file."""
    found: Values = {}
    for name in facts.study.sets:
        for generator in facts.study.generators:
            for metric in VALUES:
                own: dict[str, dict[int, float]] = {}
                for subset in facts.study.subsets:
                    seeds = {
                        one.repeat.seed: value
                        for one in measured
                        if (one.repeat.set, one.repeat.generator) == (name, generator)
                        and one.repeat.subset == subset
                        and (value := one.value(metric)) is not None
                    }
                    if seeds:
                        own[subset] = dict(sorted(seeds.items()))
                if own:
                    found[name, generator, metric] = own
    return found


def _results(facts: Facts, measured: Sequence[Measured]) -> list[Json]:
    rows = []
    for (name, generator, metric), subsets in _values(facts, measured).items():
        for subset, values in subsets.items():
            over = statistics.estimate(list(values.values()))
            rows.append(
                {
                    "set": name,
                    "subset": subset,
                    "generator": generator,
                    "metric": metric,
                    "mean": over.mean,
                    "sd": over.sd,
                    "low": over.low,
                    "high": over.high,
                    "values": list(values.values()),
                    "seeds": list(values),
                }
            )
    return rows


def _comparisons(facts: Facts, measured: Sequence[Measured]) -> list[Json]:
    reference = facts.study.reference
    if reference is None:
        return []
    rows = []
    for (name, generator, metric), subsets in _values(facts, measured).items():
        for one in statistics.differences(metric, subsets, reference):
            told = dataclasses.asdict(one)
            rows.append({"set": name, "generator": generator, **told, "sentence": _sentence(one)})
    return rows


def _sentence(one: statistics.Difference) -> str:
    words = f"{one.verdict}: {one.difference:+.3g}"
    if one.low is not None and one.high is not None:
        words += f" (95 % {one.low:+.3g} to {one.high:+.3g})"
    words += f" in {LABELS[one.metric]}"
    if one.seeds < 2:
        return f"{words}, from one seed: how much another would change is unknown"
    return words if one.p is not None else f"{words}; all seeds agree"


def _judged(
    facts: Facts, measured: Sequence[Measured], spreads: statistics.Spreads
) -> list[statistics.Judgment]:
    """Claims held against our values, then against those of the paper."""
    study = facts.study
    methods_of = {name: (one.method, one.clusters) for name, one in study.subsets.items()}
    ours = statistics.Table("ours", methods_of, _values(facts, measured), spreads)
    return [*statistics.judge(ours), *statistics.judge(_published_table(study))]


def _published_table(study: SubsetStudy) -> statistics.Table:
    scores: Values = {}
    known = {}
    for name, subsets in study.published.items():
        for subset, values in subsets.items():
            found = clusters_of(subset, study.subsets)
            assert found is not None  # looked at when the file was read
            known[subset] = found
            for metric in VALUES:
                if metric in values:
                    scores.setdefault((name, None, metric), {})[subset] = {0: values[metric]}
    return statistics.Table("published", known, scores, {})


def _published(study: SubsetStudy) -> list[Json]:
    return [
        {
            "set": name,
            "subset": subset,
            "metric": metric,
            "value": values[metric],
            "sd": values.get(f"{metric}_sd"),
        }
        for name, subsets in study.published.items()
        for subset, values in subsets.items()
        for metric in VALUES
        if metric in values
    ]


# Chosen pictures ----------------------------------------------------------------------------------


def _chosen(facts: Facts) -> Iterator[tuple[tuple[str, str, int], Cell, Json]]:
    """Finished selections with their `selection.json`."""
    for key, cell in facts.plan.selections.items():
        if facts.store.is_done(cell):
            yield key, cell, files.read_json(facts.store.path(cell) / "selection.json")


def _selections(facts: Facts) -> Iterator[Json]:
    first = facts.study.seeds[0]
    for (name, subset, seed), cell, told in _chosen(facts):
        pictures = {
            key: _copied(facts, facts.store.path(cell) / file, f"{key}-{name}-{subset}")
            if seed == first
            else None
            for key, file in (("scatter", "scatter.png"), ("sheet", "contact_sheet.png"))
        }
        yield {
            "set": name,
            "subset": subset,
            "seed": seed,
            "components": told["space"]["components"],
            "explained": told["space"]["explained"],
            "spread": told["spread"],
            "notices": told["notices"],
            **pictures,
        }


def _spreads(facts: Facts) -> statistics.Spreads:
    """By set and measure: subset, seed, value."""
    found: statistics.Spreads = {}
    for (name, subset, seed), _, told in _chosen(facts):
        for measure in MEASURES:
            value = told["spread"].get(measure)
            if value is not None:
                own = found.setdefault((name, measure), {})
                own.setdefault(subset, {})[seed] = float(value)
    return found


def _spread_rows(spreads: statistics.Spreads) -> list[Json]:
    rows = []
    for (name, measure), subsets in spreads.items():
        for subset, values in subsets.items():
            over = statistics.estimate(list(values.values()))
            rows.append(
                {
                    "set": name,
                    "subset": subset,
                    "measure": measure,
                    "mean": over.mean,
                    "sd": over.sd,
                    "values": list(values.values()),
                }
            )
    return rows


def _selection(study: SubsetStudy) -> Json:
    told = study.selection.model_dump(mode="json")
    features = told["features"]
    return {**told, "features": Path(features).name if features else None}


# What tables leave out ----------------------------------------------------------------------------


def _facts(facts: Facts, measured: Sequence[Measured]) -> list[Json]:
    """Circumstances that numbers depend on, and what the original says of them."""
    study = facts.study
    asked = study.metrics
    rows = [
        ("pictures of a subset", str(study.size), "100"),
        ("generated pictures", f"{study.count} of each repeat", _published_count(study)),
        ("reference of FID and KID", _reference_pictures(facts), "not stated"),
        ("latent vectors of generated pictures", _truncations(facts), "not stated"),
        ("feature network of IS, FID, KID", _network(measured, ("is", "fid", "kid")), "Inception"),
        ("alike in C and D", _alike(study), "LPIPS; network and threshold not stated"),
        ("real pictures of C, I and D", "the chosen ones", "not stated"),
        ("pictures that C, I and D look at", f"at most {asked.cid_images} of a side", "not stated"),
        ("logarithm of D", "natural", "not stated"),
        ("components", _components(facts), "at least 90 % of the variance"),
        ("covariance", f"{study.selection.covariance}", "of the cluster; singular for small ones"),
        (
            "repeats",
            f"{len(study.seeds)}, each with its own choice, training and generation",
            "one; the ± of IS is not explained",
        ),
    ]
    return [
        {"what": what, "value": value, "paper": paper if study.published else None}
        for what, value, paper in rows
        if value
    ]


def _published_count(study: SubsetStudy) -> str:
    """A diversity of D nats takes exp(D) clusters, and as many pictures at least."""
    largest = max(
        (v["d"] for one in study.published.values() for v in one.values() if "d" in v), default=0.0
    )
    if not largest:
        return "not stated"
    return (
        f"not stated; D = {largest:g} takes at least {math.ceil(math.exp(largest))} in nats, "
        f"{math.ceil(2**largest)} in bits"
    )


def _reference_pictures(facts: Facts) -> str:
    told = []
    for name, one in facts.study.sets.items():
        count = _number(facts, name)
        told.append(f"{name}: {count} {'training ' if one.pictures == 'train' else ''}pictures")
    return "; ".join(told)


def _number(facts: Facts, name: str) -> int:
    """Pictures that subsets are chosen from, as written for networks (tiles are pictures)."""
    for (of, _, _), _, told in _chosen(facts):
        if of == name:
            return int(told["pictures"])
    real = facts.reals[name]
    only_train = facts.study.sets[name].pictures == "train"
    return len(real.records("train") if only_train else real.images.records)


def _truncations(facts: Facts) -> str:
    """As noted beside the pictures, the models' own bounds included."""
    told = {}
    for repeat in facts.done:
        path = facts.store.path(repeat.pictures) / "provenance.json"
        if repeat.generator not in told and path.is_file():
            bound = files.read_json(path).get("truncation")
            words = "normal" if bound is None else f"normal, cut at ±{bound:g}"
            told[repeat.generator] = words
    return "; ".join(f"{name}: {words}" for name, words in told.items())


def _network(measured: Sequence[Measured], metrics: Sequence[str]) -> str:
    found = [
        f"{one.values[key]['extractor']} ({one.values[key]['protocol']})"
        for one in measured
        for key in metrics
        if one.values.get(key, {}).get("extractor")
    ]
    return ", ".join(dict.fromkeys(found))


def _alike(study: SubsetStudy) -> str:
    asked = study.metrics
    if "cid" not in asked.measures:
        return ""
    default = 0.2 if asked.cid_similarity == "lpips" else 0.8
    threshold = default if asked.cid_threshold is None else asked.cid_threshold
    if asked.cid_similarity == "lpips":
        return f"LPIPS ({asked.lpips_net}) of at most {threshold:g}"
    return f"SSIM of at least {threshold:g}"


def _components(facts: Facts) -> str:
    found: dict[str, set[int]] = {}
    for (name, _, _), _, told in _chosen(facts):
        found.setdefault(name, set()).add(int(told["space"]["components"]))
    return "; ".join(f"{name}: {', '.join(map(str, sorted(n)))}" for name, n in found.items())


def _metrics(facts: Facts, measured: Sequence[Measured]) -> list[Json]:
    """Columns of the tables."""
    published = {
        key for one in facts.study.published.values() for values in one.values() for key in values
    }
    rows = []
    for metric in VALUES:
        found = [one.values[metric] for one in measured if metric in one.values]
        if not found and metric not in published:
            continue
        of_set = metric in ("fid", "kid")
        rows.append(
            {
                "metric": metric,
                "label": LABELS[metric],
                "better": "lower" if metric in statistics.LOWER_IS_BETTER else "higher",
                "against": "nothing" if metric == "is" else "set" if of_set else "subset",
                "protocol": found[0]["protocol"] if found else None,
                "extractor": _network(measured, [metric]) or None,
                "counts": _counts(found, metric),
                "about": _ABOUT[metric] if found else "",
            }
        )
    return rows


def _counts(found: Sequence[Json], metric: str) -> str:
    """`60 real, 250 generated`; a range where sets differ."""
    sides = [("generated", "count_fake")]
    sides = sides if metric == "is" else [("real", "count_real"), *sides]
    told = []
    for called, key in sides:
        numbers = sorted({int(one[key]) for one in found if one.get(key) is not None})
        if numbers:
            ends = [str(numbers[0]), *([str(numbers[-1])] if len(numbers) > 1 else [])]
            told.append(f"{' to '.join(ends)} {called}")
    return ", ".join(told)


def _unmeasured(facts: Facts, measured: Sequence[Measured]) -> list[str]:
    """Measures that were asked for and that `evaluate` left out."""
    lost = [
        metric
        for metric in facts.study.metrics.measures
        if any(metric not in one.values and _of(metric) in one.repeat.measures for one in measured)
    ]
    if not lost:
        return []
    names = ", ".join(LABELS[metric] for metric in lost)
    return [
        f"{names}: asked for, but not measured; the logs of the measurements say why. IS needs 20 "
        "pictures, and metrics.logits_output with a network of a file."
    ]


def _of(metric: str) -> str:
    """Which measurement brings a measure."""
    return "set" if metric in ("is", "fid", "kid") else metric


# Set-up -------------------------------------------------------------------------------------------


def _set(facts: Facts, name: str) -> Json:
    real, one = facts.reals[name], facts.study.sets[name]
    figure = facts.store.folder / "figures" / f"data-{readable(name)}.png"
    sheet = sets.sheet(real.records("train"), one.data, figure)
    return {
        "name": name,
        "path": gathering.told(one.path),
        "source": one.source,
        "image_size": one.image_size,
        "mode": one.mode,
        "pictures": _number(facts, name),
        "counts": {split: len(real.records(split)) for split in SPLITS},
        "labels": list(real.images.labels),
        "sha256": real.fingerprint(),
        "sheet": gathering.relative(sheet, facts.store),
    }


def _source(facts: Facts, origin: Origin) -> Json:
    source, cell = facts.study.sources[origin.name], origin.cell
    seconds = float(facts.store.record(cell).get("seconds", 0.0)) if cell else 0.0
    network = origin.place / "weights" / "network.yaml"
    system = source.train
    if system is None and network.is_file():
        system = config.load_yaml(network).get("system")
    return {
        "name": origin.name,
        "origin": source.origin,
        "system": system,
        "path": gathering.relative(origin.place, facts.store),
        "steps": cell.steps if cell else None,
        "minutes": round(seconds / 60, 2) if cell else None,
        "sha256": origin.key if cell is None else _weights(facts, cell),
    }


def _weights(facts: Facts, cell: Cell) -> str | None:
    """Hash of the weights of a finished training."""
    folder = facts.store.path(cell) / "weights"
    return sets.content_of(folder) if facts.store.is_done(cell) and folder.is_dir() else None


def _generator(facts: Facts, name: str) -> Json:
    how = facts.study.generators[name]
    trained = [r.training for r in facts.plan.repeats if r.generator == name]
    start = how.start
    if isinstance(start, dict):
        start = ", ".join(f"{key}: {source}" for key, source in start.items())
    return {
        "name": name,
        "system": how.train,
        "from": start,
        "steps": max((cell.steps or 0 for cell in trained), default=None),
        "trained": sum(facts.store.is_done(cell) for cell in trained),
        "settings": {"model": how.model, "train": how.settings},
    }


# Pictures -----------------------------------------------------------------------------------------


def _firsts(facts: Facts) -> list[Repeat]:
    """Finished repeats of the first seed."""
    return [repeat for repeat in facts.done if repeat.seed == facts.study.seeds[0]]


def _of_repeat(repeat: Repeat) -> Json:
    return {
        "set": repeat.set,
        "subset": repeat.subset,
        "generator": repeat.generator,
        "seed": repeat.seed,
    }


def _samples(facts: Facts, repeat: Repeat) -> Json | None:
    """A sheet of generated pictures."""
    records = opening.open_set(DataConfig(path=str(facts.store.path(repeat.pictures)))).records
    name = readable(f"samples-{repeat.set}-{repeat.subset}-{repeat.generator}")
    own = facts.study.sets[repeat.set].data.model_copy(update={"window": None, "fit": "crop"})
    path = sets.sheet(records, own, facts.store.folder / "figures" / f"{name}.png")
    return (
        {**_of_repeat(repeat), "picture": gathering.relative(path, facts.store)} if path else None
    )


_DRAWN = {
    "reconstructions": (
        "samples/reconstructions.png",
        "chosen pictures, and below each what the generator makes of its latent vector",
    ),
    "interpolations": (
        "interpolation.png",
        "ways from the latent vector of one chosen picture to that of another",
    ),
}
"""Pictures that adapted generators draw into their run folders, and what they show."""


def _drawn(facts: Facts, what: str) -> Iterator[Json]:
    place, caption = _DRAWN[what]
    for repeat in _firsts(facts):
        name = f"{what}-{repeat.set}-{repeat.subset}-{repeat.generator}"
        picture = _copied(facts, facts.store.path(repeat.training) / place, name)
        if picture is not None:
            yield {**_of_repeat(repeat), "picture": picture, "caption": caption}


def _scatters(facts: Facts) -> Iterator[Json]:
    """All choices from a set side by side."""
    for name, cell in facts.plan.overviews.items():
        if facts.store.is_done(cell):
            for path in sorted(facts.store.path(cell).glob("*.png")):
                yield {"set": name, "picture": _copied(facts, path, f"choices-{name}")}
                break


def _copied(facts: Facts, path: Path, name: str) -> str | None:
    if not path.is_file():
        return None
    return gathering.copied(path, f"{readable(name)}.png", facts.store)


# What is missing, provenance ----------------------------------------------------------------------


def _missing(facts: Facts, repeat: Repeat) -> Json:
    """A repeat that is not finished, and why."""
    for cell in repeat.cells:
        if cell.name in facts.failed:
            said = last_words(facts.failed[cell.name])
            return {**_of_repeat(repeat), "reason": f"{cell.kind} {cell.label} failed: {said}"}
    open_cells = [cell for cell in repeat.cells if not facts.store.is_done(cell)]
    return {**_of_repeat(repeat), "reason": f"{open_cells[0].kind} is not finished"}


def _provenance(facts: Facts) -> list[Json]:
    folder = facts.store.folder
    named = [("settings of the study", folder / "experiment.yaml")]
    named += [
        (f"pictures of {name}, splits and their hashes", folder / f"data-{name}.json")
        for name in facts.study.sets
    ]
    for (name, subset, seed), cell in facts.plan.selections.items():
        path = facts.store.path(cell) / "selection.csv"
        named.append((f"chosen from {name} by {subset}, seed {seed}", path))
    for repeat in facts.done:
        label = repeat.training.label
        weights = sorted((facts.store.path(repeat.training) / "weights").glob("*.h5"))
        named += [(f"weights of {label}", path) for path in weights[:1]]
        path = facts.store.path(repeat.pictures) / "provenance.json"
        named.append((f"pictures of {label}", path))
    return gathering.hashed(named, facts.store)


def _bibtex(study: SubsetStudy) -> str:
    systems = [one.train for one in study.generators.values()]
    systems += [one.train for one in study.used_sources.values() if one.train]
    return methods.references(systems) + "\n\n" + _STUDY_BIBTEX
