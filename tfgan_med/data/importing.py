"""From the original downloads of a study to a data set in our layout, with its splits and source.

What a study's archives hold, and where from, stands in its recipe (`data/recipes/<name>.py`): a
docstring, `SOURCE`, `EXPECTED` and `find`.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import tfgan_med
from tfgan_med import discovery, files
from tfgan_med.data import archives, recipes
from tfgan_med.data.archives import Member
from tfgan_med.data.downloads import Download
from tfgan_med.data.records import SPLITS, Split
from tfgan_med.errors import DataError, UserError

ALL = "all"
"""Stands for the class in counts of sets without classes."""

Counts = Mapping[str, tuple[int, int, int]]
"""By class: items of train, val and test."""


@dataclass(frozen=True)
class Source:
    """Where a set comes from.

    Attributes:
        origin: who made it, in a sentence.
        pages: addresses for people.
        citation: what to cite.
        licence: the terms, as far as they are published.
        downloads: files that can be fetched without an account; empty if there are none.
        notes: what users should know, sentences; they go to SOURCE.md.
        mode: how `check` and `train` should read the pictures, such as `gray`.
    """

    origin: str
    pages: tuple[str, ...]
    citation: str
    licence: str
    downloads: tuple[Download, ...] = ()
    notes: tuple[str, ...] = ()
    mode: str | None = None


@dataclass(frozen=True)
class File:
    """A file to write.

    Attributes:
        target: POSIX path in the new set.
        member: the original file.
        convert: its bytes to those to write; None to copy.
    """

    target: str
    member: Member
    convert: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True)
class Item:
    """An item of the new set; its first file is the one it is named after."""

    files: tuple[File, ...]
    label: str | None = None
    group: str | None = None
    split: Split | None = None

    @property
    def name(self) -> str:
        return self.files[0].target


@dataclass(frozen=True)
class Found:
    """What a recipe made of the archives: items with splits, and what looks odd."""

    items: list[Item]
    warnings: tuple[str, ...] = ()


class Recipe(Protocol):
    """A file of `data/recipes`, its docstring says which layouts it reads and who says so."""

    SOURCE: Source
    EXPECTED: Mapping[str, int]

    def find(self, members: Sequence[Member]) -> Found:
        """The items among the files of the archives.

        Raises:
            DataError: if they are not there.
        """


@dataclass(frozen=True)
class Imported:
    """A set that was made.

    Attributes:
        folder: where it is.
        counts: items by class and split.
        expected: items by class, as published.
        warnings: what is not as published.
    """

    folder: Path
    counts: dict[str, dict[str, int]]
    expected: dict[str, int]
    warnings: tuple[str, ...] = field(default=())


def recipe(name: str) -> Recipe:
    """The recipe of a study.

    Raises:
        UserError: if there is none of this name; the message lists all.
    """
    known = discovery.available(recipes)
    if name not in known:
        raise UserError(discovery.unknown(name, "recipe", known))
    return cast(Recipe, importlib.import_module(f"{recipes.__name__}.{name}"))


def where_from(name: str) -> str:
    """How to get the archives of a study, for a message."""
    source = recipe(name).SOURCE
    pages = " and ".join(source.pages)
    text = f"Get the archives from {pages} and run `tfgan-med data import {name} ARCHIVE...`"
    if source.downloads:
        size = sum(download.megabytes for download in source.downloads) / 1000
        return f"{text}, or add --download ({size:.1f} GB)."
    return f"{text}; this source wants an account, so --download cannot fetch them."


def import_set(
    name: str,
    paths: Sequence[Path],
    out: Path,
    replace_it: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Read the archives of a study and write its set; the folder appears whole.

    Args:
        name: of the recipe.
        paths: archives or folders, see `archives.opened`.
        out: the folder to make.
        replace_it: delete `out` first if it exists.
        progress: called with the files written and all.
    Raises:
        UserError: no such recipe or archive, or `out` exists.
        DataError: archives without the set's pictures, or unreadable ones.
    """
    chosen = recipe(name)
    if out.exists() and not replace_it:
        raise UserError(f"{out}: exists. Name another folder with --out, or add --force.")
    with archives.opened(paths) as members:
        found = chosen.find(members)
        _check_targets(found.items)
        with files.new_folder(out) as folder:
            _write_files(folder, found.items, progress)
            files.write_text(folder / "splits.csv", _table(found.items))
            files.write_text(folder / "SOURCE.md", _source_text(name, chosen, paths, found))
            if replace_it:
                files.remove_folder(out)
    counts = counted(found.items)
    warnings = (*_differences(chosen.EXPECTED, counts), *found.warnings)
    return Imported(out, counts, dict(chosen.EXPECTED), warnings)


def _check_targets(items: Sequence[Item]) -> None:
    targets = Counter(file.target for item in items for file in item.files)
    double = [target for target, count in targets.items() if count > 1]
    if double:
        raise DataError(
            f"{double[0]}: {targets[double[0]]} original files would get this name. Were archives "
            "given twice, or packed and unpacked? Give each once."
        )


def _write_files(folder: Path, items: Sequence[Item], progress: Callable[[int, int], None]) -> None:
    """In the order of the archives, for a compressed tar is read from front to back."""
    every = sorted((file for item in items for file in item.files), key=lambda f: f.member.place)
    for done, file in enumerate(every, 1):
        target = folder / file.target
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.convert is None:
            file.member.copy_to(target)
        else:
            target.write_bytes(file.convert(file.member.read()))
        progress(done, len(every))


def counted(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    """Items by class and split."""
    labels = sorted({item.label or ALL for item in items})
    return {
        label: {s: sum((i.label or ALL) == label and i.split == s for i in items) for s in SPLITS}
        for label in labels
    }


def _differences(
    expected: Mapping[str, int], counts: Mapping[str, Mapping[str, int]]
) -> tuple[str, ...]:
    found = {label: sum(by_split.values()) for label, by_split in counts.items()}
    return tuple(
        f"{label}: expected {number} items, found {found.get(label, 0)}. Is an archive missing or "
        "of another version? The set was made of what is there."
        for label, number in expected.items()
        if found.get(label, 0) != number
    )


def _table(items: Sequence[Item]) -> str:
    """`splits.csv`."""
    grouped = any(item.group is not None for item in items)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "split", *(["group"] if grouped else [])])
    for item in sorted(items, key=lambda item: item.name):
        rows.writerow([item.name, item.split, *([item.group or ""] if grouped else [])])
    return text.getvalue()


def _source_text(name: str, chosen: Recipe, paths: Sequence[Path], found: Found) -> str:
    """`SOURCE.md`: what a reader of the data must know about where they come from."""
    source = chosen.SOURCE
    title = discovery.summary(recipes, name)
    lines = [f"# {title}", "", source.origin, "", "From:", ""]
    lines += [f"- {page}" for page in source.pages]
    lines += ["", f"Cite: {source.citation}", "", f"Licence: {source.licence}", ""]
    lines += [f"{note}\n" for note in (*source.notes, *found.warnings)]
    archives_given = ", ".join(path.resolve().name for path in paths)
    lines += [
        f"Made by `tfgan-med data import {name}`, version {tfgan_med.__version__}, of "
        f"{archives_given}.",
        "",
        "| class | train | val | test |",
        "|---|---|---|---|",
    ]
    for label, by_split in counted(found.items).items():
        lines.append(f"| {label} | {' | '.join(str(by_split[split]) for split in SPLITS)} |")
    return "\n".join(lines) + "\n"


# What recipes share -------------------------------------------------------------------------------


def need(items: Sequence[object], members: Sequence[Member], expected: str) -> None:
    """Refuse archives in which a recipe found nothing.

    Raises:
        DataError: with what was expected and what is there.
    """
    if items:
        return
    there = ", ".join(member.path for member in members[:3]) or "no files"
    more = f" and {len(members) - 3} more" if len(members) > 3 else ""
    raise DataError(
        f"The archives hold none of the expected files. Expected {expected}; found {there}{more}. "
        "Give the original archives, or the folder they were unpacked to."
    )


def divide(items: Sequence[Item], wanted: Counts, seed: int = 0) -> list[Item]:
    """Give items splits at random, class by class: a function of their names and the seed.

    Args:
        items: of any order; groups are not looked at.
        wanted: items of each split by class, as published; `ALL` for sets without classes. Other
            numbers of items are divided in the same proportion.
        seed: of the draw.
    """
    divided = []
    for label, shares in wanted.items():
        own = [item for item in items if (item.label or ALL) == label]
        own.sort(key=lambda item: shuffled(seed, item.name))
        splits = [s for s, n in zip(SPLITS, apportion(len(own), shares), strict=True)
                  for _ in range(n)]  # fmt: skip
        divided += [replace(item, split=split) for item, split in zip(own, splits, strict=True)]
    return divided


def apportion(total: int, shares: Sequence[int]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to shares (largest remainders)."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    order = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def shuffled(seed: int, name: str) -> bytes:
    """A key that sorts names in a fixed random order."""
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()
