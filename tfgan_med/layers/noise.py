"""Noise added to feature maps: variety in details that the latent vector need not spell out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


class NoiseInjection(keras.layers.Layer):
    """One map of noise for all channels of an image, times one learned weight.

        y = x + w n,    n ~ N(0, 1) of shape (batch, height, width, 1),    w = 0 at the start

    In training every image has its own noise, drawn from a seed generator whose state is a
    variable of the network and so part of a checkpoint. In inference all images have one fixed
    map, a function of `seed` and the size alone: an image then depends on its latent vector and
    not on its neighbors in the batch. Noise is float32 under every precision; the sum has the
    layer's.

    Args:
        seed: of the draws in training and of the fixed map.

    Shapes: `(batch, height, width, channels)` in and out, height and width known.
    Source: Karras et al., arXiv:1812.04948, section 3.2, with one weight for all channels.
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.draws = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _, height, width, _ = input_shape
        if height is None or width is None:
            raise ValueError(f"{self.name} needs maps of known size, received {input_shape}.")
        self.weight = self.add_weight(
            shape=(), initializer="zeros", name="weight", dtype="float32", autocast=False
        )
        draw = np.random.default_rng(self.seed)
        self.fixed_map = draw.standard_normal((1, height, width, 1)).astype(np.float32)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            shape = (*ops.shape(inputs)[:-1], 1)
            noise = keras.random.normal(shape, dtype="float32", seed=self.draws)
        else:
            noise = ops.convert_to_tensor(self.fixed_map)
        return inputs + ops.cast(self.weight * noise, inputs.dtype)

    def restart(self) -> None:
        """Let the draws begin anew, as in a layer that was just made."""
        self.draws.state.assign(keras.random.SeedGenerator(self.seed).state)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
