"""Runs that adapt a generator: where it comes from, what they leave, what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfgan_med.errors import DataError, UserError
from tfgan_med.learning.optimizers import UNSCHEDULED
from tfgan_med.models.bsa import BSA
from tfgan_med.networks.sngan import GeneratorPlan, sngan_generator
from tfgan_med.ops import images
from tfgan_med.training import adaptation_source, fit, run_folder, settings
from tfgan_med.training.adaptation_task import AdaptationTask
from tfgan_med.training.progress import Reporter
from tfgan_med.training.sampling import Order, Sampler

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke"


def settled(system: str, *changes: str) -> Any:
    return settings.resolve(system, SMOKE / f"{system}.yaml", changes)


def train(chosen: Any, runs: Path, resume: Path | None = None) -> tuple[Path, Any]:
    training = fit.Training(chosen, Reporter(quiet=True))
    with training.opened(runs, resume) as folder:
        result = training.run(folder)
    return result.run, result


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of sngan."""
    chosen = settled("sngan", "train.steps=2", "train.calibration_batches=1")
    return train(chosen, tmp_path_factory.mktemp("sources"))[0]


def adapting(source: Path, *changes: str) -> Any:
    return settled("bsa", "model.random_source=false", f"model.source={source}", *changes)


@pytest.fixture(scope="module")
def adapted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A finished run of bsa, and its result; its source has been moved away since."""
    moved = shutil.copytree(source, tmp_path_factory.mktemp("copy") / source.name)
    run, result = train(adapting(moved), tmp_path_factory.mktemp("runs"))
    shutil.rmtree(moved)
    return run, result


def test_a_run_leaves_its_figures_and_weights(adapted: tuple[Path, Any]) -> None:
    run, _ = adapted
    sides = {}
    for name in ("samples/source.png", "samples/reconstructions.png", "interpolation.png"):
        with Image.open(run / name) as picture:
            sides[name] = picture.size
    assert sides["samples/reconstructions.png"] == (8 * 34 - 2, 4 * 34 - 2)  # 16 pictures, twice
    assert sides["interpolation.png"] == (8 * 34 - 2, 5 * 34 - 2)
    names = {path.name for path in (run / "weights").iterdir()}
    assert names == {"network.yaml", "generator.weights.h5", "latents.weights.h5"}
    stored = run_folder.read_arrays(run / "weights" / "latents.weights.h5")
    assert [value.shape for value in stored.values()] == [(16, 128)]
    assert len(list((run / "generated" / "images").iterdir())) == 16


def test_the_scores_are_those_of_reconstructions_beside_the_source(
    adapted: tuple[Path, Any],
) -> None:
    run, result = adapted
    assert list(result.ending.scores) == ["l1", "psnr", "ssim", "swd", "nearest"]
    before = result.ending.references["source before"]
    assert set(before) == set(result.ending.scores)
    assert result.ending.scores["l1"] < before["l1"]
    assert "mean training picture" in result.ending.references
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert best["metric"] == "l1"
    card = (run / "MODEL_CARD.md").read_text()
    assert "by an adapted generator of 0001-sngan-smear" in card and "learned by heart" in card


def test_the_source_is_recorded_by_its_checksum(adapted: tuple[Path, Any], source: Path) -> None:
    run, _ = adapted
    digest = adaptation_source.read(source).facts["sha256"]
    facts = json.loads((run / "source" / "source.json").read_text())
    assert (facts["name"], facts["sha256"]) == (source.name, digest)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["source"]["sha256"] == digest
    assert environment["source"]["path"].endswith(source.name)
    assert digest[:12] in (run / "MODEL_CARD.md").read_text()


def test_a_run_goes_on_and_generates_when_its_source_is_gone(
    adapted: tuple[Path, Any], source: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(adapted[0], tmp_path / "elsewhere" / adapted[0].name))
    chosen = fit.resume_settings(moved, ["train.steps=8"])
    assert chosen.model.source == moved / "source"
    again, _ = train(chosen, tmp_path, resume=moved)
    assert (again / "checkpoints" / "step-000008").is_dir()

    sampler = Sampler(moved)
    assert sampler.bounded(Order()).truncation == 0.3
    vectors = np.zeros((1, 128), np.float32)
    np.testing.assert_array_equal(sampler.images(vectors), sampler.images(vectors))
    copied, origin = adaptation_source.read(moved / "source"), adaptation_source.read(source)
    assert copied.plan == origin.plan and copied.facts == origin.facts
    assert list(copied.weights) == sorted(origin.weights)
    for name, arrays in origin.weights.items():
        for kept, value in zip(copied.weights[name], arrays, strict=True):
            np.testing.assert_array_equal(kept, value)


def test_it_begins_as_the_generator_of_the_run_it_adapts(source: Path) -> None:
    task = AdaptationTask(adapting(source))
    model = task.build(UNSCHEDULED)
    assert isinstance(model, BSA)
    vectors = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    made = np.asarray(model.generator(vectors, training=False))
    np.testing.assert_allclose(made, Sampler(source).images(vectors), atol=1e-5)
    assert made.std() > 0


def test_an_interpolation_ends_at_the_reconstructions(source: Path) -> None:
    task = AdaptationTask(adapting(source, "model.latent_start=normal"))
    model = task.build(UNSCHEDULED)
    assert isinstance(model, BSA)
    sheet = task._interpolation_sheet(model)
    rows = task.data.decoded.spread_rows("train", 10)
    ends = images.to_uint8(model.reconstruct(rows))
    for pair in range(5):
        strip = sheet[34 * pair : 34 * pair + 32].astype(int)
        assert np.abs(strip[:, :32] - ends[pair]).max() <= 1  # a batch may round otherwise
        assert np.abs(strip[:, 7 * 34 : 7 * 34 + 32] - ends[pair + 5]).max() <= 1
    assert np.abs(ends[0].astype(int) - ends[5]).max() > 5


def test_an_unfinished_source_gives_its_newest_checkpoint(source: Path, tmp_path: Path) -> None:
    unfinished = Path(shutil.copytree(source, tmp_path / source.name))
    (unfinished / "weights" / "generator.weights.h5").unlink()
    found = adaptation_source.read(unfinished)
    assert "has not ended; step-000002 is adapted" in found.notices[0]
    finished = adaptation_source.read(source)
    for name, arrays in finished.weights.items():  # statistics are averaged over the same latents
        for value, again in zip(arrays, found.weights[name], strict=True):
            np.testing.assert_allclose(again, value, rtol=1e-4, atol=1e-5)


def test_a_source_with_classes_is_adapted_as_one(tmp_path: Path) -> None:
    data = tmp_path / "classed"
    draw = np.random.default_rng(0)
    for label in ("a", "b"):
        (data / label).mkdir(parents=True)
        for index in range(10):
            pixels = draw.integers(0, 255, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(data / label / f"{label}{index}.png")
    changes = ("model.conditional=true", f"data.path={data}", "train.steps=1")
    run, _ = train(settled("sngan", *changes, "train.calibration_batches=1"), tmp_path)
    found = adaptation_source.read(run)
    assert found.plan.num_classes == 2 and found.facts["classes"] == ["a", "b"]
    task = AdaptationTask(adapting(run, "model.source_affine=1"))
    assert task.shapes.extra["source"]["num_classes"] == 0
    assert isinstance(task.build(UNSCHEDULED), BSA)
    with pytest.raises(
        UserError, match=r"source_affine is 2.*numbers 0 to 1.*model\.source_affine"
    ):
        AdaptationTask(adapting(run, "model.source_affine=2")).build(UNSCHEDULED)


def test_the_published_file_is_adapted(tmp_path: Path) -> None:
    plan = GeneratorPlan(image_size=32, channels=3, base=4, latent_size=8)
    generator = sngan_generator(plan, 5)
    path = tmp_path / "ResNetGenerator.npz"
    np.savez(path, allow_pickle=False, **chainer_arrays(generator, plan))
    task = AdaptationTask(adapting(path))
    model = task.build(UNSCHEDULED)
    assert isinstance(model, BSA) and model.latent_size == 8
    vectors = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    expected = generator(vectors, training=False)
    np.testing.assert_allclose(model.generator(vectors, training=False), expected, atol=1e-5)
    (tmp_path / "broken.npz").write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="broken"):
        AdaptationTask(adapting(tmp_path / "broken.npz"))


def chainer_arrays(generator: Any, plan: GeneratorPlan) -> dict[str, np.ndarray]:
    """Weights of ours under the names and in the axes of the authors' file."""

    def kernel(name: str) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = generator.get_layer(name).get_weights()
        return weight.transpose(3, 2, 0, 1), bias

    weight, bias = generator.get_layer("project").get_weights()
    width = plan.widths[0]
    stored = {
        "l1/W": weight.reshape(-1, 4, 4, width).transpose(3, 1, 2, 0).reshape(16 * width, -1),
        "l1/b": bias.reshape(4, 4, width).transpose(2, 0, 1).ravel(),
    }
    blocks = len(plan.widths) - 1
    pairs = [("head_norm", f"b{blocks + 2}"), ("head_conv", f"c{blocks + 2}")]
    for number in range(1, blocks + 1):
        names = {"norm1": "b1", "norm2": "b2", "conv1": "c1", "conv2": "c2", "shortcut": "c_sc"}
        pairs += [(f"block{number}_{o}", f"block{number + 1}/{t}") for o, t in names.items()]
    for ours, theirs in pairs:
        if "norm" in ours:
            kinds = ("gamma", "beta", "avg_mean", "avg_var")
            values = generator.get_layer(ours).get_weights()
            stored |= {f"{theirs}/{k}": v for k, v in zip(kinds, values, strict=True)}
        else:
            stored[f"{theirs}/W"], stored[f"{theirs}/b"] = kernel(ours)
    return stored


# Refusals and notices -----------------------------------------------------------------------------


def test_without_a_source_it_says_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tfgan-med train sngan.*random_source=true"):
        AdaptationTask(settled("bsa", "model.random_source=false"))
    with pytest.raises(UserError, match="both are given"):
        AdaptationTask(settled("bsa", f"model.source={tmp_path}"))
    with pytest.raises(UserError, match=r"nothing: no such run or file.*train sngan"):
        AdaptationTask(adapting(tmp_path / "nothing"))


def test_a_source_of_other_pictures_is_refused_with_the_cure(source: Path) -> None:
    sixty_four = ("data.path=builtin:smear?count=24&size=64", "data.image_size=64")
    with pytest.raises(UserError, match=r"of 32 px. Add --set data\.image_size=32"):
        AdaptationTask(adapting(source, *sixty_four))
    with pytest.raises(UserError, match=r"1 channels, but.*makes 3. Add --set data\.mode=rgb"):
        AdaptationTask(adapting(source, "data.mode=gray"))
    with pytest.raises(UserError, match=r"with as many masks"):
        AdaptationTask(adapting(source, "data.with_masks=true"))


def test_a_run_of_another_model_is_refused(adapted: tuple[Path, Any]) -> None:
    with pytest.raises(UserError, match="is a run of bsa, and BSA adapts the generator of sngan"):
        AdaptationTask(adapting(adapted[0]))


def test_random_crops_are_refused_and_mirrors_are_warned_of() -> None:
    with pytest.raises(UserError, match=r"data\.load_size is 40"):
        AdaptationTask(settled("bsa", "data.load_size=40"))
    assert settled("bsa").data.flip is False
    model = AdaptationTask(settled("bsa", "data.flip=true")).build(UNSCHEDULED)
    assert any("data.flip is on" in notice for notice in model.notices)


def test_sizes_without_a_network_are_refused() -> None:
    with pytest.raises(UserError, match="image_size is 48"):
        AdaptationTask(settled("bsa", "data.image_size=48"))


def test_a_batch_holds_no_picture_twice_even_of_a_small_set() -> None:
    changes = ("data.path=builtin:smear?count=8&size=32", "train.batch_size=25")
    task = AdaptationTask(settled("bsa", *changes))
    assert task.count < 8
    model = task.build(UNSCHEDULED)
    assert any("train.batch_size is 25" in notice for notice in model.notices)
    batches = task.data.train_batches(25, seed=0).take(3)
    assert [sorted(b["rows"].numpy()) for b in batches] == 3 * [list(range(task.count))]
    assert task.data.steps_per_epoch(25) == 1


def test_latent_vectors_begin_at_zero_or_normal(source: Path) -> None:
    found = {}
    for start in ("zero", "normal"):
        task = AdaptationTask(adapting(source, f"model.latent_start={start}"))
        model = task.build(UNSCHEDULED)
        assert isinstance(model, BSA)
        found[start] = model.latent_vectors()
    assert found["zero"].shape == (16, 128) and not found["zero"].any()
    assert abs(found["normal"].std() - 1.0) < 0.1
