"""Inception-v3 as published in December 2015, the network of FID, KID and the Inception Score.

Szegedy et al., arXiv:1512.00567; the frozen graph `classify_image_graph_def.pb` with 1008 outputs.
It differs from `keras.applications.InceptionV3` in three places: the pool branch of the last block
takes the maximum, batch normalization has a scale, and 1008 classes end it. Layers carry the names
of the PyTorch port (`mseitzer/pytorch-fid`, src/pytorch_fid/inception.py), so weights are mapped
by name; their order in `model.layers` is not the order of creation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

Tensor = Any
State = Mapping[str, npt.NDArray[Any]]  # PyTorch parameter name to values

INPUT_SIZE = 299
DIMENSIONS = (64, 192, 768, 2048)
"""Channels that can serve as features: after the first and second pooling, before the last
grid reduction, and the last layer (`pool3`)."""


def inception_2015() -> keras.Model:
    """The network with random weights; see `load_state`.

    Input: `(batch, 299, 299, 3)`, RGB scaled to [-1, 1]. Outputs, a dict: `64`, `192`, `768` and
    `2048`, each the mean over the map of that many channels, `(batch, channels)`; `logits` and
    `logits_unbiased` (without the bias of the last layer, as the Inception Score of OpenAI has
    it), `(batch, 1008)`.
    Source: Szegedy et al., arXiv:1512.00567, table 1 and figures 5 to 7.
    """
    images = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="images")
    outputs: dict[str, Tensor] = {}

    x = _conv(images, 32, 3, "Conv2d_1a_3x3", strides=2, padding="valid")
    x = _conv(x, 32, 3, "Conv2d_2a_3x3", padding="valid")
    x = _conv(x, 64, 3, "Conv2d_2b_3x3")
    x = layers.MaxPooling2D(3, 2)(x)
    outputs["64"] = _mean(x)
    x = _conv(x, 80, 1, "Conv2d_3b_1x1", padding="valid")
    x = _conv(x, 192, 3, "Conv2d_4a_3x3", padding="valid")
    x = layers.MaxPooling2D(3, 2)(x)
    outputs["192"] = _mean(x)

    x = _block_35(x, "Mixed_5b", pool_channels=32)
    x = _block_35(x, "Mixed_5c", pool_channels=64)
    x = _block_35(x, "Mixed_5d", pool_channels=64)
    x = _reduction_17(x, "Mixed_6a")
    x = _block_17(x, "Mixed_6b", channels=128)
    x = _block_17(x, "Mixed_6c", channels=160)
    x = _block_17(x, "Mixed_6d", channels=160)
    x = _block_17(x, "Mixed_6e", channels=192)
    outputs["768"] = _mean(x)
    x = _reduction_8(x, "Mixed_7a")
    x = _block_8(x, "Mixed_7b", layers.AveragePooling2D)
    x = _block_8(x, "Mixed_7c", layers.MaxPooling2D)  # average in the paper; the 2015 graph has max

    outputs["2048"] = _mean(x)
    unbiased = layers.Dense(1008, use_bias=False, name="fc.weight")(outputs["2048"])
    outputs["logits_unbiased"] = unbiased
    outputs["logits"] = AddBias(name="fc.bias")(unbiased)
    return keras.Model(images, outputs, name="inception_2015")


@keras.saving.register_keras_serializable("tfgan_med")
class AddBias(layers.Layer):
    """`x + bias`, apart from the product so that logits with and without bias can be had."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + self.bias


def _conv(
    x: Tensor,
    channels: int,
    size: int | tuple[int, int],
    name: str,
    strides: int = 1,
    padding: str = "same",
) -> Tensor:
    """Convolution without bias, batch normalization, ReLU."""
    x = layers.Conv2D(channels, size, strides, padding, use_bias=False, name=f"{name}.conv")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}.bn")(x)
    return layers.ReLU()(x)


def _mean(x: Tensor) -> Tensor:
    return layers.GlobalAveragePooling2D()(x)


def _block_35(x: Tensor, name: str, pool_channels: int) -> Tensor:
    """Figure 5: on the 35 x 35 grid. Average pooling does not count the padding."""
    single = _conv(x, 64, 1, f"{name}.branch1x1")
    five = _conv(x, 48, 1, f"{name}.branch5x5_1")
    five = _conv(five, 64, 5, f"{name}.branch5x5_2")
    double = _conv(x, 64, 1, f"{name}.branch3x3dbl_1")
    double = _conv(double, 96, 3, f"{name}.branch3x3dbl_2")
    double = _conv(double, 96, 3, f"{name}.branch3x3dbl_3")
    pool = layers.AveragePooling2D(3, 1, "same")(x)
    pool = _conv(pool, pool_channels, 1, f"{name}.branch_pool")
    return layers.Concatenate()([single, five, double, pool])


def _reduction_17(x: Tensor, name: str) -> Tensor:
    """Figure 10: from 35 x 35 to 17 x 17."""
    three = _conv(x, 384, 3, f"{name}.branch3x3", strides=2, padding="valid")
    double = _conv(x, 64, 1, f"{name}.branch3x3dbl_1")
    double = _conv(double, 96, 3, f"{name}.branch3x3dbl_2")
    double = _conv(double, 96, 3, f"{name}.branch3x3dbl_3", strides=2, padding="valid")
    return layers.Concatenate()([three, double, layers.MaxPooling2D(3, 2)(x)])


def _block_17(x: Tensor, name: str, channels: int) -> Tensor:
    """Figure 6 with n = 7: on the 17 x 17 grid. Kernels are (height, width)."""
    single = _conv(x, 192, 1, f"{name}.branch1x1")
    seven = _conv(x, channels, 1, f"{name}.branch7x7_1")
    seven = _conv(seven, channels, (1, 7), f"{name}.branch7x7_2")
    seven = _conv(seven, 192, (7, 1), f"{name}.branch7x7_3")
    double = _conv(x, channels, 1, f"{name}.branch7x7dbl_1")
    double = _conv(double, channels, (7, 1), f"{name}.branch7x7dbl_2")
    double = _conv(double, channels, (1, 7), f"{name}.branch7x7dbl_3")
    double = _conv(double, channels, (7, 1), f"{name}.branch7x7dbl_4")
    double = _conv(double, 192, (1, 7), f"{name}.branch7x7dbl_5")
    pool = layers.AveragePooling2D(3, 1, "same")(x)
    pool = _conv(pool, 192, 1, f"{name}.branch_pool")
    return layers.Concatenate()([single, seven, double, pool])


def _reduction_8(x: Tensor, name: str) -> Tensor:
    """From 17 x 17 to 8 x 8."""
    three = _conv(x, 192, 1, f"{name}.branch3x3_1")
    three = _conv(three, 320, 3, f"{name}.branch3x3_2", strides=2, padding="valid")
    seven = _conv(x, 192, 1, f"{name}.branch7x7x3_1")
    seven = _conv(seven, 192, (1, 7), f"{name}.branch7x7x3_2")
    seven = _conv(seven, 192, (7, 1), f"{name}.branch7x7x3_3")
    seven = _conv(seven, 192, 3, f"{name}.branch7x7x3_4", strides=2, padding="valid")
    return layers.Concatenate()([three, seven, layers.MaxPooling2D(3, 2)(x)])


def _block_8(x: Tensor, name: str, pooling: type[layers.Layer]) -> Tensor:
    """Figure 7: on the 8 x 8 grid, two branches end in a fork."""
    single = _conv(x, 320, 1, f"{name}.branch1x1")
    three = _conv(x, 384, 1, f"{name}.branch3x3_1")
    three_a = _conv(three, 384, (1, 3), f"{name}.branch3x3_2a")
    three_b = _conv(three, 384, (3, 1), f"{name}.branch3x3_2b")
    double = _conv(x, 448, 1, f"{name}.branch3x3dbl_1")
    double = _conv(double, 384, 3, f"{name}.branch3x3dbl_2")
    double_a = _conv(double, 384, (1, 3), f"{name}.branch3x3dbl_3a")
    double_b = _conv(double, 384, (3, 1), f"{name}.branch3x3dbl_3b")
    pool = pooling(3, 1, "same")(x)
    pool = _conv(pool, 192, 1, f"{name}.branch_pool")
    return layers.Concatenate()([single, three_a, three_b, double_a, double_b, pool])


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Every parameter under its PyTorch name with its PyTorch shape, 472 in all."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in inception_2015().layers:
        if isinstance(layer, layers.Conv2D):
            height, width, inputs, outputs = layer.kernel.shape
            shapes[f"{layer.name}.weight"] = (outputs, inputs, height, width)
        elif isinstance(layer, layers.BatchNormalization):
            for part in _NORMALIZATION:
                shapes[f"{layer.name}.{part}"] = tuple(layer.gamma.shape)
    shapes["fc.weight"], shapes["fc.bias"] = (1008, 2048), (1008,)
    return shapes


_NORMALIZATION = ("weight", "bias", "running_mean", "running_var")  # in the order of Keras


def load_state(model: keras.Model, state: State) -> None:
    """Set all weights of `inception_2015()` from a PyTorch state dict; names beyond it are left.

    Kernels turn from (out, in, height, width) to (height, width, in, out).

    Raises:
        ValueError: a name is missing, a shape differs or a number is not finite.
    """
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel = _taken(state, f"{layer.name}.weight")
            _set(layer, [kernel.transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            _set(layer, [_taken(state, f"{layer.name}.{part}") for part in _NORMALIZATION])
        elif isinstance(layer, layers.Dense):
            _set(layer, [_taken(state, "fc.weight").T])
        elif isinstance(layer, AddBias):
            _set(layer, [_taken(state, "fc.bias")])


def _taken(state: State, name: str) -> npt.NDArray[Any]:
    if name not in state:
        raise ValueError(
            f"{name}: not among the {len(state)} tensors. The 2015 Inception network has 472; "
            "this is another network's file."
        )
    if not np.isfinite(state[name]).all():
        raise ValueError(f"{name}: contains numbers that are not finite. The file is damaged.")
    return state[name]


def _set(layer: layers.Layer, values: list[npt.NDArray[Any]]) -> None:
    received = [value.shape for value in values]
    expected = [tuple(weight.shape) for weight in layer.weights]
    if received != expected:
        raise ValueError(f"{layer.name}: the file has shapes {received}, the network {expected}.")
    layer.set_weights(values)


def state_from_graph(constants: State) -> dict[str, npt.NDArray[Any]]:
    """A state dict under PyTorch names from the constants of `classify_image_graph_def.pb`.

    Args:
        constants: node name to value; kernels are (height, width, in, out) there.
    Raises:
        ValueError: a constant is missing.
    Source: the pairs of names in `toshas/torch-fidelity`,
        utils/util_convert_inception_weights.py.
    """
    state: dict[str, npt.NDArray[Any]] = {}
    for scope, name in graph_scopes().items():
        kernel = _constant(constants, f"{scope}/conv2d_params")
        state[f"{name}.conv.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        for theirs, ours in _GRAPH_NORMALIZATION.items():
            state[f"{name}.bn.{ours}"] = _constant(constants, f"{scope}/batchnorm/{theirs}")
    state["fc.weight"] = np.ascontiguousarray(_constant(constants, "softmax/weights").T)
    state["fc.bias"] = _constant(constants, "softmax/biases")
    return state


_GRAPH_NORMALIZATION = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_GRID_35 = {
    "conv": "branch1x1",
    "tower/conv": "branch5x5_1",
    "tower/conv_1": "branch5x5_2",
    "tower_1/conv": "branch3x3dbl_1",
    "tower_1/conv_1": "branch3x3dbl_2",
    "tower_1/conv_2": "branch3x3dbl_3",
    "tower_2/conv": "branch_pool",
}
_TO_GRID_17 = {
    "conv": "branch3x3",
    "tower/conv": "branch3x3dbl_1",
    "tower/conv_1": "branch3x3dbl_2",
    "tower/conv_2": "branch3x3dbl_3",
}
_GRID_17 = {
    "conv": "branch1x1",
    "tower/conv": "branch7x7_1",
    "tower/conv_1": "branch7x7_2",
    "tower/conv_2": "branch7x7_3",
    "tower_1/conv": "branch7x7dbl_1",
    "tower_1/conv_1": "branch7x7dbl_2",
    "tower_1/conv_2": "branch7x7dbl_3",
    "tower_1/conv_3": "branch7x7dbl_4",
    "tower_1/conv_4": "branch7x7dbl_5",
    "tower_2/conv": "branch_pool",
}
_TO_GRID_8 = {
    "tower/conv": "branch3x3_1",
    "tower/conv_1": "branch3x3_2",
    "tower_1/conv": "branch7x7x3_1",
    "tower_1/conv_1": "branch7x7x3_2",
    "tower_1/conv_2": "branch7x7x3_3",
    "tower_1/conv_3": "branch7x7x3_4",
}
_GRID_8 = {
    "conv": "branch1x1",
    "tower/conv": "branch3x3_1",
    "tower/mixed/conv": "branch3x3_2a",
    "tower/mixed/conv_1": "branch3x3_2b",
    "tower_1/conv": "branch3x3dbl_1",
    "tower_1/conv_1": "branch3x3dbl_2",
    "tower_1/mixed/conv": "branch3x3dbl_3a",
    "tower_1/mixed/conv_1": "branch3x3dbl_3b",
    "tower_2/conv": "branch_pool",
}
_BLOCKS = (
    ("Mixed_5b", _GRID_35),
    ("Mixed_5c", _GRID_35),
    ("Mixed_5d", _GRID_35),
    ("Mixed_6a", _TO_GRID_17),
    ("Mixed_6b", _GRID_17),
    ("Mixed_6c", _GRID_17),
    ("Mixed_6d", _GRID_17),
    ("Mixed_6e", _GRID_17),
    ("Mixed_7a", _TO_GRID_8),
    ("Mixed_7b", _GRID_8),
    ("Mixed_7c", _GRID_8),
)


def graph_scopes() -> dict[str, str]:
    """Scope of each of the 94 convolutions in the frozen graph to its PyTorch name."""
    scopes = {_numbered("conv", i): name for i, name in enumerate(_STEM)}
    for i, (block, branches) in enumerate(_BLOCKS):
        for scope, branch in branches.items():
            scopes[f"{_numbered('mixed', i)}/{scope}"] = f"{block}.{branch}"
    return scopes


def _numbered(scope: str, index: int) -> str:
    """TensorFlow 1 numbers repeated scopes from the second on."""
    return f"{scope}_{index}" if index else scope


def _constant(constants: State, name: str) -> npt.NDArray[Any]:
    if name not in constants:
        raise ValueError(
            f"{name}: no such constant in the graph. The file must be "
            "classify_image_graph_def.pb of inception-2015-12-05.tgz."
        )
    return constants[name]
