"""Fully convolutional networks on VGG16's trunk: FCN-8s, and the two heads of DCAN.

Long et al., arXiv:1411.4038; shelhamer/fcn.berkeleyvision.org, voc-fcn8s-atonce/net.py. Chen et
al., arXiv:1604.02677; clownrat6/Tissue-Image-Segmentation, tiseg/models/segmentors/dcan.py.
The reference of FCN pads 100 pixels and crops what it made; here every map is padded by zeros and
the picture mirrored to a multiple of 32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers

from tfgan_med.layers.padding import Margins, cropped, margins, mirrored
from tfgan_med.layers.upsampling import Bilinear
from tfgan_med.networks import keras_file
from tfgan_med.networks.initialization import seed_of
from tfgan_med.networks.vgg import BLOCKS, caffe_pixels

STRIDE = 32
MIN_SIZE = 32
DROPOUT = 0.5
POOL4_SCALE, POOL3_SCALE = 1e-2, 1e-4  # VGG16's weights for Caffe pixels make large features

_ABOUT = "VGG16 as Keras publishes it"
_ADVICE = "Use vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5."


def fcn8s(
    size: tuple[int, int],
    channels: int,
    outputs: int,
    features: int = 512,
    base: int = 64,
    trainable_upsampling: bool = False,
    weights: Path | None = None,
    seed: int = 0,
    name: str = "fcn8s",
) -> keras.Model:
    """FCN-8s, its three streams trained at once.

    Args:
        size: height and width, at least 32.
        channels: 3, or 1, which is repeated.
        outputs: maps.
        features: width of the two layers that were VGG16's fully connected ones, 4096 there.
        base: width of the trunk's first block, 64 in VGG16.
        trainable_upsampling: learn the transposed convolutions, which begin as interpolation.
        weights: the HDF5 file of `keras.applications.VGG16`; None starts from noise.
        seed: of the starting weights and of dropout.
    Returns:
        A model from pictures in [-1, 1] `(batch, height, width, channels)` to float32 logits
        `(batch, height, width, outputs)`.
    Raises:
        ValueError: for a smaller picture, or weights for a trunk of another width.
        DataError: if the file is no such file.
    """
    make = _Parts(size, channels, base, weights, seed, name)
    pools = make.trunk()
    x = make.wide(pools[4], features)
    x = make.score(x, outputs, "score")
    # Features of ReLU networks that start from noise are of order 1 everywhere.
    scales = (POOL4_SCALE, POOL3_SCALE) if weights else (1.0, 1.0)
    for stage, scale in zip((4, 3), scales, strict=True):
        x = make.interpolate(x, 2, trainable_upsampling)
        y = layers.Rescaling(scale, dtype="float32", name=f"pool{stage}_scaled")(pools[stage - 1])
        x = layers.Add(dtype="float32", name=f"sum{stage}")(
            [x, make.score(y, outputs, f"score_pool{stage}")]
        )
    x = make.interpolate(x, 8, trainable_upsampling)
    return keras.Model(make.images, make.cropped(x), name=name)


def two_heads(
    size: tuple[int, int],
    channels: int,
    features: int = 512,
    base: int = 64,
    weights: Path | None = None,
    seed: int = 0,
    name: str = "dcan",
) -> keras.Model:
    """Maps of objects and of their contours from strides 8, 16 and 32, each with its own loss.

    Args:
        features: width of the sixth stage, 1024 in the paper's reference.
        size, channels, base, weights, seed, raises: see `fcn8s`.
    Returns:
        A model from pictures in [-1, 1] `(batch, height, width, channels)` to four float32 maps
        of logits `(batch, height, width, 2)`, object first: the sum, and its three summands.
    """
    make = _Parts(size, channels, base, weights, seed, name)
    pools = make.trunk()
    stages = {4: make.before_pooling[3], 5: make.before_pooling[4]}
    x = make.convolution(pools[4], features, 7, "fc6")
    x = layers.Dropout(DROPOUT, seed=make.seed_of("fc6_drop"), name="fc6_drop")(x)
    stages[6] = make.convolution(x, features, 1, "fc7")
    maps = []
    for stage, x in stages.items():
        heads = []
        for head in ("object", "contour"):
            label = f"{head}{stage}"
            y = layers.Dropout(DROPOUT, seed=make.seed_of(label), name=f"{label}_drop")(x)
            heads.append(make.score(y, 1, label))
        y = layers.Concatenate(dtype="float32", name=f"heads{stage}")(heads)
        y = layers.UpSampling2D(
            2 ** (stage - 1), interpolation="bilinear", dtype="float32", name=f"larger{stage}"
        )(y)
        maps.append(make.cropped(y, f"crop{stage}"))
    total = layers.Add(dtype="float32", name="logits")(maps)
    return keras.Model(make.images, [total, *maps], name=name)


class _Parts:
    """The layers of one network, named after their place and seeded by its path."""

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        base: int,
        weights: Path | None,
        seed: int,
        path: str,
    ) -> None:
        if min(size) < MIN_SIZE:
            raise ValueError(f"image_size is {min(size)}; the network needs at least {MIN_SIZE}.")
        if weights and base != BLOCKS[0][0]:
            raise ValueError(
                f"VGG16's weights fit a trunk of base {BLOCKS[0][0]}, received {base}. Leave out "
                "model.base or the weights."
            )
        self.seed, self.path, self.base, self.weights = seed, path, base, weights
        self.images = keras.Input((*size, channels), name="images")
        self.margins: Margins = margins(*size, STRIDE)
        self.before_pooling: list[Any] = []

    def trunk(self) -> list[Any]:
        """The five poolings of VGG16, on pixels as its weights want them."""
        x = pixels = self._pixels()
        pools = []
        for block, (width, convs) in enumerate(BLOCKS, 1):
            width = width * self.base // BLOCKS[0][0]
            for conv in range(1, convs + 1):
                x = self.convolution(x, width, 3, f"block{block}_conv{conv}")
            self.before_pooling.append(x)
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
            pools.append(x)
        if self.weights:
            trunk = keras.Model(pixels, x)
            keras_file.load(trunk, self.weights, _ABOUT, _ADVICE)
        return pools

    def _pixels(self) -> Any:
        x = mirrored(self.images, self.margins)
        if self.weights:
            return caffe_pixels(x)
        if x.shape[-1] == 1:  # so that the trunk is the same with and without weights
            return layers.Concatenate(name="repeated")([x, x, x])
        return x

    def wide(self, x: Any, features: int) -> Any:
        """VGG16's fully connected layers as convolutions."""
        for label, kernel in (("fc6", 7), ("fc7", 1)):
            x = self.convolution(x, features, kernel, label)
            x = layers.Dropout(DROPOUT, seed=self.seed_of(f"{label}_drop"), name=f"{label}_drop")(x)
        return x

    def convolution(self, x: Any, width: int, kernel: int, label: str) -> Any:
        return layers.Conv2D(
            width,
            kernel,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(self.seed_of(label)),
            name=label,
        )(x)

    def score(self, x: Any, outputs: int, label: str) -> Any:
        """Logits of one stream, 0 at the start."""
        return layers.Conv2D(outputs, 1, kernel_initializer="zeros", dtype="float32", name=label)(x)

    def interpolate(self, x: Any, factor: int, trainable: bool) -> Any:
        """Larger by `factor`, at first bilinearly."""
        label = f"larger{x.shape[1]}x{factor}"
        return layers.Conv2DTranspose(
            x.shape[-1],
            2 * factor,
            strides=factor,
            padding="same",
            use_bias=False,
            kernel_initializer=Bilinear(),
            trainable=trainable,
            dtype="float32",
            name=label,
        )(x)

    def cropped(self, x: Any, label: str = "crop") -> Any:
        return cropped(x, self.margins, label)

    def seed_of(self, label: str) -> int:
        return seed_of(self.seed, f"{self.path}/{label}")
