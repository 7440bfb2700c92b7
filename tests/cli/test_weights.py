"""`tfgan-med weights` as users run it, without network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_status_lists_all_known_weights_with_checksums(cli: Any, tmp_path: Path) -> None:
    done = cli("weights", "status", "--json", env={"TFGAN_MED_CACHE": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    entries = {entry["name"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    assert set(entries) >= {"inception-2015", "inception-keras", "vgg16", "lpips-alex"}
    assert all(entry["state"] == "missing" for entry in entries.values())
    assert entries["vgg16"]["files"][0]["digest"] == "6d6bbae143d832006294945121d1f1fc"
    assert "Next:" in done.stderr


def test_a_damaged_file_is_shown_as_such(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    file.parent.mkdir()
    file.write_bytes(b"cut off")
    done = cli("weights", "status", "vgg16", env={"TFGAN_MED_CACHE": str(tmp_path)})
    assert "vgg16: damaged" in done.stdout
    assert str(file) in done.stdout
    listed = cli("weights", "status", env={"TFGAN_MED_CACHE": str(tmp_path)}).stdout
    assert any("damaged" in line and "vgg16 " in line for line in listed.splitlines())


def test_a_file_with_another_checksum_is_not_imported(cli: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(b"something else")
    done = cli("weights", "import", "vgg16", wrong, env={"TFGAN_MED_CACHE": str(tmp_path / "c")})
    assert done.returncode == 2
    assert "wrong.h5: md5" in done.stderr
    assert not list((tmp_path / "c").rglob("*.h5"))


def test_import_wants_a_file_or_download(cli: Any, tmp_path: Path) -> None:
    done = cli("weights", "import", "vgg16", env={"TFGAN_MED_CACHE": str(tmp_path)})
    assert done.returncode == 2
    assert "--download" in done.stderr


def test_unknown_weights_are_answered_with_the_known(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "f.h5"
    file.write_bytes(b"")
    done = cli("weights", "import", "vgg19", file, env={"TFGAN_MED_CACHE": str(tmp_path)})
    assert done.returncode == 2
    assert "Known: inception-2015, inception-keras, vgg16" in done.stderr
