"""Fetches published archives, only when asked; an interrupted download goes on where it ended."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.errors import DataError

Progress = Callable[[int, int], None]  # bytes here, bytes in all

_TIMEOUT = 30.0  # seconds without an answer
_MOST = 10  # times the announced size, where the server does not say


@dataclass(frozen=True)
class Download:
    """A file that can be fetched without an account.

    Attributes:
        url: its address.
        megabytes: about how large it is.
    """

    url: str
    megabytes: int

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]


def store() -> Path:
    """Folder that archives are downloaded to; they may be deleted once they are imported."""
    return files.cache_dir() / "downloads"


def fetch(wanted: Download, progress: Progress = lambda here, total: None) -> Path:
    """The archive, from the folder of downloads if it is there.

    Raises:
        DataError: it could not be fetched whole; what is here stays for the next try.
    """
    target = store() / wanted.file
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _fetch(wanted, part, progress)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{wanted.url}: could not be fetched ({_reason(error)}). Try again to go on where it "
            "ended, or fetch it in another way and give the file."
        ) from None
    part.replace(target)
    return target


def _fetch(wanted: Download, part: Path, progress: Progress) -> None:
    here = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(wanted.url)
    if here:
        request.add_header("Range", f"bytes={here}-")
    with _answer(request) as answer:
        if here and answer.status != 206:  # the server sends all of it again
            here = 0
        length = int(answer.headers.get("Content-Length") or 0)
        total = here + length if length else 0
        most = total or _MOST * wanted.megabytes * 10**6
        with part.open("ab" if here else "wb") as out:
            while block := answer.read(2**20):
                here += len(block)
                if here > most:
                    raise ValueError(f"sends more than {most} bytes")
                out.write(block)
                progress(here, total or wanted.megabytes * 10**6)
    if total and here != total:
        raise ValueError(f"cut off after {here} of {total} bytes")


def _answer(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # what is here is all, or of another version: begin anew
            raise
        request.remove_header("Range")
        return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    return str(error)
