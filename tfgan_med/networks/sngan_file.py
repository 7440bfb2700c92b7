"""The generators that the authors of SNGAN published, Chainer's `.npz` files, as weights of ours.

The file to have is `ResNetGenerator_850000.npz`: 128 pixels, the 1000 classes of ImageNet. The
other generators of that code are read too: 64 and 32 pixels, the small one, without classes.

Source: pfnet-research/sngan_projection, gen_models/resnet*.py and source/links/ for the names and
the order of the axes.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med.errors import DataError
from tfgan_med.networks.sngan import (
    GENERATOR_WIDTHS,
    SIZES,
    SMALL_GENERATOR_WIDTHS,
    START,
    GeneratorPlan,
)

Array = npt.NDArray[np.float32]
Weights = dict[str, list[npt.NDArray[Any]]]

# What a damaged, encrypted or made-up archive raises; NotImplementedError is a RuntimeError.
_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError)
_DAMAGED = (*_ARCHIVE, ValueError, KeyError, RuntimeError, MemoryError)

MAX_BYTES = 2**30  # of the numbers; the published file has 168 MB
ADVICE = (
    "Take ResNetGenerator_850000.npz, which github.com/pfnet-research/sngan_projection links to, "
    "or a run of `tfgan-med train sngan`."
)


def read(path: Path) -> tuple[GeneratorPlan, Weights]:
    """What the generator in a file is built from, and its weights.

    Args:
        path: an `.npz` that Chainer's `save_npz` wrote of a generator.
    Returns:
        The plan, and for each layer of `sngan_generator(plan)` that has weights, by its name, the
        arrays that its `set_weights` takes, float32.
    Raises:
        DataError: the file cannot be read, is no such generator, or has shapes or numbers that
            cannot be.
    """
    stored = _Stored(path, _arrays(path))
    plan = _plan(stored)
    widths = plan.widths
    first, last = widths[0], len(widths) + 1  # Chainer's count begins with the dense layer

    weights = {"project": _dense(stored, plan.latent_size, first)}
    for number in range(1, len(widths)):
        width_in, width = widths[number - 1 : number + 1]
        theirs, ours = f"block{number + 1}", f"block{number}"
        weights[f"{ours}_norm1"] = _norm(stored, f"{theirs}/b1", width_in, plan.num_classes)
        weights[f"{ours}_conv1"] = _convolution(stored, f"{theirs}/c1", 3, width_in, width)
        weights[f"{ours}_norm2"] = _norm(stored, f"{theirs}/b2", width, plan.num_classes)
        weights[f"{ours}_conv2"] = _convolution(stored, f"{theirs}/c2", 3, width, width)
        weights[f"{ours}_shortcut"] = _convolution(stored, f"{theirs}/c_sc", 1, width_in, width)
    weights["head_norm"] = _norm(stored, f"b{last}", widths[-1], 0)
    weights["head_conv"] = _convolution(stored, _head(stored, last), 3, widths[-1], plan.channels)
    return plan, weights


class _Stored:
    """The arrays of a file, each looked up by name and shape."""

    def __init__(self, path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.path = path
        self.arrays = arrays

    def take(self, name: str, *shape: int) -> Array:
        """An array; a missing one, another shape and numbers that are not finite are errors."""
        if name not in self.arrays:
            raise self.refused(f"has no array {name}")
        array = self.arrays[name]
        if array.shape != shape:
            raise self.refused(f"{name} has the shape {array.shape}, expected {shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise self.refused(f"{name} holds other values than finite numbers")
        return array.astype(np.float32)

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of an array of so many axes."""
        if name not in self.arrays:
            raise self.refused(f"has no array {name}")
        shape = self.arrays[name].shape
        if len(shape) != axes:
            raise self.refused(f"{name} has the shape {shape}, expected {axes} axes")
        return shape

    def refused(self, problem: str) -> DataError:
        return DataError(f"{self.path} is no generator of SNGAN's authors: {problem}. {ADVICE}")


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise DataError(
                f"{path} unpacks to {size / 2**20:.0f} MB, at most {MAX_BYTES // 2**20} MB are "
                f"read. {ADVICE}"
            )
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}). {ADVICE}") from None
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged or no .npz file ({error}). {ADVICE}") from None


def _plan(stored: _Stored) -> GeneratorPlan:
    """Size, widths and classes, from the shapes."""
    if "l1/W" not in stored.arrays and any(name.endswith("/l1/W") for name in stored.arrays):
        raise stored.refused("it is the snapshot of a training, not a generator alone")
    rows, latent_size = stored.shape("l1/W", 2)
    blocks = 0
    while f"block{blocks + 2}/c1/W" in stored.arrays:
        blocks += 1
    widths = [rows // START**2]
    widths += [stored.shape(f"block{number + 2}/c1/W", 4)[0] for number in range(blocks)]
    size = START * 2**blocks
    if size not in SIZES:
        raise stored.refused(f"has {blocks} blocks, expected 3, 4 or 5")

    (base,) = stored.shape(f"b{blocks + 2}/gamma", 1)
    kinds = {False: GENERATOR_WIDTHS[size]}
    if size == 128:
        kinds[True] = SMALL_GENERATOR_WIDTHS
    small = [kind for kind, multiples in kinds.items() if widths == [base * m for m in multiples]]
    if not small:
        raise stored.refused(f"its maps have {', '.join(map(str, widths))} channels")
    classes = "block2/b1/gammas/W"
    return GeneratorPlan(
        image_size=size,
        channels=stored.shape(f"{_head(stored, blocks + 2)}/W", 4)[0],
        base=base,
        small=small[0],
        num_classes=stored.shape(classes, 2)[0] if classes in stored.arrays else 0,
        latent_size=latent_size,
    )


def _head(stored: _Stored, number: int) -> str:
    """The last convolution: `l7`, `l6`, and at 32 pixels `c5`."""
    return f"c{number}" if f"c{number}/W" in stored.arrays else f"l{number}"


def _dense(stored: _Stored, latent_size: int, width: int) -> list[npt.NDArray[Any]]:
    """Chainer's rows are (channels, 4, 4), ours (4, 4, channels)."""
    count = START**2 * width
    kernel = stored.take("l1/W", count, latent_size)
    kernel = kernel.reshape(width, START, START, latent_size).transpose(3, 1, 2, 0)
    bias = stored.take("l1/b", count).reshape(width, START, START).transpose(1, 2, 0)
    return [np.ascontiguousarray(kernel).reshape(latent_size, count), bias.reshape(count)]


def _convolution(
    stored: _Stored, name: str, side: int, width_in: int, width: int
) -> list[npt.NDArray[Any]]:
    """(out, in, height, width) to (height, width, in, out)."""
    kernel = stored.take(f"{name}/W", width, width_in, side, side).transpose(2, 3, 1, 0)
    return [np.ascontiguousarray(kernel), stored.take(f"{name}/b", width)]


def _norm(stored: _Stored, name: str, width: int, num_classes: int) -> list[npt.NDArray[Any]]:
    """Scales, shifts, mean and variance; of each class, the first two are tables."""
    if num_classes:
        affine = [
            stored.take(f"{name}/{kind}/W", num_classes, width) for kind in ("gammas", "betas")
        ]
    else:
        affine = [stored.take(f"{name}/{kind}", width) for kind in ("gamma", "beta")]
    mean, variance = (stored.take(f"{name}/{kind}", width) for kind in ("avg_mean", "avg_var"))
    if (variance < 0).any():
        raise stored.refused(f"{name}/avg_var holds negative numbers")
    return [*affine, mean, variance]
