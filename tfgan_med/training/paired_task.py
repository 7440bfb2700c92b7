"""Training on pairs: a condition and the picture that belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfgan_med.data.pipeline import PairedData, prepare_pairs
from tfgan_med.data.records import DataConfig, Split
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.metrics import paired
from tfgan_med.models.base import GenerativeModel
from tfgan_med.ops import images
from tfgan_med.training import translation, weights
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig
from tfgan_med.training.task import Ending, FeatureScore, Observation, Pixels, Task, open_data
from tfgan_med.training.translation import Shapes, translate

Array = npt.NDArray[Any]

MOST_PAIRS = 256  # that the scores of a finished run are measured on


class PairedTask(Task):
    """Data and evaluation of a run that translates pictures into the ones that belong to them.

    Args:
        settings: of the run.
    Raises:
        DataError: if the data cannot be used, with file and cure.
    """

    metrics: ClassVar = ("l1", "ssim", "psnr")
    sure_advice: ClassVar = (
        "a smaller field, `--set model.discriminator=patch34`, or `--set model.d_loss_weight=0.25`"
    )
    data: PairedData

    def __init__(self, settings: RunConfig) -> None:
        self.settings = settings
        config: DataConfig = settings.data
        self.data = prepare_pairs(open_data(config), config)
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

    def build(self, schedule: Schedule) -> GenerativeModel:
        return translation.build_model(self.settings, self.shapes, schedule)

    def contents(self) -> str:
        source, target = self.shapes.source, self.shapes.target
        return (
            f"{source.role} ({source.channels} channels) to {target.role} ({target.channels} "
            "channels)"
        )

    def calibration_batch(self, count: int) -> Any:
        source, target = self._pairs("train", count)
        return {"source": source, "target": target}

    def _pairs(self, split: Split, count: int) -> tuple[Array, Array]:
        """Sources and targets of pairs spread over a split, at network size, float32."""
        key = f"{split}-{count}"
        if key not in self._fixed:
            batch = self.data.fixed_batch(split, count)
            self._fixed[key] = (np.asarray(batch["source"]), np.asarray(batch["target"]))
        return self._fixed[key]

    def data_sheet(self) -> tuple[str, Pixels]:
        """Training pairs, source beside target: is the direction right?"""
        return "pairs.png", self._sheet(*self._pairs("train", 8))

    def sample_sheet(self, model: GenerativeModel) -> Pixels:
        """Fixed pairs: source, target, translated; two pairs in a row."""
        source, target = self._pairs(self.watched, 8)
        return self._sheet(source, target, translate(model, source))

    def _sheet(self, source: Array, *pictures: Array) -> Pixels:
        columns = [images.as_rgb(source, self.shapes.source.kind)]
        columns += [images.as_rgb(picture, self.shapes.target.kind) for picture in pictures]
        cells = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
        return images.grid(cells, 2 * len(columns))

    def observe(self, model: GenerativeModel, score: FeatureScore | None, step: int) -> Observation:
        """L1, PSNR and SSIM on held-out pairs."""
        source, target = self._pairs(self.watched, self.settings.train.eval_images)
        fake = translate(model, source)
        scores = paired.paired_scores(target, fake)
        if score is not None:
            kind = self.shapes.target.kind
            real, made = images.as_rgb(target, kind), images.as_rgb(fake, kind)
            scores[score.name] = score(self.watched, real, made)
        variety = {"real": paired.variety(target), "fake": paired.variety(fake)}
        return Observation(scores, variety)

    def save_network(self, folder: RunFolder) -> None:
        translation.save_network(folder, self.shapes)

    def save_weights(self, folder: RunFolder, model: GenerativeModel) -> None:
        weights.save(folder, "generator", model.average("generator"))

    def finish(self, model: GenerativeModel, folder: RunFolder) -> Ending:
        """Translate the test split at network size; scores beside the mean training picture's."""
        counts = self.data.counts
        split: Split = "test" if counts["test"] else self.watched
        pairs = min(counts[split], MOST_PAIRS)
        source, target = self._pairs(split, pairs)
        mean = self._pairs("train", MOST_PAIRS)[1].mean(axis=0, keepdims=True)
        naive = paired.paired_scores(target, np.broadcast_to(mean, target.shape).copy())
        made, reals = self._write(model, folder) if split == "test" else (None, None)
        return Ending(
            scores=paired.paired_scores(target, translate(model, source)),
            references={"mean training picture": naive},
            basis=f"{pairs} pairs of the {split} split",
            split=split,
            pictures=pairs,
            made=made,
            reals=reals,
        )

    def _write(self, model: GenerativeModel, folder: RunFolder) -> tuple[Path, Path]:
        """The translated and the real test pairs as folders."""
        data, ids = self.data.decoded, self.data.decoded.names("test")
        sources = (source for source, _ in data.batches("test"))
        return (
            translation.write_split(model, sources, ids, self.shapes, folder, "test"),
            translation.write_reals(data.batches("test"), ids, data.encodings, folder, "test"),
        )
