"""A run that learned the classes of a set apart makes pictures of each at will."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgan_med.cli.app import app
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.training import export_network, fit, sampling, settings
from tfgan_med.training.progress import Reporter
from tfgan_med.training.sampling import Order, Sampler

Cli = Callable[..., subprocess.CompletedProcess[str]]

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "sngan.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight bright and four dark training pictures in folders of their class."""
    folder = tmp_path_factory.mktemp("classed")
    random = np.random.default_rng(0)
    rows = []
    for label, level, count in (("dark one", 60, 4), ("bright", 180, 8)):
        (folder / label).mkdir()
        for index in range(count):
            pixels = np.clip(random.normal(level, 20, (32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label[0]}{index:02d}.png")
            rows.append(f"{label}/{label[0]}{index:02d}.png,train")
    (folder / "splits.csv").write_text("file,split\n" + "\n".join(rows) + "\n")
    return folder


def trained(data: Path, place: Path, *changes: str) -> Path:
    chosen = settings.resolve(
        "sngan",
        SMOKE,
        [
            f"data.path={data}",
            "data.flip=false",
            "model.conditional=true",
            "train.steps=2",
            *changes,
        ],
    )
    training = fit.Training(chosen, Reporter(quiet=True))
    with training.opened(place) as folder:
        return training.run(folder).run


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, tmp_path_factory.mktemp("runs"))


def test_batches_name_the_class_of_each_picture(data: Path) -> None:
    from tfgan_med.data.pipeline import prepare_images
    from tfgan_med.training.task import open_data

    config = DataConfig(path=str(data), image_size=32)
    images = prepare_images(open_data(config), config)
    names = images.decoded.names("train")
    for batch in images.train_batches(5, seed=0).take(4):
        brightness = batch["images"].numpy().mean(axis=(1, 2, 3))
        assert (batch["labels"].numpy() == (brightness < 0)).all()  # bright is 0, dark one is 1
        dark = [names[row].startswith("dark") for row in batch["rows"].numpy()]
        assert (np.array(dark) == (brightness < 0)).all()


def test_a_finished_run_makes_each_class_as_often_as_it_was_trained_on(run: Path) -> None:
    made = open_set(DataConfig(path=str(run / "generated")))
    counts = {label: sum(r.label == label for r in made.records) for label in made.labels}
    assert counts == {"bright": 8, "dark one": 4}
    provenance = json.loads((run / "generated" / "provenance.json").read_text())
    assert set(provenance["classes"]) == {"bright", "dark one"}
    assert len(provenance["trained_on"]) == 12


def test_a_class_decides_the_picture_of_a_latent_vector(run: Path) -> None:
    vectors = np.zeros((2, 128), np.float32)
    vectors[1] = 1.0
    (bright,), (dark,) = (
        Sampler(run, batch=2, label=label).pictures(vectors) for label in ("bright", "dark one")
    )
    again = Sampler(run, batch=2, label="bright").pictures(vectors)[0]
    np.testing.assert_array_equal(bright, again)
    assert not np.array_equal(bright, dark)


def test_a_checkpoint_makes_pictures_too(run: Path) -> None:
    pictures = Sampler(run, "latest", batch=2, label="bright").pictures(np.zeros((1, 128), "f4"))
    assert pictures[0].shape == (1, 32, 32, 1)


def test_an_exported_class_is_the_network_of_that_class(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "network"
    done = export_network.export_network(run, "savedmodel", out, label="dark one")
    assert done.difference is not None and done.difference < 1e-4


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda run: Sampler(run), "Name one of them"),
        (lambda run: Sampler(run, label="red"), "no pictures of the class red"),
        (lambda run: export_network.load_generator(run), "at will: bright, dark one"),
    ],
)
def test_a_class_must_be_named_and_known(run: Path, act: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        act(run)


def test_other_runs_have_no_class_to_name(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "0001-other"
    (other / "weights").mkdir(parents=True)
    text = (run / "weights" / "network.yaml").read_text()
    bare = text.replace("classes:\n- bright\n- dark one\n", "")
    (other / "weights" / "network.yaml").write_text(bare)
    assert sampling.classes_at_will(run) == ("bright", "dark one")
    with pytest.raises(UserError, match="not a conditional run"):
        export_network.load_generator(other, label="bright")


def test_a_set_without_classes_cannot_be_learned_by_class(tmp_path: Path) -> None:
    changes = ["model.conditional=true", "train.steps=1"]
    chosen = settings.resolve("sngan", SMOKE, changes)
    with pytest.raises(UserError, match="model.conditional.*two classes or more"):
        fit.Training(chosen, Reporter(quiet=True))


def test_the_bound_of_the_latents_is_the_models_unless_another_is_named(run: Path) -> None:
    sampler = Sampler(run, label="bright")
    sampler.truncation = 0.3
    assert sampler.bounded(Order()).truncation == 0.3
    assert sampler.bounded(Order(truncation=0.7)).truncation == 0.7
    assert sampler.bounded(Order(truncation=float("inf"))).truncation is None


def test_generate_takes_one_class_or_each_of_them(run: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "dark"
    done = cli("generate", run, "--class", "dark one", "--count", "3", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = (out / "splits.csv").read_text().splitlines()
    assert len(rows) == 4 and all(row.endswith("dark one") for row in rows[1:])

    refused = cli("generate", run, "--count", "3", "--out", tmp_path / "both")
    assert refused.returncode == 2
    assert "makes pictures of its classes at will (bright, dark one)" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "red"), "the classes of 0001-sngan-"),
        (("--class", "bright", "--per-class"), "exclude each other"),
        (("--interpolate", "0", "1", "--per-class"), "Name one with --class bright"),
    ],
)
def test_generate_refuses_what_leaves_the_class_open(
    run: Path, options: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(app, ["generate", str(run), *options])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
