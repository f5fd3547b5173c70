"""What the driver and the edge tell telemetry. The default listens to nothing and costs an empty call."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, Protocol

from scheduler.core.backends.backend import BackendState, Batch
from scheduler.core.events import Evict, Reject
from scheduler.core.outcome import Verdict
from scheduler.core.ticket import Ticket

# A header of a request or of a call to a backend.
Header = tuple[str, str | bytes]


class MergeCheck(Enum):
    """How the check of a merged request against the same one alone went."""

    AGREED = "agreed"
    DIFFERED = "differed"
    UNDECIDED = "undecided"  # asked twice alone the model differs as well, or another version answered
    UNANSWERED = "unanswered"


class Telemetry(Protocol):
    """Called as things happen, on the event loop; times in monotonic seconds. Nothing here may raise or wait."""

    def received(
        self, ticket: Ticket, *, request_id: str, headers: Iterable[Header], arrived: float, now: float
    ) -> None:
        """A valid request is about to be submitted; `arrived`: when the edge saw it."""

    def invalid(self, reason: str) -> None:
        """A request was refused before it became a ticket."""

    def refused(self, event: Reject | Evict, *, now: float) -> None:
        """A ticket was refused on arrival, or lost its place in the queue."""

    def cancelled(self, ticket: Ticket, *, now: float) -> None:
        """The caller left before the ticket had ended."""

    def dispatched(self, batch: Batch) -> None:
        """A batch is about to leave for its backend."""

    def headers(self, ticket: Ticket) -> tuple[tuple[str, str], ...] | None:
        """What the call to the backend says of the trace that it belongs to; `ticket` is one of the batch's."""

    def first_response(self, ticket: Ticket, *, now: float) -> None:
        """The first response of a decoupled model to this request is here."""

    def completed(self, batch: Batch, verdict: Verdict, ended: Sequence[Ticket], *, now: float) -> None:
        """A batch has come back; `ended`: the tickets that ended with it."""

    def unwanted(self, backend: str, model: str, seconds: float) -> None:
        """A batch was left to finish that nobody waited for: so long, since cancelling it could end its server."""

    def backend(self, state: BackendState) -> None:
        """A backend, or a change of it."""

    def merge_checked(self, model: str, result: MergeCheck) -> None:
        """A merged request was asked again alone."""

    def merging(self, model: str, *, stopped: bool) -> None:
        """The model's requests ride alone from now on, as checks differed; or they may be merged again."""

    def removed(self, backend: str) -> None:
        """A backend is let go; batches that are still there come back."""


class NullTelemetry:
    """Listens to nothing."""

    def received(
        self, ticket: Ticket, *, request_id: str, headers: Iterable[Header], arrived: float, now: float
    ) -> None:
        """Nothing."""

    def invalid(self, reason: str) -> None:
        """Nothing."""

    def refused(self, event: Reject | Evict, *, now: float) -> None:
        """Nothing."""

    def cancelled(self, ticket: Ticket, *, now: float) -> None:
        """Nothing."""

    def dispatched(self, batch: Batch) -> None:
        """Nothing."""

    def headers(self, ticket: Ticket) -> tuple[tuple[str, str], ...] | None:
        """Nothing."""
        del ticket
        return None

    def first_response(self, ticket: Ticket, *, now: float) -> None:
        """Nothing."""

    def completed(self, batch: Batch, verdict: Verdict, ended: Sequence[Ticket], *, now: float) -> None:
        """Nothing."""

    def unwanted(self, backend: str, model: str, seconds: float) -> None:
        """Nothing."""

    def backend(self, state: BackendState) -> None:
        """Nothing."""

    def merge_checked(self, model: str, result: MergeCheck) -> None:
        """Nothing."""

    def merging(self, model: str, *, stopped: bool) -> None:
        """Nothing."""

    def removed(self, backend: str) -> None:
        """Nothing."""


NULL: Final = NullTelemetry()
