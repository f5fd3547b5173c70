from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph import IR_VERSION, OPSET
from export.session import open_session
from quantize.models.minilm import MiniLMRecipe
from quantize.quantizer import quantize_graph


def test_result_is_close_static_and_of_the_same_format(lenient: Any, build: Path, tmp_path: Path) -> None:
    built = build / "models" / "digits"
    quantize_graph(lenient, built / "fp32.onnx", built, tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    operators = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert "DynamicQuantizeLinear" not in operators
    assert (model.ir_version, {entry.version for entry in model.opset_import if not entry.domain}) == (
        IR_VERSION,
        {OPSET},
    )
    feed = next(lenient.calibration(built))
    difference = open_session(tmp_path / "int8.onnx").run(feed) - open_session(built / "fp32.onnx").run(feed)
    assert 0 < np.abs(difference).max() < 0.01


def test_weights_are_signed_and_have_a_scale_a_channel(lenient: Any, build: Path, tmp_path: Path) -> None:
    built = build / "models" / "digits"
    quantize_graph(lenient, built / "fp32.onnx", built, tmp_path / "int8.onnx")
    constants = {one.name: one for one in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert constants["w_quantized"].data_type == TensorProto.INT8
    assert list(constants["w_scale"].dims) == [4]


def test_minilm_leaves_attention_ffn_down_and_computed_lookups_alone() -> None:
    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(shape, np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "ids"], ["a"], "lookup"),
            helper.make_node("Gather", ["shape", "one"], ["b"], "computed_lookup"),
            helper.make_node("MatMul", ["a", "up"], ["c"], "ffn_up"),
            helper.make_node("MatMul", ["c", "down"], ["d"], "ffn_down"),
            helper.make_node("MatMul", ["a", "d"], ["e"], "attention"),
        ],
        "g",
        [],
        [],
        [constant("words", 30, 384), constant("up", 384, 1536), constant("down", 1536, 384)],
    )
    assert MiniLMRecipe().nodes(graph) == ["lookup", "ffn_up"]
