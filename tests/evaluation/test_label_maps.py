"""Masks and label maps read from folders, compared class by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation import label_maps
from tfgan_med.metrics.base import Result

Labels = npt.NDArray[np.uint8]


def halves(share: float, value: int = 255) -> Labels:
    """A label map of 20 x 20 whose left part is `value`."""
    labels = np.zeros((20, 20), np.uint8)
    labels[:, : round(20 * share)] = value
    return labels


def save(root: Path, role: str, maps: list[Labels]) -> str:
    for folder in (root / role, root / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    for i, labels in enumerate(maps):
        Image.fromarray(labels).save(root / role / f"{i:02}.png")
        Image.fromarray(np.full((20, 20), i, np.uint8)).save(root / "images" / f"{i:02}.png")
    return str(root)


def by_name(results: tuple[Result, ...]) -> dict[str, Result]:
    return {result.metric: result for result in results}


def test_masks_of_a_half_and_a_quarter_are_a_quarter_apart(tmp_path: Path) -> None:
    real = save(tmp_path / "real", "masks", [halves(0.5)] * 6)
    fake = save(tmp_path / "fake", "masks", [halves(0.25)] * 4)
    comparison = label_maps.compare(real, fake)
    found = by_name(comparison.results)
    distance = found["label_share_emd[foreground]"]
    assert distance.value == pytest.approx(0.25)
    assert (distance.count_real, distance.count_fake) == (6, 4)
    assert found["label_share[foreground]"].value == pytest.approx(0.25)
    assert found["label_share[foreground]"].reference == pytest.approx(0.5)
    assert distance.protocol == "labels (masks)"


def test_a_folder_of_generated_masks_counts_as_masks(tmp_path: Path) -> None:
    real = save(tmp_path / "real", "masks", [halves(0.5)] * 4)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(4):
        Image.fromarray(halves(0.5)).save(flat / f"{i}.png")
    found = by_name(label_maps.compare(real, str(flat)).results)
    assert found["label_share_emd[foreground]"].value == pytest.approx(0.0)


def test_label_maps_have_a_number_or_a_name_for_each_class(tmp_path: Path) -> None:
    real = save(tmp_path / "real", "labels", [halves(0.5, 1), halves(0.5, 2)])
    fake = save(tmp_path / "fake", "labels", [halves(0.5, 1), halves(0.5, 1)])
    found = by_name(label_maps.compare(real, fake).results)
    assert found["label_presence[2]"].value == 0.0
    assert found["label_presence[2]"].reference == 0.5
    named = by_name(label_maps.compare(real, fake, names=("ground", "nucleus", "cell")).results)
    assert named["label_presence[cell]"].value == 0.0
    with pytest.raises(UserError, match="--names has 2 names .* hold 3 classes"):
        label_maps.compare(real, fake, names=("ground", "nucleus"))


def test_pictures_are_no_masks(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    gradient = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1))
    for i in range(3):
        Image.fromarray(gradient).save(folder / f"{i}.png")
    with pytest.raises(DataError, match=r"0\.png"):
        label_maps.compare(str(folder), str(folder))


def test_histograms_of_every_class_are_drawn(tmp_path: Path) -> None:
    real = save(tmp_path / "real", "masks", [halves(0.5), halves(0.3)])
    comparison = label_maps.compare(real, real)
    path = label_maps.draw(comparison, tmp_path / "figures")
    with Image.open(path) as figure:
        assert figure.width > 300
