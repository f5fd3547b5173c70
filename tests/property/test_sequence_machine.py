"""Stateful sequences under any sequence of inputs, against what was sent and what ended, kept outside the scheduler."""

from collections import defaultdict

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.events import Abandon, Dispatch
from scheduler.core.outcome import Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Step, Ticket, TicketState
from tests.unit.core.build import core_settings

MOST = 4
IDLE_S = 1.0
SLOTS = 1
MODELS = {"m": ModelCapacity(instances=1, max_batch_size=4, sequence_slots=SLOTS)}
ANSWERED = {Verdict.SUCCEEDED, Verdict.FAILED}


class SequenceMachine(RuleBasedStateMachine):
    """Two backends that come and go; a small bound on sequences, so that it is met."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(core_settings(max_sequences=MOST, max_queued=12))
        self.now = 0.0
        self.number = 0
        self.out: dict[int, Dispatch] = {}
        self.live: dict[int, Ticket] = {}
        # Of each sequence: every step that was accepted or refused, in order of arrival.
        self.steps: dict[tuple[str, str], list[Ticket]] = defaultdict(list)
        self.answered: set[int] = set()
        # Of each step that was sent: the backend, and how often that had been lost.
        self.where: dict[int, tuple[str, int]] = {}
        self.lives = {"x": 0, "y": 0}
        for name in "xy":
            self.core.set_backend(BackendState(name, True, MODELS), now=0.0)

    @rule(
        tenant=st.sampled_from("ab"),
        sequence=st.sampled_from("123"),
        start=st.booleans(),
        end=st.sampled_from([False, False, True]),
        priority_class=st.sampled_from(["interactive", "background"]),
        patience=st.sampled_from([None, None, 0.5]),
        pipelined=st.booleans(),
    )
    def submit(self, tenant, sequence, start, end, priority_class, patience, pipelined):
        self.number += 1
        step = Step(sequence, start, end, IDLE_S, pipelined)
        deadline = None if patience is None else self.now + patience
        ticket = Ticket(self.number, priority_class, tenant, "m", deadline=deadline, step=step)
        self.live[self.number] = ticket
        self.steps[tenant, sequence].append(ticket)
        self.core.submit(ticket, now=self.now)
        self.pull()

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict))
    def complete(self, data, verdict):
        batch_id = data.draw(st.sampled_from(sorted(self.out)))
        (ticket,) = self.out.pop(batch_id).tickets
        if verdict in ANSWERED:
            self.answered.add(ticket.ticket_id)
        for ended in self.core.complete(batch_id, verdict, now=self.now):
            del self.live[ended.ticket_id]
        self.pull()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(sorted(self.live)))
        del self.live[number]
        self.core.cancel(number, now=self.now)
        self.pull()

    @rule(name=st.sampled_from("xy"), ready=st.booleans())
    def backend(self, name, ready):
        self.lives[name] += not ready
        self.core.set_backend(BackendState(name, ready, MODELS if ready else {}), now=self.now)
        self.pull()

    @rule(passed=st.sampled_from([0.1, 0.6, 2.0]))
    def time_passes(self, passed):
        self.now += passed
        self.core.tick(now=self.now)
        self.pull()

    def pull(self):
        while (event := self.core.next_event()) is not None:
            if isinstance(event, Dispatch):
                self.sent_now(event)
            elif not isinstance(event, Abandon):
                del self.live[event.ticket.ticket_id]

    def sent_now(self, event):
        (ticket,) = event.tickets  # never merged
        assert ticket.ticket_id not in self.where  # never sent again
        self.out[event.batch_id] = event
        self.where[ticket.ticket_id] = here = (event.backend, self.lives[event.backend])
        of_sequence = [each for each in self.steps[ticket.tenant, ticket.step.sequence_id] if each is not ticket]
        out = {each.tickets[0].ticket_id for each in self.out.values()} - {ticket.ticket_id}
        assert not any(each.ticket_id in out for each in of_sequence)  # one at a time
        assert not any(each.ticket_id > ticket.ticket_id and each.ticket_id in self.where for each in of_sequence)
        if not ticket.step.start:
            before = [each for each in of_sequence if each.ticket_id in self.where]
            assert before  # a state is there, left by an answered step at the same backend
            assert before[-1].ticket_id in self.answered
            assert not before[-1].step.end
            assert self.where[before[-1].ticket_id] == here
            between = [each for each in of_sequence if before[-1].ticket_id < each.ticket_id < ticket.ticket_id]
            # No gap: what was not sent was refused on arrival, and is no start.
            assert all(each.state is TicketState.ENDED and not each.batch_id for each in between)
            assert all(each.holder is None and not (each.step.start or each.step.pipelined) for each in between)

    @invariant()
    def bounded(self):
        assert len(self.core._steps.sequences) <= MOST

    @invariant()
    def nothing_is_kept_twice(self):
        snapshot = self.core.snapshot()
        waiting = [ticket for ticket in self.live.values() if ticket.state is TicketState.QUEUED]
        assert snapshot.queued == len(waiting) == sum(tenant.queued for tenant in snapshot.tenants)
        assert snapshot.queued == sum(sum(model.queued.values()) for model in snapshot.models)
        assert all(bound <= SLOTS for bound in self.core._steps.sequences.by_backend("m").values())
        bound = defaultdict(int)
        for sequence in self.core._steps.sequences:
            bound[sequence.backend] += bool(sequence.backend)
        assert {k: v for k, v in bound.items() if v} == {
            k: v for k, v in self.core._steps.sequences.by_backend("m").items() if v
        }

    @invariant()
    def a_start_waits_for_a_slot_or_a_place_and_is_woken(self):
        """Work conservation, and no lost wake-up: a call, or a time, tells of the next slot."""
        waiting = any(ticket.state is TicketState.QUEUED for ticket in self.live.values())
        assert not waiting or self.out or self.core.next_wakeup() is not None

    def teardown(self):
        for name in "xy":
            self.backend(name, True)
        for _ in range(200):
            if not self.live and not self.out:
                break
            if self.out:
                batch_id = min(self.out)
                (ticket,) = self.out.pop(batch_id).tickets
                self.answered.add(ticket.ticket_id)
                for ended in self.core.complete(batch_id, Verdict.SUCCEEDED, now=self.now):
                    del self.live[ended.ticket_id]
            else:
                self.now += 40.0  # a breaker waits
                self.core.tick(now=self.now)
            self.pull()
        assert not self.live
        assert self.core.idle


TestSequences = SequenceMachine.TestCase
TestSequences.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
