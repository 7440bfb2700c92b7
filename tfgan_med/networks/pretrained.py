"""Pretrained weights: where they are looked for, and getting them here.

Files are looked for in the folder `TFGAN_MED_WEIGHTS`, then in `weights` of the cache folder.
Nothing is fetched unless `download` is called, and every known file is checked before use. Which
files are known stands in `weight_registry.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.errors import MissingWeightsError, UserError
from tfgan_med.networks.weight_registry import REGISTRY as REGISTRY
from tfgan_med.networks.weight_registry import Source as Source
from tfgan_med.networks.weight_registry import Weights as Weights

State = dict[str, npt.NDArray[Any]]
Progress = Callable[[int, int], None]  # bytes here, bytes in all

_TIMEOUT = 30.0  # seconds without an answer

# Where weights are --------------------------------------------------------------------------------


def store() -> Path:
    """Folder that imported and downloaded weights go to."""
    return files.cache_dir() / "weights"


def folders() -> list[Path]:
    """Folders that weights are looked for in, in this order."""
    named = os.environ.get("TFGAN_MED_WEIGHTS")
    return [*([Path(named).expanduser()] if named else []), store()]


def find(name: str) -> Path | None:
    """The file that `locate` would take, or None. Checksums are not looked at."""
    weights = _known(name)
    names = [weights.stored, *(source.file for source in weights.sources)]
    for folder in folders():
        for candidate in dict.fromkeys(names):
            if (folder / candidate).is_file():
                return folder / candidate
    return None


def locate(name: str, given: Path | None = None, setting: str | None = None) -> Path:
    """A file with the weights called `name`.

    Args:
        given: a file of the user's, taken as it is; the checks are those of its reader.
        setting: key of the setting that takes such a file or `none`, for the message.
    Raises:
        MissingWeightsError: there is none on this machine; the message says how to get one.
        UserError: the name is unknown, or a file found is not the published one.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: no such file. Give the weights of {name}.")
        return given
    path = find(name)
    if path is None:
        raise MissingWeightsError(_missing(name, setting), name)
    if path.suffix != ".npz":  # written by us from a checked file
        verify(name, path)
    return path


def describe(name: str) -> dict[str, Any]:
    """What is known and here of some weights, as plain values.

    Returns:
        `state` is `ready`, `missing` or `damaged`; `path` and `checksum` of the file that is here;
        `files` that would serve, with checksums and addresses.
    """
    weights = _known(name)
    path = find(name)
    state, checksum = "missing", None
    if path is not None:
        state, checksum = _state_of(name, path)
    return {
        "name": name,
        "state": state,
        "about": weights.about,
        "path": None if path is None else str(path),
        "checksum": checksum,
        "licence": weights.licence,
        "files": [
            {
                "file": source.file,
                "megabytes": _megabytes(source),
                "algorithm": source.algorithm,
                "digest": source.digest,
                "url": source.url,
            }
            for source in weights.sources
        ],
    }


def _megabytes(source: Source) -> float:
    """Whole ones where there is one."""
    size = source.size / 1e6
    return round(size) if size >= 1 else max(round(size, 2), 0.01)


def _state_of(name: str, path: Path) -> tuple[str, str]:
    try:
        if path.suffix != ".npz":
            source = verify(name, path)
            return "ready", f"{source.algorithm} {source.digest}"
        with np.load(path, allow_pickle=False) as stored:
            origin = str(stored["sha256"]) if "sha256" in stored.files else files.sha256_of(path)
        return "ready", f"made from the file with sha256 {origin}"
    except (UserError, OSError, ValueError, EOFError) as error:
        return "damaged", str(error)


def vgg16_weights(given: Path | None = None) -> Path:
    """The VGG16 weight file for the perceptual loss; see `locate`."""
    return locate("vgg16", given)


def _known(name: str) -> Weights:
    if name not in REGISTRY:
        raise UserError(f"{name}: unknown weights. Known: {', '.join(REGISTRY)}.")
    return REGISTRY[name]


def _missing(name: str, setting: str | None) -> str:
    weights = REGISTRY[name]
    first = weights.sources[0]
    alternatives = [s for s in weights.sources[1:] if s.digest != first.digest and not s.member]
    others = "".join(f", or {s.file} ({s.algorithm} {s.digest[:8]}...)" for s in alternatives)
    places = " and ".join(str(folder) for folder in folders())
    option, instead = weights.option and f"{weights.option} FILE", weights.instead
    if setting:
        option = f"--set {setting}=FILE"
        instead = f"--set {setting}=none begins with random weights and trains all of them."
    option = f", or add {option}" if option else ""
    return (
        f"The weights {name} ({weights.about}) are not on this machine; looked in {places}. "
        f"Needed: {first.file} ({_megabytes(first)} MB, {first.algorithm} "
        f"{first.digest[:8]}...){others}. With network: tfgan-med weights import {name} "
        "--download. Without: copy the file here and run tfgan-med weights import "
        f"{name} FILE{option}. Meanwhile: {instead}"
    )


# Checks -------------------------------------------------------------------------------------------


def verify(name: str, path: Path) -> Source:
    """Which published file this is, by its checksum.

    Raises:
        UserError: none of them; the message names both checksums.
    """
    weights = _known(name)
    sources = [s for s in weights.sources if s.member is None]
    if tarfile.is_tarfile(path):
        source, data = _member(weights, path)
        _require_digest(path, source, hashlib.new(source.algorithm, data).hexdigest())
        return source
    found = ""
    for source in sources:
        found = digest_of(path, source.algorithm)
        if found == source.digest:
            return source
    _require_digest(path, _expected(sources, path), found)
    raise AssertionError("unreachable: one of the digests was equal")


def _expected(sources: list[Source], path: Path) -> Source:
    """The source that a file with a wrong checksum was probably meant to be."""
    same = [s for s in sources if s.file == path.name or Path(s.file).suffix == path.suffix]
    return (same or sources)[0]


def digest_of(path: Path, algorithm: str) -> str:
    """Hexadecimal checksum of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _require_digest(path: Path, source: Source, found: str) -> None:
    if found != source.digest:
        raise UserError(
            f"{path.name}: {source.algorithm} {found[:16]}..., expected {source.digest[:16]}... "
            f"({path.stat().st_size} bytes, expected {source.size}). The file is damaged or "
            "another one; it was not used. Fetch it again."
        )


def _member(weights: Weights, path: Path) -> tuple[Source, bytes]:
    """The one member of an archive that is wanted, read into memory; nothing is unpacked."""
    for source in weights.sources:
        if source.member is None:
            continue
        with (
            contextlib.suppress(tarfile.TarError, EOFError, OSError),
            tarfile.open(path) as archive,
        ):
            for entry in archive:
                if entry.name.removeprefix("./") != source.member:
                    continue
                stream = archive.extractfile(entry) if entry.isreg() else None
                if stream is not None and entry.size == source.size:
                    return source, stream.read()
    raise UserError(
        f"{path.name}: an archive without the expected member, or damaged. It was not used."
    )


# Import -------------------------------------------------------------------------------------------


def import_file(name: str, path: Path) -> Path:
    """Check a file and put it into the cache folder.

    Of Inception and torchvision's networks only the tensors that are used are kept, as one `.npz`
    with the checksum of their origin: nine tenths of a torchvision file are its classifier, which
    would have to be read and hashed each time.

    Args:
        path: any of the published files.
    Returns:
        The new file; it is there whole or not at all.
    Raises:
        UserError: no such file, a wrong checksum, or a structure that is not the network's.
    """
    weights = _known(name)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give one of {_file_names(weights)}.")
    target = store() / weights.stored
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".npz":
        state, sha256 = _wanted_tensors(name, path)
        with files.replacing(target) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, sha256=np.array(sha256), **state)
        return target
    verify(name, path)
    if target.exists() and target.samefile(path):
        return target
    with files.replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


def _wanted_tensors(name: str, path: Path) -> tuple[State, str]:
    """The tensors of a published file that its network has, and the checksum of the file."""
    if name == "inception-2015":
        from tfgan_med.networks import inception

        state, sha256 = read_inception(path)
        shapes = inception.state_shapes()
        whose = "the 2015 Inception network"
    else:
        from tfgan_med.networks import torchvision_trunks

        verify(name, path)
        state, sha256 = read_tensors(path)
        trunk = next(trunk for trunk in torchvision_trunks.TRUNKS if name == f"lpips-{trunk}")
        shapes = torchvision_trunks.state_shapes(trunk)
        whose = f"{trunk} of torchvision"

    for tensor, shape in shapes.items():
        found = state[tensor].shape if tensor in state else None
        if found != shape:
            raise UserError(
                f"{path.name}: {tensor} has the shape {found}, {whose} {shape}. "
                "This is another network's file."
            )
    return {tensor: state[tensor] for tensor in shapes}, sha256


def read_inception(path: Path) -> tuple[State, str]:
    """The 2015 Inception weights under their PyTorch names, and the checksum of their origin.

    Args:
        path: the PyTorch port, the frozen graph, the archive with the graph, or our `.npz`.
    Returns:
        Name to array, and the SHA-256 of the published file; for an `.npz` of other origin its own.
    Raises:
        UserError: the checksum is not that of the published file, or it cannot be read.
    """
    if path.suffix == ".npz":
        return read_tensors(path)
    source = verify("inception-2015", path)
    if path.suffix == ".pth":
        state, sha256 = read_tensors(path)
        return {n: v for n, v in state.items() if v.dtype == np.float32}, sha256

    from tfgan_med.networks import frozen_graph, inception

    if source.member:
        graph = frozen_graph.parse(_member(_known("inception-2015"), path)[1], source.member)
    else:
        graph = frozen_graph.read_graph(path)
    return inception.state_from_graph(frozen_graph.constants(graph)), source.digest


def is_published(name: str, digest: str) -> bool:
    """Whether a checksum is that of a published file."""
    return any(source.digest == digest for source in _known(name).sources)


def read_tensors(path: Path) -> tuple[State, str]:
    """Named tensors of a PyTorch file or an `.npz`, whatever they are, and their checksum.

    Returns:
        Name to array, and the SHA-256 of the file; of its origin for an `.npz` of `import_file`.
    Raises:
        UserError: it cannot be read, or holds more than tensors.
    """
    if path.suffix != ".npz":
        from tfgan_med.networks.torch_file import read_torch_file

        return read_torch_file(path), files.sha256_of(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            state = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path.name}: no readable .npz ({error}). Import the weights again."
        ) from None
    recorded = state.pop("sha256", None)
    return state, files.sha256_of(path) if recorded is None else str(recorded)


def _file_names(weights: Weights) -> str:
    return ", ".join(source.file for source in weights.sources)


# Download: this and data/downloads.py are all of the package that opens a connection --------------


def download(name: str, progress: Progress = lambda here, total: None) -> Path:
    """Fetch published weights, check them and import them.

    The sources are tried in turn; a file that was cut off or has another checksum is deleted.

    Args:
        progress: called with the bytes that are here and the bytes in all.
    Returns:
        The imported file.
    Raises:
        MissingWeightsError: no source could be reached or none gave the right file.
    """
    weights = _known(name)
    reasons = []
    for source in weights.sources:
        try:
            with _fetched(source, progress) as path:
                verify(name, path)
                return import_file(name, path)
        except (UserError, OSError) as error:
            reasons.append(f"{source.url.split('/')[2]}: {_reason(error)}")
    raise MissingWeightsError(
        f"{name} could not be downloaded. {' '.join(reasons)} Fetch {weights.sources[0].url} on "
        f"another machine and run tfgan-med weights import {name} FILE."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}."
    if isinstance(error, urllib.error.URLError):
        return f"no connection ({error.reason})."
    return str(error) if isinstance(error, UserError) else f"{error}."


@contextlib.contextmanager
def _fetched(source: Source, progress: Progress) -> Iterator[Path]:
    """A published file in a temporary folder of the store, which is removed afterwards."""
    store().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=store()) as folder:
        path = Path(folder, source.file)
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT) as answer, path.open("wb") as out:
            announced = int(answer.headers.get("Content-Length") or 0)
            total = announced or source.size
            _copy(answer, out, 2 * source.size, lambda here: progress(here, total))
        here = path.stat().st_size
        if announced and here != announced:
            raise UserError(f"cut off after {here} of {announced} bytes.")
        yield path


def _copy(answer: Any, out: io.BufferedWriter, limit: int, report: Callable[[int], None]) -> None:
    here = 0
    while block := answer.read(2**20):
        here += len(block)
        if here > limit:
            raise UserError(f"sends more than {limit} bytes, so it is not the file.")
        out.write(block)
        report(here)
