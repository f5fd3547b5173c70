"""A definition as a task: what it says is what is calibrated on, judged and published."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto

import quantize.judging.verdict
from export.card import Source, read_card
from export.catalog.catalog import load_definition
from export.definition import Definition, Feed, Gate, Predict, Serving, Tensor
from export.errors import DefinitionError
from export.exporting.exporter import export_model
from export.inference.parity import ParityError
from export.inference.session import open_session
from export.repository.build_folder import built_folder
from export.repository.repository import Repository
from quantize.cli import quantize as command
from quantize.graph.layers import layers
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import Dynamic, PerToken, Static
from quantize.tasks.default_recipe import default_recipe, symmetric_form
from quantize.tasks.definition_task import DefinedTask
from quantize.tasks.task import NoTaskError
from quantize.tasks.task_loading import load_task
from tests.quantize.conftest import FEATURES, rows, tiny_graph

FILE = """
from export.card import Source
from export.definition import Definition, Gate, Tensor
import numpy as np

def feeds():
    for seed in range(4):
        yield {"x": np.random.default_rng(seed).uniform(-1, 1, (8, 16)).astype(np.float32)}

def evaluate(predict):
    (x,) = [feed["x"] for feed in feeds()][:1]
    return {"size": float(np.abs(predict({"x": x})["y"]).max())}

DEFINITION = Definition(
    name="digits",
    inputs=(Tensor("x", "FP32", ("batch", 16)),),
    outputs=(Tensor("y", "FP32", ("batch", 4)),),
    source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
    onnx_file="not read",
    samples=feeds,
    calibration=feeds,
    evaluate=evaluate,
    gates=(Gate("size", may_fall=BOUND),),
    recipe={"method": "static", "operators": ["MatMul"]},
)
"""


def samples() -> Iterator[Feed]:
    yield {"x": rows(6, 1)}
    yield {"x": rows(1, 2)}


def scored(predict: Predict) -> Mapping[str, float]:
    return {"largest": float(predict({"x": rows(4, 3)})["y"].max())}


def definition(**changes: Any) -> Definition:
    said: dict[str, Any] = {
        "name": "digits",
        "inputs": (Tensor("x", "FP32", ("batch", FEATURES)),),
        "outputs": (Tensor("y", "FP32", ("batch", 4)),),
        "source": lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        "onnx_file": Path("not read"),
        "samples": samples,
        "calibration": samples,
        "evaluate": scored,
        "gates": (Gate("largest", at_least=0.1, may_fall=0.05),),
        "serving": Serving(max_batch_size=8),
    }
    return Definition(**said | changes)


@pytest.fixture
def quantize_file(build: Path, tmp_path: Path) -> Any:
    """Run `fairlane quantize FILE.py` on the tiny model, whose definition has this gate."""
    file = tmp_path / "mine.py"

    def invoke(
        may_fall: float, *args: str, by_sample: bool = False, raising: bool = False, changing: bool = False
    ) -> Result:
        text = FILE.replace("BOUND", str(may_fall))
        if by_sample:
            text = text.replace('float(np.abs(predict({"x": x})["y"]).max())', 'predict({"x": x})["y"].max(axis=1)')
        if raising:
            text = text.replace('["y"]', '["z"]')
        if changing:
            text = text.replace("return {", 'calls.append(1.0)\n    return {"calls": calls, ').replace(
                "def ev", "calls = []\ndef ev"
            )
        file.write_text(text)
        places = ["--build-dir", str(build), "--model-repository", str(tmp_path / "repository")]
        return CliRunner().invoke(command, [*places, *args, str(file)])

    return invoke


def test_file_is_quantized_by_its_recipe_and_judged_by_its_gates(quantize_file: Any, tmp_path: Path) -> None:
    result = quantize_file(0.05)
    assert result.exit_code == 0, repr(result.exception) + result.output
    card = Repository(tmp_path / "repository").card("digits")
    assert card is not None
    assert card.quantization is not None
    assert card.quantization.recipe.endswith("minmax; MatMul")
    assert set(card.quantization.int8.scores) == {"cosine", "size", "batch_cosine_min"}
    # A figure has no interval; what each sample came to has one.
    assert set(card.quantization.int8.intervals) == {"cosine"}
    assert card.batch_invariant


def test_gate_of_a_file_that_refuses_keeps_fp32_and_says_by_how_much(quantize_file: Any, tmp_path: Path) -> None:
    result = quantize_file(-1)
    assert result.exit_code == 1
    assert "size: fell by" in result.stderr
    assert Repository(tmp_path / "repository").serves("digits")


def test_score_of_every_sample_is_a_mean_with_an_interval_and_what_was_lost_has_one(
    quantize_file: Any, tmp_path: Path
) -> None:
    result = quantize_file(0.05, by_sample=True)
    assert result.exit_code == 0, repr(result.exception) + result.output
    card = Repository(tmp_path / "repository").card("digits")
    assert card is not None
    assert card.quantization is not None
    for measure in (card.quantization.fp32, card.quantization.int8):
        low, high = measure.intervals["size"]
        assert low <= measure.scores["size"] <= high
        assert low < high
    assert set(card.quantization.falls) == {"cosine", "size"}
    assert f"{card.quantization.fp32.scores['size']:.4f} [" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("score", "got"), [("good", "'good'"), ([], "[]"), ([1.0, float("nan")], "nan for sample 1 of 2"), (None, "nan")]
)
def test_score_that_is_none_is_an_error_that_names_it(tmp_path: Path, score: Any, got: str) -> None:
    said = definition(evaluate=lambda predict: {"recall": score})
    with pytest.raises(DefinitionError, match=re.escape("digits: evaluate: 'recall': expected a number")) as raised:
        said.evaluated(lambda feed: feed)
    assert got in str(raised.value) or score is None


def test_exception_in_a_definitions_function_names_file_line_and_reason(quantize_file: Any) -> None:
    result = quantize_file(0.05, raising=True)
    assert result.exit_code == 1
    assert "mine.py, line 12: KeyError: 'z'" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_search_of_a_file_tries_its_recipe_and_the_usual_ones(quantize_file: Any) -> None:
    result = quantize_file(0.05, "--search")
    assert result.exit_code == 0, repr(result.exception) + result.output
    for name in ("the definition's", "static", "static, entropy"):
        assert name in result.stderr


def test_definition_without_calibration_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NoTaskError, match="digits: calibration: expected inputs to take the ranges"):
        DefinedTask(definition(calibration=None), tmp_path)


def test_recipe_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"(?s)digits: recipe: .*nonsense.*static.*, got {'method'"):
        _ = DefinedTask(definition(recipe={"method": "nonsense"}), tmp_path).recipe


def test_gate_on_a_score_that_is_not_evaluated_is_an_error(build: Path) -> None:
    built = built_folder(build, "digits")
    task = DefinedTask(definition(gates=(Gate("recall", at_least=1),)), built)
    with pytest.raises(DefinitionError, match="gates: expected one of the scores largest, cosine; got 'recall'"):
        task.figures(open_session(built / "fp32.onnx"))


def test_without_gates_the_first_output_must_stay_close(tmp_path: Path) -> None:
    (limit,) = DefinedTask(definition(gates=()), tmp_path).limits
    assert limit.score == "cosine"


def test_both_bounds_of_a_gate_count(tmp_path: Path) -> None:
    assert len(DefinedTask(definition(), tmp_path).limits) == 2


def test_rows_of_every_feed_with_several_are_compared_alone_and_together(build: Path) -> None:
    found = list(DefinedTask(definition(), built_folder(build, "digits")).batch_compositions(build))
    for alone, together in found:
        assert np.array_equal(np.concatenate([feed["x"] for feed in alone]), together["x"])
    # Of samples and calibration, which are the same here; and the row that comes alone in each.
    assert [len(alone) for alone, _ in found] == [6, 6, 2]


def test_rows_that_all_come_alone_are_company_for_each_other(build: Path) -> None:
    said = definition(samples=lambda: [{"x": rows(1, 1)}], calibration=lambda: [{"x": rows(1, n)} for n in range(99)])
    ((alone, together),) = DefinedTask(said, built_folder(build, "digits")).batch_compositions(build)
    assert (len(alone), together["x"].shape) == (16, (16, FEATURES))


def test_rows_without_any_company_are_an_error_that_says_what_is_missing(build: Path) -> None:
    said = definition(
        inputs=(Tensor("x", "FP32", ("batch", "length")),),
        samples=lambda: [{"x": rows(1, 1)}],
        calibration=lambda: [{"x": rows(1, 1)[:, :7]}],
    )
    with pytest.raises(DefinitionError, match="digits: samples: expected two rows or more of one shape"):
        list(DefinedTask(said, built_folder(build, "digits")).batch_compositions(build))


def test_single_number_is_judged_by_what_it_varies_by_and_not_by_a_cosine(tmp_path: Path) -> None:
    said = {"outputs": (Tensor("y", "FP32", ("batch", 1)),)}
    with pytest.raises(
        DefinitionError,
        match=r"digits: gates: expected one on a score of `evaluate`, got none. A cosine .* of single numbers.*'y'",
    ):
        DefinedTask(definition(gates=(Gate("cosine", at_least=0.99),), **said), tmp_path)
    alone = DefinedTask(definition(gates=(), **said), tmp_path)
    assert (alone.limits, alone.error_most) == ([], 0.25)
    task, answers = DefinedTask(definition(**said), tmp_path), np.ones((4, 1), np.float32)
    assert task.outcomes(answers, answers, tmp_path, "judge") == {}
    assert task.error_most == 0.5


def test_all_outputs_are_compared_alone_and_in_a_batch(tmp_path: Path) -> None:
    model = tiny_graph()
    model.graph.output.append(onnx.helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 4]))
    onnx.save(model, tmp_path / "two.onnx")
    task, feed = DefinedTask(definition(), tmp_path), {"x": rows(2, 1)}
    relu, product = task.compared(open_session(tmp_path / "two.onnx"), feed)
    assert np.array_equal(relu, np.maximum(product, 0))


def test_latency_is_measured_on_no_more_rows_than_are_served(build: Path) -> None:
    feeds = DefinedTask(definition(), build).latency_feeds(build)
    assert {shape: len(feed["x"]) for shape, feed in feeds.items()} == {"1": 1, "8": 8}


@pytest.mark.parametrize(("operator", "recipe"), [("MatMul", PerToken()), ("Gemm", Static())])
def test_recipe_is_chosen_by_what_the_graph_is_made_of(operator: str, recipe: Any) -> None:
    model = tiny_graph()
    model.graph.node[0].op_type = operator
    assert default_recipe(model) == recipe


@pytest.mark.parametrize("recipe", [PerToken(smooth=0.5), Dynamic(), Static(), Static(operators=("MatMul", "Gather"))])
def test_symmetric_form_has_s8_without_zero_points(build: Path, tmp_path: Path, recipe: Any) -> None:
    fp32, int8 = built_folder(build, "digits") / "fp32.onnx", tmp_path / "int8.onnx"
    form = symmetric_form(recipe, tiny_graph().graph)
    assert "symmetric s8 activations" in form.summary
    quantize_graph(form, samples, fp32, int8)
    model = onnx.load(int8)
    constants = {one.name: one for one in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not onnx.numpy_helper.to_array(zero).any()
    feed = next(samples())
    assert np.abs(open_session(int8).run(feed) - open_session(fp32).run(feed)).max() < 0.02


def test_symmetric_form_leaves_in_fp32_what_would_get_a_scale_a_token() -> None:
    model = tiny_graph()
    weights = np.ones((4, 2), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "v"))
    model.graph.node.append(onnx.helper.make_node("MatMul", ["y", "v"], ["z"], "behind"))
    assert [layer.producer for layer in layers(model.graph)] == ["", "Relu"]
    assert symmetric_form(PerToken(exclude=("product",)), model.graph).exclude == ("product", "after:Relu")


def test_export_for_tensorrt_is_quantized_symmetrically(quantize_file: Any, build: Path, tmp_path: Path) -> None:
    built = built_folder(build, "digits")
    read_card(built).model_copy(update={"target": "tensorrt"}).write(built)
    result = quantize_file(0.05)
    assert result.exit_code == 0, repr(result.exception) + result.output
    card = Repository(tmp_path / "repository").card("digits")
    assert card is not None
    assert card.quantization is not None
    assert card.quantization.recipe.startswith("static QDQ, symmetric s8 activations")


def test_export_of_other_weights_than_the_module_has_now_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    template = Path(load_definition.__code__.co_filename).parent / "template_model.py"
    file.write_text(template.read_text())
    export_model(load_definition(str(file)), built_folder(tmp_path, "template_model"))
    load_task(str(file), tmp_path)
    file.write_text(template.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    told = r"template_model: fp32.onnx differs from PyTorch on features.*export it again where the model has changed"
    with pytest.raises(ParityError, match=told):
        load_task(str(file), tmp_path)


def test_template_can_be_quantized(tmp_path: Path) -> None:
    template = Path(load_definition.__code__.co_filename).parent / "template_model.py"
    DefinedTask(load_definition(str(template)), tmp_path)


def test_calibration_without_an_input_or_with_what_is_no_number_is_named(build: Path) -> None:
    nan = {"x": np.full((2, FEATURES), np.nan, np.float32)}
    for feeds, message in (
        ([], "digits: calibration: expected a feed or more"),
        ([*samples(), nan], "digits: calibration 2: input 'x': expected numbers, got NaN"),
    ):
        task = DefinedTask(definition(calibration=lambda feeds=feeds: feeds), built_folder(build, "digits"))
        with pytest.raises(DefinitionError, match=message):
            list(task.calibration(build))


def test_samples_that_are_read_only_once_are_named(build: Path) -> None:
    once = samples()
    task = DefinedTask(definition(samples=lambda: once), built_folder(build, "digits"))
    list(once)
    with pytest.raises(DefinitionError, match="digits: samples: expected a feed or more each time it is called"):
        task.latency_feeds(build)


def test_scores_that_change_from_call_to_call_are_named_and_nothing_is_published(
    quantize_file: Any, tmp_path: Path
) -> None:
    result = quantize_file(0.05, changing=True)
    assert result.exit_code == 1
    told = "mine.py: digits: 'calls': expected the same samples of FP32 and of INT8, got 1 samples and 2 samples"
    assert told in " ".join(result.stderr.split())
    assert not Repository(tmp_path / "repository").serves("digits")


def test_score_by_the_name_of_one_that_is_measured_anyway_is_refused_before_anything_is_quantized(
    quantize_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize.judging.verdict, "quantize_graph", None)
    monkeypatch.setattr(
        sys.modules[__name__], "FILE", FILE.replace('"size": float', '"batch_cosine_min": 1.0, "size": float')
    )
    result = quantize_file(0.05)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    told = "mine.py: digits: evaluate: expected other names than batch_cosine_min, cosine, kl, perplexity, which `fairl"
    assert told in line
    assert line.endswith("got 'batch_cosine_min'")
    assert not Repository(tmp_path / "repository").serves("digits")


def test_export_of_a_definition_that_has_changed_since_is_named_before_anything_is_quantized(
    quantize_file: Any, build: Path, tmp_path: Path
) -> None:
    path = built_folder(build, "digits") / "fp32.onnx"
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, path)
    result = quantize_file(0.05)
    assert result.exit_code == 1
    told = "'y': the definition says FP32 ['batch', 4], the graph has FP32 ['batch', 5]; export it again"
    assert told in " ".join(result.stderr.split())
    assert not Repository(tmp_path / "repository").serves("digits")
