"""`tfgan-med evaluate`: how close generated pictures are to real ones, and whether they copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgan_med.errors import UserError

from . import common, evaluate_sets, evaluate_text, measuring
from .evaluate_options import (
    FeatureOptions,
    PerceptualOptions,
    Reading,
    RealAndFake,
    TrainingOptions,
    sharing,
)

if TYPE_CHECKING:
    from tfgan_med.metrics.fid import FID
    from tfgan_med.networks.features import FeatureNetwork

app = typer.Typer(
    name="evaluate",
    help="Measure how close generated pictures are to real ones, and look for copies.",
    no_args_is_help=True,
)


@app.callback()
def evaluate() -> None:
    """Measure how close generated pictures are to real ones, and look for copies."""


# Distances of features ----------------------------------------------------------------------------


@app.command()
@sharing(sets=RealAndFake, reading=Reading, features=FeatureOptions)
def fid(
    sets: RealAndFake,
    reading: Reading,
    features: FeatureOptions,
    ddof: Annotated[
        int, typer.Option(min=0, max=1, help="0 for the covariances of StyleGAN2-ADA.")
    ] = 1,
    variants: Annotated[
        bool, typer.Option("--variants", help="Add the mean-only and the diagonal distance.")
    ] = False,
    infinity: Annotated[
        bool,
        typer.Option("--infinity", help="Extrapolate to infinitely many generated pictures."),
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="A distance for each class, and their mean.")
    ] = False,
    statistics: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Instead of --real: an .npz with mu and sigma, of ours, TTUR or pytorch-fid.",
        ),
    ] = None,
    save_statistics: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep mu and sigma of the real set, e.g. real.npz."),
    ] = None,
) -> None:
    """Fréchet distance between features of real and generated pictures (FID).

    Lower is better; 0 for equal sets. The value depends on the protocol and on the number of
    pictures, so compare it only with values of the same protocol and the same counts. Beside it
    stands what two halves of the real set have between them.

    The generated test set of the newest run against its real pictures:

        tfgan-med evaluate fid

    Two folders with another feature network (the value is named after it, never FID):

        tfgan-med evaluate fid --real data/test --fake synthetic --features network.keras

    A real set that is compared with again and again, or must not leave its place, as statistics:

        tfgan-med evaluate fid --real data/test --fake synthetic --save-statistics real.npz

        tfgan-med evaluate fid --statistics real.npz --fake another
    """
    if statistics:
        _require_no_real(sets.real, save_statistics, reading.plots, per_class)
    common.load_tensorflow()
    from tfgan_med.evaluation import statistics as stored
    from tfgan_med.metrics.fid import FID

    if save_statistics:
        stored.require_new(save_statistics)

    metric = FID(
        ddof=ddof,
        variants=variants,
        per_class=per_class,
        infinity=True if infinity else "auto",
    )
    network = measuring.load_network(features, reading)
    if statistics:
        _against_statistics(statistics, metric, sets, reading, network)
    else:
        outcome = measuring.measure([metric], sets, reading, network=network)
        if save_statistics:
            path = stored.save_real(save_statistics, outcome)
            common.note(f"Statistics of the real pictures: {path}.", reading.quiet)
    common.note("Next: tfgan-med evaluate kid, which is not biased by few pictures.", reading.quiet)


def _require_no_real(
    real: str | None, save_statistics: Path | None, plots: Path | None, per_class: bool
) -> None:
    """Statistics stand for the real pictures; what needs these cannot be had."""
    wanted = {
        "--real": real,
        "--save-statistics": save_statistics,
        "--plots": plots,
        "--per-class": per_class,
    }
    for option, given in wanted.items():
        if given:
            raise UserError(
                f"{option} and --statistics: stored statistics stand for the real pictures, "
                "which are not there then. Leave one of both out."
            )


def _against_statistics(
    path: Path, metric: FID, sets: RealAndFake, reading: Reading, network: FeatureNetwork
) -> None:
    """Measure a generated set against stored statistics, print and keep what came out."""
    from tfgan_med.evaluation import results
    from tfgan_med.evaluation.pictures import open_pictures
    from tfgan_med.evaluation.sides import find_sides
    from tfgan_med.evaluation.statistics import AgainstStatistics

    if reading.csv:
        results.check_csv(reading.csv)
    sides = find_sides(str(path), sets.fake, reading.runs)
    fake = open_pictures(sides.fake, "all", reading.role)
    with measuring.progress(reading.quiet) as show:
        measured = AgainstStatistics(
            metric, path, fake, measuring.options_of(reading), network, show
        ).results()
    evaluate_text.emit(measured, (), reading.as_json)
    measuring.keep(measured, reading, sides.run)


@app.command()
@sharing(sets=RealAndFake, reading=Reading, features=FeatureOptions)
def kid(
    sets: RealAndFake,
    reading: Reading,
    features: FeatureOptions,
    estimator: Annotated[
        str,
        typer.Option(
            help="full (all pictures at once), subset (torch-fidelity) or block (TF-GAN)."
        ),
    ] = "full",
    subsets: Annotated[int, typer.Option(min=1, help="With subset: how many.")] = 100,
    subset_size: Annotated[
        int, typer.Option(min=0, help="With subset: pictures in each; 0 chooses.")
    ] = 0,
) -> None:
    """Kernel distance between features of real and generated pictures (KID).

    Lower is better. Unbiased, so the better choice below 2000 pictures; it may be a little
    negative for sets that do not differ.

    The newest run:

        tfgan-med evaluate kid

    As torch-fidelity computes it:

        tfgan-med evaluate kid --real data/test --fake synthetic --estimator subset
    """
    common.load_tensorflow()
    from tfgan_med.metrics.kid import KID

    measuring.one_of("estimator", estimator, ("full", "subset", "block"))
    metric = KID(protocol=estimator, subsets=subsets, subset_size=subset_size)
    network = measuring.load_network(features, reading)
    measuring.measure([metric], sets, reading, network=network)
    common.note("Next: tfgan-med evaluate prdc tells fidelity from variety.", reading.quiet)


@app.command("is", hidden=True)
@app.command()
@sharing(sets=RealAndFake, reading=Reading, features=FeatureOptions)
def inception_score(
    sets: RealAndFake,
    reading: Reading,
    features: FeatureOptions,
    splits: Annotated[int, typer.Option(min=1, help="Parts that the set is divided into.")] = 10,
    shuffle: Annotated[
        bool, typer.Option("--shuffle/--no-shuffle", help="Shuffle before splitting.")
    ] = True,
) -> None:
    """Inception Score: how sure and how varied a classifier finds the generated pictures.

    Higher is better. It never looks at real pictures and knows ImageNet's classes only; for
    medical and industrial pictures it says little. The score of the real set stands beside it.

    The newest run:

        tfgan-med evaluate inception-score

    As the original, without shuffling:

        tfgan-med evaluate inception-score --fake synthetic --real data/test --no-shuffle
    """
    common.load_tensorflow()
    from tfgan_med.metrics.inception_score import InceptionScore

    metric = InceptionScore(splits=splits, shuffle=shuffle)
    network = measuring.load_network(features, reading)
    measuring.measure([metric], sets, reading, network=network)
    common.note("Next: tfgan-med evaluate kid compares with the real pictures.", reading.quiet)


@app.command()
@sharing(sets=RealAndFake, reading=Reading, features=FeatureOptions)
def prdc(
    sets: RealAndFake,
    reading: Reading,
    features: FeatureOptions,
    k: Annotated[
        int, typer.Option("--k", min=1, help="Neighbour whose distance is the radius.")
    ] = 5,
    inclusive: Annotated[
        bool, typer.Option("--inclusive", help="Count distances equal to the radius.")
    ] = False,
) -> None:
    """Precision, recall, density and coverage: are fakes realistic, are they as varied?

    Higher is better. Low precision: pictures unlike any real one. Low recall or coverage: kinds
    of real pictures that are never generated. Copies of real pictures score perfectly.

    The newest run:

        tfgan-med evaluate prdc

    With the neighbourhood of the paper on precision and recall:

        tfgan-med evaluate prdc --real data/test --fake synthetic --k 3
    """
    common.load_tensorflow()
    from tfgan_med.metrics.prdc import PRDC

    network = measuring.load_network(features, reading)
    metric = PRDC(k=k, inclusive=inclusive)
    measuring.measure([metric], sets, reading, network=network)
    common.note("Next: tfgan-med evaluate memorization looks for copies.", reading.quiet)


# Pixels -------------------------------------------------------------------------------------------


@app.command("msssim", hidden=True)
@app.command()
@sharing(sets=RealAndFake, reading=Reading)
def ms_ssim(sets: RealAndFake, reading: Reading) -> None:
    """Structural similarity between generated pictures: do they all look alike?

    The mean over pairs of generated pictures, beside that of the real ones. Higher than the
    real one: too little variety. It says nothing about quality, and needs no network.

    The newest run:

        tfgan-med evaluate ms-ssim

    Two folders:

        tfgan-med evaluate ms-ssim --real data/test --fake synthetic
    """
    common.load_tensorflow()
    from tfgan_med.metrics.ms_ssim import MSSSIM

    measuring.measure([MSSSIM()], sets, reading)
    common.note("Next: tfgan-med evaluate lpips measures variety as people see it.", reading.quiet)


@app.command()
@sharing(sets=RealAndFake, reading=Reading, perceptual=PerceptualOptions)
def lpips(sets: RealAndFake, reading: Reading, perceptual: PerceptualOptions) -> None:
    """Perceptual distance (LPIPS) between generated pictures: how varied do they look?

    The mean over pairs of generated pictures, beside that of the real ones, and the variety
    among the generated pictures that are nearest to the same real one.

    The newest run:

        tfgan-med evaluate lpips

    Another network:

        tfgan-med evaluate lpips --real data/test --fake synthetic --lpips-net vgg
    """
    common.load_tensorflow()
    from tfgan_med.metrics.lpips import LPIPS

    network = measuring.load_perceptual(perceptual, reading)
    measuring.measure([LPIPS()], sets, reading, perceptual=network)
    common.note("Next: tfgan-med evaluate prdc weighs variety against realism.", reading.quiet)


@app.command("swd", hidden=True)
@app.command()
@sharing(sets=RealAndFake, reading=Reading)
def sliced_wasserstein(sets: RealAndFake, reading: Reading) -> None:
    """Sliced Wasserstein distance between small patches, at every scale of the pictures.

    Lower is better. Tells at which scale textures differ, and needs no network.

    The newest run:

        tfgan-med evaluate sliced-wasserstein

    Two folders, the numbers per scale in the JSON line:

        tfgan-med evaluate sliced-wasserstein --real data/test --fake synthetic --json
    """
    common.load_tensorflow()
    from tfgan_med.metrics.sliced_wasserstein import SlicedWasserstein

    measuring.measure([SlicedWasserstein()], sets, reading)
    common.note("Next: tfgan-med evaluate fid compares whole pictures.", reading.quiet)


@app.command()
@sharing(sets=RealAndFake, reading=Reading, perceptual=PerceptualOptions)
def cid(
    sets: RealAndFake,
    reading: Reading,
    perceptual: PerceptualOptions,
    similarity: Annotated[
        str, typer.Option(help="ssim (the original) or lpips (k-sparsest samples).")
    ] = "ssim",
    threshold: Annotated[
        float | None,
        typer.Option(help="Alike from here on; 0.8 for ssim, 0.2 (a distance) for lpips."),
    ] = None,
) -> None:
    """Creativity, inheritance and diversity of generated pictures, and their product (CID).

    Higher is better. Creativity: the share that is no near copy of a real picture. Inheritance:
    texture contrast like the real one. Diversity: entropy of clusters of look-alikes.

    The newest run against the pictures it was trained on:

        tfgan-med evaluate cid --real data --real-split train

    With perceptual distances:

        tfgan-med evaluate cid --real data/train --fake synthetic --similarity lpips
    """
    common.load_tensorflow()
    from tfgan_med.metrics.cid import CID

    measuring.one_of("similarity", similarity, ("ssim", "lpips"))
    wanted: dict[str, Any] = {"similarity": similarity}
    if threshold is not None:
        wanted["threshold"] = threshold
    network = measuring.load_perceptual(perceptual, reading) if similarity == "lpips" else None
    measuring.measure([CID(**wanted)], sets, reading, perceptual=network)
    common.note("Next: tfgan-med evaluate memorization looks closer for copies.", reading.quiet)


@app.command()
@sharing(sets=RealAndFake, reading=Reading)
def likeness(sets: RealAndFake, reading: Reading) -> None:
    """Likeness score: are distances between fakes, reals and both distributed alike?

    Higher is better, at most 1. Quick and without a network; pixels only.

    The newest run:

        tfgan-med evaluate likeness

    Two folders:

        tfgan-med evaluate likeness --real data/test --fake synthetic
    """
    common.load_tensorflow()
    from tfgan_med.metrics.likeness import Likeness

    measuring.measure([Likeness()], sets, reading)
    common.note("Next: tfgan-med evaluate kid compares features.", reading.quiet)


# Copies -------------------------------------------------------------------------------------------


@app.command("duplicates", hidden=True)
@app.command()
@sharing(sets=RealAndFake, training=TrainingOptions, reading=Reading, features=FeatureOptions)
def memorization(
    sets: RealAndFake,
    training: TrainingOptions,
    reading: Reading,
    features: FeatureOptions,
    transforms: Annotated[
        str, typer.Option(help="Copies that are turned: none, flips or all (also quarter turns).")
    ] = "flips",
    fail_on_copies: Annotated[
        bool, typer.Option("--fail-on-copies", help="End with exit code 1 if copies are found.")
    ] = False,
) -> None:
    """Look for generated pictures that are copies of training pictures.

    The nearest training picture of each generated one, in pixels and in features, calibrated by
    the distances of real pictures that were not trained on. For medical pictures a privacy
    check: finding nothing is no proof of privacy, but what it finds must not leave the building.

    The newest run against its own training pictures, worst pairs as a picture:

        tfgan-med evaluate memorization --plots copies

    Folders, for a script that must stop:

        tfgan-med evaluate memorization --training data/train --held-out data/test --fake synthetic
        --fail-on-copies
    """
    common.load_tensorflow()
    from tfgan_med.metrics.memorization import Memorization, is_alarming

    measuring.one_of("transforms", transforms, ("none", "flips", "all"))
    if sets.real is None and training.training is not None:
        sets = RealAndFake(training.training, sets.fake)
    network = measuring.load_network(features, reading)
    metric = Memorization(transforms=transforms)
    outcome = measuring.measure([metric], sets, reading, network=network, training=training)
    alarm = is_alarming(outcome.measured)
    if alarm:
        common.note(f"Copies: {alarm}")
    if not reading.plots:
        common.note("Next: add --plots DIR and look at the nearest pairs yourself.", reading.quiet)
    else:
        common.note("Next: look at the nearest pairs before anything is shared.", reading.quiet)
    if alarm and fail_on_copies:
        raise typer.Exit(1)


# Several at once ----------------------------------------------------------------------------------

app.command()(evaluate_sets.labels)
app.command()(evaluate_sets.mask_shapes)
app.command("all")(evaluate_sets.everything)
app.command()(evaluate_sets.compare)
