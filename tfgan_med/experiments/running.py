"""Cells as processes, side by side: started, watched, stopped and gone on with.

A cell that ends badly stops what needs it and nothing else. SIGINT, SIGTERM and SIGHUP are passed
on, so that every process saves; the same command goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tfgan_med.errors import UserError
from tfgan_med.experiments.cells import Cell, Store, Work
from tfgan_med.experiments.progress import View
from tfgan_med.training import run_folder
from tfgan_med.training.run_folder import RunFolder

MAIN = "from tfgan_med.cli.app import main; main()"
POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two looks at how far processes are
LAST_LINES = 3


@dataclass
class Process:
    """A running cell.

    Attributes:
        cell: what it does.
        child: the process.
        begun: when, by a clock that only goes forward.
        streams: open files that it writes to.
        step: how far it is, if it says so.
    """

    cell: Cell
    child: subprocess.Popen[bytes]
    begun: float
    streams: list[IO[bytes]]
    step: int = 0
    peak_mb: float | None = None


@dataclass
class Ending:
    """What came of the cells.

    Attributes:
        done: names of cells that were finished now.
        reused: names of cells that were finished before.
        failed: exit code and log by name of the cell.
        blocked: names of cells that need a failed one.
        signal: number of the signal that stopped all; None if nothing did.
    """

    done: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: dict[str, tuple[int, Path]] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    signal: int | None = None


class Runner:
    """Works a plan off.

    Args:
        store: where cells are.
        replan: the plan as it is now; asked again when a grid search may have ended.
        jobs: processes at a time.
        view: where progress is shown.
        finished: called with every cell that is done, also with those of before; raises to stop
            everything.
    """

    def __init__(
        self,
        store: Store,
        replan: Callable[[], Work],
        jobs: int,
        view: View,
        finished: Callable[[Cell], None] = lambda cell: None,
    ) -> None:
        self.store = store
        self.replan = replan
        self.jobs = jobs
        self.view = view
        self.finished = finished
        self.running: dict[str, Process] = {}
        self.ending = Ending()
        self._waiting: set[str] = set()
        self._looked = 0.0

    def run(self) -> Ending:
        """Until all is done, nothing more can be done, or a signal came.

        Raises:
            Exception: what `finished` raised, after all processes have saved and ended.
        """
        with _signals() as received:
            try:
                self._work(received)
            except BaseException:
                self._stop()
                raise
            finally:
                self.view.stop()
        if received:
            self.ending.signal = received[0]
        return self.ending

    def _work(self, received: list[int]) -> None:
        self.plan = self.replan()
        self._take_over_finished()
        self.view.start(self._counts())
        while not received:
            started = self._start_ready()
            if not self.running and not started:
                break
            time.sleep(POLL_SECONDS)
            self._collect()
            self._look()
        if received:
            self._stop()
        self.ending.blocked = [cell.name for cell in self.plan.cells if self._is_blocked(cell)]

    # What is finished -----------------------------------------------------------------------

    def _take_over_finished(self) -> None:
        """Cells of an earlier start; `finished` may object to what they made."""
        for cell in self.plan.cells:
            known = {*self.ending.reused, *self.ending.done}
            if cell.name not in known and self.store.is_done(cell):
                self.ending.reused.append(cell.name)
                self.finished(cell)

    def _done(self) -> set[str]:
        return {*self.ending.done, *self.ending.reused}

    def _counts(self) -> tuple[int, int]:
        """Cells that are done, and all, those included that a grid search has still to settle."""
        names = {cell.name for cell in self.plan.cells}
        return len(names & self._done()), len(names) + self.plan.undecided

    # Starting -------------------------------------------------------------------------------

    def _start_ready(self) -> bool:
        """Start what can be; whether anything was, or is being waited for."""
        started = False
        for cell in self.plan.cells:
            if len(self.running) >= self.jobs:
                break
            if not self._is_ready(cell):
                continue
            if self._is_held(cell):
                started = True
                continue
            self._start(cell)
            started = True
            if cell.job is not None:
                break  # it is done already: look at the plan again
        return started

    def _is_ready(self, cell: Cell) -> bool:
        name, done = cell.name, self._done()
        idle = name not in self.running and name not in done and name not in self.ending.failed
        return idle and all(need in done for need in cell.needs)

    def _is_blocked(self, cell: Cell) -> bool:
        by_name = self.plan.by_name()
        needs = [by_name[need] for need in cell.needs]
        if cell.name in self._done() or cell.name in self.ending.failed:
            return False
        return any(need.name in self.ending.failed or self._is_blocked(need) for need in needs)

    def _is_held(self, cell: Cell) -> bool:
        """Whether a process of an earlier start, whose parent was killed, still works on it."""
        if not self.store.is_begun(cell):
            return False
        folder = self.store.path(cell)
        for place in (folder, folder.with_name(f"{folder.name}.part")):
            if not (place / "lock").is_file():
                continue
            try:
                with RunFolder(place).locked():
                    pass
            except UserError as error:
                if cell.name not in self._waiting:
                    self._waiting.add(cell.name)
                    self.view.say(f"Waiting for {error}")
                return True
        return False

    def _start(self, cell: Cell) -> None:
        begun = run_folder.now()
        attempts = int(self.store.record(cell).get("attempts", 0)) + 1
        self.store.cells.mkdir(parents=True, exist_ok=True)
        self.store.note(cell, state="running", started=begun, attempts=attempts)
        again = " again" if attempts > 1 else ""
        self.view.say(f"Started{again}: {cell.kind} {cell.label}")
        if cell.job is not None:
            self._do(cell)
            return
        if self.store.path(cell).is_dir() and cell.settings is None and cell.output is None:
            self._succeed(cell, 0.0, None)  # whole, but its end was not noted
            return
        arguments = self.store.prepare(cell)
        log = self.store.log(cell).open("ab")
        streams: list[IO[bytes]] = [log]
        output: IO[bytes] = log
        if cell.output is not None:
            self.store.path(cell).mkdir(exist_ok=True)
            output = (self.store.path(cell) / f"{cell.output}.part").open("wb")
            streams.append(output)
        log.write(f"$ tfgan-med {' '.join(arguments)}\n".encode())
        log.flush()
        # A group of its own: Ctrl-C at the terminal reaches this process alone, which passes one
        # signal on; two would make the child end without saving.
        child = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env={**os.environ, **_threads(self.jobs)},
            start_new_session=True,
        )
        self.running[cell.name] = Process(cell, child, time.monotonic(), streams)
        self.view.began(cell.name, f"{cell.kind} {cell.label}", cell.steps)

    def _do(self, cell: Cell) -> None:
        """Work of moments, here."""
        assert cell.job is not None
        begin = time.monotonic()
        target = self.store.path(cell)
        try:
            if not target.is_dir():  # folders appear whole
                cell.job(target)
        except (UserError, OSError) as error:
            self.store.log(cell).write_text(f"Error: {error}\n", encoding="utf-8")
            self._fail(cell, 1, time.monotonic() - begin)
            return
        self._succeed(cell, time.monotonic() - begin, None)

    # Watching -------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take note of processes that have ended."""
        for process in list(self.running.values()):
            code = _ended(process)
            if code is not None:
                self._close(process, code)

    def _close(self, process: Process, code: int) -> None:
        cell = process.cell
        del self.running[cell.name]
        self.view.ended(cell.name)
        for stream in process.streams:
            stream.close()
        seconds = time.monotonic() - process.begun
        if code != 0:
            self._fail(cell, code, seconds)
            return
        if cell.output is not None:
            made = self.store.path(cell) / f"{cell.output}.part"
            made.replace(made.with_name(cell.output))
        self._succeed(cell, seconds, process.peak_mb)

    def _succeed(self, cell: Cell, seconds: float, peak_mb: float | None) -> None:
        record = self.store.record(cell)
        total = float(record.get("seconds", 0.0)) + seconds
        peaks = [peak for peak in (record.get("peak_memory_mb"), peak_mb) if peak]
        self.store.note(
            cell,
            state="done",
            ended=run_folder.now(),
            seconds=round(total, 2),
            peak_memory_mb=max(peaks, default=None),
        )
        self.ending.done.append(cell.name)
        self._log(event="done", cell=cell.name, seconds=round(seconds, 1))
        self.finished(cell)
        if cell.kind == "grid":
            self.plan = self.replan()
            self._take_over_finished()
        done, total_cells = self._counts()
        self.view.finished(f"Done: {cell.kind} {cell.label}", seconds, done, total_cells)

    def _fail(self, cell: Cell, code: int, seconds: float) -> None:
        total = float(self.store.record(cell).get("seconds", 0.0)) + seconds
        state = "stopped" if code in (130, 143) else "failed"
        self.store.note(cell, state=state, exit_code=code, seconds=round(total, 2))
        self._log(event=state, cell=cell.name, exit_code=code, seconds=round(seconds, 1))
        log = self.store.log(cell)
        self.ending.failed[cell.name] = (code, log)
        self.view.warn(f"{cell.kind} {cell.label} ended with {code}: {last_words(log)} ({log})")

    def _look(self) -> None:
        """Show how far the processes are."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for process in self.running.values():
            if process.cell.steps:
                process.step = last_step(self.store.path(process.cell)) or process.step
            self.view.at(process.cell.name, process.step)

    # Stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Let every process save and end; a second signal ends them at once."""
        if self.running:
            self.view.say(f"Stopping: {len(self.running)} processes save what they have ...")
        for process in self.running.values():
            _send(process, signal.SIGINT)
        pressed = 0
        while self.running:
            try:
                time.sleep(POLL_SECONDS)
                for process in list(self.running.values()):
                    code = _ended(process)
                    if code is not None:
                        self._note_stopped(process, code)
            except KeyboardInterrupt:
                pressed += 1
                for process in self.running.values():
                    _send(process, signal.SIGTERM if pressed == 1 else signal.SIGKILL)

    def _note_stopped(self, process: Process, code: int) -> None:
        """A process that was asked to end; one that was through already is done."""
        cell = process.cell
        if code == 0:
            self._finish_quietly(process)
            return
        del self.running[cell.name]
        self.view.ended(cell.name)
        for stream in process.streams:
            stream.close()
        seconds = float(self.store.record(cell).get("seconds", 0.0))
        spent = seconds + time.monotonic() - process.begun
        self.store.note(cell, state="stopped", exit_code=code, seconds=round(spent, 2))
        self._log(event="stopped", cell=cell.name, exit_code=code)

    def _finish_quietly(self, process: Process) -> None:
        """As `_close`, but what `finished` says no longer matters."""
        told, self.finished = self.finished, lambda cell: None
        try:
            self._close(process, 0)
        finally:
            self.finished = told

    def _log(self, **entry: Any) -> None:
        RunFolder(self.store.folder).log(time=run_folder.now(), **entry)


# Processes ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list of the signals that ask us to stop; a second one is a KeyboardInterrupt."""
    received: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.child.send_signal(number)


def _ended(process: Process) -> int | None:
    """Exit code of a process that has ended (143 after SIGTERM, as shells say); its peak memory."""
    child = process.child
    if not hasattr(os, "wait4"):
        return child.poll()
    if child.returncode is None:
        try:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        except ChildProcessError:
            return child.poll()
        if not pid:
            return None
        child.returncode = os.waitstatus_to_exitcode(status)
        unit = 2**20 if sys.platform == "darwin" else 2**10
        process.peak_mb = round(usage.ru_maxrss / unit)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _threads(jobs: int) -> Mapping[str, str]:
    """Processes side by side share the cores."""
    if jobs < 2:
        return {}
    each = str(max(1, (os.cpu_count() or 1) // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {name: os.environ.get(name, each) for name in names}


def last_step(run: Path) -> int | None:
    """The step that a run has logged last."""
    path = run / "log.jsonl"
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 8192))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, AttributeError):
            step = json.loads(line).get("step")
            if step is not None:
                return int(step)
    return None


def last_words(log: Path) -> str:
    """What a process said before it ended."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "no output"
    said = [line for line in lines if line.strip() and not line.startswith("$ ")]
    told: Sequence[str] = [line for line in said if line.startswith("Error: ")] or said
    return " ".join(told[-1:])[:500] or "no output"
