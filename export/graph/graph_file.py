"""Graphs on disk: one file, or two where one would be larger than the 2 GB of a protobuf message."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data

from export.filesystem.atomic_folder import naming
from export.graph.external_data import WEIGHTS_FILE

# What stays in the graph: nodes, names, and tensors below SMALL.
GRAPH_BYTES: Final = 2_000_000_000
SMALL: Final = 1024
# ONNX Runtime maps the file, a page at a time.
PAGE: Final = 4096


def is_large(model: onnx.ModelProto) -> bool:
    """Whether a graph with its weights, all in memory, is larger than one message may be."""
    return sum(_bytes(one) for one in _tensors(model)) > GRAPH_BYTES


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph as it is, with its weights beside it where it is too large for one file.

    Raises:
        OSError: naming the file.
    """
    with _apart(model, path) if is_large(model) else _together(path):
        # Serialized with sorted maps and written at once: the same graph gives the same bytes.
        content = model.SerializeToString(deterministic=True)
    with naming(path):
        path.write_bytes(content)


@contextmanager
def saved(model: onnx.ModelProto) -> Iterator[Path]:
    """A graph in a file that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="fairlane-graph-") as scratch:
        path = Path(scratch, "model.onnx")
        save_graph(model, path)
        yield path


@contextmanager
def _together(path: Path) -> Iterator[None]:
    """No weights beside the graph, of one that was there before either."""
    path.with_name(WEIGHTS_FILE).unlink(missing_ok=True)
    yield


@contextmanager
def _apart(model: onnx.ModelProto, path: Path) -> Iterator[None]:
    """While the block runs, the weights are in a file beside the path, and no longer in the graph."""
    weights, moved = path.with_name(WEIGHTS_FILE), list[tuple[onnx.TensorProto, bytes]]()
    try:
        with naming(weights), weights.open("wb") as file:
            for tensor in _tensors(model):
                if _bytes(tensor) < SMALL or tensor.data_type == onnx.TensorProto.STRING:
                    continue
                if not tensor.HasField("raw_data"):
                    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
                file.write(bytes(-file.tell() % PAGE))
                place, raw = file.tell(), tensor.raw_data
                file.write(raw)
                moved.append((tensor, raw))
                set_external_data(tensor, WEIGHTS_FILE, place, len(raw))
                tensor.ClearField("raw_data")
        yield
    finally:
        for tensor, raw in moved:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = raw


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The constants of a graph and of the graphs within its nodes."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield from graph.initializer
        for node in graph.node:
            for one in node.attribute:
                waiting += [one.g] if one.HasField("g") else []
                waiting += one.graphs


def _bytes(tensor: onnx.TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    # Each in a list of its own type, at most eight bytes wide.
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return sum(8 * len(one) for one in lists)
