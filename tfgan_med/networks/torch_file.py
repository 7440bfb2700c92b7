"""Tensors of a PyTorch file, without PyTorch and without running what the file says.

A PyTorch file describes its contents in a program for Python's unpickler, which can call any
function. This reader takes the program apart with `pickletools`, executes the few instructions
that build containers, and knows six names to call; every other name or instruction is refused.

Two formats: a zip archive (PyTorch 1.6 and later) and the older sequence of streams followed by
the raw numbers. Source: `pytorch/pytorch`, torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tfgan_med.errors import UserError

Array = npt.NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C  # first stream of the older format
_PROTOCOL = 1001
_LARGEST_PROGRAM = 64 * 2**20  # bytes; the description of a network is some kilobytes

_TYPES: dict[str, str] = {  # storage class to little-endian type
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # widened to float32 by `_values`
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


def read_torch_file(path: Path) -> dict[str, Array]:
    """All named tensors of a `.pth` or `.pt` file; other entries are left out.

    Returns:
        Name to array, in the order of the file. bfloat16 becomes float32.
    Raises:
        UserError: the file is damaged, holds no mapping of tensors, or asks for anything but
            tensors to be made. Nothing it asks for is run.
    """
    try:
        with path.open("rb") as stream:
            if zipfile.is_zipfile(stream):
                stream.seek(0)
                tensors = _read_zip(stream)
            else:
                stream.seek(0)
                tensors = _read_streams(stream)
    except _RefusedError as error:
        raise UserError(
            f"{path.name}: {error} The file was refused and nothing in it was run. Weights must be "
            "a PyTorch state dict: names and tensors, nothing else."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (zipfile.BadZipFile, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
        raise UserError(
            f"{path.name}: damaged, or no PyTorch file ({error}). Fetch the file again."
        ) from None
    return tensors


class _RefusedError(Exception):
    """The file asks for something that is no tensor."""


@dataclass(frozen=True)
class _Named:
    """A Python name that the file mentions; one of those admitted."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Numbers that stand elsewhere in the file."""

    key: str
    type: str  # storage class
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# The two formats ----------------------------------------------------------------------------------


def _read_zip(stream: BinaryIO) -> dict[str, Array]:
    with zipfile.ZipFile(stream) as archive:
        program = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(program) != 1:
            raise ValueError(f"{len(program)} entries data.pkl, expected one")
        folder = program[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = _member(archive, f"{folder}byteorder", 16)
            if order != b"little":
                raise ValueError(f"byte order {order!r}, expected little")
        described = _execute(io.BytesIO(_member(archive, program[0], _LARGEST_PROGRAM)))

        def numbers(storage: _Storage) -> bytes:
            return _member(archive, f"{folder}data/{storage.key}", _bytes_of(storage))

        return _named_arrays(described, numbers)


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One entry; PyTorch never compresses, so nothing can be larger than the file."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise _RefusedError(f"The entry {name} is compressed, which PyTorch never does.")
    if info.file_size > limit:
        raise ValueError(f"entry {name} has {info.file_size} bytes, at most {limit} expected")
    return archive.read(info)


def _read_streams(stream: BinaryIO) -> dict[str, Array]:
    if _execute(stream) != _MAGIC:
        raise ValueError("the first bytes are not those of a PyTorch file")
    if _execute(stream) != _PROTOCOL:
        raise ValueError("unknown version of the format")
    system = _execute(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("numbers are not little-endian")
    described = _execute(stream)
    keys = _execute(stream)

    storages = {tensor.storage.key: tensor.storage for _, tensor in _named_tensors(described)}
    held: dict[str, bytes] = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little", signed=True)
        storage = storages.get(key)
        if storage is None:
            raise _RefusedError(f"The numbers of {key!r} belong to no tensor.")
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} numbers, {storage.count} are described")
        held[key] = _exactly(stream, _bytes_of(storage))
    return _named_arrays(described, lambda storage: held[storage.key])


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """Read; a size that the file cannot have is not reserved in memory first."""
    position = stream.tell()
    left = stream.seek(0, io.SEEK_END) - position
    if count > left:
        raise EOFError(f"{count} bytes expected, {left} are left")
    stream.seek(position)
    return stream.read(count)


# From descriptions to arrays ----------------------------------------------------------------------


def _named_tensors(described: Any) -> Iterator[tuple[str, _Tensor]]:
    if not isinstance(described, Mapping):
        raise ValueError("the file holds no mapping of names to tensors")
    for name, value in described.items():
        if isinstance(value, _Tensor):
            yield str(name), value


def _named_arrays(described: Any, numbers: Callable[[_Storage], bytes]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, tensor in _named_tensors(described):
        data = numbers(tensor.storage)
        if len(data) != _bytes_of(tensor.storage):
            raise ValueError(f"{name}: {len(data)} bytes, {_bytes_of(tensor.storage)} expected")
        arrays[name] = _view(_values(data, tensor.storage.type), tensor, name)
    if not arrays:
        raise ValueError("the file holds no tensors")
    return arrays


def _values(data: bytes, storage_type: str) -> Array:
    values: Array = np.frombuffer(data, _TYPES[storage_type])
    if storage_type == "BFloat16Storage":  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    return values


def _view(values: Array, tensor: _Tensor, name: str) -> Array:
    """The numbers of one tensor, copied; strides that leave the storage are refused."""
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    if len(tensor.shape) != len(tensor.strides) or min(sizes, default=0) < 0:
        raise ValueError(f"{name}: impossible shape {tensor.shape}, strides {tensor.strides}")
    if 0 in tensor.shape:
        return np.empty(tensor.shape, values.dtype)
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset + reach >= len(values) or np.prod(tensor.shape, dtype=object) > len(values):
        raise ValueError(f"{name}: reaches beyond its {len(values)} numbers")
    view = np.lib.stride_tricks.as_strided(
        values[tensor.offset :],
        tensor.shape,
        [step * values.itemsize for step in tensor.strides],
        writeable=False,
    )
    return view.copy()


def _bytes_of(storage: _Storage) -> int:
    return storage.count * np.dtype(_TYPES[storage.type]).itemsize


# The program --------------------------------------------------------------------------------------

_ADMITTED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    *(f"torch {storage}" for storage in _TYPES),
}

_MARK = object()


class _Machine:
    """Stack, memo and the admitted instructions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _NEW:
            self.stack.append(_NEW[opcode]())
        elif opcode in _PUT:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif opcode in _GET:
            self.stack.append(self.memo[argument])
        elif opcode in _TUPLES:
            self._tuple(_TUPLES[opcode])
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise _RefusedError(f"It holds the instruction {opcode}.")

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise ValueError("a list without a beginning")

    def _tuple(self, count: int) -> None:
        items = self.stack[-count:]
        del self.stack[-count:]
        self.stack.append(tuple(items))

    def marked_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def marked_list(self, _: Any) -> None:
        self.stack.append(self._pop_to_mark())

    def marked_dict(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        _only(list, self.stack[-1]).append(value)

    def appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        _only(list, self.stack[-1]).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _only(dict, self.stack[-1])[key] = value

    def set_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        _only(dict, self.stack[-1]).update(zip(items[::2], items[1::2], strict=True))

    def name(self, argument: str) -> None:
        """`module name`; the only place where Python's own things could come in."""
        if argument not in _ADMITTED:
            raise _RefusedError(f"It asks for {argument.replace(' ', '.')}.")
        self.stack.append(_Named(argument.rpartition(" ")[2]))

    def name_of_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(f"{module} {name}")

    def call(self, _: Any) -> None:
        arguments, named = self.stack.pop(), self.stack.pop()
        if not isinstance(named, _Named) or not isinstance(arguments, tuple):
            raise _RefusedError("It calls something that is no tensor.")
        self.stack.append(_make(named.name, arguments))

    def build(self, _: Any) -> None:
        """Attributes, such as the `_metadata` of a state dict, are dropped."""
        self.stack.pop()

    def persistent(self, _: Any) -> None:
        self.stack.append(_storage(self.stack.pop()))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NEW: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.marked_tuple,
    "LIST": _Machine.marked_list,
    "DICT": _Machine.marked_dict,
    "POP": _Machine.pop,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_of_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}


def _execute(stream: BinaryIO) -> Any:
    """Run one program from the stream's position; leaves the stream behind its end."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise EOFError("the description has no end")


def _make(name: str, arguments: tuple[Any, ...]) -> Any:
    """What calling an admitted name gives."""
    if name == "OrderedDict":
        return OrderedDict(*arguments)
    if name == "Size":
        return tuple(*arguments)
    if name == "_rebuild_parameter":
        return _only(_Tensor, arguments[0])
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        storage, offset, shape, strides = arguments[:4]
        return _Tensor(
            _only(_Storage, storage), _only(int, offset), _integers(shape), _integers(strides)
        )
    raise _RefusedError(f"It calls {name}.")  # storage classes are named, never called


def _storage(reference: Any) -> _Storage:
    """`("storage", class, key, device, count[, view])`; the device does not matter."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise _RefusedError("It refers to something that is no numbers.")
    if len(reference) > 5 and reference[5] is not None:
        raise _RefusedError("It refers to a view of numbers, which no released weights do.")
    kind = _only(_Named, reference[1]).name
    if kind not in _TYPES:
        raise _RefusedError(f"It uses {kind} as numbers.")
    count = _only(int, reference[4])
    if count < 0:
        raise ValueError(f"a storage of {count} numbers")
    return _Storage(str(reference[2]), kind, count)


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(_only(int, value) for value in _only(tuple, values))


def _only(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value
