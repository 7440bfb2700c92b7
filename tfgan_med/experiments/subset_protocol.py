"""The question of a subset study as settings: sets, ways of choosing, generators, repeats.

A file with the block `subsets` is such a study: from each set a few pictures are chosen in several
ways, a generator learns from each choice, and what it makes is measured. Nothing here loads
TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field

from tfgan_med import config, discovery
from tfgan_med.config import Config, Location, Values
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.experiments import blocks
from tfgan_med.experiments.protocol import MODELS, SPLIT_KEYS

Measure = Literal["is", "fid", "kid", "fid_subset", "cid"]
MEASURES: tuple[Measure, ...] = ("is", "fid", "kid", "fid_subset", "cid")
"""What can be asked for; `cid` brings its three parts."""
VALUES = ("is", "fid", "kid", "fid_subset", "c", "i", "d", "d_normalized", "cid")
"""What is measured, in the order of the table's columns."""
# What decides which pictures a generator sees: the study, not the generator.
_FIXED_DATA = (*SPLIT_KEYS, "image_size", "mode", "target", "fit", "scale", "hold_out")
_KSS = re.compile(r"kss(\d+)")


class StudySet(Config):
    """Real pictures that subsets are chosen from."""

    path: Location
    """Folder, CSV table or `builtin:<name>`."""
    layout: str = "auto"
    """How the folder is laid out; see `tfgan-med list layouts`."""
    columns: dict[str, str] = {}
    """CSV tables: our column name to theirs."""
    image_size: int = Field(128, ge=8)
    """Side of the pictures that are chosen from, learned and measured, in pixels."""
    fit: Literal["crop", "pad", "stretch", "patches"] = "crop"
    """How a picture that is not square becomes one."""
    scale: float = 1.0
    """With `fit: patches`, the factor by which pictures are resized before tiles are cut."""
    mode: Literal["auto", "gray", "rgb"] = "auto"
    """Channels of the pictures."""
    window: tuple[float, float] | None = None
    """Values that become black and white."""
    label: str | None = None
    """Use the pictures of this class only."""
    pictures: Literal["train", "all"] = "train"
    """Pictures that subsets are chosen from and that FID and KID compare with."""
    split: Literal["auto", "given", "random", "group"] = "auto"
    """Where the splits come from, as in every run."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of train, val and test when we split."""
    split_seed: int = 0
    """Seed of the splits we make."""
    skip_bad: bool = False
    """Leave unreadable pictures out instead of refusing the set."""
    source: str | None = None
    """Citation and licence, for the report."""

    @property
    def data(self) -> DataConfig:
        """As readers take it."""
        own = {key: getattr(self, key) for key in DataConfig.model_fields if key in _SHARED}
        return DataConfig(**own)


_SHARED = frozenset(StudySet.model_fields) - {"source", "pictures"}


class Subset(Config):
    """A way of choosing pictures."""

    method: Literal["kss", "center", "random", "kcenter"]
    """kss: farthest from the centers of clusters; center: nearest to the mean; random; kcenter:
    farthest from each other."""
    clusters: int = Field(1, ge=1)
    """Of kss: how many clusters (G)."""
    label: str = ""
    """What the report calls it; by default method and clusters."""
    sets: tuple[str, ...] = ()
    """Sets that are chosen from in this way; by default all."""

    @property
    def title(self) -> str:
        """What the report calls it."""
        if self.label:
            return self.label
        return f"KSS, G = {self.clusters}" if self.method == "kss" else self.method.capitalize()


class Selection(Config):
    """Options that all ways of choosing share."""

    variance: float = Field(0.9, gt=0, le=1)
    """Share of the variance that principal components keep."""
    components: int | None = Field(None, ge=1)
    """Number of components, in place of `variance`."""
    covariance: Literal[
        "ledoit_wolf", "empirical", "oas", "ridge", "pooled", "euclidean", "pinv"
    ] = "ledoit_wolf"
    """Estimator behind the Mahalanobis distance; the original's is `empirical`, which is singular
    in small clusters."""
    covariance_scope: Literal["cluster", "pooled", "global"] = "cluster"
    """Covariance of each cluster, within clusters together, or of the whole set."""
    remainder: Literal["size", "dispersion"] = "size"
    """Which clusters give one more where the size is no multiple of their number."""
    max_quantile: float | None = Field(None, gt=0, le=1)
    """Leave out pictures farther than this quantile, as outliers."""
    pca_size: int | None = Field(None, ge=4)
    """Side that pictures are reduced to before components are fitted."""
    features: str | None = None
    """Choose by features of a network (vgg16, squeezenet, a file) in place of pixels."""


class Source(Config):
    """A generator that others adapt: exactly one of `file`, `run` and `train`."""

    file: Path | None = None
    """A published generator, such as ResNetGenerator_850000.npz."""
    run: Path | None = None
    """A finished run."""
    train: str | None = None
    """Model to train here, once, such as sngan."""
    data: dict[str, Any] = {}
    """Its pictures, the block `data` of a run."""
    model: dict[str, Any] = {}
    """Settings of the model."""
    settings: dict[str, Any] = {}
    """Settings of its training, the block `train` of a run."""

    @property
    def origin(self) -> Literal["file", "run", "train"]:
        """Where it comes from."""
        if self.train is not None:
            return "train"
        return "run" if self.run is not None else "file"


class Generator(Config):
    """A model that learns from every subset."""

    model_config = ConfigDict(populate_by_name=True)

    train: str
    """Model to train, such as bsa or fastgan."""
    start: str | dict[str, str] | None = Field(None, alias="from")
    """Source that it adapts; a mapping names one for each set."""
    data: dict[str, Any] = {}
    """Settings of the data that differ for it, such as {flip: false}."""
    model: dict[str, Any] = {}
    """Settings of the model."""
    settings: dict[str, Any] = {}
    """Settings of its training, the block `train` of a run."""
    truncation: float | Literal["study"] | None = "study"
    """Bound of the latents of its pictures, or null for none; by default the study's."""
    checkpoint: Literal["final", "latest", "best"] = "final"
    """Weights that make the pictures."""

    def source_for(self, name: str) -> str | None:
        """Name of the source that it adapts for a set."""
        return self.start.get(name) if isinstance(self.start, dict) else self.start


class Metrics(Config):
    """What is measured, with which networks."""

    measures: tuple[Measure, ...] = Field(MEASURES, min_length=1)
    """is, fid and kid look at the whole set, fid_subset and cid (with C, I and D) at the chosen
    pictures."""
    features: str | None = None
    """Feature network of IS, FID and KID: vgg16, squeezenet, a .keras file, a frozen graph (.pb);
    by default Inception."""
    features_output: str | None = None
    """Its tensor or layer with the features, where the file does not tell."""
    logits_output: str | None = None
    """Its tensor or layer with class scores, for IS."""
    protocol: Literal["ttur", "clean", "pytorch-fid", "keras"] = "ttur"
    """Protocol of Inception."""
    cid_similarity: Literal["lpips", "ssim"] = "lpips"
    """What makes pictures alike in C and D."""
    cid_threshold: float | None = Field(None, ge=0, le=1)
    """LPIPS up to which, or SSIM from which on, pictures are alike; by default 0.2 and 0.8."""
    cid_images: int = Field(250, ge=2, le=10_000)
    """Pictures of a side that CID looks at, at most; D grows with them."""
    lpips_net: str = "alex"
    """Perceptual network: alex, vgg, squeeze; others as in docs/metrics.md."""
    lpips_trunk: Path | None = None
    """Weights of its trunk."""
    lpips_linear: Path | None = None
    """Its linear layers."""

    @property
    def of_the_set(self) -> tuple[str, ...]:
        """Measures against the whole set."""
        return tuple(name for name in self.measures if name in ("is", "fid", "kid"))


class SubsetStudy(Config):
    """Sets, ways of choosing, generators and repeats: do spread subsets make diverse pictures?"""

    experiment: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of its folder."""
    question: str = ""
    """What it asks, in a sentence."""
    sets: dict[str, StudySet]
    """Real pictures by name."""
    subsets: dict[str, Subset]
    """Ways of choosing by name."""
    size: int = Field(100, ge=2)
    """Pictures of a subset."""
    selection: Selection = Selection()
    """Options that all ways of choosing share."""
    sources: dict[str, Source] = {}
    """Generators that others adapt, by name."""
    generators: dict[str, Generator]
    """Models that learn from every subset, by name."""
    count: int = Field(5000, ge=2)
    """Pictures that each makes."""
    truncation: float | None = Field(None, gt=0)
    """Bound of the latent values of these pictures; null leaves it to the model (bsa has 0.3)."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Of the repeats: each repeats selection, training and generation."""
    metrics: Metrics = Metrics()
    """What is measured."""
    published: dict[str, dict[str, dict[str, float]]] = {}
    """Values of a paper: set, subset, measure; shown beside ours and judged by the same rules."""

    def subsets_of(self, name: str) -> dict[str, Subset]:
        """The ways of choosing from a set."""
        return {key: one for key, one in self.subsets.items() if not one.sets or name in one.sets}

    def truncation_of(self, generator: Generator) -> float | None:
        """Bound of the latents of a generator's pictures."""
        own = generator.truncation
        return self.truncation if own == "study" else own

    @property
    def reference(self) -> str | None:
        """The subset that others are compared with: the first random one."""
        return next((key for key, one in self.subsets.items() if one.method == "random"), None)

    @property
    def used_sources(self) -> dict[str, Source]:
        """Sources that some generator adapts."""
        used = {one.source_for(name) for one in self.generators.values() for name in self.sets}
        return {name: source for name, source in self.sources.items() if name in used}


def clusters_of(name: str, known: Mapping[str, Subset]) -> tuple[str, int] | None:
    """Method and clusters of a subset of the study, or of a paper's by its name (`kss100`)."""
    if name in known:
        return known[name].method, known[name].clusters
    found = _KSS.fullmatch(name)
    if found:
        return "kss", int(found[1])
    return (name, 1) if name in ("center", "random", "kcenter") else None


# Reading ------------------------------------------------------------------------------------------


def is_study(path: Path) -> bool:
    """Whether a file is a subset study."""
    return "subsets" in config.load_yaml(path)


def read(path: Path, scale: str | None = None, changes: Sequence[str] = ()) -> SubsetStudy:
    """The study of a file.

    Args:
        path: the YAML file; relative paths in it are relative to its folder.
        scale: block of `scales` to merge over the rest; a block that is null there is left out.
        changes: `--set` texts; `subsets.kss10.clusters=5` reaches into blocks.
    Raises:
        UserError: with every fault of a block, naming nearest names.
    """
    loose = config.resolve(_Loose, blocks.layers_of(path, scale, _located), changes)
    return _checked(loose, Path.cwd())


def parse(values: Values, folder: Path | None = None) -> SubsetStudy:
    """The study of values as a file would hold them; paths are relative to `folder`."""
    where = folder or Path.cwd()
    return _checked(config.resolve(_Loose, [("settings", _located(values, where))]), where)


class _Loose(SubsetStudy):
    """As in the file: blocks by name are not looked into yet."""

    sets: dict[str, Any] = {}
    subsets: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    generators: dict[str, Any] = {}
    published: dict[str, Any] = {}


_BLOCKS: dict[str, type[Config]] = {
    "sets": StudySet,
    "subsets": Subset,
    "sources": Source,
    "generators": Generator,
}


def _located(values: Values, folder: Path) -> Values:
    """Values with paths that no longer depend on where the file is."""
    absolute = blocks.absolute_in(folder)
    located = config.map_paths(SubsetStudy, values, absolute)
    for title, cls in _BLOCKS.items():
        if title in located:
            located[title] = blocks.located(cls, located[title], absolute)
    for title in ("metrics", "selection"):
        block: Any = located.get(title)
        if blocks.is_block(block) and isinstance(block.get("features"), str):
            features = blocks.file_or_name(block["features"], absolute)
            located[title] = {**block, "features": features}
    sources: Any = located.get("sources")
    if blocks.is_block(sources):
        located["sources"] = {
            name: {**one, "data": config.map_paths(DataConfig, one["data"], absolute)}
            if blocks.is_block(one) and blocks.is_block(one.get("data"))
            else one
            for name, one in sources.items()
        }
    return located


def _checked(loose: _Loose, folder: Path) -> SubsetStudy:
    """The study with its blocks read and its names known."""
    read_blocks = {
        title: blocks.read(cls, title, getattr(loose, title), folder, removable=True)
        for title, cls in _BLOCKS.items()
    }
    for title, example in _NEEDED.items():
        if not read_blocks[title]:
            raise UserError(f"{title}: not given. {example}")
    fields = {name: getattr(loose, name) for name in loose.model_fields_set}
    try:
        made = config.resolve(SubsetStudy, [("", {**fields, **read_blocks})])
    except UserError as error:  # of `published`, the only block that is not read yet
        raise UserError(str(error)) from None
    _check(made)
    return made


_NEEDED = {
    "sets": "Name the pictures to choose from, such as `sets: {faces: {path: faces}}`.",
    "subsets": "Name ways of choosing, such as `subsets: {random: {method: random}}`.",
    "generators": "Name a model that learns from them, such as "
    "`generators: {fastgan: {train: fastgan}}`.",
}


# Checking -----------------------------------------------------------------------------------------


def _check(study: SubsetStudy) -> None:
    for name, subset in study.subsets.items():
        _check_subset(f"subsets.{name}", subset, study)
    for name in study.sets:
        if not study.subsets_of(name):
            raise UserError(
                f"sets.{name}: no subset is chosen from it. Name it in the `sets` of one of "
                f"{', '.join(study.subsets)}, or leave the set out."
            )
    for name, generator in study.generators.items():
        _check_generator(f"generators.{name}", generator, study)
    for name, source in study.sources.items():
        _check_source(f"sources.{name}", source, used=name in study.used_sources)
    blocks.check_seeds(study.seeds)
    _check_metrics(study.metrics)
    for where, name, values in _published(study):
        _check_published(where, name, values, study)


def _check_subset(where: str, subset: Subset, study: SubsetStudy) -> None:
    if subset.method != "kss" and subset.clusters != 1:
        raise UserError(
            f"{where}.clusters: is of kss; {subset.method} has no clusters. Leave it out."
        )
    if subset.clusters > study.size:
        raise UserError(
            f"{where}.clusters: {subset.clusters} clusters, but a subset has {study.size} pictures "
            "and each cluster gives at least one. Lower clusters, or raise size."
        )
    for name in subset.sets:
        blocks.require_name(f"{where}.sets", name, "set", list(study.sets))


def _check_generator(where: str, generator: Generator, study: SubsetStudy) -> None:
    blocks.require_name(f"{where}.train", generator.train, "model", discovery.available(MODELS))
    for key in _FIXED_DATA:
        if key in generator.data:
            raise UserError(
                f"{where}.data.{key}: cannot be set here, for all generators of a study learn from "
                "the same pictures. Set it in the block of the set."
            )
    if "seed" in generator.settings:
        raise UserError(f"{where}.settings.seed: follows from `seeds`. Leave it out.")
    if "source" in generator.model:
        raise UserError(f"{where}.model.source: is named by `from`, below `sources`. Use `from`.")
    if isinstance(generator.start, dict):
        for name in generator.start:
            blocks.require_name(f"{where}.from", name, "set", list(study.sets))
    for name in study.sets:
        source = generator.source_for(name)
        if source is not None:
            blocks.require_name(f"{where}.from", source, "source", list(study.sources))
        elif isinstance(generator.start, dict):
            raise UserError(f"{where}.from: names no source for the set {name}. Add one.")


def _check_source(where: str, source: Source, used: bool) -> None:
    given = [key for key in ("file", "run", "train") if getattr(source, key) is not None]
    if len(given) != 1:
        raise UserError(
            f"{where}: has {' and '.join(given) or 'no origin'}; expected one of train (a model), "
            "run (a finished run) and file (a published generator)."
        )
    if source.train is None:
        idle = [key for key in ("data", "model", "settings") if getattr(source, key)]
        if idle:
            raise UserError(
                f"{where}.{idle[0]}: is of a model that is trained here. Leave it out, or train "
                "with `train:`."
            )
        place = source.run or source.file
        if used and place is not None and not place.exists():
            raise UserError(
                f"{where}.{given[0]}: {place}: no such {'folder' if source.run else 'file'}. "
                "Get it, or train a source with `train: sngan`."
            )
        return
    blocks.require_name(f"{where}.train", source.train, "model", discovery.available(MODELS))
    if not source.data.get("path"):
        raise UserError(
            f"{where}.data.path: not given. Name the pictures that the source learns from, such as "
            "data: {path: ../faces, image_size: 64}."
        )


def _check_metrics(metrics: Metrics) -> None:
    if metrics.cid_similarity == "ssim" and (metrics.lpips_trunk or metrics.lpips_linear):
        raise UserError(
            "metrics.lpips_trunk and lpips_linear: are of cid_similarity: lpips. Leave them out."
        )
    for key in ("lpips_trunk", "lpips_linear"):
        path = getattr(metrics, key)
        if path is not None and not path.is_file():
            raise UserError(f"metrics.{key}: {path}: no such file.")


def _published(study: SubsetStudy) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    for name, subsets in study.published.items():
        for subset, values in subsets.items():
            yield f"published.{name}.{subset}", subset, values


def _check_published(
    where: str, name: str, values: Mapping[str, float], study: SubsetStudy
) -> None:
    if clusters_of(name, study.subsets) is None:
        known = [*study.subsets, "kss<number of clusters>"]
        raise UserError(f"{where}: {discovery.unknown(name, 'subset', known)}")
    for key in values:
        blocks.require_name(where, key.removesuffix("_sd"), "measure", list(VALUES))


# Writing ------------------------------------------------------------------------------------------


def as_yaml(study: SubsetStudy, folder: Path) -> str:
    """All settings, as `read` takes them; paths are relative to the folder it is written to."""
    values = study.model_dump(mode="json", by_alias=True)

    def relative(text: str) -> str:
        return config.relative(text, folder.absolute())

    values = config.map_paths(SubsetStudy, values, relative)
    for title, cls in _BLOCKS.items():
        values[title] = blocks.located(cls, values[title], relative)
    for block in values["sources"].values():
        block["data"] = config.map_paths(DataConfig, block["data"], relative)
    for title in ("metrics", "selection"):
        features = values[title]["features"]
        if features and Path(features).is_absolute():
            values[title]["features"] = relative(features)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return text
