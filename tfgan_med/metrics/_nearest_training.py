"""The nearest training picture of each picture, in pixels and in features, and who is kin.

Pictures of one patient, and near copies of each other inside the real sets, count as kin: they are
never compared with each other for calibration, nor as first and second neighbor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from tfgan_med.metrics import _look_alikes as looks
from tfgan_med.metrics._look_alikes import Candidates, Groups, LookAlikes
from tfgan_med.metrics.base import Array, Context, Side, require
from tfgan_med.ops.neighbors import nearest

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

RATIO = 0.5
"""Flagged if so much closer to the first training picture than to the second."""
LISTED = 50
"""Pairs that are listed, at most."""

_CLUSTERED = 5000  # training pictures that k-means sees


class Sets:
    """The sets at hand and who is near whom, each search done once.

    Args:
        real: the training pictures, and
        fake: generated ones.
        held_out: real pictures that were not trained on; None to leave each training picture out
            in turn.
        context: for its progress.
        transforms, shift: what a copy may have gone through, see `look_alikes`.
    """

    def __init__(
        self,
        real: Side,
        fake: Side,
        held_out: Side | None,
        context: Context,
        *,
        transforms: str,
        shift: int,
    ) -> None:
        self.real, self.fake, self.held_out = real, fake, held_out
        self._known: dict[str, int] = {}
        self.groups = looks.numbered(real.groups, self._known)
        held_groups = looks.numbered(held_out.groups, self._known) if held_out else None

        def compare(what: str, queries: Side, points: Side, groups: Groups | None) -> LookAlikes:
            return looks.look_alikes(
                require(queries.thumbnails, "thumbnails"),
                require(points.thumbnails, "thumbnails"),
                transforms=transforms,
                shift=shift,
                query_groups=groups,
                point_groups=None if points is fake else self.groups,
                same=queries is points,
                progress=lambda done, total: context.progress(what, done, total),
            )

        self.fake_looks = compare("look-alikes of generated images", fake, real, None)
        self.real_looks = compare("look-alikes of training images", real, real, self.groups)
        self.fake_to_fake = compare("look-alikes inside the generated set", fake, fake, None)
        sizes, groups = [len(real)], [self.groups]
        edges = [(0, 0, self.real_looks)]
        self.reference_looks = self.real_looks
        if held_out:
            self.reference_looks = compare(
                "look-alikes of held-out images", held_out, real, held_groups
            )
            sizes, groups = [*sizes, len(held_out)], [*groups, held_groups]
            edges.append((1, 0, self.reference_looks))
        kin = kinship(groups, edges, sizes)
        self.kin, self.reference_kin = kin[0], kin[-1]
        self._features: tuple[Chosen, Chosen] | None = None

    @property
    def reference_name(self) -> str:
        """Which real images the generated ones are compared with."""
        if self.held_out:
            return f"{len(self.held_out)} held-out real images"
        patients = " of other patients" if self.groups is not None else ""
        return f"{len(self.real)} training images, each to the others{patients}"

    @property
    def reference_features(self) -> Array:
        """Features of the images that the generated ones are compared with."""
        return require((self.held_out or self.real).features, "features")

    def chosen(self, space: str) -> tuple[Chosen, Chosen]:
        """Nearest training images of the generated and of the reference images."""
        if space == "pixels":
            return (
                choose(self.fake_looks, self.kin),
                choose(self.reference_looks, self.kin, self.reference_kin),
            )
        if self._features is None:
            real = require(self.real.features, "features")
            wanted = looks.candidates_to_ask_for(self.kin, len(real))
            fake = require(self.fake.features, "features")
            self._features = (
                choose(feature_candidates(fake, real, wanted, False), self.kin),
                choose(
                    feature_candidates(
                        self.reference_features, real, wanted, self.held_out is None
                    ),
                    self.kin,
                    self.reference_kin,
                ),
            )
        return self._features

    def cells(self, count: int, seed: int) -> tuple[Indices, Indices] | None:
        """In which cluster of training images each generated and reference image lies.

        Returns:
            Numbers of clusters; None if there would be one alone.
        """
        centers = _centers(require(self.real.features, "features"), count, seed)
        if centers is None:
            return None
        mine = nearest(require(self.fake.features, "features"), centers, 1, metric="cosine")[1]
        theirs = nearest(self.reference_features, centers, 1, metric="cosine")[1]
        return mine[:, 0], theirs[:, 0]

    def group_of(self, row: int) -> str | None:
        """The patient of a training image, if known."""
        return self.real.groups[row] if self.real.groups is not None else None

    def groups_of(self, rows: npt.NDArray[np.int64]) -> dict[str, int] | None:
        """How many of the found training images each patient has; None if not known."""
        if self.real.groups is None:
            return None
        counts = Counter(self.real.groups[row] for row in rows.tolist() if row >= 0)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def training_duplicates(self) -> dict[str, Any]:
        """Near copies inside the training set, of different patients as far as these are known."""
        rows, columns = np.nonzero(self.real_looks.copy)
        others = self.real_looks.index[rows, columns]
        pairs = sorted({(min(p), max(p)) for p in zip(rows.tolist(), others.tolist(), strict=True)})
        return {
            "images": len(set(rows.tolist()) | set(others.tolist())),
            "pairs": [[self.real.files[a], self.real.files[b]] for a, b in pairs[:LISTED]],
        }

    def pairs(
        self, space: str, generated: Chosen, reference: Chosen, p_values: Floats
    ) -> list[dict[str, Any]]:
        """The generated images closest to a training image, for the list and the picture sheet."""
        median = float(np.nanmedian(reference.distance))
        table = []
        for row in np.argsort(generated.distance, kind="stable")[:LISTED].tolist():
            point = int(generated.index[row])
            distance, second = float(generated.distance[row]), float(generated.second[row])
            near = np.flatnonzero(self.fake_looks.index[row] == point)
            look = int(near[0]) if len(near) else None
            table.append(
                {
                    "generated": self.fake.files[row],
                    "training": self.real.files[point],
                    "group": self.group_of(point),
                    "space": space,
                    "distance": distance,
                    "second_distance": second if np.isfinite(second) else None,
                    "ratio": distance / median if median > 0 else None,
                    "p_value": float(p_values[row]),
                    "transform": self._transform(row, look),
                    "shift": self._shift(row, look),
                    "copy": look is not None and bool(self.fake_looks.copy[row, look]),
                }
            )
        return table

    def _transform(self, row: int, look: int | None) -> str | None:
        if look is None:
            return None
        return looks.transform_name(int(self.fake_looks.transform[row, look]))

    def _shift(self, row: int, look: int | None) -> list[int] | None:
        return None if look is None else [int(v) for v in self.fake_looks.shift[row, look]]


# From candidates to neighbors ---------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """The nearest training picture of each picture; -1 and NaN where there is none.

    Attributes:
        index: `(images,)` rows of the training set.
        distance: to it.
        second: distance to the nearest training picture that is no kin of the first.
    """

    index: npt.NDArray[np.int64]
    distance: Floats
    second: Floats

    @property
    def by_ratio(self) -> npt.NDArray[np.bool_]:
        """Much closer to the first training picture than to the second."""
        return np.asarray(self.distance < RATIO * self.second)  # comparisons with NaN are false


def choose(candidates: Candidates, kin: Groups, own_kin: Groups | None = None) -> Chosen:
    """First and second neighbors.

    Args:
        candidates: by distance.
        kin: `(training images,)`, equal numbers for pictures that belong together.
        own_kin: the same of the pictures themselves: these are compared with others only.
    """
    allowed = candidates.index >= 0
    relation = np.where(allowed, kin[candidates.index], -1)
    if own_kin is not None:
        allowed &= relation != own_kin[:, None]
    rows = np.arange(len(allowed))
    first = allowed.argmax(axis=1)
    found = allowed[rows, first]
    others = allowed & (relation != relation[rows, first][:, None])
    second = others.argmax(axis=1)
    return Chosen(
        index=np.where(found, candidates.index[rows, first], -1),
        distance=np.where(found, candidates.distance[rows, first], np.nan),
        second=np.where(others.any(axis=1), candidates.distance[rows, second], np.nan),
    )


def kinship(
    groups: Sequence[Groups | None], edges: Sequence[tuple[int, int, LookAlikes]], sizes: list[int]
) -> list[Groups]:
    """Numbers that are equal for pictures of one patient and for near copies, in all sets.

    Args:
        groups: patients of each set, numbered alike; -1 for unknown.
        edges: for two sets by place, the candidates of the first in the second.
        sizes: pictures of each set.
    """
    offsets = np.cumsum([0, *sizes])
    first, second = [], []
    for place, numbers in enumerate(groups):
        if numbers is not None:
            rows = np.flatnonzero(numbers >= 0)
            first.append(rows + offsets[place])
            second.append(numbers[rows] + offsets[-1])  # patients are further nodes
    for source, target, candidates in edges:
        rows, columns = np.nonzero(candidates.copy)
        first.append(rows + offsets[source])
        second.append(candidates.index[rows, columns] + offsets[target])
    a = np.concatenate(first) if first else np.empty(0, np.int64)
    b = np.concatenate(second) if second else np.empty(0, np.int64)
    nodes = int(max(offsets[-1], b.max(initial=-1) + 1))
    graph = coo_array((np.ones(len(a), np.bool_), (a, b)), shape=(nodes, nodes))
    labels = np.asarray(connected_components(graph, directed=False)[1], np.int64)
    return [labels[offsets[i] : offsets[i + 1]] for i in range(len(sizes))]


def feature_candidates(queries: Array, points: Array, wanted: int, same: bool) -> Candidates:
    """The nearest training pictures by cosine distance of features."""
    wanted = min(wanted, len(points) - same)
    distance, index = nearest(queries, points, wanted, exclude_self=same, metric="cosine")
    return Candidates(index, distance)


def _centers(features: Array, count: int, seed: int) -> Array | None:
    """Directions `(cells, features)` of k-means clusters of training features; None for one."""
    if count < 2:
        return None
    rows = np.arange(len(features))
    if len(rows) > _CLUSTERED:
        rows = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_CLUSTERED])
    chosen = np.asarray(features[rows], np.float32)
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    count = min(count, len(np.unique(chosen, axis=0)))
    if count < 2:
        return None
    with threadpool_limits(1):  # too small for threads, which only wait for each other
        clusters = KMeans(count, n_init=3, random_state=seed).fit(chosen)
    return np.asarray(clusters.cluster_centers_)
