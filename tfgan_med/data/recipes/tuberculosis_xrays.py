"""Tuberculosis X-rays of Montgomery County and Shenzhen, 406 normal and 394 abnormal.

Layouts: `MontgomerySet/CXR_png/MCUCXR_0001_0.png` (138: 80 normal, 58 abnormal) and
`ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png` (662: 326 normal, 336 abnormal), also with further
folders above, as Kaggle's copies have; the last digit of a name is 1 for abnormal. Lung masks
(`ManualMask/`, `masks/`) have the same names and are left out. Counts: Jaeger et al. 2014 and
lhncbc.nlm.nih.gov/LHC-publications/pubs/TuberculosisChestXrayImageDataSets.html; names and terms:
the readme of the Montgomery set, a copy of which is in Nagi0/sd-xray,
sdXray/datasets/lung-segmentation-dataset/README.md.

Sobolev's thesis (section 4.1) uses 366 normal and 355 abnormal for training, 40 and 39 of these for
validation, and 40 and 39 for testing; which ones it does not say, so they are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfgan_med.data.archives import Member
from tfgan_med.data.downloads import Download
from tfgan_med.data.importing import File, Found, Item, Source, divide, need

_ADDRESS = "https://openi.nlm.nih.gov/imgs/collections"
_NAME = re.compile(r"(MCUCXR|CHNCXR)_\d{4}_([01])\.png")
_LABELS = {"0": "normal", "1": "abnormal"}
_SETS = {"MCUCXR": 138, "CHNCXR": 662}

SOURCE = Source(
    origin="Chest X-rays of the tuberculosis control program of Montgomery County, Maryland (138), "
    "and of Shenzhen No. 3 People's Hospital, China (662), released by the U.S. National Library "
    "of Medicine.",
    pages=(f"{_ADDRESS}/NLM-MontgomeryCXRSet.zip", f"{_ADDRESS}/ChinaSet_AllFiles.zip"),
    citation="S. Jaeger, S. Candemir, S. Antani, Y.-X. Wáng, P.-X. Lu, G. Thoma: Two public chest "
    "X-ray datasets for computer-aided screening of pulmonary diseases. Quantitative Imaging in "
    "Medicine and Surgery 4(6), 2014, 475-477.",
    licence="for research; the readme asks to cite the paper, to name the source, and not to hand "
    "the set on but to send others to the library.",
    downloads=(
        Download(f"{_ADDRESS}/NLM-MontgomeryCXRSet.zip", 600),
        Download(f"{_ADDRESS}/ChinaSet_AllFiles.zip", 3800),
    ),
    notes=(
        "Some pictures are grey, others grey in three channels: use `--set data.mode=gray`.",
        "The two hospitals differ in device and in their share of abnormal pictures (42 % and "
        "51 %), so a classifier can learn the hospital. Names tell which it is.",
        "The files name no patients; each picture is taken to be of another one.",
        "Which pictures the thesis tested on is not known; splits.csv draws as many.",
    ),
    mode="gray",
)

EXPECTED = {"normal": 406, "abnormal": 394}
SPLIT = {"normal": (326, 40, 40), "abnormal": (316, 39, 39)}


def find(members: Sequence[Member]) -> Found:
    """The pictures in folders `CXR_png`."""
    items = []
    for member in members:
        match = _NAME.fullmatch(member.name)
        if match and member.folders[-1:] == ("CXR_png",):
            label = _LABELS[match[2]]
            items.append(Item((File(f"{label}/{member.name}", member),), label))
    need(items, members, "CXR_png/MCUCXR_0001_0.png and CXR_png/CHNCXR_0001_0.png")
    return Found(divide(items, SPLIT), tuple(_incomplete(items)))


def _incomplete(items: Sequence[Item]) -> list[str]:
    """Which hospital's set is not whole."""
    counts = {prefix: sum(f"/{prefix}" in item.name for item in items) for prefix in _SETS}
    return [
        f"{prefix}: expected {_SETS[prefix]} files, found {count}."
        for prefix, count in counts.items()
        if count != _SETS[prefix]
    ]
