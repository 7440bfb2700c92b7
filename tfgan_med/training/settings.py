"""The settings of a training run: data, model and training in one block, resolved in order."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, create_model

from tfgan_med import config, discovery, files
from tfgan_med.augment.classic import ClassicConfig
from tfgan_med.config import Config
from tfgan_med.data.mixing import MixConfig
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.learning.system import System
from tfgan_med.models.base import GenerativeModel
from tfgan_med.training.run_folder import CLASSES

MODELS = "tfgan_med.models"
DOWNSTREAM = "tfgan_med.downstream"


class LoopConfig(Config):
    """How long, how exact and on what a run trains, and what it writes on the way."""

    epochs: int = Field(200, ge=1)
    """Passes over the training pictures."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps of the whole run; wins over `epochs`."""
    batch_size: int = Field(1, ge=1)
    """Pictures of a step, all devices together."""
    seed: int = Field(0, ge=0)
    """Of initial weights, order, jitter and noise."""
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    """Arithmetic of the layers; weights stay float32. `auto` is mixed_bfloat16 on a CPU with AMX,
    where it is twice as fast, else float32; config.yaml records which. On a GPU, mixed_float16
    (or mixed_bfloat16 from Ampere on) is faster and smaller."""
    xla: Literal["auto", "on", "off"] = "auto"
    """Compile the step with XLA; `auto` does on a GPU only, for it slows convolutions on a CPU."""
    strategy: Literal["auto", "none", "mirrored", "multiworker"] = "auto"
    """Devices: `auto` uses all GPUs of this machine, `mirrored` all GPUs or logical CPUs,
    `multiworker` those of TF_CONFIG."""
    device: str = Field("auto", pattern=r"^(auto|cpu|gpu(:\d+)?)$")
    """`auto`, `cpu`, `gpu` or `gpu:<number>`."""
    deterministic: bool = False
    """Use deterministic kernels on the GPU too; slower."""
    log_interval: int = Field(20, ge=1)
    """Steps between two lines of log.jsonl."""
    sample_interval: int = Field(500, ge=1)
    """Steps between two sample sheets, with the scores on held-out pairs."""
    checkpoint_interval: int = Field(500, ge=1)
    """Steps between two checkpoints."""
    eval_interval: int = Field(0, ge=0)
    """Steps between two evaluations that decide the best checkpoint; 0 evaluates with each
    sample sheet."""


class TrainConfig(LoopConfig):
    """Training of a generative model."""

    eval_metric: Literal["auto", "l1", "ssim", "psnr", "swd", "fid", "kid"] = "auto"
    """What decides the best checkpoint: l1, ssim or psnr of held-out pairs (`auto`: l1); without
    pairs swd (`auto`), the sliced Wasserstein distance to real pictures, which needs no network.
    `fid` and `kid` need Inception weights or `eval_features`."""
    eval_protocol: Literal["ttur", "clean", "pytorch-fid", "keras"] = "ttur"
    """Protocol of `eval_metric: fid` or `kid`, as in `tfgan-med evaluate fid`."""
    eval_features: Path | None = None
    """Feature network for `fid` and `kid` in place of Inception; the value is named after it."""
    eval_features_output: str | None = None
    """Its tensor or layer with the features, where the file does not tell."""
    eval_images: int = Field(64, ge=2)
    """Pictures used, at most."""
    calibration_batches: int = Field(100, ge=1)
    """Batches of 64 latent vectors over which the batch-norm statistics of samples are averaged;
    looks between steps take 8 at most. Without effect on models that translate."""
    eval_share: float = Field(0.1, gt=0.0, le=1.0)
    """Share of the run's time that evaluations may take; later ones are put off."""


class FitConfig(LoopConfig):
    """Training of a downstream model. The held-out pictures of `val` decide which weights are kept;
    those of `test` are looked at once, when the run has ended."""

    eval_metric: Literal[
        "auto", "accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "iou", "dice"
    ] = "auto"
    """Score on the validation split that decides which weights are kept; `auto` is
    balanced_accuracy for classifiers and iou, the mean over pictures, for segmenters."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without gain after which training ends; null trains all steps."""
    threshold: float | Literal["auto"] = 0.5
    """Probability from which the answer is yes; `auto` takes the one with the best F1
    (classifiers) or IoU (segmenters) on the validation split."""
    score_test: bool = True
    """Look at the test split at the end; off in a search for settings."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weighs each picture by the inverse share of its class."""
    validation: float = Field(0.2, gt=0.0, lt=0.9)
    """Share of the training pictures, by whole groups, that is held out for validation where the
    set has no validation split."""
    eval_share: float = Field(1.0, gt=0.0, le=1.0)
    """Share of the run's time that evaluations may take. Below 1 they depend on the clock, and two
    runs need not keep the same weights."""


RESUMABLE = frozenset(
    {
        "train.epochs",
        "train.steps",
        "train.device",
        "train.strategy",
        "train.xla",
        "train.log_interval",
        "train.sample_interval",
        "train.checkpoint_interval",
        "train.eval_interval",
        "train.eval_images",
        "train.eval_share",
    }
)
"""Settings a resumed run may change; anything else would be another experiment."""


class RunConfig(Config):
    """All settings of a run; `settings_class` gives the subclass of a system."""

    system: Any = None
    name: str = Field("", pattern=r"^[A-Za-z0-9._-]*$")
    """Name of the run folder behind its number; by default model and data."""
    data: Any = None
    model: Any = None
    train: Any = None


def names() -> list[str]:
    """Everything that `tfgan-med train` trains."""
    return sorted([*discovery.available(MODELS), *discovery.available(DOWNSTREAM)])


def is_downstream(system: str) -> bool:
    """Whether a name is that of a classifier or segmenter."""
    return system in discovery.available(DOWNSTREAM)


def system_class(system: str) -> type[System]:
    """The class of `models/<system>.py` or `downstream/<system>.py`.

    Raises:
        UserError: with the nearest name if there is none.
    """
    if is_downstream(system):
        return discovery.load_class(DOWNSTREAM, system, System)
    if system not in names():
        raise UserError(discovery.unknown(system, "model", names()))
    return model_class(system)


def model_class(system: str) -> type[GenerativeModel]:
    """The class of `models/<system>.py`; UserError with the nearest name if there is none."""
    return discovery.load_class(MODELS, system, GenerativeModel)


@functools.cache
def settings_class(system: str) -> type[RunConfig]:
    """Settings of `tfgan-med train <system>` with the paper's values as defaults."""
    downstream = is_downstream(system)
    model = system_class(system)
    block: type[Config] = discovery.load_class(
        DOWNSTREAM if downstream else MODELS, system, Config, suffix="Config"
    )
    mixed: dict[str, Any] = {
        "mix": (MixConfig, Field(MixConfig(), description="Real and synthetic pictures.")),
        "classic": (ClassicConfig, Field(ClassicConfig(), description="Classical augmentation.")),
    }
    train: Any = FitConfig if downstream else TrainConfig
    return create_model(
        f"{model.__name__}Settings",
        __base__=RunConfig,
        system=(Literal[system], Field(system, description="The model; `tfgan-med list models`.")),  # type: ignore[arg-type]
        data=(DataConfig, Field(DataConfig(**model.defaults.get("data", {})), description="Data.")),
        **(mixed if downstream else {}),
        model=(block, Field(block(), description="Networks, losses and optimizers.")),
        train=(train, Field(train(**model.defaults.get("train", {})), description="The run.")),
    )


def quickstart_file(system: str) -> Path | None:
    """Settings of `tfgan-med train <system>` without any argument, if the package has them."""
    place = importlib.resources.files("tfgan_med.configs") / "quickstart" / f"{system}.yaml"
    path = Path(str(place))
    return path if path.is_file() else None


def resolve(system: str, config_file: Path | None, changes: Sequence[str]) -> RunConfig:
    """Settings of a new run: `--set` beats the file beats the paper's defaults.

    Without a file and without data the quick start's file is taken.
    """
    cls = settings_class(system)
    named_data = any(change.partition("=")[0].strip() == "data.path" for change in changes)
    if config_file is None and not named_data:
        config_file = quickstart_file(system)
    layers = [(f"the defaults of {system}", system_class(system).defaults)]
    if config_file:
        layers.append(config.read_layer(cls, config_file))
    return config.resolve(cls, layers, changes, name=system)


def saved_settings(run: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Settings of a run folder; relative paths in it are relative to it."""
    saved = run / "config.yaml"
    if (run / CLASSES).is_file():
        names = ", ".join(files.read_json(run / CLASSES)["classes"].values())
        raise UserError(
            f"{run}: holds one run for each class. Name one of them: {run}/ and {names}."
        )
    cls = settings_class(str(config.load_yaml(saved).get("system")))
    return config.resolve(cls, [config.read_layer(cls, saved)], changes)
