"""Where a batch goes: of the ready backends that have a place for the model, the least loaded.

Load is the estimated seconds of service in flight over all models, not a count: ten small batches
are less than one large one. Ties go to the backend named first.
"""

from collections.abc import Iterable

from scheduler.core.backend import Backend


def place(backends: Iterable[Backend], model: str) -> Backend | None:
    """The backend for the model's next batch, or None where none has a place."""
    return min((b for b in backends if b.has_place(model)), key=Backend.work_s, default=None)
