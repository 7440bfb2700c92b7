"""What a subset study shows, and how surely one can know: estimates, comparisons, claims.

A repeat is one seed: it chooses, trains and generates anew. Means over seeds have Student's
intervals, differences to the random subset are paired by seed. Whether diversity grows with
spread is a question of order over few subsets: Kendall's tau-b, averaged over seeds, against all
orders that the subsets could have had. Four subsets of one set have 24, so that alone they never
show anything at 0.05; orders of several sets, independent of each other, can.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from tfgan_med.experiments.statistics import ALPHA, holm

Floats = npt.NDArray[np.float64]
Claim = Literal[
    "center_lowest",
    "center_best_fid",
    "spread_grows_with_g",
    "diversity_grows_with_g",
    "diversity_grows_with_order",
    "diversity_grows_with_spread",
]
Scope = Literal["all", "kss"]

DIVERSITY = ("d", "is", "cid")
"""Measures of generated pictures that the original takes for their diversity."""
SPREAD = {"variance_ratio": 1, "pairwise_distance": 1, "coverage_radius": -1}
"""Measures of the chosen pictures that claims are judged by; -1: less is more spread."""
LOWER_IS_BETTER = frozenset({"fid", "kid", "fid_subset"})
FEWEST = 3
"""Subsets that an order can be asked of."""
_MOST_EXACT = 7  # 5040 orders
_DRAWN = 20_000
_MOST_SUMS = 4_000_000
_EPSILON = 1e-9  # tau of equal orders may differ in its last bits


# Estimates ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; no deviation of a single one, no interval of equal values."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided, of a mean of 0."""


def estimate(values: Sequence[float], alpha: float = ALPHA) -> Estimate:
    """Mean and Student's interval.

    Args:
        values: of independent repeats.
        alpha: 1 minus the level of the interval.
    """
    found = np.asarray(values, np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Estimate(mean, None, None, None, None)
    sd = float(found.std(ddof=1))
    if sd <= 1e-12 * max(1.0, abs(mean)):  # equal repeats do not say how much others would differ
        return Estimate(mean, 0.0, None, None, None)
    error, freedom = sd / math.sqrt(len(found)), len(found) - 1
    reach = error * float(stats.t.ppf(1 - alpha / 2, freedom))
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, sd, mean - reach, mean + reach, p)


# Comparisons --------------------------------------------------------------------------------------

Word = Literal["higher", "lower", "cannot tell"]


@dataclass(frozen=True)
class Difference:
    """A subset against the reference in one measure, paired by seed.

    Attributes:
        subset, metric: names.
        seeds: repeats that both have.
        difference: mean of subset minus reference.
        low, high, p: Student's; None with one seed or equal differences.
        p_adjusted: after Holm's correction over the subsets.
        verdict: one seed cannot tell: it compares two networks, not two ways of choosing.
    """

    subset: str
    metric: str
    seeds: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None = None
    verdict: Word = "cannot tell"


Seeds = Mapping[int, float]
"""Values by seed."""
Spreads = dict[tuple[str, str], dict[str, dict[int, float]]]
"""By set and measure of spread: subset, seed, value."""


def differences(metric: str, values: Mapping[str, Seeds], reference: str) -> list[Difference]:
    """All subsets against one of them.

    Args:
        metric: name.
        values: of each subset; those without a seed in common with the reference are left out.
        reference: its name.
    """
    made = []
    for subset, own in values.items():
        common = sorted(own.keys() & values.get(reference, {}).keys())
        if subset == reference or not common:
            continue
        found = estimate([own[seed] - values[reference][seed] for seed in common])
        made.append(
            Difference(subset, metric, len(common), found.mean, found.low, found.high, found.p)
        )
    adjusted = holm([one.p for one in made])
    return [
        replace(one, p_adjusted=p, verdict=_word(one, p))
        for one, p in zip(made, adjusted, strict=True)
    ]


def _word(one: Difference, p: float | None) -> Word:
    if p is None or one.low is None or one.high is None or p >= ALPHA:
        return "cannot tell"
    return "higher" if one.low > 0 else "lower" if one.high < 0 else "cannot tell"


# Orders -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Whether one quantity grows with another over subsets.

    Attributes:
        tau: Kendall's tau-b, mean over repeats.
        values: of the repeats.
        p: two-sided share of all orders of the subsets that are at least as far from 0.
        smallest_p: the least that any outcome could have had.
        null: tau of these orders and how often each occurs, `(orders,)` both.
    """

    tau: float
    values: list[float]
    p: float
    smallest_p: float
    null: tuple[Floats, Floats]


def order(first: npt.ArrayLike, second: npt.ArrayLike) -> Order:
    """Rank correlation of two quantities over the same subsets.

    Args:
        first, second: `(repeats, subsets)`.
    Source: Kendall 1945, "The treatment of ties in ranking problems"; the test is the permutation
        test of its mean over repeats, exact up to 7 subsets, else by 20 000 random orders.
    """
    x = _signs(np.atleast_2d(np.asarray(first, np.float64)))
    y = _signs(np.atleast_2d(np.asarray(second, np.float64)))
    each = _tau(x, y)
    null = np.array([_tau(x[:, p][:, :, p], y).mean() for p in _orders(x.shape[-1])])
    return _judged_order(float(each.mean()), each.tolist(), _counted(null, np.ones_like(null)))


def together(orders: Sequence[Order]) -> Order:
    """The mean of several orders whose subsets are of different sets, and so independent.

    Repeats are paired in their order; where sets have different numbers, only as many as all have.
    """
    support, counts = np.zeros(1), np.ones(1)
    for one in orders:
        support, counts = _summed(support, counts, *one.null)
    number = len(orders)
    repeats = min(len(one.values) for one in orders)
    values = np.mean([one.values[:repeats] for one in orders], axis=0)
    tau = float(np.mean([one.tau for one in orders]))
    return _judged_order(tau, values.tolist(), (support / number, counts))


def _signs(values: Floats) -> Floats:
    """`(repeats, subsets)` to `(repeats, subsets, subsets)`: which of two is larger."""
    return np.sign(values[:, :, None] - values[:, None, :])


def _tau(x: Floats, y: Floats) -> Floats:
    """Tau-b of each repeat; 0 where all are equal in one quantity."""
    axes = (1, 2)
    scale = np.sqrt((x**2).sum(axis=axes) * (y**2).sum(axis=axes))
    agreeing = (x * y).sum(axis=axes)
    found: Floats = np.divide(agreeing, scale, out=np.zeros_like(scale), where=scale > 0)
    return found


def _orders(count: int) -> list[npt.NDArray[np.int64]]:
    if count <= _MOST_EXACT:
        return [np.array(one) for one in itertools.permutations(range(count))]
    random = np.random.default_rng(0)
    return [np.arange(count), *(random.permutation(count) for _ in range(_DRAWN - 1))]


def _counted(values: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Equal values once, with their counts added up."""
    found, places = np.unique(np.round(values, 9), return_inverse=True)
    return found, np.bincount(places, weights=counts).astype(np.float64)


def _summed(
    support: Floats, counts: Floats, more: Floats, more_counts: Floats
) -> tuple[Floats, Floats]:
    """Distribution of a sum of two independent values."""
    if support.size * more.size <= _MOST_SUMS:
        sums = (support[:, None] + more).ravel()
        return _counted(sums, np.outer(counts, more_counts).ravel())
    random = np.random.default_rng(0)
    drawn = [
        random.choice(values, _DRAWN, p=weights / weights.sum())
        for values, weights in ((support, counts), (more, more_counts))
    ]
    return _counted(drawn[0] + drawn[1], np.ones(_DRAWN))


def _judged_order(tau: float, values: list[float], null: tuple[Floats, Floats]) -> Order:
    far, counts = np.abs(null[0]), null[1] / null[1].sum()
    p = float(counts[far >= abs(tau) - _EPSILON].sum())
    smallest = float(counts[far >= far.max() - _EPSILON].sum())
    # Rounding of sums must not make an outcome rarer than the rarest one.
    return Order(tau, values, min(1.0, max(p, smallest)), min(1.0, smallest), null)


# Claims -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgment:
    """A claim held against numbers; attributes as in the docstring of `subset_summary`."""

    claim: Claim
    source: Literal["ours", "published"]
    set: str | None
    generator: str | None
    metric: str | None
    measure: str | None
    scope: Scope
    subsets: list[str]
    seeds: int
    agreeing: int | None
    holds: bool
    verdict: str
    statistic: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    smallest_p: float | None
    values: list[float]
    sentence: str


@dataclass(frozen=True)
class Table:
    """Values that claims are held against.

    Attributes:
        source: whose they are.
        methods: method and clusters of each subset.
        scores: by set, generator (None in published ones), measure, subset, seed.
        spreads: by set, measure of spread, subset, seed; empty in published ones.
    """

    source: Literal["ours", "published"]
    methods: Mapping[str, tuple[str, int]]
    scores: Mapping[tuple[str, str | None, str], Mapping[str, Seeds]]
    spreads: Mapping[tuple[str, str], Mapping[str, Seeds]]

    @property
    def sets(self) -> list[str]:
        """Names, in order."""
        return list(dict.fromkeys([key[0] for key in self.scores] + [k[0] for k in self.spreads]))

    @property
    def generators(self) -> list[str | None]:
        """Names, in order."""
        return list(dict.fromkeys(generator for _, generator, _ in self.scores))

    def kss(self, subsets: Sequence[str]) -> list[str]:
        """Those that KSS chose, by their clusters."""
        own = [name for name in subsets if self.methods[name][0] == "kss"]
        return sorted(own, key=lambda name: self.methods[name][1])

    def in_order(self, subsets: Sequence[str]) -> list[str]:
        """Center, random, KSS by its clusters: the order of spread that the original claims."""
        named: dict[str, list[str]] = {
            method: [name for name in subsets if self.methods[name][0] == method]
            for method in ("center", "random")
        }
        return [*named["center"][:1], *named["random"][:1], *self.kss(subsets)]


def judge(table: Table) -> list[Judgment]:
    """Every claim on every set, then on all sets together, with p-values corrected by Holm."""
    made: list[Judgment] = []
    for generator in table.generators:
        for name in table.sets:
            made += _center(table, name, generator)
    made += _grows_with_g(table)
    for generator in table.generators:
        made += _diversity(table, generator)
    return [_worded(one) for one in _adjusted(made)]


def _center(table: Table, name: str, generator: str | None) -> list[Judgment]:
    """`center` has the lowest IS, D, CID; and the lowest FID."""
    made: list[Judgment] = []
    claims: list[tuple[Claim, str]] = [("center_lowest", metric) for metric in ("is", "d", "cid")]
    for claim, metric in [*claims, ("center_best_fid", "fid")]:
        known = _whole(table.scores.get((name, generator, metric), {}))
        center = next((key for key in known if table.methods[key][0] == "center"), None)
        if center is not None and len(known) > 1:
            made.append(_lowest(table.source, claim, name, generator, metric, known, center))
    return made


def _lowest(
    source: Literal["ours", "published"],
    claim: Claim,
    name: str,
    generator: str | None,
    metric: str,
    known: Mapping[str, Seeds],
    center: str,
) -> Judgment:
    """Whether one subset is below all others: it is if it is below each of them.

    An intersection-union test, which needs no correction (Berger 1982); that some other is lower
    does, by Bonferroni.
    """
    seeds = sorted(known[center])
    others = [key for key in known if key != center]

    def apart(other: str) -> list[float]:
        return [known[center][seed] - known[other][seed] for seed in seeds]

    found = {other: estimate(apart(other)) for other in others}
    strict = {other: estimate(apart(other), ALPHA / len(others)) for other in others}
    nearest = max(others, key=lambda other: found[other].mean)
    lower = [max(known[center][s] - known[o][s] for o in others) < 0 for s in seeds]
    holds = found[nearest].mean < 0
    sure = all(one.high is not None and one.high < 0 for one in found.values())
    refuted = any(one.low is not None and one.low > 0 for one in strict.values())
    ps = [one.p for one in found.values()]
    known_ps = [p for p in ps if p is not None]
    verdict = "supported" if sure else "contradicted" if refuted else "cannot tell"
    if source == "published":
        verdict = "agrees" if holds else "disagrees"
    return Judgment(
        claim=claim,
        source=source,
        set=name,
        generator=generator,
        metric=metric,
        measure=None,
        scope="all",
        subsets=[center, *sorted(others, key=lambda other: found[other].mean, reverse=True)],
        seeds=len(seeds),
        agreeing=None if source == "published" else sum(lower),
        holds=holds,
        verdict=verdict,
        statistic=found[nearest].mean,
        low=found[nearest].low,
        high=found[nearest].high,
        p=max(known_ps) if holds and len(known_ps) == len(ps) else None,
        p_adjusted=None,
        smallest_p=None,
        values=apart(nearest),
        sentence=_means_in_words(known, center, others),
    )


def _means_in_words(known: Mapping[str, Seeds], center: str, others: Sequence[str]) -> str:
    means = {key: float(np.mean(list(known[key].values()))) for key in [center, *others]}
    below = sorted((key for key in others if means[key] <= means[center]), key=lambda k: means[k])
    if below:
        rivals = ", ".join(f"{key} {means[key]:.4g}" for key in below)
        return f"{center} {means[center]:.4g} is not the lowest: {rivals}"
    nearest = min(others, key=lambda key: means[key])
    return f"{center} {means[center]:.4g} is the lowest, next is {nearest} {means[nearest]:.4g}"


def _whole(values: Mapping[str, Seeds]) -> dict[str, dict[int, float]]:
    """The seeds that every subset has; nothing if there are none."""
    if not values:
        return {}
    common = set.intersection(*(set(own) for own in values.values()))
    return {key: {s: own[s] for s in sorted(common)} for key, own in values.items() if common}


_Pair = tuple[Mapping[str, Seeds], Mapping[str, Seeds], Sequence[str]]


def _grows_with_g(table: Table) -> list[Judgment]:
    """Over KSS alone: is there more spread with more clusters, as the original says?"""
    made: list[Judgment] = []
    for measure, sign in SPREAD.items():
        pairs = {}
        for name in table.sets:
            spread = _whole(table.spreads.get((name, measure), {}))
            subsets = table.kss(list(spread))
            pairs[name] = (_clusters(table, subsets, spread), _signed(spread, sign), subsets)
        made += _orders_of(table, "spread_grows_with_g", None, None, measure, "kss", pairs)
    return made


def _diversity(table: Table, generator: str | None) -> list[Judgment]:
    """Do generated pictures get more diverse with clusters, with the claimed order, with spread?"""
    made: list[Judgment] = []
    for metric in DIVERSITY:
        scores = {
            name: _whole(table.scores.get((name, generator, metric), {})) for name in table.sets
        }
        by_g: dict[str, _Pair] = {}
        by_order: dict[str, _Pair] = {}
        for name, known in scores.items():
            kss, ordered = table.kss(list(known)), table.in_order(list(known))
            by_g[name] = (_clusters(table, kss, known), known, kss)
            ranks = {key: dict.fromkeys(known[key], float(i)) for i, key in enumerate(ordered)}
            by_order[name] = (ranks, known, ordered)
        made += _orders_of(table, "diversity_grows_with_g", generator, metric, None, "kss", by_g)
        made += _orders_of(
            table, "diversity_grows_with_order", generator, metric, None, "all", by_order
        )
        for measure, sign in SPREAD.items():
            made += _with_spread(table, generator, metric, measure, sign, scores)
    return made


def _with_spread(
    table: Table,
    generator: str | None,
    metric: str,
    measure: str,
    sign: int,
    scores: Mapping[str, Mapping[str, Seeds]],
) -> list[Judgment]:
    made: list[Judgment] = []
    scopes: list[Scope] = ["all", "kss"]
    for scope in scopes:
        pairs: dict[str, _Pair] = {}
        for name, known in scores.items():
            spread = _signed(table.spreads.get((name, measure), {}), sign)
            subsets = [key for key in known if known[key].keys() <= spread.get(key, {}).keys()]
            pairs[name] = (spread, known, table.kss(subsets) if scope == "kss" else subsets)
        claim: Claim = "diversity_grows_with_spread"
        made += _orders_of(table, claim, generator, metric, measure, scope, pairs)
    return made


def _signed(values: Mapping[str, Seeds], sign: int) -> dict[str, dict[int, float]]:
    return {key: {seed: sign * v for seed, v in own.items()} for key, own in values.items()}


def _clusters(
    table: Table, subsets: Sequence[str], like: Mapping[str, Seeds]
) -> dict[str, dict[int, float]]:
    return {key: dict.fromkeys(like[key], float(table.methods[key][1])) for key in subsets}


def _orders_of(
    table: Table,
    claim: Claim,
    generator: str | None,
    metric: str | None,
    measure: str | None,
    scope: Scope,
    pairs: Mapping[str, _Pair],
) -> list[Judgment]:
    """A claim of growth on every set that has enough subsets, then on all together."""
    found: dict[str, tuple[Order, Sequence[str], int]] = {}
    for name, (first, second, subsets) in pairs.items():
        if len(subsets) < FEWEST:
            continue
        seeds = sorted(second[subsets[0]])
        x, y = (_matrix(values, subsets, seeds) for values in (first, second))
        found[name] = (order(x, y), subsets, len(seeds))

    def judgment(name: str | None, one: Order, subsets: Sequence[str], seeds: int) -> Judgment:
        over = estimate(one.values)
        ours = table.source == "ours"
        return Judgment(
            claim=claim,
            source=table.source,
            set=name,
            generator=generator,
            metric=metric,
            measure=measure,
            scope=scope,
            subsets=list(subsets),
            seeds=seeds,
            agreeing=sum(value > 0 for value in one.values) if ours else None,
            holds=one.tau > 0,
            verdict="" if ours else "agrees" if one.tau > 0 else "disagrees",
            statistic=one.tau,
            low=None if over.low is None else max(-1.0, over.low),
            high=None if over.high is None else min(1.0, over.high),
            p=one.p,
            p_adjusted=None,
            smallest_p=one.smallest_p,
            values=one.values,
            sentence="",
        )

    made = [judgment(name, *one) for name, one in found.items()]
    if len(found) > 1:
        whole = together([one for one, _, _ in found.values()])
        subsets = list(dict.fromkeys(key for _, own, _ in found.values() for key in own))
        made.append(judgment(None, whole, subsets, len(whole.values)))
    return made


def _matrix(values: Mapping[str, Seeds], subsets: Sequence[str], seeds: Sequence[int]) -> Floats:
    """`(seeds, subsets)`."""
    return np.array([[values[key][seed] for key in subsets] for seed in seeds], np.float64)


def _adjusted(made: Sequence[Judgment]) -> list[Judgment]:
    """P-values corrected over the measures of spread and of pictures that one question has."""
    families: dict[Any, list[int]] = {}
    for place, one in enumerate(made):
        if one.smallest_p is not None:
            key = (one.claim, one.source, one.set, one.generator, one.scope)
            families.setdefault(key, []).append(place)
    done = list(made)
    for places in families.values():
        for place, p in zip(places, holm([made[i].p for i in places]), strict=True):
            one = replace(made[place], p_adjusted=p)
            done[place] = replace(one, verdict=one.verdict or _order_verdict(one))
    return done


def _order_verdict(one: Judgment) -> str:
    """One seed cannot tell; nor can an order that seeds do not agree in."""
    if one.seeds < 2 or one.p_adjusted is None or one.p_adjusted >= ALPHA:
        return "cannot tell"
    if one.low is not None and one.high is not None and one.low <= 0 <= one.high:
        return "cannot tell"
    return "supported" if one.statistic > 0 else "contradicted"


# Words --------------------------------------------------------------------------------------------


def _worded(one: Judgment) -> Judgment:
    words = _center_words(one) if one.smallest_p is None else _order_words(one)
    return replace(one, sentence=f"{one.verdict}: {words}")


def _center_words(one: Judgment) -> str:
    words = one.sentence
    if one.agreeing is not None:
        words += f"; the lowest in {one.agreeing} of {_counted_seeds(one.seeds)}"
    if one.low is not None and one.high is not None:
        words += (
            f"; {one.statistic:+.3g} (95 % {one.low:+.3g} to {one.high:+.3g}) to {one.subsets[1]}"
        )
    return words


def _order_words(one: Judgment) -> str:
    words = f"Kendall's tau {one.statistic:+.2f}"
    if one.low is not None and one.high is not None:
        words += f" (95 % over seeds {one.low:+.2f} to {one.high:+.2f})"
    words += " over all sets" if one.set is None else f" over {len(one.subsets)} subsets"
    words += f", p {_p(one.p)}"
    if one.p_adjusted is not None and one.p is not None and one.p_adjusted > one.p:
        words += f", {_p(one.p_adjusted)} after Holm's correction"
    if one.smallest_p is not None and one.smallest_p >= ALPHA:
        words += f"; so few subsets cannot give less than p {_p(one.smallest_p)}"
    return words


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else f"= {value:.3f}"


def _counted_seeds(count: int) -> str:
    return f"{count} seed" + ("s" if count != 1 else "")


TITLES: dict[Claim, str] = {
    "center_lowest": "The pictures nearest to the mean give the lowest IS, D and CID",
    "center_best_fid": "The pictures nearest to the mean give the best FID",
    "spread_grows_with_g": "KSS: more clusters choose more spread pictures",
    "diversity_grows_with_g": "KSS: more clusters give more diverse generated pictures",
    "diversity_grows_with_order": "From Center over Random to KSS with ever more clusters, "
    "generated pictures get more diverse",
    "diversity_grows_with_spread": "More spread subsets give more diverse generated pictures",
}


def conclusions(ours: Sequence[Judgment], published: Sequence[Judgment]) -> list[dict[str, Any]]:
    """What can be said of each claim: rows of claim, title, ours, published."""
    return [
        {
            "claim": claim,
            "title": title,
            "ours": _concluded([one for one in ours if one.claim == claim], _ours_words),
            "published": _concluded(
                [one for one in published if one.claim == claim], _published_words
            ),
        }
        for claim, title in TITLES.items()
    ]


def _concluded(found: list[Judgment], words: Callable[[list[Judgment]], str]) -> str | None:
    return words(found) if found else None


def _ours_words(found: list[Judgment]) -> str:
    parts = []
    scopes: list[tuple[Scope, str]] = [("all", "all subsets"), ("kss", "KSS alone")]
    both = len({one.scope for one in found}) > 1
    for scope, called in scopes:
        own = [one for one in found if one.scope == scope and one.set is not None]
        if not own:
            continue
        counts = {
            word: sum(one.verdict == word for one in own)
            for word in ("supported", "contradicted", "cannot tell")
        }
        told = ", ".join(f"{word} in {n}" for word, n in counts.items() if n)
        holding = sum(one.holds for one in own)
        text = (
            f"{told} of {len(own)} judgments; the means have this order in {holding} of {len(own)}"
        )
        whole = [one for one in found if one.scope == scope and one.set is None]
        if whole:
            sure = [one for one in whole if one.verdict != "cannot tell"]
            told = ", ".join(dict.fromkeys(one.verdict for one in sure)) or "cannot tell"
            taus = [one.statistic for one in whole]
            text += f"; all sets together: {told} (tau {min(taus):+.2f} to {max(taus):+.2f})"
        parts.append(f"{called}: {text}" if both else text)
    seeds = min(one.seeds for one in found)
    if seeds < 2:
        parts.append("one seed cannot tell")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _published_words(found: list[Judgment]) -> str:
    """Where a paper's own numbers have the order that it claims, and where not."""
    own = [one for one in found if one.set is not None]
    agreeing = [one for one in own if one.holds]
    text = f"The paper's own numbers have this order in {len(agreeing)} of {len(own)} cases"
    failing: dict[str, list[str]] = {}
    for one in own:
        if not one.holds:
            failing.setdefault(str(one.set), []).append(str(one.metric).upper())
    if failing:
        names = [f"{name} ({', '.join(metrics)})" for name, metrics in failing.items()]
        text += f", not in {'; '.join(names)}"
    whole = [one for one in found if one.set is None]
    for one in whole:
        text += (
            f". All sets together, {str(one.metric).upper()}: tau {one.statistic:+.2f}, "
            f"p {_p(one.p)}"
        )
    return text + "."
