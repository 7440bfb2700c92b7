"""Chest CT slices with masks of lung, heart and trachea: 3 100 of 16 708 slices.

Layout: `images/images/ID00007637202177411956430_0.jpg` with
`masks/masks/ID00007637202177411956430_mask_0.jpg`, whose red, green and blue channels are lung,
heart and trachea: the set kaggle.com/datasets/polomarco/chest-ct-segmentation, made from the one
that the thesis cites; see mandrakedrink/ChestCTSegmentation, dataset_description.md. Users count
17 011 pictures and 16 708 masks.

The set of the thesis itself, kaggle.com/datasets/sandorkonya/ct-lung-heart-trachea-segmentation,
holds masks only (`nrrd_lung/nrrd_lung/ID..._lung.nrrd`, likewise `nrrd_heart`, `nrrd_trachea`,
`nrrd_noisy`: 111, 87, 110 and 110 volumes), for CT volumes of another set (OSIC Pulmonary Fibrosis
Progression, DICOM, with an account), and their slices stand in the opposite order. How the thesis
joined them it does not say; the set above has done so, hence this recipe reads that.

Sobolev's thesis (section 3.3) selects 3 100 slices, 3 000 for training and 100 for testing, and
does not say which. Neighboring slices are nearly equal, so here patients are divided (8 : 1 : 1),
and the slices of each are spread evenly. Patients whose heart was not drawn are left out.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from tfgan_med.data.archives import Member
from tfgan_med.data.importing import (
    ALL,
    File,
    Found,
    Item,
    Source,
    apportion,
    need,
    shuffled,
)
from tfgan_med.data.records import SPLITS
from tfgan_med.errors import DataError

_PICTURE = re.compile(r"(ID\d+)_(\d+)\.(?:jpg|png)")
_MASK = re.compile(r"(ID\d+)_mask_(\d+)\.(?:jpg|png)")
_ORGANS = ("lung", "heart", "trachea")
_LOOKED_AT = 16  # slices of a patient that show whether the heart was drawn

SOURCE = Source(
    origin="CT volumes of patients with pulmonary fibrosis (Open Source Imaging Consortium), with "
    "masks by S. Kónya, saved as slices by the maker of the set.",
    pages=("https://www.kaggle.com/datasets/polomarco/chest-ct-segmentation",),
    citation="S. Kónya: CT Lung & Heart & Trachea segmentation, 2020, "
    "https://www.kaggle.com/sandorkonya/ct-lung-heart-trachea-segmentation. Open Source Imaging "
    "Consortium: OSIC Pulmonary Fibrosis Progression, 2020.",
    licence="not stated by the set; the volumes are under the rules of the OSIC challenge.",
    notes=(
        "Pictures and masks come as JPEG with 8 bit; masks were set to 0 and 255 at half height.",
        "A patient's slices are in one split only (`group` in splits.csv).",
        "Which 3 100 slices the thesis selected is not known.",
    ),
    mode="gray",
)

EXPECTED = {ALL: 3100}
SELECTED = (3000, 100)
PATIENTS = (8, 1, 1)


def find(members: Sequence[Member]) -> Found:
    """A selection of slices, whole patients in each split."""
    pictures, masks = _by_slice(members, _PICTURE), _by_slice(members, _MASK)
    _refuse_volumes(members, pictures)
    pairs = sorted(pictures.keys() & masks.keys())
    need(pairs, members, "images/ID..._0.jpg and masks/ID..._mask_0.jpg")
    patients: dict[str, list[int]] = defaultdict(list)
    for patient, number in pairs:
        patients[patient].append(number)
    alone = len(pictures.keys() ^ masks.keys())
    drawn = {p: numbers for p, numbers in patients.items() if _has_heart(p, numbers, masks)}
    warnings = []
    if alone:
        warnings.append(f"{alone} slices have no partner and were left out.")
    if len(drawn) < len(patients):
        warnings.append(
            f"{len(patients) - len(drawn)} of {len(patients)} patients have no heart mask and were "
            "left out."
        )
    need(list(drawn), members, "masks with a heart in their green channel")
    return Found(list(_chosen(drawn, pictures, masks)), tuple(warnings))


def _by_slice(members: Sequence[Member], name: re.Pattern[str]) -> dict[tuple[str, int], Member]:
    matches = ((name.fullmatch(member.name), member) for member in members)
    return {(match[1], int(match[2])): member for match, member in matches if match}


def _refuse_volumes(members: Sequence[Member], pictures: Mapping[tuple[str, int], Member]) -> None:
    volume = next((m.path for m in members if m.name.endswith(".nrrd")), None)
    if volume and not pictures:
        raise DataError(
            f"{volume}: masks without pictures. This archive holds the masks of CT volumes that "
            f"come from elsewhere; {SOURCE.pages[0]} holds both as slices. Give that one."
        )


def _has_heart(
    patient: str, numbers: Sequence[int], masks: Mapping[tuple[str, int], Member]
) -> bool:
    """Whether the heart was drawn; the set has an empty channel where it was not."""
    looked_at = _spread(numbers, _LOOKED_AT)
    return any(_channel(masks[patient, n].read(), "heart").any() for n in looked_at)


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of the numbers, evenly spaced."""
    count = min(count, len(numbers))
    return [numbers[int((i + 0.5) * len(numbers) / count)] for i in range(count)]


def _channel(data: bytes, organ: str) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = np.asarray(image.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"a mask cannot be read ({error}). Fetch the archive again.") from None
    return np.asarray(picture[..., _ORGANS.index(organ)] > 127)


def _mask(organ: str, data: bytes) -> bytes:
    """A mask of one organ as PNG."""
    out = io.BytesIO()
    Image.fromarray(_channel(data, organ).astype(np.uint8) * 255).save(out, format="PNG")
    return out.getvalue()


def _chosen(
    patients: Mapping[str, Sequence[int]],
    pictures: Mapping[tuple[str, int], Member],
    masks: Mapping[tuple[str, int], Member],
) -> Iterator[Item]:
    """Slices of each patient, spread evenly; patients divided at random."""
    order = sorted(patients, key=lambda patient: shuffled(0, patient))
    sizes = apportion(len(order), PATIENTS)
    split_of = dict(
        zip(order, [s for s, n in zip(SPLITS, sizes, strict=True) for _ in range(n)], strict=True)
    )
    for wanted, tested in zip(SELECTED, (False, True), strict=True):
        own = [patient for patient in order if (split_of[patient] == "test") == tested]
        for patient, count in zip(own, _shares(wanted, [len(patients[p]) for p in own]),
                                  strict=True):  # fmt: skip
            for number in _spread(patients[patient], count):
                yield Item(
                    tuple(_files(patient, number, pictures, masks)),
                    group=patient,
                    split=split_of[patient],
                )


def _shares(wanted: int, there: Sequence[int]) -> list[int]:
    """How many slices each patient gives: equally many, but no more than there are."""
    given = [0] * len(there)
    while (left := min(wanted, sum(there)) - sum(given)) > 0:
        able = [i for i, most in enumerate(there) if given[i] < most]
        for i, more in zip(able, apportion(left, [1] * len(able)), strict=True):
            given[i] = min(there[i], given[i] + more)
    return given


def _files(
    patient: str,
    number: int,
    pictures: Mapping[tuple[str, int], Member],
    masks: Mapping[tuple[str, int], Member],
) -> Iterator[File]:
    name = f"{patient}_{number:03}"
    picture = pictures[patient, number]
    yield File(f"images/{name}.{picture.name.rpartition('.')[2]}", picture)
    for organ in _ORGANS:
        convert: Callable[[bytes], bytes] = partial(_mask, organ)
        yield File(f"masks-{organ}/{name}.png", masks[patient, number], convert)
