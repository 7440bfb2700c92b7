"""Exact nearest neighbours and ball counts between two sets of vectors.

"Exact" means: every answer equals that of float64 sums of squared differences, the definition.
These would cost minutes, so most pairs are judged by the expanded form `|x|² + |y|² - 2 x·y`, a
matrix product, whose error has a proven bound; the few pairs that the bound leaves open are
judged by the definition. NumPy only; tiles of the distance matrix are spread over threads, and
memory beyond the inputs stays below 250 MB whatever their size.

The bound, with unit roundoff u and d features (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., section 3.1). A common centre is taken off first, which changes no distance
but shortens the vectors. Rounding them moves a squared distance by at most `2.1 u (|x| + |y|)²`,
the product adds `2 |x||y| d u / (1 - d u)` in whatever order it sums, putting the three terms
together `6 u (|x| + |y|)²`. With `(|x| + |y|)² <= 2 (|x|² + |y|²)` all of it is below

    (|x|² + |y|²) u (d / (1 - d u) + 20).

For d = 2048 in float32 that is 1.2e-4: a handful of the candidates of a neighbour stay open. Where
they are many (tight clusters far apart, copies), the tile is judged again in float64.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import threadpoolctl  # comes with scikit-learn

Vectors = npt.NDArray[Any]  # (vectors, features), any real type; may be memory-mapped
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]  # tiles done, tiles in all
Metric = Literal["euclidean", "cosine"]
Task = TypeVar("Task")

_TILE = 1024  # side of a tile of the distance matrix
_BLOCK_BYTES = 2**23  # of one side's float32 vectors
_BLOCKS_KEPT = 16
_PAIR_BYTES = 2**22  # of differences taken at once
_WORKERS = 4  # each holds a tile and copies of it
_FAR = 1e38  # beyond every squared distance in a scaled space, and below infinity in float32


class Within(NamedTuple):
    """Who lies in whose ball.

    Attributes:
        balls: `(queries,)`, how many balls hold each query.
        queries: `(points,)`, how many queries each ball holds.
    """

    balls: Indices
    queries: Indices


# What others call ---------------------------------------------------------------------------------


def nearest(
    queries: Vectors,
    points: Vectors,
    k: int,
    *,
    exclude_self: bool = False,
    metric: Metric = "euclidean",
    progress: Progress | None = None,
) -> tuple[Floats, Indices]:
    """The k nearest points of each query, exactly.

    Args:
        queries: `(queries, features)`. Given the same array as `points`, each pair is computed
            once.
        points: `(points, features)`.
        k: neighbours of each query.
        exclude_self: whether row i of `points` is no neighbour of query i; both must be the same
            set. Copies of a vector in other rows remain neighbours, at distance 0.
        metric: `euclidean`, or `cosine` for 1 - cos, which is half the squared Euclidean distance
            of the vectors scaled to length 1.
        progress: called with tiles done and all.
    Returns:
        Distances `(queries, k)`, ascending, and rows of `points` `(queries, k)`. Of equal
        distances the smaller row comes first. A copy has distance 0, not about 0.
    Raises:
        ValueError: shapes that do not fit, fewer points than k, a number that is not finite, a
            vector of length 0 with `cosine`.
    """
    available = len(points) - exclude_self
    if not 1 <= k <= available:
        raise ValueError(
            f"{k} nearest neighbours were asked for among {available} points. Choose k from 1 to "
            f"{available}, or give more points."
        )
    same = queries is points
    if exclude_self and len(queries) != len(points):
        raise ValueError(
            f"exclude_self compares a set with itself, but there are {len(queries)} queries and "
            f"{len(points)} points."
        )
    space = _Space(queries, points, unit=metric == "cosine")
    best = [_Best(space, block, k) for block in range(space.blocks(0))]

    def search(tile: tuple[int, int]) -> None:
        row, column = tile
        low = space.lower_bounds(row, column, np.float32, exclude_self)
        best[row].look(column, low, exclude_self)
        if same and row != column:
            best[column].look(row, np.ascontiguousarray(low.T), exclude_self)

    _each(search, space.tiles(half=same), progress)
    _each(lambda block: block.finish(), best)
    squared = np.concatenate([block.squared for block in best])
    indices = np.concatenate([block.indices for block in best])
    return (squared / 2.0 if metric == "cosine" else np.sqrt(squared)), indices


def counts_within(
    points: Vectors,
    radii: Floats,
    queries: Vectors,
    *,
    strict: bool = True,
    progress: Progress | None = None,
) -> Within:
    """Which queries lie in balls around the points, counted exactly.

    Args:
        points: `(points, features)`, the centres.
        radii: `(points,)`, not negative.
        queries: `(queries, features)`.
        strict: inside is `distance < radius`; else `distance <= radius`.
        progress: called with tiles done and all.
    Raises:
        ValueError: as `nearest`.
    """
    nowhere = np.full(len(queries), -1.0)
    return mutual_counts_within(points, radii, queries, nowhere, strict=strict, progress=progress)[
        0
    ]


def mutual_counts_within(
    first: Vectors,
    first_radii: Floats,
    second: Vectors,
    second_radii: Floats,
    *,
    strict: bool = True,
    progress: Progress | None = None,
) -> tuple[Within, Within]:
    """Both ways in one sweep: the second set in balls around the first, and the reverse.

    Args and errors as `counts_within`. A ball of negative radius is empty.
    """
    space = _Space(first, second)
    radii = [_checked_radii(first_radii, first), _checked_radii(second_radii, second)]
    totals = [np.zeros((2, len(vectors)), np.int64) for vectors in (first, second)]
    lock = threading.Lock()

    def count(tile: tuple[int, int]) -> None:
        rows, columns = space.span(0, tile[0]), space.span(1, tile[1])
        judge = _Judge(space, *tile, strict)
        around_rows = judge.inside(radii[0][rows, None])
        around_columns = judge.inside(radii[1][None, columns])
        with lock:
            for way, (in_rows, in_columns) in enumerate((around_rows, around_columns)):
                totals[0][way, rows] += np.bincount(in_rows, minlength=rows.stop - rows.start)
                totals[1][way, columns] += np.bincount(
                    in_columns, minlength=columns.stop - columns.start
                )

    _each(count, space.tiles(), progress)
    return (
        Within(balls=totals[1][0], queries=totals[0][0]),
        Within(balls=totals[0][1], queries=totals[1][1]),
    )


# Distances, bounded and exact ---------------------------------------------------------------------


class _Space:
    """Two sets of vectors, cut into blocks, with a common centre and scale.

    Bounds are in units of the scaled space; `scale` is a power of two, so scaling is exact.
    """

    def __init__(self, first: Vectors, second: Vectors, unit: bool = False) -> None:
        for vectors in (first, second):
            if vectors.ndim != 2 or not vectors.size:
                raise ValueError(f"Expected (vectors, features), received {vectors.shape}.")
        if first.shape[1] != second.shape[1]:
            raise ValueError(
                f"Both sets need as many features: received {first.shape[1]} and {second.shape[1]}."
            )
        self.sets = (first, second)
        self.unit = unit
        self.features = first.shape[1]
        self.side = int(np.clip(_BLOCK_BYTES // (4 * self.features), 64, _TILE))
        self.same = first is second
        self.scale, self.center = self._frame()
        self._kept: dict[tuple[int, int], tuple[Vectors, Floats]] = {}
        self._lock = threading.Lock()

    def _frame(self) -> tuple[float, npt.NDArray[np.float32]]:
        """Scale to about 1 and the common mean; float32, so that taking it off rounds once."""
        total, largest, count = np.zeros(self.features), 0.0, 0
        for which in (0,) if self.same else (0, 1):
            for block in range(self.blocks(which)):
                rows = self.vectors(which, self.span(which, block), native=True)
                total += rows.sum(axis=0, dtype=np.float64)
                largest = max(largest, float(rows.max()), -float(rows.min()))
                count += len(rows)
                if not np.isfinite(total).all():
                    raise ValueError(
                        f"Vectors {self.span(which, block).start} to "
                        f"{self.span(which, block).stop - 1} of the "
                        f"{('first', 'second')[which]} set hold numbers that are not finite."
                    )
        exponent = -np.frexp(largest)[1] if largest else 0
        scale = float(2.0 ** np.clip(exponent, -100, 100))
        return scale, (total / count * scale).astype(np.float32)

    def blocks(self, which: int) -> int:
        """How many blocks a set has."""
        return -(-len(self.sets[which]) // self.side)

    def span(self, which: int, block: int) -> slice:
        """Rows of a block."""
        return slice(block * self.side, min((block + 1) * self.side, len(self.sets[which])))

    def tiles(self, half: bool = False) -> list[tuple[int, int]]:
        """Pairs of blocks, in an order in which most blocks are found among those kept."""
        near = _BLOCKS_KEPT // 2 - 1
        pairs = [
            (row, column)
            for row in range(self.blocks(0))
            for column in range(row if half else 0, self.blocks(1))
        ]
        return sorted(pairs, key=lambda pair: (pair[0] // near, pair[1] // near, *pair))

    def vectors(self, which: int, rows: Any, native: bool = False) -> Vectors:
        """Some rows as they are compared: float64, of length 1 for cosines."""
        chosen = np.asarray(self.sets[which][rows])
        if native and not self.unit:
            return chosen
        chosen = chosen.astype(np.float64)
        if self.unit:
            lengths = np.sqrt(np.square(chosen).sum(axis=1, keepdims=True))
            if not lengths.all():
                number = np.arange(len(self.sets[which]))[rows][int(lengths.argmin())]
                raise ValueError(
                    f"Vector {number} of the {('first', 'second')[which]} set is all zeros and has "
                    "no direction. Use the Euclidean distance, or remove empty pictures."
                )
            chosen /= lengths
        return chosen

    def block(self, which: int, block: int, dtype: Any) -> tuple[Vectors, Floats]:
        """Centred, scaled vectors and their squared lengths."""
        if dtype != np.float32:
            return self._centred(which, block, dtype)
        key = (0 if self.same else which, block)
        with self._lock:
            found = self._kept.pop(key, None)
        found = found or self._centred(*key, dtype)
        with self._lock:
            self._kept[key] = found  # now the last in order; the first goes
            if len(self._kept) > _BLOCKS_KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def _centred(self, which: int, block: int, dtype: Any) -> tuple[Vectors, Floats]:
        rows = self.vectors(which, self.span(which, block), native=True)
        once = rows.dtype if rows.dtype == dtype == np.float32 else np.float64
        centred = rows.astype(once)
        centred *= self.scale
        centred -= self.center
        centred = np.ascontiguousarray(centred, dtype)
        return centred, np.einsum("ij,ij->i", centred, centred, dtype=np.float64)

    def margin(self, dtype: Any) -> float:
        """Error of a squared distance over `|x|² + |y|²`; see the head of this file."""
        unit, reference = np.finfo(dtype).eps / 2, np.finfo(np.float64).eps / 2
        # Once more for the float64 sums of differences, which round as well.
        own = self.features / (1 - self.features * unit) + 20
        return float(unit * own + 4 * reference * (self.features + 20))

    def slack(self, rows: Floats, columns: Floats, dtype: Any) -> Floats:
        """Bound of the error, from squared lengths; products below 1e-38 may vanish."""
        slack: Floats = self.margin(dtype) * (rows + columns) + 1e-34 * self.features
        return slack

    def approximate(self, row: int, column: int, dtype: Any) -> Vectors:
        """Tile of squared distances by the expanded form, `(rows, columns)`."""
        return self._tile(row, column, dtype, 1.0)

    def lower_bounds(self, row: int, column: int, dtype: Any, exclude_self: bool) -> Vectors:
        """Tile of lower bounds of squared distances; infinite between a vector and itself."""
        tile = self._tile(row, column, dtype, 1.0 - self.margin(dtype))
        if exclude_self and row == column:
            np.fill_diagonal(tile, np.inf)
        return tile

    def _tile(self, row: int, column: int, dtype: Any, factor: float) -> Vectors:
        x, x_squared = self.block(0, row, dtype)
        y, y_squared = self.block(1, column, dtype)
        tile: Vectors = x @ y.T
        tile *= -2.0
        tile += (factor * x_squared).astype(dtype)[:, None]
        tile += (factor * y_squared).astype(dtype)
        return tile

    def squared(self, rows: Indices, columns: Indices) -> Floats:
        """Squared distances of pairs by the definition, in the units of the input."""
        result = np.empty(len(rows))
        step = max(1, _PAIR_BYTES // (8 * self.features))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            difference = self.vectors(0, rows[part])
            difference -= self.vectors(1, columns[part], native=True)
            result[part] = np.square(difference, out=difference).sum(axis=1)
        return result


# Nearest neighbours -------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Candidates: row in the block of queries, row of points, bounds of the squared distance."""

    row: Indices
    point: Indices
    low: Floats
    high: Floats


def _joined(first: _Pairs, second: _Pairs) -> _Pairs:
    return _Pairs(
        np.concatenate([first.row, second.row]),
        np.concatenate([first.point, second.point]),
        np.concatenate([first.low, second.low]),
        np.concatenate([first.high, second.high]),
    )


class _Best:
    """The candidates for the k nearest points of one block of queries."""

    def __init__(self, space: _Space, block: int, k: int) -> None:
        self.space, self.block, self.k = space, block, k
        self.span = space.span(0, block)
        self.count = self.span.stop - self.span.start
        self.ceiling = np.full(self.count, _FAR)  # the k-th squared distance is not above
        self.last = np.zeros(self.count, np.int64)  # largest row of the k points that prove it
        none = np.empty(0, np.int64)
        self.pairs = _Pairs(none, none, np.empty(0), np.empty(0))
        self.lock = threading.Lock()

    def look(self, column: int, low: Vectors, exclude_self: bool) -> None:
        """Take up a tile: by float32 bounds, if these say too little by float64, then exactly."""
        found = self._candidates(column, low)
        crowd = 8 * self.k * self.count
        if len(found.row) > crowd:
            low = self.space.lower_bounds(self.block, column, np.float64, exclude_self)
            found = self._candidates(column, low)
        if len(found.row) > crowd:
            found = self._settled(found)
        with self.lock:
            self.pairs, self.ceiling, self.last = self._kept(_joined(self.pairs, found))

    def _candidates(self, column: int, low: Vectors) -> _Pairs:
        """Pairs of a tile that may be among the k nearest."""
        space, dtype = self.space, low.dtype
        rows = space.block(0, self.block, dtype)[1]
        columns = space.block(1, column, dtype)[1]
        start = space.span(1, column).start
        with self.lock:
            copied = (self.ceiling == 0.0) & (self.last < start)  # nothing nearer in later rows
            ceiling = np.where(copied, -_FAR, self.ceiling)
        passing = low <= _upward(ceiling, dtype)[:, None]
        if low.shape[1] >= self.k and np.count_nonzero(passing) > 4 * self.k * self.count:
            kth = np.partition(low, self.k - 1, axis=1)[:, self.k - 1].astype(np.float64)
            ceiling = np.minimum(ceiling, kth + 2 * space.slack(rows, columns.max(), dtype))
            passing = low <= _upward(ceiling, dtype)[:, None]
        row, point = _where(passing)
        bound = low[row, point].astype(np.float64)
        high = bound + 2 * space.slack(rows[row], columns[point], dtype)
        return self._kept(_Pairs(row, point + start, np.maximum(bound, 0.0), high))[0]

    def _settled(self, found: _Pairs) -> _Pairs:
        """Crowds that no product can tell apart are near copies: compare them by differences.

        Nothing is nearer than a copy, so k copies in the lowest rows end the search of a query.
        """
        order = np.lexsort((found.point, found.row))
        row, point = found.row[order], found.point[order]
        early = _rank(row) < 2 * self.k
        squared = np.full(len(row), np.inf)
        squared[early] = self._exact(row[early], point[early])
        copies = np.bincount(row[squared == 0.0], minlength=self.count)
        rest = ~early & (copies < self.k)[row]
        squared[rest] = self._exact(row[rest], point[rest])
        known = early | rest
        exact = squared[known] * self.space.scale**2
        return self._kept(_Pairs(row[known], point[known], exact, exact))[0]

    def _kept(self, pairs: _Pairs) -> tuple[_Pairs, Floats, Indices]:
        """Drop who cannot be among the k nearest: k others are nearer, or as near in lower rows.

        Also returns the bound of the k-th squared distance, and the largest row of the k points
        that prove it.
        """
        order = np.lexsort((pairs.point, pairs.high, pairs.row))
        row, point = pairs.row[order], pairs.point[order]
        low, high = pairs.low[order], pairs.high[order]
        rank = _rank(row)
        leading, kth = rank < self.k, rank == self.k - 1
        ceiling, last = np.full(self.count, _FAR), np.zeros(self.count, np.int64)
        ceiling[row[kth]] = high[kth]
        np.maximum.at(last, row[leading], point[leading])

        tie = (low == ceiling[row]) & (point < last[row])
        kept = leading | tie | (low < ceiling[row])
        return _Pairs(row[kept], point[kept], low[kept], high[kept]), ceiling, last

    def _exact(self, row: Indices, point: Indices) -> Floats:
        return self.space.squared(row + self.span.start, point)

    def finish(self) -> None:
        """Judge the last candidates by the definition; sets `squared` and `indices`."""
        squared = self._exact(self.pairs.row, self.pairs.point)
        order = np.lexsort((self.pairs.point, squared, self.pairs.row))
        first = order[_rank(self.pairs.row[order]) < self.k]
        self.squared = squared[first].reshape(self.count, self.k)
        self.indices = self.pairs.point[first].reshape(self.count, self.k)


def _rank(row: Indices) -> Indices:
    """Position within its group of each entry of a sorted array."""
    starts = np.searchsorted(row, row, side="left")
    return np.arange(len(row)) - starts


def _upward(values: Floats, dtype: Any) -> Vectors:
    """Values as `dtype`, not below what they were."""
    above: Vectors = np.nextafter(np.minimum(values, _FAR).astype(dtype), dtype.type(np.inf))
    return above


def _where(mask: npt.NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """`np.nonzero` of a tile; ten times as fast where little is true."""
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column


# Balls --------------------------------------------------------------------------------------------


class _Judge:
    """Tells which pairs of a tile are closer than given radii."""

    def __init__(self, space: _Space, row: int, column: int, strict: bool) -> None:
        self.space, self.row, self.column, self.strict = space, row, column, strict
        self.tile = space.approximate(row, column, np.float32)
        self.lengths = (
            space.block(0, row, np.float32)[1][:, None],
            space.block(1, column, np.float32)[1][None, :],
        )

    def inside(self, radii: Floats) -> tuple[Indices, Indices]:
        """Rows and columns within the tile of the pairs inside.

        Args:
            radii: `(rows, 1)` or `(1, columns)`: of the balls around one side.
        """
        empty = (radii <= 0.0) if self.strict else (radii < 0.0)
        squared = np.where(empty, -np.inf, np.square(radii * self.space.scale))
        # A bound for all pairs of a ball first: comparing with one number per ball is fast.
        rows_squared, columns_squared = (
            length if length.shape == radii.shape else length.max(keepdims=True)
            for length in self.lengths
        )
        slack = self.space.slack(rows_squared, columns_squared, np.float32)
        reach = np.minimum(squared + slack, _FAR)
        rows, columns = _where(self.tile <= _upward(reach, self.tile.dtype))

        radii = np.broadcast_to(radii, self.tile.shape)[rows, columns]
        squared = np.square(radii * self.space.scale)
        inside, open_ = self._judged(self.tile, rows, columns, squared)
        if len(open_) > 32 * self.space.side:
            tile = self.space.approximate(self.row, self.column, np.float64)
            chosen = (rows[open_], columns[open_], squared[open_])
            inside[open_], still = self._judged(tile, *chosen)
            open_ = open_[still]
        inside[open_] = self._by_differences(rows[open_], columns[open_], radii[open_])
        return rows[inside], columns[inside]

    def _judged(
        self, tile: Vectors, rows: Indices, columns: Indices, squared: Floats
    ) -> tuple[npt.NDArray[np.bool_], Indices]:
        """Which pairs are surely inside, and which remain open."""
        lengths = (self.lengths[0][rows, 0], self.lengths[1][0, columns])
        slack = self.space.slack(*lengths, tile.dtype)
        above = tile[rows, columns].astype(np.float64) - squared
        return above < -slack, np.flatnonzero(np.abs(above) <= slack)

    def _by_differences(
        self, rows: Indices, columns: Indices, radii: Floats
    ) -> npt.NDArray[np.bool_]:
        starts = self.space.span(0, self.row).start, self.space.span(1, self.column).start
        distances = np.sqrt(self.space.squared(rows + starts[0], columns + starts[1]))
        return distances < radii if self.strict else distances <= radii


def _checked_radii(radii: Floats, points: Vectors) -> Floats:
    radii = np.asarray(radii, np.float64)
    if radii.shape != (len(points),) or not np.isfinite(radii).all():
        raise ValueError(
            f"Expected {len(points)} finite radii, one for each point; received an array of shape "
            f"{radii.shape}."
        )
    return radii


# Threads ------------------------------------------------------------------------------------------


def _each(
    work: Callable[[Task], None], tasks: Sequence[Task], progress: Progress | None = None
) -> None:
    """Do the tasks in threads, BLAS running in one thread for each: tiles share no work."""
    if len(tasks) == 1:
        work(tasks[0])
        if progress:
            progress(1, 1)
        return
    threads = _blas_threads()
    workers = min(threads, _WORKERS, len(tasks))
    limits = _libraries().limit(limits=threads // workers, user_api="blas")
    with limits, ThreadPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(work, tasks), 1):
            if progress:
                progress(done, len(tasks))


@functools.cache
def _libraries() -> Any:
    return threadpoolctl.ThreadpoolController()


def _blas_threads() -> int:
    """As many as the user allows BLAS; all cores if it does not tell (Apple's Accelerate)."""
    allowed = [entry["num_threads"] for entry in _libraries().info() if entry["user_api"] == "blas"]
    return max(allowed, default=os.cpu_count() or 1)
