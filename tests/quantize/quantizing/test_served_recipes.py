"""Each recipe's graph in the ONNX Runtime of the embedded Triton: it loads there, and answers as it was judged."""

from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from onnx import helper, numpy_helper

from export.inference.session import open_session
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import Dynamic, PerToken, Recipe, Static, WeightOnly
from tests.quantize.conftest import FEATURES, rows
from tests.real_triton import ModelRepository, TritonFactory

RECIPES: dict[str, Recipe] = {
    "weights_8": WeightOnly(bits=8, block=16),
    "weights_4": WeightOnly(bits=4, block=16),
    "static": Static(operators=("MatMul",)),
    "dynamic": Dynamic(),
    "per_token": PerToken(),
}


@pytest.fixture(scope="module")
def served(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> tuple[str, ModelRepository]:
    """A server that has loaded a matrix product in every recipe."""
    models = new_repository()
    weight = numpy_helper.from_array(rows(64, 3).T.copy(), "weight")
    for name, recipe in RECIPES.items():
        node = helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")
        tensors = {"x": ("FP32", [FEATURES])}, {"y": ("FP32", [64])}
        path = models.add(name, [node], *tensors, constants=[weight]) / "1" / "model.onnx"
        fp32 = path.replace(path.with_name("fp32"))
        quantize_graph(recipe, lambda: ({"x": rows(8, seed)} for seed in range(4)), fp32, path)
    return triton_factory(models).address.grpc, models


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_loads_in_the_served_runtime_and_answers_alike(served: tuple[str, ModelRepository], name: str) -> None:
    address, models = served
    value = rows(8, 5)
    feed = grpcclient.InferInput("x", list(value.shape), "FP32")
    feed.set_data_from_numpy(value)
    with grpcclient.InferenceServerClient(address) as client:
        answer = client.infer(name, [feed]).as_numpy("y")
    expected = open_session(models.path / name / "1" / "model.onnx").run({"x": value})
    np.testing.assert_array_equal(answer, expected)
