"""Resampled metrics: equal to the plain ones and to scikit-learn's; what is not comparable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sklearn_metrics

from tfgan_med.errors import UserError
from tfgan_med.experiments import resampling
from tfgan_med.experiments.resampling import Arm, Ranking, Rules, cases, draws, replicate
from tfgan_med.metrics.classification import binary_scores, multiclass_scores
from tfgan_med.metrics.segmentation import pixel_counts, segmentation_scores
from tfgan_med.training.predictions import Classified, Segmented

library: Any = sklearn_metrics
Groups = tuple[str | None, ...]


def classified(
    count: int = 60, seed: int = 0, classes: int = 2, groups: Groups | None = None
) -> Classified:
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    scores = rng.dirichlet(np.ones(classes), count) + 0.4 * np.eye(classes)[truth]
    return Classified(
        tuple(f"{index}.png" for index in range(count)),
        groups or (None,) * count,
        tuple("abcdef"[:classes]),
        truth,
        np.round(scores / scores.sum(axis=1, keepdims=True), 2),  # rounded: some are tied
    )


def segmented(count: int = 20, seed: int = 0) -> Segmented:
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(9).random((count, 8, 8, 2)) < 0.3
    counts = pixel_counts(truth, truth ^ (rng.random(truth.shape) < 0.1))
    return Segmented(tuple(map(str, range(count))), (None,) * count, ("lesion", "vessel"), counts)


def drawn(weights: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Indices of a resample from its weights."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


def test_weighted_areas_equal_those_of_scikit_learn_on_resampled_pictures() -> None:
    run = classified()
    truth, scores = run.truth == 1, run.scores[:, 1]
    (weights,) = draws(cases(run), Rules(resamples=40))
    auc, precision = Ranking(truth, scores).areas(weights)
    for row, one, other in zip(weights, auc, precision, strict=True):
        chosen = drawn(row)
        assert one == pytest.approx(library.roc_auc_score(truth[chosen], scores[chosen]))
        expected = library.average_precision_score(truth[chosen], scores[chosen])
        assert other == pytest.approx(expected)


def test_areas_of_one_class_alone_are_undefined() -> None:
    ranking = Ranking(np.array([True, False]), np.array([0.7, 0.2]))
    auc, precision = ranking.areas(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    np.testing.assert_array_equal(auc, [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(precision, [1.0, np.nan, 1.0])


def test_metrics_of_a_question_are_the_plain_ones_at_each_threshold() -> None:
    runs = [classified(seed=seed) for seed in (0, 1)]
    found = replicate([Arm("real", runs, (0.3, 0.6))], Rules("b", resamples=5))["real"]
    for repeat, (run, level) in enumerate(zip(runs, (0.3, 0.6), strict=True)):
        plain = binary_scores(run.truth == 1, run.scores[:, 1], level)
        for name in set(plain) & set(found):
            assert found[name].values[repeat] == pytest.approx(plain[name]), name
        errors = plain["fp"] + plain["fn"]
        assert found["fp_per_output"].values[repeat] == errors
        assert found["fn_per_output"].values[repeat] == errors
    assert {"auc", "mcc", "f1", "fp", "fn", "average_precision", "brier"} <= set(found)


def test_metrics_of_several_classes_are_the_plain_ones() -> None:
    run = classified(classes=3)
    found = replicate([Arm("real", [run])], Rules(resamples=5))["real"]
    for name, value in multiclass_scores(run.truth, run.scores).items():
        assert found[name].values[0] == pytest.approx(value), name


def test_metrics_of_masks_are_the_plain_ones() -> None:
    run = segmented()
    found = replicate([Arm("real", [run])], Rules(resamples=5))["real"]
    plain = segmentation_scores(run.counts, run.classes)
    assert set(found) == set(plain)
    for name, value in plain.items():
        assert found[name].values[0] == pytest.approx(value), name


@pytest.mark.parametrize("kind", ["question", "classes", "masks"])
def test_a_resample_scores_as_the_pictures_it_drew(kind: str) -> None:
    rules = Rules("b" if kind == "question" else None, resamples=3)
    run = segmented() if kind == "masks" else classified(classes=3 if kind == "classes" else 2)
    found = replicate([Arm("real", [run])], rules)["real"]
    (weights,) = draws(cases(run), rules)
    for row in range(3):
        chosen = drawn(weights[row])
        if isinstance(run, Segmented):
            plain = segmentation_scores(run.counts[chosen], run.classes)
        elif kind == "classes":
            plain = multiclass_scores(run.truth[chosen], run.scores[chosen])
        else:
            plain = binary_scores(run.truth[chosen] == 1, run.scores[chosen, 1])
        for name in set(plain) & set(found):
            assert found[name].resampled[row, 0] == pytest.approx(plain[name]), name


def test_pictures_of_a_group_are_drawn_together() -> None:
    run = classified(6, groups=("p", "p", "q", None, "q", None))
    assert cases(run).tolist() == [0, 0, 1, 2, 1, 3]
    (weights,) = draws(cases(run), Rules(resamples=50))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 3, 5]].sum(axis=1) == 4).all()
    assert (weights[:, 3] != weights[:, 5]).any()


def test_counts_of_resampled_groups_are_of_a_test_set_of_the_same_size() -> None:
    run = classified(30, groups=tuple("p" if index < 20 else str(index) for index in range(30)))
    wrong = replace(run, scores=np.eye(2)[1 - run.truth])
    found = replicate([Arm("real", [wrong])], Rules("b", resamples=20))["real"]
    np.testing.assert_allclose(found["fp"].resampled + found["fn"].resampled, 30.0)


def test_draws_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one = np.concatenate(list(draws(np.arange(50), Rules(resamples=64, seed=3))))
    monkeypatch.setattr(resampling, "_CELLS", 400)
    parts = list(draws(np.arange(50), Rules(resamples=64, seed=3)))
    assert len(parts) == 8
    np.testing.assert_array_equal(one, np.concatenate(parts))
    other = np.concatenate(list(draws(np.arange(50), Rules(resamples=64, seed=4))))
    assert (one != other).any()


def _changed(what: str) -> Classified | Segmented:
    run = classified()
    if what == "count":
        return classified(59)
    if what == "order":
        return replace(run, items=(run.items[1], run.items[0], *run.items[2:]))
    if what == "groups":
        return replace(run, groups=("p", *run.groups[1:]))
    if what == "truth":
        return replace(run, truth=1 - run.truth)
    return segmented(60)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("count", "other test pictures (59 instead of 60)"),
        ("order", "another order ('1.png' instead of '0.png')"),
        ("groups", "other groups"),
        ("truth", "another truth"),
        ("kind", "other classes"),
    ],
)
def test_arms_of_other_test_pictures_are_refused(what: str, message: str) -> None:
    arms = [Arm("real", [classified()] * 2), Arm("more", [classified(), _changed(what)])]
    with pytest.raises(UserError) as caught:
        replicate(arms, Rules("b"))
    assert message in str(caught.value)
    assert str(caught.value).startswith("Arm 'more', repeat 2:")


def test_masks_of_another_truth_are_refused() -> None:
    run = segmented()
    shifted = replace(run, counts=run.counts + np.array([0, 0, 1, -1]))
    with pytest.raises(UserError, match="another truth"):
        replicate([Arm("real", [run]), Arm("more", [shifted])], Rules())


def test_what_does_not_fit_is_refused() -> None:
    run = classified()
    with pytest.raises(UserError, match="has 1 finished repeats, 'real' has 2"):
        replicate([Arm("real", [run, run]), Arm("more", [run])], Rules("b"))
    with pytest.raises(UserError, match="Arm 'real' is there twice"):
        replicate([Arm("real", [run]), Arm("real", [run])], Rules("b"))
    with pytest.raises(UserError, match="2 thresholds for 1"):
        replicate([Arm("real", [run], (0.5, 0.4))], Rules("b"))
    with pytest.raises(UserError, match="Nothing to compare"):
        replicate([], Rules())
    with pytest.raises(UserError, match="'c' is to be one of two, and the classes are a, b"):
        replicate([Arm("real", [run])], Rules("c"))
