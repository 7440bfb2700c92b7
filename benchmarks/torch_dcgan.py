"""DCGAN in PyTorch, for comparison of speed only: the same layers, losses and step as ours.

A contestant of `train_step.py`; see `torch_common.py` for how it is run. Of the three rows and
columns that a 5 x 5 kernel with stride 2 pads, ours has one in front and PyTorch two, which shifts
the maps by a pixel and costs the same.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_common import Case, Step, adam, frozen, main, minimize

LATENT_SIZE = 100


def generator_network(image_size: int, base: int) -> nn.Module:
    """From noise to 4 x 4, then doubled up to the picture; widths halve."""
    doublings = image_size.bit_length() - 3
    layers: list[nn.Module] = [
        nn.Linear(LATENT_SIZE, 16 * base, bias=False),
        nn.Unflatten(1, (base, 4, 4)),
        nn.BatchNorm2d(base),
        nn.ReLU(inplace=True),
    ]
    for level in range(doublings - 1):
        layers += [
            double(base >> level, base >> (level + 1), bias=False),
            nn.BatchNorm2d(base >> (level + 1)),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, double(base >> (doublings - 1), 3, bias=True), nn.Tanh())


def discriminator_network(image_size: int, base: int) -> nn.Module:
    """Halved down to 4 x 4, then one linear unit; widths double up to eight times the first."""
    halvings = image_size.bit_length() - 3
    widths = [base * min(2**level, 8) for level in range(halvings)]
    layers: list[nn.Module] = [
        nn.Conv2d(3, base, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for width_in, width in itertools.pairwise(widths):
        layers += [
            nn.Conv2d(width_in, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * widths[-1], 1))


def double(width_in: int, width: int, bias: bool) -> nn.Module:
    return nn.ConvTranspose2d(width_in, width, 5, stride=2, padding=2, output_padding=1, bias=bias)


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """The discriminator first, then the generator, on the same generated pictures."""
    generator = generator_network(case.image_size, 1024 // case.narrow)
    discriminator = discriminator_network(case.image_size, 64 // case.narrow)
    case.prepare(generator, discriminator)
    generator_adam, discriminator_adam = adam(generator, rate=1e-4), adam(discriminator, rate=1e-4)
    real = case.pictures()
    softplus = functional.softplus

    def step() -> Tensor:
        with case.precision():
            fake = generator(torch.randn(case.batch_size, LATENT_SIZE))
            real_logits = discriminator(real).float()
            fake_logits = discriminator(fake.detach()).float()
        loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
        minimize(loss, discriminator_adam)

        with frozen(discriminator):
            with case.precision():
                fake_logits = discriminator(fake).float()
            loss = softplus(-fake_logits).mean()
            minimize(loss, generator_adam)
        return loss.detach()

    return [generator, discriminator], step


if __name__ == "__main__":
    main(contestant)
