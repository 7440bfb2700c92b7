"""One look at every item before training: what the pictures are, and whether they can be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med.data import arrays, decode, encoding
from tfgan_med.data.encoding import Encoding, kind_of
from tfgan_med.data.records import DataConfig, ImageSet, Record
from tfgan_med.errors import DataError, UserError
from tfgan_med.ops.images import EIGHT_BIT

Array = npt.NDArray[Any]

SOURCES = ("masks", "inputs", "labels", "left", "templates", "instances")
TARGETS = ("images", "right")
SAMPLES = 2**24  # values looked at for the percentiles of a set


@dataclass(frozen=True)
class Look:
    """What one item turned out to be.

    Attributes:
        size: height and width of all its pictures.
        channels, dtypes: of the picture of each role.
        top: largest value of each role.
        values: sample of the values of each role, of pictures that need a value window.
        windows: the value window that a DICOM header asks for, by role.
    """

    size: tuple[int, int]
    channels: Mapping[str, int]
    dtypes: Mapping[str, str]
    top: Mapping[str, float]
    values: Mapping[str, Array]
    windows: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Survey:
    """What a whole set turned out to be.

    Attributes:
        encodings: of each role that was asked for.
        sizes: height and width by item id; items that cannot be used are not in it.
        dtypes: type of the picture files by item id.
        left_out: why the others were left out, by item id.
    """

    encodings: tuple[Encoding, ...]
    sizes: Mapping[str, tuple[int, int]]
    dtypes: Mapping[str, str]
    left_out: Mapping[str, str]


def choose_roles(images: ImageSet, config: DataConfig) -> tuple[str, str]:
    """Roles of condition and picture.

    Raises:
        UserError: if the set has no such pair; the message names the roles it has.
    """
    present = {role for record in images.records for role in record.parts}
    target = _choose("target", config.target, TARGETS, present)
    source = _choose("source", config.source, SOURCES, present - {target})
    return source, target


def choose_made(images: ImageSet, config: DataConfig) -> tuple[str, ...]:
    """Roles of a model that makes pictures from nothing: the picture, then masks if wanted.

    Raises:
        UserError: if the set has no such role; the message names the roles it has.
    """
    present = {role for record in images.records for role in record.parts}
    made = _choose("target", config.target, (*TARGETS, "masks", "left"), present)
    if not config.with_masks:
        return (made,)
    masks = [r for r in sorted(present) if kind_of(r) == "mask" and r not in ("instances", made)]
    if not masks:
        raise UserError(
            f"data.with_masks is set, but the set has no masks, only {', '.join(sorted(present))}. "
            "Put them into masks/ with the names of the pictures, or leave data.with_masks out."
        )
    return (made, *masks)


def choose_domains(images: ImageSet, config: DataConfig) -> tuple[str, str]:
    """Classes, or roles such as `images` and `inputs`, that are translated into each other.

    Raises:
        UserError: if there is no such class or role, or more than two classes leave it open.
    """
    labels = images.labels
    roles = tuple(role for role in images.roles if kind_of(role) != "labels")
    known = (*labels, *roles)
    if config.domain_a is None and config.domain_b is None and len(labels) == 2:
        return labels[0], labels[1]
    if config.domain_a is None or config.domain_b is None:
        raise UserError(
            f"Unpaired translation needs two kinds of pictures; the set has the classes and roles "
            f"{', '.join(known)}. Name two with --set data.domain_a=NAME --set data.domain_b=NAME, "
            "or lay the pictures out as trainA/ and trainB/."
        )
    wanted = config.domain_a, config.domain_b
    if not (set(wanted) <= set(labels) or set(wanted) <= set(roles)) or len(set(wanted)) < 2:
        raise UserError(
            f"data.domain_a is '{wanted[0]}' and data.domain_b '{wanted[1]}', but the classes and "
            f"roles of the set are: {', '.join(known)}. Name two different classes or two roles."
        )
    return wanted


def _choose(name: str, wanted: str, order: Sequence[str], present: set[str]) -> str:
    if wanted in present:
        return wanted
    found = next((role for role in order if role in present), None)
    if wanted == "auto" and found is not None:
        return found
    has = ", ".join(sorted(present)) or "nothing else"
    if wanted == "auto":
        raise UserError(
            f"The set has no pairs: found {has}, but no {name} ({', '.join(order)}). Put the "
            f"partners into a folder of that name with equal file names, or say data.{name}=ROLE."
        )
    raise UserError(
        f"data.{name} is '{wanted}', but the set has {has} for it. Choose one of these; source "
        "and target must differ."
    )


def survey(
    records: Sequence[Record],
    roles: Sequence[str],
    config: DataConfig,
    keep: Callable[[Record, str, Array], None],
) -> Survey:
    """Decode every item once.

    Args:
        records: the items, each with a split.
        roles: pictures wanted of each item.
        keep: receives each decoded picture, for those who need it again soon.
    Raises:
        DataError: if items cannot be used and `config.skip_bad` is off, if nothing is left to
            train with, or if the pictures do not go together.
    """
    train = {record.id for record in records if record.split == "train"}
    per_picture = max(1024, SAMPLES // max(1, len(train)))

    def look(record: Record) -> Look | str:
        try:
            pictures = {role: _read(record, role, config) for role in roles}
            _check_sizes(record, pictures)
        except DataError as error:
            return str(error)
        for role, picture in pictures.items():
            keep(record, role, picture)
        return _summary(record, pictures, per_picture if record.id in train else 0)

    looks: dict[str, Look] = {}
    left_out: dict[str, str] = {}
    for record, result in zip(records, arrays.in_parallel(look, records), strict=True):
        if isinstance(result, str):
            left_out[record.id] = result
        else:
            looks[record.id] = result
    if left_out and not config.skip_bad:
        raise refusal(list(left_out.values()))
    training = [looks[name] for name in looks if name in train]
    if not training:
        raise DataError(
            "No items to train with: the training split is empty"
            + (" after unusable items were left out." if left_out else ".")
            + " Check the `split` column of splits.csv, or let us split: data.split=random."
        )
    encodings = tuple(_encoding(role, looks, training, config) for role in roles)
    picture = next((r for r in reversed(roles) if kind_of(r) == "image"), roles[-1])
    return Survey(
        encodings,
        {name: look.size for name, look in looks.items()},
        {name: look.dtypes[picture] for name, look in looks.items()},
        left_out,
    )


def refusal(faults: Sequence[str]) -> DataError:
    """The error for a set with faults: three of them and how to go on."""
    more = f"\n... and {len(faults) - 3} more." if len(faults) > 3 else ""
    return DataError(
        "\n".join(faults[:3]) + f"{more}\nRepair the set (`tfgan-med check` lists all), or leave "
        "such items out with data.skip_bad=true."
    )


def _read(record: Record, role: str, config: DataConfig) -> Array:
    if not record.has(role):
        raise DataError(f"{record.id}: there is no picture of the role '{role}' for it.")
    return encoding.read(record.part(role), role, config.max_pixels)


def _check_sizes(record: Record, pictures: Mapping[str, Array]) -> None:
    """Pictures of an item must lie on each other pixel by pixel."""
    (first, a), *others = pictures.items()
    for role, b in others:
        if a.shape[:2] != b.shape[:2]:
            raise DataError(
                f"{record.id}: the {first} picture is {a.shape[1]} x {a.shape[0]}, the {role} "
                f"picture {b.shape[1]} x {b.shape[0]}. Both must have one size; crop or export "
                "one of them again."
            )


def _summary(record: Record, pictures: Mapping[str, Array], samples: int) -> Look:
    """Keep of an item what the set's encodings depend on."""
    values = {
        role: picture.ravel()[:: max(1, -(-picture.size // samples))]
        for role, picture in pictures.items()
        if samples and picture.dtype != np.uint8
    }
    asked = {role: decode.default_window(record.part(role)) for role in values}
    return Look(
        next(iter(pictures.values())).shape[:2],
        {role: picture.shape[2] for role, picture in pictures.items()},
        {role: str(picture.dtype) for role, picture in pictures.items()},
        {role: float(picture.max()) for role, picture in pictures.items()},
        {role: np.array(sample) for role, sample in values.items()},
        {role: window for role, window in asked.items() if window is not None},
    )


def _encoding(
    role: str, looks: Mapping[str, Look], training: Sequence[Look], config: DataConfig
) -> Encoding:
    kind = encoding.kind_of(role)
    if kind in ("mask", "ids"):
        return Encoding(role=role, kind=kind, channels=1)
    if kind == "labels":
        return Encoding(role=role, kind=kind, channels=_num_classes(role, looks, training, config))
    dtype = _one_dtype(role, looks, config)
    return Encoding(
        role=role,
        kind=kind,
        channels=_channels(role, looks, config),
        window=config.window or _window(role, training, dtype),
        dtype=dtype,
    )


def _channels(role: str, looks: Mapping[str, Look], config: DataConfig) -> int:
    """Channels of the tensor; a colour-coded input stays coloured whatever the pictures are."""
    if config.mode != "auto" and role != "inputs":
        return {"gray": 1, "rgb": 3}[config.mode]
    found = {look.channels[role] for look in looks.values()}
    if len(found) == 1:
        return found.pop()
    gray = [name for name, look in looks.items() if look.channels[role] == 1]
    raise DataError(
        f"{gray[0]}: grey, while others are in colour ({len(gray)} of {len(looks)} are grey). "
        "A set must be one or the other. Say which with data.mode=rgb or data.mode=gray."
    )


def _one_dtype(role: str, looks: Mapping[str, Look], config: DataConfig) -> str:
    """Type of all files; one window cannot serve 8 and 16 bit unless the user says so."""
    found = sorted({look.dtypes[role] for look in looks.values()})
    if len(found) == 1:
        return found[0]
    if config.window is not None:
        return "float32" if "float32" in found else "uint16"
    odd = next(name for name, look in looks.items() if look.dtypes[role] == found[-1])
    raise DataError(
        f"{odd}: {found[-1]} values, while others have {found[0]}. One value window must serve the "
        "whole set. Export all pictures alike, or give the window: data.window=[0,4095]."
    )


def _window(role: str, training: Sequence[Look], dtype: str) -> tuple[float, float]:
    """0..255 for 8 bit; what all DICOM headers agree on; else percentiles of the training split."""
    if dtype == "uint8":
        return EIGHT_BIT
    asked = {look.windows.get(role) for look in training}
    if len(asked) == 1 and (window := asked.pop()) is not None:
        return window
    values = np.concatenate([look.values[role] for look in training])
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)


def _num_classes(
    role: str, looks: Mapping[str, Look], training: Sequence[Look], config: DataConfig
) -> int:
    count = config.classes or max(2, 1 + int(max(look.top[role] for look in training)))
    for name, look in looks.items():
        if look.top[role] >= count:
            raise DataError(
                f"{name}: class {int(look.top[role])} in {role}, but there are {count} classes "
                f"(0 to {count - 1})"
                + (", as data.classes says" if config.classes else " in the training split")
                + ". Correct the file or set data.classes."
            )
    return count
