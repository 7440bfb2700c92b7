"""What a reader returns: the items of a data set, none of them decoded yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tfgan_med.config import Config, Location

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
FILES = {"ids": "instances"}  # roles that read the files of another one in their own way


@dataclass(frozen=True)
class Part:
    """One picture of an item: a file, or one half of a side-by-side file.

    Attributes:
        path: the file.
        half: which half of it, in side-by-side files.
        name: what messages call it: the path below the root; in sets with DICOM the item's id.
    """

    path: Path
    half: Literal["left", "right"] | None = None
    name: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Record:
    """One item: a picture and what belongs to it, pixel by pixel.

    Attributes:
        id: name of the item, unique in the set: the POSIX path of its main file below the root.
        parts: by role. The roles are the folder names users see: `images`, `masks`,
            `masks-<name>`, `instances`, `labels`, `inputs`, `templates`; `left` and `right` of
            side-by-side files.
        label: class name, if the set has classes.
        group: what must not be divided between splits (patient, part, slide), if known.
        split: `train`, `val` or `test`; None until `splits.assign` decides.
    """

    id: str
    parts: Mapping[str, Part]
    label: str | None = None
    group: str | None = None
    split: Split | None = None

    def has(self, role: str) -> bool:
        """Whether it has a picture of a role; `ids` are the numbers of `instances`."""
        return FILES.get(role, role) in self.parts

    def part(self, role: str) -> Part:
        """The file of a role."""
        return self.parts[FILES.get(role, role)]

    @property
    def main_role(self) -> str:
        """The role that the item is named after: the picture, else its masks."""
        named = sorted(role for role in self.parts if role.startswith("masks-"))
        order = ("images", "left", "masks", *named, "instances", "labels")
        return next(role for role in (*order, *sorted(self.parts)) if role in self.parts)

    @property
    def main(self) -> Part:
        """The picture or mask that the item is named after."""
        return self.parts[self.main_role]


@dataclass(frozen=True)
class ImageSet:
    """A data set: where it is, how it is laid out, and its items in a fixed order.

    Attributes:
        root: the folder (or the table's folder) that every part lies below.
        layout: name of the reader that found it.
        records: the items, sorted by id.
        faults: what the reader could not use, one message each; `check` reports them, training
            refuses while there are any.
        notices: what is odd but harmless, such as a row of `splits.csv` that stands there twice.
    """

    root: Path
    layout: str
    records: tuple[Record, ...]
    faults: tuple[str, ...] = field(default=())
    notices: tuple[str, ...] = field(default=())

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, sorted; empty if the set has none."""
        return tuple(sorted({r.label for r in self.records if r.label is not None}))

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that every item has, sorted."""
        common = set.intersection(*(set(r.parts) for r in self.records)) if self.records else set()
        return tuple(sorted(common))

    def of_split(self, split: Split) -> tuple[Record, ...]:
        """The items of one split, in order."""
        return tuple(record for record in self.records if record.split == split)


class DataConfig(Config):
    """Where the images are and how they become tensors."""

    path: Location = "builtin:histology"
    """Folder, CSV table or `builtin:<name>[?key=value&...]`; see `tfgan-med list data`."""
    layout: str = "auto"
    """How the folder is laid out; `auto` looks. See `tfgan-med list layouts`."""
    columns: dict[str, str] = {}
    """CSV tables: our column name to theirs, e.g. {file: filename, group: patient_id}."""
    image_size: int = 256
    """Side of the square pictures the networks see, in pixels."""
    fit: Literal["crop", "pad", "stretch", "patches"] = "crop"
    """How a picture that is not square becomes one. `crop` takes the middle, `pad` keeps all and
    fills with the border value, `stretch` changes the proportions, `patches` cuts tiles."""
    scale: float = 1.0
    """With `fit: patches`, the factor by which pictures are resized before tiles are cut."""
    mode: Literal["auto", "gray", "rgb"] = "auto"
    """Channels of the pictures; `auto` takes what all pictures have."""
    window: tuple[float, float] | None = None
    """Values that become black and white, one window for the whole set; 8-bit pictures use
    0..255, others by default the 0.1 and 99.9 percentile of the training split."""
    source: str = "auto"
    """Role of the condition in paired sets: masks, inputs, labels, images, left ..."""
    target: str = "auto"
    """Role of the picture to make in paired sets: images, masks, right ..."""
    with_masks: bool = False
    """Models that make pictures from nothing: make each picture's masks with it, as further
    channels; all binary masks that the items have."""
    label: str | None = None
    """Use the items of this class only."""
    domain_a: str | None = None
    """Unpaired translation: class A, or a role such as `inputs`; by default the first of two
    classes, or trainA/."""
    domain_b: str | None = None
    """Class or role B; by default the second of two classes, or trainB/."""
    classes: int | None = None
    """Number of classes in `labels`; found from the training split if not given."""
    split: Literal["auto", "given", "random", "group"] = "auto"
    """`given` needs splits in the data, `random` ignores them, `group` splits whole groups;
    `auto` takes given splits where there are any."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of train, val and test when we split."""
    split_seed: int = 0
    """Seed of the splits we make; kept apart from the training seed so that repeats share them."""
    hold_out: float = 0.0
    """Share of the training pictures, by whole groups, that become the validation split of a set
    that comes without one. Classifiers and segmenters do it by themselves (`train.validation`);
    experiments do it for their generators too."""
    check: bool = True
    """Refuse a set in which `tfgan-med check` finds what would make training wrong. If you know
    better, for look-alikes that are different parts say, false trains all the same."""
    skip_bad: bool = False
    """Leave unreadable items out instead of refusing the set."""
    max_pixels: int = 100_000_000
    """Larger pictures are not decoded."""
    cache_mb: int = 4096
    """Memory for decoded pictures; a larger set is kept in a file of the cache folder."""
    share_decoded: bool = False
    """Keep decoded pictures in the cache folder, whatever their size, so that other runs on the
    same pictures need not decode them again; experiments do."""
    load_size: int | None = None
    """Random jitter: pictures are resized to this side, then cropped to `image_size` at random.
    By default `image_size` times 286/256 for translation, as in the papers, and `image_size`, no
    crop, for models that make pictures from nothing."""
    flip: bool = True
    """Mirror half of the training pictures, left to right."""
    flip_vertical: bool = False
    """Mirror half of them upside down too: for skin, smears and parts without an up."""
    rotate90: bool = False
    """Turn by a random multiple of 90 degrees."""
