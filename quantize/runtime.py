"""ONNX Runtime's quantizers: run through files, quietly, and failing as this project does."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.errors import ExportError
from export.folder import naming
from export.graph import GraphError


def through_files(model: onnx.ModelProto, run: Callable[[Path, Path], None]) -> onnx.ModelProto:
    """Run one of them, which read and write files, on a graph that is prepared as they want it.

    Raises:
        GraphError: it fails.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-quantize-") as scratch:
        source, prepared, raw = (Path(scratch, f"{name}.onnx") for name in ("source", "prepared", "raw"))
        with naming(source):
            onnx.save(model, source)
        with quiet(), failing():
            # Symbolic shape inference does not get through a transformer with dynamic axes; ONNX's own does.
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            run(prepared, raw)
        return onnx.load(raw)


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """Tell an error of onnxruntime's quantizers, of whatever class, as one of a graph."""
    try:
        yield
    except (ExportError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"ONNX Runtime cannot quantize it: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what onnxruntime's quantizers print, log and warn of, and take back what they do to the root logger."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Of ranges without an end, which are refused when it is done.
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:], root.level = handlers, level
