"""The studies that come with the package: their files say what can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfgan_med import config
from tfgan_med.data.records import DataConfig
from tfgan_med.experiments import protocol
from tfgan_med.experiments.cells import Store
from tfgan_med.experiments.planning import Planner
from tfgan_med.experiments.real_data import open_real

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDIES = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if "experiment" in (values := config.load_yaml(path)) and "subsets" not in values
)


@pytest.fixture(params=STUDIES, ids=lambda path: path.stem)
def study(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_all_studies_of_the_thesis_are_there() -> None:
    names = {path.stem for path in STUDIES}
    assert names >= {"tuberculosis", "viral_pneumonia", "chest_ct", "lesions_256"}
    assert names >= {"lesions_128", "lesions_small", "experiment"}


def test_a_study_compares_at_least_three_seeds_with_real_pictures(study: Path) -> None:
    whole = protocol.read(study)
    assert len(whole.seeds) >= 3
    assert whole.reference.name == "real"
    assert any(arm.synthetic for arm in whole.all_arms)
    assert any(arm.classic for arm in whole.all_arms)


@pytest.mark.parametrize("name", ["tuberculosis", "viral_pneumonia", "chest_ct", "lesions_256",
                                  "lesions_128", "lesions_small"])  # fmt: skip
def test_a_small_scale_is_planned_on_the_shared_data(
    shared: Path, tmp_path: Path, name: str
) -> None:
    path = CONFIGS / "chest_skin" / f"{name}.yaml"
    there = Path(protocol.read(path, "small").data.path).name
    change = f"data.path={shared / 'data' / there}"
    network = f"metrics.features={shared / 'weights' / 'mobilenet-v1-0.25-224-imagenet.pb'}"
    small = protocol.read(path, "small", [change, network])
    plan = Planner(small, open_real(small.data), Store(tmp_path), path.parent).plan()
    kinds = [cell.kind for cell in plan.cells]
    assert {"gan", "generate"} <= set(kinds)
    trained = {cell.steps for cell in plan.cells if cell.kind in ("arm", "grid")}
    assert len(trained) == 1, "arms take the same number of steps"


def test_generators_never_see_what_arms_are_validated_on(tmp_path: Path) -> None:
    from PIL import Image

    for label, level in (("a", 50), ("b", 200)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for index in range(20):
            picture = Image.new("L", (32, 32), level + index)
            picture.save(tmp_path / "set" / label / f"{index}.png")
    (tmp_path / "set" / "splits.csv").write_text(
        "file,split\n"
        + "".join(
            f"{label}/{i}.png,{'train' if i < 14 else 'test'}\n"
            for label in "ab"
            for i in range(20)
        )
    )
    study = protocol.parse(
        {
            "experiment": "x",
            "data": {"path": str(tmp_path / "set"), "image_size": 32},
            "generators": {"gan": {"train": "dcgan", "per_class": True}},
            "downstream": {"resnet18": {"train": {"steps": 6}}},
            "arms": ["real", "real+gan"],
        }
    )
    real = open_real(study.data)
    plan = Planner(study, real, Store(tmp_path / "out"), tmp_path).plan()
    seen = set()
    for cell in plan.cells:
        if cell.settings is None:
            continue
        data: DataConfig = cell.settings.data  # type: ignore[attr-defined]
        found = open_real(data).images
        split = {record.id: record.split for record in found.records}
        seen.add(tuple(sorted((name, str(where)) for name, where in split.items())))
    assert len(seen) == 1, "all trainings have one division"
    (division,) = seen
    assert sum(where == "val" for _, where in division) == 6
