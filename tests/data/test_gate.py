"""Training refuses what `check` finds, and does not check a set twice."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from tfgan_med.data import gate, opening, splits
from tfgan_med.data.builtin import materialize
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "smear"
    shutil.copytree(materialize("builtin:smear?count=24&size=64"), folder)
    return folder


def require_fit(folder: Path, **settings: object) -> None:
    config = DataConfig(path=str(folder), **settings)
    gate.require_fit(splits.assign(opening.open_set(config), config), config)


def change_splits(folder: Path, column: str, values: list[str]) -> None:
    with (folder / "splits.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, value in zip(rows, values, strict=True):
        row[column] = value
    with (folder / "splits.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_group_in_two_splits_is_refused_with_the_items(data: Path) -> None:
    change_splits(data, "group", [f"slide{index % 5}" for index in range(24)])
    with pytest.raises(DataError, match="group .* is in train .*images/smear.* and (val|test)"):
        require_fit(data)
    require_fit(data, check=False)


def test_a_copy_across_splits_is_refused(data: Path) -> None:
    with (data / "splits.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    train = next(row["file"] for row in rows if row["split"] == "train")
    test = next(row["file"] for row in rows if row["split"] == "test")
    shutil.copy(data / train, data / test)
    with pytest.raises(DataError, match=Path(test).stem):
        require_fit(data)


def test_a_set_that_passed_is_checked_again_only_when_a_file_changes(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_fit(data)

    def checked(config: DataConfig) -> None:
        raise AssertionError("checked")

    monkeypatch.setattr(gate, "check", checked)
    require_fit(data)
    picture = sorted((data / "images").iterdir())[0]
    picture.write_bytes(picture.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="checked"):
        require_fit(data)
