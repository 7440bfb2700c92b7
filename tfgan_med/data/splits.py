"""Who is in which split: as given, or made with whole groups and even shares of the classes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from tfgan_med import files
from tfgan_med.data import decode
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet, Record, Split
from tfgan_med.data.tables import Row, Table, read_table, split_value
from tfgan_med.errors import UserError


def assign(images: ImageSet, config: DataConfig) -> ImageSet:
    """Give every item a split.

    Given splits are kept; items without one become faults. Otherwise splits are made: whole groups,
    each class close to `fractions`, a function of `split_seed` and the ids only, so that neither
    the order of files nor the place of the folder matters.

    Returns:
        The set with a split for each of its items; its faults may have grown.
    Raises:
        UserError: if `fractions` are no shares, or splits or groups are asked for and not there.
    """
    _check_fractions(config.fractions)
    images = _assigned(images, config)
    return hold_out(images, config.hold_out, config) if config.hold_out else images


def hold_out(images: ImageSet, share: float, config: DataConfig) -> ImageSet:
    """The set with a validation split: its own, or part of the training split by whole groups.

    Args:
        share: of the training items.
        config: its `split_seed` decides which.
    """
    training = images.of_split("train")
    if images.of_split("val") or len(training) < 2:
        return images
    loose = replace(images, records=tuple(replace(record, split=None) for record in training))
    grouped = all(record.group is not None for record in training)
    rule = config.model_copy(
        update={"split": "group" if grouped else "random", "fractions": (1.0 - share, share, 0.0)}
    )
    divided = {record.id: record for record in _assigned(loose, rule).records}
    return replace(images, records=tuple(divided.get(r.id, r) for r in images.records))


def _assigned(images: ImageSet, config: DataConfig) -> ImageSet:
    given = any(record.split is not None for record in images.records)
    if config.split == "given" and not given:
        raise UserError(
            "split: the data give no splits. Add a splits.csv with the columns file and split, or "
            "let us split: --set data.split=auto."
        )
    if given and config.split in ("auto", "given"):
        return _keep_given(images)
    if config.split == "group":
        _need_groups(images)
    return replace(images, records=tuple(_divide(images.records, config)))


def merge_table(images: ImageSet) -> ImageSet:
    """The set with split, class and group as `splits.csv` in its root says, which wins.

    Rows are matched by the path of an item's file below the root, else by its name if that is
    unique. A row or an item without partner is a fault.
    """
    path = images.root / "splits.csv"
    if not path.is_file():
        return images
    table = read_table(path, {})
    faults, notices = [*images.faults, *table.faults], list(images.notices)
    finder = _Finder(images)
    rows: dict[str, Row] = {}
    for row in table.rows:
        record = finder.find(row.get("file") or "")
        if record is None and _is_reported(images, row.get("file") or ""):
            continue
        if record is None:
            faults.append(
                f"{table.at(row, 'file')}: no usable item of the data has this name. "
                "Restore the file, or remove the row."
            )
        elif record.id not in rows:
            rows[record.id] = row
        elif rows[record.id].values == row.values:
            notices.append(
                f"{table.at(row, 'file')}: the same as row {rows[record.id].number}; counted once."
            )
        else:
            faults.append(
                f"{table.at(row, 'file')}: the same file as in row {rows[record.id].number}, with "
                "another split, class or group. Remove one of the rows."
            )
    records = []
    for record in images.records:
        merged = _merged(record, table, rows.get(record.id), faults)
        if merged is not None:
            records.append(merged)
    return replace(images, records=tuple(records), faults=tuple(faults), notices=tuple(notices))


def leaks(images: ImageSet) -> list[tuple[str, str]]:
    """Groups that are in more than one split.

    Returns:
        For each the id of an item and a message; the group itself is named by its hash.
    """
    members: dict[str, list[Record]] = defaultdict(list)
    for record in images.records:
        if record.group is not None and record.split is not None:
            members[record.group].append(record)
    found = []
    for group, records in sorted(members.items()):
        counts = [(s, sum(r.split == s for r in records)) for s in SPLITS]
        inside = [(split, count) for split, count in counts if count]
        if len(inside) > 1:
            places = " and ".join(
                f"{split} ({count} image{'s' if count > 1 else ''}, such as "
                f"{next(r.id for r in records if r.split == split)})"
                for split, count in inside
            )
            message = (
                f"Patient group {group_hash(group)[:8]} is in {places}. The result would be too "
                "good. Remove it from one split in splits.csv, or let us split: --split group."
            )
            found.append((records[0].id, message))
    return found


def group_hash(group: str) -> str:
    """Hash of a patient or part under a key that stays on this machine, 16 hexadecimal digits.

    Names of patients are guessed easily, so a plain hash would tell them; with the key, runs of
    one machine can still be compared.
    """
    path = files.cache_dir() / "group.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return hmac.new(path.read_bytes(), group.encode(), hashlib.sha256).hexdigest()[:16]


def hashed_group(record: Record) -> str | None:
    """`group_hash` of an item's group; None if it has none."""
    return None if record.group is None else group_hash(record.group)


def _is_reported(images: ImageSet, value: str) -> bool:
    """Whether the reader has said already why it left a file out."""
    names = (f"{value}: ", f"{decode.hidden_name(value)}: ")
    return any(fault.startswith(names) for fault in images.faults)


class _Finder:
    """Items by path, and by name where that is unique."""

    def __init__(self, images: ImageSet) -> None:
        self.by_path: dict[str, Record] = {}
        by_name: dict[str, list[Record]] = defaultdict(list)
        for record in images.records:
            path = record.main.path
            self.by_path[path.relative_to(images.root).as_posix()] = record
            for name in {path.name, path.stem}:
                by_name[name].append(record)
        self.by_name = {name: found[0] for name, found in by_name.items() if len(found) == 1}

    def find(self, value: str) -> Record | None:
        """The item that a table means by a path or a name."""
        path = PurePosixPath(value.replace("\\", "/")).as_posix()
        return self.by_path.get(path) or self.by_name.get(path)


def _merged(record: Record, table: Table, row: Row | None, faults: list[str]) -> Record | None:
    """An item with the values of its row; None, with a message, if the two do not fit."""
    if row is None:
        faults.append(f"{record.id}: not in {table.name}. Add a row for it, or remove the file.")
        return None
    split, unknown = split_value(table, row)
    if unknown:
        faults.append(unknown)
        return None
    return replace(
        record,
        split=split or record.split,
        label=row.get("class") or record.label,
        group=row.get("group") or record.group,
    )


def _keep_given(images: ImageSet) -> ImageSet:
    """Items with a split; the others become faults."""
    faults = [
        f"{record.id}: has no split while others have one. Give it one in splits.csv, or let us "
        "split all: --split random."
        for record in images.records
        if record.split is None
    ]
    records = tuple(record for record in images.records if record.split is not None)
    return replace(images, records=records, faults=(*images.faults, *faults))


def _divide(records: Sequence[Record], config: DataConfig) -> list[Record]:
    """Split whole groups: large ones first, each to where its classes lack most."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_group_key(record)].append(record)
    order = sorted(groups, key=lambda key: (-len(groups[key]), _shuffle(config.split_seed, key)))
    wanted = _wanted(records, config.fractions)
    chosen: dict[str, Split] = {}
    for key in order:
        labels = [record.label for record in groups[key]]
        split = _neediest(wanted, labels)
        chosen[key] = split
        for label in (*labels, *[_ALL] * len(labels)):
            wanted[split, label] -= 1
    return [replace(record, split=chosen[_group_key(record)]) for record in records]


_ALL = "\0all classes"
"""Stands for all items together among the class names."""


def _wanted(
    records: Sequence[Record], fractions: tuple[float, float, float]
) -> dict[tuple[Split, str | None], float]:
    """How many items of each class, and of all, each split should still get."""
    wanted: dict[tuple[Split, str | None], float] = defaultdict(float)
    for split, fraction in zip(SPLITS, fractions, strict=True):
        for record in records:
            wanted[split, record.label] += fraction
            wanted[split, _ALL] += fraction
    return wanted


def _neediest(wanted: dict[tuple[Split, str | None], float], labels: Sequence[str | None]) -> Split:
    """The split that lacks items of these classes most; then of any; on a tie test before val."""

    def need(split: Split) -> tuple[float, float, bool]:
        own = sum(wanted[split, label] for label in labels) / len(labels)
        return round(own, 6), round(wanted[split, _ALL], 6), split == "test"

    return max(SPLITS, key=need)


def _group_key(record: Record) -> str:
    """What stays together: the group, or the item alone; the two cannot be confused."""
    return f"item {record.id}" if record.group is None else f"group {record.group}"


def _shuffle(seed: int, key: str) -> bytes:
    """A fixed random order."""
    return hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass")).digest()


def _need_groups(images: ImageSet) -> None:
    alone = sum(record.group is None for record in images.records)
    if alone:
        raise UserError(
            f"split: group needs a group for every item, but {alone} of {len(images.records)} have "
            "none. Add the column group to splits.csv, or use --set data.split=random."
        )


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"fractions are {list(fractions)}; three shares that sum to 1 are expected. "
            "Use --set data.fractions=[0.7, 0.15, 0.15]."
        )
