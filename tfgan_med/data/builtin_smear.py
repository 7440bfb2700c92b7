"""Rendered blood smears with exact ground truth: every pixel's cell is known.

Light is absorbed as in a microscope (Beer and Lambert): each cell adds optical density, so cells
that overlap show through each other. Red cells have the biconcave profile of Evans & Fung,
Microvascular Research 4 (1972), eq. 2, more or less flattened as smears dry. Then come defocus,
uneven light and the noise of a sensor. Picture `index` depends on (seed, index, size) only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tfgan_med.data.builtin import Sample

Array = npt.NDArray[np.float64]
Random = np.random.Generator

RED, WHITE, PLATELET = 1, 2, 3  # values of `labels`
PER_SLIDE = 2  # pictures of one slide share stain and light, and are never divided between splits
SPLIT_OF_SLIDE = ("train", "val", "test", "train", "train", "train", "train")

# optical density (red, green, blue) of strongly stained red cells, as on slides of different labs
EOSIN = np.array([(0.10, 0.50, 0.34), (0.42, 0.78, 0.30), (0.62, 0.66, 0.34), (0.34, 0.40, 0.36)])
NUCLEUS = np.array([(1.00, 1.45, 0.55), (1.15, 1.25, 0.60)])
CYTOPLASM = np.array([0.22, 0.30, 0.08])
GRANULE = np.array([0.55, 0.85, 0.30])


@dataclass(frozen=True)
class Slide:
    """What pictures of one slide share.

    Attributes:
        stain: optical density of red cells, `(3,)`.
        nucleus: of nuclei.
        light: colour of the empty field in 0..1.
        radius: of red cells, as a share of the picture's side.
        pallor: 0 for flattened cells without a pale centre, 1 for the full profile.
        elongation: how much cells deviate from round.
        crowding: share of the field that cells should cover.
        white_rate: white cells expected per picture.
    """

    stain: Array
    nucleus: Array
    light: Array
    radius: float
    pallor: float
    elongation: float
    crowding: float
    white_rate: float


@dataclass
class Field:
    """The picture that is being made: density, cells and classes of every pixel."""

    size: int
    density: Array = field(init=False)
    instances: npt.NDArray[np.uint16] = field(init=False)
    labels: npt.NDArray[np.uint8] = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.density = np.zeros((self.size, self.size, 3))
        self.instances = np.zeros((self.size, self.size), np.uint16)
        self.labels = np.zeros((self.size, self.size), np.uint8)

    def window(self, y: float, x: float, reach: float) -> tuple[tuple[slice, slice], Array, Array]:
        """The part of the field within `reach` pixels, with coordinates relative to (y, x)."""
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        bottom = max(top, min(self.size, int(y + reach) + 2))
        right = max(left, min(self.size, int(x + reach) + 2))
        rows, columns = np.mgrid[top:bottom, left:right]
        return np.s_[top:bottom, left:right], rows + 0.5 - y, columns + 0.5 - x

    def add(self, where: tuple[slice, slice], cover: Array, density: Array, kind: int) -> None:
        """Put a cell on top: `cover` in 0..1 is its outline, `density` what it absorbs."""
        inside = cover > 0.5
        if inside.any():
            self.count += 1
            self.instances[where][inside] = self.count
            self.labels[where][inside] = kind
        self.density[where] += density


def samples(size: int, count: int, seed: int) -> Iterator[Sample]:
    """Smears with `masks` of all cells, `instances`, and `labels` (red, white, platelet)."""
    for index in range(count):
        picture, instances, labels = render(size, seed, index)
        slide = index // PER_SLIDE
        yield Sample(
            f"smear-{index:05d}",
            {
                "images": picture,
                "masks": np.where(instances > 0, 255, 0).astype(np.uint8),
                "instances": instances,
                "labels": labels,
            },
            {
                "split": SPLIT_OF_SLIDE[slide % len(SPLIT_OF_SLIDE)],
                "class": "",
                "group": f"slide{slide:04d}",
                "width": size,
                "height": size,
                "cells": int(instances.max()),
            },
        )


def render(
    size: int, seed: int, index: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """One smear.

    Args:
        size: side in pixels.
        seed, index: of the set and of the picture in it.
    Returns:
        Picture `(size, size, 3)`; instances `(size, size)`, 0 background and 1..n, the upper cell
        where two overlap; labels `(size, size)`, 0 background, 1 red, 2 white, 3 platelet.
    """
    slide = _slide(np.random.default_rng([seed, 1, index // PER_SLIDE]))
    random = np.random.default_rng([seed, 0, index])
    view = Field(size)
    _place_cells(view, slide, random)
    return _exposed(view, slide, random), _renumbered(view.instances), view.labels


def _slide(random: Random) -> Slide:
    """Draw what the pictures of a slide share."""
    mix = random.dirichlet(np.full(len(EOSIN), 0.6))
    return Slide(
        stain=mix @ EOSIN * random.uniform(0.65, 1.35),
        nucleus=NUCLEUS[random.integers(2)] * random.uniform(0.8, 1.15),
        light=np.clip(
            random.uniform(0.76, 0.95) * np.array([1.0, 0.975, 1.0]) + random.normal(0.0, 0.018, 3),
            0.5,
            0.98,
        ),
        radius=random.uniform(0.085, 0.125),
        pallor=random.beta(2.5, 0.9),
        elongation=random.uniform(0.02, 0.13),
        crowding=random.uniform(0.2, 0.62),
        white_rate=random.uniform(0.1, 0.5),
    )


def _place_cells(view: Field, slide: Slide, random: Random) -> None:
    """White cells first, red cells around them, platelets in the gaps."""
    radius = slide.radius * view.size
    taken: list[tuple[float, float, float]] = []
    for _ in range(min(2, int(random.poisson(slide.white_rate)))):
        y, x = random.uniform(0, view.size, 2)
        own = radius * random.uniform(1.45, 1.95)
        if all(np.hypot(y - v, x - u) > own + r for v, u, r in taken):
            _white_cell(view, y, x, own, slide, random)
            taken.append((y, x, own))

    margin = radius  # cells may be cut by the border
    wanted = round(slide.crowding * (view.size + 2 * margin) ** 2 / (np.pi * radius**2))
    for y, x, own in _positions(view.size, margin, radius, wanted, taken, random):
        _red_cell(view, y, x, own, slide, random)
        taken.append((y, x, own))

    for _ in range(int(random.poisson(2.0))):
        y, x = random.uniform(0, view.size, 2)
        own = radius * random.uniform(0.22, 0.38)
        if all(np.hypot(y - v, x - u) > 0.9 * (own + r) for v, u, r in taken):
            _platelet(view, y, x, own, random)


def _positions(
    size: int,
    margin: float,
    radius: float,
    wanted: int,
    taken: list[tuple[float, float, float]],
    random: Random,
) -> Iterator[tuple[float, float, float]]:
    """Places for red cells: some anywhere, some beside another, few on top of each other."""
    placed = np.array(taken).reshape(-1, 3)
    white = len(placed)
    for _ in range(wanted):
        own = radius * np.clip(random.normal(1.0, 0.07), 0.75, 1.3)
        closeness = 0.72 if random.random() < 0.12 else random.uniform(0.94, 1.05)
        for _ in range(25):
            y, x = random.uniform(-margin, size + margin, 2)
            if len(placed) > white and random.random() < 0.55:  # smears clump
                v, u, r = placed[random.integers(white, len(placed))]
                angle = random.uniform(0, 2 * np.pi)
                y = v + closeness * (own + r) * np.sin(angle)
                x = u + closeness * (own + r) * np.cos(angle)
            gaps = np.hypot(placed[:, 0] - y, placed[:, 1] - x) / (own + placed[:, 2])
            if (gaps[:white] > 1.02).all() and (gaps[white:] > closeness - 1e-6).all():
                placed = np.vstack([placed, (y, x, own)])
                yield float(y), float(x), float(own)
                break


def _red_cell(view: Field, y: float, x: float, radius: float, slide: Slide, random: Random) -> None:
    where, dy, dx = view.window(y, x, 1.5 * radius)
    r = _outline(dy, dx, radius, slide.elongation, random)
    cover = _edge(r, radius)
    shift = random.normal(0.0, 0.05, 2) * radius  # the pale centre is not quite in the middle
    centre = np.hypot(dy - shift[0], dx - shift[1]) / radius
    pallor = np.clip(slide.pallor * random.normal(1.0, 0.15), 0.0, 1.0)
    thickness = pallor * _biconcave(np.clip(0.8 * r + 0.2 * centre, 0, 1)) + (1 - pallor) * (
        0.80 * np.sqrt(np.clip(1 - 0.85 * r**2, 0, 1)) + 0.15
    )
    rim = 0.12 * np.exp(-(((r - 0.95) * radius / (0.02 * view.size)) ** 2))
    strength = random.normal(1.0, 0.08)
    density = (strength * cover * (thickness + rim))[..., None] * slide.stain
    glow = 0.05 * np.exp(-(((r - 1.10) * radius / (0.012 * view.size)) ** 2))  # bright halo
    view.add(where, cover, density - (glow * (1 - cover))[..., None], RED)


def _biconcave(r: Array) -> Array:
    """Thickness of a red cell over its relative radius, 1 at the thickest place."""
    return np.sqrt(np.clip(1 - r**2, 0, 1)) * (0.81 + 7.83 * r**2 - 4.39 * r**4) / 2.57


def _white_cell(
    view: Field, y: float, x: float, radius: float, slide: Slide, random: Random
) -> None:
    """A granulocyte with two to five lobes, or a lymphocyte that is mostly nucleus."""
    where, dy, dx = view.window(y, x, 1.4 * radius)
    cover = _edge(_outline(dy, dx, radius, 0.05, random), radius)
    grains = _texture(cover.shape, 0.012 * view.size, random)
    density = (cover * (1.0 + 0.35 * grains))[..., None] * CYTOPLASM

    nucleus = np.zeros_like(cover)
    if random.random() < 0.35:
        offset = random.normal(0.0, 0.06, 2) * radius
        r = _outline(dy - offset[0], dx - offset[1], 0.80 * radius, 0.05, random)
        nucleus = _edge(r, 0.80 * radius)
    else:
        lobes = int(random.integers(2, 6))
        start, sweep = random.uniform(0, 2 * np.pi), random.uniform(3.2, 5.0)
        for angle in start + sweep * np.arange(lobes) / lobes:
            at = 0.45 * radius * np.array([np.sin(angle), np.cos(angle)])
            own = radius * random.uniform(0.30, 0.42)
            r = _outline(dy - at[0], dx - at[1], own, 0.15, random)
            nucleus = np.maximum(nucleus, _edge(r, own))
    chromatin = 1.0 + 0.18 * _texture(cover.shape, 0.018 * view.size, random)
    density += (nucleus * cover * chromatin)[..., None] * slide.nucleus
    view.add(where, cover, density, WHITE)


def _platelet(view: Field, y: float, x: float, radius: float, random: Random) -> None:
    where, dy, dx = view.window(y, x, 1.6 * radius)
    cover = _edge(_outline(dy, dx, radius, 0.18, random), radius)
    grains = np.clip(1.0 + 0.5 * _texture(cover.shape, 0.008 * view.size, random), 0.3, 2.0)
    view.add(where, cover, (0.8 * cover * grains)[..., None] * GRANULE, PLATELET)


def _outline(dy: Array, dx: Array, radius: float, irregularity: float, random: Random) -> Array:
    """Distance from the centre relative to an irregular outline, 1 on it."""
    turn = random.uniform(0, np.pi)
    stretch = np.exp(random.normal(0.0, irregularity))
    along = (dy * np.sin(turn) + dx * np.cos(turn)) / stretch
    across = (dy * np.cos(turn) - dx * np.sin(turn)) * stretch
    angle = np.arctan2(across, along)
    outline = np.ones_like(angle)
    for wave in range(3, 7):
        amplitude = random.normal(0.0, 0.35 * irregularity / (wave - 1))
        outline += amplitude * np.cos(wave * angle + random.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(along, across) / (radius * outline))


def _edge(r: Array, radius: float) -> Array:
    """1 inside, 0 outside, one pixel of transition."""
    return np.asarray(np.clip((1.0 - r) * radius + 0.5, 0.0, 1.0))


def _texture(shape: tuple[int, ...], grain: float, random: Random) -> Array:
    """Smooth noise of mean 0 and deviation 1, grains of so many pixels."""
    noise = ndimage.gaussian_filter(random.standard_normal(shape), max(grain, 0.5))
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9))


def _exposed(view: Field, slide: Slide, random: Random) -> npt.NDArray[np.uint8]:
    """Light through the field, onto the sensor."""
    size = view.size
    plasma = 0.012 * _texture((size, size), 0.06 * size, random)
    through = np.exp(-np.log(10.0) * 0.5 * (view.density + plasma[..., None]))
    defocus = size / 128 * np.exp(random.uniform(np.log(0.35), np.log(1.3)))
    through = ndimage.gaussian_filter(through, (defocus, defocus, 0))

    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slope = random.normal(0.0, 0.025, 2)
    lit = (
        1 + slope[0] * rows + slope[1] * columns - random.uniform(0, 0.05) * (rows**2 + columns**2)
    )
    signal = through * slide.light * lit[..., None] * random.uniform(0.97, 1.03)

    photons = random.uniform(1500.0, 6000.0)
    noise = random.standard_normal(signal.shape)
    signal = signal + noise * np.sqrt(np.clip(signal, 0, None) / photons + 0.003**2)
    return np.asarray(np.clip(np.rint(255 * signal), 0, 255), np.uint8)


def _renumbered(instances: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """0 and 1..n without gaps, which cells leave that lie wholly under another one."""
    found = np.union1d([0], instances)
    return np.searchsorted(found, instances).astype(np.uint16)
