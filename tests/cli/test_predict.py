"""`train` and `predict` of downstream models as users run them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke"


@pytest.fixture(scope="module")
def classifier(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("classifier") / "run"
    done = cli("train", "resnet18", "--config", SMOKE / "resnet18.yaml", "--at", place, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"balanced_accuracy", "auc"} <= set(result["scores"])
    assert result["split"] == "test"
    assert "tfgan-med predict" in done.stderr
    return place


def folder_of_cells(root: Path, classes: tuple[str, ...]) -> Path:
    random = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(3):
            pixels = random.integers(0, 255, (40, 52, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_classifier_says_what_it_sees_and_is_scored_where_the_truth_is_known(
    cli: Any, classifier: Path, tmp_path: Path
) -> None:
    known = folder_of_cells(tmp_path / "known", ("healthy", "infected"))
    done = cli("predict", classifier, "--input", known, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["pictures"] == 6 == sum(result["said"].values())
    assert 0.0 <= result["scores"]["accuracy"] <= 1.0
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["truth"] for row in rows] == ["healthy"] * 3 + ["infected"] * 3
    for row in rows:
        shares = {name: float(row[f"p {name}"]) for name in ("healthy", "infected")}
        assert sum(shares.values()) == pytest.approx(1.0, abs=2e-6)
        assert row["said"] == max(shares, key=lambda name: shares[name])

    other = folder_of_cells(tmp_path / "other", ("cats",))
    done = cli("predict", classifier, "--input", other, "--out", tmp_path / "out2", "--json")
    assert json.loads(done.stdout)["scores"] == {}
    assert "without the truth" in done.stderr


def test_a_finished_folder_is_left_alone_and_nothing_is_overwritten(
    cli: Any, classifier: Path
) -> None:
    before = (classifier / "outcome.json").stat().st_mtime_ns
    again = cli("train", "resnet18", "--config", SMOKE / "resnet18.yaml", "--at", classifier)
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert (classifier / "outcome.json").stat().st_mtime_ns == before
    assert cli("predict", classifier).returncode == 0
    twice = cli("predict", classifier)
    assert twice.returncode == 2
    assert "--force" in twice.stderr
    assert cli("predict", classifier, "--force").returncode == 0


def test_a_segmenter_writes_masks_of_the_size_of_the_pictures(cli: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit = ("--set", "data.fit=pad")
    done = cli("train", "unet", "--config", SMOKE / "unet.yaml", "--at", run, *fit)
    assert done.returncode == 0, done.stderr
    pictures = folder_of_cells(tmp_path / "pictures", (".",))
    done = cli("predict", run, "--input", pictures, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    masks = sorted((tmp_path / "out" / "masks").glob("*.png"))
    assert [path.stem for path in masks] == ["0", "1", "2"]
    for path in masks:
        mask = np.asarray(Image.open(path))
        assert mask.shape == (40, 52)
        assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "vgg61"), 2, "Did you mean vgg16"),
        (("train", "resnet18", "--data", "builtin:smear"), 2, "needs pictures of two classes"),
        (
            ("train", "vgg16", "--data", "builtin:malaria", "--set", "data.image_size=64"),
            1,
            "--set model.weights=none",
        ),
    ],
)
def test_mistakes_are_explained(
    cli: Any, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_generator_predicts_nothing(cli: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = cli("train", "dcgan", "--config", SMOKE / "dcgan.yaml", "--at", run, "--steps", "1")
    assert done.returncode == 0, done.stderr
    said = cli("predict", run)
    assert said.returncode == 2
    assert "is no run of a classifier or segmenter" in said.stderr
