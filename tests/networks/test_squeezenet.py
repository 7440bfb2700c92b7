"""SqueezeNet computes what its published weights say, and its features know real pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.signal import correlate

from tfgan_med.errors import UserError
from tfgan_med.networks.features import FeatureNetwork, squeezenet
from tfgan_med.networks.squeezenet import TAP_CHANNELS, squeezenet_trunk

Array = npt.NDArray[Any]
WEIGHTS = "weights/squeezenet-1.1-imagenet-notop.h5"


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / WEIGHTS


@pytest.fixture(scope="module")
def network(weights: Path) -> FeatureNetwork:
    return squeezenet(weights)


def test_the_trunk_has_the_seven_maps_of_lpips(weights: Path) -> None:
    pixels = np.random.default_rng(0).normal(0, 60, (2, 227, 227, 3)).astype(np.float32)
    maps = squeezenet_trunk(weights)(pixels)
    assert tuple(part.shape[-1] for part in maps) == TAP_CHANNELS
    assert [part.shape[1] for part in maps] == [113, 56, 27, 13, 13, 13, 13]
    assert all(float(part.numpy().min()) == 0.0 for part in maps)  # after the ReLU


def rectified(pixels: Array, kernel: Array, bias: Array) -> Array:
    """Convolution over all positions by SciPy, `(height, width, out)`, then ReLU."""
    sums = [
        correlate(pixels.astype(np.float64), kernel[..., channel], "valid")[..., 0]
        for channel in range(kernel.shape[-1])
    ]
    return np.asarray(np.maximum(np.stack(sums, axis=-1) + bias, 0.0))


def test_the_first_fire_module_equals_one_computed_with_scipy(weights: Path) -> None:
    """conv1, its pooling, fire2 and fire3 as the paper draws them, on one small picture."""
    pixels = np.random.default_rng(1).normal(0, 60, (31, 31, 3)).astype(np.float32)
    maps = squeezenet_trunk(weights)(pixels[None])

    with h5py.File(weights) as file:

        def of(name: str) -> tuple[Array, Array]:
            group = file[name]
            kernel, bias = (np.asarray(group[key]) for key in group.attrs["weight_names"])
            return kernel, bias

        first = rectified(pixels, *of("conv1"))[::2, ::2]
        np.testing.assert_allclose(maps[0][0], first, rtol=1e-4, atol=1e-2)
        windows = np.lib.stride_tricks.sliding_window_view(first, (3, 3), axis=(0, 1))
        x = windows[::2, ::2].max(axis=(-2, -1))
        for fire in ("fire2", "fire3"):
            squeezed = rectified(x, *of(f"{fire}/squeeze1x1"))
            padded = np.pad(squeezed, ((1, 1), (1, 1), (0, 0)))
            one = rectified(squeezed, *of(f"{fire}/expand1x1"))
            x = np.concatenate([one, rectified(padded, *of(f"{fire}/expand3x3"))], axis=-1)
    np.testing.assert_allclose(maps[1][0], x, rtol=1e-4, atol=1e-4 * x.max())


def real_pictures(folder: Path) -> tuple[list[Array], list[str], list[str]]:
    with (folder / "splits.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["split"] != "val"][::2]
    found = [np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows]
    return found, [row["class"] for row in rows], [row["split"] for row in rows]


def test_its_features_tell_sound_castings_from_defective_ones(
    shared: Path, network: FeatureNetwork
) -> None:
    """Ridge regression on training features; guessing is right in half of the test pictures."""
    found, classes, splits = real_pictures(shared / "data" / "casting")
    rows = np.stack(list(network.features(found, 32))).astype(np.float64)
    assert rows.shape == (len(found), 512)
    assert np.isfinite(rows).all()
    truth = np.where(np.array(classes) == classes[0], 1.0, -1.0)
    train = np.array(splits) == "train"

    mean, spread = rows[train].mean(axis=0), rows[train].std(axis=0) + 1e-6
    x = (rows - mean) / spread
    gram = x[train] @ x[train].T + 100.0 * np.eye(int(train.sum()))
    scores = x @ x[train].T @ np.linalg.solve(gram, truth[train])
    right = (np.sign(scores) == truth)[~train]
    assert right.mean() > 0.8, f"{right.sum()} of {len(right)}"


def test_the_same_picture_has_the_same_features_in_any_batch(network: FeatureNetwork) -> None:
    generator = np.random.default_rng(2)
    found = [generator.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(5)]
    first, again, single = (np.stack(list(network.features(found, n))) for n in (5, 5, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, single, rtol=1e-4, atol=1e-4)


def test_red_and_blue_are_not_mixed_up(weights: Path, network: FeatureNetwork) -> None:
    """The trunk wants blue first: a picture of one red value, prepared by hand."""
    red = np.zeros((227, 227, 3), np.uint8)
    red[..., 0] = 200
    pixels = np.broadcast_to(
        np.array([-103.939, -116.779, 200 - 123.68], np.float32), (1, 227, 227, 3)
    )
    expected = squeezenet_trunk(weights)(pixels)[-1].numpy().mean(axis=(1, 2))[0]
    row = next(iter(network.features([red], 1)))
    np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close_and_named(weights: Path, network: FeatureNetwork) -> None:
    quick = squeezenet(weights, precision="bfloat16")
    generator = np.random.default_rng(3)
    found = [generator.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]
    rows, near = (np.stack(list(n.features(found, 2))) for n in (network, quick))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - rows).max() < 0.05 * rows.max()
    assert quick.protocol == f"{network.protocol}, bfloat16"
    assert network.name_of("kid") == "kernel_distance[squeezenet-1.1:2d935d8c]"


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file.create_group("conv1").attrs["weight_names"] = []
    with pytest.raises(UserError, match=r"does not hold SqueezeNet 1\.1.*layer conv1"):
        squeezenet_trunk(path)
