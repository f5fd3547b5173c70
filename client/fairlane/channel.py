"""How a client's channel is set up."""

from typing import Final

from fairlane.version import __version__

# The most that a protobuf message can have.
LARGEST_MESSAGE_BYTES: Final = 2**31 - 1


def channel_options(max_message_bytes: int) -> tuple[tuple[str, int | str], ...]:
    """The options of a channel whose answers may have so many bytes; requests are measured before they are sent."""
    return (
        ("grpc.primary_user_agent", f"fairlane/{__version__}"),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A retry policy that a name server hands out would multiply with the one in retry.py. gRPC's transparent
        # retries stay on: they only send again what no server has seen, as when a connection closes under a new call.
        ("grpc.service_config_disable_resolution", 1),
        # While a channel backs off, every call fails at once with the old error. The default of a second and more would
        # outlast most of the retries here.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 2000),
    )
