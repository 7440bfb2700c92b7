"""A finished downstream run applied to other pictures: classes, or masks, of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med import files
from tfgan_med.config import load_yaml
from tfgan_med.data import encoding as coding
from tfgan_med.data import fitting, opening, synthetic
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import ImageSet, Part, Record
from tfgan_med.data.splits import assign
from tfgan_med.downstream.base import DownstreamModel, Problem, beliefs
from tfgan_med.errors import DataError, UserError
from tfgan_med.metrics import classification, segmentation
from tfgan_med.training import predictions, weights
from tfgan_med.training.settings import saved_settings, system_class
from tfgan_med.training.translation import file_names

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Predicted:
    """What was said of a set of pictures.

    Attributes:
        pictures: how many.
        table: file with a row for each of them.
        scores: by name, where the pictures come with the truth; else empty.
        counts: pictures by the class they were given; empty for segmenters.
    """

    pictures: int
    table: Path
    scores: dict[str, float]
    counts: dict[str, int]


class Predictor:
    """The network of a finished run, and how it reads pictures.

    Args:
        run: the run folder.
    Attributes:
        problem: what it tells apart.
        threshold: probability from which the answer is yes, as the run settled it.
    Raises:
        UserError: if the run is no downstream model or has not ended.
    """

    def __init__(self, run: Path) -> None:
        network = run / "weights" / "network.yaml"
        facts = load_yaml(network) if network.is_file() else {}
        if facts.get("kind") != "downstream":
            raise UserError(
                f"{run}: is no run of a classifier or segmenter, so it predicts nothing. Train one "
                "with `tfgan-med train vgg16` or `unet`; see `tfgan-med list models`."
            )
        self.run = run
        self.outcome = predictions.read_outcome(run)
        named = dict(facts["problem"])
        self.problem = Problem(**{**named, "classes": tuple(named["classes"])})
        self.encodings = [Encoding(**values) for values in facts["encodings"]]
        self.threshold = float(self.outcome["threshold"]["value"])
        self.settings = saved_settings(run)
        self._network = self._load(str(facts["system"]))
        shape = (None, *self._network.input_shape[1:])
        self._forward = tf.function(
            lambda pictures: self._believe(pictures),
            [tf.TensorSpec(shape, tf.float32)],
            autograph=False,
        )

    @property
    def classifies(self) -> bool:
        """Whether pictures get a class; else their pixels do."""
        return bool(self.outcome["kind"] == "classification")

    def _load(self, system: str) -> Any:
        """The whole network of a classifier from `model.keras`; a segmenter's is rebuilt."""
        if self.classifies:
            return keras.models.load_model(self.run / "model.keras", compile=False, safe_mode=True)
        cls: Any = system_class(system)
        model: DownstreamModel = cls(self.settings.model, self.problem)
        path, arrays = weights.read(self.run, "network")
        weights.assign(model.network, arrays, path)
        self._model = model
        return model.network

    def _believe(self, pictures: tf.Tensor) -> tf.Tensor:
        if not self.classifies:
            return self._model.believe(pictures)
        logits = self._network(pictures, training=False)
        one_each = logits.shape[-1] == len(self.problem.classes) > 1
        problem = replace(self.problem, positive=None) if one_each else self.problem
        return beliefs(logits, problem)

    def of_part(self, part: Part) -> npt.NDArray[np.float64]:
        """Probabilities of one picture.

        Returns:
            Of a classifier `(classes,)`, the mean over tiles; of a segmenter
            `(height, width, classes)` in the picture's size, but with `fit: crop`, which gives
            the middle square at network size.
        Raises:
            DataError: if the picture cannot be read.
        """
        how, data = self.encodings[0], self.settings.data
        raw = coding.read(part, how.role, data.max_pixels)
        tiles, placement = fitting.fit(raw, self.problem.image_size, data.fit, False, data.scale)
        said = np.asarray(self._forward(tf.constant(coding.tensor(tiles, how))), np.float64)
        if self.classifies:
            return np.asarray(said.mean(axis=0))
        return fitting.unfit(said, placement, nearest=False)


def open_input(predictor: Predictor, source: str | None, split: str) -> ImageSet:
    """The pictures to predict on.

    Args:
        source: a folder or table; None for the run's own data.
        split: of the run's own data, or of a set with splits; `all` for all of it.
    Raises:
        DataError: if there are none.
    """
    config = predictor.settings.data
    if source is not None:
        config = config.model_copy(
            update={"path": source, "layout": "auto", "columns": {}, "label": None}
        )
    found = opening.open_set(config)
    if split != "all":
        found = assign(found, config)
        found = replace(found, records=found.of_split(split))  # type: ignore[arg-type]
    if not found.records:
        raise DataError(
            f"{config.path}: has no pictures in the split {split}. Use --split all, or name "
            "another folder with --input."
        )
    return found


def predict(
    predictor: Predictor,
    images: ImageSet,
    out: Path,
    replace_old: bool = False,
    progress: Progress = lambda done, total: None,
) -> Predicted:
    """Write what the run says of each picture.

    Makes the folder `out` with `predictions.csv`; of a segmenter also with `masks/` (with several
    masks `masks-<name>/`), or `labels/` of a label map.

    Raises:
        DataError: if a picture cannot be read; nothing is written then.
    """
    role = predictor.encodings[0].role
    records = images.records
    missing = [record for record in records if not record.has(role)]
    if missing:
        raise DataError(
            f"{missing[0].id}: has no picture of the role '{role}', which the run was trained on. "
            "Put the pictures into a folder of that name."
        )
    with files.new_folder(out) as folder:
        said = _each(predictor, records, role, progress)
        result = (
            _write_classes(predictor, records, said, folder)
            if predictor.classifies
            else _write_masks(predictor, records, said, folder)
        )
        if replace_old:
            files.remove_folder(out)
    return replace(result, table=out / result.table.name)


def _each(
    predictor: Predictor, records: Sequence[Record], role: str, progress: Progress
) -> Iterator[Array]:
    for index, record in enumerate(records):
        yield predictor.of_part(record.part(role))
        progress(index + 1, len(records))


# Classes ------------------------------------------------------------------------------------------


def _write_classes(
    predictor: Predictor, records: Sequence[Record], said: Iterator[Array], folder: Path
) -> Predicted:
    classes = predictor.problem.classes
    scores = np.stack(list(said))
    decided = classification.decided(scores, predictor.problem.positive, predictor.threshold)
    table = folder / "predictions.csv"
    header = ["file", "said", "truth", *(f"p {name}" for name in classes)]
    rows = [
        [record.id, classes[index], record.label or "", *(f"{p:.6f}" for p in row)]
        for record, index, row in zip(records, decided, scores, strict=True)
    ]
    files.write_text(table, _csv([header, *rows]))
    counts = {name: int((decided == i).sum()) for i, name in enumerate(classes)}
    return Predicted(len(rows), table, _class_scores(predictor, records, scores), counts)


def _class_scores(
    predictor: Predictor, records: Sequence[Record], scores: Array
) -> dict[str, float]:
    """Scores, if all pictures have one of the run's classes."""
    classes = predictor.problem.classes
    if any(record.label not in classes for record in records):
        return {}
    truth = np.array([classes.index(str(record.label)) for record in records])
    return classification.scores_of(truth, scores, predictor.problem.positive, predictor.threshold)


# Masks --------------------------------------------------------------------------------------------


def _write_masks(
    predictor: Predictor, records: Sequence[Record], said: Iterator[Array], folder: Path
) -> Predicted:
    names = file_names([record.part(predictor.encodings[0].role).path for record in records])
    counts: list[Array] = []
    rows = []
    for record, name, probabilities in zip(records, names, said, strict=True):
        masks = predictor.problem.masks(probabilities, predictor.threshold)
        _write_mask(predictor, masks, folder, name)
        rows.append([record.id, *(f"{share:.6f}" for share in masks.mean(axis=(0, 1)))])
        truth = _truth(predictor, record, masks.shape[:2])
        if truth is not None:
            counts.append(segmentation.pixel_counts(truth[None], masks[None])[0])
    table = folder / "predictions.csv"
    header = ["file", *(f"share {name}" for name in predictor.problem.classes)]
    files.write_text(table, _csv([header, *rows]))
    scores = {}
    if counts and len(counts) == len(records):
        scores = segmentation.segmentation_scores(
            np.stack(counts),
            predictor.problem.classes,
            background=predictor.problem.exclusive,
        )
    return Predicted(len(rows), table, scores, {})


def _write_mask(predictor: Predictor, masks: Array, folder: Path, name: str) -> None:
    if predictor.problem.exclusive:
        labels = masks.argmax(-1).astype(np.uint8)
        synthetic.write_picture(folder / "labels" / name, labels, False)
        return
    roles = [how.role for how in predictor.encodings[1:]]
    for role, mask in zip(roles, np.moveaxis(masks, -1, 0), strict=True):
        place = "masks" if role == "ids" else role
        pixels = np.where(mask, 255, 0).astype(np.uint8)
        synthetic.write_picture(folder / place / name, pixels, False)


def _truth(predictor: Predictor, record: Record, size: tuple[int, int]) -> Array | None:
    """The true masks at the size of the predicted ones, if the picture has all of them."""
    hows = predictor.encodings[1:]
    if not all(record.has(how.role) for how in hows):
        return None
    data = predictor.settings.data
    parts = []
    for how in hows:
        values = coding.read(record.part(how.role), how.role, data.max_pixels)
        if values.shape[:2] != size:  # `fit: crop` keeps the middle only
            tiles, _ = fitting.fit(values, predictor.problem.image_size, data.fit, True, data.scale)
            values = tiles[0]
        if how.kind == "labels":
            return np.asarray(values == np.arange(how.channels))
        parts.append(values > 0)
    return np.concatenate(parts, axis=-1)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    import csv
    import io

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
