"""A CSV table: columns `file`, `mask`, `class`, `group` (or `patient`), `split`, in any order.

Further roles may have columns too: `instances`, `labels`, `inputs`, `templates`. Other names are
given with `--columns OURS=THEIRS`. Paths are relative to the table's folder and must stay in it.
"""

from __future__ import annotations

from pathlib import Path

from tfgan_med.data import decode
from tfgan_med.data.records import DataConfig, ImageSet, Part, Record
from tfgan_med.data.tables import Row, Table, path_fault, read_table, shown, split_value
from tfgan_med.errors import UserError

_ROLES = {
    "file": "images",
    "mask": "masks",
    "instances": "instances",
    "labels": "labels",
    "inputs": "inputs",
    "templates": "templates",
}
"""Columns that hold files, and the role of each."""


def matches(root: Path) -> bool:
    """Whether the path is a table, or a folder with one called `table.csv`."""
    return _is_table(root) or (root / "table.csv").is_file()


def read(root: Path, config: DataConfig) -> ImageSet:
    """Read the rows; a row that cannot be used is a fault that names row and column."""
    source = _table_path(root)
    table = read_table(source, config.columns)
    folder = source.parent
    faults = list(table.faults)
    used: dict[Path, int] = {}
    kept = []
    for row in table.rows:
        parts = _parts(folder, table, row, faults)
        split, unknown = split_value(table, row)
        if unknown:
            faults.append(unknown)
        path = parts["images"].path if parts else folder
        if path in used:
            faults.append(
                f"{table.at(row, 'file')}: the same file as in row {used[path]}. "
                "Remove one of the rows."
            )
        elif parts and not unknown:
            used[path] = row.number
            kept.append((parts, row.get("class"), row.get("group"), split))
    private = any(decode.is_dicom(p.path) for parts, *_ in kept for p in parts.values())
    records = []
    for parts, label, group, split in kept:
        name = parts["images"].path.relative_to(folder).as_posix()
        id_ = decode.hidden_name(name) if private else name
        records.append(Record(id_, parts, label, group, split))
    records.sort(key=lambda record: record.id)
    return ImageSet(folder, "table", tuple(records), tuple(faults))


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv")


def _table_path(root: Path) -> Path:
    """The table: the path itself, `table.csv` in it, or the one table that is there."""
    if _is_table(root):
        return root
    if (root / "table.csv").is_file():
        return root / "table.csv"
    here = (
        sorted(p for p in root.glob("*.[ct]sv") if p.name != "splits.csv") if root.is_dir() else []
    )
    if len(here) == 1:
        return here[0]
    raise UserError(
        f"{root}: no table to read ({len(here)} CSV files besides splits.csv). Give the path of "
        "the CSV file instead of the folder."
    )


def _parts(folder: Path, table: Table, row: Row, faults: list[str]) -> dict[str, Part]:
    """Files of a row by role; empty, with a message, if one cannot be used."""
    parts = {}
    for column, role in _ROLES.items():
        if column not in table.columns:
            continue
        value = row.get(column)
        if value is None:
            faults.append(f"{table.at(row, column)}: empty. Fill it in, or remove the row.")
            return {}
        value = value.replace("\\", "/")  # tables from Windows
        reason = path_fault(folder, value)
        if reason is not None:
            private = any(v.strip().lower().endswith(".dcm") for v in row.values.values())
            name = "the path" if private else shown(value)
            faults.append(f"{table.at(row, column)}: {name} {reason}")
            return {}
        parts[role] = Part(folder / value)
    return parts
