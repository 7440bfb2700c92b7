"""Skip-layer excitation: a map of few pixels says which channels of a large one matter."""

from __future__ import annotations

from typing import Any

from keras import layers

from tfgan_med.layers.spectral import SpectralConv2D

SUMMARY_SIZE = 4  # pixels per side of what is left of the small map


def skip_excitation(low: Any, high: Any, weights: Any, name: str) -> Any:
    """Channels of `high`, each times a number in (0, 1) that is computed from `low`.

        y = high * sigmoid(W2 SiLU(W1 pool(low)))

    `pool` averages to 4 x 4, W1 is a 4 x 4 convolution without padding (so 1 x 1 is left) and W2
    one of 1 x 1; both are without bias and spectrally normalized. With weights of 0 the result
    is half of `high`. The paper has a leaky ReLU in the place of SiLU.

    Args:
        low: `(batch, side, side, channels)`, a symbolic map; the side is a multiple of 4.
        high: `(batch, larger side, larger side, other channels)`.
        weights: starting values by name of the convolution, `f(name) -> initializer`.
        name: beginning of the names of the layers.
    Returns:
        A map shaped like `high`.
    Raises:
        ValueError: a side of `low` that is no multiple of 4.
    Source: Liu et al., arXiv:2101.04775, section 3.1.
    """
    side, channels = low.shape[1], high.shape[-1]
    if side % SUMMARY_SIZE:
        raise ValueError(f"{name}: a map of {side} pixels per side cannot be averaged to 4 x 4.")
    x = low
    if side > SUMMARY_SIZE:
        x = layers.AveragePooling2D(side // SUMMARY_SIZE, name=f"{name}_pool")(x)
    for label, kernel, activation in (("squeeze", SUMMARY_SIZE, "silu"), ("excite", 1, "sigmoid")):
        x = SpectralConv2D(
            channels,
            kernel,
            use_bias=False,
            kernel_initializer=weights(f"{name}_{label}"),
            name=f"{name}_{label}",
        )(x)
        x = layers.Activation(activation, name=f"{name}_{activation}")(x)
    return layers.Multiply(name=f"{name}_gated")([high, x])
