"""What every command shares: options, results on stdout, messages on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from tfgan_med.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print results as JSON lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results and errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and TensorFlow's messages.")]


def option(text: str, panel: str | None = None, **more: Any) -> Any:
    """An option of a block of them, in its panel of the help."""
    return typer.Option(help=text, rich_help_panel=panel, **more)


def emit(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print one result on stdout: a JSON object on a line, or the text for people."""
    typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False) if as_json else text)


def note(text: str, quiet: bool = False) -> None:
    """Say something on stderr that is not a result: progress, hints, the next command."""
    if not quiet:
        typer.echo(text, err=True)


def may_ask() -> bool:
    """Whether a person can answer: questions are asked at a terminal only."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def silence_tensorflow() -> None:
    """Keep TensorFlow's start-up chatter off the terminal; must run before it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")


def load_tensorflow() -> None:
    """Import TensorFlow before the parts that need it.

    Raises:
        UserError: if it cannot be imported, with the cure.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise UserError(
            f"TensorFlow cannot be imported ({error}). Install it with `python -m pip install "
            "tensorflow`; `tfgan-med doctor` says more."
        ) from None
    tensorflow.get_logger().setLevel("ERROR")  # it warns of functions we mean to trace again


@contextlib.contextmanager
def counting(what: str, total: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over `total` items at a terminal; silent elsewhere. Call it with (done, total)."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
