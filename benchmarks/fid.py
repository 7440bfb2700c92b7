"""Fréchet stage against `scipy.linalg.sqrtm`, as TTUR, pytorch-fid and clean-fid compute it.

    python benchmarks/fid.py [--repeats 3] [--sizes 1000 2000]
    python benchmarks/fid.py --intervals 500 1000
    python benchmarks/fid.py --mapped 50000

Both start from the same float32 features, 2048 per image, and end with the distance; runs are
interleaved and medians reported. With fewer images than features the covariances are singular and
sqrtm takes square roots of rounding noise, so the values are also compared with the exact
singular values, and with sqrtm at 3000 images, where nothing is singular.

`--intervals` times 100 resamples, `--mapped` one distance of memory-mapped features with the
memory that it takes beside them (RssAnon, Linux).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from tfgan_med.ops.frechet import frechet_distance
from tfgan_med.ops.frechet_intervals import Resampled, jackknife

Features = npt.NDArray[Any]
DIMENSION = 2048


def main() -> None:
    """Print one line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 3000])
    parser.add_argument("--intervals", type=int, nargs="+", default=[])
    parser.add_argument("--mapped", type=int, nargs="+", default=[])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, numpy {version('numpy')}, scipy {version('scipy')}")
    for size in arguments.intervals:
        interval(size)
    for size in arguments.mapped:
        mapped(size)
    for size in [] if arguments.intervals or arguments.mapped else arguments.sizes:
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


def interval(size: int) -> None:
    """Time 100 resamples."""
    real, fake = draw(size, seed=1, shift=0.0), draw(size, seed=2, shift=0.1)
    value = frechet_distance(real, fake)
    begin = time.perf_counter()
    found = jackknife(value, Resampled(real), Resampled(fake), 100, seed=0)
    seconds = time.perf_counter() - begin
    print(
        f"N = {size} + {size}: {found.low:.2f} to {found.high:.2f}, 100 resamples {seconds:.1f} s"
    )


def mapped(size: int) -> None:
    """Time one distance of features on disk and watch the memory."""
    with tempfile.TemporaryDirectory() as folder:
        maps = []
        for seed in (1, 2):
            path = Path(folder) / f"{seed}.npy"
            rows = np.lib.format.open_memmap(path, "w+", np.float32, (size, DIMENSION))
            for start in range(0, size, 5000):
                count = min(5000, size - start)
                rows[start : start + count] = draw(count, 1000 * seed + start, 0.1 * (seed - 1))
            rows.flush()
            maps.append(np.load(path, mmap_mode="r"))
        before, peak, done = resident(), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak[0] = max(peak[0], resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        value, seconds = timed(frechet_distance, *maps)
        done.set()
        watcher.join()
    extra = peak[0] - before
    print(f"N = {size} + {size} mapped: {value:.3f}, {seconds:.1f} s, {extra:.0f} MB beside them")


def resident() -> float:
    """Private memory in MB; pages of mapped files do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("This system does not tell RssAnon.")


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
