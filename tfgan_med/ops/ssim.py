"""Structural similarity (SSIM, MS-SSIM) of pictures: one pair, many pairs, all pairs.

    SSIM = mean over windows and channels of  l * cs
    l  = (2 m_a m_b + C1) / (m_a² + m_b² + C1)        cs = (2 s_ab + C2) / (s_a² + s_b² + C2)

The variant of Wang et al. (2004) and of `tf.image.ssim`: Gaussian window of 11 x 11 pixels with
sigma 1.5, K1 = 0.01, K2 = 0.03, population moments, windows inside the picture only. Box windows
or sample covariances (the default of scikit-image) give other numbers.

Means and variances belong to one picture and are computed once; a further pair costs one filter.
NumPy and OpenCV in float32, which agrees with TensorFlow to 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

Pictures = npt.NDArray[Any]  # (pictures, height, width, channels)
Planes = npt.NDArray[np.float32]  # (pictures, channels, height, width)
Matrix = npt.NDArray[np.float32]

WINDOW = 11
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales of MS-SSIM, finest first (Wang et al. 2003, section 3.2)."""

_C1, _C2 = 0.01**2, 0.03**2  # for pixels in [0, 1]
_KERNEL = np.asarray(cv2.getGaussianKernel(WINDOW, 1.5), np.float32)
_BORDER = WINDOW // 2
_CELL = 8  # windows that share one bound, along each axis; see `upper_bounds`
_FEW_PAIRS = 50_000  # below, computing all takes seconds
_SLACK = 1e-6  # float32 errors of means of D and, relative to Q, of D Q
_ROUNDING = 2e-5  # float32 may put a similarity this far above its bound
_TILE_BYTES = 64 << 20  # moments kept at a time, of each of two sets
_BATCH_BYTES = 256 << 10  # pixels compared in one go: temporaries stay in the second-level cache


# Of one picture -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Pictures with their local means and variances.

    Attributes:
        pixels: `(pictures, channels, height, width)` over the data range, less 1/2: covariances
            are differences of products, which lose fewer digits around 0.
        centered: `(pictures, channels, height - 10, width - 10)`, local means of `pixels`.
        mean: the same plus 1/2, local means of pixels in [0, 1].
        energy: squared `mean` plus C1/2.
        variance: local variance plus C2/2.
    """

    pixels: Planes
    centered: Planes
    mean: Planes
    energy: Planes
    variance: Planes

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, chosen: slice | npt.NDArray[np.int64]) -> Moments:
        return Moments(
            self.pixels[chosen],
            self.centered[chosen],
            self.mean[chosen],
            self.energy[chosen],
            self.variance[chosen],
        )


def moments(pictures: Pictures, data_range: float = 255.0) -> Moments:
    """What SSIM needs to know of each picture.

    Args:
        pictures: `(pictures, height, width, channels)`, values from 0 to `data_range`.
    Raises:
        ValueError: another shape, or a side below 11 pixels.
    """
    return _moments_of_planes(_planes(pictures, data_range))


def _planes(pictures: Pictures, data_range: float) -> Planes:
    if pictures.ndim != 4:
        raise ValueError(
            f"Pictures have shape {pictures.shape}; expected (pictures, height, width, channels)."
        )
    if min(pictures.shape[1:3]) < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels, received "
            f"{pictures.shape[1]} x {pictures.shape[2]}. Use larger pictures."
        )
    planes: Planes = np.moveaxis(pictures, -1, 1).astype(np.float32, order="C")
    planes *= np.float32(1.0 / data_range)
    planes -= np.float32(0.5)
    return planes


def _moments_of_planes(pixels: Planes) -> Moments:
    centered = np.ascontiguousarray(_windowed(pixels))
    mean = centered + np.float32(0.5)
    variance = _windowed(pixels * pixels, _C2 / 2) - centered * centered
    return Moments(pixels, centered, mean, mean * mean + np.float32(_C1 / 2), variance)


def _windowed(planes: Planes, plus: float = 0.0) -> Planes:
    """Gaussian mean over every window inside the picture, plus a constant; may be a view."""
    flat = planes.reshape(-1, planes.shape[-1])  # one tall picture: one call of the filter
    filtered = cv2.sepFilter2D(flat, -1, _KERNEL, _KERNEL, delta=plus)
    inside = slice(_BORDER, -_BORDER)  # leaves out the windows across two planes
    view: Planes = np.asarray(filtered, np.float32).reshape(planes.shape)[..., inside, inside]
    return view


# Of a pair ----------------------------------------------------------------------------------------


def ssim(first: Pictures, second: Pictures, data_range: float = 255.0) -> npt.NDArray[np.float64]:
    """SSIM of pictures with pictures.

    Args:
        first, second: `(..., height, width, channels)` of equal shape, from 0 to `data_range`.
    Returns:
        `(...)` in [-1, 1], 1 for equal pictures.
    Raises:
        ValueError: unequal shapes, a side below 11 pixels.
    Source: Wang et al., IEEE TIP 13 (2004), eq. 13; `tf.image.ssim`.
    """
    a, b = _pairs(first, second)
    values = np.array(
        [
            channel_similarities(moments(x[None], data_range), moments(y[None], data_range)).mean()
            for x, y in zip(a, b, strict=True)
        ],
        np.float64,
    )
    return values.reshape(first.shape[:-3])


def ms_ssim(
    first: Pictures,
    second: Pictures,
    data_range: float = 255.0,
    scales: int | None = None,
    *,
    renormalize: bool = True,
) -> npt.NDArray[np.float64]:
    """Multi-scale SSIM: the product of `cs` over scales and of `l * cs` at the coarsest.

    Args:
        first, second: `(..., height, width, channels)` of equal shape, from 0 to `data_range`.
        scales: 1 to 5; None for as many as the pictures allow.
        renormalize: whether the weights of fewer than five scales add up to 1. TensorFlow takes
            the factors it is given as they are.
    Returns:
        `(...)` in [0, 1], 1 for equal pictures; negative terms count as 0.
    Raises:
        ValueError: unequal shapes, more scales than the pictures allow.
    Source: Wang, Simoncelli and Bovik, Asilomar 2003, eq. 7; `tf.image.ssim_multiscale`.
    """
    a, b = _pairs(first, second)
    weights = scale_weights(scales or largest_scales(*a.shape[1:3]), renormalize)
    values = np.array(
        [
            multiscale_similarity(
                pyramid(x, len(weights), data_range), pyramid(y, len(weights), data_range), weights
            )
            for x, y in zip(a, b, strict=True)
        ],
        np.float64,
    )
    return values.reshape(first.shape[:-3])


def _pairs(first: Pictures, second: Pictures) -> tuple[Pictures, Pictures]:
    if first.shape != second.shape or first.ndim < 3:
        raise ValueError(
            "Expected two arrays of one shape (..., height, width, channels), received "
            f"{first.shape} and {second.shape}."
        )
    shape = (-1, *first.shape[-3:])
    return first.reshape(shape), second.reshape(shape)


def channel_similarities(one: Moments, others: Moments) -> Matrix:
    """SSIM of one picture, or of as many as there are others, with each of the others.

    Returns:
        `(others, channels)`; their mean over channels is the SSIM.
    """
    above, below = _contrast_structure(one, others)
    luminance = one.mean * others.mean
    luminance += np.float32(_C1 / 2)
    above *= luminance
    below *= np.add(one.energy, others.energy, out=luminance)
    above /= below
    return np.asarray(4.0 * above.mean(axis=(2, 3)), np.float32)


def contrast_structure(one: Moments, others: Moments) -> Matrix:
    """The part `cs` of SSIM, `(others, channels)`."""
    above, below = _contrast_structure(one, others)
    above /= below
    return np.asarray(2.0 * above.mean(axis=(2, 3)), np.float32)


def _contrast_structure(one: Moments, others: Moments) -> tuple[Planes, Planes]:
    """Numerator and denominator of `cs / 2`."""
    above = _windowed(one.pixels * others.pixels, _C2 / 2)
    below = one.centered * others.centered
    above = np.subtract(above, below)
    return above, np.add(one.variance, others.variance, out=below)


# Several scales -----------------------------------------------------------------------------------


def largest_scales(height: int, width: int) -> int:
    """Scales that pictures of this size allow: the window must fit `2^(scales - 1)` times.

    Raises:
        ValueError: a side below 11 pixels.
    """
    side = min(height, width)
    if side < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels, received "
            f"{height} x {width}. Use larger pictures."
        )
    return min(len(SCALE_WEIGHTS), 1 + int(math.log2(side / WINDOW)))


def scale_weights(scales: int, renormalize: bool = True) -> tuple[float, ...]:
    """The first weights of MS-SSIM; divided by their sum if `renormalize`."""
    if not 1 <= scales <= len(SCALE_WEIGHTS):
        raise ValueError(f"MS-SSIM has 1 to {len(SCALE_WEIGHTS)} scales, not {scales}.")
    weights = SCALE_WEIGHTS[:scales]
    total = math.fsum(weights) if renormalize and scales < len(SCALE_WEIGHTS) else 1.0
    return tuple(weight / total for weight in weights)


def pyramid(picture: Pictures, scales: int, data_range: float = 255.0) -> tuple[Moments, ...]:
    """Moments of one `(height, width, channels)` picture at each scale, finest first.

    Raises:
        ValueError: more scales than the picture allows.
    """
    allowed = largest_scales(*picture.shape[:2])
    if scales > allowed:
        raise ValueError(
            f"Pictures of {picture.shape[0]} x {picture.shape[1]} pixels allow {allowed} scale(s) "
            f"of MS-SSIM, not {scales}: the smaller side must be {WINDOW * 2 ** (scales - 1)} "
            "pixels or more. Use fewer scales."
        )
    planes = _planes(picture[None], data_range)
    levels = [_moments_of_planes(planes)]
    for _ in range(1, scales):
        planes = _halved(planes)
        levels.append(_moments_of_planes(planes))
    return tuple(levels)


def _halved(planes: Planes) -> Planes:
    """Means of 2 x 2 pixels; an odd row or column is doubled, as TensorFlow does."""
    odd = [(0, 0), (0, 0), *((0, side % 2) for side in planes.shape[2:])]
    planes = np.pad(planes, odd, "edge")
    rows = planes[:, :, ::2] + planes[:, :, 1::2]
    return np.ascontiguousarray((rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25))


def multiscale_similarity(
    first: Sequence[Moments], second: Sequence[Moments], weights: Sequence[float]
) -> float:
    """MS-SSIM of two pictures from their pyramids."""
    *finer, coarsest = zip(first, second, strict=True)
    terms = [contrast_structure(a, b) for a, b in finer] + [channel_similarities(*coarsest)]
    powers = [
        np.maximum(term.astype(np.float64), 0.0) ** weight
        for term, weight in zip(terms, weights, strict=True)
    ]
    return float(np.prod(powers, axis=0).mean())


# All pairs ----------------------------------------------------------------------------------------


def without_equal_channels(*sets: Pictures) -> tuple[Pictures, ...]:
    """The sets with one channel where all pictures of all sets are grey: a third of the work.

    SSIM is a mean over channels, so equal channels give the value of one.
    """
    if all((picture == picture[..., :1]).all() for pictures in sets for picture in pictures):
        return tuple(pictures[..., :1] for pictures in sets)
    return sets


def similarity_matrix(
    first: Pictures,
    second: Pictures | None = None,
    data_range: float = 255.0,
    at_least: float = -1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Matrix:
    """SSIM of every picture with every other, on all cores.

    Pairs that an upper bound puts below `at_least` are not computed; at their place stands the
    bound. So the matrix is exact wherever it is `at_least` or above.

    Args:
        first: `(pictures, height, width, channels)`, from 0 to `data_range`.
        second: the same of another set; None for pairs within `first`.
        at_least: the lowest similarity of interest; -1 computes all.
        progress: called with pairs done or ruled out, and all pairs.
    Returns:
        `(first, second)` float32; the diagonal is 1 if `second` is None. Memory: this matrix and
        about 300 MB.
    Raises:
        ValueError: pictures of different sizes, a side below 11 pixels.
    """
    columns = first if second is None else second
    if first.shape[1:] != columns.shape[1:]:
        raise ValueError(
            "SSIM compares pictures of one size: received (height, width, channels) "
            f"{first.shape[1:]} and {columns.shape[1:]}. Resize one set."
        )
    matrix = np.ones((len(first), len(columns)), np.float32)
    if at_least > -1.0 and _worth_pruning(first, columns, data_range, at_least):
        matrix = upper_bounds(first, columns, data_range)
    wanted = matrix >= at_least
    if second is None:
        wanted = np.triu(wanted, 1)

    _fill(matrix, wanted, first, columns, data_range, progress)
    if second is None:
        upper = np.triu(matrix, 1)
        matrix = upper + upper.T
        np.fill_diagonal(matrix, 1.0)
    return matrix


def _worth_pruning(first: Pictures, second: Pictures, data_range: float, at_least: float) -> bool:
    """Whether bounds would rule out a third of the pairs, judged by some; they cost a sixth."""
    if len(first) * len(second) < _FEW_PAIRS:
        return False
    some_first, some_second = (p[:: max(1, len(p) // 16)] for p in (first, second))
    some = upper_bounds(some_first, some_second, data_range)
    return float((some < at_least).mean()) > 1 / 3


def _fill(
    matrix: Matrix,
    wanted: npt.NDArray[np.bool_],
    first: Pictures,
    second: Pictures,
    data_range: float,
    progress: Callable[[int, int], None],
) -> None:
    """Tile by tile, so that the moments of few pictures are in memory and each serves many."""
    pixels = int(np.prod(first.shape[1:])) * 4  # bytes as float32
    side = max(1, _TILE_BYTES // (5 * pixels))
    batch = max(1, _BATCH_BYTES // pixels)
    done = matrix.size - int(wanted.sum())
    with ThreadPoolExecutor() as pool:
        for top in range(0, len(first), side):
            rows = None
            for left in range(0, len(second), side):
                here = wanted[top : top + side, left : left + side]
                if here.any():
                    rows = rows or moments(first[top : top + side], data_range)
                    columns = moments(second[left : left + side], data_range)
                    into = matrix[top : top + side, left : left + side]
                    work = (
                        (rows[i : i + 1], columns, np.flatnonzero(here[i]), into[i], batch)
                        for i in np.flatnonzero(here.any(axis=1))
                    )
                    list(pool.map(_fill_row, *zip(*work, strict=True)))
                    done += int(here.sum())
                progress(done, matrix.size)


def _fill_row(
    one: Moments, others: Moments, chosen: npt.NDArray[np.int64], into: Matrix, batch: int
) -> None:
    for start in range(0, len(chosen), batch):
        some = chosen[start : start + batch]
        run = slice(int(some[0]), int(some[-1]) + 1)
        # neighbours are a view, scattered ones a copy
        compared = others[run if run.stop - run.start == len(some) else some]
        into[some] = channel_similarities(one, compared).mean(axis=1)


# The bound ----------------------------------------------------------------------------------------


def upper_bounds(first: Pictures, second: Pictures, data_range: float = 255.0) -> Matrix:
    """What the SSIM of each pair cannot exceed, at a tenth of its cost.

    With `Q = s_a² + s_b² + C2` and `D = s_a² + s_b² - 2 s_ab`, the variance of the difference, a
    window has `1 - cs = D / Q`. Over a cell of windows the Cauchy-Schwarz inequality gives

        mean(D / Q) >= mean(D)² / mean(D Q)

    and both means are sums of products of something of one picture with something of the other:
    three matrix products for all pairs. Where cs is negative, l < 1 raises `l * cs`, by at most
    1 - l and at most D / (2 Q), for D / Q <= 2; the mean of that comes off. Likewise
    `1 - l * cs >= 1 - l = (m_a - m_b)² / (m_a² + m_b² + C1)`, which is convex in `m_a - m_b` and
    the denominator, so its mean is not below its value at the means (Jensen). The loss of a cell
    is at least the larger of both.

    Args and errors as `similarity_matrix`.
    Returns:
        `(first, second)` float32, each at least the SSIM. On photographs of 128 pixels the median
        distance to it was 0.05 to 0.2.
    """
    windows = [side - WINDOW + 1 for side in first.shape[1:3]]
    loss = np.zeros((len(first), len(second)), np.float32)
    for top in range(0, windows[0], _CELL):
        strip = slice(top, min(top + _CELL, windows[0]) + WINDOW - 1)
        a = moments(first[:, strip], data_range)
        b = a if second is first else moments(second[:, strip], data_range)
        with threadpool_limits(1, "blas"):  # for products this small threads wait, not work
            for left in range(0, windows[1], _CELL):
                for channel in range(first.shape[3]):
                    loss += _cell_loss(_Cell(a, left, channel), _Cell(b, left, channel))
    loss /= float(windows[0] * windows[1] * first.shape[3])
    return np.float32(1.0 + _ROUNDING) - loss


class _Cell:
    """The moments of a cell of windows in one channel, one row for each picture.

    `pixels` has the pixels of all its windows, then the local means: a covariance is a weighted
    sum of products of the former less one of the latter.
    """

    def __init__(self, strip: Moments, left: int, channel: int) -> None:
        width = min(_CELL, strip.mean.shape[3] - left)
        windows = (slice(None), channel, slice(None), slice(left, left + width))
        around = (*windows[:3], slice(left, left + width + WINDOW - 1))
        self._pixels, self._centered = strip.pixels[around], strip.centered[windows]
        self.mean, self.energy = strip.mean[windows], strip.energy[windows]
        self.variance = strip.variance[windows]

    @property
    def size(self) -> int:
        return int(np.prod(self.mean.shape[1:]))

    def values(self) -> Matrix:
        return _rows(self._pixels, self._centered)

    def weighted(self, weights: Planes) -> Matrix:
        """Rows whose products with `values` of another picture are `mean(weights * s_ab)`."""
        beyond = WINDOW - 1
        padded = np.pad(weights, ((0, 0), (beyond, beyond), (beyond, beyond)))
        spread = _windowed(padded)  # the filter's transpose, for the kernel is symmetric
        rows = _rows(spread * self._pixels, -weights * self._centered)
        rows /= self.size
        return rows


def _rows(*planes: Planes) -> Matrix:
    return np.concatenate([part.reshape(len(part), -1) for part in planes], axis=1)


def _cell_loss(a: _Cell, b: _Cell) -> Matrix:
    """A lower bound of the sum of `1 - l * cs` over the windows of a cell."""
    once = np.ones((1, *a.variance.shape[1:]), np.float32)
    left, right = a.values(), b.values()
    covariance = a.weighted(once) @ right.T
    covariance_q = a.weighted(a.variance) @ right.T
    covariance_q += left @ b.weighted(b.variance).T

    va, vb = _rows(a.variance), _rows(b.variance)  # C2/2 included
    q = np.add.outer(va.mean(axis=1), vb.mean(axis=1))
    d: Matrix = q - covariance * 2
    d -= np.float32(_C2 + _SLACK)
    np.maximum(d, 0.0, out=d)
    d *= d
    dq = va @ vb.T  # becomes mean(D Q) = mean(Q²) - C2 mean(Q) - 2 mean(s_ab Q)
    dq /= a.size
    dq -= covariance_q
    dq *= 2
    dq += np.add.outer((va * va).mean(axis=1), (vb * vb).mean(axis=1))
    q *= np.float32(_C2 - _SLACK)
    dq -= q
    d /= np.maximum(dq, np.float32(1e-12), out=dq)

    d -= np.minimum(_most_luminance_loss(a, b), d / 2)
    luminance = np.subtract.outer(_rows(a.mean).mean(axis=1), _rows(b.mean).mean(axis=1))
    luminance *= luminance
    luminance /= np.add.outer(_rows(a.energy).mean(axis=1), _rows(b.energy).mean(axis=1))
    np.maximum(d, luminance, out=d)
    d *= a.size
    return d


def _most_luminance_loss(a: _Cell, b: _Cell) -> Matrix:
    """An upper bound of the mean of `1 - l` over the windows of a cell."""
    left, right = _rows(a.mean), _rows(b.mean)
    squares = np.add.outer((left * left).mean(axis=1), (right * right).mean(axis=1))
    squares *= np.float32(1.0 + 2 * _SLACK)
    apart: Matrix = left @ right.T
    apart *= np.float32(-2.0 / a.size)
    apart += squares
    apart /= np.add.outer(_rows(a.energy).min(axis=1), _rows(b.energy).min(axis=1))
    return apart
