"""What the edge's handlers use of a call, whatever carries it: `grpc.aio`'s context and the native wire's have it."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol

import grpc

from scheduler.telemetry.hooks import Header


class Context(Protocol):
    """One call. Names and meanings are those of `grpc.aio.ServicerContext`."""

    def invocation_metadata(self) -> Iterable[Header] | None:
        """What the caller sent; values of `-bin` keys are bytes."""

    def time_remaining(self) -> float | None:
        """Seconds to the caller's deadline, None where it set none."""

    def peer(self) -> str:
        """The caller's address."""

    def auth_context(self) -> Mapping[str, Any]:
        """What a verified client certificate says of its holder, as lists of bytes by gRPC's names."""

    def set_trailing_metadata(self, trailing_metadata: Any, /) -> None:
        """Send this with the status."""

    async def write(self, message: Any, /) -> None:
        """Send one message of a stream; returns when there is room for the next."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status; raises `grpc.aio.AbortError`."""
