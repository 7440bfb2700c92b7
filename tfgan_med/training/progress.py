"""What a person sees while a run trains: a bar at a terminal, a line per interval elsewhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Pace:
    """Images per second and remaining time, from the median of the last 200 steps."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._times: deque[float] = deque(maxlen=200)
        self._last: float | None = None

    def tick(self) -> None:
        """Count a step."""
        now = time.perf_counter()
        if self._last is not None:
            self._times.append(now - self._last)
        self._last = now

    def pause(self) -> None:
        """Forget the last step: what follows is not training."""
        self._last = None

    @property
    def step_seconds(self) -> float:
        """Median seconds of a step; 0 before the second one."""
        return statistics.median(self._times) if self._times else 0.0

    @property
    def images_per_second(self) -> float:
        """Training pictures per second; 0 before the second step."""
        return self.batch_size / self.step_seconds if self._times else 0.0


class Reporter:
    """Progress on stderr; results never pass through here.

    Args:
        quiet: say nothing but warnings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None

    def say(self, text: str) -> None:
        """A line about the run."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A line that is shown even when quiet."""
        self.console.print(f"Warning: {text}", markup=False)

    def start(self, total: int, done: int) -> None:
        """Begin to show progress over `total` steps."""
        if self.quiet or not sys.stderr.isatty():
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=False,
        )
        self._task = self._bar.add_task("Training", total=total, completed=done, figures="")
        self._bar.start()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def figures(
        self, step: int, total: int, losses: Mapping[str, float], pace: Pace, memory: float | None
    ) -> None:
        """Losses, speed and remaining time of an interval."""
        if self.quiet:
            return
        left = duration((total - step) * pace.step_seconds)
        values = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text = f"{values}  {pace.images_per_second:.1f} images/s  {left} left"
        if memory is not None:
            text += f"  {memory / 1024:.1f} GB"
        if self._bar:
            self._bar.update(self._task, completed=step, figures=text)
        else:
            self.say(f"step {step}/{total}  {text}")

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 7 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def compact(values: Mapping[str, Any]) -> dict[str, Any]:
    """Floats at six significant digits, for logs."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
