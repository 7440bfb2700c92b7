"""What `evaluate all` costs beside the slowest pass through a network.

    python benchmarks/evaluate_all.py --count 2000 --network inception
    python benchmarks/evaluate_all.py --count 2000 --network mobilenet --weights ../shared/weights
    python benchmarks/evaluate_all.py --count 50000 --size 64 --network wide --metrics \
        fid,kid,inception_score,ms_ssim,sliced_wasserstein,cid,likeness --set kid.protocol=block

Draws two sets of pictures, times the pass of the network over both alone (decoding included),
then every metric from scratch with the same network, and prints the ratio and the peak memory
(anonymous pages; pages of files on disk can be given back at any time and are not counted).
The Inception network has seeded weights: its speed is that of the real one. `wide` is one layer
with as many features and scores as Inception, to measure memory with many pictures.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from tfgan_med.evaluation.choice import choose, with_changes
from tfgan_med.evaluation.looking import Wanted, look
from tfgan_med.evaluation.measuring import Evaluation, Options
from tfgan_med.evaluation.pictures import Pictures, Preparation, open_pictures
from tfgan_med.networks import inception
from tfgan_med.networks.extractors import ExtractorChoice

NETWORKS = ("inception", "mobilenet", "wide")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="pictures on each side")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--network", choices=NETWORKS, default="inception")
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--metrics", default="", help="all by default")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--intervals", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Both passes, one after the other."""
    real = draw(folder / "real", arguments.count, arguments.size, 0)
    fake = draw(folder / "fake", arguments.count, arguments.size, 1)
    network = load(arguments, folder)
    size = (arguments.size, arguments.size)
    list(network.features([np.zeros((*size, 3), np.uint8)] * 32, 32))  # builds the graph

    start = time.perf_counter()
    for side in (real, fake):
        look(side, Preparation(), size, Wanted(features=True), network)
    alone = time.perf_counter() - start
    print(f"pass of {network.name}: {alone:.1f} s, {2 * arguments.count / alone:.1f} pictures/s")

    with PeakMemory() as memory:
        start = time.perf_counter()
        evaluation = Evaluation(
            with_changes(choose(arguments.metrics), arguments.changes),
            real,
            [fake],
            Options(intervals=arguments.intervals),
            network=network,
        )
        outcome = evaluation.of(fake)
        whole = time.perf_counter() - start
    print(f"evaluate all: {whole:.1f} s, {len(outcome.results)} numbers, ratio {whole / alone:.2f}")
    print(f"not measured: {', '.join(sorted({skip.metric for skip in outcome.skipped}))}")
    print(f"peak memory: {memory.peak / 2**30:.2f} GiB")


def draw(folder: Path, count: int, size: int, seed: int) -> Pictures:
    """Smooth random blobs with noise: every picture differs, PNGs of realistic size."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for i in range(count):
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        noisy = picture + generator.normal(0, 6, picture.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{i:05}.png")
    return open_pictures(str(folder), "all")


def load(arguments: argparse.Namespace, folder: Path) -> Any:
    """The network to measure with."""
    if arguments.network == "mobilenet":
        return ExtractorChoice(
            features=str(arguments.weights / "mobilenet-v1-0.25-224-imagenet.pb"),
            output_name="MobilenetV1/Logits/AvgPool_1a/AvgPool:0",
            logits_name="MobilenetV1/Predictions/Softmax:0",
        ).load()
    if arguments.network == "wide":
        keras.utils.set_random_seed(0)
        pictures = keras.Input((arguments.size, arguments.size, 3))
        pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(pictures))
        features = keras.layers.Dense(2048, "relu", name="features")(pooled)
        keras.Model(pictures, keras.layers.Dense(1008, name="scores")(features)).save(
            folder / "wide.keras"
        )
        return ExtractorChoice(
            features=str(folder / "wide.keras"), output_name="features", logits_name="scores"
        ).load()
    path = folder / "seeded.npz"
    np.savez(path, allow_pickle=False, **{n: seeded(n, s) for n, s in shapes().items()})
    return ExtractorChoice(weights=path).load()


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the Inception weights."""
    return dict(inception.state_shapes())


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Weights by the recipe of the golden values, which keeps activations in range."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("conv.weight"):
        values = generator.randn(*shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    elif name.endswith(("bn.weight", "running_var")):
        values = 0.5 + generator.rand(*shape)
    else:
        values = (0.02 if name == "fc.weight" else 0.1) * generator.randn(*shape)
    return np.asarray(values, np.float32)


class PeakMemory:
    """Largest number of anonymous bytes while the block runs, sampled."""

    def __enter__(self) -> PeakMemory:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)


if __name__ == "__main__":
    main()
