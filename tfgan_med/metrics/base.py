"""The metric contract: a result with its protocol, and features that are computed once.

A number without its protocol is not a result. `Result` carries all that decides whether two
numbers may be compared; `FeatureCache` keeps features by the content of the picture.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import tfgan_med
from tfgan_med import files
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
Features = npt.NDArray[np.float32]  # (images, features)


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
class Result:
    """One measured value and all that it depends on.

    Attributes:
        metric: what it is, such as `fid` or `frechet_distance[name:sha]`.
        value: the number; lower is better for distances.
        interval: its uncertainty, if it was asked for.
        protocol: how pictures were resized and scaled before the network.
        extractor: name of the feature network, and
        weights_sha256: the checksum of its weights.
        dimension: features per picture.
        count_real, count_fake: pictures on each side.
        image_size: height and width before the protocol's resizing.
        color: `gray-x3` (one channel repeated), `rgb`, or both for the two sides.
        value_range: values that became 0 and 255, the same for both sides.
        ddof: covariances divide by n - ddof.
        real, fake: the folders, for the reader only.
        floor: the same distance between two random halves of the real set, if asked for.
        seed: of resampling.
        version: of this package.
        notes: what to keep in mind, sentences.
    """

    metric: str
    value: float
    protocol: str
    extractor: str
    weights_sha256: str
    dimension: int
    count_real: int
    count_fake: int
    image_size: tuple[int, int]
    color: str
    value_range: tuple[float, float]
    real: str
    fake: str
    ddof: int = 1
    interval: Interval | None = None
    floor: float | None = None
    seed: int = 0
    version: str = tfgan_med.__version__
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON line."""
        return asdict(self)


COMPARED = ("metric", "protocol", "weights_sha256", "dimension", "image_size", "value_range",
            "ddof", "count_real", "count_fake")  # fmt: skip
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


# Features -----------------------------------------------------------------------------------------


class Extractor(Protocol):
    """A feature network, as `networks.features.FeatureNetwork` is one."""

    @property
    def identity(self) -> str:
        """Network, weights and protocol: all that features depend on besides the picture."""

    @property
    def dimension(self) -> int:
        """Features per picture."""

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        """One vector for each `(height, width, 3)` picture in 0..255, in order."""


class FeatureCache:
    """Features by the content of the picture, kept in a folder.

    A key is the SHA-256 of the pixels, so a picture that was replaced under its old name is
    computed again, and copies are computed once. Each extraction adds one file; the oldest go
    when the folder outgrows its limit.

    Args:
        folder: of the cache, made when something is written.
        limit: bytes that the folder may take.
    """

    def __init__(self, folder: Path, limit: int = 2**30) -> None:
        self.folder = folder
        self.limit = limit

    @classmethod
    def default(cls) -> FeatureCache:
        """The cache in the user's cache folder."""
        return cls(files.cache_dir() / "features")

    def read(self, extractor: Extractor) -> dict[str, Array]:
        """All kept features of an extractor by key; rows are read from disk when they are used."""
        found: dict[str, Array] = {}
        for path in sorted(self._place(extractor).glob("*.keys.npy")):
            found.update(self._rows(path, extractor.dimension))
        return found

    def add(self, extractor: Extractor, rows: dict[str, Array]) -> None:
        """Keep features; a full disk or a folder that cannot be written is no error."""
        if not rows:
            return
        keys = np.frombuffer(b"".join(map(bytes.fromhex, rows)), np.uint8).reshape(-1, 32)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        with contextlib.suppress(OSError):
            place = self._place(extractor)
            place.mkdir(parents=True, exist_ok=True)
            self._write(place / f"{name}.npy", np.stack(list(rows.values())))
            self._write(place / f"{name}.keys.npy", keys)  # last: without keys nothing is found
            self._trim()

    def _place(self, extractor: Extractor) -> Path:
        return self.folder / hashlib.sha256(extractor.identity.encode()).hexdigest()[:16]

    def _write(self, path: Path, array: Array) -> None:
        with files.replacing(path) as temporary, temporary.open("wb") as out:
            np.save(out, array, allow_pickle=False)

    def _rows(self, path: Path, dimension: int) -> dict[str, Array]:
        """Key to row of one pair of files; a damaged pair counts as absent."""
        try:
            keys = np.load(path, allow_pickle=False)
            features = np.load(_features_of(path), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return {}
        if keys.dtype != np.uint8 or keys.shape[1:] != (32,):
            return {}
        if features.dtype != np.float32 or features.shape != (len(keys), dimension):
            return {}
        return {key.tobytes().hex(): row for key, row in zip(keys, features, strict=True)}

    def _trim(self) -> None:
        """Remove the oldest pairs beyond the limit, never the newest."""
        stored = sorted(self.folder.rglob("*.keys.npy"), key=lambda path: path.stat().st_mtime)
        sizes = [path.stat().st_size + _features_of(path).stat().st_size for path in stored]
        excess = sum(sizes) - self.limit
        for path, size in zip(stored[:-1], sizes[:-1], strict=True):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            _features_of(path).unlink(missing_ok=True)
            excess -= size


def _features_of(keys: Path) -> Path:
    return keys.with_name(keys.name.replace(".keys.npy", ".npy"))


def key_of(picture: Array) -> str:
    """SHA-256 of a picture's pixels, shape and type."""
    digest = hashlib.sha256(f"{picture.shape} {picture.dtype.str}".encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


def extract(
    extractor: Extractor,
    pictures: Iterable[Array],
    batch_size: int,
    cache: FeatureCache | None = None,
) -> Features:
    """Features of a stream of pictures; the network sees only pictures it has not seen before.

    Args:
        extractor: the feature network.
        pictures: `(height, width, 3)` each, in 0..255, of one size; consumed once.
        batch_size: pictures per network pass; it does not change the result beyond rounding.
        cache: where features are kept; None computes all.
    Returns:
        `(images, features)` float32 in the order of the pictures.
    """
    known = cache.read(extractor) if cache else {}
    keys: list[str] = []
    fresh: list[str] = []

    def unseen() -> Iterator[Array]:
        for picture in pictures:
            key = key_of(picture)
            keys.append(key)
            if key not in known:
                known[key] = _PENDING
                fresh.append(key)
                yield picture

    computed = list(extractor.features(unseen(), batch_size))
    rows = dict(zip(fresh, computed, strict=True))
    known |= rows
    if cache:
        cache.add(extractor, rows)
    if not keys:
        return np.empty((0, extractor.dimension), np.float32)
    return np.stack([known[key] for key in keys])


_PENDING: Array = np.empty(0, np.float32)  # holds the place of a picture that is on its way
