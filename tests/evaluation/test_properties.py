"""Real pictures that are blurred, made noisy, thinned out or copied: values move as they should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.evaluation.measuring import Evaluation, Options
from tfgan_med.evaluation.pictures import open_pictures
from tfgan_med.metrics.base import Metric, Result
from tfgan_med.metrics.cid import CID
from tfgan_med.metrics.fid import FID
from tfgan_med.metrics.inception_score import InceptionScore
from tfgan_med.metrics.kid import KID
from tfgan_med.metrics.likeness import Likeness
from tfgan_med.metrics.lpips import LPIPS
from tfgan_med.metrics.memorization import Memorization
from tfgan_med.metrics.ms_ssim import MSSSIM
from tfgan_med.metrics.prdc import PRDC
from tfgan_med.metrics.sliced_wasserstein import SlicedWasserstein
from tfgan_med.networks import lpips
from tfgan_med.networks.features import FeatureNetwork, foreign

Array = npt.NDArray[Any]
Pictures = list[Array]

SETS = ("cxr-nih", "casting", "rbc-smear")
MOST = 40  # pictures of a side
SIDE = 64
DISTANCES: list[Metric] = [
    FID(floor=False),
    KID(floor=False),
    PRDC(floor=False),
    SlicedWasserstein(patches=32, repeats=1),
    Likeness(),
]


# Pictures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(shared: Path) -> dict[str, tuple[Pictures, Pictures]]:
    """Of each set two times up to 40 different pictures of 64 x 64 pixels, mixed by a seed."""
    found = {}
    for name in SETS:
        paths = sorted((shared / "data" / name).rglob("*.jp*g"))
        count = min(MOST, len(paths) // 2)
        order = np.random.default_rng(0).permutation(len(paths))[: 2 * count]
        read = [_read(paths[i]) for i in order]
        found[name] = (read[:count], read[count:])
    return found


def _read(path: Path) -> Array:
    picture: Any = cv2.imread(str(path))
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[..., ::-1])


def blurred(pictures: Pictures, sigma: float) -> Pictures:
    return [np.asarray(cv2.GaussianBlur(p, (0, 0), sigma)) if sigma else p for p in pictures]


def noisy(pictures: Pictures, deviation: float) -> Pictures:
    """One pattern for each picture, stronger and stronger."""
    grain = np.random.default_rng(1).normal(size=(len(pictures), SIDE, SIDE, 1))
    return [
        np.clip(p + deviation * g, 0, 255).astype(np.uint8)
        for p, g in zip(pictures, grain, strict=True)
    ]


def fewer(pictures: Pictures, modes: int) -> Pictures:
    """As many pictures, of which so many are different."""
    return [pictures[i % modes] for i in range(len(pictures))]


def save(folder: Path, pictures: Sequence[Array], names: Sequence[str] = ()) -> str:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{names[i] if names else f'{i:03}'}.png")
    return str(folder)


# Measuring ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(shared: Path) -> FeatureNetwork:
    return foreign(
        shared / "weights/mobilenet-v1-0.25-224-imagenet.pb",
        output_name="MobilenetV1/Logits/AvgPool_1a/AvgPool:0",
        logits_name="MobilenetV1/Predictions/Softmax:0",
    )


@pytest.fixture(scope="module")
def perceptual(shared: Path) -> lpips.LPIPS:
    return lpips.load(
        "squeezenet-caffe",
        shared / "weights/squeezenet-1.1-imagenet-notop.h5",
        shared / "weights/lpips-v0.1-lin-squeeze.pth",
    )


Values = dict[str, float]
Measure = Callable[..., list[Values]]


@pytest.fixture
def measure(tmp_path: Path, network: FeatureNetwork, perceptual: lpips.LPIPS) -> Measure:
    """Values by name, without the network's, of each generated set."""

    def run(
        metrics: Sequence[Metric], real: Pictures | str, *fakes: Pictures | str
    ) -> list[Values]:
        def folder(pictures: Pictures | str) -> str:
            if isinstance(pictures, str):
                return pictures
            return save(tmp_path / f"set {len(list(tmp_path.iterdir()))}", pictures)

        left, *rest = (open_pictures(folder(one)) for one in (real, *fakes))
        evaluation = Evaluation(
            metrics,
            left,
            rest,
            Options(intervals=False),
            network=network,
            perceptual=perceptual,
            strict=True,
        )
        return [_values(evaluation.of(one).results) for one in rest]

    return run


def _values(results: Sequence[Result]) -> Values:
    found = {}
    for result in results:
        assert result.value is not None or result.metric.startswith(("data_copying", "perceptual"))
        if result.value is not None:
            found[result.metric.partition("[")[0]] = result.value
    return found


def column(found: Sequence[Values], name: str) -> Array:
    return np.array([values[name] for values in found])


def falls(found: Sequence[Values], name: str) -> bool:
    return bool((np.diff(column(found, name)) <= 0.0).all() and found[-1][name] < found[0][name])


def grows(found: Sequence[Values], name: str) -> bool:
    return bool((np.diff(column(found, name)) > 0.0).all())


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_distances_grow_with_blur_and_shares_fall(
    name: str, pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    """Up to 3 of 64 pixels: beyond, pictures are even and the kernel distance has had its fill.

    With a deviation of 6 pixels it fell again on rbc-smear, from 6.07 to 5.93, while all of its
    means move towards one point; the Fréchet distance still grew.
    """
    real, others = pictures[name]
    found = measure(DISTANCES, real, *(blurred(others, sigma) for sigma in (0.0, 0.7, 1.5, 3.0)))
    for distance in ("frechet_distance", "kernel_distance", "sliced_wasserstein"):
        assert grows(found, distance), distance
    for share in ("precision", "recall", "density", "coverage", "likeness"):
        assert falls(found, share), share


@pytest.mark.parametrize("name", SETS)
def test_distances_grow_with_noise_and_precision_falls(
    name: str, pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    real, others = pictures[name]
    found = measure(DISTANCES, real, *(noisy(others, level) for level in (0.0, 8.0, 16.0, 48.0)))
    for distance in ("frechet_distance", "kernel_distance", "sliced_wasserstein"):
        assert grows(found, distance), distance
    for share in ("precision", "recall", "coverage"):
        assert falls(found, share), share
    assert falls(found[1:], "likeness")  # thumbnails hardly see the first step: 0.966 to 0.967


# Variety ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_distances_grow_with_dropped_modes_and_coverage_and_recall_fall(
    name: str, pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    """Precision and density may rise: what is left may lie among the real pictures."""
    real, others = pictures[name]
    found = measure(DISTANCES, real, *(fewer(others, modes) for modes in (len(others), 6, 2, 1)))
    for distance in ("frechet_distance", "kernel_distance", "sliced_wasserstein"):
        assert grows(found, distance), distance
    for share in ("recall", "coverage", "likeness"):
        assert falls(found, share), share


def test_measures_of_variety_fall_as_pictures_repeat(
    pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    """The Inception Score need not: on cxr-nih 20 pictures had 2.46 where 60 had 2.39, for they
    were spread more evenly over the classes."""
    real, others = pictures["rbc-smear"]
    metrics = [MSSSIM(), LPIPS(references=5), CID(sweep=False), InceptionScore(splits=1)]
    count = len(others)
    found = measure(metrics, real, *(fewer(others, modes) for modes in (count, 6, 2, 1)))
    assert grows(found, "ms_ssim_diversity_S3")
    assert found[-1]["ms_ssim_diversity_S3"] == pytest.approx(1.0, abs=1e-6)
    for variety in ("perceptual_distance_diversity", "cid_diversity", "cid_diversity_normalized"):
        assert falls(found, variety), variety
        assert found[-1][variety] == 0.0
    np.testing.assert_allclose(
        column(found, "cid_diversity")[1:], np.log([6, 2, 1]), atol=0.02
    )  # no two of the first six look alike, and each is there about equally often
    assert found[-1]["classifier_score"] == pytest.approx(1.0)


# Copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS[1:])
def test_copies_are_found_and_other_pictures_of_the_kind_are_not(
    name: str, pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    real, others = pictures[name]
    mirrored = [np.ascontiguousarray(picture[:, ::-1]) for picture in real]
    copied, flipped, honest = measure(
        [Memorization(), CID(sweep=False)], real, real, mirrored, others
    )
    assert copied["memorization_copies"] == flipped["memorization_copies"] == 1.0
    assert copied["memorization_flagged_pixels"] == flipped["memorization_flagged_pixels"] == 1.0
    assert copied["cid_creativity"] == copied["cid"] == 0.0
    assert copied["data_copying_z"] < -3.0 < honest["data_copying_z"]
    assert honest["memorization_copies"] == 0.0
    assert honest["cid_creativity"] > 0.9


@pytest.mark.parametrize("name", SETS[1:])
def test_a_set_is_as_good_as_itself(
    name: str, pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    real, others = pictures[name]
    same, other = measure(DISTANCES, real, real, others)
    assert same["frechet_distance"] == pytest.approx(0.0, abs=1e-6)
    assert same["kernel_distance"] < 0.0  # copies are the pairs that the estimate leaves out
    for share in ("precision", "recall", "density", "coverage", "f_score"):
        assert same[share] == pytest.approx(1.0)
    assert same["sliced_wasserstein"] < other["sliced_wasserstein"]  # patches are drawn anew
    assert same["likeness"] > 0.95  # each picture is at distance 0 from its copy


# Order and sides ----------------------------------------------------------------------------------


def test_the_order_of_files_does_not_matter(
    pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure, tmp_path: Path
) -> None:
    """Of measures that look at all pictures. Random parts of a set (splits of the Inception Score,
    subsets of the kernel distance, patches, leaders of clusters) go by position and seed."""
    real, others = pictures["casting"]
    metrics = [FID(floor=False), KID(floor=False), PRDC(floor=False), Likeness(), MSSSIM(), LPIPS(),
               Memorization()]  # fmt: skip
    order = np.random.default_rng(0).permutation(len(others))
    renamed = [save(tmp_path / f"{i}", side, [f"{n:03}" for n in order]) for i, side in
               enumerate((real, others))]  # fmt: skip
    (before,), (after,) = measure(metrics, real, others), measure(metrics, *renamed)
    assert before.keys() == after.keys()
    # the test of copying divides the training set into clusters from random starts
    for name in before.keys() - {"data_copying_z"}:
        assert after[name] == pytest.approx(before[name], rel=1e-5, abs=1e-9), name


@pytest.mark.parametrize("name", SETS[1:])
def test_sides_may_be_swapped_where_the_measure_is_symmetric(
    name: str, pictures: dict[str, tuple[Pictures, Pictures]], measure: Measure
) -> None:
    first, second = pictures[name][0], blurred(pictures[name][1], 0.7)
    metrics = [
        FID(floor=False),
        KID(floor=False),
        PRDC(floor=False),
        Likeness(),
        SlicedWasserstein(),
    ]
    (one,), (other,) = measure(metrics, first, second), measure(metrics, second, first)
    for same in ("frechet_distance", "kernel_distance", "likeness", "f_score"):
        assert other[same] == pytest.approx(one[same], rel=1e-7), same
    assert (other["precision"], other["recall"]) == (one["recall"], one["precision"])
    # both sides draw their own patches; with half as many the values were up to 30 % apart
    assert other["sliced_wasserstein"] == pytest.approx(one["sliced_wasserstein"], rel=0.1)
