"""What the scenario leaves behind: table, plot, JSON."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.outcome import Outcome
from bench.plot import write_plot
from bench.result import Result, write_json
from bench.samples import NEVER, Samples
from bench.table import isolation_table, verdict_line
from bench.verdict import verdicts

MakeResult = Callable[..., Result]


def printed(result: Result) -> str:
    text = io.StringIO()
    console = Console(file=text, width=110)
    console.print(isolation_table(result))
    for verdict in verdicts(result):
        console.print(verdict_line(verdict), soft_wrap=True)
    return text.getvalue()


def test_table_shows_every_number_in_full(made_result: MakeResult) -> None:
    text = printed(made_result())
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    numbers = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}
    assert numbers["interactive p99 ms"] == ["5.0", "8.0", "4,000", "400", "20.0"]
    assert numbers["with pushback"] == ["-", "-", "100%", "100%", "100%"]
    assert numbers["scheduler RSS MiB"] == ["-", "100/100/100/100", "-", "-", "100/100/100/100"]
    assert numbers["valid"] == ["yes"] * 5
    assert text.count("PASS") == 7
    assert "…" not in text


def test_table_takes_a_stream_without_a_single_answer(
    made_result: MakeResult, made_samples: Callable[..., Samples]
) -> None:
    assert "FAIL" in printed(made_result({("fairlane-flood", "interactive"): made_samples([])}))


def test_plot_is_a_png(made_result: MakeResult, made_samples: Callable[..., Samples], tmp_path: Path) -> None:
    outcome = np.array([Outcome.OK, Outcome.UNANSWERED, Outcome.REFUSED], np.uint8)
    samples = made_samples([5.0, NEVER, 1.0], outcome=outcome)
    write_plot(made_result({("triton-flood", "interactive"): samples}), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_json_holds_the_conditions_and_no_nan(
    made_result: MakeResult, made_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    write_json(made_result({("triton-alone", "interactive"): made_samples([])}).facts(), tmp_path / "r.json")
    facts = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda name: 1 / 0)
    assert facts["seed"] == 7
    assert facts["machine"]["cores"] > 0
    assert facts["machine"]["versions"]["grpcio"]
    assert facts["phases"]["triton-alone"]["streams"]["interactive"]["p99_ms"] is None
    assert facts["phases"]["fairlane-flood"]["scheduler"]["rss_mib"] == [100.0] * 9
