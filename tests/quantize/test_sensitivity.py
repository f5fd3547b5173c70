from pathlib import Path
from typing import Any

from quantize.recipe import PerToken
from quantize.sensitivity import Sensitivity, sensitivities, within_budget


def found(layer: str, weights: int, loss: float) -> Sensitivity:
    return Sensitivity(layer=layer, operator="MatMul", weights=weights, loss=loss)


def test_budget_goes_to_the_most_loss_for_a_byte_and_is_never_exceeded() -> None:
    layers = [found("big", 100, 0.5), found("small", 10, 0.2), found("cheap", 10, 0.01)]
    # .02 a weight, .005 and .001; a weight costs 3 bytes more in FP32.
    assert within_budget(layers, 30) == ("small",)
    assert within_budget(layers, 60) == ("small", "cheap")
    assert within_budget(layers, 330) == ("small", "big")
    assert within_budget(layers, 360) == ("small", "big", "cheap")
    assert within_budget(layers, -1) == ()


def test_layer_that_costs_nothing_gets_nothing() -> None:
    assert within_budget([found("free", 1, 0.0)], 1e9) == ()


def test_each_quantized_layer_is_tried_alone(lenient: Any, build: Path) -> None:
    steps: list[str] = []
    (one,) = sensitivities(lenient, PerToken(), build / "models" / "digits", steps.append)
    assert (one.layer, one.operator, one.weights) == ("product", "MatMul", 64)
    assert steps == ["product"]
    assert 0 < one.loss < 1e-3
