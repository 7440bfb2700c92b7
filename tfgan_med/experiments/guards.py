"""Guards of an experiment: what would make its verdict worthless is looked for, and said.

Each guard returns a `Finding`. `require` stops on violated ones, unless the user allowed them by
name; then they stand in the report. What a model was trained on is known by the checksums of the
files and the keyed hashes of the groups (`data.splits.group_hash`) that runs (`data.json`) and
synthetic folders (`provenance.json`) carry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfgan_med import files
from tfgan_med.data import check, decode, duplicates, fitting, opening, splits
from tfgan_med.data.records import DataConfig, ImageSet, Part, Record, Split
from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation.pictures import Pictures, Preparation, ahead, common_window
from tfgan_med.metrics._copying import judge, more_often
from tfgan_med.metrics._nearest_training import Sets
from tfgan_med.metrics.base import Context, Side
from tfgan_med.metrics.memorization import ALARM, Memorization
from tfgan_med.training import predictions
from tfgan_med.training.run_folder import CLASSES

Status = Literal["passed", "violated", "skipped", "allowed"]

GUARDS = (
    "group-across-splits",
    "near-duplicates",
    "generator-leak",
    "copies",
    "classifier-leak",
    "tuned-threshold",
)
"""Names of the guards, as `guards.allow` takes them."""

SHOWN = 3
FEWEST_HELD_OUT = 20  # fewer held-out pictures say too little; then training pictures are used
MOST_LOOKED_AT = 2000  # synthetic pictures of a class; the search grows with their number

_HONEST_SOURCES = ("fixed", "validation")


@dataclass(frozen=True)
class Finding:
    """What a guard found.

    Attributes:
        name: of the guard, one of `GUARDS`.
        status: `skipped` if it could not look; the message says why.
        message: what was found, why it matters, what to do.
        items: what exactly, one line each.
    """

    name: str
    status: Status
    message: str
    items: list[str] = field(default_factory=list)


# Verdict ------------------------------------------------------------------------------------------


def settle(findings: Sequence[Finding], allowed: Sequence[str] = ()) -> list[Finding]:
    """The findings, with violated guards that the user allows marked so.

    Raises:
        UserError: if `allowed` names no guard.
    """
    for name in allowed:
        if name not in GUARDS:
            raise UserError(
                f"guards.allow: {name!r} is no guard. Correct it to one of {', '.join(GUARDS)}."
            )
    return [
        replace(finding, status="allowed")
        if finding.status == "violated" and finding.name in allowed
        else finding
        for finding in findings
    ]


def require(findings: Sequence[Finding], allowed: Sequence[str] = ()) -> list[Finding]:
    """`settle`, and stop if a guard is still violated.

    Raises:
        DataError: with the message of each violated guard and its first items.
        UserError: as `settle`.
    """
    settled = settle(findings, allowed)
    violated = [finding for finding in settled if finding.status == "violated"]
    if violated:
        names = ", ".join(dict.fromkeys(finding.name for finding in violated))
        lines = [line for finding in violated for line in _told(finding)]
        lines.append(
            f"To go on all the same, with this in the report: guards: {{allow: [{names}]}}."
        )
        raise DataError("\n".join(lines))
    return settled


def _told(finding: Finding) -> Iterator[str]:
    yield f"{finding.name}: {finding.message}"
    yield from (f"  {item}" for item in finding.items[:SHOWN])
    if len(finding.items) > SHOWN:
        yield f"  and {len(finding.items) - SHOWN} more"


# All of them --------------------------------------------------------------------------------------


def check_all(
    config: DataConfig,
    generators: Mapping[str, Path] | None = None,
    downstream: Mapping[str, Path] | None = None,
    chosen_on: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Finding]:
    """Every guard, in the order of `GUARDS`.

    An experiment asks in three steps, so that it stops before it has trained for hours:
    `of_data`, `of_generators`, `of_downstream`.

    Args:
        config: the data; splits are made as training makes them.
        generators: synthetic folders, or runs, by what the experiment calls them.
        downstream: finished runs of classifiers and segmenters.
        chosen_on: the split that each choice (of settings, say) was made on.
        seed: of the sample of synthetic pictures that is compared with training pictures.
    Raises:
        UserError, DataError: if there is no data set, as `opening.open_set`.
    """
    images = splits.assign(opening.open_set(config), config)
    items = items_of(images)
    return [
        *of_data(config, images),
        *of_generators(generators or {}, items, images, config, seed),
        *of_downstream(downstream or {}, items, chosen_on),
    ]


def of_data(config: DataConfig, images: ImageSet) -> list[Finding]:
    """Guards of the data set: nothing needs to be trained for them."""
    return [group_across_splits(images), near_duplicates(check.check(config))]


def of_generators(
    places: Mapping[str, Path],
    items: Sequence[Item],
    images: ImageSet,
    config: DataConfig,
    seed: int = 0,
) -> list[Finding]:
    """Guards of synthetic folders (or of runs, which have no pictures to compare yet)."""
    leak = generator_leak(places, items)
    found = {
        name: copies_in(place, items, images, config, seed)
        for name, place in places.items()
        if not _is_run(place)
    }
    return [leak, copies(found)]


def of_downstream(
    runs: Mapping[str, Path],
    items: Sequence[Item],
    chosen_on: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Guards of finished downstream runs."""
    return [classifier_leak(runs, items), tuned_threshold(runs, chosen_on)]


# Who was seen -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An item as far as leaks are concerned.

    Attributes:
        id: its name.
        split: where it belongs.
        hashes: SHA-256 of its files.
        group: keyed hash of its patient or part, if known.
    """

    id: str
    split: str | None
    hashes: frozenset[str]
    group: str | None


def items_of(images: ImageSet) -> list[Item]:
    """The items of a split data set; every file is read once."""

    def item(record: Record) -> Item:
        paths = {part.path for part in record.parts.values()}
        return Item(
            record.id,
            record.split,
            frozenset(files.sha256_of(path) for path in paths),
            splits.hashed_group(record),
        )

    return list(ahead(item, images.records))


def trained_items(place: Path) -> list[Item] | None:
    """What a model was trained on.

    Args:
        place: a run, a folder with a run for each class, or a synthetic folder.
    Returns:
        The items; None if nothing there says so.
    """
    entries: list[dict[str, Any]] = []
    if (place / "provenance.json").is_file():
        entries = files.read_json(place / "provenance.json").get("trained_on") or []
    else:
        for path in _data_files(place):
            listed = files.read_json(path)["items"]
            entries += [entry for entry in listed if entry.get("split") == "train"]
    return [_item(entry) for entry in entries] or None


def _data_files(run: Path) -> list[Path]:
    """`data.json` of a run, or of the run of each class."""
    if (run / CLASSES).is_file():
        named = files.read_json(run / CLASSES)["classes"]
        paths = [run / folder / "data.json" for folder in named.values()]
    else:
        paths = [run / "data.json"]
    return [path for path in paths if path.is_file()]


def _item(entry: Mapping[str, Any]) -> Item:
    hashes = entry.get("sha256") or {}
    values = hashes.values() if isinstance(hashes, Mapping) else [hashes]
    return Item(str(entry["id"]), "train", frozenset(map(str, values)), entry.get("group"))


def _is_run(place: Path) -> bool:
    return (place / "config.yaml").is_file() or (place / CLASSES).is_file()


def _leaked(
    trained: Sequence[Item], items: Sequence[Item], held_out: Sequence[Split]
) -> Iterator[tuple[Item, str]]:
    """Held-out items that a model has seen, and how.

    Files and groups that the training split holds too prove nothing against the model: it may
    have them from there (empty masks are all alike). Other guards tell of these.
    """
    own = [item for item in items if item.split not in held_out]
    own_hashes = frozenset[str]().union(*(item.hashes for item in own))
    own_groups = {item.group for item in own}
    seen = frozenset[str]().union(*(item.hashes for item in trained)) - own_hashes
    groups = {item.group for item in trained} - own_groups - {None}
    for item in items:
        if item.split not in held_out:
            continue
        if item.hashes & seen:
            yield item, "the same file"
        elif item.group in groups:
            yield item, "of a patient or part in its training data"


def _leak_finding(
    name: str,
    what: str,
    places: Mapping[str, Path],
    items: Sequence[Item],
    held_out: Sequence[Split],
) -> Finding:
    """Compare what models were trained on with the held-out items."""
    if not places:
        return Finding(name, "skipped", f"There is no {what} to look at.")
    lines, leaking, unknown = [], {}, []
    for called, place in places.items():
        trained = trained_items(place)
        if trained is None:
            unknown.append(called)
            continue
        found = list(_leaked(trained, items, held_out))
        lines += [f"{called}: {item.id} ({item.split}), {how}" for item, how in found]
        if found:
            leaking[called] = len(found)
    if leaking:
        described = " and ".join(held_out)
        counted = ", ".join(f"{called} on {count}" for called, count in leaking.items())
        return Finding(
            name,
            "violated",
            f"Trained on images that are in the {described} split: {counted}. The comparison would "
            f"be invalid. Train the {what} on the training split, as `experiment run` does.",
            lines,
        )
    if unknown:
        return Finding(
            name,
            "skipped",
            f"NOT CHECKED: nothing says what {_some(unknown)} was trained on (no provenance.json "
            "with `trained_on`, no data.json). If it has seen test images, the comparison is "
            "invalid, and nobody would notice. Generate the folder anew with `tfgan-med generate`, "
            "or make sure yourself.",
            unknown,
        )
    return Finding(
        name,
        "passed",
        f"No {what} has seen a file or a patient of the {' or '.join(held_out)} split "
        f"({len(places)} looked at).",
    )


def generator_leak(places: Mapping[str, Path], items: Sequence[Item]) -> Finding:
    """A generator that was trained on validation or test images.

    Args:
        places: synthetic folders or runs by name.
        items: see `items_of`.
    """
    return _leak_finding("generator-leak", "generator", places, items, ("val", "test"))


def classifier_leak(runs: Mapping[str, Path], items: Sequence[Item]) -> Finding:
    """A downstream model that was trained on test images.

    Validation images are not asked for: repeats may draw validation splits of their own.
    """
    return _leak_finding("classifier-leak", "downstream model", runs, items, ("test",))


# The data set -------------------------------------------------------------------------------------


def group_across_splits(images: ImageSet) -> Finding:
    """A patient (or part, slide) with images in more than one split."""
    name = "group-across-splits"
    known = sum(record.group is not None for record in images.records)
    if not known:
        return Finding(
            name,
            "skipped",
            "NOT CHECKED: the data name no patients or parts, so images of one may be in several "
            "splits. Add the column group to splits.csv if you know them.",
        )
    found = splits.leaks(images)
    if found:
        return Finding(
            name,
            "violated",
            f"{len(found)} of the groups (patients, parts) have images in more than one split. The "
            "result would be too good. Remove them from one split in splits.csv, or let us split: "
            "data: {split: group}.",
            [message for _, message in found],
        )
    alone = len(images.records) - known
    more = f" {alone} images have no group and count as one each." if alone else ""
    return Finding(name, "passed", f"No group is in two splits.{more}")


def near_duplicates(report: check.Report) -> Finding:
    """The same picture in two splits: identical, or saved again.

    Args:
        report: of `data.check.check`, which finds them.
    """
    kinds = ("identical across splits", "nearly identical across splits")
    found = [finding for finding in report.errors if finding.kind in kinds]
    if found:
        return Finding(
            "near-duplicates",
            "violated",
            f"{len(found)} pictures are in two splits, identical or nearly so. The result would be "
            "too good. Remove one of each pair, or give both the same group and let us split.",
            [str(finding) for finding in found],
        )
    alike = [finding for finding in report.warnings if finding.kind == "very alike across splits"]
    if alike:
        return Finding(
            "near-duplicates",
            "passed",
            f"No picture is in two splits; {len(alike)} pairs look very much alike and deserve a "
            "look.",
            [str(finding) for finding in alike],
        )
    return Finding("near-duplicates", "passed", "No picture is in two splits.")


# Copies -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copies:
    """How close the pictures of a synthetic folder are to training pictures.

    Attributes:
        flagged: pictures closer to a training picture than nearly all real ones are.
        near_copies: pictures that are a training picture, but for flips, small shifts and noise.
        of: pictures looked at.
        expected: number flagged of honest pictures.
        p_value: of the share flagged; Bonferroni's over the classes.
        alarming: whether that is more than chance.
        pairs: `synthetic ~ training`, closest first.
        reason: why it could not be found out; empty if it could.
    """

    flagged: int = 0
    near_copies: int = 0
    of: int = 0
    expected: float = 0.0
    p_value: float = 1.0
    alarming: bool = False
    pairs: tuple[str, ...] = ()
    reason: str = ""

    @property
    def message(self) -> str:
        """The counts in a sentence."""
        if self.reason:
            return self.reason
        return (
            f"{self.flagged} of {self.of} pictures are closer to a training picture than real "
            f"pictures are ({self.expected:.1f} expected by chance, p = {self.p_value:.1g}), "
            f"{self.near_copies} are near copies"
        )


def copies(found: Mapping[str, Copies]) -> Finding:
    """Synthetic pictures that copy training pictures.

    Args:
        found: of `copies_in`, by what the experiment calls the folder.
    """
    if not found:
        return Finding("copies", "skipped", "There is no synthetic folder to look at.")
    alarming = [name for name, one in found.items() if one.alarming]
    unknown = [name for name, one in found.items() if one.reason]
    counted = "; ".join(f"{name}: {one.message}" for name, one in found.items())
    if alarming:
        return Finding(
            "copies",
            "violated",
            f"{counted}. A generator that copies adds nothing to the training data and may give "
            "patients away. Train it for fewer steps, on more pictures or with augmentation.",
            [f"{name}: {pair}" for name in alarming for pair in found[name].pairs],
        )
    if unknown:
        return Finding("copies", "skipped", f"NOT CHECKED: {counted}", unknown)
    return Finding("copies", "passed", f"{counted}.")


def copies_in(
    folder: Path, items: Sequence[Item], images: ImageSet, config: DataConfig, seed: int = 0
) -> Copies:
    """Compare synthetic pictures with what they may be copies of, class by class.

    The distance of each to its nearest training picture (thumbnails, up to flips and small shifts)
    is ranked among the distances of held-out real pictures; where these are too few, of training
    pictures to each other. The method is that of `metrics/memorization.py`, in pixel space.

    Args:
        folder: of synthetic pictures.
        items: of `images`, see `items_of`.
        images: the real data, split.
        config: how training made squares of them.
        seed: of the sample, if there are very many.
    """
    try:
        made = opening.open_set(DataConfig(path=str(folder))).records
        return _combined(
            [
                _compared(folder.name, *part, config, seed)
                for part in _by_class(made, _training_records(folder, items, images), images)
            ]
        )
    except (UserError, decode.PictureError) as error:
        return Copies(reason=f"could not be compared with training pictures ({error})")


def _training_records(folder: Path, items: Sequence[Item], images: ImageSet) -> list[Record]:
    """Real pictures that the generator was trained on; the training split if that is not known."""
    trained = trained_items(folder) or []
    owners = Counter(value for item in items for value in item.hashes)
    hashes = frozenset[str]().union(*(item.hashes for item in trained))
    hashes -= {value for value, count in owners.items() if count > 1}  # empty masks, say
    own = [
        record for record, item in zip(images.records, items, strict=True) if item.hashes & hashes
    ]
    return own or list(images.of_split("train"))


def _by_class(
    made: Sequence[Record], trained: Sequence[Record], images: ImageSet
) -> Iterator[tuple[list[Record], list[Record], list[Record]]]:
    """Synthetic, training and held-out records to compare.

    A translated picture keeps the looks of the picture of the other class that it was made from,
    and is no copy of it: where classes are known, each is compared with its own.
    """
    seen = {record.id for record in trained}
    held_out = [r for r in images.records if r.split in ("val", "test") and r.id not in seen]
    of_trained = {record.label for record in trained}
    labels = {record.label for record in made}
    if None in labels or not labels <= of_trained:
        yield list(made), list(trained), [r for r in held_out if r.label in of_trained]
        return
    for label in sorted(filter(None, labels)):
        yield (
            [record for record in made if record.label == label],
            [record for record in trained if record.label == label],
            [record for record in held_out if record.label == label],
        )


def _compared(
    name: str,
    made: Sequence[Record],
    trained: Sequence[Record],
    held_out: Sequence[Record],
    config: DataConfig,
    seed: int,
) -> Copies:
    """Judge the pictures of one class."""
    role = "images"
    if any(role not in record.parts for record in (*made, *trained, *held_out)):
        raise UserError("they are no pictures; masks are alike by nature.")
    if len(trained) < 2:
        raise UserError("2 training pictures are needed at least.")
    rows = np.sort(np.random.default_rng(seed).permutation(len(made))[:MOST_LOOKED_AT])
    read = _Reader([made[row] for row in rows], trained, config)
    fake, real = read.side(name, read.made, False), read.side("training", trained, True)
    usable = len(held_out) >= FEWEST_HELD_OUT
    other = read.side("held-out", held_out, True) if usable else None

    how = Memorization()
    sets = Sets(real, fake, other, Context(), transforms=how.transforms, shift=how.shift)
    generated, reference = sets.chosen("pixels")
    if np.isfinite(reference.distance).sum() < 2:
        raise UserError("the real pictures are of one patient, or all alike.")
    verdict = judge(generated, reference, sets.reference_kin, leave_one_out=not usable)
    near, usual = (
        np.asarray(looks.copy.any(axis=1)) for looks in (sets.fake_looks, sets.reference_looks)
    )
    chance = more_often(int(near.sum()), len(near), int(usual.sum()), len(usual))
    copied = bool(near.any()) and (not usual.any() or chance < ALARM)
    suspects = np.flatnonzero(verdict.flagged | near)
    order = suspects[np.argsort(generated.distance[suspects], kind="stable")]
    return Copies(
        flagged=int(verdict.flagged.sum()),
        near_copies=int(near.sum()),
        of=len(near),
        expected=verdict.expected * len(near),
        p_value=verdict.p_value,
        alarming=copied,
        pairs=tuple(
            f"{fake.files[row]} ~ {real.files[generated.index[row]]}" for row in order.tolist()
        ),
    )


def _combined(parts: Sequence[Copies]) -> Copies:
    """Counts of all classes; the share is tested once for each of them."""
    p_value = min(1.0, len(parts) * min(part.p_value for part in parts))
    return Copies(
        flagged=sum(part.flagged for part in parts),
        near_copies=sum(part.near_copies for part in parts),
        of=sum(part.of for part in parts),
        expected=sum(part.expected for part in parts),
        p_value=p_value,
        alarming=any(part.alarming for part in parts) or p_value < ALARM,
        pairs=tuple(pair for part in parts for pair in part.pairs),
    )


class _Reader:
    """Reads real pictures as the generator saw them: same squares, same value window.

    Args:
        made: synthetic records.
        trained: real ones, whose values decide the window.
        config: how training made squares.
    """

    def __init__(
        self, made: Sequence[Record], trained: Sequence[Record], config: DataConfig
    ) -> None:
        self.made, self.config = made, config
        sizes = set(ahead(decode.picture_size, [record.parts["images"] for record in made]))
        width, height = next(iter(sizes))
        # Pictures of the size of their originals (`translate`) are compared as they are.
        self.size = width if len(sizes) == 1 and width == height else None
        real, fake = (Pictures("", tuple(r), "images", ()) for r in (trained, made))
        window = common_window(real, [fake], config.window)
        self.preparation = Preparation(window=window, window_given=config.window is not None)

    def side(self, name: str, records: Sequence[Record], fitted: bool) -> Side:
        """Thumbnails of pictures, several of one that training cut into tiles."""
        parts = [record.parts["images"] for record in records]
        owners, thumbnails = [], []
        for row, tiles in enumerate(ahead(lambda part: self._tiles(part, fitted), parts)):
            owners += [row] * len(tiles)
            thumbnails += tiles
        groups = [records[row].group for row in owners]
        return Side(
            name,
            tuple(parts[row].name or parts[row].path.name for row in owners),
            thumbnails=np.stack(thumbnails),
            groups=None if None in groups else tuple(str(group) for group in groups),
        )

    def _tiles(self, part: Part, fitted: bool) -> list[npt.NDArray[np.uint8]]:
        config = self.config
        raw = decode.read_picture(part, config.max_pixels)
        tiles = [raw]
        if fitted and self.size is not None:
            tiles = list(fitting.fit(raw, self.size, config.fit, False, config.scale)[0])
        pictures = (self.preparation.windowed(tile, part) for tile in tiles)
        return [np.rint(duplicates.thumbnail(picture)).astype(np.uint8) for picture in pictures]


# Choices ------------------------------------------------------------------------------------------


def tuned_threshold(
    runs: Mapping[str, Path], chosen_on: Mapping[str, str] | None = None
) -> Finding:
    """Figures at a threshold, a step or settings that were not fixed nor chosen on validation.

    Args:
        runs: finished downstream runs by name.
        chosen_on: for other choices (the grid of settings, say) the split they were made on.
    """
    name = "tuned-threshold"
    faults = [
        f"{choice}: chosen on the {split} split"
        for choice, split in (chosen_on or {}).items()
        if split not in ("val", "train")
    ]
    unknown = []
    for called, run in runs.items():
        if not (run / predictions.OUTCOME).is_file():
            unknown.append(called)
            continue
        faults += [f"{called}: {fault}" for fault in _threshold_faults(run)]
    if faults:
        return Finding(
            name,
            "violated",
            f"{len(faults)} choices (threshold, step, settings) were not made on validation "
            "images, so figures on test images do not mean what they seem to. Fix the threshold "
            "(train: {threshold: 0.5}), or give the data a validation split.",
            faults,
        )
    if unknown:
        return Finding(
            name,
            "skipped",
            f"NOT CHECKED: {_some(unknown)} has no {predictions.OUTCOME}, so its training has not "
            "ended.",
            unknown,
        )
    if not runs and not chosen_on:
        return Finding(name, "skipped", "There is no finished downstream model to look at.")
    return Finding(
        name, "passed", "Thresholds, steps and settings were fixed or chosen on validation images."
    )


def _threshold_faults(run: Path) -> Iterator[str]:
    outcome = predictions.read_outcome(run)
    threshold = outcome.get("threshold") or {}
    source = threshold.get("source")
    validation = sum((outcome.get("counts", {}).get("val") or {}).values())
    if threshold and source not in _HONEST_SOURCES:
        yield f"threshold {threshold.get('value')} chosen on {source}"
    elif source == "validation" and not validation:
        yield f"threshold {threshold.get('value')} said to be of a validation split that is empty"
    last = outcome.get("steps")
    early = [
        entry["step"]
        for entry in _log(run)
        if entry.get("split") == "test" and "scores" in entry and entry.get("step") != last
    ]
    if len(early) > 1:
        yield f"test images were scored {len(early)} times during training"


def _log(run: Path) -> Iterable[dict[str, Any]]:
    path = run / "log.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _some(names: Sequence[str]) -> str:
    """At most three names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
