"""CycleGAN in PyTorch, for comparison of speed only: the same layers, losses and step as ours.

A contestant of `train_step.py`; see `torch_common.py` for how it is run.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from benchmarks.torch_common import Case, Step, adam, frozen, instance_norm, main, minimize

POOL_SIZE = 50
CYCLE, IDENTITY = 10.0, 5.0


class ReflectionPad(nn.ReflectionPad2d):
    """In the dtype that comes in: autocast would pad in float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            padded: Tensor = super().forward(x)
        return padded


def norm(channels: int) -> nn.Module:
    return instance_norm(channels, affine=False)


class Residual(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ReflectionPad(1),
            nn.Conv2d(width, width, 3),
            norm(width),
            nn.ReLU(inplace=True),
            ReflectionPad(1),
            nn.Conv2d(width, width, 3),
            norm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.branch(x)
        return result


def resnet(blocks: int, base: int) -> nn.Module:
    layers: list[nn.Module] = [
        ReflectionPad(3),
        nn.Conv2d(3, base, 7),
        norm(base),
        nn.ReLU(inplace=True),
    ]
    for width in (base, 2 * base):
        layers += [
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            norm(2 * width),
            nn.ReLU(inplace=True),
        ]
    layers += [Residual(4 * base) for _ in range(blocks)]
    for width in (2 * base, base):
        layers += [
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
            norm(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, ReflectionPad(3), nn.Conv2d(base, 3, 7), nn.Tanh())


def patch70(base: int) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, base, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for width_in, width, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [
            nn.Conv2d(base * width_in, base * width, 4, stride=stride, padding=1),
            norm(base * width),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(base * 8, 1, 4, padding=1))


class ImagePool:
    """Earlier fakes, some of which the discriminator sees in place of new ones."""

    def __init__(self) -> None:
        self.pictures: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        return torch.cat([self._exchange_one(image) for image in images.split(1)])

    def _exchange_one(self, image: Tensor) -> Tensor:
        if len(self.pictures) < POOL_SIZE:
            self.pictures.append(image)
            return image
        if random.random() < 0.5:
            return image
        place = random.randrange(POOL_SIZE)
        stored, self.pictures[place] = self.pictures[place], image
        return stored


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """Both generators first, then both discriminators, on fakes made before either moved."""
    base = 64 // case.narrow
    to_b, to_a = (resnet(6 if case.image_size <= 128 else 9, base) for _ in range(2))
    judge_a, judge_b = patch70(base), patch70(base)
    case.prepare(to_b, to_a, judge_a, judge_b)
    generators_adam, discriminators_adam = adam(to_b, to_a), adam(judge_a, judge_b)
    pool_a, pool_b = ImagePool(), ImagePool()
    a, b = case.pictures(), case.pictures()

    def generators_loss() -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and the fakes of both domains."""
        with case.precision():
            # As in ours, one pass for two pictures, which do not interact under instance norm.
            fake_b, same_b = to_b(torch.cat([a, b])).chunk(2)
            same_a, fake_a = to_a(torch.cat([a, b])).chunk(2)
            cycled_a, cycled_b = to_a(fake_b), to_b(fake_a)
            scores_b, scores_a = judge_b(fake_b), judge_a(fake_a)
        loss = (
            squared(scores_b, 1.0)
            + squared(scores_a, 1.0)
            + CYCLE * (distance(cycled_a, a) + distance(cycled_b, b))
            + IDENTITY * (distance(same_a, a) + distance(same_b, b))
        )
        return loss, fake_a.detach().float(), fake_b.detach().float()

    def judge_loss(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        with case.precision():
            real_scores, fake_scores = judge(torch.cat([real, fake])).chunk(2)
        return 0.5 * (squared(real_scores, 1.0) + squared(fake_scores, 0.0))

    def step() -> Tensor:
        with frozen(judge_a, judge_b):
            loss, fake_a, fake_b = generators_loss()
            minimize(loss, generators_adam)
        fake_a, fake_b = pool_a.exchange(fake_a), pool_b.exchange(fake_b)
        minimize(
            judge_loss(judge_a, a, fake_a) + judge_loss(judge_b, b, fake_b), discriminators_adam
        )
        return loss.detach()

    return [to_b, to_a, judge_a, judge_b], step


def squared(scores: Tensor, target: float) -> Tensor:
    return (scores.float() - target).square().mean()


def distance(made: Tensor, wanted: Tensor) -> Tensor:
    return (made.float() - wanted).abs().mean()


if __name__ == "__main__":
    main(contestant)
