"""CycleGAN: which term trains which network, the pools, and the step against a plain one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.batches import DomainBatch
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.models.cyclegan import CycleGAN, CycleGANConfig, ImagePool

SIZE = 32
SMALL = {
    "generator_base": 4,
    "discriminator_base": 4,
    "discriminator": "patch10",
    "blocks": 1,
    "pool_size": 3,
}
PLAYERS = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")


def make(a_channels: int = 3, b_channels: int = 3, **changes: Any) -> CycleGAN:
    config = CycleGANConfig(**{**SMALL, **changes})
    return CycleGAN(config, SIZE, a_channels, b_channels, Schedule(200, 5), seed=3)


def batch(count: int = 2, start: int = 0, a_channels: int = 3) -> DomainBatch:
    """A: dark discs on bright ground; B: bright stripes."""
    draw = np.random.default_rng(start)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    centres = draw.uniform(8, 24, size=(count, 2, 1, 1))
    inside = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < 36
    stripes = np.sin(columns / 2 + draw.uniform(0, 6, (count, 1, 1))) * 0.8
    a = np.where(inside, -0.6, 0.7)[..., None] + draw.normal(0, 0.02, (count, SIZE, SIZE, 3))
    b = stripes[..., None] + draw.normal(0, 0.02, (count, SIZE, SIZE, 3))
    return DomainBatch(a=tf.constant(a[..., :a_channels], tf.float32), b=tf.constant(b, tf.float32))


def changed(before: list[np.ndarray], network: keras.Model) -> list[bool]:
    return [
        not np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True)
    ]


def kernels(network: keras.Model) -> list[keras.Variable]:
    """Biases in front of an instance norm have no effect: their gradients are rounding."""
    return [v for v in network.trainable_variables if len(v.shape) == 4]


def with_strong_weights(model: CycleGAN) -> CycleGAN:
    """Weights of deviation 0.2, so that no gradient is lost in rounding."""
    for name in PLAYERS:
        for kernel in kernels(model.networks[name]):
            kernel.assign(10.0 * kernel.value)
    return model


def reached(model: CycleGAN, tape: tf.GradientTape, loss: Any) -> set[str]:
    """Networks all of whose kernels have a gradient; none may have some only."""
    found = set()
    for name in PLAYERS:
        gradients = tape.gradient(loss, [v.value for v in kernels(model.networks[name])])
        moved = [g is not None and float(tf.reduce_max(tf.abs(g))) > 0 for g in gradients]
        assert all(moved) or not any(moved), name
        if all(moved):
            found.add(name)
    return found


BOTH = {"generator_ab", "generator_ba"}
REACHED_BY = {
    "adversarial_ab": {"generator_ab"},  # D_B(G(a)); D_B stands still in this step
    "adversarial_ba": {"generator_ba"},
    "cycle_a": BOTH,  # F(G(a))
    "cycle_b": BOTH,  # G(F(b))
    "identity_a": {"generator_ba"},  # F(a)
    "identity_b": {"generator_ab"},  # G(b)
}


@pytest.mark.parametrize("generator", ["resnet", "unet"])
def test_each_term_of_the_generators_reaches_the_weights_it_should(generator: str) -> None:
    model, x = with_strong_weights(make(generator=generator)), batch()
    with tf.GradientTape(persistent=True) as tape:
        terms = model.generator_terms(x, model.translations(x))
    trained = BOTH  # what the optimizer "generators" owns
    assert {n: reached(model, tape, v) & trained for n, (_, v) in terms.items()} == REACHED_BY
    # Without the adversarial terms no discriminator is seen at all.
    for name in ("cycle_a", "cycle_b", "identity_a", "identity_b"):
        assert reached(model, tape, terms[name][1]) == REACHED_BY[name]
    assert reached(model, tape, terms["adversarial_ab"][1]) == {"generator_ab", "discriminator_b"}
    assert reached(model, tape, terms["adversarial_ba"][1]) == {"generator_ba", "discriminator_a"}


@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_the_loss_of_a_discriminator_reaches_it_alone(penalty: str) -> None:
    model, x = with_strong_weights(make(penalty=penalty, penalty_interval=1)), batch()
    made = model.translations(x)
    with tf.GradientTape(persistent=True) as tape:
        verdicts = model.verdicts(x, made.fake_a, made.fake_b)
        terms = model.discriminator_terms(verdicts)
    assert reached(model, tape, terms["discriminator_a"][1]) == {"discriminator_a"}
    assert reached(model, tape, terms["discriminator_b"][1]) == {"discriminator_b"}
    if penalty == "r1":
        assert reached(model, tape, terms["penalty_a"][1]) == {"discriminator_a"}
        assert reached(model, tape, terms["penalty_b"][1]) == {"discriminator_b"}


def plain_step(model: CycleGAN, x: DomainBatch, rate: float) -> dict[str, list[np.ndarray]]:
    """Weights after one step of gradient descent on the objectives as the paper writes them, one
    picture and one network call at a time."""
    to_b, to_a, judge_a, judge_b = (model.networks[name] for name in PLAYERS)
    pairs = [(x["a"][i : i + 1], x["b"][i : i + 1]) for i in range(x["a"].shape[0])]

    def distance(first: Any, second: Any) -> Any:
        return tf.reduce_mean(tf.abs(first - second))

    def square(scores: Any, wanted: float) -> Any:
        return tf.reduce_mean((scores[0] - wanted) ** 2)

    with tf.GradientTape(persistent=True) as tape:
        generators = discriminators = 0.0
        for a, b in pairs:
            fake_b, fake_a = to_b(a), to_a(b)
            cycle = distance(to_a(fake_b), a) + distance(to_b(fake_a), b)
            identity = distance(to_b(b), b) + distance(to_a(a), a)
            fooled = square(judge_b(fake_b), 1.0) + square(judge_a(fake_a), 1.0)
            generators += (fooled + 10.0 * cycle + 0.5 * 10.0 * identity) / len(pairs)
            discriminators += 0.5 / len(pairs) * (
                square(judge_a(a), 1.0) + square(judge_a(tf.stop_gradient(fake_a)), 0.0)
                + square(judge_b(b), 1.0) + square(judge_b(tf.stop_gradient(fake_b)), 0.0)
            )  # fmt: skip
    after = {}
    for name in PLAYERS:
        objective = generators if name.startswith("generator") else discriminators
        weights = [v.value for v in model.networks[name].trainable_variables]
        gradients = tape.gradient(objective, weights)
        after[name] = [
            w.numpy() - rate * g.numpy() for w, g in zip(weights, gradients, strict=True)
        ]
    after["losses"] = [np.array([float(generators), float(discriminators)])]
    return after


def test_a_step_is_gradient_descent_on_the_papers_objectives() -> None:
    model, rate = make(pool_size=50), 1e-3
    for name, networks in (("generators", PLAYERS[:2]), ("discriminators", PLAYERS[2:])):
        sgd = keras.optimizers.SGD(rate)
        model.own_optimizer(name, sgd, *(model.networks[network] for network in networks))
    for start in range(2):  # the second step begins where the first has ended
        x = batch(3, start)
        expected = plain_step(model, x, rate)
        before = {name: model.networks[name].get_weights() for name in PLAYERS}
        losses = model.train_step(x)
        measured = [float(losses["generators"]), float(losses["discriminators"])]
        np.testing.assert_allclose(measured, expected["losses"][0], rtol=1e-5)
        for name in PLAYERS:
            for old, new, wanted in zip(
                before[name], model.networks[name].get_weights(), expected[name], strict=True
            ):
                largest = np.abs(wanted - old).max()
                np.testing.assert_allclose(
                    new, wanted, rtol=0, atol=1e-4 * largest + 1e-8, err_msg=name
                )


def test_two_steps_move_every_kernel() -> None:
    model = make()
    before = {name: model.networks[name].get_weights() for name in PLAYERS}
    for _ in range(2):
        model.train_step(batch())
    for name in PLAYERS:
        assert all(changed(before[name], model.networks[name])), name


def test_reported_losses_are_sums_of_both_directions() -> None:
    model, x = make(), batch()
    values = {n: float(v) for n, (_, v) in model.generator_terms(x, model.translations(x)).items()}
    losses = {name: float(value) for name, value in model.train_step(x).items()}
    assert losses["cycle"] == pytest.approx(values["cycle_a"] + values["cycle_b"], rel=1e-5)
    assert losses["identity"] == pytest.approx(
        values["identity_a"] + values["identity_b"], rel=1e-5
    )
    assert losses["adversarial_ab"] == pytest.approx(values["adversarial_ab"], rel=1e-5)
    assert 0.0 <= losses["sign_accuracy"] <= 1.0


# Pools ------------------------------------------------------------------------------------------


def numbered(first: int, count: int) -> Any:
    """Pictures of one pixel that hold their own number."""
    return tf.reshape(tf.range(first, first + count, dtype=tf.float32), (count, 1, 1, 1))


def asked(pool: ImagePool, first: int, count: int, step: int) -> list[int]:
    answer = pool.exchange(numbered(first, count), tf.constant([7, step], tf.int64))
    return [int(value) for value in tf.reshape(answer, [-1])]


def test_the_first_fifty_pictures_come_back() -> None:
    pool = ImagePool(50, (1, 1, 1), "pool")
    for step in range(50):
        assert asked(pool, step, 1, step) == [step]
    stored = pool.state["pool"].numpy().ravel()
    np.testing.assert_array_equal(stored, np.arange(50))
    assert int(pool.state["pool_count"].numpy()) == 50


def test_a_full_pool_returns_the_new_picture_or_swaps_it_for_an_old_one() -> None:
    pool = ImagePool(10, (1, 1, 1), "pool")
    kept, swaps, places = [], 0, set()
    for step in range(400):
        before = pool.state["pool"].numpy().ravel().tolist()
        (answer,) = asked(pool, step, 1, step)
        after = pool.state["pool"].numpy().ravel().tolist()
        if step < 10:
            continue
        if answer == step:
            assert after == before
            kept.append(step)
        else:
            place = before.index(answer)
            assert after == [*before[:place], step, *before[place + 1 :]]
            places.add(place)
            swaps += 1
    assert abs(swaps - 195) < 3 * np.sqrt(390 / 4)  # p = 1/2
    assert places == set(range(10))


def test_pictures_of_a_batch_are_asked_for_one_after_the_other() -> None:
    pool = ImagePool(3, (1, 1, 1), "pool")
    assert asked(pool, 0, 2, 0) == [0, 1]
    answer = asked(pool, 2, 8, 1)
    assert answer[0] == 2  # the third picture still finds a place
    shown, left = [0, 1, *answer], pool.state["pool"].numpy().ravel().astype(int).tolist()
    assert set(left) <= set(range(10))
    assert any(number != place for place, number in enumerate(answer, start=2))
    assert all(number <= place for place, number in enumerate(shown))  # none from the future


def test_a_pool_of_nothing_returns_what_comes_in() -> None:
    pool = ImagePool(0, (1, 1, 1), "pool")
    assert pool.state == {}
    assert asked(pool, 5, 3, 0) == [5, 6, 7]


def test_a_pool_does_the_same_when_compiled() -> None:
    plain, compiled = (ImagePool(4, (1, 1, 1), "pool") for _ in range(2))
    exchange = tf.function(compiled.exchange)
    for step in range(20):
        seed = tf.constant([7, step], tf.int64)
        np.testing.assert_array_equal(
            exchange(numbered(step, 2), seed), plain.exchange(numbered(step, 2), seed)
        )
    assert exchange.experimental_get_tracing_count() == 1


def test_the_discriminators_are_shown_what_the_pool_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImagePool, "exchange", lambda self, images, seed: tf.ones_like(images))
    model, x = make(), batch()
    real, fake = (model.discriminator_b(images)[0] for images in (x["b"], tf.ones_like(x["b"])))
    other = model.discriminator_a(tf.ones_like(x["a"]))[0]
    expected = (float(tf.reduce_mean(fake)) + float(tf.reduce_mean(other))) / 2
    losses = model.train_step(x)
    assert float(losses["fake_score"]) == pytest.approx(expected, rel=1e-4)
    assert float(losses["real_score"]) != pytest.approx(float(tf.reduce_mean(real)), rel=1e-4)


# Running ----------------------------------------------------------------------------------------


def test_a_step_is_traced_once_and_learns() -> None:
    model = make(generator_base=8, learning_rate=2e-3)
    step = tf.function(model.train_step)
    x = batch(4)
    start = {name: float(value) for name, value in step(x).items()}
    for _ in range(59):
        end = {name: float(value) for name, value in step(x).items()}
    assert end["cycle"] < start["cycle"] / 2
    assert end["identity"] < start["identity"] / 2
    assert step.experimental_get_tracing_count() == 1


def test_a_copied_state_continues_to_the_bit() -> None:
    first = make(augment="color,translation", ema=0.9)
    step = tf.function(first.train_step)
    for index in range(4):  # the pools of three pictures are full
        step(batch(2, index))
    second = make(augment="color,translation", ema=0.9)
    source, target = first.state(), second.state()
    assert source.keys() == target.keys()
    for name, variable in target.items():
        variable.assign(source[name].value)
    again = tf.function(second.train_step)
    for index in range(4, 7):
        step(batch(2, index))
        again(batch(2, index))
    for name, variable in target.items():
        np.testing.assert_array_equal(variable.numpy(), source[name].numpy(), err_msg=name)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_stays_finite(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        step = tf.function(model.train_step)
        losses = [step(batch(2, index)) for index in range(4)]
        fake = model.translate(batch()["a"])
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in values.values()] for values in losses]).all()
    assert fake.dtype == tf.float32
    assert float(tf.reduce_max(tf.abs(fake))) <= 1.0
    assert {v.dtype for v in model.generator_ab.trainable_variables} == {"float32"}


def test_xla_compiles_the_step() -> None:
    model = make()
    losses = tf.function(model.train_step, jit_compile=True)(batch(1))
    assert np.isfinite([float(value) for value in losses.values()]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"adversarial": "nonsaturating", "generator": "unet"},
        {"adversarial": "wgan-gp", "augment": "color,translation"},
        {"adversarial": "rahinge", "lambda_identity": 0.0},
        {"adversarial": "wgan", "pool_size": 0},
    ],
)
def test_losses_penalties_and_generators_can_be_chosen(changes: dict[str, Any]) -> None:
    model = make(**changes)
    before = {name: model.networks[name].get_weights() for name in PLAYERS}
    losses = {name: float(value) for name, value in model.train_step(batch()).items()}
    assert np.isfinite(list(losses.values())).all()
    assert ("identity" in losses) == ("lambda_identity" not in changes)
    assert ("penalty" in losses) == (changes["adversarial"] == "wgan-gp")
    for name in PLAYERS:
        assert any(changed(before[name], model.networks[name])), name


def two_cpus() -> list[str]:
    cpus = [cpu.name for cpu in tf.config.list_logical_devices("CPU")]
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")
    return cpus[:2]


def test_two_devices_give_the_weights_and_pools_of_one() -> None:
    cpus = two_cpus()
    pictures = {key: np.concatenate([batch(4, i)[key] for i in range(3)]) for key in ("a", "b")}

    def train(strategy: tf.distribute.Strategy) -> dict[str, npt.NDArray[Any]]:
        with strategy.scope():
            model = make()
            for name, networks in (("generators", PLAYERS[:2]), ("discriminators", PLAYERS[2:])):
                sgd = keras.optimizers.SGD(1e-4)
                model.own_optimizer(name, sgd, *(model.networks[n] for n in networks))
        data = tf.data.Dataset.from_tensor_slices(pictures).batch(4)
        step = tf.function(lambda x: strategy.run(model.train_step, args=(x,)))
        for x in strategy.experimental_distribute_dataset(data):
            step(x)
        for name, variable in model.extra_state.items():
            copies = [c.numpy() for c in strategy.experimental_local_results(variable.value)]
            assert all(np.array_equal(copies[0], copy) for copy in copies), name
        return {name: v.numpy() for name, v in model.state().items() if "optimizer" not in name}

    one = train(tf.distribute.OneDeviceStrategy(cpus[0]))
    two = train(
        tf.distribute.MirroredStrategy(cpus, cross_device_ops=tf.distribute.ReductionToOneDevice())
    )
    assert int(one["extra/pool_a_count"]) == 3
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=0, atol=2e-6, err_msg=name)


# Settings and use -------------------------------------------------------------------------------


def test_domains_of_other_channels_need_identity_off() -> None:
    with pytest.raises(UserError, match="model.lambda_identity: 0.5 .* A has 1 and B 3"):
        make(a_channels=1)
    model = make(a_channels=1, lambda_identity=0.0)
    assert "identity" not in model.train_step(batch(2, a_channels=1))
    assert model.translate(batch(2, a_channels=1)["a"]).shape == (2, SIZE, SIZE, 3)


@pytest.mark.parametrize(("size", "blocks"), [(64, 6), (128, 6), (256, 9)])
def test_larger_pictures_get_more_blocks(size: int, blocks: int) -> None:
    config = CycleGANConfig(generator_base=4)
    model = CycleGAN(config, size, 1, 1, inference=True)
    names = {layer.name for layer in model.generator_ab.layers if layer.name.endswith("_sum")}
    assert names == {f"block{index}_sum" for index in range(blocks)}
    assert set(model.networks) == set(model.exports)


def test_the_rate_is_constant_for_half_of_the_epochs_then_falls() -> None:
    model = make()
    rate = model.optimizers["generators"]._learning_rate
    factors = [float(rate(5 * epoch)) / 2e-4 for epoch in (0, 99, 100, 199)]
    np.testing.assert_allclose(factors, [1, 1, 1 - 1 / 101, 1 - 100 / 101], rtol=1e-5)


def test_each_direction_has_its_generator() -> None:
    model, x = make(), batch()
    for direction, name in (("a2b", "generator_ab"), ("b2a", "generator_ba")):
        fake = model.translate(x["a"], direction)
        np.testing.assert_array_equal(fake, model.networks[name](x["a"]))
    with pytest.raises(UserError, match='direction is "b2c". Expected a2b or b2a'):
        model.translate(x["a"], "b2c")


def test_the_moving_average_translates() -> None:
    model, x = make(ema=0.9), batch()
    model.train_step(x)
    for name in model.exports:
        network = model.networks[name]
        network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    for direction in ("a2b", "b2a"):
        assert float(tf.reduce_max(tf.abs(model.translate(x["a"], direction)))) > 0


def test_a_u_net_drops_features_only_when_asked() -> None:
    config = CycleGANConfig(**{**SMALL, "generator": "unet"})
    model = CycleGAN(config, 64, 1, 1, seed=3)
    x = tf.random.stateless_uniform((2, 64, 64, 1), (1, 2), -1.0, 1.0)
    before = {name: variable.numpy() for name, variable in model.state().items()}
    plain, again, once, twice = (
        model.translate(x, "b2a", stochastic, seed).numpy()
        for stochastic, seed in ((False, 0), (False, 1), (True, 1), (True, 1))
    )
    assert np.array_equal(plain, again)
    assert np.array_equal(once, twice)
    assert not np.array_equal(plain, once)
    for name, variable in model.state().items():
        np.testing.assert_array_equal(variable.numpy(), before[name], err_msg=name)
