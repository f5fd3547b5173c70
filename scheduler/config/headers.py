"""Names of request headers that may go on to models."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

# What a name of a header, and a shell pattern of such names, is made of.
_PATTERN: Final = re.compile(r"[0-9a-z_.*?-]+")
# Credentials, gRPC's own, and those of the trace, which is the batch's. With `triton_grpc_error` Triton 24.10 crashes
# when a model fails on a stream. Bytes (`-bin`) cannot be read by a Python model: its `parameters()` raises.
NEVER: Final = re.compile(
    r"authorization|cookie|user-agent|te|content-type|traceparent|tracestate|triton_grpc_error|"
    r"triton-grpc-protocol-.*|grpc-.*|.*-bin"
)


def _may_go_on(pattern: str) -> str:
    pattern = pattern.lower()  # as gRPC has them
    if not _PATTERN.fullmatch(pattern):
        raise ValueError("expected the name of a header or a shell pattern of such (x-acme-*)")
    if NEVER.fullmatch(pattern):
        raise ValueError("is never handed to models, as credentials, traces, bytes and gRPC's own headers are not")
    return pattern


HeaderPattern = Annotated[str, AfterValidator(_may_go_on)]
