"""What tests share: real data, golden values, the command as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before any test imports TensorFlow

ROOT = Path(__file__).resolve().parents[1]
PLANTED = "QXPATIENT7731"


class Cli(Protocol):
    """Runs `tfgan-med` in a process of its own."""

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        """Exit code, stdout and stderr; `env` is added to the environment."""


@pytest.fixture(autouse=True)
def precision_of_others() -> Iterator[None]:
    """No test inherits the precision that a run of another one has set."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data, weights and golden values, which is no part of the repository."""
    path = Path(os.environ.get("TFGAN_MED_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"needs real data in {path}; TFGAN_MED_SHARED names another folder")
    return path


@pytest.fixture(scope="session")
def golden() -> Mapping[str, npt.NDArray[Any]]:
    """Inputs and what tensorflow-gan, pytorch-fid and others return for them (`ref/...`)."""
    with np.load(ROOT / "tests" / "golden" / "metrics.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for the whole run, and no weights but those a test names."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFGAN_MED_CACHE", str(folder))
        patch.delenv("TFGAN_MED_WEIGHTS", raising=False)
        patch.setenv("COLUMNS", "100")
        yield folder
    leaking = [path for path in folder.rglob("*") if path.is_file() and _tells(path)]
    assert not leaking, f"a patient's name reached {leaking}"


def _tells(path: Path) -> bool:
    return PLANTED in path.name or PLANTED.encode() in path.read_bytes()


@pytest.fixture(scope="session")
def planted() -> str:
    """A name for headers and files of patients; no output of a command may repeat it."""
    return PLANTED


@pytest.fixture(scope="session")
def cli() -> Cli:
    """The console script of this environment; its output never holds the planted name."""
    script = Path(sys.executable).with_name("tfgan-med")
    call_main = [sys.executable, "-c", "from tfgan_med.cli.app import main; main()"]
    start = [str(script)] if script.exists() else call_main

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*start, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert PLANTED not in done.stdout + done.stderr
        return done

    return run
