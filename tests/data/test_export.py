"""Data sets in other tools' layouts: the same bytes, exact masks, marks of synthetic pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from tfgan_med.data import synthetic
from tfgan_med.data.export.items import Item, Options, open_source, plain
from tfgan_med.data.export.objects import Thing, decode_rle, encode, outline
from tfgan_med.data.export.sets import Exported, export_set
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import DataConfig
from tfgan_med.errors import DataError, UserError

Pixels = npt.NDArray[Any]


def noise(seed: int, *shape: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, pixels: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def two_pieces() -> Pixels:
    """12 high, 20 wide: a ring at the left, and a bar that meets no part of it."""
    mask = np.zeros((12, 20), np.uint8)
    mask[2:7, 1:6] = 1
    mask[4, 3] = 0
    mask[0, 15:20] = 1
    return mask


def paired(root: Path, count: int = 4, splits: bool = True) -> Path:
    """Pictures of 12 x 20 with masks, instances and labels."""
    for i in range(count):
        mask = np.roll(two_pieces(), i, axis=0)
        save(root / "images" / f"p{i}.png", noise(i, 12, 20, 3))
        save(root / "masks" / f"p{i}.png", mask * np.uint8(255))
        instances = mask.astype(np.uint16) * 7
        instances[:, 10:] *= 40  # 280 does not fit into 8 bits
        save(root / "instances" / f"p{i}.png", instances)
        labels = mask.copy()
        labels[:, 10:] *= 3
        save(root / "labels" / f"p{i}.png", labels)
    if splits:
        names = ("train", "train", "val", "test")
        rows = "".join(f"images/p{i}.png,{names[i % 4]}\n" for i in range(count))
        (root / "splits.csv").write_text(f"file,split\n{rows}")
    return root


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# Every format -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["imagefolder", "coco", "yolo", "nnunet"])
def test_pictures_keep_their_bytes_and_the_source_is_untouched(tmp_path: Path, form: str) -> None:
    root = paired(tmp_path / "set")
    before = snapshot(root)
    done = export_set(str(root), form, tmp_path / "out")
    assert snapshot(root) == before
    assert (done.pictures, done.unchanged, done.synthetic) == (4, 4, False)
    with (tmp_path / "out" / "files.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["split"] for row in rows] == ["train", "train", "val", "test"]
    for row in rows:
        made = (tmp_path / "out" / row["file"]).read_bytes()
        assert made == (root / row["source"]).read_bytes()
    assert read_json(tmp_path / "out" / "export.json")["format"] == form


@pytest.mark.parametrize("form", ["imagefolder", "coco", "yolo", "nnunet"])
def test_synthetic_sets_say_so_everywhere(tmp_path: Path, form: str) -> None:
    root = tmp_path / "made"
    for i in range(3):
        synthetic.write_picture(root / "images" / f"{i}", noise(i, 12, 20))
        synthetic.write_picture(root / "masks" / f"{i}", two_pieces() * np.uint8(255))
    synthetic.write_provenance(root, run="0001-dcgan", images=[])
    done = export_set(str(root), form, tmp_path / "out")
    assert done.synthetic
    pictures = sorted((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == (6 if form == "nnunet" else 3)
    for path in pictures:
        with Image.open(path) as image:
            assert image.text["Synthetic"] == "yes"  # type: ignore[attr-defined]
    kept = (tmp_path / "out" / "provenance.json").read_bytes()
    assert kept == (root / "provenance.json").read_bytes()
    fields = {
        "imagefolder": lambda out: read_json(out / "export.json")["synthetic"],
        "coco": lambda out: read_json(out / "annotations/instances.json")["info"]["synthetic"],
        "yolo": lambda out: yaml.safe_load((out / "data.yaml").read_text())["synthetic"],
        "nnunet": lambda out: read_json(out / "Dataset001_made/dataset.json")["synthetic"],
    }
    assert fields[form](tmp_path / "out") is True


def test_an_export_is_replaced_only_on_demand_and_other_folders_never(tmp_path: Path) -> None:
    root, out = paired(tmp_path / "set"), tmp_path / "out"
    export_set(str(root), "coco", out)
    with pytest.raises(UserError, match=r"exists\. .* --force"):
        export_set(str(root), "yolo", out)
    export_set(str(root), "yolo", out, replace=True)
    assert (out / "data.yaml").is_file() and not (out / "annotations").exists()
    mine = tmp_path / "mine"
    save(mine / "holiday.png", noise(0, 4, 4))
    with pytest.raises(UserError, match=r"no export .*--force does not replace"):
        export_set(str(root), "yolo", mine, replace=True)
    for inside in (root, root / "coco", tmp_path):
        with pytest.raises(UserError, match="lies in the source"):
            export_set(str(root), "coco", inside, replace=True)
    assert (mine / "holiday.png").is_file() and (root / "images" / "p0.png").is_file()


def test_a_failed_export_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    root, out = paired(tmp_path / "set"), tmp_path / "out"
    export_set(str(root), "coco", out)
    before = snapshot(out)
    save(root / "masks" / "p3.png", np.ones((5, 5), np.uint8))
    with pytest.raises(DataError, match=r"masks/p3\.png: 5 x 5 pixels, its picture has 20 x 12"):
        export_set(str(root), "coco", out, Options(role="masks"), replace=True)
    assert snapshot(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]


def test_sets_with_faults_or_half_a_split_are_refused(tmp_path: Path) -> None:
    root = paired(tmp_path / "set")
    (root / "masks" / "p0.png").unlink()
    with pytest.raises(DataError, match="no file of the same name in masks"):
        export_set(str(root), "coco", tmp_path / "out")
    other = tmp_path / "other"
    save(other / "a.png", noise(0, 8, 8))
    save(other / "b.png", noise(1, 8, 8))
    (other / "splits.csv").write_text("file,split\na.png,train\nb.png,\n")
    with pytest.raises(DataError, match="split"):
        export_set(str(other), "imagefolder", tmp_path / "out")
    with pytest.raises(UserError, match="one of imagefolder, coco"):
        export_set(str(other), "pascal", tmp_path / "out")


def test_names_are_plain_and_unique() -> None:
    assert plain("../a b/ü.png") == "_a_b__.png"
    assert plain("..") == "_"


def test_files_of_one_name_in_two_folders_become_two(tmp_path: Path) -> None:
    for folder in ("good", "bad"):
        save(tmp_path / "set" / folder / "A.png", noise(0, 8, 8))
    source = open_source(str(tmp_path / "set"))
    assert sorted(item.name for item in source.items) == ["A", "A-2"]


# imagefolder --------------------------------------------------------------------------------------


def test_class_folders_stand_below_splits_and_our_reader_reads_them(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("ok/a.png", "ok/b.png", "crack !/c.jpeg", "crack !/d.png"):
        save(root / name, noise(len(name), 9, 9, 3))
    (root / "splits.csv").write_text(
        "file,split\nok/a.png,train\nok/b.png,test\ncrack !/c.jpeg,train\ncrack !/d.png,test\n"
    )
    done = export_set(str(root), "imagefolder", tmp_path / "out")
    made = {p.relative_to(done.folder).as_posix() for p in done.folder.rglob("*.*g")}
    assert made == {
        "train/ok/a.png",
        "test/ok/b.png",
        "train/crack__/c.jpg",
        "test/crack__/d.png",
    }
    again = open_set(DataConfig(path=str(done.folder)))
    assert {(r.split, r.label) for r in again.records} == {
        ("train", "ok"),
        ("test", "ok"),
        ("train", "crack__"),
        ("test", "crack__"),
    }


def test_keras_reads_it(tmp_path: Path) -> None:
    import keras

    for name in ("ok/a.png", "ok/b.png", "bad/c.png"):
        save(tmp_path / "set" / name, noise(len(name), 9, 9, 3))
    done = export_set(str(tmp_path / "set"), "imagefolder", tmp_path / "out")
    loaded = keras.utils.image_dataset_from_directory(done.folder, verbose=False)
    assert loaded.class_names == ["bad", "ok"]
    assert sum(len(labels) for _, labels in loaded) == 3


def test_sets_without_classes_get_one_folder_and_masks_are_named_as_left_out(
    tmp_path: Path,
) -> None:
    done = export_set(str(paired(tmp_path / "set", splits=False)), "imagefolder", tmp_path / "out")
    assert len(list((done.folder / "images").iterdir())) == 4
    assert "no classes" in done.notices[0]
    assert "instances, labels, masks left out" in done.notices[1]


def test_what_other_tools_would_misread_becomes_png_with_the_same_pixels(tmp_path: Path) -> None:
    root = tmp_path / "set"
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11), np.uint16)
    save(root / "deep.tif", deep)
    turned = Image.fromarray(noise(1, 9, 11, 3))
    exif = Image.Exif()
    exif[274] = 6
    turned.save(root / "turned.png", exif=exif)
    done = export_set(str(root), "imagefolder", tmp_path / "out")
    assert done.unchanged == 0
    with Image.open(done.folder / "images" / "deep.png") as image:
        assert np.array_equal(np.asarray(image), deep)
        assert "Synthetic" not in image.text  # type: ignore[attr-defined]
    with Image.open(done.folder / "images" / "turned.png") as image:
        assert image.size == (9, 11)
        assert np.array_equal(np.asarray(image), np.rot90(noise(1, 9, 11, 3), -1))


def test_values_that_no_png_holds_are_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "set" / "scan.tif", np.linspace(-1000, 500, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(DataError, match=r"scan\.tif: values from -1000 to 500"):
        export_set(str(tmp_path / "set"), "imagefolder", tmp_path / "out")


# COCO ---------------------------------------------------------------------------------------------


def thing(mask: Pixels, category: int = 1) -> Thing:
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    height, width = rows.max() + 1 - top, columns.max() + 1 - left
    inside = mask[top : top + height, left : left + width] > 0
    return Thing(category, (float(left), float(top), float(width), float(height)), inside)


def test_run_lengths_go_down_the_columns_and_begin_with_zeros() -> None:
    mask = np.array([[1, 1, 0], [0, 1, 0]], np.uint8)
    assert encode(thing(mask), 2, 3) == {"counts": [0, 1, 1, 2, 2], "size": [2, 3]}
    last = np.array([[0, 0], [0, 1]], np.uint8)
    assert encode(thing(last), 2, 2)["counts"] == [3, 1]
    assert np.array_equal(decode_rle({"counts": [3, 1], "size": [2, 2]}), last)
    with pytest.raises(ValueError, match="3 pixels of 4"):
        decode_rle({"counts": [3], "size": [2, 2]})


@pytest.mark.parametrize("seed", range(8))
def test_masks_survive_the_round_trip(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 40, 2)
    mask = (generator.random((height, width)) < generator.random()).astype(np.uint8)
    mask[generator.integers(height), generator.integers(width)] = 1
    assert np.array_equal(decode_rle(encode(thing(mask), height, width)), mask > 0)


def _coco(out: Path, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(out / "annotations" / name)
    return facts


def _masks(facts: dict[str, Any], image: int) -> list[Pixels]:
    return [
        decode_rle(one["segmentation"]) for one in facts["annotations"] if one["image_id"] == image
    ]


def test_instances_become_one_annotation_each(tmp_path: Path) -> None:
    root = paired(tmp_path / "set")
    done = export_set(str(root), "coco", tmp_path / "out")
    assert sorted(p.name for p in (done.folder / "annotations").iterdir()) == [
        "instances_test.json",
        "instances_train.json",
        "instances_val.json",
    ]
    facts = _coco(done.folder, "instances_train.json")
    assert [one["file_name"] for one in facts["images"]] == ["p0.png", "p1.png"]
    assert facts["images"][0] == {"id": 1, "file_name": "p0.png", "width": 20, "height": 12}
    assert [one["name"] for one in facts["categories"]] == ["object"]
    assert len(facts["annotations"]) == 4
    bar, ring = facts["annotations"][:2]  # from top to bottom
    assert bar["bbox"] == [15.0, 0.0, 5.0, 1.0]
    assert (bar["area"], ring["area"]) == (5.0, 24.0)
    assert ring["bbox"] == [1.0, 2.0, 5.0, 5.0]
    assert {one["iscrowd"] for one in facts["annotations"]} == {0}
    assert [one["id"] for one in facts["annotations"]] == [1, 2, 3, 4]
    together = np.logical_or(*_masks(facts, 1))
    with Image.open(root / "masks" / "p0.png") as image:
        assert np.array_equal(together, np.asarray(image) > 0)


def test_masks_are_taken_apart_and_labels_keep_their_classes(tmp_path: Path) -> None:
    root = str(paired(tmp_path / "set", splits=False))
    export_set(root, "coco", tmp_path / "a", Options(role="masks", names=("none", "cell")))
    facts = _coco(tmp_path / "a", "instances.json")
    assert len(facts["annotations"]) == 8
    assert facts["categories"] == [{"id": 1, "name": "cell", "supercategory": ""}]
    export_set(root, "coco", tmp_path / "b", Options(role="labels"))
    facts = _coco(tmp_path / "b", "instances.json")
    assert [one["name"] for one in facts["categories"]] == ["class-1", "class-2", "class-3"]
    assert sorted({one["category_id"] for one in facts["annotations"]}) == [1, 3]
    with pytest.raises(UserError, match="class 3, but --names has 2 names"):
        export_set(root, "coco", tmp_path / "c", Options(role="labels", names=("none", "cell")))


def test_objects_can_take_the_class_of_their_picture(tmp_path: Path) -> None:
    root = paired(tmp_path / "set", splits=False)
    rows = "".join(f"images/p{i}.png,{'pore' if i < 2 else 'crack'}\n" for i in range(4))
    (root / "splits.csv").write_text(f"file,class\n{rows}")
    export_set(str(root), "coco", tmp_path / "out", Options(by_class=True))
    facts = _coco(tmp_path / "out", "instances.json")
    assert [one["name"] for one in facts["categories"]] == ["crack", "pore"]
    by_image = {one["image_id"]: one["category_id"] for one in facts["annotations"]}
    assert by_image == {1: 2, 2: 2, 3: 1, 4: 1}


def test_boxes_come_from_the_table(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images" / "a.png", noise(0, 10, 20))
    save(root / "images" / "b.png", noise(1, 10, 20))
    (root / "boxes.csv").write_text(
        "image,id,class,x0,y0,x1,y1\na,1,white,2,3,12,8\na.png,2,red,0,0,4,4\nz,3,red,0,0,1,1\n"
    )
    done = export_set(str(root), "coco", tmp_path / "coco")
    assert done.notices == ("boxes.csv: boxes of no picture in the set left out: 1.",)
    facts = _coco(tmp_path / "coco", "instances.json")
    assert [one["name"] for one in facts["categories"]] == ["red", "white"]
    boxes = [one["bbox"] for one in facts["annotations"]]
    assert boxes == [[2.0, 3.0, 10.0, 5.0], [0.0, 0.0, 4.0, 4.0]]
    export_set(str(root), "yolo", tmp_path / "yolo")
    lines = (tmp_path / "yolo" / "labels" / "all" / "a.txt").read_text().splitlines()
    assert "1 0.35000000 0.55000000 0.50000000 0.50000000" in lines
    assert (tmp_path / "yolo" / "labels" / "all" / "b.txt").read_text() == ""
    (root / "boxes.csv").write_text("image,id,class,x0,y0,x1,y1\na,1,white,2,3,2,8\n")
    with pytest.raises(DataError, match=r"boxes\.csv: row 2 is no box"):
        export_set(str(root), "coco", tmp_path / "bad")


def test_a_box_for_two_pictures_of_one_name_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(tmp_path / "set" / "images" / folder / "1.png", noise(0, 10, 20))
    table = tmp_path / "set" / "boxes.csv"
    table.write_text("image,id,class,x0,y0,x1,y1\n1,1,white,2,3,12,8\n")
    with pytest.raises(DataError, match=r"row 2, 1: images/a/1\.png and images/b/1\.png"):
        export_set(str(tmp_path / "set"), "coco", tmp_path / "out")
    table.write_text("image,id,class,x0,y0,x1,y1\nimages/b/1.png,1,white,2,3,12,8\n")
    export_set(str(tmp_path / "set"), "yolo", tmp_path / "out")
    labels = {p.name: p.read_text() for p in (tmp_path / "out" / "labels" / "all").iterdir()}
    assert labels["a_1.txt"] == "" and labels["b_1.txt"].startswith("0 ")


def test_sets_without_objects_are_refused_with_what_is_there(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.png", noise(0, 8, 8))
    for form in ("coco", "yolo", "nnunet"):
        with pytest.raises(UserError, match="imagefolder|images/ with labels"):
            export_set(str(tmp_path / "set"), form, tmp_path / "out")
    with pytest.raises(UserError, match="boxes"):
        export_set(str(paired(tmp_path / "p")), "coco", tmp_path / "out", Options(role="boxes"))


def test_pycocotools_sees_the_same_masks(tmp_path: Path, shared: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    source = shared / "data" / "nuclei-dsb2018"
    done = export_set(str(source), "coco", tmp_path / "out")
    checked = 0
    for split in ("train", "val", "test"):
        api = coco.COCO(done.folder / "annotations" / f"instances_{split}.json")
        for image in api.loadImgs(api.getImgIds())[:10]:
            things = api.loadAnns(api.getAnnIds(image["id"]))
            stem = Path(image["file_name"]).stem
            with Image.open(source / "instances" / f"{stem}.png") as stored:
                expected = np.asarray(stored)
            assert len(things) == len(np.unique(expected)) - (expected == 0).any()
            for one in things:
                mask = api.annToMask(one).astype(bool)
                values = np.unique(expected[mask])
                assert len(values) == 1
                assert np.array_equal(mask, expected == values[0])
                checked += 1
    assert checked > 100


# YOLO ---------------------------------------------------------------------------------------------


def test_boxes_are_shares_and_classes_begin_at_zero(tmp_path: Path) -> None:
    done = export_set(str(paired(tmp_path / "set")), "yolo", tmp_path / "out")
    facts = yaml.safe_load((done.folder / "data.yaml").read_text())
    assert facts == {
        "train": "images/train",
        "val": "images/val",
        "test": "images/test",
        "names": {0: "object"},
        "synthetic": False,
    }
    assert not done.notices
    lines = (done.folder / "labels" / "train" / "p0.txt").read_text().splitlines()
    bar = [float(value) for value in lines[0].split()]
    assert bar == pytest.approx([0, 17.5 / 20, 0.5 / 12, 5 / 20, 1 / 12], abs=1e-8)
    for split in ("train", "val", "test"):
        pictures = {path.stem for path in (done.folder / "images" / split).iterdir()}
        assert pictures == {path.stem for path in (done.folder / "labels" / split).iterdir()}


def _filled(points: npt.NDArray[np.float64], height: int, width: int) -> Pixels:
    """As Ultralytics draws polygons: whole numbers by truncation, then OpenCV."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], (1,))
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_filled_outlines_are_the_masks_again(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = np.zeros((60, 80), np.uint8)
    for _ in range(1 + seed % 3):
        center = tuple(int(v) for v in generator.integers(15, 45, 2))
        axes = tuple(int(v) for v in generator.integers(2, 15, 2))
        cv2.ellipse(mask, center, axes, float(generator.integers(180)), 0, 360, (1,), -1)
    assert np.array_equal(_filled(outline(thing(mask)), 60, 80), mask)


def test_outlines_of_pieces_and_specks_hold_their_pixels(tmp_path: Path) -> None:
    three = np.zeros((30, 30), np.uint8)
    three[2:8, 2:8] = three[20:28, 3:9] = three[10:20, 20:27] = 1
    drawn = _filled(outline(thing(three)), 30, 30)
    assert (drawn[three > 0] == 1).all()
    assert drawn.sum() - three.sum() < 60  # two lines of one pixel
    speck = np.zeros((5, 5), np.uint8)
    speck[3, 2] = 1
    assert outline(thing(speck)).tolist() == [[2.5, 3.5]] * 3
    done = export_set(
        str(paired(tmp_path / "set")), "yolo", tmp_path / "out", Options(polygons=True)
    )
    line = (done.folder / "labels" / "train" / "p0.txt").read_text().splitlines()[1].split()
    points = np.array(line[1:], float).reshape(-1, 2) * (20, 12)
    ring = two_pieces()
    ring[:, 10:] = 0
    ring[4, 3] = 1  # a polygon has no holes
    assert np.array_equal(_filled(points + 1e-6, 12, 20), ring)


def test_missing_splits_are_said(tmp_path: Path) -> None:
    done = export_set(str(paired(tmp_path / "set", splits=False)), "yolo", tmp_path / "out")
    facts = yaml.safe_load((done.folder / "data.yaml").read_text())
    assert facts["train"] == facts["val"] == "images/all"
    assert "wants train and val" in done.notices[0]


# nnU-Net ------------------------------------------------------------------------------------------


def _nnunet(root: Path, out: Path, **options: Any) -> tuple[Exported, dict[str, Any], Path]:
    done = export_set(str(root), "nnunet", out, Options(**options))
    (inside,) = out.glob("Dataset*")
    return done, read_json(inside / "dataset.json"), inside


def test_classes_are_consecutive_and_test_items_stand_apart(tmp_path: Path) -> None:
    done, facts, inside = _nnunet(paired(tmp_path / "my set"), tmp_path / "out", number=42)
    assert inside.name == "Dataset042_myset"
    assert facts["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert facts["labels"] == {"background": 0, "class-1": 1, "class-2": 2, "class-3": 3}
    assert (facts["numTraining"], facts["file_ending"]) == (3, ".png")
    assert sorted(p.name for p in (inside / "imagesTr").iterdir()) == [
        f"p{i}_0000.png" for i in range(3)
    ]
    assert [p.name for p in (inside / "labelsTs").iterdir()] == ["p3.png"]
    original = tmp_path / "my set" / "labels" / "p0.png"
    with Image.open(inside / "labelsTr" / "p0.png") as image, Image.open(original) as expected:
        assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert read_json(inside / "splits_final.json") == [{"train": ["p0", "p1"], "val": ["p2"]}]
    assert "splits_final.json" in done.notices[0]


def test_masks_of_255_become_ones(tmp_path: Path) -> None:
    _, facts, inside = _nnunet(
        paired(tmp_path / "set"), tmp_path / "out", role="masks", names=("skin", "lesion")
    )
    assert facts["labels"] == {"background": 0, "lesion": 1}
    with Image.open(inside / "labelsTr" / "p0.png") as image:
        assert np.array_equal(np.asarray(image), two_pieces())


def test_jpeg_palette_and_mixed_pictures_become_plain_png(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images" / "a.jpg", noise(0, 12, 20, 3))
    grey = save(root / "images" / "b.png", noise(1, 12, 20))
    Image.fromarray(noise(2, 12, 20, 3)).quantize(16).save(root / "images" / "c.png")
    for name in "abc":
        save(root / "masks" / f"{name}.png", two_pieces())
    done, facts, inside = _nnunet(root, tmp_path / "out")
    assert done.unchanged == 0 and "mixed" in done.notices[0]
    assert len(facts["channel_names"]) == 3
    for path in (inside / "imagesTr").iterdir():
        with Image.open(path) as image:
            assert (image.mode, path.suffix) == ("RGB", ".png")
    with Image.open(inside / "imagesTr" / "b_0000.png") as image, Image.open(grey) as original:
        assert np.array_equal(np.asarray(image)[..., 1], np.asarray(original))


def test_numbers_and_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    root = str(paired(tmp_path / "set"))
    with pytest.raises(UserError, match="1 to 999"):
        export_set(root, "nnunet", tmp_path / "out", Options(number=0))
    with pytest.raises(UserError, match="class 3, but --names has 2 names"):
        export_set(root, "nnunet", tmp_path / "out", Options(names=("none", "cell")))


def test_real_sets_with_every_kind_of_mark_are_exported(tmp_path: Path, shared: Path) -> None:
    cells = export_set(str(shared / "data" / "bccd-boxes"), "coco", tmp_path / "cells")
    with (shared / "data" / "bccd-boxes" / "boxes.csv").open() as stream:
        boxes = sum(1 for _ in csv.DictReader(stream))
    written = [
        len(_coco(cells.folder, f"instances_{split}.json")["annotations"])
        for split in ("train", "val", "test")
    ]
    assert sum(written) == boxes
    assert cells.unchanged == cells.pictures == 120
    chest = export_set(str(shared / "data" / "cxr-lung-heart"), "coco", tmp_path / "chest")
    facts = _coco(chest.folder, "instances_train.json")
    assert [one["name"] for one in facts["categories"]] == ["object", "heart"]


def test_items_know_their_picture(tmp_path: Path) -> None:
    source = open_source(str(paired(tmp_path / "set")))
    first: Item = source.items[0]
    assert first.picture.path.name == "p0.png"
    assert source.splits == ("train", "val", "test")
