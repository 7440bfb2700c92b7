"""Real and synthetic pictures as one training set of a downstream model.

Real pictures come from one data set with its splits, synthetic ones from folders that `generate`
or `translate` wrote. Synthetic pictures are trained on and nothing else: validation and test are
real. Made by `prepare_mixed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import Field

from tfgan_med import files
from tfgan_med.batches import Tensor
from tfgan_med.config import Config, Location
from tfgan_med.data import opening, splits
from tfgan_med.data.decoded import DecodedSet, decode, digest
from tfgan_med.data.drawing import Draws, Stream
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import DataConfig, ImageSet, Split
from tfgan_med.data.survey import choose_made
from tfgan_med.errors import DataError, UserError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Needs = Literal["labels", "masks", "ids"]
Augment = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]

FINGERPRINT = 1  # format of data.json


class MixConfig(Config):
    """What the training pictures are made of. Validation and test pictures are always real."""

    real: bool = True
    """Train on the real training pictures."""
    synthetic: tuple[Location, ...] = ()
    """Folders of synthetic pictures, laid out like the real ones."""
    count: int | None = Field(None, ge=1)
    """Synthetic pictures to use, drawn at random from all folders; classes keep their shares. By
    default all."""
    class_counts: dict[str, int] = {}
    """Synthetic pictures to use of each class, in place of `count`."""
    ratio: float | None = Field(None, gt=0.0)
    """Synthetic pictures to use for each real training picture, in place of `count`."""
    fraction: float | None = Field(None, gt=0.0, lt=1.0)
    """Share of the draws that are synthetic, whatever the numbers of pictures (Bailo et al. 2019
    draw half and half). By default every picture is drawn equally often."""
    sampling: Literal["uniform", "weighted"] = "uniform"
    """`weighted` draws each class equally often, or the positive one at `positive_rate`."""
    positive_rate: float | None = Field(None, gt=0.0, lt=1.0)
    """With `sampling: weighted`, share of the draws that are of the positive class."""
    seed: int = Field(0, ge=0)
    """Of the choice of synthetic pictures."""


@dataclass(frozen=True)
class Source:
    """Pictures of one set that may be trained on.

    Attributes:
        name: `real`, or the folder.
        decoded: the pictures.
        rows: those that are used, as rows of its training split.
        labels: `(rows of the split,)` class index of each; -1 without classes.
    """

    name: str
    decoded: DecodedSet
    rows: Rows
    labels: Rows


class MixedData:
    """Batches of real and synthetic pictures with what a downstream model learns from.

    Args:
        sources: the real set first.
        needs: what comes with the pictures.
        config: how they are mixed.
        classes: class names, sorted; empty for segmentation.
        positive: index of the positive class, if there is one.

    Attributes:
        real: the real set with all its splits.
        encodings: of the picture and of its masks.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        needs: Needs,
        config: MixConfig,
        classes: tuple[str, ...],
        positive: int | None,
    ) -> None:
        self.real = sources[0].decoded
        self.encodings: tuple[Encoding, ...] = self.real.encodings
        self.needs = needs
        self.classes = classes
        self.positive = positive
        self._sources = sources
        self._config = config
        self._class_weights = np.ones(max(1, len(classes)), np.float32)
        self._offsets = np.cumsum([0, *(len(source.labels) for source in sources)])
        self._augment: Augment | None = None
        self._maps: list[Tensor] | None = None

    # What there is --------------------------------------------------------------------------

    @property
    def counts(self) -> dict[Split, int]:
        """Pictures per split; training ones are those that are drawn, real and synthetic."""
        drawn = sum(len(source.rows) for source in self._sources)
        return {**self.real.counts, "train": drawn}

    def composition(self) -> dict[str, dict[str, int]]:
        """Pictures of `real`, `synthetic`, `val` and `test` by class; `all` without classes."""
        parts: dict[str, list[Rows]] = {"real": [], "synthetic": []}
        for source in self._sources:
            kind = "real" if source is self._sources[0] else "synthetic"
            parts[kind].append(source.labels[source.rows])
        made = {kind: self._by_class(np.concatenate([*p, []])) for kind, p in parts.items()}
        held: tuple[Split, Split] = ("val", "test")
        return {**made, **{split: self._by_class(self.labels(split)) for split in held}}

    def _by_class(self, labels: Array) -> dict[str, int]:
        if not self.classes:
            return {"all": len(labels)}
        return {name: int((labels == index).sum()) for index, name in enumerate(self.classes)}

    def labels(self, split: Split) -> Rows:
        """Class indices of the real pictures of a split, in order."""
        return _labels(self.real, split, self.classes)

    def groups(self, split: Split) -> tuple[str | None, ...]:
        """Keyed hash of the group of each real picture of a split."""
        return tuple(splits.hashed_group(record) for record in self.real.row_records(split))

    def balance_classes(self) -> None:
        """Weigh each picture by the inverse share of its class among the training pictures."""
        labels = np.concatenate([source.labels[source.rows] for source in self._sources])
        counts = np.bincount(labels, minlength=len(self.classes)).astype(np.float64)
        weights = np.where(counts > 0, len(labels) / np.maximum(counts, 1), 0.0)
        self._class_weights = (weights / max(1, np.count_nonzero(counts))).astype(np.float32)

    # Batches --------------------------------------------------------------------------------

    def augment(self, augment: Augment) -> None:
        """Change training batches by this function of the batch and of its first draw."""
        self._augment = augment

    def use_maps(self, compute: Callable[[Array], Array]) -> None:
        """Replace training pictures by what a frozen network makes of them, computed once.

        Args:
            compute: pictures `(batch, size, size, channels)` in [-1, 1] to maps; batches then
                have `features` in place of `images`.
        """
        made = []
        for source in self._sources:
            parts = [compute(batch[0]) for batch in source.decoded.batches("train", 32)]
            with tf.device("CPU:0"):
                made.append(tf.constant(np.concatenate(parts)))
        self._maps = made

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps until as many pictures were drawn as there are."""
        return -(-self.counts["train"] // batch_size)

    def train_batches(self, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
        """Endless training batches.

        Returns:
            Elements have `images` float32 in [-1, 1] (or `features`, see `use_maps`) and `labels`
            int32 with `weights`, or `masks`, or `ids`; see `DownstreamModel.losses_of`.
        """
        draws = Draws(self._streams(), seed)

        def item(position: Tensor) -> dict[str, Tensor]:
            return {"position": position, **self._stored(draws(position))}

        def batch(stored: dict[str, Tensor]) -> dict[str, Tensor]:
            first = stored.pop("position")[0]
            made = self._tensors(stored)
            return made if self._augment is None else self._augment(made, first)

        positions = tf.data.Dataset.range(start_step * batch_size, tf.int64.max)
        return (
            positions.map(item, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(batch_size, drop_remainder=True)
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def _streams(self) -> list[Stream]:
        """Pictures that are drawn alike, with their shares of the draws."""
        used = [s.rows + offset for s, offset in zip(self._sources, self._offsets, strict=False)]
        if self._config.fraction is not None:
            share = self._config.fraction
            real, made = used[0], np.concatenate(used[1:])
            return [Stream(real, 1.0 - share), Stream(made, share)]
        rows = np.concatenate(used)
        if self._config.sampling == "uniform":
            return [Stream(rows, 1.0)]
        labels = np.concatenate([source.labels for source in self._sources])[rows]
        present = np.unique(labels)
        shares = dict.fromkeys(present.tolist(), 1.0 / len(present))
        rate = self._config.positive_rate
        if rate is not None and self.positive is not None and self.positive in shares:
            others = (1.0 - rate) / max(1, len(present) - 1)
            shares = {k: rate if k == self.positive else others for k in shares}
        return [Stream(rows[labels == k], share) for k, share in shares.items()]

    def _stored(self, row: Tensor) -> dict[str, Tensor]:
        """What is kept of a picture: its files' content or its maps, and its class."""
        starts = tf.constant(self._offsets[1:-1])
        index = tf.reduce_sum(tf.cast(row >= starts, tf.int32))
        branches = [
            lambda k=k: self._read(k, row - int(self._offsets[k]))
            for k in range(len(self._sources))
        ]
        stored = branches[0]() if len(branches) == 1 else tf.switch_case(index, branches)
        labels = np.concatenate([source.labels for source in self._sources])
        return {"label": tf.gather(tf.constant(labels), row), **stored}

    def _read(self, source: int, row: Tensor) -> dict[str, Tensor]:
        if self._maps is not None:
            return {"features": tf.gather(self._maps[source], row)}
        decoded = self._sources[source].decoded
        pictures = [read(row) for read in decoded.readers("train")]
        return {f"part{index}": picture for index, picture in enumerate(pictures)}

    def _tensors(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "features" in stored:
            made = {"features": stored["features"]}
        else:
            parts = [stored[f"part{index}"] for index in range(len(self.encodings))]
            made = targets(self.real.tensors(*parts), self.encodings)
        if self.needs == "labels":
            made["labels"] = tf.cast(stored["label"], tf.int32)
            made["weights"] = tf.gather(tf.constant(self._class_weights), stored["label"])
        return made

    def fixed_batch(self, split: Split, count: int) -> dict[str, Array]:
        """At most `count` real pictures spread over a split, always the same ones."""
        made = targets(self.real.tensors(*self.real.spread(split, count)), self.encodings)
        return {name: np.asarray(value) for name, value in made.items()}

    def batches(self, split: Split, batch_size: int = 32) -> Any:
        """Real pictures of a split in order, once, as batches of arrays."""
        for parts in self.real.batches(split, batch_size):
            yield {k: np.asarray(v) for k, v in targets(parts, self.encodings).items()}

    # What the run saw -----------------------------------------------------------------------

    def fingerprint(self) -> dict[str, Any]:
        """What the run saw, for `data.json`; names items, never groups."""
        roles = ["target", *(how.role for how in self.encodings[1:])]
        items = self.real.item_fingerprints(roles)
        if not len(self._sources[0].rows):  # not trained on, only validated and tested
            items = [item for item in items if item["split"] != "train"]
        content = {
            "roles": {name: how.role for name, how in zip(roles, self.encodings, strict=True)},
            "target": self.encodings[0].model_dump(mode="json"),
            "window": list(self.encodings[0].window),
            "classes": {name: index for index, name in enumerate(self.classes)},
            "left_out": self.real.left_out,
            "items": items + [i for s in self._sources[1:] for i in _synthetic_items(s, roles)],
            "synthetic": [_about(source) for source in self._sources[1:]],
        }
        return {"format": FINGERPRINT, "sha256": digest(content), **content}


def targets(tensors: Sequence[Any], encodings: Sequence[Encoding]) -> dict[str, Any]:
    """Pictures and what lies on them, from the tensors of each role.

    Returns:
        `images`, and `masks` of 0 and 1 `(batch, size, size, masks or classes)`, or `ids` int32.
    """
    image, *others = tensors
    if not others:
        return {"images": image}
    if encodings[1].kind == "ids":
        return {"images": image, "ids": tf.cast(others[0], tf.int32)}
    if encodings[1].kind == "labels":
        return {"images": image, "masks": others[0]}
    return {"images": image, "masks": (tf.concat(others, axis=-1) + 1.0) / 2.0}


# Making it ----------------------------------------------------------------------------------------


def prepare_mixed(
    images: ImageSet,
    config: DataConfig,
    mix: MixConfig,
    needs: Needs,
    validation: float,
    positive: str | None = None,
) -> MixedData:
    """Decode a real set and the synthetic folders beside it.

    Args:
        images: the real set, split.
        config: size, fitting, value window; also of the synthetic pictures.
        needs: `labels` of pictures, `masks` or `ids` of objects.
        validation: share of the training pictures held out where the set has no `val` split.
        positive: name of the class that yes-or-no questions ask for.
    Raises:
        UserError: if settings contradict each other, or the set lacks what is needed.
        DataError: if pictures cannot be used.
    """
    _check(mix, needs)
    images = splits.hold_out(images, validation, config)
    roles = _roles(images, config, needs)
    classes = _classes(images) if needs == "labels" else ()
    chosen = _positive(classes, positive) if needs == "labels" else None
    real = decode(images, config, roles, config.image_size)
    labels = _labels(real, "train", classes)
    used = np.arange(len(labels)) if mix.real else np.arange(0)
    sources = [Source("real", real, used, labels)]
    for folder in mix.synthetic:
        decoded = _decode_synthetic(folder, config, real, roles)
        labels = _labels(decoded, "train", classes, folder)
        sources.append(Source(folder, decoded, np.arange(len(labels)), labels))
    sources = _chosen(sources, mix, classes)
    return MixedData(sources, needs, mix, classes, chosen)


def _check(mix: MixConfig, needs: Needs) -> None:
    if not mix.real and not mix.synthetic:
        raise UserError("mix.real is false and mix.synthetic names no folder: nothing to train on.")
    limits = [name for name in ("count", "class_counts", "ratio") if getattr(mix, name)]
    if len(limits) > 1:
        raise UserError(f"mix.{limits[0]} and mix.{limits[1]} exclude each other. Keep one.")
    if mix.fraction is not None and (not mix.real or not mix.synthetic):
        raise UserError(
            "mix.fraction shares the draws between real and synthetic pictures and needs both. "
            "Name a folder in mix.synthetic and leave mix.real true, or leave mix.fraction out."
        )
    if mix.sampling == "weighted" and needs != "labels":
        raise UserError("mix.sampling=weighted draws by class, and segmenters have none.")
    if mix.fraction is not None and mix.sampling == "weighted":
        raise UserError("mix.fraction and mix.sampling=weighted exclude each other. Keep one.")


def _roles(images: ImageSet, config: DataConfig, needs: Needs) -> tuple[str, ...]:
    """The picture, and what lies on it."""
    (picture,) = choose_made(images, config.model_copy(update={"with_masks": False}))
    if needs == "labels":
        return (picture,)
    if needs == "ids":
        if "instances" not in images.roles:
            raise UserError(
                f"{config.path}: numbered objects are needed, in instances/ (16-bit PNG, 0 is "
                f"background); the set has {', '.join(images.roles)}. Use a segmenter of masks, "
                "such as unet."
            )
        return (picture, "ids")
    if "labels" in images.roles and not any(role.startswith("masks") for role in images.roles):
        return (picture, "labels")
    return choose_made(images, config.model_copy(update={"with_masks": True}))


def _classes(images: ImageSet) -> tuple[str, ...]:
    labels = images.labels
    if len(labels) < 2:
        raise UserError(
            f"{images.root.name}: a classifier needs pictures of two classes or more, found "
            f"{', '.join(labels) or 'none'}. Put each class into a folder of its name, or give a "
            "`class` column in splits.csv."
        )
    nameless = [record.id for record in images.records if record.label is None]
    if nameless:
        raise DataError(
            f"{nameless[0]}: has no class while others have one ({len(nameless)} such pictures). "
            "Give it one in splits.csv, or take it out."
        )
    return labels


HEALTHY = frozenset(
    {"normal", "healthy", "ok", "good", "negative", "benign", "control", "no", "none", "free"}
    | {"nondefective", "defect-free", "ok_front", "no_finding", "no-finding", "background"}
)
"""Names of classes that no one looks for."""


def _positive(classes: tuple[str, ...], wanted: str | None) -> int | None:
    """Index of the class that is looked for: as asked, or the one of two that is not healthy."""
    if wanted is not None:
        if wanted not in classes:
            raise UserError(
                f"model.positive is '{wanted}', but the classes are: {', '.join(classes)}. Name "
                "one of these."
            )
        return classes.index(wanted) if len(classes) == 2 else None
    if len(classes) != 2:
        return None
    healthy = [name.lower() in HEALTHY for name in classes]
    return 0 if healthy == [False, True] else 1


def _labels(decoded: DecodedSet, split: Split, classes: tuple[str, ...], folder: str = "") -> Rows:
    """Class index of each row of a split; -1 without classes."""
    records = decoded.row_records(split)
    if not classes:
        return np.full(len(records), -1, np.int64)
    unknown = [record for record in records if record.label not in classes]
    if unknown:
        what = f"the class '{unknown[0].label}'" if unknown[0].label else "no class"
        raise DataError(
            f"{folder}: {unknown[0].id} has {what}; the real classes are {', '.join(classes)}. "
            "Synthetic pictures need class folders of the same names: generate them with "
            "--per-class."
        )
    return np.array([classes.index(str(record.label)) for record in records], np.int64)


def _decode_synthetic(
    folder: str, config: DataConfig, real: DecodedSet, roles: tuple[str, ...]
) -> DecodedSet:
    """Synthetic pictures in size, channels and values of the real ones, all to be trained on."""
    like = real.encodings[0]
    own = config.model_copy(
        update={
            "path": folder,
            "layout": "auto",
            "columns": {},
            "label": None,
            "fit": "stretch" if config.fit == "patches" else config.fit,
            "mode": "gray" if like.channels == 1 else "rgb",
            "window": like.window,
            "classes": next((e.channels for e in real.encodings if e.kind == "labels"), None),
        }
    )
    found = opening.open_set(own)
    found = replace(found, records=tuple(replace(r, split="train") for r in found.records))
    missing = [
        role for role in roles if ("instances" if role == "ids" else role) not in found.roles
    ]
    if missing:
        raise DataError(
            f"{folder}: the synthetic set has {', '.join(found.roles)}, but the real one is "
            f"learned from with {', '.join(roles)}. Generate pictures together with their masks."
        )
    return decode(found, own, roles, config.image_size)


def _chosen(sources: list[Source], mix: MixConfig, classes: tuple[str, ...]) -> list[Source]:
    """The sources with the synthetic pictures that are asked for, the same for the same seed."""
    made = sources[1:]
    wanted = mix.count
    if mix.ratio is not None:
        wanted = max(1, round(mix.ratio * len(sources[0].labels)))
    if not made or (wanted is None and not mix.class_counts):
        return sources
    owner = np.concatenate([np.full(len(s.rows), i) for i, s in enumerate(made)])
    rows = np.concatenate([source.rows for source in made])
    labels = np.concatenate([source.labels[source.rows] for source in made])
    counts = _class_counts(labels, wanted, mix.class_counts, classes)
    random = np.random.default_rng(mix.seed)
    kept = np.concatenate(
        [random.permutation(np.flatnonzero(labels == k))[:count] for k, count in counts.items()]
    )
    kept.sort()
    chosen = [replace(s, rows=rows[kept[owner[kept] == i]]) for i, s in enumerate(made)]
    return [sources[0], *chosen]


def _class_counts(
    labels: Rows, total: int | None, asked: Mapping[str, int], classes: tuple[str, ...]
) -> dict[int, int]:
    """Synthetic pictures of each class, by index; -1 without classes."""
    present = {int(k): int(n) for k, n in zip(*np.unique(labels, return_counts=True), strict=True)}
    if asked:
        unknown = [name for name in asked if name not in classes]
        if unknown:
            known = ", ".join(classes) or "none"
            raise UserError(f"mix.class_counts: no class '{unknown[0]}'; the classes are {known}.")
        counts = {classes.index(name): count for name, count in asked.items()}
    else:
        exact = {k: (total or 0) * n / len(labels) for k, n in present.items()}
        counts = {k: int(share) for k, share in exact.items()}
        behind = sorted(exact, key=lambda k: counts[k] - exact[k])
        for k in behind[: (total or 0) - sum(counts.values())]:
            counts[k] += 1
    for k, count in counts.items():
        if count > present.get(k, 0):
            name = classes[k] if k >= 0 else "pictures"
            raise DataError(
                f"mix asks for {count} synthetic {name}, but the folders hold {present.get(k, 0)}. "
                "Generate more, or lower the count."
            )
    return counts


def _synthetic_items(source: Source, roles: Sequence[str]) -> list[dict[str, Any]]:
    """Fingerprints of the synthetic pictures that are used."""
    used = {source.decoded.row_records("train")[row].id for row in source.rows.tolist()}
    items = source.decoded.item_fingerprints(roles)
    return [
        {**item, "domain": f"synthetic:{Path(source.name).name}"}
        for item in items
        if item["id"] in used
    ]


def _about(source: Source) -> dict[str, Any]:
    """The folder, how many of its pictures are used, and the hash of its provenance."""
    folder = Path(source.name)
    provenance = folder / "provenance.json"
    return {
        "folder": folder.name,
        "used": len(source.rows),
        "of": len(source.labels),
        "provenance": files.sha256_of(provenance) if provenance.is_file() else None,
    }
