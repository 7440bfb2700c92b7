"""Skin lesions and their masks, ISIC 2018 challenge, task 1: 2 594 pairs and 100 of validation.

Layout: `ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg` with
`ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png`, 2 594 pairs, and the official
validation set in `..._Validation_Input/` and `..._Validation_GroundTruth/`, 100 pairs. Names and
addresses: challenge.isic-archive.com/data/#2018, and kovmartin/DD2424VT191_Group90,
DOWNLOAD_DATASET.md; licence: datasetninja.com/isic-challenge-2018.

Sobolev's thesis contradicts itself: chapter 3 has 2 594 pictures, section 4.4 has 2 694, divided
into 2 076 training, 518 validation and 100 test pairs. 2 076 + 518 = 2 594, so its test pairs were
probably the 100 of the official validation set; that is what we do if they are given. Else 100 are
drawn from the 2 594 and the rest is divided in the same proportion, 1 996 and 498.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tfgan_med.data.archives import Member
from tfgan_med.data.downloads import Download
from tfgan_med.data.importing import ALL, File, Found, Item, Source, apportion, divide, need

_ADDRESS = "https://isic-challenge-data.s3.amazonaws.com/2018"
_PICTURE = re.compile(r"(ISIC_\d{7})\.jpg")
_MASK = re.compile(r"(ISIC_\d{7})_segmentation\.png")
_PARTS = ("Training", "Validation")

SOURCE = Source(
    origin="Dermoscopic pictures of the International Skin Imaging Collaboration with masks of the "
    "lesion, challenge of 2018, task 1.",
    pages=("https://challenge.isic-archive.com/data/#2018",),
    citation="N. Codella et al.: Skin lesion analysis toward melanoma detection 2018: a challenge "
    "hosted by the International Skin Imaging Collaboration (ISIC), arXiv:1902.03368. P. Tschandl, "
    "C. Rosendahl, H. Kittler: The HAM10000 dataset. Scientific Data 5, 2018, 180161.",
    licence="CC BY-NC 4.0, with attribution as its LICENSE.txt asks.",
    downloads=(
        Download(f"{_ADDRESS}/ISIC2018_Task1-2_Training_Input.zip", 10400),
        Download(f"{_ADDRESS}/ISIC2018_Task1_Training_GroundTruth.zip", 26),
        Download(f"{_ADDRESS}/ISIC2018_Task1-2_Validation_Input.zip", 228),
        Download(f"{_ADDRESS}/ISIC2018_Task1_Validation_GroundTruth.zip", 1),
    ),
    notes=(
        "The files name no patients or lesions; several pictures may show one lesion. Look at what "
        "`tfgan-med check` says about pictures that are alike.",
        "Test pairs are the 100 of the official validation set, if that was given; else they, and "
        "in any case the validation pairs, are drawn: the thesis does not say which it had.",
    ),
)

EXPECTED = {ALL: 2694}
FITTED = (2076, 518)
TEST = 100


def find(members: Sequence[Member]) -> Found:
    """Pairs of picture and mask; those of the official validation set become the test split."""
    training, official = (_pairs(members, part) for part in _PARTS)
    need(training[0], members, "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg and "
         "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png")  # fmt: skip
    warnings = [*training[1], *official[1]]
    if official[0]:
        items = divide(training[0], {ALL: (*FITTED, 0)})
        items += [replace(item, split="test") for item in official[0]]
    else:
        rest = sum(FITTED) - TEST
        train, val = apportion(rest, FITTED)
        items = divide(training[0], {ALL: (train, val, TEST)})
        warnings.append(
            "The official validation set (100 pairs) was not given: the test split was drawn from "
            "the training set."
        )
    return Found(items, tuple(warnings))


def _pairs(members: Sequence[Member], part: str) -> tuple[list[Item], list[str]]:
    """Items of one part of the challenge, and what lacks its partner."""
    pictures = _by_id(members, f"ISIC2018_Task1-2_{part}_Input", _PICTURE)
    masks = _by_id(members, f"ISIC2018_Task1_{part}_GroundTruth", _MASK)
    items = [
        Item((File(f"images/{name}.jpg", pictures[name]), File(f"masks/{name}.png", masks[name])))
        for name in sorted(pictures.keys() & masks.keys())
    ]
    alone = sorted(pictures.keys() ^ masks.keys())
    if not alone:
        return items, []
    return items, [
        f"{len(alone)} pictures or masks of the {part.lower()} set have no partner and were left "
        f"out, {alone[0]} first."
    ]


def _by_id(members: Sequence[Member], folder: str, name: re.Pattern[str]) -> dict[str, Member]:
    matches = ((name.fullmatch(m.name), m) for m in members if m.folders[-1:] == (folder,))
    return {match[1]: member for match, member in matches if match}
