"""From files to batches: order, jitter, windows, storage, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from tfgan_med.data import encoding
from tfgan_med.data.jitter import Jitter, item_at
from tfgan_med.data.opening import open_set
from tfgan_med.data.pipeline import (
    DomainData,
    PairedData,
    prepare_domains,
    prepare_images,
    prepare_pairs,
)
from tfgan_med.data.records import DataConfig, ImageSet, Part, Record, Split
from tfgan_med.data.splits import group_hash
from tfgan_med.errors import DataError, UserError

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator, int], dict[str, Array]]
SPLIT_OF: tuple[Split, ...] = ("train", "train", "train", "val", "test")


def mask_in_red(random: np.random.Generator, index: int) -> dict[str, Array]:
    """A mask, and a picture whose red channel is that mask: whether they fit shows in a batch."""
    mask = np.where(random.random((40, 40)) > 0.5, 255, 0).astype(np.uint8)
    green = np.full((40, 40), 10 * index, np.uint8)
    return {"masks": mask, "images": np.stack([mask, green, green], axis=2)}


def make(folder: Path, count: int, draw: Draw = mask_in_red) -> ImageSet:
    """Write a small set: three of five items are for training, then val, then test."""
    random = np.random.default_rng(0)
    records = []
    for index in range(count):
        parts = {}
        for role, picture in draw(random, index).items():
            path = folder / role / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            parts[role] = Part(path)
        split = SPLIT_OF[index % 5]
        records.append(Record(f"images/{index:02d}.png", parts, group=f"p{index}", split=split))
    return ImageSet(folder, "paired", tuple(records))


def prepare(images: ImageSet, **settings: Any) -> PairedData:
    return prepare_pairs(images, DataConfig(**{"image_size": 32, "load_size": 40, **settings}))


def taken(data: PairedData, batches: int, **arguments: Any) -> list[dict[str, Array]]:
    found = data.train_batches(**{"batch_size": 4, "seed": 3, **arguments}).take(batches)
    return [{side: values.numpy() for side, values in batch.items()} for batch in found]


def items_of(batches: list[dict[str, Array]]) -> list[int]:
    """Indices of the items, which `mask_in_red` wrote into the green channel."""
    green = np.concatenate([batch["target"][:, 0, 0, 1] for batch in batches])
    return [round(value) for value in (green + 1) * 127.5 / 10]


def equal(a: list[dict[str, Array]], b: list[dict[str, Array]]) -> bool:
    return all(
        (x[side] == y[side]).all()
        for x, y in zip(a, b, strict=True)
        for side in ("source", "target")
    )


# order


def test_an_epoch_has_each_training_item_once_and_the_next_another_order(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 20))
    assert data.counts == {"train": 12, "val": 4, "test": 4}
    order = items_of(taken(data, 6))
    first, second = order[:12], order[12:]
    assert sorted(first) == sorted(second) == [i for i in range(20) if SPLIT_OF[i % 5] == "train"]
    assert first != second


def test_seeds_differ_in_order_and_one_seed_does_not(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 20))
    assert items_of(taken(data, 3)) == items_of(taken(data, 3))
    assert items_of(taken(data, 3)) != items_of(taken(data, 3, seed=4))


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_that_starts_later_sees_the_same_batches(tmp_path: Path, step: int) -> None:
    data = prepare(make(tmp_path, 10), flip_vertical=True, rotate90=True)
    whole = taken(data, 7)
    assert equal(whole[step:], taken(data, 7 - step, start_step=step))
    assert equal(whole, taken(prepare(make(tmp_path, 10), flip_vertical=True, rotate90=True), 7))


def test_a_batch_may_be_larger_than_the_set(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 5))
    (batch,) = taken(data, 1, batch_size=7)
    counts = np.unique(items_of([batch]), return_counts=True)
    assert sorted(counts[1].tolist()) == [2, 2, 3]
    assert (data.steps_per_epoch(2), data.steps_per_epoch(3)) == (2, 1)


def test_domains_are_shuffled_independently() -> None:
    def order(domain: int) -> list[int]:
        return [int(item_at(tf.constant(i, tf.int64), 50, 0, domain)[1]) for i in range(50)]

    assert sorted(order(0)) == sorted(order(1)) == list(range(50))
    assert order(0) != order(1)


# jitter


def test_condition_and_picture_stay_aligned_and_masks_binary(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 10), flip_vertical=True, rotate90=True)
    for batch in taken(data, 10):
        assert set(np.unique(batch["source"])) == {-1.0, 1.0}
        assert (batch["source"][..., 0] == batch["target"][..., 0]).all()


def test_masks_stay_binary_and_close_when_both_are_resized(tmp_path: Path) -> None:
    def disc(random: np.random.Generator, index: int) -> dict[str, Array]:
        rows, columns = np.mgrid[:60, :90]
        inside = np.hypot(rows - 30, columns - 40 - index) < 18
        mask = np.where(inside, 255, 0).astype(np.uint8)
        return {"masks": mask, "images": np.stack([mask] * 3, axis=2)}

    data = prepare(make(tmp_path, 10, disc), load_size=None)
    for batch in taken(data, 5):
        source, target = batch["source"][..., 0], batch["target"][..., 0]
        assert set(np.unique(source)) == {-1.0, 1.0}
        assert (source == np.where(target > 0, 1, -1)).mean() > 0.99


def test_every_crop_mirror_and_turn_occurs() -> None:
    picture = tf.constant(np.arange(9).reshape(3, 3, 1))
    jitter = Jitter(2, flip=True, flip_vertical=True, rotate90=True)
    epoch = tf.constant(0, tf.int64)
    seen = {
        jitter([picture], 1, epoch, tf.constant(i, tf.int64))[0].numpy().tobytes()
        for i in range(400)
    }
    assert len(seen) == 4 * 8  # four corners, the eight symmetries of a square


def test_without_jitter_the_picture_is_what_was_read(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    data = prepare(images, image_size=40, load_size=40, flip=False)
    (batch,) = taken(data, 1, batch_size=3)
    for row, index in enumerate(items_of([batch])):
        stored = np.asarray(Image.open(tmp_path / "images" / f"{index:02d}.png"))
        assert (np.rint((batch["target"][row] + 1) * 127.5) == stored).all()


def test_translation_papers_enlarge_by_286_over_256_others_do_not(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    for size, enlarged in ((64, 72), (128, 143)):
        config = DataConfig(image_size=size)
        assert prepare_pairs(images, config).decoded.load_size == enlarged
        assert prepare_images(images, config).decoded.load_size == size


# evaluation


def test_evaluation_is_in_order_complete_and_without_jitter(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 25), image_size=40)
    batches = [
        {side: values.numpy() for side, values in batch.items()}
        for batch in data.eval_batches("val", 2)
    ]
    assert [len(batch["target"]) for batch in batches] == [2, 2, 1]
    assert items_of(batches) == [3, 8, 13, 18, 23]
    assert data.decoded.names("val") == tuple(f"images/{i:02d}.png" for i in (3, 8, 13, 18, 23))
    assert sum(len(batch["target"]) for batch in data.eval_batches("val", 2, limit=3)) == 3


def test_the_training_split_can_be_evaluated_at_image_size(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 10))
    (batch,) = data.eval_batches("train", 100)
    assert batch["target"].shape == (6, 32, 32, 3)
    assert items_of([{"target": batch["target"].numpy()}]) == [0, 1, 2, 5, 6, 7]


def test_fixed_batches_spread_over_the_split(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 25), image_size=40)
    batch = data.fixed_batch("val", 3)
    assert items_of([{"target": batch["target"].numpy()}]) == [3, 13, 23]
    assert data.fixed_batch("val", 99)["source"].shape == (5, 40, 40, 1)


# storage


@pytest.mark.parametrize("fit", ["crop", "patches"])
def test_pictures_in_a_file_equal_pictures_in_memory(tmp_path: Path, cache: Path, fit: str) -> None:
    images = make(tmp_path, 10)
    in_memory, in_file = prepare(images, fit=fit), prepare(images, fit=fit, cache_mb=0)
    again = prepare(images, fit=fit, cache_mb=0)
    assert list((cache / "arrays").glob("*-train-40/masks.npy"))
    for other in (in_file, again):
        assert other.counts == in_memory.counts
        assert equal(taken(in_memory, 6), taken(other, 6))
        assert (
            in_memory.fixed_batch("test", 9)["target"].numpy()
            == other.fixed_batch("test", 9)["target"].numpy()
        ).all()


def test_a_file_of_pictures_is_reused_until_a_picture_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make(tmp_path, 5)
    before = taken(prepare(images, cache_mb=0), 2)

    decoded: list[Part] = []
    real = encoding.read

    def read(part: Part, role: str, max_pixels: int) -> Array:
        decoded.append(part)
        return real(part, role, max_pixels)

    monkeypatch.setattr(encoding, "read", read)
    assert equal(before, taken(prepare(images, cache_mb=0), 2))
    assert not decoded

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "images" / "00.png")
    after = taken(prepare(images, cache_mb=0), 2)
    assert decoded
    assert not equal(before, after)


def test_a_set_without_validation_fits_into_a_file(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 3), cache_mb=0)
    assert data.counts == {"train": 3, "val": 0, "test": 0}
    assert list(data.eval_batches("val", 2)) == []
    assert len(taken(data, 2)) == 2


# encodings


def test_16_bit_pictures_use_one_window_of_the_training_split(tmp_path: Path) -> None:
    def deep(random: np.random.Generator, index: int) -> dict[str, Array]:
        values = random.integers(1000, 5000, (40, 40)).astype(np.uint16)
        if SPLIT_OF[index % 5] != "train":
            values += np.uint16(30000)
        return {"masks": np.zeros((40, 40), np.uint8), "images": values}

    images = make(tmp_path, 10, deep)
    data = prepare(images, image_size=40, flip=False)
    pictures = [
        np.asarray(Image.open(record.parts["images"].path)) for record in images.of_split("train")
    ]
    assert data.window == pytest.approx(np.percentile(pictures, (0.1, 99.9)))
    assert (data.target.dtype, data.target.channels) == ("uint16", 1)

    tensor = data.fixed_batch("train", 6)["target"].numpy()
    back = encoding.picture(tensor, data.target)[..., 0].astype(int)
    assert np.abs(back - np.clip(pictures, *data.window)).max() <= 1
    assert (data.fixed_batch("test", 2)["target"].numpy() == 1.0).all()


def test_a_16_bit_ramp_comes_back_within_one_level(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    how = encoding.Encoding(
        role="images", kind="image", channels=1, window=(0, 65535), dtype="uint16"
    )
    values = encoding.tensor(encoding.read(Part(tmp_path / "ramp.png"), "images", 10**6), how)
    back = encoding.picture(values, how)
    assert back.dtype == np.uint16
    assert np.abs(back[..., 0].astype(int) - ramp).max() <= 1


def test_a_given_window_is_used(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 5), window=(0, 510))
    assert data.window == (0, 510)
    assert max(batch["target"].max() for batch in taken(data, 2)) == pytest.approx(0.0, abs=1e-4)


def test_labels_become_one_hot(tmp_path: Path) -> None:
    def classes(random: np.random.Generator, index: int) -> dict[str, Array]:
        labels = random.integers(0, 4, (40, 40)).astype(np.uint8)
        return {"labels": labels, "images": labels * 20}

    data = prepare(make(tmp_path, 10, classes), flip_vertical=True)
    assert (data.source.kind, data.source.channels) == ("labels", 4)
    for batch in taken(data, 3):
        assert (batch["source"].sum(axis=-1) == 1).all()
        levels = np.rint((batch["target"][..., 0] + 1) * 127.5 / 20)
        assert (batch["source"].argmax(axis=-1) == levels).all()


def test_instances_become_a_mask_when_there_is_no_other(tmp_path: Path) -> None:
    def numbered(random: np.random.Generator, index: int) -> dict[str, Array]:
        ids = random.integers(0, 900, (40, 40)).astype(np.uint16)
        ids[ids < 400] = 0
        return {"instances": ids, "images": np.where(ids > 0, 255, 0).astype(np.uint8)}

    data = prepare(make(tmp_path, 5, numbered))
    assert (data.source.role, data.source.kind) == ("instances", "mask")
    for batch in taken(data, 3):
        assert (batch["source"] == batch["target"]).all()


def test_roles_can_be_turned_around(tmp_path: Path) -> None:
    data = prepare(make(tmp_path, 5), source="images", target="masks")
    (batch,) = taken(data, 1)
    assert (batch["source"].shape[-1], batch["target"].shape[-1]) == (3, 1)
    assert set(np.unique(batch["target"])) == {-1.0, 1.0}


@pytest.mark.parametrize(("mode", "channels"), [("auto", 3), ("gray", 1), ("rgb", 3)])
def test_mode_decides_on_channels(tmp_path: Path, mode: str, channels: int) -> None:
    data = prepare(make(tmp_path, 5), mode=mode)
    assert data.target.channels == channels
    assert taken(data, 1)[0]["target"].shape[-1] == channels


def test_colors_become_luma() -> None:
    how = encoding.Encoding(role="images", kind="image", channels=1)
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    # Rec. 601: 0.299, 0.587 and 0.114 of 255
    assert encoding.store(pixels, how)[0, :, 0].tolist() == [76, 150, 29, 90]


def test_patches_are_cut_before_jitter_and_named(tmp_path: Path) -> None:
    def wide(random: np.random.Generator, index: int) -> dict[str, Array]:
        mask = np.where(random.random((40, 100)) > 0.5, 255, 0).astype(np.uint8)
        return {"masks": mask, "images": mask}

    data = prepare(make(tmp_path, 5, wide), fit="patches")
    assert data.counts == {"train": 3 * 3, "val": 2 * 4, "test": 2 * 4}
    assert data.decoded.names("val")[:3] == ("images/03.png", "images/03.png#2", "images/03.png#3")
    for batch in taken(data, 3):
        assert (batch["source"] == batch["target"]).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_fitting_keeps_pairs_together(tmp_path: Path, fit: str) -> None:
    def wide(random: np.random.Generator, index: int) -> dict[str, Array]:
        mask = np.zeros((48, 96), np.uint8)
        mask[10:30, 20 : 50 + index] = 255
        return {"masks": mask, "images": mask}

    data = prepare(make(tmp_path, 5, wide), fit=fit, image_size=48, load_size=48)
    batch = data.fixed_batch("train", 3)
    agree = (batch["source"].numpy() == np.where(batch["target"].numpy() > 0, 1, -1)).mean()
    assert agree > 0.99


@pytest.mark.parametrize(
    ("name", "role", "channels"),
    [
        ("skin-isic2017", "masks", (1, 3)),
        ("cxr-lung-heart", "masks", (1, 1)),
        ("facades", "inputs", (3, 3)),
        ("nuclei-dsb2018", "masks", (1, 3)),
    ],
)
def test_real_sets_become_batches(
    shared: Path, name: str, role: str, channels: tuple[int, int]
) -> None:
    config = DataConfig(path=str(shared / "data" / name), image_size=64, mode="auto")
    if name == "nuclei-dsb2018":  # fluorescence is grey, stained tissue is not
        config = config.model_copy(update={"mode": "rgb"})
    data = prepare_pairs(open_set(config), config)
    assert data.source.role == role
    assert (data.source.channels, data.target.channels) == channels
    (batch,) = taken(data, 1)
    assert batch["source"].shape == (4, 64, 64, channels[0])
    assert -1.0 <= batch["target"].min() < -0.3 < 0.3 < batch["target"].max() <= 1.0


# what is saved with a run


def test_the_fingerprint_names_items_but_no_groups(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    found = prepare(images).fingerprint()
    assert json.loads(json.dumps(found)) == found
    first = found["items"][0]
    assert (first["id"], first["split"], first["size"]) == ("images/00.png", "train", [40, 40])
    assert len(first["sha256"]["target"]) == 64
    assert first["group"] == group_hash("p0") != group_hash("p1")
    assert '"p0"' not in json.dumps(found)


def test_the_fingerprint_changes_with_a_picture_and_not_with_time(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    before = prepare(images).fingerprint()["sha256"]
    assert prepare(images).fingerprint()["sha256"] == before
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "images" / "04.png")
    assert prepare(images).fingerprint()["sha256"] != before


def test_an_encoding_is_saved_and_read_again(tmp_path: Path) -> None:
    how = prepare(make(tmp_path, 5)).target
    assert encoding.Encoding.model_validate_json(how.model_dump_json()) == how


# refusals


def test_a_set_without_pairs_names_its_roles(tmp_path: Path) -> None:
    images = make(tmp_path, 5, lambda r, i: {"images": np.zeros((40, 40), np.uint8)})
    with pytest.raises(UserError, match=r"no pairs: found .*no source"):
        prepare(images)
    with pytest.raises(UserError, match=r"data\.source is 'masks', but the set has"):
        prepare(images, source="masks")


def test_a_mask_of_another_size_is_refused_or_left_out(tmp_path: Path) -> None:
    images = make(tmp_path, 10)
    Image.fromarray(np.zeros((39, 40), np.uint8)).save(tmp_path / "masks" / "01.png")
    with pytest.raises(DataError, match=r"images/01\.png: the masks picture is 40 x 39.*40 x 40"):
        prepare(images)
    data = prepare(images, skip_bad=True)
    assert data.counts["train"] == 5
    assert list(data.left_out) == ["images/01.png"]


def test_a_blurred_mask_is_refused(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    mask = np.zeros((40, 40), np.uint8)
    mask[0, :3] = 1, 254, 255
    Image.fromarray(mask).save(tmp_path / "masks" / "02.png")
    with pytest.raises(DataError, match=r"masks/02\.png: the mask has the values 0, 1, 254 and 1"):
        prepare(images)


def test_a_truncated_picture_is_refused_or_left_out(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    path = tmp_path / "images" / "00.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"images/00\.png"):
        prepare(images)
    assert prepare(images, skip_bad=True).counts["train"] == 2


def test_a_missing_partner_is_refused(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    lonely = replace(images.records[0], parts={"images": images.records[0].parts["images"]})
    with pytest.raises(DataError, match="no picture of the role 'masks'"):
        prepare(replace(images, records=(lonely, *images.records[1:])))


def test_faults_of_the_reader_are_shown_three_at_a_time(tmp_path: Path) -> None:
    faults = tuple(f"masks/{i}.png: no image." for i in range(15))
    images = replace(make(tmp_path, 5), faults=faults)
    with pytest.raises(DataError, match=r"masks/2\.png.*\n.*and 12 more"):
        prepare(images)


def test_an_empty_training_split_is_refused(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    with pytest.raises(DataError, match="training split is empty"):
        prepare(replace(images, records=images.records[3:]))


def test_gray_among_colors_is_refused_unless_the_mode_is_said(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "images" / "01.png")
    with pytest.raises(DataError, match=r"images/01\.png: grey.*1 of 5.*data\.mode"):
        prepare(images)
    assert prepare(images, mode="rgb").target.channels == 3


def test_16_bit_among_8_bit_is_refused(tmp_path: Path) -> None:
    images = make(tmp_path, 5)
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "images" / "01.png")
    with pytest.raises(DataError, match=r"uint8.*uint16|uint16.*uint8"):
        prepare(images, mode="gray")


def test_a_class_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    def classes(random: np.random.Generator, index: int) -> dict[str, Array]:
        labels = np.full((40, 40), 5 if SPLIT_OF[index % 5] == "test" else 2, np.uint8)
        return {"labels": labels, "images": labels}

    images = make(tmp_path, 5, classes)
    with pytest.raises(DataError, match=r"images/04\.png: class 5.*3 classes"):
        prepare(images)
    assert prepare(images, classes=6).source.channels == 6


def test_a_load_size_below_the_image_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.load_size is 20"):
        prepare(make(tmp_path, 5), load_size=20)


def test_jitter_differs_from_item_to_item_and_epoch_to_epoch() -> None:
    picture = tf.constant(np.arange(900).reshape(30, 30, 1))
    jitter = Jitter(10)
    corners = [
        int(jitter([picture], 0, tf.constant(e, tf.int64), tf.constant(i, tf.int64))[0][0, 0, 0])
        for e in range(3)
        for i in range(3)
    ]
    assert all(a != b for a, b in pairwise(corners))


# pictures alone, and two kinds of pictures


def classed(folder: Path, count: int = 10) -> ImageSet:
    """Red pictures of class r, green ones of class g; brighter with the index."""

    def draw(random: np.random.Generator, index: int) -> dict[str, Array]:
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[..., index % 2] = 100 + index
        return {"images": picture, "masks": mask_in_red(random, index)["masks"][:32, :32]}

    images = make(folder, count, draw)
    named = tuple(replace(r, label="rg"[i % 2]) for i, r in enumerate(images.records))
    return replace(images, records=named)


def test_pictures_come_alone_or_with_their_masks_as_further_channels(tmp_path: Path) -> None:
    images = make(tmp_path, 10)
    alone = prepare_images(images, DataConfig(image_size=40))
    both = prepare_images(images, DataConfig(image_size=40, with_masks=True))
    assert [how.role for how in both.encodings] == ["images", "masks"]
    (batch,) = both.train_batches(4, seed=0).take(1)
    values = batch["images"].numpy()
    assert values.shape == (4, 40, 40, 4)
    np.testing.assert_array_equal(values[..., 3], values[..., 0])  # the mask is in red
    (batch,) = alone.train_batches(4, seed=0).take(1)
    np.testing.assert_array_equal(batch["images"], values[..., :3])  # same order, same jitter
    roles = both.fingerprint()["roles"]
    assert roles == {"target": "images", "masks": "masks"}


def test_masks_that_are_not_there_are_named(tmp_path: Path) -> None:
    images = make(
        tmp_path, 5, lambda random, index: {"images": mask_in_red(random, index)["images"]}
    )
    with pytest.raises(UserError, match="with_masks is set, but the set has no masks, only images"):
        prepare_images(images, DataConfig(image_size=32, with_masks=True))


def domains(folder: Path, **settings: Any) -> DomainData:
    return prepare_domains(classed(folder), DataConfig(image_size=32, load_size=32, **settings))


def test_each_kind_has_its_own_order_and_meets_changing_partners(tmp_path: Path) -> None:
    data = domains(tmp_path)
    assert data.names == ("g", "r")
    seen = []
    for batch in data.train_batches(1, seed=0).take(12):
        a, b = (np.rint((batch[side].numpy()[0, 0, 0] + 1) * 127.5) for side in ("a", "b"))
        assert a[0] == 0 and b[1] == 0  # A is green, B is red
        seen.append((int(a[1]) - 100, int(b[0]) - 100))
    greens, reds = data.a.counts["train"], data.b.counts["train"]
    assert {a for a, _ in seen[:greens]} == {r for r in range(10) if r % 2 and r % 5 < 3}
    assert {b for _, b in seen[:reds]} == {r for r in range(0, 10, 2) if r % 5 < 3}
    assert len(set(seen)) > max(greens, reds)  # else each would always meet the same one
    resumed = [b["a"].numpy() for b in data.train_batches(1, seed=0, start_step=5).take(3)]
    whole = [b["a"].numpy() for b in data.train_batches(1, seed=0).take(8)]
    np.testing.assert_array_equal(resumed, whole[5:])


def test_two_roles_of_a_set_are_kinds_too(tmp_path: Path) -> None:
    data = domains(tmp_path, domain_a="masks", domain_b="images")
    assert (data.a.encodings[0].kind, data.b.encodings[0].channels) == ("mask", 3)
    (batch,) = data.train_batches(3, seed=0).take(1)
    assert (batch["a"].shape, batch["b"].shape) == ((3, 32, 32, 1), (3, 32, 32, 3))


def test_the_fingerprint_says_which_item_is_of_which_kind(tmp_path: Path) -> None:
    content = domains(tmp_path).fingerprint()
    assert content["domains"] == {"a": "g", "b": "r"}
    assert {(item["label"], item["domain"]) for item in content["items"]} == {
        ("g", "a"),
        ("r", "b"),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domain_a": "r", "domain_b": "x"}, "roles of the set are: g, r, images, masks"),
        ({"domain_a": "r", "domain_b": "images"}, "two different classes or two roles"),
        ({"domain_a": "r", "domain_b": "r"}, "Name two different classes"),
        ({"domain_a": "r"}, "needs two kinds of pictures; the set has"),
    ],
)
def test_classes_that_cannot_be_translated_are_named(
    settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        domains(tmp_path, **settings)
