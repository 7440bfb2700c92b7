"""What every metric says about real pictures that were spoilt in known ways.

    python benchmarks/domain_check.py --data ../shared/data --weights ../shared/weights

Real training pictures stand on one side. On the other: real test pictures (the floor), the same
blurred, noisy, with classes swapped, of one class only, few pictures repeated, copies of the
training pictures, and another organ (the ceiling). Counts are equal throughout. Prints a Markdown
table for each set.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tfgan_med.evaluation.choice import choose
from tfgan_med.evaluation.measuring import Evaluation, Options
from tfgan_med.evaluation.pictures import Pictures, Preparation, ahead, open_pictures
from tfgan_med.metrics.base import Result
from tfgan_med.metrics.fid import FID
from tfgan_med.networks import lpips
from tfgan_med.networks.extractors import ExtractorChoice
from tfgan_med.networks.feature_cache import FeatureCache

Picture = npt.NDArray[np.uint8]  # (height, width, 3)
MOBILENET = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"
CLASSES = "MobilenetV1/Predictions/Softmax:0"
OTHER = {"cxr-nih": "skin-isic2017", "casting": "cxr-nih", "rbc-smear": "skin-isic2017"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--sets", nargs="+", default=["cxr-nih", "rbc-smear"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--features", choices=["mobilenet", "squeezenet"], default="mobilenet")
    arguments = parser.parse_args()
    for name in arguments.sets:
        with tempfile.TemporaryDirectory() as folder:
            print_table(name, measure(name, Path(folder), arguments))


def measure(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, list[Result]]:
    """Results of every case."""
    root, size = arguments.data / name, arguments.size
    train, test, val = (read(root, split, size) for split in ("train", "test", "val"))
    other = read(arguments.data / OTHER[name], "all", size)
    if gray(train):
        other = [Item(to_gray(item.picture), item.label) for item in other]
    count = min(len(train), len(test), len(other))
    generator = np.random.default_rng(0)
    rest = [*train]
    train, test, other = (
        [items[i] for i in generator.permutation(len(items))[:count]]
        for items in (train, test, other)
    )
    cases = spoilt(train, test, generator)
    labels = sorted({item.label for item in test})
    if len(labels) > 1:
        swapped = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
        used = {id(item.picture) for item in train}
        unused = [*test, *(item for item in rest if id(item.picture) not in used)]
        cases["classes swapped"] = [Item(i.picture, swapped[i.label]) for i in test]
        cases["one class"] = [item for item in unused if item.label == labels[0]][:count]
    cases["other organ"] = [Item(item.picture, train[0].label) for item in other]
    real = save(folder / "train", train)
    held_out = save(folder / "val", val)
    fakes = [save(folder / case.replace(" ", "_"), items) for case, items in cases.items()]
    evaluation = Evaluation(
        [FID(per_class=len(labels) > 1), *(m for m in choose() if not isinstance(m, FID))],
        real,
        fakes,
        Options(intervals=False, cache=FeatureCache(folder / "cache")),
        network=network(arguments),
        perceptual=lpips.load(
            "squeezenet-caffe",
            arguments.weights / "squeezenet-1.1-imagenet-notop.h5",
            arguments.weights / "lpips-v0.1-lin-squeeze.pth",
        ),
        held_out=held_out,
    )
    outcomes = {case: evaluation.of(fake) for case, fake in zip(cases, fakes, strict=True)}
    for case, outcome in outcomes.items():
        for missing in outcome.skipped:
            print(f"<!-- {name}, {case}: {missing.metric}: {missing.reason} -->")
    print(f"\n{name}: {count} pictures on each side, {size} px, held out: {len(val)}\n")
    return {case: list(outcome.results) for case, outcome in outcomes.items()}


def spoilt(
    train: list[Item], test: list[Item], generator: np.random.Generator
) -> dict[str, list[Item]]:
    """Cases in which every class keeps its pictures."""
    few = test[: max(2, len(test) // 5)]
    return {
        "test": test,
        "blurred 1 px": [Item(blurred(i.picture, 1.0), i.label) for i in test],
        "blurred 3 px": [Item(blurred(i.picture, 3.0), i.label) for i in test],
        "noise 5": [Item(noisy(i.picture, 5.0, generator), i.label) for i in test],
        "noise 20": [Item(noisy(i.picture, 20.0, generator), i.label) for i in test],
        "a fifth repeated": [few[i % len(few)] for i in range(len(test))],
        "train, flipped": [Item(np.ascontiguousarray(i.picture[:, ::-1]), i.label) for i in train],
    }


def network(arguments: argparse.Namespace) -> Any:
    """A small real network with class scores, or without."""
    if arguments.features == "squeezenet":
        file = arguments.weights / "squeezenet-1.1-imagenet-notop.h5"
        return ExtractorChoice(features="squeezenet", weights=file).load()
    file = arguments.weights / "mobilenet-v1-0.25-224-imagenet.pb"
    return ExtractorChoice(features=str(file), output_name=MOBILENET, logits_name=CLASSES).load()


def print_table(name: str, results: dict[str, list[Result]]) -> None:
    """A row for each metric, a column for each case."""
    names = list(dict.fromkeys(r.metric for found in results.values() for r in found))
    print("| metric | better | " + " | ".join(results) + " |")
    print("|---|---|" + "---|" * len(results))
    for metric in names:
        cells, better = [], ""
        for found in results.values():
            value = next((r for r in found if r.metric == metric), None)
            cells.append("" if value is None or value.value is None else f"{value.value:.3g}")
            better = value.better if value else better
        print(f"| {metric} | {better} | " + " | ".join(cells) + " |")
    print(flush=True)


# Pictures -----------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A picture and its class, which may be empty."""

    picture: Picture
    label: str


def read(root: Path, split: str, size: int) -> list[Item]:
    """Pictures of a split as squares."""
    pictures = open_pictures(str(root), split)
    tiles = [tiles[0] for tiles, _ in ahead(Preparation(resize=size).read, pictures.parts)]
    return list(map(Item, tiles, pictures.classes or [""] * len(tiles)))


def gray(items: list[Item]) -> bool:
    """Whether all pictures are without color."""
    return all((picture == picture[..., :1]).all() for picture, _ in items)


def to_gray(picture: Picture) -> Picture:
    """Luma, three times."""
    one = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.repeat(np.asarray(one, np.uint8)[..., None], 3, axis=-1)


def blurred(picture: Picture, sigma: float) -> Picture:
    """Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def noisy(picture: Picture, sigma: float, generator: np.random.Generator) -> Picture:
    """Gaussian noise, one value for all channels."""
    noise = generator.normal(0.0, sigma, (*picture.shape[:2], 1))
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def save(folder: Path, items: list[Item]) -> Pictures:
    """Write pictures, in class folders if there are classes, and open them as a set."""
    for i, (picture, label) in enumerate(items):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / label / f"{i:04}.png")
    return open_pictures(str(folder), "all")


if __name__ == "__main__":
    main()
