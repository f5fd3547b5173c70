"""How long a batch is waited for, and by what evidence it is doubted.

A clock alone cannot tell a long request from one that hangs: both are silent. So a batch that takes longer than usual
is *overdue*, and that is a reason to ask, not to give up. A batch is overdue when nothing has come of it for
max(hang_s, HANG_FACTOR * estimate) since an instance took it, where hang_s is the operator's; and for no less than
COLD_HANG_S where nothing of its kind has been answered by that backend yet: a first run may compile, and tensors
of a shape that never came say nothing of the time they take. Each response of a stream begins that time anew.

Of an overdue batch the backend is asked (events.Inquire), and again each time as long again has passed. What follows:

    the server answers, and has the model      it works, for all that is known: the batch is waited for
    the model is not there any more            its work is gone: its tickets are sent elsewhere
    no answer                                  nothing, as a slow answer proves nothing. A backend that is silent is
                                               missed (fleet.py), and for `outage_s`: after that its overdue batches are
                                               given up

A model may have a limit of its own (`models.NAME.hang_s`): a batch of which nothing has come for so long is given up
whatever its server says. Tickets of a batch that is given up end as BACKEND_LOST, and are not sent again: their work
may still be going on, and there is no telling what it would cost to do it twice. Its neighbours are never doubted with
it, not even those behind it: they have not begun.

The place of a batch that is given up, or that nobody waits for, stays taken until its call ends, as its instance may
be at work until then: the model's other instances go on, and a server that is stuck is not given more and more. A model
is *stuck* where an overdue batch of it is one that nobody waits for, nothing of the model has ended since that began,
and the backend's own counts stand still from one question to the next. Then that batch's place is freed, and no more
than probes go out (breaker.py), until one is answered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from scheduler.core.backends.backend import Backend, Batch

HANG_FACTOR: Final = 10.0
COLD_HANG_S: Final = 60.0
# Why a batch is given up whose model was unloaded.
GONE: Final = "the model is not loaded any more"
# Why a batch is given up that is at a backend which has been silent for too long.
SILENT: Final = "limits.outage_s"


@dataclass(frozen=True, slots=True)
class Statement:
    """What a backend said when it was asked of a model.

    Attributes:
        live: whether it answered.
        served: whether it has the model, be it ready or still finishing what it was given.
        inferences: how many it has done of the model since it was loaded.
    """

    live: bool
    served: bool = False
    inferences: int = 0


class Found(NamedTuple):
    """What a look found: batches to ask about, and those to give up, each with the reason in words."""

    overdue: list[Batch]
    given_up: list[tuple[Batch, str]]


def overdue_after_s(estimate_s: float, *, known: bool, hang_s: float) -> float:
    """Seconds with an instance, and without a sign of it, after which a batch is overdue.

    Args:
        estimate_s: what the batch is expected to take.
        known: whether that was learned from batches of its kind.
        hang_s: the least that a batch is waited for.
    """
    return max(hang_s, 0.0 if known else COLD_HANG_S, HANG_FACTOR * estimate_s)


class Patience:
    """The operator's settings, and when to look at the batches next. Times in monotonic seconds.

    Args:
        hang_s: a batch is not overdue before.
        outage_s: a silent backend is waited for this long.
        limits: by model, seconds without a sign of it after which a batch is given up; none: as long as it takes.

    Attributes:
        look_at: when to look next; infinite: never.
    """

    __slots__ = ("_limits", "hang_s", "look_at", "outage_s")

    def __init__(self, hang_s: float, outage_s: float, limits: Mapping[str, float]) -> None:
        self.look_at = inf
        self.reconfigure(hang_s, outage_s, limits, now=inf)

    def reconfigure(self, hang_s: float, outage_s: float, limits: Mapping[str, float], *, now: float) -> None:
        """Go on with these settings; limits hold for batches that are out already."""
        self.hang_s = hang_s
        self.outage_s = outage_s
        self._limits = limits
        self.look_at = min(self.look_at, now)

    def begin(self, batch: Batch, *, known: bool) -> None:
        """A batch leaves for its backend."""
        batch.patience_s = overdue_after_s(batch.estimate_s, known=known, hang_s=self.hang_s)
        self.look_at = min(self.look_at, batch.dispatched_at + self._least_s(batch))

    def look(self, batches: Mapping[int, Batch], backends: Mapping[str, Backend], *, now: float) -> Found:
        """Mark what is overdue, and find what to ask about and what to give up."""
        found = Found([], [])
        if now < self.look_at:
            return found
        self.look_at = inf
        for batch in batches.values():
            self.look_at = min(self.look_at, self._look_at_one(batch, backends[batch.backend], found, now))
        return found

    def _look_at_one(self, batch: Batch, backend: Backend, found: Found, now: float) -> float:
        """Look at one batch; returns when to look at it next."""
        if batch.started_at is None:
            return now + self._least_s(batch)
        overdue_at = batch.heard_at + batch.patience_s
        batch.overdue = overdue_at <= now
        silent_at = max(overdue_at, backend.silent_since + self.outage_s)
        if silent_at <= now:
            found.given_up.append((batch, SILENT))
            return inf
        next_at = silent_at
        if batch.wanted:
            limit_at = batch.heard_at + self._limits.get(batch.model, inf)
            if limit_at <= now:
                found.given_up.append((batch, f"models.{batch.model}.hang_s"))
            else:
                next_at = min(next_at, limit_at)
        ask_at = max(batch.heard_at, batch.asked_at) + batch.patience_s
        if ask_at <= now:
            batch.asked_at = now
            ask_at = now + batch.patience_s
            if backend.state.ready or backend.leaving:
                batch.asked += 1
                found.overdue.append(batch)
        return min(next_at, ask_at)

    def _least_s(self, batch: Batch) -> float:
        return min(batch.patience_s, self._limits.get(batch.model, inf))
