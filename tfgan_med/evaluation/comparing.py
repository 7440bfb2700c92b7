"""Several generated sets against one real set: values side by side, with ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfgan_med.errors import UserError
from tfgan_med.evaluation.measuring import (
    Evaluation,
    NamedPerceptualNetwork,
    Options,
    Outcome,
    Skipped,
)
from tfgan_med.evaluation.pictures import Pictures, open_pictures
from tfgan_med.evaluation.sides import find_sides
from tfgan_med.metrics.base import Interval, Metric, Progress, Result, require_comparable
from tfgan_med.networks.features import FeatureNetwork


@dataclass(frozen=True)
class Place:
    """One set's value of a metric.

    Attributes:
        fake: the set.
        value, interval: of the metric.
        rank: 1 for the best; sets that the intervals do not tell apart share a rank. None where
            no direction is better.
        count: generated pictures.
    """

    fake: str
    value: float | None
    interval: Interval | None
    rank: int | None
    count: int


@dataclass(frozen=True)
class Row:
    """A metric with the places of all sets, best first."""

    metric: str
    better: str
    places: tuple[Place, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        rows: one for each value.
        results: all values with their protocols.
        skipped: metrics that could not be computed, each once.
        notes: what to keep in mind.
    """

    rows: tuple[Row, ...]
    results: tuple[Result, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def compare(
    metrics: Sequence[Metric],
    real: str | None,
    fakes: Sequence[str],
    options: Options,
    *,
    split: str = "auto",
    role: str = "images",
    runs_dir: Path = Path("runs"),
    network: FeatureNetwork | None = None,
    perceptual: NamedPerceptualNetwork | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """Compute metrics for several generated sets.

    Args:
        metrics, options, network, perceptual, progress: see `measuring.Evaluation`.
        real: the real set; by default the test pictures of the first run.
        fakes: folders or runs, two or more.
        split: of the real set.
        role: which picture of an item.
        runs_dir: folder of the runs.
    Raises:
        UserError: fewer than two sets, one of them twice, or sets that cannot be compared.
    """
    if len(fakes) < 2 or len(set(fakes)) < len(fakes):
        raise UserError(
            f"compare needs two generated sets or more, each once; received {', '.join(fakes)}. "
            "For one set: tfgan-med evaluate all."
        )
    sides = [find_sides(real, fake, runs_dir) for fake in fakes]
    reals = open_pictures(sides[0].real, split, role)
    opened = [
        replace(open_pictures(side.fake, "all", role), name=name)
        for side, name in zip(sides, fakes, strict=True)
    ]
    notes = []
    counts = {len(pictures) for pictures in opened}
    if len(counts) > 1:
        opened = [_subset(pictures, min(counts), options.seed) for pictures in opened]
        notes.append(
            f"Sets of {min(counts)} to {max(counts)} pictures: {min(counts)} of each were drawn "
            f"(seed {options.seed}), since most values depend on the count."
        )
    evaluation = Evaluation(
        metrics,
        reals,
        opened,
        options,
        network=network,
        perceptual=perceptual,
        progress=progress,
    )
    outcomes = [evaluation.of(pictures) for pictures in opened]
    return _side_by_side(outcomes, fakes, notes)


def _subset(pictures: Pictures, count: int, seed: int) -> Pictures:
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pictures))[:count])
    return replace(
        pictures,
        records=tuple(pictures.records[i] for i in chosen),
        sizes=tuple(pictures.sizes[i] for i in chosen),
    )


def _side_by_side(
    outcomes: Sequence[Outcome], fakes: Sequence[str], notes: Sequence[str]
) -> Comparison:
    names = list(dict.fromkeys(r.metric for outcome in outcomes for r in outcome.results))
    rows = []
    skipped = {skip: None for outcome in outcomes for skip in outcome.skipped}
    for name in names:
        found = [
            (fake, result)
            for fake, outcome in zip(fakes, outcomes, strict=True)
            for result in outcome.results
            if result.metric == name
        ]
        try:
            for _, result in found[1:]:
                require_comparable(found[0][1], result)
        except UserError as error:
            skipped[Skipped(name, str(error))] = None
        else:
            rows.append(Row(name, _direction(found), _ranked(found)))
    results = tuple(result for outcome in outcomes for result in outcome.results)
    shared = dict.fromkeys(note for result in results for note in result.notes)
    return Comparison(tuple(rows), results, tuple(skipped), (*notes, *shared))


def _direction(found: Sequence[tuple[str, Result]]) -> str:
    """Which way is better; variety beyond that of real pictures is none, so nearer to it is."""
    ways = {result.better for _, result in found}
    return ways.pop() if len(ways) == 1 else "nearer to real"


def _ranked(found: Sequence[tuple[str, Result]]) -> tuple[Place, ...]:
    """Best first; a set shares the rank of the best of those that its interval reaches."""
    better = _direction(found)
    known = [(fake, r) for fake, r in found if r.value is not None]
    unknown = [(fake, r) for fake, r in found if r.value is None]
    known.sort(key=lambda entry: _cost(entry[1], better))

    places: list[Place] = []
    leader: Result | None = None
    rank = 0
    for position, (fake, result) in enumerate(known, 1):
        if leader is None or not _overlap(leader, result):
            leader, rank = result, position
        places.append(
            Place(
                fake,
                result.value,
                result.interval,
                None if better == "neither" else rank,
                result.count_fake,
            )
        )
    places += [Place(fake, None, None, None, r.count_fake) for fake, r in unknown]
    return tuple(places)


def _cost(result: Result, better: str) -> float:
    value = result.value or 0.0
    if better == "nearer to real":
        return abs(value - (result.reference or 0.0))
    return -value if better == "higher" else value


def _overlap(first: Result, second: Result) -> bool:
    """Whether intervals meet; without intervals only equal values do."""
    a, b = first.interval, second.interval
    if a is None or b is None:
        return first.value == second.value
    return a.low <= b.high and b.low <= a.high


def draw(comparison: Comparison, folder: Path) -> Path:
    """Draw values with intervals, a panel for each metric; returns the file."""
    from tfgan_med.evaluation import charts

    folder.mkdir(parents=True, exist_ok=True)
    return charts.bars(comparison.rows, folder / "comparison.png")
