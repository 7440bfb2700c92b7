"""Segmentation losses against hand-made masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.losses.segmentation import (
    cross_entropy_loss,
    dice_loss,
    segmentation_loss,
    tversky_loss,
)

SURE = 60.0  # a logit whose sigmoid is 1 in float32


def masks(*rows: str) -> Any:
    """One picture, `(1, 4, 4, 1)`, from four rows of `.` and `#`."""
    return np.array([[float(pixel == "#") for pixel in row] for row in rows]).reshape(1, 4, 4, 1)


def sure(mask: Any) -> Any:
    return (2.0 * mask - 1.0) * SURE


LEFT = masks("##..", "##..", "....", "....")  # 4 pixels
MIDDLE = masks(".##.", ".##.", ".##.", "....")  # 6 pixels, 2 of them in LEFT
NOTHING = masks("....", "....", "....", "....")


def test_dice_of_two_overlapping_masks() -> None:
    """2 x 2 common pixels of 4 + 6."""
    assert float(dice_loss(LEFT, sure(MIDDLE), smooth=0.0)) == pytest.approx(1 - 4 / 10)
    assert float(dice_loss(LEFT, sure(MIDDLE), smooth=1.0)) == pytest.approx(1 - 5 / 11)


def test_dice_of_a_mask_with_itself_is_complete() -> None:
    assert float(dice_loss(LEFT, sure(LEFT))) == pytest.approx(0.0, abs=1e-6)


def test_an_empty_mask_found_empty_costs_nothing() -> None:
    assert float(dice_loss(NOTHING, sure(NOTHING))) == pytest.approx(0.0, abs=1e-6)
    parts = segmentation_loss(NOTHING, sure(NOTHING))
    assert float(sum(parts.values())) == pytest.approx(0.0, abs=1e-6)


def test_dice_is_of_the_batch_not_of_its_pictures() -> None:
    """An empty picture beside a full one adds its 6 false pixels: 2 x 4 of 4 + 4 + 6."""
    targets = np.concatenate([LEFT, NOTHING])
    logits = np.concatenate([sure(LEFT), sure(MIDDLE)])
    assert float(dice_loss(targets, logits, smooth=0.0)) == pytest.approx(1 - 8 / 14)


def test_dice_is_a_mean_over_classes() -> None:
    """Class one is right, class two overlaps as above."""
    targets = np.concatenate([LEFT, LEFT], axis=-1)
    logits = np.concatenate([sure(LEFT), sure(MIDDLE)], axis=-1)
    assert float(dice_loss(targets, logits, smooth=0.0)) == pytest.approx((1 - 4 / 10) / 2)


def test_exclusive_classes_share_each_pixel() -> None:
    """Equal logits give each of two classes one half: 2 x 4/2 of 4 + 8, 2 x 12/2 of 12 + 8."""
    targets = np.concatenate([1.0 - LEFT, LEFT], axis=-1)
    loss = dice_loss(targets, np.zeros((1, 4, 4, 2)), exclusive=True, smooth=0.0)
    assert float(loss) == pytest.approx(1 - (4 / 12 + 12 / 20) / 2)
    entropy = cross_entropy_loss(targets, np.zeros((1, 4, 4, 2)), exclusive=True)
    assert float(entropy) == pytest.approx(math.log(2.0))


def test_tversky_prices_both_errors() -> None:
    """2 pixels common, 4 too many, 2 missed."""
    loss = tversky_loss(LEFT, sure(MIDDLE), 0.25, 0.75, smooth=0.0)
    assert float(loss) == pytest.approx(1 - 2 / (2 + 0.25 * 4 + 0.75 * 2))


def test_even_tversky_is_dice() -> None:
    logits = np.random.default_rng(0).normal(size=LEFT.shape)
    even = tversky_loss(LEFT, logits, 0.5, 0.5, smooth=0.5)
    assert float(even) == pytest.approx(float(dice_loss(LEFT, logits)))


def test_cross_entropy_of_undecided_pixels_is_log_two() -> None:
    assert float(cross_entropy_loss(LEFT, np.zeros_like(LEFT))) == pytest.approx(math.log(2.0))


@pytest.mark.parametrize("exclusive", [False, True])
def test_focal_loss_discounts_what_is_already_right(exclusive: bool) -> None:
    """At p = 3/4 everywhere, gamma 2 leaves a sixteenth."""
    if exclusive:
        targets = np.concatenate([1.0 - LEFT, LEFT], axis=-1)
        logits = targets * math.log(3.0)
    else:
        targets, logits = LEFT, (2.0 * LEFT - 1.0) * math.log(3.0)
    plain = float(cross_entropy_loss(targets, logits, exclusive))
    focal = float(cross_entropy_loss(targets, logits, exclusive, focal_gamma=2.0))
    assert plain == pytest.approx(-math.log(0.75), rel=1e-5)
    assert focal == pytest.approx(plain / 16.0, rel=1e-5)


def test_balance_makes_rare_pixels_count_as_much_as_frequent_ones() -> None:
    """Being undecided on the 4 pixels of 16 costs what being undecided on the other 12 does."""
    on_rare = cross_entropy_loss(LEFT, np.where(LEFT == 1, 0.0, -SURE), balanced=True)
    on_frequent = cross_entropy_loss(LEFT, np.where(LEFT == 1, SURE, 0.0), balanced=True)
    assert float(on_rare) == pytest.approx(float(on_frequent), rel=1e-5)
    assert float(on_rare) == pytest.approx(math.log(2.0) * 2 * 0.75 * 0.25, rel=1e-5)


def test_parts_are_weighted_and_those_of_weight_zero_left_out() -> None:
    logits = np.zeros_like(LEFT)
    both = segmentation_loss(LEFT, logits, dice=0.5, cross_entropy=5.0)
    assert list(both) == ["dice", "cross_entropy"]
    assert float(both["dice"]) == pytest.approx(0.5 * float(dice_loss(LEFT, logits)))
    assert float(both["cross_entropy"]) == pytest.approx(5.0 * math.log(2.0))
    assert list(segmentation_loss(LEFT, logits, cross_entropy=0.0)) == ["dice"]
    assert list(segmentation_loss(LEFT, logits, dice=0.0)) == ["cross_entropy"]
    with pytest.raises(ValueError, match="both are 0"):
        segmentation_loss(LEFT, logits, dice=0.0, cross_entropy=0.0)


def test_shapes_that_broadcasting_would_accept_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 1\).*\(1, 4, 4, 2\)"):
        dice_loss(LEFT, np.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="independent"):
        cross_entropy_loss(LEFT, LEFT, exclusive=True, balanced=True)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("size", [0.0, 1.0, 60.0, 60000.0])
def test_gradients_of_float16_logits_are_finite(size: float, exclusive: bool, gamma: float) -> None:
    targets = np.concatenate([1.0 - LEFT, LEFT], axis=-1)
    for sign in (1.0, -1.0):
        logits = tf.constant(sign * size * (2.0 * targets - 1.0), tf.float16)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            parts = segmentation_loss(targets, logits, exclusive, focal_gamma=gamma)
            loss = tf.add_n(list(parts.values()))
        assert loss.dtype == tf.float32
        gradient = tape.gradient(loss, logits)
        assert gradient.dtype == tf.float16
        assert np.isfinite(gradient.numpy()).all()
        assert np.isfinite(float(loss))


def test_the_slope_points_towards_the_mask() -> None:
    logits = tf.zeros((1, 4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = dice_loss(LEFT, logits)
    slope = tape.gradient(loss, logits).numpy()
    assert (slope[LEFT == 1] < 0).all()
    assert (slope[LEFT == 0] > 0).all()
