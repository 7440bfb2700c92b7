"""Every change by its formula, every draw by its distribution, all of a picture moves at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from pydantic import ValidationError
from scipy import ndimage, stats

from tfgan_med.augment import _geometry, _photometry
from tfgan_med.augment._geometry import Moves, Placement, placed
from tfgan_med.augment.classic import PHOTOMETRIC, PRESETS, ClassicAugment, ClassicConfig
from tfgan_med.config import as_yaml, parse_yaml, resolve
from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
STRENGTHS = {
    "blur": 2.0,
    "sharpen": 1.0,
    "emboss": 1.0,
    "noise": 0.05,
    "invert": 1.0,
    "add": 10.0,
    "multiply": 0.25,
    "contrast": 1.0,
    "grayscale": 1.0,
}


def pictures(batch: int = 6, size: int = 24, channels: int = 3) -> tf.Tensor:
    shape = (batch, size, size, channels)
    return tf.random.stateless_uniform(shape, (1, 2), -1.0, 1.0)


def augment(
    batch: dict[str, Any], first: int = 0, seed: int = 5, **settings: Any
) -> dict[str, Any]:
    """In a graph, as in the data pipeline."""
    change = ClassicAugment(ClassicConfig(**settings), seed)
    traced = tf.function(lambda position: change(batch, position))
    return dict(traced(tf.constant(first, tf.int64)))


def images(count: int = 6, first: int = 0, seed: int = 5, size: int = 24, **settings: Any) -> Array:
    return np.array(augment({"images": pictures(count, size)}, first, seed, **settings)["images"])


def equal(one: Any, other: Any) -> bool:
    """To the bit."""
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


def gray_levels(x: Any) -> Array:
    return 127.5 * (np.asarray(x, np.float64) + 1.0)


def placement(linear: Any, shift: Any = (0.0, 0.0), height: int = 24, width: int = 24) -> Placement:
    return Placement(tf.constant([linear], tf.float32), tf.constant([shift]), height, width)


def rotation(degrees: float, scale: float = 1.0) -> Array:
    angle = math.radians(degrees)
    return scale * np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )


# Nothing ------------------------------------------------------------------------------------------


def full_batch(size: int = 24, count: int = 6) -> dict[str, Any]:
    """Three upright boxes in each picture, painted as mask and as numbered objects."""
    boxes = np.array([[3, 4, 9, 14], [12, 2, 20, 9], [11, 15, 17, 21], [0, 0, 0, 0]], np.float32)
    ids = np.zeros((count, size, size, 1), np.int32)
    for number, (x0, y0, x1, y1) in enumerate(boxes[:3].astype(int), start=1):
        ids[:, y0:y1, x0:x1] = number
    return {
        "images": tf.constant(np.where(ids > 0, 0.5, -0.25), tf.float32),
        "masks": tf.constant(ids > 0, tf.float32),
        "ids": tf.constant(ids),
        "boxes": tf.constant(np.repeat(boxes[None], count, axis=0)),
        "boxes_valid": tf.constant([[True, True, True, False]] * count),
        "labels": tf.range(count),
        "weights": tf.fill((count,), 0.5),
    }


def test_without_settings_nothing_is_active_and_nothing_changes() -> None:
    assert not ClassicConfig().active
    batch = full_batch()
    result = augment(batch)
    assert result.keys() == batch.keys()
    assert all(equal(result[key], batch[key]) for key in batch)


def test_placements_of_no_strength_leave_everything_as_it_was_to_the_bit() -> None:
    batch = full_batch()
    x = pictures()
    still = placed(Moves(), tf.constant(6), 24, 24, tf.constant([1, 2], tf.int64))
    for fill in _geometry.FILLS:
        for between_pixels in (True, False):
            assert equal(_geometry.moved_images(x, still, fill, between_pixels), x)
        assert equal(_geometry.moved_masks(batch["masks"], still, fill), batch["masks"])
        assert equal(_geometry.moved_classes(batch["ids"], still, fill), batch["ids"])
    boxes, valid = _geometry.moved_boxes(batch["boxes"] + 0.1, batch["boxes_valid"], still, 1.0)
    assert equal(boxes, batch["boxes"] + 0.1)
    assert equal(valid, batch["boxes_valid"])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: _photometry.blur(x, tf.constant(0.0), 2.0),
        lambda x: _photometry.sharpen(x, tf.constant(0.0), tf.constant(1.5)),
        lambda x: _photometry.emboss(x, tf.constant(0.0), tf.constant(2.0)),
        lambda x: _photometry.noise(x, tf.constant(0.0), tf.constant(0.9), tf.constant([1, 2])),
        lambda x: _photometry.invert(x, tf.constant([False] * 3)),
        lambda x: _photometry.add(x, tf.zeros(3)),
        lambda x: _photometry.multiply(x, tf.ones(3)),
        lambda x: _photometry.contrast(x, tf.ones(3)),
        lambda x: _photometry.grayscale(x, tf.constant(0.0)),
    ],
)
def test_a_change_of_no_strength_leaves_a_picture_as_it_was_to_the_bit(
    change: Callable[[tf.Tensor], tf.Tensor],
) -> None:
    image = pictures(1)[0]
    assert equal(change(image), image)


@pytest.mark.parametrize(("name", "strength"), STRENGTHS.items())
def test_every_setting_changes_pictures_and_only_pictures(name: str, strength: float) -> None:
    batch = {**full_batch(), "images": pictures()}
    settings: dict[str, Any] = {name: strength, "operations": 1}
    result = augment(batch, **settings)
    assert not equal(result["images"], batch["images"])
    assert all(equal(result[key], batch[key]) for key in batch if key != "images")


# Colors and neighbors by their formulas -----------------------------------------------------------


def test_colors_change_as_on_gray_levels() -> None:
    image = pictures(1)[0]
    v, own = gray_levels(image), np.array([0.5, 1.0, 2.0])
    cases = [
        (_photometry.add(image, tf.constant([-10.0, 0.0, 7.0])), v + np.array([-10.0, 0.0, 7.0])),
        (_photometry.multiply(image, tf.constant(own, tf.float32)), own * v),
        (_photometry.contrast(image, tf.constant(own, tf.float32)), 128 + own * (v - 128)),
        (
            _photometry.invert(image, tf.constant([True, False, True])),
            np.where([1, 0, 1], 255 - v, v),
        ),
    ]
    for result, expected in cases:
        np.testing.assert_allclose(gray_levels(result), expected, atol=1e-3)


def test_a_share_of_gray_is_blended_with_the_luma_of_opencv() -> None:
    image = pictures(1)[0]
    v = gray_levels(image)
    luma = cv2.cvtColor(v.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]
    result = _photometry.grayscale(image, tf.constant(0.3))
    np.testing.assert_allclose(gray_levels(result), 0.7 * v + 0.3 * luma, atol=1e-3)
    whole = np.array(_photometry.grayscale(image, tf.constant(1.0)))
    np.testing.assert_allclose(np.ptp(whole, axis=-1), 0.0, atol=1e-6)


def test_noise_has_its_deviation_and_is_drawn_anew_for_each_channel_or_for_none() -> None:
    image = tf.zeros((128, 128, 3))
    for u, together in ((0.1, False), (0.9, True)):
        seed = tf.constant([3, 4])
        result = np.array(_photometry.noise(image, tf.constant(0.05), tf.constant(u), seed))
        assert gray_levels(result).std() == pytest.approx(0.05 * 255, rel=0.03)
        correlation = np.corrcoef(result[..., 0].ravel(), result[..., 1].ravel())[0, 1]
        assert (correlation > 0.99) == together
        assert together or abs(correlation) < 0.05


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_the_blur_is_that_of_opencv(sigma: float) -> None:
    image = pictures(1)[0]
    expected = cv2.GaussianBlur(np.array(image), (13, 13), sigma)  # reaches 6 = 3 x 2 pixels
    np.testing.assert_allclose(
        _photometry.blur(image, tf.constant(sigma), 2.0), expected, atol=1e-6
    )


def test_a_blur_wider_than_the_picture_takes_what_there_is() -> None:
    image = pictures(1, size=8)[0]
    result = np.array(_photometry.blur(image, tf.constant(5.0), 5.0))
    assert result.std() < 0.5 * np.std(image)


@pytest.mark.parametrize(("alpha", "lightness"), [(0.4, 0.75), (1.0, 1.5)])
def test_sharpening_is_the_filter_of_the_menu(alpha: float, lightness: float) -> None:
    image = pictures(1)[0]
    v = gray_levels(image)
    kernel = np.array([[-1, -1, -1], [-1, 8 + lightness, -1], [-1, -1, -1]])
    filtered = cv2.filter2D(v, -1, kernel)  # mirrors at the border without the last pixel
    result = _photometry.sharpen(image, tf.constant(alpha), tf.constant(lightness))
    np.testing.assert_allclose(gray_levels(result), (1 - alpha) * v + alpha * filtered, atol=2e-3)


@pytest.mark.parametrize(("alpha", "s"), [(0.4, 0.5), (1.0, 2.0)])
def test_embossing_is_the_filter_of_the_menu(alpha: float, s: float) -> None:
    image = pictures(1)[0]
    v = gray_levels(image)
    filtered = cv2.filter2D(v, -1, np.array([[-1 - s, -s, 0], [-s, 1, s], [0, s, 1 + s]]))
    result = _photometry.emboss(image, tf.constant(alpha), tf.constant(s))
    np.testing.assert_allclose(gray_levels(result), (1 - alpha) * v + alpha * filtered, atol=2e-3)


def test_one_amount_for_all_channels_or_one_for_each() -> None:
    values = tf.constant([1.0, 2.0, 3.0])
    assert _photometry.per_channel(values, tf.constant(0.4)).numpy().tolist() == [1.0, 2.0, 3.0]
    assert _photometry.per_channel(values, tf.constant(0.6)).numpy().tolist() == [1.0, 1.0, 1.0]


# Moves by their maps ------------------------------------------------------------------------------


def test_a_pure_flip_is_the_reversed_picture_to_the_bit() -> None:
    x = pictures(size=23)
    assert equal(images(size=23, flip=1.0), tf.reverse(x, [2]))
    assert equal(images(size=23, flip_vertical=1.0), tf.reverse(x, [1]))
    assert equal(images(size=23, flip=1.0, flip_vertical=1.0), tf.reverse(x, [1, 2]))


@pytest.mark.parametrize("more", [{}, {"rotation": 1e-12}])  # also where it is interpolated
def test_quarter_turns_move_pixels_to_the_bit_and_all_four_occur(more: dict[str, Any]) -> None:
    x = np.array(pictures(32))
    turned = images(32, rotate90=True, **more)
    seen = []
    for before, after in zip(x, turned, strict=True):
        seen += [k for k in range(4) if np.allclose(np.rot90(before, k), after, atol=1e-6)]
        assert more or equal(np.rot90(before, seen[-1]), after)
    assert len(seen) == 32
    assert set(seen) == {0, 1, 2, 3}


def test_quarter_turns_of_oblong_pictures_are_refused() -> None:
    x = tf.zeros((2, 16, 24, 3))
    with pytest.raises(UserError, match=r"classic\.rotate90: the pictures are 24 x 16"):
        augment({"images": x}, rotate90=True)
    flipped = augment({"images": pictures(2)[:, :16]}, flip=1.0)["images"]
    assert equal(flipped, tf.reverse(pictures(2)[:, :16], [2]))


@pytest.mark.parametrize(
    ("fill", "mode", "value"),
    [
        ("black", "grid-constant", -1.0),
        ("white", "grid-constant", 1.0),
        ("reflect", "reflect", 0.0),
        ("border", "nearest", 0.0),
    ],
)
def test_pictures_between_pixels_are_those_of_scipy(fill: str, mode: str, value: float) -> None:
    x = np.array(pictures(1)[:, :18])  # 18 x 24
    linear, shift = rotation(27.0, 1.3), np.array([1.5, -2.25])
    where = placement(linear, shift.tolist(), height=18)
    result = np.array(_geometry.moved_images(tf.constant(x), where, fill, True))[0]

    swapped, center = linear[::-1, ::-1], np.array([8.5, 11.5])  # SciPy counts rows first
    offset = center - swapped @ (center + shift[::-1])
    for channel in range(3):
        expected = ndimage.affine_transform(
            x[0, ..., channel].astype(np.float64), swapped, offset, order=1, mode=mode, cval=value
        )
        np.testing.assert_allclose(result[..., channel], expected, atol=1e-4)


def brightest(x: Array) -> tuple[int, int]:
    row, column = np.unravel_index(x.argmax(), x.shape)
    return int(row), int(column)


def test_a_bright_pixel_goes_where_the_map_says() -> None:
    x = np.full((1, 25, 25, 1), -1.0, np.float32)
    x[0, 12, 20] = 1.0  # 8 to the right of the center
    for degrees, (row, column) in ((0, (12, 20)), (90, (20, 12)), (-90, (4, 12)), (180, (12, 4))):
        where = placement(rotation(degrees), height=25, width=25)
        moved = np.array(_geometry.moved_images(tf.constant(x), where, "black", True))[0, ..., 0]
        assert brightest(moved) == (row, column)
    halved = placement(rotation(0, 2.0), (0.0, 3.0), 25, 25)  # twice as much is seen
    moved = np.array(_geometry.moved_images(tf.constant(x), halved, "black", True))[0, ..., 0]
    assert brightest(moved) == (15, 16)


MOVING: dict[str, Any] = {
    "rotation": 0.1,
    "zoom": 0.2,
    "shift": 0.1,
    "flip": 0.5,
    "flip_vertical": 0.5,
    "rotate90": True,
}


@pytest.mark.parametrize("fill", ["black", "reflect"])
def test_pictures_masks_and_objects_move_together(fill: str) -> None:
    disc = np.hypot(*np.mgrid[-31.5:32, -31.5:32] - np.array([6.0, -9.0]).reshape(2, 1, 1)) < 14
    shape = np.broadcast_to(disc[None, ..., None], (16, 64, 64, 1))
    batch = {
        "images": tf.constant(np.where(shape, 1.0, -1.0), tf.float32),
        "masks": tf.constant(shape, tf.float32),
        "ids": tf.constant(shape * 7, tf.int32),
    }
    moved = augment(batch, fill=fill, **MOVING)
    mask, ids = np.array(moved["masks"]), np.array(moved["ids"])
    np.testing.assert_array_equal(ids, 7 * mask.astype(np.int32))
    differing = (np.array(moved["images"]) > 0) != (mask > 0)
    assert differing.mean() < 0.005  # ties on the rim of the disc
    assert all(not np.array_equal(one, shape[0]) for one in mask)


def test_objects_keep_their_numbers_and_masks_their_two_values() -> None:
    moved = augment(full_batch(), **MOVING)
    assert set(np.unique(moved["ids"])) <= {0, 1, 2, 3}
    assert moved["ids"].dtype == tf.int32
    assert set(np.unique(moved["masks"])) == {0.0, 1.0}
    assert equal(moved["labels"], full_batch()["labels"])


@pytest.mark.parametrize("fill", ["black", "white", "reflect", "border"])
def test_one_hot_masks_stay_one_hot_and_others_get_nothing(fill: str) -> None:
    classes = tf.random.stateless_uniform((6, 24, 24), (3, 4), 1, 4, tf.int32)
    one_hot = augment({"images": pictures(), "masks": tf.one_hot(classes, 4)}, fill=fill, **MOVING)
    result = np.array(one_hot["masks"])
    np.testing.assert_array_equal(result.sum(axis=-1), 1.0)
    assert set(np.unique(result)) <= {0.0, 1.0}
    assert (result[..., 0].sum() > 0) == (fill in ("black", "white"))  # the background comes in

    overlapping = tf.ones((6, 24, 24, 2))
    result = np.array(augment({"images": pictures(), "masks": overlapping}, **MOVING)["masks"])
    assert set(np.unique(result.sum(axis=-1))) == {0.0, 2.0}


# Boxes --------------------------------------------------------------------------------------------


def around(mask: Array) -> list[float]:
    """The half-open box around what is set."""
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_follow_their_objects_exactly_through_flips_and_quarter_turns() -> None:
    moved = augment(full_batch(), flip=0.5, flip_vertical=0.5, rotate90=True)
    assert equal(moved["boxes_valid"], full_batch()["boxes_valid"])
    assert equal(moved["boxes"][:, 3], np.zeros((6, 4), np.float32))  # padding
    changed = 0
    for ids, boxes in zip(np.array(moved["ids"]), np.array(moved["boxes"]), strict=True):
        for number in (1, 2, 3):
            assert boxes[number - 1].tolist() == around(ids[..., 0] == number)
        changed += not np.array_equal(boxes, full_batch()["boxes"][0])
    assert changed >= 3


def test_boxes_contain_their_turned_and_zoomed_objects() -> None:
    moved = augment(full_batch(count=32), rotation=0.5, zoom=0.3, shift=0.1, min_visible=0.0)
    corners = np.array([[3, 4, 9, 14], [12, 2, 20, 9], [11, 15, 17, 21]])
    sides = corners[:, 2:] - corners[:, :2]
    valid = np.array(moved["boxes_valid"])[:, :3]
    assert valid.mean() > 0.95
    for row, (ids, boxes) in enumerate(zip(moved["ids"], np.array(moved["boxes"]), strict=True)):
        assert boxes.min() >= 0.0
        assert boxes.max() <= 24.0
        for index in np.flatnonzero(valid[row]):
            object_ = np.array(ids)[..., 0] == index + 1
            if object_.any():
                x0, y0, x1, y1 = around(object_) - boxes[index]
                assert min(x0, y0) >= -0.5 - 1e-3  # a pixel reaches half its side beyond its center
                assert max(x1, y1) <= 0.5 + 1e-3
            # The box around a turned rectangle is no wider than its diagonal.
            widest = np.hypot(*sides[index]) / 0.7
            assert max(boxes[index][2:] - boxes[index][:2]) <= widest + 1e-3


def test_a_turned_box_is_the_upright_one_around_it() -> None:
    boxes = tf.constant([[[10.0, 11.0, 14.0, 13.0]]])  # 4 x 2 about the center of 24 x 24
    turned, valid = _geometry.moved_boxes(
        boxes, tf.constant([[True]]), placement(rotation(30.0, 0.5)), 0.25
    )
    c, s = math.sqrt(0.75), 0.5
    half = np.array([4 * c + 2 * s, 4 * s + 2 * c])  # twice as large: half the part is seen
    np.testing.assert_allclose(turned[0, 0], [*(12 - half), *(12 + half)], rtol=1e-6)
    assert bool(valid[0, 0])


@pytest.mark.parametrize(("by", "share"), [(4.0, 0.6), (7.0, 0.3), (8.0, 0.2), (10.0, 0.0)])
def test_boxes_with_too_little_left_become_invalid(by: float, share: float) -> None:
    boxes = tf.constant([[[14.0, 2.0, 24.0, 8.0]]])
    moved, valid = _geometry.moved_boxes(
        boxes, tf.constant([[True]]), placement(rotation(0), (by, 0.0)), 0.25
    )
    assert bool(valid[0, 0]) == (share >= 0.25)
    expected = [14.0 + by, 2.0, 24.0, 8.0] if share >= 0.25 else [0.0] * 4
    assert moved[0, 0].numpy().tolist() == expected
    _, any_left = _geometry.moved_boxes(
        boxes, tf.constant([[True]]), placement(rotation(0), (by, 0.0)), 0.0
    )
    assert bool(any_left[0, 0]) == (share > 0)


def test_a_batch_without_boxes_in_it_passes() -> None:
    batch = full_batch() | {"boxes": tf.zeros((6, 0, 4)), "boxes_valid": tf.zeros((6, 0), tf.bool)}
    moved = augment(batch, **MOVING)
    assert moved["boxes"].shape == (6, 0, 4)


# Draws --------------------------------------------------------------------------------------------

MANY = 20_000


def many(seed: int = 3, **moves: Any) -> tuple[Array, Array]:
    """Linear parts and shifts of many pictures, 10 high and 20 wide."""
    where = placed(Moves(**moves), tf.constant(MANY), 10, 20, tf.constant([seed, 1], tf.int64))
    return np.array(where.linear, np.float64), np.array(where.shift, np.float64)


def uniformly(values: Array, low: float, high: float) -> bool:
    inside = bool(low - 1e-6 <= values.min() and values.max() <= high + 1e-6)
    return inside and bool(stats.kstest(values, "uniform", (low, high - low)).pvalue > 0.001)


def test_flips_have_their_probabilities_and_are_independent() -> None:
    linear, _ = many(flip=0.5, flip_vertical=0.2)
    across, down = linear[:, 0, 0] < 0, linear[:, 1, 1] < 0
    assert across.mean() == pytest.approx(0.5, abs=0.015)
    assert down.mean() == pytest.approx(0.2, abs=0.015)
    assert (across & down).mean() == pytest.approx(0.1, abs=0.015)


def test_angles_zooms_and_shifts_are_uniform_in_their_ranges() -> None:
    linear, shift = many(rotation=0.1, zoom=0.2, shift=0.25)
    scale = np.sqrt(np.linalg.det(linear))
    degrees = np.degrees(np.arctan2(linear[:, 0, 1], linear[:, 0, 0]))
    assert uniformly(degrees, -36.0, 36.0)
    assert uniformly(scale, 0.8, 1.2)
    assert uniformly(shift[:, 0], -5.0, 5.0)
    assert uniformly(shift[:, 1], -2.5, 2.5)
    drawn = np.corrcoef(np.stack([degrees, scale, *shift.T]))
    assert np.abs(drawn - np.eye(4)).max() < 0.03


def test_quarter_turns_are_as_likely_and_whole_numbers() -> None:
    linear, _ = many(rotate90=True)
    assert set(np.unique(linear)) == {-1.0, 0.0, 1.0}
    quarters = np.round(np.degrees(np.arctan2(linear[:, 0, 1], linear[:, 0, 0])) / 90) % 4
    np.testing.assert_allclose(np.bincount(quarters.astype(int)) / MANY, 0.25, atol=0.015)


def counted(operations: int, menu: int, pictures: int = 4000) -> tuple[Array, Array]:
    """How often each operation was applied to each picture, and which came before which.

    Operation i leaves the picture x as 10 x + i + 1: the digits are the operations in order.
    """
    choices = [(lambda x, u, seed, i=i: 10.0 * x + i + 1.0) for i in range(menu)]
    traced = tf.function(lambda x: _photometry.changed(x, choices, operations, tf.constant([1, 2])))
    digits = np.array(traced(tf.zeros((pictures, 1, 1, 1)))).ravel().astype(int)
    applied = [[int(d) - 1 for d in str(number)] if number else [] for number in digits]
    counts = np.array([len(one) for one in applied])
    assert all(len(set(one)) == len(one) for one in applied)  # none twice
    firsts = np.bincount([one[0] for one in applied if one], minlength=menu)
    return counts, firsts


def test_none_to_five_different_operations_are_drawn_in_random_order() -> None:
    counts, firsts = counted(5, 9)
    np.testing.assert_allclose(np.bincount(counts) / 4000, 1 / 6, atol=0.03)
    np.testing.assert_allclose(firsts / firsts.sum(), 1 / 9, atol=0.03)


def test_no_more_operations_than_there_are() -> None:
    counts, _ = counted(5, 2)
    np.testing.assert_allclose(np.bincount(counts) / 4000, 1 / 3, atol=0.04)


def test_amounts_are_uniform_within_their_settings() -> None:
    flat = {"images": tf.zeros((3000, 1, 1, 3))}
    levels = gray_levels(augment(flat, add=10.0, operations=1)["images"])[:, 0, 0] - 127.5
    changed = levels[np.abs(levels).max(axis=1) > 0]
    assert len(changed) == pytest.approx(1500, abs=120)
    assert uniformly(changed[:, 0], -10.0, 10.0)
    own = np.ptp(changed, axis=1) > 1e-3
    assert own.mean() == pytest.approx(0.5, abs=0.05)

    bright = {"images": tf.fill((3000, 1, 1, 1), -0.5)}
    values = np.array(augment(bright, multiply=0.25, operations=1)["images"]).ravel()
    factors = (values[values != -0.5] + 1.0) / 0.5
    assert uniformly(factors, 0.75, 1.25)
    values = np.array(augment(bright, contrast=1.0, operations=1)["images"]).ravel()
    middle = 128 / 127.5 - 1
    factors = (np.maximum(values, -1.0)[values != -0.5] - middle) / (-0.5 - middle)
    assert uniformly(factors[factors < 1.9], 0.5, 1.9)
    assert factors.max() == pytest.approx(2.0, abs=0.02)


def test_channels_are_inverted_with_their_probability() -> None:
    x = {"images": tf.fill((6000, 1, 1, 3), 0.5)}
    result = np.array(augment(x, invert=0.2, operations=1)["images"])[:, 0, 0]
    assert set(np.unique(result)) == {-0.5, 0.5}
    assert (result < 0).mean() == pytest.approx(0.1, abs=0.01)  # half of the pictures are drawn
    gray = np.array(augment({"images": x["images"][..., :1]}, invert=1.0, operations=1)["images"])
    assert (gray < 0).mean() == pytest.approx(0.5, abs=0.03)


def test_seed_and_position_fix_the_draws_and_every_picture_has_its_own() -> None:
    settings: dict[str, Any] = {**MOVING, **PRESETS["cells"]}
    one = images(first=32, **settings)
    assert equal(one, images(first=32, **settings))
    assert not np.allclose(one, images(first=48, **settings), atol=0.01)
    assert not np.allclose(one, images(first=32, seed=6, **settings), atol=0.01)

    same = {"images": tf.repeat(pictures(1), 8, axis=0)}
    moved = np.array(augment(same, **MOVING)["images"])
    noisy = np.array(augment(same, noise=0.5, operations=1)["images"])
    assert len({one.tobytes() for one in moved}) == 8
    fields = [(one - pictures(1)[0]) for one in noisy if not equal(one, pictures(1)[0])]
    assert len(fields) >= 2
    assert abs(np.corrcoef(np.ravel(fields[0]), np.ravel(fields[1]))[0, 1]) < 0.2


def test_the_draws_of_one_batch_say_nothing_about_the_next() -> None:
    change = ClassicAugment(ClassicConfig(flip=0.5), seed=1)
    x = tf.tile(tf.constant([-1.0, 1.0], shape=(1, 1, 2, 1)), (4, 1, 1, 1))
    positions = tf.data.Dataset.range(0, 4 * 2000, 4)
    mapped = positions.map(lambda first: change({"images": x}, first)["images"])
    flipped = np.array([batch[:, 0, 0, 0] > 0 for batch in mapped.as_numpy_iterator()])
    np.testing.assert_allclose(flipped.mean(axis=0), 0.5, atol=0.05)
    agreeing = flipped[1:] == flipped[:-1]
    np.testing.assert_allclose(agreeing.mean(axis=0), 0.5, atol=0.05)
    assert np.abs(np.corrcoef(flipped.T) - np.eye(4)).max() < 0.1


def test_the_pipeline_gives_what_a_plain_call_gives_and_goes_on_where_it_stopped() -> None:
    change = ClassicAugment(ClassicConfig(preset="cells", rotation=0.1), seed=3)
    x = pictures(4)

    def batches(start: int) -> list[Array]:
        positions = tf.data.Dataset.range(start, 16, 4)
        mapped = positions.map(lambda first: change({"images": x}, first), num_parallel_calls=2)
        return [np.array(batch["images"]) for batch in mapped]

    whole = batches(0)
    assert [equal(a, b) for a, b in zip(whole[2:], batches(8), strict=True)] == [True, True]
    plain = change({"images": x}, tf.constant(4, tf.int64))["images"]
    np.testing.assert_allclose(plain, whole[1], atol=1e-5)


# Range, shapes, settings --------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["thesis", "cells", "flips", "turns"])
def test_pictures_stay_in_range_and_keep_shape_and_type(preset: str, channels: int) -> None:
    x = tf.sign(pictures(16, channels=channels))  # black and white: all that goes out is cut
    result = augment({"images": x}, preset=preset)["images"]
    assert (result.shape, result.dtype) == (x.shape, tf.float32)
    assert -1.0 <= float(tf.reduce_min(result)) < float(tf.reduce_max(result)) <= 1.0
    assert not equal(result, x)


def test_gray_pictures_spend_no_draw_on_becoming_gray() -> None:
    x = {"images": pictures(64, channels=1)}
    assert equal(augment(x, grayscale=1.0)["images"], x["images"])


def test_a_batch_of_unknown_length_keeps_its_known_sides() -> None:
    change = ClassicAugment(ClassicConfig(preset="cells", rotation=0.1), seed=3)
    position = tf.TensorSpec((), tf.int64)
    traced = tf.function(lambda x, first: change({"images": x}, first)["images"])
    concrete = traced.get_concrete_function(tf.TensorSpec((None, 24, 24, 3), tf.float32), position)
    assert concrete.output_shapes.as_list() == [None, 24, 24, 3]


def test_pictures_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, received 4"):
        augment({"images": tf.zeros((1, 8, 8, 4))}, flip=0.5)


def test_presets_are_those_of_the_sources_and_what_is_given_wins() -> None:
    thesis = ClassicConfig(preset="thesis")
    assert (thesis.flip, thesis.flip_vertical, thesis.fill) == (0.5, 0.0, "black")
    assert thesis.rotation * 360 == pytest.approx(36)
    assert (thesis.zoom, thesis.menu) == (0.1, [])
    cells = ClassicConfig(preset="cells")
    assert cells.menu == list(PHOTOMETRIC)
    assert not cells.moves.between_pixels
    assert (cells.operations, cells.blur, cells.noise, cells.invert) == (5, 2.0, 0.05, 0.05)
    assert ClassicConfig(preset="turns").rotate90
    own = ClassicConfig(preset="thesis", flip=0.0, blur=1.0)
    assert (own.flip, own.rotation, own.menu) == (0.0, 0.1, ["blur"])
    assert all(ClassicConfig(preset=name).active for name in PRESETS if name != "none")


def test_resolved_settings_read_back_as_they_were() -> None:
    for preset in PRESETS:
        config = ClassicConfig(preset=preset, shift=0.05)
        assert ClassicConfig(**parse_yaml(as_yaml(config), "")) == config
    layered = resolve(ClassicConfig, [("file", {"preset": "cells"})], ["blur=0.5"])
    assert (layered.blur, layered.sharpen) == (0.5, 1.0)


def test_operations_of_zero_switch_colors_off() -> None:
    assert not ClassicConfig(blur=1.0, operations=0).active
    assert ClassicConfig(preset="cells", operations=0).menu == []


@pytest.mark.parametrize(
    "values",
    [
        {"flip": 1.5},
        {"flip_vertical": -0.1},
        {"rotation": 0.6},
        {"zoom": 1.0},
        {"fill": "grey"},
        {"preset": "all"},
        {"operations": 10},
        {"noise": float("nan")},
        {"sharpen": 1.1},
        {"cutout": 1},
    ],
)
def test_settings_out_of_range_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        resolve(ClassicConfig, [("file", values)])


def test_a_preset_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing is left of the preset flips"):
        ClassicConfig(preset="flips", flip=0.0, flip_vertical=0.0)
    complete = parse_yaml(as_yaml(ClassicConfig()), "")  # a copy of all defaults
    with pytest.raises(UserError, match="Remove those lines"):
        resolve(ClassicConfig, [("file", {**complete, "preset": "thesis"})])
