from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data import opening, splits
from tfgan_med.data.mixing import MixConfig, MixedData, prepare_mixed
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError, UserError

SIZE = 8


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((SIZE, SIZE), value, np.uint8))


def write(root: Path, classes: Mapping[str, Iterable[int]]) -> Path:
    """Class folders; each picture is one grey value, by which it is known again."""
    for name, values in classes.items():
        (root / name).mkdir(parents=True)
        for value in values:
            picture(value).save(root / name / f"{value:03d}.png")
    return root


def with_splits(root: Path, rows: Sequence[Sequence[str]]) -> Path:
    with (root / "splits.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "split", "class", "group"), *rows])
    return root


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """20 normal pictures (values 0 to 19) and 12 abnormal ones (50 to 61)."""
    root = write(tmp_path / "real", {"normal": range(20), "abnormal": range(50, 62)})
    rows = []
    for name, values in (("normal", range(20)), ("abnormal", range(50, 62))):
        for index, value in enumerate(values):
            split = ("train", "train", "val", "test")[index % 4]
            rows.append((f"{name}/{value:03d}.png", split, name, f"patient {value}"))
    return with_splits(root, rows)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return write(tmp_path / "made", {"normal": range(100, 110), "abnormal": range(150, 156)})


def mixed(folder: Path, positive: str | None = None, **mix: Any) -> MixedData:
    config = DataConfig(path=str(folder), image_size=SIZE, check=False, flip=False)
    images = splits.assign(opening.open_set(config), config)
    return prepare_mixed(images, config, MixConfig(**mix), "labels", 0.2, positive)


def drawn(data: MixedData, count: int, seed: int = 0) -> list[tuple[int, int, float]]:
    """Grey value, class and weight of each picture of the first batches."""
    rows = []
    for batch in data.train_batches(8, seed).take(count // 8):
        values = np.rint((np.asarray(batch["images"])[:, 0, 0, 0] + 1) * 127.5).astype(int)
        weights = np.asarray(batch["weights"])
        rows += list(zip(values.tolist(), np.asarray(batch["labels"]).tolist(), weights.tolist(),
                         strict=True))  # fmt: skip
    return rows


def test_real_and_synthetic_pictures_come_with_their_class(real: Path, made: Path) -> None:
    data = mixed(real, synthetic=[str(made)])
    assert data.classes == ("abnormal", "normal")
    assert data.counts == {"train": 16 + 16, "val": 8, "test": 8}
    seen = {(value, label) for value, label, _ in drawn(data, 32)}
    assert len(seen) == 32
    assert all((value % 100 >= 50) == (label == 0) for value, label in seen)
    assert {value for value, _ in seen if value >= 100} == {*range(100, 110), *range(150, 156)}


def test_the_positive_class_is_the_one_that_is_not_called_healthy(real: Path) -> None:
    assert mixed(real).positive == 0
    assert mixed(real, positive="normal").positive == 1
    with pytest.raises(UserError, match="model.positive is 'ill', but the classes are"):
        mixed(real, positive="ill")


def test_synthetic_pictures_never_enter_validation_or_test(real: Path, made: Path) -> None:
    data = mixed(real, real=False, synthetic=[str(made)])
    assert data.counts == {"train": 16, "val": 8, "test": 8}
    assert all(value >= 100 for value, _, _ in drawn(data, 64))
    for split in ("val", "test"):
        for batch in data.batches(split):
            assert (np.rint((batch["images"] + 1) * 127.5) < 100).all()


def test_counts_keep_the_shares_of_the_classes_and_depend_on_the_seed(
    real: Path, made: Path
) -> None:
    eight = mixed(real, synthetic=[str(made)], count=8)
    assert eight.composition()["synthetic"] == {"abnormal": 3, "normal": 5}
    assert eight.composition()["real"] == {"abnormal": 6, "normal": 10}
    chosen = [
        {v for v, _, _ in drawn(mixed(real, synthetic=[str(made)], count=8, seed=s), 48) if v > 99}
        for s in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    half = mixed(real, synthetic=[str(made)], ratio=0.5)
    assert sum(half.composition()["synthetic"].values()) == 8
    only = mixed(real, synthetic=[str(made)], class_counts={"abnormal": 4})
    assert only.composition()["synthetic"] == {"abnormal": 4, "normal": 0}


def test_a_fraction_is_a_share_of_the_draws(real: Path, made: Path) -> None:
    data = mixed(real, synthetic=[str(made)], fraction=0.25)
    values = np.array([value for value, _, _ in drawn(data, 2000)])
    assert (values >= 100).mean() == 0.25


def test_weighted_sampling_draws_the_positive_class_at_its_rate(real: Path) -> None:
    labels = np.array([label for _, label, _ in drawn(mixed(real, sampling="weighted"), 1000)])
    assert (labels == 0).mean() == 0.5
    some = mixed(real, sampling="weighted", positive_rate=0.1)
    assert np.mean([label == 0 for _, label, _ in drawn(some, 1000)]) == 0.1


def test_balanced_weights_give_every_class_the_same_sum(real: Path) -> None:
    data = mixed(real)
    data.balance_classes()
    rows = drawn(data, 16)
    sums = [sum(weight for _, label, weight in rows if label == k) for k in (0, 1)]
    assert sums[0] == pytest.approx(sums[1]) == pytest.approx(8.0)


def test_an_augmentation_sees_the_place_of_the_first_draw_of_each_batch(real: Path) -> None:
    data = mixed(real)
    data.augment(lambda batch, first: {**batch, "first": first})
    assert [int(b["first"]) for b in data.train_batches(8, 0, start_step=3).take(2)] == [24, 32]


def test_maps_of_a_frozen_network_stand_for_pictures(real: Path, made: Path) -> None:
    data = mixed(real, synthetic=[str(made)])
    before = [value for value, _, _ in drawn(data, 32)]
    data.use_maps(lambda pictures: pictures.mean(axis=(1, 2), keepdims=True))
    maps = np.concatenate([np.asarray(b["features"]) for b in data.train_batches(8, 0).take(4)])
    assert np.rint((maps[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist() == before


def test_a_set_without_validation_holds_out_whole_patients(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"a": range(20), "b": range(50, 70)})
    rows = [
        (f"{name}/{value:03d}.png", "train", name, f"patient {value // 2}")
        for name, values in (("a", range(20)), ("b", range(50, 70)))
        for value in values
    ]
    config = DataConfig(path=str(with_splits(root, rows)), image_size=SIZE)
    images = splits.hold_out(splits.assign(opening.open_set(config), config), 0.2, config)
    same = config.model_copy(update={"hold_out": 0.2})
    assert splits.assign(opening.open_set(same), same) == images
    train, val = images.of_split("train"), images.of_split("val")
    assert len(val) == 8
    assert {record.label for record in val} == {"a", "b"}
    assert not {record.group for record in train} & {record.group for record in val}


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"real": False}, "nothing to train on"),
        ({"count": 3, "ratio": 1.0}, "mix.count and mix.ratio exclude each other"),
        ({"fraction": 0.5}, "needs both"),
        ({"class_counts": {"ill": 3}}, "no class 'ill'; the classes are abnormal, normal"),
        ({"count": 17}, "the folders hold"),
    ],
)
def test_contradictions_are_refused(
    real: Path, made: Path, mix: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {} if "real" in mix or "fraction" in mix else {"synthetic": [str(made)]}
    with pytest.raises(UserError, match=message):
        mixed(real, **given, **mix)


def test_synthetic_pictures_of_an_unknown_class_are_refused(real: Path, tmp_path: Path) -> None:
    odd = write(tmp_path / "odd", {"normal": [100], "sick": [101]})
    with pytest.raises(DataError, match="has the class 'sick'; the real classes are"):
        mixed(real, synthetic=[str(odd)])
    flat = tmp_path / "flat"
    flat.mkdir()
    picture(100).save(flat / "a.png")
    with pytest.raises(DataError, match="has no class; .* generate them with --per-class"):
        mixed(real, synthetic=[str(flat)])


def test_a_set_of_one_class_is_no_work_for_a_classifier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two classes or more, found normal"):
        mixed(write(tmp_path / "one", {"normal": range(20)}))


def test_the_fingerprint_lists_the_synthetic_pictures_that_are_used(real: Path, made: Path) -> None:
    print_ = mixed(real, synthetic=[str(made)], count=8).fingerprint()
    synthetic = [item for item in print_["items"] if item.get("domain")]
    assert len(synthetic) == 8
    assert {item["domain"] for item in synthetic} == {"synthetic:made"}
    assert print_["synthetic"] == [{"folder": "made", "used": 8, "of": 16, "provenance": None}]
    without = mixed(real, real=False, synthetic=[str(made)]).fingerprint()
    assert {i["split"] for i in without["items"] if not i.get("domain")} == {"val", "test"}


def masked(root: Path, first: int, count: int) -> Path:
    for name in ("images", "masks", "instances"):
        (root / name).mkdir(parents=True)
    for index in range(first, first + count):
        picture(index).save(root / "images" / f"{index}.png")
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:, : index % SIZE] = 255
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
        ids = (mask > 0).astype(np.uint16) * (index + 300)
        Image.fromarray(ids).save(root / "instances" / f"{index}.png")
    return root


@pytest.mark.parametrize("needs", ["masks", "ids"])
def test_masks_and_numbered_objects_lie_on_their_picture(tmp_path: Path, needs: Any) -> None:
    real, made = masked(tmp_path / "real", 1, 12), masked(tmp_path / "made", 101, 6)
    config = DataConfig(path=str(real), image_size=SIZE, check=False, flip=False)
    images = splits.assign(opening.open_set(config), config)
    data = prepare_mixed(images, config, MixConfig(synthetic=(str(made),)), needs, 0.2)
    seen = set()
    for batch in data.train_batches(7, 0).take(4):
        values = np.rint((np.asarray(batch["images"])[:, 0, 0, 0] + 1) * 127.5).astype(int)
        for value, target in zip(values, np.asarray(batch[needs]), strict=True):
            seen.add(int(value))
            columns = target[0, :, 0]
            inside = np.arange(SIZE) < value % SIZE
            assert (columns > 0).tolist() == inside.tolist()
            assert set(columns[inside].tolist()) <= ({1.0} if needs == "masks" else {value + 300})
    assert seen >= set(range(101, 107))
