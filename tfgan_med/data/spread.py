"""How much of a set a few chosen pictures span.

No single number is "spread": choosing the outermost pictures makes the variance large, choosing one
from every region makes the coverage radius small. All measures are taken on the same scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist, pdist
from sklearn.covariance import ledoit_wolf

from tfgan_med.errors import UserError
from tfgan_med.ops import neighbors

Floats = npt.NDArray[np.float64]

_SAMPLE = 2000  # pictures that stand for the whole set where pairs are averaged


def spread(chosen: Floats, everything: Floats, seed: int = 0) -> dict[str, float]:
    """Measures of spread.

    - `variance_ratio`: total variance of the chosen over that of all; 1 for a fair sample.
    - `pairwise_distance`: mean distance of two of the chosen over that of two of all.
    - `nearest_distance`: mean distance of the chosen to the nearest other one, in units of scores.
    - `coverage_radius`: largest distance of any picture to the nearest chosen one.
    - `mean_coverage_radius`: the same distance, averaged over all pictures.
    - `log_det`: logarithm of the determinant of the chosen's Ledoit-Wolf covariance.
    - `energy_distance`: `2 E|X - Y| - E|X - X'| - E|Y - Y'|` of chosen X and all Y (Székely and
      Rizzo 2013), pairs of one picture with itself included: never negative, 0 for the whole set,
      and about E|Y - Y'| / k for k drawn at random.
    - `hull_ratio`: area of the convex hull over that of all, in the first two components.

    Args:
        chosen: `(k, p)` scores of the chosen pictures.
        everything: `(N, p)` scores of all, the chosen among them.
        seed: of the 2000 pictures that stand for all where pairs are averaged.
    Returns:
        Finite numbers; a measure that is not defined (one picture, no variance) is left out.
    Raises:
        UserError: no pictures, unequal numbers of components, scores not finite.
    """
    chosen, everything = _scores(chosen), _scores(everything)
    if chosen.shape[1] != everything.shape[1]:
        raise UserError(
            f"Chosen and all pictures have {chosen.shape[1]} and {everything.shape[1]} components. "
            "Take both scores from one analysis."
        )
    radii = neighbors.nearest(everything, chosen, 1)[0][:, 0]
    measures = {
        "variance_ratio": _ratio(_total_variance(chosen), _total_variance(everything)),
        **_pairs(_sample(chosen, seed), _sample(everything, seed)),
        "coverage_radius": float(radii.max()),
        "mean_coverage_radius": float(radii.mean()),
        "hull_ratio": _ratio(_hull_area(chosen), _hull_area(everything)),
    }
    if len(chosen) > 1:
        nearest = neighbors.nearest(chosen, chosen, 1, exclude_self=True)[0]
        measures["nearest_distance"] = float(nearest.mean())
        measures["log_det"] = _log_det(chosen)
    return {name: value for name, value in measures.items() if np.isfinite(value)}


def _scores(values: Floats) -> Floats:
    scores = np.ascontiguousarray(values, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise UserError(f"Expected scores of (pictures, components), received {scores.shape}.")
    if not np.isfinite(scores).all():
        raise UserError("Scores hold numbers that are not finite. Check the pictures and features.")
    return scores


def _sample(scores: Floats, seed: int) -> Floats:
    if len(scores) <= _SAMPLE:
        return scores
    rows = np.random.default_rng(seed).choice(len(scores), _SAMPLE, replace=False)
    return scores[np.sort(rows)]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else np.nan


def _total_variance(scores: Floats) -> float:
    return float(scores.var(axis=0, ddof=1).sum()) if len(scores) > 1 else np.nan


def _pairs(chosen: Floats, everything: Floats) -> dict[str, float]:
    """What follows from distances of pairs."""
    within, all_pairs = pdist(chosen), pdist(everything)
    measures = {
        "energy_distance": 2.0 * float(cdist(chosen, everything).mean())
        - 2.0 * float(within.sum()) / len(chosen) ** 2
        - 2.0 * float(all_pairs.sum()) / len(everything) ** 2
    }
    measures["energy_distance"] = max(0.0, measures["energy_distance"])
    if len(within) and len(all_pairs):
        measures["pairwise_distance"] = _ratio(float(within.mean()), float(all_pairs.mean()))
    return measures


def _log_det(scores: Floats) -> float:
    sign, logarithm = np.linalg.slogdet(ledoit_wolf(scores)[0])
    return float(logarithm) if sign > 0 else np.nan


def _hull_area(scores: Floats) -> float:
    """In the first two components; 0 for points on a line."""
    if scores.shape[1] < 2 or len(scores) < 3:
        return 0.0
    try:
        return float(ConvexHull(scores[:, :2]).volume)
    except QhullError:
        return 0.0
