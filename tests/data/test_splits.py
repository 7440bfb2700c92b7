"""Splits keep groups whole and classes in proportion, and depend on ids and seed only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfgan_med.data import splits
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Part, Record
from tfgan_med.errors import UserError


def items(
    count: int, classes: int = 1, group_size: int | None = None, root: str = "/data"
) -> ImageSet:
    records = tuple(
        Record(
            f"{n:04}.png",
            {"images": Part(Path(root) / f"{n:04}.png")},
            label=f"c{n % classes}",
            group=None if group_size is None else f"g{n // group_size}",
        )
        for n in range(count)
    )
    return ImageSet(Path(root), "folder", records)


def sizes(images: ImageSet) -> tuple[int, ...]:
    return tuple(len(images.of_split(split)) for split in SPLITS)


def test_shares_are_those_asked_for() -> None:
    assert sizes(splits.assign(items(200), DataConfig())) == (140, 30, 30)
    quarters = DataConfig(fractions=(0.5, 0.25, 0.25))
    assert sizes(splits.assign(items(200), quarters)) == (100, 50, 50)
    assert sizes(splits.assign(items(10), DataConfig(fractions=(0.8, 0.0, 0.2)))) == (8, 0, 2)


def test_each_class_keeps_its_share() -> None:
    images = splits.assign(items(400, classes=4), DataConfig())
    for label in images.labels:
        counts = Counter(record.split for record in images.records if record.label == label)
        assert counts == {"train": 70, "val": 15, "test": 15}


def test_groups_are_never_divided_and_shares_stay_close() -> None:
    images = splits.assign(items(420, classes=3, group_size=6), DataConfig())
    homes: dict[str | None, set[str | None]] = {}
    for record in images.records:
        homes.setdefault(record.group, set()).add(record.split)
    assert all(len(home) == 1 for home in homes.values())
    assert np.allclose(np.array(sizes(images)) / 420, (0.7, 0.15, 0.15), atol=0.02)
    assert not splits.leaks(images)


def test_order_and_place_of_the_files_do_not_matter_and_the_seed_does() -> None:
    images = items(100, classes=2)
    shuffled = replace(images, records=images.records[::-1])
    expected = {r.id: r.split for r in splits.assign(images, DataConfig()).records}
    assert {r.id: r.split for r in splits.assign(shuffled, DataConfig()).records} == expected
    moved = splits.assign(items(100, classes=2, root="/elsewhere"), DataConfig())
    assert {r.id: r.split for r in moved.records} == expected
    other = splits.assign(images, DataConfig(split_seed=1))
    assert {r.id: r.split for r in other.records} != expected


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_very_few_items_still_leave_something_to_train_with(count: int) -> None:
    train, val, test = sizes(splits.assign(items(count), DataConfig()))
    assert train >= count / 2
    assert test >= val


def test_given_splits_are_kept_unless_random_ones_are_asked_for() -> None:
    images = items(40)
    given = replace(images, records=tuple(replace(r, split="test") for r in images.records))
    assert sizes(splits.assign(given, DataConfig())) == (0, 0, 40)
    assert sizes(splits.assign(given, DataConfig(split="random"))) == (28, 6, 6)


def test_items_without_split_among_others_are_faults() -> None:
    images = items(3)
    partly = replace(images, records=(replace(images.records[0], split="val"), *images.records[1:]))
    kept = splits.assign(partly, DataConfig())
    assert [record.id for record in kept.records] == ["0000.png"]
    assert len(kept.faults) == 2
    assert kept.faults[0].startswith("0001.png: has no split")


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UserError, match="the data give no splits"):
        splits.assign(items(3), DataConfig(split="given"))
    with pytest.raises(UserError, match="3 of 3 have none"):
        splits.assign(items(3), DataConfig(split="group"))
    with pytest.raises(UserError, match="three shares that sum to 1"):
        splits.assign(items(3), DataConfig(fractions=(0.7, 0.7, 0.7)))


def test_a_group_in_two_splits_is_named_by_its_hash_with_items_and_counts() -> None:
    images = items(6, group_size=6)
    given = tuple(
        replace(record, group="Jane Doe", split="train" if n < 4 else "test")
        for n, record in enumerate(images.records)
    )
    [(item, message)] = splits.leaks(replace(images, records=given))
    assert item == "0000.png"
    assert "train (4 images, such as 0000.png) and test (2 images, such as 0004.png)" in message
    assert splits.group_hash("Jane Doe")[:8] in message
    assert "Jane" not in message
