"""Which item comes when, and how it is jittered: functions of seed, epoch and index only.

Nothing here has a state, so a run that is resumed at step k sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfgan_med.batches import Tensor

ORDER, DRAWS = 0, 1  # streams of random numbers that must not be the same


def item_at(position: Tensor, count: int, seed: int, domain: int = 0) -> tuple[Tensor, Tensor]:
    """The item at a position in the endless sequence of shuffled epochs.

    Args:
        position: int64 scalar, items seen before.
        count: items in an epoch; every epoch has each of them once.
        seed: of the run.
        domain: sets shuffled independently of each other, as in unpaired translation, have
            different numbers.
    Returns:
        Epoch and index of the item, int64 scalars.
    """
    epoch = position // count
    key = _key(seed, ORDER, domain, epoch)
    index = tf.random.experimental.index_shuffle(position % count, key, count - 1)
    return epoch, tf.cast(index, tf.int64)


def _key(seed: int, stream: int, domain: int, *numbers: Tensor) -> Tensor:
    """A seed `(2,)` for stateless random numbers out of all of these."""
    key = tf.constant([seed, 2 * domain + stream], tf.int64)
    for number in numbers:
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(number, tf.int64))
    return key


@dataclass(frozen=True)
class Jitter:
    """The random jitter of Isola et al., arXiv:1611.07004, section 6.2: crop and mirror.

    Attributes:
        size: side of the random crop in pixels.
        flip, flip_vertical: mirror with probability 1/2, left to right and upside down.
        rotate90: turn by 0, 90, 180 or 270 degrees.
    """

    size: int
    flip: bool = True
    flip_vertical: bool = False
    rotate90: bool = False

    def __call__(
        self, pictures: Sequence[Tensor], seed: int, epoch: Tensor, index: Tensor, domain: int = 0
    ) -> list[Tensor]:
        """Jitter pictures that belong together by the same draws.

        Args:
            pictures: each `(side, side, channels)` of any type, one side for all, at least `size`.
            seed, epoch, index, domain: of the run and from `item_at`; they fix the draws.
        Returns:
            The pictures, `(size, size, channels)`; values are moved, never mixed.
        """
        key = _key(seed, DRAWS, domain, epoch, index)
        draws = tf.random.stateless_uniform([5], key)
        span = int(pictures[0].shape[0]) - self.size
        top, left = (tf.cast(draws[i] * (span + 1), tf.int32) for i in range(2))
        turns = tf.cast(draws[4] * 4, tf.int32)

        jittered = []
        for picture in pictures:
            picture = picture[top : top + self.size, left : left + self.size]
            if self.flip:
                picture = _reversed_if(draws[2] < 0.5, picture, axis=1)
            if self.flip_vertical:
                picture = _reversed_if(draws[3] < 0.5, picture, axis=0)
            if self.rotate90:
                picture = tf.image.rot90(picture, turns)
            jittered.append(tf.ensure_shape(picture, (self.size, self.size, picture.shape[-1])))
        return jittered


def _reversed_if(condition: Tensor, picture: Tensor, axis: int) -> Tensor:
    return tf.cond(condition, lambda: tf.reverse(picture, [axis]), lambda: picture)
