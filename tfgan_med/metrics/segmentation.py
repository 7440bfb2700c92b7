"""Scores of segmenters: pixels counted for each picture, and what follows from the counts.

Two ways to sum up, never mixed: per image (`iou`, `dice`: a score for each picture, then the mean)
and pooled (`iou_pooled`, `miou`: one count over all pixels of the set). Where neither truth nor
prediction has a pixel the prediction is right: score 1.

Masks are `probability > threshold`; label maps take the most probable class. Predictions are to be
brought to the size at which they are counted, never the masks of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfgan_med.metrics.classification import rates, ratio

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Empty = Literal[1, "skip"]
Definition = Literal["overlap", "strict", "literal", "prediction"]

_LOWER = ("fp_pixels", "fn_pixels", "fp_share", "fn_share")
_AXES = (1, 2)


def higher_is_better(name: str) -> bool:
    """Whether more is better in a score of `segmentation_scores`."""
    return name not in _LOWER


# Counting -----------------------------------------------------------------------------------------


def pixel_counts(truth: Array, predicted: Array) -> Integers:
    """Pixels of each picture and mask.

    Args:
        truth, predicted: `(images, height, width, classes)` or `(images, height, width)`, 0 or 1.
    Returns:
        `(images, classes, 4)`: true positive, false positive, false negative, true negative.
    Raises:
        ValueError: if the shapes differ.
    """
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    if truth.shape != predicted.shape or truth.ndim not in (3, 4):
        raise ValueError(f"Expected equal shapes of masks: {truth.shape} and {predicted.shape}.")
    if truth.ndim == 3:
        truth, predicted = truth[..., None], predicted[..., None]
    tp = (truth & predicted).sum(axis=_AXES)
    said, real = predicted.sum(axis=_AXES), truth.sum(axis=_AXES)
    pixels = truth.shape[1] * truth.shape[2]
    return np.stack([tp, said - tp, real - tp, pixels - said - real + tp], -1).astype(np.int64)


def label_counts(truth: Array, predicted: Array, classes: int) -> Integers:
    """Pixels of each picture and class of label maps.

    Args:
        truth, predicted: `(images, height, width)` indices of classes, 0 for background.
        classes: how many there are, with the background.
    Returns:
        `(images, classes, 4)` as `pixel_counts`.
    """
    indices = np.arange(classes)
    return pixel_counts(
        np.asarray(truth)[..., None] == indices, np.asarray(predicted)[..., None] == indices
    )


def counts_by_threshold(truth: Array, probabilities: Array, thresholds: Sequence[float]) -> Array:
    """`(thresholds, images, classes, 4)` pixels where `probability > threshold`, for curves."""
    probabilities = np.asarray(probabilities)
    return np.stack([pixel_counts(truth, probabilities > level) for level in thresholds])


# Scoring ------------------------------------------------------------------------------------------


def segmentation_scores(
    counts: Array,
    classes: Sequence[str] = (),
    *,
    background: bool = False,
    empty: Empty = 1,
    present_only: bool = False,
) -> dict[str, float]:
    """All scores of a set of pictures.

    Args:
        counts: `(images, classes, 4)` from `pixel_counts` or `label_counts`.
        classes: names, for scores of each class.
        background: whether the first class is the background of label maps. It counts in `miou`
            and in the pixel accuracy only.
        empty: of a picture without the class in truth and prediction: 1, or left out ("skip").
        present_only: leave out pictures whose truth has no pixel of the class from per-image means.
    Returns:
        `iou` and `dice`: per image, means over classes and images; `iou_pooled` and `dice_pooled`:
        over all pixels, means over classes; `miou`: pooled, with the background (of masks: of each
        mask and what it leaves free), classes that occur nowhere left out; `pixel_accuracy`;
        `fp_pixels` and `fn_pixels`: wrong pixels of an image, sums over classes, means over
        images, `fp_share` and `fn_share` the same as shares of the image; with several classes
        `iou NAME` and `dice NAME`, per image. NaN where nothing is left to average.
    Raises:
        ValueError: another shape, no images, or names that do not fit.
    """
    counts = np.asarray(counts)
    if counts.ndim != 3 or counts.shape[-1] != 4 or not len(counts):
        raise ValueError(f"Expected counts (images, classes, 4), received {counts.shape}.")
    each = image_scores(
        counts, classes, background=background, empty=empty, present_only=present_only
    )
    pooled = pooled_scores(counts.sum(axis=0), background=background)
    return {name: _mean(values) for name, values in each.items()} | {
        name: float(value) for name, value in pooled.items()
    }


def image_scores(
    counts: Array,
    classes: Sequence[str] = (),
    *,
    background: bool = False,
    empty: Empty = 1,
    present_only: bool = False,
) -> dict[str, Floats]:
    """The scores that are means over images, `(images,)` each, before that mean.

    Arguments as of `segmentation_scores`. NaN where an image is left out.
    """
    counts = np.asarray(counts)
    names = list(classes)
    if names and len(names) != counts.shape[1]:
        raise ValueError(f"Expected {counts.shape[1]} names of classes, received {len(names)}.")
    tp, fp, fn, tn = np.moveaxis(counts.astype(np.float64), -1, 0)
    pixels = (tp + fp + fn + tn)[:, :1]
    union = tp + fp + fn
    iou, dice = ratio(tp, union), ratio(2 * tp, tp + union)
    nowhere = np.nan if empty == "skip" else 1.0
    for values in (iou, dice):
        values[union == 0] = nowhere
        if present_only:
            values[tp + fn == 0] = np.nan
    first = int(background)
    wrong = {"fp": fp[:, first:], "fn": fn[:, first:]}
    found = {"iou": _row_means(iou[:, first:]), "dice": _row_means(dice[:, first:])}
    found |= {f"{name}_pixels": values.sum(axis=1) for name, values in wrong.items()}
    found |= {f"{name}_share": (values / pixels).sum(axis=1) for name, values in wrong.items()}
    if len(names) > 1:
        found |= {f"iou {name}": iou[:, index] for index, name in enumerate(names)}
        found |= {f"dice {name}": dice[:, index] for index, name in enumerate(names)}
    return found


def pooled_scores(totals: Array, *, background: bool = False) -> dict[str, Floats]:
    """The scores of all pixels together.

    Args:
        totals: `(..., classes, 4)` sums of counts over images, whole or weighted.
        background: as of `segmentation_scores`.
    Returns:
        `iou_pooled, dice_pooled, miou, pixel_accuracy`, each of shape `(...)`; 1 where a class
        occurs neither in truth nor prediction, except in `miou`, which leaves it out.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(totals, np.float64), -1, 0)
    union = tp + fp + fn
    iou, dice = (
        np.where(union > 0, values, 1.0) for values in (ratio(tp, union), ratio(2 * tp, tp + union))
    )
    first = int(background)
    both, occurs = iou, union > 0
    if not background:  # what each mask leaves free is its background
        free = tn + fp + fn
        both = np.concatenate([iou, ratio(tn, free)], axis=-1)
        occurs = np.concatenate([union > 0, free > 0], axis=-1)
    right = tp if background else (tp + tn) / tp.shape[-1]
    return {
        "iou_pooled": iou[..., first:].mean(axis=-1),
        "dice_pooled": dice[..., first:].mean(axis=-1),
        "miou": ratio((both * occurs).sum(axis=-1), occurs.sum(axis=-1)),
        "pixel_accuracy": ratio(right.sum(axis=-1), (tp + fp + fn + tn)[..., 0]),
    }


def _row_means(values: Floats) -> Floats:
    """Means over classes without those left out; NaN where none is left."""
    kept = np.isfinite(values)
    means = ratio(np.where(kept, values, 0.0).sum(axis=1), kept.sum(axis=1))
    return np.where(kept.any(axis=1), means, np.nan)


def _mean(values: Floats) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")


# Pictures as a whole ------------------------------------------------------------------------------


def image_confusion(counts: Array, definition: Definition = "overlap") -> dict[str, float]:
    """Whether pictures with the class are found: pictures counted by their masks.

    Args:
        counts: `(images, 4)` of one class, or `(images, classes, 4)` of all, taken together: a
            picture overlaps if any class does. Without the background of label maps.
        definition: how a picture counts. A picture with the class is positive; one with predicted
            pixels elsewhere is

            - "overlap": FN, as if nothing had been predicted (default),
            - "strict": FP and FN,
            - "prediction": FP, for its prediction is wrong;

            "literal" swaps FP and FN of "overlap", as the text of the source thesis says and its
            numbers contradict: with them alone the share of positive pictures would vary by row.
    Returns:
        `tp, fp, fn, tn` and the scores of `classification.rates`. Under "strict" the four counts
        exceed the pictures, and `accuracy` is right pictures over all pictures.
    Source: Chen's study of defect synthesis, section 4.3.4.
    """
    counts = np.asarray(counts)
    tp, fp, fn = np.moveaxis(counts[..., :3].reshape(len(counts), -1, 3).sum(axis=1), -1, 0)
    positive, overlaps, predicted = tp + fn > 0, tp > 0, tp + fp > 0
    elsewhere = positive & predicted & ~overlaps
    missed, false_alarm = positive & ~overlaps, ~positive & predicted
    if definition == "strict":
        false_alarm = false_alarm | elsewhere
    elif definition == "prediction":
        missed, false_alarm = missed & ~elsewhere, false_alarm | elsewhere
    elif definition == "literal":
        missed, false_alarm = false_alarm, missed
    right = {"tp": overlaps.sum(), "tn": (~positive & ~predicted).sum()}
    cells = right | {"fp": false_alarm.sum(), "fn": missed.sum()}
    shares = rates(**cells) | {"accuracy": (right["tp"] + right["tn"]) / len(counts)}
    return {name: float(value) for name, value in (cells | shares).items()}
