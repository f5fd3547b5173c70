from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.exporter import trace
from export.parity import ParityError, check_parity, max_abs_diff


@pytest.fixture
def onnx_path(tiny: Any, tmp_path: Path) -> Path:
    trace(tiny, tiny.module(), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


class Shifted(nn.Module):
    """What the tiny model computes, and something on top."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1 + self.by


def test_agreement_is_recorded_with_every_shape(tiny: Any, onnx_path: Path) -> None:
    parity = check_parity(tiny.module(), onnx_path, tiny.real_feeds(), 1e-6)
    assert parity.max_abs_diff <= 1e-6
    assert parity.shapes == ("x[1,3]", "x[2,3]", "x[7,3]")


@pytest.mark.parametrize("by", [0.5, float("nan"), float("inf")])
def test_difference_is_refused_naming_shape_expected_and_got(tiny: Any, onnx_path: Path, by: float) -> None:
    with pytest.raises(ParityError, match=r"x\[1,3\]: expected at most 1.0e-06, got (5.0e-01|nan|inf)"):
        check_parity(Shifted(by), onnx_path, tiny.real_feeds(), 1e-6)


def test_nothing_to_compare_on_is_no_agreement(tiny: Any, onnx_path: Path) -> None:
    nothing: Iterator[Any] = iter(())
    with pytest.raises(ParityError, match="no real input"):
        check_parity(tiny.module(), onnx_path, nothing, 1e-6)


def test_outputs_of_other_shape_are_refused() -> None:
    with pytest.raises(ParityError, match=r"expected \(1, 3\), got \(3,\)"):
        max_abs_diff(np.zeros((1, 3), np.float32), np.zeros(3, np.float32), "x[1,3]")
