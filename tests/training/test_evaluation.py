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

from tfgan_med.errors import DataError, MissingWeightsError, UserError
from tfgan_med.metrics.base import FeatureCache
from tfgan_med.networks.features import FeatureNetwork, foreign
from tfgan_med.training import evaluation
from tfgan_med.training.evaluation import (
    Network,
    ahead,
    evaluate_fid,
    find_sides,
    note_result,
    open_pictures,
    read_results,
)

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


def distance(real: str, fake: str, network: FeatureNetwork, **more: Any) -> float:
    return evaluate_fid(open_pictures(real), open_pictures(fake), network, **more).value


def test_a_result_says_all_that_it_depends_on(tmp_path: Path, network: FeatureNetwork) -> None:
    real, fake = save(tmp_path / "real", squares(20)), save(tmp_path / "fake", squares(16, 1))
    result = evaluate_fid(
        open_pictures(real), open_pictures(fake), network, bootstrap=20, floor=True
    )
    assert result.metric == f"frechet_distance[tiny:{network.sha256[:8]}]"
    assert (result.count_real, result.count_fake) == (20, 16)
    assert (result.image_size, result.color) == ((24, 24), "gray-x3")
    assert result.floor is not None and result.interval is not None
    assert result.interval.low <= result.value <= result.interval.high
    assert any("Unequal counts" in note for note in result.notes)
    assert any("biased upwards" in note for note in result.notes)


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
    with pytest.raises(UserError, match=r"24 x 24, .* of 32 x 32 .* --resize 24"):
        distance(real, fake, network)
    result = evaluate_fid(open_pictures(real), open_pictures(fake), network, resize=16)
    assert result.image_size == (16, 16)
    assert any("resized to 16 x 16" in note for note in result.notes)


def test_gray_and_equal_rgb_pictures_have_the_same_features(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    gray = save(tmp_path / "gray", squares(8))
    rgb = save(tmp_path / "rgb", [np.repeat(p[..., None], 3, axis=2) for p in squares(8)])
    result = evaluate_fid(open_pictures(gray), open_pictures(rgb), network)
    assert result.value < 1e-6
    assert result.color == "real gray-x3, generated rgb"


def test_16_bit_pictures_share_the_window_of_the_real_set(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    """Twice as bright is not the same, as it would be with a window for each picture."""
    wide = [picture.astype(np.uint16) * 100 for picture in squares(15)]
    real, fake = save(tmp_path / "real", wide), save(tmp_path / "fake", [p * 2 for p in wide])
    result = evaluate_fid(open_pictures(real), open_pictures(fake), network)
    assert result.value > 1e-3
    assert result.value_range == pytest.approx((0.0, 20_000.0), abs=150)
    same = save(tmp_path / "same", squares(15))
    exact = evaluate_fid(open_pictures(real), open_pictures(real), network, window=(0.0, 25_500.0))
    assert exact.value_range == (0.0, 25_500.0)
    with pytest.raises(UserError, match=r"uint16 values, .* uint8.* --window"):
        distance(real, same, network)


def test_a_window_makes_16_bit_values_the_8_bit_ones(network: FeatureNetwork) -> None:
    preparation = evaluation.Preparation((0.0, 25_500.0), rounded=True)
    eight = squares(1)[0][..., None]
    windowed = preparation._windowed(eight.astype(np.uint16) * 100, None)  # type: ignore[arg-type]
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
    result = evaluate_fid(open_pictures(real), open_pictures(real), network)
    assert any("10 files are in both sets" in note for note in result.notes)


def test_reading_ahead_keeps_the_order_and_a_bounded_number() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = ahead(work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(begun) <= 10 * (os.cpu_count() or 1)
    results.close()  # type: ignore[attr-defined]


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["ttur", "clean", "pytorch-fid", "keras"])
def test_missing_weights_are_said_for_every_protocol(
    protocol: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match="--download"):
        Network(protocol=protocol).load()


def test_settings_that_exclude_each_other_are_refused(network_file: Path) -> None:
    with pytest.raises(UserError, match="--features brings its own weights"):
        Network(features=network_file, dims=64).load()
    with pytest.raises(UserError, match="protocol is 'tf'"):
        Network(protocol="tf").load()  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no such file"):
        Network(weights=network_file.with_name("none.npz")).load()


# Runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "0003-pix2pix"
    save(folder / "translated" / "test" / "images", squares(6, 1))
    save(folder / "reals" / "test" / "images", squares(6))
    (folder / "config.yaml").write_text("model: {}\n")
    return folder


@pytest.mark.parametrize("name", [None, "last", "3"])
def test_a_run_brings_its_own_test_set(run: Path, name: str | None) -> None:
    sides = find_sides(None, name, run.parent)
    assert sides.run == run
    assert len(open_pictures(sides.real)) == len(open_pictures(sides.fake, "all")) == 6


def test_a_folder_of_a_run_is_known_as_such(run: Path) -> None:
    sides = find_sides(None, str(run / "translated" / "test"), run.parent)
    assert sides.run == run
    assert sides.real == str(run / "reals" / "test")


def test_a_folder_of_no_run_needs_a_real_set(tmp_path: Path) -> None:
    fake = save(tmp_path / "fake", squares(2))
    with pytest.raises(UserError, match="Add --real DIR"):
        find_sides(None, fake, tmp_path)
    assert find_sides("real", fake, tmp_path).run is None


def test_a_run_that_has_not_translated_yet_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "0001-pix2pix"
    folder.mkdir()
    (folder / "config.yaml").write_text("model: {}\n")
    with pytest.raises(UserError, match="tfgan-med translate"):
        find_sides(None, "last", tmp_path)


def test_results_of_a_run_are_appended(run: Path, network: FeatureNetwork) -> None:
    sides = find_sides(None, "last", run.parent)
    result = evaluate_fid(open_pictures(sides.real), open_pictures(sides.fake, "all"), network)
    note_result(run, result)
    note_result(run, result)
    assert [entry["value"] for entry in read_results(run)] == [result.value] * 2


def test_real_sets_of_one_organ_are_closer_than_of_two(
    shared: Path, builder: Callable[..., FeatureNetwork]
) -> None:
    network = builder()
    data = shared / "data"
    smear = open_pictures(str(data / "rbc-smear"), "train")
    near = evaluate_fid(smear, open_pictures(str(data / "rbc-smear")), network, resize=224)
    chest = open_pictures(str(data / "cxr-nih"))
    far = evaluate_fid(smear, chest, network, resize=224)
    assert far.value > 5 * near.value


@pytest.fixture(scope="module")
def builder(shared: Path) -> Callable[..., FeatureNetwork]:
    def build() -> FeatureNetwork:
        return foreign(
            shared / "weights/mobilenet-v1-0.25-224-imagenet.pb",
            output_name="MobilenetV1/Logits/AvgPool_1a/AvgPool:0",
        )

    return build
