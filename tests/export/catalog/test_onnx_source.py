"""An ONNX file alone as a source: what it is tried with, and what is said where it takes nothing of that."""

from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from export.cli import export as command


def test_onnx_file_that_takes_other_sizes_than_are_tried_says_that_a_definition_helps(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, "height"]) for name in "xy")
    kernel = numpy_helper.from_array(np.ones((1, 1, 40), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "wide", [x], [y], [kernel])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "wide.onnx"
    )
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    result = CliRunner().invoke(command, [*places, str(tmp_path / "wide.onnx")])
    assert result.exit_code == 1
    assert "is tried with zeros, and 1, 2, 16 for each axis that varies. Does it need other inputs?" in (result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1
