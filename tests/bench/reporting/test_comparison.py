import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import bench
from bench.recording.recording import Recording
from bench.reporting.comparison import CompareError, compare_files
from bench.scenarios.result import Result
from bench.terminal.json_file import write_json

MakeResult = Callable[..., Result]
Make = Callable[..., Recording]
P99 = "fairlane.flood.interactive.p99_ms"
FLOOD = "fairlane.flood.interactive"


@pytest.fixture
def files(tmp_path: Path) -> Callable[[Result, Result], tuple[Path, Path]]:
    def write(before: Result, after: Result) -> tuple[Path, Path]:
        write_json(before.facts(), tmp_path / "a.json")
        write_json(after.facts(), tmp_path / "b.json")
        return tmp_path / "a.json", tmp_path / "b.json"

    return write


def verdicts(paths: tuple[Path, Path]) -> dict[str, str]:
    return {change.metric: change.verdict for change in compare_files(*paths)}


def test_a_result_is_the_same_as_itself(made_result: MakeResult, files: Callable[..., tuple[Path, Path]]) -> None:
    assert set(verdicts(files(made_result(), made_result())).values()) == {"same"}


def test_slower_is_worse_and_quicker_is_better(
    made_result: MakeResult, made_recording: Make, files: Callable[..., tuple[Path, Path]]
) -> None:
    slow = made_result({FLOOD: [made_recording([30.0] * 100)] * 2})
    there, back = verdicts(files(made_result(), slow)), verdicts(files(slow, made_result()))
    assert (there[P99], there["claim p99"]) == ("worse", "worse")
    assert (back[P99], back["claim p99"]) == ("better", "better")
    assert there["triton.flood.interactive.p99_ms"] == "same"


def test_a_change_within_the_spread_of_the_rounds_is_noise(
    made_result: MakeResult, made_recording: Make, files: Callable[..., tuple[Path, Path]]
) -> None:
    noisy = [made_result({FLOOD: [made_recording([each] * 100) for each in ms]}) for ms in ((18, 26), (20, 30))]
    assert verdicts(files(*noisy))[P99] == "same"


def test_what_the_machine_itself_changed_is_noise_to_absolute_numbers(
    made_result: MakeResult, made_recording: Make, files: Callable[..., tuple[Path, Path]]
) -> None:
    slow = made_result({FLOOD: [made_recording([24.0] * 100)] * 2})
    slow.capacity_per_s.update(interactive=75.0)
    found = verdicts(files(made_result(), slow))
    assert found[P99] == "same"
    assert found["claim p99"] == "worse"  # a ratio within its run does not know the machine


def test_files_that_cannot_be_compared_are_named(
    made_result: MakeResult, made_recording: Make, files: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    late = made_result({FLOOD: [made_recording([20.0] * 100, late_ms=50)] * 2})
    with pytest.raises(CompareError, match=r"b\.json: the run was not valid: .*fell behind"):
        compare_files(*files(made_result(), late))
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(CompareError, match=r"c\.json: not a result"):
        compare_files(tmp_path / "a.json", tmp_path / "c.json")


def test_the_command_prints_a_table_or_json(
    made_result: MakeResult, made_recording: Make, files: Callable[..., tuple[Path, Path]]
) -> None:
    paths = list(map(str, files(made_result(), made_result({FLOOD: [made_recording([30.0] * 100)] * 2}))))
    table = CliRunner().invoke(bench, ["compare", *paths])
    assert table.exit_code == 0
    assert "worse" in table.stdout.splitlines()[4]
    changes = json.loads(CliRunner().invoke(bench, ["compare", *paths, "--json"]).stdout)
    assert {change["verdict"] for change in changes} == {"worse", "same"}
