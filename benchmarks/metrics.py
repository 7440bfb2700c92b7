"""Arithmetic of the metrics: seconds and memory from features to numbers, beside what others use.

    python -m venv /tmp/prdc && /tmp/prdc/bin/pip install prdc
    python benchmarks/metrics.py --prdc-python /tmp/prdc/bin/python [--repeats 5] [--large]

Every measurement is a process of its own that loads features from disk, then starts the clock.
Runs of the candidates take turns, and medians count, since machines are shared. Memory is the peak
of anonymous memory above what was there before the clock started (memory-mapped files are not in
it). The `prdc` package is timed with BLAS on one and on all threads, and the better one counts.
`--large` measures 50 000 + 50 000 images, memory-mapped; it takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[Any]
DIMENSION, CLASSES = 2048, 1008
HERE = Path(__file__).resolve().parent


class Run(NamedTuple):
    """One process: seconds, megabytes, and the numbers it found."""

    seconds: float
    megabytes: float
    values: list[float]


def main() -> None:
    """Print one line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prdc-python", help="interpreter with the prdc package")
    parser.add_argument("--repeats", type=int, default=5, help="0 leaves all but --large out")
    parser.add_argument("--images", type=int, default=5000, help="for PRDC, each side")
    parser.add_argument("--large", type=int, nargs="?", const=50_000, metavar="IMAGES")
    parser.add_argument("--skip-frechet", action="store_true", help="sqrtm takes a minute a run")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], *map(Path, options.worker[1:]))
        return

    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.repeats:
            compare_prdc(folder, options.images, options.prdc_python, options.repeats)
            alone(folder, 1000, options.repeats)
        if options.large:
            large(folder, options.large)
    if options.repeats and not options.skip_frechet:
        frechet = [sys.executable, str(HERE / "fid.py"), "--sizes", "1000", "2000"]
        print("Fréchet distance, benchmarks/fid.py:", flush=True)
        subprocess.run([*frechet, "--repeats", str(options.repeats)], check=True)


# Comparisons --------------------------------------------------------------------------------------


def compare_prdc(folder: Path, images: int, other: str | None, repeats: int) -> None:
    """Ours and the package, in turn."""
    files = [folder / f"{side}-{images}.npy" for side in ("real", "fake")]
    write_features(files[0], images, seed=1, shift=0.0)
    write_features(files[1], images, seed=2, shift=0.1)
    candidates: dict[str, Callable[[], Run]] = {"ours": lambda: run("prdc", files)}
    if other:
        for threads in ("1", str(os.cpu_count())):
            candidates[f"prdc, BLAS threads {threads}"] = (
                lambda threads=threads: run("prdc-package", files, other, threads)  # type: ignore[misc]
            )
    runs: dict[str, list[Run]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            runs[name].append(candidate())

    print(f"PRDC, {images} + {images} x {DIMENSION}:", flush=True)
    for name, found in runs.items():
        print(f"  {name}: {describe(found)}", flush=True)
    if not other:
        print("  (no comparison: --prdc-python names an interpreter with the prdc package)")
        return
    ours = runs.pop("ours")
    best = min(runs, key=lambda name: median_seconds(runs[name]))
    ratio = median_seconds(runs[best]) / median_seconds(ours)
    apart = np.abs(np.subtract(ours[0].values, runs[best][0].values)).max()
    print(f"  ratio to {best}: {ratio:.1f}; values differ by at most {apart:.1e}", flush=True)


def alone(folder: Path, images: int, repeats: int) -> None:
    """What has no counterpart outside a deep-learning library."""
    files = [folder / f"{side}-{images}.npy" for side in ("real", "fake")]
    write_features(files[0], images, seed=1, shift=0.0)
    write_features(files[1], images, seed=2, shift=0.1)
    logits = folder / "logits.npy"
    np.save(logits, np.random.default_rng(0).standard_normal((5000, CLASSES), np.float32))
    for title, name, inputs in (
        (f"KID, full, {images} + {images}", "kid", files),
        (f"KID, 100 subsets of {images // 2}", "kid-subsets", files),
        (f"PRDC, {images} + {images}", "prdc", files),
        (f"PRDC intervals, 100 repeats, {images} + {images}", "prdc-intervals", files),
        (f"Inception Score, 5000 x {CLASSES}, 10 splits", "inception-score", [logits, logits]),
    ):
        print(f"{title}: {describe([run(name, inputs) for _ in range(repeats)])}", flush=True)


def large(folder: Path, images: int) -> None:
    """Time and memory of sets that are memory-mapped."""
    files = [folder / f"{side}-large.npy" for side in ("real", "fake")]
    write_features(files[0], images, seed=1, shift=0.0)
    write_features(files[1], images, seed=2, shift=0.1)
    for name in ("kid", "prdc"):
        print(f"{name}, {images} + {images}: {describe([run(name, files)])}", flush=True)


def write_features(path: Path, count: int, seed: int, shift: float) -> None:
    """Rectified Gaussian features with variances that fall as 1/k, like those of a network."""
    mixing = np.random.default_rng(7).standard_normal((DIMENSION, DIMENSION))
    mixing *= 0.1 * (np.arange(1, DIMENSION + 1) ** -0.5)[:, None]
    weights = (mixing * (1 + shift)).astype(np.float32)
    generator = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=(count, DIMENSION))
    for start in range(0, count, 5000):
        part = out[start : start + 5000]
        latent = generator.standard_normal(part.shape, np.float32)
        part[:] = np.maximum(latent @ weights + np.float32(0.3 + shift), 0)
    out.flush()


# Processes ----------------------------------------------------------------------------------------


def run(name: str, files: list[Path], python: str = sys.executable, threads: str = "") -> Run:
    """One measurement in a new process."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **(dict.fromkeys(names, threads) if threads else {})}
    command = [python, __file__, "--worker", name, *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def work(name: str, real: Path, fake: Path) -> None:
    """The inside of `run`: import, load, warm up, then measure."""
    task = TASKS[name]()
    x, y = (np.load(path, mmap_mode="r") for path in (real, fake))
    if x.nbytes < 2**27:
        x, y = np.array(x), np.array(y)
    task(x[:300], y[:300])
    with Memory() as memory:
        begin = time.perf_counter()
        values = task(x, y)
        seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "megabytes": memory.growth, "values": values}))


class Memory:
    """Peak of anonymous memory above its level at the start, looked at every 5 ms (Linux)."""

    def __enter__(self) -> Memory:
        self.start = self.peak = self.now()
        self.running = True
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.running = False
        self.thread.join()

    @property
    def growth(self) -> float:
        """Megabytes."""
        return self.peak - self.start

    def watch(self) -> None:
        """Until the block ends."""
        while self.running:
            self.peak = max(self.peak, self.now())
            time.sleep(0.005)

    @staticmethod
    def now() -> float:
        """Megabytes of this process that are no file."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024
        raise SystemExit("Memory is read from /proc, which only Linux has.")


Task = Callable[[Features, Features], list[float]]


def our_prdc() -> Task:
    """Precision, recall, density, coverage."""
    from tfgan_med.metrics.prdc import precision_recall_density_coverage

    return lambda real, fake: list(precision_recall_density_coverage(real, fake)[:4])


def our_intervals() -> Task:
    """Their intervals."""
    from tfgan_med.metrics.prdc import intervals

    return lambda real, fake: [each.low for each in intervals(real, fake).values()]


def package_prdc() -> Task:
    """The same by the prdc package, as its README calls it."""
    import contextlib
    import io

    from prdc import compute_prdc  # type: ignore[import-not-found]

    def task(real: Features, fake: Features) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints counts
            found = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
        return [float(found[name]) for name in ("precision", "recall", "density", "coverage")]

    return task


def our_kid() -> Task:
    """Distance and standard error."""
    from tfgan_med.metrics.kid import kernel_distance_and_error

    return lambda real, fake: list(kernel_distance_and_error(real, fake))


def our_subsets() -> Task:
    """Mean over subsets."""
    from tfgan_med.metrics.kid import subset_distances

    return lambda real, fake: [
        float(subset_distances(real, fake, subset_size=len(real) // 2).mean())
    ]


def our_inception_score() -> Task:
    """Mean and spread."""
    from tfgan_med.metrics.inception_score import inception_score

    return lambda logits, _: list(inception_score(logits))


TASKS: dict[str, Callable[[], Task]] = {
    "prdc": our_prdc,
    "prdc-intervals": our_intervals,
    "prdc-package": package_prdc,
    "kid": our_kid,
    "kid-subsets": our_subsets,
    "inception-score": our_inception_score,
}


def median_seconds(runs: list[Run]) -> float:
    """Of several runs."""
    return statistics.median(each.seconds for each in runs)


def describe(runs: list[Run]) -> str:
    """Median, range and memory."""
    seconds = sorted(each.seconds for each in runs)
    spread = f" ({seconds[0]:.2f} to {seconds[-1]:.2f})" if len(runs) > 1 else ""
    memory = max(each.megabytes for each in runs)
    return f"{statistics.median(seconds):.2f} s{spread}, {memory:.0f} MB"


if __name__ == "__main__":
    main()
