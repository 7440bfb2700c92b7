"""How fast the input pipeline makes training batches, and what memory it takes.

    python benchmarks/pipeline.py [--data builtin:smear?size=320&count=400] [--size 256] [--batch 8]

Prints a table, and as its last line the same as JSON. Each storage is measured in a process of its
own, so that its peak memory is its own. `first` counts from nothing: hashing, decoding, fitting,
first epoch; `cached` is the median of later epochs; `again` is the first epoch of a second run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STORAGES = {"memory": 4096, "file": 0}  # data.cache_mb


def main() -> None:
    """Measure every storage in turn, or one if told so by the process above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="builtin:smear?size=320&count=400")
    parser.add_argument("--size", type=int, default=256, help="side of the batches in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5, help="cached epochs to take the median of")
    parser.add_argument("--storage", choices=STORAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.storage:
        print(json.dumps(measure(arguments)))
        return

    from tfgan_med.data import builtin

    if arguments.data.startswith("builtin:"):
        arguments.data = str(builtin.materialize(arguments.data))  # not part of what is measured
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TFGAN_MED_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
        results = [run(arguments, storage, environment) for storage in STORAGES]
    show(results)
    print(json.dumps({"results": results, **machine(), "settings": vars(arguments)}))


def run(arguments: argparse.Namespace, storage: str, environment: dict[str, str]) -> dict[str, Any]:
    """`measure` in a process of its own, twice: the second run finds what the first has cached."""
    command = [sys.executable, str(Path(__file__).resolve()), "--storage", storage]
    for name in ("data", "size", "batch", "epochs"):
        command += [f"--{name}", str(getattr(arguments, name))]
    first, again = (
        json.loads(
            subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            ).stdout.splitlines()[-1]
        )
        for _ in range(2)
    )
    return {**first, "again": again["first"]}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images per second of the first and of later epochs, and peak memory."""
    import tensorflow as tf

    from tfgan_med.data import opening, pipeline, splits
    from tfgan_med.data.records import DataConfig

    config = DataConfig(
        path=arguments.data, image_size=arguments.size, cache_mb=STORAGES[arguments.storage]
    )
    next(iter(tf.data.Dataset.range(1)))  # TensorFlow's own start is not ours
    before = peak_memory()

    start = time.perf_counter()
    data = pipeline.prepare_pairs(splits.assign(opening.open_set(config), config), config)
    prepared = time.perf_counter()
    steps = data.steps_per_epoch(arguments.batch)
    batches = iter(data.train_batches(arguments.batch, seed=0))
    epochs = []
    for _ in range(1 + arguments.epochs):
        epoch = time.perf_counter()
        for _ in range(steps):
            next(batches)
        epochs.append(time.perf_counter() - epoch)
    images = steps * arguments.batch
    decoded = sum(data.counts.values())
    return {
        "storage": arguments.storage,
        "items": decoded,
        "decode": round(decoded / (prepared - start)),
        "first": round(images / (prepared - start + epochs[0])),
        "cached": round(images / statistics.median(epochs[1:])),
        "peak_mb": round(peak_memory()),
        "of_which_tensorflow_mb": round(before),
    }


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    from importlib.metadata import version

    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "tensorflow": version("tensorflow"),
        "numpy": version("numpy"),
        "pillow": version("pillow"),
    }


def show(results: list[dict[str, Any]]) -> None:
    """One row per storage."""
    print("images/s   decode   first   again  cached   peak MB (TensorFlow alone)")
    for row in results:
        print(
            f"{row['storage']:8} {row['decode']:8} {row['first']:7} {row['again']:7} "
            f"{row['cached']:7} {row['peak_mb']:9} ({row['of_which_tensorflow_mb']})"
        )


if __name__ == "__main__":
    main()
