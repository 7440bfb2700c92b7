"""`experiment` as a process: a whole small experiment, stopped, gone on with, repeated, changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MAIN = "from tfgan_med.cli.app import main; main()"

STUDY = """
experiment: tiny
question: Do more discs help?
data: {path: pictures, image_size: 32, mode: gray}
generators:
  drawn: {folder: drawn}
downstream:
  resnet18:
    model: {width: 16}
    train: {steps: 6, batch_size: 8, precision: float32, eval_interval: 3, sample_interval: 6,
            log_interval: 1, checkpoint_interval: 1}
arms: [real, real+drawn]
seeds: [0]
metrics: {generative: []}
scales:
  gan:
    generators:
      drawn: null
      dcgan:
        train: dcgan
        per_class: true
        model: {generator_base: 64, discriminator_base: 8}
        settings: {batch_size: 8, precision: float32, steps: 4, log_interval: 1,
                   sample_interval: 2, checkpoint_interval: 1, eval_images: 4,
                   calibration_batches: 2}
    grid: {model.learning_rate: [0.001, 0.003]}
    arms: [real, real+dcgan]
    sweep: {generators: [dcgan], ratios: [0.5]}
    metrics: {generative: [ms_ssim]}
"""


def draw(root: Path, count: int, seed: int, splits: bool) -> None:
    """Dark and light discs on noise."""
    random, rows = np.random.default_rng(seed), ["file,split"]
    y, x = np.mgrid[:32, :32]
    for label, level in (("dark", 30), ("light", 110)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            (cx, cy), radius = random.uniform(8, 24, 2), random.uniform(4, 9)
            disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            pixels = 60 + level * disc + random.normal(0, 20, (32, 32))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
                root / label / f"{number:03d}.png"
            )
            split = "train" if number < count // 2 else "val" if number < 3 * count // 4 else "test"
            rows.append(f"{label}/{number:03d}.png,{split}")
    if splits:
        (root / "splits.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, real pictures and synthetic ones."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    draw(folder / "pictures", 32, 0, True)
    draw(folder / "drawn", 12, 1, False)
    return folder


def wait_for_step(folder: Path, seconds: float = 240) -> None:
    """Until some training of the experiment has saved a step."""
    end = time.time() + seconds
    while time.time() < end:
        if list(folder.glob("cells/*/checkpoints/step-000001")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no training of {folder} ever saved")


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in (folder / "cells").glob("*.json")}


@pytest.fixture(scope="module")
def finished(study: Path, cli: Any) -> tuple[Path, Any]:
    """The experiment, stopped by Ctrl-C during its first training, then gone on with."""
    command = [sys.executable, "-c", MAIN, "experiment", "run", "study.yaml", "--quiet"]
    process = subprocess.Popen(
        command, cwd=study, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ},
    )  # fmt: skip
    folder = study / "experiments" / "tiny"
    wait_for_step(folder)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Stopped and saved. Next: tfgan-med experiment run study.yaml" in said
    assert not (folder / "lock").exists()
    (stopped,) = records(folder).values()
    assert stopped["state"] == "stopped"
    return folder, cli("experiment", "run", "study.yaml", "--json", cwd=study)


def test_an_experiment_that_was_stopped_goes_on_to_its_report(finished: tuple[Path, Any]) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["done"], result["reused"], result["failed"]) == (2, 0, {})
    assert (folder / "report.html").is_file()
    known = records(folder)
    assert [record["state"] for record in known.values()] == ["done", "done"]
    first = next(record for name, record in known.items() if "-real-s0" in name)
    assert first["attempts"] == 2
    run = next(folder.glob("cells/arm-resnet18-real-s0-*/"))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(entry.get("event") == "resumed" for entry in log) == 1


def test_the_summary_holds_what_the_report_needs(finished: tuple[Path, Any]) -> None:
    folder, _ = finished
    told = json.loads((folder / "summary.json").read_text())
    assert told["question"] == "Do more discs help?" and told["scale"] == "full"
    assert told["data"]["counts"]["test"] == {"dark": 8, "light": 8}
    assert told["data"]["path"] == "pictures"  # never the folders above it
    assert str(folder) not in (folder / "summary.json").read_text()
    (study,) = told["studies"]
    assert study["main"] == study["metrics"][0] == "balanced_accuracy"
    assert {result["arm"] for result in study["results"]} == {"real", "real+drawn"}
    (comparison,) = [c for c in study["comparisons"] if c["metric"] == study["main"]]
    assert comparison["arm"] == "real+drawn"
    assert comparison["verdict"] in ("helps", "hurts", "cannot tell")
    assert {one["arm"] for one in study["curves"]} == {"real", "real+drawn"}
    (generator,) = told["generators"]
    assert generator["counts"] == {"dark": 12, "light": 12} and generator["origin"] == "folder"
    for picture in (
        told["data"]["sheet"],
        generator["sheet"],
        *(e["picture"] for e in study["examples"]),
    ):
        assert (folder / picture).is_file()
    counts = {arm["name"]: arm["counts"] for arm in told["arms"]}
    assert counts["real+drawn"]["synthetic"] == {"dark": 12, "light": 12}
    assert counts["real"]["synthetic"] == {"dark": 0, "light": 0}
    by_guard = {finding["name"]: finding["status"] for finding in told["guards"]}
    assert by_guard["near-duplicates"] == by_guard["tuned-threshold"] == "passed"
    assert by_guard["generator-leak"] == "skipped"  # drawn pictures do not say
    assert {cost["kind"] for cost in told["cost"]} == {"arm"}
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert {json.loads(line)["seed"] for line in lines} == {0}


def test_the_same_command_again_trains_nothing(finished: tuple[Path, Any], cli: Any) -> None:
    folder, _ = finished
    before = records(folder)
    again = cli("experiment", "run", "study.yaml", "--json", cwd=folder.parents[1])
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert (result["done"], result["reused"]) == (0, 2)
    assert records(folder) == before


def test_a_dry_run_says_what_a_change_would_repeat(finished: tuple[Path, Any], cli: Any) -> None:
    folder, _ = finished
    before = sorted(folder.rglob("*"))
    more = ("--set", "arms=[real,real+drawn,weighted]", "--dry-run", "--json")
    done = cli("experiment", "run", "study.yaml", *more, cwd=folder.parents[1])
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    states = {cell["label"]: cell["done"] for cell in plan["cells"]}
    assert states == {
        "resnet18-real-s0": True,
        "resnet18-real+drawn-s0": True,
        "resnet18-weighted-s0": False,
    }
    assert plan["seconds"] > 0  # as its finished siblings took
    assert sorted(folder.rglob("*")) == before


def test_status_and_report_work_on_the_folder_alone(finished: tuple[Path, Any], cli: Any) -> None:
    folder, _ = finished
    status = cli("experiment", "status", folder, "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["states"] == {"done": 2}
    (folder / "report.html").unlink()
    report = cli("experiment", "report", folder)
    assert report.returncode == 0, report.stderr
    assert (folder / "report.html").is_file()
    assert "resnet18, real+drawn:" in report.stdout


def test_only_one_process_works_on_an_experiment(finished: tuple[Path, Any], cli: Any) -> None:
    folder, _ = finished
    lock = folder / "lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "host": os.uname().nodename}))
    try:
        done = cli("experiment", "run", "study.yaml", cwd=folder.parents[1])
        assert done.returncode == 2
        assert f"in use by process {os.getpid()}" in done.stderr
        status = cli("experiment", "status", folder)
        assert "Running: in use by process" in status.stdout
    finally:
        lock.unlink()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["study.yaml", "--scale", "gam"], "Did you mean gan?"),
        (["study.yaml", "--set", "arms=[real+darwn]"], "Did you mean drawn?"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    study: Path, cli: Any, more: list[str], told: str
) -> None:
    done = cli("experiment", "run", *more, "--dry-run", cwd=study)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_is_no_experiment_is_refused(study: Path, cli: Any) -> None:
    for command in ("report", "status"):
        done = cli("experiment", command, study)
        assert done.returncode == 2 and "no experiment" in done.stderr


def test_a_violated_guard_stops_before_anything_is_trained(
    study: Path, cli: Any, tmp_path: Path
) -> None:
    """A synthetic folder whose generator has seen a test picture."""
    import hashlib

    seen = study / "pictures" / "dark" / "031.png"
    digest = hashlib.sha256(seen.read_bytes()).hexdigest()
    trained = [{"id": "x", "sha256": {"target": digest}}]
    draw(tmp_path / "leaky", 4, 2, False)
    told = {"synthetic": True, "trained_on": trained, "images": []}
    (tmp_path / "leaky" / "provenance.json").write_text(json.dumps(told))
    change = f"generators.drawn.folder={tmp_path / 'leaky'}"
    command = ("experiment", "run", study / "study.yaml", "--out", tmp_path, "--set", change)
    done = cli(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert "generator-leak" in done.stderr and "dark/031.png" in done.stderr
    assert "allow: [generator-leak]" in done.stderr
    assert not list((tmp_path / "tiny").glob("cells/*"))


@pytest.mark.slow
def test_generators_are_trained_and_measured_and_a_grid_decides(
    study: Path, cli: Any, tmp_path: Path
) -> None:
    command = ("experiment", "run", study / "study.yaml", "--scale", "gan", "--out", tmp_path)
    done = cli(*command, "--jobs", "2", "--json", cwd=tmp_path, timeout=1500)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "tiny" / "summary.json").read_text())
    (generator,) = told["generators"]
    assert generator["counts"] == {"dark": 16, "light": 16} and generator["steps"] == 4
    assert all(found["metric"].startswith("ms_ssim") for found in generator["metrics"])
    assert generator["metrics"]
    (study_told,) = told["studies"]
    assert [point["chosen"] for point in study_told["grid"]].count(True) == 1
    assert [entry["ratio"] for entry in study_told["sweep"]] == [0.5]
    by_guard = {finding["name"]: finding["status"] for finding in told["guards"]}
    assert by_guard["generator-leak"] == "passed"
    counts = {arm["name"]: arm["counts"]["synthetic"] for arm in told["arms"]}
    assert counts["real+dcgan@0.5"] == {"dark": 8, "light": 8}
    kinds = [cost["kind"] for cost in told["cost"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "gan": 2,
        "generate": 3,
        "grid": 2,
        "measure": 2,
        "arm": 3,
    }
