from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.card import ModelCard, Parity, Source
from export.checksum import sha256_of
from export.definition import Feed, FloatArray
from export.graph import IR_VERSION, OPSET, write_graph
from export.session import Session
from quantize.gate import AtLeast, Limit
from quantize.recipe import Scores

FEATURES = 16


class TinyRecipe:
    """Quantizes a single matrix product, and asks for what it is told to ask for."""

    summary = "tiny"

    def __init__(self, at_least: float) -> None:
        self.limits: Sequence[Limit] = (AtLeast("closeness", at_least),)

    def nodes(self, graph: onnx.GraphProto) -> Sequence[str]:
        return [node.name for node in graph.node if node.op_type == "MatMul"]

    def calibration(self, built: Path) -> Iterator[Feed]:
        del built
        for seed in range(4):
            yield {"x": rows(8, seed)}

    def scores(self, fp32: Session, int8: Session, built: Path) -> tuple[Scores, Scores]:
        del built
        feed = {"x": rows(8, 9)}
        return {"closeness": 1.0}, {"closeness": 1 - float(np.abs(fp32.run(feed) - int8.run(feed)).max())}

    def latency_feed(self, rows_: int, built: Path) -> Feed:
        del built
        return {"x": rows(rows_, 0)}


def rows(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, FEATURES)).astype(np.float32)


def tiny_graph() -> onnx.ModelProto:
    """y = relu(x @ w), with a batch that varies."""
    weights = np.random.default_rng(1).uniform(-0.1, 0.1, (FEATURES, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], "product"), helper.make_node("Relu", ["h"], ["y"], "relu")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


@pytest.fixture
def lenient() -> TinyRecipe:
    return TinyRecipe(at_least=0.9)


@pytest.fixture
def strict() -> TinyRecipe:
    return TinyRecipe(at_least=1.5)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build folder with the export of a tiny model, under the name of one that the catalog knows."""
    folder = tmp_path / "build" / "models" / "digits"
    folder.mkdir(parents=True)
    write_graph(tiny_graph(), folder / "fp32.onnx")
    (folder / "asset.txt").write_text("asset")
    ModelCard(
        name="digits",
        source=Source(package="p", version="1", file="f", sha256="0" * 64, licence="none"),
        opset=OPSET,
        tools={},
        fp32_sha256=sha256_of(folder / "fp32.onnx"),
        parity=Parity(max_abs_diff=0.0, tolerance=1.0, shapes=("x[1,16]",)),
    ).write(folder)
    return tmp_path / "build"
