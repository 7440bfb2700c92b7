"""A subset study from its file to its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfgan_med import files
from tfgan_med.experiments import (
    forecast,
    real_data,
    subset_planning,
    subset_protocol,
    subset_summary,
)
from tfgan_med.experiments.cells import Store
from tfgan_med.experiments.conducting import BEGUN, YAML, begin, write_data
from tfgan_med.experiments.progress import View
from tfgan_med.experiments.running import Ending, Runner
from tfgan_med.experiments.subset_planning import SubsetPlanner
from tfgan_med.experiments.subset_protocol import SubsetStudy
from tfgan_med.training.run_folder import RunFolder


class SubsetConductor:
    """One study in its folder.

    Args:
        study: what is asked.
        folder: of the study, `<out>/<name>`.
        base: folder of the study's file.
        scale: which scale it has, for the report.
        command: to do it again.
    Raises:
        UserError: if the settings cannot be right.
        DataError: if a set has too few usable pictures.
    """

    def __init__(
        self,
        study: SubsetStudy,
        folder: Path,
        base: Path,
        scale: str | None = None,
        command: str = "",
    ) -> None:
        self.study = study
        self.store = Store(folder)
        self.called = folder
        self.scale = scale or "full"
        self.command = command
        self.reals = {
            name: real_data.open_real(one.data, folder / f"data-{name}.json")
            for name, one in study.sets.items()
        }
        self.sources = {
            name: real_data.open_real(data, folder / f"data-source-{name}.json")
            for name, data in subset_planning.source_data(study, base).items()
        }
        self.planner = SubsetPlanner(study, self.reals, self.sources, self.store, base)

    def dry_run(self) -> dict[str, Any]:
        """The plan as JSON values."""
        size = self.study.size
        return {
            "experiment": self.study.experiment,
            "folder": str(self.called),
            "data": {
                name: {f"{split} pictures": sum(n.values()) for split, n in counts.items()}
                for name in self.study.sets
                for counts in [self.planner.counts(name)]
            },
            **forecast.of(self.planner.plan(), self.store),
            "pictures": {
                name: {f"pictures from each {size} chosen ones, all": self.study.count}
                for name in self.study.generators
            },
            "notices": self.planner.notices,
        }

    def run(self, jobs: int, view: View) -> Ending:
        """Work everything off that is not finished, then write what came of it.

        Raises:
            UserError: if another process holds the study.
        """
        folder = self.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        with RunFolder(folder).locked():
            for notice in self.planner.notices:
                view.warn(notice)
            self._write_what_is_known(view)
            ending = Runner(self.store, self.planner.plan, jobs, view).run()
            if ending.signal is None:
                self._summarize(ending)
        return ending

    def _write_what_is_known(self, view: View) -> None:
        folder = self.store.folder
        for name, real in self.reals.items():
            write_data(real, folder / f"data-{name}.json", view)
        for name, real in self.sources.items():
            write_data(real, folder / f"data-source-{name}.json", view)
        files.write_text(folder / YAML, subset_protocol.as_yaml(self.study, folder))
        begin(folder, self.scale)

    def _summarize(self, ending: Ending) -> None:
        facts = subset_summary.Facts(
            study=self.study,
            reals=self.reals,
            plan=self.planner.plan(),
            store=self.store,
            scale=self.scale,
            command=self.command,
            created=files.read_json(self.store.folder / BEGUN)["created"],
            reused=ending.reused,
            failed={name: log for name, (_, log) in ending.failed.items()},
            notices=self.planner.notices,
        )
        if facts.done:
            subset_summary.write(facts)
