"""Files in folders, zip and tar archives, read one by one; an archive chooses no name on disk.

An archive with absolute names, `..`, links, devices or members that grow beyond measure is refused
as a whole: no published set has these.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tfgan_med.data import listing
from tfgan_med.errors import DataError, UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

MOST_MEMBERS = 1_000_000
MOST_BYTES = 2**30  # of one member
MOST_RATIO = 200  # bytes out per byte in; pictures are compressed already
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError),
    NotImplementedError,  # a way of packing that Python does not know
)
_SMALL = 2**26  # bytes that harm nobody, whatever the ratio


@dataclass(frozen=True)
class Member:
    """A file in an archive or a folder.

    Attributes:
        path: POSIX path in there; relative, without `..`.
        size: in bytes, as declared.
        place: archive and position in it; reading in this order is fastest.
        open: gives its bytes.
    """

    path: str
    size: int
    place: tuple[int, int]
    open: Callable[[], IO[bytes]] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folders(self) -> tuple[str, ...]:
        """The parts of the path before the name."""
        return tuple(self.path.split("/")[:-1])

    def read(self) -> bytes:
        """All bytes.

        Raises:
            DataError: damaged, or longer than declared.
        """
        return b"".join(self._blocks())

    def copy_to(self, path: Path) -> None:
        """Write the bytes to a new file.

        Raises:
            DataError: as `read`.
        """
        with path.open("xb") as out:
            for block in self._blocks():
                out.write(block)

    def _blocks(self) -> Iterator[bytes]:
        here = 0
        try:
            with self.open() as stream:
                while block := stream.read(2**20):
                    here += len(block)
                    if here > self.size:
                        raise DataError(f"{self.path}: is longer than its archive says. Refused.")
                    yield block
        except (*_DAMAGE, ValueError) as error:
            raise DataError(
                f"{self.path}: cannot be read from its archive ({error}). Fetch the archive again, "
                "or unpack it and give the folder."
            ) from None
        if here != self.size:
            raise DataError(
                f"{self.path}: ends after {here} of {self.size} bytes. Fetch the archive again."
            )


@contextlib.contextmanager
def opened(paths: Sequence[Path]) -> Iterator[list[Member]]:
    """The files of folders and archives; archives directly inside a given folder count too.

    Args:
        paths: folders, `.zip`, `.tar`, `.tar.gz` or `.tgz` files.
    Raises:
        UserError: nothing there, or no archive.
        DataError: damaged, or refused as dangerous.
    """
    members: list[Member] = []
    with contextlib.ExitStack() as stack:
        for number, path in enumerate(_sources(paths)):
            if path.is_dir():
                members += _of_folder(path, number)
            elif path.name.lower().endswith(".zip"):
                members += _of_zip(path, number, stack)
            else:
                members += _of_tar(path, number, stack)
        yield [m for m in members if not any(map(listing.is_hidden, m.path.split("/")))]


def _sources(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: no such folder or archive. Give the downloaded files (.zip, .tar.gz) or "
                "the folder they were unpacked to."
            )
        if path.is_file() and not _is_archive(path):
            raise UserError(
                f"{path}: is no archive that can be read; {', '.join(SUFFIXES)} can. Unpack it and "
                "give the folder."
            )
        found.append(path)
        if path.is_dir():
            found += sorted(inside for inside in path.iterdir() if _is_archive(inside))
    return found


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _of_folder(root: Path, number: int) -> Iterator[Member]:
    place = 0
    for folder, below, names in os.walk(root):  # does not follow links to folders
        below.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() and not listing.inside(root, path):
                raise DataError(
                    f"{path.relative_to(root).as_posix()}: a link that leads out of {root} or "
                    "nowhere. Copy the file into the folder."
                )
            if not path.is_file() or _is_archive(path):
                continue
            relative = path.relative_to(root).as_posix()
            yield Member(relative, path.stat().st_size, (number, place), _opener(path))
            place += 1


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _of_zip(path: Path, number: int, stack: contextlib.ExitStack) -> Iterator[Member]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except _DAMAGE as error:
        raise DataError(f"{path}: no readable zip archive ({error}). Fetch it again.") from None
    infos = archive.infolist()
    _check_count(path, len(infos))
    for place, info in enumerate(infos):
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _refused(path, info.filename, "is a link")
        if info.flag_bits & 1:
            raise _refused(path, info.filename, "is encrypted")
        _check_size(path, info.filename, info.file_size, info.compress_size)

        def open_(info: zipfile.ZipInfo = info) -> IO[bytes]:
            return archive.open(info)

        yield Member(_safe(path, info.filename), info.file_size, (number, place), open_)


def _of_tar(path: Path, number: int, stack: contextlib.ExitStack) -> Iterator[Member]:
    total, packed = 0, path.stat().st_size
    try:
        archive = stack.enter_context(tarfile.open(path))  # noqa: SIM115
        for place, entry in enumerate(archive):
            _check_count(path, place)
            if entry.isdir():
                continue
            if not entry.isreg():
                raise _refused(path, entry.name, "is a link or a device")
            total += entry.size
            _check_size(path, entry.name, entry.size, entry.size)
            if total > max(_SMALL, MOST_RATIO * packed):
                raise _refused(path, entry.name, "makes the archive grow beyond measure")

            def open_(entry: tarfile.TarInfo = entry) -> IO[bytes]:
                stream = archive.extractfile(entry)
                assert stream is not None, "a regular file"
                return stream

            yield Member(_safe(path, entry.name), entry.size, (number, place), open_)
    except _DAMAGE as error:
        raise DataError(f"{path}: no readable tar archive ({error}). Fetch it again.") from None


def _safe(archive: Path, name: str) -> str:
    """A member's name as a relative POSIX path."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    absolute = not parts or parts[0] == "" or parts[0].endswith(":")
    if absolute or ".." in parts or not name.isprintable():
        raise _refused(archive, name, "would lie outside of the folder it is unpacked to")
    return "/".join(part for part in parts if part)


def _check_count(archive: Path, count: int) -> None:
    if count > MOST_MEMBERS:
        raise DataError(f"{archive}: holds more than {MOST_MEMBERS} files. Refused.")


def _check_size(archive: Path, name: str, size: int, packed: int) -> None:
    if size > MOST_BYTES:
        raise _refused(archive, name, f"is {size} bytes long, more than {MOST_BYTES}")
    if size > max(_SMALL, MOST_RATIO * packed):
        raise _refused(archive, name, f"grows from {packed} to {size} bytes")


def _refused(archive: Path, name: str, why: str) -> DataError:
    shown = name if name.isprintable() else ascii(name)
    return DataError(
        f"{archive}: {shown} {why}. No published set has such files, so the archive was not used. "
        "Fetch it from its source."
    )
