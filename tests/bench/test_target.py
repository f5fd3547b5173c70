from pathlib import Path

import pytest

import bench.cli
from bench.target import TargetError, fairlane
from scheduler.config import load

CONFIG = Path(bench.cli.__file__).with_name("isolation.yaml")


def test_the_scenario_s_configuration_is_one_that_fairlane_takes() -> None:
    config = load(CONFIG, {})
    assert {each.name: each.max_queued for each in config.classes} == {"interactive": 1024, "background": 1000}


async def test_a_fairlane_that_does_not_start_is_said_with_its_reason(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("no_such_key: 1\n")
    with pytest.raises(TargetError, match=r"ended with code [1-9][\s\S]*no_such_key"):
        async with fairlane(tmp_path, config, log=tmp_path / "log"):
            pytest.fail("it must not become ready")
