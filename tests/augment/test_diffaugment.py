"""Every operation by its formula, every draw by its distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.augment import diffaugment
from tfgan_med.augment.diffaugment import (
    DiffAugment,
    brightness,
    contrast,
    cutout,
    saturation,
    translation,
)
from tfgan_med.errors import UserError
from tfgan_med.ops.random import uniform

ALL = "color,translation,cutout"
MANY = 20_000


def seed(first: int = 3, second: int = 4) -> tf.Tensor:
    return tf.constant([first, second], tf.int64)


def pictures(*shape: int) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, (1, 2), -1.0, 1.0)


def column(*values: float) -> tf.Tensor:
    return tf.constant(values, tf.float32)


def pixels(*values: int) -> tf.Tensor:
    return tf.constant(values, tf.int32)


# Single operations


def test_brightness_adds_what_u_is_above_one_half() -> None:
    x = pictures(3, 4, 5, 2)
    result = brightness(x, column(0.0, 0.5, 0.875))
    for index, added in enumerate((-0.5, 0.0, 0.375)):
        np.testing.assert_allclose(result[index], x[index] + added, atol=1e-7)


def test_saturation_scales_the_distance_to_the_mean_of_a_pixel() -> None:
    x = tf.reshape(column(0.0, 0.3, 0.9), (1, 1, 1, 3))  # mean 0.4
    for u, expected in ((0.0, [0.4] * 3), (0.5, [0.0, 0.3, 0.9]), (1.0, [-0.4, 0.2, 1.4])):
        np.testing.assert_allclose(saturation(x, column(u))[0, 0, 0], expected, atol=1e-6)


def test_a_single_channel_has_no_saturation() -> None:
    x = pictures(2, 4, 4, 1)
    np.testing.assert_array_equal(saturation(x, column(0.1, 0.9)), x)


def test_contrast_scales_the_distance_to_the_mean_of_each_picture() -> None:
    x = tf.reshape(tf.range(16, dtype=tf.float32), (2, 2, 2, 2))  # means 3.5 and 11.5
    result = contrast(x, column(0.0, 0.75))
    np.testing.assert_allclose(result[0], (x[0] - 3.5) * 0.5 + 3.5)
    np.testing.assert_allclose(result[1], (x[1] - 11.5) * 1.25 + 11.5)


def test_colors_are_unchanged_at_one_half() -> None:
    x, half = pictures(2, 8, 8, 3), column(0.5, 0.5)
    for operation in (brightness, saturation, contrast):
        np.testing.assert_allclose(operation(x, half), x, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_quick_form_of_the_colors_is_the_three_operations_in_turn(channels: int) -> None:
    x = pictures(5, 6, 7, channels)
    draws = tf.unstack(tf.random.stateless_uniform((3, 5), (7, 8)))
    in_turn = contrast(saturation(brightness(x, draws[0]), draws[1]), draws[2])
    quick = DiffAugment("color", (channels,))._recolored(x, draws)
    np.testing.assert_allclose(quick, in_turn, atol=1e-6)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (2, 1), (-3, -2), (0, -4), (4, 3), (-4, 0)])
def test_a_pixel_moves_down_by_dy_and_right_by_dx(dy: int, dx: int) -> None:
    x = np.zeros((1, 9, 8, 2), np.float32)
    x[0, 4, 4] = (0.5, -1.0)
    expected = np.zeros_like(x)
    expected[0, 4 + dy, 4 + dx] = (0.5, -1.0)
    np.testing.assert_array_equal(translation(x, pixels(dy), pixels(dx)), expected)


def test_every_picture_moves_on_its_own_and_zeros_come_in() -> None:
    x = pictures(3, 6, 5, 3)
    result = translation(x, pixels(2, -1, 0), pixels(-3, 0, 1)).numpy()
    expected = np.zeros_like(result)
    expected[0, 2:, :2] = x[0, :4, 3:]
    expected[1, :5] = x[1, 1:]
    expected[2, :, 1:] = x[2, :, :4]
    np.testing.assert_array_equal(result, expected)


def test_a_picture_can_leave_altogether() -> None:
    assert not translation(pictures(1, 4, 4, 1), pixels(4), pixels(0)).numpy().any()


def test_the_gradient_of_a_shift_is_the_shift_back_and_so_on() -> None:
    x, upstream = tf.Variable(pictures(2, 6, 6, 2)), pictures(2, 6, 6, 2)
    dy, dx = pixels(2, -1), pixels(1, 3)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            value = tf.reduce_sum(translation(x, dy, dx) ** 2 / 2)
        first = inner.gradient(value, x)
    shown = translation(tf.ones_like(x), -dy, -dx)  # 1 where a pixel is still to be seen
    np.testing.assert_allclose(first, x * shown)
    np.testing.assert_allclose(outer.gradient(first, x, upstream), upstream * shown)


@pytest.mark.parametrize(
    ("center", "first", "last"), [(0, 0, 3), (1, 0, 4), (4, 0, 7), (13, 9, 15), (16, 12, 15)]
)
def test_the_square_has_half_the_side_and_is_clipped_at_the_border(
    center: int, first: int, last: int
) -> None:
    expected = np.ones((1, 16, 16, 3), np.float32)
    expected[0, first : last + 1, 2:10] = 0.0
    np.testing.assert_array_equal(
        cutout(tf.ones_like(expected), pixels(center), pixels(6)), expected
    )


def test_an_odd_square_surrounds_its_center() -> None:
    result = cutout(tf.ones((1, 10, 6, 1)), pixels(0), pixels(2)).numpy()  # 5 rows, 3 columns
    expected = np.ones((1, 10, 6, 1), np.float32)
    expected[0, 0:3, 1:4] = 0.0
    np.testing.assert_array_equal(result, expected)


# Draws


def test_brightness_is_uniform_within_one_half() -> None:
    drawn = DiffAugment("color", (1,))(tf.zeros((MANY, 1, 1, 1)), seed()).numpy().ravel()
    assert_uniform(drawn + 0.5)


def test_saturation_is_uniform_from_none_to_double() -> None:
    x = tf.tile(tf.reshape(column(-0.5, 0.5), (1, 1, 1, 2)), (MANY, 1, 1, 1))
    both = DiffAugment("color", (2,))(x, seed()).numpy()
    # The distance of the channels is 2 u_s (u_c + 1/2); that of two pixels gives the second factor.
    factor = contrast_factors(seed())
    assert_uniform((both[:, 0, 0, 1] - both[:, 0, 0, 0]) / factor / 2)


def test_contrast_is_uniform_from_one_half_to_one_and_a_half() -> None:
    assert_uniform(contrast_factors(seed()) - 0.5)


def contrast_factors(numbers: tf.Tensor) -> npt.NDArray[np.float64]:
    x = tf.tile(tf.reshape(column(-0.5, 0.5), (1, 1, 2, 1)), (MANY, 1, 1, 1))
    result = DiffAugment("color", (1,))(x, numbers).numpy().astype(np.float64)
    return np.asarray(result[:, 0, 1, 0] - result[:, 0, 0, 0])


def assert_uniform(u: npt.NDArray[Any]) -> None:
    """Kolmogorov-Smirnov distance to U(0, 1): above 1.63 / sqrt(n) once in 100 seeds."""
    ordered = np.sort(u.astype(np.float64))
    steps = np.arange(len(u) + 1) / len(u)
    distance = max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1]))
    assert distance < 1.63 / np.sqrt(len(u))
    assert ordered[0] > -1e-6
    assert ordered[-1] < 1 + 1e-6


@pytest.mark.parametrize(("side", "limit"), [(16, 2), (20, 3), (3, 0)])
def test_shifts_are_uniform_and_both_ends_are_among_them(side: int, limit: int) -> None:
    dy, dx = shifts(side, seed())
    for shift in (dy, dx):
        values, counts = np.unique(shift, return_counts=True)
        np.testing.assert_array_equal(values, range(-limit, limit + 1))
        assert_even(counts)
    pairs = np.unique(np.stack([dy, dx]), axis=1, return_counts=True)[1]
    assert len(pairs) == (2 * limit + 1) ** 2
    assert_even(pairs)


def shifts(side: int, numbers: tf.Tensor) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Where the middle pixel went, from pictures that hold their own coordinates."""
    middle = side // 2
    row, col = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    x = tf.constant(np.stack([row, col], -1)[None], tf.float32)
    found = []
    for part in range(0, MANY, 1000):
        batch = tf.tile(x, (1000, 1, 1, 1))
        moved = DiffAugment("translation", (2,))(batch, numbers + part).numpy()
        found.append(middle - moved[:, middle, middle])
    dy, dx = np.concatenate(found).T.astype(int)
    return dy, dx


def assert_even(counts: npt.NDArray[Any]) -> None:
    """Chi-squared of equal shares: mean k - 1, standard deviation sqrt(2 (k - 1))."""
    expected = counts.sum() / len(counts)
    statistic, freedom = np.sum((counts - expected) ** 2 / expected), len(counts) - 1
    assert statistic <= freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("side", [8, 16, 10])
def test_the_square_covers_the_area_of_a_clipped_one(side: int) -> None:
    x = tf.ones((MANY, side, side, 1))
    shown = DiffAugment("cutout", (1,))(x, seed()).numpy()[..., 0] > 0
    extent = side // 2
    half, centers = extent // 2, side + 1 - extent % 2
    # A center j < extent // 2 from a border loses extent // 2 - j lines beyond it.
    lines = extent - half * (half + 1) / centers
    covered = side**2 - shown.sum((1, 2))
    deviation = covered.std() / np.sqrt(MANY)
    assert covered.mean() == pytest.approx(lines**2, abs=4 * deviation)
    rows, columns = (~shown).any(2).sum(1), (~shown).any(1).sum(1)
    np.testing.assert_array_equal(rows * columns, covered)  # a rectangle without holes
    smallest = extent - half
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (smallest, extent)


def test_the_square_reaches_over_all_borders_alike() -> None:
    x = tf.ones((MANY, 16, 16, 1))
    covered = (DiffAugment("cutout", (1,))(x, seed()).numpy()[..., 0] == 0).mean(0)
    margin = 4 * np.sqrt(0.25 / MANY)
    np.testing.assert_allclose(covered, covered[::-1], atol=2 * margin)
    np.testing.assert_allclose(covered, covered.T, atol=2 * margin)


def test_draws_of_a_picture_and_of_neighbors_are_uncorrelated() -> None:
    draws = uniform((MANY, diffaugment.DRAWS), seed()).numpy()
    both = np.concatenate([draws[:-1], draws[1:]], axis=1)  # a picture beside the next one
    correlation = np.corrcoef(both.T) - np.eye(2 * diffaugment.DRAWS)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(MANY)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", ALL])
def test_pictures_of_a_batch_change_differently(policy: str) -> None:
    x = tf.tile(pictures(1, 32, 32, 3), (16, 1, 1, 1))
    result = DiffAugment(policy, (3,))(x, seed()).numpy()
    assert len(np.unique(result.reshape(16, -1), axis=0)) >= 12


def test_the_seed_and_nothing_else_decides() -> None:
    x, augment = pictures(4, 16, 16, 3), DiffAugment(ALL, (3,))
    first = augment(x, seed()).numpy()
    np.testing.assert_array_equal(augment(x, seed()), first)
    np.testing.assert_array_equal(DiffAugment(ALL, (3,))(x, seed()), first)
    for other in (seed(4, 4), seed(3, 5), seed(4, 3)):
        assert not np.allclose(augment(x, other), first)


def test_colors_are_drawn_alike_whatever_follows() -> None:
    x = tf.fill((4, 16, 16, 1), 2.0)
    alone = DiffAugment("color", (1,))(x, seed()).numpy()
    together = DiffAugment(ALL, (1,))(x, seed()).numpy()
    shown = together != 0
    np.testing.assert_array_equal(together[shown], alone[shown])


# Groups


def test_the_operations_follow_one_another_in_the_papers_order_per_group() -> None:
    x = pictures(6, 16, 16, 5)
    u = tf.unstack(uniform((6, diffaugment.DRAWS), seed()), axis=1)
    parts = [x[..., :3], x[..., 3:4], x[..., 4:]]
    for index in (0, 2):
        for operation, draw in zip((brightness, saturation, contrast), u, strict=False):
            parts[index] = operation(parts[index], draw)
    expected = tf.concat(parts, -1)
    shift = [np.floor(5 * draw.numpy()).astype(np.int32) - 2 for draw in u[3:5]]
    expected = translation(expected, *map(tf.constant, shift))
    center = [np.floor(17 * draw.numpy()).astype(np.int32) for draw in u[5:7]]
    expected = cutout(expected, *map(tf.constant, center))
    result = DiffAugment("cutout,translation,color", (3, 1, 1), color_groups=(0, 2))(x, seed())
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_colors_leave_masks_bit_for_bit() -> None:
    x = pictures(4, 8, 8, 5)
    result = DiffAugment("color", (3, 2), color_groups=(0,))(x, seed()).numpy()
    np.testing.assert_array_equal(result[..., 3:], x[..., 3:])
    assert (np.abs(result[..., :3] - x[..., :3]).mean((1, 2, 3)) > 0.01).all()


def test_a_mask_moves_with_its_picture() -> None:
    x = pictures(8, 16, 16, 1)
    pair = tf.concat([x, -x], -1)
    augment = DiffAugment("translation,cutout", (1, 1), color_groups=(0,))
    result = augment(pair, seed()).numpy()
    np.testing.assert_array_equal(result[..., 0], -result[..., 1])


def test_one_joint_group_bleeds_the_mask_into_the_picture_and_two_do_not() -> None:
    picture = tf.tile(pictures(2, 8, 8, 1), (1, 1, 1, 3))  # grey: saturation alone does nothing
    full, empty = (tf.concat([picture, tf.fill((2, 8, 8, 1), v)], -1) for v in (1.0, -1.0))

    def colors(groups: tuple[int, ...]) -> list[npt.NDArray[np.float32]]:
        augment = DiffAugment("color", groups)
        return [augment(x, seed()).numpy()[..., :3] for x in (full, empty)]

    apart, joint = colors((3, 1)), colors((4,))
    np.testing.assert_array_equal(apart[0], apart[1])
    assert np.abs(joint[0] - joint[1]).max() > 0.05


def test_no_group_need_change_its_colors() -> None:
    x = pictures(2, 8, 8, 3)
    np.testing.assert_array_equal(DiffAugment("color", (3,), color_groups=())(x, seed()), x)


def test_groups_that_do_not_make_up_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected 4 channels.*\(3, 1\).*\(2, 8, 8, 3\)"):
        DiffAugment("color", (3, 1))(pictures(2, 8, 8, 3), seed())


def test_a_color_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no channel group 2"):
        DiffAugment("color", (3, 1), color_groups=(0, 2))


# Policies


@pytest.mark.parametrize("policy", ["", "  "])
def test_an_empty_policy_is_false_and_changes_nothing(policy: str) -> None:
    x, augment = pictures(2, 8, 8, 3), DiffAugment(policy, (3,))
    assert not augment
    assert augment(x, seed()) is x
    assert DiffAugment("cutout", (3,))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("colour", r'model.augment: .*"colour". Did you mean "color"\? Expected .*cutout'),
        ("color, translate", r'"translate". Did you mean "translation"\?'),
        ("color;cutout", 'model.augment: there is no operation "color;cutout"'),
        ("color,", 'there is no operation "". Expected'),
    ],
)
def test_an_unknown_operation_names_the_setting_and_the_nearest(policy: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiffAugment(policy, (3,))


# Graphs, precision, gradients


def augmented(images: tf.Tensor, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Result and gradient of half its sum of squares."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        result = DiffAugment(ALL, (3, 1), (0,))(images, numbers)
        loss = tf.reduce_sum(tf.cast(result, tf.float32) ** 2) / 2
    return result, tape.gradient(loss, images)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float16", 0.02), ("bfloat16", 0.15)]
)
@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_graphs_and_half_precision_give_the_eager_float32_values(
    dtype: str, tolerance: float, compiled: bool
) -> None:
    x = pictures(8, 32, 32, 4)
    expected = augmented(x, seed())
    function: Callable[..., Any] = tf.function(augmented, jit_compile=compiled)
    for ours, theirs in zip(function(tf.cast(x, dtype), seed()), expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(tf.cast(ours, "float32"), theirs, atol=tolerance)


def test_the_mean_of_a_large_bright_picture_does_not_overflow_float16() -> None:
    x = tf.fill((1, 256, 256, 3), tf.constant(1.0, tf.float16))  # a sum of 196 608
    result = DiffAugment("color", (3,))(x, seed()).numpy()
    added = float(uniform((1, diffaugment.DRAWS), seed())[0, 0]) - 0.5
    np.testing.assert_allclose(result, 1.0 + added, atol=2e-3)
    for operation in (saturation, contrast):
        np.testing.assert_allclose(operation(x, column(0.9)), 1.0, atol=2e-3)


def test_the_gradient_of_the_sum_is_the_transposed_change_of_ones() -> None:
    x = pictures(3, 16, 16, 4)
    augment = DiffAugment(ALL, (3, 1), (0,))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(augment(x, seed()))
    gradient = tape.gradient(total, x).numpy()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).sum((1, 2)) > 0).all()
    # T is affine, so <gradient, d> = sum(T(x + d)) - sum(T(x)) for every d, small or not.
    change = tf.random.stateless_normal(x.shape, (5, 6))
    expected = tf.reduce_sum(augment(x + change, seed()) - augment(x, seed()))
    assert float(tf.reduce_sum(gradient * change)) == pytest.approx(float(expected), abs=2e-3)
    # Masks are only moved and cut: 1 where a pixel is still to be seen, else 0.
    assert set(np.unique(gradient[..., 3])) == {0.0, 1.0}


def test_a_batch_of_unknown_size_is_augmented_too() -> None:
    augment = DiffAugment(ALL, (3,))
    function = tf.function(
        augment,
        input_signature=[tf.TensorSpec((None, 16, 16, 3)), tf.TensorSpec((2,), tf.int64)],
    )
    x = pictures(5, 16, 16, 3)
    np.testing.assert_allclose(function(x, seed()), augment(x, seed()), atol=1e-6)
