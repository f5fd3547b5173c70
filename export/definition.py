"""The definition of a model: everything the exporter has to know that differs from model to model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from export.card import Source

if TYPE_CHECKING:
    from torch import nn

# What one inference request carries: input name -> tensor. Also the form onnxruntime takes.
Feed = Mapping[str, npt.NDArray[Any]]
FloatArray = npt.NDArray[np.float32]


class Definition(Protocol):
    """One model, as the exporter sees it. Each file of `export.models` has one, named `DEFINITION`."""

    @property
    def name(self) -> str:
        """The model's name in Triton, and of its folders."""

    @property
    def output_name(self) -> str:
        """The name of its single output."""

    @property
    def tolerance(self) -> float:
        """The largest absolute difference to PyTorch that an export may show."""

    def source(self) -> Source:
        """Where the weights come from. Reads and verifies them.

        Raises:
            ExportError: the weights are absent, or not the ones that were reviewed.
        """

    def module(self) -> "nn.Module":
        """The PyTorch model in eval mode. Its forward takes the inputs by name and returns one tensor."""

    def example(self) -> Feed:
        """The feed to trace with. Every dynamic axis is longer than 1, or the exporter would make it a constant."""

    def dynamic_axes(self) -> Mapping[str, Mapping[int, str]]:
        """For each input: axis -> symbolic name of each dimension that may vary."""

    def real_feeds(self) -> Iterator[Feed]:
        """Real inputs in several shapes, on which the export must agree with PyTorch."""

    def write_assets(self, folder: Path) -> None:
        """Write the files that callers and the accuracy gate need into `folder`."""
