"""A new model that was killed while it was published, or is being published: who meets it, and who clears it up."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from export.filesystem.folder_lock import FolderBusyError
from export.repository.repository import Repository
from tests.export.filesystem.lock_holder import Process, python
from tests.export.repository.publishing import publishing
from tests.export.repository.stand_in import NAME, Place

NEW = "another"

# Publishes, and stops before its N-th rename until it is let go.
STOPPED = publishing('print("stopped", flush=True); sys.stdin.readline()')
# Of labels, configuration, card, version, model.
RENAMES = range(1, 6)

CHANGES: dict[str, Callable[[Place], object]] = {
    "publish": lambda place: place.publish_built(NAME),
    "configure": lambda place: place.configure(),
    "tune": lambda place: place.tune(),
    "promote": lambda place: place.models("promote", NAME, "2"),
    "rollback": lambda place: place.models("rollback", NAME),
    "remove": lambda place: place.models("remove", NAME, "1"),
    "promote what is not there": lambda place: place.models("promote", "nothing", "1"),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.fill()
    return place


@pytest.fixture
def stop(place: Place) -> Iterator[Callable[..., Process]]:
    """Have a process publish the new model, and stop before one of its renames."""
    started: list[Process] = []

    def stop(repository: Repository, rename: int = RENAMES[-1]) -> Process:
        started.append(python("-c", STOPPED, str(place.folder / NEW), str(repository.folder), str(rename)))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "stopped\n"
        return started[-1]

    yield stop
    for process in started:
        kill(process)


def kill(process: Process) -> None:
    process.kill()
    process.communicate()


def served(place: Place) -> set[str]:
    """The models that Triton takes, each of which is whole, and that are listed."""
    names = set(place.served())
    assert set(place.repository.names()) == names
    return names


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_next_change_of_any_model_clears_up_what_was_killed(
    place: Place, stop: Callable[..., Process], change: Callable[[Place], object]
) -> None:
    kill(stop(place.repository))
    assert place.residue() != []
    assert served(place) == {NAME, "other"}
    change(place)
    assert place.residue() == []
    assert served(place) == {NAME, "other"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_of_another_model_leaves_one_that_is_being_published(
    place: Place, stop: Callable[..., Process], change: Callable[[Place], object]
) -> None:
    process = stop(place.repository)
    before = place.residue()
    # One that is not there has the lock of one that is new.
    told = change(place)
    assert bool(told) == (change is CHANGES["promote what is not there"])
    assert place.residue() == before
    assert process.communicate("go on\n")[0] == "published\n"
    assert served(place) == {NAME, "other", NEW}
    assert place.residue() == []


@pytest.mark.parametrize("rename", RENAMES)
def test_first_model_of_a_repository_that_was_killed_is_none(
    place: Place, stop: Callable[..., Process], rename: int
) -> None:
    shutil.rmtree(place.repository.folder)
    kill(stop(place.repository, rename))
    assert place.repository.names() == ()
    assert place.models("list") == ""
    assert "known models: none" in place.models("promote", NEW, "1")
    assert place.residue() == []
    kill(stop(place.repository, rename))
    place.publish_built(NAME)
    assert served(place) == {NAME}
    assert place.residue() == []


def test_first_model_of_a_repository_is_written_where_it_is_alone(place: Place, stop: Callable[..., Process]) -> None:
    shutil.rmtree(place.repository.folder)
    process = stop(place.repository)
    with pytest.raises(FolderBusyError, match=f"process {process.pid} "):
        place.publish_built(NAME)
    assert process.communicate("go on\n")[0] == "published\n"
    place.publish_built(NAME)
    assert served(place) == {NAME, NEW}


def test_new_model_goes_through_no_folder_that_is_on_another_disk(place: Place) -> None:
    elsewhere = Path("/dev/shm") / f"fairlane-test-{os.getpid()}"
    if elsewhere.parent.stat().st_dev == place.folder.stat().st_dev:
        pytest.skip("there is one disk")
    elsewhere.mkdir()
    try:
        (place.repository.folder / "aaa").symlink_to(elsewhere)
        place.publish_built(NEW)
    finally:
        shutil.rmtree(elsewhere)
        (place.repository.folder / "aaa").unlink()
    assert served(place) == {NAME, "other", NEW}


@pytest.mark.parametrize("name", ["..", ".", "../elsewhere", "", "digits/1"])
@pytest.mark.parametrize("command", [("promote", "1"), ("rollback",), ("remove", "1")])
def test_path_in_place_of_a_name_is_refused_and_nothing_is_cleared_up_there(
    place: Place, name: str, command: tuple[str, ...]
) -> None:
    (place.folder / "elsewhere").mkdir()
    theirs = [place.folder / where / ".vimrc.old" for where in (".", "elsewhere", "repository", "repository/digits/1")]
    for file in theirs:
        file.write_text("of somebody else")
    told = place.models(command[0], name, *command[1:])
    assert told == f"Error: expected the name of a model, got {name!r}\n"
    assert all(file.is_file() for file in theirs)
