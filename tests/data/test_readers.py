"""Folders and tables become items; what cannot be used is a fault that names its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.data import opening, splits
from tfgan_med.data.records import SPLITS, DataConfig, ImageSet
from tfgan_med.errors import DataError, UserError


def draw(root: Path, names: Iterable[str]) -> Path:
    """Small different pictures below a folder."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    return root


def opened(path: Path, **settings: Any) -> ImageSet:
    return opening.open_set(DataConfig(path=str(path), **settings))


def ids(images: ImageSet) -> list[str]:
    return [record.id for record in images.records]


def test_a_flat_folder_is_read_by_name_whatever_the_case_of_the_suffix(tmp_path: Path) -> None:
    draw(tmp_path, ["b.PNG", "a.JPG", "Ünï 漢字.png", ".hidden.png", "__MACOSX/a.png"])
    (tmp_path / "notes.txt").write_text("not a picture")
    images = opened(tmp_path)
    assert images.layout == "folder"
    assert ids(images) == ["a.JPG", "b.PNG", "Ünï 漢字.png"]
    assert not images.faults


def test_folders_are_classes_and_outer_folders_splits(tmp_path: Path) -> None:
    draw(tmp_path / "one", ["cat/a.png", "dog/b.png"])
    draw(tmp_path / "two", ["train/cat/a.png", "validation/dog/b.png", "test/cat/c.png"])
    assert [r.label for r in opened(tmp_path / "one").records] == ["cat", "dog"]
    two = {r.id: (r.label, r.split) for r in opened(tmp_path / "two").records}
    assert two == {
        "train/cat/a.png": ("cat", "train"),
        "validation/dog/b.png": ("dog", "val"),
        "test/cat/c.png": ("cat", "test"),
    }


def test_partners_are_found_by_name(tmp_path: Path) -> None:
    draw(tmp_path, ["images/a.jpg", "masks/a.png", "masks-heart/a.tif", "instances/a.png"])
    images = opened(tmp_path)
    assert images.layout == "paired"
    assert images.roles == ("images", "instances", "masks", "masks-heart")
    assert ids(images) == ["images/a.jpg"]


def test_pairs_may_stand_in_split_folders(tmp_path: Path) -> None:
    draw(
        tmp_path,
        ["train/images/a.png", "train/masks/a.png", "test/images/b.png", "test/masks/b.png"],
    )
    assert [(r.id, r.split) for r in opened(tmp_path).records] == [
        ("test/images/b.png", "test"),
        ("train/images/a.png", "train"),
    ]


def test_a_missing_partner_is_a_fault_and_the_item_is_left_out(tmp_path: Path) -> None:
    draw(tmp_path, ["images/a.png", "images/b.png", "masks/b.png", "masks/c.png"])
    images = opened(tmp_path)
    assert ids(images) == ["images/b.png"]
    assert images.faults[0].startswith("images/a.png: no file of the same name in masks")
    assert images.faults[1].startswith("masks/c.png: no file of the same name in images")
    lenient = opened(tmp_path, skip_bad=True)
    assert not lenient.faults
    assert len(lenient.notices) == 2


@pytest.mark.parametrize("folder", ["", "masks/"])
def test_names_that_differ_in_the_suffix_only_are_a_fault(tmp_path: Path, folder: str) -> None:
    names = [f"{folder}a.png", f"{folder}a.jpg", f"{folder}b.png"]
    if folder:
        names += ["images/a.png", "images/b.png"]
    draw(tmp_path, names)
    images = opened(tmp_path)
    assert len(images.records) == 1
    assert any("same name but for the suffix" in fault for fault in images.faults)


def test_masks_alone_are_a_set(tmp_path: Path) -> None:
    images = opened(draw(tmp_path, ["masks/a.png", "masks/b.png"]))
    assert (images.layout, images.roles, len(images.records)) == ("masks", ("masks",), 2)


def test_halves_side_by_side_must_be_asked_for(tmp_path: Path) -> None:
    draw(tmp_path, ["train/a.png", "test/b.png"])
    assert opened(tmp_path).roles == ("images",)
    images = opened(tmp_path, layout="side-by-side")
    assert images.roles == ("left", "right")
    assert [r.split for r in images.records] == ["test", "train"]
    assert images.records[0].parts["right"].half == "right"


def test_unpaired_folders_give_label_and_split(tmp_path: Path) -> None:
    images = opened(draw(tmp_path, ["trainA/a.png", "trainB/b.png", "testA/c.png", "testB/d.png"]))
    assert images.layout == "unpaired"
    assert [(r.label, r.split) for r in images.records] == [
        ("A", "test"),
        ("B", "test"),
        ("A", "train"),
        ("B", "train"),
    ]


def test_loops_of_links_end_and_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = draw(tmp_path / "outside", ["secret.png"])
    root = draw(tmp_path / "data", ["a.png", "below/b.png"])
    (root / "below" / "loop").symlink_to(root)
    (root / "out").symlink_to(outside)
    (root / "c.png").symlink_to(outside / "secret.png")
    (root / "gone.png").symlink_to(root / "nothing")
    images = opened(root)
    assert ids(images) == ["a.png", "below/b.png"]
    assert {fault.split(":")[0] for fault in images.faults} == {"out", "c.png", "gone.png"}


# Tables


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "list.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_are_read_with_any_delimiter_and_byte_order_mark(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    draw(tmp_path, ["a.png", "a_mask.png", "sub/ü.png", "b_mask.png"])
    rows = [
        "file,mask,class,patient,split",
        "a.png,a_mask.png,x,p1,train",
        "sub/ü.png,b_mask.png,y,p2,val",
    ]
    text = "\r\n".join(rows).replace(",", delimiter)
    first, second = opened(table(tmp_path, text, encoding)).records
    assert (first.label, first.group, first.split) == ("x", "p1", "train")
    assert (second.id, second.label, second.split) == ("sub/ü.png", "y", "val")
    assert first.parts["masks"].path == tmp_path / "a_mask.png"


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png"])
    path = table(tmp_path, "picture,case\na.png,17\n")
    images = opened(path, columns={"file": "picture", "group": "case"})
    assert images.records[0].group == "17"
    with pytest.raises(DataError, match=r"no column file. The columns are picture, case"):
        opened(path)
    with pytest.raises(DataError, match=r"no column 'pic' for file"):
        opened(path, columns={"file": "pic"})
    with pytest.raises(DataError, match=r"colour is none of our columns"):
        opened(path, columns={"file": "picture", "colour": "case"})


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ("../secret.png,train", "file", "leads out of the data folder"),
        (r"..\secret.png,train", "file", "leads out of the data folder"),
        ("sub/../../secret.png,train", "file", "leads out of the data folder"),
        ("/etc/hostname,train", "file", "is an absolute path"),
        (r"C:\secret.png,train", "file", "is an absolute path"),
        ("link.png,train", "file", "is a link that leads out"),
        ("nothing.png,train", "file", "does not exist"),
        (",train", "file", "empty"),
        ("b.png,trian", "split", "'trian' is not a split"),
        ("a.png,train", "file", "the same file as in row 2"),
        ("b.png,train,more", "", "row 3 has 3 values, the header 2"),
    ],
)
def test_a_bad_row_is_named_and_nothing_outside_is_read(
    tmp_path: Path, row: str, column: str, message: str
) -> None:
    secret = draw(tmp_path, ["secret.png"]) / "secret.png"
    root = draw(tmp_path / "data", ["a.png", "b.png"])
    (root / "link.png").symlink_to(secret)
    images = opened(table(root, f"file,split\na.png,train\n{row}\n"))
    assert ids(images) == ["a.png"]
    assert len(images.faults) == 1
    assert re.match(r"list\.csv: row 3", images.faults[0])
    assert message in images.faults[0]
    assert not column or f"column {column}: " in images.faults[0]


def test_control_characters_of_a_table_do_not_reach_messages(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png", "b.png"])
    fault = opened(table(tmp_path, "file,split\na.png,train\nb.png,\x1b[31mred\n")).faults[0]
    assert "\x1b" not in fault


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png"])
    with pytest.raises(DataError, match="not UTF-8"):
        opened(table(tmp_path, "file\nä.png", "latin-1"))
    with pytest.raises(DataError, match="empty"):
        opened(table(tmp_path, "\n"))


# splits.csv


def test_the_splits_table_wins_over_folders(tmp_path: Path) -> None:
    draw(tmp_path, ["cat/a.png", "dog/b.png"])
    (tmp_path / "splits.csv").write_text(
        "file,split,class,group\ncat/a.png,test,lion,g1\nb.png,train,,g2\n"
    )
    first, second = opened(tmp_path).records
    assert (first.label, first.group, first.split) == ("lion", "g1", "test")
    assert (second.label, second.group, second.split) == ("dog", "g2", "train")


def test_items_and_rows_without_each_other_are_faults(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png", "b.png"])
    (tmp_path / "splits.csv").write_text("file,split\na.png,train\nc.png,test\n")
    images = opened(tmp_path)
    assert ids(images) == ["a.png"]
    assert images.faults[0].startswith("splits.csv: row 3, column file: no usable item")
    assert images.faults[1].startswith("b.png: not in splits.csv")


def test_a_row_twice_is_a_notice_and_with_another_split_a_fault(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png", "b.png"])
    text = "file,split\na.png,train\nb.png,test\na.png,train\n"
    (tmp_path / "splits.csv").write_text(text)
    images = opened(tmp_path)
    assert (len(images.records), images.faults) == (2, ())
    assert images.notices == ("splits.csv: row 4, column file: the same as row 2; counted once.",)
    (tmp_path / "splits.csv").write_text(text + "b.png,train\n")
    assert "row 5, column file: the same file as in row 3" in opened(tmp_path).faults[0]


# Opening


def test_a_wrong_path_or_layout_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or table") as caught:
        opened(tmp_path / "nothing")
    assert caught.value.exit_code == 2
    draw(tmp_path, ["a.png"])
    with pytest.raises(UserError, match=r"layout is 'piles'.*folder, masks, paired") as caught:
        opened(tmp_path, layout="piles")
    assert caught.value.exit_code == 2


def test_a_folder_without_pictures_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no pictures found"):
        opened(tmp_path)


COUNTS = {
    "rbc-smear": (43, 12, 19),
    "rbc-smear-hd": (15, 4, 5),
    "bccd-boxes": (72, 18, 30),
    "nuclei-dsb2018": (95, 21, 34),
    "skin-isic2017": (45, 12, 17),
    "skin-isic2017-masks": (360, 45, 45),
    "cxr-nih": (276, 66, 111),
    "cxr-lung-heart": (16, 7, 6),  # the README says 8, counting one file that is listed thrice
    "magnetic-tile": (224, 49, 76),
    "pcb-pairs": (65, 13, 26),
    "casting": (248, 52, 90),
    "faces-orl": (190, 50, 60),
    "faces-ffhq50": (50, 0, 0),
    "facades": (130, 24, 26),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_real_sets_open_with_the_counts_of_their_description(shared: Path, name: str) -> None:
    config = DataConfig(path=str(shared / "data" / name))
    images = splits.assign(opening.open_set(config), config)
    assert tuple(len(images.of_split(split)) for split in SPLITS) == COUNTS[name]
    assert not images.faults
    assert not splits.leaks(images)


def test_the_counts_are_those_of_the_description(shared: Path) -> None:
    text = (shared / "data" / "README.md").read_text()
    told = {
        name: tuple(map(int, counts.split("/")))
        for name, counts in re.findall(
            r"^\| \[([\w-]+)\].*?\d+ \((\d+/\d+/\d+)\)", text, re.MULTILINE
        )
    }
    assert {**told, "cxr-lung-heart": COUNTS["cxr-lung-heart"]} == COUNTS
