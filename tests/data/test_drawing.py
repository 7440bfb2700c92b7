from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.data.drawing import PERIOD, Draws, Stream


def drawn(draws: Draws, start: int, count: int) -> list[int]:
    positions = tf.data.Dataset.range(start, start + count)
    return [int(row) for row in positions.map(draws)]


def stream(first: int, count: int, share: float) -> Stream:
    return Stream(np.arange(first, first + count), share)


def test_one_stream_shows_every_picture_once_an_epoch_in_another_order_each_time() -> None:
    draws = Draws([stream(5, 12, 1.0)], seed=3)
    rows = drawn(draws, 0, 36)
    epochs = [rows[:12], rows[12:24], rows[24:]]
    assert all(sorted(epoch) == list(range(5, 17)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_streams_have_exactly_their_shares_of_a_period() -> None:
    draws = Draws([stream(0, 7, 0.8805), stream(100, 3, 0.1195)], seed=0)
    rows = np.array(drawn(draws, 0, 2 * PERIOD))
    for part in (rows[:PERIOD], rows[PERIOD:]):
        assert np.isclose((part >= 100).mean(), 0.1195, atol=1 / PERIOD)


def test_no_window_of_draws_is_far_from_the_share() -> None:
    rows = np.array(drawn(Draws([stream(0, 50, 0.5), stream(100, 9, 0.5)], seed=1), 0, 400))
    synthetic = np.convolve(rows >= 100, np.ones(16), mode="valid")
    assert synthetic.min() >= 7
    assert synthetic.max() <= 9


def test_each_stream_goes_through_all_its_pictures_across_periods() -> None:
    rows = np.array(drawn(Draws([stream(0, 40, 0.75), stream(100, 10, 0.25)], seed=2), 0, 4000))
    assert (np.bincount(rows[rows < 100], minlength=40) == 75).all()
    assert (np.bincount(rows[rows >= 100] - 100, minlength=10) == 100).all()


def test_the_place_alone_decides_so_a_resumed_run_draws_the_same() -> None:
    streams = [stream(0, 13, 0.6), stream(50, 5, 0.4)]
    whole = drawn(Draws(streams, seed=4), 0, 1300)
    assert drawn(Draws(streams, seed=4), 990, 310) == whole[990:]
    assert drawn(Draws(streams, seed=5), 0, 1300) != whole


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5])
def test_the_other_stream_does_not_change_when_a_picture_is_added(share: float) -> None:
    """Arms that differ in synthetic pictures only draw the real ones in the same order."""
    few = Draws([stream(0, 20, 1 - share), stream(100, 5, share)], seed=7)
    more = Draws([stream(0, 20, 1 - share), stream(100, 9, share)], seed=7)
    real = [[row for row in drawn(d, 0, 500) if row < 100] for d in (few, more)]
    assert real[0] == real[1]
