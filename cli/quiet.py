"""Keeps TensorFlow's start-up chatter off the terminal.

TensorFlow 2.21 logs before its logger reads TF_CPP_MIN_LOG_LEVEL (tensorflow/tensorflow#100442),
from C++ and straight to file descriptor 2, so only a descriptor that leads elsewhere helps.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType


def hush_import(name: str) -> None:
    """Let the first import of the package `name` write nothing to stderr; failures still raise."""
    if name not in sys.modules:
        sys.meta_path.insert(0, _Hush(name))


class _Hush:
    """Finds one package as Python would and wraps the running of its code."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_hushed(module: ModuleType) -> None:
                with stderr_to_nowhere():
                    run(module)

            spec.loader.exec_module = run_hushed  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def stderr_to_nowhere() -> Iterator[None]:
    """Point file descriptor 2 at nothing, for C++ code too."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
