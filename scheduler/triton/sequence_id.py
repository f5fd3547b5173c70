"""The ids that sequences have at the backends: Fairlane's own, of the kind that the client gave.

Triton knows a sequence by its id alone, so the same id of two tenants, or of the clients of two schedulers in front of
one Triton, would meet in one state. Each sequence therefore gets a number of its own, counted from a random one.
"""

import secrets
from typing import Any, Final

ID: Final = "sequence_id"
# Ids are 64 bits wide and 0 is none; with so many to begin at, and as many to go, two schedulers do not meet.
FIRST_BITS: Final = 62


class SequenceIds:
    """Puts a backend's id into a request, and the client's back into its answer."""

    def __init__(self) -> None:
        self._first = secrets.randbits(FIRST_BITS)

    def put(self, request: Any, number: int) -> Any:
        """Give the sequence's id to a `ModelInferRequest`, in place; returns the client's, an `InferParameter`."""
        own = type(request.parameters[ID])()
        own.CopyFrom(request.parameters[ID])
        upstream = self._first + number
        if own.WhichOneof("parameter_choice") == "string_param":
            request.parameters[ID].string_param = str(upstream)
        else:
            request.parameters[ID].int64_param = upstream
        return own


def restore(response: Any, own: Any) -> None:
    """Put the client's id back into a `ModelInferResponse` that names the sequence."""
    if ID in response.parameters:
        response.parameters[ID].CopyFrom(own)


class RestoringStream:
    """A decoupled model's responses, with the client's id; see decoupled.py's ResponseStream."""

    def __init__(self, stream: Any, own: Any) -> None:
        self._stream = stream
        self._own = own
        self.ends_at_error = stream.ends_at_error
        self.on_close = stream.on_close

    async def put(self, response: Any) -> None:
        """Send one `ModelStreamInferResponse` on."""
        restore(response.infer_response, self._own)
        await self._stream.put(response)
