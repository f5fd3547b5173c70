"""Traffic by tenant, bounded whatever names clients invent.

Two bounds. Figures are kept of at most MAX_TENANTS tenants; where more come, those with the least recent
traffic are forgotten. And at most `labelled` of them have a label of their own in Prometheus: the ones with
the most traffic. A label is taken over only from a tenant that has had less than half as much, so that labels
do not flap; what a tenant sent before it had its label stays counted under `other`, because a counter must not
go back.
"""

from collections import defaultdict
from math import exp
from typing import Final

from scheduler.core.outcome import Outcome
from scheduler.core.ticket import Ticket

OTHER: Final = "other"
# Every ending but those at the backend and the caller's.
REFUSALS: Final = frozenset(Outcome) - {Outcome.COMPLETED, Outcome.FAILED, Outcome.BACKEND_LOST, Outcome.CANCELLED}
# Enough for a thousand tenants at a time, and about 1 MB.
MAX_TENANTS: Final = 4096
# Rates and shares are averages over about the last half minute, weighted towards now.
AVERAGE_S: Final = 30.0
# A tenant takes over a label from one with less than this part of its traffic.
TAKE_OVER: Final = 0.5
# Forgotten once there are fewer requests than this in the average: nothing for several minutes.
NEGLIGIBLE: Final = 1e-3


class Traffic:
    """One tenant's recent traffic, as decaying sums.

    Attributes:
        label: its label in Prometheus.
        requests: that ended.
        refused: refused or evicted among them.
        service_s: seconds of service, its rows' part of each batch.
    """

    __slots__ = ("label", "refused", "requests", "service_s")

    def __init__(self) -> None:
        self.label = OTHER
        self.requests = 0.0
        self.refused = 0.0
        self.service_s = 0.0

    def fade(self, factor: float) -> None:
        """Let what was counted so far count for less."""
        self.requests *= factor
        self.refused *= factor
        self.service_s *= factor


class TenantTable:
    """The recent traffic of every tenant, and which of them have labels."""

    def __init__(self, labelled: int, now: float) -> None:
        """Make a table.

        Args:
            labelled: tenants with a label of their own, at most.
            now: monotonic seconds.
        """
        self._most = labelled
        self._now = now
        self._traffic: dict[str, Traffic] = {}
        self._labelled: dict[str, Traffic] = {}
        # For Prometheus: (class, tenant label, model, outcome) -> [requests, seconds in the queue],
        self.ended_counts: defaultdict[tuple[str, str, str, str], list[float]] = defaultdict(lambda: [0, 0.0])
        # and (class, tenant label, model) -> seconds of service.
        self.service_counts: defaultdict[tuple[str, str, str], float] = defaultdict(float)

    def __len__(self) -> int:
        return len(self._traffic)

    def labels(self) -> list[str]:
        """The tenants that have a label of their own."""
        return list(self._labelled)

    def get(self, name: str) -> Traffic:
        """The tenant's traffic; a label is free for the first ones that come."""
        traffic = self._traffic.get(name)
        if traffic is None:
            if len(self._traffic) >= MAX_TENANTS:
                self._forget(MAX_TENANTS // 2)
            traffic = self._traffic[name] = Traffic()
            if len(self._labelled) < self._most:
                self._give_label(name, traffic)
        return traffic

    def ended(self, ticket: Ticket, outcome: Outcome, waited_s: float) -> None:
        """Count a request that ended, after so long in the queue."""
        traffic = self.get(ticket.tenant)
        traffic.requests += 1
        if outcome in REFUSALS:
            traffic.refused += 1
        count = self.ended_counts[ticket.priority_class, traffic.label, ticket.model, outcome.value]
        count[0] += 1
        count[1] += waited_s

    def served(self, ticket: Ticket, service_s: float) -> None:
        """Count the seconds that an instance spent on a request: its rows' part of a batch."""
        traffic = self.get(ticket.tenant)
        traffic.service_s += service_s
        self.service_counts[ticket.priority_class, traffic.label, ticket.model] += service_s

    def sample(self, now: float) -> None:
        """Once a second: let old traffic fade, and give the labels to those with the most."""
        factor = exp((self._now - now) / AVERAGE_S)
        self._now = now
        for traffic in self._traffic.values():
            traffic.fade(factor)
        faded = [name for name, traffic in self._traffic.items() if traffic.requests < NEGLIGIBLE]
        for name in faded:
            if name not in self._labelled:
                del self._traffic[name]
        self._relabel()

    def busiest(self) -> list[tuple[str, Traffic]]:
        """All tenants, those with the most service and then requests first."""
        return sorted(self._traffic.items(), key=lambda each: (-each[1].service_s, -each[1].requests, each[0]))

    def _relabel(self) -> None:
        """Let at most one tenant a second take over the label of a quieter one."""
        if not self._labelled:
            return
        loudest = max(
            (name for name in self._traffic if name not in self._labelled and name != OTHER),
            key=lambda name: self._traffic[name].requests,
            default=None,
        )
        quietest = min(self._labelled, key=lambda name: self._labelled[name].requests)
        if loudest is None or self._labelled[quietest].requests >= TAKE_OVER * self._traffic[loudest].requests:
            return
        self._labelled.pop(quietest).label = OTHER
        for ended_key in [key for key in self.ended_counts if key[1] == quietest]:
            del self.ended_counts[ended_key]
        for service_key in [key for key in self.service_counts if key[1] == quietest]:
            del self.service_counts[service_key]
        self._give_label(loudest, self._traffic[loudest])

    def _give_label(self, name: str, traffic: Traffic) -> None:
        # A tenant that calls itself "other" is counted among them: its label would be ambiguous.
        if name != OTHER:
            traffic.label = name
            self._labelled[name] = traffic

    def _forget(self, keep: int) -> None:
        """Keep the busiest; those with a label stay."""
        ranked = sorted(self._traffic.items(), key=lambda each: each[1].requests, reverse=True)
        self._traffic = dict(ranked[:keep]) | self._labelled
