"""Training on pictures alone, or with their masks: models that make them from latent vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import yaml

from tfgan_med import files
from tfgan_med.data.pipeline import ImageData, prepare_images
from tfgan_med.data.records import DataConfig, Split
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.metrics.paired import variety
from tfgan_med.models._latent import LatentModel
from tfgan_med.models.base import GenerativeModel
from tfgan_med.ops import images
from tfgan_med.ops.latents import latents
from tfgan_med.training import sampling, translation, weights
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.sampling import ImageShapes, Order, build_model
from tfgan_med.training.settings import RunConfig
from tfgan_med.training.task import (
    Ending,
    FeatureScore,
    Observation,
    Pixels,
    Task,
    open_data,
    patch_distance,
)

Array = npt.NDArray[Any]

SHEET = 36  # pictures of a sample sheet
QUICK_CALIBRATION = 8  # batches for a look between steps
MOST_SAMPLES = 2000  # that a finished run makes; the thesis' number
MOST_REALS = 1000  # that the scores of a finished run are measured on


class ImageTask(Task):
    """Data and evaluation of a run that makes pictures from latent vectors.

    Args:
        settings: of the run.
    Raises:
        DataError: if the data cannot be used, with file and cure.
    """

    metrics: ClassVar[tuple[str, ...]] = ("swd",)
    sure_advice: ClassVar = "differentiable augmentation, `--set model.augment=color,translation`"
    data: ImageData

    def __init__(self, settings: RunConfig) -> None:
        self.settings = settings
        config: DataConfig = settings.data
        self.data = prepare_images(open_data(config), config)
        self.shapes = ImageShapes(
            system=settings.system,
            image_size=config.image_size,
            encodings=self.data.encodings,
            label=config.label,
            classes=self._classes(),
        )
        # The generator should make the distribution of the training pictures; whether it copies
        # them is another question (`evaluate memorization`).
        self.watched: Split = "train"
        self._fixed: dict[str, list[Array]] = {}

    def _classes(self) -> tuple[str, ...]:
        """Classes that a conditional model learns apart.

        Raises:
            UserError: if there are fewer than two, or pictures without.
        """
        if not getattr(self.settings.model, "conditional", False):
            return ()
        known = self.data.decoded.classes()
        bare = [r.id for r in self.data.decoded.records("train") if r.label is None]
        if bare or len(known) < 2:
            found = f"{bare[0]} has none" if bare and known else f"found {len(known)}"
            raise UserError(
                f"model.conditional: {self.settings.data.path}: needs two classes or more in the "
                f"data; {found}. Put each class into a folder of its name, or leave it out."
            )
        return tuple(sorted(known, key=known.__getitem__))

    def build(self, schedule: Schedule) -> GenerativeModel:
        return build_model(self.settings, self.shapes, schedule)

    def contents(self) -> str:
        roles = " and ".join(how.role for how in self.shapes.encodings)
        return roles if self.shapes.label is None else f"{roles} of the class {self.shapes.label}"

    def calibration_batch(self, count: int) -> Any:
        return self.data.fixed_batch("train", count)

    def _reals(self, split: Split, count: int) -> list[Array]:
        """Groups of channels of real pictures spread over a split, at network size."""
        key = f"{split}-{count}"
        if key not in self._fixed:
            batch = self.data.fixed_batch(split, count)
            self._fixed[key] = self.shapes.parted(np.asarray(batch["images"]))
        return self._fixed[key]

    def data_sheet(self) -> tuple[str, Pixels]:
        """Training pictures, to hold the samples against."""
        return "reals.png", self._sheet(self._reals("train", SHEET))

    def sample_sheet(self, model: GenerativeModel) -> Pixels:
        """Samples of the same latent vectors each time."""
        return self._sheet(self._samples(model, SHEET, QUICK_CALIBRATION))

    def _sheet(self, groups: list[Array]) -> Pixels:
        """Pictures in rows; a picture's masks stand beside it."""
        columns = self._as_rgb(groups)
        cells = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
        rows = max(1, round(np.sqrt(len(cells[:: len(columns)]))))
        return images.grid(cells, rows * len(columns))

    def _as_rgb(self, groups: list[Array]) -> list[Pixels]:
        pairs = zip(groups, self.shapes.encodings, strict=True)
        return [images.as_rgb(group, how.kind) for group, how in pairs]

    def _samples(self, model: GenerativeModel, count: int, calibration: int) -> list[Array]:
        """Groups of channels of the first pictures that `generate` makes."""
        assert isinstance(model, LatentModel)
        model.prepare_samples(min(calibration, self.settings.train.calibration_batches))
        draw = latents(Order.seed, range(count), model.latent_size, model.truncation)
        labels = self.data.spread_labels(count) if self.shapes.classes else None
        parts = [slice(start, start + 32) for start in range(0, count, 32)]
        made = [
            np.asarray(model.sample(draw[part], None if labels is None else labels[part]))
            for part in parts
        ]
        return self.shapes.parted(np.concatenate(made))

    def observe(self, model: GenerativeModel, score: FeatureScore | None, step: int) -> Observation:
        """Distance of samples to as many training pictures."""
        count = min(self.settings.train.eval_images, self.data.counts["train"])
        real, fake = self._reals("train", count), self._samples(model, count, QUICK_CALIBRATION)
        scores = self._scores(real, fake)
        if score is not None:
            scores[score.name] = score("train", self._as_rgb(real)[0], self._as_rgb(fake)[0])
        return Observation(scores, {"real": variety(real[0]), "fake": variety(fake[0])})

    def _scores(self, real: list[Array], fake: list[Array]) -> dict[str, float]:
        (picture, *masks), (made, *made_masks) = self._as_rgb(real), self._as_rgb(fake)
        scores = {"swd": patch_distance(picture, made)}
        if masks:
            pairs = zip(masks, made_masks, strict=True)
            scores["swd_masks"] = float(np.mean([patch_distance(a, b) for a, b in pairs]))
        return scores

    def save_network(self, folder: RunFolder) -> None:
        text = yaml.safe_dump(self.shapes.model_dump(mode="json"), sort_keys=False)
        files.write_text(folder.path / "weights" / "network.yaml", text)

    def save_weights(self, folder: RunFolder, model: GenerativeModel) -> None:
        """The sampling copy, its batch-norm statistics averaged over many batches."""
        assert isinstance(model, LatentModel)
        copy = model.prepare_samples(self.settings.train.calibration_batches)
        weights.save(folder, "generator", copy)

    def finish(self, model: GenerativeModel, folder: RunFolder) -> Ending:
        """Samples and training pictures as folders, and how far they are apart.

        References: the distance of held-out pictures, which no model should beat, and of noise.
        """
        count = min(self.data.counts["train"], MOST_REALS)
        real = self._reals("train", count)
        fake = self._samples(model, count, self.settings.train.calibration_batches)
        random = np.random.default_rng(self.settings.train.seed)
        noise = [np.asarray(random.uniform(-1.0, 1.0, part.shape), np.float32) for part in real]
        references = {"uniform noise": self._scores(real, noise)}
        held_out = sum(self.data.counts[split] for split in ("val", "test"))
        if held_out >= 2:
            parts = [self._reals(s, MOST_REALS) for s in ("val", "test") if self.data.counts[s]]
            others = [np.concatenate(group) for group in zip(*parts, strict=True)]
            references["real pictures not trained on"] = self._scores(real, others)
        made, reals = self._write(folder)
        return Ending(
            scores=self._scores(real, fake),
            references=references,
            basis=f"{count} samples and {count} training pictures",
            split="train",
            pictures=count,
            made=made,
            reals=reals,
        )

    def _write(self, folder: RunFolder) -> tuple[Path, Path]:
        """Samples, as many as training pictures, and the real pictures as folders."""
        data, made = self.data.decoded, folder.path / "generated"
        samplers = sampling.samplers_of(folder.path)
        most = None if len(samplers) > 1 else min(self.data.counts["train"], MOST_SAMPLES)
        sampling.generate_folder(samplers, made, Order(most), replace=True)
        if self.data.counts["test"]:
            ids, batches = data.names("test"), data.batches("test")
            translation.write_reals(batches, ids, data.encodings, folder, "test")
        ids, batches = data.names("train"), data.batches("train")
        return made, translation.write_reals(batches, ids, data.encodings, folder, "generated")
