"""Features are computed once, for the right picture, in bounded memory, and not lost."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.errors import UserError
from tfgan_med.networks import feature_cache
from tfgan_med.networks.feature_cache import FeatureCache, extract, key_of

Array = npt.NDArray[Any]


@dataclass
class Means:
    """An extractor that counts: its feature is the mean color of a picture."""

    identity: str = "means"
    dimension: int = 3
    width: int = 3
    seen: list[int] = field(default_factory=list)

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        for picture in pictures:
            self.seen.append(int(picture[0, 0, 0]))
            yield picture.mean(axis=(0, 1)).astype(np.float32)


@dataclass
class Wide:
    """An extractor of many numbers: the picture's first value, counted upwards."""

    identity: str = "wide"
    dimension: int = 2048
    width: int = 3056

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        counting = np.arange(self.width, dtype=np.float32)
        for picture in pictures:
            yield counting + np.float32(picture[0])


def picture(value: int) -> Array:
    return np.full((4, 4, 3), value, np.uint8)


def numbers(count: int) -> Iterator[Array]:
    return (np.array([value], np.int64) for value in range(count))


# What goes through the network --------------------------------------------------------------------


def test_features_come_in_the_order_of_the_pictures() -> None:
    features = extract(Means(), map(picture, (5, 1, 5, 9)), 2)
    np.testing.assert_array_equal(features[:, 0], [5, 1, 5, 9])


def test_only_new_pictures_go_through_the_network(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    extract(Means(), map(picture, (1, 2, 2, 3)), 2, cache)
    network = Means()
    features = extract(network, map(picture, (3, 4, 1)), 2, cache)
    assert network.seen == [4]
    np.testing.assert_array_equal(features[:, 0], [3, 4, 1])


def test_copies_within_a_set_are_computed_once(tmp_path: Path) -> None:
    network = Means()
    features = extract(network, map(picture, (7, 7, 7)), 2, FeatureCache(tmp_path))
    assert network.seen == [7]
    np.testing.assert_array_equal(features, np.full((3, 3), 7.0))


def test_another_extractor_does_not_see_the_features_of_the_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    extract(Means("one"), [picture(1)], 2, cache)
    other = Means("two")
    extract(other, [picture(1)], 2, cache)
    assert other.seen == [1]


def test_the_key_tells_shape_and_type_apart() -> None:
    flat = np.zeros((2, 8, 3), np.uint8)
    keys = {key_of(flat), key_of(flat.reshape(4, 4, 3)), key_of(flat.astype(np.int8))}
    assert len(keys) == 3


@pytest.mark.parametrize("count", [None, 0, 5])
def test_no_pictures_give_no_features(count: int | None) -> None:
    assert extract(Means(), [], 2, count=count).shape == (0, 3)


@pytest.mark.parametrize("count", [None, 1, 100, 1000])
def test_a_wrong_count_changes_nothing(count: int | None) -> None:
    features = extract(Means(), map(picture, range(100)), 8, count=count)
    np.testing.assert_array_equal(features[:, 0], np.arange(100))


# Interruption -------------------------------------------------------------------------------------


def failing_after(count: int) -> Iterator[Array]:
    yield from map(picture, range(count))
    raise OSError("the disk was pulled")


def test_an_interrupted_pass_keeps_its_work(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    with pytest.raises(OSError, match="pulled"):
        extract(Means(), failing_after(10), 4, cache)
    again = Means()
    features = extract(again, map(picture, range(12)), 4, cache)
    assert again.seen == [10, 11]
    np.testing.assert_array_equal(features[:, 0], np.arange(12))


def test_a_pass_that_is_killed_loses_at_most_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "BLOCK", 8)
    cache = FeatureCache(tmp_path)

    def watched() -> Iterator[Array]:
        for value in range(20):
            yield picture(value)
        assert len(cache.read(Means())) == 16  # before anything can clean up

    extract(Means(), watched(), 4, cache)
    assert len(cache.read(Means())) == 20


# Memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 300])
def test_a_result_in_a_file_equals_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    in_memory = extract(Wide(), numbers(300), 8, count=count)
    assert not isinstance(in_memory, np.memmap)
    monkeypatch.setattr(feature_cache, "IN_MEMORY", 100 * 4 * 3056)
    cache = FeatureCache(tmp_path)
    for _ in ("computed", "from the cache"):
        mapped = extract(Wide(), numbers(300), 8, cache, count)
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, in_memory)
    names = [path.suffix for path in tmp_path.rglob("*") if path.is_file()]
    assert names == [".npy", ".npy"]  # the file of the result has no name to be left behind


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
def test_fifty_thousand_wide_rows_take_less_than_400_mb_of_memory() -> None:
    """Anonymous memory, sampled: mapped files can be dropped by the system at any time."""

    def anonymous() -> float:
        text = Path("/proc/self/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    before, most, stop = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        features = extract(Wide(), numbers(50_000), 64, count=50_000)
    finally:
        stop.set()
        thread.join()
    assert features.shape == (50_000, 3056)
    assert features[49_999, 7] == 50_006.0
    assert most[0] - before < 400


def test_a_full_disk_is_said_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "IN_MEMORY", 1000)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    network = Means()
    with pytest.raises(UserError, match=r"1000 pictures need 0\.0 GB of disk \(No space left"):
        extract(network, map(picture, (1, 2)), 2, FeatureCache(tmp_path), count=1000)
    assert network.seen == []


def test_fifty_thousand_stored_keys_are_read_in_less_than_a_second(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    keys = [value.to_bytes(32, "big") for value in range(50_000)]
    cache.add(Means(), keys, np.arange(150_000, dtype=np.float32).reshape(-1, 3))
    start = time.perf_counter()
    stored = cache.read(Means())
    assert time.perf_counter() - start < 1.0
    np.testing.assert_array_equal(stored[keys[49_999]], [149_997, 149_998, 149_999])


# The folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_a_damaged_cache_file_counts_as_absent(tmp_path: Path, damage: bytes | None) -> None:
    cache = FeatureCache(tmp_path)
    extract(Means(), [picture(1)], 2, cache)
    stored = next(path for path in tmp_path.rglob("*.npy") if "keys" not in path.name)
    stored.write_bytes(stored.read_bytes()[:-4] if damage is None else damage)
    network = Means()
    extract(network, [picture(1)], 2, cache)
    assert network.seen == [1]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_oldest_features_go_when_the_cache_is_full(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit=1000)
    for value in range(20):
        extract(Means(), [picture(value)], 2, cache)
        time.sleep(0.002)  # file times are that coarse
    assert size_of(tmp_path) <= 1000
    newest = Means()
    extract(newest, [picture(19)], 2, cache)
    assert newest.seen == []


def test_what_a_killed_process_left_behind_goes_after_an_hour(tmp_path: Path) -> None:
    folder = tmp_path / "0123"
    folder.mkdir()
    long_ago = time.time() - 7200
    for name, age in (("orphan.npy", long_ago), (".x.npy.ab.tmp", long_ago), ("new.npy", None)):
        (folder / name).write_bytes(b"0" * 10)
        if age:
            os.utime(folder / name, (age, age))
    extract(Means(), [picture(1)], 2, FeatureCache(tmp_path))
    assert [path.name for path in folder.iterdir()] == ["new.npy"]


def test_the_default_cache_takes_at_most_a_tenth_of_the_free_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_cache, "_free_space", lambda folder: 10**9)
    assert FeatureCache.default().limit == 10**8
    monkeypatch.setattr(feature_cache, "_free_space", lambda folder: 10**12)
    assert FeatureCache.default().limit == 4 * 10**9


def fill(folder: Path, first: int) -> None:
    """What one of two processes does: add and trim all the time."""
    cache = FeatureCache(folder, limit=20_000)
    for value in range(first, first + 200, 2):
        features = extract(Means(), map(picture, (value, value // 2)), 2, cache)
        assert features[:, 0].tolist() == [value, value // 2]


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    """Values are checked in both; a broken file or a failing trim would end one with an error."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, first)) for first in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert size_of(tmp_path) <= 30_000  # the limit, and what the other was adding meanwhile
    assert not list(tmp_path.rglob("*.tmp"))
    network = Means()
    extract(network, map(picture, (198, 199)), 2, FeatureCache(tmp_path))
    assert len(network.seen) < 2
