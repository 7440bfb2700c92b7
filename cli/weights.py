"""`tfgan-med weights`: which pretrained weights are here, and getting them here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tfgan_med.errors import UserError

from . import common

app = typer.Typer(
    name="weights",
    help="Show and import pretrained weights.",
    no_args_is_help=True,
)


@app.callback()
def weights() -> None:
    """Show and import pretrained weights."""


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(help="Weights to describe in full. [default: a line for each]")
    ] = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Which pretrained weights are on this machine, with their checksums.

    Looks in the folder TFGAN_MED_WEIGHTS, then in the cache folder; opens no connection.

    What is here:

        tfgan-med weights status

    Files, checksums and addresses of one network:

        tfgan-med weights status inception-2015
    """
    from tfgan_med.networks import pretrained

    names = list(pretrained.REGISTRY) if name is None else [name]
    entries = [pretrained.describe(known) for known in names]
    width = max(len(known) for known in names)
    for entry in entries:
        common.emit(entry, _text(entry) if name else _line(entry, width), as_json)
    missing = [entry["name"] for entry in entries if entry["state"] != "ready"]
    common.note(
        f"Next: tfgan-med weights import {missing[0]} FILE, or with network --download."
        if missing
        else "Next: tfgan-med evaluate fid.",
        quiet,
    )


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name as in `weights status`.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The published file, copied here.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch it from where it is published.")
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Check weights and put them into the cache folder.

    A file with another checksum than the published one is refused. PyTorch files are read without
    PyTorch, and nothing in them is run.

    A file brought to a machine without network:

        tfgan-med weights import inception-2015 pt_inception-2015-12-05-6726825d.pth

    With network:

        tfgan-med weights import inception-2015 --download
    """
    from tfgan_med.networks import pretrained

    if (file is None) == (not download):
        raise UserError(
            f"Give either the file or --download. Known weights: {', '.join(pretrained.REGISTRY)}."
        )
    if file is not None:
        common.load_tensorflow()  # to read a frozen graph and to know the network's shapes
        pretrained.import_file(name, file)
    else:
        fetch(name, quiet)
    entry = pretrained.describe(name)
    common.emit(entry, _text(entry), as_json)
    common.note(f"Next: tfgan-med {_purpose(name)}.", quiet)


def _purpose(name: str) -> str:
    """A command that needs these weights."""
    if name.startswith("lpips-"):
        return "evaluate lpips"
    return {
        "vgg16": "train pix2pix with the perceptual loss",
        "vgg16-top": "evaluate prdc --features vgg16",
        "squeezenet": "evaluate all --features squeezenet",
        "inception-keras": "evaluate fid --protocol keras",
    }.get(name, "evaluate fid")


def fetch(name: str, quiet: bool) -> None:
    """Download weights with a progress bar; says to where the connection goes."""
    from tfgan_med.networks import pretrained

    common.load_tensorflow()
    if name in pretrained.REGISTRY:
        source = pretrained.REGISTRY[name].sources[0]
        common.note(f"Downloading {source.url} ({source.size / 1e6:.0f} MB)", quiet)
    with common.counting(name, 1, quiet) as progress:
        pretrained.download(name, progress)


def _line(entry: dict[str, Any], width: int) -> str:
    """Name, state, size and purpose; why a damaged file is one."""
    size = f"{entry['files'][0]['megabytes']:.3g} MB"
    line = f"{entry['name']:<{width}}  {entry['state']:<7}  {size:>8}  {entry['about']}"
    return f"{line}\n  {entry['checksum']}" if entry["state"] == "damaged" else line


def _text(entry: dict[str, Any]) -> str:
    """A paragraph: name, state and purpose; then the file that is here, or those to bring."""
    lines = []
    if entry["path"]:
        lines += [entry["path"], entry["checksum"]]
    for source in entry["files"] if entry["state"] != "ready" else []:
        lines += [f"{source['file']} ({source['megabytes']:.3g} MB)"]
        lines += [f"  {source['algorithm']} {source['digest']}", f"  {source['url']}"]
    lines.append(f"licence: {entry['licence']}")
    title = f"{entry['name']}: {entry['state']}. {entry['about']}."
    return "\n".join([title, *(f"  {line}" for line in lines)])
