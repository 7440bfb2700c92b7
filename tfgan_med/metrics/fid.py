"""Fréchet distance between two sets of image features; with Inception features it is the FID.

    d² = |m_r - m_f|² + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^½)

Pure NumPy in float64. Heusel et al., arXiv:1706.08500, eq. 6; Dowson and Landau 1982.

The last trace needs no matrix root. With A and B the centred features over √(n - 1), so that
`C_r = AᵀA` and `C_f = BᵀB`, the non-zero eigenvalues of `C_r C_f` are the squared singular values
of `A Bᵀ`, and the trace is their sum. This holds for sets smaller than the feature dimension,
where root finders take square roots of rounding noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Matrix = npt.NDArray[np.float64]

_SMALL = 400  # below this side the singular values cost less than thinking about it
_ALLOWED_ERROR = 2e-8  # bound on the relative error of the distance; see `_nuclear_norm`
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


def mean_and_covariance(features: Features) -> tuple[Matrix, Matrix]:
    """`mu` (features,) and `sigma` (features, features; n - 1), as TTUR's `.npz` files hold them."""
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
    factor = centred[1:] - centred[0] / (np.sqrt(n) + 1.0)
    factor /= np.sqrt(n - ddof)
    return np.linalg.qr(factor, mode="r") if n - 1 > features.shape[1] else factor


def _nuclear_norm(matrix: Matrix, apart: float) -> float:
    """Sum of singular values, to 1e-9 of the distance `apart - 2 * sum` that it is meant for.

    Square roots of the eigenvalues of `M Mᵀ` are three times as fast as singular values and as
    good while the small ones stand clear of rounding noise. An eigenvalue λ is off by at most
    about ε λ_max (LAPACK Users' Guide, section 4.7), its root by that over `√λ + √(λ + ε λ_max)`.
    The sum of these errors decides; in trials it was 10 to 1000 times the true error.
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
            f"The {whose} features have shape {values.shape}; a matrix (images, features) is needed."
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
