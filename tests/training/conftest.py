"""One small trained run that the tests of this folder read and never change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "pix2pix.yaml"


@pytest.fixture(scope="session")
def train() -> Callable[..., Any]:
    """Train with the smoke settings and changes; returns the result."""
    from tfgan_med.training import fit, settings
    from tfgan_med.training.progress import Reporter

    def run(runs: Path, *changes: str, resume: Path | None = None) -> Any:
        from tfgan_med.training.run_folder import RunFolder

        if resume is not None:
            folder = RunFolder(resume)
            training = fit.Training(fit.resume_settings(resume, changes), Reporter(quiet=True))
            with folder.locked():
                training.restore(folder)
                return training.run(folder)
        training = fit.Training(settings.resolve("pix2pix", SMOKE, changes), Reporter(quiet=True))
        folder = training.start(runs)
        with folder.locked():
            return training.run(folder)

    return run


@pytest.fixture(scope="session")
def finished(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The result of six steps on 24 rendered smears."""
    return train(tmp_path_factory.mktemp("runs"))
