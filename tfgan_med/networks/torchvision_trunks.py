"""AlexNet, VGG16 and SqueezeNet 1.1 as torchvision trains them, up to their last features.

Krizhevsky, arXiv:1404.5997; Simonyan and Zisserman, arXiv:1409.1556; Iandola et al.,
arXiv:1602.07360, release 1.1. Layers are named as in torchvision's state dicts, so weights go by
name. These are other training runs than the Caffe weights of `vgg.py` and `squeezenet.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

Trunk = Literal["alex", "vgg", "squeeze"]
State = dict[str, npt.NDArray[Any]]
Tensor = Any

TRUNKS: tuple[Trunk, ...] = get_args(Trunk)
CHANNELS: dict[Trunk, tuple[int, ...]] = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}
"""Width of each feature map."""

_DTYPE = "float32"


def build(trunk: Trunk) -> keras.Model:
    """A trunk with random weights, frozen, float32 under every precision; `load_state` fills it.

    Returns:
        A model from pictures `(batch, height, width, 3)`, scaled as the caller's method asks, to
        a list of feature maps after their ReLU, `(batch, h, w, channels)` with the `CHANNELS`.
    """
    pictures = keras.Input((None, None, 3), dtype="float32")
    network = keras.Model(pictures, _TRUNKS[trunk](pictures), name=trunk)
    network.trainable = False
    return network


def state_shapes(trunk: Trunk) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the wanted tensors of a state dict, kernels (out, in, height, width)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in _layers_with_weights(build(trunk)):
        height, width, inputs, outputs = layer.kernel.shape
        shapes[f"{layer.name}.weight"] = (outputs, inputs, height, width)
        shapes[f"{layer.name}.bias"] = (outputs,)
    return shapes


def load_state(network: keras.Model, state: State) -> None:
    """Fill a trunk from torchvision's names; tensors of the classifier are not looked at.

    Raises:
        ValueError: a tensor is absent, has another shape or is not finite; the network is
            unchanged.
    """
    values = []
    for layer in _layers_with_weights(network):
        for part, variable in (("weight", layer.kernel), ("bias", layer.bias)):
            name, expected = f"{layer.name}.{part}", tuple(variable.shape)
            array = state.get(name)
            if array is not None and array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
            if array is None or array.shape != expected:
                found = "is absent" if array is None else f"has the shape {state[name].shape}"
                raise ValueError(f"{name} {found}; this is no {network.name} of torchvision.")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has numbers that are not finite. Fetch the file again.")
            values.append((variable, np.asarray(array, np.float32)))
    for variable, array in values:
        variable.assign(array)


def _layers_with_weights(network: keras.Model) -> list[Any]:
    return [layer for layer in network.layers if layer.weights]


# The networks -------------------------------------------------------------------------------------


def _conv(x: Tensor, name: str, width: int, size: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution and ReLU, padded on all sides alike; with a stride, `same` is not."""
    same = stride == 1 and padding == size // 2
    if padding and not same:
        x = layers.ZeroPadding2D(padding, dtype=_DTYPE)(x)
    return layers.Conv2D(
        width,
        size,
        stride,
        padding="same" if same else "valid",
        activation="relu",
        dtype=_DTYPE,
        name=f"features.{name}",
    )(x)


def _pool(x: Tensor, size: int) -> Tensor:
    return layers.MaxPooling2D(size, 2, dtype=_DTYPE)(x)


def _ceil_pool(x: Tensor) -> Tensor:
    """3 x 3, stride 2; a window may reach one pixel beyond the end, where zeros are neutral."""
    return _pool(layers.ZeroPadding2D(((0, 1), (0, 1)), dtype=_DTYPE)(x), 3)


def _fire(x: Tensor, name: str, squeeze: int, expand: int) -> Tensor:
    x = _conv(x, f"{name}.squeeze", squeeze, 1)
    narrow = _conv(x, f"{name}.expand1x1", expand, 1)
    wide = _conv(x, f"{name}.expand3x3", expand, 3, padding=1)
    return layers.Concatenate(dtype=_DTYPE)([narrow, wide])


def _alexnet(x: Tensor) -> list[Tensor]:
    first = _conv(x, "0", 64, 11, stride=4, padding=2)
    second = _conv(_pool(first, 3), "3", 192, 5, padding=2)
    third = _conv(_pool(second, 3), "6", 384, 3, padding=1)
    fourth = _conv(third, "8", 256, 3, padding=1)
    fifth = _conv(fourth, "10", 256, 3, padding=1)
    return [first, second, third, fourth, fifth]


def _vgg16(x: Tensor) -> list[Tensor]:
    """The last map of each block, relu1_2 to relu5_3."""
    maps = []
    index = 0  # in torchvision's list, where a ReLU follows each convolution and a pool each block
    for width, convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convs):
            x = _conv(x, str(index), width, 3, padding=1)
            index += 2
        maps.append(x)
        x = _pool(x, 2)
        index += 1
    return maps


def _squeezenet(x: Tensor) -> list[Tensor]:
    """The maps before each pool, then after every fire module."""
    first = _conv(x, "0", 64, 3, stride=2)
    second = _fire(_fire(_ceil_pool(first), "3", 16, 64), "4", 16, 64)
    third = _fire(_fire(_ceil_pool(second), "6", 32, 128), "7", 32, 128)
    fourth = _fire(_ceil_pool(third), "9", 48, 192)
    fifth = _fire(fourth, "10", 48, 192)
    sixth = _fire(fifth, "11", 64, 256)
    seventh = _fire(sixth, "12", 64, 256)
    return [first, second, third, fourth, fifth, sixth, seventh]


_TRUNKS: dict[Trunk, Callable[[Tensor], list[Tensor]]] = {
    "alex": _alexnet,
    "vgg": _vgg16,
    "squeeze": _squeezenet,
}
