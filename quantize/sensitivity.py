"""Sensitivity: which layers cost the accuracy. Each layer is quantized alone, and the answers compared with FP32's."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from export.repository import FP32_FILE
from export.session import open_session
from quantize.invariance import cosine
from quantize.layers import Layer, layers, quantized
from quantize.quantizer import prepared_graph, quantize_graph
from quantize.recipe import Recipe
from quantize.task import Task

# A ranking needs no more of the calibration inputs, and a graph is calibrated for each layer.
CALIBRATION_STRIDE: Final = 6
# What a weight costs more in FP32 than in INT8.
SAVED_BYTES: Final = 3

Step = Callable[[str], None]


class Sensitivity(BaseModel):
    """What quantizing one layer alone costs: `loss` is 1 - the mean cosine of the answers to FP32's."""

    model_config = ConfigDict(frozen=True)

    layer: str
    operator: str
    weights: int
    loss: float


def quantized_layers(recipe: Recipe, built: Path) -> tuple[Layer, ...]:
    """The layers of an export that a recipe quantizes."""
    graph = prepared_graph(recipe, built / FP32_FILE).graph
    names = quantized(recipe, graph)
    return tuple(layer for layer in layers(graph) if layer.name in names)


def sensitivities(task: Task, recipe: Recipe, built: Path, step: Step) -> tuple[Sensitivity, ...]:
    """The cost of each layer that a recipe quantizes, the dearest first.

    Args:
        task: the model's; its samples to choose on are compared.
        recipe: how layers are quantized.
        built: the folder of the export.
        step: told each layer's name before it is tried.
    """
    reference = task.answers(open_session(built / FP32_FILE, threads=1), built, "choose")
    feeds = list(task.calibration(built))[::CALIBRATION_STRIDE]
    every = [layer.name for layer in layers(prepared_graph(recipe, built / FP32_FILE).graph)]
    found = []
    for layer in quantized_layers(recipe, built):
        step(layer.name)
        alone = recipe.model_copy(update={"exclude": tuple(name for name in every if name != layer.name)})
        with tempfile.TemporaryDirectory(prefix="fairlane-sensitivity-") as scratch:
            path = Path(scratch, "one.onnx")
            quantize_graph(alone, lambda: feeds, built / FP32_FILE, path)
            answers = task.answers(open_session(path, threads=1), built, "choose")
        loss = float(1 - cosine(answers, reference).mean())
        found.append(Sensitivity(layer=layer.name, operator=layer.operator, weights=layer.weights, loss=loss))
    return tuple(sorted(found, key=lambda one: one.loss, reverse=True))


def within_budget(found: Sequence[Sensitivity], spare_bytes: float) -> tuple[str, ...]:
    """Which layers to leave in FP32: most loss for a byte first, as long as they fit.

    Args:
        found: the cost of each layer.
        spare_bytes: by how much the file may grow.
    """
    chosen = []
    for one in sorted(found, key=lambda one: one.loss / one.weights, reverse=True):
        if one.loss > 0 and one.weights * SAVED_BYTES <= spare_bytes:
            spare_bytes -= one.weights * SAVED_BYTES
            chosen.append(one.layer)
    return tuple(chosen)
