"""Run folders: numbered, exclusive, found by name; checkpoints that are whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tfgan_med import files
from tfgan_med.errors import TrainingError, UserError
from tfgan_med.training import run_folder
from tfgan_med.training.run_folder import RunFolder, find_run


def arrays(value: float) -> dict[str, np.ndarray]:
    return {"network/g/0000-kernel": np.full((3, 4), value, "float32"), "step": np.array(7)}


def test_runs_are_numbered_in_order(tmp_path: Path) -> None:
    names = [RunFolder.create(tmp_path / "runs", name).path.name for name in ("a", "b", "a")]
    assert names == ["0001-a", "0002-b", "0003-a"]


def test_starts_at_the_same_moment_get_folders_and_numbers_of_their_own(tmp_path: Path) -> None:
    made: list[str] = []
    barrier = threading.Barrier(6)

    def start(name: str) -> None:
        barrier.wait()
        made.append(RunFolder.create(tmp_path, name).path.name)

    threads = [threading.Thread(target=start, args=(f"run{i % 3}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({name[:4] for name in made}) == 6


def test_a_file_in_the_place_of_the_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="regular file"):
        RunFolder.create(tmp_path / "file" / "runs", "a")


def test_a_run_is_found_by_folder_number_and_last(tmp_path: Path) -> None:
    first, second = (RunFolder.create(tmp_path, name).path for name in ("a", "b"))
    (second / "config.yaml").touch()
    assert find_run(str(second)) == second
    assert find_run("1", tmp_path) == first
    assert find_run("0001", tmp_path) == first
    assert find_run("last", tmp_path) == second
    with pytest.raises(UserError, match="holds 0001-a, 0002-b"):
        find_run("7", tmp_path)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "a")
    with (
        folder.locked(),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}"),
        RunFolder(folder.path).locked(),
    ):
        pass
    assert not (folder.path / "lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "a")
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    import socket

    (folder.path / "lock").write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname()}))
    with folder.locked():
        assert json.loads((folder.path / "lock").read_text())["pid"] == os.getpid()


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "a")
    path = folder.save_checkpoint(arrays(2.5), {"step": 7, "best": None})
    assert path.name == "step-000007"
    found, warnings = folder.checkpoint()
    assert (found, warnings) == (path, [])
    read = run_folder.read_arrays(found / "model.weights.h5")
    np.testing.assert_array_equal(
        read["network/g/0000-kernel"], arrays(2.5)["network/g/0000-kernel"]
    )
    assert read["step"] == 7


def test_two_newest_and_the_best_checkpoint_are_kept(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "a")
    for step in range(1, 6):
        path = folder.save_checkpoint(arrays(step), {"step": step})
        if step == 2:
            folder.mark_best(path, value=1.0, metric="l1")
        folder.prune()
    kept = sorted(path.name for path in folder.checkpoints.iterdir() if path.is_dir())
    assert kept == ["step-000002", "step-000004", "step-000005"]
    assert folder.checkpoint("best")[0].name == "step-000002"


@pytest.mark.parametrize("damage", ["flip", "truncate", "manifest", "delete"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: str, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path, "a")
    folder.save_checkpoint(arrays(1), {"step": 1})
    newest = folder.save_checkpoint(arrays(2), {"step": 2})
    weights = newest / "model.weights.h5"
    if damage == "flip":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    elif damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        weights.unlink()
    found, warnings = folder.checkpoint()
    assert found.name == "step-000001"
    assert warnings == ["step-000002 is damaged and was passed over."]


def test_without_a_whole_checkpoint_the_message_says_how_to_start_anew(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no whole checkpoint.*--config"):
        RunFolder.create(tmp_path, "a").checkpoint()


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path, "a")
    folder.save_checkpoint(arrays(1), {"step": 1})

    def full(path: Path, variables: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_arrays", full)
    with pytest.raises(TrainingError, match=r"Disk full while saving step-000002.*step-000001"):
        folder.save_checkpoint(arrays(2), {"step": 2})
    monkeypatch.undo()
    assert [path.name for path in folder.checkpoints.glob("*step*")] == ["step-000001"]
    assert folder.checkpoint()[0].name == "step-000001"


def test_a_file_size_limit_is_reported_as_a_full_disk(tmp_path: Path) -> None:
    code = f"""
import resource, signal, numpy as np
from pathlib import Path
from tfgan_med.training.run_folder import RunFolder
folder = RunFolder.create(Path({str(tmp_path)!r}), "a")
folder.save_checkpoint({{"w": np.zeros(1000)}}, {{"step": 1}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    folder.save_checkpoint({{"w": np.random.rand(100_000)}}, {{"step": 2}})
except Exception as error:
    print(type(error).__name__, error)
print(folder.checkpoint()[0].name, [p.name for p in folder.checkpoints.iterdir()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TrainingError" in done.stdout, done.stdout + done.stderr
    assert "step-000001 ['step-000001'" in done.stdout or "latest.json" in done.stdout
    assert not any("tmp" in name for name in done.stdout.split("'"))


def test_arrays_of_other_networks_are_refused(tmp_path: Path) -> None:
    import keras

    folder = RunFolder.create(tmp_path, "a")
    checkpoint = folder.save_checkpoint(arrays(1), {"step": 1})
    other = {"network/g/0000-kernel": keras.Variable(np.zeros((2, 4)))}
    with pytest.raises(UserError, match="holds other networks"):
        run_folder.restore(other, checkpoint)


def test_an_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(path, {"good": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(path, {"bad": float("nan")})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"good": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_new_folder_never_replaces_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError), files.new_folder(tmp_path / "there") as folder:
        (folder / "x").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
