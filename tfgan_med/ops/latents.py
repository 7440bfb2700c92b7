"""Latent vectors as functions of (seed, index) alone, and ways from one vector to another.

NumPy only. Neither the number of vectors nor the size of a batch nor a restart changes a vector:
each has a counter-based random stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Vectors = npt.NDArray[np.float32]

_SMALLEST_SINE = 1e-4  # below it the arc is a straight line to float32, or has no one direction


def latents(
    seed: int, indices: Sequence[int], size: int, truncation: float | None = None
) -> Vectors:
    """Standard normal vectors, or such whose values are drawn within bounds.

    Each value is the inverse distribution function of one uniform number, so a truncated vector
    is the whole one with its values moved inwards, in the same order:

        z = F^-1(u)                                 truncation None
        z = F^-1(F(-T) + u (F(T) - F(-T)))          the normal distribution cut to [-T, T]

    Args:
        seed: of the whole set, 0 to 2^64 - 1.
        indices: numbers of the vectors in the set, not negative.
        size: length of a vector.
        truncation: T. Smaller means nearer to the mean image: more typical, less various.
    Returns:
        `(len(indices), size)` float32.
    Raises:
        ValueError: if the seed or an index is out of range, or T is not above 0.
    Source: Salmon et al., SC 2011 (Philox 4x64-10, key = seed and index); the truncated normal of
        Brock et al., arXiv:1809.11096, section 3.1, drawn without rejection.
    """
    if truncation is not None and not truncation > 0:
        raise ValueError(f"truncation is {truncation}, but a bound above 0 is expected.")
    uniform = np.empty((len(indices), size))
    for row, index in enumerate(indices):
        key = np.array([_word(seed, "seed"), _word(index, "index")], np.uint64)
        bits = np.random.Philox(key=key).random_raw(size)
        uniform[row] = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52  # never 0 or 1
    if truncation is None:
        return np.asarray(ndtri(uniform), np.float32)
    low, high = ndtr(-truncation), ndtr(truncation)
    values = ndtri(low + uniform * (high - low))
    return np.asarray(np.clip(values, -truncation, truncation), np.float32)


def _word(value: int, name: str) -> int:
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} is {value}, but 0 to 2^64 - 1 is expected.")
    return int(value)


def lerp(first: Vectors, last: Vectors, steps: int) -> Vectors:
    """Vectors at equal distances on the straight line from one to another.

    Between normal vectors of many values it passes nearer to the origin than they ever lie, so
    the middle of the way shows images that the generator was not trained to make.

    Args:
        first, last: `(size,)`; they are the first and the last row, exactly.
        steps: rows, at least 2.
    Returns:
        `(steps, size)` float32.
    Raises:
        ValueError: for fewer steps or vectors of different length.
    """
    share = _shares(first, last, steps)
    return _between(first, last, 1.0 - share, share)


def slerp(first: Vectors, last: Vectors, steps: int) -> Vectors:
    """Vectors at equal angles on the arc from one to another.

        z(t) = sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b,    w the angle between a and b

    Vectors of equal norm give an arc of that norm. Where the two are (nearly) parallel or
    opposite, or one is 0, there is no arc or no single one, and the straight line is taken.

    Args, Returns, Raises: as for `lerp`.
    Source: Shoemake, SIGGRAPH 1985; for latent spaces White, arXiv:1609.04468.
    """
    share = _shares(first, last, steps)
    a, b = np.asarray(first, np.float64), np.asarray(last, np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = np.clip(a @ b / norms, -1.0, 1.0) if norms > 0 else 1.0
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    if sine < _SMALLEST_SINE:
        return lerp(first, last, steps)
    return _between(first, last, np.sin((1.0 - share) * angle) / sine, np.sin(share * angle) / sine)


def _shares(first: Vectors, last: Vectors, steps: int) -> npt.NDArray[np.float64]:
    if steps < 2 or np.shape(first) != np.shape(last) or np.ndim(first) != 1:
        raise ValueError(
            "At least 2 steps between two vectors of one length are expected: received "
            f"{steps} steps, shapes {np.shape(first)} and {np.shape(last)}."
        )
    return np.linspace(0.0, 1.0, steps)


def _between(
    first: Vectors,
    last: Vectors,
    of_first: npt.NDArray[np.float64],
    of_last: npt.NDArray[np.float64],
) -> Vectors:
    rows = of_first[:, None] * first.astype(np.float64) + of_last[:, None] * last.astype(np.float64)
    rows[0], rows[-1] = first, last
    return rows.astype(np.float32)
