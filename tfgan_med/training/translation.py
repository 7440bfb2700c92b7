"""Pictures from pictures with a trained run: of its own splits, of folders, one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from tfgan_med import files
from tfgan_med.config import Config, load_yaml
from tfgan_med.data import encoding as coding
from tfgan_med.data import fitting, opening, splits, synthetic
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import DataConfig, Part, Record
from tfgan_med.errors import DataError, UserError
from tfgan_med.learning.optimizers import UNSCHEDULED, Schedule
from tfgan_med.models.base import GenerativeModel
from tfgan_med.training import run_folder, weights
from tfgan_med.training.settings import RunConfig, model_class, saved_settings

Array = npt.NDArray[Any]


Direction = Literal["a2b", "b2a"]
NETWORKS: dict[Direction, str] = {"a2b": "generator_ab", "b2a": "generator_ba"}


class Shapes(Config):
    """What a translation network must know beside its settings; saved as `network.yaml`."""

    system: str
    kind: Literal["pairs", "domains"] = "pairs"
    image_size: int
    source: Encoding
    target: Encoding
    fit: fitting.Policy
    scale: float
    classes: tuple[str, str] | None = None
    """A and B of an unpaired run, where these are classes; source and target are of A and B."""
    direction: Direction | None = None
    """Of an unpaired run: `a2b` or `b2a`."""

    def turned(self, direction: Direction) -> Shapes:
        """For one direction of an unpaired run, as read from `network.yaml`."""
        sides = (self.source, self.target) if direction == "a2b" else (self.target, self.source)
        update = {"source": sides[0], "target": sides[1], "direction": direction}
        return self.model_copy(update=update)

    @property
    def channels(self) -> tuple[int, int]:
        """Of source and target, or of A and B whatever the direction."""
        sides = self.source.channels, self.target.channels
        return sides if self.direction != "b2a" else sides[::-1]

    @property
    def network(self) -> str:
        """Name of the network that translates."""
        return "generator" if self.direction is None else NETWORKS[self.direction]

    @property
    def label(self) -> str | None:
        """Class that the pictures belong to after translation; None if they keep theirs."""
        if self.classes is None or self.direction is None:
            return None
        return self.classes[1 if self.direction == "a2b" else 0]

    @property
    def source_label(self) -> str | None:
        """Class of the run's own pictures that this direction begins with."""
        if self.classes is None or self.direction is None:
            return None
        return self.classes[0 if self.direction == "a2b" else 1]

    @property
    def condition_role(self) -> str:
        """Folder of the conditions beside the pictures."""
        return self.source.role if self.source.role != self.target.role else "inputs"


def build_model(
    settings: RunConfig, shapes: Shapes, schedule: Schedule = UNSCHEDULED, inference: bool = False
) -> GenerativeModel:
    """The model of a run; with `inference`, the generator alone."""
    cls: Any = model_class(settings.system)  # the constructor of translation models
    try:
        model: GenerativeModel = cls(
            settings.model,
            shapes.image_size,
            *shapes.channels,
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
    direction: Direction | None = None,
) -> Array:
    """Translate arrays in batches.

    Args:
        source: `(images, size, size, source channels)` float32.
        stochastic, seed: keep dropout on, drawn from the seed.
        direction: of a model that translates both ways.
    Returns:
        `(images, size, size, target channels)` float32 in [-1, 1].
    """
    starts = range(0, len(source), batch_size)
    way: Any = {} if direction is None else {"direction": direction}
    parts = [
        np.asarray(
            model.translate(
                source[start : start + batch_size], stochastic=stochastic, seed=seed + start, **way
            )
        )
        for start in starts
    ]
    return np.concatenate(parts)


def save_network(folder: run_folder.RunFolder, shapes: Shapes) -> None:
    """Write `weights/network.yaml`, from which the generator is rebuilt."""
    text = yaml.safe_dump(shapes.model_dump(mode="json"), sort_keys=False)
    files.write_text(folder.path / "weights" / "network.yaml", text)


class Translator:
    """The generator of a trained run, and how it reads and writes pictures.

    Args:
        run: the run folder.
        checkpoint: `final` for the exported weights (the newest checkpoint if training has not
            ended), or `latest`, `best`.
        direction: of a run that translates both ways; by default `a2b`.
    Raises:
        UserError: if the run holds no weights, or is not a translation model.
    """

    def __init__(
        self, run: Path, checkpoint: str = "final", direction: Direction | None = None
    ) -> None:
        self.run = run
        self.shapes = _shapes_of(run, direction)
        self.settings = saved_settings(run)
        self.model = build_model(self.settings, self.shapes, inference=True)
        name = self.shapes.network
        self.weights_file, arrays = weights.read(run, name, checkpoint)
        weights.assign(self.model.networks[name], arrays, self.weights_file)

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
            self.model,
            coding.tensor(tiles, shapes.source),
            stochastic=stochastic,
            seed=seed,
            direction=shapes.direction,
        )
        pixels = coding.picture(fake, shapes.target)
        made = fitting.unfit(pixels, placement, shapes.target.nearest)
        seen = fitting.unfit(tiles, placement, shapes.source.nearest)
        return made, seen


def _shapes_of(run: Path, direction: Direction | None) -> Shapes:
    network = run / "weights" / "network.yaml"
    known = load_yaml(network) if network.is_file() else {}
    if known.get("kind", "images" if "encodings" in known else "pairs") == "images":
        raise UserError(
            f"{run}: makes pictures from nothing, so there is nothing to translate. Use "
            f"`tfgan-med generate {run}`."
        )
    if not known:
        raise UserError(
            f"{run}: has no weights/network.yaml, so it is not a run of a translation model "
            "that got to its first step. Train one with `tfgan-med train pix2pix`."
        )
    shapes = Shapes(**known)
    if shapes.kind == "domains":
        return shapes.turned(direction or "a2b")
    if direction is not None:
        raise UserError(
            f"{run}: translates one way only, {shapes.source.role} to {shapes.target.role}. Leave "
            "--direction out."
        )
    return shapes


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
        label = translator.shapes.source_label
        records = tuple(r for r in records if label is None or r.label == label)
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
    role, condition_role = translator.shapes.source.role, translator.shapes.condition_role
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
                pixels = condition_pixels(seen, role)
                synthetic.write_picture(folder / condition_role / name, pixels, False)
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


def trained_on(run: Path, label: str | None = None) -> list[dict[str, Any]]:
    """Hashes and groups of the items the generator saw, so that leaks can be found.

    Args:
        label: those of this class alone.
    """
    path = run / "data.json"
    if not path.is_file():
        return []
    items: list[dict[str, Any]] = files.read_json(path)["items"]
    return [
        {key: item[key] for key in ("id", "sha256", "group") if key in item}
        for item in items
        if item.get("split") == "train" and (label is None or item.get("label") == label)
    ]


def write_split(
    model: GenerativeModel,
    sources: Iterable[Array],
    ids: Sequence[str],
    shapes: Shapes,
    folder: run_folder.RunFolder,
    name: str,
) -> Path:
    """Translate pictures of the run's own data at network size, tile by tile.

    Writes the synthetic folder `translated/<name>/`; an older one is replaced.

    Args:
        sources: batches of conditions, as tensors.
        ids: of the conditions, in order.
    Returns:
        The folder.
    """
    run = folder.path
    translated = run / "translated" / name
    files.remove_folder(translated)
    names = _stems_of(ids)
    made: list[dict[str, Any]] = []
    with files.new_folder(translated) as place:
        for source in sources:
            fakes = coding.picture(translate(model, source, direction=shapes.direction),
                                   shapes.target)  # fmt: skip
            conditions = coding.picture(source, shapes.source)
            for condition, fake in zip(conditions, fakes, strict=True):
                stem, index = names[len(made)], ids[len(made)]
                synthetic.write_picture(place / shapes.condition_role / stem, condition, False)
                path = synthetic.write_picture(place / shapes.target.role / stem, fake)
                file = path.relative_to(place).as_posix()
                made.append({"file": file, "condition": index, "seed": None})
        _write_provenance(place, run, shapes, weights.exported(run, shapes.network), made)
    return translated


def write_reals(
    batches: Iterable[Sequence[Array]],
    ids: Sequence[str],
    encodings: Sequence[Encoding],
    folder: run_folder.RunFolder,
    name: str,
) -> Path:
    """Write real pictures at network size to `reals/<name>/`, to hold generated ones against.

    Args:
        batches: tensors of each role; `ids` of their items; an older folder is replaced.
        encodings: of the roles.
    Returns:
        The folder.
    """
    reals = folder.path / "reals" / name
    files.remove_folder(reals)
    names = iter(_stems_of(ids))
    with files.new_folder(reals) as place:
        for tensors in batches:
            roles = [
                coding.picture(values, how) for values, how in zip(tensors, encodings, strict=True)
            ]
            for pictures in zip(*roles, strict=True):
                stem = next(names)
                for picture, how in zip(pictures, encodings, strict=True):
                    synthetic.write_picture(place / how.role / stem, picture, False)
    return reals


def _stems_of(ids: Sequence[str]) -> list[str]:
    return file_names([Path(name.replace("#", "-")) for name in ids])


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
    folder: Path, run: Path, shapes: Shapes, weights_file: Path, made: list[dict[str, Any]]
) -> None:
    facts: dict[str, Any] = {}
    if shapes.label is not None:
        # A translated picture shows its new class; its old label would be wrong.
        facts = {"direction": shapes.direction, "label": shapes.label}
        rows = "".join(f"{Path(entry['file']).as_posix()},{shapes.label}\n" for entry in made)
        files.write_text(folder / "splits.csv", f"file,class\n{rows}")
    synthetic.write_provenance(
        folder,
        run=run.name,
        system=shapes.system,
        weights={
            "file": weights_file.relative_to(run).as_posix(),
            "sha256": files.sha256_of(weights_file),
        },
        role=shapes.target.role,
        **facts,
        stochastic=any(entry["seed"] is not None for entry in made),
        trained_on=trained_on(run),
        images=made,
    )
