"""What every generative system shares: the optimizer step, random numbers, losses, its whole state.

A system is one `keras.Model` that owns several networks and several optimizers. It says what one
step does in `train_step`; precision, loss scaling and devices are the business of `minimize`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from tfgan_med.batches import Tensor
from tfgan_med.ops import random

SUM_PER_REPLICA = "only_first_replica"  # values are equal on all replicas when they are assigned


class GenerativeModel(keras.Model):
    """A GAN as one Keras model; a subclass builds its networks, then calls `self.finish()`.

    Args:
        losses: names of the values `train_step` passes to `track`, in the field's words.
        seed: of all random numbers of the training steps.
    """

    defaults: ClassVar[dict[str, dict[str, Any]]] = {}
    """The paper's settings of data and training, below a settings file."""
    needs: ClassVar[Literal["pairs", "images", "domains"]]
    """What it is trained on, which decides data, samples and scores of its runs."""
    exports: ClassVar[tuple[str, ...]] = ("generator",)
    """Networks that a trained run keeps to make pictures with."""

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

    def keep_average(self, network: keras.Model) -> None:
        """Keep a moving average of a network's weights, for `average` and the checkpoint."""
        average = keras.models.clone_model(network)
        average.set_weights(network.get_weights())
        average.trainable = False
        self.networks[f"ema_{network.name}"] = average

    def average(self, name: str) -> keras.Model:
        """The moving average of network `name` if one is kept, else the network itself."""
        return self.networks.get(f"ema_{name}", self.networks[name])

    def update_average(self, network: keras.Model, decay: float) -> None:
        """Move the average towards `network`: a <- decay a + (1 - decay) w; statistics are copied.

        The decay is (1 + step) / (10 + step) while that is smaller, so that the untrained
        weights are forgotten early (as in `tf.train.ExponentialMovingAverage`).
        """
        step = tf.cast(self.step.value, tf.float32)
        decay = tf.minimum(decay, (1.0 + step) / (10.0 + step))
        average = self.networks[f"ema_{network.name}"]
        trained = {id(v) for v in network.trainable_variables}
        for new, old in zip(network.weights, average.weights, strict=True):
            if id(new) in trained:
                old.assign(old.value + (new.value - old.value) * (1.0 - decay))
            else:
                old.assign(new.value)

    @contextlib.contextmanager
    def undisturbed(self, network: keras.Model, seed: int) -> Iterator[None]:
        """Use a network in training mode without leaving a trace: dropout draws from `seed`, and
        statistics and seeds are put back, so that looking at samples changes no run."""
        trained = {id(v) for v in network.trainable_weights}
        kept = [(v, v.numpy()) for v in network.variables if id(v) not in trained]
        seeds = [v for v, _ in kept if "seed_generator_state" in v.path]
        draw = np.random.default_rng([self.seed, seed])
        for variable in seeds:
            variable.assign(draw.integers(0, 2**31, size=tuple(variable.shape)))
        try:
            yield
        finally:
            for variable, value in kept:
                variable.assign(value)

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


@dataclass(frozen=True)
class Schedule:
    """Length of a run, for learning rates: epochs, and optimizer steps of one."""

    epochs: int
    steps_per_epoch: int


UNSCHEDULED = Schedule(epochs=1, steps_per_epoch=1)


class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant for the first epochs, then in equal steps towards zero.

        factor(epoch) = 1 - max(0, epoch + 1 - constant) / (decay + 1)

    Args:
        rate: learning rate at the start.
        constant_epochs, decay_epochs: lengths of the two parts; epochs count from 0.
        steps_per_epoch: optimizer steps of an epoch.
    Source: junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py, policy `linear`.
    """

    def __init__(
        self, rate: float, constant_epochs: int, decay_epochs: int, steps_per_epoch: int
    ) -> None:
        self.rate = rate
        self.constant_epochs = constant_epochs
        self.decay_epochs = decay_epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: Tensor) -> Tensor:
        epoch = tf.cast(step, tf.int64) // self.steps_per_epoch
        late = tf.maximum(epoch + 1 - self.constant_epochs, 0)
        # Beyond the last epoch (a run made longer by --steps) the last factor stays.
        late = tf.minimum(late, self.decay_epochs)
        return self.rate * (1.0 - tf.cast(late, tf.float32) / (self.decay_epochs + 1))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class FusedAdam(keras.optimizers.Adam):
    """Adam whose update of a weight is one kernel instead of a dozen passes over memory.

    The arithmetic is that of `keras.optimizers.Adam` (Kingma & Ba, arXiv:1412.6980, section 2,
    the form before algorithm 1's last line is rearranged).
    """

    def update_step(self, gradient: Tensor, variable: tf.Variable, learning_rate: Tensor) -> None:
        dtype = variable.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
            use_locking=False,
        )


def decaying_adam(
    learning_rate: float, beta_1: float, decay: float, schedule: Schedule
) -> FusedAdam:
    """Adam of the image-to-image papers: constant, then falling over the last share of epochs.

    Args:
        decay: that share, 0 to 1.
    """
    decay_epochs = round(decay * schedule.epochs)
    rate = ConstantThenLinear(
        learning_rate, schedule.epochs - decay_epochs, decay_epochs, schedule.steps_per_epoch
    )
    return FusedAdam(rate, beta_1=beta_1, beta_2=0.999, epsilon=1e-8)


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, without the wrapper for loss scaling."""
    return getattr(optimizer, "inner_optimizer", optimizer)
