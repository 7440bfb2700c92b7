"""How fast `generate` makes pictures, and that a larger set takes no more memory.

    python benchmarks/generate.py [--counts 500 5000] [--formats png npz tfrecord] [--size 64]

Prints a table, and as its last line the same as JSON. Each case is a process of its own, so that
its peak memory is its own. The generator is a DCGAN with random weights, which is as fast as a
trained one; `--run RUN` takes another. `generator` is its speed without writing anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure every case in turn, or one if told so by the process above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, help="a trained run; by default random weights")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--formats", nargs="+", default=["png", "npz", "tfrecord"])
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--base", type=int, default=1024, help="channels of its 4 x 4 map")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if arguments.case:
        form, count = arguments.case
        print(json.dumps(measure(arguments.run, form, int(count))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run or make_run(Path(scratch, "run"), arguments.size, arguments.base)
        cases = [(form, count) for form in arguments.formats for count in arguments.counts]
        results = [in_own_process(run, form, count) for form, count in cases]
    show(results)
    print(json.dumps({"results": results, "machine": platform.platform()}))


def make_run(run: Path, size: int, base: int) -> Path:
    """A run folder of a DCGAN generator, one channel, with random weights."""
    import yaml

    from tfgan_med import config, files
    from tfgan_med.data.encoding import Encoding
    from tfgan_med.training import settings, weights
    from tfgan_med.training.run_folder import RunFolder
    from tfgan_med.training.sampling import ImageShapes, build_model

    changes = ["data.path=none", f"data.image_size={size}", f"model.generator_base={base}"]
    chosen = settings.resolve("dcgan", None, changes)
    grey = Encoding(role="images", kind="image", channels=1)
    shapes = ImageShapes(system="dcgan", image_size=size, encodings=(grey,))
    model = build_model(chosen, shapes, inference=True)
    (run / "weights").mkdir(parents=True)
    files.write_text(run / "config.yaml", config.as_yaml(chosen, commented=False))
    network = yaml.safe_dump(shapes.model_dump(mode="json"))
    files.write_text(run / "weights" / "network.yaml", network)
    weights.save(RunFolder(run), "generator", model.prepare_samples(10))
    return run


def in_own_process(run: Path, form: str, count: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--run", str(run)]
    done = subprocess.run(
        [*command, "--case", form, str(count)], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(run: Path, form: str, count: int) -> dict[str, Any]:
    """Generate a set after a first batch, which compiles."""
    from tfgan_med.ops.latents import latents
    from tfgan_med.training import runtime, sampling

    sampler = sampling.Sampler(run)
    vectors = latents(0, range(4 * sampler.batch), sampler.latent_size)
    sampler.images(vectors)
    before = runtime.peak_memory_mb()
    begun = time.perf_counter()
    sampler.images(vectors)
    alone = len(vectors) / (time.perf_counter() - begun)
    with tempfile.TemporaryDirectory() as folder:
        made = sampling.generate_folder(
            [sampler], Path(folder, "made"), sampling.Order(count, form=form)
        )
    return {
        "format": form,
        "count": count,
        "images_per_second": made.pictures / made.seconds,
        "generator_images_per_second": alone,
        "peak_mb": runtime.peak_memory_mb(),
        "peak_mb_before": before,
    }


def show(results: list[dict[str, Any]]) -> None:
    """The results as a table in Markdown."""
    print("| format | pictures | images/s | generator alone | peak memory, MB | before |")
    print("|---|---|---|---|---|---|")
    for case in results:
        print(
            f"| {case['format']} | {case['count']} | {case['images_per_second']:.0f} "
            f"| {case['generator_images_per_second']:.0f} | {case['peak_mb']:.0f} "
            f"| {case['peak_mb_before']:.0f} |"
        )


if __name__ == "__main__":
    main()
