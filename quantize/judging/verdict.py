"""The verdict on one model: quantize it, measure it, and decide whether INT8 or FP32 is served."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import onnx

from export.batch_proof.invariance import batch_cosine_min
from export.card import Measure, ModelCard, Quantization, read_card
from export.configuration.warm_up import check_warm_up
from export.definition.gate import BATCH_COSINE
from export.filesystem.atomic_folder import swapped
from export.graph.container_support import CONTAINER, RUNTIME, too_new
from export.graph.external_data import graph_bytes
from export.inference.session import Session, open_session
from export.repository.version_content import FP32_FILE, MODEL_FILE, unreplaced
from quantize.accuracy.accuracy_gate import BATCH_LIMIT, judge
from quantize.accuracy.fidelity import Fidelity, compare
from quantize.graph.layers import quantized
from quantize.judging.excluded_layers import excluded_layers
from quantize.judging.fp32_remainder import remainders
from quantize.judging.latency import SMALLER, gainless, medians_ms, slower
from quantize.judging.output_pairs import output_pairs
from quantize.judging.score import check_alike, intervals, losses, scores, told_apart
from quantize.quantizing.quantizer import check_quantized, named_graph, prepared_graph, quantize_graph
from quantize.recipe import Recipe, WeightOnly
from quantize.tasks.task import Figures, Outcomes, Task

Step = Callable[[str], None]

# Of those that a warning is about.
NODES_NAMED: Final = 3


def quantize_model(
    name: str, task: Task, recipe: Recipe, built: Path, kept: Path, step: Step, choice: str = ""
) -> ModelCard:
    """Quantize an exported model and judge it. Nothing is served before it is published: `quantize.kept_result`.

    Args:
        name: the model's name.
        task: what to calibrate and judge on.
        recipe: how to quantize.
        built: the folder of the export.
        kept: the folder that the graph and its card are put into, as a whole; the caller has its lock.
        step: told, in a few words, what is being done.
        choice: why this recipe, for the card.

    Returns:
        The card that was written. Its `quantization` is set.

    Raises:
        ExportError: there is no export, or its INT8 form is not loadable. What is kept then stays as it was.
        MixedExportError: another process has exported the model meanwhile. So it does then, too.
    """
    with swapped(kept) as new, unreplaced(built):
        card = read_card(built)
        # First: what is wrong with the graph or with the task's scores is told before minutes of quantizing.
        named_graph(built / FP32_FILE)
        step("evaluating FP32")
        figures = task.figures(open_session(built / FP32_FILE, threads=1))
        int8 = new / MODEL_FILE
        step("calibrating and quantizing")
        whys, fidelity = _quantized(name, task, recipe, built, int8, step)
        check_warm_up(name, built, open_session(int8, threads=1))
        verdict = judged(name, task, recipe, built, int8, figures, step)
        verdict = verdict.model_copy(
            update={"refusals": (*fidelity.refusals, *verdict.refusals), "errors": dict(fidelity.errors)}
        )
        request = next(iter(task.latency_feeds(built).values()))
        left = remainders(prepared_graph(recipe, built / FP32_FILE), int8, request, whys)
        verdict = verdict.model_copy(update={"stays_fp32": left})
        # For another target the latency on this processor says nothing.
        if card.target == "cpu" and (told := gainless(verdict.fp32, verdict.int8)):
            verdict = verdict.model_copy(update={"refusals": (*verdict.refusals, told)})
        newer = too_new(onnx.load(int8)) if verdict.passed else ()
        verdict = verdict.model_copy(update={"choice": choice, "warnings": _warnings(card, verdict, newer)})
        served = verdict.int8 if verdict.passed else verdict.fp32
        # Of what is served whole there is no row in company.
        whole = card.batch is not None and card.batch.whole
        card = card.model_copy(
            update={
                "quantization": verdict,
                "batch_cosine_min": None if whole else served.scores[BATCH_COSINE],
                "batch_invariant": None if whole else BATCH_LIMIT.refusal(verdict.fp32, served) is None,
                "loads_in_container": card.loads_in_container and not newer,
            }
        )
        card.write(new)
    return card


def _quantized(
    name: str, task: Task, recipe: Recipe, built: Path, int8: Path, step: Step
) -> tuple[Mapping[str, str], Fidelity]:
    """Write the INT8 form, and compare it; once more where an output is ruined, without the layers to blame.

    Returns:
        Why something stays FP32, and what came of comparing.
    """
    fp32 = built / FP32_FILE
    whys = quantize_graph(recipe, lambda: task.calibration(built), fp32, int8)
    check_quantized(name, recipe, fp32, int8)
    step("comparing every output")
    fidelity = compared(task, built, int8)
    if not fidelity.refusals or isinstance(recipe, WeightOnly):
        return whys, fidelity
    step("looking for what ruins an output")
    graph = prepared_graph(recipe, fp32)
    blamed = excluded_layers(graph, quantized(recipe, graph.graph), task.calibration(built))
    if not blamed.nodes:
        return whys, fidelity
    step("calibrating and quantizing without it")
    better = int8.with_name(f"spared-{int8.name}")
    more = quantize_graph(recipe, lambda: task.calibration(built), fp32, better, blamed.nodes)
    again = compared(task, built, better)
    if again.refusals or graph_bytes(better) > SMALLER * graph_bytes(fp32):
        # What was ruined is told, and not that hardly anything was left to quantize.
        better.unlink()
        return whys, fidelity
    better.replace(int8)
    return {**more, **blamed.whys}, again


def _warnings(card: ModelCard, verdict: Quantization, newer: Sequence[str]) -> tuple[str, ...]:
    """What speaks against INT8 that is served; `newer` are the nodes that Triton's container does not load."""
    found = []
    if verdict.passed and card.target == "cpu" and (told := slower(verdict.fp32, verdict.int8)):
        found.append(told)
    if newer:
        nodes = f"{', '.join(newer[:NODES_NAMED])}{', ...' if len(newer) > NODES_NAMED else ''}"
        found.append(
            f"the embedded Triton loads it, {CONTAINER} does not: its ONNX Runtime {RUNTIME} has no 8 bits in blocks, "
            f"as in {nodes}; for the container, leave such layers in FP32 (--exclude) or take another recipe"
        )
    return tuple(found)


def quantized_bytes(task: Task, recipe: Recipe, built: Path) -> int:
    """The size of what a recipe makes of an export."""
    with tempfile.TemporaryDirectory(prefix="fairlane-quantize-") as scratch:
        int8 = Path(scratch, MODEL_FILE)
        quantize_graph(recipe, lambda: task.calibration(built), built / FP32_FILE, int8)
        return graph_bytes(int8)


def judged(name: str, task: Task, recipe: Recipe, built: Path, int8: Path, fp32: Figures, step: Step) -> Quantization:
    """Measure the INT8 graph against the FP32 one, on the samples to judge on, and hold it to the limits.

    Args:
        name: the model's name.
        task: what it is judged on.
        recipe: what INT8 was made by.
        built: the folder of the export.
        int8: the graph.
        fp32: the figures of the export.
        step: told what is being done.

    Raises:
        ScoreError: the scores of the two are not about the same.
    """
    paths = (built / FP32_FILE, int8)
    sessions = open_session(paths[0], threads=1), open_session(paths[1], threads=1)
    step("comparing accuracy")
    answers = [task.answers(session, built, "judge") for session in sessions]
    quantized = task.figures(sessions[1])
    check_alike(name, fp32, quantized)
    figures, samples = zip(*(told_apart(one) for one in (fp32, quantized)), strict=True)
    outcomes = [
        {**task.outcomes(one, answers[0], built, "judge"), **more} for one, more in zip(answers, samples, strict=True)
    ]
    step("measuring latency")
    latency = {shape: medians_ms(sessions, feed) for shape, feed in task.latency_feeds(built).items()}
    step("comparing rows alone and in company")
    before, after = (
        _measure(
            paths[side], {shape: ms[side] for shape, ms in latency.items()}, outcomes[side], {**figures[side], **batch}
        )
        for side, batch in enumerate(_batch_cosines(task, sessions, built))
    )
    return Quantization(
        recipe=recipe.summary,
        fp32=before,
        int8=after,
        falls=losses(outcomes[0], outcomes[1]),
        refusals=judge((*task.limits, BATCH_LIMIT), before, after),
    )


def compared(task: Task, built: Path, int8: Path) -> Fidelity:
    """Every output of an INT8 graph, held to FP32's."""
    with output_pairs(built / FP32_FILE, int8) as (answers, parts):
        return compare(answers(task.feeds(built)), task.error_most, parts.unordered, parts.whole)


def _batch_cosines(task: Task, sessions: tuple[Session, Session], built: Path) -> list[dict[str, float]]:
    return [
        {BATCH_COSINE: batch_cosine_min(partial(task.compared, session), task.batch_compositions(built))}
        for session in sessions
    ]


def _measure(path: Path, latency_ms: Mapping[str, float], outcomes: Outcomes, figures: Mapping[str, float]) -> Measure:
    return Measure(
        size_bytes=graph_bytes(path),
        latency_ms=dict(latency_ms),
        scores={**scores(outcomes), **figures},
        intervals=intervals(outcomes),
    )
