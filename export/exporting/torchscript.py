"""The graph of a module that is TorchScript already: traced, scripted, or read from a file of either.

PyTorch's exporter takes Python modules alone. The older one, which PyTorch still has, reads TorchScript.
"""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from export.definition import Definition
from export.definition.tensor import Feed
from export.errors import ExportError
from export.graph.onnx_graph import OPSET, read_graph


def is_scripted(module: nn.Module) -> bool:
    """Whether a module is TorchScript, or has a part that is."""
    return any(isinstance(one, torch.jit.ScriptModule) for one in module.modules())


def trace_scripted(definition: Definition, module: nn.Module, feed: Feed) -> onnx.ModelProto:
    """The module's ONNX graph.

    Args:
        definition: names the ends, and the axes that vary.
        module: in eval mode.
        feed: an input in which each of these is longer than 1.

    Raises:
        ExportError: PyTorch's exporter fails; the message carries its reason.
    """
    tensors = (*definition.inputs, *definition.outputs)
    given = tuple(torch.from_numpy(feed[tensor.name]) for tensor in definition.inputs)
    with tempfile.TemporaryDirectory(prefix="fairlane-export-") as scratch:
        # A file, as what is larger than 2 GB cannot be in one message: its weights lie beside it.
        path = Path(scratch, "model.onnx")
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                # That it is the older exporter, and what its tracing of Python would be warned of.
                warnings.simplefilter("ignore")
                # Python around a scripted part: the exporter does not get through it by itself.
                whole = isinstance(module, torch.jit.ScriptModule)
                torch.onnx.export(
                    module if whole else _traced(module, given),
                    given,
                    str(path),
                    input_names=[tensor.name for tensor in definition.inputs],
                    output_names=[tensor.name for tensor in definition.outputs],
                    dynamic_axes={tensor.name: tensor.varying() for tensor in tensors},
                    opset_version=OPSET,
                    dynamo=False,
                )
        except Exception as error:  # of its own classes, TorchScript's, and RuntimeError
            reason = " ".join(str(error).split())
            raise ExportError(
                f"{definition.name}: PyTorch cannot export this TorchScript: {type(error).__name__}: {reason:.300}; "
                "have module() return the Python module that it was made from"
            ) from error
        return read_graph(path)


def _traced(module: nn.Module, given: tuple[torch.Tensor, ...]) -> Any:
    trace: Any = torch.jit.trace
    return trace(module, given, check_trace=False)
