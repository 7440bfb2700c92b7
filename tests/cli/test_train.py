"""`train`, `translate` and `generate` as processes: what they print, how they stop and go on."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfgan_med.training import run_folder

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "pix2pix.yaml"
MAIN = "from tfgan_med.cli.app import main; main()"


def arguments(*more: str | Path) -> list[str]:
    return ["train", "pix2pix", "--config", str(SMOKE), *map(str, more)]


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A run in the background that saves and logs each step."""
    every = [f"--set=train.{key}_interval=1" for key in ("log", "checkpoint")]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *more, *every],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, text: str = "", seconds: float = 120) -> None:
    end = time.time() + seconds
    while time.time() < end:
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never held {text!r}")


@pytest.fixture(scope="module")
def runs(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with one run made from the command line, and what the command said."""
    folder = tmp_path_factory.mktemp("cli")
    return folder, cli(*arguments("--json"), cwd=folder)


def test_train_prints_one_json_result_and_says_what_comes_next(runs: tuple[Path, Any]) -> None:
    folder, done = runs
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 6
    assert set(result["scores"]) == {"l1", "psnr", "ssim"}
    assert (folder / result["run"] / "MODEL_CARD.md").is_file()
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("Run folder runs/0001-pix2pix-smear")
    assert "tensorboard --logdir runs" in lines[0]
    assert lines[-1].startswith("Next: ")
    assert "\x1b" not in done.stderr
    assert "oneDNN" not in done.stderr


def test_translate_writes_a_folder_once(cli: Any, runs: tuple[Path, Any]) -> None:
    folder, _ = runs
    first = cli("translate", "1", "--split", "val", "--out", "made", "--json", cwd=folder)
    assert first.returncode == 0, first.stderr
    count = json.loads(first.stdout)["pictures"]
    assert len(list((folder / "made" / "images").iterdir())) == count
    second = cli("translate", "1", "--split", "val", "--out", "made", cwd=folder)
    assert second.returncode == 2
    assert "--force" in second.stderr
    assert (
        cli("translate", "1", "--split", "val", "--out", "made", "--force", cwd=folder).returncode
        == 0
    )


def test_generate_makes_as_many_as_asked(cli: Any, runs: tuple[Path, Any]) -> None:
    folder, _ = runs
    done = cli("generate", "last", "--count", "7", "--split", "val", "--out", "seven", cwd=folder)
    assert done.returncode == 0, done.stderr
    entries = json.loads((folder / "seven" / "provenance.json").read_text())["images"]
    assert len(entries) == len({entry["file"] for entry in entries}) == 7
    assert len({entry["seed"] for entry in entries}) == 7


def test_a_dry_run_writes_nothing(cli: Any, tmp_path: Path) -> None:
    done = cli(*arguments("--dry-run", "--json"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["steps"] == 6
    assert plan["parameters"]["generator"] > 0
    assert plan["seconds_per_step"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--set", "model.lambda_L1=5"], "Did you mean model.lambda_l1"),
        (["--set", "train.batch_size=0"], "train.batch_size"),
        (["--data", "nowhere"], "nowhere"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--set", "model.discriminator=patch71"], "patch70"),
        (["--set", "model.adversarial=hing"], "hinge"),
        (["--set", "data.image_size=250"], "250"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    more: list[str], told: str, cli: Any, tmp_path: Path
) -> None:
    done = cli("train", "pix2pix", *more, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert told in done.stderr
    assert not list(tmp_path.glob("runs/0*"))


def test_an_unknown_model_is_told_the_nearest(cli: Any, tmp_path: Path) -> None:
    done = cli("train", "pix2pux", cwd=tmp_path)
    assert (done.returncode, "pix2pix" in done.stderr) == (2, True)


def test_runs_below_a_regular_file_are_refused_at_once(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cli(*arguments("--out", "file/runs"), cwd=tmp_path)
    assert done.returncode == 2
    assert "regular file" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_step_and_the_run_goes_on(
    number: signal.Signals, code: int, cli: Any, tmp_path: Path
) -> None:
    process = start(tmp_path, *arguments("--steps", "100000"))
    run = tmp_path / "runs" / "0001-pix2pix-smear"
    wait_for(run / "log.jsonl", '"step": 3,')
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "tfgan-med train --resume" in said
    checkpoint, warnings = run_folder.RunFolder(run).checkpoint()
    step = int(checkpoint.name.removeprefix("step-"))
    assert (step >= 3, warnings) == (True, [])
    assert not (run / "lock").exists()
    assert json.loads((run / "environment.json").read_text())["exit_code"] == code
    more = cli("train", "--resume", "1", "--steps", str(step + 2), "--json", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert json.loads(more.stdout)["steps"] == step + 2


def test_a_deterministic_run_repeats_to_the_byte(cli: Any, tmp_path: Path) -> None:
    for _ in range(2):
        done = cli(*arguments("--deterministic", "--steps", "2", "--quiet"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    first, second = (
        path / "checkpoints" / "step-000002" / "model.weights.h5"
        for path in sorted((tmp_path / "runs").iterdir())
    )
    assert first.read_bytes() == second.read_bytes()


def kill_and_resume(folder: Path, kills: int) -> None:
    """SIGKILL a run that saves each step, at random moments; each time it must go on."""
    draw = random.Random(7)
    run = folder / "runs" / "0001-pix2pix-smear"
    command = arguments("--steps", "100000")
    reached = 0
    for _ in range(kills):
        process = start(folder, *command)
        wait_for(run / "checkpoints" / f"step-{reached + 2:06d}" / "manifest.json")
        time.sleep(draw.uniform(0.0, 1.0))
        process.kill()
        process.communicate()
        checkpoint, warnings = run_folder.RunFolder(run).checkpoint()
        step = int(checkpoint.name.removeprefix("step-"))
        assert (step > reached, warnings) == (True, [])
        reached = step
        command = ["train", "--resume", "1"]
    process = start(folder, "train", "--resume", "1", "--steps", str(reached + 2))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    left = [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
    assert not left
    arrays = run_folder.read_arrays(
        run / "checkpoints" / f"step-{reached + 2:06d}" / "model.weights.h5"
    )
    assert all(np.isfinite(value).all() for value in arrays.values())


def test_a_killed_run_goes_on_from_a_whole_step(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=2)


@pytest.mark.slow
def test_a_run_killed_twenty_times_goes_on_each_time(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=20)


def test_a_run_in_use_names_the_process(cli: Any, tmp_path: Path) -> None:
    process = start(tmp_path, *arguments("--steps", "100000"))
    try:
        run = tmp_path / "runs" / "0001-pix2pix-smear"
        wait_for(run / "checkpoints" / "latest.json")
        done = cli("train", "--resume", "1", cwd=tmp_path)
    finally:
        process.kill()
        process.communicate()
    assert done.returncode == 2
    assert f"in use by process {process.pid}" in done.stderr


def test_the_main_job_opens_no_connection(tmp_path: Path) -> None:
    code = f"""
import socket, sys
def refuse(*a, **k): raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
sys.argv = ["tfgan-med", *{arguments()!r}]
{MAIN}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_training_leaves_the_data_folder_untouched(cli: Any, shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "cxr-lung-heart"

    def state() -> str:
        digest = hashlib.sha256()
        for path in sorted(data.rglob("*")):
            digest.update(str(path).encode() + str(path.stat().st_mtime_ns).encode())
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    before = state()
    done = cli(*arguments("--data", data, "--steps", "2"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert state() == before


def test_a_cut_off_picture_ends_training_with_its_name_and_the_cure(
    cli: Any, tmp_path: Path
) -> None:
    from tfgan_med.data.builtin import materialize

    shutil.copytree(materialize("builtin:smear?count=24&size=64"), tmp_path / "smear")
    picture = sorted((tmp_path / "smear" / "images").iterdir())[3]
    picture.write_bytes(picture.read_bytes()[:-200])
    done = cli(*arguments("--data", "smear"), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert picture.name in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/0*"))
    skipped = cli(
        *arguments("--data", "smear", "--set", "data.skip_bad=true", "--steps", "1"), cwd=tmp_path
    )
    assert skipped.returncode == 0, skipped.stderr


def test_the_reader_of_a_pipe_may_leave(tmp_path: Path) -> None:
    script = f"{sys.executable} -c '{MAIN}' train --help | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
