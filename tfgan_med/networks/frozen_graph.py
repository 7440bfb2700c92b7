"""Frozen TensorFlow 1 graphs (`.pb`): their constants, and running one as a feature network.

A graph may read and write files or run Python, so only the operations in `COMPUTING` are admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2

from tfgan_med.errors import UserError

Array = npt.NDArray[Any]
Tensor = Any

# fmt: off
COMPUTING = frozenset((
    "Abs", "Add", "AddN", "AddV2", "AvgPool", "BatchNormWithGlobalNormalization",
    "BatchToSpaceND", "BiasAdd", "Cast", "CheckNumerics", "Concat", "ConcatV2", "Const", "Conv2D",
    "Conv2DBackpropInput", "DepthwiseConv2dNative", "Div", "Dropout", "Elu", "Equal", "Exp",
    "ExpandDims", "Fill", "Floor", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3",
    "Gather", "GatherV2", "Greater", "GreaterEqual", "Identity", "IdentityN", "LRN", "LeakyRelu",
    "Less", "LessEqual", "LogSoftmax", "MatMul", "Max", "MaxPool", "MaxPoolV2", "Maximum", "Mean",
    "Min", "Minimum", "MirrorPad", "Mul", "Neg", "NoOp", "Pack", "Pad", "PadV2", "Placeholder",
    "PlaceholderWithDefault", "Pow", "Prod", "Range", "RealDiv", "Reciprocal", "Relu", "Relu6",
    "Reshape", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "Rsqrt", "Selu",
    "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "SpaceToBatchND", "Split", "SplitV",
    "Sqrt", "Square", "SquaredDifference", "Squeeze", "StopGradient", "StridedSlice", "Sub",
    "Sum", "Tanh", "Tile", "Transpose", "Unpack", "ZerosLike",
))
# fmt: on
"""Operations that compute tensors from tensors, of networks in common use."""

_LARGEST_FILE = 2**31  # bytes; a protocol buffer cannot be larger


def read_graph(path: Path) -> graph_pb2.GraphDef:
    """The graph of a `.pb` file, parsed and not run.

    Raises:
        UserError: there is no such file, or it is no graph.
    """
    try:
        if path.stat().st_size >= _LARGEST_FILE:
            raise UserError(f"{path.name}: larger than 2 GiB, so no frozen graph.")
        return parse(path.read_bytes(), path.name)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None


def parse(data: bytes, name: str) -> graph_pb2.GraphDef:
    """The graph that the bytes of a file called `name` hold; errors as `read_graph`."""
    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(data)
    except DecodeError:
        raise UserError(f"{name}: no frozen TensorFlow graph, or damaged.") from None
    if not graph.node:
        raise UserError(f"{name}: a graph without nodes. Give a frozen graph (.pb).")
    return graph


def constants(graph: graph_pb2.GraphDef) -> dict[str, Array]:
    """Values of all constants of a frozen graph, by node name; strings are left out."""
    return {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.node
        if node.op == "Const" and node.attr["dtype"].type != tf.string.as_datatype_enum
    }


def load(
    path: Path, input_name: str | None, output_name: str | None, logits_name: str | None = None
) -> tuple[Callable[[Tensor], list[Tensor]], tuple[int | None, int | None]]:
    """A function from images to one or two tensors of a frozen graph.

    Args:
        input_name: tensor that takes `(batch, height, width, 3)`, such as `input:0`; may be left
            out if the graph has one placeholder.
        output_name, logits_name: tensors to compute in one pass, `(batch, ...)`; the second may
            be left out.
    Returns:
        The function, for any batch size, and the height and width that the graph asks for; None
        where any will do.
    Raises:
        UserError: an operation that is not admitted, or a name that is not there.
    """
    graph = read_graph(path)
    _refuse_other_operations(graph, path)
    source = _input_node(graph, input_name, path)
    if output_name is None:
        raise UserError(
            f"{path.name}: which tensor holds the features? Add --features-output NAME, for "
            f"example {', '.join(_likely_outputs(graph)) or 'the last pooling'}."
        )
    height, width = _input_size(source)
    source.attr["shape"].shape.CopyFrom(tf.TensorShape([None, height, width, 3]).as_proto())
    _free_batch(graph)

    def build() -> None:
        tf.graph_util.import_graph_def(graph, name="")

    wrapped = tf.compat.v1.wrap_function(build, [])
    fetched = []
    for name in (output_name, logits_name) if logits_name else (output_name,):
        try:
            fetched.append(wrapped.graph.as_graph_element(_tensor_name(name)))
        except (KeyError, ValueError):
            raise UserError(
                f"{name}: no such tensor in {path.name}. Candidates: "
                f"{', '.join(_likely_outputs(graph)) or 'none found'}."
            ) from None
    return wrapped.prune(f"{source.name}:0", fetched), (height, width)


def _refuse_other_operations(graph: graph_pb2.GraphDef, path: Path) -> None:
    used = {node.op for node in graph.node}
    for function in graph.library.function:
        used |= {node.op for node in function.node_def}
    foreign = sorted(used - COMPUTING)
    if foreign:
        named = ", ".join(foreign[:3]) + (
            f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        )
        raise UserError(
            f"{path.name}: uses {named}; only operations that compute tensors from tensors are "
            "run. The graph was refused. Give a frozen inference graph."
        )


def _input_node(graph: graph_pb2.GraphDef, name: str | None, path: Path) -> Any:
    places = [node for node in graph.node if node.op == "Placeholder"]
    if name is None and len(places) == 1:
        return places[0]
    wanted = (name or "").removesuffix(":0")
    for node in places:
        if node.name == wanted:
            return node
    listed = ", ".join(node.name for node in places[:3]) or "none"
    raise UserError(
        f"{path.name}: {name or 'the input'} is no placeholder of the graph, which has {listed}. "
        "Name one with --features-input."
    )


def _input_size(node: Any) -> tuple[int | None, int | None]:
    sizes = [dimension.size for dimension in node.attr["shape"].shape.dim]
    if len(sizes) != 4:
        return None, None
    height, width = (size if size > 0 else None for size in sizes[1:3])
    return height, width


def _free_batch(graph: graph_pb2.GraphDef) -> None:
    """Let reshapes to (1, ...) take any batch: released graphs often fix it at 1.

    The first size becomes "whatever is left", which is still 1 where there is no batch.
    """
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        shape = nodes.get(node.input[1]) if node.op == "Reshape" else None
        if shape is None or shape.op != "Const":
            continue
        sizes = tf.make_ndarray(shape.attr["value"].tensor)
        if sizes.ndim == 1 and len(sizes) > 1 and sizes[0] == 1 and (sizes > 0).all():
            freed = sizes.copy()
            freed[0] = -1
            shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(freed))


def _likely_outputs(graph: graph_pb2.GraphDef) -> list[str]:
    """The last pooling operations, where features are usually taken, and the last operation."""
    pools = [node.name for node in graph.node if node.op in ("AvgPool", "Mean", "MaxPool")]
    last = graph.node[-1].name
    return [f"{name}:0" for name in (*pools[-2:], *(() if last in pools else (last,)))]


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"
