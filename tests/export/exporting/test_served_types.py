"""ONNX files with text, integers and fixed axes: exported, loaded in a real tritonserver, answered alike."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from export.cli import export
from export.graph import graph_file
from export.graph.onnx_graph import IR_VERSION, OPSET
from export.inference.session import open_session
from export.repository.server_load import load_on_server
from tests.export.exporting.classifiers import number, zip_map

Declared = tuple[str, int, Sequence[str | int]]


def write(path: Path, node: onnx.NodeProto, given: Declared, answer: Declared, constants: Sequence[Any] = ()) -> None:
    ends = [[helper.make_tensor_value_info(*one)] for one in (given, answer)]
    graph = helper.make_graph([node], path.stem, *ends, list(constants))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION), path)


def words(path: Path) -> tuple[Any, Any]:
    write(
        path,
        helper.make_node("Identity", ["in"], ["out"]),
        ("in", TensorProto.STRING, ["n", 2]),
        ("out", TensorProto.STRING, ["n", 2]),
    )
    text = np.array([["Größe".encode(), b""], [b"a b", b"c"]], np.object_)
    return text, text


def numbers(path: Path) -> tuple[Any, Any]:
    table = helper.make_tensor("table", TensorProto.FLOAT, [10, 2], [float(number) for number in range(20)])
    write(
        path,
        helper.make_node("Gather", ["table", "in"], ["out"]),
        ("in", TensorProto.INT32, ["rows", "length"]),
        ("out", TensorProto.FLOAT, ["rows", "length", 2]),
        [table],
    )
    ids = np.array([[3, 9, 0]], np.int32)
    return ids, np.array([[[6, 7], [18, 19], [0, 1]]], np.float32)


def fixed(path: Path) -> tuple[Any, Any]:
    write(
        path,
        helper.make_node("Relu", ["in"], ["out"]),
        ("in", TensorProto.FLOAT, [1, 3, 4]),
        ("out", TensorProto.FLOAT, [1, 3, 4]),
    )
    value = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    return value, np.maximum(value, 0)


@pytest.mark.parametrize("make", [words, numbers, fixed])
def test_onnx_file_of_any_type_is_exported_and_answers_in_triton(make: Any, quiet_server: Any, tmp_path: Path) -> None:
    # No other test has it: a server keeps the models that it was given.
    name = f"all_{make.__name__}"
    source = tmp_path / f"{name}.onnx"
    given, expected = make(source)
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(quiet_server.folder)]
    done = CliRunner().invoke(export, [str(source), *places])
    assert done.exit_code == 0, done.output
    assert "PyTorch" not in done.output
    load_on_server(quiet_server.address, name, 1)
    datatype = {"int32": "INT32", "float32": "FP32", "object": "BYTES"}[given.dtype.name]
    feed = grpcclient.InferInput("in", given.shape, datatype)
    feed.set_data_from_numpy(given)
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        np.testing.assert_array_equal(client.infer(name, [feed]).as_numpy("out"), expected)


def served(source: Path, quiet_server: Any, tmp_path: Path) -> str:
    """Export a file to a server's repository and have it loaded. Returns the model's name."""
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(quiet_server.folder)]
    done = CliRunner().invoke(export, [str(source), *places])
    assert done.exit_code == 0, done.output
    load_on_server(quiet_server.address, source.stem, 1)
    return source.stem


def floats(name: str, value: Any) -> Any:
    made = grpcclient.InferInput(name, value.shape, "FP32")
    return made.set_data_from_numpy(value)


def test_rows_that_belong_together_are_answered_together_whoever_asks_beside(quiet_server: Any, tmp_path: Path) -> None:
    source = tmp_path / "all_cloud.onnx"
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[points,3] x) => (float[points,3] y) {
        m = ReduceMean<axes=[0], keepdims=1>(x)  y = Sub(x, m) }"""
    onnx.save(onnx.parser.parse_model(text), source)
    name = served(source, quiet_server, tmp_path)
    chance = np.random.default_rng(0)
    clouds = [chance.normal(number, 1, (10, 3)).astype(np.float32) for number in range(8)]

    def ask(cloud: Any) -> list[Any]:
        with grpcclient.InferenceServerClient(quiet_server.address) as client:
            return [client.infer(name, [floats("x", cloud)]).as_numpy("y") for _ in range(10)]

    with ThreadPoolExecutor(len(clouds)) as threads:
        for cloud, answers in zip(clouds, threads.map(ask, clouds), strict=True):
            for answer in answers:
                np.testing.assert_allclose(answer, cloud - cloud.mean(axis=0), atol=1e-5)


def test_classifier_with_a_zip_map_answers_with_probabilities_and_class_names(
    quiet_server: Any, tmp_path: Path
) -> None:
    source, classes = tmp_path / "all_iris.onnx", ["setosa", "versicolor", "virginica"]
    zip_map(source, classes)
    name = served(source, quiet_server, tmp_path)
    x = np.random.default_rng(0).normal(0, 1, (5, 2)).astype(np.float32)
    maps = open_session(source).predict({"X": x})["output_probability"]
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        answer = client.infer(name, [floats("X", x)])
        wanted = [grpcclient.InferRequestedOutput("output_probability", class_count=1)]
        best = client.infer(name, [floats("X", x)], outputs=wanted).as_numpy("output_probability")
    np.testing.assert_allclose(answer.as_numpy("output_probability"), [[one[key] for key in classes] for one in maps])
    told = [label.decode() for label in answer.as_numpy("output_label")[:, 0]]
    assert told == [max(one, key=one.get) for one in maps]
    assert [label.decode().split(":")[2] for label in best[:, 0]] == told


def test_graph_with_its_weights_beside_it_is_served(
    quiet_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_file, "GRAPH_BYTES", 10_000)
    source, weights = tmp_path / "all_large.onnx", np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32)
    write(
        source,
        helper.make_node("MatMul", ["in", "w"], ["out"]),
        ("in", TensorProto.FLOAT, ["n", 64]),
        ("out", TensorProto.FLOAT, ["n", 64]),
        [numpy_helper.from_array(weights, "w")],
    )
    name = served(source, quiet_server, tmp_path)
    assert (quiet_server.folder / name / "1" / "weights.bin").stat().st_size == weights.nbytes
    x = np.ones((2, 64), np.float32)
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        np.testing.assert_allclose(client.infer(name, [floats("in", x)]).as_numpy("out"), x @ weights, rtol=1e-4)


def test_numbers_without_an_axis_go_in_and_come_out_as_one(quiet_server: Any, tmp_path: Path) -> None:
    source = tmp_path / "all_number.onnx"
    number(source)
    name = served(source, quiet_server, tmp_path)
    x = np.array([1, 2, 3, 6], np.float32)
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        answer = client.infer(name, [floats("x", x), floats("least", np.array([1], np.float32))])
    np.testing.assert_array_equal(answer.as_numpy("mean"), [4])
    np.testing.assert_array_equal(answer.as_numpy("y"), x + 4)


@pytest.mark.parametrize(
    ("kind", "sizes", "reason"),
    [
        (TensorProto.BFLOAT16, ["n"], r"odd\.onnx: 'in': expected .*; got BFLOAT16"),
    ],
)
def test_tensor_that_triton_cannot_serve_is_refused_naming_file_and_reason(
    tmp_path: Path, kind: int, sizes: list[str], reason: str
) -> None:
    source = tmp_path / "odd.onnx"
    write(source, helper.make_node("Identity", ["in"], ["out"]), ("in", kind, sizes), ("out", kind, sizes))
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    done = CliRunner().invoke(export, [str(source), *places])
    assert done.exit_code == 1
    assert re.search(reason, done.output), done.output
    assert not (tmp_path / "repository").exists()
