"""Paired translation as a task: its data, sample sheets, scores, and what a trained run makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from tfgan_med import files
from tfgan_med.config import Config, load_yaml
from tfgan_med.data import encoding as coding
from tfgan_med.data import fitting, gate, opening, splits, synthetic
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.pipeline import PairedData, prepare_pairs
from tfgan_med.data.records import DataConfig, Part, Record, Split
from tfgan_med.errors import DataError, UserError
from tfgan_med.metrics import paired
from tfgan_med.models.base import UNSCHEDULED, GenerativeModel, Schedule
from tfgan_med.networks.feature_cache import Extractor, Features, extract
from tfgan_med.ops import images
from tfgan_med.ops.frechet import frechet_distance
from tfgan_med.training import run_folder
from tfgan_med.training.settings import RunConfig, model_class, saved_settings

Array = npt.NDArray[Any]


class Shapes(Config):
    """What a translation network must know beside its settings; saved as `network.yaml`."""

    system: str
    image_size: int
    source: Encoding
    target: Encoding
    fit: fitting.Policy
    scale: float


class TranslationTask:
    """Data and evaluation of a run that translates pictures into pictures.

    Args:
        settings: of the run.
    Raises:
        DataError: if the data cannot be used, with file and cure.
    """

    def __init__(self, settings: RunConfig) -> None:
        self.settings = settings
        config: DataConfig = settings.data
        found = splits.assign(opening.open_set(config), config)
        gate.require_fit(found, config)
        self.data: PairedData = prepare_pairs(found, config)
        self.shapes = Shapes(
            system=settings.system,
            image_size=config.image_size,
            source=self.data.source,
            target=self.data.target,
            fit=config.fit,
            scale=config.scale,
        )
        # Held-out pairs; a set too small for a validation split is watched on its training pairs.
        self.watched: Split = "val" if self.data.counts["val"] else "train"
        self._fixed: dict[str, tuple[Array, Array]] = {}
        self._real_features: Features | None = None

    def build(self, schedule: Schedule) -> GenerativeModel:
        """The model, to be called in the scope of the strategy."""
        return build_model(self.settings, self.shapes, schedule)

    def fixed(self, split: Split, count: int) -> tuple[Array, Array]:
        """Sources and targets of pairs spread over a split, at network size, float32."""
        key = f"{split}-{count}"
        if key not in self._fixed:
            batch = self.data.fixed_batch(split, count)
            self._fixed[key] = (np.asarray(batch["source"]), np.asarray(batch["target"]))
        return self._fixed[key]

    def pairs_sheet(self) -> Array:
        """Training pairs, source beside target: is the direction right?"""
        return self._sheet(*self.fixed("train", 8))

    def sample_sheet(self, model: GenerativeModel) -> Array:
        """Fixed pairs: source, target, translated; two pairs in a row."""
        source, target = self.fixed(self.watched, 8)
        return self._sheet(source, target, translate(model, source))

    def _sheet(self, source: Array, *pictures: Array) -> Array:
        columns = [images.as_rgb(source, self.shapes.source.kind)]
        columns += [images.as_rgb(picture, self.shapes.target.kind) for picture in pictures]
        cells = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
        return images.grid(cells, 2 * len(columns))

    def scores(
        self, model: GenerativeModel, split: Split, count: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """L1, PSNR and SSIM on pairs of a split, and the variety of targets and translations."""
        source, target = self.fixed(split, count)
        fake = translate(model, source)
        return paired.paired_scores(target, fake), {
            "target": paired.variety(target),
            "fake": paired.variety(fake),
        }

    def distance(
        self, model: GenerativeModel, network: Extractor, split: Split, count: int
    ) -> float:
        """Fréchet distance between targets and translations of a split on a network's features.

        Few pictures bias it upwards; it serves to compare checkpoints of one run.
        """
        source, target = self.fixed(split, count)
        kind = self.shapes.target.kind
        if self._real_features is None:
            self._real_features = _features(network, images.as_rgb(target, kind))
        fake = _features(network, images.as_rgb(translate(model, source), kind))
        return frechet_distance(self._real_features, fake)

    def baseline(self, split: Split, count: int) -> dict[str, float]:
        """Scores of the mean training picture, which knows nothing of the condition."""
        mean = self.fixed("train", 256)[1].mean(axis=0, keepdims=True)
        target = self.fixed(split, count)[1]
        return paired.paired_scores(target, np.broadcast_to(mean, target.shape).copy())


def build_model(
    settings: RunConfig, shapes: Shapes, schedule: Schedule = UNSCHEDULED, inference: bool = False
) -> GenerativeModel:
    """The model of a run; with `inference`, the generator alone."""
    cls: Any = model_class(settings.system)  # the constructor of translation models
    try:
        model: GenerativeModel = cls(
            settings.model,
            shapes.image_size,
            shapes.source.channels,
            shapes.target.channels,
            schedule=schedule,
            seed=settings.train.seed,
            inference=inference,
        )
        return model
    except ValueError as error:  # sizes and kinds that the networks cannot have
        raise UserError(f"{error} Settings: data.image_size, model.*.") from error


def translate(
    model: GenerativeModel,
    source: Array,
    batch_size: int = 16,
    stochastic: bool = False,
    seed: int = 0,
) -> Array:
    """Translate arrays in batches.

    Args:
        source: `(images, size, size, source channels)` float32.
    Returns:
        `(images, size, size, target channels)` float32 in [-1, 1].
    """
    starts = range(0, len(source), batch_size)
    parts = [
        np.asarray(model.translate(source[start : start + batch_size], stochastic, seed + start))
        for start in starts
    ]
    return np.concatenate(parts)


# A trained run --------------------------------------------------------------------------------


def _features(network: Extractor, pictures: Array) -> Features:
    """Features without the logits that some networks give beside them."""
    return extract(network, pictures, 32)[:, : network.dimension]


def save_network(folder: run_folder.RunFolder, shapes: Shapes) -> None:
    """Write `weights/network.yaml`, from which the generator is rebuilt."""
    text = yaml.safe_dump(shapes.model_dump(mode="json"), sort_keys=False)
    files.write_text(folder.path / "weights" / "network.yaml", text)


def save_generator(folder: run_folder.RunFolder, model: GenerativeModel) -> None:
    """Write `weights/generator.weights.h5`: the moving average if one is kept."""
    target = folder.path / "weights" / "generator.weights.h5"
    generator = model.average("generator")
    with files.replacing(target) as temporary:
        run_folder.write_arrays(
            temporary, {f"{i:04d}-{v.name}": v for i, v in enumerate(generator.weights)}
        )


class Translator:
    """The generator of a trained run, and how it reads and writes pictures.

    Args:
        run: the run folder.
        checkpoint: `final` for the exported weights (the newest checkpoint if training has not
            ended), or `latest`, `best`.
    Raises:
        UserError: if the run holds no weights, or is not a translation model.
    """

    def __init__(self, run: Path, checkpoint: str = "final") -> None:
        self.run = run
        network = run / "weights" / "network.yaml"
        if not network.is_file():
            raise UserError(
                f"{run}: has no weights/network.yaml, so it is not a run of a translation model "
                "that got to its first step. Train one with `tfgan-med train pix2pix`."
            )
        self.shapes = Shapes(**load_yaml(network))
        self.settings = saved_settings(run)
        self.model = build_model(self.settings, self.shapes, inference=True)
        self.weights_file, arrays = self._arrays(checkpoint)
        self._assign(arrays)

    def _arrays(self, checkpoint: str) -> tuple[Path, list[Array]]:
        """File of the weights, and the generator's arrays in order."""
        exported = self.run / "weights" / "generator.weights.h5"
        if checkpoint == "final" and exported.is_file():
            return exported, [v for _, v in sorted(run_folder.read_arrays(exported).items())]
        which = "best" if checkpoint == "best" else "latest"
        folder, _ = run_folder.RunFolder(self.run).checkpoint(which)
        path = folder / "model.weights.h5"
        arrays = run_folder.read_arrays(path)
        owner = (
            "ema_generator" if any("/ema_generator/" in name for name in arrays) else "generator"
        )
        prefix = f"network/{owner}/"
        return path, [
            value
            for name, value in sorted(arrays.items())
            if name.startswith(prefix) and "seed_generator_state" not in name
        ]

    def _assign(self, arrays: Sequence[Array]) -> None:
        weights = self.model.networks["generator"].weights
        if [tuple(w.shape) for w in weights] != [a.shape for a in arrays]:
            raise UserError(
                f"{self.weights_file}: does not fit the network of {self.run / 'config.yaml'}. "
                "Restore both files from the same run."
            )
        self.model.networks["generator"].set_weights(list(arrays))

    def translate_part(
        self, part: Part, role: str, stochastic: bool = False, seed: int = 0
    ) -> tuple[Array, Array]:
        """Translate one picture.

        Returns:
            The translated picture and the condition as the network saw it, both
            `(height, width, channels)` in their file types: of the input's size but with
            `fit: crop`, which returns the middle square at network size.
        """
        shapes = self.shapes
        raw = coding.read(part, role, self.settings.data.max_pixels)
        tiles, placement = fitting.fit(
            raw,
            shapes.image_size,
            shapes.fit,
            shapes.source.nearest,
            shapes.scale,
        )
        fake = translate(
            self.model, coding.tensor(tiles, shapes.source), stochastic=stochastic, seed=seed
        )
        pixels = coding.picture(fake, shapes.target)
        made = fitting.unfit(pixels, placement, shapes.target.nearest)
        seen = fitting.unfit(tiles, placement, shapes.source.nearest)
        return made, seen


def conditions(translator: Translator, source: str | None, split: str) -> list[tuple[Record, str]]:
    """Records to translate and the role of the condition in each.

    Args:
        source: a folder of conditions, or None for the run's own data.
        split: `train`, `val`, `test` or `all` of the run's own data.
    """
    role = translator.shapes.source.role
    config: DataConfig = translator.settings.data
    if source is None:
        whole = splits.assign(opening.open_set(config), config)
        records = whole.records if split == "all" else whole.of_split(split)  # type: ignore[arg-type]
        if not records:
            raise DataError(
                f"{config.path}: has no items in the split {split}. Use --split all, or name a "
                "folder of conditions with --input."
            )
        return [(record, role) for record in records]
    given = opening.open_set(config.model_copy(update={"path": source, "layout": "auto"}))
    if not given.records:
        raise DataError(f"{source}: holds no pictures. Expected conditions like the run's {role}.")
    return [(record, _role_in(record, role)) for record in given.records]


def _role_in(record: Record, role: str) -> str:
    """The wanted role if the record has it, else its only picture."""
    if role in record.parts:
        return role
    if len(record.parts) == 1:
        return next(iter(record.parts))
    raise DataError(
        f"{record.id}: has {', '.join(sorted(record.parts))}, but the run translates {role}. "
        "Name the folder that holds the conditions."
    )


def translate_folder(
    translator: Translator,
    items: Sequence[tuple[Record, str]],
    out: Path,
    samples: int = 1,
    seed: int = 0,
    limit: int | None = None,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Translate items into a synthetic folder: `images/`, the conditions, `provenance.json`.

    Args:
        items: records and the role of their condition.
        out: the folder to make; it appears whole.
        samples: pictures per condition; more than one keeps dropout on.
        seed: of the dropout; a picture's own seed stands in `provenance.json`.
        limit: pictures at most.
        replace: delete `out` first if it exists.
    Returns:
        Number of pictures.
    """
    role = translator.shapes.source.role
    target = translator.shapes.target.role
    names = file_names([record.parts[given_role].path for record, given_role in items])
    made: list[dict[str, Any]] = []
    with files.new_folder(out) as folder:
        for index, (record, given_role) in enumerate(items):
            part = record.parts[given_role]
            for sample in range(samples):
                if len(made) == limit:
                    break
                read_role = role if coding.kind_of(role) != "image" else given_role
                number = seed + index * samples + sample
                fake, seen = translator.translate_part(part, read_role, samples > 1, number)
                name = names[index] if samples == 1 else f"{names[index]}-{sample:02d}"
                path = synthetic.write_picture(folder / target / name, fake)
                synthetic.write_picture(folder / role / name, condition_pixels(seen, role), False)
                made.append(
                    {
                        "file": path.relative_to(folder).as_posix(),
                        "condition": record.id,
                        "seed": number if samples > 1 else None,
                    }
                )
            progress(index + 1, len(items))
        _write_provenance(folder, translator.run, translator.shapes, translator.weights_file, made)
        if replace:
            files.remove_folder(out)
    return len(made)


def condition_pixels(values: Array, role: str) -> Array:
    """A condition as it is written beside its picture: masks 0 and 255, all else unchanged."""
    if coding.kind_of(role) == "mask":
        return (values > 0).astype(np.uint8) * np.uint8(255)
    return values.astype(np.uint8) if values.max() < 256 else values.astype(np.uint16)


def trained_on(run: Path) -> list[dict[str, Any]]:
    """Hashes and groups of the items the generator saw, so that leaks can be found."""
    path = run / "data.json"
    if not path.is_file():
        return []
    items: list[dict[str, Any]] = files.read_json(path)["items"]
    return [
        {key: item[key] for key in ("id", "sha256", "group") if key in item}
        for item in items
        if item.get("split") == "train"
    ]


def write_split(
    task: TranslationTask, model: GenerativeModel, folder: run_folder.RunFolder, split: Split
) -> Path:
    """Translate a split of the run's own data at network size, tile by tile.

    Writes `translated/<split>/`, a synthetic folder, and the real pictures of the same size to
    `reals/<split>/`; older ones are replaced. `evaluate` compares the two.

    Returns:
        The synthetic folder.
    """
    run, shapes = folder.path, task.shapes
    translated, reals = run / "translated" / split, run / "reals" / split
    for old in (translated, reals):
        files.remove_folder(old)
    ids = task.data.names(split)
    names = iter(file_names([Path(i.replace("#", "-")) for i in ids]))
    made: list[dict[str, Any]] = []
    with files.new_folder(reals) as real_folder, files.new_folder(translated) as fake_folder:
        for batch in task.data.eval_batches(split, batch_size=16):
            source, target = np.asarray(batch["source"]), np.asarray(batch["target"])
            sides = (
                coding.picture(source, shapes.source),
                coding.picture(target, shapes.target),
                coding.picture(translate(model, source), shapes.target),
            )
            for condition, real, fake in zip(*sides, strict=True):
                name = next(names)
                for place in (real_folder, fake_folder):
                    synthetic.write_picture(place / shapes.source.role / name, condition, False)
                synthetic.write_picture(real_folder / shapes.target.role / name, real, False)
                path = synthetic.write_picture(fake_folder / shapes.target.role / name, fake)
                file = path.relative_to(fake_folder).as_posix()
                made.append({"file": file, "condition": ids[len(made)], "seed": None})
        weights = run / "weights" / "generator.weights.h5"
        _write_provenance(fake_folder, run, shapes, weights, made)
    return translated


def file_names(paths: Sequence[Path]) -> list[str]:
    """A name without suffix for each file: its stem, or its whole path where stems repeat."""
    stems = [_without_suffix(path).name for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    common = Path(os.path.commonpath(paths))
    if common in paths:
        return [f"{index:05d}-{stem}" for index, stem in enumerate(stems)]
    return ["-".join(_without_suffix(path.relative_to(common)).parts) for path in paths]


def _without_suffix(path: Path) -> Path:
    """`images/a.png-2`, the second tile of a picture, becomes `images/a-2`."""
    suffix, dash, tile = path.suffix.partition("-")
    return path.with_name(path.name.removesuffix(suffix + dash + tile) + dash + tile)


def _write_provenance(
    folder: Path, run: Path, shapes: Shapes, weights: Path, made: list[dict[str, Any]]
) -> None:
    synthetic.write_provenance(
        folder,
        run=run.name,
        system=shapes.system,
        weights={
            "file": weights.relative_to(run).as_posix(),
            "sha256": files.sha256_of(weights),
        },
        role=shapes.target.role,
        stochastic=any(entry["seed"] is not None for entry in made),
        trained_on=trained_on(run),
        images=made,
    )


def save_sheet(path: Path, pixels: Array) -> None:
    """Write a sheet of pictures as PNG."""
    with files.replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
