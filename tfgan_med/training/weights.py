"""Weights of the networks that make pictures: written by a run, read by what uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.training import run_folder
from tfgan_med.training.run_folder import RunFolder

Array = npt.NDArray[Any]


def exported(run: Path, name: str) -> Path:
    """File of a network's weights in a finished run."""
    return run / "weights" / f"{name}.weights.h5"


def save(folder: RunFolder, name: str, network: keras.Model) -> None:
    """Write the weights of a network as `weights/<name>.weights.h5`."""
    with files.replacing(exported(folder.path, name)) as temporary:
        run_folder.write_arrays(
            temporary, {f"{i:04d}-{v.name}": v for i, v in enumerate(network.weights)}
        )


def read(run: Path, name: str, checkpoint: str = "final") -> tuple[Path, list[Array]]:
    """File of a network's weights, and its arrays in order.

    Args:
        run: the run folder.
        name: of the network, such as `generator`.
        checkpoint: `final` for the exported weights (the newest checkpoint if training has not
            ended), or `latest`, `best`. Of a checkpoint the moving average is taken if there is
            one; its batch-norm statistics are those of training.
    """
    if checkpoint == "final" and exported(run, name).is_file():
        path = exported(run, name)
        return path, [value for _, value in sorted(run_folder.read_arrays(path).items())]
    folder, _ = RunFolder(run).checkpoint("best" if checkpoint == "best" else "latest")
    path = folder / "model.weights.h5"
    arrays = run_folder.read_arrays(path)
    averaged = any(key.startswith(f"network/ema_{name}/") for key in arrays)
    prefix = f"network/ema_{name}/" if averaged else f"network/{name}/"
    return path, [
        value
        for key, value in sorted(arrays.items())
        if key.startswith(prefix) and "seed_generator_state" not in key
    ]


def assign(network: keras.Model, arrays: Sequence[Array], path: Path) -> None:
    """Give a rebuilt network its weights.

    Raises:
        UserError: if they are of another network; names the file.
    """
    if [tuple(w.shape) for w in network.weights] != [a.shape for a in arrays]:
        raise UserError(
            f"{path}: does not fit the network that the run's config.yaml describes. Restore both "
            "files from the same run."
        )
    network.set_weights(list(arrays))
