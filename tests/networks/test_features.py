"""Resizing by protocol, frozen graphs, foreign networks: what runs and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.networks import frozen_graph, vgg
from tfgan_med.networks.features import _in_precision, foreign, resize, scale, value_name, vgg16

Golden = Mapping[str, npt.NDArray[Any]]

MOBILENET = "weights/mobilenet-v1-0.25-224-imagenet.pb"
POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"
CLASSES = "MobilenetV1/Predictions/Reshape_1:0"

# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "elsewhere"),
    [
        ("fid", "frechet_distance[net:01234567]"),
        ("fid_infinity", "frechet_distance_infinity[net:01234567]"),
        ("kid", "kernel_distance[net:01234567]"),
        ("inception_score", "classifier_score[net:01234567]"),
        ("lpips", "perceptual_distance[net:01234567]"),
        ("precision", "precision[net:01234567]"),
        ("fidelity", "fidelity[net:01234567]"),
    ],
)
def test_a_measure_keeps_its_name_with_published_weights_only(measure: str, elsewhere: str) -> None:
    assert value_name(measure, "net", "0123456789", published=True) == measure
    assert value_name(measure, "net", "0123456789", True, "_d64") == f"{measure}_d64"
    assert value_name(measure, "net", "0123456789", published=False) == elsewhere


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


def test_a_graph_gives_features_and_logits_in_one_pass(shared: Path) -> None:
    alone = foreign(shared / MOBILENET, None, POOL)
    network = foreign(shared / MOBILENET, None, POOL, logits_name=CLASSES)
    assert (network.dimension, network.classes, network.width) == (256, 1001, 1257)
    assert network.identity != alone.identity
    rows = np.stack(list(network.features(pictures(3), 2)))
    np.testing.assert_array_equal(rows[:, :256], np.stack(list(alone.features(pictures(3), 2))))
    shares = np.exp(rows[:, 256:].astype(np.float64))  # its probabilities became logarithms
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)


def test_scores_that_are_no_probabilities_are_taken_as_they_are(tmp_path: Path) -> None:
    def build(images: Any) -> None:
        means = tf.reduce_mean(images, axis=[1, 2], name="features")
        tf.subtract(means, 300.0, name="scores")

    path = tmp_path / "scores.pb"
    path.write_bytes(graph_with(build))
    network = foreign(path, None, "features", "0..255", logits_name="scores")
    row = next(iter(network.features([np.full((8, 8, 3), 40, np.uint8)], 1)))
    np.testing.assert_allclose(row, [40] * 3 + [-260] * 3, atol=1e-3)


def test_a_reshape_to_a_batch_of_one_takes_any_batch(tmp_path: Path) -> None:
    def build(images: Any) -> None:
        means = tf.reduce_mean(images, axis=[1, 2])
        tf.reshape(means, [1, 3], name="features")

    path = tmp_path / "one.pb"
    path.write_bytes(graph_with(build))
    network = foreign(path, None, "features", "0..255")
    colors = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20)]
    np.testing.assert_allclose(list(network.features(colors, 2)), [[10] * 3, [20] * 3], atol=1e-3)


def test_an_impossible_class_gets_a_finite_logarithm(tmp_path: Path) -> None:
    def build(images: Any) -> None:
        means = tf.reduce_mean(images, axis=[1, 2], name="features")
        tf.nn.softmax(1e4 * means * [1.0, 0.5, 0.0], name="shares")

    path = tmp_path / "sure.pb"
    path.write_bytes(graph_with(build))
    network = foreign(path, None, "features", "0..1", logits_name="shares")
    row = next(iter(network.features([np.full((8, 8, 3), 255, np.uint8)], 1)))
    np.testing.assert_allclose(row[3:], [0.0, np.log(1e-12), np.log(1e-12)], rtol=1e-5)


def test_a_wrong_name_of_the_logits_is_answered_with_candidates(shared: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: no such tensor.*Predictions/Reshape_1:0"):
        foreign(shared / MOBILENET, None, POOL, logits_name="nothing")


def test_a_map_is_no_vector_of_logits(shared: Path) -> None:
    with pytest.raises(UserError, match=r"gives \(2,\) for two.*--logits-output"):
        foreign(shared / MOBILENET, None, POOL, logits_name="MobilenetV1/Predictions/Shape:0")


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


def test_a_keras_model_gives_logits_of_another_layer_in_the_same_pass(model: Path) -> None:
    network = foreign(model, output_name="pool", logits_name="classes")
    assert (network.dimension, network.classes) == (8, 2)
    own = keras.saving.load_model(model)
    picture = pictures(1, 32)[0]
    np.testing.assert_allclose(
        next(iter(network.features([picture], 1)))[8:],
        own(picture[None] / 127.5 - 1.0)[0],
        rtol=1e-4,
        atol=1e-5,
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


# Keras' published networks, with weights of our own ----------------------------------------------


def keras_2_file(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """A weight file in the form of Keras 2: kernels by the He rule, small biases."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            group = file.create_group(name)
            kernel = generator.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            group["kernel:0"] = kernel.astype(np.float32)
            group["bias:0"] = generator.normal(0, 0.1, shape[-1]).astype(np.float32)
            group.attrs["weight_names"] = ["kernel:0", "bias:0"]
    return path


def vgg_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for block, (width, convs) in enumerate(vgg.BLOCKS, 1):
        for conv in range(1, convs + 1):
            shapes[f"block{block}_conv{conv}"] = (3, 3, before, width)
            before = width
    return shapes


def test_vgg16_without_top_gives_the_averaged_channels_of_keras_application(
    tmp_path: Path,
) -> None:
    path = keras_2_file(tmp_path / "vgg.h5", vgg_shapes())
    network = vgg16(path)
    assert (network.name, network.dimension, network.classes) == ("vgg16-gap", 512, 0)
    assert network.metric == f"frechet_distance[vgg16-gap:{network.sha256[:8]}]"

    theirs = keras.applications.VGG16(weights=None, include_top=False, pooling="avg")
    with h5py.File(path) as file:
        for layer in theirs.layers:
            if layer.weights:
                layer.set_weights([file[layer.name]["kernel:0"], file[layer.name]["bias:0"]])
    picture = pictures(1, 224)[0]  # of the network's size: nothing is resized
    expected = theirs(keras.applications.vgg16.preprocess_input(picture[None].astype(np.float32)))
    row = next(iter(network.features([picture], 1)))
    np.testing.assert_allclose(row, expected[0], rtol=1e-4, atol=1e-4)

    quick = next(iter(vgg16(path, precision="bfloat16").features([picture], 1)))
    assert 0 < np.abs(quick - row).max() < 0.05 * np.abs(row).max()


def test_vgg16_refuses_another_networks_file(tmp_path: Path) -> None:
    path = keras_2_file(tmp_path / "odd.h5", {**vgg_shapes(), "block4_conv2": (3, 3, 4, 4)})
    with pytest.raises(UserError, match=r"block4_conv2 has arrays of shape .*expected"):
        vgg16(path)
    path = keras_2_file(tmp_path / "nan.h5", vgg_shapes())
    with h5py.File(path, "r+") as file:
        file["block1_conv1"]["bias:0"][3] = np.nan
    with pytest.raises(UserError, match=r"block1_conv1 has numbers that are not finite"):
        vgg16(path)


def test_a_network_in_bfloat16_is_close_and_float32_outside() -> None:
    """What `inception_keras` does to its network, on a small one of the same layers."""
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, use_bias=False)(images)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(scale=False)(x))
    network = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    quick = _in_precision(network, "bfloat16")
    assert _in_precision(network, "float32") is network
    assert quick.layers[1].compute_dtype == "bfloat16"
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    expected, near = np.asarray(network(pixels)), np.asarray(quick(pixels))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - expected).max() < 0.02 * np.abs(expected).max()


# Reading ahead ------------------------------------------------------------------------------------


def test_rows_before_a_broken_picture_are_delivered(shared: Path) -> None:
    network = foreign(shared / MOBILENET, None, POOL)

    def breaking() -> Iterator[npt.NDArray[np.uint8]]:
        yield from pictures(4)
        raise UserError("fifth.png: broken")

    received = []
    with pytest.raises(UserError, match=r"fifth\.png"):
        for row in network.features(breaking(), 2):
            received.append(row)
    assert len(received) == 4
