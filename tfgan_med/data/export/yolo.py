"""YOLO (Ultralytics): `images/<split>/`, `labels/<split>/*.txt` with boxes or outlines, data.yaml.

A line per object: class from 0 on, then center x, center y, width and height of its box, or with
`polygons` the points of its outline; all as shares of the picture's width and height.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from tfgan_med.data import decode
from tfgan_med.data.export.items import Item, Options, Source, hand_over
from tfgan_med.data.export.objects import Thing, Things, outline

_WHOLE = "all"  # folder of sets without splits


def write(source: Source, folder: Path, options: Options) -> Iterator[tuple[Item, Path]]:
    """Write pictures, labels and `data.yaml`; a picture without objects has an empty file.

    Yields:
        Each item with the file it became.
    """
    things = Things(source, options)
    if options.polygons and things.role == "boxes":
        source.notices.append("Only boxes are known, so the outlines are rectangles.")
    for item in source.items:
        split = item.record.split or _WHOLE
        path = hand_over(item.picture, folder / "images" / split / item.name)
        header = decode.read_header(path)
        label = folder / "labels" / split / f"{item.name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            _line(thing, header.width, header.height, options.polygons) for thing in things.of(item)
        )
        label.write_text("".join(f"{line}\n" for line in lines))
        yield item, path
    _write_yaml(source, folder, things.names)


def _line(thing: Thing, width: int, height: int, polygons: bool) -> str:
    if polygons:
        values = (outline(thing) / (width, height)).ravel().tolist()
    else:
        left, top, across, down = thing.box
        center = (left + across / 2) / width, (top + down / 2) / height
        values = [*center, across / width, down / height]
    return f"{thing.category - 1} " + " ".join(f"{value:.8f}" for value in values)


def _write_yaml(source: Source, folder: Path, names: list[str]) -> None:
    places = {split: f"images/{split}" for split in source.splits or (_WHOLE,)}
    first = next(iter(places.values()))
    if "train" not in places or "val" not in places:
        source.notices.append(
            "Ultralytics wants train and val; the set does not name both, so data.yaml names "
            f"{first} in place of what is missing. Scores on it would be too good."
        )
    facts = {  # without `path`, Ultralytics starts from the folder of this file
        "train": places.get("train", first),
        "val": places.get("val", first),
        **({"test": places["test"]} if "test" in places else {}),
        "names": dict(enumerate(names)),
        "synthetic": source.synthetic,
    }
    text = f"# {source.description}\n" + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
