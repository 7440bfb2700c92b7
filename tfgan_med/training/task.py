"""What a kind of training adds to the loop: its data, sample sheets, scores, and what it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfgan_med import files
from tfgan_med.data import gate, opening, splits
from tfgan_med.data.pipeline import DomainData, ImageData, PairedData
from tfgan_med.data.records import DataConfig, ImageSet, Split
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.learning.system import System
from tfgan_med.metrics.kid import kernel_distance
from tfgan_med.metrics.sliced_wasserstein import sliced_wasserstein
from tfgan_med.networks.feature_cache import extract
from tfgan_med.networks.features import FeatureNetwork
from tfgan_med.ops.frechet import frechet_distance
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

MEANINGS = {
    "l1": "mean difference to the true picture, of 255 grey levels; lower is better",
    "psnr": "PSNR in dB; higher is better",
    "ssim": "structural similarity, at most 1; higher is better",
    "swd": "sliced Wasserstein distance of local patches to real pictures, times 1000; "
    "lower is better",
    "swd_masks": "the same of the masks",
    "swd_a2b": "the same from translated A to real B",
    "swd_b2a": "the same from translated B to real A",
    "perceptual": "perceptual distance to the true picture on the network of `model.lpips_net`; "
    "lower is better",
    "nearest": "distance of samples to the nearest training picture, as a share of that between "
    "training pictures; far below that of the mean picture they are copies",
    "cycle": "mean difference after there and back, of 255 grey levels; lower is better",
    "ssim_to_input": "structural similarity to the picture it was made from; 1 is a copy",
    "correlation_a2b": "correlation with the input's brightness, A to B; negative is inverted",
    "correlation_b2a": "correlation with the input's brightness, B to A",
    "accuracy": "share of pictures with the right class",
    "balanced_accuracy": "accuracy, the mean over classes",
    "precision": "share of the positive answers that are right",
    "recall": "share of the positive pictures that are found",
    "f1": "harmonic mean of precision and recall",
    "auc": "area under the ROC curve",
    "average_precision": "area under the precision-recall curve",
    "iou": "overlap with the true mask (IoU), the mean over pictures",
    "dice": "Dice coefficient, the mean over pictures",
    "miou": "IoU of all pixels, the mean of mask and background",
    "fp_pixels": "wrongly found pixels of a picture",
    "fn_pixels": "missed pixels of a picture",
}
HIGHER_IS_BETTER = frozenset(
    {"psnr", "ssim", "accuracy", "balanced_accuracy", "f1", "auc", "average_precision"}
    | {"iou", "dice"}
)


@dataclass(frozen=True)
class Observation:
    """A look at a model between steps.

    Attributes:
        scores: by name, see `MEANINGS`.
        variety: mean standard deviation over pictures of `fake` and `real` ones.
        warning: what looks wrong, in words.
    """

    scores: dict[str, float]
    variety: Mapping[str, float]
    warning: str | None = None


@dataclass(frozen=True)
class Ending:
    """What a finished run has made, and how good it is.

    Attributes:
        scores: of the model.
        references: the same scores of things to compare with, by what they are.
        basis: what the scores were measured on, in words.
        split, pictures: the split and how many pictures of it.
        made: folder of the pictures it made, and of the real ones beside them, if any.
    """

    scores: dict[str, float]
    references: dict[str, dict[str, float]]
    basis: str
    split: Split
    pictures: int
    made: Path | None = None
    reals: Path | None = None


@dataclass
class FeatureScore:
    """A distance of real and generated pictures on the features of a network.

    Attributes:
        network: its features.
        kind: `fid` or `kid`.
    """

    network: FeatureNetwork
    kind: str
    _real: dict[str, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The distance's name on this network."""
        return self.network.name_of(self.kind)

    def __call__(self, key: str, real: Pixels, fake: Pixels) -> float:
        """Few pictures bias a Fréchet distance upwards: compare checkpoints of one run only.

        Args:
            key: of the real pictures, whose features are kept.
            real, fake: `(images, height, width, 3)` uint8.
        """
        if key not in self._real:
            self._real[key] = self._features(real)
        distance = frechet_distance if self.kind == "fid" else kernel_distance
        return float(distance(self._real[key], self._features(fake)))

    def _features(self, pictures: Pixels) -> Array:
        """Without the logits that some networks give beside them."""
        return np.asarray(extract(self.network, pictures, 32)[:, : self.network.dimension])


class Task(ABC):
    """One kind of training: `needs` of a model says which.

    Attributes:
        settings: of the run.
        data: batches.
        watched: the split that is looked at during training.
    """

    metrics: ClassVar[tuple[str, ...]]
    """What can decide the best checkpoint without a feature network, the default first."""
    sure_advice: ClassVar[str]
    """What helps a generator whose discriminator is sure of every batch."""

    settings: RunConfig
    data: PairedData | ImageData | DomainData
    watched: Split

    @abstractmethod
    def build(self, schedule: Schedule) -> System:
        """The model, to be called in the scope of the strategy."""

    @abstractmethod
    def contents(self) -> str:
        """What is made of what, such as `masks to images`."""

    @abstractmethod
    def calibration_batch(self, count: int) -> Any:
        """Real training pictures for `System.calibrate`."""

    @abstractmethod
    def data_sheet(self) -> tuple[str, Pixels]:
        """Training pictures as the networks see them, and the name of the sheet."""

    @abstractmethod
    def sample_sheet(self, model: System) -> Pixels:
        """What the model makes of fixed inputs."""

    @abstractmethod
    def observe(self, model: System, score: FeatureScore | None, step: int) -> Observation:
        """Scores of the model as it is."""

    @abstractmethod
    def save_network(self, folder: RunFolder) -> None:
        """Write `weights/network.yaml`, from which the networks are rebuilt."""

    @abstractmethod
    def save_weights(self, folder: RunFolder, model: System) -> None:
        """Write the weights that make pictures, the moving averages where they are kept."""

    @abstractmethod
    def finish(self, model: System, folder: RunFolder) -> Ending:
        """Make the pictures that belong to a finished run, and measure them."""

    def keep_best(self, folder: RunFolder, model: System, step: int) -> bool:
        """Keep the weights that scored best; False if the loop shall save a whole checkpoint."""
        return False

    def forget_best(self, folder: RunFolder, step: int) -> None:  # noqa: B027 - few keep any
        """Remove what `keep_best` kept of other steps; a checkpoint has just been saved."""

    def conclude(  # noqa: B027 - few note it
        self, folder: RunFolder, steps: int, seconds: Mapping[str, float]
    ) -> None:
        """Note what a finished run has cost.

        Args:
            seconds: of this process by `training`, `evaluation`, `saving`, `preparation`, `total`.
        """

    def deciding_metric(self) -> str:
        """What decides the best checkpoint.

        Raises:
            UserError: if this kind of training has no such score.
        """
        chosen: str = self.settings.train.eval_metric
        known = (*self.metrics, "fid", "kid")
        if chosen == "auto":
            return self.metrics[0]
        if chosen not in known:
            raise UserError(
                f"train.eval_metric is {chosen}, which {self.settings.system} cannot be scored "
                f"by. Use one of: auto, {', '.join(known)}."
            )
        return chosen


def open_data(config: DataConfig) -> ImageSet:
    """The set with its splits, of one class if `label` says so; refused if it is not sound."""
    found = splits.assign(opening.open_set(config), config)
    gate.require_fit(found, config)
    return opening.of_class(found, config)


def patch_distance(real: Pixels, fake: Pixels) -> float:
    """Sliced Wasserstein distance times 1000, the mean over levels, from equally many pictures.

    Args:
        real, fake: `(images, height, width, channels)` uint8; the longer one is cut.
    """
    count = min(len(real), len(fake))
    levels = sliced_wasserstein(real[:count], fake[:count], repeats=1)
    return 1000.0 * float(np.mean([level.value for level in levels]))


def save_sheet(path: Path, pixels: Pixels) -> None:
    """Write a sheet of pictures as PNG."""
    with files.replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
