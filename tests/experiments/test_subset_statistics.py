"""Estimates, comparisons and claims of a subset study: closed forms, and a published table."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from tfgan_med.experiments.subset_protocol import clusters_of
from tfgan_med.experiments.subset_statistics import (
    Judgment,
    Order,
    Table,
    conclusions,
    differences,
    estimate,
    judge,
    order,
    together,
)

# Buzuti et al., table 1: set, subset, IS, FID, D, CID.
TABLE_1 = """
FFHQ,random,2.26,193.65,5.65,3.41
FFHQ,center,1.62,154.84,2.91,0.93
FFHQ,kss1,2.60,231.16,8.40,5.98
FFHQ,kss2,2.44,236.07,8.39,5.86
FFHQ,kss10,2.49,227.86,8.37,6.11
FFHQ,kss100,2.50,226.53,8.35,5.34
MetFaces,random,2.21,153.58,5.36,3.37
MetFaces,center,1.67,141.08,3.10,1.47
MetFaces,kss1,2.10,162.29,7.36,4.86
MetFaces,kss2,2.15,161.15,7.41,4.81
MetFaces,kss10,2.19,164.52,7.41,4.59
MetFaces,kss80,2.29,174.79,7.13,4.81
FEI,random,2.09,47.51,2.12,0.18
FEI,center,1.61,64.25,0.00,0.00
FEI,kss1,1.98,70.06,3.62,2.40
FEI,kss2,1.86,96.18,4.11,3.18
FEI,kss10,1.96,82.21,3.41,2.22
FEI,kss100,2.06,52.76,2.67,1.35
UNIFESP,random,1.88,103.41,3.90,1.91
UNIFESP,center,1.10,64.97,0.00,0.00
UNIFESP,kss1,1.92,121.90,3.97,2.81
UNIFESP,kss2,2.01,122.84,4.52,3.11
UNIFESP,kss10,2.05,113.64,6.00,4.15
UNIFESP,kss100,2.04,106.01,5.66,3.39
"""


# Estimates ----------------------------------------------------------------------------------------


def test_an_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    reach = 4.30265 / math.sqrt(3)  # t of 0.975 with 2 degrees of freedom, deviation 1
    assert (found.mean, found.sd) == (2.0, 1.0)
    assert found.low == pytest.approx(2 - reach, abs=1e-4)
    assert found.high == pytest.approx(2 + reach, abs=1e-4)
    assert found.p == pytest.approx(stats.ttest_1samp([1.0, 2.0, 3.0], 0).pvalue)


def test_one_value_and_equal_values_have_no_interval() -> None:
    assert estimate([2.0]).low is None and estimate([2.0]).sd is None
    equal = estimate([0.3, 0.3, 0.1 + 0.2])
    assert (equal.sd, equal.low, equal.p) == (0.0, None, None)


def test_differences_are_paired_by_seed_and_corrected_over_subsets() -> None:
    values = {
        "random": {0: 1.0, 1: 5.0, 2: 9.0},
        "kss1": {0: 2.0, 1: 6.1, 2: 9.9},  # about 1 above in every seed
        "center": {0: 0.9, 1: 5.2, 3: 7.0},  # seed 3 has no partner
    }
    above, near = differences("d", values, "random")
    assert above.difference == pytest.approx(1.0) and above.verdict == "higher"
    alone = stats.ttest_1samp([1.0, 1.1, 0.9], 0).pvalue
    assert above.p == pytest.approx(alone)
    assert above.p_adjusted == pytest.approx(2 * alone)  # Holm: the smaller of two
    assert (near.seeds, near.verdict) == (2, "cannot tell")


def test_one_seed_and_equal_differences_cannot_tell() -> None:
    (one,) = differences("d", {"random": {0: 1.0}, "kss1": {0: 9.0}}, "random")
    assert (one.difference, one.p, one.verdict) == (8.0, None, "cannot tell")
    values = {"random": {0: 0.0, 1: 0.0}, "kss1": {0: 1.0, 1: 1.0}}
    (same,) = differences("c", values, "random")
    assert (same.low, same.verdict) == (None, "cannot tell")


# Orders -------------------------------------------------------------------------------------------


def test_tau_is_that_of_scipy_with_ties_and_the_test_is_exact() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        x, y = random.integers(0, 4, 6), random.normal(size=6)
        assert order(x, y).tau == pytest.approx(stats.kendalltau(x, y).statistic)
    distinct = order(np.arange(6), [1, 2, 3, 5, 4, 6])
    exact = stats.kendalltau(np.arange(6), [1, 2, 3, 5, 4, 6], method="exact").pvalue
    assert distinct.p == pytest.approx(exact)


def test_four_subsets_of_one_set_never_reach_five_percent() -> None:
    best = order([1, 2, 10, 100], [1, 2, 3, 4])
    assert best.tau == 1.0
    assert best.p == best.smallest_p == pytest.approx(2 / math.factorial(4))


def test_without_any_order_tau_is_nothing_and_p_is_one() -> None:
    flat = order([1, 2, 3, 4], [5, 5, 5, 5])
    assert (flat.tau, flat.p, flat.smallest_p) == (0.0, 1.0, 1.0)


def test_repeats_are_averaged_and_permuted_together() -> None:
    x = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])
    agreeing = order(x, [[1, 2, 3, 4], [1, 2, 3, 4]])
    assert agreeing.p == pytest.approx(2 / 24)  # a second seed is no second set
    opposed = order(x, [[1, 2, 3, 4], [4, 3, 2, 1]])
    assert (opposed.tau, opposed.values, opposed.p) == (0.0, [1.0, -1.0], 1.0)


def test_sets_together_are_judged_by_all_pairs_of_their_orders() -> None:
    first, second = order([1, 2, 3, 4], [1, 2, 3, 4]), order([1, 2, 3, 4], [1, 2, 4, 3])
    whole = together([first, second])

    def null(one: Order) -> list[float]:
        return list(np.repeat(one.null[0], one.null[1].astype(int)))

    sums = [a + b for a, b in itertools.product(null(first), null(second))]
    assert len(sums) == 24**2
    assert whole.tau == pytest.approx((1 + 2 / 3) / 2)
    far = sum(abs(value) >= 2 * whole.tau - 1e-9 for value in sums)
    assert whole.p == pytest.approx(far / 24**2)
    assert whole.smallest_p == pytest.approx(2 / 24**2)


def test_eight_subsets_are_judged_by_random_orders() -> None:
    values = np.random.default_rng(1).normal(size=8)
    drawn = order(np.arange(8), values)
    exact = stats.kendalltau(np.arange(8), values, method="exact").pvalue
    assert drawn.p == pytest.approx(exact, abs=0.02)


# Claims -------------------------------------------------------------------------------------------

Scores = Mapping[str, Sequence[float]]


def table(d: Scores, spread: Scores | None = None, fid: Scores | None = None) -> Table:
    """One set `s` and one generator `g`; values by subset, one for each seed."""
    names = list(d)

    def seeded(values: Scores) -> dict[str, dict[int, float]]:
        return {name: dict(enumerate(own)) for name, own in values.items()}

    methods = {name: found for name in names if (found := clusters_of(name, {}))}
    scores: dict[tuple[str, str | None, str], dict[str, dict[int, float]]]
    scores = {("s", "g", "d"): seeded(d)}
    if fid:
        scores["s", "g", "fid"] = seeded(fid)
    spreads = {("s", "variance_ratio"): seeded(spread)} if spread else {}
    return Table("ours", methods, scores, spreads)


def one(found: Sequence[Judgment], claim: str, **wanted: object) -> Judgment:
    (only,) = [
        j
        for j in found
        if j.claim == claim and all(getattr(j, key) == value for key, value in wanted.items())
    ]
    return only


def test_center_is_the_lowest_if_it_is_below_each_of_the_others() -> None:
    low = {"random": [3.0, 3.1, 2.9], "center": [1.0, 1.2, 1.1], "kss1": [5.0, 5.2, 4.9]}
    found = one(judge(table(low)), "center_lowest", metric="d")
    assert (found.verdict, found.holds, found.agreeing) == ("supported", True, 3)
    assert found.subsets == ["center", "random", "kss1"]  # the nearest first
    assert found.statistic == pytest.approx(-1.9)
    pairs = [[1.0 - 3.0, 1.2 - 3.1, 1.1 - 2.9], [1.0 - 5.0, 1.2 - 5.2, 1.1 - 4.9]]
    assert found.p == pytest.approx(max(stats.ttest_1samp(p, 0).pvalue for p in pairs))


def test_center_is_not_the_lowest_if_some_other_surely_is() -> None:
    values = {"random": [1.0, 1.2, 1.1], "center": [3.0, 3.1, 3.0], "kss1": [5.0, 5.2, 4.9]}
    found = one(judge(table(values)), "center_lowest", metric="d")
    assert (found.verdict, found.holds, found.agreeing) == ("contradicted", False, 0)
    assert "not the lowest: random 1.1" in found.sentence


def test_one_seed_can_never_tell() -> None:
    values = {
        "random": [2.0], "center": [1.0],
        "kss1": [3.0], "kss2": [4.0], "kss10": [5.0], "kss100": [6.0],
    }  # fmt: skip
    found = judge(table(values, spread=values, fid={k: [v[0]] for k, v in values.items()}))
    assert len(found) == 7
    assert {judgment.verdict for judgment in found} == {"cannot tell"}
    assert all(judgment.holds for judgment in found)
    assert all(judgment.low is None for judgment in found)


def test_diversity_that_follows_spread_in_every_seed_is_supported() -> None:
    """tau 1 over six subsets has p 2/720; three measures of spread are asked at most."""
    spread = {
        "random": [2.0, 2.1], "center": [1.0, 1.0],
        "kss1": [6.0, 6.0], "kss2": [5.0, 5.2], "kss10": [4.0, 4.4], "kss100": [3.0, 3.3],
    }  # fmt: skip
    d = {name: [10 * value for value in values] for name, values in spread.items()}
    found = judge(table(d, spread=spread))
    whole = one(found, "diversity_grows_with_spread", scope="all")
    assert (whole.verdict, whole.statistic, whole.agreeing) == ("supported", 1.0, 2)
    assert whole.p == pytest.approx(2 / 720)
    kss = one(found, "diversity_grows_with_spread", scope="kss")
    assert (kss.verdict, kss.subsets) == ("cannot tell", ["kss1", "kss2", "kss10", "kss100"])
    assert "cannot give less than p = 0.083" in kss.sentence
    clusters = one(found, "spread_grows_with_g")
    assert (clusters.statistic, clusters.holds, clusters.generator) == (-1.0, False, None)


def test_less_is_more_spread_for_the_coverage_radius() -> None:
    d = {"random": [2.0, 2.0], "center": [1.0, 1.0], "kss1": [3.0, 3.0]}
    radius = {"random": {0: 5.0, 1: 5.0}, "center": {0: 9.0, 1: 9.0}, "kss1": {0: 4.0, 1: 4.0}}
    known = table(d)
    whole = Table("ours", known.methods, known.scores, {("s", "coverage_radius"): radius})
    assert one(judge(whole), "diversity_grows_with_spread", scope="all").statistic == 1.0


def test_seeds_that_some_subset_lacks_are_left_out() -> None:
    values = {"random": [2.0, 2.0, 2.1], "center": [1.0, 1.1], "kss1": [3.0, 3.0, 3.0]}
    assert one(judge(table(values)), "center_lowest", metric="d").seeds == 2


# The published table ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> list[Judgment]:
    scores: dict[tuple[str, str | None, str], dict[str, dict[int, float]]] = {}
    for name, subset, *values in csv.reader(io.StringIO(TABLE_1.strip())):
        for metric, value in zip(("is", "fid", "d", "cid"), values, strict=True):
            scores.setdefault((name, None, metric), {})[subset] = {0: float(value)}
    names = {subset for values in scores.values() for subset in values}
    methods = {name: found for name in names if (found := clusters_of(name, {}))}
    return judge(Table("published", methods, scores, {}))


def test_the_papers_center_is_lowest_in_is_d_and_cid_on_all_sets(
    published: list[Judgment],
) -> None:
    found = [judgment for judgment in published if judgment.claim == "center_lowest"]
    assert len(found) == 12 and all(judgment.verdict == "agrees" for judgment in found)


def test_the_papers_center_has_not_the_best_fid_on_fei(published: list[Judgment]) -> None:
    fei = one(published, "center_best_fid", set="FEI")
    assert fei.verdict == "disagrees"
    assert fei.statistic == pytest.approx(64.25 - 47.51)
    assert "random 47.51, kss100 52.76" in fei.sentence
    others = [j for j in published if j.claim == "center_best_fid" and j.set != "FEI"]
    assert [judgment.verdict for judgment in others] == ["agrees"] * 3


def test_the_papers_diversity_does_not_grow_with_clusters_but_on_one_set(
    published: list[Judgment],
) -> None:
    found = {j.set: j for j in published if j.claim == "diversity_grows_with_g" and j.metric == "d"}
    assert found["FFHQ"].statistic == -1.0  # 8.40, 8.39, 8.37, 8.35
    assert found["FEI"].statistic == pytest.approx(-2 / 3)  # 3.62, 4.11, 3.41, 2.67
    assert found["MetFaces"].statistic == pytest.approx(-1 / math.sqrt(30))  # 7.41 twice
    assert found["UNIFESP"].statistic == pytest.approx(2 / 3)
    assert [found[name].holds for name in ("FFHQ", "MetFaces", "FEI", "UNIFESP")] == [
        False, False, False, True,
    ]  # fmt: skip
    whole = found[None]
    assert whole.statistic == pytest.approx(np.mean([-1, -2 / 3, -1 / math.sqrt(30), 2 / 3]))
    assert whole.p is not None and whole.p > 0.2


def test_conclusions_name_where_the_paper_contradicts_itself(published: list[Judgment]) -> None:
    told = {row["claim"]: row for row in conclusions([], published)}
    assert told["center_best_fid"]["published"] == (
        "The paper's own numbers have this order in 3 of 4 cases, not in FEI (FID)."
    )
    assert "5 of 12 cases" in told["diversity_grows_with_g"]["published"]
    assert told["diversity_grows_with_spread"] == {
        "claim": "diversity_grows_with_spread",
        "title": "More spread subsets give more diverse generated pictures",
        "ours": None,
        "published": None,
    }
