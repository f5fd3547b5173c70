"""What one model executes at one backend: batches that went there one by one, and that Triton runs as one.

An execution is one run of an instance. Where requests can be merged here it is one batch. Others cannot be merged here,
but Triton's own batchers merge them: requests of different tenants, ragged inputs, steps of sequences. Such a request
joins the execution that lies ready, if both have one join key and there is room. So what is bounded is executions, and
the rows of each (batch_size.py): the time that somebody more important may have to wait is the same, in however many
requests the rows came.

Triton does not tell which requests it ran as one, nor when. It is inferred: instances take what lies ready in order,
each when it has ended what it ran before. The first answer of an execution says that it is over. Its other answers come
in the same moment, or were late for it and run with the next one: they hold no place any more, but their rows count
until they have come, so that what is in flight stays bounded. Where the model's configuration has a queue delay, an
idle instance waits for a full execution: it lies ready meanwhile, and others join it, as in Triton's own queue.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from math import inf
from typing import NamedTuple, Protocol


class Part(Protocol):
    """A batch, as far as its execution goes by it; times in monotonic seconds.

    Attributes:
        batch_id: its number.
        rows: of all its tickets.
        estimate_s: what it would take by itself.
        dispatched_at: when it left.
        started_at: when an instance was free for it; None while it lies ready.
        run_rows: of the execution that it ran in, once it has ended.
    """

    batch_id: int
    rows: int
    estimate_s: float
    dispatched_at: float
    started_at: float | None
    run_rows: int


class Ended(NamedTuple):
    """What an execution that is over has taken: `rows` in `service_s` seconds."""

    rows: int
    service_s: float


@dataclass(slots=True, eq=False)
class Execution:
    """Batches that Triton is expected to run as one.

    Attributes:
        join_key: what else may join; None: nothing.
        rank: of the most important class in it.
        rank_rows: rows that it had when the last ticket of that class came.
        estimate_s: what it is expected to take.
        rows: of all that has joined.
        started_at: when an instance was free for it, monotonic seconds; None while it lies ready.
        begun: whether a part of an answer has come.
        over: whether its first answer has come.
        merge_keys: of its batches; what could have been merged here does not join.
        parts: its batches that have not ended, by number.
    """

    join_key: str | None
    rank: int
    estimate_s: float = 0.0
    rank_rows: int = 0
    rows: int = 0
    started_at: float | None = None
    begun: bool = False
    over: bool = False
    merge_keys: set[str | None] = field(default_factory=set)
    parts: dict[int, Part] = field(default_factory=dict)

    def start(self, now: float) -> None:
        """An instance takes it."""
        self.started_at = now
        for part in self.parts.values():
            part.started_at = now


class Executions:
    """One model's executions at one backend, in order of dispatch. `now` is in monotonic seconds.

    Attributes:
        rows: of the batches that have not ended.
    """

    __slots__ = ("_of", "_open", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._of: dict[int, Execution] = {}
        self._open: list[Execution] = []

    def __len__(self) -> int:
        """Batches that have not ended."""
        return len(self._of)

    @property
    def count(self) -> int:
        """Executions that are not over."""
        return len(self._open)

    def rows_of(self, merge_key: str | None) -> int:
        """Rows of the executions that hold no other merge key."""
        return sum([each.rows for each in self._open if each.merge_keys == {merge_key}])

    @property
    def work_s(self) -> float:
        """Estimated seconds of service in flight."""
        return sum([each.estimate_s for each in self._open])

    @property
    def begun(self) -> int:
        """Executions of which a part of an answer has come: that many run at a time."""
        return sum([each.begun for each in self._open])

    def lesser(self, rank: int) -> int:
        """Executions that have not begun, all of whose tickets are of less important classes than this."""
        return sum([not each.begun and each.rank > rank for each in self._open])

    def begin(self, batch_id: int) -> bool:
        """A part of a batch's answer has come; whether it is the first of its execution."""
        execution = self._of[batch_id]
        if execution.begun:
            return False
        execution.begun = True
        return True

    def has_place(self, most: int, max_batch_size: int) -> bool:
        """Whether another execution may be opened, of `most` with so many rows each."""
        if not self._open:
            return True
        if len(self._open) >= most:
            return False
        return len(self._of) < most or self.rows < most * max_batch_size

    def ready(self) -> Iterator[Execution]:
        """Those that no instance has taken yet and that others may join."""
        for each in self._open:
            if each.started_at is None and each.join_key is not None:
                yield each

    def has_idle(self, instances: int) -> bool:
        """Whether what is sent now would run at once."""
        return len(self._open) < instances

    def spare(self, instances: int) -> int:
        """Idle instances; less than zero: batches that lie ready behind others."""
        lie_ready = [len(each.parts) for each in self._open if each.started_at is None]
        return instances - self._running() - sum(lie_ready)

    def next_free_at(self, part: float = 1.0) -> float:
        """When the first of those that run is expected to end, if they take so much of it; long ago where none runs."""
        return min(
            [each.started_at + part * each.estimate_s for each in self._open if each.started_at is not None],
            default=-inf,
        )

    def open_at(self, instances: int, part: float = 1.0, *, now: float) -> float:
        """When an instance is expected to be free for one that is not here yet: behind those that lie ready."""
        if self.has_idle(instances):
            return now
        # An instance may be idle while Triton waits for an execution to fill.
        ends, ready = [now] * (instances - self._running()), []
        for each in self._open:
            if each.started_at is None:
                ready.append(part * each.estimate_s)
            else:
                ends.append(max(now, each.started_at + part * each.estimate_s))
        heapify(ends)
        for estimate_s in ready:
            heapreplace(ends, ends[0] + estimate_s)
        return ends[0]

    def takes(self, rows: int, most: int, max_batch_size: int) -> bool:
        """Whether so many rows more are within what may be in flight: `most` executions with so many each."""
        return self.rows + rows <= most * max_batch_size

    def add(self, part: Part, into: Execution, instances: int, full_rows: int = 0) -> None:
        """Send a batch, in an execution of its own or in one that is here.

        Args:
            part: the batch.
            into: its execution.
            instances: how many run at a time.
            full_rows: rows without which Triton waits for more before it lets an instance take them.
        """
        if not into.parts:
            self._open.append(into)
        into.parts[part.batch_id] = part
        into.rows += part.rows
        self.rows += part.rows
        self._of[part.batch_id] = into
        if into.started_at is None and into.rows >= full_rows and self._running() < instances:
            into.start(part.dispatched_at)
        part.started_at = into.started_at

    def fill(self, instances: int, *, now: float) -> None:
        """Instances that are free take what lies ready."""
        for _ in range(instances - self._running()):
            self._start_oldest(now)

    def end(self, part: Part, *, answered: bool, now: float) -> Ended | None:
        """A batch has ended; what lies ready runs where that has freed an instance.

        Returns:
            What its execution took, the first time that one is told of; None after that, and where nobody knows: other
            batches of it still run when one is withdrawn.
        """
        execution = self._of.pop(part.batch_id)
        del execution.parts[part.batch_id]
        part.run_rows = execution.rows
        self.rows -= part.rows
        if execution.over:
            return None
        if not answered and execution.parts:
            if execution.started_at is None:
                execution.rows -= part.rows
            return None
        execution.over = True
        self._open.remove(execution)
        if execution.started_at is None:
            return Ended(execution.rows, now - part.dispatched_at)
        self._start_oldest(now)
        return Ended(execution.rows, now - execution.started_at)

    def _running(self) -> int:
        return len([1 for each in self._open if each.started_at is not None])

    def _start_oldest(self, now: float) -> None:
        for each in self._open:
            if each.started_at is None:
                each.start(now)
                return
