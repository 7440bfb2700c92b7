"""The file of a subset study: blocks by name, scales, changes, and what each mistake is told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tfgan_med.config import merge
from tfgan_med.errors import UserError
from tfgan_med.experiments import subset_protocol
from tfgan_med.experiments.subset_protocol import SubsetStudy, clusters_of

STUDY: dict[str, Any] = {
    "experiment": "few",
    "sets": {
        "faces": {"path": "../faces", "image_size": 64, "source": "ours"},
        "cells": {"path": "builtin:smear?count=24&size=64", "image_size": 64},
    },
    "subsets": {
        "random": {"method": "random"},
        "center": {"method": "center"},
        "kss2": {"method": "kss", "clusters": 2},
        "kss80": {"method": "kss", "clusters": 8, "sets": ["cells"]},
    },
    "size": 8,
    "sources": {"smears": {"train": "sngan", "data": {"path": "../other"}}},
    "generators": {
        "adapted": {"train": "bsa", "from": "smears"},
        "scratch": {"train": "fastgan", "truncation": None},
    },
    "truncation": 0.3,
    "published": {"FFHQ": {"center": {"is": 1.62, "is_sd": 0.01}, "kss100": {"d": 8.35}}},
}


def parsed(**changes: Any) -> SubsetStudy:
    return subset_protocol.parse(merge(copy.deepcopy(STUDY), changes), Path("/study/configs"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    values = {
        **STUDY,
        "scales": {"small": {"sets": {"cells": None}, "subsets": {"kss80": None}, "seeds": [4]}},
    }
    path = tmp_path / "configs" / "study.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_file_with_the_block_subsets_is_a_subset_study(file: Path, tmp_path: Path) -> None:
    assert subset_protocol.is_study(file)
    other = tmp_path / "arms.yaml"
    other.write_text("experiment: arms\ndownstream: {vgg16: {}}\n")
    assert not subset_protocol.is_study(other)


def test_paths_are_relative_to_the_file_and_named_pictures_are_not(
    file: Path, tmp_path: Path
) -> None:
    study = subset_protocol.read(file)
    assert study.sets["faces"].path == str(tmp_path / "faces")
    assert study.sets["cells"].path == "builtin:smear?count=24&size=64"
    assert study.sources["smears"].data["path"] == str(tmp_path / "other")


def test_a_scale_leaves_out_what_is_null_there_and_a_change_beats_it(file: Path) -> None:
    study = subset_protocol.read(file, "small", ["size=4", "subsets.kss2.clusters=3"])
    assert list(study.sets) == ["faces"]
    assert list(study.subsets) == ["random", "center", "kss2"]
    assert (study.seeds, study.size, study.subsets["kss2"].clusters) == ((4,), 4, 3)
    with pytest.raises(UserError, match="smal: unknown scale. Did you mean small"):
        subset_protocol.read(file, "smal")


def test_what_is_written_is_what_is_read(file: Path, tmp_path: Path) -> None:
    study = subset_protocol.read(file)
    target = tmp_path / "elsewhere" / "deep" / "experiment.yaml"
    target.parent.mkdir(parents=True)
    target.write_text(subset_protocol.as_yaml(study, target.parent))
    assert "../../faces" in target.read_text()
    assert subset_protocol.read(target) == study


def test_a_set_becomes_the_data_of_readers_without_its_citation() -> None:
    data = parsed().sets["faces"].data
    assert (data.image_size, data.source, data.path) == (64, "auto", "/study/faces")


def test_ways_of_choosing_are_those_of_each_set() -> None:
    study = parsed()
    assert list(study.subsets_of("faces")) == ["random", "center", "kss2"]
    assert list(study.subsets_of("cells")) == ["random", "center", "kss2", "kss80"]
    assert [one.title for one in study.subsets.values()][:3] == ["Random", "Center", "KSS, G = 2"]
    assert study.reference == "random"


def test_a_generator_may_cut_its_latents_elsewhere_than_the_study() -> None:
    study = parsed()
    assert study.truncation_of(study.generators["adapted"]) == 0.3
    assert study.truncation_of(study.generators["scratch"]) is None


def test_a_mapping_names_a_source_for_each_set() -> None:
    sources = {"smears": {"file": None}, "a": {"train": "sngan", "data": {"path": "x"}}}
    named = {"faces": "smears", "cells": "a"}
    study = parsed(sources=sources, generators={"adapted": {"from": named}})
    assert [study.generators["adapted"].source_for(n) for n in study.sets] == ["smears", "a"]
    assert set(study.used_sources) == {"smears", "a"}


def test_subsets_of_a_paper_are_known_by_their_names() -> None:
    known = parsed().subsets
    assert clusters_of("kss100", known) == ("kss", 100)
    assert clusters_of("kss80", known) == ("kss", 8)  # the study's own word counts
    assert clusters_of("center", {}) == ("center", 1)
    assert clusters_of("middle", known) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sets": {"faces": None, "cells": None}}, "sets: not given. Name the pictures"),
        ({"subsets": {"kss2": {"clusters": 9}}}, "subsets.kss2.clusters: 9 clusters, but a subset"),
        ({"subsets": {"center": {"clusters": 2}}}, "center has no clusters. Leave it out"),
        ({"subsets": {"kss80": {"sets": ["cell"]}}}, "Did you mean cells"),
        ({"subsets": {"kss2": {"method": "ksss"}}}, 'subsets.kss2.method: received "ksss"'),
        ({"subsets": {n: {"sets": ["cells"]} for n in ("random", "center", "kss2")}},
         "sets.faces: no subset is chosen from it"),
        ({"generators": {"scratch": {"train": "fastgun"}}}, "Did you mean fastgan"),
        ({"generators": {"scratch": {"settings": {"seed": 3}}}}, "follows from `seeds`"),
        ({"generators": {"scratch": {"data": {"image_size": 32}}}}, "all generators of a study"),
        ({"generators": {"adapted": {"model": {"source": "x"}}}}, "Use `from`"),
        ({"generators": {"adapted": {"from": "smear"}}}, "unknown source. Did you mean smears"),
        ({"generators": {"adapted": {"from": {"faces": "smears"}}}}, "no source for the set cells"),
        ({"generators": {"adapted": {"from": {"face": "smears"}}}}, "Did you mean faces"),
        ({"sources": {"smears": {"run": "x"}}}, "has run and train; expected one of"),
        ({"sources": {"smears": {"train": None}}}, "has no origin; expected one of"),
        ({"sources": {"smears": {"data": {"path": None}}}}, "sources.smears.data.path: not given"),
        ({"sources": {"smears": {"train": None, "data": {}, "file": "x.npz"}}}, "no such file"),
        ({"published": {"FFHQ": {"middle": {"d": 1}}}}, "middle: unknown subset"),
        ({"published": {"FFHQ": {"center": {"dd": 1}}}}, "unknown measure. Did you mean d"),
        ({"published": {"FFHQ": {"center": {"d": "x"}}}}, 'published.FFHQ.center.d: received "x"'),
        ({"seeds": [1, 1]}, "has one twice"),
        ({"size": 1}, "expected a value of at least 2"),
        ({"metrics": {"measures": ["fidd"]}}, "metrics.measures"),
        ({"metrics": {"lpips_trunk": "nowhere.pth"}}, "metrics.lpips_trunk: .* no such file"),
        ({"sise": 3}, "sise: unknown setting. Did you mean size"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_key(changes: dict[str, Any], told: str) -> None:
    values = copy.deepcopy(STUDY)
    if changes.get("sources", {}).get("smears", {}).get("file"):
        values["sources"] = {}
    with pytest.raises(UserError, match=told):
        subset_protocol.parse(merge(values, changes), Path("/study/configs"))


def test_a_source_that_nothing_adapts_need_not_be_there() -> None:
    """The published file is not on every machine; a small scale adapts something else."""
    study = parsed(sources={"published": {"file": "ResNetGenerator_850000.npz"}})
    assert "published" not in study.used_sources
