"""The verdict on one model: quantize it, measure it, judge it, and serve INT8 or FP32 accordingly."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from export.card import Measure, ModelCard, Quantization, read_card
from export.repository import FP32_FILE, MODEL_FILE, Repository, built_folder
from export.session import open_session
from quantize.gate import judge
from quantize.latency import BATCH_ROWS, median_ms
from quantize.quantizer import quantize_graph
from quantize.recipe import Recipe

Step = Callable[[str], None]


def quantize_model(name: str, recipe: Recipe, build: Path, repository: Repository, step: Step) -> ModelCard:
    """Quantize an exported model and publish it; where the gate refuses it, publish the FP32 export.

    Args:
        name: the model's name.
        recipe: how to quantize and judge it.
        build: where `fairlane export` left the export.
        repository: where to publish.
        step: told, in a few words, what is being done.

    Returns:
        The card, which is both published and written beside the export. Its `quantization` is set.

    Raises:
        ExportError: there is no export, or its INT8 form is not loadable. What is served then stays as it was.
    """
    built = built_folder(build, name)
    card = read_card(built)
    with tempfile.TemporaryDirectory(prefix="fairlane-quantize-") as scratch:
        int8 = Path(scratch, MODEL_FILE)
        step("calibrating and quantizing")
        quantize_graph(recipe, built / FP32_FILE, built, int8)
        verdict = judged(recipe, built, int8, step)
        card = card.model_copy(update={"quantization": verdict})
        step("publishing")
        repository.publish(card, int8 if verdict.passed else built / FP32_FILE, built)
    card.write(built)
    return card


def judged(recipe: Recipe, built: Path, int8: Path, step: Step) -> Quantization:
    """Measure the INT8 graph against the FP32 one and hold it to the recipe's limits."""
    paths = (built / FP32_FILE, int8)
    sessions = open_session(paths[0], threads=1), open_session(paths[1], threads=1)
    step("comparing accuracy")
    scores = recipe.scores(*sessions, built)
    step("measuring latency")
    latency = {rows: median_ms(sessions, recipe.latency_feed(rows, built)) for rows in BATCH_ROWS}
    before, after = (
        Measure(
            size_bytes=paths[side].stat().st_size,
            latency_ms={str(rows): medians[side] for rows, medians in latency.items()},
            scores=dict(scores[side]),
        )
        for side in (0, 1)
    )
    return Quantization(recipe=recipe.summary, fp32=before, int8=after, refusals=judge(recipe.limits, before, after))
