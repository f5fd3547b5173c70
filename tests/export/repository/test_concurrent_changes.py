"""Several processes that change one model at once: no version is lost or mixed, and a refusal says who is at it."""

import json
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest

from export.repository.repository import KEPT_VERSIONS
from tests.export.repository.stand_in import NAME, Place

ROOT = Path(__file__).parents[3]
ROUNDS: Final = 40
# What each process may be told; anything else would have ended it.
BUSY: Final = (
    r"process \d+ \(.+ -m tests\.export\.repository\.concurrent_change .+\) is writing there; wait for it to end"
)
ENDED: Final = r"another process is writing there; wait for it to end"
REMOVED: Final = rf"{NAME}: no version \d+ in .*; there are \[.*\]"
SERVED: Final = rf"{NAME}: version \d+ is being served; promote another, or roll back, first"
ALONE: Final = rf"{NAME}: there is nothing earlier than version \d+, .*"
ANEW: Final = (
    r".*: another process (is exporting it anew; wait for it to end|has exported it anew meanwhile; run this again)"
)
TOLD: Final = re.compile(rf"Error: (\S+: ({BUSY}|{ENDED})|{REMOVED}|{SERVED}|{ALONE}|{ANEW})\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.fill()
    return place


def run(place: Place, *roles: str) -> list[list[Any]]:
    """What came of each round, of processes that have started at once."""
    line = [sys.executable, "-m", "tests.export.repository.concurrent_change", str(place.folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [*line, role, str(ROUNDS)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for role in roles
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(*process.communicate(), process.returncode) for process in processes]
    assert [stderr for _, stderr, code in ended if code != 0] == []
    return [json.loads(stdout) for stdout, _, _ in ended]


@pytest.mark.parametrize(
    "roles",
    [
        ("publish", "publish"),
        ("publish", "remove", "list"),
        ("publish", "tune"),
        ("export and publish", "export and publish", "list"),
        ("publish", "roll back", "remove", "tune"),
    ],
    ids=" beside ".join,
)
def test_each_succeeds_or_is_told_who_is_at_it_and_no_version_is_lost_or_mixed(
    place: Place, roles: tuple[str, ...]
) -> None:
    came = run(place, *roles)
    assert all(len(rounds) == ROUNDS for rounds in came)
    told = [each for each in chain(*came) if isinstance(each, str) and each]
    assert [each for each in told if not TOLD.fullmatch(each)] == []
    made = sorted(each for each in chain(*came) if isinstance(each, int))
    newest = place.repository.versions(NAME)[-1]
    if "roll back" in roles:
        assert len(set(made)) == len(made)
    else:
        assert made == list(range(KEPT_VERSIONS + 1, newest + 1))
    # All that is there is whole, and of one hand.
    graph, configuration, labels = place.served()[NAME]
    if "roll back" not in roles:
        assert configuration.partition(" x ")[0] == labels == ("old" if graph == "old 3" else graph)
    assert place.residue() == []


def test_those_who_wait_for_each_other_all_publish(place: Place) -> None:
    came = run(place, *["publish patiently"] * 3)
    assert sorted(chain(*came)) == list(range(KEPT_VERSIONS + 1, KEPT_VERSIONS + 1 + 3 * ROUNDS))
    graph, configuration, labels = place.served()[NAME]
    assert graph == configuration == labels
    assert place.residue() == []


def test_new_model_that_several_publish_at_once_is_there_with_all_their_versions(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.publish("old", graph="old", name="other")
    came = run(place, *["publish patiently"] * 2)
    assert sorted(chain(*came)) == list(range(1, 2 * ROUNDS + 1))
    assert place.residue() == []


def test_process_that_is_at_it_is_named_with_its_command(place: Place) -> None:
    line = [sys.executable, "-m", "tests.export.repository.concurrent_change", str(place.folder), "publish", "1"]
    with place.repository.changing(NAME):
        done = subprocess.run(
            line,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            input="go\n",
            capture_output=True,
            text=True,
            check=True,
        )
    (told,) = json.loads(done.stdout.splitlines()[1])
    assert re.fullmatch(rf"Error: \S+/{NAME}: process {os.getpid()} \(.*pytest.*\) is writing there; .*\n", told)
