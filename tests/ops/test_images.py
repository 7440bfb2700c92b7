"""Pixels and tensors: exact round trips, sheets of samples."""

from __future__ import annotations

import numpy as np
import pytest

from tfgan_med.ops.images import as_rgb, from_pixels, from_uint8, grid, to_pixels, to_uint8


def test_every_8_bit_value_comes_back() -> None:
    values = np.arange(256, dtype=np.uint8)
    tensor = from_uint8(values)
    assert (tensor[0], tensor[255]) == (-1.0, 1.0)
    assert (to_uint8(tensor) == values).all()


def test_values_outside_are_clipped_and_others_rounded() -> None:
    # 127.5 (x + 1) = -127.5, 63.75, 127.75, 382.5
    assert to_uint8([-2.0, -0.5, 0.25 / 127.5, 2.0]).tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize("window", [(0.0, 65535.0), (1000.0, 5095.0)])
def test_a_16_bit_ramp_comes_back_within_its_window(window: tuple[float, float]) -> None:
    ramp = np.arange(65536, dtype=np.uint16)
    back = to_pixels(from_pixels(ramp, window), window, "uint16")
    assert (back == np.clip(ramp, *window)).all()


def test_float_pictures_keep_their_units() -> None:
    back = to_pixels(np.array([-1.0, 0.0, 1.0]), (-1000.0, 400.0), "float32")
    assert back.tolist() == [-1000.0, -300.0, 400.0]


def test_integer_types_are_not_left() -> None:
    assert to_pixels(np.array([-1.0, 1.0]), (-100.0, 300.0), "uint8").tolist() == [0, 255]


def test_a_grid_has_white_lines_and_white_missing_cells() -> None:
    sheet = grid(np.zeros((3, 4, 5, 3), np.uint8), columns=2, gutter=1)
    assert sheet.shape == (9, 11, 3)
    expected = np.full((9, 11), 255)
    expected[:4, :5] = expected[:4, 6:] = expected[5:, :5] = 0
    assert (sheet == expected[..., None]).all()


def test_grids_read_from_left_to_right() -> None:
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
    assert grid(pictures, columns=3, gutter=0)[..., 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_gray_and_masks_become_equal_channels() -> None:
    shown = as_rgb(np.array([-1.0, 1.0]).reshape(1, 1, 2, 1), "mask")
    assert shown.tolist() == [[[[0, 0, 0], [255, 255, 255]]]]


def test_every_class_has_a_color_of_its_own() -> None:
    shown = as_rgb(np.eye(12)[None, None], "labels")[0, 0]
    assert shown[0].tolist() == [0, 0, 0]
    assert len({tuple(color) for color in shown.tolist()}) == 12


def test_two_channels_are_no_picture() -> None:
    with pytest.raises(ValueError, match="one or three channels"):
        as_rgb(np.zeros((1, 2, 2, 2)), "image")
