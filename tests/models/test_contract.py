"""What every system in `models/` promises, checked through its smoke config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfgan_med import discovery
from tfgan_med.training import fit, run_folder, settings
from tfgan_med.training.progress import Reporter

SYSTEMS = discovery.available("tfgan_med.models")
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "smoke"


def train(system: str, runs: Path, *changes: str, resume: Path | None = None) -> Path:
    if resume is None:
        chosen = settings.resolve(system, CONFIGS / f"{system}.yaml", changes)
    else:
        chosen = fit.resume_settings(resume, changes)
    training = fit.Training(chosen, Reporter(quiet=True))
    with training.opened(runs, resume) as folder:
        return training.run(folder).run


def state(run: Path, step: int) -> dict[str, np.ndarray]:
    return run_folder.read_arrays(run / "checkpoints" / f"step-{step:06d}" / "model.weights.h5")


def players(state: dict[str, np.ndarray]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in state:
        if name.startswith("network/"):
            names.setdefault(name.split("/")[1], []).append(name)
    return names


@pytest.fixture(params=SYSTEMS)
def system(request: Any) -> str:
    return str(request.param)


@pytest.fixture(params=["float32", "mixed_float16"])
def precision(request: Any) -> Any:
    yield str(request.param)
    keras.config.set_dtype_policy("float32")


def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(
    system: str, precision: str, tmp_path: Path
) -> None:
    changes = [f"train.precision={precision}", "train.checkpoint_interval=2"]
    whole = train(system, tmp_path, "train.steps=4", *changes)
    half = train(system, tmp_path, "train.steps=2", *changes)
    start = state(half, 2)
    train(system, tmp_path, "train.steps=4", resume=half)
    first, second = state(whole, 4), state(half, 4)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
        assert np.isfinite(value).all(), name

    for player, names in players(first).items():
        moved = [name for name in names if not np.array_equal(first[name], start[name])]
        # float16 skips a step that overflows; the scale then is halved and another follows
        assert moved or precision == "mixed_float16", f"{player} stood still"


def test_settings_print_and_read_back(system: str, tmp_path: Path) -> None:
    from tfgan_med import config

    chosen = settings.resolve(system, CONFIGS / f"{system}.yaml", [])
    path = tmp_path / "config.yaml"
    path.write_text(config.as_yaml(chosen, commented=True))
    assert settings.resolve(system, path, []) == chosen
