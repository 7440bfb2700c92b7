"""Choosing a few pictures out of many by their spread: k-Sparsest Samples and its rivals.

Source: Buzuti, Heiderich and Thomaz, "Spatial Distribution Analysis of Images in GAN Training with
Small Datasets" (source paper 000). KSS clusters the principal-component scores of the pictures by
k-means and takes from each cluster the members farthest from its mean, by Mahalanobis' distance.
`center` takes those nearest to the mean of all, `random` draws, and `kcenter` takes again and again
the picture farthest from those it has (Gonzalez 1985), the most even cover without a covariance.

Numbers in, rows out: no files, no TensorFlow. The same scores and settings choose the same rows;
scores must be in an order that does not depend on the disk, such as that of sorted file names.
Where the paper is silent: a cluster's places, see `_quota`; covariances without an inverse, see
`_metric`; ties, which go to the smaller row.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.covariance import ledoit_wolf_shrinkage, oas
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

from tfgan_med.errors import UserError

Method = Literal["kss", "center", "random", "kcenter"]
Covariance = Literal["ledoit_wolf", "empirical", "oas", "ridge", "pooled", "euclidean", "pinv"]
Scope = Literal["cluster", "pooled", "global"]
Remainder = Literal["size", "dispersion"]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_WHOLE_KMEANS = 20_000  # rows up to which k-means sees all of them in each step
_SINGULAR = 1e-12  # reciprocal condition number
_LEAST_SHRINKAGE = 1e-3  # where an estimator asks for none though the covariance is singular
_SAME = 1e-6  # a cluster narrower than this share of the whole is one point; scores are float32
# Matrices of clusters are small: threads would wait, not work, and for seconds on a busy machine.
# In k-means two threads add up in either order to the same sum; more would not, to the last bit.
_THREADS = {"blas": 1, "openmp": 2}
_TIE = 1e-7  # relative difference of distances that is rounding


class SingularCovarianceError(UserError):
    """The covariance of a cluster has no inverse: too few members for so many components."""


@dataclass(frozen=True)
class SelectionConfig:
    """How to choose.

    Attributes:
        method: `kss`, `center`, `random` or `kcenter`.
        size: pictures to choose (k).
        clusters: of `kss` (G).
        variance: share that the principal components were fitted for; `select` does not read it.
        components: number they were fixed to instead; `select` does not read it.
        covariance: estimator for Mahalanobis' distance. `empirical` is the paper's; shrinkage
            (`ledoit_wolf`, `oas`) and `ridge` are defined for small clusters too; `pooled` is
            that of all clusters together, shrunk; `euclidean` is none; `pinv` is for the record.
        covariance_scope: a covariance for each `cluster`; one of what remains when the clusters'
            means are taken off (`pooled`); or one of all pictures (`global`).
        remainder: who gets the places left over when size is no multiple of clusters: clusters with
            most members (`size`) or with the largest variance (`dispersion`).
        ridge: of `covariance="ridge"`, in units of the mean variance of a component.
        max_quantile: before choosing, leave out members of a cluster whose robust distance exceeds
            this quantile, 0 to 1: a guard against broken pictures.
        seed: of k-means and of `random`.
    """

    method: Method
    size: int
    clusters: int = 1
    variance: float = 0.90
    components: int | None = None
    covariance: Covariance = "ledoit_wolf"
    covariance_scope: Scope = "cluster"
    remainder: Remainder = "size"
    ridge: float = 1e-3
    max_quantile: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Subset:
    """The chosen rows, sorted by cluster, then rank.

    Attributes:
        indices: `(k,)` distinct rows.
        clusters: `(k,)` cluster of each, from 0, the largest first.
        ranks: `(k,)` from 1 in each cluster: farthest first; `center`: nearest first; `random` and
            `kcenter`: in the order of choosing.
        distances: `(k,)` to the cluster's mean: Mahalanobis' with `kss` and `center`; Euclidean
            with `random`; `kcenter`: Euclidean to the nearest of those chosen before.
        quota: `(G,)` rows chosen from each cluster.
        labels: `(N,)` cluster of every row.
        centroids: `(G, p)` mean of each cluster.
        notices: what the user should know.
    """

    indices: Indices
    clusters: Indices
    ranks: Indices
    distances: Floats
    quota: Indices
    labels: Indices
    centroids: Floats
    notices: tuple[str, ...] = ()


# Choosing -----------------------------------------------------------------------------------------


def select(scores: Floats, config: SelectionConfig) -> Subset:
    """Choose rows.

    Args:
        scores: `(N, p)` principal-component scores, centred, not whitened.
    Returns:
        Exactly `config.size` distinct rows.
    Raises:
        UserError: more rows or clusters than there are, a setting that is none, scores not finite.
        SingularCovarianceError: a covariance has no inverse, with `empirical` only.
    """
    scores = np.ascontiguousarray(scores, np.float64)
    _check(scores, config)
    choose = {"random": _at_random, "kcenter": _farthest_points}.get(config.method, _by_distance)
    with _threads().limit(limits=_THREADS):
        return choose(scores, config)


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()  # looks for libraries, which takes longer than a small choice


def _check(scores: Floats, config: SelectionConfig) -> None:
    count = len(scores)
    if scores.ndim != 2 or not scores.size:
        raise UserError(f"Expected scores of (pictures, components), received {scores.shape}.")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise UserError(
            f"Row {row} of {count} has a score that is not finite. Check that picture and the "
            "network its features come from."
        )
    if not 1 <= config.size <= count:
        raise UserError(
            f"size: {config.size} pictures cannot be chosen out of {count}. Choose 1 to {count}."
        )
    if config.clusters < 1 or (config.clusters > 1 and config.method != "kss"):
        raise UserError(
            f"clusters: {config.clusters} with the method {config.method}. `kss` takes 1 and more, "
            "the others work without clusters."
        )
    if config.clusters > config.size:
        raise UserError(
            f"clusters: {config.clusters} clusters for {config.size} pictures, but each cluster is "
            f"to give at least one. Choose at most {config.size} clusters, or more pictures."
        )
    if config.covariance == "pooled" and config.covariance_scope == "global":
        raise UserError(
            "covariance_scope: `global` does not go with covariance `pooled`, which is a scope "
            "itself. Name an estimator, such as `ledoit_wolf`."
        )
    if config.max_quantile is not None and not 0.0 < config.max_quantile <= 1.0:
        raise UserError(
            f"max_quantile: {config.max_quantile:g} is no quantile. Choose above 0 and up to 1; "
            "0.99 leaves out the outermost hundredth of each cluster."
        )
    if config.ridge <= 0.0:
        raise UserError(
            f"ridge: {config.ridge:g} cannot make a covariance invertible. Choose above 0, such as "
            "0.001."
        )


def _by_distance(scores: Floats, config: SelectionConfig) -> Subset:
    """KSS; and `center`, which is KSS of one cluster with the order reversed."""
    labels, centroids, notices = _clustered(scores, config)
    allowed = _not_outlying(scores, labels, config)
    measured = _measured(scores, labels, centroids, config)
    available = np.bincount(labels[allowed], minlength=config.clusters)
    first = available if config.remainder == "size" else measured.dispersion
    quota = _quota(available, config.size, first)
    chosen = []
    for members, places in zip(_members(labels, config.clusters), quota, strict=True):
        rows = members[allowed[members]]
        ties = measured.distances[rows]
        ties = np.rint(ties / max(ties.max(initial=0.0), 1e-300) / _TIE)
        order = np.argsort(ties if config.method == "center" else -ties, kind="stable")
        chosen.append(rows[order[:places]])
    notices += measured.notices
    return _subset(chosen, measured.distances, labels, centroids, notices)


def _at_random(scores: Floats, config: SelectionConfig) -> Subset:
    """Uniform, without replacement; of one seed, a smaller choice is part of a larger one."""
    labels, centroids, _ = _clustered(scores, config)
    left = np.flatnonzero(_not_outlying(scores, labels, config))
    chosen = np.random.default_rng(config.seed).permutation(left)[: config.size]
    return _subset([chosen], _lengths(scores - centroids), labels, centroids)


def _farthest_points(scores: Floats, config: SelectionConfig) -> Subset:
    """Greedy: first the row farthest from the mean, then the one farthest from those chosen.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; its coverage
    radius is at most twice the best possible one.
    """
    labels, centroids, _ = _clustered(scores, config)
    centred = scores - centroids
    left = _not_outlying(scores, labels, config)
    squares = np.einsum("ij,ij->i", centred, centred)
    nearest, distances = squares.copy(), np.zeros(len(scores))
    chosen: list[int] = []
    for _ in range(config.size):
        row = int(np.argmax(np.where(left, nearest, -1.0)))
        distances[row] = np.sqrt(nearest[row])
        apart = squares + squares[row] - 2.0 * (centred @ centred[row])
        apart[apart < _SAME**2 * (squares + squares[row])] = 0.0  # copies, but for rounding
        nearest = np.minimum(nearest, apart) if chosen else apart
        left[row] = False
        chosen.append(row)
    return _subset([np.array(chosen, np.int64)], distances, labels, centroids)


def _subset(
    clusters: list[Indices],
    distances: Floats,
    labels: Indices,
    centroids: Floats,
    notices: tuple[str, ...] = (),
) -> Subset:
    """Args: rows of each cluster in order of rank; distances of all rows or of those chosen."""
    indices = np.concatenate(clusters).astype(np.int64)
    assert np.isfinite(distances[indices]).all()
    return Subset(
        indices=indices,
        clusters=labels[indices],
        ranks=np.concatenate([np.arange(1, len(rows) + 1) for rows in clusters]),
        distances=distances[indices],
        quota=np.array([len(rows) for rows in clusters], np.int64),
        labels=labels,
        centroids=centroids,
        notices=notices,
    )


# Clusters -----------------------------------------------------------------------------------------


def _clustered(scores: Floats, config: SelectionConfig) -> tuple[Indices, Floats, tuple[str, ...]]:
    """Cluster of each row, means `(G, p)`, notices.

    Clusters are numbered by descending size, then by their first member. Means are taken from the
    members, so that a k-means that stopped early makes no difference; an empty cluster keeps the
    center that k-means gave it.
    """
    if config.clusters == 1:
        return np.zeros(len(scores), np.int64), scores.mean(axis=0, keepdims=True), ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters: told in a notice
        found = _kmeans(len(scores), config).fit(scores)
    labels, order = _canonical(found.labels_.astype(np.int64), config.clusters)
    centroids = found.cluster_centers_.astype(np.float64)[order]
    filled = 0
    for cluster, members in enumerate(_members(labels, config.clusters)):
        if len(members):
            centroids[cluster] = scores[members].mean(axis=0)
            filled += 1
    empty = config.clusters - filled
    notice = (
        f"{empty} of {config.clusters} clusters are empty, for many pictures are copies of each "
        "other; their places went to the other clusters."
    )
    return labels, centroids, (notice,) if empty else ()


def _kmeans(count: int, config: SelectionConfig) -> KMeans | MiniBatchKMeans:
    if count <= _WHOLE_KMEANS:
        return KMeans(config.clusters, n_init=10, algorithm="lloyd", random_state=config.seed)
    return MiniBatchKMeans(
        config.clusters,
        batch_size=4096,
        n_init=10,
        reassignment_ratio=0.01,
        random_state=config.seed,
    )


def _canonical(labels: Indices, clusters: int) -> tuple[Indices, Indices]:
    """Labels renumbered, and the old number of each new one."""
    sizes = np.bincount(labels, minlength=clusters)
    first = np.full(clusters, len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -sizes)).astype(np.int64)
    numbers = np.empty(clusters, np.int64)
    numbers[order] = np.arange(clusters)
    return numbers[labels], order


def _members(labels: Indices, clusters: int) -> list[Indices]:
    """Rows of each cluster, ascending."""
    rows = np.argsort(labels, kind="stable").astype(np.int64)
    return list(np.split(rows, np.cumsum(np.bincount(labels, minlength=clusters))[:-1]))


def _quota(available: Indices, size: int, first: npt.NDArray[np.generic]) -> Indices:
    """Places of each cluster: as many each, what is left one by one.

    The remainder goes to the clusters with the largest values of `first`, of equal ones to the
    smaller number. What clusters cannot fill is handed out the same way, round by round, among
    those that still have members.

    Args:
        available: `(G,)` members that may be chosen; together at least `size`.
        size: places.
        first: `(G,)` members or variance.
    """
    order = np.argsort(-np.asarray(first, np.float64), kind="stable")
    quota = np.full(len(available), size // len(available), np.int64)
    quota[order[: size % len(available)]] += 1
    np.minimum(quota, available, out=quota)
    while (missing := size - int(quota.sum())) > 0:
        open_to_more = order[quota[order] < available[order]]
        quota[open_to_more[:missing]] += 1
    return quota


def _not_outlying(
    scores: Floats, labels: Indices, config: SelectionConfig
) -> npt.NDArray[np.bool_]:
    """Rows that may be chosen: within the quantile of robust distances of their cluster.

    The robust distance is Euclidean around the median, each component in units of its median
    absolute deviation; unlike a robust covariance it is defined for any number of members.
    """
    allowed = np.ones(len(scores), np.bool_)
    if config.max_quantile is None:
        return allowed
    for members in _members(labels, config.clusters):
        apart = scores[members] - np.median(scores[members], axis=0) if len(members) else scores[:0]
        if not apart.any():
            continue
        scale = np.median(np.abs(apart), axis=0)
        scale = np.where(scale > _SAME * np.abs(apart).max(), scale, apart.std(axis=0))
        lengths = _lengths(apart[:, scale > 0] / scale[scale > 0])
        allowed[members] = lengths <= np.quantile(lengths, config.max_quantile)
    if allowed.sum() < config.size:
        raise UserError(
            f"max_quantile: {config.max_quantile:g} leaves {allowed.sum()} of {len(scores)} "
            f"pictures, but {config.size} are to be chosen. Raise the quantile, or choose fewer."
        )
    return allowed


# Distances ----------------------------------------------------------------------------------------


class _Measured(NamedTuple):
    """Distances `(N,)` to the means, total variances `(G,)` of the clusters, notices."""

    distances: Floats
    dispersion: Floats
    notices: tuple[str, ...]


class _Sample(NamedTuple):
    """What a covariance is estimated from.

    Attributes:
        rows: `(n, p)`, means taken off.
        freedom: n less the number of means.
        name: for messages.
    """

    rows: Floats
    freedom: int
    name: str

    @property
    def variance(self) -> float:
        """Total over components."""
        return float(np.vdot(self.rows, self.rows)) / max(1, self.freedom)


def _measured(
    scores: Floats, labels: Indices, centroids: Floats, config: SelectionConfig
) -> _Measured:
    """Distance of every row to the mean of its cluster."""
    everything = _Sample(scores - scores.mean(axis=0), len(scores) - 1, "The whole set")
    negligible = _SAME**2 * everything.variance
    shared = _shared_metric(scores, labels, centroids, everything, config)
    distances, dispersion, tied = np.zeros(len(scores)), np.zeros(config.clusters), []
    for cluster, members in enumerate(_members(labels, config.clusters)):
        name = f"Cluster {cluster} of {config.clusters}"
        own = _Sample(scores[members] - centroids[cluster], len(members) - 1, name)
        dispersion[cluster] = own.variance
        if len(members) < 2 or dispersion[cluster] <= negligible:
            continue  # one point: all distances are 0
        distances[members] = (shared or _metric(own, config))(own.rows)
        if config.covariance == "pinv" and not shared and len(members) <= scores.shape[1] + 1:
            tied.append(cluster)
    return _Measured(distances, dispersion, _tie_notice(tied, config.clusters))


def _tie_notice(tied: list[int], clusters: int) -> tuple[str, ...]:
    if not tied:
        return ()
    names = ", ".join(map(str, tied[:3])) + (f" and {len(tied) - 3} more" if tied[3:] else "")
    return (
        f"All distances are equal in {len(tied)} of {clusters} clusters ({names}): with no more "
        "members than components + 1 the pseudo-inverse cannot tell them apart. Use the covariance "
        "ledoit_wolf, fewer clusters or fewer components.",
    )


class _Metric(NamedTuple):
    """Rows times a matrix, of which the lengths are the distances.

    Attributes:
        upper: Cholesky factor U of the covariance `UᵀU`; None for the identity.
        directions: instead, `(p, rank)` eigenvectors over the roots of their eigenvalues.
    """

    upper: Floats | None = None
    directions: Floats | None = None

    def __call__(self, rows: Floats) -> Floats:
        """Distances `(n,)` of differences `(n, p)`."""
        if self.directions is not None:
            return _lengths(rows @ self.directions)
        if self.upper is None:
            return _lengths(rows)
        solved = scipy.linalg.solve_triangular(self.upper, rows.T, trans="T", check_finite=False)
        return _lengths(solved.T)


def _shared_metric(
    scores: Floats, labels: Indices, centroids: Floats, everything: _Sample, config: SelectionConfig
) -> _Metric | None:
    """The metric that all clusters have in common, if they have."""
    if config.covariance == "euclidean":
        return _Metric()
    if config.covariance_scope == "cluster" and config.covariance != "pooled":
        return None
    if config.covariance_scope != "global":
        freedom = len(scores) - len(np.unique(labels))
        everything = _Sample(scores - centroids[labels], freedom, "All clusters together")
    if not everything.rows.any():
        return _Metric()
    return _metric(everything, config)


def _metric(sample: _Sample, config: SelectionConfig) -> _Metric:
    """The inverse of a covariance, by the estimator of the settings.

    With S the covariance (divisor: degrees of freedom), p components and m = tr(S) / p:
    `ledoit_wolf`, `oas` and `pooled` take (1 - a) S + a m I with their shrinkage a, `ridge` takes
    S + e m I, `empirical` S itself, of which a rank below p may show as rounding noise only.

    Raises:
        SingularCovarianceError: no inverse.
    """
    covariance = sample.rows.T @ sample.rows / max(1, sample.freedom)
    scale = float(np.trace(covariance)) / len(covariance)
    if config.covariance == "pinv":
        values, vectors = np.linalg.eigh(covariance)
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
        return _Metric(directions=vectors[:, kept] / np.sqrt(values[kept]))
    shrinkage = _shrinkage(sample.rows, config)
    if shrinkage is None:
        if config.covariance == "ridge":
            covariance.flat[:: len(covariance) + 1] += config.ridge * scale
        elif sample.freedom < len(covariance):
            raise _singular(sample, config)
        upper = _cholesky(covariance)
        if upper is None:
            raise _singular(sample, config)
        return _Metric(upper)
    upper = _cholesky(_shrunk(covariance, shrinkage))
    if upper is None:  # two members, or all at two points, give Ledoit and Wolf no doubt
        upper = _cholesky(_shrunk(covariance, max(shrinkage, _LEAST_SHRINKAGE)))
    assert upper is not None
    return _Metric(upper)


def _shrinkage(rows: Floats, config: SelectionConfig) -> float | None:
    """Share of the identity; None for estimators without.

    Sources: Ledoit and Wolf, J. Multivariate Analysis 88, 2004; Chen et al., "Shrinkage algorithms
    for MMSE covariance estimation", 2010 (`oas`).
    """
    if config.covariance in ("ledoit_wolf", "pooled"):
        return float(ledoit_wolf_shrinkage(rows, assume_centered=True))
    if config.covariance == "oas":
        return float(oas(rows, assume_centered=True)[1])
    return None


def _shrunk(covariance: Floats, shrinkage: float) -> Floats:
    scale = np.trace(covariance) / len(covariance)
    shrunk: Floats = (1.0 - shrinkage) * covariance
    shrunk.flat[:: len(covariance) + 1] += shrinkage * scale
    return shrunk


def _cholesky(covariance: Floats) -> Floats | None:
    """The upper factor; None where rounding decides about it."""
    try:
        upper = scipy.linalg.cholesky(covariance, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    norm = float(np.abs(covariance).sum(axis=0).max())
    reciprocal, failed = scipy.linalg.lapack.dpocon(upper, norm)
    return None if failed or reciprocal < _SINGULAR else np.asarray(upper, np.float64)


def _singular(sample: _Sample, config: SelectionConfig) -> SingularCovarianceError:
    return SingularCovarianceError(
        f"{sample.name}: the covariance ({config.covariance}) of {len(sample.rows)} members in "
        f"{sample.rows.shape[1]} components has no inverse. It needs more members than components "
        f"in each of {config.clusters} clusters, and members that differ. Take fewer clusters, "
        "fewer components, or another estimator, such as the covariance ledoit_wolf."
    )


def _lengths(rows: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths
