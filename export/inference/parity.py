"""Parity: whether the ONNX graph computes what the PyTorch model computes, at every shape that is served."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from export.card import Parity
from export.definition import Definition
from export.definition.tensor import Array, Feed, beyond, check_array, describe
from export.errors import ExportError
from export.inference.session import Device, RunError, Session, open_session

if TYPE_CHECKING:
    from torch import nn

# Batches that the first sample is repeated to, beside the largest: one row, two, and an odd number.
ROWS: Final = (1, 2, 7)


class ParityError(ExportError):
    """The exported graph does not compute what the PyTorch model computes."""


def parity_feeds(definition: Definition) -> Iterator[Feed]:
    """The samples as they are, then the first of them in batches of 1, 2, 7 and max_batch_size rows.

    Raises:
        DefinitionError: a sample does not fit the declared inputs.
    """
    first: Feed | None = None
    for feed in definition.checked("samples", definition.samples()):
        first = feed if first is None else first
        yield feed
    if first is not None and definition.batched:
        for rows in sorted({*ROWS, definition.max_batch_size}):
            if rows <= definition.max_batch_size:
                yield {name: np.take(value, range(rows), axis=0, mode="wrap") for name, value in first.items()}


def check_parity(definition: Definition, module: "nn.Module | None", onnx_path: Path, device: Device = "cpu") -> Parity:
    """Run both on the same feeds and compare.

    Args:
        definition: its samples, outputs and tolerance.
        module: the PyTorch model, in eval mode; None where an ONNX file is all there is: then it must run on every
            feed and give what was declared.
        onnx_path: the export; loading it in ONNX Runtime is part of the proof.
        device: where the export runs. PyTorch always runs on the CPU.

    Raises:
        ParityError: they differ by more than the tolerance, in shape or in type, the graph fails on a feed, or there
            was nothing to compare. Names the feed's shape.
    """
    session = open_session(onnx_path, device=device)
    worst, shapes = 0.0, []
    for number, feed in enumerate(parity_feeds(definition)):
        shape = describe(feed)
        got = _run(session, feed, f"{definition.name}: samples {number}")
        _check_outputs(definition, feed, got, f"{onnx_path.name} on {shape}: output")
        if module is not None:
            difference, beside = max_abs_diff(run_module(definition, module, feed), got, shape), beyond(feed)
            if beside and not all(np.isfinite(value).all() for value in got.values() if value.dtype.kind == "f"):
                # What comes of no number proves nothing, though both sides give it.
                difference = np.nan
            if said := _apart(definition, onnx_path, shape, difference):
                raise ParityError(said + (f"; samples {number}: {beside}" if beside else ""))
            worst = max(worst, difference)
        shapes.append(shape)
    return Parity(max_abs_diff=worst, tolerance=definition.tolerance, shapes=tuple(dict.fromkeys(shapes)))


def check_sample(definition: Definition, module: "nn.Module", onnx_path: Path) -> None:
    """Run both on the first sample: whether an export that is there already is still one of this module.

    Args:
        definition: its samples, outputs and tolerance.
        module: the PyTorch model, in eval mode.
        onnx_path: the export.

    Raises:
        ParityError: they differ by more than the tolerance, in shape or in type.
        RunError: the graph fails on it.
    """
    feed = next(definition.checked("samples", definition.samples()))
    shape = describe(feed)
    difference = max_abs_diff(run_module(definition, module, feed), open_session(onnx_path).predict(feed), shape)
    if said := _apart(definition, onnx_path, shape, difference):
        raise ParityError(f"{definition.name}: {said}; export it again where the model has changed since")


def _apart(definition: Definition, onnx_path: Path, shape: str, difference: float) -> str | None:
    # Written so that a NaN, which compares false with everything, is refused.
    if difference <= definition.tolerance:
        return None
    return (
        f"{onnx_path.name} differs from PyTorch on {shape}: "
        f"expected at most {definition.tolerance:.1e}, got {difference:.1e}"
    )


def run_module(definition: Definition, module: "nn.Module", feed: Feed) -> Mapping[str, Array]:
    """The module's outputs for one feed, by name.

    Raises:
        ParityError: it returned another number of outputs, or other names, than the definition declares.
    """
    # Not torch.inference_mode(): TorchScript that was run outside of it, as by its export, fails in it.
    with torch.no_grad():
        returned: Any = module(*(torch.from_numpy(feed[tensor.name]) for tensor in definition.inputs))
    names = [tensor.name for tensor in definition.outputs]
    if isinstance(returned, torch.Tensor):
        returned = (returned,)
    if isinstance(returned, Mapping):
        returned = dict(returned)
    elif isinstance(returned, Sequence):
        returned = dict(zip(names, returned, strict=False)) if len(returned) == len(names) else list(returned)
    if not isinstance(returned, dict) or list(returned) != names:
        got = list(returned) if isinstance(returned, dict) else f"{len(returned)} outputs"
        raise ParityError(f"{definition.name}: the module: expected outputs {names}, got {got}")
    return {name: value.detach().numpy() for name, value in returned.items()}


def max_abs_diff(expected: Mapping[str, Array], got: Mapping[str, Array], shape: str) -> float:
    """The largest absolute difference of outputs of the same shapes.

    Raises:
        ParityError: shapes differ.
    """
    worst = 0.0
    for name, want in expected.items():
        have = got[name]
        if want.shape != have.shape:
            raise ParityError(f"output {name!r} on {shape}: expected shape {want.shape}, got {have.shape}")
        if want.size:
            # Infinity less infinity is no number; the same on both sides, as of what is masked, is agreement.
            with np.errstate(invalid="ignore"):
                apart = np.abs(want.astype(np.float64) - have.astype(np.float64))
            difference = float(np.max(np.where((want == have) & np.isinf(want), 0, apart)))
            # max() would pass over a NaN that comes second.
            worst = difference if np.isnan(difference) or difference > worst else worst
    return worst


def _run(session: Session, feed: Feed, what: str) -> Mapping[str, Array]:
    try:
        return session.predict(feed)
    except RunError as error:
        raise ParityError(f"{what}: {error}") from error


def _check_outputs(definition: Definition, feed: Feed, got: Mapping[str, Array], what: str) -> None:
    sizes: dict[str, int] = {}
    for tensor in definition.inputs:
        for axis, name in tensor.varying().items():
            sizes[name] = feed[tensor.name].shape[axis]
    for tensor in definition.outputs:
        check_array(tensor, got[tensor.name], sizes, what)


def trace_feed(definition: Definition, feeds: Iterable[Feed]) -> Feed:
    """The first feed in which every varying axis is longer than 1: the exporter makes a constant of any other.

    Raises:
        ParityError: there is none among the samples.
    """
    for feed in feeds:
        if all(feed[one.name].shape[axis] > 1 for one in definition.inputs for axis in one.varying()):
            return feed
    raise ParityError(
        f"{definition.name}: samples: expected one in which every varying axis ({', '.join(definition.axes())}) "
        "is longer than 1, got none"
    )
