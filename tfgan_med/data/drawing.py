"""Which training picture comes when, out of several streams with fixed shares of the draws.

The place in the sequence decides everything, so that a resumed run draws what it would have drawn,
and two runs with the same seed draw alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfgan_med.batches import Tensor
from tfgan_med.data.jitter import item_at

PERIOD = 1000  # draws after which the pattern of the streams repeats; shares are exact to 0.1 %


@dataclass(frozen=True)
class Stream:
    """Pictures that are drawn in shuffled epochs of their own.

    Attributes:
        rows: `(pictures,)` their numbers.
        share: of all draws, 0 to 1.
    """

    rows: npt.NDArray[np.int64]
    share: float


class Draws:
    """An endless sequence of rows; each stream has exactly its share of every 1000 draws.

    Args:
        streams: none of them empty; their shares add up to 1.
        seed: of the run.
    """

    def __init__(self, streams: Sequence[Stream], seed: int) -> None:
        self.streams = tuple(streams)
        self.seed = seed
        pattern = _pattern([stream.share for stream in streams])
        self._counts = np.bincount(pattern, minlength=len(streams))
        # How often the stream of a place came before it within the period.
        self._ranks = np.array(
            [np.count_nonzero(pattern[:i] == pattern[i]) for i in range(len(pattern))], np.int64
        )
        self._pattern = pattern

    def __call__(self, position: Tensor) -> Tensor:
        """The row at a place of the sequence, int64 scalars."""
        if len(self.streams) == 1:
            return self._from(0, position)
        place = position % PERIOD
        stream = tf.gather(tf.constant(self._pattern), place)
        before = position // PERIOD * tf.gather(tf.constant(self._counts), stream)
        within = before + tf.gather(tf.constant(self._ranks), place)
        branches = [
            lambda index=index: self._from(index, within) for index in range(len(self.streams))
        ]
        return tf.switch_case(tf.cast(stream, tf.int32), branches)

    def _from(self, index: int, position: Tensor) -> Tensor:
        rows = self.streams[index].rows
        _, item = item_at(position, len(rows), self.seed, domain=index)
        return tf.gather(tf.constant(rows), item)


def _pattern(shares: Sequence[float]) -> npt.NDArray[np.int64]:
    """The stream of each place of a period: the one that is furthest behind its share."""
    given = np.zeros(len(shares))
    pattern = np.empty(PERIOD, np.int64)
    for place in range(PERIOD):
        pattern[place] = int(np.argmax(np.array(shares) * (place + 1) - given))
        given[pattern[place]] += 1
    return pattern
