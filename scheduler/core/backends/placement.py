"""Where a batch goes: of the ready backends that have a place for the model, where it is expected to be done first.

One with an idle instance comes before one where the batch would only lie ready. Among those counts the estimated
work in flight, in seconds over all models and not in batches, and what the ticket whose turn it is takes by this
backend's own latency line: so the faster one is taken while both are idle. Under a backlog each backend takes the next
batch when it has a place, that is at its own speed: backends of speeds v1 and v2 serve rows in the ratio v1 : v2, to
within the batches in flight. Ties go to the backend named first.

A ticket that is larger than the model's max_batch_size on one backend but not on another waits for the other.
"""

from collections.abc import Iterable, Mapping, Sequence

from scheduler.core.backends.backend import Backend
from scheduler.core.ticket import Ticket


def place(able: list[Backend], backends: Iterable[Backend], ticket: Ticket) -> Backend | None:
    """The backend for the batch that this ticket opens.

    Args:
        able: those that have a place for the model; each has an estimator of it.
        backends: all of them.
        ticket: whose turn it is.

    Returns:
        None where the ticket has to wait for a place elsewhere.
    """
    if len(able) == 1 and able[0].fits(ticket):
        return able[0]
    fitting = [backend for backend in able if backend.fits(ticket)]
    if not fitting and not any(backend.state.ready and backend.fits(ticket) for backend in backends):
        fitting = able  # it fits nowhere: the answer is the backend's
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    return min(fitting, key=lambda each: (not each.has_idle_instance(ticket.model), _done_in_s(each, ticket)))


def home(backends: Sequence[Backend], model: str, sequences: Mapping[str, int]) -> Backend:
    """The backend for a new stateful sequence, which stays there (sequence.py).

    One whose breaker is closed, with the fewest sequences for each instance, then the least work in flight.

    Args:
        backends: those that take a batch of the model and have a slot for a sequence; at least one.
        model: the model.
        sequences: of the model, by backend, as many as each has.
    """

    def load(backend: Backend) -> tuple[bool, float, float]:
        each = sequences.get(backend.name, 0) / backend.state.models[model].instances
        return model in backend.breakers, each, backend.work_s()

    return min(backends, key=load)


def _done_in_s(backend: Backend, ticket: Ticket) -> float:
    return backend.work_s() + backend.estimators[ticket.model].line(ticket.merge_key).predict(ticket.rows)
