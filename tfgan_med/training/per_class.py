"""One model for each class of a data set, in one folder; started, stopped and resumed together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from tfgan_med import config, files
from tfgan_med.errors import UserError
from tfgan_med.training import fit, run_folder, settings
from tfgan_med.training.run_folder import CLASSES
from tfgan_med.training.settings import RunConfig
from tfgan_med.training.task import open_data


@dataclass(frozen=True)
class ClassRun:
    """A part of the work.

    Attributes:
        label: the class.
        place: its run folder.
        settings: to train with.
        begun: whether the folder is there, to go on with.
    """

    label: str
    place: Path
    settings: RunConfig
    begun: bool


def is_parent(run: Path) -> bool:
    """Whether a folder holds one run for each class."""
    return (run / CLASSES).is_file()


def class_settings(whole: RunConfig) -> dict[str, RunConfig]:
    """Settings for each class that has training pictures.

    Raises:
        UserError: if the model is not of pictures alone, or the data have fewer than two classes.
    """
    if settings.model_class(whole.system).needs != "images":
        raise UserError(
            f"--per-class: {whole.system} does not make pictures from nothing. Leave --per-class "
            "out, or use one of the models for it, such as dcgan or fastgan."
        )
    if whole.data.label is not None:
        raise UserError("--per-class and data.label exclude each other. Leave one of them out.")
    found = open_data(whole.data)
    labels = sorted({record.label for record in found.of_split("train") if record.label})
    if len(labels) < 2:
        raise UserError(
            f"{whole.data.path}: --per-class needs two classes or more in the training split, "
            f"found {', '.join(labels) or 'none'}. Put each class into a folder of its name."
        )
    return {label: _of_class(whole, label) for label in labels}


def _of_class(whole: RunConfig, label: str) -> RunConfig:
    return whole.model_copy(update={"data": whole.data.model_copy(update={"label": label})})


def start(whole: RunConfig, runs_dir: Path) -> Path:
    """Make the folder of the classes' runs; none of them is begun yet."""
    named = {
        label: run_folder.class_folder(label, i) for i, label in enumerate(class_settings(whole))
    }
    parent = run_folder.next_folder(runs_dir, fit.run_name(whole))
    text = config.as_yaml(whole, commented=True, relative_to=parent)
    files.write_text(parent / "settings.yaml", text)
    files.write_json(parent / CLASSES, {"system": whole.system, "classes": named})
    return parent


def open_runs(parent: Path, changes: Sequence[str] = ()) -> Iterator[ClassRun]:
    """The runs that are not finished, one after the other.

    Args:
        parent: as `start` made it.
        changes: `--set` changes that a resumed run may have.
    """
    facts = files.read_json(parent / CLASSES)
    cls = settings.settings_class(facts["system"])
    layer = config.read_layer(cls, parent / "settings.yaml")
    whole = config.resolve(cls, [layer], changes)
    for label, name in facts["classes"].items():
        place = parent / name
        begun = (place / "checkpoints" / "latest.json").is_file()
        if begun and _finished(place, changes):
            continue
        if begun:
            yield ClassRun(label, place, fit.resume_settings(place, changes), True)
        else:
            files.remove_folder(place)  # stopped before its first checkpoint
            yield ClassRun(label, place, _of_class(whole, label), False)
        keras.backend.clear_session(free_memory=True)


def _finished(place: Path, changes: Sequence[str]) -> bool:
    """Whether a run has ended and is not to be made longer."""
    longer = any(change.startswith(("train.steps", "train.epochs")) for change in changes)
    return run_folder.is_finished(place) and not longer
