"""Pix2Pix: who is trained by what, in every precision, alone and on two devices."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.batches import PairedBatch
from tfgan_med.models.base import Schedule
from tfgan_med.models.pix2pix import Pix2Pix, Pix2PixConfig

SMALL = {"generator_base": 8, "discriminator_base": 8, "discriminator": "patch22"}


def make(**changes: Any) -> Pix2Pix:
    return Pix2Pix(Pix2PixConfig(**{**SMALL, **changes}), 64, 1, 3, Schedule(10, 5), seed=3)


@pytest.fixture(scope="module")
def pairs() -> dict[str, np.ndarray]:
    """Discs as condition; the picture shows them dark on a bright ground."""
    draw = np.random.default_rng(5)
    rows, columns = np.mgrid[:64, :64]
    centres = draw.uniform(16, 48, size=(8, 2, 1, 1))
    inside = ((rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < 144)[..., None]
    picture = np.where(inside, [-0.6, -0.2, 0.5], [0.7, 0.6, 0.6])
    return {
        "source": np.where(inside, 1.0, -1.0).astype("float32"),
        "target": picture.astype("float32"),
    }


def first(pairs: dict[str, np.ndarray], count: int) -> PairedBatch:
    return PairedBatch(
        source=tf.constant(pairs["source"][:count]), target=tf.constant(pairs["target"][:count])
    )


def changed(before: list[np.ndarray], network: keras.Model) -> list[bool]:
    return [
        not np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True)
    ]


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_step_moves_every_weight_of_both_players(norm: str, pairs: Any) -> None:
    model = make(norm=norm, num_scales=2)
    before = {name: network.get_weights() for name, network in model.networks.items()}
    for _ in range(2):  # biases behind ReLUs that are still at zero move in the second step
        model.train_step(first(pairs, 2))
    for name, network in model.networks.items():
        assert all(changed(before[name], network)), name


def test_the_generator_step_leaves_the_discriminator_alone(pairs: Any) -> None:
    model = make()
    model.own_optimizer("discriminator", keras.optimizers.SGD(0.0), model.discriminator)
    before = model.discriminator.get_weights()
    model.train_step(first(pairs, 2))
    assert not any(changed(before, model.discriminator))


def test_the_loss_is_adversarial_plus_lambda_times_l1(pairs: Any) -> None:
    model = make(dropout=0.0, lambda_l1=7.0)
    batch = first(pairs, 2)
    fake = model.generator(batch["source"], training=True)
    losses = {name: float(value) for name, value in model.train_step(batch).items()}
    logits = model.discriminator([batch["source"], fake], training=True)[0]  # D moved first
    adversarial = float(tf.reduce_mean(tf.nn.softplus(-logits)))
    l1 = float(tf.reduce_mean(tf.abs(batch["target"] - fake)))
    assert losses["l1"] == pytest.approx(l1, rel=1e-5)
    assert losses["generator"] == pytest.approx(adversarial + 7.0 * l1, rel=1e-5)


def test_the_discriminator_loss_is_half_the_two_cross_entropies(pairs: Any) -> None:
    model = make(dropout=0.0)
    batch = first(pairs, 2)
    fake = model.generator(batch["source"], training=True)
    real_logits = model.discriminator([batch["source"], batch["target"]], training=True)[0]
    fake_logits = model.discriminator([batch["source"], fake], training=True)[0]
    expected = 0.5 * float(
        tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(tf.nn.softplus(fake_logits))
    )
    assert float(model.train_step(batch)["discriminator"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["hinge", "lsgan", "minimax", "wgan"])
def test_the_adversarial_loss_is_chosen_by_name(loss: str, pairs: Any) -> None:
    losses = make(adversarial=loss).train_step(first(pairs, 2))
    assert np.isfinite([float(value) for value in losses.values()]).all()


def test_it_learns_four_pictures(pairs: Any) -> None:
    model = make(dropout=0.0, learning_rate=2e-3)
    step = tf.function(model.train_step)
    batch = first(pairs, 4)
    start = float(step(batch)["l1"])
    for _ in range(59):
        end = float(step(batch)["l1"])
    assert end < start / 4
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_stays_finite(policy: str, pairs: Any) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        losses = [model.train_step(first(pairs, 2)) for _ in range(4)]
        fake = model.translate(pairs["source"][:2])
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in step.values()] for step in losses]).all()
    assert fake.dtype == tf.float32
    assert float(tf.reduce_max(tf.abs(fake))) <= 1.0
    assert {v.dtype for v in model.generator.trainable_variables} == {"float32"}


def test_xla_compiles_the_step(pairs: Any) -> None:
    model = make()
    losses = tf.function(model.train_step, jit_compile=True)(first(pairs, 2))
    assert np.isfinite([float(value) for value in losses.values()]).all()


def test_instance_norm_translates_a_picture_the_same_in_any_batch(pairs: Any) -> None:
    model = make()
    together = model.translate(pairs["source"][:4]).numpy()
    alone = model.translate(pairs["source"][1:2]).numpy()
    np.testing.assert_allclose(together[1], alone[0], atol=2e-5)


def test_batch_norm_translates_one_picture_at_a_time(pairs: Any) -> None:
    model = make(norm="batch", dropout=0.0)
    together = model.translate(pairs["source"][:4]).numpy()
    alone = model.translate(pairs["source"][1:2]).numpy()
    np.testing.assert_allclose(together[1], alone[0], atol=2e-5)


def test_stochastic_translation_is_a_function_of_its_seed(pairs: Any) -> None:
    model = make()
    source = pairs["source"][:1]
    plain, once, again, other = (
        model.translate(source, stochastic, seed).numpy()
        for stochastic, seed in ((False, 1), (True, 1), (True, 1), (True, 2))
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert not np.array_equal(once, plain)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_translating_changes_nothing_that_training_uses(norm: str, pairs: Any) -> None:
    model = make(norm=norm)
    before = {name: variable.numpy() for name, variable in model.state().items()}
    model.translate(pairs["source"][:2], stochastic=True)
    for name, variable in model.state().items():
        np.testing.assert_array_equal(variable.numpy(), before[name], err_msg=name)


def test_the_moving_average_translates(pairs: Any) -> None:
    model = make(ema=0.9)
    model.train_step(first(pairs, 2))
    model.generator.set_weights([np.zeros_like(w) for w in model.generator.get_weights()])
    assert float(tf.reduce_max(tf.abs(model.translate(pairs["source"][:1])))) > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_devices_give_the_weights_of_one(optimizer: str, pairs: Any) -> None:
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")

    def train(strategy: tf.distribute.Strategy) -> list[np.ndarray]:
        with strategy.scope():
            # Dropout draws per device, so only a model without it can agree.
            model = make(dropout=0.0)
            if optimizer == "sgd":
                for name in ("generator", "discriminator"):
                    sgd = keras.optimizers.SGD(1e-3)  # larger steps cross the kinks of L1
                    model.own_optimizer(name, sgd, model.networks[name])
        data = tf.data.Dataset.from_tensor_slices(pairs).batch(4).repeat()
        batches = iter(strategy.experimental_distribute_dataset(data))
        step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
        for _ in range(4):
            step(next(batches))
        assert np.isfinite(list(model.loss_means().values())).all()
        weights: list[np.ndarray] = (
            model.generator.get_weights() + model.discriminator.get_weights()
        )
        return weights

    one = train(tf.distribute.OneDeviceStrategy(cpus[0].name))
    two = train(
        tf.distribute.MirroredStrategy(
            [cpu.name for cpu in cpus[:2]],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    )
    worst = max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
    assert worst < 1e-5


def test_a_float16_overflow_on_one_device_skips_the_step_on_all(pairs: Any) -> None:
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")
    strategy = tf.distribute.MirroredStrategy(
        [cpu.name for cpu in cpus[:2]], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with strategy.scope():
            model = make(dropout=0.0)
    finally:
        keras.config.set_dtype_policy("float32")
    before = model.generator.get_weights()
    target = pairs["target"][:2].copy()
    target[1] = np.inf  # the second device's share
    data = tf.data.Dataset.from_tensor_slices(
        {"source": pairs["source"][:2], "target": target}
    ).batch(2)
    step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    for batch in strategy.experimental_distribute_dataset(data):
        step(batch)
    assert not any(changed(before, model.generator))
    for weight in model.generator.trainable_variables:
        for copy in strategy.experimental_local_results(weight.value):
            assert np.isfinite(copy.numpy()).all()
