"""CSV tables of data sets: any of three delimiters, a byte order mark, columns by several names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tfgan_med.data.listing import inside, split_of
from tfgan_med.data.records import Split
from tfgan_med.errors import DataError

_ALIASES = {
    "file": ("file", "image", "images", "filename", "file_name", "path"),
    "mask": ("mask", "masks", "mask_file"),
    "class": ("class", "label", "category"),
    "group": ("group", "patient", "patient_id", "group_id"),
    "split": ("split", "set", "subset"),
    "instances": ("instances",),
    "labels": ("labels", "label_map"),
    "inputs": ("inputs", "input"),
    "templates": ("templates", "template"),
}
"""Our columns and the names that they are found by when none is given."""


@dataclass(frozen=True)
class Row:
    """One row: its number as spreadsheets count (the header is 1) and its values by our names."""

    number: int
    values: Mapping[str, str]

    def get(self, column: str) -> str | None:
        """The value of one of our columns; None if it is empty or there is no such column."""
        return self.values.get(column, "").strip() or None


@dataclass(frozen=True)
class Table:
    """A CSV file with its columns under our names.

    Attributes:
        name: the file's name, for messages.
        columns: our column name to theirs, for the columns that are there.
        rows: the rows that have as many values as there are columns.
        faults: one message for each row that has not.
    """

    name: str
    columns: Mapping[str, str]
    rows: tuple[Row, ...]
    faults: tuple[str, ...]

    def at(self, row: Row, column: str) -> str:
        """Where a value stands, for messages."""
        return f"{self.name}: row {row.number}, column {self.columns.get(column, column)}"


def read_table(path: Path, wanted: Mapping[str, str]) -> Table:
    """Read a CSV file.

    Args:
        path: UTF-8 text, delimited by commas, semicolons or tabs.
        wanted: our column name to theirs where the usual names do not serve.
    Raises:
        DataError: if the file is no such text, or a column that is needed is not there.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: not UTF-8 text (byte {error.start}). Save the table as CSV UTF-8."
        ) from None
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path.name}: not a CSV table ({error}). Save it as CSV UTF-8.") from None
    filled = [(number, line) for number, line in enumerate(lines, 1) if any(map(str.strip, line))]
    if not filled:
        raise DataError(
            f"{path.name}: the table is empty. It needs a header row with a column file."
        )
    header = [name.strip() for name in filled[0][1]]
    columns = _columns(path.name, header, wanted)
    rows, faults = [], []
    for number, line in filled[1:]:
        if len(line) == len(header):
            named = dict(zip(header, line, strict=True))
            rows.append(Row(number, {ours: named[theirs] for ours, theirs in columns.items()}))
        else:
            faults.append(
                f"{path.name}: row {number} has {len(line)} values, the header {len(header)}. "
                "Quote values that contain the delimiter."
            )
    return Table(path.name, columns, tuple(rows), tuple(faults))


def _columns(name: str, header: list[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Our column name to theirs, for the columns that are there; `file` must be."""
    have = ", ".join(header)
    unknown = sorted(set(wanted) - set(_ALIASES))
    if unknown:
        raise DataError(
            f"columns: {unknown[0]} is none of our columns. Ours are {', '.join(_ALIASES)}; "
            "write OURS=THEIRS."
        )
    lowered = {column.lower(): column for column in reversed(header)}
    found = {}
    for ours, aliases in _ALIASES.items():
        theirs = wanted.get(ours)
        if theirs is not None and theirs not in header:
            raise DataError(
                f"{name}: no column {theirs!r} for {ours}. The columns are {have}. "
                f"Name the right one: --columns {ours}=NAME."
            )
        match = theirs or next((lowered[alias] for alias in aliases if alias in lowered), None)
        if match is not None:
            found[ours] = match
    if "file" not in found:
        raise DataError(
            f"{name}: no column file. The columns are {have}. "
            "Name the one that holds the pictures: --columns file=NAME."
        )
    return found


def path_fault(root: Path, value: str) -> str | None:
    """Why a path of a table cannot be read, if it cannot: nothing outside the root is."""
    windows, posix = PureWindowsPath(value), PurePosixPath(value)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        return "is an absolute path. Paths are relative to the table's folder."
    if ".." in windows.parts or ".." in posix.parts:
        return "leads out of the data folder. Paths must stay in the table's folder."
    if "\0" in value:
        return "is not a path."
    if not (root / value).exists():
        return "does not exist. Restore the file, or remove the row."
    if not inside(root, root / value):
        return "is a link that leads out of the data folder. Copy the file into it."
    return None


def split_value(table: Table, row: Row) -> tuple[Split | None, str | None]:
    """The split of a row, and the message if its name is unknown."""
    value = row.get("split")
    split = split_of(value) if value else None
    if value and split is None:
        return None, (
            f"{table.at(row, 'split')}: {shown(value)} is not a split. Use train, val or test."
        )
    return split, None


def shown(value: str) -> str:
    """A value of a table for messages: quoted, short, control characters written out."""
    return repr(value if len(value) <= 60 else value[:57] + "...")
