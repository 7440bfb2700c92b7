"""Options that the commands of `select` share, as blocks a command can ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import common

_READING = "Reading pictures"
_SPACE = "What is compared"
_NETWORK = "Feature network"


@dataclass(frozen=True)
class Output:
    """How many pictures, and where they go."""

    size: Annotated[int, common.option("Pictures to choose.", min=1)]
    out: Annotated[Path, common.option("Folder to make; itself a data set.", metavar="DIR")]
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy files; by default they are hard links.")
    ] = False
    force: Annotated[bool, typer.Option("--force", help="Replace the subset in --out.")] = False
    seed: Annotated[int, common.option("Of the draw and of k-means.", min=0)] = 0
    as_json: common.Json = False
    quiet: common.Quiet = False
    debug: common.Debug = False


@dataclass(frozen=True)
class PictureOptions:
    """Which pictures, and how they are brought to one size."""

    split: Annotated[
        Literal["auto", "train", "all"],
        common.option(
            "auto: the training split where the set has splits of its own, else all.", _READING
        ),
    ] = "auto"
    layout: Annotated[
        str, common.option("How the folder is laid out, if looking does not tell.", _READING)
    ] = "auto"
    columns: Annotated[
        list[str] | None,
        common.option("Column of a CSV table; repeatable.", _READING, metavar="OURS=THEIRS"),
    ] = None
    image_size: Annotated[
        int, common.option("Side to which pictures are resized.", _READING, min=4)
    ] = 128
    fit: Annotated[
        Literal["crop", "pad", "stretch", "patches"],
        common.option("How they become squares; patches chooses among tiles.", _READING),
    ] = "crop"
    scale: Annotated[
        float, common.option("With patches: resize by this factor first.", _READING, min=0.01)
    ] = 1.0
    mode: Annotated[Literal["auto", "gray", "rgb"], common.option("Channels.", _READING)] = "auto"
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave unusable items out.", rich_help_panel=_READING),
    ] = False
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="data.KEY=VALUE",
            help="Any other setting of the data, see `describe config`; repeatable.",
            rich_help_panel=_READING,
        ),
    ] = None


@dataclass(frozen=True)
class SpaceOptions:
    """Pixels or features, and how many components of them."""

    variance: Annotated[
        float,
        common.option("Share of the variance that the components hold.", _SPACE, min=0, max=1),
    ] = 0.90
    components: Annotated[
        int | None, common.option("Number of components instead.", _SPACE, min=1)
    ] = None
    pca_size: Annotated[
        int | None,
        common.option(
            "Reduce pictures to this side for the components; 32 above 20 000.", _SPACE, min=1
        ),
    ] = None
    features: Annotated[
        str | None,
        common.option(
            "Compare features instead of pixels: inception, vgg16, squeezenet, a .keras file, a "
            "frozen graph (.pb), or run:FOLDER.",
            _NETWORK,
            metavar="NAME|FILE",
        ),
    ] = None
    protocol: Annotated[
        str, common.option("Of inception: ttur, clean, pytorch-fid or keras.", _NETWORK)
    ] = "ttur"
    weights: Annotated[
        Path | None, common.option("Weights of the network.", _NETWORK, metavar="FILE")
    ] = None
    features_input: Annotated[
        str | None, common.option("Input tensor of the frozen graph.", _NETWORK, metavar="NAME")
    ] = None
    features_output: Annotated[
        str | None, common.option("Tensor or layer with the features.", _NETWORK, metavar="NAME")
    ] = None
    features_range: Annotated[
        str, common.option("Numbers that the file expects: -1..1, 0..1 or 0..255.", _NETWORK)
    ] = "-1..1"
    yes: Annotated[
        bool, typer.Option("--yes", help="Download missing weights.", rich_help_panel=_NETWORK)
    ] = False


@dataclass(frozen=True)
class CovarianceOptions:
    """How distances within a cluster are measured."""

    covariance: Annotated[
        Literal["ledoit_wolf", "empirical", "oas", "ridge", "pooled", "euclidean", "pinv"],
        common.option("Of a cluster; empirical is the paper's and needs large clusters."),
    ] = "ledoit_wolf"
    ridge: Annotated[float, common.option("With --covariance ridge: its weight.", min=0)] = 1e-3
    max_quantile: Annotated[
        float | None,
        common.option("Leave out what lies beyond this quantile of distances.", min=0, max=1),
    ] = None
