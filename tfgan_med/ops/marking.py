"""Pictures for people: outlines of masks, frames, and errors in colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion

Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

RED, GREEN, BLUE = (230, 60, 50), (60, 190, 90), (60, 120, 240)


def outline(picture: Pixels, mask: npt.NDArray[Any], color: Color) -> Pixels:
    """A picture with the inner edge of a mask drawn in a colour."""
    drawn = picture.copy()
    drawn[mask & ~binary_erosion(mask)] = color
    return drawn


def framed_in(picture: Pixels, color: Color) -> Pixels:
    """A picture with a frame."""
    width = max(2, len(picture) // 32)
    drawn = picture.copy()
    drawn[:width], drawn[-width:], drawn[:, :width], drawn[:, -width:] = (color,) * 4
    return drawn


def errors_in_color(picture: Pixels, truth: npt.NDArray[Any], said: npt.NDArray[Any]) -> Pixels:
    """A picture with found pixels green, missed ones blue and wrong ones red."""
    drawn = picture.astype(np.float32)
    for pixels, color in ((truth & said, GREEN), (truth & ~said, BLUE), (said & ~truth, RED)):
        drawn[pixels] = 0.55 * drawn[pixels] + 0.45 * np.array(color, np.float32)
    return np.asarray(drawn.round(), np.uint8)
