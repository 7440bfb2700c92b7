"""DCAN: counts, targets from numbered objects, decoding, fading losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgan_med.downstream._instances import boxes, decode, smallest_area
from tfgan_med.downstream.base import Problem
from tfgan_med.downstream.dcan import DCAN, DCANConfig, object_and_contour
from tfgan_med.networks.fcn import two_heads

PROBLEM = Problem(64, 1, ("cell",), exclusive=False)


def make(**settings: Any) -> DCAN:
    narrow = {"base": 4, "features": 8, "weights": "none"}
    return DCAN(DCANConfig(**{**narrow, **settings}), PROBLEM)


def numbered(*rows: str) -> npt.NDArray[np.int32]:
    """One picture from rows of digits, `.` for 0."""
    grid = [[int(c) for c in row.replace(".", "0")] for row in rows]
    return np.array(grid, np.int32)[None, :, :, None]


def drawn(mask: Any) -> list[str]:
    return ["".join(".#"[int(pixel)] for pixel in row) for row in np.asarray(mask)]


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("features", "every"), [(1024, 41_459_526), (512, 27_825_990)])
def test_numbers_of_weights_of_two_heads(features: int, every: int) -> None:
    network = two_heads((64, 64), 3, features=features)
    assert network.count_params() == every
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == every


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (256, 256), (96, 160), (50, 70)])
def test_two_heads_give_the_sum_and_three_summands(size: tuple[int, int]) -> None:
    network = two_heads(size, 3, features=8, base=2)
    for head in ("object", "contour"):
        for stage in (4, 5, 6):
            layer = network.get_layer(f"{head}{stage}")
            layer.kernel.assign(
                np.cos(stage + np.arange(layer.kernel.shape[2]))[None, None, :, None]
            )
    total, *single = network(tf.random.stateless_normal((1, *size, 3), (1, 2)))
    assert [maps.shape for maps in (total, *single)] == [(1, *size, 2)] * 4
    assert all(np.abs(maps).max() > 0 for maps in single)
    np.testing.assert_allclose(total, sum(maps.numpy() for maps in single), atol=1e-5)


@pytest.mark.parametrize("variant", ["fcn8s", "chen"])
def test_the_network_gives_both_maps_and_the_belief_is_of_objects(variant: str) -> None:
    model = make(variant=variant)
    score = model.network.get_layer("object4" if variant == "chen" else "score")
    score.bias.assign(np.linspace(3.0, -3.0, score.bias.shape[0]))
    images = np.zeros((2, 64, 64, 1), np.float32)
    logits = model.network(images).numpy()
    assert logits.shape == (2, 64, 64, 2)
    believed = model.probabilities(images)
    np.testing.assert_allclose(believed, 1 / (1 + np.exp(-logits[..., :1])), atol=1e-5)
    assert believed[0, 32, 32, 0] > 0.9


def test_several_kinds_of_objects_are_refused() -> None:
    problem = Problem(64, 1, ("red", "white"), exclusive=False)
    with pytest.raises(ValueError, match="red, white"):
        DCAN(DCANConfig(weights="none", base=2, features=4), problem)


def test_losses_of_single_strides_fade_and_end() -> None:
    model = make(variant="chen", fading_interval=10)
    weights = []
    for step in (0, 9, 10, 20, 29, 30, 500):
        model.step.assign(step)
        weights.append(float(model._strides_weight()))
    assert weights == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.01, 0.0, 0.0])
    assert model.loss_names == ("loss", "object", "contour", "strides")
    assert make().loss_names == ("loss", "object", "contour")


# Targets ------------------------------------------------------------------------------------------


def test_touching_objects_have_a_contour_between_them() -> None:
    ids = numbered(
        "........",
        ".111222.",
        ".111222.",
        ".111222.",
        "........",
    )
    targets = object_and_contour(ids, radius=0).numpy()[0]
    assert drawn(targets[..., 0]) == ["........", *[".######."] * 3, "........"]
    assert drawn(targets[..., 1]) == [
        "........",
        ".######.",
        ".#.##.#.",
        ".######.",
        "........",
    ]


def test_contours_are_thickened_by_a_disk() -> None:
    ids = np.zeros((1, 7, 7, 1), np.int32)
    ids[0, 3, 3] = 5
    assert drawn(object_and_contour(ids, 1).numpy()[0, ..., 1]) == [
        ".......",
        ".......",
        "...#...",
        "..###..",
        "...#...",
        ".......",
        ".......",
    ]
    assert drawn(object_and_contour(ids, 2).numpy()[0, ..., 1]) == [
        ".......",
        "...#...",
        "..###..",
        ".#####.",
        "..###..",
        "...#...",
        ".......",
    ]


def test_the_border_of_the_picture_is_no_boundary() -> None:
    full = np.ones((1, 6, 6, 1), np.int32)
    assert object_and_contour(full, 1).numpy()[..., 1].sum() == 0
    assert object_and_contour(0 * full, 1).numpy().sum() == 0


# Decoding -----------------------------------------------------------------------------------------


def two_discs() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Discs of radius 10 that touch along a few pixels, and their ideal maps."""
    rows, columns = np.mgrid[:40, :60]
    ids = np.zeros((40, 60), np.int32)
    ids[(rows - 20) ** 2 + (columns - 20) ** 2 <= 100] = 1
    ids[(rows - 20) ** 2 + (columns - 40) ** 2 <= 100] = 2
    maps = object_and_contour(ids[None, :, :, None], 1).numpy()[0]
    return ids, maps


def test_decoding_separates_discs_that_plain_components_merge() -> None:
    ids, maps = two_discs()
    assert ndimage.label(maps[..., 0], np.ones((3, 3)))[1] == 1
    found = decode(maps[..., 0], maps[..., 1], radius=1)
    assert found.max() == 2
    for number in (1, 2):
        wanted = ids == number
        best = max(
            (wanted & (found == other)).sum() / (wanted | (found == other)).sum()
            for other in (1, 2)
        )
        assert best > 0.8  # the contour's own pixels on both sides are given back but for one


def test_holes_are_filled_after_contours_are_taken_away() -> None:
    """A ring closed only by contours is background inside."""
    objects = np.zeros((9, 9))
    objects[1:8, 1:8] = 1
    objects[3:6, 3:6] = 0  # background that four objects enclose
    contours = np.zeros((9, 9))
    contours[4, :3] = contours[4, 6:] = contours[:3, 4] = contours[6:, 4] = 1
    assert decode(objects, contours, radius=0)[4, 4] == 0
    assert decode(objects, contours, radius=0).max() == 4
    assert decode(objects, 0 * contours, radius=0)[4, 4] == 1  # a hole of one object


def test_small_components_are_dropped_and_the_rest_renumbered() -> None:
    objects = np.zeros((12, 12))
    objects[0, 0] = objects[2:6, 2:6] = objects[8, 8] = objects[8:11, 2:5] = 1
    found = decode(objects, 0 * objects, smallest=5, radius=0)
    np.testing.assert_array_equal(np.bincount(found.ravel()), [144 - 25, 16, 9])
    assert decode(0 * objects, 0 * objects).max() == 0


def test_growing_objects_do_not_overwrite_each_other() -> None:
    objects = np.zeros((5, 9))
    objects[2, [2, 5]] = 1
    found = decode(objects, 0 * objects, radius=3)
    assert [(found == number).sum() > 4 for number in (1, 2)] == [True, True]
    assert found[2].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_boxes_enclose_objects_and_score_their_mean_probability() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 2:7], labels[4, 0] = 1, 2
    objects = np.where(labels == 1, 0.75, 0.5)
    found = boxes(labels, objects)
    np.testing.assert_allclose(found, [[2, 1, 7, 3, 0.75], [0, 4, 1, 5, 0.5]])
    assert boxes(0 * labels, objects).shape == (0, 5)


def test_the_smallest_area_is_a_quarter_of_a_small_training_objects() -> None:
    ids = np.zeros((20, 20), np.int32)
    ids[:4, :5], ids[10:14, :10] = 7, 9  # 20 and 40 pixels
    assert smallest_area([ids, 0 * ids]) == pytest.approx(0.25 * 21.0)
    assert smallest_area([0 * ids]) == 0.0


def test_instances_come_from_the_networks_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    _, maps = two_discs()
    model = make()
    both = np.stack([maps, 0 * maps])
    monkeypatch.setattr(model, "_both", lambda images: both[: len(images)])
    found = model.instances(np.zeros((2, 64, 64, 1), np.float32))
    assert found.shape == (2, 40, 60)
    assert [picture.max() for picture in found] == [2, 0]


def test_both_maps_are_probabilities() -> None:
    model = make()
    both = model._both(np.zeros((1, 64, 64, 1), np.float32))
    assert both.shape == (1, 64, 64, 2)
    assert tf.reduce_all((both >= 0) & (both <= 1))
