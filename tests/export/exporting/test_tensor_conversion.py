"""Ends that Triton has not: scikit-learn's ZipMap, numbers without an axis, sequences. As skl2onnx writes them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from export.card import Source, read_card
from export.cli import export as command
from export.configuration.model_config import read_config
from export.definition import Definition, Tensor
from export.errors import DefinitionError
from export.exporting.exporter import export_model
from export.inference.session import open_session
from tests.export.exporting.classifiers import number, zip_map


def run(tmp_path: Path, path: Path) -> Result:
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    return CliRunner().invoke(command, [*places, str(path)])


KINDS: dict[str, dict[str, Any]] = {
    "int64s": {"classes": [0, 1, 2]},
    "strings": {"classes": ["setosa", "versicolor", "virginica"]},
    "trees": {"classes": [3, 5, 8], "trees": True},
    "trees with strings": {"classes": ["a", "b", "c"], "trees": True},
    "normalized": {"classes": ["a", "b", "c"], "normalizer": True},
    "two classes": {"classes": ["no", "yes"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_zip_map_is_dropped_and_its_probabilities_are_a_tensor_with_labels(tmp_path: Path, kind: str) -> None:
    path, classes = tmp_path / "iris.onnx", KINDS[kind]["classes"]
    zip_map(path, **KINDS[kind])
    done = run(tmp_path, path)
    assert done.exit_code == 0, done.output
    columns = ", ".join(map(str, classes))
    assert f"FP32 [rows, {len(classes)}], a column for each class: {columns}" in done.stderr
    model = tmp_path / "repository" / "iris"
    card = read_card(model / "1")
    assert card.batch is not None
    assert card.batch.proved, card.batch.reason
    config = read_config(model / "config.pbtxt")
    assert [(slot.name, list(slot.dims)) for slot in config.output] == [
        ("output_label", [1]),
        ("output_probability", [len(classes)]),
    ]
    labels = model / config.output[1].label_filename
    assert labels.read_text().split() == list(map(str, classes))
    feed = {"X": np.random.default_rng(0).normal(0, 1, (7, 2)).astype(np.float32)}
    maps = open_session(path).predict(feed)["output_probability"]
    got = open_session(model / "1" / "model.onnx").predict(feed)
    np.testing.assert_array_equal(got["output_probability"], [[one[key] for key in classes] for one in maps])


def test_numbers_without_an_axis_are_tensors_of_one(tmp_path: Path) -> None:
    path = tmp_path / "number.onnx"
    number(path)
    done = run(tmp_path, path)
    assert done.exit_code == 0, done.output
    for end in ("input 'least'", "output 'mean'"):
        assert f"number: {end} was a single number without an axis, which Triton has not: it is [1]" in done.stderr
    config = read_config(tmp_path / "repository" / "number" / "config.pbtxt")
    assert [list(slot.dims) for slot in (*config.input, *config.output)] == [[4], [1], [1], [4]]
    session = open_session(tmp_path / "repository" / "number" / "1" / "model.onnx")
    x = np.array([1, 2, 3, 6], np.float32)
    for least, mean in ((1, 4), (5, 3)):
        got = session.predict({"x": x, "least": np.array([least], np.float32)})
        np.testing.assert_array_equal(got["mean"], [mean])
        np.testing.assert_array_equal(got["y"], x + mean)


def test_output_that_is_a_constant_number_is_a_tensor_of_one(tmp_path: Path) -> None:
    path = tmp_path / "version.onnx"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [2]), ("y", [2]))]
    version = numpy_helper.from_array(np.array(7, np.int64), "version")
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "g",
        ends[:1],
        [*ends[1:], helper.make_tensor_value_info("version", TensorProto.INT64, [])],
        [version],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    done = run(tmp_path, path)
    assert done.exit_code == 0, done.output
    session = open_session(tmp_path / "repository" / "version" / "1" / "model.onnx")
    assert session.predict({"x": np.ones(2, np.float32)})["version"].tolist() == [7]


HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
# Ends that nothing can be done about, and what is said of them.
WALLS = {
    "a sequence": (
        "g (float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x) }",
        "'y': .* got a sequence: change",
    ),
    "a sequence that goes in": (
        "g (seq(float[n]) x) => (float[m] y) { y = ConcatFromSequence<axis=0>(x) }",
        "'x': .* got a sequence: change",
    ),
    "an optional": ("g (optional(float[n]) x) => (float[n] y) { y = OptionalGetElement(x) }", "'x': .* got optional"),
    "no input": ("g () => (float[2] y) { y = Constant<value_floats=[1.0, 2.0]>() }", "the graph has no input"),
    "an output twice": ("g (float[n] x) => (float[n] y, float[n] y) { y = Neg(x) }", "each name once"),
    "an input that is an output": ("g (float[n] x) => (float[n] x) { y = Neg(x) }", "each name once"),
    "operators of somebody's own": ("g (float[n] x) => (float[n] y) { y = my.own.Op(x) }", "my.own"),
}


@pytest.mark.parametrize("kind", WALLS)
def test_end_that_triton_has_not_is_one_line_that_says_what_to_do(tmp_path: Path, kind: str) -> None:
    text, reason = WALLS[kind]
    head = HEAD.replace("]>", ', "my.own" : 1]>')
    onnx.save(onnx.parser.parse_model(f"{head} {text}"), tmp_path / "wall.onnx")
    done = run(tmp_path, tmp_path / "wall.onnx")
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert "wall.onnx" in line

    assert re.search(reason, line), line
    assert not (tmp_path / "repository").exists()


def test_constants_that_an_old_graph_lists_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    listed = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [ends[0], listed], ends[1:], [weight])
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3), path)
    done = run(tmp_path, path)
    assert done.exit_code == 0, done.output
    config = read_config(tmp_path / "repository" / "old" / "config.pbtxt")
    assert ([slot.name for slot in config.input], config.max_batch_size) == (["x"], 32)


def test_definition_of_such_a_file_declares_its_ends_as_they_are_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "number.onnx"
    number(path)
    definition = Definition(
        name="number",
        inputs=(Tensor("x", "FP32", (4,)), Tensor("least", "FP32", (1,))),
        outputs=(Tensor("mean", "FP32", (1,)), Tensor("y", "FP32", (4,))),
        source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        samples=lambda: [{"x": np.ones(4, np.float32), "least": np.zeros(1, np.float32)}],
        onnx_file=path,
    )
    card = export_model(definition, tmp_path / "built")
    assert [note.split(" was ")[0] for note in card.notes] == ["input 'least'", "output 'mean'"]
    with pytest.raises(
        DefinitionError, match=r"\['least'\]: dims: .* Triton serves no scalars: declare \(1,\), and have"
    ):
        replace(definition, inputs=(definition.inputs[0], Tensor("least", "FP32", ())))
