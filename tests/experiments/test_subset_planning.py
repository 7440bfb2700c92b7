"""Cells of a subset study: what each is made from, and what a change makes anew."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.config import load_yaml, merge
from tfgan_med.errors import DataError, UserError
from tfgan_med.experiments import real_data, subset_planning, subset_protocol
from tfgan_med.experiments.cells import Cell, Store
from tfgan_med.experiments.subset_planning import SubsetPlan, SubsetPlanner
from tfgan_med.networks import pretrained

STUDY: dict[str, Any] = {
    "experiment": "few",
    "sets": {
        "dark": {"path": "dark", "image_size": 32, "pictures": "all"},
        "light": {"path": "light", "image_size": 32},
    },
    "subsets": {
        "random": {"method": "random"},
        "kss2": {"method": "kss", "clusters": 2},
        "kss4": {"method": "kss", "clusters": 4, "sets": ["light"]},
    },
    "size": 6,
    "sources": {"smears": {"train": "sngan", "data": {"path": "dark", "image_size": 32}}},
    "generators": {
        "adapted": {"train": "bsa", "from": "smears"},
        "scratch": {"train": "dcgan", "settings": {"steps": 3}, "truncation": None},
    },
    "count": 10,
    "truncation": 0.3,
    "seeds": [0, 1],
    "metrics": {"features": "network.keras", "cid_similarity": "ssim"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets of 12 pictures, all but two of them for training."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 180)):
        (tmp_path / name / "images").mkdir(parents=True)
        rows = ["file,split"]
        for number in range(12):
            pixels = random.integers(level - 40, level + 40, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / "images" / f"{number:02d}.png")
            rows.append(f"images/{number:02d}.png,{'train' if number < 10 else 'test'}")
        (tmp_path / name / "splits.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "network.keras").write_bytes(b"weights")
    return tmp_path


def planner(folder: Path, **changes: Any) -> SubsetPlanner:
    study = subset_protocol.parse(merge(copy.deepcopy(STUDY), changes), folder)
    reals = {name: real_data.open_real(one.data) for name, one in study.sets.items()}
    named = subset_planning.source_data(study, folder)
    sources = {name: real_data.open_real(data) for name, data in named.items()}
    return SubsetPlanner(study, reals, sources, Store(folder / "experiments" / "few"), folder)


@pytest.fixture
def planned(folder: Path) -> Callable[..., SubsetPlan]:
    return lambda **changes: planner(folder, **changes).plan()


def keys(plan: SubsetPlan) -> dict[str, str]:
    return {f"{cell.kind} {cell.label}": cell.key for cell in plan.cells}


def changed(before: SubsetPlan, after: SubsetPlan) -> set[str]:
    """Kinds of cells whose key is another one, among those that both plans have."""
    old, new = keys(before), keys(after)
    return {name.split()[0] for name in old.keys() & new.keys() if old[name] != new[name]}


def words(cell: Cell) -> list[str]:
    assert cell.command is not None
    return list(cell.command(Path("OUT")))


def labelled(plan: SubsetPlan, kind: str, label: str) -> Cell:
    (cell,) = [c for c in plan.cells if (c.kind, c.label) == (kind, label)]
    return cell


# Cells --------------------------------------------------------------------------------------------


def test_every_set_subset_generator_and_seed_has_its_cells(
    planned: Callable[..., SubsetPlan],
) -> None:
    plan = planned()
    choices, repeats = 2 * (2 + 3), 2 * 2 * (2 + 3)
    counts = {kind: sum(cell.kind == kind for cell in plan.cells) for kind in
              ("source", "select", "gan", "generate", "measure")}  # fmt: skip
    assert len(plan.repeats) == repeats
    assert counts == {
        "source": 1,  # trained once, whatever adapts it
        "select": choices + 2,  # and all choices from a set side by side
        "gan": repeats,
        "generate": repeats,
        "measure": 2 + 3 * repeats,  # the sets' own pictures; set, fid_subset, cid
    }
    assert plan.undecided == 0


def test_a_cell_follows_what_it_needs_and_whole_seeds_come_first(
    planned: Callable[..., SubsetPlan],
) -> None:
    plan = planned()
    place = {cell.name: number for number, cell in enumerate(plan.cells)}
    assert all(place[need] < place[cell.name] for cell in plan.cells for need in cell.needs)
    seeds = [repeat.seed for repeat in plan.repeats]
    assert seeds == sorted(seeds)


def test_a_choice_is_made_from_the_pictures_as_networks_see_them(
    planned: Callable[..., SubsetPlan],
) -> None:
    plan = planned(selection={"components": 5, "covariance": "oas"})
    store = Store(Path())
    told = words(labelled(plan, "select", "light-kss4-s1"))
    assert told[:2] == ["select", "kss"]
    assert Path(told[2]).name == store.path(plan.reals["light"]).name
    options = dict(itertools.pairwise(told[3:]))
    assert options["--size"] == "6" and options["--clusters"] == "4" and options["--seed"] == "1"
    assert options["--split"] == "train" and options["--image-size"] == "32"
    assert options["--components"] == "5" and options["--covariance"] == "oas"
    assert "--variance" not in told and "--copy" in told
    dark = words(labelled(plan, "select", "dark-random-s0"))
    assert dict(itertools.pairwise(dark[3:]))["--split"] == "all"
    assert not {"--clusters", "--covariance"} & set(dark)  # options that `select random` lacks


def test_a_generator_learns_from_its_choice_alone(planned: Callable[..., SubsetPlan]) -> None:
    plan = planned()
    for repeat in plan.repeats:
        cell = repeat.training
        assert cell.settings is not None
        values = cell.settings.model_dump(mode="json")
        assert Path(values["data"]["path"]).name == repeat.selection.name
        assert values["data"]["image_size"] == 32
        assert values["train"]["seed"] == repeat.seed
        assert cell.needs[0] == repeat.selection.name
        adapted = repeat.generator == "adapted"
        assert len(cell.needs) == (2 if adapted else 1)
        if adapted:
            assert Path(values["model"]["source"]).name == cell.needs[1]
    steps = {repeat.training.steps for repeat in plan.repeats if repeat.generator == "scratch"}
    assert steps == {3}


def test_pictures_are_made_and_measured_as_the_file_says(
    planned: Callable[..., SubsetPlan], folder: Path
) -> None:
    plan = planned(metrics={"cid_threshold": 0.7, "cid_images": 50, "logits_output": "scores"})
    one = next(r for r in plan.repeats if (r.set, r.subset, r.seed) == ("dark", "kss2", 1))
    made = words(one.pictures)
    assert made[0] == "generate" and Path(made[1]).name == one.training.name
    options = dict(itertools.pairwise(made))
    assert (options["--count"], options["--seed"], options["--truncation"]) == ("10", "1", "0.3")
    scratch = next(r for r in plan.repeats if r.generator == "scratch")
    assert "--truncation" not in words(scratch.pictures)

    whole = words(one.measures["set"])
    assert whole[:2] == ["evaluate", "all"]
    options = dict(itertools.pairwise(whole))
    assert options["--metrics"] == "inception_score,fid,kid"
    assert Path(options["--real"]).name == plan.reals["dark"].name
    assert options["--real-split"] == "all"
    assert options["--features"] == str(folder / "network.keras")
    assert options["--logits-output"] == "scores"

    subset = dict(itertools.pairwise(words(one.measures["cid"])))
    assert Path(subset["--real"]).name == one.selection.name
    assert (subset["--threshold"], subset["--set"]) == ("0.7", "images=50")
    assert subset["--real-split"] == "train"


# Reuse --------------------------------------------------------------------------------------------


def test_the_same_study_elsewhere_has_the_same_cells(folder: Path, tmp_path: Path) -> None:
    before = planner(folder).plan()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("dark", "light", "network.keras"):
        shutil.move(folder / name, moved / name)
    assert keys(planner(moved).plan()) == keys(before)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"size": 5}, {"select", "gan", "generate", "measure"}),
        ({"selection": {"variance": 0.8}}, {"select", "gan", "generate", "measure"}),
        ({"generators": {"scratch": {"settings": {"steps": 4}}}}, {"gan", "generate", "measure"}),
        ({"count": 11}, {"generate", "measure"}),
        ({"truncation": 0.5}, {"generate", "measure"}),
        ({"metrics": {"cid_threshold": 0.7}}, {"measure"}),
        ({"question": "another", "sets": {"dark": {"source": "of others"}}}, set()),
        ({"subsets": {"center": {"method": "center"}}}, {"select"}),  # the overview
        ({"seeds": [0, 1, 2]}, set()),
        ({"published": {"FFHQ": {"center": {"d": 3}}}}, set()),
    ],
)
def test_a_change_makes_anew_what_depends_on_it_and_nothing_else(
    planned: Callable[..., SubsetPlan], changes: dict[str, Any], kinds: set[str]
) -> None:
    assert changed(planned(), planned(**changes)) == kinds


def test_another_source_makes_anew_what_adapts_it_alone(
    planned: Callable[..., SubsetPlan],
) -> None:
    before = planned()
    after = planned(sources={"smears": {"settings": {"steps": 7}}})
    old, new = keys(before), keys(after)
    other = {name for name in old if old[name] != new.get(name)}
    assert "source smears" in other
    assert all("adapted" in name for name in other - {"source smears"})
    assert sum(name.startswith("gan ") for name in other) == 10


def test_another_picture_makes_anew_all_of_its_set_and_nothing_of_others(folder: Path) -> None:
    before = keys(planner(folder, sources={}, generators={"adapted": None}).plan())
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "light" / "images" / "03.png")
    after = keys(planner(folder, sources={}, generators={"adapted": None}).plan())
    other = {name for name in before if before[name] != after[name]}
    assert other == {name for name in before if "light" in name}


def test_the_place_of_a_network_does_not_count_its_content_does(folder: Path) -> None:
    before = planner(folder).plan()
    shutil.copy(folder / "network.keras", folder / "copied.keras")
    copied = {"metrics": {"features": "copied.keras"}}
    assert changed(before, planner(folder, **copied).plan()) == set()
    (folder / "copied.keras").write_bytes(b"other weights")
    assert changed(before, planner(folder, **copied).plan()) == {"measure"}


def test_settings_of_a_training_can_be_read_by_train(folder: Path) -> None:
    made = planner(folder)
    cell = next(r.training for r in made.plan().repeats if r.generator == "scratch")
    arguments = made.store.prepare(cell)
    assert arguments[:2] == ["train", "dcgan"]
    values = load_yaml(made.store.settings_file(cell))
    assert values["data"]["path"] == cell.needs[0]  # relative to its place


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"generators": {"adapted": {"from": None}}}, "no source is named. Add `from: NAME`"),
        ({"generators": {"scratch": {"from": "smears"}}}, "dcgan adapts no source"),
        ({"generators": {"scratch": {"train": "pix2pix", "settings": {}}}}, "from nothing"),
        ({"generators": {"scratch": {"model": {"bases": 3}}}}, "generators.scratch: model.bases"),
        ({"sources": {"smears": {"data": {"image_size": 64}}}}, "image_size to 32"),
        ({"metrics": {"cid_similarity": "lpips", "lpips_trunk": "network.keras",
                      "lpips_linear": "network.keras"}}, "LPIPS sees pictures of at least 64 px"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_runs(
    folder: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        planner(folder, **changes)


def test_a_set_needs_as_many_pictures_as_a_subset(folder: Path) -> None:
    with pytest.raises(DataError, match="sets.light: has 10 training pictures, a subset is to"):
        planner(folder, size=11)


def test_an_untrained_generator_is_adapted_if_asked_for(folder: Path) -> None:
    made = planner(folder, generators={"adapted": {"from": None, "model": {"random_source": True}}})
    assert not made.plan().origins


def test_a_finished_run_or_a_file_may_be_adapted(folder: Path) -> None:
    file = folder / "generator.npz"
    file.write_bytes(b"arrays")
    adapting = {"generators": {"adapted": {"from": "given"}}}
    given = {**adapting, "sources": {"given": {"file": "generator.npz"}}}
    plan = planner(folder, **given).plan()
    assert not any(cell.kind == "source" for cell in plan.cells)
    first = keys(plan)
    file.write_bytes(b"other arrays")
    again = keys(planner(folder, **given).plan())
    other = {name for name in first if first[name] != again[name]}
    assert other and all("adapted" in name for name in other)
    with pytest.raises(UserError, match="no run of a generator"):
        planner(folder, **adapting, sources={"given": {"run": str(folder)}})


def test_what_needs_weights_that_are_not_here_is_left_out_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "find", lambda name: None)
    made = planner(folder, metrics={"features": None, "cid_similarity": "lpips"})
    assert all(not repeat.measures for repeat in made.plan().repeats)
    first, second = made.notices
    assert first.startswith("is, fid, kid, fid_subset will not be measured: the weights inception")
    assert "cid will not be measured: the weights lpips-alex" in second
