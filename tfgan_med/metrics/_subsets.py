"""Random parts of large sets of features, without holding copies of them in memory."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating[Any]]  # (images, features)

_IN_MEMORY = 2**26  # bytes of a copy; larger ones lie in a file
_CHUNK = 4096


def rows_of(features: Features, rows: npt.NDArray[np.int64]) -> Features:
    """A copy of some rows; where it is large, in a temporary file that goes with the array."""
    if len(rows) * features.shape[1] * features.itemsize <= _IN_MEMORY:
        return np.asarray(features[rows])
    with tempfile.TemporaryFile() as file:
        copy = np.memmap(file, features.dtype, "w+", shape=(len(rows), features.shape[1]))
    for start in range(0, len(rows), _CHUNK):
        copy[start : start + _CHUNK] = features[rows[start : start + _CHUNK]]
    return copy


def sample(features: Features, count: int, generator: np.random.Generator) -> Features:
    """Random rows in their order; all of them as they are."""
    if count == len(features):
        return features
    return rows_of(features, np.sort(generator.choice(len(features), count, replace=False)))


def halves(features: Features, generator: np.random.Generator) -> tuple[Features, Features]:
    """Two random halves, equally large: of an odd number one row is in neither."""
    half = len(features) // 2
    order = generator.permutation(len(features))
    first, second = np.sort(order[:half]), np.sort(order[half : 2 * half])
    return rows_of(features, first), rows_of(features, second)
