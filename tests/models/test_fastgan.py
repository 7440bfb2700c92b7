"""FastGAN: its size, who is trained by what, what is compared with what, and how it samples."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.batches import ImageBatch
from tfgan_med.errors import MissingWeightsError, UserError
from tfgan_med.layers.noise import NoiseInjection
from tfgan_med.losses.game import Game
from tfgan_med.losses.perceptual import LearnedDistance
from tfgan_med.models import fastgan
from tfgan_med.models.fastgan import FastGAN, FastGANConfig
from tfgan_med.networks import lpips

SMALL = {"generator_base": 8, "discriminator_base": 8, "recon": "l1"}


def make(channels: tuple[int, ...] = (3,), **changes: Any) -> FastGAN:
    return FastGAN(FastGANConfig(**{**SMALL, **changes}), 64, channels, seed=3)


def pictures(count: int, channels: int = 3) -> np.ndarray:
    """Bright discs of several colors on dark grounds, in [-1, 1]."""
    draw = np.random.default_rng(5)
    rows, columns = np.mgrid[:64, :64]
    centers = draw.uniform(16, 48, size=(count, 2, 1, 1))
    inside = ((rows - centers[:, 0]) ** 2 + (columns - centers[:, 1]) ** 2 < 144)[..., None]
    bright, dark = draw.uniform(0.2, 0.9, (2, count, 1, 1, channels))
    found: np.ndarray = np.where(inside, bright, -dark).astype("float32")
    return found


def batch_of(count: int, channels: int = 3) -> ImageBatch:
    return ImageBatch(images=tf.constant(pictures(count, channels)))


def changed(before: list[np.ndarray], weights: list[Any]) -> list[bool]:
    return [not np.array_equal(old, new) for old, new in zip(before, weights, strict=True)]


@pytest.fixture(scope="module")
def model() -> FastGAN:
    """One for tests that change no weight."""
    return make()


# Networks -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Variables have shapes only: drawing those of 50 million weights takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Variable, "_deferred_initialize", lambda self: None)
        with keras.StatelessScope():
            yield


@functools.cache
def networks(size: int, channels: int = 3) -> dict[str, keras.Model]:
    """At the paper's widths."""
    with without_values():
        return {
            "generator": fastgan.fastgan_generator(size, channels),
            "discriminator": fastgan.fastgan_discriminator(size, channels),
            "decoders": fastgan.fastgan_decoders(size, channels),
        }


def counts(*models: keras.Model) -> tuple[int, int]:
    """Trainable and all numbers, without the vectors of spectral normalization."""
    trainable = [v for m in models for v in m.trainable_weights]
    everything = [v for m in models for v in m.weights if v.name != "u"]
    return tuple(sum(int(np.prod(v.shape)) for v in vs) for vs in (trainable, everything))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (64, (28_211_460, 28_222_212), (10_775_552, 10_786_048)),
        (128, (28_959_814, 28_971_078), (11_355_712, 11_367_488)),
        (256, (29_127_846, 29_139_238), (11_526_160, 11_538_512)),
        (512, (29_174_392, 29_185_912), (11_526_496, 11_538_848)),
        (1024, (29_176_512, 29_188_064), (11_528_192, 11_540_576)),
    ],
)
def test_the_networks_have_the_weights_of_the_reference(
    size: int, generator: tuple[int, int], discriminator: tuple[int, int]
) -> None:
    made = networks(size)
    assert counts(made["generator"]) == generator
    assert counts(made["discriminator"], made["decoders"]) == discriminator


def test_channels_widths_and_decoders_count_as_in_the_reference() -> None:
    with without_values():
        grey = fastgan.fastgan_generator(256, 1)
        narrow = fastgan.fastgan_generator(256, 3, base=32)
    assert counts(grey)[0] == 29_127_142
    assert counts(narrow)[0] == 9_382_230
    assert counts(networks(256)["discriminator"])[0] == 8_386_672


@pytest.mark.parametrize("size", fastgan.SIZES)
def test_every_size_has_fifty_scores_and_features_to_rebuild_it(size: int) -> None:
    made = networks(size)
    small = min(128, size // 2)
    assert [x.shape[1:] for x in made["generator"].outputs] == [(size, size, 3), (small, small, 3)]
    shapes = [x.shape[1:] for x in made["discriminator"].outputs]
    assert shapes == [(50,), (8, 8, 512), (16, 16, 256), (8, 8, 256)]
    rebuilt = [x.shape[1:] for x in made["decoders"].outputs]
    assert rebuilt == [(side, side, 3) for side in (min(128, size), small, min(128, size // 2))]


def test_every_convolution_is_spectrally_normalized_and_slopes_are_those_of_the_paper() -> None:
    for network in networks(128).values():
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
                assert type(layer).__name__.startswith("Spectral"), layer.name
            if isinstance(layer, keras.layers.LeakyReLU):
                assert layer.negative_slope == pytest.approx(0.2)
            if isinstance(layer, keras.layers.BatchNormalization):
                assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("size", [32, 100, 96, 2048])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size}; .*64, 128, 256, 512, 1024"):
        FastGAN(FastGANConfig(**SMALL), size, (3,))


def test_inference_builds_the_generator_alone() -> None:
    model = FastGAN(FastGANConfig(**SMALL), 64, (3, 1), seed=3, inference=True)
    assert list(model.networks) == ["generator"]
    assert model.optimizers == {}


# Noise --------------------------------------------------------------------------------------------


def noise(seed: int = 4, weight: float = 2.0) -> NoiseInjection:
    layer = NoiseInjection(seed)
    layer.build((None, 16, 16, 5))
    layer.weight.assign(weight)
    return layer


def test_noise_is_silent_until_its_weight_moves() -> None:
    x = tf.random.normal((2, 16, 16, 5))
    assert np.array_equal(noise(weight=0.0)(x, training=True), x)


def test_training_noise_is_one_standard_normal_map_per_image_times_the_weight() -> None:
    layer = NoiseInjection(4)
    x = tf.zeros((64, 16, 16, 5))
    layer.build(x.shape)
    layer.weight.assign(2.0)
    added = layer(x, training=True).numpy()
    assert np.array_equal(added[..., :1].repeat(5, -1), added)  # all channels alike
    assert added.std() == pytest.approx(2.0, rel=0.03)
    assert added.mean() == pytest.approx(0.0, abs=0.06)
    assert not np.array_equal(added[0], added[1])
    assert not np.array_equal(layer(x, training=True), added)
    layer.restart()
    assert np.array_equal(layer(x, training=True), added)


def test_inference_noise_is_one_fixed_map_of_the_seed() -> None:
    x = tf.zeros((3, 16, 16, 5))
    once, again, other = (noise(seed)(x, training=False).numpy() for seed in (4, 4, 5))
    assert np.array_equal(once, again)
    assert np.array_equal(once[0], once[2])
    assert not np.array_equal(once, other)
    assert once[0, :, :, 0].std() == pytest.approx(2.0, rel=0.2)


def test_the_state_of_the_noise_is_saved_with_the_network(model: FastGAN) -> None:
    names = [name for name in model.state() if name.startswith("network/generator/")]
    assert sum("seed_generator_state" in name for name in names) == 4  # two maps of 8, two of 32


# A step -------------------------------------------------------------------------------------------


def test_a_step_moves_every_weight_of_all_players() -> None:
    model = make()
    before = {name: network.get_weights() for name, network in model.networks.items()}
    for _ in range(2):  # noise reaches the gates only when its weight is no longer 0
        losses = model.train_step(batch_of(4))
    assert np.isfinite([float(value) for value in losses.values()]).all()
    assert tuple(losses) == (
        "generator",
        "discriminator",
        "reconstruction",
        "reconstruction_small",
        "reconstruction_part",
        "real_score",
        "fake_score",
        "sign_accuracy",
    )
    for name, network in model.networks.items():
        still = [
            v.path
            for v, moved in zip(
                network.weights, changed(before[name], network.get_weights()), strict=True
            )
            # the direction of a kernel with one output channel is a sign
            if not moved and not (v.name == "u" and v.shape == (1,))
        ]
        assert not still, name


def test_each_player_is_moved_by_its_own_loss_alone() -> None:
    model = make()
    players = {"generator": ["generator"], "discriminator": ["discriminator", "decoders"]}
    for idle in players:
        for name, owned in players.items():
            rate = 0.0 if name == idle else 1e-3
            sgd = keras.optimizers.SGD(rate)
            model.own_optimizer(name, sgd, *(model.networks[n] for n in owned))
        before = {
            n: [v.numpy() for v in network.trainable_weights]
            for n, network in model.networks.items()
        }
        model.train_step(batch_of(4))
        for name, owned in players.items():
            for n in owned:
                moved = changed(before[n], model.networks[n].trainable_weights)
                assert all(moved) if name != idle else not any(moved), (idle, n)


def test_the_generator_is_scored_by_the_discriminator_that_has_moved() -> None:
    model = make(augment="", ema=0.0)
    model.own_optimizer("generator", keras.optimizers.SGD(0.0), model.generator)
    latents = model.normal((4, model.latent_size), fastgan.LATENTS)
    loss = float(model.train_step(batch_of(4))["generator"])
    fake = model.generator(latents, training=True)  # noise has the weight 0
    expected = -float(tf.reduce_mean(model.discriminator(fake, training=True)[0]))
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_margins_are_drawn_for_every_score_below_one(model: FastGAN) -> None:
    scores = tf.fill((256, 50), 0.9)
    drawn = float(model._adversarial(scores, -scores))
    # relu(m - 0.9) with m ~ U(0.8, 1): a triangle of 0.1 over 0.2, so 0.025 for each side
    assert drawn == pytest.approx(0.05, rel=0.1)
    fixed = make_game(margin_noise=0.0)
    assert float(fixed(scores, -scores)) == pytest.approx(0.2, rel=1e-5)
    assert float(make_game(adversarial="lsgan")(scores, 0 * scores)) == pytest.approx(
        0.01, rel=1e-4
    )


def make_game(**changes: Any) -> Any:
    """The adversarial part of a model's loss, without its networks."""
    model = FastGAN(FastGANConfig(**{**SMALL, **changes}), 64, (3,), inference=True)
    model.game = Game(model.config, keras.Sequential([keras.Input((4,))]))
    return model._adversarial


def test_real_and_generated_scores_have_margins_of_their_own(model: FastGAN) -> None:
    zeros = tf.zeros((2, 50))
    cuts = [model._margin_cut(zeros, s) for s in (fastgan.REAL_MARGIN, fastgan.FAKE_MARGIN)]
    assert not np.array_equal(*cuts)
    for cut in cuts:
        assert len(np.unique(cut)) == 100
        assert 0.0 <= float(tf.reduce_min(cut)) < float(tf.reduce_max(cut)) <= 0.2


def test_a_penalty_that_needs_the_slope_at_each_image_is_refused() -> None:
    with pytest.raises(UserError, match="model.penalty.*batch normalization"):
        make(penalty="r1")


@pytest.mark.parametrize("changes", [{"adversarial": "rahinge"}, {"penalty": "drift"}])
def test_other_games_can_be_played(changes: dict[str, Any]) -> None:
    losses = make(**changes).train_step(batch_of(4))
    assert np.isfinite([float(value) for value in losses.values()]).all()
    assert ("penalty" in losses) == ("penalty" in changes)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_stays_finite(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make((3, 1))
        losses = [model.train_step(batch_of(4, 4)) for _ in range(2)]
        made = model.generator(model.normal((2, 256)), training=True)
        model.prepare_samples(1)
        sample = model.sample(model.normal((2, 256)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in step.values()] for step in losses]).all()
    for images in (*made, sample):
        assert images.dtype == tf.float32
        assert float(tf.reduce_max(tf.abs(images))) <= 1.0
    assert {v.dtype for v in model.generator.trainable_variables} == {"float32"}
    scores = model.discriminator(made, training=False)[0]
    assert scores.dtype == tf.float32


def test_it_learns_to_rebuild_four_pictures() -> None:
    model = make(learning_rate=2e-3, augment="")
    step = tf.function(model.train_step)
    batch = batch_of(4)

    def losses() -> dict[str, float]:
        return {name: float(value) for name, value in step(batch).items()}

    start = losses()
    for _ in range(28):
        losses()
    end = losses()
    for name in ("reconstruction", "reconstruction_small", "reconstruction_part"):
        assert end[name] < start[name] / 2, name
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_two_hundred_steps_with_the_papers_rate_halve_the_reconstruction_loss() -> None:
    model = make(generator_base=16, discriminator_base=16)
    step = tf.function(model.train_step)
    values = [float(step(batch_of(4))["reconstruction"]) for _ in range(200)]
    assert np.mean(values[-20:]) < values[0] / 2


@pytest.mark.slow
def test_xla_compiles_the_step() -> None:
    model = make()
    losses = tf.function(model.train_step, jit_compile=True)(batch_of(4))
    assert np.isfinite([float(value) for value in losses.values()]).all()


@pytest.mark.slow
def test_two_devices_keep_equal_weights() -> None:
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical CPUs, which conftest.py asks for")
    strategy = tf.distribute.MirroredStrategy(
        [cpu.name for cpu in cpus[:2]], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = make()
    data = tf.data.Dataset.from_tensor_slices({"images": pictures(8)}).batch(8).repeat()
    step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    batches = iter(strategy.experimental_distribute_dataset(data))
    for _ in range(2):
        step(next(batches))
    assert np.isfinite(list(model.loss_means().values())).all()
    for network in (model.generator, model.discriminator):
        for weight in network.trainable_variables:
            first, second = strategy.experimental_local_results(weight.value)
            np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=weight.path)


# What is compared with what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "right", "rows", "columns"),
    [
        (False, False, slice(0, 2), slice(0, 2)),
        (False, True, slice(0, 2), slice(2, 4)),
        (True, False, slice(2, 4), slice(0, 2)),
        (True, True, slice(2, 4), slice(2, 4)),
    ],
)
def test_a_quarter_is_the_corner_it_is_called_by(
    lower: bool, right: bool, rows: slice, columns: slice
) -> None:
    maps = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).astype("float32")
    found = fastgan.quarter(tf.constant(maps), tf.constant([lower, right]))
    assert np.array_equal(found, maps[:, rows, columns])


def test_shrinking_averages_areas() -> None:
    image = np.arange(16.0).reshape(1, 4, 4, 1).astype("float32")
    shrunk = fastgan.shrink(tf.constant(image), 2).numpy()
    assert shrunk[0, :, :, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


@pytest.mark.parametrize("corner", [(lower, right) for lower in (0, 1) for right in (0, 1)])
def test_each_decoder_is_held_to_the_picture_its_features_saw(
    corner: tuple[int, int], model: FastGAN
) -> None:
    """Features that are the picture in 16 x 16 blocks, and decoders that repeat them."""
    blocks = np.random.default_rng(2).uniform(-1, 1, (3, 16, 16, 3)).astype("float32")
    images = tf.constant(blocks.repeat(4, 1).repeat(4, 2))
    eighths = fastgan.shrink(tf.constant(blocks), 8)

    def decoders(inputs: list[Any], training: bool) -> list[Any]:
        _, _, part = inputs
        assert part.shape == (3, 8, 8, 3)
        return [images, fastgan.shrink(images, 32), tf.repeat(tf.repeat(part, 4, 1), 4, 2)]

    stand_in = types.SimpleNamespace(  # Keras models let no function take a network's place
        decoders=decoders,
        small_size=32,
        distance=model.distance,
        _corner=lambda: tf.constant(corner) > 0,
    )
    features = [eighths, tf.constant(blocks), eighths]
    terms = FastGAN._reconstruction(stand_in, images, features)  # type: ignore[arg-type]
    assert {name: float(value) for name, value in terms.items()} == {
        "reconstruction": 0.0,
        "reconstruction_small": 0.0,
        "reconstruction_part": 0.0,
    }


def test_every_corner_is_drawn_and_the_draw_is_a_function_of_the_step() -> None:
    model = FastGAN(FastGANConfig(**SMALL), 64, (3,), seed=3, inference=True)
    drawn = []
    for step in range(40):
        model.step.assign(step)
        drawn.append(tuple(model._corner().numpy().tolist()))
        assert tuple(model._corner().numpy().tolist()) == drawn[-1]
    assert len(set(drawn)) == 4


# Masks --------------------------------------------------------------------------------------------


def test_colors_of_masks_stay_unless_the_groups_are_joined() -> None:
    images = tf.constant(pictures(4, 4))
    seed = tf.constant([1, 2], tf.int64)
    separate = FastGANConfig(**SMALL, augment="color")
    joint = FastGANConfig(**SMALL, augment="color", augment_groups="joint")
    apart = fastgan._augmentation(separate, (3, 1))(images, seed).numpy()
    mixed = fastgan._augmentation(joint, (3, 1))(images, seed).numpy()
    assert np.array_equal(apart[..., 3], images[..., 3])
    assert not np.array_equal(apart[..., :3], images[..., :3])
    # with all channels as one group the mask follows the picture: a change of one reaches the other
    other = tf.concat([images[..., :3] * 0.5, images[..., 3:]], axis=-1)
    mixed_other = fastgan._augmentation(joint, (3, 1))(other, seed).numpy()
    assert np.abs(mixed[..., 3] - mixed_other[..., 3]).max() > 0.01


def test_shifts_move_pictures_and_masks_together() -> None:
    images = tf.repeat(tf.constant(pictures(4, 1)), 2, axis=-1)
    augment = fastgan._augmentation(FastGANConfig(**SMALL, augment="translation"), (1, 1))
    moved = augment(images, tf.constant([1, 2], tf.int64)).numpy()
    assert np.array_equal(moved[..., 0], moved[..., 1])
    assert not np.array_equal(moved, images)


def test_masks_are_compared_by_l1_beside_the_picture() -> None:
    distance = fastgan.ReconstructionDistance(FastGANConfig(**SMALL), (3, 2))
    target = np.zeros((2, 8, 8, 5), "float32")
    rebuilt = target.copy()
    rebuilt[..., :3] += 0.5
    rebuilt[..., 3] -= 0.2  # the mean over the two masks is 0.1
    assert float(distance(tf.constant(target), tf.constant(rebuilt))) == pytest.approx(0.6)


# Distances of the reconstruction ------------------------------------------------------------------


def distance_of(channels: tuple[int, ...] = (3,), **changes: Any) -> Any:
    config = FastGANConfig(**{**SMALL, "recon": "auto", **changes})
    return fastgan.ReconstructionDistance(config, channels)


def test_without_weights_auto_is_l1_and_says_so() -> None:
    distance = distance_of()
    assert distance.name == "l1"
    assert len(distance.notices) == 1
    assert "l1, for the weights lpips-vgg and lpips-vgg-linear" in distance.notices[0]
    assert make(recon="auto").notices == distance.notices
    assert distance_of(recon="l1").notices == []


@pytest.mark.parametrize("recon", ["lpips", "vgg"])
def test_weights_that_were_asked_for_must_be_there(recon: str) -> None:
    with pytest.raises(MissingWeightsError, match="vgg"):
        distance_of(recon=recon)


@pytest.fixture
def squeezenet(shared: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of the one network whose published weights are at hand."""
    monkeypatch.setenv("TFGAN_MED_WEIGHTS", str(shared / "weights"))
    return {"lpips_net": "squeezenet-caffe"}


def test_with_weights_auto_is_lpips(squeezenet: dict[str, Any]) -> None:
    distance = distance_of(**squeezenet)
    assert distance.name == "squeezenet-caffe"
    assert distance.notices == []


def test_channels_that_lpips_does_not_know_are_refused_or_avoided(
    squeezenet: dict[str, Any],
) -> None:
    distance = distance_of((2, 1), **squeezenet)
    assert distance.name == "l1"
    assert "LPIPS sees 1 or 3 channels, not 2" in distance.notices[0]
    with pytest.raises(UserError, match="model.recon: lpips sees pictures of 1 or 3 channels"):
        distance_of((2, 1), recon="lpips", **squeezenet)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_learned_distance_is_the_mean_of_lpips(
    channels: int, squeezenet: dict[str, Any]
) -> None:
    distance = distance_of((channels,), **squeezenet)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 2, 64, 64, channels))
    rgb = np.broadcast_to(pixels, (2, 2, 64, 64, 3)).astype("float32")
    expected = lpips.load("squeezenet-caffe").distances(*rgb).mean()
    found = distance(*(tf.constant(x / 127.5 - 1.0, tf.float32) for x in pixels))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_learned_distance_has_finite_gradients_also_on_black(
    squeezenet: dict[str, Any],
) -> None:
    distance = distance_of(**squeezenet)
    black = -tf.ones((2, 32, 32, 3))
    for target in (black, tf.constant(pictures(2)[:, 16:48, 16:48])):
        with tf.GradientTape() as tape:
            tape.watch(black)
            loss = distance(target, black)
        gradient = tape.gradient(loss, black).numpy()
        assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_gradients_stay_finite_where_a_network_sees_nothing() -> None:
    """Features of 0 have no direction; a bare square root would have no gradient there."""
    inputs = keras.Input((None, None, 3))
    trunk = keras.Model(inputs, [keras.layers.ReLU()(inputs)])
    network = lpips.LPIPS("test", "", False, trunk, lambda x: x, [np.ones(3, np.float32)])
    distance = LearnedDistance(network)
    dark = -tf.ones((1, 8, 8, 3))  # 0 in the scale of LPIPS
    with tf.GradientTape() as tape:
        tape.watch(dark)
        loss = distance(-dark, dark)
    assert float(loss) == pytest.approx(1.0)  # |(1, 1, 1) / sqrt(3) - 0|²
    assert np.isfinite(tape.gradient(loss, dark).numpy()).all()


# Samples ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler() -> FastGAN:
    """After a step, with noise that can be seen."""
    model = make()
    model.train_step(batch_of(4))
    for network in (model.generator, model.average("generator")):
        for layer in network.layers:
            if isinstance(layer, NoiseInjection):
                layer.weight.assign(0.5)
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.gamma.assign(3.0 * layer.gamma)
    model.prepare_samples(5)
    return model


def test_an_image_is_a_function_of_its_latent_vector_alone(sampler: FastGAN) -> None:
    latents = tf.random.stateless_normal((64, 256), (1, 2))
    alone, three, many = (sampler.sample(latents[:count]).numpy() for count in (1, 3, 64))
    np.testing.assert_allclose(three[0], alone[0], atol=1e-4)
    np.testing.assert_allclose(many[:3], three, atol=1e-4)
    assert np.abs(many[0] - many[1]).mean() > 1e-3


def test_samples_come_from_statistics_of_the_averaged_weights(sampler: FastGAN) -> None:
    source = sampler.average("generator")
    norm = "up4_norm"
    latents = tf.concat(list(sampler.calibration_inputs(5)), axis=0)
    before = keras.Model(source.input, source.get_layer(norm).input)(latents)
    expected = tf.reduce_mean(before, axis=(0, 1, 2))
    found = sampler._sampler.get_layer(norm).moving_mean  # type: ignore[union-attr]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(source.get_layer(norm).moving_mean, expected, atol=1e-5)


def test_preparing_samples_again_changes_nothing(sampler: FastGAN) -> None:
    latents = tf.random.stateless_normal((3, 256), (1, 2))
    state = {name: variable.numpy() for name, variable in sampler.state().items()}
    once = sampler.sample(latents).numpy()
    sampler.prepare_samples(5)
    assert np.array_equal(sampler.sample(latents), once)
    for name, variable in sampler.state().items():
        np.testing.assert_array_equal(variable.numpy(), state[name], err_msg=name)
