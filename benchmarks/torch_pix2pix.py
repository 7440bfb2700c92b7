"""Pix2Pix in PyTorch, for comparison of speed only: the same layers, losses and step as ours.

Runs in PyTorch's own environment and imports nothing of this package. Answers every
line on stdin with one run, as a line of JSON; `train_step.py` is its caller.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def instance_norm(channels: int) -> nn.Module:
    """Instance norm as group norm of one channel each: equal values, and its kernel is faster on
    CPUs (9.3 against 8.2 images/s of the whole step at 128 px)."""
    return nn.GroupNorm(channels, channels, eps=1e-5)


class Level(nn.Module):
    """One level of the U-Net and everything below it."""

    def __init__(
        self, width_in: int, width: int, below: Level | None, norm_down: bool, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(width_in, width, 4, stride=2, padding=1, bias=False)]
        if norm_down:
            layers.append(instance_norm(width))
        self.down = nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))
        self.below = below
        self.dropout = dropout

    def attach_up(self, width_in: int, width_out: int, last: bool) -> None:
        up: list[nn.Module] = [
            nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=last)
        ]
        if last:
            self.up = nn.Sequential(*up, nn.Tanh())
            return
        up.append(instance_norm(width_out))
        if self.dropout:
            up.append(nn.Dropout(self.dropout))
        self.up = nn.Sequential(*up, nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        inner = skip if self.below is None else torch.cat([self.below(skip), skip], 1)
        result: Tensor = self.up(inner)
        return result


def unet(image_size: int, channels: int, base: int = 64) -> nn.Module:
    levels = min(8, image_size.bit_length() - 1)
    widths = [min(base * 2**level, base * 8) for level in range(levels)]
    noisy = min(3, levels - 5)
    below: Level | None = None
    for index in reversed(range(levels)):
        innermost, outermost = index == levels - 1, index == 0
        level = Level(
            channels if outermost else widths[index - 1],
            widths[index],
            below,
            norm_down=not (innermost or outermost),
            dropout=0.5 if levels - 1 - index < noisy else 0.0,
        )
        level.attach_up(
            widths[index] * (1 if innermost else 2),
            channels if outermost else widths[index - 1],
            last=outermost,
        )
        below = level
    assert below is not None
    return below


def patch70(channels: int, base: int = 64) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, base, 4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for width_in, width, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [
            nn.Conv2d(base * width_in, base * width, 4, stride=stride, padding=1, bias=False),
            instance_norm(base * width),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(base * 8, 1, 4, padding=1))


def start_weights(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)


def training_step(
    generator: nn.Module, discriminator: nn.Module, bfloat16: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """The discriminator first, then the generator, on the same translated pictures."""
    rates = {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "fused": True}
    generator_adam = torch.optim.Adam(generator.parameters(), **rates)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), **rates)
    softplus = functional.softplus

    def precision() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    def step(source: Tensor, target: Tensor) -> Tensor:
        with precision():
            fake = generator(source)
            real_logits = discriminator(torch.cat([source, target], 1)).float()
            fake_logits = discriminator(torch.cat([source, fake.detach()], 1)).float()
        loss = 0.5 * (softplus(-real_logits).mean() + softplus(fake_logits).mean())
        discriminator_adam.zero_grad(set_to_none=True)
        loss.backward()
        discriminator_adam.step()

        discriminator.requires_grad_(False)
        with precision():
            fake_logits = discriminator(torch.cat([source, fake], 1)).float()
        loss = softplus(-fake_logits).mean() + 100.0 * (target - fake.float()).abs().mean()
        generator_adam.zero_grad(set_to_none=True)
        loss.backward()
        generator_adam.step()
        discriminator.requires_grad_(True)
        return loss.detach()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--form", choices=["channels_last", "contiguous", "compile"], default="channels_last"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of one run")
    options = parser.parse_args()

    torch.manual_seed(0)
    layout = torch.contiguous_format if options.form == "contiguous" else torch.channels_last
    generator, discriminator = unet(options.image_size, 3), patch70(6)
    for network in (generator, discriminator):
        start_weights(network)
        network.to(memory_format=layout)
    step = training_step(generator, discriminator, options.precision == "bfloat16")
    if options.form == "compile":
        generator.compile()
        discriminator.compile()

    shape = (options.batch_size, 3, options.image_size, options.image_size)
    source, target = ((2 * torch.rand(shape) - 1).to(memory_format=layout) for _ in range(2))
    for _ in range(3):
        step(source, target)
    parameters = [sum(p.numel() for p in n.parameters()) for n in (generator, discriminator)]
    print(json.dumps({"ready": torch.__version__, "parameters": parameters}), flush=True)

    for _ in sys.stdin:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < options.seconds:
            float(step(source, target))
            count += 1
        rate = count * options.batch_size / (time.perf_counter() - start)
        print(json.dumps({"images_per_second": rate}), flush=True)


if __name__ == "__main__":
    main()
