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
        if resume is None:
            chosen = settings.resolve("pix2pix", SMOKE, changes)
        else:
            chosen = fit.resume_settings(resume, changes)
        training = fit.Training(chosen, Reporter(quiet=True))
        with training.opened(runs, resume) as folder:
            return training.run(folder)

    return run


@pytest.fixture(scope="session")
def finished(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The result of six steps on 24 rendered smears."""
    return train(tmp_path_factory.mktemp("runs"))
