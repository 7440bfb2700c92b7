"""FPN with SE encoders: published sizes, how levels are joined, masks learned by heart."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.fpn_se import (
    FPNSE,
    Encoder,
    FPNSEConfig,
    fpn_segmenter,
    pyramid,
    segmentation_blocks,
)
from tfgan_med.errors import UserError

ENCODERS: tuple[Encoder, ...] = ("se_resnet18", "se_resnet50", "se_resnext50")
SPOT = Problem(64, 1, ("spot",), exclusive=False)


def make(problem: Problem = SPOT, seed: int = 1, **changes: Any) -> FPNSE:
    return FPNSE(FPNSEConfig(**{"width": 16, "learning_rate": 2e-3, **changes}), problem, seed=seed)


def batch() -> dict[str, tf.Tensor]:
    """Four bright discs in noise, and where they are."""
    rows, columns = np.mgrid[:64, :64]
    discs = ((20, 24, 9), (40, 36, 14), (30, 44, 11), (44, 18, 12))
    masks = np.stack([(rows - y) ** 2 + (columns - x) ** 2 < r**2 for y, x, r in discs])
    noise = np.random.default_rng(0).normal(0, 0.2, masks.shape)
    images = np.clip(0.8 * masks - 0.4 + noise, -1, 1)
    return {
        "images": tf.constant(images[..., None], tf.float32),
        "masks": tf.constant(masks[..., None], tf.float32),
    }


def count(variables: list[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


# Network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "alone", "trainable", "every"),
    [
        ("se_resnet18", 11_265_592, 13_136_313, 13_145_913),
        ("se_resnet50", 26_039_024, 28_647_025, 28_700_145),
        ("se_resnext50", 25_510_896, 28_118_897, 28_187_121),
    ],
)
def test_the_network_has_the_weights_of_the_reference(
    encoder: Encoder, alone: int, trainable: int, every: int
) -> None:
    network = fpn_segmenter((64, 64, 3), 1, encoder)
    assert count(network.trainable_weights) == trainable
    assert count(network.weights) == every
    decoder = re.compile(r"lateral\d|p\d\.|head")
    trunk = [layer for layer in network.layers if not decoder.match(layer.name)]
    assert count([v for layer in trunk for v in layer.trainable_weights]) == alone
    assert network.get_layer("p5.0.norm").groups == 32


@pytest.mark.parametrize("shape", [(64, 64, 1), (128, 128, 3), (256, 256, 1), (96, 160, 3)])
def test_logits_have_the_size_of_the_picture(shape: tuple[int, int, int]) -> None:
    network = fpn_segmenter(shape, 2, width=4)
    logits = network(tf.zeros((1, *shape)))
    assert (logits.shape, logits.dtype) == ((1, *shape[:2], 2), tf.float32)


def test_the_pyramid_adds_each_coarser_level_enlarged() -> None:
    inputs = [keras.Input((32 >> level, 32 >> level, 4)) for level in range(4)]
    network = keras.Model(inputs, pyramid(inputs, 8, seed=0))
    for number in (2, 3, 4):  # only the coarsest level speaks
        kernel = network.get_layer(f"lateral{number}").kernel
        kernel.assign(tf.zeros_like(kernel))
    maps = [tf.random.stateless_normal((1, 32 >> i, 32 >> i, 4), (i, 2)) for i in range(4)]
    p2, p3, _, p5 = map(np.asarray, network(maps))
    assert p5.std() > 0.1
    np.testing.assert_allclose(p2, np.repeat(np.repeat(p5, 8, axis=1), 8, axis=2), atol=1e-6)
    np.testing.assert_allclose(p3, np.repeat(np.repeat(p5, 4, axis=1), 4, axis=2), atol=1e-6)


@pytest.mark.parametrize(("doublings", "blocks"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_levels_are_convolved_as_often_as_they_are_doubled(doublings: int, blocks: int) -> None:
    x = keras.Input((4, 4, 8))
    network = keras.Model(x, segmentation_blocks(x, doublings, 16, 0, "p"))
    assert network.output_shape == (None, 4 << doublings, 4 << doublings, 16)
    kinds = [type(layer) for layer in network.layers]
    assert kinds.count(keras.layers.Conv2D) == blocks
    assert kinds.count(keras.layers.UpSampling2D) == doublings


def test_four_equal_levels_sum_to_four_times_one() -> None:
    network = make(dropout=0.0).network
    joined = network.get_layer("sum")
    levels = keras.Model(network.input, [*joined.input, joined.output])
    *parts, total = map(np.asarray, levels(batch()["images"]))
    assert len(parts) == 4
    assert all(part.shape == (4, 16, 16, 32) for part in parts)
    np.testing.assert_allclose(total, sum(parts), atol=1e-4)
    np.testing.assert_allclose(joined([parts[0]] * 4), 4.0 * parts[0], rtol=1e-6)


def test_logits_are_enlarged_with_half_pixel_centers() -> None:
    enlarge = make().network.get_layer("logits")
    ramp = np.broadcast_to(np.arange(16.0, dtype=np.float32)[:, None, None], (1, 16, 16, 1))
    found = np.asarray(enlarge(ramp))[0, :, 0, 0]
    expected = (np.arange(64) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(found[2:-2], expected[2:-2], atol=1e-5)


def test_the_seed_alone_decides_the_starting_weights() -> None:
    one, same, other = (make(seed=seed).network.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    drawn = [not np.array_equal(a, b) for a, b in zip(one, other, strict=True) if a.ndim > 1]
    assert all(drawn)


@pytest.mark.parametrize(("size", "advice"), [(100, "96 or 128"), (20, "Use 32")])
def test_a_size_that_cannot_be_halved_five_times_is_refused(size: int, advice: str) -> None:
    with pytest.raises(UserError, match=f"data.image_size is {size}.*{advice}"):
        make(Problem(size, 1, ("spot",), exclusive=False))


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_weight_learns(encoder: Encoder) -> None:
    model = make(encoder=encoder, width=16, dropout=0.0)
    before = [np.array(v) for v in model.network.trainable_variables]
    model.train_step(batch())
    for old, new in zip(before, model.network.trainable_variables, strict=True):
        assert not np.array_equal(old, new), new.path


def overlap(model: FPNSE) -> list[float]:
    truth = np.asarray(batch()["masks"]) > 0.5
    said = model.probabilities(np.asarray(batch()["images"])) > 0.5
    both, either = (truth & said).sum((1, 2, 3)), (truth | said).sum((1, 2, 3))
    return list(both / either)


def test_four_masks_are_learned_by_heart() -> None:
    model = make(dropout=0.0)
    step = tf.function(model.train_step)
    start = step(batch())
    for _ in range(149):
        end = step(batch())
    assert float(end["loss"]) < 0.1 * float(start["loss"])
    assert float(end["loss"]) == pytest.approx(float(end["dice"]) + float(end["cross_entropy"]))
    assert min(overlap(model)) > 0.95
    assert step.experimental_get_tracing_count() == 1


def test_classes_that_exclude_each_other_sum_to_one() -> None:
    model = make(Problem(32, 3, ("background", "cell", "nucleus")))
    classes = np.random.default_rng(0).integers(0, 3, (2, 32, 32))
    pictures = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    masks = np.eye(3, dtype=np.float32)[classes]
    losses = model.train_step({"images": tf.constant(pictures), "masks": tf.constant(masks)})
    assert np.isfinite([float(value) for value in losses.values()]).all()
    said = model.probabilities(pictures)
    assert said.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(said.sum(-1), 1.0, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    model = make(dropout=0.5)
    images = batch()["images"]
    np.testing.assert_array_equal(model.network(images), model.network(images))
    trained = [model.network(images, training=True) for _ in range(2)]
    assert not np.allclose(trained[0], trained[1], atol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_learns_and_stays_finite(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        before = np.array(model.network.trainable_variables[0])
        losses = [float(model.train_step(batch())["loss"]) for _ in range(3)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all()
    assert not np.array_equal(before, model.network.trainable_variables[0])


def test_the_rate_is_a_variable_that_a_plateau_halves() -> None:
    model = make(plateau=1)
    assert model.learning_rates() == pytest.approx({"network": 2e-3})
    model.after_evaluation(False)
    assert model.learning_rates() == pytest.approx({"network": 1e-3})
