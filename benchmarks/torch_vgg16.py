"""VGG16's frozen convolutions and a new head in PyTorch, for comparison of speed only.

A contestant of `train_step.py`; see `torch_common.py` for how it is run. Only the head counts as a
network, for only its weights are trained.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_common import Case, Step, adam, main, minimize

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
RGB_MEAN = (123.68, 116.779, 103.939)


class Head(nn.Module):
    """Batch norm, average over the map, dropout, one logit."""

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.logits = nn.Linear(channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        features = self.norm(maps.float()).mean(dim=(2, 3))
        logits: Tensor = self.logits(functional.dropout(features, 0.4, self.training))
        return logits


def convolutions() -> nn.Module:
    """Down to a thirty-second of the picture's side."""
    layers: list[nn.Module] = []
    before = 3
    for width, count in BLOCKS:
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """Steps of the head on pictures."""
    base = convolutions().requires_grad_(False)
    case.prepare(base)
    pictures, mean = case.pictures(), torch.tensor(RGB_MEAN).reshape(1, 3, 1, 1)

    def maps() -> Tensor:
        with torch.no_grad(), case.precision():
            found: Tensor = base(127.5 * (pictures + 1.0) - mean)
        return found

    return steps_of_head(case, maps)


def steps_of_head(case: Case, maps: Callable[[], Tensor]) -> tuple[list[nn.Module], Step]:
    """Weighted cross-entropy of one batch, whose maps are asked for in each step."""
    head = Head()
    case.prepare(head)
    optimizer = adam(head, rate=1e-4)
    labels = torch.randint(0, 2, (case.batch_size, 1)).float()
    weights = torch.ones(case.batch_size, 1)

    def step() -> Tensor:
        logits = head(maps())
        each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        loss = (weights * each).sum() / weights.sum()
        minimize(loss, optimizer)
        return loss.detach()

    return [head], step


if __name__ == "__main__":
    main(contestant)
