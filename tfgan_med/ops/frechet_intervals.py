"""How sure a Fréchet distance is: an interval for it, and its value at infinitely many images.

Both compute the distance again and again for parts of the sets, without replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from tfgan_med.ops.frechet import (
    Features,
    Gaussian,
    Matrix,
    Rows,
    centred_chunks,
    covariance_root,
    distance,
    fit,
    mean_of,
    nuclear_norm,
    reflected,
    scatter,
)

Progress = Callable[[int, int], None]  # distances done, distances in all

FEWEST_REPEATS = 20
FEWEST_RESAMPLED = 10
"""Images on each side that an interval needs."""
FEWEST_EXTRAPOLATED = 1500
"""Generated images that an extrapolation needs."""

_ALLOWED_ERROR = 1e-6  # of the distances of parts, which differ by a hundredth and more
_CROSS_PRODUCTS = 2**24  # pairs of images whose products are kept
_RESAMPLING_WORK = 2e11  # repeats times the third power of the side of the matrices: a minute


class Span(NamedTuple):
    """A range for a distance; both ends are at least 0."""

    low: float
    high: float


# Intervals ----------------------------------------------------------------------------------------


class Resampled:
    """One side of which a fifth is left out, again and again.

    Args:
        features: `(images, features)`.
        groups: patient or part of each image; images of one are left out together.
    """

    def __init__(self, features: Features, groups: Sequence[str] | None = None) -> None:
        self.features = features
        self.left = max(1, len(features) // 5)
        self._groups = None
        if groups is not None:
            self._groups = np.unique(np.asarray(groups, np.str_), return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.features)

    def draw(self, generator: np.random.Generator) -> Rows:
        """The rows to leave out, ascending; groups one after the other, the last one in part.

        Their number is always the same, since the distance depends on it.
        """
        order = generator.permutation(len(self))
        if self._groups is not None:
            place = generator.permutation(self._groups.max() + 1)[self._groups]
            order = order[np.argsort(place[order], kind="stable")]
        return np.sort(order[: self.left])


def jackknife(
    value: float,
    real: Resampled | Gaussian,
    fake: Resampled,
    repeats: int = 100,
    seed: int = 0,
    *,
    ddof: int = 1,
    level: float = 0.95,
    progress: Progress = lambda done, total: None,
) -> Span:
    """Interval for the distance that is expected at these numbers of images.

    It says how much the value would change with other images of the same kinds, as many as here.
    It does not cover the distance at infinitely many images: the bias of small sets stays.

    Drawing with replacement, the usual bootstrap, fails for this distance: copies lower the rank
    of a sample and raise the distance as if the set were smaller. In a simulation (rectified
    Gaussian and heavy-tailed features, 40 to 150 images, 16 to 400 features, equal and shifted
    sets; benchmarks/fid_interval.py) its percentile interval covered the target in 0 to 71 of 100
    repetitions, reflected at the value in 0 to 64, the less the more features. Instead a fifth of
    the images is left out on both sides, without replacement, and the spread is scaled to the
    whole set (delete-d jackknife, Shao and Wu 1989: factor kept / left out). An interval of this
    spread around the value covered the target in 91 to 100 of 100: least with heavy tails and 60
    images, and up to 1.6 times too wide for equal sets. Images that belong together (several of
    a patient) make it too narrow unless they are named as groups, which leave together.

    Args:
        value: the distance of the whole sets.
        real: a Gaussian is taken as given; the interval then covers the other side alone.
        fake: at least 10 images, as `real`.
        repeats: subsets drawn, at least 20; the width has a relative error of about
            `1 / sqrt(2 * repeats)`, for which Student's quantile allows.
        seed: of the subsets.
        ddof: as `frechet.frechet_distance`.
        level: share of repetitions that should cover the target.
        progress: called with the subsets done and all.
    Raises:
        ValueError: too few images or repeats.
    """
    sides = [side for side in (real, fake) if isinstance(side, Resampled)]
    if min(map(len, sides)) < FEWEST_RESAMPLED or repeats < FEWEST_REPEATS:
        counts = " and ".join(str(len(side)) for side in sides)
        raise ValueError(
            f"An interval needs {FEWEST_RESAMPLED} images on each side and {FEWEST_REPEATS} "
            f"repeats: received {counts} images and {repeats} repeats."
        )
    generator = np.random.default_rng(seed)
    drawn = [[side.draw(generator) for side in sides] for _ in range(repeats)]
    if isinstance(real, Resampled) and _products_pay(real, fake):
        distances = distances_by_products(real, fake, drawn, ddof)
    else:
        distances = distances_by_fits(real, fake, drawn, ddof)
    values = np.empty(repeats)
    for i, found in enumerate(distances):
        values[i] = found
        progress(i + 1, repeats)

    factor = max((len(side) - side.left) / side.left for side in sides)
    quantile = float(student.ppf(0.5 + level / 2, repeats - 1))
    half = float(np.sqrt(factor) * values.std(ddof=1)) * quantile
    return Span(max(value - half, 0.0), max(value + half, 0.0))


def affordable(repeats: int, *sizes: int) -> int:
    """Repeats that take about a minute, at least the fewest; `sizes` are images and features."""
    return max(FEWEST_REPEATS, min(repeats, int(_RESAMPLING_WORK / min(sizes) ** 3)))


def _products_pay(real: Resampled, fake: Resampled) -> bool:
    """Whether products of all images of one side with all of the other are few enough to keep."""
    few = min(len(real), len(fake)) <= 1.5 * real.features.shape[1]
    return few and len(real) * len(fake) <= _CROSS_PRODUCTS


def distances_by_products(
    real: Resampled, fake: Resampled, drawn: Sequence[Sequence[Rows]], ddof: int
) -> Iterator[float]:
    """Distances of subsets from `X Yᵀ` of the centred features, computed once.

    `A Bᵀ` of two subsets are its rows and columns, centred again. Sums over a subset are those
    over what is left out with the opposite sign, since centred features add up to zero.

    Args:
        drawn: rows to leave out on both sides, for each distance.
    """
    x_mean, y_mean = mean_of(real.features), mean_of(fake.features)
    products = np.empty((len(real), len(fake)))
    for start, y in centred_chunks(fake.features, y_mean):
        for row, x in centred_chunks(real.features, x_mean):
            products[row : row + len(x), start : start + len(y)] = x @ y.T
    x_shifts, x_traces = _subset_moments(real, [rows for rows, _ in drawn], x_mean, ddof)
    y_shifts, y_traces = _subset_moments(fake, [rows for _, rows in drawn], y_mean, ddof)

    for i, (x_left, y_left) in enumerate(drawn):
        kept = np.delete(np.delete(products, x_left, axis=0), y_left, axis=1)
        divisor = np.sqrt(float(kept.shape[0] - ddof) * float(kept.shape[1] - ddof))
        cross = reflected(reflected(kept).T) / divisor
        shift = x_mean + x_shifts[i] - y_mean - y_shifts[i]
        apart = float(shift @ shift + x_traces[i] + y_traces[i])
        yield apart - 2.0 * nuclear_norm(cross, apart, _ALLOWED_ERROR)


def _subset_moments(
    side: Resampled, left: Sequence[Rows], mean: Matrix, ddof: int
) -> tuple[Matrix, Matrix]:
    """How far the mean moves, (repeats, features), and the trace of the covariance, (repeats,)."""
    out = np.zeros((len(left), len(side)))
    for i, rows in enumerate(left):
        out[i, rows] = 1.0
    sums = np.zeros((len(left), side.features.shape[1]))
    squares = np.empty(len(side))
    for start, chunk in centred_chunks(side.features, mean):
        sums += out[:, start : start + len(chunk)] @ chunk
        squares[start : start + len(chunk)] = np.einsum("ij,ij->i", chunk, chunk)
    kept = len(side) - side.left
    shifts = -sums / kept
    traces = squares.sum() - out @ squares - kept * np.einsum("ij,ij->i", shifts, shifts)
    return shifts, traces / (kept - ddof)


def distances_by_fits(
    real: Resampled | Gaussian, fake: Resampled, drawn: Sequence[Sequence[Rows]], ddof: int
) -> Iterator[float]:
    """Distances of subsets, each fitted for itself; `drawn` as `distances_by_products`."""
    of_real, of_fake = _refitting(real, ddof), _refitting(fake, ddof)
    for rows in drawn:
        yield distance(of_real(rows[0]), of_fake(rows[-1]), _ALLOWED_ERROR)


def _refitting(side: Resampled | Gaussian, ddof: int) -> Callable[[Rows], Gaussian]:
    """The Gaussian of a side without some rows; large sides subtract what these rows added."""
    if isinstance(side, Gaussian):
        return lambda left: side
    features, count = side.features, len(side)
    if count <= 1.5 * features.shape[1]:
        return lambda left: fit(features, ddof, np.delete(np.arange(count), left))
    mean = mean_of(features)
    whole = scatter(features, mean)

    def without(left: Rows) -> Gaussian:
        kept = count - len(left)
        shift = -(mean_of(features, left) - mean) * (len(left) / kept)
        covariance = whole - scatter(features, mean, left)
        covariance -= kept * np.outer(shift, shift)
        covariance /= kept - ddof
        return Gaussian(mean + shift, covariance_root(covariance))

    return without


# Infinitely many images ---------------------------------------------------------------------------


class Extrapolation(NamedTuple):
    """The distance at infinitely many generated images.

    Attributes:
        value: intercept of the line through the distances over 1/n; it may be below 0.
        standard_error: of the intercept over other generated sets of this size.
        sizes: numbers of generated images, and
        values: distances there.
    """

    value: float
    standard_error: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]

    def interval(self, level: float = 0.95) -> Span:
        """Student's interval around the intercept."""
        freedom = len(self.sizes) - 2
        half = float(student.ppf(0.5 + level / 2, freedom)) * self.standard_error
        return Span(max(self.value - half, 0.0), max(self.value + half, 0.0))


def require_extrapolable(count: int) -> None:
    """Enough generated images to extrapolate.

    Raises:
        ValueError: otherwise.
    """
    if count < FEWEST_EXTRAPOLATED:
        raise ValueError(
            f"{count} generated images: the distance at infinitely many images needs "
            f"{FEWEST_EXTRAPOLATED}, for below 500 it does not fall as 1/n. Generate more, or use "
            "kid, which has no such bias."
        )


def extrapolate(
    real: Gaussian,
    fake: Features,
    seed: int = 0,
    *,
    ddof: int = 1,
    progress: Progress = lambda done, total: None,
) -> Extrapolation:
    """Distance that infinitely many generated images would have from a real set.

    Distances of 15 subsets of the generated images, of `max(500, n / 10)` to n images without
    replacement, are fitted by a line in 1/n (least squares). The bias of the real side stays.

    The usual standard error of a fit would be too small, since subsets of one set share its
    luck. To first order a subset of k images deviates from the set's line with variance
    `σ² (1/k - 1/n)`, and the set from the population's with `σ² / n`; the scatter of the subsets
    gives σ, and both parts add up. In a simulation (2000 generated images, 16 and 64 features,
    Gaussian and heavy-tailed, equal and other sets; 60 to 80 repetitions each) the 95 % interval
    covered the limit in 90 to 97 of 100.

    Args:
        real: the Gaussian of the real set.
        fake: `(images, features)`, at least 1500 images.
        seed: of the subsets.
        ddof: as `frechet.frechet_distance`.
        progress: called with the subsets done and all.
    Raises:
        ValueError: too few images.
    Source: Chong and Forsyth, arXiv:1911.07023, section 4; sizes as in mchong6/FID_IS_infinity.
    """
    count = len(fake)
    require_extrapolable(count)
    generator = np.random.default_rng(seed)
    sizes = np.linspace(max(500, count // 10), count, 15).round().astype(np.int64)
    values = np.empty(len(sizes))
    for i, size in enumerate(sizes):
        rows = np.sort(generator.permutation(count)[:size])
        values[i] = distance(real, fit(fake, ddof, rows))
        progress(i + 1, len(sizes))

    design = np.stack([np.ones(len(sizes)), 1.0 / sizes], axis=1)
    solve = np.linalg.pinv(design)
    residuals = values - design @ (solve @ values)
    within = 1.0 / sizes - 1.0 / count
    free = float(np.sum((1.0 - np.diag(design @ solve)) * within))
    variance = float(residuals @ residuals) / free
    error = np.sqrt(variance * (float(solve[0] ** 2 @ within) + 1.0 / count))
    return Extrapolation(
        float(solve[0] @ values), float(error), tuple(sizes.tolist()), tuple(values.tolist())
    )
