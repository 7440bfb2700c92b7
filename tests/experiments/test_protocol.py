"""The file of an experiment: words, nearest names, scales, and what must not be set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tfgan_med.errors import UserError
from tfgan_med.experiments import protocol
from tfgan_med.experiments.protocol import Experiment

BASE: dict[str, Any] = {
    "experiment": "xrays",
    "data": {"path": "pictures", "image_size": 64},
    "generators": {
        "fast": {"train": "fastgan", "per_class": True, "count": 40},
        "masks": {"train": "dcgan", "data": {"target": "masks"}},
        "pairs": {"train": "pix2pix", "input": "masks"},
    },
    "downstream": {"vgg16": {"train": {"steps": 30}}},
    "arms": ["real", "real+classic", "synthetic:fast", "real+fast+classic", "weighted"],
}


def parsed(**changes: Any) -> Experiment:
    return protocol.parse({**BASE, **changes}, Path("/somewhere"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Arms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "real", "synthetic", "classic", "sampling", "ratio"),
    [
        ("real", True, (), False, "uniform", None),
        ("real+classic", True, (), True, "uniform", None),
        ("classic", True, (), True, "uniform", None),
        ("synthetic:fast", False, ("fast",), False, "uniform", None),
        ("real+synthetic:fast", True, ("fast",), False, "uniform", None),
        ("real+fast", True, ("fast",), False, "uniform", None),
        ("real+fast@0.5", True, ("fast",), False, "uniform", 0.5),
        ("real+fast+pairs+classic", True, ("fast", "pairs"), True, "uniform", None),
        ("weighted", True, (), False, "weighted", None),
        ("weighted+fast", True, ("fast",), False, "weighted", None),
        # `synthetic` means all generators but those that others take as their input.
        ("synthetic", False, ("fast", "pairs"), False, "uniform", None),
        ("real+synthetic+classic", True, ("fast", "pairs"), True, "uniform", None),
    ],
)
def test_the_words_of_an_arm_say_what_it_is_trained_on(
    words: str,
    real: bool,
    synthetic: tuple[str, ...],
    classic: bool,
    sampling: str,
    ratio: float | None,
) -> None:
    arm = parsed(arms=["real", words] if words != "real" else ["real"]).arms[-1]
    assert (arm.name, arm.real, arm.synthetic) == (words, real, synthetic)
    assert (arm.classic, arm.sampling, arm.ratio) == (classic, sampling, ratio)


def test_an_arm_can_be_a_block_and_gets_a_name_of_its_words() -> None:
    arms = parsed(
        arms=[
            "real",
            {"synthetic": ["fast"], "ratio": 0.5, "classic": "cells"},
            {"name": "only", "real": False, "synthetic": ["fast"], "fraction": 0.3},
        ]
    ).arms
    assert [arm.name for arm in arms] == ["real", "real+fast+classic+ratio0.5", "only"]
    assert arms[1].classic == "cells"


def test_a_sweep_adds_an_arm_for_each_ratio() -> None:
    experiment = parsed(arms=["real"], sweep={"generators": ["fast"], "ratios": [0.5, 2]})
    assert [arm.name for arm in experiment.all_arms] == ["real", "real+fast@0.5", "real+fast@2"]
    assert [arm.ratio for arm in experiment.all_arms] == [None, 0.5, 2.0]


def test_an_arm_that_is_in_the_sweep_too_is_trained_once() -> None:
    experiment = parsed(arms=["real", "real+fast@2"], sweep={"generators": ["fast"], "ratios": [2]})
    assert [arm.name for arm in experiment.all_arms] == ["real", "real+fast@2"]


def test_arms_are_compared_with_real_pictures() -> None:
    assert parsed(arms=["synthetic:fast", "real"]).reference.name == "real"
    assert parsed(arms=["weighted", "synthetic:fast"]).reference.name == "weighted"


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": ["real+fsat"]}, "Did you mean fast?"),
        ({"arms": ["fast"]}, "Write real+fast or synthetic:fast"),
        ({"arms": ["real+fast@0"]}, "above 0 behind @"),
        ({"arms": ["real", "real"]}, "real occurs twice"),
        ({"arms": [{"real": False}]}, "neither real nor synthetic"),
        ({"arms": [{"ratio": 2}]}, "it has none"),
        ({"arms": [{"synthetik": ["fast"]}]}, "Did you mean synthetic?"),
        ({"sweep": {"generators": ["fats"]}}, "Did you mean fast?"),
        ({"downstream": {"vgg61": {}}}, "Did you mean vgg16?"),
        ({"downstream": {"a": {"system": "vgg1"}}}, "Did you mean vgg16?"),
        ({"downstream": {}}, "downstream: not given"),
        ({"downstream": {"vgg16": {"stepz": 3}}}, "downstream.vgg16.stepz: unknown setting"),
        ({"downstream": {"vgg16": {"train": {"seed": 1}}}}, "follows from `seeds`"),
        ({"generators": {"fast": {"train": "fastgam"}}}, "Did you mean fastgan?"),
        ({"generators": {"fast": {}}}, "expected one of train"),
        ({"generators": {"fast": {"train": "dcgan", "run": "/"}}}, "train and run"),
        ({"generators": {"fast": {"folder": "nowhere"}}}, "no such folder"),
        ({"generators": {"fast": {"folder": "/", "model": {"a": 1}}}}, "not trained here"),
        ({"generators": {"fast": {"train": "dcgan", "per_clas": 1}}}, "Did you mean per_class?"),
        ({"generators": {"real": {"train": "dcgan"}}}, "a word of the arms"),
        ({"generators": {"fast": {"train": "pix2pix", "input": "fsat"}}}, "Did you mean fast?"),
        (
            {"generators": {"fast": {"train": "dcgan", "count": 4, "ratio": 1}}},
            "exclude each other",
        ),
        ({"grid": {"model.dropout": [0.1]}, "arms": ["weighted"]}, "decided on the arm `real`"),
        ({"metrics": {"generative": ["fdi"]}}, "Did you mean fid?"),
        ({"seeds": [1, 1]}, "has one twice"),
        ({"seeds": [-1]}, "below 0"),
        ({"sedes": [1]}, "Did you mean seeds?"),
        ({"experiment": "a/b"}, "experiment"),
    ],
)
def test_a_mistake_names_the_setting_and_the_nearest_word(
    changes: dict[str, Any], told: str
) -> None:
    arms = {"arms": ["real"]} if "arms" not in changes else {}
    with pytest.raises(UserError) as caught:
        parsed(**{**arms, **changes})
    assert told in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", protocol.SPLIT_KEYS)
def test_no_generator_can_choose_pictures_of_its_own(key: str) -> None:
    """Else it could be trained on pictures of the test split."""
    block = {"train": "dcgan", "data": {key: "x"}}
    with pytest.raises(UserError, match=f"generators.g.data.{key}: cannot be set here"):
        parsed(generators={"g": block}, arms=["real"])


@pytest.mark.parametrize("key", protocol.SPLIT_KEYS)
def test_no_downstream_model_can_choose_pictures_of_its_own(key: str) -> None:
    with pytest.raises(UserError, match=f"downstream.vgg16.data.{key}: cannot be set here"):
        parsed(downstream={"vgg16": {"data": {key: "x"}}}, arms=["real"])


# Files --------------------------------------------------------------------------------------------

TEXT = """
experiment: xrays
data: {path: pictures, image_size: 128}
generators:
  fast: {train: fastgan, settings: {steps: 5000}, count: 400}
  old: {folder: made}
downstream: {vgg16: {train: {steps: 300}}}
arms: [real, real+fast, real+old]
seeds: [0, 1, 2]
scales:
  small:
    data: {image_size: 64}
    generators: {fast: {settings: {steps: 50}}, old: null}
    arms: [real, real+fast]
    seeds: [0]
"""


def test_a_scale_is_merged_over_the_rest(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    file = write(tmp_path / "study.yaml", TEXT)
    whole, small = protocol.read(file), protocol.read(file, "small")
    assert whole.data.image_size == 128 and small.data.image_size == 64
    assert whole.generators["fast"].settings == {"steps": 5000}
    assert small.generators["fast"].settings == {"steps": 50}
    assert small.generators["fast"].count == 400
    assert set(small.generators) == {"fast"}
    assert [arm.name for arm in small.arms] == ["real", "real+fast"]
    assert small.seeds == (0,)
    with pytest.raises(UserError, match="Did you mean small?"):
        protocol.read(file, "smal")


def test_a_change_beats_the_scale_and_reaches_into_blocks(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    file = write(tmp_path / "study.yaml", TEXT)
    changes = ["generators.fast.settings.steps=7", "seeds=[3,4]"]
    changed = protocol.read(file, "small", changes)
    assert changed.generators["fast"].settings == {"steps": 7}
    assert changed.seeds == (3, 4)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    file = write(tmp_path / "study.yaml", TEXT)
    monkeypatch.chdir("/")
    read = protocol.read(file)
    assert read.data.path == str(tmp_path / "pictures")
    assert read.generators["old"].folder == tmp_path / "made"


def test_the_resolved_file_says_the_same_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    read = protocol.read(write(tmp_path / "study.yaml", TEXT), "small")
    other = tmp_path / "experiments" / "xrays"
    other.mkdir(parents=True)
    text = protocol.as_yaml(read, other)
    assert str(tmp_path) not in text
    again = protocol.read(write(other / "experiment.yaml", text))
    assert again == read


def test_grid_points_are_every_combination() -> None:
    points = protocol.grid_points({"model.rate": [1, 2], "model.dropout": [0.3]})
    assert points == [
        {"model.rate": 1, "model.dropout": 0.3},
        {"model.rate": 2, "model.dropout": 0.3},
    ]
    assert protocol.nested(points[0]) == {"model": {"rate": 1, "dropout": 0.3}}
    assert protocol.grid_points({}) == []
