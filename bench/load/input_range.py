"""Values that a model takes: what a request's integers index is known to its graph alone, so they are tried."""

from typing import Any, Final

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.load.payload import infer_request
from bench.load.stream import Stream

TIMEOUT_S: Final = 120.0
# As token ids; then what any table has, and at last what any tensor has.
BELOW: Final = (None, 2, 1)
# By which a model says that it cannot compute what it was given.
REFUSALS: Final = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


async def with_accepted_range(address: str, stream: Stream, *, seed: int) -> Stream:
    """The stream with integers that its model takes; as it is, where it takes those.

    Args:
        address: HOST:PORT of a server that serves the model.
        stream: what a request is.
        seed: of the values.

    Raises:
        grpc.aio.AioRpcError: the model takes none, for the reason that the first one was refused for; or it is not
            served.
        ValueError: no request can be made for it.
    """
    refused: grpc.aio.AioRpcError | None = None
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        about = service_pb2.ModelMetadataRequest(name=stream.model)
        metadata = await stub.ModelMetadata(about, timeout=TIMEOUT_S)
        for below in BELOW:
            tried = stream.model_copy(update={"integers_below": below})
            request = service_pb2.ModelInferRequest.FromString(infer_request(tried, metadata, seed=seed))
            try:
                await stub.ModelInfer(request, metadata=stream.metadata(), timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in REFUSALS:
                    raise
                refused = refused or error
            else:
                return tried
    assert refused is not None
    raise refused
