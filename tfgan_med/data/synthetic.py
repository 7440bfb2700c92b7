"""Writes a generated set: laid out like a real one, marked as synthetic, with its provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, PngImagePlugin

import tfgan_med
from tfgan_med import files

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def write_picture(path: Path, pixels: Pixels, synthetic: bool = True) -> Path:
    """Write pixels losslessly and atomically; PNG, or TIFF for 16-bit colour.

    Args:
        path: without suffix.
        pixels: (height, width, 1 or 3) or (height, width), uint8 or uint16.
        synthetic: add the text entry `Synthetic=yes`.
    Returns:
        The path with its suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        target = path.with_name(path.name + ".tif")
        with files.replacing(target) as temporary:
            note = "Synthetic=yes" if synthetic else None
            tifffile.imwrite(temporary, pixels, description=note, photometric="rgb")
        return target
    target = path.with_name(path.name + ".png")
    info = PngImagePlugin.PngInfo()
    if synthetic:
        info.add_text("Synthetic", "yes")
    with files.replacing(target) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)
    return target


def write_provenance(folder: Path, **facts: Any) -> None:
    """Write `provenance.json`: run, weights, seeds and training items behind the images."""
    files.write_json(
        folder / "provenance.json",
        {"synthetic": True, "tfgan_med": tfgan_med.__version__, **facts},
    )
