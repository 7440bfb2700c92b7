from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    HINGE,
    LSGAN,
    MINIMAX,
    NONSATURATING,
    WGAN,
    adversarial_loss,
)

A = np.array([[2.0, -1.0], [-2.0, 0.5]], np.float32)
B = np.array([[1.5, 0.2, -0.7], [-1.1, 0.3, 2.0]], np.float32)
RELATIVISTIC = ["ragan", "rgan", "ralsgan", "rahinge"]


@pytest.mark.parametrize(
    ("name", "options", "on_a", "on_b"),
    [
        ("minimax", {}, (1.2705973469, -0.5505024976), (1.7237855923, -1.0895395269)),
        ("nonsaturating", {}, (1.2705973469, 1.3005024976), (1.7237855923, 0.6895395269)),
        ("hinge", {}, (1.75, 0.75), (2.2666666667, -0.4)),
        ("lsgan", {}, (4.625, 4.625), (3.0266666667, 1.9666666667)),
        ("lsgan", {"half": True}, (2.3125, 2.3125), (1.5133333333, 0.9833333333)),
        ("wgan", {}, (-1.25, 0.75), (0.0666666667, -0.4)),
        ("wgan-gp", {}, (-1.25, 0.75), (0.0666666667, -0.4)),
        ("ragan", {}, (0.8299719619, 3.3299719619), (1.7343382259, 1.6010048926)),
        ("rgan", {}, (0.8597816030, 2.1097816030), (1.1936949713, 1.1270283046)),
        ("ralsgan", {}, (3.9375, 13.9375), (4.6977777778, 4.1644444444)),
        ("rahinge", {}, (1.125, 4.5), (2.3111111111, 2.1222222222)),
        (
            "minimax",
            {"label_smoothing": 0.9},
            (1.3205973469, -0.5505024976),
            (1.7571189256, -1.0895395269),
        ),
        (  # TF-GAN's default of 0.25, of which it takes half
            "nonsaturating",
            {"label_smoothing": 0.875},
            (1.3330973469, 1.3005024976),
            (1.7654522590, 0.6895395269),
        ),
    ],
)
def test_values_are_those_worked_out_in_float64(
    name: str, options: dict[str, Any], on_a: tuple[float, float], on_b: tuple[float, float]
) -> None:
    loss = adversarial_loss(name, **options)
    for (real, fake), (discriminator, generator) in ((A, on_a), (B, on_b)):
        assert float(loss.discriminator(real, fake)) == pytest.approx(discriminator, abs=1e-6)
        assert float(loss.generator(fake, real)) == pytest.approx(generator, abs=1e-6)


def test_tf_gans_minimax_generator_adds_the_constant_of_a_dummy_real_part() -> None:
    constant = -np.log1p(np.exp(-1.0))
    assert float(MINIMAX.generator(A[1])) + constant == pytest.approx(-0.8637641851, abs=1e-6)
    assert float(MINIMAX.generator(B[1])) + constant == pytest.approx(-1.4028012144, abs=1e-6)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_swapped_arguments_give_another_value(name: str) -> None:
    loss = adversarial_loss(name)
    real, fake = A  # on B the hinge is the same both ways
    assert abs(float(loss.discriminator(real, fake) - loss.discriminator(fake, real))) > 0.05
    assert abs(float(loss.generator(fake, real) - loss.generator(real, fake))) > 0.05


def gradient(function: Callable[[Any], Any], at: npt.NDArray[Any]) -> list[float]:
    x = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return list(tape.gradient(value, x).numpy())


def test_gradients_are_those_worked_out_by_hand() -> None:
    real, fake = A
    assert gradient(NONSATURATING.generator, fake) == pytest.approx([-0.4403985390, -0.1887703344])
    assert gradient(MINIMAX.generator, fake) == pytest.approx([-0.0596014610, -0.3112296656])
    assert gradient(lambda r: HINGE.discriminator(r, fake), real) == pytest.approx([0.0, -0.5])
    assert gradient(lambda f: HINGE.discriminator(real, f), fake) == pytest.approx([0.0, 0.5])


def test_smoothing_pulls_a_sure_score_back_by_one_minus_its_target() -> None:
    # d/dr [a sp(-r) + (1 - a) sp(r)] = s(r) - a, per element of two
    loss = adversarial_loss("minimax", label_smoothing=0.9)
    sigmoid = 1 / (1 + np.exp(-A[0]))
    found = gradient(lambda r: loss.discriminator(r, A[1]), A[0])
    assert found == pytest.approx(list((sigmoid - 0.9) / 2), abs=1e-7)


@pytest.mark.parametrize("case", ["vec8", "patch"])
def test_values_are_those_of_tf_gan(case: str, golden: Mapping[str, npt.NDArray[Any]]) -> None:
    real, fake = (golden[f"in/loss/{case}/{name}"] for name in ("real", "fake"))

    def reference(name: str) -> Any:
        return pytest.approx(float(golden[f"ref/loss/{case}/tfgan.{name}"]), rel=1e-5)

    assert float(WGAN.discriminator(real, fake)) == reference("wasserstein_d")
    assert float(WGAN.generator(fake)) == reference("wasserstein_g")
    assert float(HINGE.discriminator(real, fake)) == reference("hinge_d")
    assert float(HINGE.generator(fake)) == reference("hinge_g")
    assert float(MINIMAX.discriminator(real, fake)) == reference("minimax_d_smooth0")
    assert float(NONSATURATING.discriminator(real, fake)) == reference("modified_d_smooth0")
    assert float(NONSATURATING.generator(fake)) == reference("modified_g")
    # TF-GAN halves least squares; ours are those of the thesis.
    assert float(LSGAN.discriminator(real, fake)) / 2 == reference("lsgan_d")
    assert float(LSGAN.generator(fake)) / 2 == reference("lsgan_g")


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_extreme_scores_give_finite_losses_and_gradients(name: str, dtype: str) -> None:
    loss = adversarial_loss(name)
    for real_score, fake_score in ((1e4, 1e4), (1e4, -1e4), (-1e4, 1e4), (-1e4, -1e4)):
        real, fake = (tf.fill((4,), tf.cast(s, dtype)) for s in (real_score, fake_score))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([real, fake])
            values = [loss.discriminator(real, fake), loss.generator(fake, real)]
        for value in values:
            assert value.dtype == tf.float32
            assert np.isfinite(value)
            for found in tape.gradient(value, [real, fake]):
                assert found is None or np.isfinite(tf.cast(found, "float32")).all()


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_the_discriminator_learns_on_both_kinds_and_the_generator_on_its_own(name: str) -> None:
    loss = adversarial_loss(name)
    real, fake = np.array([0.3, -0.2], np.float32), np.array([0.1, -0.4], np.float32)
    assert min(gradient(lambda r: loss.discriminator(r, fake), real)) < 0  # up with real scores
    assert max(gradient(lambda f: loss.discriminator(real, f), fake)) > 0
    assert min(gradient(lambda f: loss.generator(f, real), fake)) < 0


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_scales_are_summed(name: str) -> None:
    loss = adversarial_loss(name)
    draw = np.random.default_rng(1)
    real, fake = ([draw.normal(size=(2, s, s, 1)) for s in (3, 7)] for _ in range(2))
    alone = [float(loss.discriminator(*scale)) for scale in zip(real, fake, strict=True)]
    assert float(loss.discriminator(real, fake)) == pytest.approx(sum(alone), rel=1e-6)
    alone = [float(loss.generator(*scale)) for scale in zip(fake, real, strict=True)]
    assert float(loss.generator(fake, real)) == pytest.approx(sum(alone), rel=1e-6)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_real_and_generated_batches_may_differ_in_size_except_in_pairs(name: str) -> None:
    loss = adversarial_loss(name)
    few, many = np.full((2, 3, 3, 1), 0.25, np.float32), np.full((5, 3, 3, 1), -0.5, np.float32)
    if name != "rgan":
        same = float(loss.discriminator(few, many[:2]))
        assert float(loss.discriminator(few, many)) == pytest.approx(same, rel=1e-6)
        return
    for objective in (loss.discriminator, loss.generator):
        with pytest.raises(ValueError, match=r"in pairs.*3, 3, 1\).*one size"):
            objective(few, many)


@pytest.mark.parametrize("name", RELATIVISTIC)
def test_a_relativistic_generator_asks_for_real_scores(name: str) -> None:
    loss = adversarial_loss(name)
    assert loss.needs_real
    with pytest.raises(ValueError, match="scores of real images"):
        loss.generator(A[1])


def test_other_generators_need_none() -> None:
    for name in set(ADVERSARIAL_LOSSES) - set(RELATIVISTIC):
        loss = adversarial_loss(name)
        assert not loss.needs_real
        assert float(loss.generator(A[1])) == float(loss.generator(A[1], A[0]))


def test_no_scale_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        HINGE.generator([])


def test_an_unknown_loss_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r'"hing".*Did you mean "hinge".*minimax.*wgan'):
        adversarial_loss("hing")


def test_options_of_another_loss_are_refused() -> None:
    with pytest.raises(UserError, match=r'^model.half: only "lsgan".*"hinge"'):
        adversarial_loss("hinge", half=True)
    for name in set(ADVERSARIAL_LOSSES) - {"minimax", "nonsaturating"}:
        with pytest.raises(UserError, match=rf'^model.label_smoothing: 0.9.*"{name}"'):
            adversarial_loss(name, label_smoothing=0.9)
