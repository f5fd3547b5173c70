"""What became of the last requests: a bounded ring, so that "why was this slow" has an answer afterwards."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from scheduler.core.backends.backend import Batch
from scheduler.core.outcome import Outcome
from scheduler.core.ticket import Ticket

# Of a client's id; a message may hold one of 64 MiB, and thousands of them are kept.
ID_LENGTH: Final = 128


@dataclass(slots=True, eq=False)
class Journey:
    """One request's way. Times in monotonic seconds; None: it did not come to that.

    Attributes:
        ticket: as the core knows it.
        request_id: as the client gave it, as far as ID_LENGTH; empty where it gave none.
        arrived: when the edge saw the request.
        queued_at: when it was valid and went to the core.
        dispatched_at: when its first batch left.
        batch: the batch that it rode in, the last one where it was tried twice.
        first_response_at: when the first of a decoupled model's responses was here.
        tries: batches that it rode in.
        ended_at: when its answer or its refusal was known.
        outcome: how it ended.
        pushback_s: when the client was told to come again.
    """

    ticket: Ticket
    request_id: str
    arrived: float
    queued_at: float
    dispatched_at: float | None = None
    batch: Batch | None = None
    first_response_at: float | None = None
    tries: int = 0
    ended_at: float | None = None
    outcome: Outcome | None = None
    pushback_s: float | None = None

    @property
    def name(self) -> str:
        """What it is asked for by: the client's id, or the ticket's number where the client gave none."""
        return self.request_id or f"#{self.ticket.ticket_id}"

    @property
    def total_s(self) -> float:
        """From arrival to the end; 0 while it has not ended."""
        return 0.0 if self.ended_at is None else self.ended_at - self.arrived


class Journal:
    """The last `size` requests that ended.

    Finding one walks the ring: requests are told of by the thousand a second, and asked for a few times a day.
    """

    def __init__(self, size: int) -> None:
        self._ended: deque[Journey] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._ended)

    def append(self, journey: Journey) -> None:
        """Keep a journey that has ended; the oldest one goes where the ring is full."""
        self._ended.append(journey)

    def find(self, name: str) -> Journey | None:
        """The newest journey of this name (Journey.name); None where it was never there or has left the ring."""
        kept = name[:ID_LENGTH]
        return next((journey for journey in reversed(self._ended) if journey.name == kept), None)

    def newest(self, count: int) -> list[Journey]:
        """The last ones that ended, newest first."""
        return list(islice(reversed(self._ended), count))

    def __iter__(self) -> Iterator[Journey]:
        """Oldest first."""
        return iter(self._ended)
