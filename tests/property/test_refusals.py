"""Invariant 18, whatever the times of a model's batches are: nothing is refused while an instance is idle for it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.core.outcome import Outcome
from simulate.scenario import class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Bursty, Poisson
from simulate.world.load import Load
from simulate.world.variation import Bimodal, Cold, Drifting, HeavyTailed
from simulate.world.world import World

VARIATIONS = st.one_of(
    st.none(),
    st.builds(Bimodal, part=st.floats(0.05, 0.95), times=st.floats(2, 100)),
    st.builds(Cold, runs=st.integers(1, 3), cold_s=st.floats(0.1, 6.0)),
    st.builds(Drifting, times=st.floats(2, 20), period_s=st.floats(1, 10)),
    st.builds(HeavyTailed, shape=st.floats(1.2, 3)),
)
SERVICES = st.builds(
    Service,
    a_s=st.floats(0, 0.02),
    b_s=st.floats(0.001, 0.02),
    instances=st.integers(1, 3),
    max_batch_size=st.sampled_from([1, 8]),
    variation=VARIATIONS,
)
REFUSED = Outcome.DEADLINE_INFEASIBLE


class Watched(World):
    """Asks at each refusal as infeasible, when it is decided, who waits and how many instances are idle."""

    refusals = 0

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        endings, fleet, lanes = self.core._endings, self.core._fleet, self.core._lanes
        refuse, evict = endings.refuse, endings.evict

        def waiting() -> int:
            return sum(queue.queued for queue in lanes.by_name["m"].classes)

        def watched_refuse(ticket, refusal, *, now):
            if refusal.outcome is REFUSED:
                self.refusals += 1
                assert waiting() >= fleet.idle_instances("m")
            refuse(ticket, refusal, now=now)

        def watched_evict(ticket, outcome, *, now):
            if outcome is REFUSED:
                self.refusals += 1
                assert waiting() > fleet.idle_instances("m")
            evict(ticket, outcome, now=now)

        monkeypatch.setattr(type(endings), "refuse", lambda _, *args, **now: watched_refuse(*args, **now))
        monkeypatch.setattr(type(endings), "evict", lambda _, *args, **now: watched_evict(*args, **now))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    service=SERVICES,
    load=st.floats(0.1, 4),
    patience=st.floats(0.2, 20),
    merge_key=st.sampled_from(["k", None]),
    wait_s=st.sampled_from([None, 0.02]),
    seed=st.integers(1, 1000),
)
def test_nothing_is_refused_while_an_instance_is_idle_for_it(service, load, patience, merge_key, wait_s, seed):
    classes = (class_settings("interactive", 16, wait_s=wait_s), class_settings("background"))
    world = Watched(core_settings(classes), [BackendPlan("gpu0", {"m": service})], seed)
    row_s = 1 / service.rows_per_s()
    per_s = min(500.0, load / row_s / 2)
    spread_s = patience * (service.a_s + service.b_s)
    for number, rows in enumerate((1, service.max_batch_size)):
        about = {"tenant": f"t{number}", "rows": rows, "merge_key": merge_key, "patience_spread_s": spread_s}
        world.add(Poisson(load=Load(patience_s=spread_s / 10, **about), per_s=per_s / rows))
        world.add(Bursty(load=Load("background", patience_s=spread_s / 2, **about), per_s=per_s, on_s=0.1, off_s=0.4))
    with pytest.MonkeyPatch.context() as patch:
        world.watch(patch)
        world.run(4.0)


def test_the_watch_sees_refusals(monkeypatch):
    world = Watched(
        core_settings((class_settings("interactive"),)), [BackendPlan("gpu0", {"m": Service(0.005, 0.001)})]
    )
    world.add(Poisson(load=Load(patience_s=0.1), per_s=4000))
    world.watch(monkeypatch)
    world.run(2.0)
    assert world.refusals > 100
