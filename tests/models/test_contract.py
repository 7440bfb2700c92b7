"""What every system in `models/` promises, checked through its smoke config."""

from __future__ import annotations

import json
import shutil
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
        run = training.run(folder).run
    assert training.compiled.experimental_get_tracing_count() == 1
    return run


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


def stopped_at(step: int, run: Path, place: Path) -> Path:
    """A copy of a run as it was when it had just saved a step."""
    shutil.copytree(run, place)
    checkpoints = place / "checkpoints"
    for other in checkpoints.glob("step-*"):
        if int(other.name.split("-")[1]) > step:
            shutil.rmtree(other)
    pointer = json.loads((checkpoints / "latest.json").read_text())
    name = f"step-{step:06d}"
    assert (checkpoints / name).is_dir()
    (checkpoints / "latest.json").write_text(json.dumps({**pointer, **named(pointer, name)}))
    return place


def named(pointer: dict[str, Any], name: str) -> dict[str, Any]:
    """The entries of a pointer that name the checkpoint."""
    return {key: name for key, value in pointer.items() if str(value).startswith("step-")}


def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(
    system: str, precision: str, tmp_path: Path
) -> None:
    # Looks at the same steps as checkpoints, for only the newest two and the best are kept.
    intervals = ["train.checkpoint_interval=2", "train.sample_interval=2"]
    whole = train(system, tmp_path, f"train.precision={precision}", "train.steps=4", *intervals)
    half = stopped_at(2, whole, tmp_path / "half")
    start = state(half, 2)
    train(system, tmp_path, resume=half)
    first, second = state(whole, 4), state(half, 4)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
        assert np.isfinite(value).all(), name

    for player, names in players(first).items():
        moved = [name for name in names if not np.array_equal(first[name], start[name])]
        # float16 skips a step that overflows; the scale then is halved and another follows
        assert moved or precision == "mixed_float16", f"{player} stood still"


@pytest.mark.slow
def test_bfloat16_and_two_devices_train_every_weight(system: str, tmp_path: Path) -> None:
    changes = ["train.precision=mixed_bfloat16", "train.strategy=mirrored", "train.steps=2"]
    try:
        run = train(system, tmp_path, *changes, "train.checkpoint_interval=1")
    finally:
        keras.config.set_dtype_policy("float32")
    before, after = state(run, 1), state(run, 2)
    for player, names in players(after).items():
        assert all(np.isfinite(after[name]).all() for name in names), player
        assert any(not np.array_equal(before[name], after[name]) for name in names), player


def test_settings_print_and_read_back(system: str, tmp_path: Path) -> None:
    from tfgan_med import config

    chosen = settings.resolve(system, CONFIGS / f"{system}.yaml", [])
    path = tmp_path / "config.yaml"
    path.write_text(config.as_yaml(chosen, commented=True))
    assert settings.resolve(system, path, []) == chosen
