"""A backend's channel on `grpc.aio`."""

from collections.abc import Callable
from typing import Any, Final

import grpc

from scheduler.triton.channel import METADATA_BYTES, USER_AGENT
from scheduler.triton.security import BackendSecurity

OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.primary_user_agent", USER_AGENT),
    # The bound on messages is the edge's; a batch of admitted requests may be larger than one of them.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    # Retries are the core's decision.
    ("grpc.enable_retries", 0),
    # A backend that comes back is found within a second, not after the default backoff.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
]


def grpcio_channel(address: str, security: BackendSecurity) -> grpc.aio.Channel:
    """Open a channel.

    Raises:
        OSError: a file cannot be read.
    """
    secrets = security.headers
    # Interceptors cost every call some time: only channels that need them have them.
    interceptors = (_UnarySecret(secrets), _StreamSecret(secrets)) if secrets else ()
    credentials = security.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS, interceptors=interceptors)
    options = OPTIONS
    if security.server_name is not None:
        options = [*OPTIONS, ("grpc.ssl_target_name_override", security.server_name)]
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


class _UnarySecret(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the headers to calls with one response."""

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        self._headers = headers

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Go on with the headers added."""
        return await continuation(_with(client_call_details, self._headers), request)


class _StreamSecret(grpc.aio.StreamStreamClientInterceptor):
    """Adds the headers to streams."""

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        self._headers = headers

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """Go on with the headers added."""
        return await continuation(_with(client_call_details, self._headers), request_iterator)


def _with(details: grpc.aio.ClientCallDetails, headers: tuple[tuple[str, str], ...]) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        details.method,
        details.timeout,
        grpc.aio.Metadata(*(details.metadata or ()), *headers),
        details.credentials,
        details.wait_for_ready,
    )
