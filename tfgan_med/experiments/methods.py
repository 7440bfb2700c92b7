"""The paragraph on methods and the references, from what an experiment did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tfgan_med
from tfgan_med.data.records import SPLITS
from tfgan_med.experiments.planning import Plan
from tfgan_med.experiments.protocol import Experiment
from tfgan_med.experiments.real_data import RealData

_REFERENCES = {
    "dcgan": (
        "radford2016dcgan",
        "Radford, Alec and Metz, Luke and Chintala, Soumith",
        "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial "
        "Networks",
        "1511.06434",
        2016,
    ),
    "fastgan": (
        "liu2021fastgan",
        "Liu, Bingchen and Zhu, Yizhe and Song, Kunpeng and Elgammal, Ahmed",
        "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
        "2101.04775",
        2021,
    ),
    "pix2pix": (
        "isola2017pix2pix",
        "Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A.",
        "Image-to-Image Translation with Conditional Adversarial Networks",
        "1611.07004",
        2017,
    ),
    "cyclegan": (
        "zhu2017cyclegan",
        "Zhu, Jun-Yan and Park, Taesung and Isola, Phillip and Efros, Alexei A.",
        "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
        "1703.10593",
        2017,
    ),
    "sngan": (
        "miyato2018sngan",
        "Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi",
        "Spectral Normalization for Generative Adversarial Networks",
        "1802.05957",
        2018,
    ),
    "bsa": (
        "noguchi2019bsa",
        "Noguchi, Atsuhiro and Harada, Tatsuya",
        "Image Generation from Small Datasets via Batch Statistics Adaptation",
        "1904.01774",
        2019,
    ),
    "vgg16": (
        "simonyan2015vgg",
        "Simonyan, Karen and Zisserman, Andrew",
        "Very Deep Convolutional Networks for Large-Scale Image Recognition",
        "1409.1556",
        2015,
    ),
    "resnet18": (
        "he2016resnet",
        "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
        "Deep Residual Learning for Image Recognition",
        "1512.03385",
        2016,
    ),
    "unet": (
        "ronneberger2015unet",
        "Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas",
        "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        "1505.04597",
        2015,
    ),
    "fpn_se": (
        "lin2017fpn",
        "Lin, Tsung-Yi and Dollár, Piotr and Girshick, Ross and He, Kaiming and Hariharan, Bharath "
        "and Belongie, Serge",
        "Feature Pyramid Networks for Object Detection",
        "1612.03144",
        2017,
    ),
}


def paragraph(
    experiment: Experiment, real: RealData, plan: Plan, studies: Sequence[Mapping[str, Any]]
) -> str:
    """What was done, for the methods section of a paper."""
    said = [_data(experiment, real), *_generators(experiment, plan), *map(_study, studies)]
    seeds = len(experiment.seeds)
    said.append(
        f"Each arm was trained {seeds} time{'s' if seeds > 1 else ''}; the arms of a repeat shared "
        "initial weights, order of the data and the number of optimizer steps. The weights were "
        "chosen on the validation split, and the test split was evaluated once for each finished "
        "model."
    )
    tests = {c["test"] for s in studies for c in s["comparisons"] if c.get("test")}
    if tests:
        said.append(
            "Arms were compared with the reference on the same test pictures; intervals are 95 %, "
            "from resampled test cases (groups where they are known) and the variation over "
            "repeats; p-values were corrected over the arms (Holm)."
        )
    said.append(f"Computed with tfgan_med {tfgan_med.__version__}.")
    return " ".join(said)


def _data(experiment: Experiment, real: RealData) -> str:
    counts = {split: len(real.records(split)) for split in SPLITS}
    grouped = any(record.group is not None for record in real.images.records)
    units = "whole groups (patients, parts)" if grouped else "pictures"
    size = experiment.data.image_size
    return (
        f"The data hold {counts['train']} training, {counts['val']} validation and "
        f"{counts['test']} test pictures, divided by {units}, at {size} x {size} pixels."
    )


def _generators(experiment: Experiment, plan: Plan) -> list[str]:
    said = []
    for name, generator in experiment.generators.items():
        made = sum(plan.pools[name].made.values())
        if generator.origin != "trained":
            said.append(f"{made} synthetic pictures ({name}) came from a given {generator.origin}.")
            continue
        steps = sorted({cell.steps for cell in plan.pools[name].trained if cell.steps})
        each = ", one model for each class" if generator.per_class else ""
        length = " and ".join(map(str, steps))
        said.append(
            f"{name} ({generator.train}{each}) was trained on the training split for {length} "
            f"steps and made {made} pictures."
        )
    return said


def _study(study: Mapping[str, Any]) -> str:
    task = "classifier" if study["kind"] == "classification" else "segmenter"
    text = f"The {task} {study['downstream']} ({study['system']}, weights {study['weights']}) was "
    text += f"trained for {study['steps']} steps of {study['batch_size']} pictures in every arm."
    chosen = [point["settings"] for point in study["grid"] if point["chosen"]]
    if chosen:
        values = ", ".join(f"{key} {value}" for key, value in chosen[0].items())
        text += (
            f" Of {len(study['grid'])} settings, {values} was best on the validation split for the "
            "arm real, and was then used in all arms."
        )
    return text


def bibtex(experiment: Experiment) -> str:
    """References of the toolkit and of the models that were used."""
    systems = [generator.train for generator in experiment.generators.values()]
    systems += [model.system or name for name, model in experiment.downstream.items()]
    return references([system for system in systems if system])


def references(systems: Sequence[str]) -> str:
    """BibTeX of the toolkit and of these systems."""
    entries = [
        "@software{tfgan_med,\n"
        "  title = {tfgan\\_med: generative adversarial networks for small image sets},\n"
        f"  version = {{{tfgan_med.__version__}}}\n}}"
    ]
    for system in dict.fromkeys(systems):
        if system in _REFERENCES:
            key, author, title, number, year = _REFERENCES[system]
            entries.append(
                f"@article{{{key},\n  author = {{{author}}},\n  title = {{{title}}},\n"
                f"  journal = {{arXiv:{number}}},\n  year = {{{year}}}\n}}"
            )
    return "\n\n".join(entries)
