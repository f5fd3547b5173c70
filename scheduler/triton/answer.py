"""What gRPC hands over of a backend's answer: it logs one that is no message of the protocol, and gives None for it."""

from typing import TypeVar

import grpc

Answer = TypeVar("Answer")


def parsed(answer: Answer | None) -> Answer:
    """The answer.

    Raises:
        grpc.aio.AioRpcError: INTERNAL, as of a call that failed: what came could not be parsed.
    """
    if answer is None:
        nothing = grpc.aio.Metadata()
        details = "the backend's answer is no message of the protocol"
        raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details)
    return answer
