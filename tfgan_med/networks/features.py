"""Networks that turn pictures into features: Inception-v3 by protocol, or any other network.

The protocol says how a picture becomes 299 x 299 pixels and numbers near [-1, 1]. Protocols
share weights and still give different distances, so a value is only worth something together
with the protocol's name. Sources: `bioinf-jku/TTUR` (fid.py), `mseitzer/pytorch-fid`,
`GaParmar/clean-fid` (Parmar et al., arXiv:2104.11222).
"""

from __future__ import annotations

import itertools
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.networks import frozen_graph, inception, pretrained

Protocol = Literal["ttur", "clean", "pytorch-fid", "keras"]
Range = Literal["-1..1", "0..1", "0..255"]
Array = npt.NDArray[Any]
Tensor = Any

PROTOCOLS: dict[str, str] = {
    "ttur": "the original FID: TensorFlow 1 bilinear resizing without antialiasing",
    "clean": "clean-fid: antialiased bicubic resizing; for comparisons across resolutions",
    "pytorch-fid": "pytorch-fid: bilinear resizing with half-pixel centres, no antialiasing",
    "keras": "ImageNet weights of keras.applications; not FID, never compared with it",
}


@dataclass(frozen=True)
class FeatureNetwork:
    """Pictures to feature vectors.

    Attributes:
        name: of the network, as results name it.
        sha256: of the weight file.
        protocol: how pictures are resized and scaled.
        metric: name of a Fréchet distance on these features; `fid` and `fid_keras_imagenet` with
            the published weights only, otherwise named after the network.
        dimension: length of a feature vector.
        compute: `(batch, height, width, 3)` float32 in 0..255 to `(batch, features)` float32.
    """

    name: str
    sha256: str
    protocol: str
    metric: str
    dimension: int
    compute: Callable[[Tensor], Tensor] = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """What the features depend on besides the picture; names them in the cache."""
        return f"{self.name}|{self.protocol}|{self.dimension}|{self.sha256}|{tf.__version__}"

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        """One float32 vector for each picture, in order.

        Args:
            pictures: `(height, width, 3)` each, in 0..255, all of one size.
            batch_size: pictures in memory and in one pass.
        """
        waiting = iter(pictures)
        size = 0
        while batch := list(itertools.islice(waiting, batch_size)):
            size = size or len(batch)  # a short last batch is filled up: one computation for all
            filled = batch + [batch[-1]] * (size - len(batch))
            values = self.compute(tf.constant(np.stack(filled), tf.float32))
            yield from np.asarray(values, np.float32)[: len(batch)]


# Resizing -----------------------------------------------------------------------------------------


def resize(images: Tensor, protocol: str, size: tuple[int, int] = (299, 299)) -> Tensor:
    """Resize as a protocol does.

    Args:
        images: `(batch, height, width, 3)` float32 in 0..255.
        protocol: a key of `PROTOCOLS`; `keras` resizes as `clean`.
        size: height and width.
    """
    if protocol == "ttur":  # TensorFlow 1 geometry: no half-pixel centres
        return tf.raw_ops.ResizeBilinear(
            images=images, size=size, align_corners=False, half_pixel_centers=False
        )
    if protocol == "pytorch-fid":
        return tf.image.resize(images, size, "bilinear", antialias=False)
    bicubic = tf.image.resize(images, size, "bicubic", antialias=True)
    return tf.clip_by_value(bicubic, 0.0, 255.0)  # as Pillow; bicubic overshoots


def scale(images: Tensor, protocol: str) -> Tensor:
    """0..255 to the range that the network was trained with under a protocol."""
    if protocol in ("ttur", "clean"):
        return (images - 128.0) / 128.0
    return images / 127.5 - 1.0


# Networks -----------------------------------------------------------------------------------------


def inception_2015(weights: Path, protocol: Protocol, dimension: int = 2048) -> FeatureNetwork:
    """The network of the FID.

    Args:
        weights: a file that `networks.pretrained.read_inception` reads.
        protocol: `ttur`, `clean` or `pytorch-fid`.
        dimension: 64, 192, 768 or 2048; all but 2048 belong to `pytorch-fid`.
    """
    if dimension not in inception.DIMENSIONS:
        raise UserError(
            f"dims is {dimension}; Inception has features of 64, 192, 768 and 2048 numbers."
        )
    if dimension != 2048 and protocol != "pytorch-fid":
        raise UserError(
            f"dims {dimension} belongs to the protocol pytorch-fid; {protocol} has 2048. "
            "Add --protocol pytorch-fid."
        )
    state, sha256 = pretrained.read_inception(weights)
    whole = inception.inception_2015()
    try:
        inception.load_state(whole, state)
    except ValueError as error:
        raise UserError(f"{weights.name}: {error}") from None
    network = keras.Model(whole.inputs, whole.output[str(dimension)])
    suffix = "" if dimension == 2048 else f"_d{dimension}"
    published = pretrained.is_published("inception-2015", sha256)
    return FeatureNetwork(
        name="inception-2015",
        sha256=sha256,
        protocol=protocol,
        metric=("fid" if published else f"frechet_distance[inception-2015:{sha256[:8]}]") + suffix,
        dimension=dimension,
        compute=_compiled(
            lambda images: network(scale(resize(images, protocol), protocol), training=False)
        ),
    )


def inception_keras(weights: Path) -> FeatureNetwork:
    """`keras.applications.InceptionV3` with ImageNet weights: another network than FID's.

    Args:
        weights: `inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`.
    """
    try:
        network = keras.applications.InceptionV3(
            include_top=False, weights=str(weights), pooling="avg", input_shape=(299, 299, 3)
        )
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"{weights.name}: not the InceptionV3 weights of keras.applications "
            f"({str(error).splitlines()[0]})."
        ) from None
    sha256 = files.sha256_of(weights)
    published = pretrained.is_published("inception-keras", pretrained.digest_of(weights, "md5"))
    return FeatureNetwork(
        name="inception-keras",
        sha256=sha256,
        protocol="keras",
        metric="fid_keras_imagenet" if published else f"frechet_distance[keras:{sha256[:8]}]",
        dimension=2048,
        compute=_compiled(
            lambda images: network(scale(resize(images, "keras"), "keras"), training=False)
        ),
    )


def foreign(
    path: Path,
    input_name: str | None = None,
    output_name: str | None = None,
    values: Range = "-1..1",
) -> FeatureNetwork:
    """Any other network: a `.keras` model or a frozen graph (`.pb`).

    Pictures are resized to the network's input with antialiasing, as `clean` does. Outputs with
    height and width are averaged over them.

    Args:
        path: the file.
        input_name, output_name: tensors of a frozen graph, or `output_name` a layer of a model.
        values: what the network expects for black and white.
    Raises:
        UserError: the file is none of these, or may do more than compute.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a feature network: .keras or .pb.")
    if values not in get_args(Range):
        raise UserError(f"Range {values!r} is unknown; one of {', '.join(get_args(Range))}.")
    if path.suffix == ".pb":
        compute, size = frozen_graph.load(path, input_name, output_name)
    elif path.suffix == ".keras":
        compute, size = _keras_network(path, output_name)
    else:
        raise UserError(
            f"{path.name}: feature networks are .keras files or frozen graphs (.pb). Whole-model "
            ".h5 files, SavedModels and pickles can run code and are not loaded; save the network "
            "with model.save('name.keras')."
        )

    def features(images: Tensor) -> Tensor:
        if None not in size:
            images = resize(images, "clean", size)  # type: ignore[arg-type]
        outputs = compute(_in_range(images, values))
        return tf.reduce_mean(outputs, axis=[1, 2]) if outputs.shape.rank == 4 else outputs

    compiled = _compiled(features)
    dimension = _dimension(path, compiled, size)
    sha256 = files.sha256_of(path)
    place = f":{output_name}" if output_name else ""
    return FeatureNetwork(
        name=f"{path.stem}{place}",
        sha256=sha256,
        protocol=f"antialiased bicubic, {values}",
        metric=f"frechet_distance[{path.stem}:{sha256[:8]}]",
        dimension=dimension,
        compute=compiled,
    )


def _compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    compiled: Callable[[Tensor], Tensor] = tf.function(function, reduce_retracing=True)
    return compiled


def _in_range(images: Tensor, values: Range) -> Tensor:
    if values == "-1..1":
        return images / 127.5 - 1.0
    return images / 255.0 if values == "0..1" else images


def _dimension(
    path: Path, compute: Callable[[Tensor], Tensor], size: tuple[int | None, int | None]
) -> int:
    """Length of a feature vector, found by one trial; says what is wrong with other outputs."""
    trial = tf.zeros((2, size[0] or 64, size[1] or 64, 3))
    try:
        shape = compute(trial).shape
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(
            f"{path.name}: does not take RGB pictures (batch, height, width, 3): "
            f"{str(error).splitlines()[0]}"
        ) from None
    if len(shape) != 2 or shape[0] != 2:
        raise UserError(
            f"{path.name}: gives {tuple(shape)} for two pictures; one vector for each is needed. "
            "Name an earlier output with --features-output."
        )
    return int(shape[1])


# Foreign Keras models -----------------------------------------------------------------------------

_LARGEST_MODEL = 4 * 2**30  # bytes unpacked
_MODULES = ("keras", "builtins")
_REFUSED_CLASSES = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def _keras_network(
    path: Path, output_name: str | None
) -> tuple[Callable[[Tensor], Tensor], tuple[int | None, int | None]]:
    _inspect_archive(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # anything may come out of a foreign file; none of it is a bug here
        raise UserError(
            f"{path.name}: Keras does not load it ({str(error).splitlines()[0][:200]})."
        ) from None
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise UserError(f"{path.name}: takes {shape}; (batch, height, width, 3) is needed.")
    if output_name is not None:
        model = keras.Model(model.inputs, _layer(model, output_name, path).output)
    return lambda images: model(images, training=False), (shape[1], shape[2])


def _layer(model: keras.Model, name: str, path: Path) -> keras.layers.Layer:
    names = [layer.name for layer in model.layers]
    if name not in names:
        raise UserError(
            f"{name}: no layer of {path.name}. Its last layers: {', '.join(names[-3:])}."
        )
    return model.get_layer(name)


def _inspect_archive(path: Path) -> None:
    """Refuse what is more than Keras' own layers, and files that unpack to far more than they are.

    Keras checks much of this too; what it admits has changed from version to version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > _LARGEST_MODEL or unpacked > 200 * path.stat().st_size + 2**20:
                raise UserError(
                    f"{path.name}: unpacks to {unpacked / 2**20:.0f} MiB, which no network of "
                    f"{path.stat().st_size / 2**20:.1f} MiB does. The file was refused."
                )
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        raise UserError(f"{path.name}: damaged, or no .keras file.") from None
    _inspect_config(config, path)
    _inspect_size(config, unpacked, path)


def _inspect_config(value: Any, path: Path) -> None:
    """Visit every object that the configuration would make."""
    if isinstance(value, dict):
        named, module = value.get("class_name"), value.get("module")
        if isinstance(module, str) and module.partition(".")[0] not in _MODULES:
            raise UserError(
                f"{path.name}: asks for {named} of {module}. Only Keras' own layers are loaded. "
                "The file was refused; rebuild the network from standard layers."
            )
        if named in _REFUSED_CLASSES or value.get("registered_name") in _REFUSED_CLASSES:
            raise UserError(
                f"{path.name}: has a {named} layer, which can run any code. The file was refused; "
                "rebuild the network from standard layers."
            )
        for part in value.values():
            _inspect_config(part, path)
    elif isinstance(value, list):
        for part in value:
            _inspect_config(part, path)


def _inspect_size(config: Any, unpacked: int, path: Path) -> None:
    """Refuse layers whose weights cannot be in the file: they would fill the memory first."""
    for width in _widths(config):
        if width > max(unpacked, 2**16):  # bytes stored; each output has at least one weight
            raise UserError(
                f"{path.name}: a layer with {width} outputs, but {unpacked} bytes of weights. "
                "The file was refused."
            )
    with ThreadPoolExecutor(1) as thread:  # Keras keeps unmade variables for each thread
        try:
            needed = thread.submit(_count_weights, config).result()
        except Exception as error:  # of a foreign file
            raise UserError(
                f"{path.name}: Keras does not build it ({str(error).splitlines()[0][:200]})."
            ) from None
    if needed > unpacked:  # one byte for each number would be too much already
        raise UserError(
            f"{path.name}: describes {needed} weights, but holds {unpacked} bytes. "
            "The file was refused."
        )


def _count_weights(config: Any) -> int:
    """Numbers in all weights that a configuration describes, without making one."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    return sum(math.prod(int(size) for size in variable.shape) for variable in model.variables)


def _widths(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("units", "filters", "output_dim") and isinstance(part, int):
                yield part
            else:
                yield from _widths(part)
    elif isinstance(value, list):
        for part in value:
            yield from _widths(part)
