"""Resizing by protocol, frozen graphs, foreign networks: what runs and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.networks import frozen_graph
from tfgan_med.networks.features import foreign, resize, scale

Golden = Mapping[str, npt.NDArray[Any]]

MOBILENET = "weights/mobilenet-v1-0.25-224-imagenet.pb"
POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"

# Protocols ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["up_40x52", "down_360x332"])
@pytest.mark.parametrize(
    ("protocol", "reference", "tolerance"),
    [
        ("ttur", "tf1.bilinear_align_corners_False_sub", 0.0),
        ("ttur", "torchfidelity.tf1_bilinear_sub", 1e-4),
        ("pytorch-fid", "torch.bilinear_halfpixel_sub", 1e-4),
        ("clean", "cleanfid.pil_bicubic_sub", 2e-3),
    ],
)
def test_resizing_equals_that_of_the_original_code(
    golden: Golden, case: str, protocol: str, reference: str, tolerance: float
) -> None:
    image = tf.constant(golden[f"in/resize/{case}/image"][None], tf.float32)
    resized = resize(image, protocol).numpy()[0, ::13, ::13]
    np.testing.assert_allclose(resized, golden[f"ref/resize/{case}/{reference}"], atol=tolerance)


def test_black_and_white_are_scaled_as_each_protocol_does() -> None:
    pixels = tf.constant([0.0, 255.0])
    np.testing.assert_allclose(scale(pixels, "ttur"), [-1.0, 127 / 128])
    np.testing.assert_allclose(scale(pixels, "pytorch-fid"), [-1.0, 1.0])


# Frozen graphs ------------------------------------------------------------------------------------


def pictures(count: int, side: int = 48) -> list[npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)]


def test_mobilenet_gives_the_same_features_in_batches_of_1_7_and_64(shared: Path) -> None:
    network = foreign(shared / MOBILENET, "input:0", POOL)
    assert (network.dimension, network.sha256[:8]) == (256, "bf56de7d")
    assert network.metric == "frechet_distance[mobilenet-v1-0.25-224-imagenet:bf56de7d]"
    single, seven, many = (list(network.features(pictures(20), size)) for size in (1, 7, 64))
    np.testing.assert_allclose(single, seven, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(single, many, rtol=1e-5, atol=1e-5)


def test_a_missing_or_wrong_output_name_is_answered_with_candidates(shared: Path) -> None:
    for name in (None, "nothing:0"):
        with pytest.raises(UserError, match="AvgPool_1a/AvgPool:0"):
            foreign(shared / MOBILENET, None, name)


def graph_with(build: Callable[[Any], Any]) -> bytes:
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (1, 8, 8, 3), name="input")
        build(images)
    return bytes(graph.as_graph_def().SerializeToString())


def test_a_graph_that_fixes_the_batch_at_one_runs_with_any(tmp_path: Path) -> None:
    path = tmp_path / "mean.pb"
    path.write_bytes(graph_with(lambda x: tf.reduce_mean(x, axis=[1, 2], name="features")))
    network = foreign(path, output_name="features", values="0..255")
    colors = [np.full((8, 8, 3), value, np.uint8) for value in (10, 200, 30)]
    features = np.stack(list(network.features(colors, 2)))
    np.testing.assert_allclose(features, [[10] * 3, [200] * 3, [30] * 3], atol=1e-3)


def test_a_graph_that_writes_a_file_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def build(images: Any) -> None:
        text = tf.strings.as_string(tf.reduce_mean(images))
        with tf.control_dependencies([tf.io.write_file(str(marker), text)]):
            tf.reduce_mean(images, axis=[1, 2], name="features")

    path = tmp_path / "evil.pb"
    path.write_bytes(graph_with(build))
    with pytest.raises(UserError, match="WriteFile"):
        foreign(path, output_name="features")
    assert not marker.exists()


def test_an_operation_hidden_in_a_function_is_refused(tmp_path: Path) -> None:
    def write(x: Any) -> Any:
        tf.io.write_file(str(tmp_path / "never"), tf.strings.as_string(tf.reduce_mean(x)))
        return x

    inner = tf.function(write)
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (1, 8, 8, 3), name="input")
        tf.identity(inner(images), name="features")
    path = tmp_path / "hidden.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match="only operations that compute"):
        foreign(path, output_name="features")


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"\x00" * 100])
def test_bytes_that_are_no_graph_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pb"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.pb"):
        frozen_graph.read_graph(path)


# Keras models -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, name="conv")(images)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(2, name="classes")(x)
    path = tmp_path_factory.mktemp("model") / "ours.keras"
    keras.Model(images, x).save(path)
    return path


def test_a_keras_model_gives_the_features_of_a_named_layer(model: Path) -> None:
    network = foreign(model, output_name="pool")
    assert (network.name, network.dimension) == ("ours:pool", 8)
    assert network.metric == f"frechet_distance[ours:{network.sha256[:8]}]"
    own = keras.saving.load_model(model)
    picture = pictures(1, 32)[0]
    expected = keras.Model(own.inputs, own.get_layer("pool").output)(picture[None] / 127.5 - 1.0)
    np.testing.assert_allclose(
        next(iter(network.features([picture], 1))), expected[0], rtol=1e-4, atol=1e-5
    )


def changed(model: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a `.keras` file with another configuration."""
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            copy.writestr(name, data)
    return target


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in config["config"]["layers"] if item["config"]["name"] == name)


def test_a_lambda_layer_is_refused_and_does_not_run(model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    images = keras.Input((8, 8, 3))
    code = keras.layers.Lambda(lambda x: x, output_shape=(8, 8, 3))(images)
    path = tmp_path / "lambda.keras"
    keras.Model(images, code).save(path)
    with pytest.raises(UserError, match="Lambda"):
        foreign(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("subprocess", "Popen"), ("tfgan_med.files", "remove_folder")],
)
def test_a_model_that_asks_for_other_modules_is_refused(
    model: Path, tmp_path: Path, module: str, name: str
) -> None:
    marker = tmp_path / "marker"

    def call(config: dict[str, Any]) -> None:
        layer(config, "conv")["config"]["activation"] = {
            "class_name": "function",
            "module": module,
            "config": name,
            "registered_name": name,
            "args": [f"touch {marker}"],
        }

    with pytest.raises(UserError, match="Only Keras' own layers"):
        foreign(changed(model, tmp_path / "evil.keras", call))
    assert not marker.exists()


def test_a_function_of_keras_that_fetches_files_is_refused(model: Path, tmp_path: Path) -> None:
    def fetch(config: dict[str, Any]) -> None:
        layer(config, "conv")["config"]["activation"] = {
            "class_name": "function",
            "module": "keras.utils",
            "config": "get_file",
            "registered_name": "get_file",
        }

    with pytest.raises(UserError, match=r"fetch\.keras"):
        foreign(changed(model, tmp_path / "fetch.keras", fetch))


def test_a_layer_of_64_gib_is_refused_before_it_is_made(model: Path, tmp_path: Path) -> None:
    def grow(config: dict[str, Any]) -> None:
        layer(config, "conv")["config"].update(kernel_size=[27_000, 27_000], padding="same")

    with pytest.raises(UserError, match=r"describes 174960\d{5} weights"):
        foreign(changed(model, tmp_path / "huge.keras", grow))


def test_weights_that_point_to_another_file_are_refused(model: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as stored:
        stored["value"] = np.ones((3, 3, 3, 8), np.float32)
    memory = io.BytesIO(zipfile.ZipFile(model).read("model.weights.h5"))
    with h5py.File(memory, "r+") as weights:
        place = (
            weights["layers/conv2d/vars"]
            if "layers/conv2d" in weights
            else weights["layers/conv/vars"]
        )
        del place["0"]
        place["0"] = h5py.ExternalLink(str(secret), "value")
    target = tmp_path / "linked.keras"
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = memory.getvalue() if name == "model.weights.h5" else source.read(name)
            copy.writestr(name, data)
    with pytest.raises(UserError, match=r"linked\.keras"):
        foreign(target)


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"0" * 2**26)
    with pytest.raises(UserError, match="unpacks to 64 MiB"):
        foreign(path)


@pytest.mark.parametrize("name", ["whole.h5", "weights.pkl", "network.pt", "saved_model"])
def test_files_that_can_run_code_are_refused_by_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"anything")
    with pytest.raises(UserError, match="not loaded"):
        foreign(path)


def test_a_network_for_other_pictures_is_refused(tmp_path: Path) -> None:
    images = keras.Input((8, 8, 1))
    path = tmp_path / "gray.keras"
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)).save(path)
    with pytest.raises(UserError, match=r"\(batch, height, width, 3\) is needed"):
        foreign(path)
