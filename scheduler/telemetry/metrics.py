"""/metrics: the table of all metrics, read when Prometheus asks, and written down in docs/reference/metrics.md.

`python -m scheduler.telemetry.metrics > docs/reference/metrics.md` writes the page.
"""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from scheduler.telemetry.family import State
from scheduler.telemetry.table import METRICS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """The exposition of METRICS, beside prometheus_client's `process_*` (CPU, memory, descriptors)."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterable[Metric]:
        """All families, read from one state."""
        state = self._state()
        return [metric.family(state) for metric in METRICS]

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not read the state."""
        return ()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


INTRODUCTION: Final = """# Metrics

`GET /metrics` on the HTTP side, in Prometheus' text format. This page is written by
`python -m scheduler.telemetry.metrics`.

Durations have buckets from 0.1 ms to 63 s, five a decade (Renard's R5 series: 1, 1.6, 2.5, 4, 6.3); Prometheus 3 can
store them as native histograms
([decision 9](../decisions/0009-classic-buckets-that-prometheus-may-make-native.md)). Besides these metrics there are
prometheus_client's `process_*`: CPU, memory, file descriptors. Scheduler CPU a request is
`rate(process_cpu_seconds_total[1m]) / sum(rate(fairlane_requests_total[1m]))`.

The label `tenant` is bounded: the `telemetry.tenants` tenants with the most traffic have a label of their own, all
others are `other`. A tenant takes over a label only from one with less than half its traffic, and what it sent
before stays under `other`. For that reason histograms have no tenant: a tenant's mean wait is
`rate(fairlane_queue_seconds_total[1m]) / rate(fairlane_requests_total[1m])`.

Outcomes are those of [protocol](protocol.md) in small letters, and `completed`, `failed` (by the backend) and
`cancelled` (by the caller).

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def document() -> str:
    """docs/reference/metrics.md."""
    rows = (
        f"| `{each.published}` | {each.kind} | {', '.join(each.labels) or 'none'} | {each.meaning} |\n"
        for each in METRICS
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    print(document(), end="")
