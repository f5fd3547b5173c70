"""Whether a model's first axis is a batch. It is proved before a server may put rows of several requests there.

Example: an axis of 1 to 16 points of one cloud varies, but is no batch. Such a model gets `max_batch_size: 0`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import onnx

from export.batch_proof.independence import Finding, Rounding, examine
from export.batch_proof.invariance import InvarianceError
from export.batch_proof.random_rows import NoRowsError, RandomRows
from export.batch_proof.sample_rows import sample_kinds
from export.card import BatchProof
from export.definition import Definition
from export.definition.tensor import BATCH, Tensor
from export.graph.onnx_graph import bodies, declared_tensors
from export.inference.session import Session

# What is forgiven between batches of different sizes, by what the graph computes with.
FINE: Final = Rounding(2e-3, 2e-3)
COARSE: Final = Rounding(5e-2, 5e-2)
COARSE_TYPES: Final = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
COARSE_OPERATORS: Final = ("Quantize", "Dequantize", "QLinear", "QGemm", "Integer", "NBits")

WHOLE: Final = "served whole, a request at a time (max_batch_size: 0)"


def settle_batch(definition: Definition, model: onnx.ModelProto, session: Session) -> tuple[Definition, BatchProof]:
    """Find out whether the first axis of a graph without a definition is a batch.

    Args:
        definition: made from the graph alone. Its first axis is `batch` where it varies in every tensor.
        model: the graph.
        session: the same, loaded.

    Returns:
        The definition, without a batch where that is not proved, and what was found.
    """
    if not definition.batched:
        free = [one.name for one in definition.inputs if one.dims and isinstance(one.dims[0], str)]
        if not free:
            return definition, BatchProof(proved=False, whole=True)
        tensors = (*definition.inputs, *definition.outputs)
        fixed = [one.name for one in tensors if not isinstance(one.dims[0], str)]
        why = f"the first axis of {free[0]!r} varies, and that of {fixed[0]!r} does not"
        return definition, BatchProof(proved=False, whole=True, reason=_unproved(why))
    if why := _elsewhere(model):
        reason = f"{WHOLE}: its first axis is no batch: {why}"
        return _whole(definition, model), BatchProof(proved=False, whole=True, reason=reason)
    finding = _random(definition, model, session)
    if finding.proved:
        return definition, BatchProof(proved=True, sizes=finding.sizes)
    reason = f"{WHOLE}: its first axis is no batch: {finding.mixed}" if finding.mixed else _unproved(finding.unproved)
    return _whole(definition, model), BatchProof(proved=False, whole=True, sizes=finding.sizes, reason=reason)


def prove_batch(definition: Definition, model: onnx.ModelProto, session: Session) -> BatchProof:
    """Hold a definition to its claim that its first axis is a batch.

    Args:
        definition: its samples, or, where their answers are all alike, random values are what it is tried with.
        model: the graph.
        session: the same, loaded.

    Returns:
        What was found. Where nothing can be, the claim stands, and the reason says so.

    Raises:
        InvarianceError: rows change each other's answers. Names the output, and says by how much.
    """
    if definition.max_batch_size <= 1:
        return BatchProof(proved=False, whole=not definition.batched)
    kinds = sample_kinds(definition)
    rounding = _rounding(model)._replace(absolute=definition.tolerance)
    finding = examine(session.predict, kinds, definition.max_batch_size, rounding, every_input=False)
    if finding.unproved:
        other = _random(definition, model, session)
        finding = finding if other.unproved else other
    if finding.mixed:
        raise InvarianceError(
            f"{definition.name}: dims: a first axis {BATCH!r} says that rows do not change each other's answers; they "
            f"do: {finding.mixed}; name the axis otherwise, and each request is served whole"
        )
    if finding.unproved:
        # Nothing speaks against it, and whoever wrote the definition may know.
        reason = f"that its first axis is a batch is the definition's word, as no trial can tell: {finding.unproved}"
        return BatchProof(proved=False, sizes=finding.sizes, reason=reason)
    return BatchProof(proved=True, sizes=finding.sizes)


def _random(definition: Definition, model: onnx.ModelProto, session: Session) -> Finding:
    rows = RandomRows(definition.inputs, session.predict, _words(model))
    try:
        kinds = rows.kinds()
    except NoRowsError as error:
        return Finding(unproved=f"it does not run on random values: {error}")
    groups = _groups(definition.inputs, model) if definition.from_graph else []
    if len(groups) > 1 and (how := rows.runs_apart(groups)):
        return Finding(mixed=f"the first axes of its inputs are not one: {how} run together")
    return examine(session.predict, kinds, definition.max_batch_size, _rounding(model))


def _words(model: onnx.ModelProto) -> list[str]:
    """Words that a graph compares with: the categories and keys in its nodes."""
    found = (word for body in bodies(model) for node in body.node for one in node.attribute for word in one.strings)
    return sorted({word.decode(errors="replace") for word in found})


def _unproved(why: str) -> str:
    return (
        f"{WHOLE}: that its first axis is a batch cannot be proved: {why}. Is it a batch? Then write a definition "
        f"(`fairlane export new NAME`) with this file as `onnx_file`, {BATCH!r} as the first axis, and your own samples"
    )


def _whole(definition: Definition, model: onnx.ModelProto) -> Definition:
    inputs, outputs = (tuple(map(unbatched, tensors)) for tensors in declared_tensors(model))
    return replace(definition, inputs=inputs, outputs=outputs)


def unbatched(tensor: Tensor) -> Tensor:
    """The tensor with no axis named like the batch, whatever the graph calls it."""
    return Tensor(tensor.name, tensor.datatype, tuple("rows" if size == BATCH else size for size in tensor.dims))


def _elsewhere(model: onnx.ModelProto) -> str:
    """Where an axis behind the first has the name of an input's first axis, in words; empty where none has."""
    values = _inputs(model)
    names = {_names(value)[0]: value.name for value in values if _names(value)[:1] not in ([], [""])}
    for value in (*values, *model.graph.output):
        for axis, name in enumerate(_names(value)[1:], 1):
            if name in names:
                return f"axis {axis} of {value.name!r} is of its size ({name})"
    return ""


def _groups(inputs: Sequence[Tensor], model: onnx.ModelProto) -> list[list[str]]:
    """Inputs whose first axis the graph names alike; those that it does not name are each by itself."""
    groups: dict[str, list[str]] = {}
    for value in _inputs(model):
        name = _names(value)[0]
        groups.setdefault(name or f"of {value.name}", []).append(value.name)
    assert sum(map(len, groups.values())) == len(inputs), "a graph's inputs are those of its definition"
    return list(groups.values())


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {constant.name for constant in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _names(value: onnx.ValueInfoProto) -> list[str]:
    return [dim.dim_param for dim in value.type.tensor_type.shape.dim]


def _rounding(model: onnx.ModelProto) -> Rounding:
    for graph in bodies(model):
        if any(one.data_type in COARSE_TYPES for one in getattr(graph, "initializer", ())):
            return COARSE
        for node in graph.node:
            casts = node.op_type == "Cast" and any(one.i in COARSE_TYPES for one in node.attribute)
            if casts or any(part in node.op_type for part in COARSE_OPERATORS):
                return COARSE
    return FINE
