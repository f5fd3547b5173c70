"""Where a batch goes: of the ready backends that have a place for the model, the least loaded.

One with an idle instance comes before one where the batch would only lie ready.

Load is the estimated seconds of service in flight over all models, not a count: ten small batches
are less than one large one. Ties go to the backend named first.
"""

from collections.abc import Iterable

from scheduler.core.backend import Backend


def place(backends: Iterable[Backend], model: str) -> Backend | None:
    """The backend for the model's next batch, or None where none has a place."""
    able = (backend for backend in backends if backend.has_place(model))
    return min(able, key=lambda backend: (not backend.has_idle_instance(model), backend.work_s()), default=None)
