"""Pictures from latent vectors with a trained run: any number of them, and ways between two."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image, PngImagePlugin

import tfgan_med
from tfgan_med import files
from tfgan_med.config import Config, load_yaml
from tfgan_med.data import encoding as coding
from tfgan_med.data import writers
from tfgan_med.data.encoding import Encoding
from tfgan_med.errors import TrainingError, UserError
from tfgan_med.learning.optimizers import UNSCHEDULED, Schedule
from tfgan_med.models import _latent
from tfgan_med.models._latent import LatentModel
from tfgan_med.ops import images as pixel_ops
from tfgan_med.ops.latents import latents, lerp, slerp
from tfgan_med.training import run_folder, runtime, translation, weights
from tfgan_med.training.run_folder import CLASSES
from tfgan_med.training.settings import RunConfig, model_class, saved_settings

Array = npt.NDArray[Any]
Vectors = npt.NDArray[np.float32]

STATE = "generation.json"
BATCH_PIXELS = 2**20  # 64 pictures of 128 px, 4 from 512 px on


def kind_of(run: Path) -> str:
    """What a run makes: `pairs` or `domains` translate, `images` come from latents.

    Raises:
        UserError: if the run never got to its first step.
    """
    network = run / "weights" / "network.yaml"
    if not network.is_file():
        raise UserError(
            f"{run}: has no weights/network.yaml, so it is not a run that got to its first step. "
            "Train one with `tfgan-med train MODEL`; see `tfgan-med list models`."
        )
    return str(load_yaml(network).get("kind", "pairs"))


def class_runs(run: Path) -> dict[str, Path]:
    """The run of each class in a folder that `train --per-class` made; empty for other runs.

    Raises:
        UserError: if the list of classes names what is no folder in it.
    """
    if not (run / CLASSES).is_file():
        return {}
    named: dict[str, str] = files.read_json(run / CLASSES)["classes"]
    for label, folder in named.items():
        if Path(folder).name != folder or not (run / folder).is_dir():
            raise UserError(
                f"{run / CLASSES}: the class {label} is in {folder!r}, which is no folder of the "
                "run. Restore it, or train the classes again with --per-class."
            )
    return {label: run / folder for label, folder in named.items()}


class ImageShapes(Config):
    """What a model of pictures must know beside its settings; saved as `network.yaml`."""

    system: str
    kind: Literal["images"] = "images"
    image_size: int
    encodings: tuple[Encoding, ...]
    """Of each group of channels: the picture, then its masks."""
    label: str | None = None
    """Class that it was trained on, if one."""
    classes: tuple[str, ...] = ()
    """Classes that it makes pictures of at will, in the order of their numbers."""
    extra: dict[str, Any] = {}
    """What else the model is built from: further arguments of its constructor."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Sizes of the groups of channels."""
        return tuple(how.channels for how in self.encodings)

    def parted(self, tensor: Array) -> list[Array]:
        """The groups of channels of a tensor `(..., channels)`."""
        return list(np.split(tensor, np.cumsum(self.channels)[:-1], axis=-1))


def build_model(
    settings: RunConfig,
    shapes: ImageShapes,
    schedule: Schedule = UNSCHEDULED,
    inference: bool = False,
) -> LatentModel:
    """The model of a run; with `inference`, the generator alone."""
    cls: Any = model_class(settings.system)  # the constructor of models from latents
    classes = {"num_classes": len(shapes.classes)} if shapes.classes else {}
    try:
        model: LatentModel = cls(
            settings.model,
            shapes.image_size,
            shapes.channels,
            schedule=schedule,
            seed=settings.train.seed,
            inference=inference,
            **classes,
            **shapes.extra,
        )
        return model
    except ValueError as error:  # sizes that the networks cannot have
        raise UserError(f"{error} Settings: data.image_size, model.*.") from error


class Sampler:
    """The generator of a trained run: latent vectors in, pictures out.

    A picture depends on its latent vector alone. It is computed in batches of one shape, so that
    the function is compiled once and equal requests give equal bytes.

    Args:
        run: the run folder.
        checkpoint: `final` for the exported weights (the newest checkpoint if training has not
            ended), or `latest`, `best`; batch-norm statistics of a checkpoint are averaged anew.
        batch: pictures computed at once; by default 64, above 128 px fewer, at least 4.
        label: of which class, for runs that make each at will.

    Attributes:
        encodings: what a picture consists of and how it is written, the image first.
        latent_size: length of a latent vector.
        truncation: bound of the latents' values unless another is asked for; None for none.
        label: class of the pictures, if they are of one.
        network: from latent vectors to pictures, batch-norm statistics and all.
    Raises:
        UserError: if the run holds no weights, makes pictures from pictures, or not of the class.
    """

    def __init__(
        self,
        run: Path,
        checkpoint: str = "final",
        batch: int | None = None,
        label: str | None = None,
    ) -> None:
        kind = kind_of(run)
        if kind != "images":
            raise UserError(
                f"{run}: translates pictures and has no latent vectors. Use `tfgan-med translate`."
            )
        self.run = run
        self.checkpoint = checkpoint
        self.shapes = ImageShapes(**load_yaml(run / "weights" / "network.yaml"))
        self.encodings = tuple(map(_storable, self.shapes.encodings))
        self.at_will = bool(self.shapes.classes)
        self.label = _known_class(run, self.shapes, label) if self.at_will else self.shapes.label
        settings = saved_settings(run)
        self.calibration_batches = settings.train.calibration_batches
        model = build_model(settings, self.shapes, inference=True)
        self.latent_size = model.latent_size
        self.truncation = model.truncation
        self.weights_file, arrays = weights.read(run, "generator", checkpoint)
        weights.assign(model.networks["generator"], arrays, self.weights_file)
        self.recalibrated = self.weights_file != weights.exported(run, "generator")
        network = model.networks["generator"]
        if self.recalibrated:
            network = model.prepare_samples(self.calibration_batches)
        if self.at_will:
            network = of_class(network, self.shapes.classes.index(str(self.label)))
        self.batch = batch or max(4, min(64, BATCH_PIXELS // self.shapes.image_size**2))
        self.network = network
        self._forward = self._compile(network, runtime.use_xla(settings.train))

    def _compile(self, network: keras.Model, xla: bool) -> Callable[[Any], Any]:
        shape = tf.TensorSpec((self.batch, self.latent_size), tf.float32)

        def forward(vectors: tf.Tensor) -> tf.Tensor:
            made = network(vectors, training=False)
            return made[0] if isinstance(made, list | tuple) else made

        compiled: Callable[[Any], Any] = tf.function(
            forward, [shape], jit_compile=xla, autograph=False
        )
        return compiled

    def images(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Images as the network gives them.

        Args:
            vectors: `(count, latent_size)` float32.
        Returns:
            `(count, size, size, channels)` float32 in [-1, 1], masks behind the image.
        """
        parts = []
        for start in range(0, len(vectors), self.batch):
            part = vectors[start : start + self.batch]
            padded = np.zeros((self.batch, self.latent_size), np.float32)
            padded[: len(part)] = part
            parts.append(np.asarray(self._forward(padded), np.float32)[: len(part)])
        return np.concatenate(parts)

    def pictures(self, vectors: Vectors) -> list[Array]:
        """Pixels as they are written.

        Args:
            vectors: `(count, latent_size)` float32.
        Returns:
            For each encoding `(count, size, size, channels)`: images uint8 or uint16 in their
            value window, masks 0 or 255.
        """
        groups = self.shapes.parted(self.images(vectors))
        return [coding.picture(g, e) for g, e in zip(groups, self.encodings, strict=True)]

    def bounded(self, order: Order) -> Order:
        """The order with the model's own bound of the latents if it names none."""
        bound = self.truncation if order.truncation is None else order.truncation
        return dataclasses.replace(order, truncation=None if bound == math.inf else bound)

    @property
    def folder(self) -> str:
        """Name of the folder of its pictures beside those of other classes."""
        if not self.at_will:
            return self.run.name
        label = str(self.label)
        return run_folder.class_folder(label, self.shapes.classes.index(label))

    @property
    def training_count(self) -> int:
        """How many items its pictures were learned from, of their class alone.

        Raises:
            UserError: if the run does not say.
        """
        label = self.label if self.at_will else None
        return training_count(self.run, label)

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Which network made the pictures, for provenance."""
        averaged = None
        if self.recalibrated:
            averaged = {
                "batches": self.calibration_batches,
                "batch_size": _latent.CALIBRATION_BATCH,
                "seed": _latent.CALIBRATION_SEED,
            }
        return {
            "run": self.run.name,
            "system": self.shapes.system,
            "weights": {
                "file": self.weights_file.relative_to(self.run).as_posix(),
                "sha256": files.sha256_of(self.weights_file),
            },
            "checkpoint": self.checkpoint,
            "batch_norm_statistics": averaged or "stored with the weights",
        }


def samplers_of(run: Path, checkpoint: str = "final") -> list[Sampler]:
    """The sampler of a run, or of each class of a run that makes them at will."""
    classes = classes_at_will(run)
    if not classes:
        return [Sampler(run, checkpoint)]
    return [Sampler(run, checkpoint, label=label) for label in classes]


def classes_at_will(run: Path) -> tuple[str, ...]:
    """Classes that a conditional run makes pictures of; empty for other runs."""
    return tuple(load_yaml(run / "weights" / "network.yaml").get("classes", ()))


def of_class(generator: keras.Model, number: int) -> keras.Model:
    """A generator with classes as one of latents alone, for pictures of one class."""
    latents = keras.Input(generator.inputs[0].shape[1:], name="latents")
    labels = keras.ops.full_like(latents[:, 0], number, dtype="int64")
    return keras.Model(latents, generator([latents, labels]), name=generator.name)


def _known_class(run: Path, shapes: ImageShapes, label: str | None) -> str:
    """UserError if a class that must be named is not, or is none of the run's."""
    some = ", ".join(shapes.classes)
    if label is None:
        raise UserError(f"{run}: makes pictures of its classes at will: {some}. Name one of them.")
    if label not in shapes.classes:
        raise UserError(f"{run}: makes no pictures of the class {label}. Name one of: {some}.")
    return label


def _storable(encoding: Encoding) -> Encoding:
    """Pictures of floating-point values are written over the whole range of 16 bits."""
    if encoding.kind != "image" or encoding.dtype in ("uint8", "uint16"):
        return encoding
    return encoding.model_copy(update={"dtype": "uint16", "window": (0.0, 65535.0)})


# A set of any size --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """What to generate.

    Attributes:
        count: pictures of each generator; by default as many as it was trained on.
        seed: of the latent vectors.
        truncation: bound of their values; None for the model's own, infinity for none.
        form: `png`, `npz` or `tfrecord`, see `data/writers.py`.
    """

    count: int | None = None
    seed: int = 0
    truncation: float | None = None
    form: str = "png"


@dataclass(frozen=True)
class Generated:
    """What a generation has made.

    Attributes:
        pictures: in the folder.
        added: of these, made now rather than by a stopped generation before.
        seconds: that took.
    """

    pictures: int
    added: int
    seconds: float


def part_of(out: Path) -> Path:
    """Folder beside `out` in which a generation waits until it is whole."""
    return out.with_name(f"{out.name}.part")


def training_count(run: Path, label: str | None = None) -> int:
    """How many items a run was trained on, of one class or of all.

    Raises:
        UserError: if the run does not say.
    """
    count = len(translation.trained_on(run, label))
    if not count:
        raise UserError(
            f"{run}: has no data.json, so the number of training pictures is not known. Say how "
            "many pictures to make with --count."
        )
    return count


def generate_folder(
    samplers: Sequence[Sampler],
    out: Path,
    order: Order,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Generated:
    """Generate a folder that is used like a real data set, with `provenance.json`.

    Pictures are collected in `<out>.part`, and a stopped generation goes on there with what is
    missing; whole, the folder takes its name. A picture is a function of weights, seed and index.

    Args:
        samplers: one, or one for each class; several have their labels and folders by name.
        out: the folder to make.
        order: how many and how.
        replace: delete an older `out`, and an unfinished generation of another order.
    Raises:
        UserError: if an unfinished generation of another order is there, or in use; if the count
            is neither given nor known.
        TrainingError: if the disk is full.
    """
    order = samplers[0].bounded(order)
    part, plans = part_of(out), _plans(samplers, order)
    _open_part(part, _state(samplers, plans, order), replace)
    outputs = [writers.FORMATS[order.form](part, plan) for plan in plans]
    total, earlier, added = sum(plan.count for plan in plans), 0, 0
    begun = time.perf_counter()
    with run_folder.RunFolder(part).locked(), _explaining_full_disk(part):
        for sampler, output in zip(samplers, outputs, strict=True):
            for done, new in _fill(sampler, output, order):
                added += new
                progress(earlier + done, total)
            earlier += output.plan.count
        seconds = time.perf_counter() - begun
        _finish(part, samplers, outputs, order)
    if replace:
        files.remove_folder(out)
    part.rename(out)
    (out / STATE).unlink()
    return Generated(total, added, seconds)


def _fill(sampler: Sampler, output: writers.Writer, order: Order) -> Iterator[tuple[int, int]]:
    """Write what is missing; yields after each block how far it is and how many were new.

    Blocks begin at multiples of the batch and are computed whole, whatever is missing, since a
    picture's last bits may depend on its place in the batch.
    """
    for start in range(0, output.plan.count, sampler.batch):
        stop = min(start + sampler.batch, output.plan.count)
        wanted = output.missing(start, stop)
        if wanted:
            block = range(start, start + sampler.batch)
            vectors = latents(order.seed, block, sampler.latent_size, order.truncation)
            rows = [index - start for index in wanted]
            output.write(wanted, [values[rows] for values in sampler.pictures(vectors)])
        yield stop, len(wanted)


def _plans(samplers: Sequence[Sampler], order: Order) -> list[writers.Plan]:
    folders = {str(sampler.label): sampler.folder for sampler in samplers}
    several = len(samplers) > 1
    class_folders = several and writers.can_be_class_folders(folders, samplers[0].encodings)
    return [
        writers.Plan(
            count=order.count or sampler.training_count,
            image_size=sampler.shapes.image_size,
            encodings=sampler.encodings,
            seed=order.seed,
            label=sampler.label,
            below=sampler.folder if several else "",
            class_folders=class_folders,
        )
        for sampler in samplers
    ]


def _finish(
    part: Path, samplers: Sequence[Sampler], outputs: Sequence[writers.Writer], order: Order
) -> None:
    """Write what stands beside the pictures, and remove what killed writers have left."""
    for left in part.rglob(".*.tmp"):
        left.unlink()
    plan = outputs[0].plan
    if order.form == "png" and plan.label is not None and not plan.class_folders:
        rows = ((o.file(i), str(o.plan.label)) for o in outputs for i in range(o.plan.count))
        writers.write_classes(part, rows)
    writers.write_provenance(part, _entries(outputs), **_facts(samplers, outputs, order))


def _entries(outputs: Sequence[writers.Writer]) -> Iterator[dict[str, Any]]:
    for output in outputs:
        label = {} if output.plan.label is None else {"class": output.plan.label}
        for index in range(output.plan.count):
            yield {"file": output.file(index), **label, "seed": output.plan.seed, "index": index}


def _facts(
    samplers: Sequence[Sampler], outputs: Sequence[writers.Writer], order: Order
) -> dict[str, Any]:
    first, roles = samplers[0], outputs[0].plan.roles
    if len(samplers) == 1:
        made_by = first.facts
    else:
        made_by = {
            "run": (first.run if first.at_will else first.run.parent).name,
            "system": first.shapes.system,
            "classes": {str(sampler.label): sampler.facts for sampler in samplers},
        }
    return {
        **made_by,
        "role": roles[0],
        "roles": roles,
        "encodings": [encoding.model_dump(mode="json") for encoding in first.encodings],
        "count": sum(output.plan.count for output in outputs),
        "seed": order.seed,
        "truncation": order.truncation,
        "format": order.form,
        "batch": first.batch,
        "trained_on": _trained_on(samplers),
    }


def _trained_on(samplers: Sequence[Sampler]) -> list[dict[str, Any]]:
    """Items that the generators saw; a run of several classes is asked once."""
    runs = dict.fromkeys(sampler.run for sampler in samplers)
    return [item for run in runs for item in translation.trained_on(run)]


# Stopping and going on ----------------------------------------------------------------------------


def _state(
    samplers: Sequence[Sampler], plans: Sequence[writers.Plan], order: Order
) -> dict[str, Any]:
    """Everything that the bytes of the set depend on, by the names of the options."""
    state = {
        "count": ", ".join(str(plan.count) for plan in plans),
        "seed": order.seed,
        "truncation": order.truncation,
        "format": order.form,
        "runs": [sampler.facts for sampler in samplers],
        "batch": [sampler.batch for sampler in samplers],
        "version": tfgan_med.__version__,
    }
    normalized: dict[str, Any] = json.loads(json.dumps(state))
    return normalized


def _open_part(part: Path, state: Mapping[str, Any], replace: bool) -> None:
    """Make the unfinished folder, or accept one of the same order."""
    if part.exists() and _holds_something(part):
        known = _read_state(part)
        if known == state:
            return
        _refuse(part, known, state, replace)
        with run_folder.RunFolder(part).locked():
            files.remove_folder(part)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{part}: cannot be made ({error.strerror}). Name another folder with --out."
        ) from error
    files.write_json(part / STATE, dict(state))


def _holds_something(part: Path) -> bool:
    """Whether more is there than a start that was stopped at once leaves behind."""
    return not part.is_dir() or any(not entry.name.startswith(".") for entry in part.iterdir())


def _refuse(part: Path, known: Mapping[str, Any], state: Mapping[str, Any], replace: bool) -> None:
    """UserError for a folder that is not ours, or of another order that may not be replaced."""
    if not known:
        raise UserError(
            f"{part}: in the way. Pictures wait there until all are made, but it holds something "
            "else. Move it, or name another folder with --out."
        )
    if not replace:
        key = next((key for key in state if known.get(key) != state[key]), "version")
        values = "" if key in ("runs", "batch") else f" ({known.get(key)}, now {state.get(key)})"
        raise UserError(
            f"{part}: holds an unfinished generation with another {key.removesuffix('s')}{values}. "
            "Finish it with the command it was started with, name another folder with --out, or "
            "start anew with --force."
        )


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = files.read_json(part / STATE)
    except (OSError, ValueError):
        return {}
    return state


@contextlib.contextmanager
def _explaining_full_disk(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TrainingError(
            f"{part}: the disk is full ({error.strerror}). Free space and run the same command "
            "again; it goes on with what is missing."
        ) from error


# Ways between two pictures ------------------------------------------------------------------------

PATHS = {"spherical": slerp, "linear": lerp}
FRAME_MILLISECONDS = 100


def interpolate(
    sampler: Sampler, first: int, last: int, steps: int, path: str, order: Order
) -> list[npt.NDArray[np.uint8]]:
    """Pictures on the way between two pictures of the set that `generate_folder` makes.

    Args:
        first, last: indices of the two.
        steps: pictures, both ends among them.
        path: `spherical` or `linear`.
        order: seed and truncation are used.
    Returns:
        For each encoding `(steps, size, size, 3)` uint8; masks are cut at 0.
    """
    order = sampler.bounded(order)
    ends = latents(order.seed, (first, last), sampler.latent_size, order.truncation)
    values = sampler.images(PATHS[path](ends[0], ends[1], steps))
    shown = []
    for group, encoding in zip(sampler.shapes.parted(values), sampler.encodings, strict=True):
        cut = np.where(group > 0, 1.0, -1.0) if encoding.kind == "mask" else group
        shown.append(pixel_ops.as_rgb(cut, encoding.kind))
    return shown


def write_interpolation(target: Path, frames: Sequence[npt.NDArray[np.uint8]]) -> list[Path]:
    """Write a strip (PNG, masks below the pictures) and a film there and back (GIF).

    Args:
        target: path without suffix.
        frames: as `interpolate` returns them.
    """
    strip, film = target.with_name(target.name + ".png"), target.with_name(target.name + ".gif")
    info = PngImagePlugin.PngInfo()
    info.add_text("Synthetic", "yes")
    with files.replacing(strip) as temporary:
        sheet = pixel_ops.grid(np.concatenate(frames), columns=len(frames[0]))
        Image.fromarray(sheet).save(temporary, format="PNG", pnginfo=info)
    way = [_film_frame(np.concatenate(cells, axis=1)) for cells in zip(*frames, strict=True)]
    way += way[-2:0:-1]
    with files.replacing(film) as temporary:
        way[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=way[1:],
            duration=FRAME_MILLISECONDS,
            loop=0,
            comment=b"Synthetic=yes",
        )
    return [strip, film]


def _film_frame(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """A frame with colours of its own; grey ones are exact."""
    if (pixels == pixels[..., :1]).all():
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
