"""What everything that is trained shares: optimizer step, random numbers, losses, whole state.

A system is one `keras.Model` that owns several networks and several optimizers. It says what one
step does in `train_step`; precision, loss scaling and devices are the business of `minimize`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfgan_med.batches import Tensor
from tfgan_med.learning.optimizers import inner
from tfgan_med.ops import random

SUM_PER_REPLICA = "only_first_replica"  # values are equal on all replicas when they are assigned


class System(keras.Model):
    """Networks that learn together as one Keras model; a subclass builds them, then calls `finish`.

    Args:
        losses: names of the values `train_step` passes to `track`, in the field's words.
        seed: of all random numbers of the training steps.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {}
    """The paper's settings of data and training, below a settings file."""

    def __init__(self, losses: Sequence[str], seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.seed = seed
        self.loss_names = tuple(losses)
        self.networks: dict[str, keras.Model] = {}
        self.optimizers: dict[str, keras.optimizers.Optimizer] = {}
        self.extra_state: dict[str, keras.Variable] = {}
        self.notices: list[str] = []  # doubtful settings, said before the first step
        self.step = self._counter("step", ())
        self._totals = self._counter("loss_totals", (len(losses),), "float32")
        self._count = self._counter("loss_count", ())
        self._first_bad = self._counter("first_bad_step", (len(losses),))
        self._gradient_norms: dict[str, keras.Variable] = {}
        self.gradient_norm_interval = 50

    @staticmethod
    def _counter(name: str, shape: tuple[int, ...], dtype: str = "int64") -> keras.Variable:
        start = -1 if name == "first_bad_step" else 0
        return keras.Variable(
            lambda shape, dtype: tf.fill(shape, tf.constant(start, dtype)),
            shape=shape,
            dtype=dtype,
            trainable=False,
            name=name,
            aggregation=SUM_PER_REPLICA,
        )

    def finish(self) -> None:
        """Mark the model as built: under a strategy Keras would otherwise call it on the batch."""
        for name in self.optimizers:
            self._gradient_norms[name] = self._counter(f"{name}_gradient_norm", (), "float32")
        self.built = True

    def own_optimizer(
        self, name: str, optimizer: keras.optimizers.Optimizer, *networks: keras.Model
    ) -> keras.optimizers.Optimizer:
        """Keep an optimizer for the trainable weights of `networks`, built in this scope.

        Under `mixed_float16` it is wrapped for loss scaling.
        """
        if keras.config.dtype_policy().name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build([v for network in networks for v in network.trainable_variables])
        self.optimizers[name] = optimizer
        return optimizer

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Look at real batches once before the first step; most systems need not."""

    def after_evaluation(self, improved: bool) -> None:
        """Hear whether the deciding score has risen, for learning rates that depend on it."""

    def minimize(self, loss: Tensor, tape: tf.GradientTape, name: str, *networks: Any) -> None:
        """One step of optimizer `name` on `loss`, for the trainable weights of `networks`.

        Args:
            loss: float32 scalar, the mean over this replica's share of the batch.
            tape: the tape that recorded it; the loss scale enters as upstream gradient.
        Raises:
            ValueError: if the loss does not reach a weight, naming it.
        """
        optimizer = self.optimizers[name]
        variables = [v for network in networks for v in network.trainable_variables]
        upstream = optimizer.scale_loss(tf.ones_like(loss))
        gradients = tape.gradient(loss, variables, output_gradients=upstream)
        unreached = [v.path for v, g in zip(variables, gradients, strict=True) if g is None]
        if unreached:
            raise ValueError(f"The {name} loss does not reach {', '.join(unreached[:5])}.")
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        if replicas > 1:
            # Averaged here because Keras looks for float16 overflow on the first replica only,
            # and divided because its optimizers sum over replicas once more.
            gradients = context.all_reduce("MEAN", gradients)
            gradients = [gradient / replicas for gradient in gradients]
        self._note_gradient_norm(name, gradients, replicas / upstream)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def _note_gradient_norm(self, name: str, gradients: list[Tensor], unscale: Tensor) -> None:
        """Keep the norm of the unscaled gradients every few steps; each costs a pass over them."""
        noted = self._gradient_norms[name]
        due = tf.equal(self.step.value % self.gradient_norm_interval, 0)
        noted.assign(
            tf.cond(
                due,
                lambda: tf.linalg.global_norm(gradients) * tf.cast(unscale, tf.float32),
                lambda: tf.convert_to_tensor(noted.value),
            )
        )

    def normal(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Standard normal numbers, a function of (seed, step, stream, replica) alone."""
        return random.normal(shape, self.random_seed(stream))

    def random_seed(self, stream: int = 0) -> Tensor:
        """Seed `(2,)` int64 for stateless draws, a function of (seed, step, stream, replica)."""
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        return tf.stack([self.seed + 1009 * stream + 100003 * replica, self.step.value])

    def track(self, **losses: Tensor) -> dict[str, Tensor]:
        """Count the step and add its losses, averaged over replicas, to the running means."""
        if tuple(losses) != self.loss_names:
            raise ValueError(f"Expected losses {self.loss_names}, received {tuple(losses)}.")
        values = tf.stack([tf.cast(value, tf.float32) for value in losses.values()])
        values = tf.distribute.get_replica_context().all_reduce("MEAN", values)
        good = tf.math.is_finite(values) | (self._first_bad.value >= 0)
        self._first_bad.assign(tf.where(good, self._first_bad.value, self.step.value + 1))
        self._totals.assign_add(values)
        self._count.assign_add(1)
        self.step.assign_add(1)
        return dict(zip(losses, tf.unstack(values, len(losses)), strict=True))

    def loss_means(self) -> dict[str, float]:
        """Means since the last call, then start anew."""
        count = max(int(self._count.numpy()), 1)
        means = self._totals.numpy() / count
        self._totals.assign(tf.zeros_like(self._totals.value))
        self._count.assign(0)
        return dict(zip(self.loss_names, map(float, means), strict=True))

    def bad_loss(self) -> tuple[str, int] | None:
        """Name and step of the first loss that was NaN or infinite, if any."""
        found = [
            (int(step), name)
            for name, step in zip(self.loss_names, self._first_bad.numpy(), strict=True)
            if step >= 0
        ]
        return (min(found)[1], min(found)[0]) if found else None

    def gradient_norms(self) -> dict[str, float]:
        """Latest noted norm of each player's gradients."""
        return {name: float(value.numpy()) for name, value in self._gradient_norms.items()}

    def learning_rates(self) -> dict[str, float]:
        """Current rate of each optimizer."""
        rates = {name: inner(o).learning_rate for name, o in self.optimizers.items()}
        return {name: float(keras.ops.convert_to_numpy(rate)) for name, rate in rates.items()}

    def state(self) -> dict[str, keras.Variable]:
        """Every variable a resumed run needs, named by owner and position within it.

        Keras' own paths count layers per process, so they differ between a run and its
        continuation; the order of a network's variables does not.
        """
        variables = {"step": self.step}
        for kind, owners in (("network", self.networks), ("optimizer", self.optimizers)):
            for name, owner in owners.items():
                for index, variable in enumerate(owner.variables):
                    variables[f"{kind}/{name}/{index:04d}-{variable.name}"] = variable
        return {**variables, **{f"extra/{n}": v for n, v in self.extra_state.items()}}
