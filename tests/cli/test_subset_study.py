"""A subset study as processes: planned, stopped, gone on with, reported, repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MAIN = "from tfgan_med.cli.app import main; main()"

STUDY = """
experiment: tiny
question: Do spread smears make diverse smears?
sets:
  smears: {path: "builtin:smear?count=16&size=32", image_size: 32, mode: gray, pictures: all}
subsets:
  random: {method: random}
  kss2: {method: kss, clusters: 2}
size: 6
selection: {components: 3}
generators:
  dcgan:
    train: dcgan
    model: {generator_base: 64, discriminator_base: 8}
    settings: {steps: 3, batch_size: 4, precision: float32, log_interval: 1, sample_interval: 3,
               checkpoint_interval: 1, eval_images: 4, calibration_batches: 1}
count: 5
truncation: 0.5
seeds: [0, 1]
metrics: {measures: [cid], cid_similarity: ssim}
scales:
  one: {seeds: [0]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subsets")
    (folder / "study.yaml").write_text(STUDY)
    return folder


def test_a_dry_run_names_every_cell_and_writes_nothing(place: Path, cli: Any) -> None:
    done = cli("experiment", "run", "study.yaml", "--dry-run", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    kinds = [cell["kind"] for cell in plan["cells"]]
    counts = {kind: kinds.count(kind) for kind in ("select", "gan", "generate", "measure")}
    assert counts == {"select": 2 * 2 + 1, "gan": 4, "generate": 4, "measure": 1 + 4}
    assert sum(plan["data"]["smears"].values()) == 16
    assert not (place / "experiments").exists()


def test_a_mistake_ends_with_2_and_its_key(place: Path, cli: Any) -> None:
    change = "subsets.kss2.clusters=7"
    done = cli("experiment", "run", "study.yaml", "--set", change, "--dry-run", cwd=place)
    assert done.returncode == 2
    assert "subsets.kss2.clusters: 7 clusters, but a subset has 6 pictures" in done.stderr


def wait_for_step(folder: Path, seconds: float = 300) -> None:
    """Until some training of the study has saved a step."""
    end = time.time() + seconds
    while time.time() < end:
        if list(folder.glob("cells/*/checkpoints/step-000001")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no training of {folder} ever saved")


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_to_its_report(place: Path, cli: Any) -> None:
    words = ("experiment", "run", "study.yaml", "--scale", "one")
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words, "--quiet"], cwd=place, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    folder = place / "experiments" / "tiny"
    wait_for_step(folder)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    done = cli(*words, "--json", cwd=place, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failed"] == {} and result["reused"] >= 3  # the pictures and both choices
    assert Path(place / result["report"]).is_file()

    told = json.loads((folder / "summary.json").read_text())
    assert {row["metric"] for row in told["results"]} == {"c", "i", "d", "d_normalized", "cid"}
    assert told["missing"] == [] and len(told["samples"]) == 2
    assert all(row["verdict"] == "cannot tell" for row in told["comparisons"])  # one seed
    chosen = next(folder.glob("cells/select-smears-kss2-s0-*/"))
    made = next(folder.glob("cells/generate-dcgan-smears-kss2-s0-*/"))
    provenance = json.loads((made / "provenance.json").read_text())
    assert len(provenance["trained_on"]) == 6 and provenance["truncation"] == 0.5
    assert len(list((chosen / "images").iterdir())) == 6

    again = cli(*words, "--json", cwd=place)
    assert json.loads(again.stdout)["done"] == 0, "nothing is computed twice"
    status = cli("experiment", "status", folder, "--json", cwd=place)
    assert json.loads(status.stdout)["states"] == {"done": result["done"] + result["reused"]}
    report = cli("experiment", "report", folder, "--json", cwd=place)
    assert json.loads(report.stdout)["report"].endswith("report.html")
