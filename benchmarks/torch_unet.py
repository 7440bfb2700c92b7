"""U-Net in PyTorch, for comparison of speed only: the same layers, loss and step as ours.

A contestant of `train_step.py`; see `torch_common.py` for how it is run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_common import Case, Step, adam, main, minimize

LEVELS = 4


class UNet(nn.Module):
    """Four times halved and doubled again, two 3x3 convolutions at every size."""

    def __init__(self, base: int) -> None:
        super().__init__()
        widths = [base << level for level in range(LEVELS + 1)]
        self.down = nn.ModuleList(
            pair(width // 2 if level else 3, width) for level, width in enumerate(widths)
        )
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[:-1]
        )
        self.up = nn.ModuleList(pair(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(LEVELS)):
            x = self.up[level](torch.cat([skips[level], self.enlarge[level](x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def pair(width_in: int, width: int) -> nn.Module:
    """Twice convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """Cross-entropy and one minus the Dice coefficient of the batch."""
    network = UNet(32 // case.narrow)
    case.prepare(network)
    optimizer = adam(network, rate=1e-3)
    pictures = case.pictures()
    masks = (case.pictures(1) > 0).float()

    def step() -> Tensor:
        with case.precision():
            logits = network(pictures)
        logits = logits.float()
        predicted = torch.sigmoid(logits)
        overlap = (2 * (masks * predicted).sum() + 1) / (masks.sum() + predicted.sum() + 1)
        loss = functional.binary_cross_entropy_with_logits(logits, masks) + 1 - overlap
        minimize(loss, optimizer)
        return loss.detach()

    return [network], step


if __name__ == "__main__":
    main(contestant)
