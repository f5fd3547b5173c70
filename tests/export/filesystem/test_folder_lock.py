"""A command that has computed something waits for another process, and loses it to none of the ways that can go."""

import os
import re
import shlex
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

import export.cli
import export.filesystem.folder_lock
import export.repository.server_load
from export.card import read_card
from export.checksum import sha256_of
from export.definition import Definition
from export.filesystem.folder_lock import POLL_S, WAIT_S, FolderBusyError, locked
from export.repository.repository import KEPT_VERSIONS, Repository
from export.repository.server_load import LoadRefusedError
from export.repository.version_content import FP32_FILE, MODEL_FILE
from tests.export.filesystem.lock_holder import Clock, Process, held, let_go, python
from tests.export.repository.stand_in import NAME, OLD, Place, build

# Of the catalog, and not in the repository.
NEW = "smollm2"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(export.filesystem.folder_lock, "time", clock)
    return clock


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """With exports of two models in its build folder, as `fairlane export --missing` wants them."""
    place = Place(tmp_path)
    place.fill()
    for name in (NAME, NEW):
        build(place.folder / "build" / "models" / name, "old", "new", name)
    return place


def publishing(place: Place, name: str, *, busy: str) -> Process:
    """`fairlane export --missing NAME` beside a process that has its model, once it waits."""
    options = ["--build-dir", str(place.folder / "build"), "--model-repository", str(place.repository.folder)]
    process = python("-m", "scheduler", "export", "--missing", *options, name)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    told = next(line for line in lines if "waiting" in line)
    expected = rf"\S+/{busy}: waiting for process {os.getpid()} \(.*pytest.*\), for {WAIT_S:.0f} s at most\n"
    assert re.fullmatch(expected, told), told
    return process


def test_command_waits_for_the_process_that_has_the_model_and_then_publishes(place: Place) -> None:
    with place.repository.changing(NAME):
        process = publishing(place, NAME, busy=f"repository/{NAME}")
        assert place.served()[NAME] == OLD
    _, told = process.communicate()
    assert (process.returncode, told) == (0, "")
    assert place.served()[NAME] == ("new", "old", "old")
    assert place.repository.versions(NAME)[-1] == KEPT_VERSIONS + 1


def test_version_that_came_while_waiting_stays_and_the_own_one_is_the_next(place: Place) -> None:
    with place.repository.changing(NAME):
        process = publishing(place, NAME, busy=f"repository/{NAME}")
        place.publish("old", graph="theirs")
    process.communicate()
    assert process.returncode == 0
    assert place.repository.versions(NAME)[-2:] == (KEPT_VERSIONS + 1, KEPT_VERSIONS + 2)
    assert place.served()[NAME] == ("new", "old", "old")


def test_configuration_that_came_while_waiting_and_does_not_fit_is_an_error(place: Place) -> None:
    with place.repository.changing(NAME):
        process = publishing(place, NAME, busy=f"repository/{NAME}")
        place.repository.rewrite_config(NAME, lambda text: text.replace("TYPE_FP32", "TYPE_INT64", 1))
    _, told = process.communicate()
    assert process.returncode == 1
    assert "input 'x': it says INT64, the graph has FP32; --overwrite-config replaces it" in told
    assert place.served()[NAME] == OLD


def test_two_that_publish_a_new_model_at_once_publish_it_once(place: Place) -> None:
    with place.repository.changing(NEW):
        process = publishing(place, NEW, busy="repository")
        built = place.folder / "build" / "models" / NEW
        place.repository.publish(read_card(built), built / FP32_FILE, built)
    _, told = process.communicate()
    assert (process.returncode, told) == (0, "")
    assert place.repository.versions(NEW) == (1,)
    assert place.residue() == []


def test_version_that_a_server_refuses_is_withdrawn_when_the_process_that_has_the_model_has_ended(
    place: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        holders: list[Process] = []

        def refuse(*_: object) -> None:
            if not holders:
                holders.append(stack.enter_context(held(place.repository.folder / NAME)))
                clock.meanwhile = lambda: let_go(holders[0])
            raise LoadRefusedError("it does not load")

        monkeypatch.setattr(export.repository.server_load, "load_on_server", refuse)
        told = place.models("rollback", NAME, "--server", "nobody")
    assert told.splitlines()[0].startswith(f"{place.repository.folder}/{NAME}: waiting for process ")
    assert told.splitlines()[1] == "Error: it does not load; it is withdrawn"
    assert place.served()[NAME] == OLD


def test_interrupt_while_waiting_ends_the_command_and_leaves_everything_as_it_was(place: Place) -> None:
    with place.repository.changing(NAME):
        process = publishing(place, NAME, busy=f"repository/{NAME}")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert (process.returncode, told.strip()) == (1, "Aborted!")
    assert place.served()[NAME] == OLD
    assert place.residue() == []
    assert place.publish_built(NAME) == ""


def test_export_that_could_not_be_published_is_by_the_command_that_the_error_names(
    place: Place, tiny: Definition, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.cli, "load_definition", lambda _: tiny)
    build, repository = place.folder / "build", place.repository
    places = ["--model-repository", str(repository.folder), "--build-dir", str(build)]
    with held(repository.folder / NAME):
        result = CliRunner().invoke(export.cli.export, [*places, "--overwrite-config", NAME])
    assert result.exit_code == 1
    again = f"fairlane export {NAME} --missing --overwrite-config {' '.join(places)}"
    told = f"is writing there; wait for it to end; what was computed stays in {build}/models/{NAME}, and `{again}`"
    assert told in result.stderr
    assert repository.versions(NAME)[-1] == KEPT_VERSIONS
    computed = sha256_of(build / "models" / NAME / FP32_FILE)
    result = CliRunner().invoke(export.cli.export, shlex.split(again)[2:])
    assert result.exit_code == 0, result.output
    assert repository.versions(NAME)[-1] == KEPT_VERSIONS + 1
    assert sha256_of(repository.version_folder(NAME) / MODEL_FILE) == computed
    assert clock.now > 0


def test_other_process_is_waited_for_no_longer_than_said_and_told_of_once(tmp_path: Path, clock: Clock) -> None:
    told = list[str]()
    with held(tmp_path) as holder, pytest.raises(FolderBusyError) as refused, locked(tmp_path, told.append):
        raise AssertionError
    assert re.fullmatch(
        rf"{tmp_path}: process {holder.pid} \(.*\) is writing there; wait for it to end", str(refused.value)
    )
    assert clock.now == pytest.approx(WAIT_S, abs=2 * POLL_S)
    (line,) = told
    assert line.startswith(f"{tmp_path}: waiting for process {holder.pid} (")


def test_other_process_that_ends_is_waited_for_no_longer(tmp_path: Path, clock: Clock) -> None:
    with held(tmp_path) as holder:
        clock.meanwhile = lambda: let_go(holder)
        with locked(tmp_path, lambda _: None):
            assert clock.now == POLL_S


def test_nobody_is_waited_for_without_a_word(tmp_path: Path, clock: Clock) -> None:
    with held(tmp_path), pytest.raises(FolderBusyError, match="is writing there"), locked(tmp_path):
        raise AssertionError
    assert clock.now == 0


def test_process_does_not_wait_for_itself(tmp_path: Path, clock: Clock) -> None:
    told = list[str]()
    repositories = Repository(tmp_path), Repository(tmp_path, told.append)
    with repositories[0].changing(NAME), pytest.raises(FolderBusyError, match=f"process {os.getpid()} "):
        repositories[1].changing(NAME).__enter__()
    assert (clock.now, told) == (0, [])
