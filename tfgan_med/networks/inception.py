"""Inception-v3 as published in December 2015, the network of FID, KID and the Inception Score.

Szegedy et al., arXiv:1512.00567; the frozen graph `classify_image_graph_def.pb` with 1008 outputs.
It differs from `keras.applications.InceptionV3` in three places: the pool branch of the last block
takes the maximum, batch normalization has a scale, and 1008 classes end it. Layers carry the names
of the PyTorch port (`mseitzer/pytorch-fid`, src/pytorch_fid/inception.py), so weights are mapped
by name; their order in `model.layers` is not the order of creation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

Tensor = Any
State = Mapping[str, npt.NDArray[Any]]  # PyTorch parameter name to values
Precision = Literal["float32", "bfloat16"]

INPUT_SIZE = 299
DIMENSIONS = (64, 192, 768, 2048)
"""Channels that can serve as features: after the first and second pooling, before the last
grid reduction, and the last layer (`pool3`)."""

_EPSILON = 1e-3  # of batch normalization


def inception_2015(folded: bool = False, precision: Precision = "float32") -> keras.Model:
    """The network with random weights; see `load_state`.

    Input: `(batch, 299, 299, 3)`, RGB scaled to [-1, 1]. Outputs, a dict: `64`, `192`, `768` and
    `2048`, each the mean over the map of that many channels, `(batch, channels)`; `logits` and
    `logits_unbiased` (without the bias of the last layer, as the Inception Score of OpenAI has
    it), `(batch, 1008)`. All are float32.

    Args:
        folded: whether convolutions take up the batch normalization behind them; `load_state`
            then computes their kernels and biases. For features: it is quicker, equal to
            rounding, and cannot be trained.
        precision: of the convolutions.
    Source: Szegedy et al., arXiv:1512.00567, table 1 and figures 5 to 7.
    """
    make = _Maker(folded, precision)
    images = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), dtype="float32", name="images")
    outputs: dict[str, Tensor] = {}

    x = make.conv(images, 32, 3, "Conv2d_1a_3x3", strides=2, padding="valid")
    x = make.conv(x, 32, 3, "Conv2d_2a_3x3", padding="valid")
    x = make.conv(x, 64, 3, "Conv2d_2b_3x3")
    x = make.reducing_pool(x)
    outputs["64"] = _mean(x)
    x = make.conv(x, 80, 1, "Conv2d_3b_1x1", padding="valid")
    x = make.conv(x, 192, 3, "Conv2d_4a_3x3", padding="valid")
    x = make.reducing_pool(x)
    outputs["192"] = _mean(x)

    x = _block_35(make, x, "Mixed_5b", pool_channels=32)
    x = _block_35(make, x, "Mixed_5c", pool_channels=64)
    x = _block_35(make, x, "Mixed_5d", pool_channels=64)
    x = _reduction_17(make, x, "Mixed_6a")
    x = _block_17(make, x, "Mixed_6b", channels=128)
    x = _block_17(make, x, "Mixed_6c", channels=160)
    x = _block_17(make, x, "Mixed_6d", channels=160)
    x = _block_17(make, x, "Mixed_6e", channels=192)
    outputs["768"] = _mean(x)
    x = _reduction_8(make, x, "Mixed_7a")
    x = _block_8(make, x, "Mixed_7b", layers.AveragePooling2D)
    # average in the paper; the 2015 graph has max
    x = _block_8(make, x, "Mixed_7c", layers.MaxPooling2D)

    outputs["2048"] = _mean(x)
    unbiased = layers.Dense(1008, use_bias=False, dtype="float32", name="fc.weight")
    outputs["logits_unbiased"] = unbiased(outputs["2048"])
    bias = AddBias(dtype="float32", name="fc.bias")
    outputs["logits"] = bias(outputs["logits_unbiased"])
    return keras.Model(images, outputs, name="inception_2015")


@keras.saving.register_keras_serializable("tfgan_med")
class AddBias(layers.Layer):
    """`x + bias`, apart from the product so that logits with and without bias can be had."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + self.bias


class _Maker:
    """Makes the layers of one form and precision."""

    def __init__(self, folded: bool, precision: Precision) -> None:
        self._folded = folded
        name = "mixed_bfloat16" if precision == "bfloat16" else "float32"
        self._policy = keras.DTypePolicy(name)

    def conv(
        self,
        x: Tensor,
        channels: int,
        size: int | tuple[int, int],
        name: str,
        strides: int = 1,
        padding: str = "same",
    ) -> Tensor:
        """Convolution without bias, batch normalization, ReLU."""
        kernel = {"filters": channels, "kernel_size": size, "strides": strides, "padding": padding}
        common = {"name": f"{name}.conv", "dtype": self._policy}
        if self._folded:
            return layers.Conv2D(**kernel, activation="relu", **common)(x)
        x = layers.Conv2D(**kernel, use_bias=False, **common)(x)
        x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}.bn", dtype=self._policy)(x)
        return layers.ReLU(dtype=self._policy)(x)

    def reducing_pool(self, x: Tensor) -> Tensor:
        """Maximum of 3 x 3 on half the grid."""
        return layers.MaxPooling2D(3, 2, dtype=self._policy)(x)

    def pool(self, x: Tensor, kind: type[layers.Layer] = layers.AveragePooling2D) -> Tensor:
        """3 x 3 on the same grid; the average does not count the padding."""
        return kind(3, 1, "same", dtype=self._policy)(x)

    def join(self, branches: list[Tensor]) -> Tensor:
        """Channels of all branches in order."""
        return layers.Concatenate(dtype=self._policy)(branches)


def _mean(x: Tensor) -> Tensor:
    return layers.GlobalAveragePooling2D(dtype="float32")(x)


def _block_35(make: _Maker, x: Tensor, name: str, pool_channels: int) -> Tensor:
    """Figure 5: on the 35 x 35 grid."""
    single = make.conv(x, 64, 1, f"{name}.branch1x1")
    five = make.conv(x, 48, 1, f"{name}.branch5x5_1")
    five = make.conv(five, 64, 5, f"{name}.branch5x5_2")
    double = make.conv(x, 64, 1, f"{name}.branch3x3dbl_1")
    double = make.conv(double, 96, 3, f"{name}.branch3x3dbl_2")
    double = make.conv(double, 96, 3, f"{name}.branch3x3dbl_3")
    pool = make.pool(x)
    pool = make.conv(pool, pool_channels, 1, f"{name}.branch_pool")
    return make.join([single, five, double, pool])


def _reduction_17(make: _Maker, x: Tensor, name: str) -> Tensor:
    """Figure 10: from 35 x 35 to 17 x 17."""
    three = make.conv(x, 384, 3, f"{name}.branch3x3", strides=2, padding="valid")
    double = make.conv(x, 64, 1, f"{name}.branch3x3dbl_1")
    double = make.conv(double, 96, 3, f"{name}.branch3x3dbl_2")
    double = make.conv(double, 96, 3, f"{name}.branch3x3dbl_3", strides=2, padding="valid")
    return make.join([three, double, make.reducing_pool(x)])


def _block_17(make: _Maker, x: Tensor, name: str, channels: int) -> Tensor:
    """Figure 6 with n = 7: on the 17 x 17 grid. Kernels are (height, width)."""
    single = make.conv(x, 192, 1, f"{name}.branch1x1")
    seven = make.conv(x, channels, 1, f"{name}.branch7x7_1")
    seven = make.conv(seven, channels, (1, 7), f"{name}.branch7x7_2")
    seven = make.conv(seven, 192, (7, 1), f"{name}.branch7x7_3")
    double = make.conv(x, channels, 1, f"{name}.branch7x7dbl_1")
    double = make.conv(double, channels, (7, 1), f"{name}.branch7x7dbl_2")
    double = make.conv(double, channels, (1, 7), f"{name}.branch7x7dbl_3")
    double = make.conv(double, channels, (7, 1), f"{name}.branch7x7dbl_4")
    double = make.conv(double, 192, (1, 7), f"{name}.branch7x7dbl_5")
    pool = make.pool(x)
    pool = make.conv(pool, 192, 1, f"{name}.branch_pool")
    return make.join([single, seven, double, pool])


def _reduction_8(make: _Maker, x: Tensor, name: str) -> Tensor:
    """From 17 x 17 to 8 x 8."""
    three = make.conv(x, 192, 1, f"{name}.branch3x3_1")
    three = make.conv(three, 320, 3, f"{name}.branch3x3_2", strides=2, padding="valid")
    seven = make.conv(x, 192, 1, f"{name}.branch7x7x3_1")
    seven = make.conv(seven, 192, (1, 7), f"{name}.branch7x7x3_2")
    seven = make.conv(seven, 192, (7, 1), f"{name}.branch7x7x3_3")
    seven = make.conv(seven, 192, 3, f"{name}.branch7x7x3_4", strides=2, padding="valid")
    return make.join([three, seven, make.reducing_pool(x)])


def _block_8(make: _Maker, x: Tensor, name: str, pooling: type[layers.Layer]) -> Tensor:
    """Figure 7: on the 8 x 8 grid, two branches end in a fork."""
    single = make.conv(x, 320, 1, f"{name}.branch1x1")
    three = make.conv(x, 384, 1, f"{name}.branch3x3_1")
    three_a = make.conv(three, 384, (1, 3), f"{name}.branch3x3_2a")
    three_b = make.conv(three, 384, (3, 1), f"{name}.branch3x3_2b")
    double = make.conv(x, 448, 1, f"{name}.branch3x3dbl_1")
    double = make.conv(double, 384, 3, f"{name}.branch3x3dbl_2")
    double_a = make.conv(double, 384, (1, 3), f"{name}.branch3x3dbl_3a")
    double_b = make.conv(double, 384, (3, 1), f"{name}.branch3x3dbl_3b")
    pool = make.pool(x, pooling)
    pool = make.conv(pool, 192, 1, f"{name}.branch_pool")
    return make.join([single, three_a, three_b, double_a, double_b, pool])


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
            kernel = _taken(state, f"{layer.name}.weight").transpose(2, 3, 1, 0)
            _set(layer, _folded(kernel, state, layer.name) if layer.use_bias else [kernel])
        elif isinstance(layer, layers.BatchNormalization):
            _set(layer, [_taken(state, f"{layer.name}.{part}") for part in _NORMALIZATION])
        elif isinstance(layer, layers.Dense):
            _set(layer, [_taken(state, "fc.weight").T])
        elif isinstance(layer, AddBias):
            _set(layer, [_taken(state, "fc.bias")])


def _folded(kernel: npt.NDArray[Any], state: State, name: str) -> list[npt.NDArray[np.float32]]:
    """Kernel and bias that do what the kernel and the batch normalization behind it do.

    gamma (w x - mean) / sqrt(variance + epsilon) + beta, computed in float64.
    """
    normalization = name.removesuffix("conv") + "bn"
    gamma, beta, mean, variance = (
        _taken(state, f"{normalization}.{part}").astype(np.float64) for part in _NORMALIZATION
    )
    if kernel.shape[-1:] != gamma.shape:
        raise ValueError(
            f"{name}: the file has shapes {[kernel.shape, gamma.shape]}, which do not belong "
            "together."
        )
    scale = gamma / np.sqrt(variance + _EPSILON)
    return [(kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32)]


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
