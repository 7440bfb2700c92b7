"""How often the intervals of KID and of precision and recall cover their targets, by simulation.

    python benchmarks/metric_intervals.py [--repetitions 400]

The target is the expected value at the given number of images, from 2000 other draws. A line
gives the share of 95 % intervals that cover it, and in brackets how wide they are beside those of
the true standard deviation.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tfgan_med.metrics.kid import kernel_distance, kernel_distance_and_error
from tfgan_med.metrics.prdc import intervals, precision_recall_density_coverage

Matrix = npt.NDArray[np.float64]

CASES = [  # images, features, shift of the second set, heavy tails
    (40, 16, 0.0, False),
    (40, 128, 0.3, False),
    (150, 16, 0.3, False),
    (150, 64, 0.0, False),
    (150, 400, 0.3, False),
    (60, 256, 0.3, True),
    (150, 64, 0.0, True),
    (400, 64, 0.1, False),
]
TARGET_DRAWS, RESAMPLES = 2000, 60
NAMES = ("precision", "recall", "density", "coverage", "f_score")


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400)
    repetitions = parser.parse_args().repetitions
    generator = np.random.default_rng(0)
    print("images features shift heavy | kid, " + ", ".join(NAMES))
    for images, features, shift, heavy in CASES:
        draw = sampler(images, features, heavy, generator)
        found = [kid(draw, shift, repetitions)]
        found += prdc(draw, shift, repetitions)
        print(f"{images:6} {features:8} {shift:5} {heavy!s:>5} | " + "  ".join(found), flush=True)


def sampler(
    images: int, features: int, heavy: bool, generator: np.random.Generator
) -> Callable[[float], Matrix]:
    """Draws rectified Gaussian features whose variances fall as 1/k."""
    spread = np.arange(1, features + 1) ** -0.5
    rotation = np.linalg.qr(generator.standard_normal((features, features)))[0]

    def draw(shift: float) -> Matrix:
        latent = generator.standard_normal((images, features)) * spread * (1 + shift)
        if heavy:
            latent *= np.exp(0.5 * generator.standard_normal((images, 1)))
        drawn: Matrix = np.maximum(latent @ rotation + 0.3 + shift / 2, 0.0)
        return drawn

    return draw


def kid(draw: Callable[[float], Matrix], shift: float, repetitions: int) -> str:
    """Coverage of value ± 1.96 standard errors."""
    drawn = np.array([kernel_distance(draw(0.0), draw(shift)) for _ in range(TARGET_DRAWS)])
    pairs = [kernel_distance_and_error(draw(0.0), draw(shift)) for _ in range(repetitions)]
    values, errors = np.array(pairs).T
    covered = np.abs(values - drawn.mean()) <= 1.96 * errors
    return summary(covered, errors.mean() / drawn.std())


def prdc(draw: Callable[[float], Matrix], shift: float, repetitions: int) -> list[str]:
    """Coverage of the five intervals."""
    others = [
        precision_recall_density_coverage(draw(0.0), draw(shift)) for _ in range(TARGET_DRAWS)
    ]
    ours = [
        intervals(draw(0.0), draw(shift), repeats=RESAMPLES, seed=i) for i in range(repetitions)
    ]
    found = []
    for name in NAMES:
        target = np.array([getattr(values, name) for values in others])
        ranges = [each[name] for each in ours if name in each]
        if len(ranges) < repetitions / 2:
            found.append("none")
            continue
        covered = np.array([each.low <= target.mean() <= each.high for each in ranges])
        width = np.mean([each.high - each.low for each in ranges]) / (3.92 * target.std() + 1e-12)
        found.append(summary(covered, float(width)))
    return found


def summary(covered: npt.NDArray[np.bool_], width: float) -> str:
    """Share covered and relative width."""
    return f"{covered.mean():.2f} ({width:.2f})"


if __name__ == "__main__":
    main()
