"""Training on few pictures that a generator is adapted to: its source, figures and scores."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med.data.pipeline import ImageData
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.metrics.paired import paired_scores
from tfgan_med.models.base import GenerativeModel
from tfgan_med.models.bsa import BSA, BSAConfig, collapsed, give
from tfgan_med.networks import lpips
from tfgan_med.networks.sngan import GeneratorPlan, sngan_generator
from tfgan_med.ops import images
from tfgan_med.ops.latents import latents, lerp
from tfgan_med.ops.neighbors import nearest
from tfgan_med.training import adaptation_source, weights
from tfgan_med.training.image_task import MOST_REALS, SHEET, ImageTask
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.sampling import Order, build_model
from tfgan_med.training.settings import RunConfig
from tfgan_med.training.task import Ending, FeatureScore, Observation, Pixels, save_sheet

Array = npt.NDArray[Any]

COLUMNS = 8  # of the sheets; of an interpolation, the steps
RECONSTRUCTED = 32  # pictures of the sheet of reconstructions
ROWS = 5  # interpolations
MEASURED = 256  # reconstructions that the scores of a finished run are measured on, at most
COMPARED_SIZE = 32  # pixels a side at which nearest pictures are looked for


class AdaptationTask(ImageTask):
    """Data, source and evaluation of a run that adapts a generator.

    Args:
        settings: of the run.
    Attributes:
        source: the generator before.
    Raises:
        UserError: if there is no source, or it makes other pictures than the data are.
        DataError: if the data cannot be used, with file and cure.
    """

    metrics: ClassVar = ("l1", "psnr", "ssim", "swd")

    def __init__(self, settings: RunConfig) -> None:
        data, self.model_settings = settings.data, self._settings_of(settings)
        if data.load_size not in (None, data.image_size):
            raise UserError(
                f"data.load_size is {data.load_size}: random crops have no place here, for a "
                "latent vector belongs to one picture. Leave it out."
            )
        source = adaptation_source.of_settings(self.model_settings)
        if source is not None:
            _check_size(source.plan, data.image_size)
        super().__init__(settings)
        channels = sum(self.shapes.channels)
        if source is None:
            source = adaptation_source.random_weights(self._plan(channels), settings.train.seed)
        _check_channels(source.plan, channels, len(self.shapes.channels) > 1)
        self.source = source
        self.data = SmallImageData(self.data.decoded)
        self.plan = source.plan.model_copy(update={"num_classes": 0})
        extra = {"source": self.plan.model_dump(mode="json"), "num_images": self.count}
        self.shapes = self.shapes.model_copy(update={"extra": extra})

    @staticmethod
    def _settings_of(settings: RunConfig) -> BSAConfig:
        assert isinstance(settings.model, BSAConfig)
        return settings.model

    def _plan(self, channels: int) -> GeneratorPlan:
        """Of random weights.

        Raises:
            UserError: for a size there is no network for.
        """
        model = self.model_settings
        plan = GeneratorPlan(
            image_size=self.settings.data.image_size,
            channels=channels,
            base=model.source_base,
            small=model.source_small,
        )
        try:
            assert plan.widths
        except ValueError as error:
            raise UserError(f"{error} Settings: data.image_size, model.source_small.") from error
        return plan

    @property
    def count(self) -> int:
        """Training pictures."""
        return self.data.counts["train"]

    def build(self, schedule: Schedule) -> GenerativeModel:
        model = build_model(self.settings, self.shapes, schedule)
        assert isinstance(model, BSA)
        try:
            model.adopt(self.source.weights)
        except ValueError as error:
            raise UserError(f"{error} Settings: model.source, model.source_affine.") from error
        model.notices += [*self.source.notices, *self._notices()]
        return model

    def _notices(self) -> list[str]:
        """Doubtful settings."""
        data, batch = self.settings.data, self.settings.train.batch_size
        found = []
        turned = [name for name in ("flip", "flip_vertical", "rotate90") if getattr(data, name)]
        if turned:
            found.append(
                f"data.{turned[0]} is on: one latent vector then stands for a picture and its "
                "mirrored or turned version, and rebuilds their mean. Set it to false."
            )
        if self.count < batch:
            found.append(
                f"train.batch_size is {batch}, but there are {self.count} training pictures: each "
                "step takes all of them."
            )
        return found

    def contents(self) -> str:
        digest = self.source.facts.get("sha256")
        of = f"{self.source.name} (weights {digest[:12]})" if digest else self.source.name
        return f"{super().contents()} by an adapted generator of {of}"

    # Looks ----------------------------------------------------------------------------------

    def _rebuilt(self, model: BSA, count: int) -> list[Array]:
        """Groups of channels of the reconstructions of `_reals("train", count)`."""
        rows = self.data.decoded.spread_rows("train", count)
        return self.shapes.parted(model.reconstruct(rows))

    def observe(self, model: GenerativeModel, score: FeatureScore | None, step: int) -> Observation:
        """Reconstructions beside the training pictures, and the distance of random samples.

        Samples near the mean are alike on purpose, so their variety is not watched.
        """
        assert isinstance(model, BSA)
        count = min(self.settings.train.eval_images, self.count)
        scores = paired_scores(self._reals("train", count)[0], self._rebuilt(model, count)[0])
        seen = super().observe(model, score, step)
        return Observation({**scores, **seen.scores}, {})

    # What a run leaves ----------------------------------------------------------------------

    def save_network(self, folder: RunFolder) -> None:
        super().save_network(folder)
        if self.source.path is not None:
            adaptation_source.keep(self.source, folder, self.settings)
        whole = latents(Order.seed, range(SHEET), self.plan.latent_size)
        before = self._source_pictures(whole)
        save_sheet(folder.path / "samples" / "source.png", self._sheet(before))

    def save_weights(self, folder: RunFolder, model: GenerativeModel) -> None:
        """Generator and latent vectors, with the figures that show them."""
        super().save_weights(folder, model)
        assert isinstance(model, BSA)
        weights.save(folder, "latents", model.latents)
        rebuilt = self._reconstruction_sheet(model)
        save_sheet(folder.path / "samples" / "reconstructions.png", rebuilt)
        if self.count > 1:
            save_sheet(folder.path / "interpolation.png", self._interpolation_sheet(model))

    def _reconstruction_sheet(self, model: BSA) -> Pixels:
        """Rows of training pictures, and below each its reconstruction; masks follow."""
        count = min(RECONSTRUCTED, self.count)
        groups = (self._reals("train", count), self._rebuilt(model, count))
        real, made = (self._as_rgb(group) for group in groups)
        rows = [
            pictures[start : start + COLUMNS]
            for start in range(0, count, COLUMNS)
            for pair in zip(real, made, strict=True)
            for pictures in pair
        ]
        return _sheet_of_rows(rows)

    def _interpolation_sheet(self, model: BSA) -> Pixels:
        """Rows from the reconstruction of one training picture to that of another."""
        pairs = min(ROWS, self.count // 2)
        ends = model.latent_vectors()[self.data.decoded.spread_rows("train", 2 * pairs)]
        ways = [lerp(ends[i], ends[i + pairs], COLUMNS) for i in range(pairs)]
        made = [self.shapes.parted(_pictures(model.generator, way)) for way in ways]
        return _sheet_of_rows([row for groups in made for row in self._as_rgb(groups)])

    def finish(self, model: GenerativeModel, folder: RunFolder) -> Ending:
        """As for pictures alone, with reconstructions and nearest training pictures.

        References: the source before, whose reconstructions are one picture; the mean picture.
        """
        assert isinstance(model, BSA)
        ending = super().finish(model, folder)
        count = min(self.count, MEASURED)
        real = self._reals("train", count)
        most = min(self.count, MOST_REALS)
        fake = self._samples(model, most, self.settings.train.calibration_batches)
        scores = {
            **self._of_reconstructions(real, self._rebuilt(model, count)),
            **ending.scores,
            **self._of_nearest(fake),
        }
        return dataclasses.replace(
            ending,
            scores=scores,
            references={**self._references(real, most), **ending.references},
            basis=f"{count} reconstructions; {ending.basis}",
        )

    def _references(self, real: list[Array], most: int) -> dict[str, dict[str, float]]:
        count = len(real[0])
        start = np.zeros((count, self.plan.latent_size), np.float32)
        bound = self.model_settings.truncation
        draw = latents(Order.seed, range(most), self.plan.latent_size, bound)
        same, drawn = self._source_pictures(start), self._source_pictures(draw)
        mean = [np.repeat(part.mean(axis=0, keepdims=True), count, axis=0) for part in real]
        return {
            "source before": {
                **self._of_reconstructions(real, same),
                **self._scores(self._reals("train", most), drawn),
                **self._of_nearest(drawn),
            },
            "mean training picture": {
                **self._of_reconstructions(real, mean),
                **self._of_nearest(mean),
            },
        }

    def _of_reconstructions(self, real: list[Array], made: list[Array]) -> dict[str, float]:
        scores = paired_scores(real[0], made[0])
        network = self._perceptual_network()
        if network is not None:
            pair = self._as_rgb(real)[0], self._as_rgb(made)[0]
            scores["perceptual"] = float(network.distances(*pair).mean())
        return scores

    def _perceptual_network(self) -> lpips.LPIPS | None:
        """That of `model.lpips_net`, if its weights are here and it can see the pictures."""
        model = self.model_settings
        named = (model.lpips_net, model.lpips_trunk, model.lpips_linear)
        if lpips.missing(*named) or self.shapes.image_size < lpips.SMALLEST:
            return None
        return lpips.load(*named)

    def _of_nearest(self, fake: list[Array]) -> dict[str, float]:
        """Median distance to the nearest training picture, as a share of that among these."""
        real = _small(self._reals("train", min(self.count, MOST_REALS))[0])
        if len(real) < 2:
            return {}
        apart = float(np.median(nearest(real, real, 1, exclude_self=True)[0]))
        distance = float(np.median(nearest(_small(fake[0]), real, 1)[0]))
        return {"nearest": distance / apart} if apart > 0 else {}

    def _source_pictures(self, vectors: Array) -> list[Array]:
        """Groups of channels of what the source makes before it is adapted."""
        generator = sngan_generator(self.plan)
        give(generator, collapsed(self.source.weights, self.model_settings.source_affine))
        return self.shapes.parted(_pictures(generator, vectors))


class SmallImageData(ImageData):
    """Pictures as batches that hold none twice, even of a set that is smaller than a batch."""

    def steps_per_epoch(self, batch_size: int) -> int:
        return super().steps_per_epoch(min(batch_size, self.counts["train"]))

    def train_batches(self, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
        """As `ImageData.train_batches`, at most all pictures in a batch."""
        return super().train_batches(min(batch_size, self.counts["train"]), seed, start_step)


def _pictures(generator: Any, vectors: Array) -> Array:
    parts = range(0, len(vectors), 32)
    made = [generator(vectors[start : start + 32], training=False) for start in parts]
    return np.concatenate([np.asarray(part, np.float32) for part in made])


def _small(pictures: Array) -> Array:
    """`(count, side, side, channels)` averaged to 32 pixels, as vectors."""
    count, side, _, channels = pictures.shape
    factor = side // COMPARED_SIZE
    shape = (count, COMPARED_SIZE, factor, COMPARED_SIZE, factor, channels)
    means = np.asarray(pictures, np.float32).reshape(shape).mean(axis=(2, 4))
    return np.asarray(means).reshape(count, -1)


def _sheet_of_rows(rows: list[Pixels]) -> Pixels:
    """Rows of pictures below each other, shorter ones filled with white."""
    columns = max(map(len, rows))
    blank = np.full((columns, *rows[0].shape[1:]), 255, np.uint8)
    cells = [cell for row in rows for cell in (row, blank[: columns - len(row)])]
    return images.grid(np.concatenate(cells), columns)


def _check_size(plan: GeneratorPlan, image_size: int) -> None:
    if plan.image_size != image_size:
        raise UserError(
            f"data.image_size is {image_size}, but the source makes pictures of {plan.image_size} "
            f"px. Add --set data.image_size={plan.image_size}."
        )


def _check_channels(plan: GeneratorPlan, channels: int, masks: bool) -> None:
    if plan.channels == channels:
        return
    mode = {1: "gray", 3: "rgb"}.get(plan.channels)
    cure = (
        f"Add --set data.mode={mode}."
        if mode and not masks
        else "The source must have learned pictures with as many masks (data.with_masks)."
    )
    raise UserError(
        f"data: pictures of {channels} channels, but the source makes {plan.channels}. {cure}"
    )
