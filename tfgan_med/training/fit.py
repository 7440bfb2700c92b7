"""Model, data and run folder brought together: the training loop, its stop and its continuation."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfgan_med import config, files
from tfgan_med.errors import TrainingError, UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.learning.system import System
from tfgan_med.networks.extractors import ExtractorChoice
from tfgan_med.training import model_card, run_folder, runtime, settings
from tfgan_med.training.adaptation_task import AdaptationTask
from tfgan_med.training.callbacks import Budget, Events, Watch
from tfgan_med.training.domain_task import DomainTask
from tfgan_med.training.downstream_task import DownstreamTask
from tfgan_med.training.image_task import ImageTask
from tfgan_med.training.paired_task import PairedTask
from tfgan_med.training.progress import Pace, Reporter, compact, duration
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig
from tfgan_med.training.stopping import Stopped, stop_signals
from tfgan_med.training.task import HIGHER_IS_BETTER, Ending, FeatureScore, Task, save_sheet

CALIBRATION_IMAGES = 64
TASKS: dict[str, type[Task]] = {
    "pairs": PairedTask,
    "images": ImageTask,
    "domains": DomainTask,
    "source": AdaptationTask,
}


@dataclass(frozen=True)
class Result:
    """What a finished run has to say.

    Attributes:
        run: its folder.
        steps: optimizer steps done.
        seconds: of training in this process.
        ending: scores and what was made.
        warnings: of the run.
    """

    run: Path
    steps: int
    seconds: float
    ending: Ending
    warnings: list[str] = field(default_factory=list)


def resume_settings(run: Path, changes: Sequence[str]) -> RunConfig:
    """Settings of a run to go on with.

    Raises:
        UserError: if a change would make it another experiment, naming the keys.
    """
    old, new = settings.saved_settings(run), settings.saved_settings(run, changes)
    refused = [key for key in config.differences(old, new) if key not in settings.RESUMABLE]
    if refused:
        raise UserError(
            f"{', '.join(refused[:3])}: cannot change when a run is resumed, for it would be "
            "another experiment. Resuming may change epochs, steps, intervals and devices; for "
            f"the rest start a new run: tfgan-med train {old.system} --config "
            f"{run / 'config.yaml'} --set {refused[0]}=..."
        )
    return new


class Training:
    """One run from its start, or from its newest checkpoint, to its end.

    Args:
        run_settings: resolved settings.
        reporter: where progress is shown.
    """

    def __init__(self, run_settings: RunConfig, reporter: Reporter) -> None:
        self.seconds = {"evaluation": 0.0, "saving": 0.0, "preparation": 0.0}
        self._started = time.perf_counter()
        self.train: Any = runtime.settled(run_settings.train)
        self.settings = run_settings.model_copy(update={"train": self.train})
        self.reporter = reporter
        self.strategy = runtime.start(self.train)
        self.task: Task = task_class(self.settings.system)(self.settings)  # type: ignore[call-arg]
        self.score = self._feature_score(self.task.deciding_metric())
        self.steps_per_epoch = self.task.data.steps_per_epoch(self.train.batch_size)
        self.total = self.train.steps or self.train.epochs * self.steps_per_epoch
        epochs = max(1, math.ceil(self.total / self.steps_per_epoch))
        with self.strategy.scope():
            self.model: System = self.task.build(Schedule(epochs, self.steps_per_epoch))
        self.model.gradient_norm_interval = self.train.log_interval
        self.pace = Pace(self.train.batch_size)
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.warnings: list[str] = []

    def _feature_score(self, metric: str) -> FeatureScore | None:
        """What `eval_metric: fid` or `kid` measures with; missing weights stop the run at once."""
        train = self.train
        if metric not in ("fid", "kid"):
            return None
        network = ExtractorChoice(
            protocol=train.eval_protocol,
            features=None if train.eval_features is None else str(train.eval_features),
            output_name=train.eval_features_output,
        ).load()
        return FeatureScore(network, metric)

    # Before the first step ------------------------------------------------------------------

    def describe(self) -> str:
        """One line: data, splits, networks, length."""
        counts = ", ".join(f"{n} {split}" for split, n in self.task.data.counts.items())
        parameters = ", ".join(
            f"{name} {millions(network.count_params())}"
            for name, network in self.model.networks.items()
            if not name.startswith("ema_")
        )
        data = self.settings.data
        return (
            f"{data.path}: {counts} pictures at {data.image_size} px, "
            f"{self.task.contents()}; {parameters}; "
            f"{self.total} steps of {self.train.batch_size} in {self.train.precision} on "
            f"{', '.join(runtime.describe_devices())}"
        )

    def dry_run(self) -> dict[str, Any]:
        """What a run would be: data, networks, memory, time of a step from two trial steps."""
        step = self._compiled_step()
        batches = self._batches(0)
        step(next(batches))
        begin = time.perf_counter()
        for _ in range(2):
            step(next(batches))
        seconds = (time.perf_counter() - begin) / 2
        weights = sum(math.prod(v.shape) * 4 for v in self.model.state().values())
        return {
            "system": self.settings.system,
            "data": self.settings.data.path,
            "splits": dict(self.task.data.counts),
            "parameters": {n: int(w.count_params()) for n, w in self.model.networks.items()},
            "steps": self.total,
            "epochs": round(self.total / self.steps_per_epoch, 2),
            "seconds_per_step": round(seconds, 4),
            "estimated_training_time": duration(self.total * seconds),
            "peak_memory_mb": round(runtime.peak_memory_mb() or 0),
            "disk_mb": round((3 * weights + weights / 3) / 2**20),
            "settings": self.settings.model_dump(mode="json"),
        }

    @contextlib.contextmanager
    def opened(
        self, runs_dir: Path, resume: Path | None = None, place: Path | None = None
    ) -> Iterator[RunFolder]:
        """The folder of a new run, or of one to go on with, held for this process.

        Of several workers the chief alone keeps it; the others write to a temporary one.

        Args:
            runs_dir: where a new run gets its number.
            resume: the run to go on with.
            place: of a new run without a number.
        """
        with contextlib.ExitStack() as stack:
            if resume is not None:
                folder = RunFolder(resume)
                if runtime.is_chief(self.strategy):
                    stack.enter_context(folder.locked())
                self.restore(folder)
            if not runtime.is_chief(self.strategy):
                temporary = stack.enter_context(tempfile.TemporaryDirectory())
                folder = self._start(RunFolder.create(Path(temporary), "worker"))
            elif resume is None:
                name = run_name(self.settings)
                folder = RunFolder.at(place) if place else RunFolder.create(runs_dir, name)
                self._start(folder)
                stack.enter_context(folder.locked())
            yield folder

    def _start(self, folder: RunFolder) -> RunFolder:
        """Write what is known before the first step."""
        files.write_text(folder.path / "config.yaml", settings_text(self.settings, folder))
        folder.write_environment(
            runtime.versions(), devices=runtime.describe_devices(), **run_folder.origin()
        )
        files.write_json(folder.path / "data.json", self.task.data.fingerprint())
        self.task.save_network(folder)
        name, sheet = self.task.data_sheet()
        save_sheet(folder.path / "samples" / name, sheet)
        return folder

    def restore(self, folder: RunFolder) -> None:
        """Continue from the newest whole checkpoint; the data must be what they were."""
        self._check_same_data(folder)
        checkpoint, warnings = folder.checkpoint("latest")
        for warning in warnings:
            self._warn(folder, warning)
        with self.strategy.scope():
            run_folder.restore(self.model.state(), checkpoint)
        state = files.read_json(checkpoint / "state.json")
        self.step, self.best = int(state["step"]), state.get("best")
        if self._exhausted():
            self.total = self.step
        folder.log(event="resumed", step=self.step, time=run_folder.now())

    def _check_same_data(self, folder: RunFolder) -> None:
        before = _hashes(files.read_json(folder.path / "data.json"))
        after = _hashes(self.task.data.fingerprint())
        changed = sorted({k[0] for k in {*before, *after} if before.get(k) != after.get(k)})
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise UserError(
                f"{', '.join(changed[:3])}{more}: not what the run was started with. A resumed run "
                "needs the same pictures. Restore them, or start a new run with --config "
                f"{folder.path / 'config.yaml'}."
            )

    # The loop -------------------------------------------------------------------------------

    def run(self, folder: RunFolder) -> Result:
        """Train to the last step.

        Raises:
            Stopped: after SIGINT or SIGTERM, with everything saved.
            TrainingError: if a loss is not finite, memory runs out or the disk is full.
        """
        self.events = Events(folder)
        self.watch = Watch(self.task.data.counts["train"], self.task.sure_advice)
        self.budget = Budget(self.train.eval_share)
        self.begun = time.perf_counter()
        code = 1
        try:
            self._loop(folder)
            result = self._finish(folder)
            code = 0
            return result
        except Stopped as stop:
            code = stop.exit_code
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise TrainingError(self._out_of_memory(error)) from error
        finally:
            self.reporter.stop()
            self.events.close()
            folder.write_environment({}, ended=run_folder.now(), exit_code=code)

    def _loop(self, folder: RunFolder) -> None:
        if self.step == 0:
            for notice in self.model.notices:
                self._warn(folder, notice)
            self._calibrate()
            self._observe(folder)
            self._save(folder)
        self.compiled = step = self._compiled_step()
        batches = self._batches(self.step)
        other = self.seconds["evaluation"] + self.seconds["saving"]  # of the untrained model
        self.seconds["preparation"] = time.perf_counter() - self._started - other
        self.reporter.start(self.total, self.step)
        with stop_signals() as stop:
            while self.step < self.total:
                step(next(batches))
                self.step += 1
                self.pace.tick()
                self.reporter.advance(self.step)
                self._between_steps(folder, last=self.step == self.total or bool(stop))
                if stop:
                    self.task.save_weights(folder, self.model)
                    raise Stopped(stop[0], self.step)

    def _between_steps(self, folder: RunFolder, last: bool) -> None:
        """What is due after a step; everything after the last one."""
        train = self.train
        saving = last or self.step % train.checkpoint_interval == 0
        observing = self.step % (train.eval_interval or train.sample_interval) == 0
        sampling = last or self.step % train.sample_interval == 0
        if self.step % train.log_interval == 0 or saving or observing:
            self._log(folder)
        if observing or sampling:
            self.pace.pause()
            improved = self._observe(folder, sample=sampling)
            if improved and not self.task.keep_best(folder, self.model, self.step):
                saving = True
            if self._exhausted():
                self.total, saving = self.step, True
        if saving:
            self.pace.pause()
            self._save(folder)

    def _exhausted(self) -> bool:
        """Whether the score has not risen for as many evaluations as the settings allow."""
        patience = getattr(self.train, "patience", None)
        if patience is None or self.best is None:
            return False
        interval = self.train.eval_interval or self.train.sample_interval
        return bool(self.step - self.best["step"] >= patience * interval)

    def _compiled_step(self) -> Any:
        """The distributed step as one graph."""
        strategy = self.strategy
        compiled = runtime.use_xla(self.train) or None
        replica_step = tf.function(self.model.train_step, jit_compile=compiled)
        return tf.function(lambda batch: strategy.run(replica_step, args=(batch,)))

    def _batches(self, start_step: int) -> Iterator[Any]:
        """Each device's share of the batches one device would see, in the same order."""
        data = self.task.data.train_batches(self.train.batch_size, self.train.seed, start_step)
        if self.strategy.num_replicas_in_sync == 1:
            return iter(data)
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda context: runtime.share(data, context)
            )
        )

    def _calibrate(self) -> None:
        """Show the model real batches before the first step, for losses that scale themselves."""
        count = min(CALIBRATION_IMAGES, self.task.data.counts["train"])
        with self.strategy.scope():
            self.model.calibrate([self.task.calibration_batch(count)])

    # Between steps --------------------------------------------------------------------------

    def _log(self, folder: RunFolder) -> None:
        """Losses, rates, speed; stops the run if a loss is not finite."""
        bad = self.model.bad_loss()
        if bad:
            raise TrainingError(self._not_finite(folder, *bad))
        means = self.model.loss_means()
        speed = {"images_per_second": self.pace.images_per_second}
        memory = runtime.peak_memory_mb()
        norms, rates = self.model.gradient_norms(), self.model.learning_rates()
        self.events.scalars(self.step, means, "loss")
        self.events.scalars(self.step, norms, "gradient_norm")
        self.events.scalars(self.step, rates, "learning_rate")
        self.events.scalars(self.step, speed, "speed")
        folder.log(
            step=self.step,
            epoch=round(self.step / self.steps_per_epoch, 3),
            losses=compact(means),
            gradient_norms=compact(norms),
            learning_rates=compact(rates),
            memory_mb=round(memory) if memory else None,
            **compact(speed),
        )
        self.reporter.figures(self.step, self.total, means, self.pace, memory)
        self._warn(folder, self.watch.losses(means))

    def _observe(self, folder: RunFolder, sample: bool = True) -> bool:
        """Sample sheet and scores; whether they are the best so far."""
        with self._timed("evaluation"):
            return self._look(folder, sample)

    def _look(self, folder: RunFolder, sample: bool) -> bool:
        if sample:
            sheet = self.task.sample_sheet(self.model)
            save_sheet(folder.path / "samples" / f"{self.step:06d}.png", sheet)
            self.events.picture(self.step, "samples", sheet)
        if not self.budget.allows():
            return False
        begin = time.perf_counter()
        seen = self.task.observe(self.model, self.score, self.step)
        self.budget.spend(time.perf_counter() - begin)
        self.events.scalars(self.step, seen.scores, self.task.watched)
        folder.log(step=self.step, split=self.task.watched, scores=compact(seen.scores))
        if self.step and seen.variety:
            self._warn(folder, self.watch.samples(seen.variety["fake"], seen.variety["real"]))
        if self.step:
            self._warn(folder, self.watch.once(seen.warning))
        improved = self._is_best(seen.scores)
        self.model.after_evaluation(improved)
        return improved

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Count the seconds of what is not training."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - begin

    def _is_best(self, scores: dict[str, float]) -> bool:
        metric = self.score.name if self.score else self.task.deciding_metric()
        value, sign = scores[metric], 1 if metric in HIGHER_IS_BETTER else -1
        if self.best and sign * value <= sign * self.best["value"]:
            return False
        self.best = {"step": self.step, "value": value, "metric": metric}
        return True

    def _save(self, folder: RunFolder) -> None:
        with self._timed("saving"):
            self._save_checkpoint(folder)

    def _save_checkpoint(self, folder: RunFolder) -> None:
        bad = self.model.bad_loss()
        if bad:
            raise TrainingError(self._not_finite(folder, *bad))
        state = {"step": self.step, "epoch": self.step / self.steps_per_epoch, "best": self.best}
        checkpoint = folder.save_checkpoint(self.model.state(), state)
        if self.best:
            self.task.forget_best(folder, self.best["step"])
            if self.best["step"] == self.step:
                folder.mark_best(checkpoint, self.best["value"], self.best["metric"])
        folder.prune()
        folder.log(event="saved", step=self.step, checkpoint=checkpoint.name)

    def _finish(self, folder: RunFolder) -> Result:
        """Export the weights, make the pictures that belong to a run, write the model card."""
        seconds = time.perf_counter() - self.begun
        with self._timed("saving"):
            self.task.save_weights(folder, self.model)
        with self._timed("evaluation"):
            ending = self.task.finish(self.model, folder)
        self.task.conclude(folder, self.step, self._costs())
        result = Result(folder.path, self.step, seconds, ending, self.warnings)
        folder.log(
            event="finished", step=self.step, split=ending.split, scores=compact(ending.scores)
        )
        model_card.write(folder, self.settings, self.task, result)
        return result

    def _costs(self) -> dict[str, float]:
        """Seconds of this process; what is neither of the others is training."""
        total = time.perf_counter() - self._started
        return {"training": total - sum(self.seconds.values()), **self.seconds, "total": total}

    # Messages -------------------------------------------------------------------------------

    def _warn(self, folder: RunFolder, text: str | None) -> None:
        if text:
            self.warnings.append(text)
            folder.log(event="warning", step=self.step, text=text)
            self.reporter.warn(text)

    def _not_finite(self, folder: RunFolder, name: str, step: int) -> str:
        folder.log(event="nan", step=step, loss=name)
        rates = ", ".join(f"{rate:g}" for rate in set(self.model.learning_rates().values()))
        try:
            kept = f"Stopped; checkpoint {folder.checkpoint('latest')[0].name} is intact."
        except TrainingError:
            kept = "Stopped before the first checkpoint."
        return (
            f"Loss {name} became NaN or infinite at step {step}. {kept} Often: learning rate too "
            f"high ({rates}), or float16 where a value is too large. Start a new run with a lower "
            f"rate, `--config {folder.path / 'config.yaml'} --set model.learning_rate=...`, or "
            "with --precision float32."
        )

    def _out_of_memory(self, error: Exception) -> str:
        train, size = self.train, self.settings.data.image_size
        return (
            f"Out of memory at step {self.step + 1} ({str(error).splitlines()[0][:120]}). Try in "
            f"this order: --set train.batch_size={max(1, train.batch_size // 2)}, --precision "
            f"mixed_float16 (on a GPU), --set data.image_size={size // 2}."
        )


def clear_unbegun(place: Path) -> None:
    """Remove what a run left that was stopped before its first checkpoint.

    Raises:
        UserError: if the folder holds something else.
    """
    if place.exists() and not (place / "checkpoints").is_dir() and any(place.iterdir()):
        raise UserError(
            f"{place}: holds something that is no run. Name an empty or a new folder with --at."
        )
    if (place / "lock").is_file():
        with RunFolder(place).locked():  # refuses while another process is at it
            pass
    files.remove_folder(place)


def task_class(system: str) -> type[Task]:
    """What training a system needs beside the loop."""
    if settings.is_downstream(system):
        return DownstreamTask
    return TASKS[settings.model_class(system).needs]


def _hashes(fingerprint: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """File hashes by item and by the kind of unpaired pictures it stands for."""
    return {(item["id"], item.get("domain", "")): item["sha256"] for item in fingerprint["items"]}


def settings_text(run_settings: RunConfig, folder: RunFolder) -> str:
    """`config.yaml`: paths are relative to the run folder, so that it moves with its data."""
    return config.as_yaml(run_settings, commented=True, relative_to=folder.path)


def millions(count: int) -> str:
    """12345678 as `12.3 M`."""
    return f"{count / 1e6:.1f} M"


def run_name(run_settings: RunConfig) -> str:
    """What a run folder is called behind its number."""
    path = run_settings.data.path.partition("?")[0].removeprefix("builtin:")
    return (
        run_settings.name
        or f"{run_settings.system}-{run_folder.slug(path.rstrip('/').split('/')[-1])}"
    )
