"""Stopping on a signal: the step under way ends first, and everything is saved."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):  # noqa: N818 - not an error
    """The user or the system asked the run to stop; everything is saved.

    Attributes:
        exit_code: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by signal {number} at step {step}")
        self.exit_code = 128 + number
        self.step = step


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGINT or SIGTERM, so that the step under way ends first.

    A second signal stops at once, as without this.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
