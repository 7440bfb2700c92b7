"""Images per second of a Pix2Pix training step, ours beside the same networks in PyTorch.

    python benchmarks/train_step.py --torch-python TORCH_ENV/bin/python

PyTorch lives in an environment of its own: `pip install torch numpy`. Every contestant is one
process with its own model; they take turns, at least five times each, so that a busy machine is
busy for all. The table gives medians and, per case, our median over PyTorch's fastest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASES = ((128, 8), (256, 1))
OURS = {"float32": ("float32",), "bfloat16": ("policy", "rewrite")}
TORCH_FORMS = ("channels_last", "contiguous", "compile")


@dataclass
class Contestant:
    """A process that trains for a few seconds whenever it is told to."""

    name: str
    process: subprocess.Popen[str]
    version: str
    parameters: list[int]

    @classmethod
    def start(cls, name: str, command: list[str]) -> Contestant:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        ready = _answer(name, process)
        return cls(name, process, ready["ready"], ready["parameters"])

    def run(self) -> float:
        """Images per second of one run."""
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        return float(_answer(self.name, self.process)["images_per_second"])

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


def compare(options: argparse.Namespace, size: int, batch: int, precision: str) -> dict[str, Any]:
    """Runs of all contestants in turn, and their medians."""
    case = ["--image-size", str(size), "--batch-size", str(batch), "--seconds", options.seconds]
    here = Path(__file__).parent
    contestants = [
        Contestant.start(
            f"ours {form}", [sys.executable, str(here / "train_step.py"), "--worker", form, *case]
        )
        for form in OURS[precision]
    ]
    if options.torch_python:
        reference = [options.torch_python, str(here / "torch_pix2pix.py"), "--precision", precision]
        contestants += [
            Contestant.start(f"torch {form}", [*reference, "--form", form, *case])
            for form in options.torch_forms
        ]
    if len({tuple(contestant.parameters) for contestant in contestants}) > 1:
        raise SystemExit(f"The networks differ: {[(c.name, c.parameters) for c in contestants]}")

    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for _ in range(options.runs):
        for contestant in contestants:
            rates[contestant.name].append(contestant.run())
    for contestant in contestants:
        contestant.stop()
    return {
        "image_size": size,
        "batch_size": batch,
        "precision": precision,
        "versions": {contestant.name: contestant.version for contestant in contestants},
        "images_per_second": rates,
        "median": {name: statistics.median(values) for name, values in rates.items()},
        "ratio": _ratio(rates),
    }


def _ratio(rates: dict[str, list[float]]) -> float | None:
    """Our fastest form over PyTorch's fastest form, by medians."""
    best = {"ours": 0.0, "torch": 0.0}
    for name, values in rates.items():
        side = name.split()[0]
        best[side] = max(best[side], statistics.median(values))
    return best["ours"] / best["torch"] if best["torch"] else None


def work(form: str, size: int, batch: int, seconds: float) -> None:
    """Our side: answer every line on stdin with one run of the real model."""
    import keras
    import tensorflow as tf

    from tfgan_med.models.pix2pix import Pix2Pix, Pix2PixConfig

    if form == "policy":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if form == "rewrite":
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    model = Pix2Pix(Pix2PixConfig(), size, 3, 3)
    step = tf.function(model.train_step, autograph=False)
    pictures = {
        key: tf.random.uniform((batch, size, size, 3), -1.0, 1.0) for key in ("source", "target")
    }
    for _ in range(3):
        step(pictures)
    parameters = [network.count_params() for network in (model.generator, model.discriminator)]
    print(json.dumps({"ready": tf.__version__, "parameters": parameters}), flush=True)

    for _ in sys.stdin:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            float(step(pictures)["generator"])  # waits for the step to end
            count += 1
        rate = count * batch / (time.perf_counter() - start)
        print(json.dumps({"images_per_second": rate}), flush=True)


def _report(result: dict[str, Any]) -> None:
    size, batch, precision = (result[k] for k in ("image_size", "batch_size", "precision"))
    print(f"\n{size} px, batch {batch}, {precision}")
    for name, values in result["images_per_second"].items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        version = result["versions"][name]
        print(f"  {name:20} {version:12} {result['median'][name]:7.2f} images/s  ({spread})")
    if result["ratio"] is not None:
        print(f"  ours / torch {result['ratio']:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch-python", help="Interpreter with PyTorch; without it, ours alone.")
    parser.add_argument("--torch-forms", nargs="+", choices=TORCH_FORMS, default=TORCH_FORMS)
    parser.add_argument("--precision", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--image-size", type=int, choices=[s for s, _ in CASES], help="One case.")
    parser.add_argument("--runs", type=int, default=5, help="Turns of each contestant.")
    parser.add_argument("--seconds", default="6", help="Length of one run.")
    parser.add_argument("--json", type=Path, help="Also write everything to this file.")
    parser.add_argument("--worker", choices=["float32", "policy", "rewrite"], help="Internal.")
    parser.add_argument("--batch-size", type=int, help="Internal.")
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.image_size, options.batch_size, float(options.seconds))
        return

    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}")
    results = []
    for size, batch in CASES:
        if options.image_size in (None, size):
            for precision in options.precision:
                results.append(compare(options, size, batch, precision))
                _report(results[-1])
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
