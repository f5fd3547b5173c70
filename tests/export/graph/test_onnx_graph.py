from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from export.graph.onnx_graph import IR_VERSION, OPSET, GraphError, write_graph


def relu(opset: int = OPSET, ir_version: int = IR_VERSION, operator: str = "Relu") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], doc_string='File "/home/someone/model.py"')],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def test_full_disk_is_told_with_the_name_of_the_file() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_graph(relu(), Path("/dev/full"))


def test_written_graph_has_no_notes_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/someone/model.py")
    write_graph(model, tmp_path / "m.onnx")
    assert b"/home/someone" not in (tmp_path / "m.onnx").read_bytes()


def test_graph_that_triton_would_not_load_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"onnx.checker refuses it: [^\n]*$"):
        write_graph(relu(operator="NoSuchOperator"), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
