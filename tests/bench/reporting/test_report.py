"""What a run leaves behind: table, page, picture, JSON."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.measuring.pool import StreamPool
from bench.recording.outcome import Outcome
from bench.recording.recording import Recording
from bench.reporting.plot import figures, over_time, readable_ms
from bench.reporting.report import write_report
from bench.reporting.table import result_tables, validity_lines, verdict_line
from bench.scenarios.result import Result
from bench.terminal.json_file import write_json
from bench.terminal.number import format_number

MakeResult = Callable[..., Result]
Make = Callable[..., Recording]


def printed(result: Result) -> str:
    text = io.StringIO()
    console = Console(file=text, width=110)
    for table in result_tables(result):
        console.print(table)
    for line in (*validity_lines(result), *map(verdict_line, result.verdicts)):
        console.print(line, soft_wrap=True)
    return text.getvalue()


def test_table_shows_every_number_in_full(made_result: MakeResult) -> None:
    text = printed(made_result())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert ["p99 ms", "5.00", "400", "8.00", "20.0"] in rows
    flood = rows[rows.index(["flood", "", "", "", ""]) :]
    assert ["requests", "-", "200", "-", "200"] in flood
    assert "refused/s" not in {row[0] for row in rows}
    assert "VALID" in text
    assert text.count("PASS") == 4
    assert "…" not in text


def test_a_table_that_would_be_too_wide_is_split_by_phase(
    made_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.reporting.table.MAX_COLUMNS", 3)
    alone, flood = result_tables(made_result())
    assert [str(column.header) for column in alone.columns] == ["", "triton\nalone", "fairlane\nalone"]
    assert [str(column.header) for column in flood.columns] == ["", "triton\nflood", "fairlane\nflood"]
    assert "flood" not in list(alone.columns[0].cells)


def test_an_invalid_run_is_said_above_its_verdicts(made_result: MakeResult, made_recording: Make) -> None:
    text = printed(made_result({"fairlane.flood.interactive": [made_recording([20.0] * 100, late_ms=50)] * 2}))
    assert "INVALID  fairlane.flood.interactive: the generator fell behind" in text


def test_table_and_page_take_a_stream_without_a_single_answer(
    made_result: MakeResult, made_recording: Make, tmp_path: Path
) -> None:
    result = made_result({"fairlane.flood.interactive": [made_recording([])] * 2})
    assert "FAIL" in printed(result)
    write_report(result, tmp_path)


def test_the_page_is_self_contained(made_result: MakeResult, tmp_path: Path) -> None:
    write_report(made_result(), tmp_path)
    page = (tmp_path / "made.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 5  # two streams' latencies, goodput, shares, batch sizes
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "p99 &lt;= 3 x alone" in page
    assert "<td>  p99 ms</td><td>5.00</td>" in page
    assert (tmp_path / "made.png").read_bytes().startswith(b"\x89PNG")


def test_latency_is_drawn_by_class_over_all_its_streams_and_by_stream_where_there_are_several(
    made_result: MakeResult, made_recording: Make
) -> None:
    result = made_result({"fairlane.flood.flood": [made_recording([200.0] * 300)] * 2})
    assert [caption for caption in figures(result) if "Latency" in caption] == [
        "Latency of class interactive",
        "Latency of class background",
    ]
    both = result.scenario.streams | {
        "flood": result.scenario.streams["flood"].model_copy(update={"traffic_class": "interactive"})
    }
    result = replace(result, scenario=result.scenario.model_copy(update={"streams": both}))
    pictures = figures(result)
    assert [caption for caption in pictures if "Latency" in caption] == [
        "Latency of class interactive",
        "Latency of interactive, interactive",
        "Latency of flood, interactive",
    ]
    line = pictures["Latency of class interactive"].axes[0].lines[3]
    assert line.get_label() == "fairlane, flood: p99 200 ms"
    values_ms, share = line.get_data()
    assert dict(zip([round(value) for value in values_ms], share, strict=True)) == {20: 0.25, 200: 1.0}


def test_a_tenants_share_is_written_into_its_bar(made_result: MakeResult, made_recording: Make) -> None:
    result = made_result({"fairlane.flood.flood": [made_recording([1.0] * 300)] * 2})
    (axes,) = figures(result)["Answers per second by tenant, and its share"].axes
    told = {text.get_text() for text in axes.texts}
    assert told == {"100%", "50%", "25%", "75%", ""}


def test_sizes_of_batches_are_drawn_for_each_target_and_phase(made_result: MakeResult) -> None:
    (axes,) = figures(made_result())["Rows that Triton ran at a time"].axes
    assert axes.get_xlabel() == "rows of a batch of minilm"
    assert [line.get_label() for line in axes.lines] == [
        f"{target}, {phase}: mean 2.5" for target in ("triton", "fairlane") for phase in ("alone", "flood")
    ]
    assert [list(values) for values in axes.lines[0].get_data()] == [[0, 1, 4], [0, 0.5, 1]]


def test_json_holds_the_conditions_and_no_nan(made_result: MakeResult, made_recording: Make, tmp_path: Path) -> None:
    bad = made_recording([1.0], outcomes=[Outcome.ERROR])
    write_json(made_result({"triton.alone.interactive": [bad] * 2}).facts(), tmp_path / "r.json")

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    facts = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert facts["seed"] == 7
    assert facts["machine"]["cores"] > 0
    assert facts["machine"]["versions"]["grpcio"]
    assert facts["metrics"]["triton.alone.interactive.p99_ms"]["value"] is None
    assert facts["metrics"]["fairlane.flood.interactive.p99_ms"]["rounds"] == pytest.approx([20, 20], rel=1e-3)
    assert facts["definition"]["streams"]["flood"]["class"] == "background"


def test_latency_over_time_is_by_the_second_of_the_due_time(made_recording: Make) -> None:
    at_s, p50_ms, p99_ms = over_time(StreamPool([made_recording([10.0] * 20, seconds=2.0)] * 2, 1.0))
    assert at_s == [0.5, 1.5]
    assert p50_ms == pytest.approx([10, float("nan")], rel=1e-3, nan_ok=True)
    assert p99_ms == pytest.approx([10, float("nan")], rel=1e-3, nan_ok=True)


def test_numbers_for_readers() -> None:
    assert [format_number(each) for each in (0.1234, 12.34, 1234.5, 3.0, float("nan"))] == [
        "0.12",
        "12.3",
        "1,234",
        "3",
        "-",
    ]
    assert [readable_ms(each) for each in (4600, 21, 8.06, float("nan"))] == ["4.6 s", "21 ms", "8.1 ms", "none"]
