"""`<split>/<class>/<picture>`, as torchvision's ImageFolder and Keras read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tfgan_med.data.export.items import Item, Options, Source, hand_over

_NO_CLASS = "images"


def write(source: Source, folder: Path, options: Options) -> Iterator[tuple[Item, Path]]:
    """Write the pictures; without splits the class folders stand at the top.

    Yields:
        Each item with the file it became.
    """
    if not source.images.labels:
        source.notices.append(
            f"The set has no classes; its pictures are in the one class folder {_NO_CLASS}/."
        )
    left_out = [role for role in source.images.roles if role != source.items[0].record.main_role]
    if left_out:
        source.notices.append(
            f"Pictures only: {', '.join(left_out)} left out. The formats coco, yolo and nnunet "
            "take masks along."
        )
    for item in source.items:
        place = Path(item.record.split or "", item.label or _NO_CLASS)
        yield item, hand_over(item.picture, folder / place / item.name)
