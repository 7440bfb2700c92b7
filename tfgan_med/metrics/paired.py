"""How close translated pictures are to their targets: L1, PSNR and SSIM of held-out pairs.

These need no pretrained network. They reward pictures that match the target pixel by pixel, so
compare them between models of one data set and look at the pictures too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

Images = npt.NDArray[np.float32]

HIGHER_IS_BETTER = {"l1": False, "psnr": True, "ssim": True}


def paired_scores(targets: Images, fakes: Images) -> dict[str, float]:
    """Mean scores over pairs.

    Args:
        targets, fakes: `(images, height, width, channels)` in [-1, 1], equal shapes; at least 11
            pixels wide for SSIM.
    Returns:
        `l1`: mean absolute difference in grey levels of 0..255, lower is better.
        `psnr`: peak signal-to-noise ratio in dB, the mean over images, higher is better.
        `ssim`: structural similarity, at most 1, higher is better (Wang et al. 2004: Gaussian
        window of 11 pixels, sigma 1.5).
    Raises:
        ValueError: if the shapes differ or there are no images.
    """
    if targets.shape != fakes.shape or not len(targets):
        raise ValueError(f"Expected equal shapes of images: {targets.shape} and {fakes.shape}.")
    reals, fakes = targets.astype(np.float64), fakes.astype(np.float64)
    squared = ((reals - fakes) ** 2).mean(axis=(1, 2, 3))
    return {
        "l1": float(np.abs(reals - fakes).mean() * 127.5),
        "psnr": float(np.mean(10.0 * np.log10(4.0 / np.maximum(squared, 4e-10)))),
        "ssim": float(np.mean([_ssim(r, f) for r, f in zip(reals, fakes, strict=True)])),
    }


def _ssim(real: npt.NDArray[np.float64], fake: npt.NDArray[np.float64]) -> float:
    """SSIM of one pair; on [0, 1], for its luminance term is not invariant to a shift."""
    similarity: Any = structural_similarity  # scikit-image has no types
    return float(
        similarity(
            (real + 1.0) / 2.0,
            (fake + 1.0) / 2.0,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def variety(images: Images) -> float:
    """Mean over pixels of the standard deviation over images; 0 if all are alike."""
    return float(images.astype(np.float64).std(axis=0).mean())
