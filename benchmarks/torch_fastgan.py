"""FastGAN in PyTorch, for comparison of speed only: the same layers, losses and step as ours.

A contestant of `train_step.py`; see `torch_common.py` for how it is run. Written after
arXiv:2101.04775 and `tfgan_med/models/fastgan.py`; reconstruction by L1.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_common import Case, Step, adam, frozen, main, minimize

LATENT_SIZE = 256
LARGEST_REBUILT = 128
EMA_DECAY = 0.999
RECONSTRUCTION_WEIGHT = 8.0
MARGIN_NOISE = 0.2


# Layers -------------------------------------------------------------------------------------------


class Spectral(nn.Module):
    """A convolution whose kernel is divided by its largest singular value.

    `u` moves only in `iterate`, once per step, so that every pass of a step has the same kernel;
    PyTorch's own parametrization iterates in every pass.
    """

    weight: Tensor
    u: Tensor
    transposed: bool

    def start(self) -> None:
        with torch.no_grad():
            count = self.columns().shape[1]
            self.register_buffer("u", functional.normalize(torch.randn(count), dim=0))
            for _ in range(15):
                self.iterate()

    def columns(self) -> Tensor:
        """The kernel as a matrix, a column for every output channel, as it lies in memory."""
        if self.transposed:
            return self.weight.permute(0, 2, 3, 1).flatten(0, 2)
        kernel = self.weight if self.weight.is_contiguous() else self.weight.permute(0, 2, 3, 1)
        return kernel.flatten(1).t()

    def kernel(self) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # sigma is float32
            return self.weight / torch.linalg.vector_norm(self.columns() @ self.u)

    def iterate(self) -> None:
        columns = self.columns()
        v = functional.normalize(columns @ self.u, dim=0)
        self.u.copy_(functional.normalize(columns.t() @ v, dim=0))


class Convolution(Spectral, nn.Conv2d):
    transposed = False

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel(), None, self.stride, self.padding)


class TransposedConvolution(Spectral, nn.ConvTranspose2d):
    transposed = True

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv_transpose2d(x, self.kernel())


def conv(width_in: int, width: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
    return Convolution(width_in, width, kernel, stride, padding, bias=False)


def spectral_layers(*networks: nn.Module) -> list[Spectral]:
    return [m for network in networks for m in network.modules() if isinstance(m, Spectral)]


class GatedLinearUnit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous():
            return functional.glu(x, 1)
        values, gates = x.chunk(2, 1)  # quicker for channels last
        return values * torch.sigmoid(gates)


class Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape[0], 1, *x.shape[2:])
        return x + (self.weight * noise).to(x.dtype)


def norm_and_gate(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(2 * width), GatedLinearUnit()]


def doubled(width_in: int, width: int, noisy: bool = False) -> nn.Module:
    """Twice the size: repeated pixels, then one convolution, or two with noise after each."""
    noise = [Noise()] if noisy else []
    layers = [nn.Upsample(scale_factor=2), conv(width_in, 2 * width, 3, padding=1), *noise]
    layers += norm_and_gate(width)
    if noisy:
        layers += [conv(width, 2 * width, 3, padding=1), Noise(), *norm_and_gate(width)]
    return nn.Sequential(*layers)


class Gate(nn.Module):
    """A small map says which channels of a large one matter."""

    def __init__(self, low_side: int, low_width: int, width: int) -> None:
        super().__init__()
        pool = [nn.AvgPool2d(low_side // 4)] if low_side > 4 else []
        squeeze, excite = conv(low_width, width, 4), conv(width, width, 1)
        self.factors = nn.Sequential(*pool, squeeze, nn.SiLU(inplace=True), excite, nn.Sigmoid())

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        result: Tensor = high * self.factors(low)
        return result


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


class Halved(nn.Module):
    """Half the size: the mean of a path of two convolutions and of averaged pixels."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.convolved = nn.Sequential(
            conv(width_in, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            leaky(),
            conv(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            leaky(),
        )
        self.averaged = nn.Sequential(
            nn.AvgPool2d(2), conv(width_in, width, 1), nn.BatchNorm2d(width), leaky()
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = 0.5 * (self.convolved(x) + self.averaged(x))
        return result


# Networks -----------------------------------------------------------------------------------------


def widths(multiples: dict[int, int], base: int) -> Callable[[int], int]:
    """Channels by the side of a map; beyond the named sides they halve with every doubling."""
    return lambda side: multiples[side] * base if side in multiples else base * 128 // side


def small_size(image_size: int) -> int:
    return min(128, image_size // 2)


class Generator(nn.Module):
    """From latents to the picture and a small one."""

    def __init__(self, image_size: int, base: int) -> None:
        super().__init__()
        width = widths({4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1}, base)
        self.image_size = image_size
        self.first = nn.Sequential(
            TransposedConvolution(LATENT_SIZE, 2 * width(4), 4, bias=False),
            *norm_and_gate(width(4)),
        )
        self.stages, self.gates = nn.ModuleDict(), nn.ModuleDict()
        side = 4
        while side < image_size:
            width_in, side = width(side), 2 * side
            noisy = side in (8, 32, 128, 512)
            self.stages[str(side)] = doubled(width_in, width(side), noisy)
            if 64 <= side <= 512:
                self.gates[str(side)] = Gate(side // 16, width(side // 16), width(side))
        self.image = nn.Sequential(conv(width(image_size), 3, 3, padding=1), nn.Tanh())
        self.small = nn.Sequential(conv(width(small_size(image_size)), 3, 1), nn.Tanh())

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        maps = {4: self.first(latents[:, :, None, None])}
        side = 4
        while side < self.image_size:
            side *= 2
            maps[side] = self.stages[str(side)](maps[side // 2])
            if str(side) in self.gates:
                maps[side] = self.gates[str(side)](maps[side // 16], maps[side])
        return self.image(maps[self.image_size]), self.small(maps[small_size(self.image_size)])


class Discriminator(nn.Module):
    """Scores of a picture and its small version, and features to rebuild them from."""

    def __init__(self, image_size: int, base: int) -> None:
        super().__init__()
        if image_size > 256:
            raise ValueError("Pictures over 256 pixels have another first layer.")
        width = widths({8: 16, 16: 8, 32: 4, 64: 2, 128: 1}, base)
        self.image_size = image_size
        self.stem = nn.Sequential(conv(3, width(2 * image_size), 3, padding=1), leaky())
        self.stages, self.gates = nn.ModuleDict(), nn.ModuleDict()
        side = image_size
        while side > 8:
            width_in, side = width(2 * side), side // 2
            self.stages[str(side)] = Halved(width_in, width(2 * side))
            if 8 * side <= image_size:
                self.gates[str(side)] = Gate(8 * side, width(16 * side), width(2 * side))
        self.score = nn.Sequential(
            conv(width(16), width(8), 1), nn.BatchNorm2d(width(8)), leaky(), conv(width(8), 1, 4)
        )
        self.small = nn.Sequential(*self._small_layers(small_size(image_size), width))
        self.small_score = conv(width(32), 1, 4)

    @staticmethod
    def _small_layers(size: int, width: Callable[[int], int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        width_in, side = 3, size // 2
        while side >= 8:
            layers.append(conv(width_in, width(4 * side), 4, stride=2, padding=1))
            if width_in != 3:
                layers.append(nn.BatchNorm2d(width(4 * side)))
            layers.append(leaky())
            width_in, side = width(4 * side), side // 2
        return layers

    def forward(self, image: Tensor, small: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps = {self.image_size: self.stem(image)}
        side = self.image_size
        while side > 8:
            side //= 2
            maps[side] = self.stages[str(side)](maps[2 * side])
            if str(side) in self.gates:
                maps[side] = self.gates[str(side)](maps[8 * side], maps[side])
        of_small = self.small(small)
        scores = [self.score(maps[8]).flatten(1), self.small_score(of_small).flatten(1)]
        return torch.cat(scores, 1), maps[8], maps[16], of_small


class Decoders(nn.Module):
    """Three decoders: of the picture, of the small one and of a quarter."""

    def __init__(self, image_size: int, base: int) -> None:
        super().__init__()
        self.image = self._decoder(8 * base, image_size, base)
        self.small = self._decoder(4 * base, small_size(image_size), base)
        self.part = self._decoder(4 * base, image_size // 2, base)

    @staticmethod
    def _decoder(width_in: int, size: int, base: int) -> nn.Module:
        layers: list[nn.Module] = []
        side = 8
        for width in (2 * base, base, base, base // 2):
            if side == min(size, LARGEST_REBUILT):
                break
            layers.append(doubled(width_in, width))
            width_in, side = width, 2 * side
        return nn.Sequential(*layers, conv(width_in, 3, 3, padding=1), nn.Tanh())

    def forward(self, image: Tensor, small: Tensor, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(image), self.small(small), self.part(part)


# Augmentation -------------------------------------------------------------------------------------


class Shift(torch.autograd.Function):
    """Every picture moved by its own number of pixels, 0 coming in; backward moves back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, shifts: list[list[int]]) -> Tensor:
        ctx.shifts = shifts
        return shifted(images, shifts)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return shifted(upstream[0], [[-dy, -dx] for dy, dx in ctx.shifts]), None


def shifted(images: Tensor, shifts: list[list[int]]) -> Tensor:
    height, width = images.shape[2:]
    moved = torch.zeros_like(images)
    for new, old, (dy, dx) in zip(moved, images, shifts, strict=True):
        to_rows, from_rows = overlap(height, dy)
        to_columns, from_columns = overlap(width, dx)
        new[:, to_rows, to_columns] = old[:, from_rows, from_columns]
    return moved


def overlap(side: int, shift: int) -> tuple[slice, slice]:
    """Where pixels arrive and where they come from, along one axis."""
    arriving = slice(max(shift, 0), side + min(shift, 0))
    return arriving, slice(arriving.start - shift, arriving.stop - shift)


def augmented(images: Tensor) -> Tensor:
    """DiffAugment's color and translation, float32; the three changes of color in one pass."""
    images = images.float()
    batch = len(images)
    bright, saturated, contrasted = torch.rand(3, batch, 1, 1, 1)
    bright, saturated, contrasted = bright - 0.5, 2.0 * saturated, contrasted + 0.5
    gray = images.mean(1, keepdim=True)
    mean = gray.mean((2, 3), keepdim=True)
    rest = gray * (contrasted * (1.0 - saturated)) + ((1.0 - contrasted) * mean + bright)
    colored = torch.addcmul(rest, images, contrasted * saturated)

    limit = int(images.shape[-1] / 8 + 0.5)
    shifts = torch.randint(-limit, limit + 1, (batch, 2)).tolist()
    moved: Tensor = Shift.apply(colored, shifts)
    return moved


# Training -----------------------------------------------------------------------------------------


class Average:
    """The moving average of the generator's weights; statistics and `u` are copied."""

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


def quarter(maps: Tensor, lower: bool, right: bool) -> Tensor:
    half = maps.shape[-1] // 2
    return maps[:, :, lower * half :, right * half :][:, :, :half, :half]


def shrunk(images: Tensor, size: int) -> Tensor:
    factor = images.shape[-1] // size
    return images if factor == 1 else functional.avg_pool2d(images, factor)


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """Discriminator and decoders first, then the generator, on the same generated pictures."""
    size, base = case.image_size, 64 // case.narrow
    generator, discriminator = Generator(size, base), Discriminator(size, base)
    decoders = Decoders(size, base)
    networks = [generator, discriminator, decoders]
    case.prepare(*networks)
    spectral = spectral_layers(*networks)
    for layer in spectral:
        layer.start()
    average = Average(generator)
    pictures = case.pictures()
    generator_adam, discriminator_adam = adam(generator), adam(discriminator, decoders)

    def rebuilding_loss(image: Tensor, small: Tensor, features: list[Tensor]) -> Tensor:
        of_image, of_part, of_small = features
        corner = random.random() < 0.5, random.random() < 0.5
        with case.precision():
            made = decoders(of_image, of_small, quarter(of_part, *corner))
        wanted = image, small, quarter(image, *corner)
        losses = [
            (rebuilt.float() - shrunk(target, rebuilt.shape[-1])).abs().mean()
            for target, rebuilt in zip(wanted, made, strict=True)
        ]
        return torch.stack(losses).sum()

    def discriminator_loss(image: Tensor, small: Tensor, fake: list[Tensor]) -> Tensor:
        with case.precision():
            real_scores, *features = discriminator(image, small)
            fake_scores, *_ = discriminator(*fake)
        real_margin = 1.0 - MARGIN_NOISE * torch.rand(real_scores.shape)
        fake_margin = 1.0 - MARGIN_NOISE * torch.rand(fake_scores.shape)
        adversarial = functional.relu(real_margin - real_scores.float()).mean()
        adversarial = adversarial + functional.relu(fake_margin + fake_scores.float()).mean()
        return adversarial + RECONSTRUCTION_WEIGHT * rebuilding_loss(image, small, features)

    def step() -> Tensor:
        with torch.no_grad():
            for layer in spectral:
                layer.iterate()
            image = augmented(pictures)
            small = shrunk(image, small_size(size))
        with case.precision():
            made = generator(torch.randn(case.batch_size, LATENT_SIZE))
        fake = [augmented(picture) for picture in made]
        seen = [picture.detach() for picture in fake]
        minimize(discriminator_loss(image, small, seen), discriminator_adam)

        with frozen(discriminator):
            with case.precision():
                scores, *_ = discriminator(*fake)
            loss = -scores.float().mean()
            minimize(loss, generator_adam)
        average.update()
        return loss.detach()

    return networks, step


if __name__ == "__main__":
    main(contestant)
