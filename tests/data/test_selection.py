"""KSS and its rivals choose what the printed algorithm says, and always as many as were asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans
from sklearn.covariance import OAS, LedoitWolf

from tfgan_med.data import selection
from tfgan_med.data.selection import (
    Covariance,
    Method,
    Scope,
    SelectionConfig,
    SingularCovarianceError,
    Subset,
    select,
)
from tfgan_med.errors import UserError
from tfgan_med.ops import principal_components

Floats = npt.NDArray[np.float64]
METHODS: tuple[Method, ...] = get_args(Method)
COVARIANCES: tuple[Covariance, ...] = get_args(Covariance)
SCOPES: tuple[Scope, ...] = get_args(Scope)


def scores(count: int = 300, components: int = 6, seed: int = 0) -> Floats:
    """A few clouds of falling variance, centred."""
    rng = np.random.default_rng(seed)
    centers = 4.0 * rng.standard_normal((4, components))
    rows = centers[rng.integers(0, 4, count)] + rng.standard_normal((count, components))
    rows *= np.linspace(2.0, 0.3, components)
    centred: Floats = rows - rows.mean(axis=0)
    return centred


def chosen(rows: Floats, method: Method = "kss", size: int = 20, **options: Any) -> Subset:
    return select(rows, SelectionConfig(method, size, **options))


# The printed algorithm ----------------------------------------------------------------------------


def estimated(members: Floats, covariance: Covariance) -> Floats:
    """Covariance (n - 1) of the members of a cluster, by the textbook."""
    count, components = members.shape
    plain: Floats = np.atleast_2d(np.cov(members.T))
    if covariance in ("empirical", "pinv"):
        return plain
    if covariance == "ridge":
        plain.flat[:: components + 1] += 1e-3 * np.trace(plain) / components
        return plain
    if covariance == "euclidean":
        return np.eye(components)
    estimator = OAS() if covariance == "oas" else LedoitWolf()
    return np.asarray(estimator.fit(members).covariance_ * count / (count - 1), np.float64)


def by_the_paper(
    rows: Floats, size: int, clusters: int, covariance: Covariance, farthest: bool = True
) -> list[tuple[int, int, float]]:
    """Cluster size, row and distance of each choice, in loops and with an explicit inverse."""
    labels = KMeans(clusters, n_init=10, random_state=0).fit_predict(rows)
    found = []
    names = sorted(set(labels), key=lambda c: (-np.sum(labels == c), np.argmax(labels == c)))
    for place, cluster in enumerate(names):
        members = np.flatnonzero(labels == cluster)
        mean = rows[members].mean(axis=0)
        inverse = np.linalg.inv(estimated(rows[members], covariance))
        distances = {
            int(row): float(np.sqrt((rows[row] - mean) @ inverse @ (rows[row] - mean)))
            for row in members
        }
        order = sorted(distances, key=lambda row: distances[row], reverse=farthest)
        places = size // clusters + (1 if place < size % clusters else 0)
        found += [(len(members), row, distances[row]) for row in order[:places]]
    return found


@pytest.mark.parametrize("covariance", [c for c in COVARIANCES if c != "pooled"])
@pytest.mark.parametrize(("size", "clusters"), [(20, 1), (20, 4), (23, 3), (17, 5)])
def test_kss_equals_the_printed_algorithm(covariance: Covariance, size: int, clusters: int) -> None:
    rows = scores()
    expected = by_the_paper(rows, size, clusters, covariance)
    subset = chosen(rows, size=size, clusters=clusters, covariance=covariance)
    assert subset.indices.tolist() == [row for _, row, _ in expected]
    np.testing.assert_allclose(subset.distances, [d for _, _, d in expected], rtol=1e-6)


@pytest.mark.parametrize("covariance", ["ledoit_wolf", "empirical"])
def test_center_equals_the_printed_algorithm(covariance: Covariance) -> None:
    expected = by_the_paper(scores(), 20, 1, covariance, farthest=False)
    subset = chosen(scores(), "center", covariance=covariance)
    assert subset.indices.tolist() == [row for _, row, _ in expected]


def test_pooled_takes_the_covariance_of_what_is_left_of_all_clusters() -> None:
    rows = scores()
    subset = chosen(rows, clusters=4, covariance="pooled")
    means = np.stack([rows[subset.labels == c].mean(axis=0) for c in range(4)])
    left = rows - means[subset.labels]
    pooled = LedoitWolf(assume_centered=True).fit(left).covariance_ * len(rows) / (len(rows) - 4)
    apart = left[subset.indices]
    expected = np.sqrt(np.einsum("ij,jk,ik->i", apart, np.linalg.inv(pooled), apart))
    np.testing.assert_allclose(subset.distances, expected, rtol=1e-9)


@pytest.mark.parametrize("scope", ["pooled", "global"])
def test_a_wider_scope_has_one_covariance_for_all_clusters(scope: Scope) -> None:
    rows = scores()
    subset = chosen(rows, clusters=4, covariance="empirical", covariance_scope=scope)
    left = rows - subset.centroids[subset.labels]
    covariance = np.cov(rows.T) if scope == "global" else left.T @ left / (len(rows) - 4)
    apart = left[subset.indices]
    expected = np.sqrt(np.einsum("ij,jk,ik->i", apart, np.linalg.inv(covariance), apart))
    np.testing.assert_allclose(subset.distances, expected, rtol=1e-9)


def test_the_corners_of_a_grid_are_chosen() -> None:
    # In a regular grid the four corners of each quadrant are equally far from its mean, so that
    # the spec's test is decided by ties; here the outermost lines stand a little further out.
    line = np.array([-5.5, -4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0, 5.5])
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    for covariance in ("empirical", "ledoit_wolf", "euclidean"):
        subset = chosen(grid, size=4, clusters=4, covariance=covariance)
        assert sorted(subset.indices.tolist()) == [0, 9, 90, 99]


def test_of_a_regular_grid_the_corners_of_the_quadrants_are_chosen_ties_by_row() -> None:
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), axis=-1).reshape(-1, 2)
    subset = chosen(grid, size=16, clusters=4)
    corners = [row * 10 + column for row in (0, 4, 5, 9) for column in (0, 4, 5, 9)]
    assert sorted(subset.indices.tolist()) == corners
    assert chosen(grid, size=4, clusters=4).indices.tolist() == [0, 5, 50, 55]


def test_center_is_kss_of_one_cluster_reversed() -> None:
    rows = scores()
    nearest_first = chosen(rows, "center", size=300).indices
    farthest_first = chosen(rows, size=300).indices
    np.testing.assert_array_equal(nearest_first, farthest_first[::-1])


# Numbers of choices -------------------------------------------------------------------------------


def consistent(subset: Subset, count: int, size: int) -> bool:
    """What holds for every choice."""
    assert len(set(subset.indices.tolist())) == len(subset.indices) == size
    assert subset.quota.sum() == size
    assert np.isfinite(subset.distances).all()
    assert subset.labels.shape == (count,)
    np.testing.assert_array_equal(subset.clusters, subset.labels[subset.indices])
    expected = [(c, r) for c, quota in enumerate(subset.quota) for r in range(1, quota + 1)]
    assert list(zip(subset.clusters.tolist(), subset.ranks.tolist(), strict=True)) == expected
    return True


def test_100_of_1336_in_80_clusters_take_one_or_two_of_each() -> None:
    rows = scores(1336, 12)
    subset = chosen(rows, size=100, clusters=80)
    assert consistent(subset, 1336, 100)
    sizes = np.bincount(subset.labels, minlength=80)
    assert ((subset.quota == 1) | (subset.quota == 2) | (subset.quota == sizes)).all()
    assert (np.diff(sizes) <= 0).all()
    np.testing.assert_array_equal(subset.quota, np.repeat([2, 1], [20, 60]))


def test_as_many_clusters_as_choices_give_one_each() -> None:
    subset = chosen(scores(1000), size=100, clusters=100)
    assert consistent(subset, 1000, 100)
    np.testing.assert_array_equal(subset.quota, np.ones(100))


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("clusters", [1, 2, 7])
def test_always_as_many_as_asked(covariance: Covariance, clusters: int) -> None:
    rng, count = np.random.default_rng(1), 41
    rows = rng.integers(0, 4, (count, 2)) + 1e-3 * rng.standard_normal((count, 2))
    for size in (clusters, 20, 40, count):
        try:
            subset = chosen(rows, size=size, clusters=clusters, covariance=covariance)
        except SingularCovarianceError:
            assert covariance == "empirical"
        else:
            assert consistent(subset, count, size)


@pytest.mark.parametrize("method", METHODS)
def test_all_of_them_can_be_chosen(method: Method) -> None:
    assert consistent(chosen(scores(30), method, size=30), 30, 30)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_small_sets_can_be_chosen_from(method: Method, count: int) -> None:
    for size in range(1, count + 1):
        assert consistent(chosen(scores(count), method, size=size), count, size)


@pytest.mark.parametrize(
    ("available", "size", "expected"),
    [
        ([50, 30, 20], 6, [2, 2, 2]),
        ([50, 30, 20], 8, [3, 3, 2]),  # what is left over goes to the largest
        ([50, 30, 1], 9, [4, 4, 1]),  # what the third cannot fill, one by one to the others
        ([50, 4, 1, 0], 12, [7, 4, 1, 0]),
        ([20, 30, 30], 4, [1, 2, 1]),  # of equal ones the smaller number
        ([3, 3, 3], 9, [3, 3, 3]),
    ],
)
def test_places_are_handed_out(available: list[int], size: int, expected: list[int]) -> None:
    members = np.array(available)
    assert selection._quota(members, size, members).tolist() == expected


def test_the_remainder_may_go_to_the_widest_cluster() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.standard_normal((60, 2))
    wide = [100.0, 0.0] + 5.0 * rng.standard_normal((40, 2))
    rows = np.concatenate([narrow, wide])
    assert chosen(rows, size=5, clusters=2).quota.tolist() == [3, 2]
    by_dispersion = chosen(rows, size=5, clusters=2, remainder="dispersion")
    assert by_dispersion.quota.tolist() == [2, 3]


# Degenerate clusters ------------------------------------------------------------------------------


def lonely_and_copied() -> Floats:
    """Rows 0 to 9 copies, 10 alone, 11 to 40 a cloud."""
    rng = np.random.default_rng(3)
    copies = np.tile([50.0, 0.1, 0.3], (10, 1))
    cloud = rng.standard_normal((30, 3))
    return np.concatenate([copies, [[0.0, 80.0, 0.0]], cloud])


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("scope", SCOPES)
def test_one_member_and_copies_have_distance_zero(covariance: Covariance, scope: Scope) -> None:
    if (covariance, scope) == ("pooled", "global"):
        pytest.skip("refused; tested below")
    rows = lonely_and_copied()
    subset = chosen(rows, size=9, clusters=3, covariance=covariance, covariance_scope=scope)
    assert consistent(subset, 41, 9)
    assert subset.quota.tolist() == [4, 4, 1]
    assert subset.indices[4:].tolist() == [0, 1, 2, 3, 10]  # copies by row, then the lonely one
    np.testing.assert_array_equal(subset.distances[4:], np.zeros(5))
    assert (subset.distances[:4] > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_copies_only_are_chosen_by_row(method: Method) -> None:
    subset = chosen(np.zeros((12, 1)), method, size=5)
    np.testing.assert_array_equal(subset.distances, np.zeros(5))
    if method != "random":
        assert subset.indices.tolist() == [0, 1, 2, 3, 4]


def test_rounding_does_not_rank_copies() -> None:
    rows = scores(60)
    rows[20:40] = rows[20] * (1 + 1e-9 * np.random.default_rng(0).standard_normal((20, 1)))
    ways: list[Method] = ["kss", "center"]
    for method in ways:
        subset = chosen(rows, method, size=60)
        copies = [i for i in subset.indices.tolist() if 20 <= i < 40]
        assert copies == list(range(20, 40)), method


def test_fewer_different_pictures_than_clusters_are_told() -> None:
    rows = np.repeat(np.eye(3), 10, axis=0)
    subset = chosen(rows, size=10, clusters=5)
    assert consistent(subset, 30, 10)
    assert subset.quota.tolist() == [4, 3, 3, 0, 0]
    assert len(subset.notices) == 1
    assert subset.notices[0].startswith("2 of 5 clusters are empty")


def test_two_members_leave_ledoit_and_wolf_no_doubt_but_have_a_distance() -> None:
    pair = np.random.default_rng(0).standard_normal((2, 5))
    subset = chosen(pair, size=2)
    assert subset.distances[0] == pytest.approx(subset.distances[1])
    assert 0.0 < subset.distances[0] < 100.0


# Singular covariances -----------------------------------------------------------------------------


def test_an_empirical_covariance_without_inverse_is_refused_with_the_ways_out() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 40))
    with pytest.raises(SingularCovarianceError) as caught:
        chosen(rows, covariance="empirical")
    message = str(caught.value)
    for part in ("Cluster 0 of 1", "40 members", "40 components", "in each of 1 clusters"):
        assert part in message
    for way in ("fewer clusters", "fewer components", "ledoit_wolf"):
        assert way in message
    assert chosen(np.concatenate([rows, rows[:1] + 1.0]), covariance="empirical").indices.size == 20


def test_a_flat_cloud_is_refused_however_many_members_it_has() -> None:
    rows = scores(200, 4)
    flat = np.concatenate([rows, rows[:, :1] + rows[:, 1:2]], axis=1)
    with pytest.raises(SingularCovarianceError, match="200 members in 5 components"):
        chosen(flat, covariance="empirical")
    assert chosen(flat).indices.size == 20


@pytest.mark.parametrize("count", [13, 28, 41])
def test_the_pseudo_inverse_ties_all_distances_and_says_so(count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((count, 40))
    subset = chosen(rows, size=5, covariance="pinv")
    np.testing.assert_allclose(subset.distances, (count - 1) / np.sqrt(count), rtol=1e-6)
    assert subset.indices.tolist() == [0, 1, 2, 3, 4]  # nothing but the order is left
    assert "equal in 1 of 1 clusters (0)" in subset.notices[0]


def test_the_notice_of_ties_names_at_most_three_clusters() -> None:
    subset = chosen(scores(60, 30), size=5, clusters=5, covariance="pinv")
    assert "equal in 5 of 5 clusters (0, 1, 2 and 2 more)" in subset.notices[0]


def test_shrinkage_ranks_where_the_pseudo_inverse_ties() -> None:
    rows = np.random.default_rng(13).standard_normal((13, 40))
    distances = chosen(rows, size=13).distances
    assert distances.max() / distances.min() > 1.1


# Invariance ---------------------------------------------------------------------------------------

Change = Callable[[Floats], Floats]


def rotated(rows: Floats) -> Floats:
    square = np.random.default_rng(9).standard_normal((rows.shape[1],) * 2)
    return np.asarray(rows @ np.linalg.qr(square)[0])


@pytest.mark.parametrize("change", [lambda x: x + 3.0, lambda x: 2.0 * x, rotated])
@pytest.mark.parametrize(
    ("method", "covariance"),
    [("kcenter", "euclidean")]
    + [(m, c) for m in ("kss", "center") for c in COVARIANCES if c != "pinv"],
)
def test_moving_turning_and_scaling_change_nothing(
    change: Change, method: Method, covariance: Covariance
) -> None:
    rows, clusters = scores(), 4 if method == "kss" else 1
    before, after = (
        chosen(x, method, clusters=clusters, covariance=covariance) for x in (rows, change(rows))
    )
    assert before.indices.tolist() == after.indices.tolist()


@pytest.mark.parametrize("change", [lambda x: x + 3.0, lambda x: 2.0 * x, rotated])
@pytest.mark.parametrize("method", ["kss", "center", "kcenter"])
def test_moving_turning_and_scaling_pictures_change_nothing(change: Change, method: Method) -> None:
    rng = np.random.default_rng(0)
    values = scores(200, 8) @ rng.standard_normal((8, 30)) + 0.01 * rng.standard_normal((200, 30))
    clusters = 4 if method == "kss" else 1
    found = []
    for x in (values, change(values)):
        blocks = principal_components.ArrayBlocks(x)
        found.append(chosen(principal_components.fit(blocks)[1], method, clusters=clusters))
    assert found[0].indices.tolist() == found[1].indices.tolist()


@pytest.mark.parametrize("backend", ["gram", "sketch"])
def test_streamed_components_choose_the_same_rows(
    backend: principal_components.Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_components, "_SAMPLE", 60)
    rng = np.random.default_rng(0)
    values = scores(500, 8) @ np.linalg.qr(rng.standard_normal((300, 8)))[0].T
    values = (values + 0.01 * rng.standard_normal((500, 300))).astype(np.float32)
    blocks = principal_components.ArrayBlocks(values, block_bytes=30_000)
    picks = [
        chosen(principal_components.fit(blocks, 0.95, backend=name)[1], clusters=4).indices.tolist()
        for name in ("exact", backend)
    ]
    assert picks[0] == picks[1]


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_are_the_same(method: Method) -> None:
    options = {"clusters": 8 if method == "kss" else 1, "seed": 5}
    first, second = (chosen(scores(), method, **options) for _ in range(2))
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.distances, second.distances)


# Clusters -----------------------------------------------------------------------------------------


def test_clusters_are_numbered_by_size_then_first_member() -> None:
    labels, order = selection._canonical(np.array([3, 0, 0, 3, 1, 1, 1]), 4)
    assert labels.tolist() == [1, 2, 2, 1, 0, 0, 0]
    assert order.tolist() == [1, 3, 0, 2]


def test_centroids_are_the_means_of_members() -> None:
    rows = scores()
    subset = chosen(rows, clusters=6)
    for cluster in range(6):
        members = rows[subset.labels == cluster]
        np.testing.assert_allclose(subset.centroids[cluster], members.mean(axis=0))


def test_large_sets_are_clustered_in_batches_to_the_same_clouds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 900)
    rows = 50.0 * np.eye(3)[kinds] + rng.standard_normal((900, 3))
    whole = chosen(rows, size=30, clusters=3)
    monkeypatch.setattr(selection, "_WHOLE_KMEANS", 800)
    batches = chosen(rows, size=30, clusters=3)
    np.testing.assert_array_equal(whole.labels, batches.labels)
    np.testing.assert_array_equal(whole.indices, batches.indices)


# The other methods --------------------------------------------------------------------------------


def test_random_choices_are_nested_and_uniform() -> None:
    rows = np.random.default_rng(0).standard_normal((10, 2))
    assert (
        chosen(rows, "random", 3).indices.tolist() == chosen(rows, "random", 7).indices[:3].tolist()
    )
    counts = np.zeros(10)
    for seed in range(500):
        counts[chosen(rows, "random", 3, seed=seed).indices] += 1
    assert np.abs(counts - 150).max() < 5 * np.sqrt(500 * 0.3 * 0.7)


def greedy(rows: Floats, size: int) -> list[int]:
    """Farthest points by the definition."""
    found = [int(np.argmax(np.linalg.norm(rows - rows.mean(axis=0), axis=1)))]
    while len(found) < size:
        apart = np.min([np.linalg.norm(rows - rows[i], axis=1) for i in found], axis=0)
        apart[found] = -1
        found.append(int(np.argmax(apart)))
    return found


def test_kcenter_takes_the_farthest_point_again_and_again() -> None:
    rows = scores(200)
    subset = chosen(rows, "kcenter", 25)
    assert subset.indices.tolist() == greedy(rows, 25)
    assert (np.diff(subset.distances[1:]) <= 1e-9).all()  # every next one is nearer
    first, second = rows[subset.indices[:2]]
    assert subset.distances[1] == pytest.approx(np.linalg.norm(first - second))


# Outliers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kss", "kcenter"])
def test_the_guard_leaves_out_broken_pictures(method: Method) -> None:
    rows = scores(500)
    rows[[7, 77]] *= 1000.0
    assert {7, 77} <= set(chosen(rows, method).indices.tolist())
    guarded = chosen(rows, method, max_quantile=0.99)
    assert not {7, 77} & set(guarded.indices.tolist())
    assert consistent(guarded, 500, 20)


def test_a_guard_that_leaves_too_few_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match="leaves 15 of 30 pictures, but 20 are to be chosen"):
        chosen(scores(30), max_quantile=0.5)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "size: 31 pictures cannot be chosen out of 30"),
        ({"size": 0}, "size: 0 pictures cannot be chosen out of 30"),
        ({"size": 5, "clusters": 6}, "clusters: 6 clusters for 5 pictures"),
        ({"size": 30, "clusters": 31}, "clusters: 31 clusters for 30 pictures"),
        ({"clusters": 0}, "clusters: 0 with the method kss"),
        ({"method": "center", "clusters": 2}, "clusters: 2 with the method center"),
        ({"covariance": "pooled", "covariance_scope": "global"}, "covariance_scope: `global`"),
        ({"max_quantile": 99.0}, "max_quantile: 99 is no quantile"),
        ({"ridge": 0.0, "covariance": "ridge"}, "ridge: 0 cannot"),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(scores(30), **options)


def test_scores_that_are_not_finite_are_refused() -> None:
    rows = scores(30)
    rows[12, 0] = np.inf
    with pytest.raises(UserError, match="Row 12 of 30"):
        chosen(rows)
