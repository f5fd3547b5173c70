"""A simulated backend: what it is made of, and how its instances take batches.

A model's `instances` take its batches in order of arrival, each for a + b * rows seconds of work. Where
`cores` is given, the instances of all models share them: with n batches running each moves at
min(1, cores / n) of its speed (processor sharing), which is how models of one machine slow each other.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.backends.patience import Statement
from scheduler.core.events import Dispatch
from scheduler.core.outcome import Verdict
from simulate.world.clock import Clock
from simulate.world.outage import Fault, Outage
from simulate.world.variation import Variation

# How soon a refused connection is seen.
REFUSED_S: Final = 0.001
# Readiness is probed once a second (triton/catalog.py).
PROBE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """How one model runs on one backend.

    Attributes:
        a_s: seconds a batch.
        b_s: seconds a row.
        instances: batches that run at a time.
        max_batch_size: rows of one batch, at most.
        jitter: sigma of the log-normal factor on each batch's work; its mean is 1.
        variation: what else makes batches of the same rows differ; None: nothing.
        concurrency: batches that run at a time in truth, where the scheduler is told of `instances`; None: as many.
    """

    a_s: float
    b_s: float
    instances: int = 1
    max_batch_size: int = 8
    jitter: float = 0.0
    variation: Variation | None = None
    concurrency: int | None = None

    def work_s(self, rows: int, number: int, chance: Random, *, now: float) -> float:
        """Seconds of work of the batch of this number (from 0), which starts now."""
        work_s = self.a_s + self.b_s * rows
        if self.jitter:
            work_s *= chance.lognormvariate(-self.jitter * self.jitter / 2, self.jitter)
        return work_s if self.variation is None else self.variation.work_s(work_s, number, chance, now=now)

    def rows_per_s(self, rows: int | None = None) -> float:
        """Throughput in the long run with batches of so many rows; None: of max_batch_size."""
        rows = self.max_batch_size if rows is None else rows
        mean = 1.0 if self.variation is None else self.variation.mean
        return self.instances * rows / (mean * (self.a_s + self.b_s * rows))


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """One backend of a scenario.

    Attributes:
        cores: shared by all its models; None: every instance has one of its own.
        round_trip_s: of the network in between.
    """

    name: str
    models: Mapping[str, Service]
    cores: float | None = None
    outages: tuple[Outage, ...] = ()
    round_trip_s: float = 0.0

    def state(self, *, ready: bool) -> BackendState:
        """As a driver would report it."""
        return BackendState(
            self.name,
            ready,
            {model: ModelCapacity(service.instances, service.max_batch_size) for model, service in self.models.items()},
            round_trip_s=self.round_trip_s,
        )


@dataclass(slots=True, eq=False)
class Job:
    """A batch at a backend.

    Attributes:
        rows: of all its tickets.
        work_s: seconds of work in all, drawn when it starts.
        left_s: seconds of work left at `since`.
        timing: counts changes of its end; what was arranged for an earlier end is void.
        merged: other batches that the backend runs with it as one.
    """

    batch: Dispatch
    model: str
    rows: int
    work_s: float = 0.0
    left_s: float = 0.0
    since: float = 0.0
    timing: int = 0
    merged: list["Job"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Slots:
    """One model's instances."""

    service: Service
    running: int = 0
    waiting: deque[Job] = field(default_factory=deque)


class Backend:
    """Runs what the scheduler dispatches.

    Attributes:
        up: whether it can be reached.
        batch_rows: rows of each batch that has started, by model.
    """

    def __init__(
        self,
        plan: BackendPlan,
        clock: Clock,
        chance: Random,
        started: Callable[[Job], None],
        ended: Callable[[Job, Verdict], None],
    ) -> None:
        self.plan = plan
        self.up = True
        self.batch_rows: dict[str, list[int]] = {model: [] for model in plan.models}
        self._clock = clock
        self._chance = chance
        self._started = started
        self._ended = ended
        self._slots = {model: _Slots(service) for model, service in plan.models.items()}
        self._running: dict[Job, None] = {}
        self._done = dict.fromkeys(plan.models, 0)
        self._speed = 1.0
        self._rate = 1.0
        for outage in plan.outages:
            clock.at(outage.start_s, self._begin, outage)
            clock.at(outage.start_s + outage.length_s, self._end, outage)

    @property
    def answers(self) -> bool:
        """Whether a probe is answered."""
        return self.up and self._speed > 0.0

    def statement(self, model: str) -> Statement:
        """What it says of a model when it is asked."""
        if not self.answers:
            return Statement(live=False)
        return Statement(live=True, served=True, inferences=self._done[model])

    def accept(self, batch: Dispatch) -> None:
        """Take a batch in; it runs when an instance of its model is free."""
        model = batch.tickets[0].model
        job = Job(batch, model, sum(ticket.rows for ticket in batch.tickets))
        if not self.up:
            self._clock.at(self._clock.now + REFUSED_S, self._ended, job, Verdict.UNREACHED)
            return
        if self.plan.round_trip_s:
            self._clock.at(self._clock.now + self.plan.round_trip_s / 2, self._arrive, job)
        else:
            self._arrive(job)

    def _arrive(self, job: Job) -> None:
        slots = self._slots[job.model]
        slots.waiting.append(job)
        self._run_next(slots)

    def withdraw(self, batch_id: int) -> None:
        """Drop a batch that no instance has taken yet, as Triton does with cancelled requests in its queue."""
        for slots in self._slots.values():
            slots.waiting = deque(job for job in slots.waiting if job.batch.batch_id != batch_id)

    def _run_next(self, slots: _Slots) -> None:
        service = slots.service
        if not slots.waiting or slots.running == (service.concurrency or service.instances):
            return
        job = slots.waiting.popleft()
        rows = job.rows + self._join(job, slots)
        slots.running += 1
        number = len(self.batch_rows[job.model])
        job.left_s = service.work_s(rows, number, self._chance, now=self._clock.now)
        job.since = self._clock.now
        self.batch_rows[job.model].append(rows)
        self._running[job] = None
        for each in (job, *job.merged):
            each.work_s = job.left_s * each.rows / rows
            self._started(each)
        self._arrange_end(job)
        self._share()

    @staticmethod
    def _join(job: Job, slots: _Slots) -> int:
        """Take what waits with the same join key into the run of this job, as Triton's batcher does; its rows."""
        key, rows = job.batch.tickets[0].join_key, 0
        for other in list(slots.waiting) if key is not None else ():
            fits = job.rows + rows + other.rows <= slots.service.max_batch_size
            if fits and other.batch.tickets[0].join_key == key:
                slots.waiting.remove(other)
                job.merged.append(other)
                rows += other.rows
        return rows

    def _finish(self, job: Job, timing: int) -> None:
        if job.timing != timing:
            return
        slots = self._slots[job.model]
        slots.running -= 1
        del self._running[job]
        self._done[job.model] += 1
        for each in (job, *job.merged):
            if self.plan.round_trip_s:
                self._clock.at(self._clock.now + self.plan.round_trip_s / 2, self._ended, each, Verdict.SUCCEEDED)
            else:
                self._ended(each, Verdict.SUCCEEDED)
        self._run_next(slots)
        self._share()

    # ---- speed

    def _share(self) -> None:
        """Give every running batch its part of the cores."""
        cores = self.plan.cores
        crowding = 1.0 if cores is None or len(self._running) <= cores else cores / len(self._running)
        rate = self._speed * crowding
        if rate == self._rate:
            return
        now, before = self._clock.now, self._rate
        self._rate = rate
        for job in self._running:
            job.left_s = max(0.0, job.left_s - before * (now - job.since))
            job.since = now
            self._arrange_end(job)

    def _arrange_end(self, job: Job) -> None:
        job.timing += 1
        if self._rate:
            self._clock.at(self._clock.now + job.left_s / self._rate, self._finish, job, job.timing)

    # ---- outages

    def _begin(self, outage: Outage) -> None:
        if outage.fault is Fault.DOWN:
            self.up = False
            self._lose_all()
            return
        self._speed = outage.speed
        self._share()

    def _end(self, outage: Outage) -> None:
        if outage.fault is Fault.DOWN:
            self.up = True
            return
        self._speed = 1.0
        self._share()

    def _lose_all(self) -> None:
        lost = list(self._running)
        self._running.clear()
        for job in list(lost):
            job.timing += 1
            lost += job.merged
        for slots in self._slots.values():
            lost += slots.waiting
            slots.waiting.clear()
            slots.running = 0
        for job in lost:
            self._ended(job, Verdict.LOST)
        self._share()
