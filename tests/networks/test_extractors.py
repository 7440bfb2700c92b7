"""From what a user says to a loaded network, or a clear refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from tfgan_med.errors import MissingWeightsError, UserError
from tfgan_med.networks.extractors import ExtractorChoice


@pytest.mark.parametrize("protocol", ["ttur", "clean", "pytorch-fid", "keras"])
def test_missing_weights_are_said_for_every_protocol(
    protocol: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match="--download") as caught:
        ExtractorChoice(protocol=protocol).load()
    assert caught.value.weights == ("inception-keras" if protocol == "keras" else "inception-2015")


@pytest.mark.parametrize("name", ["vgg16", "squeezenet"])
def test_missing_weights_of_named_networks_are_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=f"weights import {name}"):
        ExtractorChoice(features=name).load()


def test_settings_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.keras"
    with pytest.raises(UserError, match="--features brings its own dimension"):
        ExtractorChoice(features=str(file), dims=64).load()
    with pytest.raises(UserError, match="--features brings its own weights"):
        ExtractorChoice(features=str(file), weights=file).load()
    with pytest.raises(UserError, match="computes as it was saved"):
        ExtractorChoice(features=str(file), precision="bfloat16").load()
    with pytest.raises(UserError, match="precision is 'half'"):
        ExtractorChoice(precision="half").load()  # type: ignore[arg-type]
    with pytest.raises(UserError, match="protocol is 'tf'"):
        ExtractorChoice(protocol="tf").load()  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no such file"):
        ExtractorChoice(weights=file).load()


def test_a_downstream_run_gives_the_layer_called_features(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(5, 3, activation="relu")(images)
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    keras.Model(images, keras.layers.Dense(2)(features)).save(tmp_path / "model.keras")
    network = ExtractorChoice(features=f"run:{tmp_path}").load()
    assert network.dimension == 5
    assert network.name_of("fid").startswith("frechet_distance[")


def test_a_run_without_a_trained_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model.keras"):
        ExtractorChoice(features=f"run:{tmp_path}").load()
    with pytest.raises(UserError, match="no such run"):
        ExtractorChoice(features=f"run:{tmp_path / 'none'}").load()
