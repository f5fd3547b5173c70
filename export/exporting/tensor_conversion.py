"""Inputs and outputs that Triton does not serve, made into tensors that it does.

Example: scikit-learn's ZipMap gives a list of maps, and becomes a matrix of one column for each class. A number
without an axis becomes a tensor of shape [1].
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import onnx
from onnx import TensorProto, helper

from export.graph.onnx_graph import GraphError, bodies

ZIP_MAP: Final = "ZipMap"
# Of a model's classes, as many are named in a line.
CLASSES_NAMED: Final = 10
# Reshape takes the shape as an input since then.
RESHAPE_OPSET: Final = 5
KINDS: Final[Mapping[str, str]] = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "optional_type": "optional",
    "sparse_tensor_type": "a sparse tensor",
}


class Reshaped(NamedTuple):
    """What was done: a line for each tensor, and the classes of those that were maps."""

    notes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]


def reshape_ends(model: onnx.ModelProto) -> Reshaped:
    """Give a graph ends that Triton serves, where that changes no number of an answer.

    scikit-learn's ZipMap is taken away: what it reads is the output, of one column for each class. A number without an
    axis becomes a tensor of shape [1].

    Args:
        model: changed in place.

    Raises:
        GraphError: another end is no tensor, or there is no input. Names it, and says what to do.
    """
    notes, labels = list[str](), dict[str, tuple[str, ...]]()
    for value in model.graph.output:
        node = next((one for one in model.graph.node if value.name in one.output), None)
        if node is not None and node.op_type == ZIP_MAP and not _is_tensor(value):
            labels[value.name] = _drop_zip_map(model.graph, node, value)
            notes.append(_zip_map_note(value.name, labels[value.name]))
    constants = {one.name for one in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not inputs:
        raise GraphError(
            "the graph has no input, and Triton serves no model without one: give it one, as a number that is not used"
        )
    for value in (*inputs, *model.graph.output):
        _expect_tensor(value)
    if not all(_has_rank(value) for value in model.graph.output):
        _infer(model)
    for kind, values in (("input", inputs), ("output", model.graph.output)):
        for value in values:
            if _has_rank(value) and not value.type.tensor_type.shape.dim:
                _give_axis(model, value, is_input=kind == "input")
                notes.append(
                    f"{kind} {value.name!r} was a single number without an axis, which Triton has not: it is [1]"
                )
    return Reshaped(tuple(notes), labels)


def _drop_zip_map(graph: onnx.GraphProto, node: onnx.NodeProto, value: onnx.ValueInfoProto) -> tuple[str, ...]:
    """Have an output be what its ZipMap reads. Returns the classes, in the order of the columns."""
    found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    classes = [one.decode() if isinstance(one, bytes) else str(one) for one in next(iter(found.values()))]
    place = list(graph.node).index(node)
    graph.node.remove(node)
    graph.node.insert(place, helper.make_node("Identity", [node.input[0]], [value.name], name=node.name))
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [None, len(classes)]))
    return tuple(classes)


def _zip_map_note(name: str, classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:CLASSES_NAMED]) + (", ..." if len(classes) > CLASSES_NAMED else "")
    return (
        f"output {name!r} was a list of maps (scikit-learn's ZipMap), which Triton has not: it is FP32 "
        f"[rows, {len(classes)}], a column for each class: {shown}"
    )


def _expect_tensor(value: onnx.ValueInfoProto) -> None:
    if not _is_tensor(value):
        kind = KINDS.get(str(value.type.WhichOneof("value")), "of no type")
        raise GraphError(
            f"{value.name!r}: expected a tensor, which is all that Triton serves, got {kind}: change the graph so that "
            "it takes and gives tensors (ConcatFromSequence makes one of a sequence), or leave that end out"
        )


def _is_tensor(value: onnx.ValueInfoProto) -> bool:
    return str(value.type.WhichOneof("value")) == "tensor_type"


def _has_rank(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))


def _infer(model: onnx.ModelProto) -> None:
    """Fill in the shapes of outputs that the graph does not tell."""
    try:
        inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.output}
    except (onnx.shape_inference.InferenceError, ValueError):
        # Of a graph that is wrong, or too large for it: whoever reads the shape next says that it is not there.
        return
    for value in model.graph.output:
        if not _has_rank(value):
            value.CopyFrom(inferred[value.name])


def _give_axis(model: onnx.ModelProto, value: onnx.ValueInfoProto, *, is_input: bool) -> None:
    """Make an end of no axis one of shape [1], under its name."""
    graph = model.graph
    if max((entry.version for entry in model.opset_import if not entry.domain), default=RESHAPE_OPSET) < RESHAPE_OPSET:
        raise GraphError(f"{value.name!r}: a number without an axis, which Triton has not, in a graph below opset 5")
    inner, shape = f"{value.name}/number", f"{value.name}/shape"
    for body in bodies(model):
        for node in body.node:
            _replace(node.input, value.name, inner)
            if not is_input:
                _replace(node.output, value.name, inner)
        if not is_input:
            for constant in getattr(body, "initializer", ()):
                constant.name = inner if constant.name == value.name else constant.name
    graph.initializer.append(
        helper.make_tensor(shape, TensorProto.INT64, [0 if is_input else 1], [] if is_input else [1])
    )
    ends = (value.name, inner) if is_input else (inner, value.name)
    node = helper.make_node("Reshape", [ends[0], shape], [ends[1]], name=f"{value.name}/reshape")
    graph.node.insert(0 if is_input else len(graph.node), node)
    value.type.tensor_type.shape.dim.add().dim_value = 1


def _replace(names: Any, old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new
