"""VGG16 as a fixed extractor of features: outputs of chosen layers, weights from a file.

Simonyan and Zisserman, arXiv:1409.1556, configuration D, with the Caffe weights that Keras
publishes. They want BGR pixels in 0..255 less the ImageNet mean, which `caffe_pixels` makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from tfgan_med.errors import DataError, UserError

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions of each block; a pooling ends a block."""

LAYERS = tuple(
    f"block{block}_conv{conv}"
    for block, (_, convs) in enumerate(BLOCKS, 1)
    for conv in range(1, convs + 1)
)
BGR_MEAN = (103.939, 116.779, 123.68)


def vgg16_features(taps: Sequence[str], weights: Path) -> keras.Model:
    """The first layers of VGG16 up to the last tap, frozen, float32 under every precision.

    Args:
        taps: names from `LAYERS`; the features are taken after the layer's ReLU.
        weights: the HDF5 file of `keras.applications.VGG16`, with or without top.
    Returns:
        A model from `caffe_pixels`, `(batch, height, width, 3)`, to a list of features
        `(batch, height / 2**(block-1), width / 2**(block-1), width of the block)`.
    Raises:
        UserError: for an unknown or repeated tap.
        DataError: if the file is no such file.
    """
    _check(taps)
    pixels = keras.Input((None, None, 3), dtype="float32", name="pixels")
    features: dict[str, Any] = {}
    x = pixels
    for block, (width, convs) in enumerate(BLOCKS, 1):
        for conv in range(1, convs + 1):
            name = f"block{block}_conv{conv}"
            x = layers.Conv2D(
                width, 3, padding="same", activation="relu", dtype="float32", name=name
            )(x)
            features[name] = x
        if features.keys() >= set(taps):
            break
        x = layers.MaxPooling2D(2, dtype="float32", name=f"block{block}_pool")(x)

    network = FeatureNetwork(pixels, [features[tap] for tap in taps], name="vgg16")
    network.trainable = False
    _load(network, Path(weights))
    return network


class FeatureNetwork(keras.Model):
    """A functional model whose result is a list also for one tap, where Keras unpacks it."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> list[Any]:
        features = super().call(inputs, training=training, mask=mask)
        return features if isinstance(features, list) else [features]


def caffe_pixels(images: Any) -> Any:
    """Images in [-1, 1] as VGG16 wants them: BGR, 0..255 less the ImageNet mean, float32.

    Args:
        images: `(batch, height, width, channels)` with 3 channels, or 1, which is repeated.
    Raises:
        ValueError: for any other number of channels.
    """
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"VGG16 sees grey or RGB pictures: received {channels} channels. "
            "Give it the picture without its masks."
        )
    x = 127.5 * (ops.cast(images, "float32") + 1.0)
    x = ops.repeat(x, 3, axis=-1) if channels == 1 else ops.flip(x, axis=-1)
    return x - ops.convert_to_tensor(BGR_MEAN, "float32")


def _check(taps: Sequence[str]) -> None:
    unknown = [tap for tap in taps if tap not in LAYERS]
    if unknown:
        raise UserError(
            f'VGG16 has no layer "{unknown[0]}". Expected some of: {", ".join(LAYERS)}.'
        )
    if not taps or len(set(taps)) < len(taps):
        raise UserError(
            f"VGG16 features need at least one layer and each once, received {list(taps)}."
        )


def _load(network: keras.Model, path: Path) -> None:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read as an HDF5 file ({error}). Expected the weights of "
            "keras.applications.VGG16; import them again."
        ) from None
    with file:
        groups = file.get("model_weights", file)  # a whole saved model nests them
        for layer in network.layers:
            if layer.weights:
                _assign(layer, _arrays(groups, layer.name), path)


def _arrays(groups: Any, name: str) -> list[npt.NDArray[np.float32]]:
    """Kernel and bias of a layer in the order in which the file lists them."""
    if name not in groups:
        return []
    group = groups[name]
    return [np.asarray(group[key], np.float32) for key in group.attrs.get("weight_names", ())]


def _assign(layer: keras.layers.Layer, arrays: list[npt.NDArray[np.float32]], path: Path) -> None:
    found = [array.shape for array in arrays]
    expected = [tuple(variable.shape) for variable in layer.weights]
    if found != expected:
        raise DataError(
            f"{path} does not hold VGG16 as Keras publishes it: layer {layer.name} has arrays of "
            f"shape {found}, expected {expected}. Use "
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5."
        )
    layer.set_weights(arrays)
