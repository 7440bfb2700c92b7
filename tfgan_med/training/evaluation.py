"""Measures a generated set against a real one: folders, feature networks and metrics together."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from tfgan_med.data import decode, fitting
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import SPLITS, DataConfig, Part
from tfgan_med.errors import DataError, UserError
from tfgan_med.metrics import fid
from tfgan_med.metrics.base import FeatureCache, Features, Interval, Result, extract
from tfgan_med.networks import features as feature_networks
from tfgan_med.networks import pretrained
from tfgan_med.networks.features import FeatureNetwork, Protocol, Range

Array = npt.NDArray[Any]
Policy = Literal["crop", "pad", "stretch"]
Progress = Callable[[str, int, int], None]  # what is done, items done, items in all
Item = TypeVar("Item")
Output = TypeVar("Output")

_ROUNDED = ("ttur", "pytorch-fid")  # their pipelines read pictures saved with 8 bit
_SAMPLED = 4096  # pixels of a picture that the default window looks at


# Feature networks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """Which features to compare.

    Attributes:
        protocol: of the Inception network; not used with `features`.
        weights: file for the protocol's network; by default the one in the weights folders.
        dims: 64, 192, 768 or 2048 features; all but 2048 with `pytorch-fid`.
        features: another network: a `.keras` model or a frozen graph.
        input_name, output_name: its tensors or layer.
        value_range: numbers it expects for black and white.
    """

    protocol: Protocol = "ttur"
    weights: Path | None = None
    dims: int = 2048
    features: Path | None = None
    input_name: str | None = None
    output_name: str | None = None
    value_range: Range = "-1..1"

    def load(self) -> FeatureNetwork:
        """Build the network.

        Raises:
            MissingWeightsError: the weights are not on this machine.
            UserError: a file that is not what it should be, or settings that exclude each other.
        """
        if self.features is not None:
            if self.weights is not None or self.dims != 2048:
                raise UserError(
                    "--features brings its own weights and dimension. Leave --weights and --dims "
                    "out, or --features."
                )
            return feature_networks.foreign(
                self.features, self.input_name, self.output_name, self.value_range
            )
        if self.protocol not in feature_networks.PROTOCOLS:
            raise UserError(
                f"protocol is {self.protocol!r}, which is unknown. Protocols: "
                f"{', '.join(feature_networks.PROTOCOLS)}."
            )
        if self.protocol == "keras":
            return feature_networks.inception_keras(
                pretrained.locate("inception-keras", self.weights)
            )
        path = pretrained.locate("inception-2015", self.weights)
        return feature_networks.inception_2015(path, self.protocol, self.dims)


# Two sets of pictures -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """One side of a comparison: pictures that are read when they are needed.

    Attributes:
        name: the folder, as the user calls it.
        parts: the pictures, in order.
        sizes: height and width with their number.
    """

    name: str
    parts: tuple[Part, ...]
    sizes: Counter[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.parts)


@dataclass(frozen=True)
class Preparation:
    """How pictures of both sides become 8-bit-equivalent RGB.

    Attributes:
        window: values that become 0 and 255.
        rounded: round to whole numbers, as saving does.
        resize: side of the square, None to leave the size.
        fit: how a picture that is not square becomes one.
        max_pixels: larger pictures are not decoded.
    """

    window: tuple[float, float]
    rounded: bool
    resize: int | None = None
    fit: Policy = "crop"
    max_pixels: int = DataConfig().max_pixels

    def read(self, part: Part) -> tuple[Array, int]:
        """`(height, width, 3)` in 0..255, uint8 if rounded else float32; and its own channels."""
        raw = decode.read_picture(part, self.max_pixels)
        if self.resize is not None:
            raw = fitting.fit(raw, self.resize, self.fit, nearest=False)[0][0]
        picture = self._windowed(raw, part)
        channels = picture.shape[-1]
        return (np.repeat(picture, 3, axis=-1) if channels == 1 else picture), channels

    def _windowed(self, raw: Array, part: Part) -> Array:
        low, high = self.window
        if raw.dtype == np.uint8 and self.window == (0.0, 255.0):
            return raw
        if raw.dtype != np.uint8 and self.window == (0.0, 255.0):
            raise DataError(
                f"{decode.short_name(part.path)}: {raw.dtype} values, while the first picture has "
                "8 bit. One window must serve both sets. Export all alike, or give --window."
            )
        values = (raw.astype(np.float32) - low) * np.float32(255.0 / (high - low))
        values = np.clip(values, 0.0, 255.0)
        return np.asarray(np.rint(values), np.uint8) if self.rounded else values


def open_pictures(path: str, split: str = "auto", role: str = "images") -> Pictures:
    """Find the pictures of a folder, table or built-in set; only their headers are read.

    Args:
        path: as `train` takes it.
        split: `train`, `val`, `test` or `all`; `auto` is `test` where the set has splits.
        role: which picture of an item.
    Raises:
        UserError: nothing there, an unknown split or role.
        DataError: no pictures, or one whose header cannot be read.
    """
    images = open_set(DataConfig(path=path))
    records = images.records
    if split not in ("auto", "all", *SPLITS):
        raise UserError(f"split is {split!r}; one of {', '.join(SPLITS)}, all.")
    given = {record.split for record in records}
    if split == "auto":
        split = "test" if "test" in given else "all"
    if split != "all":
        records = tuple(record for record in records if record.split == split)
    if not records:
        raise DataError(f"{path}: no pictures in the split {split}. Choose --real-split all.")
    if role not in images.roles:
        present = ", ".join(images.roles) or "nothing in common"
        raise UserError(f"{path}: its items have no {role}, but {present}. Choose with --role.")
    parts = tuple(record.parts[role] for record in records)
    sizes = Counter((height, width) for width, height in ahead(decode.picture_size, parts))
    return Pictures(path, parts, sizes)


def ahead(work: Callable[[Item], Output], items: Iterable[Item]) -> Iterator[Output]:
    """Results in order, from one thread per core, at most a few beyond the one being used."""
    workers = os.cpu_count() or 1
    running: deque[Future[Output]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > 4 * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _require_one_size(real: Pictures, fake: Pictures) -> tuple[int, int]:
    sizes = real.sizes.keys() | fake.sizes.keys()
    if len(sizes) == 1:
        return next(iter(sizes))
    smallest = min(min(size) for size in sizes)
    raise UserError(
        f"{real.name} has pictures of {_sizes(real.sizes)}, {fake.name} of {_sizes(fake.sizes)} "
        "(height x width). Only pictures of one size can be compared, since resizing itself "
        f"changes the distance. Add --resize {smallest} to bring all to one size."
    )


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    common = [f"{height} x {width}" for (height, width), _ in sizes.most_common(3)]
    more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
    return ", ".join(common) + more


def _window(
    real: Pictures, fake: Pictures, given: tuple[float, float] | None, max_pixels: int
) -> tuple[float, float]:
    """Values that become 0 and 255 on both sides.

    8-bit pictures keep theirs. Others take what all DICOM headers of the real set agree on, else
    the 0.1 and 99.9 percentile of the real set; never a window of each picture, which would make
    different sets look alike.
    """
    if given is not None:
        if not given[1] > given[0]:
            raise UserError(f"window is {given[0]:g} to {given[1]:g}; the second must be larger.")
        return given
    first = [decode.read_picture(side.parts[0], max_pixels).dtype for side in (real, fake)]
    if first == [np.uint8, np.uint8]:
        return 0.0, 255.0
    if first[0] != first[1]:
        raise UserError(
            f"{real.name} holds {first[0]} values, {fake.name} {first[1]}. Export both alike, or "
            "give the values that become black and white: --window 0 4095."
        )
    asked = {decode.default_window(part) for part in real.parts}
    if len(asked) == 1 and (agreed := asked.pop()) is not None:
        return agreed

    def sample(part: Part) -> Array:
        values = decode.read_picture(part, max_pixels).ravel()
        return values[:: max(1, len(values) // _SAMPLED)].astype(np.float64)

    values = np.concatenate(list(ahead(sample, real.parts)))
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
    return low, high if high > low else low + 1.0


# Fréchet distance ---------------------------------------------------------------------------------


def evaluate_fid(
    real: Pictures,
    fake: Pictures,
    network: FeatureNetwork,
    *,
    batch_size: int = 32,
    resize: int | None = None,
    fit: Policy = "crop",
    window: tuple[float, float] | None = None,
    ddof: int = 1,
    bootstrap: int = 0,
    floor: bool = False,
    seed: int = 0,
    cache: FeatureCache | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Result:
    """Fréchet distance between the features of two sets of pictures.

    Args:
        real, fake: see `open_pictures`.
        network: see `Network.load`; it decides the name of the result.
        batch_size: pictures per network pass.
        resize, fit: bring all pictures to squares of this side first.
        window: values that become black and white, for pictures that are not 8 bit.
        ddof: 0 for the covariances of StyleGAN2-ADA.
        bootstrap: subsets for an interval; 0 for none.
        floor: measure two halves of the real set too.
        seed: of subsets and halves.
        cache: where features are kept.
    Raises:
        UserError: sizes or types that differ between the sets, too few pictures.
        DataError: a picture that cannot be read.
    """
    size = _require_one_size(real, fake) if resize is None else (resize, resize)
    preparation = Preparation(
        _window(real, fake, window, DataConfig().max_pixels),
        network.protocol in _ROUNDED,
        resize,
        fit,
    )
    sides: list[tuple[Features, set[int]]] = []
    for side, what in ((real, "real pictures"), (fake, "generated pictures")):
        sides.append(_features(side, preparation, network, batch_size, cache, what, progress))
    (real_features, real_channels), (fake_features, fake_channels) = sides
    try:
        value = fid.frechet_distance(real_features, fake_features, ddof=ddof)
        interval = _interval(real_features, fake_features, bootstrap, seed, ddof, progress)
        halves = fid.split_halves_distance(real_features, seed, ddof=ddof) if floor else None
    except ValueError as error:
        raise UserError(str(error)) from None
    return Result(
        metric=network.metric,
        value=max(value, 0.0),  # rounding may leave -1e-9
        interval=interval,
        protocol=network.protocol,
        extractor=network.name,
        weights_sha256=network.sha256,
        dimension=network.dimension,
        count_real=len(real),
        count_fake=len(fake),
        image_size=size,
        color=_color(real_channels, fake_channels),
        value_range=preparation.window,
        real=real.name,
        fake=fake.name,
        ddof=ddof,
        floor=None if halves is None else max(halves, 0.0),
        seed=seed,
        notes=_notes(real, fake, network, (resize, fit) if resize else None),
    )


def _features(
    side: Pictures,
    preparation: Preparation,
    network: FeatureNetwork,
    batch_size: int,
    cache: FeatureCache | None,
    what: str,
    progress: Progress,
) -> tuple[Features, set[int]]:
    channels: set[int] = set()

    def pictures() -> Iterator[Array]:
        for done, (picture, own) in enumerate(ahead(preparation.read, side.parts)):
            channels.add(own)
            progress(what, done, len(side))
            yield picture
        progress(what, len(side), len(side))

    return extract(network, pictures(), batch_size, cache), channels


def _interval(
    real: Features, fake: Features, repeats: int, seed: int, ddof: int, progress: Progress
) -> Interval | None:
    if not repeats:
        return None
    return fid.bootstrap(
        real,
        fake,
        repeats,
        seed,
        ddof=ddof,
        progress=lambda done, total: progress("resamples", done, total),
    )


def _color(real: set[int], fake: set[int]) -> str:
    names = {1: "gray-x3", 3: "rgb"}
    described = ["+".join(names[n] for n in sorted(channels)) for channels in (real, fake)]
    if described[0] == described[1]:
        return described[0]
    return f"real {described[0]}, generated {described[1]}"


def _notes(
    real: Pictures, fake: Pictures, network: FeatureNetwork, resized: tuple[int, Policy] | None
) -> tuple[str, ...]:
    """What a reader must know to use the number."""
    notes = []
    count_real, count_fake = len(real), len(fake)
    fewest = min(count_real, count_fake)
    if fewest <= network.dimension:
        notes.append(
            f"{count_real} real and {count_fake} generated pictures for {network.dimension} "
            "features: the covariances are rank-deficient and small-sample bias dominates the "
            "value. Compare it only with values of the same counts and the same real set."
        )
    elif fewest < 10 * network.dimension:
        notes.append(
            f"{count_real} real and {count_fake} generated pictures: the value is biased upwards "
            "by the small number. Compare it only with values of the same counts."
        )
    if count_real != count_fake:
        notes.append(f"Unequal counts: {count_real} real, {count_fake} generated.")
    if resized:
        notes.append(f"All pictures were resized to {resized[0]} x {resized[0]} ({resized[1]}).")
    if network.name.startswith("inception"):
        notes.append(
            "The features come from photographs (ImageNet); for X-ray, CT and microscopy they "
            "see only part of what an expert sees."
        )
    shared = set(real.parts) & set(fake.parts)
    if shared:
        notes.append(f"{len(shared)} files are in both sets; the value says nothing about them.")
    return tuple(notes)


# Runs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sides:
    """Where the two sets are.

    Attributes:
        real, fake: paths as `open_pictures` takes them.
        run: the run that the generated set belongs to, if any; results are noted there.
    """

    real: str
    fake: str
    run: Path | None


def find_sides(real: str | None, fake: str | None, runs_dir: Path = Path("runs")) -> Sides:
    """From what the user gave to two folders.

    Args:
        real: folder, table or built-in set; by default the test pictures of the run.
        fake: the same, or a run by folder, number or `last`; by default the last run.
        runs_dir: folder of the runs.
    Raises:
        UserError: no such run, a run without translated test pictures, or no real set.
    """
    from tfgan_med.training.run_folder import find_run

    run = None
    if fake is None or fake == "last" or fake.isdigit() or (Path(fake) / "config.yaml").is_file():
        run = find_run(fake or "last", runs_dir)
        fake = str(run / "translated" / "test")
        if not Path(fake).is_dir():
            raise UserError(
                f"{run}: has no translated test pictures. Make them with `tfgan-med translate "
                f"{run}`, or name a folder of generated pictures with --fake."
            )
    else:
        run = _run_around(Path(fake))
    if real is None:
        reals = run / "reals" / "test" if run else None
        if reals is None or not reals.is_dir():
            raise UserError(
                f"{fake}: with which real pictures shall it be compared? Add --real DIR."
            )
        real = str(reals)
    return Sides(real, fake, run)


def _run_around(path: Path) -> Path | None:
    """The run folder that a folder lies in."""
    for folder in path.resolve().parents:
        if (folder / "config.yaml").is_file() and (folder / "translated").is_dir():
            return folder
    return None


def note_result(run: Path, result: Result) -> Path:
    """Append a result to `results.jsonl` of a run."""
    path = run / "results.jsonl"
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_results(run: Path) -> Sequence[dict[str, Any]]:
    """What was measured on a run so far, oldest first."""
    path = run / "results.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
