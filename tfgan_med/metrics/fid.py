"""Fréchet distance between two sets of image features; with Inception features it is the FID.

    d² = |m_r - m_f|² + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^½)

NumPy and SciPy in float64. Heusel et al., arXiv:1706.08500, eq. 6; Dowson and Landau 1982.

The last trace needs no matrix root. With factors A and B such that `C_r = AᵀA` and `C_f = BᵀB`,
the non-zero eigenvalues of `C_r C_f` are the squared singular values of `A Bᵀ`, and the trace is
their sum. The centred features over √(n - 1) are such factors. This holds for sets smaller than
the feature dimension, where root finders take square roots of rounding noise. Sets much larger
than the dimension are read in chunks and leave a factor of their covariance.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import scipy.linalg
from pydantic import Field
from scipy.stats import t as student

from tfgan_med import files
from tfgan_med.errors import DataError, UserError
from tfgan_med.metrics.base import (
    Context,
    Interval,
    Measured,
    Metric,
    Need,
    Side,
    checked_features,
    require,
    require_same_dimension,
)

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Count = Callable[[int, int], None]  # items done, items in all

_CHUNK = 2048  # rows that are float64 at a time
_WHOLE = 4096  # rows that may be float64 at once, or twice the features if that is more
_SMALL = 400  # below this side the singular values cost less than thinking about it
_ALLOWED_ERROR = 2e-8  # bound on the relative error of the distance; see `_nuclear_norm`
_ALLOWED_IN_RESAMPLES = 1e-6  # they differ by a hundredth and more
_CROSS_PRODUCTS = 2**24  # pairs of images whose products are kept
_RESAMPLING_WORK = 2e11  # repeats times the third power of the side of the matrices: a minute
_FEWEST_REPEATS = 20
_FEWEST_RESAMPLED = 10
_FEWEST_EXTRAPOLATED = 1500
_EPSILON = float(np.finfo(np.float64).eps)


class FID(Metric):
    """Fréchet distance between real and generated features (FID).

    Heusel et al., arXiv:1706.08500. It falls with the number of images; KID does not.
    """

    ddof: Literal[0, 1] = 1
    """Covariances divide by n - ddof; 0 reproduces StyleGAN2-ADA."""

    variants: bool = False
    """Also the distance of the means alone, and without covariances between features."""

    per_class: bool = False
    """Also the mean over the classes that both sets have (intra-FID)."""

    infinity: bool | Literal["auto"] = "auto"
    """Also extrapolate to infinitely many generated images; needs 1500. `auto`: with intervals."""

    floor: bool = True
    """Also measure two halves of the real set, to read the value by."""

    repeats: int = Field(default=100, ge=_FEWEST_REPEATS)
    """Subsets for the interval; fewer, at least 20, where each costs seconds."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """`fid`, and by settings `fid_mean`, `fid_diagonal`, `fid_per_class`, `fid_infinity`."""
        x = checked_features(require(real.features, "features"), "real")
        y = checked_features(require(fake.features, "features"), "generated")
        require_same_dimension(x.shape[1], y.shape[1])
        self._require_enough(len(y))

        first, second = _fit(x, self.ddof), _fit(y, self.ddof)
        value = _distance(first, second)
        interval, missing = self._interval(value, real, fake, context)
        floor = self._floor(x, len(y), context)
        measured = [
            Measured(
                "fid",
                _shown(value),
                interval=interval,
                settings=self._settings(),
                notes=(*_count_notes(len(x), len(y), x.shape[1]), *missing),
                **floor,
            )
        ]
        if self.variants:
            measured += [
                Measured("fid_mean", mean_distance(x, y)),
                Measured("fid_diagonal", diagonal_frechet_distance(x, y), settings={"ddof": 0}),
            ]
        if self.per_class:
            measured.append(self._per_class(real, fake))
        if self._extrapolates(len(y), context):
            measured.append(self._infinity(first, len(x), y, context))
        return measured

    def measure_from_statistics(
        self, real: Statistics, fake: Side, context: Context
    ) -> list[Measured]:
        """As `measure`, with stored statistics of the real set: no floor and no classes.

        The interval then covers the choice of the generated images alone.
        """
        y = checked_features(require(fake.features, "features"), "generated")
        require_same_dimension(len(real.mean), y.shape[1])
        self._require_enough(len(y))

        first, second = _stored_gaussian(real, "real"), _fit(y, self.ddof)
        value = _distance(first, second)
        interval, notes = None, [*_count_notes(real.count, len(y), y.shape[1])]
        if context.intervals and len(y) >= _FEWEST_RESAMPLED:
            interval = _jackknife(
                value, [first, _Resampled(y, fake.groups)], self.ddof,
                _affordable(self.repeats, y.shape[1], len(y)), context.seed, 0.95,
                lambda done, total: context.progress("resamples", done, total),
            )  # fmt: skip
            notes.append("The interval takes the stored statistics of the real set as given.")
        measured = [
            Measured(
                "fid",
                _shown(value),
                interval=interval,
                count_real=real.count,
                settings=self._settings(),
                notes=tuple(notes),
            )
        ]
        if self.variants:
            shift = real.mean - second.mean
            measured.append(Measured("fid_mean", float(shift @ shift), count_real=real.count))
        if self._extrapolates(len(y), context):
            measured.append(self._infinity(first, real.count, y, context))
        return measured

    def _settings(self) -> dict[str, Any]:
        return {"ddof": self.ddof}

    def _require_enough(self, count: int) -> None:
        """Before the work begins, not after it."""
        if self.infinity is True:
            _require_extrapolable(count)

    def _extrapolates(self, count: int, context: Context) -> bool:
        if self.infinity == "auto":
            return context.intervals and count >= _FEWEST_EXTRAPOLATED
        return self.infinity

    def _interval(
        self, value: float, real: Side, fake: Side, context: Context
    ) -> tuple[Interval | None, list[str]]:
        if not context.intervals:
            return None, []
        x, y = require(real.features, "features"), require(fake.features, "features")
        if min(len(x), len(y)) < _FEWEST_RESAMPLED:
            return None, [f"No interval: it needs {_FEWEST_RESAMPLED} images on each side."]
        interval = _jackknife(
            value,
            [_Resampled(x, real.groups), _Resampled(y, fake.groups)],
            self.ddof,
            _affordable(self.repeats, x.shape[1], len(x), len(y)),
            context.seed,
            0.95,
            lambda done, total: context.progress("resamples", done, total),
        )
        grouped = [len(set(groups)) for groups in (real.groups, fake.groups) if groups]
        if grouped and min(grouped) < _FEWEST_RESAMPLED:
            return interval, [f"Only {min(grouped)} groups on a side: the interval is a guess."]
        return interval, []

    def _floor(self, x: Features, count_fake: int, context: Context) -> dict[str, Any]:
        count, dimension = len(x), x.shape[1]
        if not self.floor or count < 4:
            return {}
        halves = max(split_halves_distance(x, context.seed, ddof=self.ddof), 0.0)
        found: dict[str, Any] = {
            "reference": halves,
            "reference_of": f"between two random halves of the real set, {count // 2} images each",
        }
        if min(count // 2, count_fake) >= dimension:  # from here on the bias goes with 1/n
            scale = (1 / count + 1 / count_fake) / (4 / count)
            found["details"] = {"reference_at_these_counts": halves * scale}
        return found

    def _per_class(self, real: Side, fake: Side) -> Measured:
        if real.classes is None or fake.classes is None:
            lacking = real.name if real.classes is None else fake.name
            return Measured(
                "fid_per_class", None, settings=self._settings(), notes=(f"{lacking}: no classes.",)
            )
        values = per_class_distances(
            require(real.features, "features"), real.classes,
            require(fake.features, "features"), fake.classes, ddof=self.ddof,
        )  # fmt: skip
        left_out = sorted({*real.classes, *fake.classes} - values.keys())
        notes = ["The mean over classes, each as small as its counts: compare at equal counts."]
        if left_out:
            notes.append(f"Left out, with fewer than 2 images on a side: {_some(left_out)}.")
        return Measured(
            "fid_per_class",
            float(np.mean([entry.value for entry in values.values()])) if values else None,
            count_real=sum(entry.count_real for entry in values.values()),
            count_fake=sum(entry.count_fake for entry in values.values()),
            settings={**self._settings(), "classes": sorted(values)},
            details={"classes": {name: vars(entry) for name, entry in values.items()}},
            notes=tuple(notes),
        )

    def _infinity(
        self, real: _Gaussian, count_real: int | None, y: Features, context: Context
    ) -> Measured:
        found = _extrapolate(
            real, y, context.seed, self.ddof,
            lambda done, total: context.progress("sizes", done, total),
        )  # fmt: skip
        counted = f" of {count_real} images" if count_real else ""
        notes = [f"Only the generated side is extrapolated; the bias of the real side{counted} "
                 "stays."]  # fmt: skip
        if found.sizes[0] < y.shape[1]:
            notes.append(
                f"The line in 1/n starts at {found.sizes[0]} images, fewer than the "
                f"{y.shape[1]} features, where it holds only roughly."
            )
        if found.value < 0:
            notes.append(f"The line meets the axis at {found.value:.3g}; a distance is at least 0.")
        return Measured(
            "fid_infinity",
            max(found.value, 0.0),
            spread=found.standard_error,
            spread_of="standard error of the intercept, by the choice of the generated images",
            interval=found.interval() if context.intervals else None,
            count_real=count_real,
            settings={**self._settings(), "sizes": len(found.sizes), "fewest": found.sizes[0]},
            details={"sizes": list(found.sizes), "values": list(found.values)},
            notes=tuple(notes),
        )


def _shown(value: float) -> float:
    """Rounding may leave -1e-9."""
    return max(value, 0.0)


def _count_notes(real: int | None, fake: int, dimension: int) -> Iterator[str]:
    """What a reader must know about the numbers of images."""
    counts = f"{real if real is not None else 'an unknown number of'} real and {fake} generated"
    fewest = fake if real is None else min(real, fake)
    if fewest <= dimension:
        yield (
            f"{counts} images for {dimension} features: the covariances are rank-deficient and "
            "the bias of small sets dominates the value. Compare it only with values of the same "
            "counts and the same real set; kid has no such bias."
        )
    elif fewest < 10 * dimension:
        yield (
            f"{counts} images for {dimension} features: the small number biases the value "
            "upwards. Compare it only with values of the same counts; kid has no such bias."
        )
    if real is not None and real != fake:
        yield f"Unequal counts: {real} real, {fake} generated."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


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
    real, fake = _checked_pair(real, fake)
    return _distance(_fit(real, ddof), _fit(fake, ddof))


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
    first = _stored_gaussian(Statistics(real_mean, real_covariance), "real")
    second = _stored_gaussian(Statistics(fake_mean, fake_covariance), "generated")
    require_same_dimension(len(first.mean), len(second.mean))
    return _distance(first, second)


def fid_from_statistics_and_features(real: Statistics, fake: Features, *, ddof: int = 1) -> float:
    """Squared Fréchet distance of generated features from stored statistics of the real set.

    Args:
        real: see `load_statistics`; its covariance keeps the divisor it was stored with.
        fake, ddof, returns and errors: as `frechet_distance`.
    """
    fake = checked_features(fake, "generated")
    require_same_dimension(len(real.mean), fake.shape[1])
    return _distance(_stored_gaussian(real, "real"), _fit(fake, ddof))


def mean_distance(real: Features, fake: Features) -> float:
    """The first term alone, `|m_r - m_f|²`: cheap enough for training curves.

    Args and errors as `frechet_distance`.
    """
    real, fake = _checked_pair(real, fake)
    shift = _mean(real) - _mean(fake)
    return float(shift @ shift)


def diagonal_frechet_distance(real: Features, fake: Features) -> float:
    """The distance with all covariances between features taken as 0; for training curves.

        |m_r - m_f|² + sum_k (σ_r,k - σ_f,k)²

    Population variances (division by n), as TF-GAN's `diagonal_only_frechet_classifier_distance`.
    Args and errors as `frechet_distance`.
    """
    real, fake = _checked_pair(real, fake)
    means = [_mean(features) for features in (real, fake)]
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
    checked_features(features, "real")
    if len(features) < 4:
        raise ValueError(f"The floor needs 4 real images, received {len(features)}.")
    order = np.random.default_rng(seed).permutation(len(features))
    half = len(features) // 2
    halves = (np.sort(rows) for rows in (order[:half], order[half : 2 * half]))
    first, second = (_fit(features, ddof, rows) for rows in halves)
    return _distance(first, second)


@dataclass(frozen=True)
class ClassDistance:
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
    """
    real, fake = _checked_pair(real, fake)
    first, second = _rows_by_class(real_classes), _rows_by_class(fake_classes)
    shared = sorted(first.keys() & second.keys())
    enough = [name for name in shared if min(len(first[name]), len(second[name])) >= 2]
    return {
        name: ClassDistance(
            _shown(_distance(_fit(real, ddof, first[name]), _fit(fake, ddof, second[name]))),
            len(first[name]),
            len(second[name]),
        )
        for name in enough
    }


def _rows_by_class(classes: Sequence[str]) -> dict[str, Rows]:
    names, numbers = np.unique(np.asarray(classes, np.str_), return_inverse=True)
    return {str(name): np.flatnonzero(numbers == i) for i, name in enumerate(names)}


def _checked_pair(real: Features, fake: Features) -> tuple[Features, Features]:
    real, fake = checked_features(real, "real"), checked_features(fake, "generated")
    require_same_dimension(real.shape[1], fake.shape[1])
    return real, fake


# Infinitely many images ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Extrapolation:
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

    def interval(self, level: float = 0.95) -> Interval:
        """Student's interval around the intercept."""
        freedom = len(self.sizes) - 2
        half = float(student.ppf(0.5 + level / 2, freedom)) * self.standard_error
        return Interval(
            low=max(self.value - half, 0.0),
            high=max(self.value + half, 0.0),
            level=level,
            method="scatter of subsets about the line in 1/n; for the choice of generated images",
            repeats=len(self.sizes),
        )


def frechet_distance_at_infinity(
    real: Features,
    fake: Features,
    seed: int = 0,
    *,
    ddof: int = 1,
    progress: Count = lambda done, total: None,
) -> Extrapolation:
    """Distance that infinitely many generated images would have from this real set.

    Distances of 15 subsets of the generated images, of `max(500, n / 10)` to n images without
    replacement, are fitted by a line in 1/n (least squares). The bias of the real side stays.

    The usual standard error of a fit would be too small, since subsets of one set share its
    luck. To first order a subset of k images deviates from the set's line with variance
    `σ² (1/k - 1/n)`, and the set from the population's with `σ² / n`; the scatter of the subsets
    gives σ, and both parts add up. In a simulation (2000 generated images, 16 and 64 features,
    Gaussian and heavy-tailed, equal and other sets; 60 to 80 repetitions each) the 95 % interval
    covered the limit in 90 to 97 of 100.

    Args:
        real, fake, ddof: as `frechet_distance`, at least 1500 generated images.
        seed: of the subsets.
        progress: called with the subsets done and all.
    Raises:
        ValueError: too few images, or as `frechet_distance`.
    Source: Chong and Forsyth, arXiv:1911.07023, section 4; sizes as in mchong6/FID_IS_infinity.
    """
    real, fake = _checked_pair(real, fake)
    return _extrapolate(_fit(real, ddof), fake, seed, ddof, progress)


def _require_extrapolable(count: int) -> None:
    if count < _FEWEST_EXTRAPOLATED:
        raise ValueError(
            f"{count} generated images: the distance at infinitely many images needs "
            f"{_FEWEST_EXTRAPOLATED}, for below 500 it does not fall as 1/n. Generate more, or use "
            "kid, which has no such bias."
        )


def _extrapolate(
    real: _Gaussian, fake: Features, seed: int, ddof: int, progress: Count
) -> Extrapolation:
    count = len(fake)
    _require_extrapolable(count)
    generator = np.random.default_rng(seed)
    sizes = np.linspace(max(500, count // 10), count, 15).round().astype(np.int64)
    values = np.empty(len(sizes))
    for i, size in enumerate(sizes):
        rows = np.sort(generator.permutation(count)[:size])
        values[i] = _distance(real, _fit(fake, ddof, rows))
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


# Intervals ----------------------------------------------------------------------------------------


def bootstrap(
    real: Features,
    fake: Features,
    repeats: int = 100,
    seed: int = 0,
    *,
    ddof: int = 1,
    level: float = 0.95,
    real_groups: Sequence[str] | None = None,
    fake_groups: Sequence[str] | None = None,
    progress: Count = lambda done, total: None,
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
    whole set (delete-d jackknife, Shao and Wu 1989: factor kept / left out). An interval of this
    spread around the value covered the target in 91 to 100 of 100: least with heavy tails and 60
    images, and up to 1.6 times too wide for equal sets. Images that belong together (several of
    a patient) make it too narrow unless they are named as groups, which leave together.

    Args:
        real, fake: as `frechet_distance`, at least 10 images each.
        repeats: subsets drawn, at least 20; the width has a relative error of about
            `1 / sqrt(2 * repeats)`, for which Student's quantile allows.
        seed: of the subsets.
        level: share of repetitions that should cover the target.
        real_groups, fake_groups: patient or part of each image.
        progress: called with the subsets done and all.
    Raises:
        ValueError: too few images or repeats.
    """
    real, fake = _checked_pair(real, fake)
    if min(len(real), len(fake)) < _FEWEST_RESAMPLED or repeats < _FEWEST_REPEATS:
        raise ValueError(
            f"An interval needs {_FEWEST_RESAMPLED} images on each side and {_FEWEST_REPEATS} "
            f"repeats: received {len(real)} real, {len(fake)} generated images and {repeats} "
            "repeats."
        )
    value = _distance(_fit(real, ddof), _fit(fake, ddof))
    sides = [_Resampled(real, real_groups), _Resampled(fake, fake_groups)]
    return _jackknife(value, sides, ddof, repeats, seed, level, progress)


class _Resampled:
    """One side of which a fifth is left out, again and again."""

    def __init__(self, features: Features, groups: Sequence[str] | None) -> None:
        self.features = features
        self.left = max(1, len(features) // 5)
        self.grouped = groups is not None
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


def _jackknife(
    value: float,
    sides: Sequence[_Resampled | _Gaussian],
    ddof: int,
    repeats: int,
    seed: int,
    level: float,
    progress: Count,
) -> Interval:
    """The interval of `bootstrap`; a side that is a Gaussian already is taken as given."""
    generator = np.random.default_rng(seed)
    resampled = [side for side in sides if isinstance(side, _Resampled)]
    drawn = [[side.draw(generator) for side in resampled] for _ in range(repeats)]
    if len(resampled) == 2 and _products_pay(resampled[0], resampled[1]):
        distances = _distances_by_products(resampled[0], resampled[1], drawn, ddof)
    else:
        distances = _distances_by_fits(sides, drawn, ddof)
    values = np.empty(repeats)
    for i, distance in enumerate(distances):
        values[i] = distance
        progress(i + 1, repeats)

    factor = max((len(side) - side.left) / side.left for side in resampled)
    quantile = float(student.ppf(0.5 + level / 2, repeats - 1))
    spread = float(np.sqrt(factor) * values.std(ddof=1)) * quantile
    together = " of whole groups" if any(side.grouped for side in resampled) else ""
    return Interval(
        low=max(value - spread, 0.0),
        high=max(value + spread, 0.0),
        level=level,
        method=f"delete-a-fifth jackknife{together}, Student t; for the expected value at these "
        "counts",
        repeats=repeats,
    )


def _affordable(repeats: int, *sizes: int) -> int:
    """Repeats that take about a minute, at least the fewest; `sizes` are images and features."""
    return max(_FEWEST_REPEATS, min(repeats, int(_RESAMPLING_WORK / min(sizes) ** 3)))


def _products_pay(real: _Resampled, fake: _Resampled) -> bool:
    """Whether products of all images of one side with all of the other are few enough to keep."""
    few = min(len(real), len(fake)) <= 1.5 * real.features.shape[1]
    return few and len(real) * len(fake) <= _CROSS_PRODUCTS


def _distances_by_products(
    real: _Resampled, fake: _Resampled, drawn: Sequence[Sequence[Rows]], ddof: int
) -> Iterator[float]:
    """Distances of subsets from `X Yᵀ` of the centred features, computed once.

    `A Bᵀ` of two subsets are its rows and columns, centred again. Sums over a subset are those
    over what is left out with the opposite sign, since centred features add up to zero.
    """
    x_mean, y_mean = _mean(real.features), _mean(fake.features)
    products = np.empty((len(real), len(fake)))
    for start, y in _centred_chunks(fake.features, y_mean):
        for row, x in _centred_chunks(real.features, x_mean):
            products[row : row + len(x), start : start + len(y)] = x @ y.T
    x_shifts, x_traces = _subset_moments(real, [rows for rows, _ in drawn], x_mean, ddof)
    y_shifts, y_traces = _subset_moments(fake, [rows for _, rows in drawn], y_mean, ddof)

    for i, (x_left, y_left) in enumerate(drawn):
        kept = np.delete(np.delete(products, x_left, axis=0), y_left, axis=1)
        divisor = np.sqrt(float(kept.shape[0] - ddof) * float(kept.shape[1] - ddof))
        cross = _reflected(_reflected(kept).T) / divisor
        shift = x_mean + x_shifts[i] - y_mean - y_shifts[i]
        apart = float(shift @ shift + x_traces[i] + y_traces[i])
        yield apart - 2.0 * _nuclear_norm(cross, apart, _ALLOWED_IN_RESAMPLES)


def _subset_moments(
    side: _Resampled, left: Sequence[Rows], mean: Matrix, ddof: int
) -> tuple[Matrix, Matrix]:
    """How far the mean moves, (repeats, features), and the trace of the covariance, (repeats,)."""
    out = np.zeros((len(left), len(side)))
    for i, rows in enumerate(left):
        out[i, rows] = 1.0
    sums = np.zeros((len(left), side.features.shape[1]))
    squares = np.empty(len(side))
    for start, chunk in _centred_chunks(side.features, mean):
        sums += out[:, start : start + len(chunk)] @ chunk
        squares[start : start + len(chunk)] = np.einsum("ij,ij->i", chunk, chunk)
    kept = len(side) - side.left
    shifts = -sums / kept
    traces = squares.sum() - out @ squares - kept * np.einsum("ij,ij->i", shifts, shifts)
    return shifts, traces / (kept - ddof)


def _distances_by_fits(
    sides: Sequence[_Resampled | _Gaussian], drawn: Sequence[Sequence[Rows]], ddof: int
) -> Iterator[float]:
    """Distances of subsets, each fitted for itself."""
    refit = [_refitting(side, ddof) for side in sides if isinstance(side, _Resampled)]
    given = [side for side in sides if isinstance(side, _Gaussian)]
    for rows in drawn:
        fitted = [fit(left) for fit, left in zip(refit, rows, strict=True)]
        first, second = [*given, *fitted]
        yield _distance(first, second, _ALLOWED_IN_RESAMPLES)


def _refitting(side: _Resampled, ddof: int) -> Callable[[Rows], _Gaussian]:
    """The Gaussian of a side without some rows; large sides subtract what these rows added."""
    features, count = side.features, len(side)
    if count <= 1.5 * features.shape[1]:
        return lambda left: _fit(features, ddof, np.delete(np.arange(count), left))
    mean = _mean(features)
    scatter = _scatter(features, mean)

    def fit(left: Rows) -> _Gaussian:
        kept = count - len(left)
        shift = -(_mean(features, left) - mean) * (len(left) / kept)
        covariance = scatter - _scatter(features, mean, left)
        covariance -= kept * np.outer(shift, shift)
        covariance /= kept - ddof
        return _Gaussian(mean + shift, _covariance_root(covariance))

    return fit


# Stored statistics --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set, as TTUR and pytorch-fid store them.

    Attributes:
        mean: `(features,)`.
        covariance: `(features, features)`, divided by n - 1.
        count: images, where the file says it.
    """

    mean: Matrix
    covariance: Matrix
    count: int | None = None


def statistics_of(features: Features) -> Statistics:
    """Statistics of a set of features, read in chunks. Errors as `frechet_distance`."""
    mean, covariance = mean_and_covariance(features)
    return Statistics(mean, covariance, len(features))


def mean_and_covariance(features: Features) -> tuple[Matrix, Matrix]:
    """Mean (features,) and covariance (features, features; n - 1): `mu` and `sigma` of TTUR."""
    features = checked_features(features, "given")
    mean = _mean(features)
    return mean, _scatter(features, mean) / (len(features) - 1)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write an `.npz` with `mu` and `sigma`, which TTUR, pytorch-fid and clean-fid read too.

    A third entry, `count`, holds the number of images, which they ignore.
    """
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance}
    if statistics.count is not None:
        arrays["count"] = np.asarray(statistics.count, np.int64)
    with files.replacing(path) as temporary, temporary.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays)


def load_statistics(path: Path) -> Statistics:
    """Read an `.npz` with `mu` and `sigma`.

    They belong to one feature network and protocol, which the file does not name.

    Raises:
        UserError: no such file.
        DataError: another kind of file, arrays missing, not plain numbers, or shapes that disagree.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Name the .npz with the statistics of the real set.")
    if not zipfile.is_zipfile(path):  # NumPy would speak of pickles
        raise DataError(f"{path}: not an .npz file. {_EXPECTED}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            absent = sorted({"mu", "sigma"} - set(stored.files))
            if absent:
                raise DataError(f"{path}: no {' and no '.join(absent)} in it. {_EXPECTED}")
            mean, covariance = _checked_statistics(stored["mu"], stored["sigma"], "stored")
            count = int(stored["count"].item()) if "count" in stored.files else None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"{path}: {reason}. {_EXPECTED}") from None
    return Statistics(mean, covariance, count)


_EXPECTED = (
    "Statistics are an .npz file with `mu` (features,) and `sigma` (features, features), as "
    "pytorch-fid and TTUR write it; `count`, one number, is optional. Make it again."
)


def _stored_gaussian(stored: Statistics, whose: str) -> _Gaussian:
    mean, covariance = _checked_statistics(stored.mean, stored.covariance, whose)
    return _Gaussian(mean, _covariance_root(covariance))


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


# Gaussians ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gaussian:
    """A mean, and a factor F of shape (rows, features) with `FᵀF` the covariance."""

    mean: Matrix
    factor: Matrix


def _distance(first: _Gaussian, second: _Gaussian, allowed: float | None = None) -> float:
    shift = first.mean - second.mean
    a, b = first.factor, second.factor
    apart = float(shift @ shift) + float(np.vdot(a, a)) + float(np.vdot(b, b))
    return apart - 2.0 * _nuclear_norm(a @ b.T, apart, allowed or _ALLOWED_ERROR)


def _fit(features: Features, ddof: int, rows: Rows | None = None) -> _Gaussian:
    """The Gaussian of a set, or of some rows of it; a factor has at most n - 1 rows."""
    count, dimension = len(features) if rows is None else len(rows), features.shape[1]
    if count > max(2 * dimension, _WHOLE):
        mean = _mean(features, rows)
        covariance = _scatter(features, mean, rows)
        covariance /= count - ddof
        return _Gaussian(mean, _covariance_root(covariance))

    values = np.asarray(features if rows is None else features[rows], np.float64)
    factor = _reflected(values)
    factor /= np.sqrt(count - ddof)
    if count - 1 > dimension:
        factor = np.asarray(np.linalg.qr(factor, mode="r"), np.float64)
    return _Gaussian(values.mean(axis=0), factor)


def _reflected(values: Matrix) -> Matrix:
    """The rows centred, and one fewer, with the same product `VᵀV`.

    Centred rows add up to zero, so one singular value of `A Bᵀ` is zero but for rounding. A
    reflection that sends (1, ..., 1) to the first axis turns that row into zeros exactly; it
    leaves row i as `x_i - x_0 / (√n + 1)` and is left out.
    """
    centred = values - values.mean(axis=0)  # before any product: means may be large
    reflected: Matrix = centred[1:]
    reflected -= centred[0] / (np.sqrt(len(values)) + 1.0)
    return reflected


def _mean(features: Features, rows: Rows | None = None) -> Matrix:
    total = np.zeros(features.shape[1])
    for chunk in _chunks(features, rows):
        total += chunk.sum(axis=0)
    return total / (len(features) if rows is None else len(rows))


def _scatter(features: Features, mean: Matrix, rows: Rows | None = None) -> Matrix:
    """Sum of `(x - mean)(x - mean)ᵀ`."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for chunk in _chunks(features, rows):
        chunk -= mean
        total += chunk.T @ chunk
    return total


def _chunks(features: Features, rows: Rows | None = None) -> Iterator[Matrix]:
    """Copies in float64, a few rows each."""
    for start in range(0, len(features) if rows is None else len(rows), _CHUNK):
        chosen = slice(start, start + _CHUNK)
        yield np.array(features[chosen if rows is None else rows[chosen]], np.float64)


def _centred_chunks(features: Features, mean: Matrix) -> Iterator[tuple[int, Matrix]]:
    start = 0
    for chunk in _chunks(features):
        chunk -= mean
        yield start, chunk
        start += len(chunk)


def _covariance_root(covariance: Matrix) -> Matrix:
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


def _nuclear_norm(matrix: Matrix, apart: float, allowed: float) -> float:
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
