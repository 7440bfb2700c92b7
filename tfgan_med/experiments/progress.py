"""What a person sees while an experiment runs: bars at a terminal, a line per event elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tfgan_med.training.progress import duration


class View:
    """Progress on stderr over all cells, and one bar for each that runs.

    Args:
        quiet: say nothing but warnings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun = time.monotonic()
        self._worked = 0

    def say(self, text: str) -> None:
        """A line about what happens."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A line that is shown even when quiet."""
        self.console.print(f"Warning: {text}", markup=False)

    def start(self, counts: tuple[int, int]) -> None:
        """Begin with so many cells done, of so many."""
        done, total = counts
        if done:
            self.say(f"{done} of {total} cells are there already.")
        self._begun = time.monotonic()
        if self.quiet or not sys.stderr.isatty():
            return
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self._all = self._bars.add_task("Cells", total=max(1, total), completed=done, note="")
        self._bars.start()

    def began(self, name: str, title: str, steps: int | None) -> None:
        """A process has begun; with steps, it can tell how far it is."""
        if self._bars:
            self._tasks[name] = self._bars.add_task(f"  {title}", total=steps or 1, note="")

    def at(self, name: str, step: int) -> None:
        """How far a process is."""
        if self._bars and name in self._tasks:
            self._bars.update(self._tasks[name], completed=step)

    def ended(self, name: str) -> None:
        """A process has ended."""
        if self._bars and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))

    def finished(self, text: str, seconds: float, done: int, total: int) -> None:
        """A cell is done."""
        self._worked += 1
        left = self._left(total - done)
        self.say(f"{text} in {duration(seconds)} ({done} of {total}{left})")
        if self._bars:
            self._bars.update(self._all, completed=done, total=total, note=left.strip(", "))

    def _left(self, cells: int) -> str:
        """Remaining time, if the next cells take as long as those so far."""
        if cells <= 0:
            return ""
        each = (time.monotonic() - self._begun) / self._worked
        return f", about {duration(cells * each)} left"

    def stop(self) -> None:
        """Leave the bars as they stand."""
        if self._bars:
            self._bars.stop()
            self._bars = None
