"""Starting values of convolutions: one seed in, another draw for every layer out."""

from __future__ import annotations

import zlib

import keras


def seed_of(seed: int, name: str) -> int:
    """The seed of the layer called `name`, the same on every machine and in every version.

    Two layers of equal shape would start with equal values if they shared one seed.
    """
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def normal_weights(seed: int, name: str) -> keras.initializers.Initializer:
    """N(0, 0.02), as in Radford et al., arXiv:1511.06434, and Isola et al., arXiv:1611.07004."""
    return keras.initializers.RandomNormal(0.0, 0.02, seed=seed_of(seed, name))
