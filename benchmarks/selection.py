"""Time and peak memory of choosing pictures: ours, streamed, against the naive route in memory.

    python benchmarks/selection.py [--counts 1000 5000 20000 70000] [--naive-up-to 5000]

Pictures are generated: smooth random fields of a few kinds with a falling spectrum, so that 90 % of
their variance takes some hundred components as in photographs. They lie as uint8 in a mapped file.
Every route and size is measured in a process of its own. The naive routes are what a notebook does:

- `full`: all pictures as float32, scikit-learn's PCA(n_components=0.90, svd_solver="full"), KMeans,
  a loop over clusters with `numpy.linalg.pinv`;
- `randomized`: the same with svd_solver="randomized" and the number of components told beforehand,
  which it cannot find out itself.

Peak memory counts everything, libraries included. The last line is the table as JSON. A file of
70 000 pictures of 128 pixels takes 3.4 GB in the temporary folder (TMPDIR), and is deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE, CLUSTERS, SHARE = 100, 10, 0.90
KINDS, WAVES, BATCH = 6, 24, 250
Indices = npt.NDArray[np.int64]


def main() -> None:
    """Measure every size and route in turn, or one if told so by the process above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 20_000, 70_000])
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--naive-up-to", type=int, default=5000, help="pictures; memory permitting")
    parser.add_argument("--naive", nargs="*", choices=NAIVE, default=list(NAIVE))
    parser.add_argument("--backend", default="auto", help="of our principal components")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--route", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--components", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.route:
        print(json.dumps(measure(arguments)))
        return

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.npy"
        write_pictures(file, max(arguments.counts), arguments.side)
        results = [compare(arguments, file, count) for count in sorted(arguments.counts)]
    show(results)
    print(json.dumps({"results": results, **machine(), "settings": vars(arguments)}, default=str))


def compare(arguments: argparse.Namespace, file: Path, count: int) -> dict[str, Any]:
    """Every route on the first `count` pictures."""
    ours = run(file, count, "ours", ["--backend", arguments.backend])
    result = {"count": count, "ours": ours}
    for route in arguments.naive if count <= arguments.naive_up_to else ():
        print(f"{count} pictures: {route}", file=sys.stderr)
        other = run(file, count, route, ["--components", str(ours["components"])])
        result[route] = {**other, "times_slower": other["seconds"] / ours["seconds"]}
    return result


def run(file: Path, count: int, route: str, further: list[str]) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--route", route]
    command += ["--file", str(file), "--count", str(count), *further]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of one route."""
    pictures = np.load(arguments.file, mmap_mode="r")[: arguments.count]
    route: Callable[..., dict[str, Any]] = ours if arguments.route == "ours" else naive
    start = time.perf_counter()
    result = route(pictures, arguments)
    return {"seconds": time.perf_counter() - start, "peak_mb": round(peak_memory()), **result}


# Routes -------------------------------------------------------------------------------------------


def ours(pictures: npt.NDArray[np.uint8], arguments: argparse.Namespace) -> dict[str, Any]:
    """The package: components from blocks of the mapped file, then KSS."""
    from tfgan_med.data import selection
    from tfgan_med.ops import principal_components

    start = time.perf_counter()
    blocks = principal_components.ArrayBlocks(pictures)
    components, scores = principal_components.fit(blocks, SHARE, backend=arguments.backend)
    fitted = time.perf_counter()
    config = selection.SelectionConfig("kss", SIZE, clusters=CLUSTERS)
    chosen = selection.select(scores, config).indices
    return {
        "components": scores.shape[1],
        "explained": components.explained,
        "backend": components.backend,
        "seconds_pca": fitted - start,
        "seconds_select": time.perf_counter() - fitted,
        "chosen": len(chosen),
    }


NAIVE = ("full", "randomized")


def naive(pictures: npt.NDArray[np.uint8], arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything in memory, by scikit-learn."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    values = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    known = arguments.route == "randomized"
    start = time.perf_counter()
    scores = PCA(
        n_components=arguments.components if known else SHARE,
        svd_solver="randomized" if known else "full",
        copy=False,
        random_state=0,
    ).fit_transform(values)
    fitted = time.perf_counter()
    labels = KMeans(CLUSTERS, n_init=10, random_state=0).fit_predict(scores)
    return {
        "components": scores.shape[1],
        "seconds_pca": fitted - start,
        "chosen": len(farthest(scores.astype(np.float64), labels)),
    }


def farthest(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int32]) -> list[int]:
    """The printed algorithm, cluster by cluster."""
    chosen: list[int] = []
    for cluster in range(CLUSTERS):
        members = np.flatnonzero(labels == cluster)
        apart = scores[members] - scores[members].mean(axis=0)
        inverse = np.linalg.pinv(np.cov(apart.T))
        distances = np.array([row @ inverse @ row for row in apart])
        chosen += members[np.argsort(-distances)[: SIZE // CLUSTERS]].tolist()
    return chosen


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` on Linux remembers the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return float(lines["VmHWM"].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    from importlib.metadata import version

    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "scikit-learn")},
    }


# Pictures -----------------------------------------------------------------------------------------


def write_pictures(file: Path, count: int, side: int) -> None:
    """`(count, side, side, 3)` uint8, a batch at a time; more of them begin with the same ones."""
    pictures = np.lib.format.open_memmap(file, "w+", np.uint8, (count, side, side, 3))
    draw = Pictures(side)
    for start in range(0, count, BATCH):
        batch = draw(np.random.default_rng([7, start]), BATCH)
        pictures[start : start + BATCH] = batch[: count - start]
    pictures.flush()


class Pictures:
    """Cosine waves with random amplitudes that fall with frequency, around the mean of a kind."""

    def __init__(self, side: int) -> None:
        rng = np.random.default_rng(3)
        frequencies = np.arange(WAVES)
        places = (np.arange(side)[:, None] + 0.5) / side
        self.waves = np.cos(np.pi * places * frequencies).astype(np.float32)
        length = np.hypot(*np.meshgrid(frequencies, frequencies))
        self.amplitudes = (16.0 / (1.0 + length)).astype(np.float32)[:, :, None]
        self.colors = np.array([[1, 1, 1], [0.3, 0, -0.3], [0.1, -0.2, 0.1]], np.float32)
        self.kinds = rng.standard_normal((KINDS, WAVES, WAVES, 3), np.float32)

    def __call__(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
        """`(count, side, side, 3)`."""
        fields = rng.standard_normal((count, WAVES, WAVES, 3), np.float32)
        fields += self.kinds[rng.integers(0, KINDS, count)]
        fields = np.matmul(self.amplitudes * fields, self.colors)
        rows = np.einsum("xf,nfgc->nxgc", self.waves, fields, optimize=True)
        images = np.einsum("yg,nxgc->nxyc", self.waves, rows, optimize=True)
        images += 128.0 + 3.0 * rng.standard_normal(images.shape, np.float32)
        batch: npt.NDArray[np.uint8] = images.clip(0, 255).astype(np.uint8)
        return batch


# Table --------------------------------------------------------------------------------------------


def show(results: list[dict[str, Any]]) -> None:
    """One row per size and route."""
    print("pictures  route       seconds  (PCA)  peak MB    p  times slower")
    for row in results:
        for route in ("ours", *NAIVE):
            if route not in row:
                continue
            figures = row[route]
            name = figures.get("backend", "") if route == "ours" else route
            name = f"ours {name}" if route == "ours" else name
            ratio = f"{figures['times_slower']:12.1f}" if "times_slower" in figures else " " * 12
            print(
                f"{row['count']:8}  {name:12} {figures['seconds']:6.1f} "
                f"{figures['seconds_pca']:6.1f} {figures['peak_mb']:8} {figures['components']:4}"
                f"{ratio}"
            )


if __name__ == "__main__":
    main()
