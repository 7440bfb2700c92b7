"""How often the tests of `metrics.memorization` accuse honest pictures, and find copies.

    python benchmarks/memorization.py [--repeats 1000]

Features are drawn, not pictures: training, held-out and generated sets of one population (steep
Gaussians of 4 and 64 dimensions, a mixture of clusters of unequal width, heavy tails, patients
with several pictures). The share of repetitions with a p-value below 0.01 and 0.05 should not be
above these numbers, and Z should be below -3 in 0.1 % of them. The last part plants copies.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from tfgan_med.metrics._copying import Verdict, data_copying, judge, likeness
from tfgan_med.metrics._look_alikes import Candidates
from tfgan_med.metrics._nearest_training import choose
from tfgan_med.ops.neighbors import nearest

Matrix = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]
Draw = Callable[[int, np.random.Generator], tuple[Matrix, Groups]]

SIZES = [20, 50, 100, 200]  # reference images
TRAINING = 150  # for held-out calibration
GENERATED = 200


def main() -> None:
    """Print one line for each population, calibration and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print("honest pictures; p of the project, p of a plain binomial test for comparison")
    print("population  calibration    n_ref | expected flagged | p<.01 p<.05 | binomial p<.01 | "
          "Z<-3 sd(Z)")  # fmt: skip
    for name, draw in POPULATIONS.items():
        for leave_one_out in (False, True):
            for size in SIZES:
                line(name, draw, size, leave_one_out, repeats)
    print(f"\n{GENERATED} generated pictures with copies, p < .01 in a share of")
    print("copies  n_ref 20    50   100   200")
    for copies in (2, 5, 10, 20):
        print(f"{copies:6d}   ", *(f"{power(copies, size, repeats // 5):5.2f}" for size in SIZES))


def line(name: str, draw: Draw, size: int, leave_one_out: bool, repeats: int) -> None:
    """False alarms of one case."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(repeats):
        train = draw(size if leave_one_out else TRAINING, generator)
        reference = train if leave_one_out else draw(size, generator)
        fake = draw(5 * GENERATED, generator)[0][::5]  # of different patients
        verdict, z = look(train, reference, fake, leave_one_out)
        count = int(verdict.by_rank.sum())
        plain = float(binom.sf(count - 1, GENERATED, verdict.expected))
        rows.append((verdict.expected, count / GENERATED, verdict.p_value, plain, z))
    expected, flagged, p, plain_p, zs = np.array(rows).T
    calibration = "leave-one-out" if leave_one_out else "held-out"
    print(
        f"{name:11s} {calibration:13s} {size:6d} | {expected[0]:8.4f} {flagged.mean():7.4f} | "
        f"{(p < 0.01).mean():5.3f} {(p < 0.05).mean():5.3f} | {(plain_p < 0.01).mean():14.3f} | "
        f"{(zs < -3).mean():4.3f} {zs.std():5.2f}",
        flush=True,
    )


def power(copies: int, size: int, repeats: int) -> float:
    """Share of alarms when some generated pictures are training pictures with little noise."""
    generator, found = np.random.default_rng(1), 0
    draw = POPULATIONS["steep 64"]
    for _ in range(repeats):
        train, reference = draw(TRAINING, generator), draw(size, generator)
        fake, _ = draw(GENERATED, generator)
        fake[:copies] = train[0][:copies] + 0.02 * fake[:copies]
        found += look(train, reference, fake, False)[0].p_value < 0.01
    return found / repeats


def look(
    train: tuple[Matrix, Groups],
    reference: tuple[Matrix, Groups],
    fake: Matrix,
    leave_one_out: bool,
) -> tuple[Verdict, float]:
    """As `Memorization` does in the space of features."""
    points, kin = train
    own = kin if leave_one_out else reference[1] + kin.max() + 1
    wanted = min(2 + int(np.bincount(kin).max()), len(points) - 1)
    ours = choose(Candidates(*nearest_pairs(fake, points, wanted, False)), kin)
    theirs = choose(
        Candidates(*nearest_pairs(reference[0], points, wanted, leave_one_out)), kin, own
    )
    known = np.isfinite(theirs.distance)
    alike = likeness(theirs.distance[known], own[known]) * (2.0 if leave_one_out else 1.0)
    z = data_copying(ours.distance, theirs.distance[known], alike).z
    return judge(ours, theirs, own, leave_one_out=leave_one_out), z


def nearest_pairs(
    queries: Matrix, points: Matrix, wanted: int, same: bool
) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Rows and distances of the nearest points."""
    distance, index = nearest(queries, points, wanted, exclude_self=same)
    return index, distance


# Populations: pictures and their patients ---------------------------------------------------------


def steep(dimension: int) -> Draw:
    """Gaussians whose variances fall like 1 / k."""

    def draw(count: int, generator: np.random.Generator) -> tuple[Matrix, Groups]:
        spread = np.arange(1, dimension + 1) ** -0.5
        return generator.standard_normal((count, dimension)) * spread, np.arange(count)

    return draw


def clusters(count: int, generator: np.random.Generator) -> tuple[Matrix, Groups]:
    """Four clusters, each three times as wide as the one before, in 8 dimensions."""
    which = generator.integers(0, 4, count)
    width = 3.0 ** which[:, None]
    return generator.standard_normal((count, 8)) * width + 300.0 * which[:, None], np.arange(count)


def heavy(count: int, generator: np.random.Generator) -> tuple[Matrix, Groups]:
    """Student's t with 2 degrees of freedom, in 16 dimensions."""
    scale = np.sqrt(generator.chisquare(2, (count, 1)) / 2)
    return generator.standard_normal((count, 16)) / scale, np.arange(count)


def patients(pictures: int) -> Draw:
    """Some pictures of each patient, more alike than two patients, in 16 dimensions."""

    def draw(count: int, generator: np.random.Generator) -> tuple[Matrix, Groups]:
        groups = np.arange(count) // pictures
        person = generator.standard_normal((groups[-1] + 1, 16))[groups]
        return person + 0.4 * generator.standard_normal((count, 16)), groups

    return draw


POPULATIONS: dict[str, Draw] = {
    "steep 4": steep(4),
    "steep 64": steep(64),
    "clusters": clusters,
    "heavy tails": heavy,
    "patients, 2": patients(2),
    "patients, 5": patients(5),
}


if __name__ == "__main__":
    main()
