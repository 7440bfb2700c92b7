"""The command `check`: report on stdout, files in a folder of their own, exit code 1 for faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgan_med.cli.app import app
from tfgan_med.errors import UserError

RUNNER = CliRunner()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures, and a current folder beside them."""
    folder, here = tmp_path / "pictures", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    for n in range(5):
        noise = np.random.default_rng(n).integers(0, 256, (16, 16)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{n}.png")
    return folder


def test_the_report_goes_to_stdout_and_its_files_to_new_folders(data: Path) -> None:
    for folder in ("check-pictures", "check-pictures-2"):
        result = RUNNER.invoke(app, ["check", str(data)])
        assert result.exit_code == 0
        assert result.stdout.startswith("pictures: 5 items, layout folder")
        assert "Warning: few items (1)" in result.stdout
        assert "\x1b" not in result.output
        assert json.loads((Path(folder) / "check.json").read_text())["items"] == 5
        assert Image.open(Path(folder) / "overview.png").format == "PNG"
        assert result.stderr.rstrip().splitlines()[-1].startswith("Next: tfgan-med train")
    assert sorted(path.name for path in data.iterdir()) == [f"{n}.png" for n in range(5)]


def test_a_fault_ends_with_1_and_is_listed(data: Path) -> None:
    for n in range(5):
        (data / f"{n}.png").write_bytes(b"")
    (data / "good.png").write_bytes(b"")
    Image.new("L", (8, 8)).save(data / "good.png")
    result = RUNNER.invoke(app, ["check", str(data), "--out", "report"])
    assert result.exit_code == 1
    assert "Error: empty (5)" in result.stdout
    assert "and 2 more, see check.json" in result.stdout
    errors = json.loads(Path("report/check.json").read_text())["errors"]
    assert [error["item"] for error in errors] == [f"{n}.png" for n in range(5)]
    assert RUNNER.invoke(app, ["check", str(data), "--skip-bad"]).exit_code == 0


def test_json_is_one_object_on_one_line(data: Path) -> None:
    result = RUNNER.invoke(app, ["check", str(data), "--json", "--quiet"])
    assert json.loads(result.stdout)["counts"]["all"] == {"train": 3, "val": 1, "test": 1}
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


def test_reports_are_replaced_only_with_force_and_never_written_into_the_data(data: Path) -> None:
    assert RUNNER.invoke(app, ["check", str(data), "--out", "report"]).exit_code == 0
    again = RUNNER.invoke(app, ["check", str(data), "--out", "report"])
    assert isinstance(again.exception, UserError)
    assert "holds a report already" in str(again.exception)
    assert RUNNER.invoke(app, ["check", str(data), "--out", "report", "--force"]).exit_code == 0
    inside = RUNNER.invoke(app, ["check", str(data), "--out", str(data / "report")])
    assert "lies in the data folder" in str(inside.exception)
    assert not (data / "report").exists()


def test_from_inside_the_data_nothing_is_written(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    result = RUNNER.invoke(app, ["check", "."])
    assert result.exit_code == 0
    assert "Nothing written" in result.stderr
    assert len(list(data.iterdir())) == 5


def test_columns_are_named_as_ours_is_theirs(data: Path) -> None:
    (data / "list.csv").write_text("picture\n0.png\n")
    table = str(data / "list.csv")
    assert RUNNER.invoke(app, ["check", table, "--columns", "file=picture"]).exit_code == 0
    wrong = RUNNER.invoke(app, ["check", table, "--columns", "picture"])
    assert "OURS=THEIRS is expected" in str(wrong.exception)


def test_nothing_of_a_patient_is_told_or_written(cli: Any, tmp_path: Path, planted: str) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    folder = tmp_path / "scans"
    folder.mkdir()
    for n in range(3):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        path = folder / f"{planted}-{n}.dcm"
        dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.PatientName = dataset.PatientID = dataset.StudyDescription = planted
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 16, 16, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        noise = np.random.default_rng(n).integers(0, 65536, (16, 16))
        dataset.PixelData = noise.astype("<u2").tobytes()[: 100 if n == 2 else None]
        dataset.save_as(path, enforce_file_format=True)
    done = cli("check", folder, cwd=tmp_path)  # fails by itself if the name is printed
    assert done.returncode == 1
    assert "Error: truncated (1)\n  dicom-" in done.stdout
    written = list((tmp_path / "check-scans").iterdir())
    assert len(written) == 2
    assert not any(planted.encode() in path.read_bytes() for path in written)


def test_a_missing_folder_is_one_message_and_2(cli: Any, tmp_path: Path) -> None:
    done = cli("check", tmp_path / "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert "no such folder or table" in done.stderr
    assert not list(tmp_path.iterdir())
