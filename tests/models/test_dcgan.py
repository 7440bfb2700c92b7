"""DCGAN: the sizes of its networks, who is trained by what, samples that depend on noise alone."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.batches import ImageBatch
from tfgan_med.errors import UserError
from tfgan_med.layers.batch_normalization import FusedBatchNormalization
from tfgan_med.models.dcgan import (
    DCGAN,
    DCGANConfig,
    DoublingConvolution5,
    dcgan_discriminator,
    dcgan_generator,
)

SMALL = {"generator_base": 32, "discriminator_base": 4, "latent_size": 8}


def make(channels: tuple[int, ...] = (1,), seed: int = 3, **changes: Any) -> DCGAN:
    return DCGAN(DCGANConfig(**{**SMALL, **changes}), 32, channels, seed=seed)


@pytest.fixture(scope="module")
def batch() -> ImageBatch:
    """Bright discs of several sizes on a dark ground, and the disc itself as a mask."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    radii = np.linspace(5, 12, 8).reshape(8, 1, 1)
    disc = np.where(rows**2 + columns**2 < radii**2, 1.0, -1.0)
    return ImageBatch(images=tf.constant(np.stack([disc * 0.7, disc], axis=-1), tf.float32))


def first(batch: ImageBatch, channels: int = 1) -> ImageBatch:
    return ImageBatch(images=batch["images"][..., :channels])


def counts(network: keras.Model) -> tuple[int, int]:
    """Trainable and all weights; the vectors of spectral norm are no part of the table."""
    trainable = sum(int(np.prod(v.shape)) for v in network.trainable_weights)
    every = sum(int(np.prod(v.shape)) for v in network.weights if v.name != "u")
    return trainable, every


def values(network: keras.Model) -> list[np.ndarray]:
    return [np.array(v) for v in network.trainable_variables]


def moved(before: list[np.ndarray], network: keras.Model) -> list[bool]:
    return [not np.array_equal(old, new) for old, new in zip(before, values(network), strict=True)]


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "size", "channels", "generator", "discriminator"),
    [
        ("mask", 64, 1, (5_189_345, 5_206_689), (1_090_401, 1_091_361)),
        ("mask", 128, 1, (5_201_777, 5_219_153), (4_369_249, 4_371_233)),
        ("mask", 256, 1, (5_208_209, 5_225_617), (10_923_873, 10_926_881)),
        ("radford", 64, 3, (18_855_043, 18_858_883), (4_315_649, 4_317_441)),
        ("radford", 64, 1, (18_848_641, 18_852_481), (4_312_449, 4_314_241)),
    ],
)
def test_the_networks_have_the_weights_of_the_sources(
    variant: str,
    size: int,
    channels: int,
    generator: tuple[int, int],
    discriminator: tuple[int, int],
) -> None:
    config = DCGANConfig(variant=variant)
    assert counts(dcgan_generator(config, size, channels)) == generator
    assert counts(dcgan_discriminator(config, size, channels)) == discriminator


def test_the_tutorial_discriminator_has_dropout_and_biases_instead_of_norms() -> None:
    config = DCGANConfig(d_style="tutorial")
    network = dcgan_discriminator(config, 64, 1)
    convolutions = 25 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + (64 + 128 + 256 + 512)
    assert counts(network)[0] == convolutions + 4 * 4 * 512 + 1
    dropped = [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropped == [0.3] * 4
    assert not norms(network)


def norms(network: keras.Model) -> list[keras.layers.Layer]:
    kind = keras.layers.BatchNormalization
    return [layer for layer in network.layers if isinstance(layer, kind)]


def test_spectral_norm_takes_the_place_of_batch_norm() -> None:
    network = dcgan_discriminator(DCGANConfig(**SMALL, spectral_norm=True), 32, 1)
    assert not norms(network)
    assert [v.name for v in network.weights].count("u") == 4  # three halvings and the score


def test_norms_and_slopes_are_those_of_the_paper() -> None:
    model = make()
    for layer in norms(model.generator) + norms(model.discriminator):
        assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    slopes = [
        layer.negative_slope
        for layer in model.discriminator.layers
        if isinstance(layer, keras.layers.LeakyReLU)
    ]
    assert slopes == pytest.approx([0.2] * 3)


def test_weights_start_normal_with_deviation_one_fiftieth_and_differ_between_layers() -> None:
    model = DCGAN(DCGANConfig(generator_base=64, discriminator_base=16), 32, (1,), seed=7)
    kernels = [w for network in model.networks.values() for w in values(network) if w.ndim > 1]
    assert len(kernels) == 8
    for kernel in kernels:
        assert abs(kernel.mean()) < 5 * 0.02 / np.sqrt(kernel.size)
        assert kernel.std() == pytest.approx(0.02, rel=5 / np.sqrt(2 * kernel.size))
    assert len({kernel.ravel()[0] for kernel in kernels}) == len(kernels)


@pytest.mark.parametrize("variant", ["radford", "mask"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_pictures_and_scores_are_float32_and_in_range(variant: str, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make((1, 1), variant=variant)
    finally:
        keras.config.set_dtype_policy("float32")
    latents = 100.0 * tf.random.stateless_normal((4, 8), (1, 2))  # saturates tanh
    fake = model.generator(latents, training=False)
    scores = model.discriminator(fake, training=True)
    assert (fake.shape, fake.dtype) == ((4, 32, 32, 2), tf.float32)
    assert float(tf.reduce_max(tf.abs(fake))) <= 1.0
    assert (scores.shape, scores.dtype) == ((4, 1), tf.float32)
    assert {v.dtype for v in model.generator.weights} == {"float32"}


@pytest.mark.parametrize(
    ("variant", "size", "more"),
    [("radford", 256, "`mask` makes 256"), ("radford", 48, "32, 64, 128"), ("mask", 512, "256")],
)
def test_a_size_no_variant_makes_is_refused(variant: str, size: int, more: str) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size}.*{more}"):
        DCGAN(DCGANConfig(variant=variant), size, (1,))


def test_pictures_over_128_pixels_are_doubtful() -> None:
    config = DCGANConfig(variant="mask", **SMALL)
    large = DCGAN(config, 256, (1,))
    assert any("256" in notice and "FastGAN" in notice for notice in large.notices)
    assert DCGAN(config, 128, (1,)).notices == []


def test_inference_builds_the_generator_alone() -> None:
    model = DCGAN(DCGANConfig(**SMALL), 32, (1,), inference=True)
    assert list(model.networks) == ["generator"]
    assert model.optimizers == {}
    model.prepare_samples(2)
    assert model.sample(tf.zeros((2, 8))).shape == (2, 32, 32, 1)


@pytest.mark.parametrize("side", [4, 8])  # as a matrix product, and as a convolution
@pytest.mark.parametrize("bias", [False, True])
def test_the_doubling_layer_is_a_transposed_convolution(side: int, bias: bool) -> None:
    ours = DoublingConvolution5(3, use_bias=bias, bias_initializer="ones")
    theirs = keras.layers.Conv2DTranspose(
        3, 5, strides=2, padding="same", use_bias=bias, bias_initializer="ones"
    )
    x = tf.random.stateless_normal((2, side, side, 6), (1, 2))
    theirs.build(x.shape)
    ours.build(x.shape)
    ours.set_weights(theirs.get_weights())
    found = []
    for layer in (theirs, ours):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = layer(x)
            loss = tf.reduce_sum(tf.sin(result))
        found.append([result, *tape.gradient(loss, [x, *layer.trainable_variables])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    assert DoublingConvolution5.from_config(ours.get_config()).get_config() == ours.get_config()


# The game -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"variant": "mask"}, {"d_style": "tutorial"}])
def test_a_step_moves_every_weight_of_both_players(
    changes: dict[str, Any], batch: ImageBatch
) -> None:
    model = make(**changes)
    before = {name: values(network) for name, network in model.networks.items()}
    model.train_step(first(batch))
    for name, network in model.networks.items():
        assert all(moved(before[name], network)), name


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_player_without_a_step_of_its_own_stands_still(player: str, batch: ImageBatch) -> None:
    model = make()
    model.own_optimizer(player, keras.optimizers.SGD(0.0), model.networks[player])
    before = {name: values(network) for name, network in model.networks.items()}
    model.train_step(first(batch))
    for name, network in model.networks.items():
        assert any(moved(before[name], network)) == (name != player)


def test_the_losses_are_those_of_the_paper_on_one_batch_of_fakes(batch: ImageBatch) -> None:
    model, real = make(), first(batch)["images"]
    fake = model.generator(model.normal((8, 8)), training=True)
    real_logits = model.discriminator(real, training=True)
    fake_logits = model.discriminator(fake, training=True)
    on_both = tf.reduce_mean(tf.nn.softplus(-real_logits) + tf.nn.softplus(fake_logits))
    losses = {name: float(value) for name, value in model.train_step(first(batch)).items()}
    after = model.discriminator(fake, training=True)  # the discriminator moved first
    assert losses["discriminator"] == pytest.approx(float(on_both), rel=1e-5)
    assert losses["generator"] == pytest.approx(
        float(tf.reduce_mean(tf.nn.softplus(-after))), rel=1e-5
    )
    assert losses["real_score"] == pytest.approx(float(tf.reduce_mean(real_logits)), abs=1e-6)
    assert losses["fake_score"] == pytest.approx(float(tf.reduce_mean(fake_logits)), abs=1e-6)


def test_real_and_generated_pictures_do_not_share_batch_statistics(batch: ImageBatch) -> None:
    model = make()
    norm = norms(model.discriminator)[0]
    feature = keras.Model(model.discriminator.input, norm.input)

    def mean(pictures: tf.Tensor) -> np.ndarray:
        return np.asarray(tf.reduce_mean(feature(pictures), (0, 1, 2)))

    fake = model.generator(model.normal((8, 8)), training=True)
    model.own_optimizer("discriminator", keras.optimizers.SGD(0.0), model.discriminator)
    real_mean, fake_mean = mean(first(batch)["images"]), mean(fake)
    model.train_step(first(batch))  # real, fake, and fake again for the generator
    expected = 0.1 * (0.81 * real_mean + 0.9 * fake_mean + fake_mean)
    np.testing.assert_allclose(norm.moving_mean, expected, atol=1e-5)


def test_the_discriminator_tells_a_fixed_batch_from_noise(batch: ImageBatch) -> None:
    model = make(learning_rate=2e-3)
    model.own_optimizer("generator", keras.optimizers.SGD(0.0), model.generator)
    step = tf.function(model.train_step)
    start = step(first(batch))
    for _ in range(29):
        end = step(first(batch))
    assert float(end["discriminator"]) < 0.1 * float(start["discriminator"])
    assert float(end["sign_accuracy"]) == 1.0
    assert float(end["real_score"]) > 1.0 > -1.0 > float(end["fake_score"])
    assert step.experimental_get_tracing_count() == 1


def test_the_generator_comes_closer_to_the_pictures(batch: ImageBatch) -> None:
    model = make(learning_rate=2e-3, generator_base=64, discriminator_base=8)
    latents = tf.random.stateless_normal((64, 8), (5, 6))

    def distance() -> float:
        """Between the mean picture and the mean disc."""
        mean = tf.reduce_mean(model.generator(latents, training=True), axis=0)
        return float(tf.reduce_mean(tf.abs(mean - tf.reduce_mean(first(batch)["images"], axis=0))))

    start = distance()
    step = tf.function(model.train_step)
    for _ in range(150):
        step(first(batch))
    assert distance() < start / 2


@pytest.mark.parametrize(
    "changes",
    [
        {"adversarial": "hinge", "spectral_norm": True},
        {"adversarial": "ragan", "augment": "color,translation,cutout"},
        {"adversarial": "wgan", "optimizer": "rmsprop", "critic_steps": 2},
        {"adversarial": "wgan-gp", "d_style": "tutorial", "beta_1": 0.0},
        {"penalty": "r1", "d_style": "tutorial", "augment": "translation"},
        {"penalty": "drift"},
    ],
    ids=lambda changes: changes.get("adversarial") or changes["penalty"],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_game_is_chosen_by_settings(
    changes: dict[str, Any], policy: str, batch: ImageBatch
) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make((1, 1), **changes)
        before = {name: values(network) for name, network in model.networks.items()}
        step = tf.function(model.train_step)
        losses = [step(batch) for _ in range(8)]  # float16 may skip some
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in step.values()] for step in losses]).all()
    assert ("penalty" in losses[0]) == (model.config.penalty_in_use != "none")
    for name, network in model.networks.items():
        assert any(moved(before[name], network)), name
        assert all(np.isfinite(weight).all() for weight in values(network)), name


@pytest.mark.parametrize("penalty", ["gp", "dragan", "r1"])
def test_a_slope_penalty_needs_a_discriminator_without_batch_norm(penalty: str) -> None:
    with pytest.raises(UserError, match=r"model.penalty.*batch normalization.*down1_norm"):
        make(penalty=penalty)
    for free in ({"d_style": "tutorial"}, {"spectral_norm": True}):
        assert make(penalty=penalty, **free).game.has_penalty


def test_wasserstein_weights_are_clipped_but_not_the_norms(batch: ImageBatch) -> None:
    model = make(adversarial="wgan", optimizer="rmsprop", learning_rate=2e-3, clip=0.005)
    for _ in range(3):
        model.train_step(first(batch))
    for weight in model.discriminator.trainable_variables:
        if weight.name == "gamma":
            assert float(tf.reduce_min(weight)) > 0.9
        else:
            assert float(tf.reduce_max(tf.abs(weight))) <= 0.005 + 1e-8


def test_critic_steps_train_the_discriminator_that_often_on_other_fakes(batch: ImageBatch) -> None:
    model = make(critic_steps=3)
    seen = []
    generate = model.generator.call

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(generate(*args, **kwargs).numpy())
        return tf.convert_to_tensor(generate(*args, **kwargs))

    model.generator.call = spy
    model.train_step(first(batch))
    assert int(model.optimizers["discriminator"].iterations) == 3
    assert int(model.optimizers["generator"].iterations) == 1
    assert len(seen) == 3
    assert all(not np.allclose(a, b, atol=1e-3) for a, b in itertools.pairwise(seen))


def test_color_changes_pictures_and_leaves_masks_alone(batch: ImageBatch) -> None:
    model = make((1, 1), augment="color")
    changed = model.augment(batch["images"], model.random_seed(1))
    assert not np.allclose(changed[..., 0], batch["images"][..., 0], atol=0.01)
    np.testing.assert_array_equal(changed[..., 1], batch["images"][..., 1])


def test_both_players_see_augmented_pictures_drawn_apart(
    batch: ImageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(augment="translation")
    seeds = []
    augment = model.augment

    def spy(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds.append(tuple(seed.numpy()))
        return augment(images, seed)

    monkeypatch.setattr(model, "augment", spy)
    model.train_step(first(batch))
    model.train_step(first(batch))
    assert len(seeds) == len(set(seeds)) == 6  # real, fake and the generator's fake, two steps


def test_spectral_norm_moves_its_vectors_once_per_step(batch: ImageBatch) -> None:
    model = make(spectral_norm=True)
    vectors = [v for v in model.discriminator.weights if v.name == "u"]
    model.own_optimizer("discriminator", keras.optimizers.SGD(0.0), model.discriminator)
    before = [np.array(v) for v in vectors]
    for layer in model.discriminator.layers:
        if hasattr(layer, "iterate"):
            layer.iterate()
    once = [np.array(v) for v in vectors]
    for vector, value in zip(vectors, before, strict=True):
        vector.assign(value)
    model.train_step(first(batch))
    for vector, value in zip(vectors, once, strict=True):
        np.testing.assert_allclose(vector, value, atol=1e-6)


# Precision, compilation, devices ------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_stays_finite(policy: str, batch: ImageBatch) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make(d_style="tutorial", ema=0.9)
        before = {name: values(network) for name, network in model.networks.items()}
        losses = [model.train_step(first(batch)) for _ in range(4)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in step.values()] for step in losses]).all()
    assert any(moved(before["generator"], model.generator))
    assert any(moved(before["discriminator"], model.discriminator))


def test_the_step_compiled_by_xla_is_the_same(
    batch: ImageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = tf.random.stateless_normal((8, 8), (1, 2))
    monkeypatch.setattr(DCGAN, "normal", lambda *_: latents)  # XLA may draw others
    plain, compiled = make(), make()
    expected = plain.train_step(first(batch))
    losses = tf.function(compiled.train_step, jit_compile=True)(first(batch))
    for name, value in losses.items():
        assert float(value) == pytest.approx(float(expected[name]), abs=1e-3), name


def test_two_devices_take_equal_steps(batch: ImageBatch) -> None:
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")
    strategy = tf.distribute.MirroredStrategy(
        [cpu.name for cpu in cpus[:2]], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = make(ema=0.9)
    before = values(model.generator)
    data = tf.data.Dataset.from_tensor_slices(dict(first(batch))).batch(8).repeat()
    batches = iter(strategy.experimental_distribute_dataset(data))
    step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    for _ in range(2):
        step(next(batches))
    assert all(moved(before, model.generator))
    assert np.isfinite(list(model.loss_means().values())).all()
    for network in model.networks.values():
        for weight in network.weights:
            if "moving_" in weight.path:
                continue  # of the device's own share; training never reads them
            one, two = map(np.array, strategy.experimental_local_results(weight.value))
            np.testing.assert_array_equal(one, two, err_msg=weight.path)


# Samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["radford", "mask"])
def test_a_sample_depends_on_its_latent_vector_alone(variant: str, batch: ImageBatch) -> None:
    model = make(variant=variant, learning_rate=2e-3)
    for _ in range(3):
        model.train_step(first(batch))
    model.prepare_samples(10)
    latents = tf.random.stateless_normal((64, 8), (3, 4))
    alone = model.sample(latents[:1])
    np.testing.assert_allclose(model.sample(latents[:3])[:1], alone, atol=1e-4)
    np.testing.assert_allclose(model.sample(latents)[:1], alone, atol=1e-4)
    in_training = model.generator(latents[:3], training=True)
    assert float(tf.reduce_max(tf.abs(in_training[:1] - alone))) > 1e-2


def test_samples_come_from_the_moving_average(batch: ImageBatch) -> None:
    model = make(ema=0.9)
    model.train_step(first(batch))
    latents = tf.random.stateless_normal((4, 8), (3, 4))
    model.prepare_samples(3)
    averaged = model.sample(latents).numpy()
    model.generator.set_weights([np.zeros_like(w) for w in model.generator.get_weights()])
    model.prepare_samples(3)
    np.testing.assert_allclose(model.sample(latents), averaged, atol=1e-6)
    assert np.abs(averaged).max() > 0


def test_norms_are_the_fused_ones() -> None:
    assert all(type(norm) is FusedBatchNormalization for norm in norms(make().generator))
