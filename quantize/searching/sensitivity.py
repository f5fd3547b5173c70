"""Sensitivity: which layers cost the accuracy. Each layer is quantized alone, and the answers compared with FP32's."""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from export.definition.tensor import FloatArray
from export.graph.external_data import graph_bytes
from export.graph.onnx_graph import write_graph
from export.inference.cosine import cosine
from export.inference.session import open_session
from export.repository.version_content import FP32_FILE, MODEL_FILE
from quantize.graph.layers import Layer, layers, quantized
from quantize.quantizing.quantizer import prepared_graph, quantize_graph
from quantize.recipe import Recipe, WeightOnly
from quantize.tasks.task import Task

# A ranking needs no more of the calibration inputs, and a graph is calibrated for each layer.
CALIBRATION_STRIDE: Final = 6

Step = Callable[[str], None]


class Sensitivity(BaseModel):
    """What quantizing one layer alone costs.

    `loss` is 1 - the mean cosine of the answers to FP32's; of single numbers, of which a cosine says nothing, the mean
    square of the difference as a part of their variance.

    `saved_bytes` is by how much the file becomes smaller; below 0 where it becomes larger. `shared` are other layers
    with the same weights: quantized with it, as one of them in FP32 would keep the weights.
    """

    model_config = ConfigDict(frozen=True)

    layer: str
    operator: str
    weights: int
    loss: float
    saved_bytes: int
    shared: tuple[str, ...] = ()


def tried_layers(recipe: Recipe, built: Path, most: int) -> tuple[tuple[Layer, ...], ...]:
    """The layers of an export that a recipe quantizes, in their order; if more than `most`, those with most weights.

    Those with the same weights are one.
    """
    graph = prepared_graph(recipe, built / FP32_FILE).graph
    names = quantized(recipe, graph)
    sharing: dict[str, list[Layer]] = {}
    for layer in layers(graph):
        if layer.name in names:
            sharing.setdefault(layer.matrix, []).append(layer)
    every = [tuple(alike) for alike in sharing.values()]
    largest = sorted(every, key=lambda alike: alike[0].weights, reverse=True)[:most]
    return tuple(alike for alike in every if alike in largest)


def sensitivities(task: Task, recipe: Recipe, built: Path, step: Step, most: int) -> tuple[Sensitivity, ...]:
    """The cost of each layer that a recipe quantizes, the dearest first.

    Args:
        task: the model's; its samples to choose on are compared.
        recipe: how layers are quantized. Where it fuses, the layers are those of the fused graph.
        built: the folder of the export.
        step: told each layer's name before it is tried.
        most: layers to try, those with most weights: each takes a quantization of the whole graph and a run of all
            samples.
    """
    reference = task.answers(open_session(built / FP32_FILE, threads=1), built, "choose")
    feeds = list(task.calibration(built))[::CALIBRATION_STRIDE]
    found = []
    with tempfile.TemporaryDirectory(prefix="fairlane-sensitivity-") as scratch:
        # A folder each, as weights may lie beside a graph.
        plain, one_layer = (Path(scratch, folder, MODEL_FILE) for folder in ("plain", "one"))
        plain.parent.mkdir()
        one_layer.parent.mkdir()
        graph = prepared_graph(recipe, built / FP32_FILE)
        every = [layer.name for layer in layers(graph.graph)]
        write_graph(graph, plain)
        for layer, *others in tried_layers(recipe, built, most):
            step(layer.name)
            shared = tuple(other.name for other in others)
            quantize_graph(_alone(recipe, (layer.name, *shared), every), lambda: feeds, plain, one_layer)
            answers = task.answers(open_session(one_layer, threads=1), built, "choose")
            loss = _loss(answers, reference)
            found.append(
                Sensitivity(
                    layer=layer.name,
                    operator=layer.operator,
                    weights=layer.weights,
                    loss=loss,
                    saved_bytes=graph_bytes(plain) - graph_bytes(one_layer),
                    shared=shared,
                )
            )
    return tuple(sorted(found, key=lambda one: one.loss, reverse=True))


def _loss(answers: FloatArray, reference: FloatArray) -> float:
    if reference[0].size != 1 or len(reference) == 1:
        return float(1 - cosine(answers, reference).mean())
    error = float(np.square(answers - reference, dtype=np.float64).mean())
    return error and error / max(float(reference.var(dtype=np.float64)), np.finfo(np.float64).tiny)


def _alone(recipe: Recipe, names: Sequence[str], every: Sequence[str]) -> Recipe:
    """The recipe for some layers of a graph that is prepared."""
    changes: dict[str, Any] = {"exclude": tuple(other for other in every if other not in names)}
    if isinstance(recipe, WeightOnly):
        changes["fuse"] = False
    return recipe.model_copy(update=changes)


def within_budget(found: Sequence[Sensitivity], spare_bytes: float) -> tuple[Sensitivity, ...]:
    """Which layers to leave in FP32: most loss for a byte first, as long as they fit.

    Or the dearest that fits, and then these, where that saves more loss: small layers must not fill the place that one
    large layer needs. So at least half is saved of what could be (Dantzig, 1957).

    Args:
        found: the cost of each layer.
        spare_bytes: by how much the file may grow.
    """
    costing = [one for one in found if one.loss > 0]
    by_the_byte = _filled([], costing, spare_bytes)
    largest = max((one for one in costing if one.saved_bytes <= spare_bytes), key=lambda one: one.loss, default=None)
    if largest is None:
        return by_the_byte
    others = [one for one in costing if one is not largest]
    return max(by_the_byte, _filled([largest], others, spare_bytes), key=lambda chosen: sum(one.loss for one in chosen))


def _filled(chosen: list[Sensitivity], others: Sequence[Sensitivity], spare_bytes: float) -> tuple[Sensitivity, ...]:
    """Those chosen, and of the others as many as fit, most loss for a byte first."""
    spare_bytes -= sum(one.saved_bytes for one in chosen)
    for one in sorted(others, key=_loss_for_a_byte, reverse=True):
        if one.saved_bytes <= spare_bytes:
            spare_bytes -= one.saved_bytes
            chosen.append(one)
    return tuple(chosen)


def given_back(chosen: Sequence[Sensitivity], excess_bytes: float) -> tuple[Sensitivity, ...]:
    """Those of `within_budget` that are left where the file turned out too large: least loss for a byte goes first."""
    left = list(chosen)
    while left and excess_bytes > 0:
        # At least one each time: what a layer alone saves is not quite what it saves in company.
        excess_bytes -= max(left.pop().saved_bytes, 1)
    return tuple(left)


def _loss_for_a_byte(one: Sensitivity) -> float:
    return one.loss / one.saved_bytes if one.saved_bytes > 0 else math.inf
