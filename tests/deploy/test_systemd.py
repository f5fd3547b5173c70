"""deploy/fairlane.service: systemd reads it, and what it calls is a command line of Fairlane's."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from scheduler.config.limits import Limits
from tests.deploy.command_line import fairlane_config

FILE = Path(__file__).parents[2] / "deploy" / "fairlane.service"
ANALYZE = shutil.which("systemd-analyze")


def value(name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", FILE.read_text(), re.MULTILINE)
    return str(found)


def test_command_line_is_one_of_fairlanes() -> None:
    program, *words = shlex.split(value("ExecStart"))
    assert Path(program).is_absolute()
    assert Path(program).name == "fairlane"
    assert fairlane_config(words) == Path("/etc/fairlane/fairlane.yaml")


def test_reload_is_the_signal_that_reloads() -> None:
    assert value("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_stop_leaves_time_for_what_was_accepted_and_tells_the_scheduler_alone() -> None:
    assert float(value("TimeoutStopSec")) == Limits().drain_s + 5
    assert value("KillMode") == "mixed"


def test_it_is_nobody_important() -> None:
    assert value("User") == value("Group") == "fairlane"
    assert value("NoNewPrivileges") == "yes"
    assert value("CapabilityBoundingSet") == ""


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze on this machine: it is in Debian's package systemd")
def test_systemd_takes_every_line(tmp_path: Path) -> None:
    assert ANALYZE is not None
    unit = tmp_path / FILE.name
    # Fairlane is not installed there on this machine, and systemd looks.
    unit.write_text(FILE.read_text().replace(shlex.split(value("ExecStart"))[0], "/bin/true"))
    told = subprocess.run([ANALYZE, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
