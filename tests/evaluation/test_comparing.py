"""Several generated sets side by side: equal counts, honest ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tfgan_med.errors import UserError
from tfgan_med.evaluation.comparing import _ranked, _side_by_side, compare, draw
from tfgan_med.evaluation.measuring import Options, Outcome
from tfgan_med.metrics.base import Better, Interval, Result, Side
from tfgan_med.metrics.fid import FID
from tfgan_med.networks.features import FeatureNetwork, foreign

RESULT = Result(
    metric="kid",
    value=1.0,
    protocol="ttur",
    extractor="inception-2015",
    weights_sha256="ab" * 32,
    dimension=2048,
    count_real=100,
    count_fake=90,
    image_size=(64, 48),
    color="rgb",
    value_range=(0.0, 255.0),
    real="real",
    fake="fake",
)


def result(
    value: float | None, low: float = 0.0, high: float = 0.0, better: Better = "lower"
) -> Result:
    span = Interval(low, high, 0.95, "", 0) if high else None
    return replace(RESULT, value=value, interval=span, better=better)


def test_sets_whose_intervals_meet_share_a_rank() -> None:
    found = [("c", result(9, 8, 10)), ("a", result(1, 0.5, 3)), ("b", result(2, 1, 4))]
    assert [(p.fake, p.rank) for p in _ranked(found)] == [("a", 1), ("b", 1), ("c", 3)]


def test_higher_comes_first_where_higher_is_better() -> None:
    found = [("a", result(0.2, better="higher")), ("b", result(0.7, better="higher"))]
    assert [(p.fake, p.rank) for p in _ranked(found)] == [("b", 1), ("a", 2)]


def test_what_has_no_direction_or_no_value_has_no_rank() -> None:
    neither = [("a", result(1, better="neither")), ("b", result(2, better="neither"))]
    assert [p.rank for p in _ranked(neither)] == [None, None]
    partly = [("a", result(None)), ("b", result(2.0))]
    assert [(p.fake, p.rank) for p in _ranked(partly)] == [("b", 1), ("a", None)]


def test_variety_is_ranked_by_its_distance_to_that_of_real_pictures() -> None:
    more = replace(result(0.6, better="neither"), reference=0.5)
    less = replace(result(0.45, better="higher"), reference=0.5)
    assert [(p.fake, p.rank) for p in _ranked([("more", more), ("less", less)])] == [
        ("less", 1),
        ("more", 2),
    ]


def test_values_that_mean_different_things_are_not_ranked() -> None:
    first, second = result(1.0), replace(result(2.0), settings={"classes": ["a"]})
    outcomes = [
        Outcome((one,), (), (), Side("real", ()), Side("fake", ())) for one in (first, second)
    ]
    comparison = _side_by_side(outcomes, ["a", "b"], [])
    assert comparison.rows == ()
    assert "differ in settings" in comparison.skipped[0].reason


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FeatureNetwork:
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 5, 3, activation="relu")(images)
    path = tmp_path_factory.mktemp("network") / "tiny.keras"
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    return foreign(path)


def save(folder: Path, count: int, brightness: int, seed: int) -> str:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        pixels = generator.integers(0, 60, (20, 20, 3)) + brightness
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return str(folder)


def test_the_set_most_like_the_real_one_is_first_at_equal_counts(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    real = save(tmp_path / "real", 30, 100, 0)
    near, far = save(tmp_path / "near", 30, 102, 1), save(tmp_path / "far", 24, 180, 2)
    comparison = compare([FID()], real, [far, near], Options(), network=network)
    (row,) = comparison.rows
    assert [(place.fake, place.rank) for place in row.places] == [(near, 1), (far, 2)]
    assert {place.count for place in row.places} == {24}
    assert any("24 of each were drawn" in note for note in comparison.notes)
    with Image.open(draw(comparison, tmp_path / "figures")) as figure:
        assert figure.width > 200


def test_the_real_set_itself_may_stand_among_the_generated_ones(
    tmp_path: Path, network: FeatureNetwork
) -> None:
    """Some of its pictures are drawn as generated ones, and all of them stay real."""
    real, few = save(tmp_path / "real", 30, 100, 0), save(tmp_path / "few", 12, 150, 1)
    comparison = compare([FID()], real, [few, real], Options(intervals=False), network=network)
    assert [place.fake for place in comparison.rows[0].places] == [real, few]
    assert {(r.count_real, r.count_fake) for r in comparison.results} == {(30, 12)}


def test_one_set_or_one_set_twice_is_no_comparison(tmp_path: Path) -> None:
    for fakes in (["a"], ["a", "a"]):
        with pytest.raises(UserError, match="two generated sets or more, each once"):
            compare([FID()], "real", fakes, Options())
