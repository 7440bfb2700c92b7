"""The 2015 Inception network gives the values of torch-fidelity with the same seeded weights."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.networks import inception, pretrained
from tfgan_med.networks.features import FeatureNetwork, inception_2015, resize, scale

Golden = Mapping[str, npt.NDArray[Any]]
State = dict[str, npt.NDArray[np.float32]]


def seeded(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The golden file's rule: a generator seeded by the parameter's name."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if name == "fc.weight":
        values = 0.02 * random.randn(*shape)
    elif name == "fc.bias":
        values = 0.1 * random.randn(*shape)
    elif name.endswith("conv.weight"):
        values = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(("bn.weight", "running_var")):
        values = 0.5 + random.rand(*shape)
    else:
        values = 0.1 * random.randn(*shape)
    return np.asarray(values, np.float32)


@pytest.fixture(scope="module")
def state() -> State:
    return {name: seeded(name, shape) for name, shape in inception.state_shapes().items()}


def test_the_parameters_are_those_of_the_pytorch_port(golden: Golden, state: State) -> None:
    assert set(state) == {str(name) for name in golden["ref/net/names"]}
    for name, total in zip(golden["ref/net/names"], golden["ref/net/weight_sums"], strict=True):
        assert state[str(name)].sum(dtype=np.float64) == pytest.approx(float(total), abs=1e-9)


def test_every_output_equals_that_of_torch_fidelity(golden: Golden, state: State) -> None:
    model = inception.inception_2015()
    inception.load_state(model, state)
    images = tf.constant(golden["in/net/tiny/images"], tf.float32)
    outputs = model(scale(resize(images, "ttur"), "ttur"), training=False)
    for name in ("64", "192", "768", "2048", "logits", "logits_unbiased"):
        expected = golden[f"ref/net/tiny/torchfidelity.{name}"]
        np.testing.assert_allclose(
            outputs[name].numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )


@pytest.fixture(scope="module")
def folded(state: State) -> Any:
    model = inception.inception_2015(folded=True)
    inception.load_state(model, state)
    return model


def test_folding_batch_normalization_into_kernels_changes_no_output(
    golden: Golden, folded: Any
) -> None:
    images = tf.constant(golden["in/net/tiny/images"], tf.float32)
    outputs = folded(scale(resize(images, "ttur"), "ttur"), training=False)
    for name in ("64", "192", "768", "2048", "logits", "logits_unbiased"):
        expected = golden[f"ref/net/tiny/torchfidelity.{name}"]
        np.testing.assert_allclose(
            outputs[name].numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )


def test_a_folded_convolution_is_gamma_times_its_distance_from_the_mean() -> None:
    """One pixel, one channel: gamma (w x - mean) / sqrt(variance + 0.001) + beta by hand."""
    state = {
        "a.conv.weight": np.full((1, 1, 1, 1), 2.0, np.float32),
        "a.bn.weight": np.array([3.0], np.float32),
        "a.bn.bias": np.array([0.5], np.float32),
        "a.bn.running_mean": np.array([4.0], np.float32),
        "a.bn.running_var": np.array([0.249], np.float32),
    }
    images = keras.Input((1, 1, 1))
    network = keras.Model(images, keras.layers.Conv2D(1, 1, name="a.conv")(images))
    inception.load_state(network, state)
    result = float(network(np.full((1, 1, 1, 1), 5.0))[0, 0, 0, 0])
    assert result == pytest.approx(3.0 * (2.0 * 5.0 - 4.0) / 0.5 + 0.5, rel=1e-6)


def test_weights_from_a_frozen_graph_are_those_from_the_state_dict(state: State) -> None:
    constants = {}
    for scope, name in inception.graph_scopes().items():
        constants[f"{scope}/conv2d_params"] = state[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        for theirs, ours in (
            ("gamma", "weight"),
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ):
            constants[f"{scope}/batchnorm/{theirs}"] = state[f"{name}.bn.{ours}"]
    constants["softmax/weights"] = state["fc.weight"].T
    constants["softmax/biases"] = state["fc.bias"]

    read = inception.state_from_graph(constants)
    assert set(read) == set(state)
    for name, values in read.items():
        np.testing.assert_array_equal(values, state[name])


@pytest.mark.parametrize(
    ("scope", "name"),  # pairs as in toshas/torch-fidelity, util_convert_inception_weights.py
    [
        ("conv", "Conv2d_1a_3x3"),
        ("conv_4", "Conv2d_4a_3x3"),
        ("mixed/tower/conv_1", "Mixed_5b.branch5x5_2"),
        ("mixed_2/tower_2/conv", "Mixed_5d.branch_pool"),
        ("mixed_3/conv", "Mixed_6a.branch3x3"),
        ("mixed_3/tower/conv_2", "Mixed_6a.branch3x3dbl_3"),
        ("mixed_7/tower_1/conv_4", "Mixed_6e.branch7x7dbl_5"),
        ("mixed_8/tower_1/conv_3", "Mixed_7a.branch7x7x3_4"),
        ("mixed_9/tower/mixed/conv_1", "Mixed_7b.branch3x3_2b"),
        ("mixed_10/tower_1/mixed/conv", "Mixed_7c.branch3x3dbl_3a"),
    ],
)
def test_scopes_of_the_frozen_graph_belong_to_the_right_branches(scope: str, name: str) -> None:
    assert inception.graph_scopes()[scope] == name
    assert len(inception.graph_scopes()) == 94


def test_a_missing_or_misshapen_or_damaged_tensor_is_named(state: State) -> None:
    model = inception.inception_2015()
    name = "Mixed_5b.branch1x1.conv.weight"
    with pytest.raises(ValueError, match=rf"{name}: not among the 471"):
        inception.load_state(model, {key: state[key] for key in state if key != name})
    with pytest.raises(ValueError, match=r"Mixed_5b\.branch1x1\.conv: the file has shapes"):
        inception.load_state(model, {**state, name: state[name][:5]})
    with pytest.raises(ValueError, match=rf"{name}: contains numbers that are not finite"):
        inception.load_state(model, {**state, name: state[name] * np.nan})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, state: State) -> Path:
    path = tmp_path_factory.mktemp("weights") / "seeded.npz"
    np.savez(path, **state)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def exact(stored: Path) -> FeatureNetwork:
    return inception_2015(stored, "ttur")


def golden_rows(network: Any, golden: Golden) -> npt.NDArray[np.float32]:
    return np.stack(list(network.features(golden["in/net/tiny/images"], 2)))


def test_one_pass_gives_the_features_and_the_logits_of_torch_fidelity(
    golden: Golden, exact: FeatureNetwork
) -> None:
    assert (exact.dimension, exact.classes, exact.width) == (2048, 1008, 3056)
    rows = golden_rows(exact, golden)
    for part, name in ((rows[:, :2048], "2048"), (rows[:, 2048:], "logits_unbiased")):
        expected = golden[f"ref/net/tiny/torchfidelity.{name}"]
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_is_close_and_never_mixed_with_float32(
    golden: Golden, stored: Path, exact: FeatureNetwork
) -> None:
    quick = inception_2015(stored, "ttur", precision="bfloat16")
    expected, rows = golden_rows(exact, golden), golden_rows(quick, golden)
    assert rows.dtype == np.float32
    error = np.abs(rows - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.02  # eight bits of mantissa: 0.4 % each time a number is rounded
    assert (exact.protocol, quick.protocol) == ("ttur", "ttur, bfloat16")
    assert exact.identity != quick.identity


def test_features_with_weights_that_were_never_published_are_not_called_fid(
    golden: Golden, stored: Path
) -> None:
    network = inception_2015(stored, "pytorch-fid", 192)
    assert network.metric.startswith("frechet_distance[inception-2015:")
    assert network.metric.endswith("]_d192")
    assert network.name_of("kid") == network.metric.replace("frechet", "kernel")
    assert network.classes == 0
    assert not pretrained.is_published("inception-2015", network.sha256)
    rows = list(network.features(golden["in/net/tiny/images"], 1))
    assert [row.shape for row in rows] == [(192,), (192,)]


def test_published_weights_make_a_fid(stored: Path, state: State, tmp_path: Path) -> None:
    """Our own `.npz` records which published file it was made from."""
    digest = pretrained.REGISTRY["inception-2015"].sources[0].digest
    np.savez(tmp_path / "imported.npz", sha256=np.array(digest), **state)  # type: ignore[arg-type]
    network = inception_2015(tmp_path / "imported.npz", "ttur")
    assert (network.metric, network.sha256, network.dimension) == ("fid", digest, 2048)
    assert network.name_of("inception_score") == "inception_score"
    small = inception_2015(tmp_path / "imported.npz", "pytorch-fid", 64)
    assert small.name_of("precision") == "precision_d64"
    assert inception_2015(tmp_path / "imported.npz", "clean").name_of("fid") == "fid_clean"
    assert inception_2015(tmp_path / "imported.npz", "pytorch-fid").name_of("fid") == "fid_pytorch"


def test_fewer_dimensions_belong_to_pytorch_fid(stored: Path) -> None:
    with pytest.raises(UserError, match="--protocol pytorch-fid"):
        inception_2015(stored, "ttur", 64)
    with pytest.raises(UserError, match="dims is 100"):
        inception_2015(stored, "pytorch-fid", 100)
