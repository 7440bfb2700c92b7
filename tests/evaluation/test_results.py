"""Result files: appended, never mixed."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from tfgan_med.errors import UserError
from tfgan_med.evaluation.results import append_csv, check_csv, note_results, read_results
from tfgan_med.metrics.base import Interval, Result

RESULT = Result(
    metric="fid",
    value=12.5,
    protocol="ttur",
    extractor="inception-2015",
    weights_sha256="ab" * 32,
    dimension=2048,
    count_real=100,
    count_fake=90,
    image_size=(64, 48),
    color="rgb",
    value_range=(0.0, 255.0),
    real="real",
    fake="fake, with a comma",
    interval=Interval(10.0, 15.0, 0.95, "jackknife", 100),
    settings={"ddof": 1},
)


def test_a_csv_file_grows_by_a_line_per_number_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    append_csv(path, [RESULT, replace(RESULT, metric="kid", value=None, interval=None)])
    append_csv(path, [replace(RESULT, value=11.0)])
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["value"] for row in rows] == ["12.5", "", "11.0"]
    assert (rows[0]["low"], rows[0]["high"], rows[1]["low"]) == ("10.0", "15.0", "")
    assert (rows[0]["height"], rows[0]["width"], rows[0]["fake"]) == ("64", "48", RESULT.fake)


@pytest.mark.parametrize(
    "other",
    [
        replace(RESULT, protocol="clean"),
        replace(RESULT, weights_sha256="cd" * 32),
        replace(RESULT, settings={"ddof": 0}),
    ],
)
def test_a_file_never_holds_one_name_with_two_meanings(tmp_path: Path, other: Result) -> None:
    path = append_csv(tmp_path / "results.csv", [RESULT])
    before = path.read_bytes()
    with pytest.raises(UserError, match="One name must mean one thing"):
        append_csv(path, [replace(RESULT, value=3.0), other])
    assert path.read_bytes() == before

    note_results(tmp_path, [RESULT])
    with pytest.raises(UserError, match=r"results\.jsonl: holds fid"):
        note_results(tmp_path, [other])
    note_results(tmp_path, [replace(RESULT, value=11.0)])
    assert [row["value"] for row in read_results(tmp_path)] == [12.5, 11.0]


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_text("patient,age\n1,60\n")
    with pytest.raises(UserError, match="has other columns"):
        check_csv(path)
    with pytest.raises(UserError, match="has other columns"):
        append_csv(path, [RESULT])
    assert path.read_text() == "patient,age\n1,60\n"
    with pytest.raises(UserError, match="no file in an existing folder"):
        check_csv(tmp_path / "none" / "results.csv")
