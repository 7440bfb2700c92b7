"""Copies of training pictures: a privacy check of a generated set.

The question is whether generated pictures are closer to training pictures than pictures of other
people are. So the distance d_g of each generated picture to its nearest training picture is
ranked among the distances of real pictures that were not trained on (`held-out`), or of training
pictures to those of other patients (`leave-one-out`). Two spaces are looked at:

- pixels: thumbnails, up to flips, turns and small shifts; see `_look_alikes.py`;
- features of any network, by cosine. An embedding made to tell patients apart (Dar et al. 2024;
  Packhäuser et al. 2022) is given as `--features` and needs nothing else here.

The searches are in `_nearest_training.py`, the tests in `_copying.py`. Pictures of one patient, and
near copies of each other inside the real sets, are never compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tfgan_med.metrics._copying import (
    FEWEST_IN_CELL,
    LEVEL,
    Verdict,
    binomial_interval,
    by_cell,
    data_copying,
    judge,
    likeness,
    more_often,
)
from tfgan_med.metrics._nearest_training import LISTED, Sets
from tfgan_med.metrics.base import (
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

Calibration = Literal["held-out", "leave-one-out"]

ALARM = 0.01
"""p-value below which a share is called higher than expected."""
COPYING = -3.0
"""Data-copying statistic below which a generator is called a copier (Meehan et al. 2020)."""

_FEWEST_HELD_OUT = 20


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
        sets = Sets(real, fake, held_out, context, transforms=self.transforms, shift=self.shift)
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

    def _flagged(self, sets: Sets, space: str, calibration: Calibration) -> Measured:
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
        low, high = binomial_interval(count, total)
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

    def _copies(self, sets: Sets, calibration: Calibration) -> Measured:
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
            for row in rows[:LISTED].tolist()
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
                "p_value": more_often(len(rows), len(copies), int(reference.sum()), len(reference)),
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

    def _data_copying(self, sets: Sets, calibration: Calibration, seed: int) -> Measured:
        generated, reference = sets.chosen("features")
        known = np.isfinite(reference.distance)
        settings = {**self._settings(calibration), "max_cells": self.max_cells}
        counts = (len(generated.distance), int(known.sum()))
        if min(counts) < FEWEST_IN_CELL:
            return Measured(
                "data_copying_z",
                None,
                better="neither",
                settings=settings,
                notes=(
                    f"Not defined: {counts[0]} generated and {counts[1]} reference images; "
                    f"{FEWEST_IN_CELL} of each are needed.",
                ),
            )
        alike = likeness(reference.distance[known], sets.reference_kin[known])
        alike *= 2.0 if calibration == "leave-one-out" else 1.0
        whole = data_copying(generated.distance, reference.distance[known], alike)
        most = min(self.max_cells, min(counts) // (2 * FEWEST_IN_CELL))
        cells = sets.cells(most, seed)
        parts = by_cell(generated.distance, reference.distance, *cells, alike) if cells else []
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

    def _generated_duplicates(self, sets: Sets) -> Measured:
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

    def _notes(self, sets: Sets, calibration: Calibration) -> tuple[str, ...]:
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
