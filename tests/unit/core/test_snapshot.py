import dataclasses

import pytest

from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.snapshot import (
    BackendSnapshot,
    ClassSnapshot,
    ConcurrencySnapshot,
    ModelSnapshot,
    Snapshot,
    TenantSnapshot,
)
from tests.unit.core.build import dispatched, make_ticket, ready_core


def test_a_snapshot_tells_all_of_the_state():
    core = ready_core()
    for number in range(2):
        core.submit(make_ticket(tenant="b", ticket_id=number), now=0.0)
    core.submit(make_ticket("background", "a", ticket_id=2, queue_bytes=9), now=0.0)
    dispatched(core)
    core.tick(now=0.004)  # the background ticket was held until the first was nearly done
    dispatched(core)
    core.complete(1, Verdict.SUCCEEDED, now=0.5)
    core.submit(make_ticket("background", "a", ticket_id=3, queue_bytes=5), now=0.5)
    limit = ConcurrencySnapshot(1.0, 1, 1.0, 1.0, "nothing is known yet", 0.0)
    assert core.snapshot() == Snapshot(
        queued=2,
        queue_bytes=5,
        in_flight=1,
        classes=(ClassSnapshot("interactive", 1, 0, 1), ClassSnapshot("background", 1, 5, 1)),
        tenants=(TenantSnapshot("a", 1, 1, 5, 1), TenantSnapshot("b", 1, 0, 0, 0)),
        models=(
            ModelSnapshot(
                "m", {"interactive": 1, "background": 1}, {"interactive": 0, "background": 1}, 0, 0.0, 0.5, {}
            ),
        ),
        backends=(BackendSnapshot("gpu0", True, False, {"m": 1}, 0.005, {}, {}, limit),),
        ended={outcome.name: int(outcome is Outcome.COMPLETED) for outcome in Outcome},
    )


def test_a_snapshot_cannot_be_changed_and_does_not_change():
    core = ready_core()
    before = core.snapshot()
    core.submit(make_ticket(), now=0.0)
    assert before.queued == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.queued = 1
