"""What telemetry costs: `python -m tests.telemetry.cost` prints microseconds a request and milliseconds a scrape."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from scheduler.config import Config
from scheduler.core.backends.backend import BackendState, Batch, ModelCapacity
from scheduler.core.outcome import Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Ticket
from scheduler.telemetry.hooks import NULL
from scheduler.telemetry.observatory import Observatory, recorder_of

REQUESTS: Final = 40_000
TENANTS: Final = 1000
HEADERS: Final = (("x-tenant-id", "t"), ("x-priority", "background"), ("user-agent", "cost"))


def drive(telemetry: Any, riders: int) -> float:
    """CPU microseconds a request of the hooks alone, the tickets' own cost included."""
    began = time.process_time()
    for number in range(0, REQUESTS, riders):
        tickets = tuple(
            Ticket(each, ("interactive", "background")[each % 2], f"tenant-{each % TENANTS}", "model", queue_bytes=512)
            for each in range(number, number + riders)
        )
        for ticket in tickets:
            telemetry.received(ticket, request_id="id", headers=HEADERS, arrived=1.0, now=1.0001)
        batch = Batch(number, "gpu0", "model", None, tickets, riders, 0.01, 1.001, 1.001)
        telemetry.dispatched(batch)
        telemetry.headers(tickets[0])
        telemetry.completed(batch, Verdict.SUCCEEDED, tickets, now=1.012)
    return (time.process_time() - began) / REQUESTS * 1e6


def least(measure: Callable[[], float], repeats: int = 5) -> float:
    return min(measure() for _ in range(repeats))


def timed_ms(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1e3


async def main() -> None:
    config = Config()
    core = Scheduler(config.core_settings())
    core.set_backend(BackendState("gpu0", ready=True, models={"model": ModelCapacity(1, 8)}), now=0.0)
    for number in range(TENANTS):
        core.submit(Ticket(number, "background", f"tenant-{number}", "model"), now=0.0)
    traced = Config.model_validate({"telemetry": {"tracing": {"otlp": "127.0.0.1:1", "sample": 0}}})
    for riders in (1, 8):
        off = least(lambda: drive(NULL, riders))  # noqa: B023 - called at once
        on = least(lambda: drive(recorder_of(config), riders))  # noqa: B023
        tracing = least(lambda: drive(recorder_of(traced), riders))  # noqa: B023
        print(
            f"batches of {riders}: off {off:.1f} us a request, on {on - off:.1f} more, "
            f"with tracing on and this request not traced {tracing - off:.1f} more"
        )
    recorder = recorder_of(config)
    assert recorder is not None
    observatory = Observatory(config, recorder, core.snapshot, lambda: True, dict)
    drive(recorder, 8)
    print(f"{TENANTS} tenants: a scrape takes {least(lambda: timed_ms(observatory.metrics.exposition)):.1f} ms")
    print(f"  of {len(observatory.metrics.exposition()) // 1024} KiB")
    print(f"  the sample of each second {least(lambda: timed_ms(observatory.live.sample)):.1f} ms")
    print(f"  and each open page {least(lambda: timed_ms(observatory.live.state)):.1f} ms a second")


if __name__ == "__main__":
    asyncio.run(main())
