"""A server under test, as a load generator sees it: an address, and the process in between."""

from dataclasses import dataclass


class TargetError(RuntimeError):
    """A server did not start; the message names its log."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server: its gRPC address (HOST:PORT), and the process between client and Triton where there is one."""

    grpc: str
    hop_pid: int | None = None
