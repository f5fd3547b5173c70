"""The task of a model that has a definition and no file in `quantize/models`: what the definition says, as a task.

Where `evaluate` gives what each sample came to, its score has a confidence interval; where it gives a figure, none.
Beside them stands the cosine of the first output to FP32's on the definition's samples, which has one. There is one set
to judge on: a search chooses on what the gate judges on, and its best is a little flattered.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from export.definition import Definition
from export.errors import DefinitionError, faults
from export.gate import COSINE
from export.session import RunError, Session
from export.tensor import BATCH, Array, Feed, FloatArray
from export.version import FP32_FILE
from quantize.default import default_recipe
from quantize.gate import AtLeast, Limit, MayFall
from quantize.invariance import cosine
from quantize.quantizer import named_graph
from quantize.recipe import PerToken, Recipe, Static
from quantize.task import Company, Figures, NoTaskError, Outcomes, Peer, Runner, Split

RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(Recipe)
# Where the definition has no gates of its own.
CLOSE: Final = AtLeast(COSINE, 0.99)
COMPANY_ROWS: Final = 16
LATENCY_ROWS: Final = (1, 32)


class DefinedTask:
    """A definition as a task. See `quantize.task.Task`.

    Args:
        definition: with `calibration`.
        built: the folder of its export.

    Raises:
        NoTaskError: the definition has no calibration inputs.
        DefinitionError: it has no gate but on a cosine, which says nothing of its first output.
    """

    def __init__(self, definition: Definition, built: Path) -> None:
        if definition.calibration is None:
            raise NoTaskError(
                f"{definition.name}: calibration: expected inputs to take the ranges of activations from, got none"
            )
        self._definition, self._built = definition, built
        self._calibration = definition.calibration
        if self._is_single and all(gate.score == COSINE for gate in definition.gates):
            raise DefinitionError(
                f"{definition.name}: gates: expected one on a score of `evaluate`, got none: the first output, "
                f"{definition.outputs[0].name!r}, is a single number, of whose closeness a cosine says nothing"
            )

    @property
    def _is_single(self) -> bool:
        """Whether the first output is one number for each row: any two of the same sign have a cosine of 1."""
        dims = self._definition.outputs[0].dims[1 if self._definition.batched else 0 :]
        return all(size == 1 for size in dims)

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
        """The definition's gates; without any, that the first output stays close to FP32's."""
        limits: list[Limit] = []
        for gate in self._definition.gates:
            if gate.at_least is not None:
                limits.append(AtLeast(gate.score, gate.at_least))
            if gate.may_fall is not None:
                limits.append(MayFall(gate.score, gate.may_fall))
        return limits or [CLOSE]

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
            yield feed

    def _samples(self) -> Iterator[Feed]:
        yield from self._definition.checked("samples", self._definition.samples())

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """The first output for each row of the samples, flat, and filled up with zeros to one length.

        Raises:
            DefinitionError: the model cannot answer a sample. Names it.
        """
        del built, split
        answers = [self._answer(model, feed, number) for number, feed in enumerate(self._samples())]
        rows = [row for answer in answers for row in self._rows(answer)]
        longest = max(row.size for row in rows)
        return np.stack([np.pad(row, (0, longest - row.size)) for row in rows])

    def _answer(self, model: Runner, feed: Feed, number: int) -> FloatArray:
        what = f"{self._definition.name}: samples {number}"
        try:
            answer = model.run(feed)
        except RunError as error:
            raise DefinitionError(f"{what}: {error}") from error
        self._definition.check_answer(feed, {"": answer}, what)
        return answer

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """Cosine of each row to FP32's, where it has a direction. The zeros at the end change nothing."""
        del built, split
        return {} if self._is_single else {COSINE: cosine(answers, fp32)}

    def figures(self, model: Runner) -> Figures:
        """What `evaluate` says.

        Raises:
            DefinitionError: `evaluate` gives what is no score, or a gate is about a score that it does not give.
        """
        assert isinstance(model, Session), "a definition has no peers"
        return self._definition.evaluated(model.predict)

    def companies(self, built: Path) -> Iterable[Company]:
        """Each row alone and all together: of samples and the first calibration input, and of those of a row alone.

        Raises:
            DefinitionError: no two rows of one shape are among them, so that nothing could be said.
        """
        if self._definition.max_batch_size <= 1:
            return
        lone: dict[tuple[tuple[int, ...], ...], list[Feed]] = {}
        first, *others = islice(self.calibration(built), COMPANY_ROWS)
        found = False
        for feed in chain(self._samples(), [first, *(one for one in others if self._count(one) == 1)]):
            if self._count(feed) == 1:
                alike = lone.setdefault(tuple(feed[one.name].shape for one in self._definition.inputs), [])
                if len(alike) < COMPANY_ROWS:
                    alike.append(feed)
            else:
                found = True
                yield self._company(feed)
        for rows in lone.values():
            if len(rows) > 1:
                found = True
                yield self._company({name: np.concatenate([one[name] for one in rows]) for name in rows[0]})
        if not found:
            raise DefinitionError(
                f"{self._definition.name}: samples: expected two rows or more of one shape, there or in the first "
                f"{COMPANY_ROWS} of calibration, to compare alone and in company; got each with one row of its own"
            )

    def _company(self, feed: Feed) -> Company:
        rows = range(min(self._count(feed), COMPANY_ROWS))
        return [self._take(feed, [row]) for row in rows], self._take(feed, rows)

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """All outputs."""
        assert isinstance(model, Session), "a definition has no peers"
        return list(model.predict(feed).values())

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """The first sample, alone and as a full batch of up to 32."""
        del built
        first = next(self._samples())
        if not self._definition.batched:
            return {"one": first}
        most = self._definition.max_batch_size
        return {str(rows): self._take(first, range(rows)) for rows in dict.fromkeys(min(n, most) for n in LATENCY_ROWS)}

    def peers(self) -> Mapping[str, Peer]:
        """None."""
        return {}

    def _rows(self, output: FloatArray) -> list[FloatArray]:
        return [row.ravel() for row in output] if self._definition.batched else [output.ravel()]

    def _count(self, feed: Feed) -> int:
        return len(feed[next(one.name for one in self._definition.inputs if one.dims[:1] == (BATCH,))])

    @staticmethod
    def _take(feed: Feed, rows: Any) -> Feed:
        return {name: np.take(value, rows, axis=0, mode="wrap") for name, value in feed.items()}
