"""From folders and runs to two sets, and to the pictures a generator was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgan_med.errors import UserError
from tfgan_med.evaluation.pictures import open_pictures
from tfgan_med.evaluation.sides import find_sides, held_out_pictures, training_pictures


def save(folder: Path, count: int) -> str:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i:03}.png")
    return str(folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "0003-pix2pix"
    save(folder / "translated" / "test" / "images", 6)
    save(folder / "reals" / "test" / "images", 6)
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
    fake = save(tmp_path / "fake", 2)
    with pytest.raises(UserError, match="Add --real DIR"):
        find_sides(None, fake, tmp_path)
    assert find_sides("real", fake, tmp_path).run is None


def test_a_run_that_has_made_nothing_yet_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "0001-pix2pix"
    folder.mkdir()
    (folder / "config.yaml").write_text("model: {}\n")
    with pytest.raises(UserError, match="tfgan-med generate"):
        find_sides(None, "last", tmp_path)


def test_the_two_directions_of_an_unpaired_run_have_their_own_reals(tmp_path: Path) -> None:
    run = tmp_path / "0001-cyclegan"
    for way, count in (("a2b", 3), ("b2a", 4)):
        save(run / "translated" / f"test-{way}" / "images", 2)
        save(run / "reals" / f"test-{way}" / "images", count)
    (run / "config.yaml").write_text("model: {}\n")
    assert len(open_pictures(find_sides(None, "1", tmp_path).real)) == 3
    back = find_sides(None, str(run / "translated" / "test-b2a"), tmp_path)
    assert (len(open_pictures(back.real)), back.run) == (4, run)


def test_training_and_held_out_pictures_come_from_the_splits_of_the_real_set(
    tmp_path: Path,
) -> None:
    root = Path(save(tmp_path / "set", 6))
    rows = [f"{i:03}.png,{'test' if i < 2 else 'train'}" for i in range(6)]
    (root / "splits.csv").write_text("\n".join(["file,split", *rows]) + "\n")
    training = training_pictures(None, str(root), None, "images")
    assert training is not None and len(training) == 4
    held_out = held_out_pictures(training, None, "images")
    assert held_out is not None and len(held_out) == 2


def test_a_set_without_splits_names_no_training_pictures(tmp_path: Path) -> None:
    root, other = save(tmp_path / "set", 3), save(tmp_path / "other", 2)
    assert training_pictures(None, root, None, "images") is None
    given = training_pictures(None, root, other, "images")
    assert given is not None and len(given) == 2
    assert held_out_pictures(given, None, "images") is None
    named = held_out_pictures(given, root, "images")
    assert named is not None and len(named) == 3
