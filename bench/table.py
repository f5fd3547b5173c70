"""The isolation scenario's table and verdict lines, for a terminal."""

import math
from collections.abc import Callable
from typing import Final

from rich.table import Table
from rich.text import Text

from bench.result import Result, Run
from bench.summary import StreamSummary
from bench.verdict import Verdict

Cell = Callable[[Run], str]


def isolation_table(result: Result) -> Table:
    """One column per phase, one row per number."""
    table = Table(title=_title(result), title_justify="left", header_style="bold")
    table.add_column("")
    for run in result.runs.values():
        table.add_column("\n".join(run.phase.title), justify="right")
    for label, cell, ends_section in _rows(result):
        table.add_row(label, *(cell(run) for run in result.runs.values()), end_section=ends_section)
    return table


def verdict_line(verdict: Verdict) -> Text:
    """PASS or FAIL, the claim, and what was found."""
    mark = Text("PASS", "bold green") if verdict.passed else Text("FAIL", "bold red")
    return Text.assemble(mark, f"  {verdict.claim}: {verdict.found}")


def _title(result: Result) -> str:
    before, after = result.capacity_per_s
    return (
        f"Interactive traffic under a background flood of {result.flood_per_s:.0f}/s "
        f"(Triton's capacity: {before:.0f}/s before, {after:.0f}/s after)\n"
        f"{result.machine.cpu}, {result.machine.cores} cores, Triton {result.triton_version}, seed {result.seed}"
    )


def _rows(result: Result) -> list[tuple[str, Cell, bool]]:
    return [
        ("interactive p50 ms", lambda run: _ms(run.interactive.p50_ms), False),
        ("interactive p90 ms", lambda run: _ms(run.interactive.p90_ms), False),
        ("interactive p99 ms", lambda run: _ms(run.interactive.p99_ms), False),
        ("interactive max ms", lambda run: _ms(run.interactive.max_ms), False),
        ("interactive requests", lambda run: str(run.interactive.n), False),
        ("  refused", lambda run: str(run.interactive.refused), False),
        ("  failed", lambda run: str(run.interactive.error + run.interactive.deadline), False),
        ("  unanswered", lambda run: str(run.interactive.unanswered), True),
        ("background sent/s", _background(lambda one: f"{one.offered_per_s:.0f}"), False),
        ("background ok/s", _background(lambda one: f"{one.ok_per_s:.0f}"), False),
        ("background refused/s", _background(lambda one: f"{one.refused_per_s:.0f}"), False),
        ("  with pushback", _background(_with_pushback), False),
        ("background unanswered", _background(lambda one: str(one.unanswered)), True),
        ("total ok/s", lambda run: _whole(run.total_ok_per_s), False),
        ("  of Triton's capacity", lambda run: _of_capacity(run, result), True),
        ("generator lateness p99 ms", lambda run: _ms(run.interactive.lateness_p99_ms), False),
        ("generator CPU us/request", _background(lambda one: f"{one.generator_cpu_us_per_request:.0f}"), False),
        ("scheduler CPU us/request", lambda run: _whole(run.scheduler_cpu_us_per_request), False),
        ("scheduler RSS MiB", _memory, False),
        ("valid", lambda run: "no" if run.faults() else "yes", False),
    ]


NOTHING: Final = "-"


def _ms(value: float) -> str:
    if math.isnan(value):
        return NOTHING
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _whole(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.0f}"


def _background(cell: Callable[[StreamSummary], str]) -> Cell:
    def of_run(run: Run) -> str:
        return NOTHING if run.background is None else cell(run.background)

    return of_run


def _of_capacity(run: Run, result: Result) -> str:
    return f"{run.total_ok_per_s / result.reference_per_s:.2f}" if run.phase.flooded else NOTHING


def _with_pushback(summary: StreamSummary) -> str:
    if not summary.refused:
        return NOTHING
    return f"{(summary.refused - summary.refused_without_pushback) / summary.refused:.0%}"


def _memory(run: Run) -> str:
    """At the start, a quarter, half and the end of the run."""
    if run.scheduler is None:
        return NOTHING
    return "/".join(f"{run.scheduler.rss_mib_at(part):.0f}" for part in (0.0, 0.25, 0.5, 1.0))
