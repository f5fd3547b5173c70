from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.card import Source
from export.definition import Feed


class TinyDefinition:
    """A model that exports in a second: y = 2x + 1."""

    name = "tiny"
    output_name = "y"

    def __init__(self, tolerance: float = 1e-6) -> None:
        self.tolerance = tolerance

    def source(self) -> Source:
        return Source(package="none", version="1", file="none", sha256="0" * 64, licence="none")

    def module(self) -> nn.Module:
        return Affine(2.0).eval()

    def example(self) -> Feed:
        return {"x": np.ones((2, 3), dtype=np.float32)}

    def dynamic_axes(self) -> Mapping[str, Mapping[int, str]]:
        return {"x": {0: "batch"}}

    def real_feeds(self) -> Iterator[Feed]:
        for rows in (1, 2, 7):
            yield {"x": np.linspace(-1, 1, rows * 3, dtype=np.float32).reshape(rows, 3)}

    def write_assets(self, folder: Path) -> None:
        (folder / "asset.txt").write_text("asset")


class Affine(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + 1


@pytest.fixture
def tiny() -> TinyDefinition:
    return TinyDefinition()
