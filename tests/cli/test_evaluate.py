"""`tfgan-med evaluate fid` as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, two flat sets and a run."""
    root = tmp_path_factory.mktemp("evaluate")
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 5, 3, activation="relu")(images)
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(root / "tiny.keras")
    run = root / "runs" / "0001-pix2pix"
    for number, folder in enumerate(
        (root / "real", root / "fake", run / "reals/test/images", run / "translated/test/images")
    ):
        save(folder, number)
    (run / "config.yaml").write_text("model: {}\n")
    return root


def save(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(12):
        pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_two_folders_give_one_json_line_and_a_next_step(cli: Any, place: Path) -> None:
    done = cli(
        *("evaluate", "fid", "--real", "real", "--fake", "fake", "--features", "tiny.keras"),
        *("--floor", "--bootstrap", "20", "--json"),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metric"].startswith("frechet_distance[tiny:")
    assert result["interval"]["repeats"] == 20
    assert result["count_real"] == 12
    assert "Next:" in done.stderr


def test_the_report_names_network_counts_and_bias_and_never_fid(cli: Any, place: Path) -> None:
    done = cli(
        *("evaluate", "fid", "--real", "real", "--fake", "fake", "--features", "tiny.keras"),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert "12 real, 12 generated" in done.stdout
    assert "biased upwards" in done.stdout
    assert "FID" not in done.stdout


def test_the_last_run_is_the_default_and_keeps_the_result(cli: Any, place: Path) -> None:
    done = cli("evaluate", "fid", "--features", "tiny.keras", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    noted = (place / "runs/0001-pix2pix/results.jsonl").read_text().splitlines()
    assert json.loads(noted[-1]) == json.loads(done.stdout)


def test_missing_weights_end_with_1_and_one_message(cli: Any, place: Path, tmp_path: Path) -> None:
    done = cli(
        *("evaluate", "fid", "--real", "real", "--fake", "fake"),
        cwd=place,
        env={"TFGAN_MED_CACHE": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "weights import inception-2015 --download" in done.stderr
    assert "6726825d" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--real", "real", "--fake", "99"], "99: no such run"),
        (["--real", "real", "--fake", "fake", "--window", "9", "3"], "window is 9 to 3"),
    ],
)
def test_mistakes_end_with_2_and_one_message(
    cli: Any, place: Path, arguments: list[str], said: str
) -> None:
    done = cli("evaluate", "fid", *arguments, "--features", "tiny.keras", cwd=place)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
