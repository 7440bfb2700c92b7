"""Pix2Pix in PyTorch, for comparison of speed only: the same layers, losses and step as ours.

A contestant of `train_step.py`; see `torch_common.py` for how it is run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_common import Case, Step, adam, frozen, instance_norm, main, minimize


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


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """The discriminator first, then the generator, on the same translated pictures."""
    base = 64 // case.narrow
    generator, discriminator = unet(case.image_size, 3, base), patch70(6, base)
    case.prepare(generator, discriminator)
    generator_adam, discriminator_adam = adam(generator), adam(discriminator)
    source, target = case.pictures(), case.pictures()
    softplus = functional.softplus

    def step() -> Tensor:
        with case.precision():
            fake = generator(source)
            real_logits = discriminator(torch.cat([source, target], 1)).float()
            fake_logits = discriminator(torch.cat([source, fake.detach()], 1)).float()
        loss = 0.5 * (softplus(-real_logits).mean() + softplus(fake_logits).mean())
        minimize(loss, discriminator_adam)

        with frozen(discriminator):
            with case.precision():
                fake_logits = discriminator(torch.cat([source, fake], 1)).float()
            loss = softplus(-fake_logits).mean() + 100.0 * (target - fake.float()).abs().mean()
            minimize(loss, generator_adam)
        return loss.detach()

    return [generator, discriminator], step


if __name__ == "__main__":
    main(contestant)
