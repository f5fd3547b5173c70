"""The search: every candidate recipe of a model, side by side with FP32 and its peers, and the one to publish.

Accuracy is that on the samples to choose on; what is chosen is judged on others. Latency is measured with all models
in turn. A trial is on the Pareto front where none is at least as good in accuracy, speed and size, and better in one.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from export.batch_proof.invariance import batch_cosine_min
from export.card import Measure
from export.definition.gate import BATCH_COSINE
from export.definition.tensor import FloatArray
from export.errors import ExportError
from export.graph.external_data import graph_bytes
from export.inference.session import open_session
from export.repository.version_content import FP32_FILE, MODEL_FILE
from quantize.accuracy.accuracy_gate import BATCH_LIMIT, judge
from quantize.accuracy.confidence_interval import Interval
from quantize.judging.latency import TIE, medians_ms
from quantize.judging.score import check_alike, intervals, scores, told_apart
from quantize.judging.verdict import compared
from quantize.quantizing.quantizer import quantize_graph
from quantize.tasks.task import Figures, Runner, Task

FP32: Final = "FP32"

Step = Callable[[str], None]


class NothingToChooseError(ExportError):
    """A task has no candidate recipes."""


class Trial(BaseModel):
    """What one candidate came to. `speed_up` is against FP32, as the geometric mean over the shapes."""

    # As of cards: what is no number is read back as such.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    name: str
    summary: str
    publishable: bool
    size_bytes: int
    latency_ms: dict[str, float]
    speed_up: float
    scores: dict[str, float]
    intervals: dict[str, Interval]
    refusals: tuple[str, ...]

    def beats(self, other: "Trial", score: str) -> bool:
        """Whether this one is at least as good in everything, and better in something."""
        mine, theirs = self._merits(score), other._merits(score)
        return all(a >= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs

    def _merits(self, score: str) -> tuple[float, float, float]:
        return self.scores[score], self.speed_up, -float(self.size_bytes)


TRIALS: Final = TypeAdapter(tuple[Trial, ...])


def headline(task: Task) -> str:
    """The score that comes first in a task's limits: the one that is plotted. Every trial has one of batches."""
    return task.limits[0].score if task.limits else BATCH_COSINE


def search(task: Task, built: Path, step: Step) -> tuple[Trial, ...]:
    """Try every candidate recipe of a task, FP32 and the peers that are installed.

    Args:
        task: the model's.
        built: the folder of its export.
        step: told what is tried next; called once for each candidate, peer and shape.

    Returns:
        One trial each, FP32 first.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-search-") as scratch:
        paths = {FP32: built / FP32_FILE}
        for name, recipe in task.candidates.items():
            step(f"quantizing: {name}")
            # A folder each, as weights may lie beside a graph.
            paths[name] = Path(scratch, str(len(paths)), MODEL_FILE)
            paths[name].parent.mkdir()
            quantize_graph(recipe, lambda: task.calibration(built), built / FP32_FILE, paths[name])
        runners: dict[str, Runner] = {name: open_session(path, threads=1) for name, path in paths.items()}
        sizes = {name: graph_bytes(path) for name, path in paths.items()}
        peers = task.peers()
        runners |= peers
        sizes |= {name: peer.size_bytes for name, peer in peers.items()}
        trials = _trials(task, built, runners, sizes, step)
        refused = {name: compared(task, built, paths[name]).refusals for name in task.candidates}
        return tuple(one.model_copy(update={"refusals": (*refused.get(one.name, ()), *one.refusals)}) for one in trials)


def _trials(
    task: Task, built: Path, runners: Mapping[str, Runner], sizes: Mapping[str, int], step: Step
) -> tuple[Trial, ...]:
    latency: dict[str, dict[str, float]] = {name: {} for name in runners}
    for shape, feed in task.latency_feeds(built).items():
        step(f"measuring latency: {shape}")
        for name, median_ms in zip(runners, medians_ms(list(runners.values()), feed), strict=True):
            latency[name][shape] = median_ms
    trials: list[Trial] = []
    expected: Figures | None = None
    reference: FloatArray | None = None
    for name, runner in runners.items():
        step(f"comparing accuracy: {name}")
        answers = task.answers(runner, built, "choose")
        # FP32 is the first. Only its answers are kept: a language model's are gigabytes.
        reference = answers if reference is None else reference
        found = task.figures(runner)
        expected = found if expected is None else expected
        check_alike(name, expected, found)
        figures, samples = told_apart(found)
        outcomes = {**task.outcomes(answers, reference, built, "choose"), **samples}
        measure = Measure(
            size_bytes=sizes[name],
            latency_ms=latency[name],
            scores={
                **scores(outcomes),
                **figures,
                BATCH_COSINE: batch_cosine_min(partial(task.compared, runner), task.batch_compositions(built)),
            },
            intervals=intervals(outcomes),
        )
        fp32 = trials[0] if trials else None
        trials.append(_trial(task, name, measure, measure if fp32 is None else _as_measure(fp32)))
    return tuple(trials)


def _trial(task: Task, name: str, measure: Measure, fp32: Measure) -> Trial:
    recipe = task.candidates.get(name)
    return Trial(
        name=name,
        summary=recipe.summary if recipe else name,
        publishable=recipe is not None,
        **measure.model_dump(),
        speed_up=geometric_mean([before / measure.latency_ms[shape] for shape, before in fp32.latency_ms.items()]),
        refusals=judge((*task.limits, BATCH_LIMIT), fp32, measure),
    )


def _as_measure(trial: Trial) -> Measure:
    return Measure.model_validate(trial.model_dump(include=set(Measure.model_fields)))


def front(trials: Sequence[Trial], score: str) -> tuple[str, ...]:
    """Names of the trials that no other beats."""
    return tuple(one.name for one in trials if not any(other.beats(one, score) for other in trials))


def choose(task: Task, trials: Sequence[Trial]) -> tuple[Trial, str]:
    """The fastest recipe that passes the gate, or the most accurate where none does; and why, in a sentence.

    Of recipes as good as equally fast, the most accurate.

    Raises:
        NothingToChooseError: there is no recipe among the trials.
    """
    recipes = [one for one in trials if one.publishable]
    if not recipes:
        raise NothingToChooseError("expected recipes to choose from, got none")
    score, passing = headline(task), [one for one in recipes if not one.refusals]
    if not passing:
        best = max(recipes, key=lambda one: one.scores[score])
        return best, f"{best.name}: no recipe passes the gate; this one has the best {score}"
    ranked = sorted(passing, key=lambda one: one.speed_up, reverse=True)
    near = [one for one in ranked if one.speed_up >= ranked[0].speed_up * (1 - TIE)]
    best = max(near, key=lambda one: one.scores[score])
    others = "; ".join(f"{one.name} {one.speed_up:.2f}" for one in ranked if one is not best) or "no other"
    return best, (
        f"{best.name}: of {len(passing)} recipes that pass the gate, of {len(recipes)} tried, the one with the best "
        f"{score} within {TIE:.0%} of the fastest: {best.speed_up:.2f} times as fast as FP32 ({others})"
    )
