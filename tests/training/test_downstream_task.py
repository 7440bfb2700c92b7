"""What decides the weights and the threshold of a downstream model, and what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfgan_med.errors import UserError
from tfgan_med.metrics import classification
from tfgan_med.training import downstream_task, fit, predictions, run_folder, settings
from tfgan_med.training.predictions import Classified
from tfgan_med.training.progress import Reporter

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke"


def train(system: str, place: Path, *changes: str) -> Path:
    chosen = settings.resolve(system, SMOKE / f"{system}.yaml", changes)
    training = fit.Training(chosen, Reporter(quiet=True))
    with training.opened(place.parent, None, place) as folder:
        training.run(folder)
    return place


def seen(run: Path) -> dict[int, dict[str, float]]:
    """Scores on the validation split by step."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["scores"] for line in lines if line.get("split") == "val"}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = ["train.steps=8", "train.eval_interval=1", "train.threshold=auto"]
    changes.append("model.unfreeze=0")
    place = tmp_path_factory.mktemp("tuned") / "run"
    return train("squeezenet", place, *changes, "train.eval_metric=average_precision")


def test_the_weights_are_those_that_scored_best_on_validation(tuned: Path) -> None:
    best = predictions.read_outcome(tuned)["best"]
    scores = {step: score["average_precision"] for step, score in seen(tuned).items()}
    assert len(scores) == 9
    assert best["value"] == pytest.approx(max(scores.values()), abs=1e-5)
    assert scores[best["step"]] == pytest.approx(best["value"], abs=1e-5)
    said = predictions.read(tuned, "val")
    assert isinstance(said, Classified)
    column = said.classes.index("infected")
    found = classification.average_precision(said.truth == column, said.scores[:, column])
    assert found == pytest.approx(best["value"], abs=1e-4)


def test_an_automatic_threshold_is_chosen_on_validation_pictures_alone(tuned: Path) -> None:
    outcome = predictions.read_outcome(tuned)
    assert outcome["positive"] == "infected"
    assert outcome["threshold"]["source"] == "validation"
    said = predictions.read(tuned, "val")
    assert isinstance(said, Classified)
    column = said.classes.index("infected")
    truth, scores = said.truth == column, said.scores[:, column]
    f1 = outcome["scores"]["val"]["f1"]
    for level in np.linspace(0.01, 0.99, 99):
        assert classification.binary_scores(truth, scores, level)["f1"] <= f1 + 1e-9


def test_a_segmenter_takes_the_level_with_the_best_overlap(tmp_path: Path) -> None:
    changes = ["train.steps=3", "train.eval_interval=3"]
    fixed = train("unet", tmp_path / "fixed", *changes)
    tuned = train("unet", tmp_path / "tuned", *changes, "train.threshold=auto")
    one, other = predictions.read_outcome(fixed), predictions.read_outcome(tuned)
    assert one["threshold"] == {"value": 0.5, "source": "fixed"}
    assert other["threshold"]["source"] == "validation"
    assert other["threshold"]["value"] in downstream_task.LEVELS
    assert other["scores"]["val"]["iou"] >= one["scores"]["val"]["iou"]


def test_the_outcome_tells_counts_and_costs(tuned: Path) -> None:
    outcome = predictions.read_outcome(tuned)
    assert outcome["counts"]["real"] == {"healthy": 31, "infected": 13}  # 11 of 20 slides
    assert sum(outcome["counts"]["synthetic"].values()) == 0
    seconds = outcome["seconds"]
    parts = sum(value for name, value in seconds.items() if name != "total")
    assert parts == pytest.approx(seconds["total"], abs=0.1)
    assert 0.0 < outcome["training_share"] < 1.0
    assert not list((tuned / "weights").glob("best-*"))


def test_training_ends_when_the_score_has_not_risen_for_long(tmp_path: Path) -> None:
    changes = ["train.steps=40", "train.eval_interval=1", "train.patience=2"]
    run = train("squeezenet", tmp_path / "run", *changes, "model.learning_rate=1e-9")
    outcome = predictions.read_outcome(run)
    assert outcome["steps"] == outcome["best"]["step"] + 2 < 40
    assert (run / "checkpoints" / f"step-{outcome['steps']:06d}").is_dir()
    # Going on with it does no further step.
    chosen = fit.resume_settings(run, [])
    training = fit.Training(chosen, Reporter(quiet=True))
    with training.opened(run.parent, run) as folder:
        assert training.run(folder).steps == outcome["steps"]


def test_a_search_for_settings_leaves_the_test_split_alone(tmp_path: Path) -> None:
    run = train("squeezenet", tmp_path / "run", "train.steps=1", "train.score_test=false")
    assert set(predictions.read_outcome(run)["scores"]) == {"val"}
    assert not predictions.path_of(run, "test").exists()


def test_frozen_weights_are_not_saved_again_and_again(tuned: Path) -> None:
    newest = max((tuned / "checkpoints").glob("step-*"))
    saved = run_folder.read_arrays(newest / "model.weights.h5")
    numbers = sum(value.size for value in saved.values())
    assert numbers < 10_000, "the 0.7 million weights of the frozen base are in model.keras"
    assert (tuned / "model.keras").stat().st_size > 2_000_000


@pytest.mark.parametrize(
    ("system", "change", "message"),
    [
        ("unet", "train.eval_metric=auc", "cannot be scored"),
        ("unet", "train.class_weights=balanced", "segmenters have none"),
        ("dcan", "data.path=builtin:malaria", "numbered objects are needed"),
        ("resnet18", "data.path=builtin:smear", "two classes or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(system: str, change: str, message: str) -> None:
    chosen: Any = settings.resolve(system, SMOKE / f"{system}.yaml", [change])
    with pytest.raises(UserError, match=message):
        fit.Training(chosen, Reporter(quiet=True))
