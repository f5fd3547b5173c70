"""Commands that read `model_repository` look for it where they are called, wherever Fairlane is installed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from scheduler.cli import main


@pytest.mark.parametrize(
    "command", ["bench smoke", "bench backend", "tune digits --p99-ms 5", "capacity digits --p99-ms 5"]
)
def test_repository_is_looked_for_where_one_is(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, command.split())
    assert told.exit_code == 2
    assert "'model_repository' does not exist" in told.output
