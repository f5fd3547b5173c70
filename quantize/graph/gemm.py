"""Gemm with constant weights becomes MatMul and Add, the form that ONNX Runtime quantizes dynamically.

ONNX Runtime's quantizer would do so itself, but transposes the weights in place. A table or another layer with the
same weights would then read them the wrong way round.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantize.graph.layers import weight_place
from quantize.graph.node_replacement import replace_nodes


def products_of_gemm(model: onnx.ModelProto) -> None:
    """Rewrite each Gemm whose weights are constant, in place: y = alpha x B + beta C. The product keeps its name."""
    constants = {one.name: one for one in model.graph.initializer}
    made: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        bias = node.input[2] if len(node.input) > 2 else ""
        fixed = not bias or bias in constants or said.get("beta", 1.0) == 1.0
        if node.op_type != "Gemm" or weight_place(node, constants) is None or said.get("transA") or not fixed:
            nodes.append(node)
            continue
        weights = _scaled(constants, made, node.input[1], said.get("alpha", 1.0), bool(said.get("transB")))
        product = f"{node.output[0]}/product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weights], [product], node.name))
        if bias:
            added = _scaled(constants, made, bias, said.get("beta", 1.0), transposed=False)
            nodes.append(helper.make_node("Add", [product, added], list(node.output), f"{node.name}/bias"))
    replace_nodes(model.graph, nodes, made.values())


def _scaled(
    constants: Mapping[str, onnx.TensorProto], made: dict[str, Any], name: str, factor: float, transposed: bool
) -> str:
    """The name of a constant times a factor; the same for all that read it so."""
    if factor == 1 and not transposed:
        return name
    called = f"{name}{'/transposed' if transposed else ''}{f'/times {factor:g}' if factor != 1 else ''}"
    if called not in made:
        values = numpy_helper.to_array(constants[name])
        scaled = (values.T if transposed else values) * np.float32(factor)
        made[called] = numpy_helper.from_array(np.ascontiguousarray(scaled, dtype=np.float32), called)
    return called
