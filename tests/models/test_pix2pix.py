"""Pix2Pix: who is trained by what, in every precision, alone and on two devices."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.batches import PairedBatch
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.losses.adversarial import ADVERSARIAL_LOSSES
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


def tiny(**changes: Any) -> Pix2Pix:
    small = {"generator_base": 4, "discriminator_base": 4, "discriminator": "patch10"}
    return Pix2Pix(Pix2PixConfig(**{**small, **changes}), 32, 1, 3, Schedule(10, 5), seed=3)


def cropped(pairs: dict[str, np.ndarray]) -> PairedBatch:
    source, target = (tf.constant(pairs[key][:2, 16:48, 16:48]) for key in ("source", "target"))
    return PairedBatch(source=source, target=target)


@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
def test_a_step_with_every_adversarial_loss_moves_both_players(loss: str, pairs: Any) -> None:
    model = tiny(adversarial=loss, lambda_l1=0.0)  # so that the generator hears this loss alone
    before = {name: network.get_weights() for name, network in model.networks.items()}
    losses = model.train_step(cropped(pairs))
    assert np.isfinite([float(value) for value in losses.values()]).all()
    for name, network in model.networks.items():
        kernels = [
            moved
            for moved, weight in zip(changed(before[name], network), network.weights, strict=True)
            if weight.name == "kernel"
        ]
        assert all(kernels), name
    assert ("penalty" in losses) == (loss == "wgan-gp")


def test_wgan_clips_its_critic_and_doubts_momentum(pairs: Any) -> None:
    model = tiny(adversarial="wgan")
    model.train_step(cropped(pairs))
    kernels = [weight for weight in model.discriminator.weights if weight.name == "kernel"]
    assert max(float(np.abs(kernel).max()) for kernel in kernels) == pytest.approx(0.01)
    (notice,) = model.notices
    assert notice.startswith("model.beta_1: 0.5")


def test_the_penalty_is_added_outside_the_factor_of_the_discriminator(pairs: Any) -> None:
    batch = cropped(pairs)
    plain, model = tiny(dropout=0.0), tiny(dropout=0.0, penalty="r1", penalty_weight=2.0)
    with tf.GradientTape() as tape:
        tape.watch(batch["target"])
        scores = model.discriminator([batch["source"], batch["target"]], training=True)
        total = tf.reduce_sum(scores[0])
    squares = tf.square(tape.gradient(total, batch["target"]))
    penalty = 16 * 2.0 / 2 * float(tf.reduce_mean(tf.reduce_sum(squares, axis=(1, 2, 3))))
    without, losses = plain.train_step(batch), model.train_step(batch)
    assert float(losses["penalty"]) == pytest.approx(penalty, rel=1e-4)
    difference = float(losses["discriminator"] - without["discriminator"])
    assert difference == pytest.approx(penalty, rel=1e-4)
    assert float(model.train_step(batch)["penalty"]) == 0.0  # due again in step 16


def test_a_penalty_beside_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="^model.penalty: .*layer1_norm"):
        make(norm="batch", penalty="gp")


def test_a_relativistic_generator_compares_with_the_trained_discriminator(pairs: Any) -> None:
    model = tiny(adversarial="ragan", dropout=0.0, lambda_l1=0.0)
    batch = cropped(pairs)
    fake = model.generator(batch["source"], training=True)
    generator_loss = float(model.train_step(batch)["generator"])
    real_logits, fake_logits = (  # D moved first
        model.discriminator([batch["source"], pictures], training=True)[0]
        for pictures in (batch["target"], fake)
    )
    expected = tf.reduce_mean(tf.nn.softplus(real_logits - tf.reduce_mean(fake_logits)))
    expected += tf.reduce_mean(tf.nn.softplus(tf.reduce_mean(real_logits) - fake_logits))
    assert generator_loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 2),  # both kinds at once for the discriminator, fakes for the generator
        ({"augment": "translation"}, 2),
        ({"adversarial": "rahinge"}, 3),
        ({"penalty": "gp"}, 3),
    ],
    ids=["plain", "augment", "relativistic", "gp"],
)
def test_a_step_calls_the_discriminator_no_more_than_it_must(
    settings: dict[str, Any], passes: int, pairs: Any
) -> None:
    model = tiny(**settings)
    calls = 0
    inner_call = model.discriminator.call

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return inner_call(*arguments, **options)

    model.discriminator.call = counting
    model.train_step(cropped(pairs))
    assert calls == passes


def test_augmentation_moves_both_pictures_alike_and_recolors_the_target_alone(pairs: Any) -> None:
    source = tf.constant(pairs["source"][:4])
    target = tf.tile(source, [1, 1, 1, 3])

    def views(policy: str) -> tuple[np.ndarray, np.ndarray]:
        model = make(augment=policy)
        model.discriminator = lambda pair, training: pair
        moved_source, moved_target = model._scores(source, target, 1)
        return moved_source.numpy(), moved_target.numpy()

    moved_source, moved_target = views("translation")
    np.testing.assert_array_equal(np.tile(moved_source, 3), moved_target)
    assert not np.array_equal(moved_source, source)
    kept_source, recolored = views("color")
    np.testing.assert_array_equal(kept_source, source)
    assert not np.array_equal(recolored, target)


def test_the_generator_learns_through_the_augmentation(pairs: Any) -> None:
    model = tiny(augment="color,translation,cutout", lambda_l1=0.0)
    before = model.generator.get_weights()
    model.train_step(cropped(pairs))
    kernels = [v.name == "kernel" for v in model.generator.weights]
    moved = changed(before, model.generator)
    assert all(m for m, kernel in zip(moved, kernels, strict=True) if kernel)


def test_real_and_generated_scores_and_the_discriminators_hits_are_tracked(pairs: Any) -> None:
    model = tiny(dropout=0.0)
    batch = cropped(pairs)
    fake = model.generator(batch["source"], training=True)
    real_logits, fake_logits = (
        model.discriminator([batch["source"], pictures], training=True)[0].numpy()
        for pictures in (batch["target"], fake)
    )
    losses = model.train_step(batch)
    assert float(losses["real_score"]) == pytest.approx(real_logits.mean(), rel=1e-4)
    hits = ((real_logits > 0).mean() + (fake_logits <= 0).mean()) / 2
    assert float(losses["sign_accuracy"]) == pytest.approx(hits, abs=1e-6)


def test_it_learns_four_pictures(pairs: Any) -> None:
    model = make(dropout=0.0, learning_rate=2e-3)
    step = tf.function(model.train_step)
    batch = first(pairs, 4)
    start = float(step(batch)["l1"])
    for _ in range(59):
        end = float(step(batch)["l1"])
    assert end < start / 4
    assert step.experimental_get_tracing_count() == 1


def test_a_gradient_penalty_trains_in_float16_with_a_large_loss_scale(pairs: Any) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tiny(adversarial="wgan-gp")
        losses = [model.train_step(cropped(pairs)) for _ in range(4)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in step.values()] for step in losses]).all()
    scale = model.optimizers["discriminator"].dynamic_scale
    assert float(scale) >= 2.0**13  # it begins at 2^15 and each overflow halves it


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


@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_lazy_penalty_beside_augmentation_compiles_once(xla: bool, pairs: Any) -> None:
    model = tiny(adversarial="ragan", penalty="r1", augment="color,translation")
    step = tf.function(model.train_step, jit_compile=xla)
    penalties = [float(step(cropped(pairs))["penalty"]) for _ in range(2)]
    assert penalties[0] > 0
    assert penalties[1] == 0.0
    assert step.experimental_get_tracing_count() == 1


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
