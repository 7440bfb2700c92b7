"""`tfgan-med evaluate fid` with statistics in place of real pictures, as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

NETWORK = ("--features", "tiny.keras", "--no-cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two networks and two sets."""
    root = tmp_path_factory.mktemp("statistics")
    for seed, name in enumerate(("tiny", "other")):
        keras.utils.set_random_seed(seed)
        images = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(4, 5, 3, activation="relu")(images)
        keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(root / f"{name}.keras")
    for seed, name in enumerate(("real", "fake")):
        (root / name).mkdir()
        generator = np.random.default_rng(seed)
        for i in range(14 - 2 * seed):
            pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_kept_statistics_give_the_same_value_and_keep_their_file(cli: Any, place: Path) -> None:
    pictures = cli(
        *("evaluate", "fid", "--real", "real", "--fake", "fake", *NETWORK),
        *("--save-statistics", "real.npz", "--json"),
        cwd=place,
    )
    assert pictures.returncode == 0, pictures.stderr
    assert "Statistics of the real pictures: real.npz." in pictures.stderr
    kept = (place / "real.npz").read_bytes()

    told = ("evaluate", "fid", "--statistics", "real.npz", "--fake", "fake")
    stored = cli(*told, *NETWORK, "--csv", "all.csv", "--json", cwd=place)
    assert stored.returncode == 0, stored.stderr
    expected, found = json.loads(pictures.stdout), json.loads(stored.stdout)
    assert found["value"] == pytest.approx(expected["value"], rel=1e-9)
    assert (found["real"], found["count_real"], found["count_fake"]) == ("real.npz", 14, 12)
    assert found["metric"] == expected["metric"]
    assert (place / "all.csv").read_text().count("\n") == 2

    again = cli(
        *("evaluate", "fid", "--real", "real", "--fake", "fake", *NETWORK),
        *("--save-statistics", "real.npz"),
        cwd=place,
    )
    assert again.returncode == 2
    assert again.stdout == ""  # before measuring
    assert "real.npz: is there already" in again.stderr
    assert (place / "real.npz").read_bytes() == kept

    refused = cli(*told, "--features", "other.keras", "--no-cache", cwd=place)
    assert refused.returncode == 2
    assert "real.npz: its statistics were made with the network tiny" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_statistics_of_another_program_are_taken_with_a_note(cli: Any, place: Path) -> None:
    np.savez(place / "theirs.npz", mu=np.zeros(4), sigma=np.eye(4))
    told = ("evaluate", "fid", "--statistics", "theirs.npz", "--fake", "fake")
    done = cli(*told, *NETWORK, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "? real, 12 generated" in done.stdout
    assert "Note: theirs.npz does not say how it was made" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--statistics", "any.npz", "--real", "real"], "--real and --statistics"),
        (["--statistics", "any.npz", "--per-class"], "--per-class and --statistics"),
        (["--statistics", "absent.npz"], "absent.npz"),
        (["--real", "real", "--save-statistics", "real.csv"], "real.csv: no .npz file"),
    ],
)
def test_what_statistics_cannot_do_ends_with_2(
    cli: Any, place: Path, arguments: list[str], said: str
) -> None:
    (place / "any.npz").write_bytes(b"")
    done = cli("evaluate", "fid", *arguments, "--fake", "fake", *NETWORK, cwd=place)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
