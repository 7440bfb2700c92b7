"""BSA: what is frozen and what moves, its objective against plain NumPy, sources with classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from tfgan_med.batches import ImageBatch
from tfgan_med.errors import MissingWeightsError, UserError
from tfgan_med.layers.batch_statistics import ConditionalBatchNormalization, ScaleShift
from tfgan_med.models import bsa
from tfgan_med.models.bsa import BSA, BSAConfig, PerceptualTerm, Weights, latent_distance
from tfgan_med.networks.sngan import GeneratorPlan, sngan_generator
from tfgan_med.networks.vgg import LAYERS
from tfgan_med.ops.latents import latents, lerp

PLAN = GeneratorPlan(image_size=32, channels=3, base=8, latent_size=16)


def make(num_images: int = 5, plan: GeneratorPlan = PLAN, **changes: Any) -> BSA:
    config = BSAConfig(**{"random_source": True, "perceptual": "none", **changes})
    channels = (plan.channels,)
    source = plan.model_dump(mode="json")
    return BSA(config, plan.image_size, channels, seed=3, source=source, num_images=num_images)


def trained_source(plan: GeneratorPlan = PLAN, seed: int = 7) -> keras.Model:
    """A generator none of whose weights and statistics is what it starts with."""
    generator = sngan_generator(plan, seed)
    draw = np.random.default_rng(seed)
    for weight in generator.weights:
        value = weight.numpy()
        if weight.name in ("gamma", "gammas", "moving_variance"):
            weight.assign(value * draw.uniform(0.5, 1.5, value.shape))
        elif weight.name in ("beta", "betas", "moving_mean", "bias"):
            weight.assign(value + draw.normal(0.0, 0.3, value.shape))
    return generator


def arrays(generator: keras.Model) -> Weights:
    return {layer.name: layer.get_weights() for layer in generator.layers if layer.weights}


def discs(count: int = 5) -> np.ndarray:
    """Discs of several sizes and colors on grounds of several colors."""
    draw = np.random.default_rng(1)
    rows, columns = np.mgrid[:32, :32]
    pictures = []
    for _ in range(count):
        (y, x), radius = draw.uniform(10, 22, 2), draw.uniform(5, 10)
        inside = ((rows - y) ** 2 + (columns - x) ** 2 < radius**2)[..., None]
        pictures.append(np.where(inside, draw.uniform(-1, 1, 3), draw.uniform(-1, 1, 3)))
    return np.array(pictures, np.float32)


def batch_of(pictures: np.ndarray, rows: list[int]) -> ImageBatch:
    return ImageBatch(images=tf.constant(pictures[rows]), rows=tf.constant(rows, tf.int64))


def is_adapted(path: str) -> bool:
    return "adapt" in path or "project/" in path or "table" in path


# What is trained ----------------------------------------------------------------------------------


def test_eleven_pairs_of_scales_and_shifts_at_128_pixels() -> None:
    config = BSAConfig(random_source=True)
    source = {"image_size": 128, "channels": 3}
    model = BSA(config, 128, (3,), inference=True, source=source)
    sizes = [int(layer.gamma.shape[0]) for layer in model.adapted]
    assert sizes == [1024, 1024, 1024, 1024, 512, 512, 256, 256, 128, 128, 64]
    assert sum(layer.count_params() for layer in model.adapted) == 11_904
    trainable = sum(int(np.prod(v.shape)) for v in model.generator.trainable_variables)
    assert trainable == 11_904 + 2_113_536
    counted = {"gamma", "beta", "kernel", "bias"}
    every = sum(int(np.prod(v.shape)) for v in model.generator.weights if v.name in counted)
    assert every == 32_150_787 + 11_904


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_it_begins_as_the_source_to_the_bit(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        source, model = trained_source(), make()
    finally:
        keras.config.set_dtype_policy("float32")
    model.adopt(arrays(source))
    vectors = latents(0, range(6), PLAN.latent_size)
    expected = np.asarray(source(vectors, training=False))
    assert expected.std() > 0.1
    model.prepare_samples()
    np.testing.assert_array_equal(model.sample(vectors), expected)


def test_two_hundred_steps_rebuild_five_pictures_and_leave_the_frozen_weights_alone() -> None:
    model, pictures, rows = make(), discs(), list(range(5))
    model.adopt(arrays(trained_source()))
    before = {v.path: v.numpy() for v in model.generator.variables}
    step = tf.function(model.train_step)
    first = float(step(batch_of(pictures, rows))["l1"])
    for _ in range(199):
        last = step(batch_of(pictures, rows))
    assert float(last["l1"]) < 0.7 * first
    rebuilt = np.abs(model.reconstruct(np.arange(5)) - pictures).mean()
    assert rebuilt == pytest.approx(float(last["l1"]), rel=0.2)  # that was before the last update
    for variable in model.generator.variables:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same == (not is_adapted(variable.path)), variable.path


def test_the_dense_layer_moves_by_next_to_nothing_and_rates_fall_in_steps() -> None:
    model = make(decay_steps=2)
    before = model.project.kernel.numpy()
    model.train_step(batch_of(discs(), [0, 1, 2, 3, 4]))
    # Adam's first step is its rate, wherever there is a gradient.
    moved = np.abs(model.project.kernel.numpy() - before).max()
    assert 0 < moved < 1.1e-7
    np.testing.assert_allclose(np.abs(model.latent_vectors()).max(), 0.03, rtol=1e-3)
    rates = [model.learning_rates()["generator"]]
    for _ in range(3):
        model.train_step(batch_of(discs(), [0, 1, 2, 3, 4]))
        rates.append(model.learning_rates()["generator"])
    np.testing.assert_allclose(rates, [0.03, 0.006, 0.006, 0.0012], rtol=1e-5)


def test_vectors_of_an_earlier_batch_keep_moving_and_unused_ones_stay() -> None:
    model, pictures = make(num_images=6, latent_start="normal"), discs(6)
    start = model.latent_vectors()
    assert 0.8 < start.std() < 1.2
    model.train_step(batch_of(pictures, [0, 1, 2]))
    middle = model.latent_vectors()
    model.train_step(batch_of(pictures, [3, 4]))
    end = model.latent_vectors()
    assert (middle[:3] != start[:3]).all() and (end[:3] != middle[:3]).all()
    np.testing.assert_array_equal(middle[3:], start[3:])
    assert (end[3:5] != middle[3:5]).any(axis=1).all()
    np.testing.assert_array_equal(end[5], start[5])
    # The momentum goes on in its own direction.
    assert (np.sign(end[:3] - middle[:3]) == np.sign(middle[:3] - start[:3])).all()


def test_statistics_are_the_stored_ones_whatever_the_batch() -> None:
    model = make()
    model.adopt(arrays(trained_source()))
    together = model.reconstruct(np.arange(5))
    alone = np.concatenate([model.reconstruct(np.array([row])) for row in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert model.prepare_samples() is model.generator


def test_samples_are_bounded_and_ways_end_at_reconstructions() -> None:
    model = make(latent_start="normal")
    assert model.truncation == 0.3
    drawn = latents(0, range(64), model.latent_size, model.truncation)
    assert np.abs(drawn).max() <= 0.3 and drawn.std() > 0.1
    first, last = model.latent_vectors()[[0, 3]]
    model.prepare_samples()
    way = np.asarray(model.sample(lerp(first, last, 8)))
    np.testing.assert_allclose(way[[0, -1]], model.reconstruct(np.array([0, 3])), atol=1e-5)
    assert np.abs(way[0] - way[-1]).max() > 0.01


# The source ---------------------------------------------------------------------------------------


CLASSES = PLAN.model_copy(update={"num_classes": 3})


def test_a_class_of_the_source_is_adapted_by_its_number() -> None:
    source, vectors = trained_source(CLASSES), latents(0, range(4), PLAN.latent_size)
    for number in range(3):
        model = make(plan=CLASSES, source_affine=number)
        model.adopt(arrays(source))
        labels = np.full(4, number)
        expected = np.asarray(source([vectors, labels], training=False))
        made = np.asarray(model.generator(vectors, training=False))
        np.testing.assert_allclose(made, expected, atol=2e-5)


@pytest.mark.parametrize("affine", ["mean", "identity"])
def test_classes_become_their_mean_or_the_identity(affine: str) -> None:
    source, model = trained_source(CLASSES), make(plan=CLASSES, source_affine=affine)
    model.adopt(arrays(source))
    norms = [x for x in source.layers if isinstance(x, ConditionalBatchNormalization)]
    assert len(norms) == 6
    for norm in norms:
        gammas, betas, mean, variance = norm.get_weights()
        gamma, beta, kept_mean, kept_variance = model.generator.get_layer(norm.name).get_weights()
        wanted = (gammas.mean(0), betas.mean(0)) if affine == "mean" else (1.0, 0.0)
        np.testing.assert_allclose(gamma, np.broadcast_to(wanted[0], gamma.shape), rtol=1e-6)
        np.testing.assert_allclose(beta, np.broadcast_to(wanted[1], beta.shape), atol=1e-6)
        np.testing.assert_array_equal(kept_mean, mean)
        np.testing.assert_array_equal(kept_variance, variance)
    head = source.get_layer("head_norm").get_weights()
    for kept, value in zip(model.generator.get_layer("head_norm").get_weights(), head, strict=True):
        np.testing.assert_array_equal(kept, value)


def test_a_class_that_is_not_there_and_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"source_affine is 3.*numbers 0 to 2"):
        make(plan=CLASSES, source_affine=3).adopt(arrays(trained_source(CLASSES)))
    fewer = {k: v for k, v in arrays(trained_source()).items() if k != "head_conv"}
    with pytest.raises(ValueError, match="head_conv"):
        make().adopt(fewer)
    with pytest.raises(ValueError, match=r"makes pictures of 32 px and 3.*64 px and 1"):
        BSA(BSAConfig(perceptual="none"), 64, (1,), source=PLAN.model_dump())


# The objective ------------------------------------------------------------------------------------


def test_the_distance_of_latents_from_normal_ones_by_hand() -> None:
    draw = np.random.default_rng(0)
    z, t = draw.normal(size=(4, 8)), draw.normal(size=(40, 8))
    pairs = np.array([[((a - b) ** 2).sum() for b in t] for a in z])
    expected = pairs.min(axis=0).mean() + pairs.min(axis=1).mean()
    made = latent_distance(tf.constant(z, tf.float32), tf.constant(t, tf.float32))
    assert float(made) == pytest.approx(expected, rel=1e-5)


def test_the_regularizer_is_the_mean_square_of_every_layer() -> None:
    model, draw = make(), np.random.default_rng(0)
    assert float(model.deviation()) == 0.0
    expected = 0.0
    for layer in model.adapted:
        gamma, beta = draw.normal(1.0, 0.2, layer.gamma.shape), draw.normal(size=layer.beta.shape)
        layer.set_weights([gamma, beta])
        expected += ((gamma - 1.0) ** 2).mean() + (beta**2).mean()
    assert len(model.adapted) == 7
    assert float(model.deviation()) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    model = make(latents_weight=0.5, regularizer=3.0)
    for layer in model.adapted:
        layer.set_weights([w + 0.1 for w in layer.get_weights()])
    made = {k: float(v) for k, v in model.train_step(batch_of(discs(), [0, 1, 2])).items()}
    assert set(made) == {"generator", "l1", "latent_distance", "regularizer"}
    assert made["regularizer"] == pytest.approx(7 * 0.02, rel=1e-4)
    total = made["l1"] + 0.5 * made["latent_distance"] + 3.0 * made["regularizer"]
    assert made["generator"] == pytest.approx(total, rel=1e-5)


@pytest.fixture(scope="module")
def application() -> keras.Model:
    """Keras' own VGG16 with seeded weights."""
    model = keras.applications.VGG16(weights=None, include_top=False)
    random = np.random.default_rng(16)
    for layer in model.layers:
        layer.set_weights(
            [
                random.normal(0, np.sqrt(2 / np.prod(weight.shape[:3])), weight.shape)
                if weight.ndim == 4
                else random.normal(0, 1, weight.shape)
                for weight in layer.get_weights()
            ]
        )
    return model


@pytest.fixture(scope="module")
def vgg(application: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights in the format in which Keras publishes them."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16_notop.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, application)
    return path


def random_pictures(seed: int, channels: int = 3) -> np.ndarray:
    shape = (2, 32, 32, channels)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def feature_distances(application: keras.Model, x: np.ndarray, g: np.ndarray) -> list[float]:
    """Of ten layers, from Keras' own preprocessing: BGR less the mean of each channel."""
    taps = [layer.output for layer in application.layers if layer.name in LAYERS[:10]]
    network = keras.Model(application.input, taps)
    a, b = (network(keras.applications.vgg16.preprocess_input(127.5 * (y + 1))) for y in (x, g))
    return [float(np.abs(np.asarray(u) - np.asarray(v)).mean()) for u, v in zip(a, b, strict=True)]


def test_the_perceptual_term_is_that_of_ten_layers(application: keras.Model, vgg: Path) -> None:
    x, g = random_pictures(0), random_pictures(1)
    expected = feature_distances(application, x, g)
    assert bsa.VGG_LAYERS[-1] == "block4_conv3" and len(expected) == 10
    term = PerceptualTerm(BSAConfig(perceptual="vgg16", vgg_weights=vgg), (3,), 32)
    assert float(term(tf.constant(x), tf.constant(g))) == pytest.approx(
        0.001 * sum(expected), rel=1e-4
    )
    with_mask = [np.concatenate([y, random_pictures(9, 1)], -1) for y in (x, g)]
    assert float(term(*map(tf.constant, with_mask))) == pytest.approx(
        0.001 * sum(expected), rel=1e-4
    )


def test_a_negative_weight_lets_each_layer_count_a_tenth(
    application: keras.Model, vgg: Path
) -> None:
    config = BSAConfig(perceptual="vgg16", vgg_weights=vgg, perceptual_weight=-1.0)
    term = PerceptualTerm(config, (3,), 32)
    x, g = tf.constant(random_pictures(0)), tf.Variable(random_pictures(1))
    with tf.GradientTape() as tape:
        loss = term(x, g)
    assert float(loss) == pytest.approx(1.0, rel=1e-5)
    gradient = np.asarray(tape.gradient(loss, g))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    # Along its own gradient the loss grows as the sum of d_l / (10 d_l at the start).
    step = 1e-3 * gradient / np.abs(gradient).max()
    start = feature_distances(application, x.numpy(), g.numpy() - step)
    end = feature_distances(application, x.numpy(), g.numpy() + step)
    here = feature_distances(application, x.numpy(), g.numpy())
    slope = sum(0.1 * (b - a) / d for a, b, d in zip(start, end, here, strict=True))
    assert slope == pytest.approx(float((2 * step * gradient).sum()), rel=0.05)
    same = float(term(x, x))
    assert same == 0.0


def test_training_with_the_perceptual_term_tracks_it(vgg: Path) -> None:
    model = make(perceptual="vgg16", vgg_weights=str(vgg))
    made = {k: float(v) for k, v in model.train_step(batch_of(discs(), [0, 1])).items()}
    assert list(made) == ["generator", "l1", "perceptual", "latent_distance", "regularizer"]
    total = made["l1"] + made["perceptual"] + 0.1 * made["latent_distance"]
    assert made["generator"] == pytest.approx(total, rel=1e-5)
    assert made["perceptual"] > 0


def test_auto_takes_what_is_there_and_says_so(
    vgg: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PerceptualTerm(BSAConfig(vgg_weights=vgg), (3,), 64).name == "vgg16"
    nothing = PerceptualTerm(BSAConfig(), (3,), 64)
    assert nothing.name == "none" and "VGG16" in nothing.notices[0]
    assert "model.perceptual=none" in nothing.notices[0]
    monkeypatch.setenv("TFGAN_MED_WEIGHTS", str(shared / "weights"))
    light = BSAConfig(lpips_net="squeezenet-caffe")
    learned = PerceptualTerm(light, (3,), 64)
    assert learned.name == "squeezenet-caffe" and "by LPIPS" in learned.notices[0]
    x, g = (tf.constant(np.repeat(random_pictures(i), 2, 1).repeat(2, 2)) for i in (0, 1))
    assert float(learned(x, g)) > 0.05 and float(learned(x, x)) == 0.0
    assert PerceptualTerm(light, (3,), 32).name == "none"  # too small for it
    assert PerceptualTerm(light, (2,), 64).name == "none"


def test_weights_that_were_asked_for_must_be_there() -> None:
    with pytest.raises(MissingWeightsError, match="vgg16"):
        PerceptualTerm(BSAConfig(perceptual="vgg16"), (3,), 64)
    with pytest.raises(UserError, match="sees pictures of 1 or 3 channels, these have 2"):
        PerceptualTerm(BSAConfig(perceptual="vgg16"), (2,), 64)
    with pytest.raises(UserError, match="needs pictures of 64 px, these have 32"):
        PerceptualTerm(BSAConfig(perceptual="lpips"), (3,), 32)


def test_scales_are_exact_in_bfloat16() -> None:
    layer = ScaleShift(dtype="mixed_bfloat16")
    x = tf.fill((1, 1, 1, 1), tf.constant(100.0, tf.bfloat16))
    layer(x)
    layer.set_weights([np.array([1.01]), np.array([-0.5])])  # bfloat16 knows 1.0078 and 1.0156
    assert float(layer(x)[0, 0, 0, 0]) == 100.5
