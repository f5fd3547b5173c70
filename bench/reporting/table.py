"""A result for a terminal: a table, the spread of what repeats, and the verdicts."""

import math
from typing import Final

from rich.table import Table
from rich.text import Text

from bench.scenarios.result import Result
from bench.scenarios.verdict import Verdict
from bench.terminal.number import NOTHING, format_number

MAX_COLUMNS: Final = 6  # as many as fit a terminal
# (label, metric) of each stream of a phase, and of the phase; rows without a single number are left out.
STREAM_ROWS: Final = (
    ("requests", "requests"),
    ("offered/s", "offered_per_s"),
    ("ok/s", "ok_per_s"),
    ("in time/s", "goodput_per_s"),
    ("p50 ms", "p50_ms"),
    ("p90 ms", "p90_ms"),
    ("p99 ms", "p99_ms"),
    ("p99 95 % interval", "p99_ms"),
    ("max ms", "max_ms"),
    ("refused/s", "refused_per_s"),
    ("refusal p99 ms", "refusal_p99_ms"),
    ("expired", "expired"),
    ("failed", "failed"),
    ("unanswered", "unanswered"),
    ("rows a batch at Triton", "batch_rows"),
    ("lateness p99 ms", "lateness_p99_ms"),
)
PHASE_ROWS: Final = (
    ("ok/s", "ok_per_s"),
    ("ok/s each round", "ok_per_s"),
    ("Jain's index", "jain"),
    ("hop CPU us/request", "hop_cpu_us_per_request"),
    ("hop memory growth MiB", "hop_growth_mib"),
)
# Left out where all are zero: a table of what happened, not of what could have.
ONLY_IF_ANY: Final = ("refused_per_s", "expired", "failed", "unanswered")


def result_tables(result: Result) -> list[Table]:
    """A column per target and phase, a section per stream; one table per phase where one would be too wide."""
    cells = list(result.pools)
    if len(cells) > MAX_COLUMNS:
        parts = [[cell for cell in cells if cell.split(".")[1] == phase] for phase in result.scenario.phases]
    else:
        parts = [cells]
    tables = [_table(result, part) for part in parts]
    tables[0].title = _title(result)
    return tables


def _table(result: Result, cells: list[str]) -> Table:
    table = Table(title_justify="left", header_style="bold")
    table.add_column("", no_wrap=True)
    for cell in cells:
        table.add_column("\n".join(cell.split(".")), justify="right")
    for section in _sections(result, cells):
        for place, row in enumerate(section):
            table.add_row(*row, end_section=place == len(section) - 1)
    return table


def rows_of(result: Result) -> list[list[str]]:
    """The rows of one table of everything, as text."""
    return [row for section in _sections(result, list(result.pools)) for row in section]


def verdict_line(verdict: Verdict) -> Text:
    """PASS or FAIL, the claim, and what was found."""
    mark = Text("PASS", "bold green") if verdict.passed else Text("FAIL", "bold red")
    doubt = "" if verdict.clear else "  (the bound lies within the interval)"
    return Text.assemble(mark, f"  {verdict.claim}: {verdict.found}", (doubt, "yellow"))


def validity_lines(result: Result) -> list[Text]:
    """One line for a valid run; else INVALID and why."""
    if result.valid:
        return [
            Text.assemble(
                ("VALID", "bold green"), "  the load of every phase was the one asked for, and the machine was ours"
            )
        ]
    return [Text.assemble(("INVALID", "bold red"), f"  {fault}") for fault in result.faults]


def _title(result: Result) -> str:
    machine = f"{result.machine.cpu}, {result.machine.cores} cores, Triton {result.triton_version}"
    capacities = {f"{each:.0f}/s" for each in result.capacity_per_s.values() if not math.isnan(each)}
    capacity = f", capacity of Triton {' and '.join(sorted(capacities))}" if capacities else ""
    rounds = f"{result.scenario.rounds} rounds, all pooled, seed {result.seed}"
    return f"{result.name}: {result.scenario.title}\n{machine}{capacity}; {rounds}"


def _sections(result: Result, cells: list[str]) -> list[list[list[str]]]:
    """A section per stream and one for whole phases; rows without a single number are left out."""
    sections = {
        stream: [_row(result, cells, metric, stream, label) for label, metric in STREAM_ROWS]
        for stream in result.scenario.streams
        if any(stream in result.pools[cell].streams for cell in cells)
    }
    sections["together"] = [_row(result, cells, metric, None, label) for label, metric in PHASE_ROWS]
    blank = [""] * len(cells)
    return [
        [[title, *blank], *(row for row in section if any(cell != NOTHING for cell in row[1:]))]
        for title, section in sections.items()
    ]


def _row(result: Result, cells: list[str], metric: str, stream: str | None, label: str) -> list[str]:
    row = [f"  {label}"]
    for cell in cells:
        measured = result.measured.get(f"{cell}.{metric}" if stream is None else f"{cell}.{stream}.{metric}")
        if measured is None or not _tells(result, cell, metric, stream, measured.value):
            row.append(NOTHING)
        elif label.endswith("interval"):
            row.append(_range(*measured.interval))
        elif label.endswith("each round"):
            row.append(" ".join(format_number(each) for each in measured.rounds))
        else:
            row.append(format_number(measured.value))
    return row


def _tells(result: Result, cell: str, metric: str, stream: str | None, value: float) -> bool:
    """Whether a number says something that another row does not."""
    if metric == "goodput_per_s":
        return stream is not None and result.scenario.streams[stream].deadline_ms is not None
    if metric == "jain":
        streams = [result.scenario.streams[name] for name in result.pools[cell].streams]
        return len(streams) > 1 and len({each.traffic_class for each in streams}) == 1
    return metric not in ONLY_IF_ANY or value > 0


def _range(low: float, high: float) -> str:
    return NOTHING if math.isnan(low) else f"{format_number(low)}..{format_number(high)}"
