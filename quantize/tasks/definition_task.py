"""The task of a model that has a definition and no file in `quantize/models`: what the definition says, as a task.

Where `evaluate` gives what each sample came to, its score has a confidence interval; where it gives a figure, none.
Beside them stands the cosine to FP32's of the first output that has one, on the definition's samples, with an interval.
There is one set to judge on: a search chooses on what the gate judges on, and its best is a little flattered.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from export.batch_proof.batch_composition import BatchComposition, batch_compositions, take
from export.definition import Definition
from export.definition.gate import COSINE
from export.definition.tensor import Array, Feed, FloatArray, Tensor, beyond
from export.errors import DefinitionError, faults
from export.inference.cosine import cosine, loud_of
from export.inference.session import RunError, Session, open_session
from export.repository.version_content import FP32_FILE
from quantize.accuracy.accuracy_gate import AtLeast, Limit, MayFall
from quantize.accuracy.fidelity import ERROR_MOST
from quantize.graph.sorted_values import sorted_values
from quantize.quantizing.quantizer import named_graph
from quantize.recipe import PerToken, Recipe, Static
from quantize.tasks.default_recipe import default_recipe
from quantize.tasks.task import Figures, NoTaskError, Outcomes, Peer, Runner, Split

RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(Recipe)
# Where the definition has no gates of its own.
CLOSE: Final = AtLeast(COSINE, 0.99)
# Of what a channel varies by, where no other figure is judged: a correlation of .97.
ERROR_ALONE: Final = 0.25
LATENCY_ROWS: Final = (1, 32)
# Rows of calibration inputs that every output is compared on, besides the samples.
ROWS_BESIDE: Final = 128
# Types of outputs that a cosine can be of: integers are labels.
FLOATS: Final = ("FP16", "FP32", "FP64")


class DefinedTask:
    """A definition as a task. See `quantize.tasks.task.Task`.

    Args:
        definition: with `calibration`.
        built: the folder of its export.

    Raises:
        NoTaskError: the definition has no calibration inputs.
        DefinitionError: it has no gate but on a cosine, which says nothing of any of its outputs.
    """

    def __init__(self, definition: Definition, built: Path) -> None:
        if definition.calibration is None:
            raise NoTaskError(
                f"{definition.name}: calibration: expected inputs to take the ranges of activations from, got none"
            )
        self._definition, self._built = definition, built
        self._calibration = definition.calibration
        # Whether a cosine says nothing of FP32's answers, so that their channels alone are judged. See `check_gates`.
        self._blind = self._directed is None
        if self._blind and self._gates_on_cosine and not (self._has_numbers and not definition.gates):
            raise DefinitionError(
                f"{definition.name}: gates: expected one on a score of `evaluate`, got none. A cosine says nothing of "
                f"single numbers, labels and words, such as {', '.join(repr(one.name) for one in definition.outputs)}"
            )

    @property
    def _gates_on_cosine(self) -> bool:
        """Whether nothing but a cosine is asked for."""
        return all(gate.score == COSINE for gate in self._definition.gates)

    @property
    def _has_numbers(self) -> bool:
        return any(one.datatype in FLOATS for one in self._definition.outputs)

    @cached_property
    def _directed(self) -> Tensor | None:
        """The first output with a direction: numbers that are no labels, more than one for each row."""
        inner = 1 if self._definition.batched else 0
        outputs = [one for one in self._definition.outputs if one.datatype in FLOATS]
        return next((one for one in outputs if any(size != 1 for size in one.dims[inner:])), None)

    @property
    def _compared(self) -> Tensor:
        """The output that INT8 and FP32 are compared by: that with a direction, else of numbers."""
        outputs = self._definition.outputs
        return self._directed or next((one for one in outputs if one.datatype in FLOATS), outputs[0])

    @cached_property
    def recipe(self) -> Recipe:
        """The definition's, or one by the operators of its graph."""
        if self._definition.recipe is None:
            return default_recipe(named_graph(self._built / FP32_FILE))
        try:
            return RECIPE.validate_python(self._definition.recipe)
        except ValidationError as error:
            raise DefinitionError(f"{self._definition.name}: recipe: {faults(error)}") from error

    @cached_property
    def candidates(self) -> Mapping[str, Recipe]:
        """The recipe, and its usual alternatives."""
        others: Mapping[str, Recipe]
        if isinstance(self.recipe, PerToken):
            others = {"per-token": PerToken(), "per-token, smoothed": PerToken(smooth=0.5)}
        else:
            others = {"static": Static(), "static, entropy": Static(calibrate="entropy")}
        return {"the definition's": self.recipe, **{name: one for name, one in others.items() if one != self.recipe}}

    @property
    def limits(self) -> Sequence[Limit]:
        """The definition's gates; without any, that the first output stays close, where a cosine tells that."""
        limits: list[Limit] = []
        for gate in self._definition.gates:
            if gate.at_least is not None:
                limits.append(AtLeast(gate.score, gate.at_least))
            if gate.may_fall is not None:
                limits.append(MayFall(gate.score, gate.may_fall))
        return limits or ([] if self._blind else [CLOSE])

    @property
    def error_most(self) -> float:
        """Less where nothing else is judged."""
        return ERROR_ALONE if self._blind and not self._definition.gates else ERROR_MOST

    def calibration(self, built: Path) -> Iterator[Feed]:
        """The definition's.

        Raises:
            DefinitionError: one does not fit the declared inputs, or has what is no number, of which there is no range.
        """
        del built
        for number, feed in enumerate(self._definition.checked("calibration", self._calibration())):
            for name, values in feed.items():
                if values.dtype.kind == "f" and np.isnan(values).any():
                    raise DefinitionError(
                        f"{self._definition.name}: calibration {number}: input {name!r}: expected numbers, got NaN"
                    )
                # What masks has no end below, where it gets no range.
                if values.dtype.kind == "f" and (said := beyond({name: np.maximum(values, 0)})):
                    raise DefinitionError(f"{self._definition.name}: calibration {number}: {said}")
            yield feed

    def _samples(self) -> Iterator[Feed]:
        yield from self._definition.checked("samples", self._definition.samples())

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """The output that is compared, for each row of the samples, flat, and filled up with zeros to one length.

        Of words, of which nothing is compared, none.

        Raises:
            DefinitionError: the model cannot answer a sample. Names it.
        """
        del built, split
        answers = [self._answer(model, feed, number) for number, feed in enumerate(self._samples())]
        rows = [row for answer in answers for row in self._rows(answer)]
        return _filled(rows, max(row.size for row in rows))

    def _answer(self, model: Runner, feed: Feed, number: int) -> Array:
        assert isinstance(model, Session), "a definition has no peers"
        what = f"{self._definition.name}: samples {number}"
        try:
            answers = model.predict(feed)
        except RunError as error:
            raise DefinitionError(f"{what}: {error}") from error
        self._definition.check_answer(feed, answers, what)
        return answers[self._compared.name]

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """Cosine of each row to FP32's, where it has a direction. The zeros at the end change nothing."""
        del built, split
        if self._directed is None:
            return {}
        # Of a model that finds more in one form than in the other, one is longer.
        longest = max(answers.shape[1], fp32.shape[1])
        return {COSINE: cosine(_filled(answers, longest), _filled(fp32, longest))}

    def check_gates(self) -> None:
        """Find out whether a cosine tells good answers from bad ones, where nothing else is asked for.

        It does not where all answers are alike, where numbers hide others, and where rows are sorted. What a definition
        without gates is held to then are its outputs' channels. Takes a run of FP32 on all samples: to be told before
        minutes of quantizing.

        Raises:
            DefinitionError: the definition asks for a cosine alone, and FP32's answers to the samples are so alike that
                one without a look at the input would reach it; or it cannot answer one.
        """
        bounds = [limit.bound for limit in self.limits if isinstance(limit, AtLeast)]
        if self._directed is None or not bounds or not self._gates_on_cosine:
            return
        fp32 = self.answers(open_session(self._built / FP32_FILE), self._built, "judge")
        same = np.broadcast_to(fp32.mean(axis=0, dtype=np.float64), fp32.shape)
        reached = float(cosine(same, fp32).mean())
        # Of one row alone, nothing is known.
        alike = len(fp32) > 1 and reached >= max(bounds)
        if not self._definition.gates:
            self._blind = alike or any(loud_of(row).any() for row in fp32) or self._is_sorted
        elif alike:
            raise DefinitionError(
                f"{self._definition.name}: gates: expected one on a score of `evaluate`, or samples with more unlike "
                f"answers; got only a cosine of {max(bounds):g}. {self._compared.name!r} is so alike for all "
                f"{len(fp32)} rows of the samples that their mean, as the answer to each, has {reached:.4f}"
            )

    @property
    def _is_sorted(self) -> bool:
        return self._compared.name in sorted_values(named_graph(self._built / FP32_FILE).graph)

    def figures(self, model: Runner) -> Figures:
        """What `evaluate` says.

        Raises:
            DefinitionError: `evaluate` gives what is no score, or a gate is about a score that it does not give.
        """
        assert isinstance(model, Session), "a definition has no peers"
        return self._definition.evaluated(model.predict)

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        """Each row alone and all together: of samples and the first calibration input, and of those of a row alone.

        Raises:
            DefinitionError: no two rows of one shape are among them, so that nothing could be said.
        """
        del built
        return batch_compositions(self._definition)

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """All outputs."""
        assert isinstance(model, Session), "a definition has no peers"
        return list(model.predict(feed).values())

    def feeds(self, built: Path) -> Iterator[Feed]:
        """The samples, and the first calibration inputs: samples may be few."""
        yield from self._samples()
        rows = 0
        for feed in self.calibration(built):
            yield feed
            rows += len(next(iter(feed.values()))) if self._definition.batched else 1
            if rows >= ROWS_BESIDE:
                return

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """The first sample, alone and as a full batch of up to 32."""
        del built
        first = next(self._samples())
        if not self._definition.batched:
            return {"one": first}
        most = self._definition.max_batch_size
        return {str(rows): take(first, range(rows)) for rows in dict.fromkeys(min(n, most) for n in LATENCY_ROWS)}

    def peers(self) -> Mapping[str, Peer]:
        """None."""
        return {}

    def _rows(self, output: Array) -> list[Array]:
        return [row.ravel() for row in output] if self._definition.batched else [output.ravel()]


def _filled(rows: Iterable[Array], longest: int) -> FloatArray:
    """Rows of numbers, filled up with zeros to one length: [n] of [<= longest] -> FP32 [n, longest]."""
    numbers = [np.zeros(0) if row.dtype.kind not in "biuf" else row for row in rows]
    return np.stack([np.pad(row, (0, longest - row.size)).astype(np.float32) for row in numbers])
