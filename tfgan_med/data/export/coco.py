"""COCO: `<split>/` with pictures and `annotations/instances_<split>.json` with their objects.

Segmentations are uncompressed RLE, which loses nothing and which pycocotools reads as well as
polygons; `iscrowd` is 0, for each is one object.

Lin et al., arXiv:1405.0312; format at cocodataset.org/#format-data.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tfgan_med.data import decode
from tfgan_med.data.export.items import Item, Options, Source, hand_over
from tfgan_med.data.export.objects import Thing, Things, category_names, encode

_WHOLE = "images"  # folder of sets without splits


def write(source: Source, folder: Path, options: Options) -> Iterator[tuple[Item, Path]]:
    """Write pictures and annotations; objects are written as they are found.

    Yields:
        Each item with the file it became.
    """
    things = Things(source, options)
    splits = source.splits or (_WHOLE,)
    (folder / "annotations").mkdir()
    with contextlib.ExitStack() as stack:
        tables = {split: stack.enter_context(_table(folder, split)) for split in splits}
        for item in source.items:
            split = item.record.split or _WHOLE
            path = hand_over(item.picture, folder / split / item.name)
            tables[split].add(path, things.of(item))
            yield item, path
        for table in tables.values():
            table.finish(source, things.names)


@contextlib.contextmanager
def _table(folder: Path, split: str) -> Iterator[_Table]:
    name = "instances.json" if split == _WHOLE else f"instances_{split}.json"
    with (folder / "annotations" / name).open("w", encoding="utf-8") as stream:
        yield _Table(stream)


class _Table:
    """One JSON file: annotations go to disk at once, the short entries of images at the end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.images: list[dict[str, Any]] = []
        self.written = 0
        stream.write('{"annotations": [')

    def add(self, path: Path, things: list[Thing]) -> None:
        header = decode.read_header(path)
        image = {
            "id": len(self.images) + 1,
            "file_name": path.name,
            "width": header.width,
            "height": header.height,
        }
        self.images.append(image)
        for thing in things:
            self._annotate(thing, image)

    def _annotate(self, thing: Thing, image: dict[str, Any]) -> None:
        left, top, width, height = thing.box
        segmentation: Any = []
        area = width * height
        if thing.mask is not None:
            segmentation = encode(thing, image["height"], image["width"])
            area = float(thing.mask.sum())
        self.written += 1
        entry = {
            "id": self.written,
            "image_id": image["id"],
            "category_id": thing.category,
            "bbox": [left, top, width, height],
            "area": area,
            "iscrowd": 0,
            "segmentation": segmentation,
        }
        self.stream.write(("\n" if self.written == 1 else ",\n") + json.dumps(entry))

    def finish(self, source: Source, names: list[str]) -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        rest = {
            "images": self.images,
            "categories": category_names(names),
            "licenses": [],
            "info": {
                "description": source.description,
                "synthetic": source.synthetic,
                "date_created": today,
            },
        }
        self.stream.write("],\n" + json.dumps(rest, ensure_ascii=False)[1:] + "\n")
