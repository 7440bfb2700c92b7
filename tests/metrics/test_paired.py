"""Scores of pairs, against closed forms and golden values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfgan_med.metrics.paired import paired_scores, variety


def test_equal_pictures_score_best() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype("float32")
    scores = paired_scores(images, images)
    assert scores["l1"] == 0.0
    assert scores["ssim"] == pytest.approx(1.0)
    assert scores["psnr"] == pytest.approx(100.0)  # the limit that stands for no difference


def test_a_shift_of_ten_grey_levels_costs_ten_and_its_decibels() -> None:
    real = np.zeros((3, 16, 16, 1), "float32")
    scores = paired_scores(real, real + np.float32(10 / 127.5))
    assert scores["l1"] == pytest.approx(10.0, rel=1e-5)
    assert scores["psnr"] == pytest.approx(20 * np.log10(255 / 10), rel=1e-6)


@pytest.mark.parametrize("case", ["gray", "rgb"])
def test_ssim_is_that_of_wang_and_others(case: str, golden: Any) -> None:
    pixels = [golden[f"in/ssim/{case}/{name}"].astype("float64") for name in ("a", "b")]
    real, fake = (np.reshape(p, (1, *p.shape[:2], -1)) / 127.5 - 1 for p in pixels)
    expected = float(golden[f"ref/ssim/{case}/skimage.ssim_gauss11_sigma1.5_wang"])
    scores = paired_scores(real.astype("float32"), fake.astype("float32"))
    assert scores["ssim"] == pytest.approx(expected, abs=2e-5)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        paired_scores(np.zeros((1, 16, 16, 1), "float32"), np.zeros((2, 16, 16, 1), "float32"))


def test_variety_is_the_mean_deviation_over_pictures() -> None:
    images = np.stack([np.full((4, 4, 1), value, "float32") for value in (-0.5, 0.5)])
    assert variety(images) == pytest.approx(0.5)
    assert variety(images[:1]) == 0.0
