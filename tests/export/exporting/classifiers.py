"""Graphs with ends that Triton has not, as skl2onnx and others write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def zip_map(path: Path, classes: Sequence[Any], *, trees: bool = False, normalizer: bool = False) -> None:
    """A classifier of 2 features as skl2onnx writes it: a label, and a list of maps from classes to probabilities."""
    words = isinstance(classes[0], str)
    kind = "strings" if words else "int64s"
    count = len(classes)
    if trees:
        # One tree for each class, of a root and two leaves.
        nodes = {
            "nodes_treeids": [tree for tree in range(count) for _ in range(3)],
            "nodes_nodeids": [0, 1, 2] * count,
            "nodes_featureids": [tree % 2 for tree in range(count) for _ in range(3)],
            "nodes_values": [0.5, 0.0, 0.0] * count,
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * count,
            "nodes_truenodeids": [1, 0, 0] * count,
            "nodes_falsenodeids": [2, 0, 0] * count,
            "class_treeids": [tree for tree in range(count) for _ in range(2)],
            "class_nodeids": [1, 2] * count,
            "class_ids": [tree for tree in range(count) for _ in range(2)],
            "class_weights": [0.1, 0.9] * count,
        }
        operator, given = "TreeEnsembleClassifier", {**nodes, "post_transform": "SOFTMAX"}
    else:
        weights = [float(number) for number in range(2 * count)]
        operator = "LinearClassifier"
        given = {"coefficients": weights, "intercepts": [0.5] * count, "post_transform": "SOFTMAX", "multi_class": 1}
    given[f"classlabels_{kind}" if trees or words else "classlabels_ints"] = list(classes)
    made = helper.make_node(operator, ["X"], ["label", "scores"], domain="ai.onnx.ml", **given)
    nodes_made = [made]
    if normalizer:
        nodes_made.append(helper.make_node("Normalizer", ["scores"], ["shares"], domain="ai.onnx.ml", norm="L1"))
    last = nodes_made[-1].output[-1]
    nodes_made += [
        helper.make_node("Identity", ["label"], ["output_label"]),
        helper.make_node(
            "ZipMap", [last], ["output_probability"], domain="ai.onnx.ml", **{f"classlabels_{kind}": list(classes)}
        ),
    ]
    key = TensorProto.STRING if words else TensorProto.INT64
    maps = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    graph = helper.make_graph(
        nodes_made,
        "classifier",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("output_label", key, [None]),
            helper.make_value_info("output_probability", helper.make_sequence_type_proto(maps)),
        ],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def number(path: Path) -> None:
    """A threshold without an axis goes in, and a mean comes out, beside a tensor; a branch reads the threshold, too."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[4] x, float least) => (float mean, float[4] y) {
        m = ReduceMean<keepdims=0>(x)
        high = Greater(m, least)
        mean = If(high) <then_branch = t () => (float a) { a = Add(m, least) },
                         else_branch = e () => (float b) { b = Identity(m) }>
        y = Add(x, mean) }"""
    onnx.save(onnx.parser.parse_model(text), path)
