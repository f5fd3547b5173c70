"""Activation ranges, as calibration sees them: of each activation, and the reach of each of its channels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from export.definition.tensor import Feed, FloatArray, beyond, extent
from export.graph.graph_file import saved
from export.inference.session import refusal
from quantize.quantizing.calibration import CalibrationError

U8_STEPS: Final = 255


@dataclass(frozen=True)
class Seen:
    """An activation in calibration: least and largest value, and the largest |x| of each channel (last axis)."""

    least: float
    largest: float
    reach: FloatArray

    def scale_and_zero(self) -> tuple[np.float32, np.uint8]:
        """The u8 grid that covers the range, with zero on a step of it: x = scale * (q - zero)."""
        least, largest = min(self.least, 0.0), max(self.largest, 0.0)
        scale = (largest - least) / U8_STEPS or 1.0
        return np.float32(scale), np.uint8(round(-least / scale))


def observe(model: onnx.ModelProto, activations: Sequence[str], feeds: Iterable[Feed]) -> Mapping[str, Seen]:
    """Run a graph on feeds and record what its activations reach.

    Args:
        model: the FP32 graph.
        activations: names of FP32 tensors in it.
        feeds: calibration inputs, without padding.

    Raises:
        CalibrationError: there are no feeds, or on one of them the graph does not run or an activation is not finite.
            Names the feed by its number.
    """
    if not activations:
        return {}
    seen: dict[str, Seen] = {}
    for values in values_of(model, activations, feeds):
        seen.update({name: _wider(seen.get(name), one) for name, one in values.items()})
    if not seen:
        raise CalibrationError("expected feeds to calibrate on, got none")
    return seen


def values_of(
    model: onnx.ModelProto, activations: Sequence[str], feeds: Iterable[Feed]
) -> Iterator[Mapping[str, FloatArray]]:
    """What activations are on each feed, by name; arguments and errors as of `observe`."""
    if not activations:
        return
    names = list(dict.fromkeys(activations))
    inputs = {one.name for one in model.graph.input}
    computed = [name for name in names if name not in inputs]
    session = _session(model, computed)
    for number, feed in enumerate(feeds):
        got = _run(session, computed, feed, number)
        found = {name: got[name] if name in got else feed[name] for name in names}
        for name, values in found.items():
            if not np.isfinite(values).all():
                worst = values[~np.isfinite(values)][0]
                what = beyond(feed) or f"{name!r} in the graph: expected numbers, got {worst:g}, of {extent(feed)}"
                raise CalibrationError(f"calibration {number}: {what}")
        yield found


def _run(session: ort.InferenceSession, names: Sequence[str], feed: Feed, number: int) -> dict[str, FloatArray]:
    if not names:
        return {}
    try:
        return dict(zip(names, session.run(names, dict(feed)), strict=True))
    except Exception as error:  # onnxruntime raises classes that share no base of their own
        raise CalibrationError(refusal(f"calibration {number}", feed, error)) from error


def _session(model: onnx.ModelProto, computed: Sequence[str]) -> ort.InferenceSession:
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    there = {output.name for output in observed.graph.output}
    wanted = [name for name in computed if name not in there]
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with saved(observed) as path:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _wider(before: Seen | None, values: FloatArray) -> Seen:
    reach = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
    now = Seen(float(values.min()), float(values.max()), reach)
    if before is None:
        return now
    return Seen(min(before.least, now.least), max(before.largest, now.largest), np.maximum(before.reach, now.reach))
