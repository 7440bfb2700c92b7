"""Weight files of Keras 2 (`.h5`): layers by name, checked before they are taken.

Keras 3 reads such files only if the names of the layers are names of its own; here a layer is
looked up under the name that the file gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt

from tfgan_med.errors import DataError


def load(
    network: keras.Model,
    path: Path,
    about: str,
    advice: str,
    stored_as: Callable[[str], str] = lambda name: name,
) -> None:
    """Set the weights of every layer of a network from a file.

    Args:
        about: what the file should hold, for messages, such as `VGG16 as Keras publishes it`.
        advice: what to do if it does not, a sentence.
        stored_as: name of a layer to its name in the file.
    Raises:
        DataError: the file is no HDF5 file, or a layer is missing, or has other shapes or numbers
            that are not finite.
    """
    with _opened(path, about, advice) as file:
        groups = file.get("model_weights", file)  # a whole saved model nests them
        for layer in network.layers:
            if layer.weights:
                arrays = _arrays(groups, stored_as(layer.name))
                _check(layer, arrays, f"{path} does not hold {about}", advice)
                layer.set_weights(arrays)


def holds(path: Path, name: str, about: str, advice: str) -> bool:
    """Whether a file has a layer with weights of this name; errors as `load`."""
    with _opened(path, about, advice) as file:
        return bool(_arrays(file.get("model_weights", file), name))


def _opened(path: Path, about: str, advice: str) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read as an HDF5 file ({error}). Expected {about}. {advice}"
        ) from None


def _arrays(groups: Any, name: str) -> list[npt.NDArray[np.float32]]:
    """Kernel and bias of a layer in the order in which the file lists them."""
    if name not in groups:
        return []
    group = groups[name]
    return [np.asarray(group[key], np.float32) for key in group.attrs.get("weight_names", ())]


def _check(
    layer: keras.layers.Layer, arrays: list[npt.NDArray[np.float32]], problem: str, advice: str
) -> None:
    found = [array.shape for array in arrays]
    expected = [tuple(variable.shape) for variable in layer.weights]
    if found != expected:
        raise DataError(
            f"{problem}: layer {layer.name} has arrays of shape {found}, expected {expected}. "
            f"{advice}"
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataError(f"{problem}: layer {layer.name} has numbers that are not finite. {advice}")
