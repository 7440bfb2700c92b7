"""Components equal scikit-learn's and the definition, in memory, summed up and sketched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.decomposition import PCA

from tfgan_med.errors import UserError
from tfgan_med.ops import principal_components
from tfgan_med.ops.principal_components import ArrayBlocks, Backend, Components, fit

Rows = npt.NDArray[Any]
BACKENDS: list[Backend] = ["exact", "gram", "sketch"]


class Listed(NamedTuple):
    """Blocks as they are listed, of any size."""

    blocks: list[Rows]
    shape: tuple[int, int]

    def __iter__(self) -> Iterator[Rows]:  # type: ignore[override]
        return iter(self.blocks)


def falling(count: int = 500, width: int = 300, rank: int = 60) -> npt.NDArray[np.float32]:
    """A matrix with a falling spectrum, far from the origin."""
    rng = np.random.default_rng(1)
    strengths = 10.0 * 0.9 ** np.arange(rank)
    directions = np.linalg.qr(rng.standard_normal((width, rank)))[0]
    rows = (strengths * rng.standard_normal((count, rank))) @ directions.T
    return np.asarray(rows + 7.0 + rng.standard_normal(width), np.float32)


def pictures(count: int = 400, side: int = 12) -> npt.NDArray[np.uint8]:
    """Smooth random fields, `(count, side, side, 3)`."""
    rng = np.random.default_rng(2)
    waves = np.cos(np.pi * np.outer((np.arange(side) + 0.5) / side, np.arange(5)))
    fields = rng.standard_normal((count, 5, 5, 3)) / (1 + np.arange(5))[:, None]
    images = 128 + 25 * np.einsum("xf,nfgc,yg->nxyc", waves, fields, waves)
    return np.asarray(images.clip(0, 255), np.uint8)


def angle(first: Rows, second: Rows) -> float:
    """Sine of the largest angle between two subspaces of orthonormal rows."""
    inside = (first.astype(np.float64) @ second.T) @ second
    return float(np.linalg.norm(first - inside, 2))


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sketch must not get away with a sample that is the whole set."""
    monkeypatch.setattr(principal_components, "_SAMPLE", 60)


# Against the definition ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(500, 300), (300, 500)])
def test_every_back_end_finds_the_components_of_scikit_learn(
    backend: Backend, shape: tuple[int, int], small_sample: None
) -> None:
    values = falling(*shape)
    reference = PCA(n_components=0.90, svd_solver="full").fit(values.astype(np.float64))
    components, scores = fit(ArrayBlocks(values, block_bytes=30_000), 0.90, backend=backend)
    assert components.backend == backend
    assert components.axes.shape == reference.components_.shape
    assert angle(components.axes, reference.components_) < 1e-3
    np.testing.assert_allclose(
        components.variances, reference.explained_variance_, rtol=2e-5, atol=0
    )
    assert components.explained == pytest.approx(reference.explained_variance_ratio_.sum(), 1e-5)
    np.testing.assert_allclose(components.mean, values.mean(axis=0, dtype=np.float64), rtol=1e-6)
    signs = np.sign(np.sum(components.axes * reference.components_, axis=1))
    expected = reference.transform(values.astype(np.float64)) * signs
    tolerance = 1e-4 if backend != "sketch" else 0.05  # neighbors in the spectrum mix a little
    np.testing.assert_allclose(scores, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_total_variance_and_scores_are_those_of_the_definition(
    backend: Backend, small_sample: None
) -> None:
    values = falling()
    components, scores = fit(ArrayBlocks(values), 0.8, backend=backend)
    total = values.astype(np.float64).var(axis=0, ddof=1).sum()
    assert components.total_variance == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(scores.mean(axis=0), 0.0, atol=1e-4)
    covariance = np.cov(scores.T)
    np.testing.assert_allclose(covariance, np.diag(components.variances), atol=1e-5 * total)
    np.testing.assert_allclose(components.transform(values), scores, atol=1e-3)
    products = components.axes.astype(np.float64) @ components.axes.T
    np.testing.assert_allclose(products, np.eye(len(products)), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_the_fewest_components_that_reach_the_share_are_kept(
    backend: Backend, share: float, small_sample: None
) -> None:
    values = falling()
    spectrum = np.linalg.eigvalsh(np.cov(values.T.astype(np.float64)))[::-1]
    shares = np.cumsum(spectrum) / spectrum.sum()
    components, _ = fit(ArrayBlocks(values), share, backend=backend)
    number = len(components.axes)
    assert shares[number - 1] >= share > shares[number - 2]
    assert components.explained == pytest.approx(shares[number - 1], abs=1e-5)


def test_a_share_that_is_met_exactly_takes_no_further_component() -> None:
    values = np.diag([3.0, 2.0, 1.0]) - np.diag([3.0, 2.0, 1.0]).mean(axis=0)
    rows = np.concatenate([np.diag([3.0, 2, 1, 1]), -np.diag([3.0, 2, 1, 1])])  # variances 9:4:1:1
    assert len(fit(ArrayBlocks(rows), 9 / 15)[0].axes) == 1
    assert len(fit(ArrayBlocks(rows), 13 / 15)[0].axes) == 2
    assert len(fit(ArrayBlocks(rows), 1.0)[0].axes) == 4
    assert len(fit(ArrayBlocks(values), 1.0)[0].axes) == 2  # three rows span a plane


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fixed_number_is_kept_whatever_it_explains(backend: Backend, small_sample: None) -> None:
    components, scores = fit(ArrayBlocks(falling()), components=3, backend=backend)
    assert components.axes.shape == (3, 300)
    assert scores.shape == (500, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_largest_loading_is_positive(backend: Backend, small_sample: None) -> None:
    for values in (falling(), -falling()):
        axes = fit(ArrayBlocks(values), backend=backend)[0].axes
        assert (axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_uint8_is_the_picture_over_255(backend: Backend, small_sample: None) -> None:
    images = pictures()
    floats = images.reshape(len(images), -1).astype(np.float32) / 255
    ours, scores = fit(ArrayBlocks(images), backend=backend)
    other, expected = fit(ArrayBlocks(floats), backend=backend)
    assert ours.total_variance == pytest.approx(other.total_variance, rel=1e-5)
    assert 0.0 < ours.mean.min() < ours.mean.max() < 1.0
    np.testing.assert_allclose(scores, expected, atol=5e-3 * np.abs(expected).max())
    np.testing.assert_allclose(ours.transform(images.reshape(len(images), -1)), scores, atol=1e-4)
    np.testing.assert_allclose(ours.transform(floats), scores, atol=1e-4)


# How blocks come ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_size_of_blocks_makes_no_difference(backend: Backend, small_sample: None) -> None:
    values = falling()
    whole = fit(Listed([values], values.shape), backend=backend)
    pieces = fit(Listed(np.split(values, [1, 2, 130, 499]), values.shape), backend=backend)
    assert angle(whole[0].axes, pieces[0].axes) < 1e-3
    np.testing.assert_allclose(whole[1], pieces[1], atol=1e-2)


@pytest.mark.parametrize("rows_at_a_time", [7, 64])
def test_products_of_rows_are_complete_whatever_the_panels(rows_at_a_time: int) -> None:
    values = falling(90, 400)
    memory_mb = 1  # panels of 163 rows; and, of the class below, of fewer
    stream = principal_components._Centred(ArrayBlocks(values, block_bytes=1600 * rows_at_a_time))
    centred = values - values.mean(axis=0, dtype=np.float64)
    for memory in (memory_mb * 2**20, 16 * 400 * 13, 16 * 400):
        products = principal_components._row_products(stream, memory)
        np.testing.assert_allclose(products, centred @ centred.T, atol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mapped_file_gives_what_memory_gives(
    backend: Backend, tmp_path: Path, small_sample: None
) -> None:
    images = pictures()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    blocks = ArrayBlocks(mapped[50:350], block_bytes=20_000)
    expected = fit(ArrayBlocks(images[50:350], block_bytes=20_000), backend=backend)[1]
    np.testing.assert_array_equal(fit(blocks, backend=backend)[1], expected)


def test_changes_in_a_copy_on_write_map_survive_reading(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", pictures())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    mapped[3] = 17
    fit(ArrayBlocks(mapped, block_bytes=20_000))
    assert (mapped[3] == 17).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_gives_the_same_bits(backend: Backend, small_sample: None) -> None:
    first, second = (fit(ArrayBlocks(falling()), backend=backend, seed=4)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_sketch_widens_until_the_share_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal_components, "_SAMPLE", 3)  # promises 2 components
    values = falling()
    components, _ = fit(ArrayBlocks(values), 0.97, backend="sketch")
    expected = fit(ArrayBlocks(values), 0.97, backend="exact")[0]
    assert abs(len(components.axes) - len(expected.axes)) <= 1
    assert components.explained >= 0.97


def test_a_direction_that_the_sample_never_saw_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal_components, "_SAMPLE", 20)
    values = 0.1 * falling(2000, 100)
    seen = np.sort(np.random.default_rng(0).choice(2000, 20, replace=False))
    rare = np.setdiff1d(np.arange(2000), seen)[:5]
    values[rare, 42] += 300.0
    axes = fit(ArrayBlocks(values), backend="sketch", seed=0)[0].axes
    assert axes[0, 42] > 0.999


def test_the_back_end_follows_the_size() -> None:
    mb = 2**20
    choose = principal_components._choice
    assert choose(1000, 49_152, 2048 * mb) == "exact"
    assert choose(3200, 49_152, 2048 * mb) == "exact"
    assert choose(5000, 49_152, 2048 * mb) == "sketch"
    assert choose(70_000, 49_152, 2048 * mb) == "sketch"
    assert choose(70_000, 3072, 2048 * mb) == "exact"
    assert choose(400_000, 3072, 2048 * mb) == "gram"
    assert choose(3000, 196_608, 2048 * mb) == "gram"


# Edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_pictures_that_are_all_the_same_have_one_score_of_zero(
    backend: Backend, count: int
) -> None:
    images = np.full((count, 4, 4, 1), 77, np.uint8)
    components, scores = fit(ArrayBlocks(images), backend=backend)
    np.testing.assert_array_equal(scores, np.zeros((count, 1)))
    assert components.explained == 1.0
    np.testing.assert_allclose(components.mean, 77 / 255)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_pictures_lie_on_a_line(backend: Backend) -> None:
    rows = np.array([[0.0, 0, 0], [3, 4, 0]], np.float32)
    components, scores = fit(ArrayBlocks(rows), backend=backend)
    np.testing.assert_allclose(components.axes, [[0.6, 0.8, 0.0]], atol=1e-6)
    np.testing.assert_allclose(scores, [[-2.5], [2.5]], atol=1e-5)
    assert components.total_variance == pytest.approx(12.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_do_not_count_as_directions(backend: Backend) -> None:
    values = np.repeat(falling(6, 50, 6), 20, axis=0)
    assert fit(ArrayBlocks(values), 1.0, backend=backend)[1].shape == (120, 5)
    with pytest.raises(UserError, match="differ in only 5 directions"):
        fit(ArrayBlocks(values), components=8, backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": 0.0}, "variance: 0 is not a share"),
        ({"variance": 90}, "variance: 90 is not a share"),
        ({"components": 0}, "components: 0 were asked for"),
        ({"components": 20}, "20 were asked for, but 20 pictures of 30 numbers have at most 19"),
    ],
)
def test_what_cannot_be_is_refused_with_both_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(ArrayBlocks(falling(20, 30, 10)), **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_that_is_not_finite_is_named_by_its_row(backend: Backend) -> None:
    values = falling()
    values[123, 4] = np.nan
    with pytest.raises(UserError, match="Row 123 of 500"):
        fit(ArrayBlocks(values, block_bytes=30_000), backend=backend)


def test_blocks_of_another_shape_are_refused() -> None:
    values = falling()
    with pytest.raises(ValueError, match="Expected 501 rows"):
        fit(Listed([values], (501, 300)), backend="sketch")
    with pytest.raises(ValueError, match=r"Expected blocks \(rows, 300\)"):
        fit(Listed([values[:, :7]], (500, 300)), backend="sketch")


def test_no_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="received 0 rows"):
        fit(ArrayBlocks(np.zeros((0, 5), np.uint8)))


def test_more_components_than_memory_holds_are_refused_with_the_ways_out() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 1000), np.uint8)
    with pytest.raises(UserError, match=r"90% of the variance of 2000 pictures.*--pca-size 32"):
        fit(ArrayBlocks(noise), backend="sketch", memory_mb=4)


# Memory -------------------------------------------------------------------------------------------

MEASURED = """
import sys
from pathlib import Path
import numpy as np
from tfgan_med.ops import principal_components
mapped = np.load(sys.argv[1], mmap_mode="r")
blocks = principal_components.ArrayBlocks(mapped)
components, scores = principal_components.fit(blocks, backend="sketch")
assert scores.shape[0] == len(mapped) and components.explained >= 0.9, components
status = Path("/proc/self/status").read_text()  # `ru_maxrss` remembers the parent process
print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_sketch_of_20000_pictures_stays_below_600_mb(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    mapped = np.lib.format.open_memmap(file, "w+", np.uint8, (20_000, 32, 32, 3))
    images = pictures(2000, 32)
    for start in range(0, 20_000, 2000):
        mapped[start : start + 2000] = np.roll(images, start // 2000, axis=2)
    mapped.flush()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 600


def test_components_are_what_they_are_announced_as() -> None:
    components, scores = fit(ArrayBlocks(pictures()))
    assert isinstance(components, Components)
    dtypes = [str(array.dtype) for array in (components.mean, components.axes, scores)]
    assert dtypes == ["float64", "float32", "float64"]
    assert (np.diff(components.variances) <= 0).all()
