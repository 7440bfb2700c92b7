"""Neighbours and ball counts equal the definition, whatever the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.ops import neighbors
from tfgan_med.ops.neighbors import counts_within, mutual_counts_within, nearest

Vectors = npt.NDArray[Any]
Pair = tuple[Vectors, Vectors]
METRICS: list[neighbors.Metric] = ["euclidean", "cosine"]


def distances(x: Vectors, y: Vectors) -> npt.NDArray[np.float64]:
    """The definition, pair by pair: float64 sums of squared differences."""
    points = y.astype(np.float64)
    return np.sqrt([np.square(points - row).sum(axis=1) for row in x.astype(np.float64)])


def by_definition(x: Vectors, y: Vectors, k: int, exclude_self: bool = False) -> Pair:
    table = distances(x, y)
    if exclude_self:
        np.fill_diagonal(table, np.inf)
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def gaussian() -> Pair:
    draw = generator().standard_normal
    return draw((300, 33)).astype(np.float32), draw((400, 33)).astype(np.float32)


def far_from_the_origin() -> Pair:
    draw = generator().standard_normal
    return 1e4 + 1e-3 * draw((200, 20)), 1e4 + 1e-3 * draw((260, 20))


def far_from_the_origin_in_float32() -> Pair:
    x, y = far_from_the_origin()
    return x.astype(np.float32), y.astype(np.float32)  # steps of 1e-3: ties and copies


def integer_grid() -> Pair:
    draw = generator().integers
    return draw(0, 4, (200, 3)).astype(np.float32), draw(0, 4, (350, 3)).astype(np.float32)


def tight_clusters_far_apart() -> Pair:
    rng = generator()
    centers = 100 * rng.standard_normal((4, 50))
    x, y = (centers[rng.integers(0, 4, n)] for n in (250, 350))
    return x + 1e-4 * rng.standard_normal(x.shape), y + 1e-4 * rng.standard_normal(y.shape)


def copies_in_order() -> Pair:
    rows = generator().standard_normal((5, 40))
    return np.repeat(rows, 50, axis=0), np.repeat(rows, 70, axis=0)


def copies_in_turn() -> Pair:
    rows = generator().standard_normal((5, 40))
    return np.tile(rows, (50, 1)), np.tile(rows, (70, 1))


def constant() -> Pair:
    return np.full((200, 7), 0.1), np.full((300, 7), 0.1)


def zeros() -> Pair:
    return np.zeros((200, 7)), np.zeros((300, 7))


def one_tight_group_among_outliers() -> Pair:
    rng = generator()
    x = np.concatenate([1e-6 * rng.standard_normal((150, 40)), 100 * rng.standard_normal((50, 40))])
    return x, x[::-1] + 1e-7 * rng.standard_normal(x.shape)


def bytes_of_pictures() -> Pair:
    draw = generator().integers
    return draw(0, 256, (150, 64), np.uint8), draw(0, 256, (200, 64), np.uint8)


def huge_numbers() -> Pair:
    x, y = gaussian()
    return 1e30 * x, 1e30 * y


def tiny_numbers() -> Pair:
    x, y = gaussian()
    return 1e-30 * x.astype(np.float64), 1e-30 * y.astype(np.float64)


def nearer_from_tile_to_tile() -> Pair:
    line = np.linspace(10.0, 1.0, 600)[:, None]
    return np.zeros((80, 3)), line * np.ones((1, 3))


CASES: list[Callable[[], Pair]] = [
    gaussian, far_from_the_origin, far_from_the_origin_in_float32, integer_grid,
    tight_clusters_far_apart, copies_in_order, copies_in_turn, constant, zeros,
    one_tight_group_among_outliers, bytes_of_pictures, huge_numbers, tiny_numbers,
    nearer_from_tile_to_tile,
]  # fmt: skip


@pytest.fixture(params=[1024, 64], ids=["one tile", "many tiles"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(neighbors, "_TILE", request.param)
    return int(request.param)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_of_the_definition(
    case: Callable[[], Pair], k: int, tile: int
) -> None:
    x, y = case()
    for found, expected in (
        (nearest(x, y, k), by_definition(x, y, k)),
        (nearest(y, y, k), by_definition(y, y, k)),
        (nearest(y, y, k, exclude_self=True), by_definition(y, y, k, exclude_self=True)),
        (nearest(y, y.copy(), k, exclude_self=True), by_definition(y, y, k, exclude_self=True)),
    ):
        np.testing.assert_array_equal(found[0], expected[0])  # to the last bit
        np.testing.assert_array_equal(found[1], expected[1])
        assert found[0].dtype == np.float64
        assert found[1].dtype == np.int64


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("strict", [True, False])
def test_counts_are_those_of_the_definition(
    case: Callable[[], Pair], strict: bool, tile: int
) -> None:
    x, y = case()
    table = distances(x, y)
    x_radii = by_definition(x, x, 3, exclude_self=True)[0][:, -1]
    y_radii = table.min(axis=0)  # each ball ends exactly at a query
    inside = np.less if strict else np.less_equal
    in_x, in_y = inside(table, x_radii[:, None]), inside(table, y_radii)

    around_x, around_y = mutual_counts_within(x, x_radii, y, y_radii, strict=strict)
    np.testing.assert_array_equal(around_x.balls, in_x.sum(axis=0))
    np.testing.assert_array_equal(around_x.queries, in_x.sum(axis=1))
    np.testing.assert_array_equal(around_y.balls, in_y.sum(axis=1))
    np.testing.assert_array_equal(around_y.queries, in_y.sum(axis=0))

    one_way = counts_within(y, y_radii, x, strict=strict)
    np.testing.assert_array_equal(one_way.balls, around_y.balls)
    np.testing.assert_array_equal(one_way.queries, around_y.queries)


def test_a_ball_around_everything_holds_everything() -> None:
    x, y = gaussian()
    within = counts_within(x, np.full(len(x), 1e30), y)
    assert (within.balls == len(x)).all()
    assert (within.queries == len(y)).all()


def test_the_nearest_of_high_dimensional_float32_features() -> None:
    draw = np.random.default_rng(3).standard_normal
    x = np.maximum(draw((150, 2048)) + 0.3, 0).astype(np.float32)
    y = np.maximum(draw((200, 2048)) + 0.3, 0).astype(np.float32)
    found, expected = nearest(x, y, 4), by_definition(x, y, 4)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_ties_go_to_the_smaller_row() -> None:
    points = np.array([[1.0], [-1.0], [1.0], [2.0], [-1.0]])
    found, rows = nearest(np.zeros((1, 1)), points, 4)
    np.testing.assert_array_equal(rows, [[0, 1, 2, 4]])
    np.testing.assert_array_equal(found, [[1.0, 1.0, 1.0, 1.0]])


def test_golden_neighbours(golden: Mapping[str, Vectors]) -> None:
    points = golden["in/nn/small/train"]
    for queries in ("gen", "heldout"):
        for metric in METRICS:
            found, rows = nearest(golden[f"in/nn/small/{queries}"], points, 2, metric=metric)
            reference = f"ref/nn/small/sklearn.{metric}_{queries}"
            np.testing.assert_array_equal(rows, golden[f"{reference}_index"])
            np.testing.assert_allclose(found, golden[f"{reference}_dist"], rtol=1e-6, atol=1e-6)


def test_cosine_ignores_length_and_a_multiple_by_two_is_a_copy() -> None:
    x = gaussian()[0]
    found, rows = nearest(2 * x, x, 1, metric="cosine")
    np.testing.assert_array_equal(found, 0.0)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(x)))
    right_angle = nearest(np.array([[1.0, 0.0]]), np.array([[0.0, 3.0]]), 1, metric="cosine")
    assert right_angle[0][0, 0] == pytest.approx(1.0)


def test_a_memory_mapped_array_gives_the_same(tmp_path: Path) -> None:
    x, y = gaussian()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for found, expected in (
        (nearest(mapped, mapped, 3, exclude_self=True), nearest(x, x, 3, exclude_self=True)),
        (nearest(mapped, y, 3), nearest(x, y, 3)),
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_progress_counts_tiles(tile: int) -> None:
    seen: list[tuple[int, int]] = []
    x, y = gaussian()
    nearest(x, y, 1, progress=lambda done, total: seen.append((done, total)))
    tiles = -(-len(x) // tile) * -(-len(y) // tile)
    assert seen == [(done, tiles) for done in range(1, tiles + 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((3, 2)), np.ones((3, 2)), 4), "among 3 points"),
        ((np.ones((3, 2)), np.ones((3, 2)), 0), "0 nearest"),
        ((np.ones((3, 2)), np.ones((3, 4)), 1), "2 and 4"),
        ((np.ones(3), np.ones((3, 2)), 1), "received (3,)"),
        ((np.ones((3, 2)), np.array([[1.0, np.nan]]), 1), "second set hold numbers"),
        ((np.array([[1.0, np.inf]]), np.ones((3, 2)), 1), "first set hold numbers"),
    ],
)
def test_requests_that_cannot_be_answered_are_refused(
    arguments: tuple[Vectors, Vectors, int], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        nearest(*arguments)
    assert message in str(caught.value)


def test_self_is_no_neighbour_so_k_must_be_smaller() -> None:
    with pytest.raises(ValueError, match="among 2 points"):
        nearest(np.ones((3, 2)), np.ones((3, 2)), 3, exclude_self=True)
    with pytest.raises(ValueError, match="4 queries and 3 points"):
        nearest(np.ones((4, 2)), np.ones((3, 2)), 1, exclude_self=True)


def test_a_vector_without_direction_has_no_cosine() -> None:
    with pytest.raises(ValueError, match="no direction"):
        nearest(np.ones((3, 2)), np.zeros((1, 2)), 1, metric="cosine")


def test_radii_must_fit() -> None:
    for radii in (np.ones(2), np.array([1.0, np.nan, 1.0])):
        with pytest.raises(ValueError, match="3 finite radii"):
            counts_within(np.ones((3, 2)), radii, np.ones((1, 2)))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peak memory")
def test_memory_does_not_grow_with_the_number_of_vectors(tmp_path: Path) -> None:
    """The distance matrix alone would take 1.2 GB as float64."""
    count = 12_000
    features = np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", dtype=np.float32, shape=(count, 48)
    )
    features[:] = np.random.default_rng(0).standard_normal(features.shape)
    nearest(features[:3000], features[:3000], 5)  # threads and libraries have started
    before = peak_megabytes(reset=True)
    radii = nearest(features, features, 5, exclude_self=True)[0][:, -1]
    counts_within(features, radii, features)
    assert peak_megabytes() - before < 250


def peak_megabytes(reset: bool = False) -> float:
    """Largest resident size since the last reset."""
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pytest.skip("the peak of this process cannot be reset")
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
