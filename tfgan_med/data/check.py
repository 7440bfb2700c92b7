"""Look at every file of a data set and say what would make training wrong, and what is odd."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.data import decode, duplicates, opening, splits
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Part, Record

Array = npt.NDArray[Any]

FEW_ITEMS, RARE_CLASS = 50, 0.05

_VALUE_ROLES = ("instances", "labels")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd.

    Attributes:
        kind: what it is, in a few words; findings of a kind are told together.
        item: the file or item, if it is one.
        text: what was found, what was expected, what to do.
    """

    kind: str
    item: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.item}: {self.text}" if self.item else self.text


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        name, layout: of the set.
        items: number of usable items.
        splits_given: whether the data give the splits; else they are those that training makes.
        counts: items by class (`all` for all) and split.
        groups: number of groups by split; empty if there are no groups.
        sizes, modes: number of files by role and by size or mode.
        ranges: least and greatest value by role.
        errors: what would make training wrong.
        warnings: what is odd, harmless by itself.
    """

    name: str
    layout: str
    items: int
    splits_given: bool
    counts: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, int]
    sizes: Mapping[str, Mapping[str, int]]
    modes: Mapping[str, Mapping[str, int]]
    ranges: Mapping[str, tuple[float, float]]
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values; it holds no path outside the data and no header value."""
        return asdict(self)

    @property
    def ok(self) -> bool:
        """Whether training may start."""
        return not self.errors


@dataclass(frozen=True)
class _Facts:
    """What one file turned out to be."""

    header: decode.Header
    size: tuple[int, int]
    dtype: str
    low: float
    high: float
    finite: bool
    values: tuple[int, ...] = ()
    equal_channels: bool = False


@dataclass(frozen=True)
class _Look:
    """What one item turned out to be; `problems` make it unusable."""

    record: Record
    facts: Mapping[str, _Facts] = field(default_factory=dict)
    digest: str = ""
    thumbnail: Array | None = None
    problems: tuple[Finding, ...] = ()


def check(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> Report:
    """Open a data set as training would, decode every file, and report.

    Args:
        config: the set; with `skip_bad` unusable items are warnings and left out of the rest.
        progress: called with the number of items looked at and of all items.
    Raises:
        UserError, DataError: if there is no set to report on, as `opening.open_set`.
    """
    opened = opening.open_set(config)
    given = any(record.split for record in opened.records)
    images = splits.assign(opened, config)
    looks = _look_at_all(images, config, progress)

    bad = [Finding("cannot be used", None, fault) for fault in images.faults]
    bad += [problem for look in looks for problem in look.problems]
    looks = [look for look in looks if not look.problems]
    kept = replace(images, records=tuple(look.record for look in looks))
    errors = [] if config.skip_bad else bad
    warnings = [Finding("left out", f.item, f.text) for f in bad] if config.skip_bad else []
    warnings += [Finding("note", None, notice) for notice in images.notices]

    errors += [Finding("group in two splits", None, text) for _, text in splits.leaks(kept)]
    errors += _mixed_pictures(looks, config)
    twice_errors, twice_warnings = _twice(looks)
    errors += twice_errors
    warnings += twice_warnings + _odd_files(looks) + _odd_masks(looks) + _few(kept)
    return Report(
        name=_name_of(config.path),
        layout=images.layout,
        items=len(looks),
        splits_given=given and config.split in ("auto", "given"),
        counts=_counts(kept),
        groups=_groups(kept),
        sizes=_tally(looks, lambda facts: f"{facts.size[0]} x {facts.size[1]}"),
        modes=_tally(looks, lambda facts: f"{facts.header.mode} {facts.dtype}"),
        ranges=_ranges(looks),
        errors=tuple(dict.fromkeys(errors)),  # both halves of a file tell the same
        warnings=tuple(dict.fromkeys(warnings)),
    )


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings grouped, the order kept."""
    grouped: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        grouped[finding.kind].append(finding)
    return dict(grouped)


# Looking at the files


def _look_at_all(
    images: ImageSet, config: DataConfig, progress: Callable[[int, int], None] | None
) -> list[_Look]:
    """Decode all items, several at a time; only small facts are kept of each."""
    looks = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pending = pool.map(lambda record: _look(record, config), images.records)
        for count, look in enumerate(pending, 1):
            looks.append(look)
            if progress is not None:
                progress(count, len(images.records))
    return looks


def _look(record: Record, config: DataConfig) -> _Look:
    """Decode one item and compare its parts."""
    problems: list[Finding] = []
    facts: dict[str, _Facts] = {}
    arrays: dict[str, Array] = {}
    for role, part in record.parts.items():
        try:
            header = decode.read_header(part.path)
            read = decode.read_labels if _holds_values(role) else decode.read_picture
            arrays[role] = read(part, config.max_pixels)
            facts[role] = _facts(header, arrays[role], _holds_values(role))
        except decode.PictureError as error:
            problems.append(Finding(error.kind, _name(part), error.reason))
    for role, fact in facts.items():
        if not fact.finite:
            text = "NaN or infinite values. Replace them by numbers when the picture is exported."
            problems.append(Finding("not finite", _name(record.parts[role]), text))
    if not problems:
        problems += _misfits(record, facts, arrays)
    role = record.main_role
    is_picture = role in arrays and not _holds_values(role)
    return _Look(
        record,
        facts,
        files.sha256_of(record.main.path) if role in facts else "",
        duplicates.thumbnail(arrays[role]) if is_picture else None,
        tuple(problems),
    )


def _facts(header: decode.Header, array: Array, holds_values: bool) -> _Facts:
    finite = bool(np.isfinite(array).all())
    numbers = array if finite else array[np.isfinite(array)]
    color = array.ndim == 3 and array.shape[-1] == 3
    return _Facts(
        header=header,
        size=(array.shape[1], array.shape[0]),
        dtype=array.dtype.name,
        low=float(numbers.min()) if numbers.size else 0.0,
        high=float(numbers.max()) if numbers.size else 0.0,
        finite=finite,
        values=_first_values(array) if holds_values else (),
        equal_channels=color and bool((array == array[..., :1]).all()),
    )


def _first_values(array: Array, limit: int = 12) -> tuple[int, ...]:
    """The least different values of a mask."""
    if array.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    else:
        found = np.unique(array)
    return tuple(int(value) for value in found[:limit])


def _misfits(
    record: Record, facts: Mapping[str, _Facts], arrays: Mapping[str, Array]
) -> list[Finding]:
    """Parts of another size than the picture, the picture as its own mask, values of no mask."""
    found = []
    main = record.main_role
    for role, fact in facts.items():
        name = _name(record.parts[role])
        if fact.size != facts[main].size:
            width, height = fact.size
            found.append(
                Finding(
                    "other size",
                    name,
                    f"the {_word(role)} is {width} x {height}, its {_word(main)} "
                    f"{facts[main].size[0]} x {facts[main].size[1]}. Both must have one size. "
                    "Crop or export it again.",
                )
            )
        elif role != main and _holds_values(role) and _is_same_picture(arrays[main], arrays[role]):
            found.append(
                Finding(
                    "picture as its own mask",
                    name,
                    f"holds the same pixels as {_name(record.main)}. A mask marks what the picture "
                    "shows. Put the right file in its place.",
                )
            )
        elif _is_mask(role) and not _is_binary(fact.values):
            found.append(Finding("mask values", name, _value_text(fact.values)))
    return found


def _is_same_picture(picture: Array, mask: Array) -> bool:
    return picture.ndim == 3 and bool(
        picture.shape[:2] == mask.shape and (picture == mask[..., None]).all() and picture.any()
    )


def _is_binary(values: tuple[int, ...]) -> bool:
    return set(values) <= {0, 255} or set(values) <= {0, 1}


def _value_text(values: tuple[int, ...]) -> str:
    """What to do about a mask whose values are not those of a mask."""
    shown = ", ".join(map(str, values[:6])) + (" ..." if len(values) > 6 else "")
    if max(values) < 12 or (len(values) < 12 and values[0] == 0 and max(values) < 100):
        cure = "Class numbers belong in labels/, numbered objects in instances/."
    else:
        cure = "JPEG and smooth resizing change masks: save as PNG, resize with nearest neighbor."
    return f"holds the values {shown}; a mask holds 0 and 255, or 0 and 1. {cure}"


# What the items are together


def _mixed_pictures(looks: Sequence[_Look], config: DataConfig) -> list[Finding]:
    """Grey among colour, and 8 bits among others, in pictures of one role."""
    found = []
    for role in _picture_roles(looks):
        by_mode = _examples(looks, role, lambda facts: facts.header.mode)
        if len(by_mode) > 1 and config.mode == "auto":
            text = "grey and colour mixed. Choose one for all: --mode gray or --mode rgb."
            found.append(Finding("grey and colour mixed", role, f"{_listed(by_mode)}: {text}"))
        by_depth = _examples(looks, role, lambda facts: _depth(facts))
        if len(by_depth) > 1:
            text = "8-bit and deeper pictures mixed, which one value window cannot serve. "
            cure = "Export all of them in the same depth."
            found.append(Finding("depths mixed", role, f"{_listed(by_depth)}: {text}{cure}"))
    return found


def _depth(facts: _Facts) -> str:
    return "8 bit" if facts.dtype == "uint8" else "16 bit or float"


def _examples(
    looks: Sequence[_Look], role: str, key: Callable[[_Facts], str]
) -> dict[str, list[str]]:
    """Names of the files of a role by a property."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for look in looks:
        if role in look.facts:
            grouped[key(look.facts[role])].append(_name(look.record.parts[role]))
    return grouped


def _listed(groups: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(
        f"{len(names)} {key} (such as {names[0]})" for key, names in sorted(groups.items())
    )


def _twice(looks: Sequence[_Look]) -> tuple[list[Finding], list[Finding]]:
    """Pictures that are in the set more than once: errors across splits, else warnings.

    Pictures of one group may look alike (exposures of a part, slices of a patient), so within a
    group only identical files are told.
    """
    errors: list[Finding] = []
    warnings: list[Finding] = []
    told: set[tuple[int, str]] = set()
    for first, second, how in _pairs(looks):
        a, b = looks[first].record, looks[second].record
        across = a.split != b.split
        related = a.group is not None and a.group == b.group
        kind = f"{how} {'across splits' if across else 'within a split'}"
        if (second, kind) in told or (related and how != "identical"):
            continue
        told.add((second, kind))
        where = f"{a.id} in {a.split}" if across else a.id
        text = {
            "identical": f"the same file as {where}",
            "nearly identical": f"nearly the same picture as {where}",
            "very alike": f"looks very much like {where}",
        }[how] + (f", and is itself in {b.split}. " if across else ". ")
        if across and how != "very alike":
            cure = "The result would be too good. Remove one, or give both the same group."
            errors.append(Finding(kind, b.id, text + cure))
        else:
            cure = "If both show one object, give them the same group." if across else ""
            warnings.append(Finding(kind, b.id, (text + cure).strip()))
    return errors, warnings


def _pairs(looks: Sequence[_Look]) -> Iterable[tuple[int, int, str]]:
    """Places of two items and how alike they are; identical files first."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, look in enumerate(looks):
        main = look.facts[look.record.main_role]
        if not (main.values and main.low == main.high):  # empty masks are equal by nature
            places[look.digest].append(place)
    identical = set()
    for same in places.values():
        for second in same[1:]:
            splits_met = {looks[place].record.split: place for place in reversed(same)}
            for first in {same[0], *splits_met.values()} - {second}:
                pair = (min(first, second), max(first, second))
                if pair not in identical:
                    identical.add(pair)
                    yield (*pair, "identical")
    shown = [place for place, look in enumerate(looks) if look.thumbnail is not None]
    if not shown:
        return
    thumbnails = np.stack([looks[place].thumbnail for place in shown])  # type: ignore[misc]
    for pair_ in duplicates.near_duplicates(thumbnails):
        first, second = shown[pair_.first], shown[pair_.second]
        if looks[first].digest != looks[second].digest:
            yield first, second, "nearly identical" if pair_.same else "very alike"


def _odd_files(looks: Sequence[_Look]) -> list[Finding]:
    """Suffixes, turns, profiles, marks and contents that deserve a look."""
    found = []
    for look in looks:
        for role, facts in look.facts.items():
            part = look.record.parts[role]
            found += [Finding(kind, _name(part), text) for kind, text in _oddities(part, facts)]
            if not _holds_values(role) and facts.low == facts.high:
                text = f"every pixel has the value {facts.low:g}; nothing can be learnt from it."
                found.append(Finding("constant picture", _name(part), text))
    for role in _picture_roles(looks):
        colors = [look.facts[role] for look in looks if look.facts[role].header.mode == "rgb"]
        if colors and all(facts.equal_channels for facts in colors):
            text = (
                f"the {len(colors)} colour files are grey (equal channels); --mode gray saves work."
            )
            found.append(Finding("grey in three channels", role, text))
    return found


def _oddities(part: Part, facts: _Facts) -> Iterable[tuple[str, str]]:
    """Kind and message of what is odd about a file but harmless."""
    header = facts.header
    promised = decode.SUFFIXES.get(part.path.suffix.lower(), header.format)
    if promised != header.format:
        yield "wrong suffix", f"the suffix says {promised}, the content is {header.format}."
    if header.orientation != 1:
        yield "turned by EXIF", f"orientation {header.orientation}; it is read upright."
    if header.icc:
        yield "colour profile", "an ICC profile is embedded; values are used without it."
    if header.frames > 1:
        yield "several pages", f"holds {header.frames} pictures; only the first is read."
    if header.synthetic:
        yield "generated", "is marked as made by a network. Keep generated and real sets apart."
    if header.burned_in:
        text = "the header says that text is burned into the picture, perhaps a patient's name."
        yield "burned-in text", text


def _odd_masks(looks: Sequence[_Look]) -> list[Finding]:
    """Empty masks, and object numbers that 8 bits may cut off."""
    found = []
    for role in sorted({role for look in looks for role in look.facts if _holds_values(role)}):
        facts = [look.facts[role] for look in looks if role in look.facts]
        empty = sum(fact.high == 0 for fact in facts)
        if empty and role != "labels":
            text = f"{empty} of {len(facts)} are empty (nothing is marked)."
            found.append(Finding("empty masks", role, text))
        narrow = sum(fact.dtype == "uint8" for fact in facts)
        if role == "instances" and narrow:
            text = f"{narrow} of {len(facts)} have 8 bits, which number 255 objects at most."
            found.append(Finding("instances in 8 bit", role, f"{text} Save 16-bit PNG."))
    return found


def _few(images: ImageSet) -> list[Finding]:
    """Few items, rare classes."""
    found = []
    count = len(images.records)
    if count < FEW_ITEMS:
        text = (
            f"{count} items; GANs overfit below {FEW_ITEMS}, and distances such as FID are biased."
        )
        found.append(Finding("few items", None, text))
    classes = Counter(record.label for record in images.records if record.label is not None)
    for label, number in sorted(classes.items()):
        if number < RARE_CLASS * count:
            text = f"{number} of {count} items, under {RARE_CLASS:.0%}."
            found.append(Finding("rare class", label, text))
    return found


# Counting


def _counts(images: ImageSet) -> dict[str, dict[str, int]]:
    """Items by class and split."""
    table: dict[str, dict[str, int]] = {}
    for label in (None, *images.labels):
        of_class = [r for r in images.records if label is None or r.label == label]
        table["all" if label is None else label] = {
            split: sum(record.split == split for record in of_class) for split in SPLITS
        }
    return table


def _groups(images: ImageSet) -> dict[str, int]:
    groups = {s: {r.group for r in images.of_split(s) if r.group is not None} for s in SPLITS}
    return {split: len(found) for split, found in groups.items()} if any(groups.values()) else {}


def _tally(looks: Sequence[_Look], key: Callable[[_Facts], str]) -> dict[str, dict[str, int]]:
    """Number of files by role and a property, frequent first."""
    tallies: dict[str, Counter[str]] = defaultdict(Counter)
    for look in looks:
        for role, facts in look.facts.items():
            tallies[role][key(facts)] += 1
    return {role: dict(tally.most_common()) for role, tally in sorted(tallies.items())}


def _ranges(looks: Sequence[_Look]) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for look in looks:
        for role, facts in look.facts.items():
            low, high = ranges.get(role, (facts.low, facts.high))
            ranges[role] = min(low, facts.low), max(high, facts.high)
    return dict(sorted(ranges.items()))


# Names


def _picture_roles(looks: Sequence[_Look]) -> list[str]:
    return sorted({role for look in looks for role in look.facts if not _holds_values(role)})


def _is_mask(role: str) -> bool:
    return role == "masks" or role.startswith("masks-")


def _holds_values(role: str) -> bool:
    """Whether the pixels of a role are marks or numbers, not brightness."""
    return _is_mask(role) or role in _VALUE_ROLES


def _word(role: str) -> str:
    """A role as a word in a sentence."""
    names = {"images": "image", "masks": "mask", "inputs": "input map", "labels": "label map"}
    return names.get(role, "mask" if _is_mask(role) else role.removesuffix("s"))


def _name(part: Part) -> str:
    return part.name or decode.short_name(part.path)


def _name_of(path: str) -> str:
    """Name of a set: the last part of its path, or the built-in name."""
    return path.partition("?")[0] if path.startswith("builtin:") else Path(path).resolve().name
