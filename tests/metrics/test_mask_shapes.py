"""Shapes of masks: figures with known shape, distances by hand, real masks whole and broken."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.stats import wasserstein_distance
from skimage.draw import disk, rectangle

from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation import mask_shapes as reading
from tfgan_med.metrics.base import Measured, Result
from tfgan_med.metrics.mask_shapes import MaskShape, MaskShapes, compare, describe, wasserstein

Mask = npt.NDArray[np.uint8]
draw_disk: Any = disk  # scikit-image has no types
draw_rectangle: Any = rectangle


def disc(radius: float, size: int = 128) -> Mask:
    mask = np.zeros((size, size), np.uint8)
    mask[draw_disk((size / 2, size / 2), radius)] = 1
    return mask


def blobs(count: int, seed: int, low: float = 8.0, high: float = 20.0) -> list[MaskShape]:
    """Discs of random size, some with a second one."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        mask = np.zeros((64, 64), np.uint8)
        mask[draw_disk((32, 32), generator.uniform(low, high))] = 1
        if generator.random() < 0.2:
            mask[2:6, 2:6] = 1
        found.append(describe(mask))
    return found


def by_name(measured: list[Measured]) -> dict[str, Measured]:
    json.dumps([one.details for one in measured], allow_nan=False)
    return {one.name: one for one in measured}


# One mask -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [12, 25, 50])
def test_a_disc_has_compactness_and_solidity_one(radius: int) -> None:
    shape = describe(disc(radius))
    assert shape.compactness == pytest.approx(1.0, abs=0.04)
    assert shape.solidity == pytest.approx(1.0, abs=0.04)
    assert shape.area == pytest.approx(np.pi * radius**2 / 128**2, rel=0.05)
    assert (shape.components, shape.largest_share) == (1, 1.0)


def test_a_long_bar_is_less_compact_than_a_square_and_both_are_solid() -> None:
    square, bar = np.zeros((2, 100, 100), np.uint8)
    square[20:60, 20:60] = 1
    bar[40:50, 2:98] = 1
    # Cauchy: the perimeter of a convex figure is π times its mean width, here of four directions
    for mask, height, width in ((square, 40, 40), (bar, 10, 96)):
        diagonal = (height + width - 1) / np.sqrt(2)
        perimeter = np.pi * (height + width + 2 * diagonal) / 4
        expected = 4 * np.pi * height * width / perimeter**2
        assert describe(mask).compactness == pytest.approx(expected)
    assert describe(bar).compactness < 0.35 < 0.85 < describe(square).compactness
    assert describe(square).solidity == describe(bar).solidity == 1.0


def test_a_plus_fills_five_sevenths_of_its_hull() -> None:
    plus = np.zeros((90, 90), np.uint8)
    plus[30:60, :] = plus[:, 30:60] = 1
    assert describe(plus).solidity == pytest.approx(5 / 7, abs=0.01)


def test_a_hole_makes_a_disc_less_compact() -> None:
    ring = disc(40)
    ring[draw_disk((64, 64), 20)] = 0
    # area π (40² - 20²), perimeter 2π (40 + 20): 1200 / 60²
    assert describe(ring).compactness == pytest.approx(1 / 3, abs=0.02)
    assert describe(ring).solidity == pytest.approx(0.75, abs=0.02)


def test_pieces_that_meet_at_a_corner_are_one_with_eight_neighbors_and_two_with_four() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:8, 2:8] = mask[8:11, 8:11] = 255
    assert describe(mask).components == 1
    four = describe(mask, neighbors=4)
    assert four.components == 2
    assert four.largest_share == pytest.approx(36 / 45)
    assert four.solidity == 1.0  # of the larger square alone


def test_an_empty_mask_has_no_shape_and_specks_none_either() -> None:
    empty = describe(np.zeros((8, 8), np.uint8))
    assert (empty.area, empty.components) == (0.0, 0)
    assert np.isnan([empty.compactness, empty.solidity, empty.largest_share]).all()
    speck = np.zeros((8, 8), np.uint8)
    speck[0, 0] = speck[4, 4] = 1
    assert describe(speck).components == 2
    assert describe(speck).largest_share == 0.5
    assert np.isnan(describe(speck).solidity)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4, 1), np.uint8), r"\(4, 4, 1\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
        (np.array([[0, 1, 2]], np.uint8), "values 1 and 2"),
    ],
)
def test_what_is_no_mask_is_refused(mask: Mask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(mask)


# Two sets -----------------------------------------------------------------------------------------


def test_the_distance_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for n, m in ((1, 1), (7, 30), (200, 50)):
        ours, theirs = generator.normal(size=n), generator.exponential(size=m).round(1)
        assert wasserstein(ours, theirs) == pytest.approx(wasserstein_distance(ours, theirs))
    with pytest.raises(ValueError, match="both sides"):
        wasserstein(np.empty(0), np.ones(2))


def test_a_shift_by_two_deviations_is_a_distance_of_two() -> None:
    areas = np.linspace(0.1, 0.5, 21)
    unit = areas.std()
    real = [MaskShape(area, 1, 0.9, 0.9, 1.0) for area in areas]
    fake = [MaskShape(area + 2 * unit, 1, 0.9, 0.9, 1.0) for area in areas]
    found = by_name(compare(real, fake))
    area = found["mask_area_distance"]
    assert area.value == pytest.approx(2.0)
    assert area.details["distance_own_unit"] == pytest.approx(2 * unit)
    assert area.details["p_value"] == pytest.approx(1 / 1001)
    assert area.interval is not None
    assert 0.5 < area.interval.low < 2.0 < area.interval.high
    assert found["mask_area"].value == pytest.approx(0.3 + 2 * unit)
    assert found["mask_area"].reference == pytest.approx(0.3)
    assert found["mask_area"].spread == pytest.approx(unit)
    assert found["mask_area"].details["standard_deviation_real"] == pytest.approx(unit)


def test_statistics_that_all_real_masks_share_are_told_in_their_own_unit() -> None:
    real = [MaskShape(0.1 + i / 100, 1, 0.9, 0.9, 1.0) for i in range(12)]
    fake = [MaskShape(0.1 + i / 100, 3, 0.9, 0.9, 1.0) for i in range(12)]
    components = by_name(compare(real, fake))["mask_components_distance"]
    assert components.value == 2.0
    assert components.settings["unit"] == "own"
    assert "all real masks have 1" in components.notes[0]


def test_sets_of_one_kind_are_no_farther_than_halves_and_their_intervals_begin_at_zero() -> None:
    alarms = 0
    for seed in range(10):
        found = by_name(
            compare(
                blobs(60, 2 * seed), blobs(60, 2 * seed + 1), settings=MaskShapes(resamples=200)
            )
        )
        area = found["mask_area_distance"]
        assert area.interval is not None and area.reference is not None and area.value is not None
        alarms += area.interval.low > 0
        assert area.value < 3 * area.reference
    assert alarms <= 2  # 10 tests of 5 %


def test_larger_discs_are_told_from_smaller_ones() -> None:
    found = by_name(compare(blobs(60, 0), blobs(60, 1, 14.0, 24.0)))
    area = found["mask_area_distance"]
    assert area.interval is not None and area.reference is not None and area.value is not None
    assert area.value > 3 * area.reference
    assert area.interval.low > 0
    assert area.details["p_value"] < 0.01


def test_valid_masks_show_something_in_as_many_pieces_and_as_large_as_real_ones() -> None:
    real = [MaskShape(0.1 + i / 100, 1 + i % 2, 0.9, 0.9, 1.0) for i in range(11)]
    nothing = MaskShape(0.0, 0, np.nan, np.nan, np.nan)
    fake = [
        MaskShape(0.15, 1, 0.9, 0.9, 1.0),
        MaskShape(0.20, 2, 0.9, 0.9, 1.0),
        MaskShape(0.15, 3, 0.9, 0.9, 1.0),
        MaskShape(0.21, 1, 0.9, 0.9, 1.0),
        nothing,
    ]
    found = by_name(compare(real, fake))
    validity = found["mask_validity"]
    assert validity.value == pytest.approx(2 / 5)
    assert validity.details["area_range"] == pytest.approx([0.1, 0.2])
    assert validity.details["components_range"] == [1, 2]
    wrong = [validity.details[f"wrong_{name}"] for name in ("empty", "components", "area")]
    assert wrong == pytest.approx([0.2, 0.2, 0.2])
    assert validity.interval is not None
    assert validity.interval.low < 0.4 < validity.interval.high
    assert found["mask_empty_share"].value == pytest.approx(0.2)
    assert found["mask_empty_share"].reference == 0.0
    assert found["mask_solidity_distance"].count_fake == 4


def test_one_odd_real_mask_of_many_does_not_make_all_valid() -> None:
    real = [MaskShape(0.2 + i / 1000, 1, 0.9, 0.9, 1.0) for i in range(400)]
    real[0] = MaskShape(0.9, 50, 0.9, 0.9, 1.0)
    fake = [MaskShape(0.9, 50, 0.9, 0.9, 1.0)]
    assert by_name(compare(real, fake))["mask_validity"].value == 0.0
    everything = MaskShapes(central=1.0, resamples=0)
    assert by_name(compare(real, fake, settings=everything))["mask_validity"].value == 1.0


def test_only_empty_generated_masks_leave_shapes_undefined_and_only_empty_real_ones_fail() -> None:
    empty = [describe(np.zeros((8, 8), np.uint8))] * 12
    found = by_name(compare(blobs(12, 0), empty))
    assert found["mask_solidity_distance"].value is None
    assert "no generated mask" in found["mask_solidity_distance"].notes[0]
    assert found["mask_validity"].value == 0.0
    assert found["mask_empty_share"].value == 1.0
    with pytest.raises(ValueError, match="All 12 real masks are empty"):
        compare(empty, blobs(12, 0))
    with pytest.raises(ValueError, match="no generated masks"):
        compare(empty, [])


def test_few_masks_have_no_interval_and_seeds_repeat() -> None:
    few = by_name(compare(blobs(8, 0), blobs(8, 1)))["mask_area_distance"]
    assert few.interval is None
    first, second, other = (
        by_name(compare(blobs(15, 0), blobs(15, 1), seed=s))["mask_area_distance"]
        for s in (3, 3, 4)
    )
    assert first == second
    assert first.interval != other.interval
    quick = compare(blobs(15, 0), blobs(15, 1), settings=MaskShapes(resamples=0))
    assert "p_value" not in by_name(quick)["mask_area_distance"].details


# Folders ------------------------------------------------------------------------------------------


def save(folder: Path, masks: list[Mask]) -> str:
    folder.mkdir(parents=True)
    for i, mask in enumerate(masks):
        Image.fromarray(mask * np.uint8(255)).save(folder / f"{i:02}.png")
    return str(folder)


def by_metric(results: tuple[Result, ...]) -> dict[str, Result]:
    return {result.metric: result for result in results}


def test_masks_are_found_beside_pictures_alone_and_as_flat_folders(tmp_path: Path) -> None:
    masks = [disc(10 + i, 64) for i in range(6)]
    save(tmp_path / "paired" / "images", masks)
    save(tmp_path / "paired" / "masks", masks)
    save(tmp_path / "alone" / "masks", masks)
    flat = save(tmp_path / "flat", masks)
    for fake in (str(tmp_path / "alone"), flat):
        found = by_metric(reading.compare(str(tmp_path / "paired"), fake))
        assert found["mask_area_distance"].value == 0.0
        assert found["mask_validity"].value == 1.0
        assert found["mask_area"].protocol == "masks (masks)"
        assert found["mask_area"].image_size == (64, 64)
    assert reading.why_not(str(tmp_path / "paired"), str(tmp_path / "alone")) == ""
    assert f"{flat} has no masks, but images." in reading.why_not(str(tmp_path / "paired"), flat)


def test_masks_of_two_sizes_are_noted_and_can_be_brought_to_one(tmp_path: Path) -> None:
    real = save(tmp_path / "real" / "masks", [disc(12 + i, 64) for i in range(6)])
    fake = save(tmp_path / "fake" / "masks", [disc(24 + 2 * i, 128) for i in range(6)])
    real, fake = (str(Path(path).parent) for path in (real, fake))
    mixed = by_metric(reading.compare(real, fake))
    assert any("--resize 64" in note for note in mixed["mask_components"].notes)
    same = by_metric(reading.compare(real, fake, resize=64))
    assert same["mask_area"].settings["resize"] == "64 (crop)"
    assert same["mask_area"].image_size == (64, 64)
    assert not same["mask_area"].notes
    assert same["mask_area_distance"].value == pytest.approx(0.0, abs=0.15)


def test_label_maps_and_pictures_are_no_masks(tmp_path: Path) -> None:
    masks = [disc(10 + i, 64) for i in range(4)]
    save(tmp_path / "real" / "masks", masks)
    labels = [mask + (mask > 0) for mask in masks]
    (tmp_path / "maps" / "labels").mkdir(parents=True)
    for i, label in enumerate(labels):
        Image.fromarray(label).save(tmp_path / "maps" / "labels" / f"{i}.png")
    with pytest.raises(UserError, match="evaluate labels"):
        reading.compare(str(tmp_path / "maps"), str(tmp_path / "real"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).save(
        pictures / "0.png"
    )
    with pytest.raises(DataError, match=r"its pictures are no masks: .*0\.png"):
        reading.compare(str(tmp_path / "real"), str(pictures))


def test_real_masks_are_near_each_other_and_far_from_speckled_ones(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "data" / "skin-isic2017-masks"
    with (source / "splits.csv").open() as stream:
        rows = [row["file"] for row in csv.DictReader(stream) if row["split"] == "train"][::4]
    generator = np.random.default_rng(0)
    for kind in ("honest", "speckled"):
        (tmp_path / kind / "masks").mkdir(parents=True)
        for name in rows:
            mask = np.asarray(Image.open(source / name))
            if kind == "speckled":
                mask = np.where(generator.random(mask.shape) < 0.01, 255, mask).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / kind / name)
    honest, speckled = (
        by_metric(reading.compare(str(source), str(tmp_path / kind)))
        for kind in ("honest", "speckled")
    )
    for name in ("area", "compactness", "solidity"):
        span = honest[f"mask_{name}_distance"].interval
        assert span is not None and span.low == 0.0
    assert (honest["mask_validity"].value or 0) > 0.8
    assert speckled["mask_validity"].value == 0.0
    assert (speckled["mask_components_distance"].value or 0) > 50
    assert honest["mask_area"].real.endswith("(test)")


def test_the_command_prints_every_number_and_notes_them_in_a_table(
    cli: Any, tmp_path: Path
) -> None:
    for name, low in (("real", 10), ("fake", 14)):
        save(tmp_path / name / "masks", [disc(low + i, 64) for i in range(12)])
    told = ("evaluate", "mask-shapes", "--real", "real", "--fake", "fake", "--csv", "all.csv")
    done = cli(*told, "--json", "--set", "resamples=100", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {row["metric"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert len(found) == 12
    assert found["mask_area_distance"]["value"] > 0.5
    assert found["mask_area_distance"]["interval"]["repeats"] == 100
    assert found["mask_area_distance"]["details"]["p_value"] <= 0.05
    with (tmp_path / "all.csv").open() as stream:
        assert {row["metric"] for row in csv.DictReader(stream)} == set(found)
    refused = cli(*told, "--plots", "figures", cwd=tmp_path)
    assert refused.returncode == 2 and "--plots" in refused.stderr
