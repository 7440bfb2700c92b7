"""`tfgan-med evaluate` as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from tfgan_med.data import fitting


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, two flat sets and a run."""
    root = tmp_path_factory.mktemp("evaluate")
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 5, 3, activation="relu")(images)
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    keras.Model(images, keras.layers.Dense(3, name="scores")(features)).save(root / "tiny.keras")
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
        "--json",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metric"].startswith("frechet_distance[tiny:")
    assert result["interval"]["low"] <= result["value"] <= result["interval"]["high"]
    assert result["reference"] > 0
    assert result["count_real"] == 12
    assert "Next:" in done.stderr


def test_the_report_names_network_counts_and_bias_and_never_fid(cli: Any, place: Path) -> None:
    done = cli(
        *("evaluate", "fid", "--real", "real", "--fake", "fake", "--features", "tiny.keras"),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert "12 real, 12 generated" in done.stdout
    assert "kid has no such bias" in done.stdout
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


NETWORK = (
    *("--features", "tiny.keras", "--features-output", "features"),
    *("--logits-output", "scores"),
)
FOLDERS = ("--real", "real", "--fake", "fake")


@pytest.mark.parametrize(
    ("arguments", "metrics"),
    [
        (("kid", *FOLDERS, *NETWORK), {"kernel_distance[tiny"}),
        (("inception-score", *FOLDERS, *NETWORK, "--splits", "2"), {"classifier_score[tiny"}),
        (("prdc", *FOLDERS, *NETWORK, "--k", "3"), {"precision[tiny", "coverage[tiny"}),
        (("ms-ssim", *FOLDERS), {"ms_ssim_diversity_S1"}),
        (("sliced-wasserstein", *FOLDERS), {"sliced_wasserstein"}),
        (("cid", *FOLDERS), {"cid", "cid_creativity", "cid_inheritance", "cid_diversity"}),
        (("likeness", *FOLDERS), {"likeness"}),
        (("memorization", *FOLDERS, *NETWORK), {"memorization_copies", "data_copying_z[tiny"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_metric_is_a_command(
    cli: Any, place: Path, arguments: tuple[str, ...], metrics: set[str]
) -> None:
    done = cli("evaluate", *arguments, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    named = {result["metric"].partition(":")[0] for result in results}
    assert metrics <= named
    for result in results:
        assert (result["count_real"], result["seed"]) == (12, 0)
    assert "Next:" in done.stderr


def test_copies_of_training_pictures_end_with_1_if_asked(
    cli: Any, place: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    save(copies, 5)
    for i in range(3):
        (copies / f"{i}.png").write_bytes((place / "real" / f"{i}.png").read_bytes())
    told = ("evaluate", "memorization", "--training", "real", "--fake", copies, *NETWORK)
    done = cli(*told, "--plots", tmp_path / "figures", "--fail-on-copies", cwd=place)
    assert done.returncode == 1
    assert "Copies:" in done.stderr
    assert "no proof of privacy" in done.stdout
    with Image.open(tmp_path / "figures" / "copies_pixels.png") as sheet:
        assert sheet.width > 200
    assert cli(*told, cwd=place).returncode == 0


def test_training_pictures_are_fitted_to_the_size_of_the_generated_ones(
    cli: Any, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "small").mkdir()
    for i in range(12):
        with Image.open(place / "real" / f"{i}.png") as picture:
            small = fitting.fit(np.asarray(picture), 10, "crop", nearest=False)[0][0]
        Image.fromarray(small).save(tmp_path / "small" / f"{i}.png")
    told = ("evaluate", "memorization", "--training", "real", "--fake", tmp_path / "small")
    done = cli(*told, *NETWORK, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    found = {r["metric"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert found["memorization_copies"]["value"] == 1.0
    assert found["memorization_copies"]["image_size"] == [10, 10]


def test_all_metrics_come_from_one_command_and_go_into_a_csv_file(
    cli: Any, place: Path, tmp_path: Path
) -> None:
    done = cli(
        *("evaluate", "all", *FOLDERS, *NETWORK, "--csv", tmp_path / "all.csv"),
        *("--plots", tmp_path / "figures"),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    for name in ("frechet_distance", "kernel_distance", "precision", "likeness", "data_copying_z"):
        assert name in done.stdout
    assert "Not measured: LPIPS" in done.stdout
    assert "weights import lpips-alex" in done.stderr
    rows = (tmp_path / "all.csv").read_text().splitlines()
    assert len(rows) > 15 and rows[0].startswith("metric,value,low,high")
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"embedding.png", "neighbors.png", "distances.png"} <= drawn


def test_several_sets_are_ranked(cli: Any, place: Path) -> None:
    told = ("evaluate", "compare", "fake", "runs/0001-pix2pix/translated/test", "--real", "real")
    done = cli(*told, "--metrics", "kid", *NETWORK, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["metric"].startswith("kernel_distance[tiny")
    assert row["places"][0]["rank"] == 1
    assert len(row["places"]) == 2


def test_masks_are_compared_class_by_class(cli: Any, tmp_path: Path) -> None:
    for name, width in (("real", 10), ("fake", 5)):
        save(tmp_path / name / "images", 0)
        (tmp_path / name / "masks").mkdir()
        for i in range(12):
            mask = np.zeros((20, 20), np.uint8)
            mask[:, :width] = 255
            Image.fromarray(mask).save(tmp_path / name / "masks" / f"{i}.png")
    told = ("evaluate", "labels", "--real", "real", "--fake", "fake", "--names", "skin,lesion")
    done = cli(*told, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "label_share_emd[lesion]" in done.stdout
    assert "0.2500" in done.stdout
