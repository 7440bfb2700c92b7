"""VGG16 as a fixed extractor of features: outputs of chosen layers, weights from a file.

Simonyan and Zisserman, arXiv:1409.1556, configuration D, with the Caffe weights that Keras
publishes. They want BGR pixels in 0..255 less the ImageNet mean, which `caffe_pixels` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
from keras import layers, ops

from tfgan_med.errors import UserError
from tfgan_med.networks import keras_file

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions of each block; a pooling ends a block."""

LAYERS = tuple(
    f"block{block}_conv{conv}"
    for block, (_, convs) in enumerate(BLOCKS, 1)
    for conv in range(1, convs + 1)
)
BGR_MEAN = (103.939, 116.779, 123.68)

_ABOUT = "VGG16 as Keras publishes it"
_ADVICE = "Use vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5."
_INPUT_SIZE = 224  # what the fully connected layers want


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
    load(network, weights)
    return network


def vgg16_vectors(
    weights: Path, precision: Literal["float32", "bfloat16"] = "float32"
) -> keras.Model:
    """VGG16 to one vector for each picture, frozen.

    Args:
        weights: the HDF5 file of `keras.applications.VGG16`. With top the vector is `fc2` after
            its ReLU, 4096 numbers, as improved precision and recall use it; without top the
            last pooling averaged over its map, 512 numbers.
        precision: of convolutions and products; the vector is float32.
    Returns:
        A model called `vgg16-fc2` or `vgg16-gap`, from `caffe_pixels`, `(batch, 224, 224, 3)`.
    Raises:
        DataError: if the file is no such file.
    """
    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    top = keras_file.holds(Path(weights), "fc2", _ABOUT, _ADVICE)
    pixels = keras.Input((_INPUT_SIZE, _INPUT_SIZE, 3), dtype="float32", name="pixels")
    x = last_maps(pixels, dtype=policy)
    if top:
        x = layers.Flatten(dtype=policy)(x)
        x = layers.Dense(4096, activation="relu", dtype=policy, name="fc1")(x)
        x = layers.Dense(4096, activation="relu", dtype=policy, name="fc2")(x)
        x = layers.Activation("linear", dtype="float32")(x)
    else:
        x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    network = keras.Model(pixels, x, name="vgg16-fc2" if top else "vgg16-gap")
    network.trainable = False
    load(network, weights)
    return network


def last_maps(
    pixels: Any,
    dtype: keras.DTypePolicy | None = None,
    start: Callable[[str], Any] = lambda name: "glorot_uniform",
) -> Any:
    """All convolutions and poolings, `(batch, height / 32, width / 32, 512)`.

    Args:
        pixels: as `caffe_pixels` makes them, symbolic.
        dtype: policy of all layers, by default the global one.
        start: initializer of the kernel of the layer with this name.
    """
    x = pixels
    for block, (width, convs) in enumerate(BLOCKS, 1):
        for conv in range(1, convs + 1):
            name = f"block{block}_conv{conv}"
            convolution = layers.Conv2D(
                width,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=start(name),
                dtype=dtype,
                name=name,
            )
            x = convolution(x)
        x = layers.MaxPooling2D(2, dtype=dtype, name=f"block{block}_pool")(x)
    return x


def load(network: keras.Model, weights: Path) -> None:
    """Set the weights of all layers from the HDF5 file of `keras.applications.VGG16`.

    Raises:
        DataError: if the file is no such file.
    """
    keras_file.load(network, Path(weights), _ABOUT, _ADVICE)


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
