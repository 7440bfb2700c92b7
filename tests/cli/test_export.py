"""`export` as users run it: folders, runs, and requests that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data import synthetic

if TYPE_CHECKING:
    from tests.conftest import Cli


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A generated set of pictures with masks, inside a run and a folder `runs`."""
    run = tmp_path / "runs" / "0001-dcgan"
    folder = run / "generated"
    for i in range(3):
        pixels = np.full((16, 16), 40 * i, np.uint8)
        mask = np.zeros((16, 16), np.uint8)
        mask[2:6, 3 : 8 + i] = 255
        synthetic.write_picture(folder / "images" / f"{i}", pixels)
        synthetic.write_picture(folder / "masks" / f"{i}", mask)
    synthetic.write_provenance(folder, run="0001-dcgan", images=[])
    (run / "config.yaml").write_text("system: dcgan\n")
    return tmp_path


def test_a_folder_goes_beside_itself_and_the_result_is_json(cli: Cli, made: Path) -> None:
    folder = made / "runs" / "0001-dcgan" / "generated"
    done = cli("export", str(folder), "--format", "coco", "--json", cwd=made)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == {
        "folder": str(folder.with_name("generated-coco")),
        "format": "coco",
        "pictures": 3,
        "unchanged": 3,
        "synthetic": True,
    }
    facts = json.loads((Path(result["folder"]) / "annotations" / "instances.json").read_text())
    assert [one["bbox"][2] for one in facts["annotations"]] == [5.0, 6.0, 7.0]
    assert "synthetic" in facts["info"]["description"]
    assert "Next: pycocotools" in done.stderr
    again = cli("export", str(folder), "--format", "coco", cwd=made)
    assert (again.returncode, again.stdout) == (2, "")
    assert "--force" in again.stderr


def test_a_run_means_what_it_has_generated(cli: Cli, made: Path) -> None:
    told = ("export", "1", "--format", "nnunet", "--names", "skin,lesion", "--number", "7")
    done = cli(*told, cwd=made)
    assert done.returncode == 0, done.stderr
    assert "3 synthetic pictures, 3 byte for byte" in done.stdout
    inside = made / "runs" / "0001-dcgan" / "exported" / "nnunet" / "Dataset007_0001dcgan"
    facts = json.loads((inside / "dataset.json").read_text())
    assert facts["labels"] == {"background": 0, "lesion": 1}
    with Image.open(inside / "labelsTr" / "0.png") as image:
        assert np.asarray(image).sum() == 4 * 5
    (made / "runs" / "0001-dcgan" / "translated" / "test").mkdir(parents=True)
    two = cli("export", "last", "--format", "yolo", cwd=made)
    assert two.returncode == 2
    assert "several sets of pictures" in two.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data", "--format", "pascal"), "--format pascal: expected one of imagefolder"),
        (("data", "--format", "imagefolder"), "data: no such folder"),
        (("1", "--format", "coco", "--polygons"), "--polygons: means nothing with --format coco"),
        (("1", "--format", "onnx", "--role", "masks"), "--role: means nothing with --format onnx"),
        (("1", "--format", "yolo", "--direction", "a2b"), "--direction: means nothing"),
        (("9", "--format", "yolo"), "9: no such run"),
        (("1", "--format", "savedmodel"), "has no weights/network.yaml"),
    ],
)
def test_mistakes_end_with_2_and_one_message(
    cli: Cli, made: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = cli("export", *arguments, cwd=made)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ") and message in done.stderr
