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
    AdversarialLoss,
    adversarial_loss,
)

A = np.array([[2.0, -1.0], [-2.0, 0.5]], np.float32)
B = np.array([[1.5, 0.2, -0.7], [-1.1, 0.3, 2.0]], np.float32)


@pytest.mark.parametrize(
    ("loss", "on_a", "on_b"),
    [
        (MINIMAX, (1.2705973469, -0.5505024976), (1.7237855923, -1.0895395269)),
        (NONSATURATING, (1.2705973469, 1.3005024976), (1.7237855923, 0.6895395269)),
        (HINGE, (1.75, 0.75), (2.2666666667, -0.4)),
        (LSGAN, (4.625, 4.625), (3.0266666667, 1.9666666667)),
        (WGAN, (-1.25, 0.75), (0.0666666667, -0.4)),
    ],
    ids=["minimax", "nonsaturating", "hinge", "lsgan", "wgan"],
)
def test_values_are_those_worked_out_in_float64(
    loss: AdversarialLoss, on_a: tuple[float, float], on_b: tuple[float, float]
) -> None:
    for (real, fake), (discriminator, generator) in ((A, on_a), (B, on_b)):
        assert float(loss.discriminator(real, fake)) == pytest.approx(discriminator, abs=1e-6)
        assert float(loss.generator(fake)) == pytest.approx(generator, abs=1e-6)


def gradient(function: Callable[[Any], Any], at: npt.NDArray[np.float32]) -> list[float]:
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
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extreme_scores_give_finite_losses_and_gradients(name: str, dtype: str) -> None:
    loss = adversarial_loss(name)
    for sign in (1e4, -1e4):
        real = tf.constant([sign, -sign], dtype)
        with tf.GradientTape() as tape:
            tape.watch(real)
            both = loss.discriminator(real, -real) + loss.generator(real)
        assert both.dtype == tf.float32
        assert np.isfinite(both)
        assert np.isfinite(tf.cast(tape.gradient(both, real), "float32")).all()


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_scales_are_summed_and_batches_may_differ(name: str) -> None:
    loss = adversarial_loss(name)
    small, large = np.full((2, 3, 3, 1), 0.25, np.float32), np.full((5, 7, 7, 1), -0.5, np.float32)
    alone = [float(loss.discriminator(scale, 2 * scale)) for scale in (small, large)]
    together = float(loss.discriminator([small, large], [2 * small, 2 * large]))
    assert together == pytest.approx(sum(alone), rel=1e-6)
    assert float(loss.generator([small])) == float(loss.generator(small))
    assert np.isfinite(float(loss.discriminator(small, large)))


def test_no_scale_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        HINGE.generator([])


def test_an_unknown_loss_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r'"hing".*Did you mean "hinge".*minimax.*wgan'):
        adversarial_loss("hing")
