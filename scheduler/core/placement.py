"""Where a batch goes: of the ready backends that have a place for the model, where it is expected to be done first.

One with an idle instance comes before one where the batch would only lie ready. Among those counts the estimated
work in flight, in seconds over all models and not in batches, and what the ticket whose turn it is takes by this
backend's own latency line: so the faster one is taken while both are idle. Under a backlog each backend takes the next
batch when it has a place, that is at its own speed: backends of speeds v1 and v2 serve rows in the ratio v1 : v2, to
within the batches in flight. Ties go to the backend named first.

A ticket that is larger than the model's max_batch_size on one backend but not on another waits for the other.
"""

from collections.abc import Iterable

from scheduler.core.backend import Backend
from scheduler.core.ticket import Ticket


def place(backends: Iterable[Backend], ticket: Ticket) -> Backend | None:
    """The backend for the batch that this ticket opens, or None where none has a place."""
    model = ticket.model
    able = [backend for backend in backends if backend.has_place(model)]
    if not able:
        return None
    if not all(backend.fits(ticket) for backend in able):
        able = [backend for backend in able if backend.fits(ticket)] or _unless_another_fits(backends, able, ticket)
    if len(able) < 2:
        return able[0] if able else None
    return min(able, key=lambda backend: (not backend.has_idle_instance(model), _done_in_s(backend, ticket)))


def _unless_another_fits(backends: Iterable[Backend], able: list[Backend], ticket: Ticket) -> list[Backend]:
    """Where the ticket fits nowhere, it goes to where there is a place: the answer is the backend's."""
    return [] if any(backend.state.ready and backend.fits(ticket) for backend in backends) else able


def _done_in_s(backend: Backend, ticket: Ticket) -> float:
    own_s = backend.estimators[ticket.model].line(ticket.merge_key).predict(ticket.rows) if backend.estimators else 0.0
    return backend.work_s() + own_s
