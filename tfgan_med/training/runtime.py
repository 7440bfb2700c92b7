"""Precision, devices and distribution of this process, set once before a model is built."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.training.settings import TrainConfig


def start(train: TrainConfig) -> tf.distribute.Strategy:
    """Apply precision and determinism; return the strategy whose scope builds the model."""
    keras.config.set_dtype_policy(settled(train).precision)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = _visible_gpus(train.device)
    if train.strategy == "multiworker":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        _check_divisible(train.batch_size, strategy.num_replicas_in_sync)
        return strategy
    if train.strategy == "mirrored" or (train.strategy == "auto" and len(gpus) > 1):
        kind = "GPU" if gpus else "CPU"
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        _check_divisible(train.batch_size, len(devices))
        return tf.distribute.MirroredStrategy(
            devices, cross_device_ops=None if gpus else tf.distribute.ReductionToOneDevice()
        )
    return tf.distribute.get_strategy()


def settled(train: TrainConfig) -> TrainConfig:
    """The settings with `precision: auto` decided for this machine, to be recorded."""
    if train.precision != "auto":
        return train
    on_gpu = train.device != "cpu" and bool(tf.config.list_physical_devices("GPU"))
    fast = not on_gpu and "amx_bf16" in cpu_flags()
    return train.model_copy(update={"precision": "mixed_bfloat16" if fast else "float32"})


def cpu_flags() -> set[str]:
    """Instruction sets of the processor in Linux' words; empty where the system does not list."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()[2:]}


def _visible_gpus(device: str) -> list[Any]:
    """Hide the GPUs that were not asked for; let memory grow on the others."""
    gpus = tf.config.list_physical_devices("GPU")
    if device == "cpu":
        gpus = []
    elif device.startswith("gpu"):
        number = int(device.partition(":")[2] or 0)
        if number >= len(gpus):
            raise UserError(
                f"train.device is {device}, but this machine shows TensorFlow {len(gpus)} GPUs. "
                "Use --device auto or cpu; `tfgan-med doctor` says what is missing."
            )
        gpus = [gpus[number]]
    try:
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:  # devices are fixed once TensorFlow has used them
        if device != "auto":
            raise UserError(
                f"train.device is {device}, but TensorFlow runs already in this process with "
                "other devices. Start a new process."
            ) from error
    return list(gpus)


def _check_divisible(batch_size: int, devices: int) -> None:
    if batch_size % devices:
        raise UserError(
            f"train.batch_size is {batch_size}, but must be a multiple of the {devices} devices, "
            "for it counts the pictures of all of them together. Use "
            f"--set train.batch_size={-(-batch_size // devices) * devices}, or --strategy none."
        )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run: the only one, or worker 0 of several."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or resolver.task_id == 0


def share(data: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """A worker's part of each global batch, in batches of one device."""

    def part(batch: Any) -> Any:
        def rows(tensor: tf.Tensor) -> tf.Tensor:
            count = tf.shape(tensor)[0] // context.num_input_pipelines
            start = count * context.input_pipeline_id
            return tensor[start : start + count]

        return tf.nest.map_structure(rows, batch)

    batch_size = next(iter(data.element_spec.values())).shape[0]
    return data.map(part).rebatch(batch_size // context.num_replicas_in_sync)


def use_xla(train: TrainConfig) -> bool:
    """Whether the step is compiled: as asked, or on a GPU only."""
    if train.xla == "auto":
        return bool(tf.config.get_visible_devices("GPU"))
    return train.xla == "on"


def describe_devices() -> list[str]:
    """Names of the devices TensorFlow computes on."""
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return [f"CPU ({platform.processor() or platform.machine()})"]
    return [str(tf.config.experimental.get_device_details(gpu).get("device_name")) for gpu in gpus]


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    import numpy as np

    import tfgan_med

    return {
        "tfgan_med": tfgan_med.__version__,
        "python": sys.version.split()[0],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, where the platform tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
