"""Output pairs: FP32's and INT8's answers to the same feeds, outputs and the tensors that the end of a graph joins."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from onnx import TensorProto, helper

from export.definition.tensor import Array, Feed
from export.graph.graph_file import is_large, save_graph
from export.inference.session import Session, open_session
from quantize.accuracy.fidelity import Pair
from quantize.graph.postprocessing import postprocessing_nodes
from quantize.graph.sorted_values import sorted_values
from quantize.quantizing.quantizer import named_graph

# What the end of a graph reads to join it, or to choose by it: all inputs, or so many.
JOINS: Final = {"Concat": None, "ArgMax": 1, "ArgMin": 1, "TopK": 1, "NonMaxSuppression": 2}
# Of FP32's answers: what is kept of them at once.
ANSWERS_BYTES: Final = 256 << 20


class PairedOutputs(NamedTuple):
    """Which pairs of tensors to compare, FP32's and INT8's.

    `outputs` are the graph's own. `names` are tensors of FP32's graph and of INT8's, by how they are called;
    `unordered` are those of both whose rows have no fixed places, `whole` those whose first axis is no batch.
    """

    outputs: tuple[str, ...]
    names: Mapping[str, tuple[str, str]]
    unordered: frozenset[str]
    whole: frozenset[str]


def paired_outputs(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> PairedOutputs:
    """Of two forms of one graph, FP32's with the names that INT8 was made with."""
    behind, others = postprocessing_nodes(fp32.graph), {node.name: node for node in int8.graph.node}
    constants = {one.name for one in fp32.graph.initializer} | {one.name for one in fp32.graph.input}
    # Of a large graph, which shape inference does not take, the outputs alone.
    shaped = fp32 if is_large(fp32) else onnx.shape_inference.infer_shapes(fp32)
    tensors = {one.name: one.type.tensor_type for one in (*shaped.graph.value_info, *shaped.graph.output)}
    found: dict[str, tuple[str, str]] = {}
    for node in () if is_large(fp32) else fp32.graph.node:
        other = others.get(node.name)
        if node.op_type not in JOINS or node.name not in behind or other is None or other.op_type != node.op_type:
            continue
        for mine, its in list(zip(node.input, other.input, strict=False))[: JOINS[node.op_type]]:
            # Preparing a graph moves transposes behind what joins: then it reads something else.
            same = its == mine or its.startswith(f"{mine}_DequantizeLinear")
            if same and mine not in constants and mine in tensors and tensors[mine].elem_type == TensorProto.FLOAT:
                found[f"{mine} (of {node.op_type} {node.name})"] = (mine, its)
    named = {**{one.name: one.name for one in fp32.graph.output}, **{called: of[0] for called, of in found.items()}}
    moved = sorted_values(fp32.graph)
    return PairedOutputs(
        tuple(one.name for one in fp32.graph.output),
        found,
        frozenset(called for called, name in named.items() if name in moved),
        frozenset(called for called, name in named.items() if name in tensors and _is_whole(tensors[name])),
    )


def _is_whole(tensor: onnx.TypeProto.Tensor) -> bool:
    return bool(tensor.shape.dim) and tensor.shape.dim[0].dim_value > 1


@contextmanager
def output_pairs(fp32: Path, int8: Path) -> Iterator[tuple[Callable[[Iterable[Feed]], Iterator[Pair]], PairedOutputs]]:
    """Run two forms of a model, whose files these are, on the same feeds.

    Yields:
        What gives the answers of both to each feed, outputs and parts by name, until they take too much memory.
    """
    models = named_graph(fp32), onnx.load(int8)
    of = paired_outputs(*models)
    with tempfile.TemporaryDirectory(prefix="fairlane-parts-") as scratch:
        sessions = []
        for side, (path, model) in enumerate(zip((fp32, int8), models, strict=True)):
            # A folder each, as weights may lie beside a graph.
            more = Path(scratch, str(side), "model.onnx")
            more.parent.mkdir()
            if of.names:
                _give(model, [names[side] for names in of.names.values()])
                save_graph(model, more)
            sessions.append(open_session(more if of.names else path, threads=1))
        yield lambda feeds: _answers(sessions[0], sessions[1], of, feeds), of


def _give(model: onnx.ModelProto, names: Iterable[str]) -> None:
    there = {output.name for output in model.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in there]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)


def _answers(fp32: Session, int8: Session, of: PairedOutputs, feeds: Iterable[Feed]) -> Iterator[Pair]:
    held = 0
    for feed in feeds:
        answers = fp32.predict(feed), int8.predict(feed)
        before, after = (_named(answer, of, side) for side, answer in enumerate(answers))
        yield before, after
        held += sum(value.nbytes for value in before.values())
        if held > ANSWERS_BYTES:
            return


def _named(answers: Mapping[str, Array], of: PairedOutputs, side: int) -> dict[str, Array]:
    outputs = {name: answers[name] for name in of.outputs}
    return {**outputs, **{called: answers[names[side]] for called, names in of.names.items()}}
