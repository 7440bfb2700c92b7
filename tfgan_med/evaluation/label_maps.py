"""Labels of generated pictures against real ones: masks and label maps read from folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfgan_med.data import encoding
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import DataConfig, Part
from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation import charts
from tfgan_med.evaluation.pictures import Pictures, ahead, file_name, open_pictures
from tfgan_med.metrics import label_distance
from tfgan_med.metrics.base import Measured, Progress, Result
from tfgan_med.metrics.label_distance import LabelStatistics

Shares = npt.NDArray[np.float64]

_MOST_CLASSES = 256


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        results: the numbers.
        names: of the classes.
        real, fake: shares of pixels, `(images, classes)` each, for figures.
        fake_name: the generated set.
    """

    results: tuple[Result, ...]
    names: tuple[str, ...]
    real: Shares
    fake: Shares
    fake_name: str


def compare(
    real: str,
    fake: str,
    *,
    role: str = "auto",
    split: str = "auto",
    names: Sequence[str] = (),
    present_only: bool = False,
    intervals: bool = True,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """Compare the labels of two sets.

    Args:
        real, fake: folders, tables or built-in sets with masks or label maps.
        role: `labels`, `masks`, `masks-<name>`, `instances`; `auto` takes the first that the real
            set has. A generated set without it gives its pictures, if they are masks.
        split: of the real set.
        names: of the classes, from 0 on; by default their numbers.
        present_only: leave pictures out that do not show the class.
        intervals: spend time on p-values.
        seed: of halves and permutations.
        progress: called with the name of the set, pictures done and all.
    Raises:
        UserError: no labels, or fewer names than classes.
        DataError: a file that is no mask or label map.
    """
    real_set = _open(real, split, role)
    fake_set = _open(fake, "all", real_set.role)
    described = [_describe(pictures, progress) for pictures in (real_set, fake_set)]
    named = _named(described, tuple(names), real_set.role)
    ours, theirs = ([_of_classes(one, len(named)) for one in side] for side in described)
    try:
        measured = label_distance.compare(
            ours,
            theirs,
            named,
            present_only=present_only,
            permutations=500 if intervals else 0,
            seed=seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    return Comparison(
        tuple(_result(one, real_set, fake_set, seed) for one in measured),
        named,
        np.stack([one.shares for one in ours]),
        np.stack([one.shares for one in theirs]),
        fake,
    )


def draw(comparison: Comparison, folder: Path) -> Path:
    """Draw histograms of pixel shares, a panel for each class; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    return charts.shares(
        comparison.real,
        {comparison.fake_name: comparison.fake},
        comparison.names,
        folder / "labels.png",
    )


def _open(path: str, split: str, role: str) -> Pictures:
    if role == "auto":
        return open_pictures(path, split, _first_role(path))
    try:
        return open_pictures(path, split, role)
    except UserError:
        pictures = open_pictures(path, split, "images")  # a folder of generated masks
        return replace(pictures, role="images")


def _first_role(path: str) -> str:
    roles = open_set(DataConfig(path=path)).roles
    named = sorted(role for role in roles if role.startswith("masks-"))
    for role in ("labels", "masks", *named, "instances", "images"):
        if role in roles:
            return role
    raise UserError(f"{path}: has {', '.join(roles)}, and no labels or masks. Name a --role.")


def _describe(pictures: Pictures, progress: Progress) -> list[LabelStatistics]:
    role = "masks" if pictures.role == "images" else pictures.role
    most = DataConfig().max_pixels

    def describe(part: Part) -> LabelStatistics:
        values = encoding.read(part, role, most)[..., 0]
        if values.max() >= _MOST_CLASSES:
            raise DataError(
                f"{file_name(part)}: class {values.max()}, but label maps hold at most "
                f"{_MOST_CLASSES} classes. Is this an instance map? Choose --role instances."
            )
        return label_distance.describe(values, _MOST_CLASSES)

    found = []
    for done, one in enumerate(ahead(describe, pictures.parts), 1):
        found.append(one)
        progress(pictures.name, done, len(pictures))
    return found


def _named(
    described: Sequence[Sequence[LabelStatistics]], names: tuple[str, ...], role: str
) -> tuple[str, ...]:
    """A name for each class up to the largest that occurs."""
    present = max(int(np.flatnonzero(one.shares)[-1]) for side in described for one in side)
    needed = max(present + 1, 2)
    if names:
        if len(names) < needed:
            raise UserError(
                f"--names has {len(names)} names ({', '.join(names)}), but the labels hold "
                f"{needed} classes, 0 to {needed - 1}. Name them all, the background first."
            )
        return names
    if role != "labels":
        return ("background", "foreground")
    return tuple(str(number) for number in range(needed))


def _of_classes(one: LabelStatistics, classes: int) -> LabelStatistics:
    return replace(one, shares=one.shares[:classes])


def _result(measured: Measured, real: Pictures, fake: Pictures, seed: int) -> Result:
    sizes = set(real.sizes) | set(fake.sizes)
    notes = measured.notes
    if len(sizes) > 1:
        notes = (
            *notes,
            f"Labels of {len(sizes)} different sizes: shares compare, numbers of parts and their "
            "solidity may depend on the resolution.",
        )
    return Result.of(
        measured,
        len(real),
        len(fake),
        protocol=f"labels ({real.role})",
        extractor="",
        weights_sha256="",
        dimension=0,
        image_size=real.sizes[0],
        color="labels",
        value_range=(0.0, 255.0),
        real=real.title,
        fake=fake.title,
        seed=seed,
        notes=notes,
    )
