"""Sets that are put together: joined synthetic folders, real pictures as the networks see them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data import opening, synthetic
from tfgan_med.data.records import DataConfig
from tfgan_med.experiments import sets


def translated(folder: Path, label: str, names: list[str]) -> Path:
    """As `translate` writes a direction of CycleGAN: conditions, `splits.csv`, provenance."""
    entries = []
    for number, name in enumerate(names):
        pixels = np.full((8, 8), 10 * number, np.uint8)
        synthetic.write_picture(folder / "images" / name, pixels)
        synthetic.write_picture(folder / "inputs" / name, pixels, False)
        entries.append({"file": f"images/{name}.png", "condition": f"real/{name}.png"})
    rows = "".join(f"{entry['file']},{label}\n" for entry in entries)
    (folder / "splits.csv").write_text(f"file,class\n{rows}")
    trained = [{"id": f"{label}.png", "sha256": {"a": label}}, {"id": "both", "sha256": {"a": "x"}}]
    synthetic.write_provenance(folder, system="cyclegan", trained_on=trained, images=entries)
    return folder


def test_two_directions_become_one_set_with_class_folders(tmp_path: Path) -> None:
    a = translated(tmp_path / "a", "sick", ["p", "q"])
    b = translated(tmp_path / "b", "well", ["p"])
    sets.join([a, b], tmp_path / "whole")
    found = opening.open_set(DataConfig(path=str(tmp_path / "whole")))
    assert not found.faults
    assert {r.id: r.label for r in found.records} == {
        "sick/0-p.png": "sick",
        "sick/0-q.png": "sick",
        "well/1-p.png": "well",
    }
    assert found.roles == ("images",)  # the conditions are real pictures and stay behind
    assert sets.count(tmp_path / "whole") == {"sick": 2, "well": 1}
    told = json.loads((tmp_path / "whole" / "provenance.json").read_text())
    assert told["synthetic"] is True and told["system"] == "cyclegan"
    assert sorted(item["id"] for item in told["trained_on"]) == ["both", "sick.png", "well.png"]
    first = next(entry for entry in told["images"] if entry["file"] == "sick/0-q.png")
    assert first["condition"] == "real/q.png" and first["part"] == 0


def test_classes_with_the_name_of_a_folder_that_means_something_get_a_table(
    tmp_path: Path,
) -> None:
    part = translated(tmp_path / "a", "test", ["p", "q"])
    sets.join([part], tmp_path / "whole")
    assert (tmp_path / "whole" / "images" / "test" / "p.png").is_file()
    assert sets.count(tmp_path / "whole") == {"test": 2}


def test_the_content_of_a_folder_is_its_names_and_bytes(tmp_path: Path) -> None:
    part = translated(tmp_path / "a", "sick", ["p"])
    before = sets.content_of(part)
    assert sets.content_of(part.rename(tmp_path / "moved")) == before
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "moved" / "images" / "p.png")
    assert sets.content_of(tmp_path / "moved") != before


@pytest.mark.parametrize("masks", [False, True])
def test_a_sheet_has_masks_below_their_pictures(tmp_path: Path, masks: bool) -> None:
    for number in range(3):
        pixels = np.full((20, 30), 50 * number, np.uint8)
        synthetic.write_picture(tmp_path / "set" / "images" / f"{number}", pixels)
        if masks:
            mask = np.zeros((20, 30), np.uint8)
            mask[5:15, 10:20] = 255
            synthetic.write_picture(tmp_path / "set" / "masks" / f"{number}", mask)
    records = opening.open_set(DataConfig(path=str(tmp_path / "set"))).records
    path = sets.sheet(records, DataConfig(path="x"), tmp_path / "sheet.png")
    assert path is not None
    pixels = np.asarray(Image.open(path))
    assert pixels.shape[0] == (258 if masks else 128)
    assert (pixels[64, 64] == 0).all()  # the first picture is black
    if masks:
        assert (pixels[130 + 64, 64] == 255).all()  # its mask is white in the middle
        assert (pixels[130 + 4, 4] == 0).all()
