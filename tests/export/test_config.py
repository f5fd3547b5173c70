"""The committed configurations say what the exported graphs say."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from export.catalog import MODEL_NAMES
from export.repository import DEFAULT_REPOSITORY

ELEMENT_TYPES = {"TYPE_FP32": TensorProto.FLOAT, "TYPE_INT64": TensorProto.INT64}
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=MODEL_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(name: str) -> Any:
    text = (ROOT / DEFAULT_REPOSITORY / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture(params=["build/models/{}/fp32.onnx", "model_repository/{}/1/model.onnx"], ids=["fp32", "served"])
def graph(name: str, request: pytest.FixtureRequest) -> onnx.GraphProto:
    return onnx.load(ROOT / request.param.format(name)).graph


def declared(tensors: Any) -> list[tuple[str, int, list[int]]]:
    types = model_config_pb2.DataType
    return [(one.name, ELEMENT_TYPES[types.Name(one.data_type)], list(one.dims)) for one in tensors]


def exported(values: Any) -> list[tuple[str, int, list[int]]]:
    """Names, types and dimensions; the batch, which Triton's dims leave out, must be dynamic."""
    found = []
    for value in values:
        tensor = value.type.tensor_type
        dims = [-1 if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
        assert dims[0] == -1
        found.append((value.name, tensor.elem_type, dims[1:]))
    return found


def test_inputs_and_outputs_are_those_of_the_graph(config: Any, graph: onnx.GraphProto) -> None:
    assert declared(config.input) == exported(graph.input)
    assert declared(config.output) == exported(graph.output)


def test_config_holds_what_both_backends_know_and_nothing_that_stalls_the_batcher(name: str, config: Any) -> None:
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert config.max_batch_size > 1
    # Plain: priorities, timeouts, queue limits and delays belong to the scheduler.
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.ByteSize() == 0
    assert config.version_policy.latest.num_versions == 1
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 2)]  # KIND_CPU
    threads = {key: value.string_value for key, value in config.parameters.items()}
    assert threads == {"intra_op_thread_count": "1", "inter_op_thread_count": "1"}


def test_warm_up_feeds_every_input_and_reaches_the_largest_batch(config: Any) -> None:
    for warm_up in config.model_warmup:
        assert set(warm_up.inputs) == {one.name for one in config.input}
        for one in config.input:
            assert warm_up.inputs[one.name].data_type == one.data_type
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, config.max_batch_size]
