"""The task of a model: how it is quantized, and what it must still do well enough afterwards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from export.batch_proof.batch_composition import BatchComposition
from export.definition.tensor import Array, Feed, FloatArray, Outcome
from export.errors import ExportError
from quantize.accuracy.accuracy_gate import Limit
from quantize.recipe import Recipe

# What recipes are compared on, and what the chosen one is judged on. Calibration has seen neither.
Split = Literal["choose", "judge"]
# What each sample came to, by score: a score is the mean over samples. Higher is better.
Outcomes = Mapping[str, Outcome]
# Scores that need a model itself: figures, or what samples came to.
Figures = Mapping[str, float | Outcome]


class NoTaskError(ExportError):
    """A model has no task, so it can be served as FP32 only."""


class Runner(Protocol):
    """A loaded model: a feed in, its first output FP32 out. `export.inference.session.Session` is one."""

    def run(self, feed: Feed) -> FloatArray:
        """The first output for one feed."""


class Peer(Protocol):
    """Somebody else's quantized form of the same model, to compare with."""

    @property
    def size_bytes(self) -> int:
        """Size of its file."""

    def run(self, feed: Feed) -> FloatArray:
        """The first output for one feed of ours."""


class Task(Protocol):
    """One model, as the quantizer and the gate see it. Each file of `quantize.models` has one, named `TASK`."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that is published, found by `fairlane quantize NAME --search`."""

    @property
    def candidates(self) -> Mapping[str, Recipe]:
        """What the search tries, by short names."""

    @property
    def limits(self) -> Sequence[Limit]:
        """What the gate asks for, besides batch invariance."""

    @property
    def error_most(self) -> float:
        """How far each channel of each output may be from FP32's, as a part of what it varies by."""

    def calibration(self, built: Path) -> Iterator[Feed]:
        """Real inputs from which the ranges of activations are taken.

        Args:
            built: the folder of the export, with its assets.
        """

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """The model's outputs for every sample of a split, one row each."""

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """What a model's answers are worth; `fp32` are those of the FP32 export on the same samples."""

    def figures(self, model: Runner) -> Figures:
        """Further scores: one figure each, and so without an interval, or what samples came to. Mostly none."""

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        """Rows that must get the same answer alone and together, of varied lengths."""

    def feeds(self, built: Path) -> Iterator[Feed]:
        """Real inputs, on which every output of INT8 is held to FP32's. See `quantize.accuracy.fidelity`."""

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """The outputs for a feed in which every row must get the same answer alone and together, each [rows, ...]."""

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """Typical requests, by the name of their shape."""

    def peers(self) -> Mapping[str, Peer]:
        """Those that are installed."""
