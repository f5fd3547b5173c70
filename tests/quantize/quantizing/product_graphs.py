"""Graphs of products, to be quantized."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.onnx_graph import IR_VERSION, OPSET


def graph_of(*matrices: Any) -> onnx.ModelProto:
    """One product of x with each matrix."""
    names = [f"product{place}" for place in range(len(matrices))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", f"{name}/w"], [f"{name}/y"], name) for name in names],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "tokens", len(matrices[0])])],
        [
            helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, ["rows", "tokens", matrix.shape[1]])
            for name, matrix in zip(names, matrices, strict=True)
        ],
        [numpy_helper.from_array(matrix, f"{name}/w") for name, matrix in zip(names, matrices, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def feed(width: int) -> dict[str, Any]:
    # With a mean: what a whole zero point would round away shows.
    return {"x": np.random.default_rng(5).normal(0.5, 1, (2, 3, width)).astype(np.float32)}
