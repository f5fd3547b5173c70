from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.definition import Definition, Feed
from export.definition.tensor import describe
from export.errors import DefinitionError
from export.exporting.exporter import trace
from export.graph.onnx_graph import write_graph
from export.inference.parity import ParityError, check_parity, max_abs_diff, trace_feed


@pytest.fixture(scope="module")
def onnx_path(tiny: Definition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export for all: nothing here writes to it."""
    assert tiny.module is not None
    path = tmp_path_factory.mktemp("parity") / "tiny.onnx"
    write_graph(trace(tiny, tiny.module()), path)
    return path


class Shifted(nn.Module):
    """What the tiny model computes, and something on top."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1 + self.by


def test_agreement_is_recorded_with_every_shape_up_to_the_largest_batch(tiny: Definition, onnx_path: Path) -> None:
    parity = check_parity(tiny, Shifted(0.0), onnx_path)
    assert parity.max_abs_diff <= 1e-6
    assert parity.shapes == ("x[1,3]", "x[2,3]", "x[7,3]", "x[32,3]")


@pytest.mark.parametrize("by", [0.5, float("nan"), float("inf")])
def test_difference_is_refused_naming_shape_expected_and_got(tiny: Definition, onnx_path: Path, by: float) -> None:
    with pytest.raises(ParityError, match=r"x\[1,3\]: expected at most 1.0e-06, got (5.0e-01|nan|inf)"):
        check_parity(tiny, Shifted(by), onnx_path)


def test_sample_that_nothing_can_be_computed_of_is_named(tiny: Definition, onnx_path: Path) -> None:
    def samples() -> Iterator[Feed]:
        yield {"x": np.zeros((2, 3), np.float32)}
        yield {"x": np.array([[0, 0, np.inf]], np.float32)}

    with pytest.raises(ParityError) as refused:
        check_parity(replace(tiny, samples=samples), Shifted(0.0), onnx_path)
    told = "got nan; samples 1: input 'x': expected numbers of at most 1.8e+19, got inf at [0, 2]"
    assert str(refused.value).endswith(told)


def test_nothing_to_compare_on_is_no_agreement(tiny: Definition, onnx_path: Path) -> None:
    with pytest.raises(DefinitionError, match="samples: expected a feed or more each time it is called, got none"):
        check_parity(replace(tiny, samples=lambda: ()), Shifted(0.0), onnx_path)


def test_outputs_of_other_shape_are_refused() -> None:
    with pytest.raises(ParityError, match=r"output 'y' on x\[1,3\]: expected shape \(1, 3\), got \(3,\)"):
        max_abs_diff({"y": np.zeros((1, 3))}, {"y": np.zeros(3)}, "x[1,3]")


@pytest.mark.parametrize("nan", [0, 1])
def test_not_a_number_in_any_output_is_the_difference(nan: int) -> None:
    values = [np.zeros(2), np.zeros(2)]
    got = [value + (np.nan if place == nan else 0) for place, value in enumerate(values)]
    assert np.isnan(max_abs_diff(dict(zip("ab", values, strict=True)), dict(zip("ab", got, strict=True)), ""))


def test_sample_that_does_not_fit_is_named_before_anything_runs(tiny: Definition) -> None:
    wide = replace(tiny, samples=lambda: [{"x": np.zeros((2, 3), np.float64)}])
    with pytest.raises(DefinitionError, match="digits: samples 0: input 'x': expected FP32, got float64"):
        trace(wide, Shifted(0.0))


def test_tracing_needs_a_sample_longer_than_one_on_every_varying_axis(tiny: Definition) -> None:
    with pytest.raises(ParityError, match=r"every varying axis \(batch\) is longer than 1, got none"):
        trace_feed(tiny, [{"x": np.zeros((1, 3), np.float32)}])


def test_many_inputs_are_described_in_short() -> None:
    assert describe({name: np.zeros(1) for name in "abcdef"}) == "a[1] b[1] c[1] d[1] and 2 more"


def test_infinity_on_both_sides_is_agreement_and_on_one_is_none() -> None:
    masked = np.array([[1.0, -np.inf]], np.float32)
    assert max_abs_diff({"y": masked}, {"y": masked + 0.5}, "") == pytest.approx(0.5)
    for other in (-masked, np.zeros_like(masked), masked * np.nan):
        assert not max_abs_diff({"y": masked}, {"y": other}, "") < np.inf
