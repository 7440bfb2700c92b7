"""The run folder: numbered, exclusive, movable, never overwritten; its checkpoints are whole.

Layout: `config.yaml`, `environment.json`, `data.json`, `log.jsonl`, `events/`, `samples/`,
`checkpoints/`, `weights/`, `MODEL_CARD.md`, and what the run made of its own test split.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tfgan_med import files
from tfgan_med.errors import TrainingError, UserError

FORMAT = 1
CLASSES = "classes.json"  # of a folder that holds one run for each class
_NUMBERED = re.compile(r"^(\d{4,})(-.*)?$")


def find_run(name: str, runs_dir: Path = Path("runs")) -> Path:
    """The folder of a run named by path, by number or as `last`.

    Raises:
        UserError: if there is none, saying where was looked.
    """
    given = Path(name)
    if (given / "config.yaml").is_file() or (given / CLASSES).is_file():
        return given
    runs = _numbered(runs_dir)
    if name == "last" and runs:
        return runs[max(runs)]
    if name.isdigit() and int(name) in runs:
        return runs[int(name)]
    found = ", ".join(path.name for _, path in sorted(runs.items())[-3:]) or "no runs"
    raise UserError(
        f"{name}: no such run. Expected a run folder, a number or `last`; {runs_dir}/ holds "
        f"{found}. Train one with `tfgan-med train pix2pix`, or name the folder of runs (--runs)."
    )


def _numbered(runs_dir: Path) -> dict[int, Path]:
    if not runs_dir.is_dir():
        return {}
    matches = {path: _NUMBERED.match(path.name) for path in runs_dir.iterdir() if path.is_dir()}
    return {int(match[1]): path for path, match in matches.items() if match}


def is_finished(run: Path) -> bool:
    """Whether a run has its card, which is written last."""
    return (run / "MODEL_CARD.md").is_file()


def check_place(runs_dir: Path) -> None:
    """Make the folder of runs; UserError if it cannot be one. Asked before data are read."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{runs_dir}: cannot hold runs, for it is or lies below a regular file. "
            "Name a folder with --out."
        ) from error
    except OSError as error:
        raise UserError(
            f"{runs_dir}: cannot be made ({error.strerror}). Name another folder with --out."
        ) from error


def next_folder(runs_dir: Path, name: str) -> Path:
    """Make the empty folder `<next number>-<name>`; two starts at once get two numbers."""
    check_place(runs_dir)
    while True:
        path = runs_dir / f"{max(_numbered(runs_dir), default=0) + 1:04d}-{name}"
        try:
            path.mkdir()
        except FileExistsError:
            continue  # another start was quicker
        if len([other for other in runs_dir.glob(f"{path.name[:4]}-*") if other.is_dir()]) == 1:
            return path
        path.rmdir()  # two starts with different names took one number: both draw again
        time.sleep(random.uniform(0.0, 0.1))


class RunFolder:
    """One run's folder; methods write its files atomically.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs_dir: Path, name: str) -> RunFolder:
        """Make the folder `<next number>-<name>`; two runs starting at once get two."""
        return cls.at(next_folder(runs_dir, name))

    @classmethod
    def at(cls, path: Path) -> RunFolder:
        """Make a run folder of an empty or missing folder."""
        for folder in ("checkpoints", "events", "samples", "weights"):
            (path / folder).mkdir(parents=True)
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; a lock of a dead process on this host is taken over.

        Raises:
            UserError: if another process holds it, with its pid.
        """
        lock = self.path / "lock"
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        while True:
            try:
                with lock.open("x") as stream:
                    json.dump(holder, stream)
                break
            except FileExistsError:
                self._check_stale(lock)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def _check_stale(self, lock: Path) -> None:
        """Remove a lock whose process is gone; refuse otherwise."""
        try:
            other = json.loads(lock.read_text())
        except (OSError, ValueError):
            other = {}
        alive = other.get("host") != socket.gethostname() or _alive(int(other.get("pid", 0)))
        if alive and other:
            raise UserError(
                f"{self.path.name}: in use by process {other['pid']} on {other['host']}. Wait "
                f"until it ends or stop it; if it is surely gone, delete {lock}."
            )
        lock.unlink(missing_ok=True)

    def log(self, **entry: Any) -> None:
        """Append one object to `log.jsonl`."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def write_environment(self, versions: Mapping[str, Any], **more: Any) -> None:
        """Write or update `environment.json`."""
        path = self.path / "environment.json"
        known = files.read_json(path) if path.exists() else {}
        files.write_json(path, {**known, **versions, **more})

    # Checkpoints ------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save_checkpoint(self, variables: Mapping[str, Any], state: dict[str, Any]) -> Path:
        """Write `checkpoints/step-<n>/` whole, then move the pointer `latest.json` to it.

        Args:
            variables: name to variable or array; all of them go to `model.weights.h5`.
            state: JSON values; `step` names the folder.
        Raises:
            TrainingError: if the disk is full; earlier checkpoints are untouched.
        """
        step = int(state["step"])
        target = self.checkpoints / f"step-{step:06d}"
        try:
            if target.exists() and not is_complete(target):
                shutil.rmtree(target)
            if not target.exists():
                with files.new_folder(target) as folder:
                    write_arrays(folder / "model.weights.h5", variables)
                    files.write_json(folder / "state.json", state)
                    write_manifest(folder)
            self._point("latest.json", target)
        except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
            raise self._save_error(step, error) from error
        return target

    def _save_error(self, step: int, error: Exception) -> TrainingError:
        last = self._pointed("latest.json")
        kept = f"The last good checkpoint is {last.name}." if last else "There is none before it."
        free = shutil.disk_usage(self.path).free // 2**20
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if getattr(error, "errno", None) in full or any(
            f"errno = {e}," in str(error) for e in full
        ):
            what = (
                f"Disk full while saving step-{step:06d} ({free} MB free, or a limit is reached)."
            )
        else:
            what = f"step-{step:06d} could not be saved ({error})."
        number = self.path.name.split("-")[0].lstrip("0")
        return TrainingError(
            f"{what} {kept} Free space and continue: tfgan-med train --resume {number}."
        )

    def mark_best(self, checkpoint: Path, value: float, metric: str) -> None:
        """Move the pointer `best.json`."""
        self._point("best.json", checkpoint, value=value, metric=metric)

    def _point(self, name: str, checkpoint: Path, **more: Any) -> None:
        step = int(checkpoint.name.removeprefix("step-"))
        files.write_json(
            self.checkpoints / name, {"checkpoint": checkpoint.name, "step": step, **more}
        )

    def _pointed(self, name: str) -> Path | None:
        try:
            return self.checkpoints / str(files.read_json(self.checkpoints / name)["checkpoint"])
        except (OSError, ValueError, KeyError):
            return None

    def prune(self, keep: int = 2) -> None:
        """Keep the newest checkpoints and the best one."""
        best = self._pointed("best.json")
        for old in self._saved()[:-keep]:
            if old != best:
                shutil.rmtree(old, ignore_errors=True)
        for left in self.checkpoints.glob(".*.tmp"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)

    def _saved(self) -> list[Path]:
        return sorted(path for path in self.checkpoints.glob("step-*") if path.is_dir())

    def checkpoint(self, which: str = "latest") -> tuple[Path, list[str]]:
        """The newest (or best) checkpoint whose checksums hold, and warnings on broken ones.

        Raises:
            TrainingError: if there is no whole checkpoint.
        """
        pointed = self._pointed(f"{which}.json")
        candidates = [*([pointed] if pointed else []), *reversed(self._saved())]
        warnings: list[str] = []
        for candidate in dict.fromkeys(candidates):
            if is_complete(candidate):
                return candidate, warnings
            warnings.append(f"{candidate.name} is damaged and was passed over.")
        raise TrainingError(
            f"{self.path}: no whole checkpoint. Start the run anew from its settings: tfgan-med "
            f"train MODEL --config {self.path / 'config.yaml'}."
        )


def write_arrays(path: Path, variables: Mapping[str, Any]) -> None:
    """Variables or arrays by name into one HDF5 file."""
    with h5py.File(path, "w") as store:
        for name, variable in variables.items():
            value = variable.numpy() if hasattr(variable, "numpy") else variable
            store.create_dataset(name, data=np.asarray(value))


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What `write_arrays` wrote; external links are not followed."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external:
                raise UserError(f"{path}: refers to another file and is not read.")
            arrays[name] = item[()]

    with h5py.File(path, "r") as store:
        store.visititems(visit)
    return arrays


def restore(variables: Mapping[str, Any], checkpoint: Path) -> None:
    """Assign a checkpoint's arrays to a model's variables.

    Raises:
        UserError: if names or shapes disagree: the settings are not those of the checkpoint.
    """
    arrays = read_arrays(checkpoint / "model.weights.h5")
    wrong = sorted(set(arrays) ^ set(variables)) or sorted(
        name for name, v in variables.items() if tuple(v.shape) != arrays[name].shape
    )
    if wrong:
        raise UserError(
            f"{checkpoint}: holds other networks than the settings describe (first difference: "
            f"{wrong[0]}). Resume with the run's own settings, or start a new run."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def write_manifest(folder: Path) -> None:
    """Checksums and sizes of a folder's files, so that damage is seen before use."""
    entries = {
        path.name: {"sha256": files.sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    files.write_json(folder / "manifest.json", {"format": FORMAT, "files": entries})


def is_complete(folder: Path) -> bool:
    """Whether every file of the manifest is there with its checksum."""
    try:
        entries = files.read_json(folder / "manifest.json")["files"]
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and files.sha256_of(folder / name) == entry["sha256"]
            for name, entry in entries.items()
        )
    except (OSError, ValueError, KeyError):
        return False


def origin() -> dict[str, Any]:
    """Where and how this process was started; absolute paths stay out of all other files."""
    return {
        "command": sys.argv,
        "host": platform.node(),
        "folder": str(Path.cwd()),
        "git": _git_state(),
        "started": now(),
        "format": FORMAT,
    }


def now() -> str:
    """UTC time, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git_state() -> str | None:
    """Commit of the working folder, with a `+` if files are changed; None outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def slug(text: str) -> str:
    """A short name for a folder."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in text.lower()).strip("-")
    return kept[:40] or "data"


def class_folder(label: str, index: int) -> str:
    """A class as a folder name; numbered where letters were lost, so that no two are alike."""
    name = slug(label)
    return name if name == label else f"{index:02d}-{name}"
