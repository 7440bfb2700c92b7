"""Which sets to compare: from folders and runs that a user names to pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tfgan_med import files
from tfgan_med.data.opening import open_set
from tfgan_med.errors import UserError
from tfgan_med.evaluation.pictures import Pictures, has_split, open_pictures
from tfgan_med.training import settings
from tfgan_med.training.run_folder import find_run

_GENERATED = ("translated/test", "generated", "translated/test-a2b", "translated/val")


@dataclass(frozen=True)
class Sides:
    """Where the two sets are.

    Attributes:
        real, fake: paths as `open_pictures` takes them.
        run: the run that the generated set belongs to, if any; results are noted there.
    """

    real: str
    fake: str
    run: Path | None


def find_sides(real: str | None, fake: str | None, runs_dir: Path = Path("runs")) -> Sides:
    """From what the user gave to two folders.

    Args:
        real: folder, table or built-in set; by default the test pictures of the run.
        fake: the same, or a run by folder, number or `last`; by default the last run.
        runs_dir: folder of the runs.
    Raises:
        UserError: no such run, a run without generated pictures, or no real set.
    """
    run = None
    if fake is None or fake == "last" or fake.isdigit() or (Path(fake) / "config.yaml").is_file():
        run = find_run(fake or "last", runs_dir)
        fake = str(_generated(run))
    else:
        run = _run_around(Path(fake))
    if real is None:
        reals = None if run is None else _reals(run, Path(fake))
        if reals is None:
            raise UserError(
                f"{fake}: with which real pictures shall it be compared? Add --real DIR."
            )
        real = str(reals)
    return Sides(real, fake, run)


def _generated(run: Path) -> Path:
    for name in _GENERATED:
        if (run / name).is_dir():
            return run / name
    raise UserError(
        f"{run}: has no generated pictures. Make them with `tfgan-med generate {run}` (or "
        "`translate`, if it translates), or name a folder of generated pictures with --fake."
    )


def _reals(run: Path, fake: Path) -> Path | None:
    """The real pictures to hold the generated ones against, at the same size."""
    reals = run / "reals" / fake.name
    reals = reals if reals.is_dir() else run / "reals" / "test"
    return reals if reals.is_dir() else None


def _run_around(path: Path) -> Path | None:
    """The run folder that a folder lies in."""
    for folder in path.resolve().parents:
        made = any((folder / name).is_dir() for name in ("translated", "generated"))
        if made and (folder / "config.yaml").is_file():
            return folder
    return None


# What a generator was trained on ------------------------------------------------------------------


def training_pictures(run: Path | None, real: str, given: str | None, role: str) -> Pictures | None:
    """Real pictures that copies would be copies of.

    Args:
        run: the run of the generated set, if any.
        real: the real set of the comparison.
        given: a set of the user's (`--training`), which goes first; its train split if it has one.
        role: which picture of an item.
    Returns:
        The training pictures; None if nothing says which they are, and the real set stands in.
    Raises:
        UserError: the training set of the run is no longer where it was.
    """
    if given is not None:
        return open_pictures(given, "train" if has_split(given, "train") else "all", role)
    if run is not None and (run / "data.json").is_file():
        return _of_run(run, "a" if real.endswith("b2a") else "b")
    if has_split(real, "train"):
        return open_pictures(real, "train", role)
    return None


def held_out_pictures(training: Pictures | None, given: str | None, role: str) -> Pictures | None:
    """Real pictures that the generator has not seen, to calibrate distances with.

    Args:
        training: the training pictures.
        given: a set of the user's (`--held-out`); its test split if it has one.
        role: which picture of an item.
    """
    if given is not None:
        return open_pictures(given, "auto", role)
    if training is None or training.split != "train":
        return None
    if (Path(training.name) / "config.yaml").is_file():
        reals = _reals(Path(training.name), Path("test"))
        return open_pictures(str(reals), "all") if reals else None
    return open_pictures(training.name, "test", role) if has_split(training.name, "test") else None


def _of_run(run: Path, domain: str) -> Pictures:
    """The pictures that `data.json` of a run lists as its training split.

    Args:
        domain: which kind, where a run translates two kinds into each other.
    """
    facts = files.read_json(run / "data.json")
    data = settings.saved_settings(run).data
    trained = {
        item["id"]
        for item in facts["items"]
        if item["split"] == "train" and item.get("domain", domain) == domain
    }
    role = facts[domain]["role"] if domain in facts else facts["roles"]["target"]
    try:
        records = {record.id: record for record in open_set(data).records}
    except UserError as error:
        raise UserError(
            f"{run}: its training pictures are needed to look for copies of them, but {error} "
            "Name them with --training DIR."
        ) from None
    missing = sorted(trained - records.keys())
    if missing:
        raise UserError(
            f"{run}: {len(missing)} of its training pictures are no longer in {data.path}, "
            f"{missing[0]} first. Name the training pictures with --training DIR."
        )
    pictures = open_pictures(data.path, "all", role)
    rows = [i for i, record in enumerate(pictures.records) if record.id in trained]
    return replace(
        pictures,
        name=str(run),
        split="train",
        records=tuple(pictures.records[i] for i in rows),
        sizes=tuple(pictures.sizes[i] for i in rows),
    )
