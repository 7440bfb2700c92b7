"""The head of `torch_vgg16.py` on maps that were computed before, for comparison of speed only."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.torch_common import Case, Step, main
from benchmarks.torch_vgg16 import steps_of_head


def contestant(case: Case) -> tuple[list[nn.Module], Step]:
    """Steps of the head on the maps of pictures that are not augmented."""
    side = case.image_size // 32
    maps = torch.rand(case.batch_size, 512, side, side)
    if case.form != "contiguous":
        maps = maps.contiguous(memory_format=torch.channels_last)
    return steps_of_head(case, lambda: maps)


if __name__ == "__main__":
    main(contestant)
