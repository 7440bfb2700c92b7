from __future__ import annotations

import numpy as np

from tfgan_med.ops.marking import BLUE, GREEN, RED, errors_in_color, framed_in, outline


def test_an_outline_is_the_inner_edge_and_the_picture_stays_as_it_was() -> None:
    picture, mask = np.full((8, 8, 3), 7, np.uint8), np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    drawn = outline(picture, mask, GREEN)
    edge = mask.copy()
    edge[3:5, 3:5] = False
    assert (drawn[edge] == GREEN).all()
    assert (drawn[~edge] == 7).all()
    assert (picture == 7).all()


def test_a_frame_leaves_the_middle() -> None:
    drawn = framed_in(np.zeros((64, 64, 3), np.uint8), RED)
    assert (drawn[:2] == RED).all()
    assert (drawn[:, -2:] == RED).all()
    assert not drawn[2:-2, 2:-2].any()


def test_found_missed_and_wrong_pixels_have_colours_of_their_own() -> None:
    truth, said = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    drawn = errors_in_color(np.full((1, 4, 3), 100, np.uint8), truth, said)
    for pixel, color in zip(drawn[0], (GREEN, BLUE, RED), strict=False):
        np.testing.assert_array_equal(pixel, np.round(55 + 0.45 * np.array(color)))
    assert (drawn[0, 3] == 100).all()
