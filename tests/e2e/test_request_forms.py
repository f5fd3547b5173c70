"""Forms of ModelInfer that are easily forgotten: each ends through Fairlane as it ends at the real Triton."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

MAYBE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    '''OUT is IN plus MORE, where MORE came.'''

    def execute(self, requests):
        answers = []
        for request in requests:
            total = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            more = pb_utils.get_input_tensor_by_name(request, "MORE")
            if more is not None:
                total = total + more.as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", total)]))
        return answers
"""
MAYBE_CONFIG = """
name: "maybe" backend: "python" max_batch_size: 8
input [{ name: "IN" data_type: TYPE_INT32 dims: [2] }, { name: "MORE" data_type: TYPE_INT32 dims: [2] optional: true }]
output [{ name: "OUT" data_type: TYPE_INT32 dims: [2] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""


@pytest.fixture(scope="module")
def triton(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> str:
    repository = new_repository()
    repository.add_identity("numbers", "INT32")
    repository.add_identity("text", "STRING")
    folder = repository.path / "maybe"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(MAYBE)
    (folder / "config.pbtxt").write_text(MAYBE_CONFIG)
    address: str = triton_factory(repository).address.grpc
    return address


@pytest.fixture
async def both(triton: str) -> AsyncIterator[tuple[Any, Any]]:
    """A stub at Triton, and one at Fairlane in front of it."""
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "backends": [{"name": "real", "grpc": triton}]}))
    ours = (await app.start()).grpc
    async with grpc.aio.insecure_channel(triton) as direct, grpc.aio.insecure_channel(ours) as through:
        yield tuple(service_pb2_grpc.GRPCInferenceServiceStub(each) for each in (direct, through))
    await app.stop()


def message(model: str = "numbers", columns: int = 2, rows: int = 1, **more: int) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, value in ({"IN": 3} | more).items():
        array = np.full((rows, columns), value, dtype=np.int32)
        request.inputs.add(name=name, datatype="INT32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def with_parameter(name: str, kind: str, value: Any) -> Any:
    request = message()
    setattr(request.parameters[name], kind, value)
    return request


def asking_for(binary: bool) -> Any:
    request = message()
    request.outputs.add(name="OUT").parameters["binary_data"].bool_param = binary
    request.inputs[0].parameters["binary_data_size"].int64_param = 8
    return request


def typed(field: str, values: list[Any], *, columns: int = 2, raw: bytes | None = None) -> Any:
    request = service_pb2.ModelInferRequest(model_name="text" if field == "bytes_contents" else "numbers")
    datatype = "BYTES" if field == "bytes_contents" else "INT32"
    tensor = request.inputs.add(name="IN", datatype=datatype, shape=[1, columns])
    tensor.contents.SetInParent()
    getattr(tensor.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


FORMS = {
    "typed": typed("int_contents", [1, -(2**31)]),
    "typed strings": typed("bytes_contents", [b"a", b""]),
    "typed, no columns": typed("int_contents", [], columns=0),
    "typed, too few": typed("int_contents", [1]),
    "typed, too many": typed("int_contents", [1, 2, 3]),
    "typed strings, too few": typed("bytes_contents", [b"a"]),
    "typed strings, too many": typed("bytes_contents", [b"a", b"b", b"c"]),
    "typed, none": typed("int_contents", []),
    "typed, of another type": typed("fp32_contents", [1.0, 2.0]),
    "typed and raw": typed("int_contents", [1, 2], raw=bytes(8)),
    "typed, empty, and raw": typed("int_contents", [], raw=bytes(8)),
    "parameters without a value": with_parameter("colour", "string_param", ""),
    "a parameter that is Triton's": with_parameter("triton_colour", "string_param", "blue"),
    "a sequence's parameter": with_parameter("sequence_id", "int64_param", 5),
    "optional input left out": message("maybe"),
    "optional input given": message("maybe", MORE=4),
    "priority as int64": with_parameter("priority", "int64_param", 2),
    "priority as uint64": with_parameter("priority", "uint64_param", 2),
    "timeout as int64": with_parameter("timeout", "int64_param", 10**7),
    "a parameter of one's own": with_parameter("colour", "string_param", "blue"),
    "binary_data true": asking_for(True),
    "binary_data false": asking_for(False),
    "no columns": message(columns=0),
    "no rows": message(rows=0),
}


def version(spelled: str) -> Any:
    request = message()
    request.model_version = spelled
    return request


def asking_twice() -> Any:
    request = message()
    request.outputs.add(name="OUT")
    request.outputs.add(name="OUT")
    return request


def with_more_contents() -> Any:
    request = message()
    request.raw_input_contents.append(b"more")
    return request


# As docs/reference/protocol.md has them: None is an answer.
DIFFERENT: dict[str, tuple[Any, grpc.StatusCode | None, grpc.StatusCode]] = {
    "a version with a zero": (version("01"), None, grpc.StatusCode.NOT_FOUND),
    "a version that is no number": (version("x"), grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND),
    "more contents than inputs": (with_more_contents(), None, grpc.StatusCode.INVALID_ARGUMENT),
    "an output asked for twice": (asking_twice(), None, grpc.StatusCode.INVALID_ARGUMENT),
    "a negative timeout": (with_parameter("timeout", "int64_param", -5), None, grpc.StatusCode.INVALID_ARGUMENT),
}


async def ended(stub: Any, request: Any) -> Any:
    """The answer, or the code."""
    try:
        return await stub.ModelInfer(request, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()


@pytest.mark.parametrize("form", FORMS)
async def test_form_ends_as_at_triton(both: tuple[Any, Any], form: str) -> None:
    direct, ours = both
    assert await ended(ours, FORMS[form]) == await ended(direct, FORMS[form])


@pytest.mark.parametrize("timeout_us", [10**7, 2**64 - 1])
async def test_timeout_as_uint64_is_answered_alone_and_merged_where_triton_takes_int64_alone(
    both: tuple[Any, Any], timeout_us: int
) -> None:
    direct, ours = both
    form = with_parameter("timeout", "uint64_param", timeout_us)
    assert await ended(direct, form) is grpc.StatusCode.INVALID_ARGUMENT
    plain = await ended(direct, message())
    assert await ended(ours, form) == plain
    assert await asyncio.gather(*(ended(ours, form) for _ in range(16))) == [plain] * 16


@pytest.mark.parametrize("form", DIFFERENT)
async def test_form_ends_in_another_way_than_at_triton_as_documented(both: tuple[Any, Any], form: str) -> None:
    direct, ours = both
    request, at_triton, here = DIFFERENT[form]
    answer = await ended(direct, request)
    assert (answer if isinstance(answer, grpc.StatusCode) else None) is at_triton
    assert await ended(ours, request) is here


@pytest.mark.parametrize("count", [1, 100])
async def test_classes_of_strings_which_crash_triton_never_reach_it(both: tuple[Any, Any], count: int) -> None:
    direct, ours = both
    request = service_pb2.ModelInferRequest(model_name="text", raw_input_contents=[b"\x01\0\0\0a"])
    request.inputs.add(name="IN", datatype="BYTES", shape=[1, 1])
    request.outputs.add(name="OUT").parameters["classification"].int64_param = count
    assert await ended(ours, request) is grpc.StatusCode.INVALID_ARGUMENT
    (streamed,) = [each async for each in ours.ModelStreamInfer(iter([request]), timeout=60)]
    assert "output OUT: expected no parameter 'classification', since it is BYTES" in streamed.error_message
    del request.outputs[:]
    assert await ended(ours, request) == await ended(direct, request)
