"""CID: worked values, closed forms, classes, both forms of similarity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.cid import (
    CID,
    diversity,
    glcm_contrast,
    gray_levels,
    inheritance,
    leader_clusters,
    remaining,
    scores,
)
from tfgan_med.ops.ssim import similarity_matrix

Array = npt.NDArray[Any]
Golden = Mapping[str, Array]


def read(path: Path, size: int) -> Array:
    picture: Any = cv2.imread(str(path))
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


class Pixels:
    """Mean pixels as embeddings, so that distances are known."""

    def embed(self, pictures: Array) -> Array:
        return pictures[:, :1, :1, 0].reshape(-1, 1).astype(np.float32) / 100.0


def noise(count: int, seed: int = 0, side: int = 24) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def even(*values: int) -> Array:
    return np.stack([np.full((16, 16, 3), value, np.uint8) for value in values])


def side(pictures: Array, classes: tuple[str, ...] | None = None) -> Side:
    names = tuple(f"{i}.png" for i in range(len(pictures)))
    return Side("set", names, pictures=pictures, kept=np.arange(len(pictures)), classes=classes)


def values(found: dict[str, Measured], *names: str) -> Array:
    return np.array([found[f"cid_{name}"].value for name in names], np.float64)


def measured(
    real: Side, fake: Side, context: Context | None = None, **settings: Any
) -> dict[str, Measured]:
    found = CID(**settings).measure(real, fake, context or Context())
    for one in found:
        json.dumps(asdict(one), allow_nan=False)
    return {one.name: one for one in found}


# Worked values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["rgb32", "nocopy"])
@pytest.mark.parametrize("which", ["real", "fake"])
def test_contrast_equals_that_of_scikit_image(golden: Golden, case: str, which: str) -> None:
    gray = gray_levels(golden[f"in/cid/{case}/{which}"])
    np.testing.assert_array_equal(gray, golden[f"ref/cid/{case}/input_gray_{which}"])
    expected = golden[f"ref/cid/{case}/skimage.glcm_contrast_{which}"]
    np.testing.assert_allclose(glcm_contrast(gray), expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(glcm_contrast(gray, angles=4), expected.mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("variant", ["ssim", "ssim_wang"])
@pytest.mark.parametrize("case", ["rgb32", "nocopy"])
def test_scores_of_stored_similarities_equal_the_worked_values(
    golden: Golden, case: str, variant: str
) -> None:
    key = f"ref/cid/{case}"
    found = scores(
        golden[f"{key}/skimage.{variant}_fake_real"],
        golden[f"{key}/skimage.{variant}_fake_fake"],
        golden[f"{key}/skimage.glcm_contrast_real"][:, 0],
        golden[f"{key}/skimage.glcm_contrast_fake"][:, 0],
        0.8,
        np.arange(9),
    )
    np.testing.assert_allclose(
        [found.creativity, found.inheritance, found.diversity, found.cid],
        golden[f"{key}/worked.{variant}_c_i_d_cid"],
        rtol=1e-7,
    )
    assert found.clusters == len(golden[f"{key}/worked.{variant}_cluster_sizes"])


@pytest.mark.parametrize("case", ["rgb32", "nocopy"])
def test_the_metric_gives_the_worked_values_from_pictures(golden: Golden, case: str) -> None:
    """No cluster of these depends on the order."""
    found = measured(side(golden[f"in/cid/{case}/real"]), side(golden[f"in/cid/{case}/fake"]))
    expected = golden[f"ref/cid/{case}/worked.ssim_wang_c_i_d_cid"]
    parts = values(found, "creativity", "inheritance", "diversity")
    np.testing.assert_allclose(parts, expected[:3], atol=1e-4)
    assert found["cid"].value == pytest.approx(expected[3], abs=1e-4)


def test_an_independent_implementation_agrees_where_it_defines_the_same(golden: Golden) -> None:
    found = measured(side(golden["in/cid/nocopy/real"]), side(golden["in/cid/nocopy/fake"]))
    expected = golden["ref/cid/nocopy/artgenerator.creativity_inheritance_diversity"]
    parts = values(found, "creativity", "inheritance", "diversity")
    np.testing.assert_allclose(parts, expected, atol=1e-4)

    with_copy = measured(side(golden["in/cid/rgb32/real"]), side(golden["in/cid/rgb32/fake"]))
    expected = golden["ref/cid/rgb32/artgenerator.creativity_inheritance"]
    parts = values(with_copy, "creativity", "inheritance")
    np.testing.assert_allclose(parts, expected, atol=1e-4)


# Closed forms -------------------------------------------------------------------------------------


def test_inheritance_compares_means() -> None:
    assert inheritance(np.array([2.0, 6.0]), np.array([3.0])) == pytest.approx(0.75)
    assert inheritance(np.array([3.0]), np.array([4.0])) == pytest.approx(0.75)
    assert inheritance(np.zeros(2), np.zeros(3)) == 1.0
    assert inheritance(np.ones(2), np.zeros(0)) == 0.0


def test_clusters_follow_the_leaders_in_order() -> None:
    """0 and 1 are alike, 1 and 2 too, 0 and 2 not: 1 as a leader has both, 0 has one."""
    alike = np.eye(3, dtype=bool)
    alike[0, 1] = alike[1, 0] = alike[1, 2] = alike[2, 1] = True
    assert leader_clusters(alike, np.array([0, 1, 2])).tolist() == [2, 1]
    assert leader_clusters(alike, np.array([1, 0, 2])).tolist() == [3]
    assert leader_clusters(alike, np.array([2, 0])).tolist() == [1, 1]


def test_diversity_is_the_entropy_of_clusters() -> None:
    assert diversity(np.array([1, 1, 1, 1])) == pytest.approx(math.log(4))
    assert diversity(np.array([7])) == 0.0
    assert diversity(np.array([3, 1])) == pytest.approx(
        -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    )


def test_near_copies_are_removed_at_the_threshold_itself() -> None:
    assert remaining(np.array([[0.1, 0.8], [0.1, 0.79]]), 0.8).tolist() == [False, True]


def test_copies_have_no_creativity_and_the_rest_is_zero() -> None:
    found = measured(side(noise(6)), side(noise(6)[[2, 0, 1]]))
    assert [one.value for one in found.values()] == [0.0] * 5
    assert "near copies" in found["cid"].notes[0]


def test_different_noise_is_creative_and_as_diverse_as_can_be() -> None:
    found = measured(side(noise(8)), side(noise(12, seed=1)))
    assert found["cid_creativity"].value == 1.0
    assert found["cid_diversity"].value == pytest.approx(math.log(12))
    assert found["cid_diversity_normalized"].value == pytest.approx(1.0)
    assert found["cid_inheritance"].value == pytest.approx(1.0, abs=0.05)


def test_one_picture_repeated_has_no_diversity() -> None:
    found = measured(side(noise(4)), side(np.repeat(noise(1, seed=9), 5, axis=0)))
    assert found["cid_creativity"].value == 1.0
    assert found["cid_diversity"].value == 0.0
    assert found["cid"].value == 0.0


def test_contrast_of_steps_is_their_square() -> None:
    """Columns 0, 10, 20, ...: every horizontal neighbour is 10 away, every vertical one 0."""
    ramp = np.tile(np.arange(16) * 10, (16, 1)).astype(np.uint8)[None]
    assert glcm_contrast(ramp) == pytest.approx([100.0])
    assert glcm_contrast(ramp, angles=4) == pytest.approx([75.0])


# The metric ---------------------------------------------------------------------------------------


def test_classes_are_measured_one_by_one() -> None:
    """Class a is copied from a, class b is noise; a copy of another class is no copy."""
    real, classes = noise(8), ("a",) * 4 + ("b",) * 4
    fake = np.concatenate([real[:4], real[:4]])
    found = measured(side(real, classes), side(fake, classes))
    by_class = found["cid"].details["by_class"]
    assert by_class["a"]["creativity"] == 0.0
    assert by_class["b"]["creativity"] == 1.0
    assert found["cid_creativity"].value == 0.5
    assert found["cid"].settings["classes"] == ["a", "b"]
    regardless = measured(side(real, classes), side(fake, classes), by_class=False)
    assert regardless["cid_creativity"].value == 0.0


def test_classes_of_one_side_only_are_named() -> None:
    found = measured(side(noise(4), ("a", "a", "b", "b")), side(noise(2, seed=1), ("a", "a")))
    assert any("one side only are left out: b" in note for note in found["cid"].notes)


@pytest.mark.parametrize("fake_classes", [("c", "c", "c", "d"), None])
def test_sets_without_a_common_class_are_compared_as_a_whole(
    fake_classes: tuple[str, ...] | None,
) -> None:
    """A real set with class folders against a flat generated one is the usual case."""
    real, fake, classes = noise(6), noise(6)[[0, 1, 2, 4]], ("a", "a", "a", "b", "b", "b")
    found = measured(side(real, classes), side(fake, fake_classes))
    assert found["cid_creativity"].value == 0.0  # copies, found whatever their class
    assert found["cid"].settings["classes"] is None
    flat = measured(side(real), side(fake))
    assert {name: one.reference for name, one in found.items()} == {
        name: one.reference for name, one in flat.items()
    }
    theirs = "c, d" if fake_classes else "none"
    assert any(f"real a, b; generated {theirs}" in note for note in found["cid"].notes)
    with pytest.raises(ValueError, match=f"both sets have: real a, b; generated {theirs}"):
        measured(side(real, classes), side(fake, fake_classes), by_class=True)


def test_a_class_may_have_any_name() -> None:
    pictures, classes = noise(4), ("all", "all", "none", "none")
    found = measured(side(pictures, classes), side(noise(4, seed=1), classes))
    assert sorted(found["cid"].details["by_class"]) == ["all", "none"]


def test_the_sweep_repeats_the_scores_at_other_thresholds(golden: Golden) -> None:
    real, fake = golden["in/cid/rgb32/real"], golden["in/cid/rgb32/fake"]
    sweep = measured(side(real), side(fake))["cid"].details["sweep"]
    assert [row["threshold"] for row in sweep] == [0.6, 0.7, 0.8, 0.9, 0.95]
    creativity = [row["creativity"] for row in sweep]
    assert creativity == sorted(creativity)
    direct = measured(side(real), side(fake), threshold=0.6, sweep=False)
    assert sweep[0]["cid"] == pytest.approx(direct["cid"].value)
    assert direct["cid"].details["sweep"] == []


def test_the_lpips_form_turns_the_threshold_around() -> None:
    """Embeddings 0, 1, 2 and 0.1, 1.5, 1.6; distances are squared: near copy at 0.2 or less."""
    real, fake = even(0, 100, 200), even(10, 150, 160)
    metric = {"similarity": "lpips", "sweep": False}
    found = measured(side(real), side(fake), Context(perceptual=Pixels()), **metric)
    # 0.1 is 0.01 from 0; 1.5 is 0.25 from 1 and 2; 1.6 is 0.16 from 2: one of three remains
    assert found["cid_creativity_lpips"].value == pytest.approx(1 / 3)
    assert found["cid_lpips"].uses == "perceptual"
    # at 0.15 both remain, 0.01 apart: one cluster
    found = measured(side(real), side(fake), Context(perceptual=Pixels()), threshold=0.15, **metric)
    assert found["cid_creativity_lpips"].value == pytest.approx(2 / 3)
    assert found["cid_diversity_lpips"].value == 0.0


def test_only_the_lpips_form_needs_a_network() -> None:
    assert CID().required() == {"pictures"}
    assert CID(similarity="lpips").required() == {"pictures", "perceptual"}


def test_the_reference_are_held_out_pictures_or_halves() -> None:
    real, fake = side(noise(8)), side(noise(6, seed=1))
    halves = measured(real, fake)["cid_diversity"]
    assert halves.reference == pytest.approx(math.log(4))
    assert "4 each" in halves.reference_of
    held_out = measured(real, fake, Context(held_out=side(noise(20, seed=2))))["cid_diversity"]
    assert held_out.reference == pytest.approx(math.log(6))
    assert held_out.reference_of.startswith("6 held-out")
    assert measured(side(noise(1)), fake)["cid"].reference is None


def test_a_sample_bounds_the_work_and_is_counted() -> None:
    found = measured(side(noise(9)), side(noise(7, seed=1)), images=5)
    assert (found["cid"].count_real, found["cid"].count_fake) == (5, 5)
    interval = found["cid_creativity"].interval
    assert interval is not None
    assert interval.low == pytest.approx(0.5655, abs=1e-3)  # Wilson, 5 of 5
    assert interval.high == 1.0


def test_flat_pictures_have_defined_scores() -> None:
    found = measured(side(even(0, 0)), side(even(255, 255, 128)))
    assert found["cid_inheritance"].value == 1.0
    assert all(one.value is not None and math.isfinite(one.value) for one in found.values())


def test_an_empty_side_is_named() -> None:
    with pytest.raises(ValueError, match="0 real and 2 generated"):
        measured(side(noise(0)), side(noise(2)))


def test_noise_on_copies_of_real_pictures_raises_creativity(shared: Path) -> None:
    paths = sorted((shared / "data/skin-isic2017").rglob("*.jpg"))[:8]
    real = np.stack([read(p, 64) for p in paths])
    grain = np.random.default_rng(0).normal(size=real.shape)
    creativity = []
    for strength in (0, 5, 12, 60):
        fake = np.clip(real + grain * strength, 0, 255).astype(np.uint8)
        creativity.append(remaining(similarity_matrix(fake, real), 0.8).mean())
    assert creativity == sorted(creativity)
    assert creativity[0] == 0.0
    assert creativity[-1] == 1.0
