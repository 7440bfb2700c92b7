"""Two pictures side by side in one file, as pix2pix data sets come: `left` and `right`.

Never found by looking, since any wide picture could be one: `--layout side-by-side`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfgan_med.data.readers import folder
from tfgan_med.data.records import DataConfig, ImageSet, Part


def matches(root: Path) -> bool:
    """Never: this layout must be asked for."""
    return False


def read(root: Path, config: DataConfig) -> ImageSet:
    """Read each file as two halves; folders mean splits and classes as in the layout `folder`."""
    images = folder.read(root, config)
    records = []
    for record in images.records:
        path = record.parts["images"].path
        halves = {"left": Part(path, "left"), "right": Part(path, "right")}
        records.append(replace(record, parts=halves))
    return replace(images, layout="side_by_side", records=tuple(records))
