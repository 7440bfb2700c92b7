"""Perceptual distances equal the `lpips` package's, and carry its name only with its weights."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med import files
from tfgan_med.errors import MissingWeightsError, UserError
from tfgan_med.networks import lpips, pretrained, torchvision_trunks, vgg
from tfgan_med.networks.lpips import LPIPS
from tfgan_med.networks.torchvision_trunks import CHANNELS, State, Trunk

Array = npt.NDArray[Any]


# Weight files -------------------------------------------------------------------------------------


def write_pth(path: Path, state: Mapping[str, Array]) -> Path:
    """A state dict as PyTorch saves it, instruction by instruction (zip format)."""
    program = b"\x80\x02}"
    for key, (name, values) in enumerate(state.items()):
        strides = [stride // values.itemsize for stride in np.ascontiguousarray(values).strides]
        program += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        program += b"(" + text("storage") + b"ctorch\nFloatStorage\n"
        program += text(str(key)) + text("cpu") + number(values.size) + b"tQ" + number(0)
        for sizes in (values.shape, strides):
            program += b"(" + b"".join(map(number, sizes)) + b"t"
        program += b"\x89ccollections\nOrderedDict\n)RtRs"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program + b".")
        for key, values in enumerate(state.values()):
            archive.writestr(f"archive/data/{key}", values.astype("<f4").tobytes())
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def seeded(name: str, shape: tuple[int, ...]) -> Array:
    """The rule of the golden README for a parameter `<net>.<name>`."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)
    if ".lin" in name:
        drawn = np.abs(0.1 * drawn)
    elif len(shape) == 4:
        drawn *= np.sqrt(2.0 / np.prod(shape[1:]))
    else:
        drawn *= 0.1
    return drawn.astype(np.float32)


def seeded_trunk(trunk: Trunk, golden: Mapping[str, Array]) -> State:
    """Torchvision's state dict with the golden weights, whose names count slices."""
    named = {
        re.sub(r"^net\.slice\d+", "features", name): name
        for name in golden[f"ref/lpips/names_{trunk}"]
    }
    shapes = torchvision_trunks.state_shapes(trunk)
    assert set(named) == set(shapes)
    return {name: seeded(f"{trunk}.{named[name]}", shape) for name, shape in shapes.items()}


def seeded_linear(trunk: Trunk) -> State:
    names = {f"lin{i}.model.1.weight": count for i, count in enumerate(CHANNELS[trunk])}
    return {name: seeded(f"{trunk}.{name}", (1, n, 1, 1)) for name, n in names.items()}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def trunk(request: pytest.FixtureRequest) -> Trunk:
    name: Trunk = request.param
    return name


@pytest.fixture(scope="module")
def network(trunk: Trunk, golden: Mapping[str, Array], tmp_path_factory: Any) -> LPIPS:
    """Golden weights through files as the `lpips` package and torchvision have them."""
    folder = tmp_path_factory.mktemp(trunk)
    state = seeded_trunk(trunk, golden) | {"classifier.1.weight": np.zeros((2, 3), np.float32)}
    return lpips.load(
        trunk,
        write_pth(folder / "trunk.pth", state),
        write_pth(folder / "linear.pth", seeded_linear(trunk)),
    )


@pytest.fixture(scope="module")
def caffe(shared: Path) -> LPIPS:
    """Real weights that are no LPIPS, but near it."""
    return lpips.load(
        "squeezenet-caffe",
        shared / "weights/squeezenet-1.1-imagenet-notop.h5",
        shared / "weights/lpips-v0.1-lin-squeeze.pth",
    )


def pictures(golden: Mapping[str, Array], which: str) -> Array:
    """Golden pictures in 0..255; they are not whole numbers."""
    return (golden[f"in/lpips/pair64/{which}"] + 1.0) * 127.5


# Values -------------------------------------------------------------------------------------------


def test_distances_equal_those_of_the_lpips_package(
    network: LPIPS, trunk: Trunk, golden: Mapping[str, Array]
) -> None:
    first, second = pictures(golden, "a"), pictures(golden, "b")
    reference = f"ref/lpips/pair64/lpips.{trunk}"
    np.testing.assert_allclose(
        network.layer_distances(first, second), golden[f"{reference}_layers"], rtol=1e-4
    )
    np.testing.assert_allclose(
        network.distances(first, second), golden[f"{reference}_total"], rtol=1e-4
    )
    np.testing.assert_allclose(
        network.unweighted().distances(first, second),
        golden[f"{reference}_baseline_unweighted"],
        rtol=1e-4,
    )


def test_a_distance_is_the_squared_length_between_embeddings(
    network: LPIPS, golden: Mapping[str, Array]
) -> None:
    first, second = pictures(golden, "a"), pictures(golden, "b")
    a, b = network.embed(first), network.embed(second)
    assert a.shape == (2, network.dimension(64, 64))
    assert a.dtype == np.float32
    squares = np.square(a.astype(np.float64) - b).sum(axis=1)
    np.testing.assert_allclose(squares, network.distances(first, second), rtol=1e-5)


def test_a_distance_is_symmetric_and_zero_for_the_same_picture(
    network: LPIPS, golden: Mapping[str, Array]
) -> None:
    first, second = pictures(golden, "a"), pictures(golden, "b")
    np.testing.assert_array_equal(
        network.distances(first, second), network.distances(second, first)
    )
    np.testing.assert_array_equal(network.distances(first, first), 0.0)


def test_pictures_in_several_passes_are_embedded_as_in_one(caffe: LPIPS) -> None:
    many = np.random.default_rng(0).integers(0, 256, (70, 64, 80, 3), np.uint8)
    together = caffe.embed(many)  # 55 fit in one pass
    np.testing.assert_allclose(together[53:57], caffe.embed(many[53:57]), atol=1e-6)
    assert caffe.embed(many[:0]).shape == (0, caffe.dimension(64, 80))


@pytest.mark.parametrize(
    ("size", "lengths"), [(64, [31, 15, 7, 3, 3, 3, 3]), (66, [32, 16, 8, 4, 4, 4, 4])]
)
def test_the_pools_of_squeezenet_keep_an_incomplete_last_window(
    size: int, lengths: list[int]
) -> None:
    """PyTorch's ceil mode: side (n - 3) / 2 + 1 rounded up, 32 to 16 to 8 to 4."""
    trunk = torchvision_trunks.build("squeeze")
    shapes = trunk.compute_output_shape((1, size, size, 3))
    assert [shape[1] for shape in shapes] == lengths
    assert tuple(shape[3] for shape in shapes) == CHANNELS["squeeze"]


def test_an_incomplete_window_takes_the_largest_of_what_is_there() -> None:
    """All convolutions pass one channel on, so maps show what the pools did; ReLU keeps it."""
    trunk = torchvision_trunks.build("squeeze")
    state = {
        name: np.zeros(shape, np.float32)
        for name, shape in torchvision_trunks.state_shapes("squeeze").items()
    }
    state["features.0.weight"][0, 0, 0, 0] = 1.0  # the upper left of each window
    for name in state:
        if re.search(r"(squeeze|expand1x1)\.weight", name):
            state[name][0, 0, 0, 0] = 1.0
    torchvision_trunks.load_state(trunk, state)
    picture = np.arange(66 * 66, dtype=np.float32).reshape(1, 66, 66, 1).repeat(3, axis=3)
    first, second, *_ = (np.asarray(values)[0, :, :, 0] for values in trunk(picture))
    assert first[-1, -1] == picture[0, 62, 62, 0]
    assert second.shape == (16, 16)
    assert second[-1, -1] == first[-1, -1]
    assert second[0, 0] == first[2, 2]


@pytest.mark.parametrize("damage", ["blur", "noise"])
def test_a_real_picture_departs_from_itself_with_growing_damage(
    caffe: LPIPS, shared: Path, damage: str
) -> None:
    from PIL import Image, ImageFilter

    paths = sorted((shared / "data/faces-ffhq50").rglob("*.png"))[:4]
    originals = [Image.open(path).convert("RGB").resize((128, 128)) for path in paths]
    assert len(originals) == 4
    clean = np.stack([np.asarray(image) for image in originals])
    noise = np.random.default_rng(0).normal(size=clean.shape)

    def damaged(amount: float) -> Array:
        if damage == "noise":
            return np.clip(clean + 10.0 * amount * noise, 0, 255).astype(np.uint8)
        blurred = [image.filter(ImageFilter.GaussianBlur(amount)) for image in originals]
        return np.stack([np.asarray(image) for image in blurred])

    apart = np.stack([caffe.distances(clean, damaged(amount)) for amount in (0.5, 1, 2, 4)])
    assert (np.diff(apart, axis=0) > 0).all()
    assert (apart[0] > 0).all()


# Names and refusals -------------------------------------------------------------------------------


def test_seeded_weights_do_not_give_lpips(network: LPIPS, trunk: Trunk) -> None:
    assert not network.published
    short = network.sha256[:8]
    assert network.name_of("lpips") == f"perceptual_distance[lpips-{trunk}:{short}]"
    assert (
        network.name_of("lpips_diversity")
        == f"perceptual_distance_diversity[lpips-{trunk}:{short}]"
    )
    assert network.unweighted().name == f"lpips-unweighted-{trunk}"


def test_only_both_published_files_together_are_lpips(
    network: LPIPS, trunk: Trunk, golden: Mapping[str, Array], tmp_path: Path, monkeypatch: Any
) -> None:
    path = write_pth(tmp_path / "t.pth", seeded_trunk(trunk, golden))
    linear = write_pth(tmp_path / "l.pth", seeded_linear(trunk))
    declare(monkeypatch, f"lpips-{trunk}", path)
    assert not lpips.load(trunk, path, linear).published
    declare(monkeypatch, f"lpips-{trunk}-linear", linear)
    whole = lpips.load(trunk, path, linear)
    assert whole.published
    assert (
        whole.name_of("lpips_diversity")
        == {
            "alex": "lpips_diversity",
            "vgg": "lpips_diversity_vgg",
        }[trunk]
    )


def declare(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make a file of ours the published one."""
    known = pretrained.REGISTRY[name]
    source = replace(
        known.sources[0], file=path.name, size=path.stat().st_size, digest=files.sha256_of(path)
    )
    monkeypatch.setitem(pretrained.REGISTRY, name, replace(known, sources=(source,)))


def test_an_imported_trunk_is_the_file_without_its_classifier(
    golden: Mapping[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path / "cache"))
    state = seeded_trunk("alex", golden)
    classifier = {"classifier.1.weight": np.zeros((500, 3000), np.float32)}
    path = write_pth(tmp_path / "alexnet.pth", state | classifier)
    linear = write_pth(tmp_path / "l.pth", seeded_linear("alex"))
    declare(monkeypatch, "lpips-alex", path)
    declare(monkeypatch, "lpips-alex-linear", linear)
    for name, brought in (("lpips-alex", path), ("lpips-alex-linear", linear)):
        pretrained.import_file(name, brought)
        assert pretrained.describe(name)["state"] == "ready"

    stored = pretrained.locate("lpips-alex")
    kept, sha256 = pretrained.read_tensors(stored)
    assert stored.suffix == ".npz"
    assert sha256 == files.sha256_of(path)
    assert set(kept) == set(state)
    found, given = lpips.load("alex"), lpips.load("alex", path, linear)
    assert found.published
    assert found.sha256 == given.sha256
    first = pictures(golden, "a")
    np.testing.assert_array_equal(found.embed(first), given.embed(first))


def test_a_trunk_of_another_network_is_not_imported(
    golden: Mapping[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path / "cache"))
    path = write_pth(tmp_path / "alexnet.pth", seeded_trunk("alex", golden))
    declare(monkeypatch, "lpips-vgg", path)
    with pytest.raises(UserError, match=r"alexnet\.pth: features\.0\.weight has the shape"):
        pretrained.import_file("lpips-vgg", path)
    assert pretrained.find("lpips-vgg") is None
    with pytest.raises(UserError, match=r"no vgg of torchvision"):
        lpips.load("vgg", path, write_pth(tmp_path / "l.pth", seeded_linear("vgg")))


def test_a_trunk_with_a_number_that_is_not_finite_is_refused(
    golden: Mapping[str, Array], tmp_path: Path
) -> None:
    state = seeded_trunk("alex", golden)
    state["features.6.bias"][3] = np.nan
    path = write_pth(tmp_path / "t.pth", state)
    with pytest.raises(UserError, match=r"t\.pth: features\.6\.bias has numbers that are not"):
        lpips.load("alex", path, write_pth(tmp_path / "l.pth", seeded_linear("alex")))


@pytest.mark.parametrize("kind", ["alex", "vgg", "squeeze"])
def test_the_published_linear_layers_are_read_and_known(
    shared: Path, kind: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_WEIGHTS", str(shared / "weights"))
    path = pretrained.locate(f"lpips-{kind}-linear")
    read, sha256 = pretrained.read_tensors(path)
    assert pretrained.is_published(f"lpips-{kind}-linear", sha256)
    with np.load(shared / "weights/lpips-v0.1-lin.npz") as same:
        for i in range(len(CHANNELS[kind])):
            np.testing.assert_array_equal(
                read[f"lin{i}.model.1.weight"].ravel(), same[f"{kind}/lin{i}"]
            )


def test_linear_layers_from_either_file_give_the_same_distances(
    caffe: LPIPS, shared: Path, golden: Mapping[str, Array]
) -> None:
    weights = shared / "weights"
    other = lpips.load(
        "squeezenet-caffe",
        weights / "squeezenet-1.1-imagenet-notop.h5",
        weights / "lpips-v0.1-lin.npz",
    )
    first, second = pictures(golden, "a"), pictures(golden, "b")
    np.testing.assert_array_equal(other.distances(first, second), caffe.distances(first, second))
    assert caffe.name == "squeezenet-caffe"
    assert not caffe.published
    assert caffe.name_of("lpips").startswith("perceptual_distance[squeezenet-caffe:")


def test_linear_layers_of_another_trunk_are_refused(
    golden: Mapping[str, Array], shared: Path, tmp_path: Path
) -> None:
    path = write_pth(tmp_path / "t.pth", seeded_trunk("alex", golden))
    with pytest.raises(UserError, match=r"lin1\.model\.1\.weight with 192 weights"):
        lpips.load("alex", path, shared / "weights/lpips-v0.1-lin-vgg.pth")
    negative = seeded_linear("alex")
    negative["lin2.model.1.weight"][0, 5] = -0.01
    with pytest.raises(UserError, match=r"lin2\.model\.1\.weight with 384 weights of 0 or more"):
        lpips.load("alex", path, write_pth(tmp_path / "l.pth", negative))


def test_vgg16_of_keras_counts_all_channels_alike(tmp_path: Path) -> None:
    """The same distance from the maps themselves: unit length at each place, mean of squares."""
    path = write_keras_vgg16(tmp_path / "vgg16.h5")
    network = lpips.load("keras-vgg16", path)
    assert network.name_of("lpips").startswith("perceptual_distance[lpips-unweighted-keras-vgg16:")

    pair = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    trunk = vgg.vgg16_features([f"block{b}_conv{c}" for b, c in LAST_CONVOLUTIONS], path)
    pixels = pair[..., ::-1].astype(np.float32) - np.array(vgg.BGR_MEAN, np.float32)
    expected = 0.0
    for features in trunk(pixels):
        maps = np.asarray(features, np.float64)
        unit = maps / (np.sqrt(np.square(maps).sum(axis=-1, keepdims=True)) + 1e-10)
        expected += np.square(unit[0] - unit[1]).sum(axis=-1).mean()
    assert network.distances(pair[:1], pair[1:])[0] == pytest.approx(expected, rel=1e-4)


LAST_CONVOLUTIONS = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))


def write_keras_vgg16(path: Path) -> Path:
    """Random weights in the layout of the published file."""
    generator = np.random.default_rng(0)
    channels = 3
    with h5py.File(path, "w") as file:
        for block, (width, convs) in enumerate(vgg.BLOCKS, 1):
            for conv in range(1, convs + 1):
                group = file.create_group(f"block{block}_conv{conv}")
                kernel = generator.normal(size=(3, 3, channels, width)) / np.sqrt(4.5 * channels)
                group["kernel:0"] = kernel.astype(np.float32)
                group["bias:0"] = np.full(width, 0.1, np.float32)
                group.attrs["weight_names"] = ["kernel:0", "bias:0"]
                channels = width
    return path


def test_linear_layers_are_not_taken_for_vgg16_of_keras(tmp_path: Path) -> None:
    linear = write_pth(tmp_path / "l.pth", seeded_linear("vgg"))
    with pytest.raises(UserError, match="learned for torchvision's VGG16"):
        lpips.load("keras-vgg16", tmp_path / "vgg16.h5", linear)


def test_missing_weights_are_answered_with_the_ways_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFGAN_MED_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError) as caught:
        lpips.load("alex")
    message = str(caught.value)
    assert "alexnet-owt-7be5be79.pth (244 MB, sha256 7be5be79...)" in message
    assert "weights import lpips-alex FILE, or add --lpips-trunk FILE. Meanwhile" in message
    assert caught.value.weights == "lpips-alex"


@pytest.mark.parametrize("shape", [(1, 63, 200, 3), (1, 200, 32, 3)])
def test_pictures_below_64_pixels_are_refused(caffe: LPIPS, shape: tuple[int, ...]) -> None:
    small = np.zeros(shape, np.uint8)
    with pytest.raises(UserError, match="need at least 64 a side"):
        caffe.embed(small)
    with pytest.raises(UserError, match="need at least 64 a side"):
        caffe.distances(small, small)


def test_grey_pictures_and_unequal_sizes_are_refused(caffe: LPIPS) -> None:
    with pytest.raises(UserError, match="Repeat a grey channel three times"):
        caffe.embed(np.zeros((1, 64, 64, 1), np.uint8))
    with pytest.raises(UserError, match="Resize one of the sets"):
        caffe.distances(np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 65, 3), np.uint8))


def test_an_unknown_network_is_answered_with_the_known() -> None:
    with pytest.raises(UserError, match="resnet: unknown perceptual network. Known: alex, vgg"):
        lpips.load("resnet")
