"""Graphs that are too large for one file, by a limit that is lowered: their weights lie beside them all the way."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import export.graph.graph_file
from export.card import Source, read_card
from export.cli import export as command
from export.definition import Definition, Gate, Tensor
from export.exporting.exporter import export_model
from export.graph.external_data import WEIGHTS_FILE, graph_bytes
from export.graph.graph_file import save_graph
from export.graph.onnx_graph import read_graph
from export.inference.session import open_session
from export.repository.repository import Repository
from quantize.judging.verdict import quantize_model
from quantize.quantizing.quantizer import named_graph, quantize_graph
from quantize.recipe import Dynamic, Recipe, Static, WeightOnly
from quantize.searching.sensitivity import sensitivities
from quantize.tasks.definition_task import DefinedTask

WIDE = 64


@pytest.fixture(autouse=True)
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.graph.graph_file, "GRAPH_BYTES", 10_000)


def layers(seed: int = 0) -> onnx.ModelProto:
    """Two layers of 16 KiB."""
    chance = np.random.default_rng(seed)
    weights = [chance.normal(0, 0.1, (WIDE, WIDE)).astype(np.float32) for _ in range(2)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDE]) for name in "xy"]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w1"], ["y"], name="second"),
    ]
    constants = [
        numpy_helper.from_array(weights[0], "w0"),
        # In a list of floats, as some tools write it.
        helper.make_tensor("w1", TensorProto.FLOAT, [WIDE, WIDE], weights[1].ravel().tolist()),
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def feed(rows: int = 3) -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(0, 1, (rows, WIDE)).astype(np.float32)}


def run(tmp_path: Path, *args: str) -> Result:
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    return CliRunner().invoke(command, [*places, *args])


def test_saved_graph_has_its_weights_beside_it_and_stays_whole_in_memory(tmp_path: Path) -> None:
    model = layers()
    before = model.SerializeToString()
    save_graph(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 2_000
    assert graph_bytes(tmp_path / "model.onnx") > 2 * 4 * WIDE * WIDE
    again = onnx.ModelProto.FromString(before)
    for one, other, told in zip(
        model.graph.initializer,
        again.graph.initializer,
        read_graph(tmp_path / "model.onnx").graph.initializer,
        strict=True,
    ):
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
        np.testing.assert_array_equal(numpy_helper.to_array(told), numpy_helper.to_array(other))
    assert not any(one.external_data for one in model.graph.initializer)


def test_file_with_weights_beside_it_is_exported_published_and_rolled_back(tmp_path: Path) -> None:
    source = tmp_path / "large.onnx"
    answers = []
    for seed in (0, 1):
        onnx.save(layers(seed), source, save_as_external_data=True, location="elsewhere.data", size_threshold=100)
        answers.append(open_session(source).predict(feed())["y"])
        done = run(tmp_path, str(source))
        assert done.exit_code == 0, done.output
        (tmp_path / "elsewhere.data").unlink()
    repository = Repository(tmp_path / "repository")
    for version, answer in enumerate(answers, 1):
        folder = repository.version_folder("large", version)
        assert {path.name for path in folder.iterdir()} == {"model.onnx", WEIGHTS_FILE, "model_card.json"}
        np.testing.assert_array_equal(open_session(folder / "model.onnx").predict(feed())["y"], answer)
        assert set(read_card(folder).assets) == {WEIGHTS_FILE}
    # The same graph with other weights is another export.
    assert not read_card(repository.version_folder("large", 1)).is_of_export(read_card(tmp_path / "build/models/large"))
    served = repository.version_folder("large", repository.promote("large", 1))
    np.testing.assert_array_equal(open_session(served / "model.onnx").predict(feed())["y"], answers[0])


def test_weights_that_are_gone_are_one_line(tmp_path: Path) -> None:
    source = tmp_path / "large.onnx"
    onnx.save(layers(), source, save_as_external_data=True, location="elsewhere.data", size_threshold=100)
    (tmp_path / "elsewhere.data").unlink()
    done = run(tmp_path, str(source))
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert "elsewhere.data" in line


MODULES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "python": lambda module: module,
    "scripted": torch.jit.script,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", MODULES)
def test_module_that_is_large_is_exported(tiny: Definition, tmp_path: Path, kind: str) -> None:
    module = MODULES[kind](nn.Sequential(nn.Linear(3, 4000), nn.ReLU(), nn.Linear(4000, 3)).eval())
    card = export_model(replace(tiny, module=lambda: module, tolerance=1e-5), tmp_path / "built")
    assert set(card.assets) == {"asset.txt", WEIGHTS_FILE}
    assert (tmp_path / "built" / "fp32.onnx").stat().st_size < 20_000


@pytest.mark.parametrize("recipe", [Static(), Dynamic(), WeightOnly(block=32)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("exclude", [(), ("first",)], ids=["whole", "half"])
def test_large_graph_is_quantized(tmp_path: Path, recipe: Recipe, exclude: tuple[str, ...]) -> None:
    fp32, int8 = tmp_path / "fp32" / "fp32.onnx", tmp_path / "int8" / "model.onnx"
    fp32.parent.mkdir()
    int8.parent.mkdir()
    save_graph(layers(), fp32)
    assert len(named_graph(fp32).graph.node) == 3
    quantize_graph(recipe.model_copy(update={"exclude": exclude}), lambda: [feed()], fp32, int8)
    assert graph_bytes(int8) < graph_bytes(fp32)
    # What stays FP32 is too large for one file, by this limit.
    assert (int8.parent / WEIGHTS_FILE).is_file() or not exclude
    want, got = (open_session(path).predict(feed())["y"] for path in (fp32, int8))
    assert np.abs(want - got).max() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize("exclude", [(), ("first",)], ids=["whole", "half"])
def test_large_model_is_judged_layer_by_layer_and_published(tmp_path: Path, exclude: tuple[str, ...]) -> None:
    source, built, kept = tmp_path / "large.onnx", tmp_path / "build" / "large", tmp_path / "kept"
    onnx.save(layers(), source)
    definition = Definition(
        name="large",
        inputs=(Tensor("x", "FP32", ("batch", WIDE)),),
        outputs=(Tensor("y", "FP32", ("batch", WIDE)),),
        source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        samples=lambda: [feed(7)],
        calibration=lambda: [feed(8)],
        gates=(Gate("cosine", at_least=0.9),),
        onnx_file=source,
    )
    export_model(definition, built)
    repository = Repository(tmp_path / "repository")
    repository.publish(read_card(built), built / "fp32.onnx", built)
    task, recipe = DefinedTask(definition, built), Static(exclude=exclude)
    found = sensitivities(task, Static(), built, lambda _: None, 2)
    assert [one.saved_bytes > WIDE * WIDE * 2 for one in found] == [True, True]
    card = quantize_model("large", task, recipe, built, kept, lambda _: None)
    assert card.quantization is not None
    assert card.quantization.int8.size_bytes < card.quantization.fp32.size_bytes
    repository.publish(card, kept / "model.onnx", built)
    served = repository.version_folder("large")
    assert (served / WEIGHTS_FILE).is_file() == (kept / WEIGHTS_FILE).is_file()
    want, got = (open_session(path / "model.onnx").predict(feed())["y"] for path in (kept, served))
    np.testing.assert_array_equal(want, got)
