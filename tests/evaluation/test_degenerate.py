"""Sets no metric was made for: a defined value, or an error with counts and cure; never NaN."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation import choice, label_maps
from tfgan_med.evaluation.measuring import Evaluation, Options, Outcome
from tfgan_med.evaluation.pictures import open_pictures
from tfgan_med.metrics.base import Metric, Result, require
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
from tfgan_med.networks import lpips, torchvision_trunks
from tfgan_med.networks.features import FeatureNetwork, foreign

Array = npt.NDArray[Any]
Pictures = Sequence[Array]

METRICS: dict[str, Metric] = {
    "fid": FID(variants=True, per_class=True, repeats=20),
    "kid": KID(),
    "kid subset": KID(protocol="subset", subsets=5),
    "kid block": KID(protocol="block", block_size=4),
    "inception_score": InceptionScore(splits=2),
    "prdc": PRDC(k=3, repeats=20),
    "ms_ssim": MSSSIM(),
    "lpips": LPIPS(),
    "sliced_wasserstein": SlicedWasserstein(patches=16, repeats=1, directions=64),
    "cid": CID(),
    "cid lpips": CID(similarity="lpips", threshold=0.05),
    "likeness": Likeness(),
    "memorization": Memorization(),
}


def noise(count: int, seed: int = 0, height: int = 64, width: int = 64) -> Pictures:
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, (count, height, width, 3), np.uint8))


def even(count: int, *color: int) -> Pictures:
    return [np.full((64, 64, 3), color, np.uint8)] * count


CASES: dict[str, tuple[Pictures, Pictures]] = {
    "one generated": (noise(8), noise(1, 1)),
    "one real": (noise(1), noise(8, 1)),
    "one each": (noise(1), noise(1, 1)),
    "two each": (noise(2), noise(2, 1)),
    "three each": (noise(3), noise(3, 1)),
    "four each": (noise(4), noise(4, 1)),
    "generated black": (noise(10), even(10, 0, 0, 0)),
    "real black": (even(10, 0, 0, 0), noise(10)),
    "all black": (even(10, 0, 0, 0), even(10, 0, 0, 0)),
    "all white": (even(10, 255, 255, 255), even(10, 255, 255, 255)),
    "one color": (even(10, 200, 20, 90), even(10, 200, 20, 90)),
    "two colors": (even(10, 200, 20, 90), even(10, 20, 20, 190)),
    "identical": (noise(10), noise(10)),
    "identical two": (noise(2), noise(2)),
    "generated repeats one": (noise(10), list(noise(1, 3)) * 10),
    "real repeats one": (list(noise(1, 3)) * 10, noise(10)),
    "both repeat one": (list(noise(1, 3)) * 10, list(noise(1, 3)) * 10),
    "a copy repeated": (noise(10), list(noise(1)) * 10),
    "many to few": (noise(30), noise(10, 1)),
    "few to many": (noise(10), noise(30, 1)),
    "8 pixels": (noise(10, 0, 8, 8), noise(10, 1, 8, 8)),
    "11 pixels": (noise(10, 0, 11, 11), noise(10, 1, 11, 11)),
    "16 pixels": (noise(10, 0, 16, 16), noise(10, 1, 16, 16)),
    "40 x 24 pixels": (noise(10, 0, 40, 24), noise(10, 1, 40, 24)),
    "strips": (noise(10, 0, 6, 200), noise(10, 1, 6, 200)),
}


# Networks -----------------------------------------------------------------------------------------


def tiny(
    path: Path, features: int = 6, scale: float = 1.0, offset: float = 0.0, **reading: Any
) -> FeatureNetwork:
    """A random network with as many features, times `scale` plus `offset`, and three scores."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(features, 5, 3, activation="relu")(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Rescaling(scale, offset, name="features")(x)
    keras.Model(images, keras.layers.Dense(3, name="scores")(x)).save(path)
    return foreign(path, output_name="features", logits_name="scores", **reading)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FeatureNetwork]:
    folder = tmp_path_factory.mktemp("networks")

    @cache
    def build(**settings: Any) -> FeatureNetwork:
        return tiny(folder / f"{len(list(folder.iterdir()))}.keras", **settings)

    return build


@pytest.fixture(scope="module")
def perceptual(tmp_path_factory: pytest.TempPathFactory) -> lpips.LPIPS:
    """SqueezeNet with seeded weights."""
    folder, generator = tmp_path_factory.mktemp("lpips"), np.random.default_rng(0)
    trunk = {
        name: generator.normal(
            0, np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.1, shape
        )
        for name, shape in torchvision_trunks.state_shapes("squeeze").items()
    }
    linear = {
        f"squeeze/lin{i}": np.abs(generator.normal(0, 1, count))
        for i, count in enumerate(torchvision_trunks.CHANNELS["squeeze"])
    }
    for name, state in (("trunk", trunk), ("linear", linear)):
        arrays: dict[str, Any] = {key: values.astype(np.float32) for key, values in state.items()}
        np.savez(folder / f"{name}.npz", **arrays)
    return lpips.load("squeeze", folder / "trunk.npz", folder / "linear.npz")


# Measuring ----------------------------------------------------------------------------------------


def save(folder: Path, pictures: Pictures, extension: str = "png") -> str:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(folder / f"{i:03}.{extension}")
    return str(folder)


class Measure(Protocol):
    def __call__(
        self,
        metrics: Sequence[Metric],
        real: str,
        fake: str,
        network: FeatureNetwork | None = None,
        **options: Any,
    ) -> Outcome:
        """What comes out for two folders; numbers that are not sound fail the test."""


@pytest.fixture(scope="module")
def measure(networks: Callable[..., FeatureNetwork], perceptual: lpips.LPIPS) -> Measure:
    def run(
        metrics: Sequence[Metric],
        real: str,
        fake: str,
        network: FeatureNetwork | None = None,
        **options: Any,
    ) -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            left, right = open_pictures(real), open_pictures(fake)
            outcome = Evaluation(
                metrics,
                left,
                [right],
                Options(**options),
                network=network or networks(),
                perceptual=perceptual,
            ).of(right)
        for result in outcome.results:
            require_sound(result)
        for skipped in outcome.skipped:
            require_helpful(skipped.reason)
        return outcome

    return run


FROM_ZERO = ("frechet", "perceptual", "density", "sliced", "cid_diversity", "label", "cid")
SHARES = (
    *("precision", "recall", "coverage", "f_score", "likeness", "memorization", "ms_ssim"),
    *("generated_duplicates", "cid_creativity", "cid_inheritance", "cid_diversity_normalized"),
)
ANY = ("kernel_distance", "data_copying_z")


def require_sound(result: Result) -> None:
    """Finite, in its range, inside its interval, with a reason where it is not defined."""
    json.dumps(result.to_json(), allow_nan=False)
    low, high = allowed(result.metric)
    for value in (result.value, result.reference):
        assert value is None or low <= value <= high, result
    if result.value is None:
        assert result.notes, f"{result.metric} is not defined and does not say why"
    if result.interval is not None and result.value is not None:
        assert low <= result.interval.low <= result.value <= result.interval.high <= high
    assert result.spread is None or result.spread >= 0.0


def allowed(metric: str) -> tuple[float, float]:
    for names, span in (
        (SHARES, (0.0, 1.0)),
        (ANY, (-math.inf, math.inf)),
        (("classifier_score",), (1.0, 3.0)),
        (FROM_ZERO, (0.0, math.inf)),
    ):
        if metric.startswith(names):
            return span
    raise AssertionError(f"{metric}: say which values it may have")


CURES = "Add|Use|Choose|Leave|Check|Remove|Resize|Name|Compare"


def require_helpful(message: str) -> None:
    """What happened with a number or a name, then what to do."""
    assert re.search(rf"\S.*\. (?:{CURES})\b[^\n]*\.$", message), message
    assert re.search(r"\d|`|none|--", message), message


# Every metric on every case -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, str]]:
    root = tmp_path_factory.mktemp("cases")

    @cache
    def write(case: str) -> tuple[str, str]:
        real, fake = CASES[case]
        return save(root / case / "real", real), save(root / case / "fake", fake)

    return write


def test_no_metric_is_left_out() -> None:
    assert {name.partition(" ")[0] for name in METRICS} == set(choice.names())


@pytest.mark.parametrize("case", CASES)
def test_every_value_is_defined_or_refused_with_counts_and_cure(
    case: str, measure: Measure, folders: Callable[[str], tuple[str, str]]
) -> None:
    require_complete(measure(list(METRICS.values()), *folders(case)), METRICS)


def require_complete(outcome: Outcome, metrics: Iterable[str]) -> None:
    """Each metric is measured or skipped; only as many are skipped as gave no value."""
    of = {type(METRICS[name]).__name__ for name in metrics}
    assert {skip.metric.partition(" (")[0] for skip in outcome.skipped} <= of
    assert len(outcome.results) + len(outcome.skipped) >= len(list(metrics))


OF_FEATURES = ("fid", "kid", "kid subset", "kid block", "inception_score", "prdc", "memorization")


@pytest.mark.parametrize(
    "case", ["three each", "all black", "two colors", "identical", "both repeat one"]
)
@pytest.mark.parametrize(
    "settings",
    [{"features": 64}, {"offset": 1e6}, {"scale": 1e6}, {"scale": 0.0}],
    ids=["more features than pictures", "far from zero", "huge", "all zero"],
)
def test_odd_features_are_no_trap(
    settings: dict[str, Any],
    case: str,
    measure: Measure,
    folders: Callable[[str], tuple[str, str]],
    networks: Callable[..., FeatureNetwork],
) -> None:
    metrics = [METRICS[name] for name in OF_FEATURES]
    require_complete(measure(metrics, *folders(case), network=networks(**settings)), OF_FEATURES)


def test_features_that_are_not_finite_are_refused_with_the_row(
    measure: Measure, tmp_path: Path, networks: Callable[..., FeatureNetwork]
) -> None:
    """Bright pictures overflow float32, dark ones do not."""
    network = networks(scale=3e38, values="0..255")
    dark = even(6, 0, 0, 0)
    real, fake = save(tmp_path / "r", dark), save(tmp_path / "f", [*dark[:4], *noise(2)])
    outcome = measure([METRICS[name] for name in OF_FEATURES], real, fake, network=network)
    assert not outcome.results
    assert len(outcome.skipped) == len(OF_FEATURES)
    assert all("not finite, first in row 4" in skipped.reason for skipped in outcome.skipped)


# Values in closed form ----------------------------------------------------------------------------


def values(outcome: Outcome) -> dict[str, float | None]:
    """By name without the network."""
    return {result.metric.partition("[")[0]: result.value for result in outcome.results}


@pytest.mark.parametrize("case", ["all black", "all white", "one color", "both repeat one"])
def test_sets_of_one_and_the_same_picture_are_equal_in_every_metric(
    case: str, measure: Measure, folders: Callable[[str], tuple[str, str]]
) -> None:
    found = values(measure(list(METRICS.values()), *folders(case)))
    assert found["frechet_distance"] == found["frechet_distance_mean"] == 0.0
    assert found["frechet_distance_diagonal"] == 0.0
    assert found["kernel_distance"] == 0.0
    assert found["classifier_score"] == pytest.approx(1.0)
    assert found["ms_ssim_diversity_S3"] == pytest.approx(1.0)
    assert found["perceptual_distance_diversity"] == 0.0
    assert found["perceptual_distance_intra_cluster"] == 0.0
    assert found["likeness"] == 1.0
    assert found["memorization_copies"] == found["generated_duplicates"] == 1.0
    assert found["cid_creativity"] == found["cid"] == 0.0
    if case != "both repeat one":  # patches are drawn at random from pictures with texture
        assert found["sliced_wasserstein"] == 0.0


@pytest.mark.parametrize("case", ["all black", "both repeat one", "identical"])
def test_the_kernel_distance_of_a_set_from_itself_holds_zero_far_from_the_origin_too(
    case: str,
    measure: Measure,
    folders: Callable[[str], tuple[str, str]],
    networks: Callable[..., FeatureNetwork],
) -> None:
    """Kernel values are 1e36 here: they once left 1e21 with an interval without 0."""
    (result,) = measure([KID()], *folders(case), network=networks(offset=1e6)).results
    assert result.value is not None and result.interval is not None
    if case == "identical":
        assert result.value < 0.0  # copies are the pairs that the estimate leaves out
        assert result.spread is not None and 0.0 < result.spread < 10.0 * abs(result.value)
    else:
        assert (result.value, result.interval.low, result.interval.high) == (0.0, 0.0, 0.0)


def test_two_even_colors_are_as_far_apart_as_their_features(
    measure: Measure, folders: Callable[[str], tuple[str, str]]
) -> None:
    outcome = measure([FID(variants=True), KID(), PRDC()], *folders("two colors"))
    x, y = (
        np.asarray(require(side.features, "features")[0], np.float64)
        for side in (outcome.real, outcome.fake)
    )
    apart = float(np.square(x - y).sum())
    found = values(outcome)
    for name in ("frechet_distance", "frechet_distance_mean", "frechet_distance_diagonal"):
        assert found[name] == pytest.approx(apart, rel=1e-9)
    kernel = [(p @ q / len(x) + 1) ** 3 for p, q in ((x, x), (y, y), (x, y))]
    assert found["kernel_distance"] == pytest.approx(kernel[0] + kernel[1] - 2 * kernel[2])
    assert [found[name] for name in ("precision", "recall", "density", "coverage")] == [0.0] * 4


def test_a_picture_repeated_by_the_generator_shows_in_every_measure_of_variety(
    measure: Measure, folders: Callable[[str], tuple[str, str]]
) -> None:
    found = values(measure(list(METRICS.values()), *folders("generated repeats one")))
    assert found["recall"] == found["f_score"] == 0.0
    assert found["ms_ssim_diversity_S3"] == pytest.approx(1.0)
    assert found["perceptual_distance_diversity"] == 0.0
    assert found["cid_diversity"] == found["cid"] == 0.0
    assert found["generated_duplicates"] == 1.0
    assert found["classifier_score"] == pytest.approx(1.0)
    assert found["likeness"] == pytest.approx(0.0)


def test_copies_of_one_picture_are_outside_of_balls_unless_they_are_counted(
    measure: Measure, folders: Callable[[str], tuple[str, str]]
) -> None:
    names = ("precision", "recall", "coverage")
    outcome = measure([PRDC()], *folders("both repeat one"))
    assert [values(outcome)[name] for name in names] == [0.0] * 3
    assert any("radius 0 and hold nothing, not even copies" in n for n in outcome.results[0].notes)
    inclusive = measure([PRDC(inclusive=True)], *folders("both repeat one"))
    assert [values(inclusive)[name] for name in names] == [1.0] * 3


def test_an_offset_of_all_features_leaves_distances_between_them(
    measure: Measure,
    folders: Callable[[str], tuple[str, str]],
    networks: Callable[..., FeatureNetwork],
) -> None:
    """4096 leaves float32 features eleven binary digits after the point."""
    metrics = [FID(floor=False), PRDC(floor=False)]
    near, far = (
        values(measure(metrics, *folders("generated black"), network=networks(offset=offset)))
        for offset in (0.0, 4096.0)
    )
    assert far["frechet_distance"] == pytest.approx(near["frechet_distance"], rel=1e-3)
    assert far["precision"] == near["precision"] == 0.0


# Files --------------------------------------------------------------------------------------------


def blobs(count: int = 6, seed: int = 0) -> Pictures:
    """Grey pictures with structure, of 64 x 64 pixels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)
    return [
        np.asarray(Image.fromarray(c).resize((64, 64), Image.Resampling.BICUBIC)) for c in coarse
    ]


def with_alpha(picture: Array) -> Array:
    return np.dstack([picture] * 3 + [np.full_like(picture, 255)])


ENCODINGS: dict[str, Callable[[Array], Any]] = {
    "rgb": lambda picture: np.dstack([picture] * 3),
    "rgba": with_alpha,
    "grey and alpha": lambda picture: with_alpha(picture)[..., 2:],
    "palette": lambda picture: Image.fromarray(picture).convert("P"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_pixels_in_another_kind_of_png_have_the_same_values(
    encoding: str, tmp_path: Path, measure: Measure
) -> None:
    real, fake = save(tmp_path / "real", blobs()), save(tmp_path / "grey", blobs(seed=1))
    other = save(tmp_path / "other", [ENCODINGS[encoding](p) for p in blobs(seed=1)])
    metrics = [*METRICS.values()]
    assert values(measure(metrics, real, other)) == values(measure(metrics, real, fake))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_black_pictures_of_more_than_8_bit_have_a_window(
    dtype: Any, tmp_path: Path, measure: Measure
) -> None:
    extension = "png" if dtype == np.uint16 else "tif"
    pictures = [np.zeros((64, 64), dtype)] * 6
    real, fake = (save(tmp_path / name, pictures, extension) for name in ("real", "fake"))
    outcome = measure([*METRICS.values()], real, fake)
    assert outcome.results[0].value_range == (0.0, 1.0)
    assert values(outcome)["frechet_distance"] == values(outcome)["kernel_distance"] == 0.0


def test_bits_that_differ_are_refused_with_both_types(tmp_path: Path, measure: Measure) -> None:
    wide = [picture.astype(np.uint16) * 257 for picture in blobs()]
    eight, sixteen = save(tmp_path / "a", blobs()), save(tmp_path / "b", wide)
    for real, fake in ((eight, sixteen), (sixteen, eight)):
        with pytest.raises(UserError, match=r"uint.* values, .*uint.*Export both"):
            measure([FID()], real, fake)
    mixed = save(tmp_path / "c", [*blobs(2), *wide[:2]])
    with pytest.raises(DataError, match=r"002\.png: uint16 values"):
        measure([FID()], mixed, eight)


def test_mixed_sizes_need_resizing_or_tiles(tmp_path: Path, measure: Measure) -> None:
    sizes = [(64, 64), (48, 56), (40, 24)]
    real, fake = (
        save(tmp_path / name, [noise(1, seed + i, *sizes[i % 3])[0] for i in range(12)])
        for name, seed in (("real", 0), ("fake", 50))
    )
    with pytest.raises(UserError, match=r"64 x 64, 48 x 56, 40 x 24 .*--resize 24"):
        measure([FID()], real, fake)
    resized = measure([*METRICS.values()], real, fake, resize=32)
    assert {(r.image_size, r.settings["resize"]) for r in resized.results} == {
        ((32, 32), "32 (crop)")
    }
    tiled = measure([*METRICS.values()], real, fake, tile=24)
    assert values(tiled).keys() == values(resized).keys()
    assert tiled.real.files.count("000.png tile 0") == 1
    assert len(tiled.real) == 4 * (2 * 2 + 2 * 2 + 1 * 1)
    some = measure([*METRICS.values()], real, fake, tile=44)  # the smallest hold none
    assert len(some.real) == 8


def test_a_tile_larger_than_every_picture_is_refused(tmp_path: Path, measure: Measure) -> None:
    real = save(tmp_path / "real", blobs())
    with pytest.raises(UserError, match=r"no picture holds a tile of 65 x 65 .* they have 64 x 64"):
        measure([FID()], real, real, tile=65)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", r"1\.png: the file is empty"), (b"nothing", r"1\.png: not an image")],
)
def test_a_file_that_is_no_picture_is_named(
    content: bytes, said: str, tmp_path: Path, measure: Measure
) -> None:
    folder = save(tmp_path / "set", blobs(3))
    Path(folder, "001.png").write_bytes(content)
    with pytest.raises(DataError, match=said):
        measure([FID()], folder, folder)


def test_an_empty_folder_says_what_is_read(tmp_path: Path, measure: Measure) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no pictures found\. Expected PNG"):
        measure([FID()], save(tmp_path / "set", blobs()), str(tmp_path / "empty"))


# Classes ------------------------------------------------------------------------------------------


def in_classes(root: Path, pictures: Pictures, *names: str) -> str:
    for name, start in zip(
        names, range(0, len(pictures), len(pictures) // len(names)), strict=True
    ):
        save(root / name, pictures[start : start + len(pictures) // len(names)])
    return str(root)


@pytest.mark.parametrize("theirs", [(), ("cat", "dog"), ("normal",)])
def test_classes_of_one_side_or_other_ones_are_no_obstacle(
    theirs: tuple[str, ...], tmp_path: Path, measure: Measure
) -> None:
    real = in_classes(tmp_path / "real", blobs(12), "normal", "pneumonia")
    pictures = blobs(12, seed=1)
    fake = (
        in_classes(tmp_path / "fake", pictures, *theirs)
        if theirs
        else save(tmp_path / "fake", pictures)
    )
    outcome = measure(list(METRICS.values()), real, fake)
    assert not outcome.skipped
    found = {result.metric: result for result in outcome.results}
    for one in (found["cid"], found["ms_ssim_diversity_S3"]):
        if theirs == ("normal",):
            assert one.settings["classes"] == ["normal"]
        else:
            said = f"real normal, pneumonia; generated {', '.join(theirs) or 'none'}"
            assert one.settings["classes"] is None
            assert any(said in note for note in one.notes)


# Labels -------------------------------------------------------------------------------------------


def masks(root: Path, maps: Pictures) -> str:
    save(root / "masks", maps)
    save(root / "images", [np.zeros_like(one) for one in maps])
    return str(root)


def left_part(columns: int, count: int = 4) -> Pictures:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, :columns] = 255
    return [mask] * count


@pytest.mark.parametrize("fake", [left_part(0), left_part(20), left_part(5), left_part(5, 1)])
@pytest.mark.parametrize("real", [left_part(0), left_part(20), left_part(5), left_part(5, 1)])
@pytest.mark.parametrize("present_only", [False, True])
def test_empty_full_and_single_masks_have_defined_distances(
    real: Pictures, fake: Pictures, present_only: bool, tmp_path: Path
) -> None:
    sides = masks(tmp_path / "real", real), masks(tmp_path / "fake", fake)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        results = label_maps.compare(
            *sides, present_only=present_only, intervals=present_only
        ).results
    for result in results:
        require_sound(result)
    found = {result.metric: result.value for result in results}
    shares = [float((side[0] > 0).mean()) for side in (real, fake)]
    distance = found["label_share_emd[foreground]"]
    if all(shares) or not present_only:
        assert distance == pytest.approx(abs(shares[0] - shares[1]))
    else:
        assert distance is None


# The command --------------------------------------------------------------------------------------


def test_the_command_computes_what_it_can_and_says_why_not_the_rest(
    cli: Any, tmp_path: Path
) -> None:
    tiny(tmp_path / "tiny.keras")
    save(tmp_path / "real", noise(8)), save(tmp_path / "one", noise(1, 1))
    done = cli(
        *("evaluate", "all", "--real", "real", "--fake", "one", "--features", "tiny.keras"),
        *("--features-output", "features", "--logits-output", "scores"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Not measured: FID: The generated set has 1 image" in done.stdout
    assert "CID_creativity" in done.stdout
    assert not re.search(r"\bnan\b|\binf\b|Traceback|Warning", done.stdout + done.stderr, re.I)


def test_the_command_ends_with_one_message_where_nothing_can_be_computed(
    cli: Any, tmp_path: Path
) -> None:
    save(tmp_path / "real", noise(3, 0, 8, 8)), save(tmp_path / "fake", noise(3, 1, 8, 8))
    done = cli("evaluate", "ms-ssim", "--real", "real", "--fake", "fake", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "at least 11 x 11 pixels, received 8 x 8" in done.stderr
    assert "Traceback" not in done.stderr
