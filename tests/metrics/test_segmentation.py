"""Scores of segmenters: library values, masks by hand, empty pictures, pictures as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics.segmentation import (
    counts_by_threshold,
    higher_is_better,
    image_confusion,
    image_scores,
    label_counts,
    pixel_counts,
    segmentation_scores,
)

Array = npt.NDArray[Any]
Golden = Mapping[str, Array]


def mask(*rows: str) -> Array:
    return np.array([[cell == "#" for cell in row] for row in rows])[None]


# Library values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_masks_score_as_in_scikit_learn(golden: Golden, level: float) -> None:
    truth, probabilities = golden["in/segbin/blob/y_true"], golden["in/segbin/blob/prob"]
    reference = f"ref/segbin/blob/sklearn.t{level}_"
    counts = pixel_counts(truth, probabilities > level)
    np.testing.assert_array_equal(
        counts[:, 0, [3, 1, 2, 0]], golden[f"{reference}per_image_tn_fp_fn_tp"]
    )
    each = image_scores(counts)
    np.testing.assert_allclose(each["iou"], golden[f"{reference}per_image_iou_zd1"], rtol=1e-12)
    np.testing.assert_allclose(each["dice"], golden[f"{reference}per_image_dice_zd1"], rtol=1e-12)
    found = segmentation_scores(counts)
    pooled = golden[f"{reference}pooled_iou_fg_bg"]
    assert found["iou_pooled"] == pytest.approx(pooled[0], rel=1e-9)
    assert found["miou"] == pytest.approx(pooled.mean(), rel=1e-9)
    dice = golden[f"{reference}pooled_dice_precision_recall"][0]
    assert found["dice_pooled"] == pytest.approx(dice, rel=1e-9)
    # The trap of feeding probabilities to Keras gives 0.469.
    keras = golden[f"ref/segbin/blob/keras3.t{level}_binary_iou_ids01"]
    assert found["miou"] == pytest.approx(keras, rel=1e-5)


def test_label_maps_score_as_in_scikit_learn_and_keras(golden: Golden) -> None:
    truth, predicted = golden["in/seg/tri/y_true"], golden["in/seg/tri/y_pred"]
    counts = label_counts(truth, predicted, 3)
    names = ("background", "cell", "nucleus")
    found = segmentation_scores(counts, names, background=True)
    reference = "ref/seg/tri/sklearn"
    iou = golden[f"{reference}.iou_per_class"]
    assert found["iou_pooled"] == pytest.approx(iou[1:].mean(), rel=1e-9)
    assert found["miou"] == pytest.approx(golden[f"{reference}.iou_macro"], rel=1e-9)
    assert found["miou"] == pytest.approx(golden["ref/seg/tri/keras3.mean_iou"], rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(golden[f"{reference}.pixel_accuracy"])
    dice = golden[f"{reference}.dice_per_class"][1:].mean()
    assert found["dice_pooled"] == pytest.approx(dice, rel=1e-9)
    each = image_scores(counts, names, background=True)
    np.testing.assert_allclose(
        np.stack([each[f"iou {name}"] for name in names], 1),
        golden[f"{reference}.iou_per_image_per_class_zd1"],
        rtol=1e-12,
    )
    assert found["iou"] == pytest.approx((found["iou cell"] + found["iou nucleus"]) / 2)


# By hand ------------------------------------------------------------------------------------------


def test_a_mask_of_four_by_four_pixels() -> None:
    truth = mask("##..", "##..", "....", "....")
    predicted = mask(".##.", ".##.", "..#.", "....")
    counts = pixel_counts(truth, predicted)
    assert counts.tolist() == [[[2, 3, 2, 9]]]
    found = segmentation_scores(counts)
    assert found["iou"] == found["iou_pooled"] == pytest.approx(2 / 7)
    assert found["dice"] == found["dice_pooled"] == pytest.approx(4 / 9)
    assert found["miou"] == pytest.approx((2 / 7 + 9 / 14) / 2)
    assert found["pixel_accuracy"] == 11 / 16
    assert (found["fp_pixels"], found["fn_pixels"]) == (3, 2)
    assert (found["fp_share"], found["fn_share"]) == (3 / 16, 2 / 16)


def test_pooling_and_the_mean_over_images_differ() -> None:
    counts = np.array([[[90, 0, 10, 900]], [[0, 10, 0, 990]]])
    found = segmentation_scores(counts)
    assert found["iou"] == pytest.approx((0.9 + 0) / 2)  # an empty truth with predictions: 0
    assert found["iou_pooled"] == pytest.approx(90 / 110)


def test_dice_follows_from_iou_in_each_image() -> None:
    rng = np.random.default_rng(0)
    each = image_scores(
        pixel_counts(rng.random((6, 9, 9, 2)) < 0.4, rng.random((6, 9, 9, 2)) < 0.5)
    )
    single = image_scores(pixel_counts(rng.random((6, 9, 9)) < 0.4, rng.random((6, 9, 9)) < 0.5))
    np.testing.assert_allclose(single["dice"], 2 * single["iou"] / (1 + single["iou"]))
    assert each["iou"].shape == (6,)


def test_nothing_there_and_nothing_found_is_right() -> None:
    empty = np.zeros((1, 4, 4), bool)
    found = segmentation_scores(pixel_counts(empty, empty))
    assert found["iou"] == found["dice"] == found["iou_pooled"] == found["dice_pooled"] == 1.0
    assert found["miou"] == 1.0  # of the background alone


def test_empty_pictures_can_be_left_out() -> None:
    truth = np.concatenate([np.zeros((2, 4, 4), bool), np.ones((1, 4, 4), bool)])
    predicted = truth.copy()
    predicted[1, 0, 0] = True  # the truth of it is empty, the prediction is not
    predicted[2, :2] = False
    counts = pixel_counts(truth, predicted)
    assert segmentation_scores(counts)["iou"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert segmentation_scores(counts, empty="skip")["iou"] == pytest.approx((0 + 0.5) / 2)
    assert segmentation_scores(counts, present_only=True)["iou"] == 0.5
    assert np.isnan(segmentation_scores(counts[:1], empty="skip")["iou"])


def test_mean_iou_leaves_out_a_class_that_occurs_nowhere() -> None:
    labels = np.array([[[0, 0], [1, 1]]])
    found = segmentation_scores(label_counts(labels, labels[:, ::-1], 3), background=True)
    assert found["miou"] == 0.0
    same = segmentation_scores(label_counts(labels, labels, 3), background=True)
    assert same["miou"] == 1.0
    assert same["pixel_accuracy"] == 1.0


def test_a_confused_pixel_of_two_classes_is_one_false_positive_and_one_false_negative() -> None:
    truth, predicted = np.array([[[0, 1], [2, 2]]]), np.array([[[0, 2], [2, 2]]])
    found = segmentation_scores(label_counts(truth, predicted, 3), background=True)
    assert (found["fp_pixels"], found["fn_pixels"]) == (1, 1)
    assert (found["fp_share"], found["fn_share"]) == (0.25, 0.25)


def test_a_pixel_at_the_threshold_is_not_in_the_mask() -> None:
    truth = np.ones((1, 1, 2), bool)
    counts = counts_by_threshold(truth, np.array([[[0.5, 0.9]]]), (0.5, 0.9, 0.4))
    assert counts[:, 0, 0, 0].tolist() == [1, 0, 2]


def test_wrong_pixels_are_better_when_fewer() -> None:
    names = segmentation_scores(np.array([[[1, 2, 3, 4]]]))
    lower = {name for name in names if not higher_is_better(name)}
    assert lower == {"fp_pixels", "fn_pixels", "fp_share", "fn_share"}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        pixel_counts(np.zeros((1, 4, 4)), np.zeros((1, 4, 5)))
    with pytest.raises(ValueError, match="images, classes, 4"):
        segmentation_scores(np.zeros((0, 1, 4)))
    with pytest.raises(ValueError, match="2 names"):
        segmentation_scores(np.ones((1, 2, 4)), ["one"])


# Pictures as a whole ------------------------------------------------------------------------------

# Five with defects (three overlapped, one predicted elsewhere, one without prediction), five
# healthy (one with predictions).
PATCHES = np.array(
    [[2, 1, 1, 12]] * 3 + [[0, 2, 2, 12], [0, 0, 2, 14], [0, 3, 0, 13]] + [[0, 0, 0, 16]] * 4
)


@pytest.mark.parametrize(
    ("definition", "counts", "precision", "recall"),
    [
        ("overlap", (3, 1, 2, 4), 0.75, 0.6),
        ("strict", (3, 2, 2, 4), 0.6, 0.6),
        ("literal", (3, 2, 1, 4), 0.6, 0.75),
        ("prediction", (3, 2, 1, 4), 0.6, 0.75),
    ],
)
def test_ten_patches_as_a_whole(
    definition: Any, counts: tuple[int, ...], precision: float, recall: float
) -> None:
    found = image_confusion(PATCHES, definition)
    assert tuple(found[name] for name in ("tp", "fp", "fn", "tn")) == counts
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall)
    assert found["accuracy"] == pytest.approx(0.7)


def test_f1_of_the_ten_patches() -> None:
    assert image_confusion(PATCHES)["f1"] == pytest.approx(2 / 3)


def test_an_unseen_defect_tells_the_literal_text_from_a_wrong_prediction() -> None:
    unseen = np.array([[0, 0, 2, 14]])
    assert image_confusion(unseen, "literal")["fp"] == 1
    assert image_confusion(unseen, "prediction")["fn"] == 1


def test_a_picture_is_found_when_any_of_its_classes_is() -> None:
    two = np.array([[[0, 0, 2, 14], [1, 0, 0, 15]]])
    assert image_confusion(two)["tp"] == 1
