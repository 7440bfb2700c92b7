"""The game that settings describe: what runs, what is refused, what is doubted."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfgan_med.errors import UserError
from tfgan_med.layers.normalization import InstanceNormalization
from tfgan_med.losses.adversarial import ADVERSARIAL_LOSSES
from tfgan_med.losses.game import Game, GameConfig, mean_score, sign_accuracy
from tfgan_med.models.base import GenerativeModel

SEED = tf.constant([1, 2], tf.int64)
PENALTIES = ["gp", "gp-one-sided", "dragan", "r1", "r2", "drift"]


def critic(*between: keras.layers.Layer) -> keras.Model:
    """One convolution, the given layers, one score."""
    keras.utils.set_random_seed(5)
    head = [layers.Activation("tanh"), layers.Flatten(), layers.Dense(1, name="head")]
    stack = [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, name="first"), *between, *head]
    return keras.Sequential(stack, name="discriminator")


def game(*between: keras.layers.Layer, beta_1: float | None = None, **settings: Any) -> Game:
    return Game(GameConfig(**settings), critic(*between), beta_1)


def plane(x: Any) -> Any:
    """Slope 5 everywhere."""
    return 3.0 * x[:, 0] + 4.0 * x[:, 1]


def value(penalty_of: Game, step: int = 0, mask: Any = None) -> float:
    real, fake = tf.constant([[1.0, 0.0], [0.0, 2.0]]), tf.constant([[1.0, 1.0], [0.0, 0.0]])
    return float(penalty_of.penalty(plane, real, fake, SEED, tf.constant(step), mask))


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_every_loss_is_chosen_by_name(name: str) -> None:
    chosen = game(adversarial=name)
    real, fake = tf.constant([2.0, -1.0]), tf.constant([-2.0, 0.5])
    pair = ADVERSARIAL_LOSSES[name]
    assert chosen.needs_real == pair.needs_real
    assert float(chosen.discriminator_loss(real, fake)) == float(pair.discriminator(real, fake))
    assert float(chosen.generator_loss(fake, real)) == float(pair.generator(fake, real))


def test_options_reach_the_loss() -> None:
    real, fake = tf.constant([2.0, -1.0]), tf.constant([-2.0, 0.5])
    half = game(adversarial="lsgan", half=True)
    assert float(half.discriminator_loss(real, fake)) == pytest.approx(2.3125)
    smoothed = game(label_smoothing=0.9)
    assert float(smoothed.discriminator_loss(real, fake)) == pytest.approx(1.3205973469)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [  # slope 5: (5 - 1)^2 = 16, 25 / 2; real scores 3 and 8
        ({"penalty": "gp"}, 160.0),
        ({"adversarial": "wgan-gp"}, 160.0),
        ({"adversarial": "wgan-gp", "penalty": "gp-one-sided"}, 160.0),
        ({"penalty": "dragan"}, 160.0),
        ({"penalty": "gp", "penalty_weight": 0.5}, 8.0),
        ({"penalty": "r1", "penalty_interval": 1}, 125.0),
        ({"penalty": "r2", "penalty_interval": 1}, 125.0),
        ({"penalty": "r1", "penalty_interval": 1, "penalty_weight": 2.0}, 25.0),
        ({"penalty": "drift"}, 0.0365),
        ({}, 0.0),
    ],
)
def test_the_weight_is_the_papers_unless_given(settings: dict[str, Any], expected: float) -> None:
    chosen = game(**settings)
    assert chosen.has_penalty == (expected > 0)
    assert value(chosen) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({"penalty": "r1"}, [0, 16]),
        ({"penalty": "r2", "penalty_interval": 5}, [0, 5, 10, 15, 20]),
        ({"penalty": "gp", "penalty_interval": 8}, [0, 8, 16]),
    ],
)
def test_a_lazy_penalty_has_the_mean_of_one_at_every_step(
    settings: dict[str, Any], due: list[int]
) -> None:
    chosen = game(**settings)
    values = [value(chosen, step) for step in range(21)]
    assert [step for step, found in enumerate(values) if found] == due
    always = value(game(**{**settings, "penalty_interval": 1}))
    interval = chosen.penalty_interval
    assert np.mean(values[:interval]) == pytest.approx(always, rel=1e-6)


def test_the_mask_reaches_the_penalty() -> None:
    first_only = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    assert value(game(penalty="gp"), mask=first_only) == pytest.approx(10 * (3 - 1) ** 2)


@pytest.mark.parametrize("penalty", ["gp", "gp-one-sided", "dragan", "r1", "r2"])
def test_a_penalty_on_slopes_beside_batch_norm_names_the_layer(penalty: str) -> None:
    norm = layers.BatchNormalization(name="norm_7")
    with pytest.raises(UserError, match=rf'^model.penalty: "{penalty}".*norm_7.*instance'):
        game(norm, penalty=penalty)


def test_batch_norm_inside_a_nested_network_is_found() -> None:
    block = keras.Sequential([layers.BatchNormalization(name=f"deep_{i}") for i in range(5)])
    with pytest.raises(
        UserError, match=r"^model.adversarial: .*wgan-gp.*(deep_\d, ){2}deep_\d and 2 more"
    ):
        game(block, adversarial="wgan-gp")


@pytest.mark.parametrize("norm", [InstanceNormalization, layers.GroupNormalization])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_other_norms_and_every_penalty_go_together(norm: Any, penalty: str) -> None:
    options = {"groups": 2} if norm is layers.GroupNormalization else {}
    assert game(norm(**options), penalty=penalty).notices == []


def test_batch_norm_without_a_penalty_on_slopes_is_fine() -> None:
    assert game(layers.BatchNormalization()).notices == []
    assert game(layers.BatchNormalization(), penalty="drift").notices == []
    assert game(layers.BatchNormalization(), adversarial="wgan").notices == []


def test_clipping_and_a_penalty_on_slopes_exclude_each_other() -> None:
    with pytest.raises(UserError, match=r'^model.penalty: "gp".*0.01.*wgan-gp.*model.clip=0'):
        game(adversarial="wgan", penalty="gp")
    assert game(adversarial="wgan", penalty="gp", clip=0.0).notices == []
    assert game(adversarial="wgan", penalty="drift").has_penalty


def test_wgan_gp_keeps_a_penalty_that_holds_the_slope() -> None:
    with pytest.raises(UserError, match=r'^model.penalty: "r1".*wgan-gp'):
        game(adversarial="wgan-gp", penalty="r1")


def test_mistaken_names_and_options_are_refused() -> None:
    with pytest.raises(UserError, match=r'^model.adversarial: .*"wgangp".*"wgan-gp"'):
        game(adversarial="wgangp")
    with pytest.raises(UserError, match="^model.label_smoothing: "):
        game(adversarial="hinge", label_smoothing=0.9)
    with pytest.raises(UserError, match="^model.half: "):
        game(adversarial="ralsgan", half=True)


class SpectralConv2D(layers.Conv2D):
    """Named like the layer of `layers/spectral.py`."""


def test_doubtful_settings_are_said() -> None:
    for key, name in (("penalty", "gp"), ("penalty", "dragan"), ("adversarial", "wgan-gp")):
        chosen = GameConfig.model_validate({key: name})
        (notice,) = Game(chosen, critic(SpectralConv2D(4, 3, name="narrow"))).notices
        assert notice.startswith(f"model.{key}: ")
        assert name in notice
        assert "narrow" in notice
    assert game(SpectralConv2D(4, 3), penalty="r1").notices == []
    wrapped = layers.SpectralNormalization(layers.Conv2D(4, 3))
    assert len(game(wrapped, penalty="gp").notices) == 1

    (notice,) = game(adversarial="wgan", beta_1=0.5).notices
    assert notice.startswith('model.beta_1: 0.5 with "wgan"')
    assert game(adversarial="wgan", beta_1=0.0).notices == []
    assert game(adversarial="wgan-gp", beta_1=0.5).notices == []
    (notice,) = game(adversarial="wgan", clip=0.0).notices
    assert "nothing bounds" in notice
    (notice,) = game(SpectralConv2D(4, 3), adversarial="wgan").notices
    assert notice.startswith("model.clip: spectral")
    (notice,) = game(penalty_weight=3.0).notices
    assert notice.startswith("model.penalty_weight: has no effect")


def test_clipping_bounds_every_weight_but_the_scales_of_norms() -> None:
    norms = (layers.BatchNormalization(name="norm"), InstanceNormalization(name="instance"))
    discriminator = critic(*norms)
    for variable in discriminator.trainable_variables:
        variable.assign(tf.ones_like(variable.value))
    Game(GameConfig(adversarial="wgan", clip=0.02), discriminator).constrain()
    for variable in discriminator.trainable_variables:
        expected = 1.0 if variable.name == "gamma" else 0.02
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)


def test_nothing_is_clipped_for_another_loss() -> None:
    for settings in ({}, {"adversarial": "wgan-gp"}, {"adversarial": "wgan", "clip": 0.0}):
        discriminator = critic()
        before = discriminator.get_weights()
        Game(GameConfig(**settings), discriminator).constrain()
        for old, new in zip(before, discriminator.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_scores_are_averaged_over_scales_and_signs_counted() -> None:
    real = [tf.constant([[2.0], [-1.0]]), tf.constant([[3.0]])]
    fake = [tf.constant([[-2.0], [0.0]], tf.float16), tf.constant([[4.0]], tf.float16)]
    assert float(mean_score(real)) == pytest.approx((0.5 + 3.0) / 2)
    assert float(mean_score(real[0])) == pytest.approx(0.5)
    # right: half and all of the real scores, all and none of the others
    assert float(sign_accuracy(real, fake)) == pytest.approx(((0.5 + 1) / 2 + (1 + 0) / 2) / 2)
    assert float(sign_accuracy(tf.constant([-1.0]), tf.constant([1.0]))) == 0.0


class Critic(GenerativeModel):
    """A discriminator that plays against negatives of the images."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["loss", "penalty"])
        self.discriminator = critic()
        self.networks = {"discriminator": self.discriminator}
        self.game = Game(GameConfig(**settings), self.discriminator)
        self.own_optimizer("discriminator", keras.optimizers.SGD(0.01), self.discriminator)
        self.finish()

    def train_step(self, images: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            penalty = self.game.penalty(
                self.discriminator, images, -images, self.random_seed(1), self.step.value
            )
            scores = self.discriminator(images), self.discriminator(-images)
            loss = self.game.discriminator_loss(*scores) + penalty
        self.minimize(loss, tape, "discriminator", self.discriminator)
        self.game.constrain()
        return self.track(loss=loss, penalty=penalty)


def images(count: int = 4) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, (count, 8, 8, 1)).astype("float32")


@pytest.mark.parametrize(
    ("penalty", "jit"), [("gp", False), ("r2", False), ("dragan", True), ("r1", True)]
)
def test_a_compiled_step_has_the_value_of_an_eager_one(penalty: str, jit: bool) -> None:
    eager, compiled = Critic(penalty=penalty), Critic(penalty=penalty)
    step = tf.function(compiled.train_step, jit_compile=jit)
    for _ in range(2):  # due, and not due for the lazy ones
        expected, found = eager.train_step(tf.constant(images())), step(tf.constant(images()))
        for name in expected:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "settings",
    [{"penalty": "r1", "penalty_interval": 2}, {"adversarial": "wgan"}],
    ids=["r1", "wgan"],
)
def test_two_devices_give_the_weights_of_one(settings: dict[str, Any]) -> None:
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")

    def train(strategy: tf.distribute.Strategy) -> Critic:
        with strategy.scope():
            model = Critic(**settings)
        data = tf.data.Dataset.from_tensor_slices(images()).batch(4).repeat()
        step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
        batches = iter(strategy.experimental_distribute_dataset(data))
        for _ in range(4):
            step(next(batches))
        return model

    one = train(tf.distribute.OneDeviceStrategy(cpus[0].name))
    names = [cpu.name for cpu in cpus[:2]]
    reduction = tf.distribute.ReductionToOneDevice()
    mirrored = tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)
    two = train(mirrored)
    assert two.loss_means() == pytest.approx(one.loss_means(), rel=1e-5)
    for first, second in zip(
        one.discriminator.trainable_variables, two.discriminator.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(second.numpy(), first.numpy(), atol=1e-6)
        copies = [copy.numpy() for copy in mirrored.experimental_local_results(second.value)]
        np.testing.assert_array_equal(*copies)
        assert "adversarial" not in settings or np.abs(copies[0]).max() < 0.0101
