"""Verdicts: intervals that hold, tests by hand, corrections, sentences."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from tfgan_med.errors import UserError
from tfgan_med.experiments import resampling
from tfgan_med.experiments.resampling import Arm, Replicates, Rules
from tfgan_med.experiments.statistics import (
    Comparison,
    Spread,
    analyze,
    combined,
    compare,
    confusion,
    higher_is_better,
    holm,
    mcnemar,
    spread,
    summarize,
    training,
    verdict,
    wilcoxon,
)
from tfgan_med.metrics.classification import rates
from tfgan_med.training.predictions import Classified, Segmented

Floats = npt.NDArray[np.float64]
Groups = tuple[str | None, ...]
RULES = Rules("sick", resamples=300)


def classified(scores: Floats, groups: Groups | None = None) -> Classified:
    """Every second picture is sick."""
    count = len(scores)
    return Classified(
        tuple(map(str, range(count))),
        groups or (None,) * count,
        ("healthy", "sick"),
        np.arange(count) % 2,
        np.stack([1 - scores, scores], axis=1),
    )


def simulated(
    rng: np.random.Generator, count: int, repeats: int, effects: tuple[float, ...], sd: float = 0.0
) -> list[Arm]:
    """Arms whose pictures have a difficulty of their own and whose trainings vary by `sd`."""
    sign = 2.0 * (np.arange(count) % 2) - 1
    difficulty = rng.normal(size=count)
    arms = []
    for number, effect in enumerate(effects):
        runs = []
        for _ in range(repeats):
            skill = 1.0 + effect + rng.normal(0, sd)
            logits = sign * skill + difficulty + rng.normal(size=count)
            runs.append(classified(1 / (1 + np.exp(-logits))))
        arms.append(Arm(f"arm{number}", runs))
    return arms


def segmented(tp: list[int], groups: Groups | None = None) -> Segmented:
    """Lesions of 20 pixels of 100, of which `tp` are found."""
    counts = [[[found, 0, 20 - found, 80]] for found in tp]
    names = tuple(map(str, range(len(tp))))
    return Segmented(names, groups or (None,) * len(tp), ("lesion",), np.array(counts))


def comparison(**changes: Any) -> Comparison:
    made = Comparison("more", "auc", 0.1, 0.02, 0.18, 0.01, 0.02, "", "", None, None, 0.1, "")
    return replace(made, **changes)


# Estimates ----------------------------------------------------------------------------------------


def test_an_accuracy_of_80_of_100_has_the_interval_of_a_binomial() -> None:
    right = np.arange(100) >= 20
    truth = np.arange(100) % 2
    run = classified(np.where(right, truth, 1 - truth).astype(float))
    found = {one.metric: one for one in summarize(Arm("real", [run]), Rules("sick"))}
    accuracy = found["accuracy"]
    assert accuracy.mean == 0.8
    assert accuracy.sd is None
    assert accuracy.low == pytest.approx(0.8 - 1.96 * 0.04, abs=0.011)  # a picture is 0.01
    assert accuracy.high == pytest.approx(0.8 + 1.96 * 0.04, abs=0.011)


def test_means_and_deviations_are_over_repeats() -> None:
    runs = [segmented([10, 20]), segmented([20, 20]), segmented([0, 20])]
    found = {one.metric: one for one in summarize(Arm("real", runs), Rules(resamples=50))}
    assert found["iou"].values == [0.75, 1.0, 0.5]
    assert found["iou"].mean == 0.75
    assert found["iou"].sd == pytest.approx(0.25)
    assert found["fn_pixels"].values == [5, 0, 10]


def test_a_perfect_score_has_no_interval() -> None:
    run = classified((np.arange(20) % 2).astype(float))
    found = {one.metric: one for one in summarize(Arm("real", [run] * 2), RULES)}
    assert (found["auc"].mean, found["auc"].low, found["auc"].high) == (1.0, None, None)


def test_an_undefined_metric_is_none() -> None:
    run = replace(classified(np.linspace(0, 1, 9)), truth=np.zeros(9, np.int64))
    found = {one.metric: one for one in summarize(Arm("real", [run]), RULES)}
    assert (found["auc"].mean, found["auc"].values) == (None, [None])
    assert compare(Arm("more", [run]), Arm("real", [run]), "auc", RULES).sentence == (
        "cannot tell: ROC-AUC cannot be judged on this test set"
    )


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    wrong = np.repeat(rng.random(30) < 0.3, 6)  # six pictures of a patient fare alike
    truth = np.arange(180) % 2
    scores = np.where(wrong, 1 - truth, truth).astype(float)
    widths = []
    for groups in (None, tuple(f"p{index // 6}" for index in range(180))):
        found = {
            one.metric: one
            for one in summarize(Arm("real", [classified(scores, groups)]), Rules("sick"))
        }
        low, high = found["accuracy"].low, found["accuracy"].high
        assert low is not None and high is not None
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(6), rel=0.15)


def test_the_mean_of_f1_never_exceeds_f1_of_mean_precision_and_recall() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        tp, fp, fn, tn = rng.integers(1, 50, (4, 3))
        found = rates(tp, fp, fn, tn)
        precision, recall = found["precision"].mean(), found["recall"].mean()
        assert found["f1"].mean() <= 2 * precision * recall / (precision + recall) + 1e-12


def test_reported_f1_is_the_mean_over_runs() -> None:
    rng = np.random.default_rng(2)
    (arm,) = simulated(rng, 40, 3, (0.0,), sd=0.5)
    found = {one.metric: one for one in summarize(arm, RULES)}
    means = {name: found[name].mean or 0.0 for name in ("f1", "precision", "recall")}
    assert means["f1"] == pytest.approx(np.mean(np.array(found["f1"].values, float)))
    harmonic = 2 * means["precision"] * means["recall"] / (means["precision"] + means["recall"])
    assert means["f1"] <= harmonic + 1e-12


def test_confusion_sums_repeats() -> None:
    run = classified(np.array([0.2, 0.9, 0.7, 0.4]))
    assert confusion(Arm("real", [run, run], (0.5, 0.4)), RULES).tolist() == [[2, 2], [1, 3]]


# Differences --------------------------------------------------------------------------------------


def test_the_variance_adds_test_pictures_and_repeats() -> None:
    arm = Replicates(np.array([0.9, 0.7, 0.8]), np.array([[0.9, 0.7, 0.8], [1.0, 0.8, 0.9]]))
    reference = Replicates(np.full(3, 0.6), np.full((2, 3), 0.6))
    found = spread(arm, reference, cases=11)
    assert found is not None
    of_test, of_training = 0.005, 0.01  # of {0.2, 0.3}; of {0.3, 0.1, 0.2}
    assert found.difference == pytest.approx(0.2)
    assert found.error == pytest.approx(math.sqrt(of_test + of_training / 3))
    uncertain = of_test**2 / 10 + (of_training / 3) ** 2 / 2
    assert found.freedom == pytest.approx((of_test + of_training / 3) ** 2 / uncertain)


def test_variation_that_the_test_set_explains_is_not_of_training() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.1, (4000, 3))  # each repeat errs on pictures of its own
    arm = Replicates(np.array([0.85, 0.8, 0.75]), 0.8 + noise)
    reference = Replicates(np.full(3, 0.7), np.full((4000, 3), 0.7))
    found = spread(arm, reference, cases=100)
    assert found is not None
    assert found.error == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    # That there is none is known from three repeats only.
    uncertain = found.error**4 / 99 + (0.0025 / 3) ** 2 / 2
    assert found.freedom == pytest.approx(found.error**4 / uncertain)
    whole = training([arm, reference])
    assert whole is not None
    assert whole.variance == pytest.approx(0.0025)
    assert whole.mixed == pytest.approx(0.01, rel=0.1)
    assert whole.excess == 0.0


def test_more_arms_know_the_variation_of_training_better() -> None:
    rng = np.random.default_rng(4)
    arms = [Replicates(rng.normal(0, 0.1, 3), np.zeros((5, 3))) for _ in range(400)]
    pooled = training(arms)
    assert pooled is not None
    assert pooled.freedom == 399 * 2
    assert pooled.variance == pytest.approx(2 * 0.01, rel=0.1)
    assert training(arms[:1]) is None


def test_an_arm_that_varies_more_does_not_borrow_the_calm_of_others() -> None:
    loud = Replicates(np.array([0.9, 0.5, 0.7]), np.full((5, 3), 0.7))
    calm = [Replicates(np.full(3, 0.6), np.full((5, 3), 0.6)) for _ in range(4)]
    everyone = training([loud, *calm])
    found = spread(loud, calm[0], 50, everyone)
    quiet = spread(calm[1], calm[0], 50, everyone)
    assert found is not None and quiet is not None and everyone is not None
    assert found.error == pytest.approx(0.2 / math.sqrt(3))  # its own
    assert quiet.error == pytest.approx(math.sqrt(everyone.variance / 3))  # that of all


@pytest.mark.parametrize(("repeats", "sd"), [(1, 0.0), (3, 0.0), (3, 0.3), (5, 0.15)])
def test_intervals_cover_no_difference_as_often_as_they_say(repeats: int, sd: float) -> None:
    covered = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        arms = simulated(rng, 80, repeats, (0.0, 0.0, 0.0), sd)
        found = resampling.replicate(arms, Rules("sick", resamples=100, seed=seed))
        each = [found[arm.name]["balanced_accuracy"] for arm in arms]
        known = spread(each[1], each[0], 80, training(each))
        assert known is not None
        low, high = known.interval()
        covered.append(low <= 0 <= high)
    assert np.mean(covered) >= 0.90  # 0.95 less 2.8 standard errors of 150 trials


def test_a_single_repeat_does_not_cover_the_variation_of_training() -> None:
    """Why one repeat cannot tell."""
    covered = []
    for seed in range(100):
        arms = simulated(np.random.default_rng(seed), 80, 1, (0.0, 0.0), sd=0.4)
        found = resampling.replicate(arms, Rules("sick", resamples=100, seed=seed))
        known = spread(found["arm1"]["auc"], found["arm0"]["auc"], 80)
        assert known is not None
        low, high = known.interval()
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.75


def test_the_detectable_difference_is_2_8_standard_errors_of_many_cases() -> None:
    assert Spread(0.0, 0.01, 1e6).detectable() == pytest.approx(0.028, rel=1e-3)
    assert Spread(0.0, 0.01, 4).detectable() > 0.028


@pytest.mark.parametrize("freedom", [4, 8, 100])
def test_the_detectable_difference_is_found_with_80_percent(freedom: int) -> None:
    rng = np.random.default_rng(5)
    least = Spread(0.0, 1.0, freedom).detectable()
    differences = least + rng.normal(size=20000)
    errors = np.sqrt(rng.chisquare(freedom, 20000) / freedom)
    limit = stats.t.ppf(0.975, freedom)
    assert np.mean(np.abs(differences) / errors > limit) == pytest.approx(0.8, abs=0.035)


# The field's tests --------------------------------------------------------------------------------


def test_mcnemar_counts_the_pictures_on_which_two_arms_differ() -> None:
    arm = np.array([True] * 15 + [False] * 5 + [True] * 30)
    reference = np.array([False] * 15 + [True] * 5 + [True] * 30)
    by_hand = 2 * sum(math.comb(20, k) for k in range(6)) / 2**20  # 5 or fewer of 20
    assert mcnemar(arm, reference) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.0414, abs=5e-5)
    assert mcnemar(arm, arm) == 1.0


def test_the_seeds_table_is_three_pictures_and_shows_nothing() -> None:
    """Accuracy 0.76 against 0.80 on 79 pictures, even if not a single one got worse."""
    reference = np.arange(79) < 60
    assert mcnemar(np.arange(79) < 63, reference) == 0.25


def test_mcnemar_by_groups_counts_patients() -> None:
    arm, reference = np.ones(40, bool), np.repeat([False, True], [30, 10])
    patients = np.repeat(np.arange(4), 10)  # three patients are won, ten pictures each
    assert mcnemar(arm, reference, patients) == pytest.approx(2 * stats.norm.sf(math.sqrt(3)))
    assert mcnemar(arm, reference) < 1e-8
    assert mcnemar(arm, arm, patients) == 1.0


def test_p_values_of_repeats_are_combined_as_if_anything_linked_them() -> None:
    assert combined([0.03]) == 0.03
    assert combined([0.01, 0.04]) == 0.04
    assert combined([0.2, 0.01, 0.02]) == pytest.approx(0.02 * 3 / 2)
    assert combined([0.9, 0.8, 0.9]) == 1.0


def test_wilcoxon_of_eight_gains_is_one_of_128() -> None:
    assert wilcoxon(np.arange(1.0, 9.0)) == pytest.approx(2 / 2**8)
    assert wilcoxon(np.zeros(8)) == 1.0


def test_wilcoxon_takes_the_means_of_groups() -> None:
    better, worse = [20, 19, 18, 17] * 4, [10, 12, 14, 16] * 4
    plain = compare(
        Arm("more", [segmented(better)]), Arm("real", [segmented(worse)]), "iou", Rules()
    )
    groups = tuple(f"p{index // 4}" for index in range(16))
    grouped = compare(
        Arm("more", [segmented(better, groups)]),
        Arm("real", [segmented(worse, groups)]),
        "iou",
        Rules(),
    )
    assert plain.field_p is not None and plain.field_p < 0.001
    assert grouped.field_p is not None and grouped.field_p >= 0.0625  # four patients: 1 / 8 at best
    assert "pictures" in plain.field_test
    assert "group means" in grouped.field_test


# Verdicts -----------------------------------------------------------------------------------------


def test_holm_as_in_a_worked_table() -> None:
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])  # x3, x1 raised, x2, x4
    assert holm([0.02]) == [0.02]
    assert holm([None, 0.03, 0.5]) == [None, 0.06, 0.5]
    assert holm([0.7, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "repeats", "expected"),
    [
        ({}, 3, "helps"),
        ({"low": -0.18, "high": -0.02}, 3, "hurts"),
        ({"metric": "fp"}, 3, "hurts"),
        ({"metric": "fn_pixels", "low": -3.0, "high": -1.0}, 3, "helps"),
        ({"p_adjusted": 0.05}, 3, "cannot tell"),
        ({"low": -0.01}, 3, "cannot tell"),
        ({"p_adjusted": None}, 3, "cannot tell"),
        ({}, 1, "cannot tell"),
    ],
)
def test_verdicts(changes: dict[str, Any], repeats: int, expected: str) -> None:
    assert verdict(comparison(**changes), repeats) == expected


def test_directions_of_metrics() -> None:
    for name in ("auc", "iou", "dice lesion", "miou"):
        assert higher_is_better(name)
    for name in ("brier", "fp", "errors", "fn_per_output", "fp_pixels", "fn_share"):
        assert not higher_is_better(name)


def test_identical_arms_cannot_be_told_apart() -> None:
    (arm,) = simulated(np.random.default_rng(6), 50, 3, (0.0,))
    found = compare(replace(arm, name="same"), arm, "auc", RULES)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert (found.p, found.field_p, found.verdict) == (1.0, 1.0, "cannot tell")
    assert found.detectable is None
    assert found.sentence == (
        "cannot tell: 0.0 points (95 % 0.0 to 0.0) in ROC-AUC; all repeats and test pictures agree"
    )


def test_a_much_better_arm_helps_and_a_much_worse_one_hurts() -> None:
    arms = simulated(np.random.default_rng(7), 200, 3, (0.0, 1.5, -0.9, 0.0), sd=0.05)
    analysis = analyze(arms, "arm0", "auc", RULES)
    main = {one.arm: one for one in analysis.comparisons if one.metric == "auc"}
    assert [main[f"arm{n}"].verdict for n in (1, 2, 3)] == ["helps", "hurts", "cannot tell"]
    assert main["arm1"].sentence.startswith("helps: +")
    assert main["arm1"].sentence.endswith("after Holm's correction")
    assert main["arm3"].sentence.startswith("cannot tell: ")
    assert "this test set of 200 pictures and 3 repeats could have shown a difference of" in (
        main["arm3"].sentence
    )
    assert {one.verdict for one in analysis.comparisons if one.metric != "auc"} == {None}
    assert [one.arm for one in analysis.comparisons[:: len(analysis.metrics)]] == [
        "arm1",
        "arm2",
        "arm3",
    ]
    assert analysis.confusion["arm0"].sum() == 600
    json.dumps(asdict(replace(analysis, confusion={})), allow_nan=False)


def test_what_could_have_been_shown_has_to_survive_the_correction() -> None:
    arms = simulated(np.random.default_rng(15), 60, 3, (0.0, 0.1, 0.2, 0.3))
    found = resampling.replicate(arms, RULES)
    each = [found[arm.name]["auc"] for arm in arms]
    known = spread(each[1], each[0], 60, training(each))
    analysis = analyze(arms, "arm0", "auc", RULES)
    (one,) = (c for c in analysis.comparisons if (c.arm, c.metric) == ("arm1", "auc"))
    assert known is not None
    assert (one.low, one.high) == known.interval()
    assert one.detectable == known.detectable(0.05 / 3)


def test_the_verdict_on_mistakes_turns_the_direction() -> None:
    arms = simulated(np.random.default_rng(8), 200, 3, (0.0, 1.5), sd=0.05)
    found = compare(arms[1], arms[0], "fp", RULES)
    assert found.difference is not None and found.difference < 0
    assert found.verdict == "helps"


def test_a_single_repeat_cannot_tell_and_says_why() -> None:
    arms = simulated(np.random.default_rng(9), 200, 1, (0.0, 2.0))
    found = compare(arms[1], arms[0], "auc", RULES)
    assert found.p is not None and found.p < 0.001
    assert found.verdict == "cannot tell"
    assert "from a single repeat: how much another training changes is unknown" in found.sentence


def test_three_better_pictures_of_many_are_no_proof() -> None:
    """A bootstrap never sees the other sign; the p-value stays that of three coins."""
    truth = np.arange(300) % 2
    arm = classified(truth.astype(float))
    scores = truth.astype(float)
    scores[:3] = 1 - scores[:3]
    found = compare(
        Arm("more", [arm] * 3), Arm("real", [classified(scores)] * 3), "accuracy", RULES
    )
    assert found.p == 0.25
    assert found.verdict == "cannot tell"


def test_segmenters_are_judged_on_their_pictures() -> None:
    rng = np.random.default_rng(10)
    worse = [segmented(list(rng.integers(8, 13, 40))) for _ in range(3)]
    better = [segmented(list(rng.integers(13, 19, 40))) for _ in range(3)]
    analysis = analyze([Arm("real", worse), Arm("more", better)], "real", "iou", Rules())
    (main,) = (one for one in analysis.comparisons if one.metric == "iou")
    assert main.verdict == "helps"
    assert main.field_p is not None and main.field_p < 1e-6
    assert "Wilcoxon signed ranks of pictures: p < 0.001" in main.test
    assert analysis.confusion == {}


def test_a_test_set_of_one_patient_cannot_judge() -> None:
    arms = simulated(np.random.default_rng(14), 20, 2, (0.0, 1.0))
    one = ("p",) * 20
    arms = [replace(arm, runs=[replace(run, groups=one) for run in arm.runs]) for arm in arms]
    found = compare(arms[1], arms[0], "accuracy", RULES)
    assert (found.difference, found.verdict) == (None, "cannot tell")
    assert "cannot be judged" in found.sentence


def test_an_unknown_main_metric_is_named() -> None:
    arms = simulated(np.random.default_rng(11), 20, 2, (0.0, 0.0))
    with pytest.raises(UserError, match="Main metric 'iou': not one of these arms"):
        analyze(arms, "arm0", "iou", RULES)


def test_five_arms_of_three_repeats_take_seconds() -> None:
    arms = simulated(np.random.default_rng(12), 300, 3, (0.0,) * 5)
    begun = time.process_time()
    analyze(arms, "arm0", "auc", Rules("sick"))
    assert time.process_time() - begun < 3.0  # 0.3 s on one quiet core


def test_the_same_seed_gives_the_same_analysis() -> None:
    arms = simulated(np.random.default_rng(13), 60, 2, (0.0, 0.1))
    first, again = (analyze(arms, "arm0", "auc", RULES) for _ in range(2))
    assert first.comparisons == again.comparisons
    assert first.results == again.results
