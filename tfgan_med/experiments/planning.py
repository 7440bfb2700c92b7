"""From an experiment to its cells: what is trained on what, and what each depends on.

The plan is a pure function of the experiment, of the pictures and of the grid searches that are
finished; it is made anew when one of these ends, since the arms take what it chose.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfgan_med import config, discovery, files
from tfgan_med.config import Values
from tfgan_med.data.survey import choose_domains
from tfgan_med.errors import UserError
from tfgan_med.evaluation import choice
from tfgan_med.experiments import protocol, sets, trainings
from tfgan_med.experiments.cells import Cell, Store, key_of
from tfgan_med.experiments.protocol import Arm, Downstream, Experiment, Generator
from tfgan_med.experiments.real_data import RealData
from tfgan_med.networks import pretrained
from tfgan_med.networks.extractors import ExtractorChoice
from tfgan_med.training import predictions, settings
from tfgan_med.training.run_folder import CLASSES

_LOWER_IS_BETTER = ("loss", "brier", "l1", "swd", "fid", "kid")

Counts = dict[str, int]


@dataclass(frozen=True)
class Pool:
    """Synthetic pictures of a generator.

    Attributes:
        name: of the generator.
        folder: where they are, or will be.
        cell: that makes them; None if they were there before.
        trained: the trainings behind them.
        key: hash of what they are, where there is no cell.
        made: how many of each class are made; `all` without classes.
        wanted: of these, how many an arm takes that names no number.
    """

    name: str
    folder: Path
    cell: Cell | None
    trained: tuple[Cell, ...]
    key: str
    made: Counts
    wanted: Counts

    @property
    def labelled(self) -> bool:
        """Whether the pictures have classes."""
        return "all" not in self.made


@dataclass(frozen=True)
class Repeat:
    """A training of a downstream model in an arm."""

    downstream: str
    arm: Arm
    seed: int
    cell: Cell


@dataclass(frozen=True)
class Point:
    """A training of a grid search, and the settings that it tries."""

    downstream: str
    values: Mapping[str, Any]
    cell: Cell


@dataclass(frozen=True)
class Plan:
    """Cells in an order in which each follows what it needs.

    Attributes:
        cells: all that are known.
        pools: by name of the generator.
        measures: the cell that measures each generator's pictures.
        points, repeats: what the trainings of downstream models are for.
        chosen: settings that the grid search chose, for each downstream model that had one.
        undecided: trainings whose settings a grid search has still to choose.
    """

    cells: tuple[Cell, ...]
    pools: Mapping[str, Pool]
    measures: Mapping[str, Cell]
    points: tuple[Point, ...]
    repeats: tuple[Repeat, ...]
    chosen: Mapping[str, Mapping[str, Any]]
    undecided: int

    def by_name(self) -> dict[str, Cell]:
        """The cells by the names of their folders."""
        return {cell.name: cell for cell in self.cells}


class Planner:
    """Makes the plan of one experiment.

    Args:
        experiment: what is asked.
        real: the pictures.
        store: where cells are.
        base: folder of the experiment's file, to which paths in settings of models are relative.
    Raises:
        UserError: if settings of a model are wrong, or numbers do not fit.
    """

    def __init__(self, experiment: Experiment, real: RealData, store: Store, base: Path) -> None:
        self.experiment = experiment
        self.real = real
        self.store = store
        self.base = base
        self.pools: dict[str, Pool] = {}
        self.generator_cells: list[Cell] = []
        self.measures: dict[str, Cell] = {}
        self.notices: list[str] = []
        for name in self._generators_in_order():
            self.pools[name] = self._pool(name, experiment.generators[name])
        self._check_classes()
        self._plan_measures()

    def plan(self) -> Plan:
        """All cells that are known by now."""
        points: list[Point] = []
        repeats: list[Repeat] = []
        chosen: dict[str, Mapping[str, Any]] = {}
        undecided = 0
        for name, model in self.experiment.downstream.items():
            own = self._points(name, model)
            points += own
            best = self.decided(own)
            if own and best is None:
                undecided += len(self.experiment.all_arms) * len(self.experiment.seeds)
                continue
            if best is not None:
                chosen[name] = best.values
            repeats += self._repeats(name, model, best.values if best else {})
        trainings = [point.cell for point in points] + [repeat.cell for repeat in repeats]
        cells = [*self.generator_cells, *trainings, *self._measuring_cells()]
        unique = {cell.name: cell for cell in cells}
        return Plan(
            tuple(unique.values()),
            self.pools,
            self.measures,
            tuple(points),
            tuple(repeats),
            chosen,
            undecided,
        )

    # Generators -----------------------------------------------------------------------------

    def _generators_in_order(self) -> list[str]:
        """Those that others take as their input come first."""
        named = self.experiment.generators
        return sorted(named, key=lambda name: named[name].input is not None)

    def _pool(self, name: str, generator: Generator) -> Pool:
        where = f"generators.{name}"
        if generator.folder is not None:
            return self._given_folder(name, generator)
        runs, kind = self._runs(name, generator)
        if generator.translate and kind != "domains":
            raise UserError(
                f"{where}.translate: is of models of two kinds of pictures, such as cyclegan. "
                "Leave it out."
            )
        if generator.input and kind != "pairs":
            raise UserError(f"{where}.input: is of models that translate, such as pix2pix.")
        if kind == "domains":
            return self._translated_domains(name, generator, runs[None])
        if generator.input is not None:
            return self._translated_masks(name, generator, runs[None])
        asked = self._as_input(name, generator)
        wanted = self._wanted(where, asked, labelled=None not in runs)
        made = self._enough(name, wanted)
        split = [] if kind == "images" else ["--split", "train"]
        parts = [
            self._making(
                name if label is None else f"{name}-{label}",
                run,
                [
                    "generate",
                    "--count",
                    str(made["all" if label is None else label]),
                    *split,
                    *_weights(generator),
                ],
            )
            for label, run in runs.items()
            if made["all" if label is None else label]
        ]
        return self._joined(name, parts, runs, made, wanted)

    def _as_input(self, name: str, generator: Generator) -> Generator:
        """Masks for another generator: as many as it is asked for pictures, if nothing is said."""
        if generator.count or generator.class_counts or generator.ratio:
            return generator
        for other in self.experiment.generators.values():
            if other.input == name and (other.count or other.ratio):
                return generator.model_copy(update={"count": other.count, "ratio": other.ratio})
        return generator

    def _given_folder(self, name: str, generator: Generator) -> Pool:
        assert generator.folder is not None
        made = sets.count(generator.folder)
        wanted = made
        if generator.count or generator.class_counts or generator.ratio:
            wanted = self._wanted(f"generators.{name}", generator, "all" not in made)
            self._check_enough(f"generators.{name}", wanted, made)
        key = sets.content_of(generator.folder)
        return Pool(name, generator.folder, None, (), key, made, wanted)

    def _runs(
        self, name: str, generator: Generator
    ) -> tuple[dict[str | None, tuple[Path, str, Cell | None]], str]:
        """Runs by class (None for all), each with its content; and what kind they are."""
        if generator.run is not None:
            return _finished_runs(f"generators.{name}", generator.run)
        assert generator.train is not None
        kind = settings.model_class(generator.train).needs
        labels: list[str | None] = [None]
        if generator.per_class:
            if kind != "images" or len(self.real.labels) < 2:
                raise UserError(
                    f"generators.{name}.per_class: needs a model of pictures alone and two classes "
                    f"in the training split; found {generator.train} and "
                    f"{', '.join(self.real.labels) or 'no classes'}. Leave it out."
                )
            asked = generator.class_counts
            labels = [label for label in self.real.labels if not asked or asked.get(label)]
        runs: dict[str | None, tuple[Path, str, Cell | None]] = {}
        for label in labels:
            cell = self._gan(name, generator, label)
            self.generator_cells.append(cell)
            runs[label] = (self.store.path(cell), cell.key, cell)
        return runs, kind

    def _gan(self, name: str, generator: Generator, label: str | None) -> Cell:
        """Training of a generator: on the training split of the experiment's data alone."""
        own = {"data": generator.data, "model": generator.model, "train": generator.settings}
        values = [self._data(label), own]
        chosen = self._resolved(str(generator.train), f"generators.{name}", values)
        steps = trainings.steps(chosen, len(self.real.records("train", label)))
        content = {
            "settings": trainings.content(chosen),
            "data": self.real.fingerprint(label),
        }
        return Cell(
            "gan",
            name if label is None else f"{name}-{label}",
            key_of("gan", content),
            settings=chosen,
            steps=steps,
            about={"generator": name, "class": label, "system": generator.train},
        )

    def _making(
        self, label: str, run: tuple[Path, str, Cell | None], arguments: Sequence[str]
    ) -> Cell:
        """A process that makes pictures with a run."""
        path, key, cell = run
        needs = (cell,) if cell else ()
        content = {"arguments": list(arguments), "run": None if cell else key}
        verb, *more = arguments

        def command(folder: Path) -> list[str]:
            return [verb, str(path), *more, "--out", str(folder), "--quiet"]

        made = Cell(
            "generate",
            label,
            key_of("generate", content, needs),
            needs=tuple(need.name for need in needs),
            command=command,
        )
        self.generator_cells.append(made)
        return made

    def _translated_domains(
        self, name: str, generator: Generator, run: tuple[Path, str, Cell | None]
    ) -> Pool:
        """Training pictures of A as B and of B as A."""
        a, b = self._domains(run)
        ways = ("a2b", "b2a") if generator.translate in (None, "both") else (generator.translate,)
        counts = {c: len(self.real.records("train", c)) for c in (a, b)}
        parts, made = [], {}
        for way in ways:
            source, target = (a, b) if way == "a2b" else (b, a)
            arguments = ["translate", "--split", "train", "--direction", str(way)]
            parts.append(self._making(f"{name}-{way}", run, [*arguments, *_weights(generator)]))
            made[target] = counts[source]
        wanted = made
        if generator.count or generator.class_counts or generator.ratio:
            wanted = self._wanted(f"generators.{name}", generator, True, made)
        self._check_enough(f"generators.{name}", self._enough(name, wanted), made)
        return self._joined(name, parts, {None: run}, made, wanted, always=True)

    def _domains(self, run: tuple[Path, str, Cell | None]) -> tuple[str, str]:
        """The classes that a run translates into each other."""
        path, _, cell = run
        if cell is None:
            named = config.load_yaml(path / "weights" / "network.yaml").get("classes")
            if not named:
                raise UserError(f"{path}: translates roles, not classes; its pictures have none.")
            return str(named[0]), str(named[1])
        assert cell.settings is not None
        found = choose_domains(self.real.images, cell.settings.data)  # type: ignore[attr-defined]
        if not set(found) <= set(self.real.images.labels):
            raise UserError(
                f"generators.{cell.about['generator']}: translates {found[0]} and {found[1]}, "
                "which are no classes. Use a model of pairs such as pix2pix for masks."
            )
        return found

    def _translated_masks(
        self, name: str, generator: Generator, run: tuple[Path, str, Cell | None]
    ) -> Pool:
        """Pictures for the masks that another generator makes, some of each for more of them."""
        masks = self.pools[str(generator.input)]
        there = sum(masks.made.values())
        wanted = {"all": there}
        if generator.count or generator.ratio:
            wanted = self._wanted(f"generators.{name}", generator, False)
        each = math.ceil(self._enough(name, wanted)["all"] / there)
        arguments = ["translate", "--input", "MASKS", "--stochastic", str(each)]
        path, key, cell = run
        needs = tuple(need for need in (cell, masks.cell) if need)
        content = {
            "arguments": [*arguments, *_weights(generator)],
            "run": None if cell else key,
            "input": None if masks.cell else masks.key,
        }

        def command(folder: Path) -> list[str]:
            verb, *more = (str(masks.folder) if a == "MASKS" else a for a in arguments)
            own = [*_weights(generator), "--out", str(folder), "--quiet"]
            return [verb, str(path), *more, *own]

        made = Cell(
            "generate",
            name,
            key_of("generate", content, needs),
            needs=tuple(need.name for need in needs),
            command=command,
        )
        self.generator_cells.append(made)
        counts = {"all": there * each}
        trained = (*((cell,) if cell else ()), *masks.trained)
        return Pool(name, self.store.path(made), made, trained, made.key, counts, wanted)

    def _joined(
        self,
        name: str,
        parts: Sequence[Cell],
        runs: Mapping[str | None, tuple[Path, str, Cell | None]],
        made: Counts,
        wanted: Counts,
        always: bool = False,
    ) -> Pool:
        """One set of the pictures of several processes."""
        trained = tuple(cell for _, _, cell in runs.values() if cell)
        whole = parts[0]
        if len(parts) > 1 or always:
            folders = [self.store.path(part) for part in parts]
            whole = Cell(
                "generate",
                f"{name}-set",
                key_of("generate", {"join": len(parts)}, parts),
                needs=tuple(part.name for part in parts),
                job=functools.partial(sets.join, folders),
            )
            self.generator_cells.append(whole)
        return Pool(name, self.store.path(whole), whole, trained, whole.key, made, wanted)

    # Numbers of pictures --------------------------------------------------------------------

    def _wanted(
        self, where: str, generator: Generator, labelled: bool, shares: Counts | None = None
    ) -> Counts:
        """How many pictures of each class the file asks for.

        Args:
            labelled: whether the pictures have classes; else there is one number, `all`.
            shares: proportion of the classes; by default that of the training pictures.
        """
        training = self.real.counts("train")
        if not labelled:
            training = {"all": sum(training.values())}
        if generator.class_counts:
            unknown = [name for name in generator.class_counts if name not in training]
            if unknown:
                reason = discovery.unknown(unknown[0], "class", training)
                raise UserError(f"{where}.class_counts: {reason}")
            return {label: generator.class_counts.get(label, 0) for label in training}
        if generator.ratio is not None:
            return {label: round(generator.ratio * n) for label, n in training.items()}
        if generator.count is not None:
            return shared(generator.count, shares or training)
        return training

    def _enough(self, name: str, wanted: Counts) -> Counts:
        """At least so many that every arm that asks for a number can have it."""
        counts = self.real.counts("train")
        total = sum(counts.values())
        most = 0.0
        for arm in self.experiment.all_arms:
            if name in arm.synthetic:
                share = (arm.ratio or 0.0) * total if arm.count is None else arm.count
                most = max(most, share / len(arm.synthetic))
        scale = most / max(1, sum(wanted.values()))
        return {label: max(n, math.ceil(scale * n - 1e-9)) for label, n in wanted.items()}

    def _check_enough(self, where: str, wanted: Counts, made: Counts) -> None:
        for label, number in wanted.items():
            if number > made.get(label, 0):
                raise UserError(
                    f"{where}: {number} pictures of {label} are asked for, but there are "
                    f"{made.get(label, 0)}. Lower count, class_counts, or the ratios of the arms."
                )

    def _check_classes(self) -> None:
        """Classifiers cannot learn from pictures without a class."""
        classifiers = [
            name
            for name, model in self.experiment.downstream.items()
            if _needs(model.system or name) == "labels"
        ]
        used = {name for arm in self.experiment.all_arms for name in arm.synthetic}
        for name in used if classifiers else ():
            if not self.pools[name].labelled:
                raise UserError(
                    f"generators.{name}: its pictures have no classes, but {classifiers[0]} learns "
                    "classes. Set per_class: true to train one model for each class."
                )

    # Measuring ------------------------------------------------------------------------------

    def _plan_measures(self) -> None:
        """A measurement of every generator whose pictures some arm uses."""
        self.reals: Cell | None = None
        used = {name for arm in self.experiment.all_arms for name in arm.synthetic}
        names = self._measurable() if used and "images" in self.real.images.roles else []
        for name in (name for name in self.pools if name in used and names):
            self.reals = self.reals or self._real_pictures()
            self.measures[name] = self._measure(self.pools[name], self.reals, names)

    def _measurable(self) -> list[str]:
        """Measures whose network is on this machine; those of features bring a look for copies."""
        asked = self.experiment.metrics
        chosen = {name: choice.load(name.replace("-", "_"))() for name in asked.generative}
        network = ExtractorChoice(protocol=asked.protocol, features=asked.features).store_name
        if network is None or pretrained.find(network):
            return list(dict.fromkeys([*chosen, "memorization"])) if chosen else []
        needing = [n for n, metric in chosen.items() if metric.required() & {"features", "logits"}]
        if needing:
            self.notices.append(
                f"{', '.join(needing)} will not be measured: the weights {network} are not on this "
                f"machine. Import them (tfgan-med weights import {network}), or name another "
                "network with metrics.features."
            )
        return [name for name in chosen if name not in needing]

    def _measuring_cells(self) -> Iterable[Cell]:
        return ([self.reals] if self.reals else []) + list(self.measures.values())

    def _real_pictures(self) -> Cell:
        data = self.experiment.data
        content = {
            "data": self.real.fingerprint(),
            "how": data.model_dump(mode="json", include={"image_size", "fit", "scale", "window"}),
        }
        job = functools.partial(sets.write_reals, self.real, data)
        return Cell("measure", "reals", key_of("measure", content), job=job)

    def _measure(self, pool: Pool, reals: Cell, names: Sequence[str]) -> Cell:
        asked = self.experiment.metrics
        data = self.experiment.data
        fit = "stretch" if data.fit == "patches" else data.fit
        arguments = ["--metrics", ",".join(names), "--protocol", asked.protocol]
        arguments += ["--resize", str(data.image_size), "--fit", fit, "--seed", "0"]
        if asked.features_output:
            arguments += ["--features-output", asked.features_output]
        features = asked.features
        file = Path(features) if features else None
        content = {
            "arguments": arguments,
            "features": files.sha256_of(file) if file and file.is_file() else features,
            "pool": None if pool.cell else pool.key,
        }
        needs = (reals, *((pool.cell,) if pool.cell else ()))

        def command(folder: Path) -> list[str]:
            real = ["--real", str(self.store.path(reals)), "--real-split", "train"]
            fake = ["--fake", str(pool.folder), "--plots", str(folder / "figures"), "--json"]
            own = ["--features", features] if features else []
            return ["evaluate", "all", *real, *fake, *arguments, *own, "--quiet"]

        return Cell(
            "measure",
            pool.name,
            key_of("measure", content, needs),
            needs=tuple(need.name for need in needs),
            command=command,
            output="results.jsonl",
        )

    # Downstream models ----------------------------------------------------------------------

    def _points(self, name: str, model: Downstream) -> list[Point]:
        """The trainings of a grid search: on real pictures, with the first seed."""
        grid = model.grid if model.grid is not None else self.experiment.grid
        seed = self.experiment.seeds[0]
        real = next((arm for arm in self.experiment.arms if arm.name == "real"), None)
        if real is None:
            return []
        made = []
        for number, values in enumerate(protocol.grid_points(grid)):
            cell = self._training("grid", f"{name}-{number:02d}", name, model, real, seed, values)
            made.append(Point(name, values, cell))
        return made

    def decided(self, points: Sequence[Point]) -> Point | None:
        """The best of a finished grid search on the validation split; the first of equals."""
        if not points or not all(self.store.is_done(point.cell) for point in points):
            return None

        def score(point: Point) -> float:
            best = predictions.read_outcome(self.store.path(point.cell))["best"]
            value = float(best["value"])
            return -value if best["metric"] in _LOWER_IS_BETTER else value

        return max(points, key=score)

    def _repeats(self, name: str, model: Downstream, values: Mapping[str, Any]) -> list[Repeat]:
        made = []
        for arm in self.experiment.all_arms:
            for seed in self.experiment.seeds:
                label = f"{name}-{arm.name}-s{seed}"
                cell = self._training("arm", label, name, model, arm, seed, values)
                made.append(Repeat(name, arm, seed, cell))
        return made

    def _training(
        self,
        kind: Any,
        label: str,
        name: str,
        model: Downstream,
        arm: Arm,
        seed: int,
        values: Mapping[str, Any],
    ) -> Cell:
        """Training of a downstream model; arms differ in `mix` and `classic` alone."""
        system = model.system or name
        # All arms take the same number of steps, unless the file wants them to stop early.
        train = {"patience": None, **model.train}
        own: Values = {"data": model.data, "model": model.model, "train": train}
        frozen = protocol.nested(values)
        fixed = {
            "mix": self._mix(arm, seed),
            "classic": self._classic(arm, model),
            "train": {"seed": seed, "score_test": kind != "grid"},
        }
        where = f"downstream.{name}"
        chosen = self._resolved(system, where, [self._data(), own, frozen, fixed])
        steps = trainings.steps(chosen, self._real_count(chosen))
        train = chosen.train.model_copy(update={"steps": steps})
        chosen = chosen.model_copy(update={"train": train})
        pools = [self.pools[made] for made in arm.synthetic]
        needs = tuple(pool.cell for pool in pools if pool.cell)
        content = {
            "settings": trainings.content(chosen),
            "data": self.real.fingerprint(),
            "folders": [pool.key for pool in pools if pool.cell is None],
        }
        return Cell(
            kind,
            label,
            key_of(kind, content, needs),
            needs=tuple(need.name for need in needs),
            settings=chosen,
            steps=steps,
            about={"downstream": name, "arm": arm.name, "seed": seed, "system": system},
        )

    def _mix(self, arm: Arm, seed: int) -> Values:
        pools = [self.pools[name] for name in arm.synthetic]
        mix: Values = {
            "real": arm.real,
            "synthetic": [str(pool.folder) for pool in pools],
            "sampling": arm.sampling,
            "positive_rate": arm.positive_rate,
            "seed": seed,
        }
        for key in ("ratio", "fraction", "count"):
            if getattr(arm, key) is not None:
                mix[key] = getattr(arm, key)
        if pools and arm.ratio is None and arm.count is None:
            mix.update(_as_wanted(pools))
        return mix

    def _classic(self, arm: Arm, model: Downstream) -> Values:
        """Settings of the classical augmentation; switched off is a setting too."""
        if arm.classic is False:
            return {"preset": "none"}
        asked = model.classic if model.classic is not None else self.experiment.classic
        chosen = asked if arm.classic is True else arm.classic
        return {"preset": chosen} if isinstance(chosen, str) else dict(chosen)

    def _real_count(self, chosen: Any) -> int:
        """Real training pictures of a downstream model, a validation part taken off if need be."""
        count = len(self.real.records("train"))
        if self.real.records("val"):
            return count
        return max(1, round(count * (1.0 - float(chosen.train.validation))))

    # Settings -------------------------------------------------------------------------------

    def _data(self, label: str | None = None) -> Values:
        """The block `data` of every training: what the file says, and one way of splitting."""
        data = self.experiment.data
        values = data.model_dump(include=data.model_fields_set | set(protocol.SPLIT_KEYS))
        if label is not None:
            values["label"] = label
        values["share_decoded"] = True  # every arm decodes the same pictures
        if {"near-duplicates", "group-across-splits"} & set(self.experiment.guards.allow):
            values["check"] = False  # allowed by name, and in the report
        return {"data": values}

    def _resolved(self, system: str, where: str, layers: Sequence[Values]) -> Any:
        return trainings.resolved(system, where, layers, self.base)


def shared(total: int, shares: Mapping[str, int]) -> Counts:
    """Whole numbers in the proportion of shares that add up to a total (largest remainders)."""
    whole = max(1, sum(shares.values()))
    exact = {label: total * share / whole for label, share in shares.items()}
    counts = {label: int(value) for label, value in exact.items()}
    behind = sorted(exact, key=lambda label: counts[label] - exact[label])
    for label in behind[: total - sum(counts.values())]:
        counts[label] += 1
    return counts


def _as_wanted(pools: Sequence[Pool]) -> Values:
    """How many pictures of a larger set an arm takes that names no number."""
    if all(pool.made == pool.wanted for pool in pools):
        return {}
    total: Counts = {}
    for pool in pools:
        for label, number in pool.wanted.items():
            total[label] = total.get(label, 0) + number
    if all(pool.labelled for pool in pools):
        return {"class_counts": total}
    return {"count": sum(total.values())}


def _weights(generator: Generator) -> list[str]:
    return ["--checkpoint", generator.checkpoint, "--seed", str(generator.seed)]


def _needs(system: str) -> str:
    cls: Any = settings.system_class(system)
    return str(cls.needs)


def _finished_runs(
    where: str, run: Path
) -> tuple[dict[str | None, tuple[Path, str, Cell | None]], str]:
    """A run of the user's, or the runs of its classes."""
    places: dict[str | None, Path] = {None: run}
    if (run / CLASSES).is_file():
        named = files.read_json(run / CLASSES)["classes"]
        places = {label: run / folder for label, folder in named.items()}
    kinds = set()
    for place in places.values():
        network = place / "weights" / "network.yaml"
        if not network.is_file():
            raise UserError(
                f"{where}.run: {place} has no weights/network.yaml, so it is no run of a generator "
                "that got to its first step. Name another, or train it with `train:`."
            )
        kinds.add(str(config.load_yaml(network).get("kind", "pairs")))
    kind = kinds.pop()
    if kind == "downstream":
        raise UserError(f"{where}.run: {run} is a downstream model and makes no pictures.")
    found = {label: (p, sets.content_of(p / "weights"), None) for label, p in places.items()}
    return found, kind  # type: ignore[return-value]
