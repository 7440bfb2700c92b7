"""An experiment from its file to its report: guards, cells, summary."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.errors import DataError, UserError
from tfgan_med.experiments import forecast, guards, protocol, real_data, summary
from tfgan_med.experiments.cells import Cell, Store, digest
from tfgan_med.experiments.guards import Finding
from tfgan_med.experiments.planning import Planner, Pool
from tfgan_med.experiments.progress import View
from tfgan_med.experiments.protocol import Experiment
from tfgan_med.experiments.real_data import RealData
from tfgan_med.experiments.running import Ending, Runner
from tfgan_med.training import run_folder
from tfgan_med.training.progress import duration
from tfgan_med.training.run_folder import RunFolder

YAML, FINDINGS, BEGUN = "experiment.yaml", "guards.json", "begun.json"


class Conductor:
    """One experiment in its folder.

    Args:
        experiment: what is asked.
        folder: of the experiment, `<out>/<name>`.
        base: folder of the experiment's file.
        scale: which scale it has, for the report.
        command: to do it again.
    Raises:
        UserError: if the settings cannot be right.
        DataError: if there are no usable pictures.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        base: Path,
        scale: str | None = None,
        command: str = "",
    ) -> None:
        self.experiment = experiment
        self.store = Store(folder)
        self.called = folder
        self.scale = scale or "full"
        self.command = command
        known = folder / real_data.DATA
        self.real = real_data.open_real(experiment.data, known)
        self._require_splits()
        guards.settle([], experiment.guards.allow)
        self.planner = Planner(experiment, self.real, self.store, base)
        self._findings: dict[str, list[Finding]] = {}
        self._copies: dict[str, dict[str, Any]] = {}
        self._items: list[guards.Item] | None = None

    def _require_splits(self) -> None:
        if not self.real.records("train") or not self.real.records("test"):
            raise DataError(
                f"{self.experiment.data.path}: an experiment needs training and test pictures; "
                f"found {len(self.real.records('train'))} and {len(self.real.records('test'))}. "
                "Let us split with data: {split: random, fractions: [0.7, 0.15, 0.15]}, or add "
                "test rows to splits.csv."
            )

    # Saying what would be done --------------------------------------------------------------

    def dry_run(self) -> dict[str, Any]:
        """The plan as JSON values."""
        plan = self.planner.plan()
        return {
            "experiment": self.experiment.experiment,
            "folder": str(self.called),
            "data": {split: self.real.counts(split) for split in ("train", "val", "test")},
            **forecast.of(plan, self.store),
            "pictures": {name: pool.made for name, pool in plan.pools.items()},
            "notices": self.planner.notices,
        }

    # Running --------------------------------------------------------------------------------

    def run(self, jobs: int, view: View) -> Ending:
        """Work everything off that is not finished.

        Raises:
            DataError: if a guard is violated that is not allowed.
            UserError: if another process holds the experiment.
        """
        folder = self.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        with RunFolder(folder).locked():
            for notice in self.planner.notices:
                view.warn(notice)
            self._write_what_is_known(view)
            self._guard_data(view)
            self._guard_given()
            runner = Runner(self.store, self.planner.plan, jobs, view, self._inspect)
            ending = runner.run()
            if ending.signal is None:
                self._summarize(ending, view)
        return ending

    def _write_what_is_known(self, view: View) -> None:
        folder = self.store.folder
        write_data(self.real, folder / real_data.DATA, view)
        files.write_text(folder / YAML, protocol.as_yaml(self.experiment, folder))
        begin(folder, self.scale)

    def _summarize(self, ending: Ending, view: View) -> None:
        plan = self.planner.plan()
        runs = {
            f"{r.downstream}, {r.arm.name}, seed {r.seed}": self.store.path(r.cell)
            for r in plan.repeats
            if self.store.is_done(r.cell)
        }
        if not runs:
            return
        chosen = {f"settings of {name}": "val" for name in plan.chosen}
        found = guards.of_downstream(runs, self._all_items(), chosen)
        everything = [*self._guard_findings(), *found]
        self._require(found)
        facts = summary.Facts(
            experiment=self.experiment,
            real=self.real,
            plan=plan,
            store=self.store,
            scale=self.scale,
            command=self.command,
            created=files.read_json(self.store.folder / BEGUN)["created"],
            findings=[
                dataclasses.asdict(finding)
                for finding in guards.settle(everything, self.experiment.guards.allow)
            ],
            copies=self._copies,
            reused=ending.reused,
        )
        try:
            summary.write(facts)
        except UserError as error:
            if not ending.failed:
                raise
            view.warn(str(error))

    # Guards ---------------------------------------------------------------------------------

    def _guard_data(self, view: View) -> None:
        """Guards of the real pictures; what they found of the same pictures is remembered."""
        key = digest(["data", self.real.fingerprint()])

        def look() -> list[Finding]:
            view.say("Looking for patients and pictures that are in two splits ...")
            return guards.of_data(self.experiment.data, self.real.images)

        self._guard("data", key, look)

    def _guard_given(self) -> None:
        """Runs and folders of the user's: what they were trained on is known before we begin."""
        for name, generator in self.experiment.generators.items():
            place = generator.run or generator.folder
            if place is None:
                continue
            pool = self.planner.pools[name]
            key = digest(["leak", pool.key, self.real.fingerprint()])
            self._guard(
                f"leak {name}",
                key,
                lambda name=name, place=place: [
                    guards.generator_leak({name: place}, self._all_items())
                ],
            )
            if pool.cell is None:
                self._guard_pool(pool)

    def _inspect(self, cell: Cell) -> None:
        """Guards of synthetic pictures, as soon as they are there."""
        for pool in self.planner.pools.values():
            if pool.cell is not None and pool.cell.name == cell.name:
                self._guard_pool(pool)

    def _guard_pool(self, pool: Pool) -> None:
        key = digest(["pool", pool.key, self.real.fingerprint()])
        known = self._remembered(key)
        if known is None:
            leak = guards.generator_leak({pool.name: pool.folder}, self._all_items())
            looked = guards.copies_in(
                pool.folder, self._all_items(), self.real.images, self.experiment.data
            )
            found = [leak]
            if not _of_masks(looked):
                found.append(guards.copies({pool.name: looked}))
            told = {"flagged": looked.flagged, "of": looked.of, "message": looked.message}
            known = {"findings": [dataclasses.asdict(f) for f in found], "copies": told}
            self._remember(key, known)
        self._copies[pool.name] = known["copies"]
        self._note(f"pool {pool.name}", [Finding(**f) for f in known["findings"]])

    def _guard(self, name: str, key: str, look: Any) -> None:
        known = self._remembered(key)
        if known is None:
            known = {"findings": [dataclasses.asdict(finding) for finding in look()]}
            self._remember(key, known)
        self._note(name, [Finding(**finding) for finding in known["findings"]])

    def _note(self, name: str, found: list[Finding]) -> None:
        self._findings[name] = found
        self._require(found)

    def _require(self, found: Sequence[Finding]) -> None:
        guards.require(found, self.experiment.guards.allow)

    def _guard_findings(self) -> list[Finding]:
        """In the order of the guards; one that passed for several generators is said once each."""
        found = [finding for findings in self._findings.values() for finding in findings]
        order = {name: place for place, name in enumerate(guards.GUARDS)}
        return sorted(found, key=lambda finding: order.get(finding.name, len(order)))

    def _all_items(self) -> list[guards.Item]:
        if self._items is None:
            self._items = [
                guards.Item(
                    item["id"], item["split"], frozenset(item["sha256"].values()), item["group"]
                )
                for item in self.real.items()
            ]
        return self._items

    def _remembered(self, key: str) -> Any:
        return _read(self.store.folder / FINDINGS).get(key)

    def _remember(self, key: str, value: Mapping[str, Any]) -> None:
        path = self.store.folder / FINDINGS
        files.write_json(path, {**_read(path), key: dict(value)})


def write_data(real: RealData, path: Path, view: View) -> None:
    """Write which pictures there are; warn if they are not those of an earlier start."""
    if path.is_file() and files.read_json(path).get("sha256") != real.fingerprint():
        view.warn(
            "the pictures or their splits are not what they were. What depends on them is "
            "computed anew; what is there already is kept."
        )
    real_data.write(real, path)


def begin(folder: Path, scale: str) -> None:
    """Note when an experiment was first begun."""
    if not (folder / BEGUN).is_file():
        files.write_json(folder / BEGUN, {"created": run_folder.now(), "scale": scale})


def _of_masks(looked: guards.Copies) -> bool:
    """Masks are alike by nature; nobody expects a search for copies among them."""
    return "they are no pictures" in looked.reason


def _read(path: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return known


# State of an experiment ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """How far an experiment is, from its files alone.

    Attributes:
        cells: record of each cell that was ever begun.
        held: the process that works on it, if one does.
        has_summary: whether there is something to report.
    """

    cells: list[dict[str, Any]]
    held: str | None
    has_summary: bool

    @property
    def states(self) -> dict[str, int]:
        """Number of cells by state."""
        return dict(Counter(str(cell.get("state", "new")) for cell in self.cells))


def status(folder: Path) -> Status:
    """How far an experiment is.

    Raises:
        UserError: if the folder is none of an experiment.
    """
    require_experiment(folder)
    cells = []
    for path in sorted((folder / "cells").glob("*.json")):
        record = _read(path)
        if "key" in record:
            name = path.stem
            step = _step(folder / "cells" / name)
            cells.append({"cell": name, **record, "step": step})
    held = None
    try:
        with RunFolder(folder).locked():
            pass
    except UserError as error:
        held = str(error)
    if held is None:  # nothing runs, whatever was last noted
        cells = [{**c, "state": "stopped"} if c.get("state") == "running" else c for c in cells]
    return Status(cells, held, (folder / "summary.json").is_file())


def _step(run: Path) -> int | None:
    from tfgan_med.experiments.running import last_step

    return last_step(run)


def require_experiment(folder: Path) -> None:
    """UserError for a folder that is none of an experiment."""
    if not (folder / YAML).is_file():
        raise UserError(
            f"{folder}: no experiment ({YAML} is not there). Name the folder that "
            "`tfgan-med experiment run` made, such as experiments/tuberculosis."
        )


def told_plan(plan: Mapping[str, Any]) -> str:
    """A dry run in words."""
    lines = [f"Experiment {plan['experiment']} in {plan['folder']}"]
    for split, counts in plan["data"].items():
        lines.append(f"  {split:5} {_counted(counts)}")
    for name, counts in plan["pictures"].items():
        lines.append(f"  {name}: {_counted(counts)} synthetic")
    for cell in plan["cells"]:
        state = "reused" if cell["done"] else {"new": "to do"}.get(cell["state"], "to go on with")
        steps = f"{cell['steps']} steps" if cell["steps"] else ""
        time = f"about {duration(cell['seconds'])}" if cell["seconds"] else ""
        facts = "  ".join(filter(None, (steps, time)))
        lines.append(f"  {state:13} {cell['kind']:8} {cell['label']}  {facts}".rstrip())
    if plan["undecided"]:
        lines.append(f"  {plan['undecided']} more trainings once the grid search has chosen")
    total = len(plan["cells"]) + plan["undecided"]
    lines.append(f"{total} cells, {plan['done']} of them finished; {_time(plan)}")
    lines += plan["notices"]
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {label}" for label, number in counts.items())


def _time(plan: Mapping[str, Any]) -> str:
    if not plan["seconds"]:
        return (
            "time unknown until one of each kind is finished." if plan["unknown"] else "all done."
        )
    more = f" and {plan['unknown']} cells of unknown length" if plan["unknown"] else ""
    return f"about {duration(plan['seconds'])} for one process at a time{more}."


def outcome_lines(folder: Path) -> list[str]:
    """The verdicts of a summary, a line each."""
    path = folder / "summary.json"
    if not path.is_file():
        return []
    told = json.loads(path.read_text(encoding="utf-8"))
    if told.get("kind") == "subsets":
        return [f"{c['title']}: {c['ours']}" for c in told["conclusions"] if c.get("ours")]
    lines = []
    for study in told["studies"]:
        for one in study["comparisons"]:
            if one["metric"] == study["main"] and one.get("sentence"):
                lines.append(f"{study['downstream']}, {one['arm']}: {one['sentence']}")
    return lines


def told_status(folder: Path, found: Status) -> str:
    """A status in words: counts by state, then what is not done."""
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found.states.items()))
    lines = [f"{folder}: {counts or 'nothing was begun'}"]
    if found.held:
        lines.append(f"Running: {found.held.partition(': ')[2].partition('.')[0]}.")
    for cell in found.cells:
        if cell.get("state") != "done":
            step = f"  step {cell['step']}" if cell["step"] else ""
            lines.append(f"  {cell.get('state')}: {cell['kind']} {cell['label']}{step}")
    return "\n".join(lines)
