"""Scores of classifiers on held-out pictures: yes-or-no questions and several classes.

A picture is called positive where `score >= threshold`; with several classes the most probable one
is said, the first of equals. Shares whose denominator is zero are 0, as scikit-learn's
`zero_division=0`; areas under curves that need both classes are NaN without them. Areas are exact,
with half credit for ties: Keras' `AUC` takes 200 thresholds and is off by far where scores crowd.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sklearn_metrics

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Score = Literal["f1", "balanced_accuracy", "mcc", "accuracy"]

HIGHER_IS_BETTER = {
    "accuracy": True,
    "balanced_accuracy": True,
    "precision": True,
    "recall": True,
    "specificity": True,
    "f1": True,
    "f1_weighted": True,
    "mcc": True,
    "auc": True,
    "average_precision": True,
    "brier": False,
    "errors": False,
    "tp": True,
    "fp": False,
    "fn": False,
    "tn": True,
    "fp_per_output": False,
    "fn_per_output": False,
}

_areas: Any = sklearn_metrics  # scikit-learn has no types


# Yes or no ----------------------------------------------------------------------------------------


def binary_scores(truth: Array, scores: Array, threshold: float = 0.5) -> dict[str, float]:
    """All scores of a yes-or-no question.

    Args:
        truth: `(pictures,)` whether the picture is positive.
        scores: `(pictures,)` probability of the positive class.
        threshold: positive is `score >= threshold`; one that was tuned comes from validation data.
    Returns:
        `accuracy, balanced_accuracy, precision, recall, specificity, f1` in [0, 1] and `mcc` in
        [-1, 1]; `auc` and `average_precision` in [0, 1], which need no threshold, NaN if undefined;
        `brier`, the mean squared error of the probabilities, lower is better; pictures counted as
        `tp, fp, fn, tn`, with `fp + fn` the errors.
    Raises:
        ValueError: shapes that disagree, no pictures, or scores that are no numbers.
    """
    truth, scores = _checked(truth, scores)
    counts = binary_counts(truth, scores >= threshold)
    shares = {name: float(value) for name, value in rates(*counts).items()}
    return shares | {
        "auc": area_under_roc(truth, scores),
        "average_precision": average_precision(truth, scores),
        "brier": float(np.mean((scores - truth) ** 2)),
        **{name: float(n) for name, n in zip(("tp", "fp", "fn", "tn"), counts, strict=True)},
    }


def _checked(truth: Array, scores: Array) -> tuple[npt.NDArray[np.bool_], Floats]:
    truth, scores = np.asarray(truth), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape or not len(truth):
        raise ValueError(
            f"Expected one truth and one score for each picture: {truth.shape}, {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite numbers.")
    return truth.astype(bool), scores


def binary_counts(truth: Array, said: Array) -> Integers:
    """Pictures counted, `(4,)`: true positive, false positive, false negative, true negative."""
    truth, said = np.asarray(truth, bool), np.asarray(said, bool)
    cells = (truth & said, ~truth & said, truth & ~said, ~truth & ~said)
    return np.array([cell.sum() for cell in cells], np.int64)


def rates(tp: Any, fp: Any, fn: Any, tn: Any) -> dict[str, Floats]:
    """Scores that follow from the four counts, elementwise.

    Args:
        tp, fp, fn, tn: counts or sums of weights, arrays of equal shapes.
    Returns:
        `accuracy, balanced_accuracy, precision, recall, specificity, f1, mcc`, of that shape. The
        balanced accuracy of one class alone is its share, as in scikit-learn.
    """
    tp, fp, fn, tn = (np.asarray(count, np.float64) for count in (tp, fp, fn, tn))
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    classes = (tp + fn > 0).astype(np.float64) + (tn + fp > 0)
    # Roots one by one: the product of four sums leaves the exact integers of float64.
    spread = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "balanced_accuracy": ratio(recall + specificity, classes),
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, spread),
    }


def ratio(above: Any, below: Any) -> Floats:
    """Elementwise quotient, 0 where the denominator is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    quotients = np.zeros(above.shape)
    np.divide(above, below, out=quotients, where=below != 0)
    return quotients


def area_under_roc(truth: Array, scores: Array) -> float:
    """Probability that a positive scores above a negative; NaN with one class only."""
    if np.all(truth) or not np.any(truth):
        return float("nan")
    return float(_areas.roc_auc_score(truth, scores))


def average_precision(truth: Array, scores: Array) -> float:
    """Precision averaged over the positives in order of score; NaN without positives."""
    if not np.any(truth):
        return float("nan")
    return float(_areas.average_precision_score(truth, scores))


def per_output_counts(truth: Array, said: Array) -> tuple[int, int]:
    """False positives and false negatives summed over one output for each class.

    The counting of Keras' `FalsePositives` and `FalseNegatives` on one-hot targets, and thus of the
    tables of the source thesis on chest X-rays. An error is counted in both: e errors of exclusive
    classes make `fp + fn = 2e`. Results of ours count pictures, see `binary_scores`.

    Args:
        truth: `(pictures,)` indices of classes.
        said: `(pictures, classes)` whether the output is on; Keras: `probabilities > 0.5`.
    """
    said = np.asarray(said, bool)
    target = np.arange(said.shape[1]) == np.asarray(truth)[:, None]
    return int((said & ~target).sum()), int((~said & target).sum())


# Thresholds ---------------------------------------------------------------------------------------


def best_threshold(truth: Array, scores: Array, score: Score = "f1") -> float:
    """The threshold with the highest score; to be asked on validation data only.

    Halfway between neighboring scores, so that it holds for other pictures as well as it can; of
    several the one nearest to 0.5.
    """
    truth, scores = _checked(truth, scores)
    values, (tp, fp) = _at_each_score(truth, scores)
    positives, negatives = tp[-1], fp[-1]
    found = rates(tp, fp, positives - tp, negatives - fp)[score]
    # Below the lowest score everything is positive.
    between = np.append((values[:-1] + values[1:]) / 2, values[-1])
    best = between[np.isclose(found, found.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - 0.5))])


def recall_at_precision(truth: Array, scores: Array, precision: float = 0.5) -> float:
    """The highest recall at a threshold that has at least this precision; 0 if none has."""
    truth, scores = _checked(truth, scores)
    _, (tp, fp) = _at_each_score(truth, scores)
    reached = ratio(tp, tp + fp) >= precision
    return float(np.max(ratio(tp, tp[-1]), initial=0.0, where=reached))


def _at_each_score(truth: Array, scores: Floats) -> tuple[Floats, tuple[Integers, Integers]]:
    """Distinct scores, falling, with the positives and negatives that reach each."""
    values, place = np.unique(-scores, return_inverse=True)
    positives = np.bincount(place, weights=truth, minlength=len(values)).cumsum()
    everyone = np.bincount(place, minlength=len(values)).cumsum()
    tp = positives.round().astype(np.int64)
    return -values, (tp, everyone - tp)


# Any number of classes ----------------------------------------------------------------------------


def decided(probabilities: Array, positive: int | None = None, threshold: float = 0.5) -> Integers:
    """The class that is said of each picture, `(pictures,)` indices.

    Args:
        probabilities: `(pictures, classes)`.
        positive: of two classes the one that is said from `threshold` on; without it the most
            probable class is said.
    """
    probabilities = np.asarray(probabilities)
    if positive is None:
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)


def scores_of(
    truth: Array, probabilities: Array, positive: int | None = None, threshold: float = 0.5
) -> dict[str, float]:
    """`binary_scores` of the positive class if there is one, else `multiclass_scores`.

    Args:
        truth: `(pictures,)` indices of classes; the others as of `decided`.
    """
    if positive is None:
        return multiclass_scores(truth, probabilities)
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    return binary_scores(truth == positive, probabilities[:, positive], threshold)


def multiclass_scores(truth: Array, probabilities: Array) -> dict[str, float]:
    """All scores of a classifier of several classes.

    Args:
        truth: `(pictures,)` indices of classes.
        probabilities: `(pictures, classes)`.
    Returns:
        `accuracy` (the same as micro-averaged F1), `balanced_accuracy`, `mcc`, `errors`; means over
        classes of `precision, recall, f1`, and `f1_weighted` by their pictures; `auc` and
        `average_precision` one class against the rest, means over classes. A class without
        pictures is left out of the means: see `absent`.
    Raises:
        ValueError: shapes that disagree, no pictures, numbers that are not finite.
    """
    truth, probabilities = np.asarray(truth), np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1] or not len(truth):
        raise ValueError(
            "Expected one truth and the probabilities of all classes for each picture: "
            f"{truth.shape}, {probabilities.shape}."
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("Some probabilities are not finite numbers.")
    classes = probabilities.shape[1]
    matrix = confusion(truth, probabilities.argmax(axis=1), classes)
    present = [index for index in range(classes) if (truth == index).any()]
    rest = [(truth == index, probabilities[:, index]) for index in present]
    return {name: float(value) for name, value in confusion_rates(matrix).items()} | {
        "auc": float(np.mean([area_under_roc(*one) for one in rest])),
        "average_precision": float(np.mean([average_precision(*one) for one in rest])),
    }


def absent(truth: Array, classes: tuple[str, ...]) -> list[str]:
    """Classes without a single picture, which no mean over classes contains."""
    return [name for index, name in enumerate(classes) if not (np.asarray(truth) == index).any()]


def confusion(truth: Array, predicted: Array, classes: int) -> Integers:
    """Pictures by class, `(classes, classes)`: rows are the truth, columns what was said."""
    pairs = np.asarray(truth, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def per_class(matrix: Array) -> dict[str, Floats]:
    """`precision, recall, f1, support` of each class from `(..., classes, classes)` pictures."""
    matrix = np.asarray(matrix, np.float64)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    said, support = matrix.sum(axis=-2), matrix.sum(axis=-1)
    return {
        "precision": ratio(right, said),
        "recall": ratio(right, support),
        "f1": ratio(2 * right, said + support),
        "support": support,
    }


def confusion_rates(matrix: Array) -> dict[str, Floats]:
    """Scores that follow from confusion matrices, see `multiclass_scores`.

    Args:
        matrix: `(..., classes, classes)` pictures or sums of weights.
    Returns:
        Arrays of shape `(...)`. `mcc` is Gorodkin's for several classes (doi:10.1016/
        j.compbiolchem.2004.09.006), as in scikit-learn.
    """
    matrix = np.asarray(matrix, np.float64)
    each = per_class(matrix)
    support, said = each["support"], matrix.sum(axis=-2)
    right, total = np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1))
    occurs = support > 0

    def mean(values: Floats) -> Floats:
        return ratio((values * occurs).sum(axis=-1), occurs.sum(axis=-1))

    together = (said * support).sum(axis=-1)
    spread = np.sqrt(np.maximum(total**2 - (said**2).sum(axis=-1), 0.0)) * np.sqrt(
        np.maximum(total**2 - (support**2).sum(axis=-1), 0.0)
    )
    return {
        "accuracy": ratio(right, total),
        "balanced_accuracy": mean(each["recall"]),
        "precision": mean(each["precision"]),
        "recall": mean(each["recall"]),
        "f1": mean(each["f1"]),
        "f1_weighted": ratio((each["f1"] * support).sum(axis=-1), total),
        "mcc": ratio(right * total - together, spread),
        "errors": total - right,
    }
