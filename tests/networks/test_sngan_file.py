"""Published generators: read by shape, computing what their own layout computes, or refused."""

from __future__ import annotations

import io
import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.errors import DataError
from tfgan_med.networks import sngan_file
from tfgan_med.networks.sngan import sngan_generator

Array = npt.NDArray[Any]

WIDTHS = {  # with a base of 2
    32: (2, 2, 2, 2),
    64: (32, 16, 8, 4, 2),
    128: (32, 32, 16, 8, 4, 2),
    "small": (16, 16, 8, 8, 4, 2),
}


def published(kind: Any, num_classes: int = 0, channels: int = 3, latent: int = 5) -> Any:
    """What Chainer's `save_npz` writes of a generator, with random numbers."""
    random = np.random.default_rng(7)
    arrays: dict[str, Array] = {}
    widths = WIDTHS[kind]

    def norm(name: str, width: int, conditional: bool = True) -> None:
        for table, middle in (("gamma", 1.0), ("beta", 0.0)):
            if num_classes and conditional:
                values = random.normal(middle, 0.5, (num_classes, width))
                arrays[f"{name}/{table}s/W"] = values.astype(np.float32)
            else:
                values = random.normal(middle, 0.5, width)
                arrays[f"{name}/{table}"] = values.astype(np.float32)
        arrays[f"{name}/avg_mean"] = random.normal(0.0, 0.5, width).astype(np.float32)
        arrays[f"{name}/avg_var"] = random.uniform(0.5, 2.0, width).astype(np.float32)
        arrays[f"{name}/N"] = np.array(0)

    def weights(name: str, *shape: int) -> None:
        scale = 1.0 / np.sqrt(np.prod(shape[1:]))
        arrays[f"{name}/W"] = random.normal(0.0, scale, shape).astype(np.float32)
        arrays[f"{name}/b"] = random.normal(0.0, 0.3, shape[0]).astype(np.float32)

    weights("l1", 16 * widths[0], latent)
    for number, (width_in, width) in enumerate(itertools.pairwise(widths), 2):
        norm(f"block{number}/b1", width_in)
        weights(f"block{number}/c1", width, width_in, 3, 3)
        norm(f"block{number}/b2", width)
        weights(f"block{number}/c2", width, width, 3, 3)
        weights(f"block{number}/c_sc", width, width_in, 1, 1)
    norm(f"b{len(widths) + 1}", widths[-1], conditional=False)
    head = "c" if kind == 32 else "l"
    weights(f"{head}{len(widths) + 1}", channels, widths[-1], 3, 3)
    return arrays


def written(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


# The published code's forward pass, channels first, without a framework ---------------------------


def forward(stored: dict[str, Array], latents: Array, label: int) -> Array:
    x = latents @ stored["l1/W"].T + stored["l1/b"]
    x = x.reshape(len(x), -1, 4, 4)
    number = 2
    while f"block{number}/c1/W" in stored:
        name = f"block{number}"
        short = convolved(repeated(x), stored, f"{name}/c_sc")
        x = np.maximum(normalized(x, stored, f"{name}/b1", label), 0.0)
        x = convolved(repeated(x), stored, f"{name}/c1")
        x = np.maximum(normalized(x, stored, f"{name}/b2", label), 0.0)
        x = convolved(x, stored, f"{name}/c2") + short
        number += 1
    x = np.maximum(normalized(x, stored, f"b{number}", label), 0.0)
    head = f"c{number}" if f"c{number}/W" in stored else f"l{number}"
    return np.asarray(np.tanh(convolved(x, stored, head)))


def repeated(x: Array) -> Array:
    return x.repeat(2, axis=2).repeat(2, axis=3)


def convolved(x: Array, stored: dict[str, Array], name: str) -> Array:
    kernel = stored[f"{name}/W"].astype(np.float64)
    side, (height, width) = kernel.shape[2], x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2))
    result = np.zeros((len(x), len(kernel), height, width))
    for i, j in itertools.product(range(side), repeat=2):
        part = padded[:, :, i : i + height, j : j + width]
        result += np.einsum("oi,nihw->nohw", kernel[:, :, i, j], part)
    return result + stored[f"{name}/b"][:, None, None]


def normalized(x: Array, stored: dict[str, Array], name: str, label: int) -> Array:
    mean, variance = stored[f"{name}/avg_mean"], stored[f"{name}/avg_var"]
    if f"{name}/gammas/W" in stored:
        gamma, beta = stored[f"{name}/gammas/W"][label], stored[f"{name}/betas/W"][label]
    else:
        gamma, beta = stored[f"{name}/gamma"], stored[f"{name}/beta"]
    scale = gamma / np.sqrt(variance + 2e-5)
    return np.asarray((x - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None])


@pytest.mark.parametrize(
    ("kind", "num_classes", "channels"), [(128, 3, 3), ("small", 0, 1), (64, 2, 3), (32, 0, 3)]
)
def test_a_generator_makes_the_pictures_of_its_own_layout(
    kind: Any, num_classes: int, channels: int, tmp_path: Path
) -> None:
    stored = published(kind, num_classes, channels)
    plan, weights = sngan_file.read(written(tmp_path / "g.npz", stored))
    size = 128 if kind == "small" else kind
    assert plan.model_dump() == {
        "image_size": size,
        "channels": channels,
        "base": 2,
        "small": kind == "small",
        "num_classes": num_classes,
        "latent_size": 5,
    }
    network = sngan_generator(plan)
    assert set(weights) == {layer.name for layer in network.layers if layer.weights}
    for name, arrays in weights.items():
        network.get_layer(name).set_weights(arrays)

    latents = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    expected = forward(stored, latents, label=num_classes - 1).transpose(0, 2, 3, 1)
    labels = np.full(2, num_classes - 1)
    made = network([latents, labels] if num_classes else latents, training=False)
    assert expected.std() > 0.05
    np.testing.assert_allclose(made, expected, atol=2e-5)


def test_another_class_is_another_row(tmp_path: Path) -> None:
    stored = published(32, 4)
    plan, weights = sngan_file.read(written(tmp_path / "g.npz", stored))
    np.testing.assert_array_equal(weights["block2_norm1"][0], stored["block3/b1/gammas/W"])
    np.testing.assert_array_equal(weights["block2_norm1"][1], stored["block3/b1/betas/W"])
    assert plan.num_classes == 4
    assert {a.dtype for arrays in weights.values() for a in arrays} == {np.dtype(np.float32)}


# Refusals -----------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        sngan_file.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "ResNetGenerator_850000.npz" in message
    return message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("block3/c2/W", None, "has no array block3/c2/W"),
        ("l1/W", None, "has no array l1/W"),
        ("b5/gamma", None, "has no array b5/gamma"),
        ("c5/W", None, "has no array l5/W"),
        (
            "block2/b1/avg_var",
            np.zeros(3, np.float32),
            r"avg_var has the shape (3,), expected (2,)",
        ),
        ("block2/b1/avg_var", -np.ones(2, np.float32), "negative"),
        ("block2/c1/b", np.full(2, np.nan, np.float32), "block2/c1/b holds other values"),
        ("block2/c1/b", np.array(["a", "b"]), "block2/c1/b holds other values"),
        ("block3/c1/W", np.zeros((4, 2, 3, 3), np.float32), "its maps have 2, 2, 4, 2 channels"),
        ("l1/W", np.zeros(32, np.float32), "expected 2 axes"),
        ("block4/c1/W", None, "2 blocks, expected 3, 4 or 5"),
    ],
)
def test_a_file_that_is_no_such_generator_says_what_is_wrong(
    name: str, value: Array | None, said: str, tmp_path: Path
) -> None:
    stored = published(32)
    del stored[name]
    if value is not None:
        stored[name] = value
    assert said in refusal(written(tmp_path / "g.npz", stored))


def test_a_snapshot_of_a_training_is_told_from_a_generator(tmp_path: Path) -> None:
    inside = {f"updater/model:gen/{name}": value for name, value in published(32).items()}
    assert "snapshot of a training" in refusal(written(tmp_path / "s.npz", inside))


def test_an_absent_a_damaged_and_another_file_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.npz")
    other = tmp_path / "other.npz"
    other.write_bytes(b"PK no archive")
    assert "no .npz file" in refusal(other)
    whole = written(tmp_path / "g.npz", published(32)).read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "no .npz file" in refusal(cut)


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    stored = {**published(32), "l1/b": np.array([{"a": 1}], dtype=object)}
    assert "Object arrays cannot be loaded" in refusal(written(tmp_path / "g.npz", stored))


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sngan_file, "MAX_BYTES", 10 * 2**20)
    path, header = tmp_path / "bomb.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (3 * 2**20,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("l1/W.npy", header.getvalue() + bytes(12 * 2**20))
    assert path.stat().st_size < 2**20
    assert "unpacks to 12 MB" in refusal(path)
