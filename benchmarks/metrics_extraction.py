"""Images per second of feature extraction, ours beside plain Keras and the PyTorch port.

    python benchmarks/metrics_extraction.py --torch-python TORCH_ENV/bin/python

Every contestant is one process that decodes the same PNGs, resizes them and computes 2048
features and 1008 logits of Inception-v3 with the same seeded weights (Keras: its own application,
without logits). They take turns, at least five times each, so that a busy machine is busy for all;
figures are medians. `per core` divides by the processor time spent instead of the time passed: on
a machine with other work it is the steadier of the two. Then the effect of bfloat16 on Fréchet
distances of real pictures, and the memory of an extraction of 50 000 rows with the cache.
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
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Array = npt.NDArray[Any]
HERE = Path(__file__).parent
SHARED = Path(os.environ.get("TFGAN_MED_SHARED", HERE.parents[1] / "shared"))
TORCH_FORMS = ("eager", "folded", "frozen", "onednn", "compile")
OURS = ("ours", "keras")


# Contestants --------------------------------------------------------------------------------------


@dataclass
class Contestant:
    """A process that extracts features whenever it is told to."""

    name: str
    process: subprocess.Popen[str]
    version: str

    @classmethod
    def start(cls, name: str, command: list[str]) -> Contestant:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return cls(name, process, _answer(name, process)["ready"])

    def run(self) -> dict[str, float]:
        """Images per second, and per second of processor time, of one run."""
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        return _answer(self.name, self.process)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def _answer(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{name} ended with code {process.wait()} before it answered.")
    answer: dict[str, Any] = json.loads(line)
    return answer


def compare(options: argparse.Namespace, folder: Path, precision: str) -> dict[str, Any]:
    """Runs of all contestants in turn, their medians, and ours over the fastest of the others."""
    place = [str(folder), str(folder / "seeded.npz")]
    common = ["--precision", precision]
    contestants = []
    for form in OURS if precision == "float32" else OURS[:1]:
        command = [sys.executable, __file__, "--worker", form, *common, "--place", *place]
        contestants.append(
            Contestant.start(form, [*command, "--batch-size", str(options.batch_size)])
        )
    if options.torch_python:
        reference = [options.torch_python, str(HERE / "torch_inception.py"), *place, *common]
        for form in options.torch_forms:
            kept = ["--out", str(folder / f"torch_{precision}.npy")] if form == "eager" else []
            size = ["--form", form, "--batch-size", str(options.torch_batch_size)]
            contestants.append(Contestant.start(f"torch {form}", [*reference, *size, *kept]))

    runs: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in contestants}
    for _ in range(options.runs):
        for contestant in contestants:
            runs[contestant.name].append(contestant.run())
    for contestant in contestants:
        contestant.stop()
    return {
        "precision": precision,
        "versions": {contestant.name: contestant.version for contestant in contestants},
        "runs": runs,
        "ratios": {
            measure: {name: _ratio(runs, name, measure) for name in runs if name != "ours"}
            for measure in ("images_per_second", "per_core")
        },
        "difference": _difference(folder, precision),
    }


def _ratio(runs: dict[str, list[dict[str, float]]], name: str, measure: str) -> float:
    """Median over turns of ours divided by another's: both had the same company in a turn."""
    pairs = zip(runs["ours"], runs[name], strict=True)
    return statistics.median(ours[measure] / theirs[measure] for ours, theirs in pairs)


def _difference(folder: Path, precision: str) -> float | None:
    """Largest difference between our features and PyTorch's, relative to the largest feature."""
    ours, theirs = folder / f"ours_{precision}.npy", folder / f"torch_{precision}.npy"
    if not theirs.exists():
        return None
    expected = np.load(theirs)
    return float(np.abs(np.load(ours) - expected).max() / np.abs(expected).max())


def report(result: dict[str, Any]) -> None:
    print(f"\n{result['precision']}: images/s, median (smallest to largest), per core")
    for name, runs in result["runs"].items():
        rates = [run["images_per_second"] for run in runs]
        busy = statistics.median(run["per_core"] for run in runs)
        spread = f"({min(rates):.2f} to {max(rates):.2f})"
        line = f"  {name:15} {statistics.median(rates):7.2f} {spread:20} {busy:6.2f}"
        if name != "ours":
            ratio, ratio_busy = (values[name] for values in result["ratios"].values())
            line += f"   ours / this {ratio:.2f}, per core {ratio_busy:.2f}"
        print(line)
    for name, version in result["versions"].items():
        print(f"  {name}: {version}")
    if result["difference"] is not None:
        print(f"  features of ours and torch differ by {result['difference']:.1e} of the largest")
    sys.stdout.flush()


# Our side -----------------------------------------------------------------------------------------


def work(form: str, precision: str, place: list[Path], batch_size: int) -> None:
    """Answer every line on stdin with one run."""
    import tensorflow as tf

    folder, weights = place
    paths = sorted(folder.glob("*.png"))
    run = _ours(weights, precision, batch_size) if form == "ours" else _plain_keras(batch_size)
    features = run(paths)
    if form == "ours":
        np.save(folder / f"ours_{precision}.npy", features)
    print(json.dumps({"ready": f"TensorFlow {tf.__version__}"}), flush=True)
    for _ in sys.stdin:
        start, busy = time.perf_counter(), time.process_time()
        run(paths)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        rates = {"images_per_second": len(paths) / seconds, "per_core": len(paths) / busy}
        print(json.dumps(rates), flush=True)


def _ours(weights: Path, precision: Any, batch_size: int) -> Callable[[list[Path]], Array]:
    from tfgan_med.networks.feature_cache import extract
    from tfgan_med.networks.features import inception_2015

    network = inception_2015(weights, "pytorch-fid", precision=precision)
    return lambda paths: extract(network, map(picture, paths), batch_size)


def _plain_keras(batch_size: int) -> Callable[[list[Path]], Array]:
    """What a tutorial does: the application in a `tf.function`, one batch after the other."""
    import keras
    import tensorflow as tf

    network = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3)
    )

    compute = tf.function(
        lambda images: network(tf.image.resize(images, (299, 299)) / 127.5 - 1.0, training=False)
    )

    def run(paths: list[Path]) -> Array:
        batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
        stacks = (np.stack([picture(p) for p in batch]).astype(np.float32) for batch in batches)
        return np.concatenate([compute(stack).numpy() for stack in stacks])

    return run


def picture(path: Path) -> Array:
    from PIL import Image

    with Image.open(path) as stored:
        return np.array(stored.convert("RGB"))


# Pictures and weights -----------------------------------------------------------------------------


def write_pictures(folder: Path, count: int) -> str:
    """PNGs of 256 x 256, and decoded beside them for a PyTorch without Pillow; says of what."""
    from PIL import Image

    found = sorted((SHARED / "data" / "cxr-nih").glob("*/*.jpg"))[:count]
    noise = np.random.default_rng(0)
    for i in range(count):
        if i < len(found):
            pixels = picture(found[i])
        else:
            pixels = noise.integers(0, 256, (256, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")
        np.save(folder / f"{i:04d}.npy", pixels)
    return f"{count} PNGs of 256 x 256 px, {len(found)} of them chest X-rays, others noise"


def write_weights(path: Path) -> None:
    """Weights by the rule of the golden values: a generator seeded by the parameter's name."""
    from tfgan_med.networks import inception

    state = {name: _seeded(name, shape) for name, shape in inception.state_shapes().items()}
    np.savez(path, **state)  # type: ignore[arg-type]


def _seeded(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if name == "fc.weight":
        values = 0.02 * random.randn(*shape)
    elif name.endswith("conv.weight"):
        values = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(("bn.weight", "running_var")):
        values = 0.5 + random.rand(*shape)
    else:
        values = 0.1 * random.randn(*shape)
    return np.asarray(values, np.float32)


# bfloat16 -----------------------------------------------------------------------------------------


def effect_of_bfloat16(weights: Path) -> None:
    """Fréchet distance between the training and the test pictures of real sets."""
    from tfgan_med.networks.feature_cache import extract
    from tfgan_med.networks.features import inception_2015, squeezenet
    from tfgan_med.ops.frechet import frechet_distance

    trained = SHARED / "weights" / "squeezenet-1.1-imagenet-notop.h5"
    loaders: dict[str, Callable[[Any], Any]] = {
        "seeded Inception": lambda precision: inception_2015(weights, "ttur", precision=precision),
        "SqueezeNet": lambda precision: squeezenet(trained, precision=precision),
    }
    print("\nFréchet distance, training against test pictures: float32, bfloat16, change")
    for name, load in loaders.items():
        networks = [load(precision) for precision in ("float32", "bfloat16")]
        for data in ("faces-orl", "cxr-nih"):
            sets = _splits(SHARED / "data" / data)
            values = []
            for network in networks:
                sides = (extract(network, map(picture, paths), 32) for paths in sets)
                values.append(frechet_distance(*(side[:, : network.dimension] for side in sides)))
            change = values[1] / values[0] - 1
            counts = f"{len(sets[0])} and {len(sets[1])} pictures"
            print(
                f"  {name:17} {data:10} {counts:24} {values[0]:.5g}  {values[1]:.5g}  "
                f"{100 * change:+.3f} %",
                flush=True,
            )


def _splits(folder: Path) -> tuple[list[Path], list[Path]]:
    import csv

    with (folder / "splits.csv").open() as table:
        rows = list(csv.DictReader(table))
    train, test = (
        [folder / row["file"] for row in rows if row["split"] == split]
        for split in ("train", "test")
    )
    return train, test


# Memory -------------------------------------------------------------------------------------------


class Counting:
    """An extractor of 3056 numbers that costs nothing."""

    identity, dimension, width = "counting", 2048, 3056

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        counting = np.arange(self.width, dtype=np.float32)
        for pixels in pictures:
            yield counting + np.float32(pixels[0])


def memory(rows: int) -> None:
    """Anonymous memory above the start, and time, of extraction with a cache: first and again."""
    from tfgan_med.networks.feature_cache import FeatureCache, extract

    if not Path("/proc/self/status").exists():
        return
    print(f"\n{rows} rows of 3056 numbers, {rows * 3056 * 4 / 1e6:.0f} MB: seconds, peak memory")
    with tempfile.TemporaryDirectory() as folder:
        for what in ("computed", "from cache"):
            before, most, stop = _anonymous(), [0.0], threading.Event()

            def watch(most: list[float] = most, stop: threading.Event = stop) -> None:
                while not stop.wait(0.02):
                    most[0] = max(most[0], _anonymous())

            thread = threading.Thread(target=watch)
            thread.start()
            start = time.perf_counter()
            pixels = (np.array([value], np.int64) for value in range(rows))
            extract(Counting(), pixels, 64, FeatureCache(Path(folder)), rows)
            seconds = time.perf_counter() - start
            stop.set()
            thread.join()
            print(f"  {what:10} {seconds:6.1f} s  {most[0] - before:6.0f} MB", flush=True)


def _anonymous() -> float:
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch-python", help="Interpreter with PyTorch; without it, ours alone.")
    parser.add_argument("--torch-forms", nargs="+", choices=TORCH_FORMS, default=TORCH_FORMS)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--pictures", type=int, default=64, help="Pictures in one run.")
    parser.add_argument("--runs", type=int, default=5, help="Turns of each contestant.")
    parser.add_argument("--batch-size", type=int, default=32, help="Ours.")
    parser.add_argument("--torch-batch-size", type=int, default=32)
    parser.add_argument("--only", choices=["speed", "bfloat16", "memory"], help="One part.")
    parser.add_argument("--json", type=Path, help="Also write the runs to this file.")
    parser.add_argument("--worker", choices=OURS, help="Internal.")
    parser.add_argument("--place", nargs=2, type=Path, help="Internal.")
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.precision[0], options.place, options.batch_size)
        return

    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}")
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "seeded.npz")
        if options.only in (None, "speed"):
            print(write_pictures(folder, options.pictures))
            for precision in options.precision:
                results.append(compare(options, folder, precision))
                report(results[-1])
        if options.only in (None, "bfloat16") and (SHARED / "data").is_dir():
            effect_of_bfloat16(folder / "seeded.npz")
    if options.only in (None, "memory"):
        memory(50_000)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
