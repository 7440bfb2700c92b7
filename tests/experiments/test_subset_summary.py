"""Summary of a subset study, from cells that look finished: numbers, facts, pictures, claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med import files
from tfgan_med.experiments import subset_summary
from tfgan_med.experiments.cells import Cell
from tfgan_med.experiments.subset_conducting import SubsetConductor
from tfgan_med.experiments.subset_planning import Repeat
from tfgan_med.experiments.subset_protocol import parse

STUDY: dict[str, Any] = {
    "experiment": "few",
    "question": "Do spread discs make diverse discs?",
    "sets": {"discs": {"path": "discs", "image_size": 32, "source": "drawn by us"}},
    "subsets": {
        "random": {"method": "random"},
        "center": {"method": "center"},
        "kss1": {"method": "kss", "clusters": 1},
        "kss4": {"method": "kss", "clusters": 4, "label": "four clusters"},
    },
    "size": 5,
    "generators": {"gan": {"train": "dcgan", "settings": {"steps": 2}}},
    "count": 6,
    "truncation": 0.3,
    "metrics": {"features": "network.keras", "cid_similarity": "ssim", "cid_images": 100},
    "published": {
        "FEI": {
            "random": {"is": 2.09, "is_sd": 0.02, "fid": 47.51, "d": 2.12},
            "center": {"is": 1.61, "is_sd": 0.01, "fid": 64.25, "d": 0.0},
            "kss1": {"is": 1.98, "is_sd": 0.02, "fid": 70.06, "d": 3.62},
        }
    },
}
SPREAD = {"center": 0.3, "random": 1.0, "kss4": 1.5, "kss1": 2.0}
DIVERSITY = {"center": 1.0, "random": 2.0, "kss4": 2.5, "kss1": 3.0}
FID = {"center": 50.0, "random": 60.0, "kss4": 70.0, "kss1": 80.0}
WOBBLE = (-0.05, 0.02, 0.03)  # of the seeds


@pytest.fixture
def conductor(tmp_path: Path) -> SubsetConductor:
    """The study of 12 grey pictures, nothing of it done."""
    random = np.random.default_rng(0)
    (tmp_path / "discs" / "images").mkdir(parents=True)
    rows = ["file,split"]
    for number in range(12):
        pixels = random.integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "discs" / "images" / f"{number:02d}.png")
        rows.append(f"images/{number:02d}.png,{'train' if number < 10 else 'test'}")
    (tmp_path / "discs" / "splits.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "network.keras").write_bytes(b"weights")
    study = parse(STUDY, tmp_path)
    return SubsetConductor(study, tmp_path / "experiments" / "few", tmp_path, "small", "again")


def finish(made: SubsetConductor, leave: tuple[str, ...] = ()) -> None:
    """Let every cell look finished but those with a word of `leave` in their label."""
    plan = made.planner.plan()
    for cell in plan.cells:
        if any(word in f"{cell.kind} {cell.label}" for word in leave):
            continue
        folder = made.store.path(cell)
        if cell.job is not None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            cell.job(folder)
        else:
            folder.mkdir(parents=True)
        made.store.note(cell, state="done", seconds=60.0, peak_memory_mb=500)
    for (_, subset, seed), cell in plan.selections.items():
        write_choice(made.store.path(cell), subset, seed)
    for overview in plan.overviews.values():
        draw(made.store.path(overview) / "scatter.png")
    for repeat in plan.repeats:
        write_repeat(made, repeat)
    files.write_text(made.store.folder / "experiment.yaml", "experiment: few\n")


def write_choice(folder: Path, subset: str, seed: int) -> None:
    spread = {"variance_ratio": SPREAD[subset] + WOBBLE[seed], "coverage_radius": None}
    told = {
        "pictures": 10,
        "space": {"components": 7, "explained": 0.912},
        "spread": spread,
        "notices": ["one cluster is empty"] if subset == "kss4" else [],
    }
    files.write_json(folder / "selection.json", told)
    (folder / "selection.csv").write_text("rank,file\n1,images/00.png\n")
    draw(folder / "scatter.png")
    draw(folder / "contact_sheet.png")


def draw(path: Path) -> None:
    if path.parent.is_dir():
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def write_repeat(made: SubsetConductor, repeat: Repeat) -> None:
    run = made.store.path(repeat.training)
    if run.is_dir():
        files.write_json(run / "environment.json", {"python": "3.12", "platform": "Linux"})
        (run / "weights").mkdir()
        (run / "weights" / "generator.weights.h5").write_bytes(b"weights")
    pictures = made.store.path(repeat.pictures)
    if pictures.is_dir():
        (pictures / "images").mkdir()
        for number in range(6):
            draw(pictures / "images" / f"{number}.png")
        files.write_json(pictures / "provenance.json", {"truncation": 0.3})
    wobble, subset = WOBBLE[repeat.seed], repeat.subset
    measured = {
        "set": {
            "frechet_distance[network:12345678]": FID[subset] + 10 * wobble,
            "frechet_distance_infinity[network:12345678]": 1.0,
            "kernel_distance[network:12345678]": 0.01,
        },
        "fid_subset": {"frechet_distance[network:12345678]": FID[subset] / 2},
        "cid": {
            "cid_creativity": 1.0,
            "cid_inheritance": 0.5,
            "cid_diversity": DIVERSITY[subset] + wobble,
            "cid_diversity_normalized": 0.5,
            "cid": (DIVERSITY[subset] + wobble) / 2,
        },
    }
    for what, values in measured.items():
        write_measures(made, repeat.measures[what], values, what)


def write_measures(made: SubsetConductor, cell: Cell, values: dict[str, float], what: str) -> None:
    folder = made.store.path(cell)
    common = {
        "protocol": "pixels" if what == "cid" else "stretched",
        "extractor": "" if what == "cid" else "network:features",
        "count_real": 10 if what == "set" else 5,
        "count_fake": 6,
    }
    lines = [json.dumps({"metric": name, "value": v, **common}) for name, v in values.items()]
    if folder.is_dir():
        (folder / "results.jsonl").write_text("\n".join(lines) + "\n")


def summarized(made: SubsetConductor, **other: Any) -> dict[str, Any]:
    facts = subset_summary.Facts(
        study=made.study,
        reals=made.reals,
        plan=made.planner.plan(),
        store=made.store,
        scale=made.scale,
        command=made.command,
        created="2026-01-01T00:00:00+00:00",
        reused=[],
        failed=other.get("failed", {}),
        notices=made.planner.notices,
    )
    path = subset_summary.write(facts)
    text = path.read_text(encoding="utf-8")
    assert str(made.store.folder) not in text, "places of this machine are nobody's business"
    told: dict[str, Any] = json.loads(text)
    return told


@pytest.fixture
def told(conductor: SubsetConductor) -> dict[str, Any]:
    finish(conductor)
    return summarized(conductor)


def picked(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return row


def test_the_docstring_names_everything_that_is_written(told: dict[str, Any]) -> None:
    contract = subset_summary.__doc__ or ""
    assert (told["format"], told["kind"]) == (1, "subsets")
    assert [key for key in told if key not in contract] == []


def test_values_are_those_of_the_measurements_by_seed(told: dict[str, Any]) -> None:
    d = picked(told["results"], subset="kss1", metric="d")
    assert (d["set"], d["generator"], d["seeds"]) == ("discs", "gan", [0, 1, 2])
    assert d["values"] == pytest.approx([2.95, 3.02, 3.03])
    assert d["mean"] == pytest.approx(3.0) and d["low"] < 3.0 < d["high"]
    fid = picked(told["results"], subset="center", metric="fid")
    assert fid["mean"] == pytest.approx(50.0)  # not the extrapolated one
    assert picked(told["results"], subset="center", metric="fid_subset")["mean"] == 25.0
    c = picked(told["results"], subset="center", metric="c")
    assert (c["mean"], c["sd"], c["low"]) == (1.0, 0.0, None)


def test_subsets_are_compared_with_the_random_one(told: dict[str, Any]) -> None:
    assert told["reference"] == "random"
    subsets = {row["subset"] for row in told["comparisons"]}
    assert subsets == {"center", "kss1", "kss4"}
    d = picked(told["comparisons"], subset="kss1", metric="d")
    assert d["difference"] == pytest.approx(1.0)
    assert d["sentence"].startswith(f"{d['verdict']}: +1")


def test_claims_are_judged_for_ours_and_for_the_papers_numbers(told: dict[str, Any]) -> None:
    ours = picked(told["judgments"], source="ours", claim="diversity_grows_with_spread",
                  metric="d", measure="variance_ratio", scope="all", set="discs")  # fmt: skip
    assert (ours["statistic"], ours["seeds"], ours["verdict"]) == (1.0, 3, "cannot tell")
    assert ours["smallest_p"] == pytest.approx(2 / 24)  # four subsets
    fid = picked(told["judgments"], source="published", claim="center_best_fid")
    assert (fid["set"], fid["verdict"]) == ("FEI", "disagrees")
    row = picked(told["conclusions"], claim="center_best_fid")
    assert "not in FEI" in row["published"] and row["ours"].startswith("Cannot tell in 1")


def test_circumstances_that_the_paper_leaves_out_are_said(told: dict[str, Any]) -> None:
    facts = {row["what"]: (row["value"], row["paper"]) for row in told["facts"]}
    assert facts["generated pictures"][0] == "6 of each repeat"
    # exp(3.62) = 37.3 and 2^3.62 = 12.3
    assert "at least 38 in nats, 13 in bits" in facts["generated pictures"][1]
    assert facts["reference of FID and KID"] == ("discs: 10 training pictures", "not stated")
    assert facts["latent vectors of generated pictures"][0] == "gan: normal, cut at ±0.3"
    assert facts["feature network of IS, FID, KID"][0] == "network:features (stretched)"
    assert facts["alike in C and D"][0] == "SSIM of at least 0.8"
    assert facts["pictures that C, I and D look at"][0] == "at most 100 of a side"
    assert facts["components"][0] == "discs: 7"


def test_columns_are_what_was_measured_or_published(told: dict[str, Any]) -> None:
    columns = {row["metric"]: row for row in told["metrics"]}
    assert list(columns) == ["is", "fid", "kid", "fid_subset", "c", "i", "d", "d_normalized", "cid"]
    assert columns["is"]["about"] == ""  # of the paper alone
    assert columns["fid"]["against"] == "set" and columns["d"]["against"] == "subset"
    assert columns["fid"]["counts"] == "10 real, 6 generated"
    assert any(notice.startswith("IS: asked for, but not measured") for notice in told["notices"])
    published = picked(told["published"], subset="center", metric="is")
    assert (published["value"], published["sd"]) == (1.61, 0.01)


def test_choices_are_told_with_spread_and_pictures_of_the_first_seed(
    told: dict[str, Any], conductor: SubsetConductor
) -> None:
    first = picked(told["selections"], subset="kss4", seed=0)
    assert (first["components"], first["explained"]) == (7, 0.912)
    assert first["notices"] == ["one cluster is empty"]
    assert (conductor.store.folder / first["scatter"]).is_file()
    assert (conductor.store.folder / first["sheet"]).is_file()
    assert picked(told["selections"], subset="kss4", seed=1)["sheet"] is None
    spread = picked(told["spread"], subset="kss4", measure="variance_ratio")
    assert spread["mean"] == pytest.approx(1.5) and len(spread["values"]) == 3
    assert [row["measure"] for row in told["measures"]] == ["variance_ratio"]
    assert (conductor.store.folder / told["scatters"][0]["picture"]).is_file()
    assert len(told["samples"]) == 4
    assert [row["label"] for row in told["subsets"]][2:] == ["KSS, G = 1", "four clusters"]


def test_what_is_not_finished_is_missing_and_named(conductor: SubsetConductor) -> None:
    finish(conductor, leave=("measure cid-gan-discs-kss4-s1", "gan gan-discs-kss1-s2"))
    repeat = next(r for r in conductor.planner.plan().repeats if (r.subset, r.seed) == ("kss1", 2))
    log = conductor.store.log(repeat.training)
    log.write_text("$ tfgan-med train\nError: no space left.\n")
    told = summarized(conductor, failed={repeat.training.name: log})
    missing = {(row["subset"], row["seed"]): row["reason"] for row in told["missing"]}
    assert missing == {
        ("kss4", 1): "measure is not finished",
        ("kss1", 2): "gan gan-discs-kss1-s2 failed: Error: no space left.",
    }
    assert picked(told["results"], subset="kss4", metric="d")["seeds"] == [0, 2]
    order = picked(told["judgments"], source="ours", claim="center_lowest", metric="d")
    assert order["seeds"] == 1 and order["verdict"] == "cannot tell"  # seed 0 alone is whole


def test_a_line_for_each_value_stands_in_the_results_file(
    told: dict[str, Any], conductor: SubsetConductor
) -> None:
    lines = (conductor.store.folder / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 4 * 3 * 8
    row = picked(rows, subset="center", seed=1, metric="fid")
    assert row["value"] == pytest.approx(50.2)
    assert row["measured_as"] == "frechet_distance[network:12345678]"


def test_the_report_is_written_from_it(told: dict[str, Any], conductor: SubsetConductor) -> None:
    from tfgan_med.experiments import subset_report

    page = subset_report.write_report(conductor.store.folder)
    assert "Do spread discs make diverse discs?" in page.read_text(encoding="utf-8")


def test_a_dry_run_says_what_each_choice_costs(conductor: SubsetConductor) -> None:
    finish(conductor, leave=("gan gan-discs-kss1",))
    plan = conductor.dry_run()
    assert plan["data"] == {"discs": {"train pictures": 10}}
    open_cells = {cell["label"]: cell for cell in plan["cells"] if not cell["done"]}
    assert set(open_cells) == {f"gan-discs-kss1-s{seed}" for seed in (0, 1, 2)}
    assert {cell["seconds"] for cell in open_cells.values()} == {60.0}  # as its siblings took
    assert plan["seconds"] == 180.0
