"""`tfgan-med select` as users run it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tfgan_med.cli.app import app
from tfgan_med.errors import UserError

if TYPE_CHECKING:
    from tests.conftest import Cli

RUNNER = CliRunner()
SIZE = ("--image-size", "16")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of three brightnesses with some texture; ten of them for testing."""
    folder = tmp_path_factory.mktemp("data") / "set"
    (folder / "images").mkdir(parents=True)
    lines = ["file,split,class,group"]
    for n in range(60):
        random = np.random.default_rng(n)
        wave = np.sin(np.arange(20) * random.uniform(0.2, 1.0))[:, None] * np.ones(20)
        picture = 100 + 20 * (n % 3) + 60 * wave + random.normal(0, 20, (20, 20))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(
            folder / "images" / f"{n:02}.png"
        )
        part = "train" if n < 50 else "test"
        lines.append(f"images/{n:02}.png,{part},{'abc'[n % 3]},p{n}")
    (folder / "splits.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The set; the working folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return made


def invoke(*arguments: object) -> Result:
    return RUNNER.invoke(app, ["select", *map(str, arguments)])


def done(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, UserError), result.output
    assert not Path("out").exists()
    return str(result.exception)


def lines_of(folder: Path | str) -> list[dict[str, str]]:
    with (Path(folder) / "selection.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


# In a process of their own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [("kss", "--clusters", "3"), ("center",), ("random",), ("kcenter",)]
)
def test_every_method_makes_a_data_set_that_can_be_checked(
    cli: Cli, data: Path, tmp_path: Path, method: tuple[str, ...]
) -> None:
    arguments = ("select", method[0], data, "--size", 12, *method[1:], *SIZE, "--out", "out")
    ran = cli(*map(str, arguments), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"out: 12 of 50 pictures ({method[0]}")
    assert "components hold 9" in ran.stdout
    assert "variance_ratio" in ran.stdout
    assert ran.stderr == "Next: tfgan-med train fastgan --data out --set data.image_size=16\n"
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "images", "splits.csv", "selection.csv", "selection.json", "scatter.png",
        "contact_sheet.png",
    }  # fmt: skip
    assert len(list((out / "images").iterdir())) == len(lines_of(out)) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "out"]
    checked = RUNNER.invoke(app, ["check", str(out), "--json", "--out", str(tmp_path / "report")])
    assert json.loads(checked.stdout)["counts"]["all"] == {"train": 12, "val": 0, "test": 0}


def test_a_generator_trains_on_what_was_chosen(data: Path) -> None:
    done("kss", data, "--size", 12, "--clusters", 2, *SIZE, "--out", "out")
    plan = ["train", "dcgan", "--data", "out", "--set", "data.image_size=32", "--dry-run"]
    result = RUNNER.invoke(app, plan)
    assert result.exit_code == 0, (result.output, result.exception)


def test_subsets_are_compared_in_one_table_and_one_figure(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    for name, *method in (("a", "random"), ("b", "center"), ("c", "kss")):
        done(*method, data, "--size", 9, *SIZE, "--out", tmp_path / name)
    ran = cli("select", "compare", "a", "b", "far=c", "--out", "side by side", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    header, *_ = [line for line in ran.stdout.splitlines() if line.startswith(" ")]
    assert header.split() == ["a", "b", "far"]
    assert "kss, 1 cluster" in ran.stdout
    folder = tmp_path / "side by side"
    with (folder / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    spread = {row["subset"]: float(row["variance_ratio"]) for row in rows}
    assert spread["b"] < spread["a"] < spread["far"]  # the order of the paper
    assert rows[0]["shared with a"] == "9"
    with Image.open(folder / "scatter.png") as figure:
        assert figure.size == (4 * 310 + 40, 360)


# Determinism --------------------------------------------------------------------------------------


def test_two_runs_and_another_order_on_disk_choose_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"  # another place, files made in another order
    (copy / "images").mkdir(parents=True)
    for path in sorted((data / "images").iterdir(), reverse=True):
        shutil.copy(path, copy / "images")
    shutil.copy(data / "splits.csv", copy)
    wanted = ("--size", 11, "--clusters", 4, *SIZE)
    done("kss", data, *wanted, "--out", "one")
    done("kss", data, *wanted, "--out", "two")
    scan = os.scandir

    class Shuffled:
        def __init__(self, path: Any) -> None:
            with scan(path) as entries:
                self.entries = sorted(entries, key=lambda entry: hash(entry.name))

        def __enter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            return None

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path / "cache"))  # nothing is remembered
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", Shuffled)
        result = invoke("kss", copy, *wanted, "--out", "three")
    assert result.exit_code == 0, result.exception
    one, two, three = (Path(n, "selection.csv").read_bytes() for n in ("one", "two", "three"))
    assert one == two == three


def test_seeds_draw_different_pictures(data: Path) -> None:
    for seed in (0, 1):
        done("random", data, "--size", 10, "--seed", seed, *SIZE, "--out", f"seed{seed}")
    assert lines_of("seed0") != lines_of("seed1")


# Options ------------------------------------------------------------------------------------------


def test_json_is_one_object_with_all_that_was_decided(data: Path) -> None:
    result = done(
        "kss", data, "--size", 10, "--clusters", 3, *SIZE, "--out", "out", "--json", "--quiet"
    )
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert (found["folder"], found["chosen"], found["pictures"]) == ("out", 10, 50)
    assert sorted(found["quota"]) == [3, 3, 4]
    assert found["classes"].keys() == {"a", "b", "c"}
    assert found["space"]["explained"] >= 0.9
    assert found["spread"].keys() >= {"variance_ratio", "coverage_radius", "log_det"}
    kept = json.loads(Path("out", "selection.json").read_text())
    assert kept == {key: value for key, value in found.items() if key != "folder"}


def test_test_pictures_are_chosen_only_when_asked_for(data: Path) -> None:
    done("random", data, "--size", 50, *SIZE, "--out", "train")
    assert max(line["item"] for line in lines_of("train")) == "images/49.png"
    done("random", data, "--size", 60, "--split", "all", *SIZE, "--out", "all")
    assert len(lines_of("all")) == 60


def test_copies_reduced_pictures_tiles_and_settings_of_the_data(data: Path) -> None:
    done("center", data, "--size", 5, *SIZE, "--pca-size", 8, "--copy", "--out", "copies")
    name = lines_of("copies")[0]["file"]
    assert not Path("copies", name).samefile(data / name)
    facts = json.loads(Path("copies", "selection.json").read_text())
    assert facts["space"]["described"] == "pixels 8 x 8 x 1"
    result = done(
        "kcenter",
        data,
        "--size",
        7,
        "--fit",
        "patches",
        *SIZE,
        "--set",
        "data.label=b",
        "--out",
        "t",
    )
    assert "7 of 68 tiles" in result.stdout  # 17 pictures of class b in 4 tiles each
    assert {line["class"] for line in _rows(Path("t", "splits.csv"))} == {"b"}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_force_replaces_a_subset_and_only_that(data: Path) -> None:
    wanted = ("random", data, *SIZE, "--out", "subset")
    done(*wanted, "--size", 5)
    assert "exists" in refused(*wanted, "--size", 6)
    done(*wanted, "--size", 6, "--force")
    assert len(lines_of("subset")) == 6
    Path("mine").mkdir()
    assert "replaces subsets only" in refused(
        "random", data, *SIZE, "--size", 5, "--out", "mine", "--force"
    )


def test_features_of_a_network_are_compared_instead_of_pixels(data: Path, shared: Path) -> None:
    weights = shared / "weights" / "squeezenet-1.1-imagenet-notop.h5"
    if not weights.is_file():
        pytest.skip(f"needs {weights}")
    network = ("--features", "squeezenet", "--weights", weights)
    result = done("kss", data, "--size", 6, *network, *SIZE, "--out", "a")
    assert "512 features of squeezenet" in result.stdout
    done("center", data, "--size", 6, *network, *SIZE, "--out", "b")
    assert "512 features of squeezenet" in done("compare", "a", "b", "--out", "c").stdout


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kss", "--size", 51), "size: 51 pictures cannot be chosen out of 50"),
        (("kss", "--size", 5, "--clusters", 6), "6 clusters for 5 pictures"),
        (("kss", "--size", 5, "--components", 99), "99"),
        (("kss", "--size", 5, "--pca-size", 99), "pca_size is 99"),
        (("kss", "--size", 5, "--pca-size", 8, "--features", "vgg16"), "Leave one out"),
        (("kss", "--size", 5, "--features", "no.keras"), "no.keras"),
        (("random", "--size", 5, "--set", "data.label=z"), r"classes of .* are: a, b, c"),
        (("random", "--size", 5, "--set", "data.colour=1"), "unknown setting"),
        (("random", "--size", 5, "--columns", "file"), "OURS=THEIRS is expected"),
        (("random", "--size", 5, "--set", "data.target=labels"), "data.target is 'labels'"),
    ],
)
def test_what_cannot_be_is_said_with_its_numbers(
    data: Path, arguments: tuple[object, ...], message: str
) -> None:
    method, *options = arguments
    said = refused(method, data, *options, *SIZE, "--out", "out")
    assert re.search(message, said), said


def test_a_covariance_without_inverse_names_the_ways_out(data: Path) -> None:
    said = refused(
        "kss", data, "--size", 10, "--clusters", 10, "--components", 8, "--covariance", "empirical",
        *SIZE, "--out", "out",
    )  # fmt: skip
    assert "cluster" in said


def test_mistakes_are_one_message_and_2(cli: Cli, data: Path, tmp_path: Path) -> None:
    for arguments in (
        ("select", "random", data, "--size", "500", *SIZE, "--out", "out"),
        ("select", "compare", tmp_path, tmp_path, "--out", "out"),
    ):
        ran = cli(*arguments, cwd=tmp_path)
        assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
        assert ran.stderr.count("Error: ") == 1
    assert not (tmp_path / "out").exists()


def test_places_that_do_not_fit_are_refused_before_any_picture_is_read(data: Path) -> None:
    assert "no such folder" in refused("kss", "nothing", "--size", 5, "--out", "out")
    assert "lie in each other" in refused("kss", data, "--size", 5, *SIZE, "--out", data / "out")
    assert "one subset alone" in refused("compare", data, "--out", "out")
    Path("file").write_text("")
    assert "is a file" in refused("compare", data, data, "--out", "file")
    assert not (data / "out").exists()


def test_comparisons_are_kept_unless_forced_and_never_written_into_a_subset(data: Path) -> None:
    for name in ("a", "b"):
        done("random", data, "--size", 5, *SIZE, "--out", name)
    done("compare", "a", "b", "--out", "c")
    assert "holds a comparison already" in refused("compare", "a", "b", "--out", "c")
    result = done("compare", "a", "b", "--out", "c", "--force", "--json", "--quiet")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["subset"], second["shared"]) == ("a", {"a": 5, "b": 5})
    assert "is a subset itself" in refused("compare", "a", "b", "--out", "a", "--force")


def test_a_set_without_splits_uses_all_pictures_and_can_hold_copies(
    data: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(data / "images", flat)
    shutil.copy(flat / "00.png", flat / "copy of 00.png")
    result = done("kss", flat, "--size", 8, "--clusters", 8, *SIZE, "--out", "first")
    assert "8 of 61 pictures" in result.stdout
    assert "training split" not in result.stdout
    assert "names no training split" in refused(
        "kss", flat, "--size", 8, "--split", "train", *SIZE, "--out", "again"
    )
