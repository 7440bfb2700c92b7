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
from typing import Any, Literal, TypeVar, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.networks import frozen_graph, inception, pretrained, vgg
from tfgan_med.networks.squeezenet import INPUT_SIZE as SQUEEZENET_SIZE
from tfgan_med.networks.squeezenet import squeezenet_trunk

Protocol = Literal["ttur", "clean", "pytorch-fid", "keras"]
Range = Literal["-1..1", "0..1", "0..255"]
Precision = Literal["float32", "bfloat16"]
Array = npt.NDArray[Any]
Tensor = Any
Size = tuple[int | None, int | None]
T = TypeVar("T")

PROTOCOLS: dict[str, str] = {
    "ttur": "the original FID: TensorFlow 1 bilinear resizing without antialiasing",
    "clean": "clean-fid: antialiased bicubic resizing; for comparisons across resolutions",
    "pytorch-fid": "pytorch-fid: bilinear resizing with half-pixel centres, no antialiasing",
    "keras": "ImageNet weights of keras.applications; not FID, never compared with it",
}

# Names of values ----------------------------------------------------------------------------------

PLAIN_NAMES = {
    "fid": "frechet_distance",
    "kid": "kernel_distance",
    "inception_score": "classifier_score",
    "lpips": "perceptual_distance",
}
"""Names that belong to one published network, and what the same measure is called on others."""


def value_name(measure: str, name: str, sha256: str, published: bool, suffix: str = "") -> str:
    """What a measure is called on a network, so that numbers of two networks never mix.

    Args:
        measure: such as `fid`, `fid_infinity` or `precision`.
        name, sha256: of the network and its weight file.
        published: whether these are the published weights that the measure's name stands for.
        suffix: what sets the value apart even then, such as `_d192`.
    Returns:
        `fid` with published weights; otherwise `frechet_distance[name:sha256]`, eight digits.
    """
    if published:
        return measure + suffix
    for known, plain in PLAIN_NAMES.items():
        if measure == known or measure.startswith(f"{known}_"):
            measure = plain + measure.removeprefix(known)
    return f"{measure}[{name}:{sha256[:8]}]{suffix}"


# The network --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureNetwork:
    """Pictures to feature vectors, and to logits where the network has classes.

    Attributes:
        name: of the network, as results name it; a tensor of a file stands behind a colon.
        sha256: of the weight file.
        protocol: how pictures are resized and scaled, then whatever else changes the values.
        published: whether values keep their published names; see `value_name`.
        dimension: length of a feature vector.
        compute: `(batch, height, width, 3)` float32 in 0..255 to `(batch, width)` float32:
            features first, then logits, from one pass.
        classes: number of logits, 0 without.
        suffix: of the names of values.
        precision: of the convolutions; the protocol names any but float32.
        place: tensors of a foreign network that the numbers come from.
    """

    name: str
    sha256: str
    protocol: str
    published: bool
    dimension: int
    compute: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    classes: int = 0
    suffix: str = ""
    precision: Precision = "float32"
    place: str = ""

    @property
    def width(self) -> int:
        """Numbers per picture."""
        return self.dimension + self.classes

    @property
    def identity(self) -> str:
        """What the numbers depend on besides the picture; names them in the cache."""
        return "|".join(
            (
                self.name,
                self.place,
                self.protocol,
                f"{self.dimension}+{self.classes}={self.width}",
                self.precision,
                self.sha256,
                tf.__version__,
            )
        )

    @property
    def metric(self) -> str:
        """Name of a Fréchet distance on these features."""
        return self.name_of("fid")

    def name_of(self, measure: str) -> str:
        """What a measure is called on this network; see `value_name`."""
        name = self.name.partition(":")[0]
        return value_name(measure, name, self.sha256, self.published, self.suffix)

    def features(self, pictures: Iterable[Array], batch_size: int) -> Iterator[Array]:
        """One float32 vector of `width` numbers for each picture, in order.

        The next pictures are fetched in another thread while the network computes.

        Args:
            pictures: `(height, width, 3)` each, in 0..255, all of one size.
            batch_size: pictures in one pass; twice as many are in memory.
        """
        for batch, count in _ahead(_batches(pictures, batch_size)):
            yield from self._numbers(batch)[:count]

    def _numbers(self, batch: Tensor) -> Array:
        """Refuses pictures smaller than the filters of the network, which fail in many ways."""
        try:
            values = np.asarray(self.compute(batch), np.float32)
        except (tf.errors.InvalidArgumentError, ValueError):
            values = np.empty(0, np.float32)
        if values.shape != (len(batch), self.width):
            height, width = batch.shape[1:3]
            raise UserError(
                f"{self.name}: does not take pictures of {height} x {width} pixels. Add --resize "
                "N, or choose another network."
            )
        return values


def _batches(pictures: Iterable[Array], batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Stacked pictures, and how many of them count: a short last batch is filled up, so that one
    computation serves all."""
    waiting = iter(pictures)
    size = 0
    while batch := list(itertools.islice(waiting, batch_size)):
        size = size or len(batch)
        filled = batch + [batch[-1]] * (size - len(batch))
        yield tf.constant(np.stack(filled), tf.float32), len(batch)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; the next one is made in a thread while the current one is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


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


def inception_2015(
    weights: Path,
    protocol: Protocol,
    dimension: int = 2048,
    precision: Precision = "float32",
) -> FeatureNetwork:
    """The network of the FID; with 2048 features come the 1008 logits of the Inception Score,
    without the bias of the last layer as OpenAI's code has them.

    Args:
        weights: a file that `networks.pretrained.read_inception` reads.
        protocol: `ttur`, `clean` or `pytorch-fid`.
        dimension: 64, 192, 768 or 2048; all but 2048 belong to `pytorch-fid`.
        precision: of the convolutions.
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
    whole = inception.inception_2015(folded=True, precision=precision)
    try:
        inception.load_state(whole, state)
    except ValueError as error:
        raise UserError(f"{weights.name}: {error}") from None
    wanted = [str(dimension)] + (["logits_unbiased"] if dimension == 2048 else [])
    network = keras.Model(whole.inputs, [whole.output[name] for name in wanted])
    return FeatureNetwork(
        name="inception-2015",
        sha256=sha256,
        protocol=_tagged(protocol, precision),
        published=pretrained.is_published("inception-2015", sha256),
        dimension=dimension,
        compute=_chained(lambda images: scale(resize(images, protocol), protocol), network),
        classes=1008 if dimension == 2048 else 0,
        suffix=_suffix(protocol, dimension, precision),
        precision=precision,
    )


def _suffix(protocol: Protocol, dimension: int, precision: Precision) -> str:
    """Whatever is not the original FID shows in the name, so that no file mixes the two."""
    own = {"clean": "_clean", "pytorch-fid": "_pytorch"}.get(protocol, "")
    parts = own if dimension == 2048 else f"_d{dimension}"  # only pytorch-fid has these
    return parts + ("_bf16" if precision == "bfloat16" else "")


def inception_keras(weights: Path, precision: Precision = "float32") -> FeatureNetwork:
    """`keras.applications.InceptionV3` with ImageNet weights: another network than FID's.

    Args:
        weights: `inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`.
        precision: of the convolutions.
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
    published = pretrained.is_published("inception-keras", pretrained.digest_of(weights, "md5"))
    return FeatureNetwork(
        name="inception-keras",
        sha256=files.sha256_of(weights),
        protocol=_tagged("keras", precision),
        published=published,
        dimension=2048,
        compute=_chained(
            lambda images: scale(resize(images, "keras"), "keras"),
            _in_precision(network, precision),
        ),
        suffix="_keras_imagenet" if published else "",
        precision=precision,
    )


def vgg16(weights: Path, precision: Precision = "float32") -> FeatureNetwork:
    """VGG16: `fc2`, 4096 features, from a file with top, as improved precision and recall use
    it; otherwise `gap`, the 512 averaged channels of the last pooling.

    Args:
        weights: the file of `keras.applications.VGG16`, with or without top.
        precision: of the convolutions.
    """
    network = vgg.vgg16_vectors(weights, precision)
    return _caffe(network.name, weights, network, (224, 224), precision)


def squeezenet(weights: Path, precision: Precision = "float32") -> FeatureNetwork:
    """SqueezeNet 1.1: the 512 averaged channels of fire9; a small network for quick looks.

    Args:
        weights: see `networks.squeezenet.squeezenet_trunk`.
        precision: of the convolutions.
    """
    trunk = squeezenet_trunk(weights, precision)
    mean = keras.layers.GlobalAveragePooling2D(dtype="float32")(trunk.outputs[-1])
    network = keras.Model(trunk.inputs, mean)
    size = (SQUEEZENET_SIZE, SQUEEZENET_SIZE)
    return _caffe("squeezenet-1.1", weights, network, size, precision)


def _caffe(
    name: str, weights: Path, network: keras.Model, size: tuple[int, int], precision: Precision
) -> FeatureNetwork:
    """A network of Caffe weights: pixels in 0..255 as BGR less the ImageNet mean."""

    def prepare(images: Tensor) -> Tensor:
        return tf.reverse(resize(images, "clean", size), [-1]) - tf.constant(vgg.BGR_MEAN)

    return FeatureNetwork(
        name=name,
        sha256=files.sha256_of(weights),
        protocol=_tagged(f"antialiased bicubic {size[0]}, BGR less mean", precision),
        published=False,
        dimension=int(network.output_shape[-1]),
        compute=_chained(prepare, network),
        precision=precision,
    )


def _in_precision(network: keras.Model, precision: Precision) -> keras.Model:
    """The same network with convolutions in another precision; the result stays float32."""
    if precision == "float32":
        return network

    def changed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        pooled = isinstance(layer, keras.layers.GlobalAveragePooling2D)
        config["dtype"] = "float32" if pooled else keras.DTypePolicy("mixed_bfloat16")
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=changed)
    copy.set_weights(network.get_weights())
    return copy


def _tagged(protocol: str, precision: Precision) -> str:
    """Values of another precision belong to another protocol."""
    return protocol if precision == "float32" else f"{protocol}, {precision}"


def _chained(
    prepare: Callable[[Tensor], Tensor], network: keras.Model
) -> Callable[[Tensor], Tensor]:
    """Preparation for any size of picture, then the network: compiled apart, so that another size
    compiles the first alone."""
    prepared, fixed = _compiled(prepare), _fixed(network)

    def compute(images: Tensor) -> Tensor:
        return fixed(prepared(images))

    return compute


def _fixed(network: keras.Model) -> Callable[[Tensor], Tensor]:
    """The compiled network; outputs are joined along the last axis.

    In bfloat16 kernels are constants of the graph, cast and laid out once instead of in every
    pass: 70 against 60 images per second and core. In float32 this gains 1 % and costs 2 s.
    """
    quick = any(layer.compute_dtype == "bfloat16" for layer in network.layers)

    def values(variables: list[Any]) -> list[Any]:
        return [v.numpy() if quick and len(v.shape) == 4 else v for v in variables]

    trainable = values(network.trainable_variables)
    other = values(network.non_trainable_variables)

    def run(images: Tensor) -> Tensor:
        weights = ([tf.convert_to_tensor(value) for value in part] for part in (trainable, other))
        outputs, _ = network.stateless_call(*weights, images, training=False)
        return tf.concat(outputs, axis=-1) if isinstance(outputs, list) else outputs

    shape = network.inputs[0].shape
    signature = [tf.TensorSpec((None, *shape[1:]), tf.float32)]
    compiled: Callable[[Tensor], Tensor] = tf.function(
        run, input_signature=signature, autograph=False
    )
    return compiled


def foreign(
    path: Path,
    input_name: str | None = None,
    output_name: str | None = None,
    values: Range = "-1..1",
    logits_name: str | None = None,
) -> FeatureNetwork:
    """Any other network: a `.keras` model or a frozen graph (`.pb`).

    Pictures are resized to the network's input with antialiasing, as `clean` does. Outputs with
    height and width are averaged over them.

    Args:
        path: the file.
        input_name, output_name: tensors of a frozen graph, or `output_name` a layer of a model.
        values: what the network expects for black and white.
        logits_name: tensor or layer with the scores of the classes. If they are probabilities,
            their logarithms are taken, which are logits up to a constant.
    Raises:
        UserError: the file is none of these, or may do more than compute.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a feature network: .keras or .pb.")
    if values not in get_args(Range):
        raise UserError(f"Range {values!r} is unknown; one of {', '.join(get_args(Range))}.")
    if path.suffix == ".pb":
        outputs, size = frozen_graph.load(path, input_name, output_name, logits_name)
    elif path.suffix == ".keras":
        outputs, size = _keras_network(path, output_name, logits_name)
    else:
        raise UserError(
            f"{path.name}: feature networks are .keras files or frozen graphs (.pb). Whole-model "
            ".h5 files, SavedModels and pickles can run code and are not loaded; save the network "
            "with model.save('name.keras')."
        )

    def vectors(images: Tensor) -> list[Tensor]:
        if None not in size:
            images = resize(images, "clean", size)  # type: ignore[arg-type]
        return [_averaged(output) for output in outputs(_in_range(images, values))]

    features, *scores = _trial(path, _compiled(vectors), size, (output_name, logits_name))
    probable = bool(scores) and _are_probabilities(scores[0])

    def compute(images: Tensor) -> Tensor:
        features, *scores = vectors(images)
        if probable:
            scores = [tf.math.log(tf.maximum(score, 1e-12)) for score in scores]
        return tf.concat([features, *scores], axis=-1)

    place = f":{output_name}" if output_name else ""
    return FeatureNetwork(
        name=f"{path.stem}{place}",
        sha256=files.sha256_of(path),
        protocol=f"antialiased bicubic, {values}",
        published=False,
        dimension=int(features.shape[1]),
        compute=_compiled(compute),
        classes=int(scores[0].shape[1]) if scores else 0,
        place=f"{input_name or ''} {logits_name or ''}",
    )


def _averaged(output: Tensor) -> Tensor:
    """Over height and width, if the output has them."""
    output = tf.cast(output, tf.float32)
    return tf.reduce_mean(output, axis=[1, 2]) if output.shape.rank == 4 else output


def _trial(
    path: Path,
    vectors: Callable[[Tensor], list[Tensor]],
    size: Size,
    names: tuple[str | None, str | None],
) -> list[Array]:
    """Features, and scores if there are any, of a black and a white picture; says what is wrong
    with outputs that are not one vector for each."""
    trial = tf.stack([tf.zeros((size[0] or 64, size[1] or 64, 3)) + value for value in (0, 255)])
    try:
        arrays = [np.asarray(output) for output in vectors(trial)]
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(
            f"{path.name}: does not take RGB pictures (batch, height, width, 3): "
            f"{str(error).strip().splitlines()[-1]}"
        ) from None
    for array, name, option in zip(
        arrays, names, ("--features-output", "--logits-output"), strict=False
    ):
        if array.ndim != 2 or len(array) != 2:
            raise UserError(
                f"{path.name}: {name or 'its output'} gives {array.shape} for two pictures; one "
                f"vector for each is needed. Name another tensor or layer with {option}."
            )
    return arrays


def _are_probabilities(rows: Array) -> bool:
    return bool((rows >= 0.0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def _compiled(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    compiled: Callable[[Tensor], Any] = tf.function(function, reduce_retracing=True)
    return compiled


def _in_range(images: Tensor, values: Range) -> Tensor:
    if values == "-1..1":
        return images / 127.5 - 1.0
    return images / 255.0 if values == "0..1" else images


# Foreign Keras models -----------------------------------------------------------------------------

_LARGEST_MODEL = 4 * 2**30  # bytes unpacked
_MODULES = ("keras", "builtins")
_REFUSED_CLASSES = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def _keras_network(
    path: Path, output_name: str | None, logits_name: str | None
) -> tuple[Callable[[Tensor], list[Tensor]], Size]:
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
    if output_name is None and len(model.outputs) != 1:
        raise UserError(
            f"{path.name}: has {len(model.outputs)} outputs. Name a layer with --features-output."
        )
    outputs = [_layer(model, output_name, path).output if output_name else model.outputs[0]]
    if logits_name:
        outputs.append(_layer(model, logits_name, path).output)
    network = keras.Model(model.inputs, outputs)

    def run(images: Tensor) -> list[Tensor]:
        computed = network(images, training=False)
        return computed if isinstance(computed, list) else [computed]

    return run, (shape[1], shape[2])


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
