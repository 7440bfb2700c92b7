"""Training a downstream model: real and synthetic pictures in, held-out predictions out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfgan_med import files
from tfgan_med.augment.classic import ClassicAugment
from tfgan_med.data.mixing import MixedData, prepare_mixed
from tfgan_med.data.records import SPLITS, Split
from tfgan_med.downstream.base import DownstreamModel, Problem
from tfgan_med.errors import UserError
from tfgan_med.learning.optimizers import Schedule
from tfgan_med.learning.system import System
from tfgan_med.metrics import classification, segmentation
from tfgan_med.ops import images
from tfgan_med.ops.marking import BLUE, GREEN, RED, errors_in_color, framed_in, outline
from tfgan_med.training import predictions, run_folder, runtime, weights
from tfgan_med.training.predictions import Classified, Segmented
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig, system_class
from tfgan_med.training.task import Ending, FeatureScore, Observation, Pixels, Task, open_data

Array = npt.NDArray[Any]

SHEET = 16  # pictures of a sample sheet
EXAMPLES = 24  # of the examples of a finished run
LEVELS = [level / 20 for level in range(1, 20)]  # that a segmenter's masks are tried at


class DownstreamTask(Task):
    """Data and evaluation of a classifier or segmenter.

    Args:
        settings: of the run.
    Raises:
        DataError: if the data cannot be used, with file and cure.
    """

    metrics: ClassVar = ("accuracy", "balanced_accuracy", "f1", "auc", "average_precision")
    sure_advice: ClassVar = ""
    data: MixedData  # type: ignore[assignment]

    def __init__(self, settings: RunConfig) -> None:
        self.settings = settings
        cls: Any = system_class(settings.system)
        self.needs = cls.needs
        self.data = prepare_mixed(
            open_data(settings.data),
            settings.data,
            settings.mix,  # type: ignore[attr-defined]
            self.needs,
            settings.train.validation,
            settings.model.positive,
        )
        if settings.train.class_weights == "balanced":
            self._balance()
        self.problem = self._problem()
        self.classic = settings.classic  # type: ignore[attr-defined]
        if self.classic.active:
            self.data.augment(ClassicAugment(self.classic, settings.train.seed))
        # A set too small for a validation split is watched on its training pictures.
        self.watched: Split = "val" if self.data.counts["val"] else "train"
        self._maps: dict[Split, Array] = {}

    def _balance(self) -> None:
        if self.needs != "labels":
            raise UserError("train.class_weights=balanced weighs classes; segmenters have none.")
        self.data.balance_classes()

    def _problem(self) -> Problem:
        first, *others = self.data.encodings
        size, channels = self.settings.data.image_size, first.channels
        if self.needs == "labels":
            return Problem(size, channels, self.data.classes, self.data.positive)
        if others[0].kind == "labels":
            names = tuple(f"class {index}" for index in range(others[0].channels))
            return Problem(size, channels, names)
        roles = (how.role for how in others)
        names = tuple("mask" if r in ("masks", "ids") else r.removeprefix("masks-") for r in roles)
        return Problem(size, channels, names, exclusive=False)

    @property
    def classifies(self) -> bool:
        """Whether pictures get a class; else their pixels do."""
        return bool(self.needs == "labels")

    def build(self, schedule: Schedule) -> System:
        """The model; its schedule is the whole run as one epoch."""
        train = self.settings.train
        steps = train.steps or schedule.epochs * schedule.steps_per_epoch
        cls: Any = system_class(self.settings.system)
        try:
            model: DownstreamModel = cls(
                self.settings.model, self.problem, schedule=Schedule(1, steps), seed=train.seed
            )
        except ValueError as error:  # sizes that the network cannot have
            raise UserError(f"{error} Settings: data.image_size, model.*.") from error
        if getattr(model, "frozen_features", False):
            self._use_maps(model)
        return model

    def _use_maps(self, model: Any) -> None:
        """Let a frozen network look once at every picture that is not changed on the way."""
        held = {split: self.data.counts[split] for split in ("train", "val")}
        needed = model.maps_bytes_per_picture * sum(held.values())
        if needed > self.settings.data.cache_mb * 2**20:
            return
        self._maps_of = model.feature_maps
        if not self.classic.active:
            self.data.use_maps(model.feature_maps)

    def contents(self) -> str:
        made = self.data.composition()
        real, synthetic = sum(made["real"].values()), sum(made["synthetic"].values())
        what = ", ".join(self.problem.classes)
        return f"{real} real and {synthetic} synthetic training pictures; {what}"

    def calibration_batch(self, count: int) -> Any:
        return self.data.fixed_batch("train", count)

    def deciding_metric(self) -> str:
        chosen: str = self.settings.train.eval_metric
        known = self.metrics if self.classifies else ("iou", "dice")
        if chosen == "auto":
            return "balanced_accuracy" if self.classifies else "iou"
        if chosen not in known:
            raise UserError(
                f"train.eval_metric is {chosen}, which {self.settings.system} cannot be scored "
                f"by. Use one of: auto, {', '.join(known)}."
            )
        return chosen

    # Looks ----------------------------------------------------------------------------------

    def data_sheet(self) -> tuple[str, Pixels]:
        """Training pictures as the network sees them, augmented, with their masks in colour."""
        batch = next(iter(self.data.train_batches(SHEET, self.settings.train.seed)))
        pictures = {name: np.asarray(value) for name, value in batch.items()}
        if "images" not in pictures:  # a frozen network has looked at them already
            pictures = self.data.fixed_batch("train", SHEET)
        return "training.png", images.grid(self._outlined(pictures), 4)

    def _outlined(self, batch: dict[str, Array], masks: Array | None = None) -> Pixels:
        pictures = images.as_rgb(batch["images"], "image")
        truth = _foreground(batch)
        if truth is None:
            return pictures
        drawn = [outline(p, t, GREEN) for p, t in zip(pictures, truth, strict=True)]
        if masks is not None:
            drawn = [outline(p, m, RED) for p, m in zip(drawn, masks, strict=True)]
        return np.stack(drawn)

    def sample_sheet(self, model: System) -> Pixels:
        """Fixed held-out pictures: the truth outlined green, what the model says red; of
        classifiers a frame, see `_frames`."""
        assert isinstance(model, DownstreamModel)
        batch = self.data.fixed_batch(self.watched, SHEET)
        said = model.probabilities(batch["images"])
        if not self.classifies:
            return images.grid(self._outlined(batch, self._foreground_of(said, 0.5)), 4)
        rows = self.data.real.spread_rows(self.watched, SHEET)
        colors = self._frames(said.argmax(-1), self._truth(self.watched)[rows])
        pictures = images.as_rgb(batch["images"], "image")
        framed = [framed_in(*pair) for pair in zip(pictures, colors, strict=True)]
        return images.grid(np.stack(framed), 4)

    def _truth(self, split: Split) -> npt.NDArray[np.int64]:
        return self.data.labels(split)

    def _foreground_of(self, said: Array, threshold: float) -> npt.NDArray[np.bool_]:
        masks = self.problem.masks(said, threshold)
        return np.asarray((masks[..., 1:] if self.problem.exclusive else masks).any(-1))

    # Scores ---------------------------------------------------------------------------------

    def observe(self, model: System, score: FeatureScore | None, step: int) -> Observation:
        """Scores on the whole validation split at threshold 0.5."""
        assert isinstance(model, DownstreamModel)
        said = self._predicted(model, self.watched, 0.5)
        return Observation(self._scores(said, 0.5), {})

    def _predicted(
        self, model: DownstreamModel, split: Split, threshold: float
    ) -> Classified | Segmented:
        names, groups = self.data.real.names(split), self.data.groups(split)
        if self.classifies:
            scores = np.concatenate([*self._probabilities(model, split)]).astype(np.float64)
            classes = self.problem.classes
            return Classified(names, groups, classes, self._truth(split), scores)
        counts = [self._counts(b, p, threshold) for b, p in self._maps_and_truth(model, split)]
        return Segmented(names, groups, self.problem.classes, np.concatenate(counts))

    def _probabilities(self, model: Any, split: Split) -> Iterator[Array]:
        """Of the pictures of a split, from kept feature maps where there are some."""
        if not hasattr(self, "_maps_of"):
            for batch in self.data.batches(split):
                yield model.probabilities(batch["images"])
            return
        if split not in self._maps:
            parts = [self._maps_of(batch["images"]) for batch in self.data.batches(split)]
            self._maps[split] = np.concatenate(parts)
        yield model.probabilities_of_maps(self._maps[split])

    def _maps_and_truth(
        self, model: DownstreamModel, split: Split
    ) -> Iterator[tuple[dict[str, Array], Array]]:
        for batch in self.data.batches(split):
            yield batch, model.probabilities(batch["images"])

    def _counts(self, batch: dict[str, Array], said: Array, threshold: float) -> Array:
        return segmentation.pixel_counts(_masks(batch) > 0.5, self.problem.masks(said, threshold))

    def _scores(self, said: Classified | Segmented, threshold: float) -> dict[str, float]:
        if isinstance(said, Segmented):
            found = segmentation.segmentation_scores(
                said.counts, self.problem.classes, background=self.problem.exclusive
            )
        else:
            positive = self.problem.positive
            found = classification.scores_of(said.truth, said.scores, positive, threshold)
        return {name: float(value) for name, value in found.items()}

    # The end --------------------------------------------------------------------------------

    def save_network(self, folder: RunFolder) -> None:
        """Write `weights/network.yaml`, from which `predict` builds the network."""
        import yaml

        facts = {
            "system": self.settings.system,
            "kind": "downstream",
            "needs": self.needs,
            "problem": {
                "image_size": self.problem.image_size,
                "channels": self.problem.channels,
                "classes": list(self.problem.classes),
                "positive": self.problem.positive,
                "exclusive": self.problem.exclusive,
            },
            "encodings": [how.model_dump(mode="json") for how in self.data.encodings],
        }
        text = yaml.safe_dump(facts, sort_keys=False)
        files.write_text(folder.path / "weights" / "network.yaml", text)

    def keep_best(self, folder: RunFolder, model: System, step: int) -> bool:
        """Keep the network alone; a whole checkpoint at every gain would cost more than it."""
        assert isinstance(model, DownstreamModel)
        path = _best(folder.path, step)
        with files.replacing(path) as temporary:
            run_folder.write_arrays(temporary, model.network_state())
        return True

    def forget_best(self, folder: RunFolder, step: int) -> None:
        for path in (folder.path / "weights").glob("best-*.h5"):
            if path != _best(folder.path, step):
                path.unlink()

    def save_weights(self, folder: RunFolder, model: System) -> None:
        """Nothing: the best weights are there already, `finish` exports them."""

    def finish(self, model: System, folder: RunFolder) -> Ending:
        """Take the weights that were best on validation, and look at the test split once."""
        assert isinstance(model, DownstreamModel)
        best = self._restore_best(model, folder)
        threshold = self._threshold(model)
        asked = SPLITS[1:] if self.settings.train.score_test else SPLITS[1:2]
        held = [split for split in asked if self.data.counts[split]]
        level = threshold["value"]
        said = {split: self._predicted(model, split, level) for split in held}
        for name, rows in said.items():
            predictions.write(folder.path, name, rows)
        scores = {str(name): self._scores(rows, level) for name, rows in said.items()}
        split: Split = "test" if "test" in said else self.watched
        shown = self._examples(model, folder, split, level)
        self._export(model, folder)
        self._outcome = self._summary(model, best, threshold, scores, shown)
        final = scores.get(split) or self._scores(self._predicted(model, split, level), level)
        return Ending(
            scores=_shown(final, self.classifies),
            references={},
            basis=f"{self.data.counts[split]} pictures of the {split} split",
            split=split,
            pictures=self.data.counts[split],
        )

    def _restore_best(self, model: DownstreamModel, folder: RunFolder) -> dict[str, Any]:
        found = sorted((folder.path / "weights").glob("best-*.h5"))
        newest, _ = folder.checkpoint("latest")
        best: dict[str, Any] = files.read_json(newest / "state.json")["best"]
        if found:
            model.restore_network(run_folder.read_arrays(_best(folder.path, best["step"])))
        return {key: best[key] for key in ("step", "metric", "value")}

    def _threshold(self, model: DownstreamModel) -> dict[str, Any]:
        """The probability from which the answer is yes."""
        asked = self.settings.train.threshold
        yes_or_no = not self.problem.exclusive or self.problem.positive is not None
        if asked != "auto" or not yes_or_no:
            return {"value": 0.5 if asked == "auto" else float(asked), "source": "fixed"}
        source = "validation" if self.watched == "val" else "training"
        if self.classifies:
            said = self._predicted(model, self.watched, 0.5)
            assert isinstance(said, Classified)
            column = self.problem.positive
            chosen = classification.best_threshold(said.truth == column, said.scores[:, column])
            return {"value": float(chosen), "source": source}
        return {"value": self._best_level(model), "source": source}

    def _best_level(self, model: DownstreamModel) -> float:
        """The level at which the mean IoU over validation pictures is highest."""
        parts = [
            segmentation.counts_by_threshold(_masks(batch) > 0.5, said, LEVELS)
            for batch, said in self._maps_and_truth(model, self.watched)
        ]
        tables = np.concatenate(parts, axis=1)
        scores = [segmentation.segmentation_scores(table)["iou"] for table in tables]
        return LEVELS[int(np.argmax(scores))]

    def _export(self, model: DownstreamModel, folder: RunFolder) -> None:
        """The whole network for `predict`; a classifier's as `model.keras`, for other tools too."""
        if self.classifies:
            with files.replacing(folder.path / "model.keras") as temporary:
                named = temporary.with_suffix(".keras")
                model.network.save(named)
                named.replace(temporary)
        else:
            with files.replacing(weights.exported(folder.path, "network")) as temporary:
                run_folder.write_arrays(temporary, model.whole_network())
        for path in (folder.path / "weights").glob("best-*.h5"):
            path.unlink()

    def _examples(
        self, model: DownstreamModel, folder: RunFolder, split: Split, threshold: float
    ) -> dict[str, Any]:
        """`examples.png`: held-out pictures with what the model says, errors in colour."""
        batch = self.data.fixed_batch(split, EXAMPLES)
        said = model.probabilities(batch["images"])
        pictures = images.as_rgb(batch["images"], "image")
        if self.classifies:
            classes = self._truth(split)[self.data.real.spread_rows(split, EXAMPLES)]
            decided = classification.decided(said, self.problem.positive, threshold)
            colors = self._frames(decided, classes)
            cells = [framed_in(*pair) for pair in zip(pictures, colors, strict=True)]
            caption = (
                f"Pictures of the {split} split; framed green where the class is right, else red."
            )
            if self.problem.positive is not None:
                name = self.problem.classes[self.problem.positive]
                caption = f"Pictures of the {split} split; green: right, blue: {name} missed, red: "
                caption += f"{name} said wrongly."
        else:
            truth, mask = _foreground(batch), self._foreground_of(said, threshold)
            assert truth is not None
            cells = [errors_in_color(*c) for c in zip(pictures, truth, mask, strict=True)]
            caption = (
                f"Pictures of the {split} split; found pixels green, missed ones blue, wrong ones "
                "red."
            )
        sheet = images.grid(np.stack(cells), 8)
        with files.replacing(folder.path / "examples.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
        return {"picture": "examples.png", "caption": caption}

    def _frames(self, said: Array, truth: Array) -> list[tuple[int, int, int]]:
        """Green where the class is right; blue where the positive one was missed, else red."""
        missed = truth == self.problem.positive
        return [
            GREEN if s == t else BLUE if m else RED
            for s, t, m in zip(said, truth, missed, strict=True)
        ]

    def _summary(
        self,
        model: DownstreamModel,
        best: dict[str, Any],
        threshold: dict[str, Any],
        scores: dict[str, dict[str, float]],
        examples: dict[str, Any],
    ) -> dict[str, Any]:
        """What `outcome.json` says, but for the costs."""
        positive, memory = self.problem.positive, runtime.peak_memory_mb()
        learned = sum(int(np.prod(v.shape)) for v in model.network.trainable_variables)
        return {
            "system": self.settings.system,
            "kind": "classification" if self.classifies else "segmentation",
            "classes": list(self.problem.classes),
            "positive": None if positive is None else self.problem.classes[positive],
            "exclusive": self.problem.exclusive,
            "image_size": self.problem.image_size,
            "threshold": threshold,
            "batch_size": self.settings.train.batch_size,
            "seed": self.settings.train.seed,
            "parameters": {"trainable": learned, "all": int(model.network.count_params())},
            "weights": model.weights_used,
            "counts": self.data.composition(),
            "best": best,
            "peak_memory_mb": None if memory is None else round(memory),
            "scores": scores,
            "examples": examples,
        }

    def conclude(self, folder: RunFolder, steps: int, seconds: Mapping[str, float]) -> None:
        """Write `outcome.json`, the last file of a run."""
        costs = {name: round(value, 2) for name, value in seconds.items()}
        share = seconds["training"] / max(seconds["total"], 1e-9)
        outcome = {**self._outcome, "steps": steps, "seconds": costs, "training_share": share}
        files.write_json(folder.path / predictions.OUTCOME, _finite(outcome))


def _best(run: Path, step: int) -> Path:
    return run / "weights" / f"best-{step:06d}.weights.h5"


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null stands for a score that does not exist."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _masks(batch: dict[str, Array]) -> Array:
    return (batch["ids"] > 0).astype(np.float32) if "ids" in batch else batch["masks"]


def _foreground(batch: dict[str, Array]) -> npt.NDArray[np.bool_] | None:
    """Pixels of any mask; of a label map, of any class but the first."""
    if "ids" not in batch and "masks" not in batch:
        return None
    masks = _masks(batch)
    exclusive = masks.shape[-1] > 1 and bool((masks.sum(-1) == 1).all())
    return np.asarray(((masks[..., 1:] if exclusive else masks) > 0.5).any(-1))


SHOWN = (
    ("balanced_accuracy", "accuracy", "precision", "recall", "f1", "auc", "average_precision"),
    ("iou", "dice", "miou", "fp_pixels", "fn_pixels"),
)


def _shown(scores: dict[str, float], classifies: bool) -> dict[str, float]:
    """The scores that a terminal shows; the others are in `outcome.json`."""
    return {name: scores[name] for name in SHOWN[0 if classifies else 1] if name in scores}
