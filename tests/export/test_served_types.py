"""ONNX files with text, integers and fixed axes: exported, loaded in a real tritonserver, answered alike."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner
from onnx import TensorProto, helper

from export.cli import export
from export.graph import IR_VERSION, OPSET
from export.server import load_on_server

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


@pytest.mark.parametrize(
    ("kind", "sizes", "reason"),
    [
        (TensorProto.BFLOAT16, ["n"], r"odd\.onnx: 'in': expected .*; got BFLOAT16"),
        (TensorProto.FLOAT, [], r"odd\.onnx: .*'in'.*: expected at least one axis"),
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
