"""Whether an arm of an experiment is better than its reference, and how surely one can know.

Two things vary when an experiment is done again: the test cases and the training. Repeats with
other seeds are like readers of a diagnostic study, test pictures like its cases, and a difference
between two arms is judged as there (Obuchowski & Rockette 1995, Commun. Stat. Simul. 24:285; Hillis
2007, Stat. Med. 26:596): for differences D_s of S paired repeats and their mean D,

    variance of D  =  V_test + max(0, s² - V_mixed) / S

where V_test is the variance of D over bootstrap resamples of test cases, s² that of D_s over the
repeats, pooled over arms, and V_mixed the part of s² that the finite test set alone brings about.
Intervals and p-values are Student's with Satterthwaite's degrees of freedom: a few repeats say
little of the variation of training, and the interval is as wide as that demands. A hierarchical
bootstrap of repeats would find it too small by (S - 1) / S, and normal instead of Student's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from tfgan_med.errors import UserError
from tfgan_med.experiments import resampling, wording
from tfgan_med.experiments.resampling import Arm, Replicates, Rules, Said
from tfgan_med.metrics import classification, segmentation
from tfgan_med.training.predictions import Classified, Segmented

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Verdict = Literal["helps", "hurts", "cannot tell"]

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A metric of one arm; None where undefined.

    Attributes:
        arm, metric: names.
        mean, sd: over repeats; no sd of a single one.
        low, high: 95 % of the mean over the same repeats on resampled test cases (percentiles);
            None if all resamples agree, as those of a perfect score.
        values: of the repeats.
    """

    arm: str
    metric: str
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    values: list[float | None]


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference in one metric; None where undefined.

    Attributes:
        arm, metric: names.
        difference: of the means over repeats, arm minus reference.
        low, high: its 95 % interval, over test cases and repeats.
        p: of no difference, by the same distribution.
        p_adjusted: after Holm's correction over the arms.
        test: what `p` is and what the field's test says.
        field_test, field_p: McNemar of classifiers, Wilcoxon of segmenters.
        verdict: in the main metric only.
        detectable: the smallest difference that would have been found with 80 % probability.
        sentence: all of it in plain words.
    """

    arm: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    test: str
    field_test: str
    field_p: float | None
    verdict: Verdict | None
    detectable: float | None
    sentence: str


@dataclass(frozen=True)
class Analysis:
    """What the arms of one downstream model show.

    Attributes:
        metrics: names, in order.
        results: of every arm and metric.
        comparisons: of every arm but the reference, in every metric.
        confusion: of classifiers, arm to `(classes, classes)` pictures summed over repeats, rows
            the truth.
    """

    metrics: list[str]
    results: list[Estimate]
    comparisons: list[Comparison]
    confusion: dict[str, Integers]


def analyze(arms: Sequence[Arm], reference: str, main: str, rules: Rules) -> Analysis:
    """Estimates of all arms and comparisons with the reference.

    Args:
        arms: the reference among them.
        reference: name of the arm that the others are compared with.
        main: metric of the verdict.
        rules: how predictions become scores.
    Raises:
        UserError: no such metric, or see `resampling.replicate`.
        KeyError: no such reference.
    """
    found = resampling.replicate(arms, rules)
    named = {arm.name: arm for arm in arms}
    metrics = resampling.metric_names(found)
    if main not in metrics:
        raise UserError(
            f"Main metric {main!r}: not one of these arms. Choose one of {', '.join(metrics)}."
        )
    others = [arm for arm in arms if arm.name != reference]
    comparisons: list[Comparison] = []
    tests = _FieldTests(named[reference], rules)
    for metric in metrics:
        replicates = {name: found[name][metric] for name in found}
        pairs = [_compared(arm, tests, metric, replicates) for arm in others]
        comparisons += _judged(pairs, named[reference], metric == main)
    return Analysis(
        metrics,
        [_estimate(arm.name, name, found[arm.name][name]) for arm in arms for name in metrics],
        sorted(comparisons, key=lambda one: [arm.name for arm in others].index(one.arm)),
        {arm.name: confusion(arm, rules) for arm in arms if isinstance(arm.runs[0], Classified)},
    )


def summarize(arm: Arm, rules: Rules) -> list[Estimate]:
    """Estimates of one arm alone."""
    found = resampling.replicate([arm], rules)[arm.name]
    return [_estimate(arm.name, name, replicates) for name, replicates in found.items()]


def compare(arm: Arm, reference: Arm, metric: str, rules: Rules) -> Comparison:
    """One arm against one reference in one metric, which is the main one."""
    found = resampling.replicate([arm, reference], rules)
    pair = _compared(
        arm, _FieldTests(reference, rules), metric, {name: found[name][metric] for name in found}
    )
    return _judged([pair], reference, True)[0]


def confusion(arm: Arm, rules: Rules) -> Integers:
    """`(classes, classes)` pictures summed over repeats: rows the truth, columns what was said."""
    matrices = [
        classification.confusion(
            run.truth, resampling.decisions(run, rules, threshold), len(run.classes)
        )
        for run, threshold in zip(arm.runs, resampling.thresholds(arm), strict=True)
        if isinstance(run, Classified)
    ]
    return np.asarray(np.sum(matrices, axis=0), np.int64)


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better."""
    return classification.HIGHER_IS_BETTER.get(metric, segmentation.higher_is_better(metric))


# Estimates ----------------------------------------------------------------------------------------


def _estimate(arm: str, metric: str, found: Replicates) -> Estimate:
    values, means = found.values, found.resampled.mean(axis=1)
    means = means[np.isfinite(means)]
    low = high = None
    # Resamples that agree know nothing of other test pictures: no interval is no certainty.
    if len(means) and means.max() - means.min() > 1e-12:
        low, high = (float(end) for end in np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2]))
    return Estimate(
        arm,
        metric,
        _number(values.mean()),
        _number(values.std(ddof=1)) if len(values) > 1 else None,
        low,
        high,
        [_number(value) for value in values],
    )


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


# Comparisons --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """How surely a difference is known.

    Attributes:
        difference: mean over repeats.
        error: its standard error, over test cases and repeats.
        freedom: degrees of freedom of that.
    """

    difference: float
    error: float
    freedom: float

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """The difference and what is likely around it."""
        reach = self.error * float(stats.t.ppf(1 - alpha / 2, self.freedom))
        return self.difference - reach, self.difference + reach

    def p_value(self) -> float:
        """Two-sided, of no difference."""
        if self.error == 0:
            return 1.0 if self.difference == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.difference) / self.error, self.freedom))

    def detectable(self, alpha: float = ALPHA, power: float = POWER) -> float:
        """The smallest true difference that is found with this probability.

        (t_{1 - alpha/2} + t_{power}) standard errors, 2.8 of them for many cases and repeats
        (Cohen 1988, section 2.2; Bloom 1995, "Minimum detectable effects").
        """
        quantiles = stats.t.ppf([1 - alpha / 2, power], self.freedom)
        return float(self.error * quantiles.sum())


@dataclass(frozen=True)
class Training:
    """How much a difference of two arms varies with the seed of training.

    Attributes:
        variance: of the difference of one repeat.
        mixed: the part of it that the finite test set alone brings about.
        freedom: degrees of freedom behind `variance`.
    """

    variance: float
    mixed: float
    freedom: int

    @property
    def excess(self) -> float:
        """Variance that more test pictures would not remove."""
        return max(0.0, self.variance - self.mixed)


def training(arms: Sequence[Replicates]) -> Training | None:
    """Variation of training, from what repeats of arms have in common with neither.

    Twice the mean square of the interaction of arms and repeats; of two arms that is the variance
    of their differences. None with a single repeat or arm, or where undefined.
    """
    values = np.stack([arm.values for arm in arms])
    resampled = np.stack([arm.resampled for arm in arms], axis=1)
    resampled = resampled[np.isfinite(resampled).all(axis=(1, 2))]
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    if not freedom or not np.isfinite(values).all() or len(resampled) < 2:
        return None
    squares = _interaction_squares(values[None])[0]
    mixed = _interaction_squares(resampled - resampled.mean(axis=0)).mean()
    return Training(2 * float(squares) / freedom, 2 * float(mixed) / freedom, freedom)


def _interaction_squares(values: Floats) -> Floats:
    """`(n, arms, repeats)` to sums of squares `(n,)` without the means of arms and of repeats."""
    left = values - values.mean(axis=1, keepdims=True)
    left = left - left.mean(axis=2, keepdims=True)
    squares: Floats = (left**2).sum(axis=(1, 2))
    return squares


def spread(
    arm: Replicates, reference: Replicates, cases: int, everyone: Training | None = None
) -> Spread | None:
    """The difference of two arms with its standard error; None where undefined.

    Args:
        arm, reference: the same resamples and paired repeats.
        cases: independent test cases.
        everyone: variation of training pooled over all arms; the larger of it and the pair's own
            is taken, so that an arm that varies more than others does not borrow their calm.
    """
    each = arm.values - reference.values
    resampled = (arm.resampled - reference.resampled).mean(axis=1)
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(each).all() or len(resampled) < 2 or cases < 2:
        return None
    difference = float(each.mean())
    of_test = float(resampled.var(ddof=1))
    variance, uncertain = of_test, of_test**2 / (cases - 1)
    own = training([arm, reference])
    if own is not None:
        pooled = everyone or own
        larger = max(own, pooled, key=lambda one: one.excess)
        variance += larger.excess / len(each)
        uncertain += (larger.variance / len(each)) ** 2 / pooled.freedom
    if variance < 1e-24:  # rounding of sums in another order is no variation
        return Spread(difference, 0.0, float(cases - 1))
    return Spread(difference, math.sqrt(variance), variance**2 / uncertain)


def _compared(
    arm: Arm, tests: _FieldTests, metric: str, replicates: Mapping[str, Replicates]
) -> Comparison:
    """One arm against the reference; `replicates` are of all arms in this metric."""
    reference, rules = tests.reference, tests.rules
    of_cases = resampling.cases(reference.runs[0])
    field_test, field_p = tests.of(arm, metric)
    known = spread(
        replicates[arm.name],
        replicates[reference.name],
        int(of_cases.max()) + 1,
        training(list(replicates.values())),
    )
    undecided = Comparison(
        arm.name, metric, None, None, None, None, None, "", field_test, field_p, None, None, ""
    )
    if known is None:
        return replace(undecided, test=f"undefined; {_field_words(field_test, field_p)}")
    low, high = known.interval()
    differing = len(np.unique(of_cases[_differing(arm, reference, metric, rules)]))
    # Of m cases that differ, no test of signs can say less than that all m agree.
    p = max(known.p_value(), min(1.0, 2.0 ** (1 - differing)))
    # Holm asks the smallest p-value for alpha / comparisons.
    smallest = known.detectable(ALPHA / (len(replicates) - 1)) if known.error else None
    own = "test pictures" if len(reference.runs) == 1 else "test pictures and repeats"
    return replace(
        undecided,
        difference=known.difference,
        low=low,
        high=high,
        p=p,
        test=f"paired bootstrap over {own}; {_field_words(field_test, field_p)}",
        detectable=smallest,
    )


def _differing(arm: Arm, reference: Arm, metric: str, rules: Rules) -> npt.NDArray[np.bool_]:
    """`(pictures,)` whether what the metric looks at differs between two arms in any repeat."""
    here, there = (_looked_at(each, metric, rules) for each in (arm, reference))
    differs = here != there
    return np.asarray(differs.any(axis=(0, *range(2, differs.ndim))))


def _looked_at(arm: Arm, metric: str, rules: Rules) -> npt.NDArray[Any]:
    """`(repeats, pictures, ...)` decisions, or scores where the metric needs no threshold."""
    found: list[npt.NDArray[Any]] = []
    for run, threshold in zip(arm.runs, resampling.thresholds(arm), strict=True):
        if isinstance(run, Segmented):
            found.append(run.counts)
        elif metric in ("auc", "average_precision", "brier"):
            found.append(run.scores)
        else:
            found.append(resampling.decisions(run, rules, threshold))
    return np.stack(found)


# The field's tests --------------------------------------------------------------------------------


class _FieldTests:
    """The tests that papers print: of the test pictures alone, not of training.

    Classifiers: McNemar's on right and wrong, whatever the metric. Segmenters: Wilcoxon's signed
    ranks of per-image scores averaged over repeats (of IoU where the metric is no per-image mean).
    """

    def __init__(self, reference: Arm, rules: Rules) -> None:
        self.reference = reference
        self.rules = rules
        self._done: dict[tuple[str, str], tuple[str, float]] = {}

    def of(self, arm: Arm, metric: str) -> tuple[str, float]:
        """Name of the test and its p-value."""
        if isinstance(self.reference.runs[0], Classified):
            metric = ""
        if (arm.name, metric) not in self._done:
            made = (
                _wilcoxon_of_images(arm, self.reference, metric, self.rules)
                if metric
                else (_mcnemar_of_repeats(arm, self.reference, self.rules))
            )
            self._done[arm.name, metric] = made
        return self._done[arm.name, metric]


def _mcnemar_of_repeats(arm: Arm, reference: Arm, rules: Rules) -> tuple[str, float]:
    of_cases = resampling.cases(reference.runs[0])
    grouped = len(np.unique(of_cases)) < len(of_cases)
    rights = zip(_right(arm, rules), _right(reference, rules), strict=True)
    each = [mcnemar(here, there, of_cases if grouped else None) for here, there in rights]
    name = "McNemar (by groups, Durkalski)" if grouped else "McNemar (exact)"
    if len(each) > 1:
        name += f", median of {len(each)} repeats with Rüger's factor"
    return name, combined(each)


def _right(arm: Arm, rules: Rules) -> list[npt.NDArray[np.bool_]]:
    return [
        resampling.decisions(run, rules, threshold) == run.truth
        for run, threshold in zip(arm.runs, resampling.thresholds(arm), strict=True)
        if isinstance(run, Classified)
    ]


def mcnemar(
    arm: npt.NDArray[np.bool_],
    reference: npt.NDArray[np.bool_],
    of_cases: Integers | None = None,
) -> float:
    """Two-sided p-value of two classifiers being right equally often on the same pictures.

    Args:
        arm, reference: `(pictures,)` whether each is right.
        of_cases: `(pictures,)` the group of each, if several pictures are of one.
    Source: McNemar 1947, exact by the binomial distribution. With groups Durkalski et al. 2003,
        doi:10.1002/sim.1438: the sum of differences over groups against its spread.
    """
    gained = arm.astype(np.int64) - reference
    if of_cases is None:
        better, worse = int((gained > 0).sum()), int((gained < 0).sum())
        return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    of_groups = np.bincount(of_cases, weights=gained)
    size = math.sqrt(float((of_groups**2).sum()))
    return float(2 * stats.norm.sf(abs(of_groups.sum()) / size)) if size else 1.0


def combined(p_values: Sequence[float]) -> float:
    """One p-value of several dependent ones: the upper median, times K / its rank, at most 1.

    The repeats share their test pictures, so their p-values may depend on each other in any way,
    and for that the factor pays (Rüger 1978; Vovk & Wang 2020, doi:10.1093/biomet/asaa027).
    Predictions averaged over the repeats would be those of an ensemble, which no arm is.
    """
    rank = len(p_values) // 2 + 1
    return min(1.0, sorted(p_values)[rank - 1] * len(p_values) / rank)


def _wilcoxon_of_images(arm: Arm, reference: Arm, metric: str, rules: Rules) -> tuple[str, float]:
    here, there = (_image_means(each, metric, rules) for each in (arm, reference))
    of_cases = resampling.cases(reference.runs[0])
    sizes = np.bincount(of_cases)
    name = "Wilcoxon signed ranks of " + ("pictures" if sizes.max() == 1 else "group means")
    apart = np.bincount(of_cases, weights=here - there) / sizes
    return name, wilcoxon(apart)


def _image_means(arm: Arm, metric: str, rules: Rules) -> Floats:
    """`(pictures,)` per-image scores averaged over repeats."""
    found = []
    for run in arm.runs:
        assert isinstance(run, Segmented)
        each = segmentation.image_scores(run.counts, run.classes, background=rules.background)
        found.append(each.get(metric, each["dice" if metric.startswith("dice") else "iou"]))
    means: Floats = np.mean(found, axis=0)
    return means


def wilcoxon(apart: Floats) -> float:
    """Two-sided p-value of paired differences around zero; zeros are ranked (Pratt 1959)."""
    apart = np.round(apart, 12)  # equal differences stay tied
    if not apart.any():
        return 1.0
    test: Any = stats.wilcoxon
    return float(test(apart, zero_method="pratt").pvalue)


# Verdicts -----------------------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number (Holm 1979); None stays and does not count."""
    known = [index for index, p in enumerate(p_values) if p is not None]
    known.sort(key=lambda index: p_values[index] or 0.0)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * (p_values[index] or 0.0)))
        adjusted[index] = highest
    return adjusted


def verdict(comparison: Comparison, repeats: int, alpha: float = ALPHA) -> Verdict:
    """What may be said of an arm.

    It helps or hurts if the adjusted p-value is below `alpha` and the interval has no zero in it.
    A single repeat cannot tell: it compares two trained networks, not two ways of training.
    """
    p, low, high = comparison.p_adjusted, comparison.low, comparison.high
    if repeats < 2 or p is None or low is None or high is None or p >= alpha or low <= 0 <= high:
        return "cannot tell"
    return "helps" if (low > 0) == higher_is_better(comparison.metric) else "hurts"


def _judged(pairs: Sequence[Comparison], reference: Arm, is_main: bool) -> list[Comparison]:
    """Comparisons of one metric with their correction, verdicts and sentences."""
    repeats = len(reference.runs)
    done = []
    for pair, adjusted in zip(pairs, holm([pair.p for pair in pairs]), strict=True):
        known = replace(pair, p_adjusted=adjusted)
        if is_main:
            known = replace(known, verdict=verdict(known, repeats))
        done.append(replace(known, sentence=sentence(known, reference.runs[0], repeats)))
    return done


def sentence(comparison: Comparison, run: Said, repeats: int) -> str:
    """A comparison in plain words; points are percentage points."""
    said, metric = comparison.verdict, comparison.metric
    opening = f"{said}: " if said else ""
    if comparison.difference is None:
        return f"{opening}{wording.label(metric)} cannot be judged on this test set"
    shown = wording.difference(metric, comparison.difference, comparison.low, comparison.high)
    words = f"{opening}{shown.replace('(', '(95 % ', 1)} in {wording.label(metric)}"
    if comparison.detectable is None:
        return f"{words}; all repeats and test pictures agree"
    seen = f"{len(run.items)} pictures{_groups(run)}"
    least = wording.points(metric, comparison.detectable)
    if repeats < 2:
        return (
            f"{words}, from a single repeat: how much another training changes is unknown; "
            f"this test set of {seen} could have shown a difference of {least} between two networks"
        )
    if said in ("helps", "hurts"):
        return f"{words}, p {_compared_to(comparison.p_adjusted)} after Holm's correction"
    if said and (comparison.low or 0) * (comparison.high or 0) > 0:
        # An interval without zero would be taken for an effect.
        words += f", but p {_compared_to(comparison.p_adjusted)} once corrected for several arms"
    return (
        f"{words}; this test set of {seen} and {repeats} repeats could have shown a difference "
        f"of {least}"
    )


def _groups(run: Said) -> str:
    cases = int(resampling.cases(run).max()) + 1
    return f" in {cases} groups" if cases < len(run.items) else ""


def _compared_to(p: float | None) -> str:
    text = wording.p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _field_words(name: str, p: float | None) -> str:
    return f"{name}: p {_compared_to(p)}"
