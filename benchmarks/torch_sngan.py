"""SNGAN in PyTorch, for comparison of speed only: the same layers, losses and step as ours.

A contestant of `train_step.py`; see `torch_common.py` for how it is run. Written after
arXiv:1802.05957 and `tfgan_med/models/sngan.py` as PyTorch's users would write it: spectral
normalization is `torch.nn.utils.parametrizations.spectral_norm`, which iterates in every pass in
training, 1 x 1 convolutions stand where they cost least, and real and generated pictures share one
pass of the discriminator.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.torch_common import Case, Step, frozen, main, minimize

LATENT_SIZE = 128
UPDATES = 2  # of the discriminator, as in `build_sngan`
GENERATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
DISCRIMINATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
HALVINGS = {32: 2, 64: 5, 128: 5}
FAKES_PER_REAL = {32: 2, 64: 1, 128: 2}  # in the generator's step
EMA_DECAY = 0.999


# Networks -----------------------------------------------------------------------------------------


class Doubled(nn.Module):
    """Norm, ReLU, double, convolve, norm, ReLU, convolve; beside it 1 x 1 and double."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1), nn.Upsample(scale_factor=2))
        self.convolved = nn.Sequential(
            nn.BatchNorm2d(width_in, eps=2e-5),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width_in, width, 3, padding=1),
            nn.BatchNorm2d(width, eps=2e-5),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convolved(x) + self.shortcut(x)
        return result


class Halved(nn.Module):
    """ReLU but in the first block, convolve, ReLU, convolve, halve; beside it halve and 1 x 1.

    Without halving and with as many channels the shortcut is the identity.
    """

    def __init__(self, width_in: int, width: int, halve: bool, first: bool = False) -> None:
        super().__init__()
        hidden = width if first else width_in
        pool: list[nn.Module] = [nn.AvgPool2d(2)] if halve else []
        # Not in place: the shortcut needs the maps before the ReLU.
        begin: list[nn.Module] = [] if first else [nn.ReLU()]
        self.convolved = nn.Sequential(
            *begin,
            nn.Conv2d(width_in, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width, 3, padding=1),
            *pool,
        )
        own = [nn.Conv2d(width_in, width, 1)] if halve or width_in != width else []
        self.shortcut = nn.Sequential(*pool, *own)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convolved(x) + self.shortcut(x)
        return result


class Sum(nn.Module):
    """Over height and width, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().sum((2, 3))


def generator_network(image_size: int, base: int) -> nn.Module:
    """From noise to 4 x 4, then doubled up to the picture."""
    widths = [base * multiple for multiple in GENERATOR_WIDTHS[image_size]]
    return nn.Sequential(
        nn.Linear(LATENT_SIZE, 16 * widths[0]),
        nn.Unflatten(1, (widths[0], 4, 4)),
        *(Doubled(*pair) for pair in itertools.pairwise(widths)),
        nn.BatchNorm2d(widths[-1], eps=2e-5),
        nn.ReLU(inplace=True),
        nn.Conv2d(widths[-1], 3, 3, padding=1),
        nn.Tanh(),
    )


def discriminator_network(image_size: int, base: int) -> nn.Module:
    """Halved, summed, one linear unit."""
    widths = [base * multiple for multiple in DISCRIMINATOR_WIDTHS[image_size]]
    blocks = [
        Halved(*pair, halve=number <= HALVINGS[image_size])
        for number, pair in enumerate(itertools.pairwise(widths), 2)
    ]
    return nn.Sequential(
        Halved(3, widths[0], halve=True, first=True),
        *blocks,
        nn.ReLU(inplace=True),
        Sum(),
        nn.Linear(widths[-1], 1, bias=image_size != 32),
    )


def normalize_spectrally(network: nn.Module) -> None:
    """Every kernel divided by its largest singular value."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module, eps=1e-12)


# Training -----------------------------------------------------------------------------------------


class Average:
    """The moving average of the generator's weights; statistics are copied."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.kept = copy.deepcopy(network)
        self.step = 0

    def update(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        self.step += 1
        with torch.no_grad():
            old, new = list(self.kept.parameters()), list(self.network.parameters())
            torch._foreach_lerp_(old, new, 1.0 - decay)
            torch._foreach_copy_(list(self.kept.buffers()), list(self.network.buffers()))


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), 2e-4, (0.0, 0.9), eps=1e-8, fused=True)


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """The generator once, then the discriminator on each part of the batch."""
    base = 64 // case.narrow
    generator = generator_network(case.image_size, base)
    discriminator = discriminator_network(case.image_size, base)
    case.prepare(generator, discriminator)
    normalize_spectrally(discriminator)
    average = Average(generator)
    generator_adam, discriminator_adam = adam(generator), adam(discriminator)
    parts = case.pictures().chunk(UPDATES)
    count = len(parts[0])

    def discriminator_step(real: Tensor) -> None:
        noisy = real + (2.0 / 255.0) * (torch.rand_like(real) - 0.5)
        with case.precision():
            with torch.no_grad():
                fake = generator(torch.randn(count, LATENT_SIZE)).float()
            logits = discriminator(torch.cat([noisy, fake])).float()
        real_logits, fake_logits = logits.chunk(2)
        loss = functional.relu(1.0 - real_logits).mean() + functional.relu(1.0 + fake_logits).mean()
        minimize(loss, discriminator_adam)

    def step() -> Tensor:
        with frozen(discriminator):
            with case.precision():
                latents = torch.randn(count * FAKES_PER_REAL[case.image_size], LATENT_SIZE)
                loss = -discriminator(generator(latents)).float().mean()
            minimize(loss, generator_adam)
        for real in parts:
            discriminator_step(real)
        average.update()
        return loss.detach()

    return [generator, discriminator], step


if __name__ == "__main__":
    main(contestant)
