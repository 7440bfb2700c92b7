"""Fréchet distance between real and generated features; with Inception features it is the FID.

The arithmetic is in `ops/frechet.py`, intervals and extrapolation in `ops/frechet_intervals.py`.
Mean and covariance of the real set are enough; `evaluation/statistics.py` reads them from files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tfgan_med.metrics.base import (
    Context,
    Features,
    Interval,
    Measured,
    Metric,
    Need,
    Side,
    checked_features,
    require,
    require_same_dimension,
)
from tfgan_med.ops import frechet
from tfgan_med.ops.frechet import Gaussian
from tfgan_med.ops.frechet_intervals import (
    FEWEST_EXTRAPOLATED,
    FEWEST_REPEATS,
    FEWEST_RESAMPLED,
    Resampled,
    affordable,
    extrapolate,
    jackknife,
    require_extrapolable,
)

Matrix = npt.NDArray[np.float64]

_LEVEL = 0.95


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

    repeats: int = Field(default=100, ge=FEWEST_REPEATS)
    """Subsets for the interval; fewer, at least 20, where each costs seconds."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """`fid`, and by settings `fid_mean`, `fid_diagonal`, `fid_per_class`, `fid_infinity`."""
        x = checked_features(require(real.features, "features"), "real")
        y = self._generated(fake, x.shape[1])

        first, second = frechet.fit(x, self.ddof), frechet.fit(y, self.ddof)
        value = frechet.distance(first, second)
        interval, missing = self._interval(value, real, fake, context)
        measured = [
            Measured(
                "fid",
                max(value, 0.0),  # rounding may leave -1e-9
                interval=interval,
                settings=self._settings(),
                notes=(*_count_notes(len(x), len(y), x.shape[1]), *missing),
                **self._floor(x, len(y), context),
            )
        ]
        if self.variants:
            diagonal = frechet.diagonal_frechet_distance(x, y)
            measured += [
                Measured("fid_mean", frechet.mean_distance(x, y)),
                Measured("fid_diagonal", diagonal, settings={"ddof": 0}),
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

        Raises:
            ValueError: `ddof` is 0 and the statistics do not tell their number of images, or as
                `measure`.
        """
        y = self._generated(fake, len(real.mean))

        first, second = real.gaussian(self.ddof), frechet.fit(y, self.ddof)
        value = frechet.distance(first, second)
        interval, notes = self._interval(value, first, fake, context)
        if interval:
            notes.append("The interval takes the stored statistics of the real set as given.")
        measured = [
            Measured(
                "fid",
                max(value, 0.0),
                interval=interval,
                count_real=real.count,
                settings=self._settings(),
                notes=(*_count_notes(real.count, len(y), y.shape[1]), *notes),
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

    def _generated(self, fake: Side, dimension: int) -> Features:
        """Its features, and whether they are enough: before the work begins, not after it."""
        features = checked_features(require(fake.features, "features"), "generated")
        require_same_dimension(dimension, features.shape[1])
        if self.infinity is True:
            require_extrapolable(len(features))
        return features

    def _extrapolates(self, count: int, context: Context) -> bool:
        if self.infinity == "auto":
            return context.intervals and count >= FEWEST_EXTRAPOLATED
        return self.infinity

    def _interval(
        self, value: float, real: Side | Gaussian, fake: Side, context: Context
    ) -> tuple[Interval | None, list[str]]:
        """The interval if it can be found, and what to say about it."""
        if not context.intervals:
            return None, []
        sides = [fake] if isinstance(real, Gaussian) else [real, fake]
        resampled = [Resampled(require(s.features, "features"), s.groups) for s in sides]
        sizes = [len(side) for side in resampled]
        if min(sizes) < FEWEST_RESAMPLED:
            return None, [f"No interval: it needs {FEWEST_RESAMPLED} images on each side."]

        dimension = resampled[-1].features.shape[1]
        repeats = affordable(self.repeats, dimension, *sizes)
        low, high = jackknife(
            value,
            real if isinstance(real, Gaussian) else resampled[0],
            resampled[-1],
            repeats,
            context.seed,
            ddof=self.ddof,
            level=_LEVEL,
            progress=lambda done, total: context.progress("resamples", done, total),
        )
        grouped = [len(set(side.groups)) for side in sides if side.groups]
        together = " of whole groups" if grouped else ""
        method = (
            f"delete-a-fifth jackknife{together}, Student t; for the expected value at these counts"
        )
        few = bool(grouped) and min(grouped) < FEWEST_RESAMPLED
        return Interval(low, high, _LEVEL, method, repeats), (
            [f"Only {min(grouped)} groups on a side: the interval is a guess."] if few else []
        )

    def _floor(self, x: Features, count_fake: int, context: Context) -> dict[str, Any]:
        count, dimension = len(x), x.shape[1]
        if not self.floor or count < 4:
            return {}
        halves = max(frechet.split_halves_distance(x, context.seed, ddof=self.ddof), 0.0)
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
        found = frechet.per_class_distances(
            require(real.features, "features"), real.classes,
            require(fake.features, "features"), fake.classes, ddof=self.ddof,
        )  # fmt: skip
        left_out = sorted({*real.classes, *fake.classes} - found.keys())
        notes = ["The mean over classes, each as small as its counts: compare at equal counts."]
        if left_out:
            notes.append(f"Left out, with fewer than 2 images on a side: {_some(left_out)}.")
        return Measured(
            "fid_per_class",
            float(np.mean([one.value for one in found.values()])) if found else None,
            count_real=sum(one.count_real for one in found.values()),
            count_fake=sum(one.count_fake for one in found.values()),
            settings={**self._settings(), "classes": sorted(found)},
            details={"classes": {name: one._asdict() for name, one in found.items()}},
            notes=tuple(notes),
        )

    def _infinity(
        self, real: Gaussian, count_real: int | None, y: Features, context: Context
    ) -> Measured:
        found = extrapolate(
            real, y, context.seed, ddof=self.ddof,
            progress=lambda done, total: context.progress("sizes", done, total),
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
        interval = None
        if context.intervals:
            method = "scatter of subsets about the line in 1/n; for the choice of generated images"
            interval = Interval(*found.interval(_LEVEL), _LEVEL, method, len(found.sizes))
        return Measured(
            "fid_infinity",
            max(found.value, 0.0),
            spread=found.standard_error,
            spread_of="standard error of the intercept, by the choice of the generated images",
            interval=interval,
            count_real=count_real,
            settings={**self._settings(), "sizes": len(found.sizes), "fewest": found.sizes[0]},
            details={"sizes": list(found.sizes), "values": list(found.values)},
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set, all that the distance needs of it.

    Attributes:
        mean: `(features,)`.
        covariance: `(features, features)`, divided by n - 1.
        count: images, if known.
    Raises:
        ValueError: shapes that disagree, a number not finite, a covariance not symmetric,
            fewer than 2 images.
    """

    mean: Matrix
    covariance: Matrix
    count: int | None = None

    @classmethod
    def of(cls, features: Features) -> Statistics:
        """Of a set of features `(images, features)`, read in chunks."""
        checked_features(features, "given")
        return cls(*frechet.mean_and_covariance(features), len(features))

    def __post_init__(self) -> None:
        mean, covariance = self.mean, self.covariance
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"The statistics have a mean of shape {mean.shape} and a covariance of shape "
                f"{covariance.shape}; (d,) and (d, d) are needed."
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("The statistics contain numbers that are not finite.")
        if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.trace(covariance)):
            raise ValueError("The covariance is not symmetric.")
        if self.count is not None and self.count < 2:
            raise ValueError(f"The statistics are of {self.count} image(s); 2 are the least.")

    def gaussian(self, ddof: int = 1) -> Gaussian:
        """With the covariance divided by n - ddof.

        Raises:
            ValueError: `ddof` is not 1 and the count is not known.
        """
        covariance = (self.covariance + self.covariance.T) / 2.0
        if ddof == 1:
            return frechet.from_moments(self.mean, covariance)
        if self.count is None:
            raise ValueError(
                "The statistics do not say from how many images they are, so that their "
                f"covariance, divided by n - 1, cannot become one of n - {ddof}. Leave ddof at 1."
            )
        return frechet.from_moments(
            self.mean, covariance * ((self.count - 1) / (self.count - ddof))
        )


# What is said about numbers of images -------------------------------------------------------------


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
