"""Rendered red blood cells, healthy and with a parasite of malaria: two classes and their masks.

One cell in the middle of its slide, drawn as in `builtin_smear`. Infected cells hold one or two
ring forms: a thin blue ring with one or two red-violet dots of chromatin, about a third of the
cell wide (WHO, Basic Malaria Microscopy I, 2nd ed., 2010, unit 8). Platelets that lie on healthy
cells and grains of stain look alike to those in a hurry.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tfgan_med.data import builtin_smear as smear
from tfgan_med.data.builtin import Sample

PER_SLIDE = 4
# Of every twenty slides eleven to train on, three to validate and six to test with.
SPLITS = {"val": (1, 8, 15), "test": (2, 5, 9, 12, 16, 19)}
RING = np.array([0.62, 0.46, 0.16])  # optical density of the parasite's cytoplasm
CHROMATIN = np.array([0.55, 1.15, 0.50])


def samples(size: int, count: int, seed: int, infected: int) -> Iterator[Sample]:
    """Cells with `masks` of their parasites; `class` is `healthy` or `infected`."""
    for index in range(count):
        ill = (index * infected) // 100 != ((index + 1) * infected) // 100
        picture, parasites = render(size, seed, index, ill)
        slide = index // PER_SLIDE
        yield Sample(
            f"cell-{index:05d}",
            {"images": picture, "masks": np.where(parasites, 255, 0).astype(np.uint8)},
            {
                "split": next((s for s, at in SPLITS.items() if slide % 20 in at), "train"),
                "class": "infected" if ill else "healthy",
                "group": f"slide{slide:04d}",
                "width": size,
                "height": size,
            },
        )


def render(
    size: int, seed: int, index: int, ill: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """One cell.

    Args:
        size: side in pixels.
        seed, index: of the set and of the picture in it.
        ill: whether the cell holds parasites.
    Returns:
        Picture `(size, size, 3)` and where its parasites are `(size, size)`.
    """
    slide = smear._slide(np.random.default_rng([seed, 11, index // PER_SLIDE]))
    random = np.random.default_rng([seed, 10, index])
    view = smear.Field(size)
    radius = size * random.uniform(0.30, 0.38)
    y, x = size / 2 + random.normal(0.0, 0.03, 2) * size
    for angle in random.uniform(0, 2 * np.pi, random.integers(0, 4)):  # neighbours, cut off
        reach = (1.95 + random.uniform(0.0, 0.3)) * radius
        v, u = y + reach * np.sin(angle), x + reach * np.cos(angle)
        smear._red_cell(view, v, u, radius * random.uniform(0.9, 1.1), slide, random)
    smear._red_cell(view, y, x, radius, slide, random)
    parasites = np.zeros((size, size), bool)
    if ill:
        for _ in range(1 + int(random.random() < 0.2)):
            parasites |= _ring(view, *_inside(y, x, 0.55 * radius, random), radius, random)
    elif random.random() < 0.35:
        at = _inside(y, x, 0.8 * radius, random)
        smear._platelet(view, *at, radius * random.uniform(0.12, 0.24), random)
    for _ in range(int(random.poisson(0.5))):
        v, u = random.uniform(0, size, 2)
        _grain(view, v, u, radius * random.uniform(0.03, 0.07))
    return smear._exposed(view, slide, random), parasites


def _inside(y: float, x: float, reach: float, random: np.random.Generator) -> tuple[float, float]:
    """A place within `reach` of the middle of a cell."""
    angle, distance = random.uniform(0, 2 * np.pi), reach * np.sqrt(random.random())
    return y + distance * np.sin(angle), x + distance * np.cos(angle)


def _ring(
    view: smear.Field, y: float, x: float, cell: float, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Add a ring form; returns its pixels."""
    radius = cell * random.uniform(0.15, 0.24)
    strength = random.uniform(0.5, 1.1)
    where, dy, dx = view.window(y, x, 1.8 * radius)
    r = smear._outline(dy, dx, radius, 0.12, random)
    width = max(0.22 * radius, 0.012 * view.size)
    band = np.exp(-(((r - 0.85) * radius / width) ** 2))
    view.density[where] += (0.8 * strength * band)[..., None] * RING
    own = band > 0.4
    start = random.uniform(0, 2 * np.pi)
    for turn in (0.0, 0.9)[: 1 + int(random.random() < 0.3)]:
        v, u = 0.85 * radius * np.sin(start + turn), 0.85 * radius * np.cos(start + turn)
        dot = np.exp(-(np.hypot(dy - v, dx - u) ** 2) / (0.30 * radius) ** 2)
        view.density[where] += (strength * dot)[..., None] * CHROMATIN
        own |= dot > 0.4
    parasites = np.zeros((view.size, view.size), bool)
    parasites[where] = own
    return parasites


def _grain(view: smear.Field, y: float, x: float, radius: float) -> None:
    """A grain of stain that fell on the slide."""
    where, dy, dx = view.window(y, x, 3 * radius + 1)
    dot = np.exp(-(np.hypot(dy, dx) ** 2) / radius**2)
    view.density[where] += (0.8 * dot)[..., None] * CHROMATIN
