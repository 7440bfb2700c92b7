"""The question of an experiment as settings: data, generators, downstream models, arms, repeats.

A YAML file with the words of `Experiment`; a named scale of it, such as `small`, is merged over the
rest. Nothing here loads TensorFlow: what a model's own settings may be is asked by `planning`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from tfgan_med import config, discovery
from tfgan_med.config import Config, Values
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.experiments import blocks

MODELS = "tfgan_med.models"
DOWNSTREAM = "tfgan_med.downstream"
METRICS = "tfgan_med.metrics"

# What decides which pictures are in which split: the same for everything that is trained.
SPLIT_KEYS = (
    *("path", "layout", "columns", "skip_bad", "label"),
    *("split", "fractions", "split_seed", "hold_out"),
)
HOLD_OUT = 0.2  # of the training pictures, where a set has no validation split


class Generator(Config):
    """Where synthetic pictures come from: exactly one of `train`, `run` and `folder`."""

    train: str | None = None
    """Model to train on the training split, such as fastgan."""
    run: Path | None = None
    """A finished run."""
    folder: Path | None = None
    """Synthetic pictures that are there already, laid out like the real ones."""
    per_class: bool = False
    """Train one model for each class."""
    data: dict[str, Any] = {}
    """Settings of the data that differ for this model, such as {target: masks}."""
    model: dict[str, Any] = {}
    """Settings of the model."""
    settings: dict[str, Any] = {}
    """Settings of its training, the block `train` of a run."""
    translate: Literal["a2b", "b2a", "both"] | None = None
    """Models of two kinds of pictures: which training pictures to translate. a2b makes pictures of
    B from training pictures of A."""
    input: str | None = None
    """Translate the masks that another generator makes."""
    count: int | None = Field(None, ge=1)
    """Pictures to make; classes in the proportion of the training pictures. By default as many as
    there are training pictures."""
    class_counts: dict[str, int] = {}
    """Pictures to make of each class, in place of `count`."""
    ratio: float | None = Field(None, gt=0.0)
    """Pictures to make for each training picture, in place of `count`."""
    seed: int = Field(0, ge=0)
    """Of the latent vectors, or of the dropout noise."""
    checkpoint: Literal["final", "latest", "best"] = "final"
    """Weights that make the pictures."""

    @property
    def origin(self) -> Literal["trained", "run", "folder"]:
        """Where the pictures come from, as the report says it."""
        if self.train is not None:
            return "trained"
        return "run" if self.run is not None else "folder"


class Downstream(Config):
    """A classifier or segmenter that is trained in every arm."""

    system: str = ""
    """Its name for `tfgan-med train`; by default what it is called here."""
    data: dict[str, Any] = {}
    """Settings of the data that differ for it, such as {image_size: 128}."""
    model: dict[str, Any] = {}
    """Settings of the model."""
    train: dict[str, Any] = {}
    """Settings of its training; `steps` are the same in every arm."""
    classic: str | dict[str, Any] | None = None
    """What `+classic` means for it; by default as for all."""
    grid: dict[str, list[Any]] | None = None
    """Settings to choose from on the validation split; by default as for all."""
    main: str | None = None
    """The score that decides; by default as for all."""


class Arm(Config):
    """What a downstream model is trained on."""

    name: str = Field("", pattern=r"^[A-Za-z0-9 ._@+:-]*$")
    """What the report calls it; by default its words."""
    real: bool = True
    """Train on the real training pictures."""
    synthetic: tuple[str, ...] = ()
    """Generators whose pictures are added."""
    classic: bool | str | dict[str, Any] = False
    """Classical augmentation: true for the experiment's, or another one."""
    sampling: Literal["uniform", "weighted"] = "uniform"
    """`weighted` draws the classes equally often, or the positive one at `positive_rate`."""
    positive_rate: float | None = Field(None, gt=0.0, lt=1.0)
    """With `sampling: weighted`, share of the draws that are of the positive class."""
    ratio: float | None = Field(None, gt=0.0)
    """Synthetic pictures for each real training picture."""
    fraction: float | None = Field(None, gt=0.0, lt=1.0)
    """Share of the draws that are synthetic."""
    count: int | None = Field(None, ge=1)
    """Synthetic pictures."""


class Sweep(Config):
    """More arms: real pictures and a generator's, at several ratios."""

    generators: tuple[str, ...] = ()
    """Names of generators."""
    ratios: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Synthetic pictures for each real training picture."""


class Metrics(Config):
    """What is measured."""

    main: str | None = None
    """The score that decides; by default balanced_accuracy of classifiers, iou of segmenters."""
    generative: tuple[str, ...] = ("fid", "kid")
    """Measures of generated pictures, see `tfgan-med list metrics`."""
    features: str | None = None
    """Feature network for these: vgg16, squeezenet, a .keras file, a frozen graph (.pb); by
    default Inception."""
    features_output: str | None = None
    """Its tensor or layer with the features, where the file does not tell."""
    protocol: Literal["ttur", "clean", "pytorch-fid", "keras"] = "ttur"
    """Protocol of Inception."""


class Guards(Config):
    """What must not be; a violated guard stops the experiment."""

    allow: tuple[str, ...] = ()
    """Guards that do not stop it; the report names them."""


class Experiment(Config):
    """An experiment: does adding synthetic pictures make downstream models better?"""

    experiment: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of its folder."""
    question: str = ""
    """What it asks, in a sentence."""
    source: str | None = None
    """Citation and licence of the data, for the report."""
    data: DataConfig = DataConfig()
    """The real pictures; generators see their training split alone."""
    generators: dict[str, Generator] = {}
    """By name."""
    downstream: dict[str, Downstream] = Field(min_length=1)
    """By name."""
    grid: dict[str, list[Any]] = {}
    """Settings of downstream models to choose from, on the validation split of the arm `real`."""
    classic: str | dict[str, Any] = "thesis"
    """What `+classic` means: a word, or settings of the augmentation."""
    arms: tuple[Arm, ...] = ()
    """What the downstream models are trained on. Words joined by +, such as `real+fastgan+classic`,
    or blocks."""
    sweep: Sweep = Sweep()
    """More arms at several ratios."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Of the repeats."""
    metrics: Metrics = Metrics()
    """What is measured."""
    guards: Guards = Guards()
    """What must not be."""

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """The arms and those of the sweep; an arm that is in both is there once."""
        named = {arm.name: arm for arm in self.arms}
        for arm in sweep_arms(self.sweep):
            named.setdefault(arm.name, arm)
        return tuple(named.values())

    @property
    def reference(self) -> Arm:
        """The arm that the others are compared with."""
        return next((arm for arm in self.arms if arm.name == "real"), self.arms[0])


def sweep_arms(sweep: Sweep) -> Iterator[Arm]:
    """An arm for each generator and ratio."""
    for name, ratio in itertools.product(sweep.generators, sweep.ratios):
        yield Arm(name=f"real+{name}@{ratio:g}", synthetic=(name,), ratio=ratio)


# Reading ------------------------------------------------------------------------------------------


def read(path: Path, scale: str | None = None, changes: Sequence[str] = ()) -> Experiment:
    """The experiment of a file.

    Args:
        path: the YAML file; relative paths in it are relative to its folder.
        scale: block of `scales` to merge over the rest.
        changes: `--set` texts; `generators.fastgan.count=40` reaches into blocks.
    Raises:
        UserError: with every fault of a block, naming nearest names.
    """
    loose = config.resolve(_Loose, blocks.layers_of(path, scale, _located), changes, name="")
    return _checked(loose, Path.cwd())


def parse(values: Values, folder: Path | None = None) -> Experiment:
    """The experiment of values as a file would hold them; paths are relative to `folder`."""
    where = folder or Path.cwd()
    return _checked(config.resolve(_Loose, [("settings", _located(values, where))]), where)


class _Loose(Experiment):
    """As in the file: blocks by name and arms are not looked into yet."""

    generators: dict[str, Any] = {}
    downstream: dict[str, Any] = {}
    arms: list[Any] = []  # type: ignore[assignment]


def _located(values: Values, folder: Path) -> Values:
    """Values with paths that no longer depend on where the file is."""
    absolute = blocks.absolute_in(folder)
    located = config.map_paths(Experiment, values, absolute)
    if "generators" in located:
        located["generators"] = blocks.located(Generator, located["generators"], absolute)
    metrics = located.get("metrics")
    if isinstance(metrics, dict) and isinstance(metrics.get("features"), str):
        features = blocks.file_or_name(metrics["features"], absolute)
        located["metrics"] = {**metrics, "features": features}
    return located


def _checked(loose: _Loose, folder: Path) -> Experiment:
    """The experiment with its blocks read and its names known."""
    generators = blocks.read(Generator, "generators", loose.generators, folder, True)
    downstream = blocks.read(Downstream, "downstream", loose.downstream, folder)
    if not downstream:
        raise UserError(
            "downstream: not given. Name a classifier or segmenter that says whether synthetic "
            "pictures help, such as `downstream: {vgg16: {}}`; see tfgan-med list models."
        )
    arms = [arm_of(entry, generators) for entry in loose.arms or ["real"]]
    fields = {name: getattr(loose, name) for name in loose.model_fields_set}
    made = Experiment(
        **{**fields, "generators": generators, "downstream": downstream, "arms": tuple(arms)}
    )
    if not made.data.hold_out:  # generators must not see what arms are validated on
        data = made.data.model_copy(update={"hold_out": HOLD_OUT})
        made = made.model_copy(update={"data": data})
    _check(made)
    return made


# Arms ---------------------------------------------------------------------------------------------

_WORDS = ("real", "classic", "weighted")


def arm_of(entry: Any, generators: Mapping[str, Any]) -> Arm:
    """An arm from words joined by + or from a block.

    `real`, `classic`, `weighted`, a generator's name (`fastgan`, or `fastgan@0.5` for half as many
    pictures as real ones), `synthetic` for all generators or `synthetic:fastgan` for one, without
    real pictures unless `real` is said too.

    Raises:
        UserError: with the nearest word.
    """
    if isinstance(entry, Arm):
        return entry
    if blocks.is_block(entry):
        where = f"arms.{entry.get('name') or 'block'}"
        arm: Arm = blocks.prefixed(where, lambda: config.resolve(Arm, [("", entry)]))
        _require_generators(where, arm.synthetic, generators)
        return arm if arm.name else arm.model_copy(update={"name": _words_of(arm)})
    if not isinstance(entry, str):
        raise UserError(f"arms: received {entry!r}, expected words such as real+fastgan+classic.")
    return _arm_of_words(entry, generators)


def _arm_of_words(text: str, generators: Mapping[str, Any]) -> Arm:
    words = [word.strip() for word in text.split("+")]
    made: list[str] = []
    ratio: float | None = None
    alone = False
    for word in words:
        if word in _WORDS:
            continue
        name, at, share = word.partition("@")
        if at:
            ratio = _ratio(text, share)
        if name == "synthetic" or name.startswith("synthetic:"):
            alone = True
            name = name.partition(":")[2]
        made += [name] if name else _only_generators(text, generators)
        if name and name not in generators:
            known = [*_WORDS, "synthetic", *generators]
            raise UserError(f"arms: {text}: {discovery.unknown(name, 'word', known)}")
    implied = "real" in words or not alone
    if made and not alone and not {"real", "weighted", "classic"} & set(words):
        raise UserError(
            f"arms: {text}: with or without real pictures? Write real+{text} or synthetic:{text}."
        )
    return Arm(
        name="+".join(words),
        real=implied,
        synthetic=tuple(dict.fromkeys(made)),
        classic="classic" in words,
        sampling="weighted" if "weighted" in words else "uniform",
        ratio=ratio,
    )


def _only_generators(text: str, generators: Mapping[str, Any]) -> list[str]:
    """What `synthetic` alone means: generators that no other one takes as its input."""
    inputs = {block.input for block in generators.values()}
    named = [name for name in generators if name not in inputs]
    if not named:
        raise UserError(f"arms: {text}: there are no generators. Add one under `generators`.")
    return named


def _ratio(text: str, share: str) -> float:
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UserError(f"arms: {text}: expected a ratio above 0 behind @, such as fastgan@0.5.")
    return value


def _words_of(arm: Arm) -> str:
    """The name of a block that has none."""
    first = ["real"] if arm.real else []
    made = [name if arm.real else f"synthetic:{name}" for name in arm.synthetic]
    words = [*first, *made, *(["classic"] if arm.classic else [])]
    shares = [f"ratio{arm.ratio:g}" if arm.ratio else "", f"count{arm.count}" if arm.count else ""]
    shares.append(f"fraction{arm.fraction:g}" if arm.fraction else "")
    weighted = ["weighted"] if arm.sampling == "weighted" else []
    return "+".join([*words, *weighted, *(share for share in shares if share)])


def _require_generators(where: str, names: Sequence[str], generators: Mapping[str, Any]) -> None:
    for name in names:
        if name not in generators:
            raise UserError(f"{where}: {discovery.unknown(name, 'generator', generators)}")


# Checking names -----------------------------------------------------------------------------------


def _check(experiment: Experiment) -> None:
    for name, generator in experiment.generators.items():
        _check_generator(f"generators.{name}", name, generator, experiment)
    for name, model in experiment.downstream.items():
        _require_name(f"downstream.{name}", model.system or name, "downstream model", DOWNSTREAM)
        _check_data_keys(f"downstream.{name}", model.data, ("label",))
        fixed = sorted({"seed"} & set(model.train))
        if fixed:
            raise UserError(f"downstream.{name}.train.seed: follows from `seeds`. Leave it out.")
    for metric in experiment.metrics.generative:
        _require_name("metrics.generative", metric.replace("-", "_"), "metric", METRICS)
    _require_generators("sweep.generators", experiment.sweep.generators, experiment.generators)
    _check_arms(experiment)
    blocks.check_seeds(experiment.seeds)


def _check_generator(where: str, name: str, generator: Generator, whole: Experiment) -> None:
    given = [key for key in ("train", "run", "folder") if getattr(generator, key) is not None]
    if len(given) != 1:
        raise UserError(
            f"{where}: has {' and '.join(given) or 'no origin'}; expected one of train (a model), "
            "run (a finished run) and folder (pictures)."
        )
    if name in (*_WORDS, "synthetic"):
        raise UserError(f"{where}: `{name}` is a word of the arms. Give it another name.")
    if generator.train is not None:
        _require_name(f"{where}.train", generator.train, "model", MODELS)
    elif generator.model or generator.settings or generator.data:
        raise UserError(
            f"{where}: settings of a model that is not trained here. Leave out model, settings and "
            "data, or train it with `train:`."
        )
    _check_data_keys(where, generator.data, SPLIT_KEYS)
    if generator.input is not None:
        _require_generators(f"{where}.input", (generator.input,), whole.generators)
        if whole.generators[generator.input].input is not None or generator.input == name:
            raise UserError(f"{where}.input: {generator.input} translates pictures itself.")
    asked = [key for key in ("count", "class_counts", "ratio") if getattr(generator, key)]
    if len(asked) > 1:
        raise UserError(
            f"{where}: {' and '.join(asked)} exclude each other. Leave one of them out."
        )
    path = generator.run or generator.folder
    if path is not None and not path.exists():
        raise UserError(f"{where}: {path}: no such folder.")


def _check_data_keys(where: str, data: Mapping[str, Any], fixed: Sequence[str]) -> None:
    """Splits are the same for everything that is trained, so that none sees test pictures."""
    for key in (*SPLIT_KEYS, *fixed):
        if key in data:
            raise UserError(
                f"{where}.data.{key}: cannot be set here, for all models of an experiment share "
                "its splits. Set it in the block `data` of the experiment."
            )


def _check_arms(experiment: Experiment) -> None:
    names = [arm.name for arm in experiment.arms]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"arms: {double} occurs twice. Give one of them another name.")
    for arm in experiment.arms:
        if not arm.real and not arm.synthetic:
            raise UserError(f"arms: {arm.name}: has neither real nor synthetic pictures.")
        shares = [key for key in ("ratio", "fraction", "count") if getattr(arm, key) is not None]
        if shares and not arm.synthetic:
            raise UserError(f"arms: {arm.name}: {shares[0]} is of synthetic pictures; it has none.")
    grids = [experiment.grid, *(m.grid for m in experiment.downstream.values() if m.grid)]
    if any(grids) and not any(arm.name == "real" for arm in experiment.arms):
        raise UserError("arms: a grid is decided on the arm `real`. Add it to the arms.")


def _require_name(where: str, name: str, kind: str, package: str) -> None:
    known = discovery.available(package)
    if name not in known:
        raise UserError(f"{where}: {discovery.unknown(name, kind, known)}")


# Settings of one training -------------------------------------------------------------------------


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of a grid, by dotted key; empty without one."""
    if not grid:
        return []
    keys = list(grid)
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*grid.values())]


def nested(dotted: Mapping[str, Any]) -> Values:
    """`{"model.dropout": 0.3}` as `{"model": {"dropout": 0.3}}`."""
    values: Values = {}
    for key, value in dotted.items():
        block: Any = value
        for part in reversed(key.split(".")):
            block = {part: block}
        values = config.merge(values, block)
    return values


def as_yaml(experiment: Experiment, folder: Path) -> str:
    """All settings, as `read` takes them; paths are relative to the folder it is written to."""
    values = experiment.model_dump(mode="json")
    # What is not given is decided by each model's own defaults.
    values["data"] = experiment.data.model_dump(mode="json", exclude_unset=True)

    def relative(text: str) -> str:
        return config.relative(text, folder.absolute())

    values = config.map_paths(Experiment, values, relative)
    values["generators"] = {
        name: config.map_paths(Generator, block, relative)
        for name, block in values["generators"].items()
    }
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return text
