"""What every model in `downstream/` promises, checked through its smoke config."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfgan_med import config, discovery
from tfgan_med.training import fit, predicting, predictions, run_folder, settings
from tfgan_med.training.progress import Reporter
from tfgan_med.training.stopping import Stopped

SYSTEMS = discovery.available("tfgan_med.downstream")
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "smoke"
STEPS = ["train.steps=4", "train.checkpoint_interval=2", "train.eval_interval=1"]


class StopsAt(Reporter):
    """Presses Ctrl-C, so to speak, after a step."""

    def __init__(self, step: int | None = None) -> None:
        super().__init__(quiet=True)
        self.step = step

    def advance(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train(system: str, place: Path, *changes: str, stop: int | None = None) -> Path:
    """A run in `place`, begun or gone on with."""
    begun = (place / "checkpoints").is_dir()
    chosen = (
        fit.resume_settings(place, changes)
        if begun
        else settings.resolve(system, CONFIGS / f"{system}.yaml", [*STEPS, *changes])
    )
    training = fit.Training(chosen, StopsAt(stop))
    resume, new = (place, None) if begun else (None, place)
    with training.opened(place.parent, resume, new) as folder:
        training.run(folder)
    assert training.compiled.experimental_get_tracing_count() == 1
    return place


def state(run: Path, step: int) -> dict[str, np.ndarray]:
    return run_folder.read_arrays(run / "checkpoints" / f"step-{step:06d}" / "model.weights.h5")


@pytest.fixture(params=SYSTEMS)
def system(request: Any) -> str:
    return str(request.param)


# float16 convolutions are slow on a CPU: one classifier and one segmenter stand for all, the others
# are checked by `pytest -m slow`.
QUICK = [
    *((s, "float32") for s in SYSTEMS),
    ("resnet18", "mixed_float16"),
    ("unet", "mixed_float16"),
]
CASES = [
    pytest.param(s, p, marks=() if (s, p) in QUICK else pytest.mark.slow)
    for s in SYSTEMS
    for p in ("float32", "mixed_float16")
]


@pytest.fixture(autouse=True)
def _policy() -> Any:
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(("system", "precision"), CASES)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    system: str, precision: str, tmp_path: Path
) -> None:
    changes = [f"train.precision={precision}"]
    whole = train(system, tmp_path / "whole", *changes)
    half = tmp_path / "half"
    with pytest.raises(Stopped):
        train(system, half, *changes, stop=2)
    begin = state(half, 2)
    train(system, half)
    first, second = state(whole, 4), state(half, 4)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
        assert np.isfinite(value).all(), name
    learned = [name for name in first if name.startswith("network/")]
    assert any(not np.array_equal(first[name], begin[name]) for name in learned)
    # What was said of the test pictures is the same too, from the same best weights.
    said = [predictions.path_of(run, "test").read_text() for run in (whole, half)]
    assert said[0] == said[1]
    known = [predictions.read_outcome(run) for run in (whole, half)]
    assert known[0]["best"] == known[1]["best"]
    assert known[0]["scores"] == known[1]["scores"]
    if precision == "float32":
        check_prediction(Path(shutil.move(whole, tmp_path / "elsewhere")), tmp_path / "out")


def check_prediction(run: Path, out: Path) -> None:
    """A finished run that was moved predicts what it said of its test pictures."""
    predictor = predicting.Predictor(run)
    images = predicting.open_input(predictor, None, "test")
    made = predicting.predict(predictor, images, out)
    assert made.pictures == len(predictions.read(run, "test").items)
    before = predictions.read_outcome(run)["scores"]["test"]
    assert made.scores
    for name, value in made.scores.items():
        if before.get(name) is not None:
            assert value == pytest.approx(before[name], rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_bfloat16_and_two_devices_train(system: str, tmp_path: Path) -> None:
    changes = ["train.precision=mixed_bfloat16", "train.strategy=mirrored"]
    run = train(system, tmp_path / "run", *changes)
    before, after = state(run, 2), state(run, 4)
    assert all(np.isfinite(value).all() for value in after.values())
    assert any(not np.array_equal(before[name], after[name]) for name in after)


def test_settings_print_and_read_back(system: str, tmp_path: Path) -> None:
    chosen = settings.resolve(system, CONFIGS / f"{system}.yaml", [])
    path = tmp_path / "config.yaml"
    path.write_text(config.as_yaml(chosen, commented=True))
    assert settings.resolve(system, path, []) == chosen
