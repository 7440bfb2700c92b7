"""Convolutions in groups that are quick on a CPU.

TensorFlow's own need one CPU library or fail, and Keras sends them through XLA, which took 50
times as long as the sums (measured, SE-ResNeXt-50 at 128 px).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import layers, ops

CHUNK = 64  # channels of a dense convolution; most are quicker than one for each group, measured


class GroupedConv2D(layers.Conv2D):
    """`keras.layers.Conv2D(groups=...)` with the same weights and sums.

    Neighboring groups are convolved together, with zeros in the kernel between different groups.

    Shapes: `(batch, height, width, channels)` to `(batch, height', width', filters)`.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        width = inputs.shape[-1] // self.groups
        together = math.gcd(self.groups, max(CHUNK // width, 1))
        chunks = self.groups // together
        between = np.kron(np.eye(together), np.ones((width, self.filters // self.groups)))
        mask = ops.cast(between, kernel.dtype)
        results = [
            super(GroupedConv2D, self).convolution_op(
                part, ops.tile(own, (1, 1, together, 1)) * mask
            )
            for part, own in zip(
                ops.split(inputs, chunks, axis=-1), ops.split(kernel, chunks, axis=-1), strict=True
            )
        ]
        return ops.concatenate(results, axis=-1) if chunks > 1 else results[0]
