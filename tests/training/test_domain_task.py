"""Runs that translate two kinds of pictures into each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data.opening import open_set
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.evaluation.sides import find_sides, training_pictures
from tfgan_med.training import fit, settings
from tfgan_med.training.domain_task import _correlation, _inverted
from tfgan_med.training.progress import Reporter
from tfgan_med.training.translation import Translator, conditions, translate_folder

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "cyclegan.yaml"


def trained(runs: Path, *changes: str) -> Any:
    chosen = settings.resolve("cyclegan", SMOKE, ["train.steps=2", *changes])
    training = fit.Training(chosen, Reporter(quiet=True))
    with training.opened(runs) as folder:
        return training.run(folder)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright grey pictures, five of them dark ones to test with, three bright ones."""
    folder = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(0)
    rows = ["file,split"]
    for label, level, test in (("bright", 180, 3), ("dark", 60, 5)):
        (folder / label).mkdir()
        for index in range(8 + test):
            pixels = np.clip(random.normal(level, 20, (32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label}{index:02d}.png")
            rows.append(f"{label}/{label}{index:02d}.png,{'train' if index < 8 else 'test'}")
    (folder / "splits.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def result(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    changes = (f"data.path={classes}", "data.image_size=32", "data.domain_a=dark")
    return trained(tmp_path_factory.mktemp("runs"), *changes, "data.domain_b=bright")


def test_both_directions_of_the_test_split_are_made_with_the_class_they_now_have(
    result: Any,
) -> None:
    for name, label, count in (("test-a2b", "bright", 5), ("test-b2a", "dark", 3)):
        made = open_set(DataConfig(path=str(result.run / "translated" / name)))
        assert (len(made.records), made.labels) == (count, (label,))
        facts = json.loads((result.run / "translated" / name / "provenance.json").read_text())
        assert (facts["label"], facts["direction"]) == (label, name[5:])
        assert facts["weights"]["file"] == f"weights/generator_{name[5]}{name[7]}.weights.h5"
    reals = [len(list((result.run / "reals" / f"test-{way}" / "images").iterdir()))
             for way in ("a2b", "b2a")]  # fmt: skip
    assert reals == [3, 5]


def test_copies_are_looked_for_among_the_training_pictures_of_the_target(result: Any) -> None:
    for way, label in (("a2b", "bright"), ("b2a", "dark")):
        sides = find_sides(None, str(result.run / "translated" / f"test-{way}"))
        pictures = training_pictures(result.run, sides.real, None, "images")
        assert pictures is not None
        assert {record.label for record in pictures.records} == {label}
        assert len(pictures) == 8


def test_a_direction_takes_its_own_conditions_and_network(result: Any, tmp_path: Path) -> None:
    there, back = (Translator(result.run, direction=way) for way in ("a2b", "b2a"))
    assert {record.label for record, _ in conditions(there, None, "all")} == {"dark"}
    assert {record.label for record, _ in conditions(back, None, "all")} == {"bright"}
    items = conditions(back, None, "test")
    assert translate_folder(back, items, tmp_path / "made") == 3
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "images", "inputs", "provenance.json", "splits.csv",
    ]  # fmt: skip
    part = items[0][0].parts["images"]
    assert not np.array_equal(there.translate_part(part, "images")[0],
                              back.translate_part(part, "images")[0])  # fmt: skip


def test_kinds_of_unequal_channels_translate_both_ways(tmp_path: Path) -> None:
    changes = ("data.domain_a=images", "data.domain_b=masks", "model.lambda_identity=0")
    run = trained(tmp_path, "data.mode=rgb", *changes).run
    for way, channels in (("a2b", 1), ("b2a", 3)):
        translator = Translator(run, direction=way)  # type: ignore[arg-type]
        ((record, role),) = conditions(translator, None, "test")[:1]
        made, _ = translator.translate_part(record.parts[role], role)
        assert made.shape == (64, 64, channels)


def test_a_run_of_pairs_has_no_direction(finished: Any) -> None:
    with pytest.raises(UserError, match="translates one way only"):
        Translator(finished.run, direction="a2b")


def test_inverted_brightness_is_told() -> None:
    ramp = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    assert _correlation(ramp, ramp * 0.5 + 0.2) == pytest.approx(1.0, abs=1e-6)
    assert _correlation(ramp, -ramp) == pytest.approx(-1.0, abs=1e-6)
    assert _correlation(ramp, np.zeros_like(ramp)) == 0.0
    told = _inverted({"correlation_a2b": 0.3, "correlation_b2a": -0.4})
    assert told is not None and "b2a inverts brightness" in told
    assert _inverted({"correlation_a2b": 0.3, "correlation_b2a": 0.1}) is None
