"""`tfgan-med data` as users run it, without network."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgan_med.cli.app import app
from tfgan_med.errors import UserError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few X-rays with the names of the Montgomery set, and an empty folder to work in."""
    path = tmp_path / "NLM-MontgomeryCXRSet.zip"
    with zipfile.ZipFile(path, "w") as stream:
        for n in range(12):
            noise = np.random.default_rng(n).integers(0, 256, (16, 16), dtype=np.uint8)
            out = io.BytesIO()
            Image.fromarray(noise).save(out, format="PNG")
            stream.writestr(f"MontgomerySet/CXR_png/MCUCXR_{n:04}_{n % 2}.png", out.getvalue())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return path


def test_a_set_is_made_counted_and_ready_to_check(archive: Path) -> None:
    result = RUNNER.invoke(app, ["data", "import", "tuberculosis_xrays", str(archive)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "tuberculosis_xrays"
    assert lines[1].split() == ["class", "train", "val", "test", "sum", "published"]
    assert lines[2].split() == ["abnormal", "5", "1", "0", "6", "394"]
    assert "Warning: normal: expected 406 items, found 6." in result.stderr
    last = result.stderr.rstrip().splitlines()[-1]
    assert last == "Next: tfgan-med check tuberculosis_xrays --mode gray"
    checked = RUNNER.invoke(app, ["check", "tuberculosis_xrays", "--mode", "gray", "--json"])
    assert json.loads(checked.stdout)["items"] == 12


def test_json_is_one_object_and_force_replaces(archive: Path) -> None:
    words = ["data", "import", "tuberculosis_xrays", str(archive), "--out", "xrays", "--json"]
    first = json.loads(RUNNER.invoke(app, words).stdout)
    assert first["folder"] == "xrays" and first["expected"] == {"normal": 406, "abnormal": 394}
    again = RUNNER.invoke(app, words)
    assert isinstance(again.exception, UserError) and "--force" in str(again.exception)
    assert RUNNER.invoke(app, [*words, "--force"]).exit_code == 0


def test_without_archives_it_says_where_to_get_them(archive: Path) -> None:
    none = RUNNER.invoke(app, ["data", "import", "tuberculosis_xrays"])
    assert "https://openi.nlm.nih.gov" in str(none.exception)
    assert "or add --download (4.4 GB)" in str(none.exception)
    kaggle = RUNNER.invoke(app, ["data", "import", "covid_radiography", "--download"])
    assert isinstance(kaggle.exception, UserError)
    assert "wants an account" in str(kaggle.exception)
    both = RUNNER.invoke(app, ["data", "import", "isic2018_lesions", str(archive), "--download"])
    assert "either the archives or --download" in str(both.exception)


def test_sets_are_listed_with_a_line_each_and_described_in_full() -> None:
    listed = RUNNER.invoke(app, ["data", "list"])
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert set(names) >= {"tuberculosis_xrays", "covid_radiography", "isic2018_lesions"}
    one = RUNNER.invoke(app, ["data", "list", "covid_radiography"])
    for needed in ("licence:", "M. E. H. Chowdhury", "https://www.kaggle.com"):
        assert needed in one.stdout
    objects = [
        json.loads(s)
        for s in RUNNER.invoke(app, ["data", "list", "--json"]).stdout.split("\n")
        if s
    ]
    assert all(entry["items"] and entry["citation"] for entry in objects)


def test_a_typo_and_a_missing_archive_are_one_message_and_2(cli: Any, tmp_path: Path) -> None:
    typo = cli("data", "import", "tuberculosis_xray", tmp_path, cwd=tmp_path)
    assert (typo.returncode, typo.stdout) == (2, "")
    assert "Did you mean tuberculosis_xrays?" in typo.stderr
    missing = cli("data", "import", "tuberculosis_xrays", "nothing.zip", cwd=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr.startswith("Error: nothing.zip: no such folder or archive.")
