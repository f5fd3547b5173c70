"""ONNX Runtime's quantizers: run through files, without their output, and with errors of this project."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.errors import ExportError
from export.graph.graph_file import is_large, save_graph
from export.graph.onnx_graph import GraphError

# Of a graph that is too large for one file.
PREPARED_WEIGHTS: Final = "prepared.bin"


def is_apart(prepared: Path) -> bool:
    """Whether a prepared graph, and so the one that is made of it, has its weights in a file of their own."""
    return prepared.with_name(PREPARED_WEIGHTS).is_file()


def through_files(model: onnx.ModelProto, run: Callable[[Path, Path], None], fused: bool = True) -> onnx.ModelProto:
    """Run one of them, which read and write files, on a graph that is prepared as they want it.

    Args:
        model: the graph.
        run: given the files to read and to write.
        fused: whether preparing may join nodes, as a product and its bias to a Gemm.

    Raises:
        GraphError: it fails.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-quantize-") as scratch:
        source, prepared, raw = (Path(scratch, f"{name}.onnx") for name in ("source", "prepared", "raw"))
        save_graph(model, source)
        apart = {"all_tensors_to_one_file": True, "external_data_location": PREPARED_WEIGHTS}
        with quiet(), failing():
            # Symbolic shape inference does not get through a transformer with dynamic axes; ONNX's own does.
            quant_pre_process(
                str(source),
                str(prepared),
                skip_optimization=not fused,
                skip_symbolic_shape=True,
                save_as_external_data=is_large(model),
                **(apart if is_large(model) else {}),
            )
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
