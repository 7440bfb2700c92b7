"""What happens between steps: events, a watch over the players, a budget for evaluations."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfgan_med.training.run_folder import RunFolder


class Events:
    """Scalars, pictures and texts for TensorBoard, in `events/`."""

    def __init__(self, folder: RunFolder) -> None:
        self._writer = tf.summary.create_file_writer(str(folder.path / "events"))

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """One curve `group/name` for each value."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", value)

    def picture(self, step: int, name: str, pixels: Any) -> None:
        """`pixels`: (height, width, 3) uint8."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, pixels[None])
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """A Markdown text, e.g. the settings."""
        with self._writer.as_default(step=0):
            tf.summary.text(name, text)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


COLLAPSE_PATIENCE = 3  # sample sheets; the first ones of a run are alike


class Watch:
    """Says in words when training goes the ways it usually goes wrong.

    Args:
        images: training pictures, for the message.
        advice: what to try when the discriminator is sure of every batch.
        patience: intervals in a row that must look wrong before it speaks, once per symptom.
    """

    SEPARATED = 3.0  # sigmoid(3) = 0.95: the discriminator is sure of both
    COLLAPSED = 0.1  # variety of the samples as a share of that of the targets

    def __init__(self, images: int, advice: str, patience: int = 20) -> None:
        self.images = images
        self.advice = advice
        self._separated: deque[bool] = deque(maxlen=patience)
        self._collapsed: deque[bool] = deque(maxlen=COLLAPSE_PATIENCE)
        self._said: set[str] = set()

    def losses(self, means: Mapping[str, float]) -> str | None:
        """A warning if the discriminator has been sure of real and fake for many intervals."""
        if "real_score" not in means:
            return None
        sure = means["real_score"] > self.SEPARATED and means["fake_score"] < -self.SEPARATED
        self._separated.append(sure)
        if len(self._separated) < (self._separated.maxlen or 0) or not all(self._separated):
            return None
        return self._once(
            "separated",
            f"The discriminator has separated every batch for {len(self._separated)} intervals "
            f"({self.images} training pictures), so the generator learns little from it. Usual for "
            f"small sets and for a strong discriminator: in a new run try {self.advice}.",
        )

    def samples(self, variety_fake: float, variety_target: float) -> str | None:
        """A warning if different inputs give nearly the same picture three times in a row.

        Args:
            variety_fake, variety_target: mean over pixels of the standard deviation over pictures.
        """
        self._collapsed.append(variety_fake < self.COLLAPSED * variety_target)
        if len(self._collapsed) < COLLAPSE_PATIENCE or not all(self._collapsed):
            return None
        return self._once(
            "collapsed",
            "The samples hardly differ although their inputs do: the generator ignores its input. "
            "Check the training pictures in samples/; if they are right, try a lower learning rate "
            "in a new run, `--set model.learning_rate=1e-4`.",
        )

    def once(self, text: str | None) -> str | None:
        """The text the first time, by its first words."""
        return text and self._once(text[:24], text)

    def _once(self, symptom: str, text: str) -> str | None:
        if symptom in self._said:
            return None
        self._said.add(symptom)
        return text


class Budget:
    """Keeps evaluations within a share of the run's time.

    Args:
        share: largest share of the wall time that evaluations may take.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._start = time.perf_counter()
        self._spent = 0.0
        self._last = 0.0

    def allows(self) -> bool:
        """Whether one more evaluation, as long as the last, stays within the share."""
        elapsed = time.perf_counter() - self._start
        return self._last == 0.0 or self._spent + self._last <= self.share * (elapsed + self._last)

    def spend(self, seconds: float) -> None:
        """Count an evaluation."""
        self._spent += seconds
        self._last = seconds
