"""Training on two kinds of pictures that do not belong together, translated into each other."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfgan_med.data.pipeline import DomainData, prepare_domains
from tfgan_med.data.records import DataConfig, Split
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.metrics.paired import paired_scores, variety
from tfgan_med.models.base import GenerativeModel
from tfgan_med.ops import images
from tfgan_med.training import translation, weights
from tfgan_med.training.run_folder import RunFolder
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
from tfgan_med.training.translation import NETWORKS, Direction, Shapes, translate

Array = npt.NDArray[Any]

MOST_PICTURES = 256  # of each kind that the scores of a finished run are measured on
INVERSION_STEPS = 500  # by then brightness should have found its sign


class DomainTask(Task):
    """Data and evaluation of a run that translates A to B and back.

    Args:
        settings: of the run.
    Raises:
        DataError: if the data cannot be used, with file and cure.
    """

    metrics: ClassVar = ("swd",)
    sure_advice: ClassVar = "differentiable augmentation, `--set model.augment=color,translation`"
    data: DomainData

    def __init__(self, settings: RunConfig) -> None:
        self.settings = settings
        config: DataConfig = settings.data
        self.data = prepare_domains(open_data(config), config)
        self.shapes = Shapes(
            system=settings.system,
            kind="domains",
            image_size=config.image_size,
            source=self.data.a.encodings[0],
            target=self.data.b.encodings[0],
            fit=config.fit,
            scale=config.scale,
            classes=self.data.names if self.data.by_class else None,
        )
        self.watched: Split = "val" if self.data.counts["val"] else "train"
        self._fixed: dict[str, tuple[Array, Array]] = {}

    def build(self, schedule: Schedule) -> GenerativeModel:
        return translation.build_model(self.settings, self.shapes, schedule)

    def contents(self) -> str:
        return f"{self.data.names[0]} to {self.data.names[1]} and back"

    def calibration_batch(self, count: int) -> Any:
        return self.data.fixed_batch("train", count)

    def _pictures(self, split: Split, count: int) -> tuple[Array, Array]:
        """Pictures of A and of B spread over a split, at network size, float32."""
        key = f"{split}-{count}"
        if key not in self._fixed:
            batch = self.data.fixed_batch(split, count)
            self._fixed[key] = (np.asarray(batch["a"]), np.asarray(batch["b"]))
        return self._fixed[key]

    def data_sheet(self) -> tuple[str, Pixels]:
        """Training pictures: a row of A, a row of B."""
        count = min(8, *(len(x) for x in self._pictures("train", 8)))
        a, b = (x[:count] for x in self._pictures("train", 8))
        return "domains.png", images.grid(np.concatenate([_rgb(a), _rgb(b)]), len(a))

    def sample_sheet(self, model: GenerativeModel) -> Pixels:
        """Fixed pictures: four of A, translated, and back; below them four of B."""
        cells = []
        count = min(len(x) for x in self._pictures(self.watched, 4))
        for direction, pictures in zip(NETWORKS, self._pictures(self.watched, 4), strict=True):
            there = translate(model, pictures[:count], direction=direction)
            back = translate(model, there, direction=_other(direction))
            cells += [_rgb(pictures[:count]), _rgb(there), _rgb(back)]
        return images.grid(np.concatenate(cells), len(cells[0]))

    def observe(self, model: GenerativeModel, score: FeatureScore | None, step: int) -> Observation:
        """Distances in both directions, what there and back changes, what was copied."""
        a, b = self._pictures(self.watched, self.settings.train.eval_images)
        to_b = translate(model, a, direction="a2b")
        to_a = translate(model, b, direction="b2a")
        scores = self._scores(model, (a, b), (to_a, to_b))
        if score is not None:
            both = [score(name, _rgb(real), _rgb(fake))
                    for name, real, fake in (("a", a, to_a), ("b", b, to_b))]  # fmt: skip
            scores[score.name] = float(np.mean(both))
        return Observation(
            scores,
            {"real": variety(b), "fake": variety(to_b)},
            _inverted(scores) if self.data.by_class and step >= INVERSION_STEPS else None,
        )

    def _scores(
        self, model: GenerativeModel, real: tuple[Array, Array], fake: tuple[Array, Array]
    ) -> dict[str, float]:
        """`fake` in the order of `real`: made to look like A, like B."""
        (a, b), (to_a, to_b) = real, fake
        back_a = translate(model, to_b, direction="b2a")
        back_b = translate(model, to_a, direction="a2b")
        a2b, b2a = patch_distance(_rgb(b), _rgb(to_b)), patch_distance(_rgb(a), _rgb(to_a))
        cycle = [np.abs(x - y).mean() for x, y in ((a, back_a), (b, back_b))]
        return {
            "swd": (a2b + b2a) / 2,
            "swd_a2b": a2b,
            "swd_b2a": b2a,
            "cycle": float(np.mean(cycle)) * 127.5,
            "ssim_to_input": float(np.mean([_similarity(a, to_b), _similarity(b, to_a)])),
            "correlation_a2b": _correlation(a, to_b),
            "correlation_b2a": _correlation(b, to_a),
        }

    def save_network(self, folder: RunFolder) -> None:
        translation.save_network(folder, self.shapes)

    def save_weights(self, folder: RunFolder, model: GenerativeModel) -> None:
        for name in model.exports:
            weights.save(folder, name, model.average(name))

    def finish(self, model: GenerativeModel, folder: RunFolder) -> Ending:
        """Translate the test split both ways; scores beside those of untranslated pictures."""
        counts = self.data.counts
        split: Split = "test" if counts["test"] else self.watched
        a, b = self._pictures(split, MOST_PICTURES)
        to_b = translate(model, a, direction="a2b")
        to_a = translate(model, b, direction="b2a")
        apart = patch_distance(_rgb(a), _rgb(b))
        untouched = {"swd": apart, "swd_a2b": apart, "swd_b2a": apart}
        if split == "test":
            for direction in NETWORKS:
                self._write_split(model, folder, direction)
        return Ending(
            scores=self._scores(model, (a, b), (to_a, to_b)),
            references={"pictures left as they are": untouched},
            basis=f"{len(a)} and {len(b)} pictures of the {split} split",
            split=split,
            pictures=len(a) + len(b),
            made=folder.path / "translated" / "test-a2b" if split == "test" else None,
            reals=folder.path / "reals" / "test-a2b" if split == "test" else None,
        )

    def _write_split(self, model: GenerativeModel, folder: RunFolder, direction: Direction) -> None:
        """Translations of one kind, and the real pictures of the other."""
        kinds = {"a2b": (self.data.a, self.data.b), "b2a": (self.data.b, self.data.a)}
        source, target = kinds[direction]
        shapes = self.shapes.turned(direction)
        sources = (pictures for (pictures,) in source.batches("test"))
        name = f"test-{direction}"
        translation.write_split(model, sources, source.names("test"), shapes, folder, name)
        translation.write_reals(
            target.batches("test"), target.names("test"), target.encodings, folder, name
        )


def _other(direction: Direction) -> Direction:
    return "b2a" if direction == "a2b" else "a2b"


def _rgb(tensor: Array) -> Pixels:
    return images.as_rgb(tensor, "image")


def _similarity(source: Array, fake: Array) -> float:
    """Structural similarity of grey versions, which may have other channels."""
    a, b = (x.mean(axis=-1, keepdims=True) for x in (source, fake))
    return paired_scores(a, b)["ssim"]


def _correlation(source: Array, fake: Array) -> float:
    """Correlation of brightness over all pixels, mean over pictures; 0 where one is constant."""
    found = []
    for x, y in zip(source.mean(axis=-1), fake.mean(axis=-1), strict=True):
        x, y = x - x.mean(), y - y.mean()
        size = float(np.sqrt((x**2).sum() * (y**2).sum()))
        found.append(float((x * y).sum()) / size if size > 1e-8 else 0.0)
    return float(np.mean(found))


def _inverted(scores: dict[str, float]) -> str | None:
    """A warning if a generator turns bright into dark, as CycleGANs are prone to."""
    for direction in NETWORKS:
        value = scores[f"correlation_{direction}"]
        if value < 0:
            return (
                f"Translation {direction} inverts brightness (correlation with its input "
                f"{value:.2f}). Known of unpaired translation: keep `model.lambda_identity` above "
                "0 and start anew with another --seed."
            )
    return None
