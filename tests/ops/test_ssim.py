"""SSIM and MS-SSIM: TensorFlow's and scikit-image's values, all pairs, and bounds that hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.ops import ssim as module
from tfgan_med.ops.ssim import (
    SCALE_WEIGHTS,
    largest_scales,
    ms_ssim,
    scale_weights,
    similarity_matrix,
    ssim,
    upper_bounds,
    without_equal_channels,
)

Array = npt.NDArray[Any]
Golden = Mapping[str, Array]


def read(path: Path, size: int) -> Array:
    picture: Any = cv2.imread(str(path))
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def noise(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, height, width, channels), np.uint8)


def smooth(count: int, side: int, channels: int, sigma: float, seed: int = 0) -> Array:
    """Blurred noise over 0..255, of contrasts from faint to strong."""
    pictures = noise(count, side, side, channels, seed).astype(np.float32)
    blurred = [cv2.GaussianBlur(p, (0, 0), sigma).reshape(p.shape) - 127.5 for p in pictures]
    strength = np.geomspace(1.0, 3.0 * sigma, count)
    shift = np.random.default_rng(seed).uniform(60, 200, count)
    return np.stack(
        [np.clip(b * s + m, 0, 255) for b, s, m in zip(blurred, strength, shift, strict=True)]
    ).astype(np.uint8)


# Other libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rgb", "gray"])
@pytest.mark.parametrize(
    "library", ["tf215.ssim", "tf221.ssim", "skimage.ssim_gauss11_sigma1.5_wang"]
)
def test_ssim_equals_that_of_tensorflow_and_scikit_image(
    golden: Golden, name: str, library: str
) -> None:
    value = ssim(golden[f"in/ssim/{name}/a"], golden[f"in/ssim/{name}/b"])
    assert float(value) == pytest.approx(float(golden[f"ref/ssim/{name}/{library}"]), abs=2e-5)


def test_ms_ssim_of_five_scales_equals_that_of_tensorflow(golden: Golden) -> None:
    images, pairs = golden["in/msssim/gray192/images"], golden["ref/msssim/gray192/pair_index"]
    values = ms_ssim(images[pairs[:, 0]], images[pairs[:, 1]])
    np.testing.assert_allclose(values, golden["ref/msssim/gray192/tf221.pairs"], atol=2e-5)


def test_three_scales_equal_those_of_tensorflow_with_its_weights(golden: Golden) -> None:
    images, pairs = golden["in/msssim/gray192/images"], golden["ref/msssim/gray192/pair_index"]
    values = ms_ssim(images[pairs[:, 0]], images[pairs[:, 1]], scales=3, renormalize=False)
    np.testing.assert_allclose(values, golden["ref/msssim/gray192/tf221.pairs_3scales"], atol=2e-5)


@pytest.mark.parametrize("size", [(97, 121), (46, 51), (89, 88)])
def test_odd_sizes_are_halved_as_by_tensorflow(size: tuple[int, int]) -> None:
    tf = pytest.importorskip("tensorflow")
    a = noise(1, *size)[0].astype(np.float32)
    b = 0.7 * a + 0.3 * noise(1, *size, seed=1)[0].astype(np.float32)
    weights = scale_weights(largest_scales(*size))
    expected = float(tf.image.ssim_multiscale(a, b, 255.0, power_factors=weights))
    assert float(ms_ssim(a, b)) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("case", ["rgb32", "nocopy"])
def test_the_matrix_equals_that_of_scikit_image(golden: Golden, case: str) -> None:
    fake, real = golden[f"in/cid/{case}/fake"], golden[f"in/cid/{case}/real"]
    reference = f"ref/cid/{case}/skimage.ssim_wang"
    np.testing.assert_allclose(
        similarity_matrix(fake, real), golden[f"{reference}_fake_real"], atol=2e-5
    )
    np.testing.assert_allclose(similarity_matrix(fake), golden[f"{reference}_fake_fake"], atol=2e-5)


# Closed forms -------------------------------------------------------------------------------------


def test_constant_pictures_have_the_luminance_term() -> None:
    """`(2 ab + C1) / (a² + b² + C1)` with a = 1, b = 1/2: C1 = 1e-4."""
    white, gray = np.full((16, 16, 1), 1.0), np.full((16, 16, 1), 0.5)
    expected = (1.0 + 1e-4) / (1.25 + 1e-4)
    assert float(ssim(white, gray, 1.0)) == pytest.approx(expected, abs=2e-5)
    assert float(ssim(white, white, 1.0)) == pytest.approx(1.0, abs=1e-6)


def test_a_picture_and_its_negative_are_opposed() -> None:
    """Means of 1/2 and covariance -s²: `cs = (C2 - 2 s²) / (2 s² + C2)`, near -1."""
    board = np.indices((32, 32)).sum(axis=0)[..., None] % 2 * 1.0
    assert float(ssim(board, 1.0 - board, 1.0)) == pytest.approx(-1.0, abs=5e-3)
    assert float(ms_ssim(board, 1.0 - board, 1.0, scales=1)) == 0.0


def test_the_range_of_the_data_cancels() -> None:
    a, b = noise(1, 20, 20)[0], noise(1, 20, 20, seed=1)[0]
    assert float(ssim(a, b)) == pytest.approx(float(ssim(a / 255.0, b / 255.0, 1.0)), abs=1e-6)


def test_equal_pictures_have_similarity_one_at_every_scale() -> None:
    a = noise(2, 180, 176, 1)
    np.testing.assert_allclose(ms_ssim(a, a), 1.0, atol=1e-6)


def test_scales_follow_from_the_smaller_side() -> None:
    sides = {11: 1, 21: 1, 22: 2, 44: 3, 87: 3, 88: 4, 175: 4, 176: 5, 1000: 5}
    assert {side: largest_scales(side, 2000) for side in sides} == sides


def test_weights_of_fewer_scales_add_up_to_one() -> None:
    assert sum(scale_weights(3)) == pytest.approx(1.0)
    assert scale_weights(5) == SCALE_WEIGHTS
    assert scale_weights(2, renormalize=False) == SCALE_WEIGHTS[:2]


# All pairs ----------------------------------------------------------------------------------------


def test_grey_pictures_are_compared_in_one_channel() -> None:
    color = np.repeat(noise(3, 24, 24, 1), 3, axis=3)
    (gray,) = without_equal_channels(color)
    assert gray.shape == (3, 24, 24, 1)
    np.testing.assert_allclose(similarity_matrix(gray), similarity_matrix(color), atol=1e-6)
    mixed = without_equal_channels(color, noise(3, 24, 24))
    assert [m.shape[3] for m in mixed] == [3, 3]


@pytest.mark.parametrize("shape", [(27, 40), (64, 33)])
def test_all_pairs_equal_pair_by_pair(shape: tuple[int, int]) -> None:
    a, b = noise(5, *shape), noise(7, *shape, seed=1)
    expected = [[float(ssim(x, y)) for y in b] for x in a]
    np.testing.assert_allclose(similarity_matrix(a, b), expected, atol=1e-6)


@pytest.mark.parametrize(("sigma", "channels"), [(0.6, 1), (2.0, 3), (6.0, 1)])
def test_no_similarity_is_above_its_bound(sigma: float, channels: int) -> None:
    pictures = smooth(24, 37, channels, sigma)
    near = np.clip(pictures + np.random.default_rng(1).normal(0, 3, pictures.shape), 0, 255)
    every = np.concatenate([pictures, near.astype(np.uint8), noise(4, 37, 37, channels)])
    assert (upper_bounds(every, every) >= similarity_matrix(every)).all()


def test_no_similarity_of_extreme_pictures_is_above_its_bound() -> None:
    """Black, white, halves, checkerboards, stripes, single pixels."""
    ramps = np.indices((43, 43))
    pictures = [np.zeros((43, 43)), np.full((43, 43), 255), (ramps[0] > 20) * 255]
    pictures += [(ramps.sum(axis=0) % 2) * 255, (ramps[1] % 2) * 255, ramps[0] == ramps[1]]
    pictures += [(ramps.sum(axis=0) % 2) * 1, 254 + (ramps[1] % 2), (ramps[0] % 7 == 3) * 200]
    stack = np.stack(pictures).astype(np.uint8)[..., None]
    bounds, values = upper_bounds(stack, stack), similarity_matrix(stack)
    assert np.isfinite(bounds).all()
    assert (bounds >= values).all()


def test_pictures_that_differ_in_brightness_and_are_opposed_are_below_their_bound() -> None:
    """A negative covariance is weakened by the luminance: `l * cs > cs`."""
    board = (np.indices((32, 32)).sum(axis=0) % 2 * 40)[..., None]
    stack = np.stack([board + 10, (40 - board) + 200, 40 - board]).astype(np.uint8)
    assert (upper_bounds(stack, stack) >= similarity_matrix(stack)).all()


def test_few_pictures_are_compared_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW_PAIRS", 0)
    one, many = noise(1, 12, 12, 1), noise(5100, 12, 12, 1)
    found = similarity_matrix(one, many, at_least=0.3)
    assert found.shape == (1, 5100)


def test_bounds_are_tight_enough_to_rule_out_pictures_of_other_scenes() -> None:
    pictures = smooth(30, 64, 1, 2.0)[10:]
    rows, columns = np.triu_indices(len(pictures), 1)
    assert (similarity_matrix(pictures)[rows, columns] < 0.4).all()
    assert (upper_bounds(pictures, pictures)[rows, columns] < 0.6).mean() > 0.9


@pytest.mark.parametrize("at_least", [0.3, 0.8])
def test_pruning_changes_no_similarity_of_interest(
    at_least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FEW_PAIRS", 0)
    base = smooth(60, 32, 1, 2.0)
    shaken = np.clip(base + np.random.default_rng(2).normal(0, 4, base.shape), 0, 255)
    second = np.concatenate([shaken.astype(np.uint8), noise(30, 32, 32, 1)])
    for other in (second, None):
        everything = similarity_matrix(base, other)
        pruned = similarity_matrix(base, other, at_least=at_least)
        same = everything >= at_least
        assert same.any()
        np.testing.assert_array_equal(pruned >= at_least, same)
        np.testing.assert_allclose(pruned[same], everything[same], atol=1e-6)
        assert (pruned < everything).sum() == 0


def test_pruning_saves_work(monkeypatch: pytest.MonkeyPatch) -> None:
    base, compared = smooth(80, 32, 1, 2.0)[20:], 0
    original = module.channel_similarities

    def counting(one: Any, others: Any) -> Any:
        nonlocal compared
        compared += len(others)
        return original(one, others)

    monkeypatch.setattr(module, "channel_similarities", counting)
    monkeypatch.setattr(module, "_FEW_PAIRS", 0)
    similarity_matrix(base, noise(60, 32, 32, 1), at_least=0.8)
    assert compared < 360  # a tenth


def test_progress_reaches_all_pairs() -> None:
    seen: list[tuple[int, int]] = []
    similarity_matrix(noise(3, 12, 12), noise(4, 12, 12), progress=lambda *p: seen.append(p))
    assert seen[-1] == (12, 12)


# Faults -------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="11 x 11 pixels, received 10 x 40"):
        ssim(noise(1, 10, 40), noise(1, 10, 40))
    with pytest.raises(ValueError, match="allow 3 scale"):
        ms_ssim(noise(1, 64, 64), noise(1, 64, 64), scales=4)
    with pytest.raises(ValueError, match="one shape"):
        ssim(noise(1, 20, 20), noise(1, 20, 21))
    with pytest.raises(ValueError, match="one size"):
        similarity_matrix(noise(1, 20, 20), noise(1, 20, 21))


def test_blur_and_noise_lower_the_similarity_of_a_real_picture(shared: Path) -> None:
    path = sorted((shared / "data/skin-isic2017").rglob("*.jpg"))[0]
    picture = read(path, 96)
    grain = np.random.default_rng(0).normal(size=picture.shape)
    blurred = [cv2.GaussianBlur(picture, (0, 0), s) for s in (0.5, 1.0, 2.0, 4.0)]
    noisy = [np.clip(picture + grain * s, 0, 255) for s in (2, 5, 10, 30)]
    for worse in (blurred, noisy):
        for score in (ssim, ms_ssim):
            values = [float(score(picture, other)) for other in worse]
            assert values == sorted(values, reverse=True)
            assert values[0] < 1.0
