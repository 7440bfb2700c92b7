"""Pretrained weights: which files are known, where they are looked for, and getting them here.

Files are looked for in the folder `TFGAN_MED_WEIGHTS`, then in `weights` of the cache folder.
Nothing is fetched unless `download` is called, and every known file is checked before use.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.errors import MissingWeightsError, UserError

State = dict[str, npt.NDArray[Any]]
Progress = Callable[[int, int], None]  # bytes here, bytes in all

_TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
        file: its name.
        size: of the file in bytes; of the member if there is one.
        algorithm, digest: checksum of the file, of the member if there is one.
        url: where it is published.
        member: name inside the archive.
    """

    file: str
    size: int
    algorithm: Literal["sha256", "md5"]
    digest: str
    url: str
    member: str | None = None


@dataclass(frozen=True)
class Weights:
    """A set of weights that can come from several files.

    Attributes:
        about: what they are for, in a line.
        licence: of the published file.
        stored: file name in our cache folder.
        sources: the published files, the preferred one first.
        instead: what to do without them.
    """

    about: str
    licence: str
    stored: str
    sources: tuple[Source, ...]
    instead: str


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_GRAPH = "classify_image_graph_def.pb"
_GRAPH_SHA256 = "009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6"
_PORT_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

REGISTRY: dict[str, Weights] = {
    "inception-2015": Weights(
        about="Inception-v3 of 2015, the network of FID, KID and the Inception Score",
        licence="Apache-2.0",
        stored="inception-2015.npz",
        sources=(
            Source(
                "pt_inception-2015-12-05-6726825d.pth",
                95_628_359,
                "sha256",
                _PORT_SHA256,
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
            ),
            Source(  # the same bytes
                "weights-inception-2015-12-05-6726825d.pth",
                95_628_359,
                "sha256",
                _PORT_SHA256,
                "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                "weights-inception-2015-12-05-6726825d.pth",
            ),
            Source(
                _GRAPH,
                95_673_916,
                "sha256",
                _GRAPH_SHA256,
                "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/"
                "classify_image_graph_def.pb",
            ),
            Source(
                "inception-2015-12-05.tgz",
                95_673_916,
                "sha256",
                _GRAPH_SHA256,
                "https://storage.googleapis.com/download.tensorflow.org/models/image/imagenet/"
                "inception-2015-12-05.tgz",
                member=_GRAPH,
            ),
        ),
        instead="--features FILE takes another network; its values are named after it.",
    ),
    "inception-keras": Weights(
        about="Inception-v3 of keras.applications (ImageNet); --protocol keras, never FID",
        licence="Apache-2.0",
        stored="inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        sources=(
            Source(
                "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
                87_910_968,
                "md5",
                "bcbd6486424b2319ff4ef7d526e38f63",
                f"{_KERAS}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
        ),
        instead="--features FILE takes another network; its values are named after it.",
    ),
    "vgg16": Weights(
        about="VGG16 of keras.applications (ImageNet, no top) for the perceptual loss",
        licence="CC BY 4.0 (Oxford VGG), converted by Keras",
        stored="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        sources=(
            Source(
                "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                58_889_256,
                "md5",
                "6d6bbae143d832006294945121d1f1fc",
                f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
        ),
        instead="the L1 loss needs none of them.",
    ),
}


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


def locate(name: str, given: Path | None = None) -> Path:
    """A file with the weights called `name`.

    Args:
        given: a file of the user's, taken as it is; the checks are those of its reader.
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
        raise MissingWeightsError(_missing(name))
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
                "megabytes": round(source.size / 1e6),
                "algorithm": source.algorithm,
                "digest": source.digest,
                "url": source.url,
            }
            for source in weights.sources
        ],
    }


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


def _missing(name: str) -> str:
    weights = REGISTRY[name]
    first = weights.sources[0]
    alternatives = [s for s in weights.sources[1:] if s.digest != first.digest and not s.member]
    others = "".join(f", or {s.file} ({s.algorithm} {s.digest[:8]}...)" for s in alternatives)
    places = " and ".join(str(folder) for folder in folders())
    return (
        f"The weights {name} ({weights.about}) are not on this machine; looked in {places}. "
        f"Needed: {first.file} ({first.size / 1e6:.0f} MB, {first.algorithm} "
        f"{first.digest[:8]}...){others}. With network: tfgan-med weights import {name} "
        "--download. Without: copy the file here and run tfgan-med weights import "
        f"{name} FILE, or add --weights FILE. Meanwhile: {weights.instead}"
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
    """Check a file and put it into the cache folder, Inception as one `.npz`.

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
    if name == "inception-2015":
        state, sha256 = read_inception(path)
        _check_inception(state, path)
        with files.replacing(target) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, sha256=np.array(sha256), **state)
        return target
    verify(name, path)
    if target.exists() and target.samefile(path):
        return target
    with files.replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


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
        return _read_arrays(path)
    source = verify("inception-2015", path)
    if path.suffix == ".pth":
        from tfgan_med.networks.torch_file import read_torch_file

        state = read_torch_file(path)
        return {n: v for n, v in state.items() if v.dtype == np.float32}, source.digest

    from tfgan_med.networks import frozen_graph, inception

    if source.member:
        graph = frozen_graph.parse(_member(_known("inception-2015"), path)[1], source.member)
    else:
        graph = frozen_graph.read_graph(path)
    return inception.state_from_graph(frozen_graph.constants(graph)), source.digest


def is_published(name: str, digest: str) -> bool:
    """Whether a checksum is that of a published file."""
    return any(source.digest == digest for source in _known(name).sources)


def _read_arrays(path: Path) -> tuple[State, str]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            state = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path.name}: no readable .npz ({error}). Import the weights again."
        ) from None
    recorded = state.pop("sha256", None)
    return state, files.sha256_of(path) if recorded is None else str(recorded)


def _check_inception(state: State, path: Path) -> None:
    from tfgan_med.networks import inception

    for name, shape in inception.state_shapes().items():
        found = state[name].shape if name in state else None
        if found != shape:
            raise UserError(
                f"{path.name}: {name} has the shape {found}, the 2015 Inception network {shape}. "
                "This is another network's file."
            )


def _file_names(weights: Weights) -> str:
    return ", ".join(source.file for source in weights.sources)


# Download: the only code of the package that opens a connection -----------------------------------


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
