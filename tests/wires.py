"""What can carry gRPC: tests of what is promised to clients run over each. One that is not built is told as skipped."""

import pytest

from scheduler.wire import availability

_FOUND = availability.look()
WIRES = (
    "grpcio",
    pytest.param("native", marks=pytest.mark.skipif(not _FOUND.usable, reason=f"the native wire: {_FOUND.told}")),
)
