"""What became of each tenant's tickets in a played scenario, beside what would have been fair."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from simulate.reporting.max_min import max_min_shares
from simulate.scenario import Scenario
from simulate.world.clients import ClosedLoop
from simulate.world.record import Record
from simulate.world.world import World

# (class, tenant)
Who = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Summary:
    """One tenant of one class, or all others of it, after the warm-up.

    Attributes:
        offered: tickets that arrived.
        answered: of these.
        refused: of these, and those that were evicted or failed, by outcome.
        wait_p50_ms: from arrival to an instance, of those answered; NaN where none was.
        wait_p99_ms: as `wait_p50_ms`.
        share: part of all service time while clients sent.
        fair_share: the part that weighted max-min fairness would have given, over the whole time taken together.
    """

    priority_class: str
    tenant: str
    offered: int
    answered: int
    refused: Mapping[str, int]
    wait_p50_ms: float
    wait_p99_ms: float
    share: float
    fair_share: float

    def facts(self) -> dict[str, Any]:
        """For JSON; None where there is no number."""
        return {
            "class": self.priority_class,
            "tenant": self.tenant,
            "offered": self.offered,
            "answered": self.answered,
            "refused": dict(self.refused),
            "wait_p50_ms": None if self.wait_p50_ms != self.wait_p50_ms else round(self.wait_p50_ms, 3),
            "wait_p99_ms": None if self.wait_p99_ms != self.wait_p99_ms else round(self.wait_p99_ms, 3),
            "share": round(self.share, 6),
            "fair_share": round(self.fair_share, 6),
        }


def summarise(world: World, scenario: Scenario, *, most: int | None = None) -> list[Summary]:
    """Every tenant of every class, most important class first, in it the one with most tickets first.

    Args:
        world: after it was played.
        scenario: what was played in it.
        most: tenants of a class with a row of their own; the others share one. None: all of them.
    """
    tickets: dict[Who, list[Record]] = defaultdict(list)
    for record in world.records:
        if record.arrived_at >= scenario.warm_s:
            tickets[record.ticket.priority_class, record.ticket.tenant].append(record)
    served_s = _served_s(world, scenario)
    fair_s = _fair_s(scenario, tickets, served_s)
    summaries: list[Summary] = []
    for settings in scenario.settings.classes:
        whos = sorted((who for who in tickets if who[0] == settings.name), key=lambda who: (-len(tickets[who]), who))
        shown = len(whos) if most is None or len(whos) <= most + 1 else most
        groups = [(who[1], [who]) for who in whos[:shown]]
        if whos[shown:]:
            groups.append((f"({len(whos) - shown:,} others)", whos[shown:]))
        summaries += [_summary(settings.name, name, group, tickets, served_s, fair_s) for name, group in groups]
    return summaries


def _summary(
    priority_class: str,
    name: str,
    whos: list[Who],
    tickets: Mapping[Who, list[Record]],
    served_s: Mapping[tuple[str, Who], float],
    fair_s: Mapping[Who, float],
) -> Summary:
    records = [record for who in whos for record in tickets[who]]
    waits_s = sorted(record.wait_s for record in records if record.completed)
    all_s = sum(served_s.values()) or nan
    members = set(whos)
    return Summary(
        priority_class,
        name,
        offered=len(records),
        answered=len(waits_s),
        refused=Counter(r.outcome.name for r in records if r.outcome is not None and not r.completed),
        wait_p50_ms=1000 * quantile(waits_s, 0.5),
        wait_p99_ms=1000 * quantile(waits_s, 0.99),
        share=sum(seconds for (_, who), seconds in served_s.items() if who in members) / all_s,
        fair_share=sum(fair_s[who] for who in whos) / all_s,
    )


def quantile(ascending: list[float], part: float) -> float:
    """The value that this part of the values does not exceed (nearest rank); NaN of none."""
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))] if ascending else nan


def _served_s(world: World, scenario: Scenario) -> dict[tuple[str, Who], float]:
    """Service seconds by model and tenant, of what was answered while clients sent."""
    served_s: dict[tuple[str, Who], float] = defaultdict(float)
    for record in world.ended(scenario.warm_s, scenario.seconds):
        ticket = record.ticket
        served_s[ticket.model, (ticket.priority_class, ticket.tenant)] += record.service_s
    return served_s


def _fair_s(
    scenario: Scenario, tickets: Mapping[Who, list[Record]], served_s: Mapping[tuple[str, Who], float]
) -> dict[Who, float]:
    """Service seconds that weighted max-min would have given, model by model: first to classes, then to tenants."""
    fair_s = dict.fromkeys(tickets, 0.0)
    for model in {model for model, _ in served_s}:
        capacity_s = sum(seconds for (of, _), seconds in served_s.items() if of == model)
        demands_s = _demands_s(scenario, model, tickets)
        class_weights = {settings.name: settings.weight for settings in scenario.settings.classes}
        by_class = {name: sum(s for who, s in demands_s.items() if who[0] == name) for name in class_weights}
        for name, class_s in max_min_shares(capacity_s, by_class, class_weights).items():
            mine = {who[1]: seconds for who, seconds in demands_s.items() if who[0] == name}
            weights = {tenant: scenario.settings.for_tenant(tenant).weight for tenant in mine}
            for tenant, seconds in max_min_shares(class_s, mine, weights).items():
                fair_s[name, tenant] += seconds
    return fair_s


def _demands_s(scenario: Scenario, model: str, tickets: Mapping[Who, list[Record]]) -> dict[Who, float]:
    """Service seconds that each asked of the model; without bound where a closed loop keeps a backlog."""
    rows = {who: sum(r.ticket.rows for r in records if r.ticket.model == model) for who, records in tickets.items()}
    row_s = _row_s(r for records in tickets.values() for r in records if r.ticket.model == model)
    demands_s: dict[Who, float] = {}
    for who, asked in rows.items():
        if asked:
            own_s = _row_s(r for r in tickets[who] if r.ticket.model == model)
            demands_s[who] = asked * (own_s or row_s)
    for client in scenario.clients:
        if isinstance(client, ClosedLoop) and client.load.model == model:
            demands_s[client.load.priority_class, client.load.tenant] = inf
    return demands_s


def _row_s(records: Iterable[Record]) -> float:
    """Mean service seconds of a row of what was answered; 0 where nothing was."""
    rows, seconds = 0, 0.0
    for record in records:
        if record.completed:
            rows += record.ticket.rows
            seconds += record.service_s
    return seconds / rows if rows else 0.0
