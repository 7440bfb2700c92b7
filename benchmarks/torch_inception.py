"""Inception-v3 of the FID in PyTorch, for comparison of speed only: the topology of pytorch-fid.

Runs in PyTorch's own environment (torch, numpy, Pillow if it is there) and imports nothing of this
package. Reads the pictures of a folder, resizes them as pytorch-fid does and computes their
features. Answers every line on stdin with one run, as a line of JSON; `metrics_extraction.py` is
its caller.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

try:
    from PIL import Image
except ImportError:  # then the caller gives decoded pictures, which spares us the decoding
    Image = None  # type: ignore[assignment]

FORMS = ("eager", "folded", "frozen", "onednn", "compile")


class Conv(nn.Module):
    """Convolution without bias, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel_size: Any, **geometry: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, bias=False, **geometry)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def chain(x: Tensor, *steps: nn.Module) -> Tensor:
    for step in steps:
        x = step(x)
    return x


def average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Grid35(nn.Module):
    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = chain(x, self.branch5x5_1, self.branch5x5_2)
        double = chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class To17(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Conv(288, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(288, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class Grid17(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        wide: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
        high: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, width, 1)
        self.branch7x7_2 = Conv(width, width, **wide)
        self.branch7x7_3 = Conv(width, 192, **high)
        self.branch7x7dbl_1 = Conv(768, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, **high)
        self.branch7x7dbl_3 = Conv(width, width, **wide)
        self.branch7x7dbl_4 = Conv(width, width, **high)
        self.branch7x7dbl_5 = Conv(width, 192, **wide)
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3)
        double = chain(x, self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3)
        double = chain(double, self.branch7x7dbl_4, self.branch7x7dbl_5)
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class To8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(768, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = chain(x, self.branch3x3_1, self.branch3x3_2)
        seven = chain(x, self.branch7x7x3_1, self.branch7x7x3_2)
        seven = chain(seven, self.branch7x7x3_3, self.branch7x7x3_4)
        return torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)


class Grid8(nn.Module):
    def __init__(self, inputs: int, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.maximum else average(x)
        ends = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        ends += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *ends, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Pictures `(batch, 3, 299, 299)` in [-1, 1] to 2048 features and 1008 logits without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            Grid35(192, 32),
            Grid35(256, 64),
            Grid35(288, 64),
        )
        self.Mixed_6a = To17()
        self.Mixed_6b, self.Mixed_6c = Grid17(128), Grid17(160)
        self.Mixed_6d, self.Mixed_6e = Grid17(160), Grid17(192)
        self.Mixed_7a = To8()
        self.Mixed_7b, self.Mixed_7c = Grid8(1280, False), Grid8(2048, True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Tensor:
        x = chain(x, self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3)
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(chain(x, self.Conv2d_3b_1x1, self.Conv2d_4a_3x3), 3, 2)
        x = chain(x, self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b)
        x = chain(x, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b)
        features = self.Mixed_7c(x).mean((2, 3))
        return torch.cat([features, functional.linear(features, self.fc.weight)], 1)


def load(network: nn.Module, weights: Path) -> None:
    with np.load(weights) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    missing, _ = network.load_state_dict(state, strict=False)
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"{weights} does not hold {missing[:3]}")


def prepared(
    form: str, precision: str, batch_size: int, weights: Path
) -> Callable[[Tensor], Tensor]:
    """The network in one of PyTorch's forms, channels-last.

    `folded` is eager with batch normalization folded by `torch.nn.utils.fusion`, `frozen` the
    same by TorchScript, `onednn` TorchScript in oneDNN's own memory layout, `compile` Inductor on
    the folded network.
    """
    network = Inception().eval()
    load(network, weights)
    if form in ("folded", "compile"):
        for module in network.modules():
            if isinstance(module, Conv):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()
    network.to(memory_format=torch.channels_last)
    example = torch.zeros(batch_size, 3, 299, 299).to(memory_format=torch.channels_last)
    run: Any = network
    if form == "compile":
        run = torch.compile(network)
    elif form in ("frozen", "onednn"):
        run = torch.jit.freeze(torch.jit.trace(network, example))
        if form == "onednn":
            run = torch.jit.optimize_for_inference(run)

    def compute(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            result: Tensor = run(images)
        return result.float()

    return compute


def extract(
    compute: Callable[[Tensor], Tensor], paths: list[Path], batch_size: int
) -> np.ndarray[Any, Any]:
    """Decode, resize and compute as pytorch-fid: half-pixel bilinear resizing, [-1, 1]. A thread
    decodes the next batch meanwhile. The last batch is filled up, so that one shape serves all."""
    batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    rows = []
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(decoded, batches[0], batch_size)
        for i in range(len(batches)):
            images = coming.result()
            if i + 1 < len(batches):
                coming = thread.submit(decoded, batches[i + 1], batch_size)
            images = images.to(torch.float32).permute(0, 3, 1, 2)  # channels-last in memory
            images = functional.interpolate(
                images, (299, 299), mode="bilinear", align_corners=False
            )
            rows.append(compute(2 * (images / 255.0) - 1)[: len(batches[i])].numpy())
    return np.concatenate(rows)


def decoded(paths: list[Path], batch_size: int) -> Tensor:
    pictures = [picture(path) for path in paths]
    pictures += pictures[-1:] * (batch_size - len(pictures))
    return torch.from_numpy(np.stack(pictures))


def picture(path: Path) -> np.ndarray[Any, Any]:
    if Image is None:
        return np.asarray(np.load(path.with_suffix(".npy")))
    with Image.open(path) as stored:
        return np.array(stored.convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--form", choices=FORMS, default="eager")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, help="Keep the features of the first run here.")
    options = parser.parse_args()

    paths = sorted(options.folder.glob("*.png"))
    with torch.inference_mode():
        compute = prepared(options.form, options.precision, options.batch_size, options.weights)
        features = extract(compute, paths, options.batch_size)
        if options.out:
            np.save(options.out, features)
        decodes = "decodes with Pillow" if Image else "without Pillow: pictures decoded beforehand"
        print(json.dumps({"ready": f"{torch.__version__}, {decodes}"}), flush=True)
        for _ in sys.stdin:
            start, busy = time.perf_counter(), time.process_time()
            extract(compute, paths, options.batch_size)
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
            rates = {"images_per_second": len(paths) / seconds, "per_core": len(paths) / busy}
            print(json.dumps(rates), flush=True)


if __name__ == "__main__":
    main()
