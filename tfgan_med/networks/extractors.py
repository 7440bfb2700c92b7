"""Which network turns pictures into features: from what a user names to a loaded network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tfgan_med.errors import UserError
from tfgan_med.networks import features as networks
from tfgan_med.networks import pretrained
from tfgan_med.networks.features import FeatureNetwork, Precision, Protocol, Range

NAMED = ("vgg16", "squeezenet")
"""Networks of the weight store that `--features` knows by name; others are files or runs."""

_RUN = "run:"


@dataclass(frozen=True)
class ExtractorChoice:
    """What a user says about the feature network.

    Attributes:
        protocol: of the Inception network; not used with `features`.
        weights: file for the network; by default the one in the weights folders.
        dims: 64, 192, 768 or 2048 features of Inception; all but 2048 with `pytorch-fid`.
        features: another network: `vgg16`, `squeezenet`, a `.keras` model, a frozen graph, or
            `run:FOLDER` for the network that a downstream run trained.
        input_name, output_name: tensors of a frozen graph, or `output_name` a layer of a model.
        logits_name: the tensor or layer with class scores, for the Inception Score's relatives.
        value_range: numbers a file's network expects for black and white.
        precision: `bfloat16` is quicker and changes the values a little; results say so.
    """

    protocol: Protocol = "ttur"
    weights: Path | None = None
    dims: int = 2048
    features: str | None = None
    input_name: str | None = None
    output_name: str | None = None
    logits_name: str | None = None
    value_range: Range = "-1..1"
    precision: Precision = "float32"

    @property
    def store_name(self) -> str | None:
        """Name of the weights in the store that are needed, None for files of the user's."""
        if self.features is None:
            return "inception-keras" if self.protocol == "keras" else "inception-2015"
        return self.features if self.features in NAMED else None

    def load(self) -> FeatureNetwork:
        """Build the network.

        Raises:
            MissingWeightsError: the weights are not on this machine.
            UserError: a file that is not what it should be, or settings that exclude each other.
        """
        self._check()
        if self.features is None:
            return self._inception()
        if self.features == "vgg16":
            return networks.vgg16(self._vgg16_weights(), precision=self.precision)
        if self.features == "squeezenet":
            path = pretrained.locate("squeezenet", self.weights)
            return networks.squeezenet(path, precision=self.precision)
        if self.features.startswith(_RUN):
            return _of_run(Path(self.features.removeprefix(_RUN)))
        return networks.foreign(
            Path(self.features).expanduser(),
            self.input_name,
            self.output_name,
            self.value_range,
            logits_name=self.logits_name,
        )

    def _check(self) -> None:
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise UserError(f"precision is {self.precision!r}; one of {known}.")
        if self.features is None:
            if self.protocol not in networks.PROTOCOLS:
                raise UserError(
                    f"protocol is {self.protocol!r}, which is unknown. Protocols: "
                    f"{', '.join(networks.PROTOCOLS)}."
                )
            return
        if self.dims != 2048:
            raise UserError("--features brings its own dimension. Leave --dims out, or --features.")
        if self.features in NAMED:
            return
        if self.weights is not None:
            raise UserError(
                "--features brings its own weights. Leave --weights out, or --features."
            )
        if self.precision != "float32":
            raise UserError(
                "A network of a file computes as it was saved; --precision is for the named ones."
            )

    def _inception(self) -> FeatureNetwork:
        if self.protocol == "keras":
            path = pretrained.locate("inception-keras", self.weights)
            return networks.inception_keras(path, precision=self.precision)
        path = pretrained.locate("inception-2015", self.weights)
        return networks.inception_2015(path, self.protocol, self.dims, precision=self.precision)

    def _vgg16_weights(self) -> Path:
        """With its top where there is one: fc2 is what improved precision and recall use."""
        if self.weights is None and pretrained.find("vgg16-top"):
            return pretrained.locate("vgg16-top")
        return pretrained.locate("vgg16", self.weights)


def _of_run(folder: Path) -> FeatureNetwork:
    """The network that a downstream run saved: `model.keras` with a layer called `features`."""
    path = folder.expanduser() / "model.keras"
    if not folder.expanduser().is_dir():
        raise UserError(f"{folder}: no such run. Give run:FOLDER of a downstream run.")
    if not path.is_file():
        raise UserError(
            f"{folder}: has no model.keras. Features come from a trained classifier or segmenter; "
            "the runs of generators have none."
        )
    return networks.foreign(path, None, "features")
