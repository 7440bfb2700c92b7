"""ResNet-18: published sizes, learning to the end of the schedule, a network anyone can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tfgan_med.downstream import resnet18
from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.resnet18 import ResNet18, ResNet18Config, resnet18_classifier, stem_of
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule

Array = npt.NDArray[Any]
CLASSES = ("defect", "good")


def problem(size: int = 32, channels: int = 1, **changes: Any) -> Problem:
    return Problem(size, channels, **{"classes": CLASSES, "positive": 0, **changes})


def make(
    size: int = 32, channels: int = 1, seed: int = 1, steps: int = 1, **changes: Any
) -> ResNet18:
    config = ResNet18Config(**{"width": 16, **changes})
    return ResNet18(config, problem(size, channels), Schedule(1, steps), seed=seed)


def batch(size: int = 32, channels: int = 1) -> dict[str, tf.Tensor]:
    """Noise, two pictures of each class."""
    images = tf.random.stateless_uniform((4, size, size, channels), (1, 2), -1.0, 1.0)
    return {
        "images": images,
        "labels": tf.constant([0, 1, 1, 0]),
        "weights": tf.ones(4),
    }


def count(variables: list[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


# Network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "trainable"), [(1, 11_177_025), (2, 11_177_538), (1000, 11_689_512)]
)
def test_the_network_has_the_published_number_of_weights(outputs: int, trainable: int) -> None:
    network = resnet18_classifier((128, 128, 3), outputs)
    assert count(network.trainable_weights) == trainable
    assert count(network.weights) == trainable + 9_600


@pytest.mark.parametrize("shape", [(64, 64, 1), (128, 128, 3), (256, 256, 1), (96, 160, 3)])
def test_pictures_become_logits_through_pooled_features(shape: tuple[int, int, int]) -> None:
    network = resnet18_classifier(shape, 3, width=4)
    assert network(tf.zeros((2, *shape))).shape == (2, 3)
    features = keras.Model(network.input, network.get_layer("features").output)
    assert features(tf.zeros((2, *shape))).shape == (2, 32)


def test_two_classes_take_one_logit_and_more_take_one_each() -> None:
    assert make().network.output_shape == (None, 1)
    three = Problem(32, 1, ("a", "b", "c"))
    assert ResNet18(ResNet18Config(width=16), three).network.output_shape == (None, 3)


def test_pictures_of_few_pixels_keep_their_size_at_first() -> None:
    assert stem_of(ResNet18Config(), 95) == "small"
    assert stem_of(ResNet18Config(), 96) == "imagenet"
    assert stem_of(ResNet18Config(weights=Path("resnet18.pth")), 64) == "imagenet"
    assert stem_of(ResNet18Config(stem="imagenet"), 64) == "imagenet"
    assert make().network.get_layer("layer1.0.conv1").output.shape[1] == 32
    assert make(96).network.get_layer("layer1.0.conv1").output.shape[1] == 24


def test_the_saved_network_needs_nothing_of_ours(tmp_path: Path) -> None:
    model = make()
    model.train_step(batch())  # moves the statistics too
    for layer in model.network.layers:
        assert type(layer).__module__.startswith("keras."), layer.name
    path = tmp_path / "model.keras"
    model.network.save(path)
    loaded = keras.models.load_model(path, compile=False, safe_mode=True)
    images = batch()["images"]
    np.testing.assert_array_equal(loaded(images), model.network(images))


def test_the_seed_alone_decides_the_starting_weights() -> None:
    one, same, other = (make(seed=seed).network.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[-1], other[-1])  # of the head


# Learning -----------------------------------------------------------------------------------------


def test_every_weight_learns() -> None:
    model = make()
    before = [np.array(v) for v in model.network.trainable_variables]
    model.train_step(batch())
    for old, new in zip(before, model.network.trainable_variables, strict=True):
        assert not np.array_equal(old, new), new.path


def test_four_pictures_are_learned_by_heart() -> None:
    model = make(steps=40, stem="imagenet")
    step = tf.function(model.train_step)
    losses = [float(step(batch())["loss"]) for _ in range(40)]
    assert losses[-1] < 0.1 < losses[0]
    assert step.experimental_get_tracing_count() == 1
    said = model.probabilities(np.asarray(batch()["images"]))
    assert said.shape == (4, 2)
    np.testing.assert_allclose(said.sum(-1), 1.0, atol=1e-6)
    assert said.argmax(-1).tolist() == [0, 1, 1, 0]


def test_weights_and_classes_enter_the_loss() -> None:
    labels, logits = tf.constant([0, 1]), tf.constant([[0.0], [9.0]])
    alone = {"labels": labels, "weights": tf.constant([1.0, 0.0])}
    value = make().losses_of(alone, logits)["classification"]
    assert float(value) == pytest.approx(np.log(2))
    other = {"labels": labels, "weights": tf.constant([0.0, 1.0])}  # `good`, called a defect
    assert float(make().losses_of(other, logits)["classification"]) == pytest.approx(9.0, rel=1e-3)


def rate(model: ResNet18) -> float:
    return model.learning_rates()["network"]


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    model = make(steps=8)
    found = [rate(model)]
    for _ in range(8):
        model.train_step(batch())
        found.append(rate(model))
    expected = [5e-4 * (1 + np.cos(np.pi * step / 8)) for step in range(9)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_constant_rate_is_halved_on_a_plateau() -> None:
    model = make(decay="none", plateau=2, steps=8)
    model.train_step(batch())
    assert rate(model) == pytest.approx(1e-3)
    for improved in (True, False, False):
        model.after_evaluation(improved)
    assert rate(model) == pytest.approx(5e-4)
    with pytest.raises(ValidationError, match=r"model.decay=none"):
        ResNet18Config(plateau=2)


def test_kernels_shrink_and_norms_do_not() -> None:
    model = make(learning_rate=0.1, weight_decay=0.5)
    before = [np.array(v) for v in model.network.trainable_variables]
    nothing = [tf.zeros_like(v) for v in model.network.trainable_variables]
    model.optimizers["network"].apply(nothing)
    for old, variable in zip(before, model.network.trainable_variables, strict=True):
        factor = 0.95 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable, factor * old, rtol=1e-6, err_msg=variable.path)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_learns_and_stays_finite(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        before = np.array(model.network.trainable_variables[0])
        losses = [float(model.train_step(batch())["loss"]) for _ in range(4)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all()
    assert model.network(batch()["images"]).dtype == tf.float32
    assert not np.array_equal(before, model.network.trainable_variables[0])


def test_the_rate_can_be_read_on_two_devices() -> None:
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")
    with tf.distribute.MirroredStrategy([cpu.name for cpu in cpus[:2]]).scope():
        model = make(steps=2)
    assert rate(model) == pytest.approx(1e-3)
    model.optimizers["network"].iterations.assign(1)
    assert rate(model) == pytest.approx(5e-4)


# Imported weights ---------------------------------------------------------------------------------


def state_of(network: keras.Model) -> dict[str, Array]:
    """The weights of a network as torchvision would store them."""
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    names |= {"moving_variance": "running_var", "kernel": "weight", "bias": "bias"}
    state = {}
    for layer in network.layers:
        for variable in layer.weights:
            value = np.array(variable)
            if value.ndim > 1:
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            state[f"{layer.name}.{names[variable.name]}"] = value
    return state


def test_a_run_begins_with_the_weights_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resnet18.pth"
    path.touch()
    donor = resnet18_classifier((64, 64, 1), 1000, seed=7)
    monkeypatch.setattr(resnet18, "read_torch_file", lambda _: state_of(donor))
    model = make(64, width=64, weights=path)
    assert model.weights_used == "resnet18.pth"
    features = [
        keras.Model(network.input, network.get_layer("features").output)(batch(64)["images"])
        for network in (donor, model.network)
    ]
    np.testing.assert_allclose(features[1], features[0], atol=1e-5)
    narrow = rf"model.weights: {path} does not fit: conv1.weight has the shape \(64, 3, 7, 7\)"
    with pytest.raises(UserError, match=narrow):
        make(64, width=16, weights=path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.weights: .*absent.pth is no file"):
        make(weights=tmp_path / "absent.pth")
