"""Objects in pictures, from instances, masks, label maps or boxes.csv; as boxes, RLE, outlines."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage import measure

from tfgan_med.data import decode, encoding
from tfgan_med.data.export.items import Item, Options, Source, part_name
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError, UserError

Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]  # left, top, width, height in pixels
_MAX_PIXELS = DataConfig().max_pixels
_measure: Any = measure  # scikit-image has no types


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        category: from 1 on.
        box: left, top, width and height in pixels; pixel x covers x to x + 1.
        mask: its pixels within the box, `(height, width)`; None if only the box is known.
    """

    category: int
    box: Box
    mask: Mask | None = None


class Things:
    """Finds the objects of a set's items.

    Binary masks and label maps are taken apart into 8-connected pieces; each value of `instances`
    is one object, in one piece or more.

    Args:
        source: the set.
        options: role, names, by_class.
    Attributes:
        role: what marks the objects.
        names: of the categories; for label maps without names it grows with the classes found.
    Raises:
        UserError: nothing in the set marks objects, or names or classes are missing.
    """

    def __init__(self, source: Source, options: Options) -> None:
        self.roles = source.images.roles
        self.by_class = options.by_class
        self._boxes = _Boxes(source)
        self.role = self._choose(options.role, source)
        self.mask_roles: tuple[str, ...] = (self.role,)
        if options.role == "auto" and self.role.startswith("masks"):
            self.mask_roles = tuple(role for role in self.roles if role.startswith("masks"))
        self.fixed = bool(options.names) or self.role != "labels"
        self.names = self._names(options, source)
        self._labels = {label: i for i, label in enumerate(source.images.labels, 1)}

    def _choose(self, role: str, source: Source) -> str:
        masks = sorted(role for role in self.roles if role.startswith("masks"))
        known = [r for r in ("instances", *masks, "labels") if r in self.roles]
        known += ["boxes"] if self._boxes else []
        if role == "auto" and known:
            return known[0]
        if role not in known:
            here = ", ".join(known) or "none of these"
            raise UserError(
                f"{source.title}: objects are marked by instances/, masks/, labels/ or boxes.csv; "
                f"the set has {here}. Choose with --role, or take --format imagefolder."
            )
        return role

    def _names(self, options: Options, source: Source) -> list[str]:
        if self.by_class:
            labels = source.images.labels
            if not labels or any(item.record.label is None for item in source.items):
                raise UserError(f"{source.title}: --by-class, but not all pictures have a class.")
            if self.role == "boxes" or self.role == "labels":
                raise UserError(f"--by-class: {self.role} have classes of their own. Leave it out.")
            return list(labels)
        given = list(options.names[1:])
        if self.role == "boxes":
            return self._boxes.classes
        if self.role == "labels":
            return given
        usual = [role.removeprefix("masks-") for role in self.mask_roles]
        usual = ["object" if name in ("masks", "instances") else name for name in usual]
        if given and len(given) < len(usual):
            raise UserError(
                f"--names has {', '.join(options.names)}; the background and a name for each of "
                f"{', '.join(self.mask_roles)} are needed."
            )
        return given[: len(usual)] or usual

    def of(self, item: Item) -> list[Thing]:
        """The objects of an item, from top to bottom."""
        if self.role == "boxes":
            return self._boxes.of(item)
        found: list[Thing] = []
        for number, role in enumerate(self.mask_roles, 1):
            values = self._read(item, role)
            category = self._labels[str(item.record.label)] if self.by_class else number
            if role == "instances":
                found += _regions(values, lambda value, c=category: c)
            elif role == "labels":
                found += self._of_labels(values, item)
            else:
                pieces = _measure.label(values > 0, connectivity=2)
                found += _regions(pieces, lambda value, c=category: c)
        return sorted(found, key=lambda thing: (thing.box[1], thing.box[0], thing.category))

    def _read(self, item: Item, role: str) -> npt.NDArray[Any]:
        part = item.record.parts[role]
        if role == "instances":  # `encoding.read` would join them
            values: npt.NDArray[Any] = decode.read_labels(part, _MAX_PIXELS)
        else:
            values = encoding.read(part, role, _MAX_PIXELS)[..., 0]
        width, height = decode.picture_size(item.picture)
        if values.shape != (height, width):
            raise DataError(
                f"{part_name(part)}: {values.shape[1]} x {values.shape[0]} pixels, its picture has "
                f"{width} x {height}. Both must have one size."
            )
        return values

    def _of_labels(self, values: npt.NDArray[Any], item: Item) -> list[Thing]:
        highest = int(values.max())
        if highest > len(self.names):
            if self.fixed:
                raise UserError(
                    f"{part_name(item.record.parts['labels'])}: class {highest}, but --names has "
                    f"{len(self.names) + 1} names. Name all classes, the background first."
                )
            self.names += [f"class-{i}" for i in range(len(self.names) + 1, highest + 1)]
        pieces = _measure.label(values.astype(np.int32), background=0, connectivity=2)
        classes = np.zeros(int(pieces.max()) + 1, int)
        classes[pieces.ravel()] = values.ravel()
        return _regions(pieces, lambda value: int(classes[value]))


def _regions(values: npt.NDArray[Any], category: Any) -> list[Thing]:
    """An object for each value but 0, with the category of its value."""
    found = []
    for region in _measure.regionprops(values.astype(np.int32, copy=False)):
        top, left, bottom, right = region.bbox
        box = (float(left), float(top), float(right - left), float(bottom - top))
        found.append(Thing(category(region.label), box, np.asarray(region.image, bool)))
    return found


class _Boxes:
    """Rows of `boxes.csv` beside the pictures: image, class, x0, y0, x1, y1 in pixels."""

    def __init__(self, source: Source) -> None:
        root = source.images.root
        path = (root if root.is_dir() else root.parent) / "boxes.csv"
        self.items = _by_any_name(source)
        self._rows: dict[str, list[tuple[str, Box]]] = defaultdict(list)
        self._there = path.is_file()
        lone = 0
        if self._there:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                lone = self._read(csv.DictReader(stream))
        if lone:
            source.notices.append(f"boxes.csv: boxes of no picture in the set left out: {lone}.")
        self.classes = sorted({name for rows in self._rows.values() for name, _ in rows})

    def __bool__(self) -> bool:
        return self._there

    def _read(self, table: csv.DictReader[str]) -> int:
        """Keep the rows; returns how many belong to no item."""
        needed = {"image", "class", "x0", "y0", "x1", "y1"}
        absent = sorted(needed - set(table.fieldnames or ()))
        if absent:
            raise DataError(
                f"boxes.csv: no column {', '.join(absent)}. Expected image, class, x0, y0, x1, y1, "
                "in pixels."
            )
        lone = 0
        for number, row in enumerate(table, 2):
            owners = self.items.get(row["image"], [])
            if len(owners) > 1:
                raise DataError(
                    f"boxes.csv: row {number}, {row['image']}: {owners[0]} and {owners[1]} have "
                    "this name. Give the path below the folder."
                )
            lone += not owners
            for owner in owners:
                self._rows[owner].append((row["class"], _box(row, number)))
        return lone

    def of(self, item: Item) -> list[Thing]:
        """Of an item, as the table has them."""
        rows = self._rows.get(item.record.id, [])
        return [Thing(self.classes.index(name) + 1, box) for name, box in rows]


def _box(row: dict[str, str], number: int) -> Box:
    try:
        left, top, right, bottom = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
    except (TypeError, ValueError):
        left = top = right = bottom = 0.0
    if not (right > left and bottom > top):
        raise DataError(
            f"boxes.csv: row {number} is no box. Numbers with x1 > x0 and y1 > y0 are needed."
        )
    return left, top, right - left, bottom - top


def _by_any_name(source: Source) -> dict[str, list[str]]:
    """Ids of items by path below the root, file name and name without suffix."""
    found: dict[str, list[str]] = defaultdict(list)
    for item in source.items:
        path = item.picture.path
        for name in {item.record.id, path.name, path.stem}:
            found[name].append(item.record.id)
    return found


# Masks in other words -----------------------------------------------------------------------------


def run_lengths(thing: Thing, height: int) -> tuple[list[int], int]:
    """Uncompressed RLE of COCO, without the last run of zeros, and the pixels it covers.

    Counts run down the columns, left to right: zeros, ones, zeros and so on; the first may be 0.

    Args:
        thing: with a mask.
        height: of the picture.
    """
    assert thing.mask is not None
    left, top = int(thing.box[0]), int(thing.box[1])
    columns, rows = np.nonzero(thing.mask.T)
    places = (columns + left) * height + rows + top
    first = np.concatenate([[True], np.diff(places) != 1])
    starts = places[first]
    ends = places[np.concatenate([first[1:], [True]])] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    return np.diff(edges, prepend=0).tolist(), int(edges[-1])


def encode(thing: Thing, height: int, width: int) -> dict[str, Any]:
    """COCO's `segmentation` of an object: `counts` and `size` (height, width)."""
    counts, covered = run_lengths(thing, height)
    if covered < height * width:
        counts.append(height * width - covered)
    return {"counts": counts, "size": [height, width]}


def decode_rle(segmentation: dict[str, Any]) -> Mask:
    """The mask `(height, width)` of an uncompressed RLE.

    Raises:
        ValueError: counts that do not cover the picture.
    """
    counts, (height, width) = segmentation["counts"], segmentation["size"]
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    if len(values) != height * width:
        raise ValueError(f"The counts cover {len(values)} pixels of {height * width}.")
    return values.reshape(width, height).T


def outline(thing: Thing) -> npt.NDArray[np.float64]:
    """One closed line around all pieces of an object, `(points, x and y)` in pixels.

    Points are centers of border pixels, x + 0.5, so that filling the polygon between the pixels
    that they lie in (OpenCV's `fillPoly`) gives the mask again, but for its holes. Pieces are
    joined by lines there and back.
    """
    if thing.mask is None:
        left, top, width, height = thing.box
        right, bottom = left + width, top + height
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    found, _ = cv2.findContours(
        thing.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    pieces: list[npt.NDArray[Any]] = [contour[:, 0] for contour in found]
    if len(pieces) > 1:
        closed = [np.concatenate([piece, piece[:1]]) for piece in pieces]
        back = [piece[:1] for piece in pieces[-2::-1]]
        points = np.concatenate([*closed, *back])
    else:
        points = pieces[0]
    while len(points) < 3:  # specks of one or two pixels
        points = np.concatenate([points, points[-1:]])
    return np.asarray(points + 0.5 + np.array(thing.box[:2]), np.float64)


def category_names(names: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's `categories`."""
    return [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names, 1)]
