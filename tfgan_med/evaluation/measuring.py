"""Metrics on real and generated sets: one pass over each set, every number with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tfgan_med.data.records import Part
from tfgan_med.errors import UserError
from tfgan_med.evaluation.looking import Seen, Wanted, look, rows_of
from tfgan_med.evaluation.pictures import (
    Pictures,
    Policy,
    Preparation,
    common_window,
    require_one_size,
)
from tfgan_med.metrics.base import (
    Context,
    Measured,
    Metric,
    PerceptualNetwork,
    Progress,
    Result,
    Side,
)
from tfgan_med.networks.feature_cache import FeatureCache
from tfgan_med.networks.features import FeatureNetwork

_ROUNDED = ("ttur", "pytorch-fid")  # their pipelines read pictures saved with 8 bit


class NamedPerceptualNetwork(PerceptualNetwork, Protocol):
    """A `networks.lpips.LPIPS`, as far as results need it."""

    name: str
    sha256: str

    def name_of(self, measure: str) -> str:
        """Name of a value on its distances."""


@dataclass(frozen=True)
class Options:
    """How pictures are read and numbers found, whatever the metric.

    Attributes:
        resize, fit: bring all pictures to squares of this side first.
        tile: cut pictures into squares of this side; each counts as a picture.
        channel: compare this channel of color pictures alone.
        window: values that become black and white, for pictures that are not 8 bit.
        batch_size: pictures per network pass.
        intervals: resample for intervals.
        seed: of samples, halves and resamples.
        cache: where features are kept.
    """

    resize: int | None = None
    fit: Policy = "crop"
    tile: int | None = None
    channel: int | None = None
    window: tuple[float, float] | None = None
    batch_size: int = 32
    intervals: bool = True
    seed: int = 0
    cache: FeatureCache | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, fewest in (("resize", 1), ("tile", 1), ("channel", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < fewest:
                raise UserError(f"{name} is {value}; {fewest} or more is needed.")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; 0 or more is needed.")


@dataclass(frozen=True)
class Skipped:
    """A metric that could not be computed, and why."""

    metric: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What came out for one generated set.

    Attributes:
        results: the numbers with all they depend on, and
        measured: as the metrics gave them.
        skipped: metrics without one.
        real, fake: the sides as the metrics saw them, for figures.
        training: the training pictures, if memorization was measured.
    """

    results: tuple[Result, ...]
    measured: tuple[Measured, ...]
    skipped: tuple[Skipped, ...]
    real: Side
    fake: Side
    training: Side | None = None


class Evaluation:
    """Metrics on one real set and any number of generated ones.

    Every set is read once: the real side is kept for the next generated set.

    Args:
        metrics: to compute.
        real: real pictures.
        fakes: the generated sets; all sides must have one size after preparation.
        options: how pictures are read.
        network: for `features` and `logits`; None skips metrics that need them.
        perceptual: for `perceptual`; None skips metrics that need it.
        training: pictures the generator was trained on, for metrics that compare with them; by
            default the real set.
        held_out: real pictures it was not trained on.
        strict: a metric that cannot be computed is an error, not `Skipped`.
        progress: see `looking.look`.
    Raises:
        UserError: sizes or types that differ between the sets.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        real: Pictures,
        fakes: Sequence[Pictures],
        options: Options,
        *,
        network: FeatureNetwork | None = None,
        perceptual: NamedPerceptualNetwork | None = None,
        training: Pictures | None = None,
        held_out: Pictures | None = None,
        strict: bool = False,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.metrics = list(metrics)
        self.real = real
        self.options = options
        self.network = network
        self.perceptual = perceptual
        self.training = training
        self.held_out = held_out
        self.strict = strict
        self.progress = progress
        self.preparation = Preparation(
            window=common_window(real, fakes, options.window),
            window_given=options.window is not None,
            rounded=network is None or network.protocol.partition(",")[0] in _ROUNDED,
            resize=options.resize,
            fit=options.fit,
            tile=options.tile,
            channel=options.channel,
        )
        self.usual = [metric for metric in self.metrics if not metric.of_training]
        sized = [real, *fakes] if self.usual else fakes  # training pictures are fitted to these
        self.size = require_one_size(sized, self.preparation)
        self._seen: dict[tuple[Part, ...], Seen] = {}

    def of(self, fake: Pictures) -> Outcome:
        """Compute every metric for a generated set.

        Raises:
            UserError: with `strict`, a metric that cannot be computed.
            DataError: a picture that cannot be read.
        """
        against_training = [metric for metric in self.metrics if metric.of_training]
        wanted = Wanted.by(self.metrics)
        generated = self._look(fake, wanted)
        reference = self.training or self.real
        real = self._look(self.real if self.usual else reference, wanted)
        results: list[Result] = []
        all_measured: list[Measured] = []
        skipped: list[Skipped] = []

        def compute(metric: Metric, left: Seen, seen: Pictures, context: Context) -> None:
            name = metric.title()
            try:
                self._require_networks(metric, name)
                measured = metric.measure(left.side, generated.side, context)
            except (ValueError, UserError) as error:
                if self.strict:
                    raise UserError(str(error)) from None
                skipped.append(Skipped(name, str(error)))
                return
            all_measured.extend(measured)
            results.extend(self._result(m, left, generated, seen, fake) for m in measured)

        for metric in self.usual:
            compute(metric, real, self.real, self._context())
        training = None
        if against_training:
            unseen = replace(wanted, pictures=0)
            training = self._look(reference, unseen)
            held_out = None
            if self.held_out is not None:
                held_out = self._look(self.held_out, unseen).side
            for metric in against_training:
                compute(metric, training, reference, replace(self._context(), held_out=held_out))
        return Outcome(
            tuple(results),
            tuple(all_measured),
            tuple(skipped),
            real.side,
            generated.side,
            training.side if training else None,
        )

    def read(self, pictures: Pictures, rows: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        """Pictures by their row in a `Side`, `(height, width, 3)` uint8, as metrics saw them."""
        preparation = self._preparation_of(pictures)
        _, owners = rows_of(pictures, preparation)
        found = []
        for row in rows:
            tiles, _ = preparation.read(pictures.parts[owners[row]])
            tile = tiles[row - owners.index(owners[row])]
            found.append(np.asarray(np.rint(tile), np.uint8))
        return found

    def _context(self) -> Context:
        return Context(
            seed=self.options.seed,
            intervals=self.options.intervals,
            perceptual=self.perceptual,
            progress=self.progress,
        )

    def _require_networks(self, metric: Metric, name: str) -> None:
        needs = metric.required()
        if needs & {"features", "logits"} and self.network is None:
            raise UserError(f"{name} needs a feature network. Add --features, or import weights.")
        if "logits" in needs and self.network is not None and not self.network.classes:
            raise UserError(
                f"{name} needs class scores, which {self.network.name} does not give. Name their "
                "tensor with --logits-output, or take the Inception network."
            )
        if "perceptual" in needs and self.perceptual is None:
            raise UserError(f"{name} needs the networks of LPIPS. Import their weights.")

    def _look(self, pictures: Pictures, wanted: Wanted) -> Seen:
        key = pictures.parts  # the same pictures under two names are read once
        if key not in self._seen:
            self._seen[key] = look(
                pictures,
                self._preparation_of(pictures),
                self.size,
                wanted,
                self.network,
                batch_size=self.options.batch_size,
                seed=self.options.seed,
                cache=self.options.cache,
                progress=self.progress,
            )
        return self._seen[key]

    def _preparation_of(self, pictures: Pictures) -> Preparation:
        """Training pictures of another size are fitted as training did."""
        if {self.preparation.size_of(size) for size in pictures.sizes} == {self.size}:
            return self.preparation
        if self.size[0] != self.size[1]:
            raise UserError(
                f"{pictures.name}: its pictures are not {self.size[0]} x {self.size[1]} as the "
                "others. Add --resize N to bring all to one size."
            )
        return replace(self.preparation, resize=self.size[0])

    # Results --------------------------------------------------------------------------------------

    def _result(
        self, measured: Measured, left: Seen, right: Seen, real: Pictures, fake: Pictures
    ) -> Result:
        name, identity = self._identity(measured)
        return Result.of(
            measured,
            len(left.side),
            len(right.side),
            metric=name,
            **identity,
            image_size=self.size,
            color=_color(left.channels, right.channels),
            value_range=self.preparation.window,
            real=real.title,
            fake=fake.title,
            settings=measured.settings | self._reading(),
            seed=self.options.seed,
            notes=(*measured.notes, *self._notes(measured, real, fake)),
        )

    def _identity(self, measured: Measured) -> tuple[str, dict[str, Any]]:
        """Name of the value, and the network it depends on."""
        if measured.uses == "features" and self.network is not None:
            network = self.network
            return network.name_of(measured.name), {
                "protocol": network.protocol,
                "extractor": network.name,
                "weights_sha256": network.sha256,
                "dimension": network.dimension,
            }
        if measured.uses == "perceptual" and self.perceptual is not None:
            return self.perceptual.name_of(measured.name), {
                "protocol": "pixels in [-1, 1], own size",
                "extractor": self.perceptual.name,
                "weights_sha256": self.perceptual.sha256,
                "dimension": 0,
            }
        plain = {"protocol": "pixels", "extractor": "", "weights_sha256": "", "dimension": 0}
        return measured.name, plain

    def _reading(self) -> dict[str, Any]:
        """Options of reading that change every value."""
        options = {"tile": self.options.tile, "channel": self.options.channel}
        if self.options.resize is not None:
            options["resize"] = f"{self.options.resize} ({self.options.fit})"  # type: ignore[assignment]
        return {name: value for name, value in options.items() if value is not None}

    def _notes(self, measured: Measured, real: Pictures, fake: Pictures) -> tuple[str, ...]:
        notes = []
        if measured.uses == "features" and self.network and _of_photographs(self.network):
            notes.append(
                "The features come from photographs (ImageNet); for X-ray, CT and microscopy they "
                "see only part of what an expert sees."
            )
        shared = set(real.parts) & set(fake.parts)
        if shared:
            notes.append(
                f"{len(shared)} files are in both sets; the value says nothing about them."
            )
        if real.role.startswith("masks") or real.role in ("labels", "instances"):
            notes.append(
                "These are masks, not pictures: networks of photographs and pixel metrics say "
                "little about them. `tfgan-med evaluate labels` compares labels."
            )
        return tuple(notes)


def _of_photographs(network: FeatureNetwork) -> bool:
    return network.name.startswith(("inception", "vgg16", "squeezenet", "mobilenet"))


def _color(real: frozenset[int], fake: frozenset[int]) -> str:
    names = {1: "gray-x3", 3: "rgb"}
    described = ["+".join(names[n] for n in sorted(channels)) for channels in (real, fake)]
    if described[0] == described[1]:
        return described[0]
    return f"real {described[0]}, generated {described[1]}"
