"""From a path to the items of a data set: built-in sets, the fitting reader, `splits.csv`."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tfgan_med.data import readers, splits
from tfgan_med.data.records import DataConfig, ImageSet
from tfgan_med.errors import DataError, UserError

_BUILTIN = "builtin:"


def of_class(images: ImageSet, config: DataConfig) -> ImageSet:
    """The items of the class `label`, if it names one.

    Raises:
        UserError: if there are none; names the classes there are.
    """
    if config.label is None or not images.records:
        return images
    records = tuple(record for record in images.records if record.label == config.label)
    if not records:
        has = ", ".join(images.labels) or "none"
        raise UserError(
            f"data.label is '{config.label}', but the classes of {config.path} are: {has}. "
            "Name one of these, or leave data.label out."
        )
    return replace(images, records=records)


def layouts() -> list[str]:
    """Names of the layouts, one per file in `data/readers`."""
    return sorted(module.name for module in pkgutil.iter_modules(readers.__path__))


def open_set(config: DataConfig) -> ImageSet:
    """Find the items of a data set; nothing is decoded.

    Args:
        config: `path` is a folder, a CSV table or `builtin:<name>`; `layout` forces a reader.
    Returns:
        The items with split, class and group as far as the data give them, sorted by id. With
        `skip_bad` what could not be used is a notice instead of a fault.
    Raises:
        UserError: if nothing is at the path or the layout is unknown.
        DataError: if there are no pictures, or the folder fits no layout or more than one.
    """
    root = _root(config.path)
    images = splits.merge_table(_name_parts(_reader(root, config.layout).read(root, config)))
    if not images.records:
        first = f" The first fault: {images.faults[0]}" if images.faults else ""
        raise DataError(
            f"{config.path}: no usable items in the layout {images.layout} "
            f"({len(images.faults)} faults).{first or ' Check the folder, or force --layout.'}"
        )
    if config.skip_bad:
        notices = (*images.notices, *(f"{fault} Left out." for fault in images.faults))
        images = replace(images, faults=(), notices=notices)
    return images


def _root(path: str) -> Path:
    """The folder or table that a path means; built-in sets are made on first use."""
    if path.startswith(_BUILTIN):
        from tfgan_med.data import builtin

        return builtin.materialize(path)
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(
            f"{path}: no such folder or table. Give the folder that holds the pictures, a CSV "
            "table, or a built-in set such as builtin:histology."
        )
    return root


def _name_parts(images: ImageSet) -> ImageSet:
    """The set with names for messages: paths below the root; where names are hidden, ids."""
    records = []
    for record in images.records:
        hidden = record.id != record.main.path.relative_to(images.root).as_posix()
        named = {
            role: replace(
                part,
                name=f"{record.id} ({role})"
                if hidden
                else part.path.relative_to(images.root).as_posix(),
            )
            for role, part in record.parts.items()
        }
        records.append(replace(record, parts=named))
    return replace(images, records=tuple(records))


def _reader(root: Path, layout: str) -> ModuleType:
    """The reader of a layout; `auto` looks at the folder."""
    if layout != "auto":
        name = layout.replace("-", "_")
        if name not in layouts():
            raise UserError(
                f"layout is {layout!r}, which is unknown. Layouts: auto, {', '.join(layouts())}."
            )
        return importlib.import_module(f"{readers.__name__}.{name}")
    modules = [importlib.import_module(f"{readers.__name__}.{name}") for name in layouts()]
    fitting = [module for module in modules if module.matches(root)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(module.__name__.rsplit(".", 1)[-1] for module in fitting)
        raise DataError(f"{root}: fits more than one layout ({names}). Choose one with --layout.")
    raise DataError(
        f"{root}: no pictures found. Expected PNG, JPEG, TIFF, BMP, WebP or DICOM files, in the "
        "folder, in class folders, or in images/ and masks/; or a CSV table."
    )
