from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.catalog.catalog import DefinitionFileError, load_definition
from export.catalog.template import TEMPLATE
from export.definition import Definition, Gate, Serving, Tensor
from export.errors import DefinitionError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "my model"}, "name: expected letters, digits, '_', '-' and '.', got 'my model'"),
        ({"module": None}, "expected either module or onnx_file, got neither"),
        ({"onnx_file": Path("m.onnx")}, "expected either module or onnx_file, got both"),
        ({"outputs": (Tensor("x", "FP32", (1,)),)}, r"each name once, got \['x', 'x'\]"),
        ({"outputs": (Tensor("loss", "FP32", ()),)}, r"\['loss'\]: dims: expected at least one axis, got none"),
        ({"outputs": ()}, r"expected inputs and outputs, each name once, got \['x'\]"),
        ({"serving": Serving(labels={"z": ("a",)})}, r"serving.labels: \['z'\] are no outputs"),
        ({"serving": Serving(labels={"y": ("a", "b")})}, "labels: 'y': expected one for each of its 3 classes, got 2"),
        ({"serving": Serving(labels={"y": ("a", "b", "c\nd")})}, "labels: 'y': expected one line each"),
        ({"outputs": (Tensor("y", "FP32", (3,)),)}, r"the first axis of every input and output .* for \['y'\]"),
        ({"outputs": (Tensor("y", "FP32", ("n", 3)),)}, r"the first axis of every input and output .* for \['y'\]"),
        ({"inputs": (Tensor("x", "STRING", ("batch", 3)),)}, r"\['x'\]: datatype: expected one that PyTorch has"),
        ({"summary": "one\ntwo"}, "summary: expected one line, got"),
        ({"serving": Serving(warm_up={"seq": 3})}, r"warm_up: \['seq'\] are no axes; expected some of \['batch'\]"),
    ],
)
def test_contradiction_is_named(tiny: Definition, change: dict[str, object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        replace(tiny, **change)  # type: ignore[arg-type]


def test_tensor_of_a_type_or_shape_that_cannot_be_served_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"x: datatype: expected one of BOOL, .*; got 'float32'"):
        Tensor("x", "float32", (1,))
    with pytest.raises(DefinitionError, match=r"x: dims: expected positive numbers and axis names, got \(-1,\)"):
        Tensor("x", "FP32", (-1,))
    with pytest.raises(DefinitionError, match=r"serving.instances: expected 1 or more, got 0"):
        Serving(instances=0)
    with pytest.raises(DefinitionError, match="gate 'accuracy': expected at_least or may_fall, got neither"):
        Gate("accuracy")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"at_least": float("nan")}, "at_least: expected a number, got nan"),
        ({"at_least": float("inf")}, "at_least: expected a number, got inf"),
        ({"may_fall": float("nan")}, "may_fall: expected a number, got nan"),
    ],
)
def test_gate_that_is_always_shut_is_refused(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(DefinitionError, match=f"gate 'accuracy': {message}"):
        Gate("accuracy", **bounds)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({1: 0.5}, "evaluate: expected scores by name, got 1 for a name"),
        ({"cosine": 0.5}, "evaluate: expected other names than batch_cosine_min, cosine, .* got 'cosine'"),
        ({"batch_cosine_min": [0.5]}, "evaluate: expected other names than .* got 'batch_cosine_min'"),
        (
            {"log_likelihood": [-1.0], "perplexity": 2.7},
            "evaluate: expected other names than batch_cosine_min, cosine, kl, perplexity, which .* got 'perplexity'",
        ),
        (
            {"perplexity": 2.7},
            "evaluate: .* of which more is better .of a perplexity its log_likelihood.* got 'perplex",
        ),
        ({"kl": [0.1, 0.2]}, "evaluate: .* else a negative by another name.; got 'kl'"),
    ],
)
def test_name_of_a_score_is_a_name_and_of_no_other_score(
    tiny: Definition, scores: dict[str, float], message: str
) -> None:
    with pytest.raises(DefinitionError, match=f"digits: {message}"):
        replace(tiny, evaluate=lambda _: scores).evaluated(lambda feed: feed)


@pytest.mark.parametrize("score", [0.9, np.arange(100) < 90, [0.9] * 7])
def test_score_is_reckoned_with_as_exactly_as_it_was_given(tiny: Definition, score: Any) -> None:
    (found,) = replace(tiny, evaluate=lambda _: {"accuracy": score}).evaluated(lambda feed: feed).values()
    assert float(np.mean(found)) >= 0.9


def test_feeds_are_read_anew_each_time(tiny: Definition) -> None:
    once = iter([{"x": np.zeros((2, 3), np.float32)}])
    assert len(list(tiny.checked("samples", once))) == 1
    with pytest.raises(DefinitionError, match=r"digits: samples: expected a feed or more each time .* got none"):
        list(tiny.checked("samples", once))


def test_feed_is_held_to_names_types_and_sizes(tiny: Definition) -> None:
    pair = replace(tiny, inputs=(Tensor("a", "INT64", ("batch", "n")), Tensor("b", "INT64", ("batch", "n"))))
    good = np.zeros((2, 3), np.int64)
    pair.check_feed({"a": good, "b": good}, "sample")
    for feed, message in (
        ({"a": good}, r"sample: expected inputs \['a', 'b'\], got \['a'\]"),
        ({"a": good, "b": good[:1]}, r"input 'b': expected shape \[batch, n\] with {'batch': 2, 'n': 3}, got \[1, 3\]"),
        ({"a": good, "b": good[0]}, r"input 'b': expected shape \[batch, n\] .*, got \[3\]"),
        ({"a": good, "b": [[1]]}, "input 'b': expected INT64, got list"),
        ({"a": good[:0], "b": good[:0]}, "sample: batch: expected a row or more, got none"),
    ):
        with pytest.raises(DefinitionError, match=message):
            pair.check_feed(feed, "sample")  # type: ignore[arg-type]


def test_batch_axis_everywhere_makes_a_model_that_batches(tiny: Definition) -> None:
    assert tiny.max_batch_size == 32
    rows = {"inputs": (Tensor("x", "FP32", ("rows", 3)),), "outputs": (Tensor("y", "FP32", (3,)),)}
    assert replace(tiny, **rows).max_batch_size == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1 +", r"m.py, line 1: SyntaxError: invalid syntax"),
        ("\n\nimport nothing_of_this_name", r"m.py, line 3: ModuleNotFoundError: No module named"),
        ("x = 1", r"m.py: DEFINITION: expected an export.definition.Definition, got no such name"),
        ("DEFINITION = 3", r"m.py: DEFINITION: expected an export.definition.Definition, got int"),
        ("from export.definition import Tensor\n\nTensor('x', 'FP99', (1,))", r"m.py, line 3: .*got 'FP99'"),
    ],
)
def test_file_that_defines_nothing_is_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.py").write_text(text)
    with pytest.raises(DefinitionFileError, match=message):
        load_definition(str(tmp_path / "m.py"))


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionFileError, match=r"absent.py: expected a Python file .*, got no such file"):
        load_definition(str(tmp_path / "absent.py"))
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(DefinitionFileError, match=r"expected a Python or an ONNX file, got a file named '.bin'"):
        load_definition(str(tmp_path / "model.bin"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '("batch", FEATURES)',
            '("batch", "batch")',
            r"dims: expected 'batch' as a first axis alone, got it behind the",
        ),
        ('("batch", CLASSES)', '("batch", 4)', "labels: 'logits': expected one for each of its 4 classes, got 3"),
        ('("batch", FEATURES)', "3", r", line \d+: Tensor: .*valid tuple, got 3"),
        ("(Gate(", "(lambda gate: gate)(Gate(", r", line \d+: Definition: gates: input should be a valid tuple, got"),
        ('Gate("agreement"', 'Gate("batch_cosine_min"', r"wrong.py, line \d+: .*gates: expected other scores than"),
        ("tolerance=", "tolerence=", r", line \d+: Definition: tolerence: unexpected keyword argument, got 1e-05"),
        ("instances=1", "instances=1.5", r", line \d+: Serving: instances: .*valid integer.*, got 1.5"),
        ("samples=samples", "samples=[]", r", line \d+: Definition: samples: input should be callable, got \[\]"),
        ("DEFINITION = ", "raise SystemExit(0)\nDEFINITION = ", r", line \d+: SystemExit: 0"),
    ],
)
def test_field_of_another_type_is_named_with_file_line_and_what_came(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "wrong.py"
    text = TEMPLATE.read_text()
    assert old in text
    file.write_text(text.replace(old, new).replace("=0.97),)", "=0.97))" if "lambda" in new else "=0.97),)"))
    with pytest.raises(DefinitionFileError, match=message) as refused:
        load_definition(str(file))
    assert str(refused.value).startswith(str(file))
