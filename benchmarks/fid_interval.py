"""How often intervals for the Fréchet distance cover their target, by simulation.

    python benchmarks/fid_interval.py

The target is the expected distance at the given number of images. Percentile and reflected
intervals of the bootstrap with replacement stand beside `ops.frechet_intervals.jackknife`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tfgan_med.ops.frechet import frechet_distance
from tfgan_med.ops.frechet_intervals import Resampled, jackknife

Matrix = npt.NDArray[np.float64]

CASES = [  # images, features, shift of the second set, heavy tails
    (40, 16, 0.0, False),
    (40, 16, 0.3, False),
    (40, 128, 0.0, False),
    (40, 128, 0.3, False),
    (150, 16, 0.3, False),
    (150, 64, 0.0, False),
    (150, 64, 0.3, False),
    (150, 400, 0.3, False),
    (60, 256, 0.3, True),
    (150, 64, 0.0, True),
]
REPETITIONS, RESAMPLES = 200, 60


def main() -> None:
    """Print one line for each case: share of intervals that cover the target, and mean width."""
    generator = np.random.default_rng(0)
    print(
        "images features shift heavy | target  sd | percentile reflected jackknife (width/3.92 sd)"
    )
    for images, features, shift, heavy in CASES:
        draw = sampler(images, features, heavy, generator)
        target = np.mean([frechet_distance(draw(0.0), draw(shift)) for _ in range(1000)])
        covered, widths, values = [], [], []
        for repetition in range(REPETITIONS):
            real, fake = draw(0.0), draw(shift)
            value = frechet_distance(real, fake)
            ours = jackknife(value, Resampled(real), Resampled(fake), RESAMPLES, repetition)
            low, high = np.percentile(with_replacement(real, fake, generator), (2.5, 97.5))
            intervals = [(low, high), (2 * value - high, 2 * value - low), (ours.low, ours.high)]
            covered.append([a <= target <= b for a, b in intervals])
            widths.append(ours.high - ours.low)
            values.append(value)
        shares = " ".join(f"{share:9.2f}" for share in np.mean(covered, axis=0))
        spread = np.std(values)
        width = np.mean(widths) / (3.92 * spread)
        print(
            f"{images:6} {features:8} {shift:5} {heavy!s:>5} | {target:6.3f} {spread:5.3f} | "
            f"{shares} ({width:.2f})",
            flush=True,
        )


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


def with_replacement(real: Matrix, fake: Matrix, generator: np.random.Generator) -> Matrix:
    """Distances of bootstrap resamples."""
    n, m = len(real), len(fake)
    return np.array(
        [
            frechet_distance(real[generator.integers(0, n, n)], fake[generator.integers(0, m, m)])
            for _ in range(RESAMPLES)
        ]
    )


if __name__ == "__main__":
    main()
