"""Fréchet distance between two sets of features; with Inception features it is the FID.

    d² = |m_r - m_f|² + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^½)

NumPy and SciPy in float64. Heusel et al., arXiv:1706.08500, eq. 6; Dowson and Landau 1982.

The last trace needs no matrix root. With factors A and B such that `C_r = AᵀA` and `C_f = BᵀB`,
the non-zero eigenvalues of `C_r C_f` are the squared singular values of `A Bᵀ`, and the trace is
their sum. The centred features over √(n - 1) are such factors. This holds for sets smaller than
the feature dimension, where root finders take square roots of rounding noise. Sets much larger
than the dimension are read in chunks and leave a factor of their covariance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_CHUNK = 2048  # rows that are float64 at a time
_WHOLE = 4096  # rows that may be float64 at once, or twice the features if that is more
_SMALL = 400  # below this side the singular values cost less than thinking about it
_ALLOWED_ERROR = 2e-8  # bound on the relative error of the distance; see `nuclear_norm`
_EPSILON = float(np.finfo(np.float64).eps)


# Distances ----------------------------------------------------------------------------------------


def frechet_distance(real: Features, fake: Features, *, ddof: int = 1) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features.

    Sets of more than 4096 images and twice the features are read in chunks (memory-mapped arrays
    stay on disk) and cost two matrices of (features, features); smaller ones are copied to
    float64.

    Args:
        real: `(images, features)` of one extractor; 2048 features for Inception-v3 `pool3`.
        fake: `(images, features)` of generated images, from the same extractor.
        ddof: covariances divide by `n - ddof`. 1 everywhere but in StyleGAN2-ADA, which has 0.
    Returns:
        The distance in squared feature units, 0 for equal statistics up to rounding (it may be
        -1e-9); lower is better. It falls with the number of images: report both counts beside it.
    Raises:
        ValueError: fewer than 2 images on a side, unequal dimensions, a feature not finite.
    Source: Heusel et al., arXiv:1706.08500, eq. 6.
    """
    return distance(fit(real, ddof), fit(fake, ddof))


def mean_distance(real: Features, fake: Features) -> float:
    """The first term alone, `|m_r - m_f|²`: cheap enough for training curves.

    Args as `frechet_distance`.
    """
    shift = mean_of(real) - mean_of(fake)
    return float(shift @ shift)


def diagonal_frechet_distance(real: Features, fake: Features) -> float:
    """The distance with all covariances between features taken as 0; for training curves.

        |m_r - m_f|² + sum_k (σ_r,k - σ_f,k)²

    Population variances (division by n), as TF-GAN's `diagonal_only_frechet_classifier_distance`.
    Args as `frechet_distance`.
    """
    means = [mean_of(features) for features in (real, fake)]
    spreads = [
        np.sqrt(
            sum(((chunk - mean) ** 2).sum(axis=0) for chunk in _chunks(features)) / len(features)
        )
        for features, mean in zip((real, fake), means, strict=True)
    ]
    return sum(float(np.sum((first - second) ** 2)) for first, second in (means, spreads))


def split_halves_distance(features: Features, seed: int = 0, *, ddof: int = 1) -> float:
    """The floor: distance between two random halves of one set.

    Generated images as good as the real ones have about this distance, at half the number of
    images; with all images it would be about half of it.

    Raises:
        ValueError: fewer than 4 images.
    """
    if len(features) < 4:
        raise ValueError(f"The floor needs 4 real images, received {len(features)}.")
    order = np.random.default_rng(seed).permutation(len(features))
    half = len(features) // 2
    halves = (np.sort(rows) for rows in (order[:half], order[half : 2 * half]))
    first, second = (fit(features, ddof, rows) for rows in halves)
    return distance(first, second)


class ClassDistance(NamedTuple):
    """The distance within one class, and the numbers of images it was fitted to."""

    value: float
    count_real: int
    count_fake: int


def per_class_distances(
    real: Features,
    real_classes: Sequence[str],
    fake: Features,
    fake_classes: Sequence[str],
    *,
    ddof: int = 1,
) -> dict[str, ClassDistance]:
    """Distances between images of one class, for the classes with 2 images and more on each side.

    Their mean is the intra-FID of Miyato and Koyama, arXiv:1802.05637, section 4.1. It sees a
    generator that mixes up classes, which the distance of the whole sets does not.

    Args:
        real, fake, ddof: as `frechet_distance`.
        real_classes, fake_classes: class name of each image.
    Returns:
        Class name to a distance, at least 0.
    """
    first, second = _rows_by_class(real_classes), _rows_by_class(fake_classes)
    found = {}
    for name in sorted(first.keys() & second.keys()):
        ours, theirs = first[name], second[name]
        if min(len(ours), len(theirs)) >= 2:
            value = distance(fit(real, ddof, ours), fit(fake, ddof, theirs))
            found[name] = ClassDistance(max(value, 0.0), len(ours), len(theirs))
    return found


def _rows_by_class(classes: Sequence[str]) -> dict[str, Rows]:
    names, numbers = np.unique(np.asarray(classes, np.str_), return_inverse=True)
    return {str(name): np.flatnonzero(numbers == i) for i, name in enumerate(names)}


# Gaussians ----------------------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """A mean `(features,)`, and a factor F of shape (rows, features) with `FᵀF` the covariance."""

    mean: Matrix
    factor: Matrix


def distance(first: Gaussian, second: Gaussian, allowed: float = _ALLOWED_ERROR) -> float:
    """Squared Fréchet distance between two Gaussians.

    Args:
        allowed: bound on the relative error by rounding.
    Raises:
        ValueError: of different dimensions.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"Received {len(first.mean)} and {len(second.mean)} features per image. Use one "
            "extractor for both sets."
        )
    shift = first.mean - second.mean
    a, b = first.factor, second.factor
    apart = float(shift @ shift) + float(np.vdot(a, a)) + float(np.vdot(b, b))
    return apart - 2.0 * nuclear_norm(a @ b.T, apart, allowed)


def fit(features: Features, ddof: int = 1, rows: Rows | None = None) -> Gaussian:
    """The Gaussian of a set, or of some rows of it; a factor has at most n - 1 rows.

    Raises:
        ValueError: fewer than 2 images, or a feature not finite.
    """
    count, dimension = len(features) if rows is None else len(rows), features.shape[1]
    if count < 2:
        raise ValueError(f"A distance needs at least 2 images on each side, received {count}.")
    if count > max(2 * dimension, _WHOLE):
        mean = _finite(mean_of(features, rows))
        covariance = scatter(features, mean, rows)
        covariance /= count - ddof
        return Gaussian(mean, covariance_root(covariance))

    values = np.asarray(features if rows is None else features[rows], np.float64)
    mean = _finite(values.mean(axis=0))
    factor = reflected(values)
    factor /= np.sqrt(count - ddof)
    if count - 1 > dimension:
        factor = np.asarray(np.linalg.qr(factor, mode="r"), np.float64)
    return Gaussian(mean, factor)


def from_moments(mean: Matrix, covariance: Matrix) -> Gaussian:
    """The Gaussian of stored statistics.

    Args:
        mean: `(features,)`.
        covariance: `(features, features)`, symmetric. Its roots are cut relative to the largest
            eigenvalue; an absolute cut fails for features of small variance.
    """
    return Gaussian(mean, covariance_root(covariance))


def mean_and_covariance(features: Features) -> tuple[Matrix, Matrix]:
    """Mean (features,) and covariance (features, features; n - 1): `mu` and `sigma` of TTUR."""
    mean = mean_of(features)
    return mean, scatter(features, mean) / (len(features) - 1)


def _finite(mean: Matrix) -> Matrix:
    if not np.isfinite(mean).all():
        raise ValueError("Features are not finite. Check the images and the feature network.")
    return mean


# Moments, a few rows at a time --------------------------------------------------------------------


def mean_of(features: Features, rows: Rows | None = None) -> Matrix:
    """`(features,)`, of all images or some."""
    total = np.zeros(features.shape[1])
    for chunk in _chunks(features, rows):
        total += chunk.sum(axis=0)
    return total / (len(features) if rows is None else len(rows))


def scatter(features: Features, mean: Matrix, rows: Rows | None = None) -> Matrix:
    """Sum of `(x - mean)(x - mean)ᵀ`, `(features, features)`."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for _, chunk in centred_chunks(features, mean, rows):
        total += chunk.T @ chunk
    return total


def centred_chunks(
    features: Features, mean: Matrix, rows: Rows | None = None
) -> Iterator[tuple[int, Matrix]]:
    """First row and `x - mean`, in float64."""
    start = 0
    for chunk in _chunks(features, rows):
        chunk -= mean
        yield start, chunk
        start += len(chunk)


def _chunks(features: Features, rows: Rows | None = None) -> Iterator[Matrix]:
    """Copies in float64, a few rows each."""
    for start in range(0, len(features) if rows is None else len(rows), _CHUNK):
        chosen = slice(start, start + _CHUNK)
        yield np.array(features[chosen if rows is None else rows[chosen]], np.float64)


# Factors and their products -----------------------------------------------------------------------


def reflected(values: Matrix) -> Matrix:
    """The rows centred, and one fewer, with the same product `VᵀV`.

    Centred rows add up to zero, so one singular value of `A Bᵀ` is zero but for rounding. A
    reflection that sends (1, ..., 1) to the first axis turns that row into zeros exactly; it
    leaves row i as `x_i - x_0 / (√n + 1)` and is left out.
    """
    centred = values - values.mean(axis=0)  # before any product: means may be large
    shorter: Matrix = centred[1:]
    shorter -= centred[0] / (np.sqrt(len(values)) + 1.0)
    return shorter


def covariance_root(covariance: Matrix) -> Matrix:
    """F of shape (rank, features) with `FᵀF` the covariance; rounding noise is no rank.

    Cholesky's factor takes a tenth of the time of eigenvectors and is as good where the matrix is
    far from singular; near it, it would take roots of noise.
    """
    norm = float(np.abs(covariance).sum(axis=0).max())
    try:
        upper = scipy.linalg.cholesky(covariance, check_finite=False)
        reciprocal, failed = scipy.linalg.lapack.dpocon(upper, norm)
        if not failed and reciprocal > 1e-10:
            return np.asarray(upper, np.float64)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-13 * max(values[-1], 0.0)
    root: Matrix = (vectors[:, kept] * np.sqrt(values[kept])).T
    return root


def nuclear_norm(matrix: Matrix, apart: float, allowed: float) -> float:
    """Sum of singular values, precise enough for the distance `apart - 2 * sum`.

    Square roots of the eigenvalues of `M Mᵀ` are three times as fast as singular values and as
    good while the small ones stand clear of rounding noise. An eigenvalue λ is off by at most
    about ε λ_max (LAPACK Users' Guide, section 4.7), its root by that over `√λ + √(λ + ε λ_max)`.
    The sum of these errors decides. In 330 trials (steep, flat, heavy-tailed, nested and localized
    spectra, sets with copies) the true error was at most 0.4 of it, and mostly a thousandth.
    """
    if min(matrix.shape) < _SMALL:
        return float(np.linalg.svd(matrix, compute_uv=False).sum())

    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    eigenvalues = np.maximum(np.linalg.eigvalsh(gram), 0.0)
    noise = _EPSILON * eigenvalues[-1]
    roots = np.sqrt(eigenvalues)
    total = float(roots.sum())
    error = noise * float(np.sum(1.0 / (roots + np.sqrt(eigenvalues + noise)))) if noise else 0.0

    if 2.0 * error <= allowed * abs(apart - 2.0 * total):
        return total
    return float(np.linalg.svd(matrix, compute_uv=False).sum())
