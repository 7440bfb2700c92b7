"""Copies of training pictures: planted ones are found, honest pictures are not accused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.metrics import _look_alikes as looks
from tfgan_med.metrics._copying import conformal_p_values, data_copying, judge, likeness
from tfgan_med.metrics._look_alikes import Candidates, look_alikes
from tfgan_med.metrics._nearest_training import Chosen, choose
from tfgan_med.metrics.base import Context, Measured, Side
from tfgan_med.metrics.memorization import Memorization, is_alarming
from tfgan_med.ops.neighbors import nearest

Golden = Mapping[str, npt.NDArray[Any]]
Picture = npt.NDArray[np.float32]
NAN = float("nan")


# Pictures -----------------------------------------------------------------------------------------


def anatomy(seed: int, side: int = 256) -> Picture:
    """A smooth gray picture with some structure, different for each seed."""
    generator = np.random.default_rng(seed)
    places = np.arange(side)[:, None] / side
    fy, fx = 2 * np.pi * generator.uniform(-5, 5, (2, 12))
    height, phase = generator.normal(size=12), 2 * np.pi * generator.random(12)
    down, across = fy * places + phase, fx * places
    # Plane waves; einsum, as threads of a matrix product would cost more than this.
    picture = np.einsum("yk,xk->yx", height * np.sin(down), np.cos(across))
    picture += np.einsum("yk,xk->yx", height * np.cos(down), np.sin(across))
    picture = 128 + 45 * picture / picture.std()
    return np.asarray(np.clip(picture, 0, 255), np.float32)


def thumbnail(picture: Picture) -> npt.NDArray[np.uint8]:
    small = Image.fromarray(np.ascontiguousarray(picture)).resize((64, 64), Image.Resampling.BOX)
    return np.asarray(np.clip(np.rint(np.asarray(small)), 0, 255), np.uint8)


def features(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Stand-in for a network: coarse gray levels, their changes, and a constant."""
    coarse = thumbnails.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4))
    parts = [coarse - 128, 2 * np.diff(coarse, axis=1), 2 * np.diff(coarse, axis=2)]
    flat = [part.reshape(len(coarse), -1) for part in parts]
    return np.concatenate([*flat, np.full((len(coarse), 1), 10.0)], axis=1).astype(np.float32)


def side(
    name: str,
    pictures: Sequence[Picture],
    groups: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
) -> Side:
    thumbnails = np.stack([thumbnail(picture) for picture in pictures])
    return Side(
        name,
        tuple(files or [f"{name}{i}.png" for i in range(len(pictures))]),
        features=features(thumbnails),
        thumbnails=thumbnails,
        groups=None if groups is None else tuple(groups),
    )


def measured(
    real: Side, fake: Side, held_out: Side | None = None, **settings: Any
) -> dict[str, Measured]:
    values = Memorization(**settings).measure(real, fake, Context(held_out=held_out))
    json.dumps([[v.details, v.settings, v.value, v.reference] for v in values], allow_nan=False)
    return {value.name: value for value in values}


def noisy(picture: Picture) -> Picture:
    noise = np.random.default_rng(0).normal(0, 2, picture.shape)
    return np.clip(picture + 2 + noise, 0, 255).astype(np.float32)


def jpeg(picture: Picture) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer), np.float32)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "copy": lambda p: p,
    "flip": lambda p: p[:, ::-1],
    "shift by a pixel": lambda p: np.roll(p, (1, -1), (0, 1)),
    "shift by two of the thumbnail": lambda p: np.roll(p, (-8, 8), (0, 1)),
    "flip and shift": lambda p: np.roll(p[:, ::-1], 5, 1),
    "noise and brightness": noisy,
    "jpeg": jpeg,
}


@pytest.fixture(scope="module")
def train() -> Side:
    return side("train", [anatomy(i) for i in range(110)])


@pytest.fixture(scope="module")
def held_out() -> Side:
    return side("held", [anatomy(1000 + i) for i in range(110)])


# Other libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("queries", ["gen", "heldout"])
def test_neighbors_are_those_of_scikit_learn(golden: Golden, metric: Any, queries: str) -> None:
    distance, index = nearest(
        golden[f"in/nn/small/{queries}"], golden["in/nn/small/train"], 2, metric=metric
    )
    expected = golden[f"ref/nn/small/sklearn.{metric}_{queries}_dist"]
    assert distance == pytest.approx(expected, rel=1e-6, abs=1e-6)  # a copy: 1e-8 there, 0 here
    assert (index == golden[f"ref/nn/small/sklearn.{metric}_{queries}_index"]).all()


def test_the_data_copying_statistic_is_that_of_scipy(golden: Golden) -> None:
    generated, reference = (
        golden[f"ref/nn/small/sklearn.euclidean_{which}_dist"][:, 0] for which in ("gen", "heldout")
    )
    test = data_copying(generated, reference)
    u, p = golden["ref/nn/small/scipy.mannwhitneyu_gen_vs_heldout"]
    assert test.u == u
    assert test.p_value == pytest.approx(p, rel=1e-6)
    assert test.z == pytest.approx((228 - 249.5) / np.sqrt(500 * 46 / 12))


# Planted copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("calibration", ["held-out", "leave-one-out"])
def test_planted_copies_are_found_with_their_training_image(
    train: Side, held_out: Side, calibration: str
) -> None:
    planted = [change(anatomy(i)) for i, change in enumerate(COPIES.values())]
    honest = [anatomy(2000 + i) for i in range(40)]
    fake = side("fake", planted + honest, files=[*COPIES, *(f"honest{i}" for i in range(40))])
    result = measured(train, fake, held_out, calibration=calibration)
    flagged = result["memorization_flagged_pixels"]
    first = flagged.details["pairs"][: len(COPIES)]
    assert {pair["generated"] for pair in first} == set(COPIES)
    for pair in first:
        assert pair["training"] == f"train{list(COPIES).index(pair['generated'])}.png"
        assert pair["p_value"] <= 2 / 111 + 1e-9
        assert pair["ratio"] < 0.5
        assert ("flip" in pair["transform"]) == ("flip" in pair["generated"])
    assert flagged.details["flagged"] >= len(COPIES)
    assert flagged.details["p_value"] < 0.01
    copies = {row["generated"] for row in result["memorization_copies"].details["copies_listed"]}
    assert {"copy", "flip", "shift by two of the thumbnail", "jpeg"} <= copies <= set(COPIES)
    alarm = is_alarming(list(result.values()))
    assert alarm is not None and "near copies" in alarm and "pixels" in alarm


def test_turned_copies_are_found_on_request(train: Side, held_out: Side) -> None:
    turned = [
        np.rot90(anatomy(3)),
        np.rot90(anatomy(4)[:, ::-1], 3),
        *map(anatomy, range(500, 510)),
    ]
    fake = side("fake", turned)
    assert measured(train, fake, held_out)["memorization_copies"].value == 0.0
    result = measured(train, fake, held_out, transforms="all")
    assert result["memorization_copies"].details["copies"] == 2
    names = [p["transform"] for p in result["memorization_flagged_pixels"].details["pairs"][:2]]
    assert sorted(names) == ["flip, turn 270", "turn 270"]


def test_each_transform_undoes_what_its_name_says() -> None:
    picture = thumbnail(anatomy(0))
    for code in range(8):
        found = look_alikes(looks.transformed(picture, code)[None], picture[None], transforms="all")
        assert found.distance[0, 0] == 0.0
        assert found.copy[0, 0]
        again = looks.transformed(looks.transformed(picture, code), int(found.transform[0, 0]))
        assert (again == picture).all()


@pytest.mark.parametrize("shift", [(0, 0), (2, -1), (-2, 2)])
def test_the_distance_is_the_smallest_over_shifts(shift: tuple[int, int]) -> None:
    picture = thumbnail(anatomy(0))
    found = look_alikes(np.roll(picture, shift, (0, 1))[None], picture[None])
    assert found.distance[0, 0] == 0.0
    assert tuple(found.shift[0, 0]) == shift
    fixed = look_alikes(np.roll(picture, (2, 0), (0, 1))[None], picture[None], shift=0)
    expected = np.sqrt(((np.roll(picture, 2, 0).astype(float) - picture) ** 2).mean())
    assert fixed.distance[0, 0] == pytest.approx(expected, rel=1e-5)


def test_the_candidates_are_those_of_an_exhaustive_search() -> None:
    queries = np.stack([thumbnail(anatomy(i)) for i in range(15)])
    points = np.stack([thumbnail(anatomy(100 + i)) for i in range(25)])
    found = look_alikes(queries, points)
    first, second = np.divmod(np.arange(15 * 25), 25)
    both = [
        looks.aligned(looks.transformed(queries, code)[first], points[second], 2)[0]
        for code in (0, 1)
    ]
    exact = np.minimum(*both).reshape(15, 25)
    assert (found.distance[:, 0] <= 1.02 * exact.min(axis=1)).all()
    assert np.mean(found.index[:, 0] == exact.argmin(axis=1)) > 0.9


def test_flat_pictures_are_copies_only_where_the_structure_agrees() -> None:
    y, x = np.mgrid[0:60, 0:60]
    bump = 100 + 3 * np.exp(-((x - 20) ** 2 + (y - 30) ** 2) / 50)
    moved = 100 + 3 * np.exp(-((x - 45) ** 2 + (y - 30) ** 2) / 50)
    one, other = (np.rint(p).astype(np.uint8)[None] for p in (bump, moved))
    assert np.abs(one.astype(int) - other).mean() < 2  # alike by gray levels alone
    assert not looks.is_copy(one, other)[0]
    assert looks.is_copy(one, one)[0]


# Honest pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("calibration", ["held-out", "leave-one-out"])
def test_honest_pictures_give_no_alarm(train: Side, held_out: Side, calibration: str) -> None:
    fake = side("fake", [anatomy(3000 + i) for i in range(60)])
    result = measured(train, fake, held_out, calibration=calibration)
    assert is_alarming(list(result.values())) is None
    assert result["memorization_copies"].value == 0.0
    assert result["generated_duplicates"].value == 0.0
    assert result["data_copying_z"].value == pytest.approx(0.0, abs=3.0)
    share = result["memorization_flagged_pixels"]
    assert share.reference == pytest.approx((1 if calibration == "held-out" else 2) / 111)
    assert any("no proof of privacy" in note for note in share.notes)


def draw(count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return generator.standard_normal((count, 6)) * np.arange(1, 7)


def verdict_of(
    train: npt.NDArray[np.float64],
    reference: npt.NDArray[np.float64] | None,
    fake: npt.NDArray[np.float64],
) -> Any:
    def candidates(queries: npt.NDArray[np.float64], same: bool) -> Candidates:
        distance, index = nearest(queries, train, 2, exclude_self=same)
        return Candidates(index, distance)

    kin = np.arange(len(train))
    ours = choose(candidates(fake, False), kin)
    same = reference is None
    theirs = choose(candidates(train if reference is None else reference, same), kin)
    own = np.arange(len(theirs.distance))
    return judge(ours, theirs, own, leave_one_out=same)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_exchangeable_data_are_rarely_accused_and_flagged_as_often_as_said(
    leave_one_out: bool,
) -> None:
    generator = np.random.default_rng(0)
    p_values, flagged = [], []
    for _ in range(150):
        train, held_out, fake = (draw(n, generator) for n in (40, 30, 100))
        verdict = verdict_of(train, None if leave_one_out else held_out, fake)
        p_values.append(verdict.p_value)
        flagged.append(verdict.by_rank.mean() - verdict.expected)
    assert np.mean(np.array(p_values) < 0.05) < 0.1  # three standard errors above 0.05
    assert abs(np.mean(flagged)) < 4 * np.std(flagged) / np.sqrt(150)


def test_copies_in_number_are_significant() -> None:
    generator = np.random.default_rng(1)
    train, held_out, fake = (draw(n, generator) for n in (100, 150, 100))
    fake[:12] = train[:12] + 0.01
    assert verdict_of(train, held_out, fake).p_value < 0.01
    assert verdict_of(train, None, fake).p_value < 0.01
    assert verdict_of(train, held_out, fake).by_ratio[:12].all()


def test_conformal_p_values_count_ranks_and_the_nearest_image_itself() -> None:
    reference = np.array([1.0, 2.0, 3.0, NAN])
    distances = np.array([0.5, 2.0, 9.0])
    assert conformal_p_values(distances, reference) == pytest.approx([1 / 4, 3 / 4, 1.0])
    rows = np.array([0, 2, 3])  # own distances 1 > 0.5, 3 > 2, unknown
    assert conformal_p_values(distances, reference, 1.0, rows) == pytest.approx([2 / 4, 1.0, 1.0])


def test_images_of_one_patient_count_for_less_the_more_alike_they_are() -> None:
    generator = np.random.default_rng(0)
    kin = np.repeat(np.arange(50), 4)
    alone = generator.random(200)
    assert likeness(alone, np.arange(200)) == 1.0
    assert likeness(np.repeat(alone[:50], 4), kin) == pytest.approx(4.0)
    assert 1.0 <= likeness(alone, kin) < 1.6
    assert likeness(alone, np.zeros(200, np.int64)) == 200.0
    assert likeness(np.ones(200), kin) == 4.0


# Kin ----------------------------------------------------------------------------------------------


def test_neighbors_of_the_own_patient_do_not_calibrate() -> None:
    """Two pictures of each patient, nearly alike: only the distance to others may count."""
    people = [anatomy(i) for i in range(30)]
    twice = [np.clip(p + 6 * (anatomy(900 + i) - 128) / 45, 0, 255).astype(np.float32)
             for i, p in enumerate(people)]  # fmt: skip
    groups = [f"patient{i}" for i in range(30)] * 2
    fake = side("fake", [anatomy(3000 + i) for i in range(30)])
    known = measured(side("train", people + twice, groups), fake)
    unknown = measured(side("train", people + twice), fake)
    medians = [
        result["memorization_flagged_pixels"].details["reference_median"]
        for result in (known, unknown)
    ]
    assert medians[0] > 3 * medians[1]
    assert known["memorization_flagged_pixels"].details["independent_references"] < 45
    assert any("Patients are not known" in n for n in unknown["memorization_copies"].notes)


def test_patients_of_copied_images_are_listed(held_out: Side) -> None:
    pictures = [anatomy(i) for i in range(40)]
    train = side("train", pictures, [f"patient{i // 2}" for i in range(40)])
    fake = side("fake", [pictures[6], pictures[7], pictures[21], *map(anatomy, range(700, 720))])
    result = measured(train, fake, held_out)
    expected = {"patient3": 2, "patient10": 1}
    assert result["memorization_copies"].details["training_groups"] == expected
    assert (
        expected.items() <= result["memorization_flagged_pixels"].details["training_groups"].items()
    )
    assert result["memorization_flagged_pixels"].details["pairs"][0]["group"] in expected


def test_held_out_pictures_of_training_patients_are_compared_with_others() -> None:
    pictures = [anatomy(i) for i in range(40)]
    train = side("train", pictures, [f"patient{i}" for i in range(40)])
    leaked = side("held", [noisy(p) for p in pictures], [f"patient{i}" for i in range(40)])
    fake = side("fake", [anatomy(3000 + i) for i in range(30)])
    one = measured(train, fake, leaked)["memorization_flagged_pixels"]
    assert one.details["reference_median"] > 20  # not the 2 gray levels between the versions


def test_repeated_training_images_neither_blind_the_ratio_nor_the_calibration() -> None:
    pictures = [anatomy(i) for i in range(40)]
    train = side("train", [*pictures, pictures[0], pictures[0][:, ::-1], jpeg(pictures[1])])
    fake = side("fake", [pictures[0], *[anatomy(3000 + i) for i in range(30)]])
    result = measured(train, fake)
    duplicates = result["memorization_copies"].details["training_duplicates"]
    assert ["train0.png", "train40.png"] in duplicates["pairs"]
    assert ["train0.png", "train41.png"] in duplicates["pairs"]
    flagged = result["memorization_flagged_pixels"]
    assert flagged.details["flagged_by_ratio"] == 1
    assert flagged.details["reference_by_ratio"] == 0.0
    assert flagged.details["pairs"][0]["second_distance"] > 10
    assert any("near copy in the training set" in note for note in flagged.notes)


def test_the_second_neighbor_is_no_kin_of_the_first() -> None:
    candidates = Candidates(
        np.array([[0, 1, 2], [2, 1, 0], [0, 1, -1]]),
        np.array([[1.0, 2.0, 5.0], [1.0, 2.0, 3.0], [1.0, 2.0, np.inf]]),
    )
    kin = np.array([7, 7, 8])
    chosen = choose(candidates, kin)
    assert chosen.second[:2].tolist() == [5.0, 2.0]
    assert np.isnan(chosen.second[2])
    assert chosen.by_ratio.tolist() == [True, False, False]
    own = choose(candidates, kin, np.array([7, 7, 7]))
    assert own.index.tolist() == [2, 2, -1]
    assert np.isnan(own.distance[2])


# Degenerate sets ----------------------------------------------------------------------------------


def test_the_generator_that_repeats_itself_is_told() -> None:
    train = side("train", [anatomy(i) for i in range(20)])
    fake = side("fake", [anatomy(500), anatomy(500)[:, ::-1], jpeg(anatomy(500)), anatomy(501)])
    result = measured(train, fake)
    assert result["generated_duplicates"].value == 0.75
    assert result["generated_duplicates"].reference == 0.0


def test_one_generated_image_is_judged() -> None:
    train = side("train", [anatomy(i) for i in range(20)])
    result = measured(train, side("fake", [anatomy(3)]))
    assert result["memorization_copies"].value == 1.0
    assert result["data_copying_z"].value is None
    assert result["generated_duplicates"].value is None
    assert is_alarming(list(result.values())) is not None


def test_constant_pictures_have_no_calibration_and_set_off_no_alarm() -> None:
    flat = [np.full((64, 64), 90.0, np.float32)] * 25
    result = measured(side("train", flat), side("fake", flat), side("held", flat))
    assert result["memorization_flagged_pixels"].value is None
    assert result["memorization_flagged_features"].value is None
    assert result["memorization_copies"].value == result["memorization_copies"].reference == 1.0
    assert is_alarming(list(result.values())) is None


def test_few_reference_images_say_what_they_can_resolve(train: Side) -> None:
    held_out = side("held", [anatomy(1000 + i) for i in range(25)])
    one = measured(train, side("fake", [anatomy(600)]), held_out)["memorization_flagged_pixels"]
    assert one.reference == pytest.approx(1 / 26)
    assert any("25 reference images no share below 3.8 %" in note for note in one.notes)


def test_too_few_held_out_images_leave_one_out_instead(train: Side) -> None:
    fake, few = side("fake", [anatomy(600)]), side("held", [anatomy(1000 + i) for i in range(5)])
    one = measured(train, fake, few)["memorization_flagged_pixels"]
    assert one.details["calibrated_by"] == "leave-one-out"
    asked = measured(train, fake, few, calibration="held-out")["memorization_flagged_pixels"]
    assert asked.details["reference_images"] == 5


def test_sets_that_cannot_be_compared_are_refused(train: Side) -> None:
    fake = side("fake", [anatomy(600)])
    with pytest.raises(ValueError, match="training set has 1 and the generated set 1"):
        measured(side("train", [anatomy(0)]), fake)
    with pytest.raises(ValueError, match="there are none"):
        measured(train, fake, calibration="held-out")
    assert fake.features is not None
    with pytest.raises(ValueError, match="same extractor"):
        measured(train, replace(fake, features=fake.features[:, :5]))
    with pytest.raises(ValueError, match="generated features are not finite"):
        measured(train, replace(fake, features=np.full_like(fake.features, np.nan)))


def test_searching_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch, train: Side) -> None:
    assert train.thumbnails is not None
    whole = look_alikes(train.thumbnails, train.thumbnails, same=True)
    monkeypatch.setattr(looks, "_QUERIES", 7)
    monkeypatch.setattr(looks, "_PAIRS", 11)
    parts = look_alikes(train.thumbnails, train.thumbnails, same=True)
    assert (whole.index == parts.index).all()
    assert (whole.distance == parts.distance).all()
    assert (whole.index != np.arange(len(whole.index))[:, None]).all()


def test_a_generator_that_copies_as_a_whole_has_a_low_statistic(train: Side) -> None:
    pictures = [0.8 * anatomy(i) + 0.2 * anatomy(4000 + i) for i in range(110)]
    fake = side("fake", [p.astype(np.float32) for p in pictures])
    held_out = side("held", [anatomy(1000 + i) for i in range(80)])
    result = measured(train, fake, held_out)
    one = result["data_copying_z"]
    assert one.value is not None and one.value < -3
    assert all(cell["reference_images"] >= 20 for cell in one.details["cells"])
    far = data_copying(np.full(50, 9.0), np.arange(50.0) / 50)
    assert far.z > 3
    flat = data_copying(np.zeros(30), np.zeros(30))
    assert flat.u == 450.0
    assert 0.0 <= flat.p_value <= 1.0


def test_a_verdict_needs_no_reference_with_a_second_neighbor() -> None:
    lonely = Chosen(np.zeros(4, np.int64), np.arange(1.0, 5.0), np.full(4, NAN))
    verdict = judge(lonely, lonely, np.arange(4), leave_one_out=False)
    assert verdict.p_value == 1.0
    assert not verdict.flagged.any()


# Real pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("cxr-nih", 60), ("faces-orl", 50), ("rbc-smear", 19)])
def test_real_test_pictures_are_no_copies_and_planted_ones_are(
    shared: Path, name: str, count: int
) -> None:
    def load(split: str) -> tuple[list[Picture], list[str]]:
        with (shared / "data" / name / "splits.csv").open() as table:
            rows = [row for row in csv.DictReader(table) if row["split"] == split][:count]
        pictures = [Image.open(shared / "data" / name / row["file"]).convert("L") for row in rows]
        return [np.asarray(p, np.float32) for p in pictures], [row["group"] for row in rows]

    train, patients = load("train")
    real, others = side("train", train, patients), load("test")[0]
    assert is_alarming(list(measured(real, side("fake", others)).values())) is None
    planted = [*others, train[0], train[1][:, ::-1], jpeg(train[2])]
    result = measured(real, side("fake", planted))
    found = {
        pair["training"] for pair in result["memorization_flagged_pixels"].details["pairs"][:3]
    }
    assert found == {"train0.png", "train1.png", "train2.png"}
    assert "near copies" in str(is_alarming(list(result.values())))
