"""Puts the commands together, no logic."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import tfgan_med
from tfgan_med.errors import UserError

from . import (
    check,
    common,
    data,
    describe,
    doctor,
    evaluate,
    experiment,
    export,
    generate,
    predict,
    quiet,
    select,
    train,
    translate,
    weights,
)

app = typer.Typer(
    name="tfgan-med",
    help="Train GANs on small image sets and measure whether the images they make help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tfgan-med {tfgan_med.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train GANs on small image sets and measure whether the images they make help."""


app.command()(check.check)
app.command()(train.train)
app.command()(translate.translate)
app.command()(generate.generate)
app.command()(predict.predict)
app.command()(export.export)
app.command("list")(describe.list_names)
app.command()(describe.describe)
app.command()(doctor.doctor)
app.add_typer(data.app)
app.add_typer(evaluate.app)
app.add_typer(experiment.app)
app.add_typer(select.app)
app.add_typer(weights.app)


def main() -> None:
    """Run the command line; mistakes become one message and an exit code, not a traceback."""
    debug = "--debug" in sys.argv
    if not debug:
        common.silence_tensorflow()
        quiet.hush_import("tensorflow")
    try:
        app()
    except UserError as error:
        if debug:
            raise
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:  # Typer ends with 1 when the reader of a pipe, such as `head`, left
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"Error: {_explain(error)}", err=True)
        sys.exit(1)


def _explain(error: Exception) -> str:
    missing = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing and missing != "tfgan_med":
        return (
            f"this command needs the package {missing}, which is not installed. "
            "`tfgan-med doctor` lists what is missing and how to install it."
        )
    return (
        f"{type(error).__name__}: {error}. This is not a known mistake of yours; "
        "run the command again with --debug and report what it prints."
    )
