"""Squares from pictures of any size, and back."""

from __future__ import annotations

import numpy as np
import pytest

from tfgan_med.data.fitting import Policy, fit, place, resize, unfit


def ramp(height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    """A smooth picture: rows rise to half of the type's range, columns add the other half."""
    top = np.iinfo(dtype).max if dtype.startswith("uint") else 1.0
    rows, columns = np.linspace(0, 0.5, height)[:, None], np.linspace(0, 0.5, width)[None, :]
    return ((rows + columns) * top).astype(dtype)[..., None]


def test_crop_takes_the_middle_square() -> None:
    picture = np.arange(4 * 10, dtype=np.uint8).reshape(4, 10, 1)
    tiles, _ = fit(picture, 4, "crop", nearest=True)
    assert (tiles[0] == picture[:, 3:7]).all()


def test_pad_repeats_the_border_and_is_undone() -> None:
    picture = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8, 1)
    tiles, placement = fit(picture, 8, "pad", nearest=True)
    assert tiles.shape == (1, 8, 8, 1)
    assert (tiles[0, :2] == picture[0]).all()
    assert (tiles[0, 6:] == picture[3]).all()
    assert (unfit(tiles, placement, nearest=True) == picture).all()


@pytest.mark.parametrize("policy", ["pad", "stretch", "patches"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_smooth_pictures_come_back(policy: Policy, dtype: str) -> None:
    picture = ramp(96, 150, dtype)
    tiles, placement = fit(picture, 64, policy, nearest=False)
    back = unfit(tiles, placement, nearest=False)
    assert back.shape == picture.shape
    assert back.dtype == picture.dtype
    # resizing flattens the outermost pixels, whose slope is 0.5 / 96 of the range
    tolerance = 0.02 * np.iinfo(dtype).max
    assert np.abs(back.astype(int) - picture.astype(int)).max() <= tolerance


def test_tiles_without_resizing_come_back_exactly() -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (100, 130, 3), np.uint16)
    tiles, placement = fit(picture, 64, "patches", nearest=False)
    assert len(tiles) == 2 * 3
    assert (unfit(tiles, placement, nearest=False) == picture).all()


def test_tiles_cover_everything_with_even_overlap() -> None:
    tops = sorted({top for top, _ in place(100, 64, 32, "patches").corners})
    assert tops == [0, 23, 45, 68]  # 68 = 100 - 32, in three steps


def test_a_picture_smaller_than_a_tile_is_padded_and_comes_back() -> None:
    picture = ramp(20, 50)
    tiles, placement = fit(picture, 32, "patches", nearest=True)
    assert tiles.shape == (2, 32, 32, 1)
    assert (unfit(tiles, placement, nearest=True) == picture).all()


def test_scale_resizes_before_tiles_are_cut() -> None:
    placement = place(100, 200, 50, "patches", scale=0.5)
    assert placement.inner == (50, 100)
    assert placement.corners == ((0, 0), (0, 50))


def test_overlapping_predictions_are_averaged() -> None:
    _, placement = fit(np.zeros((4, 6, 1), np.float32), 4, "patches", nearest=False)
    tiles = np.stack([np.full((4, 4, 1), value, np.float32) for value in (0.0, 1.0)])
    row = unfit(tiles, placement, nearest=False)[0, :, 0]
    # columns 2 and 3 belong to both tiles, with weights 2:1 and 1:2
    assert row == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


def test_shrinking_averages_and_does_not_pick() -> None:
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))[..., None]
    small = resize(stripes, (16, 16), nearest=False)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 100).max() <= 5


def test_masks_keep_their_values() -> None:
    values = np.random.default_rng(0).choice([0, 7, 300], (37, 53, 1)).astype(np.uint16)
    assert set(np.unique(resize(values, (20, 70), nearest=True))) <= {0, 7, 300}


def test_a_mask_stays_on_its_picture() -> None:
    mask = np.zeros((90, 120, 1), np.uint8)
    mask[20:60, 30:90] = 255
    shrunk = resize(mask, (45, 60), nearest=False) > 127
    assert (shrunk == (resize(mask, (45, 60), nearest=True) > 0)).all()
