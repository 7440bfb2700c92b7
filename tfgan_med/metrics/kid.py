"""Kernel distance between two sets of image features; with Inception features it is the KID.

    KID = mean of k(x_i, x_j), i ≠ j  +  mean of k(y_i, y_j), i ≠ j  -  2 mean of k(x_i, y_j)
    k(x, y) = (x·y / features + 1)³

The squared maximum mean discrepancy, estimated without bias: its expected value does not depend
on the number of images, and is 0 for equal distributions, so that half of all values of a perfect
generator are negative. Bińkowski et al., arXiv:1801.01401, section 3. Pure NumPy in float64,
computed in tiles.

Adding f(x) + f(y) to k(x, y) changes no estimate here: it counts as often within the sets as
between them. So all of them take the kernel less its values at a common centre (see `Centered`),
which keeps the digits that features far from the origin would lose to the power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import norm

from tfgan_med.metrics import _subsets
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

Features = npt.NDArray[np.floating[Any]]  # (images, features)
Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Estimator = Literal["unbiased", "biased", "u_statistic"]

_TILE = 1024  # side of a tile of the kernel matrix
_ROWS = 32  # of a tile at a time: what follows its product stays in the cache
_CENTRAL = 1024  # images of each side whose mean is the centre
_WHOLE = 4000  # images of both sides together whose kernel matrix is kept for subsets


class Kernel(NamedTuple):
    """`(gamma x·y + coef0)^degree`; gamma None is 1 / features."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def around(self, *sets: Features) -> Centered:
        """The kernel less its values at the mean of some images of each set."""
        some = np.concatenate([np.asarray(features[:_CENTRAL], np.float64) for features in sets])
        return Centered(self, some.mean(axis=0))


class Centered:
    """`k(x, y) - k(x, c) - k(c, y) + k(c, c)`, computed without these large terms.

    With u = x - c, v = y - c, s = gamma c·c + coef0, a = gamma c·u, b = gamma c·v, g = gamma u·v
    and n the degree it is

        [(s + a + b + g)^n - (s + a + b)^n]  +  [(s + a + b)^n - (s + a)^n - (s + b)^n + s^n]

    where the first part is g times a sum of products of both powers' bases, and the second is
    `sum over j of C(n, j) b^j ((s + a)^(n - j) - s^(n - j))`, j from 1 to n - 1.
    """

    def __init__(self, kernel: Kernel, center: Floats) -> None:
        self.degree, self.center = kernel.degree, center
        self.gamma = 1.0 / len(center) if kernel.gamma is None else kernel.gamma
        self.base = float(self.gamma * (center @ center) + kernel.coef0)

    def chunks(self, features: Features) -> Iterator[Floats]:
        """Images less the centre, a tile's side of them at a time."""
        for start in range(0, len(features), _TILE):
            yield self.shifted(features[start : start + _TILE])

    def shifted(self, features: Features) -> Floats:
        """Images less the centre, as float64."""
        shifted: Floats = np.asarray(features, np.float64) - self.center
        return shifted

    def __call__(self, u: Floats, v: Floats) -> Floats:
        """Kernel matrix `(rows of u, rows of v)` of images less the centre."""
        a, b = (self.gamma * (shifted @ self.center) for shifted in (u, v))
        of_offsets, powers = self._of_offsets(a), self._powers(b)
        table: Floats = u @ v.T
        for start in range(0, len(u), _ROWS):
            rows = slice(start, start + _ROWS)
            g = table[rows]
            g *= self.gamma
            without = np.add.outer(self.base + a[rows], b)
            g *= _difference_over(without + g, without, self.degree)
            g += of_offsets[rows] @ powers
        return table

    def _of_offsets(self, a: Floats) -> Floats:
        """`(rows, degree - 1)`: `C(n, j) ((s + a)^(n - j) - s^(n - j))` for each j."""
        base = np.full_like(a, self.base)
        columns = [
            math.comb(self.degree, j) * a * _difference_over(base + a, base, self.degree - j)
            for j in range(1, self.degree)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(a), 0))

    def _powers(self, b: Floats) -> Floats:
        """`(degree - 1, rows)`: `b^j`."""
        return np.power.outer(b, np.arange(1, self.degree)).T


def _difference_over(p: Floats, q: Floats, degree: int) -> Floats:
    """`(p^n - q^n) / (p - q)`, which is `p^(n-1) + p^(n-2) q + ... + q^(n-1)`."""
    if degree == 1:
        return np.ones_like(p)
    total, power = p + q, p
    for _ in range(degree - 2):
        power = power * p
        total *= q
        total += power
    return total


class KernelDistance(NamedTuple):
    """A squared distance and its standard error."""

    value: float
    error: float


# The full estimate --------------------------------------------------------------------------------


def kernel_distance(
    real: Features,
    fake: Features,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    estimator: Estimator = "unbiased",
    progress: Progress | None = None,
) -> float:
    """Squared maximum mean discrepancy of a polynomial kernel, from all pairs of images.

    Args:
        real: `(images, features)` of one extractor; may be memory-mapped.
        fake: `(images, features)` of generated images, from the same extractor.
        degree, gamma, coef0: of the kernel; gamma None is 1 / features.
        estimator: `unbiased`; `biased` also counts pairs of an image with itself and is never
            negative; `u_statistic` leaves out pairs of equal rows between the sets too, which
            must then be equally large.
        progress: called with tiles of the kernel matrices done and all.
    Returns:
        The distance, lower is better; unbiased estimates are negative about half of the time for
        equal distributions.
    Raises:
        ValueError: fewer than 2 images on a side, unequal dimensions, a feature not finite;
            unequal counts for `u_statistic`.
    Source: arXiv:1801.01401, section 3; Gretton et al., JMLR 13 (2012), lemma 6.
    """
    real, fake = _checked(real, fake)
    kernel = Kernel(degree, gamma, coef0)
    if estimator == "u_statistic" and len(real) != len(fake):
        raise ValueError(
            f"The U-statistic pairs the images of both sides: received {len(real)} real and "
            f"{len(fake)} generated images. Use equally many, or the unbiased estimator."
        )
    sums = _Sums(real, fake, kernel, progress)
    centered = sums.kernel
    m, n = sums.counts
    within = sums.real.sum() / (m * (m - 1)) + sums.fake.sum() / (n * (n - 1))
    if estimator == "unbiased":
        return float(within - 2.0 * sums.cross[0].sum() / (m * n))
    if estimator == "u_statistic":
        sides = zip(centered.chunks(real), centered.chunks(fake), strict=True)
        pairs = sum(float(np.trace(centered(x, y))) for x, y in sides)
        return float(within - 2.0 * (sums.cross[0].sum() - pairs) / (m * (m - 1)))
    own = [
        sum(float(np.trace(centered(x, x))) for x in centered.chunks(side)) for side in (real, fake)
    ]
    within = (sums.real.sum() + own[0]) / m**2 + (sums.fake.sum() + own[1]) / n**2
    return float(within - 2.0 * sums.cross[0].sum() / (m * n))


def kernel_distance_and_error(
    real: Features,
    fake: Features,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    progress: Progress | None = None,
) -> KernelDistance:
    """The unbiased distance with the standard error that belongs to it, from one sweep.

    The variance of the estimate is the sum of five terms (Hoeffding's decomposition): how much
    single images of either side move it, 4 ζ_x / m + 4 ζ_y / n, and how much pairs do beyond
    that, 2 σ²_xx / m(m-1) + 2 σ²_yy / n(n-1) + 4 σ²_xy / mn. Each is estimated without bias but for
    terms of higher order, from row sums and squares of the kernel; ζ below 0 count as 0. The
    pairs are all there is when the distributions are equal. Drawing images with replacement, the
    usual bootstrap, puts `k(x, x)` among the pairs of different images and shifts the estimate.

    A normal interval of this error covered the expected distance in 91 to 100 of 100 repetitions
    (benchmarks/metric_intervals.py: rectified Gaussian and heavy-tailed features, 40 to 400
    images, 16 to 400 features, equal and shifted sets): least with 40 images of 128 features, and
    up to 1.25 times too wide for equal sets. Images that belong together (several of a patient)
    make it too narrow.

    Args and errors as `kernel_distance`, with at least 4 images on each side.
    Source: Sutherland and Deka, arXiv:1906.02104, for the terms; the estimate is our own.
    """
    real, fake = _checked(real, fake, fewest=4)
    sums = _Sums(real, fake, Kernel(degree, gamma, coef0), progress)
    return KernelDistance(sums.distance(), math.sqrt(sums.variance()))


class _Sums:
    """Row sums and squares of the three kernel matrices, those within a set without diagonal."""

    def __init__(
        self, real: Features, fake: Features, kernel: Kernel, progress: Progress | None = None
    ) -> None:
        self.kernel = kernel.around(real, fake)
        m, n = self.counts = len(real), len(fake)
        blocks = [-(-count // _TILE) for count in self.counts]
        total = sum(b * (b + 1) // 2 for b in blocks) + blocks[0] * blocks[1]
        done = iter(range(1, total + 1))

        def step() -> None:
            if progress:
                progress(next(done), total)

        self.real, self.real_squares = self._within(real, step)
        self.fake, self.fake_squares = self._within(fake, step)
        self.cross = np.zeros(m), np.zeros(n)
        self.cross_squares = 0.0
        for i, x in enumerate(self.kernel.chunks(real)):
            for j, y in enumerate(self.kernel.chunks(fake)):
                tile = self.kernel(x, y)
                self.cross[0][_span(i)] += tile.sum(axis=1)
                self.cross[1][_span(j)] += tile.sum(axis=0)
                self.cross_squares += float(np.vdot(tile, tile))
                step()

    def _within(self, features: Features, step: Callable[[], None]) -> tuple[Floats, float]:
        rows, squares = np.zeros(len(features)), 0.0
        for i, x in enumerate(self.kernel.chunks(features)):
            for j, y in enumerate(self.kernel.chunks(features[i * _TILE :]), start=i):
                tile = self.kernel(x, y)
                if i == j:
                    np.fill_diagonal(tile, 0.0)
                else:
                    rows[_span(j)] += tile.sum(axis=0)
                rows[_span(i)] += tile.sum(axis=1)
                squares += (1 + (i != j)) * float(np.vdot(tile, tile))
                step()
        return rows, squares

    def distance(self) -> float:
        """The unbiased estimate."""
        m, n = self.counts
        within = self.real.sum() / (m * (m - 1)) + self.fake.sum() / (n * (n - 1))
        return float(within - 2.0 * self.cross[0].sum() / (m * n))

    def variance(self) -> float:
        """See `kernel_distance_and_error`."""
        m, n = self.counts
        real, fake = self.real / (m - 1), self.fake / (n - 1)  # mean kernel of each image
        to_fake, to_real = self.cross[0] / n, self.cross[1] / m
        pairs_real = _pair_variance(real, self.real_squares / (m * (m - 1)))
        pairs_fake = _pair_variance(fake, self.fake_squares / (n * (n - 1)))
        # E k² = mean² + Var over rows + Var over columns + pairs; both variances of means are too
        # large by what the pairs leave in a mean.
        excess = (
            self.cross_squares / (m * n)
            - to_fake.mean() ** 2
            - to_fake.var(ddof=1)
            - to_real.var(ddof=1)
        )
        pairs_cross = max(excess / (1.0 - 1.0 / m - 1.0 / n), 0.0)
        single_real = (real - to_fake).var(ddof=1) - pairs_real / (m - 1) - pairs_cross / n
        single_fake = (fake - to_real).var(ddof=1) - pairs_fake / (n - 1) - pairs_cross / m
        return float(
            4.0 * max(single_real, 0.0) / m
            + 4.0 * max(single_fake, 0.0) / n
            + 2.0 * pairs_real / (m * (m - 1))
            + 2.0 * pairs_fake / (n * (n - 1))
            + 4.0 * pairs_cross / (m * n)
        )


def _pair_variance(means: Floats, square: float) -> float:
    """Variance of k(x, x') beyond what x and x' bring each, from means over x' and the mean k²."""
    excess = square - means.mean() ** 2 - 2.0 * means.var(ddof=1)
    return float(max(excess / (1.0 - 2.0 / (len(means) - 1)), 0.0))


def _span(block: int) -> slice:
    return slice(block * _TILE, (block + 1) * _TILE)


# Published protocols ------------------------------------------------------------------------------


def subset_distances(
    real: Features,
    fake: Features,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    progress: Progress | None = None,
) -> Floats:
    """Unbiased distances of random subsets; the KID of MMD-GAN and its successors is their mean.

    The draws are those of torch-fidelity (seed 2020) and of clean-fid, which takes
    `min(images, 1000)` as size: `RandomState(seed).choice` without replacement, for each subset
    first from the generated, then from the real images.

    Args:
        real, fake: as `kernel_distance`.
        subsets, subset_size: how many, and images of each side in each.
        progress: called with subsets done and all.
    Returns:
        `(subsets,)`. Their standard deviation tells how much subsets differ. They overlap, so it
        is no error of the mean; a subset of all images has none.
    Raises:
        ValueError: as `kernel_distance`; a set smaller than a subset.
    Source: toshas/torch-fidelity, torch_fidelity/metric_kid.py; GaParmar/clean-fid,
        cleanfid/fid.py.
    """
    real, fake = _checked(real, fake)
    if not 2 <= subset_size <= min(len(real), len(fake)) or subsets < 1:
        raise ValueError(
            f"{subsets} subsets of {subset_size} images cannot be drawn from {len(real)} real and "
            f"{len(fake)} generated images. Choose a subset size from 2 to "
            f"{min(len(real), len(fake))}, smaller than both sets."
        )
    kernel, generator = Kernel().around(real, fake), np.random.RandomState(seed)
    m, whole = len(real), None
    if len(real) + len(fake) <= _WHOLE:
        both = np.concatenate([kernel.shifted(real), kernel.shifted(fake)])
        whole = kernel(both, both)

    values = np.empty(subsets)
    for i in range(subsets):
        y = generator.choice(len(fake), subset_size, replace=False)
        x = generator.choice(len(real), subset_size, replace=False)
        if whole is not None:
            xx, yy, xy = (whole[np.ix_(*rows)] for rows in ((x, x), (m + y, m + y), (x, m + y)))
        else:
            a, b = kernel.shifted(real[x]), kernel.shifted(fake[y])
            xx, yy, xy = kernel(a, a), kernel(b, b), kernel(a, b)
        values[i] = _unbiased(xx, yy, xy)
        if progress:
            progress(i + 1, subsets)
    return values


def block_distances(
    real: Features, fake: Features, *, block_size: int = 1024, seed: int | None = None
) -> Floats:
    """Unbiased distances of blocks that share no image, all images in one block each.

    TF-GAN's `kernel_classifier_distance_and_std`: `ceil(larger count / block_size)` blocks of
    nearly equal size, the smaller ones first.

    Args:
        real, fake: as `kernel_distance`.
        block_size: images of a block at most.
        seed: images are shuffled with it; None takes them in their order, as TF-GAN does.
    Returns:
        `(blocks,)`. Their mean is the distance, and `std(ddof=1) / √blocks` its standard error.
    Raises:
        ValueError: as `kernel_distance`; a block that would have fewer than 2 images.
    Source: tensorflow/gan, tensorflow_gan/python/eval/classifier_metrics.py.
    """
    real, fake = _checked(real, fake)
    blocks = -(-max(len(real), len(fake)) // block_size)
    if min(len(real), len(fake)) < 2 * blocks:
        raise ValueError(
            f"{blocks} blocks need at least {2 * blocks} images on each side: received {len(real)} "
            f"real and {len(fake)} generated images. Choose larger blocks, or the full estimate."
        )
    generator = None if seed is None else np.random.RandomState(seed)
    orders = [
        np.arange(len(side)) if generator is None else generator.permutation(len(side))
        for side in (real, fake)
    ]
    kernel, values = Kernel().around(real, fake), []
    for x, y in zip(*(_split(order, blocks) for order in orders), strict=True):
        a, b = kernel.shifted(real[x]), kernel.shifted(fake[y])
        values.append(_unbiased(*(kernel(p, q) for p, q in ((a, a), (b, b), (a, b)))))
    return np.array(values)


def _split(order: npt.NDArray[np.int64], blocks: int) -> list[npt.NDArray[np.int64]]:
    size, larger = divmod(len(order), blocks)
    sizes = [size] * (blocks - larger) + [size + 1] * larger
    return np.split(order, np.cumsum(sizes)[:-1])


def _unbiased(xx: Floats, yy: Floats, xy: Floats) -> float:
    within = sum(
        (float(table.sum()) - float(np.trace(table))) / (len(table) * (len(table) - 1))
        for table in (xx, yy)
    )
    return within - 2.0 * float(xy.mean())


def _checked(real: Features, fake: Features, fewest: int = 2) -> tuple[Features, Features]:
    checked_features(real, "real", fewest)
    checked_features(fake, "generated", fewest)
    require_same_dimension(real.shape[1], fake.shape[1])
    return real, fake


# The metric ---------------------------------------------------------------------------------------


class KID(Metric):
    """Kernel distance between real and generated features (KID).

    Bińkowski et al., arXiv:1801.01401. Its expected value does not depend on the number of images:
    prefer it to FID for small sets. It may be negative.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    protocol: Literal["full", "subset", "block"] = "full"
    """`full`: all pairs at once, the most precise; `subset`: the mean over random subsets, as in
    torch-fidelity and clean-fid; `block`: over blocks that share no image, as in TF-GAN."""

    subsets: int = Field(default=100, ge=1)
    """Random subsets."""

    subset_size: int = Field(default=0, ge=0)
    """Images of each side in a subset; 0 is 1000, or half of the smaller set if that is less."""

    block_size: int = Field(default=1024, ge=2)
    """Images of each side in a block, at most."""

    seed: int = Field(default=2020, ge=0)
    """Of subsets and blocks; 2020 in torch-fidelity."""

    floor: bool = True
    """Also measure two halves of the real set, to read the value by."""

    def measure(self, real: Side, fake: Side, context: Context) -> list[Measured]:
        """One value."""
        x = checked_features(require(real.features, "features"), "real", 4)
        y = checked_features(require(fake.features, "features"), "generated", 4)

        def progress(done: int, total: int) -> None:
            context.progress("kernel distance", done, total)

        measured = {"full": self._full, "subset": self._subset, "block": self._block}
        value, parts = measured[self.protocol](x, y, progress)
        half = len(x) // 2
        reference = self._halves(x, context.seed) if self.floor and half >= 2 else None
        return [
            Measured(
                name="kid",
                value=value,
                better="lower",
                reference=reference,
                reference_of=""
                if reference is None
                else f"between two random halves of the real set, {half} images each",
                details={"value_x1000": 1000.0 * value},
                **parts,
            )
        ]

    def _full(
        self, real: Features, fake: Features, progress: Progress
    ) -> tuple[float, dict[str, Any]]:
        value, error = kernel_distance_and_error(real, fake, progress=progress)
        width = float(norm.ppf(0.975)) * error
        notes = ("Not distinguishable from 0: its interval holds it.",) if value <= width else ()
        return value, {
            "spread": error,
            "spread_of": "standard error",
            "interval": Interval(
                low=value - width,
                high=value + width,
                level=0.95,
                method="normal, from the variance of the estimate",
                repeats=0,
            ),
            "settings": {"protocol": "full"},
            "notes": notes,
        }

    def _subset(
        self, real: Features, fake: Features, progress: Progress
    ) -> tuple[float, dict[str, Any]]:
        smaller = min(len(real), len(fake))
        size = self.subset_size or min(1000, smaller // 2)
        values = subset_distances(
            real, fake, subsets=self.subsets, subset_size=size, seed=self.seed, progress=progress
        )
        whole = size == len(real) == len(fake)
        notes = ("Each subset is the whole set, so they do not differ.",) if whole else ()
        return float(values.mean()), {
            "spread": None if whole else float(values.std()),
            "spread_of": ""
            if whole
            else f"population standard deviation over {self.subsets} subsets of {size}",
            "settings": {
                "protocol": "subset",
                "subsets": self.subsets,
                "subset_size": size,
                "seed": self.seed,
            },
            "notes": notes,
        }

    def _block(
        self, real: Features, fake: Features, progress: Progress
    ) -> tuple[float, dict[str, Any]]:
        values = block_distances(real, fake, block_size=self.block_size, seed=self.seed)
        count = len(values)
        one = count == 1
        error = None if one else float(values.std(ddof=1) / math.sqrt(count))
        return float(values.mean()), {
            "spread": error,
            "spread_of": "" if one else f"standard error over {count} blocks",
            "settings": {"protocol": "block", "block_size": self.block_size, "seed": self.seed},
            "notes": ("One block has no standard error; choose smaller ones.",) if one else (),
        }

    def _halves(self, real: Features, seed: int) -> float:
        """What a perfect generator has at half the number of images; 0 on average."""
        return kernel_distance(*_subsets.halves(real, np.random.default_rng(seed)))
