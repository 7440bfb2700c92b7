"""The generator of a trained run for other programs: a TensorFlow SavedModel or an ONNX file.

The file holds the network that `generate` and `translate` run, numbers in and numbers out, so
that a program without this package makes the same pictures; `README.md` and `provenance.json`
beside it say what the numbers mean. It is run once before it is handed over, and must give what
the network gives.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med import files
from tfgan_med.data import synthetic
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.export.sets import MARK, facts, replacing_export
from tfgan_med.errors import TrainingError, UserError
from tfgan_med.models.pix2pix import Pix2Pix
from tfgan_med.training import sampling, translation
from tfgan_med.training.sampling import Sampler
from tfgan_med.training.translation import Direction, Translator

Values = npt.NDArray[np.float32]
Form = Literal["savedmodel", "onnx"]

FORMATS: tuple[Form, ...] = ("savedmodel", "onnx")
_FILES: dict[Form, str] = {"savedmodel": "saved_model", "onnx": "generator.onnx"}
_TOLERANCE = 1e-3  # of values in [-1, 1]; a wrong weight or layer is far beyond
_TRIED = 3  # pictures that the file is tried on


@dataclass(frozen=True)
class Generator:
    """A network with what its numbers mean.

    Attributes:
        network: one float32 input `(batch, ...)`, one float32 output `(batch, size, size,
            channels)`.
        input_name: `latents` or `condition`.
        input_meaning, output_meaning: for people.
        encodings: of the output's channels, in order.
        facts: run, system and checksum of the weights.
        run: the run folder.
    """

    network: keras.Model
    input_name: str
    input_meaning: str
    output_meaning: str
    encodings: tuple[Encoding, ...]
    facts: dict[str, Any]
    run: Path

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Without the batch."""
        return tuple(self.network.inputs[0].shape[1:])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Without the batch."""
        return tuple(self.network.outputs[0].shape[1:])

    def trial(self) -> Values:
        """Inputs to try the file on, always the same."""
        random = np.random.default_rng(0)
        shape = (_TRIED, *self.input_shape)
        if self.input_name == "latents":
            return random.standard_normal(shape, np.float32)
        return random.uniform(-1.0, 1.0, shape).astype(np.float32)


@dataclass(frozen=True)
class ExportedNetwork:
    """What was made.

    Attributes:
        folder: where.
        file: the network in it.
        difference: largest difference to the run's own output in [-1, 1]; None if it could not
            be tried here.
    """

    folder: Path
    file: Path
    difference: float | None


def export_network(
    run: Path,
    form: str,
    out: Path,
    *,
    checkpoint: str = "final",
    direction: Direction | None = None,
    label: str | None = None,
    replace: bool = False,
) -> ExportedNetwork:
    """Write the generator of a run for other programs.

    Args:
        run: the run folder.
        form: `savedmodel` or `onnx`.
        out: the folder to make.
        checkpoint: `final`, `latest` or `best`.
        direction: of a run that translates both ways; by default `a2b`.
        label: of a run that makes pictures of its classes at will.
        replace: an older export in `out` goes.
    Raises:
        UserError: no weights, a folder in the way, or packages for ONNX are missing.
        TrainingError: the file gives other numbers than the network.
    """
    if form not in FORMATS:
        raise UserError(f"--format is {form!r}; one of {', '.join(FORMATS)} for networks.")
    if form == "onnx":
        _require_onnx()
    generator = load_generator(run, checkpoint, direction, label)
    with replacing_export(out, run, replace) as folder:
        path = folder / _FILES[form]
        _write(generator, form, path)
        difference = _difference(generator, form, path)
        if difference is not None and not difference <= _TOLERANCE:
            raise TrainingError(
                f"{run}: the exported file differs from the network by {difference:.2g} (values "
                f"in [-1, 1]; {_TOLERANCE:g} allowed). Nothing was written; report this."
            )
        _describe(generator, form, folder, difference)
    return ExportedNetwork(out, out / path.name, difference)


# The network --------------------------------------------------------------------------------------


def load_generator(
    run: Path,
    checkpoint: str = "final",
    direction: Direction | None = None,
    label: str | None = None,
) -> Generator:
    """The network of a run as `generate` or `translate` use it.

    Raises:
        UserError: a run of several classes, without weights, or with one direction only.
    """
    classes = sampling.class_runs(run)
    if classes:
        raise UserError(
            f"{run}: holds a generator for each class. Export them one by one: "
            f"{', '.join(str(path) for path in list(classes.values())[:3])}."
        )
    if sampling.kind_of(run) == "images":
        if direction is not None:
            raise UserError(f"{run}: makes pictures from nothing. Leave --direction out.")
        _refuse_class(run, label)
        return _from_latents(Sampler(run, checkpoint, label=label))
    _refuse_class(run, label)
    return _from_pictures(Translator(run, checkpoint, direction), checkpoint)


def _refuse_class(run: Path, label: str | None) -> None:
    if label is not None and not sampling.classes_at_will(run):
        raise UserError(f"--class: {run.name} is not a conditional run. Leave --class out.")


def _from_latents(sampler: Sampler) -> Generator:
    return Generator(
        network=_plain(sampler.network, "latents"),
        input_name="latents",
        input_meaning="standard normal numbers, independent; one row makes one picture",
        output_meaning=_channels(sampler.shapes.encodings),
        encodings=sampler.shapes.encodings,
        facts=sampler.facts,
        run=sampler.run,
    )


def _from_pictures(translator: Translator, checkpoint: str) -> Generator:
    shapes = translator.shapes
    return Generator(
        network=_plain(_translating(translator), "condition"),
        input_name="condition",
        input_meaning=_channels((shapes.source,)),
        output_meaning=_channels((shapes.target,)),
        encodings=(shapes.target,),
        facts={
            "run": translator.run.name,
            "system": shapes.system,
            "direction": shapes.direction,
            "weights": {
                "file": translator.weights_file.relative_to(translator.run).as_posix(),
                "sha256": files.sha256_of(translator.weights_file),
            },
            "checkpoint": checkpoint,
        },
        run=translator.run,
    )


def _translating(translator: Translator) -> keras.Model:
    """The network behind `translate` without noise."""
    model = translator.model
    network = model.average(translator.shapes.network)
    if isinstance(model, Pix2Pix) and model.config.norm == "batch":
        return model._with_own_statistics(network)
    return network


def _plain(network: keras.Model, name: str) -> keras.Model:
    """The same network with a named input and the picture as its one output, in float32."""
    (given,) = network.inputs
    entry = keras.Input(given.shape[1:], dtype="float32", name=name)
    made = network(entry, training=False)
    made = made[0] if isinstance(made, list | tuple) else made
    named = keras.layers.Activation("linear", dtype="float32", name="image")
    return keras.Model(entry, named(made))


def _channels(encodings: tuple[Encoding, ...]) -> str:
    """What the channels hold, in order."""
    return "; then ".join(_meaning(encoding) for encoding in encodings)


def _meaning(encoding: Encoding) -> str:
    count = f"{encoding.channels} channel{'s' if encoding.channels > 1 else ''}"
    if encoding.kind == "mask":
        return f"{encoding.role}: {count} in [-1, 1], above 0 is inside the mask"
    if encoding.kind == "labels":
        return f"{encoding.role}: {count}, one per class: 1 for the class, 0 for all others"
    low, high = encoding.window
    return (
        f"{encoding.role}: {count} in [-1, 1], where -1 is {low:g} and 1 is {high:g} in "
        f"{encoding.dtype} files"
    )


# Files --------------------------------------------------------------------------------------------


def _require_onnx() -> None:
    missing = [name for name in ("tf2onnx", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}, not installed. Install with: "
            "pip install 'tfgan_med[onnx]'"
        )


def _write(generator: Generator, form: str, path: Path) -> None:
    network = generator.network
    network(generator.trial())  # Keras exports only what has been called
    kind = "tf_saved_model" if form == "savedmodel" else "onnx"
    network.export(str(path), format=kind, verbose=False)


def _difference(generator: Generator, form: str, path: Path) -> float | None:
    """Largest difference between what the file and the network make of the same numbers."""
    inputs = generator.trial()
    if form == "savedmodel":
        loaded = tf.saved_model.load(str(path))  # its variables live as long as this name
        made = np.asarray(loaded.serve(inputs))
    elif importlib.util.find_spec("onnxruntime") is None:
        return None
    else:
        onnxruntime: Any = importlib.import_module("onnxruntime")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {session.get_inputs()[0].name: inputs})
    expected = np.asarray(generator.network(inputs, training=False))
    return float(np.abs(made - expected).max())


def _describe(generator: Generator, form: str, folder: Path, difference: float | None) -> None:
    """Write `README.md`, `provenance.json` and `export.json`."""
    made = {
        path.relative_to(folder).as_posix(): files.sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    synthetic.write_provenance(
        folder,
        **generator.facts,
        format=form,
        input={
            "name": generator.input_name,
            "shape": [None, *generator.input_shape],
            "dtype": "float32",
            "meaning": generator.input_meaning,
        },
        output={
            "name": "image",
            "shape": [None, *generator.output_shape],
            "dtype": "float32",
            "meaning": generator.output_meaning,
            "encodings": [encoding.model_dump(mode="json") for encoding in generator.encodings],
        },
        sha256=made,
        largest_difference=difference,
        trained_on=translation.trained_on(generator.run),
    )
    files.write_json(folder / MARK, facts(form, True, source=generator.run.name))
    files.write_text(folder / "README.md", _readme(generator, form, difference))


def _readme(generator: Generator, form: str, difference: float | None) -> str:
    example = _EXAMPLES[form].format(
        name=generator.input_name, shape=", ".join(map(str, generator.input_shape))
    )
    tried = (
        "not tried, for onnxruntime is not installed here"
        if difference is None
        else f"at most {difference:.1g} from the run's own network, on {_TRIED} inputs"
    )
    origin = generator.facts["weights"]
    return f"""# Generator of {generator.facts["run"]} ({generator.facts["system"]})

**What it makes is synthetic.** Say so wherever its pictures go; `provenance.json` says which data
it was trained on.

| | name | shape | numbers |
|---|---|---|---|
| input | `{generator.input_name}` | {_shape(generator.input_shape)} | {generator.input_meaning} |
| output | `image` | {_shape(generator.output_shape)} | {generator.output_meaning} |

float32, channels last. Weights: `{origin["file"]}`, SHA-256 `{origin["sha256"]}`. Output: {tried}.

```python
{example}
```
"""


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(["batch", *map(str, shape)])


_EXAMPLES = {
    "savedmodel": """import numpy as np
import tensorflow as tf

network = tf.saved_model.load("saved_model")
{name} = np.zeros((1, {shape}), np.float32)
image = network.serve({name}).numpy()""",
    "onnx": """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("generator.onnx")
{name} = np.zeros((1, {shape}), np.float32)
(image,) = session.run(None, {{session.get_inputs()[0].name: {name}}})""",
}
