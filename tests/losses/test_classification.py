"""Classification loss: closed forms at logits whose probabilities are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.losses.classification import classification_loss

QUARTER = -math.log(3.0)  # the logit of 1/4


def loss(labels: list[int], logits: list[list[float]], **options: Any) -> float:
    value = classification_loss(tf.constant(labels), tf.constant(logits, tf.float32), **options)
    assert value.dtype == tf.float32
    assert value.shape == ()
    return float(value)


def test_an_undecided_classifier_costs_the_logarithm_of_the_classes() -> None:
    assert loss([0, 1], [[0.0], [0.0]], positive=1) == pytest.approx(math.log(2))
    assert loss([0, 2, 4], [[1.0] * 5] * 3) == pytest.approx(math.log(5))


@pytest.mark.parametrize("positive", [0, 1])
def test_one_logit_asks_for_the_positive_class(positive: int) -> None:
    assert loss([positive], [[QUARTER]], positive=positive) == pytest.approx(-math.log(0.25))
    other = 1 - positive
    assert loss([other], [[QUARTER]], positive=positive) == pytest.approx(-math.log(0.75))


def test_one_logit_and_two_that_differ_as_much_cost_the_same() -> None:
    labels, values = [0, 1, 1], [0.3, -2.0, 5.0]
    for options in ({}, {"focal_gamma": 2.0}, {"label_smoothing": 0.1}):
        one = loss(labels, [[v] for v in values], positive=1, **options)
        assert loss(labels, [[0.0, v] for v in values], **options) == pytest.approx(one, rel=1e-5)


def test_weights_say_how_much_each_picture_counts() -> None:
    logits, weights = [[QUARTER], [0.0]], tf.constant([3.0, 1.0])
    expected = (3 * -math.log(0.25) + 1 * math.log(2)) / 4
    assert loss([1, 1], logits, positive=1, weights=weights) == pytest.approx(expected)
    alone = loss([1, 1], logits, positive=1, weights=tf.constant([0.0, 2.0]))
    assert alone == pytest.approx(math.log(2))


def test_focus_multiplies_by_what_is_missing_to_certainty() -> None:
    assert loss([1], [[QUARTER]], positive=1, focal_gamma=2.0) == pytest.approx(
        0.75**2 * -math.log(0.25)
    )
    # softmax of (0, log 3, 0) is (1/5, 3/5, 1/5)
    assert loss([1], [[0.0, math.log(3), 0.0]], focal_gamma=1.0) == pytest.approx(
        0.4 * -math.log(0.6)
    )


def test_smoothing_spreads_a_share_over_all_classes() -> None:
    # 0.2 spread over two classes: target 0.9 and 0.1
    expected = 0.9 * -math.log(0.25) + 0.1 * -math.log(0.75)
    assert loss([1], [[QUARTER]], positive=1, label_smoothing=0.2) == pytest.approx(expected)
    logs = [-math.log(0.2), -math.log(0.6), -math.log(0.2)]
    expected = 0.7 * logs[1] + 0.3 * sum(logs) / 3
    assert loss([1], [[0.0, math.log(3), 0.0]], label_smoothing=0.3) == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("logits", [[[60.0], [-60.0]], [[60.0, 0.0, -9.0], [-60.0, 0.0, 9.0]]])
def test_certain_answers_have_finite_losses_and_slopes(
    gamma: float, logits: list[list[float]]
) -> None:
    values = tf.constant(logits)
    for labels in ([0, 1], [1, 0]):
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = classification_loss(tf.constant(labels), values, positive=1, focal_gamma=gamma)
        assert np.isfinite(float(result))
        assert np.isfinite(tape.gradient(result, values)).all()


def test_half_precision_logits_are_widened_first() -> None:
    value = classification_loss(tf.constant([0]), tf.constant([[30.0]], tf.float16), positive=1)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(30.0)


def test_one_logit_without_a_question_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        loss([0], [[0.0]])
