"""From a subset study to its cells: what is chosen, trained, made and measured.

For each set its pictures are written once, at the size that networks see. Everything else works
on these: `select` chooses from them, a generator learns from the choice alone, what it makes is
held against the whole set and against the choice.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.config import Values
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError, UserError
from tfgan_med.experiments import sets, trainings
from tfgan_med.experiments.cells import Cell, Store, key_of
from tfgan_med.experiments.real_data import RealData
from tfgan_med.experiments.subset_protocol import (
    Generator,
    Metrics,
    Source,
    StudySet,
    Subset,
    SubsetStudy,
)
from tfgan_med.networks import lpips, pretrained
from tfgan_med.networks.extractors import ExtractorChoice
from tfgan_med.training import settings

RESULTS = "results.jsonl"
_METRIC_NAMES = {"is": "inception_score", "fid": "fid", "kid": "kid"}
_PERCEPTUAL = {
    "keras-vgg16": ("vgg16", None),
    "squeezenet-caffe": ("squeezenet", "lpips-squeeze-linear"),
}


@dataclass(frozen=True)
class Origin:
    """A generator that others adapt.

    Attributes:
        name: of the source.
        place: the run's folder or the file, there or to come.
        cell: its training; None if it was there before.
        key: hash of what it is.
    """

    name: str
    place: Path
    cell: Cell | None
    key: str


@dataclass(frozen=True)
class Repeat:
    """One generator on one choice from one set with one seed.

    Attributes:
        set, subset, generator, seed: what it is.
        selection, training, pictures: its cells, in order.
        measures: by what they look at: `set`, `fid_subset`, `cid`.
    """

    set: str
    subset: str
    generator: str
    seed: int
    selection: Cell
    training: Cell
    pictures: Cell
    measures: Mapping[str, Cell]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All that it needs to be finished."""
        return (self.selection, self.training, self.pictures, *self.measures.values())


@dataclass(frozen=True)
class SubsetPlan:
    """Cells in an order in which each follows what it needs.

    Attributes:
        cells: all of them.
        reals: the pictures of each set.
        origins: sources by name.
        selections: by set, subset and seed.
        overviews: all choices from a set side by side, with the first seed.
        repeats: what the cells are for.
        undecided: none are; see `cells.Work`.
    """

    cells: tuple[Cell, ...]
    reals: Mapping[str, Cell]
    origins: Mapping[str, Origin]
    selections: Mapping[tuple[str, str, int], Cell]
    overviews: Mapping[str, Cell]
    repeats: tuple[Repeat, ...]
    undecided: int = field(default=0)

    def by_name(self) -> dict[str, Cell]:
        """The cells by the names of their folders."""
        return {cell.name: cell for cell in self.cells}


class SubsetPlanner:
    """Makes the plan of one study.

    Args:
        study: what is asked.
        reals: the pictures of each set.
        sources: the pictures of each source that is trained here.
        store: where cells are.
        base: folder of the study's file, to which paths in settings of models are relative.
    Raises:
        UserError: if settings of a model are wrong.
        DataError: if a set has fewer pictures than a subset.
    """

    def __init__(
        self,
        study: SubsetStudy,
        reals: Mapping[str, RealData],
        sources: Mapping[str, RealData],
        store: Store,
        base: Path,
    ) -> None:
        self.study = study
        self.reals = reals
        self.sources = sources
        self.store = store
        self.base = base
        self.notices: list[str] = []
        self._measures = self._measurable()
        for name in study.sets:
            self._check_count(name)
            self._check_perceptual(name)
        self._plan = self._planned()

    def plan(self) -> SubsetPlan:
        """All cells."""
        return self._plan

    def _planned(self) -> SubsetPlan:
        study = self.study
        reals = {name: self._real_pictures(name) for name in study.sets}
        origins = {name: self._origin(name, one) for name, one in study.used_sources.items()}
        selections = {
            (name, subset, seed): self._selection(name, reals[name], subset, how, seed)
            for name in study.sets
            for subset, how in study.subsets_of(name).items()
            for seed in study.seeds
        }
        # All of a seed before the next one: a study that is stopped early has whole repeats.
        repeats = tuple(
            self._repeat(name, reals[name], subset, generator, seed, selection, origins)
            for number in study.seeds
            for (name, subset, seed), selection in selections.items()
            if seed == number
            for generator in study.generators
        )
        overviews = {
            name: self._overview(name, [selections[name, s, study.seeds[0]] for s in own])
            for name in study.sets
            if len(own := study.subsets_of(name)) > 1
        }
        trained = [origin.cell for origin in origins.values() if origin.cell]
        cells = [*reals.values(), *trained, *selections.values()]
        cells += [cell for repeat in repeats for cell in repeat.cells]
        cells += overviews.values()
        unique = {cell.name: cell for cell in cells}
        return SubsetPlan(tuple(unique.values()), reals, origins, selections, overviews, repeats)

    # Pictures -------------------------------------------------------------------------------

    def _check_count(self, name: str) -> None:
        found = self.study.sets[name]
        count = sum(sum(part.values()) for part in self.counts(name).values())
        if found.fit != "patches" and count < self.study.size:
            which = "training pictures" if found.pictures == "train" else "pictures"
            cure = " or set pictures: all" if found.pictures == "train" else ""
            raise DataError(
                f"sets.{name}: has {count} {which}, a subset is to have {self.study.size}. Lower "
                f"size, add pictures{cure}."
            )

    def _check_perceptual(self, name: str) -> None:
        size = self.study.sets[name].image_size
        similarity = self.study.metrics.cid_similarity
        if "cid" in self._measures and similarity == "lpips" and size < lpips.SMALLEST:
            raise UserError(
                f"sets.{name}.image_size: {size}, but LPIPS sees pictures of at least "
                f"{lpips.SMALLEST} px. Raise it, or set metrics.cid_similarity: ssim."
            )

    def counts(self, name: str) -> dict[str, dict[str, int]]:
        """Pictures that subsets of a set are chosen from, by split and class."""
        real = self.reals[name]
        of = ("train",) if self.study.sets[name].pictures == "train" else ("train", "val", "test")
        return {split: real.counts(split) for split in of}  # type: ignore[arg-type]

    def _real_pictures(self, name: str) -> Cell:
        real, data = self.reals[name], self.study.sets[name].data
        how = data.model_dump(mode="json", include={"image_size", "fit", "scale", "window"})
        content = {"data": real.fingerprint(), "how": how}
        job = functools.partial(sets.write_reals, real, data)
        return Cell("measure", f"reals-{name}", key_of("measure", content), job=job)

    # Sources --------------------------------------------------------------------------------

    def _origin(self, name: str, source: Source) -> Origin:
        if source.file is not None:
            return Origin(name, source.file, None, files.sha256_of(source.file))
        if source.run is not None:
            weights = source.run / "weights"
            if not (weights / "network.yaml").is_file():
                raise UserError(
                    f"sources.{name}.run: {source.run} has no weights/network.yaml, so it is no "
                    "run of a generator that got to its first step. Name another, or train one."
                )
            return Origin(name, source.run, None, sets.content_of(weights))
        cell = self._source_training(name, source)
        return Origin(name, self.store.path(cell), cell, cell.key)

    def _source_training(self, name: str, source: Source) -> Cell:
        layers: list[Values] = [
            {"data": source.data, "model": source.model, "train": source.settings}
        ]
        chosen = trainings.resolved(str(source.train), f"sources.{name}", layers, self.base)
        real = self.sources[name]
        content = {"settings": trainings.content(chosen), "data": real.fingerprint()}
        return Cell(
            "source",
            name,
            key_of("source", content),
            settings=chosen,
            steps=trainings.steps(chosen, len(real.records("train"))),
            about={"source": name, "system": source.train},
        )

    # Choosing -------------------------------------------------------------------------------

    def _selection(self, name: str, reals: Cell, subset: str, how: Subset, seed: int) -> Cell:
        arguments, content = self._choosing(self.study.sets[name], how, seed)

        def command(folder: Path) -> list[str]:
            verb, *more = arguments
            data = str(self.store.path(reals))
            return ["select", verb, data, *more, "--out", str(folder), "--quiet"]

        return Cell(
            "select",
            f"{name}-{subset}-s{seed}",
            key_of("select", content, (reals,)),
            needs=(reals.name,),
            command=command,
            about={"set": name, "subset": subset, "seed": seed},
        )

    def _overview(self, name: str, chosen: Sequence[Cell]) -> Cell:
        def command(folder: Path) -> list[str]:
            folders = [f"{cell.about['subset']}={self.store.path(cell)}" for cell in chosen]
            # Its folder does not appear whole: what a stopped process left is replaced.
            return ["select", "compare", *folders, "--out", str(folder), "--force", "--json"]

        return Cell(
            "select",
            f"{name}-overview",
            key_of("select", {"compare": [cell.about["subset"] for cell in chosen]}, chosen),
            needs=tuple(cell.name for cell in chosen),
            command=command,
            output=RESULTS,
        )

    def _choosing(
        self, found: StudySet, how: Subset, seed: int
    ) -> tuple[list[str], dict[str, Any]]:
        """Arguments of `select`, and what of them a choice depends on."""
        asked = self.study.selection
        given: dict[str, Any] = {
            "--size": self.study.size,
            "--clusters": how.clusters if how.method == "kss" else None,
            "--split": found.pictures,
            "--image-size": found.image_size,
            "--mode": found.mode,
            "--pca-size": asked.pca_size,
            "--features": asked.features,
            "--variance": asked.variance if asked.components is None else None,
            "--components": asked.components,
            "--seed": seed,
        }
        if how.method in ("kss", "center"):
            given["--covariance"] = asked.covariance
            given["--max-quantile"] = asked.max_quantile
        if how.method == "kss":
            given["--covariance-scope"] = asked.covariance_scope
            given["--remainder"] = asked.remainder
        options = {key: str(value) for key, value in given.items() if value is not None}
        content = {"method": how.method, **options, "--features": _content_of(asked.features)}
        # Copies, so that the folder of a study can be moved and its pictures given away.
        words = [word for option in options.items() for word in option]
        return [how.method, *words, "--copy"], content

    # Learning and making --------------------------------------------------------------------

    def _repeat(
        self,
        name: str,
        reals: Cell,
        subset: str,
        generator: str,
        seed: int,
        selection: Cell,
        origins: Mapping[str, Origin],
    ) -> Repeat:
        how = self.study.generators[generator]
        source = how.source_for(name)
        origin = origins[source] if source else None
        label = f"{generator}-{name}-{subset}-s{seed}"
        facts = {"set": name, "subset": subset, "generator": generator, "seed": seed}
        trained = self._training(label, name, how, generator, seed, selection, origin, facts)
        made = self._making(label, how, seed, trained)
        measures = {
            what: self._measure(what, label, name, made, reals, selection)
            for what in self._measures
        }
        return Repeat(name, subset, generator, seed, selection, trained, made, measures)

    def _training(
        self,
        label: str,
        name: str,
        how: Generator,
        generator: str,
        seed: int,
        selection: Cell,
        origin: Origin | None,
        facts: Mapping[str, Any],
    ) -> Cell:
        """Training on the chosen pictures alone."""
        where = f"generators.{generator}"
        found = self.study.sets[name]
        self._check_system(where, how, origin)
        self._check_size(where, name, origin)
        fixed: Values = {
            "data": {
                "path": str(self.store.path(selection)),
                "image_size": found.image_size,
                "mode": found.mode,
            },
            "model": {"source": str(origin.place)} if origin else {},
            "train": {"seed": seed},
        }
        own: Values = {"data": how.data, "model": how.model, "train": how.settings}
        chosen = trainings.resolved(how.train, where, [own, fixed], self.base)
        needs = (selection, *((origin.cell,) if origin and origin.cell else ()))
        known = trainings.content(chosen)
        if origin:  # it counts by what it is, not by where
            known["model"] = {key: v for key, v in known["model"].items() if key != "source"}
        content = {"settings": known, "source": origin.key if origin else None}
        return Cell(
            "gan",
            label,
            key_of("gan", content, needs),
            needs=tuple(need.name for need in needs),
            settings=chosen,
            steps=trainings.steps(chosen, self.study.size),
            about={**facts, "system": how.train},
        )

    def _check_system(self, where: str, how: Generator, origin: Origin | None) -> None:
        """It makes pictures from nothing, or adapts a source that is named."""
        needs = str(settings.model_class(how.train).needs)
        if needs == "source":
            if origin is None and not how.model.get("random_source"):
                raise UserError(
                    f"{where}: {how.train} adapts a generator, and no source is named. Add "
                    "`from: NAME` with a block of that name below `sources`; to adapt an untrained "
                    "one, set model: {random_source: true}."
                )
        elif origin is not None:
            raise UserError(f"{where}.from: {how.train} adapts no source. Leave `from` out.")
        elif needs != "images":
            raise UserError(
                f"{where}.train: {how.train} makes pictures from others. Name a model that makes "
                "them from nothing, such as fastgan or dcgan."
            )

    def _check_size(self, where: str, name: str, origin: Origin | None) -> None:
        """What is adapted makes pictures of one size."""
        if origin is None or origin.cell is None or origin.cell.settings is None:
            return
        wanted = self.study.sets[name].image_size
        size = origin.cell.settings.data.image_size  # type: ignore[attr-defined]
        if size != wanted:
            raise UserError(
                f"{where}.from: {origin.name} is trained on pictures of {size} px, but those of "
                f"{name} have {wanted}. Set sources.{origin.name}.data.image_size to {wanted}."
            )

    def _making(self, label: str, how: Generator, seed: int, trained: Cell) -> Cell:
        bound = self.study.truncation_of(how)
        arguments = ["--count", str(self.study.count), "--seed", str(seed)]
        arguments += ["--checkpoint", how.checkpoint]
        arguments += [] if bound is None else ["--truncation", str(bound)]

        def command(folder: Path) -> list[str]:
            run = str(self.store.path(trained))
            return ["generate", run, *arguments, "--out", str(folder), "--quiet"]

        return Cell(
            "generate",
            label,
            key_of("generate", {"arguments": arguments}, (trained,)),
            needs=(trained.name,),
            command=command,
        )

    # Measuring ------------------------------------------------------------------------------

    def _measurable(self) -> dict[str, list[str]]:
        """Words of `evaluate` by what is looked at, where its networks are on this machine."""
        asked = self.study.metrics
        found: dict[str, list[str]] = {}
        features = _lacking_features(asked)
        wanted = [name for name in asked.measures if name != "cid"]
        if wanted and features:
            self._left_out(wanted, features, "features")
        elif wanted:
            if asked.of_the_set:
                names = ",".join(_METRIC_NAMES[name] for name in asked.of_the_set)
                found["set"] = ["all", "--metrics", names, *_feature_words(asked)]
            if "fid_subset" in asked.measures:
                found["fid_subset"] = ["fid", *_feature_words(asked)]
        if "cid" in asked.measures:
            perceptual = _lacking_perceptual(asked)
            if perceptual:
                self._left_out(["cid"], perceptual, "cid_similarity: ssim, lpips_trunk or _linear")
            else:
                found["cid"] = ["cid", *_cid_words(asked)]
        return found

    def _left_out(self, names: Sequence[str], weights: str, setting: str) -> None:
        self.notices.append(
            f"{', '.join(names)} will not be measured: the weights {weights} are not on this "
            f"machine. Import them (tfgan-med weights import {weights}), or choose otherwise with "
            f"metrics.{setting}."
        )

    def _measure(
        self, what: str, label: str, name: str, made: Cell, reals: Cell, selection: Cell
    ) -> Cell:
        of_set = what == "set"
        real = reals if of_set else selection
        split = self.study.sets[name].pictures if of_set else "train"
        words: list[str] = [*self._measures[what], "--real-split", split, "--no-interval"]
        needs = (real, made)
        content = {"arguments": [_content_of(word) for word in words]}

        def command(folder: Path) -> list[str]:
            pictures = ["--real", str(self.store.path(real)), "--fake", str(self.store.path(made))]
            verb, more = words[0], words[1:]
            return ["evaluate", verb, *pictures, *more, "--seed", "0", "--json", "--quiet"]

        return Cell(
            "measure",
            f"{what.replace('_', '-')}-{label}",
            key_of("measure", content, needs),
            needs=tuple(need.name for need in needs),
            command=command,
            output=RESULTS,
        )


def source_data(study: SubsetStudy, base: Path) -> dict[str, DataConfig]:
    """The pictures of the sources that are trained here.

    Raises:
        UserError: if settings of a source are wrong.
    """
    found = {}
    for name, source in study.used_sources.items():
        if source.train is not None:
            layers: list[Values] = [
                {"data": source.data, "model": source.model, "train": source.settings}
            ]
            chosen = trainings.resolved(source.train, f"sources.{name}", layers, base)
            found[name] = chosen.data
    return found


def _content_of(word: str | None) -> str | None:
    """A word of a command; a network's file by what is in it, not by where it is."""
    path = Path(word or "")
    return files.sha256_of(path) if path.is_absolute() and path.is_file() else word


def _lacking_features(asked: Metrics) -> str | None:
    """Weights of the feature network that are not on this machine."""
    needed = ExtractorChoice(protocol=asked.protocol, features=asked.features).store_name
    return needed if needed and not pretrained.find(needed) else None


def _lacking_perceptual(asked: Metrics) -> str | None:
    """Weights of the perceptual network that are not on this machine."""
    if asked.cid_similarity == "ssim":
        return None
    default = (f"lpips-{asked.lpips_net}", f"lpips-{asked.lpips_net}-linear")
    trunk, linear = _PERCEPTUAL.get(asked.lpips_net, default)
    if asked.lpips_trunk is None and trunk and not pretrained.find(trunk):
        return trunk
    if asked.lpips_linear is None and linear and not pretrained.find(linear):
        return linear
    return None


def _feature_words(asked: Metrics) -> list[str]:
    named = {
        "--protocol": asked.protocol,
        "--features": asked.features,
        "--features-output": asked.features_output,
        "--logits-output": asked.logits_output,
    }
    return [word for key, value in named.items() if value for word in (key, value)]


def _cid_words(asked: Metrics) -> list[str]:
    words = ["--similarity", asked.cid_similarity, "--set", f"images={asked.cid_images}"]
    if asked.cid_threshold is not None:
        words += ["--threshold", str(asked.cid_threshold)]
    if asked.cid_similarity == "lpips":
        words += ["--lpips-net", asked.lpips_net]
        for option, path in (
            ("--lpips-trunk", asked.lpips_trunk),
            ("--lpips-linear", asked.lpips_linear),
        ):
            words += [option, str(path)] if path else []
    return words
