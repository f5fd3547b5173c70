"""Which output of a definition's model INT8 and FP32 are compared by, and where a cosine of it says nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

import quantize.tasks.definition_task
from export.cli import export
from export.definition import Gate, Tensor
from export.errors import DefinitionError
from export.graph.onnx_graph import IR_VERSION, OPSET
from export.inference.session import Session
from export.repository.repository import Repository
from quantize.cli import quantize as command
from quantize.tasks.definition_task import DefinedTask
from tests.quantize.tasks.test_definition_task import definition, rows

HEAD = """
from pathlib import Path
from export.definition import Definition, Gate, Serving, Tensor
from export.card import Source
import numpy as np

def feeds():
    for seed in range(4):
        yield {"x": np.random.default_rng(seed).normal(0, 1, (8, 256)).astype(np.float32)}

def definition(**more):
    return Definition(
        name="mine",
        source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        onnx_file=Path(__file__).with_suffix(".onnx"),
        samples=feeds,
        calibration=feeds,
        **more,
    )
"""


def floats(*shape: int) -> Any:
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def graph(outputs: list[Any], nodes: list[Any], **tables: Any) -> onnx.ModelProto:
    """Some nodes behind `h = relu(x @ w)`, 256 wide."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 256])]
    first = [helper.make_node("MatMul", ["x", "w"], ["p"], "first"), helper.make_node("Relu", ["p"], ["h"])]
    weights = {"w": floats(256, 256), **tables}
    named = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = helper.make_graph([*first, *nodes], "g", inputs, outputs, named)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


@pytest.fixture
def quantized(tmp_path: Path) -> Any:
    """Export and quantize a graph by what a definition says of it; the second command's result."""

    def run(model: onnx.ModelProto, said: str) -> Result:
        onnx.save(model, tmp_path / "mine.onnx")
        (tmp_path / "mine.py").write_text(f"{HEAD}\nDEFINITION = definition({said})\n")
        places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
        exported = CliRunner().invoke(export, [*places, str(tmp_path / "mine.py")])
        assert exported.exit_code == 0, exported.output
        return CliRunner().invoke(command, [*places, str(tmp_path / "mine.py")])

    return run


def test_words_before_the_scores_are_no_obstacle(quantized: Any, tmp_path: Path) -> None:
    model = graph(
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["batch"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_node("MatMul", ["h", "v"], ["scores"], "last"),
            helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
            helper.make_node("Gather", ["words", "best"], ["label"]),
        ],
        v=floats(256, 3),
        words=np.array(["cat", "dog", "fox"], np.object_),
    )
    said = (
        'inputs=(Tensor("x", "FP32", ("batch", 256)),), '
        'outputs=(Tensor("label", "STRING", ("batch",)), Tensor("scores", "FP32", ("batch", 3)))'
    )
    result = quantized(model, said)
    assert "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    card = Repository(tmp_path / "repository").card("mine")
    assert card is not None
    assert card.quantization is not None
    assert card.quantization.int8.scores["cosine"] > 0.99


def test_rows_may_be_found_by_the_model_itself(quantized: Any, tmp_path: Path) -> None:
    model = graph(
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["found", 256])],
        [
            helper.make_node("ReduceSum", ["h", "axis"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "least"], ["is_one"]),
            helper.make_node("Compress", ["h", "is_one"], ["found"], axis=0),
        ],
        axis=np.array([1]),
        least=np.array(165, np.float32),
    )
    said = (
        'inputs=(Tensor("x", "FP32", ("rows", 256)),), outputs=(Tensor("found", "FP32", ("found", 256)),), '
        'evaluate=lambda predict: {"rows": float(np.mean([len(predict(one)["found"]) for one in feeds()]))}, '
        'gates=(Gate("rows", may_fall=8),)'
    )
    result = quantized(model, said)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    card = Repository(tmp_path / "repository").card("mine")
    assert card is not None
    assert card.quantization is not None
    assert 0 < card.quantization.fp32.scores["rows"] < 8


def test_first_output_with_a_direction_is_compared(tmp_path: Path) -> None:
    outputs = (
        Tensor("label", "INT64", ("batch",)),
        Tensor("price", "FP32", ("batch", 1)),
        Tensor("y", "FP32", ("batch", 4)),
    )
    task = DefinedTask(definition(gates=(), outputs=outputs), tmp_path)
    apart = np.eye(4, dtype=np.float32)
    assert task.outcomes(apart, apart, tmp_path, "judge")["cosine"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("datatype", ["INT64", "BOOL"])
def test_labels_need_a_gate_of_their_own(tmp_path: Path, datatype: str) -> None:
    with pytest.raises(DefinitionError, match=r"expected one on a score of `evaluate`, got none. .* labels"):
        DefinedTask(definition(gates=(), outputs=(Tensor("y", datatype, ("batch", 4)),)), tmp_path)


class Alike(Session):
    """Temperature and pressure: whatever a model says of them, as long as it is near the usual."""

    def __init__(self) -> None:
        super().__init__(None, "alike")

    def predict(self, feed: Any) -> Any:
        apart = np.random.default_rng(len(feed["x"])).normal(0, (0.5, 300), (len(feed["x"]), 2))
        return {"y": (np.array([20, 101325]) + apart).astype(np.float32)}


def test_answers_that_are_all_alike_are_not_judged_on_a_cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.tasks.definition_task, "open_session", lambda _: Alike())
    pressure = (Tensor("y", "FP32", ("batch", 2)),)
    asked = (Gate("cosine", at_least=0.999),)
    with pytest.raises(DefinitionError, match=r"'y' is so alike for all 7 rows of the samples .* has 1.0000"):
        DefinedTask(definition(gates=asked, outputs=pressure), tmp_path).check_gates()
    # Without gates, what each number varies by is what counts.
    alone = DefinedTask(definition(gates=(), outputs=pressure), tmp_path)
    alone.check_gates()
    assert (alone.limits, alone.error_most) == ([], 0.25)
    # A gate on another score judges what that cosine does not see, and one row says nothing.
    DefinedTask(definition(outputs=pressure), tmp_path).check_gates()
    one = definition(gates=asked, outputs=pressure, samples=lambda: [{"x": rows(1, 1)}])
    DefinedTask(one, tmp_path).check_gates()


ALIKE = 'inputs=(Tensor("x", "FP32", ("batch", 256)),), outputs=(Tensor("y", "FP32", ("batch", 256)),), '


def alike_graph() -> onnx.ModelProto:
    return graph(
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 256])],
        [helper.make_node("Add", ["h", "usual"], ["y"])],
        usual=np.full(256, 1e3, np.float32),
    )


def test_alike_answers_are_told_before_anything_is_quantized(quantized: Any) -> None:
    said = 'gates=(Gate("cosine", at_least=0.99),), recipe={"method": "static", "exclude": ["no such layer"]}'
    assert "'y' is so alike for all 32 rows of the samples" in quantized(alike_graph(), ALIKE + said).output


def test_alike_answers_are_judged_by_what_they_differ_in(quantized: Any, tmp_path: Path) -> None:
    assert quantized(alike_graph(), ALIKE).exit_code == 0
    card = Repository(tmp_path / "repository").card("mine")
    assert card is not None
    assert card.quantization is not None
    assert 0 < card.quantization.errors["y"] < 0.1


def test_answers_of_another_number_of_rows_than_fp32s_are_compared_as_far_as_there_are_both(tmp_path: Path) -> None:
    task = DefinedTask(definition(gates=()), tmp_path)
    fp32, int8 = np.array([[3, 4, 0, 0], [0, 0, 1, 0]], np.float32), np.array([[3, 4], [0, 0]], np.float32)
    assert task.outcomes(int8, fp32, tmp_path, "judge")["cosine"].tolist() == [1, 0]
