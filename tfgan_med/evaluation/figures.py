"""Figures of an evaluation: what the numbers look like."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgan_med.evaluation import charts, sheets
from tfgan_med.evaluation.measuring import Evaluation, Outcome
from tfgan_med.evaluation.pictures import Pictures
from tfgan_med.metrics.base import Features, Progress, Side
from tfgan_med.metrics.prdc import realism_scores
from tfgan_med.ops.neighbors import nearest

_SHOWN = 10  # generated pictures on the sheet of neighbors
_NEIGHBORS = 4
_WORST = 12  # pairs on a sheet of possible copies


def draw(
    evaluation: Evaluation,
    fake: Pictures,
    outcome: Outcome,
    folder: Path,
    progress: Progress = lambda what, done, total: None,
) -> list[Path]:
    """Draw what there is data for.

    Args:
        evaluation: that computed the outcome; it reads pictures again for the sheets.
        fake: the generated set.
        outcome: numbers and features.
        folder: for the files, made if need be; files of the same names are replaced.
        progress: called with what is drawn, figures done and all.
    Returns:
        `embedding.png`, `neighbors.png` and `distances.png` with features; `copies_pixels.png`
        and `copies_features.png` after memorization.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    real_features, fake_features = outcome.real.features, outcome.fake.features
    if real_features is not None and fake_features is not None:
        progress("figures", 0, 3)
        with contextlib.suppress(ValueError):  # too few pictures, or all alike: nothing to see
            written.append(
                charts.embedding(
                    real_features,
                    {fake.name: fake_features},
                    folder / "embedding.png",
                    seed=evaluation.options.seed,
                )
            )
        progress("figures", 1, 3)
        written.append(_neighbors(evaluation, fake, outcome, folder / "neighbors.png"))
        progress("figures", 2, 3)
        if len(real_features) > 2:
            written.append(_distances(real_features, fake_features, fake, folder))
        progress("figures", 3, 3)
    for space in ("pixels", "features"):
        worst = _worst(outcome, space)
        if worst:
            path = folder / f"copies_{space}.png"
            written.append(_copies(evaluation, fake, outcome, worst, path))
    return written


def _neighbors(evaluation: Evaluation, fake: Pictures, outcome: Outcome, path: Path) -> Path:
    """Generated pictures, least realistic first, each beside the real ones nearest to it."""
    real_features, fake_features = outcome.real.features, outcome.fake.features
    assert real_features is not None and fake_features is not None
    order = _by_realism(real_features, fake_features, evaluation.options.seed)
    shown = order[np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).astype(int)].tolist()
    real = evaluation.real if evaluation.usual else evaluation.training or evaluation.real
    found, indices = nearest(
        fake_features[shown], real_features, min(_NEIGHBORS, len(real_features))
    )
    return sheets.neighbors(
        evaluation.read(fake, shown),
        [evaluation.read(real, row) for row in indices.tolist()],
        found.tolist(),
        path,
        names=[_short(outcome.fake.files[row]) for row in shown],
    )


def _by_realism(real: Features, fake: Features, seed: int) -> npt.NDArray[np.int64]:
    """Rows of generated pictures, least realistic first; at random where realism is unknown."""
    rows = np.random.default_rng(seed).permutation(len(fake))
    with contextlib.suppress(ValueError):  # too few real pictures, or most of them copies
        rows = rows[np.argsort(realism_scores(real, fake)[rows], kind="stable")]
    return rows


def _distances(real: Features, fake: Features, pictures: Pictures, folder: Path) -> Path:
    """How far pictures are from their nearest real one."""
    own, _ = nearest(real, real, 1, exclude_self=True)
    others, _ = nearest(fake, real, 1)
    return charts.distances(
        own[:, 0],
        {pictures.name: others[:, 0]},
        folder / "distances.png",
        of_real="real to the other real",
        measure="feature distance to the nearest real picture",
    )


def _worst(outcome: Outcome, space: str) -> Sequence[dict[str, Any]]:
    """The pairs that memorization lists, nearest first."""
    for result in outcome.results:
        if result.metric.startswith(f"memorization_flagged_{space}"):
            return list(result.details.get("pairs", ()))[:_WORST]
    return ()


def _copies(
    evaluation: Evaluation,
    fake: Pictures,
    outcome: Outcome,
    worst: Sequence[dict[str, Any]],
    path: Path,
) -> Path:
    training = outcome.training
    assert training is not None
    generated = evaluation.read(fake, _rows(outcome.fake, [pair["generated"] for pair in worst]))
    trained = evaluation.read(
        evaluation.training or evaluation.real, _rows(training, [p["training"] for p in worst])
    )
    shown = [
        sheets.Pair(
            generated=made,
            training=_turned(given, pair["transform"]),
            ratio=pair["ratio"] or 0.0,
            p_value=pair.get("p_value"),
            names=(_short(pair["generated"]), _short(pair["training"])),
        )
        for pair, made, given in zip(worst, generated, trained, strict=True)
    ]
    return sheets.pairs(shown, path)


def _rows(side: Side, names: Sequence[str]) -> list[int]:
    where = {name: row for row, name in enumerate(side.files)}
    return [where[name] for name in names]


def _turned(picture: npt.NDArray[np.uint8], transform: str | None) -> npt.NDArray[np.uint8]:
    """The training picture as the copy shows it, so that their difference means something."""
    turns = [
        int(part.removeprefix("turn "))
        for part in (transform or "").split(", ")
        if part[:4] == "turn"
    ]
    turned = np.rot90(picture, -sum(turns) // 90)
    return np.ascontiguousarray(turned[:, ::-1] if "flip" in (transform or "") else turned)


def _short(name: str) -> str:
    return Path(name).name
