"""What U-Net, the Pix2Pix generator, FCN-8s and both forms of DCAN have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.downstream.base import DownstreamModel, Problem
from tfgan_med.downstream.dcan import DCAN, DCANConfig
from tfgan_med.downstream.fcn8s import FCN8s, FCN8sConfig
from tfgan_med.downstream.pix2pix_segmenter import Pix2PixSegmenter, Pix2PixSegmenterConfig
from tfgan_med.downstream.unet import UNet, UNetConfig

NAMES = ("unet", "pix2pix_segmenter", "fcn8s", "dcan", "dcan-chen")
NARROW: dict[str, Any] = {"base": 16, "features": 64, "weights": "none", "learning_rate": 1e-3}


def make(name: str, size: int = 64, seed: int = 0, **settings: Any) -> DownstreamModel:
    problem = Problem(size, 1, ("cell",), exclusive=False)
    if name == "unet":
        return UNet(UNetConfig(**{"base": 8, **settings}), problem, seed=seed)
    if name == "pix2pix_segmenter":
        config = Pix2PixSegmenterConfig(**{"base": 8, **settings})
        return Pix2PixSegmenter(config, problem, seed=seed)
    if name == "fcn8s":
        return FCN8s(FCN8sConfig(**{**NARROW, **settings}), problem, seed=seed)
    variant = "chen" if name == "dcan-chen" else "fcn8s"
    return DCAN(DCANConfig(**{**NARROW, "variant": variant, **settings}), problem, seed=seed)


def batch_of(model: DownstreamModel, count: int = 4, size: int = 64) -> dict[str, tf.Tensor]:
    """One bright noisy disc in each picture."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    ids = np.zeros((count, size, size, 1), np.int32)
    for index in range(count):
        y, x = rng.uniform(0.4, 0.6, 2)
        ids[index, (rows - y) ** 2 + (columns - x) ** 2 <= rng.uniform(0.25, 0.35) ** 2] = 1
    masks = (ids > 0).astype(np.float32)
    images = np.clip(masks - 0.5 + rng.normal(0, 0.2, ids.shape), -1, 1).astype(np.float32)
    learned = {"masks": masks, "ids": ids}[model.needs]
    return {"images": tf.constant(images), model.needs: tf.constant(learned)}


@pytest.fixture(params=NAMES)
def name(request: Any) -> str:
    return str(request.param)


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def policy(request: Any) -> Iterator[str]:
    keras.config.set_dtype_policy(request.param)
    yield str(request.param)
    keras.config.set_dtype_policy("float32")


def iou(model: DownstreamModel, batch: dict[str, tf.Tensor]) -> float:
    """Mean over pictures."""
    found = model.probabilities(batch["images"].numpy())[..., 0] >= 0.5
    wanted = batch[model.needs].numpy()[..., 0] > 0
    both = (found & wanted).sum(axis=(1, 2))
    return float(np.mean(both / (found | wanted).sum(axis=(1, 2))))


@pytest.mark.slow
def test_four_pictures_are_learned_by_heart(name: str) -> None:
    model = make(name)
    batch = batch_of(model)
    step = tf.function(model.train_step, autograph=False)
    best = 0.0
    for _ in range(6):
        for _ in range(50):
            step(batch)
        best = max(best, iou(model, batch))
        if best > 0.95:
            break
    assert step.experimental_get_tracing_count() == 1
    assert best > 0.95


def test_a_step_moves_every_trained_weight(name: str) -> None:
    """The second, for scores that begin at 0 pass nothing down in the first."""
    model = make(name)
    batch = batch_of(model)
    model.train_step(batch)
    before = [weight.numpy() for weight in model.network.trainable_weights]
    losses = model.train_step(batch)
    for weight, old in zip(model.network.trainable_weights, before, strict=True):
        assert np.abs(weight.numpy() - old).max() > 0, weight.path
    parts = [float(value) for key, value in losses.items() if key != "loss"]
    assert float(losses["loss"]) == pytest.approx(sum(parts), rel=1e-5)


def test_low_precision_stays_finite(name: str, policy: str) -> None:
    tiny = {"base": 2} if name in ("unet", "pix2pix_segmenter") else {"base": 4, "features": 4}
    model = make(name, size=32, **tiny)
    batch = batch_of(model, count=2, size=32)
    for _ in range(3):
        losses = model.train_step(batch)
    assert all(np.isfinite(float(value)) for value in losses.values())
    assert model.bad_loss() is None
    assert all(np.isfinite(weight.numpy()).all() for weight in model.network.weights)
    logits = model.network(batch["images"], training=False)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits.numpy()).all()


def test_equal_seeds_give_equal_starting_weights_and_other_seeds_others(name: str) -> None:
    first, again, other = (make(name, seed=seed).network.get_weights() for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    kernels = [index for index, weight in enumerate(first) if weight.ndim == 4]
    drawn = [index for index in kernels if first[index].std() > 0 and first[index].shape[0] != 16]
    moved = [index for index in drawn if not np.array_equal(first[index], other[index])]
    assert len(moved) >= 12  # all but interpolations and scores, which begin at zero
    heads = [first[index].ravel()[:8].tobytes() for index in moved]
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize("size", [64, 72])
def test_beliefs_have_the_size_of_the_picture_and_no_dropout(name: str, size: int) -> None:
    model = make(name, size=size)
    images = batch_of(model, size=size)["images"].numpy()
    found = model.probabilities(images, batch_size=3)
    assert found.shape == (4, size, size, 1)
    assert 0.0 <= found.min() <= found.max() <= 1.0
    np.testing.assert_allclose(found, model.probabilities(images), atol=1e-5)


def test_losses_without_weight_are_left_out_or_refused(name: str) -> None:
    if not name.startswith("dcan"):
        model = make(name, dice=1.0, cross_entropy=0.0)
        assert model.loss_names == ("loss", "dice")
        assert set(model.train_step(batch_of(model))) == {"loss", "dice"}
    with pytest.raises(ValueError, match="both 0"):
        make(name, dice=0.0, cross_entropy=0.0)


def test_all_state_but_fixed_interpolations_is_named(name: str) -> None:
    model = make(name)
    state = {id(variable) for variable in model.state().values()}
    fixed = {id(w) for w in model.network.non_trainable_weights if w.name == "kernel"}
    for variable in [*model.network.variables, *model.optimizers["network"].variables]:
        assert (id(variable) in state) != (id(variable) in fixed), variable.path
