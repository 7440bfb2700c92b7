"""Copies of training pictures: a privacy check of a generated set.

The question is whether generated pictures are closer to training pictures than pictures of other
people are. So the distance d_g of each generated picture to its nearest training picture is
ranked among the distances of real pictures that were not trained on (`held-out`), or of training
pictures to those of other patients (`leave-one-out`). Two spaces are looked at:

- pixels: thumbnails, up to flips, turns and small shifts; see `_look_alikes.py`;
- features of any network, by cosine. An embedding made to tell patients apart (Dar et al. 2024;
  Packhäuser et al. 2022) is given as `--features` and needs nothing else here.

Pictures of one patient, and near copies of each other inside the real sets, count as kin: they are
never compared with each other for calibration, nor as first and second neighbor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import betabinom, binomtest, hypergeom, mannwhitneyu, norm, rankdata
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from tfgan_med.metrics import _look_alikes as looks
from tfgan_med.metrics._look_alikes import Candidates, Groups, LookAlikes
from tfgan_med.metrics.base import (
    Array,
    Context,
    Interval,
    Measured,
    Metric,
    Need,
    Side,
    checked_features,
    require,
    require_same_dimension,
)
from tfgan_med.ops.neighbors import nearest

Floats = npt.NDArray[np.float64]
Calibration = Literal["held-out", "leave-one-out"]

LEVEL = 0.01
"""Share of honest pictures that may be flagged."""
RATIO = 0.5
"""Flagged too if so much closer to the first training picture than to the second."""
ALARM = 0.01
"""p-value below which a share is called higher than expected."""
COPYING = -3.0
"""Data-copying statistic below which a generator is called a copier (Meehan et al. 2020)."""

_PAIRS = 50
_FEWEST_HELD_OUT = 20
_FEWEST_IN_CELL = 20
_CLUSTERED = 5000  # training pictures that k-means sees


class Memorization(Metric):
    """Copies of training pictures among generated ones; `real` must be the training set.

    Cost: the searches grow with the product of the numbers of pictures. Memory: a kilobyte for
    each picture and 350 MB at most, beyond features and thumbnails.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features", "thumbnails"})
    of_training: ClassVar[bool] = True

    transforms: Literal["none", "flips", "all"] = "flips"
    """What a copy may have gone through, in pixels: `flips` left to right; `all` flips and
    quarter turns, for smears, skin and parts without an up."""
    shift: int = Field(default=2, ge=0, le=4)
    """Largest shift of a copy in pixels, in 64ths of the picture, 0 to 4."""
    calibration: Literal["auto", "held-out", "leave-one-out"] = "auto"
    """Distances to compare with: of held-out pictures, or of each training picture to the others
    (to other patients, where known). `auto` takes 20 held-out pictures or more where given."""
    max_cells: int = Field(default=20, ge=1)
    """Clusters of the training set for the data-copying test, at most; 1 for one test."""

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """See the base class.

        Raises:
            ValueError: fewer than 2 training pictures or no generated one; features that are not
                finite or without a direction.
        """
        self._check(real, fake, context)
        calibration, held_out = self._calibration(context.held_out)
        sets = _Sets(self, real, fake, held_out, context)
        return [
            *(self._flagged(sets, space, calibration) for space in ("pixels", "features")),
            self._copies(sets, calibration),
            self._data_copying(sets, calibration, context.seed),
            self._generated_duplicates(sets),
        ]

    def _check(self, real: Side, fake: Side, context: Context) -> None:
        if len(real) < 2 or len(fake) < 1:
            raise ValueError(
                f"The training set has {len(real)} and the generated set {len(fake)} image(s); "
                "looking for copies needs at least 2 and 1. Add images."
            )
        sides = [(real, "training", 2), (fake, "generated", 1)]
        sides += [(context.held_out, "held-out", 1)] if context.held_out else []
        for side, whose, fewest in sides:
            features = checked_features(require(side.features, "features"), whose, fewest)
            require_same_dimension(require(real.features, "features").shape[1], features.shape[1])
            require(side.thumbnails, "thumbnails")

    def _calibration(self, held_out: Side | None) -> tuple[Calibration, Side | None]:
        count = len(held_out) if held_out else 0
        if self.calibration == "held-out" and not count:
            raise ValueError(
                "Calibration by held-out pictures needs pictures that were not trained on, and "
                "there are none. Name them, or set calibration to leave-one-out."
            )
        usable = count >= _FEWEST_HELD_OUT or self.calibration == "held-out"
        if usable and self.calibration != "leave-one-out":
            return "held-out", held_out
        return "leave-one-out", None

    def _flagged(self, sets: _Sets, space: str, calibration: Calibration) -> Measured:
        generated, reference = sets.chosen(space)
        uses: Literal["features", ""] = "features" if space == "features" else ""
        name, settings = f"memorization_flagged_{space}", self._settings(calibration)
        known = int(np.isfinite(reference.distance).sum())
        if known < 2:
            return Measured(
                name,
                None,
                settings=settings,
                uses=uses,
                notes=(
                    f"Not defined: {known} of {len(reference.distance)} {sets.reference_name} have "
                    "a real picture to compare with that is neither of the same patient nor a "
                    "near copy. Add different real pictures.",
                ),
            )
        verdict = judge(
            generated,
            reference,
            sets.reference_kin,
            leave_one_out=calibration == "leave-one-out",
        )
        count, total = int(verdict.flagged.sum()), len(verdict.flagged)
        low, high = _binomial_interval(count, total)
        rows = np.flatnonzero(verdict.flagged)
        return Measured(
            name,
            count / total,
            interval=Interval(low, high, 0.95, "Clopper-Pearson, for more generated images", 0),
            reference=verdict.expected,
            reference_of=f"expected of honest images, from {known} reference images",
            settings=settings,
            uses=uses,
            details={
                "p_value": verdict.p_value,
                "flagged": count,
                "flagged_by_rank": int(verdict.by_rank.sum()),
                "flagged_by_ratio": int(verdict.by_ratio.sum()),
                "reference_by_ratio": verdict.reference_by_ratio,
                "reference_images": known,
                "independent_references": round(verdict.references, 1),
                "reference_median": float(np.nanmedian(reference.distance)),
                "calibrated_by": calibration,
                "training_groups": sets.groups_of(generated.index[rows]),
                "pairs": sets.pairs(space, generated, reference, verdict.p_values),
            },
            notes=(*self._notes(sets, calibration), _resolution(known, verdict)),
        )

    def _copies(self, sets: _Sets, calibration: Calibration) -> Measured:
        copies = np.asarray(sets.fake_looks.copy.any(axis=1))
        reference = np.asarray(sets.reference_looks.copy.any(axis=1))
        rows = np.flatnonzero(copies)
        table = [
            {
                "generated": sets.fake.files[row],
                "training": sets.real.files[sets.fake_looks.index[row, column]],
                "group": sets.group_of(sets.fake_looks.index[row, column]),
                "distance": float(sets.fake_looks.distance[row, column]),
            }
            for row in rows[:_PAIRS].tolist()
            for column in [int(sets.fake_looks.copy[row].argmax())]
        ]
        return Measured(
            "memorization_copies",
            float(copies.mean()),
            reference=float(reference.mean()),
            reference_of=f"near copies of training images among {sets.reference_name}",
            settings=self._settings(calibration),
            uses="",
            details={
                "copies": len(rows),
                "p_value": _more_often(
                    len(rows), len(copies), int(reference.sum()), len(reference)
                ),
                "reference_copies": int(reference.sum()),
                "reference_images": len(reference),
                "training_duplicates": sets.training_duplicates(),
                "training_groups": sets.groups_of(
                    sets.fake_looks.index[rows, sets.fake_looks.copy[rows].argmax(axis=1)]
                ),
                "copies_listed": table,
            },
            notes=self._notes(sets, calibration),
        )

    def _data_copying(self, sets: _Sets, calibration: Calibration, seed: int) -> Measured:
        generated, reference = sets.chosen("features")
        known = np.isfinite(reference.distance)
        settings = {**self._settings(calibration), "max_cells": self.max_cells}
        counts = (len(generated.distance), int(known.sum()))
        if min(counts) < _FEWEST_IN_CELL:
            return Measured(
                "data_copying_z",
                None,
                better="neither",
                settings=settings,
                notes=(
                    f"Not defined: {counts[0]} generated and {counts[1]} reference images; "
                    f"{_FEWEST_IN_CELL} of each are needed.",
                ),
            )
        alike = likeness(reference.distance[known], sets.reference_kin[known])
        alike *= 2.0 if calibration == "leave-one-out" else 1.0
        whole = data_copying(generated.distance, reference.distance[known], alike)
        others = sets.reference_features
        cells = _cells(
            require(sets.real.features, "features"),
            min(self.max_cells, min(counts) // (2 * _FEWEST_IN_CELL)),
            seed,
        )
        parts = []
        if cells is not None:
            mine = nearest(require(sets.fake.features, "features"), cells, 1, metric="cosine")[1]
            theirs = nearest(others, cells, 1, metric="cosine")[1]
            parts = _by_cell(
                generated.distance, reference.distance, mine[:, 0], theirs[:, 0], alike
            )
        value = whole.z
        if len(parts) > 1:
            weights = [part["reference_images"] for part in parts]
            value = float(np.average([part["z"] for part in parts], weights=weights))
        else:
            parts = []
        return Measured(
            "data_copying_z",
            value,
            better="neither",
            reference=0.0,
            reference_of="generated images as far from training images as real ones",
            settings=settings,
            details={
                "u": whole.u,
                "z": whole.z,
                "p_value": whole.p_value,
                "cells": parts,
                "reference_images": counts[1],
                "calibrated_by": calibration,
            },
            notes=(
                f"Below {COPYING:g}: generated images are closer to training images than "
                f"{sets.reference_name} are, as a whole; far above 0: they are farther away "
                "(underfitting). A few copies among many images do not move it.",
            ),
        )

    def _generated_duplicates(self, sets: _Sets) -> Measured:
        name = "generated_duplicates"
        settings = {"transforms": self.transforms, "shift": self.shift}
        if len(sets.fake) < 2:
            note = "Not defined: one generated image has no other to be compared with."
            return Measured(name, None, settings=settings, uses="", notes=(note,))
        copy = np.asarray(sets.fake_to_fake.copy.any(axis=1))
        note = "Images with a near copy inside the generated set: the generator repeats itself."
        return Measured(
            name,
            float(copy.mean()),
            reference=float(sets.real_looks.copy.any(axis=1).mean()),
            reference_of="the same among the training images",
            settings=settings,
            uses="",
            details={"duplicates": int(copy.sum())},
            notes=(note,) if copy.any() else (),
        )

    def _settings(self, calibration: Calibration) -> dict[str, Any]:
        return {"transforms": self.transforms, "shift": self.shift, "calibration": calibration}

    def _notes(self, sets: _Sets, calibration: Calibration) -> tuple[str, ...]:
        notes = [
            "No flag is no proof of privacy: only whole images that look like one training image "
            "are found, not copied parts or findings. FID, precision and recall cannot see copies.",
            f"Calibrated by {sets.reference_name}"
            + ("." if calibration == "held-out" else "; held-out real images are better."),
        ]
        if sets.real.groups is None:
            notes.append(
                "Patients are not known: images of one patient make the calibration blind, and "
                "training images are listed by file only."
            )
        else:
            notes.append(
                "`training_groups` names the patients whose images were found, to be looked at "
                "and withdrawn before anything is released."
            )
        duplicates = sets.training_duplicates()["images"]
        if duplicates:
            notes.append(
                f"{duplicates} training images have a near copy in the training set; they are not "
                "compared with each other. Generators copy repeated images first: remove them."
            )
        leaked = int(sets.reference_looks.copy.any(axis=1).sum())
        if calibration == "held-out" and leaked:
            notes.append(
                f"{leaked} held-out images are near copies of training images and are compared "
                "with other ones only. Check how the sets were divided."
            )
        return tuple(notes)


def is_alarming(measured: Sequence[Measured]) -> str | None:
    """What was found, for people who may not release copies; None if nothing was.

    One sentence for near copies (more than among real images, where these have any), shares of
    flagged images with a p-value below 0.01, and a data-copying statistic below -3. In
    simulations these accused at most 1.5, 1.5 and 1 of 100 honest sets, mostly fewer
    (benchmarks/memorization.py). A few copies with another brightness among many pictures are
    beyond a test of shares: look at `details["pairs"]` too.
    """
    found = []
    for one in measured:
        details = one.details
        if one.value is None:
            continue
        if one.name == "memorization_copies" and details["copies"]:
            if not details["reference_copies"] or details["p_value"] < ALARM:
                found.append(f"{details['copies']} near copies of training images")
        elif one.name.startswith("memorization_flagged_"):
            if details["p_value"] < ALARM:
                found.append(
                    f"{details['flagged']} images closer to training images in "
                    f"{one.name.rpartition('_')[2]} than expected (p = {details['p_value']:.1g})"
                )
        elif one.name == "data_copying_z" and one.value < COPYING:
            found.append(f"a data-copying statistic of {one.value:.1f}, below {COPYING:g}")
    return f"Signs of memorization: {'; '.join(found)}." if found else None


# Distances to judge -------------------------------------------------------------------------------


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


class _Sets:
    """The sets at hand and who is near whom, each search done once."""

    def __init__(
        self, metric: Memorization, real: Side, fake: Side, held_out: Side | None, context: Context
    ) -> None:
        self.real, self.fake, self.held_out = real, fake, held_out
        self._known: dict[str, int] = {}
        self.groups = looks.numbered(real.groups, self._known)
        held_groups = looks.numbered(held_out.groups, self._known) if held_out else None

        def compare(what: str, queries: Side, points: Side, groups: Groups | None) -> LookAlikes:
            return looks.look_alikes(
                require(queries.thumbnails, "thumbnails"),
                require(points.thumbnails, "thumbnails"),
                transforms=metric.transforms,
                shift=metric.shift,
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
            "pairs": [[self.real.files[a], self.real.files[b]] for a, b in pairs[:_PAIRS]],
        }

    def pairs(
        self, space: str, generated: Chosen, reference: Chosen, p_values: Floats
    ) -> list[dict[str, Any]]:
        """The generated images closest to a training image, for the list and the picture sheet."""
        median = float(np.nanmedian(reference.distance))
        table = []
        for row in np.argsort(generated.distance, kind="stable")[:_PAIRS].tolist():
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


# Tests --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Which generated images are flagged, and whether these are more than chance has.

    Attributes:
        by_rank: `(images,)` closer to the training set than nearly all reference images.
        by_ratio: much closer to one training image than to any other.
        p_values: `(images,)` the conformal ones of the ranks.
        expected: share that `by_rank` flags of honest images.
        p_value: of both shares together.
        reference_by_ratio: share of reference images that the ratio flags.
        references: reference images, those that are alike counted as fewer.
    """

    by_rank: npt.NDArray[np.bool_]
    by_ratio: npt.NDArray[np.bool_]
    p_values: Floats
    expected: float
    p_value: float
    reference_by_ratio: float
    references: float

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """By either rule."""
        return self.by_rank | self.by_ratio


def judge(
    generated: Chosen, reference: Chosen, reference_kin: Groups, *, leave_one_out: bool
) -> Verdict:
    """Flag generated images and test their number.

    By rank: an image is flagged if its conformal p-value is at most `k / (n + 1)` with n
    reference images, k the largest number that keeps this below 0.01 but at least 1 (2 for
    leave-one-out); so few references allow no finer share than `1 / (n + 1)`. Images of one
    patient are alike and n counts as fewer, see `likeness`. Under exchangeability the number
    flagged of m follows a beta-binomial law with parameters (m, k, n + 1 - k); a binomial one
    would forget that the threshold is estimated. In leave-one-out the smallest distances come in
    pairs (i is nearest to j and j to i), which count for half as many: (m, k/2, (n + 1 - k)/2).

    By ratio: the share flagged is compared with that of the reference images by Fisher's test.
    The p-value of both is twice the smaller one (Bonferroni). For equal populations it was below
    0.01 in 0 to 1.5 % of 400 repetitions, with 20 to 200 references, in either calibration; that
    of a binomial test of the same count in 1 to 27 % (benchmarks/memorization.py).

    Args:
        reference: images without a distance (NaN) are left out.
        reference_kin: `(reference images,)` equal numbers for images of one patient.
        leave_one_out: the reference images are the training images themselves, in order.
    """
    known = np.isfinite(reference.distance)
    alike = likeness(reference.distance[known], reference_kin[known])
    m, n = len(generated.distance), float(known.sum()) / alike
    p_values = conformal_p_values(
        generated.distance,
        reference.distance,
        alike,
        generated.index if leave_one_out else None,
    )
    pairs = 2 if leave_one_out else 1
    rank = max(pairs, int(LEVEL * (n + 1)))
    by_rank = p_values <= (rank + 1e-9) / (n + 1)
    by_rank_p = float(
        betabinom.sf(by_rank.sum() - 1, m, rank / pairs, max(n + 1 - rank, 1e-9) / pairs)
    )

    theirs, ours = int(reference.by_ratio[known].sum()), int(generated.by_ratio.sum())
    independent = int(n / pairs)
    expected = min(int(np.ceil(theirs / alike / pairs)), independent)
    by_ratio_p = _more_often(ours, m, expected, independent)
    return Verdict(
        by_rank=by_rank,
        by_ratio=generated.by_ratio,
        p_values=p_values,
        expected=min(rank / (n + 1), 1.0),
        p_value=min(1.0, 2.0 * min(by_rank_p, by_ratio_p)),
        reference_by_ratio=theirs / int(known.sum()),
        references=n,
    )


def conformal_p_values(
    distances: Floats,
    reference: Floats,
    alike: float = 1.0,
    nearest_rows: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """`(1 + #{reference <= d}) / (1 + n)`: at most p with probability p for an honest image.

    From distances inside the training set (leave-one-out) this would be too small. All n + 1
    images must be treated alike: with the generated one among them, its nearest training image
    has a neighbor as close as it, so that one counts as close whatever its own distance.

    Args:
        distances: `(images,)` of generated images to the training set.
        reference: `(n,)` of real images that are as far from it as honest ones; NaN for none.
        alike: how many reference images count as one.
        nearest_rows: for leave-one-out, the nearest training image of each generated one.
    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, section 2.2.
    """
    known = np.isfinite(reference)
    closer = np.searchsorted(np.sort(reference[known]), distances, side="right") / alike
    if nearest_rows is not None:
        own = reference[nearest_rows]
        closer = closer + (np.isfinite(own) & (own > distances))
    p_values = (1.0 + closer) / (1.0 + known.sum() / alike)
    return np.asarray(np.minimum(p_values, 1.0), np.float64)


def likeness(distances: Floats, kin: Groups) -> float:
    """How many reference images count as one, as images of one patient are alike.

        1 + (images of a patient - 1) ρ

    ρ is the correlation of ranked distances within patients (one-way analysis of variance), plus
    its standard error, since few patients tell little about it. The design effect of cluster
    samples: Kish, Survey Sampling, 1965; the error is the usual one for many patients.

    Args:
        distances, kin: `(images,)`.
    Returns:
        1 for independent images, up to the mean number of images of a patient.
    """
    _, patient, sizes = np.unique(kin, return_inverse=True, return_counts=True)
    images, patients = len(kin), len(sizes)
    if patients == images:
        return 1.0
    typical_size = float((sizes**2).sum()) / images  # of the patient of an image
    if patients == 1:
        return typical_size
    ranks = rankdata(distances)
    means = np.bincount(patient, ranks) / sizes
    within = float(((ranks - means[patient]) ** 2).sum()) / (images - patients)
    between = float((sizes * (means - ranks.mean()) ** 2).sum()) / (patients - 1)
    size = (images - typical_size) / (patients - 1)
    total = between + (size - 1) * within
    if size <= 1 or total <= 0:
        return typical_size
    correlation = max((between - within) / total, 0.0)
    error = (1 - correlation) * (1 + (size - 1) * correlation)
    error *= float(np.sqrt(2 / (size * (size - 1) * (patients - 1))))
    return 1.0 + (typical_size - 1.0) * min(correlation + error, 1.0)


def _more_often(count: int, total: int, reference: int, reference_total: int) -> float:
    """One-sided p-value of Fisher's exact test: `count / total` above that of the reference."""
    both = total + reference_total
    return float(hypergeom.sf(count - 1, both, count + reference, total))


def _binomial_interval(count: int, total: int) -> tuple[float, float]:
    ends = binomtest(count, total).proportion_ci(0.95, method="exact")
    return float(ends.low), float(ends.high)


def _resolution(images: int, verdict: Verdict) -> str:
    count = f"{images} reference images"
    if verdict.references < images:
        count += f" (worth {verdict.references:.0f}, as images of one patient are alike)"
    share = f"{100 * verdict.expected:.2g} % of honest images"
    if verdict.expected <= LEVEL:
        return f"With {count}, {share} are flagged."
    return (
        f"With {count} no share below {share} can be resolved: an image is flagged if it is "
        "closer than all of these."
    )


@dataclass(frozen=True)
class Copying:
    """The data-copying test: Mann-Whitney's U, its standardized form and its p-value."""

    u: float
    z: float
    p_value: float


def data_copying(generated: Floats, reference: Floats, alike: float = 1.0) -> Copying:
    """Are generated images closer to the training set than real images that it does not hold?

        Z = (U - (n m / 2 - 1 / 2)) / √(n m (n + a m + 1) / 12)

    U counts the pairs in which the generated image is farther away; ties count half. The paper
    has a = 1; its Z is too large for reference images that are not independent.

    Args:
        generated: `(m,)` distances to the nearest training image.
        reference: `(n,)` the same of real images.
        alike: a, how many reference images count as one: `likeness`, twice that for leave-one-out
            (simulated variances were up to 1.7 times those of independent images).
    Returns:
        Z is about standard normal for honest images; far below 0 for copies, far above 0 for
        images unlike the training set. The p-value is one-sided, for copying, without a
        continuity correction; for a = 1 it is corrected for ties.
    Source: Meehan, Chaudhuri, Dasgupta 2020, arXiv:2004.05675, section 3.1.
    """
    m, n = len(generated), len(reference)
    u, p = mannwhitneyu(
        generated, reference, alternative="less", method="asymptotic", use_continuity=False
    )
    error = np.sqrt(n * m * (n + alike * m + 1) / 12)
    z = (float(u) - (n * m / 2 - 0.5)) / error
    if alike != 1.0:
        p = norm.cdf((float(u) - n * m / 2) / error)
    return Copying(float(u), float(z), float(p) if np.isfinite(p) else 1.0)


def _cells(features: Array, count: int, seed: int) -> Array | None:
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


def _by_cell(
    generated: Floats,
    reference: Floats,
    generated_cells: npt.NDArray[np.int64],
    reference_cells: npt.NDArray[np.int64],
    alike: float,
) -> list[dict[str, Any]]:
    """The test in each cell that has enough of both."""
    known = np.isfinite(reference)
    parts = []
    for cell in range(int(reference_cells.max()) + 1):
        ours = generated[generated_cells == cell]
        theirs = reference[known & (reference_cells == cell)]
        if min(len(ours), len(theirs)) >= _FEWEST_IN_CELL:
            test = data_copying(ours, theirs, alike)
            parts.append(
                {"z": test.z, "generated_images": len(ours), "reference_images": len(theirs)}
            )
    return parts
