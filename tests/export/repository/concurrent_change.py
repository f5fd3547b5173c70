"""One of several processes that change one model at once, for many rounds.

`python -m tests.export.repository.concurrent_change FOLDER ROLE ROUNDS` says that it is ready, waits for a line,
and prints as JSON what came of each round: the version that it made, or the error.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from export.card import read_card
from export.errors import ExportError
from export.filesystem.atomic_folder import replacing
from export.repository.repository import Repository
from export.repository.version_content import FP32_FILE
from tests.export.repository.stand_in import NAME, Place, build

Act = Callable[[Place, int], int | str]


def publish(place: Place, turn: int) -> int:
    """Publish a graph with a configuration and labels of its own; these are what is served then."""
    mark, built = f"{os.getpid()}.{turn}", place.folder / str(os.getpid())
    build(built, mark, mark, NAME)
    with place.repository.changing(NAME):
        version = place.repository.publish(read_card(built), built / FP32_FILE, built, configure=True).name
        assert place.served()[NAME] == (mark, mark, mark)
    return int(version)


def publish_patiently(place: Place, turn: int) -> int:
    """Publish a graph as the commands do, which wait for others."""
    mark, built = f"{os.getpid()}.{turn}", place.folder / str(os.getpid())
    build(built, mark, mark, NAME)
    repository = Repository(place.repository.folder, lambda _: None)
    return int(repository.publish(read_card(built), built / FP32_FILE, built, configure=True).name)


def export_and_publish(place: Place, turn: int) -> int:
    """Export into the folder that others export into too, and publish what is there."""
    mark, built = f"{os.getpid()}.{turn}", place.folder / "build" / NAME
    with replacing(built) as new:
        build(new, mark, mark, NAME)
        card = read_card(new)
    return int(place.repository.publish(card, built / FP32_FILE, built, configure=True).name)


def remove(place: Place, turn: int) -> str:
    """Remove the oldest version, by the command."""
    del turn
    return place.models("remove", NAME, str(place.repository.versions(NAME)[0]))


def roll_back(place: Place, turn: int) -> str:
    """Roll back, by the command."""
    del turn
    return place.models("rollback", NAME)


def tune(place: Place, turn: int) -> str:
    """Write a setting as `fairlane tune` does."""

    def edited(text: str) -> str:
        assert text.count(" count: ") == 1
        before, after = text.split(" count: ")
        return f"{before} count: {turn % 4 + 1}{after[1:]}"

    place.repository.rewrite_config(NAME, edited)
    return ""


def list_(place: Place, turn: int) -> str:
    """List the versions, by the command, which nobody may disturb."""
    del turn
    told = place.models("list")
    assert not told, told
    return told


ROLES: Final[dict[str, Act]] = {
    "publish": publish,
    "publish patiently": publish_patiently,
    "export and publish": export_and_publish,
    "remove": remove,
    "roll back": roll_back,
    "tune": tune,
    "list": list_,
}


def _rounds(place: Place, act: Act, count: int) -> Iterator[Any]:
    for turn in range(count):
        try:
            yield act(place, turn)
        except ExportError as error:
            yield f"Error: {error}\n"


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    print(json.dumps(list(_rounds(Place(Path(sys.argv[1])), ROLES[sys.argv[2]], int(sys.argv[3])))))
