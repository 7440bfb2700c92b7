"""Statistics in place of real pictures: files of ours and of others, what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation.measuring import Evaluation, Options, Outcome
from tfgan_med.evaluation.pictures import open_pictures
from tfgan_med.evaluation.statistics import (
    AgainstStatistics,
    Origin,
    load,
    require_new,
    save,
    save_real,
)
from tfgan_med.metrics.base import Result
from tfgan_med.metrics.fid import FID, Statistics
from tfgan_med.networks.features import FeatureNetwork, foreign

ORIGIN = Origin("ttur", "inception-2015", "ab" * 32, (64, 48), (0.0, 4095.0), tile=64)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FeatureNetwork:
    """A small random network whose features are means over patches."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 5, 3, activation="relu")(images)
    path = tmp_path_factory.mktemp("network") / "tiny.keras"
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    return foreign(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, `real` and `fake`, and one of larger pictures."""
    root = tmp_path_factory.mktemp("sets")
    for seed, (name, side, count) in enumerate(
        [("real", 24, 30), ("fake", 24, 20), ("large", 32, 20)]
    ):
        generator = np.random.default_rng(seed)
        (root / name).mkdir()
        for i in range(count):
            pixels = generator.integers(0, 200 + 20 * seed, (side, side), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


def evaluated(folders: Path, network: FeatureNetwork, **options: Any) -> Outcome:
    real, fake = (open_pictures(str(folders / name)) for name in ("real", "fake"))
    evaluation = Evaluation([FID()], real, [fake], Options(**options), network=network)
    return evaluation.of(fake)


def against(path: Path, fake: Path, network: FeatureNetwork, **options: Any) -> tuple[Result, ...]:
    pictures, chosen = open_pictures(str(fake)), Options(**options)
    return AgainstStatistics(FID(variants=True), path, pictures, chosen, network).results()


@pytest.fixture(scope="module")
def stored(
    folders: Path, network: FeatureNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_real(tmp_path_factory.mktemp("stored") / "real.npz", evaluated(folders, network))


# Instead of pictures ------------------------------------------------------------------------------


def test_statistics_give_the_value_of_the_pictures_they_were_made_of(
    folders: Path, network: FeatureNetwork, stored: Path
) -> None:
    by_pictures = evaluated(folders, network).results[0]
    by_file, mean = against(stored, folders / "fake", network)
    assert by_file.value == pytest.approx(by_pictures.value, rel=1e-9)
    kept = ("metric", "protocol", "extractor", "weights_sha256", "dimension", "image_size", "color",
            "value_range", "fake", "settings", "count_real", "count_fake")  # fmt: skip
    assert [getattr(by_file, n) for n in kept] == [getattr(by_pictures, n) for n in kept]
    assert by_file.real == str(stored)
    assert by_file.reference is None
    assert by_file.interval is not None
    assert not any("in both sets" in note or "does not say" in note for note in by_file.notes)
    assert mean.metric.startswith("frechet_distance_mean[")


def test_statistics_of_other_programs_leave_their_origin_to_the_user(
    folders: Path, network: FeatureNetwork, tmp_path: Path
) -> None:
    mean, covariance = np.zeros(6, np.float32), np.eye(6)
    np.savez(tmp_path / "theirs.npz", mu=mean, sigma=covariance)
    result = against(tmp_path / "theirs.npz", folders / "fake", network)[0]
    assert result.count_real is None
    assert result.value is not None and result.value > 0
    assert any("theirs.npz does not say how it was made" in note for note in result.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "clean"}, r"protocol clean \(not "),
        ({"weights_sha256": "f" * 64}, r"weights f{64} \(not "),
        ({"extractor": "other"}, r"the network other \(not tiny"),
        ({"image_size": (64, 64)}, r"pictures of 64 x 64 \(not 24 x 24\)"),
        ({"tile": 8, "channel": 1}, r"tile 8 \(not none\), channel 1 \(not none\)"),
    ],
)
def test_statistics_of_other_features_are_refused_by_what_differs(
    folders: Path,
    network: FeatureNetwork,
    stored: Path,
    tmp_path: Path,
    change: dict[str, Any],
    said: str,
) -> None:
    statistics, origin = load(stored)
    assert origin is not None
    path = save(tmp_path / "other.npz", statistics, replace(origin, **change))
    with pytest.raises(UserError, match=f"other.npz: its statistics were made with {said}"):
        against(path, folders / "fake", network)


def test_larger_pictures_are_brought_to_the_size_of_the_statistics_on_request(
    folders: Path, network: FeatureNetwork, stored: Path
) -> None:
    with pytest.raises(UserError, match=r"24 x 24 \(not 32 x 32\).*--resize"):
        against(stored, folders / "large", network)
    result = against(stored, folders / "large", network, resize=24)[0]
    assert result.image_size == (24, 24)
    assert result.settings["resize"] == "24 (crop)"


def test_the_window_is_that_of_the_statistics(
    folders: Path, network: FeatureNetwork, tmp_path: Path
) -> None:
    path = save_real(tmp_path / "real.npz", evaluated(folders, network, window=(0.0, 300.0)))
    assert against(path, folders / "fake", network)[0].value_range == (0.0, 300.0)
    with pytest.raises(UserError, match=r"a window of 0.0 to 300.0 \(not 0.0 to 255.0\)"):
        against(path, folders / "fake", network, window=(0.0, 255.0))


def test_features_of_another_length_are_refused(
    folders: Path, network: FeatureNetwork, tmp_path: Path
) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(9), sigma=np.eye(9))
    with pytest.raises(UserError, match=r"theirs.npz: .*received 9 and 6 features"):
        against(tmp_path / "theirs.npz", folders / "fake", network)


# Files --------------------------------------------------------------------------------------------


def test_statistics_survive_a_file_and_have_the_names_of_pytorch_fid(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((50, 6))
    path = save(tmp_path / "real.npz", Statistics.of(features), ORIGIN)
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["mu"], features.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(arrays["sigma"], np.cov(features, rowvar=False), rtol=1e-12)
        assert arrays["weights_sha256"].item() == "ab" * 32
        assert arrays["image_size"].tolist() == [64, 48]
    statistics, origin = load(path)
    assert statistics.count == 50
    assert origin == ORIGIN


def test_a_file_that_tells_half_of_its_origin_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", mu=np.zeros(2), sigma=np.eye(2), protocol="ttur")
    with pytest.raises(DataError, match=r"half.npz: no channel and no extractor and no image_size"):
        load(tmp_path / "half.npz")


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "old.npz").write_bytes(b"somebody's")
    with pytest.raises(UserError, match=r"old.npz: is there already"):
        require_new(tmp_path / "old.npz")
    for name in ("real.npy", "absent/real.npz"):
        with pytest.raises(UserError, match=f"{name}: no .npz file in an existing folder"):
            require_new(tmp_path / name)
    require_new(tmp_path / "real.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros(2)}, "no mu and no sigma"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"shape \(3, 3\)"),
        ({"mu": np.array([{}]), "sigma": np.eye(1)}, "allow_pickle"),
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, "could not convert"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "count": np.zeros(2)}, "count"),
    ],
)
def test_a_file_without_statistics_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "stats.npz", **arrays)
    with pytest.raises(DataError, match=f"stats.npz: .*{message}"):
        load(tmp_path / "stats.npz")


def test_no_file_and_no_archive_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file") as caught:
        load(tmp_path / "absent.npz")
    assert caught.value.exit_code == 2
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name, content in {
        "text.npz": b"mu: 3",
        "empty.npz": b"",
        "cut.npz": b"PK\x03\x04ab",
    }.items():
        (tmp_path / name).write_bytes(content)
    for name in ("one.npy", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(DataError, match=name):
            load(tmp_path / name)
