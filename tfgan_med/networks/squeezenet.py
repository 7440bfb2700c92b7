"""SqueezeNet 1.1 as a fixed extractor of features: the seven maps that LPIPS looks at.

Iandola et al., arXiv:1602.07360, table 1, in the later version 1.1 (smaller first kernel, earlier
poolings) of `forresti/SqueezeNet`; weights are its Caffe model as a Keras 2 file
(`rcmalli/keras-squeezenet`). They want BGR pixels in 0..255 less the ImageNet mean, which
`networks.vgg.caffe_pixels` makes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
from keras import layers

from tfgan_med.networks import keras_file

Tensor = Any

INPUT_SIZE = 227
TAP_CHANNELS = (64, 128, 256, 384, 384, 512, 512)
"""Channels after conv1, fire3, fire5, fire6, fire7, fire8 and fire9: the ends of the slices of
`richzhang/PerceptualSimilarity`, lpips/pretrained_networks.py."""

_FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192),
          8: (64, 256), 9: (64, 256)}  # fmt: skip
"""Channels of the squeezing and of each expanding convolution."""
_POOLED_BEFORE = (2, 4, 6)
_TAPPED = (3, 5, 6, 7, 8, 9)


def squeezenet_trunk(
    weights: Path, precision: Literal["float32", "bfloat16"] = "float32"
) -> keras.Model:
    """The convolutions of SqueezeNet 1.1, frozen.

    Poolings leave out an incomplete last window, as in the Keras version; Caffe's and
    torchvision's keep it.

    Args:
        weights: the Keras 2 file without top, `squeezenet_weights_tf_dim_ordering_tf_kernels_
            notop.h5` of `rcmalli/keras-squeezenet`.
        precision: of the convolutions; the result is float32.
    Returns:
        A model from `networks.vgg.caffe_pixels`, `(batch, height, width, 3)` of at least 31
        pixels a side (227 in training), to the list of the seven maps after their ReLU,
        `(batch, height, width, TAP_CHANNELS[i])`.
    Raises:
        DataError: the file is no such file.
    """
    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    pixels = keras.Input((None, None, 3), dtype="float32", name="pixels")
    taps = tapped_maps(pixels, policy)
    maps = [layers.Activation("linear", dtype="float32")(tap) for tap in taps]
    trunk = keras.Model(pixels, maps, name="squeezenet")
    trunk.trainable = False
    load(trunk, weights)
    return trunk


def tapped_maps(
    pixels: Tensor,
    dtype: keras.DTypePolicy | None = None,
    start: Callable[[str], Any] = lambda name: "glorot_uniform",
) -> list[Tensor]:
    """The seven maps that `squeezenet_trunk` tells of, in the precision of their layers.

    Args:
        pixels: as `caffe_pixels` makes them, symbolic.
        dtype: policy of all layers, by default the global one.
        start: initializer of the kernel of the layer with this name.
    """

    def convolve(x: Tensor, channels: int, size: int, name: str, **geometry: Any) -> Tensor:
        settings = {"kernel_initializer": start(name), "dtype": dtype, "name": name, **geometry}
        return layers.Conv2D(channels, size, activation="relu", **settings)(x)

    x = convolve(pixels, 64, 3, "conv1", strides=2)
    taps = [x]
    for number, (squeezed, expanded) in _FIRES.items():
        name = f"fire{number}"
        if number in _POOLED_BEFORE:
            x = layers.MaxPooling2D(3, 2, dtype=dtype)(x)
        x = convolve(x, squeezed, 1, f"{name}_squeeze1x1")
        one = convolve(x, expanded, 1, f"{name}_expand1x1")
        three = convolve(x, expanded, 3, f"{name}_expand3x3", padding="same")
        x = layers.Concatenate(dtype=dtype)([one, three])
        if number in _TAPPED:
            taps.append(x)
    return taps


def load(network: keras.Model, weights: Path) -> None:
    """Set the weights of all layers from the Keras 2 file without top.

    Raises:
        DataError: the file is no such file.
    """
    keras_file.load(
        network,
        Path(weights),
        "SqueezeNet 1.1 without top",
        "Use squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5 of rcmalli/keras-squeezenet.",
        stored_as=lambda name: name.replace("_", "/"),
    )
