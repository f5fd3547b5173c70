from scheduler.core.model import model_snapshots
from scheduler.core.queues.lane import Lane
from scheduler.core.sequences.sequence import Sequences
from scheduler.core.snapshot import ModelSnapshot
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Step
from tests.unit.core.build import INTERACTIVE, make_ticket, tenant_settings

NAMES = ["interactive"]


def test_a_model_is_the_sum_of_its_lanes_and_of_the_steps_behind_others():
    plain, bound, other = Lane("m", [INTERACTIVE]), Lane("m", [INTERACTIVE], "gpu0"), Lane("other", [INTERACTIVE])
    owner, sequences = Tenant("acme", tenant_settings()), Sequences()
    plain.push(make_ticket(), 0, owner)
    plain.retry(make_ticket(), 0)
    first, second = (make_ticket(step=Step("7", start, False, 1.0, False)) for start in (True, False))
    first.holder = second.holder = owner
    assert sequences.join(first, now=0.0)
    sequences.bind(sequences.of(first), "gpu0")
    bound.push(first, 0, owner)
    assert not sequences.join(second, now=0.0)
    bound.estimator.learn(None, 1, 3.0)
    plain.estimator.learn(None, 1, 2.0)
    held = [make_ticket(model="other"), make_ticket(model="other")]
    assert model_snapshots([plain, bound, other], sequences, held, NAMES) == (
        ModelSnapshot("m", {"interactive": 3}, {"interactive": 0}, 1, 0.0, 2.0, {"gpu0": 1}),
        ModelSnapshot("other", {"interactive": 0}, {"interactive": 2}, 0, 0.0, 0.005, {}),
    )
