"""LPIPS diversity: how different generated pictures look from each other.

Perceptual distances are squared Euclidean distances of embeddings (see `networks/lpips.py`), so
all here is NumPy on embeddings. They are large, up to megabytes for a picture; sets are embedded
in blocks, some of them more than once, and never held as a whole.

Zhang et al., arXiv:1801.03924 (LPIPS); Ojha et al., arXiv:2104.06820, section 4 (within clusters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import t as student

from tfgan_med.metrics.base import (
    Better,
    Context,
    Interval,
    Measured,
    Metric,
    Need,
    Progress,
    Side,
    require,
    require_same_dimension,
)
from tfgan_med.ops.pairs import distinct_pairs, jackknife_error

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Pictures = npt.NDArray[np.uint8]  # (images, height, width, 3)
Embed = Callable[[Pictures], npt.NDArray[np.float32]]

_BLOCK_BYTES = 80 * 2**20  # of embeddings held at once; twice where two blocks meet
_CHUNK = 2**22  # numbers converted to float64 at once
_RESOLUTION = 1e-12  # of a distance against the lengths of its vectors: rounding of float32 inputs
_FEWEST_FOR_INTERVAL = 10
_STEP = "perceptual distances"
_SPREAD = "population standard deviation over groups with 2 or more images"


def _silent(what: str, done: int, total: int) -> None:
    """No progress."""


# Distances ----------------------------------------------------------------------------------------


def pairwise(first: Array, second: Array | None = None) -> Matrix:
    """Squared Euclidean distances of all rows, in float64.

    Args:
        first: `(n, numbers)`.
        second: `(m, numbers)`; by default `first` itself.
    Returns:
        `(n, m)`, never negative, exactly 0 for equal rows.
    Raises:
        ValueError: other numbers per row in `second`.
    """
    other = first if second is None else second
    require_same_dimension(first.shape[1], other.shape[1])
    products = np.zeros((len(first), len(other)))
    lengths, other_lengths = np.zeros(len(first)), np.zeros(len(other))
    step = max(64, _CHUNK // max(1, len(first) + len(other)))
    for start in range(0, first.shape[1], step):
        a = first[:, start : start + step].astype(np.float64)
        b = a if second is None else other[:, start : start + step].astype(np.float64)
        products += a @ b.T
        lengths += np.einsum("ij,ij->i", a, a)
        other_lengths += np.einsum("ij,ij->i", b, b)
    both = lengths[:, None] + other_lengths
    distances: Matrix = both - 2.0 * products
    distances[distances <= _RESOLUTION * both] = 0.0
    return distances


def all_pairs(
    embed: Embed,
    first: Pictures,
    second: Pictures | None = None,
    progress: Progress = _silent,
) -> Matrix:
    """Perceptual distances of all pairs, with bounded memory for embeddings.

    Pictures that do not fit in one block of embeddings (about 80 MB) are embedded again for each
    block of the other set. On AlexNet 650 pictures of 64 x 64 pixels fit, or 32 of 256 x 256; all
    pairs of 1000 of these embed each about 16 times.

    Args:
        embed: pictures to embeddings, as `networks.lpips.LPIPS.embed`.
        first, second: `(images, height, width, 3)` uint8; without `second` the pairs within
            `first`.
        progress: called with the pairs done and in all.
    Returns:
        `(n, m)` float64; symmetric with zeros on the diagonal without `second`.
    """
    other = first if second is None else second
    distances = np.zeros((len(first), len(other)))
    if distances.size == 0:
        return distances
    size = _block_size(embed, first)
    columns: tuple[int, Array] | None = None  # the last block of the other set
    for number, top in enumerate(range(0, len(first), size)):
        rows = slice(top, top + size)
        held = embed(first[rows])
        lefts = range(top if second is None else 0, len(other), size)
        for left in lefts if number % 2 == 0 else reversed(lefts):  # to and fro: the last is there
            if second is None and left == top:
                distances[rows, rows] = pairwise(held)
                continue
            if columns is None or columns[0] != left:
                columns = None  # free it before the next takes its place
                columns = (left, embed(other[left : left + size]))
            block = pairwise(held, columns[1])
            distances[rows, left : left + size] = block
            if second is None:
                distances[left : left + size, rows] = block.T
        del held
        progress(_STEP, min(top + size, len(first)) * len(other), distances.size)
    return distances


def pair_distances(
    embed: Embed, pictures: Pictures, pairs: Rows, progress: Progress = _silent
) -> Matrix:
    """Perceptual distances of chosen pairs, with bounded memory for embeddings.

    Args:
        embed: pictures to embeddings.
        pictures: `(images, height, width, 3)` uint8.
        pairs: `(pairs, 2)` rows of `pictures`. If the pictures do not fit in two blocks of
            `all_pairs`, up to pairs + pictures are embedded, fewer if pairs are in order.
        progress: called with the pairs done and in all.
    Returns:
        `(pairs,)` float64.
    """
    distances = np.empty(len(pairs))
    if len(pairs) == 0:
        return distances
    for part in _parts(pairs, 2 * _block_size(embed, pictures)):
        used, places = np.unique(pairs[part], return_inverse=True)
        embedded = embed(pictures[used])
        distances[part] = _distances_of(embedded, places.reshape(-1, 2))
        del embedded  # before the next part takes as much
        progress(_STEP, part.stop, len(pairs))
    return distances


def _distances_of(embedded: Array, pairs: Rows) -> Matrix:
    values = np.empty(len(pairs))
    for i, (a, b) in enumerate(pairs):
        difference = embedded[a] - embedded[b]
        values[i] = np.square(difference, out=difference).sum(dtype=np.float64)
    return values


def _parts(pairs: Rows, most: int) -> Iterator[slice]:
    """Consecutive pairs that have at most so many pictures."""
    start, seen = 0, set[int]()
    for i, pair in enumerate(pairs.tolist()):
        if len(seen.union(pair)) > most:
            yield slice(start, i)
            start, seen = i, set()
        seen.update(pair)
    yield slice(start, len(pairs))


def _block_size(embed: Embed, pictures: Pictures) -> int:
    """Pictures whose embeddings fit in one block."""
    dimension = int(embed(pictures[:1]).shape[1])
    return max(1, _BLOCK_BYTES // (4 * dimension))


# Diversity ----------------------------------------------------------------------------------------


def diversity(values: Matrix, pairs: Rows, level: float = 0.95) -> tuple[float, Interval | None]:
    """Mean distance of pairs and its interval.

    The interval covers other pictures from the same source, as many as here; images are left out
    one after the other, because pairs that share one are not independent. Images that belong
    together (several of a patient) make it too narrow.

    Args:
        values: `(pairs,)` distances.
        pairs: `(pairs, 2)` rows of a set, as from `distinct_pairs`.
    Returns:
        The mean, and the interval if there are at least 10 images.
    """
    mean, count = float(values.mean()), len(np.unique(pairs))
    if count < _FEWEST_FOR_INTERVAL:
        return mean, None
    half = float(student.ppf(0.5 + level / 2, count - 1)) * jackknife_error(values, pairs)
    return mean, Interval(
        low=max(mean - half, 0.0),
        high=mean + half,
        level=level,
        method="jackknife over images, Student's t; for other images of the same source",
        repeats=count,
    )


@dataclass(frozen=True)
class Clusters:
    """Diversity inside groups of generated images that are nearest to the same real image.

    Attributes:
        mean: of the groups' mean distances; None if no group has two members.
        spread: population standard deviation over these groups.
        sizes: generated images of each real image.
        means: mean distance inside each group; None for groups of fewer than two.
    """

    mean: float | None
    spread: float | None
    sizes: tuple[int, ...]
    means: tuple[float | None, ...]


def intra_cluster_diversity(fake: Array, real: Array) -> Clusters:
    """Diversity that counts only variants of one real image, from embeddings that fit in memory.

    A generator that repeats each of ten training images with the same fidelity has the diversity
    of the training set and none inside the groups.

    Args:
        fake: `(n, numbers)` embeddings of generated images.
        real: `(m, numbers)` of real ones; meant for 10 to 100.
    Source: Ojha et al., arXiv:2104.06820, section 4, "intra-LPIPS". There all pairs of a group are
        taken; here at most 1000 of each.
    """
    nearest = pairwise(fake, real).argmin(axis=1)
    pairs, groups = pairs_within(nearest)
    return of_groups(_distances_of(fake, pairs), groups, nearest, len(real))


def pairs_within(nearest: Rows) -> tuple[Rows, Rows]:
    """Pairs of images with the same nearest one: `(pairs, 2)` rows and `(pairs,)` groups."""
    pairs, groups = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for group in np.unique(nearest):
        members = np.flatnonzero(nearest == group)
        if len(members) > 1:
            pairs.append(members[distinct_pairs(len(members))])
            groups.append(np.full(len(pairs[-1]), group))
    return np.concatenate(pairs), np.concatenate(groups)


def of_groups(values: Matrix, groups: Rows, nearest: Rows, count: int) -> Clusters:
    """Means over groups from distances of pairs.

    Args:
        values, groups: `(pairs,)` distance and group of each pair.
        nearest: `(n,)` group of each image.
        count: groups in all.
    """
    sums = np.bincount(groups, values, count)
    pairs = np.bincount(groups, minlength=count)
    inside = sums[pairs > 0] / pairs[pairs > 0]
    return Clusters(
        mean=float(inside.mean()) if len(inside) else None,
        spread=float(inside.std()) if len(inside) else None,
        sizes=tuple(np.bincount(nearest, minlength=count).tolist()),
        means=tuple(
            float(total / number) if number else None
            for total, number in zip(sums, pairs, strict=True)
        ),
    )


# The metric ---------------------------------------------------------------------------------------


class LPIPS(Metric):
    """How different generated pictures look from each other, and from variants of one real one.

    `lpips_diversity` is the mean distance of pairs of generated images, beside that of the real
    ones. It does not depend on how many there are. More is better up to the real value: beyond
    it, noise and artefacts make pictures differ too, so that there neither way is better.
    `lpips_intra_cluster` is the mean distance of generated images with the same nearest real
    image; it uncovers copies of a small training set, which are as diverse as the set.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"pictures", "perceptual"})

    images: int = Field(1000, ge=2, le=10_000)
    """Generated images looked at, and real ones for comparison."""

    pairs: int = Field(1000, ge=1, le=100_000)
    """Pairs drawn; sets of up to 45 images give all theirs."""

    references: int = Field(100, ge=1, le=1000)
    """Real images that generated ones are assigned to; a sample of larger sets."""

    @property
    def pictures_needed(self) -> int:
        """Pictures of each side it wants to see as pixels."""
        return self.images

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """Diversity of generated images, and inside their groups.

        Raises:
            ValueError: fewer than 2 generated images, or no real one.
            UserError: pictures smaller than 64 pixels.
        """
        if context.perceptual is None:
            raise TypeError("The perceptual network was not loaded.")
        real_pictures = require(real.pictures, "real pictures")[: self.images]
        fake_pictures = require(fake.pictures, "generated pictures")[: self.images]
        if len(fake_pictures) < 2 or len(real_pictures) < 1:
            raise ValueError(
                f"LPIPS needs 2 generated images and a real one: received {len(fake_pictures)} "
                f"and {len(real_pictures)}. Add images."
            )
        embed = context.perceptual.embed
        return [
            self._diversity(embed, real_pictures, fake_pictures, fake, context.progress),
            self._intra_cluster(embed, real_pictures, fake_pictures, context.progress),
        ]

    def _diversity(
        self, embed: Embed, real: Pictures, fake: Pictures, side: Side, progress: Progress
    ) -> Measured:
        value, interval = self._mean_of_pairs(embed, fake, progress)
        reference = self._mean_of_pairs(embed, real, progress)[0] if len(real) > 1 else None
        better: Better = "higher"
        notes = []
        if reference is not None and value > reference:
            better = "neither"
            notes.append(
                "Generated images differ more from each other than real ones do, which is no "
                "merit: noise and artefacts have this effect too."
            )
        if side.classes is not None and len(set(side.classes)) > 1:
            notes.append(
                "Pairs of different classes are among them; measure one class at a time to see "
                "the diversity inside classes."
            )
        return Measured(
            "lpips_diversity",
            value,
            better,
            interval=interval,
            reference=reference,
            reference_of=f"between {len(real)} real images" if reference is not None else "",
            count_real=len(real),
            count_fake=len(fake),
            settings={"pairs": self.pairs, "images": self.images},
            uses="perceptual",
            details={"minus_real": None if reference is None else value - reference},
            notes=tuple(notes),
        )

    def _mean_of_pairs(
        self, embed: Embed, pictures: Pictures, progress: Progress
    ) -> tuple[float, Interval | None]:
        pairs = distinct_pairs(len(pictures), self.pairs)
        return diversity(pair_distances(embed, pictures, pairs, progress), pairs)

    def _intra_cluster(
        self, embed: Embed, real: Pictures, fake: Pictures, progress: Progress
    ) -> Measured:
        references = real[: self.references]
        nearest = all_pairs(embed, fake, references, progress).argmin(axis=1)
        pairs, groups = pairs_within(nearest)
        values = pair_distances(embed, fake, pairs, progress)
        clusters = of_groups(values, groups, nearest, len(references))

        notes = []
        if clusters.mean is None:
            notes.append("No two generated images have the same nearest real image: no pairs.")
        if len(real) > len(references):
            notes.append(f"Assigned to {len(references)} of {len(real)} real images, at random.")
        return Measured(
            "lpips_intra_cluster",
            clusters.mean,
            "higher",
            spread=clusters.spread,
            spread_of="" if clusters.mean is None else _SPREAD,
            count_real=len(references),
            count_fake=len(fake),
            settings={"references": self.references, "images": self.images},
            uses="perceptual",
            details={"sizes": list(clusters.sizes), "means": list(clusters.means)},
            notes=tuple(notes),
        )
