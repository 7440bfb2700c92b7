"""Results carry their protocol; features are computed once and for the right picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.errors import UserError
from tfgan_med.metrics.base import (
    FeatureCache,
    Interval,
    Result,
    extract,
    key_of,
    require_comparable,
)

Array = npt.NDArray[Any]

RESULT = Result(
    metric="fid",
    value=12.5,
    protocol="ttur",
    extractor="inception-2015",
    weights_sha256="ab" * 32,
    dimension=2048,
    count_real=100,
    count_fake=100,
    image_size=(64, 64),
    color="rgb",
    value_range=(0.0, 255.0),
    real="real",
    fake="fake",
    interval=Interval(11.0, 14.0, 0.95, "method", 50),
)


@dataclass
class Means:
    """An extractor that counts: its feature is the mean color of a picture."""

    identity: str = "means"
    dimension: int = 3
    seen: list[int] = field(default_factory=list)

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        for picture in pictures:
            self.seen.append(int(picture[0, 0, 0]))
            yield picture.mean(axis=(0, 1)).astype(np.float32)


def picture(value: int) -> Array:
    return np.full((4, 4, 3), value, np.uint8)


def test_a_result_is_json_with_all_that_it_depends_on() -> None:
    stored = json.loads(json.dumps(RESULT.to_json()))
    assert stored["image_size"] == [64, 64]
    assert stored["interval"]["high"] == 14.0
    assert {"protocol", "weights_sha256", "count_real", "color", "seed", "version"} <= set(stored)


def test_results_of_one_protocol_and_size_are_comparable() -> None:
    require_comparable(RESULT, replace(RESULT, value=3.0, fake="other"))


@pytest.mark.parametrize(
    ("name", "value"), [("protocol", "clean"), ("count_fake", 50), ("weights_sha256", "cd" * 32)]
)
def test_results_that_mean_different_things_are_not_compared(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        require_comparable(RESULT, replace(RESULT, **{name: value}))


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
    assert features.shape == (3, 3)


def test_another_extractor_does_not_see_the_features_of_the_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    extract(Means("one"), [picture(1)], 2, cache)
    other = Means("two")
    extract(other, [picture(1)], 2, cache)
    assert other.seen == [1]


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_a_damaged_cache_file_counts_as_absent(tmp_path: Path, damage: bytes | None) -> None:
    cache = FeatureCache(tmp_path)
    extract(Means(), [picture(1)], 2, cache)
    stored = next(path for path in tmp_path.rglob("*.npy") if "keys" not in path.name)
    stored.write_bytes(stored.read_bytes()[:-4] if damage is None else damage)
    network = Means()
    extract(network, [picture(1)], 2, cache)
    assert network.seen == [1]


def test_the_oldest_features_go_when_the_cache_is_full(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit=1000)
    for value in range(20):
        extract(Means(), [picture(value)], 2, cache)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 1000
    newest = Means()
    extract(newest, [picture(19)], 2, cache)
    assert newest.seen == []


def test_the_key_tells_shape_and_type_apart() -> None:
    flat = np.zeros((2, 8, 3), np.uint8)
    keys = {key_of(flat), key_of(flat.reshape(4, 4, 3)), key_of(flat.astype(np.int8))}
    assert len(keys) == 3


def test_no_pictures_give_no_features() -> None:
    assert extract(Means(), [], 2).shape == (0, 3)
