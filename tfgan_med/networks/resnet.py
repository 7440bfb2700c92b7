"""Residual networks: the trunk of ResNet-18 and encoders with squeeze-and-excitation.

He et al., arXiv:1512.03385, in torchvision's form (`pytorch/vision`, torchvision/models/resnet.py);
Hu et al., arXiv:1709.01507, and Xie et al., arXiv:1611.05431, in the form of
`qubvel-org/segmentation_models.pytorch` (encoders/_senet.py). Layers are called as in torchvision's
state dicts; those of ResNet-18 are stock Keras layers. A convolution with a stride is padded on all
sides alike: padding `same` would shift its result by one pixel against imported weights.

Deviation: the first pool of the bottleneck encoders pads instead of rounding up, which is the same
for even sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from tfgan_med.layers.grouped_convolution import GroupedConv2D
from tfgan_med.networks.initialization import seed_of

Trunk = Literal["resnet18", "se_resnet18", "se_resnet50", "se_resnext50"]
Stem = Literal["imagenet", "small"]
State = dict[str, npt.NDArray[Any]]
Tensor = Any

TRUNKS: tuple[Trunk, ...] = get_args(Trunk)
BLOCKS: dict[Trunk, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "se_resnet18": (2, 2, 2, 2),
    "se_resnet50": (3, 4, 6, 3),
    "se_resnext50": (3, 4, 6, 3),
}
"""Blocks of each stage."""

REDUCTION = 16  # channels for one unit between squeeze and excitation
EXPANSION = 4  # of a bottleneck's last convolution
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_input(pictures: Tensor) -> Tensor:
    """Symbolic pictures as ImageNet weights expect them; gray ones are repeated.

    Args:
        pictures: `(batch, height, width, 1 or 3)` in [-1, 1].
    Returns:
        `(batch, height, width, 3)` float32, mean 0 and deviation 1 over ImageNet.
    """
    if pictures.shape[-1] == 1:
        pictures = layers.Concatenate(dtype="float32", name="repeat_gray")([pictures] * 3)
    return layers.Rescaling(
        scale=[0.5 / std for std in IMAGENET_STD],
        offset=[(0.5 - m) / std for m, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
        dtype="float32",
        name="imagenet_scale",
    )(pictures)


def residual_maps(
    trunk: Trunk,
    x: Tensor,
    width: int = 64,
    stem: Stem = "imagenet",
    norm: type[layers.BatchNormalization] = layers.BatchNormalization,
    seed: int = 0,
) -> list[Tensor]:
    """The maps after each of the four stages, c2 to c5.

    Args:
        trunk: which network.
        x: symbolic pictures `(batch, height, width, 3)`, scaled.
        width: channels of the first stage, 64 in the papers; each further stage has twice as many.
        stem: "imagenet" halves twice before the first stage, the maps have strides 4 to 32;
            "small", for pictures of few pixels, does not, and they have strides 1 to 8.
        norm: the batch normalization; a quicker one may be given where its class can be loaded.
        seed: of the starting weights, N(0, 2 / fan_out) for convolutions.
    Returns:
        Four maps of `width`, 2, 4 and 8 `width` channels, for bottlenecks of four times as many.
    """
    make = _Maker(norm, seed)
    bottleneck = trunk in ("se_resnet50", "se_resnext50")
    x = _stem(make, x, width, stem, round_up=bottleneck)
    maps = []
    for stage, count in enumerate(BLOCKS[trunk]):
        for index in range(count):
            name = f"layer{stage + 1}.{index}"
            stride = 2 if stage > 0 and index == 0 else 1
            if bottleneck:  # "32x4d": 32 groups for 64 channels
                groups = width // 2 if trunk == "se_resnext50" else 1
                x = _bottleneck(make, x, width << stage, stride, groups, name)
            else:
                x = _basic(make, x, width << stage, stride, trunk != "resnet18", name)
        maps.append(x)
    return maps


# Parts --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """Convolutions and norms of one network."""

    norm: type[layers.BatchNormalization]
    seed: int

    def convolution(
        self, x: Tensor, width: int, size: int, stride: int, name: str, groups: int = 1
    ) -> Tensor:
        """Without bias, zeros on all sides alike."""
        if stride > 1 and size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        kind = layers.Conv2D if groups == 1 else GroupedConv2D
        return kind(
            width,
            size,
            stride,
            padding="same" if stride == 1 else "valid",
            groups=groups,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal", seed=seed_of(self.seed, name)
            ),
            name=name,
        )(x)

    def normalized(
        self, x: Tensor, width: int, size: int, stride: int, name: str, part: str, groups: int = 1
    ) -> Tensor:
        """Convolution `<name>.conv<part>` and its norm `<name>.bn<part>`."""
        x = self.convolution(x, width, size, stride, f"{name}conv{part}", groups)
        return self.normalization(x, f"{name}bn{part}")

    def normalization(self, x: Tensor, name: str) -> Tensor:
        """Batch norm with PyTorch's constants."""
        return self.norm(momentum=0.9, epsilon=1e-5, name=name)(x)


def _stem(make: _Maker, x: Tensor, width: int, stem: Stem, round_up: bool) -> Tensor:
    small = stem == "small"
    x = make.normalized(x, width, 3 if small else 7, 1 if small else 2, "", "1")
    x = _relu(x, "relu")
    if small:
        return x
    if round_up:
        return layers.MaxPooling2D(3, 2, padding="same", name="maxpool")(x)
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)  # neutral, for nothing is negative here
    return layers.MaxPooling2D(3, 2, name="maxpool")(x)


def _basic(make: _Maker, x: Tensor, width: int, stride: int, gated: bool, name: str) -> Tensor:
    """Two convolutions of 3 x 3 beside a shortcut."""
    y = make.normalized(x, width, 3, stride, f"{name}.", "1")
    y = _relu(y, f"{name}.relu1")
    y = make.normalized(y, width, 3, 1, f"{name}.", "2")
    if gated:
        y = squeeze_excitation(y, make.seed, f"{name}.se_module")
    return _joined(make, x, y, stride, name)


def _bottleneck(make: _Maker, x: Tensor, width: int, stride: int, groups: int, name: str) -> Tensor:
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 beside a shortcut.

    With groups the middle is twice as wide and has the stride; else the first has it (Caffe's way).
    """
    inner = width * 2 if groups > 1 else width
    first, second = (1, stride) if groups > 1 else (stride, 1)
    y = make.normalized(x, inner, 1, first, f"{name}.", "1")
    y = _relu(y, f"{name}.relu1")
    y = make.normalized(y, inner, 3, second, f"{name}.", "2", groups)
    y = _relu(y, f"{name}.relu2")
    y = make.normalized(y, width * EXPANSION, 1, 1, f"{name}.", "3")
    y = squeeze_excitation(y, make.seed, f"{name}.se_module")
    return _joined(make, x, y, stride, name)


def _joined(make: _Maker, x: Tensor, y: Tensor, stride: int, name: str) -> Tensor:
    """ReLU of branch and shortcut; the shortcut is convolved where the shapes differ."""
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = make.convolution(x, y.shape[-1], 1, stride, f"{name}.downsample.0")
        x = make.normalization(x, f"{name}.downsample.1")
    return _relu(layers.Add(name=f"{name}.add")([y, x]), f"{name}.relu")


def _relu(x: Tensor, name: str) -> Tensor:
    return layers.ReLU(name=name)(x)


def squeeze_excitation(x: Tensor, seed: int, name: str) -> Tensor:
    """Channels of a map, each times a number in (0, 1) that is computed from all of them.

        y = x * sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2)

    With weights of 0 the result is half of `x`.

    Args:
        x: symbolic map `(batch, height, width, channels)`.
    Returns:
        A map of the same shape.
    Source: Hu et al., arXiv:1709.01507, eq. 2 to 4, with a reduction of 16.
    """
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(name=f"{name}.pool")(x)
    units = (("fc1", max(channels // REDUCTION, 1), "relu"), ("fc2", channels, "sigmoid"))
    for part, width, activation in units:
        path = f"{name}.{part}"
        gate = layers.Dense(
            width, activation, kernel_initializer=torch_uniform(seed, path), name=path
        )(gate)
    gate = layers.Reshape((1, 1, channels), name=f"{name}.gate")(gate)
    return layers.Multiply(name=f"{name}.gated")([x, gate])


def torch_uniform(seed: int, name: str) -> keras.initializers.Initializer:
    """U(-1 / √fan_in, 1 / √fan_in), the start of PyTorch's linear layers."""
    return keras.initializers.VarianceScaling(
        1.0 / 3.0, "fan_in", "uniform", seed=seed_of(seed, name)
    )


# Weights of torchvision ---------------------------------------------------------------------------


def load_torchvision(network: keras.Model, state: State, optional: tuple[str, ...] = ()) -> None:
    """Fill a network from a state dict by the names of its layers.

    Args:
        network: with layers of this file; the SE gates' kernels may be 1 x 1 convolutions.
        state: name to array, kernels `(out, in, height, width)` or `(out, in)`.
        optional: layers that keep their weights where the shapes differ or nothing is given,
            e.g. the head for other classes.
    Raises:
        ValueError: a tensor is absent, has another shape or is not finite; the network is
            unchanged.
    """
    values = []
    for layer in network.layers:
        wanted = _torch_names(layer)
        found = [_matching(state, name, variable) for name, variable in wanted]
        if layer.name in optional and any(isinstance(array, str) for array in found):
            continue
        for (_, variable), array in zip(wanted, found, strict=True):
            if isinstance(array, str):
                raise ValueError(array)
            values.append((variable, array))
    for variable, array in values:
        variable.assign(array)


def _torch_names(layer: Any) -> list[tuple[str, Any]]:
    if isinstance(layer, layers.BatchNormalization):
        return [
            (f"{layer.name}.weight", layer.gamma),
            (f"{layer.name}.bias", layer.beta),
            (f"{layer.name}.running_mean", layer.moving_mean),
            (f"{layer.name}.running_var", layer.moving_variance),
        ]
    parts = {"kernel": "weight", "bias": "bias"}
    return [(f"{layer.name}.{parts[v.name]}", v) for v in layer.weights]


def _matching(state: State, name: str, variable: Any) -> npt.NDArray[np.float32] | str:
    """The array in Keras' order, or what is wrong with it."""
    if name not in state:
        return f"{name} is absent."
    array = np.asarray(state[name], np.float32)
    expected = tuple(variable.shape)
    if array.ndim == 4 and len(expected) == 2 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if array.ndim in (2, 4):
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if array.shape != expected:
        return f"{name} has the shape {state[name].shape}, which does not fit {expected}."
    if not np.isfinite(array).all():
        return f"{name} has numbers that are not finite."
    return array
