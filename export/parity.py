"""Parity: does the ONNX graph compute what the PyTorch model computes."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from export.card import Parity
from export.definition import Feed, FloatArray
from export.errors import ExportError
from export.session import open_session

if TYPE_CHECKING:
    from torch import nn


class ParityError(ExportError):
    """The exported graph does not compute what the PyTorch model computes."""


def check_parity(module: "nn.Module", onnx_path: Path, feeds: Iterable[Feed], tolerance: float) -> Parity:
    """Run both on the same feeds and compare.

    Args:
        module: the PyTorch model, in eval mode.
        onnx_path: its export; loading it in ONNX Runtime is part of the proof.
        feeds: real inputs, in several shapes.
        tolerance: the largest absolute difference allowed.

    Raises:
        ParityError: they differ by more, in shape, or there was nothing to compare. Names the feed's shape.
    """
    session = open_session(onnx_path)
    worst, shapes = 0.0, []
    for feed in feeds:
        shape = describe(feed)
        difference = max_abs_diff(run_module(module, feed), session.run(feed), shape)
        # Written so that a NaN, which compares false with everything, is refused.
        if not difference <= tolerance:
            raise ParityError(
                f"{onnx_path.name} differs from PyTorch on {shape}: "
                f"expected at most {tolerance:.1e}, got {difference:.1e}"
            )
        worst = max(worst, difference)
        shapes.append(shape)
    if not shapes:
        raise ParityError(f"{onnx_path.name}: there is no real input to compare on")
    return Parity(max_abs_diff=worst, tolerance=tolerance, shapes=tuple(shapes))


def run_module(module: "nn.Module", feed: Feed) -> FloatArray:
    """The module's single output for one feed, FP32."""
    with torch.inference_mode():
        output = module(**{name: torch.from_numpy(value) for name, value in feed.items()})
    return np.asarray(output.numpy(), dtype=np.float32)


def max_abs_diff(expected: FloatArray, got: FloatArray, shape: str) -> float:
    """The largest absolute difference of two arrays of one shape.

    Raises:
        ParityError: their shapes differ.
    """
    if expected.shape != got.shape:
        raise ParityError(f"output shape on {shape}: expected {expected.shape}, got {got.shape}")
    return float(np.max(np.abs(expected - got)))


def describe(feed: Feed) -> str:
    """A feed's shapes as text: `input_ids[2,16] attention_mask[2,16]`."""
    return " ".join(f"{name}[{','.join(map(str, value.shape))}]" for name, value in feed.items())
