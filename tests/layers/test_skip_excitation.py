"""The gate of a large map by a small one: one number in (0, 1) for every channel."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tfgan_med.layers.skip_excitation import skip_excitation


def gate(weights: Any, side: int = 8, channels: int = 6) -> keras.Model:
    low, high = keras.Input((side, side, 4)), keras.Input((32, 32, channels))
    return keras.Model([low, high], skip_excitation(low, high, weights, "gate"))


def maps(side: int = 8, channels: int = 6) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    shapes = ((3, side, side, 4), (3, 32, 32, channels))
    return [draw.normal(size=shape).astype("float32") for shape in shapes]


def random_weights(name: str) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, 1.0, seed=len(name))


def test_weights_of_zero_halve_the_large_map() -> None:
    low, high = maps()
    gated = gate(lambda name: "zeros")([low, high]).numpy()
    np.testing.assert_allclose(gated, 0.5 * high, rtol=1e-6)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_gate_is_one_number_between_zero_and_one_for_each_image_and_channel(side: int) -> None:
    low, high = maps(side)
    ratios = gate(random_weights, side)([low, high]).numpy() / high
    assert ratios.shape == (3, 32, 32, 6)
    numbers = ratios[:, :1, :1]
    np.testing.assert_allclose(ratios, np.broadcast_to(numbers, ratios.shape), rtol=1e-4)
    assert ((numbers > 0) & (numbers < 1)).all()
    assert np.ptp(numbers, axis=0).min() > 0  # another image, another gate
    assert np.ptp(numbers, axis=-1).min() > 0


def test_the_gate_follows_the_formula() -> None:
    low, high = maps(8)
    network = gate(random_weights)
    squeeze, excite = (
        network.get_layer(f"gate_{part}").normalized_kernel().numpy()
        for part in ("squeeze", "excite")
    )
    pooled = low.reshape(3, 4, 2, 4, 2, 4).mean((2, 4))
    x = np.einsum("bhwi,hwio->bo", pooled, squeeze)
    x = x / (1 + np.exp(-x))
    number = 1 / (1 + np.exp(-x @ excite[0, 0]))
    np.testing.assert_allclose(
        network([low, high]).numpy(), high * number[:, None, None], rtol=1e-4, atol=1e-5
    )


def test_weights_are_those_of_a_convolution_of_four_and_one_of_one_pixel() -> None:
    shapes = [tuple(v.shape) for v in gate(random_weights).trainable_weights]
    assert shapes == [(4, 4, 4, 6), (1, 1, 6, 6)]


def test_a_map_that_cannot_be_averaged_to_four_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="gate: a map of 6 pixels"):
        gate(random_weights, side=6)
