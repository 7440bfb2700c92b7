"""Exported networks make the pictures of the run: latent vectors, conditions, both directions."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import yaml

from tfgan_med import config, files
from tfgan_med.data.encoding import Encoding
from tfgan_med.errors import TrainingError, UserError
from tfgan_med.training import export_network as exporting
from tfgan_med.training import settings, translation, weights
from tfgan_med.training.export_network import export_network
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.sampling import ImageShapes, Sampler
from tfgan_med.training.sampling import build_model as build_from_latents
from tfgan_med.training.translation import Shapes, Translator

COLOR = Encoding(role="images", kind="image", channels=3)
MASK = Encoding(role="masks", kind="mask", channels=1)
Values = npt.NDArray[np.float32]
Kind = Literal["pairs", "domains"]


def _write_run(run: Path, chosen: Any, shapes: Any) -> RunFolder:
    folder = RunFolder(run)
    for below in ("weights", "checkpoints"):
        (run / below).mkdir(parents=True)
    files.write_text(run / "config.yaml", config.as_yaml(chosen, commented=True))
    text = yaml.safe_dump(shapes.model_dump(mode="json"), sort_keys=False)
    files.write_text(run / "weights" / "network.yaml", text)
    items = [{"id": "0.png", "split": "train", "sha256": {"images": "0"}}]
    files.write_json(run / "data.json", {"items": items})
    return folder


def _enlarged(network: Any) -> Any:
    """Weights that make pictures with contrast, not grey ones that always agree."""
    for weight in network.weights:
        if weight.name == "kernel":
            weight.assign(4.0 * weight.value)
    return network


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DCGAN of colour pictures with masks, with a checkpoint too."""
    chosen = settings.resolve(
        "dcgan",
        None,
        ["data.path=somewhere", "data.image_size=32", "model.generator_base=32",
         "model.discriminator_base=4", "model.latent_size=8", "train.calibration_batches=2"],
    )  # fmt: skip
    shapes = ImageShapes(system="dcgan", image_size=32, encodings=(COLOR, MASK))
    run = tmp_path_factory.mktemp("runs") / "0001-masked"
    folder = _write_run(run, chosen, shapes)
    model = build_from_latents(chosen, shapes)
    _enlarged(model.networks["generator"])
    folder.save_checkpoint(model.state(), {"step": 3})
    weights.save(folder, "generator", model.prepare_samples(2))
    return run


def _translating(run: Path, system: str, *changes: str, kind: Kind = "pairs") -> Path:
    chosen = settings.resolve(system, None, ["data.path=somewhere", "data.image_size=32", *changes])
    shapes = Shapes(
        system=system,
        kind=kind,
        image_size=32,
        source=MASK if kind == "pairs" else COLOR,
        target=COLOR,
        fit="crop",
        scale=1.0,
    )
    folder = _write_run(run, chosen, shapes)
    model = translation.build_model(chosen, shapes, inference=True)
    for name in model.exports:
        weights.save(folder, name, _enlarged(model.networks[name]))
    return run


def _reloaded(path: Path, inputs: Values) -> Values:
    loaded = tf.saved_model.load(str(path))
    return np.asarray(loaded.serve(inputs))


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("checkpoint", ["final", "latest"])
def test_latent_vectors_make_the_pictures_that_generate_makes(
    latent: Path, tmp_path: Path, checkpoint: str
) -> None:
    done = export_network(latent, "savedmodel", tmp_path / "out", checkpoint=checkpoint)
    vectors = np.random.default_rng(1).standard_normal((5, 8), np.float32)
    expected = Sampler(latent, checkpoint).images(vectors)
    assert expected.std() > 0.1
    np.testing.assert_allclose(_reloaded(done.file, vectors), expected, atol=1e-5)
    assert done.difference is not None and done.difference < 1e-5
    facts = _read(done.folder / "provenance.json")
    assert facts["synthetic"] is True
    assert facts["input"]["shape"] == [None, 8]
    assert facts["output"]["shape"] == [None, 32, 32, 4]
    assert facts["trained_on"] == [{"id": "0.png", "sha256": {"images": "0"}}]
    name = "saved_model/saved_model.pb"
    assert facts["sha256"][name] == files.sha256_of(done.folder / name)
    readme = (done.folder / "README.md").read_text()
    assert "images: 3 channels in [-1, 1]" in readme
    assert "masks: 1 channel in [-1, 1], above 0 is inside the mask" in readme
    assert facts["weights"]["sha256"] in readme


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_conditions_make_the_pictures_that_translate_makes(tmp_path: Path, norm: str) -> None:
    run = _translating(tmp_path / "run", "pix2pix", f"model.norm={norm}", "model.generator_base=4")
    done = export_network(run, "savedmodel", tmp_path / "out")
    generator = np.random.default_rng(2)
    source = np.where(generator.random((3, 32, 32, 1)) > 0.5, 1.0, -1.0).astype(np.float32)
    expected = translation.translate(Translator(run).model, source)
    assert expected.std() > 0.01
    np.testing.assert_allclose(_reloaded(done.file, source), expected, atol=1e-5)
    single = _reloaded(done.file, source[1:2])  # a picture does not depend on its batch
    np.testing.assert_allclose(single, expected[1:2], atol=1e-5)
    assert _read(done.folder / "provenance.json")["input"]["name"] == "condition"


def test_each_direction_is_a_network_of_its_own(tmp_path: Path) -> None:
    run = _translating(
        tmp_path / "run", "cyclegan", "model.generator_base=4", "model.blocks=1", kind="domains"
    )
    source = np.random.default_rng(3).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    made = {}
    for way in translation.NETWORKS:
        done = export_network(run, "savedmodel", tmp_path / way, direction=way)
        made[way] = _reloaded(done.file, source)
        model = Translator(run, direction=way).model
        expected = translation.translate(model, source, direction=way)
        np.testing.assert_allclose(made[way], expected, atol=1e-5)
        assert _read(done.folder / "provenance.json")["direction"] == way
    assert np.abs(made["a2b"] - made["b2a"]).max() > 0.01


def test_onnx_makes_the_same_pictures(latent: Path, tmp_path: Path) -> None:
    for package in ("tf2onnx", "onnx"):
        pytest.importorskip(package, reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pairs = _translating(tmp_path / "run", "pix2pix", "model.generator_base=4")
    for run, shape in ((latent, (5, 8)), (pairs, (2, 32, 32, 1))):
        done = export_network(run, "onnx", tmp_path / f"out-{run.name}")
        assert done.difference is not None and done.difference < 1e-5
        inputs = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
        session = runtime.InferenceSession(str(done.file), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        (made,) = session.run(None, {given.name: inputs})
        network = exporting.load_generator(run).network
        np.testing.assert_allclose(made, np.asarray(network(inputs)), atol=1e-5)


def test_missing_packages_for_onnx_are_named(
    latent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "tf2onnx" else known(name, package),
    )
    with pytest.raises(UserError, match=r"needs tf2onnx.*pip install 'tfgan_med\[onnx\]'"):
        export_network(latent, "onnx", tmp_path / "out")


def test_a_file_that_makes_other_pictures_is_not_handed_over(
    latent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (0.5, float("nan")):
        monkeypatch.setattr(exporting, "_difference", lambda *given, wrong=wrong: wrong)
        with pytest.raises(TrainingError, match="differs from the network"):
            export_network(latent, "savedmodel", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_requests_that_cannot_be_are_answered_with_the_cure(latent: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one of savedmodel, onnx"):
        export_network(latent, "tflite", tmp_path / "out")
    with pytest.raises(UserError, match="Leave --direction out"):
        export_network(latent, "savedmodel", tmp_path / "out", direction="a2b")
    with pytest.raises(UserError, match="no export"):
        export_network(latent, "savedmodel", latent / "weights", replace=True)
    with pytest.raises(UserError, match="lies in the source"):
        export_network(latent, "savedmodel", latent, replace=True)
    classes = tmp_path / "classes"
    (classes / "ok").mkdir(parents=True)
    files.write_json(classes / "classes.json", {"classes": {"ok": "ok"}})
    with pytest.raises(UserError, match=r"one by one: .*classes/ok"):
        export_network(classes, "savedmodel", tmp_path / "out")
    assert (latent / "weights" / "network.yaml").is_file()
