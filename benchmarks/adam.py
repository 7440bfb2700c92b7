"""Milliseconds of an Adam step for the weights of the 128 px U-Net's deep levels: ours and Keras'.

python benchmarks/adam.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from tfgan_med.learning.optimizers import FusedAdam

SHAPES = [(4, 4, 512, 512)] * 8  # 33.6 million weights


def optimizer_step(adam: type[keras.optimizers.Adam]) -> Callable[[], object]:
    """A compiled update of all weights."""
    weights = [keras.Variable(tf.random.stateless_normal(shape, (1, 2))) for shape in SHAPES]
    gradients = [tf.random.stateless_normal(shape, (3, 4)) for shape in SHAPES]
    optimizer = adam(2e-4, beta_1=0.5, epsilon=1e-8)
    optimizer.build(weights)

    def step() -> object:
        return optimizer.apply_gradients(zip(gradients, weights, strict=True))

    compiled: Callable[[], object] = tf.function(step)
    return compiled


def milliseconds(step: Callable[[], object], count: int = 5) -> float:
    """Mean of a few steps."""
    begin = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - begin) / count * 1000


def main() -> None:
    """Measure both in turn and print medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    steps = {"ours": optimizer_step(FusedAdam), "keras": optimizer_step(keras.optimizers.Adam)}
    for step in steps.values():
        milliseconds(step, 2)
    times = [{name: milliseconds(step) for name, step in steps.items()} for _ in range(repeats)]
    medians = {name: statistics.median(run[name] for run in times) for name in steps}
    print(json.dumps({name: round(value, 1) for name, value in medians.items()}))


if __name__ == "__main__":
    main()
