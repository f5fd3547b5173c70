from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.batch_proof.batch_composition import BatchComposition
from export.card import ModelCard, Parity, Source
from export.checksum import sha256_of
from export.definition import Feed
from export.definition.tensor import FloatArray
from export.graph.onnx_graph import IR_VERSION, OPSET, write_graph
from quantize.accuracy.accuracy_gate import AtLeast, Limit
from quantize.accuracy.fidelity import ERROR_MOST
from quantize.recipe import PerToken, Recipe, Static
from quantize.tasks.task import Outcomes, Peer, Runner, Split

FEATURES = 16


class TinyTask:
    """Quantizes a single matrix product, and asks for what it is told to ask for."""

    recipe: Recipe = Static(operators=("MatMul",))
    error_most = ERROR_MOST
    candidates: Mapping[str, Recipe] = {"static": Static(operators=("MatMul",)), "per-token": PerToken()}

    def __init__(self, at_least: float) -> None:
        self.limits: Sequence[Limit] = (AtLeast("closeness", at_least),)

    def calibration(self, built: Path) -> Iterator[Feed]:
        del built
        for seed in range(4):
            yield {"x": rows(8, seed)}

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        del built
        return model.run({"x": rows(40, 9 if split == "judge" else 10)})

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        del built, split
        return {"closeness": 1 - np.abs(fp32 - answers).max(axis=1)}

    def figures(self, model: Runner) -> Mapping[str, float]:
        del model
        return {}

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        del built
        together = rows(8, 11)
        yield [{"x": together[row : row + 1]} for row in range(8)], {"x": together}

    def feeds(self, built: Path) -> Iterator[Feed]:
        del built
        yield {"x": rows(40, 9)}

    def compared(self, model: Runner, feed: Feed) -> Sequence[FloatArray]:
        return [model.run(feed)]

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        del built
        return {str(count): {"x": rows(count, 0)} for count in (1, 8)}

    def peers(self) -> Mapping[str, Peer]:
        return {}


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


def two_layers(width: int = 4) -> onnx.ModelProto:
    """y = relu(x @ w) @ v, of which one layer can be left in FP32; `width` numbers lie between them."""
    model = tiny_graph()
    weights = np.random.default_rng(1).uniform(-0.1, 0.1, (FEATURES, width)).astype(np.float32)
    model.graph.node[1].output[0] = "r"
    model.graph.node.append(helper.make_node("MatMul", ["r", "v"], ["y"], "last"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(width, 4, dtype=np.float32), "v"))
    return model


CONFIG = f"""
name: "digits" backend: "onnxruntime" max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [{FEATURES}] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [4] }}
"""


@pytest.fixture
def lenient() -> TinyTask:
    return TinyTask(at_least=0.9)


@pytest.fixture
def strict() -> TinyTask:
    return TinyTask(at_least=1.5)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build folder with the export of a tiny model, under the name of one that the catalog knows."""
    folder = tmp_path / "build" / "models" / "digits"
    folder.mkdir(parents=True)
    # Wide enough for INT8 to be smaller.
    write_graph(two_layers(256), folder / "fp32.onnx")
    (folder / "asset.txt").write_text("asset")
    (folder / "config.pbtxt").write_text(CONFIG)
    ModelCard(
        name="digits",
        source=Source(package="p", version="1", file="f", sha256="0" * 64, licence="none"),
        opset=OPSET,
        tools={},
        fp32_sha256=sha256_of(folder / "fp32.onnx"),
        parity=Parity(max_abs_diff=0.0, tolerance=1.0, shapes=("x[1,16]",)),
    ).write(folder)
    return tmp_path / "build"
