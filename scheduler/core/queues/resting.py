"""Idle flows that keep the tag which their last service earned them, for as long as it counts.

A flow without tickets is forgotten when V has passed its tag: coming anew would give it the same one (share.py). Until
then it is remembered, or a tenant that leaves and returns at once would escape its charge. Memory stays bounded whoever
comes and goes under however many names: no more than MAX_RESTING idle flows are remembered. Beyond that number the one
nearest to V is forgotten while V has not passed its tag. If it could come back at V, so would the next, and the next:
somebody new would always wait at V, V would stand still, and those with a backlog, ahead of V by what they were served,
would starve. So the largest tag that was forgotten early is a floor: no flow starts below it. Nobody gains by being
forgotten, and V follows the floor. Whoever comes for the first time pays for it: it starts ahead of V by as much as the
least that MAX_RESTING tenants were served last, by weight.
"""

import heapq
from typing import Final

from scheduler.core.queues.flow import Flow

# Idle flows remembered while V has not passed their tags.
MAX_RESTING: Final = 4096


class RestingFlows:
    """The flows of one class queue that have no ticket; `len()` counts those lined up to be forgotten.

    Attributes:
        floor: the largest tag that was forgotten, in virtual seconds; no flow that is made starts below it.
    """

    __slots__ = ("_by_tenant", "_line", "floor")

    def __init__(self, by_tenant: dict[str, Flow]) -> None:
        """Remember flows of this dict, by their tenants' names; those that are forgotten leave it."""
        self._by_tenant = by_tenant
        self._line: list[tuple[float, int, Flow]] = []
        self.floor = 0.0

    def __len__(self) -> int:
        return len(self._line)

    def add(self, flow: Flow, passed: float) -> None:
        """The flow's last ticket has left; V has passed this tag."""
        if flow.resting_tag != flow.start:
            flow.resting_tag = flow.start
            heapq.heappush(self._line, (flow.start, flow.serial, flow))
        line = self._line
        while line and (line[0][0] <= passed or len(line) > MAX_RESTING):
            tag, _, idle = heapq.heappop(line)
            if idle.resting_tag == tag:
                idle.resting_tag = None
            if not idle.tickets.size and (idle.start <= tag or idle.start <= passed):
                if idle.start > self.floor:
                    self.floor = idle.start
                self._forget(idle)

    def _forget(self, flow: Flow) -> None:
        flow.tenant.parked.pop(flow, None)
        name = flow.tenant.name
        if self._by_tenant.get(name) is flow:
            del self._by_tenant[name]
