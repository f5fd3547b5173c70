"""Conversion to an older opset and IR version, for graphs that are too new for Triton's container.

A graph is converted only where its answers stay the same.
"""

import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Final

import onnx

from export.batch_proof.independence import VALUES, Predict, difference
from export.definition.tensor import Feed
from export.errors import ExportError
from export.graph.container_support import (
    CONTAINER,
    IR_VERSION,
    OPSET,
    STANDARD,
    newer_format,
    newer_operators,
    opset_of,
)
from export.graph.onnx_graph import bodies, write_graph
from export.inference.session import LoadError, RunError, open_session

# Feeds that the two forms are compared on.
FEEDS: Final = 8


class LoweringError(ExportError):
    """A graph cannot be converted down, or answers otherwise then. Says why."""


def lower(model: onnx.ModelProto, feeds: Callable[[Predict], Iterable[Feed]]) -> tuple[onnx.ModelProto, str]:
    """A graph that Triton's container loads, too.

    Args:
        model: of any format.
        feeds: of a loaded form, what both must answer alike.

    Returns:
        The graph, converted or as it was, and what was done or could not be done; empty where nothing was to do.
    """
    newer = newer_format(model)
    if not newer:
        return model, ""
    try:
        converted = _converted(model)
        _expect_same(model, converted, feeds)
    except LoweringError as error:
        return model, (
            f"the embedded Triton serves it, {CONTAINER} does not: {newer}. It cannot be converted down: {error}"
        )
    return converted, (
        f"converted down to opset {opset_of(converted)} and IR version {converted.ir_version}, with the same answers: "
        f"{newer}"
    )


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    if operators := newer_operators(model):
        raise LoweringError(f"there is no older {', '.join(operators)}")
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    converted.ir_version = min(model.ir_version, IR_VERSION)
    if opset_of(model) <= OPSET:
        return converted
    if not _changed_since(model):
        # No operator of it has changed since: the number is all that is new.
        versions = [*converted.opset_import, *(entry for one in converted.functions for entry in one.opset_import)]
        for entry in versions:
            entry.version = min(entry.version, OPSET) if entry.domain in STANDARD else entry.version
        return converted
    try:
        made = onnx.version_converter.convert_version(converted, OPSET)
    except Exception as error:  # of whatever class its C++ part raises
        # Behind the place in its source.
        reason = " ".join(str(error).split()).rpartition("failed: ")[2]
        raise LoweringError(f"onnx's converter: {reason:.200}") from error
    made.ir_version = converted.ir_version
    made.metadata_props.MergeFrom(model.metadata_props)
    return made


def _changed_since(model: onnx.ModelProto) -> bool:
    """Whether an operator of the graph is another one in the newest opset that the container has."""
    version = opset_of(model)
    for body in bodies(model):
        for node in body.node:
            if node.domain not in STANDARD:
                continue
            try:
                if onnx.defs.get_schema(node.op_type, version).since_version > OPSET:
                    return True
            except onnx.defs.SchemaError:
                return True
    return False


def _expect_same(
    model: onnx.ModelProto, converted: onnx.ModelProto, feeds: Callable[[Predict], Iterable[Feed]]
) -> None:
    """See that both forms answer alike.

    Raises:
        LoweringError: they do not, or one does not load. Names the output, and says by how much.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-export-") as scratch:
        paths = [Path(scratch, "as_it_was", "model.onnx"), Path(scratch, "converted", "model.onnx")]
        for path, form in zip(paths, (model, converted), strict=True):
            path.parent.mkdir()
            try:
                write_graph(form, path)
            except ExportError as error:
                raise LoweringError(" ".join(str(error).split())) from error
        try:
            low = open_session(paths[1])
        except LoadError as error:
            raise LoweringError(str(error)) from error
        try:
            high = open_session(paths[0])
        except LoadError as error:
            if _changed_since(model):
                raise LoweringError(f"no ONNX Runtime here loads what it was, to compare: {error}") from error
            return
        compared = 0
        for feed in islice(feeds(high.predict), FEEDS):
            try:
                before = high.predict(feed)
            except RunError:
                continue
            try:
                after = low.predict(feed)
            except RunError as error:
                raise LoweringError(str(error)) from error
            compared += 1
            for name, value in before.items():
                if found := difference(value, after[name], VALUES):
                    raise LoweringError(f"output {name!r} is another one, {found}")
        if not compared:
            raise LoweringError("it runs on nothing that was tried, so that the two cannot be compared")
