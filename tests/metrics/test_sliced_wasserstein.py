"""Sliced Wasserstein distance: TF-GAN's values, shapes, flat patches, its floor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.sliced_wasserstein import (
    SlicedWasserstein,
    distance_of_patches,
    laplacian_level,
    level_patches,
    levels_of,
    normalized,
    random_directions,
    sliced_wasserstein,
)

Array = npt.NDArray[Any]
Golden = Mapping[str, Array]


def read(path: Path, size: int) -> Array:
    picture: Any = cv2.imread(str(path))
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def noise(count: int, height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, height, width, channels), np.uint8)


def side(pictures: Array) -> Side:
    names = tuple(f"{i}.png" for i in range(len(pictures)))
    return Side("set", names, pictures=pictures, kept=np.arange(len(pictures)))


def measured(real: Array, fake: Array, **settings: Any) -> Measured:
    metric = SlicedWasserstein(**{"repeats": 1, "directions": 32, **settings})
    (found,) = metric.measure(side(real), side(fake), Context())
    json.dumps(asdict(found), allow_nan=False)
    return found


# Other libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1])
def test_the_pyramid_equals_that_of_tensorflow_gan(golden: Golden, level: int) -> None:
    pictures = golden["in/swd/rgb32/real"]
    found = [laplacian_level(picture, level, 2) for picture in pictures]
    np.testing.assert_allclose(
        found, golden[f"ref/swd/rgb32/tfgan.pyramid_real_{level}"], atol=1e-5
    )


@pytest.mark.parametrize("level", [0, 1])
def test_patches_and_distance_on_fixed_directions_equal_those_of_tensorflow_gan(
    golden: Golden, level: int
) -> None:
    key = "ref/swd/rgb32/tfgan"
    real, fake = (
        normalized(golden[f"{key}.patches_{which}_{level}"])[0] for which in ("real", "fake")
    )
    np.testing.assert_allclose(real[:3], golden[f"{key}.norm_patch_head_{level}"], atol=1e-5)
    directions = golden["in/swd/rgb32/projection_raw"]
    directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
    expected = float(golden[f"{key}.swd_fixed_proj_{level}"])
    assert distance_of_patches(real, fake, directions) == pytest.approx(expected, rel=1e-5)
    singular = np.linalg.svd(np.concatenate([real, fake]), full_matrices=False)[2].T
    expected = float(golden[f"{key}.swd_svd_{level}"])
    assert distance_of_patches(real, fake, singular) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_is_within_the_spread_of_tensorflow_gan(golden: Golden, seed: int) -> None:
    """Columns: two draws of patches of the real pictures; real and generated pictures."""
    levels = sliced_wasserstein(
        golden["in/swd/rgb32/real"],
        golden["in/swd/rgb32/fake"],
        repeats=1,
        directions=147,
        seed=seed,
    )
    found = np.array([(level.redrawn, level.value) for level in levels])
    mean = golden["ref/swd/rgb32/tfgan.swd_default_mean"]
    spread = golden["ref/swd/rgb32/tfgan.swd_default_std"]
    assert (np.abs(found - mean) <= 4 * spread).all()


# Closed forms -------------------------------------------------------------------------------------


def test_shifted_patches_are_as_far_apart_as_the_shift_along_the_direction() -> None:
    first = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    second = first[::-1] + np.array([0.0, 2.0, 0.0], np.float32)
    directions = np.array([[1, 0, 0], [0, 1, 0], [0, 0.6, 0.8]], np.float32).T
    assert distance_of_patches(first, second, directions) == pytest.approx(
        (0 + 2 + 1.2) / 3, rel=1e-5
    )


def test_directions_have_length_one() -> None:
    directions = random_directions(20, 49, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1.0, rtol=1e-6)


def test_the_levels_add_up_to_the_picture() -> None:
    """Doubling the coarse level and adding the detail gives the fine one, also at odd sizes."""
    from tfgan_med.metrics import sliced_wasserstein as module

    picture = noise(1, 45, 70)[0]
    detail, coarse = (laplacian_level(picture, level, 2) for level in (0, 1))
    assert coarse.shape == (23, 35, 3)
    whole = detail + module._doubled(coarse, picture.shape)
    np.testing.assert_allclose(whole, picture, atol=1e-3)


def test_levels_follow_from_the_smaller_side() -> None:
    sides = {16: 1, 31: 1, 32: 2, 64: 3, 100: 3, 128: 4, 256: 5}
    assert {s: levels_of(s, 500) for s in sides} == sides
    with pytest.raises(ValueError, match="16 pixels, received 12 x 40"):
        levels_of(12, 40)


def test_normalizing_removes_brightness_and_contrast() -> None:
    patches = noise(9, 7, 7).astype(np.float32)
    np.testing.assert_allclose(
        normalized(patches)[0], normalized(0.3 * patches + 20.0)[0], atol=1e-4
    )


@pytest.mark.parametrize("value", [0, 3, 201, 255])
def test_even_areas_are_flat_not_rounding_noise(value: int) -> None:
    pictures = np.full((3, 64, 64, 3), value, np.uint8)
    for level in range(3):
        patches, flat = level_patches(pictures, level, 3, 8, np.random.default_rng(0))
        assert flat == 24
        assert (patches == 0).all()


def test_patches_come_from_inside_at_any_shape() -> None:
    pictures = noise(4, 40, 25, 1)
    patches, flat = level_patches(pictures, 0, 1, 500, np.random.default_rng(0))
    assert patches.shape == (2000, 49)
    assert flat == 0
    corners = {tuple(p) for p in normalized(pictures[:1, :7, :7])[0].round(4)}
    assert corners & {tuple(p) for p in patches[:500].round(4)}  # the first corner is drawn too


# The metric ---------------------------------------------------------------------------------------


def test_equal_sets_are_as_close_as_two_draws_of_patches() -> None:
    found = measured(noise(20), noise(20))
    for level in found.details["levels"].values():
        assert level["value"] < 1.5 * level["redrawn_patches"]


def test_the_value_is_the_mean_over_levels_times_1000() -> None:
    found = measured(noise(6), noise(6, seed=1))
    levels = [level["value"] for level in found.details["levels"].values()]
    assert list(found.details["levels"]) == ["32", "16"]
    assert found.value == pytest.approx(np.mean(levels))
    direct = sliced_wasserstein(noise(6), noise(6, seed=1), repeats=1, directions=32)
    assert levels == pytest.approx([1000 * level.value for level in direct])


def test_other_texture_is_further_away_than_the_floor() -> None:
    phase = np.random.default_rng(0).integers(0, 8, (16, 1, 1, 1))
    stripes = (np.arange(32)[:, None, None] + phase) % 8 // 4 * 100 + noise(16, seed=3) // 8
    found = measured(noise(16, seed=2), stripes.astype(np.uint8))
    assert found.value is not None
    assert found.reference is not None
    assert found.value > 2 * found.reference
    assert "8 each" in found.reference_of
    assert found.details["value_at_the_reference's_count"] > 2 * found.reference


def test_sides_give_equally_many_pictures() -> None:
    found = measured(noise(9), noise(5, seed=1))
    assert (found.count_real, found.count_fake) == (5, 5)
    assert measured(noise(9), noise(9), images=4).count_fake == 4


def test_grey_pictures_are_measured_in_one_channel() -> None:
    gray, other = noise(5, channels=1), noise(5, channels=1, seed=1)
    expected = sliced_wasserstein(gray, other, repeats=1, directions=32)
    found = sliced_wasserstein(
        np.repeat(gray, 3, axis=3), np.repeat(other, 3, axis=3), repeats=1, directions=32
    )
    assert [level.value for level in found] == [level.value for level in expected]


def test_the_seed_decides() -> None:
    first, again, other = (
        sliced_wasserstein(noise(4), noise(4, seed=1), repeats=1, directions=16, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_black_borders_are_counted_and_harmless() -> None:
    pictures = np.zeros((6, 64, 64, 3), np.uint8)
    pictures[:, 24:40, 24:40] = noise(6, 16, 16)
    found = measured(pictures, pictures[::-1])
    assert found.value is not None
    assert math.isfinite(found.value)
    assert "flat" in found.notes[0]
    flat = measured(np.zeros_like(pictures), np.zeros_like(pictures))
    assert flat.value == 0.0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="4 real and 1 generated"):
        measured(noise(4), noise(1))
    with pytest.raises(ValueError, match="one size"):
        measured(noise(4), noise(4, 40, 32))
    with pytest.raises(ValueError, match="equally many patches"):
        distance_of_patches(
            np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32), np.eye(4, dtype=np.float32)
        )
    assert measured(noise(3), noise(3)).reference is None


def test_blur_of_real_pictures_is_seen_at_the_finest_level_first(shared: Path) -> None:
    paths = sorted((shared / "data/skin-isic2017").rglob("*.jpg"))[:24]
    real = np.stack([read(p, 64) for p in paths])
    values = []
    for sigma in (0.4, 0.8, 1.6):
        blurred = np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in real])
        levels = sliced_wasserstein(real, blurred, repeats=1, directions=64)
        values.append([level.value for level in levels])
    finest = [v[0] for v in values]
    assert finest == sorted(finest)
    assert values[1][0] > 1.5 * values[1][-1]
