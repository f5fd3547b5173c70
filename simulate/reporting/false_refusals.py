"""How many were refused as infeasible, on arrival or when their turn came, that would have been in time.

Each of a sample of them is let in, alone, into the same run: one more run each, up to its deadline.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.core.outcome import Outcome
from simulate.scenario import Scenario
from simulate.world.record import Record

# Runs that a sample takes at most.
SAMPLE = 40


@dataclass(frozen=True, slots=True)
class Refusals:
    """Of one tenant's tickets.

    Attributes:
        offered: tickets.
        refused: of these, as infeasible.
        sampled: of these, how many were let in alone.
        false: of these, how many were in time then.
    """

    offered: int
    refused: int
    sampled: int
    false: int

    @property
    def false_share(self) -> float:
        """Of all that were offered, the part that was refused falsely, by the sample."""
        return self.refused / self.offered * self.false / self.sampled if self.sampled else 0.0

    def __str__(self) -> str:
        return (
            f"refused as infeasible: {self.refused:,} of {self.offered:,}; of {self.sampled} let in alone {self.false} "
            f"were in time: {self.false_share:.2%} of all were refused falsely"
        )


def in_time(record: Record) -> bool:
    """Whether the ticket was answered by its deadline."""
    deadline, ended_at = record.ticket.deadline, record.ended_at
    return record.completed and ended_at is not None and (deadline is None or ended_at <= deadline)


def measure_false_refusals(scenario: Scenario, records: Iterable[Record], seed: int) -> Refusals:
    """Look at the tenant that the scenario says.

    Args:
        scenario: what was played.
        records: of the played world.
        seed: with which.
    """
    mine = [record for record in records if record.ticket.tenant == scenario.sampled_tenant]
    refused = [record for record in mine if record.outcome is Outcome.DEADLINE_INFEASIBLE]
    sample = refused[:: max(1, -(-len(refused) // SAMPLE))]
    false = 0
    for record in sample:
        again = scenario.world(seed, tried=record.ticket.ticket_id)
        # All at the instant of the deadline is part of it.
        again.run((record.ticket.deadline or scenario.seconds) + 1e-6)
        false += in_time(again.records[record.ticket.ticket_id])
    return Refusals(len(mine), len(refused), len(sample), false)
