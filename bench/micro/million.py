"""A million simulated tickets: clients, world, core and backends together."""

import time
from dataclasses import dataclass
from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load

SERVICE: Final = Service(0.002, 0.0002, instances=2, max_batch_size=32, jitter=0.1)
TENANTS: Final = 200
BACKENDS: Final = 2
# All of them together ask for 1.2 times what the backends can do, a quarter of it interactive.
PER_S: Final = 1.2 * BACKENDS * SERVICE.rows_per_s() / TENANTS


@dataclass(frozen=True, slots=True)
class Million:
    """A run: its tickets, those that were answered, and its seconds by the wall and of CPU."""

    tickets: int
    answered: int
    wall_s: float
    cpu_s: float


def play(tickets: int) -> Million:
    """Let about so many tickets arrive, and serve or refuse every one of them."""
    scenario = Scenario(
        name="million",
        text="Two hundred tenants of two classes at 1.2 times the capacity of two backends.",
        settings=core_settings(
            (class_settings("interactive", 16, wait_s=0.05), class_settings("background", 1, max_queued=20_000)),
            default=tenant_settings(max_in_flight=64, max_queued=1000),
        ),
        backends=tuple(BackendPlan(f"gpu{number}", {"m": SERVICE}) for number in range(BACKENDS)),
        clients=tuple(
            Poisson(load=Load("background" if number % 4 else "interactive", f"t{number}"), per_s=PER_S)
            for number in range(TENANTS)
        ),
        seconds=tickets / (PER_S * TENANTS),
    )
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    world = scenario.play()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return Million(len(world.records), sum(1 for record in world.records if record.completed), wall_s, cpu_s)
