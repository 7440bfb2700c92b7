"""Runs that make pictures from latent vectors: what they leave, and one run for each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data.opening import open_set
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.training import fit, per_class, settings
from tfgan_med.training.image_task import ImageTask
from tfgan_med.training.progress import Reporter

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "dcgan.yaml"


def settled(*changes: str) -> Any:
    return settings.resolve("dcgan", SMOKE, changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark pictures in folders of their class, with splits and masks of the bright."""
    folder = tmp_path_factory.mktemp("classed")
    random = np.random.default_rng(0)
    rows = []
    for label, level in (("dark one", 60), ("bright", 180)):
        (folder / label).mkdir()
        for index in range(12):
            pixels = np.clip(random.normal(level, 20, (32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label[0]}{index:02d}.png")
            split = "train" if index < 8 else "test"
            rows.append(f"{label}/{label[0]}{index:02d}.png,{split}")
    (folder / "splits.csv").write_text("file,split\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def parent(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run for each class."""
    whole = settled(f"data.path={data}", "data.image_size=32", "train.steps=4")
    parent = per_class.start(whole, tmp_path_factory.mktemp("runs"))
    for run in per_class.open_runs(parent):
        training = fit.Training(run.settings, Reporter(quiet=True))
        with training.opened(parent, place=run.place) as folder:
            training.run(folder)
    return parent


def test_each_class_has_a_run_of_its_own_pictures(parent: Path) -> None:
    facts = json.loads((parent / "classes.json").read_text())
    assert facts["classes"] == {"bright": "bright", "dark one": "01-dark-one"}
    for label, name in facts["classes"].items():
        items = json.loads((parent / name / "data.json").read_text())["items"]
        assert {item["label"] for item in items} == {label}
        assert f"of the class {label}" in (parent / name / "MODEL_CARD.md").read_text()


def test_a_finished_run_keeps_samples_reals_and_generated_pictures(parent: Path) -> None:
    run = parent / "bright"
    assert (run / "samples" / "reals.png").is_file()
    assert len(list((run / "samples").glob("0*.png"))) >= 2
    found = {name: len(open_set(DataConfig(path=str(run / name))).records)
             for name in ("generated", "reals/generated", "reals/test")}  # fmt: skip
    assert found == {"generated": 8, "reals/generated": 8, "reals/test": 4}
    provenance = json.loads((run / "generated" / "provenance.json").read_text())
    assert len(provenance["trained_on"]) == 8


def test_the_scores_lie_beside_those_of_noise_and_of_held_out_pictures(parent: Path) -> None:
    entries = [
        json.loads(line) for line in (parent / "bright" / "log.jsonl").read_text().splitlines()
    ]
    finished = next(entry for entry in entries if entry.get("event") == "finished")
    assert finished["scores"]["swd"] > 0
    card = (parent / "bright" / "MODEL_CARD.md").read_text()
    assert "uniform noise" in card and "real pictures not trained on" in card


def test_a_stopped_set_of_classes_goes_on_with_what_is_missing(parent: Path) -> None:
    assert list(per_class.open_runs(parent)) == []
    missing = parent / "01-dark-one"
    kept = missing.with_name("kept")
    missing.rename(kept)
    try:
        (again,) = per_class.open_runs(parent)
        assert (again.label, again.begun, again.settings.data.label) == (
            "dark one",
            False,
            "dark one",
        )
    finally:
        kept.rename(missing)
    (longer, _) = per_class.open_runs(parent, ["train.steps=6"])
    assert (longer.begun, longer.settings.train.steps) == (True, 6)


def test_per_class_training_needs_classes_and_a_model_of_pictures(data: Path) -> None:
    with pytest.raises(UserError, match="needs two classes or more"):
        per_class.class_settings(settled(f"data.path={data / 'bright'}", "data.image_size=32"))
    with pytest.raises(UserError, match="exclude each other"):
        per_class.class_settings(settled(f"data.path={data}", "data.label=bright"))
    with pytest.raises(UserError, match="pix2pix does not make pictures from nothing"):
        per_class.class_settings(settings.resolve("pix2pix", None, [f"data.path={data}"]))


def test_a_class_that_does_not_exist_is_named(data: Path) -> None:
    with pytest.raises(UserError, match="the classes of .* are: bright, dark one"):
        ImageTask(settled(f"data.path={data}", "data.image_size=32", "data.label=grey"))


def test_a_folder_of_classes_is_no_run(parent: Path) -> None:
    with pytest.raises(UserError, match="holds one run for each class"):
        settings.saved_settings(parent)


def test_a_score_of_pairs_is_refused_for_pictures_alone(data: Path) -> None:
    changes = (f"data.path={data}", "data.image_size=32", "train.eval_metric=l1")
    with pytest.raises(UserError, match=r"train\.eval_metric is l1, which dcgan cannot"):
        fit.Training(settled(*changes), Reporter(quiet=True))
