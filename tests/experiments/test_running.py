"""Cells as processes: order, failure, stopping, going on; the command line's own processes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tfgan_med.errors import DataError
from tfgan_med.experiments import running
from tfgan_med.experiments.cells import Cell, Kind, Store, key_of
from tfgan_med.experiments.planning import Plan
from tfgan_med.experiments.progress import View
from tfgan_med.experiments.running import Ending, Runner, last_step, last_words


def cell(label: str, *arguments: str, needs: Sequence[Cell] = (), kind: Kind = "measure") -> Cell:
    """A cell that is a quick command, whose output it keeps."""
    return Cell(
        kind,
        label,
        key_of(kind, {"arguments": arguments}, needs),
        needs=tuple(need.name for need in needs),
        command=lambda folder: list(arguments),
        output="said.txt",
    )


def plan_of(*cells: Cell) -> Plan:
    return Plan(cells, {}, {}, (), (), {}, 0)


def work(folder: Path, *cells: Cell, jobs: int = 1, **options: Any) -> Ending:
    folder.mkdir(exist_ok=True)
    return Runner(Store(folder), lambda: plan_of(*cells), jobs, View(quiet=True), **options).run()


def test_what_a_cell_prints_is_kept_and_the_same_cell_is_never_run_twice(tmp_path: Path) -> None:
    one = cell("models", "list", "models")
    first = work(tmp_path, one)
    assert first.done == [one.name] and not first.failed
    store = Store(tmp_path)
    said = store.path(one) / "said.txt"
    assert "pix2pix" in said.read_text()
    record = store.record(one)
    assert record["state"] == "done" and record["attempts"] == 1
    assert record["seconds"] > 0 and record["peak_memory_mb"] > 5
    before = said.stat().st_mtime_ns
    second = work(tmp_path, one)
    assert (second.done, second.reused) == ([], [one.name])
    assert said.stat().st_mtime_ns == before
    assert store.record(one) == record


def test_a_cell_begins_when_what_it_needs_is_done(tmp_path: Path) -> None:
    seen: list[str] = []

    def job(label: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            seen.append(label)
            folder.mkdir()

        return make

    a = Cell("generate", "a", "a" * 64, job=job("a"))
    b = Cell("generate", "b", "b" * 64, needs=(a.name,), job=job("b"))
    ending = work(tmp_path, b, a)
    assert seen == ["a", "b"] and ending.done == [a.name, b.name]


def test_a_failed_cell_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    bad = cell("bad", "check", str(tmp_path / "nowhere"))
    after = cell("after", "list", "models", needs=[bad])
    other = cell("other", "list", "metrics")
    ending = work(tmp_path, bad, after, other, jobs=2)
    assert ending.done == [other.name]
    assert ending.blocked == [after.name]
    code, log = ending.failed[bad.name]
    assert code == 2
    assert "nowhere: no such folder" in last_words(log)
    assert Store(tmp_path).record(bad)["state"] == "failed"
    # The next start tries it again, and finds the other one done.
    again = work(tmp_path, bad, after, other)
    assert again.reused == [other.name] and set(again.failed) == {bad.name}
    assert Store(tmp_path).record(bad)["attempts"] == 2


def test_a_job_that_cannot_do_its_work_is_a_failed_cell(tmp_path: Path) -> None:
    def job(folder: Path) -> None:
        raise DataError("masks/a.png: gone. Restore it.")

    one = Cell("generate", "a", "a" * 64, job=job)
    ending = work(tmp_path, one)
    assert last_words(ending.failed[one.name][1]) == "Error: masks/a.png: gone. Restore it."


def test_who_objects_to_a_finished_cell_stops_everything(tmp_path: Path) -> None:
    one, two = cell("one", "list", "models"), cell("two", "list", "metrics")

    def object_to(done: Cell) -> None:
        raise DataError(f"violated by {done.label}")

    with pytest.raises(DataError, match="violated by one"):
        work(tmp_path, one, two, finished=object_to)
    assert not Store(tmp_path).is_done(two)
    with pytest.raises(DataError, match="violated by one"):  # what is reused is looked at too
        work(tmp_path, one, two, finished=object_to)


def test_the_plan_is_asked_again_when_a_grid_search_ends(tmp_path: Path) -> None:
    point = cell("point", "list", "models", kind="grid")
    arm = cell("arm", "list", "metrics", kind="arm")
    store = Store(tmp_path)

    def replan() -> Plan:
        return plan_of(*([point, arm] if store.is_done(point) else [point]))

    assert Runner(store, replan, 1, View(quiet=True)).run().done == [point.name, arm.name]


def test_a_signal_stops_all_processes_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """`generate`-like commands end with 130; here Python itself is interrupted while it loads."""
    slow = cell("slow", "doctor")
    store = Store(tmp_path)

    def interrupt() -> None:
        while store.record(slow).get("state") != "running" or not store.log(slow).exists():
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    ending = work(tmp_path, slow, cell("never", "list", "models"))
    thread.join()
    assert ending.signal == signal.SIGINT
    assert ending.done == [] and ending.failed == {}
    assert store.record(slow)["state"] == "stopped"
    assert signal.getsignal(signal.SIGINT) is before
    assert work(tmp_path, cell("never", "list", "models")).done


def test_a_cell_that_an_orphan_still_works_on_is_waited_for(tmp_path: Path) -> None:
    one = cell("one", "list", "models")
    store = Store(tmp_path)
    store.path(one).mkdir(parents=True)
    store.note(one, state="running")
    lock = store.path(one) / "lock"
    lock.write_text(json.dumps({"pid": os.getppid(), "host": os.uname().nodename}))
    threading.Timer(1.0, lock.unlink).start()
    begin = time.monotonic()
    assert work(tmp_path, one).done == [one.name]
    assert time.monotonic() - begin > 0.9


def test_processes_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert running._threads(1) == {}
    assert running._threads(4)["OMP_NUM_THREADS"] == "2"


def test_the_last_step_is_read_from_the_end_of_the_log(tmp_path: Path) -> None:
    assert last_step(tmp_path) is None
    lines = [json.dumps({"step": step, "losses": {"loss": 0.5}}) for step in range(2000)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"event": "warning"}', '{"step": 2']))
    assert last_step(tmp_path) == 1999
