"""nnU-Net v2: `Dataset<number>_<name>/imagesTr`, `labelsTr` and dataset.json; PNG files.

Training and validation items are both `Tr`, since nnU-Net divides them itself; where both splits
are given `splits_final.json` holds them, to be put into the preprocessed folder. Test items are
`imagesTs` and `labelsTs`.

Isensee et al., Nature Methods 18 (2021); MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.data import decode, encoding, synthetic
from tfgan_med.data.export.items import (
    Item,
    Options,
    Source,
    copy_provenance,
    hand_over,
    part_name,
    require_number,
)
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError, UserError

_MAX_PIXELS = DataConfig().max_pixels


def write(source: Source, folder: Path, options: Options) -> Iterator[tuple[Item, Path]]:
    """Write pictures, class maps with 0 for the background, and `dataset.json`.

    Yields:
        Each item with the file it became.
    """
    require_number(options.number)
    role = _role(source, options.role)
    title = "".join(c for c in source.title if c.isalnum()) or "Set"
    inside = folder / f"Dataset{options.number:03d}_{title}"
    modes = {decode.picture_mode(item.picture) for item in source.items}
    channels = 3 if "rgb" in modes else 1
    if len(modes) > 1:
        source.notices.append("Grey and color pictures are mixed, so all become color.")
    names = list(options.names)
    present: set[int] = {0}
    for item in source.items:
        part = "Ts" if item.record.split == "test" else "Tr"
        path = hand_over(
            item.picture,
            inside / f"images{part}" / f"{item.name}_0000",
            only_png=True,
            channels=channels,
        )
        values = _classes(item, role, names)
        present.update(np.unique(values).tolist())
        synthetic.write_picture(
            inside / f"labels{part}" / item.name, values, _marked(item.record.parts[role].path)
        )
        yield item, path
    _write_facts(source, inside, channels, _named(names, max(present), role))
    _write_splits(source, inside)
    copy_provenance(source, inside)


def _role(source: Source, role: str) -> str:
    """What holds the classes: a map of all of them before masks of one."""
    roles = source.images.roles
    masks = [r for r in roles if r.startswith("masks")]
    known = [r for r in ("labels", *masks, "instances") if r in roles]
    if role == "auto" and known:
        role = known[0]
    if role not in known or "images" not in roles:
        raise UserError(
            f"{source.title}: nnU-Net learns from images/ with labels/ or masks/; the set has "
            f"{', '.join(roles) or 'nothing in common'}. Choose with --role, or another format."
        )
    if role.startswith("masks") and len(masks) > 1:
        others = ", ".join(r for r in masks if r != role)
        source.notices.append(f"nnU-Net takes one map per picture: {role}; {others} left out.")
    if role == "instances":
        source.notices.append("nnU-Net has no objects: all instances become one class.")
    return role


def _classes(item: Item, role: str, names: list[str]) -> npt.NDArray[np.uint8]:
    """Class of each pixel, `(height, width)`; 0 and 1 for masks."""
    part = item.record.parts[role]
    values = encoding.read(part, role, _MAX_PIXELS)[..., 0]
    width, height = decode.picture_size(item.picture)
    if values.shape != (height, width):
        raise DataError(
            f"{part_name(part)}: {values.shape[1]} x {values.shape[0]} pixels, its picture has "
            f"{width} x {height}. Both must have one size."
        )
    highest = int(values.max())
    if highest > 255:
        raise DataError(f"{part_name(part)}: class {highest}; at most 255 classes are written.")
    if names and highest >= len(names):
        raise UserError(
            f"{part_name(part)}: class {highest}, but --names has {len(names)} names. Name all "
            "classes, the background first."
        )
    return values.astype(np.uint8)


def _marked(path: Path) -> bool:
    return decode.read_header(path).synthetic


def _named(names: list[str], highest: int, role: str) -> dict[str, int]:
    """nnU-Net's `labels`: consecutive numbers, the background first."""
    if not names:
        single = role.removeprefix("masks-") if role.startswith("masks-") else "object"
        names = ["background", *(f"class-{i}" for i in range(1, highest + 1))]
        names = names if role == "labels" else ["background", single]
    return {"background": 0, **{name: i for i, name in enumerate(names) if i}}


def _write_facts(source: Source, inside: Path, channels: int, labels: dict[str, int]) -> None:
    color = {"0": "R", "1": "G", "2": "B"}
    count = sum(item.record.split != "test" for item in source.items)
    files.write_json(
        inside / "dataset.json",
        {
            "channel_names": color if channels == 3 else {"0": "grey"},
            "labels": labels,
            "numTraining": count,
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
            "name": source.title,
            "description": source.description,
            "synthetic": source.synthetic,
        },
    )


def _write_splits(source: Source, inside: Path) -> None:
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for item in source.items:
        if item.record.split in parts:
            parts[str(item.record.split)].append(item.name)
    if all(parts.values()):
        facts: list[dict[str, Any]] = [parts]
        files.write_json(inside / "splits_final.json", facts)
        source.notices.append(
            "splits_final.json keeps the given splits: copy it into nnUNet_preprocessed/"
            f"{inside.name}/ and train fold 0."
        )
