"""Real tissue: crops of the immunohistochemistry micrograph that scikit-image ships.

Colon glands; an antibody stains their cells brown (DAB), haematoxylin stains nuclei blue. Which
pixel carries which stain is found by colour deconvolution, so picture and map fit exactly.
Picture: Human Protein Atlas by way of scikit-image, `skimage/data/ihc.png`, 512 x 512 px.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tfgan_med.data.builtin import Sample

Mask = npt.NDArray[np.bool_]

STRIDE = 16  # pixels between neighbouring crops; crops of one region overlap


@dataclass(frozen=True)
class Region:
    """A rectangle of the micrograph whose crops form one split."""

    name: str
    split: str
    top: int
    left: int
    bottom: int
    right: int

    def corners(self, size: int) -> Iterator[tuple[int, int]]:
        """Top and left of all crops that lie inside."""
        for top in range(self.top, self.bottom - size + 1, STRIDE):
            for left in range(self.left, self.right - size + 1, STRIDE):
                yield top, left


# They do not overlap, so no split sees a pixel of another one; each holds glands and stroma.
REGIONS = (
    Region("left", "train", 0, 0, 512, 336),
    Region("right-bottom", "val", 256, 336, 512, 512),
    Region("right-top", "test", 0, 336, 256, 512),
)


def samples(size: int) -> Iterator[Sample]:
    """Crops with their stains: `labels` 0 unstained, 1 antibody (DAB), 2 nuclei.

    The same as two masks is in `masks-stain` and `masks-nuclei`.
    """
    micrograph = _skimage().data.immunohistochemistry()
    stain, nuclei = stains(micrograph)
    labels = np.where(nuclei, 2, stain).astype(np.uint8)
    for region in REGIONS:
        for top, left in region.corners(size):
            crop = np.s_[top : top + size, left : left + size]
            yield Sample(
                f"{region.name}-y{top:03d}-x{left:03d}",
                {
                    "images": np.ascontiguousarray(micrograph[crop]),
                    "labels": np.ascontiguousarray(labels[crop]),
                    "masks-stain": np.where(labels[crop] == 1, 255, 0).astype(np.uint8),
                    "masks-nuclei": np.where(nuclei[crop], 255, 0).astype(np.uint8),
                },
                {
                    "split": region.split,
                    "class": "",
                    "group": region.name,
                    "width": size,
                    "height": size,
                    "y": top,
                    "x": left,
                },
            )


def stains(micrograph: npt.NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Where the antibody is, holes of nuclei filled, and where nuclei are.

    Colour deconvolution after Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 23 (2001), smoothed
    by one pixel. Inside stained cells a nucleus is where the share of haematoxylin exceeds that of
    the surroundings, outside where haematoxylin itself does; the factors were set by eye.

    Args:
        micrograph: `(height, width, 3)` uint8.
    Returns:
        Two masks `(height, width)`.
    """
    color, filters, morphology = _skimage().color, _skimage().filters, _skimage().morphology
    deconvolved = color.rgb2hed(micrograph)
    haematoxylin = filters.gaussian(deconvolved[..., 0], 1.0)
    dab = filters.gaussian(deconvolved[..., 2], 1.0)
    level = filters.threshold_otsu(haematoxylin)

    stain = _cleaned(dab > filters.threshold_otsu(dab), specks=100, holes=20)
    stain = morphology.closing(stain, morphology.disk(4))
    stain = ~_without_small(~stain, 800)

    share = haematoxylin / (haematoxylin + 0.25 * dab)
    inside = (share > filters.threshold_local(share, 61, offset=-0.02)) & (
        haematoxylin > 0.6 * level
    )
    outside = (haematoxylin > filters.threshold_local(haematoxylin, 61, offset=-0.003)) & (
        haematoxylin > 0.8 * level
    )
    return stain, _cleaned(np.where(stain, inside, outside), specks=30, holes=30)


def _skimage() -> Any:
    """scikit-image, whose functions are only partly typed."""
    import skimage

    return skimage


def _cleaned(mask: Mask, specks: int, holes: int) -> Mask:
    """Without thin bridges, and without specks and holes of at most so many pixels."""
    cross = ndimage.generate_binary_structure(2, 1)
    opened = ndimage.binary_opening(np.pad(mask, 1, mode="edge"), cross)[1:-1, 1:-1]
    return ~_without_small(~_without_small(opened, specks), holes)


def _without_small(mask: Mask, pixels: int) -> Mask:
    """Drop connected parts of at most so many pixels."""
    parts, _ = ndimage.label(mask)
    large = np.bincount(parts.ravel()) > pixels
    large[0] = False
    kept: Mask = large[parts]
    return kept
