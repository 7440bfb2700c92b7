"""MS-SSIM diversity: mean over pairs, by class, beside the real pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.ms_ssim import MSSSIM, diversity, pair_similarities
from tfgan_med.ops.pairs import distinct_pairs
from tfgan_med.ops.ssim import ms_ssim

Array = npt.NDArray[Any]


def read(path: Path, size: int) -> Array:
    picture: Any = cv2.imread(str(path))
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def noise(count: int, side: int = 24, seed: int = 0, channels: int = 3) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def side(pictures: Array, classes: tuple[str, ...] | None = None) -> Side:
    names = tuple(f"{i}.png" for i in range(len(pictures)))
    return Side("set", names, pictures=pictures, kept=np.arange(len(pictures)), classes=classes)


def measured(real: Side, fake: Side, **settings: Any) -> Measured:
    (found,) = MSSSIM(**settings).measure(real, fake, Context())
    json.dumps(asdict(found), allow_nan=False)
    return found


def test_pairs_have_their_ms_ssim() -> None:
    pictures = noise(5, 48)
    pairs = distinct_pairs(5)
    expected = ms_ssim(pictures[pairs[:, 0]], pictures[pairs[:, 1]])
    np.testing.assert_allclose(pair_similarities(pictures, pairs), expected, atol=1e-6)


def test_copies_have_no_diversity_and_noise_has_most() -> None:
    copies = np.repeat(noise(1), 12, axis=0)
    assert diversity(copies).mean == pytest.approx(1.0, abs=1e-6)
    assert diversity(copies).error == pytest.approx(0.0, abs=1e-6)
    assert diversity(noise(12)).mean < 0.1


def test_the_name_has_the_scales_and_the_interval_holds_the_value() -> None:
    found = measured(side(noise(12, seed=1)), side(noise(12)))
    assert found.name == "ms_ssim_diversity_S2"
    assert found.uses == ""
    assert found.interval is not None
    assert found.value is not None
    assert found.interval.low <= found.value <= found.interval.high
    assert measured(side(noise(3, 44)), side(noise(3, 44)), scales=1).name.endswith("S1")


def test_less_similar_than_real_pictures_is_no_merit() -> None:
    alike = np.repeat(noise(1), 12, axis=0)
    found = measured(side(alike), side(noise(12)))
    assert found.better == "neither"
    assert "no merit" in found.notes[0]
    assert measured(side(noise(12)), side(alike)).better == "lower"


def test_values_are_means_over_classes() -> None:
    """Class a repeats one picture (1), class b is noise (0): pairs across do not count."""
    pictures = np.concatenate([np.repeat(noise(1), 11, axis=0), noise(11, seed=3)])
    classes = ("a",) * 11 + ("b",) * 11
    found = measured(side(pictures, classes), side(pictures, classes))
    by_class = found.details["by_class"]
    assert by_class["a"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert found.value == pytest.approx((by_class["a"]["value"] + by_class["b"]["value"]) / 2)
    assert found.value == pytest.approx(found.reference)
    assert found.settings["classes"] == ["a", "b"]
    assert found.interval is not None

    across = measured(side(pictures, classes), side(pictures, classes), by_class=False)
    assert across.value is not None
    assert across.value < 0.4
    assert across.details["by_class"] == {}


def test_classes_with_one_picture_are_left_out_and_named() -> None:
    pictures, classes = noise(5), ("a", "a", "a", "b", "b")
    found = measured(side(pictures, classes), side(pictures[:4], classes[:4]))
    assert list(found.details["by_class"]) == ["a"]
    assert "b: fewer than 2 generated images" in found.notes[0]
    assert found.count_fake == 3


def test_pictures_of_a_class_are_found_through_the_sampled_rows() -> None:
    """Pictures are a sample in random order; `classes` is by row of the set."""
    pictures = np.concatenate([np.repeat(noise(1), 3, axis=0), noise(3, seed=5)])
    order = np.array([5, 0, 3, 2, 4, 1])
    shuffled = Side(
        "set",
        tuple("abcdef"),
        pictures=pictures[order],
        kept=order,
        classes=("a",) * 3 + ("b",) * 3,
    )
    assert measured(shuffled, shuffled).details["by_class"]["a"]["value"] == pytest.approx(1.0)


def test_grey_pictures_have_the_value_of_one_channel() -> None:
    gray = noise(6, 30, channels=1)
    assert diversity(np.repeat(gray, 3, axis=3)).mean == pytest.approx(
        diversity(gray).mean, abs=1e-6
    )


def test_flat_pictures_are_equal_not_undefined() -> None:
    flat = np.zeros((4, 24, 24, 3), np.uint8)
    found = measured(side(flat), side(flat))
    assert found.value == pytest.approx(1.0)


def test_too_few_or_too_small_pictures_are_named() -> None:
    with pytest.raises(ValueError, match="2 generated images, received 1"):
        measured(side(noise(4)), side(noise(1)))
    with pytest.raises(ValueError, match="11 x 11 pixels, received 8 x 8"):
        measured(side(noise(4, 8)), side(noise(4, 8)))
    with pytest.raises(ValueError, match="none of the 2 classes"):
        measured(side(noise(2), ("a", "b")), side(noise(2), ("a", "b")), by_class=True)


@pytest.mark.parametrize(
    ("real_classes", "fake_classes", "said"),
    [
        (("a", "a", "b", "b"), None, "real a, b; generated none"),
        (("a", "a", "b", "b"), ("c", "c", "d", "d"), "real a, b; generated c, d"),
        (("a", "b", "c", "d"), ("a", "b", "c", "d"), "real a, b, c and 1 more; generated a, b, c"),
    ],
)
def test_sets_without_pairs_of_a_common_class_are_compared_as_a_whole(
    real_classes: tuple[str, ...], fake_classes: tuple[str, ...] | None, said: str
) -> None:
    real, fake = noise(4), noise(4, seed=1)
    found = measured(side(real, real_classes), side(fake, fake_classes))
    flat = measured(side(real), side(fake))
    assert (found.value, found.reference) == (flat.value, flat.reference)
    assert found.settings["classes"] is None
    assert any(said in note for note in found.notes)
    with pytest.raises(ValueError, match="class"):
        measured(side(real, real_classes), side(fake, fake_classes), by_class=True)


def test_one_real_picture_leaves_no_reference() -> None:
    found = measured(side(noise(1)), side(noise(4)))
    assert found.reference is None
    assert found.details["minus_real"] is None


def test_dropping_modes_of_real_pictures_raises_the_value(shared: Path) -> None:
    paths = sorted((shared / "data/skin-isic2017").rglob("*.jpg"))[:12]
    pictures = np.stack([read(p, 64) for p in paths])
    values = [diversity(pictures[np.arange(12) % modes]).mean for modes in (12, 6, 3, 1)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1.0, abs=1e-6)
