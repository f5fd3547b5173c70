"""What changed, in words: backends that come and go, refusals that begin and end, pushback that grows."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

from scheduler.core.backends.breaker import BreakerState
from scheduler.core.outcome import Outcome
from scheduler.core.snapshot import Snapshot
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.tenants import REFUSALS

KEPT: Final = 50
CLOSED: Final = BreakerState.CLOSED.value
# A flood that pauses for a few seconds is one flood.
QUIET_SAMPLES: Final = 5
REASONS: Final[dict[Outcome, str]] = {
    Outcome.QUEUE_FULL: "the queue is full",
    Outcome.TENANT_QUEUE_FULL: "tenants have used up their queues",
    Outcome.RATE_LIMITED: "tenants send more than their rate",
    Outcome.TOO_LARGE: "requests are larger than a bound",
    Outcome.DISPLACED: "it makes room for the more important",
    Outcome.DEADLINE_INFEASIBLE: "deadlines cannot be met",
    Outcome.NO_BACKEND: "no backend is ready",
    Outcome.DRAINING: "the service is stopping",
    Outcome.DEADLINE_EXPIRED: "deadlines pass while they wait",
}


class Happenings:
    """The last KEPT changes, found by comparing one sample with the one before."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._ready: dict[str, bool] = {}
        self._leaving: set[str] = set()
        self._breakers: dict[tuple[str, str], str] = {}
        self._unserved: dict[str, str] = {}
        self._pushback: dict[str, float] = {}
        self._refused: Counter[tuple[str, Outcome]] = Counter()
        # Refusals that are going on: samples without one since.
        self._ongoing: dict[tuple[str, Outcome], int] = {}

    def latest(self) -> list[dict[str, Any]]:
        """Newest first; `at` in Unix seconds, `level` is `good`, `note` or `bad`."""
        return list(reversed(self._kept))

    def look(self, snapshot: Snapshot, measures: Measures, unserved: Mapping[str, str], *, at: float) -> None:
        """Compare with the sample before; `unserved`: models that a backend could not load, and why."""
        for name in self._ready.keys() - {backend.name for backend in snapshot.backends}:
            del self._ready[name]
            self._leaving.discard(name)
            self._add(at, "note", f"backend {name} was removed")
        for backend in snapshot.backends:
            if backend.leaving:
                if backend.name not in self._leaving:
                    self._leaving.add(backend.name)
                    self._ready[backend.name] = False
                    self._add(at, "note", f"backend {backend.name} is leaving")
                continue
            self._leaving.discard(backend.name)
            if self._ready.get(backend.name) != backend.ready:
                self._add(
                    at, "good" if backend.ready else "bad", f"backend {backend.name} is {_readiness(backend.ready)}"
                )
                self._ready[backend.name] = backend.ready
        self._look_at_breakers(snapshot, at)
        for model, why in unserved.items():
            if self._unserved.get(model) != why:
                self._add(at, "bad", f"model {model} is not served: {why}")
        for model in self._unserved.keys() - unserved.keys():
            self._add(at, "good", f"model {model} is no longer missing")
        self._unserved = dict(unserved)
        for each in snapshot.classes:
            before = self._pushback.get(each.name, each.pushback_s)
            if before != each.pushback_s:
                verb = "rises" if each.pushback_s > before else "falls"
                self._add(at, "note", f"pushback of {each.name} {verb} from {before:g} s to {each.pushback_s:g} s")
            self._pushback[each.name] = each.pushback_s
        self._look_at_refusals(measures, at)

    def _look_at_breakers(self, snapshot: Snapshot, at: float) -> None:
        breakers = {
            (backend.name, model): breaker
            for backend in snapshot.backends
            for model, breaker in backend.breakers.items()
        }
        states = {key: breaker.state for key, breaker in breakers.items() if breaker.state != CLOSED}
        for key in states.keys() - self._breakers.keys():
            self._add(at, "bad", f"breaker of {key[1]} on {key[0]} opened: {breakers[key].why}")
        for key in self._breakers.keys() - states.keys():
            self._add(at, "good", f"breaker of {key[1]} on {key[0]} closed")
        self._breakers = states

    def _look_at_refusals(self, measures: Measures, at: float) -> None:
        refused: Counter[tuple[str, Outcome]] = Counter()
        for (name, _, outcome), series in measures.requests.items():
            if outcome in REFUSALS:
                refused[name, outcome] += series.total.count
        for key, count in refused.items():
            if count > self._refused[key]:
                if key not in self._ongoing:
                    self._add(at, "bad", f"{key[0]} is being refused: {REASONS.get(key[1], key[1].value)}")
                self._ongoing[key] = 0
        self._refused = refused
        for key in list(self._ongoing):
            self._ongoing[key] += 1
            if self._ongoing[key] > QUIET_SAMPLES:
                del self._ongoing[key]
                self._add(at, "good", f"{key[0]} is no longer refused ({REASONS.get(key[1], key[1].value)})")

    def _add(self, at: float, level: str, text: str) -> None:
        self._kept.append({"at": round(at, 1), "level": level, "text": text})


def _readiness(ready: bool) -> str:
    return "ready" if ready else "not ready"
