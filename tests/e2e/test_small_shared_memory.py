"""A container's shared memory is small: what does not fit is an error, no request hangs, and serving goes on."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.e2e import small_shared_memory as script

CONFIG = """
name: "wide" backend: "onnxruntime" max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [1] }
input { name: "n" data_type: TYPE_INT64 dims: [1] }
output { name: "y" data_type: TYPE_FP32 dims: [-1] }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model: y = x * x, n times."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "n"], ["e"]), helper.make_node("Mul", ["e", "e"], ["y"])],
        "wide",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["k"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder = tmp_path / "repository" / "wide" / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    return folder.parents[1]


def test_answers_that_do_not_fit_are_errors_and_the_next_ones_are_answered(repository: Path, tmp_path: Path) -> None:
    own = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=32m none /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a mount namespace takes root's rights")
    run = [sys.executable, "-m", script.__name__, str(repository), str(tmp_path / "log")]
    done = subprocess.run([*own, *run], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    came, calls = json.loads(done.stdout), script.CALLERS * script.CALLS
    # An error that Triton makes of it, and none of them by waiting for its deadline.
    assert came[:calls] == ["StatusCode.INTERNAL"] * calls
    assert came[calls:] == [f"{script.FEW} numbers"] * calls
