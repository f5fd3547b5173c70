"""ONNX graphs: read, checked by onnx.checker, and written without the notes that exporters leave in them."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from export.definition.tensor import Tensor
from export.errors import ExportError
from export.graph.external_data import weights_beside
from export.graph.graph_file import save_graph

# What is written here; the ONNX Runtime inside Triton 24.10 loads it (`export.graph.container_support`).
OPSET: Final = 20
IR_VERSION: Final = 10
# Metadata under this prefix is ours, says where the graph comes from, and stays through quantization.
PROVENANCE: Final = "fairlane."
# How an axis without a name is called here.
UNNAMED: Final = re.compile(r"axis\d+")
# onnx's element types by Triton's names of them.
ELEMENT_TYPES: Final[Mapping[str, int]] = {
    "BOOL": onnx.TensorProto.BOOL,
    "UINT8": onnx.TensorProto.UINT8,
    "UINT16": onnx.TensorProto.UINT16,
    "UINT32": onnx.TensorProto.UINT32,
    "UINT64": onnx.TensorProto.UINT64,
    "INT8": onnx.TensorProto.INT8,
    "INT16": onnx.TensorProto.INT16,
    "INT32": onnx.TensorProto.INT32,
    "INT64": onnx.TensorProto.INT64,
    "FP16": onnx.TensorProto.FLOAT16,
    "FP32": onnx.TensorProto.FLOAT,
    "FP64": onnx.TensorProto.DOUBLE,
    "STRING": onnx.TensorProto.STRING,
}


class GraphError(ExportError):
    """A graph is invalid, or not what its definition says."""


def read_graph(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """An ONNX file's content.

    Args:
        path: the file.
        weights: whether to read those that lie in files of their own, too.

    Raises:
        GraphError: it is missing, or no ONNX file.
    """
    try:
        model = onnx.load(path, load_external_data=weights)
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such file: {error}") from error
    except (DecodeError, OSError, onnx.checker.ValidationError) as error:
        raise GraphError(f"{path}: not an ONNX file, or cut off: {error}") from error
    if not model.graph.node:
        raise GraphError(f"{path}: not an ONNX file: it has no nodes")
    return model


def write_graph(model: onnx.ModelProto, path: Path, provenance: Mapping[str, str] | None = None) -> None:
    """Write a graph and check it: as one file, or, beyond 2 GB, with its weights beside it.

    Args:
        model: the graph; what the exporter noted about the machine it ran on is taken out of it.
        path: the file to write.
        provenance: metadata to record in the file, by name; what was recorded before stays.

    Raises:
        GraphError: onnx.checker refuses it.
        OSError: naming the file.
    """
    recorded = {one.key: one.value for one in model.metadata_props if one.key.startswith(PROVENANCE)}
    recorded |= {PROVENANCE + key: value for key, value in (provenance or {}).items()}
    _strip_notes(model)
    onnx.helper.set_model_props(model, dict(sorted(recorded.items())))
    save_graph(model, path)
    try:
        # By its path, as a graph may be too large for one message.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        for file in (path, weights_beside(path)):
            if file is not None:
                file.unlink()
        raise GraphError(f"{path.name}: onnx.checker refuses it: {' '.join(str(error).split())}") from error


def declared_tensors(model: onnx.ModelProto) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A graph's inputs and outputs as a definition would declare them.

    Raises:
        GraphError: one has a type or a shape that cannot be declared.
    """
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return tuple(map(_tensor, inputs)), tuple(map(_tensor, model.graph.output))


def check_tensors(model: onnx.ModelProto, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], name: str) -> None:
    """Refuse a graph whose inputs or outputs are not those that its definition declares.

    Axes that vary in the definition must vary in the graph; a graph may leave more open than was declared, but for an
    output's axis that has the name of one that varies in the inputs: it is not fixed.

    Raises:
        GraphError: naming the tensor, what was declared and what the graph has.
    """
    both = declared_tensors(model)
    for kind, declared, found in zip(("inputs", "outputs"), (inputs, outputs), both, strict=True):
        names, have = [one.name for one in declared], [one.name for one in found]
        if names != have:
            raise GraphError(f"{name}: {kind}: the definition says {names}, the graph has {have}")
        for want, got in zip(declared, found, strict=True):
            fits = want.datatype == got.datatype and len(want.dims) == len(got.dims)
            fits = fits and all(
                isinstance(size, str) or size == expected for expected, size in zip(want.dims, got.dims, strict=True)
            )
            fits = fits and not (kind == "outputs" and _fixes(want, got, _varying(inputs, both[0])))
            if not fits:
                raise GraphError(
                    f"{name}: {want.name!r}: the definition says {want.datatype} {list(want.dims)}, "
                    f"the graph has {got.datatype} {list(got.dims)}"
                )


def bodies(model: onnx.ModelProto) -> Iterator[Any]:
    """A model's graph, those within its nodes (of If and Loop), and its functions: all that has nodes."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for one in node.attribute:
                waiting += [one.g] if one.HasField("g") else []
                waiting += one.graphs


def open_axes(model: onnx.ModelProto, outputs: tuple[Tensor, ...], names: Collection[str]) -> None:
    """Let outputs' axes vary that an exporter took for fixed.

    PyTorch's notes the size that it traced with behind an LSTM or a GRU (its pull request 193192), there and inside the
    graph, where what it noted is taken out.

    Args:
        model: the graph.
        outputs: as they are declared.
        names: of the axes that are known to vary.
    """
    opened = False
    for value, tensor in zip(model.graph.output, outputs, strict=False):
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, tensor.dims, strict=False):
            if size in names and dim.HasField("dim_value"):
                dim.dim_param = str(size)
                opened = True
    if opened:
        del model.graph.value_info[:]


def _varying(declared: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> set[int | str]:
    """The graph's names of the axes that vary in the definition, but for those that it does not name."""
    every = (
        (want, size)
        for one, other in zip(declared, found, strict=True)
        for want, size in zip(one.dims, other.dims, strict=True)
    )
    return {size for want, size in every if isinstance(want, str) and not UNNAMED.fullmatch(str(size))}


def _fixes(want: Tensor, got: Tensor, varying: set[int | str]) -> bool:
    return any(isinstance(size, int) and name in varying for size, name in zip(want.dims, got.dims, strict=True))


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    names = {element: name for name, element in ELEMENT_TYPES.items()}
    if kind.elem_type not in names:
        # Also a sequence, a map, or an optional: they are no tensors at all.
        got = onnx.TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "no tensor"
        raise GraphError(f"{value.name!r}: expected a tensor of one of {', '.join(ELEMENT_TYPES)}; got {got}")
    if not kind.HasField("shape"):
        raise GraphError(
            f"{value.name!r}: expected a tensor of known rank, got one without a shape: give it one, "
            "as onnx.shape_inference or onnx.tools.update_model_dims does"
        )
    dims: list[int | str] = []
    for axis, dim in enumerate(kind.shape.dim):
        free = dim.dim_param if dim.dim_param.isidentifier() else f"axis{axis}"
        dims.append(dim.dim_value if dim.HasField("dim_value") else free)
    return Tensor(value.name, names[kind.elem_type], tuple(dims))


def _strip_notes(model: onnx.ModelProto) -> None:
    # The exporter quotes source lines with the paths of the machine it ran on: useless to a server, and
    # they would make the same model differ from machine to machine.
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for holder in (model, graph, *graph.node, *values):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
