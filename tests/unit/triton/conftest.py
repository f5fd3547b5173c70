"""The embedded backend's model.py in this Python, with a stand-in for what Triton's stub gives it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scheduler.triton.launcher_environment import EMBEDDED

TYPES = {
    "TYPE_FP32": (np.float32, TensorProto.FLOAT),
    "TYPE_INT64": (np.int64, TensorProto.INT64),
    "TYPE_STRING": (np.object_, TensorProto.STRING),
}


class Tensor:
    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        if isinstance(self._array, Exception):
            raise self._array
        return self._array


class TritonError:
    INVALID_ARG, INTERNAL = "INVALID_ARG", "INTERNAL"

    def __init__(self, message, code):
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        self.outputs = {tensor.name(): tensor.as_numpy() for tensor in output_tensors}
        self.error = error


class Logger:
    def __init__(self):
        self.errors = []

    def log_error(self, message):
        self.errors.append(message)


class Request:
    def __init__(self, inputs, wanted):
        self._inputs = [Tensor(name, array) for name, array in inputs.items()]
        self._wanted = wanted

    def inputs(self):
        return self._inputs

    def requested_output_names(self):
        return self._wanted


@pytest.fixture
def backend(monkeypatch):
    """The module model.py, freshly loaded, and what it imports from beside it as in Triton."""
    stand_in = ModuleType("triton_python_backend_utils")
    stand_in.Tensor, stand_in.TritonError, stand_in.InferenceResponse = Tensor, TritonError, InferenceResponse
    stand_in.InferenceRequest = Request
    stand_in.Logger = Logger()
    stand_in.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    stand_in.TRITON_STRING_TO_NUMPY = {name: dtype for name, (dtype, _) in TYPES.items()}
    stand_in.triton_string_to_numpy = stand_in.TRITON_STRING_TO_NUMPY.__getitem__
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    beside = ("reader_cpus", "batch_runner", "completion")
    for name, file in (*zip(beside, beside, strict=True), ("embedded_model", "model")):
        spec = importlib.util.spec_from_file_location(name, EMBEDDED / "onnxruntime" / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def load(backend, tmp_path):
    """Build a graph and load it: load(nodes, inputs, outputs, **config) -> TritonPythonModel.

    Tensors are name -> (type as in config.pbtxt, dims without the batch axis); `graph_inputs` and
    `graph_outputs` are the graph's own where they differ from the configuration.
    """

    def build(nodes, inputs, outputs, *, graph_inputs=None, graph_outputs=None, batch=("n",), constants=(), **config):
        def values(tensors):
            return [
                helper.make_tensor_value_info(name, TYPES[kind][1], [*batch, *(None if d < 0 else d for d in dims)])
                for name, (kind, dims) in tensors.items()
            ]

        def entries(tensors):
            return [{"name": name, "data_type": kind, "dims": dims} for name, (kind, dims) in tensors.items()]

        graph = helper.make_graph(
            nodes, "tiny", values(graph_inputs or inputs), values(graph_outputs or outputs), list(constants)
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        (tmp_path / "1").mkdir()
        onnx.save(model, tmp_path / "1" / "model.onnx")
        configuration = {"max_batch_size": 8, "input": entries(inputs), "output": entries(outputs), **config}
        instance = backend.TritonPythonModel()
        instance.initialize(
            {
                "model_config": json.dumps(configuration),
                "model_repository": str(Path(tmp_path)),
                "model_version": "1",
            }
        )
        return instance

    return build
