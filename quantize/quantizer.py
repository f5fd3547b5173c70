"""The quantizer: an FP32 graph and a recipe in, an INT8 graph out. Static, so no request shapes another's answer.

Activations are u8 and weights s8 with one scale per channel, as quantize/dequantize pairs (QDQ) that ONNX Runtime
fuses into integer kernels where it has them. u8 weights would be six times slower than FP32 on a convolution.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.definition import Feed
from export.graph import write_graph
from quantize.recipe import Recipe


class FeedReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration feeds, in the form onnxruntime asks for them."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, or None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def quantize_graph(recipe: Recipe, fp32: Path, built: Path, int8: Path) -> None:
    """Write the INT8 form of a graph.

    Args:
        recipe: what to quantize, and on what data to calibrate.
        fp32: the graph to read.
        built: the folder of the export, with its assets.
        int8: the file to write.

    Raises:
        GraphError: the result is not a valid graph.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-quantize-") as scratch:
        prepared, raw = Path(scratch, "prepared.onnx"), Path(scratch, "raw.onnx")
        # Symbolic shape inference does not get through a transformer with dynamic axes; ONNX's own does.
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(raw),
            FeedReader(recipe.calibration(built)),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=list(recipe.nodes(onnx.load(prepared).graph)),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # The full range seen: cutting off tails (percentiles) ruins accuracy in both models.
            calibrate_method=CalibrationMethod.MinMax,
        )
        write_graph(onnx.load(raw), int8)
