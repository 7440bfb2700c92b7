"""Images per second and peak memory of a training step, ours beside the same networks in PyTorch.

    python benchmarks/train_step.py --torch-python TORCH_ENV/bin/python
    python benchmarks/train_step.py --torch-python TORCH_ENV/bin/python --model dcgan fastgan \\
        --precision bfloat16 --torch-forms channels_last --runs 7 --seconds 10
    python benchmarks/train_step.py --torch-python TORCH_ENV/bin/python --quick

PyTorch lives in an environment of its own: `pip install torch numpy`. Every contestant is one
process with its own model; they take turns, at least five times each, so that a busy machine is
busy for all. Reported are medians and, per case, our median over that of PyTorch's fastest form.
Peak memory is the largest resident memory of the process, the framework included. `--quick` makes
networks and pictures tiny and says only whether everything runs.

Cases: Pix2Pix at 128 px with a batch of 8 and at 256 px with 1, DCGAN at 64 px with 64, CycleGAN at
128 px with 1, FastGAN at 256 px with 8 (reconstruction by L1), SNGAN at 64 px with 16, in two parts
for two updates of the discriminator instead of five, U-Net at 128 px with 8, VGG16 with a frozen
base at 128 px with 16, on pictures and on the maps of its base that are computed once; all else as
the defaults have it.
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
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfgan_med.learning.system import System

PRECISIONS = ("float32", "bfloat16")
TORCH_FORMS = ("channels_last", "contiguous", "compile")
MODELS = ("pix2pix", "dcgan", "cyclegan", "fastgan", "sngan", "unet", "vgg16", "vgg16_features")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Case:
    """One contest; `narrow` divides the widths of all networks."""

    model: str
    image_size: int
    batch_size: int
    precision: str = "float32"
    narrow: int = 1

    def arguments(self) -> list[str]:
        """For the processes of both sides, which all train this."""
        numbers = ("image_size", "batch_size", "narrow")
        return [part for n in numbers for part in (f"--{n.replace('_', '-')}", str(vars(self)[n]))]

    def our_forms(self) -> tuple[str, ...]:
        if self.precision == "float32":
            return ("float32",)
        # TensorFlow's own rewriting of a float32 graph, for comparison.
        return ("policy", "rewrite") if self.model == "pix2pix" else ("policy",)


CASES = (
    Case("pix2pix", 128, 8),
    Case("pix2pix", 256, 1),
    Case("dcgan", 64, 64),
    Case("cyclegan", 128, 1),
    Case("fastgan", 256, 8),
    Case("sngan", 64, 16),
    Case("unet", 128, 8),
    Case("vgg16", 128, 16),
    Case("vgg16_features", 128, 16),
)
QUICK_CASES = (
    Case("pix2pix", 32, 2, narrow=8),
    Case("dcgan", 32, 4, narrow=8),
    Case("cyclegan", 32, 1, narrow=8),
    Case("fastgan", 64, 2, narrow=8),
    Case("sngan", 32, 4, narrow=8),
    Case("unet", 32, 2, narrow=8),
    Case("vgg16", 32, 2),
    Case("vgg16_features", 32, 2),
)


# Contestants --------------------------------------------------------------------------------------


@dataclass
class Contestant:
    """A process that trains for a few seconds whenever it is told to."""

    name: str
    process: subprocess.Popen[str]
    complaints: IO[str]
    version: str = ""
    parameters: tuple[int, ...] = ()

    @classmethod
    def start(cls, name: str, command: list[str]) -> Contestant:
        complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115, open as long as the process
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        contestant = cls(name, process, complaints)
        ready = contestant._answer()
        contestant.version, contestant.parameters = ready["ready"], tuple(ready["parameters"])
        return contestant

    def run(self) -> tuple[float, float]:
        """Images per second of one run, and the peak memory so far in MB."""
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        answer = self._answer()
        return float(answer["images_per_second"]), float(answer["peak_mb"])

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.complaints.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.complaints.seek(0)
            last = "".join(self.complaints.readlines()[-5:])
            raise SystemExit(f"{self.name} ended with code {code} before it answered.\n{last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def contestants(case: Case, options: argparse.Namespace) -> list[Contestant]:
    """All processes of a case, ready to run; their networks have equally many weights."""
    common = [*case.arguments(), "--seconds", options.seconds]
    ours = [sys.executable, str(ROOT / "benchmarks" / "train_step.py"), "--model", case.model]
    started = [
        Contestant.start(f"ours {form}", [*ours, "--worker", form, *common])
        for form in case.our_forms()
    ]
    if options.torch_python:
        interpreter = str(Path(options.torch_python).absolute())
        theirs = [interpreter, "-m", f"benchmarks.torch_{case.model}"]
        theirs += ["--precision", case.precision]
        started += [
            Contestant.start(f"torch {form}", [*theirs, "--form", form, *common])
            for form in options.torch_forms
        ]
    if len({contestant.parameters for contestant in started}) > 1:
        raise SystemExit(f"The networks differ: {[(c.name, c.parameters) for c in started]}")
    return started


def compare(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Runs of all contestants in turn, and their medians."""
    started = contestants(case, options)
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in started}
    peaks: dict[str, float] = {}
    for _ in range(options.runs):
        for contestant in started:
            rate, peaks[contestant.name] = contestant.run()
            rates[contestant.name].append(rate)
    for contestant in started:
        contestant.stop()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    fastest = {
        side: max((name for name in medians if name.startswith(side)), key=medians.__getitem__)
        for side in ("ours", "torch")
        if any(name.startswith(side) for name in medians)
    }
    return {
        **asdict(case),
        "parameters": started[0].parameters,
        "versions": {contestant.name: contestant.version for contestant in started},
        "images_per_second": rates,
        "median": medians,
        "peak_mb": peaks,
        "fastest": fastest,
        "ratio": medians[fastest["ours"]] / medians[fastest["torch"]] if len(fastest) > 1 else None,
    }


# Our side -----------------------------------------------------------------------------------------


def work(case: Case, form: str, seconds: float) -> None:
    """Answer every line on stdin with one run of the real model."""
    import keras
    import tensorflow as tf

    from tfgan_med.training import runtime

    if form == "policy":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if form == "rewrite":
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    model = build(case)
    loss = model.loss_names[0]
    step = tf.function(model.train_step, autograph=False)
    batch = random_batch(case, model.needs)
    for _ in range(3):
        step(batch)
    parameters = [
        sum(weight.shape.num_elements() for weight in network.trainable_weights)
        for name, network in model.networks.items()
        if not name.startswith("ema_")
    ]
    print(json.dumps({"ready": tf.__version__, "parameters": parameters}), flush=True)

    for _ in sys.stdin:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            float(step(batch)[loss])  # waits for the step to end
            count += 1
        rate = count * case.batch_size / (time.perf_counter() - start)
        if step.experimental_get_tracing_count() != 1:
            raise SystemExit(f"Traced {step.experimental_get_tracing_count()} times, expected 1.")
        peak = runtime.peak_memory_mb()
        print(json.dumps({"images_per_second": rate, "peak_mb": peak}), flush=True)


def random_batch(case: Case, needs: str) -> dict[str, Any]:
    """Noise in the keys and shapes that a system is trained on."""
    import tensorflow as tf

    maps = (case.batch_size, case.image_size, case.image_size)
    keys = {"pairs": ("source", "target"), "images": ("images",), "domains": ("a", "b")}
    pictures = keys.get(needs, ("images",))
    batch = {key: tf.random.uniform((*maps, 3), -1.0, 1.0) for key in pictures}
    if needs == "masks":
        batch["masks"] = tf.cast(tf.random.uniform((*maps, 1)) > 0.5, tf.float32)
    if needs == "labels":
        batch["labels"] = tf.random.uniform((case.batch_size,), 0, 2, tf.int32)
        batch["weights"] = tf.ones((case.batch_size,))
    if case.model == "vgg16_features":
        side = case.image_size // 32
        batch["features"] = tf.random.uniform((case.batch_size, side, side, 512))
    return batch


def build(case: Case) -> System:
    """The system with its default settings, for pictures of three channels."""
    builders = {
        "pix2pix": build_pix2pix,
        "dcgan": build_dcgan,
        "cyclegan": build_cyclegan,
        "fastgan": build_fastgan,
        "sngan": build_sngan,
        "unet": build_unet,
        "vgg16": build_vgg16,
        "vgg16_features": build_vgg16,
    }
    return builders[case.model](case)


def build_pix2pix(case: Case) -> System:
    from tfgan_med.models.pix2pix import Pix2Pix, Pix2PixConfig

    return Pix2Pix(Pix2PixConfig(**_bases(case)), case.image_size, 3, 3)


def build_dcgan(case: Case) -> System:
    from tfgan_med.models.dcgan import DCGAN, DCGANConfig

    bases = {**_bases(case), "generator_base": 1024 // case.narrow}
    return DCGAN(DCGANConfig(**bases), case.image_size, (3,))


def build_cyclegan(case: Case) -> System:
    from tfgan_med.models.cyclegan import CycleGAN, CycleGANConfig

    return CycleGAN(CycleGANConfig(**_bases(case)), case.image_size, 3, 3)


def build_fastgan(case: Case) -> System:
    from tfgan_med.models.fastgan import FastGAN, FastGANConfig

    return FastGAN(FastGANConfig(recon="l1", **_bases(case)), case.image_size, (3,))


def build_sngan(case: Case) -> System:
    from tfgan_med.models.sngan import SNGAN, SNGANConfig

    return SNGAN(SNGANConfig(n_dis=2, **_bases(case)), case.image_size, (3,))


def build_unet(case: Case) -> System:
    from tfgan_med.downstream.base import Problem
    from tfgan_med.downstream.unet import UNet, UNetConfig

    problem = Problem(case.image_size, 3, ("object",), positive=None, exclusive=False)
    return UNet(UNetConfig(base=32 // case.narrow), problem)


def build_vgg16(case: Case) -> System:
    from tfgan_med.downstream.base import Problem
    from tfgan_med.downstream.vgg16 import VGG16, VGG16Config

    problem = Problem(case.image_size, 3, ("normal", "pneumonia"), positive=1)
    return VGG16(VGG16Config(weights="none", unfreeze=0), problem)


def _bases(case: Case) -> dict[str, Any]:
    return {f"{player}_base": 64 // case.narrow for player in ("generator", "discriminator")}


# Reports ------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> None:
    """All contestants of a case."""
    model, size, batch = result["model"], result["image_size"], result["batch_size"]
    millions = ", ".join(f"{count / 1e6:.2f}" for count in result["parameters"])
    print(f"\n{model}, {size} px, batch {batch}, {result['precision']}; weights in M: {millions}")
    for name, values in result["images_per_second"].items():
        spread = f"({min(values):.2f} to {max(values):.2f})"
        rate, peak = result["median"][name], result["peak_mb"][name]
        version = result["versions"][name]
        print(f"  {name:20} {version:12} {rate:7.2f} images/s  {spread:20} {peak:6.0f} MB")
    if result["ratio"] is not None:
        print(f"  ours / torch {result['ratio']:.2f}", flush=True)


def summarize(results: list[dict[str, Any]]) -> None:
    """The fastest form of each side, as a table in Markdown."""
    print(
        "\n| model | px | batch | precision | ours, images/s | PyTorch, images/s (form) "
        "| ours / PyTorch | ours, peak MB | PyTorch, peak MB |\n" + "|---" * 9 + "|"
    )
    for result in results:
        rates, peaks, fastest = result["median"], result["peak_mb"], result["fastest"]
        ours, theirs = fastest["ours"], fastest.get("torch")
        cells = [result[key] for key in ("model", "image_size", "batch_size", "precision")]
        cells += [f"{rates[ours]:.2f}"]
        cells += [f"{rates[theirs]:.2f} ({theirs.split()[1]})" if theirs else "-"]
        cells += [f"{result['ratio']:.2f}" if theirs else "-"]
        cells += [f"{peaks[ours]:.0f}", f"{peaks[theirs]:.0f}" if theirs else "-"]
        print(f"| {' | '.join(map(str, cells))} |")


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """What the command line asks for, each in every precision."""
    models = MODELS if not options.model or "all" in options.model else options.model
    return [
        Case(case.model, case.image_size, case.batch_size, precision, case.narrow)
        for case in (QUICK_CASES if options.quick else CASES)
        if case.model in models and options.image_size in (None, case.image_size)
        for precision in options.precision
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", help="Interpreter with PyTorch; without it, ours alone.")
    parser.add_argument("--torch-forms", nargs="+", choices=TORCH_FORMS, default=TORCH_FORMS)
    parser.add_argument(
        "--model", nargs="+", action="extend", choices=[*MODELS, "all"], help="By default all."
    )
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--image-size", type=int, help="Only cases of this size.")
    parser.add_argument("--runs", type=int, default=5, help="Turns of each contestant.")
    parser.add_argument("--seconds", default="6", help="Length of one run.")
    parser.add_argument("--quick", action="store_true", help="Tiny cases, to see that all runs.")
    parser.add_argument("--json", type=Path, help="Also write everything to this file.")
    parser.add_argument(
        "--worker", choices=["float32", "policy", "rewrite"], help=argparse.SUPPRESS
    )
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--narrow", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        case = Case(options.model[0], options.image_size, options.batch_size, narrow=options.narrow)
        work(case, options.worker, float(options.seconds))
        return

    cases = chosen_cases(options)
    if not cases:
        parser.error(f"no case has pictures of {options.image_size} px")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}")
    results = []
    for case in cases:
        results.append(compare(case, options))
        report(results[-1])
        if options.json:
            everything = {"machine": machine, "results": results}
            options.json.write_text(json.dumps(everything, indent=2))
    summarize(results)


if __name__ == "__main__":
    main()
