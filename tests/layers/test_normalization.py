from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.layers import normalization as module
from tfgan_med.layers.normalization import InstanceNormalization, normalization


def built(channels: int, **options: Any) -> InstanceNormalization:
    layer = InstanceNormalization(**options)
    layer.build((None, 16, 16, channels))
    return layer


def pictures(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(3).normal(2.0, 5.0, shape).astype(np.float32)


@pytest.fixture(params=["fused", "plain"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing, for maps of any size."""
    monkeypatch.setattr(module, "MIN_FUSED_PIXELS", 2)
    if request.param == "plain":
        monkeypatch.setattr(module, "MAX_FUSED_BATCH", 0)
    elif tf.config.list_physical_devices("GPU"):
        pytest.skip("the fused form is for CPUs only")
    return str(request.param)


def test_values_are_those_of_tensorflow_addons_and_keras(
    form: str, golden: Mapping[str, npt.NDArray[Any]]
) -> None:
    layer = built(4)
    layer.gamma.assign(golden["in/inorm/nhwc/gamma"])
    layer.beta.assign(golden["in/inorm/nhwc/beta"])
    result = layer(golden["in/inorm/nhwc/x"])
    np.testing.assert_allclose(result, golden["ref/inorm/nhwc/tfa.eps1e-05"], atol=1e-6)
    np.testing.assert_allclose(
        result, golden["ref/inorm/nhwc/keras3.groupnorm_all_eps1e-05"], atol=1e-6
    )


def test_every_image_and_channel_has_mean_zero_and_variance_one(form: str) -> None:
    x = pictures(3, 16, 12, 5)
    result = np.asarray(built(5)(x))
    np.testing.assert_allclose(result.mean((1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(result.var((1, 2)), 1.0, atol=1e-4)


def test_an_image_does_not_see_its_neighbors(form: str) -> None:
    x = pictures(4, 16, 16, 3)
    layer = built(3)
    np.testing.assert_allclose(layer(x)[2:3], layer(x[2:3]), atol=1e-6)


def test_both_forms_have_the_same_first_and_second_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, x = built(3), tf.constant(pictures(2, 16, 16, 3))

    def gradients() -> list[npt.NDArray[np.float32]]:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(tf.sin(layer(x)))
            first = inner.gradient(total, x)
            penalty = tf.reduce_sum(first**2)
        return [first.numpy()] + [
            g.numpy() for g in outer.gradient(penalty, [x, layer.gamma.value])
        ]

    fused = gradients()
    monkeypatch.setattr(module, "MAX_FUSED_BATCH", 0)
    for one, other in zip(fused, gradients(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_statistics_are_float32_under_mixed_precision(form: str, policy: str) -> None:
    # The sum of squares of this map is 2.6e8 and the squared mean 1e6: both beyond float16.
    layer = built(1, dtype=policy)
    half = tf.cast(1000.0 + 8.0 * np.sign(pictures(1, 16, 16, 1) - 2.0), layer.compute_dtype)
    result = layer(half)
    assert result.dtype == layer.compute_dtype
    x = np.asarray(tf.cast(half, "float64"))
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    np.testing.assert_allclose(tf.cast(result, "float64"), expected, atol=0.02)


def test_without_affine_there_are_no_weights() -> None:
    assert built(3, affine=False).weights == []
    plain = normalization("instance-plain", "norm")
    assert isinstance(plain, InstanceNormalization)
    assert not plain.affine


def test_without_affine_values_and_gradients_are_those_of_scale_one_and_offset_zero(
    form: str,
) -> None:
    x = tf.constant(pictures(2, 16, 12, 3))

    def result(affine: bool) -> list[npt.NDArray[np.float32]]:
        layer = built(3, affine=affine)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return [y.numpy(), tape.gradient(y, x, output_gradients=tf.sin(y)).numpy()]

    for plain, learned in zip(result(affine=False), result(affine=True), strict=True):
        np.testing.assert_allclose(plain, learned, atol=1e-6)


def test_a_map_of_one_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="same values for every image"):
        InstanceNormalization()(np.zeros((2, 1, 1, 8), np.float32))


def test_a_layer_comes_back_from_its_settings() -> None:
    layer = InstanceNormalization.from_config(
        InstanceNormalization(epsilon=1e-3, affine=False).get_config()
    )
    assert (layer.epsilon, layer.affine) == (1e-3, False)


def test_batch_norm_has_the_constants_of_pytorch() -> None:
    layer = normalization("batch", "norm")
    assert isinstance(layer, keras.layers.BatchNormalization)
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match='"layer"'):
        normalization("layer", "norm")  # type: ignore[arg-type]


def test_a_gradient_of_a_gradient_is_the_same_in_both_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MIN_FUSED_PIXELS", 2)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), tf.float32)
    layer = built(3)
    kernel = tf.constant(np.random.default_rng(1).normal(size=(3, 3)), tf.float32)

    def of_squared_slope() -> npt.NDArray[np.float32]:
        with tf.GradientTape() as outer:
            outer.watch(kernel)
            with tf.GradientTape() as tape:
                tape.watch(x)
                score = tf.reduce_sum(tf.square(tf.tanh(layer(x @ kernel))))
            slope = tape.gradient(score, x)
            penalty = tf.reduce_sum(tf.square(slope))
        return np.asarray(outer.gradient(penalty, kernel))

    found = of_squared_slope()
    monkeypatch.setattr(module, "MAX_FUSED_BATCH", 0)
    np.testing.assert_allclose(of_squared_slope(), found, rtol=2e-3, atol=2e-3 * abs(found).max())
