"""Perceptual loss: how far two pictures are apart for a network that knows real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfgan_med.errors import UserError
from tfgan_med.losses.reconstruction import refuse_other_shape
from tfgan_med.networks.lpips import LPIPS
from tfgan_med.networks.vgg import caffe_pixels, vgg16_features

Tensor = Any
FeatureScale = Literal["unit", "raw"]

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3")
RAW_LAMBDAS = (100.0, 200.0, 300.0)
CALIBRATION_IMAGES = 64


class PerceptualLoss:
    """Distance of VGG16 features between the target and the generated picture.

        L = 1/N sum_i lambda_i E|F_i(y) - F_i(G(x))| / s_i

    F_i are features after the ReLU of layer i. With `feature_scale="unit"` s_i is the mean
    absolute feature of real images, so that every layer counts alike and the sum is of order 1;
    call `calibrate` once before training. With "raw" s_i is 1, as in the thesis: features of the
    Caffe weights are of order 10 to 100, so its lambdas drown the adversarial term.

    Args:
        layers: names of VGG16's convolutions, by default those of Johnson et al. up to 3_3.
        lambdas: one weight per layer; by default 1 each with "unit", the thesis' 100, 200, 300
            with "raw".
        feature_scale: "unit" or "raw".
        weights_file: of `keras.applications.VGG16`; None takes it from the cache.

    `feature_scales`, `(layers,)`, holds s_i; it belongs into a checkpoint. The network is
    frozen and float32 under every precision.

    Raises:
        MissingWeightsError: if the weights are neither given nor in the cache. Random weights
            are never used instead.
        UserError: for unknown layers or a wrong number of lambdas.
    Source: Sobolev's thesis, models 4 to 9; layers of Johnson et al., arXiv:1603.08155.
    """

    def __init__(
        self,
        layers: Sequence[str] = LAYERS,
        lambdas: Sequence[float] | None = None,
        feature_scale: FeatureScale = "unit",
        weights_file: Path | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.feature_scale = feature_scale
        self.lambdas = _lambdas(self.layers, feature_scale, lambdas)
        self.network = vgg16_features(self.layers, _weights_file(weights_file))
        self.feature_scales = keras.Variable(  # NaN until calibrated: no loss without a scale
            np.full(len(self.layers), 1.0 if feature_scale == "raw" else np.nan, np.float32),
            trainable=False,
            name="feature_scales",
        )

    @property
    def calibrated(self) -> bool:
        """Whether `feature_scales` is known, from `calibrate` or from a checkpoint."""
        return bool(np.isfinite(ops.convert_to_numpy(self.feature_scales)).all())

    def calibrate(self, images: Any, batch_size: int = 8) -> None:
        """Set s_i to the mean absolute feature of real images; with "raw" nothing to do.

        Args:
            images: `(count, height, width, channels)` in [-1, 1]; the first 64 are used.
        Raises:
            ValueError: if there is no image or a layer is silent on all of them.
        """
        if self.feature_scale == "raw":
            return
        images = images[:CALIBRATION_IMAGES]
        if len(images) == 0:
            raise ValueError("Calibration of the perceptual loss needs at least one real image.")
        totals = np.zeros(len(self.layers))
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            means = [ops.mean(ops.abs(feature)) for feature in self.features(batch)]
            totals += len(batch) * np.array([float(mean) for mean in means])
        if not totals.all():
            silent = self.layers[int(np.argmin(totals))]
            raise ValueError(
                f"VGG16 layer {silent} is 0 on all calibration images. The weights are damaged or "
                "the images are not in [-1, 1]."
            )
        self.feature_scales.assign((totals / len(images)).astype(np.float32))

    def features(self, images: Tensor) -> list[Tensor]:
        """Features of images in [-1, 1], `(batch, height, width, 1 or 3)`, per layer."""
        extracted: list[Tensor] = self.network(caffe_pixels(images), training=False)
        return extracted

    def __call__(self, target: Tensor, fake: Tensor) -> Tensor:
        """The loss of two batches `(batch, height, width, 1 or 3)` in [-1, 1], float32 scalar.

        Gradients reach `fake` only.
        """
        refuse_other_shape(target, fake)
        wanted = self.features(ops.stop_gradient(target))
        given = self.features(fake)
        distances = ops.stack(
            [ops.mean(ops.abs(w - g)) for w, g in zip(wanted, given, strict=True)]
        )
        weights = ops.convert_to_tensor(self.lambdas, "float32")
        return ops.mean(weights * distances / self.feature_scales)


class LearnedDistance:
    """LPIPS of batches, with gradients; the formula is in `networks/lpips.py`.

    Gradients are finite where all features are 0, which happens in black corners.

    Args:
        network: trunk and weights.
    """

    def __init__(self, network: LPIPS) -> None:
        self._trunk, self._scale, self._linear = network._trunk, network._scale, network._linear

    def __call__(self, target: Tensor, rebuilt: Tensor) -> Tensor:
        """Mean distance of pictures `(batch, height, width, 1 or 3)` in [-1, 1], float32 scalar."""
        refuse_other_shape(target, rebuilt)
        wanted, given = self._features(ops.stop_gradient(target)), self._features(rebuilt)
        layer_distances = [
            ops.mean(ops.sum(ops.square(w - g) * weights, axis=-1))
            for w, g, weights in zip(wanted, given, self._linear, strict=True)
        ]
        return sum(layer_distances)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Maps whose vectors at each place have length 1, or 0 where there is nothing."""
        pixels = 127.5 * (ops.cast(images, "float32") + 1.0)
        if pixels.shape[-1] == 1:
            pixels = ops.repeat(pixels, 3, axis=-1)
        maps = [ops.cast(x, "float32") for x in self._trunk(self._scale(pixels), training=False)]
        squares = [ops.sum(ops.square(x), axis=-1, keepdims=True) for x in maps]
        return [x * ops.rsqrt(ops.maximum(s, 1e-20)) for x, s in zip(maps, squares, strict=True)]


def _lambdas(
    layers: tuple[str, ...], feature_scale: FeatureScale, lambdas: Sequence[float] | None
) -> tuple[float, ...]:
    if feature_scale not in ("unit", "raw"):
        raise UserError(f'feature_scale is "{feature_scale}", expected "unit" or "raw".')
    if lambdas is None:
        lambdas = (1.0,) * len(layers) if feature_scale == "unit" else RAW_LAMBDAS[: len(layers)]
    if len(lambdas) != len(layers):
        raise UserError(
            f"The perceptual loss has {len(layers)} layers and {len(lambdas)} lambdas. "
            "Give one lambda per layer."
        )
    return tuple(lambdas)


def _weights_file(given: Path | None) -> Path:
    from tfgan_med.networks.pretrained import vgg16_weights

    path: Path = vgg16_weights(given)
    return path
