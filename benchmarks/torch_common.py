"""What PyTorch's contestants in `train_step.py` share: options, precision, layout, taking turns.

They run in PyTorch's own environment, from the root of the repository, and import nothing of the
package:

    TORCH_ENV/bin/python -m benchmarks.torch_dcgan --image-size 64 --batch-size 64

Each answers every line on stdin with one run, as a line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FORMS = ("channels_last", "contiguous", "compile")

Step = Callable[[], Tensor]
"""One training step on the contestant's own batch; returns the generator's loss."""


@dataclass(frozen=True)
class Case:
    """What is trained: `narrow` divides the widths of all networks."""

    image_size: int
    batch_size: int
    bfloat16: bool
    form: str
    narrow: int

    def pictures(self, channels: int = 3) -> Tensor:
        """A random batch in [-1, 1]."""
        shape = (self.batch_size, channels, self.image_size, self.image_size)
        return (2 * torch.rand(shape) - 1).to(memory_format=self._layout)

    def prepare(self, *networks: nn.Module) -> None:
        """Starting weights, layout and compilation as the form has it."""
        for network in networks:
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    nn.init.normal_(module.weight, 0.0, 0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
            network.to(memory_format=self._layout)
            if self.form == "compile":
                network.compile()

    def precision(self) -> Any:
        """Context of the forward passes."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.contiguous_format if self.form == "contiguous" else torch.channels_last


def instance_norm(channels: int, affine: bool = True) -> nn.Module:
    """Instance norm as group norm of one channel each: equal values, and its kernel is faster on
    CPUs (9.3 against 8.2 images/s of the whole step of Pix2Pix at 128 px)."""
    return nn.GroupNorm(channels, channels, eps=1e-5, affine=affine)


def adam(*networks: nn.Module, rate: float = 2e-4) -> torch.optim.Optimizer:
    """The optimizer of all systems here, in its fastest form on a CPU."""
    weights = [weight for network in networks for weight in network.parameters()]
    return torch.optim.Adam(weights, lr=rate, betas=(0.5, 0.999), eps=1e-8, fused=True)


def minimize(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of an optimizer on a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@contextlib.contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Gradients pass through the networks without being computed for their weights."""
    for network in networks:
        network.requires_grad_(False)
    yield
    for network in networks:
        network.requires_grad_(True)


def main(make: Callable[[Case], tuple[list[nn.Module], Step]]) -> None:
    """Build a contestant, report its parameters and answer until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--form", choices=FORMS, default=FORMS[0])
    parser.add_argument("--narrow", type=int, default=1, help="divide all widths by this")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one run")
    options = parser.parse_args()

    # Both are TensorFlow's settings: a thread for every core, and no denormal numbers.
    torch.set_flush_denormal(True)
    torch.set_num_threads(_cores())
    torch.manual_seed(0)
    size, batch = options.image_size, options.batch_size
    case = Case(size, batch, options.precision == "bfloat16", options.form, options.narrow)
    networks, step = make(case)
    for _ in range(3):
        step()
    parameters = [sum(p.numel() for p in network.parameters()) for network in networks]
    print(json.dumps({"ready": torch.__version__, "parameters": parameters}), flush=True)

    for _ in sys.stdin:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < options.seconds:
            float(step())
            count += 1
        rate = count * batch / (time.perf_counter() - start)
        print(json.dumps({"images_per_second": rate, "peak_mb": _peak_memory_mb()}), flush=True)


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _peak_memory_mb() -> float:
    """Largest resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
