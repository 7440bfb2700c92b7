"""What an adaptation begins with: the generator of a run, of the published file, or random weights.

A run keeps a copy in its folder, `source/`, and its `config.yaml` names the copy: it can be
resumed, or repeated from its settings, when the source has been moved away.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfgan_med import config, files
from tfgan_med.config import load_yaml
from tfgan_med.errors import UserError
from tfgan_med.layers.normalization import recalibrate
from tfgan_med.models.bsa import BSAConfig, Weights
from tfgan_med.models.sngan import generator_plan
from tfgan_med.networks import sngan_file
from tfgan_med.networks.sngan import GeneratorPlan, sngan_generator
from tfgan_med.ops import random
from tfgan_med.training import run_folder, sampling, weights
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig, saved_settings

COPY = "source"  # folder of a run
FACTS = "source.json"
ARRAYS = "generator.weights.h5"
HOW_TO_TRAIN = (
    "Train one on a larger set of similar pictures, `tfgan-med train sngan --data FOLDER`, and "
    "give its run folder with `--set model.source=RUN`"
)
CALIBRATION_SEED = 20_222
CALIBRATION = (4, 64)  # batches and latents of each that random weights get their statistics from


@dataclass(frozen=True)
class Source:
    """A generator to adapt.

    Attributes:
        name: what it is called: the run folder, the file, or `random weights`.
        plan: what it is built from, classes and all.
        weights: arrays of each layer, by its name.
        facts: where it came from, as JSON values; `sha256` of its weights.
        path: where it was read; None for random weights.
        notices: what the user should know about it.
    """

    name: str
    plan: GeneratorPlan
    weights: Weights
    facts: dict[str, Any]
    path: Path | None = None
    notices: tuple[str, ...] = field(default=())


def of_settings(model: BSAConfig) -> Source | None:
    """The source that the settings name; None for random weights.

    Raises:
        UserError: if they name none, or one and random weights, or it cannot be used.
    """
    if model.source is not None and model.random_source:
        raise UserError(
            "model.source and model.random_source: both are given. Leave one of them out."
        )
    if model.random_source:
        return None
    if model.source is None:
        raise UserError(
            f"model.source: is not given, and BSA adapts a trained generator. {HOW_TO_TRAIN}. For "
            "the ablation without one: `--set model.random_source=true`."
        )
    return read(model.source)


def read(path: Path) -> Source:
    """A source from a run of `sngan`, the authors' `.npz`, or the copy that a run keeps.

    Raises:
        UserError: if it is neither, naming what it is.
        DataError: if the file is damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: no such run or file. {HOW_TO_TRAIN}.")
    if path.is_file():
        return _published(path)
    if (path / FACTS).is_file():
        return _copied(path)
    return _trained(path)


def _published(path: Path) -> Source:
    plan, arrays = sngan_file.read(path)
    facts = {"name": path.name, "sha256": files.sha256_of(path)}
    return Source(path.name, plan, arrays, facts, path)


def _trained(run: Path) -> Source:
    """The generator of a run as it makes pictures, its batch-norm statistics averaged."""
    settings = saved_settings(run)
    if settings.system != "sngan":
        raise UserError(
            f"{run}: is a run of {settings.system}, and BSA adapts the generator of sngan. "
            f"{HOW_TO_TRAIN}."
        )
    sampling.kind_of(run)  # refuses a run that never began
    shapes = sampling.ImageShapes(**load_yaml(run / "weights" / "network.yaml"))
    model = sampling.build_model(settings, shapes, inference=True)
    file, arrays = weights.read(run, "generator")
    network = model.networks["generator"]
    weights.assign(network, arrays, file)
    notices: tuple[str, ...] = ()
    if file != weights.exported(run, "generator"):
        network = model.prepare_samples(settings.train.calibration_batches)
        notices = (f"model.source: {run.name} has not ended; {file.parent.name} is adapted.",)
    classes = len(shapes.classes)
    return Source(
        name=run.name,
        plan=generator_plan(settings.model, shapes.image_size, shapes.channels, classes),
        weights={layer.name: layer.get_weights() for layer in network.layers if layer.weights},
        facts={
            "name": run.name,
            "weights": file.relative_to(run).as_posix(),
            "sha256": files.sha256_of(file),
            "data_sha256": files.read_json(run / "data.json")["sha256"],
            "classes": list(shapes.classes),
        },
        path=run,
        notices=notices,
    )


def random_weights(plan: GeneratorPlan, seed: int) -> Source:
    """A generator that has learned nothing, with batch-norm statistics that fit its own maps."""
    generator = sngan_generator(plan, seed)
    batches, size = CALIBRATION
    shape = (size, plan.latent_size)
    recalibrate(generator, (random.normal(shape, (CALIBRATION_SEED, i)) for i in range(batches)))
    arrays = {layer.name: layer.get_weights() for layer in generator.layers if layer.weights}
    return Source("random weights", plan, arrays, {"name": "random weights", "seed": seed})


# The copy of a run --------------------------------------------------------------------------------


def keep(source: Source, folder: RunFolder, settings: RunConfig) -> None:
    """Copy a source into a run folder, name the copy in `config.yaml`, note where it was."""
    copy = folder.path / COPY
    copy.mkdir()
    run_folder.write_arrays(
        copy / ARRAYS,
        {
            f"{layer}/{index:02d}": array
            for layer, arrays in source.weights.items()
            for index, array in enumerate(arrays)
        },
    )
    files.write_json(copy / FACTS, {**source.facts, "plan": source.plan.model_dump(mode="json")})
    folder.write_environment({}, source={"path": str(source.path), **source.facts})
    model = settings.model.model_copy(update={"source": copy})
    kept = settings.model_copy(update={"model": model})
    text = config.as_yaml(kept, commented=True, relative_to=folder.path)
    files.write_text(folder.path / "config.yaml", text)


def _copied(copy: Path) -> Source:
    facts = files.read_json(copy / FACTS)
    plan = GeneratorPlan(**facts.pop("plan"))
    layers = defaultdict(list)
    for name, array in sorted(run_folder.read_arrays(copy / ARRAYS).items()):
        layers[name.rpartition("/")[0]].append(array)
    return Source(str(facts["name"]), plan, dict(layers), facts, copy)
