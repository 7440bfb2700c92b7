"""Distances between a picture and the one it should be, pixel by pixel."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def l1_loss(target: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference, `E|y - G(x)|`, a float32 scalar; 2 at most for images in [-1, 1].

    Args:
        target, fake: `(batch, height, width, channels)`, of one shape.
    Raises:
        ValueError: if the shapes disagree, for broadcasting would hide it.
    Source: Isola et al., arXiv:1611.07004, eq. 3, as a mean so that lambda keeps its meaning at
        every image size.
    """
    return ops.mean(ops.abs(_difference(target, fake)))


def l2_loss(target: Tensor, fake: Tensor) -> Tensor:
    """Mean squared difference, `E(y - G(x))²`, a float32 scalar; 4 at most for images in [-1, 1].

    Args and raises as for `l1_loss`.
    """
    return ops.mean(ops.square(_difference(target, fake)))


def refuse_other_shape(target: Tensor, fake: Tensor) -> None:
    """Raise a ValueError if two batches of images differ in any side that is known."""
    sides = zip(target.shape, fake.shape, strict=False)
    if len(target.shape) != len(fake.shape) or any(
        wanted is not None and given is not None and wanted != given for wanted, given in sides
    ):
        raise ValueError(
            "A reconstruction loss compares images of one shape: received a target of shape "
            f"{tuple(target.shape)} and a generated image of shape {tuple(fake.shape)}."
        )


def _difference(target: Tensor, fake: Tensor) -> Tensor:
    refuse_other_shape(target, fake)
    return ops.cast(target, "float32") - ops.cast(fake, "float32")
