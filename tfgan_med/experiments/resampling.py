"""Scores of test pictures drawn anew: the bootstrap of all metrics, arms and repeats at once.

A resample draws as many test cases as there are, with replacement; a case is a group (a patient, a
part) where groups are known, else a picture (Davison & Hinkley 1997, section 3.8). It is a row of
weights, how often each picture was drawn, and the same rows serve all arms and repeats, so that
their differences are paired. Counts and means are then products of matrices, and the areas under
curves one pass over pictures sorted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med.errors import UserError
from tfgan_med.metrics import classification, segmentation
from tfgan_med.metrics.classification import ratio
from tfgan_med.training.predictions import Classified, Segmented

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Said = Classified | Segmented
Scorer = Callable[[Floats], dict[str, Floats]]
"""Weights `(resamples, pictures)` to metrics, `(resamples,)` each."""

_CELLS = 30_000  # weights at a time, so that they stay in the cache: four times as fast


@dataclass(frozen=True)
class Rules:
    """How predictions become scores, the same for all arms.

    Attributes:
        positive: the class that a yes-or-no classifier is asked for; None with several classes.
        background: of segmenters, whether the first class is the background of label maps.
        resamples: of the bootstrap.
        seed: of the draws.
    """

    positive: str | None = None
    background: bool = False
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Arm:
    """The finished runs of one arm, one for each seed, and what each said of the test pictures.

    Attributes:
        name: of the arm.
        runs: in the order of the seeds, which is the same in all arms.
        thresholds: of yes-or-no classifiers, one for each run, 0.5 if none is given. Segmenters
            have counted their pixels at theirs already.
    """

    name: str
    runs: Sequence[Said]
    thresholds: Sequence[float] = ()


@dataclass(frozen=True)
class Replicates:
    """A metric of one arm.

    Attributes:
        values: `(repeats,)` on the test set as it is.
        resampled: `(resamples, repeats)` on test sets drawn anew.
    """

    values: Floats
    resampled: Floats


def replicate(arms: Sequence[Arm], rules: Rules) -> dict[str, dict[str, Replicates]]:
    """All metrics of all arms on the test set and on its resamples.

    Returns:
        Arm to metric to values; NaN where a metric is undefined.
    Raises:
        UserError: arms that have not seen the same test pictures in the same order, that differ in
            repeats, or a positive class that there is not.
    """
    require_comparable(arms)
    scorers = {arm.name: _scorers(arm, rules) for arm in arms}
    whole = np.ones((1, len(arms[0].runs[0].items)))
    values = {name: _scored(each, whole) for name, each in scorers.items()}
    parts: dict[str, list[dict[str, Floats]]] = {arm.name: [] for arm in arms}
    for weights in draws(cases(arms[0].runs[0]), rules):
        for name, each in scorers.items():
            parts[name].append(_scored(each, weights))
    return {
        name: {
            metric: Replicates(found[0], np.concatenate([part[metric] for part in parts[name]]))
            for metric, found in values[name].items()
        }
        for name in values
    }


def _scored(scorers: Sequence[Scorer], weights: Floats) -> dict[str, Floats]:
    """`(resamples, repeats)` of every metric."""
    each = [scorer(weights) for scorer in scorers]
    return {name: np.stack([found[name] for found in each], axis=1) for name in each[0]}


# Test cases ---------------------------------------------------------------------------------------


def cases(run: Said) -> Integers:
    """`(pictures,)` which case each picture is of: its group, or itself where none is known."""
    names = [
        ("group", group) if group is not None else ("item", str(index))
        for index, group in enumerate(run.groups)
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def draws(of_cases: Integers, rules: Rules) -> Iterator[Floats]:
    """Weights of the resamples, `(some resamples, pictures)` at a time."""
    rng = np.random.default_rng(rules.seed)
    count = int(of_cases.max()) + 1
    at_once = max(1, _CELLS // len(of_cases))
    for start in range(0, rules.resamples, at_once):
        rows = min(at_once, rules.resamples - start)
        drawn = rng.integers(count, size=(rows, count))
        places = drawn + count * np.arange(rows)[:, None]
        times = np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)
        yield np.take(times.astype(np.float64), of_cases, axis=1)


def require_comparable(arms: Sequence[Arm]) -> None:
    """Same pictures, truth, groups and classes, in the same order, and as many repeats.

    Raises:
        UserError: with the arm and repeat that differ.
    """
    if not arms or not arms[0].runs or not arms[0].runs[0].items:
        raise UserError("Nothing to compare: no arm has a finished run with test pictures.")
    first = arms[0]
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"Arm {twice[0]!r} is there twice. Give every arm a name of its own.")
    for arm in arms:
        if len(arm.runs) != len(first.runs):
            raise UserError(
                f"Arm {arm.name!r} has {len(arm.runs)} finished repeats, {first.name!r} has "
                f"{len(first.runs)}. Compare the seeds that all arms have finished."
            )
        if arm.thresholds and len(arm.thresholds) != len(arm.runs):
            raise UserError(
                f"Arm {arm.name!r} has {len(arm.thresholds)} thresholds for {len(arm.runs)} "
                "repeats. Give one for each."
            )
        for number, run in enumerate(arm.runs, 1):
            difference = _difference(run, first.runs[0])
            if difference:
                raise UserError(
                    f"Arm {arm.name!r}, repeat {number}: {difference} than in arm "
                    f"{first.name!r}. All arms of a comparison see the same test set; train what "
                    "saw another one anew."
                )


def _difference(run: Said, other: Said) -> str | None:
    if type(run) is not type(other) or run.classes != other.classes:
        return f"other classes ({', '.join(run.classes[:3])})"
    if len(run.items) != len(other.items):
        return f"other test pictures ({len(run.items)} instead of {len(other.items)})"
    for here, there in zip(run.items, other.items, strict=True):
        if here != there:
            return f"other test pictures or another order ({here!r} instead of {there!r})"
    if run.groups != other.groups:
        return "other groups of the test pictures"
    if not np.array_equal(_truth(run), _truth(other)):
        return "another truth of the test pictures"
    return None


def _truth(run: Said) -> Array:
    """Classes of pictures, or pixels that are and are not of each class."""
    if isinstance(run, Classified):
        return run.truth
    return np.stack([run.counts[..., [0, 2]].sum(-1), run.counts[..., [1, 3]].sum(-1)])


# Metrics of one run, for weights of its pictures --------------------------------------------------


def _scorers(arm: Arm, rules: Rules) -> list[Scorer]:
    scorers = []
    for run, threshold in zip(arm.runs, thresholds(arm), strict=True):
        if isinstance(run, Segmented):
            scorers.append(_of_masks(run, rules.background))
        elif rules.positive is None:
            scorers.append(_of_classes(run))
        else:
            scorers.append(_of_question(run, positive_index(run, rules), threshold))
    return scorers


def thresholds(arm: Arm) -> list[float]:
    """One for each run."""
    return list(arm.thresholds) or [0.5] * len(arm.runs)


def positive_index(run: Classified, rules: Rules) -> int:
    """Column of the positive class.

    Raises:
        UserError: if there is none, or there are more than two classes.
    """
    if rules.positive not in run.classes or len(run.classes) != 2:
        raise UserError(
            f"The positive class {rules.positive!r} is to be one of two, and the classes are "
            f"{', '.join(run.classes)}. Name one of two classes, or none where there are more."
        )
    return run.classes.index(rules.positive)


def decisions(run: Classified, rules: Rules, threshold: float) -> Integers:
    """`(pictures,)` indices of the classes that a run says."""
    positive = None if rules.positive is None else positive_index(run, rules)
    return classification.decided(run.scores, positive, threshold)


def _of_question(run: Classified, positive: int, threshold: float) -> Scorer:
    truth, scores = run.truth == positive, run.scores[:, positive]
    said = scores >= threshold
    cells = np.stack([truth & said, ~truth & said, truth & ~said, ~truth & ~said], axis=1)
    summed = np.column_stack([cells, (scores - truth) ** 2])
    ranking = Ranking(truth, scores)

    def score(weights: Floats) -> dict[str, Floats]:
        drawn = weights.sum(axis=1)
        tp, fp, fn, tn, squares = (weights @ summed).T
        auc, average_precision = ranking.areas(weights)
        # Groups of several sizes make resamples of several sizes; counts are of the test set's.
        size = len(truth) / drawn
        return classification.rates(tp, fp, fn, tn) | {
            "auc": auc,
            "average_precision": average_precision,
            "brier": squares / drawn,
            "fp": fp * size,
            "fn": fn * size,
            "fp_per_output": (fp + fn) * size,
            "fn_per_output": (fp + fn) * size,
        }

    return score


def _of_classes(run: Classified) -> Scorer:
    classes = len(run.classes)
    pairs = run.truth * classes + run.scores.argmax(axis=1)
    cells = (pairs[:, None] == np.arange(classes**2)).astype(np.float64)
    target, on = run.truth[:, None] == np.arange(classes), run.scores > 0.5
    per_output = np.stack([(on & ~target).sum(axis=1), (~on & target).sum(axis=1)], axis=1)
    rankings = [Ranking(target[:, index], run.scores[:, index]) for index in range(classes)]

    def score(weights: Floats) -> dict[str, Floats]:
        size = len(run.truth) / weights.sum(axis=1)
        matrix = (weights @ cells).reshape(-1, classes, classes)
        areas = np.array([ranking.areas(weights) for ranking in rankings])
        occurs = matrix.sum(axis=2).T > 0
        found = classification.confusion_rates(matrix)
        fp, fn = (weights @ per_output).T
        return found | {
            "errors": found["errors"] * size,
            "auc": _mean_where(areas[:, 0], occurs),
            "average_precision": _mean_where(areas[:, 1], occurs),
            "fp_per_output": fp * size,
            "fn_per_output": fn * size,
        }

    return score


def _mean_where(values: Floats, occurs: npt.NDArray[np.bool_]) -> Floats:
    """Means over the first axis; NaN where what occurs is undefined."""
    means: Floats = np.where(occurs, values, 0.0).sum(axis=0) / occurs.sum(axis=0)
    return means


def _of_masks(run: Segmented, background: bool) -> Scorer:
    count, classes, _ = run.counts.shape
    each = segmentation.image_scores(run.counts, run.classes, background=background)
    means = np.stack(list(each.values()), axis=1)
    flat = run.counts.reshape(count, -1).astype(np.float64)

    def score(weights: Floats) -> dict[str, Floats]:
        averages = (weights @ means / weights.sum(axis=1, keepdims=True)).T
        totals = (weights @ flat).reshape(-1, classes, 4)
        pooled = segmentation.pooled_scores(totals, background=background)
        return dict(zip(each, averages, strict=True)) | pooled

    return score


class Ranking:
    """Pictures in the order of their scores.

    Args:
        truth: `(pictures,)` whether a picture is positive.
        scores: `(pictures,)`.
    """

    def __init__(self, truth: Array, scores: Array) -> None:
        self.order = np.argsort(-scores, kind="stable")
        falling = scores[self.order]
        self.starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
        self.truth = truth[self.order].astype(np.float64)

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """Areas under the ROC curve and average precisions of weighted pictures.

        Args:
            weights: `(resamples, pictures)`, at least 0.
        Returns:
            `(resamples,)` each, as scikit-learn's functions with `sample_weight`; NaN without
            positives, the first also without negatives.
        """
        falling = np.take(weights, self.order, axis=1)
        positive = falling * self.truth
        if len(self.starts) < len(self.order):  # equal scores are one step of the curves
            falling = np.add.reduceat(falling, self.starts, axis=1)
            positive = np.add.reduceat(positive, self.starts, axis=1)
        tp, drawn = positive.cumsum(axis=1), falling.cumsum(axis=1)
        positives = tp[:, -1]
        negatives = drawn[:, -1] - positives
        # Of the pairs with a negative, a tie is won half: trapezoids under the curve.
        won = np.einsum("rs,rs->r", falling - positive, tp - positive / 2)
        pairs = positives * negatives
        auc = ratio(won, pairs)
        reached = tp / np.maximum(drawn, 1e-300)  # not yet drawn: no positives either
        precision = ratio(np.einsum("rs,rs->r", positive, reached), positives)
        return np.where(pairs > 0, auc, np.nan), np.where(positives > 0, precision, np.nan)


def metric_names(replicates: Mapping[str, Mapping[str, Replicates]]) -> list[str]:
    """Metrics that all arms have, in order."""
    return list(next(iter(replicates.values())))
