"""One ModelStreamInfer call by itself, with answers that the test makes."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

from tritonclient.grpc import service_pb2

from scheduler.edge.stream import InferenceStream

MIB = 1024 * 1024


def step(number: int, sequence: str) -> Any:
    request = service_pb2.ModelInferRequest(model_name="m", id=str(number))
    request.parameters["sequence_id"].string_param = sequence
    return request


async def test_names_of_sequences_are_forgotten_with_the_answers_while_the_stream_goes_on() -> None:
    written: list[Any] = []

    async def answer(request: Any, responses: Any) -> Any:
        return service_pb2.ModelStreamInferResponse(infer_response={"id": request.id})

    async def in_order(request: Any) -> bool:
        return True

    async def write(response: Any) -> None:
        written.append(response)

    held = []

    async def requests() -> AsyncIterator[Any]:
        for number in range(16):
            yield step(number, f"{number}" + "x" * MIB)
            async with asyncio.timeout(60):
                while len(written) <= number:  # noqa: ASYNC110 - the answer is made in a turn of the loop
                    await asyncio.sleep(0)
        held.append(tracemalloc.get_traced_memory()[0])

    stream = InferenceStream(answer, in_order, write, outstanding=32, message_bytes=64 * MIB, grpc_error=False)
    tracemalloc.start()
    try:
        await stream.run(requests())
    finally:
        tracemalloc.stop()
    assert [response.infer_response.id for response in written] == [str(number) for number in range(16)]
    assert held[0] < 8 * MIB


async def test_a_response_of_a_decoupled_model_that_is_too_large_is_an_error_and_the_others_come() -> None:
    written: list[Any] = []

    async def answer(request: Any, responses: Any) -> Any:
        for size, final in ((1, False), (MIB, False), (2, True)):
            response = service_pb2.ModelStreamInferResponse(infer_response={"id": request.id})
            response.infer_response.raw_output_contents.append(b"x" * size)
            response.infer_response.parameters["triton_final_response"].bool_param = final
            await responses.put(response)

    async def in_order(request: Any) -> bool:
        return False

    async def write(response: Any) -> None:
        written.append(response)

    async def requests() -> AsyncIterator[Any]:
        yield step(1, "")

    await InferenceStream(answer, in_order, write, outstanding=2, message_bytes=MIB, grpc_error=False).run(requests())
    assert [bool(each.error_message) for each in written] == [False, True, False]
    finals = [each.infer_response.parameters["triton_final_response"].bool_param for each in written]
    assert finals == [False, False, True]
