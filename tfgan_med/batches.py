"""The keys of a batch with their shapes and value ranges.

Images are float32 in [-1, 1], NHWC. Conditions are images, binary masks of one channel in
{-1, 1}, or K classes one-hot in {0, 1}.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

Tensor = Any  # tf.Tensor; TensorFlow is untyped here and not imported at this level


class PairedBatch(TypedDict):
    """A condition and the picture that belongs to it, pixel by pixel."""

    source: Tensor  # (batch, size, size, source channels)
    target: Tensor  # (batch, size, size, target channels), [-1, 1]


class ImageBatch(TypedDict):
    """Pictures without a condition; masks that are made together with them are further channels."""

    images: Tensor  # (batch, size, size, image + mask channels), [-1, 1]
    rows: NotRequired[Tensor]  # (batch,) int64, which pictures of the training split; in training
    labels: NotRequired[Tensor]  # (batch,) int64, numbers of their classes, -1 without; likewise


class DomainBatch(TypedDict):
    """Pictures of two kinds that do not belong together."""

    a: Tensor  # (batch, size, size, channels of A), [-1, 1]
    b: Tensor  # (batch, size, size, channels of B), [-1, 1]
