"""Built-in sets: deterministic, disjoint, laid out like a user's folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tfgan_med.data import builtin, builtin_malaria, builtin_smear
from tfgan_med.data.opening import open_set
from tfgan_med.data.pipeline import prepare_pairs
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import UserError
from tfgan_med.files import sha256_of


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "splits.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_sets_are_listed_and_have_options() -> None:
    assert builtin.available() == ["histology", "malaria", "smear"]
    assert set(builtin.OPTIONS) == set(builtin.SETS)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("builtin:smeer", "no such built-in set. Did you mean smear"),
        ("builtin:smear?sise=64", "'sise' is no option .* Did you mean size"),
        ("builtin:smear?size=big", "size is 'big', but must be a whole number from 32 to 1024"),
        ("builtin:histology?size=400", "from 32 to 160"),
        ("builtin:smear?count=", "count is ''"),
        ("builtin:smear?seed=-1", "seed is '-1'"),
    ],
)
def test_mistakes_in_a_name_are_explained(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        builtin.materialize(path)


@pytest.mark.parametrize("size", [64, 128])
def test_histology_splits_share_no_pixel(size: int) -> None:
    rows = table(builtin.materialize(f"builtin:histology?size={size}"))
    seen = {split: np.zeros((512, 512), bool) for split in ("train", "val", "test")}
    for row in rows:
        y, x = int(row["y"]), int(row["x"])
        seen[row["split"]][y : y + size, x : x + size] = True
    assert not (seen["train"] & seen["val"]).any()
    assert not (seen["train"] & seen["test"]).any()
    assert not (seen["val"] & seen["test"]).any()
    counts = {split: sum(row["split"] == split for row in rows) for split in seen}
    assert counts["train"] >= 160
    assert min(counts["val"], counts["test"]) >= 24


def test_histology_crops_are_where_the_table_says() -> None:
    from skimage import data

    micrograph = data.immunohistochemistry()  # type: ignore[no-untyped-call]
    folder = builtin.materialize("builtin:histology")
    for row in table(folder)[::60]:
        y, x = int(row["y"]), int(row["x"])
        crop = np.asarray(Image.open(folder / row["file"]))
        assert (crop == micrograph[y : y + 128, x : x + 128]).all()


def test_histology_labels_tell_the_stains_apart() -> None:
    folder = builtin.materialize("builtin:histology")
    pixels, labels = (
        np.concatenate(
            [
                np.asarray(Image.open(path)).reshape(128 * 128, -1)
                for path in sorted((folder / role).iterdir())[::20]
            ]
        )
        for role in ("images", "labels")
    )
    brown, white, nuclei = (pixels[labels[:, 0] == k].mean(axis=0) for k in (1, 0, 2))
    assert brown[0] - brown[2] > 50  # red over blue: the antibody's brown
    assert nuclei[0] - nuclei[2] < 0.6 * (brown[0] - brown[2])  # bluer than what surrounds them
    assert white.mean() > nuclei.mean() + 40
    share = np.bincount(labels[:, 0]) / len(labels)
    assert (share > 0.1).all()


def test_histology_is_ready_to_train_on() -> None:
    config = DataConfig(path="builtin:histology", image_size=64)
    data = prepare_pairs(open_set(config), config)
    assert (data.source.role, data.source.channels, data.target.channels) == ("labels", 3, 3)
    assert data.counts == {"train": 350, "val": 36, "test": 36}


def test_a_smear_is_the_same_every_time_and_another_for_another_seed() -> None:
    first, second = builtin_smear.render(64, 5, 3), builtin_smear.render(64, 5, 3)
    assert [part.tobytes() for part in first] == [part.tobytes() for part in second]
    assert (builtin_smear.render(64, 5, 3)[0] != builtin_smear.render(64, 6, 3)[0]).any()
    assert (builtin_smear.render(64, 5, 3)[0] != builtin_smear.render(64, 5, 4)[0]).any()


def test_a_longer_smear_set_begins_with_the_shorter_one() -> None:
    short = builtin.materialize("builtin:smear?size=48&count=8")
    long = builtin.materialize("builtin:smear?size=48&count=12")
    for row in table(short):
        assert sha256_of(short / row["file"]) == sha256_of(long / row["file"])
    assert table(long)[:8] == table(short)


def test_smear_masks_instances_and_labels_agree() -> None:
    folder = builtin.materialize("builtin:smear?size=96&count=12")
    for row in table(folder):
        stem = Path(row["file"]).name
        mask, instances, labels = (
            np.asarray(Image.open(folder / role / stem))
            for role in ("masks", "instances", "labels")
        )
        assert instances.dtype == np.uint16
        assert ((mask == 255) == (instances > 0)).all()
        assert ((labels > 0) == (instances > 0)).all()
        assert instances.max() == len(np.unique(instances)) - 1 == int(row["cells"])
        for cell in range(1, instances.max() + 1):
            assert len(np.unique(labels[instances == cell])) == 1


def test_smear_cells_are_darker_than_the_field_and_lie_where_the_mask_says() -> None:
    for index in range(0, 12, 2):
        picture, instances, _ = builtin_smear.render(128, 0, index)
        green = picture[..., 1].astype(float)
        inside = ndimage.binary_erosion(instances > 0, iterations=3)
        outside = ndimage.binary_erosion(instances == 0, iterations=4)
        assert green[inside].mean() < green[outside].mean() - 15


def test_smear_slides_are_not_divided_between_splits() -> None:
    rows = table(builtin.materialize("builtin:smear?size=32&count=28"))
    splits_of: dict[str, set[str]] = {}
    for row in rows:
        splits_of.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in splits_of.values())
    counts = [sum(row["split"] == split for row in rows) for split in ("train", "val", "test")]
    assert counts == [20, 4, 4]


def test_two_that_write_at_once_end_with_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtin._samples

    def slow(name: str, options: dict[str, int]):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(builtin, "_samples", real)
        other = builtin.materialize("builtin:smear?size=32&count=7&seed=9")
        assert other.is_dir()
        yield from real(name, options)

    monkeypatch.setattr(builtin, "_samples", slow)
    folder = builtin.materialize("builtin:smear?size=32&count=7&seed=9")
    assert len(table(folder)) == 7
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_malaria_has_its_share_of_infected_cells_and_only_they_have_parasites() -> None:
    folder = builtin.materialize("builtin:malaria?size=48&count=200&infected=25")
    rows = table(folder)
    ill = [row for row in rows if row["class"] == "infected"]
    assert len(ill) == 50
    for row in rows[::7]:
        mask = np.asarray(Image.open(folder / "masks" / Path(row["file"]).name))
        assert bool(mask.any()) == (row["class"] == "infected"), row["file"]
    groups = {row["group"]: row["split"] for row in rows}
    assert all(groups[row["group"]] == row["split"] for row in rows)
    shares = [sum(row["split"] == s for row in rows) / 200 for s in ("train", "val", "test")]
    assert shares == pytest.approx([0.55, 0.15, 0.30], abs=0.03)


def test_a_parasite_darkens_its_pixels_of_the_same_cell() -> None:
    for index in range(6):
        healthy, none = builtin_malaria.render(64, 0, index, ill=False)
        infected, parasites = builtin_malaria.render(64, 0, index, ill=True)
        assert not none.any()
        assert 10 < parasites.sum() < 64 * 64 / 8
        change = healthy.astype(float) - infected
        assert change[parasites].mean() > change[~parasites].mean() + 5
