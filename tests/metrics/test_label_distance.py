"""Label maps apart: other libraries' values, small maps by hand, false alarms of the test."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.metrics.base import Measured
from tfgan_med.metrics.label_distance import (
    LabelDistance,
    LabelStatistics,
    compare,
    describe,
    emd,
    gaussian_kl,
)

Golden = Mapping[str, npt.NDArray[Any]]
NAMES = ("background", "defect")


def mask(rows: list[str]) -> npt.NDArray[np.int64]:
    """`#` is 1, a digit itself, anything else 0."""
    values = {"#": 1}
    return np.array([[values.get(c, int(c) if c.isdigit() else 0) for c in row] for row in rows])


def spots(count: int, seed: int, low: int = 2, high: int = 7) -> list[LabelStatistics]:
    """Masks with a few squares each."""
    generator = np.random.default_rng(seed)
    described = []
    for _ in range(count):
        labels = np.zeros((32, 32), np.uint8)
        for _ in range(generator.integers(1, 4)):
            y, x = generator.integers(0, 24, 2)
            side = generator.integers(low, high)
            labels[y : y + side, x : x + side] = 1
        described.append(describe(labels, 2))
    return described


def by_name(measured: list[Measured]) -> dict[str, Measured]:
    json.dumps([one.details for one in measured], allow_nan=False)
    return {one.name: one for one in measured}


# Other libraries ----------------------------------------------------------------------------------


def test_the_exact_distance_is_that_of_scipy_and_near_that_of_histograms(golden: Golden) -> None:
    real, fake = golden["in/emd/frac/real"], golden["in/emd/frac/fake"]
    assert emd(real, fake) == pytest.approx(
        float(golden["ref/emd/frac/scipy.wasserstein"]), rel=1e-9
    )
    binned = float(golden["ref/emd/frac/scipy.wasserstein_hist50"])
    assert emd(real, fake) == pytest.approx(binned, abs=0.5 / 50)


@pytest.mark.parametrize(("neighbors", "connectivity", "count"), [(4, 1, 15), (8, 2, 13)])
def test_pieces_are_those_of_scikit_image(
    golden: Golden, neighbors: Any, connectivity: int, count: int
) -> None:
    cells = (golden["in/segdet/cells/prob_object"] >= 0.5) & (
        golden["in/segdet/cells/prob_contour"] < 0.5
    )
    described = describe(cells.astype(np.uint8), 2, neighbors=neighbors)
    expected = golden[f"ref/segdet/cells/skimage.bbox_area_conn{connectivity}"]
    assert len(described.areas) == count
    assert sorted(described.areas * cells.size) == pytest.approx(sorted(expected[:, 4]))


# By hand ------------------------------------------------------------------------------------------


def test_shares_pieces_and_areas_of_a_small_map() -> None:
    described = describe(mask(["##..", "##.#", "..#.", "2222"]), 3)
    assert described.shares == pytest.approx([6 / 16, 6 / 16, 4 / 16])
    assert described.classes_of.tolist() == [1, 1, 1, 2]
    assert described.areas * 16 == pytest.approx([4, 1, 1, 4])


def test_corners_join_pieces_only_among_eight_neighbors() -> None:
    labels = mask(["#...", ".#..", "..##", "...."])
    assert len(describe(labels, 2).areas) == 3
    assert len(describe(labels, 2, neighbors=8).areas) == 1


def test_the_background_is_taken_apart_on_request() -> None:
    labels = mask([".#.", ".#.", ".#."])
    assert len(describe(labels, 2, background=None).areas) == 3


def test_solidity_is_one_for_a_rectangle_and_less_for_an_angle() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:6, 2:9] = 1
    labels[8:18, 2:4], labels[16:18, 2:12] = 1, 1
    labels[2:4, 15:17] = 1  # 4 pixels: too small to have a shape
    solidities = describe(labels, 2).solidities
    assert solidities[0] == pytest.approx(1.0)
    assert np.isnan(solidities[1])
    assert 0.4 < solidities[2] < 0.8  # 36 of a hull of about 60 pixels


def test_a_map_of_noise_is_described_in_a_moment() -> None:
    noise = (np.random.default_rng(0).random((256, 256)) < 0.3).astype(np.uint8)
    described = describe(noise, 2)
    assert len(described.areas) > 5000
    assert np.isfinite(described.solidities).sum() <= 200


@pytest.mark.parametrize("bad", [np.full((4, 4), 255), np.full((4, 4), -1)])
def test_classes_out_of_range_are_refused_with_their_values(bad: npt.NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match=str(bad[0, 0])):
        describe(bad, 2)


def test_an_array_that_is_no_label_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4, 1\)"):
        describe(np.zeros((4, 4, 1), np.int64), 2)


# Sets ---------------------------------------------------------------------------------------------


def test_presence_and_share_are_those_of_the_maps() -> None:
    full, empty = mask(["##", ".."]), mask(["..", ".."])
    real = [describe(m, 2) for m in (full, full, full, empty)]
    fake = [describe(m, 2) for m in (full, empty, empty, empty)]
    result = by_name(compare(real, fake, NAMES, permutations=50))
    presence, share = result["label_presence[defect]"], result["label_share[defect]"]
    assert (presence.value, presence.reference) == (0.25, 0.75)
    assert (share.value, share.reference) == (0.125, 0.375)
    assert result["label_share_emd[defect]"].value == pytest.approx(0.25)  # 1/2 of 1/2 moved
    assert result["label_count_emd[defect]"].value == pytest.approx(0.5)
    only = by_name(compare(real, fake, NAMES, permutations=50, present_only=True))
    assert only["label_share_emd[defect]"].value == 0.0
    assert only["label_presence[defect]"].value == 0.25


def test_the_distance_bounds_the_difference_of_means() -> None:
    result = by_name(compare(spots(30, 0), spots(30, 1, 5, 9), NAMES, permutations=20))
    for quantity in ("share", "count", "area", "solidity"):
        one = result[f"label_{quantity}_emd[defect]"]
        assert one.value is not None
        assert one.value >= abs(one.details["mean_real"] - one.details["mean_fake"]) - 1e-12


def test_other_sizes_are_told_apart_and_equal_ones_are_not() -> None:
    real = spots(60, 0)
    other = by_name(compare(real, spots(60, 1, 4, 9), NAMES, permutations=200))
    assert other["label_area_emd[defect]"].details["p_value"] < 0.01
    same = by_name(compare(real, spots(60, 2), NAMES, permutations=200))
    one = same["label_area_emd[defect]"]
    assert one.details["p_value"] > 0.05
    assert one.value is not None and one.reference is not None
    assert one.value < 2 * one.reference


def test_the_p_value_of_equal_populations_is_rarely_small() -> None:
    """Pieces of one map are alike, which would deceive a test that shuffles pieces."""
    generator = np.random.default_rng(5)

    def alike(count: int) -> list[LabelStatistics]:
        described = []
        for _ in range(count):
            area = generator.uniform(0.001, 0.01)  # the same for the 20 pieces of a map
            pieces = np.full(20, area)
            described.append(
                LabelStatistics(
                    np.array([1 - pieces.sum(), pieces.sum()]),
                    np.ones(20, np.int64),
                    pieces,
                    np.full(20, np.nan),
                )
            )
        return described

    small = [
        by_name(compare(alike(15), alike(15), NAMES, permutations=60, seed=i))[
            "label_area_emd[defect]"
        ].details["p_value"]
        <= 0.1
        for i in range(80)
    ]
    assert np.mean(small) < 0.2  # 0.1 nominal; three standard errors of 80 repetitions


def test_identical_sets_are_at_no_distance_and_their_p_value_is_one() -> None:
    real = spots(10, 0)
    for one in compare(real, real[::-1], NAMES, permutations=30):
        if "_emd" in one.name:
            assert one.value == pytest.approx(0.0, abs=1e-15)
            assert one.details["p_value"] == 1.0


def test_nothing_to_measure_gives_none_and_says_so() -> None:
    empty = [describe(np.zeros((8, 8), np.uint8), 2) for _ in range(5)]
    result = by_name(compare(spots(5, 0), empty, NAMES, permutations=10))
    assert result["label_presence[defect]"].value == 0.0
    area = result["label_area_emd[defect]"]
    assert area.value is None
    assert "the generated label maps" in area.notes[0]
    nothing = by_name(compare(empty, empty, NAMES, permutations=10, present_only=True))
    assert nothing["label_share_emd[defect]"].value is None
    assert nothing["label_share[defect]"].value is None


def test_few_real_maps_have_no_reference() -> None:
    result = by_name(compare(spots(3, 0), spots(5, 1), NAMES, permutations=0))
    one = result["label_share_emd[defect]"]
    assert one.reference is None
    assert "p_value" not in one.details


def test_sides_without_maps_and_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="no generated label maps"):
        compare(spots(3, 0), [], NAMES)
    with pytest.raises(ValueError, match="described with \\[2\\] classes, but 3"):
        compare(spots(3, 0), spots(3, 0), ("a", "b", "c"))


def test_the_divergence_of_gaussians_has_its_closed_form() -> None:
    real = np.array([0.1, 0.3])  # mean 0.2, deviation 0.1
    fake = np.array([0.2, 0.6])  # mean 0.4, deviation 0.2
    expected = np.log(2.0) + (0.01 + 0.04) / 0.08 - 0.5
    assert gaussian_kl(real, fake) == pytest.approx(expected)
    assert gaussian_kl(real, real) == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(gaussian_kl(real, np.array([0.2, 0.2])))


def test_settings_name_what_the_functions_take() -> None:
    settings = LabelDistance(neighbors=8, background=None)
    assert (settings.permutations, settings.present_only) == (500, False)


def test_real_smears_are_alike_and_skin_is_not(shared: Path) -> None:
    def described(name: str, split: str, count: int) -> list[LabelStatistics]:
        with (shared / "data" / name / "splits.csv").open() as table:
            rows = [row for row in csv.DictReader(table) if row["split"] == split]
        masks = []
        for row in rows[:count]:
            stem = Path(row["file"]).stem
            picture = Image.open(shared / "data" / name / "masks" / f"{stem}.png").convert("L")
            masks.append((np.asarray(picture.resize((160, 120), 0)) > 127).astype(np.uint8))
        return [describe(one, 2) for one in masks]

    train = described("rbc-smear", "train", 19)
    result = by_name(compare(train, described("rbc-smear", "test", 19), NAMES, permutations=200))
    assert result["label_share_emd[defect]"].details["p_value"] > 0.01
    skin = described("skin-isic2017", "train", 19)
    other = by_name(compare(train, skin, NAMES, permutations=200))
    assert other["label_count_emd[defect]"].details["p_value"] < 0.02
