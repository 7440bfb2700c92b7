"""From maps of objects and contours to separate objects and their boxes, as DCAN decodes them.

Chen et al., arXiv:1604.02677, section 2.2. Plain pixels: NumPy, SciPy and scikit-image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import expand_labels

Labels = npt.NDArray[np.int32]
Array = npt.NDArray[Any]

_EIGHT_NEIGHBORS = np.ones((3, 3), bool)
SMALLEST_QUANTILE, SMALLEST_SHARE = 0.05, 0.25


def decode(
    objects: Array,
    contours: Array,
    object_threshold: float = 0.5,
    contour_threshold: float = 0.5,
    smallest: float = 0.0,
    radius: int = 1,
) -> Labels:
    """Numbered objects of one picture: what is object and not contour, grown back.

    Contours are taken away before holes are filled: the ring of a cell that touches others would
    else close a hole that is background.

    Args:
        objects, contours: `(height, width)` probabilities.
        object_threshold: an object pixel has at least this probability.
        contour_threshold: a contour pixel, too.
        smallest: pixels below which a component, before it grows, is dropped.
        radius: pixels that components grow by, never into each other; that of the contours the
            network was trained with.
    Returns:
        `(height, width)`, 0 for background, objects 1, 2, ... without gaps.
    """
    inside = (objects >= object_threshold) & (contours < contour_threshold)
    labels, count = ndimage.label(ndimage.binary_fill_holes(inside), _EIGHT_NEIGHBORS)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = areas >= max(smallest, 1.0)
    kept[0] = False
    numbers = np.cumsum(kept) * kept
    grown = expand_labels(numbers[labels], radius)  # type: ignore[no-untyped-call]
    return np.asarray(grown, np.int32)


def boxes(labels: Array, objects: Array) -> npt.NDArray[np.float64]:
    """Bounding box and score of every object.

    Args:
        labels: `(height, width)` as `decode` gives them.
        objects: `(height, width)` probabilities.
    Returns:
        `(objects, 5)`: x0, y0, x1, y1 in pixels, x1 and y1 one past the last, and the mean
        probability inside.
    """
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        if place is not None:
            rows, columns = place
            score = objects[place][labels[place] == number].mean()
            found.append((columns.start, rows.start, columns.stop, rows.stop, float(score)))
    return np.array(found, np.float64).reshape(-1, 5)


def smallest_area(training: Iterable[Array]) -> float:
    """What `decode` may drop: a quarter of the 5 % quantile of the areas of training objects.

    Args:
        training: label maps, 0 for background.
    Returns:
        Pixels; 0 if there is no object.
    """
    areas = [np.bincount(np.unique(ids[ids > 0], return_inverse=True)[1]) for ids in training]
    every = np.concatenate([np.zeros(0, np.int64), *areas])
    return SMALLEST_SHARE * float(np.quantile(every, SMALLEST_QUANTILE)) if len(every) else 0.0
