"""A graph on its way to disk: checked, of a format that Triton's ONNX Runtime loads, and free of notes."""

from pathlib import Path
from typing import Final

import onnx

from export.errors import ExportError

# The newest pair that the ONNX Runtime inside Triton 24.10 loads.
OPSET: Final = 20
IR_VERSION: Final = 10


class GraphError(ExportError):
    """A graph is invalid, or of a format that is too new."""


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Check a graph and write it as one file.

    Raises:
        GraphError: onnx.checker refuses it, or its opset or IR version is newer than Triton loads.
    """
    _strip_notes(model)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if model.ir_version > IR_VERSION or opset > OPSET:
        raise GraphError(
            f"{path.name}: expected IR version {IR_VERSION} and opset {OPSET} or older, "
            f"got {model.ir_version} and {opset}"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"{path.name}: onnx.checker refuses it: {error}") from error
    onnx.save(model, path)


def _strip_notes(model: onnx.ModelProto) -> None:
    # The exporter quotes source lines with the paths of the machine it ran on: useless to a server, and
    # they would make the same model differ from machine to machine.
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for holder in (model, graph, *graph.node, *values):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
