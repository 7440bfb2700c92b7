"""The subset studies that come with the package: their files say what can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfgan_med import config
from tfgan_med.errors import UserError
from tfgan_med.experiments import subset_planning, subset_protocol
from tfgan_med.experiments.cells import Store
from tfgan_med.experiments.real_data import open_real
from tfgan_med.experiments.subset_planning import SubsetPlan, SubsetPlanner
from tfgan_med.experiments.subset_protocol import SubsetStudy

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDIES = sorted(path for path in CONFIGS.rglob("*.yaml") if "subsets" in config.load_yaml(path))
KSS_BSA = CONFIGS / "kss_bsa" / "kss_bsa.yaml"
SQUEEZENET = "squeezenet-1.1-imagenet-notop.h5"
LINEAR = "lpips-v0.1-lin-squeeze.pth"


@pytest.fixture
def paper(tmp_path: Path) -> SubsetStudy:
    """The study as in the paper, with a file in the place of the published generator."""
    source = tmp_path / "ResNetGenerator_850000.npz"
    source.touch()
    return subset_protocol.read(KSS_BSA, None, [f"sources.imagenet.file={source}"])


@pytest.fixture
def small(shared: Path) -> SubsetStudy:
    """The study on the shared sets."""
    weights, facades = shared / "weights", shared / "data" / "facades"
    source = f"{{train: sngan, run: null, data: {{path: {facades}, image_size: 64, mode: rgb}}}}"
    changes = [
        f"sets.faces.path={shared / 'data' / 'faces-orl'}",
        f"sets.cells.path={shared / 'data' / 'rbc-smear'}",
        f"sources.others={source}",
        f"metrics.features={weights / 'mobilenet-v1-0.25-224-imagenet.pb'}",
        f"metrics.lpips_trunk={weights / SQUEEZENET}",
        f"metrics.lpips_linear={weights / LINEAR}",
    ]
    return subset_protocol.read(KSS_BSA, "small", changes)


def planned(study: SubsetStudy, folder: Path) -> SubsetPlan:
    base = KSS_BSA.parent
    reals = {name: open_real(one.data) for name, one in study.sets.items()}
    sources = subset_planning.source_data(study, base)
    opened = {name: open_real(data) for name, data in sources.items()}
    return SubsetPlanner(study, reals, opened, Store(folder), base).plan()


def test_the_study_of_the_paper_is_there() -> None:
    assert KSS_BSA in STUDIES


def test_the_study_of_the_paper_has_its_sets_and_six_subsets_of_each(paper: SubsetStudy) -> None:
    assert list(paper.sets) == ["FFHQ", "MetFaces", "FEI", "UNIFESP"]
    kss = {name: [one.clusters for one in paper.subsets_of(name).values() if one.method == "kss"]
           for name in paper.sets}  # fmt: skip
    assert kss.pop("MetFaces") == [1, 2, 10, 80]
    assert set(map(tuple, kss.values())) == {(1, 2, 10, 100)}
    assert all(len(paper.subsets_of(name)) == 6 for name in paper.sets)
    assert (paper.size, paper.selection.variance) == (100, 0.9)
    assert {one.image_size for one in paper.sets.values()} == {128}
    assert paper.generators["bsa"].settings["steps"] == 10_000
    assert len(paper.seeds) >= 3


def test_the_published_table_is_whole_and_cid_is_the_product_of_its_parts(
    paper: SubsetStudy,
) -> None:
    assert {name: list(of) for name, of in paper.published.items()} == {
        name: list(paper.subsets_of(name)) for name in paper.sets
    }
    for of in paper.published.values():
        for row in of.values():
            assert set(row) == {"is", "is_sd", "fid", "c", "i", "d", "cid"}
            rounding = 0.005 * (row["c"] * row["i"] + row["c"] * row["d"] + row["i"] * row["d"])
            assert row["cid"] == pytest.approx(
                row["c"] * row["i"] * row["d"], abs=rounding + 0.0051
            )


def test_the_small_scale_is_planned_on_the_shared_data(small: SubsetStudy, tmp_path: Path) -> None:
    plan = planned(small, tmp_path)
    assert list(small.sets) == ["faces", "cells"]
    assert [one.clusters for one in small.subsets.values() if one.method == "kss"] == [1, 2, 10, 50]
    wanted = len(small.sets) * len(small.subsets) * len(small.seeds) * len(small.generators)
    assert len(plan.repeats) == wanted
    assert all(set(repeat.measures) == {"set", "fid_subset", "cid"} for repeat in plan.repeats)
    assert len({repeat.training.steps for repeat in plan.repeats}) == len(small.generators)


def test_the_small_scale_says_which_source_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sources.others.run: .*none"):
        subset_protocol.read(KSS_BSA, "small", [f"sources.others.run={tmp_path / 'none'}"])
