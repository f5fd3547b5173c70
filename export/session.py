"""A session: one ONNX file loaded in ONNX Runtime on the CPU, typed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.definition import Feed, FloatArray
from export.errors import ExportError


class LoadError(ExportError):
    """ONNX Runtime refuses a model file."""


class Session:
    """A loaded model with one FP32 output."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def run(self, feed: Feed) -> FloatArray:
        """The model's first output for one feed.

        Raises:
            onnxruntime's own errors, where the feed does not fit the model's inputs.
        """
        return np.asarray(self._inner.run(None, dict(feed))[0], dtype=np.float32)


def open_session(path: Path, threads: int = 0) -> Session:
    """Load an ONNX file.

    Args:
        path: the file.
        threads: intra-op threads; 0 lets ONNX Runtime take all cores.

    Raises:
        LoadError: ONNX Runtime refuses the file. The message carries its reason.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return Session(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime raises classes that share no base of their own
        raise LoadError(f"{path.name}: ONNX Runtime refuses it: {error}") from error
