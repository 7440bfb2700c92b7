"""PyTorch files are read without PyTorch; whatever else they ask for is refused and not run."""

from __future__ import annotations

import io
import os
import pickle  # the attacker's tool; the package itself never unpickles
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfgan_med.errors import UserError
from tfgan_med.networks.torch_file import read_torch_file

Array = npt.NDArray[Any]

# Files as PyTorch writes them, by hand ------------------------------------------------------------


class Named:
    """Pickles as the global name `module.name`."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a global name."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.function, self.arguments = Named(module, name), arguments


class Stored:
    """Pickles as a reference to numbers that stand elsewhere."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count


PythonPickler: Any = vars(pickle)["_Pickler"]  # the one in Python, whose steps can be overridden


class Writer(PythonPickler):
    """Writes the instructions that PyTorch writes, without PyTorch."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, Stored):
            self.save(("storage", Named("torch", obj.kind), obj.key, "cpu", obj.count))
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


def program(value: Any) -> bytes:
    stream = io.BytesIO()
    Writer(stream, 2).dump(value)
    return stream.getvalue()


def tensor(
    kind: str,
    key: str,
    count: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
) -> Call:
    return Call(
        "torch._utils", "_rebuild_tensor_v2",
        Stored(kind, key, count), offset, shape, strides, False, OrderedDict(),
    )  # fmt: skip


def as_zip(path: Path, described: Any, numbers: dict[str, bytes], **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program(described))
        for name, data in more.items():
            archive.writestr(f"archive/{name}", data)
        for key, data in numbers.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def as_streams(path: Path, described: Any, numbers: dict[str, tuple[int, bytes]]) -> Path:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    content = program(0x1950A86A20F9469CFC6C) + program(1001) + program(system)
    content += program(described) + program(list(numbers))
    for count, data in numbers.values():
        content += struct.pack("<q", count) + data
    path.write_bytes(content)
    return path


VALUES = np.arange(12, dtype=np.float32)

# Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["alex", "squeeze", "vgg"])
def test_released_files_give_the_published_numbers(shared: Path, network: str) -> None:
    read = read_torch_file(shared / f"weights/lpips-v0.1-lin-{network}.pth")
    with np.load(shared / "weights/lpips-v0.1-lin.npz") as expected:
        for i, (name, values) in enumerate(read.items()):
            assert name == f"lin{i}.model.1.weight"
            np.testing.assert_array_equal(values.ravel(), expected[f"{network}/lin{i}"])
        assert len(read) == sum(key.startswith(network) for key in expected.files)


def test_both_formats_give_names_shapes_and_strides(tmp_path: Path) -> None:
    described = OrderedDict(
        plain=tensor("FloatStorage", "0", 12, (3, 4), (4, 1)),
        turned=tensor("FloatStorage", "0", 12, (4, 3), (1, 4)),
        part=tensor("FloatStorage", "0", 12, (2, 2), (4, 1), offset=5),
        step=3,
    )
    data = VALUES.tobytes()
    for path in (
        as_zip(tmp_path / "new.pth", described, {"0": data}, byteorder=b"little", version=b"3\n"),
        as_streams(tmp_path / "old.pth", described, {"0": (12, data)}),
    ):
        read = read_torch_file(path)
        assert list(read) == ["plain", "turned", "part"]
        np.testing.assert_array_equal(read["plain"], VALUES.reshape(3, 4))
        np.testing.assert_array_equal(read["turned"], VALUES.reshape(3, 4).T)
        np.testing.assert_array_equal(read["part"], [[5, 6], [9, 10]])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "<f8"),
        ("HalfStorage", "<f2"),
        ("LongStorage", "<i8"),
        ("BoolStorage", "?"),
    ],
)
def test_every_number_type_keeps_its_values(tmp_path: Path, kind: str, dtype: str) -> None:
    values = np.array([0, 1, 1], dtype)
    path = as_zip(
        tmp_path / "f.pth", {"x": tensor(kind, "0", 3, (3,), (1,))}, {"0": values.tobytes()}
    )
    np.testing.assert_array_equal(read_torch_file(path)["x"], values)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    halves = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2")
    path = as_zip(
        tmp_path / "f.pth",
        {"x": tensor("BFloat16Storage", "0", 2, (2,), (1,))},
        {"0": halves.tobytes()},
    )
    np.testing.assert_array_equal(read_torch_file(path)["x"], [1.5, -2.0])


def test_a_single_number_and_an_empty_tensor_are_read(tmp_path: Path) -> None:
    described = {
        "count": tensor("LongStorage", "0", 1, (), ()),
        "empty": tensor("LongStorage", "0", 1, (0, 3), (3, 1)),
    }
    read = read_torch_file(as_zip(tmp_path / "f.pth", described, {"0": struct.pack("<q", 7)}))
    assert read["count"] == 7
    assert read["empty"].shape == (0, 3)


# Refusing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [as_zip, as_streams])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("collections OrderedDict\nos", "system"),
    ],
)
def test_a_file_that_runs_a_command_is_refused_and_not_run(
    tmp_path: Path, write: Callable[..., Path], module: str, name: str
) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path / "evil.pth", {"x": Call(module, name, f"touch {marker}")}, {})
    with pytest.raises(UserError, match="refused and nothing in it was run"):
        read_torch_file(path)
    assert not marker.exists()


def test_the_crafted_file_would_have_run_when_unpickled(tmp_path: Path) -> None:
    """The test above tests something."""
    marker = tmp_path / "marker"
    pickle.loads(program(Call(os.system.__module__, "system", f"touch {marker}")))
    assert marker.exists()


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x80\x02}\x93.",  # STACK_GLOBAL without names
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"(S'id'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pname\n.",  # PERSID
    ],
)
def test_other_ways_to_reach_a_function_are_refused(tmp_path: Path, instructions: bytes) -> None:
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", instructions)
    with pytest.raises(UserError, match=r"evil\.pth"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((13,), (1,), 0),
        ((3, 4), (5, 1), 0),
        ((12,), (1,), 1),
        ((2**40,), (0,), 0),
        ((3,), (-1,), 5),
    ],
)
def test_a_tensor_that_leaves_its_numbers_is_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    described = {"x": tensor("FloatStorage", "0", 12, shape, strides, offset)}
    with pytest.raises(UserError, match="x: "):
        read_torch_file(as_zip(tmp_path / "f.pth", described, {"0": VALUES.tobytes()}))


def test_a_storage_of_64_gib_in_a_small_file_is_refused(tmp_path: Path) -> None:
    count = 2**34
    described = {"x": tensor("FloatStorage", "0", count, (count,), (1,))}
    with pytest.raises(UserError, match="damaged"):
        read_torch_file(as_streams(tmp_path / "f.pth", described, {"0": (count, b"1234")}))


def test_a_compressed_entry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program({}) + b"0" * 2**20)
    with pytest.raises(UserError, match="compressed"):
        read_torch_file(path)


@pytest.mark.parametrize("kept", [0, 10, 200, 1000])
def test_a_cut_file_is_called_damaged(shared: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes((shared / "weights/lpips-v0.1-lin-alex.pth").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cut\.pth: damaged"):
        read_torch_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth: cannot be read"):
        read_torch_file(tmp_path / "none.pth")
