"""SNGAN: who is trained when and on what, classes, learning rates, samples."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from tfgan_med.batches import ImageBatch
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.models.sngan import SNGAN, SNGANConfig

Array = npt.NDArray[Any]

TINY = {"generator_base": 8, "discriminator_base": 8, "latent_size": 8, "n_dis": 2}
LABELS = [0, 1, 2, 0, 1, 2, 1, 0]


def make(
    channels: tuple[int, ...] = (1,), seed: int = 3, schedule: Any = None, **changes: Any
) -> SNGAN:
    config = SNGANConfig(**{**TINY, **changes})
    more = {} if schedule is None else {"schedule": schedule}
    classes = 3 if config.conditional else 0
    return SNGAN(config, 32, channels, seed=seed, num_classes=classes, **more)


@pytest.fixture(scope="module")
def batch() -> ImageBatch:
    """Bright discs of several sizes on a dark ground, and the disc itself as a mask."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    radii = np.linspace(5, 12, 8).reshape(8, 1, 1)
    disc = np.where(rows**2 + columns**2 < radii**2, 1.0, -1.0)
    images = tf.constant(np.stack([disc * 0.7, disc], axis=-1), tf.float32)
    return ImageBatch(images=images, labels=tf.constant(LABELS, tf.int64))


def first(batch: ImageBatch, channels: int = 1) -> ImageBatch:
    return ImageBatch(images=batch["images"][..., :channels], labels=batch["labels"])


def values(network: keras.Model) -> list[Array]:
    return [np.array(v) for v in network.trainable_variables]


def still(before: list[Array], network: keras.Model) -> list[str]:
    """Weights that did not move."""
    pairs = zip(before, network.trainable_variables, strict=True)
    return [new.path for old, new in pairs if np.array_equal(old, new)]


class Watched:
    """Inputs and results of a network, call by call."""

    def __init__(self, network: keras.Model) -> None:
        self.inputs: list[Any] = []
        self.results: list[Array] = []
        call = network.call

        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            result = call(inputs, *args, **kwargs)
            self.inputs.append(inputs)
            self.results.append(np.asarray(result))
            return result

        network.call = watched


# One step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True])
def test_a_step_is_one_of_the_generator_then_one_of_the_discriminator_for_each_part(
    conditional: bool, batch: ImageBatch
) -> None:
    model = make(n_dis=4, dequantize=False, conditional=conditional)
    before = {name: values(network) for name, network in model.networks.items()}
    made, judged = Watched(model.generator), Watched(model.discriminator)
    losses = {name: float(value) for name, value in model.train_step(first(batch)).items()}

    assert int(model.optimizers["generator"].iterations) == 1
    assert int(model.optimizers["discriminator"].iterations) == 4
    assert [len(result) for result in made.results] == [4, 2, 2, 2, 2]  # twice as many at 32 px
    assert [len(result) for result in judged.results] == [4, 4, 4, 4, 4]
    for one, other in itertools.combinations(made.results, 2):
        assert not np.allclose(one[:2], other[:2], atol=1e-3)
    seen = [inputs[0] if conditional else inputs for inputs in judged.inputs]
    np.testing.assert_array_equal(seen[0], made.results[0])
    reals = np.concatenate([part[:2] for part in seen[1:]])
    np.testing.assert_array_equal(reals, first(batch)["images"])  # each picture once
    for part, fake in zip(seen[1:], made.results[1:], strict=True):
        np.testing.assert_array_equal(part[2:], fake)

    # The hinge of Miyato et al., eq. 17 and 18.
    assert losses["generator"] == pytest.approx(-judged.results[0].mean(), rel=1e-5)
    real, fake = (np.stack([r[part] for r in judged.results[1:]]) for part in np.s_[:2, 2:])
    hinge = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    assert losses["discriminator"] == pytest.approx(hinge, rel=1e-5)
    assert losses["real_score"] == pytest.approx(real.mean(), rel=1e-4)
    assert losses["fake_score"] == pytest.approx(fake.mean(), rel=1e-4)

    for name in ("generator", "discriminator"):
        # A bias that a norm takes away again has no gradient but rounding.
        unmoved = still(before[name], model.networks[name])
        assert all("_conv1/bias" in path and name == "generator" for path in unmoved), unmoved
    if conditional:
        labels = np.concatenate([inputs[1][:2] for inputs in judged.inputs[1:]])
        np.testing.assert_array_equal(labels, LABELS)
        for inputs, pictures in zip(judged.inputs[1:], made.inputs[1:], strict=True):
            np.testing.assert_array_equal(inputs[1][2:], pictures[1])  # of their own classes


def test_the_generator_moves_first(batch: ImageBatch) -> None:
    model = make(n_dis=1, learning_rate=0.01)
    model.own_optimizer("generator", keras.optimizers.SGD(0.0), model.generator)
    start = float(model.train_step(first(batch))["generator"])
    other = make(n_dis=1, learning_rate=0.01)
    other.own_optimizer("discriminator", keras.optimizers.SGD(0.0), other.discriminator)
    # Its loss is that of the discriminator before any step, whatever happens to that afterwards.
    assert float(other.train_step(first(batch))["generator"]) == start


def test_u_moves_once_before_each_update(batch: ImageBatch) -> None:
    model = make(n_dis=2, learning_rate=1e-12)  # kernels as good as fixed
    layer = model.discriminator.get_layer("block2_conv1")
    u = layer.u.value
    for _ in range(3):
        u = layer._iterated(u)
    model.train_step(first(batch))
    np.testing.assert_allclose(layer.u, u, atol=1e-5)


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_player_without_a_step_of_its_own_stands_still(kind: str, batch: ImageBatch) -> None:
    model = make()
    model.own_optimizer(kind, keras.optimizers.SGD(0.0), model.networks[kind])
    before = values(model.networks[kind])
    model.train_step(first(batch))
    assert len(still(before, model.networks[kind])) == len(before)


@pytest.mark.parametrize(("asked", "count"), [(None, 16), (6, 6)])
def test_the_generator_s_batch_is_chosen_by_itself_or_by_settings(
    asked: int | None, count: int, batch: ImageBatch
) -> None:
    model = make(generator_batch=asked, n_dis=1)
    made = Watched(model.generator)
    model.train_step(first(batch))
    assert [len(result) for result in made.results] == [count, 8]


def test_a_batch_that_the_updates_cannot_share_is_refused(batch: ImageBatch) -> None:
    with pytest.raises(ValueError, match=r"model.n_dis is 3, which does not divide the 8 pictures"):
        make(n_dis=3).train_step(first(batch))


def test_steps_are_a_function_of_the_seed(batch: ImageBatch) -> None:
    runs = []
    for seed in (3, 3, 4):
        model = make(seed=seed, augment="color,translation", n_dis=1)
        runs.append([float(v) for v in model.train_step(first(batch)).values()])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


# Settings -----------------------------------------------------------------------------------------


def test_both_rates_fall_to_zero_over_the_last_share_of_the_run() -> None:
    model = make(schedule=Schedule(4, 5), decay=0.5, n_dis=3)  # 20 steps, the last 10 late
    found = []
    for step in range(20):
        model.optimizers["generator"].iterations.assign(step)
        model.optimizers["discriminator"].iterations.assign(3 * step + 2)
        rates = model.learning_rates()
        assert rates["generator"] == rates["discriminator"]
        found.append(rates["generator"])
    np.testing.assert_allclose(found[:10], 2e-4, rtol=1e-6)
    np.testing.assert_allclose(found[10:], 2e-4 * (1 - np.arange(1, 11) / 11), rtol=1e-5)
    constant = make(schedule=Schedule(4, 5), decay=0.0)
    constant.optimizers["generator"].iterations.assign(19)
    assert constant.learning_rates()["generator"] == pytest.approx(2e-4)


def test_a_run_of_one_epoch_falls_too() -> None:
    model = make(schedule=Schedule(1, 90))
    model.optimizers["generator"].iterations.assign(89)
    assert model.learning_rates()["generator"] == pytest.approx(2e-4 / 11)


def test_adam_is_the_paper_s() -> None:
    for optimizer in make().optimizers.values():
        assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.0, 0.9, 1e-8)


def test_the_average_follows_the_generator(batch: ImageBatch) -> None:
    model = make()
    before = values(model.generator)
    model.train_step(first(batch))
    average = model.average("generator")
    assert average is not model.generator
    for old, new, kept in zip(before, values(model.generator), values(average), strict=False):
        np.testing.assert_allclose(kept, old + 0.9 * (new - old), atol=1e-6)
    assert make(ema=0.0).networks.keys() == {"generator", "discriminator"}


def test_noise_of_one_grey_level_is_added_to_pictures_and_not_to_masks(batch: ImageBatch) -> None:
    model = make((1, 1))
    noisy = model._dequantized(batch["images"], 1)
    noise = np.asarray(noisy - batch["images"])
    assert np.abs(noise[..., 0]).max() == pytest.approx(1 / 255, rel=0.01)
    assert noise[..., 0].std() == pytest.approx(2 / 255 / np.sqrt(12), rel=0.03)
    assert abs(noise[..., 0].mean()) < 3e-4
    assert not noise[..., 1].any()
    other = np.asarray(model._dequantized(batch["images"], 2) - batch["images"])
    assert not np.allclose(noise, other)
    plain = make((1, 1), dequantize=False)
    np.testing.assert_array_equal(plain._dequantized(batch["images"], 1), batch["images"])


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        ("mixed_float16", {"augment": "color,translation,cutout", "conditional": True}),
        ("mixed_float16", {"adversarial": "rahinge", "n_dis": 1}),
        ("mixed_bfloat16", {"penalty": "r1", "penalty_interval": 1, "n_dis": 1}),
    ],
    ids=["augmented", "relativistic", "penalty"],
)
def test_the_game_is_chosen_by_settings(
    policy: str, changes: dict[str, Any], batch: ImageBatch
) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = make((1, 1), **changes)
        before = [values(model.generator), values(model.discriminator)]
        step = tf.function(model.train_step, autograph=False)
        # Steps that overflow float16 are skipped, and the scale of the loss then halved.
        losses = [step(batch) for _ in range(8)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite([[float(v) for v in one.values()] for one in losses]).all()
    assert ("penalty" in losses[0]) == ("penalty" in changes)
    for old, network in zip(before, (model.generator, model.discriminator), strict=True):
        assert len(still(old, network)) < len(old) / 4, network.name
        assert all(np.isfinite(weight).all() for weight in values(network)), network.name
    assert step.experimental_get_tracing_count() == 1


def test_a_size_there_is_no_network_for_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 48; SNGAN makes pictures of 32, 64 or 128"):
        SNGAN(SNGANConfig(), 48, (3,))


# Classes ------------------------------------------------------------------------------------------


def test_conditional_networks_need_classes_and_others_take_no_notice_of_them() -> None:
    config = SNGANConfig(**TINY, conditional=True)
    with pytest.raises(ValueError, match=r"model.conditional needs a set of two classes.*it has 1"):
        SNGAN(config, 32, (1,), num_classes=1)
    plain = SNGAN(SNGANConfig(**TINY), 32, (1,), num_classes=5)
    assert plain.num_classes == 0
    assert len(plain.generator.inputs) == len(plain.discriminator.inputs) == 1


def test_other_labels_of_the_same_pictures_change_the_discriminator_s_loss(
    batch: ImageBatch,
) -> None:
    found = []
    for labels in (LABELS, LABELS, [2, 2, 2, 2, 0, 0, 0, 0]):
        model = make(conditional=True, n_dis=1)
        given = ImageBatch(images=first(batch)["images"], labels=tf.constant(labels, tf.int64))
        losses = model.train_step(given)
        found.append((float(losses["generator"]), float(losses["real_score"])))
    assert found[0] == found[1]
    assert found[0][0] == found[2][0]  # the generator's pictures have classes of their own
    assert abs(found[0][1] - found[2][1]) > 1e-4


def test_batch_norm_statistics_are_averaged_over_all_classes_alike() -> None:
    config = SNGANConfig(**TINY, conditional=True)
    model = SNGAN(config, 32, (1,), num_classes=100, inference=True)
    labels = np.concatenate([labels for _, labels in model.calibration_inputs(25)])
    assert set(np.bincount(labels, minlength=100)) == {16}  # 25 batches of 64


def test_samples_of_an_inference_model_are_of_the_class_asked_for() -> None:
    config = SNGANConfig(**TINY, conditional=True)
    model = SNGAN(config, 32, (1,), num_classes=3, inference=True)
    assert list(model.networks) == ["generator"]
    assert model.optimizers == {}
    for layer in model.generator.layers:
        if hasattr(layer, "gammas"):
            layer.gammas.assign(np.linspace(0.5, 2.0, 3)[:, None] * np.ones(layer.gammas.shape))
    model.prepare_samples(2)
    latents = tf.random.stateless_normal((2, 8), (1, 2))
    pictures = [np.asarray(model.sample(latents, tf.constant([c, c], tf.int64))) for c in range(3)]
    assert pictures[0].shape == (2, 32, 32, 1)
    assert not np.allclose(pictures[0], pictures[2], atol=1e-3)
    mixed = np.asarray(model.sample(latents, tf.constant([2, 0], tf.int64)))
    np.testing.assert_allclose(mixed[0], pictures[2][0], atol=1e-6)
    np.testing.assert_allclose(mixed[1], pictures[0][1], atol=1e-6)


# Learning -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(shared: Path) -> ImageBatch:
    """Sixteen photographed faces of 32 pixels."""
    found = sorted(p for p in (shared / "data" / "faces-orl").rglob("*") if _is_picture(p))[:160:10]
    pictures = [np.asarray(Image.open(path).convert("L").resize((32, 32))) for path in found]
    images = np.stack(pictures)[..., None].astype(np.float32) / 127.5 - 1.0
    assert len(images) == 16
    return ImageBatch(images=tf.constant(images))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in {".png", ".jpg", ".jpeg", ".pgm", ".bmp"}


def test_the_discriminator_tells_faces_from_noise(faces: ImageBatch) -> None:
    model = make(learning_rate=2e-3)
    model.own_optimizer("generator", keras.optimizers.SGD(0.0), model.generator)
    step = tf.function(model.train_step, autograph=False)
    start = step(faces)
    for _ in range(19):
        end = step(faces)
    assert float(end["discriminator"]) < 0.2 * float(start["discriminator"])
    assert float(end["sign_accuracy"]) == 1.0
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_the_generator_comes_closer_to_the_faces(faces: ImageBatch) -> None:
    model = make(learning_rate=1e-3, generator_base=16, augment="translation", ema=0.9)
    latents = tf.random.stateless_normal((64, 8), (5, 6))
    mean_face = tf.reduce_mean(faces["images"], axis=0)

    def distance() -> float:
        """Between the mean picture and the mean face."""
        made = model.generator(latents, training=True)
        return float(tf.reduce_mean(tf.abs(tf.reduce_mean(made, axis=0) - mean_face)))

    start = distance()
    step = tf.function(model.train_step, autograph=False)
    for _ in range(150):
        step(faces)
    assert distance() < start / 2


# Elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_step_is_the_same_compiled_by_xla(batch: ImageBatch) -> None:
    found = []
    for jit in (False, True):
        model = make((1, 1), conditional=True, augment="color,translation", n_dis=1)
        step = tf.function(model.train_step, autograph=False, jit_compile=jit)
        found.append([float(value) for value in step(batch).values()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_two_devices_keep_the_same_weights(batch: ImageBatch) -> None:
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) >= 2
    strategy = tf.distribute.MirroredStrategy(
        devices[:2], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = make(conditional=True)
    data = tf.data.Dataset.from_tensors(dict(first(batch))).unbatch().batch(8, drop_remainder=True)
    data = strategy.experimental_distribute_dataset(data)
    before = values(model.discriminator)
    step = tf.function(lambda one: strategy.run(model.train_step, (one,)), autograph=False)
    for one in data:
        losses = strategy.experimental_local_results(step(one)["discriminator"])
    assert float(losses[0]) == float(losses[1])
    assert len(still(before, model.discriminator)) == 0
    for variable in [*model.generator.trainable_variables, *model.discriminator.variables]:
        one, other = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, other)
