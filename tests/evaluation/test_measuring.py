"""Folders to a Fréchet distance: sizes, types, splits, caching, runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation.measuring import Evaluation, Options
from tfgan_med.evaluation.pictures import Preparation, ahead, open_pictures
from tfgan_med.metrics.base import Result
from tfgan_med.metrics.fid import FID
from tfgan_med.metrics.kid import KID
from tfgan_med.metrics.ms_ssim import MSSSIM
from tfgan_med.networks.feature_cache import FeatureCache
from tfgan_med.networks.features import FeatureNetwork, foreign

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random network whose features are means over patches."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 5, 3, activation="relu")(images)
    path = tmp_path_factory.mktemp("network") / "tiny.keras"
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    return path


@pytest.fixture(scope="module")
def network(network_file: Path) -> FeatureNetwork:
    return foreign(network_file)


def squares(count: int, seed: int = 0, side: int = 24, brightness: int = 200) -> list[Array]:
    """Gray pictures, each with one square at a random place."""
    generator = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        picture = generator.integers(0, 40, (side, side)).astype(np.uint8)
        top, left = generator.integers(0, side - 8, 2)
        picture[top : top + 8, left : left + 8] = brightness
        pictures.append(picture)
    return pictures


def save(folder: Path, pictures: list[Array]) -> str:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:03}.png")
    return str(folder)


def evaluated(real: str, fake: str, network: FeatureNetwork, **options: Any) -> Result:
    """The Fréchet distance of two folders."""
    chosen = Options(**({"intervals": False} | options))
    real_set, fake_set = open_pictures(real), open_pictures(fake)
    evaluation = Evaluation([FID()], real_set, [fake_set], chosen, network=network, strict=True)
    return evaluation.of(fake_set).results[0]


def distance(real: str, fake: str, network: FeatureNetwork, **options: Any) -> float:
    value = evaluated(real, fake, network, **options).value
    assert value is not None
    return value


def test_a_result_says_all_that_it_depends_on(tmp_path: Path, network: FeatureNetwork) -> None:
    real, fake = save(tmp_path / "real", squares(20)), save(tmp_path / "fake", squares(16, 1))
    result = evaluated(real, fake, network, intervals=True)
    assert result.metric == f"frechet_distance[tiny:{network.sha256[:8]}]"
    assert (result.count_real, result.count_fake) == (20, 16)
    assert (result.image_size, result.color) == ((24, 24), "gray-x3")
    assert result.value is not None and result.interval is not None
    assert result.reference is not None and "halves" in result.reference_of
    assert result.interval.low <= result.value <= result.interval.high
    assert any("Unequal counts" in note for note in result.notes)
    assert any("kid has no such bias" in note for note in result.notes)


def test_pictures_of_the_same_kind_are_closer_than_others(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real, like = save(tmp_path / "real", squares(40)), save(tmp_path / "like", squares(40, 1))
    other = save(tmp_path / "other", squares(40, 2, brightness=90))
    assert distance(real, real, network) < 1e-6
    assert distance(real, like, network) < distance(real, other, network) / 5


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_does_not_change_the_value(
    tmp_path: Path, network: FeatureNetwork, batch_size: int
) -> None:
    real, fake = save(tmp_path / "real", squares(20)), save(tmp_path / "fake", squares(20, 1))
    expected = distance(real, fake, network, batch_size=16)
    assert distance(real, fake, network, batch_size=batch_size) == pytest.approx(expected, rel=1e-5)


def test_a_picture_replaced_under_its_name_is_computed_again(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real, fake = save(tmp_path / "real", squares(12)), save(tmp_path / "fake", squares(12, 1))
    cache = FeatureCache(tmp_path / "cache")
    before = distance(real, fake, network, cache=cache)
    assert distance(real, fake, network, cache=cache) == before

    replaced = Path(fake, "003.png")
    times = replaced.stat()
    Image.fromarray(np.full((24, 24), 255, np.uint8)).save(replaced)
    os.utime(replaced, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = distance(real, fake, network, cache=cache)
    assert after != before
    assert after == pytest.approx(distance(real, fake, network), rel=1e-6)


def test_sizes_that_differ_are_refused_with_both_and_the_cure(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real = save(tmp_path / "real", squares(5, side=24))
    fake = save(tmp_path / "fake", squares(5, side=32))
    with pytest.raises(UserError, match=r"24 x 24 .* and 32 x 32 .* --resize 24"):
        distance(real, fake, network)
    result = evaluated(real, fake, network, resize=16)
    assert result.image_size == (16, 16)
    assert result.settings["resize"] == "16 (crop)"


def test_gray_and_equal_rgb_pictures_have_the_same_features(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    gray = save(tmp_path / "gray", squares(8))
    rgb = save(tmp_path / "rgb", [np.repeat(p[..., None], 3, axis=2) for p in squares(8)])
    result = evaluated(gray, rgb, network)
    assert result.value == pytest.approx(0.0, abs=1e-6)
    assert result.color == "real gray-x3, generated rgb"


def test_16_bit_pictures_share_the_window_of_the_real_set(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    """Twice as bright is not the same, as it would be with a window for each picture."""
    wide = [picture.astype(np.uint16) * 100 for picture in squares(15)]
    real, fake = save(tmp_path / "real", wide), save(tmp_path / "fake", [p * 2 for p in wide])
    result = evaluated(real, fake, network)
    assert result.value is not None and result.value > 1e-3
    assert result.value_range == pytest.approx((0.0, 20_000.0), abs=150)
    same = save(tmp_path / "same", squares(15))
    exact = evaluated(real, real, network, window=(0.0, 25_500.0))
    assert exact.value_range == (0.0, 25_500.0)
    with pytest.raises(UserError, match=r"uint16 values, .* uint8.* Export both"):
        distance(real, same, network)


def test_a_window_of_the_user_is_taken_as_it_is(tmp_path: Path, network: FeatureNetwork) -> None:
    dark = [picture.astype(np.uint16) for picture in squares(6)]
    real = save(tmp_path / "real", dark)
    assert evaluated(real, real, network, window=(0.0, 255.0)).value_range == (0.0, 255.0)
    for window in ((5.0, 5.0), (float("-inf"), 3.0), (0.0, float("nan"))):
        with pytest.raises(UserError, match="two numbers are needed, the second larger"):
            distance(real, real, network, window=window)


@pytest.mark.parametrize("option", ["resize", "tile", "batch_size"])
def test_options_that_cannot_be_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is 0"):
        Options(**dict[str, Any]({option: 0}))


def test_pictures_smaller_than_the_filters_of_a_network_are_refused(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real = save(tmp_path / "real", squares(6))
    with pytest.raises(UserError, match=r"does not take pictures of 2 x 2 pixels\. Add --resize"):
        distance(real, real, network, resize=2)


def test_a_window_makes_16_bit_values_the_8_bit_ones(network: FeatureNetwork) -> None:
    preparation = Preparation((0.0, 25_500.0), rounded=True)
    eight = squares(1)[0][..., None]
    windowed = preparation.windowed(eight.astype(np.uint16) * 100, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(windowed, eight)


def test_the_test_split_is_the_default_of_a_set_with_splits(tmp_path: Path) -> None:
    root = Path(save(tmp_path / "set", squares(6)))
    rows = [f"{i:03}.png,{'test' if i < 2 else 'train'}" for i in range(6)]
    (root / "splits.csv").write_text("\n".join(["file,split", *rows]) + "\n")
    assert len(open_pictures(str(root))) == 2
    assert len(open_pictures(str(root), "all")) == 6
    assert len(open_pictures(str(root), "train")) == 4
    with pytest.raises(DataError, match="no pictures in the split val"):
        open_pictures(str(root), "val")
    with pytest.raises(UserError, match="no masks, but images"):
        open_pictures(str(root), role="masks")


def test_one_picture_on_a_side_is_refused_with_the_counts(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real, fake = save(tmp_path / "real", squares(4)), save(tmp_path / "fake", squares(1))
    with pytest.raises(UserError, match=r"generated set has 1 image"):
        distance(real, fake, network)


def test_a_damaged_picture_is_named(tmp_path: Path, network: FeatureNetwork) -> None:
    real, fake = save(tmp_path / "real", squares(4)), save(tmp_path / "fake", squares(4))
    cut = Path(fake, "002.png")
    cut.write_bytes(cut.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"002\.png"):
        distance(real, fake, network)


def test_files_in_both_sets_are_counted(tmp_path: Path, network: FeatureNetwork) -> None:
    real = save(tmp_path / "real", squares(10))
    result = evaluated(real, real, network)
    assert any("10 files are in both sets" in note for note in result.notes)


def test_every_set_is_read_once_for_all_metrics(
    tmp_path: Path, network: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fake = save(tmp_path / "real", squares(12)), save(tmp_path / "fake", squares(12, 1))
    read: list[str] = []
    original = Preparation.read

    def counting(self: Preparation, part: Any) -> Any:
        read.append(str(part.path))
        return original(self, part)

    monkeypatch.setattr(Preparation, "read", counting)
    real_set, fake_set = open_pictures(real), open_pictures(fake)
    metrics = [FID(), KID(), MSSSIM()]
    evaluation = Evaluation(metrics, real_set, [fake_set], Options(), network=network)
    outcome = evaluation.of(fake_set)
    assert len(read) == len(set(read)) == 24
    assert {result.metric.partition("[")[0] for result in outcome.results} >= {
        "frechet_distance",
        "kernel_distance",
    }


def test_a_metric_that_cannot_be_computed_leaves_the_others(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real, fake = save(tmp_path / "real", squares(12)), save(tmp_path / "fake", squares(1, 1))
    real_set, fake_set = open_pictures(real), open_pictures(fake)
    evaluation = Evaluation([FID(), KID()], real_set, [fake_set], Options(), network=network)
    outcome = evaluation.of(fake_set)
    assert {skip.metric for skip in outcome.skipped} == {"FID", "KID"}
    assert "1 image" in outcome.skipped[0].reason


def test_tiles_count_as_pictures_and_bring_mixed_sizes_together(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real, fake = save(tmp_path / "real", squares(6)), save(tmp_path / "fake", squares(6, side=32))
    result = evaluated(real, fake, network, tile=12)
    assert (result.count_real, result.count_fake) == (6 * 4, 6 * 4)
    assert (result.image_size, result.settings["tile"]) == ((12, 12), 12)
    with pytest.raises(UserError, match="no picture holds a tile of 40 x 40"):
        distance(real, fake, network, tile=40)


def test_one_channel_alone_can_be_compared(tmp_path: Path, network: FeatureNetwork) -> None:
    """Sets that differ in blue only are equal in red."""
    red = [np.repeat(p[..., None], 3, axis=2) for p in squares(8)]
    blue = [p * np.array([1, 1, 0], np.uint8) for p in red]
    real, fake = save(tmp_path / "real", red), save(tmp_path / "fake", blue)
    assert distance(real, fake, network, channel=0) == pytest.approx(0.0, abs=1e-6)
    assert distance(real, fake, network, channel=2) > 1e-3
    gray = save(tmp_path / "gray", squares(8))
    with pytest.raises(DataError, match="there is no channel 2"):
        distance(gray, gray, network, channel=2)


def test_reading_ahead_keeps_the_order_and_a_bounded_number() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = ahead(work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(begun) <= 10 * (os.cpu_count() or 1)
    results.close()  # type: ignore[attr-defined]


def test_real_sets_of_one_organ_are_closer_than_of_two(
    shared: Path, builder: Callable[..., FeatureNetwork]
) -> None:
    network = builder()
    data = shared / "data"
    smear = open_pictures(str(data / "rbc-smear"), "train")
    test, chest = open_pictures(str(data / "rbc-smear")), open_pictures(str(data / "cxr-nih"))
    options = Options(resize=224, intervals=False)
    evaluation = Evaluation([FID()], smear, [test, chest], options, network=network)
    near, far = (evaluation.of(fake).results[0].value for fake in (test, chest))
    assert near is not None and far is not None
    assert far > 5 * near


@pytest.fixture(scope="module")
def builder(shared: Path) -> Callable[..., FeatureNetwork]:
    def build() -> FeatureNetwork:
        return foreign(
            shared / "weights/mobilenet-v1-0.25-224-imagenet.pb",
            output_name="MobilenetV1/Logits/AvgPool_1a/AvgPool:0",
        )

    return build
