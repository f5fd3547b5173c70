"""What can go wrong with a backend, and when."""

from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """How a backend misbehaves."""

    DOWN = "down"  # every batch it holds is lost at once, and every new one
    HUNG = "hung"  # nothing moves, and nothing is said; then it goes on
    SLOW = "slow"  # everything takes `factor` times as long


@dataclass(frozen=True, slots=True)
class Outage:
    """A fault from `start_s` for `length_s` seconds. `factor` belongs to SLOW."""

    fault: Fault
    start_s: float
    length_s: float
    factor: float = 1.0

    @property
    def speed(self) -> float:
        """Of service meanwhile, relative to the usual."""
        return 1 / self.factor if self.fault is Fault.SLOW else 0.0


def flapping(start_s: float, *, down_s: float, up_s: float, times: int) -> tuple[Outage, ...]:
    """Down for `down_s`, up for `up_s`, and so on."""
    return tuple(Outage(Fault.DOWN, start_s + number * (down_s + up_s), down_s) for number in range(times))
