"""The metric contract: what a metric sees, what it returns, and a result with its protocol.

A number without its protocol is not a result. A metric file holds pure NumPy functions from
arrays to numbers, and a `Metric` that picks the arrays it needs from both sides. Who reads
folders and runs networks fills the `Side`s and turns each `Measured` into a `Result`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

import tfgan_med
from tfgan_med.config import Config
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
Features = npt.NDArray[np.floating[Any]]  # (images, features)
Need = Literal["features", "logits", "pictures", "perceptual", "thumbnails"]
Better = Literal["lower", "higher", "neither"]
Progress = Callable[[str, int, int], None]  # what is done, items done, items in all

THUMBNAIL = 64  # side in pixels


# What a metric sees -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One set of pictures, as far as the metrics at hand need it.

    Attributes:
        name: the folder, as the user calls it.
        files: names for reports, one for each picture, in order.
        features: `(images, features)` float32; large sets are memory-mapped, so metrics read
            them in chunks and make no float64 copy of the whole.
        logits: `(images, classes)` float32 of the same network.
        pictures: `(kept, height, width, 3)` uint8, a random sample of the set, and
        kept: `(kept,)` the rows they belong to, in random order: the first m are a sample of m.
        thumbnails: `(images, 64, 64)` uint8, grey, area-averaged.
        classes: class name of each picture, where the set has classes.
        groups: patient or part of each picture, where the set has groups.
    """

    name: str
    files: tuple[str, ...]
    features: npt.NDArray[np.float32] | None = None
    logits: npt.NDArray[np.float32] | None = None
    pictures: npt.NDArray[np.uint8] | None = None
    kept: npt.NDArray[np.int64] | None = None
    thumbnails: npt.NDArray[np.uint8] | None = None
    classes: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)


class PerceptualNetwork(Protocol):
    """A network whose squared Euclidean distances are perceptual distances (LPIPS)."""

    def embed(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """`(images, height, width, 3)` in 0..255 to `(images, numbers)`."""


@dataclass(frozen=True)
class Context:
    """What else a metric may use.

    Attributes:
        seed: of every random choice.
        intervals: whether to spend time on resampling; metrics with a closed form ignore it.
        perceptual: see `PerceptualNetwork`; there if the metric needs `perceptual`.
        held_out: real pictures that no model was trained on, for memorization.
        progress: called with what is done, items done and items in all.
    """

    seed: int = 0
    intervals: bool = False
    perceptual: PerceptualNetwork | None = None
    held_out: Side | None = None
    progress: Progress = field(default=lambda what, done, total: None)


# What it returns ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A range for a value.

    Attributes:
        low, high: its ends.
        level: share of repetitions that should cover the target, such as 0.95.
        method: how it was found and what it covers.
        repeats: resamples drawn.
    """

    low: float
    high: float
    level: float
    method: str
    repeats: int


@dataclass(frozen=True)
class Measured:
    """One number of a metric.

    Attributes:
        name: base name: `fid`, `precision`, `ms_ssim_diversity`. Names of values of other
            networks than the published ones are made from it.
        value: the number; None where it is not defined for these sets, with a note that says why.
        better: which way is better; `neither` for descriptions.
        spread: a standard deviation or error, and
        spread_of: what it is, such as `population standard deviation over 10 splits`.
        interval: its uncertainty.
        reference: the same number for real pictures alone, to read the value by, and
        reference_of: what that is, such as `between two halves of 60 real images`.
        count_real, count_fake: pictures used, if not all.
        settings: what the value depends on besides the pictures: k, splits, thresholds, scales.
        uses: which networks decide the value: `features` (also for logits), `perceptual` or none.
        details: further plain values for JSON: numbers by class, nearest neighbours, parts.
        notes: what to keep in mind, sentences.
    """

    name: str
    value: float | None
    better: Better = "lower"
    spread: float | None = None
    spread_of: str = ""
    interval: Interval | None = None
    reference: float | None = None
    reference_of: str = ""
    count_real: int | None = None
    count_fake: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    uses: Literal["features", "perceptual", ""] = "features"
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Metric(Config, ABC):
    """A measure with its settings; the file `metrics/kid.py` holds the class `KID`.

    Its docstring's first line says what it measures. Settings are fields with docstrings.
    """

    needs: ClassVar[frozenset[Need]]
    of_training: ClassVar[bool] = False
    """Whether the real side must be what the generator was trained on, as for copies."""

    def required(self) -> frozenset[Need]:
        """What it needs with its settings; `needs` holds for all settings."""
        return self.needs

    def title(self) -> str:
        """What messages call it: the class, and settings that are not the default."""
        own = ", ".join(f"{k} {v}" for k, v in self.model_dump(exclude_defaults=True).items())
        return type(self).__name__ + (f" ({own})" if own else "")

    @property
    def pictures_needed(self) -> int:
        """Pictures of each side it wants to see as pixels; they are kept in memory."""
        return 0

    @abstractmethod
    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """Compare two sides.

        Raises:
            ValueError: too few pictures or features that are not finite; the message is for users.
        """


# A result -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One measured value and all that it depends on.

    Attributes:
        metric: what it is, such as `fid` or `frechet_distance[name:sha]`.
        value, better, spread, spread_of, interval, reference, reference_of, settings, details:
            see `Measured`.
        protocol: how pictures were resized and scaled before the network; `pixels` without one.
        extractor: name of the feature network, and
        weights_sha256: the checksum of its weights; both empty without one.
        dimension: features per picture.
        count_real, count_fake: pictures that the value was computed from; None where stored
            statistics do not tell.
        image_size: height and width before the protocol's resizing.
        color: `gray-x3` (one channel repeated), `rgb`, or both for the two sides.
        value_range: values that became 0 and 255, the same for both sides.
        real, fake: the folders, for the reader only.
        seed: of sampling and resampling.
        version: of this package.
        notes: what to keep in mind, sentences.
    """

    metric: str
    value: float | None
    protocol: str
    extractor: str
    weights_sha256: str
    dimension: int
    count_real: int | None
    count_fake: int
    image_size: tuple[int, int]
    color: str
    value_range: tuple[float, float]
    real: str
    fake: str
    better: Better = "lower"
    spread: float | None = None
    spread_of: str = ""
    interval: Interval | None = None
    reference: float | None = None
    reference_of: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    version: str = tfgan_med.__version__
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, measured: Measured, count_real: int | None, count_fake: int, **facts: Any) -> Self:
        """A measured value with what it depends on.

        Args:
            measured: as a metric gave it.
            count_real, count_fake: pictures of each side, unless the metric used fewer.
            facts: the other attributes; `metric`, `settings` and `notes` replace those measured.
        """
        values = {field.name: getattr(measured, field.name) for field in fields(measured)}
        name = values.pop("name")
        values.pop("uses")
        for side, count in (("count_real", count_real), ("count_fake", count_fake)):
            values[side] = count if values[side] is None else values[side]
        return cls(**({"metric": name} | values | facts))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return asdict(self)


COMPARED = (
    *("metric", "protocol", "extractor", "weights_sha256", "dimension", "settings"),
    *("image_size", "value_range", "count_real", "count_fake"),
)
"""What must be equal for two values to be comparable."""


def require_comparable(first: Result, second: Result) -> None:
    """Refuse to compare values that mean different things.

    Raises:
        UserError: naming what differs.
    """
    differing = [
        f"{name} ({getattr(first, name)} and {getattr(second, name)})"
        for name in COMPARED
        if getattr(first, name) != getattr(second, name)
    ]
    if differing:
        raise UserError(
            f"These values cannot be compared: they differ in {', '.join(differing[:3])}. "
            "Measure both with the same protocol, weights and numbers of pictures."
        )


# Checks that metrics share ------------------------------------------------------------------------


def require(array: Array | None, what: str) -> Array:
    """An array of a `Side` that the metric asked for with `needs`."""
    if array is None:
        raise TypeError(f"{what} was not computed: `needs` of the metric does not name it.")
    return array


def checked_features(features: Array, whose: str, fewest: int = 2) -> Array:
    """`(images, features)` that are finite and enough, without a copy.

    Args:
        whose: `real` or `generated`, for messages.
        fewest: images needed.
    Raises:
        ValueError: naming what is wrong and the cure.
    """
    if features.ndim != 2:
        raise ValueError(
            f"The {whose} features have shape {features.shape}; expected (images, features)."
        )
    if len(features) < fewest:
        raise ValueError(
            f"The {whose} set has {len(features)} image(s); this metric needs at least {fewest}. "
            "Add images."
        )
    for start in range(0, len(features), 4096):
        finite = np.isfinite(features[start : start + 4096]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise ValueError(
                f"The {whose} features are not finite, first in row {row}. Check this image and "
                "the feature network."
            )
    return features


def require_same_dimension(real: int, fake: int) -> None:
    """Both sides must come from one extractor.

    Raises:
        ValueError: otherwise.
    """
    if real != fake:
        raise ValueError(
            "Real and generated images need features of the same extractor: received "
            f"{real} and {fake} features per image. Use one `--features` for both."
        )
