"""Translating files with a trained run: sizes and types come back, mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import Part
from tfgan_med.errors import DataError, UserError
from tfgan_med.training import translation
from tfgan_med.training.translation import Translator


@pytest.fixture
def translator(finished: Any) -> Translator:
    return Translator(finished.run)


def identity(monkeypatch: pytest.MonkeyPatch, translator: Translator, **shapes: Any) -> None:
    """Make the translator hand pictures through, so that reading and writing alone are tested."""
    picture = Encoding(role="images", kind="image", channels=1, window=(0, 65535), dtype="uint16")
    translator.shapes = translator.shapes.model_copy(
        update={"source": picture, "target": picture, **shapes}
    )
    monkeypatch.setattr(translation, "translate", lambda model, source, **more: source)


@pytest.mark.parametrize(
    ("fit", "size"), [("pad", (64, 64)), ("stretch", (64, 64)), ("patches", (100, 150))]
)
def test_a_16_bit_ramp_keeps_type_size_and_values(
    fit: str, size: tuple[int, int], translator: Translator, monkeypatch: Any, tmp_path: Path
) -> None:
    identity(monkeypatch, translator, fit=fit)
    ramp = np.linspace(0, 65535, size[0] * size[1]).round().astype(np.uint16).reshape(size)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    made, seen = translator.translate_part(Part(tmp_path / "ramp.png"), "images")
    assert made.dtype == np.uint16
    assert made.shape == (*size, 1)
    assert np.abs(made[..., 0].astype(int) - ramp).max() <= 1
    np.testing.assert_array_equal(seen[..., 0], ramp)


def test_what_was_padded_comes_back_in_the_size_of_the_input(
    translator: Translator, tmp_path: Path
) -> None:
    translator.shapes = translator.shapes.model_copy(update={"fit": "pad"})
    mask = np.zeros((90, 50), np.uint8)
    mask[20:60, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made, seen = translator.translate_part(Part(tmp_path / "mask.png"), "masks")
    assert made.shape == (90, 50, 3)
    assert made.dtype == np.uint8
    assert set(np.unique(seen)) <= {0, 1}


def test_a_flat_folder_of_masks_is_translated(translator: Translator, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / f"{name}.png")
    items = translation.conditions(translator, str(tmp_path), "test")
    assert translation.translate_folder(translator, items, tmp_path / "out") == 2
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [entry["condition"] for entry in provenance["images"]] == ["a.png", "b.png"]
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert np.array_equal(np.unique(np.asarray(mask)), [0, 255])


def test_several_samples_of_a_condition_differ_and_repeat_with_their_seed(
    translator: Translator, finished: Any, tmp_path: Path
) -> None:
    items = translation.conditions(translator, None, "val")[:1]
    for name in ("one", "two"):
        translation.translate_folder(translator, items, tmp_path / name, samples=3, seed=5)
    pictures = {
        name: [path.read_bytes() for path in sorted((tmp_path / name / "images").iterdir())]
        for name in ("one", "two")
    }
    assert pictures["one"] == pictures["two"]
    assert len(set(pictures["one"])) == 3


def test_a_checkpoint_translates_like_the_export_of_its_step(finished: Any, tmp_path: Path) -> None:
    final, latest = Translator(finished.run), Translator(finished.run, "latest")
    source = np.ones((1, 64, 64, 1), "float32")
    np.testing.assert_array_equal(
        translation.translate(final.model, source), translation.translate(latest.model, source)
    )


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network\.yaml"):
        Translator(tmp_path)


def test_a_split_without_items_is_named(translator: Translator, tmp_path: Path) -> None:
    config = translator.settings.data.model_copy(
        update={"path": str(tmp_path), "split": "random", "fractions": (1.0, 0.0, 0.0)}
    )
    translator.settings = translator.settings.model_copy(update={"data": config})
    for role in ("images", "masks"):
        (tmp_path / role).mkdir()
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / role / "a.png")
    with pytest.raises(DataError, match="no items in the split test"):
        translation.conditions(translator, None, "test")


def test_a_failed_translation_leaves_no_folder(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    items = translation.conditions(translator, None, "val")

    def fail(*args: Any, **more: Any) -> None:
        raise DataError("unreadable")

    monkeypatch.setattr(translator, "translate_part", fail)
    with pytest.raises(DataError):
        translation.translate_folder(translator, items, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_names_of_files_stay_apart() -> None:
    paths = [Path("images/a.png"), Path("images/b.png-2"), Path("images/c.v1.png")]
    assert translation.file_names(paths) == ["a", "b-2", "c.v1"]
    assert translation.file_names([Path("x/a.png"), Path("y/a.png")]) == ["x-a", "y-a"]


def test_the_runs_own_pictures_are_compared_at_network_size(
    train: Any, shared: Path, tmp_path: Path
) -> None:
    data = shared / "data" / "skin-isic2017"  # pictures of several sizes
    settings = (f"data.path={data}", "data.image_size=32", "train.steps=1")
    tiled = ("data.fit=patches", "data.scale=0.125", "data.load_size=32")
    for fit, count in ((("data.fit=stretch",), 17), (tiled, 17 * 4)):
        run = train(tmp_path, *settings, *fit).run
        for folder in ("translated", "reals"):
            pictures = list((run / folder / "test" / "images").iterdir())
            assert len(pictures) == count
            for path in pictures:
                with Image.open(path) as picture:
                    assert picture.size == (32, 32)
