"""`summary.json`: all that a report shows, from finished cells. Nothing is trained here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tfgan_med
from tfgan_med import files
from tfgan_med.data import opening
from tfgan_med.data.records import SPLITS, DataConfig
from tfgan_med.errors import UserError
from tfgan_med.experiments import gathering, methods, sets, statistics
from tfgan_med.experiments.cells import Store, readable
from tfgan_med.experiments.planning import Plan, Pool, Repeat
from tfgan_med.experiments.protocol import Arm, Experiment
from tfgan_med.experiments.real_data import RealData
from tfgan_med.experiments.resampling import Arm as Runs
from tfgan_med.experiments.resampling import Rules
from tfgan_med.training import predictions, run_folder

FORMAT = 1
Json = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What a summary is made of beside the cells.

    Attributes:
        experiment, real, plan, store: what was asked, on what, in which cells, where they are.
        scale: its name, `full` without one.
        command: to do it again.
        created: when it was first begun.
        findings: of the guards.
        copies: for each generator, how many pictures look like copies.
        reused: names of cells that were there before.
    """

    experiment: Experiment
    real: RealData
    plan: Plan
    store: Store
    scale: str
    command: str
    created: str
    findings: Sequence[Mapping[str, Any]]
    copies: Mapping[str, Mapping[str, Any]]
    reused: Sequence[str]


def write(facts: Facts) -> Path:
    """Write `summary.json`, `results.jsonl` and the pictures beside them.

    Raises:
        UserError: if no downstream model has finished its reference arm.
    """
    folder = facts.store.folder
    (folder / "figures").mkdir(exist_ok=True)
    studies = [study for name in facts.experiment.downstream if (study := _study(facts, name))]
    if not studies:
        raise UserError(
            f"{folder}: no downstream model has finished the arm "
            f"{facts.experiment.reference.name}, so there is nothing to report yet. Go on with "
            f"`{facts.command}`."
        )
    summary = {
        "format": FORMAT,
        "name": facts.experiment.experiment,
        "question": facts.experiment.question,
        "scale": facts.scale,
        "created": facts.created,
        "finished": run_folder.now(),
        "command": facts.command,
        "version": tfgan_med.__version__,
        "environment": gathering.environment(facts.plan.cells, facts.store),
        "data": _data(facts),
        "generators": [
            _generator(facts, name) for name in facts.plan.pools if _is_made(facts, name)
        ],
        "arms": [_arm(facts, arm) for arm in facts.experiment.all_arms],
        "studies": studies,
        "guards": list(facts.findings),
        "cost": [
            gathering.cost(cell, facts.store, facts.reused)
            for cell in facts.plan.cells
            if facts.store.is_done(cell)
        ],
        "provenance": _provenance(facts),
        "methods": methods.paragraph(facts.experiment, facts.real, facts.plan, studies),
        "bibtex": methods.bibtex(facts.experiment),
    }
    files.write_json(folder / "summary.json", summary)
    _write_results(folder / "results.jsonl", summary)
    return folder / "summary.json"


def _write_results(path: Path, summary: Json) -> None:
    """One line for each value."""
    rows: list[Json] = []
    for study in summary["studies"]:
        common = {"downstream": study["downstream"], "split": "test"}
        for result in study["results"]:
            for seed, value in zip(study["seeds"], result["values"], strict=True):
                rows.append(
                    {**common, "arm": result["arm"], "metric": result["metric"], "seed": seed,
                     "value": value}
                )  # fmt: skip
    for generator in summary["generators"]:
        rows += [{"generator": generator["name"], **found} for found in generator["metrics"]]
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# Set-up -------------------------------------------------------------------------------------------


def _data(facts: Facts) -> Json:
    real, config = facts.real, facts.experiment.data
    sheet = sets.sheet(real.records("train"), config, facts.store.folder / "figures" / "data.png")
    return {
        "path": gathering.told(config.path),
        "counts": {split: real.counts(split) for split in SPLITS},
        "image_size": config.image_size,
        "channels": _channels(facts),
        "sha256": real.fingerprint(),
        "grouped": any(record.group is not None for record in real.images.records),
        "source": facts.experiment.source,
        "sheet": gathering.relative(sheet, facts.store),
    }


def _channels(facts: Facts) -> int | None:
    """As a finished downstream run saw the pictures."""
    for repeat in facts.plan.repeats:
        path = facts.store.path(repeat.cell) / "data.json"
        if path.is_file():
            channels: int = files.read_json(path)["target"]["channels"]
            return channels
    return None


def _arm(facts: Facts, arm: Arm) -> Json:
    done = [r for r in facts.plan.repeats if r.arm.name == arm.name and facts.store.is_done(r.cell)]
    counts: Json = {"real": {}, "synthetic": {}}
    if done:
        told = predictions.read_outcome(facts.store.path(done[0].cell))["counts"]
        counts = {kind: told.get(kind) or {} for kind in counts}
    classic: Any = None
    if arm.classic is not False:
        asked = facts.experiment.classic if arm.classic is True else arm.classic
        classic = asked if isinstance(asked, str) else json.dumps(asked)
    return {
        "name": arm.name,
        "real": arm.real,
        "synthetic": list(arm.synthetic),
        "classic": classic,
        "sampling": arm.sampling,
        "ratio": arm.ratio,
        "counts": counts,
    }


# Generators ---------------------------------------------------------------------------------------


def _is_made(facts: Facts, name: str) -> bool:
    pool = facts.plan.pools[name]
    return pool.cell is None or facts.store.is_done(pool.cell)


def _generator(facts: Facts, name: str) -> Json:
    pool, generator = facts.plan.pools[name], facts.experiment.generators[name]
    figures = facts.store.folder / "figures"
    records = opening.open_set(DataConfig(path=str(pool.folder))).records
    own = facts.experiment.data.model_copy(update={"window": None})
    sheet = sets.sheet(records, own, figures / f"samples-{readable(name)}.png")
    seconds = [facts.store.record(cell).get("seconds", 0.0) for cell in pool.trained]
    return {
        "name": name,
        "origin": generator.origin,
        "system": generator.train or _system(pool.folder),
        "run": _run_of(facts, pool, generator.run),
        "folder": gathering.relative(pool.folder, facts.store) if pool.cell else pool.folder.name,
        "steps": max((cell.steps or 0 for cell in pool.trained), default=None),
        "minutes": round(sum(seconds) / 60, 2) if seconds else None,
        "counts": sets.count(pool.folder),
        "metrics": _measured(facts, name),
        "sheet": gathering.relative(sheet, facts.store),
        "neighbors": _neighbors(facts, name),
        "copies": facts.copies.get(name),
    }


def _system(folder: Path) -> str | None:
    path = folder / "provenance.json"
    return files.read_json(path).get("system") if path.is_file() else None


def _run_of(facts: Facts, pool: Pool, given: Path | None) -> str | None:
    if pool.trained:
        return gathering.relative(facts.store.path(pool.trained[0]), facts.store)
    return given.name if given else None


def _measured(facts: Facts, name: str) -> list[Json]:
    """What `evaluate` said of the pictures; signs of copies stand elsewhere."""
    cell = facts.plan.measures.get(name)
    if cell is None or not facts.store.is_done(cell):
        return []
    lines = (facts.store.path(cell) / "results.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for result in map(json.loads, filter(None, lines)):
        if result["metric"].startswith(("memorization", "data_copying")):
            continue
        interval = result.get("interval") or {}
        network = f", {result['extractor']}" if result.get("extractor") else ""
        found.append(
            {
                "metric": result["metric"],
                "value": result["value"],
                "low": interval.get("low"),
                "high": interval.get("high"),
                "about": f"{result['protocol']}{network}; {result['count_real']} real, "
                f"{result['count_fake']} generated",
            }
        )
    return found


def _neighbors(facts: Facts, name: str) -> str | None:
    """Generated pictures beside the real ones nearest to them."""
    cell = facts.plan.measures.get(name)
    if cell is None or not facts.store.is_done(cell):
        return None
    for drawn in ("neighbors.png", "copies_features.png", "copies_pixels.png"):
        path = facts.store.path(cell) / "figures" / drawn
        if path.is_file():
            return gathering.copied(path, f"neighbors-{readable(name)}.png", facts.store)
    return None


# Studies ------------------------------------------------------------------------------------------


def _study(facts: Facts, name: str) -> Json | None:
    """What the arms of one downstream model show; None before its reference is finished."""
    by_arm = _finished_arms(facts, name)
    reference = facts.experiment.reference.name
    if reference not in by_arm:
        return None
    first = by_arm[reference][0]
    outcome = predictions.read_outcome(facts.store.path(first.cell))
    model = facts.experiment.downstream[name]
    default = "balanced_accuracy" if outcome["kind"] == "classification" else "iou"
    main = model.main or facts.experiment.metrics.main or default
    rules = Rules(
        positive=outcome["positive"],
        background=outcome["kind"] == "segmentation" and bool(outcome["exclusive"]),
    )
    arms = [_runs(facts, arm, repeats) for arm, repeats in by_arm.items()]
    try:
        found = statistics.analyze(arms, reference, main, rules)
    except KeyError as error:
        known = ", ".join(outcome["scores"]["test"])
        raise UserError(
            f"metrics.main: {main} is no score of {name}. Choose one of {known}."
        ) from error
    return {
        "downstream": name,
        **{key: outcome[key] for key in ("system", "kind", "classes", "positive", "threshold")},
        "reference": reference,
        "steps": first.cell.steps,
        **{key: outcome.get(key) for key in ("batch_size", "weights", "parameters")},
        "seeds": [repeat.seed for repeat in by_arm[reference]],
        "main": main,
        "metrics": [main, *(metric for metric in found.metrics if metric != main)],
        "results": [dataclasses.asdict(result) for result in found.results],
        "comparisons": [dataclasses.asdict(one) for one in found.comparisons],
        "confusion": [
            {"arm": arm, "classes": outcome["classes"], "matrix": matrix.tolist()}
            for arm, matrix in found.confusion.items()
        ],
        "curves": [
            curve for repeats in by_arm.values() for r in repeats for curve in _curves(facts, r)
        ],
        "examples": [e for repeats in by_arm.values() if (e := _examples(facts, name, repeats[0]))],
        "sweep": _sweep(facts, main, found.results),
        "grid": _grid(facts, name),
    }


def _finished_arms(facts: Facts, name: str) -> dict[str, list[Repeat]]:
    """Finished repeats by arm: those seeds that the reference has too, arms that have them all."""
    done = [r for r in facts.plan.repeats if r.downstream == name and facts.store.is_done(r.cell)]
    reference = facts.experiment.reference.name
    seeds = [repeat.seed for repeat in done if repeat.arm.name == reference]
    arms: dict[str, list[Repeat]] = {}
    for arm in facts.experiment.all_arms:
        own = [r for r in done if r.arm.name == arm.name and r.seed in seeds]
        if own and len(own) == len(seeds):
            arms[arm.name] = own
    return arms


def _runs(facts: Facts, arm: str, repeats: Sequence[Repeat]) -> Runs:
    folders = [facts.store.path(repeat.cell) for repeat in repeats]
    thresholds = [predictions.read_outcome(folder)["threshold"]["value"] for folder in folders]
    said = [predictions.read(folder, "test") for folder in folders]
    return Runs(arm, said, [0.5 if value is None else float(value) for value in thresholds])


def _curves(facts: Facts, repeat: Repeat) -> list[Json]:
    """Scores on the validation split by step, of the metric that decides and of the loss."""
    run = facts.store.path(repeat.cell)
    metric = predictions.read_outcome(run)["best"]["metric"]
    points: dict[int, float] = {}
    for entry in _log_of(run):
        value = (entry.get("scores") or {}).get(metric)
        if entry.get("split") in ("val", "train") and "event" not in entry and value is not None:
            points[int(entry["step"])] = value
    curve = {"arm": repeat.arm.name, "seed": repeat.seed, "metric": metric}
    steps = sorted(points)
    return [{**curve, "steps": steps, "values": [points[s] for s in steps]}] if steps else []


def _log_of(run: Path) -> list[Json]:
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def _examples(facts: Facts, name: str, repeat: Repeat) -> Json | None:
    """Held-out pictures with the mistakes of the first repeat."""
    run = facts.store.path(repeat.cell)
    told = predictions.read_outcome(run).get("examples") or {}
    path = run / told.get("picture", "examples.png")
    if not path.is_file():
        return None
    target = f"examples-{readable(name)}-{readable(repeat.arm.name)}.png"
    picture = gathering.copied(path, target, facts.store)
    return {"arm": repeat.arm.name, "picture": picture, "caption": told.get("caption", "")}


def _sweep(facts: Facts, main: str, results: Sequence[statistics.Estimate]) -> list[Json]:
    """The main metric by ratio, of arms that add one generator's pictures to the real ones."""
    found = {result.arm: result for result in results if result.metric == main}
    rows = []
    for arm in facts.experiment.all_arms:
        plain = arm.real and len(arm.synthetic) == 1 and not arm.classic
        swept = plain and arm.synthetic[0] in facts.experiment.sweep.generators
        if not swept or arm.ratio is None or arm.name not in found:
            continue
        result = found[arm.name]
        rows.append(
            {
                "generator": arm.synthetic[0],
                "arm": arm.name,
                "ratio": arm.ratio,
                "metric": main,
                "mean": result.mean,
                "low": result.low,
                "high": result.high,
            }
        )
    return rows


def _grid(facts: Facts, name: str) -> list[Json]:
    rows = []
    for point in facts.plan.points:
        if point.downstream != name or not facts.store.is_done(point.cell):
            continue
        best = predictions.read_outcome(facts.store.path(point.cell))["best"]
        chosen = facts.plan.chosen.get(name) == point.values
        rows.append(
            {
                "settings": dict(point.values),
                "metric": best["metric"],
                "value": best["value"],
                "chosen": chosen,
            }
        )
    return rows


# Cost and provenance ------------------------------------------------------------------------------


def _provenance(facts: Facts) -> list[Json]:
    folder = facts.store.folder
    named = [
        ("settings of the experiment", folder / "experiment.yaml"),
        ("pictures, splits and their hashes", folder / "data.json"),
    ]
    for name, pool in facts.plan.pools.items():
        for cell in pool.trained:
            weights = sorted((facts.store.path(cell) / "weights").glob("*.h5"))
            named += [(f"weights of {cell.label}", path) for path in weights[:2]]
        named.append((f"pictures of {name}", pool.folder / "provenance.json"))
    return gathering.hashed(named, facts.store)
