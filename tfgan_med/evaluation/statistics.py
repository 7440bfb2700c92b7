"""Stored statistics of real pictures: files that stand for a real set in the Fréchet distance.

An `.npz` with `mu` and `sigma`, as TTUR, pytorch-fid and clean-fid read and write it. Such a file
does not say what its features are; ours does, in further entries that these programs ignore.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfgan_med import files
from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation.looking import Wanted
from tfgan_med.evaluation.measuring import Evaluation, Options, Outcome
from tfgan_med.evaluation.pictures import Pictures
from tfgan_med.metrics.base import Measured, Progress, Result
from tfgan_med.metrics.fid import FID, Statistics
from tfgan_med.networks.features import FeatureNetwork

_EXPECTED = (
    "Statistics are an .npz file with `mu` (features,) and `sigma` (features, features), as "
    "pytorch-fid and TTUR write it; `count`, one number, is optional. Make it again."
)


# Files --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """What features were made of; those of another origin mean something else.

    Attributes:
        protocol, extractor, weights_sha256: of the feature network, see `base.Result`.
        image_size: height and width before the protocol's resizing.
        value_range: values that became 0 and 255.
        tile, channel: pictures were cut into squares of this side, or reduced to this channel;
            -1 if not.
    """

    protocol: str
    extractor: str
    weights_sha256: str
    image_size: tuple[int, int]
    value_range: tuple[float, float] = (0.0, 255.0)
    tile: int = -1
    channel: int = -1


def save(path: Path, statistics: Statistics, origin: Origin | None = None) -> Path:
    """Write statistics with what is known of them."""
    arrays: dict[str, Any] = {"mu": statistics.mean, "sigma": statistics.covariance}
    if statistics.count is not None:
        arrays["count"] = np.asarray(statistics.count, np.int64)
    if origin is not None:
        arrays |= {name: np.asarray(value) for name, value in asdict(origin).items()}
    with files.replacing(path) as temporary, temporary.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays)
    return path


def load(path: Path) -> tuple[Statistics, Origin | None]:
    """Read statistics, and their origin if the file is ours.

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
            return _read(stored, path)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"{path}: {reason}. {_EXPECTED}") from None


def _read(stored: Any, path: Path) -> tuple[Statistics, Origin | None]:
    ours = "protocol" in stored.files
    needed = {"mu", "sigma"} | ({field.name for field in fields(Origin)} if ours else set())
    absent = sorted(needed - set(stored.files))
    if absent:
        raise DataError(f"{path}: no {' and no '.join(absent[:3])} in it. {_EXPECTED}")
    statistics = Statistics(
        np.asarray(stored["mu"], np.float64),
        np.asarray(stored["sigma"], np.float64),
        int(stored["count"].item()) if "count" in stored.files else None,
    )
    return statistics, _read_origin(stored) if ours else None


def _read_origin(stored: Any) -> Origin:
    height, width = (int(side) for side in stored["image_size"])
    low, high = (float(end) for end in stored["value_range"])
    return Origin(
        protocol=str(stored["protocol"].item()),
        extractor=str(stored["extractor"].item()),
        weights_sha256=str(stored["weights_sha256"].item()),
        image_size=(height, width),
        value_range=(low, high),
        tile=int(stored["tile"].item()),
        channel=int(stored["channel"].item()),
    )


# Of the real side of an evaluation ----------------------------------------------------------------


def require_new(path: Path) -> None:
    """Whether statistics can be written here; to be asked before hours of measuring.

    Raises:
        UserError: a file is there already, its folder is not, or the name ends otherwise.
    """
    if path.exists():
        raise UserError(f"{path}: is there already and stays as it is. Name another file.")
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise UserError(
            f"{path}: no .npz file in an existing folder, as programs that read statistics expect "
            "it. Give a file such as real.npz."
        )


def save_real(path: Path, outcome: Outcome) -> Path:
    """Write the statistics of the real side of an evaluation with the FID."""
    features = outcome.real.features
    assert features is not None
    result = outcome.results[0]
    origin = Origin(
        protocol=result.protocol,
        extractor=result.extractor,
        weights_sha256=result.weights_sha256,
        image_size=result.image_size,
        value_range=result.value_range,
        tile=result.settings.get("tile", -1),
        channel=result.settings.get("channel", -1),
    )
    return save(path, Statistics.of(features), origin)


# In place of a real side --------------------------------------------------------------------------


class AgainstStatistics(Evaluation):
    """The Fréchet distance of a generated set from stored statistics.

    The generated pictures keep their size, or get one by `options.resize`.

    Args:
        metric: with its settings; classes and halves of the real set are left out.
        path: of the statistics.
        fake: the generated set; its pictures must have one size after preparation.
        options, progress: see `Evaluation`; the window is that of the statistics.
        network: that the statistics were made with.
    Raises:
        UserError: no such file, or statistics of another origin.
        DataError: a file without statistics.
    """

    def __init__(
        self,
        metric: FID,
        path: Path,
        fake: Pictures,
        options: Options,
        network: FeatureNetwork,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.metric, self.path, self.fake = metric, path, fake
        self.statistics, self.origin = load(path)
        if options.window is None:
            # Without a real set, nothing but the file knows what is black and what white.
            window = self.origin.value_range if self.origin else (0.0, 255.0)
            options = replace(options, window=window)
        super().__init__([metric], fake, [fake], options, network=network, progress=progress)
        if self.origin:
            self._require_origin(self.origin, network)

    def results(self) -> tuple[Result, ...]:
        """Compute the numbers.

        Raises:
            UserError: too few pictures, or features of another length.
            DataError: a picture that cannot be read.
        """
        seen = self._look(self.fake, Wanted.by([self.metric]))
        try:
            measured = self.metric.measure_from_statistics(
                self.statistics, seen.side, self._context()
            )
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None
        return tuple(
            replace(
                self._result(one, seen, seen, self.fake, self.fake),
                real=str(self.path),
                count_real=self.statistics.count,
            )
            for one in measured
        )

    def _require_origin(self, origin: Origin, network: FeatureNetwork) -> None:
        """Statistics of other features would give a number that means nothing."""
        now = Origin(
            network.protocol,
            network.name,
            network.sha256,
            self.size,
            self.preparation.window,
            -1 if self.options.tile is None else self.options.tile,
            -1 if self.options.channel is None else self.options.channel,
        )
        differing = list(_differences(origin, now))
        if differing:
            raise UserError(
                f"{self.path}: its statistics were made with {', '.join(differing[:3])}. Use "
                "the same (--protocol, --weights, --resize and so on), or make the statistics "
                "again with --save-statistics."
            )

    def _notes(self, measured: Measured, real: Pictures, fake: Pictures) -> tuple[str, ...]:
        # Both sides are the generated set here, and have all files in common.
        notes = super()._notes(measured, replace(real, records=()), fake)
        if self.origin is not None or self.network is None:
            return notes
        return (
            *notes,
            f"{self.path} does not say how it was made: the value means something only if its "
            f"features are those of {self.network.name}, protocol {self.network.protocol}.",
        )


def _differences(stored: Origin, now: Origin) -> Iterator[str]:
    """What differs, as `protocol clean (not ttur)`."""
    ours, theirs = _described(now), _described(stored)
    for name, text in theirs.items():
        if text != ours[name]:
            yield f"{name} {text} (not {ours[name]})"


def _described(origin: Origin) -> dict[str, str]:
    """Every field in words, each distinct for distinct values."""
    return {
        "protocol": origin.protocol,
        "the network": origin.extractor,
        "weights": origin.weights_sha256,
        "pictures of": "{} x {}".format(*origin.image_size),
        "a window of": "{} to {}".format(*origin.value_range),
        "tile": "none" if origin.tile == -1 else str(origin.tile),
        "channel": "none" if origin.channel == -1 else str(origin.channel),
    }
