"""`generate` as a process: sets that other commands read, classes, ways, stops and mistakes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from tfgan_med import config, files
from tfgan_med.cli.app import app
from tfgan_med.data.encoding import Encoding
from tfgan_med.errors import UserError
from tfgan_med.training import settings, weights
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.sampling import ImageShapes, build_model

MAIN = "from tfgan_med.cli.app import main; main()"


def make_run(run: Path, label: str | None, *roles: str) -> None:
    """A run folder of a small DCGAN with random weights, which is enough for the command line."""
    chosen = settings.resolve(
        "dcgan",
        None,
        ["data.path=somewhere", "data.image_size=32", "model.generator_base=32",
         "model.latent_size=8", "train.calibration_batches=2"],
    )  # fmt: skip
    encodings = tuple(
        Encoding(role=role, kind="mask" if role == "masks" else "image", channels=1)
        for role in roles
    )
    shapes = ImageShapes(system="dcgan", image_size=32, encodings=encodings, label=label)
    model = build_model(chosen, shapes, inference=True)
    for weight in model.networks["generator"].weights:
        if weight.name == "kernel":
            weight.assign(8.0 * weight.value)  # pictures with contrast
    (run / "weights").mkdir(parents=True)
    files.write_text(run / "config.yaml", config.as_yaml(chosen, commented=True))
    network = yaml.safe_dump(shapes.model_dump(mode="json"), sort_keys=False)
    files.write_text(run / "weights" / "network.yaml", network)
    weights.save(RunFolder(run), "generator", model.prepare_samples(2))
    items = [{"id": f"{i}.png", "split": "train", "sha256": {"images": "0"}} for i in range(4)]
    files.write_json(run / "data.json", {"items": items})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: 1 of pictures with masks, 2 of two classes."""
    root = tmp_path_factory.mktemp("generate")
    make_run(root / "runs" / "0001-dcgan", "bad", "images", "masks")
    for label in ("bad", "good"):
        make_run(root / "runs" / "0002-dcgan" / label, label, "images")
    files.write_json(
        root / "runs" / "0002-dcgan" / "classes.json", {"classes": {"bad": "bad", "good": "good"}}
    )
    return root


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process, which is TensorFlow's start faster."""
    monkeypatch.chdir(place)

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["generate", *map(str, arguments)])

    return run


def refusal(result: Result) -> str:
    """What a user reads, in one line."""
    if isinstance(result.exception, UserError):
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "provenance.json").read_text())["images"]
    return found


def test_a_generated_folder_passes_check_and_tells_what_it_is(cli: Any, place: Path) -> None:
    done = cli("generate", "1", "--count", "70", "--out", "made", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["pictures"], result["added"], result["folder"]) == (70, 70, "made")
    assert result["images_per_second"] > 0
    assert "images/s" in done.stderr
    assert "Next: look at them" in done.stderr.splitlines()[-1]
    checked = cli("check", "made", "--json", cwd=place)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "70" in checked.stdout
    assert "is marked as made by a network" in (checked.stdout + checked.stderr)


def test_without_options_it_makes_as_many_as_it_saw_into_the_run(
    call: Callable[..., Result], place: Path
) -> None:
    done = call("1", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "4 pictures: runs/0001-dcgan/generated\n"
    assert "--force" in refusal(call("1"))
    assert call("1", "--force", "--count", "2").exit_code == 0
    assert len(entries(place / "runs" / "0001-dcgan" / "generated")) == 2


def test_force_deletes_only_what_was_generated(call: Callable[..., Result], place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "scan.png").write_bytes(b"irreplaceable")
    assert "we did not make it" in refusal(call("1", "--count", "2", "--out", "mine", "--force"))
    assert (place / "mine" / "scan.png").read_bytes() == b"irreplaceable"


def test_classes_become_class_folders(call: Callable[..., Result], place: Path) -> None:
    parent = place / "runs" / "0002-dcgan"
    unclear = refusal(call(parent, "--count", "3", "--out", "classes"))
    assert "--per-class" in unclear
    assert "bad, good" in unclear
    done = call(parent, "--per-class", "--count", "3", "--out", "classes")
    assert done.exit_code == 0, done.output
    assert done.stdout == "6 pictures: classes\n"
    assert [entry["file"] for entry in entries(place / "classes")][2:4] == [
        "bad/000002.png", "good/000000.png"
    ]  # fmt: skip
    one = call(parent / "good", "--count", "1", "--out", "good")
    assert one.exit_code == 0, one.output
    assert (place / "good/images/000000.png").read_bytes() == (
        place / "classes/good/000000.png"
    ).read_bytes()
    way = refusal(call(parent, "--interpolate", "0", "1"))
    assert "Name the run of one" in way


def test_the_way_between_two_pictures_is_drawn(call: Callable[..., Result], place: Path) -> None:
    command = ("1", "--interpolate", "0", "5", "--steps", "4", "--json")
    done = call(*command)
    assert done.exit_code == 0, done.output
    folder = place / "runs" / "0001-dcgan" / "interpolations"
    names = [
        f"interpolation-0-5-{way}{suffix}"
        for way in ("linear", "spherical")
        for suffix in (".gif", ".png")
    ]
    assert sorted(path.name for path in folder.iterdir()) == names
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["path"] for result in results] == ["spherical", "linear"]
    with Image.open(folder / names[1]) as strip:
        assert strip.size == (4 * 32 + 3 * 2, 2 * 32 + 2)
        assert np.asarray(strip).std() > 20
    assert "--force" in refusal(call(*command))
    assert call(*command, "--force", "--path", "linear").exit_code == 0


def test_a_stopped_command_goes_on_when_it_is_repeated(
    call: Callable[..., Result], place: Path
) -> None:
    command = ["1", "--count", "1500", "--out", "long"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "generate", *command],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background shell, as of a CI, starts its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.time() + 120
    while not (place / "long.part" / "images" / "000100.png").is_file():
        assert time.time() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "kept in long.part" in said
    assert "Traceback" not in said
    assert not (place / "long").exists()
    files_there = len(list((place / "long.part" / "images").glob("0*.png")))
    assert "another seed" in refusal(call(*command, "--seed", "1"))
    shutil.rmtree(place / "long.part" / "masks")  # worse than any stop
    done = call(*command, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pictures"] == 1500
    assert 100 < files_there < 1500
    assert len(entries(place / "long")) == 1500
    assert len(list((place / "long" / "masks").iterdir())) == 1500
    assert not list((place / "long").rglob(".*"))


@pytest.mark.parametrize(
    "option",
    [("--truncation", "1"), ("--format", "npz"), ("--per-class",), ("--interpolate", "0", "1")],
)
def test_a_translation_model_takes_no_options_of_latent_vectors(
    option: tuple[str, ...], call: Callable[..., Result], place: Path
) -> None:
    run = place / "elsewhere" / "0003-pix2pix"
    (run / "weights").mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "weights/network.yaml"):
        (run / name).write_text("system: pix2pix\n")
    told = refusal(call(run, *option))
    assert option[0] in told
    assert "translates pictures" in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["1", "--truncation", "0"], "--truncation 0"),
        (["1", "--format", "jpeg"], "png, npz, tfrecord"),
        (["1", "--per-class"], "not one for each class"),
        (["1", "--split", "train"], "latent vectors"),
        (["1", "--direction", "a2b"], "latent vectors"),
        (["1", "--steps", "5"], "--interpolate A B"),
        (["1", "--interpolate", "3", "3"], "two pictures"),
        (["1", "--interpolate", "0", "1", "--count", "5"], "--count"),
        (["1", "--checkpoint", "worst"], "final, latest, best"),
        (["1", "--checkpoint", "latest", "--count", "1"], "no whole checkpoint"),
        (["nowhere"], "no such run"),
        (["1", "--seed", "-1"], "--seed"),
    ],
)
def test_a_mistake_is_one_message_and_no_folder(
    more: list[str], told: str, call: Callable[..., Result], place: Path
) -> None:
    before = sorted(path.name for path in place.iterdir())
    done = call(*more, "--out", "mistake")
    assert told in refusal(done)
    assert done.stdout == ""
    assert sorted(path.name for path in place.iterdir()) == before
