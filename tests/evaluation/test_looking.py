"""One pass over a set: thumbnails of all, pixels of a random sample, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgan_med.evaluation import looking
from tfgan_med.evaluation.looking import Seen, Wanted, look, thumbnail
from tfgan_med.evaluation.pictures import Preparation, open_pictures


def seen(folder: Path, count: int, wanted: Wanted, seed: int = 0) -> Seen:
    """A pass over pictures that are 3 i bright."""
    if not folder.exists():
        folder.mkdir()
        for i in range(count):
            Image.fromarray(np.full((16, 24), 3 * i, np.uint8)).save(folder / f"{i:03}.png")
    return look(open_pictures(str(folder)), Preparation(), (16, 24), wanted, None, seed=seed)


def test_kept_pictures_are_the_rows_they_say_and_nested(tmp_path: Path) -> None:
    few, many = (seen(tmp_path / "set", 30, Wanted(pictures=n)).side for n in (5, 12))
    assert few.kept is not None and few.pictures is not None and many.kept is not None
    assert few.pictures.shape == (5, 16, 24, 3)
    np.testing.assert_array_equal(few.pictures[:, 0, 0, 0], 3 * few.kept)
    np.testing.assert_array_equal(few.kept, many.kept[:5])
    other = seen(tmp_path / "set", 30, Wanted(pictures=5), seed=1).side.kept
    assert other is not None and set(other) != set(few.kept)


def test_thumbnails_of_all_pictures_are_the_same_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = seen(tmp_path / "set", 8, Wanted(thumbnails=True)).side.thumbnails
    monkeypatch.setattr(looking, "_IN_MEMORY", 1000)
    outside = seen(tmp_path / "set", 8, Wanted(thumbnails=True)).side.thumbnails
    assert isinstance(outside, np.memmap) and not isinstance(inside, np.memmap)
    np.testing.assert_array_equal(inside, outside)
    assert inside is not None
    np.testing.assert_array_equal(inside[:, 0, 0], 3 * np.arange(8))


def test_a_thumbnail_is_the_mean_of_areas() -> None:
    checkers = np.zeros((128, 128, 3), np.uint8)
    checkers[::2, ::2] = checkers[1::2, 1::2] = 200
    np.testing.assert_array_equal(thumbnail(checkers), 100)


def test_what_nobody_wants_is_not_kept(tmp_path: Path) -> None:
    side = seen(tmp_path / "set", 4, Wanted()).side
    assert (side.pictures, side.thumbnails, side.features) == (None, None, None)
    assert len(side) == 4
