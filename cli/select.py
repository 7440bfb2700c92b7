"""`tfgan-med select`: a small subset of a data set, spread out, central or at random."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tfgan_med import files
from tfgan_med.errors import UserError

from . import common
from .evaluate_options import sharing
from .select_options import CovarianceOptions, Output, PictureOptions, SpaceOptions

if TYPE_CHECKING:
    from tfgan_med.data.choosing import Choice, Space
    from tfgan_med.data.chosen_set import Written
    from tfgan_med.data.comparing_subsets import Compared
    from tfgan_med.data.picture_rows import PictureRows
    from tfgan_med.data.records import DataConfig

LARGE = 20_000  # pictures above which --pca-size is worth a word

MEASURES = {
    "variance_ratio": "variance, chosen over all",
    "pairwise_distance": "mean distance of two chosen, over that of all",
    "nearest_distance": "mean distance of a chosen one to its nearest",
    "coverage_radius": "distance of the worst covered picture to a chosen one",
    "mean_coverage_radius": "the same, mean over all pictures",
    "log_det": "log of the generalized variance",
    "energy_distance": "bias: energy distance of chosen and all",
    "hull_ratio": "area of the hull in two components, over that of all",
}
"""Spread measures and what they say."""

Data = Annotated[str, typer.Argument(help="Folder, CSV table or builtin:NAME.")]

app = typer.Typer(
    name="select",
    help="Choose a small subset of a data set: spread out, central or at random.",
    no_args_is_help=True,
)


@app.callback()
def select() -> None:
    """Choose a small subset of a data set: spread out, central or at random."""


# Choosing -----------------------------------------------------------------------------------------


@app.command()
@sharing(output=Output, covariances=CovarianceOptions, pictures=PictureOptions, spaces=SpaceOptions)
def kss(
    data: Data,
    output: Output,
    covariances: CovarianceOptions,
    pictures: PictureOptions,
    spaces: SpaceOptions,
    clusters: Annotated[
        int, typer.Option(min=1, help="Clusters; 1 takes the extremes, more cover the set.")
    ] = 1,
    covariance_scope: Annotated[
        Literal["cluster", "pooled", "global"],
        typer.Option(help="Whose covariance measures distances."),
    ] = "cluster",
    remainder: Annotated[
        Literal["size", "dispersion"],
        typer.Option(help="Which clusters get one more if the size does not divide evenly."),
    ] = "size",
) -> None:
    """The k sparsest samples: of each cluster those farthest from its center (KSS).

    Principal components of the pixels (90 % of the variance), k-means, and in each cluster the
    pictures with the largest Mahalanobis distance, as many from each. One cluster picks the most
    unusual pictures of the set, outliers included; many clusters pick a little of everything.

    100 unusual pictures of all kinds, as a data set to train on:

        tfgan-med select kss faces/ --size 100 --clusters 10 --out faces-kss10

    A large set, compared at 32 pixels; and one compared by features instead of pixels:

        tfgan-med select kss faces/ --size 100 --clusters 10 --pca-size 32 --out faces-kss10

        tfgan-med select kss scans/ --size 50 --features squeezenet --out scans-kss1
    """
    _choose(
        data,
        output,
        pictures,
        spaces,
        method="kss",
        clusters=clusters,
        covariance_scope=covariance_scope,
        remainder=remainder,
        **vars(covariances),
    )


@app.command()
@sharing(output=Output, covariances=CovarianceOptions, pictures=PictureOptions, spaces=SpaceOptions)
def center(
    data: Data,
    output: Output,
    covariances: CovarianceOptions,
    pictures: PictureOptions,
    spaces: SpaceOptions,
) -> None:
    """The pictures nearest to the mean: the least varied subset, for comparison.

    Distances are Mahalanobis distances under the covariance of the whole set: the order of
    `kss --clusters 1` from its other end.

    100 ordinary pictures:

        tfgan-med select center faces/ --size 100 --out faces-center

    From all splits, as files of their own:

        tfgan-med select center faces/ --size 100 --split all --copy --out faces-center
    """
    _choose(data, output, pictures, spaces, method="center", **vars(covariances))


@app.command()
@sharing(output=Output, pictures=PictureOptions, spaces=SpaceOptions)
def random(data: Data, output: Output, pictures: PictureOptions, spaces: SpaceOptions) -> None:
    """Pictures drawn at random, without repetition: what any other choice must beat.

    Principal components are computed all the same, for the spread measures and the figure.

    Three draws:

        tfgan-med select random faces/ --size 100 --seed 0 --out faces-random0

        tfgan-med select random faces/ --size 100 --seed 1 --out faces-random1

        tfgan-med select random faces/ --size 100 --seed 2 --out faces-random2
    """
    _choose(data, output, pictures, spaces, method="random")


@app.command()
@sharing(output=Output, pictures=PictureOptions, spaces=SpaceOptions)
def kcenter(data: Data, output: Output, pictures: PictureOptions, spaces: SpaceOptions) -> None:
    """One picture after the other, each farthest from those chosen before (greedy k-center).

    Begins with the picture farthest from the mean. No clusters and no covariance to choose; no
    picture of the set is far from a chosen one.

    100 pictures that cover the set:

        tfgan-med select kcenter faces/ --size 100 --out faces-kcenter

    The same among tiles of 64 pixels:

        tfgan-med select kcenter smears/ --size 100 --fit patches --image-size 64 --out tiles
    """
    _choose(data, output, pictures, spaces, method="kcenter")


def _choose(
    data: str, output: Output, pictures: PictureOptions, spaces: SpaceOptions, **selection: Any
) -> None:
    """Open, analyse, choose, write, tell."""
    from tfgan_med.data import chosen_set
    from tfgan_med.data.choosing import choose
    from tfgan_med.data.selection import SelectionConfig

    chosen_set.require_free(output.out, output.force)
    config = _data_config(data, pictures)
    rows = _rows(config, pictures.split, output.quiet)
    chosen_set.require_free(output.out, output.force, rows)
    space = _space(rows, spaces, output.quiet)
    # variance and components are noted with the choice, though the scores follow from them already
    wanted = SelectionConfig(
        size=output.size,
        seed=output.seed,
        variance=spaces.variance,
        components=spaces.components,
        **selection,
    )
    choice = choose(rows, space, wanted)
    written = chosen_set.write(
        choice,
        output.out,
        copy=output.copy,
        force=output.force,
        draw=lambda folder: _draw(choice, folder),
    )
    result = {"folder": str(written.folder), **chosen_set.facts(choice)}
    common.emit(result, _text(choice, written, data), output.as_json)
    for notice in choice.subset.notices:
        common.note(f"Note: {notice}", output.quiet)
    if written.copied and not output.copy and config.fit != "patches":
        common.note(
            f"Note: {written.copied} files were copied, since links to them cannot be made here.",
            output.quiet,
        )
    common.note(_next(output.out, config), output.quiet)


def _data_config(data: str, pictures: PictureOptions) -> DataConfig:
    """Options and `--set` together."""
    from tfgan_med.config import Config, resolve
    from tfgan_med.data.records import DataConfig

    from .check import _pairs

    class Settings(Config):
        """What `--set` may change here."""

        data: DataConfig = DataConfig()

    values = {
        "path": data,
        "layout": pictures.layout,
        "columns": _pairs(pictures.columns or []),
        "image_size": pictures.image_size,
        "fit": pictures.fit,
        "scale": pictures.scale,
        "mode": pictures.mode,
        "skip_bad": pictures.skip_bad,
    }
    return resolve(Settings, [("the options", {"data": values})], pictures.change or []).data


def _rows(config: DataConfig, part: Literal["auto", "train", "all"], quiet: bool) -> PictureRows:
    from tfgan_med.data.picture_rows import open_rows

    with common.counting("Reading pictures", 1, quiet) as progress:
        rows = open_rows(config, part, progress)
    if rows.left_out:
        common.note(f"Note: {len(rows.left_out)} unusable items were left out.", quiet)
    return rows


# The space ----------------------------------------------------------------------------------------


def _space(rows: PictureRows, spaces: SpaceOptions, quiet: bool) -> Space:
    """Components of pixels, or of the features that a network finds."""
    from tfgan_med.data.choosing import span

    if spaces.features is not None:
        if spaces.pca_size is not None:
            raise UserError(
                "--pca-size reduces pixels, --features compares something else. Leave one out."
            )
        return _space_of_features(rows, spaces, quiet)
    if len(rows) > LARGE and spaces.pca_size is None and rows.config.image_size > 32:
        common.note(
            f"{len(rows)} pictures: components take a while; --pca-size 32 is much quicker.", quiet
        )
    blocks = rows.pixels(spaces.pca_size)
    side = spaces.pca_size or rows.config.image_size
    described = f"pixels {side} x {side} x {rows.encoding.channels}"
    settings = {"by": "pixels", "pca_size": spaces.pca_size}
    return span(
        rows,
        blocks,
        described,
        variance=spaces.variance,
        components=spaces.components,
        settings=settings,
    )


def _space_of_features(rows: PictureRows, spaces: SpaceOptions, quiet: bool) -> Space:
    common.load_tensorflow()
    from tfgan_med.data.choosing import span
    from tfgan_med.networks.feature_cache import FeatureCache

    from . import measuring
    from .evaluate_options import FeatureOptions, Reading

    wanted = FeatureOptions(
        protocol=spaces.protocol,
        weights=spaces.weights,
        features=None if spaces.features == "inception" else spaces.features,
        features_input=spaces.features_input,
        features_output=spaces.features_output,
        features_range=spaces.features_range,
    )
    network = measuring.load_network(wanted, Reading(yes=spaces.yes, quiet=quiet))
    with common.counting("Extracting features", len(rows), quiet) as progress:
        blocks = rows.features(network, cache=FeatureCache.default(), progress=progress)
    settings = {
        "by": "features",
        "network": network.identity,
        **{
            name: _plain(getattr(spaces, name))
            for name in (
                "features", "protocol", "weights", "features_input", "features_output",
                "features_range",
            )
        },
    }  # fmt: skip
    described = f"{network.dimension} features of {network.name}"
    return span(
        rows,
        blocks,
        described,
        variance=spaces.variance,
        components=spaces.components,
        settings=settings,
    )


def _plain(value: Any) -> Any:
    return str(value.expanduser().resolve()) if isinstance(value, Path) else value


# Telling ------------------------------------------------------------------------------------------


def _next(out: Path, config: DataConfig) -> str:
    size = f" --set data.image_size={config.image_size}"
    mode = f" --set data.mode={config.mode}" if config.mode != "auto" else ""
    return f"Next: tfgan-med train fastgan --data {shlex.quote(str(out))}{size}{mode}"


def _draw(choice: Choice, folder: Path) -> None:
    from tfgan_med.evaluation import subset_figures

    subset = choice.subset
    subset_figures.scatter(
        choice.space.scores,
        subset_figures.Shown(subset.indices, subset.clusters, subset.centroids, subset.labels),
        folder / "scatter.png",
        explained=choice.space.shares[:2].tolist(),
        title=f"{_named(choice)}: {len(subset.indices)} of {len(choice.rows)} pictures",
    )
    rows = subset_figures.sheet_rows(len(subset.indices))
    subset_figures.contact_sheet(
        choice.rows.pictures(subset.indices[rows].tolist()),
        subset.clusters[rows],
        folder / "contact_sheet.png",
    )


def _named(choice: Choice) -> str:
    return _method(choice.config.method, choice.config.clusters)


def _method(method: str, clusters: int) -> str:
    if method != "kss":
        return method
    return f"kss, {clusters} cluster{'s' if clusters > 1 else ''}"


def _text(choice: Choice, written: Written, data: str) -> str:
    rows, space, subset = choice.rows, choice.space, choice.subset
    part = "the training split of " if rows.part == "train" else ""
    tiles = " tiles" if rows.config.fit == "patches" else " pictures"
    lines = [
        f"{written.folder}: {len(subset.indices)} of {len(rows)}{tiles} ({_named(choice)}) from "
        f"{part}{data}",
        f"Compared by {space.described}: p = {space.scores.shape[1]} components hold "
        f"{100 * space.explained:.1f} % of the variance",
        "",
    ]
    if set(choice.counts) != {"all"}:
        counts = [
            [label, str(n["pictures"]), str(n["chosen"])] for label, n in choice.counts.items()
        ]
        lines += [*_aligned([["class", "pictures", "chosen"], *counts]), ""]
    if len(subset.quota) > 1:
        sizes = [int((subset.labels == g).sum()) for g in range(len(subset.quota))]
        shown = [
            [str(g + 1), str(size), str(quota)]
            for g, (size, quota) in enumerate(zip(sizes, subset.quota.tolist(), strict=True))
        ]
        more = [[f"and {len(shown) - 10} more", "", ""]] if len(shown) > 12 else []
        shown = shown[:10] + more if more else shown
        lines += [*_aligned([["cluster", "pictures", "chosen"], *shown]), ""]
    spread = [
        [name, _number(value), MEASURES.get(name, "")] for name, value in _sorted(choice.spread)
    ]
    return "\n".join([*lines, *_aligned([["spread", "value", ""], *spread])])


def _sorted(spread: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    """Measures in our order, then what else there is."""
    known = [name for name in MEASURES if name in spread]
    return [(name, spread[name]) for name in [*known, *(n for n in spread if n not in MEASURES)]]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


# Comparing ----------------------------------------------------------------------------------------


@app.command()
def compare(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DIR...", help="Subsets of the same pictures, and what to call them."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for comparison.csv and scatter.png.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace the files in --out.")] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Subsets of the same pictures side by side: spread, overlap, and one figure with a panel each.

    All are measured in the components of the first one.

    Six subsets, then two by other names:

        tfgan-med select compare faces-* --out comparison

        tfgan-med select compare any=faces-random0 spread=faces-kss1 --out comparison

    The numbers for programs, one line for each subset:

        tfgan-med select compare faces-random0 faces-kss1 faces-kss10 --out comparison --json
    """
    from tfgan_med.data import comparing_subsets

    if len(folders) < 2:
        raise UserError(f"{folders[0]}: one subset alone. Give two or more to compare.")
    _require_no_comparison(out, force)
    subsets = [comparing_subsets.read(folder) for folder in folders]
    with common.counting("Reading pictures", 1, quiet) as progress:
        rows = comparing_subsets.reopen(subsets, progress)
    space = _space(rows, _space_options(subsets[0].facts["space"]), quiet)
    compared = comparing_subsets.compare(subsets, rows, space)
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / "comparison.csv", comparing_subsets.table(compared))
    _draw_panels(compared, space, out / "scatter.png")
    if as_json:
        for one in compared:
            common.emit(one.as_json(), "", True)
    else:
        common.emit({}, _comparison(compared, space), False)
    common.note(f"Wrote {out}: comparison.csv and scatter.png.", quiet)
    common.note(_next(compared[0].stored.folder, compared[0].stored.data), quiet)


def _require_no_comparison(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; a folder is expected. Name another.")
    if (out / "selection.json").exists():
        raise UserError(f"--out {out}: is a subset itself, which stays as it is. Name another.")
    if not force and any((out / name).exists() for name in ("comparison.csv", "scatter.png")):
        raise UserError(f"--out {out}: holds a comparison already. Name another, or add --force.")


def _space_options(noted: Mapping[str, Any]) -> SpaceOptions:
    """The options that a subset was chosen with."""
    weights = noted.get("weights")
    names = ("features", "protocol", "features_input", "features_output", "features_range")
    return SpaceOptions(
        variance=noted["variance"],
        components=noted["components_wanted"],
        pca_size=noted.get("pca_size"),
        weights=Path(weights) if weights else None,
        **{name: noted[name] for name in names if name in noted},
    )


def _draw_panels(compared: Sequence[Compared], space: Space, path: Path) -> None:
    from tfgan_med.evaluation import subset_figures

    shown = {
        one.name: subset_figures.Shown(one.indices, one.stored.clusters, one.centroids)
        for one in compared
    }
    subset_figures.panels(space.scores, shown, path, explained=space.shares[:2].tolist())


def _comparison(compared: Sequence[Compared], space: Space) -> str:
    names = [one.name for one in compared]
    measures = [name for name, _ in _sorted(compared[0].spread)]
    spread = [["", *names], ["method", *(_of(one) for one in compared)]]
    spread.append(["chosen", *(str(len(one.indices)) for one in compared)])
    spread += [[m, *(_number(one.spread[m]) for one in compared)] for m in measures]
    shared = [[f"in {n} too", *(str(one.shared[n]) for one in compared)] for n in names]
    head = (
        f"Measured by {space.described}: p = {space.scores.shape[1]} components hold "
        f"{100 * space.explained:.1f} % of the variance"
    )
    return "\n".join([head, "", *_aligned([*spread, *shared])])


def _of(one: Compared) -> str:
    selection = one.stored.facts["selection"]
    return _method(selection["method"], selection["clusters"])
