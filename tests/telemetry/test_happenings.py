"""What is told of backends that come, fail, leave and go."""

from dataclasses import replace

from scheduler.core.scheduler import Scheduler
from scheduler.telemetry.happenings import Happenings
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.tenants import TenantTable
from tests.unit.core.build import backend_state, core_settings, dispatched, submit


def test_backends_that_leave_are_told_of_once_and_not_as_failures() -> None:
    core, happenings, measures = Scheduler(core_settings()), Happenings(), Measures(TenantTable(2, 0.0))
    for name in ("a", "b"):
        core.set_backend(backend_state(name), now=0.0)

    def told() -> list[tuple[str, str]]:
        before = len(happenings.latest())
        for _ in range(2):
            happenings.look(core.snapshot(), measures, {}, at=1.0)
        new = happenings.latest()[: len(happenings.latest()) - before]
        return [(each["level"], each["text"]) for each in new]

    assert sorted(told()) == [("good", "backend a is ready"), ("good", "backend b is ready")]
    submit(core)
    (batch,) = dispatched(core)
    core.remove_backend(batch.backend, now=1.0)
    assert told() == [("note", f"backend {batch.backend} is leaving")]
    core.set_backend(backend_state(batch.backend), now=1.5)
    assert told() == [("good", f"backend {batch.backend} is ready")]
    core.remove_backend(batch.backend, now=1.0)
    told()
    gone = replace(core.snapshot(), backends=tuple(each for each in core.snapshot().backends if not each.leaving))
    before = len(happenings.latest())
    happenings.look(gone, measures, {}, at=2.0)
    assert happenings.latest()[0]["text"] == f"backend {batch.backend} was removed"
    assert len(happenings.latest()) == before + 1
