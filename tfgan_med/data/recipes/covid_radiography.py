"""Normal and viral pneumonia X-rays of the COVID-19 Radiography Database, 10 192 and 1 345.

Layouts: `COVID-19_Radiography_Dataset/{Normal,Viral Pneumonia}/images/*.png` beside `masks/`, which
are left out (March 2021 and later), and `COVID-19 Radiography Database/{NORMAL,Viral
Pneumonia}/*.png` (2020, 1 341 normal ones). The classes COVID and Lung_Opacity are left out.
Counts: the README of the database, quoted in karimosman89/X_Ray_Project; folders: as many programs
on GitHub read them, of kaggle.com/datasets/tawsifurrahman/covid19-radiography-database.

Sobolev's thesis (section 3.2) has 10 200 normal X-rays, 9 180 for training and 1 020 for testing;
the database never had that many, so it was probably rounded. 1 211 and 134 of viral pneumonia.
Validation pictures, which it does not mention, are taken from the training part, as many as there
are test pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfgan_med.data.archives import Member
from tfgan_med.data.importing import File, Found, Item, Source, divide, need

_PAGE = "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"
_LABELS = {"normal": "normal", "viral pneumonia": "pneumonia"}

SOURCE = Source(
    origin="X-rays that researchers of Qatar University and the University of Dhaka with partners "
    "in Pakistan and Malaysia collected from other public sets; normal ones from RSNA (8 851) and "
    "from Kermany et al. (1 341), viral pneumonia from Kermany et al., who examined children.",
    pages=(_PAGE,),
    citation="M. E. H. Chowdhury et al.: Can AI help in screening viral and COVID-19 pneumonia? "
    "IEEE Access 8, 2020, 132665-132676. T. Rahman et al.: Exploring the effect of image "
    "enhancement techniques on COVID-19 detection using chest X-ray images. Computers in Biology "
    "and Medicine 132, 2021, 104319.",
    licence="see the page; the pictures come from sources with terms of their own.",
    notes=(
        "Some pictures are grey, others grey in three channels: use `--set data.mode=gray`.",
        "All pneumonia pictures are of children, most normal ones of adults: a classifier can "
        "learn the age, and figures are too good.",
        "The files name no patients, but the pneumonia pictures had several of some children. Look "
        "at what `tfgan-med check` says about pictures that are alike.",
        "Which pictures the thesis tested on is not known; splits.csv draws as many.",
    ),
    mode="gray",
)

EXPECTED = {"normal": 10192, "pneumonia": 1345}
SPLIT = {"normal": (8160, 1020, 1020), "pneumonia": (1077, 134, 134)}


def find(members: Sequence[Member]) -> Found:
    """The pictures of the two classes, without lung masks."""
    items = []
    for member in members:
        above = [folder.lower() for folder in member.folders]
        if above[-1:] == ["images"]:
            above.pop()
        label = _LABELS.get(above[-1]) if above else None
        if label and member.name.lower().endswith(".png"):
            items.append(Item((File(f"{label}/{member.name}", member),), label))
    need(items, members, "Normal/images/*.png and Viral Pneumonia/images/*.png")
    return Found(divide(items, SPLIT))
