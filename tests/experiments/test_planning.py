"""Cells: what each is trained on, what its name depends on, and what arms have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med import files
from tfgan_med.config import merge
from tfgan_med.errors import UserError
from tfgan_med.experiments import protocol, real_data
from tfgan_med.experiments.cells import Cell, Store
from tfgan_med.experiments.planning import Plan, Planner, shared

CLASSES = {"dark": 40, "light": 180}
COUNTS = {"train": (6, 3), "val": (2, 2), "test": (3, 3)}  # of dark and light pictures

STUDY: dict[str, Any] = {
    "experiment": "tiny",
    "data": {"path": "pictures", "image_size": 32},
    "generators": {"gan": {"train": "dcgan", "per_class": True, "settings": {"steps": 3}}},
    "downstream": {"resnet18": {"train": {"steps": 5, "batch_size": 4}}},
    "arms": ["real", "real+classic", "synthetic:gan", "real+gan", "weighted"],
    "seeds": [0, 1],
    "metrics": {"generative": ["ms_ssim"]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `pictures/`: two classes with given splits."""
    root, random = tmp_path / "pictures", np.random.default_rng(0)
    rows = ["file,split"]
    for place, (label, level) in enumerate(CLASSES.items()):
        (root / label).mkdir(parents=True)
        for split, counts in COUNTS.items():
            for number in range(counts[place]):
                pixels = random.integers(level - 40, level + 40, (32, 32), dtype=np.uint8)
                Image.fromarray(pixels).save(root / label / f"{split}{number}.png")
                rows.append(f"{label}/{split}{number}.png,{split}")
    (root / "splits.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def planned(folder: Path) -> Callable[..., Plan]:
    """The plan of the study with changes merged over it."""

    def plan(**changes: Any) -> Plan:
        return planner(folder, **changes).plan()

    return plan


def planner(folder: Path, **changes: Any) -> Planner:
    values = merge(copy.deepcopy(STUDY), changes)
    experiment = protocol.parse(values, folder)
    real = real_data.open_real(experiment.data)
    return Planner(experiment, real, Store(folder / "experiments" / "tiny"), folder)


def keys(plan: Plan) -> dict[str, str]:
    return {f"{cell.kind} {cell.label}": cell.key for cell in plan.cells}


def changed(before: Plan, after: Plan) -> set[str]:
    """Cells whose key is another one, among those that both plans have."""
    old, new = keys(before), keys(after)
    return {name for name in old.keys() & new.keys() if old[name] != new[name]}


def settings_of(cell: Cell) -> dict[str, Any]:
    assert cell.settings is not None
    return cell.settings.model_dump(mode="json")


GAN = {"gan gan-dark", "gan gan-light"}
MADE = {"generate gan-dark", "generate gan-light", "generate gan-set", "measure gan"}
WITH_GAN = {f"arm resnet18-{arm}-s{s}" for arm in ("synthetic:gan", "real+gan") for s in (0, 1)}
WITHOUT = {
    f"arm resnet18-{arm}-s{s}" for arm in ("real", "real+classic", "weighted") for s in (0, 1)
}


# Names --------------------------------------------------------------------------------------------


def test_the_cells_are_those_of_the_protocol(planned: Callable[..., Plan]) -> None:
    assert set(keys(planned())) == GAN | MADE | WITH_GAN | WITHOUT | {"measure reals"}


def test_cells_follow_what_they_need(planned: Callable[..., Plan]) -> None:
    seen: set[str] = set()
    for cell in planned().cells:
        if cell.kind != "measure":
            assert set(cell.needs) <= seen
        seen.add(cell.name)
    assert {need for cell in planned().cells for need in cell.needs} <= seen


def test_the_same_file_gives_the_same_names_wherever_it_lies(
    folder: Path, planned: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = keys(planned())
    assert keys(planned()) == before
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    folder.rename(moved)
    assert keys(planner(moved).plan()) == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"generators": {"gan": {"settings": {"steps": 4}}}}, GAN | MADE | WITH_GAN),
        ({"generators": {"gan": {"model": {"latent_size": 8}}}}, GAN | MADE | WITH_GAN),
        ({"generators": {"gan": {"seed": 5}}}, MADE | WITH_GAN),
        ({"generators": {"gan": {"count": 18}}}, MADE | WITH_GAN),
        ({"generators": {"gan": {"settings": {"log_interval": 3}}}}, set()),
        ({"generators": {"gan": {"settings": {"device": "cpu"}}}}, set()),
        ({"downstream": {"resnet18": {"train": {"steps": 6}}}}, WITH_GAN | WITHOUT),
        ({"downstream": {"resnet18": {"model": {"width": 32}}}}, WITH_GAN | WITHOUT),
        ({"classic": "cells"}, {f"arm resnet18-real+classic-s{seed}" for seed in (0, 1)}),
        ({"metrics": {"generative": ["likeness"]}}, {"measure gan"}),
        ({"seeds": [0, 1, 2]}, set()),
        ({"arms": ["real", "weighted"]}, set()),
        ({"question": "Another one?"}, set()),
        ({"data": {"cache_mb": 64}}, set()),
    ],
)
def test_a_change_renames_exactly_what_depends_on_it(
    planned: Callable[..., Plan], changes: dict[str, Any], expected: set[str]
) -> None:
    assert changed(planned(), planned(**changes)) == expected


def test_a_default_that_is_written_down_changes_nothing(planned: Callable[..., Plan]) -> None:
    written = {"resnet18": {"model": {"learning_rate": 1e-3}, "train": {"threshold": 0.5}}}
    assert changed(planned(), planned(downstream=written)) == set()


def test_another_training_picture_renames_what_was_trained_on_it(
    folder: Path, planned: Callable[..., Plan]
) -> None:
    before = planned()
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(folder / "pictures/dark/train0.png")
    everything = GAN | MADE | WITH_GAN | WITHOUT | {"measure reals"}
    assert changed(before, planned()) == everything - {"gan gan-light", "generate gan-light"}


def test_another_split_renames_everything_of_its_class(
    folder: Path, planned: Callable[..., Plan]
) -> None:
    before = planned()
    table = folder / "pictures" / "splits.csv"
    table.write_text(table.read_text().replace("dark/train0.png,train", "dark/train0.png,test"))
    assert GAN & changed(before, planned()) == {"gan gan-dark"}


def test_hashes_are_read_again_only_where_a_file_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = protocol.parse(STUDY, folder).data
    real_data.write(real_data.open_real(config), folder / "data.json")
    picture = folder / "pictures" / "dark" / "val0.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    read: list[str] = []
    hashed = files.sha256_of

    def count(path: Path) -> str:
        read.append(path.name)
        return hashed(path)

    monkeypatch.setattr(files, "sha256_of", count)
    again = real_data.open_real(config, folder / "data.json")
    assert read == ["val0.png"]
    assert again.hashes[picture] == hashed(picture)


# What is trained on what --------------------------------------------------------------------------


def test_generators_see_the_training_split_of_the_experiment(folder: Path) -> None:
    """The path and the way of splitting are those of the downstream models, key by key."""
    plan = planner(folder, data={"split": "random", "split_seed": 7}).plan()
    trainings = [settings_of(cell)["data"] for cell in plan.cells if cell.settings is not None]
    shared_keys = [key for key in protocol.SPLIT_KEYS if key != "label"]
    assert len(trainings) == 12
    assert len({str([data[key] for key in shared_keys]) for data in trainings}) == 1
    labels = {data["label"] for data in trainings}
    assert labels == {"dark", "light", None}


def test_arms_of_a_repeat_differ_in_what_they_are_trained_on_and_in_nothing_else(
    planned: Callable[..., Plan],
) -> None:
    plan = planned()
    for seed in (0, 1):
        common = []
        for repeat in plan.repeats:
            if repeat.seed == seed:
                values = settings_of(repeat.cell)
                assert values.pop("mix")["seed"] == seed
                values.pop("classic")
                common.append(values)
        assert len(common) == 5
        assert all(values == common[0] for values in common)
        assert common[0]["train"]["seed"] == seed
        assert common[0]["train"]["steps"] == 5


def test_epochs_are_counted_in_real_pictures_so_that_larger_sets_train_no_longer(
    planned: Callable[..., Plan],
) -> None:
    block = {"resnet18": {"train": {"steps": None, "epochs": 10, "batch_size": 4}}}
    plan = planned(downstream=block)
    assert {repeat.cell.steps for repeat in plan.repeats} == {30}  # 10 epochs of 9 pictures by 4


def test_an_arm_says_which_pictures_it_takes(planned: Callable[..., Plan]) -> None:
    plan = planned(sweep={"generators": ["gan"], "ratios": [2]})
    mixes = {r.arm.name: settings_of(r.cell)["mix"] for r in plan.repeats}
    folder = str(plan.pools["gan"].folder)
    assert mixes["real"]["synthetic"] == []
    assert mixes["real+gan"]["synthetic"] == [folder]
    assert mixes["synthetic:gan"]["real"] is False
    assert mixes["weighted"]["sampling"] == "weighted"
    assert mixes["real+gan@2"]["ratio"] == 2.0
    # The sweep needs twice as many pictures; an arm that names no number takes as many as asked.
    assert plan.pools["gan"].made == {"dark": 12, "light": 6}
    assert mixes["real+gan"]["class_counts"] == {"dark": 6, "light": 3}


def test_classical_augmentation_is_a_preset_or_settings(planned: Callable[..., Plan]) -> None:
    plan = planned(classic={"flip": 0.5})
    presets = {r.arm.name: settings_of(r.cell)["classic"] for r in plan.repeats}
    assert presets["real"]["flip"] == 0.0
    assert presets["real+classic"]["flip"] == 0.5
    thesis = planned().repeats[2]
    assert settings_of(thesis.cell)["classic"]["preset"] == "thesis"


def test_counts_keep_the_proportion_of_the_classes(planned: Callable[..., Plan]) -> None:
    for asked, made in [
        ({"count": 30}, {"dark": 20, "light": 10}),
        ({"ratio": 2}, {"dark": 12, "light": 6}),
        ({"class_counts": {"light": 5}}, {"dark": 0, "light": 5}),
    ]:
        assert planned(generators={"gan": asked}).pools["gan"].made == made
    with pytest.raises(UserError, match="Did you mean light"):
        planned(generators={"gan": {"class_counts": {"ligth": 5}}})


def test_shares_are_whole_numbers_that_add_up() -> None:
    assert shared(10, {"a": 2, "b": 1}) == {"a": 7, "b": 3}
    assert shared(1, {"a": 1, "b": 1, "c": 1}) == {"a": 1, "b": 0, "c": 0}


def test_a_wrong_setting_of_a_model_is_found_before_anything_runs(
    planned: Callable[..., Plan],
) -> None:
    with pytest.raises(UserError, match="generators.gan: model.latent_sise") as caught:
        planned(generators={"gan": {"model": {"latent_sise": 3}}})
    assert "model.latent_size" in str(caught.value)
    with pytest.raises(UserError, match="downstream.resnet18: train.stepz"):
        planned(downstream={"resnet18": {"train": {"stepz": 3}}})


def test_a_classifier_cannot_learn_from_pictures_without_classes(
    planned: Callable[..., Plan],
) -> None:
    with pytest.raises(UserError, match="Set per_class: true"):
        planned(generators={"gan": {"per_class": False}})


def test_translation_goes_both_ways_into_one_set(planned: Callable[..., Plan]) -> None:
    cyclegan = {"cycle": {"train": "cyclegan", "translate": "both", "settings": {"steps": 3}}}
    plan = planned(generators={**cyclegan}, arms=["real", "real+cycle"])
    by_label = {cell.label: cell for cell in plan.cells}
    assert plan.pools["cycle"].made == {"dark": 3, "light": 6}  # each from the other
    for way in ("a2b", "b2a"):
        cell = by_label[f"cycle-{way}"]
        assert cell.command is not None
        arguments = list(cell.command(Path("out")))
        assert arguments[arguments.index("--split") + 1] == "train"
        assert arguments[arguments.index("--direction") + 1] == way
    assert set(by_label["cycle-set"].needs) == {
        by_label["cycle-a2b"].name,
        by_label["cycle-b2a"].name,
    }
    with pytest.raises(UserError, match="12 pictures of light are asked for, but there are 6"):
        planned(generators={**cyclegan}, arms=["real", "real+cycle@2"])


def test_what_no_network_is_there_for_is_not_measured_and_said(folder: Path) -> None:
    making = planner(folder, metrics={"generative": ["kid", "ms_ssim"]})
    (measure,) = making.measures.values()
    assert measure.command is not None
    arguments = list(measure.command(Path("out")))
    assert arguments[arguments.index("--metrics") + 1] == "ms_ssim"
    assert making.notices[0].startswith("kid will not be measured: the weights inception-2015")
    assert not planner(folder, metrics={"generative": ["kid"]}).measures


def test_masks_of_one_generator_become_pictures_by_another(folder: Path) -> None:
    for path in (folder / "pictures").glob("*/*.png"):
        for role in ("images", "masks"):
            target = folder / "pairs" / role / f"{path.parent.name}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    generators = {
        "gan": None,
        "masks": {"train": "dcgan", "data": {"target": "masks"}, "settings": {"steps": 3}},
        "pairs": {"train": "pix2pix", "input": "masks", "settings": {"steps": 3}, "count": 25},
    }
    arms = ["real", "real+pairs", "real+pairs@4"]
    data = {"path": "pairs", "split": "random"}
    study = {**STUDY, "generators": generators, "arms": arms, "data": {**STUDY["data"], **data}}
    study["downstream"] = {"unet": {"train": {"steps": 5}}}
    experiment = protocol.parse(study, folder)
    real = real_data.open_real(experiment.data)
    made = Planner(experiment, real, Store(folder / "e"), folder)
    pool, masks = made.pools["pairs"], made.pools["masks"]
    assert masks.made == {"all": 25}  # as many as pictures are asked for
    assert len(real.records("train")) == 13
    assert pool.made == {"all": 75}  # the arm @4 needs 52: three pictures of each mask
    assert pool.cell is not None and masks.cell is not None
    assert masks.cell.name in pool.cell.needs
    assert pool.cell.command is not None
    arguments = list(pool.cell.command(Path("out")))
    assert arguments[arguments.index("--input") + 1] == str(masks.folder)
    assert arguments[arguments.index("--stochastic") + 1] == "3"
    mixes = {r.arm.name: settings_of(r.cell)["mix"] for r in made.plan().repeats}
    assert mixes["real+pairs"]["count"] == 25 and mixes["real+pairs@4"]["ratio"] == 4.0


# The grid -----------------------------------------------------------------------------------------


def finish(store: Store, cell: Cell, value: float) -> None:
    """As a finished training leaves it: the score on the validation split."""
    store.path(cell).mkdir(parents=True)
    best = {"step": 5, "metric": "balanced_accuracy", "value": value}
    files.write_json(store.path(cell) / "outcome.json", {"best": best})
    store.note(cell, state="done")


def test_a_grid_is_decided_on_real_pictures_and_then_frozen_for_all_arms(folder: Path) -> None:
    grid = {"model.learning_rate": [1e-3, 2e-3, 3e-3]}
    making = planner(folder, grid=grid)
    first = making.plan()
    assert [point.cell.kind for point in first.points] == ["grid"] * 3
    assert not first.repeats and first.undecided == 10
    assert {settings_of(p.cell)["train"]["seed"] for p in first.points} == {0}
    assert all(not settings_of(p.cell)["mix"]["synthetic"] for p in first.points)

    for point, value in zip(first.points, (0.6, 0.8, 0.8), strict=True):
        assert not making.plan().repeats
        finish(making.store, point.cell, value)
    second = making.plan()
    assert second.chosen == {"resnet18": {"model.learning_rate": 2e-3}}  # the first of equals
    rates = {settings_of(r.cell)["model"]["learning_rate"] for r in second.repeats}
    assert rates == {2e-3} and len(second.repeats) == 10 and second.undecided == 0


# Cells --------------------------------------------------------------------------------------------


def test_a_record_of_another_key_counts_for_nothing(folder: Path, planned: Any) -> None:
    store = Store(folder / "experiments" / "tiny")
    cell = planned().cells[0]
    store.path(cell).mkdir(parents=True)
    store.note(cell, state="done")
    assert store.is_done(cell)
    other = Cell(cell.kind, cell.label, cell.key[:8] + "0" * 56)
    assert other.name == cell.name
    assert not store.is_done(other)


def test_the_settings_of_a_training_lie_beside_its_folder(folder: Path, planned: Any) -> None:
    store = Store(folder / "experiments" / "tiny")
    cell = planned().cells[0]
    arguments = store.prepare(cell)
    assert arguments[:3] == ["train", "dcgan", "--config"]
    assert arguments[arguments.index("--at") + 1] == str(store.path(cell))
    text = store.settings_file(cell).read_text()
    assert str(folder) not in text  # the experiment moves with its data
    assert "label: dark" in text
    assert not store.path(cell).exists()  # `train --at` begins in an empty place
