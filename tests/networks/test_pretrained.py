"""Weights are found, checked, imported whole or not at all, and fetched only when asked."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tfgan_med.errors import MissingWeightsError, UserError
from tfgan_med.networks import inception, pretrained
from tfgan_med.networks.pretrained import Source, Weights

CONTENT = bytes(range(256)) * 40
NAME = "vgg16"


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TFGAN_MED_WEIGHTS", raising=False)
    return tmp_path / "cache" / "weights"


def publish(monkeypatch: pytest.MonkeyPatch, *sources: Source) -> Weights:
    """Make `vgg16` a small file of ours."""
    weights = replace(pretrained.REGISTRY[NAME], sources=sources)
    monkeypatch.setitem(pretrained.REGISTRY, NAME, weights)
    return weights


def source(url: str = "http://127.0.0.1:9/file.h5", content: bytes = CONTENT) -> Source:
    return Source("file.h5", len(content), "sha256", hashlib.sha256(content).hexdigest(), url)


# Finding ------------------------------------------------------------------------------------------


def test_missing_weights_are_answered_with_file_checksum_and_ways(empty_store: Path) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        pretrained.locate("inception-2015")
    message = str(caught.value)
    for needed in (
        "pt_inception-2015-12-05-6726825d.pth",
        "sha256 6726825d",
        "classify_image_graph_def.pb",
        "tfgan-med weights import inception-2015 --download",
        "--weights FILE",
        "--features FILE",
        str(empty_store),
    ):
        assert needed in message
    assert caught.value.exit_code == 1
    assert caught.value.weights == "inception-2015"


def test_torchvision_files_carry_the_beginning_of_their_checksum() -> None:
    for name in ("lpips-alex", "lpips-vgg", "lpips-squeeze"):
        (only,) = pretrained.REGISTRY[name].sources
        assert only.file.endswith(f"-{only.digest[:8]}.pth")
        assert len(only.digest) == 64
        assert only.url.endswith(only.file)


@pytest.mark.parametrize(
    "name", ["squeezenet", "lpips-alex-linear", "lpips-vgg-linear", "lpips-squeeze-linear"]
)
def test_small_published_files_are_known_by_checksum_and_size(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_WEIGHTS", str(shared / "weights"))
    path = pretrained.locate(name)
    assert path.parent == shared / "weights"
    assert path.stat().st_size == pretrained.REGISTRY[name].sources[0].size
    brought = tmp_path / "brought"
    brought.write_bytes(path.read_bytes())
    assert pretrained.import_file(name, brought).name == path.name


def test_the_size_of_a_small_file_is_not_said_to_be_0_megabytes() -> None:
    (linear,) = pretrained.describe("lpips-alex-linear")["files"]
    (trunk,) = pretrained.describe("lpips-alex")["files"]
    assert (linear["megabytes"], trunk["megabytes"]) == (0.01, 244)


def test_the_users_folder_is_looked_at_before_the_cache(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, source())
    for folder in (empty_store, tmp_path / "own"):
        folder.mkdir(parents=True)
        (folder / "file.h5").write_bytes(CONTENT)
    assert pretrained.locate(NAME) == empty_store / "file.h5"
    monkeypatch.setenv("TFGAN_MED_WEIGHTS", str(tmp_path / "own"))
    assert pretrained.locate(NAME) == tmp_path / "own" / "file.h5"


def test_a_file_found_with_another_checksum_is_refused(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, source())
    empty_store.mkdir(parents=True)
    (empty_store / "file.h5").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="expected"):
        pretrained.locate(NAME)
    assert pretrained.describe(NAME)["state"] == "damaged"


def test_a_file_of_the_user_is_taken_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.h5"
    own.write_bytes(b"x")
    assert pretrained.vgg16_weights(own) == own
    with pytest.raises(UserError, match=r"none\.h5: no such file"):
        pretrained.vgg16_weights(tmp_path / "none.h5")


def test_unknown_weights_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"vgg19: unknown weights\. Known: inception-2015"):
        pretrained.locate("vgg19")


# Importing ----------------------------------------------------------------------------------------


def test_a_published_file_is_copied_and_then_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, source())
    brought = tmp_path / "brought.h5"
    brought.write_bytes(CONTENT)
    stored = pretrained.import_file(NAME, brought)
    assert stored.read_bytes() == CONTENT
    assert pretrained.locate(NAME) == stored
    assert pretrained.describe(NAME)["state"] == "ready"
    assert pretrained.import_file(NAME, stored) == stored  # again, from where it is


def test_a_wrong_file_is_not_imported(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, source())
    brought = tmp_path / "brought.h5"
    brought.write_bytes(b"something else")
    with pytest.raises(UserError, match="14 bytes, expected 10240"):
        pretrained.import_file(NAME, brought)
    assert list(empty_store.iterdir()) == []


def test_inception_is_refused_when_its_checksum_is_not_the_published_one(shared: Path) -> None:
    with pytest.raises(UserError, match="expected 6726825d0af5f729"):
        pretrained.import_file("inception-2015", shared / "weights/lpips-v0.1-lin-vgg.pth")


def test_inception_becomes_one_npz_with_names_and_the_checksum_of_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a frozen graph with the names of the real one, inside an archive as it is published."""
    import tensorflow as tf

    shapes = inception.state_shapes()
    graph = tf.Graph()
    with graph.as_default():
        for scope, name in inception.graph_scopes().items():
            out, inputs, height, width = shapes[f"{name}.conv.weight"]
            constant(f"{scope}/conv2d_params", (height, width, inputs, out))
            for part in ("beta", "gamma", "moving_mean", "moving_variance"):
                constant(f"{scope}/batchnorm/{part}", (out,))
        constant("softmax/weights", (2048, 1008))
        constant("softmax/biases", (1008,))
    data = graph.as_graph_def().SerializeToString()
    digest = hashlib.sha256(data).hexdigest()
    member = "classify_image_graph_def.pb"
    known = replace(
        pretrained.REGISTRY["inception-2015"],
        sources=(
            Source(member, len(data), "sha256", digest, ""),
            Source("i.tgz", len(data), "sha256", digest, "", member=member),
        ),
    )
    monkeypatch.setitem(pretrained.REGISTRY, "inception-2015", known)
    archive = tmp_path / "i.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        add(tar, "../../escaped.txt", b"outside")
        add(tar, member, data)

    stored = pretrained.import_file("inception-2015", archive)
    state, origin = pretrained.read_inception(stored)
    assert stored.name == "inception-2015.npz"
    assert origin == digest
    assert {name: values.shape for name, values in state.items()} == shapes
    assert pretrained.locate("inception-2015") == stored
    assert not list(tmp_path.parent.glob("**/escaped.txt"))

    (tmp_path / member).write_bytes(data)
    again, _ = pretrained.read_inception(tmp_path / member)
    np.testing.assert_array_equal(again["fc.bias"], state["fc.bias"])


def constant(name: str, shape: tuple[int, ...]) -> None:
    """A constant that takes no room in the file: one number for all."""
    import tensorflow as tf

    tf.constant(0.25, tf.float32, shape, name=name)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def test_an_archive_without_the_graph_or_with_a_link_in_its_place_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "i.tgz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("classify_image_graph_def.pb")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match="without the expected member"):
        pretrained.import_file("inception-2015", path)


# Downloading, from this machine -------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Serves the content, all of it or cut off, or something else."""

    def do_GET(self) -> None:
        if self.path == "/gone.h5":
            self.send_error(404)
            return
        body = b"another file" if self.path == "/wrong.h5" else CONTENT
        if self.path == "/endless.h5":
            body = CONTENT * 50
        self.send_response(200)
        if self.path != "/endless.h5":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:5000] if self.path == "/cut.h5" else body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_stored_and_reported(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, source(f"{address}/file.h5"))
    seen: list[tuple[int, int]] = []
    stored = pretrained.download(NAME, lambda here, total: seen.append((here, total)))
    assert stored.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("wrong.h5", "expected"),
        ("cut.h5", "cut off after 5000 of 10240"),
        ("gone.h5", "404"),
        ("endless.h5", "more than 20480 bytes"),
    ],
)
def test_a_failed_download_leaves_nothing_behind(
    address: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    publish(monkeypatch, source(f"{address}/{path}"))
    with pytest.raises(MissingWeightsError, match=reason):
        pretrained.download(NAME)
    assert list(empty_store.iterdir()) == []


def test_the_next_source_is_tried(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, source(f"{address}/wrong.h5"), source(f"{address}/file.h5"))
    assert pretrained.download(NAME).read_bytes() == CONTENT


def test_without_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    publish(monkeypatch, source(f"http://127.0.0.1:{port}/file.h5"))
    with pytest.raises(MissingWeightsError, match=r"no connection .* on another machine"):
        pretrained.download(NAME)


def test_looking_for_weights_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in pretrained.REGISTRY:
        assert pretrained.describe(name)["state"] == "missing"
        with pytest.raises(MissingWeightsError):
            pretrained.locate(name)
