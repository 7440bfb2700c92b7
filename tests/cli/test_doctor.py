"""`doctor`: it finds what is wrong, says how to cure it, and works on a broken machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tfgan_med import __version__
from tfgan_med.cli import doctor

if TYPE_CHECKING:
    from tests.conftest import Cli


def findings(stdout: str) -> dict[str, dict[str, str]]:
    return {entry["name"]: entry for entry in map(json.loads, stdout.splitlines())}


def test_a_healthy_machine_is_told_what_it_has(cli: Cli, tmp_path: Path, cache: Path) -> None:
    done = cli("doctor", "--json", cwd=tmp_path)
    found = findings(done.stdout)
    assert done.returncode == 0, done.stdout
    assert found["python"]["value"].startswith(".".join(map(str, sys.version_info[:3])))
    assert found["tfgan-med"]["value"] == __version__
    assert {"tensorflow", "keras", "numpy", "cpu", "gpu", "memory", "runs", "cache"} <= set(found)
    assert {"float32", "mixed_float16", "mixed_bfloat16"} <= set(found)
    assert str(cache) in found["cache"]["value"]
    assert "GB free" in found["runs"]["value"]
    assert any(name.startswith("weights ") for name in found)
    assert list(tmp_path.iterdir()) == []  # it only looked


def test_without_tensorflow_it_lists_the_fault_and_the_cure() -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tensorflow', 'keras'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from tfgan_med.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "tensorflow cannot be imported: ModuleNotFoundError" in done.stdout
    assert 'python -m pip install --force-reinstall "tensorflow>=2.20,<2.22"' in done.stdout
    assert "memory" in done.stdout and "weights" in done.stdout  # the rest is reported all the same
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")  # fails for root too, unlike permissions
    finding = doctor._folder("cache", tmp_path / "file" / "cache", "name another")
    assert (finding.status, finding.cure) == ("broken", "name another")
    assert doctor._folder("cache", tmp_path / "new" / "cache", "").status != "broken"
    assert not (tmp_path / "new").exists()


def test_a_weights_folder_that_does_not_exist_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_WEIGHTS", str(tmp_path / "none"))
    broken = [finding for finding in doctor._environment() if finding.status == "broken"]
    assert [finding.name for finding in broken] == ["TFGAN_MED_WEIGHTS"]


def test_packages_that_are_missing_or_too_old_are_answered_with_the_pip_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = ["numpy>=9000", "there-is-no-such-package>=1", 'pydicom>=3; extra == "dicom"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needed)
    found = {finding.name: finding for finding in doctor._packages()}
    assert found["numpy"].status == "broken"
    assert found["numpy"].cure == 'python -m pip install "numpy>=9000"'
    assert found["there-is-no-such-package"].value == "not installed"
    assert found["pydicom"].status == "ok"  # whether or not it is there


@pytest.mark.parametrize(
    ("capability", "half", "brain"),
    [((6, 1), False, False), ((7, 5), True, False), ((9, 0), True, True)],
)
def test_precision_follows_the_gpu(capability: tuple[int, int], half: bool, brain: bool) -> None:
    details = [{"device_name": "GPU", "compute_capability": capability}]
    found = {finding.name: finding.value for finding in doctor._precisions(details)}
    assert (found["mixed_float16"] == "fast") == half
    assert (found["mixed_bfloat16"] == "fast") == brain


def test_no_gpu_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_nvidia_driver", lambda: None)
    assert doctor._gpu_finding([]).value == "none: everything runs on the CPU"
    monkeypatch.setattr(doctor, "_nvidia_driver", lambda: "NVIDIA T4")
    unused = doctor._gpu_finding([])
    assert "NVIDIA T4 is there" in unused.value
    assert "tensorflow[and-cuda]" in unused.cure
