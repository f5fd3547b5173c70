"""Every lane, and which of them are worth a look.

A lane is looked at when something may have become possible for it: a ticket came, a place was freed, a cap opened. It
leaves the line when it was looked at, and goes to its end when it had a batch: lanes take turns. So an input costs what
it touches, however many models there are. A lane whose next batch is kept back comes again at its time (`held`), or
when a batch of any model has ended (`yielding`).
"""

from collections.abc import Collection, Iterator, Sequence

from scheduler.core.queues.lane import Lane, lane_name
from scheduler.core.settings import ClassSettings


class Lanes:
    """Lanes by name; a stateful model has one for its sequences on each backend, and one for those that have none yet.

    Attributes:
        by_name: all of them.
        runnable: names of those to look at, in order.
        yielding: names of those whose next batch is kept back for a more important model (concurrency.py).
        held: names of those whose next batch is kept back until a time (limit.py), monotonic seconds.
    """

    __slots__ = ("_bound", "_classes", "by_name", "held", "runnable", "yielding")

    def __init__(self, classes: Sequence[ClassSettings]) -> None:
        self._classes = classes
        self.by_name: dict[str, Lane] = {}
        self.runnable: dict[str, None] = {}
        self.yielding: dict[str, None] = {}
        self.held: dict[str, float] = {}
        # By stateful model: the lanes of its sequences.
        self._bound: dict[str, list[str]] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self.by_name.values())

    def of(self, model: str, backend: str | None = None) -> Lane:
        """The model's lane, or that of its sequences on a backend; made where there is none yet."""
        name = model if backend is None else lane_name(model, backend)
        lane = self.by_name.get(name)
        if lane is None:
            lane = self.by_name[name] = Lane(model, self._classes, backend)
            if backend is not None:
                self._bound.setdefault(model, []).append(name)
        return lane

    def forget_gone(self, backends: Collection[str]) -> None:
        """Forget the sequences' lanes of backends that are not among these, where nobody waits."""
        for name, lane in list(self.by_name.items()):
            if lane.backend and lane.backend not in backends and next(lane.waiting(), None) is None:
                del self.by_name[name]
                self._bound[lane.model].remove(name)
                self.runnable.pop(name, None)
                self.yielding.pop(name, None)
                self.held.pop(name, None)

    def wake(self, model: str) -> None:
        """Something may have become possible for the model, wherever its tickets wait."""
        self.runnable[model] = None
        if self._bound:
            self.runnable |= dict.fromkeys(self._bound.get(model, ()))

    def wake_yielding(self) -> None:
        """A batch has ended: what was kept back for a more important model may go."""
        self.runnable |= self.yielding

    def wake_held(self, *, now: float) -> None:
        """What was kept back until now may go."""
        for name in [name for name, leave_at in self.held.items() if leave_at <= now]:
            del self.held[name]
            self.runnable[name] = None

    def look_at(self, name: str) -> Lane | None:
        """The lane of that name, none of whose batches is kept back from now on."""
        if self.held:
            self.held.pop(name, None)
        if self.yielding:
            self.yielding.pop(name, None)
        return self.by_name.get(name)

    def reconfigure(self, classes: Sequence[ClassSettings]) -> None:
        """Go on with these settings of the same classes; every lane is looked at."""
        self._classes = classes
        for name, lane in self.by_name.items():
            lane.reconfigure(classes)
            self.runnable[name] = None
