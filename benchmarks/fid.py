"""Fréchet stage against `scipy.linalg.sqrtm`, as TTUR, pytorch-fid and clean-fid compute it.

    python benchmarks/fid.py [--repeats 3] [--sizes 1000 2000]

Both start from the same float32 features, 2048 per image, and end with the distance; runs are
interleaved and medians reported. With fewer images than features the covariances are singular and
sqrtm takes square roots of rounding noise, so the values are also compared with the exact
singular values, and with sqrtm at 3000 images, where nothing is singular.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from tfgan_med.metrics.fid import frechet_distance

Features = npt.NDArray[Any]
DIMENSION = 2048


def main() -> None:
    """Print one line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 3000])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, numpy {version('numpy')}, scipy {version('scipy')}")
    for size in arguments.sizes:
        compare(size, arguments.repeats)


def compare(size: int, repeats: int) -> None:
    """Time both ways on the same features, in turn."""
    real, fake = draw(size, seed=1, shift=0.0), draw(size, seed=2, shift=0.1)
    ours, theirs = [], []
    for _ in range(repeats):
        value, seconds = timed(frechet_distance, real, fake)
        ours.append(seconds)
        by_root, seconds = timed(by_sqrtm, real, fake)
        theirs.append(seconds)
    exact = by_singular_values(real, fake)
    fast, slow = statistics.median(ours), statistics.median(theirs)
    print(
        f"N = {size} + {size}: {fast:.2f} s, sqrtm {slow:.2f} s, ratio {slow / fast:.0f}; relative "
        f"difference to singular values {abs(value / exact - 1):.0e}, of sqrtm to them "
        f"{abs(by_root / exact - 1):.0e}",
        flush=True,
    )


def draw(count: int, seed: int, shift: float) -> Features:
    """Rectified Gaussian features with variances that fall as 1/k, like those of a network."""
    mixing = np.random.default_rng(7).standard_normal((DIMENSION, DIMENSION))
    mixing *= 0.1 * (np.arange(1, DIMENSION + 1) ** -0.5)[:, None]
    latent = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    return np.maximum(latent @ mixing * (1 + shift) + 0.3 + shift, 0.0).astype(np.float32)


def by_sqrtm(real: Features, fake: Features) -> float:
    """The usual way: covariances, matrix root of their product, real part."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    shift = x.mean(axis=0) - y.mean(axis=0)
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(root).real)


def by_singular_values(real: Features, fake: Features) -> float:
    """The definition by singular values, without any reduction."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    shift = x.mean(axis=0) - y.mean(axis=0)
    a = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.sum(a * a) + np.sum(b * b) - 2 * nuclear)


def timed(function: Callable[..., float], *arguments: Features) -> tuple[float, float]:
    """Value and seconds of wall time."""
    begin = time.perf_counter()
    value = function(*arguments)
    return value, time.perf_counter() - begin


if __name__ == "__main__":
    main()
