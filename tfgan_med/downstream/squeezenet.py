"""SqueezeNet 1.1 as a classifier of few pictures: VGG16's place where 3 MB of weights must do.

Iandola et al., arXiv:1602.07360, version 1.1, without its last convolution; the head is that of
paper 003. 1 537 weights are learned for one logit; the base needs some forty times fewer products
than VGG16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from pydantic import Field

from tfgan_med.downstream._transfer import Start, TransferClassifier, TransferConfig
from tfgan_med.networks import squeezenet


class SqueezeNetConfig(TransferConfig):
    """Settings of SqueezeNet; its nine blocks are the first convolution and eight fire modules."""

    learning_rate: float = Field(1e-3, gt=0.0)
    """Of Adam; with the 1e-4 of VGG16 this head still learns after 1500 steps."""


class SqueezeNet(TransferClassifier):
    """SqueezeNet 1.1 below a head of batch norm, average, dropout and dense layer.

    See `TransferClassifier`.
    """

    weights_name = "squeezenet"
    blocks = ("conv1", *(f"fire{number}_" for number in range(2, 10)))
    smallest = 31
    config: SqueezeNetConfig

    def maps_of(self, pixels: Any, start: Start) -> Any:
        """Both halves of fire9 after their ReLU, `(batch, about size / 16, same, 512)`."""
        return squeezenet.tapped_maps(pixels, start=start)[-1]

    def load_base(self, path: Path) -> None:
        """From the Keras 2 file without top."""
        squeezenet.load(self.trunk, path)

    def first_layer(self) -> keras.layers.Layer:
        """Of 64 kernels with stride 2."""
        return self.trunk.get_layer("conv1")
