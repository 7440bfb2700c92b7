"""Guards: each finds what it is for in folders on disk, and lets honest experiments pass."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med import files
from tfgan_med.data import check, opening, splits
from tfgan_med.data.records import DataConfig, ImageSet
from tfgan_med.errors import DataError, UserError
from tfgan_med.experiments import guards
from tfgan_med.experiments.guards import Finding, Item

SIDE = 64
TRAIN, VAL, TEST = 30, 6, 24


def drawn(seed: int) -> npt.NDArray[np.uint8]:
    """A smooth picture with some structure, different for each seed."""
    random = np.random.default_rng(seed)
    places = np.arange(SIDE) / SIDE
    fy, fx = 2 * np.pi * random.uniform(-4, 4, (2, 12, 1, 1))
    waves = np.sin(fy * places[:, None] + fx * places[None, :] + 6.3 * random.random((12, 1, 1)))
    picture = (random.normal(size=(12, 1, 1)) * waves).sum(axis=0)
    return np.asarray(np.clip(128 + 45 * picture / picture.std(), 0, 255), np.uint8)


def save(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def split_of(number: int) -> str:
    if number < TRAIN:
        return "train"
    return "val" if number < TRAIN + VAL else "test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of thirty patients, two each, with given splits."""
    path = tmp_path_factory.mktemp("real")
    rows = ["file,split,group"]
    for number in range(TRAIN + VAL + TEST):
        save(path / f"{number:02}.png", drawn(number))
        rows.append(f"{number:02}.png,{split_of(number)},patient {number // 2}")
    (path / "splits.csv").write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def config(folder: Path) -> DataConfig:
    return DataConfig(path=str(folder), image_size=SIDE)


@pytest.fixture(scope="module")
def images(config: DataConfig) -> ImageSet:
    return splits.assign(opening.open_set(config), config)


@pytest.fixture(scope="module")
def items(images: ImageSet) -> list[Item]:
    return guards.items_of(images)


def seen(items: Sequence[Item], numbers: Sequence[int], **more: Any) -> list[dict[str, Any]]:
    """Entries of `data.json` and `trained_on`, as training writes them."""
    chosen = [items[number] for number in numbers]
    return [
        {"id": i.id, "sha256": {"images": next(iter(i.hashes))}, "group": i.group, **more}
        for i in chosen
    ]


def synthetic(place: Path, pictures: Sequence[npt.NDArray[np.uint8]], **provenance: Any) -> Path:
    """A folder as `generate` writes it."""
    place.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        save(place / f"{number:04}.png", picture)
    if provenance:
        files.write_json(place / "provenance.json", {"synthetic": True, **provenance})
    return place


def run(place: Path, items: list[dict[str, Any]], **outcome: Any) -> Path:
    """A run folder, as far as guards read it."""
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("system: vgg16\n")
    files.write_json(place / "data.json", {"items": items})
    if outcome:
        files.write_json(place / "outcome.json", outcome)
    return place


# Generators and classifiers -----------------------------------------------------------------------


def test_a_generator_that_saw_a_test_picture_is_found(items: list[Item], tmp_path: Path) -> None:
    honest = synthetic(tmp_path / "honest", [], trained_on=seen(items, range(TRAIN)))
    leaking = synthetic(tmp_path / "leaking", [], trained_on=seen(items, [0, 1, 36, 37, 40]))
    assert guards.generator_leak({"a": honest}, items).status == "passed"
    found = guards.generator_leak({"a": honest, "b": leaking}, items)
    assert found.status == "violated"
    assert "b on 4" in found.message and "a on" not in found.message
    # 41 is the other picture of the patient of 40.
    assert found.items[:2] == ["b: 36.png (test), the same file", "b: 37.png (test), the same file"]
    assert found.items[3] == "b: 41.png (test), of a patient or part in its training data"


def test_a_validation_picture_counts_for_generators_but_not_for_classifiers(
    items: list[Item], tmp_path: Path
) -> None:
    here = run(tmp_path / "run", seen(items, [0, 1, TRAIN], split="train"))
    assert guards.generator_leak({"gan": here}, items).status == "violated"
    assert guards.classifier_leak({"vgg16": here}, items).status == "passed"


def test_a_run_for_each_class_is_looked_at_whole(items: list[Item], tmp_path: Path) -> None:
    run(tmp_path / "runs" / "00-a", seen(items, range(10), split="train"))
    run(tmp_path / "runs" / "b", seen(items, [50], split="train"))
    classes = {"system": "dcgan", "classes": {"a": "00-a", "b": "b"}}
    files.write_json(tmp_path / "runs" / "classes.json", classes)
    found = guards.generator_leak({"gan": tmp_path / "runs"}, items)
    assert found.status == "violated" and "gan on 2" in found.message


def test_the_test_items_that_a_run_lists_for_evaluation_are_no_leak(
    items: list[Item], tmp_path: Path
) -> None:
    entries = seen(items, range(TRAIN), split="train") + seen(items, [40, 41], split="test")
    here = run(tmp_path / "run", entries)
    assert guards.classifier_leak({"vgg16": here}, items).status == "passed"


def test_a_patient_of_the_test_split_in_the_training_of_a_classifier_is_found(
    items: list[Item], tmp_path: Path
) -> None:
    other = [{"id": "new.png", "split": "train", "sha256": {"images": "0" * 64},
              "group": items[40].group}]  # fmt: skip
    found = guards.classifier_leak({"vgg16": run(tmp_path / "run", other)}, items)
    assert found.status == "violated"
    assert [item.partition(" (")[0] for item in found.items] == ["vgg16: 40.png", "vgg16: 41.png"]


def test_a_file_that_the_training_split_holds_too_proves_nothing() -> None:
    empty = frozenset({"empty mask"})
    known = [
        Item("0", "train", frozenset({"a"}) | empty, None),
        Item("1", "test", frozenset({"b"}) | empty, None),
    ]
    assert list(guards._leaked([Item("0", "train", empty, None)], known, ("test",))) == []
    of_test = [Item("x", "train", frozenset({"b"}), None)]
    assert [i.id for i, _ in guards._leaked(of_test, known, ("test",))] == ["1"]


def test_a_folder_without_provenance_is_said_loudly_and_a_leak_beside_it_is_worse(
    items: list[Item], tmp_path: Path
) -> None:
    bare = synthetic(tmp_path / "bare", [drawn(900)])
    found = guards.generator_leak({"mine": bare}, items)
    assert found.status == "skipped"
    assert found.message.startswith("NOT CHECKED: nothing says what mine was trained on")
    empty = synthetic(tmp_path / "empty", [], trained_on=[])
    assert guards.generator_leak({"mine": empty}, items).status == "skipped"
    leaking = synthetic(tmp_path / "leaking", [], trained_on=seen(items, [40]))
    assert guards.generator_leak({"mine": bare, "b": leaking}, items).status == "violated"


# The data set -------------------------------------------------------------------------------------


def test_a_patient_on_both_sides_is_found(images: ImageSet, folder: Path, tmp_path: Path) -> None:
    assert guards.group_across_splits(images).status == "passed"
    copy = Path(shutil.copytree(folder, tmp_path / "real"))
    table = copy / "splits.csv"
    table.write_text(table.read_text().replace("00.png,train", "00.png,test"))
    mixed = opening.open_set(DataConfig(path=str(copy)))
    found = guards.group_across_splits(mixed)
    assert found.status == "violated" and found.message.startswith("1 of the groups")
    assert len(found.items) == 1 and "patient 0" not in found.items[0]


def test_without_groups_patients_are_not_checked_and_that_is_said(tmp_path: Path) -> None:
    plain = synthetic(tmp_path / "plain", [drawn(0), drawn(1)])
    found = guards.group_across_splits(opening.open_set(DataConfig(path=str(plain))))
    assert found.status == "skipped" and "NOT CHECKED" in found.message


@pytest.mark.parametrize("change", ["identical", "saved again"])
def test_a_picture_in_two_splits_is_found(change: str, folder: Path, tmp_path: Path) -> None:
    config = DataConfig(path=str(folder))
    assert guards.near_duplicates(check.check(config)).status == "passed"
    copy = Path(shutil.copytree(folder, tmp_path / "real"))
    twin = drawn(0) if change == "identical" else (drawn(0) * 0.97).astype(np.uint8)
    save(copy / "50.png", twin)
    found = guards.near_duplicates(check.check(DataConfig(path=str(copy))))
    assert found.status == "violated"
    assert len(found.items) == 1 and "50.png" in found.items[0] and "00.png" in found.items[0]


# Copies -------------------------------------------------------------------------------------------


def noisy(picture: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 1.5, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255), np.uint8)


def test_honest_pictures_pass_and_copies_are_counted(
    items: list[Item], images: ImageSet, config: DataConfig, tmp_path: Path
) -> None:
    fresh = [drawn(1000 + n) for n in range(40)]
    honest = synthetic(tmp_path / "honest", fresh, trained_on=seen(items, range(TRAIN)))
    one = guards.copies_in(honest, items, images, config)
    assert (one.of, one.near_copies, one.alarming, one.reason) == (40, 0, False, "")
    copied = [noisy(drawn(n), n)[:, ::-1] for n in range(10)] + fresh[:30]
    copying = synthetic(tmp_path / "copying", copied, trained_on=seen(items, range(TRAIN)))
    two = guards.copies_in(copying, items, images, config)
    assert two.alarming and two.near_copies == 10 and two.flagged >= 10 and two.of == 40
    assert set(two.pairs) >= {f"{n:04}.png ~ {n:02}.png" for n in range(10)}

    assert guards.copies({"honest": one}).status == "passed"
    found = guards.copies({"honest": one, "copying": two})
    assert found.status == "violated"
    assert "of 40 pictures are closer to a training picture" in found.message
    assert all(item.startswith("copying: ") for item in found.items)


def test_copies_of_another_brightness_are_no_near_copies_but_too_many_too_close(
    items: list[Item], images: ImageSet, config: DataConfig, tmp_path: Path
) -> None:
    darker = [(drawn(n) * 0.9).astype(np.uint8) for n in range(20)]
    copying = synthetic(tmp_path / "copying", darker + [drawn(1000 + n) for n in range(20)])
    found = guards.copies_in(copying, items, images, config)
    assert found.near_copies == 0 and found.flagged >= 20
    assert found.alarming and found.p_value < 0.01


def test_copies_are_found_without_provenance_and_with_few_held_out_pictures(
    folder: Path, tmp_path: Path
) -> None:
    config = DataConfig(path=str(folder), image_size=SIDE, split="random", fractions=(1, 0, 0))
    images = splits.assign(opening.open_set(config), config)
    items = guards.items_of(images)
    copying = synthetic(tmp_path / "copying", [noisy(drawn(n), n) for n in range(12)])
    honest = synthetic(tmp_path / "honest", [drawn(2000 + n) for n in range(12)])
    assert guards.copies_in(copying, items, images, config).alarming
    assert not guards.copies_in(honest, items, images, config).alarming


def test_real_pictures_are_cut_as_training_cut_them(tmp_path: Path) -> None:
    """Wide pictures, of which training saw the middle square."""
    rows = ["file,split"]
    for number in range(60):
        wide = np.hstack([drawn(5000 + number), drawn(number), drawn(6000 + number)])
        save(tmp_path / "wide" / f"{number:02}.png", wide)
        rows.append(f"{number:02}.png,{split_of(number)}")
    (tmp_path / "wide" / "splits.csv").write_text("\n".join(rows))
    copying = synthetic(tmp_path / "copying", [noisy(drawn(n), n) for n in range(8)])
    near_copies = {}
    for fit in ("crop", "stretch"):
        config = DataConfig(path=str(tmp_path / "wide"), image_size=SIDE, fit=fit)
        images = splits.assign(opening.open_set(config), config)
        found = guards.copies_in(copying, guards.items_of(images), images, config)
        near_copies[fit] = found.near_copies
    assert near_copies == {"crop": 8, "stretch": 0}


def test_a_translated_picture_is_no_copy_of_the_one_it_was_made_from(tmp_path: Path) -> None:
    rows = ["file,split"]
    for label, shift in (("normal", 0), ("abnormal", 100)):
        for number in range(60):
            save(tmp_path / "real" / label / f"{number:02}.png", drawn(shift + number))
            rows.append(f"{label}/{number:02}.png,{split_of(number)}")
    (tmp_path / "real" / "splits.csv").write_text("\n".join(rows))
    config = DataConfig(path=str(tmp_path / "real"), image_size=SIDE)
    images = splits.assign(opening.open_set(config), config)
    items = guards.items_of(images)
    made = [noisy(drawn(n), n) for n in range(20)]  # keep the looks of normal ones
    for label, alarming in (("abnormal", False), ("normal", True)):
        folder = synthetic(tmp_path / f"as-{label}", made)
        table = "".join(f"{n:04}.png,{label}\n" for n in range(20))
        (folder / "splits.csv").write_text(f"file,class\n{table}")
        assert guards.copies_in(folder, items, images, config).alarming == alarming


def test_what_cannot_be_compared_is_said(
    items: list[Item], images: ImageSet, config: DataConfig, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    one = guards.copies_in(tmp_path / "nothing", items, images, config)
    found = guards.copies({"gan": one})
    assert found.status == "skipped"
    assert found.message.startswith("NOT CHECKED: gan: could not be compared")


def test_a_mask_that_all_items_share_tells_nothing_of_the_training_pictures(
    images: ImageSet, tmp_path: Path
) -> None:
    known = [
        Item(record.id, record.split, frozenset({f"picture {n}", "empty mask"}), None)
        for n, record in enumerate(images.records)
    ]
    entry = {"id": "0", "sha256": {"images": "picture 3", "masks": "empty mask"}}
    folder = synthetic(tmp_path / "gan", [], trained_on=[entry])
    found = guards._training_records(folder, known, images)
    assert [record.id for record in found] == ["03.png"]


# Choices ------------------------------------------------------------------------------------------


def outcome(source: str, val: int = 6) -> dict[str, Any]:
    counts = {"real": {"a": 15, "b": 15}, "val": {"a": val, "b": val}, "test": {"a": 9, "b": 9}}
    return {"threshold": {"value": 0.37, "source": source}, "counts": counts, "steps": 400}


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (outcome("fixed"), "passed"),
        (outcome("fixed", val=0), "passed"),
        (outcome("validation"), "passed"),
        (outcome("validation", val=0), "violated"),
        (outcome("test"), "violated"),
        (outcome("training"), "violated"),
    ],
)
def test_a_threshold_is_fixed_or_of_validation_images(
    facts: dict[str, Any], status: str, tmp_path: Path
) -> None:
    found = guards.tuned_threshold({"vgg16": run(tmp_path / "run", [], **facts)})
    assert found.status == status
    assert len(found.items) == (status == "violated")


def test_test_images_may_be_scored_once_at_the_end(tmp_path: Path) -> None:
    place = run(tmp_path / "run", [], **outcome("fixed"))
    end = '{"step": 400, "split": "test", "scores": {"auc": 0.8}}\n'
    (place / "log.jsonl").write_text('{"step": 100, "split": "val", "scores": {}}\n' + end)
    assert guards.tuned_threshold({"vgg16": place}).status == "passed"
    early = "".join(end.replace("400", f"{step}") for step in (100, 200, 300))
    (place / "log.jsonl").write_text(early + end)
    found = guards.tuned_threshold({"vgg16": place})
    assert found.items == ["vgg16: test images were scored 3 times during training"]


def test_settings_chosen_on_the_test_split_are_found_and_unfinished_runs_said(
    tmp_path: Path,
) -> None:
    assert guards.tuned_threshold({}, {"grid of vgg16": "val"}).status == "passed"
    found = guards.tuned_threshold({}, {"grid of vgg16": "test"})
    assert found.items == ["grid of vgg16: chosen on the test split"]
    assert guards.tuned_threshold({"vgg16": run(tmp_path / "run", [])}).status == "skipped"


# All together -------------------------------------------------------------------------------------


def test_an_honest_experiment_passes_every_guard(
    config: DataConfig, items: list[Item], tmp_path: Path
) -> None:
    known = seen(items, range(TRAIN))
    gan = synthetic(tmp_path / "gan", [drawn(3000 + n) for n in range(20)], trained_on=known)
    entries = seen(items, range(TRAIN), split="train")
    vgg = run(tmp_path / "vgg", entries, **outcome("validation"))
    findings = guards.check_all(config, {"gan": gan}, {"vgg16": vgg}, {"grid": "val"})
    assert [finding.name for finding in findings] == list(guards.GUARDS)
    assert {finding.status for finding in findings} == {"passed"}
    assert guards.require(findings) == findings


def test_a_violated_guard_stops_unless_it_is_allowed_by_name() -> None:
    violated = Finding("copies", "violated", "3 of 9 are copies.", ["a", "b", "c", "d", "e"])
    passed = Finding("near-duplicates", "passed", "Fine.")
    with pytest.raises(DataError) as caught:
        guards.require([passed, violated])
    assert caught.value.exit_code == 1
    assert str(caught.value).splitlines() == [
        "copies: 3 of 9 are copies.",
        "  a",
        "  b",
        "  c",
        "  and 2 more",
        "To go on all the same, with this in the report: guards: {allow: [copies]}.",
    ]
    settled = guards.require([passed, violated], allowed=["copies", "near-duplicates"])
    assert [finding.status for finding in settled] == ["passed", "allowed"]
    with pytest.raises(UserError, match="'copy' is no guard"):
        guards.require([passed], allowed=["copy"])
