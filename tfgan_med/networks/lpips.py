"""LPIPS: learned perceptual distances between pictures, as squared Euclidean distances.

    d(a, b) = sum_l 1/(H_l W_l) sum_hw sum_c w_lc (f_lhwc(a) - f_lhwc(b))²

f are features of a network, scaled to length 1 at each place; w are learned and not negative. So
with v = (sqrt(w_lc / (H_l W_l)) f_lhwc) for all l, h, w, c the distance is |v(a) - v(b)|²: each
picture is embedded once, and the distances of all pairs are one matrix product.

Zhang et al., arXiv:1801.03924, equation 1; version 0.1 of `richzhang/PerceptualSimilarity`,
lpips/lpips.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.networks import pretrained, squeezenet, torchvision_trunks, vgg
from tfgan_med.networks.features import value_name
from tfgan_med.networks.torchvision_trunks import State, Trunk

Pictures = npt.NDArray[Any]  # (images, height, width, 3) in 0..255, mostly uint8
Embeddings = npt.NDArray[np.float32]  # (images, numbers)
Tensor = Any

KINDS: dict[str, str] = {
    "alex": "LPIPS on AlexNet, what papers report as LPIPS",
    "vgg": "LPIPS on VGG16, closer to a perceptual loss and far slower",
    "squeeze": "LPIPS on SqueezeNet 1.1 of torchvision",
    "keras-vgg16": "VGG16 of Keras without learned weights; not LPIPS",
    "squeezenet-caffe": "SqueezeNet 1.1 of Caffe with the learned weights of another; not LPIPS",
}
SMALLEST = 64
"""Shortest side of a picture in pixels; the last features of smaller ones are a few places."""

_SHIFT = (-0.030, -0.088, -0.188)  # RGB, of pictures in [-1, 1]
_SCALE = (0.458, 0.448, 0.450)
_PASS_NUMBERS = 2**23  # embedded in one pass: 13 pictures of 256 x 256 on AlexNet, 1 on VGG16
_PASS_PICTURES = 64
_VGG_TAPS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")


class LPIPS:
    """A network whose squared Euclidean distances are perceptual distances.

    Args:
        name: `lpips-alex`, `lpips-vgg`, `lpips-squeeze`, or a name that says it is not LPIPS.
        sha256: of the checksums of the trunk and the linear layers.
        published: whether both are the published ones; only then distances are called LPIPS.
        trunk: scaled pictures to feature maps.
        scale: `(batch, height, width, 3)` float32 in 0..255 to what the trunk wants.
        linear: weights of the channels of each map, not negative.
    """

    def __init__(
        self,
        name: str,
        sha256: str,
        published: bool,
        trunk: keras.Model,
        scale: Callable[[Tensor], Tensor],
        linear: Sequence[npt.NDArray[np.float32]],
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.published = published
        self._trunk = trunk
        self._scale = scale
        self._linear = tuple(linear)
        signature = [tf.TensorSpec((None, None, None, 3), tf.float32)]
        self._compiled = tf.function(self._embedding, input_signature=signature)

    def name_of(self, measure: str) -> str:
        """What a value is called: `lpips` with the published AlexNet only, `lpips_vgg` on VGG16.

        Args:
            measure: name of the value on AlexNet, such as `lpips` or `lpips_diversity`.
        """
        trunk = self.name.removeprefix("lpips-")
        suffix = f"_{trunk}" if self.published and trunk != "alex" else ""
        return value_name(measure, self.name, self.sha256, self.published, suffix)

    def unweighted(self) -> LPIPS:
        """The same features, every channel counted alike: the paper's baseline, not LPIPS."""
        ones = [np.ones_like(weights) for weights in self._linear]
        name = f"lpips-unweighted-{self.name.removeprefix('lpips-')}"
        return LPIPS(name, self.sha256, False, self._trunk, self._scale, ones)

    def dimension(self, height: int, width: int) -> int:
        """Numbers that embed a picture of this size."""
        return sum(self._lengths(height, width))

    def embed(self, pictures: Pictures) -> Embeddings:
        """Vectors whose squared Euclidean distances are the perceptual distances.

        Args:
            pictures: `(images, height, width, 3)` RGB in 0..255, uint8 or a float type; grey ones
                are repeated by the caller. At least 64 pixels a side.
        Returns:
            `(images, numbers)`: 32 000 for AlexNet at 64 x 64 pixels, 640 000 at 256 x 256, and
            12 to 16 times as many for VGG16. Callers bound the pictures they embed at once.
        Raises:
            UserError: pictures of another shape, or smaller ones.
        """
        _check_pictures(pictures)
        dimension = self.dimension(*pictures.shape[1:3])
        embedded = np.empty((len(pictures), dimension), np.float32)
        for rows in _batches(len(pictures), dimension):
            embedded[rows] = self._compiled(tf.constant(pictures[rows], tf.float32)).numpy()
        return embedded

    def distances(self, first: Pictures, second: Pictures) -> npt.NDArray[np.float64]:
        """Distance of each picture to the one in its place in the other set, `(images,)`."""
        total: npt.NDArray[np.float64] = self.layer_distances(first, second).sum(axis=0)
        return total

    def layer_distances(self, first: Pictures, second: Pictures) -> npt.NDArray[np.float64]:
        """What each layer adds to `distances`, `(layers, images)`.

        Raises:
            UserError: pictures of different shapes, or as `embed`.
        """
        if first.shape != second.shape:
            raise UserError(
                f"Pictures of shape {first.shape} and {second.shape}: a perceptual distance needs "
                "equal sizes and numbers. Resize one of the sets."
            )
        _check_pictures(first)
        ends = np.cumsum([0, *self._lengths(*first.shape[1:3])])
        values = np.empty((len(ends) - 1, len(first)))
        for rows in _batches(len(first), ends[-1]):
            squares = np.square(self.embed(first[rows]) - self.embed(second[rows]))
            values[:, rows] = np.add.reduceat(squares, ends[:-1], axis=1, dtype=np.float64).T
        return values

    def _lengths(self, height: int, width: int) -> list[int]:
        shapes = self._trunk.compute_output_shape((1, height, width, 3))
        return [h * w * channels for _, h, w, channels in shapes]

    def _embedding(self, pictures: Tensor) -> Tensor:
        parts = []
        for features, weights in zip(self._trunk(self._scale(pictures)), self._linear, strict=True):
            x = ops.cast(features, "float32")
            length = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
            places = ops.cast(ops.shape(x)[1] * ops.shape(x)[2], "float32")
            x = x / (length + 1e-10) * ops.sqrt(ops.convert_to_tensor(weights) / places)
            parts.append(ops.reshape(x, (ops.shape(x)[0], -1)))
        return ops.concatenate(parts, axis=1)


def _batches(count: int, dimension: int) -> Iterator[slice]:
    """Pictures of one pass each, so few that their features take some 100 MB."""
    batch = min(max(1, _PASS_NUMBERS // dimension), _PASS_PICTURES)
    return (slice(start, start + batch) for start in range(0, count, batch))


def _check_pictures(pictures: Pictures) -> None:
    if pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise UserError(
            f"Pictures of shape {pictures.shape}; perceptual distances need RGB pictures "
            "(images, height, width, 3). Repeat a grey channel three times."
        )
    if min(pictures.shape[1:3]) < SMALLEST:
        height, width = pictures.shape[1:3]
        raise UserError(
            f"Pictures of {height} x {width} pixels; perceptual distances (LPIPS) need at least "
            f"{SMALLEST} a side. Leave this metric out, or compare larger pictures."
        )


# Loading ------------------------------------------------------------------------------------------


def load(
    kind: str,
    trunk: Path | None = None,
    linear: Path | None = None,
) -> LPIPS:
    """A perceptual network from its weight files.

    Args:
        kind: a key of `KINDS`.
        trunk: torchvision's state dict (`.pth`, or `.npz` with its names), for the last two kinds
            the Keras `.h5`; by default the one in the weights folders.
        linear: linear layers of LPIPS 0.1, a `.pth` of the `lpips` package or an `.npz`; by
            default the ones in the weights folders. `keras-vgg16` has none.
    Raises:
        MissingWeightsError: a file is needed and not on this machine.
        UserError: the kind is unknown, or a file is not what it should be.
    """
    if kind not in KINDS:
        raise UserError(f"{kind}: unknown perceptual network. Known: {', '.join(KINDS)}.")
    if kind == "keras-vgg16":
        return _keras_vgg16(trunk, linear)
    if kind == "squeezenet-caffe":
        return _squeezenet_caffe(trunk, linear)
    name = next(name for name in torchvision_trunks.TRUNKS if name == kind)
    return _torchvision(name, trunk, linear)


def missing(kind: str, trunk: Path | None = None, linear: Path | None = None) -> list[str]:
    """Names of the weights that a network needs and that are neither given nor on this machine."""
    names = (
        ("squeezenet", "lpips-squeeze-linear")
        if kind == "squeezenet-caffe"
        else (f"lpips-{kind}", f"lpips-{kind}-linear")
    )
    files_given = zip(names, (trunk, linear), strict=True)
    return [name for name, given in files_given if given is None and not pretrained.find(name)]


def _torchvision(kind: Trunk, trunk: Path | None, linear: Path | None) -> LPIPS:
    path = pretrained.locate(f"lpips-{kind}", trunk)
    state, trunk_sha256 = pretrained.read_tensors(path)
    network = torchvision_trunks.build(kind)
    try:
        torchvision_trunks.load_state(network, state)
    except ValueError as error:
        raise UserError(f"{path.name}: {error}") from None
    weights, linear_sha256 = _linear_layers(kind, linear)
    return LPIPS(
        name=f"lpips-{kind}",
        sha256=_joint(trunk_sha256, linear_sha256),
        published=pretrained.is_published(f"lpips-{kind}", trunk_sha256)
        and pretrained.is_published(f"lpips-{kind}-linear", linear_sha256),
        trunk=network,
        scale=_scaled_for_torchvision,
        linear=weights,
    )


def _squeezenet_caffe(trunk: Path | None, linear: Path | None) -> LPIPS:
    """The linear layers were learned for torchvision's SqueezeNet; this is another training run."""
    path = pretrained.locate("squeezenet", trunk)
    weights, linear_sha256 = _linear_layers("squeeze", linear)
    return LPIPS(
        name="squeezenet-caffe",
        sha256=_joint(files.sha256_of(path), linear_sha256),
        published=False,
        trunk=squeezenet.squeezenet_trunk(path),
        scale=_scaled_for_caffe,
        linear=weights,
    )


def _keras_vgg16(trunk: Path | None, linear: Path | None) -> LPIPS:
    if linear is not None:
        raise UserError(
            f"{linear.name}: the linear layers of LPIPS were learned for torchvision's VGG16, not "
            "for that of Keras, which is used without. Leave them out, or choose vgg."
        )
    path = pretrained.locate("vgg16", trunk)
    return LPIPS(
        name="lpips-unweighted-keras-vgg16",
        sha256=_joint(files.sha256_of(path), ""),
        published=False,
        trunk=vgg.vgg16_features(_VGG_TAPS, path),
        scale=_scaled_for_caffe,
        linear=[np.ones(count, np.float32) for count in torchvision_trunks.CHANNELS["vgg"]],
    )


def _linear_layers(kind: Trunk, given: Path | None) -> tuple[list[npt.NDArray[np.float32]], str]:
    """A vector for each map and the checksum of the file."""
    path = pretrained.locate(f"lpips-{kind}-linear", given)
    state, sha256 = pretrained.read_tensors(path)
    count = len(torchvision_trunks.CHANNELS[kind])
    return [_vector(state, kind, layer, path) for layer in range(count)], sha256


def _vector(state: State, kind: Trunk, layer: int, path: Path) -> npt.NDArray[np.float32]:
    expected = torchvision_trunks.CHANNELS[kind][layer]
    for name in (f"lin{layer}.model.1.weight", f"{kind}/lin{layer}"):
        vector = np.asarray(state.get(name, ()), np.float32).ravel()
        if len(vector) == expected and np.isfinite(vector).all() and vector.min() >= 0:
            return vector
    raise UserError(
        f"{path.name}: does not hold lin{layer}.model.1.weight with {expected} weights of 0 or "
        f"more. Give the linear layers of LPIPS 0.1 for {kind}."
    )


def _joint(trunk_sha256: str, linear_sha256: str) -> str:
    return hashlib.sha256(f"{trunk_sha256} {linear_sha256}".encode()).hexdigest()


def _scaled_for_torchvision(pictures: Tensor) -> Tensor:
    return (pictures / 127.5 - 1.0 - ops.convert_to_tensor(_SHIFT)) / ops.convert_to_tensor(_SCALE)


def _scaled_for_caffe(pictures: Tensor) -> Tensor:
    return vgg.caffe_pixels(pictures / 127.5 - 1.0)
