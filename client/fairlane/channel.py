"""How a client's channel is set up."""

from typing import Final

# Both ways, as the server's own limit (`limits.message_bytes`): 64 MiB, where gRPC's default is 4 MiB.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A retry policy that a name server hands out would multiply with the one in retry.py. gRPC's transparent retries
    # stay on: they only send again what no server has seen, as when a connection closes under a new call.
    ("grpc.service_config_disable_resolution", 1),
    # While a channel backs off, every call fails at once with the old error. The default of a second and more would
    # outlast most of the retries here.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
