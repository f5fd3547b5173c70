"""A played scenario as a table for a terminal."""

from collections.abc import Iterable
from math import isnan

from rich.table import Table

from simulate.reporting.summary import Summary
from simulate.scenario import Scenario


def summary_table(scenario: Scenario, summaries: Iterable[Summary]) -> Table:
    """One row per class and tenant."""
    table = Table(title=f"{scenario.name}: {scenario.text}", title_justify="left", header_style="bold")
    for heading in ("class", "tenant"):
        table.add_column(heading, no_wrap=True)
    for heading in ("offered", "answered", "refused"):
        table.add_column(heading, justify="right")
    table.add_column("why", no_wrap=True)
    for heading in ("wait p50\nms", "wait p99\nms", "share of\nservice", "fair\nshare"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(
            summary.priority_class,
            summary.tenant,
            f"{summary.offered:,}",
            f"{summary.answered:,}",
            f"{sum(summary.refused.values()):,}",
            "\n".join(f"{name} {count:,}" for name, count in sorted(summary.refused.items())),
            _ms(summary.wait_p50_ms),
            _ms(summary.wait_p99_ms),
            f"{summary.share:.1%}",
            f"{summary.fair_share:.1%}",
        )
    return table


def scenario_list(scenarios: Iterable[Scenario]) -> Table:
    """Names, lengths, and what happens."""
    table = Table(header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("virtual s", justify="right")
    table.add_column("what happens")
    for scenario in scenarios:
        table.add_row(scenario.name, f"{scenario.seconds:.0f}", scenario.text)
    return table


def _ms(value_ms: float) -> str:
    if isnan(value_ms):
        return "-"
    return f"{value_ms:.1f}" if value_ms < 100 else f"{value_ms:,.0f}"
