"""Inputs with what is no number, or is one of another world: one line that names the sample, and no bad scale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

import quantize.judging.verdict
from export.card import ModelCard, Parity, Source
from export.checksum import sha256_of
from export.definition.tensor import Feed, beyond
from export.graph.onnx_graph import IR_VERSION, OPSET, write_graph
from export.repository.repository import Repository
from quantize.cli import quantize as command
from quantize.quantizing.calibration import CalibrationError, check_inputs
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import PerToken, Recipe, Static
from tests.quantize.conftest import FEATURES, rows, tiny_graph

WORDS = 10
RECIPES: dict[str, Recipe] = {
    "static": Static(),
    "entropy": Static(calibrate="entropy"),
    "symmetric": Static(operators=("MatMul",), symmetric=True),
    "smoothed": Static(operators=("MatMul",), smooth=0.5),
    "per token": PerToken(),
    "per token, smoothed": PerToken(smooth=0.5),
}

FILE = """
from export.card import Source
from export.definition import Definition, Tensor
import numpy as np

def ids(*rows):
    return {"ids": np.array(rows, np.int64), "bias": np.zeros((len(rows), 4), np.float32)}

def feeds():
    yield ids([1, 2], [3, 4])
    yield ids([5, 6], [7, 9])

def bad():
    yield from feeds()
    yield BAD

def evaluate(predict):
    for feed in EVALUATED():
        predict(feed)
    return {"share": [1.0, SCORE, 1.0]}

DEFINITION = Definition(
    name="words",
    inputs=(Tensor("ids", "INT64", ("batch", "sequence")), Tensor("bias", "FP32", ("batch", 4))),
    outputs=(Tensor("y", "FP32", ("batch", "sequence", 4)),),
    source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
    onnx_file="not read",
    samples=SAMPLES,
    calibration=CALIBRATION,
    evaluate=evaluate,
    recipe=RECIPE,
)
"""
# A word that is not in the table, and what is no number beside words that are.
UNKNOWN = "ids([1, 2], [3, 10])"
ENDLESS = "ids([1, 2]) | {'bias': np.array([[0, 0, np.inf, 0]], np.float32)}"
STATIC, PER_TOKEN = '{"method": "static"}', '{"method": "per_token"}'


def feeds(value: float) -> Iterator[Feed]:
    for seed in range(4):
        x = rows(8, seed)
        if seed == 2:
            x[3, 5] = value
        yield {"x": x}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e20])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_input_that_has_no_range_is_named_with_its_sample(
    build: Path, tmp_path: Path, recipe: Recipe, value: float
) -> None:
    with pytest.raises(CalibrationError) as refused:
        quantize_graph(recipe, lambda: feeds(value), build / "models/digits/fp32.onnx", tmp_path / "int8.onnx")
    told = f"calibration 2: input 'x': expected numbers of at most 1.8e+19, got {value:g} at [3, 5]"
    assert str(refused.value) == told
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_sample_that_would_make_zeros_of_the_others_is_named(build: Path, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(CalibrationError) as refused:
        quantize_graph(recipe, lambda: feeds(1e10), build / "models/digits/fp32.onnx", tmp_path / "int8.onnx")
    told = "calibration 2: input 'x': expected numbers like those of the others, half of which reach 0.9"
    assert str(refused.value).startswith(told)
    assert "got 1e+10" in str(refused.value)


def test_inputs_that_differ_as_real_ones_do_are_taken() -> None:
    check_inputs(["x"], [{"x": np.array([value], np.float32)} for value in (0, 0, 0, 1e-3, 1, 99)])


def test_input_that_has_no_range_of_its_own_may_reach_anything(build: Path, tmp_path: Path) -> None:
    # As masks do that are added: minus infinity, or the least number of FP32.
    model = tiny_graph()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 4]))
    model.graph.node[1].input[0] = "masked"
    model.graph.node.insert(1, helper.make_node("Add", ["h", "mask"], ["masked"], "masked"))
    write_graph(model, build / "fp32.onnx")
    masked = [one | {"mask": np.full((8, 4), -np.inf, np.float32)} for one in feeds(0)]
    quantize_graph(PerToken(), lambda: masked, build / "fp32.onnx", tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("calibrate", ["minmax", "entropy"])
def test_sample_whose_activations_overflow_is_named(build: Path, tmp_path: Path, calibrate: Any) -> None:
    model = tiny_graph()
    # Its square is infinite, while what is multiplied is not.
    square = helper.make_node("Mul", ["r", "r"], ["s"], "square")
    model.graph.node.extend([square, helper.make_node("MatMul", ["s", "v"], ["y"], "last")])
    model.graph.node[1].output[0] = "r"
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "v"))
    weights = numpy_helper.from_array(np.full((FEATURES, 4), 1e10, np.float32), "w")
    model.graph.initializer[0].CopyFrom(weights)
    write_graph(model, build / "fp32.onnx")

    def growing() -> Iterator[Feed]:
        for factor in (1, 10, 1e4, 10):
            yield {"x": np.abs(rows(8, 1)) * np.float32(factor * 1e5)}

    with pytest.raises(CalibrationError) as refused:
        quantize_graph(Static(calibrate=calibrate), growing, build / "fp32.onnx", tmp_path / "int8.onnx")
    assert "calibration 2: 's' in the graph: expected numbers, got inf, of x: " in str(refused.value)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A build folder with a model that looks words up."""
    table, weights = rows(WORDS, 1), rows(4, 2).T.copy()
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["looked"], "look"),
        helper.make_node("MatMul", ["looked", "w"], ["h"], "product"),
        helper.make_node("Unsqueeze", ["bias", "one"], ["biased"], "unsqueeze"),
        helper.make_node("Add", ["h", "biased"], ["y"], "add"),
    ]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weights, "w")]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    bias = helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 4])
    graph = helper.make_graph(nodes, "words", [ids, bias], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    folder = tmp_path / "build" / "models" / "words"
    folder.mkdir(parents=True)
    write_graph(model, folder / "fp32.onnx")
    (folder / "config.pbtxt").write_text(
        'name: "words" backend: "onnxruntime" max_batch_size: 8\n'
        'input { name: "ids" data_type: TYPE_INT64 dims: [-1] } input { name: "bias" data_type: TYPE_FP32 dims: [4] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [-1, 4] }\n'
    )
    source = Source(package="p", version="1", file="f", sha256="0" * 64, licence="none")
    parity = Parity(max_abs_diff=0.0, tolerance=1.0, shapes=())
    sha256 = sha256_of(folder / "fp32.onnx")
    ModelCard(name="words", source=source, opset=OPSET, tools={}, fp32_sha256=sha256, parity=parity).write(folder)
    return tmp_path / "build"


def quantized(
    words: Path,
    bad: str = UNKNOWN,
    recipe: str = STATIC,
    calibration: str = "feeds",
    samples: str = "feeds",
    evaluated: str = "feeds",
    score: str = "1.0",
) -> Result:
    text = FILE.replace("EVALUATED", evaluated).replace("BAD", bad).replace("RECIPE", recipe).replace("SCORE", score)
    text = text.replace("CALIBRATION", calibration).replace("SAMPLES", samples)
    file = words.parent / "mine.py"
    file.write_text(text)
    places = ["--build-dir", str(words), "--model-repository", str(words.parent / "repository")]
    return CliRunner().invoke(command, [*places, str(file)])


def refused(words: Path, result: Result) -> str:
    """The one line that a command ends with; nothing was published."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert not Repository(words.parent / "repository").serves("words")
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "recipe",
    [STATIC, PER_TOKEN, '{"method": "static", "calibrate": "entropy"}', '{"method": "per_token", "smooth": 0.5}'],
)
def test_word_in_calibration_that_is_not_in_the_table_is_named_with_its_sample(words: Path, recipe: str) -> None:
    line = refused(words, quantized(words, recipe=recipe, calibration="bad"))
    assert "mine.py: words: calibration 2 on ids[2,2] bias[2,4]: ONNX Runtime fails: " in line
    assert "idx=10 must be within the inclusive range [-10,9]; ids: 1 to 10, bias: 0 to 0" in line


def test_word_in_samples_that_is_not_in_the_table_is_named_with_its_sample(words: Path) -> None:
    line = refused(words, quantized(words, samples="bad"))
    assert "mine.py: words: samples 2: fp32.onnx on ids[2,2] bias[2,4]: ONNX Runtime fails: " in line
    assert "idx=10 must be within the inclusive range [-10,9]; ids: 1 to 10" in line


def test_word_in_evaluation_that_is_not_in_the_table_is_named_with_its_feed(words: Path) -> None:
    line = refused(words, quantized(words, evaluated="bad"))
    assert "mine.py: words: evaluate: feed 2: fp32.onnx on ids[2,2] bias[2,4]: ONNX Runtime fails: " in line
    assert "idx=10 must be within the inclusive range [-10,9]; ids: 1 to 10" in line


@pytest.mark.parametrize(
    ("where", "what"), [("calibration", "calibration 2"), ("samples", "samples 2"), ("evaluated", "evaluate: feed 2")]
)
def test_number_without_an_end_is_named_with_its_sample_and_input(words: Path, where: str, what: str) -> None:
    line = refused(words, quantized(words, ENDLESS, **{where: "bad"}))
    told = f"mine.py: words: {what}: input 'bias': expected numbers of at most 1.8e+19, got inf at [0, 2]"
    assert line.endswith(told)


def test_score_that_is_no_number_is_named_with_its_sample(words: Path) -> None:
    line = refused(words, quantized(words, score="float('nan')"))
    told = "mine.py: words: evaluate: 'share': expected a number, or one for each sample; got nan for sample 1 of 3"
    assert line.endswith(told)


def test_good_words_are_quantized(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So few weights are larger in INT8, which is refused where it is no faster, too.
    monkeypatch.setattr(quantize.judging.verdict, "medians_ms", lambda *_: [1.0, 0.5])
    result = quantized(words)
    assert result.exit_code == 0, result.output
    assert Repository(words.parent / "repository").serves("words")


def test_numbers_that_can_be_computed_with_are_not_beyond() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        assert beyond({"x": np.array([0, -6e4, 6e4], dtype)}) is None
    assert beyond({"x": np.array([1, np.iinfo(np.int64).max])}) is None
    said = "input 'x': expected numbers of at most 1.8e+19, got inf at [1]"
    assert beyond({"x": np.array([0, np.inf], np.float16)}) == said


def test_graph_is_untouched_where_nothing_is_to_blame(build: Path, tmp_path: Path) -> None:
    quantize_graph(Static(), lambda: feeds(0.5), build / "models/digits/fp32.onnx", tmp_path / "int8.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "int8.onnx"))
