"""Milliseconds of DiffAugment, forward and backward, as a graph and under XLA.

python benchmarks/diffaugment.py [--repeats 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from tfgan_med.augment.diffaugment import DiffAugment

CASES = (((64, 64, 64, 3), (3,)), ((8, 256, 256, 3), (3,)), ((8, 256, 256, 4), (3, 1)))
POLICIES = ("color", "translation", "cutout", "color,translation", "color,translation,cutout")


def step(
    shape: tuple[int, ...], groups: tuple[int, ...], policy: str, xla: bool
) -> Callable[[], None]:
    """One augmentation of a batch and the gradient back to it."""
    augment = DiffAugment(policy, groups, color_groups=(0,))
    images = tf.random.stateless_uniform(shape, (1, 2), -1.0, 1.0)
    upstream = tf.random.stateless_normal(shape, (3, 4))

    def forward_and_backward(images: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            result = augment(images, seed)
        return result, tape.gradient(result, images, output_gradients=upstream)

    compiled = tf.function(forward_and_backward, jit_compile=xla)
    seed = tf.constant([5, 6], tf.int64)
    return lambda: compiled(images, seed)[1].numpy()


def milliseconds(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Measure all in turn and print medians as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    for shape, groups in CASES:
        calls = {
            f"{policy} {'xla' if xla else 'graph'}": step(shape, groups, policy, xla)
            for policy in POLICIES
            for xla in (False, True)
        }
        for call in calls.values():
            milliseconds(call)
        times = [{name: milliseconds(call) for name, call in calls.items()} for _ in range(repeats)]
        medians = {name: round(statistics.median(run[name] for run in times), 1) for name in calls}
        print(json.dumps({"shape": shape, "milliseconds": medians}), flush=True)


if __name__ == "__main__":
    main()
