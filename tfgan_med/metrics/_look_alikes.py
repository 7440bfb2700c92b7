"""Pictures that look alike, up to flips, quarter turns and small shifts, on 64 x 64 thumbnails.

The distance of a picture q to a training picture t is the root mean square difference in gray
levels, smallest over the transforms T and the shifts s of up to two thumbnail pixels:

    d(q, t) = min over T, s of rms(window_s(T q) - center(t))

`center` leaves out a border as wide as the largest shift, so that every shift compares the same
number of pixels. The smallest distances of a set are looked for among the candidates that are
closest in 4 x 4 block means; a copy has about the same block means, so it is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med.ops.neighbors import nearest

Thumbnails = npt.NDArray[np.uint8]  # (images, 64, 64)
Groups = npt.NDArray[np.int64]  # (images,) a number for each patient; -1 where there is none
Report = Callable[[int, int], None]

TRANSFORMS: dict[str, tuple[int, ...]] = {"none": (0,), "flips": (0, 1), "all": tuple(range(8))}
"""Transforms by setting: bit 0 mirrors left to right, the rest counts quarter turns after it."""

NEAR = 2.0
"""Near copies differ by less than this in the mean, gray levels of 0..255."""

KEPT = 8  # candidates of each picture that are compared pixel by pixel
_PER_GROUP = 4  # of these from one patient at most, so that another one is there to compare with
_BLOCK = 4  # side of the blocks whose means are searched
_QUERIES = 256  # pictures at a time
_PAIRS = 256  # pairs at a time: 4 MB for each array of float32 thumbnails
_MOST = 64  # candidates asked for at most


@dataclass(frozen=True)
class Candidates:
    """The closest training pictures of each picture, nearest first; rows end in -1 and inf.

    Attributes:
        index: `(images, candidates)` rows of the training set.
        distance: the distances; root mean square gray levels, or cosine distances of features.
    """

    index: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]


@dataclass(frozen=True)
class LookAlikes(Candidates):
    """Candidates compared pixel by pixel.

    Attributes:
        transform: what was done to the picture, see `TRANSFORMS`.
        shift: `(images, candidates, 2)` thumbnail pixels down and right.
        copy: whether the two are near copies, see `is_copy`.
    """

    transform: npt.NDArray[np.int64]
    shift: npt.NDArray[np.int64]
    copy: npt.NDArray[np.bool_]

    @classmethod
    def none(cls, images: int) -> LookAlikes:
        """Rows without a candidate, to be filled."""
        shape = (images, KEPT)
        return cls(
            np.full(shape, -1, np.int64),
            np.full(shape, np.inf),
            np.zeros(shape, np.int64),
            np.zeros((*shape, 2), np.int64),
            np.zeros(shape, np.bool_),
        )


def transform_name(code: int) -> str:
    """`identity`, `flip`, `turn 90`, `flip, turn 90` ..."""
    parts = ["flip"] * (code & 1) + [f"turn {90 * (code >> 1)}"] * (code > 1)
    return ", ".join(parts) or "identity"


def transformed(pictures: npt.NDArray[Any], code: int) -> npt.NDArray[Any]:
    """`(..., side, side)` mirrored and turned; a view."""
    mirrored = pictures[..., ::-1] if code & 1 else pictures
    return np.rot90(mirrored, code >> 1, axes=(-2, -1))


def look_alikes(
    queries: Thumbnails,
    points: Thumbnails,
    *,
    transforms: str = "flips",
    shift: int = 2,
    query_groups: Groups | None = None,
    point_groups: Groups | None = None,
    same: bool = False,
    progress: Report = lambda done, total: None,
) -> LookAlikes:
    """The training pictures that look most like each picture.

    Memory beyond the thumbnails: a kilobyte for each training picture and less than 100 MB. The
    search costs `queries * points` times 9 shifts times transforms multiplications of 225 numbers.

    Args:
        queries, points: `(images, 64, 64)` pictures and training pictures.
        transforms: a key of `TRANSFORMS`.
        shift: thumbnail pixels, 0 to 4.
        query_groups, point_groups: pictures of one patient are not compared; -1 for unknown.
        same: queries are the points; a picture is not compared with itself.
        progress: called with the pictures done and all.
    """
    found = LookAlikes.none(len(queries))
    centers = _block_means(_window(points, shift, 0, 0))
    wanted = candidates_to_ask_for(point_groups, len(points))
    steps = sorted({-shift, 0, shift})
    variants = [(code, y, x) for code in TRANSFORMS[transforms] for y in steps for x in steps]
    for start in range(0, len(queries), _QUERIES):
        block = queries[start : start + _QUERIES]
        rows = np.arange(start, start + len(block))
        coarse = np.stack(
            [
                _block_means(_window(transformed(block, code), shift, y, x))
                for code, y, x in variants
            ],
            axis=1,
        )
        distances, indices = nearest(coarse.reshape(-1, coarse.shape[-1]), centers, wanted)
        codes = np.repeat([code for code, _, _ in variants], wanted)
        pairs = []
        for place, row in enumerate(rows):
            one = slice(place * len(variants), (place + 1) * len(variants))
            index = indices[one].ravel()
            allowed = np.flatnonzero(index != row) if same else np.arange(len(index))
            if query_groups is not None and point_groups is not None and query_groups[row] >= 0:
                allowed = allowed[point_groups[index[allowed]] != query_groups[row]]
            allowed = allowed[np.argsort(distances[one].ravel()[allowed], kind="stable")]
            for point, code in _closest(index[allowed], codes[allowed], point_groups):
                pairs.append((int(row), point, code))
        _compare(found, queries, points, np.array(pairs, np.int64).reshape(-1, 3), shift)
        progress(start + len(block), len(queries))
    return found


def candidates_to_ask_for(point_groups: Groups | None, points: int) -> int:
    """So many that some are left when those of the own patient and the picture itself are not."""
    largest = 0
    if point_groups is not None and (point_groups >= 0).any():
        largest = int(np.bincount(point_groups[point_groups >= 0]).max())
    return min(KEPT + 1 + largest, _MOST, points)


def _closest(
    indices: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], groups: Groups | None
) -> list[tuple[int, int]]:
    """The first different (training picture, transform), not too many of one patient."""
    chosen: list[tuple[int, int]] = []
    pictures: dict[int, int] = {}  # training picture to its patient
    for point, code in zip(indices.tolist(), codes.tolist(), strict=True):
        group = -1 if groups is None else int(groups[point])
        if (point, code) in chosen:
            continue
        if point not in pictures:
            crowded = group >= 0 and sum(g == group for g in pictures.values()) >= _PER_GROUP
            if crowded or len(pictures) == KEPT:
                continue
            pictures[point] = group
        chosen.append((point, code))
        if len(pictures) == KEPT and len(chosen) >= 2 * KEPT:
            break
    return chosen


def _compare(
    found: LookAlikes,
    queries: Thumbnails,
    points: Thumbnails,
    pairs: npt.NDArray[np.int64],
    shift: int,
) -> None:
    """Fill the rows of the queries in `pairs` (query, point, transform)."""
    distance = np.empty(len(pairs))
    shifts = np.empty((len(pairs), 2), np.int64)
    copy = np.empty(len(pairs), np.bool_)
    for start in range(0, len(pairs), _PAIRS):
        part = slice(start, start + _PAIRS)
        distance[part], shifts[part], copy[part] = aligned(
            _transformed_each(queries[pairs[part, 0]], pairs[part, 2]),
            points[pairs[part, 1]],
            shift,
        )
    order = np.lexsort((distance, pairs[:, 0]))
    taken: dict[int, set[int]] = {}
    for place in order.tolist():
        query, point, code = pairs[place].tolist()
        seen = taken.setdefault(query, set())
        if point in seen:
            continue  # the same picture in a worse position
        column = len(seen)
        seen.add(point)
        found.index[query, column] = point
        found.distance[query, column] = distance[place]
        found.transform[query, column] = code
        found.shift[query, column] = shifts[place]
        found.copy[query, column] = copy[place]


def _transformed_each(pictures: Thumbnails, codes: npt.NDArray[np.int64]) -> Thumbnails:
    moved = np.empty_like(pictures)
    for code in np.unique(codes):
        moved[codes == code] = transformed(pictures[codes == code], int(code))
    return moved


def aligned(
    pictures: Thumbnails, others: Thumbnails, shift: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Compare pictures pair by pair at the best shift.

    Args:
        pictures, others: `(pairs, 64, 64)`.
    Returns:
        The root mean square difference `(pairs,)` in gray levels, the shift `(pairs, 2)`, and
        whether the two are near copies there.
    """
    fixed = _window(others, shift, 0, 0).astype(np.float32)
    moving, apart = pictures.astype(np.float32), np.empty_like(fixed)
    best = np.full(len(pictures), np.inf)
    at = np.zeros((len(pictures), 2), np.int64)
    steps = sorted(range(-shift, shift + 1), key=abs)  # the smallest of equally good shifts
    for y in steps:
        for x in steps:
            np.subtract(_window(moving, shift, y, x), fixed, out=apart)
            square = np.einsum("nij,nij->n", apart, apart).astype(np.float64)
            better = square < best
            best[better], at[better] = square[better], (y, x)
    copy = np.zeros(len(pictures), np.bool_)
    pixels = fixed[0].size if len(fixed) else 1
    close = np.flatnonzero(best < (8.0 * NEAR) ** 2 * pixels)  # others are no copies
    if len(close):
        moved = np.stack([_window(pictures[i], shift, *at[i]) for i in close])
        copy[close] = is_copy(moved, _window(others[close], shift, 0, 0))
    return np.sqrt(best / pixels), at, copy


def is_copy(pictures: Thumbnails, others: Thumbnails) -> npt.NDArray[np.bool_]:
    """Near copies: equal difference hashes and a mean absolute difference below 2 of 255.

    The difference hash has a bit for each of 8 x 8 places: whether the gray level rises to the
    right. Two bits count as different only if the rises differ by 1 gray level or more: in the
    black border of an X-ray the bit is chance. Hash or mean difference alone would call flat
    pictures copies.

    Args:
        pictures, others: `(pairs, side, side)`, at their best shift.
    Source: N. Krawetz, hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html.
    """
    apart = np.abs(pictures.astype(np.int16) - others).mean(axis=(1, 2))
    first, second = _rises(pictures), _rises(others)
    different = ((first > 0) != (second > 0)) & (abs(first - second) >= 1.0)
    return np.asarray((apart < NEAR) & ~different.any(axis=(1, 2)), np.bool_)


def _rises(pictures: Thumbnails) -> npt.NDArray[np.float64]:
    """`(images, 8, 8)`: changes of gray level between horizontal neighbors of 8 x 9 means."""
    side = pictures.shape[-1]
    cells = np.einsum("yi,nij,xj->nyx", _means(8, side), pictures, _means(9, side), optimize=True)
    return np.asarray(np.diff(cells, axis=2), np.float64)


def _means(parts: int, side: int) -> npt.NDArray[np.float64]:
    """`(parts, side)`: weights of the means of equal parts of a line, border pixels by area."""
    edges = np.linspace(0, side, parts + 1)
    pixel = np.arange(side)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights: npt.NDArray[np.float64] = np.clip(covered, 0, 1) * (parts / side)
    return weights


def _window(pictures: npt.NDArray[Any], border: int, y: int, x: int) -> npt.NDArray[Any]:
    """The inner part, moved by (y, x); a view."""
    side = pictures.shape[-1] - 2 * border
    return pictures[..., border + y : border + y + side, border + x : border + x + side]


def _block_means(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """`(images, blocks)`, scaled so that Euclidean distances bound the rms from below."""
    side = pictures.shape[-1] // _BLOCK
    cut = pictures[:, : side * _BLOCK, : side * _BLOCK]
    means = np.empty((len(cut), side * side), np.float32)
    for start in range(0, len(cut), 1024):
        part = cut[start : start + 1024].astype(np.float32)
        blocks = part.reshape(-1, side, _BLOCK, side, _BLOCK).mean(axis=(2, 4))
        means[start : start + 1024] = blocks.reshape(-1, side * side) / side
    return means


def numbered(names: Sequence[str] | None, known: dict[str, int]) -> Groups | None:
    """Patients as numbers, the same number for the same name; empty names are unknown."""
    if names is None:
        return None
    return np.array([known.setdefault(n, len(known)) if n else -1 for n in names], np.int64)
