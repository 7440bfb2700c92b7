"""Scores of classifiers: library values, closed forms, the thesis' counting, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sklearn_metrics

from tfgan_med.metrics.classification import (
    absent,
    best_threshold,
    binary_counts,
    binary_scores,
    confusion,
    confusion_rates,
    decided,
    multiclass_scores,
    per_class,
    per_output_counts,
    rates,
    recall_at_precision,
    scores_of,
)

Array = npt.NDArray[Any]
Golden = Mapping[str, Array]
library: Any = sklearn_metrics


# Yes or no ----------------------------------------------------------------------------------------


def test_binary_scores_equal_those_of_scikit_learn(golden: Golden) -> None:
    found = binary_scores(golden["in/cls/bin/y"] == 1, golden["in/cls/bin/score"])
    names = ("accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy", "mcc")
    key = "sklearn.t0.5_accuracy_precision_recall_f1_specificity_balanced_mcc"
    expected = golden[f"ref/cls/bin/{key}"]
    np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-9)
    counts = [found[name] for name in ("tn", "fp", "fn", "tp")]
    assert counts == golden["ref/cls/bin/sklearn.t0.5_tn_fp_fn_tp"].tolist()
    for name, reference in (("auc", "roc_auc"), ("average_precision",) * 2, ("brier",) * 2):
        assert found[name] == pytest.approx(golden[f"ref/cls/bin/sklearn.{reference}"], rel=1e-9)


def test_a_score_at_the_threshold_is_positive() -> None:
    found = binary_scores(np.array([True, False]), np.array([0.5, 0.49999]), threshold=0.5)
    assert (found["tp"], found["tn"]) == (1, 1)


def test_equal_scores_earn_half_an_auc() -> None:
    found = binary_scores(np.array([True, False, True, False]), np.full(4, 0.3))
    assert found["auc"] == 0.5
    assert found["average_precision"] == 0.5  # the share of positives


def test_a_shuffled_pair_counts_in_the_auc_as_in_mann_whitney() -> None:
    truth = np.array([True, True, False, False])
    found = binary_scores(truth, np.array([0.9, 0.4, 0.4, 0.1]))
    assert found["auc"] == (1 + 1 + 0.5 + 1) / 4


def test_one_class_alone_has_no_curve_and_zero_where_nothing_is_divided() -> None:
    found = binary_scores(np.zeros(3, bool), np.array([0.1, 0.2, 0.3]))
    assert np.isnan(found["auc"])
    assert np.isnan(found["average_precision"])
    assert [found[name] for name in ("precision", "recall", "f1", "mcc")] == [0, 0, 0, 0]
    assert found["specificity"] == found["accuracy"] == found["balanced_accuracy"] == 1.0


def test_the_constant_answer_is_accurate_and_useless() -> None:
    truth = np.arange(10304) < 519  # the test patches of the pump study
    found = binary_scores(truth, np.zeros(10304))
    assert found["accuracy"] == pytest.approx(0.9496, abs=5e-5)
    assert found["balanced_accuracy"] == 0.5
    assert found["mcc"] == found["f1"] == 0.0


def test_rates_take_arrays_of_any_shape() -> None:
    found = rates(np.array([[3.0, 0.0]]), [[1.0, 0.0]], [[1.0, 0.0]], [[5.0, 10.0]])
    np.testing.assert_allclose(found["precision"], [[0.75, 0.0]])
    np.testing.assert_allclose(found["balanced_accuracy"], [[(3 / 4 + 5 / 6) / 2, 1.0]])
    np.testing.assert_allclose(found["mcc"], [[(15 - 1) / np.sqrt(4 * 4 * 6 * 6), 0.0]])


def test_mcc_of_a_billion_pixels_stays_exact() -> None:
    many = 3_000_000_000
    assert rates(many, 0, 0, many)["mcc"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        (np.zeros(2, bool), np.zeros(3), "one truth and one score"),
        (np.zeros(0, bool), np.zeros(0), "one truth and one score"),
        (np.zeros(2, bool), np.array([0.5, np.nan]), "1 scores are not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth: Array, scores: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binary_scores(truth, scores)


# The counting of the thesis -----------------------------------------------------------------------


def test_an_error_counts_once_in_ours_and_twice_per_output() -> None:
    truth = np.array([1, 1, 0, 0, 1])
    positive = np.array([0.9, 0.2, 0.7, 0.1, 0.3])  # errors: the second, third and fifth
    _, fp, fn, _ = binary_counts(truth == 1, positive >= 0.5)
    assert (fp, fn) == (1, 2)
    assert per_output_counts(truth, np.stack([1 - positive, positive], 1) > 0.5) == (3, 3)


def test_counts_per_output_equal_those_of_keras() -> None:
    import keras

    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50)
    expected = []
    for metric in (keras.metrics.FalsePositives(), keras.metrics.FalseNegatives()):
        metric.update_state(np.eye(3)[truth], said)
        expected.append(int(metric.result()))
    assert list(per_output_counts(truth, said > 0.5)) == expected


# Thresholds ---------------------------------------------------------------------------------------


def test_the_best_threshold_lies_between_separable_classes() -> None:
    truth = np.array([False, False, True, True])
    assert best_threshold(truth, np.array([0.1, 0.2, 0.3, 0.4])) == pytest.approx(0.25)


@pytest.mark.parametrize("score", ["f1", "balanced_accuracy", "mcc", "accuracy"])
def test_no_threshold_beats_the_best(score: Any) -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(60) < 0.3
    scores = np.round(np.clip(0.3 * truth + rng.normal(0.4, 0.2, 60), 0, 1), 2)
    best = best_threshold(truth, scores, score)
    reached = binary_scores(truth, scores, best)[score]
    tried = [binary_scores(truth, scores, level)[score] for level in np.linspace(0, 1.01, 300)]
    assert reached == pytest.approx(max(tried))


def test_equally_good_thresholds_yield_the_one_nearest_to_one_half() -> None:
    truth = np.array([True, False, True, False])  # three of four are right at 0.95 and at 0.45
    scores = np.array([0.99, 0.91, 0.6, 0.3])
    assert best_threshold(truth, scores, "accuracy") == pytest.approx(0.45)


def test_recall_at_a_precision() -> None:
    truth = np.array([True, False, True, True, False, False])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert recall_at_precision(truth, scores, 1.0) == pytest.approx(1 / 3)
    assert recall_at_precision(truth, scores, 0.75) == 1.0
    assert recall_at_precision(~truth, scores, 0.9) == 0.0


# Several classes ----------------------------------------------------------------------------------


def test_multiclass_scores_equal_those_of_scikit_learn(golden: Golden) -> None:
    truth, said = golden["in/clsmulti/three/y"], golden["in/clsmulti/three/prob"]
    found = multiclass_scores(truth, said)
    reference = "ref/clsmulti/three/sklearn"
    matrix = confusion(truth, said.argmax(1), 3)
    np.testing.assert_array_equal(matrix, golden[f"{reference}.confusion"])
    each = per_class(matrix)
    np.testing.assert_allclose(
        np.stack([each[name] for name in ("precision", "recall", "f1", "support")]),
        golden[f"{reference}.precision_recall_f1_support"],
        rtol=1e-9,
    )
    assert found["f1"] == pytest.approx(golden[f"{reference}.f1_macro"], rel=1e-9)
    assert found["accuracy"] == pytest.approx(golden[f"{reference}.f1_micro"], rel=1e-9)
    assert found["f1_weighted"] == pytest.approx(golden[f"{reference}.f1_weighted"], rel=1e-9)
    assert found["auc"] == pytest.approx(golden[f"{reference}.roc_auc_ovr_macro"], rel=1e-9)
    predicted = said.argmax(1)
    assert found["mcc"] == pytest.approx(library.matthews_corrcoef(truth, predicted), rel=1e-9)
    balanced = library.balanced_accuracy_score(truth, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced, rel=1e-9)
    assert found["errors"] == (truth != predicted).sum()


def test_two_classes_score_as_a_yes_or_no_question_where_both_are_defined() -> None:
    rng = np.random.default_rng(2)
    truth, score = rng.integers(0, 2, 40), rng.random(40)
    several = multiclass_scores(truth, np.stack([1 - score, score], 1))
    single = binary_scores(truth == 1, score)
    for name in ("accuracy", "balanced_accuracy", "mcc", "auc"):
        assert several[name] == pytest.approx(single[name])
    assert several["errors"] == single["fp"] + single["fn"]


def test_a_class_without_pictures_is_left_out_of_the_means_and_named() -> None:
    truth = np.array([0, 0, 1, 1])
    said = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]])
    found = multiclass_scores(truth, said)
    assert found["recall"] == found["balanced_accuracy"] == 0.75  # not (1 + 0.5 + 0) / 3
    assert absent(truth, ("a", "b", "c")) == ["c"]
    assert np.isfinite(found["auc"])


def test_confusion_rates_take_stacks_of_matrices() -> None:
    one = np.array([[5.0, 1.0], [2.0, 4.0]])
    stacked = confusion_rates(np.stack([one, 10 * one]))
    for values in (stacked["f1"], stacked["mcc"], stacked["accuracy"]):
        assert values[0] == pytest.approx(values[1])
    assert stacked["errors"].tolist() == [3.0, 30.0]


def test_probabilities_of_other_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="probabilities of all classes"):
        multiclass_scores(np.zeros(3, int), np.ones((2, 3)))
    with pytest.raises(ValueError, match="not finite"):
        multiclass_scores(np.zeros(2, int), np.full((2, 3), np.nan))


# Any number of classes ----------------------------------------------------------------------------


def test_the_positive_class_is_said_from_the_threshold_on_whichever_comes_first() -> None:
    said = np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]])
    assert decided(said).tolist() == [0, 0, 1]
    assert decided(said, positive=1, threshold=0.5).tolist() == [0, 1, 1]
    assert decided(said, positive=1, threshold=0.3).tolist() == [1, 1, 1]
    assert decided(said, positive=0, threshold=0.7).tolist() == [0, 1, 1]


def test_scores_of_two_classes_are_those_of_the_question() -> None:
    truth, said = np.array([0, 1, 1]), np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    assert scores_of(truth, said) == multiclass_scores(truth, said)
    assert scores_of(truth, said, 1, 0.4) == binary_scores(truth == 1, said[:, 1], 0.4)
    assert scores_of(truth, said, 1, 0.4)["accuracy"] == 1.0
