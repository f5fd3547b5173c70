"""The recipe of a model: what is quantized, on what data, and what it must still be able to do."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import onnx

from export.catalog import chosen
from export.definition import Feed
from export.session import Session
from quantize.gate import Limit

Scores = Mapping[str, float]


class Recipe(Protocol):
    """One model, as the quantizer and the gate see it. Each file of `quantize.models` has one, named `RECIPE`."""

    @property
    def summary(self) -> str:
        """The recipe in one line, for the model card."""

    @property
    def limits(self) -> Sequence[Limit]:
        """What the gate asks for."""

    def nodes(self, graph: onnx.GraphProto) -> Sequence[str]:
        """Names of the nodes to quantize."""

    def calibration(self, built: Path) -> Iterator[Feed]:
        """Real inputs from which the ranges of activations are taken.

        Args:
            built: the folder of the export, with its assets.
        """

    def scores(self, fp32: Session, int8: Session, built: Path) -> tuple[Scores, Scores]:
        """The same scores of both models, on inputs that calibration has not seen. Higher is better."""

    def latency_feed(self, rows: int, built: Path) -> Feed:
        """A typical request of that many rows."""


def load_recipe(name: str) -> Recipe:
    """Import `quantize.models.NAME` and return its `RECIPE`.

    Raises:
        UnknownModelError: the name is not in the catalog.
    """
    (known,) = chosen([name])
    return cast(Recipe, importlib.import_module(f"quantize.models.{known}").RECIPE)
