"""`python -m simulate.doubt`: how often feasibility is wrong on arrival, by how much it doubts the wait.

Three tenants in two classes ask for three times the capacity with a deadline of 250 ms (as the deadline storm does
before its storm), on several latency lines and seeds: two where batches are full, and two where interactive's own
`wait_s` keeps them short. A refusal is false where the ticket, let in alone into
the same run, would have ended in time; that takes one more run each, so a sample is looked at. An acceptance is false
where the ticket was let in and did not end in time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from scheduler.core import arrivals
from scheduler.core.admission import feasibility
from scheduler.core.admission.feasibility import Outlook, feasible
from scheduler.core.outcome import Outcome
from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket
from simulate.scenario import class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load
from simulate.world.record import Record
from simulate.world.world import World

DOUBTS: Final = (0.75, 1.0, 1.25, 1.5, 2.0)
# One where a batch is mostly its constant, one where it is mostly its rows.
FULL: Final = (Service(0.005, 0.001, 1, 8, 0.1), Service(0.002, 0.004, 1, 8, 0.1))
# Three rows of eight within the wait: at six tenths and nine tenths of what full batches serve.
SHORT: Final = (Service(0.010, 0.002, 1, 8, 0.1), Service(0.002, 0.004, 1, 8, 0.1))
SHORT_WAIT_S: Final = 0.022
WARM_S: Final = 1.0
UNTIL_S: Final = 2.5
PATIENCE_S: Final = 0.25
WEIGHTS: Final = {"a": 1, "b": 1, "c": 3}


@dataclass(slots=True)
class Measured:
    """Counts over all seeds and lines; `capacity` is the rows that could be served meanwhile in full batches."""

    sampled: int = 0
    refused_falsely: int = 0
    accepted: int = 0
    accepted_falsely: int = 0
    in_time: int = 0
    capacity: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """One run but for who is let in: a latency line, interactive's `wait_s`, a seed, and whether bounds are seen.

    Where they are not, all batches are believed to be full.
    """

    service: Service
    wait_s: float | None
    seed: int
    bounds_seen: bool = True


def run(case: Case, doubt: float, exempt: int | None = None) -> World:
    """The world at its end; the ticket of the number `exempt` is let in whatever the wait."""
    service = case.service
    settings = core_settings(
        (class_settings("interactive", 16, wait_s=case.wait_s), class_settings("background", 1)),
        {name: tenant_settings(weight) for name, weight in WEIGHTS.items()},
    )
    world = World(settings, [BackendPlan("gpu0", {"m": service})], seed=case.seed, tried=exempt)
    for name in WEIGHTS:
        for priority_class in ("interactive", "background"):
            load = Load(priority_class, name, patience_s=PATIENCE_S)
            world.add(Poisson(load=load, per_s=service.rows_per_s() / 2))

    def check(lane: Lane, queue: ClassQueue, tenant: Tenant, ticket: Ticket, outlook: Outlook, *, now: float) -> bool:
        if not case.bounds_seen:
            for each in lane.classes:
                each.usual = None
        return feasible(lane, queue, tenant, ticket, outlook, now=now)

    with patch.object(arrivals, "feasible", check), patch.object(feasibility, "DOUBT", doubt):
        world.run(UNTIL_S)
    return world


def measure(case: Case, doubt: float, sample: int, into: Measured) -> None:
    """Add one case's counts."""
    seen = [
        record
        for record in run(case, doubt).records
        if record.arrived_at > WARM_S and record.arrived_at + PATIENCE_S < UNTIL_S
    ]
    refused = [record for record in seen if _refused(record)]
    for record in refused[:: max(1, len(refused) // sample)][:sample]:
        number = record.ticket.ticket_id
        into.sampled += 1
        into.refused_falsely += _in_time(run(case, doubt, number).records[number])
    accepted = [record for record in seen if not _refused(record)]
    in_time = sum(_in_time(record) for record in accepted)
    into.accepted += len(accepted)
    into.accepted_falsely += len(accepted) - in_time
    into.in_time += in_time
    into.capacity += case.service.rows_per_s() * (UNTIL_S - PATIENCE_S - WARM_S)


def _refused(record: Record) -> bool:
    return record.outcome is Outcome.DEADLINE_INFEASIBLE and record.ended_at == record.arrived_at


def _in_time(record: Record) -> bool:
    deadline = record.ticket.deadline
    if record.outcome is not Outcome.COMPLETED or deadline is None or record.ended_at is None:
        return False
    return record.ended_at <= deadline


def _work(seeds: int, doubts: Sequence[float]) -> Iterator[tuple[str, float, Case]]:
    kinds = (("full", FULL, None), ("short", SHORT, SHORT_WAIT_S), ("short, taken for full", SHORT, SHORT_WAIT_S))
    for batches, services, wait_s in kinds:
        for doubt in doubts:
            for service in services:
                for seed in range(1, seeds + 1):
                    yield batches, doubt, Case(service, wait_s, seed, bounds_seen="taken" not in batches)


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Of arrivals and service times.")
@click.option("--sample", default=10, show_default=True, help="Refused tickets looked at for each seed and line.")
@click.option("--doubt", "doubts", multiple=True, type=float, help="Times the wait; not given: from 0.75 to 2.")
def main(*, seeds: int, sample: int, doubts: tuple[float, ...]) -> None:
    """False refusals and false acceptances on arrival, by the doubt."""
    found: dict[tuple[str, float], Measured] = {}
    work = list(_work(seeds, doubts or DOUBTS))
    for batches, doubt, case in track(work, console=Console(stderr=True), transient=True):
        measure(case, doubt, sample, found.setdefault((batches, doubt), Measured()))
    table = Table(title="Threefold overload, deadlines of 250 ms", title_justify="left")
    for heading in (
        "batches",
        "doubt",
        "refused looked at",
        "refused falsely",
        "let in",
        "let in falsely",
        "in time/capacity",
    ):
        table.add_column(heading, justify="right")
    for (batches, doubt), one in found.items():
        table.add_row(
            batches,
            f"{doubt:.2f}",
            f"{one.sampled}",
            f"{one.refused_falsely / max(1, one.sampled):.0%}",
            f"{one.accepted:,}",
            f"{one.accepted_falsely / max(1, one.accepted):.0%}",
            f"{one.in_time / one.capacity:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
