"""VGG16 as a classifier of few pictures, as in paper 003.

Simonyan and Zisserman, arXiv:1409.1556, configuration D without its dense layers; 1 537 weights
are learned for one logit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from tfgan_med.downstream._transfer import Start, TransferClassifier, TransferConfig
from tfgan_med.networks import vgg


class VGG16Config(TransferConfig):
    """Settings of VGG16; a block ends with a pooling, there are five."""


class VGG16(TransferClassifier):
    """VGG16 of `keras.applications` below a head of batch norm, average, dropout and dense layer.

    See `TransferClassifier`.
    """

    weights_name = "vgg16"
    blocks = tuple(f"block{number}_" for number in range(1, 6))
    smallest = 32
    config: VGG16Config

    def maps_of(self, pixels: Any, start: Start) -> Any:
        """The last pooling, `(batch, size / 32, size / 32, 512)`."""
        return vgg.last_maps(pixels, start=start)

    def load_base(self, path: Path) -> None:
        """From the file of `keras.applications`, with or without top."""
        vgg.load(self.trunk, path)

    def first_layer(self) -> keras.layers.Layer:
        """Of 64 kernels."""
        return self.trunk.get_layer("block1_conv1")
