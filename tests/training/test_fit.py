"""A run from start to end: what it writes, that it resumes to the bit, how it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.errors import TrainingError, UserError
from tfgan_med.training import fit, run_folder, translation
from tfgan_med.training.callbacks import Budget, Watch

Train = Callable[..., Any]


def weights(run: Path, step: int) -> dict[str, np.ndarray]:
    return run_folder.read_arrays(run / "checkpoints" / f"step-{step:06d}" / "model.weights.h5")


def assert_bit_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_a_user_looks_for(finished: Any) -> None:
    run = finished.run
    for name in (
        "config.yaml",
        "environment.json",
        "data.json",
        "log.jsonl",
        "MODEL_CARD.md",
        "samples/pairs.png",
        "samples/000000.png",
        "samples/000003.png",
        "samples/000006.png",
        "checkpoints/latest.json",
        "checkpoints/best.json",
        "weights/generator.weights.h5",
        "weights/network.yaml",
        "translated/test/provenance.json",
    ):
        assert (run / name).is_file(), name
    assert list((run / "events").glob("events.out.tfevents.*"))
    assert json.loads((run / "environment.json").read_text())["exit_code"] == 0
    assert not (run / "lock").exists()


def test_no_file_of_a_run_but_the_environment_holds_an_absolute_path(finished: Any) -> None:
    for path in finished.run.rglob("*"):
        if path.suffix in (".json", ".yaml", ".md", ".jsonl") and path.name != "environment.json":
            assert str(finished.run.parent) not in path.read_text(), path


def test_the_log_holds_losses_rates_and_speed(finished: Any) -> None:
    entry = next(entry for entry in log(finished.run) if entry.get("step") == 2)
    assert set(entry["losses"]) == {
        "generator",
        "discriminator",
        "l1",
        "real_score",
        "fake_score",
        "sign_accuracy",
    }
    assert entry["learning_rates"] == {"generator": 0.0002, "discriminator": 0.0002}
    assert entry["gradient_norms"]["generator"] > 0


def test_tensorboard_reads_scalars_and_pictures(finished: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.run / "events"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss/l1", "speed/images_per_second", "gradient_norm/generator", "samples"} <= tags
    assert "learning_rate/discriminator" in tags


def test_translated_pictures_are_marked_and_lie_beside_their_conditions(finished: Any) -> None:
    folder = finished.run / "translated" / "test"
    provenance = json.loads((folder / "provenance.json").read_text())
    pictures = sorted((folder / "images").iterdir())
    assert [entry["file"] for entry in provenance["images"]] == [
        f"images/{path.name}" for path in pictures
    ]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.text["Synthetic"] == "yes"  # type: ignore[attr-defined]
            assert picture.size == (64, 64)
        assert (folder / "masks" / path.name).is_file()
    assert provenance["trained_on"]
    assert len(list((finished.run / "reals" / "test" / "images").iterdir())) == len(pictures)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    finished: Any, train: Train, tmp_path: Path
) -> None:
    again, other = train(tmp_path), train(tmp_path, "train.seed=1")
    assert_bit_equal(weights(finished.run, 6), weights(again.run, 6))
    key = next(name for name in weights(other.run, 6) if name.startswith("network/generator/0000"))
    assert not np.array_equal(weights(finished.run, 6)[key], weights(other.run, 6)[key])


def test_resuming_as_another_experiment_is_refused_by_key(finished: Any) -> None:
    with pytest.raises(UserError, match=r"model\.generator_base: cannot change"):
        fit.resume_settings(finished.run, ["model.generator_base=16"])
    settings = fit.resume_settings(finished.run, ["train.steps=9", "train.log_interval=1"])
    assert settings.train.steps == 9


def test_resuming_after_a_picture_was_replaced_names_it(train: Train, tmp_path: Path) -> None:
    from tfgan_med.data.builtin import materialize

    data = tmp_path / "smear"
    shutil.copytree(materialize("builtin:smear?count=24&size=64"), data)
    half = train(tmp_path / "runs", f"data.path={data}", "train.steps=2")
    picture = sorted((data / "images").iterdir())[0]
    Image.new("RGB", (64, 64), (200, 10, 10)).save(picture)
    with pytest.raises(UserError, match=picture.name):
        train(tmp_path / "runs", "train.steps=4", resume=half.run)


def test_a_moved_run_still_translates(finished: Any, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished.run, moved)
    translator = translation.Translator(moved)
    assert translator.model.networks["generator"].count_params() > 0


def test_a_rate_too_high_stops_with_the_name_of_the_loss_and_a_good_checkpoint(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"Loss \w+ became NaN or infinite at step \d+") as info:
        train(tmp_path, "model.learning_rate=1e30")
    run = next(tmp_path.iterdir())
    kept, _ = run_folder.RunFolder(run).checkpoint()
    assert kept.name in str(info.value)
    arrays = run_folder.read_arrays(kept / "model.weights.h5")
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert json.loads((run / "environment.json").read_text())["exit_code"] == 1


def test_the_best_checkpoint_can_be_chosen_by_a_feature_distance(
    train: Train, shared: Path, tmp_path: Path
) -> None:
    features = shared / "weights" / "mobilenet-v1-0.25-224-imagenet.pb"
    result = train(
        tmp_path,
        "train.eval_metric=fid",
        f"train.eval_features={features}",
        "train.eval_features_output=MobilenetV1/Logits/AvgPool_1a/AvgPool:0",
        "train.steps=2",
        "train.sample_interval=1",
    )
    values = {}
    for entry in log(result.run):
        values.update({entry["step"]: entry["scores"]} if entry.get("split") == "val" else {})
    name = next(name for name in values[0] if name.startswith("frechet_distance[mobilenet"))
    best = json.loads((result.run / "checkpoints" / "best.json").read_text())
    assert best["metric"] == name
    assert best["value"] == pytest.approx(min(scores[name] for scores in values.values()), rel=1e-5)
    assert all(scores[name] > 0 for scores in values.values())


def test_the_watch_speaks_once_after_its_patience() -> None:
    watch = Watch(images=40, advice="a smaller field", patience=3)
    sure = {"real_score": 4.0, "fake_score": -4.0}
    unsure = {"real_score": 1.0, "fake_score": -4.0}
    said = [watch.losses(means) for means in (sure, sure, unsure, sure, sure, sure, sure)]
    assert [bool(text) for text in said] == [False] * 5 + [True, False]
    assert "40 training pictures" in str(said[5]) and "try a smaller field" in str(said[5])


def test_the_watch_tells_samples_that_ignore_their_input() -> None:
    watch = Watch(images=40, advice="a smaller field")
    said = [watch.samples(variety, variety_target=0.3) for variety in (0.2, 0.01, 0.01, 0.01, 0.01)]
    assert [bool(text) for text in said] == [False, False, False, True, False]
    assert "ignores its input" in str(said[3])


def test_evaluations_stay_within_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    budget, spent = Budget(share=0.1), 0.0
    for _ in range(1000):
        clock[0] += 1.0  # training
        if budget.allows():
            clock[0] += 2.0
            spent += 2.0
            budget.spend(2.0)
    assert 0.08 < spent / clock[0] <= 0.1 + 2.0 / clock[0]
