"""Principal components of more pictures than memory holds.

Pictures come as blocks of rows, which may be read several times; a block at a time becomes float32.
Three back ends find the same components:

- `exact`: the centred matrix in memory, eigenvectors of the smaller of `X Xᵀ` and `XᵀX`.
- `gram`: the same matrix of products, summed up from blocks; float32 products, float64 sums.
- `sketch`: subspace iteration (Halko, Martinsson and Tropp, arXiv:0909.4061, algorithm 4.4) with a
  Rayleigh-Ritz step. Time is linear in the number of pictures. It starts not from noise but from
  the components of a random sample of pictures, which also tells how many columns the wanted
  share of variance will take; a few random columns find what the sample has not seen.

Components are centred and not whitened; the largest loading of each is positive. A picture of
uint8 counts as value / 255.

NumPy and SciPy only.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tfgan_med.errors import UserError

Backend = Literal["auto", "exact", "gram", "sketch"]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]  # (rows, d) uint8 or float

_BLOCK_BYTES = 2**26  # of float32 rows at a time; their products then dwarf all else
_LARGEST_GRAM = 12_000  # side of a matrix of products that can be had
_QUICK_GRAM = 3_200  # side up to which its eigenvectors cost less than a sketch is inexact
_SAMPLE = 2048  # pictures that the sketch starts from
_POWER_PASSES = 2
_NO_RANK = 1e-11  # eigenvalues below this share of the largest are rounding, of float64 products
_NO_RANK_SINGLE = 1e-6  # of float32 products
_SLACK = 1e-12  # of a share of variance, from float64 products
_SLACK_SINGLE = 1e-6  # from float32 products


class Blocks(Protocol):
    """Pictures as rows, a block at a time, in the same order whenever they are iterated."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and numbers per row, `(N, d)`."""

    def __iter__(self) -> Iterator[Rows]:
        """Blocks `(rows, d)` of uint8, which count as value / 255, or of float32."""


@dataclass(frozen=True)
class ArrayBlocks:
    """Blocks of an array `(N, ...)`, in memory or memory-mapped; a row is a picture flattened.

    Pages of a mapped file are given back after each block, so that reading does not fill memory.
    """

    array: Rows
    block_bytes: int = _BLOCK_BYTES // 4

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and numbers per row, `(N, d)`."""
        return len(self.array), int(np.prod(self.array.shape[1:]))

    def __iter__(self) -> Iterator[Rows]:
        """Views, not copies."""
        count, width = self.shape
        step = max(1, self.block_bytes // max(1, width * self.array.itemsize))
        for start in range(0, count, step):
            yield self.array[start : start + step].reshape(-1, width)
            _release(self.array)


@dataclass(frozen=True)
class Components:
    """Directions of largest variance.

    Attributes:
        mean: `(d,)` float64, in units of the pictures (uint8: [0, 1]).
        axes: `(p, d)` float32, orthonormal rows; the loading of largest magnitude is positive.
        variances: `(p,)` float64, descending; divisor N - 1.
        total_variance: of all d directions together.
        explained: share of it that the p components hold, 0 to 1.
        backend: which one found them.
    """

    mean: Floats
    axes: Singles
    variances: Floats
    total_variance: float
    explained: float
    backend: str

    def transform(self, rows: Rows) -> Floats:
        """Scores `(n, p)` of pictures `(n, d)`, uint8 or float."""
        scale = _scale_of(rows.dtype)
        center = (self.mean / scale).astype(np.float32)
        scores = np.empty((len(rows), len(self.axes)))
        step = max(1, _BLOCK_BYTES // (4 * len(center)))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            scores[part] = np.subtract(rows[part], center, dtype=np.float32) @ self.axes.T
        scores *= scale
        return scores


def fit(
    blocks: Blocks,
    variance: float = 0.90,
    components: int | None = None,
    backend: Backend = "auto",
    memory_mb: int = 2048,
    seed: int = 0,
) -> tuple[Components, Floats]:
    """Find principal components and the scores of all pictures.

    `auto` takes `exact` where the pictures fill at most half of the memory as float32 and the
    shorter side of their matrix is at most 3200, `gram` where only the latter holds and the
    pictures outnumber their numbers or are few, and `sketch` else.

    Args:
        blocks: pictures as rows.
        variance: the smallest number of components that hold at least this share of the variance
            is kept, 0 < share <= 1.
        components: keep this many instead.
        backend: see the head of this file.
        memory_mb: about what may be taken beside the result; decides the back end, and the largest
            number of components of `sketch`.
        seed: of the sketch.
    Returns:
        The components, and scores `(N, p)` float64.
    Raises:
        UserError: no such share or number, more components than the pictures have, a number that
            is not finite, more components than memory holds.
        ValueError: blocks that are not of the announced shape.
    """
    count, width = blocks.shape
    wanted = _Wanted(variance, components)
    wanted.check(count, width)
    memory = memory_mb * 2**20
    chosen = _choice(count, width, memory) if backend == "auto" else backend
    if chosen == "exact":
        found = _exact(blocks, wanted, single=8 * count * width > memory // 2)
    elif chosen == "gram":
        found = _gram(blocks, wanted, memory)
    else:
        found = _sketch(blocks, wanted, memory, np.random.default_rng(seed))
    return _finished(found, chosen)


def _choice(count: int, width: int, memory: int) -> Backend:
    if min(count, width) > _QUICK_GRAM:
        return "sketch"
    if 4 * count * width <= memory // 2:
        return "exact"
    # Products of many long rows need the pictures over and over, as panels that fit in memory.
    return "gram" if width <= count or 4 * count * width <= 4 * memory else "sketch"


# How many components ------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """A share of the variance, or a number of components."""

    variance: float
    components: int | None

    def check(self, count: int, width: int) -> None:
        """Refuse what cannot be, with the numbers."""
        if not count or not width:
            raise UserError(f"No pictures to analyze: received {count} rows of {width} numbers.")
        if not 0.0 < self.variance <= 1.0:
            raise UserError(
                f"variance: {self.variance:g} is not a share of the variance. Choose above 0 and "
                "up to 1, such as 0.9."
            )
        most = max(1, min(count - 1, width))
        if self.components is not None and not 1 <= self.components <= most:
            raise UserError(
                f"components: {self.components} were asked for, but {count} pictures of {width} "
                f"numbers have at most {most}. Choose 1 to {most}, or a share of the variance."
            )

    def number(self, variances: Floats, total: float, slack: float = _SLACK) -> int | None:
        """How many of these components are kept; None if they are too few.

        Args:
            variances: descending.
            total: of all directions.
            slack: of the share, for rounding.
        """
        if self.components is not None:
            return self.components if self.components <= len(variances) else None
        shares = np.cumsum(variances) / total
        reached = np.flatnonzero(shares >= self.variance - slack)
        return int(reached[0]) + 1 if len(reached) else None

    def number_or_all(self, variances: Floats, total: float, slack: float = _SLACK) -> int:
        """`number` where no more components can be had."""
        number = self.number(variances, total, slack)
        if number is not None:
            return number
        if self.components is not None:
            raise UserError(
                f"components: {self.components} were asked for, but the pictures differ in only "
                f"{len(variances)} directions; many may be copies of each other. Choose at most "
                f"{len(variances)}, or a share of the variance."
            )
        return len(variances)  # a share of 1, less rounding


class _Found(NamedTuple):
    """Components before signs are fixed; numbers are in units of the blocks."""

    mean: Floats
    axes: Rows  # (p, d)
    variances: Floats
    total: float
    scores: Floats
    scale: float  # of a block's numbers


def _finished(found: _Found, backend: str) -> tuple[Components, Floats]:
    largest = np.abs(found.axes).argmax(axis=1)
    signs = np.where(found.axes[np.arange(len(found.axes)), largest] < 0, -1.0, 1.0)
    axes = np.ascontiguousarray(found.axes, np.float32)
    axes *= signs[:, None].astype(np.float32)
    scores = found.scores
    scores *= signs * found.scale
    shares = found.variances.sum() / found.total if found.total else 1.0
    components = Components(
        mean=found.mean * found.scale,
        axes=axes,
        variances=found.variances * found.scale**2,
        total_variance=found.total * found.scale**2,
        explained=min(float(shares), 1.0),
        backend=backend,
    )
    return components, scores


def _no_variance(mean: Floats, count: int, scale: float) -> _Found:
    """Pictures that are all the same still have one score, 0."""
    axes = np.zeros((1, len(mean)))
    axes[0, 0] = 1.0
    return _Found(mean, axes, np.zeros(1), 0.0, np.zeros((count, 1)), scale)


# In memory ----------------------------------------------------------------------------------------


def _exact(blocks: Blocks, wanted: _Wanted, single: bool) -> _Found:
    """`single`: in float32, where float64 would take too much memory."""
    values, scale = _stacked(blocks, np.dtype(np.float32 if single else np.float64))
    mean = np.zeros(values.shape[1])
    for part in _parts(values):
        mean += part.sum(axis=0, dtype=np.float64)
    mean /= len(values)
    values -= mean.astype(values.dtype)
    if not values.any():
        return _no_variance(mean, len(values), scale)

    variances, vectors, total = _spectrum(values)
    slack = _SLACK_SINGLE if single else _SLACK
    number = wanted.number_or_all(variances, total, slack)
    variances, vectors = variances[:number], vectors[:, :number]
    if len(values) > values.shape[1]:
        scores = np.asarray(values @ vectors.astype(values.dtype), np.float64)
        return _Found(mean, vectors.T, variances, total, scores, scale)
    lengths = np.sqrt(variances * (len(values) - 1))
    axes = (vectors / lengths).T.astype(values.dtype) @ values
    return _Found(mean, axes, variances, total, vectors * lengths, scale)


def _stacked(blocks: Blocks, dtype: np.dtype[Any]) -> tuple[Rows, float]:
    values, scale = np.empty(blocks.shape, dtype), 1.0
    for start, rows in _checked(blocks):
        values[start : start + len(rows)] = rows
        scale = _scale_of(rows.dtype)
    return values, scale


def _spectrum(values: Rows) -> tuple[Floats, Floats, float]:
    """Variances, eigenvectors of the smaller matrix of products, and the total variance.

    Args:
        values: `(n, d)`, centred.
    Returns:
        Descending variances `(rank,)`; eigenvectors `(min(n, d), rank)` of `X Xᵀ` if n <= d, else
        of `XᵀX`; the total variance.
    """
    wide = len(values) <= values.shape[1]
    products = np.zeros((min(values.shape),) * 2)
    for part in _parts(values.T if wide else values):
        products += part.T @ part
    return _eigen(
        products, len(values), _NO_RANK if values.dtype == np.float64 else _NO_RANK_SINGLE
    )


def _eigen(products: Floats, count: int, no_rank: float) -> tuple[Floats, Floats, float]:
    total = float(np.trace(products)) / (count - 1)
    eigenvalues, vectors = np.linalg.eigh(products)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    rank = min(int(np.sum(eigenvalues > no_rank * eigenvalues[0])), count - 1)
    return eigenvalues[:rank] / (count - 1), vectors[:, :rank], total


def _parts(values: Rows) -> Iterator[Rows]:
    """A few rows at a time: float32 sums over them are then added in float64."""
    step = max(1, _BLOCK_BYTES // (4 * values.shape[1]))
    for start in range(0, len(values), step):
        yield values[start : start + step]


# Blocks -------------------------------------------------------------------------------------------


def _scale_of(dtype: np.dtype[Any]) -> float:
    return 1 / 255 if dtype == np.uint8 else 1.0


def _release(array: Rows) -> None:
    """Give back the pages of a mapped file; they stay in the system's cache, not in the process."""
    mode: str | None = None
    base: Any = array
    while isinstance(base, np.ndarray):
        mode = getattr(base, "mode", mode)
        base = base.base
    # Not for copy-on-write, whose changes are in these pages alone.
    if isinstance(base, mmap.mmap) and mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _checked(blocks: Blocks) -> Iterator[tuple[int, Rows]]:
    """First row and rows of each block, large blocks in parts."""
    count, width = blocks.shape
    step = max(1, _BLOCK_BYTES // (4 * width))
    start, dtype = 0, None
    for block in blocks:
        dtype = dtype or block.dtype
        if block.ndim != 2 or block.shape[1] != width or block.dtype != dtype:
            raise ValueError(
                f"Expected blocks (rows, {width}) of {dtype}, received {block.shape} of "
                f"{block.dtype}."
            )
        for first in range(0, len(block), step):
            rows = block[first : first + step]
            if rows.dtype != np.uint8 and not np.isfinite(rows).all():
                wrong = start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
                raise UserError(
                    f"Row {wrong} of {count} holds a number that is not finite. Check that picture "
                    "and the network its features come from."
                )
            yield start, rows
            start += len(rows)
    if start != count:
        raise ValueError(f"Expected {count} rows in all blocks together, received {start}.")


class _Centred:
    """A stream of centred float32 blocks; one buffer serves them all."""

    def __init__(self, blocks: Blocks, sampled: npt.NDArray[np.int64] | None = None) -> None:
        """One pass for mean and total variance, in which the sampled rows are kept as well."""
        self.blocks = blocks
        self.shape = blocks.shape
        count, width = self.shape
        chosen = np.zeros(0, np.int64) if sampled is None else sampled
        self.sample = np.empty((len(chosen), width), np.float32)
        self.scale, squares, shift = 1.0, 0.0, np.zeros(width, np.float32)
        total = np.zeros(width)
        for start, rows in _checked(blocks):
            if not start:  # near the mean, so that nothing cancels in the sum of squares
                shift = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
                self.scale = _scale_of(rows.dtype)
            here = slice(*np.searchsorted(chosen, (start, start + len(rows))))
            self.sample[here] = rows[chosen[here] - start]
            shifted = np.subtract(rows, shift, dtype=np.float32)
            total += np.ones(len(rows), np.float32) @ shifted
            squares += float(np.einsum("ij,ij->i", shifted, shifted).sum(dtype=np.float64))
        offset = total / count
        self.mean = offset + shift
        self.center = self.mean.astype(np.float32)
        self.sample -= self.center
        self.total = max(0.0, squares - count * float(offset @ offset)) / max(1, count - 1)

    def __iter__(self) -> Iterator[tuple[int, Singles]]:
        """First row, and the block, which holds until the next one is asked for."""
        count, width = self.shape
        buffer = np.empty((min(count, max(1, _BLOCK_BYTES // (4 * width))), width), np.float32)
        for start, rows in _checked(self.blocks):
            yield start, np.subtract(rows, self.center, out=buffer[: len(rows)])


# Products, streamed -------------------------------------------------------------------------------


def _gram(blocks: Blocks, wanted: _Wanted, memory: int) -> _Found:
    count, width = blocks.shape
    if min(count, width) > _LARGEST_GRAM:
        raise UserError(
            f"The back end `gram` takes up to {_LARGEST_GRAM} pictures or numbers per picture; "
            f"received {count} pictures of {width} numbers. Use `sketch`."
        )
    stream = _Centred(blocks)
    if not stream.total:
        return _no_variance(stream.mean, count, stream.scale)
    wide = count <= width
    products = _row_products(stream, memory) if wide else _column_products(stream)
    variances, vectors, total = _eigen(products, count, _NO_RANK_SINGLE)
    number = wanted.number_or_all(variances, total, _SLACK_SINGLE)
    variances, vectors = variances[:number], vectors[:, :number]
    if not wide:
        return _Found(
            stream.mean, vectors.T, variances, total, _scores(stream, vectors), stream.scale
        )
    lengths = np.sqrt(variances * (count - 1))
    weights = (vectors / lengths).T.astype(np.float32)
    axes = np.zeros((number, width), np.float32)
    for start, rows in stream:
        axes += weights[:, start : start + len(rows)] @ rows
    return _Found(stream.mean, axes, variances, total, vectors * lengths, stream.scale)


def _column_products(stream: _Centred) -> Floats:
    """`XᵀX`, one pass."""
    products = np.zeros((stream.shape[1],) * 2)
    for _, rows in stream:
        products += rows.T @ rows
    return products


def _row_products(stream: _Centred, memory: int) -> Floats:
    """`X Xᵀ`, one pass for each panel of rows that fits in memory."""
    count, width = stream.shape
    products = np.zeros((count, count))
    panel = np.empty((min(count, max(1, memory // (16 * width))), width), np.float32)
    for first in range(0, count, len(panel)):
        last = min(first + len(panel), count)
        for start, rows in stream:
            stop = start + len(rows)
            if stop <= first:
                continue
            begin, end = max(start, first), min(stop, last)
            if begin < end:
                panel[begin - first : end - first] = rows[begin - start : end - start]
            known = min(stop, last)  # of the panel; later rows meet these when their turn comes
            part = rows[begin - start :] @ panel[: known - first].T
            products[begin:stop, first:known] = part
            products[first:known, begin:stop] = part.T
    return products


def _scores(stream: _Centred, vectors: Floats) -> Floats:
    scores = np.empty((stream.shape[0], vectors.shape[1]))
    single = vectors.astype(np.float32)
    for start, rows in stream:
        scores[start : start + len(rows)] = rows @ single
    return scores


# Sketch -------------------------------------------------------------------------------------------


def _sketch(blocks: Blocks, wanted: _Wanted, memory: int, rng: np.random.Generator) -> _Found:
    count, width = blocks.shape
    size = min(count, _SAMPLE, max(2, memory // (16 * width)))
    stream = _Centred(blocks, np.sort(rng.choice(count, size, replace=False)))
    if not stream.total:
        return _no_variance(stream.mean, count, stream.scale)
    columns = _Columns(stream, wanted, memory)
    basis = columns.started(rng)
    passes = 0
    while passes < _POWER_PASSES:
        before = basis.shape[1]
        variances, basis = _iterated(stream, basis)
        passes += 1
        wider = columns.enough(variances)
        exhausted = basis.shape[1] < before  # random columns found nothing that was not known
        if wider > before and not exhausted:
            basis = _extended(basis, wider, rng)
            passes = 0
    return _projected(stream, basis, wanted)


class _Columns:
    """How many columns a sketch has: more than components, for the last ones converge slowly."""

    def __init__(self, stream: _Centred, wanted: _Wanted, memory: int) -> None:
        self.stream = stream
        self.wanted = wanted
        count, width = stream.shape
        self.complete = max(1, min(count - 1, width))
        self.affordable = max(16, memory // (12 * (count + width)))

    def started(self, rng: np.random.Generator) -> Singles:
        """The components of the sample, and some random columns."""
        sample = self.stream.sample
        sample -= sample.mean(axis=0)
        width, variances, axes = sample.shape[1], np.zeros(0), np.zeros((sample.shape[1], 0))
        if sample.any():
            variances, vectors, _ = _spectrum(sample)
            share = 1.0 - 0.8 * (1.0 - self.wanted.variance)  # a sample promises too much
            aim = self.wanted._replace(variance=share).number(variances, float(variances.sum()))
            number = min(len(variances), aim or len(variances))
            vectors = vectors[:, :number].astype(np.float32)
            axes = sample.T @ vectors if len(sample) <= width else vectors
        self.stream.sample = sample[:0]
        wide = self.margin(max(axes.shape[1], self.wanted.components or 1))
        return _extended(_orthonormal(axes.astype(np.float32)), self.allowed(wide), rng)

    @staticmethod
    def margin(components: int) -> int:
        """Columns for so many components."""
        return components + max(10, components // 6)

    def enough(self, variances: Floats) -> int:
        """Columns needed, judged by the variances that those at hand found."""
        number = self.wanted.number(variances, self.stream.total, _SLACK_SINGLE)
        if len(variances) >= self.complete:
            return len(variances)
        return self.allowed(self.margin(number) if number else 2 * len(variances), number or 0)

    def allowed(self, columns: int, components: int = 0) -> int:
        """Not more than there are; not more than memory holds.

        Args:
            columns: wanted.
            components: that are needed in any case.
        """
        columns = min(columns, self.complete)
        if columns <= self.affordable:
            return columns
        if 0 < components <= self.affordable:
            return self.affordable
        count, width = self.stream.shape
        goal = (
            f"{self.wanted.components} components"
            if self.wanted.components
            else f"{self.wanted.variance:.0%} of the variance"
        )
        raise UserError(
            f"{goal} of {count} pictures of {width} numbers need more than the "
            f"{self.affordable} components that fit in memory. Make the pictures smaller for this "
            "analysis (`--pca-size 32`), lower the share of variance, or fix fewer components."
        )


def _iterated(stream: _Centred, basis: Singles) -> tuple[Floats, Singles]:
    """One multiplication by the covariance: variances within the basis, and the next basis."""
    count = stream.shape[0]
    inner = np.zeros((basis.shape[1],) * 2)
    powered = np.zeros_like(basis)
    for _, rows in stream:
        scores = rows @ basis
        powered += rows.T @ scores
        inner += scores.T @ scores
    variances, rotation, _ = _eigen(inner, count, 0.0)
    # Rotated to its own components, the new basis is nearly orthogonal before it is made so.
    return variances, _orthonormal(powered @ rotation.astype(np.float32))


def _orthonormal(columns: Singles) -> Singles:
    """An orthonormal basis of the columns, fewer where they depend on each other.

    By eigenvectors of their products, twice, as the first time leaves errors of float32; several
    times as fast as Householder's reflections for tall matrices.
    """
    for _ in range(2):
        if not columns.shape[1]:
            break
        lengths = np.sqrt(np.einsum("ij,ij->j", columns, columns, dtype=np.float64))
        columns = columns[:, lengths > 0] / lengths[lengths > 0].astype(np.float32)
        values, vectors = np.linalg.eigh((columns.T @ columns).astype(np.float64))
        kept = values > _NO_RANK_SINGLE * values[-1]
        columns = columns @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    return columns


def _extended(basis: Singles, columns: int, rng: np.random.Generator) -> Singles:
    """The basis and as many random columns as are missing."""
    missing = columns - basis.shape[1]
    if missing <= 0:
        return np.ascontiguousarray(basis[:, :columns])
    drawn = rng.standard_normal((len(basis), missing), np.float32)
    drawn -= basis @ (basis.T @ drawn)
    return np.concatenate([basis, _orthonormal(drawn)], axis=1)


def _projected(stream: _Centred, basis: Singles, wanted: _Wanted) -> _Found:
    """Components within the basis (Rayleigh-Ritz) and scores, one pass."""
    count = stream.shape[0]
    raw = np.empty((count, basis.shape[1]), np.float32)
    inner = np.zeros((basis.shape[1],) * 2)
    for start, rows in stream:
        part = np.matmul(rows, basis, out=raw[start : start + len(rows)])
        inner += part.T @ part
    variances, rotation, _ = _eigen(inner, count, _NO_RANK_SINGLE)
    number = wanted.number_or_all(variances, stream.total, _SLACK_SINGLE)
    rotation = rotation[:, :number]
    scores = np.empty((count, number))
    for start in range(0, count, 4096):
        scores[start : start + 4096] = raw[start : start + 4096].astype(np.float64) @ rotation
    axes = (basis @ rotation.astype(np.float32)).T
    return _Found(stream.mean, axes, variances[:number], stream.total, scores, stream.scale)
