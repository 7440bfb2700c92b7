"""Fréchet distance between two sets of image features; with Inception features it is the FID.

    d² = |m_r - m_f|² + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^½)

Pure NumPy in float64. Heusel et al., arXiv:1706.08500, eq. 6; Dowson and Landau 1982.

The last trace needs no matrix root. With A and B the centred features over √(n - 1), so that
`C_r = AᵀA` and `C_f = BᵀB`, the non-zero eigenvalues of `C_r C_f` are the squared singular values
of `A Bᵀ`, and the trace is their sum. This holds for sets smaller than the feature dimension,
where root finders take square roots of rounding noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from tfgan_med.metrics.base import Interval

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Matrix = npt.NDArray[np.float64]

_SMALL = 400  # below this side the singular values cost less than thinking about it
_ALLOWED_ERROR = 2e-8  # bound on the relative error of the distance; see `_nuclear_norm`
_FEWEST_RESAMPLED = 10
_EPSILON = float(np.finfo(np.float64).eps)


def frechet_distance(real: Features, fake: Features, *, ddof: int = 1) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features.

    Memory stays within a few copies of the feature matrices; no covariance is formed.

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
    real, fake = _checked(real, "real"), _checked(fake, "generated")
    _require_same_dimension(real.shape[1], fake.shape[1])

    shift = real.mean(axis=0) - fake.mean(axis=0)
    a, b = _factor(real, ddof), _factor(fake, ddof)
    apart = float(shift @ shift) + float(np.vdot(a, a)) + float(np.vdot(b, b))
    return apart - 2.0 * _nuclear_norm(a @ b.T, apart)


def frechet_distance_from_statistics(
    real_mean: Matrix, real_covariance: Matrix, fake_mean: Matrix, fake_covariance: Matrix
) -> float:
    """Squared Fréchet distance between two Gaussians, from stored statistics.

    Args:
        real_mean: `(features,)`.
        real_covariance: `(features, features)`, the unbiased estimate (n - 1).
        fake_mean, fake_covariance: the same for generated images.
    Returns:
        The distance in squared feature units, as `frechet_distance`.
    Raises:
        ValueError: shapes that disagree, a number not finite, a covariance not symmetric.
    Source: Heusel et al., arXiv:1706.08500, eq. 6; the roots are cut relative to the largest
        eigenvalue, an absolute cut fails for features of small variance.
    """
    real_mean, real_covariance = _checked_statistics(real_mean, real_covariance, "real")
    fake_mean, fake_covariance = _checked_statistics(fake_mean, fake_covariance, "generated")
    _require_same_dimension(len(real_mean), len(fake_mean))

    shift = real_mean - fake_mean
    product = _covariance_root(real_covariance).T @ _covariance_root(fake_covariance)
    apart = float(shift @ shift) + float(np.trace(real_covariance) + np.trace(fake_covariance))
    return apart - 2.0 * float(np.linalg.svd(product, compute_uv=False).sum())


def mean_distance(real: Features, fake: Features) -> float:
    """The first term alone, `|m_r - m_f|²`: cheap enough for training curves.

    Args and errors as `frechet_distance`.
    """
    real, fake = _checked(real, "real"), _checked(fake, "generated")
    _require_same_dimension(real.shape[1], fake.shape[1])
    shift = real.mean(axis=0) - fake.mean(axis=0)
    return float(shift @ shift)


def diagonal_frechet_distance(real: Features, fake: Features) -> float:
    """The distance with all covariances between features taken as 0; for training curves.

        |m_r - m_f|² + sum_k (σ_r,k - σ_f,k)²

    Population variances (division by n), as TF-GAN's `diagonal_only_frechet_classifier_distance`.
    Args and errors as `frechet_distance`.
    """
    real, fake = _checked(real, "real"), _checked(fake, "generated")
    spread = real.std(axis=0) - fake.std(axis=0)
    return mean_distance(real, fake) + float(spread @ spread)


def bootstrap(
    real: Features,
    fake: Features,
    repeats: int = 100,
    seed: int = 0,
    *,
    ddof: int = 1,
    level: float = 0.95,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Interval:
    """Interval for the distance that is expected at these numbers of images.

    It says how much the value would change with other images of the same kinds, as many as here.
    It does not cover the distance at infinitely many images: the bias of small sets stays.

    Drawing with replacement, the usual bootstrap, fails for this distance: copies lower the rank
    of a sample and raise the distance as if the set were smaller. In a simulation (rectified
    Gaussian and heavy-tailed features, 40 to 150 images, 16 to 400 features, equal and shifted
    sets; benchmarks/fid_interval.py) its percentile interval covered the target in 0 to 71 of 100
    repetitions, reflected at the value in 0 to 64, the less the more features. Instead a fifth of
    the images is left out on both sides, without replacement, and the spread is scaled to the
    whole set (delete-d jackknife, Shao and Wu 1989: factor kept / left out). A normal interval of
    this spread around the value covered the target in 91 to 100 of 100: least with heavy tails
    and 60 images, and up to 1.6 times too wide for equal sets. Images that belong together
    (several of a patient) make it too narrow.

    Args:
        real, fake: as `frechet_distance`, at least 10 images each.
        repeats: subsets drawn, at least 20; the width has a relative error of about
            `1 / sqrt(2 * repeats)`.
        seed: of the subsets.
        level: share of repetitions that should cover the target.
        progress: called with the subsets done and all.
    Raises:
        ValueError: too few images or repeats.
    """
    real, fake = _checked(real, "real"), _checked(fake, "generated")
    if min(len(real), len(fake)) < _FEWEST_RESAMPLED or repeats < 20:
        raise ValueError(
            f"An interval needs {_FEWEST_RESAMPLED} images on each side and 20 repeats: received "
            f"{len(real)} real, {len(fake)} generated images and {repeats} repeats."
        )
    generator = np.random.default_rng(seed)
    values = np.empty(repeats)
    for i in range(repeats):
        subsets = (_without_a_fifth(features, generator) for features in (real, fake))
        values[i] = frechet_distance(*subsets, ddof=ddof)
        progress(i + 1, repeats)

    factor = max(_kept(n) / (n - _kept(n)) for n in (len(real), len(fake)))
    spread = float(np.sqrt(factor) * values.std(ddof=1)) * float(norm.ppf(0.5 + level / 2))
    value = frechet_distance(real, fake, ddof=ddof)
    return Interval(
        low=max(value - spread, 0.0),
        high=max(value + spread, 0.0),
        level=level,
        method="delete-a-fifth jackknife, normal; for the expected value at these counts",
        repeats=repeats,
    )


def _kept(count: int) -> int:
    return count - max(1, count // 5)


def _without_a_fifth(features: Matrix, generator: np.random.Generator) -> Matrix:
    chosen = generator.permutation(len(features))[: _kept(len(features))]
    return features[chosen]


def split_halves_distance(features: Features, seed: int = 0, *, ddof: int = 1) -> float:
    """The floor: distance between two random halves of one set.

    Generated images as good as the real ones have about this distance, at half the number of
    images; with all images it would be about half of it.

    Raises:
        ValueError: fewer than 4 images.
    """
    values = _checked(features, "real")
    if len(values) < 4:
        raise ValueError(f"The floor needs 4 real images, received {len(values)}.")
    order = np.random.default_rng(seed).permutation(len(values))
    half = len(values) // 2
    return frechet_distance(values[order[:half]], values[order[half : 2 * half]], ddof=ddof)


def mean_and_covariance(features: Features) -> tuple[Matrix, Matrix]:
    """Mean (features,) and covariance (features, features; n - 1): `mu` and `sigma` of TTUR."""
    values = _checked(features, "given")
    mean = values.mean(axis=0)
    centred = values - mean
    return mean, centred.T @ centred / (len(values) - 1)


def _factor(features: Matrix, ddof: int) -> Matrix:
    """A matrix F with `FᵀF` the covariance and at most as many rows as features or images - 1.

    Centred rows add up to zero, so one singular value of `A Bᵀ` is zero but for rounding. A
    reflection that sends (1, ..., 1) to the first axis turns that row into zeros exactly; it
    leaves row i as `x_i - x_0 / (√n + 1)` and is left out.
    """
    n = len(features)
    centred = features - features.mean(axis=0)  # before any product: means may be large
    factor: Matrix = centred[1:] - centred[0] / (np.sqrt(n) + 1.0)
    factor /= np.sqrt(n - ddof)
    if n - 1 > features.shape[1]:
        factor = np.asarray(np.linalg.qr(factor, mode="r"), np.float64)
    return factor


def _nuclear_norm(matrix: Matrix, apart: float) -> float:
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

    if 2.0 * error <= _ALLOWED_ERROR * abs(apart - 2.0 * total):
        return total
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _covariance_root(covariance: Matrix) -> Matrix:
    """`C` of shape (features, rank) with `C Cᵀ` the covariance; rounding noise is no rank."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-13 * max(values[-1], 0.0)
    root: Matrix = vectors[:, kept] * np.sqrt(values[kept])
    return root


def _checked(features: Features, whose: str) -> Matrix:
    values = np.asarray(features, np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"The {whose} features have shape {values.shape}; expected (images, features)."
        )
    if len(values) < 2:
        raise ValueError(
            f"The {whose} set has {len(values)} image(s); a Fréchet distance needs at least 2 "
            "on each side. Add images."
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ValueError(
            f"The {whose} features of {len(bad)} of {len(values)} images are not finite, first in "
            f"row {bad[0]}. Check these images and the feature network."
        )
    return values


def _checked_statistics(mean: Matrix, covariance: Matrix, whose: str) -> tuple[Matrix, Matrix]:
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"The {whose} statistics have a mean of shape {mean.shape} and a covariance of shape "
            f"{covariance.shape}; (d,) and (d, d) are needed."
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"The {whose} statistics contain numbers that are not finite.")
    if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.trace(covariance)):
        raise ValueError(f"The {whose} covariance is not symmetric.")
    return mean, (covariance + covariance.T) / 2.0


def _require_same_dimension(real: int, fake: int) -> None:
    if real != fake:
        raise ValueError(
            "Real and generated images need features of the same extractor: received "
            f"{real} and {fake} features per image. Use one `--features` for both."
        )
