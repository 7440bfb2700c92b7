"""Penalties of critics whose slope is known, and through networks in every precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfgan_med.losses.penalties import (
    between,
    dragan_penalty,
    drift_penalty,
    gradient_penalty,
    input_gradients,
    slope_penalty,
    zero_centered_penalty,
)

REAL = tf.constant([[3.0, 4.0], [0.0, 1.0]])
FAKE = tf.constant([[0.0, 0.0], [2.0, 0.0]])
SHARE = tf.constant([[0.1], [0.5]])
SEED = tf.constant([4, 9], tf.int64)


def half_square(x: Any) -> Any:
    """|x|^2 / 2, whose gradient is x."""
    return 0.5 * tf.reduce_sum(tf.square(x), axis=-1)


def plane(x: Any) -> Any:
    """3 x1 + 4 x2, of slope 5 everywhere."""
    return 3.0 * x[:, 0] + 4.0 * x[:, 1]


def test_penalties_of_half_the_square_are_those_worked_out_by_hand() -> None:
    points = between(REAL, FAKE, SHARE)
    np.testing.assert_allclose(points, [[0.3, 0.4], [1.0, 0.5]], rtol=1e-6)
    assert float(slope_penalty(half_square, points)) == pytest.approx(0.1319660113)
    one_sided = float(slope_penalty(half_square, points, one_sided=True))
    assert one_sided == pytest.approx(0.0069660113)
    assert float(zero_centered_penalty(half_square, REAL)) == pytest.approx(6.5)
    assert float(zero_centered_penalty(half_square, FAKE)) == pytest.approx(1.0)


def test_penalties_of_a_plane_do_not_depend_on_where_they_look() -> None:
    for one_sided in (False, True):
        found = gradient_penalty(plane, REAL, FAKE, SEED, one_sided)
        assert float(found) == pytest.approx(16.0)
    assert float(dragan_penalty(plane, REAL, SEED)) == pytest.approx(16.0)
    assert 10 * float(zero_centered_penalty(plane, REAL)) == pytest.approx(125.0)


def test_the_slope_is_that_of_the_sum_over_patches_and_scales() -> None:
    images = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 3, 1)), tf.float32)
    gradients = input_gradients(lambda x: [2.0 * x, 3.0 * x[:, :1]], images)
    np.testing.assert_array_equal(gradients[:, 0], np.full((2, 3, 1), 5.0))
    np.testing.assert_array_equal(gradients[:, 1:], np.full((2, 2, 3, 1), 2.0))


def test_a_flat_critic_is_punished_without_a_nan() -> None:
    weight = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(lambda x: weight * plane(x), REAL, FAKE, SEED)
    assert float(penalty) == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(tape.gradient(penalty, weight))


def seen(penalty: Callable[..., Any], *arguments: Any) -> Any:
    """The points at which a penalty looked."""
    points = []

    def watching(x: Any) -> Any:
        points.append(x)
        return plane(x)

    penalty(watching, *arguments)
    return points[0].numpy()


def test_gp_looks_along_the_line_from_each_real_image_to_its_fake() -> None:
    real, fake = tf.zeros((1000, 2)), tf.constant([[1.0, 2.0]] * 1000)
    points = seen(gradient_penalty, real, fake, SEED)
    np.testing.assert_allclose(points[:, 1], 2 * points[:, 0], rtol=1e-6)
    assert 0.0 <= points[:, 0].min() < 0.01
    assert 0.99 < points[:, 0].max() <= 1.0
    assert points[:, 0].mean() == pytest.approx(0.5, abs=0.04)  # 4 standard errors of 0.009
    np.testing.assert_array_equal(points, seen(gradient_penalty, real, fake, SEED))
    other = seen(gradient_penalty, real, fake, SEED + 1)
    assert not np.array_equal(points, other)


def test_dragan_looks_at_most_half_a_standard_deviation_above_real_images() -> None:
    real = tf.constant(np.tile([[3.0], [-3.0]], (500, 20)), tf.float32)  # deviation 3
    shifts = seen(dragan_penalty, real, SEED) - real.numpy()
    assert shifts.min() >= 0.0
    assert 1.3 < shifts.max() <= 1.5
    # a U: mean of shares 1/2 times mean of noise 1/2, times 1.5
    assert shifts.mean() == pytest.approx(0.375, abs=0.03)
    assert shifts.std(axis=1).min() > 0  # per pixel
    strongest = shifts.max(axis=1)  # about 1.5 a, so it shows one share per sample
    assert np.corrcoef(strongest, shifts.mean(axis=1))[0, 1] > 0.9


def test_a_mask_leaves_only_the_slope_inside() -> None:
    mask = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    # slopes 3 and 4: (3 - 1)^2 and (4 - 1)^2; squares 9 and 16
    assert float(slope_penalty(plane, REAL, mask=mask)) == pytest.approx(6.5)
    assert float(gradient_penalty(plane, REAL, FAKE, SEED, mask=mask)) == pytest.approx(6.5)
    assert float(dragan_penalty(plane, REAL, SEED, mask)) == pytest.approx(6.5)
    assert float(zero_centered_penalty(plane, REAL, mask)) == pytest.approx(6.25)


def test_drift_is_the_mean_square_of_real_scores() -> None:
    assert float(drift_penalty(tf.constant([[3.0], [-1.0]]))) == pytest.approx(5.0)
    assert float(drift_penalty([tf.constant([2.0]), tf.constant([[1.0]], tf.float16)])) == 5.0


def test_images_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape.*\(2, 2\) and \(1, 2\)"):
        gradient_penalty(plane, REAL, FAKE[:1], SEED)


def test_nothing_flows_back_to_the_generated_images() -> None:
    with tf.GradientTape() as tape:
        tape.watch(FAKE)
        between_both = gradient_penalty(half_square, REAL, FAKE, SEED)
        at_fakes = zero_centered_penalty(half_square, FAKE)
    assert tape.gradient([between_both, at_fakes], FAKE) is None


def network(policy: str = "float32") -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(8, 4, strides=2, padding="same", dtype=policy),
            layers.LeakyReLU(0.2, dtype=policy),
            layers.Conv2D(16, 4, strides=2, padding="same", dtype=policy),
            layers.LeakyReLU(0.2, dtype=policy),
            layers.Conv2D(1, 4, dtype="float32"),
        ]
    )


def pictures(count: int = 2) -> Any:
    draw = np.random.default_rng(7)
    return [tf.constant(draw.uniform(-1, 1, (count, 32, 32, 3)), tf.float32) for _ in range(2)]


def test_second_derivatives_reach_every_weight_but_the_last_bias() -> None:
    """Against central differences along one direction."""
    keras.utils.set_random_seed(1)
    # Smooth activations: differences across the kinks of LeakyReLU measure something else.
    critic = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="tanh"), layers.Conv2D(1, 3)]
    )
    images = tf.constant(np.random.default_rng(2).uniform(-1, 1, (2, 8, 8, 1)), tf.float32)
    weights = critic.trainable_variables
    with tf.GradientTape() as tape:
        value = zero_centered_penalty(critic, images)
    gradients = tape.gradient(value, [weight.value for weight in weights])
    assert [gradient is None for gradient in gradients] == [False, False, False, True]

    start = critic.get_weights()
    draw = np.random.default_rng(3)
    direction = [draw.normal(size=weight.shape) for weight in start[:3]]
    slope = sum(float((g.numpy() * d).sum()) for g, d in zip(gradients, direction, strict=False))

    def moved(distance: float) -> float:
        critic.set_weights(
            [w + distance * d for w, d in zip(start, [*direction, 0.0], strict=True)]
        )
        return float(zero_centered_penalty(critic, images))

    step = 5e-3
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=2e-3)


@pytest.mark.parametrize(("factor", "loss_scale"), [(0.01, 1024.0), (1.0, 1024.0), (100.0, 1.0)])
@pytest.mark.parametrize("kind", ["gp", "r1"])
def test_a_float16_network_has_the_penalty_of_its_float32_twin(
    kind: str, factor: float, loss_scale: float
) -> None:
    """The loss scale is what an optimizer would find: smaller where gradients are large."""
    real, fake = pictures()
    results = []
    exact, half = network(), network("mixed_float16")
    half.set_weights(exact.get_weights())
    for critic in (exact, half):
        head = critic.layers[-1].kernel
        head.assign(head * factor)
        with tf.GradientTape() as tape:
            if kind == "gp":
                value = gradient_penalty(critic, real, fake, SEED)
            else:
                value = zero_centered_penalty(critic, real)
            scaled = loss_scale * value
        kernels = [layer.kernel.value for layer in critic.layers if hasattr(layer, "kernel")]
        gradients = [gradient / loss_scale for gradient in tape.gradient(scaled, kernels)]
        results.append((float(value), gradients))
    (value, gradients), (half_value, half_gradients) = results
    assert half_value == pytest.approx(value, rel=0.01)
    for one, other in zip(gradients, half_gradients, strict=True):
        assert np.linalg.norm(one - other) < 0.02 * np.linalg.norm(one)


def test_without_scaling_the_float16_gradient_would_vanish(monkeypatch: Any) -> None:
    """The scale is what keeps the weak slopes of the test above."""
    exact, half = network(), network("mixed_float16")
    for critic in (exact, half):
        critic.layers[-1].kernel.assign(exact.layers[-1].kernel * 1e-5)
    images = pictures()[0]
    half.set_weights(exact.get_weights())
    wanted = float(zero_centered_penalty(exact, images))
    scaled = float(zero_centered_penalty(half, images))
    monkeypatch.setattr("math.log2", lambda _: 8.0)  # a scale of 1
    unscaled = float(zero_centered_penalty(half, images))
    assert abs(scaled - wanted) < 0.5 * abs(unscaled - wanted)
