"""Records to tf.data batches, for the three kinds of training.

Paired pictures (`prepare_pairs`), pictures alone or with their masks (`prepare_images`), and
pictures of two kinds that do not belong together (`prepare_domains`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med.batches import DomainBatch, ImageBatch, PairedBatch
from tfgan_med.data.decoded import DecodedSet, decode, digest
from tfgan_med.data.records import DataConfig, ImageSet, Split
from tfgan_med.data.survey import choose_domains, choose_made, choose_roles

PAPER_LOAD = 286 / 256  # Isola et al., arXiv:1611.07004, section 6.2
FINGERPRINT = 1  # format of data.json


class Batches(ABC):
    """Items of one decoded set as batches.

    Attributes:
        decoded: the pictures.
    """

    def __init__(self, decoded: DecodedSet) -> None:
        self.decoded = decoded

    @property
    def counts(self) -> dict[Split, int]:
        """Items per split; with `fit: patches` their tiles."""
        return self.decoded.counts

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps until each training item was seen once, the last batch reaching into the next."""
        return -(-self.counts["train"] // batch_size)

    def train_batches(self, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
        """Endless shuffled and jittered training batches.

        Args:
            batch_size: items per batch; a batch may reach over the end of an epoch.
            seed: fixes order and jitter together with epoch and index.
            start_step: batches already seen: the same batches follow as without a stop.
        Returns:
            Elements are the batches of the kind of data.
        """
        items = self.decoded.training_items(start_step * batch_size, seed)
        return _batched(items, batch_size, self._batch, drop_remainder=True)

    def eval_batches(
        self, split: Split, batch_size: int, limit: int | None = None
    ) -> tf.data.Dataset:
        """The items of a split in order, once, without jitter.

        Args:
            limit: stop after so many items.
        Returns:
            The same elements; the last one may be smaller.
        """
        return _batched(self.decoded.items(split, limit), batch_size, self._batch)

    def fixed_batch(self, split: Split, count: int) -> Any:
        """At most `count` items spread evenly over a split, always the same ones."""
        return self._batch(*self.decoded.spread(split, count))

    @abstractmethod
    def _batch(self, *stored: tf.Tensor) -> Any:
        """A batch of tensors from the stored pictures of each role."""


class PairedData(Batches):
    """Conditions and the pictures that belong to them, as batches. Made by `prepare_pairs`.

    Attributes:
        source, target: how condition and picture become tensors.
        window: values of the pictures that become -1 and 1.
    """

    def __init__(self, decoded: DecodedSet) -> None:
        super().__init__(decoded)
        self.source, self.target = decoded.encodings
        self.window = (self.target if self.target.kind == "image" else self.source).window
        self.left_out = decoded.left_out

    def _batch(self, *stored: tf.Tensor) -> PairedBatch:
        source, target = self.decoded.tensors(*stored)
        return {"source": source, "target": target}

    def fingerprint(self) -> dict[str, Any]:
        """What the run saw, for `data.json`; names items, never groups.

        Returns:
            Its items (`DecodedSet.item_fingerprints`); for the set: roles, value window, classes
            and a hash over all.
        """
        return _fingerprint(
            {
                "roles": {"source": self.source.role, "target": self.target.role},
                "source": self.source.model_dump(mode="json"),
                "target": self.target.model_dump(mode="json"),
                "window": list(self.window),
                "classes": self.decoded.classes(),
                "left_out": self.left_out,
                "items": self.decoded.item_fingerprints(("source", "target")),
            }
        )


class ImageData(Batches):
    """Pictures, and masks that are made together with them, as batches. Made by `prepare_images`.

    Attributes:
        encodings: how each role becomes channels; the picture first, then masks.
    """

    def __init__(self, decoded: DecodedSet) -> None:
        super().__init__(decoded)
        self.encodings = decoded.encodings
        self._labels = self._training_labels()

    def train_batches(self, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
        """As `Batches.train_batches`; batches say which pictures they hold and of which class."""
        start = start_step * batch_size
        items = self.decoded.training_items(start, seed, numbered=True)
        return _batched(items, batch_size, self._numbered_batch, drop_remainder=True)

    def _numbered_batch(self, *stored: tf.Tensor) -> ImageBatch:
        *pictures, rows = stored
        return {
            **self._batch(*pictures),
            "rows": rows,
            "labels": tf.gather(tf.constant(self._labels, tf.int64), rows),
        }

    def _batch(self, *stored: tf.Tensor) -> ImageBatch:
        return {"images": tf.concat(self.decoded.tensors(*stored), axis=-1)}

    def spread_labels(self, count: int) -> npt.NDArray[np.int64]:
        """Class numbers of `count` pictures in the proportions of the training split."""
        rows = np.linspace(0, len(self._labels) - 1, count).round().astype(np.int64)
        return np.asarray(self._labels, np.int64)[rows]

    def _training_labels(self) -> list[int]:
        """Number of the class of each training picture, -1 without."""
        numbers = self.decoded.classes()
        records = self.decoded.row_records("train", self.decoded.load_size)
        return [-1 if record.label is None else numbers[record.label] for record in records]

    def fingerprint(self) -> dict[str, Any]:
        """As `PairedData.fingerprint`; `target` is the role of the picture."""
        roles = [how.role for how in self.encodings]
        return _fingerprint(
            {
                "roles": {"target": roles[0], **{role: role for role in roles[1:]}},
                "target": self.encodings[0].model_dump(mode="json"),
                "window": list(self.encodings[0].window),
                "classes": self.decoded.classes(),
                "left_out": self.decoded.left_out,
                "items": self.decoded.item_fingerprints(roles),
            }
        )


class DomainData:
    """Pictures of two kinds as batches, each kind in its own order. Made by `prepare_domains`.

    Attributes:
        a, b: the pictures of each kind.
        names: what the kinds are called in the data.
        by_class: whether the kinds are classes; else they are roles.
    """

    def __init__(
        self, a: DecodedSet, b: DecodedSet, names: tuple[str, str], by_class: bool = True
    ) -> None:
        self.a, self.b = a, b
        self.names = names
        self.by_class = by_class

    @property
    def counts(self) -> dict[Split, int]:
        """Items per split, of the larger kind; 0 if one kind has none."""
        a, b = self.a.counts, self.b.counts
        return {split: max(a[split], b[split]) if a[split] and b[split] else 0 for split in a}

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps until each item of the larger kind was seen once."""
        return -(-self.counts["train"] // batch_size)

    def train_batches(self, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
        """As `Batches.train_batches`, each kind shuffled by itself; elements `DomainBatch`."""
        start = start_step * batch_size
        items = tf.data.Dataset.zip(
            self.a.training_items(start, seed, domain=0),
            self.b.training_items(start, seed, domain=1),
        )
        return _batched(items, batch_size, self._batch, drop_remainder=True)

    def fixed_batch(self, split: Split, count: int) -> DomainBatch:
        """At most `count` items of each kind spread over a split, always the same ones."""
        return self._batch(self.a.spread(split, count), self.b.spread(split, count))

    def _batch(self, a: tuple[tf.Tensor, ...], b: tuple[tf.Tensor, ...]) -> DomainBatch:
        return {"a": self.a.tensors(*a)[0], "b": self.b.tensors(*b)[0]}

    def fingerprint(self) -> dict[str, Any]:
        """As `PairedData.fingerprint`; items say to which kind they belong."""
        sides = {"a": self.a, "b": self.b}
        return _fingerprint(
            {
                "roles": {"target": self.b.encodings[0].role},
                "domains": dict(zip(sides, self.names, strict=True)),
                **{k: data.encodings[0].model_dump(mode="json") for k, data in sides.items()},
                "left_out": {**self.a.left_out, **self.b.left_out},
                "items": [
                    {**item, "domain": kind}
                    for kind, data in sides.items()
                    for item in data.item_fingerprints(["image"])
                ],
            }
        )


def prepare_pairs(images: ImageSet, config: DataConfig) -> PairedData:
    """Decode a set of pairs.

    Args:
        images: the set, split.
        config: roles, size, fitting, value window, memory budget.
    Raises:
        UserError: if settings contradict each other or the set has no pairs.
        DataError: if pictures cannot be used (see `survey`); with `skip_bad` they are left out.
    """
    roles = choose_roles(images, config)
    paper = round(config.image_size * PAPER_LOAD)
    return PairedData(decode(images, config, roles, config.load_size or paper))


def prepare_images(images: ImageSet, config: DataConfig) -> ImageData:
    """Decode the pictures of a set, with `config.with_masks` their masks too.

    Raises:
        As `prepare_pairs`.
    """
    roles = choose_made(images, config)
    return ImageData(decode(images, config, roles, config.load_size or config.image_size))


def prepare_domains(images: ImageSet, config: DataConfig) -> DomainData:
    """Decode the pictures of two classes or roles, or of the two halves of an unpaired set.

    Raises:
        As `prepare_pairs`.
    """
    names = choose_domains(images, config)
    load_size = config.load_size or round(config.image_size * PAPER_LOAD)
    half = config.model_copy(update={"cache_mb": config.cache_mb // 2})
    if names[0] in images.labels:
        parts = [(_of_class(images, name), choose_made(images, config)) for name in names]
    else:
        parts = [(images, (name,)) for name in names]
    a, b = (decode(part, half, roles, load_size) for part, roles in parts)
    return DomainData(a, b, names, by_class=names[0] in images.labels)


def _of_class(images: ImageSet, label: str) -> ImageSet:
    return replace(images, records=tuple(r for r in images.records if r.label == label))


def _batched(
    items: tf.data.Dataset,
    batch_size: int,
    tensors: Callable[..., Any],
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batch stored pictures and make tensors of them; one operation a batch is the cheapest."""
    return (
        items.batch(batch_size, drop_remainder=drop_remainder)
        .map(tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _fingerprint(content: dict[str, Any]) -> dict[str, Any]:
    return {"format": FINGERPRINT, "sha256": digest(content), **content}
